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
_EVERYTHING = {0: ("Logistic", 0), 1: ("Logistic", 1), 3: ("Gamma", 3), 5: ("Logistic", 5), 7: ("Gamma", 7)}
"""What may be wanted of parameters' gradients, by the bits of gd::Wanted, and a law that has it."""


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
    for name in ("views", "segments", "forward", "shares", "backward"):
        yield "raster/contour_kernels.h", f"gd::contour_{name}<{real}>"
    for name in ("basis_forward", "basis_backward", "spline_forward", "spline_backward_points"):
        yield "spline/kernels.h", f"gd::{name}<{real}>"
    yield "spline/kernels.h", f"gd::spline_backward_control<{real}>"
    for gaussian in ("false", "true"):
        yield "spline/kernels.h", f"gd::spline_backward_knots<{real}, {gaussian}>"
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


def kernel_names(full: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of kernels to compile: each distribution and T-conorm at least once, or all combinations.

    Args:
        full: every distribution, form, T-conorm and real type, rather than a covering choice.
    """
    for real in REALS:
        yield from shared(real)
    for name in ("cut", "pieces", "visible"):
        yield "raster/contour_kernels.h", f"gd::contour_{name}"
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
