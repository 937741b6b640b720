// SPDX-License-Identifier: Apache-2.0
// The regularised incomplete gamma function P(k, v), Q = 1 − P, their logarithms, and ∂P/∂k.
//
// Left of v₀ = k + 1.5:  P = vᵏ e⁻ᵛ / Γ(k+1) · Σₙ cₙ vⁿ,  cₙ = 1 / ((k+1)…(k+n))           (Abramowitz & Stegun 6.5.29)
// Right of it:           Q = vᵏ e⁻ᵛ / Γ(k) · 1/(v+1−k + 1(k−1)/(v+3−k + 2(k−2)/(v+5−k + …)))   (6.5.31, even part)
// ∂/∂k differentiates each form term by term, with ψ(k+n+1) beside cₙ; neither torch nor SciPy has it.
//
// k is the same for a whole image, so the tables are made once (gamma_table) and the loops below have a fixed length.
// The functions work on N numbers at once: 1 on the GPU, a vector's worth on the CPU.
#pragma once
#include "elementary.h"

namespace gd {

template <class T>
struct GammaTable {
    static constexpr int capacity = 160;
    T shape, log_gamma_1, log_gamma, digamma, split;  // k, log Γ(k+1), log Γ(k), ψ(k), v₀
    int terms, depth;
    T c[capacity];      // cₙ
    T c_psi[capacity];  // cₙ·ψ(k+n+1)
};

// Lengths chosen from k: what is dropped at v₀, the worst place, is below the rounding of T.
template <class T>
GEODIFF_HD void gamma_table(double k, double log_gamma_1, double digamma, GammaTable<T>& table) {
    constexpr double small = sizeof(T) == 4 ? 2e-8 : 4e-17;
    table.shape = T(k);
    table.log_gamma_1 = T(log_gamma_1);
    table.log_gamma = T(log_gamma_1) - log(T(k));
    table.digamma = T(digamma);
    const double split = k + 1.5;
    table.split = T(split);
    double c = 1, power = 1, sum = 0, psi = digamma + 1 / k;
    int n = 0;
    for (; n < GammaTable<T>::capacity; ++n) {
        table.c[n] = T(c);
        table.c_psi[n] = T(c * psi);
        sum += c * power;
        if (n > 2 && c * power < small * sum) break;
        c /= k + n + 1;
        psi += 1 / (k + n + 1);
        power *= split;
    }
    table.terms = n < GammaTable<T>::capacity ? n + 1 : n;
    // The continued fraction converges like exp(−4√(m·v)) and faster for large k; lengthened until it and its derivative
    // stand still. (For a whole k it ends by itself after k terms, its derivative does not.)
    double before = 0, before_k = 0;
    int depth = 4;
    for (; depth < 256; depth += depth / 2) {
        double value = split + 2 * depth + 1 - k, value_k = -1;
        for (int j = depth; j > 0; --j) {
            const double quotient = j * (k - j) / value;
            value_k = -1 + (j - quotient * value_k) / value;
            value = split + 2 * j - 1 - k + quotient;
        }
        if (abs(value - before) <= small * abs(value) && abs(value_k - before_k) <= (small + 1e-15) * abs(value)) break;
        before = value;
        before_k = value_k;
    }
    table.depth = depth;
}

// log of P and Q and the hazards f/Q and f/P at v[0..N) > 0; with WithShape also ∂P/∂k.
template <int N, bool WithShape, class T>
GEODIFF_HD void incomplete_gamma(const GammaTable<T>& table, const T* v, T* log_p, T* log_q, T* over_q, T* over_p,
                                 T* shape_derivative) {
    const T k = table.shape;
    T series[N], series_psi[N], tail[N], tail_k[N], small[N], large[N];
    for (int i = 0; i < N; ++i) {
        small[i] = min(v[i], table.split);
        large[i] = max(v[i], table.split);
        series[i] = T(0);
        series_psi[i] = T(0);
        tail[i] = large[i] + T(2 * table.depth + 1) - k;
        tail_k[i] = T(-1);
    }
    for (int n = table.terms - 1; n >= 0; --n) {
        for (int i = 0; i < N; ++i) series[i] = series[i] * small[i] + table.c[n];
        if constexpr (WithShape) {
            for (int i = 0; i < N; ++i) series_psi[i] = series_psi[i] * small[i] + table.c_psi[n];
        }
    }
    for (int j = table.depth; j > 0; --j) {
        const T a = T(j) * (k - T(j));
        const T b = T(2 * j - 1) - k;
        for (int i = 0; i < N; ++i) {
            const T quotient = a / tail[i];
            if constexpr (WithShape) tail_k[i] = T(-1) + (T(j) - quotient * tail_k[i]) / tail[i];
            tail[i] = large[i] + b + quotient;
        }
    }
    for (int i = 0; i < N; ++i) {
        const bool left = v[i] < table.split;
        const T log_v = log(v[i]);
        const T density = k * log_v - v[i];  // log of vᵏ e⁻ᵛ
        const T known = left ? density - table.log_gamma_1 + log(series[i]) : density - table.log_gamma - log(tail[i]);
        const T value = exp(known);
        const T other = log1p(-min(value, T(1) - Real<T>::epsilon));
        const T hazard = left ? k / (v[i] * series[i]) : tail[i] / v[i];  // f over the value just found
        const T complement = T(1) - value;
        const T ratio = hazard * value / max(complement, Real<T>::epsilon);
        log_p[i] = left ? known : other;
        log_q[i] = left ? other : known;
        over_p[i] = left ? hazard : ratio;
        over_q[i] = left ? ratio : hazard;
        if constexpr (WithShape) {
            const T by_series = value * (log_v - series_psi[i] / series[i]);
            const T by_fraction = -value * (log_v - table.digamma - tail_k[i] / tail[i]);
            shape_derivative[i] = left ? by_series : by_fraction;
        }
    }
}

}  // namespace gd
