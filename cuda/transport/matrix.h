// SPDX-License-Identifier: Apache-2.0
// Products of matrices of a batch with a vector each, on the GPU: what an iteration of Sinkhorn with a stored matrix
// consists of. They are bound by memory: neighbouring threads read neighbouring columns.
//
//   matrix_times    K_b v_b: a warp a row
//   matrix_back     K_bᵀ v_b: a thread a column and slice of the rows
//   matrix_add      a thread a column: slices in their order
//
// A term is added in the real type within a tile, tiles in double, as cpu/bind_matrix.cpp does.
#pragma once
#include "../kernel.h"

#if GEODIFF_KERNELS

namespace gd {

template <class T>
struct MatrixProduct {
    const T* matrix;  // (batch, rows, columns)
    const T* v;       // (batch, columns), or (batch, rows) for matrix_back
    T* out;           // (batch, rows), or (batch, columns)
    i64 batch, rows, columns;
};

constexpr i64 kMatrixTile = 512, kMatrixSlab = 64;  // columns, rows

// Blocks of 128 threads.
template <class T>
__global__ void matrix_times(MatrixProduct<T> job) {
    const i64 row = (i64(blockIdx.x) * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x & 31;
    if (row >= job.batch * job.rows) return;  // of all lanes
    const T *a = job.matrix + row * job.columns, *v = job.v + row / job.rows * job.columns;
    double sum = 0;
    for (i64 first = 0; first < job.columns; first += kMatrixTile) {
        const i64 end = min(first + kMatrixTile, job.columns);
        T part = T(0);
        for (i64 j = first + lane; j < end; j += 32) part += a[j] * v[j];
        sum += double(part);
    }
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
    if (lane == 0) job.out[row] = T(sum);
}

// Grid: batch · slices · ⌈columns / 128⌉. partial: (batch, slices, columns)
template <class T>
__global__ void matrix_back(MatrixProduct<T> job, int slices, double* partial) {
    const i64 chunks = (job.columns + blockDim.x - 1) / blockDim.x;
    const i64 column = blockIdx.x % chunks * blockDim.x + threadIdx.x, cut = blockIdx.x / chunks;
    if (column >= job.columns) return;
    const i64 item = cut / slices, many = (job.rows + slices - 1) / slices;
    const i64 begin = cut % slices * many, end = min(begin + many, job.rows);
    const T *a = job.matrix + item * job.rows * job.columns + column, *v = job.v + item * job.rows;
    double sum = 0;
    for (i64 first = begin; first < end; first += kMatrixSlab) {
        T part = T(0);
        for (i64 i = first; i < min(first + kMatrixSlab, end); ++i) part += v[i] * a[i * job.columns];
        sum += double(part);
    }
    partial[cut * job.columns + column] = sum;
}

template <class T>
__global__ void matrix_add(MatrixProduct<T> job, int slices, const double* partial) {
    const i64 i = i64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= job.batch * job.columns) return;
    const double* from = partial + i / job.columns * slices * job.columns + i % job.columns;
    double sum = 0;
    for (int slice = 0; slice < slices; ++slice) sum += from[slice * job.columns];
    job.out[i] = T(sum);
}

}  // namespace gd

#endif
