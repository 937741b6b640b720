// SPDX-License-Identifier: Apache-2.0
// The faces that a pixel sees, on the GPU; tiles and their faces are those of silhouette_setup, with the blur for a radius.
//
//   fragments_prepare   a thread a face: what its edges and planes are
//   fragments_list      a block a tile: each pixel keeps the k faces with the least keys, in order
//   fragments_rim       a block a tile: pixels that no face covers take the nearest in the image
//   fragments_write     a thread a fragment: what it is
//   fragments_backward  a warp a part of one face's fragments; lanes are added in a fixed order
//   fragments_faces     a thread a face: its parts in their order, then the way back to its corners
//
// Faces come in ascending order, so that ties go to the lowest index. Compiled without fused products, as hard_kernels.h.
#pragma once
#include "fragments.h"
#include "ranking.h"
#include "silhouette.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct FragmentRanking {
    const T* table;  // (size) log F over d/(|d| + unit) in [−1, 1]
    double unit;
    int size, k;
    const T* sharpness;  // (B)
};

template <class T>
__global__ void fragments_prepare(SilhouetteScene<T> a, HardFace<T>* hard) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= i64(a.images) * a.most_faces) return;
    HardFace<T> f;
    f.n = 0;
    Clip<T> corner[3];
    if (load_corners(a, at / a.most_faces, int(at % a.most_faces), corner)) hard_face(corner, a.polygons[at], f);
    hard[at] = f;
}

template <class T>
GEODIFF_HD Nearest<T> nearest_of(const SoftFace<T>& f, T x, T y) {
    Nearest<T> near = no_edge<T>();
    for (int k = 0; k < f.n; ++k) meet(near, edge_of(f, k), T(k), x, y);
    return near;
}

// Grid: tiles · images; 256 threads. ids and keys: (B, H, W, k), −1 and the largest number on entry; an id is 2 · face + (1
// if the face covers the pixel).
template <class T, int Order>
__global__ void __launch_bounds__(256, 2)
    fragments_list(SilhouetteScene<T> a, const HardFace<T>* hard, FragmentRanking<T> ranking, double blur, int* ids, T* keys) {
    GEODIFF_SHARED(list, TileList);
    GEODIFF_SHARED(some, SoftFace<T>[kTogether]);
    GEODIFF_SHARED(planes, HardFace<T>[kTogether]);
    GEODIFF_SHARED(polygons, Polygon<T>[kTogether]);
    const int tiles = a.across * a.down, tile = int(blockIdx.x % tiles);
    const i64 image = blockIdx.x / tiles;
    const TilePixel<T> pixel(tile, a.across, a.height, a.width);
    const bool real = pixel.row < a.height && pixel.column < a.width;
    const i64 base = image * a.most_faces;
    const u32* bits = tile_bits(a, image, tile);
    const T radius = T(blur < 1e6 ? blur : 1e6), radius2 = blur < 1e6 ? radius * radius : Real<T>::largest;
    const bool measured = blur > 0 || Order == kByWeight;
    const T sharpness = Order == kByWeight ? ranking.sharpness[image] : T(0);
    const WeightTable<T> table = {ranking.table, ranking.size, T(ranking.unit)};
    const i64 slot = real ? ((image * a.height + pixel.row) * a.width + pixel.column) * ranking.k : 0;
    for (int w = 0; w < a.words; w += kWords) {
        const int count = fill_list(list, bits, w, a.words);
        for (int i = 0; i < count; i += kTogether) {
            fetch(some, a.prepared + base, list, i, count);
            fetch(planes, hard + base, list, i, count);
            fetch(polygons, a.polygons + base, list, i, count);
            __syncthreads();
            for (int j = 0; real && j < kTogether && i + j < count; ++j) {
                const SoftFace<T>& f = some[j];
                if (!FaceCoverage::touches(f, radius, pixel.warp)) continue;
                const bool inside = covers(planes[j], pixel.x, pixel.y);
                if (!inside && !(blur > 0)) continue;
                Nearest<T> near;
                if (measured) near = nearest_of(f, pixel.x, pixel.y);
                if (!inside && !(near.d2 <= radius2)) continue;
                T key = inside ? depth_at(planes[j], pixel.x, pixel.y) : edge_depth(polygons[j], int(near.edge), near.along);
                if constexpr (Order == kByWeight) {
                    const T length = sqrt(near.d2);
                    key = key * sharpness - log_weight(table, inside ? length : -length);
                }
                insert(keys + slot, ids + slot, ranking.k, key, 2 * list.face[i + j] + (inside ? 1 : 0));
            }
            __syncthreads();
        }
    }
}

