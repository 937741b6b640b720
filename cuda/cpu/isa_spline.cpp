// SPDX-License-Identifier: Apache-2.0
// Splines at scattered points on the CPU. A point meets (P + 1) or (P + 1)² rows of the control net, each P + 1 control
// points long and contiguous in memory: the loops run along the rows.
//
// Backward: points are cut into chunks, whose number does not depend on the threads; each chunk adds to a net and knots
// of its own, which are then added up in order. Many items of a batch: whole items instead.
#include "spline_block.h"

namespace gd {
namespace {

using geodiff::parallel;

constexpr i64 kChunk = 1024;        // points a thread takes at a time, forward
constexpr i64 kBackwardChunk = 2048;
constexpr int kMostChunks = 16;
constexpr i64 kManyItems = 16;

// What all points of a call share.
template <class T>
struct Evaluator {
    const SplineJob<T>& job;
    BasisStages<T> basis[3];
    ContractStages<T> stages;
    i64 step[3] = {0, 0, 0};
    i64 controls = 1;  // numbers in the net
    int knots[3] = {0, 0, 0};
    bool want_basis = false;
    i64 points;

    explicit Evaluator(const SplineJob<T>& j) : job(j), points(j.axis[0].points) {
        controls = job.dim;
        for (int a = job.axes - 1; a >= 0; --a) {
            const SplineAxis<T>& axis = job.axis[a];
            step[a] = controls;
            controls *= axis.count;
            knots[a] = axis.count + axis.degree + 1;
            basis[a] = basis_stages<T>(axis.degree, axis.order);
            want_basis = want_basis || axis.grad_knots || axis.grad_parameters;
        }
        stages = contract_stages<T>(job.axis[job.axes - 1].degree, job.dim);
    }

    int row() const { return (job.axis[job.axes - 1].degree + 1) * job.dim; }

    int rows() const {
        int count = 1;
        for (int a = 0; a < job.axes - 1; ++a) count *= job.axis[a].degree + 1;
        return count;
    }

    // Memory of one thread's block: the numbers of rows, homogeneous points, contraction's scratch.
    struct Memory {
        Scratch<i64> place;
        Scratch<T> weight, dots, points, row;

        explicit Memory(const Evaluator& e)
            : place(e.rows()), weight(i64(e.rows()) * kPoints), dots(i64(e.rows()) * kPoints),
              points(i64(kPoints) * e.job.dim), row(2 * e.row()) {}
    };

    void prepare(Block<T>& block, const Memory& memory) const {
        const int last = job.axes - 1;
        block.rows = rows();
        block.functions = job.axis[last].degree + 1;
        block.place = memory.place.get();
        block.weight = job.axes == 2 ? block.axis[0].values : aligned(memory.weight);
        block.last = block.axis[last].values;
        block.last_bar = block.axis[last].bar;
        block.dots = job.axes == 2 ? block.axis[0].bar : aligned(memory.dots);
        const int inner = job.axes == 3 ? job.axis[1].degree + 1 : 1;
        for (int r = 0; r < block.rows; ++r) {
            memory.place[r] = (r / inner) * (last > 0 ? step[0] : 0) + (r % inner) * (last > 1 ? step[1] : 0);
        }
        if (job.axes == 1) {
            T* one = aligned(memory.weight);
            for (int i = 0; i < kPoints; ++i) one[i] = T(1);
        }
    }

    // Three axes: weights are products, and their gradients go to both factors. (Two axes: the one leading basis.)
    void multiply(const Block<T>& block, T* __restrict weight) const {
        if (job.axes < 3) return;
        const int inner = job.axis[1].degree + 1;
        for (int r = 0; r < block.rows; ++r) {
            const T* x = block.axis[0].values + r / inner * kPoints;
            const T* y = block.axis[1].values + r % inner * kPoints;
            for (int i = 0; i < kPoints; ++i) weight[r * kPoints + i] = x[i] * y[i];
        }
    }
    void multiply_adjoint(Block<T>& block) const {
        if (job.axes < 3) return;
        const int inner = job.axis[1].degree + 1;
        block.axis[0].clear_bar(job.axis[0].degree + 1);
        block.axis[1].clear_bar(inner);
        for (int r = 0; r < block.rows; ++r) {
            const int at = r / inner * kPoints, other = r % inner * kPoints;
            for (int i = 0; i < kPoints; ++i) {
                block.axis[0].bar[at + i] += block.axis[1].values[other + i] * block.dots[r * kPoints + i];
                block.axis[1].bar[other + i] += block.axis[0].values[at + i] * block.dots[r * kPoints + i];
            }
        }
    }

