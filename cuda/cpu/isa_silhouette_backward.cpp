// SPDX-License-Identifier: Apache-2.0
// The soft silhouette on the CPU, backward: a thread owns faces; each face gathers its gradient from the pixels it
// reaches, and the faces' gradients are added to the vertices in order. Hence the same bits on any number of threads,
// without atomics.
#include "face_radii.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::SilhouetteJob<T>;

// Per pixel: upstream·m, e, and upstream·slope for the gradient in p; top and rest where levels are kept. Rows end in
// kLane pixels of weight 0, so that groups may stick out to the right.
template <class T>
struct PixelFactors {
    const int stride;
    const i64 cells;
    Scratch<T> weight, e, slope, top, rest;

    PixelFactors(const SilhouetteSetup<T>& setup, i64 image, double* grad_p)
        : stride(setup.job.width + kLane),
          cells(i64(setup.job.height) * stride),
          weight(cells),
          e(setup.levelled || setup.stages.uses_e ? cells : 1),
          slope(setup.job.want_p ? cells : 1),
          top(setup.levelled ? cells : 1),
          rest(setup.levelled && setup.job.want_p ? cells : 1) {
        if (setup.levelled) {
            from_levels(setup, image, grad_p);
            return;
        }
        const Job<T>& job = setup.job;
        const T share = job.tconorm == kAverage ? T(1) / T(max(setup.faces_of(image), i64(1))) : T(1);
        T largest = T(0);
        Scratch<T> unused(setup.stages.uses_e ? 1 : job.width);
        for (int row = 0; row < job.height; ++row) {
            const T* upstream = job.upstream + (image * job.height + row) * job.width;
            const T* t = job.sum + (image * job.height + row) * job.width;
            T* __restrict w = weight.get() + i64(row) * stride;
            T* e_row = setup.stages.uses_e ? e.get() + i64(row) * stride : unused.get();
            if (setup.stages.pixel) {
                setup.stages.pixel(t, job.width, setup.tconorm, w, e_row);
            } else {
                for (int i = 0; i < job.width; ++i) w[i] = share;
            }
            for (int i = 0; i < job.width; ++i) {
                w[i] *= upstream[i];
                largest = max(largest, abs(w[i]));
            }
            for (int i = 0; i < kLane; ++i) w[job.width + i] = T(0);
            for (int i = 0; setup.stages.uses_e && i < kLane; ++i) e_row[job.width + i] = T(0);
            if (!job.want_p) continue;
            T* slope_row = slope.get() + i64(row) * stride;
            for (int i = 0; i < job.width + kLane; ++i) slope_row[i] = T(0);
            for (int i = 0; setup.stages.slope && i < job.width; ++i) {
                const double factor = double(upstream[i]) * setup.stages.slope(double(t[i]), job.p);
                slope_row[i] = T(factor);
                if (factor != 0) *grad_p -= factor * setup.stages.by_p_at(double(t[i]), job.p);
            }
        }
        // Where the pair stage carries no large factor, weights below 1e-12 of the largest are dropped: no image is
        // large enough for them to show in float32.
        if (setup.stages.uses_e || sizeof(T) == 8) return;
        const T negligible = T(1e-12) * largest;
        for (i64 i = 0; i < cells; ++i) weight[i] = abs(weight[i]) > negligible ? weight[i] : T(0);
    }

    void from_levels(const SilhouetteSetup<T>& setup, i64 image, double* grad_p) {
        const Job<T>& job = setup.job;
        const double q = double(setup.q), sign = job.p < 0 ? -1 : 1;
        for (i64 i = 0; i < cells; ++i) weight[i] = e[i] = top[i] = T(0);
        for (i64 i = 0; job.want_p && i < cells; ++i) slope[i] = rest[i] = T(0);
        for (int row = 0; row < job.height; ++row) {
            const i64 from = (image * job.height + row) * job.width, to = i64(row) * stride;
            const T *tops = job.sum + from, *sums = setup.second() + from, *upstream = job.upstream + from;
            setup.levels.pixel(tops, sums, job.width, setup.q, &weight[to], &e[to]);
            for (int i = 0; i < job.width; ++i) {
                weight[to + i] *= upstream[i];
                top[to + i] = tops[i];
            }
            for (int i = 0; job.want_p && i < job.width; ++i) {
                const LevelSlope at = setup.levels.slope(double(tops[i]), double(sums[i]), q);
                const double factor = sign * double(upstream[i]) * at.slope;
                slope[to + i] = T(factor);
                rest[to + i] = T(at.rest);
                if (factor != 0) *grad_p -= factor * at.by_p;
            }
        }
    }

