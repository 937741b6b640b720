// SPDX-License-Identifier: Apache-2.0
// Points of splines on the GPU: the mathematics of the CPU build (basis.h, evaluate.h), a thread a point.
//
//   spline_ranges           a thread a knot vector: the spans that points may fall into
//   basis_forward           spans and basis functions
//   basis_backward          gradients of parameters, and of windows of knots
//   spline_forward          values
//   spline_backward_points  gradients of parameters; a row for the sums of sum_kernels.h
//
// Degrees are those of each axis, so that windows and values stay in registers and loops unroll; kAnyDegree takes them
// from the job, and climbs again where it would have to keep a triangle of numbers. D is the dimension, 0 for any.
#pragma once
#include "../kernel.h"
#include "evaluate.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kAnyDegree = -1, kNoAxis = -2;

template <int P0, int P1 = kNoAxis, int P2 = kNoAxis>
struct Degrees {
    static constexpr int of_a = P0, of_b = P1, of_c = P2;
    static constexpr int axes = P1 == kNoAxis ? 1 : P2 == kNoAxis ? 2 : 3;
    static constexpr bool any = P0 == kAnyDegree;
    // Whether the loops over all functions are unrolled, or but those of the later axes.
    static constexpr bool flat = !any && (P0 + 1) * (axes > 1 ? P1 + 1 : 1) * (axes > 2 ? P2 + 1 : 1) <= 36;
};

// What the sums need of each point; n runs over batch × points. A row is
//   the values of each axis (P + 1) | the homogeneous upstream gradient (dim) | for each axis whose knots want gradients,
//   those of its window (2P)
// and a cell is the combination of its spans: ((item · spans of axis 0 + span) · spans of axis 1 + span) …
template <class T>
struct SplineRows {
    T* rows;    // (n, size), or null
    int* cell;  // (n)
    int size, upstream;
    int window[3];  // −1: not wanted
};

// Many cards divide 64-bit numbers slowly.
GEODIFF_HD i64 divided(i64 n, i64 by) { return (n | by) >> 31 ? n / by : i64(u32(n) / u32(by)); }

// One axis of one point: the span, and the functions that are not zero there. Plain: no derivatives of them.
template <class T, int P, bool Plain = false>
struct PointAxis {
    T values[P + 1], u;
    int span;

    GEODIFF_HD static constexpr int functions(const SplineAxis<T>&) { return P + 1; }
    GEODIFF_HD void at(const SplineAxis<T>& axis, SpanRange range, i64 item, i64 point) {
        const T* knots = axis.knots + item * axis.knots_stride;
        u = axis.parameters[item * axis.parameters_stride + point];
        span = find_span(knots, range, u);
        T window[2 * P + 1];
        Triangle<T, P> kept;
        climb(axis, knots, window, values, kept);
    }
    // From the gradients of the values, which are overwritten, to that of u, and to the window's unless it is null.
    GEODIFF_HD T adjoint(const SplineAxis<T>& axis, i64 item, T* bar, T* to) {
        const T* knots = axis.knots + item * axis.knots_stride;
        T bar_u = T(0), bar_window[2 * P + 1] = {}, window[2 * P + 1], again[P + 1];
        Triangle<T, P> kept;
        if (order_of(axis) <= P) {
            climb(axis, knots, window, again, kept);
            basis_adjoint<P>(window, u, P, order_of(axis), kept, bar, bar_u, bar_window);
        }
        if (to) {
#pragma unroll
            for (int k = 0; k < 2 * P; ++k) to[k] = bar_window[k];
        }
        return bar_u;
    }
    GEODIFF_HD static int order_of(const SplineAxis<T>& axis) { return Plain ? 0 : axis.order; }
    GEODIFF_HD void climb(const SplineAxis<T>& axis, const T* knots, T* window, T* out, Triangle<T, P>& kept) const {
#pragma unroll
        for (int k = 0; k < 2 * P; ++k) window[k] = knots[span - P + 1 + k];
        if (order_of(axis) <= P) {
            basis<P>(window, u, P, order_of(axis), out, kept);
        } else {
#pragma unroll
            for (int b = 0; b <= P; ++b) out[b] = T(0);
        }
    }
};

template <class T, bool Plain>
struct PointAxis<T, kAnyDegree, Plain> {
    T values[kMaxDegree + 1], u;
    int span;

