// SPDX-License-Identifier: Apache-2.0
// The extension geodiff.native._cpu.

#include <nanobind/nanobind.h>

namespace {

// The widest SIMD level that both this machine and this build have. Named features, since compilers that know
// -march=x86-64-v3 do not all know that name here.
const char* simd_level() {
#if GEODIFF_HAS_V3
  bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#if GEODIFF_HAS_V4
  if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return "v4";
#endif
  if (v3) return "v3";
#endif
  return "baseline";
}

}  // namespace

NB_MODULE(_cpu, m) { m.def("simd_level", &simd_level, "Name the SIMD level that the kernels use on this machine."); }
