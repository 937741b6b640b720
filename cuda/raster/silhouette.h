// SPDX-License-Identifier: Apache-2.0
// The soft silhouette on the GPU: the mathematics of the CPU build (polygon.h, distance.h, distributions.h, tconorms.h, power_levels.h)
// under another schedule. Compiled at first use, one instance for each (type, distribution, T-conorm) asked for.
//
//   silhouette_setup     one thread a face: clip and project it, once for all pixels
//   silhouette_forward   one block a tile of pixels; the faces that reach it are collected in order, then summed
//   silhouette_backward  one block a face; its pixels' shares are added in a fixed tree, no atomics
//   silhouette_scatter   one thread a vertex; adds the corners that meet there, in order
//
// Not yet run on a device: so far compilers alone have seen this file (.ci/compile_kernels.py).
#pragma once
#include "../kernel.h"
#include "../power_levels.h"
#include "distance.h"
#include "grid.h"

#if GEODIFF_KERNELS

namespace gd {

// Distributions with one interface for the kernels: F at x, reversed or not.
template <class D, bool Reversed>
struct Law {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x, T shift, const GammaTable<T>*) {
        if constexpr (Reversed) {
            return reversed(D::at(shift - x));
        } else {
            return D::at(x + shift);
        }
    }
};

template <bool Reversed>
struct Law<Gamma, Reversed> {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x, T shift, const GammaTable<T>* table) {
        const T v[1] = {Reversed ? shift - x : x + shift};
        CdfBlock<T, 1> b;
        Gamma::at<false>(*table, v, b);
        const Cdf<T> c = {b.F[0], b.S[0], b.log_F[0], b.log_S[0], b.over_S[0], b.over_F[0]};
        return Reversed ? reversed(c) : c;
    }
};

template <class A, class B>
struct Same {
    static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
    static constexpr bool value = true;
};

// Whether a pixel keeps a highest level in `sum` and, one image stack further, the sum relative to it.
template <class C>
struct KeepsLevels {
    static constexpr bool value = false;
};
template <class G>
struct KeepsLevels<NormLevels<G>> {
    static constexpr bool value = true;
};
template <>
struct KeepsLevels<SchweizerSklarLevels> {
    static constexpr bool value = true;
};

template <class T>
struct SilhouetteArguments {
    const T* clip;             // (N, 4)
    const int* faces;          // (F, 3)
    const i64* layout;         // (B, 3)
    const Polygon<T>* polygons;  // (B, most faces)
    const GammaTable<T>* gamma;
    int most_faces, height, width;
    T near, inverse_scale, radius, shift;
    TConormParams<T> tconorm;
    T q;  // |p|, for levels
};

template <class T>
GEODIFF_HD void pixel_centre(int height, int width, int row, int column, T& x, T& y) {
    x = pixel_x<T>(height, width, column);
    y = pixel_y<T>(height, width, row);
}

// What the tiles and the pixels of a face are compared with.
template <class T>
struct Box {
    T left, right, bottom, top;
};

template <class T>
GEODIFF_HD Box<T> box_of(const Polygon<T>& p, T margin) {
    Box<T> box = {p.x[0], p.x[0], p.y[0], p.y[0]};
    for (int k = 1; k < p.n; ++k) {
        box.left = min(box.left, p.x[k]);
        box.right = max(box.right, p.x[k]);
        box.bottom = min(box.bottom, p.y[k]);
        box.top = max(box.top, p.y[k]);
    }
    return {box.left - margin, box.right + margin, box.bottom - margin, box.top + margin};
}

// A coverage says what of a face covers a pixel:
//   touches(p, radius, tile)  whether it may reach a pixel of the tile
//   reach(p, radius)          a box around the pixels that it reaches
//   Pair at(a, p, x, y)       c, the CDF at a pixel, and whether the face `counts` there
//   add(p, pair, w, gx, gy)   w·∂x/∂corner

