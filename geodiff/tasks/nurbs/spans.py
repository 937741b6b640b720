# SPDX-License-Identifier: Apache-2.0
"""Where a surface was fitted without data: spans between knots that hold no points."""

from collections.abc import Sequence

import numpy as np
import torch

from geodiff.splines import NURBSSurface
from geodiff.splines.knots import multiplicities

Span = tuple[float, float, float, float]
_TOLD = 3  # spans that a note lists


def empty(surface: NURBSSurface, parameters: Sequence[torch.Tensor]) -> list[Span]:
    """Return the spans (u0, u1, v0, v1) of a surface in which no point has its parameters, along u first.

    Args:
        surface: fitted.
        parameters: u and v of the points, (N,) each.
    """
    knots = []
    for axis in (0, 1):
        low, high = (float(end) for end in surface.domain[axis])
        values = multiplicities(surface.knots[axis].detach())[0]
        knots.append(values[(values >= low) & (values <= high)].double().numpy())
    u, v = (p.detach().double().numpy() for p in parameters)
    held = np.histogram2d(u, v, bins=knots)[0]
    return [
        (float(knots[0][i]), float(knots[0][i + 1]), float(knots[1][j]), float(knots[1][j + 1]))
        for i, j in np.argwhere(held == 0)
    ]


def notes(spans: Sequence[Span], surface: NURBSSurface) -> list[str]:
    """Say which spans hold no points, as u and v and as where they lie in space; nothing if all hold some."""
    if not spans:
        return []
    count = 1
    for axis in (0, 1):
        low, high = (float(end) for end in surface.domain[axis])
        values = multiplicities(surface.knots[axis].detach())[0]
        count *= int(((values >= low) & (values <= high)).sum()) - 1
    told = []
    for u0, u1, v0, v1 in spans[:_TOLD]:
        grid = torch.cartesian_prod(torch.linspace(u0, u1, 5).double(), torch.linspace(v0, v1, 5).double())
        places = surface(grid[:, 0], grid[:, 1]).detach()
        ends = torch.stack([places.amin(0), places.amax(0)], 1).tolist()
        where = ", ".join(f"{axis} {a:.4g} to {b:.4g}" for axis, (a, b) in zip("xyz", ends, strict=True))
        told.append(f"u {u0:.3g} to {u1:.3g}, v {v0:.3g} to {v1:.3g} ({where})")
    more = f"; and {len(spans) - _TOLD} more, see metrics.json" if len(spans) > _TOLD else ""
    return [
        f"{len(spans)} of {count} spans between knots hold no points; what the surface does there is made up: "
        f"{'; '.join(told)}{more}."
    ]
