# SPDX-License-Identifier: Apache-2.0
"""Polygons as triangles: areas by the shoelace formula, and points in exactly one triangle."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geodiff as gd
from geodiff.scene.polygons import triangulate

U = [[0, 0], [1.2, 0], [1.2, 1], [0.8, 1], [0.8, 0.4], [0.4, 0.4], [0.4, 1], [0, 1]]  # of area 0.96


def turned(points, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    """Put points of the plane onto a plane in space, anywhere."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    axes[2] *= np.sign(np.linalg.det(axes))
    return scale * (np.c_[np.asarray(points, float), np.zeros(len(points))] @ axes + rng.normal(size=3))


def shoelace(q) -> float:
    q = np.asarray(q, float)
    return 0.5 * float((q[:, 0] * np.roll(q[:, 1], -1) - np.roll(q[:, 0], -1) * q[:, 1]).sum())


def cut(points: np.ndarray, sizes=None) -> np.ndarray:
    flat = np.arange(len(points))
    corners, _ = triangulate(points, flat, np.array([len(points)] if sizes is None else sizes), "test")
    return points[corners]


def areas(triangles: np.ndarray) -> np.ndarray:
    return 0.5 * np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("start", range(8))
def test_a_u_has_its_area_from_any_corner(start: int, flip: bool, scale: float) -> None:
    q = np.roll(np.array(U), start, axis=0)
    q = q[::-1] if flip else q
    p = turned(q, seed=start, scale=scale)
    triangles = cut(p)
    assert len(triangles) == 6
    assert areas(triangles).sum() == pytest.approx(0.96 * scale**2, rel=1e-9)
    # All look the same way as the polygon: the sum of cross products is twice the area along its normal.
    normal = np.cross(p, np.roll(p, -1, axis=0)).sum(axis=0)
    ways = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]) @ normal
    assert (ways > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 30))
def test_star_shaped_polygons(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    angle = np.sort(rng.random(n)) * 2 * np.pi
    if np.diff(np.append(angle, angle[0] + 2 * np.pi)).max() > 3:  # the middle must be inside
        return
    q = (0.2 + rng.random(n))[:, None] * np.stack((np.cos(angle), np.sin(angle)), axis=1)
    triangles = cut(turned(q, seed))
    assert areas(triangles).sum() == pytest.approx(shoelace(q), rel=1e-6)


def test_convex_polygons_stay_fans_around_their_first_corner() -> None:
    angle = np.arange(7) * 2 * np.pi / 7
    p = turned(np.stack((np.cos(angle), np.sin(angle)), axis=1))
    corners, owner = triangulate(p, np.arange(7), np.array([7]), "test")
    assert corners.tolist() == [[0, k, k + 1] for k in range(1, 6)]
    assert owner.tolist() == [0] * 5
    # With corners on straight lines too.
    square = turned([[0, 0], [1, 0], [2, 0], [2, 2], [0, 2], [0, 1]])
    corners, _ = triangulate(square, np.arange(6), np.array([6]), "test")
    assert corners.tolist() == [[0, k, k + 1] for k in range(1, 5)]


def test_many_at_once_with_triangles_between() -> None:
    p = np.concatenate((turned(U[:3]), turned(U, 1), turned(U[:4], 2), turned(U, 3)))
    corners, owner = triangulate(p, np.arange(len(p)), np.array([3, 8, 4, 8]), "test")
    assert np.bincount(owner).tolist() == [1, 6, 2, 6]
    sums = [areas(p[corners[owner == k]]).sum() for k in range(4)]
    assert np.allclose(sums, [0.6, 0.96, shoelace(U[:4]), 0.96])


@pytest.mark.parametrize(
    "q",
    [
        [[0, 0], [1, 1], [1, 0], [0, 1]],  # a bow tie, of area 0 by the shoelace formula
        [[0, 0], [2, 2], [2, 0], [0, 1]],
        [[np.cos(a), np.sin(a)] for a in np.arange(5) * 4 * np.pi / 5],  # a pentagram, which turns one way only
    ],
)
def test_crossing_sides_are_said(q) -> None:
    with pytest.warns(UserWarning, match=r"^test: 1 polygon whose sides cross: what they cover is a guess$"):
        cut(turned(q))


def test_what_has_no_area_makes_no_noise() -> None:
    for q in ([[0, 0], [1, 0], [2, 0], [3, 0]], [[1, 1]] * 5, [[0, 0], [1, 0], [0, 0], [1, 0]]):
        triangles = cut(turned(q))
        assert len(triangles) == len(q) - 2
        assert np.allclose(areas(triangles), 0)
    assert len(cut(np.full((4, 3), np.nan))) == 2
    with pytest.warns(UserWarning, match=r"^test: left out 2 faces of fewer than three corners$"):
        corners, owner = triangulate(turned(U[:6]), np.arange(6), np.array([2, 3, 1]), "test")
    assert corners.tolist() == [[2, 3, 4]] and owner.tolist() == [1]


def test_mesh_triangulated() -> None:
    p = torch.from_numpy(turned(U))
    mesh = gd.Mesh.triangulated(p, torch.arange(8)[None])
    assert float(mesh.face_areas.sum()) == pytest.approx(0.96)
    batch = gd.Mesh.triangulated(torch.stack((p, 2 * p)), [list(range(8))])
    assert batch.face_areas.sum(-1).tolist() == pytest.approx([0.96, 4 * 0.96])
    with pytest.raises(ValueError, match=r"Mesh\.triangulated: `polygons` must be indices in \[0, 8\); got .* 0 to 8"):
        gd.Mesh.triangulated(p, [[0, 1, 2, 8]])
