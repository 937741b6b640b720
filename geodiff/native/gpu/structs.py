# SPDX-License-Identifier: Apache-2.0
"""What kernels are handed, as ctypes: mirrors of the structs in ``cuda/*/arguments.h``, field by field.

Their sizes are compared with those of the kernel's parameters at its first launch, and their offsets by a test.
"""

import ctypes
import functools
from typing import Any

import torch

Pointer = ctypes.c_void_p
Int = ctypes.c_int
Long = ctypes.c_longlong
Double = ctypes.c_double
Bool = ctypes.c_bool
Struct = type[ctypes.Structure]

REALS = {torch.float32: "float", torch.float64: "double"}
"""Names of real types in C++."""

_C = {"float": ctypes.c_float, "double": ctypes.c_double}


def pointer(tensor: torch.Tensor | None) -> ctypes.c_void_p:
    """Return a tensor's address; null for None and for a tensor of nothing."""
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None and tensor.numel() else 0)


def make(kind: Struct, **fields: Any) -> ctypes.Structure:
    """Return a struct of named fields, tensors as their addresses.

    Raises:
        TypeError: where the names are not those of all fields.
    """
    names = _names(kind)
    if names.keys() != fields.keys():
        raise TypeError(f"{kind.__name__} has the fields {', '.join(names)}, not {', '.join(fields)}")
    for name, value in fields.items():
        if value is None or isinstance(value, torch.Tensor):
            fields[name] = pointer(value)
    return kind(**fields)


@functools.cache
def _names(kind: Struct) -> dict[str, None]:
    return dict.fromkeys(field[0] for field in kind._fields_)


def _struct(name: str, **fields: Any) -> Struct:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


@functools.cache
def transport_job(real: str) -> Struct:
    """``geodiff::TransportJob<real>``."""
    return _struct(
        f"geodiff::TransportJob<{real}>", x=Pointer, y=Pointer, h=Pointer, k=Pointer, v=Pointer, out=Pointer,
        batch=Long, rows=Long, columns=Long, dim=Int, width=Int, p=Int, epsilon=Double, threads=Int,
    )  # fmt: skip


@functools.cache
def transport_slices() -> Struct:
    """``gd::TransportSlices``."""
    return _struct("gd::TransportSlices", row_blocks=Long, slices=Int, chunks=Int, most=Pointer, sum=Pointer)


@functools.cache
def matrix_product(real: str) -> Struct:
    """``gd::MatrixProduct<real>``."""
    return _struct(
        f"gd::MatrixProduct<{real}>", matrix=Pointer, v=Pointer, out=Pointer, batch=Long, rows=Long, columns=Long
    )


@functools.cache
def silhouette_scene(real: str) -> Struct:
    """``gd::SilhouetteScene<real>``."""
    return _struct(
        f"gd::SilhouetteScene<{real}>", clip=Pointer, faces=Pointer, layout=Pointer, images=Int, most_faces=Int,
        height=Int, width=Int, across=Int, down=Int, shift=Int, words=Int, slices=Int, most_units=Int, near=Double,
        numbers=Pointer, polygons=Pointer, prepared=Pointer, boxes=Pointer, units=Pointer, bits=Pointer,
    )  # fmt: skip


@functools.cache
def silhouette_parameters() -> Struct:
    """``gd::SilhouetteParameters``."""
    return _struct(
        "gd::SilhouetteParameters", scale=Double, shape=Double, shift=Double, p=Double, radius=Double,
        log_gamma_1=Double, digamma=Double, least_q=Double, mirrored=Int, parametric=Int, squared=Int, times=Pointer,
    )  # fmt: skip


@functools.cache
def silhouette_factors(real: str) -> Struct:
    """``gd::SilhouetteFactors<real>``."""
    return _struct(
        f"gd::SilhouetteFactors<{real}>", weight=Pointer, e=Pointer, slope=Pointer, rest=Pointer, apart=Pointer
    )


@functools.cache
def hard_scene(real: str) -> Struct:
    """``gd::HardScene<real>``."""
    return _struct(
        f"gd::HardScene<{real}>", clip=Pointer, faces=Pointer, layout=Pointer, images=Int, most_faces=Int, height=Int,
        width=Int, near=Double, prepared=Pointer, boxes=Pointer, units=Pointer, key=Pointer, winner=Pointer,
    )  # fmt: skip


@functools.cache
def fragment_ranking(real: str) -> Struct:
    """``gd::FragmentRanking<real>``."""
    return _struct(f"gd::FragmentRanking<{real}>", table=Pointer, unit=Double, size=Int, k=Int, sharpness=Pointer)


@functools.cache
def fragment_items(real: str) -> Struct:
    """``gd::FragmentItems<real>``."""
    return _struct(
        f"gd::FragmentItems<{real}>", count=Long, k=Int, ids=Pointer, place=Pointer, face=Pointer, distance=Pointer,
        barycentric=Pointer, depth=Pointer,
    )  # fmt: skip


