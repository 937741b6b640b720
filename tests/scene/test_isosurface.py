# SPDX-License-Identifier: Apache-2.0
"""Surfaces of functions: closed, manifold, and with the derivative that calculus gives."""

import math

import numpy as np
import pytest
import torch

import geodiff as gd

BOX = [[-1.3] * 3, [1.3] * 3]
RADIUS = 0.8123


def grid(count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    steps = torch.linspace(-1.3, 1.3, count, dtype=dtype)
    return torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1)


def volume(mesh: gd.Mesh) -> torch.Tensor:
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6


def assert_manifold(mesh: gd.Mesh) -> None:
    """Two faces on each edge, once each way; and the faces around each vertex are one fan."""
    ahead: dict[int, dict[int, int]] = {}
    for face in mesh.faces.tolist():
        assert len(set(face)) == 3
        for k in range(3):
            link = ahead.setdefault(face[k], {})
            assert face[k - 2] not in link  # each directed edge once
            link[face[k - 2]] = face[k - 1]
    for link in ahead.values():
        first = at = next(iter(link))
        for _ in range(len(link) - 1):
            at = link[at]
            assert at != first
        assert link[at] == first


DISTANCES = {
    "distance": (lambda p, r: p.norm(dim=-1) - r, 2e-3),
    "squares": (lambda p, r: p.square().sum(-1) - r**2, 5e-3),
    # A step between two nodes: where on an edge it is can be told, but not evenly.
    "occupancy": (lambda p, r: 0.5 - torch.sigmoid(-40 * (p.norm(dim=-1) - r)), 3e-2),
}


@pytest.mark.parametrize("name", DISTANCES)
def test_volume_of_a_ball_and_its_derivative(name: str) -> None:
    """dV/dr = 4πr²; the mesh itself is a little smaller than the ball."""
    field, tolerance = DISTANCES[name]
    radius = torch.tensor(RADIUS, dtype=torch.float64, requires_grad=True)
    mesh = gd.isosurface(field(grid(33), radius), bounds=BOX)
    assert mesh.is_closed and mesh.euler_characteristic == 2
    assert float(volume(mesh).detach()) == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=8e-3)
    (slope,) = torch.autograd.grad(volume(mesh), radius, retain_graph=True)
    assert float(slope) == pytest.approx(4 * math.pi * RADIUS**2, rel=tolerance)


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("gradient", ["edges", "normal"])
def test_functions(name: str, gradient: str) -> None:
    field, tolerance = DISTANCES[name]
    radius = torch.tensor(RADIUS, requires_grad=True)
    mesh = gd.isosurface(lambda p: field(p, radius), bounds=BOX, resolution=33, gradient=gradient)
    (slope,) = torch.autograd.grad(volume(mesh), radius, retain_graph=True)
    # On the level itself, the inscribed mesh is what is left of the error, whatever the function.
    assert float(slope) == pytest.approx(4 * math.pi * RADIUS**2, rel=tolerance if gradient == "edges" else 5e-3)
    if gradient == "normal":
        assert torch.allclose(mesh.vertices.norm(dim=-1), radius, atol=1e-5)
        # n · ∂v/∂r = 1 at each vertex, and nothing along the surface.
        (turned,) = torch.autograd.grad(
            mesh.vertices[7] @ torch.linalg.cross(mesh.vertices[7].detach(), torch.ones(3)), radius
        )
        assert float(turned) == pytest.approx(0, abs=1e-5)


def test_a_function_and_its_values_give_the_same_mesh() -> None:
    field = DISTANCES["squares"][0]
    radius = torch.tensor(RADIUS, requires_grad=True)
    one = gd.isosurface(lambda p: field(p, radius), bounds=BOX, resolution=(20, 20, 20))
    two = gd.isosurface(field(grid(20, torch.float32), radius), bounds=BOX)
    assert torch.equal(one.faces, two.faces) and torch.allclose(one.vertices, two.vertices, atol=1e-6)
    slopes = [torch.autograd.grad(volume(mesh), radius)[0] for mesh in (one, two)]
    assert float(slopes[0]) == pytest.approx(float(slopes[1]), rel=1e-4)


