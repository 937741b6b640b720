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
        case kValuesRates: return run<D, Reversed, kValuesRates, T>;
        case kShapeRates: break;
    }
    return nullptr;
}

// A symmetric distribution reversed is itself with the shift's sign changed, which the caller sees to.
template <class D, Kind kind, Parameter parameter, class T>
CdfStage<T> pick(bool reversed, Need need) {
    if constexpr (parameter == Parameter::shape) {
        if (need == kShapeRates) return reversed ? run_gamma<true, true, T> : run_gamma<false, true, T>;
        return reversed ? run_gamma<true, false, T> : run_gamma<false, false, T>;
    } else if constexpr (kind == Kind::skewed) {
        return reversed ? pick<D, true, T>(need) : pick<D, false, T>(need);
    } else {
        return pick<D, false, T>(need);
    }
}

}  // namespace

template <class T>
CdfStage<T> cdf_stage(int distribution, bool reversed, Need need) {
    switch (distribution) {
#define DISTRIBUTION(number, Struct, kind, parameter) \
    case number: return pick<Struct, Kind::kind, Parameter::parameter, T>(reversed, need);
#include "../../geodiff/members.def"
    }
    return nullptr;
}

}  // namespace gd
