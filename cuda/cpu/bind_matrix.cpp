// SPDX-License-Identifier: Apache-2.0
// Products of matrices of a batch with a vector each, out_b = K_b v_b or K_bᵀ v_b: what an iteration of Sinkhorn with a
// stored matrix consists of. They are bound by memory, so one SIMD level serves all; threads take chunks of rows, or of
// columns, of all matrices.
//
// A term is added in the real type within a tile, tiles in double, in one order whatever the threads.
#include <algorithm>

#include "bindings.h"
#include "parallel.h"

namespace geodiff {
namespace {

using gd::i64;

template <class T>
struct Job {
    const T* matrix;  // (B, rows, columns)
    const T* v;       // (B, columns), or (B, rows) where it is transposed
    T* out;           // (B, rows), or (B, columns)
    i64 batch, rows, columns;
    int threads;
};

constexpr i64 kTile = 512;     // columns
constexpr i64 kRows = 32;      // that a thread takes at a time
constexpr i64 kColumns = 256;  // of the transposed
constexpr i64 kSlab = 64;      // rows of a tile there

template <class T>
int threads_for(const Job<T>& job) {
    return job.batch * job.rows * job.columns < 100000 ? 1 : job.threads;
}

// sums[0…3] += the dot products of four rows with v.
template <class T>
void four_rows(const T* __restrict a, i64 stride, const T* __restrict v, i64 n, double* sums) {
    const T *__restrict b = a + stride, *__restrict c = b + stride, *__restrict d = c + stride;
    T p = T(0), q = T(0), r = T(0), s = T(0);
#pragma omp simd reduction(+ : p, q, r, s)
    for (i64 j = 0; j < n; ++j) {
        p += a[j] * v[j];
        q += b[j] * v[j];
        r += c[j] * v[j];
        s += d[j] * v[j];
    }
    sums[0] += double(p);
    sums[1] += double(q);
    sums[2] += double(r);
    sums[3] += double(s);
}

template <class T>
double dot(const T* __restrict a, const T* __restrict v, i64 n) {
    T sum = T(0);
#pragma omp simd reduction(+ : sum)
    for (i64 j = 0; j < n; ++j) sum += a[j] * v[j];
    return double(sum);
}

template <class T>
void times(const Job<T>& job) {
    const i64 chunks = (job.rows + kRows - 1) / kRows, m = job.columns;
    parallel(job.batch * chunks, threads_for(job), [&](i64 task) {
        const i64 item = task / chunks, begin = task % chunks * kRows, rows = std::min(kRows, job.rows - begin);
        const T* matrix = job.matrix + (item * job.rows + begin) * m;
        const T* v = job.v + item * m;
        double sums[kRows] = {};
        for (i64 i = 0; i < rows; i += 4) {
            for (i64 j = 0; j < m; j += kTile) {
                const i64 n = std::min(kTile, m - j);
                if (i + 4 <= rows) {
                    four_rows(matrix + i * m + j, m, v + j, n, sums + i);
                } else {
                    for (i64 k = i; k < rows; ++k) sums[k] += dot(matrix + k * m + j, v + j, n);
                }
            }
        }
        for (i64 i = 0; i < rows; ++i) job.out[item * job.rows + begin + i] = T(sums[i]);
    });
}

template <class T>
void transposed(const Job<T>& job) {
    const i64 chunks = (job.columns + kColumns - 1) / kColumns, m = job.columns;
    parallel(job.batch * chunks, threads_for(job), [&](i64 task) {
        const i64 item = task / chunks, begin = task % chunks * kColumns;
        const i64 n = std::min(kColumns, m - begin);
        const T* __restrict matrix = job.matrix + item * job.rows * m + begin;
        const T* __restrict v = job.v + item * job.rows;
        double sums[kColumns] = {};
        alignas(64) T part[kColumns];
        for (i64 first = 0; first < job.rows; first += kSlab) {
            const i64 last = std::min(first + kSlab, job.rows);
            for (i64 j = 0; j < n; ++j) part[j] = T(0);
            i64 i = first;
            for (; i + 4 <= last; i += 4) {
                const T *__restrict a = matrix + i * m, *__restrict b = a + m, *__restrict c = b + m, *__restrict d = c + m;
                const T p = v[i], q = v[i + 1], r = v[i + 2], s = v[i + 3];
#pragma omp simd
                for (i64 j = 0; j < n; ++j) part[j] += (p * a[j] + q * b[j]) + (r * c[j] + s * d[j]);
            }
            for (; i < last; ++i) {
                const T* __restrict a = matrix + i * m;
#pragma omp simd
                for (i64 j = 0; j < n; ++j) part[j] += v[i] * a[j];
            }
            for (i64 j = 0; j < n; ++j) sums[j] += double(part[j]);
        }
        for (i64 j = 0; j < n; ++j) job.out[item * m + begin + j] = T(sums[j]);
    });
}

template <class T>
void matrix_times(Array<const T, 3> matrix, Array<const T, 2> v, bool is_transposed, Array<T, 2> out, int threads) {
    const Job<T> job{matrix.data(), v.data(), out.data(), i64(matrix.shape(0)), i64(matrix.shape(1)), i64(matrix.shape(2)),
                     threads};
    nb::gil_scoped_release release;
    is_transposed ? transposed(job) : times(job);
}

template <class T>
void bind(nb::module_& m) {
    m.def("matrix_times", &matrix_times<T>, nb::kw_only(), "matrix"_array, "v"_array, nb::arg("transposed"), "out"_array,
          nb::arg("threads") = 1);
}

}  // namespace

void bind_matrix(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
