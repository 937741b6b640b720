// SPDX-License-Identifier: Apache-2.0
// Smoothing of clouds, to Python: arguments were made there (geodiff/atlas/smoothing.py).
#include "bindings.h"

namespace geodiff {
namespace {

template <class T>
void smooth_along_normals(Array<const T, 2> points, Array<const int, 2> near, Array<const T, 1> reach,
                          Array<const T, 1> width, double spread, double turn, Array<T, 2> out, int threads) {
    SmoothJob<T> job;
    job.from = points.data();
    job.near = near.data();
    job.reach = reach.data();
    job.width = width.data();
    job.count = static_cast<long long>(near.shape(0));
    job.neighbours = static_cast<int>(near.shape(1));
    job.spread = T(spread);
    job.turn = T(turn);
    job.threads = threads;
    job.to = out.data();
    run(level->smooth_along_normals, job);
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("smooth_along_normals", &smooth_along_normals<T>, nb::kw_only(), "points"_array, "near"_array, "reach"_array,
          "width"_array, "spread"_a, "turn"_a, "out"_array, "threads"_a = 1);
}

}  // namespace

void bind_smoothing(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
