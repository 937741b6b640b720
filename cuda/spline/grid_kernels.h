// SPDX-License-Identifier: Apache-2.0
// Splines on grids of parameters on the GPU, an axis at a time: each has few parameters, whose spans and basis functions
// (basis_forward) make a band of a matrix.
//
//   spline_band        from control points along an axis to parameters: a thread a number
//   spline_band_back   the transposed: a thread a number and slice of what it adds up
//   spline_band_add    slices, in their order
//   spline_band_dots   what an axis's basis functions get: a warp a function of a parameter
//   spline_divide      a thread a point: the quotient of a rational spline
//   spline_upstream    a thread a point: its homogeneous upstream gradient
//
// Tensors are (batch, left, along the axis, right), with all axes before and behind in one.
#pragma once
#include "point_kernels.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct SplineBand {
    const i64* span;   // (batch or 1, points)
    const T* values;   // (batch or 1, points, degree + 1)
    const i64* order;  // points by span
    const i64* start;  // (batch or 1, spans + 1) where each span's begin in it
    i64 batch, left, right, points;
    int count, degree, slices;
    bool own_basis;    // of each item of the batch
    i64 item_stride;   // of the control points: 0 where all items share them
};

constexpr int kRun = 16;  // numbers whose sum is of the real type

template <class T>
__global__ void spline_band(SplineBand<T> band, const T* in, T* out) {
    const i64 x = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (x >= band.batch * band.left * band.points * band.right) return;
    const i64 line = divided(x, band.right), plane = divided(line, band.points), item = divided(plane, band.left);
    const i64 n = line - plane * band.points + (band.own_basis ? item * band.points : 0);
    const T* values = band.values + n * (band.degree + 1);
    const i64 row = (plane - item * band.left) * band.count + band.span[n] - band.degree;
    const T* from = in + item * band.item_stride + row * band.right + (x - line * band.right);
    T sum = T(0);
    for (int b = 0; b <= band.degree; ++b) sum += values[b] * from[b * band.right];
    out[x] = sum;
}

// out and partial (slices, batch, left, count, right): the first where there is one slice.
template <class T>
__global__ void spline_band_back(SplineBand<T> band, const T* in, T* out, double* partial) {
    const i64 total = band.batch * band.left * band.count * band.right;
    const i64 thread = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (thread >= total * band.slices) return;
    const i64 slice = divided(thread, total), x = thread - slice * total;
    const i64 line = divided(x, band.right), plane = divided(line, band.count), item = divided(plane, band.left);
    const int j = int(line - plane * band.count), spans = band.count - band.degree;
    const i64 shared = band.own_basis ? item : 0;
    const i64* start = band.start + shared * (spans + 1);
    // Parameters of the spans whose functions reach control point j.
    const i64 first = start[max(0, j - band.degree)], all = start[min(j, spans - 1) + 1] - first;
    const i64 each = (all + band.slices - 1) / band.slices, end = first + min(all, (slice + 1) * each);
    const T* from = in + plane * band.points * band.right + (x - line * band.right);
    double sum = 0;
    for (i64 i = first + slice * each; i < end; i += kRun) {
        T part = T(0);
        for (i64 k = i; k < min(end, i + kRun); ++k) {
            const i64 n = band.order[shared * band.points + k], own = shared * band.points + n;
            const int b = j - int(band.span[own] - band.degree);
            part += band.values[own * (band.degree + 1) + b] * from[n * band.right];
        }
        sum += double(part);
    }
    if (band.slices == 1) {
        out[x] = T(sum);
    } else {
        partial[thread] = sum;
    }
}

template <class T>
__global__ void spline_band_add(const double* partial, i64 total, int slices, T* out) {
    const i64 x = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (x >= total) return;
    double sum = 0;
    for (int slice = 0; slice < slices; ++slice) sum += partial[slice * total + x];
    out[x] = T(sum);
}

// bar (batch, points, degree + 1): the product of `upstream`, in which the other axes are control points already, and of
// the control points of a function, over all that the two have in common. Block: 128 threads.
template <class T>
__global__ void spline_band_dots(SplineBand<T> band, const T* upstream, const T* control, T* bar) {
    const i64 x = i64(blockIdx.x) * 4 + threadIdx.x / 32;
    const int lane = int(threadIdx.x) % 32, functions = band.degree + 1;
    if (x >= band.batch * band.points * functions) return;
    const i64 row = divided(x, functions), item = divided(row, band.points), n = row - item * band.points;
    const int b = int(x - row * functions);
    const i64 i = band.span[band.own_basis ? row : n] - band.degree + b;
    const T* own = upstream + (item * band.left * band.points + n) * band.right;
    const T* other = control + item * band.item_stride + i * band.right;
    double sum = 0;
    for (i64 at = lane; at < band.left * band.right; at += 32) {
        const i64 l = divided(at, band.right), r = at - l * band.right;
        sum += double(own[l * band.points * band.right + r]) * double(other[l * band.count * band.right + r]);
    }
#pragma unroll
    for (int half = 16; half > 0; half /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, half);
    if (lane == 0) bar[x] = T(sum);
}

// From (n, dim) homogeneous.
template <class T>
__global__ void spline_divide(SplineJob<T> job, i64 points, const T* homogeneous) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n >= points) return;
    const T inverse = T(1) / homogeneous[n * job.dim + job.dim - 1];
    job.inverse_weight[n] = inverse;
    for (int d = 0; d < job.dim - 1; ++d) job.value[n * (job.dim - 1) + d] = homogeneous[n * job.dim + d] * inverse;
}

template <class T>
__global__ void spline_upstream(SplineJob<T> job, i64 points, T* homogeneous) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n < points) homogeneous_upstream(job, n, homogeneous + n * job.dim);
}

}  // namespace gd

#endif
