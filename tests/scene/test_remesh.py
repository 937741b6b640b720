# SPDX-License-Identifier: Apache-2.0
"""Remeshed surfaces: even triangles, the same shape and topology, and everything that they carry."""

import math

import pytest
import torch

import geodiff as gd
from geodiff.scene.remesh import RemeshResult, remesh, sizing

ONE = gd.icosphere(1)


def angles(mesh: gd.Mesh) -> torch.Tensor:
    """The angles (F, 3) of all triangles, in degrees."""
    corners = mesh.vertices.double()[mesh.faces]
    u, v = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
    return torch.rad2deg(torch.atan2(torch.linalg.cross(u, v).norm(dim=-1), (u * v).sum(-1)))


def lengths(mesh: gd.Mesh) -> torch.Tensor:
    ends = mesh.vertices[mesh.edges]
    return (ends[:, 1] - ends[:, 0]).norm(dim=-1)


def crumpled(level: int = 3, noise: float = 0.04) -> gd.Mesh:
    ball = gd.icosphere(level)
    return ball.with_vertices(
        ball.vertices + noise * torch.randn(ball.vertices.shape, generator=torch.Generator().manual_seed(0))
    )


def stretched() -> gd.Mesh:
    """A plane whose triangles are long and thin, over a wave."""
    u, v = torch.meshgrid(torch.linspace(0, 1, 81), torch.linspace(0, 1, 6), indexing="ij")
    cell = (torch.arange(80)[:, None] * 6 + torch.arange(5)).reshape(-1)
    faces = torch.cat([torch.stack([cell, cell + 6, cell + 7], -1), torch.stack([cell, cell + 7, cell + 1], -1)])
    return gd.Mesh(torch.stack([u, v, 0.1 * torch.sin(5 * u)], -1).reshape(-1, 3), faces)


CASES = {
    "coarser": (gd.icosphere(4), 0.15),
    "finer": (gd.icosphere(2), 0.07),
    "torus": (gd.torus(1.0, 0.3, 80, 32), None),
    "open": (stretched(), 0.05),
    "box": (gd.box(), 0.12),
    "cylinder": (gd.cylinder(), 0.2),
    "crumpled": (crumpled(), 0.12),
}


@pytest.mark.parametrize("name", CASES)
def test_even_triangles_on_the_same_surface(name: str) -> None:
    mesh, wanted = CASES[name]
    wanted = wanted or float(lengths(mesh).mean())
    result = remesh(mesh, wanted)
    new = result.mesh
    least = angles(new).amin(-1)
    assert float((least >= 10).double().mean()) >= 0.99
    assert float(least.mean()) > 44
    assert 0.8 * wanted < float(lengths(new).mean()) < 1.1 * wanted
    if name != "crumpled":  # where faces that meet are not split
        assert float(lengths(new).max()) < 1.6 * wanted
    # Topology, borders and orientation.
    assert new.euler_characteristic == mesh.euler_characteristic and new.is_closed == mesh.is_closed
    assert new.topology.is_edge_manifold and bool((new.vertex_degree > 0).all())
    assert len(result.irregular) == 0
    assert len(new.self_intersections()) <= len(mesh.self_intersections())
    # On the surface, to float32's rounding, and where it says; but for middles of edges where faces would turn over.
    off = 0.01 if name == "crumpled" else 1e-6
    assert float(gd.point_mesh_distance(new.vertices, mesh).max()) < off
    assert torch.allclose(result.carry(mesh.vertices), new.vertices, atol=off)
    assert bool((result.source_barycentrics >= 0).all())
    assert torch.allclose(result.source_barycentrics.sum(-1), torch.ones(new.num_vertices, dtype=torch.float64))
    around = mesh.face_normals[result.source_faces]
    if name not in ("box", "cylinder", "crumpled"):  # which have corners
        assert float((around * new.vertex_normals).sum(-1).min()) > 0.7


def test_the_old_surface_lies_near_the_new_one() -> None:
    """Within the sagitta of the longest edges, of both meshes: L²/8R, and a triangle's middle somewhat farther."""
    mesh, new = gd.icosphere(4), gd.icosphere(4).remeshed(0.15)
    assert float(gd.point_mesh_distance(mesh.vertices, new).max()) < 1.4 * float(lengths(new).max()) ** 2 / 8 + 1e-3


