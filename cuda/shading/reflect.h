// SPDX-License-Identifier: Apache-2.0
// Phong's reflection at one point, and the way back. Numbers of an image come in one row:
//   viewer (3: the eye, or the direction to it), shininess, ambient (3), then for each light
//   way (3: position, or unit direction to the light), diffuse (3), specular (3), attenuation (3).
#pragma once
#include "vec.h"

namespace gd {

constexpr int kReflectHead = 7, kReflectLight = 12;

// One over the length; 0 where there is none.
template <class T>
GEODIFF_HD T over_length(const Vec<T>& a) {
    const T square = dot(a, a);
    return square > T(1e8) * Real<T>::least ? T(1) / sqrt(square) : T(0);
}

// What forward and backward share of one light.
template <class T>
struct Beam {
    Vec<T> way;      // unit, towards the light
    T inverse, r, fade;
    T facing, mirrored;
};

template <class T>
GEODIFF_HD Beam<T> make_beam(const T* light, bool point_light, const Vec<T>& n, const Vec<T>& x, const Vec<T>& v) {
    Beam<T> b;
    b.way = vec(light);
    b.inverse = b.r = b.fade = T(1);
    if (point_light) {
        b.way = plus(b.way, T(-1), x);
        b.inverse = over_length(b.way);
        b.r = b.inverse * dot(b.way, b.way);
        b.way = times(b.inverse, b.way);
        b.fade = light[9] + light[10] * b.r + light[11] * b.r * b.r;
    }
    b.facing = dot(n, b.way);
    b.mirrored = T(2) * b.facing * dot(n, v) - dot(b.way, v);
    return b;
}

constexpr double kFaint = 1e-6;  // below, a highlight is 0

// out: diffuse (3), highlight (3).
template <class T>
GEODIFF_HD void reflect(const T* row, int lights, const int* kinds, bool parallel_view, bool glossy, const Vec<T>& normal,
                        const Vec<T>& x, T* out) {
    const Vec<T> n = times(over_length(normal), normal);
    Vec<T> v = vec(row);
    if (!parallel_view) {
        v = plus(v, T(-1), x);
        v = times(over_length(v), v);
    }
    for (int i = 0; i < 3; ++i) {
        out[i] = row[4 + i];
        out[3 + i] = T(0);
    }
    for (int l = 0; l < lights; ++l) {
        const T* light = row + kReflectHead + kReflectLight * l;
        const Beam<T> b = make_beam(light, kinds[l] != 0, n, x, v);
        if (!(b.facing > T(0))) continue;
        const T strength = b.facing / b.fade;
        for (int i = 0; i < 3; ++i) out[i] += strength * light[3 + i];
        if (!glossy || !(b.mirrored > T(kFaint))) continue;
        const T peak = gd::exp(row[3] * gd::log(b.mirrored)) / b.fade;
        for (int i = 0; i < 3; ++i) out[3 + i] += peak * light[6 + i];
    }
}

// Sets the gradients of normal and point, and what `reflect` gives as `out`; adds that of the row, unless it is null.
template <class T>
GEODIFF_HD void reflect_backward(const T* row, int lights, const int* kinds, bool parallel_view, bool glossy,
                                 const Vec<T>& normal, const Vec<T>& x, const T* up, Vec<T>& grad_normal, Vec<T>& grad_x,
                                 double* grad_row, T* out) {
    const T n_inverse = over_length(normal);
    const Vec<T> n = times(n_inverse, normal);
    Vec<T> v = vec(row);
    T v_inverse = T(1);
    if (!parallel_view) {
        v = plus(v, T(-1), x);
        v_inverse = over_length(v);
        v = times(v_inverse, v);
    }
    Vec<T> gn = {T(0), T(0), T(0)}, gv = gn;
    grad_x = gn;
    const Vec<T> up_diffuse = vec(up), up_shine = vec(up + 3);
    if (grad_row) add_to(grad_row + 4, up_diffuse);
    for (int i = 0; i < 3; ++i) {
        out[i] = row[4 + i];
        out[3 + i] = T(0);
    }
    for (int l = 0; l < lights; ++l) {
        const T* light = row + kReflectHead + kReflectLight * l;
        double* grad = grad_row ? grad_row + kReflectHead + kReflectLight * l : nullptr;
        const Beam<T> b = make_beam(light, kinds[l] != 0, n, x, v);
        if (!(b.facing > T(0))) continue;
        const T over_fade = T(1) / b.fade;
        const T by_diffuse = dot(up_diffuse, vec(light + 3)) * over_fade;
        add_to(out, times(b.facing * over_fade, vec(light + 3)));
        if (grad) add_to(grad + 3, times(b.facing * over_fade, up_diffuse));
        T by_fade = -b.facing * by_diffuse * over_fade;
        T by_facing = by_diffuse;
        Vec<T> gl = {T(0), T(0), T(0)};
        if (glossy && b.mirrored > T(kFaint)) {
            const T log_m = gd::log(b.mirrored);
            const T peak = gd::exp(row[3] * log_m);
            const T by_peak = dot(up_shine, vec(light + 6)) * over_fade;
            add_to(out + 3, times(peak * over_fade, vec(light + 6)));
            if (grad) add_to(grad + 6, times(peak * over_fade, up_shine));
            by_fade -= peak * by_peak * over_fade;
            if (grad) grad_row[3] += by_peak * peak * log_m;
            const T by_mirrored = by_peak * row[3] * peak / b.mirrored;
            const T nv = dot(n, v);
            by_facing += T(2) * nv * by_mirrored;
            const T by_nv = T(2) * b.facing * by_mirrored;
            gn = plus(gn, by_nv, v);
            gv = plus(plus(gv, by_nv, n), -by_mirrored, b.way);
            gl = times(-by_mirrored, v);
        }
        gn = plus(gn, by_facing, b.way);
        gl = plus(gl, by_facing, n);
        if (kinds[l] == 0) {
            if (grad) add_to(grad, gl);
            continue;
        }
        Vec<T> gw = unit_backward(b.way, b.inverse, gl);
        gw = plus(gw, (light[10] + T(2) * light[11] * b.r) * by_fade, b.way);
        if (grad) {
            grad[9] += by_fade;
            grad[10] += b.r * by_fade;
            grad[11] += b.r * b.r * by_fade;
            add_to(grad, gw);
        }
        grad_x = plus(grad_x, T(-1), gw);
    }
    if (parallel_view) {
        if (grad_row) add_to(grad_row, gv);
    } else {
        const Vec<T> g = unit_backward(v, v_inverse, gv);
        if (grad_row) add_to(grad_row, g);
        grad_x = plus(grad_x, T(-1), g);
    }
    grad_normal = unit_backward(n, n_inverse, gn);
}

}  // namespace gd
