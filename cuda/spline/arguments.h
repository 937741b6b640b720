// SPDX-License-Identifier: Apache-2.0
// What a spline kernel is handed, on the CPU and on the GPU: plain pointers and numbers, checked in Python.
#pragma once

namespace geodiff {

template <class T>
struct SplineAxis {
    const T* knots;       // (B or 1, count + degree + 1)
    const T* parameters;  // (B or 1, points)
    long long knots_stride, parameters_stride;  // from one item of the batch to the next; 0 where they share
    long long points;
    int count;  // control points along this axis
    int degree, order;
    double bandwidth;    // of the Gaussian mode; 0 is the exact one
    T* grad_knots;       // (B, count + degree + 1), or null
    T* grad_parameters;  // (B, points), or null
};

template <class T>
struct SplineJob {
    SplineAxis<T> axis[3];
    int axes;
    const T* control;  // (B or 1, count of each axis, dim)
    long long control_stride;
    long long batch;
    int dim;        // with the weight, where rational
    bool rational;  // (w·x, w): the result is divided by w
    T* value;       // (B, points, dim) or (B, points, dim − 1)
    T* inverse_weight;  // (B, points) 1/w, where rational
    // Backward only.
    const T* upstream;  // as value
    T* grad_control;    // (B, …), or null
    int threads;
};

template <class T>
struct BasisJob {
    SplineAxis<T> axis;
    long long batch;
    long long* span;  // (B, points)
    T* values;        // (B, points, degree + 1)
    const T* upstream;
    int threads;
};

}  // namespace geodiff
