// SPDX-License-Identifier: Apache-2.0
// Splines on the GPU: the mathematics of the CPU build (basis.h, evaluate.h) under another schedule.
//
//   basis_forward            one thread a point
//   basis_backward           one thread a point: gradients of its parameter and of its window of knots
//   spline_forward           one thread a point
//   spline_backward_points   one thread a point: its parameters, its windows, what the next two read
//   spline_backward_control  one block a number of the control net, which gathers from the points
//   spline_backward_knots    one block a knot of one axis, likewise
//
// Gathering takes (control points + knots) × points look-ups, but no atomics: sums have one order, whatever the device.
// Memory is linear in the points. A grid of parameters is evaluated as so many points.
//
// Not yet run on a device: so far compilers alone have seen this file (.ci/compile_kernels.py).
#pragma once
#include "../kernel.h"
#include "evaluate.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kBlock = 128;  // threads of the blocks that gather

// Between the passes; n runs over batch × points.
template <class T>
struct SplinePoints {
    int* first[3];  // (n) function that values begin with
    T* values[3];   // (P + 1, n)
    T* window[3];   // (2P, n) gradients
    T* upstream;    // (dim, n) homogeneous
};

// Span, basis and the triangle's terms of one point of one axis.
template <class T>
struct PointBasis {
    T window[2 * kMaxDegree], values[kMaxDegree + 1], u;
    Triangle<T, kMaxDegree> kept;
    int span;

    GEODIFF_HD void at(const SplineAxis<T>& axis, i64 batch, i64 point) {
        const T* knots = axis.knots + batch * axis.knots_stride;
        u = axis.parameters[batch * axis.parameters_stride + point];
        span = find_span(knots, span_range(knots, axis.count, axis.degree), u);
        if (axis.order > axis.degree) {
            for (int b = 0; b <= axis.degree; ++b) values[b] = T(0);
            return;
        }
        for (int k = 0; k < 2 * axis.degree; ++k) window[k] = knots[span - axis.degree + 1 + k];
        basis<-1>(window, u, axis.degree, axis.order, values, kept);
    }

    // bar is overwritten.
    GEODIFF_HD void adjoint(const SplineAxis<T>& axis, T* bar, T& bar_u, T* bar_window) const {
        if (axis.order > axis.degree) {
            bar_u = T(0);
            for (int k = 0; k < 2 * axis.degree; ++k) bar_window[k] = T(0);
            return;
        }
        basis_adjoint<-1>(window, u, axis.degree, axis.order, kept, bar, bar_u, bar_window);
    }
};

GEODIFF_HD i64 thread_index() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }

