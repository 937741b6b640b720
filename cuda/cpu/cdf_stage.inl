// SPDX-License-Identifier: Apache-2.0
// Included by isa_cdf_f32.cpp and isa_cdf_f64.cpp: two files, so that two cores compile them.
#include "stages.h"

namespace gd {
namespace {

template <class D, bool Reversed, Need need, class T>
void run(const T* __restrict x, int n, const DistributionParams<T>& params, CdfBatch<T>& out) {
    const T shift = params.shift;
    T* __restrict F = out.F;
    T* __restrict S = out.S;
    T* __restrict log_F = out.log_F;
    T* __restrict log_S = out.log_S;
    T* __restrict over_S = out.over_S;
    T* __restrict over_F = out.over_F;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
        const T v = Reversed ? shift - x[i] : x[i] + shift;
        Cdf<T> c = D::at(v);
        if constexpr (Reversed) c = gd::reversed(c);
        if constexpr (need == kValues || need == kValuesRates) {
            F[i] = c.F;
            S[i] = c.S;
        }
        if constexpr (need != kLogS && need != kLogSRate) log_F[i] = c.log_F;
        if constexpr (need != kLogF && need != kLogFRate) log_S[i] = c.log_S;
        if constexpr (need == kLogSRate || need == kValuesRates) over_S[i] = c.over_S;
        if constexpr (need == kLogFRate || need == kValuesRates) over_F[i] = c.over_F;
    }
}

// Gamma: its series run over a block; ∂F/∂k takes the place of f when the shape's gradient is asked for.
template <bool Reversed, bool Shape, class T>
void run_gamma(const T* __restrict x, int n, const DistributionParams<T>& params, CdfBatch<T>& out) {
    constexpr int N = kLane;
    for (int start = 0; start < n; start += N) {
        T v[N];
        CdfBlock<T, N> c;
        for (int i = 0; i < N; ++i) v[i] = Reversed ? params.shift - x[start + i] : x[start + i] + params.shift;
        Gamma::at<Shape>(*params.gamma, v, c);
        for (int i = 0; i < N; ++i) {
            out.F[start + i] = Reversed ? c.S[i] : c.F[i];
            out.S[start + i] = Reversed ? c.F[i] : c.S[i];
            out.log_F[start + i] = Reversed ? c.log_S[i] : c.log_F[i];
            out.log_S[start + i] = Reversed ? c.log_F[i] : c.log_S[i];
            if constexpr (Shape) {
                const T by_shape = Reversed ? -c.by_shape[i] : c.by_shape[i];
                out.over_S[start + i] = by_shape / max(out.S[start + i], Real<T>::least);
                out.over_F[start + i] = by_shape / max(out.F[start + i], Real<T>::least);
            } else {
                out.over_S[start + i] = Reversed ? c.over_F[i] : c.over_S[i];
                out.over_F[start + i] = Reversed ? c.over_S[i] : c.over_F[i];
            }
        }
    }
}

template <class D, bool Reversed, class T>
CdfStage<T> pick(Need need) {
    switch (need) {
        case kLogS: return run<D, Reversed, kLogS, T>;
        case kLogF: return run<D, Reversed, kLogF, T>;
        case kValues: return run<D, Reversed, kValues, T>;
        case kLogSRate: return run<D, Reversed, kLogSRate, T>;
        case kLogFRate: return run<D, Reversed, kLogFRate, T>;
        default: return run<D, Reversed, kValuesRates, T>;
    }
}

// A symmetric law's reversed form is the law itself with the shift's sign changed, which the caller sees to.
template <class D, class T>
CdfStage<T> pick(bool reversed, Need need) {
    if constexpr (D::one_sided) {
        return reversed ? pick<D, true, T>(need) : pick<D, false, T>(need);
    } else {
        return pick<D, false, T>(need);
    }
}

template <class T>
CdfStage<T> pick_gamma(bool reversed, Need need) {
    if (need == kShapeRates) return reversed ? run_gamma<true, true, T> : run_gamma<false, true, T>;
    return reversed ? run_gamma<true, false, T> : run_gamma<false, false, T>;
}

}  // namespace

template <class T>
CdfStage<T> cdf_stage(int distribution, bool reversed, Need need) {
    switch (distribution) {
        case 0: return pick<Heaviside, T>(reversed, need);
        case 1: return pick<Uniform, T>(reversed, need);
        case 2: return pick<CubicHermite, T>(reversed, need);
        case 3: return pick<WignerSemicircle, T>(reversed, need);
        case 4: return pick<Gaussian, T>(reversed, need);
        case 5: return pick<Laplace, T>(reversed, need);
        case 6: return pick<Logistic, T>(reversed, need);
        case 7: return pick<HyperbolicSecant, T>(reversed, need);
        case 8: return pick<Cauchy, T>(reversed, need);
        case 9: return pick<Reciprocal, T>(reversed, need);
        case 10: return pick<GumbelMax, T>(reversed, need);
        case 11: return pick<GumbelMax, T>(!reversed, need);  // Gumbel-min is Gumbel-max reversed
        case 12: return pick<Exponential, T>(reversed, need);
        case 13: return pick_gamma<T>(reversed, need);
        case 14: return pick<Levy, T>(reversed, need);
        default: return nullptr;
    }
}

}  // namespace gd