    // Spans, bases and places of n points.
    void fill(Block<T>& block, const SpanRange* range, i64 b, i64 at, int n, bool keep) const {
        for (int i = 0; i < n; ++i) block.offset[i] = 0;
        for (int a = 0; a < job.axes; ++a) {
            const SplineAxis<T>& axis = job.axis[a];
            const T* u = axis.knots + b * axis.knots_stride;
            block.axis[a].locate(u, range[a], axis.parameters + b * axis.parameters_stride + at, n);
            (keep ? basis[a].keeping : basis[a].values)(u, axis.degree, axis.order, n, block.axis[a]);
            for (int i = 0; i < n; ++i) block.offset[i] += (block.axis[a].span[i] - axis.degree) * step[a];
        }
    }

    void ranges(i64 b, SpanRange* range) const {
        for (int a = 0; a < job.axes; ++a) {
            const SplineAxis<T>& axis = job.axis[a];
            range[a] = span_range(axis.knots + b * axis.knots_stride, axis.count, axis.degree);
        }
    }

    void forward(i64 b, i64 begin, i64 end) const {
        const Memory memory(*this);
        Block<T> block;
        SpanRange range[3];
        prepare(block, memory);
        ranges(b, range);
        const T* control = job.control + b * job.control_stride;
        for (i64 at = begin; at < end; at += kPoints) {
            const int n = int(min(end - at, i64(kPoints)));
            fill(block, range, b, at, n, false);
            multiply(block, aligned(memory.weight));
            const i64 to = b * points + at;
            T* out = job.rational ? aligned(memory.points) : job.value + to * job.dim;
            stages.forward(control, block, n, job.dim, aligned(memory.row), out);
            if (job.rational) divide(out, n, job.dim, job.value + to * (job.dim - 1), job.inverse_weight + to);
        }
    }

    // grad_control and grad_knots belong to the caller alone; grad_control may be null.
    void backward(i64 b, i64 begin, i64 end, T* grad_control, double* const* grad_knots) const {
        const Memory memory(*this);
        T* upstream = aligned(memory.points);
        Block<T> block;
        SpanRange range[3];
        prepare(block, memory);
        ranges(b, range);
        const T* control = job.control + b * job.control_stride;
        for (int a = 0; a < job.axes; ++a) block.axis[a].clear_bar(job.axis[a].degree + 1);
        for (i64 k = 0; k < i64(block.rows) * kPoints; ++k) block.dots[k] = T(0);
        for (i64 at = begin; at < end; at += kPoints) {
            const int n = int(min(end - at, i64(kPoints)));
            fill(block, range, b, at, n, want_basis);
            multiply(block, aligned(memory.weight));
            const i64 from = b * points + at;
            upstream_of(job, from, n, upstream);
            stages.backward(control, block, n, job.dim, upstream, want_basis, aligned(memory.row), grad_control);
            if (want_basis) multiply_adjoint(block);
            for (int a = 0; a < job.axes; ++a) {
                const SplineAxis<T>& axis = job.axis[a];
                if (!axis.grad_parameters && !axis.grad_knots) continue;
                basis[a].adjoint(axis.knots + b * axis.knots_stride, axis.degree, axis.order, n, block.axis[a]);
                if (axis.grad_parameters) {
                    for (int i = 0; i < n; ++i) axis.grad_parameters[from + i] = block.axis[a].bar_u[i];
                }
                if (!axis.grad_knots) continue;
                block.axis[a].add_window(axis.degree, n, grad_knots[a]);
                if (axis.bandwidth > 0) gaussian(a, b, n, block, control, upstream, grad_knots[a]);
            }
        }
    }

