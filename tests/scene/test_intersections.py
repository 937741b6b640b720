# SPDX-License-Identifier: Apache-2.0
"""Faces that meet: against linear programs, which know nothing of triangles, and cases whose answer is known."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import geodiff as gd

NOTHING = 1e-7  # a program's tolerance; for whole coordinates up to 4 the least weight that counts is above 1e-4


def pairs(points: object, faces: object) -> list[list[int]]:
    found = gd.Mesh(torch.as_tensor(points, dtype=torch.float64), torch.as_tensor(faces)).self_intersections()
    assert found.dtype == torch.int64 and found.shape[1:] == (2,)
    return found.tolist()  # type: ignore[no-any-return]


def meet(points: np.ndarray, p: list[int], q: list[int]) -> bool:
    """Whether a point is in both: of two triangles that share vertices one with weight on a corner of p's own."""
    at = [tuple(points[v]) for v in q]
    own = [float(tuple(points[v]) not in at) for v in p]
    if not any(own):
        return True
    left = np.vstack([np.hstack([points[p].T, -points[q].T]), [1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]])
    found = linprog([-w for w in own] + [0, 0, 0], A_eq=left, b_eq=[0, 0, 0, 1, 1], bounds=(0, 1))
    return bool(found.status == 0 and (all(own) or -found.fun > NOTHING))


def has_area(points: np.ndarray, face: list[int]) -> bool:
    a, b, c = points[face]
    return bool(np.cross(b - a, c - a).any())


@pytest.mark.parametrize(("seed", "high"), [(0, 2), (1, 3), (2, 5)])
def test_against_linear_programs(seed: int, high: int) -> None:
    """Whole coordinates, so that points on edges, common planes and common vertices are frequent."""
    random = np.random.default_rng(seed)
    points = random.integers(0, high, (9, 3)).astype(float)
    faces = [sorted(random.choice(9, 3, replace=False).tolist()) for _ in range(14)]
    sound = [has_area(points, face) for face in faces]
    want = [
        [i, j]
        for i, j in itertools.combinations(range(len(faces)), 2)
        if sound[i] and sound[j] and meet(points, faces[i], faces[j])
    ]
    assert pairs(points, faces) == want
    assert 0 < len(want) < 91


def test_random_triangles_against_segments() -> None:
    """In general position two triangles meet where a side of one goes through the other: by solving for the point."""
    random = np.random.default_rng(3)
    corners = random.random((60, 3, 3)) * 0.6 + random.random((60, 1, 3)) * 0.6
    faces = np.arange(180).reshape(60, 3)

    def pierced(p: np.ndarray, q: np.ndarray) -> bool:
        for k in range(3):
            start, end = p[k], p[(k + 1) % 3]
            u, v, t = np.linalg.solve(np.stack([q[1] - q[0], q[2] - q[0], start - end], axis=1), start - q[0])
            if u >= 0 and v >= 0 and u + v <= 1 and 0 <= t <= 1:
                return True
        return False

    want = [
        [i, j]
        for i, j in itertools.combinations(range(60), 2)
        if pierced(corners[i], corners[j]) or pierced(corners[j], corners[i])
    ]
    assert pairs(corners.reshape(-1, 3), faces) == want
    assert 50 < len(want) < 1000


def test_clean_meshes_have_none() -> None:
    for mesh in (gd.icosphere(3), gd.box().subdivided(3), gd.torus(1.0, 0.3), gd.cylinder(), gd.plane()):
        assert mesh.self_intersections().shape == (0, 2)
        turned = mesh.rotated(torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0])
        assert len(turned.self_intersections()) == 0


def test_seams_that_are_not_welded_are_none() -> None:
    ball = gd.icosphere(2)
    soup = gd.Mesh(ball.vertices[ball.faces].reshape(-1, 3), torch.arange(3 * ball.num_faces).reshape(-1, 3))
    assert len(soup.self_intersections()) == 0


