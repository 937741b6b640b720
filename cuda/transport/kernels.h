// SPDX-License-Identifier: Apache-2.0
// Sums over all pairs of two clouds on the GPU: the mathematics of the CPU build (pairs.h) under another schedule.
//
//   transport_lse       log Σ_j exp(h_j − C_ij/ε)
//   transport_apply     Σ_j P_ij v_je, or with Gradient Σ_j P_ij v_je ∂C_ij/∂x_i
//   transport_lse_add   adds what slices of the columns came to, in their order;
//   transport_apply_add likewise
//
// A thread takes a few rows, and meets all columns of its slice, which pass through shared memory tile by tile. Within a
// tile sums are of the real type, over a maximum that grows; tiles are added in double. A slice is as many columns as the
// problem's size says, whatever the card: no atomics, the same bits on any run. D = 0 takes any number of coordinates,
// eight at a time, for few columns at once.
//
// A grid is one row of blocks, see TransportSlices; a block has kTransportThreads threads.
#pragma once
#include "../kernel.h"
#include "pairs.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kTransportThreads = 128;
constexpr int kCoordinates = 8;  // that pass through shared memory at a time where D = 0
constexpr int kWide = 8;         // columns of v, or with Gradient and D = 0 coordinates, that a thread sums at once

// How a sum is cut: block = ((item · chunks + chunk) · slices + slice) · row_blocks + row block. Chunks are of columns of v.
struct TransportSlices {
    i64 row_blocks;
    int slices, chunks;
    double* most;  // lse, with several slices: (batch, slices, rows), largest exponents
    double* sum;   // with several slices: (batch, slices, rows, …) sums
};

// What a thread's block is for.
struct TransportPlace {
    i64 item, first, begin, end;  // rows from `first`; columns [begin, end)
    int chunk, slice;

    template <class T>
    GEODIFF_HD TransportPlace(const TransportJob<T>& job, const TransportSlices& cut, int rows_a_block) {
        i64 rest = blockIdx.x;
        first = rest % cut.row_blocks * rows_a_block;
        rest /= cut.row_blocks;
        slice = int(rest % cut.slices);
        rest /= cut.slices;
        chunk = int(rest % cut.chunks);
        item = rest / cut.chunks;
        const i64 many = (job.columns + cut.slices - 1) / cut.slices;
        begin = min(slice * many, job.columns);
        end = min(begin + many, job.columns);
    }
};

// A tile of columns in shared memory, and the squares of the distances of `R` rows to `step` of them at a time.
template <class T, int D, int R>
struct PairTile {
    static constexpr int tile = 128, step = 8;
    T y[D][tile], h[tile];

    struct Rows {
        T x[R][D];
        GEODIFF_HD Rows(const TransportJob<T>& job, const TransportPlace& at) {
#pragma unroll
            for (int r = 0; r < R; ++r) {
                const i64 row = min(at.first + r * kTransportThreads + i64(threadIdx.x), job.rows - 1);
#pragma unroll
                for (int d = 0; d < D; ++d) x[r][d] = job.x[(at.item * job.rows + row) * D + d];
            }
        }
    };
    // All threads of the block, before squares: columns from `begin`; those beyond the last get h = −infinity.
    GEODIFF_HD void load(const TransportJob<T>& job, const TransportPlace& at, i64 begin) {
        const int j = threadIdx.x;
        const bool inside = begin + j < at.end;
        const i64 from = at.item * job.columns + begin + j;
        h[j] = inside ? job.h[from] : minus_infinity<T>();
#pragma unroll
        for (int d = 0; d < D; ++d) y[d][j] = inside ? job.y[from * D + d] : T(0);
    }
    GEODIFF_HD void squares(const TransportJob<T>&, const TransportPlace&, const Rows& rows, i64, int column,
                            T (&square)[R][step]) {
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int c = 0; c < step; ++c) square[r][c] = pair_square<D>(rows.x[r], &y[0][column + c], tile, D);
    }
    GEODIFF_HD T difference(const Rows& rows, int r, int d, int column) const { return rows.x[r][d] - y[d][column]; }
};

template <class T, int R>
struct PairTile<T, 0, R> {
    static constexpr int tile = 16, step = 16;
    T x[kCoordinates][R * kTransportThreads], y[kCoordinates][tile], h[tile];

