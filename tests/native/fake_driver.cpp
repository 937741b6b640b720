// SPDX-License-Identifier: Apache-2.0
// A libcuda.so.1 for tests: the driver's functions that geodiff calls, through cuda-bindings as on a device, and nothing
// else. A "CUBIN" names a library that the emulator has built, whose kernel runs at its launch. Each call is written down,
// and answered with an error where a test asks for one.
//
//   g++ -shared -fPIC -std=c++17 -Wl,-soname,libcuda.so.1 fake_driver.cpp -o libcuda.so.1 -ldl
#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>

using Status = int;
constexpr Status kSuccess = 0, kInvalidValue = 1, kInvalidImage = 200, kNotFound = 500;

namespace {

struct Kernel {
    const char* (*launch)(const unsigned*, const unsigned*, void**, int, unsigned);
    int (*sizes)(long long*);
    std::string name;
};

int version = 13000;
std::string calls;
std::map<std::string, Status> failures;  // of the next call of a function

Status said(const char* name) {
    calls += std::string(calls.empty() ? "" : " ") + name;
    const auto found = failures.find(name);
    if (found == failures.end()) return kSuccess;
    const Status status = found->second;
    failures.erase(found);
    return status;
}

}  // namespace

#define CALLED if (const Status status = said(__func__)) return status

extern "C" {

// --- what tests say and ask

void fake_fail(const char* function, int status) { failures[function] = status; }
void fake_version(int number) { version = number; }
const char* fake_calls() {
    static std::string told;
    told = calls;
    calls.clear();
    return told.c_str();
}

// --- what cuda-bindings looks for

Status cuInit(unsigned) {
    CALLED;
    return kSuccess;
}

Status cuDriverGetVersion(int* out) {
    CALLED;
    *out = version;
    return kSuccess;
}

// The image is "EMULATED <path of a library>\n", as tests hand it instead of what NVRTC makes.
Status cuLibraryLoadData(void** library, const void* image, void* options, void** values, unsigned count, void*, void**,
                         unsigned count_library) {
    CALLED;
    const char* text = static_cast<const char*>(image);
    const char *head = "EMULATED ", *end = strchr(text, '\n');
    if (strncmp(text, head, strlen(head)) || !end || count || count_library) return kInvalidImage;
    const std::string path(text + strlen(head), end);
    return (*library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) ? kSuccess : kInvalidImage;
}

Status cuLibraryGetKernel(void** kernel, void* library, const char* name) {
    CALLED;
    auto* made = new Kernel;
    made->name = name;
    made->launch = reinterpret_cast<decltype(made->launch)>(dlsym(library, "geodiff_launch"));
    made->sizes = reinterpret_cast<decltype(made->sizes)>(dlsym(library, "geodiff_sizes"));
    *kernel = made;
    return made->launch && made->sizes ? kSuccess : kNotFound;
}

Status cuKernelGetParamInfo(void* kernel, size_t index, size_t* offset, size_t* size) {
    if (version < 12040) abort();  // an older driver has none
    CALLED;
    long long sizes[64];
    const int count = static_cast<Kernel*>(kernel)->sizes(sizes);
    if (index >= size_t(count)) return kInvalidValue;
    *offset = 0;
    for (size_t i = 0; i < index; ++i) *offset += size_t(sizes[i]);
    *size = size_t(sizes[index]);
    return kSuccess;
}

Status cuLaunchKernel(void* kernel, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared_bytes, void* stream, void** parameters, void** extra) {
    CALLED;
    calls += "@" + std::to_string(uintptr_t(stream));
    if (extra || shared_bytes) return kInvalidValue;
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    return static_cast<Kernel*>(kernel)->launch(grid, block, parameters, 0, 0) ? kInvalidValue : kSuccess;
}

Status cuGetProcAddress_v2(const char* name, void** out, int, uint64_t, int* how) {
    void* self = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    const bool later = !strcmp(name, "cuKernelGetParamInfo") && version < 12040;
    const bool latest = !strncmp(name, "cuLibrary", 9) && version < 12000;
    *out = later || latest ? nullptr : dlsym(self, name);
    if (how) *how = *out ? 0 : 1;
    return *out ? kSuccess : kNotFound;
}

Status cuGetProcAddress(const char* name, void** out, int at, uint64_t flags) {
    return cuGetProcAddress_v2(name, out, at, flags, nullptr);
}
}
