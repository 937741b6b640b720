// SPDX-License-Identifier: Apache-2.0
// Python bindings: silhouettes, contours, the hard rasteriser, fragments.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "members.h"

namespace geodiff {
namespace {

template <class T>
void fill(RasterJob<T>& job, Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout,
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

template <class T>
void silhouette_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                        int width, double near, const SilhouetteModel& model, Array<T, 3> alpha, Array<T, 3> sum,
                        Flat<int> best,
                        nb::ndarray<int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> pairs, int threads) {
    SilhouetteJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    static_cast<SilhouetteModel&>(job) = model;
    job.alpha = alpha.data();
    job.sum = sum.data();
    job.best = or_null(best);
    job.pairs = pairs.size() ? reinterpret_cast<long long*>(pairs.data()) : nullptr;
    run(level->silhouette_forward, job);
}

template <class T>
void silhouette_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                         int width, double near, const SilhouetteModel& model, Array<const T, 3> sum,
                         Flat<const int> best, Array<const T, 3> upstream,
                         Array<T, 2> grad_clip, nb::ndarray<double, nb::shape<4>, nb::c_contig, nb::device::cpu> grad_params,
                         bool want_params, bool want_shape, bool want_p, int threads) {
    SilhouetteJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    static_cast<SilhouetteModel&>(job) = model;
    job.sum = const_cast<T*>(sum.data());
    job.best = best.size() ? const_cast<int*>(best.data()) : nullptr;
    job.upstream = upstream.data();
    job.grad_clip = grad_clip.data();
    job.grad_params = grad_params.data();
    job.want_params = want_params;
    job.want_shape = want_shape;
    job.want_p = want_p;
    run(level->silhouette_backward, job);
}

template <class T>
void rasterize(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height, int width,
               double near, Array<int64_t, 3> face, Array<T, 3> depth, Array<T, 4> barycentric, int threads) {
    HardJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.face = reinterpret_cast<long long*>(face.data());
    job.depth = depth.data();
    job.barycentric = barycentric.data();
    run(level->rasterize, job);
}

template <class T>
void fill_contour(ContourJob<T>& job, const Array<const T, 2>& clip, const Array<const int, 2>& faces) {
    job.vertices = static_cast<long long>(clip.shape(0));
    job.all_faces = static_cast<long long>(faces.shape(0));
}

template <class T>
void contour_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout,
                     Array<const int, 2> edges, int height, int width, double near, double radius_outside,
                     double radius_inside, Array<T, 3> distance, Array<T, 3> along, Array<int, 4> nearest, int threads) {
    ContourJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    fill_contour(job, clip, faces);
    job.edges = edges.data();
    job.radius_outside = radius_outside;
    job.radius_inside = radius_inside;
    job.distance = distance.data();
    job.along = along.data();
    job.nearest = nearest.data();
    run(level->contour_forward, job);
}

template <class T>
void fragments_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                       int width, double near, int order, double blur, Array<const T, 1> table, double table_unit,
                       Array<const T, 1> sharpness, Array<int64_t, 4> face, Array<T, 4> distance, Array<T, 5> barycentric,
                       Array<T, 4> depth, int threads) {
    FragmentsJob<T> job{};
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
    run(level->fragments_forward, job);
}

template <class T>
void contour_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                      int width, double near, Array<const T, 3> distance, Array<const T, 3> along,
                      Array<const int, 4> nearest, Array<const T, 3> upstream, Array<T, 2> grad_clip, int threads) {
    ContourJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    fill_contour(job, clip, faces);
    job.distance = const_cast<T*>(distance.data());
    job.along = const_cast<T*>(along.data());
    job.nearest = const_cast<int*>(nearest.data());
    job.upstream = upstream.data();
    job.grad_clip = grad_clip.data();
    run(level->contour_backward, job);
}

template <class T>
void fragments_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                        int width, double near, Array<const int64_t, 4> face, Array<const T, 4> distance,
                        Flat<const T> up_distance, Flat<const T> up_barycentric, Flat<const T> up_depth,
                        Array<T, 2> grad_clip, int threads) {
    FragmentsJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.k = static_cast<int>(face.shape(3));
    job.face = reinterpret_cast<long long*>(const_cast<int64_t*>(face.data()));
    job.distance = const_cast<T*>(distance.data());
    job.up_distance = or_null(up_distance);
    job.up_barycentric = or_null(up_barycentric);
    job.up_depth = or_null(up_depth);
    job.grad_clip = grad_clip.data();
    run(level->fragments_backward, job);
}

template <class T>
VisibleJob<T> visible_job(const Array<const T, 2>& clip, const Array<const int, 2>& faces,
                          const Array<const int64_t, 2>& layout, int height, int width, double near, int threads) {
    VisibleJob<T> job{};
    fill<T>(job, clip, faces, layout, height, width, near, threads);
    job.k = 1;
    job.order = 1;
    return job;
}

template <class V>
nb::ndarray<nb::numpy, V> handed(V* data, std::initializer_list<size_t> shape) {
    return nb::ndarray<nb::numpy, V>(data, shape, nb::capsule(data, [](void* p) noexcept { delete[] static_cast<V*>(p); }));
}

