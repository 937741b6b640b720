// SPDX-License-Identifier: Apache-2.0
// Splines on the CPU work on blocks of points: spans → basis → contraction, each a loop of its own. Points go through the
// triangle of the basis in packs, one a lane, since its divisions are what it costs.
#pragma once
#include "../spline/evaluate.h"
#include "packs.h"
#include "parallel.h"

namespace gd {

constexpr int kPoints = 32;   // in a block: so few that its arrays and a net share the first-level cache
constexpr int kFewKnots = 48;
constexpr int kUnrolledDegree = 5;  // degrees up to it have stages of their own, which keep the triangle for the way back

// One axis of a block; rows of kPoints, so that a pack of points is contiguous.
template <class T>
struct AxisBlock {
    alignas(64) T u[kPoints];
    alignas(64) T values[(kMaxDegree + 1) * kPoints];
    alignas(64) T bar[(kMaxDegree + 1) * kPoints];  // gradient of the values
    alignas(64) T bar_u[kPoints];
    alignas(64) T bar_window[2 * kMaxDegree * kPoints];
    alignas(64) T term[kUnrolledDegree * (kUnrolledDegree + 1) / 2 * kPoints];
    alignas(64) T inverse[kUnrolledDegree * (kUnrolledDegree + 1) / 2 * kPoints];
    int span[kPoints];

    // Takes n > 0 parameters and finds their spans; the rest of the block repeats the last.
    void locate(const T* knots, SpanRange range, const T* parameters, int n) {
        const int padded = (n + 15) / 16 * 16;
        for (int i = 0; i < n; ++i) u[i] = parameters[i];
        for (int i = n; i < padded; ++i) u[i] = u[n - 1];
        if (Lanes<Pack<T>>::count > 1 && range.last - range.first <= kFewKnots) {
            count_knots(knots, range, padded);
        } else {
            for (int i = 0; i < padded; ++i) span[i] = find_span(knots, range, u[i]);
        }
    }

    // Few knots are sooner counted, for a pack of points at a time, than searched.
    void count_knots(const T* knots, SpanRange range, int n) {
        using V = Pack<T>;
        for (int at = 0; at < n; at += Lanes<V>::count) {
            const V x = load<V>(u + at);
            auto below = x < x;  // 0 in each lane; a comparison that holds is −1
            for (int j = range.first + 1; j <= range.last; ++j) below += Lanes<V>::of(knots[j]) <= x;
            if constexpr (Lanes<V>::count > 1) {
                for (int l = 0; l < Lanes<V>::count; ++l) span[at + l] = range.first - int(below[l]);
            }
        }
    }

    void clear_bar(int functions) {
        for (int i = 0; i < functions * kPoints; ++i) bar[i] = T(0);
    }

    // Adds the windows' gradients to the knots they were taken from.
    void add_window(int degree, int n, double* knots) const {
        if (degree == 3) {
            for (int i = 0; i < n; ++i) {
                for (int k = 0; k < 6; ++k) knots[span[i] - 2 + k] += double(bar_window[k * kPoints + i]);
            }
            return;
        }
        for (int i = 0; i < n; ++i) {
            double* to = knots + span[i] - degree + 1;
            for (int k = 0; k < 2 * degree; ++k) to[k] += double(bar_window[k * kPoints + i]);
        }
    }
};

template <class T, int D>
void divide_by_weight(const T* homogeneous, i64 n, T* value, T* inverse_weight) {
    for (i64 i = 0; i < n; ++i) {
        const T inverse = T(1) / homogeneous[i * D + D - 1];
        inverse_weight[i] = inverse;
        for (int d = 0; d < D - 1; ++d) value[i * (D - 1) + d] = homogeneous[i * D + d] * inverse;
    }
}

// (n, dim) → the quotient (n, dim − 1), and 1/w (n)
template <class T>
void divide(const T* __restrict homogeneous, i64 n, int dim, T* __restrict value, T* __restrict inverse_weight) {
    if (dim == 3) return divide_by_weight<T, 3>(homogeneous, n, value, inverse_weight);
    if (dim == 4) return divide_by_weight<T, 4>(homogeneous, n, value, inverse_weight);
    for (i64 i = 0; i < n; ++i) {
        const T inverse = T(1) / homogeneous[i * dim + dim - 1];
        inverse_weight[i] = inverse;
        for (int d = 0; d < dim - 1; ++d) value[i * (dim - 1) + d] = homogeneous[i * dim + d] * inverse;
    }
}

// Homogeneous upstream gradients of n points, (n, dim).
template <class T>
void upstream_of(const SplineJob<T>& job, i64 first, i64 n, T* __restrict g) {
    if (!job.rational || job.dim != 4) {
        for (i64 i = 0; i < n; ++i) homogeneous_upstream(job, first + i, g + i * job.dim);
        return;
    }
    const T* upstream = job.upstream + 3 * first;
    const T* value = job.value + 3 * first;
    for (i64 i = 0; i < n; ++i) {
        const T inverse = job.inverse_weight[first + i];
        const T x = upstream[3 * i] * inverse, y = upstream[3 * i + 1] * inverse, z = upstream[3 * i + 2] * inverse;
        g[4 * i] = x;
        g[4 * i + 1] = y;
        g[4 * i + 2] = z;
        g[4 * i + 3] = -(x * value[3 * i] + y * value[3 * i + 1] + z * value[3 * i + 2]);
    }
}

// u, span → values
template <class T>
using BasisStage = void (*)(const T* knots, int degree, int order, int n, AxisBlock<T>&);
// u, span, bar and what `keeping` left → bar_u, bar_window
template <class T>
using BasisAdjointStage = void (*)(const T* knots, int degree, int order, int n, AxisBlock<T>&);

template <class T>
struct BasisStages {
    BasisStage<T> values, keeping;  // the same values
    BasisAdjointStage<T> adjoint;
};
template <class T>
BasisStages<T> basis_stages(int degree, int order);

// How a block of points is laid over the control net: point i meets the `rows` rows that begin at offset[i] + place[r],
// with the weights weight[r·kPoints + i], products of the leading axes' bases; along each, the last axis' basis.
template <class T>
struct Block {
    AxisBlock<T> axis[3];
    int rows, functions;  // functions: of the last axis
    i64 offset[kPoints];
    const i64* place;
    const T* weight;
    const T* last;  // values of the last axis
    T* dots;        // backward: ⟨row, last ⊗ g⟩ of each row and point, as weight
    T* last_bar;
};

// out (n, dim) = the spline's homogeneous values at n points.
template <class T>
using Contract = void (*)(const T* control, const Block<T>& block, int n, int dim, T* scratch, T* out);
// Adds to the bases' gradients (bar) and, where grad_control is not null, to the net's; g (n, dim) is the upstream.
template <class T>
using ContractAdjoint = void (*)(const T* control, Block<T>& block, int n, int dim, const T* g, bool want_basis,
                                 T* scratch, T* grad_control);

template <class T>
struct ContractStages {
    Contract<T> forward;
    ContractAdjoint<T> backward;
};

template <class T>
ContractStages<T> contract_stages(int degree, int dim);  // degree of the last axis

}  // namespace gd
