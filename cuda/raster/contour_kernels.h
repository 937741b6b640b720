// SPDX-License-Identifier: Apache-2.0
// The contour coverage on the GPU, all images at once: the mathematics of contour.h under another schedule. From faces to
// pieces of outline; contour_pixels.h has what follows.
//
//   contour_views     a thread a face: clip and project it, its box, how many units of 512 pixels that has
//   contour_mask      a warp a unit: marks the pixels that faces cover
//   contour_segments  a thread a face: its edges that all of their faces lie on one side of; first marked, then written
//   contour_cut       a warp a segment: where others cut it; first counted, then written, in order
//   contour_pieces    a thread a segment: the pieces between cuts
//   contour_visible   a block eight pieces and a slice of the faces: marks those that a face covers just outside of
//   contour_pack      a thread a piece: the others, without gaps
//
// How many segments and pieces there are stays on the device; the host reads two totals, to make room, or guesses them:
// each kernel takes both, and leaves out what has no room. What most pairs need is a comparison of boxes in float, rounded
// outwards; double decides about the others. Compiled without fused products, so that what one kernel counts the next one
// writes.
#pragma once
#include "../kernel.h"
#include "contour.h"
#include "grid.h"
#include "reach.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kContourUnit = 512, kContourUnits = 64;  // pixels of a unit at least, units of a face at most
constexpr int kTestPoints = 8;                         // of a block of contour_visible

// In float, no smaller than what it is made of.
struct OuterBox {
    float left, right, bottom, top;
};

template <class T>
struct ContourScene {
    const T* clip;      // (N, 4)
    const int* faces;   // (F, 3)
    const int* edges;   // (F, 3) cycles of sides
    const i64* layout;  // (B, 3)
    i64 all_faces;
    int images, most_faces, height, width;
    double near, radius_outside, radius_inside;
    const double* unit;  // of the radii, where the host does not know it; or null
    double push;
    View* views;      // (B, most_faces), as what follows
    OuterBox* boxes;  // empty where there is nothing to see

    GEODIFF_HD double outside() const { return unit ? radius_outside * *unit : radius_outside; }
    GEODIFF_HD double inside() const { return unit ? radius_inside * *unit : radius_inside; }
};

GEODIFF_HD float below(double x) {
    const float f = float(x);
    return f - (abs(f) * 2e-7f + 1e-37f);
}
GEODIFF_HD float above(double x) { return -below(-x); }
GEODIFF_HD OuterBox outer_box(double x0, double x1, double y0, double y1, double margin) {
    return {below(min(x0, x1) - margin), above(max(x0, x1) + margin), below(min(y0, y1) - margin), above(max(y0, y1) + margin)};
}
// False only where there are numbers that say so.
GEODIFF_HD bool may_meet(const OuterBox& a, const OuterBox& b) {
    return !(a.left > b.right || a.right < b.left || a.bottom > b.top || a.top < b.bottom);
}

template <class T>
GEODIFF_HD void corners_of(const ContourScene<T>& a, i64 image, int face, Clip<double> corner[3]) {
    const int* index = a.faces + 3 * (a.layout[3 * image + 1] + face);
    for (int k = 0; k < 3; ++k) {
        const T* c = a.clip + 4 * (a.layout[3 * image] + index[k]);
        corner[k] = {double(c[0]), double(c[1]), double(c[2]), double(c[3])};
    }
}

// Blocks of 128 threads.
template <class T>
__global__ void contour_views(ContourScene<T> a, PixelBox* pixels, int* units) {
    GEODIFF_SHARED(polygons, Polygon<double>[128]);  // instead of stacks
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= i64(a.images) * a.most_faces) return;
    const i64 image = at / a.most_faces;
    const int face = int(at - image * a.most_faces);
    units[at] = 0;
    a.boxes[at] = {1e30f, -1e30f, 1e30f, -1e30f};
    a.views[at].n = 0;
    if (face >= a.layout[3 * image + 2]) return;
    Clip<double> corner[3];
    corners_of(a, image, face, corner);
    make_polygon(corner, double(T(a.near)), polygons[threadIdx.x]);
    View& v = a.views[at];
    make_view(polygons[threadIdx.x], double(Real<T>::epsilon), v);
    if (v.n == 0) return;
    Box<double> box = {v.x[0], v.x[0], v.y[0], v.y[0]};
    for (int k = 1; k < v.n; ++k) {
        box.left = min(box.left, v.x[k]);
        box.right = max(box.right, v.x[k]);
        box.bottom = min(box.bottom, v.y[k]);
        box.top = max(box.top, v.y[k]);
    }
    a.boxes[at] = outer_box(box.left, box.right, box.bottom, box.top, 0);
    pixels[at] = pixels_of(box, a.height, a.width);
    const i64 cells = i64(pixels[at].end_row - pixels[at].first_row) * (pixels[at].end_column - pixels[at].first_column);
    units[at] = int(min(i64(kContourUnits), (cells + kContourUnit - 1) / kContourUnit));
}

