// SPDX-License-Identifier: Apache-2.0
// The nearest triangle to each of many points, by a tree of boxes. In double, and compiled once for all SIMD levels, so
// that every machine finds the same one. Which triangle is nearest is all it says: places and gradients are torch's.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "bindings.h"
#include "parallel.h"

namespace geodiff {
namespace {

constexpr int kLeaf = 4;       // triangles at the end of a branch
constexpr int kDepth = 64;     // halving at the median makes fewer levels than a 64-bit count has bits
constexpr long long kBlock = 256;  // points that a thread takes at once

struct Box {
    double low[3], high[3];
    long long first;  // of its triangles in `order`
    int count;        // 0: a branch, whose left child comes next
    long long right;

    void take(const double* corner) {
        for (int k = 0; k < 3; ++k) {
            low[k] = std::min(low[k], corner[k]);
            high[k] = std::max(high[k], corner[k]);
        }
    }

    double squared_distance(const double* x) const {
        double sum = 0;
        for (int k = 0; k < 3; ++k) {
            const double gap = std::max(std::max(low[k] - x[k], x[k] - high[k]), 0.0);
            sum += gap * gap;
        }
        return sum;
    }
};

double dot(const double* a, const double* b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

void cross(const double* a, const double* b, double* out) {
    out[0] = a[1] * b[2] - a[2] * b[1];
    out[1] = a[2] * b[0] - a[0] * b[2];
    out[2] = a[0] * b[1] - a[1] * b[0];
}

double squared_to_segment(const double* x, const double* a, const double* b) {
    double way[3], ax[3];
    for (int k = 0; k < 3; ++k) way[k] = b[k] - a[k], ax[k] = x[k] - a[k];
    const double length = dot(way, way);
    const double t = length > 0 ? std::min(std::max(dot(ax, way) / length, 0.0), 1.0) : 0.0;
    for (int k = 0; k < 3; ++k) ax[k] -= t * way[k];
    return dot(ax, ax);
}

struct Triangle {
    double corner[3][3];
    double normal[3];  // unit; zero where the corners are all but in line, so that it says nothing
    double inverse;    // one over the squared length of ab × ac

    void set(const double* corners) {
        std::copy(corners, corners + 9, &corner[0][0]);
        double ab[3], ac[3];
        for (int k = 0; k < 3; ++k) ab[k] = corner[1][k] - corner[0][k], ac[k] = corner[2][k] - corner[0][k];
        cross(ab, ac, normal);
        const double square = dot(normal, normal);
        const bool flat = !(square > 1e-12 * dot(ab, ab) * dot(ac, ac));
        inverse = flat ? 0.0 : 1.0 / square;
        const double scale = flat ? 0.0 : 1.0 / std::sqrt(square);
        for (double& component : normal) component *= scale;
    }

    // Whether it may be nearer than √best: not where its plane is farther, by more than the normal's rounding.
    bool may(const double* x, double best) const {
        double ax[3];
        for (int k = 0; k < 3; ++k) ax[k] = x[k] - corner[0][k];
        const double reach = std::abs(ax[0]) + std::abs(ax[1]) + std::abs(ax[2]);
        const double height = std::abs(dot(normal, ax)) - 1e-9 * reach;
        return !(height > 0 && height * height > best);
    }

    double squared_distance(const double* x) const {
        const double *a = corner[0], *b = corner[1], *c = corner[2];
        double least = std::min(std::min(squared_to_segment(x, a, b), squared_to_segment(x, b, c)),
                                squared_to_segment(x, c, a));
        if (inverse > 0) {
            double ab[3], ac[3], ax[3], n[3], m[3];
            for (int k = 0; k < 3; ++k) ab[k] = b[k] - a[k], ac[k] = c[k] - a[k], ax[k] = x[k] - a[k];
            cross(ab, ac, n);
            cross(ax, ac, m);
            const double v = dot(m, n) * inverse;
            cross(ab, ax, m);
            const double w = dot(m, n) * inverse;
            if (v >= 0 && w >= 0 && v + w <= 1) {
                for (int k = 0; k < 3; ++k) ax[k] -= v * ab[k] + w * ac[k];
                least = std::min(least, dot(ax, ax));
            }
        }
        return least;
    }
};

class Tree {
public:
    explicit Tree(const Array<const double, 3>& corners) : order_(corners.shape(0)), triangles_(corners.shape(0)) {
        const double* data = corners.data();
        std::iota(order_.begin(), order_.end(), 0);
        boxes_.reserve(2 * order_.size() / kLeaf + 1);
        build(data, 0, static_cast<long long>(order_.size()));
        for (size_t i = 0; i < order_.size(); ++i) triangles_[i].set(data + 9 * order_[i]);
    }

    // Of equally near triangles the one of the least number, so that the order of the search does not show.
    long long nearest(const double* x) const {
        struct Entry {
            long long box;
            double distance;
        } stack[kDepth];
        int size = 0;
        double best = std::numeric_limits<double>::infinity();
        long long face = std::numeric_limits<long long>::max();
        stack[size++] = {0, boxes_[0].squared_distance(x)};
        while (size > 0) {
            const Entry entry = stack[--size];
            if (entry.distance > best) continue;
            const Box& box = boxes_[entry.box];
            if (box.count == 0) {
                Entry near{entry.box + 1, boxes_[entry.box + 1].squared_distance(x)};
                Entry far{box.right, boxes_[box.right].squared_distance(x)};
                if (far.distance < near.distance) std::swap(near, far);
                stack[size++] = far;
                stack[size++] = near;
                continue;
            }
            for (long long i = box.first; i < box.first + box.count; ++i) {
                if (!triangles_[i].may(x, best)) continue;
                const double distance = triangles_[i].squared_distance(x);
                if (distance < best || (distance == best && order_[i] < face)) best = distance, face = order_[i];
            }
        }
        return face;
    }

private:
    void build(const double* data, long long first, long long end) {
        const double infinity = std::numeric_limits<double>::infinity();
        Box box{{infinity, infinity, infinity}, {-infinity, -infinity, -infinity}, first, 0, 0};
        Box middles = box;
        for (long long i = first; i < end; ++i) {
            const double* corner = data + 9 * order_[i];
            double middle[3];
            for (int k = 0; k < 3; ++k) middle[k] = corner[k] + corner[k + 3] + corner[k + 6];
            for (int j = 0; j < 3; ++j) box.take(corner + 3 * j);
            middles.take(middle);
        }
        const size_t own = boxes_.size();
        boxes_.push_back(box);
        if (end - first <= kLeaf) {
            boxes_[own].count = static_cast<int>(end - first);
            return;
        }
        int axis = 0;
        for (int k = 1; k < 3; ++k)
            if (middles.high[k] - middles.low[k] > middles.high[axis] - middles.low[axis]) axis = k;
        const long long half = first + (end - first) / 2;
        std::nth_element(order_.begin() + first, order_.begin() + half, order_.begin() + end,
                         [=](long long i, long long j) {
                             const double *a = data + 9 * i + axis, *b = data + 9 * j + axis;
                             const double p = a[0] + a[3] + a[6], q = b[0] + b[3] + b[6];
                             return p < q || (p == q && i < j);
                         });
        build(data, first, half);
        boxes_[own].right = static_cast<long long>(boxes_.size());
        build(data, half, end);
    }

    std::vector<long long> order_;
    std::vector<Box> boxes_;
    std::vector<Triangle> triangles_;
};

// The nearest of the triangles (F, 3, 3), F ≥ 1, to each point (N, 3); all numbers finite, the lengths near 1.
void nearest_triangle(Array<const double, 3> corners, Array<const double, 2> points, Array<int64_t, 1> face,
                      int threads) {
    nb::gil_scoped_release release;
    const Tree tree(corners);
    const long long count = static_cast<long long>(points.shape(0));
    const double* x = points.data();
    int64_t* out = face.data();
    parallel((count + kBlock - 1) / kBlock, threads, [&](long long block) {
        const long long end = std::min(count, (block + 1) * kBlock);
        for (long long i = block * kBlock; i < end; ++i) out[i] = tree.nearest(x + 3 * i);
    });
}

}  // namespace

void bind_nearest(nb::module_& m) {
    using namespace nb::literals;
    m.def("nearest_triangle", &nearest_triangle, nb::kw_only(), "corners"_array, "points"_array, "face"_array,
          "threads"_a = 1);
}

}  // namespace geodiff
