// SPDX-License-Identifier: Apache-2.0
// The soft silhouette on the CPU, forward: a thread owns rows of an image and draws all faces into them in order, so every
// pixel's sum has one order, and the same bits on any number of threads.
#include "face_radii.h"

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

    void measure(const Polygon<T>& p, const Edge<T>* edges, T radius, int face) {
        if (batch.start == batch.n) return;
        const bool squared = setup.job.squared;
        if (setup.job.coverage == Coverage::edges) {
            const auto stage = squared ? lines<true, T, PairBatch<T>> : lines<false, T, PairBatch<T>>;
            stage(batch, line, edges, p.n, setup.radius, setup.inverse_scale);
        } else {
            const auto stage = p.n == 3 ? (squared ? distances<3, true, T> : distances<3, false, T>)
                                        : (squared ? distances<4, true, T> : distances<4, false, T>);
            stage(batch, edges, setup.square(radius), setup.inverse_scale);
        }
        for (int g = batch.start; g < batch.n; g += kLane) face_of[g / kLane] = face;
        batch.start = batch.n;
    }

    void draw(const Polygon<T>& p, T radius, int face, int end_row) {
        Edge<T> edges[4];
        for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
        const Reach<T> reach = setup.reach_of(p, edges, radius);
        const int from = max(reach.first_row, first_row), to = min(reach.end_row, end_row);
        int first[kSpans], end[kSpans];
        for (int row = from; row < to; ++row) {
            const int i = (row - from) % kSpans;
            if (i == 0) reach.spans(row, setup.grid, first, end);
            const T y = setup.grid.y(row);
            for (int column = first[i]; column < end[i]; column += kLane) {
                if (batch.n == kBatch) {
                    measure(p, edges, radius, face);
                    flush();
                }
                batch.push(setup.grid.columns(), y, row, column);
            }
        }
        measure(p, edges, radius, face);
    }
};

// What a pass needs of the faces of one image.
template <class T>
struct Drawing {
    const Polygon<T>* polygons;
    const T* radii;
    i64 faces;
    int rows, bands;  // of a band; bands
    i64* pairs;       // (bands)
    bool sums_only;
};

template <class T>
void finish_rows(const SilhouetteSetup<T>& setup, const Painter<T>& painter, const Drawing<T>& drawing, i64 image, int first,
                 int end) {
    const Job<T>& job = setup.job;
    for (int row = first; row < end; ++row) {
        const T* from = painter.sum + i64(row - first) * painter.stride;
        const i64 at = (image * job.height + row) * job.width;
        for (int i = 0; i < job.width; ++i) job.sum[at + i] = from[i];
        if (drawing.sums_only) continue;
        if (painter.power) {
            const T* powers = painter.power + i64(row - first) * painter.stride;
            for (int i = 0; i < job.width; ++i) setup.second()[at + i] = powers[i];
            setup.levels.value(from, powers, job.width, setup.q, job.alpha + at);
        } else if (setup.stages.value) {
            setup.stages.value(job.sum + at, job.width, setup.tconorm, job.alpha + at);
        } else {
            const T share = job.tconorm == kAverage && drawing.faces > 0 ? T(1) / T(drawing.faces) : T(1);
            for (int i = 0; i < job.width; ++i) job.alpha[at + i] = from[i] * share;
        }
        if (job.best) {
            const int* winner = painter.best + i64(row - first) * painter.stride;
            for (int i = 0; i < job.width; ++i) job.best[at + i] = winner[i];
        }
    }
}

// `order`: the faces that may reach the band, ascending.
template <class T>
void paint_band(const SilhouetteSetup<T>& setup, const Drawing<T>& drawing, i64 image, int band, const int* order,
                i64 count) {
    const Job<T>& job = setup.job;
    const int first = band * drawing.rows, end = min(first + drawing.rows, job.height);
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
    for (i64 i = 0; i < count; ++i) {
        const int f = order[i];
        painter.draw(drawing.polygons[f], drawing.radii[f], f, end);
    }
    painter.flush();
    finish_rows(setup, painter, drawing, image, first, end);
    drawing.pairs[band] = painter.pairs;
}

