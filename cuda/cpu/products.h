// SPDX-License-Identifier: Apache-2.0
// Products of matrices that fit into the caches, a tile of the result in registers at a time.
#pragma once
#include "packs.h"

namespace gd {

#if defined(__AVX512F__)
constexpr int kTilePacks = 4;
#elif defined(__AVX2__)
constexpr int kTilePacks = 2;
#else
constexpr int kTilePacks = 1;
#endif
constexpr int kTileRows = 6;

// The left factor, or its transpose: entry (i, k) is data[i·row + k·column].
template <class T>
struct Factor {
    const T* data;
    i64 row, column;
};

template <int Rows, int Packs, class T, class Use>
GEODIFF_HD void product_tile(Factor<T> a, const T* b, i64 stride, int depth, int i, int j, Use&& use) {
    using V = Pack<T>;
    constexpr int lanes = Lanes<V>::count;
    V sum[Rows][Packs];
    GEODIFF_UNROLL for (int r = 0; r < Rows; ++r) {
        GEODIFF_UNROLL for (int c = 0; c < Packs; ++c) sum[r][c] = V{};
    }
    const T* left = a.data + i * a.row;
    const T* right = b + j;
    for (int k = 0; k < depth; ++k, left += a.column, right += stride) {
        V line[Packs];
        GEODIFF_UNROLL for (int c = 0; c < Packs; ++c) line[c] = load<V>(right + c * lanes);
        GEODIFF_UNROLL for (int r = 0; r < Rows; ++r) {
            const V x = Lanes<V>::of(left[r * a.row]);
            GEODIFF_UNROLL for (int c = 0; c < Packs; ++c) sum[r][c] += x * line[c];
        }
    }
    GEODIFF_UNROLL for (int r = 0; r < Rows; ++r) {
        GEODIFF_UNROLL for (int c = 0; c < Packs; ++c) use(i + r, j + c * lanes, sum[r][c]);
    }
}

template <int Packs, class T, class Use>
void product_columns(int rows, int depth, Factor<T> a, const T* b, i64 stride, int j, Use&& use) {
    int i = 0;
    for (; i + kTileRows <= rows; i += kTileRows) product_tile<kTileRows, Packs>(a, b, stride, depth, i, j, use);
    for (; i + kTileRows / 2 <= rows; i += kTileRows / 2) {
        product_tile<kTileRows / 2, Packs>(a, b, stride, depth, i, j, use);
    }
    for (; i < rows; ++i) product_tile<1, Packs>(a, b, stride, depth, i, j, use);
}

// use(i, j, v) for each pack v of entries (i, j …) of A·B, for A of (rows, depth) and B of (depth, columns) with rows of
// `stride`; columns are a multiple of a pack.
template <class T, class Use>
void product(int rows, int columns, int depth, Factor<T> a, const T* b, i64 stride, Use&& use) {
    constexpr int lanes = Lanes<Pack<T>>::count;
    int j = 0;
    for (; j + kTilePacks * lanes <= columns; j += kTilePacks * lanes) {
        product_columns<kTilePacks>(rows, depth, a, b, stride, j, use);
    }
    for (; j < columns; j += lanes) product_columns<1>(rows, depth, a, b, stride, j, use);
}

// Σ_i a_i b_i over a multiple of a pack.
template <class T>
GEODIFF_HD T dot(const T* a, const T* b, int count) {
    using V = Pack<T>;
    V sum = V{};
    for (int i = 0; i < count; i += Lanes<V>::count) sum += load<V>(a + i) * load<V>(b + i);
    return add_lanes<T>(sum);
}

// The sums of the columns of a matrix (rows, columns), which are a multiple of a pack.
template <class T>
void column_sums(int rows, int columns, const T* from, T* out) {
    using V = Pack<T>;
    for (int j = 0; j < columns; j += Lanes<V>::count) {
        V sum = V{};
        for (int i = 0; i < rows; ++i) sum += load<V>(from + i64(i) * columns + j);
        store(out + j, sum);
    }
}

}  // namespace gd
