# SPDX-License-Identifier: Apache-2.0
"""What a reader found in a CAD file, as arrays; units of length; arcs and tori as rational splines."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Units of length, in millimetres.
UNITS = {
    "um": 1e-3,
    "mm": 1.0,
    "cm": 10.0,
    "m": 1e3,
    "km": 1e6,
    "in": 25.4,
    "ft": 304.8,
    "yd": 914.4,
    "mi": 1609344.0,
}


class Damaged(ValueError):
    """What is wrong with a file, without its name."""


class Missing(ImportError):
    """A library that is not installed: its distribution and its module."""

    def __init__(self, distribution: str, module: str) -> None:
        super().__init__(distribution, module)
        self.needs = (distribution, module)


class Stopped(Exception):
    """The end of reading, at something unsupported."""


class Shapes:
    """Splines found so far, and what was left out.

    Args:
        skip: go on after something unsupported, else raise `Stopped`.
        unit: of the coordinates that are wanted: a key of `UNITS`.
    """

    def __init__(self, skip: bool, unit: str) -> None:
        self.skip = skip
        self.unit = UNITS[unit]
        self.scale = 1.0  # from the file's unit to that one
        self.notes: list[str] = []
        self.splines: list[tuple[str, list[int], bool]] = []
        self.arrays: list[np.ndarray] = []
        self.refused: list[tuple[str, str, str]] = []

    def measured_in(self, millimetres: float | None, otherwise: str) -> None:
        """Note the unit of the file; None where it does not say one, and then what its numbers are taken for."""
        if millimetres is None:
            self.notes.append(f"it says no unit of length, so {otherwise}")
        elif not (0 < millimetres < math.inf):
            raise Damaged("its header gives no unit of length")
        else:
            self.scale = millimetres / self.unit

    def add(self, label: str, points: Any, weights: Any, knots: Sequence[Any], degree: Sequence[int]) -> None:
        """Keep a spline: control points `(K…, D)` in the unit of the file, weights `(K…)` or None."""
        self.splines.append((label, [int(p) for p in degree], weights is not None))
        points = np.asarray(points, dtype=np.float64)
        self.arrays.append(points if self.scale == 1 else points * self.scale)
        if weights is not None:
            self.arrays.append(np.asarray(weights, dtype=np.float64))
        self.arrays.extend(np.asarray(vector, dtype=np.float64) for vector in knots)

    def refuse(self, what: str, label: str, fix: str) -> None:
        """Leave out something unsupported: what it is, where it is, what to do about it."""
        self.refused.append((what, label, fix))
        if not self.skip:
            raise Stopped

    def facts(self) -> dict[str, Any]:
        """Return what goes with the arrays."""
        return {"splines": self.splines, "refused": self.refused, "notes": self.notes}


def arc(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the unit circle from one angle to another as a rational curve of degree 2: (w cos, w sin, w), knots."""
    count = max(1, math.ceil((high - low) / (math.pi / 2) - 1e-9))
    at = np.linspace(low, high, 2 * count + 1)
    points = np.stack([np.cos(at), np.sin(at), np.ones_like(at)], -1)
    points[1::2, 2] = math.cos((high - low) / count / 2)
    return points, np.concatenate([[low], np.repeat(at[::2], 2), [high]])


def torus(
    place: np.ndarray, radii: tuple[float, float], bounds: Sequence[float]
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return a part of a torus as a rational surface of degrees (2, 2): control points, weights, knots.

    Args:
        place: (4, 3), its centre and unit vectors x, y, z; z is the axis.
        radii: of the circle of centres, and of the tube.
        bounds: u from, u to, v from, v to: angles about the axis, and about the tube.
    """
    (around, knots_u), (across, knots_v) = (arc(*bounds[:2]), arc(*bounds[2:]))
    center, x, y, z = place
    ring = around[:, :1] * x + around[:, 1:2] * y
    reach = radii[0] * across[:, 2] + radii[1] * across[:, 0]
    weights = around[:, None, 2] * across[None, :, 2]
    points = ring[:, None] * reach[None, :, None] + radii[1] * (around[:, None, 2] * across[None, :, 1])[..., None] * z
    return center + points / weights[..., None], weights, [knots_u, knots_v]