def test_two_spheres_that_meet_in_a_circle() -> None:
    ball = gd.icosphere(3)
    points = torch.cat([ball.vertices, ball.vertices + torch.tensor([1.0, 0.013, 0.021])])
    both = gd.Mesh(points, torch.cat([ball.faces, ball.faces + ball.num_vertices]))
    found = both.self_intersections()
    assert bool((found[:, 0] < ball.num_faces).all() and (found[:, 1] >= ball.num_faces).all())
    middles = points[both.faces].mean(1)[found.reshape(-1)]
    # The circle of radius √3/2 about (1/2, 0, 0); a face's middle is within an edge's length, 0.16, of it.
    assert torch.allclose(middles[:, 0], torch.tensor(0.5), atol=0.16)
    assert torch.allclose(middles[:, 1:].norm(dim=-1), torch.tensor(0.75**0.5), atol=0.16)
    assert 2 * 3.14 * 0.866 / 0.16 < len(found) < 8 * 2 * 3.14 * 0.866 / 0.16


@pytest.mark.parametrize(
    ("points", "faces", "want"),
    [
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [2, 1, 0]], 1),  # a face and its back
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], [[0, 1, 2], [1, 3, 2]], 0),  # a square
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.1, 0]], [[0, 1, 2], [0, 1, 3]], 1),  # folded onto itself
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.2, 0.1, 1e-12]], [[0, 1, 2], [0, 1, 3]], 0),  # almost
        ([[0, 0, 0], [2, 0, 0], [0, 2, 0], [1, 0, 0], [1, -1, 0], [2, -1, 0]], [[0, 1, 2], [3, 4, 5]], 1),  # touching
        ([[0, 0, 0], [2, 0, 0], [0, 2, 0], [1, -1e-9, 0], [1, -1, 0], [2, -1, 0]], [[0, 1, 2], [3, 4, 5]], 0),
        ([[0, 0, 0], [9, 0, 0], [0, 9, 0], [1, 1, 0], [2, 1, 0], [1, 2, 0]], [[0, 1, 2], [3, 4, 5]], 1),  # inside
        ([[0, 0, 0], [9, 0, 0], [0, 9, 0], [1, 1, -1], [1, 1, 1], [1, 1, 1]], [[0, 1, 2], [3, 4, 5]], 0),  # no area
        ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2], [0, 0, 1]], 0),
    ],
)
def test_known_cases(points: list[list[float]], faces: list[list[int]], want: int) -> None:
    for size in (1.0, 2.0**-60, 2.0**60):  # exact, at any size
        assert len(pairs(torch.tensor(points, dtype=torch.float64) * size, faces)) == want


def test_the_same_whatever_threads_dtype_and_numbering() -> None:
    ball = gd.icosphere(3)
    noise = torch.randn(ball.vertices.shape, generator=torch.Generator().manual_seed(1))
    mesh = ball.with_vertices(ball.vertices + 0.08 * noise)
    found = mesh.self_intersections()
    assert len(found) > 20
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1 if threads > 1 else 3)
        assert torch.equal(mesh.self_intersections(), found)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(mesh.to(torch.float64).self_intersections(), found)
    order = torch.randperm(mesh.num_faces, generator=torch.Generator().manual_seed(2))
    other = order[gd.Mesh(mesh.vertices, mesh.faces[order].roll(1, -1)).self_intersections()].sort(-1).values
    assert sorted(other.tolist()) == found.tolist()


def test_no_faces_and_no_vertices() -> None:
    assert gd.Mesh(torch.zeros(0, 3), []).self_intersections().shape == (0, 2)
    assert gd.Mesh(torch.ones(2, 3), []).self_intersections().shape == (0, 2)


def test_a_batch_is_refused() -> None:
    mesh = gd.Mesh(torch.rand(2, 3, 3), torch.tensor([[0, 1, 2]]))
    with pytest.raises(ValueError, match=r"Mesh.self_intersections: `mesh` must be one mesh of vertices \(V, 3\)"):
        mesh.self_intersections()