    struct Rows {
        GEODIFF_HD Rows(const TransportJob<T>&, const TransportPlace&) {}
    };
    GEODIFF_HD void load(const TransportJob<T>& job, const TransportPlace& at, i64 begin) {
        const int j = threadIdx.x;
        if (j < tile) h[j] = begin + j < at.end ? job.h[at.item * job.columns + begin + j] : minus_infinity<T>();
    }
    // Coordinates from `d` of the block's rows and of the tile that begins with column `begin`; zeros beyond the last.
    GEODIFF_HD void coordinates(const TransportJob<T>& job, const TransportPlace& at, i64 begin, int d) {
        __syncthreads();
        for (int i = threadIdx.x; i < R * kTransportThreads * kCoordinates; i += kTransportThreads) {
            const int own = i % kCoordinates, local = i / kCoordinates;
            const i64 row = min(at.first + local, job.rows - 1);
            x[own][local] = d + own < job.dim ? job.x[(at.item * job.rows + row) * job.dim + d + own] : T(0);
        }
        const int own = threadIdx.x % kCoordinates, j = threadIdx.x / kCoordinates;
        const bool inside = begin + j < at.end && d + own < job.dim;
        y[own][j] = inside ? job.y[(at.item * job.columns + begin + j) * job.dim + d + own] : T(0);
        __syncthreads();
    }
    GEODIFF_HD void squares(const TransportJob<T>& job, const TransportPlace& at, const Rows&, i64 begin, int,
                            T (&square)[R][step]) {
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int c = 0; c < step; ++c) square[r][c] = T(0);
        for (int d = 0; d < job.dim; d += kCoordinates) {
            coordinates(job, at, begin, d);
#pragma unroll
            for (int own = 0; own < kCoordinates; ++own)
#pragma unroll
                for (int r = 0; r < R; ++r) {
                    const T mine = x[own][r * kTransportThreads + threadIdx.x];
#pragma unroll
                    for (int c = 0; c < step; ++c) {
                        const T difference = mine - y[own][c];
                        square[r][c] += difference * difference;
                    }
                }
        }
    }
};
static_assert(PairTile<float, 0, 2>::tile * kCoordinates == kTransportThreads, "a thread loads one coordinate");
static_assert(PairTile<float, 3, 2>::tile == kTransportThreads, "a thread loads one column");

template <class T, int D, int P>
__global__ void __launch_bounds__(128) transport_lse(TransportJob<T> job, TransportSlices cut) {
    constexpr int R = D > 0 ? 4 : 2;
    using Tile = PairTile<T, D, R>;
    GEODIFF_SHARED(tile, Tile);
    const TransportPlace at(job, cut, R * kTransportThreads);
    const typename Tile::Rows rows(job, at);
    const T per_epsilon = per_epsilon_of(job);
    RunningLse total[R];
    for (i64 begin = at.begin; begin < at.end; begin += Tile::tile) {
        __syncthreads();
        tile.load(job, at, begin);
        __syncthreads();
        T most[R], sum[R];
#pragma unroll
        for (int r = 0; r < R; ++r) {
            most[r] = minus_infinity<T>();
            sum[r] = T(0);
        }
        for (int column = 0; column < Tile::tile; column += Tile::step) {
            T t[R][Tile::step];
            tile.squares(job, at, rows, begin, column, t);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                T here = minus_infinity<T>();
#pragma unroll
                for (int c = 0; c < Tile::step; ++c) {
                    t[r][c] = tile.h[column + c] - pair_cost<P>(t[r][c]) * per_epsilon;
                    here = max(here, t[r][c]);
                }
                if (!(here > minus_infinity<T>())) continue;
                if (here > most[r]) {
                    sum[r] *= most[r] > minus_infinity<T>() ? exp_above(most[r] - here, -ExponentRange<T>::reach) : T(0);
                    most[r] = here;
                }
#pragma unroll
                for (int c = 0; c < Tile::step; ++c) sum[r] += exp_above(t[r][c] - most[r], -ExponentRange<T>::reach);
            }
        }
#pragma unroll
        for (int r = 0; r < R; ++r)
            if (sum[r] > T(0)) total[r].add(double(most[r]), double(sum[r]));
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const i64 row = at.first + r * kTransportThreads + i64(threadIdx.x);
        if (row >= job.rows) continue;
        if (cut.slices == 1) {
            job.out[at.item * job.rows + row] = T(total[r].value());
        } else {
            const i64 to = (at.item * cut.slices + at.slice) * job.rows + row;
            cut.most[to] = total[r].largest;
            cut.sum[to] = total[r].sum;
        }
    }
}

// A thread a row.
template <class T>
__global__ void transport_lse_add(TransportJob<T> job, TransportSlices cut) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= job.batch * job.rows) return;
    const i64 item = i / job.rows, row = i % job.rows;
    RunningLse total;
    for (int slice = 0; slice < cut.slices; ++slice) {
        const i64 from = (item * cut.slices + slice) * job.rows + row;
        if (cut.sum[from] > 0) total.add(cut.most[from], cut.sum[from]);
    }
    job.out[i] = T(total.value());
}