    i64 at(int row, int column) const { return i64(row) * stride + column; }

    // Whether any of a group's weights is not 0.
    bool matter(int row, int column) const {
        using U = typename Real<T>::Unsigned;
        const T* w = weight.get() + at(row, column);
        U any = 0;
        for (int i = 0; i < kLane; ++i) any |= bits_as<U>(w[i]);
        return (any << 1) != 0;  // without the sign
    }
};

template <class T>
void scatter(const int* face, const Clip<T> grad[3], T* grad_clip) {
    for (int k = 0; k < 3; ++k) {
        T* into = grad_clip + 4 * i64(face[k]);
        into[0] += grad[k].x;
        into[1] += grad[k].y;
        into[2] += grad[k].depth;
        into[3] += grad[k].w;
    }
}

// Where finished gradients of faces go: three clip-space corners each, in ascending order of faces.
template <class T>
struct FaceSink {
    Clip<T>* grads;     // (F, 3), or null to add to the vertices at once
    const int* faces;
    T* grad_clip;

    void put(i64 face, const Clip<T> grad[3]) const {
        if (grads) {
            for (int k = 0; k < 3; ++k) grads[3 * face + k] = grad[k];
        } else {
            scatter(faces + 3 * face, grad, grad_clip);
        }
    }
};

template <class T>
struct Gatherer {
    const SilhouetteSetup<T>& setup;
    const PixelFactors<T>& factors;
    const i64 image;
    const FaceSink<T> sink;
    double* params;  // (4)
    PairBatch<T> batch;
    CdfBatch<T> cdf;
    alignas(64) T gx[kBatch], gy[kBatch], edge[kBatch], along[kBatch];
    LineBatch<T> line;
    alignas(64) T weight[kBatch], e[kBatch], slope[kBatch], pair[kBatch], term[kBatch], top[kBatch], rest[kBatch];

    // Faces with pairs in the batch, oldest first; the last may have more to come.
    struct Pending {
        Polygon<T> polygon;
        Clip<T> corner[3];
        int face, start, end;
        T x[4], y[4];
    };
    Pending pending[kBatch / kLane + 1];
    int count = 0;

    Gatherer(const SilhouetteSetup<T>& s, const PixelFactors<T>& f, i64 image_, FaceSink<T> sink_, double* params_)
        : setup(s), factors(f), image(image_), sink(sink_), params(params_) {}

    template <int N, bool Squared>
    void directions(const Edge<T>* edges, T radius) {
        const T* __restrict px = batch.px;
        const T* __restrict py = batch.py;
        const T radius2 = setup.square(radius), inverse_scale = setup.inverse_scale;
        const Edge<T> e0 = edges[0], e1 = edges[1], e2 = edges[2], e3 = edges[N - 1];
        T* __restrict x = batch.x;
        T* __restrict keep = batch.keep;
        T* __restrict out_x = gx;
        T* __restrict out_y = gy;
        T* __restrict out_edge = edge;
        T* __restrict out_along = along;
        const int n = batch.n;
#pragma GCC ivdep
        for (int i = batch.start; i < n; ++i) {
            Nearest<T> near = no_edge<T>();
            meet(near, e0, T(0), px[i], py[i]);
            meet(near, e1, T(1), px[i], py[i]);
            meet(near, e2, T(2), px[i], py[i]);
            if constexpr (N == 4) meet(near, e3, T(3), px[i], py[i]);
            const bool inside = near.side >= T(0);
            const T size = Squared ? near.d2 : sqrt(near.d2);
            const bool counts = inside || near.d2 <= radius2;
            x[i] = counts ? (inside ? size : -size) * inverse_scale : T(0);  // 0: nothing slow or denormal follows
            keep[i] = counts ? T(1) : T(0);
            T dx, dy;
            direction<Squared>(near, dx, dy);
            out_x[i] = dx;
            out_y[i] = dy;
            out_edge[i] = near.edge;
            out_along[i] = near.along;
        }
    }

