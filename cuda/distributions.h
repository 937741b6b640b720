// SPDX-License-Identifier: Apache-2.0
// The distributions of geodiff.soft: at x, the CDF F, the survival S = 1 − F, their logarithms (each exact in its own
// tail, so gradients survive saturation), and the rates f/S and f/F of the density f. Formulas: Petersen 2022, App. A.
//
// Reversed forms 1 − F(−x) swap F with S; shifted ones move x; squared ones are made by the caller, x = sgn(d)·d²/τ.
#pragma once
#include "math/elementary.h"
#include "math/erfcx.h"
#include "math/gamma.h"

namespace gd {

template <class T>
struct Cdf {
    T F, S, log_F, log_S;
    T over_S, over_F;  // f/S (the hazard) and f/F
};

// The largest rate that is handed out: times a survival that underflowed to 0 it must give 0, not NaN.
template <class T>
GEODIFF_HD T rate_limit() {
    return T(1e30);
}

namespace detail {

// A symmetric law from its tail at |x|: q = S(|x|) ≤ ½, log q, and f/q.
template <class T>
GEODIFF_HD Cdf<T> from_tail(T x, T q, T log_q, T over_q) {
    const bool right = x > T(0);
    const T rest = T(1) - q;
    const T log_rest = log1p_near(-q);
    const T over_rest = over_q * q / rest;
    Cdf<T> c;
    c.F = right ? rest : q;
    c.S = right ? q : rest;
    c.log_F = right ? log_rest : log_q;
    c.log_S = right ? log_q : log_rest;
    c.over_S = right ? over_q : over_rest;
    c.over_F = right ? over_rest : over_q;
    return c;
}

// A one-sided law left of its support.
template <class T>
GEODIFF_HD Cdf<T> outside(Cdf<T> c, bool is_outside) {
    c.F = is_outside ? T(0) : c.F;
    c.S = is_outside ? T(1) : c.S;
    c.log_F = is_outside ? log_zero<T>() : c.log_F;
    c.log_S = is_outside ? T(0) : c.log_S;
    c.over_S = is_outside ? T(0) : c.over_S;
    c.over_F = is_outside ? T(0) : c.over_F;
    return c;
}

}  // namespace detail

// ΠF_k from L = Σ log F_k. The rates are ∂ log(ΠF)/∂L = 1 and −∂ log S/∂L, so times f/F of one factor they are its own.
template <class T>
GEODIFF_HD Cdf<T> product_cdf(T log_f) {
    Cdf<T> c;
    c.log_F = log_f;
    c.F = exp(log_f);
    c.S = -expm1(log_f);
    c.log_S = log_f > T(-0.6931) ? log(max(c.S, Real<T>::least)) : log1p_near(-c.F);
    c.over_F = T(1);
    c.over_S = min(c.F / max(c.S, Real<T>::least), rate_limit<T>());
    return c;
}

template <class T>
GEODIFF_HD Cdf<T> reversed(const Cdf<T>& c) {
    Cdf<T> r;
    r.F = c.S;
    r.S = c.F;
    r.log_F = c.log_S;
    r.log_S = c.log_F;
    r.over_S = c.over_F;
    r.over_F = c.over_S;
    return r;
}

// What of them a T-conorm reads, and with which rates.
enum Need { kLogS, kLogF, kValues, kLogSRate, kLogFRate, kValuesRates, kShapeRates };

struct Heaviside {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const bool in = x >= T(0);
        Cdf<T> c;
        c.F = in ? T(1) : T(0);
        c.S = in ? T(0) : T(1);
        c.log_F = in ? T(0) : log_zero<T>();
        c.log_S = in ? log_zero<T>() : T(0);
        c.over_S = T(0);
        c.over_F = T(0);
        return c;
    }
};

struct Uniform {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        const bool in = t < T(1);
        const T q = in ? T(0.5) * (T(1) - t) : T(0);
        return detail::from_tail(x, q, in ? log(q) : log_zero<T>(), in ? T(0.5) / max(q, Real<T>::least) : T(0));
    }
};

struct CubicHermite {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        const bool in = t < T(1);
        const T y = in ? T(0.5) * (T(1) - t) : T(0);
        const T q = y * y * (T(3) - T(2) * y);
        const T log_q = in ? T(2) * log(y) + log(T(3) - T(2) * y) : log_zero<T>();
        const T over = T(3) * (T(1) - y) / (max(y, Real<T>::least) * (T(3) - T(2) * y));
        return detail::from_tail(x, q, log_q, in ? over : T(0));
    }
};

