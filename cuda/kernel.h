// SPDX-License-Identifier: Apache-2.0
// What a file with kernels needs beside the mathematics. Its kernels stand under #if GEODIFF_KERNELS: for a GPU's
// compiler, or for the emulator (emulated/execution.h); the CPU's build takes the mathematics alone.
#pragma once
#include "portability.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__) || defined(GEODIFF_EMULATED)
#define GEODIFF_KERNELS 1
#else
#define GEODIFF_KERNELS 0
#endif

namespace gd {

template <class T>
struct Identity {
    using type = T;
};

}  // namespace gd

// A variable in the shared memory of a block, whatever the block before left there: GEODIFF_SHARED(sums, double[128]).
#if defined(GEODIFF_EMULATED)
#define GEODIFF_SHARED(name, ...)                                                     \
    static char name##_site;                                                          \
    auto& name = *static_cast<typename ::gd::Identity<__VA_ARGS__>::type*>(           \
        ::emulated::shared(&name##_site, sizeof(typename ::gd::Identity<__VA_ARGS__>::type)))
#else
#define GEODIFF_SHARED(name, ...) __shared__ typename ::gd::Identity<__VA_ARGS__>::type name
#endif
