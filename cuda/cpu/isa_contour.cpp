// SPDX-License-Identifier: Apache-2.0
// Contour coverage on the CPU: the signed distance of every pixel centre to the outline of the image, and the way back.
//
// faces → orientation and hard mask; sides → candidate segments; segments → cuts → pieces that border on background;
// tiles of pixels → nearest piece. Faces and tiles are spread over the threads; what they find is kept in their order.
#include "outline.h"

namespace gd {
namespace {

template <class T>
using Job = geodiff::ContourJob<T>;

constexpr int kTile = 64;      // pixels of a root tile: what threads share out
constexpr int kLeafRows = 4;   // a leaf's pixels, 4 × 8, are measured together
constexpr int kLevels = 6;     // 64, 32, 16, 8 and the leaf
constexpr i64 kBand = 16;      // rows whose shares are collected together in the backward pass
constexpr i64 kSerialFaces = 2000;

// The nearest piece of each pixel of a tile, by halving tiles: a piece that is farther from a tile's centre than the
// nearest one by more than the tile's diagonal is nearest to none of its pixels.
template <class T>
struct Search {
    const Job<T>& job;
    const Grid<T>& grid;
    const Piece* pieces;
    int count;
    const unsigned char* mask;
    i64 image;
    int* lists;      // kLevels × count
    double* sizes;   // count

    void tile(int row, int column, int rows, int columns, int level, const int* from, int n) {
        if (row >= grid.height || column >= grid.width) return;
        const double step = 2.0 / shorter_side(grid.height, grid.width);
        const double x = pixel_x<double>(grid.height, grid.width, column) + 0.5 * (columns - 1) * step;
        const double y = pixel_y<double>(grid.height, grid.width, row) - 0.5 * (rows - 1) * step;
        const double half = 0.5 * step * sqrt(double(rows - 1) * (rows - 1) + double(columns - 1) * (columns - 1));
        double least = Real<double>::largest;
        for (int i = 0; i < n; ++i) {
            sizes[i] = distance2(pieces[from ? from[i] : i], x, y);
            least = min(least, sizes[i]);
        }
        const double reach = max(job.radius_outside, job.radius_inside);
        // Centres are rounded to T; the image's longer side says by how much.
        const double rounding = 4 * double(Real<T>::epsilon) * max(grid.height, grid.width) * step + 1e-12;
        const double bound = min(sqrt(least) + 2 * half, reach + half) * (1 + 1e-9) + rounding;
        const double bound2 = bound < 1e150 ? bound * bound : Real<double>::largest;
        int* own = lists + i64(level) * count;
        int kept = 0;
        for (int i = 0; i < n; ++i) {
            own[kept] = from ? from[i] : i;
            kept += sizes[i] <= bound2 ? 1 : 0;
        }
        if (kept == 0) {
            far_off(row, column, rows, columns);
            return;
        }
        if (rows <= kLeafRows) {
            leaf(row, column, own, kept);
            return;
        }
        if (rows == 8) {
            tile(row, column, kLeafRows, 8, level + 1, own, kept);
            tile(row + kLeafRows, column, kLeafRows, 8, level + 1, own, kept);
            return;
        }
        for (int i = 0; i < 2; ++i) {
            for (int j = 0; j < 2; ++j) {
                tile(row + i * rows / 2, column + j * columns / 2, rows / 2, columns / 2, level + 1, own, kept);
            }
        }
    }

    void leaf(int row, int column, const int* own, int kept) {
        constexpr int N = kLeafRows * 8;
        double x[N], y[N], best[N], at[N];
        int which[N];
        for (int i = 0; i < N; ++i) {
            x[i] = double(grid.x(column + i % 8));
            y[i] = double(grid.y(row + i / 8));
            best[i] = Real<double>::largest;
            at[i] = 0;
            which[i] = -1;
        }
        for (int j = 0; j < kept; ++j) {
            const Piece p = pieces[own[j]];
            const int number = own[j];
#pragma GCC ivdep
            for (int i = 0; i < N; ++i) {
                const double t = along_piece(p, x[i], y[i]);
                const double dx = x[i] - p.ax - t * p.ex, dy = y[i] - p.ay - t * p.ey;
                const double d2 = dx * dx + dy * dy;
                const bool closer = d2 < best[i];
                best[i] = closer ? d2 : best[i];
                at[i] = closer ? t : at[i];
                which[i] = closer ? number : which[i];
            }
        }
        for (int i = 0; i < N; ++i) {
            const int r = row + i / 8, c = column + i % 8;
            if (r < grid.height && c < grid.width) put(r, c, best[i], at[i], which[i]);
        }
    }

