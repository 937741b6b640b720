# SPDX-License-Identifier: Apache-2.0
"""Names of the GPU's kernels: what continuous integration compiles, and what `geodiff compile` compiles ahead."""

from collections.abc import Iterator

from geodiff import members

DISTRIBUTIONS = tuple(row.struct for row in members.DISTRIBUTIONS)
"""Structs of cuda/distributions.h."""

TCONORMS = tuple(row.struct for row in members.TCONORMS) + tuple(
    f"{row.struct}Levels" for row in members.TCONORMS if row.kind == "levels"
)
"""Structs of cuda/tconorms.h and, for a p whose powers overflow, cuda/power_levels.h."""

REALS = ("float", "double")
_COVERAGES = ("FaceCoverage", "EdgeCoverage")
_SHADING = (
    "blend_forward", "blend_backward", "sample_forward", "sample_backward", "composite_pixels", "reflect_forward",
    "reflect_backward", "light_sums", "light_add", "surface_forward", "surface_shares", "normals_scale",
    "normals_forward", "normals_to_sums", "normals_backward",
)  # fmt: skip
_SPLINES = (
    ("3", 3), ("2", 2), ("0", 1), ("3, 3", 3), ("3, 3", 4), ("2, 2", 4), ("5, 5", 4), ("3, 3, 3", 3), ("2, 2, 2", 1),
    ("-1", 0), ("-1, -1", 3), ("-1, -1, -1", 0), ("3, 3", 0),
)  # fmt: skip
"""Degrees and dimensions of splines: the usual ones, and any."""
_EVERYTHING = {0: ("Logistic", 0), 1: ("Logistic", 1), 3: ("Gamma", 3), 5: ("Logistic", 5), 7: ("Gamma", 7)}
"""What may be wanted of parameters' gradients, by the bits of gd::Wanted, and a law that has it."""


def instance(
    distribution: int, is_reversed: bool, is_squared: bool, coverage: str, tconorm: int, p: float
) -> tuple[str, str, str, str]:
    """Return what a renderer's kernels are templates of: law, T-conorm, whether squared, coverage."""
    law, join = members.distribution(distribution), members.tconorm(tconorm)
    beyond = join.kind == "levels" and not 0.25 <= abs(p) <= 4
    return (
        f"gd::Law<gd::{law.struct}, {str(is_reversed and law.kind != 'symmetric').lower()}>",
        f"gd::{join.struct}{'Levels' if beyond else ''}",
        str(is_squared).lower(),
        "gd::EdgeCoverage" if coverage == "edges" else "gd::FaceCoverage",
    )


def renderer(
    distribution: int, is_reversed: bool, is_squared: bool, tconorm: int, p: float
) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of what one member of the family of renderers has to itself, in float.

    For both coverages, and for gradients of all its numbers and of none.
    """
    every = 1 + 2 * members.distribution(distribution).parametric + 4 * members.tconorm(tconorm).parametric
    for coverage in ("faces", "edges"):
        law, join, squared, kind = instance(distribution, is_reversed, is_squared, coverage, tconorm, p)
        own = f"float, {law}, {join}, {squared}, {kind}"
        yield "raster/silhouette.h", f"gd::silhouette_forward<{own}>"
        for wanted in (0, every):
            yield "raster/silhouette.h", f"gd::silhouette_backward<{own}, {wanted}>"


def silhouette(
    distribution: str,
    tconorm: str,
    real: str = "float",
    is_reversed: bool = False,
    squared: bool = False,
    coverage: str = "FaceCoverage",
    wanted: int = 0,
) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of the two kernels that are made for one renderer."""
    law = f"gd::Law<gd::{distribution}, {str(is_reversed).lower()}>"
    instance = f"{real}, {law}, gd::{tconorm}, {str(squared).lower()}, gd::{coverage}"
    yield "raster/silhouette.h", f"gd::silhouette_forward<{instance}>"
    yield "raster/silhouette.h", f"gd::silhouette_backward<{instance}, {wanted}>"


