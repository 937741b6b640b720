// SPDX-License-Identifier: Apache-2.0
// Signed distance of a pixel to a convex polygon, positive inside, with the way back.
//
// ∂d/∂(corner j) = b_j·g: g is the direction in which the closest boundary point moves the distance, b the weights of the
// corners in that point (envelope theorem). Inside an edge's strip g is the edge's outward normal, also on the edge
// itself; beyond a corner (outside only) it points from the corner to the pixel; exactly on a corner, where d has a
// cone's tip, it is the normal of one of the two edges, which lies between the one-sided derivatives.
#pragma once
#include "polygon.h"

namespace gd {

// One edge, prepared: relative to one of its corners, never through an inverse matrix. Its corners are put in one order
// (comes_first), so that two faces see a pixel beside their common edge from the same numbers: none falls between them.
template <class T>
struct Edge {
    T ax, ay;       // first corner
    T ex, ey;       // to the other one
    T inverse;      // 1/length², 0 for an edge without length
    T nx, ny;       // outward unit normal
    T sign;         // ±1, positive if the inside is to the left
    T per_length;   // 1/length
    T start, turn;  // t of the way from a is start + turn·t of the way from the polygon's corner k
};

template <class T>
GEODIFF_HD Edge<T> make_edge(const Polygon<T>& p, int k) {
    const int l = k + 1 == p.n ? 0 : k + 1;
    const bool swap = comes_first(p.x, p.y, l, k);
    const int from = swap ? l : k, to = swap ? k : l;
    Edge<T> e;
    e.ax = p.x[from];
    e.ay = p.y[from];
    e.ex = p.x[to] - p.x[from];
    e.ey = p.y[to] - p.y[from];
    e.sign = swap ? -p.orientation : p.orientation;
    e.start = swap ? T(1) : T(0);
    e.turn = swap ? T(-1) : T(1);
    T length2 = e.ex * e.ex + e.ey * e.ey;
    const bool none = only_rounding(p.x, p.y, p.n, k, l);
    e.ex = none ? T(0) : e.ex;
    e.ey = none ? T(0) : e.ey;
    length2 = none ? T(0) : length2;
    e.inverse = length2 > Real<T>::least ? T(1) / length2 : T(0);
    e.per_length = sqrt(e.inverse);
    const T scale = e.per_length * e.sign;
    e.nx = e.ey * scale;
    e.ny = -e.ex * scale;
    return e;
}

// Positive on the inner side of the edge's line, 0 on it, for a point at (rx, ry) from the first corner. Of rounded products,
// see hard.h: a factor of ±1 is exact, so it does not matter whether a compiler fuses it with the difference.
template <class T>
GEODIFF_HD T inner_side(const Edge<T>& e, T rx, T ry) {
    return (e.ex * ry) * e.sign - (e.ey * rx) * e.sign;
}

// Signed distance to the edge's line, positive inside, and where on the line the foot is. ∂d/∂(corner) is the outward
// normal times 1 − along and along: a line follows its corners linearly, also beyond them.
template <class T>
GEODIFF_HD void line_distance(const Edge<T>& e, T px, T py, T& d, T& along) {
    const T rx = px - e.ax, ry = py - e.ay;
    d = inner_side(e, rx, ry) * e.per_length;
    along = e.start + e.turn * ((rx * e.ex + ry * e.ey) * e.inverse);
}

template <class T>
struct Nearest {
    T d2;          // squared distance to the boundary
    T along;       // where on that edge, 0…1
    T dx, dy;      // from the boundary point to the pixel
    T nx, ny;      // outward normal of that edge
    T edge;        // its number, as T so that selects vectorise
    T side;        // least cross product, ≥ 0 inside
};

template <class T>
GEODIFF_HD Nearest<T> no_edge() {
    return {Real<T>::largest, T(0), T(0), T(0), T(0), T(0), T(0), Real<T>::largest};
}

template <class T>
GEODIFF_HD void meet(Nearest<T>& best, const Edge<T>& e, T number, T px, T py) {
    const T rx = px - e.ax, ry = py - e.ay;
    const T t = clamp((rx * e.ex + ry * e.ey) * e.inverse, T(0), T(1));
    const T dx = rx - t * e.ex, dy = ry - t * e.ey;
    const T d2 = dx * dx + dy * dy;
    const T cross = inner_side(e, rx, ry);
    const bool closer = d2 < best.d2;
    best.d2 = closer ? d2 : best.d2;
    best.along = closer ? e.start + e.turn * t : best.along;
    best.dx = closer ? dx : best.dx;
    best.dy = closer ? dy : best.dy;
    best.nx = closer ? e.nx : best.nx;
    best.ny = closer ? e.ny : best.ny;
    best.edge = closer ? number : best.edge;
    best.side = min(best.side, cross);
}

// g for the plain form (of d) and for the squared one (of sgn(d)·d²).
template <bool Squared, class T>
GEODIFF_HD void direction(const Nearest<T>& near, T& gx, T& gy) {
    const bool inside = near.side >= T(0);
    if constexpr (Squared) {
        const T sign = inside ? T(-2) : T(2);
        gx = sign * near.dx;
        gy = sign * near.dy;
    } else {
        const bool strip = (near.along > T(0) && near.along < T(1)) || inside || near.d2 < Real<T>::least;
        const T inverse = per_root(max(near.d2, Real<T>::least));
        gx = strip ? near.nx : near.dx * inverse;
        gy = strip ? near.ny : near.dy * inverse;
    }
}

}  // namespace gd
