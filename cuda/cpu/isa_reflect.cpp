// SPDX-License-Identifier: Apache-2.0
// Light at many points on the CPU.
#include "../shading/reflect.h"
#include "image_blocks.h"
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
    const ImageBlocks blocks(job.image, job.points);
    Scratch<double> sums(blocks.count() * job.row_size);
    parallel(blocks.count(), job.points < 2000 ? 1 : job.threads, [&](i64 block) {
        double* own = sums.get() + block * job.row_size;
        for (int i = 0; i < job.row_size; ++i) own[i] = 0;
        for (i64 p = blocks.first(block); p < blocks.end(block); ++p) {
            Vec<T> gn, gx;
            T light[6];
            reflect_backward(row_of(job, p), job.lights, job.kinds, job.parallel_view, job.glossy, vec(job.normal + 3 * p),
                             vec(job.point + 3 * p), job.upstream + 6 * p, gn, gx, own, light);
            T* to_normal = job.grad_normal + 3 * p;
            T* to_point = job.grad_point + 3 * p;
            to_normal[0] = gn.x, to_normal[1] = gn.y, to_normal[2] = gn.z;
            to_point[0] = gx.x, to_point[1] = gx.y, to_point[2] = gx.z;
        }
    });
    for (i64 block = 0; block < blocks.count(); ++block) {
        double* into = job.grad_rows + blocks.image(block) * job.row_size;
        for (int i = 0; i < job.row_size; ++i) into[i] += sums[block * job.row_size + i];
    }
}

}  // namespace

void reflect_forward_f32(const Job<float>& job) { forward(job); }
void reflect_forward_f64(const Job<double>& job) { forward(job); }
void reflect_backward_f32(const Job<float>& job) { backward(job); }
void reflect_backward_f64(const Job<double>& job) { backward(job); }

}  // namespace gd
