// SPDX-License-Identifier: Apache-2.0
// What both passes of the soft silhouette share on the CPU: the stages of a call, and batches of pixel–face pairs.
#pragma once
#include "edge_stage.h"
#include "grid.h"
#include "parallel.h"
#include "stages.h"

namespace gd {

using geodiff::Coverage;

// Few images: bands of rows and blocks of faces are spread over the threads; many: whole images are.
constexpr int kSilhouetteRows = 16;
constexpr i64 kSilhouetteFaces = 64;
// Below about this many pixel–face pairs a second thread costs more than it saves.
constexpr double kSerialPairs = 40000;

template <class T>
struct SilhouetteSetup {
    const geodiff::SilhouetteJob<T>& job;
    Grid<T> grid;
    T inverse_scale, radius;
    T radii[geodiff::kRadii];  // where job.fine
    DistributionParams<T> distribution;
    TConormParams<T> tconorm;
    TConormStages<T> stages;
    const bool levelled;  // by `levels`, with q = |p|, instead of `stages`
    LevelStages<T> levels;
    T q;
    CdfStage<T> forward_cdf, backward_cdf, shape_cdf, log_cdf, log_rate_cdf;
    GammaTable<T> gamma;
    int threads;

    explicit SilhouetteSetup(const geodiff::SilhouetteJob<T>& j)
        : job(j), grid(j.height, j.width), levelled(kept_by(j.tconorm) == Keeps::levels && beyond_powers(j.p)) {
        inverse_scale = T(1 / j.scale);
        radius = T(j.radius < 1e6 ? j.radius : 1e6);
        for (int i = 0; j.fine && i < geodiff::kRadii; ++i) radii[i] = T(min(j.radii[i], 1e6));
        const bool mirrored = j.reversed && kind_of(j.distribution) == Kind::symmetric;  // see cdf_stage
        distribution.shift = T(mirrored ? -j.shift : j.shift);
        distribution.gamma = &gamma;
        if (j.distribution == kGamma) gamma_table(j.shape, j.log_gamma_1, j.digamma, gamma);
        tconorm = tconorm_params<T>(j.p);
        stages = tconorm_stages<T>(j.tconorm);
        levels = level_stages<T>(j.tconorm);
        q = T(clamp(abs(j.p), double(levels.least), 1e30));
        forward_cdf = cdf_stage<T>(j.distribution, j.reversed, levelled ? levels.forward_need : stages.forward_need);
        backward_cdf = cdf_stage<T>(j.distribution, j.reversed, levelled ? levels.backward_need : stages.backward_need);
        shape_cdf = cdf_stage<T>(j.distribution, j.reversed, kShapeRates);
        log_cdf = cdf_stage<T>(j.distribution, j.reversed, kLogF);
        log_rate_cdf = cdf_stage<T>(j.distribution, j.reversed, kLogFRate);
        threads = j.threads;
        if (j.threads > 1 && estimated_pairs() < kSerialPairs) threads = 1;
    }

    SilhouetteSetup(const SilhouetteSetup&) = delete;

    // Where a second number of a pixel is, behind `job.sum`.
    T* second() const { return job.sum + i64(job.images) * job.height * job.width; }

    i64 faces_of(i64 image) const { return job.layout[3 * image + 2]; }

    bool polygon(i64 image, i64 f, Clip<T> corner[3], Polygon<T>& p) const {
        corners(image, f, corner);
        p = make_polygon(corner, job.near);
        return p.n != 0;
    }

    void corners(i64 image, i64 f, Clip<T> corner[3]) const {
        const T* clip = job.clip + 4 * job.layout[3 * image];
        load_face(clip, job.faces + 3 * (job.layout[3 * image + 1] + f), corner);
    }

    void make_polygons(i64 image, Polygon<T>* out, int workers) const {
        const i64 faces = faces_of(image), blocks = (faces + kSilhouetteFaces - 1) / kSilhouetteFaces;
        geodiff::parallel(blocks, blocks > 64 ? workers : 1, [&](i64 block) {
            for (i64 f = block * kSilhouetteFaces; f < min(faces, (block + 1) * kSilhouetteFaces); ++f) {
                Clip<T> corner[3];
                polygon(image, f, corner, out[f]);
            }
        });
    }

    // Whether a pixel that has a sum may miss more than one that has none.
    bool eased() const { return job.ease > 0 && !levelled && stages.slope; }

    Reach<T> reach_of(const Polygon<T>& p, const Edge<T>* edges, T within) const {
        Reach<T> reach;
        if (job.coverage == Coverage::edges) {
            reach.init_lines(p, edges, within, grid);
        } else {
            reach.init(p, edges, within, grid);
        }
        return reach;
    }

    static T square(T within) { return within < T(1e6) ? within * within : Real<T>::largest; }

    // Bounding boxes of a sample of the faces of the first image.
    double estimated_pairs() const {
        if (job.images == 0 || faces_of(0) == 0) return 0;
        const i64 faces = faces_of(0);
        const i64 stride = faces / 32 + 1;
        double pairs = 0;
        i64 seen = 0;
        for (i64 f = 0; f < faces; f += stride, ++seen) {
            Clip<T> corner[3];
            Polygon<T> p;
            if (!polygon(0, f, corner, p)) continue;
            Edge<T> edges[4];
            for (int k = 0; k < p.n; ++k) edges[k] = make_edge(p, k);
            const Reach<T> reach = reach_of(p, edges, radius);
            const double wide = min(double(reach.right - reach.left) / grid.step, double(grid.width));
            pairs += wide * (reach.end_row - reach.first_row);
        }
        return pairs / double(seen) * double(faces) * double(job.images);
    }
};

// Pixel–face pairs, in groups of kLane neighbouring pixels of a row. Several small faces share a batch, so that the
// stages run over long loops; `start` is where the pairs of the face at hand begin.
template <class T>
struct PairBatch {
    alignas(64) T px[kBatch], py[kBatch];
    alignas(64) T x[kBatch], keep[kBatch];
    int row[kBatch / kLane], column[kBatch / kLane];
    int start = 0, n = 0;

    void push(const T* columns, T y, int r, int c) {
        copy_lane(px + n, columns + c);
        fill_lane(py + n, y);
        row[n / kLane] = r;
        column[n / kLane] = c;
        n += kLane;
    }
};

}  // namespace gd
