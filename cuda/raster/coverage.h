// SPDX-License-Identifier: Apache-2.0
// What of a face covers a pixel, for the GPU's silhouette: a face prepared once for all pixels, its law, and two coverages,
//   reach(p, edges, radius)     a box around the pixels that the face reaches
//   touches(face, radius, box)  whether it may reach a pixel of a box
//   at(face, x, y, radius)      where a pixel is, and whether the face `counts` there
//   cdf<L>(pair, s)             F and what goes with it there
//   add(face, pair, w, g)       g += w·∂x/∂corner, four x and then four y
//   by_scale, by_shift, by_shape(…)   of a pair, what the parameters' gradients add up
#pragma once
#include "../kernel.h"
#include "../power_levels.h"
#include "reach.h"

#if GEODIFF_KERNELS

namespace gd {

template <class A, class B>
struct Same {
    static constexpr bool value = false;
};
template <class A>
struct Same<A, A> {
    static constexpr bool value = true;
};

// Numbers of a call, from the device's memory: made once, by silhouette_prepare.
template <class T>
struct SoftNumbers {
    T inverse_scale, radius, shift, q;  // q = |p|, for levels
    TConormParams<T> tconorm;
    TConormParams<double> exact;
    double scale, p;
    GammaTable<T> gamma;
};

// A distribution at x, reversed or not. ByShape: rates are those of F in the shape.
template <class D, bool Reversed>
struct Law {
    template <bool ByShape, class T>
    GEODIFF_HD static Cdf<T> at(T x, const SoftNumbers<T>& s) {
        static_assert(!ByShape, "it has no shape");
        return Reversed ? reversed(D::at(s.shift - x)) : D::at(x + s.shift);
    }
};

template <bool Reversed>
struct Law<Gamma, Reversed> {
    template <bool ByShape, class T>
    GEODIFF_HD static Cdf<T> at(T x, const SoftNumbers<T>& s) {
        const T v[1] = {Reversed ? s.shift - x : x + s.shift};
        CdfBlock<T, 1> b;
        Gamma::at<ByShape>(s.gamma, v, b);
        Cdf<T> c = {b.F[0], b.S[0], b.log_F[0], b.log_S[0], b.over_S[0], b.over_F[0]};
        if (Reversed) c = reversed(c);
        if constexpr (ByShape) {
            const T by_shape = Reversed ? -b.by_shape[0] : b.by_shape[0];
            c.over_S = by_shape / max(c.S, Real<T>::least);
            c.over_F = by_shape / max(c.F, Real<T>::least);
        }
        return c;
    }
};

template <class T>
struct Side {
    T ax, ay, ex, ey, inverse, sign;  // as of Edge
};

// A face as pixels see it: its edges, and what it reaches.
template <class T>
struct SoftFace {
    Side<T> side[4];
    Box<T> box;
    T orientation;
    int n;  // 0: contributes nothing
};

// per_length is 1/length, or 1: then normals are not of unit length.
template <class T>
GEODIFF_HD Edge<T> edge_of(const SoftFace<T>& f, int k, T per_length) {
    const Side<T>& s = f.side[k];
    const bool swap = s.sign != f.orientation;
    Edge<T> e = {s.ax, s.ay, s.ex, s.ey, s.inverse};
    e.sign = s.sign;
    e.per_length = per_length;
    const T scale = e.per_length * s.sign;
    e.nx = s.ey * scale;
    e.ny = -s.ex * scale;
    e.start = swap ? T(1) : T(0);
    e.turn = swap ? T(-1) : T(1);
    return e;
}

template <class T>
GEODIFF_HD Edge<T> edge_of(const SoftFace<T>& f, int k) {
    return edge_of(f, k, sqrt(f.side[k].inverse));
}

// F of the signed distance to the face.
struct FaceCoverage {
    // Blocks of silhouette_backward on a multiprocessor, at least, and where all numbers' gradients are wanted; 0: as the
    // compiler likes.
    static constexpr int kBlocks = 0, kFewerBlocks = 0;
    template <class T>
    struct Pair {
        Nearest<T> near;
        T x;
        bool counts;
    };
    template <class T>
    GEODIFF_HD static Box<T> reach(const Polygon<T>& p, const Edge<T>*, T radius) {
        const Box<T> box = polygon_box(p);
        return {box.left - radius, box.right + radius, box.bottom - radius, box.top + radius};
    }
    template <class T>
    GEODIFF_HD static bool touches(const SoftFace<T>& f, T, const Box<T>& tile) {
        return f.box.left <= tile.right && f.box.right >= tile.left && f.box.bottom <= tile.top && f.box.top >= tile.bottom;
    }
    template <bool Squared, class T>
    GEODIFF_HD static Pair<T> at(const SoftFace<T>& f, T x, T y, const SoftNumbers<T>& s) {
        Pair<T> out;
        out.near = no_edge<T>();
        T inverse = T(0);
#pragma unroll
        for (int k = 0; k < 4; ++k)
            if (k < f.n) meet(out.near, edge_of(f, k, T(1)), T(k), x, y);
#pragma unroll
        for (int k = 0; k < 4; ++k) inverse = out.near.edge == T(k) ? f.side[k].inverse : inverse;
        const T per_length = sqrt(inverse);  // of the nearest edge alone
        out.near.nx *= per_length;
        out.near.ny *= per_length;
        const bool inside = out.near.side >= T(0);
        out.counts = inside || out.near.d2 <= s.radius * s.radius;
        const T size = Squared ? out.near.d2 : sqrt(out.near.d2);
        out.x = (inside ? size : -size) * s.inverse_scale;
        return out;
    }
    template <class L, bool ByShape, class T>
    GEODIFF_HD static Cdf<T> cdf(const SoftFace<T>&, Pair<T>& pair, const SoftNumbers<T>& s) {
        return L::template at<ByShape>(pair.x, s);
    }
    template <bool Squared, class T>
    GEODIFF_HD static void add(const SoftFace<T>& f, const Pair<T>& pair, T weight, T* g) {
        T dx, dy;
        direction<Squared>(pair.near, dx, dy);
        const int k = int(pair.near.edge), l = k + 1 == f.n ? 0 : k + 1;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const T b = j == k ? T(1) - pair.near.along : (j == l ? pair.near.along : T(0));
            g[j] += b * (weight * dx);
            g[4 + j] += b * (weight * dy);
        }
    }
    template <class T>
    GEODIFF_HD static void by_scale_and_shift(const SoftFace<T>&, const Pair<T>& pair, T weight, double& scale, double& shift) {
        scale -= double(weight) * double(pair.x);
        shift += double(weight);
    }
    // `weight` is without ∂⊥/∂x, which `pair_of` makes of the rates in the shape.
    template <class L, class P, class T>
    GEODIFF_HD static double by_shape(const SoftFace<T>& f, Pair<T>& pair, T weight, T, const SoftNumbers<T>& s, P pair_of) {
        const Cdf<T> c = cdf<L, true>(f, pair, s);
        return double(weight) * double(pair_of(c));
    }
};

