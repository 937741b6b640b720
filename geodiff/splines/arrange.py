# SPDX-License-Identifier: Apache-2.0
"""Rearrange splines: reverse, swap axes, reparametrise, join.

Gradients: in everything. Options are kept; a bandwidth follows its axis and its units.
"""

from typing import TypeVar

import torch

from geodiff.modes import outside_autocast
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.refine import clamped, elevated, prepared
from geodiff.splines.spline import NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import common_batch, fail, positive

Spline = TypeVar("Spline", bound=NURBS)


@outside_autocast
def reversed_(spline: Spline, axis: int = 0) -> Spline:
    """Run through the same domain the other way: the parameter u becomes low + high − u. Periodic axes stay so.

    Args:
        spline: any curve, surface or volume.
        axis: along which.

    Example:
        >>> import torch, geodiff as gd
        >>> reversed_(gd.NURBSCurve(torch.tensor([[0.0], [1.0], [5.0]]), degree=2)).control_points.flatten()
        tensor([5., 1., 0.])
    """
    prepared("reversed_", spline, axis)
    (low, high), knots, count = spline.domain[axis], spline.knots[axis], spline.shape[axis]
    low, high = low[..., None], high[..., None]
    turned = torch.where(knots == low, high, torch.where(knots == high, low, (low + high) - knots)).flip(-1)
    index = torch.arange(count - 1, -1, -1, device=knots.device)
    if spline.periodic[axis]:
        index = (index + spline.degrees[axis]) % count
    return spline.replace(
        control_points=spline.control_points.index_select(axis - spline.axes - 1, index),
        weights=None if spline.weights is None else spline.weights.index_select(axis - spline.axes, index),
        knots=tuple(turned if i == axis else k for i, k in enumerate(spline.knots)),
    )


@outside_autocast
def swapaxes(spline: Spline, first: int, second: int) -> Spline:
    """Exchange two parameters, with their knots, degrees and options.

    Args:
        spline: a surface or volume.
        first: one axis.
        second: the other.

    Example:
        >>> import torch, geodiff as gd
        >>> swapaxes(gd.NURBSVolume(torch.randn(2, 3, 4, 3), degree=(1, 2, 3)), 0, 2).shape
        (4, 3, 2)
    """
    prepared("swapaxes", spline, first)
    prepared("swapaxes", spline, second)
    order = list(range(spline.axes))
    order[first], order[second] = second, first
    axes = spline.axes
    return spline.replace(
        control_points=spline.control_points.transpose(first - axes - 1, second - axes - 1),
        weights=None if spline.weights is None else spline.weights.transpose(first - axes, second - axes),
        knots=tuple(spline.knots[i] for i in order),
        degree=tuple(spline.degrees[i] for i in order),
        periodic=tuple(spline.periodic[i] for i in order),
        bandwidth=None if spline.bandwidth is None else tuple(spline.bandwidth[i] for i in order),
    )


@outside_autocast
def transposed(surface: NURBSSurface) -> NURBSSurface:
    """Exchange u and v of a surface, which turns its normals round.

    Example:
        >>> import torch, geodiff as gd
        >>> transposed(gd.NURBSSurface(torch.randn(4, 6, 3), degree=(3, 2))).degree
        (2, 3)
    """
    if not isinstance(surface, NURBSSurface):
        raise fail("transposed", "surface", "a NURBSSurface", surface, "swapaxes() takes volumes.", TypeError)
    return swapaxes(surface, 0, 1)


