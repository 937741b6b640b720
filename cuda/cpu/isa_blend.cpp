// SPDX-License-Identifier: Apache-2.0
// Rows blended by weights: out_p = Σ_j weight_pj·values[index_pj]. What attributes at barycentrics and texels at texture
// coordinates have in common. Backward, a thread owns a range of rows and goes through all of `index` in order.
#include "../portability.h"
#include "jobs.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::BlendJob<T>;

constexpr i64 kPointBlock = 2048;

template <class T>
int threads_for(const Job<T>& job) {
    return job.points * job.terms * job.channels < 40000 ? 1 : job.threads;
}

template <class T>
void forward(const Job<T>& job) {
    const int c = job.channels, j = job.terms;
    parallel((job.points + kPointBlock - 1) / kPointBlock, threads_for(job), [&](i64 block) {
        for (i64 p = block * kPointBlock; p < min(job.points, (block + 1) * kPointBlock); ++p) {
            T* out = job.out + p * c;
            if (j == 3) {  // corners of a triangle
                const int* at = job.index + 3 * p;
                const T* w = job.weight + 3 * p;
                const T *a = job.values + i64(at[0]) * c, *b = job.values + i64(at[1]) * c, *d = job.values + i64(at[2]) * c;
                for (int i = 0; i < c; ++i) out[i] = w[0] * a[i] + w[1] * b[i] + w[2] * d[i];
                continue;
            }
            for (int i = 0; i < c; ++i) out[i] = T(0);
            for (int k = 0; k < j; ++k) {
                const T weight = job.weight[p * j + k];
                const T* from = job.values + i64(job.index[p * j + k]) * c;
                for (int i = 0; i < c; ++i) out[i] += weight * from[i];
            }
        }
    });
}

// kChannels, kTerms: known to the compiler, or 0.
template <int kChannels, int kTerms, class T>
void backward_as(const Job<T>& job) {
    const int c = kChannels ? kChannels : job.channels, j = kTerms ? kTerms : job.terms;
    if (job.grad_weight) {
        parallel((job.points + kPointBlock - 1) / kPointBlock, threads_for(job), [&](i64 block) {
            for (i64 p = block * kPointBlock; p < min(job.points, (block + 1) * kPointBlock); ++p) {
                const T* up = job.upstream + p * c;
                for (int k = 0; k < j; ++k) {
                    const T* from = job.values + i64(job.index[p * j + k]) * c;
                    T sum = T(0);
                    for (int i = 0; i < c; ++i) sum += up[i] * from[i];
                    job.grad_weight[p * j + k] = sum;
                }
            }
        });
    }
    if (!job.grad_values) return;
    // Whatever the number of ranges, a row's terms come in the order of points.
    const i64 ranges = threads_for(job);
    const i64 rows = (job.rows + ranges - 1) / ranges;
    parallel(ranges, int(ranges), [&](i64 range) {
        const i64 low = range * rows, high = min(job.rows, low + rows);
        if (low >= high) return;
        for (i64 p = 0; p < job.points; ++p) {
            const T* up = job.upstream + p * c;
            for (int k = 0; k < j; ++k) {
                const i64 row = job.index[p * j + k];
                if (row < low || row >= high) continue;
                const T weight = job.weight[p * j + k];
                T* into = job.grad_values + row * c;
                for (int i = 0; i < c; ++i) into[i] += weight * up[i];
            }
        }
    });
}

template <class T>
void backward(const Job<T>& job) {
    job.channels == 3 && job.terms == 3 ? backward_as<3, 3>(job) : backward_as<0, 0>(job);
}

}  // namespace

const geodiff::Kernel<geodiff::BlendJob> kernel::blend_forward = {forward, forward};
const geodiff::Kernel<geodiff::BlendJob> kernel::blend_backward = {backward, backward};

}  // namespace gd
