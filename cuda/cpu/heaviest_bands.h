// SPDX-License-Identifier: Apache-2.0
// Which faces have a share in the softmax of each pixel: those whose key, depth·sharpness − log F, is no more than `spread`
// above the least one. Once a pixel knows some key that it surely has, all others are held against that.
//
// A thread owns a band of rows. Covered pixels know the key of the face in front from the z-buffer; what else is visible
// knows one of a face near by, of which first rounds take note. Squares of kLane by kLane pixels know the worst limit of
// their own, so a face passes over all that it cannot enter: time goes with faces, pixels and what is found. A square takes
// its faces in the order of the least keys that they may have there, and is done when the next one's is above its worst
// limit.
#pragma once
#include "heaviest_face.h"
#include "heaviest_lists.h"
#include "heaviest_queue.h"

namespace gd {

template <class T>
class Band {
  public:
    Band(const geodiff::HeaviestJob<T>& job, const Scene<T>& scene, const Farthest<T>& reaches, i64 image, int first, int end)
        : job_(job), scene_(scene), reaches_(reaches), image_(image), first_(first), end_(end), across_((job.width + kLane - 1) / kLane),
          stride_(across_ * kLane), limit_(i64(end - first) * stride_), worst_(i64(across_) * kHigh), open_(across_),
          head_(i64(across_) * kHigh), from_(i64(across_) * (end - first)) {
        sharpness_ = job.sharpness[image];
        base_ = job.base[image];
        spread_ = T(job.spread < 1e30 ? job.spread : 1e30);
        on_edge_ = scene.log_weight(T(0));
    }
    // The limits of pixels, before any face was measured.
    void start(const ZBand<T>& drawn) {
        for (i64 i = 0; i < i64(end_ - first_) * stride_; ++i) limit_[i] = -Real<T>::largest;
        const T least = job_.floor ? limit_of(job_.floor[image_]) : Real<T>::largest;
        for (int row = first_; row < end_; ++row) {
            const bool* within = job_.within ? job_.within + (image_ * job_.height + row) * job_.width : nullptr;
            T* own = limit_.get() + i64(row - first_) * stride_;
            const T* depth = drawn.depth.get() + i64(row - first_) * drawn.stride;
            for (int column = 0; column < job_.width; ++column) {
                if (within && !within[column]) continue;
                own[column] = least;
                if (!(depth[column] < Real<T>::largest) || !(on_edge_ > T(-1e29))) continue;
                own[column] = min(least, limit_of(key_of(depth[column], on_edge_)));
            }
        }
        for (int high = 0; high < kHigh; ++high) {
            for (int t = 0; t < across_; ++t) look(high, t);
            crown(high);
        }
    }

    bool has_unknown() const { return max(top_[0], top_[kHigh - 1]) >= Real<T>::largest; }

    // A round that takes note of limits of pixels that have none, from faces within `radius`.
    template <class Faces>
    void probe(const Faces& faces, T radius) {
        faces([&](const Polygon<T>& p, int f) { look_around(p, f, radius, true); });
    }

    // Where no face is within reach, none has a share.
    void close() {
        for (i64 i = 0; i < i64(end_ - first_) * stride_; ++i) {
            limit_[i] = limit_[i] >= Real<T>::largest ? -Real<T>::largest : limit_[i];
        }
        for (int high = 0; high < kHigh; ++high) {
            for (int t = 0; t < across_; ++t) look(high, t);
            crown(high);
        }
    }

    // Finds the band's fragments, and how many each pixel has. Returns a block of memory: where those of each row of squares
    // begin, and the fragments, pixel by pixel, the heaviest first.
    template <class Faces>
    void* find(const Faces& faces, const Polygon<T>* polygons, int* count) {
        for (int t = 0; t < across_ * kHigh; ++t) head_[t] = -1;
        faces([&](const Polygon<T>& p, int f) { look_around(p, f, scene_.blur, false); });
        Heap<T> heap(entries_.size);
        const i64 rows = i64(end_ - first_) * across_;
        kept_.grow((rows * i64(sizeof(i64)) + i64(sizeof(Found<T>)) - 1) / i64(sizeof(Found<T>)));
        for (int high = 0; high < kHigh && first_ + high * kLane < end_; ++high) {
            for (int t = 0; t < across_; ++t) solve(high, t, heap, polygons, count);
        }
        __builtin_memcpy(kept_.data, from_.get(), sizeof(i64) * (unsigned long long)(rows));
        void* block = kept_.data;
        kept_.data = nullptr;
        return block;
    }

