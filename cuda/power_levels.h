// SPDX-License-Identifier: Apache-2.0
// The T-conorms whose generator is a power (Yager, Aczél–Alsina, Dombi, Schweizer–Sklar) at a p where the power itself
// would overflow, underflow or round to 1, so that the sums of tconorms.h lose it. With levels w, logarithms of what is
// raised to the power q = |p|, a pixel keeps the highest level `top` of its faces and the sum of powers relative to it,
//   sum = Σ e^(q(wᵢ − top)),
// as log-sum-exp does: one exponential a pair, nothing that overflows, and one face gives F whatever p. Each has
//   kNeed                    what level and pair read of c
//   least()                  |p| from where on less makes no difference, as more does not beyond 1e30: two faces are certain
//   level(c), rate(c)        w and ∂w/∂x
//   none()                   the level of nothing, which is also where `top` starts
//   add(w, q, top, sum)      one more face
//   value(top, sum, q)       ⊥
//   pixel(top, sum, q, m, e) of a pixel; and of a pair
//   pair(c, top, e, q)       with ∂⊥/∂x = m · pair
//   rest(top, sum, q)        what log_share needs of a pixel besides top
//   slope(top, sum, q), by_p(w, top, rest, q), by_p_at(top, rest, q)   ∂⊥/∂|p| = slope · (Σ by_p − by_p_at)
#pragma once
#include "tconorms.h"

