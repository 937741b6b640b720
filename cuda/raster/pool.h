// SPDX-License-Identifier: Apache-2.0
// Lanes of a warp that share their work: what each has is put in a row, and lane after lane takes of it.
#pragma once
#include "../kernel.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// How many pieces the lanes have, up to and with each one's own.
GEODIFF_HD int pieces_up_to(int own) {
    const int lane = threadIdx.x & 31;
    for (int d = 1; d < 32; d *= 2) {
        const int before = __shfl_up_sync(kAllLanes, own, d);
        if (lane >= d) own += before;
    }
    return own;
}

// Which lane has piece i, of what `pieces_up_to` gave each: the first whose pieces end beyond it.
GEODIFF_HD int lane_of_piece(int end, int i) {
    int owner = 0;
#pragma unroll
    for (int half = 16; half > 0; half /= 2) owner += __shfl_sync(kAllLanes, end, owner + half - 1) <= i ? half : 0;
    return owner;
}

// Puts the structs of a warp from shared memory, one a lane, where they stay: word by word, since each lane's own would be
// as many pieces of memory as there are lanes. `count`: how many lanes have one.
template <class A>
GEODIFF_HD void store_together(A* to, const A* from, int count) {
    static_assert(sizeof(A) % 4 == 0, "copied word by word");
    constexpr int words = sizeof(A) / 4;
    for (int i = threadIdx.x & 31; i < count * words; i += 32)
        reinterpret_cast<u32*>(to)[i] = reinterpret_cast<const u32*>(from)[i];
}

}  // namespace gd

#endif
