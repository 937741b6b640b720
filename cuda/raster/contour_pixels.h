// SPDX-License-Identifier: Apache-2.0
// The contour coverage on the GPU: from pieces of outline to pixels, and the way back to faces.
//
//   contour_nearest  a block a tile of 16 × 16 pixels: in float, which pieces may be the nearest to one of them; in double,
//                    which is
//   contour_shares   a thread a pixel: what it gives to the ends of one or two edges (then sorted by face, stably)
//   contour_chunks   a warp a chunk of the shares of one face; lanes are added in a fixed order
//   contour_faces    a thread a face: its chunks in their order, then the way back to its corners
#pragma once
#include "contour_kernels.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kContourTile = 16, kContourThreads = kContourTile * kContourTile;
constexpr int kShareChunk = 256;

// Between which two numbers the distance of a point to a piece lies, in float from what double makes relative to it.
GEODIFF_HD void distance_bounds(const Piece& p, double x, double y, float& low, float& high) {
    const float dx = float(p.ax + p.low * p.ex - x), dy = float(p.ay + p.low * p.ey - y);
    const float ex = float((p.high - p.low) * p.ex), ey = float((p.high - p.low) * p.ey);
    const float square = ex * ex + ey * ey;
    const float t = square > 0 ? min(max(-(dx * ex + dy * ey) / square, 0.0f), 1.0f) : 0.0f;
    const float gx = dx + t * ex, gy = dy + t * ey, length = sqrt(gx * gx + gy * gy);
    // An error of t moves the point along the piece, as far as a few roundings of it.
    const float error = 2e-6f * (abs(dx) + abs(dy) + abs(ex) + abs(ey)) + 1e-30f;
    low = length - error;
    high = length + error;
}

// Grid: tiles · images. first (B + 1): where each image's pieces begin.
template <class T>
__global__ void __launch_bounds__(256, 4)
    contour_nearest(ContourScene<T> a, const Segment* segments, const Piece* pieces, const i64* first,
                    const unsigned char* mask, T* distance, T* along, int* nearest) {
    GEODIFF_SHARED(some, Piece[kContourThreads]);
    GEODIFF_SHARED(names, int[kContourThreads]);
    GEODIFF_SHARED(warps, int[kContourThreads / 32]);
    GEODIFF_SHARED(limits, float[kContourThreads / 32]);
    const int across = (a.width + kContourTile - 1) / kContourTile, down = (a.height + kContourTile - 1) / kContourTile;
    const int tile = int(blockIdx.x % (across * down)), thread = int(threadIdx.x), lane = thread & 31, warp = thread >> 5;
    const i64 image = blockIdx.x / (across * down);
    const int first_row = tile / across * kContourTile, first_column = tile % across * kContourTile;
    const int row = first_row + thread / kContourTile, column = first_column + thread % kContourTile;
    const double x = pixel_x<T>(a.height, a.width, column), y = pixel_y<T>(a.height, a.width, row);
    const double left = pixel_x<T>(a.height, a.width, first_column), top = pixel_y<T>(a.height, a.width, first_row);
    const double half = (kContourTile - 1) / double(shorter_side(a.height, a.width));
    const double middle_x = left + half, middle_y = top - half;
    const float around = float(half * 1.4143);  // from the middle to the farthest pixel
    const i64 begin = first[image], end = first[image + 1];
    float limit = Real<float>::largest;
    for (i64 i = begin + thread; i < end; i += kContourThreads) {
        float low, high;
        distance_bounds(pieces[i], middle_x, middle_y, low, high);
        limit = min(limit, high);
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) limit = min(limit, __shfl_xor_sync(0xFFFFFFFFu, limit, d));
    if (lane == 0) limits[warp] = limit;
    __syncthreads();
    for (int k = 0; k < kContourThreads / 32; ++k) limit = min(limit, limits[k]);
    limit = min(limit + around, above(max(a.outside(), a.inside()))) + around;
    double best = Real<double>::largest, at = 0;
    int which = -1, kind = -1;
    for (i64 from = begin; from < end; from += kContourThreads) {
        const i64 i = from + thread;
        float low = 0, high;
        if (i < end) distance_bounds(pieces[i], middle_x, middle_y, low, high);
        const bool take = i < end && !(low > limit);
        const unsigned votes = __ballot_sync(0xFFFFFFFFu, take);
        if (lane == 0) warps[warp] = __popc(votes);
        __syncthreads();
        int count = 0, to = __popc(votes & ((1u << lane) - 1));
        for (int k = 0; k < kContourThreads / 32; ++k) {
            to += k < warp ? warps[k] : 0;
            count += warps[k];
        }
        if (take) {
            some[to] = pieces[i];
            names[to] = segments[pieces[i].segment].code;
        }
        __syncthreads();
        for (int k = 0; k < count; ++k) {
            const double d2 = distance2(some[k], x, y);
            if (!(d2 < best)) continue;
            best = d2;
            at = along_piece(some[k], x, y);
            which = names[k];
            kind = nearest_kind(some[k], at);
        }
    }
    if (row >= a.height || column >= a.width) return;
    const i64 pixel = (image * a.height + row) * a.width + column;
    const bool inside = mask[pixel] != 0;
    const double d = sqrt(best);
    const bool far = which < 0 || d > (inside ? a.inside() : a.outside());
    const double size = far ? 1e300 * 1e300 : d;  // infinity
    distance[pixel] = T(inside ? size : -size);
    along[pixel] = T(far ? 0.0 : at);
    nearest[2 * pixel] = far ? -1 : which;
    nearest[2 * pixel + 1] = far ? -1 : kind >= 0 ? segments[kind].code : kind;
}

