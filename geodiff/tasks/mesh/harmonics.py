# SPDX-License-Identifier: Apache-2.0
"""Diffuse light from far away as spherical harmonics of degree 2: nine coefficients a channel."""

import math

import torch


def basis(normal: torch.Tensor) -> torch.Tensor:
    """Return the nine real spherical harmonics of degrees 0 to 2 at unit vectors (..., 3), (..., 9).

    Scaled so that the first is 1: it is the mean over all directions. (Ramamoorthi and Hanrahan, "An efficient
    representation for irradiance environment maps", 2001: of what a diffuse surface shows of any far light, these hold
    all but about 1 %.)
    """
    x, y, z = normal.unbind(-1)
    a, b, c = math.sqrt(3), math.sqrt(15), math.sqrt(5) / 2
    terms = (torch.ones_like(x), a * y, a * z, a * x, b * x * y, b * y * z, c * (3 * z * z - 1), b * x * z)
    return torch.stack([*terms, b / 2 * (x * x - y * y)], dim=-1)


def fitted(normal: torch.Tensor, color: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the light (9, 3) under which a surface of one colour is most like the photographs; its mean is 1 at first.

    Least squares with weights, thrice again with those of large residuals lowered (Cauchy's weights), since what is
    left is the surface's own colours.

    Args:
        normal: (P, 3) unit.
        color: (P, 3).
        weight: (P,) positive.
    """
    rows, values, weights = basis(normal.double()), color.double(), weight.double()
    # The colours of the surface vary with its normals, too, by chance: what is not clear is no light.
    ridge = 0.03 * torch.eye(9, dtype=torch.float64) * weights.sum()
    ridge[0, 0] *= 1e-3
    each = weights
    for _ in range(4):
        scaled = rows * each[:, None]
        found = torch.linalg.solve(scaled.T @ rows + ridge * (each.sum() / weights.sum()), scaled.T @ values)
        residual = (values - rows @ found).norm(dim=-1)
        typical = residual.median().clamp_min(1e-6)
        each = weights / (1 + (residual / (2 * typical)) ** 2)
    mean = found[:1].clamp_min(1e-6)
    return (found / mean).to(normal.dtype)
