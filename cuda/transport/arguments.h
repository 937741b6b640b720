// SPDX-License-Identifier: Apache-2.0
// What a kernel of optimal transport is handed, on the CPU and on the GPU: plain pointers and numbers, checked in Python.
#pragma once

namespace geodiff {

// Sums over j of exp(k_i + h_j − C_ij/ε)·(…), with C_ij = |x_i − y_j|ᵖ.
template <class T>
struct TransportJob {
    const T* x;  // (B, rows, dim)
    const T* y;  // (B, columns, dim)
    const T* h;  // (B, columns), −infinity leaves a column out
    const T* k;  // (B, rows); not for lse
    const T* v;  // (B, columns, width); not for lse
    T* out;      // lse: (B, rows); apply: (B, rows, width); apply_gradient: (B, rows, width, dim)
    long long batch, rows, columns;
    int dim, width;
    int p;  // 1 or 2
    double epsilon;
    int threads;
};

}  // namespace geodiff
