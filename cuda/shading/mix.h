// SPDX-License-Identifier: Apache-2.0
// A softmax over depth: of rows with weights F and depths, w ∝ F·exp(z·sharpness), z = (far − depth)/(far − near).
#pragma once
#include "../math/elementary.h"

namespace gd {

constexpr double kNever = -1e30;  // log F where F is 0: finite, so that nothing becomes NaN

// z where all depths are one is ½.
template <class T>
GEODIFF_HD T nearness_of(T depth, T far, T span) {
    return span > T(0) ? (far - depth) / span : T(0.5);
}

// Where a group's rows are between near and far.
template <class T>
struct MixRange {
    T far, span;

    template <class Job>
    GEODIFF_HD MixRange(const Job& job, i64 group) {
        const T* ends = job.ends + (job.row ? 2 * i64(job.row[group]) : 0);
        far = ends[1];
        span = ends[1] - ends[0];
    }
    GEODIFF_HD T z(T depth) const { return nearness_of(depth, far, span); }
};

// The logarithm of a row's weight; the group's largest z is taken out before it is multiplied.
template <class T>
GEODIFF_HD T mix_logit(T log_weight, T z, T top, T sharpness) {
    return max(log_weight, T(kNever)) + (z - top) * sharpness;
}

// What a row with the upstream gradient `by_z` of its z, and z itself, passes back to its depth and to near and far.
template <class T>
GEODIFF_HD T nearness_backward(T by_z, T z, T span, double& by_near, double& by_far) {
    if (!(span > T(0))) return T(0);
    const T by_depth = -by_z / span;
    by_near -= double(by_depth) * double(z);
    by_far -= double(by_depth) * (1 - double(z));
    return by_depth;
}

}  // namespace gd
