# SPDX-License-Identifier: Apache-2.0
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse.csgraph
import trimesh

ASSETS = Path(__file__).parents[1] / "assets"
NAMES = ("airplane", "chair", "mug", "teapot")
# Six decimals are written; a different processor may round the last one differently.
WRITTEN = 2e-6


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(ASSETS))
    yield
    sys.path.remove(str(ASSETS))


def load(name):
    return trimesh.load(ASSETS / f"{name}.obj", process=False, force="mesh")


@pytest.mark.parametrize("name", NAMES)
def test_files_are_what_the_readme_says(name):
    row = re.search(rf"`{name}.obj` \| (\d+) \| (\d+) \| (\d+) \|", (ASSETS / "README.md").read_text())
    vertices, faces, genus = (int(number) for number in row.groups())
    mesh = load(name)
    assert (len(mesh.vertices), len(mesh.faces)) == (vertices, faces)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0  # normals point outwards
    assert mesh.body_count == 1
    assert mesh.euler_number == 2 - 2 * genus
    assert len(np.unique(mesh.faces)) == vertices  # no stray vertices
    assert (np.unique(mesh.edges_sorted, axis=0, return_counts=True)[1] == 2).all()
    assert fans(mesh) == vertices


def fans(mesh):
    """Count the fans of faces around vertices; a manifold has one for each vertex."""
    corner = {(face, vertex): 3 * face + k for face, row in enumerate(mesh.faces) for k, vertex in enumerate(row)}
    pairs = zip(mesh.face_adjacency, mesh.face_adjacency_edges, strict=True)
    joined = np.array([[corner[face, vertex] for face in two] for two, edge in pairs for vertex in edge])
    graph = scipy.sparse.coo_matrix((np.ones(len(joined)), joined.T), shape=(len(corner), len(corner)))
    return scipy.sparse.csgraph.connected_components(graph, directed=False)[0]


def test_fans_tell_a_pinched_vertex():
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    pinched = np.concatenate([tetrahedron, np.where(tetrahedron == 0, 0, tetrahedron + 3)])
    points = np.random.default_rng(0).random((7, 3))
    assert fans(trimesh.Trimesh(points[:4], tetrahedron, process=False)) == 4
    assert fans(trimesh.Trimesh(points, pinched, process=False)) == 8


@pytest.mark.parametrize("name", NAMES)
def test_files_are_centred_sized_and_small(name):
    mesh = load(name)
    np.testing.assert_allclose(mesh.bounds.sum(0), 0, atol=WRITTEN)
    assert mesh.extents.max() == pytest.approx(1, abs=WRITTEN)
    assert (ASSETS / f"{name}.obj").stat().st_size < 300_000
    edges = np.linalg.norm(mesh.triangles - np.roll(mesh.triangles, 1, axis=1), axis=2)
    # 1 for an equilateral triangle, 0 for a needle.
    assert (mesh.area_faces * 4 * np.sqrt(3) / (edges**2).sum(1)).min() > 0.05


def test_each_stands_and_points_where_the_readme_says():
    airplane = load("airplane").vertices
    highest = airplane[airplane[:, 1].argmax()]
    assert highest[2] < -0.3  # the fin is high, and at the back
    assert airplane[:, 0].max() > 0.45  # the wings span as much as the fuselage is long
    chair = load("chair").vertices
    assert chair[chair[:, 1].argmax()][2] < -0.1  # the back is behind
    mug = load("mug").vertices
    assert np.abs(mug[mug[:, 0] > 0.3][:, 2]).max() < 0.1  # nothing but the handle there
    teapot = load("teapot").vertices
    spout, handle = teapot[teapot[:, 0].argmax()], teapot[teapot[:, 0].argmin()]
    assert spout[1] > handle[1]


@pytest.mark.parametrize("name", ["mug", "teapot"])
def test_pots_are_made_again(name):
    from make_assets import closed_genus, make

    vertices, faces = make(name)
    mesh = load(name)
    np.testing.assert_array_equal(faces, mesh.faces)
    np.testing.assert_allclose(vertices, mesh.vertices, rtol=0, atol=WRITTEN)
    assert closed_genus(faces) == 1


@pytest.mark.slow
def test_chair_is_made_again():
    """The decimation's order may turn on the last bit of another processor: compare the surfaces, not the triangles."""
    from make_assets import make

    vertices, faces = make("chair")
    again, mesh = trimesh.Trimesh(vertices, faces, process=False), load("chair")
    assert again.volume == pytest.approx(mesh.volume, rel=1e-3)
    assert again.area == pytest.approx(mesh.area, rel=1e-3)
    np.testing.assert_allclose(again.bounds, mesh.bounds, atol=1e-3)


