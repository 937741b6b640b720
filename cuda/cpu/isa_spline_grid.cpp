// SPDX-License-Identifier: Apache-2.0
// Splines on a grid of parameters, on the CPU: one axis after the other, the last first.
//
// A pass takes a net (A, K, C) to (A, N, C): row n of its result blends P + 1 neighbouring rows of C numbers. So all loops
// run along rows, and the intermediate results are smaller than the grid. The pass along the first axis comes last; it is
// where the work is, and the division by the weight happens while its row is in the cache.
#include "spline_block.h"

namespace gd {
namespace {

using geodiff::parallel;

constexpr i64 kManyItems = 16;
constexpr i64 kColumnPoints = 128;  // points of a row that the backward pass takes at a time
constexpr i64 kForwardPoints = 256;
constexpr i64 kMostGroups = 16;
constexpr i64 kSerialPoints = 2048;

// Bases of one axis at all of its parameters: spans (N), values and their gradients (N, P + 1).
template <class T>
struct GridAxis {
    Scratch<int> first;  // function that values[0] belongs to
    Scratch<T> values, bar;

    GridAxis(i64 points, int functions) : first(points), values(points * functions), bar(points * functions) {}
};

// y[c] (+)= Σ_f v[f]·x[f·stride + c]
template <class T, int F>
void blend_rows(const T* v, const T* __restrict x, i64 stride, i64 n, bool first, T* __restrict y) {
    T w[F];
    for (int f = 0; f < F; ++f) w[f] = v[f];
    if (first) {
        for (i64 c = 0; c < n; ++c) {
            T sum = w[0] * x[c];
            for (int f = 1; f < F; ++f) sum += w[f] * x[f * stride + c];
            y[c] = sum;
        }
    } else {
        for (i64 c = 0; c < n; ++c) {
            T sum = y[c];
            for (int f = 0; f < F; ++f) sum += w[f] * x[f * stride + c];
            y[c] = sum;
        }
    }
}

template <class T>
void blend(const T* v, int functions, const T* x, i64 stride, i64 n, T* y) {
    for (int f = 0; f < functions; f += 4) {
        const T* from = x + f * stride;
        switch (min(4, functions - f)) {
            case 1: blend_rows<T, 1>(v + f, from, stride, n, f == 0, y); break;
            case 2: blend_rows<T, 2>(v + f, from, stride, n, f == 0, y); break;
            case 3: blend_rows<T, 3>(v + f, from, stride, n, f == 0, y); break;
            default: blend_rows<T, 4>(v + f, from, stride, n, f == 0, y); break;
        }
    }
}

// bar_x[f·stride + c] += v[f]·g[c], and bar_v[f] += Σ_c g[c]·x[f·stride + c]; either may be left out.
template <class T, int F>
void blend_rows_adjoint(const T* v, const T* __restrict x, i64 stride, i64 n, const T* __restrict g,
                        T* __restrict bar_x, T* __restrict bar_v) {
    using V = Pack<T>;
    constexpr int wide = Lanes<V>::count;
    if (bar_v) {
        V sums[F];
        for (int f = 0; f < F; ++f) sums[f] = Lanes<V>::of(0);
        i64 c = 0;
        for (; c + wide <= n; c += wide) {
            const V here = load<V>(g + c);
            for (int f = 0; f < F; ++f) sums[f] += here * load<V>(x + f * stride + c);
        }
        for (int f = 0; f < F; ++f) {
            T sum = add_lanes<T>(sums[f]);
            for (i64 k = c; k < n; ++k) sum += g[k] * x[f * stride + k];
            bar_v[f] += sum;
        }
    }
    if (bar_x) {
        for (int f = 0; f < F; ++f) {
            const T w = v[f];
            T* to = bar_x + f * stride;
            for (i64 c = 0; c < n; ++c) to[c] += w * g[c];
        }
    }
}

template <class T>
void blend_adjoint(const T* v, int functions, const T* x, i64 stride, i64 n, const T* g, T* bar_x, T* bar_v) {
    for (int f = 0; f < functions; f += 4) {
        const T* from = x + f * stride;
        T* to = bar_x ? bar_x + f * stride : nullptr;
        T* dots = bar_v ? bar_v + f : nullptr;
        switch (min(4, functions - f)) {
            case 1: blend_rows_adjoint<T, 1>(v + f, from, stride, n, g, to, dots); break;
            case 2: blend_rows_adjoint<T, 2>(v + f, from, stride, n, g, to, dots); break;
            case 3: blend_rows_adjoint<T, 3>(v + f, from, stride, n, g, to, dots); break;
            default: blend_rows_adjoint<T, 4>(v + f, from, stride, n, g, to, dots); break;
        }
    }
}

// Columns of one row lie far from those of the next: ask for them while the row before is at work.
template <class T>
void ask_for(const T* from, i64 n) {
#if defined(__GNUC__)
    for (i64 i = 0; i < n; i += 64 / i64(sizeof(T))) __builtin_prefetch(from + i);
#endif
}

// One item of the batch.
template <class T>
struct Grid3 {
    const SplineJob<T>& job;
    i64 b;
    int threads;
    int axes;
    i64 points = 1;
    // The pass along axis a: (leads, count, columns) → (leads, N, columns).
    i64 leads[3] = {1, 1, 1}, columns[3] = {1, 1, 1};
    GridAxis<T> axis[3];