// ΠF over the lines of the face's edges: Σ log F takes the place of log F, and rates are in it.
struct EdgeCoverage {
    static constexpr int kBlocks = 5, kFewerBlocks = 4;  // with 6 it spills
    template <class T>
    struct Pair {
        T x[4], along[4], by_d[4], rate[4];  // rate: f/F of each edge
        bool counts;                         // every d_k is at least −radius
    };
    template <class T>
    GEODIFF_HD static Box<T> reach(const Polygon<T>& p, const Edge<T>* e, T radius) {
        return mitre_box(p, e, radius);
    }
    template <class T>
    GEODIFF_HD static bool touches(const SoftFace<T>& f, T radius, const Box<T>& tile) {
        if (!FaceCoverage::touches(f, radius, tile)) return false;
        for (int k = 0; k < f.n; ++k) {
            const Edge<T> e = edge_of(f, k);
            if (!(e.inverse > T(0))) continue;
            const T x = e.nx > T(0) ? tile.left : tile.right, y = e.ny > T(0) ? tile.bottom : tile.top;
            if ((x - e.ax) * e.nx + (y - e.ay) * e.ny > radius * T(1.0001) + T(1e-4)) return false;
        }
        return true;
    }
    template <bool Squared, class T>
    GEODIFF_HD static Pair<T> at(const SoftFace<T>& f, T x, T y, const SoftNumbers<T>& s) {
        Pair<T> out;
        out.counts = true;
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            out.x[k] = out.along[k] = out.by_d[k] = out.rate[k] = T(0);
            if (k >= f.n || !(f.side[k].inverse > T(0))) continue;
            T d;
            line_distance(edge_of(f, k), x, y, d, out.along[k]);
            out.x[k] = (Squared ? d * abs(d) : d) * s.inverse_scale;
            out.by_d[k] = Squared ? T(2) * abs(d) : T(1);
            out.counts = out.counts && d >= -s.radius;
        }
        return out;
    }
    template <class L, bool ByShape, class T>
    GEODIFF_HD static Cdf<T> cdf(const SoftFace<T>& f, Pair<T>& pair, const SoftNumbers<T>& s) {
        T sum = T(0);
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k >= f.n || !(f.side[k].inverse > T(0))) continue;
            const Cdf<T> c = L::template at<ByShape>(pair.x[k], s);
            sum += c.log_F;
            pair.rate[k] = c.over_F;
        }
        return product_cdf(sum);
    }
    template <bool Squared, class T>
    GEODIFF_HD static void add(const SoftFace<T>& f, const Pair<T>& pair, T weight, T* g) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
            if (k >= f.n || !(f.side[k].inverse > T(0))) continue;
            const Edge<T> e = edge_of(f, k);
            const T w = weight * (pair.rate[k] * pair.by_d[k]), first = w * (T(1) - pair.along[k]), second = w * pair.along[k];
            const int l = k + 1 == f.n ? 0 : k + 1;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const T b = j == k ? first : (j == l ? second : T(0));
                g[j] += b * e.nx;
                g[4 + j] += b * e.ny;
            }
        }
    }
    template <class T>
    GEODIFF_HD static void by_scale_and_shift(const SoftFace<T>& f, const Pair<T>& pair, T weight, double& scale, double& shift) {
        for (int k = 0; k < f.n; ++k) {
            const double share = double(weight) * double(pair.rate[k]);
            scale -= share * double(pair.x[k]);
            shift += share;
        }
    }
    template <class L, class P, class T>
    GEODIFF_HD static double by_shape(const SoftFace<T>& f, Pair<T>& pair, T, T with_pair, const SoftNumbers<T>& s, P) {
        Pair<T> again = pair;
        cdf<L, true>(f, again, s);
        double sum = 0;
        for (int k = 0; k < f.n; ++k) sum += double(with_pair) * double(again.rate[k]);
        return sum;
    }
};

}  // namespace gd

#endif
