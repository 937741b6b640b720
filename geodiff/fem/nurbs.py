# SPDX-License-Identifier: Apache-2.0
"""Isogeometric analysis: the functions that draw a NURBS also carry the unknowns on it.

Hughes, Cottrell and Bazilevs, "Isogeometric analysis: CAD, finite elements, NURBS, exact geometry and mesh refinement",
Computer Methods in Applied Mechanics and Engineering 194, 2005.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import torch

from geodiff.fem.axis import spline_axis
from geodiff.fem.space import Elements, Space, on_cpu
from geodiff.fem.tensor import Patch
from geodiff.modes import outside_autocast
from geodiff.splines.spline import NURBS
from geodiff.validation import fail, integer, number


@outside_autocast
def nurbs_space(spline: NURBS, *, quadrature: int | None = None) -> Space:
    """Make the functions that a NURBS curve, surface or volume is drawn with, on it.

    One unknown a control point. More of them, without any change of shape: `splines.refined`, `splines.elevated`.

    Args:
        spline: one, without a batch, in as many dimensions as it has parameters or more; periodic axes stay so.
        quadrature: Gauss points a span and axis; left out, P + 1, and one more for rational ones.

    Gradients: in the control points and weights; none in the knots.

    Raises:
        TypeError: another class.
        RuntimeError: a spline on another device than the CPU.
        ValueError: a batch, degree 0, elements that are inverted or without area.

    Example:
        >>> import torch, geodiff as gd
        >>> ball = gd.splines.sphere(dtype=torch.float64)
        >>> area = float(gd.fem.nurbs_space(ball, quadrature=12).measure())
        >>> abs(area - 4 * torch.pi) < 1e-12  # the exact shape
        True
    """
    where = "nurbs_space"
    if not isinstance(spline, NURBS):
        raise fail(where, "spline", "a NURBSCurve, NURBSSurface or NURBSVolume", spline, error=TypeError)
    on_cpu(where, "spline", spline.control_points)
    if spline.batch_shape:
        raise fail(where, "spline", "one spline", repr(spline), "Take spline[i].")
    if spline.dim < spline.axes or min(spline.degrees) < 1:
        expected = f"of degree 1 or more in {spline.axes} dimensions or more"
        raise fail(where, "spline", expected, repr(spline))
    if quadrature is not None:
        integer(where, "quadrature", quadrature, 1, 64)
    axes = [spline_axis(k, p, w) for k, p, w in zip(spline.knots, spline.degrees, spline.periodic, strict=True)]
    index = torch.arange(int(np.prod(spline.shape))).reshape(spline.shape)
    points = [p + 1 + spline.is_rational if quadrature is None else quadrature for p in spline.degrees]
    patch = Patch(axes, index, spline.control_points, spline.weights, points)
    return patch.space(spline.control_points.reshape(-1, spline.dim), False)


@outside_autocast
def glued(spaces: Sequence[Space], *, tolerance: float = 1e-8) -> Space:
    """Join patches where control points of their sides coincide: continuous across, one unknown for both.

    Args:
        spaces: of `nurbs_space` or `grid_space`, whose common sides have the same control points (and knots).
        tolerance: below which control points are one, as a fraction of the whole's size.

    Raises:
        TypeError: other classes.
        ValueError: patches that share nothing, or only a part of a side.

    Example:
        >>> import geodiff as gd
        >>> left = gd.fem.grid_space((3, 3))
        >>> right = gd.fem.grid_space((3, 3), bounds=[(1, 2), (0, 1)])
        >>> gd.fem.glued([left, right])
        Space(15 unknowns, 8 elements in 2-D)
    """
    number("glued", "tolerance", tolerance, 0, 0.1)
    if not isinstance(spaces, list | tuple) or len(spaces) < 2 or not all(isinstance(s, Space) for s in spaces):
        raise fail("glued", "spaces", "a list of two spaces or more", spaces, error=TypeError)
    if len({(space.dim, space.rank) for space in spaces}) > 1:
        got = ", ".join(f"{space.rank} in {space.dim}" for space in spaces)
        raise fail("glued", "spaces", "of one number of parameters and dimensions", got)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    starts = np.cumsum([0] + [space.size for space in spaces])
    positions = torch.cat([space.positions for space in spaces])
    places = positions.detach().cpu().numpy()
    rims = [space.held("all").numpy() + start for space, start in zip(spaces, starts[:-1], strict=True)]
    rim = np.concatenate(rims)
    reach = tolerance * float(np.ptp(places, axis=0).max())
    pairs = cKDTree(places[rim]).query_pairs(reach, output_type="ndarray")
    links = rim[pairs]
    _, label = connected_components(
        coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(len(places), len(places))), directed=False
    )
    patch_of = np.repeat(np.arange(len(spaces)), np.diff(starts))
    shared = _check_common(spaces, starts, label, patch_of)
    _, first, number_of = np.unique(label, return_index=True, return_inverse=True)
    order = np.argsort(first)  # unknowns in the order of their first appearance
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    numbers = torch.from_numpy(rank[number_of.reshape(-1)])

    def renumbered(group: Elements, start: int) -> Elements:
        return dataclasses.replace(group, dofs=numbers[group.dofs + start])

    def side(k: int, name: str) -> list[Elements]:
        return [renumbered(group, int(starts[k])) for group in spaces[k].side(name).groups]

    groups = [renumbered(g, int(starts[k])) for k, space in enumerate(spaces) for g in space.groups]
    outer = [(k, name) for k, space in enumerate(spaces) for name in space.sides[:-1] if (k, name) not in shared]
    sides = {f"{k}.{name}": functools.partial(side, k, name) for k, name in outer}
    kept = positions[torch.from_numpy(first[order])]
    return Space(len(order), groups, kept, all(space.nodal for space in spaces), sides, spaces[0].rank)


def _check_common(
    spaces: Sequence[Space], starts: np.ndarray, label: np.ndarray, patch_of: np.ndarray
) -> set[tuple[int, str]]:
    """Return the sides that are shared, whole; raise where a part of one is, or a patch stands apart."""
    patches_at: dict[int, set[int]] = {}
    for unknown, patch in zip(label, patch_of, strict=True):
        patches_at.setdefault(int(unknown), set()).add(int(patch))
    shared, touched = set(), set()
    for k, space in enumerate(spaces):
        for name in space.sides[:-1]:
            own = [patches_at[int(i)] - {k} for i in np.unique(label[space.held(name).numpy() + starts[k]])]
            # Two faces may share a corner, two solids an edge; more is a side.
            least = (0, 1, len(own) // 2)[space.rank - 1]
            others = [other for other in set().union(*own) if sum(other in at for at in own) > least]
            for other in others:
                if not all(other in at for at in own):
                    count = sum(other in at for at in own)
                    got = f"{count} of {len(own)} control points of side '{name}' of patch {k} also in patch {other}"
                    fix = "Give both the same knots and weights along it (splines.refined, splines.elevated)."
                    raise fail("glued", "spaces", "patches that share whole sides", got, fix)
                shared.add((k, name))
                touched.add(k)
    apart = sorted(set(range(len(spaces))) - touched)
    if apart:
        fix = "Are they within the tolerance?"
        raise fail("glued", "spaces", "patches that share sides", f"patch {apart[0]} alone", fix)
    return shared
