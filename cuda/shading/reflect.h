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

// At one point: the unit normal and the direction to the viewer, and one over the lengths they had.
template <class T>
struct Sight {
    Vec<T> n, v;
    T n_inverse, v_inverse;
};

template <class T>
GEODIFF_HD Sight<T> make_sight(const T* row, bool parallel_view, const Vec<T>& normal, const Vec<T>& x) {
    Sight<T> s;
    s.n_inverse = over_length(normal);
    s.n = times(s.n_inverse, normal);
    s.v = vec(row);
    s.v_inverse = T(1);
    if (!parallel_view) {
        s.v = plus(s.v, T(-1), x);
        s.v_inverse = over_length(s.v);
        s.v = times(s.v_inverse, s.v);
    }
    return s;
}

constexpr double kFaint = 1e-6;  // highlights whose r·v is below this are 0

// What forward and backward share of one light. No branches, so that a compiler can vectorise over points.
template <class T>
struct Beam {
    Vec<T> way;               // unit, towards the light
    T inverse, r, over_fade;  // over_fade: 0 where the light does not reach
    T facing, mirrored, log_mirrored, peak;
};

template <bool kPoint, bool kGlossy, class T>
GEODIFF_HD Beam<T> make_beam(const T* light, T shininess, const Sight<T>& s, const Vec<T>& x) {
    Beam<T> b;
    b.way = vec(light);
    b.inverse = b.r = T(1);
    T fade = T(1);
    if (kPoint) {
        b.way = plus(b.way, T(-1), x);
        b.inverse = over_length(b.way);
        b.r = b.inverse * dot(b.way, b.way);
        b.way = times(b.inverse, b.way);
        fade = light[9] + light[10] * b.r + light[11] * b.r * b.r;
    }
    b.facing = dot(s.n, b.way);
    const bool lit = b.facing > T(0);
    b.facing = lit ? b.facing : T(0);
    b.over_fade = lit ? T(1) / fade : T(0);
    b.mirrored = T(1);
    b.log_mirrored = b.peak = T(0);
    if (kGlossy) {
        const T mirrored = lit ? T(2) * b.facing * dot(s.n, s.v) - dot(b.way, s.v) : T(0);
        b.mirrored = max(mirrored, T(kFaint));
        b.log_mirrored = gd::log(b.mirrored);
        const T peak = gd::exp(shininess * b.log_mirrored);
        b.peak = mirrored > T(kFaint) ? peak : T(0);
    }
    return b;
}

// Adds one light to what the surface's colour is multiplied with, and to the highlight.
template <bool kPoint, bool kGlossy, class T>
GEODIFF_HD void add_light(const T* light, T shininess, const Sight<T>& s, const Vec<T>& x, Vec<T>& diffuse, Vec<T>& shine) {
    const Beam<T> b = make_beam<kPoint, kGlossy>(light, shininess, s, x);
    diffuse = plus(diffuse, b.facing * b.over_fade, vec(light + 3));
    if (kGlossy) shine = plus(shine, b.peak * b.over_fade, vec(light + 6));
}

// What a point passes back: to unit normal, direction to the viewer and place.
template <class T>
struct SightGradient {
    Vec<T> n, v, x;
};

constexpr int kLightTerms = 1 + kReflectLight;  // shininess, then the light's own numbers

// Adds to `g`, and to `diffuse` and `shine` what `add_light` adds; sets the light's gradient, `terms`, if asked.
template <bool kPoint, bool kGlossy, bool kTerms, class T>
GEODIFF_HD void light_backward(const T* light, T shininess, const Sight<T>& s, const Vec<T>& x, const Vec<T>& up_diffuse,
                               const Vec<T>& up_shine, SightGradient<T>& g, Vec<T>& diffuse, Vec<T>& shine, T* terms) {
    const Beam<T> b = make_beam<kPoint, kGlossy>(light, shininess, s, x);
    diffuse = plus(diffuse, b.facing * b.over_fade, vec(light + 3));
    T by_facing = dot(up_diffuse, vec(light + 3)) * b.over_fade;
    T by_fade = -b.facing * by_facing * b.over_fade;
    T by_shininess = T(0);
    Vec<T> gl = {T(0), T(0), T(0)};
    if (kGlossy) {
        shine = plus(shine, b.peak * b.over_fade, vec(light + 6));
        const T by_peak = dot(up_shine, vec(light + 6)) * b.over_fade;
        by_fade -= b.peak * by_peak * b.over_fade;
        by_shininess = by_peak * b.peak * b.log_mirrored;
        const T by_mirrored = by_peak * shininess * b.peak / b.mirrored;
        by_facing += T(2) * dot(s.n, s.v) * by_mirrored;
        const T by_nv = T(2) * b.facing * by_mirrored;
        g.n = plus(g.n, by_nv, s.v);
        g.v = plus(plus(g.v, by_nv, s.n), -by_mirrored, b.way);
        gl = times(-by_mirrored, s.v);
    }
    g.n = plus(g.n, by_facing, b.way);
    gl = plus(gl, by_facing, s.n);
    if (kPoint) {
        gl = unit_backward(b.way, b.inverse, gl);
        gl = plus(gl, (light[10] + T(2) * light[11] * b.r) * by_fade, b.way);
        g.x = plus(g.x, T(-1), gl);
    }
    if (!kTerms) return;
    const Vec<T> by_diffuse = times(b.facing * b.over_fade, up_diffuse), by_shine = times(b.peak * b.over_fade, up_shine);
    const T all[kLightTerms] = {by_shininess, gl.x, gl.y, gl.z, by_diffuse.x, by_diffuse.y, by_diffuse.z,
                                by_shine.x, by_shine.y, by_shine.z, kPoint ? by_fade : T(0),
                                kPoint ? b.r * by_fade : T(0), kPoint ? b.r * b.r * by_fade : T(0)};
    for (int i = 0; i < kLightTerms; ++i) terms[i] = all[i];
}

// From the unit vectors to the normal and the place; `viewer`: the gradient of the row's first three.
template <class T>
GEODIFF_HD void sight_backward(const Sight<T>& s, bool parallel_view, const SightGradient<T>& g, Vec<T>& normal, Vec<T>& x,
                               Vec<T>& viewer) {
    normal = unit_backward(s.n, s.n_inverse, g.n);
    viewer = g.v;
    x = g.x;
    if (!parallel_view) {
        viewer = unit_backward(s.v, s.v_inverse, g.v);
        x = plus(x, T(-1), viewer);
    }
}

}  // namespace gd