  private:
    static constexpr int kHigh = kZBandRows / kLane;

    T key_of(T depth, T log_weight) const { return softmax_key(depth, base_, sharpness_, log_weight); }
    T limit_of(T key) const { return key + spread_ + room(key); }

    // The worst limit of a square.
    void look(int high, int t) {
        const int rows = min((high + 1) * kLane, end_ - first_);
        T worst[kLane];
        fill_lane(worst, -Real<T>::largest);
        for (int r = high * kLane; r < rows; ++r) {
            const T* own = limit_.get() + i64(r) * stride_ + t * kLane;
#pragma omp simd
            for (int i = 0; i < kLane; ++i) worst[i] = max(worst[i], own[i]);
        }
        T largest = worst[0];
        for (int i = 1; i < kLane; ++i) largest = max(largest, worst[i]);
        worst_[high * across_ + t] = largest;
    }
    void crown(int high) {
        top_[high] = -Real<T>::largest;
        for (int t = 0; t < across_; ++t) top_[high] = max(top_[high], worst_[high * across_ + t]);
    }

    // Which squares a face may enter. In a round that probes, limits become known there; else it is noted for them.
    void look_around(const Polygon<T>& p, int f, T radius, bool probing) {
        T least = Real<T>::largest, left = p.x[0], right = p.x[0], bottom = p.y[0], top = p.y[0];
        for (int k = 0; k < p.n; ++k) {
            left = min(left, p.x[k]);
            right = max(right, p.x[k]);
            bottom = min(bottom, p.y[k]);
            top = max(top, p.y[k]);
            least = min(least, p.depth[k]);
        }
        least = key_of(least, T(0));
        least -= T(1e-4) * abs(least) + T(1e-3);  // room for rounding
        bool ready = false;
        for (int high = 0; high < kHigh; ++high) {
            if (probing ? top_[high] < Real<T>::largest : !(least <= top_[high])) continue;
            const int row0 = first_ + high * kLane, row1 = min(row0 + kLane, end_);
            if (row0 >= row1) continue;
            const T y0 = scene_.grid.y(row1 - 1), y1 = scene_.grid.y(row0);
            const T dy = max(max(bottom - y1, y0 - top), T(0));
            const T all = probing ? radius : min(radius, reaches_(top_[high] - least));
            if (dy > all) continue;
            const T half = T(0.5) * T(job_.width) - T(0.5), per_step = scene_.grid.per_step;
            const int t0 = to_int((left - all) * per_step + half - T(1), 0, job_.width - 1) / kLane;
            const int t1 = to_int((right + all) * per_step + half + T(2), 0, job_.width - 1) / kLane;
            bool any = false;
            for (int t = t0; t <= t1; ++t) {
                const T worst = worst_[high * across_ + t];
                open_[t] = false;
                if (probing ? worst < Real<T>::largest : !(least <= worst)) continue;
                const T reach = probing || worst >= top_[high] ? all : min(all, reaches_(worst - least));
                const T x0 = scene_.grid.x(t * kLane), x1 = scene_.grid.x(min(t * kLane + kLane, job_.width) - 1);
                const T dx = max(max(left - x1, x0 - right), T(0));
                const T away2 = dx * dx + dy * dy;
                if (!(away2 <= squared(reach))) continue;
                open_[t] = any = true;
                if (!probing) note(high, t, away2, least, f);
            }
            if (!any || !probing) continue;
            if (!ready) face_.init(scene_, image_, p, f);
            ready = true;
            reach2_ = squared(radius);
            rows(row0, row1, high, t0, t1, radius);
        }
    }
    static T squared(T reach) { return reach < T(1e6) ? reach * reach : Real<T>::largest; }

