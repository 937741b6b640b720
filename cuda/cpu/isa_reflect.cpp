// SPDX-License-Identifier: Apache-2.0
// Light at many points on the CPU. Backward, what belongs to an image is summed in blocks of points, always the same
// ones, and the blocks are added in order.
#include "../shading/reflect.h"
#include "grid.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::ReflectJob<T>;

constexpr i64 kPointBlock = 1024;

template <class T>
const T* row_of(const Job<T>& job, i64 p) {
    return job.rows + (job.image ? i64(job.image[p]) * job.row_size : 0);
}

template <class T>
void forward(const Job<T>& job) {
    parallel((job.points + kPointBlock - 1) / kPointBlock, job.points < 2000 ? 1 : job.threads, [&](i64 block) {
        for (i64 p = block * kPointBlock; p < min(job.points, (block + 1) * kPointBlock); ++p) {
            reflect(row_of(job, p), job.lights, job.kinds, job.parallel_view, job.glossy, vec(job.normal + 3 * p),
                    vec(job.point + 3 * p), job.out + 6 * p);
        }
    });
}

template <class T>
void backward(const Job<T>& job) {
    const i64 blocks = (job.points + kPointBlock - 1) / kPointBlock;
    // Of a block, points of the image it starts with; those of later images, few, come after in a pass of their own.
    Scratch<double> sums(blocks * job.row_size);
    parallel(blocks, job.points < 2000 ? 1 : job.threads, [&](i64 block) {
        double* own = sums.get() + block * job.row_size;
        for (int i = 0; i < job.row_size; ++i) own[i] = 0;
        Scratch<double> other(job.row_size);
        const i64 first = block * kPointBlock;
        for (i64 p = first; p < min(job.points, first + kPointBlock); ++p) {
            const bool mine = !job.image || job.image[p] == job.image[first];
            Vec<T> gn, gx;
            reflect_backward(row_of(job, p), job.lights, job.kinds, job.parallel_view, job.glossy, vec(job.normal + 3 * p),
                             vec(job.point + 3 * p), job.upstream + 6 * p, gn, gx, mine ? own : other.get());
            T* to_normal = job.grad_normal + 3 * p;
            T* to_point = job.grad_point + 3 * p;
            to_normal[0] = gn.x, to_normal[1] = gn.y, to_normal[2] = gn.z;
            to_point[0] = gx.x, to_point[1] = gx.y, to_point[2] = gx.z;
        }
    });
    for (i64 block = 0; block < blocks; ++block) {
        const i64 first = block * kPointBlock;
        double* into = job.grad_rows + (job.image ? i64(job.image[first]) * job.row_size : 0);
        for (int i = 0; i < job.row_size; ++i) into[i] += sums[block * job.row_size + i];
        if (!job.image) continue;
        for (i64 p = first; p < min(job.points, first + kPointBlock); ++p) {
            if (job.image[p] == job.image[first]) continue;
            Vec<T> gn, gx;
            reflect_backward(row_of(job, p), job.lights, job.kinds, job.parallel_view, job.glossy, vec(job.normal + 3 * p),
                             vec(job.point + 3 * p), job.upstream + 6 * p, gn, gx,
                             job.grad_rows + i64(job.image[p]) * job.row_size);
        }
    }
}

}  // namespace

void reflect_forward_f32(const Job<float>& job) { forward(job); }
void reflect_forward_f64(const Job<double>& job) { forward(job); }
void reflect_backward_f32(const Job<float>& job) { backward(job); }
void reflect_backward_f64(const Job<double>& job) { backward(job); }

}  // namespace gd
