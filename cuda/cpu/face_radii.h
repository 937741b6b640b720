// SPDX-License-Identifier: Apache-2.0
// How far each face of a fine mesh is looked for on the CPU. `SilhouetteModel::radius` is safe even if all faces of the
// mesh lay at one distance from a pixel; here it is counted how many lie how far around it, and asked how nearly covered
// it is, so that most radii are much smaller and what is left out still moves no alpha by more than `max_error`.
//
// All that faces left out may add to a pixel's sum is 1, a face beyond radii[i] costs less than cost(i) = 2^((kDearest −
// i)/2) of it. Around a cell of pixels the faces that touch a square of cells are counted by their bounding boxes; those
// that do not touch it are farther off than it is wide. The cell's radius is the least for which the costs come to no more
// than 1, or than 2^b where its pixels are so nearly covered that alpha is 2^b times less sensitive to the sum. A face
// takes the largest radius among the cells that find it within theirs. It depends on nothing but the image, hence the same
// bits on any number of threads, and the backward pass finds it anew.
#pragma once
#include "silhouette_setup.h"

namespace gd {

template <class T>
class FaceRadii {
  public:
    FaceRadii(const SilhouetteSetup<T>& s, const Polygon<T>* p, i64 n, int t)
        : setup(s), polygons(p), faces(n), threads(t), side(cell_side(s, n)), across(cells(s.job.width)),
          down(cells(s.job.height)), stride(2 * across), boxes(n), counts(i64(2 * down) * stride), radius(i64(across) * down),
          needed(i64(across) * down) {
        count();
        distances();
    }

    // Whether the sum of the nearest faces, of those within `least()`, is worth a pass of its own.
    bool wants_cover() const {
        if (!setup.eased()) return false;
        double few = 0, many = 0;
        for (i64 f = 0; f < faces; ++f) {
            if (polygons[f].n == 0) continue;
            const double wide = boxes[f].wide, high = boxes[f].high;
            few += (wide + 2 * double(least()) * per_step()) * (high + 2 * double(least()) * per_step());
            many += (wide + 2 * double(setup.radius) * per_step()) * (high + 2 * double(setup.radius) * per_step());
        }
        return 4 * few < many;
    }

    T least() const { return setup.radii[first()]; }

    // The radii of all faces. `sum` (H, W), or null: a lower bound of what pixels have.
    void find(const T* sum, T* out) {
        geodiff::parallel(down, threads, [&](i64 y) {
            for (int x = 0; x < across; ++x) radius[y * across + x] = cell_radius(x, int(y), sum);
        });
        geodiff::parallel(down, threads, [&](i64 y) { spread(int(y)); });
        constexpr i64 kBlock = 1024;
        geodiff::parallel((faces + kBlock - 1) / kBlock, threads, [&](i64 block) {
            for (i64 f = block * kBlock; f < min(faces, (block + 1) * kBlock); ++f) {
                T most = T(0);
                for (int y = boxes[f].bottom; polygons[f].n && y <= boxes[f].top; ++y) {
                    for (int x = boxes[f].left; x <= boxes[f].right; ++x) most = max(most, needed[i64(y) * across + x]);
                }
                out[f] = most;
            }
        });
    }

  private:
    static constexpr int kRings = 10;    // squares around a cell, of 1, 3, 5, … cells a side
    static constexpr int kLeastSide = 2; // pixels

    // Cells that the bounding box touches, and its size in pixels.
    struct Box {
        short left, right, bottom, top;
        float wide, high;
    };

    const SilhouetteSetup<T>& setup;
    const Polygon<T>* polygons;
    const i64 faces;
    const int threads, side, across, down, stride;
    Scratch<Box> boxes;
    Scratch<int> counts;
    Scratch<T> radius, needed;
    int within[geodiff::kRadii];   // radii[i]: faces that touch no square of this many rings are farther
    double ring_cost[kRings + 1];  // of those that touch no square of so many rings
    int rings = kRings;            // beyond these all faces together cost little

    double per_step() const { return double(setup.grid.per_step); }

