// SPDX-License-Identifier: Apache-2.0
#include "parallel.h"

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <dlfcn.h>
#include <link.h>
#include <unistd.h>
#endif

namespace geodiff {
namespace {

struct Work {
    long long count;
    void (*body)(void*, long long);
    void* context;
    std::atomic<long long> next{0};

    void run() {
        for (long long i = next++; i < count; i = next++) body(context, i);
    }
};

// GOMP_parallel(function, data, threads, flags), in GNU's runtime and in LLVM's.
using OpenMpParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

#if defined(__linux__)
const pid_t owner = getpid();  // at import

int find_runtime(dl_phdr_info* info, size_t, void* found) {
    const char* name = std::strrchr(info->dlpi_name, '/');
    name = name ? name + 1 : info->dlpi_name;
    if (std::strncmp(name, "libgomp", 7) && std::strncmp(name, "libomp", 6) && std::strncmp(name, "libiomp", 7)) return 0;
    void* library = dlopen(info->dlpi_name, RTLD_NOLOAD | RTLD_LAZY);
    if (!library) return 0;
    *static_cast<void**>(found) = dlsym(library, "GOMP_parallel");
    return *static_cast<void**>(found) != nullptr;
}
#endif

// Null where there is no runtime, or where this process was forked off the one that found it.
OpenMpParallel borrowed() {
#if defined(__linux__)
    static std::atomic<OpenMpParallel> cached{nullptr};
    if (getpid() != owner) return nullptr;
    OpenMpParallel function = cached.load();
    if (!function) {  // torch may be loaded later than we are: look again until it is there
        void* found = nullptr;
        dl_iterate_phdr(find_runtime, &found);
        function = reinterpret_cast<OpenMpParallel>(found);
        cached.store(function);
    }
    return function;
#else
    return nullptr;
#endif
}

}  // namespace

void parallel_for(long long count, int threads, void (*body)(void*, long long), void* context) {
    Work work{count, body, context};
    const long long workers = threads < count ? threads : count;
    if (workers <= 1) {
        work.run();
        return;
    }
    const auto run = [](void* data) { static_cast<Work*>(data)->run(); };
    if (const OpenMpParallel openmp = borrowed()) {
        openmp(run, &work, static_cast<unsigned>(workers), 0);
        return;
    }
    std::vector<std::thread> pool;
    pool.reserve(static_cast<size_t>(workers - 1));
    for (long long i = 1; i < workers; ++i) pool.emplace_back(run, &work);
    work.run();
    for (std::thread& thread : pool) thread.join();
}

const char* parallel_backend() { return borrowed() ? "openmp" : "threads"; }

}  // namespace geodiff
