# SPDX-License-Identifier: Apache-2.0
"""Soft quantiles and selections: their condition, limits, gradients and what outliers do to them."""

import math
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff import soft

D = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of forward mode
DRAW = torch.Generator().manual_seed(4)
X = torch.randn(3, 9, generator=DRAW, dtype=D)
LAWS = ("logistic", "cauchy", "optimal", "uniform")


@pytest.mark.parametrize("law", LAWS)
def test_the_condition_holds(law: str) -> None:
    for q in (0.1, 0.5, 0.83):
        t = soft.quantile(X, q, law, temperature=0.4)
        share = soft.as_distribution(law).cdf((t[:, None] - X) / 0.4).mean(-1)
        torch.testing.assert_close(share, torch.full((3,), q, dtype=D))
        torch.testing.assert_close(
            soft.selection(X, 9 * q, law, temperature=0.4).sum(-1), torch.full((3,), 9 * q, dtype=D)
        )
        few = soft.selection(X, 9 * q, law, temperature=0.4, largest=True)
        torch.testing.assert_close(few, soft.selection(-X, 9 * q, law, temperature=0.4))


@pytest.mark.parametrize("law", LAWS)
def test_limits(law: str) -> None:
    for x in (X,) if law in ("cauchy", "optimal") else (X, X[:, :8]):  # between two, polynomial tails decide
        hard = torch.quantile(x, 0.5, dim=-1)
        torch.testing.assert_close(soft.quantile(x, 0.5, law, temperature=1e-9), hard, rtol=0, atol=1e-7)
    kept = soft.selection(X, 4, law, temperature=1e-9)
    expected = torch.zeros_like(X).scatter(-1, X.argsort(-1)[:, :4], 1.0)
    torch.testing.assert_close(kept, expected, rtol=0, atol=1e-6)
    assert soft.selection(X, 9, law, temperature=0.1).eq(1).all()
    tied = soft.selection(torch.tensor([0.0, 1.0, 1.0, 5.0]), 2, law, temperature=1e-4)
    torch.testing.assert_close(tied, torch.tensor([1.0, 0.5, 0.5, 0.0]), rtol=0, atol=1e-3)
    # The order of the inputs, one value, and float32.
    way = torch.randperm(9, generator=DRAW)
    torch.testing.assert_close(
        soft.selection(X[:, way], 4, law, temperature=0.1), soft.selection(X, 4, law, temperature=0.1)[:, way]
    )
    torch.testing.assert_close(soft.quantile(X[:, :1], 0.5, law, temperature=0.1), X[:, 0])
    torch.testing.assert_close(
        soft.quantile(X.float(), 0.4, law, temperature=0.1).double(),
        soft.quantile(X, 0.4, law, temperature=0.1),
        atol=1e-5,
        rtol=0,
    )


