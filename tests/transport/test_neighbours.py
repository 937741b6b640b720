# SPDX-License-Identifier: Apache-2.0
"""Soft nearest neighbours: limits, shares, gradients, bad arguments."""

from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd

D = torch.float64
DRAW = torch.Generator().manual_seed(2)
X, Y = (torch.rand(2, n, 3, generator=DRAW, dtype=D) for n in (5, 20))


@pytest.mark.parametrize("dimension", [3, 9])  # by a tree, and by all distances
@pytest.mark.parametrize("k", [1, 4])
def test_limit_is_the_nearest(k: int, dimension: int) -> None:
    x, y = (torch.rand(2, n, dimension, generator=DRAW, dtype=D) for n in (5, 20))
    distance, index = torch.cdist(x, y).topk(k, largest=False)
    found = gd.transport.soft_nearest(x, y, k, temperature=1e-7)
    torch.testing.assert_close(found.distance, distance)
    assert torch.equal(found.candidates[..., :k], index)
    torch.testing.assert_close(found.gather(y), torch.stack([b[i] for b, i in zip(y, index, strict=True)]))


def test_shares_and_candidates() -> None:
    found = gd.transport.soft_nearest(X, Y[0], 3, temperature=0.05)
    assert found.weight.shape == (2, 5, 3, 12) and found.candidates.shape == (2, 5, 12)
    torch.testing.assert_close(found.weight.sum(-1), torch.ones(2, 5, 3, dtype=D))
    assert (found.distance.diff(dim=-1) > 0).all()
    wide = gd.transport.soft_nearest(X, Y[0], 3, temperature=0.005, candidates=20)
    few = gd.transport.soft_nearest(X, Y[0], 3, temperature=0.005, candidates=10)
    torch.testing.assert_close(wide.distance, few.distance, rtol=0, atol=1e-6)
    single = gd.transport.soft_nearest(X.float(), Y.float(), 3, temperature=0.05, method="bitonic")
    double = gd.transport.soft_nearest(X, Y, 3, temperature=0.05, method="bitonic")
    torch.testing.assert_close(single.distance.double(), double.distance, rtol=0, atol=1e-5)


def test_gradients() -> None:
    x, y, t = X[:1, :2].clone().requires_grad_(), Y[:1, :6].clone().requires_grad_(), torch.tensor(0.1, dtype=D)
    label = torch.rand(6, 1, generator=DRAW, dtype=D)

    def read(x: torch.Tensor, y: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        found = gd.transport.soft_nearest(x, y, 2, temperature=t)
        return torch.cat([found.distance.reshape(-1), found.gather(label).reshape(-1)])

    assert gradcheck(read, (x, y, t.requires_grad_()))
    near = gd.transport.soft_nearest(y[0], y[0], 2, temperature=0.1)  # each is its own nearest
    (slope,) = torch.autograd.grad(near.distance.sum(), y)
    assert torch.isfinite(slope).all()


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"k": 0}, ValueError, "`k` must be an integer ≥ 1; got 0"),
    ({"k": 21}, ValueError, "`k` must be at most M = 20; got 21"),
    ({"k": 5, "candidates": 4}, ValueError, "`k` must be at most the 4 candidates; got 5"),
    ({"candidates": 21}, ValueError, "`candidates` must be an integer ≤ 20"),
    ({"temperature": 0.0}, ValueError, "`temperature` must be positive"),
    ({"method": "hard"}, ValueError, "`method` must be one of"),
    ({"x": X[..., :2]}, ValueError, "soft_nearest"),
    ({"y": Y[:, :0]}, ValueError, "soft_nearest"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        gd.transport.soft_nearest(**{"x": X, "y": Y, "k": 2, "temperature": 0.1, **change})


def test_bad_values_to_gather() -> None:
    near = gd.transport.soft_nearest(torch.zeros(1, 3), torch.eye(3), 1, temperature=0.1)
    for values, error, message in (
        (torch.ones(3), ValueError, r"`values` must be of shape \(\.\.\., M, C\); got"),
        (torch.ones(2, 3), ValueError, r"`values` must be of shape \(\.\.\., M, C\) with M ≥ 3; got"),
        (torch.ones(3, 1).double(), TypeError, r"`values` must be torch\.float32 like the weights"),
        (torch.ones(3, 1).long(), TypeError, "`values` must be a floating tensor"),
    ):
        with pytest.raises(error, match=r"SoftNeighbours\.gather: " + message):
            near.gather(values)
