// SPDX-License-Identifier: Apache-2.0
// From points to control points and knots on the GPU, without atomics: points are sorted by cell (stably), the points of
// a cell are cut into chunks, and what a chunk comes to is added up by those who need it.
//
//   spline_chunks    a block a chunk and 256 of its sums: control points' gradients; the first of a chunk's blocks has those
//                    of windows of knots, too
//   spline_control   a warp a number of the control net: the chunks of the cells that it reaches, in a fixed order
//   spline_gaussian  a block a knot and slice of the points: the Gaussian mode's shares
//   spline_knots     a block a knot: the chunks of the cells whose windows hold it, and its slices
//
// What the order of a sum is follows from the problem's size: the same bits on any run.
#pragma once
#include "point_kernels.h"

#if GEODIFF_KERNELS

namespace gd {

constexpr int kSums = 256;        // threads of its block
constexpr int kQuad = 4;          // sums of a thread
constexpr int kGather = 128;      // threads of the blocks that gather
constexpr int kSlots = 2;         // chunks of a cell that threads add side by side

struct SplineCells {
    const i64* order;   // points by cell
    const i64* start;   // (cells + 1) where each cell's points begin in it
    const i64* chunks;  // (cells + 1) how many chunks come before each cell's
    const int* cell;    // of each chunk, as far as there is room for some
    i64 cells;
    int axes, functions[3], spans[3];
    int net, numbers;  // sums of a chunk: those of the control net, all of them
    int slices;        // blocks of a chunk, of which each takes kSums quads of the net's
    int windows[3];    // how many each window has, of those whose knots want gradients
    double* partial;   // (chunks, numbers)
};

// The sum over the threads of a block, in a fixed tree; the result is valid in thread 0.
GEODIFF_HD double block_sum(double mine, double* shared) {
    shared[threadIdx.x] = mine;
    __syncthreads();
    for (int half = kGather / 2; half > 0; half /= 2) {
        if (int(threadIdx.x) < half) shared[threadIdx.x] += shared[threadIdx.x + half];
        __syncthreads();
    }
    return shared[0];
}

// x as many bytes on, which takes a card one instruction.
template <class T>
GEODIFF_HD T number_at(const T* x, u64 bytes) {
    return *reinterpret_cast<const T*>(reinterpret_cast<const char*>(x) + bytes);
}

// Adds to total[0 … many) what row numbers last[0 … many) of the points order[first], order[first + step], … come to, each
// times the functions a, b and c unless it is of a window. Sixteen at a time are added in the real type.
template <class T, int Axes, bool Window>
GEODIFF_HD void add_points(const SplineRows<T>& points, const i64* order, int first, int count, int step, const T* a, const T* b,
                           const T* c, const T* last, int many, double (&total)[kQuad]) {
    const u32 bytes = u32(points.size) * u32(sizeof(T));
    for (int i = first; i < count; i += 16 * step) {
        const int end = min(count, i + 16 * step);
        T sum[kQuad] = {};
#pragma unroll 2
        for (int j = i; j < end; j += step) {
            const u64 row = u64(u32(order[j])) * bytes;
            T weight = T(1);
            if (!Window) weight = number_at(a, row);
            if (!Window && Axes > 1) weight *= number_at(b, row);
            if (!Window && Axes > 2) weight *= number_at(c, row);
#pragma unroll
            for (int k = 0; k < kQuad; ++k)
                if (k < many) sum[k] += weight * number_at(last + k, row);
        }
#pragma unroll
        for (int k = 0; k < kQuad; ++k) total[k] += double(sum[k]);
    }
}

// Adds up what `groups` groups of `width` threads have, in a tree: in total of the first group.
GEODIFF_HD void add_groups(double (&shared)[kQuad][kSums], double (&total)[kQuad], int width, int groups) {
    const int thread = int(threadIdx.x), group = thread / width;
    for (int left = groups; left > 1;) {
        const int half = (left + 1) / 2;
        if (group >= half && group < left) {
#pragma unroll
            for (int k = 0; k < kQuad; ++k) shared[k][thread] = total[k];
        }
        __syncthreads();
        if (group < left - half) {
#pragma unroll
            for (int k = 0; k < kQuad; ++k) total[k] += shared[k][thread + half * width];
        }
        left = half;
    }
}

// Block: kSums threads, each with kQuad sums of some of the points. Grid: room for chunks × slices. What else is asked for
// changes no sum's order.
template <class T, int Axes>
__global__ void __launch_bounds__(256) spline_chunks(SplineRows<T> points, SplineCells at) {
    GEODIFF_SHARED(shared, double[kQuad][kSums]);
    const i64 chunk = blockIdx.x / at.slices;
    if (chunk >= at.chunks[at.cells]) return;
    const i64 cell = at.cell[chunk], before = at.chunks[cell], chunks = at.chunks[cell + 1] - before;
    const i64 end = at.start[cell + 1], each = divided(end - at.start[cell] + chunks - 1, chunks);
    const i64 begin = min(end, at.start[cell] + (chunk - before) * each);
    const int count = int(min(each, end - begin)), thread = int(threadIdx.x), slice = int(blockIdx.x % at.slices);
    const i64* order = at.order + begin;
    double* partial = at.partial + chunk * at.numbers;
    if (at.net) {  // its quads from slice · kSums on
        const int net = at.functions[0] * at.functions[1] * at.functions[2], dim = at.net / net;
        const int width = min(kSums, (dim + kQuad - 1) / kQuad * net - slice * kSums), groups = kSums / width;
        const int group = thread / width, own = thread % width + slice * kSums, f = own % net, first = own / net * kQuad;
        double total[kQuad] = {};
        if (group < groups) {
            const int c = f % at.functions[2], b = f / at.functions[2] % at.functions[1];
            const T *of_a = points.rows + f / (at.functions[2] * at.functions[1]), *of_b = points.rows + at.functions[0] + b;
            const T* of_c = points.rows + at.functions[0] + at.functions[1] + c;
            const T* last = points.rows + points.upstream + first;
            add_points<T, Axes, false>(points, order, group, count, groups, of_a, of_b, of_c, last, dim - first, total);
        }
        add_groups(shared, total, width, groups);
#pragma unroll
        for (int k = 0; k < kQuad; ++k)
            if (group == 0 && first + k < dim) partial[(first + k) * net + f] = total[k];
    }
    if (slice > 0) return;
    int first = at.net;
    for (int a = 0; a < 3; first += at.windows[a++]) {
        if (at.windows[a] == 0) continue;
        const int width = (at.windows[a] + kQuad - 1) / kQuad, groups = kSums / width, group = thread / width;
        const int own = thread % width * kQuad, many = min(kQuad, at.windows[a] - own);
        const T* last = points.rows + points.size - (at.numbers - first - own);
        double total[kQuad] = {};
        if (group < groups) add_points<T, Axes, true>(points, order, group, count, groups, last, last, last, last, many, total);
        __syncthreads();  // what others left there is no longer read
        add_groups(shared, total, width, groups);
#pragma unroll
        for (int k = 0; k < kQuad; ++k)
            if (group == 0 && k < many) partial[first + own + k] = total[k];
    }
}

// The sum of a number over chunks of the cells of a box, of which this thread takes some: cells slot, slot + slots, …
// number(m, cell) has the cell and the number of the box's cell m.
template <class Number>
GEODIFF_HD double chunks_of(const SplineCells& at, i64 box, int slot, int slots, int lane, Number number) {
    double sum = 0;
    for (i64 m = slot; m < box; m += slots) {
        i64 cell = 0;
        const int q = number(m, cell);
        for (i64 h = at.chunks[cell] + lane; h < at.chunks[cell + 1]; h += kSlots) sum += at.partial[h * at.numbers + q];
    }
    return sum;
}

// Block: kGather threads, four warps. Grid: numbers of all nets / 4.
template <class T>
__global__ void spline_control(SplineJob<T> job, SplineCells at) {
    const i64 x = i64(blockIdx.x) * (kGather / 32) + threadIdx.x / 32;
    const int lane = int(threadIdx.x) % 32;
    i64 each = job.dim;
    for (int a = 0; a < at.axes; ++a) each *= job.axis[a].count;
    if (x >= job.batch * each) return;
    i64 rest = divided(x, job.dim);
    const int d = int(x - rest * job.dim);
    int index[3] = {0, 0, 0}, from[3] = {0, 0, 0}, size[3] = {1, 1, 1};
#pragma unroll
    for (int a = 2; a >= 0; --a) {
        if (a >= at.axes) continue;
        const i64 next = divided(rest, job.axis[a].count);
        index[a] = int(rest - next * job.axis[a].count);
        rest = next;
        from[a] = max(0, index[a] - job.axis[a].degree);
        size[a] = min(index[a], at.spans[a] - 1) - from[a] + 1;
    }
    const auto number = [&](i64 m, i64& cell) {
        int own = int(m), function = 0, c[3];
#pragma unroll
        for (int a = 2; a >= 0; --a) {
            c[a] = from[a] + own % size[a];
            own /= size[a];
        }
        cell = rest;
#pragma unroll
        for (int a = 0; a < 3; ++a) {
            cell = cell * at.spans[a] + c[a];
            function = function * at.functions[a] + index[a] - c[a];
        }
        return d * at.functions[0] * at.functions[1] * at.functions[2] + function;
    };
    double sum = chunks_of(at, i64(size[0]) * size[1] * size[2], lane / kSlots, 32 / kSlots, lane % kSlots, number);
#pragma unroll
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, other);
    if (lane == 0) job.grad_control[x] = T(sum);
}