// Each warp takes every so many-th unit. start (images · most_faces + 1): first unit of each face. mask (B, H, W) is zero on
// entry; those who meet in a pixel write the same.
template <class T>
__global__ void contour_mask(ContourScene<T> a, const PixelBox* pixels, const int* start, unsigned char* mask) {
    const i64 faces = i64(a.images) * a.most_faces;
    const int lane = threadIdx.x & 31, warps = gridDim.x * (blockDim.x / 32), total = start[faces];
    for (int unit = blockIdx.x * (blockDim.x / 32) + (threadIdx.x >> 5); unit < total; unit += warps) {
        const i64 at = face_of_unit(start, faces, unit);
        const int own = unit - start[at], units = start[at + 1] - start[at];
        const Lines lines = make_lines(a.views[at]);
        const PixelBox box = pixels[at];
        const int columns = box.end_column - box.first_column;
        const i64 cells = i64(columns) * (box.end_row - box.first_row), many = (cells + units - 1) / units;
        unsigned char* image = mask + at / a.most_faces * a.height * a.width;
        for (i64 i = own * many + lane; i < min(cells, (own + 1) * many); i += 32) {
            const int row = box.first_row + int(i / columns), column = box.first_column + int(i % columns);
            const double x = pixel_x<T>(a.height, a.width, column), y = pixel_y<T>(a.height, a.width, row);
            if (covers(lines, x, y)) image[i64(row) * a.width + column] = 1;
        }
    }
}

// Whether side k of a face is an edge that all of its faces lie on one side of, and this the first of them.
template <class T>
GEODIFF_HD bool is_candidate(const ContourScene<T>& a, i64 image, int face, int side, double orientation) {
    const i64 start = a.layout[3 * image + 1], count = a.layout[3 * image + 2];
    const i64 here = 3 * (start + face) + side, limit = 3 * a.all_faces;
    i64 h = a.edges[here];
    for (i64 turns = 0; h != here && h >= 0 && h < limit && turns < limit; ++turns, h = a.edges[h]) {
        const i64 other = h / 3 - start;
        if (other < 0 || other >= count || a.views[image * a.most_faces + other].n == 0) continue;
        const bool same_way = a.faces[h] == a.faces[here];
        const bool same_turn = (a.views[image * a.most_faces + other].orientation > 0) == (orientation > 0);
        if (!(other > face && same_way == same_turn)) return false;
    }
    return true;
}

// First `keep` (4 a face) marks the segments; then, with the number of those before each, they are written to their places.
template <class T, bool Write>
__global__ void contour_segments(ContourScene<T> a, unsigned char* keep, const i64* place, i64 room, Segment* segments,
                                 OuterBox* boxes) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= i64(a.images) * a.most_faces) return;
    const i64 image = at / a.most_faces;
    const int face = int(at - image * a.most_faces);
    const View& v = a.views[at];
    const double shorter = a.height < a.width ? a.height : a.width;
    const double reach = max(a.outside(), a.inside());
    const double wide = a.width / shorter + reach * 1.001 + 1 / shorter;
    const double high = a.height / shorter + reach * 1.001 + 1 / shorter;
    for (int k = 0; k < 4; ++k) {
        Segment s;
        if constexpr (Write) {
            if (!keep[4 * at + k] || place[4 * at + k] >= room) continue;
        } else {
            keep[4 * at + k] = 0;
            if (k >= v.n || (v.side[k] >= 0 && !is_candidate(a, image, face, v.side[k], v.orientation))) continue;
        }
        if (!make_segment(v, k, 4 * face + k, a.push, s)) continue;
        if (!(reach >= 1e6 || crop(s, -wide, wide, -high, high))) continue;
        if constexpr (Write) {
            s.image = int(image);
            segments[place[4 * at + k]] = s;
            boxes[place[4 * at + k]] = outer_box(s.ax, s.ax + s.ex, s.ay, s.ay + s.ey, 4 * s.step);
        } else {
            keep[4 * at + k] = 1;
        }
    }
}

struct CutAt {
    double t;
    int partner, rank;  // cuts at the same t stand in the order of the segments that make them
};

GEODIFF_HD bool cut_before(const CutAt& a, const CutAt& b) { return a.t < b.t || (a.t == b.t && a.rank < b.rank); }

