// SPDX-License-Identifier: Apache-2.0
// The extension geodiff.native._cpu: picks the SIMD level and hands plain pointers to its kernels.
//
// Arguments were checked in Python (geodiff/ops); what nanobind refuses here is a mistake of ours, not of a user.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "jobs.h"
#include "parallel.h"

namespace gd_baseline {
const geodiff::Kernels& kernels();
}
#if GEODIFF_HAS_V3
namespace gd_v3 {
const geodiff::Kernels& kernels();
}
#endif
#if GEODIFF_HAS_V4
namespace gd_v4 {
const geodiff::Kernels& kernels();
}
#endif

namespace nb = nanobind;
using geodiff::Kernels;

namespace {

// The widest SIMD level that both this machine and this build have. Named features, since compilers that know
// -march=x86-64-v3 do not all know that name here.
const Kernels* best_level() {
#if GEODIFF_HAS_V3
    const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
#if GEODIFF_HAS_V4
    if (v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        return &gd_v4::kernels();
#endif
    if (v3) return &gd_v3::kernels();
#endif
    return &gd_baseline::kernels();
}

const Kernels* level = best_level();

// For tests: the levels must agree.
void set_simd_level(const char* name) {
    const Kernels* known[] = {&gd_baseline::kernels(),
#if GEODIFF_HAS_V3
                              &gd_v3::kernels(),
#endif
                              best_level()};
    for (const Kernels* k : known) {
        if (std::strcmp(k->name, name) == 0) {
            level = k;
            return;
        }
    }
    throw std::invalid_argument(std::string("SIMD level not available here: ") + name);
}

template <class T, size_t D>
using Array = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;

template <class T>
void fill(geodiff::RasterJob<T>& job, Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout,
          int height, int width, double near, int threads) {
    job.clip = clip.data();
    job.faces = faces.data();
    job.layout = reinterpret_cast<const long long*>(layout.data());
    job.images = static_cast<long long>(layout.shape(0));
    job.height = height;
    job.width = width;
    job.near = T(near);
    job.threads = threads;
}

// (distribution, reversed, squared, scale, shift, shape, log Γ(shape+1), ψ(shape), T-conorm, p, radius, edge coverage)
using Model = nb::ndarray<const double, nb::shape<12>, nb::c_contig, nb::device::cpu>;

template <class T>
void set_model(geodiff::SilhouetteJob<T>& job, const Model& model) {
    const double* m = model.data();
    job.distribution = int(m[0]);
    job.reversed = m[1] != 0;
    job.squared = m[2] != 0;
    job.scale = m[3];
    job.shift = m[4];
    job.shape = m[5];
    job.log_gamma_1 = m[6];
    job.digamma = m[7];
    job.tconorm = int(m[8]);
    job.p = m[9];
    job.radius = m[10];
    job.edges = m[11] != 0;
}

template <class T>
void silhouette_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                        int width, double near, Model model, Array<T, 3> alpha, Array<T, 3> sum,
                        nb::ndarray<int, nb::c_contig, nb::device::cpu> best,
                        nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> pairs, int threads) {
    geodiff::SilhouetteJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    set_model(job, model);
    job.alpha = alpha.data();
    job.sum = sum.data();
    job.best = best.size() ? best.data() : nullptr;
    job.pairs = pairs.size() ? reinterpret_cast<long long*>(pairs.data()) : nullptr;
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->silhouette_forward_f32(job);
    } else {
        level->silhouette_forward_f64(job);
    }
}

template <class T>
void silhouette_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                         int width, double near, Model model, Array<const T, 3> sum,
                         nb::ndarray<const int, nb::c_contig, nb::device::cpu> best, Array<const T, 3> upstream,
                         Array<T, 2> grad_clip, nb::ndarray<double, nb::shape<4>, nb::c_contig, nb::device::cpu> grad_params,
                         bool want_params, bool want_shape, bool want_p, int threads) {
    geodiff::SilhouetteJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    set_model(job, model);
    job.sum = const_cast<T*>(sum.data());
    job.best = best.size() ? const_cast<int*>(best.data()) : nullptr;
    job.upstream = upstream.data();
    job.grad_clip = grad_clip.data();
    job.grad_params = grad_params.data();
    job.want_params = want_params;
    job.want_shape = want_shape;
    job.want_p = want_p;
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->silhouette_backward_f32(job);
    } else {
        level->silhouette_backward_f64(job);
    }
}

template <class T>
void rasterize(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height, int width,
               double near, Array<int64_t, 3> face, Array<T, 3> depth, Array<T, 4> barycentric, int threads) {
    geodiff::HardJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.face = reinterpret_cast<long long*>(face.data());
    job.depth = depth.data();
    job.barycentric = barycentric.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->rasterize_f32(job);
    } else {
        level->rasterize_f64(job);
    }
}