@outside_autocast
def normalised(spline: Spline, axis: int | None = None) -> Spline:
    """Move the domain to [0, 1] by an affine change of the parameter.

    Args:
        spline: any curve, surface or volume.
        axis: along which; left out, along all.

    Raises:
        ValueError: smoothed knot gradients for a batch of domains of different lengths, which one bandwidth cannot fit.

    Example:
        >>> import torch, geodiff as gd
        >>> curve = gd.NURBSCurve(torch.randn(3, 3), torch.tensor([2.0, 2.0, 2.0, 4.0, 4.0, 4.0]), degree=2)
        >>> normalised(curve).knots[0]
        tensor([0., 0., 0., 1., 1., 1.])
    """
    prepared("normalised", spline, axis or 0)
    knots, bandwidth = list(spline.knots), spline.bandwidth
    for a in range(spline.axes) if axis is None else (axis,):
        low, high = (end[..., None] for end in spline.domain[a])
        scaled = (knots[a] - low) / (high - low)
        if bandwidth is not None:
            lengths = (high - low).detach()
            if bool((lengths != lengths.amax()).any()):
                expected = "of one length along the axis for the whole batch, to scale the bandwidth with it"
                got = f"between {float(lengths.min()):g} and {float(lengths.max()):g}"
                raise fail("normalised", "domain", expected, got, "Take the splines one by one: spline[i].")
            bandwidth = (*bandwidth[:a], bandwidth[a] / float(lengths.max()), *bandwidth[a + 1 :])
        knots[a] = scaled
    return spline.replace(knots=tuple(knots), bandwidth=bandwidth)


@outside_autocast
def joined(first: NURBSCurve, second: NURBSCurve, tolerance: float | None = None) -> NURBSCurve:
    """Make one curve of two that meet: the second's parameters follow on the first's, with a knot repeated P times.

    The lower degree is raised, weights of the second are scaled to agree at the joint, and the joint is where the first
    ends. Options are the first's.

    Args:
        first: of degree 1 or more.
        second: starts where the first ends.
        tolerance: largest distance between the two ends; left out, 4096 roundings of the largest coordinate.

    Raises:
        TypeError: not curves.
        ValueError: curves that do not meet, that differ in dimension, or of degree 0.

    Example:
        >>> import torch, geodiff as gd
        >>> one = gd.NURBSCurve(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), degree=1)
        >>> two = gd.NURBSCurve(torch.tensor([[1.0, 0.0], [2.0, 1.0], [3.0, 0.0]]), degree=2)
        >>> curve = joined(one, two)
        >>> curve.shape, curve.domain[0][1]
        ((5,), tensor(2.))
    """
    where = "joined"
    for name, curve in (("first", first), ("second", second)):
        if not isinstance(curve, NURBSCurve):
            raise fail(where, name, "a NURBSCurve", curve, error=TypeError)
        if curve.degree < 1:
            raise fail(where, name, "of degree 1 or more", f"degree {curve.degree}", "elevated() raises it.")
    if first.dim != second.dim:
        raise fail(where, "second", f"a curve in {first.dim} dimensions like the first", f"{second.dim}")
    degree = max(first.degree, second.degree)
    first, second = (elevated(clamped(c), degree - c.degree) for c in (first, second))
    start, end = second.control_points[..., 0, :], first.control_points[..., -1, :]
    gap = (start - end).detach().norm(dim=-1).max()
    if tolerance is None:
        size = max(float(c.control_points.detach().abs().max()) for c in (first, second))
        tolerance = max(4096 * torch.finfo(first.dtype).eps * size, torch.finfo(first.dtype).tiny)
    positive(where, "tolerance", tolerance)
    if float(gap) > tolerance:
        expected = f"starting within {tolerance:.3g} of the end of the first"
        raise fail(where, "second", expected, f"{float(gap):.3g} away", "Reverse or move it, or raise the tolerance.")
    a, b = first.knots[0], second.knots[0]
    shifted = b[..., degree + 1 :] + (first.domain[0][1] - second.domain[0][0])[..., None]
    points, weights = _concatenated(first.control_points, second.control_points[..., 1:, :], -2), None
    if first.is_rational or second.is_rational:
        w1, w2 = (c.control_points.new_ones(c.shape) if c.weights is None else c.weights for c in (first, second))
        weights = _concatenated(w1, w2[..., 1:] * (w1[..., -1:] / w2[..., :1]), -1)
    return first.replace(control_points=points, weights=weights, knots=(_concatenated(a[..., :-1], shifted, -1),))


def _concatenated(a: torch.Tensor, b: torch.Tensor, dim: int) -> torch.Tensor:
    batch = common_batch(a.shape[:dim], b.shape[:dim])
    return torch.cat([a.expand(*batch, *a.shape[dim:]), b.expand(*batch, *b.shape[dim:])], dim)