    // A few in a radius, and not many more than faces.
    static int cell_side(const SilhouetteSetup<T>& s, i64 faces) {
        const double pixels = double(s.job.height) * s.job.width;
        const double wanted = max(double(s.radius) * double(s.grid.per_step) / (kRings - 2), sqrt(pixels / (4.0 * faces)));
        return max(kLeastSide, 1 + int(min(wanted, double(max(s.job.height, s.job.width)))));
    }
    int cells(int pixels) const { return (pixels + side - 1) / side; }

    // From here on a pixel's nearest faces are looked for: F is a sixteenth there, if it may be at all.
    int first() const {
        if (!setup.eased()) return geodiff::kDearest;
        double cost = 1 / (16 * setup.job.max_error);
        int i = geodiff::kDearest;
        for (; i > 0 && cost > 1; --i) cost *= 0.70710678;
        return i;
    }

    static double cost(int i) {
        double value = i & 1 ? 0.70710678118654757 : 1.0;
        for (int k = i / 2; k > geodiff::kDearest / 2; --k) value *= 0.5;
        for (int k = i / 2; k < geodiff::kDearest / 2; ++k) value *= 2;
        return value;
    }

    // Faces counted so that a square of cells knows how many touch it. A box covers V cells of the square, and E sides and
    // Q corners between them: V − E + Q = 1. So cells, sides and corners have places of their own, and summed areas.
    void count() {
        for (i64 i = 0; i < i64(2 * down) * stride; ++i) counts[i] = 0;
        const double half_w = 0.5 * setup.job.width, half_h = 0.5 * setup.job.height, inverse = 1.0 / side;
        const auto cell = [&](double pixel, int end) { return static_cast<short>(to_int(pixel * inverse, 0, end - 1)); };
        for (i64 f = 0; f < faces; ++f) {
            const Polygon<T>& p = polygons[f];
            if (p.n == 0) continue;
            T left = p.x[0], right = left, bottom = p.y[0], top = bottom;
            for (int k = 1; k < p.n; ++k) {
                left = min(left, p.x[k]);
                right = max(right, p.x[k]);
                bottom = min(bottom, p.y[k]);
                top = max(top, p.y[k]);
            }
            const double margin = 0.02, u = double(left) * per_step() + half_w - margin;
            const double v = half_h - double(top) * per_step() - margin;
            const double wide = double(right - left) * per_step() + 2 * margin;
            const double high = double(top - bottom) * per_step() + 2 * margin;
            const Box box = {cell(u, across), cell(u + wide, across), cell(v, down), cell(v + high, down),
                             float(min(wide, 2 * half_w)), float(min(high, 2 * half_h))};
            boxes[f] = box;
            const int x0 = 2 * box.left, x1 = 2 * box.right + 1, y0 = 2 * box.bottom, y1 = 2 * box.top + 1;
            ++counts[i64(y0) * stride + x0];
            if (x1 < stride) --counts[i64(y0) * stride + x1];
            if (y1 < 2 * down) --counts[i64(y1) * stride + x0];
            if (x1 < stride && y1 < 2 * down) ++counts[i64(y1) * stride + x1];
        }
        for (int pass = 0; pass < 2; ++pass) {  // from corners to boxes, with signs; to summed areas
            for (int y = 0; y < 2 * down; ++y) {
                int* row = &counts[i64(y) * stride];
                for (int x = 1; x < stride; ++x) row[x] += row[x - 1];
                for (int x = 0; y > 0 && x < stride; ++x) row[x] += row[x - stride];
            }
            for (int y = 0; pass == 0 && y < 2 * down; ++y) {
                int* row = &counts[i64(y) * stride];
                for (int x = 1 - (y & 1); x < stride; x += 2) row[x] = -row[x];
            }
        }
    }

    // How many faces touch the square of so many rings around a cell.
    int touching(int x, int y, int rings) const {
        const int left = 2 * max(x - rings, 0), right = 2 * min(x + rings, across - 1);
        const int low = 2 * max(y - rings, 0), high = 2 * min(y + rings, down - 1);
        int sum = counts[i64(high) * stride + right];
        if (left > 0) sum -= counts[i64(high) * stride + left - 1];
        if (low > 0) sum -= counts[i64(low - 1) * stride + right];
        if (left > 0 && low > 0) sum += counts[i64(low - 1) * stride + left - 1];
        return sum;
    }

