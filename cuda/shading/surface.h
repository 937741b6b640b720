// SPDX-License-Identifier: Apache-2.0
// A textured surface in light, at one point: attributes of three corners at barycentrics, a bilinear sample of the
// texture, Phong's reflection; and the way back. Texture coordinates may have corners of their own, as at seams.
#pragma once
#include "reflect.h"
#include "texture.h"

namespace gd {

constexpr int kSurfaceFrame = 6;  // of a vertex: point (3), normal (3)

// What does not change from point to point of one image.
template <class T>
struct SurfaceModel {
    const T* uv;     // (coordinates, 2)
    const T* frame;  // (vertices, 6)
    const int* kinds;
    int lights, height, width, wrap;
    bool parallel_view, glossy;
};

template <class T>
struct SurfacePoint {
    T frame[kSurfaceFrame];
    Texels<T> texels;
    T albedo[3];

    GEODIFF_HD Vec<T> point() const { return vec(frame); }
    GEODIFF_HD Vec<T> normal() const { return vec(frame + 3); }
};

template <int N, class T>
GEODIFF_HD void blend_corners(const T* values, const int* corner, const T* weight, T* out) {
    const T *a = values + i64(corner[0]) * N, *b = values + i64(corner[1]) * N, *c = values + i64(corner[2]) * N;
    for (int i = 0; i < N; ++i) out[i] = weight[0] * a[i] + weight[1] * b[i] + weight[2] * c[i];
}
// Adds to the gradient of the weights.
template <int N, class T>
GEODIFF_HD void blend_backward(const T* values, const int* corner, const T* up, T* grad_weight) {
    for (int k = 0; k < 3; ++k) {
        const T* from = values + i64(corner[k]) * N;
        for (int i = 0; i < N; ++i) grad_weight[k] += up[i] * from[i];
    }
}

// Where in the texture; `uv_corner`: rows of m.uv.
template <class T>
GEODIFF_HD void surface_place(const SurfaceModel<T>& m, const int* uv_corner, const T* weight, SurfacePoint<T>& s) {
    T uv[2];
    blend_corners<2>(m.uv, uv_corner, weight, uv);
    s.texels = texels(uv[0], uv[1], m.height, m.width, m.wrap);
}

// The rest, after that; `corner`: rows of m.frame; `texture`: the texels (height·width, 3) of the image.
template <class T>
GEODIFF_HD void surface_at(const SurfaceModel<T>& m, const int* corner, const T* weight, const T* texture,
                           SurfacePoint<T>& s) {
    blend_corners<kSurfaceFrame>(m.frame, corner, weight, s.frame);
    for (int i = 0; i < 3; ++i) s.albedo[i] = T(0);
    for (int k = 0; k < 4; ++k) {
        const T share = s.texels.weight(k);
        const T* texel = texture + 3 * s.texels.row[k];
        for (int i = 0; i < 3; ++i) s.albedo[i] += share * texel[i];
    }
}

// `row`: the image's lights, as of reflect.h.
template <class T>
GEODIFF_HD void surface_color(const SurfaceModel<T>& m, const SurfacePoint<T>& s, const T* row, T* color) {
    T light[6];
    reflect(row, m.lights, m.kinds, m.parallel_view, m.glossy, s.normal(), s.point(), light);
    for (int i = 0; i < 3; ++i) color[i] = s.albedo[i] * light[i] + light[3 + i];
}

// Sets the gradients of the texture coordinate, the point and normal, the barycentrics and the sample of the texture, and
// adds that of the row, unless it is null.
template <class T>
GEODIFF_HD void surface_backward(const SurfaceModel<T>& m, const SurfacePoint<T>& s, const int* uv_corner, const int* corner,
                                 const T* row, const T* texture, const T* up, T* grad_uv, T* grad_frame, T* grad_weight,
                                 T* grad_albedo, double* grad_row) {
    T light[6], by_light[6], by[4] = {T(0), T(0), T(0), T(0)};
    for (int i = 0; i < 3; ++i) {
        by_light[i] = up[i] * s.albedo[i];
        by_light[3 + i] = up[i];
    }
    Vec<T> by_normal, by_point;
    reflect_backward(row, m.lights, m.kinds, m.parallel_view, m.glossy, s.normal(), s.point(), by_light, by_normal,
                     by_point, grad_row, light);
    for (int i = 0; i < 3; ++i) grad_albedo[i] = up[i] * light[i];
    for (int k = 0; k < 4; ++k) {
        const T* texel = texture + 3 * s.texels.row[k];
        for (int i = 0; i < 3; ++i) by[k] += grad_albedo[i] * texel[i];
    }
    grad_uv[0] = texel_slope(by[0], by[1], by[2], by[3], s.texels.down) * T(m.width);
    grad_uv[1] = -texel_slope(by[0], by[2], by[1], by[3], s.texels.right) * T(m.height);
    const T more[kSurfaceFrame] = {by_point.x, by_point.y, by_point.z, by_normal.x, by_normal.y, by_normal.z};
    for (int i = 0; i < kSurfaceFrame; ++i) grad_frame[i] = more[i];
    for (int k = 0; k < 3; ++k) grad_weight[k] = T(0);
    blend_backward<2>(m.uv, uv_corner, grad_uv, grad_weight);
    blend_backward<kSurfaceFrame>(m.frame, corner, grad_frame, grad_weight);
}

}  // namespace gd
