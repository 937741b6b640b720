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

// How a block of points is laid over the control net: point i meets the `rows` rows that begin at offset[i] + place[r],
// with the weights weight[r·kPoints + i], products of the leading axes' bases; along each, the last axis' basis.
template <class T>
struct Block {
    AxisBlock<T> axis[3];
    int rows, functions;  // functions: of the last axis
    i64 offset[kPoints];
    const i64* place;
    const T* weight;
    const T* last;  // values of the last axis
    T* dots;        // backward: ⟨row, last ⊗ g⟩ of each row and point, as weight
    T* last_bar;
};

// N contiguous numbers in registers: as many vectors V as fit, then single ones. A member each, since arrays would stay in
// memory.
template <class V, class T, int N, bool Wide = (N * sizeof(T) >= sizeof(V))>
struct Row {
    static constexpr int wide = int(sizeof(V) / sizeof(T));
    V v;
    Row<V, T, N - wide> rest;

    GEODIFF_HD void clear() {
        v = V{};
        rest.clear();
    }
    GEODIFF_HD void load_from(const T* from) {
        v = load<V>(from);
        rest.load_from(from + wide);
    }
    GEODIFF_HD void store_to(T* to) const {
        store(to, v);
        rest.store_to(to + wide);
    }
    // this += weight · row
    GEODIFF_HD void add(T weight, const Row& row) {
        v += weight * row.v;
        rest.add(weight, row.rest);
    }
    // Adds the products of entries: those of vectors to `lanes`, those of single numbers to `sum`.
    GEODIFF_HD void products(const Row& row, V& lanes, T& sum) const {
        lanes += v * row.v;
        rest.products(row.rest, lanes, sum);
    }
};

template <class V, class T, int N>
struct Row<V, T, N, false> {
    T v;
    Row<V, T, N - 1, false> rest;

    GEODIFF_HD void clear() {
        v = T(0);
        rest.clear();
    }
    GEODIFF_HD void load_from(const T* from) {
        v = *from;
        rest.load_from(from + 1);
    }
    GEODIFF_HD void store_to(T* to) const {
        *to = v;
        rest.store_to(to + 1);
    }
    GEODIFF_HD void add(T weight, const Row& row) {
        v += weight * row.v;
        rest.add(weight, row.rest);
    }
    GEODIFF_HD void products(const Row& row, V& lanes, T& sum) const {
        sum += v * row.v;
        rest.products(row.rest, lanes, sum);
    }
};

template <class V, class T>
struct Row<V, T, 0, false> {
    GEODIFF_HD void clear() {}
    GEODIFF_HD void load_from(const T*) {}
    GEODIFF_HD void store_to(T*) const {}
    GEODIFF_HD void add(T, const Row&) {}
    GEODIFF_HD void products(const Row&, V&, T&) const {}
};

template <class T, int N>
GEODIFF_HD T dot(const Row<Pack<T>, T, N>& x, const Row<Pack<T>, T, N>& y) {
    Pack<T> lanes = Lanes<Pack<T>>::of(0);
    T sum = T(0);
    x.products(y, lanes, sum);
    if constexpr (N >= Lanes<Pack<T>>::count) sum += add_lanes<T>(lanes);
    return sum;
}

// What gradients are added to the net with: a whole control point at a time. Rows of neighbouring points overlap by whole
// control points, and a load that spans two recent stores would wait for both.
template <class T, int D>
struct Whole {
    using Type = T;
};
#if !defined(_MSC_VER)
typedef float Float2 __attribute__((vector_size(8)));
typedef float Float4 __attribute__((vector_size(16)));
typedef double Double2 __attribute__((vector_size(16)));
typedef double Double4 __attribute__((vector_size(32)));
template <>
struct Whole<float, 2> {
    using Type = Float2;
};
template <>
struct Whole<float, 4> {
    using Type = Float4;
};
template <>
struct Whole<double, 2> {
    using Type = Double2;
};
template <>
struct Whole<double, 4> {
    using Type = Double4;
};
#endif

// out (n, dim) = the spline's homogeneous values at n points.
template <class T>
using Contract = void (*)(const T* control, const Block<T>& block, int n, int dim, T* scratch, T* out);
// Adds to the bases' gradients (bar) and, where grad_control is not null, to the net's; g (n, dim) is the upstream.
template <class T>
using ContractAdjoint = void (*)(const T* control, Block<T>& block, int n, int dim, const T* g, bool want_basis,
                                 T* scratch, T* grad_control);

template <class T, int P, int D>
void contract(const T* control, const Block<T>& block, int n, int, T*, T* out) {
    constexpr int N = (P + 1) * D;
    for (int i = 0; i < n; ++i) {
        const T* base = control + block.offset[i];
        Row<Pack<T>, T, N> sum, row;
        sum.clear();
        for (int r = 0; r < block.rows; ++r) {
            row.load_from(base + block.place[r]);
            sum.add(block.weight[r * kPoints + i], row);
        }
        alignas(64) T blended[N];
        sum.store_to(blended);
        T point[D] = {};
        for (int f = 0; f <= P; ++f) {
            const T weight = block.last[f * kPoints + i];
            for (int d = 0; d < D; ++d) point[d] += weight * blended[f * D + d];
        }
        for (int d = 0; d < D; ++d) out[i * D + d] = point[d];
    }
}

