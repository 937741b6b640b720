// SPDX-License-Identifier: Apache-2.0
// Colours of textured surfaces in light on the CPU, in one pass over the points. Backward, a second pass adds up what
// belongs to vertices and texels: a thread owns a range of both and goes through all points in order. Blocks are of one
// size and are added in the order of points, however many make a batch, so the bits are those of one thread.
#include "image_blocks.h"
#include "parallel.h"
#include "surface_lanes.h"

namespace gd {
namespace {

using geodiff::parallel;
constexpr i64 kGroups = ImageBlocks::kSize / kLitPoints;  // of a block, at most
template <class T>
using Job = geodiff::SurfaceJob<T>;

template <class T>
int threads_for(const Job<T>& job) {
    return job.points < 2000 ? 1 : job.threads;
}

template <class T>
i64 first_texel(const Job<T>& job, i64 image) {
    return job.own_texture ? image * job.height * job.width : 0;
}

template <class T>
LightModel<T> model_of(const Job<T>& job, i64 image) {
    return {job.rows + (job.own_row ? image * job.row_size : 0), job.kinds, job.lights, job.parallel_view, job.glossy};
}

template <class T>
void forward(const Job<T>& job) {
    const ImageBlocks blocks(job.image, job.points);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        const i64 image = blocks.image(block);
        const LightModel<T> model = model_of(job, image);
        const T* texture = job.texels + 3 * first_texel(job, image);
        Lanes<T> lanes(job, blocks.first(block), blocks.end(block), texture);
        while (lanes.next()) {
            lanes.light.forward(model);
            for (int i = 0; i < lanes.used; ++i) {
                const Vec<T> color = plus(lanes.light.shine[i], T(1), hadamard(lanes.albedo[i], lanes.light.diffuse[i]));
                T* out = job.out + 3 * (lanes.first + i);
                out[0] = color.x, out[1] = color.y, out[2] = color.z;
            }
        }
    });
}

// What the second pass adds to texels, of one point.
template <class T>
struct TexelShare {
    T albedo[3], right, down;
    int texel[4];  // of its image
};

// What it adds to vertices, of points that follow each other on one face: mostly a line of its pixels.
template <class T>
struct Run {
    int corners[3], uv_corners[3];
    T frame[3][kSurfaceFrame], uv[3][2];

    void start(const int* corners_, const int* uv_corners_) {
        for (int k = 0; k < 3; ++k) {
            corners[k] = corners_[k];
            uv_corners[k] = uv_corners_[k];
            for (int c = 0; c < kSurfaceFrame; ++c) frame[k][c] = T(0);
            for (int c = 0; c < 2; ++c) uv[k][c] = T(0);
        }
    }
    void add(const T weight[3], const T by_frame[kSurfaceFrame], const T by_uv[2]) {
        for (int k = 0; k < 3; ++k) {
            for (int c = 0; c < kSurfaceFrame; ++c) frame[k][c] += weight[k] * by_frame[c];
            for (int c = 0; c < 2; ++c) uv[k][c] += weight[k] * by_uv[c];
        }
    }
};

struct Span {
    int low, high;  // both included
};

// Whether point p is on another face than the one before it.
template <class T>
bool starts_run(const Job<T>& job, i64 p) {
    bool same = true;
    for (int k = 0; k < 3; ++k) {
        same = same && job.corners[3 * p + k] == job.corners[3 * p + k - 3];
        same = same && job.uv_corners[3 * p + k] == job.uv_corners[3 * p + k - 3];
    }
    return !same;
}

// Blocks are taken a few at a time, so that what the first pass leaves for the second stays small.
struct Batch {
    i64 first, end;  // blocks
};

// How many runs there are before each block.
template <class T>
class Runs {
  public:
    Runs(const Job<T>& job, const ImageBlocks& blocks) : before_(blocks.count() + 1) {
        const bool wanted = job.grad_frame || job.grad_uv;
        parallel(blocks.count(), threads_for(job), [&](i64 block) {
            i64 count = wanted ? 1 : 0;
            for (i64 p = blocks.first(block) + 1; wanted && p < blocks.end(block); ++p) count += starts_run(job, p);
            before_[block + 1] = count;
        });
        before_[0] = 0;
        for (i64 block = 0; block < blocks.count(); ++block) before_[block + 1] += before_[block];
    }
    i64 in(i64 first, i64 end) const { return before_[end] - before_[first]; }  // blocks