// ids: (B, H, W), 2 · face + 1 where a face covers the pixel, −1 elsewhere; 2 · face is put there.
template <class T>
__global__ void __launch_bounds__(256, 2) fragments_rim(SilhouetteScene<T> a, double blur, int* ids) {
    GEODIFF_SHARED(list, TileList);
    GEODIFF_SHARED(some, SoftFace<T>[kTogether]);
    GEODIFF_SHARED(polygons, Polygon<T>[kTogether]);
    const int tiles = a.across * a.down, tile = int(blockIdx.x % tiles);
    const i64 image = blockIdx.x / tiles;
    const TilePixel<T> pixel(tile, a.across, a.height, a.width);
    const i64 at = (image * a.height + pixel.row) * a.width + pixel.column, base = image * a.most_faces;
    const bool open = pixel.row < a.height && pixel.column < a.width && ids[at] < 0;
    const u32* bits = tile_bits(a, image, tile);
    const T radius = T(blur < 1e6 ? blur : 1e6), radius2 = blur < 1e6 ? radius * radius : Real<T>::largest;
    T least = Real<T>::largest;
    int best = -1;
    for (int w = 0; w < a.words; w += kWords) {
        const int count = fill_list(list, bits, w, a.words);
        for (int i = 0; i < count; i += kTogether) {
            fetch(some, a.prepared + base, list, i, count);
            fetch(polygons, a.polygons + base, list, i, count);
            __syncthreads();
            for (int j = 0; open && j < kTogether && i + j < count; ++j) {
                const SoftFace<T>& f = some[j];
                if (!FaceCoverage::touches(f, radius, pixel.warp)) continue;
                const Nearest<T> near = nearest_of(f, pixel.x, pixel.y);
                if (!(near.d2 <= radius2)) continue;
                T middle_x = T(0), middle_y = T(0);
                for (int k = 0; k < f.n; ++k) {
                    middle_x += polygons[j].x[k] / T(f.n);
                    middle_y += polygons[j].y[k] / T(f.n);
                }
                const T key = rim_key(near.d2, rim_handicap(f.orientation), pixel.x - middle_x, pixel.y - middle_y);
                if (!(key < least)) continue;
                least = key;
                best = 2 * list.face[i + j];
            }
            __syncthreads();
        }
    }
    if (open && best >= 0) ids[at] = best;
}

// What fragments are: ids (count) and, where they are a list, their pixels; else there are k of each pixel.
template <class T>
struct FragmentItems {
    i64 count;
    int k;
    const int* ids;
    const i64* place;
    // Forward; each may be null.
    i64* face;
    T *distance, *barycentric, *depth;
};

template <class T>
GEODIFF_HD i64 pixel_of(const FragmentItems<T>& items, i64 i) {
    return items.place ? items.place[i] : i / items.k;
}