// Block: kGather threads. Grid: knots × slices, batch: partial (batch, knots, slices).
template <class T>
__global__ void spline_gaussian(SplineJob<T> job, SplineRows<T> points, SplineCells at, int a, int slices, double* partial) {
    GEODIFF_SHARED(shared, double[kGather]);
    const SplineAxis<T>& axis = job.axis[a];
    const int total = axis.count + axis.degree + 1, j = int(blockIdx.x) / slices, slice = int(blockIdx.x) % slices;
    const i64 item = blockIdx.y, each = (axis.points + slices - 1) / slices;
    const T* knots = axis.knots + item * axis.knots_stride;
    int begin = j, end = j + 1;
    while (begin > 0 && knots[begin - 1] == knots[j]) --begin;
    while (end < total && knots[end] == knots[j]) ++end;
    double sum = 0;
    for (i64 i = slice * each + threadIdx.x; i < min(axis.points, (slice + 1) * each); i += kGather) {
        const T u = axis.parameters[item * axis.parameters_stride + i];
        if (abs(u - knots[j]) > T(kReach) * T(axis.bandwidth)) continue;
        const i64 n = item * axis.points + i;
        const T *row = points.rows + n * points.size, *values = row + points.upstream;
        const T one = T(1);
        AxisPoint<T> axes[3];
        i64 cell = points.cell[n], step = job.dim;
        for (int k = 2; k >= 0; --k) {
            axes[k] = {&one, 0, 1, 0, 0};
            if (k >= job.axes) continue;
            const int functions = job.axis[k].degree + 1;
            values -= functions;
            axes[k] = {values, int(cell % at.spans[k]), functions, 1, step};
            cell /= at.spans[k];
            step *= job.axis[k].count;
        }
        const T* control = job.control + item * job.control_stride;
        sum += double(gaussian_share(axis, knots, begin, end, u, [&](int f) {
            return blend_others(control, job.dim, row + points.upstream, axes, a, f);
        }));
    }
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) partial[(item * total + j) * slices + slice] = sum;
}

