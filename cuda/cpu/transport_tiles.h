// SPDX-License-Identifier: Apache-2.0
// Sums over all pairs of two clouds on the CPU: columns are cut into tiles that stay in the first-level cache, in
// structure-of-arrays form; rows are cut into chunks, which threads share out.
#pragma once
#include "../transport/pairs.h"
#include "grid.h"
#include "parallel.h"

namespace gd {

constexpr int kTile = 256;  // columns
constexpr int kPad = 16;    // the last tile's columns are padded to a multiple of this with h = −infinity
constexpr int kChunk = 32;  // rows a thread takes at a time

// Columns of one item of the batch.
template <class T>
struct Tile {
    const T* y;  // (dim, kTile)
    const T* h;  // (kTile)
    const T* v;  // (width, kTile)
    int count;   // columns, padded
};

// All tiles of a call: a copy of y, h and v, of the size of the clouds.
template <class T>
class Tiles {
  public:
    explicit Tiles(const TransportJob<T>& job)
        : dim_(job.dim), width_(job.v ? job.width : 0), count_((job.columns + kTile - 1) / kTile),
          columns_(job.columns), memory_(job.batch * count_ * size()), boxes_(job.batch * count_ * (2 * job.dim + 1)) {
        geodiff::parallel(job.batch * count_, job.threads, [&](i64 at) { fill(job, at / count_, at % count_); });
    }

    i64 count() const { return count_; }

    Tile<T> operator()(i64 item, i64 tile) const {
        const T* from = memory_.get() + (item * count_ + tile) * size();
        const int here = int(min(columns_ - tile * kTile, i64(kTile)));
        return {from, from + i64(dim_) * kTile, from + i64(dim_ + 1) * kTile, (here + kPad - 1) / kPad * kPad};
    }

    // For all tiles: no exponent (k + h_j) − C_ij/ε of a row is larger than this (but for rounding).
    template <int P>
    void upper_bounds(i64 item, const T* x, T k, T per_epsilon, T* __restrict bound) const {
        const T* box = boxes_.get() + item * count_ * (2 * dim_ + 1);
        const T* __restrict most = box + 2 * dim_ * count_;
        for (i64 tile = 0; tile < count_; ++tile) bound[tile] = T(0);
        for (int d = 0; d < dim_; ++d) {
            const T* __restrict low = box + d * count_;
            const T* __restrict high = box + (dim_ + d) * count_;
            const T at = x[d];
#pragma omp simd
            for (i64 tile = 0; tile < count_; ++tile) {
                const T outside = max(max(low[tile] - at, at - high[tile]), T(0));
                bound[tile] += outside * outside;
            }
        }
#pragma omp simd
        for (i64 tile = 0; tile < count_; ++tile) {
            bound[tile] = (k + most[tile]) - pair_cost<P>(bound[tile]) * per_epsilon;
        }
    }

  private:
    i64 size() const { return i64(dim_ + 1 + width_) * kTile; }

    void fill(const TransportJob<T>& job, i64 item, i64 tile) {
        T* to = memory_.get() + (item * count_ + tile) * size();
        T* h = to + i64(dim_) * kTile;
        T* v = h + kTile;
        T* box = boxes_.get() + item * count_ * (2 * dim_ + 1) + tile;
        const int here = int(min(columns_ - tile * kTile, i64(kTile)));
        const i64 from = item * columns_ + tile * kTile;
        T most = minus_infinity<T>();
        for (int j = 0; j < kTile; ++j) {
            h[j] = j < here ? job.h[from + j] : minus_infinity<T>();
            most = max(most, h[j]);
        }
        for (int d = 0; d < dim_; ++d) {
            T least = -minus_infinity<T>(), greatest = minus_infinity<T>();
            for (int j = 0; j < kTile; ++j) {
                const T value = j < here ? job.y[(from + j) * dim_ + d] : T(0);
                to[d * kTile + j] = value;
                if (h[j] > minus_infinity<T>()) {
                    least = min(least, value);
                    greatest = max(greatest, value);
                }
            }
            box[d * count_] = least;
            box[(dim_ + d) * count_] = greatest;
        }
        for (int e = 0; e < width_; ++e) {
            for (int j = 0; j < kTile; ++j) v[e * kTile + j] = j < here ? job.v[(from + j) * width_ + e] : T(0);
        }
        box[2 * dim_ * count_] = most;
    }

