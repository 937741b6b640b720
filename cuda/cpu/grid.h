// SPDX-License-Identifier: Apache-2.0
// Pixels on the CPU: where rows and columns lie in NDC, and which of them a polygon grown by a radius may touch.
#pragma once
#include "../raster/distance.h"
#include "../raster/grid.h"
#include "jobs.h"

namespace gd {

// kLane numbers at once. (A plain loop of eight is unrolled into scalars before it can become one vector.)
constexpr int kLane = 8;  // pixels are handled in groups of this many
constexpr int kSpans = 16;  // rows whose spans of columns are found together
constexpr i64 kManyImages = 8;  // from here on threads share out images rather than parts of one

// Memory for one call, released with it. (std::vector stays out: see CMakeLists.txt.)
template <class T>
class Scratch {
  public:
    explicit Scratch(i64 count) : data_(static_cast<T*>(__builtin_malloc(sizeof(T) * size_t_(count + 16)))) {}
    ~Scratch() { __builtin_free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* get() const { return data_; }
    T& operator[](i64 i) const { return data_[i]; }

  private:
    static unsigned long long size_t_(i64 n) { return static_cast<unsigned long long>(n < 1 ? 1 : n); }
    T* data_;
};

// Pixel centres, of a few rows and columns beyond the image too, since lanes are filled with neighbours.
template <class T>
struct Grid {
    int height, width;
    T step;      // NDC between two pixels
    T per_step;  // pixels in an NDC unit

    Grid(int height_, int width_)
        : height(height_), width(width_), step(T(2) / T(shorter_side(height, width))),
          per_step(T(shorter_side(height, width)) / T(2)), x_(width + kLane), y_(height + kSpans) {
        for (int i = 0; i < width + kLane; ++i) x_[i] = pixel_x<T>(height, width, i);
        for (int i = 0; i < height + kSpans; ++i) y_[i] = pixel_y<T>(height, width, i);
    }

    T x(int column) const { return x_[column]; }
    T y(int row) const { return y_[row]; }
    const T* columns() const { return x_.get(); }
    const T* rows() const { return y_.get(); }

  private:
    Scratch<T> x_, y_;
};

template <class T>
int to_int(T x, int low, int high) {
    return int(clamp(x, T(low), T(high)));
}

// The part of the image within `radius` of a polygon, row by row: never too small, and only little too large.
template <class T>
struct Reach {
    int first_row, end_row;
    T left, right;               // of the bounding box, in NDC
    T cx, cy, reach2;            // bounding circle, grown
    T slope[4], lower[4], upper[4];  // the half-planes of the edges, grown: slope·y + lower ≤ x ≤ slope·y + upper

    void init(const Polygon<T>& p, const Edge<T>* e, T radius, const Grid<T>& grid) {
        T top = p.y[0], bottom = p.y[0];
        left = right = p.x[0];
        for (int k = 1; k < p.n; ++k) {
            left = min(left, p.x[k]);
            right = max(right, p.x[k]);
            bottom = min(bottom, p.y[k]);
            top = max(top, p.y[k]);
        }
        const T margin = T(0.01) * grid.step;  // room for rounding
        const T grow = min(radius, T(1e6)) + margin;
        cx = T(0.5) * (left + right);
        cy = T(0.5) * (bottom + top);
        T furthest = T(0);
        for (int k = 0; k < p.n; ++k) {
            const T dx = p.x[k] - cx, dy = p.y[k] - cy;
            furthest = max(furthest, dx * dx + dy * dy);
        }
        const T reach = sqrt(furthest) * T(1.0001) + grow;
        reach2 = reach * reach;
        left -= grow;
        right += grow;
        const T half = T(0.5) * T(grid.height) - T(0.5);
        first_row = to_int(half - (top + grow) * grid.per_step + T(1), 0, grid.height);
        end_row = to_int(half - (bottom - grow) * grid.per_step + T(1), 0, grid.height);
        for (int k = p.n; k < 4; ++k) slope[k] = T(0), lower[k] = T(-1e30), upper[k] = T(1e30);
        for (int k = 0; k < p.n; ++k) {
            const bool bounds = abs(e[k].nx) > T(1e-3);
            const T inverse = bounds ? T(1) / e[k].nx : T(0);
            slope[k] = -e[k].ny * inverse;
            const T offset = e[k].ax - slope[k] * e[k].ay + grow * inverse;
            lower[k] = bounds && inverse < T(0) ? offset : T(-1e30);
            upper[k] = bounds && inverse > T(0) ? offset : T(1e30);
        }
    }

