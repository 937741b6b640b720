# SPDX-License-Identifier: Apache-2.0
"""Normals of a cloud that all point to the outside."""

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.lines import neighbours, scan_lines
from geodiff.atlas.nearest import nearest
from geodiff.atlas.noise import estimate_noise
from geodiff.atlas.planes import FLAT, plane, planes
from geodiff.atlas.regions import Links, facing_regions, outvoted, turned_regions
from geodiff.atlas.winding import WindingTree
from geodiff.modes import outside_autocast
from geodiff.validation import fail, floating, number, promote, shapes_repr

_LEAST = 16  # points
_ONE_PLACE = 1e-6  # extent of the middle half of the points, in half that of all, below which rounding is all there is
_NEIGHBOURS = 12  # on a sheet
_LOOKED_AT = 24  # for them
_BESIDE = 3  # of which the side is taken
_MOST_NEIGHBOURS = 100
_STEPS = 40
_WIDE, _NARROW = 6.0, 2.5  # widths of the first and of the last step, in σ
_THINNEST = 0.1  # of the last step without noise, in spacings
_SMOOTHING = 8.0  # radius of the planes that points with noise are moved to, in σ
_SMOOTHED_FLAT = 0.35  # the same for points with noise
_TRUSTED = 0.8  # share of a region from which on the sides of given normals are kept


@dataclasses.dataclass(frozen=True)
class Oriented:
    """Normals of N points, all to one side.

    Attributes:
        normals: (N, 3), unit, outwards where the points enclose something.
        agreement: share of neighbouring pairs that face the same way in the result, on one sheet of the surface.
        given_agreement: the same for the normals that were given, in their signs; NaN without.
        turned: share of the given normals that were turned; NaN without.
        regions: how many parts were found whose sides nothing but the winding number relates.
    """

    __repr__ = shapes_repr

    normals: torch.Tensor
    agreement: float
    given_agreement: float
    turned: float
    regions: int


@outside_autocast
def orient(points: Any, normals: Any = None, *, noise: float | None = None) -> Oriented:
    """Find normals of a cloud that all point to the outside, or all to one side of an open surface.

    Two things are known of the right sides. The winding number of the oriented points is ½ at each of them and falls
    along the normal (Lin, Shi and Liu 2024); that holds for a whole shape, however thin its parts are. And neighbours
    on a smooth sheet face the same way, on open surfaces too. The first is solved by steps of steepest descent on
    Σ (W − ½)², after each of which the normals are turned against the slope of W. The width of the kernel shrinks from
    the spacing, or six σ of noise, to a tenth of it, or 2.5 σ. Then regions that meet at a flat border facing opposite
    ways are turned to agree, and each as a whole so that W comes nearest to ½.

    Args:
        points: (N, 3), N ≥ 16.
        normals: (N, 3) or nothing. If given, the result is each of them, at unit length, or its opposite: a region in
            which 80 % of them face one way keeps that way.
        noise: standard deviation σ of the points across the surface, in their unit; estimated if None.

    Of a cloud in lines (`geodiff.atlas.lines.scan_lines`), the lines are thinned until their points are about as far
    apart as they are, and the other points take the side of those nearest to them.

    Points that repeat another count once, and get its normal, or the one of their given axis on its side.

    Returns:
        Normals in the dtype of `points`, and how well neighbours agree.

    Raises:
        ValueError: wrong shapes, NaN or infinity, fewer than 16 distinct points, all but outliers in one place, zero
            normals, negative noise.
        TypeError: arguments that are no numbers.

    Gradients: none.

    Example:
        >>> import torch, geodiff as gd
        >>> ball = torch.nn.functional.normalize(torch.randn(1000, 3), dim=1)
        >>> found = gd.atlas.orient(ball)
        >>> bool(((found.normals * ball).sum(1) > 0).all())
        True
    """
    where = "orient"
    values = promote(where, points=points) if normals is None else promote(where, points=points, normals=normals)
    points = values["points"].detach()
    x = floating(where, "points", points.cpu().double(), ("N", 3), "One row a point.")
    if len(x) < _LEAST:
        raise fail(where, "points", f"at least {_LEAST} points", str(len(x)))
    extent = float((x.amax(0) - x.amin(0)).max())
    if not extent > 0:
        raise fail(where, "points", "in more than one place", "points all in one place")
    if noise is not None:
        given: Any = noise.item() if isinstance(noise, torch.Tensor) and noise.numel() == 1 else noise
        noise = number(where, "noise", given, 0, math.inf, "It is a standard deviation.")
    x = (2 * (x - (x.amax(0) + x.amin(0)) / 2) / extent).float()
    axes = None
    if normals is not None:
        axes = values["normals"].detach().cpu().double()
        axes = floating(where, "normals", axes, tuple(x.shape), "One normal a point, or none at all.")
        largest = axes.abs().amax(1, keepdim=True)
        if not bool((largest > 0).all()):
            got = f"{int((largest == 0).sum())} zero vectors"
            raise fail(where, "normals", "not zero", got, "Drop those points, or give no normals.")
        axes = torch.nn.functional.normalize(axes / largest, dim=1).float()
    first, copy = np.unique(x.numpy(), axis=0, return_index=True, return_inverse=True)[1:]
    if len(first) < len(x):
        return _with_copies(points, axes, noise, torch.from_numpy(np.sort(first)), np.argsort(np.argsort(first))[copy])
    if not float(np.subtract(*np.percentile(x.numpy(), [75, 25], axis=0)).max()) > _ONE_PLACE:
        raise fail(where, "points", "in more than one place", "outliers and points all in one place", "Drop outliers.")

    places = x.double().numpy()
    lines = scan_lines(places)
    sigma = None if noise is None else 2 * noise / extent
    found = _oriented(x, axes, sigma) if lines is None else _along_lines(x, places, axes, sigma, lines.anchor)
    return dataclasses.replace(found, normals=found.normals.to(points))


