# SPDX-License-Identifier: Apache-2.0
"""Splines to write into files, and what it means that they came back."""

import os
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from geodiff.splines import NURBS, NURBSCurve, NURBSSurface, NURBSVolume
from geodiff.splines.files import load_splines

# Decimal text of 17 digits is exact, and dividing by a weight and multiplying again costs a few roundings of numbers of
# size 1; other libraries evaluate in another order. 1e-12 is some thousand roundings.
ROUND_TRIP = 1e-12

KINDS: dict[int, type[NURBS]] = {1: NURBSCurve, 2: NURBSSurface, 3: NURBSVolume}


ENDINGS = ["3dm", "igs", "step"]


def needs(ending: str) -> None:
    """Skip where the library for a format is missing."""
    if ending == "3dm":
        pytest.importorskip("rhino3dm", reason="needs rhino3dm: pip install geodiff[cad]")
    else:
        pytest.importorskip("OCP.collections", reason="needs OCP 8: pip install geodiff[cad]")


def load_here(path: str | os.PathLike[str], **options: Any) -> list[NURBS]:
    """Read a file in this process: starting another takes a second, and `test_apart` tests that."""
    return load_splines(path, trusted=True, **options)


def make(
    shape: Sequence[int],
    degree: Sequence[int],
    dim: int = 3,
    rational: bool = False,
    clamped: bool = True,
    periodic: Sequence[bool] | None = None,
    seed: int = 0,
) -> NURBS:
    """Draw a spline in float64 with uneven knots on domains such as [-1.5, 2]."""
    draw = torch.Generator().manual_seed(seed)

    def rand(*size: int) -> torch.Tensor:
        return torch.rand(*size, generator=draw, dtype=torch.float64)

    periodic = periodic or (False,) * len(shape)
    knots = []
    for count, p, wraps in zip(shape, degree, periodic, strict=True):
        steps = torch.cat([torch.zeros(1).double(), (rand(count if wraps else count - p) + 0.1).cumsum(0)])
        inner = -1.5 + 3.5 * steps / steps[-1]
        if not clamped and not wraps:
            ends = (inner[0] - (rand(p) + 0.1).cumsum(0).flip(0), inner[-1] + (rand(p) + 0.1).cumsum(0))
        else:
            ends = (inner[:1].expand(0 if wraps else p), inner[-1:].expand(0 if wraps else p))
        knots.append(torch.cat([ends[0], inner, ends[1]]))
    weights = rand(*shape) + 0.5 if rational else None
    new = KINDS[len(shape)].__new__(KINDS[len(shape)])
    points = 2 * rand(*shape, dim) - 1
    NURBS.__init__(new, points, knots, weights, degree, "exact", None, periodic, "error")
    return new


def assert_same(actual: NURBS, expected: NURBS, knots: bool = True) -> None:
    """Assert that two splines have the same domain and the same points, and the same knots but for rounding."""
    assert type(actual) is type(expected)
    assert actual.degree == expected.degree
    opened = expected.opened()
    for got, wanted in zip(actual.domain, opened.domain, strict=True):
        torch.testing.assert_close(torch.stack(got), torch.stack(wanted), rtol=0, atol=ROUND_TRIP)
    if knots:
        for got, wanted in zip(actual.knots, opened.knots, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=ROUND_TRIP)
    at = [torch.linspace(float(low), float(high), 11, dtype=torch.float64) for low, high in opened.domain]
    points = opened.grid(*at)
    points = torch.nn.functional.pad(points, (0, actual.dim - points.shape[-1]))
    torch.testing.assert_close(actual.replace(outside="clamp").grid(*at), points, rtol=0, atol=ROUND_TRIP)


CASES = {
    "plane curve": ((7,), (3,), 2, False),
    "rational plane curve": ((7,), (2,), 2, True),
    "curve": ((5,), (4,), 3, False),
    "rational curve": ((6,), (1,), 3, True),
    "surface": ((5, 7), (3, 2), 3, False),
    "rational surface": ((6, 4), (2, 3), 3, True),
}
VOLUMES = {"volume": ((3, 4, 5), (2, 1, 3), 3, False), "rational volume": ((3, 5, 2), (1, 3, 1), 3, True)}
