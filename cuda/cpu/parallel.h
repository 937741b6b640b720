// SPDX-License-Identifier: Apache-2.0
// The one way work is spread over threads on the CPU.
#pragma once

namespace geodiff {

// Calls body(context, i) for i in [0, count) on up to `threads` threads, in any order: iterations must write to
// disjoint places, and what they reduce must be reduced afterwards in a fixed order.
//
// torch's OpenMP workers go on spinning for milliseconds after each of its operations, and threads of our own would have
// to share cores with them. So where an OpenMP runtime is already in the process, its workers are borrowed; none is
// linked or loaded. In a forked child, where that would hang, and where there is none, std::thread does the work.
void parallel_for(long long count, int threads, void (*body)(void*, long long), void* context);

// The same for a lambda.
template <class Body>
void parallel(long long count, int threads, Body&& body) {
    parallel_for(
        count, threads, [](void* context, long long i) { (*static_cast<Body*>(context))(i); }, &body);
}

// Which of the two is in use: "openmp" or "threads".
const char* parallel_backend();

}  // namespace geodiff