struct WignerSemicircle {
    // q = (θ − sin θ cos θ)/π with cos θ = |x|; for small θ by the series of ½(w − sin w), w = 2θ.
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        const bool in = t < T(1);
        const T below = in ? T(1) - t : T(0);
        const T above = T(1) + min(t, T(1));
        const T sine = sqrt(below * above);
        const T theta = T(2) * atan_positive(sqrt(below / above));
        const T w2 = T(4) * theta * theta;
        T series = T(1.0 / 1.21645100408832e17);  // 1/19!
        series = T(1.0 / 355687428096000.0) - w2 * series;
        series = T(1.0 / 1307674368000.0) - w2 * series;
        series = T(1.0 / 6227020800.0) - w2 * series;
        series = T(1.0 / 39916800.0) - w2 * series;
        series = T(1.0 / 362880.0) - w2 * series;
        series = T(1.0 / 5040.0) - w2 * series;
        series = T(1.0 / 120.0) - w2 * series;
        series = T(1.0 / 6.0) - w2 * series;
        // ½(w − sin w) = w³/2 · series = 4θ³ · series
        const T cubic = T(4) * theta * theta * theta;
        const bool narrow = theta < T(0.6);
        const T area = narrow ? cubic * series : theta - sine * t;
        const T q = in ? area * T(0.3183098861837907) : T(0);
        // log q and f/q through logs of their factors, so that θ³ may underflow.
        const T log_narrow = T(3) * log(theta) + log(T(4) * series) - T(1.1447298858494002);
        const T log_q = narrow ? log_narrow : log(max(q, Real<T>::least));
        const T over_narrow = sine / max(T(2) * theta * theta * theta * series, Real<T>::least);
        const T over_wide = T(2) * sine / max(area, Real<T>::least);
        return detail::from_tail(x, q, in ? log_q : log_zero<T>(),
                                 in ? min(narrow ? over_narrow : over_wide, rate_limit<T>()) : T(0));
    }
};

struct Gaussian {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = min(abs(x), T(1e9)) * T(0.7071067811865476);
        const T scaled = erfcx(t);
        const T log_q = log(T(0.5) * scaled) - t * t;
        return detail::from_tail(x, T(0.5) * scaled * exp(-t * t), log_q, T(0.7978845608028654) / scaled);
    }
};

struct Laplace {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        return detail::from_tail(x, T(0.5) * exp(-t), -t - T(0.6931471805599453), T(1));
    }
};

struct Logistic {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        const T e = exp(-t);
        const T one = T(1) / (T(1) + e);
        const T tail = e * one;
        const T log_one = -log1p_near(e);
        const bool right = x > T(0);
        Cdf<T> c;
        c.F = right ? one : tail;
        c.S = right ? tail : one;
        c.log_F = right ? log_one : log_one - t;
        c.log_S = right ? log_one - t : log_one;
        c.over_S = c.F;
        c.over_F = c.S;
        return c;
    }
};

struct HyperbolicSecant {
    // q = (2/π)·atan e^(−π|x|/2)
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x) * T(1.5707963267948966);
        const T e = exp(-t);
        const T ratio = e > Real<T>::epsilon ? atan_positive(e) / max(e, Real<T>::epsilon) : T(1);  // atan(e)/e
        const T log_q = log(T(0.6366197723675814) * ratio) - t;
        const T over = T(1.5707963267948966) / ((T(1) + e * e) * ratio);
        return detail::from_tail(x, T(0.6366197723675814) * ratio * e, log_q, over);
    }
};

struct Cauchy {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        const bool far = t > T(1);
        const T angle = atan_positive(far ? T(1) / max(t, T(1)) : t);
        const T q = (far ? angle : T(1.5707963267948966) - angle) * T(0.3183098861837907);
        const T scale = T(1) / max(t, T(1));  // f = (1/π)/(1 + t²) without overflow
        const T density = T(0.3183098861837907) * scale * scale / (scale * scale + (far ? T(1) : t * t));
        return detail::from_tail(x, q, log(q), density / q);
    }
};

struct Reciprocal {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T u = T(1) + abs(x);
        return detail::from_tail(x, T(0.5) / u, -log(T(2) * u), T(1) / u);
    }
};

struct Algebraic {
    // q = ½(1 − t/√(1 + t²)) with t = |x|; as v/u, of which the larger is 1, no square of it overflows.
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x);
        const T u = T(1) / max(t, T(1)), v = min(t, T(1));
        const T w = sqrt(u * u + v * v), sum = w + v;
        const T log_q = T(2) * log(u) - log(T(2) * w * sum);
        return detail::from_tail(x, T(0.5) * u * u / (w * sum), log_q, u * sum / (w * w));
    }
};

struct Optimal {
    // The sigmoid of slope 1 whose relaxed minimum is monotone and least off: q = ½ − t up to t = ¼, then 1/(16 t).
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T t = abs(x), u = T(1) / max(t, T(0.25));
        const bool far = t > T(0.25);
        const T q = far ? T(0.0625) * u : T(0.5) - min(t, T(0.25));
        return detail::from_tail(x, q, log(q), far ? u : T(1) / q);
    }
};