// Block: kGather threads. Grid: knots, batch. `first` is the number of a chunk's that the axis's window begins with;
// `extra` (batch, knots, slices) or null.
template <class T>
__global__ void spline_knots(SplineJob<T> job, SplineCells at, int a, int first, const double* extra, int slices) {
    GEODIFF_SHARED(shared, double[kGather]);
    const SplineAxis<T>& axis = job.axis[a];
    const i64 item = blockIdx.y, knot = item * (axis.count + axis.degree + 1) + blockIdx.x;
    const int j = int(blockIdx.x), from = max(0, j - 2 * axis.degree), size = min(j, at.spans[a]) - from;
    i64 inner = 1, outer = 1;
    for (int k = 0; k < a; ++k) outer *= at.spans[k];
    for (int k = a + 1; k < at.axes; ++k) inner *= at.spans[k];
    const auto number = [&](i64 m, i64& cell) {
        const i64 line = divided(m, inner), plane = divided(line, size);
        const int c = from + int(line - plane * size);
        cell = ((item * outer + plane) * at.spans[a] + c) * inner + (m - line * inner);
        return first + j - 1 - c;
    };
    const i64 box = size > 0 ? outer * size * inner : 0;
    const int thread = int(threadIdx.x);
    double sum = chunks_of(at, box, thread / kSlots, kGather / kSlots, thread % kSlots, number);
    sum = block_sum(sum, shared);
    if (thread != 0) return;
    for (int slice = 0; slice < slices; ++slice) sum += extra[knot * slices + slice];
    axis.grad_knots[knot] = T(sum);
}

}  // namespace gd

#endif