// Returns the list: place, face, inside, barycentric.
template <class T>
nb::tuple visible_forward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                          int width, double near, double blur, int threads) {
    struct Made {
        size_t points;
        VisibleList<T> list;
    } made{};
    auto job = visible_job<T>(clip, faces, layout, height, width, near, threads);
    job.blur = blur;
    job.context = &made;
    job.room = [](void* context, long long points) {
        Made& own = *static_cast<Made*>(context);
        const size_t n = own.points = static_cast<size_t>(points);
        own.list = {reinterpret_cast<long long*>(new int64_t[n]), reinterpret_cast<long long*>(new int64_t[n]), new bool[n],
                    new T[3 * n]};
        return own.list;
    };
    run(level->visible_forward, job);
    const size_t n = made.points;
    return nb::make_tuple(handed(reinterpret_cast<int64_t*>(made.list.place), {n}),
                          handed(reinterpret_cast<int64_t*>(made.list.face), {n}), handed(made.list.inside, {n}),
                          handed(made.list.barycentric, {n, 3}));
}

template <class T>
void visible_backward(Array<const T, 2> clip, Array<const int, 2> faces, Array<const int64_t, 2> layout, int height,
                      int width, double near, Array<const int64_t, 1> place, Array<const int64_t, 1> face,
                      Array<const bool, 1> inside, Array<const T, 2> upstream, Array<T, 2> grad_clip, int threads) {
    auto job = visible_job<T>(clip, faces, layout, height, width, near, threads);
    job.points = static_cast<long long>(place.shape(0));
    job.place = reinterpret_cast<long long*>(const_cast<int64_t*>(place.data()));
    job.face = reinterpret_cast<long long*>(const_cast<int64_t*>(face.data()));
    job.inside = const_cast<bool*>(inside.data());
    job.up_barycentric = upstream.data();
    job.grad_clip = grad_clip.data();
    run(level->visible_backward, job);
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("silhouette_forward", &silhouette_forward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "model"_a, "alpha"_array, "sum"_array, "best"_array, "pairs"_array.none(),
          "threads"_a = 1);
    m.def("silhouette_backward", &silhouette_backward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "model"_a, "sum"_array, "best"_array, "upstream"_array, "grad_clip"_array,
          "grad_params"_array, "want_params"_a, "want_shape"_a, "want_p"_a, "threads"_a = 1);
    m.def("rasterize", &rasterize<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array, "height"_a, "width"_a,
          "near"_a, "face"_array, "depth"_array, "barycentric"_array, "threads"_a = 1);
    m.def("contour_forward", &contour_forward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "edges"_array, "height"_a, "width"_a, "near"_a, "radius_outside"_a, "radius_inside"_a, "distance"_array,
          "along"_array, "nearest"_array, "threads"_a = 1);
    m.def("contour_backward", &contour_backward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "distance"_array, "along"_array, "nearest"_array, "upstream"_array,
          "grad_clip"_array, "threads"_a = 1);
    m.def("fragments_forward", &fragments_forward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "order"_a, "blur"_a, "table"_array, "table_unit"_a, "sharpness"_array,
          "face"_array, "distance"_array, "barycentric"_array, "depth"_array, "threads"_a = 1);
    m.def("fragments_backward", &fragments_backward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "face"_array, "distance"_array, "up_distance"_array.none(),
          "up_barycentric"_array.none(), "up_depth"_array.none(), "grad_clip"_array, "threads"_a = 1);
    m.def("visible_forward", &visible_forward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array, "height"_a,
          "width"_a, "near"_a, "blur"_a, "threads"_a = 1);
    m.def("visible_backward", &visible_backward<T>, nb::kw_only(), "clip"_array, "faces"_array, "layout"_array,
          "height"_a, "width"_a, "near"_a, "place"_array, "face"_array, "inside"_array, "upstream"_array,
          "grad_clip"_array, "threads"_a = 1);
}

}  // namespace

void bind_raster(nb::module_& m) {
    using namespace nb::literals;
    nb::class_<SilhouetteModel>(m, "SilhouetteModel", nb::dynamic_attr())
        .def("__init__",
             [](SilhouetteModel* self, int distribution, bool is_reversed, bool is_squared, const std::string& coverage,
                double scale, double shift, double shape, double log_gamma_1, double digamma, int tconorm, double p,
                double radius, const std::vector<double>& radii, double max_error, double ease) {
                 if (gd::kind_of(distribution) == gd::Kind::unknown) throw std::invalid_argument("distribution");
                 if (gd::kept_by(tconorm) == gd::Keeps::unknown) throw std::invalid_argument("tconorm");
                 if (coverage != "faces" && coverage != "edges") throw std::invalid_argument("coverage");
                 if (!radii.empty() && radii.size() != kRadii) throw std::invalid_argument("radii");
                 const Coverage model = coverage == "edges" ? Coverage::edges : Coverage::faces;
                 new (self) SilhouetteModel{distribution, is_reversed, is_squared, model,   scale, shift,
                                            shape,        log_gamma_1, digamma,    tconorm, p,     radius,
                                            !radii.empty(), {}, max_error, ease};
                 std::copy(radii.begin(), radii.end(), self->radii);
             },
             nb::kw_only(), "distribution"_a, "is_reversed"_a, "is_squared"_a, "coverage"_a, "scale"_a, "shift"_a,
             "shape"_a, "log_gamma_1"_a, "digamma"_a, "tconorm"_a, "p"_a, "radius"_a, "radii"_a = std::vector<double>(),
             "max_error"_a = 0.0, "ease"_a = 0.0);
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