// F of the signed distance to the face.
struct FaceCoverage {
    template <class T>
    struct Pair {
        Nearest<T> near;
        Cdf<T> c;
        bool counts;
    };
    template <class T>
    GEODIFF_HD static bool touches(const Polygon<T>& p, T radius, const Box<T>& tile) {
        const Box<T> box = box_of(p, radius);
        return box.left <= tile.right && box.right >= tile.left && box.bottom <= tile.top && box.top >= tile.bottom;
    }
    template <class T>
    GEODIFF_HD static Box<T> reach(const Polygon<T>& p, T radius) {
        return box_of(p, radius);
    }
    template <class L, bool Squared, class T>
    GEODIFF_HD static Pair<T> at(const SilhouetteArguments<T>& a, const Polygon<T>& p, T x, T y) {
        Pair<T> out;
        out.near = no_edge<T>();
        for (int k = 0; k < p.n; ++k) meet(out.near, make_edge(p, k), T(k), x, y);
        out.counts = out.near.side >= T(0) || out.near.d2 <= a.radius * a.radius;
        if (!out.counts) return out;
        const T size = Squared ? out.near.d2 : sqrt(out.near.d2);
        out.c = L::at((out.near.side >= T(0) ? size : -size) * a.inverse_scale, a.shift, a.gamma);
        return out;
    }
    template <bool Squared, class T>
    GEODIFF_HD static void add(const Polygon<T>& p, const Pair<T>& pair, T weight, T gx[4], T gy[4]) {
        T dx, dy;
        direction<Squared>(pair.near, dx, dy);
        const int k = int(pair.near.edge), l = k + 1 == p.n ? 0 : k + 1;
        for (int j = 0; j < 4; ++j) {
            const T b = j == k ? T(1) - pair.near.along : (j == l ? pair.near.along : T(0));
            gx[j] += b * weight * dx;
            gy[j] += b * weight * dy;
        }
    }
};

// ΠF over the lines of the face's edges; see cpu/edge_stage.h.
struct EdgeCoverage {
    template <class T>
    struct Pair {
        T along[4], by_d[4], rate[4];  // rate: f/F of each edge
        Cdf<T> c;
        bool counts;  // every d_k is at least −radius
    };
    // As far as one line at a time can tell.
    template <class T>
    GEODIFF_HD static bool touches(const Polygon<T>& p, T radius, const Box<T>& tile) {
        for (int k = 0; k < p.n; ++k) {
            const Edge<T> e = make_edge(p, k);
            const T x = e.nx > T(0) ? tile.left : tile.right, y = e.ny > T(0) ? tile.bottom : tile.top;
            if (-((x - e.ax) * e.nx + (y - e.ay) * e.ny) < -radius) return false;
        }
        return true;
    }
    // As far as its mitres: a face looks at every pixel.
    template <class T>
    GEODIFF_HD static Box<T> reach(const Polygon<T>&, T) {
        return {T(-1e6), T(1e6), T(-1e6), T(1e6)};
    }
    template <class L, bool Squared, class T>
    GEODIFF_HD static Pair<T> at(const SilhouetteArguments<T>& a, const Polygon<T>& p, T x, T y) {
        Pair<T> out;
        out.counts = true;
        T sum = T(0);
        for (int k = 0; k < p.n; ++k) {
            const Edge<T> e = make_edge(p, k);
            out.rate[k] = T(0);
            if (!(e.inverse > T(0))) continue;
            T d;
            line_distance(e, x, y, d, out.along[k]);
            out.by_d[k] = Squared ? T(2) * abs(d) : T(1);
            out.counts = out.counts && d >= -a.radius;
            const Cdf<T> c = L::at((Squared ? d * abs(d) : d) * a.inverse_scale, a.shift, a.gamma);
            sum += c.log_F;
            out.rate[k] = c.over_F;
        }
        out.c = product_cdf(sum);
        return out;
    }
    template <bool Squared, class T>
    GEODIFF_HD static void add(const Polygon<T>& p, const Pair<T>& pair, T weight, T gx[4], T gy[4]) {
        for (int k = 0; k < p.n; ++k) {
            if (!(pair.rate[k] != T(0)) || weight == T(0)) continue;
            const Edge<T> e = make_edge(p, k);
            const int l = k + 1 == p.n ? 0 : k + 1;
            const T w = weight * (pair.rate[k] * pair.by_d[k]);
            gx[k] += w * (T(1) - pair.along[k]) * e.nx;
            gy[k] += w * (T(1) - pair.along[k]) * e.ny;
            gx[l] += w * pair.along[k] * e.nx;
            gy[l] += w * pair.along[k] * e.ny;
        }
    }
};

