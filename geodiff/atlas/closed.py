# SPDX-License-Identifier: Apache-2.0
"""A watertight mesh through oriented points: made, mended, checked, and made in another way where the check fails."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.beside import Beside
from geodiff.atlas.closing import Faults, components, faults, filled, mended, untangled, written
from geodiff.atlas.nearest import nearest
from geodiff.atlas.solid import solid_mesh
from geodiff.atlas.watertight import near, poisson_faces, trimmed
from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail, integer, promote

_PART = 0.01  # of the points: what fewer lie on is no part of the surface
_INVENTED = 0.05  # share of the area without points from which on it is said
_AGAINST = -0.5  # cosine below which a face turns its back to the points next to it
_COARSEST, _FINEST = 5, 8  # depths that are chosen
_CELL = 0.75  # of the spacing of the points
_SOME, _NEAREST = 2000, 8  # points asked for their spacing, and neighbours
_SMALL_HOLE = 8  # edges around a hole that is filled with open boundaries, too
_WHERE = "closed_mesh"


@dataclasses.dataclass(frozen=True)
class Closed:
    """A mesh, and what is known of it.

    Attributes:
        mesh: closed, unless borders are to stay open or `faults` says otherwise.
        depth: cells are 2^-depth of the extent.
        way: ``"poisson"``, or ``"winding"``, by the winding number.
        faults: what the check has found.
        crossings: pairs of faces that meet elsewhere than in the vertices and the edge that they share.
        parts: connected components that a hundredth of the points or more lie on.
        components: those kept.
        points_kept: share of the points that lie on them.
        invented: share of the area that no point supports: farther away than a few spacings, or facing the other way.
        notes: what one should know.
    """

    mesh: Mesh
    depth: int
    way: str
    faults: Faults
    crossings: int
    parts: int
    components: int
    points_kept: float
    invented: float
    notes: list[str]


@outside_autocast
def closed_mesh(
    points: torch.Tensor,
    normals: torch.Tensor,
    *,
    depth: int = 8,
    open_boundaries: bool = False,
    keep_components: int | None = None,
    trim: float = 4.0,
    threads: int = 1,
) -> Closed:
    """Return a closed manifold through oriented points, and whether it is one.

    Screened Poisson reconstruction by Open3D is mended by `geodiff.atlas.closing`, and checked. Where Open3D is missing
    or its surface cannot be closed, the border of where the points' winding number is above ½ is taken
    (`geodiff.atlas.solid`), which is closed by construction; a note says so.

    Args:
        points: (N, 3), N ≥ 4.
        normals: (N, 3) pointing outwards, of any length but zero.
        depth: cells are 2^-depth of the extent. 1 to 14; by the winding number, at most 8.
        open_boundaries: cut off what lies farther from all points than `trim` times their spacing: holes stay open.
        keep_components: how many connected parts to keep, those with the most points first; 0: all that a hundredth of
            the points lie on. None: 1, with open boundaries 0.
        trim: see above, > 0.
        threads: of Open3D.

    Raises:
        ValueError: wrong shapes, NaN, zero normals, numbers out of range, points in one place, or no surface.

    Example:
        >>> import torch
        >>> ball = torch.nn.functional.normalize(torch.randn(2000, 3), dim=1)
        >>> found = closed_mesh(ball, ball, depth=5)
        >>> found.mesh.is_closed, found.faults.told()
        (True, '')
    """
    return begin_closing(
        points, normals, depth=depth, open_boundaries=open_boundaries, keep_components=keep_components, trim=trim,
        threads=threads,
    )()  # fmt: skip


@outside_autocast
def begin_closing(
    points: torch.Tensor,
    normals: torch.Tensor,
    *,
    depth: int = 8,
    open_boundaries: bool = False,
    keep_components: int | None = None,
    trim: float = 4.0,
    threads: int = 1,
    beside: Beside | None = None,
) -> Callable[[], Closed]:
    """Check what `closed_mesh` is given, and return what makes it; `beside`, if given, solves the equation till then.

    Raises:
        ValueError: see `closed_mesh`; no surface is only found by what is returned.
    """
    values = promote(_WHERE, points=points, normals=normals)
    x, n = values["points"].detach(), values["normals"].detach()
    if x.dim() != 2 or x.shape[1] != 3 or len(x) < 4:
        raise fail(_WHERE, "points", "of shape (N, 3), N ≥ 4", x)
    if n.shape != x.shape:
        raise fail(_WHERE, "normals", f"of shape {tuple(x.shape)}, one for each point", n)
    if not bool((n != 0).any(-1).all()):
        raise fail(_WHERE, "normals", "not zero", f"{int((n == 0).all(-1).sum())} zero vectors", "Drop those points.")
    integer(_WHERE, "depth", depth, 1, 14)
    if keep_components is not None:
        integer(_WHERE, "keep_components", keep_components, 0, 10**9)
    if not trim > 0:
        raise fail(_WHERE, "trim", "positive", str(trim))
    corner, size = x.amin(0), float((x.amax(0) - x.amin(0)).max())
    if not size > 0:
        raise fail(_WHERE, "points", "in more than one place", "points all in one place")
    places = ((x - corner) / size).cpu().double().numpy()
    axes = torch.nn.functional.normalize(n.cpu().double(), dim=1).numpy()
    keep = (0 if open_boundaries else 1) if keep_components is None else keep_components
    if beside is not None:
        beside.ask(places, axes, depth, threads)

    def made() -> Closed:
        tree = cKDTree(places)  # while the other process solves
        solved = None if beside is None else beside.result()
        found, way, notes = _made(tree, axes, solved, depth, threads, trim, keep, open_boundaries)
        world = torch.from_numpy(found.vertices).to(x) * size + corner
        mesh = Mesh(world, torch.from_numpy(found.faces).to(x.device))
        counted = (found.crossings, found.parts, found.kept, found.share, found.invented)
        return Closed(mesh, depth, way, found.faults, *counted, notes)

    return made


def depth_for(points: torch.Tensor, seed: int = 0) -> int:
    """Return the depth whose cells are as fine as points (N, 3) can show where they are dense; at most 8.

    Cells are at most three quarters of the spacing there, √(area a point): the tenth of the points that are closest.
    """
    places = points.detach().cpu().double().numpy()
    extent = float(np.ptp(places, axis=0).max())
    some = np.random.default_rng(seed).permutation(len(places))[:_SOME]
    k = min(_NEAREST, len(places) - 1)
    gap = cKDTree(places).query(places[some], k=[k + 1], workers=-1)[0][:, 0] * np.sqrt(np.pi / max(k, 1))
    cell = _CELL * max(float(np.quantile(gap, 0.1)), 1e-9 * extent)
    return min(max(math.ceil(math.log2(max(1.1 * extent / max(cell, 1e-300), 1.0))), _COARSEST), _FINEST)


@dataclasses.dataclass
class _Found:
    vertices: np.ndarray
    faces: np.ndarray
    faults: Faults
    crossings: int
    parts: int
    kept: int
    share: float
    invented: float


@dataclasses.dataclass
class _Near:
    """Middles (F, 3) of faces, and of each how far (F,) the nearest place is and which (F,) that is."""

    middle: np.ndarray
    gap: np.ndarray
    own: np.ndarray

    def of(self, rows: np.ndarray) -> "_Near":
        """Return some of them."""
        return _Near(self.middle[rows], self.gap[rows], self.own[rows])


def _made(
    tree: cKDTree, axes: np.ndarray, solved: tuple[np.ndarray, np.ndarray] | None, depth: int, threads: int,
    trim: float, keep: int, open_boundaries: bool,
) -> tuple[_Found, str, list[str]]:  # fmt: skip
    """Return a surface, how it was found, and notes; `solved` is that of Poisson's equation, if it is known."""
    notes, why, found = [], "", None
    places = np.asarray(tree.data)
    try:
        vertices, faces = solved or poisson_faces("poisson_mesh", places, axes, depth, threads)
        found = _finished(tree, axes, vertices, faces, depth, trim, keep, open_boundaries, False)
        if found is None:
            why = "Poisson reconstruction found no surface"
        elif wrong := found.faults.told(open_boundaries):
            why = f"Poisson reconstruction left {wrong}"
    except ImportError as error:
        why = str(error).removeprefix("poisson_mesh: ").split(" Without it,")[0].rstrip(".")
    way = "poisson"
    if why:
        other = _finished(
            tree, axes, *solid_mesh(places, axes, depth), depth, trim, keep, open_boundaries, True
        )  # fmt: skip
        if other is not None and (found is None or not other.faults.told(open_boundaries)):
            found, way = other, "winding"
            notes.append(f"watertight.ply is made by the winding number, not by Poisson's equation: {why}.")
    if found is None:
        raise fail(_WHERE, "normals", "consistent enough for a surface", "no surface", "Orient them, or raise `trim`.")
    return found, way, notes + _told(found, open_boundaries)


