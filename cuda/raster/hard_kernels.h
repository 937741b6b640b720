// SPDX-License-Identifier: Apache-2.0
// The hard rasteriser on the GPU.
//
//   hard_setup    a thread a face: clip and project; then a warp draws the small ones of its faces, a lane a pixel of any
//   hard_draw     a warp a unit of a larger face's pixels
//   hard_resolve  a thread a pixel: what its face is there
//
// A pixel keeps a number that grows with depth, and its minimum: in float that number ends with the face, so that of equal
// depths the lowest index wins. In double both passes draw once for the depth and once, where it is equal, for the face.
// Minima do not depend on an order: the same bits on any run. Compiled without fused products: a depth must come out the
// same in each kernel, and a centre on an edge must lie on it.
#pragma once
#include "../kernel.h"
#include "grid.h"
#include "hard.h"
#include "pool.h"
#include "reach.h"
#include "walk.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kHardThreads = 128;
constexpr i64 kSmallFace = 256;  // pixels of a face's box, which the warp of its thread draws
constexpr i64 kTinyFace = 64;    // instead, where its small faces have more than kSmallPixels together
constexpr int kSmallPixels = 32 * int(kTinyFace);
constexpr i64 kHardUnit = 512;  // pixels of a unit

template <class T>
struct HardScene {
    const T* clip;      // (N, 4)
    const int* faces;   // (F, 3)
    const i64* layout;  // (B, 3)
    int images, most_faces, height, width;
    double near;
    HardFace<T>* prepared;  // (B, most_faces), as what follows
    PixelBox* boxes;
    int* units;
    u64* key;     // (B, H, W), all ones before setup
    u32* winner;  // likewise, in double alone
};