    // Adds a face's pairs to its corners.
    template <int N>
    void reduce(Pending& to) {
        T x0 = 0, x1 = 0, x2 = 0, x3 = 0, y0 = 0, y1 = 0, y2 = 0, y3 = 0;
        const int end = to.end;
#pragma omp simd reduction(+ : x0, x1, x2, x3, y0, y1, y2, y3)
        for (int i = to.start; i < end; ++i) {
            const T wx = pair[i] * gx[i], wy = pair[i] * gy[i];
            const T second = along[i], first = T(1) - second;
            const T b0 = edge[i] == T(0) ? first : (edge[i] == T(N - 1) ? second : T(0));
            const T b1 = edge[i] == T(1) ? first : (edge[i] == T(0) ? second : T(0));
            const T b2 = edge[i] == T(2) ? first : (edge[i] == T(1) ? second : T(0));
            x0 += b0 * wx;
            y0 += b0 * wy;
            x1 += b1 * wx;
            y1 += b1 * wy;
            x2 += b2 * wx;
            y2 += b2 * wy;
            if constexpr (N == 4) {
                const T b3 = edge[i] == T(3) ? first : (edge[i] == T(2) ? second : T(0));
                x3 += b3 * wx;
                y3 += b3 * wy;
            }
        }
        to.x[0] += x0;
        to.x[1] += x1;
        to.x[2] += x2;
        to.x[3] += x3;
        to.y[0] += y0;
        to.y[1] += y1;
        to.y[2] += y2;
        to.y[3] += y3;
    }

    // The gradient of p, from the values in `cdf`.
    void add_p(int n) {
        lanes(n, factors.slope, slope);
        for (int i = 0; i < n; ++i) slope[i] = batch.keep[i] > T(0) ? slope[i] : T(0);
        if (setup.levelled) {
            lanes(n, factors.rest, rest);
            setup.levels.level(cdf, n, term);
            params[3] += setup.levels.by_p(term, top, rest, slope, n, double(setup.q));
        } else {
            setup.stages.term(cdf, n, setup.tconorm, term);
            params[3] += setup.stages.by_p(term, slope, n, setup.job.p);
        }
    }

    // What the pixels of the batch have of a factor.
    void lanes(int n, const Scratch<T>& from, T* to) const {
        for (int g = 0; g < n; g += kLane) {
            copy_lane(to + g, from.get() + factors.at(batch.row[g / kLane], batch.column[g / kLane]));
        }
    }

    // Every pair's ∂⊥/∂x over its pixel's m.
    void pair_stage(int n) {
        if (setup.levelled) {
            setup.levels.pair(cdf, top, e, n, setup.q, pair);
        } else {
            setup.stages.pair(cdf, e, n, setup.tconorm, pair);
        }
    }

    // The same for edge coverage: each edge's line moves with its two corners.
    void reduce_lines(Pending& to) {
        const Polygon<T>& p = to.polygon;
        for (int k = 0; k < p.n; ++k) {
            const Edge<T> e = make_edge(p, k);
            const T* rate = line.rate[k];
            const T* by_d = line.by_d[k];
            const T* share = line.along[k];
            T first = T(0), second = T(0);
            const int end = to.end;
#pragma omp simd reduction(+ : first, second)
            for (int i = to.start; i < end; ++i) {
                const T w = pair[i] * (rate[i] * by_d[i]);
                first += w * (T(1) - share[i]);
                second += w * share[i];
            }
            const int l = k + 1 == p.n ? 0 : k + 1;
            to.x[k] += first * e.nx;
            to.y[k] += first * e.ny;
            to.x[l] += second * e.nx;
            to.y[l] += second * e.ny;
        }
    }

    void add_line_params(int n) {
        const Job<T>& job = setup.job;
        double scale = 0, shift = 0;
        for (int k = 0; k < 4; ++k) {
            for (int i = 0; i < n; ++i) {
                if (pair[i] == T(0)) continue;
                const double share = double(pair[i]) * double(line.rate[k][i]);
                scale -= share * double(line.x[k][i]);
                shift += share;
            }
        }
        params[0] += scale / job.scale;
        params[2] += job.reversed ? -shift : shift;
        for (int k = 0; job.want_shape && setup.shape_cdf && k < 4; ++k) {
            setup.shape_cdf(line.x[k], n, setup.distribution, cdf);
            for (int i = 0; i < n; ++i) {
                if (pair[i] != T(0) && line.used[k][i / kLane]) params[1] += double(pair[i]) * double(cdf.over_F[i]);
            }
        }
        if (job.want_p && setup.stages.by_p) {
            combine(line, n, setup.log_cdf, false, setup.distribution, cdf);
            add_p(n);
        }
    }