def test_selection_is_transport_to_two_bins() -> None:
    # Xie et al.: entropic transport of the values to "in" (k of n) and "out", with costs that differ by the value.
    costs = torch.stack([X[0], torch.zeros(9, dtype=D)], dim=-1)
    weights = torch.tensor([4 / 9, 5 / 9], dtype=D)
    plan = gd.sinkhorn(cost_matrix=costs, b=weights, epsilon=0.3).plan()
    torch.testing.assert_close(soft.selection(X[0], 4, temperature=0.3), 9 * plan[:, 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("law", ["logistic", "cauchy"])
def test_gradients(law: str) -> None:
    x, t = X[:1, :4].clone().requires_grad_(), torch.tensor(0.5, dtype=D, requires_grad=True)
    assert gradcheck(lambda x, t: soft.quantile(x, 0.3, law, temperature=t), (x, t), check_forward_ad=True)
    assert gradcheck(lambda x, t: soft.selection(x, 2.5, law, temperature=t), (x, t), check_forward_ad=True)
    (slope,) = torch.autograd.grad(soft.quantile(x, 0.3, law, temperature=0.5).sum(), x)
    assert slope.min() >= 0  # it rises with every value
    torch.testing.assert_close(slope.sum(-1), torch.ones(1, dtype=D))
    with pytest.raises(RuntimeError, match="not twice differentiable"):
        (slope,) = torch.autograd.grad(soft.quantile(x, 0.3, temperature=0.5).sum(), x, create_graph=True)
        slope.square().sum().backward()


def test_an_outlier_does_not_move_a_median() -> None:
    x = torch.cat([X[0], torch.full((3,), 1e12, dtype=D)])
    there = soft.quantile(x, 0.5, temperature=0.1)
    x[-1] = 1e15
    torch.testing.assert_close(soft.quantile(x, 0.5, temperature=0.1), there, rtol=0, atol=1e-14)
    amid = torch.tensor([0.0, 0.0, 9.0, 9.0], requires_grad=True)  # a gap, and a law without tails
    middle = soft.quantile(amid, 0.5, "uniform", temperature=0.1)
    (slope,) = torch.autograd.grad(middle, amid)
    assert middle.item() == pytest.approx(4.5) and slope.eq(0).all()


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": X.long()}, TypeError, "`x` must be a floating tensor"),
    ({"x": X[:, :0]}, ValueError, "`x` must be of one value or more"),
    ({"x": X * math.nan}, ValueError, "`x` must be finite"),
    ({"temperature": 0}, ValueError, "`temperature` must be positive"),
    ({"distribution": "levy"}, ValueError, "`distribution` must be symmetric"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="quantile: " + message):
        soft.quantile(**{"x": X, "q": 0.5, "temperature": 0.1, **change})
    with pytest.raises(error, match="selection: " + message):
        soft.selection(**{"x": X, "k": 2, "temperature": 0.1, **change})


def test_bad_shares() -> None:
    for q in (0.0, 1.0):
        with pytest.raises(ValueError, match="`q` must be between 0 and 1, exclusive"):
            soft.quantile(X, q, temperature=0.1)
    for q in (-0.1, 2.0, math.nan):
        with pytest.raises(ValueError, match="`q` must be"):
            soft.quantile(X, q, temperature=0.1)
    with pytest.raises(ValueError, match="`k` must be at most 9; got 10"):
        soft.selection(X, 10, temperature=0.1)
    with pytest.raises(ValueError, match="`k` must be above 0; got 0"):
        soft.selection(X, 0, temperature=0.1)


@pytest.mark.parametrize("count", [1, 2, 9])
def test_trimmed_is_the_mean_of_the_smallest_with_their_weights_for_a_gradient(count: int) -> None:
    draw = torch.Generator().manual_seed(count)
    r = torch.rand(3, count, generator=draw, dtype=torch.float64, requires_grad=True)
    for keep in (0.5, 0.7, 1.0):
        k = keep * count
        whole, part = int(k), k - int(k)
        ranked = r.detach().sort(-1).values
        last = part * ranked[:, min(whole, count - 1)]
        expected = (ranked[:, :whole].sum(-1) + last) / k
        close = soft.trimmed_mean(r, keep, temperature=1e-9)
        torch.testing.assert_close(close, expected, rtol=0, atol=1e-7)
        eased = soft.trimmed_mean(r, keep, temperature=0.1)
        assert (eased <= expected + 1e-12).all() and (eased >= expected - 0.1 * count * math.log(2) / k - 1e-12).all()
        (slope,) = torch.autograd.grad(eased.sum(), r)
        assert (slope >= 0).all()
        torch.testing.assert_close(slope.sum(-1), torch.ones(3, dtype=torch.float64))
        t = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda r, t, keep=keep: soft.trimmed_mean(r, keep, temperature=t), (r, t))


@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_values_closer_than_a_rounding_share_alike(dtype: torch.dtype) -> None:
    x = torch.full((4,), 1000.0, dtype=dtype)  # float32 has no number between these and a threshold a few τ away
    for tau in (1e-2, 1e-5, 1e-7):
        torch.testing.assert_close(soft.selection(x, 1, temperature=tau), torch.full_like(x, 0.25), rtol=1e-4, atol=0)
        at = soft.trimmed_mean(x, 0.25, temperature=tau)
        torch.testing.assert_close(at, torch.tensor(1000.0, dtype=dtype), rtol=1e-4, atol=0)
    assert soft.quantile(x, 0.5, temperature=1e-9).dtype == dtype


def test_trimmed_does_not_see_outliers() -> None:
    r = torch.cat(
        [torch.rand(90, generator=torch.Generator().manual_seed(0)), torch.full((10,), 1e30)]
    ).requires_grad_()
    loss = soft.trimmed_mean(r, 0.8, temperature=1e-2)
    (slope,) = torch.autograd.grad(loss, r)
    assert 0.3 < loss.item() < 0.6 and slope[90:].eq(0).all()
    with pytest.raises(RuntimeError, match="not twice differentiable"):
        (slope,) = torch.autograd.grad(soft.trimmed_mean(r, 0.8, temperature=1e-2), r, create_graph=True)
        slope.sum().backward()


def test_bad_trims() -> None:
    r = torch.rand(5)
    with pytest.raises(ValueError, match="`keep` must be above 0; got 0"):
        soft.trimmed_mean(r, 0, temperature=0.1)
    with pytest.raises(ValueError, match=r"`keep` must be at most 1; got 1.5"):
        soft.trimmed_mean(r, 1.5, temperature=0.1)
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        soft.trimmed_mean(r, temperature=0.0)
    with pytest.raises(TypeError, match=r"trimmed_mean: `residuals` must be a floating"):
        soft.trimmed_mean(torch.arange(4), temperature=0.1)
    with pytest.raises(ValueError, match=r"trimmed_mean: `residuals` must be finite"):
        soft.trimmed_mean(r * math.nan, temperature=0.1)