    static i64 points_of(const SplineJob<T>& job, int a) { return a < job.axes ? job.axis[a].points : 0; }
    static int functions_of(const SplineJob<T>& job, int a) { return a < job.axes ? job.axis[a].degree + 1 : 0; }

    Grid3(const SplineJob<T>& j, i64 item, int most_threads)
        : job(j), b(item), threads(most_threads), axes(j.axes),
          axis{{points_of(j, 0), functions_of(j, 0)}, {points_of(j, 1), functions_of(j, 1)},
               {points_of(j, 2), functions_of(j, 2)}} {
        for (int a = 0; a < axes; ++a) points *= job.axis[a].points;
        for (int a = 1; a < axes; ++a) leads[a] = leads[a - 1] * job.axis[a - 1].count;
        columns[axes - 1] = job.dim;
        for (int a = axes - 2; a >= 0; --a) columns[a] = columns[a + 1] * job.axis[a + 1].points;
        if (points < kSerialPoints) threads = 1;
        for (int a = 0; a < axes; ++a) fill(a);
    }

    const T* knots(int a) const { return job.axis[a].knots + b * job.axis[a].knots_stride; }
    const T* parameters(int a) const { return job.axis[a].parameters + b * job.axis[a].parameters_stride; }
    i64 net(int a) const { return leads[a] * job.axis[a].count * columns[a]; }  // numbers that pass a reads

    void fill(int a) {
        const SplineAxis<T>& at = job.axis[a];
        const SpanRange range = span_range(knots(a), at.count, at.degree);
        const BasisStages<T> stages = basis_stages<T>(at.degree, at.order);
        const int functions = at.degree + 1;
        AxisBlock<T> block;
        for (i64 i = 0; i < at.points; i += kPoints) {
            const int n = int(min(at.points - i, i64(kPoints)));
            block.locate(knots(a), range, parameters(a) + i, n);
            stages.values(knots(a), at.degree, at.order, n, block);
            for (int k = 0; k < n; ++k) {
                axis[a].first[i + k] = block.span[k] - at.degree;
                for (int f = 0; f < functions; ++f) axis[a].values[(i + k) * functions + f] = block.values[f * kPoints + k];
            }
        }
    }