template <class T>
void fill_contour(geodiff::ContourJob<T>& job, const Array<const T, 2>& clip, const Array<const int, 2>& faces) {
    job.vertices = static_cast<long long>(clip.shape(0));
    job.all_faces = static_cast<long long>(faces.shape(0));
}

template <class T>
void contour_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout,
                     Array<const int, 2> edges, int height, int width, double near, double radius_outside,
                     double radius_inside, Array<T, 3> distance, Array<T, 3> along, Array<int, 4> nearest, int threads) {
    geodiff::ContourJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    fill_contour(job, clip, faces);
    job.edges = edges.data();
    job.radius_outside = radius_outside;
    job.radius_inside = radius_inside;
    job.distance = distance.data();
    job.along = along.data();
    job.nearest = nearest.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->contour_forward_f32(job);
    } else {
        level->contour_forward_f64(job);
    }
}

template <class T>
void fragments_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                       int width, double near, int order, double blur, Array<const T, 1> table, double table_unit,
                       Array<const T, 1> sharpness, Array<int64_t, 4> face, Array<T, 4> distance, Array<T, 5> barycentric,
                       Array<T, 4> depth, int threads) {
    geodiff::FragmentsJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.k = static_cast<int>(face.shape(3));
    job.order = order;
    job.blur = blur;
    job.table = table.data();
    job.table_size = static_cast<int>(table.shape(0));
    job.table_unit = T(table_unit);
    job.sharpness = sharpness.data();
    job.face = reinterpret_cast<long long*>(face.data());
    job.distance = distance.data();
    job.barycentric = barycentric.data();
    job.depth = depth.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->fragments_forward_f32(job);
    } else {
        level->fragments_forward_f64(job);
    }
}

template <class T>
void contour_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                      int width, double near, Array<const T, 3> distance, Array<const T, 3> along,
                      Array<const int, 4> nearest, Array<const T, 3> upstream, Array<T, 2> grad_clip, int threads) {
    geodiff::ContourJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    fill_contour(job, clip, faces);
    job.distance = const_cast<T*>(distance.data());
    job.along = const_cast<T*>(along.data());
    job.nearest = const_cast<int*>(nearest.data());
    job.upstream = upstream.data();
    job.grad_clip = grad_clip.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->contour_backward_f32(job);
    } else {
        level->contour_backward_f64(job);
    }
}

template <class T>
void fragments_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                        int width, double near, Array<const int64_t, 4> face, Array<const T, 4> distance,
                        Array<const T, 4> up_distance, Array<const T, 5> up_barycentric, Array<const T, 4> up_depth,
                        Array<T, 2> grad_clip, int threads) {
    geodiff::FragmentsJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.k = static_cast<int>(face.shape(3));
    job.face = reinterpret_cast<long long*>(const_cast<int64_t*>(face.data()));
    job.distance = const_cast<T*>(distance.data());
    job.up_distance = up_distance.data();
    job.up_barycentric = up_barycentric.data();
    job.up_depth = up_depth.data();
    job.grad_clip = grad_clip.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->fragments_backward_f32(job);
    } else {
        level->fragments_backward_f64(job);
    }
}

template <class T>
geodiff::BlendJob<T> blend_job(const Array<const T, 2>& values, const Array<const int, 2>& index,
                               const Array<const T, 2>& weight, int threads) {
    geodiff::BlendJob<T> job{};
    job.values = values.data();
    job.index = index.data();
    job.weight = weight.data();
    job.rows = static_cast<long long>(values.shape(0));
    job.channels = static_cast<int>(values.shape(1));
    job.points = static_cast<long long>(index.shape(0));
    job.terms = static_cast<int>(index.shape(1));
    job.threads = threads;
    return job;
}

template <class T>
void blend_forward(Array<const T, 2> values, Array<const int, 2> index, Array<const T, 2> weight, Array<T, 2> out,
                   int threads) {
    auto job = blend_job<T>(values, index, weight, threads);
    job.out = out.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->blend_forward_f32(job);
    } else {
        level->blend_forward_f64(job);
    }
}

template <class T>
void blend_backward(Array<const T, 2> values, Array<const int, 2> index, Array<const T, 2> weight,
                    Array<const T, 2> upstream, nb::ndarray<T, nb::c_contig, nb::device::cpu> grad_values,
                    nb::ndarray<T, nb::c_contig, nb::device::cpu> grad_weight, int threads) {
    auto job = blend_job<T>(values, index, weight, threads);
    job.upstream = upstream.data();
    job.grad_values = grad_values.size() ? grad_values.data() : nullptr;
    job.grad_weight = grad_weight.size() ? grad_weight.data() : nullptr;
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->blend_backward_f32(job);
    } else {
        level->blend_backward_f64(job);
    }
}

