# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.scene.topology import Topology


def shapes() -> list[gd.Mesh]:
    return [gd.icosphere(1), gd.box(), gd.torus(nu=8, nv=5), gd.cylinder(segments=7, caps=False), gd.plane(1.0, 3)]


@pytest.mark.parametrize("mesh", shapes(), ids=["icosphere", "box", "torus", "tube", "plane"])
def test_matches_trimesh(mesh: gd.Mesh) -> None:
    peer = mesh.to_trimesh()
    assert np.array_equal(mesh.edges, np.unique(peer.edges_unique, axis=0))
    pairs = set(map(tuple, np.sort(peer.face_adjacency, axis=1).tolist()))
    assert set(map(tuple, mesh.face_pairs.tolist())) == pairs
    assert mesh.is_closed == peer.is_watertight
    assert mesh.euler_characteristic == peer.euler_number
    assert np.array_equal(mesh.vertex_degree, [len(set(n)) for n in peer.vertex_neighbors])
    once = trimesh.grouping.group_rows(peer.edges_sorted, require_count=1)
    boundary = np.unique(peer.edges_sorted[once], axis=0) if len(once) else np.zeros((0, 2))
    assert np.array_equal(mesh.boundary_edges, boundary)


@pytest.mark.shared_data
def test_real_meshes_match_trimesh(shared_data: pathlib.Path) -> None:
    for name in ("teapot.obj", "rocker-arm.obj"):
        mesh = gd.Mesh.load(shared_data / name)
        peer = mesh.to_trimesh()
        assert np.array_equal(mesh.edges, np.unique(peer.edges_unique, axis=0))
        assert mesh.is_closed == peer.is_watertight
        assert mesh.euler_characteristic == peer.euler_number


def naive(faces: list[list[int]]) -> dict[tuple[int, int], list[int]]:
    """Faces at each edge, one face after another."""
    at: dict[tuple[int, int], list[int]] = {}
    for i, (a, b, c) in enumerate(faces):
        if len({a, b, c}) == 3:
            for edge in ((a, b), (b, c), (c, a)):
                at.setdefault((min(edge), max(edge)), []).append(i)
    return dict(sorted(at.items()))


@given(st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), max_size=25))
def test_any_faces_match_the_naive_loop(faces: list[list[int]]) -> None:
    """Non-manifold edges, repeated faces, faces that name a vertex twice, isolated vertices, no faces at all."""
    topology = Topology(torch.tensor(faces, dtype=torch.int64).reshape(-1, 3), 7)
    at = naive(faces)
    assert topology.edges.tolist() == [list(edge) for edge in at]
    assert topology.edge_face_count.tolist() == [len(found) for found in at.values()]
    assert topology.edge_faces.tolist() == [[*found, -1][:2] for found in at.values()]
    pairs = [
        (e, found[i], found[j])
        for e, found in enumerate(at.values())
        for i in range(len(found))
        for j in range(i + 1, len(found))
    ]
    mine = zip(topology.face_pair_edges.tolist(), *topology.face_pairs.T.tolist(), strict=True)
    assert sorted(mine) == sorted(pairs)
    assert topology.boundary_edges.tolist() == [list(edge) for edge, found in at.items() if len(found) == 1]
    assert topology.is_closed == (len(at) > 0 and all(len(found) > 1 for found in at.values()))
    assert topology.is_edge_manifold == all(len(found) < 3 for found in at.values())


def test_three_faces_at_one_edge_give_three_pairs() -> None:
    fan = Topology(torch.tensor([[0, 1, 2], [1, 0, 3], [0, 1, 4]]), 5)
    assert fan.edge_faces[0].tolist() == [0, 1]
    assert fan.face_pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert fan.face_pair_edges.tolist() == [0, 0, 0]
    assert not fan.is_edge_manifold


def test_collapsed_face_does_not_open_a_closed_mesh() -> None:
    """Collapsing an edge leaves two faces that name a vertex twice; the rest is still a closed sphere."""
    ball = gd.icosphere(1)
    a, b = ball.edges[0].tolist()
    faces = torch.where(ball.faces == b, a, ball.faces)
    collapsed = Topology(faces, ball.num_vertices)
    assert collapsed.is_closed
    assert collapsed.euler_characteristic == 2


def test_int32_faces_are_accepted_and_cached() -> None:
    topology = Topology(torch.tensor([[0, 1, 2]], dtype=torch.int32), 3)
    assert topology.faces.dtype == torch.int64
    assert topology.faces_int32.dtype == torch.int32
    assert topology.faces_int32.is_contiguous()
    assert topology.faces_int32 is topology.faces_int32
    assert repr(topology) == "Topology(faces=1, vertices=3, device=cpu)"


def test_move_keeps_what_was_computed() -> None:
    topology = gd.icosphere(1).topology
    edges, pairs = topology.edges, topology.face_pairs
    assert topology.to("cpu") is topology
    moved = topology.to("meta")
    assert moved.edges.shape == edges.shape
    assert moved.edges.device.type == "meta"
    assert moved.face_pairs.shape == pairs.shape


@pytest.mark.parametrize(
    ("faces", "error", "message"),
    [
        (torch.tensor([[0.0, 1.0, 2.0]]), TypeError, r"Mesh: `faces` must be an integer tensor of shape \(F, 3\)"),
        (torch.tensor([[True, False, True]]), TypeError, "Convert it with .long"),
        (torch.tensor([[0, 1, 2, 3]]), ValueError, r"Triangulate quads with Mesh.triangulated\(\)"),
        (torch.tensor([[0.0, 1, 2, 3]]), ValueError, r"Triangulate quads with Mesh.triangulated\(\)"),
        (torch.tensor([0, 1, 2]), ValueError, r"of shape \(F, 3\); got int64 of shape \(3,\)"),
        (torch.tensor([[0, 1, 2], [0, 1, 3]]), ValueError, r"indices in \[0, 3\).*got \[0, 1, 3\] in face 1. Drop"),
        (torch.tensor([[0, -1, 2]]), ValueError, r"got \[0, -1, 2\] in face 0"),
        (torch.tensor([[1, 2, 3]]), ValueError, "OBJ files count from 1: subtract 1"),
    ],
)
def test_bad_faces(faces: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Topology(faces, 3)