    // A pass along a later axis.
    void pass(int a, const T* x, T* y) const {
        const SplineAxis<T>& at = job.axis[a];
        const int functions = at.degree + 1;
        const i64 width = columns[a];
        parallel(leads[a], net(a) < kSerialPoints ? 1 : threads, [&](i64 lead) {
            const T* from = x + lead * at.count * width;
            T* to = y + lead * at.points * width;
            for (i64 n = 0; n < at.points; ++n) {
                blend(axis[a].values.get() + n * functions, functions, from + axis[a].first[n] * width, width, width,
                      to + n * width);
            }
        });
    }

    // The nets that the passes read; the last axis reads the control points themselves.
    struct Nets {
        Scratch<T> first, second;
        const T* of[3];

        explicit Nets(const Grid3& g)
            : first(g.axes > 1 ? g.net(g.axes - 2) : 0), second(g.axes > 2 ? g.net(g.axes - 3) : 0) {
            of[g.axes - 1] = g.job.control + g.b * g.job.control_stride;
            if (g.axes > 1) {
                of[g.axes - 2] = first.get();
                g.pass(g.axes - 1, of[g.axes - 1], first.get());
            }
            if (g.axes > 2) {
                of[g.axes - 3] = second.get();
                g.pass(g.axes - 2, first.get(), second.get());
            }
        }
    };

    void forward() const {
        const Nets nets(*this);
        const SplineAxis<T>& at = job.axis[0];
        const int functions = at.degree + 1, dim = job.dim;
        const i64 width = columns[0], row = width / dim;
        parallel(at.points, threads, [&](i64 n) {
            const T* v = axis[0].values.get() + n * functions;
            const T* from = nets.of[0] + axis[0].first[n] * width;
            const i64 to = b * points + n * row;
            if (!job.rational) {
                blend(v, functions, from, width, width, job.value + to * dim);
                return;
            }
            Scratch<T> homogeneous(kForwardPoints * dim);
            for (i64 i = 0; i < row; i += kForwardPoints) {
                const i64 some = min(row - i, kForwardPoints);
                blend(v, functions, from + i * dim, width, some * dim, homogeneous.get());
                divide(homogeneous.get(), some, dim, job.value + (to + i) * (dim - 1), job.inverse_weight + to + i);
            }
        });
    }

    bool wants(int a) const { return job.axis[a].grad_knots || job.axis[a].grad_parameters; }

    void backward() {
        const Nets nets(*this);
        Scratch<T> first(axes > 1 ? net(0) : 0), second(axes > 2 ? net(1) : 0);
        T* bars[4] = {first.get(), second.get(), nullptr, nullptr};  // bars[a]: gradient of what pass a reads
        bars[axes - 1] = job.grad_control ? job.grad_control + b * net(axes - 1) : nullptr;
        bool later = job.grad_control != nullptr;
        for (int a = axes - 1; a >= 0; --a) {
            if (!later) bars[a] = nullptr;
            later = later || wants(a);
        }
        for (int a = 0; a < axes; ++a) {
            if (a < axes - 1 && bars[a]) {
                for (i64 k = 0; k < net(a); ++k) bars[a][k] = T(0);
            }
            if (bars[a] || wants(a)) pass_adjoint(a, nets.of[a], a == 0 ? nullptr : bars[a - 1], bars[a]);
            if (wants(a)) basis_adjoint(a);
        }
    }

