// SPDX-License-Identifier: Apache-2.0
// The one face that each pixel sees, pixels that see one in a list; and the way back.
//
// Which face it is, is found band by band as for fragments; how long the list is, is known only then. So there are two
// calls: `visible_find` leaves a face for each pixel, and `visible_list` writes the list, rows in parallel.
#include "fragment_bands.h"
#include "search.h"

namespace gd {
namespace {

template <class T>
using Job = geodiff::VisibleJob<T>;

template <class T>
void find(const Job<T>& job) {
    const Scene<T> scene(job);
    each_image(job, [&](i64 image, int threads) {
        draw_image(scene, image, threads,
                   [&](const Lists<T>& lists, i64, int first, int end, int stride, const HardFace<T>*) {
            for (int row = first; row < end; ++row) {
                const int* from = lists.id.get() + i64(row - first) * stride;
                int* to = job.winner + (image * job.height + row) * job.width;
                for (int column = 0; column < job.width; ++column) to[column] = from[column];
            }
        });
    });
    i64 total = 0;
    for (i64 i = 0; i < job.images * job.height * job.width; ++i) total += job.winner[i] >= 0 ? 1 : 0;
    *job.total = total;
}

// A face, kept for the pixels to come: neighbours mostly share theirs, in this row and the next. What only pixels inside or
// outside of it need is made when the first of them comes.
template <class T>
struct Known {
    i64 image = -1;
    int face = -1;
    bool has_edges, has_planes;
    Clip<T> corner[3];
    Polygon<T> polygon;
    Edge<T> edges[4];
    HardFace<T> hard;

    void set(const Scene<T>& scene, i64 i, int f) {
        if (f == face && i == image) return;
        image = i;
        face = f;
        has_edges = has_planes = false;
        scene.corners(image, f, corner);
        polygon = make_polygon(corner, scene.job.near);
    }
    void barycentric(T x, T y, bool inside, T out[3]) {
        if (inside) {
            if (!has_planes) hard_face(corner, polygon, hard);
            has_planes = true;
            barycentric_at(hard, x, y, out);
            return;
        }
        for (int k = 0; !has_edges && k < polygon.n; ++k) edges[k] = make_edge(polygon, k);
        has_edges = true;
        const Fragment<T> f = fragment_at(corner, polygon, edges, hard, x, y, false);
        for (int i = 0; i < 3; ++i) out[i] = f.barycentric[i];
    }
};

constexpr int kKept = 64;  // faces

template <class T>
void write_row(const Job<T>& job, const Scene<T>& scene, i64 row, i64 at, Known<T>* kept) {
    const i64 image = row / job.height;
    const T y = scene.grid.y(int(row % job.height));
    const int* winner = job.winner + row * job.width;
    for (int column = 0; column < job.width; ++column) {
        if (winner[column] < 0) continue;
        const bool inside = winner[column] & 1;
        Known<T>& known = kept[(winner[column] >> 1) % kKept];
        known.set(scene, image, winner[column] >> 1);
        known.barycentric(scene.grid.x(column), y, inside, job.barycentric + 3 * at);
        job.place[at] = row * job.width + column;
        job.face[at] = known.face;
        job.inside[at] = inside;
        ++at;
    }
}

template <class T>
void list(const Job<T>& job) {
    const Scene<T> scene(job);
    const i64 rows = job.images * job.height, blocks = (rows + kZBandRows - 1) / kZBandRows;
    Scratch<i64> start(rows + 1);
    start[0] = 0;
    parallel(blocks, threads_for(job), [&](i64 block) {
        for (i64 row = block * kZBandRows; row < min(rows, (block + 1) * kZBandRows); ++row) {
            const int* winner = job.winner + row * job.width;
            int count = 0;
            for (int column = 0; column < job.width; ++column) count += winner[column] >= 0 ? 1 : 0;
            start[row + 1] = count;
        }
    });
    for (i64 row = 0; row < rows; ++row) start[row + 1] += start[row];
    parallel(blocks, threads_for(job), [&](i64 block) {
        Known<T> kept[kKept];
        for (i64 row = block * kZBandRows; row < min(rows, (block + 1) * kZBandRows); ++row) {
            write_row(job, scene, row, start[row], kept);
        }
    });
}

constexpr int kPixels = 8;  // lanes

// Adds the pixels (of an image that starts at `base`) of one face. Those on the rim are few; the others go side by side.
template <class T>
void face_pixels(const Job<T>& job, const Scene<T>& scene, i64 base, i64 first, const int* items, i64 count,
                 const Clip<T>* corner, const Polygon<T>& p, const Edge<T>* edges, FaceGradient& g) {
    double sums[9][kPixels];
    for (int c = 0; c < 9; ++c) {
        for (int i = 0; i < kPixels; ++i) sums[c][i] = 0;
    }
    const Clip<T> corners[3] = {corner[0], corner[1], corner[2]};
    for (i64 group = 0; group < count; group += kPixels) {
        double x[kPixels], y[kPixels], up[3][kPixels];
        for (int i = 0; i < kPixels; ++i) {
            const bool used = group + i < count;
            const i64 at = first + items[used ? group + i : count - 1];
            const int pixel = int(job.place[at] - base);
            const T px = scene.grid.x(pixel % job.width), py = scene.grid.y(pixel / job.width);
            const T* by = job.up_barycentric + 3 * at;
            const bool lane = used && job.inside[at];
            x[i] = px;
            y[i] = py;
            for (int k = 0; k < 3; ++k) up[k][i] = lane ? double(by[k]) : 0.0;
            if (!used || lane) continue;
            const double own[3] = {double(by[0]), double(by[1]), double(by[2])};
            fragment_backward(corner, p, edges, px, py, false, 0.0, own, 0.0, g);
        }
#pragma GCC ivdep
        for (int i = 0; i < kPixels; ++i) {
            const double own[3] = {up[0][i], up[1][i], up[2][i]};
            Clip<double> share[3];
            inside_share(corners, x[i], y[i], own, 0.0, share);
            for (int k = 0; k < 3; ++k) {
                sums[3 * k][i] += share[k].x;
                sums[3 * k + 1][i] += share[k].y;
                sums[3 * k + 2][i] += share[k].w;
            }
        }
    }
    for (int k = 0; k < 3; ++k) {
        for (int i = 0; i < kPixels; ++i) {
            g.corner[k].x += sums[3 * k][i];
            g.corner[k].y += sums[3 * k + 1][i];
            g.corner[k].w += sums[3 * k + 2][i];
        }
    }
}

template <class T>
void backward(const Job<T>& job) {
    const Scene<T> scene(job);
    each_image(job, [&](i64 image, int threads) {
        const i64 pixels = i64(job.height) * job.width, base = image * pixels;
        const i64 first = first_at_least(job.place, job.points, base);
        const i64 count = first_at_least(job.place, job.points, base + pixels) - first;
        const ByFace by_face(scene.faces_of(image), count, [&](i64 i) { return job.face[first + i]; });
        faces_backward(scene, image, threads, by_face,
                       [&](auto&&... face) { face_pixels(job, scene, base, first, face...); });
    });
}

}  // namespace

const geodiff::Kernel<geodiff::VisibleJob> kernel::visible_find = {find, find};
const geodiff::Kernel<geodiff::VisibleJob> kernel::visible_list = {list, list};
const geodiff::Kernel<geodiff::VisibleJob> kernel::visible_backward = {backward, backward};

}  // namespace gd
