// SPDX-License-Identifier: Apache-2.0
// A surface's colour over a background, at one pixel: out = alpha·color + (1 − alpha)·background.
#pragma once
#include "../portability.h"

namespace gd {

// `color` is null where no surface is seen, which is black. Written so that alpha = 0 and alpha = 1 are exact.
template <class T>
GEODIFF_HD void composite(T alpha, const T* color, const T* background, int channels, T* out) {
    for (int i = 0; i < channels; ++i) {
        const T c = color ? color[i] : T(0), b = background[i];
        out[i] = alpha < T(0.5) ? b + alpha * (c - b) : c + (T(1) - alpha) * (b - c);
    }
}

// Returns the gradient of alpha, and writes that of the colour where there is one.
template <class T>
GEODIFF_HD T composite_backward(T alpha, const T* color, const T* background, int channels, const T* upstream,
                                T* grad_color) {
    T sum = T(0);
    for (int i = 0; i < channels; ++i) {
        sum += upstream[i] * ((color ? color[i] : T(0)) - background[i]);
        if (color) grad_color[i] = alpha * upstream[i];
    }
    return sum;
}

}  // namespace gd