def _finished(
    tree: cKDTree, axes: np.ndarray, vertices: np.ndarray, faces: np.ndarray, depth: int, trim: float, keep: int,
    open_boundaries: bool, plates: bool,
) -> _Found | None:  # fmt: skip
    """Trim, mend, choose components, fill holes and check; None where no face is left."""
    places = np.asarray(tree.data)
    vertices, faces = mended(vertices, faces)
    if open_boundaries and len(faces):
        faces = trimmed(places, vertices, faces, trim, depth)
        if plates:  # a sheet has a back that no point is on
            faces = faces[_supported(tree, axes, vertices, faces, depth, trim, _AGAINST)[0]]
        vertices, faces = mended(vertices, faces)
    if not len(faces):
        return None
    part = components(faces)
    votes = _votes(places, vertices, faces, part)
    ranked = np.argsort(-votes, kind="stable")
    parts = max(int((votes >= _PART * len(places)).sum()), 1)
    chosen = ranked[: min(keep, int((votes > 0).sum())) if keep else parts]
    faces, asked = _facing(tree, axes, vertices, faces, part, chosen)
    used, faces = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], faces.reshape(-1, 3)
    vertices, faces = filled(vertices, faces, _SMALL_HOLE) if open_boundaries else filled(vertices, faces)
    vertices, crossings = untangled(vertices, faces)
    share = float(votes[chosen].sum() / len(places))
    known, area = _supported(tree, axes, vertices, faces, depth, trim, 0.0, asked)
    invented = float(area[~known].sum() / max(area.sum(), 1e-300))
    return _Found(vertices, faces, faults(written(vertices, faces)), crossings, parts, len(chosen), share, invented)


