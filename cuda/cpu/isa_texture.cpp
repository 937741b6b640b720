// SPDX-License-Identifier: Apache-2.0
// Bilinear samples of images on the CPU. Backward, a thread owns a range of texels and goes through all points in order.
#include "../shading/texture.h"
#include "grid.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::TextureJob<T>;

constexpr i64 kPointBlock = 2048;

template <class T>
int threads_for(const Job<T>& job) {
    return job.points < 4000 ? 1 : job.threads;
}

template <class T>
Texels<T> texels_of(const Job<T>& job, i64 p) {
    Texels<T> t = texels(job.uv[2 * p], job.uv[2 * p + 1], job.height, job.width, job.wrap);
    const i64 base = job.image ? i64(job.image[p]) * job.height * job.width : 0;
    for (int k = 0; k < 4; ++k) t.row[k] += base;
    return t;
}

template <class T>
void forward(const Job<T>& job) {
    const int c = job.channels;
    parallel((job.points + kPointBlock - 1) / kPointBlock, threads_for(job), [&](i64 block) {
        for (i64 p = block * kPointBlock; p < min(job.points, (block + 1) * kPointBlock); ++p) {
            const Texels<T> t = texels_of(job, p);
            const T* const at[4] = {job.values + t.row[0] * c, job.values + t.row[1] * c, job.values + t.row[2] * c,
                                    job.values + t.row[3] * c};
            const T w[4] = {t.weight(0), t.weight(1), t.weight(2), t.weight(3)};
            for (int i = 0; i < c; ++i) {
                job.out[p * c + i] = w[0] * at[0][i] + w[1] * at[1][i] + w[2] * at[2][i] + w[3] * at[3][i];
            }
        }
    });
}

template <class T>
void backward(const Job<T>& job) {
    const int c = job.channels;
    Scratch<Texels<T>> places(job.grad_values ? job.points : 0);
    parallel((job.points + kPointBlock - 1) / kPointBlock, threads_for(job), [&](i64 block) {
        for (i64 p = block * kPointBlock; p < min(job.points, (block + 1) * kPointBlock); ++p) {
            const Texels<T> t = texels_of(job, p);
            if (job.grad_values) places[p] = t;
            if (!job.grad_uv) continue;
            T by[4] = {T(0), T(0), T(0), T(0)};
            for (int k = 0; k < 4; ++k) {
                const T* from = job.values + t.row[k] * c;
                for (int i = 0; i < c; ++i) by[k] += job.upstream[p * c + i] * from[i];
            }
            job.grad_uv[2 * p] = texel_slope(by[0], by[1], by[2], by[3], t.down) * T(job.width);
            job.grad_uv[2 * p + 1] = -texel_slope(by[0], by[2], by[1], by[3], t.right) * T(job.height);
        }
    });
    if (!job.grad_values) return;
    // Whatever the number of ranges, a texel's terms come in the order of points.
    const i64 ranges = threads_for(job);
    const i64 rows = (job.rows + ranges - 1) / ranges;
    parallel(ranges, int(ranges), [&](i64 range) {
        const i64 low = range * rows, high = min(job.rows, low + rows);
        for (i64 p = 0; p < job.points; ++p) {
            const Texels<T>& t = places[p];
            for (int k = 0; k < 4; ++k) {
                if (t.row[k] < low || t.row[k] >= high) continue;
                const T weight = t.weight(k);
                T* into = job.grad_values + t.row[k] * c;
                for (int i = 0; i < c; ++i) into[i] += weight * job.upstream[p * c + i];
            }
        }
    });
}

}  // namespace

const geodiff::Kernel<geodiff::TextureJob> kernel::texture_forward = {forward, forward};
const geodiff::Kernel<geodiff::TextureJob> kernel::texture_backward = {backward, backward};

}  // namespace gd
