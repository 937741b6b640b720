# SPDX-License-Identifier: Apache-2.0
"""Soft dynamic time warping: against all alignments one by one, and against the relaxed program it is."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.transport import soft_dtw
from geodiff.transport.warping import aligned

F64 = torch.float64


def alignments(n: int, m: int) -> Iterator[list[tuple[int, int]]]:
    """All paths of pairs from (0, 0) to (n − 1, m − 1)."""
    if n == m == 1:
        yield [(0, 0)]
        return
    for i, j in ((n - 1, m - 1), (n - 1, m), (n, m - 1)):
        if i and j:
            for path in alignments(i, j):
                yield [*path, (n - 1, m - 1)]


def program(costs: torch.Tensor, gamma: float) -> torch.Tensor:
    """The program over the pairs as one writes it, with the relaxed minimum, whose gradient is autograd's."""
    n, m = costs.shape
    r: dict[tuple[int, int], torch.Tensor] = {(-1, -1): costs.new_zeros(())}
    none = costs.new_full((), 1e9)
    for i in range(n):
        for j in range(m):
            ways = torch.stack([r.get(at, none) for at in ((i - 1, j - 1), (i - 1, j), (i, j - 1))])
            r[i, j] = costs[i, j] - gamma * torch.logsumexp(-ways / gamma, 0)
    return r[n - 1, m - 1]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (5, 2), (4, 5), (5, 5)])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.3, 5.0])
def test_it_is_the_soft_minimum_over_all_alignments(n: int, m: int, gamma: float) -> None:
    draw = torch.Generator().manual_seed(n * m)
    x, y = (torch.rand(size, 3, dtype=F64, generator=draw) for size in (n, m))
    costs = torch.cdist(x, y).square()
    paths = list(alignments(n, m))
    totals = torch.stack([torch.stack([costs[at] for at in path]).sum() for path in paths])
    likely = torch.softmax(-totals / gamma, 0) if gamma else (totals == totals.min()).to(F64)
    weights = torch.zeros(n, m, dtype=F64)
    for path, share in zip(paths, likely, strict=True):
        for at in path:
            weights[at] += share
    value = -gamma * torch.logsumexp(-totals / gamma, 0) if gamma else totals.min()
    found = soft_dtw(x, y, gamma)
    assert torch.allclose(found.value, value, atol=1e-10) and torch.allclose(found.weights, weights, atol=1e-9)


def test_gradient_is_that_of_the_program() -> None:
    x, y = (torch.rand(size, 2, dtype=F64, requires_grad=True) for size in (5, 4))
    costs = (x[:, None] - y).square().sum(-1)
    expected = torch.autograd.grad(program(costs, 0.2), (x, y))
    found = torch.autograd.grad(soft_dtw(x, y, 0.2).value, (x, y))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))
    assert torch.autograd.gradcheck(lambda x, y: soft_dtw(x, y, 0.2).value, (x, y))


def test_batches_dtypes_and_units() -> None:
    x, y = torch.rand(3, 1, 6, 2, dtype=F64), torch.rand(4, 5, 2, dtype=F64)
    both = soft_dtw(x, y, 0.1)
    assert both.value.shape == (3, 4) and both.weights.shape == (3, 4, 6, 5)
    one = soft_dtw(x[2, 0], y[1], 0.1)
    assert torch.allclose(both.value[2, 1], one.value) and torch.allclose(both.weights[2, 1], one.weights)
    small = soft_dtw(x.float(), y.float(), 0.1)
    assert small.value.dtype == torch.float32 and torch.allclose(small.value, both.value.float(), atol=1e-5)
    for scale in (1e-4, 1e4):
        scaled = soft_dtw(scale * x, scale * y, 0.1 * scale**2)
        assert torch.allclose(scaled.value / scale**2, both.value) and torch.allclose(scaled.weights, both.weights)
    assert torch.allclose(soft_dtw(x, y, 1e-9).value, soft_dtw(x, y, 0.0).value, atol=1e-6)
    assert soft_dtw(torch.zeros(0, 3, 2), torch.zeros(4, 2)).value.shape == (0,)
    with torch.inference_mode():
        assert torch.equal(soft_dtw(x, y, 0.1).value, both.value)
    far = aligned(torch.full((2, 3), 1e30), 1e-3)
    assert bool(far[1].isfinite().all())


def test_a_spline_that_crosses_itself_is_aligned_in_its_order() -> None:
    """Measured along a figure of eight; at the crossing, nearest points take the other branch's, an alignment not."""
    t = torch.linspace(0, 1, 30, dtype=F64)

    def eight(at: torch.Tensor, size: float) -> torch.Tensor:
        return torch.stack([torch.sin(4 * torch.pi * at), size * torch.sin(2 * torch.pi * at)], -1)

    measured = eight(t**1.3, 1.0) + 0.01 * torch.randn(30, 2, dtype=F64, generator=torch.Generator().manual_seed(0))
    control = gd.splines.fit_curve(eight(t, 0.6), control_count=13).curve.control_points.detach().requires_grad_()
    optimizer = torch.optim.Adam([control], lr=0.05)
    where = torch.linspace(0, 1, 40, dtype=F64)
    for _ in range(25):
        optimizer.zero_grad()
        loss = soft_dtw(gd.NURBSCurve(control, degree=3)(where), measured, 0.002).value
        loss.backward()
        optimizer.step()
    found = gd.NURBSCurve(control.detach(), degree=3)(where)
    weights = soft_dtw(found, measured, 0.002).weights
    along = (weights * where[:, None]).sum(0) / weights.sum(0)
    assert bool((along.diff() > -1e-6).all())
    assert float((along - t**1.3).abs().max()) < 0.06  # where each was measured, to two samples of the curve
    assert float(torch.cdist(measured, found).amin(1).max()) < 0.2  # half a step between samples is 0.15
    nearest = where[torch.cdist(measured, found).argmin(1)]
    assert float((nearest - t**1.3).abs().max()) > 0.3


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "empty": (lambda: soft_dtw(torch.zeros(0, 2), torch.zeros(3, 2)), ValueError, "soft_dtw: `x` must be of one point"),
    "nan": (lambda: soft_dtw(torch.zeros(2, 2), torch.zeros(3, 2) / 0), ValueError, "soft_dtw: `y` must be finite"),
    "gamma": (
        lambda: soft_dtw(torch.zeros(2, 2), torch.zeros(3, 2), -1.0),
        ValueError,
        "`gamma` must be finite and ≥ 0",
    ),
    "axes": (lambda: soft_dtw(torch.zeros(2, 2), torch.zeros(3, 3)), ValueError, "soft_dtw: "),
    "half": (lambda: soft_dtw(torch.zeros(2, 2).half(), torch.zeros(3, 2)), TypeError, "soft_dtw: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
