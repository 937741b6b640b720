// SPDX-License-Identifier: Apache-2.0
// The soft silhouette on the GPU: the mathematics of the CPU build (polygon.h, distance.h, distributions.h, tconorms.h,
// power_levels.h) under another schedule. Compiled at first use, one instance for each (type, distribution, T-conorm).
//
//   silhouette_prepare   numbers of the call, and the incomplete gamma function's table
//   silhouette_setup     a thread a face: clip, project; a warp marks the tiles of 16 × 16 pixels that its faces may reach,
//                        one bit a face. Compiled without fused products, as the hard rasteriser: which faces are degenerate
//                        must be the same for both, since fragments take from either
//   silhouette_forward   a block a tile and slice of the faces: its bits become a list, its faces pass through shared memory;
//                        a warp is 8 × 4 pixels, and passes over faces that reach none of them
//   silhouette_combine   a thread a pixel: slices are joined in their order
//   silhouette_factors   a thread a pixel: what the backward pass needs of it
//   silhouette_backward  a warp a unit of a face's pixels; lanes are added in a fixed order
//   silhouette_faces     a thread a face: its units are added in their order, then the way back to its corners
//   silhouette_numbers   one block: gradients of scale, shape, shift and p
//   silhouette_scatter   a thread a vertex: adds the corners that meet there, in order
//
// Bits need a number of words that the host knows: nothing is counted, read back or cut off. No sum's order depends on
// the order of threads, and no atomics touch real numbers: the same bits on any run.
#pragma once
#include "join.h"
#include "pool.h"
#include "tiles.h"
#include "walk.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kUnitPixels = 512;   // of a unit, at least
constexpr int kSetupThreads = 64;  // of silhouette_setup
constexpr int kSpread = 2;         // times the bins of a face may the box around those of a warp have, to be looked through

template <class T>
struct SilhouetteScene {
    const T* clip;       // (N, 4)
    const int* faces;    // (F, 3)
    const i64* layout;   // (B, 3)
    int images, most_faces, height, width;
    int across, down;    // tiles
    int shift;           // 2^shift tiles a side have their bits in common
    int words, slices;   // of these bits; a slice has every so many-th word, since neighbours are faces near each other
    int most_units;      // of a face
    double near;
    const SoftNumbers<T>* numbers;
    Polygon<T>* polygons;  // (B, most_faces), as what follows
    SoftFace<T>* prepared;
    PixelBox* boxes;
    int* units;
    u32* bits;  // (B, bins of tiles, words), zero before setup; null where nothing looks at them
};

// The bits of the bin at a row and column of bins.
template <class T>
GEODIFF_HD u32* bin_bits(const SilhouetteScene<T>& a, i64 image, int row, int column) {
    const int across = ((a.across - 1) >> a.shift) + 1, down = ((a.down - 1) >> a.shift) + 1;
    return a.bits + ((image * down + row) * across + column) * a.words;
}
template <class T>
GEODIFF_HD const u32* tile_bits(const SilhouetteScene<T>& a, i64 image, int tile) {
    return bin_bits(a, image, (tile / a.across) >> a.shift, (tile % a.across) >> a.shift);
}

struct SilhouetteParameters {
    double scale, shape, shift, p, radius, log_gamma_1, digamma, least_q;
    int mirrored, parametric;  // a symmetric law that is reversed: the shift's sign changes
    int squared;
    const double* times;  // a factor of the scale that the host does not know; or null. Not positive: alpha is NaN
};

template <class T>
__global__ void silhouette_prepare(SilhouetteParameters from, SoftNumbers<T>* to) {
    if (blockIdx.x || threadIdx.x) return;
    const double times = from.times ? *from.times : 1, scale = from.scale * times;
    const double radius = from.radius * (from.squared ? sqrt(times) : times);
    to->inverse_scale = T(1 / scale);
    to->radius = T(radius >= 1e6 ? 1e6 : radius > 0 ? radius : 0.0);
    to->shift = T(from.mirrored ? -from.shift : from.shift);
    to->q = T(clamp(abs(from.p), from.least_q, 1e30));
    to->tconorm = tconorm_params<T>(from.p);
    to->exact = tconorm_params<double>(from.p);
    to->scale = scale;
    to->p = from.p;
    if (from.parametric) gamma_table(from.shape, from.log_gamma_1, from.digamma, to->gamma);
}

