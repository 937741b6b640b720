// SPDX-License-Identifier: Apache-2.0
#include "parallel.h"

#include <atomic>
#include <thread>
#include <vector>

namespace geodiff {

void parallel_for(long long count, int threads, void (*body)(void*, long long), void* context) {
    const long long workers = threads < count ? threads : count;
    if (workers <= 1) {
        for (long long i = 0; i < count; ++i) body(context, i);
        return;
    }
    std::atomic<long long> next{0};
    const auto work = [&] {
        for (long long i = next++; i < count; i = next++) body(context, i);
    };
    std::vector<std::thread> pool;
    pool.reserve(static_cast<size_t>(workers - 1));
    for (long long i = 1; i < workers; ++i) pool.emplace_back(work);
    work();
    for (std::thread& thread : pool) thread.join();
}

}  // namespace geodiff
