// SPDX-License-Identifier: Apache-2.0
// Colours of textured surfaces in light on the CPU, in one pass over the points. Backward, a second pass adds up what
// belongs to vertices and texels: a thread owns a range of both and goes through all points in order.
#include "../shading/surface.h"
#include "image_blocks.h"
#include "light_lanes.h"
#include "parallel.h"

namespace gd {
namespace {

using geodiff::parallel;
constexpr i64 kGroups = ImageBlocks::kSize / kLights;  // of a block, at most
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

// A few points, each in a lane of its own; see SurfacePoint.
template <class T>
struct Lanes {
    T weight[3][kLights], uv[3][2][kLights], frame[3][kSurfaceFrame][kLights];
    T texel[4][3][kLights], right[kLights], down[kLights];
    int row[4][kLights];  // of the texels, in their image
    VecLanes<T> albedo;
    LightLanes<T> light;

    SurfacePoint<T> operator[](int i) const {
        SurfacePoint<T> s;
        for (int k = 0; k < 3; ++k) {
            s.weight[k] = weight[k][i];
            for (int c = 0; c < 2; ++c) s.uv[k][c] = uv[k][c][i];
            for (int c = 0; c < kSurfaceFrame; ++c) s.frame[k][c] = frame[k][c][i];
        }
        for (int k = 0; k < 4; ++k) {
            for (int c = 0; c < 3; ++c) s.texel[k][c] = texel[k][c][i];
        }
        s.right = right[i];
        s.down = down[i];
        return s;
    }

    // Where in the texture, given weights and texture coordinates of the corners.
    void place(const Job<T>& job) {
        const int height = job.height, width = job.width;
        int left[kLights], top[kLights], beyond = 0;
        T u[kLights], v[kLights];
#pragma GCC ivdep
        for (int i = 0; i < kLights; ++i) {
            const T w[3] = {weight[0][i], weight[1][i], weight[2][i]};
            u[i] = at_corners(w, uv[0][0][i], uv[1][0][i], uv[2][0][i]);
            v[i] = at_corners(w, uv[0][1][i], uv[1][1][i], uv[2][1][i]);
            texel_place(u[i], v[i], height, width, left[i], top[i], right[i], down[i]);
            beyond += (left[i] < 0) + (left[i] >= width - 1) + (top[i] < 0) + (top[i] >= height - 1);
        }
        for (int i = 0; beyond == 0 && i < kLights; ++i) {
            row[0][i] = top[i] * width + left[i];
            row[1][i] = row[0][i] + 1;
            row[2][i] = row[0][i] + width;
            row[3][i] = row[2][i] + 1;
        }
        for (int i = 0; beyond > 0 && i < kLights; ++i) {
            const Texels<T> at = texels(u[i], v[i], height, width, job.wrap);
            for (int k = 0; k < 4; ++k) row[k][i] = int(at.row[k]);
        }
    }

