// SPDX-License-Identifier: Apache-2.0
// Edge coverage in the silhouette pipeline: a face covers a pixel by ΠF(d_k/τ), d_k the signed distances to the lines of
// its three edges (four where the near plane cuts it). In logarithms: L = Σ log F_k takes the place of log F, and rates
// are in L: ∂L/∂x_k is the rate f/F of edge k.
#pragma once
#include "stages.h"

namespace gd {

template <class T>
struct LineBatch {
    alignas(64) T x[4][kBatch];      // of each edge's line: d/τ, or sgn(d)·d²/τ
    alignas(64) T along[4][kBatch];  // where on the line the foot is; 0…1 between the corners
    alignas(64) T by_d[4][kBatch];   // ∂(τ·x)/∂d
    alignas(64) T rate[4][kBatch];   // f/F
    alignas(64) T log_F[kBatch];
    bool used[4][kBatch / kLane];    // edges that the face of a group has
};

// The pairs from batch.start on, all of one face. Far: some d_k is below −radius, so that ΠF ≤ F_k is negligible.
template <bool Squared, class T, class Batch>
void lines(Batch& batch, LineBatch<T>& to, const Edge<T>* edges, int corners, T radius, T inverse_scale) {
    const int n = batch.n;
    const T* __restrict px = batch.px;
    const T* __restrict py = batch.py;
    T* __restrict keep = batch.keep;
    for (int i = batch.start; i < n; ++i) keep[i] = T(1);
    for (int k = 0; k < 4; ++k) {
        const bool has = k < corners && edges[k].inverse > T(0);
        for (int g = batch.start / kLane; g < n / kLane; ++g) to.used[k][g] = has;
        const Edge<T> e = edges[has ? k : 0];
        T* __restrict x = to.x[k];
        T* __restrict along = to.along[k];
        T* __restrict by_d = to.by_d[k];
        const T limit = has ? -radius : -Real<T>::largest;
#pragma GCC ivdep
        for (int i = batch.start; i < n; ++i) {
            T d;
            line_distance(e, px[i], py[i], d, along[i]);
            x[i] = (Squared ? d * abs(d) : d) * inverse_scale;
            by_d[i] = Squared ? T(2) * abs(d) : T(1);
            keep[i] = d >= limit ? keep[i] : T(0);
        }
    }
    for (int k = 0; k < 4; ++k) {
        T* __restrict x = to.x[k];
        for (int i = batch.start; i < n; ++i) x[i] = keep[i] > T(0) ? x[i] : T(0);  // nothing slow or denormal follows
    }
}

// F, S and their logarithms of the product, and rates in L.
template <class T>
void combine(LineBatch<T>& from, int n, CdfStage<T> stage, bool rates, const DistributionParams<T>& params,
             CdfBatch<T>& out) {
    T* __restrict sum = from.log_F;
    for (int i = 0; i < n; ++i) sum[i] = T(0);
    for (int k = 0; k < 4; ++k) {
        stage(from.x[k], n, params, out);
        for (int g = 0; g < n; g += kLane) {
            const bool used = from.used[k][g / kLane];
            for (int i = g; i < g + kLane; ++i) sum[i] += used ? out.log_F[i] : T(0);
            for (int i = g; rates && i < g + kLane; ++i) from.rate[k][i] = used ? out.over_F[i] : T(0);
        }
    }
#pragma GCC ivdep
    for (int i = 0; i < n; ++i) {
        const Cdf<T> c = product_cdf(sum[i]);
        out.F[i] = c.F;
        out.S[i] = c.S;
        out.log_F[i] = c.log_F;
        out.log_S[i] = c.log_S;
        out.over_S[i] = c.over_S;
        out.over_F[i] = c.over_F;
    }
}

}  // namespace gd
