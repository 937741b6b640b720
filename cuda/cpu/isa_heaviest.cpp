// SPDX-License-Identifier: Apache-2.0
// The faces of largest weight that each pixel sees, in a list, and the way back.
#include "heaviest_bands.h"
#include "search.h"

namespace gd {
namespace {

template <class T>
using Job = geodiff::HeaviestJob<T>;

template <class T>
void find(const Job<T>& job) {
    const Scene<T> scene(job);
    each_image(job, [&](i64 image, int threads) { find_heaviest(job, scene, image, threads); });
}

template <class T>
void list(const Job<T>& job) {
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const i64 blocks = job.images * bands, size = i64(job.height) * job.width;
    Scratch<i64> pixels(blocks + 1), points(blocks + 1);  // before each band
    pixels[0] = points[0] = 0;
    for (i64 block = 0; block < blocks; ++block) {
        const int first = int(block % bands) * kZBandRows, end = min(first + kZBandRows, job.height);
        const int* count = job.count + block / bands * size;
        pixels[block + 1] = pixels[block];
        points[block + 1] = points[block];
        for (i64 i = i64(first) * job.width; i < i64(end) * job.width; ++i) {
            pixels[block + 1] += count[i] > 0 ? 1 : 0;
            points[block + 1] += count[i];
        }
    }
    parallel(blocks, threads_for(job), [&](i64 block) {
        const i64 image = block / bands;
        const int first = int(block % bands) * kZBandRows, end = min(first + kZBandRows, job.height);
        const int* count = job.count + image * size;
        const auto* found = static_cast<const Found<T>*>(job.kept[block]);
        const auto* from = static_cast<const i64*>(job.kept[block]);
        i64 pixel = pixels[block], at = points[block];
        i64 c = i64(first) * job.width;
        while (c < i64(end) * job.width) {
            const Found<T>* own = found + *from++;
            for (const i64 stop = c + min(i64(kLane), job.width - c % job.width); c < stop; ++c) {
                if (count[c] == 0) continue;
                job.place[pixel] = image * size + c;
                job.start[pixel++] = at;
                for (int i = 0; i < count[c]; ++i, ++own, ++at) {
                    job.face[at] = own->face;
                    job.distance[at] = own->distance;
                    job.depth[at] = own->depth;
                    for (int k = 0; k < 3; ++k) job.barycentric[3 * at + k] = own->barycentric[k];
                }
            }
        }
    });
    job.start[pixels[blocks]] = points[blocks];
}

constexpr int kItems = kLane;  // fragments side by side

// What is said of kItems fragments of one face.
template <class T>
struct Items {
    T x[kItems], y[kItems], outside[kItems];
    double distance[kItems], barycentric[3][kItems], depth[kItems];

    // Those from `from` on; beyond the last one nothing is passed back.
    Items(const Job<T>& job, const Scene<T>& scene, i64 first, const int* pixel, const int* items, i64 from, i64 count) {
        for (int i = 0; i < kItems; ++i) {
            const bool used = from + i < count;
            const int item = items[used ? from + i : count - 1], cell = pixel[item];
            const i64 at = first + item;
            x[i] = scene.grid.x(cell % job.width);
            y[i] = scene.grid.y(cell / job.width);
            outside[i] = job.distance[at] >= T(0) ? T(0) : T(-1);
            distance[i] = used && job.up_distance ? double(job.up_distance[at]) : 0.0;
            depth[i] = used && job.up_depth ? double(job.up_depth[at]) : 0.0;
            for (int k = 0; k < 3; ++k) {
                barycentric[k][i] = used && job.up_barycentric ? double(job.up_barycentric[3 * at + k]) : 0.0;
            }
        }
    }
};

// Of a triangle that is not cut: what fragments pass back to it, the same as fragment_backward, side by side.
template <class T>
struct TriangleGradient {
    double x[3][kItems], y[3][kItems], w[3][kItems], corner[3][4][kItems];

    TriangleGradient() {
        for (int k = 0; k < 3; ++k) {
            for (int i = 0; i < kItems; ++i) {
                x[k][i] = y[k][i] = w[k][i] = 0;
                for (int c = 0; c < 4; ++c) corner[k][c][i] = 0;
            }
        }
    }

