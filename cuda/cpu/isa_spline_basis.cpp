// SPDX-License-Identifier: Apache-2.0
// The basis functions of blocks of points, which all other spline kernels start from, and the op that returns them.
#include "spline_block.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::BasisJob<T>;

// knots[at[lane]] in each lane, as a list rather than a loop: compilers make shuffles of it, not a trip through memory.
template <class V, class T>
GEODIFF_HD V gather(const T* knots, const int* at) {
    if constexpr (Lanes<V>::count == 1) {
        return knots[at[0]];
    } else if constexpr (Lanes<V>::count == 4) {
        return V{knots[at[0]], knots[at[1]], knots[at[2]], knots[at[3]]};
    } else if constexpr (Lanes<V>::count == 8) {
        return V{knots[at[0]], knots[at[1]], knots[at[2]], knots[at[3]],
                 knots[at[4]], knots[at[5]], knots[at[6]], knots[at[7]]};
    } else {
        return V{knots[at[0]], knots[at[1]], knots[at[2]],  knots[at[3]],  knots[at[4]],  knots[at[5]],
                 knots[at[6]], knots[at[7]], knots[at[8]],  knots[at[9]],  knots[at[10]], knots[at[11]],
                 knots[at[12]], knots[at[13]], knots[at[14]], knots[at[15]]};
    }
}

// The degrees of daily use are unrolled; Degree = −1 takes any.
template <class T, int Degree, bool Keep>
void values_of(const T* knots, int degree, int order, int n, AxisBlock<T>& block) {
    using V = Pack<T>;
    constexpr int most = Degree >= 0 ? Degree : kMaxDegree;
    const int p = Degree >= 0 ? Degree : degree;
    for (int at = 0; at < n; at += Lanes<V>::count) {
        V window[2 * most + 1], values[most + 1];
        Triangle<V, most> kept;
        GEODIFF_UNROLL
        for (int k = 0; k < 2 * p; ++k) window[k] = gather<V>(knots - p + 1 + k, block.span + at);
        basis<Degree>(window, load<V>(block.u + at), p, order, values, kept);
        GEODIFF_UNROLL
        for (int b = 0; b <= p; ++b) store(block.values + b * kPoints + at, values[b]);
        if constexpr (Keep) {
            static_assert(Degree <= kUnrolledDegree, "no room");
            GEODIFF_UNROLL_MORE
            for (int t = 0; t < Degree * (Degree + 1) / 2; ++t) {
                store(block.term + t * kPoints + at, kept.term[t]);
                store(block.inverse + t * kPoints + at, kept.inverse[t]);
            }
        }
    }
}

template <class T, int Degree>
void adjoint_of(const T* knots, int degree, int order, int n, AxisBlock<T>& block) {
    using V = Pack<T>;
    constexpr int most = Degree >= 0 ? Degree : kMaxDegree;
    const int p = Degree >= 0 ? Degree : degree;
    for (int at = 0; at < n; at += Lanes<V>::count) {
        V window[2 * most + 1], values[most + 1], bar_window[2 * most + 1], bar_u;
        Triangle<V, most> kept;
        const V u = load<V>(block.u + at);
        GEODIFF_UNROLL
        for (int k = 0; k < 2 * p; ++k) window[k] = gather<V>(knots - p + 1 + k, block.span + at);
        if constexpr (Degree >= 0) {
            GEODIFF_UNROLL_MORE
            for (int t = 0; t < Degree * (Degree + 1) / 2; ++t) {
                kept.term[t] = load<V>(block.term + t * kPoints + at);
                kept.inverse[t] = load<V>(block.inverse + t * kPoints + at);
            }
        } else {
            basis<Degree>(window, u, p, order, values, kept);
        }
        GEODIFF_UNROLL
        for (int b = 0; b <= p; ++b) values[b] = load<V>(block.bar + b * kPoints + at);
        basis_adjoint<Degree>(window, u, p, order, kept, values, bar_u, bar_window);
        store(block.bar_u + at, bar_u);
        GEODIFF_UNROLL
        for (int k = 0; k < 2 * p; ++k) store(block.bar_window + k * kPoints + at, bar_window[k]);
    }
}

// Above the degree all derivatives are zero.
template <class T>
void zero_values(const T*, int degree, int, int, AxisBlock<T>& block) {
    for (int i = 0; i < (degree + 1) * kPoints; ++i) block.values[i] = T(0);
}
template <class T>
void zero_adjoint(const T*, int degree, int, int, AxisBlock<T>& block) {
    for (int i = 0; i < kPoints; ++i) block.bar_u[i] = T(0);
    for (int i = 0; i < 2 * degree * kPoints; ++i) block.bar_window[i] = T(0);
}