template <class T>
__global__ void silhouette_setup(SilhouetteArguments<T> a, Polygon<T>* polygons) {
    const int face = blockIdx.x * blockDim.x + threadIdx.x;
    const i64* row = a.layout + 3 * i64(blockIdx.y);
    if (face >= a.most_faces) return;
    Polygon<T>& out = polygons[i64(blockIdx.y) * a.most_faces + face];
    out.n = 0;
    if (face >= row[2]) return;
    const int* index = a.faces + 3 * (row[1] + face);
    Clip<T> corner[3];
    for (int k = 0; k < 3; ++k) {
        const T* c = a.clip + 4 * (row[0] + index[k]);
        corner[k] = {c[0], c[1], c[2], c[3]};
    }
    out = make_polygon(corner, a.near);
}

// Block: 16 × 16 pixels. Grid: tiles across, tiles down, images.
template <class T, class L, class C, bool Squared, class Coverage = FaceCoverage>
__global__ void silhouette_forward(SilhouetteArguments<T> a, T* alpha, T* sum, int* best) {
    constexpr int kTile = 16, kThreads = kTile * kTile;
    GEODIFF_SHARED(hits, int[kThreads]);
    GEODIFF_SHARED(counts, int[kThreads]);
    const int thread = threadIdx.y * kTile + threadIdx.x;
    const i64 image = blockIdx.z;
    const int count = int(a.layout[3 * image + 2]);
    const int row = blockIdx.y * kTile + threadIdx.y, column = blockIdx.x * kTile + threadIdx.x;
    T x, y;
    Box<T> tile;
    pixel_centre(a.height, a.width, row, column, x, y);
    pixel_centre(a.height, a.width, int(blockIdx.y) * kTile, int(blockIdx.x) * kTile, tile.left, tile.top);
    pixel_centre(a.height, a.width, int(blockIdx.y) * kTile + kTile - 1, int(blockIdx.x) * kTile + kTile - 1, tile.right,
                 tile.bottom);
    T total = T(0), power = T(0);
    if constexpr (KeepsLevels<C>::value) total = C::template none<T>();
    int winner = -1;
    for (int start = 0; start < count; start += kThreads) {
        const int face = start + thread;
        bool touches = false;
        if (face < count) {
            const Polygon<T>& p = a.polygons[image * a.most_faces + face];
            touches = p.n != 0 && Coverage::touches(p, a.radius, tile);
        }
        // Positions by a prefix sum, so that faces keep their order and sums their bits.
        counts[thread] = touches ? 1 : 0;
        __syncthreads();
        for (int step = 1; step < kThreads; step *= 2) {
            const int add = thread >= step ? counts[thread - step] : 0;
            __syncthreads();
            counts[thread] += add;
            __syncthreads();
        }
        if (touches) hits[counts[thread] - 1] = face;
        __syncthreads();
        const int found = counts[kThreads - 1];
        for (int i = 0; i < found; ++i) {
            const Polygon<T>& p = a.polygons[image * a.most_faces + hits[i]];
            const auto pair = Coverage::template at<L, Squared>(a, p, x, y);
            if (!pair.counts) continue;
            const Cdf<T>& c = pair.c;
            if constexpr (Same<C, Maximum>::value) {
                if (c.F > total) {
                    total = c.F;
                    winner = hits[i];
                }
            } else if constexpr (Same<C, Average>::value) {
                total += c.F;
            } else if constexpr (KeepsLevels<C>::value) {
                C::add(C::level(c), a.q, total, power);
            } else {
                total += C::term(c, a.tconorm);
            }
        }
        __syncthreads();
    }
    if (row >= a.height || column >= a.width) return;
    const i64 at = (image * a.height + row) * a.width + column;
    sum[at] = total;
    if constexpr (Same<C, Maximum>::value) {
        alpha[at] = total;
        best[at] = winner;
    } else if constexpr (Same<C, Average>::value) {
        alpha[at] = count > 0 ? total / T(count) : T(0);
    } else if constexpr (KeepsLevels<C>::value) {
        sum[i64(gridDim.z) * a.height * a.width + at] = power;
        alpha[at] = C::value(total, power, a.q);
    } else {
        alpha[at] = C::value(total, a.tconorm);
    }
}

