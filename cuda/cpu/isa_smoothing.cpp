// SPDX-License-Identifier: Apache-2.0
// Points of a cloud moved along their normals to where their neighbours have the surface; the formula is told in
// geodiff/atlas/smoothing.py. What is known of a point fills a cache line, as neighbours are asked for in any order.
#include "../math/elementary.h"
#include "jobs.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::kSmoothRow;
using geodiff::parallel;
template <class T>
using Job = geodiff::SmoothJob<T>;

constexpr i64 kBlock = 256;  // points that a thread takes at once

template <class T>
void move(const Job<T>& job, i64 i) {
    const T* own = job.from + kSmoothRow * i;
    const int* near = job.near + job.neighbours * i;
    const T x = own[0], y = own[1], z = own[2], a = own[3], b = own[4], c = own[5];
    const T apart = job.spread / max(job.reach[i] * job.reach[i], Real<T>::least);
    const T turn = job.turn, per_width = T(1) / job.width[i];
    T total = T(1), lift = T(0), u = a, v = b, w = c;
#pragma omp simd reduction(+ : total, lift, u, v, w)
    for (int k = 0; k < job.neighbours; ++k) {
        const T* other = job.from + kSmoothRow * i64(near[k]);
        const T dx = other[0] - x, dy = other[1] - y, dz = other[2] - z;
        T p = other[3], q = other[4], r = other[5];
        const T side = a * p + b * q + c * r < T(0) ? T(-1) : T(1);
        p *= side, q *= side, r *= side;
        const T height = (dx * (a + p) + dy * (b + q) + dz * (c + r)) / T(2);
        const T square = dx * dx + dy * dy + dz * dz;
        const T bend = (a - p) * (a - p) + (b - q) * (b - q) + (c - r) * (c - r);
        const T off = height * per_width;
        const T weight = exp(-apart * square - turn * bend - off * off);
        total += weight;
        lift += weight * height;
        u += weight * p, v += weight * q, w += weight * r;
    }
    T* out = job.to + kSmoothRow * i;
    const T step = lift / total, scale = T(1) / max(sqrt(u * u + v * v + w * w), T(1e-30));
    out[0] = x + step * a, out[1] = y + step * b, out[2] = z + step * c;
    out[3] = u * scale, out[4] = v * scale, out[5] = w * scale;
}

template <class T>
void forward(const Job<T>& job) {
    parallel((job.count + kBlock - 1) / kBlock, job.threads, [&](i64 block) {
        const i64 end = min((block + 1) * kBlock, job.count);
        for (i64 i = block * kBlock; i < end; ++i) move(job, i);
    });
}

}  // namespace

const geodiff::Kernel<geodiff::SmoothJob> kernel::smooth_along_normals = {forward, forward};

}  // namespace gd