def shared(real: str) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of what no member of the family of renderers changes, for one real type."""
    for name in ("prepare", "faces", "numbers", "scatter"):
        yield "raster/silhouette.h", f"gd::silhouette_{name}<{real}>"
    for coverage in _COVERAGES:
        yield "raster/silhouette.h", f"gd::silhouette_setup<{real}, gd::{coverage}>"
    for tconorm in TCONORMS:
        for name in ("combine", "factors"):
            yield "raster/silhouette.h", f"gd::silhouette_{name}<{real}, gd::{tconorm}>"
    for step in range(2 if real == "double" else 1):
        for name in ("setup", "draw"):
            yield "raster/hard_kernels.h", f"gd::hard_{name}<{real}, {step}>"
    yield "raster/hard_kernels.h", f"gd::hard_resolve<{real}>"
    for name in ("prepare", "rim", "write", "backward", "faces"):
        yield "raster/fragments_kernels.h", f"gd::fragments_{name}<{real}>"
    for order in (0, 2):
        yield "raster/fragments_kernels.h", f"gd::fragments_list<{real}, {order}>"
    for name in ("bounds", "limits", "list", "needed"):
        yield "raster/heaviest_kernels.h", f"gd::heaviest_{name}<{real}>"
    for name in ("prepare", "sides", "crossings", "pairs"):
        yield "raster/jumps_kernels.h", f"gd::jumps_{name}<{real}>"
    for name in ("forward", "backward", "sums", "add"):
        yield "shading/mix_kernels.h", f"gd::mix_{name}<{real}>"
    for name in ("views", "mask", "pieces", "visible", "pack"):
        yield "raster/contour_kernels.h", f"gd::contour_{name}<{real}>"
    for write in ("false", "true"):
        yield "raster/contour_kernels.h", f"gd::contour_segments<{real}, {write}>"
    for name in ("nearest", "shares", "chunks", "faces"):
        yield "raster/contour_pixels.h", f"gd::contour_{name}<{real}>"
    yield from splines(real)
    for name in _SHADING:
        yield "shading/kernels.h", f"gd::{name}<{real}>"
    for lanes in (1, 32):
        yield "shading/kernels.h", f"gd::gather_rows<{real}, {lanes}>"
    for name in ("times", "back", "add"):
        yield "transport/matrix.h", f"gd::matrix_{name}<{real}>"
    for step_name in ("lse", "apply"):
        yield "transport/kernels.h", f"gd::transport_{step_name}_add<{real}>"
    for dim in range(4):
        for p in (1, 2):
            yield "transport/kernels.h", f"gd::transport_lse<{real}, {dim}, {p}>"
            for gradient in ("false", "true"):
                yield "transport/kernels.h", f"gd::transport_apply<{real}, {dim}, {p}, {gradient}>"


def splines(real: str) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of kernels for the usual degrees, and for those of any degree and dimension."""
    points, sums = "spline/point_kernels.h", "spline/sum_kernels.h"
    yield points, f"gd::spline_ranges<{real}>"
    for degree in (-1, 0, 1, 2, 3, 5):
        for direction in ("forward", "backward"):
            yield points, f"gd::basis_{direction}<{real}, {degree}>"
    for degrees, dim in _SPLINES:
        instance = f"{real}, gd::Degrees<{degrees}>, {dim}, {str(degrees[0] != '-').lower()}"
        for rational in ("false", "true"):
            yield points, f"gd::spline_forward<{instance}, {rational}>"
        yield points, f"gd::spline_backward_points<{instance}>"
    yield points, f"gd::spline_forward<{real}, gd::Degrees<3, 3>, 3, false, false>"
    yield points, f"gd::spline_backward_points<{real}, gd::Degrees<3, 3>, 3, false>"
    for axes in (1, 2, 3):
        yield sums, f"gd::spline_chunks<{real}, {axes}>"
    for name in ("control", "gaussian", "knots"):
        yield sums, f"gd::spline_{name}<{real}>"
    for name in ("band", "band_back", "band_add", "band_dots", "divide", "upstream"):
        yield "spline/grid_kernels.h", f"gd::spline_{name}<{real}>"