    // What pixels get that no piece is near to.
    void far_off(int row, int column, int rows, int columns) {
        const int end = min(column + columns, grid.width);
        for (int r = row; r < min(row + rows, grid.height); ++r) {
            const i64 start = (image * job.height + r) * job.width;
            for (int c = column; c < end; ++c) {
                const bool inside = mask[i64(r) * job.width + c] != 0;
                job.distance[start + c] = T(inside ? __builtin_inf() : -__builtin_inf());
                job.along[start + c] = T(0);
            }
            for (i64 i = 2 * (start + column); i < 2 * (start + end); ++i) job.nearest[i] = -1;
        }
    }

    void put(int row, int column, double d2, double at, int which) {
        const i64 pixel = (image * job.height + row) * job.width + column;
        const bool inside = mask[i64(row) * job.width + column] != 0;
        const double d = sqrt(d2);
        if (which < 0 || d > (inside ? job.radius_inside : job.radius_outside)) {
            far_off(row, column, 1, 1);
            return;
        }
        job.distance[pixel] = T(inside ? d : -d);
        job.along[pixel] = T(at);
        job.nearest[2 * pixel] = pieces[which].segment;
        job.nearest[2 * pixel + 1] = nearest_kind(pieces[which], at);
    }
};

// Segments become the numbers 4·face + edge, which the backward pass can find again without the outline.
template <class T>
void encode(const Job<T>& job, i64 image, const List<Segment>& segments) {
    const i64 pixels = i64(job.height) * job.width;
    int* nearest = job.nearest + 2 * image * pixels;
    for (i64 i = 0; i < pixels; ++i) {
        if (nearest[2 * i] < 0) continue;
        nearest[2 * i] = segments[nearest[2 * i]].code;
        if (nearest[2 * i + 1] >= 0) nearest[2 * i + 1] = segments[nearest[2 * i + 1]].code;
    }
}

template <class T>
void measure(const Job<T>& job, const Projected& points, i64 image, int threads) {
    const Grid<T> grid(job.height, job.width);
    const i64 pixels = i64(job.height) * job.width;
    Scratch<unsigned char> mask(pixels);
    for (i64 i = 0; i < pixels; ++i) mask[i] = 0;
    Outline<T> outline(job, grid, points, image, threads);
    outline.find(mask.get());
    const int count = int(outline.pieces.size());
    const i64 across = (job.width + kTile - 1) / kTile, down = (job.height + kTile - 1) / kTile;
    parallel(across * down, threads, [&](i64 t) {
        Scratch<int> lists(i64(kLevels) * count);
        Scratch<double> sizes(count);
        Search<T> search{job, grid, outline.pieces.get(), count, mask.get(), image, lists.get(), sizes.get()};
        search.tile(int(t / across) * kTile, int(t % across) * kTile, kTile, kTile, 0, nullptr, count);
    });
    encode(job, image, outline.segments);
}

template <class T>
void forward(const Job<T>& job) {
    Projected points(job);
    if (job.images >= kManyImages) {
        parallel(job.images, job.threads, [&](i64 image) { measure(job, points, image, 1); });
        return;
    }
    for (i64 image = 0; image < job.images; ++image) {
        const bool small = job.layout[3 * image + 2] < kSerialFaces && i64(job.height) * job.width < 64 * 64;
        measure(job, points, image, small ? 1 : job.threads);
    }
}

// --------------------------------------------------------------------------------------------------------- backward

// What a run of neighbouring pixels with the same nearest edge gives to its ends.
struct Share {
    int code;
    EndGradient ends;
};

template <class T>
struct Gatherer {
    const Job<T>& job;
    const Grid<T>& grid;
    const Projected& points;
    i64 image;
    List<Share>& shares;
    // The edge of the run at hand, and that of the pixel at hand's crossing.
    View view, other;
    int code = -1, other_code = -1;

    void view_of(int wanted, View& v, int& known) const {
        if (wanted == known) return;
        v = face_view(job, points, image, wanted / 4);
        known = wanted;
    }

