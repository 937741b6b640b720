// SPDX-License-Identifier: Apache-2.0
// One more point for each of many least-squares fits: a start of a piece keeps the triangular factor of its own fit and
// takes the point in by plane rotations without square roots (Gentleman 1973); what is left of the point's values adds to
// the cost of the piece. A start in each lane. Compiled once for all SIMD levels, since costs decide where pieces are cut;
// arguments were checked in geodiff/splines/pieces.py, and the twin is geodiff/reference/pieces.py.
#include <limits>

#include "bindings.h"

namespace geodiff {
namespace {

struct Job {
    double* state;         // (count, count + channels, stride) D on the diagonal and R − 1 of factors Rᵀ D R
    double* cost;          // (stride)
    const int64_t* starts; // (stride) the first point of each piece
    const double* at;      // (points) parameters
    const double* x;       // (channels, points)
    long long count, channels, points, stride;
    long long point;       // that is taken in
    double weight;         // of it
    double unit;           // what a squared residual counts
};

constexpr long long kLanes = 64;  // starts at a time
constexpr int kMost = 10;   // powers: of degree 9
constexpr double kLeast = std::numeric_limits<double>::min();  // whose inverse is finite

// above ← above + gain · (what below adds), below ← what above does not say of it.
void turn(double* __restrict above, double* __restrict below, const double* __restrict own, const double* __restrict kept,
          const double* __restrict gain, long long n) {
#pragma omp simd
    for (long long i = 0; i < n; ++i) {
        const double old = above[i], row = below[i];
        above[i] = kept[i] * old + gain[i] * row;
        below[i] = row - own[i] * old;
    }
}

void take(const Job& job, long long first, long long n) {
    alignas(64) double row[kMost][kLanes], kept[kMost][kLanes], gain[kMost][kLanes], weight[kLanes], step[kLanes];
    alignas(64) double value[kLanes], added[kLanes];
    const long long count = job.count, columns = count + job.channels;
    const int64_t* starts = job.starts + first;
    for (long long i = 0; i < n; ++i) {
        row[0][i] = 1.0;
        weight[i] = job.weight;
        added[i] = 0.0;
        step[i] = job.at[job.point] - job.at[starts[i]];
    }
    for (long long r = 1; r < count; ++r)
        for (long long i = 0; i < n; ++i) row[r][i] = row[r - 1][i] * step[i];
    for (long long r = 0; r < count; ++r) {
        double* diagonal = job.state + (r * columns + r) * job.stride + first;
        double* __restrict own = row[r];
#pragma omp simd
        for (long long i = 0; i < n; ++i) {
            const double old = diagonal[i], heavy = weight[i] * own[i], sum = old + heavy * own[i];
            const bool there = sum >= kLeast;
            const double inverse = 1.0 / (there ? sum : 1.0);
            kept[r][i] = there ? old * inverse : 1.0;
            gain[r][i] = heavy * inverse;
            weight[i] *= kept[r][i];
            diagonal[i] = sum;
        }
        for (long long k = r + 1; k < count; ++k)
            turn(job.state + (r * columns + k) * job.stride + first, row[k], own, kept[r], gain[r], n);
    }
    for (long long k = 0; k < job.channels; ++k) {
        const double* x = job.x + k * job.points;
        for (long long i = 0; i < n; ++i) value[i] = x[job.point] - x[starts[i]];
        for (long long r = 0; r < count; ++r)
            turn(job.state + (r * columns + count + k) * job.stride + first, value, row[r], kept[r], gain[r], n);
        for (long long i = 0; i < n; ++i) added[i] += value[i] * value[i];
    }
    for (long long i = 0; i < n; ++i) job.cost[first + i] += job.unit * (weight[i] * added[i]);
}

void pieces_take(Array<double, 3> state, Array<double, 1> cost, Array<const int64_t, 1> starts,
                 Array<const double, 1> at, Array<const double, 2> x, int64_t first, int64_t last, int64_t point,
                 double weight, double unit, int threads) {
    (void)threads;  // a point's work is too little for several
    Job job;
    job.state = state.data();
    job.cost = cost.data();
    job.starts = starts.data();
    job.at = at.data();
    job.x = x.data();
    job.count = static_cast<long long>(state.shape(0));
    job.channels = static_cast<long long>(x.shape(0));
    job.points = static_cast<long long>(x.shape(1));
    job.stride = static_cast<long long>(state.shape(2));
    job.point = point;
    job.weight = weight;
    job.unit = unit;
    nb::gil_scoped_release release;
    for (long long start = first; start < last; start += kLanes)
        take(job, start, last - start < kLanes ? last - start : kLanes);
}

}  // namespace

void bind_pieces(nb::module_& m) {
    using namespace nb::literals;
    m.def("pieces_take", &pieces_take, nb::kw_only(), "state"_array, "cost"_array, "starts"_array, "at"_array, "x"_array,
          "first"_a, "last"_a, "point"_a, "weight"_a, "unit"_a, "threads"_a = 1);
}

}  // namespace geodiff