template <class T, int P, int D>
void contract_adjoint(const T* control, Block<T>& block, int n, int, const T* g, bool want_basis, T*, T* grad_control) {
    constexpr int N = (P + 1) * D;
    const int rows = block.rows;
    for (int i = 0; i < n; ++i) {
        alignas(64) T spread[N];
        for (int f = 0; f <= P; ++f) {
            const T weight = block.last[f * kPoints + i];
            for (int d = 0; d < D; ++d) spread[f * D + d] = weight * g[i * D + d];
        }
        if (grad_control) {
            Row<typename Whole<T, D>::Type, T, N> sum, dual;
            dual.load_from(spread);
            T* to = grad_control + block.offset[i];
            for (int r = 0; r < rows; ++r) {
                sum.load_from(to + block.place[r]);
                sum.add(block.weight[r * kPoints + i], dual);
                sum.store_to(to + block.place[r]);
            }
        }
        if (want_basis) {
            const T* from = control + block.offset[i];
            Row<Pack<T>, T, N> sum, row, dual;
            dual.load_from(spread);
            sum.clear();
            for (int r = 0; r < rows; ++r) {
                row.load_from(from + block.place[r]);
                sum.add(block.weight[r * kPoints + i], row);
                block.dots[r * kPoints + i] = dot(row, dual);
            }
            alignas(64) T blended[N];
            sum.store_to(blended);
            for (int f = 0; f <= P; ++f) {
                T share = T(0);
                for (int d = 0; d < D; ++d) share += blended[f * D + d] * g[i * D + d];
                block.last_bar[f * kPoints + i] = share;
            }
        }
    }
}

// Any degree and dimension; scratch has room for two rows.
template <class T>
void contract_any(const T* control, const Block<T>& block, int n, int dim, T* __restrict sum, T* out) {
    const int row = block.functions * dim;
    for (int i = 0; i < n; ++i) {
        for (int k = 0; k < row; ++k) sum[k] = T(0);
        for (int r = 0; r < block.rows; ++r) {
            const T* from = control + block.offset[i] + block.place[r];
            const T weight = block.weight[r * kPoints + i];
            for (int k = 0; k < row; ++k) sum[k] += weight * from[k];
        }
        T* point = out + i64(i) * dim;
        for (int d = 0; d < dim; ++d) point[d] = T(0);
        for (int f = 0; f < block.functions; ++f) {
            const T weight = block.last[f * kPoints + i];
            for (int d = 0; d < dim; ++d) point[d] += weight * sum[f * dim + d];
        }
    }
}

template <class T>
T dot_any(const T* x, const T* y, int n) {
    using V = Pack<T>;
    V lanes = Lanes<V>::of(0);
    T sum = T(0);
    int k = 0;
    for (; k + Lanes<V>::count <= n; k += Lanes<V>::count) lanes += load<V>(x + k) * load<V>(y + k);
    for (; k < n; ++k) sum += x[k] * y[k];
    return sum + add_lanes<T>(lanes);
}

template <class T>
void contract_adjoint_any(const T* control, Block<T>& block, int n, int dim, const T* g, bool want_basis,
                          T* __restrict scratch, T* grad_control) {
    const int row = block.functions * dim;
    T* __restrict sum = scratch;
    T* __restrict dual = scratch + row;
    for (int i = 0; i < n; ++i) {
        const T* upstream = g + i64(i) * dim;
        for (int f = 0; f < block.functions; ++f) {
            const T weight = block.last[f * kPoints + i];
            for (int d = 0; d < dim; ++d) dual[f * dim + d] = weight * upstream[d];
        }
        for (int k = 0; k < row; ++k) sum[k] = T(0);
        for (int r = 0; r < block.rows; ++r) {
            const i64 at = block.offset[i] + block.place[r];
            const T weight = block.weight[r * kPoints + i];
            if (want_basis) {
                for (int k = 0; k < row; ++k) sum[k] += weight * control[at + k];
                block.dots[r * kPoints + i] = dot_any(control + at, dual, row);
            }
            if (grad_control) {
                T* to = grad_control + at;
                for (int k = 0; k < row; ++k) to[k] += weight * dual[k];
            }
        }
        if (!want_basis) continue;
        for (int f = 0; f < block.functions; ++f) {
            block.last_bar[f * kPoints + i] = dot_any(sum + f * dim, upstream, dim);
        }
    }
}

template <class T>
struct Stages {
    Contract<T> forward;
    ContractAdjoint<T> backward;
};

template <class T, int P>
Stages<T> stages_of_degree(int dim) {
    switch (dim) {
        case 1: return {contract<T, P, 1>, contract_adjoint<T, P, 1>};
        case 2: return {contract<T, P, 2>, contract_adjoint<T, P, 2>};
        case 3: return {contract<T, P, 3>, contract_adjoint<T, P, 3>};
        case 4: return {contract<T, P, 4>, contract_adjoint<T, P, 4>};
        default: return {contract_any<T>, contract_adjoint_any<T>};
    }
}

