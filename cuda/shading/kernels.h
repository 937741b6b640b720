// SPDX-License-Identifier: Apache-2.0
// Light, textures, blending and normals on the GPU: the mathematics of this folder, a thread a point.
//
//   blend_forward, sample_forward, surface_forward, reflect_forward, composite_forward      a thread a point or pixel
//   …_backward                                                                           likewise, for what is a point's
//   gather_rows     what many points give to one row: sorted by row, added in the order of points by a lane or a warp
//   light_sums      gradients of an image's numbers: slices of its points, then
//   light_add       the slices in their order
//   normals_…       of faces, of vertices, and back
//
// No atomics touch real numbers: the same bits on any run.
#pragma once
#include "../kernel.h"
#include "arguments.h"
#include "composite.h"
#include "light.h"
#include "normals.h"
#include "surface.h"

#if GEODIFF_KERNELS

namespace gd {

using geodiff::BlendJob;
using geodiff::CompositeJob;
using geodiff::NormalsJob;
using geodiff::ReflectJob;
using geodiff::SurfaceJob;
using geodiff::TextureJob;

GEODIFF_HD i64 own_thread() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }

// --- what points give to rows

// Row r has the terms order[start[r]] … order[start[r + 1] − 1], numbers of points · terms + term. Adds to each of its
// channels weight · values; `Lanes` threads a row (1 or 32), whose sums are added in a fixed order. Blocks of 128.
template <class T, int Lanes>
__global__ void gather_rows(const i64* order, const i64* start, i64 rows, const T* weight, const T* values, int terms,
                            int channels, T* out) {
    const i64 row = own_thread() / Lanes;
    const int lane = int(threadIdx.x) % Lanes;
    const i64 begin = row < rows ? start[row] : 0, end = row < rows ? start[row + 1] : 0;
    for (int c = 0; c < channels; ++c) {
        double sum = 0;
        for (i64 i = begin + lane; i < end; i += Lanes) {
            const i64 term = order[i];
            sum += double(weight[term] * values[term / terms * channels + c]);
        }
        for (int d = Lanes / 2; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
        if (lane == 0 && row < rows) out[row * channels + c] = T(sum);
    }
}

// --- rows blended by weights

template <class T>
__global__ void blend_forward(BlendJob<T> job) {
    const i64 i = own_thread();
    if (i >= job.points * job.channels) return;
    const i64 p = i / job.channels, c = i % job.channels;
    T sum = T(0);
    for (int k = 0; k < job.terms; ++k)
        sum += job.weight[p * job.terms + k] * job.values[i64(job.index[p * job.terms + k]) * job.channels + c];
    job.out[i] = sum;
}

template <class T>
__global__ void blend_backward(BlendJob<T> job) {
    const i64 i = own_thread();
    if (i >= job.points * job.terms) return;
    const T* up = job.upstream + i / job.terms * job.channels;
    const T* from = job.values + i64(job.index[i]) * job.channels;
    T sum = T(0);
    for (int c = 0; c < job.channels; ++c) sum += up[c] * from[c];
    job.grad_weight[i] = sum;
}

// --- textures

template <class T>
GEODIFF_HD Texels<T> texels_of(const TextureJob<T>& job, i64 p) {
    Texels<T> t = texels(job.uv[2 * p], job.uv[2 * p + 1], job.height, job.width, job.wrap);
    const i64 base = job.image ? i64(job.image[p]) * job.height * job.width : 0;
    for (int k = 0; k < 4; ++k) t.row[k] += base;
    return t;
}

template <class T>
__global__ void sample_forward(TextureJob<T> job) {
    const i64 p = own_thread();
    if (p >= job.points) return;
    const Texels<T> t = texels_of(job, p);
    for (int c = 0; c < job.channels; ++c) {
        T sum = T(0);
        for (int k = 0; k < 4; ++k) sum += t.weight(k) * job.values[t.row[k] * job.channels + c];
        job.out[p * job.channels + c] = sum;
    }
}

// rows and weights (points, 4), for gather_rows; null where they are not wanted.
template <class T>
__global__ void sample_backward(TextureJob<T> job, i64* rows, T* weights) {
    const i64 p = own_thread();
    if (p >= job.points) return;
    const Texels<T> t = texels_of(job, p);
    for (int k = 0; rows && k < 4; ++k) {
        rows[4 * p + k] = t.row[k];
        weights[4 * p + k] = t.weight(k);
    }
    if (!job.grad_uv) return;
    T by[4] = {T(0), T(0), T(0), T(0)};
    for (int k = 0; k < 4; ++k) {
        const T* from = job.values + t.row[k] * job.channels;
        for (int c = 0; c < job.channels; ++c) by[k] += job.upstream[p * job.channels + c] * from[c];
    }
    job.grad_uv[2 * p] = texel_slope(by[0], by[1], by[2], by[3], t.down) * T(job.width);
    job.grad_uv[2 * p + 1] = -texel_slope(by[0], by[2], by[1], by[3], t.right) * T(job.height);
}

// --- images composed of colours and a background

// The first place that is not before `pixel`.
GEODIFF_HD i64 first_place(const long long* place, i64 points, i64 pixel) {
    i64 low = 0, high = points;
    while (low < high) {
        const i64 middle = (low + high) / 2;
        if (place[middle] < pixel) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

// Backward where `upstream` is given. A thread a pixel.
template <class T>
__global__ void composite_pixels(CompositeJob<T> job) {
    const i64 i = own_thread();
    if (i >= job.pixels) return;
    const i64 p = first_place(job.place, job.points, i);
    const bool seen = p < job.points && job.place[p] == i;
    const T* color = seen ? job.color + p * job.channels : nullptr;
    const T* background = job.background + i % job.background_rows * job.channels;
    if (!job.upstream) {
        composite(job.alpha[i], color, background, job.channels, job.out + i * job.channels);
    } else {
        job.grad_alpha[i] = composite_backward(job.alpha[i], color, background, job.channels,
                                               job.upstream + i * job.channels,
                                               seen ? job.grad_color + p * job.channels : nullptr);
    }
}

// --- light

template <class T>
GEODIFF_HD LightModel<T> model_of(const ReflectJob<T>& job, i64 p) {
    const i64 image = job.image ? job.image[p] : 0;
    return {job.rows + image * job.row_size, job.kinds, job.lights, job.parallel_view, job.glossy};
}

template <class T>
GEODIFF_HD void put(T* to, const Vec<T>& v) {
    to[0] = v.x;
    to[1] = v.y;
    to[2] = v.z;
}

template <class T>
__global__ void reflect_forward(ReflectJob<T> job) {
    const i64 p = own_thread();
    if (p >= job.points) return;
    const LightModel<T> m = model_of(job, p);
    const Vec<T> x = vec(job.point + 3 * p);
    Vec<T> diffuse, shine;
    shine_on(m, make_sight(m.row, m.parallel_view, vec(job.normal + 3 * p), x), x, diffuse, shine);
    put(job.out + 6 * p, diffuse);
    put(job.out + 6 * p + 3, shine);
}

// by_viewer: (points, 3), for light_sums.
template <class T>
__global__ void reflect_backward(ReflectJob<T> job, T* by_viewer) {
    const i64 p = own_thread();
    if (p >= job.points) return;
    const LightModel<T> m = model_of(job, p);
    const Vec<T> x = vec(job.point + 3 * p), up_diffuse = vec(job.upstream + 6 * p), up_shine = vec(job.upstream + 6 * p + 3);
    Vec<T> by_normal, by_x, viewer, diffuse;
    shine_backward(m, make_sight(m.row, m.parallel_view, vec(job.normal + 3 * p), x), x, up_diffuse, up_shine, by_normal, by_x,
                   viewer, diffuse);
    put(job.grad_normal + 3 * p, by_normal);
    put(job.grad_point + 3 * p, by_x);
    put(by_viewer + 3 * p, viewer);
}

// What a light's numbers, or with l = lights the viewer and the ambient light, get from the points of a slice of an image.
// start: (images + 1) its points. Grid: ((image · slices) + slice) · (lights + 1) + l; 128 threads.
// partial: (images, slices, lights + 1, kLightTerms).
template <class T>
__global__ void light_sums(ReflectJob<T> job, const T* by_viewer, const i64* start, int slices, double* partial) {
    constexpr int threads = 128;
    GEODIFF_SHARED(sums, double[threads]);
    const int l = int(blockIdx.x % (job.lights + 1));
    const i64 cut = blockIdx.x / (job.lights + 1), image = cut / slices, slice = cut % slices;
    const i64 count = start[image + 1] - start[image], many = (count + slices - 1) / slices;
    const i64 begin = start[image] + slice * many, end = min(begin + many, start[image + 1]);
    double own[kLightTerms] = {};
    for (i64 p = begin + threadIdx.x; p < end; p += threads) {
        const Vec<T> up_diffuse = vec(job.upstream + 6 * p);
        if (l == job.lights) {
            for (int k = 0; k < 3; ++k) own[k] += double(by_viewer[3 * p + k]);
            own[3] += double(up_diffuse.x);
            own[4] += double(up_diffuse.y);
            own[5] += double(up_diffuse.z);
            continue;
        }
        const LightModel<T> m = model_of(job, p);
        const Vec<T> x = vec(job.point + 3 * p);
        SightGradient<T> g = {{T(0), T(0), T(0)}, {T(0), T(0), T(0)}, {T(0), T(0), T(0)}};
        Vec<T> diffuse = {T(0), T(0), T(0)}, shine = diffuse;
        T terms[kLightTerms];
        shine_back<true>(m, l, make_sight(m.row, m.parallel_view, vec(job.normal + 3 * p), x), x, up_diffuse,
                            vec(job.upstream + 6 * p + 3), g, diffuse, shine, terms);
        for (int k = 0; k < kLightTerms; ++k) own[k] += double(terms[k]);
    }
    for (int k = 0; k < kLightTerms; ++k) {
        sums[threadIdx.x] = own[k];
        for (int half = threads / 2; half > 0; half /= 2) {
            __syncthreads();
            if (int(threadIdx.x) < half) sums[threadIdx.x] += sums[threadIdx.x + half];
        }
        if (threadIdx.x == 0) partial[i64(blockIdx.x) * kLightTerms + k] = sums[0];
        __syncthreads();
    }
}

// A thread a number of the rows, (images, row_size).
template <class T>
__global__ void light_add(const double* partial, int images, int slices, int lights, T* grad_rows) {
    const int row_size = kReflectHead + kReflectLight * lights;
    const i64 i = own_thread();
    if (i >= i64(images) * row_size) return;
    const i64 image = i / row_size;
    const int number = int(i % row_size), later = number - kReflectHead;
    T sum = T(0);
    for (int slice = 0; slice < slices; ++slice) {
        const double* from = partial + (image * slices + slice) * (lights + 1) * kLightTerms;
        if (number == light_place(0, 0)) {
            for (int l = 0; l < lights; ++l) sum += from[l * kLightTerms];
        } else if (later < 0) {
            sum += from[lights * kLightTerms + (number < 3 ? number : number - 1)];
        } else {
            sum += from[later / kReflectLight * kLightTerms + 1 + later % kReflectLight];
        }
    }
    grad_rows[i] = sum;
}

// --- textured surfaces in light

template <class T>
struct SurfaceLoad {
    SurfacePoint<T> point;
    i64 row[4];  // of the texels
    LightModel<T> model;
    Vec<T> x, normal;
};

template <class T>
GEODIFF_HD SurfaceLoad<T> load_surface(const SurfaceJob<T>& job, i64 p) {
    SurfaceLoad<T> s;
    const i64 image = job.image ? job.image[p] : 0;
    for (int k = 0; k < 3; ++k) {
        s.point.weight[k] = job.weight[3 * p + k];
        const T* uv = job.uv + 2 * i64(job.uv_corners[3 * p + k]);
        const T* frame = job.frame + kSurfaceFrame * i64(job.corners[3 * p + k]);
        for (int c = 0; c < 2; ++c) s.point.uv[k][c] = uv[c];
        for (int c = 0; c < kSurfaceFrame; ++c) s.point.frame[k][c] = frame[c];
    }
    const T u = at_corners(s.point.weight, s.point.uv[0][0], s.point.uv[1][0], s.point.uv[2][0]);
    const T v = at_corners(s.point.weight, s.point.uv[0][1], s.point.uv[1][1], s.point.uv[2][1]);
    const Texels<T> t = texels(u, v, job.height, job.width, job.wrap);
    s.point.right = t.right;
    s.point.down = t.down;
    for (int k = 0; k < 4; ++k) {
        s.row[k] = t.row[k] + (job.own_texture ? image * job.height * job.width : 0);
        for (int c = 0; c < 3; ++c) s.point.texel[k][c] = job.texels[3 * s.row[k] + c];
    }
    s.model = {job.rows + (job.own_row ? image * job.row_size : 0), job.kinds, job.lights, job.parallel_view, job.glossy};
    s.x = surface_place(s.point, 0);
    s.normal = surface_place(s.point, 1);
    return s;
}

template <class T>
__global__ void surface_forward(SurfaceJob<T> job) {
    const i64 p = own_thread();
    if (p >= job.points) return;
    const SurfaceLoad<T> s = load_surface(job, p);
    Vec<T> diffuse, shine;
    shine_on(s.model, make_sight(s.model.row, s.model.parallel_view, s.normal, s.x), s.x, diffuse, shine);
    put(job.out + 3 * p, plus(shine, T(1), hadamard(surface_albedo(s.point), diffuse)));
}

// What gather_rows and light_sums take from here, all a point's own.
template <class T>
struct SurfaceShares {
    T *by_uv, *by_frame, *by_albedo;          // (points, 2), (points, 6), (points, 3)
    i64* texel;                               // (points, 4)
    T* texel_weight;                          // (points, 4)
    T *normal, *point, *upstream, *by_viewer;  // (points, 3), (points, 3), (points, 6), (points, 3): of ReflectJob
};

template <class T>
__global__ void surface_shares(SurfaceJob<T> job, SurfaceShares<T> to) {
    const i64 p = own_thread();
    if (p >= job.points) return;
    const SurfaceLoad<T> s = load_surface(job, p);
    const Vec<T> up = vec(job.upstream + 3 * p), up_diffuse = hadamard(up, surface_albedo(s.point));
    Vec<T> by_normal, by_x, viewer, diffuse;
    shine_backward(s.model, make_sight(s.model.row, s.model.parallel_view, s.normal, s.x), s.x, up_diffuse, up, by_normal, by_x,
                   viewer, diffuse);
    const SurfaceGradient<T> g = surface_backward(s.point, job.height, job.width, up, diffuse, by_x, by_normal);
    for (int k = 0; k < 3; ++k) job.grad_weight[3 * p + k] = g.weight[k];
    for (int k = 0; k < 2; ++k) to.by_uv[2 * p + k] = g.uv[k];
    put(to.by_frame + 6 * p, by_x);
    put(to.by_frame + 6 * p + 3, by_normal);
    put(to.by_albedo + 3 * p, g.albedo);
    for (int k = 0; k < 4; ++k) {
        to.texel[4 * p + k] = s.row[k];
        to.texel_weight[4 * p + k] = texel_weight(k, s.point.right, s.point.down);
    }
    put(to.normal + 3 * p, s.normal);
    put(to.point + 3 * p, s.x);
    put(to.upstream + 6 * p, up_diffuse);
    put(to.upstream + 6 * p + 3, up);
    put(to.by_viewer + 3 * p, viewer);
}

// --- normals of vertices; start and corners: which corners 3 · face + k meet at a vertex, ascending

// The largest scale of each mesh of the batch, as bits, which are ordered as positive numbers are; zero on entry.
template <class T>
__global__ void normals_scale(NormalsJob<T> job, u64* whole) {
    const i64 i = own_thread();
    if (i >= job.batch * job.num_faces) return;
    const i64 mesh = i / job.num_faces;
    const Sides s = make_sides(job.vertices + 3 * job.num_vertices * mesh, job.faces + 3 * (i % job.num_faces));
    atomicMax(whole + mesh, bits_as<u64>(s.scale));
}

template <class T>
GEODIFF_HD Vec<double> normal_of(const NormalsJob<T>& job, double whole, const i64* start, const i64* corners, i64 mesh,
                                 i64 vertex, double& inverse) {
    Vec<double> sum = {0, 0, 0};
    double bound = 0;
    for (i64 i = start[vertex]; i < start[vertex + 1]; ++i) {
        const int* face = job.faces + 3 * (corners[i] / 3);
        const Vec<double> share = face_share(make_sides(job.vertices + 3 * job.num_vertices * mesh, face), whole);
        sum = plus(sum, 1.0, share);
        bound += largest(share);
    }
    return unit(sum, bound, inverse);
}

template <class T>
__global__ void normals_forward(NormalsJob<T> job, const u64* whole, const i64* start, const i64* corners) {
    const i64 i = own_thread();
    if (i >= job.batch * job.num_vertices) return;
    const i64 mesh = i / job.num_vertices;
    double inverse;
    const Vec<double> n =
        normal_of(job, bits_as<double>(whole[mesh]), start, corners, mesh, i % job.num_vertices, inverse);
    put(job.out + 3 * i, Vec<T>{T(n.x), T(n.y), T(n.z)});
}

// by_sum: (batch, num_vertices, 3)
template <class T>
__global__ void normals_to_sums(NormalsJob<T> job, const u64* whole, const i64* start, const i64* corners, double* by_sum) {
    const i64 i = own_thread();
    if (i >= job.batch * job.num_vertices) return;
    const i64 mesh = i / job.num_vertices;
    double inverse;
    const Vec<double> n =
        normal_of(job, bits_as<double>(whole[mesh]), start, corners, mesh, i % job.num_vertices, inverse);
    const T* up = job.upstream + 3 * i;
    put(by_sum + 3 * i, unit_backward(n, inverse, Vec<double>{double(up[0]), double(up[1]), double(up[2])}));
}

template <class T>
__global__ void normals_backward(NormalsJob<T> job, const u64* whole, const i64* start, const i64* corners,
                                 const double* by_sum) {
    const i64 i = own_thread();
    if (i >= job.batch * job.num_vertices) return;
    const i64 mesh = i / job.num_vertices, vertex = i % job.num_vertices;
    const double* sums = by_sum + 3 * job.num_vertices * mesh;
    Vec<double> total = {0, 0, 0};
    for (i64 c = start[vertex]; c < start[vertex + 1]; ++c) {
        const i64 f = corners[c] / 3, corner = corners[c] % 3;
        const int* face = job.faces + 3 * f;
        Vec<double> g = vec(sums + 3 * i64(face[0])), by_ab, by_ac;
        g = plus(plus(g, 1.0, vec(sums + 3 * i64(face[1]))), 1.0, vec(sums + 3 * i64(face[2])));
        face_share_backward(make_sides(job.vertices + 3 * job.num_vertices * mesh, face), bits_as<double>(whole[mesh]), g,
                            by_ab, by_ac);
        if (corner != 2) total = plus(total, corner == 0 ? -1.0 : 1.0, by_ab);
        if (corner != 1) total = plus(total, corner == 0 ? -1.0 : 1.0, by_ac);
    }
    put(job.grad + 3 * i, Vec<T>{T(total.x), T(total.y), T(total.z)});
}

}  // namespace gd

#endif