    void note(int high, int t, T away2, T least, int f) {
        const T weight = away2 > T(0) ? scene_.log_weight(-sqrt(away2) * T(0.9999)) : T(0);
        const T bound = least - weight - T(1e-4) * abs(weight);
        if (!(bound <= worst_[high * across_ + t])) return;
        int& head = head_[high * across_ + t];
        entries_.add({bound, least, f, head});
        head = int(entries_.size) - 1;
    }

    // Finds what is in a square.
    void solve(int high, int t, Heap<T>& heap, const Polygon<T>* polygons, int* count) {
        const int row0 = first_ + high * kLane, row1 = min(row0 + kLane, end_);
        T worst[kLane];  // of the rows
        for (int r = 0; r < kLane; ++r) {
            lists_[r].clear();
            worst[r] = row0 + r < row1 ? largest_of(limit_.get() + cell(row0 + r, t)) : -Real<T>::largest;
        }
        const T x0 = scene_.grid.x(t * kLane), x1 = scene_.grid.x(min(t * kLane + kLane, job_.width) - 1);
        records_.size = 0;
        heap.fill(entries_.data, head_[high * across_ + t]);
        while (!heap.empty()) {
            const Entry<T> own = heap.pop();
            if (!(own.bound <= largest_of(worst))) break;
            const Polygon<T>& p = polygons[own.face];
            T left = p.x[0], right = p.x[0], bottom = p.y[0], top = p.y[0];
            for (int k = 1; k < p.n; ++k) {
                left = min(left, p.x[k]);
                right = max(right, p.x[k]);
                bottom = min(bottom, p.y[k]);
                top = max(top, p.y[k]);
            }
            const T dx = max(max(left - x1, x0 - right), T(0));
            bool ready = false;
            for (int row = row0; row < row1; ++row) {
                const T y = scene_.grid.y(row), dy = max(max(bottom - y, y - top), T(0)), slack = worst[row - row0];
                if (!(own.least <= slack)) continue;
                reach2_ = squared(min(scene_.blur, reaches_(slack - own.least)));
                if (dx * dx + dy * dy > reach2_) continue;
                if (!ready) face_.init(scene_, image_, p, own.face);
                ready = true;
                if (measure(row, t, y, &lists_[row - row0])) worst[row - row0] = largest_of(limit_.get() + cell(row, t));
            }
        }
        for (int row = row0; row < row1; ++row) keep(row, t, lists_[row - row0], count + i64(row) * job_.width);
    }

    void keep(int row, int t, SortedLanes<T>& list, int* count) {
        from_[i64(row - first_) * across_ + t] = kept_.size;
        int own[kLane];
        list.needed(limit_.get() + cell(row, t), T(0.49 * job_.max_error), own);
        for (int i = 0; i < min(kLane, job_.width - t * kLane); ++i) {
            count[t * kLane + i] = own[i];
            for (int k = 0; k < own[i]; ++k) {
                const Record<T>& r = records_.data[list.records(k)[i]];
                kept_.add({r.distance[i], {r.barycentric[0][i], r.barycentric[1][i], r.barycentric[2][i]}, r.depth[i], r.face});
            }
        }
    }

    i64 cell(int row, int t) const { return i64(row - first_) * stride_ + t * kLane; }
    static T largest_of(const T* lane) {
        T largest = lane[0];
#pragma omp simd reduction(max : largest)
        for (int i = 0; i < kLane; ++i) largest = max(largest, lane[i]);
        return largest;
    }

    void rows(int row0, int row1, int high, int t0, int t1, T radius) {
        Reach<T> reach;
        reach.init(face_.p, face_.edges, radius, scene_.grid);
        bool changed = false;
        const int from = max(row0, reach.first_row), to = min(row1, reach.end_row);
        for (int row = from; row < to; ++row) {
            int first, end;
            const T y = scene_.grid.y(row);
            reach.columns(y, scene_.grid, first, end);
            if (first >= end) continue;
            for (int t = max(t0, first / kLane); t <= min(t1, (end - 1) / kLane); ++t) {
                if (open_[t]) changed = measure(row, t, y, nullptr) || changed;
            }
        }
        if (!changed) return;
        bool crowned = false;
        for (int t = t0; t <= t1; ++t) {
            const T before = worst_[high * across_ + t];
            if (!open_[t]) continue;
            look(high, t);
            crowned = crowned || (before >= top_[high] && worst_[high * across_ + t] < before);
        }
        if (crowned) crown(high);
    }

