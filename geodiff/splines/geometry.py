# SPDX-License-Identifier: Apache-2.0
"""Differential geometry from derivatives: normals, fundamental forms, curvatures; and the triangles of a grid.

A jet is a dictionary from orders, such as (1, 0), to derivatives `(..., D)`. Formulas: do Carmo, "Differential
Geometry of Curves and Surfaces" (1976), chapters 1 and 3.
"""

import torch

from geodiff.validation import looks_at_values

Jet = dict[tuple[int, ...], torch.Tensor]


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale vectors to length one; zero stays zero, with gradient zero."""
    length = vectors.norm(dim=-1, keepdim=True)
    return vectors / torch.where(length > 0, length, torch.ones_like(length))


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a * b).sum(-1)


def curvature(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return `sqrt(|C′|² |C″|² − (C′·C″)²) / |C′|³` from derivatives, as `|C″ across C′| / |C′|²`."""
    speed = _dot(first, first)
    across = second - (_dot(first, second) / speed)[..., None] * first
    return across.norm(dim=-1) / speed


def torsion(first: torch.Tensor, second: torch.Tensor, third: torch.Tensor) -> torch.Tensor:
    """Return `det(C′, C″, C‴) / |C′ × C″|²` from derivatives `(..., 3)`."""
    binormal = torch.linalg.cross(first, second)
    return _dot(binormal, third) / _dot(binormal, binormal)


def normal(jet: Jet, side_u: torch.Tensor, side_v: torch.Tensor) -> torch.Tensor:
    """Return unit normals; where `S_u × S_v` vanishes, its limit from inside, by its first derivatives.

    Args:
        jet: of order 2.
        side_u: +1 where inside is towards larger u, −1 where it is towards smaller, broadcastable.
        side_v: the same for v.
    """
    su, sv, suv = jet[(1, 0)], jet[(0, 1)], jet[(1, 1)]
    cross = torch.linalg.cross(su, sv)
    with torch.no_grad():
        longest = torch.maximum(su.norm(dim=-1), sv.norm(dim=-1))
        tiny = 1e3 * torch.finfo(cross.dtype).eps
        bent = torch.maximum(suv.norm(dim=-1), torch.maximum(jet[(2, 0)].norm(dim=-1), jet[(0, 2)].norm(dim=-1)))
        flat = cross.norm(dim=-1) <= tiny * longest * torch.maximum(longest, bent)
    if looks_at_values(flat) and not bool(flat.any()):
        return unit(cross)
    along_u = torch.linalg.cross(jet[(2, 0)], sv) + torch.linalg.cross(su, suv)
    along_v = torch.linalg.cross(suv, sv) + torch.linalg.cross(su, jet[(0, 2)])
    limit = side_u * along_u + side_v * along_v
    return unit(torch.where(flat[..., None], limit, cross))


def first_form(jet: Jet) -> torch.Tensor:
    """Return `[[E, F], [F, G]]`, `(..., 2, 2)`."""
    tangents = torch.stack([jet[(1, 0)], jet[(0, 1)]], -2)
    return tangents @ tangents.mT


def second_form(jet: Jet) -> torch.Tensor:
    """Return `[[L, M], [M, N]]`, `(..., 2, 2)`."""
    n = unit(torch.linalg.cross(jet[(1, 0)], jet[(0, 1)]))
    mixed = _dot(jet[(1, 1)], n)
    rows = [torch.stack([_dot(jet[(2, 0)], n), mixed], -1), torch.stack([mixed, _dot(jet[(0, 2)], n)], -1)]
    return torch.stack(rows, -2)


def _determinant(form: torch.Tensor) -> torch.Tensor:
    return form[..., 0, 0] * form[..., 1, 1] - form[..., 0, 1] * form[..., 1, 0]


def gaussian_curvature(jet: Jet) -> torch.Tensor:
    """Return the product of the principal curvatures, `(...)`."""
    return _determinant(second_form(jet)) / _determinant(first_form(jet))


def mean_curvature(jet: Jet) -> torch.Tensor:
    """Return the mean of the principal curvatures, `(...)`."""
    one, two = first_form(jet), second_form(jet)
    trace = one[..., 0, 0] * two[..., 1, 1] - 2 * one[..., 0, 1] * two[..., 0, 1] + one[..., 1, 1] * two[..., 0, 0]
    return trace / (2 * _determinant(one))


def grid_faces(rows: int, columns: int, device: torch.device) -> torch.Tensor:
    """Cut the cells of a grid of points, numbered row by row, into triangles, `(2 (rows − 1)(columns − 1), 3)`."""
    number = torch.arange(rows * columns, device=device).reshape(rows, columns)
    a, b, c, d = number[:-1, :-1], number[1:, :-1], number[1:, 1:], number[:-1, 1:]
    return torch.stack([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)], -2).reshape(-1, 3)


def weld_grid(points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Find which border points of a grid `(..., R, C, 3)` coincide: opposite borders, and borders that are one point.

    Returns:
        (keep, renumber): indices of the points to keep, and for each point its number among them.
    """
    rows, columns = points.shape[-3], points.shape[-2]
    flat = points.reshape(-1, rows, columns, points.shape[-1])
    size = (flat.amax((1, 2)) - flat.amin((1, 2))).amax()
    near = 64 * torch.finfo(points.dtype).eps * size

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return bool((a - b).abs().amax() <= near)

    target = torch.arange(rows * columns, device=points.device).reshape(rows, columns)
    if same(flat[:, 0], flat[:, -1]):
        target[-1] = target[0]
    if same(flat[:, :, 0], flat[:, :, -1]):
        target[:, -1] = target[:, 0]
    for edge in ((0, slice(None)), (-1, slice(None)), (slice(None), 0), (slice(None), -1)):
        border = flat[(slice(None), *edge)]
        if same(border, border[:, :1]):
            target[edge] = target[edge][0].clone()
    keep, renumber = torch.unique(target.flatten(), return_inverse=True)
    return keep, renumber
