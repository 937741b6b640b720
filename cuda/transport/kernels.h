// SPDX-License-Identifier: Apache-2.0
// Sums over all pairs of two clouds on the GPU: the mathematics of the CPU build (pairs.h) under another schedule.
//
//   transport_lse             log Σ_j exp(h_j − C_ij/ε)
//   transport_apply           Σ_j P_ij v_je, or with Gradient Σ_j P_ij v_je ∂C_ij/∂x_i
//
// A block takes kRows rows, kLanes threads a row. Columns pass through shared memory tile by tile; a thread meets every
// kLanes-th of them. The threads of a row are then added up in a fixed order: no atomics, the same bits on any run. A grid
// is (⌈rows/kRows⌉, batch) of kRows·kLanes threads; for apply its third axis runs over the columns of v. D = 0 is the
// general path: its coordinates, up to kMostDim, stay in local memory.
//
// Not yet run on a device: so far compilers alone have seen this file (.ci/compile_kernels.py).
#pragma once
#include "pairs.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)

namespace gd {

constexpr int kRows = 16, kLanes = 8;
constexpr int kColumns = 64;  // in a tile
constexpr int kMostDim = 16;

// Coordinates (D or dim, kColumns), then h and, for apply, one column of v.
template <int D, class T>
struct SharedTile {
    T y[(D > 0 ? D : kMostDim) * kColumns];
    T h[kColumns], v[kColumns];

    // All threads of the block; columns beyond the last get h = −infinity.
    GEODIFF_HD void load(const TransportJob<T>& job, i64 item, i64 begin, int e) {
        const int dim = D > 0 ? D : job.dim;
        __syncthreads();
        for (int j = threadIdx.x; j < kColumns; j += kRows * kLanes) {
            const bool inside = begin + j < job.columns;
            const i64 from = item * job.columns + begin + j;
            h[j] = inside ? job.h[from] : minus_infinity<T>();
            v[j] = inside && job.v ? job.v[from * job.width + e] : T(0);
            for (int d = 0; d < dim; ++d) y[d * kColumns + j] = inside ? job.y[from * dim + d] : T(0);
        }
        __syncthreads();
    }
};

// The row of a thread; threads beyond the last row repeat it, and write nothing.
template <int D, class T>
struct ThreadRow {
    T x[D > 0 ? D : kMostDim];
    i64 index;
    int lane, local;
    bool counts;

    GEODIFF_HD explicit ThreadRow(const TransportJob<T>& job) {
        const int dim = D > 0 ? D : job.dim;
        local = int(threadIdx.x) / kLanes;
        lane = int(threadIdx.x) % kLanes;
        const i64 row = i64(blockIdx.x) * kRows + local;
        counts = row < job.rows;
        index = i64(blockIdx.y) * job.rows + (counts ? row : job.rows - 1);
        for (int d = 0; d < dim; ++d) x[d] = job.x[index * dim + d];
    }
};

template <class T, int D, int P>
__global__ void transport_lse(TransportJob<T> job) {
    __shared__ SharedTile<D, T> tile;
    __shared__ double largest[kRows * kLanes], sums[kRows * kLanes];
    const ThreadRow<D, T> row(job);
    const T per_epsilon = per_epsilon_of(job);
    RunningLse sum;
    for (i64 begin = 0; begin < job.columns; begin += kColumns) {
        tile.load(job, blockIdx.y, begin, 0);
        T t[kColumns / kLanes];
        T most = minus_infinity<T>();
#pragma unroll
        for (int c = 0; c < kColumns / kLanes; ++c) {
            const int j = c * kLanes + row.lane;
            t[c] = tile.h[j] - pair_cost<P>(pair_square<D>(row.x, tile.y + j, kColumns, job.dim)) * per_epsilon;
            most = max(most, t[c]);
        }
        if (most > minus_infinity<T>()) {
            T part = T(0);
#pragma unroll
            for (int c = 0; c < kColumns / kLanes; ++c) part += exp_above(t[c] - most, -ExponentRange<T>::reach);
            sum.add(double(most), double(part));
        }
    }
    largest[threadIdx.x] = sum.largest;
    sums[threadIdx.x] = sum.sum;
    __syncthreads();
    if (row.lane > 0 || !row.counts) return;
    for (int other = 1; other < kLanes; ++other) {
        const int from = row.local * kLanes + other;
        if (sums[from] > 0) sum.add(largest[from], sums[from]);
    }
    job.out[row.index] = T(sum.value());
}

template <class T, int D, int P, bool Gradient>
__global__ void transport_apply(TransportJob<T> job) {
    __shared__ SharedTile<D, T> tile;
    __shared__ double shared[kRows * kLanes];
    using R = ExponentRange<T>;
    constexpr int most_parts = Gradient ? (D > 0 ? D : kMostDim) : 1;
    const ThreadRow<D, T> row(job);
    const T per_epsilon = per_epsilon_of(job);
    const T k = job.k[row.index];
    const int e = int(blockIdx.z), dim = D > 0 ? D : job.dim, parts = Gradient ? dim : 1;
    double sum[most_parts] = {};
    for (i64 begin = 0; begin < job.columns; begin += kColumns) {
        tile.load(job, blockIdx.y, begin, e);
        T part[most_parts] = {};
        for (int c = 0; c < kColumns / kLanes; ++c) {
            const int j = c * kLanes + row.lane;
            const T square = pair_square<D>(row.x, tile.y + j, kColumns, dim);
            // In this order, which rounds alike when rows and columns change places.
            const T exponent = (k + tile.h[j]) - pair_cost<P>(square) * per_epsilon;
            const T weight = exp_above(min(exponent, R::cap), R::floor) * tile.v[j];
            if constexpr (Gradient) {
                const T slope = weight * pair_slope<P>(square);
                for (int d = 0; d < dim; ++d) part[d] += slope * (row.x[d] - tile.y[d * kColumns + j]);
            } else {
                part[0] += weight;
            }
        }
        for (int d = 0; d < parts; ++d) sum[d] += double(part[d]);
    }
    for (int d = 0; d < parts; ++d) {
        __syncthreads();
        shared[threadIdx.x] = sum[d];
        __syncthreads();
        if (row.lane > 0 || !row.counts) continue;
        double total = 0;
        for (int lane = 0; lane < kLanes; ++lane) total += shared[row.local * kLanes + lane];
        job.out[(row.index * job.width + e) * parts + d] = T(total);
    }
}

}  // namespace gd

#endif
