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
