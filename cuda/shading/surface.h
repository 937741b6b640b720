// SPDX-License-Identifier: Apache-2.0
// A textured surface in light, at one point: attributes of three corners at barycentrics, a bilinear sample of the
// texture, Phong's reflection (reflect.h); and the way back. Texture coordinates may have corners of their own, as at
// seams. No branches, so that a compiler can vectorise over points.
#pragma once
#include "reflect.h"
#include "texture.h"

namespace gd {

constexpr int kSurfaceFrame = 6;  // of a vertex: point (3), normal (3)

// What a point is made of.
template <class T>
struct SurfacePoint {
    T weight[3];
    T uv[3][2], frame[3][kSurfaceFrame];  // of the corners
    T texel[4][3], right, down;           // of the texture, as in texture.h
};

template <class T>
GEODIFF_HD T at_corners(const T weight[3], T a, T b, T c) {
    return weight[0] * a + weight[1] * b + weight[2] * c;
}

template <class T>
GEODIFF_HD Vec<T> surface_place(const SurfacePoint<T>& s, int part) {  // part 0: point, 1: normal
    T v[3];
    for (int i = 0; i < 3; ++i) {
        const int column = 3 * part + i;
        v[i] = at_corners(s.weight, s.frame[0][column], s.frame[1][column], s.frame[2][column]);
    }
    return vec(v);
}

template <class T>
GEODIFF_HD Vec<T> surface_albedo(const SurfacePoint<T>& s) {
    Vec<T> sum = {T(0), T(0), T(0)};
    for (int k = 0; k < 4; ++k) sum = plus(sum, texel_weight(k, s.right, s.down), vec(s.texel[k]));
    return sum;
}

template <class T>
struct SurfaceGradient {
    T weight[3], uv[2];
    Vec<T> albedo;
};

// Given what light did at the point, and the gradients of point and normal.
template <class T>
GEODIFF_HD SurfaceGradient<T> surface_backward(const SurfacePoint<T>& s, int height, int width, const Vec<T>& up,
                                               const Vec<T>& diffuse, const Vec<T>& by_point, const Vec<T>& by_normal) {
    SurfaceGradient<T> g;
    g.albedo = hadamard(up, diffuse);
    T by[4];
    for (int k = 0; k < 4; ++k) by[k] = dot(g.albedo, vec(s.texel[k]));
    g.uv[0] = texel_slope(by[0], by[1], by[2], by[3], s.down) * T(width);
    g.uv[1] = -texel_slope(by[0], by[2], by[1], by[3], s.right) * T(height);
    for (int k = 0; k < 3; ++k) {
        g.weight[k] = g.uv[0] * s.uv[k][0] + g.uv[1] * s.uv[k][1] + dot(by_point, vec(s.frame[k])) +
                      dot(by_normal, vec(s.frame[k] + 3));
    }
    return g;
}

}  // namespace gd