def test_volume_and_borders_stay() -> None:
    box = gd.box((1.0, 0.6, 0.4)).remeshed(0.1)
    assert torch.equal(box.bounds, gd.box((1.0, 0.6, 0.4)).bounds)
    assert float(box.face_areas.sum()) == pytest.approx(2 * (0.6 + 0.4 + 0.24), abs=1e-5)  # creases and corners kept
    smooth = gd.box((1.0, 0.6, 0.4)).remeshed(0.1, feature_angle_deg=None)
    assert float(smooth.face_areas.sum()) < float(box.face_areas.sum()) - 1e-3
    flat = gd.plane().subdivided(2).remeshed(0.11)
    assert float(flat.face_areas.sum()) == pytest.approx(float(gd.plane().face_areas.sum()), abs=1e-5)


def test_a_clean_mesh_of_the_wanted_length_stays() -> None:
    ball = gd.icosphere(3)
    result = remesh(ball)
    assert (result.splits, result.collapses, result.flips) == (0, 0, 0)
    assert torch.equal(result.mesh.faces, ball.faces)
    same = remesh(crumpled(2), iterations=0, feature_angle_deg=180.0)
    assert same.mesh.num_faces <= crumpled(2).num_faces


def test_lengths_that_vary() -> None:
    ball = gd.icosphere(4)
    wanted = 0.06 + 0.12 * (ball.vertices[:, 0] + 1) / 2
    new = ball.remeshed(wanted)
    edges = new.vertices[new.edges]
    want = 0.06 + 0.12 * (edges.mean(1)[:, 0] + 1) / 2
    share = lengths(new) / want
    assert 0.85 < float(share.mean()) < 1.1 and float(share.max()) < 1.6
    assert float(angles(new).min()) > 20


def test_sizing_follows_curvature() -> None:
    """On spheres L = √(6ε/κ − 3ε²); on a torus the outside, of less curvature along it, is no finer than the inside."""
    for radius in (0.5, 2.0):
        ball = gd.icosphere(4, radius)
        found = sizing(ball, 0.003, shortest=1e-3, longest=10.0)
        want = math.sqrt(6 * 0.003 * radius - 3 * 0.003**2)
        assert torch.allclose(found, torch.tensor(want), rtol=0.05)  # normals at vertices are off by that much
    torus = gd.torus(1.0, 0.3, 120, 48)
    new = torus.remeshed(sizing(torus, 0.004))
    assert float(gd.point_mesh_distance(new.sample(2000, seed=0).points, torus).max()) < 3 * 0.004
    flat = gd.plane().subdivided(3)
    assert torch.allclose(sizing(flat, 0.01, longest=0.7), torch.tensor(0.7))
    # Lengths grow along an edge by half of its length at most.
    box = gd.box().subdivided(4)
    found = sizing(box, 0.001, longest=5.0)
    a, b = box.edges.unbind(-1)
    assert bool(((found[a] - found[b]).abs() <= 0.5 * lengths(box) + 1e-6).all())
    assert float(found.max()) > 2 * float(found.min())


def test_no_new_self_intersections_between_close_sheets() -> None:
    """Two spheres a hundredth of an edge apart; without the guard coarse ones go through each other."""
    ball = gd.icosphere(3)
    points = torch.cat([ball.vertices, 0.985 * ball.vertices])
    both = gd.Mesh(points, torch.cat([ball.faces, ball.faces.flip(-1) + ball.num_vertices]))
    assert len(both.self_intersections()) == 0
    guarded, free = both.remeshed(0.3), both.remeshed(0.3, allow_intersections=True)
    assert len(guarded.self_intersections()) == 0 < len(free.self_intersections())
    assert guarded.num_faces < 0.6 * both.num_faces


def test_self_intersections_that_were_there_do_not_multiply() -> None:
    mesh = crumpled(3, 0.09)
    before = len(mesh.self_intersections())
    for feature in (60.0, None):
        assert 0 < before and len(mesh.remeshed(feature_angle_deg=feature).self_intersections()) <= before


# --- input that is no surface everywhere ------------------------------------------------------------------------------


def test_edges_of_three_faces_and_pinched_vertices_stay() -> None:
    fan = gd.Mesh(
        torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 1, 0], [-1, -1, 0]]),
        torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]]),
    )
    result = remesh(fan, 0.2)
    assert result.irregular.tolist() == [0, 1]
    assert torch.equal(result.mesh.vertices[:2], fan.vertices[:2])
    counts = result.mesh.topology.edge_face_count
    assert result.mesh.edges[counts == 3].tolist() == [[0, 1]]
    assert result.mesh.num_faces > 50
    cones = torch.tensor([[0.0, 0, 0], [1, 0, 1], [0, 1, 1], [-1, -1, 1], [1, 0, -1], [0, 1, -1], [-1, -1, -1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [0, 5, 4], [0, 6, 5], [0, 4, 6]])
    pinched = remesh(gd.Mesh(cones, faces), 0.3)
    assert pinched.irregular.tolist() == [0] and torch.equal(pinched.mesh.vertices[0], cones[0])


def test_faces_wound_apart_are_left_alone() -> None:
    square = gd.Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), torch.tensor([[0, 1, 2], [0, 3, 2]]))
    assert remesh(square, 0.2).irregular.tolist() == [0, 2]


