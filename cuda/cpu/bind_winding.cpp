// SPDX-License-Identifier: Apache-2.0
// Winding numbers of clouds, to Python: arguments were checked there, the tree is made there (geodiff/atlas/winding.py).
#include <string>

#include "bindings.h"

namespace geodiff {
namespace {

WindingSum of_name(const std::string& name) {
    if (name == "field") return WindingSum::field;
    if (name == "adjoint") return WindingSum::adjoint;
    if (name == "slope") return WindingSum::slope;
    throw nb::value_error("sum must be field, adjoint or slope");
}

template <class T>
void winding_sum(const char* sum, Array<const T, 2> places, Array<const T, 2> source, Array<const T, 2> balls,
                 Array<const int, 2> links, Array<const int, 1> leaves, double width, double reach, Array<T, 2> out,
                 int threads) {
    WindingJob<T> job;
    job.places = places.data();
    job.source = source.data();
    job.balls = balls.data();
    job.links = links.data();
    job.leaves = leaves.data();
    job.num_nodes = static_cast<long long>(links.shape(0));
    job.num_leaves = static_cast<long long>(leaves.shape(0));
    job.sum = of_name(sum);
    job.width = T(width);
    job.reach = T(reach);
    job.threads = threads;
    job.out = out.data();
    run(level->winding_sum, job);
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("winding_sum", &winding_sum<T>, nb::kw_only(), "sum"_a, "places"_array, "source"_array, "balls"_array,
          "links"_array, "leaves"_array, "width"_a, "reach"_a, "out"_array, "threads"_a = 1);
}

}  // namespace

void bind_winding(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