    // The same for the half-planes of the edges, each grown by `radius`: a polygon whose corners are mitres, which reach
    // far where an angle is sharp.
    void init_lines(const Polygon<T>& p, const Edge<T>* e, T radius, const Grid<T>& grid) {
        init(p, e, radius, grid);
        const T grow = min(radius, T(1e6)) + T(0.01) * grid.step;
        T top = -Real<T>::largest, bottom = Real<T>::largest;
        left = Real<T>::largest;
        right = -Real<T>::largest;
        int before = p.n - 1;
        if (e[before].inverse <= T(0)) --before;
        for (int k = 0; k < p.n; ++k) {
            if (e[k].inverse <= T(0)) continue;
            // The tip is at 2·grow·m/|m|² from the corner, m the sum of the normals. Where the angle is so sharp that m is
            // mere rounding, the slack for that rounding spans the image.
            const T mx = e[before].nx + e[k].nx, my = e[before].ny + e[k].ny;
            const T far = min(T(2) * grow / max(mx * mx + my * my, Real<T>::least), T(1e30));
            const T slack = grow * T(1e-4) + far * T(16) * Real<T>::epsilon;
            const T x = p.x[k] + far * mx, y = p.y[k] + far * my;
            left = min(left, x - slack);
            right = max(right, x + slack);
            bottom = min(bottom, y - slack);
            top = max(top, y + slack);
            before = k;
        }
        // Of two grown lines that are all but parallel rounding decides where they meet.
        const T rounding = T(64) * Real<T>::epsilon;
        left -= rounding * abs(left);
        right += rounding * abs(right);
        bottom -= rounding * abs(bottom);
        top += rounding * abs(top);
        cx = cy = T(0);  // the circle is the whole image: mitres reach out of the polygon's own
        reach2 = T(1e30);
        const T half = T(0.5) * T(grid.height) - T(0.5);
        first_row = to_int(half - top * grid.per_step + T(0.98), 0, grid.height);
        end_row = to_int(half - bottom * grid.per_step + T(1.02), 0, grid.height);
    }

    // Columns [first, end) of a row.
    void columns(T y, const Grid<T>& grid, int& first, int& end) const {
        const T dy = y - cy;
        const T half = sqrt(max(reach2 - dy * dy, T(0)));
        T low = max(left, cx - half), high = min(right, cx + half);
        low = max(max(low, slope[0] * y + lower[0]), slope[1] * y + lower[1]);
        low = max(max(low, slope[2] * y + lower[2]), slope[3] * y + lower[3]);
        high = min(min(high, slope[0] * y + upper[0]), slope[1] * y + upper[1]);
        high = min(min(high, slope[2] * y + upper[2]), slope[3] * y + upper[3]);
        const T center = T(0.5) * T(grid.width) - T(0.5), most = T(grid.width);
        const T margin = T(0.02);
        first = int(clamp(low * grid.per_step + center - margin + T(1), T(0), most));
        end = int(clamp(high * grid.per_step + center + margin + T(1), T(0), most));
    }

    // The same for the rows from `row` on, kSpans of them.
    void spans(int row, const Grid<T>& grid, int* __restrict first, int* __restrict end) const {
        const T* __restrict rows = grid.rows() + row;
#pragma omp simd
        for (int i = 0; i < kSpans; ++i) columns(rows[i], grid, first[i], end[i]);
    }
};

template <class T>
void copy_lane(T* to, const T* from) {
    __builtin_memcpy(to, from, sizeof(T) * kLane);
}
template <class T>
void fill_lane(T* to, T value) {
#pragma omp simd
    for (int i = 0; i < kLane; ++i) to[i] = value;
}
template <class T>
void add_lane(T* __restrict to, const T* __restrict from) {
#pragma omp simd
    for (int i = 0; i < kLane; ++i) to[i] += from[i];
}

template <class T>
void load_face(const T* clip, const int* face, Clip<T> corner[3]) {
    for (int k = 0; k < 3; ++k) {
        const T* c = clip + 4 * i64(face[k]);
        corner[k] = {c[0], c[1], c[2], c[3]};
    }
}

}  // namespace gd
