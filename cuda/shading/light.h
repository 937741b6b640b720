// SPDX-License-Identifier: Apache-2.0
// The lights of one image, and what its row of numbers (reflect.h) gets from them. The CPU goes through them with many
// points side by side, a GPU with one point a thread.
#pragma once
#include "reflect.h"

namespace gd {

// What does not change from point to point of one image.
template <class T>
struct LightModel {
    const T* row;
    const int* kinds;
    int lights;
    bool parallel_view, glossy;
};

// Calls visit.light<whether it has a place, whether there are highlights>(its numbers, shininess, more…) for light l.
template <class T, class Visit, class... More>
GEODIFF_HD void with_light(const LightModel<T>& m, int l, Visit& visit, More... more) {
    const T* light = m.row + kReflectHead + kReflectLight * l;
    const T shininess = m.row[3];
    if (m.kinds[l] != 0) {
        m.glossy ? visit.template light<true, true>(light, shininess, more...)
                 : visit.template light<true, false>(light, shininess, more...);
    } else {
        m.glossy ? visit.template light<false, true>(light, shininess, more...)
                 : visit.template light<false, false>(light, shininess, more...);
    }
}

// Where in the row a light's terms go, of kLightTerms: the shininess is every light's. Then the viewer's and the ambient.
GEODIFF_HD int light_place(int l, int term) { return term == 0 ? 3 : kReflectHead + kReflectLight * l + term - 1; }
GEODIFF_HD int viewer_place(int k) { return k; }
GEODIFF_HD int ambient_place(int k) { return 4 + k; }

template <class T>
struct ShineOn {
    const Sight<T>& s;
    const Vec<T>& x;
    Vec<T>&diffuse, &shine;

    template <bool kPoint, bool kGlossy>
    GEODIFF_HD void light(const T* numbers, T shininess) {
        add_light<kPoint, kGlossy>(numbers, shininess, s, x, diffuse, shine);
    }
};

// Light on a point: what the surface's colour is multiplied with, and the highlight.
template <class T>
GEODIFF_HD void shine_on(const LightModel<T>& m, const Sight<T>& s, const Vec<T>& x, Vec<T>& diffuse, Vec<T>& shine) {
    diffuse = vec(m.row + ambient_place(0));
    shine = {T(0), T(0), T(0)};
    ShineOn<T> add = {s, x, diffuse, shine};
    for (int l = 0; l < m.lights; ++l) with_light(m, l, add);
}

template <class T, bool kTerms>
struct ShineBack {
    const Sight<T>& s;
    const Vec<T>&x, &up_diffuse, &up_shine;
    SightGradient<T>& g;
    Vec<T>&diffuse, &shine;
    T* terms;

    template <bool kPoint, bool kGlossy>
    GEODIFF_HD void light(const T* numbers, T shininess) {
        light_backward<kPoint, kGlossy, kTerms>(numbers, shininess, s, x, up_diffuse, up_shine, g, diffuse, shine, terms);
    }
};

// The way back from light l, which is added to g; its terms if they are wanted.
template <bool kTerms, class T>
GEODIFF_HD void shine_back(const LightModel<T>& m, int l, const Sight<T>& s, const Vec<T>& x, const Vec<T>& up_diffuse,
                           const Vec<T>& up_shine, SightGradient<T>& g, Vec<T>& diffuse, Vec<T>& shine, T* terms) {
    ShineBack<T, kTerms> back = {s, x, up_diffuse, up_shine, g, diffuse, shine, terms};
    with_light(m, l, back);
}

// Gradients of normal, place and the row's viewer; `diffuse` is what the surface's colour was multiplied with.
template <class T>
GEODIFF_HD void shine_backward(const LightModel<T>& m, const Sight<T>& s, const Vec<T>& x, const Vec<T>& up_diffuse,
                               const Vec<T>& up_shine, Vec<T>& by_normal, Vec<T>& by_x, Vec<T>& by_viewer, Vec<T>& diffuse) {
    SightGradient<T> g = {{T(0), T(0), T(0)}, {T(0), T(0), T(0)}, {T(0), T(0), T(0)}};
    Vec<T> shine = {T(0), T(0), T(0)};
    diffuse = vec(m.row + ambient_place(0));
    for (int l = 0; l < m.lights; ++l)
        shine_back<false>(m, l, s, x, up_diffuse, up_shine, g, diffuse, shine, static_cast<T*>(nullptr));
    sight_backward(s, m.parallel_view, g, by_normal, by_x, by_viewer);
}

}  // namespace gd