def test_gradcheck_of_volume_and_area() -> None:
    values = torch.randn(4, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)) + 0.3
    # Steep enough that no difference of two values is damped.
    values = (values + 0.3 * values.sign()).requires_grad_()

    def measures(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mesh = gd.isosurface(x)
        return volume(mesh), mesh.face_areas.sum()

    # Damping is a ten-thousandth where values differ by a tenth of the mean.
    assert torch.autograd.gradcheck(measures, values, eps=1e-6, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("size", [3, 7, 16])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_noise_gives_manifolds(size: int, share: float) -> None:
    """Cells of all kinds, sheets that meet one face twice among them."""
    generator = np.random.default_rng(size)
    for _ in range(20 if size < 10 else 3):
        mesh = gd.isosurface(torch.from_numpy(generator.random((size, size, size)) - share))
        assert_manifold(mesh)
        assert bool((mesh.vertices.abs() <= 1 + 1e-12).all())
        assert not mesh.num_faces or float(volume(mesh)) > 0  # outwards


def test_sheets_that_come_near_each_other_stay_apart() -> None:
    """Two balls in diagonal corners of the same cells."""
    centres = torch.tensor([[-0.5, -0.5, 0], [0.5, 0.5, 0]])
    mesh = gd.isosurface(
        lambda p: (p[:, None] - centres).norm(dim=-1).amin(-1) - 0.68, bounds=[[-2.5] * 3, [2.5] * 3], resolution=6
    )
    assert mesh.is_closed and mesh.euler_characteristic == 4


def test_a_torus_that_splits() -> None:
    """Volume and its derivative go on while the ring falls into two pieces."""
    at = grid(48)
    ring = torch.hypot(at[..., :2].norm(dim=-1) - 0.7, at[..., 2]) - 0.25
    found = []
    for depth in (0.0, 0.2, 0.4):
        cut = torch.tensor(depth, dtype=torch.float64, requires_grad=True)
        values = ring + cut * torch.exp(-((at[..., 1] / 0.15) ** 2))
        mesh = gd.isosurface(values, bounds=BOX)
        assert_manifold(mesh)
        (slope,) = torch.autograd.grad(volume(mesh), cut)
        assert -10 < float(slope) < 0
        found.append((mesh.euler_characteristic, float(volume(mesh).detach())))
    assert [euler for euler, _ in found] == [0, 0, 4]
    assert found[0][1] > found[1][1] > found[2][1]


def test_inside_above_and_level() -> None:
    field = grid(20).norm(dim=-1)
    below, above = gd.isosurface(field, 0.8, bounds=BOX), gd.isosurface(-field, -0.8, bounds=BOX, inside="above")
    assert torch.equal(below.faces, above.faces) and torch.allclose(below.vertices, above.vertices)
    assert float(volume(below)) > 0


def test_a_solid_at_the_border_is_closed_there() -> None:
    values = torch.full((4, 5, 6), -1.0, dtype=torch.float64, requires_grad=True)
    mesh = gd.isosurface(values, bounds=[[0, 0, 0], [3, 4, 5]])
    assert mesh.is_closed and mesh.euler_characteristic == 2
    assert mesh.bounds.tolist() == [[0, 0, 0], [3, 4, 5]]
    volume(mesh).backward()
    assert not values.grad.any()


def test_values_at_the_level_and_values_that_are_none() -> None:
    values = grid(9).norm(dim=-1) - 0.65  # 0 at some nodes
    values.requires_grad_()
    mesh = gd.isosurface(values, bounds=BOX)
    assert_manifold(mesh)
    volume(mesh).backward()
    assert bool(values.grad.isfinite().all())
    odd = values.detach().clone()
    odd[4, 4, 4], odd[0, 0, 0], odd[8, 8, 8] = -torch.inf, torch.inf, torch.nan
    odd.requires_grad_()
    mesh = gd.isosurface(odd, bounds=BOX)
    assert_manifold(mesh)
    assert bool(mesh.vertices.isfinite().all())
    volume(mesh).backward()
    assert bool(odd.grad.isfinite().all())


@pytest.mark.parametrize("exponent", [-100, 120])
def test_the_unit_of_values_does_not_count(exponent: int) -> None:
    values = torch.randn(7, 7, 7, generator=torch.Generator().manual_seed(0))
    leaf = (values * 2.0**exponent).requires_grad_()
    mesh, expected = gd.isosurface(leaf), gd.isosurface(values)
    assert torch.equal(mesh.vertices, expected.vertices) and torch.equal(mesh.faces, expected.faces)
    (mesh.vertices.sum() * 2.0**exponent).backward()
    assert bool(leaf.grad.isfinite().all()) and bool(leaf.grad.any())


def test_resolution_of_numpy() -> None:
    assert gd.isosurface(lambda p: p.norm(dim=-1) - 0.5, resolution=np.int64(8)).is_closed


def test_nothing_inside() -> None:
    mesh = gd.isosurface(torch.ones(3, 3, 3))
    assert mesh.num_faces == 0 and mesh.num_vertices == 0
    assert gd.isosurface(lambda p: p[:, 0] ** 2 + 1, resolution=4, gradient="normal").num_faces == 0


def test_nearly_level_values_have_a_bounded_gradient() -> None:
    values = grid(12).norm(dim=-1) - 0.8
    values[6:, 6:, 6:] = values[6:, 6:, 6:] * 1e-9
    values.requires_grad_()
    volume(gd.isosurface(values, bounds=BOX)).backward()
    assert float(values.grad.abs().max()) < 100


def test_same_bits_on_any_number_of_threads() -> None:
    values = torch.randn(24, 24, 24, generator=torch.Generator().manual_seed(0))
    found = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = values.clone().requires_grad_()
            mesh = gd.isosurface(leaf)
            mesh.vertices.square().sum().backward()
            found.append((mesh.vertices.detach(), mesh.faces, leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@pytest.mark.parametrize(
    ("values", "change", "error", "message"),
    [
        (torch.zeros(2, 3, 3, 3), {}, ValueError, "isosurface: `values` must be of shape .X, Y, Z., each 2 or more"),
        (torch.zeros(3, 3, 1), {}, ValueError, "`values` must be of shape"),
        (torch.zeros(3, 3, 3, dtype=torch.int64), {}, TypeError, "`values` must be floating-point"),
        (None, {}, TypeError, "`values` must be a tensor or an array"),
        (torch.zeros(3, 3, 3), {"level": math.nan}, ValueError, "`level` must be"),
        (torch.zeros(3, 3, 3), {"bounds": [[0, 0, 0], [1, 1, 0]]}, ValueError, "a lowest and a highest corner"),
        (torch.zeros(3, 3, 3), {"bounds": [0, 1]}, ValueError, "`bounds` must be"),
        (torch.zeros(3, 3, 3), {"resolution": 3}, ValueError, "`resolution` must be left out"),
        (torch.zeros(3, 3, 3), {"inside": "in"}, ValueError, "`inside` must be one of"),
        (torch.zeros(3, 3, 3), {"gradient": "edge"}, ValueError, "`gradient` must be one of .* Did you mean 'edges'"),
        (torch.zeros(3, 3, 3), {"empty": "none"}, ValueError, "`empty` must be one of mesh, error"),
        (torch.ones(3, 3, 3), {"empty": "error"}, ValueError, "`level` must be one that some values are below; got 0"),
        (torch.ones(3, 3, 3), {"empty": "error", "inside": "above", "level": 2.0}, ValueError, "values from 1 to 1"),
        (torch.full((3, 3, 3), math.nan), {}, ValueError, "`values` must be numbers; got NaN everywhere"),
        (torch.zeros(3, 3, 3), {"gradient": "normal"}, ValueError, "`values` must be a function for gradient"),
        (torch.zeros(3, 3, 3, device="meta"), {}, RuntimeError, "`values` must be on the CPU"),
        (lambda p: p[:, 0], {}, TypeError, "`resolution` must be the number of nodes"),
        (lambda p: p[:, 0], {"resolution": 1}, ValueError, "`resolution` must be an integer ≥ 2"),
        (lambda p: p[:, 0], {"resolution": 8.0}, TypeError, "`resolution` must be an integer ≥ 2"),
        (lambda p: p[:, 0], {"resolution": (3, 3)}, ValueError, "`resolution` must be one number, or three"),
        (lambda p: p[:, 0], {"resolution": 100_000}, ValueError, "`resolution` must be of fewer than 2³¹ nodes"),
        (lambda p: p, {"resolution": 3}, ValueError, "`values` must be a function that returns"),
        (lambda p: p[:, 0].detach(), {"resolution": 3, "gradient": "normal"}, ValueError, "differentiable in the"),
    ],
)  # fmt: skip
def test_wrong_arguments(values: object, change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gd.isosurface(values, **change)
