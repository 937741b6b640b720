// SPDX-License-Identifier: Apache-2.0
// The principal axes of a point's neighbours, for many points. In double, and compiled once for all SIMD levels, so that
// every machine finds the same ones.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "bindings.h"
#include "parallel.h"

namespace geodiff {
namespace {

constexpr long long kBlock = 256;  // points that a thread takes at once
constexpr int kSweeps = 16;        // of rotations; a third of these is enough

// Where the three coordinates of `spread` are the variances along the columns of `axes`.
struct Axes {
    double spread[3];
    double axes[3][3];

    int least() const { return static_cast<int>(std::min_element(spread, spread + 3) - spread); }
};

// By cyclic rotations (Jacobi 1846): a symmetric matrix xx, xy, xz, yy, yz, zz.
Axes principal(const double* m) {
    double a[3][3] = {{m[0], m[1], m[2]}, {m[1], m[3], m[4]}, {m[2], m[4], m[5]}};
    Axes found{{0, 0, 0}, {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}}};
    double(*v)[3] = found.axes;
    const double trace = m[0] + m[3] + m[5];
    for (int sweep = 0; sweep < kSweeps; ++sweep) {
        const double off = a[0][1] * a[0][1] + a[0][2] * a[0][2] + a[1][2] * a[1][2];
        if (!(off > 1e-34 * trace * trace)) break;
        for (int p = 0; p < 2; ++p) {
            for (int q = p + 1; q < 3; ++q) {
                if (a[p][q] == 0) continue;
                const double theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
                const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::sqrt(theta * theta + 1));
                const double c = 1 / std::sqrt(t * t + 1), s = t * c;
                const int r = 3 - p - q;
                const double arp = a[r][p], arq = a[r][q];
                a[p][p] -= t * a[p][q];
                a[q][q] += t * a[p][q];
                a[p][q] = a[q][p] = 0;
                a[r][p] = a[p][r] = c * arp - s * arq;
                a[r][q] = a[q][r] = s * arp + c * arq;
                for (int k = 0; k < 3; ++k) {
                    const double vp = v[k][p], vq = v[k][q];
                    v[k][p] = c * vp - s * vq;
                    v[k][q] = s * vp + c * vq;
                }
            }
        }
    }
    for (int k = 0; k < 3; ++k) found.spread[k] = a[k][k];
    return found;
}

// Sums of places, from which their mean and variances follow; of places near zero, so that little is lost.
struct Moments {
    double sum[3] = {0, 0, 0}, square[6] = {0, 0, 0, 0, 0, 0};
    int count = 0;

    void add(const double* x) {
        for (int k = 0; k < 3; ++k) sum[k] += x[k];
        square[0] += x[0] * x[0], square[1] += x[0] * x[1], square[2] += x[0] * x[2];
        square[3] += x[1] * x[1], square[4] += x[1] * x[2], square[5] += x[2] * x[2];
        ++count;
    }

    Axes axes() const {
        const double n = count, x = sum[0] / n, y = sum[1] / n, z = sum[2] / n;
        const double m[6] = {square[0] / n - x * x, square[1] / n - x * y, square[2] / n - x * z,
                             square[3] / n - y * y, square[4] / n - y * z, square[5] / n - z * z};
        return principal(m);
    }
};

struct Job {
    const double* places;
    const int64_t* members;
    long long stride;
    int width;
    std::vector<long long> sizes;
    std::vector<double> factors, terms;
    bool own;
    int keep;
    double *spread, *axis;
};

void one(const Job& job, long long i, std::vector<double>& offset, std::vector<std::pair<double, int>>& far) {
    const int64_t* row = job.members + i * job.stride;
    const double* origin = job.places + 3 * (job.own ? i : row[0]);
    const int first = job.own, count = first + job.width;
    for (int k = 0; k < 3; ++k) offset[k] = 0;  // its own
    for (int j = 0; j < job.width; ++j)
        for (int k = 0; k < 3; ++k) offset[3 * (first + j) + k] = job.places[3 * row[j] + k] - origin[k];
    Moments moments;
    Axes best{};
    double least = std::numeric_limits<double>::infinity();
    int j = 0;
    for (size_t s = 0; s < job.sizes.size(); ++s) {
        for (; j < first + job.sizes[s]; ++j) moments.add(&offset[3 * j]);
        const Axes axes = moments.axes();
        double sorted[3] = {axes.spread[0], axes.spread[1], axes.spread[2]};
        std::sort(sorted, sorted + 3);
        const double ratio = std::max(sorted[0], 0.0) / std::max(sorted[1], 1e-300) * job.factors[s] + job.terms[s];
        if (ratio < least) least = ratio, best = axes;
    }
    if (job.keep) {
        const int a = best.least();
        double mean = 0;
        for (int k = 0; k < 3; ++k) mean += moments.sum[k] / moments.count * best.axes[k][a];
        for (int m = 0; m < count; ++m) {
            double height = -mean;
            for (int k = 0; k < 3; ++k) height += offset[3 * m + k] * best.axes[k][a];
            far[m] = {std::abs(height), m};
        }
        std::nth_element(far.begin(), far.begin() + (job.keep - 1), far.begin() + count);
        Moments nearer;
        for (int m = 0; m < job.keep; ++m) nearer.add(&offset[3 * far[m].second]);
        best = nearer.axes();
    }
    const int a = best.least();
    for (int k = 0; k < 3; ++k) job.axis[3 * i + k] = best.axes[k][a];
    std::sort(best.spread, best.spread + 3);
    for (int k = 0; k < 3; ++k) job.spread[3 * i + k] = std::max(best.spread[k], 0.0);
}

// Variances (N, 3), ascending, and the first axis (N, 3) of places (P, 3) that rows of members (N, K) name; with `own`
// the place of the row's own number counts besides. Of several sizes, up to K, the first so many members count, and what
// has the smallest ratio of the least to the middle variance is returned: times a factor, plus a term of the size. With
// `keep`, once more with so many that are nearest to the plane.
void neighbour_axes(Array<const double, 2> places, nb::ndarray<const int64_t, nb::ndim<2>, nb::device::cpu> members,
                    std::vector<long long> sizes, std::vector<double> factors, std::vector<double> terms, bool own,
                    int keep, Array<double, 2> spread, Array<double, 2> axis, int threads) {
    const int width = static_cast<int>(members.shape(1));
    if (members.stride(1) != 1 || sizes.empty() || sizes.back() > width || factors.size() != sizes.size() ||
        terms.size() != sizes.size() || keep > width + own)
        throw nb::value_error("members, sizes, factors, terms and keep must go together");
    const Job job{places.data(), members.data(), static_cast<long long>(members.stride(0)), width, std::move(sizes),
                  std::move(factors), std::move(terms), own, keep, spread.data(), axis.data()};
    const long long count = static_cast<long long>(members.shape(0));
    nb::gil_scoped_release release;
    parallel((count + kBlock - 1) / kBlock, threads, [&](long long block) {
        std::vector<double> offset(3 * (job.width + 1));
        std::vector<std::pair<double, int>> far(job.width + 1);
        const long long end = std::min(count, (block + 1) * kBlock);
        for (long long i = block * kBlock; i < end; ++i) one(job, i, offset, far);
    });
}

}  // namespace

void bind_axes(nb::module_& m) {
    using namespace nb::literals;
    m.def("neighbour_axes", &neighbour_axes, nb::kw_only(), "places"_array, "members"_array, "sizes"_a, "factors"_a,
          "terms"_a, "own"_a, "keep"_a, "spread"_array, "axis"_array, "threads"_a = 1);
}

}  // namespace geodiff
