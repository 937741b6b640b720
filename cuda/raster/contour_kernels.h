// SPDX-License-Identifier: Apache-2.0
// The contour coverage on the GPU: the mathematics of contour.h under another schedule, one image at a time.
//
//   contour_views      one thread a face: clip and project it, mark the pixels it covers
//   contour_segments   one thread a face: its edges that all of their faces lie on one side of (the host packs them)
//   contour_cut        one thread a segment: where all others cut it, sorted (the host adds up the counts)
//   contour_pieces     one thread a segment: the pieces between cuts
//   contour_visible    one block a piece: whether a face covers the point just outside of its middle (the host packs)
//   contour_forward    one thread a pixel: the nearest piece
//   contour_shares     one thread a pixel: what it gives to the ends of one or two edges (the host sorts them, stably)
//   contour_backward   one thread a run of shares of one face: adds them in order; silhouette_scatter does the rest
//
// Not yet run on a device: so far compilers alone have seen this file (.ci/compile_kernels.py).
#pragma once
#include "../kernel.h"
#include "contour.h"
#include "grid.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct ContourArguments {
    const T* clip;      // (N, 4)
    const int* faces;   // (F, 3)
    const int* edges;   // (F, 3) cycles of sides
    i64 vertex_start, face_start, all_faces;
    int count;          // faces of the image
    int height, width;
    T near;
    double radius_outside, radius_inside, push;
};

template <class T>
GEODIFF_HD void corners_of(const ContourArguments<T>& a, int face, Clip<double> corner[3]) {
    const int* index = a.faces + 3 * (a.face_start + face);
    for (int k = 0; k < 3; ++k) {
        const T* c = a.clip + 4 * (a.vertex_start + index[k]);
        corner[k] = {double(c[0]), double(c[1]), double(c[2]), double(c[3])};
    }
}

// mask (H, W) is zero on entry; those who meet in a pixel write the same.
template <class T>
__global__ void contour_views(ContourArguments<T> a, View* views, unsigned char* mask) {
    const int face = blockIdx.x * blockDim.x + threadIdx.x;
    if (face >= a.count) return;
    Clip<double> corner[3];
    corners_of(a, face, corner);
    const View v = clipped_view(corner, double(a.near), double(Real<T>::epsilon));
    views[face] = v;
    if (v.n == 0) return;
    double left = v.x[0], right = v.x[0], bottom = v.y[0], top = v.y[0];
    for (int k = 1; k < v.n; ++k) {
        left = min(left, v.x[k]);
        right = max(right, v.x[k]);
        bottom = min(bottom, v.y[k]);
        top = max(top, v.y[k]);
    }
    const double per_step = 0.5 * (a.height < a.width ? a.height : a.width);
    const double half_w = 0.5 * a.width - 0.5, half_h = 0.5 * a.height - 0.5;
    const int first = int(clamp(left * per_step + half_w, 0.0, double(a.width)));
    const int end = int(clamp(right * per_step + half_w + 2, 0.0, double(a.width)));
    const int first_row = int(clamp(half_h - top * per_step, 0.0, double(a.height)));
    const int end_row = int(clamp(half_h - bottom * per_step + 2, 0.0, double(a.height)));
    const Lines lines = make_lines(v);
    for (int row = first_row; row < end_row; ++row) {
        const double y = pixel_y<T>(a.height, a.width, row);
        for (int column = first; column < end; ++column) {
            if (covers(lines, pixel_x<T>(a.height, a.width, column), y)) mask[i64(row) * a.width + column] = 1;
        }
    }
}

