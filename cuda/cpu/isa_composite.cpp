// SPDX-License-Identifier: Apache-2.0
// Images composed of the colours of the pixels that see a surface, and a background. A thread owns a range of pixels.
#include "../shading/composite.h"
#include "grid.h"
#include "jobs.h"
#include "parallel.h"
#include "search.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::CompositeJob<T>;

constexpr i64 kPixelBlock = 4096;

// Calls body(pixel, point or −1, row of the background), and returns how many points it met.
template <class T, class Body>
i64 each_pixel(const Job<T>& job, Body&& body) {
    const i64 blocks = (job.pixels + kPixelBlock - 1) / kPixelBlock;
    Scratch<i64> met(blocks);
    parallel(blocks, blocks < 4 ? 1 : job.threads, [&](i64 block) {
        const i64 first = block * kPixelBlock, end = min(job.pixels, first + kPixelBlock);
        const i64 start = first_at_least(job.place, job.points, first);
        i64 p = start, row = first % job.background_rows;
        for (i64 i = first; i < end; ++i) {
            const bool seen = p < job.points && job.place[p] == i;
            body(i, seen ? p++ : i64(-1), row);
            row = row + 1 == job.background_rows ? 0 : row + 1;
        }
        met[block] = p - start;
    });
    i64 sum = 0;
    for (i64 block = 0; block < blocks; ++block) sum += met[block];
    return sum;
}

// kChannels: known to the compiler, or 0.
template <int kChannels, class T>
void forward_as(const Job<T>& job) {
    const int c = kChannels ? kChannels : job.channels;
    *job.met = each_pixel(job, [&](i64 i, i64 p, i64 row) {
        const T* color = p < 0 ? nullptr : job.color + p * c;
        composite(job.alpha[i], color, job.background + row * c, c, job.out + i * c);
    });
}

template <int kChannels, class T>
void backward_as(const Job<T>& job) {
    const int c = kChannels ? kChannels : job.channels;
    *job.met = each_pixel(job, [&](i64 i, i64 p, i64 row) {
        const T* color = p < 0 ? nullptr : job.color + p * c;
        T* grad_color = p < 0 ? nullptr : job.grad_color + p * c;
        job.grad_alpha[i] =
            composite_backward(job.alpha[i], color, job.background + row * c, c, job.upstream + i * c, grad_color);
    });
}

template <class T>
void forward(const Job<T>& job) {
    job.channels == 3 ? forward_as<3>(job) : forward_as<0>(job);
}

template <class T>
void backward(const Job<T>& job) {
    job.channels == 3 ? backward_as<3>(job) : backward_as<0>(job);
}

}  // namespace

const geodiff::Kernel<geodiff::CompositeJob> kernel::composite_forward = {forward, forward};
const geodiff::Kernel<geodiff::CompositeJob> kernel::composite_backward = {backward, backward};

}  // namespace gd
