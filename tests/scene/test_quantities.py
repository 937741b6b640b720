# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff import ops
from geodiff.scene import quantities

# A few roundings of numbers of size one.
ROUNDING = {torch.float32: 2e-6, torch.float64: 1e-13}


def wobbly(dtype: torch.dtype = torch.float64) -> gd.Mesh:
    ball = gd.icosphere(1, dtype=dtype)
    return ball.with_vertices(ball.vertices + 0.2 * torch.rand_like(ball.vertices))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normals_and_areas_match_trimesh(dtype: torch.dtype) -> None:
    mesh = wobbly(dtype)
    peer = mesh.to_trimesh()
    tolerance = ROUNDING[dtype]
    assert np.allclose(mesh.face_normals, peer.face_normals, atol=tolerance)
    assert np.allclose(mesh.face_areas, peer.area_faces, atol=tolerance)
    # trimesh weighs vertex normals by angle; weighing by area is the sum of the cross products.
    total = np.zeros((mesh.num_vertices, 3))
    for k in range(3):
        np.add.at(total, mesh.faces[:, k].numpy(), peer.face_normals * peer.area_faces[:, None])
    total /= np.linalg.norm(total, axis=1, keepdims=True)
    assert np.allclose(mesh.vertex_normals, total, atol=tolerance)


@pytest.mark.parametrize("unit", [1e-15, 1e15])
def test_size_of_the_unit_does_not_matter(unit: float) -> None:
    """In float32 the squares of such lengths would under- or overflow."""
    mesh = wobbly(torch.float32)
    other = mesh.scaled(unit)
    assert torch.allclose(other.face_normals, mesh.face_normals, atol=1e-5)
    assert torch.allclose(other.vertex_normals, mesh.vertex_normals, atol=1e-5)
    assert torch.allclose(other.face_areas / unit**2, mesh.face_areas, rtol=1e-5)


def test_batch_is_each_alone() -> None:
    mesh = wobbly()
    batch = mesh.with_vertices(torch.stack((mesh.vertices, 2 * mesh.vertices.flip(-1))))
    for name in ("face_normals", "face_areas", "vertex_normals", "bounds"):
        together = getattr(batch, name)
        for i in range(2):
            assert torch.equal(together[i], getattr(batch[i], name)), name


@pytest.mark.parametrize("function", [quantities.face_normals, quantities.face_areas, ops.vertex_normals])
def test_gradients_by_finite_differences(function) -> None:
    mesh = wobbly()
    v = mesh.vertices.clone().requires_grad_()
    assert gradcheck(lambda v: function(v, mesh.faces), (v,))


@pytest.mark.parametrize(
    "corners",
    [
        [[0.0, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0.0, 0, 0], [1, 1, 1], [0, 0, 0]],
        [[0.0, 0, 0], [1, 1, 1], [2, 2, 2]],
        [[0.1, 0.2, 0.3], [0.2, 0.4, 0.6], [0.3, 0.6, 0.9]],
    ],
    ids=["point", "segment", "in line", "in line up to rounding"],
)
@pytest.mark.parametrize("name", ["face_normals", "vertex_normals", "face_areas", "cotangents"])
def test_faces_of_no_area(corners: list[list[float]], name: str) -> None:
    v = torch.tensor(corners, requires_grad=True)
    value = getattr(ops if name == "vertex_normals" else quantities, name)(v, torch.tensor([[0, 1, 2]]))
    value.square().sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(v.grad).all()
    if name in ("face_normals", "cotangents"):
        assert (value == 0).all()
        assert (v.grad == 0).all()


def test_isolated_vertices_and_cancelling_faces_have_no_normal() -> None:
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5]])
    two_sided = gd.Mesh(v, [[0, 1, 2], [0, 2, 1]])
    assert (two_sided.vertex_normals == 0).all()
    assert (gd.Mesh(v, [[0, 1, 2]]).vertex_normals[3] == 0).all()


def test_no_faces() -> None:
    v = torch.rand(2, 4, 3, requires_grad=True)
    empty = gd.Mesh(v, [])
    assert empty.face_normals.shape == (2, 0, 3)
    assert empty.face_areas.shape == (2, 0)
    assert (empty.vertex_normals == 0).all()
    assert (empty[0].laplacian().to_dense() == 0).all()
    assert (empty[0].laplacian("cotangent", normalized=True).to_dense() == 0).all()
    assert empty.edges.shape == (0, 2)
    assert empty.face_pairs.shape == (0, 2)
    assert not empty.is_closed
    assert empty.euler_characteristic == 0