// Four places a face, of which `keep` marks the segments.
template <class T>
__global__ void contour_segments(ContourArguments<T> a, const View* views, Segment* segments, unsigned char* keep) {
    const int face = blockIdx.x * blockDim.x + threadIdx.x;
    if (face >= a.count) return;
    const View v = views[face];
    const double shorter = a.height < a.width ? a.height : a.width;
    const double reach = max(a.radius_outside, a.radius_inside);
    const double wide = a.width / shorter + reach * 1.001 + 1 / shorter;
    const double high = a.height / shorter + reach * 1.001 + 1 / shorter;
    for (int k = 0; k < 4; ++k) {
        const i64 at = 4 * i64(face) + k;
        keep[at] = 0;
        if (k >= v.n) continue;
        bool candidate = true;
        if (v.side[k] >= 0) {
            const i64 here = 3 * (a.face_start + face) + v.side[k];
            const i64 limit = 3 * a.all_faces;
            i64 h = a.edges[here];
            for (i64 turns = 0; candidate && h != here && h >= 0 && h < limit && turns < limit; ++turns, h = a.edges[h]) {
                const i64 other = h / 3 - a.face_start;
                if (other < 0 || other >= a.count || views[other].n == 0) continue;
                const bool same_way = a.faces[h] == a.faces[here];
                const bool same_turn = (views[other].orientation > 0) == (v.orientation > 0);
                candidate = other > face && same_way == same_turn;
            }
        }
        if (!candidate || !make_segment(v, k, int(at), a.push, segments[at])) continue;
        keep[at] = reach >= 1e6 || crop(segments[at], -wide, wide, -high, high);
    }
}

struct CutAt {
    double t;
    int partner;
};

// `room` places a segment; counts beyond it say how many are needed.
__global__ void contour_cut(const Segment* segments, int count, int room, CutAt* cuts, int* counts) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const Segment e = segments[i];
    CutAt* own = cuts + i64(i) * room;
    int found = 0;
    for (int j = 0; j < count; ++j) {
        if (j == i) continue;
        const Segment f = segments[j];
        if (apart(e, f) || apart(f, e)) continue;
        double t[3], s;
        bool at[3];
        at[0] = crossing(e, f, t[0], s) && t[0] > 0 && t[0] < 1;
        at[1] = touches(e, f.ax, f.ay, t[1]);
        at[2] = touches(e, f.ax + f.ex, f.ay + f.ey, t[2]);
        for (int k = 0; k < 3; ++k) {
            if (!at[k] || !(t[k] > e.low && t[k] < e.high)) continue;
            int place = found++;
            if (found > room) continue;
            for (; place > 0 && own[place - 1].t > t[k]; --place) own[place] = own[place - 1];
            own[place] = {t[k], k == 0 ? j : int(kFree)};
        }
    }
    counts[i] = found;
}

// Segment i has counts[i] + 1 pieces, from start[i] on; those without length are no outline.
__global__ void contour_pieces(const Segment* segments, int count, int room, const CutAt* cuts, const int* counts,
                               const i64* start, Piece* pieces) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    double low = segments[i].low;
    int first = kFree;
    for (int c = 0; c <= counts[i]; ++c) {
        const bool last = c == counts[i];
        const CutAt cut = last ? CutAt{segments[i].high, kFree} : cuts[i64(i) * room + c];
        pieces[start[i] + c] = make_piece(segments[i], i, low, cut.t, first, cut.partner);
        low = cut.t;
        first = cut.partner;
    }
}

// Block: any number of threads. Grid: pieces.
__global__ void contour_visible(const View* views, int faces, const Segment* segments, const Piece* pieces,
                                unsigned char* keep) {
    GEODIFF_SHARED(hidden, int);
    const Piece p = pieces[blockIdx.x];
    const Segment s = segments[p.segment];
    if (threadIdx.x == 0) hidden = p.high > p.low ? 0 : 1;
    __syncthreads();
    const double t = 0.5 * (p.low + p.high);
    const double x = s.ax + t * s.ex + s.step * s.nx, y = s.ay + t * s.ey + s.step * s.ny;
    for (int face = threadIdx.x; face < faces; face += blockDim.x) {
        if (views[face].n && covers(make_lines(views[face]), x, y)) hidden = 1;
    }
    __syncthreads();
    if (threadIdx.x == 0) keep[blockIdx.x] = hidden ? 0 : 1;
}

