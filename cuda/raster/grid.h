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

}  // namespace gd
