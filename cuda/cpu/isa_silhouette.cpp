// SPDX-License-Identifier: Apache-2.0
// The soft silhouette on the CPU, forward: a thread owns rows of an image and draws all faces into them in order, so every
// pixel's sum has one order, and the same bits on any number of threads.
#include "silhouette_setup.h"

namespace gd {
namespace {

using geodiff::parallel;
template <class T>
using Job = geodiff::SilhouetteJob<T>;

template <int N, bool Squared, class T>
void distances(PairBatch<T>& batch, const Edge<T>* edges, T radius2, T inverse_scale) {
    const T* __restrict px = batch.px;
    const T* __restrict py = batch.py;
    T* __restrict x = batch.x;
    T* __restrict keep = batch.keep;
    const Edge<T> e0 = edges[0], e1 = edges[1], e2 = edges[2], e3 = edges[N - 1];
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
    }
}

template <class T>
struct Painter {
    const SilhouetteSetup<T>& setup;
    T* sum;      // rows × stride; the highest level where levels are kept
    T* power;    // for levels, the sum relative to it
    int* best;   // for maximum
    int first_row, stride;
    PairBatch<T> batch;
    CdfBatch<T> cdf;
    alignas(64) T term[kBatch];
    int face_of[kBatch / kLane];
    i64 pairs = 0;
    LineBatch<T> line;

    Painter(const SilhouetteSetup<T>& s, T* sum_, T* power_, int* best_, int first, int stride_)
        : setup(s), sum(sum_), power(power_), best(best_), first_row(first), stride(stride_) {}

    // The rest of the pipeline, for all pairs of the batch.
    void flush() {
        const int n = batch.n;
        batch.start = batch.n = 0;
        if (n == 0) return;
        if (setup.job.coverage == Coverage::edges) {
            combine(line, n, setup.log_cdf, false, setup.distribution, cdf);
        } else {
            setup.forward_cdf(batch.x, n, setup.distribution, cdf);
        }
        if (power) {
            setup.levels.level(cdf, n, term);
        } else {
            setup.stages.term(cdf, n, setup.tconorm, term);
        }
        const T none = power ? setup.levels.none : T(0);
        for (int i = 0; i < n; ++i) term[i] = batch.keep[i] > T(0) ? term[i] : none;
        if (setup.job.pairs) {
            for (int i = 0; i < n; ++i) {
                const int column = batch.column[i / kLane] + i % kLane;
                pairs += batch.keep[i] > T(0) && column < setup.grid.width ? 1 : 0;
            }
        }
        if (power) {
            i64 at[kBatch / kLane];
            for (int g = 0; g < n / kLane; ++g) at[g] = i64(batch.row[g] - first_row) * stride + batch.column[g];
            setup.levels.gather(term, at, n, setup.q, sum, power);
            return;
        }
        for (int g = 0; g < n; g += kLane) {
            const i64 at = i64(batch.row[g / kLane] - first_row) * stride + batch.column[g / kLane];
            T* into = sum + at;
            if (best) {
                for (int i = 0; i < kLane; ++i) {
                    if (term[g + i] > into[i]) {
                        into[i] = term[g + i];
                        best[at + i] = face_of[g / kLane];
                    }
                }
            } else {
                add_lane(into, term + g);
            }
        }
    }

    void measure(const Polygon<T>& p, const Edge<T>* edges, int face) {
        if (batch.start == batch.n) return;
        const bool squared = setup.job.squared;
        if (setup.job.coverage == Coverage::edges) {
            const auto stage = squared ? lines<true, T, PairBatch<T>> : lines<false, T, PairBatch<T>>;
            stage(batch, line, edges, p.n, setup.radius, setup.inverse_scale);
        } else {
            const auto stage = p.n == 3 ? (squared ? distances<3, true, T> : distances<3, false, T>)
                                        : (squared ? distances<4, true, T> : distances<4, false, T>);
            stage(batch, edges, setup.radius2, setup.inverse_scale);
        }
        for (int g = batch.start; g < batch.n; g += kLane) face_of[g / kLane] = face;
        batch.start = batch.n;
    }

