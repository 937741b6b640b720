// SPDX-License-Identifier: Apache-2.0
// Rows mixed by a softmax over depth, group by group. A thread owns a range of groups, whose rows lie in one piece.
#include "../shading/mix.h"
#include "grid.h"
#include "jobs.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::MixJob<T>;

constexpr i64 kGroupBlock = 2048;

template <class Body>
void each_block(i64 groups, int threads, Body&& body) {
    const i64 blocks = (groups + kGroupBlock - 1) / kGroupBlock;
    parallel(blocks, blocks < 4 ? 1 : threads, [&](i64 block) {
        body(block, block * kGroupBlock, min(groups, (block + 1) * kGroupBlock));
    });
}

// kChannels: known to the compiler, or 0.
template <int kChannels, class T>
void forward_as(const Job<T>& job) {
    const int c = kChannels ? kChannels : job.channels;
    each_block(job.groups, job.threads, [&](i64, i64 first, i64 end) {
        // Logarithms of the weights, less the largest of the group.
        for (i64 g = first; g < end; ++g) {
            const i64 from = job.start[g], to = job.start[g + 1];
            const MixRange<T> range(job, g);
            T top = job.has_floor ? job.floor : T(0);
            for (i64 i = from; i < to; ++i) top = max(top, job.weight[i] = range.z(job.depth[i]));
            const T floor = (job.floor - top) * job.sharpness;
            T largest = job.has_floor ? floor : -Real<T>::largest;
            for (i64 i = from; i < to; ++i) {
                const T own = mix_logit(job.log_weight[i], job.weight[i], top, job.sharpness);
                job.weight[i] = own;
                largest = max(largest, own);
            }
            for (i64 i = from; i < to; ++i) job.weight[i] -= largest;
            job.rest[g] = job.has_floor ? exp(floor - largest) : T(0);
        }
        T* weight = job.weight;
        const i64 begin = job.start[first], stop = job.start[end];
#pragma omp simd
        for (i64 i = begin; i < stop; ++i) weight[i] = exp(weight[i]);
        for (i64 g = first; g < end; ++g) {
            const i64 from = job.start[g], to = job.start[g + 1];
            T sum = job.rest[g];
            for (i64 i = from; i < to; ++i) sum += job.weight[i];
            const T inverse = sum > T(0) ? T(1) / sum : T(0);
            T* out = job.out + g * c;
            for (int k = 0; k < c; ++k) out[k] = T(0);
            for (i64 i = from; i < to; ++i) {
                const T own = job.weight[i] *= inverse;
                for (int k = 0; k < c; ++k) out[k] += own * job.values[i * c + k];
            }
            job.rest[g] *= inverse;
        }
    });
}

template <int kChannels, class T>
void backward_as(const Job<T>& job) {
    const int c = kChannels ? kChannels : job.channels;
    const i64 blocks = (job.groups + kGroupBlock - 1) / kGroupBlock;
    Scratch<double> by_sharpness(blocks), by_ends(2 * job.groups);
    each_block(job.groups, job.threads, [&](i64 block, i64 first, i64 end) {
        double sharpness = 0;
        for (i64 g = first; g < end; ++g) {
            const i64 from = job.start[g], to = job.start[g + 1];
            const MixRange<T> range(job, g);
            const T* up = job.upstream + g * c;
            T mean = job.up_rest ? job.up_rest[g] * job.rest[g] : T(0), top = job.has_floor ? job.floor : T(0);
            for (i64 i = from; i < to; ++i) {
                T own = T(0);
                for (int k = 0; k < c; ++k) {
                    own += up[k] * job.values[i * c + k];
                    job.grad_values[i * c + k] = job.weight[i] * up[k];
                }
                job.grad_log_weight[i] = own;
                mean += job.weight[i] * own;
                top = max(top, range.z(job.depth[i]));
            }
            double near = 0, far = 0;
            for (i64 i = from; i < to; ++i) {
                const T z = range.z(job.depth[i]);
                const T by = job.weight[i] * (job.grad_log_weight[i] - mean);
                sharpness += double(by) * double(z - top);
                job.grad_depth[i] = nearness_backward(by * job.sharpness, z, range.span, near, far);
                job.grad_log_weight[i] = job.log_weight[i] > T(kNever) ? by : T(0);
            }
            if (job.has_floor) {
                const T upper = job.up_rest ? job.up_rest[g] : T(0);
                sharpness += double(job.rest[g] * (upper - mean)) * double(job.floor - top);
            }
            by_ends[2 * g] = near;
            by_ends[2 * g + 1] = far;
        }
        by_sharpness[block] = sharpness;
    });
    for (i64 block = 0; block < blocks; ++block) *job.grad_sharpness += by_sharpness[block];
    for (i64 g = 0; g < job.groups; ++g) {
        double* into = job.grad_ends + (job.row ? 2 * i64(job.row[g]) : 0);
        into[0] += by_ends[2 * g];
        into[1] += by_ends[2 * g + 1];
    }
}

template <class T>
void forward(const Job<T>& job) {
    job.channels == 3 ? forward_as<3>(job) : forward_as<0>(job);
}

template <class T>
void backward(const Job<T>& job) {
    job.channels == 3 ? backward_as<3>(job) : backward_as<0>(job);
}

}  // namespace

const geodiff::Kernel<geodiff::MixJob> kernel::mix_forward = {forward, forward};
const geodiff::Kernel<geodiff::MixJob> kernel::mix_backward = {backward, backward};

}  // namespace gd
