// SPDX-License-Identifier: Apache-2.0
// One pair of points of two clouds: its cost, and the exponential of what the cost leaves.
//
// Distances are taken from differences of coordinates, never from |x|² + |y|² − 2x·y: far from the origin those cancel.
#pragma once
#include "../math/elementary.h"
#include "arguments.h"

namespace gd {

using geodiff::TransportJob;

// Terms of a sum that are less than exp(−reach) of its largest may be left out; exponents of a plan above `cap` count as
// that much. Both leave room for factors and for sums of 10⁸ terms: nothing overflows, and no denormals arise, which
// are slow.
template <class T>
struct ExponentRange;
template <>
struct ExponentRange<float> {
    static constexpr float reach = 40.0f, cap = 60.0f, floor = -80.0f;
};
template <>
struct ExponentRange<double> {
    static constexpr double reach = 80.0, cap = 600.0, floor = -650.0;
};

template <class T>
GEODIFF_HD T minus_infinity() {
    return T(bits_as<float>(0xFF800000u));
}

// 1/ε, finite, so that a cost of 0 stays 0 for any ε.
template <class T>
GEODIFF_HD T per_epsilon_of(const TransportJob<T>& job) {
    return T(min(1.0 / job.epsilon, double(Real<T>::largest)));
}

// |x − y|² of points with coordinates x[0], x[1], … and y[0], y[stride], …; D = 0 takes any number of them.
template <int D, class T>
GEODIFF_HD T pair_square(const T* x, const T* y, i64 stride, int dim) {
    const int count = D > 0 ? D : dim;
    T sum = T(0);
    for (int d = 0; d < count; ++d) {
        const T difference = x[d] - y[d * stride];
        sum += difference * difference;
    }
    return sum;
}

template <int P, class T>
GEODIFF_HD T pair_cost(T square) {
    return P == 2 ? square : sqrt(square);
}

// ∂C/∂x = slope·(x − y); 0 where the points coincide.
template <int P, class T>
GEODIFF_HD T pair_slope(T square) {
    if (P == 2) return T(2);
    const T length = sqrt(square);
    return length > T(0) ? T(1) / length : T(0);
}

// eˣ for x up to the cap, and exactly 0 below `low`, which lies within the range of exp.
template <class T>
GEODIFF_HD T exp_above(T x, T low) {
    const T inside = max(x, low);
#if GEODIFF_ON_DEVICE
    const T y = sizeof(T) == 4 ? T(::expf(float(inside))) : T(::exp(double(inside)));
#else
    T power;
    const T r = detail::reduce_exp(inside, power);
    const T y = power * detail::exp_series<0, Real<T>::exp_degree, T>(r);
#endif
    return x < low ? T(0) : y;
}

// log Σ exp of terms that come one group after the other: their largest exponent so far, and the sum over exp of it.
struct RunningLse {
    double largest = minus_infinity<double>(), sum = 0;

    // A group with the largest exponent `most` and the sum `part` over exp(most); not for groups of −infinity alone.
    GEODIFF_HD void add(double most, double part) {
        if (most > largest) {
            sum = sum * exp(largest - most) + part;
            largest = most;
        } else {
            sum += part * exp(most - largest);
        }
    }
    GEODIFF_HD double value() const { return sum > 0 ? largest + log(sum) : largest; }
};

}  // namespace gd
