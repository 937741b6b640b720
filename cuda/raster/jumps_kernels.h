// SPDX-License-Identifier: Apache-2.0
// Where hard images jump, on the GPU.
//
//   jumps_prepare    a thread a face: its orientation and plane
//   jumps_sides      a thread a side of a face: the number of lines through pixels' centres that it may cross
//   jumps_crossings  a thread such a line: the pairs of pixels that the side separates there
//   jumps_pairs      a thread a pair of pixels: whether its sheets go through each other, or what edge is between its faces
//
// Each thread writes to places of its own, so that what is kept of them is in the CPU's order. Compiled without fused
// products: the same edges as on the CPU.
#pragma once
#include "../kernel.h"
#include "jumps.h"
#include "reach.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct JumpScene {
    const T* clip;       // (N, 4)
    const int* faces;    // (F, 3)
    const i64* layout;   // (B, 3)
    const int* edges;    // (F, 3)
    const i64* face_id;  // (B, H, W)
    int images, most_faces, height, width;
    double near;
    signed char* orientation;  // (B, most_faces), as what follows
    SheetPlane* planes;
};

struct JumpEdges {
    i64 *pixels, *ends;  // (…, 2)
    double* share;
    bool* keep;  // false on entry

    GEODIFF_HD void put(i64 at, const JumpEdge& edge) const {
        pixels[2 * at] = edge.p;
        pixels[2 * at + 1] = edge.q;
        ends[2 * at] = edge.a;
        ends[2 * at + 1] = edge.b;
        share[at] = edge.share;
        keep[at] = true;
    }
};

template <class T>
GEODIFF_HD JumpSearch<T> jump_search(const JumpScene<T>& a, i64 image) {
    const i64 start = a.layout[3 * image], first = a.layout[3 * image + 1], count = a.layout[3 * image + 2];
    const i64 prepared = image * a.most_faces;
    return {{a.clip + 4 * start, a.faces + 3 * first, a.edges + 3 * first, int(3 * first), int(3 * count),
             a.orientation + prepared},
            a.planes + prepared, a.face_id + image * a.height * a.width, start, image, a.height, a.width, a.near};
}

template <class T>
__global__ void jumps_prepare(JumpScene<T> a) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, image = at / a.most_faces;
    if (image >= a.images || at % a.most_faces >= a.layout[3 * image + 2]) return;
    JumpSearch<T>::prepare(jump_search(a, image).sheet, int(at % a.most_faces), a.orientation[at], a.planes[at]);
}

// levels: (B, most_faces, 3)
template <class T>
__global__ void jumps_sides(JumpScene<T> a, int* levels) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, image = at / 3 / a.most_faces;
    if (image >= a.images) return;
    const int face = int(at / 3 % a.most_faces);
    JumpSide side;
    const bool is_side = face < a.layout[3 * image + 2] && jump_search(a, image).side(face, int(at % 3), side);
    levels[at] = is_side ? side.levels() : 0;
}

// start: (B, most_faces, 3) and one more. Two places a level, `room` levels.
template <class T>
__global__ void jumps_crossings(JumpScene<T> a, const i64* start, i64 room, JumpEdges out) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, sides = i64(a.images) * a.most_faces * 3;
    if (at >= min(start[sides], room)) return;
    const i64 own = face_of_unit(start, sides, at), image = own / 3 / a.most_faces;
    const int face = int(own / 3 % a.most_faces), k = int(own % 3);
    const JumpSearch<T> search = jump_search(a, image);
    JumpSide side;
    search.side(face, k, side);
    i64 to = 2 * at;
    search.level(face, k, side, int(at - start[own]), [&](const JumpEdge& edge) { out.put(to++, edge); });
}

// A pair is 2 · pixel, among those of all images, and 1 more for the one below instead of the one to the right. Its faces
// differ. A place a pair; corners: (pairs, 6). Creases are looked for if there is room for them. `end` stands for no pair.
template <class T>
__global__ void jumps_pairs(JumpScene<T> a, const i64* pairs, i64 end, i64 count, JumpEdges creases, i64* corners,
                            bool* keep) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, pixels = i64(a.height) * a.width;
    if (at >= count) return;
    keep[at] = false;
    if (pairs[at] >= end) return;
    const i64 place = pairs[at] / 2, p = place % pixels, q = pairs[at] % 2 ? p + a.width : p + 1;
    const JumpSearch<T> search = jump_search(a, place / pixels);
    JumpEdge edge;
    JumpMeeting meeting;
    if (creases.keep && search.crease(p, q, edge)) creases.put(at, edge);
    keep[at] = !search.share_vertex(int(search.seen[p]), int(search.seen[q])) && search.meet(p, q, meeting);
    for (int k = 0; k < 6 && keep[at]; ++k) corners[6 * at + k] = meeting.corner[k];
}

}  // namespace gd

#endif