    GEODIFF_HD static int functions(const SplineAxis<T>& axis) { return axis.degree + 1; }
    GEODIFF_HD void at(const SplineAxis<T>& axis, SpanRange range, i64 item, i64 point) {
        const T* knots = axis.knots + item * axis.knots_stride;
        u = axis.parameters[item * axis.parameters_stride + point];
        span = find_span(knots, range, u);
        if (axis.order <= axis.degree) {
            climb_some(knots + span - axis.degree + 1, u, axis.degree, axis.order, axis.degree, values);
        } else {
            for (int b = 0; b <= axis.degree; ++b) values[b] = T(0);
        }
    }
    GEODIFF_HD T adjoint(const SplineAxis<T>& axis, i64 item, T* bar, T* to) {
        const T* window = axis.knots + item * axis.knots_stride + span - axis.degree + 1;
        T bar_u = T(0);
        for (int k = 0; to && k < 2 * axis.degree; ++k) to[k] = T(0);
        if (axis.order <= axis.degree) descend_all(window, u, axis.degree, axis.order, values, bar, bar_u, to);
        return bar_u;
    }
};

template <class T, bool Plain>
struct PointAxis<T, kNoAxis, Plain> {
    T values[1] = {T(1)}, u = T(0);
    int span = 0;
    GEODIFF_HD static constexpr int functions(const SplineAxis<T>&) { return 1; }
    GEODIFF_HD void at(const SplineAxis<T>&, SpanRange, i64, i64) {}
    GEODIFF_HD T adjoint(const SplineAxis<T>&, i64, T*, T*) { return T(0); }
};

// x[i] of an array in registers, and x[i] = value, where i is no constant.
template <int N, class T>
GEODIFF_HD T pick(const T (&x)[N], int i) {
    T found = x[0];
#pragma unroll
    for (int k = 1; k < N; ++k) found = i == k ? x[k] : found;
    return found;
}
template <int N, class T>
GEODIFF_HD void put(T (&x)[N], int i, T value) {
#pragma unroll
    for (int k = 0; k < N; ++k) x[k] = i == k ? value : x[k];
}

// A control point, or C of its coordinates, in as few loads as its place in memory allows.
template <class T, int C>
struct alignas(C % 2 ? sizeof(T) : C * sizeof(T) < 16 ? C * sizeof(T) : 16) ControlRow {
    T x[C];
};

template <class T, class S, bool Plain>
struct SplinePoint {
    PointAxis<T, S::of_a, Plain> a;
    PointAxis<T, S::of_b, Plain> b;
    PointAxis<T, S::of_c, Plain> c;
    i64 item, number, n;

    // False beyond the last point.
    GEODIFF_HD bool at(const SplineJob<T>& job, const SpanRange* ranges) {
        n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
        if (n >= job.batch * job.axis[0].points) return false;
        item = job.batch > 1 ? divided(n, job.axis[0].points) : 0;
        number = n - item * job.axis[0].points;
        a.at(job.axis[0], ranges[item], item, number);
        if (S::axes > 1) b.at(job.axis[1], ranges[job.batch + item], item, number);
        if (S::axes > 2) c.at(job.axis[2], ranges[2 * job.batch + item], item, number);
        return true;
    }
    GEODIFF_HD const T* control(const SplineJob<T>& job) const {
        const T* row = job.control + item * job.control_stride;
        row += (a.span - job.axis[0].degree) * step(job, 0);
        if (S::axes > 1) row += (b.span - job.axis[1].degree) * step(job, 1);
        if (S::axes > 2) row += (c.span - job.axis[2].degree) * step(job, 2);
        return row;
    }
    GEODIFF_HD static i64 step(const SplineJob<T>& job, int axis) {
        i64 found = job.dim;
        for (int k = S::axes - 1; k > axis; --k) found *= job.axis[k].count;
        return found;
    }
    // take(i, j, k, row) for the control points that count here, row by row.
    template <class Take>
    GEODIFF_HD void each(const SplineJob<T>& job, Take take) const {
        const T* first = control(job);
        const i64 by_a = step(job, 0), by_b = S::axes > 1 ? step(job, 1) : 0, by_c = S::axes > 2 ? job.dim : 0;
        const auto line = [&](int i) {
#pragma unroll
            for (int j = 0; j < b.functions(job.axis[1]); ++j)
#pragma unroll
                for (int k = 0; k < c.functions(job.axis[2]); ++k) take(i, j, k, first + i * by_a + j * by_b + k * by_c);
        };
        if constexpr (S::flat) {
#pragma unroll
            for (int i = 0; i < a.functions(job.axis[0]); ++i) line(i);
        } else {
#pragma unroll 1
            for (int i = 0; i < a.functions(job.axis[0]); ++i) line(i);
        }
    }
    GEODIFF_HD T value_a(int i) const {
        if constexpr (S::flat || S::any) {
            return a.values[i];
        } else {
            return pick(a.values, i);
        }
    }
};

