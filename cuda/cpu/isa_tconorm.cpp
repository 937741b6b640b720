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

// Of power_levels.h.
template <class C, class T>
void level(const CdfBatch<T>& batch, int n, T* __restrict out) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = C::level(load(batch, i));
}

// Groups may be of the same pixels, so one comes after the other.
template <class C, class T>
void gather(const T* level, const i64* at, int n, T q, T* top, T* sum) {
    for (int g = 0; g < n; g += kLane) {
        T* tops = top + at[g / kLane];
        T* sums = sum + at[g / kLane];
#pragma GCC ivdep
        for (int i = 0; i < kLane; ++i) C::add(level[g + i], q, tops[i], sums[i]);
    }
}

template <class C, class T>
void level_pair(const CdfBatch<T>& batch, const T* __restrict top, const T* __restrict e, int n, T q, T* __restrict out) {
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) out[i] = C::pair(load(batch, i), top[i], e[i], q);
}

template <class C, class T>
void level_value(const T* __restrict top, const T* __restrict sum, i64 n, T q, T* __restrict alpha) {
#pragma GCC ivdep
    for (i64 i = 0; i < n; ++i) alpha[i] = C::value(top[i], sum[i], q);
}

template <class C, class T>
void level_pixel(const T* __restrict top, const T* __restrict sum, i64 n, T q, T* __restrict m, T* __restrict e) {
#pragma GCC ivdep
    for (i64 i = 0; i < n; ++i) C::pixel(top[i], sum[i], q, m[i], e[i]);
}

template <class C, class T>
double level_by_p(const T* level, const T* top, const T* rest, const T* weight, int n, double q) {
    double total = 0;
    for (int i = 0; i < n; ++i) {
        if (weight[i] != T(0)) total += double(weight[i]) * C::by_p(double(level[i]), double(top[i]), double(rest[i]), q);
    }
    return total;
}

template <class C>
LevelSlope level_slope(double top, double sum, double q) {
    const double rest = C::rest(top, sum, q);
    return {C::slope(top, sum, q), C::by_p_at(top, rest, q), rest};
}

Need with_rates(Need need) { return need == kLogS ? kLogSRate : need == kLogF ? kLogFRate : kValuesRates; }

template <class C, class T>
LevelStages<T> levels() {
    return {C::kNeed,         with_rates(C::kNeed), C::template none<T>(), C::template least<T>(), level<C, T>,   gather<C, T>,
            level_pair<C, T>, level_value<C, T>,    level_pixel<C, T>,     level_by_p<C, T>,       level_slope<C>};
}

template <class C, Keeps keeps, class T>
TConormStages<T> family() {
    if constexpr (keeps == Keeps::sum || keeps == Keeps::levels) {
        return {C::kNeed,    with_rates(C::kNeed), C::kUsesE,  term<C, T>, pair<C, T>,
                value<C, T>, pixel<C, T>,          by_p<C, T>, slope<C>,   by_p_at<C>};
    } else {
        return {kValues, kValuesRates, false, plain_term<T>, density<T>, nullptr, nullptr, nullptr, nullptr, nullptr};
    }
}

}  // namespace

// Of the others, nothing.
template <class T>
LevelStages<T> level_stages(int tconorm) {
    switch (tconorm) {
#define OF_levels(number, Struct) case number: return levels<Struct##Levels, T>();
#define OF_sum(number, Struct)
#define OF_winner(number, Struct)
#define OF_mean(number, Struct)
#define TCONORM(number, Struct, keeps, parameter) OF_##keeps(number, Struct)
#include "../../geodiff/members.def"
    }
    return {};
}

template LevelStages<float> level_stages<float>(int);
template LevelStages<double> level_stages<double>(int);

template <class T>
TConormStages<T> tconorm_stages(int tconorm) {
    switch (tconorm) {
#define TCONORM(number, Struct, keeps, parameter) case number: return family<Struct, Keeps::keeps, T>();
#include "../../geodiff/members.def"
    }
    return {};
}

template TConormStages<float> tconorm_stages<float>(int);
template TConormStages<double> tconorm_stages<double>(int);

}  // namespace gd
