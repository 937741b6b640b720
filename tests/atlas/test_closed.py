# SPDX-License-Identifier: Apache-2.0
"""Watertight meshes of clouds with known surfaces: closed and checked, by Open3D where it is, and without it."""

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.atlas import closed
from geodiff.atlas.closed import closed_mesh

DEPTH = 5


def ball(count: int, radius: float = 1.0, x: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1)
    return normals * radius + torch.tensor([x, 0, 0]), normals


def torus(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    u, v = torch.rand(2, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 * torch.pi
    normals = torch.stack([v.cos() * u.cos(), v.cos() * u.sin(), v.sin()], 1)
    return torch.stack([u.cos(), u.sin(), 0 * u], 1) + 0.35 * normals, normals


def box(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator, dtype=torch.float64) * 2 - 1
    axis = torch.randint(3, (count,), generator=generator)
    normals = torch.zeros_like(points)
    normals[torch.arange(count), axis] = points.sign()[torch.arange(count), axis]
    return torch.where(normals != 0, normals, points), normals


def sheet(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    points[:, 2] = 0.2 * torch.sin(3 * points[:, 0])
    return points, torch.stack([-0.6 * torch.cos(3 * points[:, 0]), 0 * points[:, 0], 1 + 0 * points[:, 0]], 1)


def both(*clouds: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([points for points, _ in clouds]), torch.cat([normals for _, normals in clouds])


def volume(mesh: gd.Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return float((torch.linalg.cross(a, b) * c).sum() / 6)


@pytest.fixture(params=["poisson", "winding"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to a mesh; the one by Open3D where that can be imported."""
    if request.param == "poisson":
        pytest.importorskip("open3d", exc_type=ImportError)
    else:
        monkeypatch.setattr(closed, "poisson_faces", absent)
    return str(request.param)


def absent(*_: object) -> None:
    raise ImportError("poisson_mesh: Open3D is not installed. Get it. Without it, something.")


@pytest.mark.parametrize(
    ("cloud", "euler", "solid"),
    [(ball(2000), 2, 4 / 3 * np.pi), (torus(2000), 0, 2 * np.pi**2 * 0.35**2), (box(3000), 2, 8.0)],
    ids=["ball", "torus", "box"],
)
def test_closed_shapes(way: str, cloud: tuple[torch.Tensor, torch.Tensor], euler: int, solid: float) -> None:
    found = closed_mesh(*cloud, depth=DEPTH)
    assert found.way == way and found.faults.told() == ""
    assert found.mesh.is_closed and found.mesh.euler_characteristic == euler
    assert volume(found.mesh) == pytest.approx(solid, rel=0.05)
    assert found.mesh.closest_point(cloud[0]).distance.mean() < 0.01
    assert (found.parts, found.components, found.points_kept) == (1, 1, 1.0) and found.invented < 0.05
    assert len(found.notes) == (way == "winding")


def test_two_balls(way: str) -> None:
    cloud = both(ball(2000), ball(1000, 0.5, 2.5))
    one = closed_mesh(*cloud, depth=DEPTH)
    assert (one.parts, one.components) == (2, 1) and volume(one.mesh) == pytest.approx(4.19, rel=0.05)
    assert "watertight.ply holds 1 of 2 parts, with 67% of the points: --keep-components 2" in one.notes[-1]
    for keep in (0, 2):
        two = closed_mesh(*cloud, depth=DEPTH, keep_components=keep)
        assert two.components == 2 and two.mesh.is_closed and not any("parts" in note for note in two.notes)
        assert volume(two.mesh) == pytest.approx(4.19 * 1.125, rel=0.05)


def test_a_ball_within_a_ball_keeps_its_side(way: str) -> None:
    inner = ball(1000, 0.5)
    found = closed_mesh(*both(ball(2000), (inner[0], -inner[1])), depth=DEPTH, keep_components=0)
    assert found.components == 2 and found.mesh.is_closed
    assert volume(found.mesh) == pytest.approx(4.19 * 0.875, rel=0.05)


def test_an_open_sheet_is_not_closed_in_silence(way: str) -> None:
    points, normals = sheet(2000)
    found = closed_mesh(points, normals, depth=DEPTH)
    assert found.mesh.is_closed and found.faults.told() == "" and found.components == 1
    assert found.mesh.closest_point(points).distance.max() < 0.02
    assert found.invented > 0.4
    assert found.way == "winding"  # Poisson's surface ends at the border of its cube
    if way == "poisson":
        assert "Poisson reconstruction left" in found.notes[0] and "boundary edges" in found.notes[0]
    assert "closed where there are no points" in found.notes[-1] and "--open-boundaries" in found.notes[-1]
    left = closed_mesh(points, normals, depth=DEPTH, open_boundaries=True)
    assert left.way == way and left.faults.boundary_edges > 0 and left.faults.told(open_boundaries=True) == ""
    assert left.invented < 0.05 and left.mesh.closest_point(points).distance.max() < 0.03
    assert not any("invented" in note for note in left.notes)


def test_a_broken_reconstruction_is_mended_or_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    sphere = gd.icosphere(4)
    vertices, faces = (sphere.vertices.double().numpy() + 1) / 2, sphere.faces.numpy()
    points, normals = ball(2000)
    points = torch.cat([points, torch.eye(3).double(), -torch.eye(3).double()])
    normals = torch.cat([normals, torch.eye(3).double(), -torch.eye(3).double()])

    def gives(*broken: np.ndarray) -> closed.Closed:
        monkeypatch.setattr(closed, "poisson_faces", lambda *_: (vertices, np.concatenate(broken)))
        return closed_mesh(points, normals, depth=DEPTH)

    blob = faces[:0]
    for broken in ((faces, faces[:9]), (faces[3:],), (faces[:, ::-1],), (faces, blob, np.array([[0, 0, 1]]))):
        found = gives(*broken)
        assert found.way == "poisson" and found.mesh.is_closed and found.notes == []
        assert volume(found.mesh) == pytest.approx(4.17, rel=0.02)
    found = gives(faces[vertices[faces].mean(1)[:, 2] > 0.2])
    assert found.way == "winding" and found.mesh.is_closed and "boundary edges" in found.notes[0]
    found = gives(blob)
    assert found.way == "winding" and "found no surface" in found.notes[0]


def test_what_cannot_be_closed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    sphere = gd.icosphere(4)
    vertices, faces = (sphere.vertices.double().numpy() + 1) / 2, sphere.faces.numpy()
    half = (vertices, faces[vertices[faces].mean(1)[:, 2] > 0.2])
    monkeypatch.setattr(closed, "poisson_faces", lambda *_: half)
    monkeypatch.setattr(closed, "solid_mesh", lambda *_: half)
    found = closed_mesh(*ball(2000), depth=DEPTH)
    assert found.way == "poisson" and not found.mesh.is_closed
    assert f"watertight.ply is not watertight: {found.faults.boundary_edges} boundary edges" in found.notes[0]


def test_scale_place_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed, "poisson_faces", absent)
    points, normals = ball(1500)
    one = closed_mesh(points, 3 * normals, depth=DEPTH).mesh
    other = closed_mesh(points * 1000 + 5e5, normals, depth=DEPTH).mesh
    assert other.num_faces == one.num_faces
    assert ((other.vertices - 5e5) / 1000 - one.vertices).abs().max() < 1e-4
    single = closed_mesh(points.float(), normals.float(), depth=DEPTH).mesh
    assert single.vertices.dtype == torch.float32 and single.is_closed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"points": torch.rand(3, 3)}, r"closed_mesh: `points` must be of shape \(N, 3\), N ≥ 4"),
        ({"normals": torch.rand(9, 3)}, r"closed_mesh: `normals` must be of shape \(20, 3\)"),
        ({"normals": torch.zeros(20, 3)}, "closed_mesh: `normals` must be not zero; got 20 zero vectors"),
        ({"depth": 15}, "closed_mesh: `depth`"),
        ({"keep_components": -1}, "closed_mesh: `keep_components`"),
        ({"trim": 0.0}, "closed_mesh: `trim` must be positive"),
        ({"points": torch.ones(20, 3)}, "closed_mesh: `points` must be in more than one place"),
    ],
)
def test_what_is_refused(change: dict[str, object], message: str) -> None:
    given = {"points": torch.rand(20, 3), "normals": torch.ones(20, 3), **change}
    with pytest.raises(ValueError, match=message):
        closed_mesh(**given)  # type: ignore[arg-type]


def test_nothing_to_enclose(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = (np.zeros((0, 3)), np.zeros((0, 3), np.int64))
    monkeypatch.setattr(closed, "poisson_faces", lambda *_: nothing)
    monkeypatch.setattr(closed, "solid_mesh", lambda *_: nothing)
    with pytest.raises(ValueError, match="closed_mesh: `normals` must be consistent enough for a surface"):
        closed_mesh(*ball(100), depth=3)


def test_faces_that_stay_are_not_asked_for_again() -> None:
    random = np.random.default_rng(0)
    tree, corners = closed.cKDTree(random.random((400, 3))), random.random((3, 50, 3))
    before = closed._near(tree, *corners)
    more = np.concatenate((corners[[2, 1, 0]], random.random((3, 7, 3))), 1)  # turned; then new ones
    more[:, 3] = random.random((3, 3))
    fresh, found = closed._near(tree, *more), closed._near(tree, *more, before)
    assert all(np.array_equal(a, b) for a, b in zip(vars(found).values(), vars(fresh).values(), strict=True))
    kept = np.arange(50) % 3 > 0
    some, known = closed._near(tree, *corners[:, kept]), before.of(kept)
    assert all(np.array_equal(a, b) for a, b in zip(vars(known).values(), vars(some).values(), strict=True))
