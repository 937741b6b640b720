// SPDX-License-Identifier: Apache-2.0
// What a band of `heaviest_bands.h` needs of one face: how far it is looked for, itself made ready to be measured, and what
// is found of it.
#pragma once
#include "fragment_bands.h"

namespace gd {

// How far outside a face log F is above −least, at most; infinite if everywhere.
template <class T>
T farthest(const geodiff::FragmentsJob<T>& job, T least) {
    int low = 0, high = job.table_size / 2;  // the first entry that is not below −least is in (low, high]
    if (!(job.table[0] < -least)) return Real<T>::largest;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (job.table[middle] < -least ? low : high) = middle;
    }
    const T u = T(1) - T(2) * T(low) / T(job.table_size - 1);  // |d|/(|d| + unit)
    return u < T(1) ? job.table_unit * u / (T(1) - u) * T(1.0001) : Real<T>::largest;
}

// The same, rounded up, from a table: most are asked for differences of a few times the spread.
template <class T>
struct Farthest {
    static constexpr int kSteps = 512;
    const geodiff::FragmentsJob<T>& job;
    T per_step;
    T reach[kSteps + 1];

    Farthest(const geodiff::FragmentsJob<T>& j, T spread) : job(j), per_step(T(kSteps) / (T(4) * min(spread, T(1e3)))) {
        for (int i = 0; i <= kSteps; ++i) reach[i] = farthest(job, T(i) / per_step * T(1.0001));
    }
    T operator()(T least) const {
        const T at = least * per_step;
        return at >= T(0) && at < T(kSteps) ? reach[int(at) + 1] : farthest(job, least);
    }
};

template <class T>
bool is_cut(const Polygon<T>& p) {
    bool cut = p.n != 3;
    for (int k = 0; k < p.n; ++k) cut = cut || p.from[k] != k || p.to[k] != k;
    return cut;
}

// A face that is ready to be measured.
template <class T>
struct Measured {
    Polygon<T> p;
    Edge<T> edges[4];
    HardFace<T> hard;
    Clip<T> corner[3];
    int id;

    void init(const Scene<T>& scene, i64 image, const Polygon<T>& polygon, int f) {
        scene.corners(image, f, corner);
        p = polygon;
        id = 2 * f;
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        for (int k = p.n; k < 4; ++k) edges[k] = edges[0];
        hard_face(corner, p, hard);
    }
};

// What is found of a face in kLane pixels of a row, some of which it enters.
template <class T>
struct Record {
    T distance[kLane], barycentric[3][kLane], depth[kLane];
    int face;
};

// A fragment as it is handed over.
template <class T>
struct Found {
    T distance, barycentric[3], depth;
    int face;
};

}  // namespace gd
