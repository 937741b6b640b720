// SPDX-License-Identifier: Apache-2.0
// Python bindings: rows blended, light, textures, images composed.
#include "bindings.h"

namespace geodiff {
namespace {

template <class T>
BlendJob<T> blend_job(const Array<const T, 2>& values, const Array<const int, 2>& index,
                      const Array<const T, 2>& weight, int threads) {
    BlendJob<T> job{};
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
    run(level->blend_forward, job);
}

template <class T>
void blend_backward(Array<const T, 2> values, Array<const int, 2> index, Array<const T, 2> weight,
                    Array<const T, 2> upstream, Flat<T> grad_values, Flat<T> grad_weight, int threads) {
    auto job = blend_job<T>(values, index, weight, threads);
    job.upstream = upstream.data();
    job.grad_values = or_null(grad_values);
    job.grad_weight = or_null(grad_weight);
    run(level->blend_backward, job);
}

template <class T>
ReflectJob<T> reflect_job(const Array<const T, 2>& rows, const Array<const int, 1>& kinds,
                          const Array<const int, 1>& image, const Array<const T, 2>& normal,
                          const Array<const T, 2>& point, bool parallel_view, bool glossy, int threads) {
    ReflectJob<T> job{};
    job.rows = rows.data();
    job.kinds = kinds.data();
    job.image = or_null(image);
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
    run(level->reflect_forward, job);
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
    run(level->reflect_backward, job);
}

template <class T>
TextureJob<T> texture_job(const Array<const T, 2>& values, const Array<const T, 2>& uv,
                          const Array<const int, 1>& image, int height, int width, int wrap, int threads) {
    TextureJob<T> job{};
    job.values = values.data();
    job.uv = uv.data();
    job.image = or_null(image);
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
    run(level->texture_forward, job);
}

template <class T>
void texture_backward(Array<const T, 2> values, Array<const T, 2> uv, Array<const int, 1> image, int height, int width,
                      int wrap, Array<const T, 2> upstream, Flat<T> grad_values,
                      Flat<T> grad_uv, int threads) {
    auto job = texture_job<T>(values, uv, image, height, width, wrap, threads);
    job.upstream = upstream.data();
    job.grad_values = or_null(grad_values);
    job.grad_uv = or_null(grad_uv);
    run(level->texture_backward, job);
}

// Of both passes: what is seen where, and in which light.
template <class T>
struct SurfaceArguments {
    Array<const T, 2> uv;
    Array<const int, 2> uv_corners;
    Array<const T, 2> frame;
    Array<const int, 2> corners;
    Array<const T, 2> weight;
    Array<const int, 1> image;
    Array<const T, 2> rows;
    Array<const int, 1> kinds;
    Array<const T, 4> texture;
};

template <class T>
SurfaceJob<T> surface_job(const SurfaceArguments<T>& a, int wrap, bool parallel_view, bool glossy, int threads) {
    SurfaceJob<T> job{};
    job.uv = a.uv.data();
    job.uv_corners = a.uv_corners.data();
    job.frame = a.frame.data();
    job.corners = a.corners.data();
    job.weight = a.weight.data();
    job.image = or_null(a.image);
    job.rows = a.rows.data();
    job.kinds = a.kinds.data();
    job.texels = a.texture.data();
    job.points = static_cast<long long>(a.corners.shape(0));
    job.coordinates = static_cast<long long>(a.uv.shape(0));
    job.vertices = static_cast<long long>(a.frame.shape(0));
    job.texel_rows = static_cast<long long>(a.texture.shape(0) * a.texture.shape(1) * a.texture.shape(2));
    job.lights = static_cast<int>(a.kinds.shape(0));
    job.row_size = static_cast<int>(a.rows.shape(1));
    job.height = static_cast<int>(a.texture.shape(1));
    job.width = static_cast<int>(a.texture.shape(2));
    job.wrap = wrap;
    job.threads = threads;
    job.own_row = a.rows.shape(0) > 1;
    job.own_texture = a.texture.shape(0) > 1;
    job.parallel_view = parallel_view;
    job.glossy = glossy;
    return job;
}

template <class T>
void surface_forward(Array<const T, 2> uv, Array<const int, 2> uv_corners, Array<const T, 2> frame,
                     Array<const int, 2> corners, Array<const T, 2> weight, Array<const int, 1> image,
                     Array<const T, 2> rows, Array<const int, 1> kinds, Array<const T, 4> texture, int wrap,
                     bool parallel_view, bool glossy, Array<T, 2> out, int threads) {
    auto job = surface_job<T>({uv, uv_corners, frame, corners, weight, image, rows, kinds, texture}, wrap, parallel_view,
                              glossy, threads);
    job.out = out.data();
    run(level->surface_forward, job);
}

template <class T>
void surface_backward(Array<const T, 2> uv, Array<const int, 2> uv_corners, Array<const T, 2> frame,
                      Array<const int, 2> corners, Array<const T, 2> weight, Array<const int, 1> image,
                      Array<const T, 2> rows, Array<const int, 1> kinds, Array<const T, 4> texture, int wrap,
                      bool parallel_view, bool glossy, Array<const T, 2> upstream, Flat<T> grad_uv, Flat<T> grad_frame,
                      Array<T, 2> grad_weight, Flat<double> grad_rows, Flat<T> grad_texels, int threads) {
    auto job = surface_job<T>({uv, uv_corners, frame, corners, weight, image, rows, kinds, texture}, wrap, parallel_view,
                              glossy, threads);
    job.upstream = upstream.data();
    job.grad_uv = or_null(grad_uv);
    job.grad_frame = or_null(grad_frame);
    job.grad_weight = grad_weight.data();
    job.grad_rows = or_null(grad_rows);
    job.grad_texels = or_null(grad_texels);
    run(level->surface_backward, job);
}

template <class T>
CompositeJob<T> composite_job(const Array<const T, 1>& alpha, const Array<const T, 2>& color,
                              const Array<const int64_t, 1>& place, const Array<const T, 2>& background, int threads) {
    CompositeJob<T> job{};
    job.alpha = alpha.data();
    job.color = color.data();
    job.place = reinterpret_cast<const long long*>(place.data());
    job.background = background.data();
    job.pixels = static_cast<long long>(alpha.shape(0));
    job.points = static_cast<long long>(color.shape(0));
    job.background_rows = static_cast<long long>(background.shape(0));
    job.channels = static_cast<int>(color.shape(1));
    job.threads = threads;
    return job;
}

template <class T>
long long composite_forward(Array<const T, 1> alpha, Array<const T, 2> color, Array<const int64_t, 1> place,
                            Array<const T, 2> background, Array<T, 2> out, int threads) {
    auto job = composite_job<T>(alpha, color, place, background, threads);
    long long met = 0;
    job.out = out.data();
    job.met = &met;
    run(level->composite_forward, job);
    return met;
}

template <class T>
long long composite_backward(Array<const T, 1> alpha, Array<const T, 2> color, Array<const int64_t, 1> place,
                             Array<const T, 2> background, Array<const T, 2> upstream, Array<T, 1> grad_alpha,
                             Array<T, 2> grad_color, int threads) {
    auto job = composite_job<T>(alpha, color, place, background, threads);
    long long met = 0;
    job.met = &met;
    job.upstream = upstream.data();
    job.grad_alpha = grad_alpha.data();
    job.grad_color = grad_color.data();
    run(level->composite_backward, job);
    return met;
}

template <class T>
NormalsJob<T> normals_job(const Array<const T, 3>& vertices, const Array<const int, 2>& faces, int threads) {
    NormalsJob<T> job{};
    job.vertices = vertices.data();
    job.faces = faces.data();
    job.batch = static_cast<long long>(vertices.shape(0));
    job.num_vertices = static_cast<long long>(vertices.shape(1));
    job.num_faces = static_cast<long long>(faces.shape(0));
    job.threads = threads;
    return job;
}

template <class T>
void vertex_normals_forward(Array<const T, 3> vertices, Array<const int, 2> faces, Array<T, 3> out, int threads) {
    auto job = normals_job<T>(vertices, faces, threads);
    job.out = out.data();
    run(level->vertex_normals_forward, job);
}

template <class T>
void vertex_normals_backward(Array<const T, 3> vertices, Array<const int, 2> faces, Array<const T, 3> upstream,
                             Array<T, 3> grad, int threads) {
    auto job = normals_job<T>(vertices, faces, threads);
    job.upstream = upstream.data();
    job.grad = grad.data();
    run(level->vertex_normals_backward, job);
}

template <class T>
void bind(nb::module_& m) {
    using namespace nb::literals;
    m.def("blend_forward", &blend_forward<T>, nb::kw_only(), "values"_array, "index"_array, "weight"_array, "out"_array,
          "threads"_a = 1);
    m.def("blend_backward", &blend_backward<T>, nb::kw_only(), "values"_array, "index"_array, "weight"_array,
          "upstream"_array, "grad_values"_array, "grad_weight"_array, "threads"_a = 1);
    m.def("reflect_forward", &reflect_forward<T>, nb::kw_only(), "rows"_array, "kinds"_array, "image"_array,
          "normal"_array, "point"_array, "parallel_view"_a, "glossy"_a, "out"_array, "threads"_a = 1);
    m.def("reflect_backward", &reflect_backward<T>, nb::kw_only(), "rows"_array, "kinds"_array, "image"_array,
          "normal"_array, "point"_array, "parallel_view"_a, "glossy"_a, "upstream"_array, "grad_normal"_array,
          "grad_point"_array, "grad_rows"_array, "threads"_a = 1);
    m.def("texture_forward", &texture_forward<T>, nb::kw_only(), "values"_array, "uv"_array, "image"_array, "height"_a,
          "width"_a, "wrap"_a, "out"_array, "threads"_a = 1);
    m.def("texture_backward", &texture_backward<T>, nb::kw_only(), "values"_array, "uv"_array, "image"_array,
          "height"_a, "width"_a, "wrap"_a, "upstream"_array, "grad_values"_array, "grad_uv"_array, "threads"_a = 1);
    m.def("surface_forward", &surface_forward<T>, nb::kw_only(), "uv"_array, "uv_corners"_array, "frame"_array,
          "corners"_array, "weight"_array, "image"_array, "rows"_array, "kinds"_array, "texture"_array, "wrap"_a,
          "parallel_view"_a, "glossy"_a, "out"_array, "threads"_a = 1);
    m.def("surface_backward", &surface_backward<T>, nb::kw_only(), "uv"_array, "uv_corners"_array, "frame"_array,
          "corners"_array, "weight"_array, "image"_array, "rows"_array, "kinds"_array, "texture"_array, "wrap"_a,
          "parallel_view"_a, "glossy"_a, "upstream"_array, "grad_uv"_array, "grad_frame"_array, "grad_weight"_array,
          "grad_rows"_array, "grad_texels"_array, "threads"_a = 1);
    m.def("composite_forward", &composite_forward<T>, nb::kw_only(), "alpha"_array, "color"_array, "place"_array,
          "background"_array, "out"_array, "threads"_a = 1);
    m.def("composite_backward", &composite_backward<T>, nb::kw_only(), "alpha"_array, "color"_array, "place"_array,
          "background"_array, "upstream"_array, "grad_alpha"_array, "grad_color"_array, "threads"_a = 1);
    m.def("vertex_normals_forward", &vertex_normals_forward<T>, nb::kw_only(), "vertices"_array, "faces"_array,
          "out"_array, "threads"_a = 1);
    m.def("vertex_normals_backward", &vertex_normals_backward<T>, nb::kw_only(), "vertices"_array, "faces"_array,
          "upstream"_array, "grad"_array, "threads"_a = 1);
}

}  // namespace

void bind_shading(nb::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace geodiff