template <class T>
GEODIFF_HD bool load_corners(const SilhouetteScene<T>& a, i64 image, int face, Clip<T> corner[3]) {
    const i64* row = a.layout + 3 * image;
    if (face >= row[2]) return false;
    const int* index = a.faces + 3 * (row[1] + face);
    for (int k = 0; k < 3; ++k) {
        const T* c = a.clip + 4 * (row[0] + index[k]);
        corner[k] = {c[0], c[1], c[2], c[3]};
    }
    return true;
}

// The bins of tiles that a face's box of pixels meets; none where it has no pixels.
struct BinBox {
    int first_row, end_row, first_column, end_column;

    GEODIFF_HD int rows() const { return end_row - first_row; }
    GEODIFF_HD int columns() const { return end_column - first_column; }
};
GEODIFF_HD BinBox bins_of(const PixelBox& box, int side) {
    if (box.first_row >= box.end_row) return {0, 0, 0, 0};
    return {box.first_row / side, (box.end_row - 1) / side + 1, box.first_column / side, (box.end_column - 1) / side + 1};
}

// Marks the bins that the faces of a warp reach: 32 faces of an image, of which a word has the bits. Where they are near each
// other, each lane looks at each bin of the box around all, and the word is written at once; else lanes share their bins.
template <class T, class Coverage>
GEODIFF_HD void mark_bins(const SilhouetteScene<T>& a, const SoftFace<T>* faces, i64 image, int word, const BinBox& own) {
    const int lane = threadIdx.x & 31, side = kTile << a.shift, many = own.rows() * own.columns();
    const T radius = a.numbers->radius;
    const auto reaches = [&](const SoftFace<T>& f, int row, int column) {
        return Coverage::touches(f, radius, centres<T>(a.height, a.width, row * side, column * side, side, side));
    };
    BinBox all = many ? own : BinBox{1 << 30, 0, 1 << 30, 0};
    int most = many;
    for (int d = 16; d > 0; d /= 2) {
        all.first_row = min(all.first_row, __shfl_xor_sync(kAllLanes, all.first_row, d));
        all.end_row = max(all.end_row, __shfl_xor_sync(kAllLanes, all.end_row, d));
        all.first_column = min(all.first_column, __shfl_xor_sync(kAllLanes, all.first_column, d));
        all.end_column = max(all.end_column, __shfl_xor_sync(kAllLanes, all.end_column, d));
        most = max(most, __shfl_xor_sync(kAllLanes, most, d));
    }
    if (most == 0) return;
    if (i64(all.rows()) * all.columns() <= kSpread * i64(most)) {
        for (int r = all.first_row; r < all.end_row; ++r)
            for (int c = all.first_column; c < all.end_column; ++c) {
                const bool within = r >= own.first_row && r < own.end_row && c >= own.first_column && c < own.end_column;
                const u32 bits = __ballot_sync(kAllLanes, within && reaches(faces[lane], r, c));
                if (lane == 0 && bits) bin_bits(a, image, r, c)[word] = bits;
            }
        return;
    }
    const int end = pieces_up_to(many), total = __shfl_sync(kAllLanes, end, 31);
    for (int i = lane; i - lane < total; i += 32) {
        const int owner = lane_of_piece(end, i), at = i - __shfl_sync(kAllLanes, end - many, owner);
        const int columns = __shfl_sync(kAllLanes, own.columns(), owner), first = __shfl_sync(kAllLanes, own.first_row, owner);
        const int column = __shfl_sync(kAllLanes, own.first_column, owner);
        if (i >= total) continue;
        const int r = first + at / columns, c = column + at % columns;
        if (reaches(faces[owner], r, c)) atomicOr(bin_bits(a, image, r, c) + word, 1u << owner);
    }
}