template <class T>
geodiff::ReflectJob<T> reflect_job(const Array<const T, 2>& rows, const Array<const int, 1>& kinds,
                                   const Array<const int, 1>& image, const Array<const T, 2>& normal,
                                   const Array<const T, 2>& point, bool parallel_view, bool glossy, int threads) {
    geodiff::ReflectJob<T> job{};
    job.rows = rows.data();
    job.kinds = kinds.data();
    job.image = image.size() ? image.data() : nullptr;
    job.normal = normal.data();
    job.point = point.data();
    job.points = static_cast<long long>(normal.shape(0));
    job.lights = static_cast<int>(kinds.shape(0));
    job.row_size = static_cast<int>(rows.shape(1));
    job.threads = threads;
    job.parallel_view = parallel_view;
    job.glossy = glossy;
    return job;
}

template <class T>
void reflect_forward(Array<const T, 2> rows, Array<const int, 1> kinds, Array<const int, 1> image,
                     Array<const T, 2> normal, Array<const T, 2> point, bool parallel_view, bool glossy, Array<T, 2> out,
                     int threads) {
    auto job = reflect_job<T>(rows, kinds, image, normal, point, parallel_view, glossy, threads);
    job.out = out.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->reflect_forward_f32(job);
    } else {
        level->reflect_forward_f64(job);
    }
}

template <class T>
void reflect_backward(Array<const T, 2> rows, Array<const int, 1> kinds, Array<const int, 1> image,
                      Array<const T, 2> normal, Array<const T, 2> point, bool parallel_view, bool glossy,
                      Array<const T, 2> upstream, Array<T, 2> grad_normal, Array<T, 2> grad_point,
                      Array<double, 2> grad_rows, int threads) {
    auto job = reflect_job<T>(rows, kinds, image, normal, point, parallel_view, glossy, threads);
    job.upstream = upstream.data();
    job.grad_normal = grad_normal.data();
    job.grad_point = grad_point.data();
    job.grad_rows = grad_rows.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->reflect_backward_f32(job);
    } else {
        level->reflect_backward_f64(job);
    }
}

template <class T>
geodiff::TextureJob<T> texture_job(const Array<const T, 2>& values, const Array<const T, 2>& uv,
                                   const Array<const int, 1>& image, int height, int width, int wrap, int threads) {
    geodiff::TextureJob<T> job{};
    job.values = values.data();
    job.uv = uv.data();
    job.image = image.size() ? image.data() : nullptr;
    job.rows = static_cast<long long>(values.shape(0));
    job.channels = static_cast<int>(values.shape(1));
    job.points = static_cast<long long>(uv.shape(0));
    job.height = height;
    job.width = width;
    job.wrap = wrap;
    job.threads = threads;
    return job;
}

template <class T>
void texture_forward(Array<const T, 2> values, Array<const T, 2> uv, Array<const int, 1> image, int height, int width,
                     int wrap, Array<T, 2> out, int threads) {
    auto job = texture_job<T>(values, uv, image, height, width, wrap, threads);
    job.out = out.data();
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->texture_forward_f32(job);
    } else {
        level->texture_forward_f64(job);
    }
}

template <class T>
void texture_backward(Array<const T, 2> values, Array<const T, 2> uv, Array<const int, 1> image, int height, int width,
                      int wrap, Array<const T, 2> upstream, nb::ndarray<T, nb::c_contig, nb::device::cpu> grad_values,
                      nb::ndarray<T, nb::c_contig, nb::device::cpu> grad_uv, int threads) {
    auto job = texture_job<T>(values, uv, image, height, width, wrap, threads);
    job.upstream = upstream.data();
    job.grad_values = grad_values.size() ? grad_values.data() : nullptr;
    job.grad_uv = grad_uv.size() ? grad_uv.data() : nullptr;
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->texture_backward_f32(job);
    } else {
        level->texture_backward_f64(job);
    }
}

template <class T>
using Rows = Array<T, 2>;  // (B or 1, …)
template <class T>
using Flat = nb::ndarray<T, nb::c_contig, nb::device::cpu>;  // empty where not asked for

template <class T>
T* or_null(const Flat<T>& array) {
    return array.size() ? array.data() : nullptr;
}

