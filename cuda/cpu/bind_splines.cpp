// SPDX-License-Identifier: Apache-2.0
// Python bindings: splines, optimal transport, and the elementary functions for their tests.
#include <stdexcept>
#include <vector>

#include "bindings.h"

namespace geodiff {
namespace {

template <class T>
using Rows = Array<T, 2>;  // (B or 1, …)

// One axis: its knots (B or 1, M) and parameters (B or 1, N).
template <class T>
SplineAxis<T> axis_of(const Rows<const T>& knots, const Rows<const T>& parameters, int degree, int order) {
    SplineAxis<T> axis{};
    axis.knots = knots.data();
    axis.parameters = parameters.data();
    axis.knots_stride = knots.shape(0) > 1 ? static_cast<long long>(knots.shape(1)) : 0;
    axis.parameters_stride = parameters.shape(0) > 1 ? static_cast<long long>(parameters.shape(1)) : 0;
    axis.points = static_cast<long long>(parameters.shape(1));
    axis.count = static_cast<int>(knots.shape(1)) - degree - 1;
    axis.degree = degree;
    axis.order = order;
    return axis;
}

template <class T>
void spline_basis(Rows<const T> knots, Rows<const T> parameters, int degree, int order, Array<int64_t, 2> span,
                  Array<T, 3> values, int threads) {
    BasisJob<T> job{};
    job.axis = axis_of<T>(knots, parameters, degree, order);
    job.batch = static_cast<long long>(span.shape(0));
    job.span = reinterpret_cast<long long*>(span.data());
    job.values = values.data();
    job.threads = threads;
    run(level->spline_basis, job);
}

template <class T>
void spline_basis_backward(Rows<const T> knots, Rows<const T> parameters, int degree, int order,
                           Array<const T, 3> upstream, Flat<T> grad_knots, Flat<T> grad_parameters, int threads) {
    BasisJob<T> job{};
    job.axis = axis_of<T>(knots, parameters, degree, order);
    job.axis.grad_knots = or_null(grad_knots);
    job.axis.grad_parameters = or_null(grad_parameters);
    job.batch = static_cast<long long>(upstream.shape(0));
    job.upstream = upstream.data();
    job.threads = threads;
    run(level->spline_basis_backward, job);
}

// Control points (B or 1, …, D); knots, parameters, degree, order and bandwidth of each axis.
template <class T>
SplineJob<T> spline_job(const Flat<const T>& control, const std::vector<Rows<const T>>& knots,
                        const std::vector<Rows<const T>>& parameters, const std::vector<int>& degree,
                        const std::vector<int>& order, const std::vector<double>& bandwidth, bool rational,
                        long long batch, int threads) {
    SplineJob<T> job{};
    job.axes = static_cast<int>(knots.size());
    if (job.axes < 1 || job.axes > 3 || control.ndim() != knots.size() + 2) throw std::invalid_argument("axes");
    for (size_t a = 0; a < knots.size(); ++a) {
        job.axis[a] = axis_of<T>(knots[a], parameters.at(a), degree.at(a), order.at(a));
        if (job.axis[a].count != static_cast<int>(control.shape(a + 1))) throw std::invalid_argument("knots");
        if (!bandwidth.empty()) job.axis[a].bandwidth = bandwidth.at(a);
    }
    job.control = control.data();
    job.control_stride = control.shape(0) > 1 ? static_cast<long long>(control.size() / control.shape(0)) : 0;
    job.batch = batch;
    job.dim = static_cast<int>(control.shape(control.ndim() - 1));
    job.rational = rational;
    job.threads = threads;
    return job;
}

template <class T>
void run_spline(const SplineJob<T>& job, bool grid, bool backward) {
    const Kernel<SplineJob>& plain = backward ? level->spline_backward : level->spline_forward;
    const Kernel<SplineJob>& of_grid = backward ? level->spline_grid_backward : level->spline_grid_forward;
    run(grid ? of_grid : plain, job);
}

template <class T>
void spline_forward(Flat<const T> control, std::vector<Rows<const T>> knots, std::vector<Rows<const T>> parameters,
                    std::vector<int> degree, std::vector<int> order, bool rational, bool grid, Flat<T> value,
                    Flat<T> inverse_weight, int threads) {
    auto job = spline_job<T>(control, knots, parameters, degree, order, {}, rational,
                             static_cast<long long>(value.shape(0)), threads);
    job.value = value.data();
    job.inverse_weight = or_null(inverse_weight);
    run_spline(job, grid, false);
}

template <class T>
void spline_backward(Flat<const T> control, std::vector<Rows<const T>> knots, std::vector<Rows<const T>> parameters,
                     std::vector<int> degree, std::vector<int> order, std::vector<double> bandwidth, bool rational,
                     bool grid, Flat<const T> value, Flat<const T> inverse_weight, Flat<const T> upstream,
                     Flat<T> grad_control, std::vector<Flat<T>> grad_knots, std::vector<Flat<T>> grad_parameters,
                     int threads) {
    auto job = spline_job<T>(control, knots, parameters, degree, order, bandwidth, rational,
                             static_cast<long long>(value.shape(0)), threads);
    job.value = const_cast<T*>(value.data());
    job.inverse_weight = const_cast<T*>(inverse_weight.data());
    job.upstream = upstream.data();
    job.grad_control = or_null(grad_control);
    for (size_t a = 0; a < knots.size(); ++a) {
        job.axis[a].grad_knots = or_null(grad_knots.at(a));
        job.axis[a].grad_parameters = or_null(grad_parameters.at(a));
    }
    run_spline(job, grid, true);
}

// sum: 0 lse, 1 apply, 2 apply_gradient; k and v are empty for lse.
template <class T>
void transport(int sum, Array<const T, 3> x, Array<const T, 3> y, Array<const T, 2> h, Flat<const T> k, Flat<const T> v,
               double epsilon, int p, Flat<T> out, int threads) {
    TransportJob<T> job{};
    job.x = x.data();
    job.y = y.data();
    job.h = h.data();
    job.batch = static_cast<long long>(x.shape(0));
    job.rows = static_cast<long long>(x.shape(1));
    job.columns = static_cast<long long>(y.shape(1));
    job.dim = static_cast<int>(x.shape(2));
    if (sum > 0) {
        job.k = k.data();
        job.v = v.data();
        job.width = static_cast<int>(v.shape(2));
    }
    job.p = p;
    job.epsilon = epsilon;
    job.out = out.data();
    job.threads = threads;
    const Kernel<TransportJob> sums[] = {level->transport_lse, level->transport_apply, level->transport_apply_gradient};
    if (sum < 0 || sum > 2) throw std::invalid_argument("sum");
    run(sums[sum], job);
}

template <class T>
void math(int function, Array<const T, 1> in, Array<T, 1> out) {
    const long long n = static_cast<long long>(in.shape(0));
    if constexpr (sizeof(T) == 4) {
        level->math_f32(function, 0, in.data(), out.data(), n);
    } else {
        level->math_f64(function, 0, in.data(), out.data(), n);
    }
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("spline_basis", &spline_basis<T>, nb::kw_only(), "knots"_array, "parameters"_array, "degree"_a, "order"_a,
          "span"_array, "values"_array, "threads"_a = 1);
    m.def("spline_basis_backward", &spline_basis_backward<T>, nb::kw_only(), "knots"_array, "parameters"_array,
          "degree"_a, "order"_a, "upstream"_array, "grad_knots"_array, "grad_parameters"_array, "threads"_a = 1);
    m.def("spline_forward", &spline_forward<T>, nb::kw_only(), "control"_array, "knots"_array, "parameters"_array,
          "degree"_a, "order"_a, "rational"_a, "grid"_a, "value"_array, "inverse_weight"_array, "threads"_a = 1);
    m.def("spline_backward", &spline_backward<T>, nb::kw_only(), "control"_array, "knots"_array, "parameters"_array,
          "degree"_a, "order"_a, "bandwidth"_a, "rational"_a, "grid"_a, "value"_array, "inverse_weight"_array,
          "upstream"_array, "grad_control"_array, "grad_knots"_array, "grad_parameters"_array, "threads"_a = 1);
    m.def("transport", &transport<T>, nb::kw_only(), "sum"_a, "x"_array, "y"_array, "h"_array, "k"_array.none(),
          "v"_array.none(), "epsilon"_a, "p"_a, "out"_array, "threads"_a = 1);
    m.def("math", &math<T>, "function"_a, "input"_array, "output"_array);
}

}  // namespace

void bind_splines_and_transport(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