    // Gradients of scale, shift, shape and p. `pair` holds the pairs' shares of ∂alpha/∂x times the upstream gradient.
    void add_params(int n) {
        const Job<T>& job = setup.job;
        double scale = 0, shift = 0;
        for (int i = 0; i < n; ++i) {
            if (pair[i] == T(0)) continue;
            scale -= double(pair[i]) * double(batch.x[i]);
            shift += double(pair[i]);
        }
        params[0] += scale / job.scale;
        params[2] += job.reversed ? -shift : shift;
        if (job.want_shape && setup.shape_cdf) {
            setup.shape_cdf(batch.x, n, setup.distribution, cdf);
            pair_stage(n);
            for (int i = 0; i < n; ++i) {
                if (weight[i] != T(0)) params[1] += double(weight[i]) * double(pair[i]);
            }
        }
        if (job.want_p && setup.stages.by_p) {
            setup.forward_cdf(batch.x, n, setup.distribution, cdf);
            add_p(n);
        }
    }

    // The rest of the pipeline, for all pairs of the batch; `unfinished`: the last face has more pairs to come.
    void flush(bool unfinished) {
        const Job<T>& job = setup.job;
        const int n = batch.n;
        lanes(n, factors.weight, weight);
        if (setup.levelled || setup.stages.uses_e) lanes(n, factors.e, e);
        if (setup.levelled) lanes(n, factors.top, top);
        if (job.best) {
            for (int k = 0; k < count; ++k) {
                for (int i = pending[k].start; i < pending[k].end; ++i) {
                    const int row = batch.row[i / kLane], column = batch.column[i / kLane] + i % kLane;
                    const int* winner = job.best + (image * job.height + row) * job.width;
                    if (column >= job.width || winner[column] != pending[k].face) weight[i] = T(0);
                }
            }
        }
        for (int i = 0; i < n; ++i) weight[i] = batch.keep[i] > T(0) ? weight[i] : T(0);
        if (job.coverage == Coverage::edges) {
            combine(line, n, setup.log_rate_cdf, true, setup.distribution, cdf);
        } else {
            setup.backward_cdf(batch.x, n, setup.distribution, cdf);
        }
        pair_stage(n);
        for (int i = 0; i < n; ++i) pair[i] = weight[i] != T(0) ? weight[i] * pair[i] : T(0);
        if (job.coverage == Coverage::edges) {
            for (int k = 0; k < count; ++k) reduce_lines(pending[k]);
            if (job.want_params) add_line_params(n);
        } else {
            for (int k = 0; k < count; ++k) pending[k].polygon.n == 3 ? reduce<3>(pending[k]) : reduce<4>(pending[k]);
            if (job.want_params) add_params(n);
        }
        const int done = unfinished ? count - 1 : count;
        for (int k = 0; k < done; ++k) finish(pending[k]);
        if (unfinished) pending[0] = pending[count - 1];
        count = unfinished ? 1 : 0;
        if (unfinished) pending[0].start = pending[0].end = 0;
        batch.start = batch.n = 0;
    }

    void finish(Pending& from) {
        Clip<T> grad[3];
        for (int k = 0; k < from.polygon.n; ++k) {
            from.x[k] *= setup.inverse_scale;
            from.y[k] *= setup.inverse_scale;
        }
        for (int k = 0; k < 3; ++k) grad[k] = {T(0), T(0), T(0), T(0)};
        polygon_backward(from.corner, from.polygon, from.x, from.y, grad);
        sink.put(from.face, grad);
    }

    void measure(const Edge<T>* edges, T radius) {
        Pending& current = pending[count - 1];
        const Polygon<T>& p = current.polygon;
        if (setup.job.coverage == Coverage::edges) {
            const auto stage = setup.job.squared ? lines<true, T, PairBatch<T>> : lines<false, T, PairBatch<T>>;
            stage(batch, line, edges, p.n, setup.radius, setup.inverse_scale);
        } else if (setup.job.squared) {
            p.n == 3 ? directions<3, true>(edges, radius) : directions<4, true>(edges, radius);
        } else {
            p.n == 3 ? directions<3, false>(edges, radius) : directions<4, false>(edges, radius);
        }
        current.start = batch.start;
        current.end = batch.start = batch.n;
    }