    static void add(EndGradient& to, const EndGradient& g, double w) {
        to.ax += w * g.ax;
        to.ay += w * g.ay;
        to.bx += w * g.bx;
        to.by += w * g.by;
    }

    void rows(int first, int end) {
        for (int row = first; row < end; ++row) {
            const double y = double(grid.y(row));
            Share run{-1, {0, 0, 0, 0}};
            for (int column = 0; column < job.width; ++column) {
                const i64 pixel = (image * job.height + row) * job.width + column;
                const double w = double(job.upstream[pixel]);
                const int e = job.nearest[2 * pixel], kind = job.nearest[2 * pixel + 1];
                if (e < 0 || w == 0) continue;
                const double x = double(grid.x(column));
                const bool inside = !(job.distance[pixel] < T(0));
                view_of(e, view, code);
                if ((e & 3) >= view.n) continue;  // no such edge: `nearest` is not what the forward pass left
                if (e != run.code) {
                    if (run.code >= 0) shares.push(run);
                    run = {e, {0, 0, 0, 0}};
                }
                if (kind < 0) {
                    add(run.ends, point_gradient(view, e & 3, kind, double(job.along[pixel]), x, y, inside), w);
                    continue;
                }
                view_of(kind, other, other_code);
                if ((kind & 3) >= other.n) continue;
                EndGradient to_e, to_f;
                crossing_gradient(view, e & 3, other, kind & 3, x, y, inside, to_e, to_f);
                add(run.ends, to_e, w);
                Share single{kind, {0, 0, 0, 0}};
                add(single.ends, to_f, w);
                shares.push(single);
            }
            if (run.code >= 0) shares.push(run);
        }
    }
};

template <class T>
void scatter(const Job<T>& job, i64 image, const Share& share, double* grad) {
    const int face = share.code / 4, k = share.code & 3;
    const int* index = job.faces + 3 * (job.layout[3 * image + 1] + face);
    Clip<double> corner[3];
    load_corners(job, image, face, corner);
    const Polygon<double> p = make_polygon(corner, double(job.near));
    double gx[4] = {0, 0, 0, 0}, gy[4] = {0, 0, 0, 0};
    if (k >= p.n) return;
    const int l = k + 1 == p.n ? 0 : k + 1;
    gx[k] = share.ends.ax;
    gy[k] = share.ends.ay;
    gx[l] = share.ends.bx;
    gy[l] = share.ends.by;
    Clip<double> out[3] = {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
    polygon_backward(corner, p, gx, gy, out);
    for (int i = 0; i < 3; ++i) {
        double* into = grad + 4 * (job.layout[3 * image] + index[i]);
        into[0] += out[i].x;
        into[1] += out[i].y;
        into[2] += out[i].depth;
        into[3] += out[i].w;
    }
}

template <class T>
void backward_image(const Job<T>& job, const Projected& points, i64 image, int threads, double* grad) {
    const i64 bands = (job.height + kBand - 1) / kBand;
    const Grid<T> grid(job.height, job.width);
    Lists<Share> shares(bands);
    parallel(bands, threads, [&](i64 band) {
        Gatherer<T> gatherer{job, grid, points, image, shares[band], {}, {}};
        gatherer.rows(int(band * kBand), int(min(i64(job.height), (band + 1) * kBand)));
    });
    for (i64 band = 0; band < bands; ++band) {
        for (i64 i = 0; i < shares[band].size(); ++i) scatter(job, image, shares[band][i], grad);
    }
}

template <class T>
void backward(const Job<T>& job) {
    const Projected points(job);
    Scratch<double> grad(4 * job.vertices);
    for (i64 i = 0; i < 4 * job.vertices; ++i) grad[i] = 0;
    if (job.images >= kManyImages) {
        parallel(job.images, job.threads, [&](i64 image) { backward_image(job, points, image, 1, grad.get()); });
    } else {
        const int threads = i64(job.height) * job.width < 64 * 64 ? 1 : job.threads;
        for (i64 image = 0; image < job.images; ++image) backward_image(job, points, image, threads, grad.get());
    }
    for (i64 i = 0; i < 4 * job.vertices; ++i) job.grad_clip[i] = T(grad[i]);
}

}  // namespace

const geodiff::Kernel<geodiff::ContourJob> kernel::contour_forward = {forward, forward};
const geodiff::Kernel<geodiff::ContourJob> kernel::contour_backward = {backward, backward};

}  // namespace gd