template <class T>
void paint(const SilhouetteSetup<T>& setup, const Drawing<T>& drawing, i64 image, int threads) {
    // The faces of each band, in order.
    Scratch<i64> start(drawing.bands + 1);
    Scratch<int> first(drawing.faces), last(drawing.faces);
    for (int band = 0; band <= drawing.bands; ++band) start[band] = 0;
    const T half = T(0.5) * T(setup.grid.height) - T(0.5), per_row = T(1) / T(drawing.rows);
    const bool everywhere = setup.job.coverage == Coverage::edges;  // mitres reach out of all boxes
    for (i64 f = 0; f < drawing.faces; ++f) {
        const Polygon<T>& p = drawing.polygons[f];
        first[f] = 0;
        last[f] = -1;
        if (p.n == 0) continue;
        const T fourth = p.n == 4 ? p.y[3] : p.y[0], grow = drawing.radii[f] + setup.grid.step;
        const T top = max(max(p.y[0], p.y[1]), max(p.y[2], fourth)) + grow;
        const T bottom = min(min(p.y[0], p.y[1]), min(p.y[2], fourth)) - grow;
        const T low = half - top * setup.grid.per_step, high = half - bottom * setup.grid.per_step;
        if (everywhere) {
            last[f] = drawing.bands - 1;
        } else if (high >= T(0) && low < T(setup.grid.height)) {
            first[f] = to_int(low * per_row, 0, drawing.bands - 1);
            last[f] = to_int(high * per_row, 0, drawing.bands - 1);
        }
        for (int band = first[f]; band <= last[f]; ++band) ++start[band + 1];
    }
    Scratch<i64> next(drawing.bands);
    for (int band = 0; band < drawing.bands; ++band) next[band] = start[band + 1] += start[band];
    for (int band = 0; band < drawing.bands; ++band) next[band] = start[band];
    Scratch<int> order(start[drawing.bands]);
    for (i64 f = 0; f < drawing.faces; ++f) {
        for (int band = first[f]; band <= last[f]; ++band) order[next[band]++] = int(f);
    }
    parallel(drawing.bands, threads, [&](i64 band) {
        paint_band(setup, drawing, image, int(band), &order[start[band]], start[band + 1] - start[band]);
    });
}

template <class T>
void forward_image(const SilhouetteSetup<T>& setup, i64 image, int threads) {
    const Job<T>& job = setup.job;
    const i64 faces = setup.faces_of(image);
    Scratch<Polygon<T>> polygons(faces);
    setup.make_polygons(image, polygons.get(), threads);
    // Sums have one order, however many bands there are.
    const int rows = threads > 1 ? kSilhouetteRows : kSilhouetteRows * 4;
    const int bands = (job.height + rows - 1) / rows;
    Scratch<i64> pairs(bands);
    Scratch<T> radii(faces);
    Drawing<T> drawing{polygons.get(), radii.get(), faces, rows, bands, pairs.get(), false};
    face_radii(setup, polygons.get(), faces, threads, radii.get(), [&](T least) -> const T* {
        for (i64 f = 0; f < faces; ++f) radii[f] = least;
        drawing.sums_only = true;
        paint(setup, drawing, image, threads);
        drawing.sums_only = false;
        return job.sum + image * job.height * job.width;
    });
    paint(setup, drawing, image, threads);
    if (job.pairs) {
        job.pairs[image] = 0;
        for (int band = 0; band < bands; ++band) job.pairs[image] += pairs[band];
    }
}

template <class T>
void forward(const Job<T>& job) {
    const SilhouetteSetup<T> setup(job);
    if (job.images >= kManyImages) {
        parallel(job.images, setup.threads, [&](i64 image) { forward_image(setup, image, 1); });
        return;
    }
    for (i64 image = 0; image < job.images; ++image) forward_image(setup, image, setup.threads);
}

}  // namespace

const geodiff::Kernel<geodiff::SilhouetteJob> kernel::silhouette_forward = {forward, forward};

}  // namespace gd