constexpr i64 kChunk = 1024;  // points a thread takes at a time

template <class T>
void forward(const Job<T>& job) {
    const SplineAxis<T>& axis = job.axis;
    const int functions = axis.degree + 1;
    const BasisStages<T> stages = basis_stages<T>(axis.degree, axis.order);
    const i64 chunks = (axis.points + kChunk - 1) / kChunk;
    const int threads = job.batch * axis.points < 2 * kChunk ? 1 : job.threads;
    parallel(job.batch * chunks, threads, [&](i64 item) {
        const i64 b = item / chunks, begin = item % chunks * kChunk, end = min(axis.points, begin + kChunk);
        const T* knots = axis.knots + b * axis.knots_stride;
        const SpanRange range = span_range(knots, axis.count, axis.degree);
        AxisBlock<T> block;
        for (i64 at = begin; at < end; at += kPoints) {
            const int n = int(min(end - at, i64(kPoints)));
            block.locate(knots, range, axis.parameters + b * axis.parameters_stride + at, n);
            stages.values(knots, axis.degree, axis.order, n, block);
            const i64 to = b * axis.points + at;
            for (int i = 0; i < n; ++i) {
                job.span[to + i] = block.span[i];
                for (int f = 0; f < functions; ++f) job.values[(to + i) * functions + f] = block.values[f * kPoints + i];
            }
        }
    });
}

// A thread owns an item of the batch: the points of one item meet in its knots.
template <class T>
void backward(const Job<T>& job) {
    const SplineAxis<T>& axis = job.axis;
    const int functions = axis.degree + 1, total = axis.count + axis.degree + 1;
    const BasisStages<T> stages = basis_stages<T>(axis.degree, axis.order);
    parallel(job.batch, job.batch * axis.points < 2 * kChunk ? 1 : job.threads, [&](i64 b) {
        const T* knots = axis.knots + b * axis.knots_stride;
        const SpanRange range = span_range(knots, axis.count, axis.degree);
        Scratch<double> sum(total);
        for (int j = 0; j < total; ++j) sum[j] = 0;
        AxisBlock<T> block;
        for (i64 at = 0; at < axis.points; at += kPoints) {
            const int n = int(min(axis.points - at, i64(kPoints)));
            const i64 from = b * axis.points + at;
            block.locate(knots, range, axis.parameters + b * axis.parameters_stride + at, n);
            block.clear_bar(functions);
            for (int i = 0; i < n; ++i) {
                for (int f = 0; f < functions; ++f) block.bar[f * kPoints + i] = job.upstream[(from + i) * functions + f];
            }
            stages.keeping(knots, axis.degree, axis.order, n, block);
            stages.adjoint(knots, axis.degree, axis.order, n, block);
            if (axis.grad_parameters) {
                for (int i = 0; i < n; ++i) axis.grad_parameters[from + i] = block.bar_u[i];
            }
            if (axis.grad_knots) block.add_window(axis.degree, n, sum.get());
        }
        if (axis.grad_knots) {
            for (int j = 0; j < total; ++j) axis.grad_knots[b * total + j] = T(sum[j]);
        }
    });
}

}  // namespace

template <class T>
BasisStages<T> basis_stages(int degree, int order) {
    if (order > degree) return {zero_values<T>, zero_values<T>, zero_adjoint<T>};
    switch (degree) {
        case 1: return {values_of<T, 1, false>, values_of<T, 1, true>, adjoint_of<T, 1>};
        case 2: return {values_of<T, 2, false>, values_of<T, 2, true>, adjoint_of<T, 2>};
        case 3: return {values_of<T, 3, false>, values_of<T, 3, true>, adjoint_of<T, 3>};
        case 4: return {values_of<T, 4, false>, values_of<T, 4, true>, adjoint_of<T, 4>};
        case 5: return {values_of<T, 5, false>, values_of<T, 5, true>, adjoint_of<T, 5>};
        default: return {values_of<T, -1, false>, values_of<T, -1, false>, adjoint_of<T, -1>};
    }
}
template BasisStages<float> basis_stages<float>(int, int);
template BasisStages<double> basis_stages<double>(int, int);

const geodiff::Kernel<geodiff::BasisJob> kernel::spline_basis = {forward, forward};
const geodiff::Kernel<geodiff::BasisJob> kernel::spline_basis_backward = {backward, backward};

}  // namespace gd