    // A row of a square, of which a list is kept or only limits. Returns whether any of them changed.
    bool measure(int row, int t, T y, SortedLanes<T>* list) {
        T x[kLane], d2[kLane], edge[kLane], along[kLane], side[kLane], key[kLane], limit[kLane], depth[kLane];
        T* limits = limit_.get() + cell(row, t);
        copy_lane(x, scene_.grid.columns() + t * kLane);
        copy_lane(limit, limits);
        // Loops of their own over copies of their own, so that each becomes one vector.
        {
            const Edge<T> e0 = face_.edges[0], e1 = face_.edges[1], e2 = face_.edges[2];
#pragma omp simd
            for (int i = 0; i < kLane; ++i) {
                Nearest<T> near = no_edge<T>();
                meet(near, e0, T(0), x[i], y);
                meet(near, e1, T(1), x[i], y);
                meet(near, e2, T(2), x[i], y);
                d2[i] = near.d2;
                edge[i] = near.edge;
                along[i] = near.along;
            }
        }
        for (int k = 0; k < 3; ++k) {
            const T ex = face_.hard.ex[k], ey = face_.hard.ey[k], ax = face_.hard.ax[k], up = ex * (y - face_.hard.ay[k]);
#pragma omp simd
            for (int i = 0; i < kLane; ++i) {
                const T before = k == 0 ? T(1) : side[i];
                side[i] = up >= ey * (x[i] - ax) ? before : T(-1);
            }
        }
        for (int i = 0; face_.p.n == 4 && i < kLane; ++i) {
            Nearest<T> near = no_edge<T>();
            meet(near, face_.edges[3], T(3), x[i], y);
            const bool closer = near.d2 < d2[i];
            d2[i] = closer ? near.d2 : d2[i];
            edge[i] = closer ? T(3) : edge[i];
            along[i] = closer ? near.along : along[i];
            side[i] = on_inner_side(face_.hard, 3, x[i], y) ? side[i] : T(-1);
        }
        const T most = reach2_;
        int near_enough = 0;
#pragma omp simd reduction(| : near_enough)
        for (int i = 0; i < kLane; ++i) near_enough |= int(side[i] > T(0)) | int(d2[i] <= most);
        if (!near_enough) return false;
        keys(x, y, d2, edge, along, side, depth, key);
        int enters[kLane], any = 0;
        const T blur2 = scene_.blur > T(0) ? scene_.blur2 : T(-1);
#pragma omp simd reduction(| : any)
        for (int i = 0; i < kLane; ++i) {
            enters[i] = (int(side[i] > T(0)) | int(d2[i] <= blur2)) & int(key[i] <= limit[i]);
            any |= enters[i];
        }
        if (!any) return false;
        int changed = 0;
        const T spread = spread_;
#pragma omp simd reduction(| : changed)
        for (int i = 0; i < kLane; ++i) {
            const T own = key[i] + spread + room(key[i]);
            const int lower = enters[i] & int(own < limit[i]);
            limit[i] = lower ? own : limit[i];
            changed |= lower;
        }
        if (list) {
            T own[kLane];
            int id[kLane];
            const int face = face_.id;
#pragma GCC ivdep
            for (int i = 0; i < kLane; ++i) {
                const T found = key[i];
                const int name = face + int(side[i] > T(0));
                own[i] = enters[i] ? found : Real<T>::largest;
                id[i] = enters[i] ? name : SortedLanes<T>::kNone;
            }
            record(x, y, d2, edge, along, side, depth, enters);
            list->insert(own, id, int(records_.size) - 1, job_.k);
            if (job_.k > 0 && list->size() == job_.k) {
                const T* last = list->keys(job_.k - 1);
#pragma omp simd reduction(| : changed)
                for (int i = 0; i < kLane; ++i) {
                    changed |= int(last[i] < limit[i]);
                    limit[i] = min(limit[i], last[i]);
                }
            }
        }
        if (changed) copy_lane(limits, limit);
        return changed;
    }

