// SPDX-License-Identifier: Apache-2.0
// exp, log, log1p, expm1, sqrt and atan that a compiler can vectorise: no branches, no tables, no library calls.
//
// Error (tests/native/test_math.py): below 2 units in the last place for exp, 3 for log, 4 for the others.
// They never return infinity or NaN for finite input: exp saturates near the largest number, log of anything below the
// least normal number is the log of that number. On the GPU the device's own functions do the work.
#pragma once
#include "../portability.h"

namespace gd {

template <class T>
struct Real;

template <>
struct Real<float> {
    using Int = i32;
    using Unsigned = u32;
    static constexpr int mantissa = 23;
    static constexpr int bias = 127;
    static constexpr float round_magic = 12582912.0f;           // 1.5·2²³: adding it rounds to an integer
    static constexpr float unit_magic = 8388608.0f;             // 2²³
    static constexpr u32 unit_magic_bits = 0x4B000000u;
    static constexpr u32 sqrt_half_bits = 0x3F3504F3u;
    static constexpr float ln2_high = 0.693359375f;             // few bits, so that n·ln2_high is exact
    static constexpr float ln2_low = -2.12194440e-4f;
    static constexpr float exp_max = 88.0f;
    static constexpr float exp_min = -87.33f;
    static constexpr float least = 1.17549435e-38f;
    static constexpr float epsilon = 1.1920929e-7f;
    static constexpr float largest = 3.0e38f;
    static constexpr float plateau = 6.0e37f;                   // exp and expm1 saturate above
    static constexpr int exp_degree = 7;
    static constexpr int log_terms = 5;
    static constexpr int log1p_terms = 7;
    static constexpr int atan_terms = 9;
};

template <>
struct Real<double> {
    using Int = i64;
    using Unsigned = u64;
    static constexpr int mantissa = 52;
    static constexpr int bias = 1023;
    static constexpr double round_magic = 6755399441055744.0;   // 1.5·2⁵²
    static constexpr double unit_magic = 4503599627370496.0;    // 2⁵²
    static constexpr u64 unit_magic_bits = 0x4330000000000000ull;
    static constexpr u64 sqrt_half_bits = 0x3FE6A09E667F3BCDull;
    static constexpr double ln2_high = 0.6931471803691238;
    static constexpr double ln2_low = 1.9082149292705877e-10;
    static constexpr double exp_max = 709.0;
    static constexpr double exp_min = -708.39;
    static constexpr double least = 2.2250738585072014e-308;
    static constexpr double epsilon = 2.220446049250313e-16;
    static constexpr double largest = 1.0e308;
    static constexpr double plateau = 3.0e307;
    static constexpr int exp_degree = 13;
    static constexpr int log_terms = 11;
    static constexpr int log1p_terms = 17;
    static constexpr int atan_terms = 22;
};

// Stands for log 0. Finite, so that sums and products of it never make a NaN.
template <class T>
GEODIFF_HD T log_zero() {
    return T(-1e30);
}

namespace detail {

GEODIFF_HD constexpr double factorial(int n) {
    double product = 1;
    for (int k = 2; k <= n; ++k) product *= k;
    return product;
}

// Σ_{k=K}^{N} r^(k−K) / k!
template <int K, int N, class T>
GEODIFF_HD T exp_series(T r) {
    if constexpr (K == N) {
        return T(1.0 / factorial(K));
    } else {
        return T(1.0 / factorial(K)) + r * exp_series<K + 1, N, T>(r);
    }
}

// Σ_{k=K}^{N-1} z^(k−K) / (2k+1): atanh(s)/s at z = s², and atan(s)/s at z = −s².
template <int K, int N, class T>
GEODIFF_HD T odd_series(T z) {
    if constexpr (K == N - 1) {
        return T(1.0 / (2 * K + 1));
    } else {
        return T(1.0 / (2 * K + 1)) + z * odd_series<K + 1, N, T>(z);
    }
}

// x = n·ln2 + r with |r| ≤ ln2/2; gives r and the float 2ⁿ (for n inside the exponent's range).
template <class T>
GEODIFF_HD T reduce_exp(T x, T& power) {
    using R = Real<T>;
    const T shifted = x * T(1.4426950408889634) + R::round_magic;
    const T n = shifted - R::round_magic;
    using U = typename R::Unsigned;
    power = bits_as<T>(U((bits_as<U>(shifted) + U(R::bias)) << R::mantissa));
    return (x - n * R::ln2_high) - n * R::ln2_low;
}

}  // namespace detail

GEODIFF_HD float sqrt(float x) {
#if GEODIFF_ON_DEVICE
    return ::sqrtf(x);
#else
    return __builtin_sqrtf(x);
#endif
}
GEODIFF_HD double sqrt(double x) {
#if GEODIFF_ON_DEVICE
    return ::sqrt(x);
#else
    return __builtin_sqrt(x);
#endif
}

// 1/√x.
GEODIFF_HD float per_root(float x) {
#if GEODIFF_ON_DEVICE
    return ::rsqrtf(x);
#else
    return 1.0f / __builtin_sqrtf(x);
#endif
}
GEODIFF_HD double per_root(double x) {
#if GEODIFF_ON_DEVICE
    return ::rsqrt(x);
#else
    return 1.0 / __builtin_sqrt(x);
#endif
}

// eˣ; 0 below the range, the largest power in the range above it.
template <class T>
GEODIFF_HD T exp(T x) {
    using R = Real<T>;
    const T inside = clamp(x, R::exp_min, R::exp_max);
#if GEODIFF_ON_DEVICE
    const T y = sizeof(T) == 4 ? T(::expf(float(inside))) : T(::exp(double(inside)));
#else
    T power;
    const T r = detail::reduce_exp(inside, power);
    const T y = power * detail::exp_series<0, R::exp_degree, T>(r);
#endif
    return x < R::exp_min ? T(0) : y;
}

// eˣ − 1, accurate near 0.
template <class T>
GEODIFF_HD T expm1(T x) {
    using R = Real<T>;
    const T inside = clamp(x, T(-60), R::exp_max - T(1));
#if GEODIFF_ON_DEVICE
    return sizeof(T) == 4 ? T(::expm1f(float(inside))) : T(::expm1(double(inside)));
#else
    T power;
    const T r = detail::reduce_exp(inside, power);
    const T tail = r * detail::exp_series<1, R::exp_degree, T>(r);
    return power * tail + (power - T(1));
#endif
}

// log x for x > 0.
template <class T>
GEODIFF_HD T log(T x) {
    using R = Real<T>;
    const T inside = max(x, R::least);
#if GEODIFF_ON_DEVICE
    return sizeof(T) == 4 ? T(::logf(float(inside))) : T(::log(double(inside)));
#else
    using U = typename R::Unsigned;
    // x = 2ᵉ·m with m in [√½, √2); log m = 2·atanh((m − 1)/(m + 1)).
    const U bits = bits_as<U>(inside);
    const U biased = (bits + ((U(R::bias) << R::mantissa) - R::sqrt_half_bits)) >> R::mantissa;
    const T e = bits_as<T>(U(biased | R::unit_magic_bits)) - (R::unit_magic + T(R::bias));
    const T m = bits_as<T>(U(bits - ((biased - U(R::bias)) << R::mantissa)));
    const T f = m - T(1);
    const T s = f / (T(2) + f);
    const T series = T(2) * s * detail::odd_series<0, R::log_terms, T>(s * s);
    return e * R::ln2_high + (e * R::ln2_low + series);
#endif
}

// log(1 + y) for y in [−½, 1], with one division.
template <class T>
GEODIFF_HD T log1p_near(T y) {
#if GEODIFF_ON_DEVICE
    return sizeof(T) == 4 ? T(::log1pf(float(y))) : T(::log1p(double(y)));
#else
    const T s = y / (T(2) + y);
    return T(2) * s * detail::odd_series<0, Real<T>::log1p_terms, T>(s * s);
#endif
}

// log(1 + y) for y > −1.
template <class T>
GEODIFF_HD T log1p(T y) {
#if GEODIFF_ON_DEVICE
    return sizeof(T) == 4 ? T(::log1pf(float(y))) : T(::log1p(double(y)));
#else
    const T u = T(1) + y;
    const T correction = (y - (u - T(1))) / u;  // what rounding 1 + y lost
    const T large = log(u) + (y < T(1e6) ? correction : T(0));
    return y > T(-0.25) && y < T(0.25) ? log1p_near(y) : large;
#endif
}

// atan t for t ≥ 0.
template <class T>
GEODIFF_HD T atan_positive(T t) {
#if GEODIFF_ON_DEVICE
    return sizeof(T) == 4 ? T(::atanf(float(t))) : T(::atan(double(t)));
#else
    const bool inverted = t > T(1);
    const T unit = inverted ? T(1) / max(t, T(1)) : t;
    const bool rotated = unit > T(0.41421356237309503);
    const T u = rotated ? (unit - T(1)) / (unit + T(1)) : unit;
    T angle = u * detail::odd_series<0, Real<T>::atan_terms, T>(-u * u);
    angle = rotated ? angle + T(0.7853981633974483) : angle;
    return inverted ? T(1.5707963267948966) - angle : angle;
#endif
}

// xʸ for x ≥ 0, given log x; 0 for x = 0 and y > 0.
template <class T>
GEODIFF_HD T power_of_log(T log_x, T y) {
    return exp(clamp(log_x * y, T(-1e30), T(1e30)));
}

}  // namespace gd