def test_cotangents_of_known_angles() -> None:
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, math.sqrt(3), 0]], dtype=torch.float64)
    found = quantities.cotangents(v, torch.tensor([[0, 1, 2]]))[0]
    expected = torch.tensor([0.0, 1 / math.tan(math.pi / 3), 1 / math.tan(math.pi / 6)], dtype=torch.float64)
    assert torch.allclose(found, expected, atol=ROUNDING[torch.float64])


def test_uniform_laplacian_by_hand() -> None:
    mesh = wobbly()
    dense = mesh.laplacian().to_dense()
    adjacency = torch.zeros_like(dense)
    adjacency[mesh.edges[:, 0], mesh.edges[:, 1]] = 1
    adjacency += adjacency.T.clone()
    assert torch.equal(dense, torch.diag(adjacency.sum(1)) - adjacency)
    means = torch.stack([mesh.vertices[row.nonzero()[:, 0]].mean(0) for row in adjacency])
    difference = mesh.laplacian(normalized=True) @ mesh.vertices
    assert torch.allclose(difference, mesh.vertices - means, atol=ROUNDING[torch.float64])


def cotangent_by_loop(mesh: gd.Mesh) -> torch.Tensor:
    dense = torch.zeros(mesh.num_vertices, mesh.num_vertices, dtype=mesh.dtype)
    for face in mesh.faces.tolist():
        for k in range(3):
            i, j, o = face[(k + 1) % 3], face[(k + 2) % 3], face[k]
            p, q = mesh.vertices[i] - mesh.vertices[o], mesh.vertices[j] - mesh.vertices[o]
            weight = 0.5 * (p @ q) / torch.linalg.norm(torch.linalg.cross(p, q))
            dense[i, j] -= weight
            dense[j, i] -= weight
            dense[i, i] += weight
            dense[j, j] += weight
    return dense


def test_cotangent_laplacian_is_the_dirichlet_energy() -> None:
    mesh = wobbly()
    sparse = mesh.laplacian("cotangent")
    assert sparse.is_coalesced()
    dense = sparse.to_dense()
    assert torch.allclose(dense, cotangent_by_loop(mesh), atol=1e-12)
    assert torch.linalg.eigvalsh(dense).min() > -1e-12
    # A linear function on a plane is harmonic inside, and its energy is area · |gradient|² .
    sheet = gd.plane(2.0, 5, dtype=torch.float64)
    slope = torch.tensor([0.3, -0.7, 0.0], dtype=torch.float64)
    x = sheet.vertices @ slope
    assert torch.allclose(x @ (sheet.laplacian("cotangent") @ x), 4.0 * slope.square().sum())


def test_cotangent_laplacian_gradient_and_collapsed_faces() -> None:
    mesh = gd.box(dtype=torch.float64)
    v = (mesh.vertices + 0.1 * torch.rand_like(mesh.vertices)).requires_grad_()
    x = torch.rand(8, dtype=torch.float64)

    def energy(v: torch.Tensor) -> torch.Tensor:
        return (mesh.with_vertices(v).laplacian("cotangent").to_dense() @ x).square().sum()

    assert gradcheck(energy, (v,))
    collapsed = gd.Mesh(torch.rand(4, 3), [[0, 1, 1], [0, 1, 2], [1, 0, 3], [0, 2, 1]])
    assert torch.isfinite(collapsed.laplacian("cotangent").to_dense()).all()


def test_laplacian_messages() -> None:
    mesh = gd.box()
    with pytest.raises(
        ValueError, match=r"laplacian: `kind` must be one of uniform, cotangent.*Did you mean 'cotangent'"
    ):
        mesh.laplacian("cotan")
    batch = mesh.with_vertices(mesh.vertices.expand(2, -1, -1))
    assert batch.laplacian().shape == (8, 8)
    with pytest.raises(ValueError, match=r"`vertices` must be \(V, 3\) for kind='cotangent'.*Take one mesh"):
        batch.laplacian("cotangent")