// Grid: ⌈images · 32 · words / kSetupThreads⌉: a warp has the faces of a word of an image's bits.
template <class T, class Coverage>
__global__ void __launch_bounds__(64) silhouette_setup(SilhouetteScene<T> a) {
    GEODIFF_SHARED(polygons, Polygon<T>[kSetupThreads]);
    GEODIFF_SHARED(prepared, SoftFace<T>[kSetupThreads]);
    const i64 slot = i64(blockIdx.x) * blockDim.x + threadIdx.x, image = slot / (32 * i64(a.words));
    if (image >= a.images) return;  // whole warps
    const int face = int(slot % (32 * i64(a.words))), lane = threadIdx.x & 31, first = threadIdx.x - lane;
    const i64 at = image * a.most_faces + face;
    // In shared memory, since a stack would be memory, too.
    Polygon<T>& p = polygons[threadIdx.x];
    SoftFace<T>& f = prepared[threadIdx.x];
    p.n = 0;
    p.orientation = T(1);
    Clip<T> corner[3];
    if (load_corners(a, image, face, corner)) make_polygon(corner, T(a.near), p);
    f.n = p.n;
    f.orientation = p.orientation;
    PixelBox box = {0, 0, 0, 0};
    if (p.n) {
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) {
            edges[k] = make_edge(p, k);
            f.side[k] = {edges[k].ax, edges[k].ay, edges[k].ex, edges[k].ey, edges[k].inverse, edges[k].sign};
        }
        const T step = T(2) / T(shorter_side(a.height, a.width));
        f.box = Coverage::reach(p, edges, a.numbers->radius + T(0.01) * step);
        box = pixels_of(f.box, a.height, a.width);
        if (box.first_row >= box.end_row || box.first_column >= box.end_column) box = {0, 0, 0, 0};
    }
    if (face < a.most_faces) {
        const i64 cells = i64(box.end_row - box.first_row) * (box.end_column - box.first_column);
        a.boxes[at] = box;
        a.units[at] = int(min(i64(a.most_units), (cells + kUnitPixels - 1) / kUnitPixels));
    }
    __syncwarp();  // the faces of the warp are there
    const int count = min(32, a.most_faces - (face - lane));
    store_together(a.polygons + (at - lane), polygons + first, count);
    store_together(a.prepared + (at - lane), prepared + first, count);
    if (a.bits) mark_bins<T, Coverage>(a, prepared + first, image, face / 32, bins_of(box, kTile << a.shift));
}

// Grid: tiles · slices · images, in this order; 256 threads. States: (images, slices, H, W).
template <class T, class L, class C, bool Squared, class Coverage>
__global__ void __launch_bounds__(256, 4)
    silhouette_forward(SilhouetteScene<T> a, T* totals, T* powers, int* winners, i64* pairs) {
    GEODIFF_SHARED(list, TileList);
    GEODIFF_SHARED(some, SoftFace<T>[kTogether]);
    const SoftNumbers<T>& s = *a.numbers;
    const int tiles = a.across * a.down, tile = int(blockIdx.x % tiles), slice = int(blockIdx.x / tiles % a.slices);
    const i64 image = blockIdx.x / tiles / a.slices;
    const TilePixel<T> pixel(tile, a.across, a.height, a.width);
    const u32* bits = tile_bits(a, image, tile);
    const SoftFace<T>* all = a.prepared + image * a.most_faces;
    PixelState<T> state;
    Join<C>::start(state);
    i64 met = 0;
    for (int w = slice; w < a.words; w += kWords * a.slices) {
        const int count = fill_list(list, bits, w, a.words, a.slices);
        for (int i = 0; i < count; i += kTogether) {
            fetch(some, all, list, i, count);
            __syncthreads();
            for (int j = 0; j < kTogether && i + j < count; ++j) {
                const SoftFace<T>& f = some[j];
                if (!Coverage::touches(f, s.radius, pixel.warp)) continue;
                auto pair = Coverage::template at<Squared>(f, pixel.x, pixel.y, s);
                if (!pair.counts) continue;
                ++met;
                Join<C>::add(state, Coverage::template cdf<L, false>(f, pair, s), list.face[i + j], s);
            }
            __syncthreads();
        }
    }
    if (pixel.row >= a.height || pixel.column >= a.width) return;
    const i64 to = ((image * a.slices + slice) * a.height + pixel.row) * a.width + pixel.column;
    totals[to] = state.total;
    if constexpr (Join<C>::kept == Kept::levels) powers[to] = state.power;
    if constexpr (Join<C>::kept == Kept::winner) winners[to] = state.winner;
    if (pairs && met) atomicAdd(reinterpret_cast<u64*>(pairs) + image, u64(met));
}