// Block: 256 threads. Grid: pixels / 256.
template <class T>
__global__ void contour_forward(ContourArguments<T> a, const Segment* segments, const Piece* pieces, int count,
                                const unsigned char* mask, T* distance, T* along, int* nearest) {
    GEODIFF_SHARED(some, Piece[256]);
    const i64 pixel = i64(blockIdx.x) * 256 + threadIdx.x;
    const bool real = pixel < i64(a.height) * a.width;
    const double x = pixel_x<T>(a.height, a.width, int(pixel % a.width));
    const double y = pixel_y<T>(a.height, a.width, int(pixel / a.width));
    double best = Real<double>::largest, at = 0;
    int which = -1;
    for (int start = 0; start < count; start += 256) {
        if (start + int(threadIdx.x) < count) some[threadIdx.x] = pieces[start + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < 256 && start + i < count; ++i) {
            const double d2 = distance2(some[i], x, y);
            if (d2 < best) {
                best = d2;
                at = along_piece(some[i], x, y);
                which = start + i;
            }
        }
        __syncthreads();
    }
    if (!real) return;
    const bool inside = mask[pixel] != 0;
    const double d = sqrt(best);
    const bool far = which < 0 || d > (inside ? a.radius_inside : a.radius_outside);
    const double size = far ? 1e300 * 1e300 : d;  // infinity
    distance[pixel] = T(inside ? size : -size);
    along[pixel] = T(far ? 0.0 : at);
    int code = -1, kind = -1;
    if (!far) {
        code = segments[pieces[which].segment].code;
        kind = nearest_kind(pieces[which], at);
        if (kind >= 0) kind = segments[kind].code;
    }
    nearest[2 * pixel] = code;
    nearest[2 * pixel + 1] = kind;
}

// Two shares a pixel; code −1 where there is none.
template <class T>
__global__ void contour_shares(ContourArguments<T> a, const View* views, const T* distance, const T* along,
                               const int* nearest, const T* upstream, int* codes, EndGradient* shares) {
    const i64 pixel = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (pixel >= i64(a.height) * a.width) return;
    const double w = double(upstream[pixel]);
    const int e = nearest[2 * pixel], kind = nearest[2 * pixel + 1];
    codes[2 * pixel] = codes[2 * pixel + 1] = -1;
    // No such edge: `nearest` is not what the forward pass left.
    if (e < 0 || w == 0 || (e & 3) >= views[e / 4].n || (kind >= 0 && (kind & 3) >= views[kind / 4].n)) return;
    const double x = pixel_x<T>(a.height, a.width, int(pixel % a.width));
    const double y = pixel_y<T>(a.height, a.width, int(pixel / a.width));
    const bool inside = !(distance[pixel] < T(0));
    EndGradient g[2];
    if (kind < 0) {
        g[0] = point_gradient(views[e / 4], e & 3, kind, double(along[pixel]), x, y, inside);
    } else {
        crossing_gradient(views[e / 4], e & 3, views[kind / 4], kind & 3, x, y, inside, g[0], g[1]);
    }
    for (int i = 0; i < (kind < 0 ? 1 : 2); ++i) {
        codes[2 * pixel + i] = i ? kind : e;
        shares[2 * pixel + i] = {w * g[i].ax, w * g[i].ay, w * g[i].bx, w * g[i].by};
    }
}

// Shares order[start[i]] … order[start[i + 1] − 1] are those of one face. Writes to the face's corners (count, 3), which
// are zero on entry.
template <class T>
__global__ void contour_backward(ContourArguments<T> a, const int* codes, const EndGradient* shares, const i64* order,
                                 const i64* start, int runs, Clip<T>* grad_corners) {
    const int run = blockIdx.x * blockDim.x + threadIdx.x;
    if (run >= runs) return;
    const int face = codes[order[start[run]]] / 4;
    Clip<double> corner[3], grad[3];
    corners_of(a, face, corner);
    const Polygon<double> p = make_polygon(corner, double(a.near));
    double gx[4] = {0, 0, 0, 0}, gy[4] = {0, 0, 0, 0};
    for (i64 i = start[run]; i < start[run + 1]; ++i) {
        const EndGradient g = shares[order[i]];
        const int k = codes[order[i]] & 3, l = k + 1 == p.n ? 0 : k + 1;
        gx[k] += g.ax;
        gy[k] += g.ay;
        gx[l] += g.bx;
        gy[l] += g.by;
    }
    for (int k = 0; k < 3; ++k) grad[k] = {0, 0, 0, 0};
    polygon_backward(corner, p, gx, gy, grad);
    for (int k = 0; k < 3; ++k) {
        grad_corners[3 * i64(face) + k] = {T(grad[k].x), T(grad[k].y), T(grad[k].depth), T(grad[k].w)};
    }
}

}  // namespace gd

#endif
