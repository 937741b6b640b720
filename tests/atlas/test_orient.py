# SPDX-License-Identifier: Apache-2.0
"""Normals that all point outwards, on surfaces whose outside is known."""

import math

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.atlas.proximity import sample_mesh
from geodiff.atlas.regions import Links
from geodiff.atlas.winding import REACH, WindingTree
from geodiff.scene.mesh import Mesh

RIGHT = 0.99  # share of normals on the right side
TREE_ERROR = 0.03  # of a winding number, at REACH radii


def drawn(mesh: Mesh, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    samples = sample_mesh(mesh, count, seed)
    return samples.points.double(), samples.normals.double()


def joined(*parts: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([p for p, _ in parts]), torch.cat([n for _, n in parts])


def inwards(part: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return part[0], -part[1]


def plate(thickness: float, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    box = gd.box(1.0)
    return drawn(box.with_vertices(box.vertices * torch.tensor([1.0, 1.0, thickness])), count, seed)


def wave(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    u, v = (2 * torch.rand(2, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1).unbind(0)
    points = torch.stack([u, v, 0.2 * (5 * u).sin() * (4 * v).cos()], 1)
    slope = [-(5 * u).cos() * (4 * v).cos(), 0.8 * (5 * u).sin() * (4 * v).sin(), torch.ones_like(u)]
    return points, torch.nn.functional.normalize(torch.stack(slope, 1), dim=1)


def roll(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A rolled sheet: three turns."""
    random = torch.rand(2, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    angle, r = 6 * math.pi * random[0].sqrt(), 0.1 + 0.3 * math.pi * random[0].sqrt()
    points = torch.stack([r * angle.cos(), r * angle.sin(), 1.5 * random[1]], 1)
    along = torch.stack([0.05 * angle.cos() - r * angle.sin(), 0.05 * angle.sin() + r * angle.cos()], 1)
    normals = torch.stack([along[:, 1], -along[:, 0], torch.zeros_like(r)], 1)
    return points, torch.nn.functional.normalize(normals, dim=1)


def turned(points: torch.Tensor, truth: torch.Tensor, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Another order, turn, place and unit."""
    generator = torch.Generator().manual_seed(seed)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    turn[:, 0] *= torch.linalg.det(turn).sign()
    order = torch.randperm(len(points), generator=generator)
    unit, place = 10.0 ** torch.randint(-4, 5, (1,), generator=generator), torch.randn(3, generator=generator)
    return unit * (points[order] @ turn.T + 3 * place), truth[order] @ turn.T


CLOSED = {
    "ball": lambda: drawn(gd.icosphere(4), 4000),
    "box": lambda: drawn(gd.box(1.0), 4000),
    "plate": lambda: plate(0.03, 8000),
    "shells": lambda: joined(drawn(gd.icosphere(4), 4000), inwards(drawn(gd.icosphere(4, radius=0.7), 2500))),
    "three shells": lambda: joined(
        drawn(gd.icosphere(4), 6000),
        inwards(drawn(gd.icosphere(4, radius=0.8), 4000)),
        drawn(gd.icosphere(4, radius=0.5), 2000),
    ),
}
OPEN = {"wave": lambda: wave(5000), "roll": lambda: roll(8000)}


def right(points: torch.Tensor, truth: torch.Tensor, normals: torch.Tensor | None = None) -> float:
    found = gd.atlas.orient(points, normals)
    return float(((found.normals * truth).sum(1) > 0).double().mean())


@pytest.mark.parametrize("name", CLOSED)
def test_closed_surfaces_face_outwards(name: str) -> None:
    assert right(*CLOSED[name]()) >= RIGHT


@pytest.mark.parametrize("name", OPEN)
def test_open_surfaces_face_one_way(name: str) -> None:
    points, truth = OPEN[name]()
    share = right(points, truth)
    assert max(share, 1 - share) >= RIGHT


@pytest.mark.parametrize("seed", range(8))
def test_draw_order_turn_and_unit_do_not_matter(seed: int) -> None:
    """On a solid whose walls are thin in places, and on an open surface."""
    slab, ball = plate(0.03, 3000, seed), drawn(gd.icosphere(4), 2000, seed)
    points, truth = turned(*joined((slab[0] + torch.tensor([0.0, 0.0, 2.0]), slab[1]), ball), seed)
    assert right(points, truth) >= RIGHT
    share = right(*turned(*wave(2500, seed), seed))
    assert max(share, 1 - share) >= RIGHT


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("thickness", [0.0075, 0.01])
def test_walls_thinner_than_the_spacing_without_noise(thickness: float, seed: int) -> None:
    """A half and two thirds of the spacing."""
    assert right(*turned(*plate(thickness, 10_000, seed), seed)) >= RIGHT


@pytest.mark.parametrize("seed", range(2))
def test_a_narrow_neck_relates_two_halves_of_an_open_surface(seed: int) -> None:
    points, truth = wave(8000, seed)
    kept = (points[:, 0].abs() > 0.3) | (points[:, 1].abs() < 0.07)
    share = right(*turned(points[kept], truth[kept], seed))
    assert max(share, 1 - share) >= RIGHT


@pytest.mark.parametrize("noise", [0.003, 0.01])
@pytest.mark.parametrize("name", ["ball", "wave"])
def test_with_noise(name: str, noise: float) -> None:
    points, truth = (CLOSED | OPEN)[name]()
    diagonal = float((points.amax(0) - points.amin(0)).norm())
    jitter = torch.randn(points.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    share = right(points + noise * diagonal * jitter, truth)
    assert (share if name == "ball" else max(share, 1 - share)) >= RIGHT


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_scale_place_and_order_do_not_matter(scale: float) -> None:
    points, truth = CLOSED["box"]()
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(2))
    moved = scale * points[order] + scale * torch.tensor([30.0, -20.0, 10.0], dtype=torch.float64)
    assert right(moved, truth[order]) >= RIGHT


def test_single_precision_and_its_dtype() -> None:
    points, truth = CLOSED["ball"]()
    found = gd.atlas.orient(points.float())
    assert found.normals.dtype == torch.float32
    assert float(((found.normals * truth).sum(1) > 0).double().mean()) >= RIGHT
    assert torch.allclose(found.normals.norm(dim=1), torch.ones(len(points)), atol=1e-6)


def test_given_axes_of_random_signs_are_sorted_out() -> None:
    points, truth = CLOSED["box"]()
    sign = torch.where(torch.rand(len(points), 1, generator=torch.Generator().manual_seed(3)) < 0.5, -1.0, 1.0)
    found = gd.atlas.orient(points, 3 * sign * truth)
    assert torch.allclose((found.normals * truth).sum(1).abs(), torch.ones(len(points), dtype=torch.float64))
    assert float(((found.normals * truth).sum(1) > 0).double().mean()) >= RIGHT
    assert found.given_agreement < 0.6 < 0.99 < found.agreement and 0.45 < found.turned < 0.55


def test_given_sides_that_agree_are_kept() -> None:
    points, truth = CLOSED["ball"]()
    few = torch.ones(len(points), 1)
    few[::20] = -1
    found = gd.atlas.orient(points, -truth * few)
    assert float((found.normals * truth).sum(1).max()) < 0
    assert abs(found.turned - 0.05) < 1e-3


def test_threads_do_not_matter() -> None:
    points, _ = CLOSED["shells"]()
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(gd.atlas.orient(points).normals)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_of_the_tree_against_all_pairs(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    points = torch.nn.functional.normalize(torch.randn(1500, 3, generator=generator, dtype=torch.float64), dim=1)
    area = 4 * math.pi / 1500 * (0.5 + torch.rand(1500, generator=generator, dtype=torch.float64))
    mu, width = area[:, None] * points, 0.05
    way = points[None] - points[:, None]
    r2 = way.square().sum(2, keepdim=True) + width**2
    field = ((way * mu).sum(2, keepdim=True) / r2**1.5).sum(1)[:, 0] / (4 * math.pi)
    adjoint = -(way * area[None, :, None] / r2**1.5).sum(1) / (4 * math.pi)
    slope = ((mu - 3 * way * (way * mu).sum(2, keepdim=True) / r2) / r2**1.5).sum(1) / (4 * math.pi)
    tree = WindingTree(points.to(dtype), area.to(dtype))
    given = mu.to(dtype)
    assert float((tree.field(given, width) - field).abs().max()) < TREE_ERROR
    assert float((tree.adjoint(area.to(dtype), width) - adjoint).abs().max()) < TREE_ERROR
    assert float((tree.slope(given, width) - slope).norm(dim=1).max() / slope.norm(dim=1).max()) < TREE_ERROR


def test_the_tree_is_exact_where_nothing_is_far(monkeypatch: pytest.MonkeyPatch) -> None:
    assert REACH < 1e9
    monkeypatch.setattr("geodiff.atlas.winding.REACH", 1e9)
    points = torch.rand(700, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    mu = torch.randn(700, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    tree = WindingTree(points, torch.ones(700, dtype=torch.float64))
    way = points[None] - points[:, None]
    field = ((way * mu).sum(2) / (way.square().sum(2) + 0.01**2) ** 1.5).sum(1) / (4 * math.pi)
    assert torch.allclose(tree.field(mu, 0.01), field, rtol=1e-9, atol=1e-9)
    values = torch.randn(700, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert math.isclose(float((tree.adjoint(values, 0.01) * mu).sum()), float((values * field).sum()), rel_tol=1e-9)


def test_bad_input() -> None:
    points, truth = CLOSED["ball"]()
    with pytest.raises(ValueError, match=r"orient: `points` must be .*\(N, 3\)"):
        gd.atlas.orient(points[:, :2])
    with pytest.raises(ValueError, match=r"orient: `points` must be at least 16 points; got 15"):
        gd.atlas.orient(points[:15])
    with pytest.raises(ValueError, match=r"orient: `points` must be in more than one place"):
        gd.atlas.orient(torch.zeros(20, 3))
    with pytest.raises(ValueError, match=r"orient: `points` must be .*finite"):
        gd.atlas.orient(torch.full((20, 3), math.nan))
    with pytest.raises(ValueError, match=r"orient: `normals` must be .*\(4000, 3\)"):
        gd.atlas.orient(points, truth[:5])
    with pytest.raises(ValueError, match=r"orient: `normals` must be not zero; got 1 zero vectors"):
        gd.atlas.orient(points, torch.cat([truth[1:], torch.zeros(1, 3)]))
    for noise in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"orient: `noise` must be finite and ≥ 0; got .* standard deviation"):
            gd.atlas.orient(points, noise=noise)
    with pytest.raises(TypeError, match=r"orient: `noise` must be a number ≥ 0"):
        gd.atlas.orient(points, noise="little")
    with pytest.raises(ValueError, match=r"orient: `points` must be at least 16 distinct points; got 2 of 40"):
        gd.atlas.orient(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]).repeat(20, 1))
    far = torch.full((1, 3), 2e7, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"orient: `points` must be in more than one place; got outliers"):
        gd.atlas.orient(torch.cat([points[::8], far]))


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e200])
def test_lengths_of_given_normals_do_not_matter(size: float) -> None:
    points, truth = (part[::8] for part in CLOSED["ball"]())
    found = gd.atlas.orient(points, -truth * size)
    assert torch.allclose(found.normals, -truth, atol=1e-6) and found.turned == 0 and found.regions == 1


def test_copies_count_once() -> None:
    points, truth = (part[::8] for part in CLOSED["ball"]())
    alone = gd.atlas.orient(points)
    many = gd.atlas.orient(points.repeat(20, 1))  # no neighbour is elsewhere
    assert torch.equal(many.normals, alone.normals.repeat(20, 1)) and many.regions == 1
    # As scanners do that write zeros where nothing came back.
    padded = gd.atlas.orient(torch.cat([torch.zeros(4000, 3), points + 2]))
    assert ((padded.normals[4000:] * truth).sum(1) > 0).double().mean() >= RIGHT and padded.regions == 2
    # Of given axes each copy keeps its own.
    axes = torch.cat([truth, -truth, truth])
    found = gd.atlas.orient(points.repeat(3, 1), axes)
    assert torch.allclose(found.normals, truth.repeat(3, 1), atol=1e-6) and found.turned == pytest.approx(1 / 3)


def test_duplicates_and_flat_clouds_are_finite() -> None:
    points, truth = CLOSED["ball"]()
    assert right(torch.cat([points, points[:500]]), torch.cat([truth, truth[:500]])) >= RIGHT
    flat = np.random.default_rng(0).random((500, 3)) * [1, 1, 0]
    found = gd.atlas.orient(torch.from_numpy(flat))
    assert torch.allclose(found.normals, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64), atol=1e-3)


def test_pairs_of_many_labels() -> None:
    """A product of two labels, which SciPy gives as int32, is larger than that."""
    x = np.array([[0.0, 0, 0], [1, 0, 0]])
    normals, near = np.array([[0.0, 0, 1], [0, 0, 1]]), np.array([[1], [0]])
    label = np.array([99_998, 99_999], dtype=np.int32)
    a, b, number, (total,) = Links(x, normals, near).between(label, np.ones(2))
    assert (int(a[0]), int(b[0]), int(number[0]), float(total[0])) == (99_998, 99_999, 2, 2.0)
