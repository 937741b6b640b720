# SPDX-License-Identifier: Apache-2.0
"""Distances of the heat method, beside the exact ones of sphere and plane and the ways along edges."""

import pytest
import torch

import geodiff as gd
from geodiff.scene import geodesic

F64 = torch.float64


def sheet(count: int, shake: float = 0.0, stretch: float = 1.0) -> gd.Mesh:
    line = torch.linspace(0, 1, count, dtype=F64)
    at = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    inner = ((at > 0) & (at < 1)).all(1, keepdim=True)
    move = torch.rand(at.shape, generator=torch.Generator().manual_seed(0), dtype=F64) - 0.5
    at = (at + shake / count * move * inner) * torch.tensor([stretch, 1.0], dtype=F64)
    a = torch.arange(count * count).reshape(count, count)
    quads = torch.stack([a[:-1, :-1], a[1:, :-1], a[1:, 1:], a[:-1, 1:]], -1).reshape(-1, 4)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return gd.Mesh(torch.cat([at, torch.zeros(len(at), 1, dtype=F64)], 1), faces)


@pytest.mark.parametrize(("level", "mean"), [(2, 0.045), (3, 0.023), (4, 0.016)])
def test_sphere(level: int, mean: float) -> None:
    """Mean errors in radians that the method is known for."""
    ball = gd.icosphere(level, dtype=F64)
    exact = torch.atan2(ball.vertices[:, :2].norm(dim=1), ball.vertices[:, 2])
    pole = int(ball.vertices[:, 2].argmax())
    heat, edges = (geodesic(ball, pole, method=name) for name in ("heat", "edges"))
    assert heat[pole] == 0
    off = (heat - exact).abs()
    assert off.mean() < mean and off.max() < 3 * mean
    assert (edges - exact).abs().mean() > 2 * off.mean()


@pytest.mark.parametrize(("shake", "stretch"), [(0.0, 1.0), (0.8, 1.0), (0.0, 20.0), (0.0, 1e5)])
def test_plane_and_bad_triangles(shake: float, stretch: float) -> None:
    """Even triangles, uneven ones, and needles up to 100 000 times as long as wide, which are flat in all but name."""
    mesh = sheet(33, shake, stretch)
    source = 33 * 16 + 16
    exact = (mesh.vertices - mesh.vertices[source]).norm(dim=1)
    off = (geodesic(mesh, source, method="heat") - exact).abs() / exact.mean()
    assert off.mean() < 0.03 and off.max() < 0.08


def test_gradient_in_vertices_of_several_sources() -> None:
    ball = gd.icosphere(1, dtype=F64)
    weight = torch.randn(42, dtype=F64, generator=torch.Generator().manual_seed(1))
    way = torch.randn(42, 3, dtype=F64, generator=torch.Generator().manual_seed(2))

    def total(step: torch.Tensor) -> torch.Tensor:
        moved = ball.with_vertices(ball.vertices + step * way)
        return geodesic(moved, [3, 30], method="heat") @ weight

    # Away from the symmetric ball, on which the heat of both sources meets along edges without any slope.
    step = torch.tensor(0.03, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(total, step) and torch.autograd.gradgradcheck(total, step)
    (slope,) = torch.autograd.grad(total(step), step)
    h = 1e-5
    difference = float((total(step.detach() + h) - total(step.detach() - h)) / (2 * h))
    assert float(slope) == pytest.approx(difference, rel=1e-7)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_unit_place_and_dtype(size: float, dtype: torch.dtype) -> None:
    ball = gd.icosphere(2, dtype=F64)
    expected = geodesic(ball, 7, method="heat")
    found = geodesic(ball.with_vertices(((ball.vertices + 2.0) * size).to(dtype)), 7, method="heat")
    assert found.dtype == dtype
    tolerance = 1e-9 if dtype == F64 else 1e-4
    torch.testing.assert_close(found.double() / size, expected, rtol=tolerance, atol=tolerance)


def test_batches_parts_and_long_ways() -> None:
    ball = gd.icosphere(1, dtype=F64)
    stretched = torch.stack([ball.vertices, ball.vertices * torch.tensor([1.0, 2.0, 1.0])])
    both = geodesic(ball.with_vertices(stretched), 0, method="heat")
    for item, vertices in zip(both, stretched, strict=True):
        assert torch.equal(item, geodesic(ball.with_vertices(vertices), 0, method="heat"))
    # Two balls, a vertex that no face has, a face that has no area.
    two = gd.Mesh(
        torch.cat([ball.vertices, ball.vertices + 9, torch.zeros(1, 3, dtype=F64)]),
        torch.cat([ball.faces, ball.faces + 42, torch.tensor([[5, 5, 6]])]),
    )
    with pytest.raises(ValueError, match="geodesic: `sources` must be such that all nodes are reached"):
        geodesic(two, 0, method="heat")
    away = geodesic(two, [0, 84], method="heat", unreached="inf")
    torch.testing.assert_close(away[:42], geodesic(ball, 0, method="heat"), rtol=1e-12, atol=1e-12)
    assert bool((away[42:84] == torch.inf).all()) and away[84] == 0
    # A strip of 2000 squares: heat of a time of one square would end long before it does.
    x = torch.arange(2001, dtype=F64)
    points = torch.stack([x.repeat_interleave(2), torch.tensor([0.0, 1.0], dtype=F64).repeat(2001), 0 * x.repeat(2)], 1)
    i = torch.arange(0, 4000, 2)[:, None]
    faces = torch.cat([i + torch.tensor([[0, 2, 3]]), i + torch.tensor([[0, 3, 1]])])
    away = geodesic(gd.Mesh(points, faces), 0, method="heat")
    assert float((away[::2] - x).abs().max()) < 0.02 * 2000


def test_method_and_threads() -> None:
    ball = gd.icosphere(2, dtype=F64)
    with pytest.raises(ValueError, match="geodesic: `method` must be one of edges, heat; got 'exact'"):
        geodesic(ball, 0, method="exact")
    with pytest.raises(ValueError, match="geodesic: `mesh` must be one whose edges have a length"):
        geodesic(ball.with_vertices(torch.zeros_like(ball.vertices)), 0, method="heat")
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            vertices = ball.vertices.clone().requires_grad_()
            away = geodesic(ball.with_vertices(vertices), 0, method="heat")
            away.square().sum().backward()
            found.append((away.detach(), vertices.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
