// SPDX-License-Identifier: Apache-2.0
// What the bindings of all rooms share: arrays that Python hands over, and the SIMD level in use.
//
// Arguments were checked in Python (geodiff/ops); what nanobind refuses here is a mistake of ours, not of a user.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <vector>

#include "jobs.h"

namespace geodiff {

namespace nb = nanobind;

extern const Kernels* level;  // chosen in module.cpp

template <class T, size_t D>
using Array = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;
template <class T>
using Flat = nb::ndarray<T, nb::c_contig, nb::device::cpu>;  // of any shape; empty where not asked for

// The name of an argument that is an array: of this dtype and layout, never a converted copy.
inline nb::arg operator""_array(const char* name, size_t) {
    nb::arg argument(name);
    argument.noconvert();
    return argument;
}

template <class A>
auto or_null(const A& array) {
    return array.size() ? array.data() : nullptr;
}

// The kernel of the job's dtype, without Python's lock.
template <template <class> class Job, class T>
void run(const Kernel<Job>& kernel, const Job<T>& job) {
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        kernel.single(job);
    } else {
        kernel.twice(job);
    }
}

// Gives an array to Python, which frees it.
template <class V>
nb::ndarray<nb::numpy, V> handed(std::vector<V>&& values, std::initializer_list<size_t> shape) {
    auto* kept = new std::vector<V>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<V>*>(p); });
    return nb::ndarray<nb::numpy, V>(kept->data(), shape, owner);
}

void bind_axes(nb::module_& m);
void bind_checks(nb::module_& m);
void bind_matrix(nb::module_& m);
void bind_nearest(nb::module_& m);
void bind_pieces(nb::module_& m);
void bind_remesh(nb::module_& m);
void bind_raster(nb::module_& m);
void bind_visibility(nb::module_& m);
void bind_softmax(nb::module_& m);
void bind_shading(nb::module_& m);
void bind_splines_and_transport(nb::module_& m);
void bind_surface_net(nb::module_& m);
void bind_winding(nb::module_& m);
void bind_smoothing(nb::module_& m);
void bind_charts(nb::module_& m);

}  // namespace geodiff