def kernel_names(full: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of kernels to compile: each distribution and T-conorm at least once, or all combinations.

    Args:
        full: every distribution, form, T-conorm and real type, rather than a covering choice.
    """
    for real in REALS:
        yield from shared(real)
    for write in ("false", "true"):
        yield "raster/contour_kernels.h", f"gd::contour_cut<{write}>"
    for distribution, wanted in _EVERYTHING.values():
        for coverage in _COVERAGES:
            tconorm = "YagerLevels" if wanted & 4 else "Probabilistic"
            yield from silhouette(distribution, tconorm, "float", False, False, coverage, wanted)
    if full:
        for real in REALS:
            for distribution in DISTRIBUTIONS:
                for tconorm in TCONORMS:
                    for form in range(4):
                        yield from silhouette(distribution, tconorm, real, form % 2 == 1, form >= 2)
        return
    for i, tconorm in enumerate(TCONORMS):
        real, distribution = REALS[i % 2], DISTRIBUTIONS[3 * i % len(DISTRIBUTIONS)]
        yield from silhouette(distribution, tconorm, real, i % 3 == 0, i % 2 == 0, "EdgeCoverage")
        yield from silhouette("Logistic", tconorm, real, False, i % 2 == 1)
    for i, distribution in enumerate(DISTRIBUTIONS):
        yield from silhouette(distribution, "Probabilistic", REALS[i % 2], i % 3 == 0, i % 2 == 0)


def _common() -> Iterator[tuple[str, str]]:
    """Yield (header, name) of the kernels of float that most calls need."""
    for coverage in _COVERAGES:
        yield "raster/silhouette.h", f"gd::silhouette_setup<float, gd::{coverage}>"
    for law, tconorm, coverage, wanted in (
        ("Logistic", "Probabilistic", "FaceCoverage", 0), ("Logistic", "Probabilistic", "FaceCoverage", 1),
        ("Gaussian", "Yager", "FaceCoverage", 0), ("Gamma", "Probabilistic", "FaceCoverage", 3),
        ("Logistic", "Probabilistic", "EdgeCoverage", 0),
    ):  # fmt: skip
        pair = silhouette(law, tconorm, "float", False, False, coverage, wanted)
        yield from pair if wanted != 1 else [list(pair)[1]]
    for name in ("combine", "factors"):
        yield "raster/silhouette.h", f"gd::silhouette_{name}<float, gd::Probabilistic>"
    some = {
        "raster/silhouette.h": ("silhouette_faces", "silhouette_scatter"),
        "raster/hard_kernels.h": ("hard_resolve",),
        "raster/fragments_kernels.h": tuple(f"fragments_{n}" for n in ("prepare", "rim", "write", "backward", "faces")),
        "raster/contour_kernels.h": tuple(f"contour_{n}" for n in ("views", "mask", "visible")),
        "raster/contour_pixels.h": tuple(f"contour_{n}" for n in ("nearest", "shares", "chunks", "faces")),
        "raster/heaviest_kernels.h": tuple(f"heaviest_{n}" for n in ("bounds", "limits", "list", "needed")),
        "raster/jumps_kernels.h": tuple(f"jumps_{n}" for n in ("prepare", "sides", "crossings", "pairs")),
        "shading/mix_kernels.h": tuple(f"mix_{n}" for n in ("forward", "backward", "sums", "add")),
        "shading/kernels.h": _SHADING,
        "transport/matrix.h": tuple(f"matrix_{n}" for n in ("times", "back", "add")),
        "spline/sum_kernels.h": ("spline_control", "spline_knots", "spline_gaussian"),
        "spline/grid_kernels.h": ("spline_band", "spline_band_back", "spline_band_dots"),
    }
    yield "raster/hard_kernels.h", "gd::hard_setup<float, 0>"
    yield "raster/hard_kernels.h", "gd::hard_draw<float, 0>"
    yield "raster/fragments_kernels.h", "gd::fragments_list<float, 0>"
    for write in ("false", "true"):
        yield "raster/contour_kernels.h", f"gd::contour_segments<float, {write}>"
        yield "raster/contour_kernels.h", f"gd::contour_cut<{write}>"
    for degrees, dim in (("3", 3), ("3, 3", 4), ("3, 3, 3", 3), ("-1, -1", 3)):
        instance = f"float, gd::Degrees<{degrees}>, {dim}, {str(degrees[0] != '-').lower()}"
        yield "spline/point_kernels.h", f"gd::spline_forward<{instance}, false>"
        yield "spline/point_kernels.h", f"gd::spline_backward_points<{instance}>"
    yield "spline/sum_kernels.h", "gd::spline_chunks<float, 2>"
    for header, names in some.items():
        for name in names:
            yield header, f"gd::{name}<float>"
    for dim in (3, 0):
        yield "transport/kernels.h", f"gd::transport_lse<float, {dim}, 2>"
        for gradient in ("false", "true"):
            yield "transport/kernels.h", f"gd::transport_apply<float, {dim}, 2, {gradient}>"


COMMON = tuple(_common())
"""What the table of docs/gpu.md shows."""
