// SPDX-License-Identifier: Apache-2.0
// The additive T-conorms of geodiff.soft: ⊥(a₁…aₙ) = s⁻¹(min(Σ s(aᵢ), s(1))), so a pixel keeps one running sum t and
// no list of faces, and ∂⊥/∂aᵢ = s′(aᵢ)/s′(⊥). Formulas: Petersen 2022, App. B, with its misprints mended.
//
// Each family is given by
//   kNeed, kUsesE    what term and pair read of c; whether pair reads e
//   term(c)            s(a), from F, 1 − F and their logarithms in c
//   value(t)           s⁻¹(t)
//   pixel(t, m, e)     two numbers of the pixel, and
//   pair(c, e)         one of the pair, with ∂⊥/∂x = m · pair: e holds a logarithm that tames a large factor in pair
//   slope(t)           (s⁻¹)′(t)
//   by_p(t)            ∂s/∂p at fixed a, written in t = s(a); ∂⊥/∂p = slope(t)·(Σ by_p(tᵢ) − by_p(t))
// Maximum and average are not additive in this sense: structs without anything, handled where they are used.
//
// Powers overflow: Dombi and Schweizer–Sklar are taken to have reached 1, with no gradient, where t passes
// Real<T>::plateau, and a term too small for T is 0. In float32 that changes alpha by at most e^(−87/|p|), 4e-10 at
// |p| = 4; where |p| is larger, or so small that powers round to 1, power_levels.h is used instead.
#pragma once
#include "distributions.h"

namespace gd {

// p and what is computed from it once.
template <class T>
struct TConormParams {
    T p;
    T log_p, gap;    // Frank: log p and p − 1, rounded each for itself, since p may be close to 1
    T above, limit;  // Sugeno–Weber: p + 1, likewise, and s(1)
};

template <class T>
GEODIFF_HD TConormParams<T> tconorm_params(double p) {
    const double above = max(p + 1, 0.0), rise = p < -0.5 ? log(above) : log1p(p);
    return {T(p), T(log(p > 0 ? p : 1.0)), T(p - 1), T(above), T(abs(p) < 1e-16 ? 1.0 : rise / p)};
}

struct Maximum {};
struct Average {};

struct Probabilistic {  // a + b − ab;  s = −log(1 − a)
    static constexpr Need kNeed = kLogS;
    static constexpr bool kUsesE = false;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>&) {
        return -c.log_S;
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>&) {
        return T(0) - expm1(-t);  // not −0 where nothing is
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>&, T& m, T& e) {
        m = exp(-t);
        e = T(0);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T, const TConormParams<T>&) {
        return c.over_S;
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>&) {
        return exp(-t);
    }
    template <class T>
    GEODIFF_HD static T by_p(T, const TConormParams<T>&) {
        return T(0);
    }
};

struct Einstein {  // (a + b)/(1 + ab);  s = artanh a
    static constexpr Need kNeed = kValues;
    static constexpr bool kUsesE = false;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>&) {
        return T(0.5) * (log1p(c.F) - c.log_S);
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>&) {
        return -expm1(T(-2) * t) / (T(1) + exp(T(-2) * t));
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        m = slope(t, par);
        e = T(0);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T, const TConormParams<T>&) {
        return c.over_S / (T(1) + c.F);
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>&) {
        const T u = exp(T(-2) * t);
        return T(4) * u / ((T(1) + u) * (T(1) + u));
    }
    template <class T>
    GEODIFF_HD static T by_p(T, const TConormParams<T>&) {
        return T(0);
    }
};

struct Hamacher {  // s = log(1 + p·a/(1−a))/p;  p = 0: a/(1 − a)
    static constexpr Need kNeed = kValues;
    static constexpr bool kUsesE = true;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        const T p = par.p;
        const T odds = exp(clamp(c.log_F - c.log_S, T(-1e30), T(1e30)));
        const T z = p * odds;
        const T direct = (log(max(c.S + p * c.F, Real<T>::least)) - c.log_S) / max(p, Real<T>::least);
        const T near_zero = odds * log1p_near(min(z, T(1))) / max(z, Real<T>::least);
        const T middle = z < Real<T>::epsilon ? odds : near_zero;
        return z < T(0.5) ? middle : direct;
    }
    // n = (1 − e^(−pt))/p, which is t at p = 0; ⊥ = n/(n + e^(−pt)).
    template <class T>
    GEODIFF_HD static T numerator(T t, T p) {
        t = min(t, Real<T>::plateau);  // at p = 0 it may be infinite
        const T z = p * t;
        return z < Real<T>::epsilon ? t : -expm1(-z) / max(p, Real<T>::least);
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        const T n = numerator(t, par.p);
        return n / (n + rest(t, par.p));
    }
    template <class T>
    GEODIFF_HD static T rest(T t, T p) {
        return exp(-p * min(t, Real<T>::plateau));
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        m = rest(t, par.p);
        e = T(-2) * log(numerator(t, par.p) + m);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T e, const TConormParams<T>& par) {
        // h·exp(e)/(S + pF); at p = 0 the division by a tiny S is done in logarithms.
        return c.over_S * exp(clamp(e - log(max(c.S + par.p * c.F, Real<T>::least)), T(-1e30), T(1e30)));
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        const T v = rest(t, par.p);
        const T u = numerator(t, par.p) + v;
        return v / (u * u);
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        t = min(t, sqrt(Real<T>::largest));  // its square is used
        const T z = par.p * t;
        const T series = -t * t * (T(0.5) - z / T(6) + z * z / T(24) - z * z * z / T(120) + z * z * z * z / T(720));
        return abs(z) < T(0.01) ? series : -(expm1(-z) + z) / (par.p * par.p);
    }
};