    // The same as fragment_at.
    void record(const T* __restrict x, T y, const T* __restrict d2, const T* __restrict edge, const T* __restrict along,
                const T* __restrict side, const T* __restrict depth, const int* enters) {
        Record<T>& out = records_.next();
        const Polygon<T>& p = face_.p;
        const HardPlane<T> plane = face_.hard;
        out.face = face_.id >> 1;
        if (is_cut(p)) {
            for (int i = 0; i < kLane; ++i) {
                if (!enters[i]) continue;
                const Fragment<T> own = fragment_at(face_.corner, p, face_.edges, plane, x[i], y, side[i] > T(0));
                out.distance[i] = own.distance;
                out.depth[i] = own.depth;
                for (int k = 0; k < 3; ++k) out.barycentric[k][i] = own.barycentric[k];
            }
            return;
        }
        copy_lane(out.depth, depth);
        const T w0 = p.w[0], w1 = p.w[1], w2 = p.w[2];
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            const bool inside = side[i] > T(0);
            const T length = sqrt(d2[i]);
            out.distance[i] = inside ? length : min(-length, -Real<T>::least);
            const T dx = x[i] - plane.x0, dy = y - plane.y0;
            const T b0 = plane.a[0] * dx + plane.b[0] * dy + plane.c[0], b1 = plane.a[1] * dx + plane.b[1] * dy + plane.c[1];
            const T b2 = plane.a[2] * dx + plane.b[2] * dy + plane.c[2], sum = T(0) + b0 + b1 + b2;
            const T inverse = sum != T(0) ? T(1) / sum : T(0);
            const T e = edge[i], a = along[i];
            const T wk = e == T(0) ? w0 : e == T(1) ? w1 : w2, wl = e == T(0) ? w1 : e == T(1) ? w2 : w0;
            const T s = a * wk / (a * wk + (T(1) - a) * wl), r = T(1) - s;
            out.barycentric[0][i] = inside ? b0 * inverse : e == T(0) ? r : e == T(1) ? T(0) : s;
            out.barycentric[1][i] = inside ? b1 * inverse : e == T(0) ? s : e == T(1) ? r : T(0);
            out.barycentric[2][i] = inside ? b2 * inverse : e == T(0) ? T(0) : e == T(1) ? s : r;
        }
    }

    void keys(const T* __restrict x, T y, const T* __restrict d2, const T* __restrict edge, const T* __restrict along,
              const T* __restrict side, T* __restrict depth, T* __restrict key) const {
        const Polygon<T>& p = face_.p;
        const HardPlane<T> plane = face_.hard;
        const int last = p.n - 1;
        const T w0 = p.w[0], w1 = p.w[1], w2 = p.w[2], w3 = p.w[last], z0 = p.depth[0], z1 = p.depth[1], z2 = p.depth[2];
        const T z3 = p.depth[last], after_w = last == 3 ? w3 : w0, after_z = last == 3 ? z3 : z0;
        const T base = base_, sharpness = sharpness_;
#pragma omp simd
        for (int i = 0; i < kLane; ++i) {
            // As edge_depth, of edge k → l.
            const T e = edge[i], a = along[i];
            const T wk = e == T(0) ? w0 : e == T(1) ? w1 : e == T(2) ? w2 : w3;
            const T zk = e == T(0) ? z0 : e == T(1) ? z1 : e == T(2) ? z2 : z3;
            const T wl = e == T(0) ? w1 : e == T(1) ? w2 : e == T(2) ? after_w : w0;
            const T zl = e == T(0) ? z1 : e == T(1) ? z2 : e == T(2) ? after_z : z0;
            const T s = a * wk / (a * wk + (T(1) - a) * wl);
            const T inner = depth_at(plane, x[i], y);
            depth[i] = side[i] > T(0) ? inner : zk + s * (zl - zk);
        }
        // As Scene::log_weight, of which loops without look-ups become vectors.
        const T* table = job_.table;
        const T unit = job_.table_unit, half = T(0.5) * T(job_.table_size - 1), end = T(job_.table_size - 2);
        T part[kLane], here[kLane], next[kLane];
        int at[kLane];
#pragma GCC ivdep
        for (int i = 0; i < kLane; ++i) {
            const T length = min(sqrt(d2[i]), T(1e30));
            const T u = (side[i] > T(0) ? length : -length) / (length + unit);
            const T place = clamp((u + T(1)) * half, T(0), T(2) * half);
            at[i] = int(place > T(0) ? min(place, end) : T(0));  // 0 for NaN, too
            part[i] = place - T(at[i]);
        }
        for (int i = 0; i < kLane; ++i) {
            here[i] = table[at[i]];
            next[i] = table[at[i] + 1];
        }
#pragma GCC ivdep
        for (int i = 0; i < kLane; ++i) {
            const T weight = here[i] + part[i] * (next[i] - here[i]);
            key[i] = softmax_key(depth[i], base, sharpness, weight);
        }
    }