    // The points from `first` on; lanes that are not used repeat the last one. Textures are larger than caches, so all
    // texels are asked for before the first of them is needed.
    void load(const Job<T>& job, i64 first, int used, const T* texture) {
        for (int i = 0; i < kLights; ++i) {
            const i64 p = 3 * (first + min(i, used - 1));
            for (int k = 0; k < 3; ++k) {
                const T* from = job.uv + 2 * i64(job.uv_corners[p + k]);
                weight[k][i] = job.weight[p + k];
                for (int c = 0; c < 2; ++c) uv[k][c][i] = from[c];
            }
        }
        place(job);
        for (int i = 0; i < kLights; ++i) {
            for (int k = 0; k < 4; k += 2) __builtin_prefetch(texture + 3 * i64(row[k][i]));
        }
        for (int i = 0; i < kLights; ++i) {
            const i64 p = 3 * (first + min(i, used - 1));
            for (int k = 0; k < 3; ++k) {
                const T* from = job.frame + kSurfaceFrame * i64(job.corners[p + k]);
                for (int c = 0; c < kSurfaceFrame; ++c) frame[k][c][i] = from[c];
            }
        }
        for (int i = 0; i < kLights; ++i) {
            for (int k = 0; k < 4; ++k) {
                const T* from = texture + 3 * i64(row[k][i]);
                for (int c = 0; c < 3; ++c) texel[k][c][i] = from[c];
            }
        }
#pragma GCC ivdep
        for (int i = 0; i < kLights; ++i) {
            const SurfacePoint<T> s = (*this)[i];
            light.x.set(i, surface_place(s, 0));
            light.normal.set(i, surface_place(s, 1));
            albedo.set(i, surface_albedo(s));
        }
    }
};

template <class T>
LightModel<T> model_of(const Job<T>& job, i64 image) {
    return {job.rows + (job.own_row ? image * job.row_size : 0), job.kinds, job.lights, job.parallel_view, job.glossy};
}

template <class T>
void forward(const Job<T>& job) {
    const ImageBlocks blocks(job.image, job.points);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        const i64 image = blocks.image(block), end = blocks.end(block);
        const LightModel<T> model = model_of(job, image);
        const T* texture = job.texels + 3 * first_texel(job, image);
        Lanes<T> lanes;
        for (i64 first = blocks.first(block); first < end; first += kLights) {
            const int used = int(min(end - first, i64(kLights)));
            lanes.load(job, first, used, texture);
            lanes.light.forward(model);
            for (int i = 0; i < used; ++i) {
                const Vec<T> color = plus(lanes.light.shine[i], T(1), hadamard(lanes.albedo[i], lanes.light.diffuse[i]));
                T* out = job.out + 3 * (first + i);
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

// Where the runs of each block start, and at the end how many there are.
template <class T>
class RunStarts {
  public:
    RunStarts(const Job<T>& job, const ImageBlocks& blocks) : starts_(blocks.count() + 1) {
        const bool wanted = job.grad_frame || job.grad_uv;
        parallel(blocks.count(), threads_for(job), [&](i64 block) {
            i64 count = wanted ? 1 : 0;
            for (i64 p = blocks.first(block) + 1; wanted && p < blocks.end(block); ++p) count += starts_run(job, p);
            starts_[block + 1] = count;
        });
        starts_[0] = 0;
        for (i64 block = 0; block < blocks.count(); ++block) starts_[block + 1] += starts_[block];
        total = starts_[blocks.count()];
    }
    i64 operator[](i64 block) const { return starts_[block]; }

    i64 total;

  private:
    Scratch<i64> starts_;
};

// What the first pass leaves for the second.
template <class T>
struct Left {
    RunStarts<T> run_starts;
    Scratch<Run<T>> runs;
    Scratch<TexelShare<T>> shares;  // of each point
    Scratch<Span> spans;            // of each group of kLights points of each block, the texels that it touches

    Left(const Job<T>& job, const ImageBlocks& blocks)
        : run_starts(job, blocks), runs(run_starts.total), shares(job.grad_texels ? job.points : 0),
          spans(blocks.count() * kGroups) {}
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
void block_backward(const Job<T>& job, const ImageBlocks& blocks, i64 block, double* grad_row, Left<T>& left) {
    const i64 image = blocks.image(block), begin = blocks.first(block), end = blocks.end(block);
    const LightModel<T> model = model_of(job, image);
    const T* texture = job.texels + 3 * first_texel(job, image);
    const int height = job.height, width = job.width;
    Lanes<T> lanes;
    VecLanes<T> up, by_albedo;
    T by_uv[2][kLights], by_weight[3][kLights];
    Run<T>* run = left.runs.get() + left.run_starts[block] - 1;
    for (i64 first = begin; first < end; first += kLights) {
        const int used = int(min(end - first, i64(kLights)));
        lanes.load(job, first, used, texture);
        for (int i = 0; i < kLights; ++i) up.set(i, vec(job.upstream + 3 * (first + min(i, used - 1))));
        for (int i = 0; i < kLights; ++i) {
            lanes.light.up_diffuse.set(i, hadamard(up[i], lanes.albedo[i]));
            lanes.light.up_shine.set(i, up[i]);
        }
        lanes.light.backward(model, grad_row, used);
#pragma GCC ivdep
        for (int i = 0; i < kLights; ++i) {
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
            TexelShare<T>& share = left.shares[first + i];
            by_albedo.copy_to(i, share.albedo);
            for (int k = 0; k < 4; ++k) share.texel[k] = lanes.row[k][i];
            share.right = lanes.right[i];
            share.down = lanes.down[i];
        }
        Span& span = left.spans[block * kGroups + (first - begin) / kLights];
        span = {lanes.row[0][0], lanes.row[0][0]};
        for (int k = 0; k < 4; ++k) {
            for (int i = 0; i < kLights; ++i) {
                span.low = min(span.low, lanes.row[k][i]);
                span.high = max(span.high, lanes.row[k][i]);
            }
        }
        for (int i = 0; (job.grad_frame || job.grad_uv) && i < used; ++i) {
            const i64 p = 3 * (first + i);
            if (first + i == begin || starts_run(job, first + i)) (++run)->start(job.corners + p, job.uv_corners + p);
            const T weight[3] = {lanes.weight[0][i], lanes.weight[1][i], lanes.weight[2][i]};
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
    for (i64 block = 0; block < blocks.count(); ++block) {
        const i64 start = first_texel(job, blocks.image(block)), end = blocks.end(block);
        for (i64 first = blocks.first(block), group = block * kGroups; first < end; first += kLights, ++group) {
            if (!own.meets(start + left.spans[group].low, start + left.spans[group].high)) continue;
            const i64 last = min(end, first + kLights);
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
    for (i64 r = 0; r < left.run_starts.total; ++r) {
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
    Scratch<double> sums(job.grad_rows ? blocks.count() * job.row_size : 0);
    Left<T> left(job, blocks);
    parallel(blocks.count(), threads_for(job), [&](i64 block) {
        double* own = job.grad_rows ? sums.get() + block * job.row_size : nullptr;
        for (int i = 0; own && i < job.row_size; ++i) own[i] = 0;
        block_backward(job, blocks, block, own, left);
    });
    for (i64 block = 0; job.grad_rows && block < blocks.count(); ++block) {
        double* into = job.grad_rows + (job.own_row ? blocks.image(block) * job.row_size : 0);
        for (int i = 0; i < job.row_size; ++i) into[i] += sums[block * job.row_size + i];
    }
    // Whatever the number of ranges, the terms of a vertex and of a texel come in the order of points.
    const i64 ranges = threads_for(job);
    parallel(ranges, int(ranges), [&](i64 range) {
        add_vertices(left, Own<T, 2>(job.grad_uv, job.coordinates, range, ranges),
                     Own<T, kSurfaceFrame>(job.grad_frame, job.vertices, range, ranges));
        if (job.grad_texels) add_texels(job, blocks, left, Own<T, 3>(job.grad_texels, job.texel_rows, range, ranges));
    });
}

}  // namespace

void surface_forward_f32(const Job<float>& job) { forward(job); }
void surface_forward_f64(const Job<double>& job) { forward(job); }
void surface_backward_f32(const Job<float>& job) { backward(job); }
void surface_backward_f64(const Job<double>& job) { backward(job); }

}  // namespace gd
