# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

import geodiff as gd
from geodiff import Mesh, MeshBatch
from geodiff.scene.sampling import sample_surface

ROUNDING = 1e-12  # float64, coordinates of order one


def soup(count, seed=0, needles=False):
    """Triangles anywhere; a tenth needles, a tenth without area."""
    rng = np.random.default_rng(seed)
    corners = rng.normal(size=(count, 3, 3)) * rng.uniform(0.01, 1, (count, 1, 1))
    if needles:
        corners[::10, 2] = (
            0.3 * corners[::10, 0] + 0.7 * corners[::10, 1] + 1e-7 * rng.normal(size=(-(-count // 10), 3))
        )
        corners[1::10, 2] = 0.3 * corners[1::10, 0] + 0.7 * corners[1::10, 1]
        corners[2::10, 1:] = corners[2::10, :1]
    return Mesh(corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3))


def by_brute_force(points, mesh):
    """Distances of all points to all triangles in extended precision: to the sides, and to the plane from above."""
    x = points.numpy().astype(np.longdouble)[:, None]
    corners = mesh.vertices.numpy().astype(np.longdouble)[mesh.faces.numpy()]
    least = np.full((len(x), len(corners)), np.inf, dtype=np.longdouble)
    for i in range(3):
        a, way = corners[:, i], corners[:, (i + 1) % 3] - corners[:, i]
        length = (way**2).sum(-1)
        t = np.clip(((x - a) * way).sum(-1) / np.where(length > 0, length, 1), 0, 1)
        least = np.minimum(least, np.sqrt(((a + t[..., None] * way - x) ** 2).sum(-1)))
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    size = np.sqrt((normal**2).sum(-1))
    sound = size > 0
    normal[sound] /= size[sound, None]
    height = ((x - corners[:, 0]) * normal).sum(-1)
    foot = x - height[..., None] * normal
    above = np.broadcast_to(sound, height.shape).copy()
    for i in range(3):
        a, way = corners[:, i], corners[:, (i + 1) % 3] - corners[:, i]
        above &= (np.cross(way, foot - a) * normal).sum(-1) >= 0
    return np.where(above, np.abs(height), least).min(1).astype(np.float64)


# --- the nearest point ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("needles", [False, True])
def test_distances_of_a_soup_against_brute_force(needles):
    mesh = soup(150, needles=needles)
    points = 2 * torch.randn(400, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = mesh.closest_point(points)
    np.testing.assert_allclose(found.distance.numpy(), by_brute_force(points, mesh), rtol=1e-9, atol=1e-9)
    # What is returned goes together.
    corners = mesh.vertices[mesh.faces[found.face]]
    assert (found.barycentric >= 0).all()
    torch.testing.assert_close(found.barycentric.sum(-1), torch.ones(400, dtype=torch.float64))
    torch.testing.assert_close((found.barycentric[..., None] * corners).sum(-2), found.point, atol=ROUNDING, rtol=0)
    torch.testing.assert_close((found.point - points).norm(dim=-1), found.distance, atol=ROUNDING, rtol=0)


def test_against_trimesh():
    mesh = gd.icosphere(3, dtype=torch.float64).scaled([1.0, 0.6, 0.3])
    points = torch.randn(300, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    corners = mesh.vertices[mesh.faces].numpy()
    found = mesh.closest_point(points)
    there = trimesh.triangles.closest_point(corners[found.face.numpy()], points.numpy())
    np.testing.assert_allclose(found.point.numpy(), there, atol=1e-12)
    every = [
        np.linalg.norm(trimesh.triangles.closest_point(corners, np.tile(x, (len(corners), 1))) - x, axis=1).min()
        for x in points[:60].numpy()
    ]
    np.testing.assert_allclose(found.distance[:60].numpy(), every, atol=1e-12)


def test_where_face_edge_and_vertex_are_nearest():
    points = torch.tensor([[0.0, 0, 3], [2, 2, 0], [2, 2, 2], [0.5, 0, 0.25]], dtype=torch.float64)
    found = gd.box(2.0, dtype=torch.float64).closest_point(points)
    expected = [[0.0, 0, 1], [1, 1, 0], [1, 1, 1], [1, 0, 0.25]]
    torch.testing.assert_close(found.point, torch.tensor(expected, dtype=torch.float64), atol=ROUNDING, rtol=0)
    torch.testing.assert_close(
        found.distance, torch.tensor([2, math.sqrt(2), math.sqrt(3), 0.5], dtype=torch.float64), atol=ROUNDING, rtol=0
    )


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("away", [0.0, 5.8e6])
def test_far_from_the_origin_and_at_any_scale(scale, away):
    """As at the origin, but for the rounding of the coordinates themselves."""
    mesh = gd.torus(2.0, 0.5, dtype=torch.float64)
    points = torch.randn(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    offset = torch.tensor([away, -away, 0.5 * away], dtype=torch.float64)
    vertices, moved = (mesh.vertices + offset) * scale, (points + offset) * scale
    there = mesh.with_vertices(vertices).closest_point(moved)
    exact = mesh.with_vertices(vertices / scale - offset).closest_point(moved / scale - offset)
    slack = 1e-12 + 4e-16 * away
    torch.testing.assert_close(there.distance / scale, exact.distance, atol=slack, rtol=0)
    torch.testing.assert_close(there.point / scale - offset, exact.point, atol=1e-12 + 20 * slack, rtol=0)


def test_float32_is_computed_in_double():
    mesh, points = gd.torus(2.0, 0.5), torch.randn(200, 3)
    mesh, points = mesh.translated((1e4, 0, 0)), points + torch.tensor([1e4, 0, 0])
    single, double = mesh.closest_point(points), mesh.to(torch.float64).closest_point(points.double())
    assert single.distance.dtype == torch.float32
    torch.testing.assert_close(single.distance, double.distance.float(), rtol=0, atol=0)
    assert mesh.closest_point(points.double()).distance.dtype == torch.float64


def test_batches_of_points_and_meshes():
    mesh = gd.icosphere(1, dtype=torch.float64)
    points = torch.randn(2, 1, 7, 3, dtype=torch.float64)
    batch = mesh.scaled(torch.tensor([[0.5], [1.0], [2.0]]))
    found = batch.closest_point(points)
    assert found.point.shape == (2, 3, 7, 3) and found.face.shape == found.distance.shape == (2, 3, 7)
    for i in range(2):
        for j in range(3):
            alone = batch[j].closest_point(points[i, 0])
            for one, other in zip(found, alone, strict=True):
                torch.testing.assert_close(one[i, j], other, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(gd.point_mesh_distance(points, mesh), mesh.closest_point(points).distance)
    different = MeshBatch([gd.icosphere(0, dtype=torch.float64), gd.box(dtype=torch.float64)])
    both = gd.point_mesh_distance(points[0, 0], different)
    torch.testing.assert_close(both, torch.stack([one.closest_point(points[0, 0]).distance for one in different]))
    assert mesh.closest_point(torch.zeros(0, 3)).point.shape == (0, 3)
    assert mesh.closest_point(torch.zeros(2, 0, 3)).distance.shape == (2, 0)


def test_same_answers_on_any_number_of_threads():
    mesh, points = soup(300), torch.randn(3000, 3, dtype=torch.float64)
    before = torch.get_num_threads()
    try:
        answers = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            answers.append(mesh.closest_point(points))
    finally:
        torch.set_num_threads(before)
    for answer in answers[1:]:
        assert all(torch.equal(one, other) for one, other in zip(answer, answers[0], strict=True))


@given(seed=st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_gradients_by_finite_differences(seed):
    mesh = soup(4, seed)
    x = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    v = mesh.vertices.clone().requires_grad_()

    def quantities(x, v):
        found = mesh.with_vertices(v).closest_point(x)
        return found.point, found.distance, found.barycentric

    found = mesh.closest_point(x)
    near_a_border = (found.barycentric.detach().abs() < 1e-4) & (found.barycentric.detach() != 0)
    if not bool(near_a_border.any()) and bool((found.distance > 1e-2).all()):
        assert torch.autograd.gradcheck(quantities, (x, v), atol=1e-5)
        assert torch.autograd.gradgradcheck(lambda *a: quantities(*a)[1], (x, v), atol=1e-4)


def test_gradient_of_a_distance_is_the_direction_shared_among_the_corners():
    mesh = gd.icosphere(2)
    x, v = torch.randn(50, 3).requires_grad_(), mesh.vertices.clone().requires_grad_()
    found = mesh.with_vertices(v).closest_point(x)
    found.distance.sum().backward()
    way = ((x - found.point) / found.distance[:, None]).detach()
    torch.testing.assert_close(x.grad, way, atol=1e-5, rtol=1e-5)
    expected = torch.zeros_like(v).index_add(
        0, mesh.faces[found.face].reshape(-1), (-found.barycentric[..., None] * way[:, None]).reshape(-1, 3).detach()
    )
    torch.testing.assert_close(v.grad, expected, atol=1e-5, rtol=1e-5)


def test_on_the_surface_and_on_faces_without_area_gradients_are_finite():
    mesh = soup(30, needles=True)
    v = mesh.vertices.clone().requires_grad_()
    x = torch.cat((mesh.vertices[:30], mesh.vertices[mesh.faces].mean(1))).requires_grad_()
    for squared in (False, True):
        distance = gd.point_mesh_distance(x, mesh.with_vertices(v), squared=squared)
        assert distance.max() < 1e-9
        for gradient in torch.autograd.grad(distance.sum(), (x, v)):
            assert torch.isfinite(gradient).all()


# --- inside and outside -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["box", "star", "torus"])
def test_signs_against_the_solid_angle(shape):
    """The winding number by Van Oosterom and Strackee's formula for the solid angle of a triangle."""
    mesh = {"box": gd.box(dtype=torch.float64), "torus": gd.torus(0.7, 0.25, 24, 12, dtype=torch.float64)}.get(shape)
    if mesh is None:  # spikes: sharp edges and vertices, where the nearest face alone tells the wrong side
        mesh = gd.icosphere(1, dtype=torch.float64)
        mesh = mesh.scaled(1).with_vertices(
            mesh.vertices * torch.where(torch.arange(mesh.num_vertices) % 3 == 0, 1.0, 0.25)[:, None]
        )
    points = 1.6 * torch.rand(1000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.8
    a, b, c = (mesh.vertices[mesh.faces][None, :, i] - points[:, None] for i in range(3))
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    volume = (a * torch.linalg.cross(b, c)).sum(-1)
    below = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    inside = torch.atan2(volume, below).sum(-1) / (2 * math.pi) > 0.5
    signed = gd.point_mesh_distance(points, mesh, signed=True)
    assert torch.equal(signed < 0, inside)
    assert torch.equal(signed.abs(), gd.point_mesh_distance(points, mesh))
    pair = gd.point_mesh_distance(points, mesh.scaled(torch.tensor([[1.0], [2.0]])), signed=True)
    assert torch.equal(pair[0], signed)


def test_signed_distance_grows_through_the_surface():
    x = torch.tensor([[0.0, 0.1, 0.45], [0.0, 0.1, 0.55]], requires_grad=True)
    gd.point_mesh_distance(x, gd.box(), signed=True).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.0, 0, 1], [0, 0, 1]]))


# --- samples ----------------------------------------------------------------------------------------------------------


def two_faces():
    return Mesh(torch.tensor([[0.0, 0, 0], [4, 0, 0], [0, 1, 0], [0, 0, 1]]), [[0, 1, 2], [0, 2, 3]])


def test_samples_are_uniform_in_area_and_in_random_order():
    drawn = two_faces().sample(9000, seed=1)
    assert int((drawn.face == 0).sum()) == pytest.approx(7200, abs=1)  # areas 2 and ½, stratified
    # Means of 7200 uniform places; the standard error of x is 0.943/√7200.
    first = drawn.points[drawn.face == 0]
    assert first[:, 0].mean().item() == pytest.approx(4 / 3, abs=5 * 0.943 / math.sqrt(7200))
    assert first[:, 1].mean().item() == pytest.approx(1 / 3, abs=5 * 0.236 / math.sqrt(7200))
    # Of any part of the samples, too: a binomial share of 0.8 of 1000, standard error 0.013.
    assert (drawn.face[:1000] == 0).double().mean().item() == pytest.approx(0.8, abs=5 * 0.013)
    torch.testing.assert_close(drawn.normals, two_faces().face_normals[drawn.face])
    # Uniform on a triangle: the barycentric coordinates are Dirichlet (1, 1, 1), of variance 1/18.
    torch.testing.assert_close(drawn.barycentric.var(0), torch.full((3,), 1 / 18), atol=3e-3, rtol=0)


@pytest.mark.parametrize("seed", [2.5, True, 2**64], ids=str)
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(ValueError, match=r"Mesh\.sample: `seed` must be an integer of 64 bits"):
        gd.box().sample(5, seed=seed)


def test_seeds_and_generators():
    mesh = two_faces()
    assert torch.equal(mesh.sample(50, seed=3).points, mesh.sample(50, seed=3).points)
    assert not torch.equal(mesh.sample(50, seed=3).points, mesh.sample(50, seed=4).points)
    assert not torch.equal(mesh.sample(50).points, mesh.sample(50).points)
    torch.manual_seed(5)
    first = mesh.sample(50).points
    torch.manual_seed(5)
    assert torch.equal(first, mesh.sample(50).points)
    generator = torch.Generator().manual_seed(3)
    assert torch.equal(mesh.sample(50, generator=generator).points, mesh.sample(50, seed=3).points)
    assert not torch.equal(mesh.sample(50, generator=generator).points, mesh.sample(50, seed=3).points)


def test_samples_of_a_batch_lie_on_their_own_mesh():
    mesh = gd.icosphere(2, dtype=torch.float64)
    batch = mesh.scaled(torch.tensor([[1.0, 1, 1], [1, 2, 3]])).translated(torch.tensor([[0.0, 0, 0], [1e5, 0, 0]]))
    drawn = batch.sample(400, seed=0, normals="smooth")
    assert drawn.points.shape == drawn.normals.shape == (2, 400, 3) and drawn.face.shape == (2, 400)
    for one, points in zip(batch, drawn.points, strict=True):
        assert one.closest_point(points).distance.max() < 1e-10
    # The stretched ball's faces have other shares of its area.
    assert not torch.equal(drawn.face[0], drawn.face[1])
    expected = (drawn.barycentric[0][..., None] * mesh.vertex_normals[mesh.faces[drawn.face[0]]]).sum(-2)
    torch.testing.assert_close(drawn.normals[0], torch.nn.functional.normalize(expected, dim=-1))
    packed = MeshBatch([gd.icosphere(1), gd.box()]).sample(30, seed=0)
    assert packed.points.shape == (2, 30, 3) and packed.colors is None
    assert gd.box().closest_point(packed.points[1]).distance.max() < 1e-6


def test_colors_are_the_product_of_what_the_mesh_has():
    mesh = gd.plane()
    image = torch.rand(8, 8, 3)
    colors, faces = torch.rand(mesh.num_vertices, 3), torch.rand(mesh.num_faces, 3)
    painted = mesh.with_attributes(vertex_colors=colors, face_colors=faces, texture=image)
    drawn = painted.sample(300, seed=0)
    uv = (drawn.barycentric[..., None] * painted.uv[painted.uv_faces[drawn.face]]).sum(-2)
    expected = (drawn.barycentric[..., None] * colors[mesh.faces[drawn.face]]).sum(-2)
    expected = expected * faces[drawn.face] * painted.texture.sample(uv)
    torch.testing.assert_close(drawn.colors, expected)
    grey = mesh.with_attributes(vertex_colors=torch.full((mesh.num_vertices, 1), 0.5), texture=torch.ones(2, 2, 4))
    torch.testing.assert_close(grey.sample(9).colors, torch.full((9, 3), 0.5))
    both = Mesh(mesh.vertices.expand(2, -1, -1), mesh.faces, uv=mesh.uv, texture=torch.rand(2, 4, 4, 3))
    drawn = both.sample(50, seed=0)
    uv = (drawn.barycentric[1][..., None] * mesh.uv[mesh.faces[drawn.face[1]]]).sum(-2)
    torch.testing.assert_close(drawn.colors[1], both[1].texture.sample(uv))


def test_a_material_s_colour_is_seen():
    red = torch.tensor([0.8, 0.1, 0.1])
    drawn = two_faces().with_attributes(material=gd.Material(diffuse=red)).sample(7)
    torch.testing.assert_close(drawn.colors, red.expand(7, 3))
    half = two_faces().with_attributes(face_colors=torch.full((2, 3), 0.5), material=gd.Material(diffuse=red))
    torch.testing.assert_close(half.sample(7).colors, 0.5 * red.expand(7, 3))


def test_samples_are_differentiable():
    mesh = Mesh(
        torch.rand(4, 3, dtype=torch.float64),
        [[0, 1, 2], [0, 2, 3]],
        vertex_colors=torch.rand(4, 3, dtype=torch.float64),
    )
    v = mesh.vertices.clone().requires_grad_()
    for normals in ("flat", "smooth"):

        def drawn(v, normals=normals):
            # The same faces and barycentric coordinates whatever the vertices, so that differences make sense.
            moved = mesh.with_vertices(v)
            return sample_surface(mesh.with_vertices(moved.vertices), 5, seed=0, normals=normals)[:2]

        before = mesh.sample(5, seed=0)
        points, directions = drawn(v)
        (by_points,) = torch.autograd.grad(points.sum(), v, retain_graph=True)
        expected = torch.zeros_like(v).index_add(
            0, mesh.faces[before.face].reshape(-1), before.barycentric.reshape(-1, 1).expand(-1, 3)
        )
        torch.testing.assert_close(by_points, expected)
        (by_normals,) = torch.autograd.grad(directions[:, 0].sum(), v)
        assert torch.isfinite(by_normals).all() and by_normals.abs().max() > 0


def test_samples_far_from_the_origin():
    """Faces of 1e-3 at 5.8e6: float64 holds the coordinates to 1e-9, so areas from differences are right to 1e-6."""
    plane = gd.plane(1e-3, dtype=torch.float64) if False else gd.box(1e-3, dtype=torch.float64)
    drawn = plane.translated((5.8e6, -5.8e6, 1.0)).sample(6000, seed=0)
    counts = torch.bincount(drawn.face, minlength=12)
    assert (counts - 500).abs().max() <= 1


def test_degenerate_faces_are_never_drawn():
    faces = [[0, 0, 1], [0, 1, 2], [1, 1, 1], [2, 2, 0]]
    drawn = Mesh(torch.eye(3), faces).sample(1000, seed=0)
    assert (drawn.face == 1).all()


# --- finer meshes -----------------------------------------------------------------------------------------------------


def test_subdivided_against_trimesh():
    mesh = gd.torus(2.0, 0.5, dtype=torch.float64)
    fine = mesh.subdivided()
    vertices, faces = trimesh.remesh.subdivide(mesh.vertices.numpy(), mesh.faces.numpy())
    ours = np.sort(np.round(fine.vertices[fine.faces].numpy().reshape(-1, 9), 9), axis=0)
    theirs = np.sort(np.round(vertices[faces].reshape(-1, 9), 9), axis=0)
    assert fine.num_vertices == len(vertices) and fine.num_faces == len(faces)
    np.testing.assert_allclose(ours.sum(0), theirs.sum(0), atol=1e-6)
    assert torch.equal(fine.vertices[: mesh.num_vertices], mesh.vertices)
    torch.testing.assert_close(fine.face_areas.reshape(-1, 4), mesh.face_areas[:, None].expand(-1, 4) / 4)
    torch.testing.assert_close(fine.face_normals.reshape(-1, 4, 3), mesh.face_normals[:, None].expand(-1, 4, 3))
    assert fine.is_closed and fine.euler_characteristic == 0
    assert mesh.subdivided(0) is mesh
    assert mesh.subdivided(2).num_faces == 16 * mesh.num_faces


def test_attributes_go_along():
    square = Mesh(torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), [[0, 1, 2], [0, 2, 3]])
    seam = torch.tensor([[0.0, 0], [0.5, 0], [0.5, 1], [0.5, 0], [1.0, 1], [0.5, 1]])
    square = square.with_attributes(
        vertex_colors=torch.rand(4, 3),
        face_colors=torch.rand(2, 3),
        uv=seam,
        uv_faces=torch.tensor([[0, 1, 2], [3, 4, 5]]),
        texture=torch.rand(4, 4, 3),
        material=gd.Material(0.3),
    )
    fine = square.subdivided(2)
    assert fine.material is square.material and fine.texture is square.texture
    # At any place of the surface, the attributes are what they were.
    drawn = fine.sample(200, seed=0)
    coarse = square.closest_point(drawn.points)
    keep = (coarse.barycentric > 1e-4).all(-1)
    assert int(keep.sum()) > 150

    def at(mesh, values, faces, where):
        return (where.barycentric[..., None] * values[faces[where.face]]).sum(-2)[keep]

    for name in ("vertex_colors", "uv"):
        old_faces, new_faces = (mesh.faces if name == "vertex_colors" else mesh.uv_faces for mesh in (square, fine))
        old = at(square, getattr(square, name), old_faces, coarse)
        torch.testing.assert_close(at(fine, getattr(fine, name), new_faces, drawn), old, atol=1e-5, rtol=0)
    assert torch.equal(fine.face_colors[drawn.face][keep], square.face_colors[coarse.face][keep])
    shared = gd.plane().subdivided()
    assert shared.uv_faces is shared.faces


def test_subdividing_batches_gradients_and_degenerate_faces():
    mesh = gd.icosphere(0, dtype=torch.float64)
    batch = mesh.scaled(torch.tensor([[1.0], [2.0]])).subdivided()
    torch.testing.assert_close(batch[1].vertices, 2 * mesh.subdivided().vertices)
    v = torch.eye(3, dtype=torch.float64).requires_grad_()
    fine = Mesh(v, [[0, 1, 2]]).subdivided()
    fine.vertices.sum().backward()
    torch.testing.assert_close(v.grad, torch.full((3, 3), 2.0, dtype=torch.float64))  # itself and two halves
    odd = Mesh(torch.eye(3), [[0, 0, 1], [0, 1, 2]]).subdivided()
    assert odd.num_faces == 8 and odd.face_areas.sum().item() == pytest.approx(math.sqrt(3) / 2)
    assert Mesh(torch.zeros(0, 3), []).subdivided().num_faces == 0
    huge = Mesh(torch.eye(3) * 3e38, [[0, 1, 2]]).subdivided()
    assert torch.isfinite(huge.vertices).all()


# --- errors -----------------------------------------------------------------------------------------------------------


def test_bad_arguments():
    ball, cloud = gd.icosphere(1), torch.rand(5, 3)
    with pytest.raises(
        ValueError, match=r"closest_point: `points` must be of shape \(..., N, 3\); got float32 of shape"
    ):
        ball.closest_point(cloud[0])
    with pytest.raises(ValueError, match="`points` must be of a batch that broadcasts with the mesh's"):
        ball.scaled(torch.ones(2, 1)).closest_point(cloud.expand(3, 5, 3))
    with pytest.raises(ValueError, match="`points` must be finite"):
        ball.closest_point(cloud * math.nan)
    with pytest.raises(ValueError, match="closest_point: `mesh` must be a mesh with faces; got none"):
        Mesh(cloud, []).closest_point(cloud)
    with pytest.raises(TypeError, match=r"point_mesh_distance: `mesh` must be a geodiff.Mesh or MeshBatch"):
        gd.point_mesh_distance(cloud, cloud)
    with pytest.raises(ValueError, match="`signed` must be False where `squared` is True; got both"):
        gd.point_mesh_distance(cloud, ball, squared=True, signed=True)
    with pytest.raises(ValueError, match="`mesh` must be closed and wound alike where `signed`; got 4 edges without"):
        gd.point_mesh_distance(cloud, two_faces(), signed=True)
    mixed = Mesh(ball.vertices, torch.cat((ball.faces[:1].flip(1), ball.faces[1:])))
    with pytest.raises(ValueError, match="got 3 edges without a counterpart"):
        gd.point_mesh_distance(cloud, mixed, signed=True)
    with pytest.raises(ValueError, match=r"`points` must be of shape \(2, N, 3\) or \(N, 3\)"):
        gd.point_mesh_distance(cloud[None], MeshBatch([ball, ball]))
    with pytest.raises(ValueError, match=r"Mesh.sample: `count` must be an integer ≥ 1; got int 0"):
        ball.sample(0)
    with pytest.raises(ValueError, match="`normals` must be one of flat, smooth"):
        ball.sample(1, normals="face")
    with pytest.raises(ValueError, match="`seed` must be left out where `generator` is given"):
        ball.sample(1, seed=0, generator=torch.Generator())
    with pytest.raises(TypeError, match=r"`generator` must be a torch.Generator"):
        ball.sample(1, generator=0)
    with pytest.raises(ValueError, match="`mesh` must be of positive area; got no faces"):
        Mesh(cloud, []).sample(1)
    with pytest.raises(ValueError, match="`mesh` must be of positive area; got faces that are all degenerate"):
        Mesh(torch.zeros(3, 3), [[0, 1, 2]]).sample(1)
    with pytest.raises(ValueError, match="`times` must be an integer ≥ 0; got int -1"):
        ball.subdivided(-1)
    with pytest.raises(ValueError, match="`times` must be small enough for fewer than 2³¹ faces"):
        ball.subdivided(20)
