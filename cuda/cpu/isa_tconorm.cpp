// SPDX-License-Identifier: Apache-2.0
// The T-conorm stages: a loop a family and quantity.
#include "stages.h"

namespace gd {
namespace {

template <class T>
GEODIFF_HD Cdf<T> load(const CdfBatch<T>& batch, int i) {
    return {batch.F[i], batch.S[i], batch.log_F[i], batch.log_S[i], batch.over_S[i], batch.over_F[i]};
}

template <class C, class T>
void term(const CdfBatch<T>& batch, int n, const TConormParams<T>& params, T* __restrict out) {
    const TConormParams<T> local = params;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = C::term(load(batch, i), local);
}

template <class C, class T>
void pair(const CdfBatch<T>& batch, const T* __restrict e, int n, const TConormParams<T>& params, T* __restrict out) {
    const TConormParams<T> local = params;
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = C::pair(load(batch, i), e[i], local);
}

template <class C, class T>
void value(const T* __restrict t, i64 n, const TConormParams<T>& params, T* __restrict alpha) {
    const TConormParams<T> local = params;
#pragma GCC ivdep
    for (i64 i = 0; i < n; ++i) alpha[i] = C::value(t[i], local);
}

template <class C, class T>
void pixel(const T* __restrict t, i64 n, const TConormParams<T>& params, T* __restrict m, T* __restrict e) {
    const TConormParams<T> local = params;
#pragma GCC ivdep
    for (i64 i = 0; i < n; ++i) C::pixel(t[i], local, m[i], e[i]);
}

template <class C, class T>
double by_p(const T* terms, const T* weight, int n, double p) {
    const TConormParams<double> params = tconorm_params<double>(p);
    double sum = 0;
    for (int i = 0; i < n; ++i) {
        if (weight[i] != T(0)) sum += double(weight[i]) * C::by_p(double(terms[i]), params);
    }
    return sum;
}

template <class C>
double slope(double t, double p) {
    return C::slope(t, tconorm_params<double>(p));
}
template <class C>
double by_p_at(double t, double p) {
    return C::by_p(t, tconorm_params<double>(p));
}

template <class C, class T>
TConormStages<T> family(Need forward, Need backward, bool uses_e) {
    return {forward,     backward,    uses_e,     term<C, T>, pair<C, T>,
            value<C, T>, pixel<C, T>, by_p<C, T>, slope<C>,   by_p_at<C>};
}

// Maximum and average: the term is F and the rate f, taken from the smaller of F and S so that neither loses digits.
template <class T>
void plain_term(const CdfBatch<T>& batch, int n, const TConormParams<T>&, T* __restrict out) {
    for (int i = 0; i < n; ++i) out[i] = batch.F[i];
}
template <class T>
void density(const CdfBatch<T>& batch, const T*, int n, const TConormParams<T>&, T* __restrict out) {
    for (int i = 0; i < n; ++i)
        out[i] = batch.F[i] < batch.S[i] ? batch.F[i] * batch.over_F[i] : batch.S[i] * batch.over_S[i];
}

}  // namespace

template <class T>
TConormStages<T> tconorm_stages(int tconorm) {
    switch (tconorm) {
        case 1: return family<Probabilistic, T>(kLogS, kLogSRate, false);
        case 2: return family<Einstein, T>(kValues, kValuesRates, false);
        case 3: return family<Hamacher, T>(kValues, kValuesRates, true);
        case 4: return family<Frank, T>(kValues, kValuesRates, false);
        case 5: return family<Yager, T>(kLogF, kLogFRate, true);
        case 6: return family<AczelAlsina, T>(kLogS, kLogSRate, true);
        case 7: return family<Dombi, T>(kValues, kValuesRates, true);
        case 8: return family<SchweizerSklar, T>(kLogS, kLogSRate, true);
        default:
            return {kValues, kValuesRates, false, plain_term<T>, density<T>, nullptr, nullptr, nullptr, nullptr, nullptr};
    }
}

template TConormStages<float> tconorm_stages<float>(int);
template TConormStages<double> tconorm_stages<double>(int);

}  // namespace gd
