// SPDX-License-Identifier: Apache-2.0
// B-spline basis functions at a parameter: the span, the degree + 1 functions that are not zero there, their derivatives
// of any order, and the way back to the parameter and the knots.
//
// A span s is a pair of knots u_s < u_{s+1}. On it, functions s − P … s depend on the 2P knots u_{s−P+1} … u_{s+P}: the
// window. No denominator is zero, since each is a distance of knots on either side of the span.
//
// V is float or double, or on the CPU a pack of them: then neighbouring points go through the triangle together.
#pragma once
#include "../portability.h"

namespace gd {

constexpr int kMaxDegree = 15;

// Unrolled before arrays are given registers, or they would stay in memory.
#if defined(__clang__) || defined(__CUDACC__)
#define GEODIFF_UNROLL _Pragma("unroll")
#define GEODIFF_UNROLL_MORE _Pragma("unroll")
#elif defined(__GNUC__)
#define GEODIFF_UNROLL _Pragma("GCC unroll 8")
#define GEODIFF_UNROLL_MORE _Pragma("GCC unroll 16")
#else
#define GEODIFF_UNROLL
#define GEODIFF_UNROLL_MORE
#endif

// The number a V is made of, and a V with that number in each lane.
template <class V>
struct Lanes {
    using Real = V;
    static constexpr int count = 1;
    GEODIFF_HD static V of(V x) { return x; }
};

// The spans that points may fall into: from the first span of the domain that is not empty to the last.
struct SpanRange {
    int first, last;
};

// Index of the last of n ascending numbers that is ≤ x, by halving without branches, which would be guessed wrong; −1 where there is none. Whatever
// the numbers are, the result is in [−1, n − 1].
template <class T>
GEODIFF_HD int last_not_above(const T* x, int n, T bound) {
    if (n <= 0) return -1;
    const T* at = x;
    while (n > 1) {
        const int half = n / 2;
        at += half * int(at[half - 1] <= bound);
        n -= half;
    }
    return int(at - x) + (*at <= bound ? 0 : -1);
}

// Index of the last of n ascending numbers that is < x, likewise.
template <class T>
GEODIFF_HD int last_below(const T* x, int n, T bound) {
    if (n <= 0) return -1;
    const T* at = x;
    while (n > 1) {
        const int half = n / 2;
        at += half * int(at[half - 1] < bound);
        n -= half;
    }
    return int(at - x) + (*at < bound ? 0 : -1);
}

// Within [P, K − 1] for any knots, so that no window leaves the array.
template <class T>
GEODIFF_HD SpanRange span_range(const T* knots, int count, int degree) {
    const int last = max(degree, min(count - 1, last_below(knots, count + degree + 1, knots[count])));
    const int first = max(degree, min(last, last_not_above(knots, count + degree + 1, knots[degree])));
    return {first, last};
}

// The span of u, the last one for the end of the domain; outside of it the nearest.
template <class T>
GEODIFF_HD int find_span(const T* knots, SpanRange range, T u) {
    return range.first + 1 + last_not_above(knots + range.first + 1, range.last - range.first, u);
}

// What the way back needs of each step of the triangle: terms and reciprocal denominators.
template <class V, int Most>
struct Triangle {
    V term[Most * (Most + 1) / 2 + 1], inverse[Most * (Most + 1) / 2 + 1];
};

// From the q functions of degree q − 1 to the q + 1 of degree q (de Boor 1972, Cox 1972).
template <class V>
GEODIFF_HD void raise_degree(int q, int degree, const V* window, const V& u, V* values, V* term, V* inverse) {
    V carry = Lanes<V>::of(0);
    GEODIFF_UNROLL
    for (int b = 0; b < q; ++b) {
        const V low = window[degree - q + b], high = window[degree + b];
        inverse[b] = Lanes<V>::of(1) / (high - low);
        term[b] = values[b] * inverse[b];
        values[b] = carry + (high - u) * term[b];
        carry = (u - low) * term[b];
    }
    values[q] = carry;
}

// From derivatives of degree q − 1 to those of degree q, one order higher.
template <class V>
GEODIFF_HD void raise_order(int q, int degree, const V* window, V* values, V* term, V* inverse) {
    V carry = Lanes<V>::of(0);
    GEODIFF_UNROLL
    for (int b = 0; b < q; ++b) {
        inverse[b] = Lanes<V>::of(1) / (window[degree + b] - window[degree - q + b]);
        term[b] = Lanes<V>::of(typename Lanes<V>::Real(q)) * values[b] * inverse[b];
        values[b] = carry - term[b];
        carry = term[b];
    }
    values[q] = carry;
}

// The adjoints: `bar` goes from q + 1 numbers to q.
template <class V>
GEODIFF_HD void raise_degree_adjoint(int q, int degree, const V* window, const V& u, const V* term, const V* inverse, V* bar,
                                     V& bar_u, V* bar_window) {
    GEODIFF_UNROLL
    for (int b = 0; b < q; ++b) {
        V& bar_low = bar_window[degree - q + b];
        V& bar_high = bar_window[degree + b];
        const V high = term[b] * bar[b], low = term[b] * bar[b + 1];
        const V bar_value = ((window[degree + b] - u) * bar[b] + (u - window[degree - q + b]) * bar[b + 1]) * inverse[b];
        const V bar_width = bar_value * term[b];  // negative
        bar_u = bar_u + (low - high);
        bar_high = bar_high + (high - bar_width);
        bar_low = bar_low + (bar_width - low);
        bar[b] = bar_value;
    }
}

template <class V>
GEODIFF_HD void raise_order_adjoint(int q, int degree, const V* term, const V* inverse, V* bar, V* bar_window) {
    GEODIFF_UNROLL
    for (int b = 0; b < q; ++b) {
        V& bar_low = bar_window[degree - q + b];
        V& bar_high = bar_window[degree + b];
        const V bar_term = (bar[b + 1] - bar[b]) * inverse[b];
        const V bar_width = bar_term * term[b];  // negative
        bar_high = bar_high - bar_width;
        bar_low = bar_low + bar_width;
        bar[b] = Lanes<V>::of(typename Lanes<V>::Real(q)) * bar_term;
    }
}

template <int Q, int Degree, class V>
GEODIFF_HD void climb(const V* window, const V& u, int order, V* values, V* term, V* inverse) {
    if constexpr (Q <= Degree) {
        constexpr int at = Q * (Q - 1) / 2;
        if (Q + order <= Degree) {
            raise_degree(Q, Degree, window, u, values, term + at, inverse + at);
        } else {
            raise_order(Q, Degree, window, values, term + at, inverse + at);
        }
        climb<Q + 1, Degree>(window, u, order, values, term, inverse);
    }
}

template <int Q, int Degree, class V>
GEODIFF_HD void descend(const V* window, const V& u, int order, const V* term, const V* inverse, V* bar, V& bar_u,
                        V* bar_window) {
    if constexpr (Q > 0) {
        constexpr int at = Q * (Q - 1) / 2;
        if (Q + order <= Degree) {
            raise_degree_adjoint(Q, Degree, window, u, term + at, inverse + at, bar, bar_u, bar_window);
        } else {
            raise_order_adjoint(Q, Degree, term + at, inverse + at, bar, bar_window);
        }
        descend<Q - 1, Degree>(window, u, order, term, inverse, bar, bar_u, bar_window);
    }
}

// Degree as a template argument unrolls the triangle; −1 takes it from `degree`. The order is at most the degree.
// values[b] = d^order/du^order N_{s−P+b}(u), b = 0 … P.
template <int Degree, class V, int Most>
GEODIFF_HD void basis(const V* window, const V& u, int degree, int order, V* values, Triangle<V, Most>& kept) {
    values[0] = Lanes<V>::of(1);
    if constexpr (Degree >= 0) {
        climb<1, Degree>(window, u, order, values, kept.term, kept.inverse);
    } else {
        for (int q = 1; q <= degree; ++q) {
            const int at = q * (q - 1) / 2;
            if (q + order <= degree) {
                raise_degree(q, degree, window, u, values, kept.term + at, kept.inverse + at);
            } else {
                raise_order(q, degree, window, values, kept.term + at, kept.inverse + at);
            }
        }
    }
}

// The way back from dL/dvalues (overwritten) to dL/du and dL/dwindow; the span is held fixed.
template <int Degree, class V, int Most>
GEODIFF_HD void basis_adjoint(const V* window, const V& u, int degree, int order, const Triangle<V, Most>& kept, V* bar,
                              V& bar_u, V* bar_window) {
    const int p = Degree >= 0 ? Degree : degree;
    bar_u = Lanes<V>::of(0);
    GEODIFF_UNROLL
    for (int k = 0; k < 2 * p; ++k) bar_window[k] = Lanes<V>::of(0);
    if constexpr (Degree >= 0) {
        descend<Degree, Degree>(window, u, order, kept.term, kept.inverse, bar, bar_u, bar_window);
    } else {
        for (int q = degree; q > 0; --q) {
            const int at = q * (q - 1) / 2;
            if (q + order <= degree) {
                raise_degree_adjoint(q, degree, window, u, kept.term + at, kept.inverse + at, bar, bar_u, bar_window);
            } else {
                raise_order_adjoint(q, degree, kept.term + at, kept.inverse + at, bar, bar_window);
            }
        }
    }
}

// The first `steps` steps of the triangle for any degree, of which nothing but the values is kept; knots[k] is the
// window's knot k, in memory or made up.
template <class T, class Knots>
GEODIFF_HD void climb_some(const Knots& knots, T u, int degree, int order, int steps, T* values) {
    values[0] = T(1);
    for (int q = 1; q <= steps; ++q) {
        T carry = T(0);
        for (int b = 0; b < q; ++b) {
            const T low = knots[degree - q + b], high = knots[degree + b], inverse = T(1) / (high - low);
            if (q + order <= degree) {
                const T term = values[b] * inverse;
                values[b] = carry + (high - u) * term;
                carry = (u - low) * term;
            } else {
                const T term = T(q) * values[b] * inverse;
                values[b] = carry - term;
                carry = term;
            }
        }
        values[q] = carry;
    }
}

// basis_adjoint for any degree without a triangle: each step climbs again up to where it was. Overwrites `values`.
// What the window's knots get is added to bar_window, unless that is null.
template <class T, class Knots>
GEODIFF_HD void descend_all(const Knots& knots, T u, int degree, int order, T* values, T* bar, T& bar_u, T* bar_window) {
    bar_u = T(0);
    for (int q = degree; q > 0; --q) {
        climb_some(knots, u, degree, order, q - 1, values);
        for (int b = 0; b < q; ++b) {
            const T low = knots[degree - q + b], high = knots[degree + b], inverse = T(1) / (high - low);
            T bar_low, bar_high;
            if (q + order <= degree) {
                const T term = values[b] * inverse, right = term * bar[b], left = term * bar[b + 1];
                bar[b] = ((high - u) * bar[b] + (u - low) * bar[b + 1]) * inverse;
                const T bar_width = bar[b] * term;  // negative
                bar_u += left - right;
                bar_high = right - bar_width;
                bar_low = bar_width - left;
            } else {
                const T term = T(q) * values[b] * inverse, bar_term = (bar[b + 1] - bar[b]) * inverse;
                bar[b] = T(q) * bar_term;
                bar_low = bar_term * term;
                bar_high = -bar_low;
            }
            if (!bar_window) continue;
            bar_window[degree + b] += bar_high;
            bar_window[degree - q + b] += bar_low;
        }
    }
}

// The window of span s of knots that go on past the ends of their array.
template <class T>
struct MadeUpWindow {
    const T* knots;
    int first, most;
    T range;
    GEODIFF_HD T operator[](int k) const {
        const int j = first + k;
        return j < 0 ? knots[0] + T(j) * range : j > most ? knots[most] + T(j - most) * range : knots[j];
    }
};

// The polynomial pieces of span s at u, which need not lie in it. Knots past the ends of the array are made up; they
// touch only functions that do not exist, which come out as 0.
template <class T>
GEODIFF_HD void piece(const T* knots, int count, int degree, int order, int s, T u, T* values) {
    const int most = count + degree;
    climb_some(MadeUpWindow<T>{knots, s - degree + 1, most, knots[most] - knots[0]}, u, degree, order, degree, values);
    for (int b = 0; b <= degree; ++b) {
        const int i = s - degree + b;
        if (i < 0 || i >= count) values[b] = T(0);
    }
}

}  // namespace gd
