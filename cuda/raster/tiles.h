// SPDX-License-Identifier: Apache-2.0
// Which faces a tile of 16 × 16 pixels may see: bits that silhouette_setup marks, a word of 32 faces at a time, become a
// list in ascending order. All 256 threads of a block call.
#pragma once
#include "coverage.h"
#include "grid.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kTile = 16, kTilePixels = kTile * kTile;
constexpr int kWords = 64;     // that become a list at once
constexpr int kTogether = 16;  // faces in shared memory

struct TileList {
    int face[32 * kWords], sums[kWords];
};

// Fills the list from kWords words, every so many-th from w on, as far as they go, and returns its length.
GEODIFF_HD int fill_list(TileList& list, const u32* bits, int w, int end, int every = 1) {
    const int t = threadIdx.x, lane = t & 31, word = w + t * every;
    const u32 mine = t < kWords && word < end ? bits[word] : 0u;
    int n = __popc(mine);
    for (int d = 1; d < 32; d *= 2) {
        const int before = __shfl_up_sync(0xFFFFFFFFu, n, d);
        if (lane >= d) n += before;
    }
    __syncthreads();  // the list is no longer read
    if (t < kWords) list.sums[t] = n;
    __syncthreads();
    if (t < kWords) {
        int to = n - __popc(mine) + (t >= 32 ? list.sums[31] : 0);
        for (u32 m = mine; m; m &= m - 1) list.face[to++] = word * 32 + __ffs(int(m)) - 1;
    }
    __syncthreads();
    return list.sums[31] + list.sums[kWords - 1];
}

// Copies the faces that the list names from place i on, kTogether of them, into shared memory.
template <class A>
GEODIFF_HD void fetch(A* some, const A* all, const TileList& list, int i, int count) {
    static_assert(sizeof(A) % 4 == 0, "copied word by word");
    constexpr int size = sizeof(A) / 4;
    for (int j = threadIdx.x; j < kTogether * size; j += kTilePixels)
        if (i + j / size < count)
            reinterpret_cast<int*>(some)[j] = reinterpret_cast<const int*>(all + list.face[i + j / size])[j % size];
}

// The centres of the outermost pixels of a block of them.
template <class T>
GEODIFF_HD Box<T> centres(int height, int width, int row, int column, int rows, int columns) {
    return {pixel_x<T>(height, width, column), pixel_x<T>(height, width, column + columns - 1),
            pixel_y<T>(height, width, row + rows - 1), pixel_y<T>(height, width, row)};
}

// The pixel of a thread, and the centres of the outermost pixels of its warp, which is 8 × 4 of the tile.
template <class T>
struct TilePixel {
    int row, column;
    T x, y;
    Box<T> warp;

    GEODIFF_HD TilePixel(int tile, int across, int height, int width) {
        const int lane = int(threadIdx.x) & 31, own = int(threadIdx.x) >> 5;
        const int first_row = tile / across * kTile + own / 2 * 4, first_column = tile % across * kTile + own % 2 * 8;
        row = first_row + lane / 8;
        column = first_column + lane % 8;
        x = pixel_x<T>(height, width, column);
        y = pixel_y<T>(height, width, row);
        warp = centres<T>(height, width, first_row, first_column, 4, 8);
    }
};

}  // namespace gd

#endif
