# SPDX-License-Identifier: Apache-2.0
"""Splines at scattered points and on grids: which schedule has them."""

from typing import Any

from geodiff.native.gpu.schedule import spline, spline_grid


def spline_forward(*, grid: bool, **given: Any) -> None:
    """Fill the values, see `geodiff.ops.spline`."""
    (spline_grid if grid else spline).forward(**given)


def spline_backward(*, grid: bool, bandwidth: Any, **given: Any) -> None:
    """Fill the gradients that are not empty, see `geodiff.ops.spline`."""
    if grid:
        spline_grid.backward(**given)
    else:
        spline.backward(bandwidth=bandwidth, **given)