// One axis: its knots (B or 1, M) and parameters (B or 1, N).
template <class T>
geodiff::SplineAxis<T> axis_of(const Rows<const T>& knots, const Rows<const T>& parameters, int degree, int order) {
    geodiff::SplineAxis<T> axis{};
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
    geodiff::BasisJob<T> job{};
    job.axis = axis_of<T>(knots, parameters, degree, order);
    job.batch = static_cast<long long>(span.shape(0));
    job.span = reinterpret_cast<long long*>(span.data());
    job.values = values.data();
    job.threads = threads;
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->spline_basis_f32(job);
    } else {
        level->spline_basis_f64(job);
    }
}

template <class T>
void spline_basis_backward(Rows<const T> knots, Rows<const T> parameters, int degree, int order,
                           Array<const T, 3> upstream, Flat<T> grad_knots, Flat<T> grad_parameters, int threads) {
    geodiff::BasisJob<T> job{};
    job.axis = axis_of<T>(knots, parameters, degree, order);
    job.axis.grad_knots = or_null(grad_knots);
    job.axis.grad_parameters = or_null(grad_parameters);
    job.batch = static_cast<long long>(upstream.shape(0));
    job.upstream = upstream.data();
    job.threads = threads;
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->spline_basis_backward_f32(job);
    } else {
        level->spline_basis_backward_f64(job);
    }
}

