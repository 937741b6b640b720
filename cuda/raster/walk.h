// SPDX-License-Identifier: Apache-2.0
// Every so many-th pixel of a box, without a division for each.
#pragma once
#include "grid.h"
#include "reach.h"

namespace gd {

struct BoxWalk {
    int row, column;
    int columns, end_column, down, right;

    // The pixel number `first` of the box, row by row, and then every step-th.
    GEODIFF_HD BoxWalk(const PixelBox& box, i64 first, int step) {
        columns = box.end_column - box.first_column;
        end_column = box.end_column;
        row = box.first_row + int(first / columns);
        column = box.first_column + int(first % columns);
        down = step / columns;
        right = step % columns;
    }
    GEODIFF_HD void next() {
        row += down;
        column += right;
        if (column < end_column) return;
        column -= columns;
        ++row;
    }
};

}  // namespace gd