def _votes(places: np.ndarray, vertices: np.ndarray, faces: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Return how many of the places lie on each component, whose numbers are `part` (F,)."""
    count = int(part.max()) + 1
    if count == 1:
        return np.array([len(places)])
    owner = np.empty(len(vertices), np.int64)
    owner[faces] = part[:, None]
    return np.bincount(owner[nearest(cKDTree(vertices), places)[1]], minlength=count)


def _facing(
    tree: cKDTree, axes: np.ndarray, vertices: np.ndarray, faces: np.ndarray, part: np.ndarray, chosen: np.ndarray
) -> tuple[np.ndarray, _Near]:
    """Return the faces of the chosen components, each of these turned to where the points on it face, and these."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    asked = _near(tree, a, b, c)
    along = np.bincount(part, (np.cross(b - a, c - a) * axes[asked.own]).sum(1))
    kept = np.isin(part, chosen)
    return np.where((along[part] < 0)[:, None], faces[:, ::-1], faces)[kept], asked.of(kept)


def _near(tree: cKDTree, a: np.ndarray, b: np.ndarray, c: np.ndarray, before: _Near | None = None) -> _Near:
    """Return what is nearest to faces with corners (F, 3); those that are where they were `before` are known."""
    middle = ((a + c) + b) / 3  # the same to the bit for a face that was turned
    if before is None:
        return _Near(middle, *nearest(tree, middle))
    count = min(len(middle), len(before.middle))
    moved = np.ones(len(middle), dtype=bool)
    moved[:count] = (middle[:count] != before.middle[:count]).any(1)
    gap, own = np.empty(len(middle)), np.empty(len(middle), np.int64)
    gap[:count], own[:count] = before.gap[:count], before.own[:count]
    gap[moved], own[moved] = nearest(tree, middle[moved])
    return _Near(middle, gap, own)


def _supported(
    tree: cKDTree, axes: np.ndarray, vertices: np.ndarray, faces: np.ndarray, depth: int, trim: float, least: float,
    before: _Near | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return which faces have points near them that face as they do, by a cosine of `least`, and all areas."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a) / 2
    area = np.linalg.norm(normal, axis=1)
    found = _near(tree, a, b, c, before)
    facing = (normal * axes[found.own]).sum(1) > least * area
    return facing & near(tree, found.gap, found.own, trim, depth), area


def _told(found: _Found, open_boundaries: bool) -> list[str]:
    notes = []
    if wrong := found.faults.told(open_boundaries):
        notes.append(f"watertight.ply is not watertight: {wrong}. --open-boundaries leaves open what has no points.")
    if found.crossings:
        notes.append(f"watertight.ply goes through itself: {found.crossings} pairs of its faces cross.")
    if found.kept < found.parts:
        notes.append(
            f"watertight.ply holds {found.kept} of {found.parts} parts, with {found.share:.0%} of the points: "
            f"--keep-components {found.parts} keeps them all."
        )
    if found.invented > _INVENTED:
        notes.append(
            f"watertight.ply is closed where there are no points: {found.invented:.0%} of its area is invented. "
            "--open-boundaries leaves that open."
            if not open_boundaries
            else f"watertight.ply: {found.invented:.0%} of its area has no points that face as it does."
        )
    return notes