// `sum`: (images, H, W), and the same once more for levels.
template <class T, class C>
__global__ void silhouette_combine(SilhouetteScene<T> a, const T* totals, const T* powers, const int* winners, T* alpha,
                                   T* sum, int* best) {
    const i64 pixels = i64(a.height) * a.width, i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= pixels * a.images) return;
    const i64 image = i / pixels;
    PixelState<T> state;
    Join<C>::start(state);
    for (int slice = 0; slice < a.slices; ++slice) {
        const i64 from = (image * a.slices + slice) * pixels + i % pixels;
        PixelState<T> later = {totals[from], T(0), -1};
        if constexpr (Join<C>::kept == Kept::levels) later.power = powers[from];
        if constexpr (Join<C>::kept == Kept::winner) later.winner = winners[from];
        Join<C>::merge(state, later, *a.numbers);
    }
    const T value = Join<C>::value(state, a.layout[3 * image + 2], *a.numbers);
    alpha[i] = a.numbers->scale > 0 ? value : T(bits_as<float>(0x7FC00000u));
    sum[i] = state.total;
    if constexpr (Join<C>::kept == Kept::levels) sum[pixels * a.images + i] = state.power;
    if constexpr (Join<C>::kept == Kept::winner) best[i] = state.winner;
}

// Of each pixel: m·upstream and e; for the gradient in p slope·upstream, rest, and what no pair has a part in.
template <class T>
struct SilhouetteFactors {
    T *weight, *e, *slope, *rest;
    double* apart;
};

template <class T, class C>
__global__ void silhouette_factors(SilhouetteScene<T> a, const T* sum, const T* upstream, SilhouetteFactors<T> to) {
    const i64 all = i64(a.height) * a.width * a.images, i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= all) return;
    const T power = Join<C>::kept == Kept::levels ? sum[all + i] : T(0);
    T m, e;
    Join<C>::pixel(sum[i], power, a.layout[3 * (i / (all / a.images)) + 2], *a.numbers, m, e);
    to.weight[i] = m * upstream[i];
    to.e[i] = e;
    if constexpr (Join<C>::has_p) {
        if (!to.slope) return;
        double slope, at;
        Join<C>::slope(sum[i], power, *a.numbers, slope, at, to.rest[i]);
        slope *= double(upstream[i]);
        to.slope[i] = T(slope);
        to.apart[i] = slope != 0 ? -slope * at : 0.0;
    }
}

// What is wanted of the numbers' gradients: none, scale and shift, and with them shape or p.
enum Wanted { kNothing = 0, kScale = 1, kShape = 2, kPower = 4 };

// Blocks of 128 threads; each warp takes every so many-th unit. start: (images · most_faces + 1), first unit of each face.
// partial: (…, most_units, 8), parts: (…, most_units, 4) where numbers are wanted.
template <class T, class L, class C, bool Squared, class Coverage, int Want>
__global__ void __launch_bounds__(128, Want == (kScale | kShape | kPower) ? Coverage::kFewerBlocks : Coverage::kBlocks)
    silhouette_backward(SilhouetteScene<T> a, const T* sum, const int* best, SilhouetteFactors<T> factors, const int* start,
                        T* partial, double* parts) {
    const SoftNumbers<T>& s = *a.numbers;
    const int lane = threadIdx.x & 31, warps = gridDim.x * (blockDim.x / 32);
    const i64 faces = i64(a.images) * a.most_faces;
    const int total = start[faces];
    const PixelGrid<T> grid(a.height, a.width);
    for (int unit = blockIdx.x * (blockDim.x / 32) + (threadIdx.x >> 5); unit < total; unit += warps) {
        const i64 at = face_of_unit(start, faces, unit), image = at / a.most_faces;
        const int face = int(at % a.most_faces), own = unit - start[at], units = start[at + 1] - start[at];
        const SoftFace<T> f = a.prepared[at];
        const PixelBox box = a.boxes[at];
        // Unsigned: an image may have more than 2³¹ pixels.
        const u32 cells = u32(box.end_column - box.first_column) * u32(box.end_row - box.first_row);
        const u32 many = (cells + units - 1) / units, end = min(cells, (own + 1) * many);
        T g[8] = {};
        double by[4] = {};
        const i64 image_start = image * a.height * a.width;
        BoxWalk at_pixel(box, own * many + lane, 32);
        for (u32 i = own * many + lane; i < end; i += 32, at_pixel.next()) {
            const int row = at_pixel.row, column = at_pixel.column;
            const i64 pixel = image_start + (u32(row) * u32(a.width) + u32(column));
            T weight = factors.weight[pixel];
            if constexpr (Join<C>::kept == Kept::winner) weight = best[pixel] == face ? weight : T(0);
            if (!(Want & kPower) && weight == T(0)) continue;
            const T x = grid.x(column), y = grid.y(row);
            auto pair = Coverage::template at<Squared>(f, x, y, s);
            if (!pair.counts) continue;
            const Cdf<T> c = Coverage::template cdf<L, false>(f, pair, s);
            const T e = factors.e[pixel], top = Join<C>::kept == Kept::levels ? sum[pixel] : T(0);
            const T w = weight != T(0) ? weight * Join<C>::pair(c, top, e, s) : T(0);
            Coverage::template add<Squared>(f, pair, w, g);
            if constexpr ((Want & kScale) != 0) {
                if (w != T(0)) Coverage::by_scale_and_shift(f, pair, w, by[0], by[2]);
            }
            if constexpr ((Want & kShape) != 0) {
                const auto pair_of = [&](const Cdf<T>& of) { return Join<C>::pair(of, top, e, s); };
                if (weight != T(0)) by[1] += Coverage::template by_shape<L>(f, pair, weight, w, s, pair_of);
            }
            if constexpr ((Want & kPower) != 0) {
                const T slope = factors.slope[pixel];
                if (slope != T(0)) by[3] += double(slope) * Join<C>::by_p(c, top, factors.rest[pixel], s);
            }
        }
#pragma unroll
        for (int j = 0; j < 8; ++j)
            for (int d = 16; d > 0; d /= 2) g[j] += __shfl_xor_sync(0xFFFFFFFFu, g[j], d);
        const i64 to = at * a.most_units + own;
        if (lane == 0)
            for (int j = 0; j < 8; ++j) partial[to * 8 + j] = g[j];
        if constexpr (Want != kNothing) {
#pragma unroll
            for (int j = 0; j < 4; ++j)
                for (int d = 16; d > 0; d /= 2) by[j] += __shfl_xor_sync(0xFFFFFFFFu, by[j], d);
            if (lane == 0)
                for (int j = 0; j < 4; ++j) parts[to * 4 + j] = by[j];
        }
    }
}

