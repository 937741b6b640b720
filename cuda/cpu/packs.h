// SPDX-License-Identifier: Apache-2.0
// Packs: as many numbers as the machine adds at once.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // packs are only passed to functions that are inlined
#endif

#include "../spline/basis.h"
#include "grid.h"

namespace gd {

#if defined(_MSC_VER)
template <class T>
struct PackOf {
    using Type = T;
};
#else
#if defined(__AVX512F__)
constexpr int kPackBytes = 64;
#else
constexpr int kPackBytes = 32;
#endif
typedef float PackF32 __attribute__((vector_size(kPackBytes)));
typedef double PackF64 __attribute__((vector_size(kPackBytes)));
template <class T>
struct PackOf;
template <>
struct PackOf<float> {
    using Type = PackF32;
};
template <>
struct PackOf<double> {
    using Type = PackF64;
};
template <>
struct Lanes<PackF32> {
    using Real = float;
    static constexpr int count = kPackBytes / 4;
    GEODIFF_HD static PackF32 of(float x) { return x - PackF32{}; }
};
template <>
struct Lanes<PackF64> {
    using Real = double;
    static constexpr int count = kPackBytes / 8;
    GEODIFF_HD static PackF64 of(double x) { return x - PackF64{}; }
};
#endif

template <class T>
using Pack = typename PackOf<T>::Type;

template <class V, class T>
GEODIFF_HD V load(const T* from) {
    V v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
}
template <class V, class T>
GEODIFF_HD void store(T* to, const V& v) {
    __builtin_memcpy(to, &v, sizeof v);
}

// The sum over the lanes of a pack, by halves. Lanes are named one by one, which keeps them out of memory.
template <int First, int Step, int Count, class V>
GEODIFF_HD typename Lanes<V>::Real add_some(const V& v) {
    if constexpr (Count == 1) {
        return v[First];
    } else {
        return add_some<First, 2 * Step, Count / 2>(v) + add_some<First + Step, 2 * Step, Count / 2>(v);
    }
}
template <class T>
GEODIFF_HD T add_lanes(const Pack<T>& v) {
#if !defined(_MSC_VER)
    if constexpr (sizeof(T) == 4 && Lanes<Pack<T>>::count == 8) {
        typedef float Half __attribute__((vector_size(16)));
        const Half sum = Half{v[0], v[1], v[2], v[3]} + Half{v[4], v[5], v[6], v[7]};
        return (sum[0] + sum[2]) + (sum[1] + sum[3]);
    } else
#endif
    if constexpr (Lanes<Pack<T>>::count > 1) {
        return add_some<0, 1, Lanes<Pack<T>>::count>(v);
    } else {
        return v;
    }
}

// The first address of a Scratch that is a multiple of 64; it has room for 16 numbers too many. Packs that straddle cache
// lines cost double.
template <class T>
T* aligned(const Scratch<T>& scratch) {
    return reinterpret_cast<T*>((reinterpret_cast<u64>(scratch.get()) + 63) / 64 * 64);
}

}  // namespace gd
