// SPDX-License-Identifier: Apache-2.0
// What differs between g++/clang, nvcc and NVRTC, and nothing else. No standard header is included: NVRTC has none.
#pragma once

#if defined(__CUDACC_RTC__)
#define GEODIFF_HD __device__ __forceinline__
#elif defined(__CUDACC__)
#define GEODIFF_HD __host__ __device__ __forceinline__
#elif defined(_MSC_VER)
#define GEODIFF_HD __forceinline
#else
#define GEODIFF_HD inline __attribute__((always_inline))
#endif

// True while code for the GPU is generated: its own exp, log and friends are used there, ours on the host.
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
#define GEODIFF_ON_DEVICE 1
#else
#define GEODIFF_ON_DEVICE 0
#endif

// The CPU build compiles these headers once for each SIMD level. A namespace for each keeps the linker from serving one
// level's functions to another (see CMakeLists.txt).
#if defined(GEODIFF_ISA)
#define GEODIFF_JOIN_(a, b) a##b
#define GEODIFF_JOIN(a, b) GEODIFF_JOIN_(a, b)
#define gd GEODIFF_JOIN(gd_, GEODIFF_ISA)
#endif

namespace gd {

// Widths are the same on every platform we build for, and long long is 64 bit on Windows too.
using i32 = int;
using i64 = long long;
using u32 = unsigned int;
using u64 = unsigned long long;
static_assert(sizeof(i32) == 4 && sizeof(i64) == 8, "unexpected integer widths");

template <class To, class From>
GEODIFF_HD To bits_as(From value) {
    static_assert(sizeof(To) == sizeof(From), "bits_as needs equal sizes");
#if GEODIFF_ON_DEVICE
    union {
        From from;
        To to;
    } u;
    u.from = value;
    return u.to;
#else
    return __builtin_bit_cast(To, value);
#endif
}

template <class T>
GEODIFF_HD T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
GEODIFF_HD T max(T a, T b) {
    return a < b ? b : a;
}
template <class T>
GEODIFF_HD T clamp(T x, T low, T high) {
    return min(max(x, low), high);
}
template <class T>
GEODIFF_HD T abs(T x) {
    return x < T(0) ? -x : x;
}

}  // namespace gd