    int dim_, width_;
    i64 count_, columns_;
    Scratch<T> memory_;
    Scratch<T> boxes_;  // of each item: (dim, tiles) lower corners of columns that count, upper ones, (tiles) largest h
};

// |x_i − y_j|² of a row.
template <int D, class T>
void squares(const Tile<T>& tile, const T* row, int dim, T* __restrict square) {
    const int n = tile.count;
    for (int d = 0; d < (D > 0 ? D : dim); ++d) {
        const T* __restrict y = tile.y + d * kTile;
        const T x = row[d];
#pragma omp simd
        for (int j = 0; j < n; ++j) square[j] = (d == 0 ? T(0) : square[j]) + (x - y[j]) * (x - y[j]);
    }
}

// Writes the exponents (k + h_j) − C_ij/ε of a row to t, and returns the largest. In this order they round to the same
// number when rows and columns change places, so that all products are with one and the same matrix.
template <int D, int P, class T>
T exponents(const Tile<T>& tile, const T* row, int dim, T k, T per_epsilon, T* __restrict t) {
    const T* __restrict y = tile.y;
    const T* __restrict h = tile.h;
    const int n = tile.count;
    if constexpr (D == 0) squares<0>(tile, row, dim, t);
    T x[D > 0 ? D : 1] = {};
    for (int d = 0; d < D; ++d) x[d] = row[d];
    T most = minus_infinity<T>();
#pragma omp simd reduction(max : most)
    for (int j = 0; j < n; ++j) {
        const T square = D > 0 ? pair_square<D>(x, y + j, kTile, dim) : t[j];
        const T value = (k + h[j]) - pair_cost<P>(square) * per_epsilon;
        t[j] = value;
        most = most < value ? value : most;
    }
    return most;
}

template <class T>
T exp_sum(const T* __restrict t, int n, T most) {
    T sum = T(0);
#pragma omp simd reduction(+ : sum)
    for (int j = 0; j < n; ++j) sum += exp_above(t[j] - most, -ExponentRange<T>::reach);
    return sum;
}

// t becomes the weights exp(t).
template <class T>
void weights(T* __restrict t, int n) {
    using R = ExponentRange<T>;
#pragma omp simd
    for (int j = 0; j < n; ++j) t[j] = exp_above(min(t[j], R::cap), R::floor);
}

// p = 1: the weights t are divided by the distances. (For p = 2 what is left of the slope is a factor 2.)
template <int D, int P, class T>
void divide_by_distance(const Tile<T>& tile, const T* row, int dim, T* __restrict t) {
    if (P == 2) return;
    alignas(64) T square[kTile];
    squares<D>(tile, row, dim, square);
    const int n = tile.count;
#pragma omp simd
    for (int j = 0; j < n; ++j) t[j] *= pair_slope<1>(square[j]);
}

// sum[e] += Σ_j w_j v_je for `width` columns of v. Several sums at a time: a single one would wait for its own additions.
template <class T>
void add_dots(const T* __restrict w, const T* __restrict v, int n, int width, double* sum) {
    int e = 0;
    for (; e + 3 <= width; e += 3) {
        const T* __restrict next = v + e * kTile;
        T a = T(0), b = T(0), c = T(0);
#pragma omp simd reduction(+ : a, b, c)
        for (int j = 0; j < n; ++j) {
            a += w[j] * next[j];
            b += w[j] * next[kTile + j];
            c += w[j] * next[2 * kTile + j];
        }
        sum[e] += double(a);
        sum[e + 1] += double(b);
        sum[e + 2] += double(c);
    }
    for (; e < width; ++e) {
        const T* __restrict next = v + e * kTile;
        const int half = n / 2;
        T a = T(0), b = T(0);
#pragma omp simd reduction(+ : a, b)
        for (int j = 0; j < half; ++j) {
            a += w[j] * next[j];
            b += w[half + j] * next[half + j];
        }
        sum[e] += double(a + b);
    }
}

// sum[e·dim + d] += Σ_j w_j v_je (x_d − y_jd)
template <int D, class T>
void add_moments(const Tile<T>& tile, const T* row, const T* __restrict w, int dim, int width, double* sum) {
    const int n = tile.count;
    for (int e = 0; e < width; ++e) {
        const T* __restrict v = tile.v + e * kTile;
        for (int first = 0; first < dim; first += 3) {
            // Three coordinates at a time; where fewer are left, the last repeats.
            const int count = D > 0 ? D : min(dim - first, 3);
            const int second = first + (count > 1 ? 1 : 0), third = first + count - 1;
            const T* __restrict y0 = tile.y + first * kTile;
            const T* __restrict y1 = tile.y + second * kTile;
            const T* __restrict y2 = tile.y + third * kTile;
            const T x0 = row[first], x1 = row[second], x2 = row[third];
            T a = T(0), b = T(0), c = T(0);
#pragma omp simd reduction(+ : a, b, c)
            for (int j = 0; j < n; ++j) {
                const T weight = w[j] * v[j];
                a += weight * (x0 - y0[j]);
                if (D != 1) b += weight * (x1 - y1[j]);
                if (D == 0 || D == 3) c += weight * (x2 - y2[j]);
            }
            const T found[3] = {a, b, c};
            for (int d = 0; d < count; ++d) sum[e * dim + first + d] += double(found[d]);
        }
    }
}

// Each row's own best tile first, so that what is too far to count is soon known; then tile after tile.
// visit(i, tile): a row of the chunk and a tile whose exponents may lie within `reach` of largest[i], which it updates.
template <int P, class T, class Visit>
void walk(const TransportJob<T>& job, const Tiles<T>& tiles, i64 item, i64 begin, int rows, T* largest, Visit&& visit) {
    const T per_epsilon = per_epsilon_of(job);
    const T* x = job.x + (item * job.rows + begin) * job.dim;
    const i64 count = tiles.count();
    const Scratch<T> bounds(kChunk * count);
    i64 first[kChunk];
    for (int i = 0; i < rows; ++i) {
        T* bound = bounds.get() + i * count;
        const T k = job.k ? job.k[item * job.rows + begin + i] : T(0);
        tiles.template upper_bounds<P>(item, x + i * job.dim, k, per_epsilon, bound);
        largest[i] = minus_infinity<T>();
        first[i] = -1;
        T best = minus_infinity<T>();
        for (i64 tile = 0; tile < count; ++tile) {
            if (bound[tile] > best) {
                best = bound[tile];
                first[i] = tile;
            }
        }
        if (first[i] >= 0) visit(i, tiles(item, first[i]));
    }
    for (i64 at = 0; at < count; ++at) {
        const Tile<T> tile = tiles(item, at);
        for (int i = 0; i < rows; ++i) {
            const T bound = bounds[i * count + at];
            if (at == first[i] || !(bound > minus_infinity<T>())) continue;
            // A part in 10⁴ and 1 are room for rounding.
            if (bound + T(1) + T(1e-4) * abs(bound) >= largest[i] - ExponentRange<T>::reach) visit(i, tile);
        }
    }
}

}  // namespace gd