struct Frank {  // s = −log((p^(1−a) − 1)/(p − 1));  p = 1: probabilistic
    static constexpr Need kNeed = kValues;
    static constexpr bool kUsesE = false;
    // log(p)/(p − 1), 1 at p = 1
    template <class T>
    GEODIFF_HD static T ratio(const TConormParams<T>& par) {
        return par.gap == T(0) ? T(1) : par.log_p / par.gap;
    }
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        if (par.gap == T(0)) return -c.log_S;
        const T below = par.p * expm1(-c.F * par.log_p) / par.gap;  // e^(−s) − 1
        const T small = -log1p(max(below, T(-0.5)));
        // For a near 1: log S pulled out of the logarithm, (e^y − 1)/y with y = S·log p.
        const T y = c.S * par.log_p;
        const T quotient = abs(y) < Real<T>::epsilon ? T(1) : expm1(y) / y;
        const T large = -c.log_S - log(quotient * ratio(par));
        return below > T(-0.5) ? small : large;
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        if (par.gap == T(0)) return T(0) - expm1(-t);
        const T near = -log1p(max(par.gap * expm1(-t) / par.p, T(-0.5))) / par.log_p;
        const T far = T(1) - log1p(par.gap * exp(-t)) / par.log_p;
        return t < T(0.6) ? near : far;
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        m = slope(t, par);
        e = T(0);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T, const TConormParams<T>& par) {
        const T y = c.S * par.log_p;
        const T quotient = abs(y) < Real<T>::epsilon ? T(1) : y / -expm1(-y);
        return c.over_S * quotient;
    }
    // p^(1 − a), which is 1 + gap·e^(−t), without the cancellation at small p.
    template <class T>
    GEODIFF_HD static T rest(T t, T u, const TConormParams<T>& par) {
        return par.p < T(0.05) ? u * (par.p + expm1(t)) : T(1) + par.gap * u;
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        const T u = exp(-t);
        return u / (ratio(par) * max(rest(t, u, par), Real<T>::least));
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        const T gap = par.gap;
        if (abs(gap) < T(0.01)) {
            // (L(gap) − L(gap·e^(−t)))/(gap·L(gap)) with L(y) = (1 + y)·log(1 + y)/y = 1 + y/2 − y²/6 + y³/12 − …
            T difference = T(0), whole = T(1), power = T(1);
            for (int k = 1; k <= 7; ++k) {
                difference -= power * expm1(-T(k) * t) / T(k * (k + 1));
                whole += power * gap / T(k * (k + 1));
                power *= -gap;
            }
            return difference / whole;
        }
        const T u = exp(-t), y = gap * u;
        if (par.p < T(0.05)) {
            const T power = min(u > T(0) ? rest(t, u, par) : T(1), T(1));
            const T less = max(T(1) - power, -gap * u);  // not below what rounding leaves of it
            return T(1) / gap + (log(power) / par.log_p) * (power / par.p) / max(less, Real<T>::least);
        }
        const T s = log1p(y) / par.log_p;  // 1 − a
        const T far = y / par.log_p;       // ≈ s·log p / log p where y is tiny
        return abs(y) < T(1e-9) ? T(1) / gap - (far / y) / par.p : T(1) / gap - s * (T(1) + y) / (par.p * y);
    }
};

struct Yager {  // min(1, (aᵖ + bᵖ)^(1/p));  s = aᵖ, s(1) = 1
    static constexpr Need kNeed = kLogF;
    static constexpr bool kUsesE = true;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        return power_of_log(c.log_F, par.p);
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        return t >= T(1) ? T(1) : (t > T(0) ? power_of_log(log(t), T(1) / par.p) : T(0));
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        const bool free = t > T(0) && t < T(1);  // no gradient on the plateau
        m = free ? T(1) : T(0);
        e = free ? (T(1) / par.p - T(1)) * log(t) : T(0);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T e, const TConormParams<T>& par) {
        return c.over_F * exp(clamp(c.log_F * par.p + e, T(-1e30), T(1e30)));
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        return t > T(0) && t < T(1) ? exp((T(1) / par.p - T(1)) * log(t)) / par.p : T(0);
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        return t > T(0) ? t * log(t) / par.p : T(0);
    }
};

