// SPDX-License-Identifier: Apache-2.0
// One more point for each of many least-squares fits: a start of a piece keeps the triangular factor of its own fit and
// takes the point in by plane rotations (Givens); what is left of the point's values adds to the cost of the piece. A
// start in each lane. Compiled once for all SIMD levels, since costs decide where pieces are cut; arguments were checked in
// geodiff/splines/pieces.py, and the twin is geodiff/reference/pieces.py.
#include <cmath>

#include "bindings.h"

namespace geodiff {
namespace {

struct Job {
    double* state;         // (count, count + channels, stride) triangular factors
    double* cost;          // (stride)
    const int64_t* starts; // (stride) the first point of each piece
    const double* at;      // (points) parameters
    const double* x;       // (channels, points)
    long long count, channels, points, stride;
    long long point;       // that is taken in
    double root;           // of its weight
    double unit;           // what a squared residual counts
};

constexpr long long kLanes = 64;  // starts at a time
constexpr int kMost = 10;   // powers: of degree 9

void turn(double* __restrict above, double* __restrict below, const double* __restrict c, const double* __restrict s, long long n) {
#pragma omp simd
    for (long long i = 0; i < n; ++i) {
        const double old = above[i], row = below[i];
        above[i] = c[i] * old + s[i] * row;
        below[i] = c[i] * row - s[i] * old;
    }
}

void take(const Job& job, long long first, long long n) {
    alignas(64) double row[kMost][kLanes], c[kMost][kLanes], s[kMost][kLanes], value[kLanes], added[kLanes];
    const long long count = job.count, columns = count + job.channels;
    const int64_t* starts = job.starts + first;
    const double here = job.at[job.point];
    for (long long i = 0; i < n; ++i) row[0][i] = job.root, added[i] = 0.0;
    for (long long r = 1; r < count; ++r)
        for (long long i = 0; i < n; ++i) row[r][i] = row[r - 1][i] * (here - job.at[starts[i]]);
    for (long long r = 0; r < count; ++r) {
        double* diagonal = job.state + (r * columns + r) * job.stride + first;
#pragma omp simd
        for (long long i = 0; i < n; ++i) {
            const double old = diagonal[i], own = row[r][i], length = std::sqrt(old * old + own * own);
            const bool there = length > 0.0;
            const double safe = there ? length : 1.0;
            c[r][i] = there ? old / safe : 1.0;
            s[r][i] = own / safe;
        }
        for (long long k = r; k < count; ++k)
            turn(job.state + (r * columns + k) * job.stride + first, row[k], c[r], s[r], n);
    }
    for (long long k = 0; k < job.channels; ++k) {
        const double* x = job.x + k * job.points;
        for (long long i = 0; i < n; ++i) value[i] = (x[job.point] - x[starts[i]]) * job.root;
        for (long long r = 0; r < count; ++r)
            turn(job.state + (r * columns + count + k) * job.stride + first, value, c[r], s[r], n);
        for (long long i = 0; i < n; ++i) added[i] += value[i] * value[i];
    }
    for (long long i = 0; i < n; ++i) job.cost[first + i] += job.unit * added[i];
}

void pieces_take(Array<double, 3> state, Array<double, 1> cost, Array<const int64_t, 1> starts,
                 Array<const double, 1> at, Array<const double, 2> x, int64_t first, int64_t last, int64_t point,
                 double root, double unit, int threads) {
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
    job.root = root;
    job.unit = unit;
    nb::gil_scoped_release release;
    for (long long start = first; start < last; start += kLanes)
        take(job, start, last - start < kLanes ? last - start : kLanes);
}

}  // namespace

void bind_pieces(nb::module_& m) {
    using namespace nb::literals;
    m.def("pieces_take", &pieces_take, nb::kw_only(), "state"_array, "cost"_array, "starts"_array, "at"_array, "x"_array,
          "first"_a, "last"_a, "point"_a, "root"_a, "unit"_a, "threads"_a = 1);
}

}  // namespace geodiff
