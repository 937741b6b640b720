// SPDX-License-Identifier: Apache-2.0
// The faces with a share in the softmax of each pixel, on the GPU: those whose key is no more than `spread` above the least
// one. Tiles and their faces are those of silhouette_setup, with the blur for a radius.
//
//   heaviest_bounds  a thread a face: its planes, its box, and the least key that it may have anywhere
//   heaviest_limits  a block a tile: lowers what keys may be at most, by the keys of faces within a radius
//   heaviest_list    a block a tile: counts the faces of a pixel that are below its limit, then writes them down
//   heaviest_needed  a thread a pixel: how many of its faces, in order, are needed for all but a little of the weight
//
// Each lane holds another face's box against a warp's pixels and their limits, so a warp passes over 32 faces at a time.
// Compiled without fused products, so that the list has room for just what was counted.
#pragma once
#include "fragments_kernels.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct FaceBound {
    Box<T> box;
    T least;
};

template <class T>
struct HeaviestRanking {
    const T* table;  // as of FragmentRanking
    double unit;
    int size, k;         // k: 0 for no limit
    const T* sharpness;  // (B)
    const T* base;       // (B) a depth
    double spread, error;
};

template <class T>
__global__ void heaviest_bounds(SilhouetteScene<T> a, HeaviestRanking<T> r, HardFace<T>* hard, FaceBound<T>* bounds) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x, image = at / a.most_faces;
    if (image >= a.images) return;
    HardFace<T> f;
    FaceBound<T> b = {{T(0), T(0), T(0), T(0)}, Real<T>::largest};
    f.n = 0;
    Clip<T> corner[3];
    if (load_corners(a, image, int(at % a.most_faces), corner)) {
        const Polygon<T> p = a.polygons[at];
        hard_face(corner, p, f);
        if (p.n) {
            b.box = polygon_box(p);
            T depth = p.depth[0];
            for (int k = 1; k < p.n; ++k) depth = min(depth, p.depth[k]);
            const T key = softmax_key(depth, r.base[image], r.sharpness[image], T(0));
            b.least = key - (T(1e-4) * abs(key) + T(1e-3));  // room for rounding
        }
    }
    hard[at] = f;
    bounds[at] = b;
}

// A pixel of a tile, and all faces that may have a key there that is within its limit.
template <class T>
struct Seeker {
    const SilhouetteScene<T>& a;
    const HardFace<T>* hard;
    const FaceBound<T>* bounds;
    WeightTable<T> table;
    T base, sharpness, radius2;
    i64 image, at;  // at: of the pixel, among those of all images
    TilePixel<T> pixel;
    bool real;

    GEODIFF_HD Seeker(const SilhouetteScene<T>& scene, const HeaviestRanking<T>& r, const HardFace<T>* h,
                      const FaceBound<T>* b, double radius)
        : a(scene), hard(h), bounds(b), table{r.table, r.size, T(r.unit)}, image(blockIdx.x / (scene.across * scene.down)),
          pixel(tile(), scene.across, scene.height, scene.width) {
        base = r.base[image];
        sharpness = r.sharpness[image];
        radius2 = radius < 1e6 ? T(radius) * T(radius) : Real<T>::largest;
        real = pixel.row < a.height && pixel.column < a.width;
        at = real ? (image * a.height + pixel.row) * a.width + pixel.column : 0;
    }
    GEODIFF_HD int tile() const { return int(blockIdx.x % (a.across * a.down)); }

    // Calls meet(face, key, inside) of each face whose key is not above `limit`, which may become less. All 256 threads.
    template <class Meet>
    GEODIFF_HD void each(TileList& list, T& limit, Meet&& meet) const {
        const int lane = threadIdx.x & 31;
        const i64 first = image * a.most_faces;
        const u32* bits = tile_bits(a, image, tile());
        for (int w = 0; w < a.words; w += kWords) {
            const int count = fill_list(list, bits, w, a.words);
            for (int i = 0; i < count; i += 32) {
                T worst = limit;
                for (int d = 16; d > 0; d /= 2) worst = max(worst, __shfl_xor_sync(0xFFFFFFFFu, worst, d));
                const bool may = i + lane < count && may_enter(bounds[first + list.face[i + lane]], worst);
                for (u32 m = __ballot_sync(0xFFFFFFFFu, may); m; m &= m - 1) {
                    const int face = list.face[i + __ffs(int(m)) - 1];
                    T key;
                    bool inside;
                    if (key_at(first + face, key, inside) && key <= limit) meet(face, key, inside);
                }
            }
        }
    }