// A thread an axis of an item: ranges (axes, batch).
template <class T>
__global__ void spline_ranges(SplineJob<T> job, SpanRange* ranges) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n >= job.axes * job.batch) return;
    const SplineAxis<T>& axis = job.axis[n / job.batch];
    ranges[n] = span_range(axis.knots + n % job.batch * axis.knots_stride, axis.count, axis.degree);
}

template <class T, int P>
__global__ void basis_forward(geodiff::BasisJob<T> job, const SpanRange* ranges) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n >= job.batch * job.axis.points) return;
    const i64 item = divided(n, job.axis.points);
    PointAxis<T, P> point;
    point.at(job.axis, ranges[item], item, n - item * job.axis.points);
    job.span[n] = point.span;
    const int functions = point.functions(job.axis);
#pragma unroll
    for (int b = 0; b < functions; ++b) job.values[n * functions + b] = point.values[b];
}

template <class T, int P>
__global__ void basis_backward(geodiff::BasisJob<T> job, const SpanRange* ranges, SplineRows<T> out) {
    const i64 n = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (n >= job.batch * job.axis.points) return;
    const i64 item = divided(n, job.axis.points);
    PointAxis<T, P> point;
    point.at(job.axis, ranges[item], item, n - item * job.axis.points);
    T bar[(P < 0 ? kMaxDegree : P) + 1];
    const int functions = point.functions(job.axis);
#pragma unroll
    for (int b = 0; b < functions; ++b) bar[b] = job.upstream[n * functions + b];
    const T bar_u = point.adjoint(job.axis, item, bar, out.rows ? out.rows + n * out.size : nullptr);
    if (job.axis.grad_parameters) job.axis.grad_parameters[n] = bar_u;
    if (out.cell) out.cell[n] = int(item * (job.axis.count - job.axis.degree) + point.span - job.axis.degree);
}

template <class T, class S, int D, bool Plain, bool Rational>
__global__ void spline_forward(SplineJob<T> job, const SpanRange* ranges) {
    SplinePoint<T, S, Plain> at;
    if (!at.at(job, ranges)) return;
    constexpr int C = D > 0 ? D : 4;
    const int dim = D > 0 ? D : job.dim, out = dim - int(Rational);
    T inverse = T(1);
    for (int d = (dim - 1) / C * C; d >= 0; d -= C) {  // the weight first
        T sum[C] = {};
        at.each(job, [&](int i, int j, int k, const T* row) {
            const T v = at.value_a(i) * (at.b.values[j] * at.c.values[k]);
            if constexpr (D > 0) {
                const ControlRow<T, C> p = *reinterpret_cast<const ControlRow<T, C>*>(row);
#pragma unroll
                for (int e = 0; e < C; ++e) sum[e] += v * p.x[e];
            } else {
#pragma unroll
                for (int e = 0; e < C; ++e) sum[e] += v * (d + e < dim ? row[d + e] : T(0));
            }
        });
#pragma unroll
        for (int e = 0; Rational && e < C; ++e)
            if (d + e == out) {
                inverse = T(1) / sum[e];
                job.inverse_weight[at.n] = inverse;
            }
#pragma unroll
        for (int e = 0; e < C; ++e)
            if (d + e < out) job.value[at.n * out + d + e] = sum[e] * inverse;
    }
}

template <class Axis, class T, class Point>
GEODIFF_HD void finish_axis(Axis& axis, const SplineJob<T>& job, const SplineRows<T>& out, int k, const Point& at, T* bar,
                            T* row) {
    const SplineAxis<T>& of = job.axis[k];
    if (!of.grad_parameters && out.window[k] < 0) return;
    T* to = out.window[k] < 0 ? nullptr : row + out.window[k];
    const T bar_u = axis.adjoint(of, at.item, bar, to);
    if (of.grad_parameters) of.grad_parameters[at.n] = bar_u;
}

// Rows that a block's threads write to shared memory first, where their size is known: a warp then copies them in a row,
// where each thread would write numbers that lie a row apart.
constexpr int kPointThreads = 128, kMostStage = 48 * 1024;

template <class T, class S, int D>
struct Stage {
    GEODIFF_HD static constexpr int axis(int degree) { return degree < 0 ? 0 : 3 * degree + 1; }
    static constexpr int numbers = (axis(S::of_a) + axis(S::of_b) + axis(S::of_c) + D) | 1;  // odd: no two in one bank
    static constexpr bool used = !S::any && D > 0 && kPointThreads * numbers * int(sizeof(T)) <= kMostStage;
    static constexpr int size = used ? kPointThreads * numbers : 1;
};