// The columns of v from chunk · kWide (with Gradient: the one of this chunk), and of each D coordinates; for D = 0 with
// Gradient, chunks are of kWide coordinates, those of one column of v after those of another.
template <class T, int D, int P, bool Gradient>
__global__ void __launch_bounds__(128, Gradient && D == 0 ? 4 : 0) transport_apply(TransportJob<T> job, TransportSlices cut) {
    constexpr int R = Gradient && D == 0 ? 1 : 2, parts = Gradient && D > 0 ? D : kWide;
    constexpr int widths = Gradient ? 1 : kWide;  // columns of v in shared memory
    using Tile = PairTile<T, D, R>;
    using Range = ExponentRange<T>;
    GEODIFF_SHARED(tile, Tile);
    GEODIFF_SHARED(v, T[widths * Tile::tile]);
    const TransportPlace at(job, cut, R * kTransportThreads);
    const typename Tile::Rows rows(job, at);
    const int groups = (job.dim + kWide - 1) / kWide;  // of coordinates, for D = 0 with Gradient
    const int e = Gradient ? (D > 0 ? at.chunk : at.chunk / groups) : at.chunk * kWide;
    const int first_d = Gradient && D == 0 ? at.chunk % groups * kWide : 0;
    const int count = Gradient ? (D > 0 ? D : min(kWide, job.dim - first_d)) : min(kWide, job.width - e);
    const T per_epsilon = per_epsilon_of(job);
    T k[R];
    double total[R][parts] = {};
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const i64 row = min(at.first + r * kTransportThreads + i64(threadIdx.x), job.rows - 1);
        k[r] = job.k[at.item * job.rows + row];
    }
    for (i64 begin = at.begin; begin < at.end; begin += Tile::tile) {
        __syncthreads();
        tile.load(job, at, begin);
        for (int i = threadIdx.x; i < widths * Tile::tile; i += kTransportThreads) {
            const int own = i % widths, j = i / widths;
            const bool inside = begin + j < at.end && e + own < job.width;
            v[own * Tile::tile + j] = inside ? job.v[(at.item * job.columns + begin + j) * job.width + e + own] : T(0);
        }
        __syncthreads();
        T sum[R][parts] = {};
        for (int column = 0; column < Tile::tile; column += Tile::step) {
            T weight[R][Tile::step];
            tile.squares(job, at, rows, begin, column, weight);
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int c = 0; c < Tile::step; ++c) {
                    const T square = weight[r][c];
                    // In this order, which rounds alike when rows and columns change places.
                    const T exponent = (k[r] + tile.h[column + c]) - pair_cost<P>(square) * per_epsilon;
                    weight[r][c] = exp_above(min(exponent, Range::cap), Range::floor);
                    if constexpr (Gradient) weight[r][c] *= v[column + c] * pair_slope<P>(square);
                }
            if constexpr (Gradient && D == 0) tile.coordinates(job, at, begin, first_d);
#pragma unroll
            for (int r = 0; r < R; ++r)
#pragma unroll
                for (int c = 0; c < Tile::step; ++c)
#pragma unroll
                    for (int i = 0; i < parts; ++i) {
                        if constexpr (!Gradient) {
                            sum[r][i] += weight[r][c] * v[i * Tile::tile + column + c];
                        } else if constexpr (D > 0) {
                            sum[r][i] += weight[r][c] * tile.difference(rows, r, i, column + c);
                        } else {
                            sum[r][i] += weight[r][c] * (tile.x[i][r * kTransportThreads + threadIdx.x] - tile.y[i][c]);
                        }
                    }
        }
#pragma unroll
        for (int r = 0; r < R; ++r)
#pragma unroll
            for (int i = 0; i < parts; ++i) total[r][i] += double(sum[r][i]);
    }
    const i64 numbers = i64(job.width) * (Gradient ? job.dim : 1);  // of a row's result
    const i64 to = Gradient ? i64(e) * job.dim + first_d : e;
#pragma unroll
    for (int r = 0; r < R; ++r) {
        const i64 row = at.first + r * kTransportThreads + i64(threadIdx.x);
        if (row >= job.rows) continue;
        const i64 place = (at.item * cut.slices + at.slice) * job.rows + row;  // with one slice: the row itself
#pragma unroll
        for (int i = 0; i < parts; ++i) {
            if (i >= count) break;
            if (cut.slices == 1) {
                job.out[place * numbers + to + i] = T(total[r][i]);
            } else {
                cut.sum[place * numbers + to + i] = total[r][i];
            }
        }
    }
}

// A thread a number of the result; `numbers` of them are a row's.
template <class T>
__global__ void transport_apply_add(TransportJob<T> job, TransportSlices cut, i64 numbers) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x, each = job.rows * numbers;
    if (i >= job.batch * each) return;
    const i64 item = i / each;
    double total = 0;
    for (int slice = 0; slice < cut.slices; ++slice) total += cut.sum[(item * cut.slices + slice) * each + i % each];
    job.out[i] = T(total);
}

}  // namespace gd

#endif