@functools.cache
def fragment_upstream(real: str) -> Struct:
    """``gd::FragmentUpstream<real>``."""
    return _struct(
        f"gd::FragmentUpstream<{real}>", order=Pointer, start=Pointer, distance=Pointer, barycentric=Pointer,
        depth=Pointer, parts=Int,
    )  # fmt: skip


@functools.cache
def jump_scene(real: str) -> Struct:
    """``gd::JumpScene<real>``."""
    return _struct(
        f"gd::JumpScene<{real}>", clip=Pointer, faces=Pointer, layout=Pointer, edges=Pointer, face_id=Pointer,
        images=Int, most_faces=Int, height=Int, width=Int, near=Double, orientation=Pointer, planes=Pointer,
    )  # fmt: skip


@functools.cache
def jump_edges() -> Struct:
    """``gd::JumpEdges``."""
    return _struct("gd::JumpEdges", pixels=Pointer, ends=Pointer, share=Pointer, keep=Pointer)


@functools.cache
def contour_scene(real: str) -> Struct:
    """``gd::ContourScene<real>``."""
    return _struct(
        f"gd::ContourScene<{real}>", clip=Pointer, faces=Pointer, edges=Pointer, layout=Pointer, all_faces=Long,
        images=Int, most_faces=Int, height=Int, width=Int, near=Double, radius_outside=Double, radius_inside=Double,
        unit=Pointer, push=Double, views=Pointer, boxes=Pointer,
    )  # fmt: skip


@functools.cache
def spline_axis(real: str) -> Struct:
    """``geodiff::SplineAxis<real>``."""
    return _struct(
        f"geodiff::SplineAxis<{real}>", knots=Pointer, parameters=Pointer, knots_stride=Long, parameters_stride=Long,
        points=Long, count=Int, degree=Int, order=Int, bandwidth=Double, grad_knots=Pointer, grad_parameters=Pointer,
    )  # fmt: skip


@functools.cache
def spline_job(real: str) -> Struct:
    """``geodiff::SplineJob<real>``."""
    return _struct(
        f"geodiff::SplineJob<{real}>", axis=spline_axis(real) * 3, axes=Int, control=Pointer, control_stride=Long,
        batch=Long, dim=Int, rational=Bool, value=Pointer, inverse_weight=Pointer, upstream=Pointer,
        grad_control=Pointer, threads=Int,
    )  # fmt: skip


@functools.cache
def spline_rows(real: str) -> Struct:
    """``gd::SplineRows<real>``."""
    return _struct(f"gd::SplineRows<{real}>", rows=Pointer, cell=Pointer, size=Int, upstream=Int, window=Int * 3)


@functools.cache
def spline_cells() -> Struct:
    """``gd::SplineCells``."""
    return _struct(
        "gd::SplineCells", order=Pointer, start=Pointer, chunks=Pointer, cell=Pointer, cells=Long, axes=Int,
        functions=Int * 3, spans=Int * 3, net=Int, numbers=Int, slices=Int, windows=Int * 3, partial=Pointer,
    )  # fmt: skip


@functools.cache
def spline_band(real: str) -> Struct:
    """``gd::SplineBand<real>``."""
    return _struct(
        f"gd::SplineBand<{real}>", span=Pointer, values=Pointer, order=Pointer, start=Pointer, batch=Long, left=Long,
        right=Long, points=Long, count=Int, degree=Int, slices=Int, own_basis=Bool, item_stride=Long,
    )  # fmt: skip


@functools.cache
def basis_job(real: str) -> Struct:
    """``geodiff::BasisJob<real>``."""
    return _struct(
        f"geodiff::BasisJob<{real}>", axis=spline_axis(real), batch=Long, span=Pointer, values=Pointer,
        upstream=Pointer, threads=Int,
    )  # fmt: skip


@functools.cache
def heaviest_ranking(real: str) -> Struct:
    """``gd::HeaviestRanking<real>``."""
    return _struct(
        f"gd::HeaviestRanking<{real}>", table=Pointer, unit=Double, size=Int, k=Int, sharpness=Pointer, base=Pointer,
        spread=Double, error=Double,
    )  # fmt: skip


@functools.cache
def mix_job(real: str) -> Struct:
    """``geodiff::MixJob<real>``."""
    return _struct(
        f"geodiff::MixJob<{real}>", values=Pointer, log_weight=Pointer, depth=Pointer, start=Pointer, row=Pointer,
        ends=Pointer, sharpness=_C[real], has_floor=Bool, floor=_C[real], groups=Long, points=Long, rows=Long,
        channels=Int, threads=Int, out=Pointer, weight=Pointer, rest=Pointer, upstream=Pointer, up_rest=Pointer,
        grad_values=Pointer, grad_log_weight=Pointer, grad_depth=Pointer, grad_ends=Pointer, grad_sharpness=Pointer,
    )  # fmt: skip