    // Of the warp's pixels.
    GEODIFF_HD bool may_enter(const FaceBound<T>& b, T worst) const {
        const T dx = max(max(b.box.left - pixel.warp.right, pixel.warp.left - b.box.right), T(0));
        const T dy = max(max(b.box.bottom - pixel.warp.top, pixel.warp.bottom - b.box.top), T(0));
        const T away2 = dx * dx + dy * dy;
        if (!(away2 <= radius2 * T(1.0001)) || !(b.least <= worst)) return false;
        const T weight = away2 > T(0) ? log_weight(table, -sqrt(away2) * T(0.9999)) : T(0);
        return b.least - weight - T(1e-4) * abs(weight) <= worst;
    }

    GEODIFF_HD bool key_at(i64 face, T& key, bool& inside) const {
        const HardFace<T>& f = hard[face];
        inside = covers(f, pixel.x, pixel.y);
        const Nearest<T> near = nearest_of(a.prepared[face], pixel.x, pixel.y);
        if (!inside && !(near.d2 <= radius2 && radius2 > T(0))) return false;
        const T depth = inside ? depth_at(f, pixel.x, pixel.y) : edge_depth(a.polygons[face], int(near.edge), near.along);
        const T length = sqrt(near.d2);
        key = softmax_key(depth, base, sharpness, log_weight(table, inside ? length : -length));
        return true;
    }
};

// limit: (B, H, W), −largest for pixels that do not count. Grid: tiles · images; 256 threads.
template <class T>
__global__ void __launch_bounds__(256, 2)
    heaviest_limits(SilhouetteScene<T> a, HeaviestRanking<T> r, const HardFace<T>* hard, const FaceBound<T>* bounds,
                    double radius, T* limits) {
    GEODIFF_SHARED(list, TileList);
    const Seeker<T> seeker(a, r, hard, bounds, radius);
    const T spread = T(r.spread < 1e30 ? r.spread : 1e30);
    T limit = seeker.real ? limits[seeker.at] : -Real<T>::largest;
    seeker.each(list, limit, [&](int, T key, bool) { limit = min(limit, key + spread + room(key)); });
    if (seeker.real) limits[seeker.at] = limit;
}

// Without `start`: count (B, H, W), no more than k. With it, (B, H, W) and one more: ids and keys of each pixel from there
// on. An id is 2 · face + (1 if the face covers the pixel). With k they are in order, else in that of the faces.
template <class T>
__global__ void __launch_bounds__(256, 2)
    heaviest_list(SilhouetteScene<T> a, HeaviestRanking<T> r, const HardFace<T>* hard, const FaceBound<T>* bounds,
                  double radius, const T* limits, int* count, const i64* start, int* ids, T* keys) {
    GEODIFF_SHARED(list, TileList);
    const Seeker<T> seeker(a, r, hard, bounds, radius);
    T limit = seeker.real ? limits[seeker.at] : -Real<T>::largest;
    int found = 0;
    if (!start) {
        seeker.each(list, limit, [&](int, T, bool) { ++found; });
        if (seeker.real) count[seeker.at] = r.k > 0 ? min(found, r.k) : found;
        return;
    }
    const int most = seeker.real ? int(start[seeker.at + 1] - start[seeker.at]) : 0;
    ids += seeker.real ? start[seeker.at] : 0;
    keys += seeker.real ? start[seeker.at] : 0;
    seeker.each(list, limit, [&](int face, T key, bool inside) {
        const int name = 2 * face + (inside ? 1 : 0);
        if (found < most) {
            keys[found] = r.k > 0 ? Real<T>::largest : key;
            ids[found++] = name;
            if (r.k == 0) return;
        }
        if (r.k > 0) insert(keys, ids, found, key, name);
        if (r.k > 0 && found == r.k) limit = min(limit, keys[found - 1]);
    });
}

// keys: of each pixel from start on, in order. Of `count` the last ones are taken away, as long as they have no more than
// the share `error` of all weights exp(−key) together.
template <class T>
__global__ void heaviest_needed(const T* keys, const i64* start, i64 pixels, double error, int* count) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= pixels) return;
    const T* own = keys + start[i];
    const int many = int(start[i + 1] - start[i]);
    int needed = many;
    // Keys that round to coarse steps say little of weights.
    if (many && T(error) > T(0) && Real<T>::epsilon * abs(own[0]) <= T(1e-3)) {
        T total = T(0), left = T(0);
        for (int s = 0; s < many; ++s) total += exp(own[0] - own[s]);
        for (int s = many - 1; s > 0; --s) {
            left += exp(own[0] - own[s]);
            if (!(left <= T(error) * total)) break;
            needed = s;
        }
    }
    count[i] = needed;
}

}  // namespace gd

#endif
