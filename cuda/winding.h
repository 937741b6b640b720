// SPDX-License-Identifier: Apache-2.0
// Terms of the winding number of oriented points: W(x) = Σ_j μ_j·d / (4π (d·d + w²)^(3/2)) with d = y_j − x, for points
// y_j whose normals μ_j are as long as the area that each stands for. Inside a closed surface W is 1, outside 0, on it ½.
// The width w > 0 takes away the pole.
#pragma once
#include "math/elementary.h"

namespace gd {

constexpr double kOverFourPi = 0.0795774715459476678844;

// W
template <class T>
GEODIFF_HD void winding_term(T dx, T dy, T dz, T square, const T* mu, T& out) {
    const T r2 = dx * dx + dy * dy + dz * dz + square;
    out += (dx * mu[0] + dy * mu[1] + dz * mu[2]) / (r2 * sqrt(r2));
}

// The transpose of W: what s_j at the places of x bring to μ at y.
template <class T>
GEODIFF_HD void winding_adjoint_term(T dx, T dy, T dz, T square, T s, T& out_x, T& out_y, T& out_z) {
    const T r2 = dx * dx + dy * dy + dz * dz + square;
    const T share = -s / (r2 * sqrt(r2));
    out_x += dx * share;
    out_y += dy * share;
    out_z += dz * share;
}

// −∂W/∂x, which points along the outward normal.
template <class T>
GEODIFF_HD void winding_slope_term(T dx, T dy, T dz, T square, const T* mu, T& out_x, T& out_y, T& out_z) {
    const T r2 = dx * dx + dy * dy + dz * dz + square;
    const T share = T(1) / (r2 * sqrt(r2));
    const T along = T(3) * (dx * mu[0] + dy * mu[1] + dz * mu[2]) / r2;
    out_x += (mu[0] - along * dx) * share;
    out_y += (mu[1] - along * dy) * share;
    out_z += (mu[2] - along * dz) * share;
}

}  // namespace gd