namespace gd {

// Whether a p is this file's business.
GEODIFF_HD bool beyond_powers(double p) {
    const double q = p < 0 ? -p : p;
    return q < 0.25 || q > 4;
}

// The three that are norms: ⊥ = G(N), N = log ‖v‖_q = top + log(sum)/q.
template <class G>
struct NormLevels {
    static constexpr Need kNeed = G::kNeed;
    template <class T>
    GEODIFF_HD static T least() {
        return T(1e-30);
    }
    template <class T>
    GEODIFF_HD static T none() {
        return log_zero<T>();
    }
    template <class T>
    GEODIFF_HD static T level(const Cdf<T>& c) {
        return G::level(c);
    }
    template <class T>
    GEODIFF_HD static void add(T w, T q, T& top, T& sum) {
        const bool counts = w > T(-1e29);  // F = 0, whose power is 0 however small q is
        const T gap = counts ? w - top : T(0);
        const T ratio = exp(-q * abs(gap));
        const T one = counts ? T(1) : T(0);
        sum = gap > T(0) ? sum * ratio + one : sum + ratio * one;
        top = gap > T(0) ? w : top;
    }
    template <class T>
    GEODIFF_HD static T norm(T top, T sum, T q) {
        return top + log(max(sum, T(1))) / q;
    }
    template <class T>
    GEODIFF_HD static T value(T top, T sum, T q) {
        return sum > T(0) ? G::value(norm(top, sum, q)) : T(0);
    }
    template <class T>
    GEODIFF_HD static T rest(T, T sum, T) {
        return log(max(sum, T(1)));
    }
    template <class T>
    GEODIFF_HD static void pixel(T top, T sum, T q, T& m, T& e) {
        const T n = norm(top, sum, q);
        m = sum > T(0) && G::moves(n) ? T(1) : T(0);
        e = G::log_slope(n) - rest(top, sum, q);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T top, T e, T q) {
        return G::rate(c) * exp(min(q * (G::level(c) - top), T(0)) + e);
    }
    template <class T>
    GEODIFF_HD static T slope(T top, T sum, T q) {
        const T n = norm(top, sum, q);
        return sum > T(0) && G::moves(n) ? exp(G::log_slope(n)) : T(0);
    }
    // r·log r/q², r the share of the sum: ∂N/∂q is minus the shares' entropy over q².
    template <class T>
    GEODIFF_HD static T by_p(T w, T top, T rest, T q) {
        const T log_share = min(clamp(q * (w - top), T(-1e30), T(0)) - rest, T(0));
        return w > T(-1e29) ? exp(log_share) * log_share / q / q : T(0);
    }
    template <class T>
    GEODIFF_HD static T by_p_at(T, T, T) {
        return T(0);
    }
};

namespace detail {

struct YagerNorm {  // min(1, e^N), v = a
    static constexpr Need kNeed = kLogF;
    template <class T>
    GEODIFF_HD static T level(const Cdf<T>& c) {
        return c.log_F;
    }
    template <class T>
    GEODIFF_HD static T rate(const Cdf<T>& c) {
        return c.over_F;
    }
    template <class T>
    GEODIFF_HD static T value(T n) {
        return n < T(0) ? exp(n) : T(1);
    }
    template <class T>
    GEODIFF_HD static bool moves(T n) {
        return n < T(0);
    }
    template <class T>
    GEODIFF_HD static T log_slope(T n) {
        return n;
    }
};

struct AczelAlsinaNorm {  // 1 − e^(−e^N), v = −log(1 − a)
    static constexpr Need kNeed = kValues;
    template <class T>
    GEODIFF_HD static T level(const Cdf<T>& c) {
        // log(−log(1 − a)) = log a + a/2 + …: where a is tiny, of which −log(1 − a) might underflow
        return c.log_F < T(-17) ? c.log_F + T(0.5) * c.F : log(-c.log_S);
    }
    template <class T>
    GEODIFF_HD static T rate(const Cdf<T>& c) {
        return c.log_F < T(-17) ? c.over_F * (T(1) + T(0.5) * c.F) : c.over_S / max(-c.log_S, Real<T>::least);
    }
    template <class T>
    GEODIFF_HD static T value(T n) {
        return T(0) - expm1(-exp(min(n, T(69))));
    }
    template <class T>
    GEODIFF_HD static bool moves(T) {
        return true;
    }
    template <class T>
    GEODIFF_HD static T log_slope(T n) {
        const T low = min(n, T(69));
        return low - exp(low);
    }
};

struct DombiNorm {  // e^N/(1 + e^N), v = a/(1 − a)
    static constexpr Need kNeed = kValues;
    template <class T>
    GEODIFF_HD static T level(const Cdf<T>& c) {
        return c.log_F - c.log_S;
    }
    template <class T>
    GEODIFF_HD static T rate(const Cdf<T>& c) {
        return c.over_F + c.over_S;
    }
    template <class T>
    GEODIFF_HD static T value(T n) {
        const T u = exp(-abs(n));
        return (n < T(0) ? u : T(1)) / (T(1) + u);
    }
    template <class T>
    GEODIFF_HD static bool moves(T) {
        return true;
    }
    template <class T>
    GEODIFF_HD static T log_slope(T n) {
        const T size = abs(n);
        return -size - T(2) * log1p(exp(-size));
    }
};

}  // namespace detail

using YagerLevels = NormLevels<detail::YagerNorm>;
using AczelAlsinaLevels = NormLevels<detail::AczelAlsinaNorm>;
using DombiLevels = NormLevels<detail::DombiNorm>;

// 1 − A^(−1/q), A = 1 + Σ (e^(q·wᵢ) − 1) with w = −log(1 − a) ≥ 0. Here sum = Σ (e^(q·wᵢ) − 1)·e^(−q·top).
struct SchweizerSklarLevels {
    static constexpr Need kNeed = kLogS;
    template <class T>
    GEODIFF_HD static T least() {  // where it is the probabilistic sum
        return T(sizeof(T) == 4 ? 1e-12 : 1e-20);
    }
    template <class T>
    GEODIFF_HD static T none() {
        return T(0);
    }
    template <class T>
    GEODIFF_HD static T level(const Cdf<T>& c) {
        return -c.log_S;
    }
    template <class T>
    GEODIFF_HD static void add(T w, T q, T& top, T& sum) {
        const T ratio = exp(-q * abs(w - top));
        const T part = -expm1(-q * w);
        sum = w > top ? sum * ratio + part : sum + ratio * part;
        top = w > top ? w : top;
    }
    // log A − q·top
    template <class T>
    GEODIFF_HD static T rest(T top, T sum, T q) {
        const T m = q * top;
        return m < T(1) ? log1p(sum * exp(min(m, T(1)))) - m : log(exp(-m) + sum);
    }
    // −log(1 − ⊥)
    template <class T>
    GEODIFF_HD static T log_rest(T top, T sum, T q) {
        const T m = q * top;
        return m < T(1) ? log1p(sum * exp(min(m, T(1)))) / q : top + log(exp(-m) + sum) / q;
    }
    template <class T>
    GEODIFF_HD static T value(T top, T sum, T q) {
        return T(0) - expm1(-log_rest(top, sum, q));
    }
    template <class T>
    GEODIFF_HD static void pixel(T top, T sum, T q, T& m, T& e) {
        m = T(1);
        e = -log_rest(top, sum, q) - rest(top, sum, q);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T top, T e, T q) {
        return c.over_S * exp(min(q * (-c.log_S - top), T(0)) + e);
    }
    template <class T>
    GEODIFF_HD static T slope(T top, T sum, T q) {
        return exp(-log_rest(top, sum, q));
    }
    // u − 1 + e^(−u)
    template <class T>
    GEODIFF_HD static T excess(T u) {
        const T series = u * u * (T(1) / T(2) - u / T(6) + u * u / T(24) - u * u * u / T(120) + u * u * u * u / T(720));
        return u < T(0.01) ? series : expm1(-u) + u;
    }
    template <class T>
    GEODIFF_HD static T by_p(T w, T top, T rest, T q) {
        return exp(min(q * (w - top), T(0)) - rest) * excess(q * w) / q / q;
    }
    template <class T>
    GEODIFF_HD static T by_p_at(T top, T rest, T q) {
        return excess(q * top + rest) / q / q;
    }
};

}  // namespace gd
