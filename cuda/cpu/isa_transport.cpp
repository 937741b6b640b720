// SPDX-License-Identifier: Apache-2.0
// log-sum-exp and plan times matrix of entropic optimal transport on the CPU; the N × M matrix is never stored.
//
// A tile's terms are added in the real type, tiles in double. A row's sums are one thread's, in the order of tiles: the
// same bits, whatever the threads.
#include "transport_tiles.h"

namespace gd {
namespace {

template <int D, int P, class T>
void lse(const TransportJob<T>& job) {
    const Tiles<T> tiles(job);
    const T per_epsilon = per_epsilon_of(job);
    const i64 chunks = (job.rows + kChunk - 1) / kChunk;
    geodiff::parallel(job.batch * chunks, job.threads, [&](i64 task) {
        const i64 item = task / chunks, begin = task % chunks * kChunk;
        const int rows = int(min(job.rows - begin, i64(kChunk)));
        const i64 row = item * job.rows + begin;
        alignas(64) T t[kTile];
        T largest[kChunk];
        RunningLse sum[kChunk];
        walk<P>(job, tiles, item, begin, rows, largest, [&](int i, const Tile<T>& tile) {
            const T most = exponents<D, P>(tile, job.x + (row + i) * job.dim, job.dim, T(0), per_epsilon, t);
            if (!(most > minus_infinity<T>()) || most < largest[i] - ExponentRange<T>::reach) return;
            sum[i].add(most, exp_sum(t, tile.count, most));
            largest[i] = max(largest[i], most);
        });
        for (int i = 0; i < rows; ++i) job.out[row + i] = T(sum[i].value());
    });
}

// Gradient: Σ_j P_ij v_je ∂C_ij/∂x_i instead of Σ_j P_ij v_je.
template <int D, int P, bool Gradient, class T>
void apply(const TransportJob<T>& job) {
    const Tiles<T> tiles(job);
    const T per_epsilon = per_epsilon_of(job);
    const i64 chunks = (job.rows + kChunk - 1) / kChunk;
    const double factor = Gradient && P == 2 ? 2 : 1;  // of ∂C/∂x
    const i64 size = i64(job.width) * (Gradient ? job.dim : 1);
    geodiff::parallel(job.batch * chunks, job.threads, [&](i64 task) {
        const i64 item = task / chunks, begin = task % chunks * kChunk;
        const int rows = int(min(job.rows - begin, i64(kChunk)));
        const i64 row = item * job.rows + begin;
        alignas(64) T t[kTile];
        T largest[kChunk];
        const Scratch<double> sum(kChunk * size);
        for (i64 i = 0; i < kChunk * size; ++i) sum[i] = 0;
        walk<P>(job, tiles, item, begin, rows, largest, [&](int i, const Tile<T>& tile) {
            const T* x = job.x + (row + i) * job.dim;
            const T k = job.k[row + i];
            const int n = tile.count;
            const T most = exponents<D, P>(tile, x, job.dim, k, per_epsilon, t);
            if (most < ExponentRange<T>::floor || most < largest[i] - ExponentRange<T>::reach) return;
            largest[i] = max(largest[i], min(most, ExponentRange<T>::cap));
            weights(t, n);
            if constexpr (Gradient) {
                divide_by_distance<D, P>(tile, x, job.dim, t);
                add_moments<D>(tile, x, t, job.dim, job.width, sum.get() + i * size);
            } else {
                add_dots(t, tile.v, n, job.width, sum.get() + i * size);
            }
        });
        for (i64 i = 0; i < rows * size; ++i) job.out[row * size + i] = T(factor * sum[i]);
    });
}

enum Sum { kLse, kApply, kApplyGradient };

template <Sum S, int D, int P, class T>
void run(const TransportJob<T>& job) {
    if constexpr (S == kLse) {
        lse<D, P>(job);
    } else {
        apply<D, P, S == kApplyGradient>(job);
    }
}

template <Sum S, int P, class T>
void run_dim(const TransportJob<T>& job) {
    switch (job.dim) {
        case 1: return run<S, 1, P>(job);
        case 2: return run<S, 2, P>(job);
        case 3: return run<S, 3, P>(job);
        default: return run<S, 0, P>(job);
    }
}

template <Sum S, class T>
void run_any(const TransportJob<T>& job) {
    return job.p == 2 ? run_dim<S, 2>(job) : run_dim<S, 1>(job);
}

}  // namespace

const geodiff::Kernel<geodiff::TransportJob> kernel::transport_lse = {run_any<kLse>, run_any<kLse>};
const geodiff::Kernel<geodiff::TransportJob> kernel::transport_apply = {run_any<kApply>, run_any<kApply>};
const geodiff::Kernel<geodiff::TransportJob> kernel::transport_apply_gradient = {run_any<kApplyGradient>, run_any<kApplyGradient>};

}  // namespace gd