    void gather(const Polygon<T>& p, T radius, int face) {
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        const Reach<T> reach = setup.reach_of(p, edges, radius);
        if (count == kBatch / kLane + 1) flush(false);  // faces without any pair
        Pending& own = pending[count++];
        own.polygon = p;
        setup.corners(image, face, own.corner);
        own.face = face;
        own.start = own.end = batch.n;
        for (int k = 0; k < 4; ++k) own.x[k] = own.y[k] = T(0);
        int first[kSpans], end[kSpans];
        for (int row = reach.first_row; row < reach.end_row; ++row) {
            const int i = (row - reach.first_row) % kSpans;
            if (i == 0) reach.spans(row, setup.grid, first, end);
            const T y = setup.grid.y(row);
            for (int column = first[i]; column < end[i]; column += kLane) {
                if (!setup.job.want_p && !factors.matter(row, column)) continue;
                if (batch.n == kBatch) {
                    measure(edges, radius);
                    flush(true);
                }
                batch.push(setup.grid.columns(), y, row, column);
            }
        }
        measure(edges, radius);
    }
};

template <class T>
void gather_faces(const SilhouetteSetup<T>& setup, const PixelFactors<T>& factors, i64 image, i64 first, i64 end,
                  const Polygon<T>* polygons, const T* radii, FaceSink<T> sink, double* params) {
    const Clip<T> nothing[3] = {{T(0), T(0), T(0), T(0)}, {T(0), T(0), T(0), T(0)}, {T(0), T(0), T(0), T(0)}};
    Gatherer<T> gatherer(setup, factors, image, sink, params);
    for (i64 f = first; f < end; ++f) {
        if (polygons[f].n != 0) {
            gatherer.gather(polygons[f], radii[f], int(f));
        } else if (sink.grads) {
            sink.put(f, nothing);
        }
    }
    gatherer.flush(false);
}

template <class T>
void backward_image(const SilhouetteSetup<T>& setup, i64 image, int threads, double* params) {
    const Job<T>& job = setup.job;
    const i64 count = setup.faces_of(image);
    const PixelFactors<T> factors(setup, image, params + 3);
    Scratch<Polygon<T>> polygons(count);
    setup.make_polygons(image, polygons.get(), threads);
    Scratch<T> radii(count);
    face_radii(setup, polygons.get(), count, threads, radii.get(),
               [&](T) -> const T* { return job.sum + image * job.height * job.width; });
    FaceSink<T> sink{nullptr, job.faces + 3 * job.layout[3 * image + 1], job.grad_clip + 4 * job.layout[3 * image]};
    if (job.images >= kManyImages) {
        gather_faces(setup, factors, image, 0, count, polygons.get(), radii.get(), sink, params);
        return;
    }
    const i64 blocks = (count + kSilhouetteFaces - 1) / kSilhouetteFaces;
    Scratch<Clip<T>> grads(3 * count);
    Scratch<double> block_params(4 * blocks);
    for (i64 i = 0; i < 4 * blocks; ++i) block_params[i] = 0;
    sink.grads = grads.get();
    parallel(blocks, threads, [&](i64 block) {
        const i64 first = block * kSilhouetteFaces;
        const i64 end = min(count, first + kSilhouetteFaces);
        gather_faces(setup, factors, image, first, end, polygons.get(), radii.get(), sink, &block_params[4 * block]);
    });
    for (i64 f = 0; f < count; ++f) scatter(sink.faces + 3 * f, &grads[3 * f], sink.grad_clip);
    for (i64 i = 0; i < 4 * blocks; ++i) params[i % 4] += block_params[i];
}

template <class T>
void backward(const Job<T>& job) {
    const SilhouetteSetup<T> setup(job);
    Scratch<double> params(4 * job.images);
    for (i64 i = 0; i < 4 * job.images; ++i) params[i] = 0;
    if (job.images >= kManyImages) {
        parallel(job.images, setup.threads, [&](i64 image) { backward_image(setup, image, 1, &params[4 * image]); });
    } else {
        for (i64 image = 0; image < job.images; ++image) backward_image(setup, image, setup.threads, &params[4 * image]);
    }
    for (i64 i = 0; i < 4 * job.images; ++i) job.grad_params[i % 4] += params[i];
}

}  // namespace

const geodiff::Kernel<geodiff::SilhouetteJob> kernel::silhouette_backward = {backward, backward};

}  // namespace gd
