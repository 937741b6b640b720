# SPDX-License-Identifier: Apache-2.0
"""Names of the GPU kernels, as NVRTC instantiates them. Launching them is a later release's work."""

from collections.abc import Iterator

from geodiff import members

DISTRIBUTIONS = tuple(row.struct for row in members.DISTRIBUTIONS)
"""Structs of cuda/distributions.h."""

TCONORMS = tuple(row.struct for row in members.TCONORMS) + tuple(
    f"{row.struct}Levels" for row in members.TCONORMS if row.kind == "levels"
)
"""Structs of cuda/tconorms.h and, for a p whose powers overflow, cuda/power_levels.h."""

_HEADER = "raster/silhouette.h"
_CONTOUR_HEADER = "raster/contour_kernels.h"
_SPLINE_HEADER = "spline/kernels.h"
_TRANSPORT_HEADER = "transport/kernels.h"


def silhouette_kernel(
    direction: str,
    distribution: str,
    tconorm: str,
    real: str = "float",
    is_reversed: bool = False,
    squared: bool = False,
    coverage: str = "FaceCoverage",
) -> str:
    """Return the C++ name of a silhouette kernel.

    `direction` is ``"forward"`` or ``"backward"``; `coverage` is FaceCoverage or EdgeCoverage.
    """
    law = f"gd::Law<gd::{distribution}, {str(is_reversed).lower()}>"
    return f"gd::silhouette_{direction}<{real}, {law}, gd::{tconorm}, {str(squared).lower()}, gd::{coverage}>"


def kernel_names(full: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (header, name) of kernels to compile: each distribution and T-conorm at least once, or all combinations.

    Spline kernels take any degree, those of optimal transport 1 to 3 or any number of coordinates: always all there.

    Args:
        full: every distribution, form, T-conorm and real type, rather than a covering choice.
    """
    for real in ("float", "double"):
        yield _HEADER, f"gd::silhouette_setup<{real}>"
        yield _HEADER, f"gd::silhouette_scatter<{real}>"
        for name in ("views", "segments", "forward", "shares", "backward"):
            yield _CONTOUR_HEADER, f"gd::contour_{name}<{real}>"
        for name in ("basis_forward", "basis_backward", "spline_forward", "spline_backward_points"):
            yield _SPLINE_HEADER, f"gd::{name}<{real}>"
        yield _SPLINE_HEADER, f"gd::spline_backward_control<{real}>"
        for gaussian in ("false", "true"):
            yield _SPLINE_HEADER, f"gd::spline_backward_knots<{real}, {gaussian}>"
        for step in ("lse", "apply"):
            yield _TRANSPORT_HEADER, f"gd::transport_{step}_add<{real}>"
        for dim in range(4):
            for p in (1, 2):
                yield _TRANSPORT_HEADER, f"gd::transport_lse<{real}, {dim}, {p}>"
                for gradient in ("false", "true"):
                    yield _TRANSPORT_HEADER, f"gd::transport_apply<{real}, {dim}, {p}, {gradient}>"
    for name in ("cut", "pieces", "visible"):
        yield _CONTOUR_HEADER, f"gd::contour_{name}"
    for direction in ("forward", "backward"):
        for i, tconorm in enumerate(TCONORMS):
            distribution, real = DISTRIBUTIONS[3 * i % len(DISTRIBUTIONS)], ("float", "double")[i % 2]
            reverse, square = i % 3 == 0, i % 2 == 0
            yield _HEADER, silhouette_kernel(direction, distribution, tconorm, real, reverse, square, "EdgeCoverage")
        if full:
            for real in ("float", "double"):
                for distribution in DISTRIBUTIONS:
                    for tconorm in TCONORMS:
                        for is_reversed in (False, True):
                            for squared in (False, True):
                                yield (
                                    _HEADER,
                                    silhouette_kernel(direction, distribution, tconorm, real, is_reversed, squared),
                                )
            continue
        for i, distribution in enumerate(DISTRIBUTIONS):
            real = ("float", "double")[i % 2]
            yield _HEADER, silhouette_kernel(direction, distribution, "Probabilistic", real, i % 3 == 0, i % 2 == 0)
        for i, tconorm in enumerate(TCONORMS):
            yield (
                _HEADER,
                silhouette_kernel(direction, "Logistic", tconorm, ("float", "double")[i % 2], False, i % 2 == 1),
            )
