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

// Corner k lies on the face's edge from[k] → to[k] at `along[k]` (0 for an unclipped corner); from[k] is in front of the
// near plane, so that two faces sharing an edge compute the same cut.
template <class T>
struct Polygon {
    T x[4], y[4];
    T along[4];
    signed char from[4], to[4];
    int n;           // 0: contributes nothing
    T orientation;   // +1 or −1, so that cross products are positive inside
};

template <class T>
GEODIFF_HD Clip<T> mix(const Clip<T>& a, const Clip<T>& b, T along) {
    const T rest = T(1) - along;  // so that along = 1 is b itself
    return {rest * a.x + along * b.x, rest * a.y + along * b.y, rest * a.depth + along * b.depth,
            rest * a.w + along * b.w};
}

// Sutherland–Hodgman against depth > near. Degenerate: twice the area is at most 8 roundings of the longest edge².
template <class T>
GEODIFF_HD Polygon<T> make_polygon(const Clip<T> corner[3], T near) {
    Polygon<T> p;
    p.n = 0;
    p.orientation = T(1);
    T rough = T(0);        // what rounding can do to a cut, in units of epsilon
    int cut = -1, last_cut = -1;
    for (int i = 0; i < 3; ++i) {
        const int j = i == 2 ? 0 : i + 1;
        const bool here = corner[i].depth > near;
        const bool there = corner[j].depth > near;
        if (here) {
            p.x[p.n] = corner[i].x / corner[i].w;
            p.y[p.n] = corner[i].y / corner[i].w;
            p.along[p.n] = T(0);
            p.from[p.n] = static_cast<signed char>(i);
            p.to[p.n] = static_cast<signed char>(i);
            ++p.n;
        }
        if (here != there) {
            const int seen = here ? i : j, hidden = here ? j : i;
            const Clip<T>& a = corner[seen];
            const Clip<T>& b = corner[hidden];
            const T along = (a.depth - near) / (a.depth - b.depth);
            const Clip<T> c = mix(a, b, along);
            p.x[p.n] = c.x / c.w;
            p.y[p.n] = c.y / c.w;
            p.along[p.n] = along;
            p.from[p.n] = static_cast<signed char>(seen);
            p.to[p.n] = static_cast<signed char>(hidden);
            rough = max(rough, max(max(abs(a.x), abs(b.x)), max(abs(a.y), abs(b.y))) / c.w);
            cut = last_cut;
            last_cut = p.n;
            ++p.n;
        }
    }
    if (cut >= 0) {
        // Two cuts beside a corner that barely lies behind the plane: rounding would decide which way the edge between
        // them points, and so what is inside. Let them be one point.
        const T dx = p.x[last_cut] - p.x[cut], dy = p.y[last_cut] - p.y[cut], least = T(32) * Real<T>::epsilon * rough;
        if (dx * dx + dy * dy <= least * least) {
            p.x[last_cut] = p.x[cut];
            p.y[last_cut] = p.y[cut];
        }
    }
    T area = T(0), longest = T(0);
    for (int k = 0; k < p.n; ++k) {
        const int l = k + 1 == p.n ? 0 : k + 1;
        const T ax = p.x[k] - p.x[0], ay = p.y[k] - p.y[0];
        const T ex = p.x[l] - p.x[k], ey = p.y[l] - p.y[k];
        area += ax * ey - ay * ex;
        longest = max(longest, ex * ex + ey * ey);
    }
    p.orientation = area < T(0) ? T(-1) : T(1);
    if (!(abs(area) > T(8) * Real<T>::epsilon * longest)) p.n = 0;
    return p;
}

// Adds to grad[3] (one Clip a corner of the face) what the gradient (gx, gy) of the polygon's corners means for it.
template <class T>
GEODIFF_HD void polygon_backward(const Clip<T> corner[3], T near, const Polygon<T>& p, const T* gx, const T* gy,
                                 Clip<T> grad[3]) {
    for (int k = 0; k < p.n; ++k) {
        const Clip<T>& a = corner[p.from[k]];
        const Clip<T>& b = corner[p.to[k]];
        const bool clipped = p.from[k] != p.to[k];
        const T along = p.along[k];
        const T w = clipped ? a.w + along * (b.w - a.w) : a.w;
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
        ga.x += (T(1) - along) * cx;
        ga.y += (T(1) - along) * cy;
        ga.w += (T(1) - along) * cw;
        gb.x += along * cx;
        gb.y += along * cy;
        gb.w += along * cw;
        // The cut moves along the edge when the corners' depths do.
        const T by_along = cx * (b.x - a.x) + cy * (b.y - a.y) + cw * (b.w - a.w);
        const T span = b.depth - a.depth;
        ga.depth += by_along * (along - T(1)) / span;
        gb.depth += -by_along * along / span;
    }
}

}  // namespace gd