template <class T>
__global__ void fragments_write(SilhouetteScene<T> a, const HardFace<T>* hard, FragmentItems<T> items) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x, pixels = i64(a.height) * a.width;
    if (i >= items.count) return;
    const int id = items.ids[i];
    Fragment<T> f = {T(-1e10), {T(0), T(0), T(0)}, T(bits_as<float>(0x7F800000u))};
    if (id >= 0) {
        const i64 pixel = pixel_of(items, i), image = pixel / pixels, at = image * a.most_faces + (id >> 1);
        const T x = pixel_x<T>(a.height, a.width, int(pixel % a.width));
        const T y = pixel_y<T>(a.height, a.width, int(pixel % pixels / a.width));
        Clip<T> corner[3];
        load_corners(a, image, id >> 1, corner);
        const Polygon<T>& p = a.polygons[at];
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        f = fragment_at(corner, p, edges, static_cast<const HardPlane<T>&>(hard[at]), x, y, (id & 1) != 0);
    }
    if (items.face) items.face[i] = id >= 0 ? id >> 1 : -1;
    if (items.distance) items.distance[i] = f.distance;
    if (items.depth) items.depth[i] = f.depth;
    for (int k = 0; k < 3; ++k) items.barycentric[3 * i + k] = f.barycentric[k];
}

// order[start[f]] … order[start[f + 1] − 1] are the fragments of face f, of images · most_faces.
template <class T>
struct FragmentUpstream {
    const i64 *order, *start;
    const T *distance, *barycentric, *depth;  // each may be null
    int parts;                                // of a face's fragments
};

static_assert(sizeof(FaceGradient) == 28 * sizeof(double), "as 28 numbers");

// A warp a part of a face; blocks of 128. partial: (faces, parts, 28)
template <class T>
__global__ void __launch_bounds__(128)
    fragments_backward(SilhouetteScene<T> a, FragmentItems<T> items, FragmentUpstream<T> up, double* partial) {
    const i64 warp = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32, faces = i64(a.images) * a.most_faces;
    const int lane = threadIdx.x & 31;
    if (warp >= faces * up.parts) return;  // of all its lanes
    const i64 at = warp / up.parts, image = at / a.most_faces, part = warp % up.parts;
    const i64 first = up.start[at], many = (up.start[at + 1] - first + up.parts - 1) / up.parts;
    const i64 begin = first + part * many, end = min(begin + many, up.start[at + 1]);
    if (begin >= end) {  // for all of its lanes
        if (lane < 28) partial[warp * 28 + lane] = 0;
        return;
    }
    FaceGradient g = no_gradient();
    const i64 pixels = i64(a.height) * a.width;
    Clip<T> corner[3];
    load_corners(a, image, int(at % a.most_faces), corner);
    const Polygon<T>& p = a.polygons[at];
    Edge<T> edges[4];
    for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
    for (i64 n = begin + lane; n < end && p.n; n += 32) {
        const i64 i = up.order[n], pixel = pixel_of(items, i) % pixels;
        double by[3] = {0, 0, 0};
        for (int k = 0; up.barycentric && k < 3; ++k) by[k] = double(up.barycentric[3 * i + k]);
        const T x = pixel_x<T>(a.height, a.width, int(pixel % a.width));
        const T y = pixel_y<T>(a.height, a.width, int(pixel / a.width));
        fragment_backward(corner, p, edges, x, y, (items.ids[i] & 1) != 0, up.distance ? double(up.distance[i]) : 0.0, by,
                          up.depth ? double(up.depth[i]) : 0.0, g);
    }
    double* numbers = reinterpret_cast<double*>(&g);
    for (int k = 0; k < 28; ++k) {
        double sum = numbers[k];
        for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
        if (lane == 0) partial[warp * 28 + k] = sum;
    }
}

template <class T>
__global__ void fragments_faces(SilhouetteScene<T> a, const double* partial, int parts, Clip<T>* grad_corners) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= i64(a.images) * a.most_faces) return;
    FaceGradient g = no_gradient();
    double* numbers = reinterpret_cast<double*>(&g);
    for (int part = 0; part < parts; ++part)
        for (int k = 0; k < 28; ++k) numbers[k] += partial[(at * parts + part) * 28 + k];
    Clip<T> corner[3];
    if (load_corners(a, at / a.most_faces, int(at % a.most_faces), corner)) face_backward(corner, a.polygons[at], g);
    for (int k = 0; k < 3; ++k) {
        const Clip<double>& c = g.corner[k];
        grad_corners[3 * at + k] = {T(c.x), T(c.y), T(c.depth), T(c.w)};
    }
}

}  // namespace gd

#endif