def test_written_files_are_read_back(tmp_path):
    from make_assets import make, write

    vertices, faces = make("mug")
    write(tmp_path / "mug.obj", vertices, faces)
    mesh = trimesh.load(tmp_path / "mug.obj", process=False, force="mesh")
    np.testing.assert_array_equal(mesh.faces, faces)
    np.testing.assert_allclose(mesh.vertices, vertices, rtol=0, atol=WRITTEN)


# --- the tools -------------------------------------------------------------------------------------------------------


def torus(p):
    return np.hypot(np.hypot(p[:, 0], p[:, 1]) - 0.6, p[:, 2]) - 0.2


def test_surface_nets_and_decimation_of_a_torus():
    import isosurface

    vertices, faces = isosurface.extract(torus, [-0.9] * 3, [0.9] * 3, [0.05] * 3)
    assert np.abs(torus(vertices)).max() < 1e-9
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 0
    assert mesh.volume == pytest.approx(2 * np.pi**2 * 0.6 * 0.2**2, rel=0.02)
    relaxed = isosurface.relax(torus, vertices, faces, 3)
    assert np.abs(torus(relaxed)).max() < 1e-3
    points, triangles = isosurface.decimate(relaxed, faces, 800)
    coarse = trimesh.Trimesh(points, triangles, process=False)
    assert len(triangles) == 800
    assert coarse.is_watertight
    assert coarse.is_winding_consistent
    assert coarse.euler_number == 0
    assert np.abs(torus(points)).max() < 0.01
    assert coarse.volume == pytest.approx(mesh.volume, rel=0.02)


def test_sheets_that_come_near_each_other_stay_apart():
    """Two balls in diagonal corners of the same cells, where plain surface nets make edges with four faces."""
    import isosurface

    def balls(p):
        centres = np.array([[-0.5, -0.5, 0], [0.5, 0.5, 0]])
        return np.min([np.linalg.norm(p - c, axis=1) - 0.68 for c in centres], axis=0)

    vertices, faces = isosurface.extract(balls, [-2.5] * 3, [2.5] * 3, [1.0] * 3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    assert mesh.is_watertight
    assert mesh.body_count == 2
    assert mesh.euler_number == 4


def test_patches_follow_circles_and_are_exact_at_their_corners():
    import bezier

    profile = np.array([[(1.0, 0.0), (1.2, 0.3), (0.8, 0.6), (0.9, 1.0)]])
    patches = bezier.revolve(profile)
    angle = np.linspace(0, 2 * np.pi, 50)
    points = bezier.evaluate(patches, np.zeros(50), angle)
    np.testing.assert_allclose(np.hypot(points[:, 0], points[:, 2]), 1, atol=3e-4)  # cubics miss a circle by 2.7e-4
    np.testing.assert_allclose(points[:, 0], np.cos(angle), atol=4e-4)
    np.testing.assert_allclose(points[:, 2], np.sin(angle), atol=4e-4)
    np.testing.assert_allclose(bezier.evaluate(patches, np.array(1.0), np.array(0.0)), [0.9, 1, 0], atol=1e-12)
    middle = profile[0].T @ np.array([1, 3, 3, 1]) / 8
    np.testing.assert_allclose(bezier.evaluate(patches, np.array(0.5), np.array(0.0)), [*middle, 0], atol=1e-12)


def test_scripts_refuse_what_is_no_closed_surface():
    import bezier
    import pots
    from make_assets import closed_genus

    with pytest.raises(RuntimeError, match="not closed and consistently oriented"):
        closed_genus(np.array([[0, 1, 2]]))
    tetrahedron = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    assert closed_genus(tetrahedron) == 0
    with pytest.raises(RuntimeError, match="not connected"):
        closed_genus(np.concatenate([tetrahedron, tetrahedron + 4]))
    body = bezier.Builder(pots.MUG, rows=[3, 3, 7, 4, 14, 3, 1, 3], columns=36)
    centre = np.array(
        [[(0.22, 0.2), (0.4, 0.2), (0.6, 0.2), (0.6, 0.0)], [(0.6, 0.0), (0.6, -0.2), (0.4, -0.2), (0.2, -0.2)]]
    )
    with pytest.raises(RuntimeError, match="The hole must surround the joint"):
        body.handle(centre, np.full((2, 4), 0.2), np.full((2, 4), 0.2), ((17, 20, 0, 2), (26, 29, 0, 2)), (4, 5), 8)