    void gaussian(int a, i64 b, int n, const Block<T>& block, const T* control, const T* g, double* grad) const {
        const SplineAxis<T>& axis = job.axis[a];
        const T one = T(1);
        for (int i = 0; i < n; ++i) {
            AxisPoint<T> axes[3];
            for (int c = 0; c < 3; ++c) {
                axes[c] = {&one, 0, 1, 0, 0};
                if (c >= job.axes) continue;
                const int degree = job.axis[c].degree;
                axes[c] = {block.axis[c].values + i, block.axis[c].span[i] - degree, degree + 1, kPoints, step[c]};
            }
            const T* upstream = g + i64(i) * job.dim;
            gaussian_terms(
                axis, axis.knots + b * axis.knots_stride, block.axis[a].u[i],
                [&](int f) { return blend_others(control, job.dim, upstream, axes, a, f); },
                [&](int j, T x) { grad[j] += double(x); });
        }
    }
};

template <class T>
void forward(const SplineJob<T>& job) {
    const Evaluator<T> evaluator(job);
    const i64 chunks = (evaluator.points + kChunk - 1) / kChunk;
    const int threads = job.batch * evaluator.points < 2 * kChunk ? 1 : job.threads;
    parallel(job.batch * chunks, threads, [&](i64 item) {
        const i64 b = item / chunks, begin = item % chunks * kChunk;
        evaluator.forward(b, begin, min(evaluator.points, begin + kChunk));
    });
}

// Sums of one chunk: knots in double, since they are few and much cancels.
template <class T>
struct Sums {
    Scratch<double> knots;
    double* of_axis[3];
    int total;

    explicit Sums(const Evaluator<T>& e) : knots(e.knots[0] + e.knots[1] + e.knots[2]) {
        total = e.knots[0] + e.knots[1] + e.knots[2];
        of_axis[0] = knots.get();
        of_axis[1] = of_axis[0] + e.knots[0];
        of_axis[2] = of_axis[1] + e.knots[1];
        clear();
    }
    void clear() {
        for (int j = 0; j < total; ++j) knots[j] = 0;
    }
};

template <class T>
void write_knots(const Evaluator<T>& e, i64 b, double* const* sums) {
    for (int a = 0; a < e.job.axes; ++a) {
        T* to = e.job.axis[a].grad_knots;
        if (!to) continue;
        for (int j = 0; j < e.knots[a]; ++j) to[b * e.knots[a] + j] = T(sums[a][j]);
    }
}

// Few items: the points of one are cut into chunks, each with a net and knots of its own.
template <class T>
void backward_in_chunks(const Evaluator<T>& e, int threads) {
    const SplineJob<T>& job = e.job;
    // Copies of the net cost memory, too: no more of them than points.
    const i64 room = job.grad_control ? max(i64(1), 4 * e.points * job.dim / e.controls) : kMostChunks;
    const i64 chunks = clamp(e.points / kBackwardChunk, i64(1), min(i64(kMostChunks), room));
    const i64 net = job.grad_control ? e.controls : 0, padded = (net + 15) / 16 * 16;
    const int total = e.knots[0] + e.knots[1] + e.knots[2];
    const i64 length = (e.points + chunks - 1) / chunks;
    Scratch<T> memory(chunks * padded);
    T* nets = aligned(memory);
    Scratch<double> knots(chunks * total);
    for (i64 b = 0; b < job.batch; ++b) {
        parallel(chunks, threads, [&](i64 c) {
            T* grad_control = net ? nets + c * padded : nullptr;
            double* own = knots.get() + c * total;
            double* grad_knots[3] = {own, own + e.knots[0], own + e.knots[0] + e.knots[1]};
            for (i64 k = 0; k < net; ++k) grad_control[k] = T(0);
            for (int j = 0; j < total; ++j) own[j] = 0;
            e.backward(b, min(e.points, c * length), min(e.points, (c + 1) * length), grad_control, grad_knots);
        });
        for (i64 c = 0; c < chunks; ++c) {
            for (i64 k = 0; k < net; ++k) job.grad_control[b * net + k] += nets[c * padded + k];
            if (c == 0) continue;
            for (int j = 0; j < total; ++j) knots[j] += knots[c * total + j];
        }
        double* sums[3] = {knots.get(), knots.get() + e.knots[0], knots.get() + e.knots[0] + e.knots[1]};
        write_knots(e, b, sums);
    }
}

template <class T>
void backward(const SplineJob<T>& job) {
    const Evaluator<T> e(job);
    const int threads = job.batch * e.points < 2 * kChunk ? 1 : job.threads;
    if (job.batch < kManyItems) {
        backward_in_chunks(e, threads);
        return;
    }
    parallel(job.batch, threads, [&](i64 b) {
        Sums<T> sums(e);
        e.backward(b, 0, e.points, job.grad_control ? job.grad_control + b * e.controls : nullptr, sums.of_axis);
        write_knots(e, b, sums.of_axis);
    });
}

}  // namespace

const geodiff::Kernel<geodiff::SplineJob> kernel::spline_forward = {forward, forward};
const geodiff::Kernel<geodiff::SplineJob> kernel::spline_backward = {backward, backward};

}  // namespace gd
