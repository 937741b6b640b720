// SPDX-License-Identifier: Apache-2.0
// Whether two triangles of a mesh meet elsewhere than in the corners and the side that they share. Exact.
#pragma once
#include <cmath>

#include "predicates.h"

namespace geodiff {

// Corners, and numbers that are the same for corners that count as one.
struct Corners {
    const double* at[3];
    long long id[3];

    // The coordinate to leave out, so that the triangle has the largest shadow.
    int axis() const {
        double u[3], v[3], n[3];
        for (int k = 0; k < 3; ++k) u[k] = at[1][k] - at[0][k], v[k] = at[2][k] - at[0][k];
        for (int k = 0; k < 3; ++k) n[k] = std::abs(u[(k + 1) % 3] * v[(k + 2) % 3] - u[(k + 2) % 3] * v[(k + 1) % 3]);
        return n[0] > n[1] ? (n[0] > n[2] ? 0 : 2) : (n[1] > n[2] ? 1 : 2);
    }
    bool has(long long corner) const { return id[0] == corner || id[1] == corner || id[2] == corner; }
    bool is_flat() const {  // without area
        if (id[0] == id[1] || id[1] == id[2] || id[2] == id[0]) return true;
        for (int k = 0; k < 3; ++k)
            if (turn(at[0], at[1], at[2], k, (k + 1) % 3) != 0) return false;
        return true;
    }
};

// Whether some side of p parts the shadows of both along an axis, all but the corners on it that they share: the cheap
// answer for nearly all neighbours on a smooth surface.
inline bool parts(const Corners& p, const Corners& q, int axis) {
    const int i = (axis + 1) % 3, j = (axis + 2) % 3;
    const int own = turn<false>(p.at[0], p.at[1], p.at[2], i, j);  // as seen from each side
    if (own == 0) return false;
    for (int k = 0; k < 3; ++k) {
        const int a = (k + 1) % 3, b = (k + 2) % 3;
        bool apart = true;
        for (int c = 0; c < 3 && apart; ++c) {
            if (q.id[c] == p.id[a] || q.id[c] == p.id[b]) continue;
            apart = turn<false>(p.at[a], p.at[b], q.at[c], i, j) == -own;
        }
        if (apart) return true;
    }
    return false;
}

inline bool in_shadow(const double* x, const Corners& t, int i, int j) {
    const int u = turn(t.at[0], t.at[1], x, i, j), v = turn(t.at[1], t.at[2], x, i, j), w = turn(t.at[2], t.at[0], x, i, j);
    return (u >= 0 && v >= 0 && w >= 0) || (u <= 0 && v <= 0 && w <= 0);
}

inline bool between(double a, double x, double b) { return (a <= x && x <= b) || (b <= x && x <= a); }

inline bool segments_meet(const double* p, const double* q, const double* a, const double* b, int i, int j) {
    const int c = turn(p, q, a, i, j), d = turn(p, q, b, i, j), e = turn(a, b, p, i, j), f = turn(a, b, q, i, j);
    if (c * d < 0 && e * f < 0) return true;
    const auto on = [=](int sign, const double* s, const double* x, const double* t) {
        return sign == 0 && between(s[i], x[i], t[i]) && between(s[j], x[j], t[j]);
    };
    return on(c, p, a, q) || on(d, p, b, q) || on(e, a, p, b) || on(f, a, q, b);
}

// Whether the segment pq and the triangle have a point in common, their ends included.
inline bool segment_meets(const double* p, const double* q, const Corners& t) {
    const int s = side(t.at[0], t.at[1], t.at[2], p), e = side(t.at[0], t.at[1], t.at[2], q);
    if (s * e > 0) return false;
    if (s == 0 && e == 0) {
        const int axis = t.axis(), i = (axis + 1) % 3, j = (axis + 2) % 3;
        if (in_shadow(p, t, i, j) || in_shadow(q, t, i, j)) return true;
        for (int k = 0; k < 3; ++k)
            if (segments_meet(p, q, t.at[k], t.at[(k + 1) % 3], i, j)) return true;
        return false;
    }
    const int u = side(p, q, t.at[0], t.at[1]), v = side(p, q, t.at[1], t.at[2]), w = side(p, q, t.at[2], t.at[0]);
    return (u >= 0 && v >= 0 && w >= 0) || (u <= 0 && v <= 0 && w <= 0);
}

// Neither may be flat.
inline bool triangles_meet(const Corners& p, const Corners& q) {
    const int axis = p.axis();
    if (parts(p, q, axis) || parts(q, p, axis)) return false;
    int shared = 0, mine = 0, theirs = 0;  // the corners that are shared, or with two of them those that are not
    for (int k = 0; k < 3; ++k) shared += q.has(p.id[k]);
    for (int k = 0; k < 3; ++k) {
        if (q.has(p.id[k]) == (shared == 1)) mine = k;
        if (p.has(q.id[k]) == (shared == 1)) theirs = k;
    }
    const auto opposite = [](const Corners& t, int k, const Corners& other) {
        return segment_meets(t.at[(k + 1) % 3], t.at[(k + 2) % 3], other);
    };
    if (shared == 3) return true;
    if (shared == 2) {  // they overlap if one is folded onto the other
        const double *a = p.at[(mine + 1) % 3], *b = p.at[(mine + 2) % 3];
        const int i = (axis + 1) % 3, j = (axis + 2) % 3;
        return side(a, b, p.at[mine], q.at[theirs]) == 0 &&
               turn(a, b, p.at[mine], i, j) == turn(a, b, q.at[theirs], i, j);
    }
    if (shared == 1) return opposite(p, mine, q) || opposite(q, theirs, p);
    int sides[3];
    for (int k = 0; k < 3; ++k) sides[k] = side(p.at[0], p.at[1], p.at[2], q.at[k]);
    if (sides[0] != 0 && sides[0] == sides[1] && sides[1] == sides[2]) return false;
    for (int k = 0; k < 3; ++k)
        if (opposite(p, k, q) || opposite(q, k, p)) return true;
    return false;
}

}  // namespace geodiff
