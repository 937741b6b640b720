// SPDX-License-Identifier: Apache-2.0
// This SIMD level's entry in the table that module.cpp picks from, and the elementary functions for their tests.
#include "stages.h"

#define GEODIFF_TEXT_(x) #x
#define GEODIFF_TEXT(x) GEODIFF_TEXT_(x)

namespace gd {

namespace {

template <class T>
void math(int function, double, const T* __restrict in, T* __restrict out, i64 n) {
    switch (function) {
        case 0: for (i64 i = 0; i < n; ++i) out[i] = gd::exp(in[i]); break;
        case 1: for (i64 i = 0; i < n; ++i) out[i] = gd::log(in[i]); break;
        case 2: for (i64 i = 0; i < n; ++i) out[i] = gd::log1p(in[i]); break;
        case 3: for (i64 i = 0; i < n; ++i) out[i] = gd::expm1(in[i]); break;
        case 4: for (i64 i = 0; i < n; ++i) out[i] = gd::atan_positive(in[i]); break;
        case 5: for (i64 i = 0; i < n; ++i) out[i] = gd::erfcx(in[i]); break;
        default: break;
    }
}

}  // namespace

const geodiff::Kernels& kernels() {
    static const geodiff::Kernels table = {
        GEODIFF_TEXT(GEODIFF_ISA),
#define KERNEL(name, Job) kernel::name,
#include "kernels.def"
        math<float>,
        math<double>,
    };
    return table;
}

}  // namespace gd