// Control points (B or 1, …, D); knots, parameters, degree, order and bandwidth of each axis.
template <class T>
geodiff::SplineJob<T> spline_job(const Flat<const T>& control, const std::vector<Rows<const T>>& knots,
                                 const std::vector<Rows<const T>>& parameters, const std::vector<int>& degree,
                                 const std::vector<int>& order, const std::vector<double>& bandwidth, bool rational,
                                 long long batch, int threads) {
    geodiff::SplineJob<T> job{};
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
void run_spline(const geodiff::SplineJob<T>& job, bool grid, bool backward) {
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->spline_f32[grid][backward](job);
    } else {
        level->spline_f64[grid][backward](job);
    }
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
    geodiff::TransportJob<T> job{};
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
    nb::gil_scoped_release release;
    if constexpr (sizeof(T) == 4) {
        level->transport_f32[sum](job);
    } else {
        level->transport_f64[sum](job);
    }
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
    m.def("silhouette_forward", &silhouette_forward<T>, "clip"_a.noconvert(), "faces"_a.noconvert(),
          "layout"_a.noconvert(), "height"_a, "width"_a, "near"_a, "model"_a.noconvert(), "alpha"_a.noconvert(),
          "sum"_a.noconvert(), "best"_a.noconvert(), "pairs"_a.noconvert(), "threads"_a);
    m.def("silhouette_backward", &silhouette_backward<T>, "clip"_a.noconvert(), "faces"_a.noconvert(),
          "layout"_a.noconvert(), "height"_a, "width"_a, "near"_a, "model"_a.noconvert(), "sum"_a.noconvert(),
          "best"_a.noconvert(), "upstream"_a.noconvert(), "grad_clip"_a.noconvert(), "grad_params"_a.noconvert(),
          "want_params"_a, "want_shape"_a, "want_p"_a, "threads"_a);
    m.def("rasterize", &rasterize<T>, "clip"_a.noconvert(), "faces"_a.noconvert(), "layout"_a.noconvert(), "height"_a,
          "width"_a, "near"_a, "face"_a.noconvert(), "depth"_a.noconvert(), "barycentric"_a.noconvert(), "threads"_a);
    m.def("contour_forward", &contour_forward<T>, "clip"_a.noconvert(), "faces"_a.noconvert(), "layout"_a.noconvert(),
          "edges"_a.noconvert(), "height"_a, "width"_a, "near"_a, "radius_outside"_a, "radius_inside"_a,
          "distance"_a.noconvert(), "along"_a.noconvert(), "nearest"_a.noconvert(), "threads"_a);
    m.def("contour_backward", &contour_backward<T>, "clip"_a.noconvert(), "faces"_a.noconvert(),
          "layout"_a.noconvert(), "height"_a, "width"_a, "near"_a, "distance"_a.noconvert(), "along"_a.noconvert(),
          "nearest"_a.noconvert(), "upstream"_a.noconvert(), "grad_clip"_a.noconvert(), "threads"_a);
    m.def("fragments_forward", &fragments_forward<T>, "clip"_a.noconvert(), "faces"_a.noconvert(),
          "layout"_a.noconvert(), "height"_a, "width"_a, "near"_a, "order"_a, "blur"_a, "table"_a.noconvert(),
          "table_unit"_a, "sharpness"_a.noconvert(), "face"_a.noconvert(), "distance"_a.noconvert(),
          "barycentric"_a.noconvert(), "depth"_a.noconvert(), "threads"_a);
    m.def("fragments_backward", &fragments_backward<T>, "clip"_a.noconvert(), "faces"_a.noconvert(),
          "layout"_a.noconvert(), "height"_a, "width"_a, "near"_a, "face"_a.noconvert(), "distance"_a.noconvert(),
          "up_distance"_a.noconvert(), "up_barycentric"_a.noconvert(), "up_depth"_a.noconvert(),
          "grad_clip"_a.noconvert(), "threads"_a);
    m.def("blend_forward", &blend_forward<T>, "values"_a.noconvert(), "index"_a.noconvert(), "weight"_a.noconvert(),
          "out"_a.noconvert(), "threads"_a);
    m.def("blend_backward", &blend_backward<T>, "values"_a.noconvert(), "index"_a.noconvert(), "weight"_a.noconvert(),
          "upstream"_a.noconvert(), "grad_values"_a.noconvert(), "grad_weight"_a.noconvert(), "threads"_a);
    m.def("reflect_forward", &reflect_forward<T>, "rows"_a.noconvert(), "kinds"_a.noconvert(), "image"_a.noconvert(),
          "normal"_a.noconvert(), "point"_a.noconvert(), "parallel_view"_a, "glossy"_a, "out"_a.noconvert(), "threads"_a);
    m.def("reflect_backward", &reflect_backward<T>, "rows"_a.noconvert(), "kinds"_a.noconvert(), "image"_a.noconvert(),
          "normal"_a.noconvert(), "point"_a.noconvert(), "parallel_view"_a, "glossy"_a, "upstream"_a.noconvert(),
          "grad_normal"_a.noconvert(), "grad_point"_a.noconvert(), "grad_rows"_a.noconvert(), "threads"_a);
    m.def("texture_forward", &texture_forward<T>, "values"_a.noconvert(), "uv"_a.noconvert(), "image"_a.noconvert(),
          "height"_a, "width"_a, "wrap"_a, "out"_a.noconvert(), "threads"_a);
    m.def("texture_backward", &texture_backward<T>, "values"_a.noconvert(), "uv"_a.noconvert(), "image"_a.noconvert(),
          "height"_a, "width"_a, "wrap"_a, "upstream"_a.noconvert(), "grad_values"_a.noconvert(),
          "grad_uv"_a.noconvert(), "threads"_a);
    m.def("spline_basis", &spline_basis<T>, "knots"_a.noconvert(), "parameters"_a.noconvert(), "degree"_a, "order"_a,
          "span"_a.noconvert(), "values"_a.noconvert(), "threads"_a);
    m.def("spline_basis_backward", &spline_basis_backward<T>, "knots"_a.noconvert(), "parameters"_a.noconvert(),
          "degree"_a, "order"_a, "upstream"_a.noconvert(), "grad_knots"_a.noconvert(),
          "grad_parameters"_a.noconvert(), "threads"_a);
    m.def("spline_forward", &spline_forward<T>, "control"_a.noconvert(), "knots"_a.noconvert(),
          "parameters"_a.noconvert(), "degree"_a, "order"_a, "rational"_a, "grid"_a, "value"_a.noconvert(),
          "inverse_weight"_a.noconvert(), "threads"_a);
    m.def("spline_backward", &spline_backward<T>, "control"_a.noconvert(), "knots"_a.noconvert(),
          "parameters"_a.noconvert(), "degree"_a, "order"_a, "bandwidth"_a, "rational"_a, "grid"_a,
          "value"_a.noconvert(), "inverse_weight"_a.noconvert(), "upstream"_a.noconvert(),
          "grad_control"_a.noconvert(), "grad_knots"_a.noconvert(), "grad_parameters"_a.noconvert(), "threads"_a);
    m.def("transport", &transport<T>, "sum"_a, "x"_a.noconvert(), "y"_a.noconvert(), "h"_a.noconvert(),
          "k"_a.noconvert(), "v"_a.noconvert(), "epsilon"_a, "p"_a, "out"_a.noconvert(), "threads"_a);
    m.def("math", &math<T>, "function"_a, "input"_a.noconvert(), "output"_a.noconvert());
}

}  // namespace

NB_MODULE(_cpu, m) {
    m.def("simd_level", [] { return level->name; }, "Name the SIMD level that the kernels use on this machine.");
    m.def("parallel_backend", &geodiff::parallel_backend, "Name what runs the threads: 'openmp' or 'threads'.");
    m.def("set_simd_level", &set_simd_level, "Use another SIMD level that this machine has (for tests).");
    bind<float>(m);
    bind<double>(m);
}