    void add(const Items<T>& own, const Clip<T> corners[3], const Polygon<T>& p, const Edge<T>* edges) {
        T ox[kItems], oy[kItems], side[kItems], edge[kItems], along[kItems], dx[kItems], dy[kItems];
        copy_lane(ox, own.x);
        copy_lane(oy, own.y);
        copy_lane(side, own.outside);
        {
            const Edge<T> e0 = edges[0], e1 = edges[1], e2 = edges[2];
#pragma GCC ivdep
            for (int i = 0; i < kItems; ++i) {
                Nearest<T> near = no_edge<T>();
                meet(near, e0, T(0), ox[i], oy[i]);
                meet(near, e1, T(1), ox[i], oy[i]);
                meet(near, e2, T(2), ox[i], oy[i]);
                near.side = side[i];
                direction<false>(near, dx[i], dy[i]);
                edge[i] = near.edge;
                along[i] = near.along;
            }
        }
        const Clip<T> c[3] = {corners[0], corners[1], corners[2]};
        const double px[3] = {double(p.x[0]), double(p.x[1]), double(p.x[2])};
        const double py[3] = {double(p.y[0]), double(p.y[1]), double(p.y[2])};
        const double pw[3] = {double(p.w[0]), double(p.w[1]), double(p.w[2])};
        const double z[3] = {double(c[0].depth), double(c[1].depth), double(c[2].depth)};
#pragma GCC ivdep
        for (int i = 0; i < kItems; ++i) {
            const bool inside = own.outside[i] >= T(0);
            const double gx = own.distance[i] * double(dx[i]), gy = own.distance[i] * double(dy[i]);
            const double t = double(along[i]), px_i = double(own.x[i]), py_i = double(own.y[i]), up_depth = own.depth[i];
            const double up[3] = {own.barycentric[0][i] + up_depth * z[0], own.barycentric[1][i] + up_depth * z[1],
                                  own.barycentric[2][i] + up_depth * z[2]};
            const double within[3] = {inside ? up[0] : 0.0, inside ? up[1] : 0.0, inside ? up[2] : 0.0};
            Clip<double> share[3];
            inside_share(c, px_i, py_i, within, inside ? up_depth : 0.0, share);
            // Edge k → l, as outside_backward.
            const bool first = edge[i] == T(0), second = edge[i] == T(1);
            const double wk = first ? pw[0] : second ? pw[1] : pw[2], wl = first ? pw[1] : second ? pw[2] : pw[0];
            const double kx = first ? px[0] : second ? px[1] : px[2], lx = first ? px[1] : second ? px[2] : px[0];
            const double ky = first ? py[0] : second ? py[1] : py[2], ly = first ? py[1] : second ? py[2] : py[0];
            const double up_k = first ? up[0] : second ? up[1] : up[2], up_l = first ? up[1] : second ? up[2] : up[0];
            const double den = t * wk + (1 - t) * wl, s = t * wk / den;
            const double by_den2 = inside ? 0.0 : (up_l - up_k) / (den * den), by_w = by_den2 * t * (1 - t);
            const double ex = lx - kx, ey = ly - ky, qx = px_i - kx, qy = py_i - ky, length2 = ex * ex + ey * ey;
            const bool strip = !inside && t > 0 && t < 1;
            const double scale = strip ? by_den2 * wk * wl / length2 : 0.0, up_z = inside ? 0.0 : up_depth;
            const double at_k[4] = {(1 - t) * gx + scale * (2 * t * ex - ex - qx),
                                    (1 - t) * gy + scale * (2 * t * ey - ey - qy), by_w * wl, up_z * (1 - s)};
            const double at_l[4] = {t * gx + scale * (qx - 2 * t * ex), t * gy + scale * (qy - 2 * t * ey),
                                    -by_w * wk, up_z * s};
            for (int k = 0; k < 3; ++k) {
                const bool is_k = k == 0 ? first : k == 1 ? second : !first && !second;
                const bool is_l = k == 1 ? first : k == 2 ? second : !first && !second;
                x[k][i] += is_k ? at_k[0] : is_l ? at_l[0] : 0.0;
                y[k][i] += is_k ? at_k[1] : is_l ? at_l[1] : 0.0;
                w[k][i] += is_k ? at_k[2] : is_l ? at_l[2] : 0.0;
                corner[k][0][i] += share[k].x;
                corner[k][1][i] += share[k].y;
                corner[k][2][i] += share[k].depth + (is_k ? at_k[3] : is_l ? at_l[3] : 0.0);
                corner[k][3][i] += share[k].w;
            }
        }
    }

    void pass_on(FaceGradient& g) const {
        for (int k = 0; k < 3; ++k) {
            for (int i = 0; i < kItems; ++i) {
                g.x[k] += x[k][i];
                g.y[k] += y[k][i];
                g.w[k] += w[k][i];
                g.corner[k].x += corner[k][0][i];
                g.corner[k].y += corner[k][1][i];
                g.corner[k].depth += corner[k][2][i];
                g.corner[k].w += corner[k][3][i];
            }
        }
    }
};

template <class T>
void backward(const Job<T>& job) {
    const Scene<T> scene(job);
    const T nothing[3] = {T(0), T(0), T(0)};
    each_image(job, [&](i64 image, int threads) {
        const i64 size = i64(job.height) * job.width, base = image * size;
        const i64 from = first_at_least(job.place, job.pixels, base), to = first_at_least(job.place, job.pixels, base + size);
        const i64 first = job.start[from], count = job.start[to] - first;
        Scratch<int> pixel(count);
        for (i64 q = from; q < to; ++q) {
            for (i64 i = job.start[q]; i < job.start[q + 1]; ++i) pixel[i - first] = int(job.place[q] - base);
        }
        const ByFace by_face(scene.faces_of(image), count, [&](i64 i) { return job.face[first + i]; });
        faces_backward(scene, image, threads, by_face, [&](const int* items, i64 own, const Clip<T>* corner,
                                                           const Polygon<T>& p, const Edge<T>* edges, FaceGradient& g) {
            if (!is_cut(p)) {
                TriangleGradient<T> sums;
                for (i64 i = 0; i < own; i += kItems) {
                    sums.add(Items<T>(job, scene, first, pixel.get(), items, i, own), corner, p, edges);
                }
                return sums.pass_on(g);
            }
            for (i64 i = 0; i < own; ++i) {
                const i64 at = first + items[i];
                const int cell = pixel[items[i]];
                const T* by = job.up_barycentric ? job.up_barycentric + 3 * at : nothing;
                const double up[3] = {double(by[0]), double(by[1]), double(by[2])};
                fragment_backward(corner, p, edges, scene.grid.x(cell % job.width), scene.grid.y(cell / job.width),
                                  job.distance[at] >= T(0), job.up_distance ? double(job.up_distance[at]) : 0.0, up,
                                  job.up_depth ? double(job.up_depth[at]) : 0.0, g);
            }
        });
    });
}

}  // namespace

const geodiff::Kernel<geodiff::HeaviestJob> kernel::heaviest_find = {find, find};
const geodiff::Kernel<geodiff::HeaviestJob> kernel::heaviest_list = {list, list};
const geodiff::Kernel<geodiff::HeaviestJob> kernel::heaviest_backward = {backward, backward};

}  // namespace gd