// Two shares a pixel. keys: their faces, of images · most_faces, or that number where there is none.
template <class T>
__global__ void contour_shares(ContourScene<T> a, const T* distance, const T* along, const int* nearest, const T* upstream,
                               int* keys, EndGradient* shares) {
    const i64 pixel = i64(blockIdx.x) * blockDim.x + threadIdx.x, pixels = i64(a.height) * a.width;
    if (pixel >= pixels * a.images) return;
    const i64 image = pixel / pixels, base = image * a.most_faces;
    const double w = double(upstream[pixel]);
    const int e = nearest[2 * pixel], kind = nearest[2 * pixel + 1];
    keys[2 * pixel] = keys[2 * pixel + 1] = a.images * a.most_faces;
    if (e < 0 || w == 0) return;
    const View &v = a.views[base + e / 4], &other = a.views[base + max(kind, 0) / 4];
    // No such edge: `nearest` is not what the forward pass left.
    if ((e & 3) >= v.n || (kind >= 0 && (kind & 3) >= other.n)) return;
    const double x = pixel_x<T>(a.height, a.width, int(pixel % a.width));
    const double y = pixel_y<T>(a.height, a.width, int(pixel % pixels / a.width));
    const bool inside = !(distance[pixel] < T(0));
    EndGradient to_e, to_f = {0, 0, 0, 0};
    if (kind < 0) {
        to_e = point_gradient(v, e & 3, kind, double(along[pixel]), x, y, inside);
    } else {
        crossing_gradient(v, e & 3, other, kind & 3, x, y, inside, to_e, to_f);
        keys[2 * pixel + 1] = int(base + kind / 4);
        shares[2 * pixel + 1] = {w * to_f.ax, w * to_f.ay, w * to_f.bx, w * to_f.by};
    }
    keys[2 * pixel] = int(base + e / 4);
    shares[2 * pixel] = {w * to_e.ax, w * to_e.ay, w * to_e.bx, w * to_e.by};
}

// The shares order[start[f]] … order[start[f + 1] − 1] are face f's, and chunks (faces + 1) how many of kShareChunk come
// before its own. partial: (room, 8), x and y of the polygon's corners. A warp a chunk; blocks of 128.
template <class T>
__global__ void contour_chunks(ContourScene<T> a, const int* nearest, const EndGradient* shares, const i64* order,
                               const i64* start, const int* chunks, double* partial) {
    const int chunk = int(blockIdx.x * 4 + threadIdx.x / 32), lane = int(threadIdx.x) & 31;
    const i64 faces = i64(a.images) * a.most_faces;
    if (chunk >= chunks[faces]) return;  // of all its lanes
    const i64 at = face_of_unit(chunks, faces, chunk), begin = start[at] + i64(chunk - chunks[at]) * kShareChunk;
    const i64 end = min(begin + kShareChunk, start[at + 1]);
    const int n = a.views[at].n;
    double g[8] = {};
    for (i64 i = begin + lane; i < end; i += 32) {
        const EndGradient share = shares[order[i]];
        const int k = nearest[order[i]] & 3, l = k + 1 == n ? 0 : k + 1;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            g[j] += (j == k ? share.ax : 0.0) + (j == l ? share.bx : 0.0);
            g[4 + j] += (j == k ? share.ay : 0.0) + (j == l ? share.by : 0.0);
        }
    }
#pragma unroll
    for (int j = 0; j < 8; ++j) {
#pragma unroll
        for (int d = 16; d > 0; d /= 2) g[j] += __shfl_xor_sync(0xFFFFFFFFu, g[j], d);
        if (lane == 0) partial[i64(chunk) * 8 + j] = g[j];
    }
}

// Writes to the faces' corners (images, most_faces, 3). Blocks of 128 threads.
template <class T>
__global__ void contour_faces(ContourScene<T> a, const int* chunks, double* partial, Clip<T>* grad_corners) {
    GEODIFF_SHARED(polygons, Polygon<double>[128]);  // instead of stacks
    const i64 at = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (at >= i64(a.images) * a.most_faces) return;
    Clip<double> grad[3] = {{0, 0, 0, 0}, {0, 0, 0, 0}, {0, 0, 0, 0}};
    if (chunks[at] < chunks[at + 1]) {
        double* g = partial + i64(chunks[at]) * 8;
        for (int other = 1; other < chunks[at + 1] - chunks[at]; ++other)
            for (int j = 0; j < 8; ++j) g[j] += g[8 * other + j];
        Clip<double> corner[3];
        corners_of(a, at / a.most_faces, int(at % a.most_faces), corner);
        Polygon<double>& p = polygons[threadIdx.x];
        make_polygon(corner, double(T(a.near)), p);
        polygon_backward(corner, p, g, g + 4, grad);
    }
    for (int k = 0; k < 3; ++k) {
        grad_corners[3 * at + k] = {T(grad[k].x), T(grad[k].y), T(grad[k].depth), T(grad[k].w)};
    }
}

}  // namespace gd

#endif
