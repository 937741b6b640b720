// SPDX-License-Identifier: Apache-2.0
// Contraction of blocks of points with the rows of the control net that they meet, and the way back.
#include "spline_block.h"

namespace gd {
namespace {

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

template <class T, int P>
ContractStages<T> stages_of_degree(int dim) {
    switch (dim) {
        case 1: return {contract<T, P, 1>, contract_adjoint<T, P, 1>};
        case 2: return {contract<T, P, 2>, contract_adjoint<T, P, 2>};
        case 3: return {contract<T, P, 3>, contract_adjoint<T, P, 3>};
        case 4: return {contract<T, P, 4>, contract_adjoint<T, P, 4>};
        default: return {contract_any<T>, contract_adjoint_any<T>};
    }
}

}  // namespace

template <class T>
ContractStages<T> contract_stages(int degree, int dim) {
    switch (degree) {
        case 1: return stages_of_degree<T, 1>(dim);
        case 2: return stages_of_degree<T, 2>(dim);
        case 3: return stages_of_degree<T, 3>(dim);
        default: return {contract_any<T>, contract_adjoint_any<T>};
    }
}
template ContractStages<float> contract_stages<float>(int, int);
template ContractStages<double> contract_stages<double>(int, int);

}  // namespace gd
