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
constexpr i64 kAhead = 16;

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

// Calls body(point, texels of its image, what is known of it) in order. Textures are larger than caches, so the texels of
// a few points are asked for before the first of them is needed.
template <class T, class Body>
void each_point(const Job<T>& job, const SurfaceModel<T>& model, i64 first, i64 end, Body&& body) {
    SurfacePoint<T> ahead[kAhead];
    for (i64 group = first; group < end; group += kAhead) {
        const i64 last = min(end, group + kAhead);
        for (i64 p = group; p < last; ++p) {
            SurfacePoint<T>& s = ahead[p - group];
            surface_place(model, job.uv_corners + 3 * p, job.weight + 3 * p, s);
            const T* texture = job.texels + 3 * first_texel(job, job.image ? job.image[p] : 0);
            for (int k = 0; k < 4; k += 2) __builtin_prefetch(texture + 3 * s.texels.row[k]);
        }
        for (i64 p = group; p < last; ++p) {
            const T* texture = job.texels + 3 * first_texel(job, job.image ? job.image[p] : 0);
            surface_at(model, job.corners + 3 * p, job.weight + 3 * p, texture, ahead[p - group]);
            body(p, texture, ahead[p - group]);
        }
    }
}

template <class T>
void forward(const Job<T>& job) {
    const SurfaceModel<T> model = model_of(job);
    parallel((job.points + kPointBlock - 1) / kPointBlock, threads_for(job), [&](i64 block) {
        const i64 first = block * kPointBlock, end = min(job.points, first + kPointBlock);
        each_point(job, model, first, end, [&](i64 p, const T*, const SurfacePoint<T>& s) {
            const i64 image = job.own_row ? job.image[p] : 0;
            surface_color(model, s, job.rows + image * job.row_size, job.out + 3 * p);
        });
    });
}

// Of one point, what the second pass adds up.
template <class T>
struct Share {
    T frame[kSurfaceFrame], uv[2], albedo[3], right, down;
    int texel[4];  // of its image
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

    void expect(i64 row) const {
        if (row >= low && row < high) __builtin_prefetch(grad + row * N, 1);
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
    Scratch<double> sums(job.grad_rows ? blocks.count() * job.row_size : 0);
    Scratch<Share<T>> shares(job.points);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        double* own = job.grad_rows ? sums.get() + block * job.row_size : nullptr;
        for (int i = 0; own && i < job.row_size; ++i) own[i] = 0;
        const T* row = job.rows + (job.own_row ? blocks.image(block) * job.row_size : 0);
        each_point(job, model, blocks.first(block), blocks.end(block), [&](i64 p, const T* texture, const SurfacePoint<T>& s) {
            Share<T>& share = shares[p];
            surface_backward(model, s, job.uv_corners + 3 * p, job.corners + 3 * p, row, texture, job.upstream + 3 * p,
                             share.uv, share.frame, job.grad_weight + 3 * p, share.albedo, own);
            for (int k = 0; k < 4; ++k) share.texel[k] = int(s.texels.row[k]);
            share.right = s.texels.right;
            share.down = s.texels.down;
        });
    });
    for (i64 block = 0; job.grad_rows && block < blocks.count(); ++block) {
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
            if (texels.grad && p + kAhead < job.points) {
                const i64 later = first_texel(job, job.image ? job.image[p + kAhead] : 0);
                for (int k = 0; k < 4; k += 2) texels.expect(later + shares[p + kAhead].texel[k]);
            }
            const T* weight = job.weight + 3 * p;
            for (int k = 0; uv.grad && k < 3; ++k) uv.add(job.uv_corners[3 * p + k], weight[k], share.uv);
            for (int k = 0; frame.grad && k < 3; ++k) frame.add(job.corners[3 * p + k], weight[k], share.frame);
            if (!texels.grad) continue;
            const i64 start = first_texel(job, job.image ? job.image[p] : 0);
            const Texels<T> at = {{}, share.right, share.down};
            for (int k = 0; k < 4; ++k) texels.add(start + share.texel[k], at.weight(k), share.albedo);
        }
    });
}

}  // namespace

void surface_forward_f32(const Job<float>& job) { forward(job); }
void surface_forward_f64(const Job<double>& job) { forward(job); }
void surface_backward_f32(const Job<float>& job) { backward(job); }
void surface_backward_f64(const Job<double>& job) { backward(job); }

}  // namespace gd