// A whole number that is ordered as depths are.
GEODIFF_HD u64 ordered(float depth) {
    const u32 bits = bits_as<u32>(depth);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
GEODIFF_HD u64 ordered(double depth) {
    const u64 bits = bits_as<u64>(depth);
    return bits >> 63 ? ~bits : bits | (1ull << 63);
}

template <class T, int Pass>
GEODIFF_HD void draw_pixel(const HardScene<T>& a, const HardFace<T>& f, i64 image, int face, int row, int column) {
    const T x = pixel_x<T>(a.height, a.width, column), y = pixel_y<T>(a.height, a.width, row);
    if (!covers(f, x, y)) return;
    const T depth = depth_at(f, x, y);
    if (!(depth < Real<T>::largest)) return;
    const i64 pixel = (image * a.height + row) * a.width + column;
    if constexpr (sizeof(T) == 4) {
        atomicMin(a.key + pixel, ordered(depth) << 32 | u64(u32(face)));
    } else if constexpr (Pass == 0) {
        atomicMin(a.key + pixel, ordered(depth));
    } else {
        if (a.key[pixel] == ordered(depth)) atomicMin(a.winner + pixel, u32(face));
    }
}

// Draws the faces of a warp, of which each lane has one with `own` pixels, or none. Faces of all lanes are in shared memory.
template <class T, int Pass>
GEODIFF_HD void draw_small(const HardScene<T>& a, const HardFace<T>* faces, i64 image, int face, const PixelBox& box, int own) {
    constexpr unsigned all = kAllLanes;
    const int lane = threadIdx.x & 31, end = pieces_up_to(own), total = __shfl_sync(all, end, 31);
    const int columns = box.end_column - box.first_column;
    for (int i = lane; i - lane < total; i += 32) {
        const int owner = lane_of_piece(end, i);
        const u32 at = u32(i - __shfl_sync(all, end - own, owner)), many = u32(__shfl_sync(all, columns, owner));
        const int row = __shfl_sync(all, box.first_row, owner), column = __shfl_sync(all, box.first_column, owner);
        const int name = __shfl_sync(all, face, owner);
        const i64 of = __shfl_sync(all, int(image), owner);
        if (i >= total) continue;
        draw_pixel<T, Pass>(a, faces[owner], of, name, row + int(at / many), column + int(at % many));
    }
}

// Grid: ⌈images · most_faces / 128⌉. The second pass finds what the first has prepared.
template <class T, int Pass>
__global__ void __launch_bounds__(128) hard_setup(HardScene<T> a) {
    GEODIFF_SHARED(shared, HardFace<T>[kHardThreads]);
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, faces = i64(a.images) * a.most_faces;
    const i64 image = at / a.most_faces;
    const int lane = threadIdx.x & 31, face = int(at % a.most_faces);
    HardFace<T>* of_warp = shared + (threadIdx.x - lane);
    HardFace<T>& f = of_warp[lane];
    PixelBox box = {0, 0, 0, 0};
    f.n = 0;
    if constexpr (Pass == 0) {
        const i64* row = a.layout + 3 * image;
        if (at < faces && face < row[2]) {
            const int* index = a.faces + 3 * (row[1] + face);
            Clip<T> corner[3];
            for (int k = 0; k < 3; ++k) {
                const T* c = a.clip + 4 * (row[0] + index[k]);
                corner[k] = {c[0], c[1], c[2], c[3]};
            }
            const Polygon<T> p = make_polygon(corner, T(a.near));
            hard_face(corner, p, f);
            if (p.n) box = pixels_of(polygon_box(p), a.height, a.width);
        }
    } else if (at < faces) {
        box = a.boxes[at];
        if (a.units[at] == 0) f = a.prepared[at];
    }
    const i64 cells = i64(max(box.end_column - box.first_column, 0)) * max(box.end_row - box.first_row, 0);
    int own = cells <= kSmallFace ? int(cells) : 0;
    if constexpr (Pass == 0) {
        const int together = __shfl_sync(kAllLanes, pieces_up_to(own), 31);
        if (together > kSmallPixels && cells > kTinyFace) own = 0;
        if (at < faces) {
            a.boxes[at] = box;
            a.units[at] = own ? 0 : int((cells + kHardUnit - 1) / kHardUnit);
        }
    } else if (at < faces && a.units[at]) {
        own = 0;
    }
    __syncwarp();  // the faces of the warp are there
    if constexpr (Pass == 0) store_together(a.prepared + (at - lane), of_warp, int(min(i64(32), faces - (at - lane))));
    draw_small<T, Pass>(a, of_warp, image, face, box, own);
}

// Blocks of 128 threads; each warp takes every so many-th unit. start: (images · most_faces + 1), first unit of each face.
template <class T, int Pass>
__global__ void __launch_bounds__(128) hard_draw(HardScene<T> a, const int* start) {
    const i64 faces = i64(a.images) * a.most_faces;
    const int lane = threadIdx.x & 31, warps = gridDim.x * (blockDim.x / 32), total = start[faces];
    for (int unit = blockIdx.x * (blockDim.x / 32) + (threadIdx.x >> 5); unit < total; unit += warps) {
        const i64 low = face_of_unit(start, faces, unit);
        const HardFace<T> f = a.prepared[low];
        const PixelBox box = a.boxes[low];
        const i64 cells = i64(box.end_column - box.first_column) * (box.end_row - box.first_row);
        const i64 begin = (unit - start[low]) * kHardUnit, end = min(cells, begin + kHardUnit), image = low / a.most_faces;
        BoxWalk pixel(box, begin + lane, 32);
        for (i64 i = begin + lane; i < end; i += 32, pixel.next())
            draw_pixel<T, Pass>(a, f, image, int(low % a.most_faces), pixel.row, pixel.column);
    }
}

template <class T>
__global__ void hard_resolve(HardScene<T> a, i64* face_id, T* depth, T* barycentric) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x, pixels = i64(a.height) * a.width;
    if (i >= pixels * a.images) return;
    const bool empty = a.key[i] == ~0ull;
    const int face = empty ? -1 : sizeof(T) == 4 ? int(u32(a.key[i])) : int(a.winner[i]);
    face_id[i] = face;
    depth[i] = T(bits_as<float>(0x7F800000u));
    for (int k = 0; k < 3; ++k) barycentric[3 * i + k] = T(0);
    if (empty) return;
    const HardFace<T>& f = a.prepared[i / pixels * a.most_faces + face];
    const T x = pixel_x<T>(a.height, a.width, int(i % a.width)), y = pixel_y<T>(a.height, a.width, int(i % pixels / a.width));
    depth[i] = depth_at(f, x, y);
    T found[3];
    barycentric_at(f, x, y, found);
    for (int k = 0; k < 3; ++k) barycentric[3 * i + k] = found[k];
}

}  // namespace gd

#endif
