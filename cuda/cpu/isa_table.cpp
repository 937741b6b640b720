// SPDX-License-Identifier: Apache-2.0
// This SIMD level's entry in the table that module.cpp picks from, and the elementary functions for their tests.
#include "stages.h"

#define GEODIFF_TEXT_(x) #x
#define GEODIFF_TEXT(x) GEODIFF_TEXT_(x)

namespace gd {

void silhouette_forward_f32(const geodiff::SilhouetteJob<float>&);
void silhouette_forward_f64(const geodiff::SilhouetteJob<double>&);
void silhouette_backward_f32(const geodiff::SilhouetteJob<float>&);
void silhouette_backward_f64(const geodiff::SilhouetteJob<double>&);
void rasterize_f32(const geodiff::HardJob<float>&);
void rasterize_f64(const geodiff::HardJob<double>&);
void contour_forward_f32(const geodiff::ContourJob<float>&);
void contour_forward_f64(const geodiff::ContourJob<double>&);
void contour_backward_f32(const geodiff::ContourJob<float>&);
void contour_backward_f64(const geodiff::ContourJob<double>&);
void fragments_forward_f32(const geodiff::FragmentsJob<float>&);
void fragments_forward_f64(const geodiff::FragmentsJob<double>&);
void fragments_backward_f32(const geodiff::FragmentsJob<float>&);
void fragments_backward_f64(const geodiff::FragmentsJob<double>&);
void visible_find_f32(const geodiff::VisibleJob<float>&);
void visible_find_f64(const geodiff::VisibleJob<double>&);
void visible_list_f32(const geodiff::VisibleJob<float>&);
void visible_list_f64(const geodiff::VisibleJob<double>&);
void visible_backward_f32(const geodiff::VisibleJob<float>&);
void visible_backward_f64(const geodiff::VisibleJob<double>&);
void blend_forward_f32(const geodiff::BlendJob<float>&);
void blend_forward_f64(const geodiff::BlendJob<double>&);
void blend_backward_f32(const geodiff::BlendJob<float>&);
void blend_backward_f64(const geodiff::BlendJob<double>&);
void reflect_forward_f32(const geodiff::ReflectJob<float>&);
void reflect_forward_f64(const geodiff::ReflectJob<double>&);
void reflect_backward_f32(const geodiff::ReflectJob<float>&);
void reflect_backward_f64(const geodiff::ReflectJob<double>&);
void texture_forward_f32(const geodiff::TextureJob<float>&);
void texture_forward_f64(const geodiff::TextureJob<double>&);
void texture_backward_f32(const geodiff::TextureJob<float>&);
void texture_backward_f64(const geodiff::TextureJob<double>&);
void surface_forward_f32(const geodiff::SurfaceJob<float>&);
void surface_forward_f64(const geodiff::SurfaceJob<double>&);
void surface_backward_f32(const geodiff::SurfaceJob<float>&);
void surface_backward_f64(const geodiff::SurfaceJob<double>&);
void composite_forward_f32(const geodiff::CompositeJob<float>&);
void composite_forward_f64(const geodiff::CompositeJob<double>&);
void composite_backward_f32(const geodiff::CompositeJob<float>&);
void composite_backward_f64(const geodiff::CompositeJob<double>&);
void vertex_normals_forward_f32(const geodiff::NormalsJob<float>&);
void vertex_normals_forward_f64(const geodiff::NormalsJob<double>&);
void vertex_normals_backward_f32(const geodiff::NormalsJob<float>&);
void vertex_normals_backward_f64(const geodiff::NormalsJob<double>&);
void spline_basis_f32(const geodiff::BasisJob<float>&);
void spline_basis_f64(const geodiff::BasisJob<double>&);
void spline_basis_backward_f32(const geodiff::BasisJob<float>&);
void spline_basis_backward_f64(const geodiff::BasisJob<double>&);
void spline_forward_f32(const geodiff::SplineJob<float>&);
void spline_forward_f64(const geodiff::SplineJob<double>&);
void spline_backward_f32(const geodiff::SplineJob<float>&);
void spline_backward_f64(const geodiff::SplineJob<double>&);
void spline_grid_forward_f32(const geodiff::SplineJob<float>&);
void spline_grid_forward_f64(const geodiff::SplineJob<double>&);
void spline_grid_backward_f32(const geodiff::SplineJob<float>&);
void spline_grid_backward_f64(const geodiff::SplineJob<double>&);
void transport_lse_f32(const geodiff::TransportJob<float>&);
void transport_lse_f64(const geodiff::TransportJob<double>&);
void transport_apply_f32(const geodiff::TransportJob<float>&);
void transport_apply_f64(const geodiff::TransportJob<double>&);
void transport_apply_gradient_f32(const geodiff::TransportJob<float>&);
void transport_apply_gradient_f64(const geodiff::TransportJob<double>&);

namespace {

template <class T>
void math(int function, double, const T* __restrict in, T* __restrict out, i64 n) {
    switch (function) {
        case 0: for (i64 i = 0; i < n; ++i) out[i] = gd::exp(in[i]); break;
        case 1: for (i64 i = 0; i < n; ++i) out[i] = gd::log(in[i]); break;
        case 2: for (i64 i = 0; i < n; ++i) out[i] = gd::log1p(in[i]); break;
        case 3: for (i64 i = 0; i < n; ++i) out[i] = gd::expm1(in[i]); break;
        case 4: for (i64 i = 0; i < n; ++i) out[i] = gd::atan_positive(in[i]); break;
        case 5: for (i64 i = 0; i < n; ++i) out[i] = gd::erfcx(in[i]); break;
        default: break;
    }
}

}  // namespace

const geodiff::Kernels& kernels() {
    static const geodiff::Kernels table = {
        GEODIFF_TEXT(GEODIFF_ISA),
        silhouette_forward_f32,
        silhouette_forward_f64,
        silhouette_backward_f32,
        silhouette_backward_f64,
        rasterize_f32,
        rasterize_f64,
        contour_forward_f32,
        contour_forward_f64,
        contour_backward_f32,
        contour_backward_f64,
        fragments_forward_f32,
        fragments_forward_f64,
        fragments_backward_f32,
        fragments_backward_f64,
        visible_find_f32,
        visible_find_f64,
        visible_list_f32,
        visible_list_f64,
        visible_backward_f32,
        visible_backward_f64,
        blend_forward_f32,
        blend_forward_f64,
        blend_backward_f32,
        blend_backward_f64,
        reflect_forward_f32,
        reflect_forward_f64,
        reflect_backward_f32,
        reflect_backward_f64,
        texture_forward_f32,
        texture_forward_f64,
        texture_backward_f32,
        texture_backward_f64,
        surface_forward_f32,
        surface_forward_f64,
        surface_backward_f32,
        surface_backward_f64,
        composite_forward_f32,
        composite_forward_f64,
        composite_backward_f32,
        composite_backward_f64,
        vertex_normals_forward_f32,
        vertex_normals_forward_f64,
        vertex_normals_backward_f32,
        vertex_normals_backward_f64,
        spline_basis_f32,
        spline_basis_f64,
        spline_basis_backward_f32,
        spline_basis_backward_f64,
        {{spline_forward_f32, spline_backward_f32}, {spline_grid_forward_f32, spline_grid_backward_f32}},
        {{spline_forward_f64, spline_backward_f64}, {spline_grid_forward_f64, spline_grid_backward_f64}},
        {transport_lse_f32, transport_apply_f32, transport_apply_gradient_f32},
        {transport_lse_f64, transport_apply_f64, transport_apply_gradient_f64},
        math<float>,
        math<double>,
    };
    return table;
}

}  // namespace gd
