# SPDX-License-Identifier: Apache-2.0
"""Meshes of an atlas: one for each chart, or all in one with a layout for a texture."""

import numpy as np
import torch

from geodiff.atlas.members import Members, evaluate
from geodiff.atlas.packing import pack_rectangles
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail

_MOST = 4  # times to refine: each has four times the triangles


def chart_meshes(atlas: Members, refine: int = 0) -> list[Mesh]:
    """Return a mesh for each of Q charts, trimmed to where its points are: see `Atlas.meshes`.

    Raises:
        ValueError: `refine` out of range.
    """
    _check("Atlas.meshes", refine)
    domain = atlas.domain
    used, corners = torch.unique(domain.triangles, return_inverse=True)
    uv, of = atlas.uv[used], atlas.chart[used]
    chart = domain.chart
    for _ in range(refine):
        corners, ends = _quarter(corners, len(uv))
        uv, of = torch.cat((uv, uv[ends].mean(1))), torch.cat((of, of[ends[:, 0]]))
        chart = chart.repeat(4)
    places = evaluate(atlas, of, uv)
    corners = torch.where((atlas.sign[chart] < 0)[:, None], corners.flip(1), corners)
    meshes = []
    vertices = torch.argsort(of, stable=True)
    number = torch.argsort(vertices)
    corners = number[corners][torch.argsort(chart, stable=True)]
    counts = torch.bincount(of, minlength=len(atlas)).tolist()
    faces = torch.bincount(chart, minlength=len(atlas)).tolist()
    first = 0
    for ids, part in zip(vertices.split(counts), corners.split(faces), strict=True):
        meshes.append(Mesh(places[ids], part - first, uv=uv[ids].to(places)))
        first += len(ids)
    return meshes


def atlas_mesh(atlas: Members, refine: int = 0, *, gap: float = 0.002) -> Mesh:
    """Return all charts as one mesh in which each place appears once, with texture coordinates.

    The vertices are points of the cloud where the surface has them (`Atlas.fitted_points`), shared by all charts, so
    that neighbours meet. A chart gives the triangles that have a corner it owns; where two charts connect the same
    points otherwise, both their triangles are there, one above the other: the mesh need not be manifold at such seams,
    but has no slits. Finer vertices are the charts' own, moved to meet those.

    Args:
        atlas: fitted.
        refine: times that each triangle is cut into four, up to 4.
        gap: between charts in the texture's square.

    Returns:
        A mesh with `uv` (T, 2) and `uv_faces`: one island a chart, without overlap, at the same scale in the texture
        as in space, none of them mirrored. Off the autograd graph.

    Raises:
        ValueError: `refine` out of range, or an atlas without any triangle.
    """
    where = "Atlas.to_mesh"
    _check(where, refine)
    domain = atlas.domain
    keep = _once(atlas)
    if len(keep) == 0:
        raise fail(where, "atlas", "of positive area", "charts that hold no triangle", "Fit it longer.")
    rows, corner_uv = torch.unique(domain.triangles[keep], return_inverse=True)
    chart, uv = domain.chart[keep], atlas.uv[rows]
    of = atlas.chart[rows]
    used, vertex = torch.unique(atlas.point[rows], return_inverse=True)
    shift = atlas.fitted_points()[used][vertex] - domain.places[rows]
    layout = _layout(atlas, uv, of, corner_uv, chart, domain.area[keep], gap)
    for _ in range(refine):
        before = len(uv)
        corner_uv, ends = _quarter(corner_uv, before)
        pairs = vertex[ends].sort(1).values
        _, number = torch.unique(pairs, dim=0, return_inverse=True)
        vertex = torch.cat((vertex, number + (int(vertex.max()) + 1)))
        uv, shift = torch.cat((uv, uv[ends].mean(1))), torch.cat((shift, shift[ends].mean(1)))
        of, layout = torch.cat((of, of[ends[:, 0]])), torch.cat((layout, layout[ends].mean(1)))
        chart = chart.repeat(4)
    places = evaluate(atlas, of, uv) + shift
    count = torch.bincount(vertex)
    vertices = places.new_zeros(len(count), 3).index_add(0, vertex, places) / count[:, None]
    flip = (atlas.sign[chart] < 0)[:, None]
    corner_uv = torch.where(flip, corner_uv.flip(1), corner_uv)
    return Mesh(vertices, vertex[corner_uv], uv=layout, uv_faces=corner_uv)


