// SPDX-License-Identifier: Apache-2.0
// Binary search.
#pragma once
#include "../portability.h"

namespace gd {

// Where in ascending numbers the first is that is no less than `value`; `count` if none is.
inline i64 first_at_least(const i64* sorted, i64 count, i64 value) {
    i64 low = 0, high = count;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (sorted[middle] < value) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

}  // namespace gd