@functools.cache
def blend_job(real: str) -> Struct:
    """``geodiff::BlendJob<real>``."""
    return _struct(
        f"geodiff::BlendJob<{real}>", values=Pointer, index=Pointer, weight=Pointer, rows=Long, points=Long,
        terms=Int, channels=Int, threads=Int, out=Pointer, upstream=Pointer, grad_values=Pointer, grad_weight=Pointer,
    )  # fmt: skip


@functools.cache
def reflect_job(real: str) -> Struct:
    """``geodiff::ReflectJob<real>``."""
    return _struct(
        f"geodiff::ReflectJob<{real}>", rows=Pointer, kinds=Pointer, image=Pointer, normal=Pointer, point=Pointer,
        points=Long, lights=Int, row_size=Int, threads=Int, parallel_view=Bool, glossy=Bool, out=Pointer,
        upstream=Pointer, grad_normal=Pointer, grad_point=Pointer, grad_rows=Pointer,
    )  # fmt: skip


@functools.cache
def texture_job(real: str) -> Struct:
    """``geodiff::TextureJob<real>``."""
    return _struct(
        f"geodiff::TextureJob<{real}>", values=Pointer, uv=Pointer, image=Pointer, rows=Long, points=Long, height=Int,
        width=Int, channels=Int, wrap=Int, threads=Int, out=Pointer, upstream=Pointer, grad_values=Pointer,
        grad_uv=Pointer,
    )  # fmt: skip


@functools.cache
def surface_job(real: str) -> Struct:
    """``geodiff::SurfaceJob<real>``."""
    return _struct(
        f"geodiff::SurfaceJob<{real}>", uv=Pointer, uv_corners=Pointer, frame=Pointer, corners=Pointer,
        weight=Pointer, image=Pointer, rows=Pointer, kinds=Pointer, texels=Pointer, points=Long, coordinates=Long,
        vertices=Long, texel_rows=Long, lights=Int, row_size=Int, height=Int, width=Int, wrap=Int, threads=Int,
        own_row=Bool, own_texture=Bool, parallel_view=Bool, glossy=Bool, out=Pointer, upstream=Pointer,
        grad_uv=Pointer, grad_frame=Pointer, grad_weight=Pointer, grad_texels=Pointer, grad_rows=Pointer,
    )  # fmt: skip


@functools.cache
def composite_job(real: str) -> Struct:
    """``geodiff::CompositeJob<real>``."""
    return _struct(
        f"geodiff::CompositeJob<{real}>", alpha=Pointer, color=Pointer, place=Pointer, background=Pointer,
        pixels=Long, points=Long, background_rows=Long, channels=Int, threads=Int, out=Pointer, met=Pointer,
        upstream=Pointer, grad_alpha=Pointer, grad_color=Pointer,
    )  # fmt: skip


@functools.cache
def normals_job(real: str) -> Struct:
    """``geodiff::NormalsJob<real>``."""
    return _struct(
        f"geodiff::NormalsJob<{real}>", vertices=Pointer, faces=Pointer, batch=Long, num_vertices=Long,
        num_faces=Long, threads=Int, out=Pointer, upstream=Pointer, grad=Pointer,
    )  # fmt: skip


@functools.cache
def surface_shares(real: str) -> Struct:
    """``gd::SurfaceShares<real>``."""
    return _struct(
        f"gd::SurfaceShares<{real}>", by_uv=Pointer, by_frame=Pointer, by_albedo=Pointer, texel=Pointer,
        texel_weight=Pointer, normal=Pointer, point=Pointer, upstream=Pointer, by_viewer=Pointer,
    )  # fmt: skip


OF_REALS = (
    blend_job, reflect_job, texture_job, surface_job, surface_shares, composite_job, normals_job, transport_job,
    silhouette_scene, silhouette_factors, fragment_ranking, fragment_items, fragment_upstream, hard_scene,
    heaviest_ranking, mix_job, matrix_product, jump_scene, contour_scene, spline_axis, spline_job, spline_rows,
    spline_band, basis_job,
)  # fmt: skip
OTHERS = (transport_slices, silhouette_parameters, jump_edges, spline_cells)


SCRATCH = {
    "Polygon": (112, 216),
    "SoftFace": (120, 240),
    "SoftNumbers": (1408, 2736),
    "Clip": (16, 32),
    "HardFace": (136, 272),
    "FaceBound": (20, 40),
    "View": (80, 80),
    "Segment": (88, 88),
    "CutAt": (16, 16),
    "Piece": (72, 72),
    "EndGradient": (32, 32),
    "OuterBox": (16, 16),
}
"""Bytes of what kernels alone write and read, for float and for double."""


def scratch(like: torch.Tensor, name: str, count: int) -> torch.Tensor:
    """Return room for so many structs of a kernel's own."""
    size = SCRATCH[name][like.dtype == torch.float64]
    return torch.empty(max(count, 1) * size, dtype=torch.uint8, device=like.device)
