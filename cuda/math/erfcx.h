// SPDX-License-Identifier: Apache-2.0
// erfcx(t) = exp(t²)·erfc(t) for t ≥ 0, the scaled tail from which the normal and Lévy laws keep their logarithms exact.
//
// (1 + 2t)·erfcx(t) is smooth in y = (t − 3)/(t + 3), which maps [0, ∞) to [−1, 1): a truncated Chebyshev expansion in y,
// computed with 60 digits and written in powers of y. Relative error below 2e-15 (double) and 3e-7 (float).
#pragma once
#include "elementary.h"

namespace gd {
namespace detail {

template <class T>
struct ErfcxSeries;

template <>
struct ErfcxSeries<double> {
    static constexpr int degree = 26;
    GEODIFF_HD static constexpr double coefficient(int k) {
        constexpr double c[degree + 1] = {
        1.2530080582697296, -0.1356211061245812, -0.04756229435345109, 0.12964515870276475,
        -0.11927366341528023, 0.06830802734384515, -0.023770514919506852, 0.0025293918180474668,
        0.0018886903716907627, -0.0007798322884823084, -0.00010515990108729849, 0.0001250994355712812,
        4.949988662264347e-06, -2.0100843094844725e-05, -7.33143259743597e-07, 3.473024167841533e-06,
        3.603910925712771e-07, -6.175617678992323e-07, -1.4683175494120584e-07, 1.0277997488271058e-07,
        4.6950946691614734e-08, -1.3906145791730994e-08, -1.1734464137789657e-08, 1.2019719440135793e-09,
        2.0626322959832455e-09, -3.451497487664328e-11, -1.881936630944858e-10};
        return c[k];
    }
};

template <>
struct ErfcxSeries<float> {
    static constexpr int degree = 11;
    GEODIFF_HD static constexpr float coefficient(int k) {
        constexpr float c[degree + 1] = {
        1.25300801f, -0.135621071f, -0.0475621559f, 0.129644111f, -0.119275272f, 0.0683165714f, -0.0237635765f,
        0.00249911682f, 0.00187507912f, -0.000726453669f, -9.25451677e-05f, 7.73102438e-05f};
        return c[k];
    }
};

template <int K, class T>
GEODIFF_HD T erfcx_series(T y) {
    constexpr T c = ErfcxSeries<T>::coefficient(K);
    if constexpr (K == ErfcxSeries<T>::degree) {
        return c;
    } else {
        return c + y * erfcx_series<K + 1, T>(y);
    }
}

}  // namespace detail

template <class T>
GEODIFF_HD T erfcx(T t) {
    const T y = (t - T(3)) / (t + T(3));
    return detail::erfcx_series<0, T>(y) / (T(1) + T(2) * t);
}

}  // namespace gd
