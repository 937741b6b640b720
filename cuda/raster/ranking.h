// SPDX-License-Identifier: Apache-2.0
// Which of the faces that reach a pixel come first. Each has a key, the least comes first, and of equal ones the face with
// the lowest number.
#pragma once
#include "../math/elementary.h"

namespace gd {

// Which fragments are kept, and their order: nearest in depth; what is seen; largest weight F·exp(−depth·sharpness).
enum FragmentOrder { kByDepth = 0, kVisible = 1, kByWeight = 2 };

// log F over u = d/(|d| + unit) in [−1, 1], of a signed distance d.
template <class T>
struct WeightTable {
    const T* entries;
    int size;
    T unit;
};

template <class T>
GEODIFF_HD T log_weight(const WeightTable<T>& table, T d) {
    const T size = min(abs(d), T(1e30));  // where a square overflowed, d is infinite
    const T u = (d < T(0) ? -size : size) / (size + table.unit);
    const T at = clamp((u + T(1)) * T(0.5) * T(table.size - 1), T(0), T(table.size - 1));
    const int i = at > T(0) ? int(min(at, T(table.size - 2))) : 0;  // 0 for NaN, too
    const T part = at - T(i);
    return table.entries[i] + part * (table.entries[i + 1] - table.entries[i]);
}

// The key of a softmax over depth.
template <class T>
GEODIFF_HD T softmax_key(T depth, T base, T sharpness, T log_weight) {
    return clamp((depth - base) * sharpness - log_weight, T(-1e30), T(1e30));
}

// What is compared with keys. As keys round, all are given room.
template <class T>
GEODIFF_HD T room(T key) {
    return T(0.01) + T(8) * Real<T>::epsilon * abs(key);
}

// A pixel's list of the k least keys, in order, its end filled with the largest number.
template <class T>
GEODIFF_HD void insert(T* keys, int* names, int k, T key, int name) {
    int s = k - 1;
    if (!(key < keys[s])) return;
    for (; s > 0 && key < keys[s - 1]; --s) {
        keys[s] = keys[s - 1];
        names[s] = names[s - 1];
    }
    keys[s] = key;
    names[s] = name;
}

// Of a pixel that no face covers: the nearest one. Faces that meet at an outline tie: one turned away comes second, then
// one whose middle is farther. As in geodiff/reference/fragments.py.
constexpr double kHandicap = 1e-3, kMiddle = 1e-4;

template <class T>
GEODIFF_HD T rim_handicap(T orientation) {
    return orientation > T(0) ? T(1) : T(1 + kHandicap);
}

// (dx, dy): from the face's middle.
template <class T>
GEODIFF_HD T rim_key(T d2, T handicap, T dx, T dy) {
    return d2 * handicap + T(kMiddle) * (dx * dx + dy * dy);
}

}  // namespace gd