def _along_lines(
    x: torch.Tensor, places: np.ndarray, axes: torch.Tensor | None, sigma: float | None, anchor: np.ndarray
) -> Oriented:
    """Orient the anchors of a cloud in lines, and the other points as the nearest of them."""
    kept = torch.from_numpy(np.flatnonzero(anchor))
    found = _oriented(x[kept], None if axes is None else axes[kept], sigma)
    known = torch.zeros(len(x), 3, dtype=torch.float64)
    known[kept] = found.normals
    near = torch.from_numpy(neighbours(places, _NEIGHBOURS, anchor)[1])
    around = torch.cat([x[:, None].double(), x[near].double()], 1)
    nearest = known[near[:, 0]]
    if axes is None:
        _, axis, flat = plane(around, torch.ones(around.shape[:2], dtype=torch.bool))
        axis = torch.where((flat < FLAT)[:, None], axis, nearest)
    else:
        axis = axes.double()
    away = (known[near[:, :_BESIDE]] * axis[:, None]).sum((1, 2)) < 0
    normals = torch.where(torch.from_numpy(anchor)[:, None], known, torch.where(away[:, None], -axis, axis))
    if axes is None:
        return dataclasses.replace(found, normals=normals)
    turned = float(((normals * axes).sum(1) < 0).double().mean())
    return dataclasses.replace(found, normals=normals, turned=turned)


