// SPDX-License-Identifier: Apache-2.0
// Light at a few points at once, each in a lane of its own, so that a compiler can vectorise over them.
#pragma once
#include "../shading/light.h"
#include "grid.h"

namespace gd {

constexpr int kLitPoints = 16;  // at once, one a lane

// A vector for each lane, coordinate by coordinate.
template <class T>
struct VecLanes {
    T at[3][kLitPoints];

    Vec<T> operator[](int i) const { return {at[0][i], at[1][i], at[2][i]}; }
    void set(int i, const Vec<T>& v) {
        at[0][i] = v.x;
        at[1][i] = v.y;
        at[2][i] = v.z;
    }
    void copy_to(int i, T* out) const {
        for (int k = 0; k < 3; ++k) out[k] = at[k][i];
    }
};

template <class T>
struct LightLanes {
    VecLanes<T> normal, x;               // given; all lanes must hold numbers
    VecLanes<T> diffuse, shine;          // what the surface's colour is multiplied with, and the highlight
    VecLanes<T> up_diffuse, up_shine;    // given for backward
    VecLanes<T> by_normal, by_x;         // gradients

    void forward(const LightModel<T>& m) {
        start(m);
        for (int l = 0; l < m.lights; ++l) {
            with_light(m, l, *this);
        }
    }

    // Also does what `forward` does. Adds the gradient of the row that the first `used` lanes make, unless it is null.
    void backward(const LightModel<T>& m, double* grad_row, int used) {
        start(m);
        for (int k = 0; k < 3; ++k) {
            for (int i = 0; i < kLitPoints; ++i) by_n.at[k][i] = by_v.at[k][i] = by_x.at[k][i] = T(0);
        }
        for (int l = 0; l < m.lights; ++l) {
            with_light(m, l, *this, grad_row);
            if (!grad_row) continue;
            grad_row[light_place(l, 0)] += sum(terms[0], used);
            for (int c = 1; c < kLightTerms; ++c) grad_row[light_place(l, c)] += sum(terms[c], used);
        }
        const bool parallel_view = m.parallel_view;
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            Vec<T> normal_i, x_i, viewer;
            sight_backward(sight(i), parallel_view, {by_n[i], by_v[i], by_x[i]}, normal_i, x_i, viewer);
            by_normal.set(i, normal_i);
            by_x.set(i, x_i);
            by_v.set(i, viewer);
        }
        for (int k = 0; grad_row && k < 3; ++k) {
            grad_row[viewer_place(k)] += sum(by_v.at[k], used);
            grad_row[ambient_place(k)] += sum(up_diffuse.at[k], used);
        }
    }

  private:
    VecLanes<T> n, v, by_n, by_v;
    T n_inverse[kLitPoints], v_inverse[kLitPoints], terms[kLightTerms][kLitPoints];

    Sight<T> sight(int i) const { return {n[i], v[i], n_inverse[i], v_inverse[i]}; }

    static double sum(const T* values, int used) {
        double total = 0;
        for (int i = 0; i < used; ++i) total += values[i];
        return total;
    }

    void start(const LightModel<T>& m) {
        const bool parallel_view = m.parallel_view;
        const T row[3] = {m.row[0], m.row[1], m.row[2]};
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            const Sight<T> s = make_sight(row, parallel_view, normal[i], x[i]);
            n.set(i, s.n);
            v.set(i, s.v);
            n_inverse[i] = s.n_inverse;
            v_inverse[i] = s.v_inverse;
        }
        for (int k = 0; k < 3; ++k) {
            for (int i = 0; i < kLitPoints; ++i) {
                diffuse.at[k][i] = m.row[ambient_place(k)];
                shine.at[k][i] = T(0);
            }
        }
    }

  public:  // for with_light
    template <bool kPoint, bool kGlossy>
    void light(const T* given, T shininess) {
        T light[kReflectLight];
        for (int k = 0; k < kReflectLight; ++k) light[k] = given[k];
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            Vec<T> d = diffuse[i], s = shine[i];
            add_light<kPoint, kGlossy>(light, shininess, sight(i), x[i], d, s);
            diffuse.set(i, d);
            shine.set(i, s);
        }
    }

    template <bool kPoint, bool kGlossy>
    void light(const T* given, T shininess, double* grad_row) {
        if (grad_row) {
            back<kPoint, kGlossy, true>(given, shininess);
        } else {
            back<kPoint, kGlossy, false>(given, shininess);
        }
    }

  private:
    template <bool kPoint, bool kGlossy, bool kTerms>
    void back(const T* given, T shininess) {
        T light[kReflectLight];
        for (int k = 0; k < kReflectLight; ++k) light[k] = given[k];
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            Vec<T> d = diffuse[i], s = shine[i];
            SightGradient<T> g = {by_n[i], by_v[i], by_x[i]};
            T own[kLightTerms];
            light_backward<kPoint, kGlossy, kTerms>(light, shininess, sight(i), x[i], up_diffuse[i], up_shine[i], g, d, s, own);
            diffuse.set(i, d);
            shine.set(i, s);
            by_n.set(i, g.n);
            by_v.set(i, g.v);
            by_x.set(i, g.x);
            for (int c = 0; kTerms && c < kLightTerms; ++c) terms[c][i] = own[c];
        }
    }
};

}  // namespace gd
