// SPDX-License-Identifier: Apache-2.0
// The extension geodiff.native._cpu: picks the SIMD level and hands plain pointers to its kernels.
#include <nanobind/stl/string.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "parallel.h"

namespace gd_baseline {
const geodiff::Kernels& kernels();
}
#if GEODIFF_HAS_V3
namespace gd_v3 {
const geodiff::Kernels& kernels();
}
#endif
#if GEODIFF_HAS_V4
namespace gd_v4 {
const geodiff::Kernels& kernels();
}
#endif

namespace geodiff {
namespace {

// The SIMD levels that both this machine and this build have, the widest last. Named features, since compilers that know
// -march=x86-64-v3 do not all know that name here.
std::vector<const Kernels*> levels() {
    std::vector<const Kernels*> all = {&gd_baseline::kernels()};
#if GEODIFF_HAS_V3
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (v3) all.push_back(&gd_v3::kernels());
#if GEODIFF_HAS_V4
    if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        all.push_back(&gd_v4::kernels());
#endif
#endif
    return all;
}

}  // namespace

const Kernels* level = levels().back();

namespace {

std::vector<std::string> kernels() {
    return {
#define KERNEL(name, Job) #name,
#include "kernels.def"
        // Compiled once, for all levels.
        "jumps", "matrix_times", "nearest_triangle", "neighbour_axes", "net_sum", "pieces_take", "remesh",
        "self_intersections", "surface_net",
    };
}

std::vector<std::string> simd_levels() {
    std::vector<std::string> names;
    for (const Kernels* k : levels()) names.push_back(k->name);
    return names;
}

void set_simd_level(const char* name) {
    for (const Kernels* k : levels()) {
        if (std::strcmp(k->name, name) == 0) {
            level = k;
            return;
        }
    }
    throw std::invalid_argument(std::string("SIMD level not available here: ") + name);
}

}  // namespace
}  // namespace geodiff

NB_MODULE(_cpu, m) {
    using namespace geodiff;
    m.def("kernels", &kernels, "Name the kernels.");
    m.def("simd_level", [] { return level->name; }, "Name the SIMD level that the kernels use.");
    m.def("simd_levels", &simd_levels, "Name those that this machine has, the widest last.");
    m.def("parallel_backend", &parallel_backend, "Name what runs the threads: 'openmp' or 'threads'.");
    m.def("set_simd_level", &set_simd_level, "Use another SIMD level that this machine has.");
    bind_axes(m);
    bind_checks(m);
    bind_matrix(m);
    bind_nearest(m);
    bind_pieces(m);
    bind_remesh(m);
    bind_visibility(m);
    bind_softmax(m);
    bind_raster(m);
    bind_shading(m);
    bind_splines_and_transport(m);
    bind_surface_net(m);
    bind_winding(m);
    bind_smoothing(m);
    bind_charts(m);
}
