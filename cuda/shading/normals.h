// SPDX-License-Identifier: Apache-2.0
// Normals of vertices: the cross products of two sides of each face around a vertex, summed, over the sum's length; and
// the way back. In double whatever the dtype, and each face in units of its own, so that no square over- or underflows.
#pragma once
#include "vec.h"

namespace gd {

struct Sides {
    Vec<double> ab, ac;  // over `scale`
    double scale;        // the largest of their coordinates, 1 if all are 0
};

template <class T>
GEODIFF_HD Sides make_sides(const T* vertices, const int* face) {
    Vec<double> corner[3];
    for (int k = 0; k < 3; ++k) {
        const T* v = vertices + 3 * i64(face[k]);
        corner[k] = {double(v[0]), double(v[1]), double(v[2])};
    }
    Sides s;
    s.ab = plus(corner[1], -1.0, corner[0]);
    s.ac = plus(corner[2], -1.0, corner[0]);
    s.scale = max(largest(s.ab), largest(s.ac));
    s.scale = s.scale > 0 ? s.scale : 1.0;
    s.ab = {s.ab.x / s.scale, s.ab.y / s.scale, s.ab.z / s.scale};
    s.ac = {s.ac.x / s.scale, s.ac.y / s.scale, s.ac.z / s.scale};
    return s;
}

// What a face adds to the sum of each of its vertices, in units of twice the area of a square of side `whole`, the largest
// scale of the mesh.
GEODIFF_HD Vec<double> face_share(const Sides& s, double whole) {
    const double ratio = s.scale / whole;
    return times(ratio * ratio, cross(s.ab, s.ac));
}
// The gradients of the two sides, given that of the share.
GEODIFF_HD void face_share_backward(const Sides& s, double whole, const Vec<double>& g, Vec<double>& by_ab, Vec<double>& by_ac) {
    const double factor = s.scale / whole / whole;
    by_ab = times(factor, cross(s.ac, g));
    by_ac = times(factor, cross(g, s.ab));
}

// a/|a| and 1/|a|; both 0 where there is no length but the rounding of terms of magnitude `bound` in all.
GEODIFF_HD Vec<double> unit(const Vec<double>& a, double bound, double& inverse) {
    const double most = largest(a);
    inverse = 0;
    if (!(most > 1e-15 * bound)) return {0.0, 0.0, 0.0};
    const Vec<double> scaled = {a.x / most, a.y / most, a.z / most};
    const double length = sqrt(dot(scaled, scaled));
    inverse = 1.0 / length / most;
    return {scaled.x / length, scaled.y / length, scaled.z / length};
}

}  // namespace gd