struct AczelAlsina {  // s = (−log(1 − a))ᵖ
    static constexpr Need kNeed = kLogS;
    static constexpr bool kUsesE = true;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        return c.log_S < T(0) ? power_of_log(log(-c.log_S), par.p) : T(0);
    }
    template <class T>
    GEODIFF_HD static T root(T t, const TConormParams<T>& par) {
        return t > T(0) ? power_of_log(log(t), T(1) / par.p) : T(0);
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        return T(0) - expm1(-root(t, par));
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        m = t > T(0) ? exp(-root(t, par)) : T(0);
        e = (T(1) / par.p - T(1)) * log(t);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T e, const TConormParams<T>& par) {
        return c.over_S * exp((par.p - T(1)) * log(-c.log_S) + e);
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        return t > T(0) ? exp((T(1) / par.p - T(1)) * log(t) - root(t, par)) / par.p : T(0);
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        return t > T(0) ? t * log(t) / par.p : T(0);
    }
};

struct Dombi {  // s = (a/(1 − a))ᵖ
    static constexpr Need kNeed = kValues;
    static constexpr bool kUsesE = true;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        return power_of_log(c.log_F - c.log_S, par.p);
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        const T value = t > T(0) ? T(1) / (T(1) + exp(-log(t) / par.p)) : T(0);
        return t < Real<T>::plateau ? value : T(1);
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        const T log_odds = log(t) / par.p;
        const T u = exp(-abs(log_odds));
        m = t > T(0) && t < Real<T>::plateau ? u / ((T(1) + u) * (T(1) + u)) : T(0);  // ⊥(1 − ⊥)
        e = -log(t);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T e, const TConormParams<T>& par) {
        const T share = exp(clamp(par.p * (c.log_F - c.log_S) + e, T(-1e30), T(1e30)));
        return min(share, T(1)) * (c.over_S + c.over_F);
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        const T log_odds = log(t) / par.p;
        const T u = exp(-abs(log_odds));
        return t > T(0) && t < Real<T>::plateau ? u / ((T(1) + u) * (T(1) + u)) / (par.p * t) : T(0);
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        return t > T(0) ? t * log(t) / par.p : T(0);
    }
};

struct SchweizerSklar {  // p < 0;  s = (1 − a)ᵖ − 1
    static constexpr Need kNeed = kLogS;
    static constexpr bool kUsesE = true;
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        return expm1(clamp(par.p * c.log_S, T(0), T(1e30)));
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        return t < Real<T>::plateau ? -expm1(log1p(t) / par.p) : T(1);
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        m = t < Real<T>::plateau ? T(1) : T(0);
        e = (T(1) / par.p - T(1)) * log1p(min(t, Real<T>::plateau));
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T e, const TConormParams<T>& par) {
        // Never more than S, whatever the sum that overflowed says.
        return c.over_S * exp(min(par.p * c.log_S + e, c.log_S));
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        return t < Real<T>::plateau ? -exp((T(1) / par.p - T(1)) * log1p(t)) / par.p : T(0);
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        const T inside = min(t, Real<T>::plateau);
        return (T(1) + inside) * log1p(inside) / par.p;
    }
};

struct SugenoWeber {  // min(1, a + b + p·ab), p > −1;  s = log(1 + p·a)/p, its limit a at p = 0;  s(1) = log(1 + p)/p
    static constexpr Need kNeed = kValues;
    static constexpr bool kUsesE = true;
    // log(1 + p·a)
    template <class T>
    GEODIFF_HD static T rise(const Cdf<T>& c, const TConormParams<T>& par) {
        const T z = par.p * c.F;
        return z < T(-0.5) ? log(max(c.S + par.above * c.F, Real<T>::least)) : log1p(max(z, T(-0.5)));
    }
    template <class T>
    GEODIFF_HD static T term(const Cdf<T>& c, const TConormParams<T>& par) {
        const T s = abs(par.p * c.F) < Real<T>::epsilon ? c.F : rise(c, par) / par.p;
        return c.S > T(0) ? s : par.limit;
    }
    template <class T>
    GEODIFF_HD static T value(T t, const TConormParams<T>& par) {
        const T z = par.p * min(t, par.limit);
        const T value = abs(z) < Real<T>::epsilon ? t : expm1(z) / par.p;
        return t < par.limit ? min(value, T(1)) : T(1);
    }
    template <class T>
    GEODIFF_HD static void pixel(T t, const TConormParams<T>& par, T& m, T& e) {
        m = t < par.limit ? T(1) : T(0);  // no gradient on the plateau
        e = par.p * min(t, par.limit);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T e, const TConormParams<T>& par) {
        return c.over_S * c.S * exp(e - rise(c, par));
    }
    template <class T>
    GEODIFF_HD static T slope(T t, const TConormParams<T>& par) {
        return t < par.limit ? exp(par.p * t) : T(0);
    }
    template <class T>
    GEODIFF_HD static T by_p(T t, const TConormParams<T>& par) {
        return Hamacher::by_p(t, par);  // whose s is the same of a/(1 − a)
    }
};

}  // namespace gd