template <class T, class S, int D, bool Plain>
GEODIFF_HD void backward_point(const SplineJob<T>& job, SplinePoint<T, S, Plain>& at, const SplineRows<T>& out, T* row) {
    const auto &first = job.axis[0], &second = job.axis[1], &third = job.axis[2];
    const int fa = at.a.functions(first), fb = at.b.functions(second), fc = at.c.functions(third);
    const int starts[3] = {0, fa, fa + fb};
#pragma unroll
    for (int i = 0; i < fa; ++i) row[i] = at.a.values[i];
    if constexpr (S::axes > 1) {
#pragma unroll
        for (int i = 0; i < fb; ++i) row[starts[1] + i] = at.b.values[i];
    }
    if constexpr (S::axes > 2) {
#pragma unroll
        for (int i = 0; i < fc; ++i) row[starts[2] + i] = at.c.values[i];
    }
    T g[D > 0 ? D : 1];
    if constexpr (D > 0) {
        homogeneous_upstream<D>(job, at.n, g);
#pragma unroll
        for (int d = 0; d < D; ++d) row[out.upstream + d] = g[d];
    } else {
        homogeneous_upstream(job, at.n, row + out.upstream);
    }
    i64 cell = at.item * (first.count - first.degree) + at.a.span - first.degree;
    if (S::axes > 1) cell = cell * (second.count - second.degree) + at.b.span - second.degree;
    if (S::axes > 2) cell = cell * (third.count - third.degree) + at.c.span - third.degree;
    if (out.cell) out.cell[at.n] = int(cell);
    bool wanted = false;
    for (int k = 0; k < S::axes; ++k) wanted |= job.axis[k].grad_parameters != nullptr || out.window[k] >= 0;
    if (!wanted) return;
    T bar_a[sizeof(at.a.values) / sizeof(T)] = {}, bar_b[sizeof(at.b.values) / sizeof(T)] = {};
    T bar_c[sizeof(at.c.values) / sizeof(T)] = {}, line = T(0);
    at.each(job, [&](int i, int j, int k, const T* control) {
        T dot = T(0);
        if constexpr (D > 0) {
            const ControlRow<T, D> p = *reinterpret_cast<const ControlRow<T, D>*>(control);
#pragma unroll
            for (int d = 0; d < D; ++d) dot += p.x[d] * g[d];
        } else {
            for (int d = 0; d < job.dim; ++d) dot += control[d] * row[out.upstream + d];
        }
        const T by_a = at.value_a(i) * dot;
        line = j + k == 0 ? T(0) : line;
        line += at.b.values[j] * at.c.values[k] * dot;
        if (S::axes > 1) bar_b[j] += at.c.values[k] * by_a;
        if (S::axes > 2) bar_c[k] += at.b.values[j] * by_a;
        if (j != fb - 1 || k != fc - 1) return;
        if constexpr (S::flat || S::any) {
            bar_a[i] = line;
        } else {
            put(bar_a, i, line);
        }
    });
    finish_axis(at.a, job, out, 0, at, bar_a, row);
    if constexpr (S::axes > 1) finish_axis(at.b, job, out, 1, at, bar_b, row);
    if constexpr (S::axes > 2) finish_axis(at.c, job, out, 2, at, bar_c, row);
}

// Block: kPointThreads threads.
template <class T, class S, int D, bool Plain>
__global__ void spline_backward_points(SplineJob<T> job, const SpanRange* ranges, SplineRows<T> out) {
    using Staged = Stage<T, S, D>;
    SplinePoint<T, S, Plain> at;
    const bool there = at.at(job, ranges);
    if constexpr (Staged::used) {
        GEODIFF_SHARED(stage, T[Staged::size]);
        const int lane = int(threadIdx.x) & 31;
        T* rows = stage + (int(threadIdx.x) - lane) * Staged::numbers;
        if (there) backward_point<T, S, D, Plain>(job, at, out, rows + lane * Staged::numbers);
        __syncwarp();  // the rows of the warp are there
        const i64 begin = at.n - lane, count = min(i64(32), job.batch * job.axis[0].points - begin);
        T* to = out.rows + begin * out.size;
        for (int r = 0; r < int(count); ++r)
            for (int k = lane; k < out.size; k += 32) to[r * out.size + k] = rows[r * Staged::numbers + k];
    } else {
        if (there) backward_point<T, S, D, Plain>(job, at, out, out.rows + at.n * out.size);
    }
}

}  // namespace gd

#endif
