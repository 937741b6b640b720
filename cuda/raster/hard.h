// SPDX-License-Identifier: Apache-2.0
// What a hard rasteriser needs of a face: edge functions that two neighbours evaluate from the same numbers, so that no
// pixel falls between them (one on the edge is in both), and planes for depth and perspective-correct barycentrics.
#pragma once
#include "polygon.h"

namespace gd {

// β_i = L_i/ΣL with L_i = a_i·(x − x0) + b_i·(y − y0) + c_i; depth = Σ β_i·depth_i = num/den.
template <class T>
struct HardPlane {
    T x0, y0;
    T a[3], b[3], c[3];
    T num_a, num_b, num_c, den_a, den_b, den_c;
};

template <class T>
struct HardFace : HardPlane<T> {
    // Edge k: ex·(y − ay) ≥ ey·(x − ax) inside. The corners of an edge are put in one order (comes_first), whatever the
    // face, and only the sign of (ex, ey) differs between two that share it. Rounded products are compared, not subtracted:
    // a compiler that fused one of them into the difference would see a centre on the edge to one side of it.
    T ax[4], ay[4], ex[4], ey[4];
    int n;
};

// L_i ∝ (v_j × v_k)·(x, y, 1) with v = (x·w, y·w, w): right also for a corner behind the camera. In double, since products
// of coordinates cancel; then relative to (x0, y0), a corner of the polygon.
template <class T>
GEODIFF_HD void hard_plane(const Clip<T> corner[3], T x0, T y0, HardPlane<T>& out) {
    out.x0 = x0;
    out.y0 = y0;
    double num[3] = {0, 0, 0}, den[3] = {0, 0, 0}, plane[3][3];
    for (int i = 0; i < 3; ++i) {
        const Clip<T>& u = corner[i == 2 ? 0 : i + 1];
        const Clip<T>& v = corner[i == 0 ? 2 : i - 1];
        plane[i][0] = double(u.y) * v.w - double(u.w) * v.y;
        plane[i][1] = double(u.w) * v.x - double(u.x) * v.w;
        plane[i][2] = double(u.x) * v.y - double(u.y) * v.x + plane[i][0] * x0 + plane[i][1] * y0;
        for (int k = 0; k < 3; ++k) {
            num[k] += plane[i][k] * corner[i].depth;
            den[k] += plane[i][k];
        }
    }
    // One common factor keeps the numbers of tiny faces away from underflow.
    double largest = 0;
    for (int i = 0; i < 3; ++i) {
        for (int k = 0; k < 3; ++k) largest = max(largest, abs(plane[i][k]));
    }
    const double scale = largest > 0 ? 1 / largest : 0;
    for (int i = 0; i < 3; ++i) {
        out.a[i] = T(plane[i][0] * scale);
        out.b[i] = T(plane[i][1] * scale);
        out.c[i] = T(plane[i][2] * scale);
    }
    out.num_a = T(num[0] * scale);
    out.num_b = T(num[1] * scale);
    out.num_c = T(num[2] * scale);
    out.den_a = T(den[0] * scale);
    out.den_b = T(den[1] * scale);
    out.den_c = T(den[2] * scale);
}

template <class T>
GEODIFF_HD void hard_face(const Clip<T> corner[3], const Polygon<T>& p, HardFace<T>& out) {
    out.n = p.n;
    if (p.n == 0) return;
    for (int k = 0; k < p.n; ++k) {
        const int l = k + 1 == p.n ? 0 : k + 1;
        const bool swap = comes_first(p.x, p.y, l, k);
        const int s = swap ? l : k, t = swap ? k : l;
        out.ax[k] = p.x[s];
        out.ay[k] = p.y[s];
        const T ex = p.x[t] - p.x[s], ey = p.y[t] - p.y[s];
        const bool none = only_rounding(p.x, p.y, p.n, k, l);
        const T sign = swap ? -p.orientation : p.orientation;
        out.ex[k] = none ? T(0) : ex * sign;
        out.ey[k] = none ? T(0) : ey * sign;
    }
    hard_plane(corner, p.x[0], p.y[0], out);
}

template <class T>
GEODIFF_HD bool on_inner_side(const HardFace<T>& f, int k, T x, T y) {
    return f.ex[k] * (y - f.ay[k]) >= f.ey[k] * (x - f.ax[k]);
}

template <class T>
GEODIFF_HD bool covers(const HardFace<T>& f, T x, T y) {
    bool inside = true;
#pragma unroll
    for (int k = 0; k < 4; ++k) inside &= k >= f.n || on_inner_side(f, k, x, y);
    return inside;
}

template <class T>
GEODIFF_HD T depth_at(const HardPlane<T>& f, T x, T y) {
    const T dx = x - f.x0, dy = y - f.y0;
    const T den = f.den_a * dx + f.den_b * dy + f.den_c;
    return den != T(0) ? (f.num_a * dx + f.num_b * dy + f.num_c) / den : Real<T>::largest;
}

template <class T>
GEODIFF_HD void barycentric_at(const HardPlane<T>& f, T x, T y, T out[3]) {
    const T dx = x - f.x0, dy = y - f.y0;
    T sum = T(0);
    for (int i = 0; i < 3; ++i) {
        out[i] = f.a[i] * dx + f.b[i] * dy + f.c[i];
        sum += out[i];
    }
    const T inverse = sum != T(0) ? T(1) / sum : T(0);
    for (int i = 0; i < 3; ++i) out[i] *= inverse;
}

}  // namespace gd
