# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a mesh is counted by kind, and mended, on meshes that are broken by hand."""

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.atlas.closing import Faults, components, faults, filled, mended, untangled, written

GOOD = Faults(0, 0, 0, 0, 0, 0)


def box() -> tuple[np.ndarray, np.ndarray]:
    mesh = gd.box(2.0).welded()
    return mesh.vertices.double().numpy(), mesh.faces.numpy()


def ball(level: int = 2) -> tuple[np.ndarray, np.ndarray]:
    mesh = gd.icosphere(level)
    return mesh.vertices.double().numpy(), mesh.faces.numpy()


def volume(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float((np.cross(a, b) * c).sum() / 6)


def joined(*parts: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join meshes whose vertices in one place become one."""
    shifts = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    vertices = np.concatenate([vertices for vertices, _ in parts])
    faces = np.concatenate([f + shift for (_, f), shift in zip(parts, shifts, strict=False)])
    places, label = np.unique(vertices.round(9), axis=0, return_inverse=True)
    return places, label.reshape(-1)[faces]


def test_a_good_mesh_has_no_fault_and_stays() -> None:
    vertices, faces = ball()
    assert faults(faces) == GOOD and GOOD.told() == ""
    places, same = mended(vertices, faces)
    assert len(places) == len(vertices) and volume(places, same) == pytest.approx(volume(vertices, faces), abs=1e-12)
    assert all(np.array_equal(a, b) for a, b in zip(filled(places, same), (places, same), strict=True))


def test_each_fault_is_counted() -> None:
    vertices, faces = box()
    assert faults(faces[1:]).boundary_edges == 3
    turned = faces.copy()
    turned[0] = turned[0, ::-1]
    assert faults(turned).turned_edges == 3
    twice = faults(np.concatenate([faces, faces[:1]]))
    assert (twice.duplicate_faces, twice.nonmanifold_edges) == (1, 3)
    assert faults(np.concatenate([faces, [[0, 0, 1]]])) == Faults(0, 0, 0, 0, 0, 1)
    at_a_vertex = faults(joined((vertices, faces), (vertices + 2, faces))[1])
    assert at_a_vertex == Faults(0, 0, 0, 1, 0, 0)
    assert at_a_vertex.told() == "1 non-manifold vertices"
    at_an_edge = faults(joined((vertices, faces), (vertices + np.array([2, 2, 0]), faces))[1])
    assert at_an_edge.nonmanifold_edges == 1
    assert faults(faces[1:]).told() == "3 boundary edges" and faults(faces[1:]).told(open_boundaries=True) == ""
    assert faults(faces[:0]) == GOOD


@pytest.mark.parametrize("shift", [(2.0, 2, 2), (2.0, 2, 0), (0.0, 2, -2)])
def test_boxes_that_touch_are_parted_with_the_solid_within(shift: tuple[float, ...]) -> None:
    vertices, faces = box()
    touching = joined((vertices, faces), (vertices + np.array(shift), faces))
    assert faults(touching[1]) != GOOD
    places, parted = mended(*touching)
    assert faults(parted) == GOOD
    assert components(parted).max() == 1
    assert volume(places, parted) == pytest.approx(16, rel=0.03)  # parted by a fiftieth of an edge
    # Apart for those who join what is in one place, too.
    assert len(places) == 16 and faults(written(places + 100, parted)) == GOOD


def test_duplicates_and_walls_without_thickness() -> None:
    vertices, faces = ball()
    wall = faces[5][::-1]
    broken = np.concatenate([faces, faces[:3], np.stack([wall, faces[5]]), [[1, 1, 2]]])
    places, whole = mended(vertices, broken)
    assert faults(whole) == GOOD and len(whole) == len(faces)
    assert volume(places, whole) == pytest.approx(volume(vertices, faces), abs=1e-12)
    # A face and its own back are no solid.
    assert len(mended(vertices, np.stack([faces[0], faces[0][::-1]]))[1]) == 0
    assert len(mended(vertices, faces[:0])[1]) == 0


def test_vertices_in_one_place_become_one() -> None:
    vertices, faces = ball()
    soup = vertices[faces].reshape(-1, 3)
    apart = np.arange(len(soup)).reshape(-1, 3)
    assert faults(apart).boundary_edges == 3 * len(faces)
    assert faults(written(soup, apart)) == GOOD
    shaken = soup + 1e-6 * np.random.default_rng(0).normal(size=soup.shape)
    places, whole = mended(shaken, apart)
    assert faults(whole) == GOOD and len(places) == len(vertices)


@pytest.mark.parametrize("removed", [1, 2])
def test_small_holes_are_filled(removed: int) -> None:
    vertices, faces = ball()
    corner = faces == (0 if removed == 1 else faces[0, 0])
    gone = np.zeros(len(faces), dtype=bool)
    gone[:removed] = True
    gone |= corner.any(1) & (removed == 2)
    places, holed = mended(vertices, faces[~gone])
    assert faults(holed).boundary_edges > 0
    places, whole = filled(places, holed)
    assert faults(whole) == GOOD
    assert volume(places, whole) == pytest.approx(volume(vertices, faces), rel=0.03)


def test_a_long_border_is_left() -> None:
    vertices, faces = ball(3)
    half = mended(vertices, faces[vertices[faces].mean(1)[:, 2] < 0])
    long = faults(half[1]).boundary_edges
    assert long > 20
    assert faults(filled(*half, longest=20)[1]).boundary_edges == long
    assert faults(filled(*half, longest=long)[1]) == GOOD


def test_any_heap_of_faces_becomes_a_manifold() -> None:
    random = np.random.default_rng(0)
    for _ in range(30):
        faces = random.integers(0, 9, (40, 3))
        found = faults(mended(random.normal(size=(9, 3)), faces)[1])
        wrong = {**vars(found), "boundary_edges": 0}
        # Sides that have no opposite are a border, so nothing else is wrong.
        assert set(wrong.values()) == {0}


def test_faces_that_cross_are_moved_apart() -> None:
    sphere = gd.icosphere(3, dtype=torch.float64)
    vertices, faces = sphere.vertices.numpy().copy(), sphere.faces.numpy()
    assert untangled(vertices, faces)[1] == 0 and np.array_equal(untangled(vertices, faces)[0], vertices)
    neighbour = faces[(faces == 5).any(1)][0]
    vertices[5] += 3 * (vertices[neighbour[neighbour != 5]].mean(0) - vertices[5])
    assert len(gd.Mesh(torch.from_numpy(vertices), sphere.faces).self_intersections()) > 0
    moved, left = untangled(vertices, faces)
    assert left == 0 and abs(np.linalg.norm(moved, axis=1) - 1).max() < 0.1


def test_what_cannot_be_moved_apart_is_counted() -> None:
    vertices, faces = ball(3)
    both = np.concatenate([vertices, vertices + 0.5]), np.concatenate([faces, len(vertices) + faces])
    vertices, left = untangled(*both)
    assert left > 0 and np.isfinite(vertices).all()
