# SPDX-License-Identifier: Apache-2.0
"""Matching of points with places: against SciPy's assignment, and on patches that fold over their plane."""

import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from geodiff.atlas import matching
from geodiff.atlas.ragged import Ragged

COUNTS = torch.tensor([30, 20, 28])


@pytest.mark.parametrize("count", [1, 7, 60])
def test_lloyd_places_are_even(count: int) -> None:
    places = matching.lloyd(count)
    assert places.shape == (count, 2) and bool(((places > 0) & (places < 1)).all())
    grid = torch.cartesian_prod(torch.linspace(0, 1, 50), torch.linspace(0, 1, 50))
    share = torch.bincount(torch.cdist(grid, places).argmin(1), minlength=count) / len(grid)
    # Cells of nearly equal area; those of random points differ by a factor of ten.
    assert float(share.max() * count) < 1.6 and float(share.min() * count) > 0.5


def layout() -> Ragged:
    return Ragged(torch.arange(3).repeat_interleave(COUNTS), 3)


def test_exact_matching_is_scipys() -> None:
    rows, points = layout(), torch.randn(78, 3)
    places = matching.places(rows)
    frame = torch.randn(2, 3)
    images = [p @ frame for p in places]
    found = matching.match(points, images, rows, "exact")
    assert found.soft is None
    first = 0
    for n in COUNTS.tolist():
        x, own = points[first : first + n], matching.lloyd(n)
        cost = torch.cdist(x.double(), (own @ frame).double()).square().numpy()
        i, j = linear_sum_assignment(cost)
        got = torch.cdist(found.uv[first : first + n], own).argmin(1)
        assert torch.equal(got.sort()[0], torch.arange(n))  # each place once, no point without
        assert cost[range(n), got.numpy()].sum() == pytest.approx(cost[i, j].sum(), rel=1e-6)
        first += n


def test_sinkhorn_matching_is_near_the_exact_one() -> None:
    rows = layout()
    places = matching.places(rows)
    images = [torch.nn.functional.pad(2 * p - 1, (0, 1)) for p in places]
    # The points are the images themselves, shuffled a little: the exact matching is known.
    own = torch.cat([matching.lloyd(n) for n in COUNTS.tolist()])
    points = torch.nn.functional.pad(2 * own - 1, (0, 1)) + 0.01 * torch.randn(78, 3)
    found = matching.match(points, images, rows, "sinkhorn")
    # Plans of ε = 0.002 reach as far as √ε in the patch, half of that in the square.
    assert float((found.uv - own).norm(dim=1).max()) < math.sqrt(matching.EPSILON)
    assert found.soft is not None and found.potentials is not None
    for block, soft, image in zip(rows.blocks, found.soft, images, strict=True):
        assert float((soft - image)[block.mask].norm(dim=1).max()) < 2 * math.sqrt(matching.EPSILON)
    again = matching.match(points, images, rows, "sinkhorn", found)
    assert torch.allclose(again.uv, found.uv, atol=1e-3)


def test_soft_targets_carry_the_gradient_of_the_cost() -> None:
    rows = Ragged(torch.zeros(20, dtype=torch.int64), 1)
    points = torch.randn(20, 3) * torch.tensor([1.0, 1.0, 0.1])
    image = torch.nn.functional.pad(2 * matching.lloyd(20) - 1, (0, 1))[None]
    found = matching.match(points, [image], rows, "sinkhorn")
    from geodiff.transport.sinkhorn import sinkhorn

    leaf = image[0].double().requires_grad_()
    sinkhorn(points.double(), leaf, epsilon=matching.EPSILON).cost.backward()
    assert found.soft is not None
    own = 2 * (image[0] - found.soft[0][0]) / 20
    # The matching stops at a marginal error of 1e-3.
    assert torch.allclose(own.double(), leaf.grad, atol=2e-3 * float(leaf.grad.abs().max()) + 1e-3 / 20)


def test_folded_patches_are_seen() -> None:
    angle = math.pi * torch.rand(200)
    half = torch.stack([torch.zeros(200), torch.sin(angle), torch.cos(angle)], 1)  # normals of half a cylinder
    flat = torch.tensor([[0.0, 0.6, 0.8]]).expand(200, 3)
    chart = torch.arange(2).repeat_interleave(200)
    axis = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert matching.folded(torch.cat([half, flat]), chart, axis).tolist() == [True, False]


def test_projection_is_straight_down() -> None:
    local = torch.tensor([[0.0, 0.0, 0.3], [-1.0, 0.5, 0.0]])
    assert torch.equal(matching.project(local), torch.tensor([[0.5, 0.5], [0.0, 0.75]]))
