// SPDX-License-Identifier: Apache-2.0
// How far a polygon reaches in the image: a box around it, and one around what the half-planes of its edges have in common.
#pragma once
#include "distance.h"

namespace gd {

// In NDC.
template <class T>
struct Box {
    T left, right, bottom, top;
};

template <class T>
GEODIFF_HD Box<T> polygon_box(const Polygon<T>& p) {
    Box<T> box = {p.x[0], p.x[0], p.y[0], p.y[0]};
    for (int k = 1; k < p.n; ++k) {
        box.left = min(box.left, p.x[k]);
        box.right = max(box.right, p.x[k]);
        box.bottom = min(box.bottom, p.y[k]);
        box.top = max(box.top, p.y[k]);
    }
    return box;
}

// Of the half-planes of the edges, each grown by `grow`: a polygon whose corners are mitres, which reach far where an
// angle is sharp.
template <class T>
GEODIFF_HD Box<T> mitre_box(const Polygon<T>& p, const Edge<T>* e, T grow) {
    Box<T> box = {Real<T>::largest, -Real<T>::largest, Real<T>::largest, -Real<T>::largest};
    int before = p.n - 1;
    if (e[before].inverse <= T(0)) --before;
    for (int k = 0; k < p.n; ++k) {
        if (e[k].inverse <= T(0)) continue;
        // The tip is at 2·grow·m/|m|² from the corner, m the sum of the normals. Where the angle is so sharp that m is
        // mere rounding, the slack for that rounding spans the image.
        const T mx = e[before].nx + e[k].nx, my = e[before].ny + e[k].ny;
        const T far = min(T(2) * grow / max(mx * mx + my * my, Real<T>::least), T(1e30));
        const T slack = grow * T(1e-4) + far * T(16) * Real<T>::epsilon;
        const T x = p.x[k] + far * mx, y = p.y[k] + far * my;
        box.left = min(box.left, x - slack);
        box.right = max(box.right, x + slack);
        box.bottom = min(box.bottom, y - slack);
        box.top = max(box.top, y + slack);
        before = k;
    }
    // Of two grown lines that are all but parallel rounding decides where they meet.
    const T rounding = T(64) * Real<T>::epsilon;
    box.left -= rounding * abs(box.left);
    box.right += rounding * abs(box.right);
    box.bottom -= rounding * abs(box.bottom);
    box.top += rounding * abs(box.top);
    return box;
}

// The pixels whose centres lie in a box, and a few more where rounding might decide.
struct PixelBox {
    int first_row, end_row, first_column, end_column;
};

template <class T>
GEODIFF_HD PixelBox pixels_of(const Box<T>& box, int height, int width) {
    const T per_step = T(height < width ? height : width) / T(2);
    const T half_w = T(0.5) * T(width) - T(0.5), half_h = T(0.5) * T(height) - T(0.5), margin = T(0.02);
    const T across = T(width), down = T(height);
    return {int(clamp(half_h - box.top * per_step - margin, T(0), down)),
            int(clamp(half_h - box.bottom * per_step + margin + T(1), T(0), down)),
            int(clamp(box.left * per_step + half_w - margin, T(0), across)),
            int(clamp(box.right * per_step + half_w + margin + T(1), T(0), across))};
}

// Of faces whose pixels are cut into units: which has this one. start: (faces + 1), first unit of each; some have none.
template <class Index>
GEODIFF_HD i64 face_of_unit(const Index* start, i64 faces, Index unit) {
    i64 low = 0, high = faces;  // the last face with start ≤ unit
    while (high - low > 1) {
        const i64 middle = (low + high) / 2;
        if (start[middle] <= unit) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return low;
}

}  // namespace gd