struct GumbelMax {
    // F = exp(−e), e = e⁻ˣ
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        const T e = min(exp(-x), rate_limit<T>());
        Cdf<T> c;
        c.F = exp(-e);
        c.S = -expm1(-e);
        c.log_F = -e;
        const bool far = e < Real<T>::epsilon;  // S = e there
        c.log_S = far ? -x : (c.F < T(0.5) ? log1p_near(-min(c.F, T(0.5))) : log(max(c.S, Real<T>::least)));
        c.over_F = e;
        c.over_S = far ? T(1) : e * c.F / max(c.S, Real<T>::least);
        return c;
    }
};

struct GumbelMin {
    // Gumbel-max of the other sign
    template <class T>
    GEODIFF_HD static Cdf<T> at(T x) {
        return reversed(GumbelMax::at(-x));
    }
};

struct Exponential {
    template <class T>
    GEODIFF_HD static Cdf<T> at(T v) {
        const T u = max(v, Real<T>::least);
        Cdf<T> c;
        c.F = -expm1(-u);
        c.S = exp(-u);
        c.log_F = c.S < T(0.5) ? log1p_near(-min(c.S, T(0.5))) : log(c.F);
        c.log_S = -u;
        c.over_S = T(1);
        c.over_F = min(c.S / c.F, rate_limit<T>());
        return detail::outside(c, v <= T(0));
    }
};

namespace detail {

// 1 + z/(2n+1) · (1 + z/(2n+3) · …), unrolled: with a loop of 18, the compiler makes no lanes of the law in double.
template <int n, int last, class T>
GEODIFF_HD T erf_series(T z) {
    if constexpr (n > last) {
        return T(1);
    } else {
        return T(1) + erf_series<n + 1, last>(z) * z / T(2 * n + 1);
    }
}

}  // namespace detail

struct Levy {
    // F = erfc q, S = erf q with q = 1/√(2v).
    template <class T>
    GEODIFF_HD static Cdf<T> at(T v) {
        const T u = max(v, T(1e-30));
        const T half = T(0.5) / u;  // q²
        const T q = sqrt(half);
        const T scaled = erfcx(min(q, T(1e18)));
        const T e = exp(-half);
        // erf q = 2q/√π · e^(−q²) · Σ (2q²)ⁿ/(2n+1)!!, all terms positive; used where 1 − erfc would cancel.
        const T sum = detail::erf_series<1, sizeof(T) == 4 ? 9 : 18>(T(2) * half);
        const bool wide = half < T(0.36);
        Cdf<T> c;
        c.F = scaled * e;
        const T near_S = T(1.1283791670955126) * q * e * sum, far_S = T(1) - c.F;
        const T near_log_S = log(T(1.1283791670955126) * q) - half + log(sum), far_log_S = log1p_near(-min(c.F, T(0.5)));
        c.S = wide ? near_S : far_S;
        c.log_F = log(scaled) - half;
        c.log_S = wide ? near_log_S : far_log_S;
        const T f_over_e = T(0.3989422804014327) / (u * sqrt(u));  // f = this · e
        c.over_F = min(f_over_e / scaled, rate_limit<T>());
        c.over_S = f_over_e * e / c.S;
        return detail::outside(c, v <= T(0));
    }
};

template <class T, int N>
struct CdfBlock {
    T F[N], S[N], log_F[N], log_S[N], over_S[N], over_F[N];
    T by_shape[N];  // ∂F/∂k
};

// Gamma(k): evaluated N at a time, see math/gamma.h.
struct Gamma {
    template <bool WithShape, class T, int N>
    GEODIFF_HD static void at(const GammaTable<T>& table, const T* v, CdfBlock<T, N>& out) {
        T positive[N];
        for (int i = 0; i < N; ++i) positive[i] = clamp(v[i], T(1e-30), T(1e30));
        incomplete_gamma<N, WithShape>(table, positive, out.log_F, out.log_S, out.over_S, out.over_F, out.by_shape);
        for (int i = 0; i < N; ++i) {
            const bool is_outside = v[i] <= T(0);
            out.log_F[i] = is_outside ? log_zero<T>() : min(out.log_F[i], T(0));
            out.log_S[i] = is_outside ? T(0) : min(out.log_S[i], T(0));
            out.F[i] = exp(out.log_F[i]);
            out.S[i] = exp(out.log_S[i]);
            out.over_S[i] = is_outside ? T(0) : min(out.over_S[i], rate_limit<T>());
            out.over_F[i] = is_outside ? T(0) : min(out.over_F[i], rate_limit<T>());
            if constexpr (WithShape) out.by_shape[i] = is_outside ? T(0) : out.by_shape[i];
        }
    }
};

}  // namespace gd
