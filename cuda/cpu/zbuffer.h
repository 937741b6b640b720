// SPDX-License-Identifier: Apache-2.0
// The z-buffer of a band of rows: what the hard rasteriser and the fragments of hard images share.
#pragma once
#include "../raster/hard.h"
#include "grid.h"

namespace gd {

constexpr int kZBandRows = 16;

struct Rows {
    int first, end;
};

// Which faces touch each band of rows, in order: without it every band would look at all faces.
struct Bins {
    int bands;
    Scratch<i64> start;
    Scratch<int> faces;

    static i64 entries(const Rows* rows, i64 count) {
        i64 total = 0;
        for (i64 f = 0; f < count; ++f) {
            if (rows[f].first < rows[f].end) total += (rows[f].end - 1) / kZBandRows - rows[f].first / kZBandRows + 1;
        }
        return total;
    }

    Bins(const Rows* rows, i64 count, int bands_) : bands(bands_), start(bands_ + 2), faces(entries(rows, count)) {
        for (int b = 0; b < bands + 2; ++b) start[b] = 0;
        for (i64 f = 0; f < count; ++f) {
            for (int b = rows[f].first / kZBandRows; rows[f].first < rows[f].end && b <= (rows[f].end - 1) / kZBandRows; ++b)
                ++start[b + 2];
        }
        for (int b = 2; b < bands + 2; ++b) start[b] += start[b - 1];
        for (i64 f = 0; f < count; ++f) {
            for (int b = rows[f].first / kZBandRows; rows[f].first < rows[f].end && b <= (rows[f].end - 1) / kZBandRows; ++b)
                faces[start[b + 1]++] = int(f);
        }
    }
};

template <class T>
struct Band {
    const Grid<T>& grid;
    const HardFace<T>* faces;
    const Reach<T>* reaches;
    int first_row, end_row, stride;
    T* depth;
    int* winner;

    void draw(int f) {
        const HardFace<T>& face = faces[f];
        const Reach<T>& reach = reaches[f];
        const int to = min(reach.end_row, end_row);
        const T* xs = grid.columns();
        for (int row = max(reach.first_row, first_row); row < to; ++row) {
            const T y = grid.y(row);
            int first, end;
            reach.columns(y, grid, first, end);
            T* z = depth + i64(row - first_row) * stride;
            int* id = winner + i64(row - first_row) * stride;
            for (int column = first; column < end; column += kLane) {
                T here[kLane], side[kLane];
                for (int i = 0; i < kLane; ++i) {
                    T inner = T(0);
                    for (int k = 0; k < 3; ++k) inner = on_inner_side(face, k, xs[column + i], y) ? inner : T(-1);
                    side[i] = inner;
                }
                if (face.n == 4) {
                    for (int i = 0; i < kLane; ++i) {
                        side[i] = on_inner_side(face, 3, xs[column + i], y) ? side[i] : T(-1);
                    }
                }
                for (int i = 0; i < kLane; ++i) here[i] = depth_at(face, xs[column + i], y);
                for (int i = 0; i < kLane; ++i) {
                    const bool wins = side[i] >= T(0) && here[i] < z[column + i];
                    z[column + i] = wins ? here[i] : z[column + i];
                    id[column + i] = wins ? f : id[column + i];
                }
            }
        }
    }
};

}  // namespace gd