def test_bad_faces_and_loose_vertices_go() -> None:
    ball = gd.icosphere(2)
    points = torch.cat([ball.vertices, torch.tensor([[9.0, 9, 9]])])
    faces = torch.cat([ball.faces, torch.tensor([[0, 0, 1], [5, 5, 5]]), ball.faces[3:4].roll(1, -1)])
    result = remesh(gd.Mesh(points, faces), 0.3)
    assert result.mesh.is_closed and result.mesh.euler_characteristic == 2
    assert float(result.mesh.vertices.abs().max()) <= 1.0
    assert bool((result.source_faces < ball.num_faces).all())
    assert len(result.carry(torch.arange(163.0))) == result.mesh.num_vertices


def test_faces_without_area_are_mended() -> None:
    """Three vertices in a line, as T-junctions are often closed with."""
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0], [1, 1, 0], [1, -1, 0]])
    mesh = gd.Mesh(points, torch.tensor([[0, 1, 3], [1, 2, 3], [0, 2, 1], [0, 4, 2]]))
    new = mesh.remeshed(0.3)
    assert float(angles(new).min()) > 5 and float(new.face_areas.sum()) == pytest.approx(2.0, abs=1e-5)


def test_nothing_makes_nothing() -> None:
    for mesh in (gd.Mesh(torch.zeros(0, 3), []), gd.Mesh(torch.ones(3, 3), []), gd.Mesh(torch.eye(3), [[0, 0, 1]])):
        new = mesh.remeshed(0.5)
        assert new.num_faces == 0 and new.num_vertices == 0
    points = gd.Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]])).remeshed()
    assert bool(torch.isfinite(points.vertices).all())


def test_unwelded_seams_stay_where_they_are() -> None:
    ball = gd.icosphere(2)
    half = ball.vertices[ball.faces].mean(1)[:, 0] > 0
    points = torch.cat([ball.vertices, ball.vertices])
    parted = gd.Mesh(points, torch.where(half[:, None], ball.faces, ball.faces + ball.num_vertices))
    new = parted.remeshed(0.1)
    assert new.welded().is_closed and len(new.self_intersections()) == 0


# --- what it carries --------------------------------------------------------------------------------------------------


def test_attributes_are_carried_over() -> None:
    ball = gd.icosphere(3)
    texture = torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0))
    mesh = ball.with_attributes(
        vertex_colors=0.5 * ball.vertices + 0.5,
        face_colors=(ball.vertices[ball.faces].mean(1)[:, :1] > 0).float(),
        uv=ball.vertices[:, :2],
        texture=texture,
        material=gd.Material(),
    )
    new = mesh.remeshed(0.2)
    assert new.vertex_colors is not None and new.uv is not None and new.face_colors is not None
    assert torch.allclose(new.vertex_colors, 0.5 * new.vertices + 0.5, atol=1e-6)
    assert torch.allclose(new.uv, new.vertices[:, :2], atol=1e-6)
    side = new.vertices[new.faces].mean(1)[:, 0]
    clear = side.abs() > 0.1
    assert torch.equal(new.face_colors[clear, 0], (side[clear] > 0).float())
    assert new.texture is mesh.texture and new.material is mesh.material


