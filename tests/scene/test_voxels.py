# SPDX-License-Identifier: Apache-2.0
"""Cells inside of meshes, beside sums of solid angles and shapes whose insides are known."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geodiff as gd


def centres(count: int, low: float = -1.0, high: float = 1.0) -> torch.Tensor:
    axis = low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)


def winding(mesh: gd.Mesh, points: torch.Tensor) -> torch.Tensor:
    """Sum the solid angles of all faces (van Oosterom and Strackee, 1983), over 4π."""
    a, b, c = (mesh.vertices.double()[mesh.faces[:, k]] - points.reshape(-1, 1, 3) for k in range(3))
    x, y, z = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    volume = (a * torch.linalg.cross(b, c)).sum(-1)
    rest = x * y * z + (a * b).sum(-1) * z + (b * c).sum(-1) * x + (c * a).sum(-1) * y
    return (2 * torch.atan2(volume, rest)).sum(1).reshape(points.shape[:-1]) / (4 * torch.pi)


def turned(mesh: gd.Mesh, seed: int, offset: float = 0.0) -> gd.Mesh:
    q = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]
    return mesh.to(dtype=torch.float64).rotated(q * torch.linalg.det(q).sign()).translated(torch.full((3,), offset))


SHAPES = {"ball": gd.icosphere(2), "torus": gd.torus(), "box": gd.box(1.0)}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", list(SHAPES))
def test_cells_are_inside_where_solid_angles_say_so(name: str, seed: int) -> None:
    mesh = turned(SHAPES[name].normalized(), seed, 0.1)
    inside = mesh.voxelized(14, bounds=[[-0.8] * 3, [0.9] * 3])
    assert inside.dtype == torch.bool
    torch.testing.assert_close(inside, winding(mesh, centres(14, -0.8, 0.9)).abs() > 0.5, rtol=0, atol=0)
    assert inside.any() and not inside.all()


def test_axes_and_bounds() -> None:
    box = gd.box(1.0).scaled(torch.tensor([1.0, 2.0, 4.0])).translated(torch.tensor([10.0, 20.0, 30.0]))
    low, high = box.bounds
    inside = box.voxelized(8, bounds=torch.stack([low, low + 4.0]))
    x, y, z = (torch.arange(8) < n for n in (2, 4, 8))
    assert torch.equal(inside, x[:, None, None] & y[None, :, None] & z)
    assert torch.equal(box.voxelized(5, bounds=[low.tolist(), high.tolist()]), torch.ones(5, 5, 5).bool())
    assert not box.voxelized(4).any()


@pytest.mark.parametrize("cells", [2, 4, 6, 12])
def test_centres_straight_below_edges_and_corners_count_once(cells: int) -> None:
    # All edges of an octahedron on the grid's centre lines, and a box whose diagonals go through the centres.
    tips = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]])
    around = [0, 2, 1, 3]
    faces = [(around[k], around[(k + 1) % 4], 4) for k in range(4)] + [
        (around[(k + 1) % 4], around[k], 5) for k in range(4)
    ]
    inside = gd.Mesh(tips, torch.tensor(faces)).voxelized(cells + 1)
    point = centres(cells + 1).abs().sum(-1)
    clear = (point - 1).abs() > 1e-9
    assert torch.equal(inside[clear], point[clear] < 1) and inside[cells // 2, cells // 2, cells // 2]
    assert torch.equal(gd.box(1.0).voxelized(2 * cells), (centres(2 * cells).abs() < 0.5).all(-1))


def test_parts_unite_and_cavities_stay_empty() -> None:
    ball, small = gd.icosphere(3, 0.8), gd.icosphere(3, 0.4)
    both = torch.cat([ball.vertices, small.vertices])
    faces = torch.cat([ball.faces, small.faces + ball.num_vertices])
    united = gd.Mesh(both, faces).voxelized(20)
    hollow = gd.Mesh(both, torch.cat([ball.faces, small.flipped().faces + ball.num_vertices])).voxelized(20)
    outer, inner = ball.voxelized(20), small.voxelized(20)
    assert torch.equal(united, outer) and torch.equal(hollow, outer & ~inner) and inner.any()
    assert torch.equal(ball.flipped().voxelized(20), outer)


def test_batches_dtypes_order_and_scale() -> None:
    ball = gd.icosphere(2, 0.7)
    factors = torch.tensor([0.3, 0.6, 1.0])[:, None, None]
    batch = ball.with_vertices(factors * ball.vertices)
    inside = batch.voxelized(12)
    assert inside.shape == (3, 12, 12, 12)
    for k in range(3):
        assert torch.equal(inside[k], batch[k].voxelized(12))
    assert torch.equal(ball.to(dtype=torch.float64).voxelized(12), ball.voxelized(12))
    mixed = gd.Mesh(ball.vertices, ball.faces[torch.randperm(ball.num_faces)])
    assert torch.equal(mixed.voxelized(12), ball.voxelized(12))
    large = ball.scaled(1e6).voxelized(12, bounds=[[-1e6] * 3, [1e6] * 3])
    assert torch.equal(large, ball.voxelized(12))
    assert ball.with_vertices(torch.zeros(0, ball.num_vertices, 3)).voxelized(2).shape == (0, 2, 2, 2)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_any_closed_mesh_is_counted_by_its_winding_number(seed: int, cells: int) -> None:
    # A ball whose vertices are anywhere: it meets itself everywhere, and is closed all the same.
    random = np.random.default_rng(seed)
    ball = gd.icosphere(1)
    mesh = gd.Mesh(torch.from_numpy(random.normal(0, 0.5, (ball.num_vertices, 3))), ball.faces)
    number = winding(mesh, centres(cells))
    assert torch.equal(mesh.voxelized(cells), number.round() != 0)


def test_what_has_no_inside_is_refused() -> None:
    ball = gd.icosphere(1)
    with pytest.raises(ValueError, match=r"`mesh` must be closed; got one with 3 boundary edges"):
        gd.Mesh(ball.vertices, ball.faces[1:]).voxelized(4)
    faces = ball.faces.clone()
    faces[3] = faces[3].flip(0)
    with pytest.raises(ValueError, match="all turned the same way"):
        gd.Mesh(ball.vertices, faces).voxelized(32)
    with pytest.raises(ValueError, match="without faces"):
        gd.Mesh(ball.vertices, ball.faces[:0]).voxelized(4)
    with pytest.raises(ValueError, match="corner of a box"):
        ball.voxelized(4, bounds=[[0, 0, 0], [1, 1, 0]])
    with pytest.raises(ValueError, match="resolution"):
        ball.voxelized(0)
    with pytest.raises(TypeError, match="must be a Mesh"):
        gd.scene.voxelized(3)  # type: ignore[arg-type]


def test_voxel_iou() -> None:
    a, b = gd.box(1.0).voxelized(8), gd.box(0.5).voxelized(8)
    assert float(gd.losses.voxel_iou(a, b)) == 1 - 8 / 64
    assert gd.losses.voxel_iou(torch.stack([a, b]), a, reduction="none").tolist() == [0.0, 1 - 8 / 64]
    p = torch.rand(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    q = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    both = (p * q).sum((1, 2, 3))
    expected = (1 - both / (p + q - p * q).sum((1, 2, 3))).mean()
    torch.testing.assert_close(gd.losses.voxel_iou(p, q), expected)
    assert torch.autograd.gradcheck(lambda x: gd.losses.voxel_iou(x, q), p)
    with pytest.raises(ValueError, match=r"`target` must be of occupancy's shape .*of the same grid"):
        gd.losses.voxel_iou(a, b[:4])
    with pytest.raises(ValueError, match=r"`occupancy` must be in \[0, 1\]"):
        gd.losses.voxel_iou(2.0 * a, b)