// The gradient of the corners: (images, most_faces, 3); and of the numbers what each face adds to it, (…, 4).
template <class T>
__global__ void silhouette_faces(SilhouetteScene<T> a, const T* partial, const double* parts, Clip<T>* grad_corners,
                                 double* by_face) {
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= i64(a.images) * a.most_faces) return;
    Clip<T> corner[3], grad[3];
    for (int k = 0; k < 3; ++k) grad[k] = {T(0), T(0), T(0), T(0)};
    T g[8] = {};
    double by[4] = {};
    for (int unit = 0; unit < a.units[at]; ++unit) {
        for (int j = 0; j < 8; ++j) g[j] += partial[(at * a.most_units + unit) * 8 + j];
        for (int j = 0; parts && j < 4; ++j) by[j] += parts[(at * a.most_units + unit) * 4 + j];
    }
    if (load_corners(a, at / a.most_faces, int(at % a.most_faces), corner) && a.units[at]) {
        for (int j = 0; j < 8; ++j) g[j] *= a.numbers->inverse_scale;
        polygon_backward(corner, a.polygons[at], g, g + 4, grad);
    }
    for (int k = 0; k < 3; ++k) grad_corners[3 * at + k] = grad[k];
    for (int j = 0; parts && j < 4; ++j) by_face[4 * at + j] = by[j];
}

// One block of 256 threads: sums over faces, and over pixels of `apart` where it is given. gradient: scale, shape, shift, p.
template <class T>
__global__ void silhouette_numbers(SilhouetteScene<T> a, const double* by_face, const double* apart, int is_reversed,
                                   double* gradient) {
    constexpr int threads = 256;
    GEODIFF_SHARED(sums, double[4][threads]);
    double by[4] = {};
    for (i64 i = threadIdx.x; i < i64(a.images) * a.most_faces; i += threads)
        for (int j = 0; j < 4; ++j) by[j] += by_face[4 * i + j];
    for (i64 i = threadIdx.x; apart && i < i64(a.images) * a.height * a.width; i += threads) by[3] += apart[i];
    for (int j = 0; j < 4; ++j) sums[j][threadIdx.x] = by[j];
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int j = 0; j < 4 && int(threadIdx.x) < half; ++j) sums[j][threadIdx.x] += sums[j][threadIdx.x + half];
    }
    if (threadIdx.x) return;
    gradient[0] = sums[0][0] / a.numbers->scale;
    gradient[1] = sums[1][0];
    gradient[2] = is_reversed ? -sums[2][0] : sums[2][0];
    gradient[3] = sums[3][0];
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