    const geodiff::HeaviestJob<T>& job_;
    const Scene<T>& scene_;
    const Farthest<T>& reaches_;
    const i64 image_;
    const int first_, end_, across_, stride_;
    Scratch<T> limit_, worst_;     // of pixels, of squares
    Scratch<unsigned char> open_;  // of the row of squares at hand
    T top_[kHigh];                 // the worst of a row of squares
    T sharpness_, base_, spread_, on_edge_;
    T reach2_ = T(0);  // how far outside the face at hand is looked, squared
    Measured<T> face_;
    Grown<Entry<T>> entries_;
    Scratch<int> head_;  // of squares: the last of their entries
    SortedLanes<T> lists_[kLane];
    Grown<Record<T>> records_;  // of the square at hand
    Grown<Found<T>> kept_;      // square by square
    Scratch<i64> from_;  // of rows of squares, where theirs begin
};

// Leaves how many fragments each pixel has, and for each band a block of memory with them, to be freed.
template <class T>
void find_heaviest(const geodiff::HeaviestJob<T>& job, const Scene<T>& scene, i64 image, int threads) {
    const Grid<T>& grid = scene.grid;
    const int bands = (job.height + kZBandRows - 1) / kZBandRows;
    const i64 count = scene.faces_of(image);
    Scratch<Polygon<T>> polygons(count);
    Scratch<Rows> rows(count);
    const ZBuffer<T> buffer(grid, job.clip + 4 * job.layout[3 * image], job.faces + 3 * job.layout[3 * image + 1], count,
                            job.near, threads);
    const i64 blocks = (count + kFaceBlock - 1) / kFaceBlock;
    const T grow = scene.blur + T(0.01) * grid.step, half = T(0.5) * T(job.height) - T(0.5);
    parallel(blocks, blocks > 4 ? threads : 1, [&](i64 block) {
        for (i64 f = block * kFaceBlock; f < min(count, (block + 1) * kFaceBlock); ++f) {
            Clip<T> corner[3];
            scene.corners(image, f, corner);
            const Polygon<T> p = polygons[f] = make_polygon(corner, job.near);
            rows[f] = {0, 0};
            if (p.n == 0) continue;
            T top = p.y[0], bottom = p.y[0];
            for (int k = 1; k < p.n; ++k) {
                bottom = min(bottom, p.y[k]);
                top = max(top, p.y[k]);
            }
            rows[f] = {to_int(half - (top + grow) * grid.per_step + T(1), 0, grid.height),
                       to_int(half - (bottom - grow) * grid.per_step + T(1), 0, grid.height)};
        }
    });
    const Bins bins(rows.get(), count, bands);
    const Farthest<T> reaches(job, T(min(job.spread, 1e3)));
    parallel(bands, threads, [&](i64 b) {
        const int first = int(b) * kZBandRows, end = min(first + kZBandRows, job.height);
        Band<T> band(job, scene, reaches, image, first, end);
        band.start(ZBand<T>(buffer, int(b), first, end, job.width));
        const auto faces = [&](auto&& body) {
            for (i64 i = bins.start[b]; i < bins.start[b + 1]; ++i) body(polygons[bins.faces[i]], bins.faces[i]);
        };
        if (band.has_unknown() && job.rim < double(scene.blur)) band.probe(faces, T(job.rim));
        if (band.has_unknown()) band.probe(faces, scene.blur);
        if (band.has_unknown()) band.close();
        job.kept[image * bands + b] =
            band.find(faces, polygons.get(), job.count + image * job.height * i64(job.width));
    });
}

}  // namespace gd
