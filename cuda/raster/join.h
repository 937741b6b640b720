// SPDX-License-Identifier: Apache-2.0
// How the faces of a pixel are joined, for the GPU's silhouette: one interface for the additive T-conorms, those by levels,
// the maximum and the average.
//   start(state), add(state, c, face, s), merge(state, later, s)   what a pixel keeps; faces in ascending order
//   value(state, faces, s)                                       alpha
//   pixel(a, i, s, m, e)                                         two numbers of a pixel, and
//   pair(c, e, top, faces, s)                                    of a pair, with ∂alpha/∂x = m·pair
//   slope, by_p, by_p_at                                         ∂alpha/∂p = slope·(Σ by_p − by_p_at)
#pragma once
#include "coverage.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct PixelState {
    T total, power;  // power: of levels alone
    int winner;      // of the maximum alone
};

enum class Kept { sum, winner, levels };

template <class C>
struct Join {
    static constexpr Kept kept = Kept::sum;
    template <class T>
    GEODIFF_HD static void start(PixelState<T>& p) {
        p = {T(0), T(0), -1};
    }
    template <class T>
    GEODIFF_HD static void add(PixelState<T>& p, const Cdf<T>& c, int, const SoftNumbers<T>& s) {
        p.total += C::term(c, s.tconorm);
    }
    template <class T>
    GEODIFF_HD static void merge(PixelState<T>& p, const PixelState<T>& later, const SoftNumbers<T>&) {
        p.total += later.total;
    }
    template <class T>
    GEODIFF_HD static T value(const PixelState<T>& p, i64, const SoftNumbers<T>& s) {
        return C::value(p.total, s.tconorm);
    }
    template <class T>
    GEODIFF_HD static void pixel(T total, T, i64, const SoftNumbers<T>& s, T& m, T& e) {
        C::pixel(total, s.tconorm, m, e);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T, T e, const SoftNumbers<T>& s) {
        return C::pair(c, e, s.tconorm);
    }
    static constexpr bool has_p = true;
    template <class T>
    GEODIFF_HD static void slope(T total, T, const SoftNumbers<T>& s, double& slope, double& at, T& rest) {
        slope = C::slope(double(total), s.exact);
        at = C::by_p(double(total), s.exact);
        rest = T(0);
    }
    template <class T>
    GEODIFF_HD static double by_p(const Cdf<T>& c, T, T, const SoftNumbers<T>& s) {
        return C::by_p(double(C::term(c, s.tconorm)), s.exact);
    }
};

// The term is F and the rate f, taken from the smaller of F and S so that neither loses digits.
struct PlainJoin {
    template <class T>
    GEODIFF_HD static void start(PixelState<T>& p) {
        p = {T(0), T(0), -1};
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T, T, const SoftNumbers<T>&) {
        return c.F < c.S ? c.F * c.over_F : c.S * c.over_S;
    }
    static constexpr bool has_p = false;
};

template <>
struct Join<Maximum> : PlainJoin {
    static constexpr Kept kept = Kept::winner;
    template <class T>
    GEODIFF_HD static void add(PixelState<T>& p, const Cdf<T>& c, int face, const SoftNumbers<T>&) {
        if (c.F > p.total) p = {c.F, T(0), face};
    }
    template <class T>
    GEODIFF_HD static void merge(PixelState<T>& p, const PixelState<T>& later, const SoftNumbers<T>&) {
        if (later.total > p.total) p = later;
    }
    template <class T>
    GEODIFF_HD static T value(const PixelState<T>& p, i64, const SoftNumbers<T>&) {
        return p.total;
    }
    template <class T>
    GEODIFF_HD static void pixel(T, T, i64, const SoftNumbers<T>&, T& m, T& e) {
        m = T(1);
        e = T(0);
    }
};

template <>
struct Join<Average> : PlainJoin {
    static constexpr Kept kept = Kept::sum;
    template <class T>
    GEODIFF_HD static void add(PixelState<T>& p, const Cdf<T>& c, int, const SoftNumbers<T>&) {
        p.total += c.F;
    }
    template <class T>
    GEODIFF_HD static void merge(PixelState<T>& p, const PixelState<T>& later, const SoftNumbers<T>&) {
        p.total += later.total;
    }
    template <class T>
    GEODIFF_HD static T value(const PixelState<T>& p, i64 faces, const SoftNumbers<T>&) {
        return faces > 0 ? p.total * (T(1) / T(faces)) : T(0);
    }
    template <class T>
    GEODIFF_HD static void pixel(T, T, i64 faces, const SoftNumbers<T>&, T& m, T& e) {
        m = T(1) / T(max(faces, i64(1)));
        e = T(0);
    }
};

// Of power_levels.h: `total` is the highest level, `power` the sum relative to it.
template <class C>
struct LevelJoin {
    static constexpr Kept kept = Kept::levels;
    template <class T>
    GEODIFF_HD static void start(PixelState<T>& p) {
        p = {C::template none<T>(), T(0), -1};
    }
    template <class T>
    GEODIFF_HD static void add(PixelState<T>& p, const Cdf<T>& c, int, const SoftNumbers<T>& s) {
        C::add(C::level(c), s.q, p.total, p.power);
    }
    template <class T>
    GEODIFF_HD static void merge(PixelState<T>& p, const PixelState<T>& later, const SoftNumbers<T>& s) {
        if (!(later.power > T(0))) return;
        const T ratio = exp(-s.q * abs(later.total - p.total));
        const bool higher = later.total > p.total;
        p.power = higher ? p.power * ratio + later.power : p.power + later.power * ratio;
        p.total = higher ? later.total : p.total;
    }
    template <class T>
    GEODIFF_HD static T value(const PixelState<T>& p, i64, const SoftNumbers<T>& s) {
        return C::value(p.total, p.power, s.q);
    }
    template <class T>
    GEODIFF_HD static void pixel(T total, T power, i64, const SoftNumbers<T>& s, T& m, T& e) {
        C::pixel(total, power, s.q, m, e);
    }
    template <class T>
    GEODIFF_HD static T pair(const Cdf<T>& c, T top, T e, const SoftNumbers<T>& s) {
        return C::pair(c, top, e, s.q);
    }
    static constexpr bool has_p = true;
    template <class T>
    GEODIFF_HD static void slope(T total, T power, const SoftNumbers<T>& s, double& slope, double& at, T& rest) {
        const double top = double(total), sum = double(power), q = double(s.q), left = C::rest(top, sum, q);
        slope = (s.p < 0 ? -1 : 1) * C::slope(top, sum, q);
        at = C::by_p_at(top, left, q);
        rest = T(left);
    }
    template <class T>
    GEODIFF_HD static double by_p(const Cdf<T>& c, T top, T rest, const SoftNumbers<T>& s) {
        return C::by_p(double(C::level(c)), double(top), double(rest), double(s.q));
    }
};
template <class G>
struct Join<NormLevels<G>> : LevelJoin<NormLevels<G>> {};
template <>
struct Join<SchweizerSklarLevels> : LevelJoin<SchweizerSklarLevels> {};

}  // namespace gd

#endif
