// SPDX-License-Identifier: Apache-2.0
// A face as the image sees it: clipped against the near plane, divided by w, and kept as ONE convex polygon of 3 or 4
// corners (two triangles would put a seam on the diagonal). And the way back for gradients.
#pragma once
#include "../math/elementary.h"

namespace gd {

// A point before the perspective division: x/w and y/w are NDC, depth grows away from the camera.
template <class T>
struct Clip {
    T x, y, depth, w;
};

// Corner k lies on the face's edge from[k] → to[k]: rest[k] times the one end and along[k] times the other (1 and 0 for an
// unclipped corner). Both are kept, since one less the other has no digits where a corner is far beyond the near plane.
template <class T>
struct Polygon {
    T x[4], y[4];
    T along[4], rest[4];
    T w[4], depth[4];
    signed char from[4], to[4];
    int n;           // 0: contributes nothing
    T orientation;   // +1 or −1, so that cross products are positive inside
};

// w at the cut of a → b with the near plane. With w = depth it is the plane's own depth, which a difference of far depths
// would lose.
template <class T>
GEODIFF_HD T cut_w(const Clip<T>& a, const Clip<T>& b, T along, T near) {
    return a.w == a.depth && b.w == b.depth ? near : a.w + along * (b.w - a.w);
}

// Whether the edge from corner k to l of n has no direction, only rounding: a corner that lies on the near plane is followed
// by a cut at the same place. Beside its own two ends: another cut may be a million times as far away.
template <class T>
GEODIFF_HD bool only_rounding(const T* x, const T* y, int n, int k, int l) {
    const T length = max(abs(x[l] - x[k]), abs(y[l] - y[k]));
    const T far = max(max(abs(x[k]), abs(y[k])), max(abs(x[l]), abs(y[l])));
    return length <= (n == 4 ? T(64) * Real<T>::epsilon * far : T(0));
}

// Whether corner l of an edge comes before corner k: two faces that share it agree, and the one that other points are
// measured from is the nearer to the middle of the image, so that far cuts cost no digits.
template <class T>
GEODIFF_HD bool comes_first(const T* x, const T* y, int l, int k) {
    const T at_l = max(abs(x[l]), abs(y[l])), at_k = max(abs(x[k]), abs(y[k]));
    if (at_l != at_k) return at_l < at_k;
    return x[l] < x[k] || (x[l] == x[k] && y[l] < y[k]);
}

// Sutherland–Hodgman against depth > near. Degenerate: twice the area is at most 8 roundings of the longest edge², or of
// the products that it is made of, which are fewer where a polygon is far wider than high.
template <class T>
GEODIFF_HD void make_polygon(const Clip<T> corner[3], T near, Polygon<T>& p) {
    p.n = 0;
    p.orientation = T(1);
    for (int i = 0; i < 3; ++i) {
        const int j = i == 2 ? 0 : i + 1;
        const bool here = corner[i].depth > near;
        const bool there = corner[j].depth > near;
        if (here) {
            const T inverse = T(1) / corner[i].w;
            p.x[p.n] = corner[i].x * inverse;
            p.y[p.n] = corner[i].y * inverse;
            p.w[p.n] = corner[i].w;
            p.depth[p.n] = corner[i].depth;
            p.along[p.n] = T(0);
            p.rest[p.n] = T(1);
            p.from[p.n] = static_cast<signed char>(i);
            p.to[p.n] = static_cast<signed char>(i);
            ++p.n;
        }
        if (here != there) {
            // Cut from the visible end, so that neighbours cut their common edge at the same point.
            const int a = here ? i : j, b = here ? j : i;
            const T span = corner[b].depth - corner[a].depth;
            const T along = (near - corner[a].depth) / span, rest = (corner[b].depth - near) / span;
            p.w[p.n] = cut_w(corner[a], corner[b], along, near);
            p.depth[p.n] = near;
            const T inverse = T(1) / p.w[p.n];
            p.x[p.n] = (rest * corner[a].x + along * corner[b].x) * inverse;
            p.y[p.n] = (rest * corner[a].y + along * corner[b].y) * inverse;
            p.along[p.n] = along;
            p.rest[p.n] = rest;
            p.from[p.n] = static_cast<signed char>(a);
            p.to[p.n] = static_cast<signed char>(b);
            ++p.n;
        }
    }
    T area = T(0), longest = T(0), terms = T(0);
    for (int k = 0; k < p.n; ++k) {
        const int l = k + 1 == p.n ? 0 : k + 1;
        const T ax = p.x[k] - p.x[0], ay = p.y[k] - p.y[0];
        const T ex = p.x[l] - p.x[k], ey = p.y[l] - p.y[k];
        area += ax * ey - ay * ex;
        longest = max(longest, ex * ex + ey * ey);
        terms += abs(p.x[k] * ey) + abs(p.y[k] * ex);
    }
    p.orientation = area < T(0) ? T(-1) : T(1);
    if (!(abs(area) > T(8) * Real<T>::epsilon * min(longest, terms))) p.n = 0;
}

template <class T>
GEODIFF_HD Polygon<T> make_polygon(const Clip<T> corner[3], T near) {
    Polygon<T> p;
    make_polygon(corner, near, p);
    return p;
}

// Adds to grad[3] (one Clip a corner of the face) what the gradient (gx, gy) of the polygon's corners means for it.
template <class T>
GEODIFF_HD void polygon_backward(const Clip<T> corner[3], const Polygon<T>& p, const T* gx, const T* gy,
                                 Clip<T> grad[3]) {
    for (int k = 0; k < p.n; ++k) {
        const Clip<T>& a = corner[p.from[k]];
        const Clip<T>& b = corner[p.to[k]];
        const bool clipped = p.from[k] != p.to[k];
        const T along = p.along[k], rest = p.rest[k], w = p.w[k];
        const T cx = gx[k] / w, cy = gy[k] / w;
        const T cw = -(gx[k] * p.x[k] + gy[k] * p.y[k]) / w;
        Clip<T>& ga = grad[p.from[k]];
        if (!clipped) {
            ga.x += cx;
            ga.y += cy;
            ga.w += cw;
            continue;
        }
        Clip<T>& gb = grad[p.to[k]];
        ga.x += rest * cx;
        ga.y += rest * cy;
        ga.w += rest * cw;
        gb.x += along * cx;
        gb.y += along * cy;
        gb.w += along * cw;
        // The cut moves along the edge when the corners' depths do.
        const T by_along = cx * (b.x - a.x) + cy * (b.y - a.y) + cw * (b.w - a.w);
        const T span = b.depth - a.depth;
        ga.depth += -by_along * rest / span;
        gb.depth += -by_along * along / span;
    }
}

}  // namespace gd