template <class T>
Stages<T> contract_stages(int degree, int dim) {
    switch (degree) {
        case 1: return stages_of_degree<T, 1>(dim);
        case 2: return stages_of_degree<T, 2>(dim);
        case 3: return stages_of_degree<T, 3>(dim);
        default: return {contract_any<T>, contract_adjoint_any<T>};
    }
}

// What all points of a call share.
template <class T>
struct Evaluator {
    const SplineJob<T>& job;
    BasisStages<T> basis[3];
    Stages<T> stages;
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
        block.weight = job.axes == 2 ? block.axis[0].values : memory.weight.get();
        block.last = block.axis[last].values;
        block.last_bar = block.axis[last].bar;
        block.dots = job.axes == 2 ? block.axis[0].bar : memory.dots.get();
        const int inner = job.axes == 3 ? job.axis[1].degree + 1 : 1;
        for (int r = 0; r < block.rows; ++r) {
            memory.place[r] = (r / inner) * (last > 0 ? step[0] : 0) + (r % inner) * (last > 1 ? step[1] : 0);
        }
        if (job.axes == 1) {
            for (int i = 0; i < kPoints; ++i) memory.weight[i] = T(1);
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
    void fill(Block<T>& block, const SpanRange* range, i64 b, i64 at, int n) const {
        for (int i = 0; i < n; ++i) block.offset[i] = 0;
        for (int a = 0; a < job.axes; ++a) {
            const SplineAxis<T>& axis = job.axis[a];
            const T* u = axis.knots + b * axis.knots_stride;
            block.axis[a].locate(u, range[a], axis.parameters + b * axis.parameters_stride + at, n);
            basis[a].values(u, axis.degree, axis.order, n, block.axis[a]);
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
            fill(block, range, b, at, n);
            multiply(block, memory.weight.get());
            const i64 to = b * points + at;
            T* out = job.rational ? memory.points.get() : job.value + to * job.dim;
            stages.forward(control, block, n, job.dim, memory.row.get(), out);
            if (job.rational) divide(out, n, job.dim, job.value + to * (job.dim - 1), job.inverse_weight + to);
        }
    }

    // grad_control and grad_knots belong to the caller alone; grad_control may be null.
    void backward(i64 b, i64 begin, i64 end, T* grad_control, double* const* grad_knots) const {
        const Memory memory(*this);
        T* upstream = memory.points.get();
        Block<T> block;
        SpanRange range[3];
        prepare(block, memory);
        ranges(b, range);
        const T* control = job.control + b * job.control_stride;
        for (int a = 0; a < job.axes; ++a) block.axis[a].clear_bar(job.axis[a].degree + 1);
        for (i64 k = 0; k < i64(block.rows) * kPoints; ++k) block.dots[k] = T(0);
        for (i64 at = begin; at < end; at += kPoints) {
            const int n = int(min(end - at, i64(kPoints)));
            fill(block, range, b, at, n);
            multiply(block, memory.weight.get());
            const i64 from = b * points + at;
            upstream_of(job, from, n, upstream);
            stages.backward(control, block, n, job.dim, upstream, want_basis, memory.row.get(), grad_control);
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
void spline_forward(const SplineJob<T>& job) {
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
    const i64 net = job.grad_control ? e.controls : 0;
    const int total = e.knots[0] + e.knots[1] + e.knots[2];
    const i64 length = (e.points + chunks - 1) / chunks;
    Scratch<T> nets(chunks * net);
    Scratch<double> knots(chunks * total);
    for (i64 b = 0; b < job.batch; ++b) {
        parallel(chunks, threads, [&](i64 c) {
            T* grad_control = net ? nets.get() + c * net : nullptr;
            double* own = knots.get() + c * total;
            double* grad_knots[3] = {own, own + e.knots[0], own + e.knots[0] + e.knots[1]};
            for (i64 k = 0; k < net; ++k) grad_control[k] = T(0);
            for (int j = 0; j < total; ++j) own[j] = 0;
            e.backward(b, min(e.points, c * length), min(e.points, (c + 1) * length), grad_control, grad_knots);
        });
        for (i64 c = 0; c < chunks; ++c) {
            for (i64 k = 0; k < net; ++k) job.grad_control[b * net + k] += nets[c * net + k];
            if (c == 0) continue;
            for (int j = 0; j < total; ++j) knots[j] += knots[c * total + j];
        }
        double* sums[3] = {knots.get(), knots.get() + e.knots[0], knots.get() + e.knots[0] + e.knots[1]};
        write_knots(e, b, sums);
    }
}

template <class T>
void spline_backward(const SplineJob<T>& job) {
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

void spline_forward_f32(const SplineJob<float>& job) { spline_forward(job); }
void spline_forward_f64(const SplineJob<double>& job) { spline_forward(job); }
void spline_backward_f32(const SplineJob<float>& job) { spline_backward(job); }
void spline_backward_f64(const SplineJob<double>& job) { spline_backward(job); }

}  // namespace gd
