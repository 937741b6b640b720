# SPDX-License-Identifier: Apache-2.0
import math

import pytest
import torch

import geodiff as gd


def volume(mesh: gd.Mesh) -> float:
    """Signed volume by the divergence theorem: positive if the faces are counter-clockwise from outside."""
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    return float((a * torch.linalg.cross(b, c)).sum() / 6)


@pytest.mark.parametrize("level", range(5))
def test_icosphere(level: int) -> None:
    mesh = gd.icosphere(level, radius=2.0)
    assert mesh.num_vertices == 10 * 4**level + 2
    assert mesh.num_faces == 20 * 4**level
    assert mesh.is_closed
    assert mesh.euler_characteristic == 2
    assert torch.allclose(torch.linalg.norm(mesh.vertices, dim=-1), torch.tensor(2.0))
    outward = (mesh.face_normals * mesh.vertices[mesh.faces].mean(1)).sum(-1)
    assert (outward > 0).all()


def test_icosphere_levels_nest_and_converge() -> None:
    fine, coarse = gd.icosphere(4), gd.icosphere(3)
    assert torch.equal(fine.vertices[: coarse.num_vertices], coarse.vertices)
    errors = [4 * math.pi / 3 - volume(gd.icosphere(level)) for level in (2, 3, 4)]
    # The error of the volume is of second order in the edge length, which halves at each level.
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(4, rel=0.02)


def test_icosahedron_is_regular() -> None:
    mesh = gd.icosphere(0, dtype=torch.float64)
    lengths = torch.linalg.norm(mesh.vertices[mesh.edges[:, 0]] - mesh.vertices[mesh.edges[:, 1]], dim=-1)
    assert torch.allclose(lengths, torch.full_like(lengths, 4 / math.sqrt(10 + 2 * math.sqrt(5))))


def test_box() -> None:
    mesh = gd.box((1.0, 2.0, 3.0))
    assert mesh.bounds.tolist() == [[-0.5, -1.0, -1.5], [0.5, 1.0, 1.5]]
    assert volume(mesh) == pytest.approx(6.0)
    assert mesh.is_closed
    assert float(gd.box().face_areas.sum()) == pytest.approx(6.0)


def test_torus() -> None:
    mesh = gd.torus(1.0, 0.25, nu=400, nv=200)
    assert mesh.is_closed
    assert mesh.euler_characteristic == 0
    assert volume(mesh) == pytest.approx(2 * math.pi**2 * 0.25**2, rel=1e-3)
    ring = torch.linalg.norm(mesh.vertices[:, [0, 2]], dim=-1)
    assert torch.allclose((ring - 1) ** 2 + mesh.vertices[:, 1] ** 2, torch.tensor(0.0625), atol=1e-6)


@pytest.mark.parametrize("caps", [True, False])
def test_cylinder(caps: bool) -> None:
    n = 200
    mesh = gd.cylinder(0.5, 3.0, segments=n, caps=caps)
    assert mesh.is_closed == caps
    assert mesh.num_vertices == 2 * n + 2 * caps
    assert mesh.num_faces == 2 * n * (2 if caps else 1)
    polygon = 0.5 * n * 0.5**2 * math.sin(2 * math.pi / n)
    if caps:
        assert volume(mesh) == pytest.approx(3.0 * polygon, rel=1e-5)
    outward = mesh.face_normals * mesh.vertices[mesh.faces].mean(1)
    assert (outward.sum(-1) > 0).all()
    assert mesh.vertices[:, 1].abs().max() == 1.5


def test_plane() -> None:
    mesh = gd.plane((2.0, 1.0), resolution=(4, 3))
    assert mesh.num_vertices == 20
    assert mesh.num_faces == 24
    assert float(mesh.face_areas.sum()) == pytest.approx(2.0)
    assert torch.equal(mesh.face_normals, torch.tensor([0.0, 0.0, 1.0]).expand(24, 3))
    assert torch.allclose(mesh.vertices[:, :2], (mesh.uv - 0.5) * torch.tensor([2.0, 1.0]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gd.icosphere(-1), ValueError, r"icosphere: `subdivisions` must be in \[0, 8\]"),
        (lambda: gd.icosphere(9), ValueError, r"icosphere: `subdivisions` must be in \[0, 8\]"),
        (lambda: gd.icosphere(2.0), TypeError, "icosphere: `subdivisions` must be an integer"),
        (lambda: gd.icosphere(radius=0.0), ValueError, "icosphere: `radius` must be positive"),
        (lambda: gd.box(-1.0), ValueError, "box: `size` must be positive"),
        (lambda: gd.box((1.0, 2.0)), ValueError, "box: `size` must be one number or three; got 2 numbers"),
        (lambda: gd.torus(1.0, 1.0), ValueError, "torus: `minor` must be less than major = 1.0"),
        (lambda: gd.torus(nu=2), ValueError, "torus: `nu` must be in"),
        (lambda: gd.cylinder(segments=2), ValueError, "cylinder: `segments` must be in"),
        (lambda: gd.cylinder(height=0.0), ValueError, "cylinder: `height` must be positive"),
        (lambda: gd.plane(resolution=0), ValueError, "plane: `resolution` must be in"),
        (lambda: gd.plane((1.0, 2.0, 3.0)), ValueError, "plane: `size` must be one number or two"),
        (lambda: gd.plane((1.0, 0.0)), ValueError, "plane: `size` must be positive"),
    ],
)
def test_messages(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
