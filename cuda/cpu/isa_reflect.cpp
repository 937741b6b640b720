// SPDX-License-Identifier: Apache-2.0
// Light at many points on the CPU.
#include "image_blocks.h"
#include "light_lanes.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::ReflectJob<T>;

template <class T>
LightModel<T> model_of(const Job<T>& job, i64 image) {
    return {job.rows + image * job.row_size, job.kinds, job.lights, job.parallel_view, job.glossy};
}

template <class T>
int threads_for(const Job<T>& job) {
    return job.points < 2000 ? 1 : job.threads;
}

// Calls body(first point, how many, lanes that hold them) for the points of a block; unused lanes repeat the last one.
template <class T, class Body>
void each_group(const Job<T>& job, i64 first, i64 end, Body&& body) {
    LightLanes<T> lanes;
    for (i64 p = first; p < end; p += kLitPoints) {
        const int used = int(min(end - p, i64(kLitPoints)));
        for (int i = 0; i < kLitPoints; ++i) {
            const i64 from = 3 * (p + min(i, used - 1));
            lanes.normal.set(i, vec(job.normal + from));
            lanes.x.set(i, vec(job.point + from));
        }
        body(p, used, lanes);
    }
}

template <class T>
void forward(const Job<T>& job) {
    const ImageBlocks blocks(job.image, job.points);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        const LightModel<T> model = model_of(job, blocks.image(block));
        each_group(job, blocks.first(block), blocks.end(block), [&](i64 first, int used, LightLanes<T>& lanes) {
            lanes.forward(model);
            for (int i = 0; i < used; ++i) {
                lanes.diffuse.copy_to(i, job.out + 6 * (first + i));
                lanes.shine.copy_to(i, job.out + 6 * (first + i) + 3);
            }
        });
    });
}

template <class T>
void backward(const Job<T>& job) {
    const ImageBlocks blocks(job.image, job.points);
    Scratch<double> sums(blocks.count() * job.row_size);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        const LightModel<T> model = model_of(job, blocks.image(block));
        double* own = sums.get() + block * job.row_size;
        for (int i = 0; i < job.row_size; ++i) own[i] = 0;
        each_group(job, blocks.first(block), blocks.end(block), [&](i64 first, int used, LightLanes<T>& lanes) {
            for (int i = 0; i < kLitPoints; ++i) {
                const T* up = job.upstream + 6 * (first + min(i, used - 1));
                lanes.up_diffuse.set(i, vec(up));
                lanes.up_shine.set(i, vec(up + 3));
            }
            lanes.backward(model, own, used);
            for (int i = 0; i < used; ++i) {
                lanes.by_normal.copy_to(i, job.grad_normal + 3 * (first + i));
                lanes.by_x.copy_to(i, job.grad_point + 3 * (first + i));
            }
        });
    });
    for (i64 block = 0; block < blocks.count(); ++block) {
        double* into = job.grad_rows + blocks.image(block) * job.row_size;
        for (int i = 0; i < job.row_size; ++i) into[i] += sums[block * job.row_size + i];
    }
}

}  // namespace

const geodiff::Kernel<geodiff::ReflectJob> kernel::reflect_forward = {forward, forward};
const geodiff::Kernel<geodiff::ReflectJob> kernel::reflect_backward = {backward, backward};

}  // namespace gd
