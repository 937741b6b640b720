// SPDX-License-Identifier: Apache-2.0
// The one way work is spread over threads on the CPU.
#pragma once

namespace geodiff {

// Calls body(context, i) for i in [0, count) on up to `threads` threads, in any order: iterations must write to
// disjoint places, and what they reduce must be reduced afterwards in a fixed order. std::thread rather than OpenMP,
// which hangs after fork and may be loaded twice in one process.
void parallel_for(long long count, int threads, void (*body)(void*, long long), void* context);

// The same for a lambda.
template <class Body>
void parallel(long long count, int threads, Body&& body) {
    parallel_for(
        count, threads, [](void* context, long long i) { (*static_cast<Body*>(context))(i); }, &body);
}

}  // namespace geodiff