    // NDC that a face is away from a pixel of a cell if it does not touch its square of so many rings.
    T gap(int rings) const { return (T(side) * T(rings) + T(0.5)) * setup.grid.step * T(0.9999); }

    void distances() {
        for (int i = 0; i < geodiff::kRadii; ++i) {
            int rings = 0;
            while (rings < kRings && gap(rings) < setup.radii[i]) ++rings;
            within[i] = rings;
        }
        for (int j = kRings; j >= 0; --j) {
            int i = 0;
            while (i + 1 < geodiff::kRadii && setup.radii[i + 1] <= gap(j)) ++i;
            ring_cost[j] = cost(i);
            if (ring_cost[j] * double(faces) < 0.05) rings = j;
        }
    }

    // 2^b for a cell's pixels.
    double ease_of(int x, int y, const T* sum) const {
        if (!sum) return 1;
        T least = Real<T>::largest;
        for (int row = y * side; row < min((y + 1) * side, setup.job.height); ++row) {
            const T* own = sum + i64(row) * setup.job.width;
            for (int column = x * side; column < min((x + 1) * side, setup.job.width); ++column) {
                least = min(least, own[column]);
            }
        }
        if (!(least > T(0))) return 1;  // there some slopes are infinite
        const double slope = max(setup.stages.slope(double(least), setup.job.p), 1e-30);
        const double most = cost(0);
        return clamp(setup.job.ease / slope, 1.0, most);
    }

    T cell_radius(int x, int y, const T* sum) const {
        int near[kRings + 1];
        double beyond[kRings + 1];  // the cost of those that do not touch so many rings
        near[rings] = touching(x, y, rings);
        beyond[rings] = double(faces - near[rings]) * ring_cost[rings];
        if (near[rings] == 0 && beyond[rings] <= 1) return least();
        const double allowed = ease_of(x, y, sum);
        for (int j = rings - 1; j >= 0; --j) {
            near[j] = touching(x, y, j);
            beyond[j] = beyond[j + 1] + double(near[j + 1] - near[j]) * ring_cost[j];
        }
        const auto enough = [&](int i) {
            const int j = min(within[i], rings);
            return near[j] * cost(i) + beyond[j] <= allowed;
        };
        int low = first(), high = geodiff::kRadii;  // enough from `high` on
        while (low < high) {
            const int middle = (low + high) / 2;
            if (enough(middle)) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        return high < geodiff::kRadii ? min(setup.radii[high], setup.radius) : setup.radius;
    }

    // The largest radius among the cells that find a face in a cell of row y within theirs.
    void spread(int y) const {
        T* __restrict to = &needed[i64(y) * across];
        for (int x = 0; x < across; ++x) to[x] = T(0);
        for (int dy = -kRings; dy <= kRings; ++dy) {
            if (y + dy < 0 || y + dy >= down) continue;
            const T* __restrict from = &radius[i64(y + dy) * across];
            for (int dx = -kRings; dx <= kRings; ++dx) {
                const T along = dx == 0 ? T(0) : gap(abs(dx) - 1), up = dy == 0 ? T(0) : gap(abs(dy) - 1);
                const T away = sqrt(along * along + up * up);
                if (away > setup.radius) continue;
                const int begin = max(0, -dx), end = min(across, across - dx);
                for (int x = begin; x < end; ++x) {
                    const T r = from[x + dx];
                    to[x] = max(to[x], r >= away ? r : T(0));
                }
            }
        }
    }
};

// Fills the radii of all faces. `cover(least)` leaves sums of the faces within `least`, and says where.
template <class T, class Cover>
void face_radii(const SilhouetteSetup<T>& setup, const Polygon<T>* polygons, i64 faces, int threads, T* out, Cover&& cover) {
    if (!setup.job.fine || faces == 0) {
        for (i64 f = 0; f < faces; ++f) out[f] = setup.radius;
        return;
    }
    FaceRadii<T> search(setup, polygons, faces, threads);
    search.find(search.wants_cover() ? cover(search.least()) : nullptr, out);
}

}  // namespace gd
