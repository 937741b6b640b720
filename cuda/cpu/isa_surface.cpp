// SPDX-License-Identifier: Apache-2.0
// Colours of textured surfaces in light on the CPU, in one pass over the points. Backward, a second pass adds up what
// belongs to vertices and texels: a thread owns a range of both and goes through all points in order.
#include "../shading/surface.h"
#include "image_blocks.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::SurfaceJob<T>;

constexpr i64 kPointBlock = 1024;

template <class T>
int threads_for(const Job<T>& job) {
    return job.points < 2000 ? 1 : job.threads;
}

template <class T>
SurfaceModel<T> model_of(const Job<T>& job) {
    return {job.uv, job.frame, job.kinds, job.lights, job.height, job.width, job.wrap, job.parallel_view, job.glossy};
}

template <class T>
i64 first_texel(const Job<T>& job, i64 image) {
    return job.own_texture ? image * job.height * job.width : 0;
}

template <class T>
void forward(const Job<T>& job) {
    const SurfaceModel<T> model = model_of(job);
    parallel((job.points + kPointBlock - 1) / kPointBlock, threads_for(job), [&](i64 block) {
        for (i64 p = block * kPointBlock; p < min(job.points, (block + 1) * kPointBlock); ++p) {
            const i64 image = job.image ? job.image[p] : 0;
            SurfacePoint<T> s;
            surface_at(model, job.uv_corners + 3 * p, job.corners + 3 * p, job.weight + 3 * p,
                       job.rows + (job.own_row ? image * job.row_size : 0), job.texels + 3 * first_texel(job, image), s);
            surface_color(s, job.out + 3 * p);
        }
    });
}

// Of one point, what the second pass adds up.
template <class T>
struct Share {
    T uv[2], frame[kSurfaceFrame], albedo[3], texel_weight[4];
    i64 texel[4];
};

// A thread's own rows of a gradient, of N columns; none where the gradient is not wanted.
template <class T, int N>
struct Own {
    T* grad;
    i64 low, high;

    Own(T* grad_, i64 rows, i64 range, i64 ranges) : grad(grad_) {
        const i64 each = (rows + ranges - 1) / ranges;
        low = grad ? min(range * each, rows) : 0;
        high = grad ? min(low + each, rows) : 0;
    }

    void add(i64 row, T weight, const T* values) const {
        if (row < low || row >= high) return;
        T* into = grad + row * N;
        for (int i = 0; i < N; ++i) into[i] += weight * values[i];
    }
};

template <class T>
void backward(const Job<T>& job) {
    const SurfaceModel<T> model = model_of(job);
    const ImageBlocks blocks(job.image, job.points);
    Scratch<double> sums(blocks.count() * job.row_size);
    Scratch<Share<T>> shares(job.points);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        double* own = sums.get() + block * job.row_size;
        for (int i = 0; i < job.row_size; ++i) own[i] = 0;
        const T* row = job.rows + (job.own_row ? blocks.image(block) * job.row_size : 0);
        const i64 start = first_texel(job, blocks.image(block));
        for (i64 p = blocks.first(block); p < blocks.end(block); ++p) {
            SurfacePoint<T> s;
            surface_at(model, job.uv_corners + 3 * p, job.corners + 3 * p, job.weight + 3 * p, row,
                       job.texels + 3 * start, s);
            Share<T>& share = shares[p];
            surface_backward(model, s, job.uv_corners + 3 * p, job.corners + 3 * p, row, job.texels + 3 * start,
                             job.upstream + 3 * p, share.uv, share.frame, job.grad_weight + 3 * p, share.albedo, own);
            for (int k = 0; k < 4; ++k) {
                share.texel[k] = start + s.texels.row[k];
                share.texel_weight[k] = s.texels.weight(k);
            }
        }
    });
    for (i64 block = 0; block < blocks.count(); ++block) {
        double* into = job.grad_rows + (job.own_row ? blocks.image(block) * job.row_size : 0);
        for (int i = 0; i < job.row_size; ++i) into[i] += sums[block * job.row_size + i];
    }
    // Whatever the number of ranges, the terms of a vertex and of a texel come in the order of points.
    const i64 ranges = threads_for(job);
    parallel(ranges, int(ranges), [&](i64 range) {
        const Own<T, 2> uv(job.grad_uv, job.coordinates, range, ranges);
        const Own<T, kSurfaceFrame> frame(job.grad_frame, job.vertices, range, ranges);
        const Own<T, 3> texels(job.grad_texels, job.texel_rows, range, ranges);
        for (i64 p = 0; p < job.points; ++p) {
            const Share<T>& share = shares[p];
            for (int k = 0; k < 3; ++k) {
                const T weight = job.weight[3 * p + k];
                uv.add(job.uv_corners[3 * p + k], weight, share.uv);
                frame.add(job.corners[3 * p + k], weight, share.frame);
            }
            for (int k = 0; k < 4; ++k) texels.add(share.texel[k], share.texel_weight[k], share.albedo);
        }
    });
}

}  // namespace

void surface_forward_f32(const Job<float>& job) { forward(job); }
void surface_forward_f64(const Job<double>& job) { forward(job); }
void surface_backward_f32(const Job<float>& job) { backward(job); }
void surface_backward_f64(const Job<double>& job) { backward(job); }

}  // namespace gd