// The sum over the threads of a block, in a fixed tree; the result is valid in thread 0.
GEODIFF_HD double block_sum(double mine, double* shared) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (int half = kBlock / 2; half > 0; half /= 2) {
        if (int(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

template <class T>
GEODIFF_HD i64 axis_step(const SplineJob<T>& job, int axis) {
    i64 step = job.dim;
    for (int a = job.axes - 1; a > axis; --a) step *= job.axis[a].count;
    return step;
}

template <class T>
GEODIFF_HD AxisPoint<T> no_axis(const T* one) {
    return {one, 0, 1, 0, 0};
}

template <class T>
__global__ void basis_forward(geodiff::BasisJob<T> job) {
    const i64 n = thread_index();
    if (n >= job.batch * job.axis.points) return;
    PointBasis<T> point;
    point.at(job.axis, n / job.axis.points, n % job.axis.points);
    job.span[n] = point.span;
    for (int b = 0; b <= job.axis.degree; ++b) job.values[n * (job.axis.degree + 1) + b] = point.values[b];
}

// spline_backward_knots then takes the windows.
template <class T>
__global__ void basis_backward(geodiff::BasisJob<T> job, SplinePoints<T> points) {
    const i64 n = thread_index(), total = job.batch * job.axis.points;
    if (n >= total) return;
    PointBasis<T> point;
    point.at(job.axis, n / job.axis.points, n % job.axis.points);
    T bar[kMaxDegree + 1], bar_window[2 * kMaxDegree], bar_u;
    for (int b = 0; b <= job.axis.degree; ++b) bar[b] = job.upstream[n * (job.axis.degree + 1) + b];
    point.adjoint(job.axis, bar, bar_u, bar_window);
    if (job.axis.grad_parameters) job.axis.grad_parameters[n] = bar_u;
    points.first[0][n] = point.span - job.axis.degree;
    for (int k = 0; k < 2 * job.axis.degree; ++k) points.window[0][k * total + n] = bar_window[k];
}

template <class T>
__global__ void spline_forward(SplineJob<T> job) {
    const i64 n = thread_index(), points = job.axis[0].points;
    if (n >= job.batch * points) return;
    const T one = T(1);
    PointBasis<T> basis[3];
    AxisPoint<T> axes[3];
    const i64 batch = n / points;
    for (int a = 0; a < 3; ++a) {
        axes[a] = no_axis(&one);
        if (a >= job.axes) continue;
        const int degree = job.axis[a].degree;
        basis[a].at(job.axis[a], batch, n % points);
        axes[a] = {basis[a].values, basis[a].span - degree, degree + 1, 1, axis_step(job, a)};
    }
    const T* control = job.control + batch * job.control_stride;
    const int out = job.dim - int(job.rational);
    T inverse = T(1);
    for (int d = job.dim - 1; d >= 0; --d) {  // the weight first
        T sum = T(0);
        for (int i = 0; i < axes[0].functions; ++i) {
            const T v = axes[0].values[i] * blend_others(control + d, 1, &one, axes, 0, axes[0].first + i);
            sum += v;
        }
        if (job.rational && d == out) {
            inverse = T(1) / sum;
            job.inverse_weight[n] = inverse;
        } else {
            job.value[n * out + d] = sum * inverse;
        }
    }
}

template <class T>
__global__ void spline_backward_points(SplineJob<T> job, SplinePoints<T> points) {
    const i64 n = thread_index(), count = job.axis[0].points, total = job.batch * count;
    if (n >= total) return;
    const T one = T(1);
    const i64 batch = n / count;
    PointBasis<T> basis[3];
    AxisPoint<T> axes[3];
    for (int a = 0; a < 3; ++a) {
        axes[a] = no_axis(&one);
        if (a >= job.axes) continue;
        const int degree = job.axis[a].degree;
        basis[a].at(job.axis[a], batch, n % count);
        axes[a] = {basis[a].values, basis[a].span - degree, degree + 1, 1, axis_step(job, a)};
        points.first[a][n] = axes[a].first;
        for (int b = 0; b <= degree; ++b) points.values[a][b * total + n] = basis[a].values[b];
    }
    homogeneous_upstream(job, n, points.upstream + n, total);
    const T* control = job.control + batch * job.control_stride;
    for (int a = 0; a < job.axes; ++a) {
        const SplineAxis<T>& axis = job.axis[a];
        if (!axis.grad_parameters && !axis.grad_knots) continue;
        T bar[kMaxDegree + 1], bar_window[2 * kMaxDegree], bar_u;
        for (int b = 0; b <= axis.degree; ++b) {
            bar[b] = blend_others(control, job.dim, points.upstream + n, axes, a, axes[a].first + b, total);
        }
        basis[a].adjoint(axis, bar, bar_u, bar_window);
        if (axis.grad_parameters) axis.grad_parameters[n] = bar_u;
        for (int k = 0; k < 2 * axis.degree; ++k) points.window[a][k * total + n] = bar_window[k];
    }
}

// Block (number of the net, item of the batch).
template <class T>
__global__ void spline_backward_control(SplineJob<T> job, SplinePoints<T> points) {
    GEODIFF_SHARED(shared, double[kBlock]);
    const i64 count = job.axis[0].points, total = job.batch * count, batch = blockIdx.y;
    i64 rest = blockIdx.x / job.dim;
    const int d = int(blockIdx.x % job.dim);
    int index[3] = {0, 0, 0};
    for (int a = job.axes - 1; a >= 0; --a) {
        index[a] = int(rest % job.axis[a].count);
        rest /= job.axis[a].count;
    }
    double sum = 0;
    for (i64 i = threadIdx.x; i < count; i += kBlock) {
        const i64 n = batch * count + i;
        T weight = T(1);
        for (int a = 0; a < job.axes; ++a) {
            const int b = index[a] - points.first[a][n];
            weight = b < 0 || b > job.axis[a].degree ? T(0) : weight * points.values[a][b * total + n];
            if (weight == T(0)) break;
        }
        if (weight != T(0)) sum += double(weight * points.upstream[d * total + n]);
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) job.grad_control[batch * gridDim.x + blockIdx.x] = T(sum);
}

// Block (knot, item of the batch) of the axis; Gaussian for splines with a bandwidth.
template <class T, bool Gaussian>
__global__ void spline_backward_knots(SplineJob<T> job, SplinePoints<T> points, int a) {
    GEODIFF_SHARED(shared, double[kBlock]);
    const SplineAxis<T>& axis = job.axis[a];
    const i64 count = axis.points, total = job.batch * count, batch = blockIdx.y;
    const int j = int(blockIdx.x);
    const T* knots = axis.knots + batch * axis.knots_stride;
    int begin = j, end = j + 1;
    while (begin > 0 && knots[begin - 1] == knots[j]) --begin;
    while (end < axis.count + axis.degree + 1 && knots[end] == knots[j]) ++end;
    double sum = 0;
    for (i64 i = threadIdx.x; i < count; i += kBlock) {
        const i64 n = batch * count + i;
        const int k = j - points.first[a][n] - 1;
        if (k >= 0 && k < 2 * axis.degree) sum += double(points.window[a][k * total + n]);
        if constexpr (Gaussian) {
            const T u = axis.parameters[batch * axis.parameters_stride + i];
            if (abs(u - knots[j]) > T(kReach) * T(axis.bandwidth)) continue;
            const T one = T(1);
            AxisPoint<T> axes[3];
            for (int c = 0; c < 3; ++c) {
                axes[c] = no_axis(&one);
                if (c >= job.axes) continue;
                axes[c] = {points.values[c] + n, points.first[c][n], job.axis[c].degree + 1, total, axis_step(job, c)};
            }
            const T* control = job.control + batch * job.control_stride;
            sum += double(gaussian_share(axis, knots, begin, end, u, [&](int f) {
                return blend_others(control, job.dim, points.upstream + n, axes, a, f, total);
            }));
        }
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) axis.grad_knots[batch * gridDim.x + j] = T(sum);
}

}  // namespace gd

#endif