def _oriented(x: torch.Tensor, axes: torch.Tensor | None, sigma: float | None) -> Oriented:
    """Orient points (N, 3) in a cube from −1 to 1; the normals are float64."""
    area = _areas(x, cKDTree(x.numpy()))
    spacing = float(area.median().sqrt())
    sigma = estimate_noise(x).sigma if sigma is None else sigma
    pull = _winding_normals(x, area, spacing, sigma)
    smooth = _smoothed(x, pull, sigma, spacing)
    about = planes(smooth, pull, _LOOKED_AT)
    if axes is not None:
        sided = axes
    else:
        sided = torch.where((about.flat < FLAT)[:, None], about.axis, pull)
    along = (sided * pull).sum(1)
    sided = torch.where(along[:, None] < 0, -sided, sided)
    links = Links(smooth.numpy(), sided.numpy(), about.neighbours, about.own & (about.own.cumsum(1) <= _NEIGHBOURS))
    sign = outvoted(links, np.ones(len(x)))
    cell = 5 * max(spacing, sigma)
    sign = facing_regions(links, smooth.numpy(), sign, area.numpy() * along.abs().numpy(), cell)
    sign = outvoted(links, sign)
    region = links.regions(smooth.numpy(), sign, cell)
    turn = turned_regions(WindingTree(smooth, area), sided, area, links, sign, region, spacing)
    sign = sign * turn[region]
    given_agreement = turned = float("nan")
    if axes is not None:
        before = np.where((axes * sided).sum(1).numpy() < 0, -1.0, 1.0)
        given_agreement = links.agreement(before)
        share = np.bincount(region, before * sign * area.numpy()) / np.bincount(region, area.numpy())
        sign = np.where(share < 1 - 2 * _TRUSTED, -1.0, 1.0)[region] * sign
        turned = float((before != sign).mean())
    result = sided * torch.from_numpy(sign).float()[:, None]
    result = torch.nn.functional.normalize(result.double(), dim=1)
    return Oriented(result, links.agreement(sign), given_agreement, turned, int(region.max()) + 1)


def _with_copies(
    points: torch.Tensor, axes: torch.Tensor | None, noise: float | None, first: torch.Tensor, copy: np.ndarray
) -> Oriented:
    """Orient the points `first`, of which the others are copies: of number `copy` (N,) among them."""
    if len(first) < _LEAST:
        raise fail("orient", "points", f"at least {_LEAST} distinct points", f"{len(first)} of {len(points)}")
    found = orient(points[first], None if axes is None else axes[first].to(points), noise=noise)
    normals = found.normals[torch.from_numpy(copy)]
    if axes is None:
        return dataclasses.replace(found, normals=normals)
    axes = torch.nn.functional.normalize(axes.double(), dim=1).to(points)
    turn = (axes * normals).sum(1) < 0
    normals = torch.where(turn[:, None], -axes, axes)
    return dataclasses.replace(found, normals=normals, turned=float(turn.double().mean()))


def _areas(x: torch.Tensor, tree: cKDTree) -> torch.Tensor:
    """Return the area (N,) about each point: π r² / 8 for the distance r to its eighth neighbour."""
    far = torch.from_numpy(nearest(tree, x.numpy(), [9])[0][:, 0]).float()
    area = torch.pi / 8 * far.square()
    return area.clamp(min=1e-6 * float(area.mean()))


def _winding_normals(x: torch.Tensor, area: torch.Tensor, spacing: float, sigma: float) -> torch.Tensor:
    """Return unit normals (N, 3), outwards, by the winding number alone."""
    tree = WindingTree(x, area)
    wide, narrow = np.hypot(spacing, _WIDE * sigma), np.hypot(_THINNEST * spacing, _NARROW * sigma)
    mu = torch.zeros_like(x)
    for width in np.linspace(wide, narrow, _STEPS):
        rest = 0.5 - tree.field(mu, width)
        down = tree.adjoint(rest, width)
        change = tree.field(down, width)
        mu = mu + float((rest * change).sum() / change.square().sum().clamp(min=1e-30)) * down
        slope = tree.slope(mu, width)
        mu = slope * (mu.norm(dim=1) / slope.norm(dim=1).clamp(min=1e-30))[:, None]
    return torch.nn.functional.normalize(mu, dim=1)


def _smoothed(x: torch.Tensor, pull: torch.Tensor, sigma: float, spacing: float) -> torch.Tensor:
    """Return points moved twice to the planes of their neighbours within 6 σ, where these are planes."""
    if sigma <= 0.1 * spacing:
        return x
    k = int(np.clip(np.pi * (_SMOOTHING * sigma / spacing) ** 2, 8, min(_MOST_NEIGHBOURS, len(x) - 1)))
    for _ in range(2):
        middle, axis, flat = planes(x, pull, k, gaps=False)[:3]
        height = ((x - middle) * axis).sum(1, keepdim=True)
        x = torch.where((flat < _SMOOTHED_FLAT)[:, None], x - height * axis, x)
    return x