// A warp a segment; blocks of 128. first (B + 1): where each image's segments begin. Counts, or, with the number of cuts
// before each segment's, writes them. counts: 0 on entry.
template <bool Write>
__global__ void contour_cut(const Segment* segments, const OuterBox* boxes, const i64* first, i64 count, const i64* there,
                            int* counts, const i64* start, i64 room, CutAt* cuts) {
    const i64 i = i64(blockIdx.x) * 4 + threadIdx.x / 32;
    const int lane = threadIdx.x & 31;
    if (i >= min(count, *there)) return;  // of all its lanes
    const Segment e = segments[i];
    const OuterBox mine = outer_box(e.ax + e.low * e.ex, e.ax + e.high * e.ex, e.ay + e.low * e.ey, e.ay + e.high * e.ey, 4 * e.step);
    const i64 end = first[e.image + 1];
    int found = 0;
    for (i64 from = first[e.image]; from < end; from += 32) {
        const i64 j = from + lane;
        double t[3], s;
        bool at[3] = {false, false, false};
        if (j < end && j != i && may_meet(mine, boxes[j])) {
            const Segment f = segments[j];
            if (!(apart(e, f) || apart(f, e))) {
                at[0] = crossing(e, f, t[0], s) && t[0] > 0 && t[0] < 1;
                at[1] = touches(e, f.ax, f.ay, t[1]);
                at[2] = touches(e, f.ax + f.ex, f.ay + f.ey, t[2]);
#pragma unroll
                for (int k = 0; k < 3; ++k) at[k] = at[k] && t[k] > e.low && t[k] < e.high;
            }
        }
        const int own = int(at[0]) + int(at[1]) + int(at[2]);
        int up_to = own;  // cuts of the lanes up to this one
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int before = __shfl_up_sync(0xFFFFFFFFu, up_to, d);
            if (lane >= d) up_to += before;
        }
        if constexpr (Write) {
            i64 to = start[i] + found + up_to - own;
#pragma unroll
            for (int k = 0; k < 3; ++k)
                if (at[k] && to < room) cuts[to++] = {t[k], k == 0 ? int(j) : int(kFree), int(j - first[e.image]) * 3 + k};
        }
        found += __shfl_sync(0xFFFFFFFFu, up_to, 31);
    }
    if (!Write && lane == 0) counts[i] = found;
    if constexpr (Write) {
        __syncwarp();
        CutAt* own = cuts + start[i];
        found = int(min(i64(found), room - start[i]));
        for (int k = 1; lane == 0 && k < found; ++k) {
            const CutAt cut = own[k];
            int place = k;
            for (; place > 0 && cut_before(cut, own[place - 1]); --place) own[place] = own[place - 1];
            own[place] = cut;
        }
    }
}

// Segment i has one piece more than cuts, from start[i] + i on; those without length are no outline.
template <class T>
__global__ void contour_pieces(const Segment* segments, i64 count, const i64* there, const CutAt* cuts, const i64* start,
                               i64 room, Piece* pieces) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= min(count, *there)) return;
    const Segment s = segments[i];
    double low = s.low;
    int first = kFree;
    for (i64 c = start[i]; c <= start[i + 1] && c + i < room; ++c) {
        const bool last = c == start[i + 1];
        const double high = last ? s.high : cuts[c].t;
        const int second = last ? int(kFree) : cuts[c].partner;
        pieces[c + i] = make_piece(s, int(i), low, high, first, second);
        low = high;
        first = second;
    }
}

// Block: 128 threads. Grid: ⌈pieces / 8⌉ × slices. hidden (pieces) is zero on entry, but for those that there are too many;
// those who meet write the same.
template <class T>
__global__ void contour_visible(ContourScene<T> a, const Segment* segments, const Piece* pieces, i64 count, int slices,
                                unsigned char* hidden) {
    GEODIFF_SHARED(points, double[kTestPoints][2]);
    GEODIFF_SHARED(images, int[kTestPoints]);
    const int slice = int(blockIdx.x % slices), thread = int(threadIdx.x);
    const i64 base = blockIdx.x / slices * kTestPoints;
    if (thread < kTestPoints) {
        images[thread] = -1;
        if (base + thread < count && !hidden[base + thread]) {
            const Piece p = pieces[base + thread];
            const Segment s = segments[p.segment];
            const double t = 0.5 * (p.low + p.high);
            points[thread][0] = s.ax + t * s.ex + s.step * s.nx;
            points[thread][1] = s.ay + t * s.ey + s.step * s.ny;
            if (p.high > p.low) {
                images[thread] = s.image;
            } else {
                hidden[base + thread] = 1;
            }
        }
    }
    __syncthreads();
    int last = -1;
    for (int k = 0; k < kTestPoints; ++k) {
        const int image = images[k];
        if (image == last || image < 0) continue;  // they come image by image
        last = image;
        const int faces = int(a.layout[3 * image + 2]), many = (faces + slices - 1) / slices;
        for (int face = slice * many + thread; face < min(faces, (slice + 1) * many); face += blockDim.x) {
            const i64 at = i64(image) * a.most_faces + face;
            const OuterBox box = a.boxes[at];
            for (int i = k; i < kTestPoints; ++i) {
                const float x = float(points[i][0]), y = float(points[i][1]);
                if (images[i] != image || x < box.left || x > box.right || y < box.bottom || y > box.top) continue;
                if (a.views[at].n && covers(make_lines(a.views[at]), points[i][0], points[i][1])) hidden[base + i] = 1;
            }
        }
    }
}

// place: how many before each are not hidden.
template <class T>
__global__ void contour_pack(const Piece* pieces, const unsigned char* hidden, const i64* place, i64 count, Piece* packed) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i < count && !hidden[i]) packed[place[i]] = pieces[i];
}

}  // namespace gd

#endif
