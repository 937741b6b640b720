// SPDX-License-Identifier: Apache-2.0
// Vectors of three numbers, as much of them as light and normals need.
#pragma once
#include "../math/elementary.h"

namespace gd {

template <class T>
struct Vec {
    T x, y, z;
};
template <class T>
GEODIFF_HD Vec<T> vec(const T* v) {
    return {v[0], v[1], v[2]};
}
template <class T>
GEODIFF_HD T dot(const Vec<T>& a, const Vec<T>& b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class T>
GEODIFF_HD Vec<T> cross(const Vec<T>& a, const Vec<T>& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
// a + s·b
template <class T>
GEODIFF_HD Vec<T> plus(const Vec<T>& a, T s, const Vec<T>& b) {
    return {a.x + s * b.x, a.y + s * b.y, a.z + s * b.z};
}
template <class T>
GEODIFF_HD Vec<T> times(T s, const Vec<T>& a) {
    return {s * a.x, s * a.y, s * a.z};
}
// Coordinate by coordinate.
template <class T>
GEODIFF_HD Vec<T> hadamard(const Vec<T>& a, const Vec<T>& b) {
    return {a.x * b.x, a.y * b.y, a.z * b.z};
}
template <class T>
GEODIFF_HD T largest(const Vec<T>& a) {
    return max(abs(a.x), max(abs(a.y), abs(a.z)));
}
// The gradient of a/|a| given that of the result `unit`.
template <class T>
GEODIFF_HD Vec<T> unit_backward(const Vec<T>& unit, T inverse, const Vec<T>& g) {
    return times(inverse, plus(g, -dot(unit, g), unit));
}

}  // namespace gd