    void draw(const Polygon<T>& p, int face, int end_row) {
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        const Reach<T> reach = setup.reach_of(p, edges);
        const int from = max(reach.first_row, first_row), to = min(reach.end_row, end_row);
        for (int row = from; row < to; ++row) {
            const T y = setup.grid.y(row);
            int first, end;
            reach.columns(y, setup.grid, first, end);
            for (int column = first; column < end; column += kLane) {
                if (batch.n == kBatch) {
                    measure(p, edges, face);
                    flush();
                }
                batch.push(setup.grid.columns(), y, row, column);
            }
        }
        measure(p, edges, face);
    }
};

template <class T>
void finish_rows(const SilhouetteSetup<T>& setup, const Painter<T>& painter, i64 image, int first, int end) {
    const Job<T>& job = setup.job;
    for (int row = first; row < end; ++row) {
        const T* from = painter.sum + i64(row - first) * painter.stride;
        const i64 at = (image * job.height + row) * job.width;
        for (int i = 0; i < job.width; ++i) job.sum[at + i] = from[i];
        if (painter.power) {
            const T* powers = painter.power + i64(row - first) * painter.stride;
            for (int i = 0; i < job.width; ++i) setup.second()[at + i] = powers[i];
            setup.levels.value(from, powers, job.width, setup.q, job.alpha + at);
        } else if (setup.stages.value) {
            setup.stages.value(job.sum + at, job.width, setup.tconorm, job.alpha + at);
        } else {
            const T share = job.tconorm == kAverage && setup.faces_of(image) > 0 ? T(1) / T(setup.faces_of(image)) : T(1);
            for (int i = 0; i < job.width; ++i) job.alpha[at + i] = from[i] * share;
        }
        if (job.best) {
            const int* winner = painter.best + i64(row - first) * painter.stride;
            for (int i = 0; i < job.width; ++i) job.best[at + i] = winner[i];
        }
    }
}

template <class T>
void paint_band(const SilhouetteSetup<T>& setup, i64 image, int first, int end, const Polygon<T>* polygons, i64* pairs) {
    const Job<T>& job = setup.job;
    const int stride = job.width + kLane;
    const i64 cells = i64(end - first) * stride;
    Scratch<T> sum(cells);
    Scratch<int> best(job.best ? cells : 1);
    const T none = setup.levelled ? setup.levels.none : T(0);
    for (i64 i = 0; i < cells; ++i) sum[i] = none;
    Scratch<T> power(setup.levelled ? cells : 1);
    for (i64 i = 0; setup.levelled && i < cells; ++i) power[i] = T(0);
    if (job.best) {
        for (i64 i = 0; i < cells; ++i) best[i] = -1;
    }
    Painter<T> painter(setup, sum.get(), setup.levelled ? power.get() : nullptr, job.best ? best.get() : nullptr, first,
                       stride);
    const i64 faces = setup.faces_of(image);
    const T top = setup.grid.y(first) + setup.radius + setup.grid.step;
    const T bottom = setup.grid.y(end - 1) - setup.radius - setup.grid.step;
    for (i64 f = 0; f < faces; ++f) {
        Polygon<T> made;
        const Polygon<T>* p = &made;
        if (polygons) {
            p = polygons + f;
        } else {
            Clip<T> corner[3];
            setup.polygon(image, f, corner, made);
        }
        if (p->n == 0) continue;
        if (job.coverage == Coverage::edges) {
            painter.draw(*p, int(f), end);
            continue;
        }
        const T last = p->n == 4 ? p->y[3] : p->y[0];
        if (min(min(p->y[0], p->y[1]), min(p->y[2], last)) > top) continue;
        if (max(max(p->y[0], p->y[1]), max(p->y[2], last)) < bottom) continue;
        painter.draw(*p, int(f), end);
    }
    painter.flush();
    finish_rows(setup, painter, image, first, end);
    *pairs = painter.pairs;
}

template <class T>
void forward(const Job<T>& job) {
    const SilhouetteSetup<T> setup(job);
    if (job.images >= kManyImages) {
        parallel(job.images, setup.threads, [&](i64 image) {
            i64 pairs = 0;
            paint_band<T>(setup, image, 0, job.height, nullptr, &pairs);
            if (job.pairs) job.pairs[image] = pairs;
        });
        return;
    }
    const int bands = (job.height + kSilhouetteRows - 1) / kSilhouetteRows;
    for (i64 image = 0; image < job.images; ++image) {
        const i64 faces = setup.faces_of(image);
        Scratch<Polygon<T>> polygons(faces);
        const i64 blocks = (faces + kSilhouetteFaces - 1) / kSilhouetteFaces;
        parallel(blocks, blocks > 64 ? setup.threads : 1, [&](i64 block) {
            for (i64 f = block * kSilhouetteFaces; f < min(faces, (block + 1) * kSilhouetteFaces); ++f) {
                Clip<T> corner[3];
                setup.polygon(image, f, corner, polygons[f]);
            }
        });
        Scratch<i64> pairs(bands);
        parallel(bands, setup.threads, [&](i64 band) {
            const int first = int(band) * kSilhouetteRows;
            paint_band<T>(setup, image, first, min(first + kSilhouetteRows, job.height), polygons.get(), &pairs[band]);
        });
        if (job.pairs) {
            job.pairs[image] = 0;
            for (int band = 0; band < bands; ++band) job.pairs[image] += pairs[band];
        }
    }
}

}  // namespace

const geodiff::Kernel<geodiff::SilhouetteJob> kernel::silhouette_forward = {forward, forward};

}  // namespace gd