def _check(where: str, refine: int) -> None:
    if isinstance(refine, bool) or not isinstance(refine, int) or not 0 <= refine <= _MOST:
        raise fail(where, "refine", f"an integer from 0 to {_MOST}", repr(refine), "It has 4^refine times the faces.")


def _once(atlas: Members) -> torch.Tensor:
    """Return the triangles to show: those with an owned corner, each three points once, from whom owns most of them."""
    domain = atlas.domain
    score = domain.owned.sum(1)
    shown = score.nonzero()[:, 0]
    shown = shown[torch.argsort(score[shown], descending=True, stable=True)]
    corners = atlas.point[domain.triangles[shown]].sort(1).values.cpu().numpy()
    order = np.lexsort(corners.T)  # stable: of those that are the same, the first comes first
    new = np.ones(len(order), dtype=bool)
    new[1:] = (corners[order[1:]] != corners[order[:-1]]).any(1)
    return shown[torch.from_numpy(order[new]).to(shown.device)].sort().values


def _quarter(corners: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut triangles (T, 3) of `count` vertices at their sides' middles; return (4T, 3) and the new vertices' ends."""
    sides = torch.stack((corners, corners.roll(-1, 1)), -1).sort(-1).values
    ends, number = torch.unique(sides.reshape(-1, 2), dim=0, return_inverse=True)
    m = number.reshape(-1, 3) + count
    a, b, c = corners.unbind(1)
    ab, bc, ca = m.unbind(1)
    parts = ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))
    return torch.cat([torch.stack(part, 1) for part in parts]), ends


def _layout(
    atlas: Members,
    uv: torch.Tensor,
    of: torch.Tensor,
    corners: torch.Tensor,
    chart: torch.Tensor,
    area: torch.Tensor,
    gap: float,
) -> torch.Tensor:
    """Return texture coordinates for uv (T, 2) of charts `of` (T,): one island for each, to scale."""
    charts = len(atlas)
    # Charts that face the other way are seen from behind: mirrored, to be seen from the front.
    seen = torch.where((atlas.sign[of] < 0)[:, None], torch.stack((1 - uv[:, 0], uv[:, 1]), 1), uv).double()
    a, b, c = seen[corners].unbind(1)
    flat = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs() / 2
    zero = flat.new_zeros(charts)
    factor = (zero.index_add(0, chart, area.double()) / zero.index_add(0, chart, flat).clamp(min=1e-300)).sqrt()
    index = of[:, None].expand(-1, 2)
    low = seen.new_full((charts, 2), torch.inf).scatter_reduce(0, index, seen, "amin")
    high = seen.new_full((charts, 2), -torch.inf).scatter_reduce(0, index, seen, "amax")
    present = torch.unique(of)
    sizes = (high - low)[present] * factor[present, None]
    sizes = sizes.clamp(min=1e-3 * float(sizes.max()))
    gap = min(gap, 0.25 / len(present) ** 0.5)
    packing = pack_rectangles(sizes, gap=gap)
    number = torch.zeros(charts, dtype=torch.int64, device=of.device)
    number[present] = torch.arange(len(present), device=of.device)
    k = number[of]
    x, y = ((seen - low[of]) * factor[of, None]).unbind(1)
    turned = torch.stack((sizes[k, 1] - y, x), 1)
    placed = torch.where(packing.turned[k, None], turned, torch.stack((x, y), 1))
    return (packing.corner[k] + packing.scale * placed).to(uv)