// Block: 128 threads. Grid: faces, images. Writes the gradient of the face's corners (B, most faces, 3).
template <class T, class L, class C, bool Squared, class Coverage = FaceCoverage>
__global__ void silhouette_backward(SilhouetteArguments<T> a, const T* upstream, const T* sum, const int* best,
                                    Clip<T>* grad_corners) {
    constexpr int kThreads = 128;
    GEODIFF_SHARED(shared, T[kThreads]);
    const i64 image = blockIdx.y;
    const int face = blockIdx.x;
    const i64* layout = a.layout + 3 * image;
    if (face >= layout[2]) return;
    Clip<T>* out = grad_corners + (image * a.most_faces + face) * 3;
    const Polygon<T>& p = a.polygons[image * a.most_faces + face];
    if (p.n == 0) {
        if (threadIdx.x < 3) out[threadIdx.x] = {T(0), T(0), T(0), T(0)};
        return;
    }
    const T step = T(2) / T(a.height < a.width ? a.height : a.width);
    const T half_w = T(0.5) * T(a.width) - T(0.5), half_h = T(0.5) * T(a.height) - T(0.5);
    const Box<T> reach = Coverage::reach(p, a.radius);
    const int first_column = int(clamp(reach.left / step + half_w - T(1), T(0), T(a.width)));
    const int end_column = int(clamp(reach.right / step + half_w + T(2), T(0), T(a.width)));
    const int first_row = int(clamp(half_h - reach.top / step - T(1), T(0), T(a.height)));
    const int end_row = int(clamp(half_h - reach.bottom / step + T(2), T(0), T(a.height)));
    const int columns = end_column - first_column;
    const i64 cells = i64(max(columns, 0)) * max(end_row - first_row, 0);
    T gx[4] = {T(0), T(0), T(0), T(0)}, gy[4] = {T(0), T(0), T(0), T(0)};
    for (i64 i = threadIdx.x; i < cells; i += kThreads) {
        const int row = first_row + int(i / columns), column = first_column + int(i % columns);
        const i64 at = (image * a.height + row) * a.width + column;
        T x, y;
        pixel_centre(a.height, a.width, row, column, x, y);
        const auto pair = Coverage::template at<L, Squared>(a, p, x, y);
        if (!pair.counts) continue;
        const Cdf<T>& c = pair.c;
        const T density = c.F < c.S ? c.F * c.over_F : c.S * c.over_S;
        T weight;
        if constexpr (Same<C, Maximum>::value) {
            weight = best[at] == face ? upstream[at] * density : T(0);
        } else if constexpr (Same<C, Average>::value) {
            weight = upstream[at] * density / T(layout[2]);
        } else if constexpr (KeepsLevels<C>::value) {
            T m, e;
            C::pixel(sum[at], sum[i64(gridDim.y) * a.height * a.width + at], a.q, m, e);
            weight = upstream[at] * m;
            weight = weight != T(0) ? weight * C::pair(c, sum[at], e, a.q) : T(0);
        } else {
            T m, e;
            C::pixel(sum[at], a.tconorm, m, e);
            weight = upstream[at] * m;
            weight = weight != T(0) ? weight * C::pair(c, e, a.tconorm) : T(0);
        }
        Coverage::template add<Squared>(p, pair, weight, gx, gy);
    }
    for (int j = 0; j < 8; ++j) {
        T& value = j < 4 ? gx[j] : gy[j - 4];
        shared[threadIdx.x] = value;
        __syncthreads();
        for (int width = kThreads / 2; width > 0; width /= 2) {
            if (int(threadIdx.x) < width) shared[threadIdx.x] += shared[threadIdx.x + width];
            __syncthreads();
        }
        value = shared[0] * a.inverse_scale;
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    const int* index = a.faces + 3 * (layout[1] + face);
    Clip<T> corner[3], grad[3];
    for (int k = 0; k < 3; ++k) {
        const T* c = a.clip + 4 * (layout[0] + index[k]);
        corner[k] = {c[0], c[1], c[2], c[3]};
        grad[k] = {T(0), T(0), T(0), T(0)};
    }
    polygon_backward(corner, p, gx, gy, grad);
    for (int k = 0; k < 3; ++k) out[k] = grad[k];
}

// start (N + 1) and corners: which entries of grad_corners belong to a vertex, in ascending order.
template <class T>
__global__ void silhouette_scatter(const Clip<T>* grad_corners, const i64* start, const i64* corners, i64 vertices,
                                   Clip<T>* grad_clip) {
    const i64 vertex = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (vertex >= vertices) return;
    Clip<T> total = {T(0), T(0), T(0), T(0)};
    for (i64 i = start[vertex]; i < start[vertex + 1]; ++i) {
        const Clip<T>& g = grad_corners[corners[i]];
        total.x += g.x;
        total.y += g.y;
        total.depth += g.depth;
        total.w += g.w;
    }
    grad_clip[vertex] = total;
}

}  // namespace gd

#endif
