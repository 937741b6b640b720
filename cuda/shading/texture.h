// SPDX-License-Identifier: Apache-2.0
// Which four texels a texture coordinate lies between, and with which weights.
#pragma once
#include "../math/elementary.h"

namespace gd {

enum Wrap { kRepeat = 0, kClamp = 1, kMirror = 2 };

GEODIFF_HD int wrapped(int index, int size, int wrap) {
    if (index >= 0 && index < size) return index;  // mostly; spares a division
    if (wrap == kClamp) return clamp(index, 0, size - 1);
    const int period = wrap == kMirror ? 2 * size : size;
    int at = index % period;
    at = at < 0 ? at + period : at;
    return at < size ? at : period - 1 - at;
}

// The weight of the k-th of four texels, for a place so far between them.
template <class T>
GEODIFF_HD T texel_weight(int k, T right, T down) {
    return (k & 1 ? right : T(1) - right) * (k & 2 ? down : T(1) - down);
}

template <class T>
struct Texels {
    i64 row[4];      // above left, above right, below left, below right
    T right, down;   // how far between them

    GEODIFF_HD T weight(int k) const { return texel_weight(k, right, down); }
};

template <class T>
GEODIFF_HD int floor_of(T x) {
    // Coordinates beyond this have no digits left for texels.
    const T held = clamp(x, T(-1e9), T(1e9));
    const int whole = int(held);
    return whole - int(T(whole) > held);
}

// The texel above left, inside the texture or not, and how far from there. No branches.
template <class T>
GEODIFF_HD void texel_place(T u, T v, int height, int width, int& left, int& top, T& right, T& down) {
    const T x = u * T(width) - T(0.5), y = (T(1) - v) * T(height) - T(0.5);
    left = floor_of(x);
    top = floor_of(y);
    right = clamp(x - T(left), T(0), T(1));
    down = clamp(y - T(top), T(0), T(1));
}

template <class T>
GEODIFF_HD Texels<T> texels(T u, T v, int height, int width, int wrap) {
    Texels<T> t;
    int left, top;
    texel_place(u, v, height, width, left, top, t.right, t.down);
    const int columns[2] = {wrapped(left, width, wrap), wrapped(left + 1, width, wrap)};
    const i64 above = i64(wrapped(top, height, wrap)) * width, below = i64(wrapped(top + 1, height, wrap)) * width;
    t.row[0] = above + columns[0];
    t.row[1] = above + columns[1];
    t.row[2] = below + columns[0];
    t.row[3] = below + columns[1];
    return t;
}

// How the sample changes per texel along one axis, from four values before and behind on two lines that lie `across`
// apart: first line a → b, second line c → d.
template <class T>
GEODIFF_HD T texel_slope(T a, T b, T c, T d, T across) {
    return (T(1) - across) * (b - a) + across * (d - c);
}

}  // namespace gd
