// SPDX-License-Identifier: Apache-2.0
// A softmax over depth on the GPU: the mathematics of mix.h, a thread a group of rows.
//
//   mix_forward   the weights of a group's rows, and their mixture; `at` is where the sharpness is, if the host does not know
//   mix_backward  to the rows, and what the group gives to the sharpness and to near and far
//   mix_sums      a block a slice of the groups that have one row of `ends`; lanes are added in a fixed order
//   mix_add       a thread a row of `ends`: its slices in their order
#pragma once
#include "../kernel.h"
#include "arguments.h"
#include "mix.h"

#if GEODIFF_KERNELS

namespace gd {

using geodiff::MixJob;

template <class T>
__global__ void mix_forward(MixJob<T> job, const T* at) {
    const i64 g = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (g >= job.groups) return;
    const T sharp = at ? *at : job.sharpness;
    const i64 from = job.start[g], to = job.start[g + 1];
    const MixRange<T> range(job, g);
    T top = job.has_floor ? job.floor : T(0);
    for (i64 i = from; i < to; ++i) top = max(top, range.z(job.depth[i]));
    const T floor = (job.floor - top) * sharp;
    T largest = job.has_floor ? floor : -Real<T>::largest;
    for (i64 i = from; i < to; ++i)
        largest = max(largest, job.weight[i] = mix_logit(job.log_weight[i], range.z(job.depth[i]), top, sharp));
    const T rest = job.has_floor ? exp(floor - largest) : T(0);
    T sum = rest;
    for (i64 i = from; i < to; ++i) sum += job.weight[i] = exp(job.weight[i] - largest);
    const T inverse = sum > T(0) ? T(1) / sum : T(0);
    for (i64 i = from; i < to; ++i) job.weight[i] *= inverse;
    for (int c = 0; c < job.channels; ++c) {
        T out = T(0);
        for (i64 i = from; i < to; ++i) out += job.weight[i] * job.values[i * job.channels + c];
        job.out[g * job.channels + c] = out;
    }
    job.rest[g] = rest * inverse;
}

// by_group: (groups, 3) what it gives to near, far and the sharpness.
template <class T>
__global__ void mix_backward(MixJob<T> job, const T* at, double* by_group) {
    const i64 g = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (g >= job.groups) return;
    const T sharp = at ? *at : job.sharpness;
    const i64 from = job.start[g], to = job.start[g + 1];
    const MixRange<T> range(job, g);
    const T* up = job.upstream + g * job.channels;
    const T upper = job.up_rest ? job.up_rest[g] : T(0);
    T mean = upper * job.rest[g], top = job.has_floor ? job.floor : T(0);
    for (i64 i = from; i < to; ++i) {
        T own = T(0);
        for (int c = 0; c < job.channels; ++c) {
            own += up[c] * job.values[i * job.channels + c];
            job.grad_values[i * job.channels + c] = job.weight[i] * up[c];
        }
        job.grad_log_weight[i] = own;
        mean += job.weight[i] * own;
        top = max(top, range.z(job.depth[i]));
    }
    double near = 0, far = 0, sharpness = 0;
    for (i64 i = from; i < to; ++i) {
        const T z = range.z(job.depth[i]), by = job.weight[i] * (job.grad_log_weight[i] - mean);
        sharpness += double(by) * double(z - top);
        job.grad_depth[i] = nearness_backward(by * sharp, z, range.span, near, far);
        job.grad_log_weight[i] = job.log_weight[i] > T(kNever) ? by : T(0);
    }
    if (job.has_floor) sharpness += double(job.rest[g] * (upper - mean)) * double(job.floor - top);
    by_group[3 * g] = near;
    by_group[3 * g + 1] = far;
    by_group[3 * g + 2] = sharpness;
}

// order[start[r]] … order[start[r + 1] − 1] are the groups of row r. Grid: rows · slices, 128 threads.
// partial: (rows, slices, 3)
template <class T>  // in which it has no part: what is no template is compiled with every other kernel
__global__ void mix_sums(const double* by_group, const i64* order, const i64* start, int slices, double* partial) {
    constexpr int threads = 128;
    GEODIFF_SHARED(sums, double[3][threads]);
    const i64 row = blockIdx.x / slices, slice = blockIdx.x % slices;
    const i64 count = start[row + 1] - start[row], many = (count + slices - 1) / slices;
    const i64 begin = start[row] + slice * many, end = min(begin + many, start[row + 1]);
    double own[3] = {0, 0, 0};
    for (i64 i = begin + threadIdx.x; i < end; i += threads)
        for (int k = 0; k < 3; ++k) own[k] += by_group[3 * order[i] + k];
    for (int k = 0; k < 3; ++k) sums[k][threadIdx.x] = own[k];
    for (int half = threads / 2; half > 0; half /= 2) {
        __syncthreads();
        for (int k = 0; k < 3 && int(threadIdx.x) < half; ++k) sums[k][threadIdx.x] += sums[k][threadIdx.x + half];
    }
    for (int k = 0; k < 3 && threadIdx.x == 0; ++k) partial[3 * i64(blockIdx.x) + k] = sums[k][0];
}

// One thread: the sharpness is every row's.
template <class T>
__global__ void mix_add(const double* partial, i64 rows, int slices, double* grad_ends, double* grad_sharpness) {
    if (blockIdx.x || threadIdx.x) return;
    double sharpness = 0;
    for (i64 row = 0; row < rows; ++row) {
        double near = 0, far = 0;
        for (int slice = 0; slice < slices; ++slice) {
            const double* from = partial + 3 * (row * slices + slice);
            near += from[0];
            far += from[1];
            sharpness += from[2];
        }
        grad_ends[2 * row] = near;
        grad_ends[2 * row + 1] = far;
    }
    *grad_sharpness = sharpness;
}

}  // namespace gd

#endif