  private:
    Scratch<i64> before_;
};

// What the first pass leaves for the second, of one batch.
template <class T>
struct Left {
    Batch batch;
    i64 first_point, runs_used;
    Scratch<Run<T>> runs;
    Scratch<TexelShare<T>> shares;  // of each point
    Scratch<Span> spans;            // of each group of kLitPoints points of each block, the texels that it touches

    Left(const Job<T>& job, const ImageBlocks& blocks, const Runs<T>& counts, i64 most)
        : batch{0, 0}, runs(most_runs(blocks, counts, most)),
          shares(job.grad_texels ? min(most * ImageBlocks::kSize, job.points) : 0), spans(most * kGroups) {}

    static i64 most_runs(const ImageBlocks& blocks, const Runs<T>& counts, i64 most) {
        i64 result = 0;
        for (i64 b = 0; b < blocks.count(); b += most) result = max(result, counts.in(b, min(b + most, blocks.count())));
        return result;
    }
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

    bool meets(i64 first, i64 last) const { return first < high && last >= low; }
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
void block_backward(const Job<T>& job, const ImageBlocks& blocks, i64 block, double* grad_row, const Runs<T>& counts,
                    Left<T>& left) {
    const i64 image = blocks.image(block), begin = blocks.first(block);
    const LightModel<T> model = model_of(job, image);
    const int height = job.height, width = job.width;
    Lanes<T> lanes(job, begin, blocks.end(block), job.texels + 3 * first_texel(job, image));
    VecLanes<T> up, by_albedo;
    T by_uv[2][kLitPoints], by_weight[3][kLitPoints];
    Run<T>* run = left.runs.get() + counts.in(left.batch.first, block) - 1;
    Span* span = left.spans.get() + (block - left.batch.first) * kGroups;
    for (; lanes.next(); ++span) {
        const Spots<T>& spots = lanes.spots();
        const i64 first = lanes.first;
        const int used = lanes.used;
        for (int i = 0; i < kLitPoints; ++i) up.set(i, vec(job.upstream + 3 * (first + min(i, used - 1))));
        for (int i = 0; i < kLitPoints; ++i) {
            lanes.light.up_diffuse.set(i, hadamard(up[i], lanes.albedo[i]));
            lanes.light.up_shine.set(i, up[i]);
        }
        lanes.light.backward(model, grad_row, used);
#pragma GCC ivdep
        for (int i = 0; i < kLitPoints; ++i) {
            const SurfaceGradient<T> g = surface_backward(lanes[i], height, width, up[i], lanes.light.diffuse[i],
                                                          lanes.light.by_x[i], lanes.light.by_normal[i]);
            by_albedo.set(i, g.albedo);
            for (int c = 0; c < 2; ++c) by_uv[c][i] = g.uv[c];
            for (int k = 0; k < 3; ++k) by_weight[k][i] = g.weight[k];
        }
        for (int i = 0; i < used; ++i) {
            for (int k = 0; k < 3; ++k) job.grad_weight[3 * (first + i) + k] = by_weight[k][i];
        }
        for (int i = 0; job.grad_texels && i < used; ++i) {
            TexelShare<T>& share = left.shares[first - left.first_point + i];
            by_albedo.copy_to(i, share.albedo);
            for (int k = 0; k < 4; ++k) share.texel[k] = spots.row[k][i];
            share.right = spots.right[i];
            share.down = spots.down[i];
        }
        *span = {spots.row[0][0], spots.row[0][0]};
        for (int k = 0; job.grad_texels && k < 4; ++k) {
            for (int i = 0; i < kLitPoints; ++i) {
                span->low = min(span->low, spots.row[k][i]);
                span->high = max(span->high, spots.row[k][i]);
            }
        }
        for (int i = 0; (job.grad_frame || job.grad_uv) && i < used; ++i) {
            const i64 p = first + i;
            if (p == begin || starts_run(job, p)) (++run)->start(job.corners + 3 * p, job.uv_corners + 3 * p);
            const T weight[3] = {spots.weight[0][i], spots.weight[1][i], spots.weight[2][i]};
            const T uv[2] = {by_uv[0][i], by_uv[1][i]};
            T frame[kSurfaceFrame];
            lanes.light.by_x.copy_to(i, frame);
            lanes.light.by_normal.copy_to(i, frame + 3);
            run->add(weight, frame, uv);
        }
    }
}

// Adds what belongs to a thread's range of texels, block by block in the order of points.
template <class T>
void add_texels(const Job<T>& job, const ImageBlocks& blocks, const Left<T>& left, const Own<T, 3>& own) {
    for (i64 block = left.batch.first; block < left.batch.end; ++block) {
        const i64 start = first_texel(job, blocks.image(block)), end = blocks.end(block) - left.first_point;
        const Span* span = left.spans.get() + (block - left.batch.first) * kGroups;
        for (i64 first = blocks.first(block) - left.first_point; first < end; first += kLitPoints, ++span) {
            if (!own.meets(start + span->low, start + span->high)) continue;
            const i64 last = min(end, first + kLitPoints);
            for (i64 p = first; p < last; ++p) {
                for (int k = 0; k < 4; k += 2) own.expect(start + left.shares[p].texel[k]);
            }
            for (i64 p = first; p < last; ++p) {
                const TexelShare<T>& share = left.shares[p];
                for (int k = 0; k < 4; ++k) {
                    own.add(start + share.texel[k], texel_weight(k, share.right, share.down), share.albedo);
                }
            }
        }
    }
}

template <class T>
void add_vertices(const Left<T>& left, const Own<T, 2>& uv, const Own<T, kSurfaceFrame>& frame) {
    for (i64 r = 0; r < left.runs_used; ++r) {
        const Run<T>& run = left.runs[r];
        for (int k = 0; k < 3; ++k) {
            uv.add(run.uv_corners[k], T(1), run.uv[k]);
            frame.add(run.corners[k], T(1), run.frame[k]);
        }
    }
}

template <class T>
void backward(const Job<T>& job) {
    const ImageBlocks blocks(job.image, job.points);
    const Runs<T> counts(job, blocks);
    const int threads = threads_for(job);
    const i64 most = max(i64(16), 4 * i64(threads));  // blocks of a batch
    Scratch<double> sums(job.grad_rows ? blocks.count() * job.row_size : 0);
    Left<T> left(job, blocks, counts, most);
    for (i64 b = 0; b < blocks.count(); b += most) {
        left.batch = {b, min(b + most, blocks.count())};
        left.first_point = blocks.first(b);
        left.runs_used = counts.in(b, left.batch.end);
        parallel(left.batch.end - b, threads, [&](i64 i) {
            double* own = job.grad_rows ? sums.get() + (b + i) * job.row_size : nullptr;
            for (int c = 0; own && c < job.row_size; ++c) own[c] = 0;
            block_backward(job, blocks, b + i, own, counts, left);
        });
        // Whatever the number of ranges, the terms of a vertex and of a texel come in the order of points.
        parallel(threads, threads, [&](i64 range) {
            add_vertices(left, Own<T, 2>(job.grad_uv, job.coordinates, range, threads),
                         Own<T, kSurfaceFrame>(job.grad_frame, job.vertices, range, threads));
            if (job.grad_texels) add_texels(job, blocks, left, Own<T, 3>(job.grad_texels, job.texel_rows, range, threads));
        });
    }
    for (i64 block = 0; job.grad_rows && block < blocks.count(); ++block) {
        double* into = job.grad_rows + (job.own_row ? blocks.image(block) * job.row_size : 0);
        for (int i = 0; i < job.row_size; ++i) into[i] += sums[block * job.row_size + i];
    }
}

}  // namespace

const geodiff::Kernel<geodiff::SurfaceJob> kernel::surface_forward = {forward, forward};
const geodiff::Kernel<geodiff::SurfaceJob> kernel::surface_backward = {backward, backward};

}  // namespace gd
