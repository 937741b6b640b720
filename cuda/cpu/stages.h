// SPDX-License-Identifier: Apache-2.0
// The silhouette pipeline on the CPU works on a batch of pixel–face pairs at a time: distance → CDF → T-conorm → sum.
// Each stage is a loop of its own, picked once a call, so instantiations add up (distributions + T-conorms) and do not
// multiply; the arrays stay in the first-level cache.
#pragma once
#include "../power_levels.h"
#include "grid.h"
#include "members.h"

namespace gd {

constexpr int kBatch = 256;  // pairs in a batch

// One batch of F, 1 − F, their logs and rates.
template <class T>
struct CdfBatch {
    alignas(64) T F[kBatch], S[kBatch], log_F[kBatch], log_S[kBatch], over_S[kBatch], over_F[kBatch];
};

template <class T>
struct DistributionParams {
    T shift;
    const GammaTable<T>* gamma;
};

template <class T>
using CdfStage = void (*)(const T* x, int n, const DistributionParams<T>&, CdfBatch<T>&);
template <class T>
CdfStage<T> cdf_stage(int distribution, bool reversed, Need need);

// out[i] = s(a_i)
template <class T>
using TermStage = void (*)(const CdfBatch<T>&, int n, const TConormParams<T>&, T* out);
// out[i] = pair(c_i, e_i)
template <class T>
using PairStage = void (*)(const CdfBatch<T>&, const T* e, int n, const TConormParams<T>&, T* out);
// alpha = s⁻¹(t)
template <class T>
using ValueStage = void (*)(const T* t, i64 n, const TConormParams<T>&, T* alpha);
template <class T>
using PixelStage = void (*)(const T* t, i64 n, const TConormParams<T>&, T* m, T* e);
// Σ weight[i]·by_p(s(a_i)), in double; and by_p(t), slope(t) of a pixel
template <class T>
using ByPStage = double (*)(const T* term, const T* weight, int n, double p);

// The same of power_levels.h, where a pixel keeps `top` and `sum`. `at` is where a group of kLane pairs belongs.
template <class T>
using LevelStage = void (*)(const CdfBatch<T>&, int n, T* level);
template <class T>
using GatherStage = void (*)(const T* level, const i64* at, int n, T q, T* top, T* sum);
template <class T>
using LevelPairStage = void (*)(const CdfBatch<T>&, const T* top, const T* e, int n, T q, T* out);
template <class T>
using LevelValueStage = void (*)(const T* top, const T* sum, i64 n, T q, T* alpha);
template <class T>
using LevelPixelStage = void (*)(const T* top, const T* sum, i64 n, T q, T* m, T* e);
// Σ weight[i]·by_p; and of a pixel its slope, by_p_at and rest
template <class T>
using LevelByPStage = double (*)(const T* level, const T* top, const T* rest, const T* weight, int n, double q);
struct LevelSlope {
    double slope, by_p, rest;
};

template <class T>
struct LevelStages {
    Need forward_need, backward_need;
    T none;   // the level of nothing
    T least;  // |p| below which it makes no difference
    LevelStage<T> level;
    GatherStage<T> gather;
    LevelPairStage<T> pair;
    LevelValueStage<T> value;
    LevelPixelStage<T> pixel;
    LevelByPStage<T> by_p;
    LevelSlope (*slope)(double top, double sum, double q);
};
template <class T>
LevelStages<T> level_stages(int tconorm);

template <class T>
struct TConormStages {
    Need forward_need, backward_need;
    bool uses_e;
    TermStage<T> term;
    PairStage<T> pair;
    ValueStage<T> value;
    PixelStage<T> pixel;
    ByPStage<T> by_p;
    double (*slope)(double t, double p);
    double (*by_p_at)(double t, double p);
};
// Maximum and average have no more than term = F and pair = f; their sums are the caller's business.
template <class T>
TConormStages<T> tconorm_stages(int tconorm);

}  // namespace gd