    // From the gradient of what pass a wrote (g; for the first axis the upstream one) to that of what it read, and of
    // the basis. Items own columns of leads, so no two write to one place; their shares of the basis are added in order.
    void pass_adjoint(int a, const T* x, const T* g, T* bar_x) {
        const SplineAxis<T>& at = job.axis[a];
        const int functions = at.degree + 1, dim = job.dim;
        const i64 width = columns[a], size = at.points * functions;
        const i64 pieces = (width / dim + kColumnPoints - 1) / kColumnPoints;
        const i64 groups = min(leads[a], max(i64(1), kMostGroups / pieces));
        const bool want = wants(a);
        Scratch<T> shares(want ? groups * pieces * size : 0);
        parallel(groups * pieces, threads, [&](i64 item) {
            const i64 group = item / pieces, begin = item % pieces * kColumnPoints * dim;
            const i64 n = min(width - begin, kColumnPoints * dim);
            T* share = want ? shares.get() + item * size : nullptr;
            for (i64 k = 0; k < (want ? size : 0); ++k) share[k] = T(0);
            Scratch<T> upstream(g ? 0 : n);
            for (i64 lead = leads[a] * group / groups; lead < leads[a] * (group + 1) / groups; ++lead) {
                for (i64 i = 0; i < at.points; ++i) {
                    const i64 from = (lead * at.count + axis[a].first[i]) * width + begin;
                    const T* here = g ? g + (lead * at.points + i) * width + begin : upstream.get();
                    if (!g) upstream_of(job, b * points + (i * width + begin) / dim, n / dim, upstream.get());
                    if (!g && i + 1 < at.points) {
                        const i64 next = b * points + ((i + 1) * width + begin) / dim, out = dim - job.rational;
                        ask_for(job.upstream + next * out, n / dim * out);
                        if (job.rational) ask_for(job.value + next * out, n / dim * out);
                    }
                    blend_adjoint(axis[a].values.get() + i * functions, functions, x + from, width, n, here,
                                  bar_x ? bar_x + from : nullptr, want ? share + i * functions : nullptr);
                }
            }
        });
        if (!want) return;
        for (i64 k = 0; k < size; ++k) {
            T sum = shares[k];
            for (i64 item = 1; item < groups * pieces; ++item) sum += shares[item * size + k];
            axis[a].bar[k] = sum;
        }
    }

    void basis_adjoint(int a) {
        const SplineAxis<T>& at = job.axis[a];
        const SpanRange range = span_range(knots(a), at.count, at.degree);
        const BasisStages<T> stages = basis_stages<T>(at.degree, at.order);
        const int functions = at.degree + 1, total = at.count + at.degree + 1;
        Scratch<double> sum(total);
        for (int j = 0; j < total; ++j) sum[j] = 0;
        AxisBlock<T> block;
        for (i64 i = 0; i < at.points; i += kPoints) {
            const int n = int(min(at.points - i, i64(kPoints)));
            block.locate(knots(a), range, parameters(a) + i, n);
            block.clear_bar(functions);
            for (int k = 0; k < n; ++k) {
                for (int f = 0; f < functions; ++f) block.bar[f * kPoints + k] = axis[a].bar[(i + k) * functions + f];
            }
            stages.keeping(knots(a), at.degree, at.order, n, block);
            stages.adjoint(knots(a), at.degree, at.order, n, block);
            if (at.grad_parameters) {
                for (int k = 0; k < n; ++k) at.grad_parameters[b * at.points + i + k] = block.bar_u[k];
            }
            block.add_window(at.degree, n, sum.get());
        }
        if (at.grad_knots) {
            for (int j = 0; j < total; ++j) at.grad_knots[b * total + j] = T(sum[j]);
        }
    }
};

// Few items of a batch: each is spread over the threads; many: whole items are.
template <class T, class Body>
void each_item(const SplineJob<T>& job, Body&& body) {
    if (job.batch < kManyItems) {
        for (i64 b = 0; b < job.batch; ++b) body(b, job.threads);
    } else {
        parallel(job.batch, job.threads, [&](i64 b) { body(b, 1); });
    }
}

template <class T>
void forward(const SplineJob<T>& job) {
    each_item(job, [&](i64 b, int threads) { Grid3<T>(job, b, threads).forward(); });
}
template <class T>
void backward(const SplineJob<T>& job) {
    each_item(job, [&](i64 b, int threads) { Grid3<T>(job, b, threads).backward(); });
}

}  // namespace

const geodiff::Kernel<geodiff::SplineJob> kernel::spline_grid_forward = {forward, forward};
const geodiff::Kernel<geodiff::SplineJob> kernel::spline_grid_backward = {backward, backward};

}  // namespace gd
