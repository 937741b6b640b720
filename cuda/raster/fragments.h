// SPDX-License-Identifier: Apache-2.0
// A fragment: what one pixel sees of one face. The face's point is the pixel's own where the face covers it, else the
// nearest point of the (clipped) face; distance, perspective-correct barycentrics and depth belong to that point.
//
// Outside, the point lies on polygon edge k → l at t of its length in the image, and, with the corners' divisors w, at
// s = t·w_k / (t·w_k + (1 − t)·w_l) of its length in space. So the barycentrics are ≥ 0 whatever the rounding.
#pragma once
#include "distance.h"
#include "hard.h"

namespace gd {

template <class T>
struct Fragment {
    T distance;
    T barycentric[3];
    T depth;
};

template <class T>
GEODIFF_HD Nearest<T> nearest_edge(const Polygon<T>& p, const Edge<T>* edges, T x, T y) {
    Nearest<T> near = no_edge<T>();
    for (int k = 0; k < p.n; ++k) meet(near, edges[k], T(k), x, y);
    return near;
}

// Depth of the point at t of edge k.
template <class T>
GEODIFF_HD T edge_depth(const Polygon<T>& p, int k, T t) {
    const int l = k + 1 == p.n ? 0 : k + 1;
    const T wk = p.w[k], wl = p.w[l], zk = p.depth[k], zl = p.depth[l];
    const T s = t * wk / (t * wk + (T(1) - t) * wl);
    return zk + s * (zl - zk);
}

template <class T>
GEODIFF_HD Fragment<T> fragment_at(const Clip<T> corner[3], const Polygon<T>& p, const Edge<T>* edges,
                                   const HardPlane<T>& hard, T x, T y, bool inside) {
    Fragment<T> out;
    const Nearest<T> near = nearest_edge(p, edges, x, y);
    const T length = sqrt(near.d2);
    // The sign tells the way back which case it was: outside is never 0.
    out.distance = inside ? length : min(-length, -Real<T>::least);
    if (inside) {
        barycentric_at(hard, x, y, out.barycentric);
        out.depth = depth_at(hard, x, y);
        return out;
    }
    const int k = int(near.edge), l = k + 1 == p.n ? 0 : k + 1;
    const T wk = p.w[k], wl = p.w[l], zk = p.depth[k], zl = p.depth[l];
    const T s = near.along * wk / (near.along * wk + (T(1) - near.along) * wl);
    for (int i = 0; i < 3; ++i) {
        const T at_k = (i == p.from[k] ? p.rest[k] : T(0)) + (i == p.to[k] ? p.along[k] : T(0));
        const T at_l = (i == p.from[l] ? p.rest[l] : T(0)) + (i == p.to[l] ? p.along[l] : T(0));
        out.barycentric[i] = (T(1) - s) * at_k + s * at_l;
    }
    out.depth = zk + s * (zl - zk);
    return out;
}

// What the fragments of one face pass back: to the polygon's corners (position, divisor, place on their edge), and to
// the face's corners at once. In double, as many pixels may add up.
struct FaceGradient {
    double x[4], y[4], w[4], along[4];
    Clip<double> corner[3];
};

GEODIFF_HD FaceGradient no_gradient() {
    FaceGradient g;
    for (int k = 0; k < 4; ++k) g.x[k] = g.y[k] = g.w[k] = g.along[k] = 0;
    for (int i = 0; i < 3; ++i) g.corner[i] = {0, 0, 0, 0};
    return g;
}

// What a covered pixel passes back to the face's corners. No branches, so that a compiler can vectorise over pixels.
template <class T>
GEODIFF_HD void inside_share(const Clip<T> corner[3], double x, double y, const double up[3], double up_depth,
                             Clip<double> share[3]) {
    // β_i = L_i/ΣL, L_i = r_j × r_k, r_i = (x_i·w_i − x·w_i, y_i·w_i − y·w_i).
    double rx[3], ry[3], L[3], sum = 0, mean = 0;
    for (int i = 0; i < 3; ++i) {
        rx[i] = double(corner[i].x) - x * corner[i].w;
        ry[i] = double(corner[i].y) - y * corner[i].w;
    }
    for (int i = 0; i < 3; ++i) {
        const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;
        L[i] = rx[j] * ry[k] - ry[j] * rx[k];
        sum += L[i];
    }
    const double inverse = sum != 0 ? 1 / sum : 0;
    for (int i = 0; i < 3; ++i) mean += up[i] * L[i] * inverse;
    double by_L[3];
    for (int i = 0; i < 3; ++i) by_L[i] = (up[i] - mean) * inverse;
    for (int i = 0; i < 3; ++i) {
        const int j = i == 2 ? 0 : i + 1, k = i == 0 ? 2 : i - 1;  // r_i is in L_j = r_k × r_i and L_k = r_i × r_j
        share[i].x = by_L[k] * ry[j] - by_L[j] * ry[k];
        share[i].y = by_L[j] * rx[k] - by_L[k] * rx[j];
        share[i].w = -x * share[i].x - y * share[i].y;
        share[i].depth = up_depth * L[i] * inverse;
    }
}

template <class T>
GEODIFF_HD void inside_backward(const Clip<T> corner[3], double x, double y, const double up[3], double up_depth,
                                FaceGradient& g) {
    Clip<double> share[3];
    inside_share(corner, x, y, up, up_depth, share);
    for (int i = 0; i < 3; ++i) {
        g.corner[i].x += share[i].x;
        g.corner[i].y += share[i].y;
        g.corner[i].depth += share[i].depth;
        g.corner[i].w += share[i].w;
    }
}

template <class T>
GEODIFF_HD void outside_backward(const Clip<T> corner[3], const Polygon<T>& p, const Nearest<T>& near, double x, double y,
                                 const double up[3], double up_depth, FaceGradient& g) {
    const int k = int(near.edge), l = k + 1 == p.n ? 0 : k + 1;
    const double t = near.along, wk = p.w[k], wl = p.w[l];
    const double den = t * wk + (1 - t) * wl;
    const double s = t * wk / den;
    const int ends[2] = {k, l};
    const double share[2] = {1 - s, s};
    double by_s = 0;
    for (int e = 0; e < 2; ++e) {
        const int c = ends[e], a = p.from[c], b = p.to[c];
        const double along = p.along[c], rest = p.rest[c];
        const double here = rest * up[a] + along * up[b];
        by_s += e == 0 ? -here : here;
        g.along[c] += share[e] * (up[b] - up[a]);
        g.corner[a].depth += up_depth * share[e] * rest;
        g.corner[b].depth += up_depth * share[e] * along;
    }
    const double by_den2 = by_s / (den * den);
    g.w[k] += by_den2 * t * (1 - t) * wl;
    g.w[l] -= by_den2 * t * (1 - t) * wk;
    if (!(t > 0 && t < 1)) return;  // held by a corner
    const double by_t = by_den2 * wk * wl;
    const double ex = double(p.x[l]) - p.x[k], ey = double(p.y[l]) - p.y[k];
    const double qx = x - p.x[k], qy = y - p.y[k];
    const double scale = by_t / (ex * ex + ey * ey);
    g.x[k] += scale * (2 * t * ex - ex - qx);
    g.y[k] += scale * (2 * t * ey - ey - qy);
    g.x[l] += scale * (qx - 2 * t * ex);
    g.y[l] += scale * (qy - 2 * t * ey);
}

// Adds one fragment's share; `inside` as in the forward pass.
template <class T>
GEODIFF_HD void fragment_backward(const Clip<T> corner[3], const Polygon<T>& p, const Edge<T>* edges, T x, T y, bool inside,
                                  double up_distance, const double up_barycentric[3], double up_depth, FaceGradient& g) {
    Nearest<T> near = no_edge<T>();
    if (up_distance != 0 || !inside) near = nearest_edge(p, edges, x, y);
    near.side = inside ? T(0) : T(-1);
    if (up_distance != 0) {
        T dx, dy;
        direction<false>(near, dx, dy);
        const int k = int(near.edge), l = k + 1 == p.n ? 0 : k + 1;
        const double second = near.along, first = 1 - second;
        g.x[k] += first * up_distance * dx;
        g.y[k] += first * up_distance * dy;
        g.x[l] += second * up_distance * dx;
        g.y[l] += second * up_distance * dy;
    }
    double up[3];
    bool any = up_depth != 0;
    for (int i = 0; i < 3; ++i) {
        up[i] = up_barycentric[i] + up_depth * corner[i].depth;
        any = any || up_barycentric[i] != 0;
    }
    if (!any) return;
    if (inside) {
        inside_backward(corner, double(x), double(y), up, up_depth, g);
    } else {
        outside_backward(corner, p, near, double(x), double(y), up, up_depth, g);
    }
}

// From the polygon's corners to the face's, once all its fragments are in.
template <class T>
GEODIFF_HD void face_backward(const Clip<T> corner[3], const Polygon<T>& p, FaceGradient& g) {
    for (int k = 0; k < p.n; ++k) {
        const Clip<T>& a = corner[p.from[k]];
        const Clip<T>& b = corner[p.to[k]];
        const double along = p.along[k], rest = p.rest[k], w = p.w[k];
        const double cx = g.x[k] / w, cy = g.y[k] / w;
        const double cw = g.w[k] - (g.x[k] * p.x[k] + g.y[k] * p.y[k]) / w;
        Clip<double>& ga = g.corner[p.from[k]];
        ga.x += rest * cx;
        ga.y += rest * cy;
        ga.w += rest * cw;
        if (p.from[k] == p.to[k]) continue;  // along is 0
        Clip<double>& gb = g.corner[p.to[k]];
        gb.x += along * cx;
        gb.y += along * cy;
        gb.w += along * cw;
        const double by_along = g.along[k] + cx * (double(b.x) - a.x) + cy * (double(b.y) - a.y) + cw * (double(b.w) - a.w);
        const double span = double(b.depth) - a.depth;
        ga.depth += -by_along * rest / span;
        gb.depth -= by_along * along / span;
    }
}

}  // namespace gd
