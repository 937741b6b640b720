// SPDX-License-Identifier: Apache-2.0
// One point of a spline: the homogeneous upstream gradient, and the Gaussian mode's share of each knot near it.
#pragma once
#include "../math/elementary.h"
#include "arguments.h"
#include "basis.h"

namespace gd {

template <class T>
using SplineJob = geodiff::SplineJob<T>;
template <class T>
using SplineAxis = geodiff::SplineAxis<T>;

// What one point knows of its axes: values[b · stride] is function first + b. Axes that are not there have one function.
template <class T>
struct AxisPoint {
    const T* values;
    int first, functions;
    i64 stride;
    i64 step;  // numbers of the control net between two functions
};

// From the gradient of the quotient S = A / w to that of (A, w): (G, −G·S) / w. D is the dimension, 0 for any.
template <int D = 0, class T>
GEODIFF_HD void homogeneous_upstream(const SplineJob<T>& job, i64 point, T* g, i64 stride = 1) {
    const int dim = D > 0 ? D : job.dim;
    if (!job.rational) {
        for (int d = 0; d < dim; ++d) g[d * stride] = job.upstream[point * dim + d];
        return;
    }
    const T* upstream = job.upstream + point * (dim - 1);
    const T* value = job.value + point * (dim - 1);
    const T inverse = job.inverse_weight[point];
    T weight = T(0);
    for (int d = 0; d < dim - 1; ++d) {
        g[d * stride] = upstream[d] * inverse;
        weight -= upstream[d] * value[d];
    }
    g[(dim - 1) * stride] = weight * inverse;
}

// ⟨g, C_i⟩ with C_i the control points of function i of one axis, blended along the other axes.
template <class T>
GEODIFF_HD T blend_others(const T* control, int dim, const T* g, const AxisPoint<T>* axes, int axis, int i,
                          i64 stride = 1) {
    int begin[3], end[3];
    for (int a = 0; a < 3; ++a) {
        begin[a] = a == axis ? i : axes[a].first;
        end[a] = a == axis ? i + 1 : axes[a].first + axes[a].functions;
    }
    T sum = T(0);
    for (int i0 = begin[0]; i0 < end[0]; ++i0) {
        const T v0 = axis == 0 ? T(1) : axes[0].values[(i0 - axes[0].first) * axes[0].stride];
        for (int i1 = begin[1]; i1 < end[1]; ++i1) {
            const T v1 = axis == 1 ? v0 : v0 * axes[1].values[(i1 - axes[1].first) * axes[1].stride];
            for (int i2 = begin[2]; i2 < end[2]; ++i2) {
                const T v2 = axis == 2 ? v1 : v1 * axes[2].values[(i2 - axes[2].first) * axes[2].stride];
                const T* row = control + i0 * axes[0].step + i1 * axes[1].step + i2 * axes[2].step;
                T dot = T(0);
                for (int d = 0; d < dim; ++d) dot += row[d] * g[d * stride];
                sum += v2 * dot;
            }
        }
    }
    return sum;
}

constexpr int kReach = 9;  // σ from a point to the knots that it still touches: e^(−81/2) is below rounding

// The Gaussian mode: what a point at u gives to each copy of knot t = knots[begin] = … = knots[end − 1], of multiplicity
// m = end − begin, that is g_σ(u − t)·⟨g, A₋(u) − A₊(u)⟩ / m with A∓ the polynomial pieces left and right of it. 0 where
// there is none on one side. dual(i) is blend_others of function i.
template <class T, class Dual>
GEODIFF_HD T gaussian_share(const SplineAxis<T>& axis, const T* knots, int begin, int end, T u, Dual dual) {
    if (begin <= 0 || end > axis.count + axis.degree || axis.order > axis.degree) return T(0);
    T left[kMaxDegree + 1], right[kMaxDegree + 1];
    piece(knots, axis.count, axis.degree, axis.order, begin - 1, u, left);
    piece(knots, axis.count, axis.degree, axis.order, end - 1, u, right);
    T jump = T(0);
    for (int b = 0; b <= axis.degree; ++b) {
        const int l = begin - 1 - axis.degree + b, r = end - 1 - axis.degree + b;
        if (l >= 0 && l < axis.count) jump += left[b] * dual(l);
        if (r >= 0 && r < axis.count) jump -= right[b] * dual(r);
    }
    const T sigma = T(axis.bandwidth), x = (u - knots[begin]) / sigma;
    return exp(T(-0.5) * x * x) * T(0.3989422804014327) / sigma * jump / T(end - begin);
}

// All knots within reach of u; add(j, x) takes what knot j gets.
template <class T, class Dual, class Add>
GEODIFF_HD void gaussian_terms(const SplineAxis<T>& axis, const T* knots, T u, Dual dual, Add add) {
    const T reach = T(kReach) * T(axis.bandwidth);
    const int total = axis.count + axis.degree + 1;
    int begin = last_below(knots, total, u - reach) + 1;
    while (begin < total && knots[begin] <= u + reach) {
        int end = begin + 1;
        while (end < total && knots[end] == knots[begin]) ++end;
        const T share = gaussian_share(axis, knots, begin, end, u, dual);
        for (int j = begin; j < end; ++j) add(j, share);
        begin = end;
    }
}

}  // namespace gd
