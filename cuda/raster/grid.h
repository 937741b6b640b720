// SPDX-License-Identifier: Apache-2.0
// Where the pixels are in NDC: row 0 is the top, centres at +0.5, the shorter side spans [−1, 1].
//
// Every kernel takes its centres from here. A whole number, divided once, is the number of type T nearest to the exact
// place, at every image size and whatever multiplications a compiler fuses with the additions that follow: a centre on
// x = 1 is 1, so whether it lies on an edge is the same question for all of them.
#pragma once
#include "../portability.h"

namespace gd {

GEODIFF_HD int shorter_side(int height, int width) { return min(height, width); }

template <class T>
GEODIFF_HD T pixel_x(int height, int width, int column) {
    return T(2 * column + 1 - width) / T(shorter_side(height, width));
}

template <class T>
GEODIFF_HD T pixel_y(int height, int width, int row) {
    return T(height - 1 - 2 * row) / T(shorter_side(height, width));
}

// The same numbers where many are wanted: n/d is rounded once for whole numbers below 2²⁴ if the remainder of n·(1/d),
// which is exact, corrects it (Markstein, "Computation of elementary functions on the IBM RISC System/6000", 1990).
template <class T>
struct PixelGrid {
    int height, width;
    T side, inverse;
    GEODIFF_HD PixelGrid(int h, int w) : height(h), width(w), side(T(shorter_side(h, w))), inverse(T(1) / side) {}
    GEODIFF_HD T over_side(int n) const {
        const T quotient = T(n) * inverse;
        return fused(fused(-quotient, side, T(n)), inverse, quotient);
    }
    GEODIFF_HD T x(int column) const { return over_side(2 * column + 1 - width); }
    GEODIFF_HD T y(int row) const { return over_side(height - 1 - 2 * row); }

  private:
#if GEODIFF_ON_DEVICE
    GEODIFF_HD static float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
    GEODIFF_HD static double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
#else
    GEODIFF_HD static float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
    GEODIFF_HD static double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }
#endif
};

}  // namespace gd