def test_carry_interpolates() -> None:
    mesh = gd.torus(1.0, 0.4)
    result = remesh(mesh, 0.1)
    n = mesh.num_vertices
    assert torch.allclose(result.carry(torch.ones(n)), torch.ones(result.mesh.num_vertices))
    moments = torch.randn(n, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corners = moments[mesh.faces[result.source_faces]]
    want = torch.einsum("vk,vkij->vij", result.source_barycentrics, corners)
    assert torch.allclose(result.carry(moments), want)
    assert result.carry(torch.rand(n, 1) ** 2).min() >= 0  # a second moment stays one
    assert "source_faces=" in repr(result) and isinstance(result, RemeshResult)


def test_gradients_flow_to_old_vertices() -> None:
    ball = gd.icosphere(2)
    x = ball.vertices.clone().requires_grad_()
    colors = torch.rand(162, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    mesh = gd.Mesh(x, ball.faces, vertex_colors=colors)
    new = mesh.remeshed(0.2)
    assert torch.equal(new.vertices.detach(), mesh.detach().remeshed(0.2).vertices)
    assert new.vertex_colors is not None
    (new.vertices.sum() + new.vertex_colors.sum()).backward()
    assert x.grad is not None and colors.grad is not None
    assert float(x.grad[:, 0].sum()) == pytest.approx(new.num_vertices, rel=1e-5)  # weights add up to one each
    assert torch.allclose(x.grad, colors.grad)


# --- the same every time ----------------------------------------------------------------------------------------------


def test_the_same_bits_on_any_number_of_threads() -> None:
    threads, mesh = torch.get_num_threads(), crumpled()
    try:
        made = []
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            made.append(remesh(mesh, 0.09))
    finally:
        torch.set_num_threads(threads)
    for other in made[1:]:
        assert torch.equal(other.mesh.vertices, made[0].mesh.vertices)
        assert torch.equal(other.mesh.faces, made[0].mesh.faces)
        assert torch.equal(other.source_barycentrics, made[0].source_barycentrics)


def test_units_and_places_do_not_matter() -> None:
    mesh = crumpled()
    small = mesh.remeshed(0.1)
    for size in (2.0**-40, 2.0**40):
        scaled = mesh.scaled(size).remeshed(0.1 * size)
        assert torch.equal(scaled.faces, small.faces)
        assert torch.equal(scaled.vertices / size, small.vertices)
    far = gd.Mesh(mesh.vertices.double() + 1e5, mesh.faces).remeshed(0.1)
    assert far.euler_characteristic == 2 and float((angles(far).amin(-1) > 10).double().mean()) > 0.99


def test_float64_and_results_within_floats() -> None:
    mesh = gd.icosphere(3).to(torch.float64)
    assert mesh.remeshed(0.1).dtype == torch.float64
    coarse = gd.Mesh(ONE.vertices * 1e-3 + 1000.0, ONE.faces)  # where floats are 6e-5 apart
    assert bool(torch.isfinite(coarse.remeshed(1e-5).vertices).all())


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"edge_length": -1.0}, ValueError, r"Mesh.remeshed: `edge_length` must be positive and finite; got -1.0"),
        ({"edge_length": torch.ones(3)}, ValueError, r"`edge_length` must be of shape \(42,\)"),
        ({"edge_length": torch.zeros(42)}, ValueError, "`edge_length` must be positive; got 0"),
        ({"edge_length": "fine"}, TypeError, "`edge_length` must be a tensor or an array of numbers"),
        ({"edge_length": 1e-6}, ValueError, "long enough for at most 20000000 faces; got lengths from 1e-06"),
        ({"iterations": -1}, ValueError, "`iterations` must be an integer ≥ 0"),
        ({"iterations": 1.5}, TypeError, "`iterations` must be an integer ≥ 0"),
        ({"feature_angle_deg": 0}, ValueError, "`feature_angle_deg` must be positive and finite"),
        ({"feature_angle_deg": 181}, ValueError, "`feature_angle_deg` must be at most 180"),
    ],
)
def test_bad_arguments(options: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        ONE.remeshed(**options)


def test_bad_meshes_and_values() -> None:
    with pytest.raises(ValueError, match=r"`mesh` must be one mesh of vertices \(V, 3\); got float32 of shape \(2,"):
        gd.Mesh(torch.rand(2, 3, 3), torch.tensor([[0, 1, 2]])).remeshed()
    corners = gd.Mesh(torch.eye(3), torch.tensor([[0, 1, 2]]), uv=torch.rand(4, 2), uv_faces=torch.tensor([[3, 1, 0]]))
    with pytest.raises(ValueError, match="`mesh` must be without texture coordinates of corners"):
        corners.remeshed()
    result = remesh(ONE)
    with pytest.raises(ValueError, match=r"RemeshResult.carry: `values` must be of shape \(42, …\)"):
        result.carry(torch.zeros(41))
    with pytest.raises(TypeError, match="`values` must be a floating tensor"):
        result.carry(torch.zeros(42, dtype=torch.int64))
    with pytest.raises(ValueError, match="sizing: `error` must be positive"):
        sizing(ONE, 0.0)
    with pytest.raises(ValueError, match=r"`longest` must be at least `shortest`, 0\.5; got 0\.1"):
        sizing(ONE, 0.1, shortest=0.5, longest=0.1)
