# SPDX-License-Identifier: Apache-2.0
"""Piecewise polynomials with free cuts: against all partitions, and the projection that their gradient is."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from geodiff.ops import _op
from geodiff.reference.pieces import pieces_take as reference_take
from geodiff.splines import fit_pieces
from geodiff.splines.pieces_search import Costs, WeightedCosts

ROUNDING = 1e-12  # some thousand roundings of sums of squares of size 1
T = torch.linspace(0, torch.pi, 200, dtype=torch.float64)
WAVE = (3 * T).sin().abs()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def residual(x: np.ndarray, u: np.ndarray, omega: np.ndarray, degree: int) -> float:
    """The weighted sum of squares of one piece, by NumPy's least squares."""
    root = np.sqrt(omega)[:, None]
    v = np.polynomial.legendre.legvander((u - u.mean()) / max(np.ptp(u), 1e-9), degree) * root
    return float(np.square(x * root - v @ np.linalg.lstsq(v, x * root, rcond=None)[0]).sum())


def all_partitions(
    x: torch.Tensor, pieces: int, degree: int, u: torch.Tensor, omega: torch.Tensor, least: int
) -> tuple[float, list[int]]:
    """The best of all partitions, tried one by one."""
    n, best = len(x), (np.inf, [0])
    xs, us, os = x.numpy(), u.numpy(), omega.numpy()
    cost = {(a, b): residual(xs[a:b], us[a:b], os[a:b], degree) for a in range(n) for b in range(a + least, n + 1)}
    for cuts in itertools.combinations(range(1, n), pieces - 1):
        ends = list(itertools.pairwise((0, *cuts, n)))
        if all(b - a >= least for a, b in ends):
            best = min(best, (sum(cost[e] for e in ends), list(cuts)))
    return best


@pytest.mark.parametrize("uneven", [False, True])
@pytest.mark.parametrize(("degree", "channels"), [(0, 1), (1, 1), (2, 2)])
def test_best_of_all_partitions(degree: int, channels: int, uneven: bool) -> None:
    x = random(12, channels, seed=degree)
    u = torch.arange(12, dtype=torch.float64)
    omega = torch.ones(12, dtype=torch.float64)
    options: dict[str, Any] = {}
    if uneven:
        u = (3 + u) ** 1.5
        omega = torch.linspace(0.2, 3, 12, dtype=torch.float64)
        options = {"parameters": u, "weights": omega}
    for pieces, least in ((1, degree + 1), (2, degree + 1), (3, degree + 1), (4, degree + 1), (3, 4)):
        sse, cuts = all_partitions(x, pieces, degree, u, omega, least)
        fit = fit_pieces(x, pieces, degree, min_length=least, **options)
        assert fit.sse == pytest.approx(sse, rel=ROUNDING, abs=ROUNDING)
        assert pieces == 12 // least or fit.cuts.tolist() == cuts
    price = 0.8
    totals = [
        all_partitions(x, k, degree, u, omega, degree + 1)[0] + price * k for k in range(1, 12 // (degree + 1) + 1)
    ]
    fit = fit_pieces(x, degree=degree, penalty=price, **options)
    assert float(fit.sse) + price * int(fit.count) == pytest.approx(min(totals), rel=ROUNDING)


@pytest.mark.parametrize("given", [None, T])
def test_a_wave_of_three_arches(given: torch.Tensor | None) -> None:
    for pieces, sse in ((1, 19.2549), (2, 17.3638), (3, 15.2625), (4, 12.46906), (6, 7.43504)):
        assert fit_pieces(WAVE, pieces, parameters=given).sse == pytest.approx(sse, rel=3e-6)
    assert fit_pieces(WAVE, 6, 1, parameters=given).sse == pytest.approx(0.738729, rel=1e-6)
    fit = fit_pieces(WAVE, 3, 2, parameters=given)
    assert fit.sse == pytest.approx(0.0616764, rel=1e-6)
    assert fit.cuts.tolist() == [67, 133]
    fit = fit_pieces(WAVE, 6, 3, parameters=given)
    assert fit.sse == pytest.approx(1.40521e-4, rel=4e-6)
    assert fit.cuts.tolist() == [34, 67, 100, 133, 166]
    space = torch.stack([T.cos(), T.sin(), WAVE], -1)
    assert fit_pieces(space, 3, 2, parameters=given).sse == pytest.approx(0.0642972, rel=1e-6)
    for price, count in ((1e-3, 6), (1e-2, 6), (1e-1, 3), (1.0, 3)):
        assert fit_pieces(WAVE, degree=3, penalty=price, parameters=given).count == count


def test_costs_without_the_quadrangle_inequality() -> None:
    """Divide and conquer would be wrong here."""
    x = torch.tensor([0.0, 10, 0], dtype=torch.float64)
    costs = [fit_pieces(x[a:b], 1).sse for a, b in ((0, 2), (1, 3), (0, 3))]
    assert costs[0] + costs[1] > costs[2] + 33
    for seed in range(5):
        x = torch.randint(0, 4, (12, 1), generator=torch.Generator().manual_seed(seed)).double()
        sse, _ = all_partitions(x, 4, 0, T[:12], torch.ones(12).double(), 1)
        assert fit_pieces(x, 4).sse == pytest.approx(sse, rel=ROUNDING, abs=ROUNDING)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5, 9])
def test_costs_of_all_pieces(degree: int, weighted: bool) -> None:
    x = random(60, 2, seed=degree).numpy() + 1e4
    u, omega = np.arange(60.0), np.ones(60)
    costs = Costs(x, degree)
    if weighted:
        u, omega = np.cumsum(0.1 + np.random.default_rng(0).random(60)), 0.1 + np.random.default_rng(1).random(60)
        costs = WeightedCosts(x, degree, u, omega)
    worst = 0.0
    for m in range(60):
        own = costs.push(m)
        for start in range(0, m + 1, 7):
            part = slice(start, m + 1)
            expected = residual(x[part], u[part], omega[part], degree) if m - start > degree else 0.0
            worst = max(worst, abs(own[start] - expected))
    assert worst < 1e-7  # 1e4 is known to 2e-12, and the cost of 60 points is the square of a few


def test_offset_in_single_precision() -> None:
    """Prefix sums of squares would have an error of thousands."""
    x = 1e4 + random(120).float()
    fit = fit_pieces(x, 3)
    assert fit.values.dtype == fit.sse.dtype == torch.float32
    assert fit.sse == pytest.approx(float(fit_pieces(x.double() - 1e4, 3).sse), rel=1e-6)


def test_the_jacobian_is_a_projection() -> None:
    x = random(40, seed=2)
    for degree in (0, 1, 2):
        jacobian = torch.autograd.functional.jacobian(lambda x, d=degree: fit_pieces(x, 5, d).values, x)
        torch.testing.assert_close(jacobian, jacobian.mT, atol=ROUNDING, rtol=0)
        torch.testing.assert_close(jacobian @ jacobian, jacobian, atol=ROUNDING, rtol=0)
        assert float(jacobian.trace()) == pytest.approx(5 * (degree + 1), abs=ROUNDING)


@pytest.mark.parametrize("options", [{}, {"weights": torch.linspace(0.3, 2, 14), "parameters": T[:14] ** 2}])
def test_gradient(options: dict[str, Any]) -> None:
    x = random(2, 14, 2, seed=4).requires_grad_()

    def fit(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = fit_pieces(x, 3, 1, **options)
        return found.values, found.sse, found.coefficients

    assert torch.autograd.gradcheck(fit, x)
    assert torch.autograd.gradgradcheck(fit, x)
    with pytest.raises(RuntimeError, match=r"fit_pieces does not take part in torch.func. Take gradients with"):
        torch.func.vmap(lambda x: fit(x)[0])(x)


def test_each_item_of_a_batch_has_its_own_cuts() -> None:
    x = torch.stack([WAVE, WAVE.roll(20), 0 * WAVE], 0)[..., None]
    fit = fit_pieces(x, degree=3, penalty=0.1)
    assert fit.count.tolist() == [3, 4, 1]
    assert fit.cuts.shape == (3, 3)
    assert fit.cuts[2].tolist() == [200] * 3
    for item in range(3):
        alone = fit_pieces(x[item], degree=3, penalty=0.1)
        assert torch.equal(alone.values, fit.values[item])
        assert torch.equal(alone.sse, fit.sse[item])
    with pytest.raises(ValueError, match=r"PieceFit.curve: `fit` must be of one sequence; got a batch \(3,\). Fit one"):
        fit.curve(0)


def test_curves_of_the_pieces() -> None:
    x = torch.stack([T, WAVE], -1)
    fit = fit_pieces(x, 3, 4, parameters=T)
    for i, part in enumerate(x.tensor_split(fit.cuts.tolist())):
        curve = fit.curve(i)
        inside = (fit.breaks[i] <= T) & (fit.breaks[i + 1] >= T)
        assert int(inside.sum()) == len(part)
        torch.testing.assert_close(curve(T[inside]), fit.values[inside], atol=ROUNDING, rtol=0)
    with pytest.raises(ValueError, match=r"PieceFit.curve: `i` must be an integer ≤ 2; got 3"):
        fit.curve(3)


def test_exact_pieces_cost_nothing() -> None:
    x = torch.cat([T[:30] ** 2, 5 - T[:30], T[:40] ** 3 - 9 * T[:40]])
    fit = fit_pieces(x, 3, 3)
    assert fit.cuts.tolist() == [30, 60]
    assert fit.sse < 1e-24
    assert fit_pieces(torch.full((9,), 0.1), 3, 0).cuts.tolist() == [1, 2]  # equal ones: the lowest


def test_the_order_of_size_does_not_matter() -> None:
    fit = fit_pieces(WAVE, 5, 2, parameters=1e6 + 1e-3 * T, weights=torch.full_like(T, 7.0))
    assert torch.equal(fit.cuts, fit_pieces(WAVE * 1e9 - 1e3, 5, 2).cuts)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (torch.tensor(1.0), {"pieces": 1}, r"`x` must be of shape \(N,\) or \(\.\.\., N, C\) with N >= 2"),
        (torch.zeros(1, 3), {"pieces": 1}, r"`x` must be of shape \(N,\)"),
        (torch.tensor([1, torch.nan]), {"pieces": 1}, r"`x` must be finite; got nan at index \(1,\)"),
        (WAVE, {}, r"`pieces` must be given, or `penalty`, but not both; got neither"),
        (WAVE, {"pieces": 2, "penalty": 1.0}, r"but not both; got both"),
        (WAVE, {"pieces": 0}, r"`pieces` must be an integer ≥ 1; got 0"),
        (WAVE, {"pieces": 51, "degree": 3}, r"at most N / 4 for N = 200 points; got 51\. At most 50 pieces have 4"),
        (WAVE, {"pieces": 2, "degree": -1}, r"`degree` must be an integer ≥ 0"),
        (WAVE, {"pieces": 2, "degree": 10}, r"`degree` must be an integer ≤ 9"),
        (WAVE, {"pieces": 2, "degree": 2, "min_length": 2}, r"`min_length` must be an integer ≥ 3; got 2"),
        (WAVE, {"penalty": 0.0}, r"`penalty` must be more than 0; got 0.0\. Give `pieces` for a fixed number"),
        (WAVE, {"penalty": -1.0}, r"`penalty` must be finite and ≥ 0"),
        (WAVE[:3], {"penalty": 1.0, "degree": 3}, r"`x` must be at least 4 points for degree 3; got 3"),
        (WAVE, {"pieces": 2, "parameters": T[1:]}, r"`parameters` must be of shape \(200,\)"),
        (WAVE, {"pieces": 2, "parameters": T // 1}, r"`parameters` must be increasing; got 0 before 0 at index 0"),
        (WAVE, {"pieces": 2, "weights": T[1:]}, r"`weights` must be of shape \(200,\)"),
        (WAVE[:, None], {"pieces": 2, "weights": torch.ones(3, 200)}, r"`weights` must be of shape \(200,\)"),
        (torch.zeros(2, 9, 1), {"pieces": 2, "weights": torch.ones(3, 9)}, r"`weights` must be of shape \(2, 9\)"),
        (WAVE, {"pieces": 2, "weights": T}, r"`weights` must be positive; got 0\. Leave out points"),
    ],
)
def test_bad_arguments(x: torch.Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="fit_pieces: .*" + message):
        fit_pieces(x, **options)


@pytest.mark.parametrize("small", [1.0, 1e-310])
@pytest.mark.parametrize(("degree", "channels", "count"), [(0, 1, 5), (1, 2, 70), (3, 1, 130), (9, 3, 64)])
def test_taking_a_point_is_its_twin(degree: int, channels: int, count: int, small: float) -> None:
    """Point after point, with starts dropped, some more than one block of lanes, and some of hardly any weight."""
    draw = torch.Generator().manual_seed(degree)
    x = torch.randn(channels, count, generator=draw, dtype=torch.float64)
    at = torch.rand(count, generator=draw, dtype=torch.float64).cumsum(0)
    weights = torch.rand(count, generator=draw, dtype=torch.float64) + 0.1
    weights[1::4] *= small
    shape = (degree + 1, degree + 1 + channels, count)
    own, twin = ([torch.zeros(shape, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)] for _ in range(2))
    starts = torch.arange(count)
    for m in range(count):
        given = {"starts": starts, "at": at, "x": x, "first": m // 3, "last": m + 1, "point": m}
        given |= {"weight": float(weights[m]), "unit": 2.5}
        _op.call(_op.kernels.pieces_take, state=own[0], cost=own[1], **given)
        reference_take(*twin, **given)
    for a, b in zip(own, twin, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize("size", [1e-200, 1e-9, 1e200])
def test_weights_of_any_size(size: float) -> None:
    x = torch.sin(torch.linspace(0, 9, 80, dtype=torch.float64)).abs()
    weights = torch.linspace(1, 2, 80, dtype=torch.float64)
    expected, found = (fit_pieces(x, 3, 2, weights=w) for w in (weights, weights * size))
    assert torch.equal(found.cuts, expected.cuts)
    assert float(found.sse) == pytest.approx(float(expected.sse) * size, rel=1e-9)


@pytest.mark.parametrize("small", [1e-320, 5e-309, 1e-200])
def test_points_of_hardly_any_weight_have_hardly_any_say(small: float) -> None:
    """Also where a product with the weight has no finite inverse."""
    x, weights = random(40, 2, seed=3), torch.ones(40, dtype=torch.float64)
    weights[5:8] = 1e-30
    expected = fit_pieces(x, 3, 2, weights=weights)
    weights[5:8] = small
    found = fit_pieces(x, 3, 2, weights=weights)
    assert torch.equal(found.cuts, expected.cuts)
    assert float(found.sse) == pytest.approx(float(expected.sse), rel=1e-12)


@pytest.mark.parametrize(("degree", "apart"), [(9, 1e-18), (3, 1e-53), (1, 1e-160)])
def test_points_so_near_that_powers_of_their_distance_vanish(degree: int, apart: float) -> None:
    """Such a fit may be one of a lower degree; pieces have the points that they need."""
    at = torch.cat([torch.arange(20, dtype=torch.float64) * apart, torch.arange(1, 21, dtype=torch.float64)])
    fit = fit_pieces(random(40, 2), 2, degree, parameters=at)
    assert fit.values.isfinite().all() and degree < int(fit.cuts) < 40 - degree


@pytest.mark.parametrize("weighted", [False, True])
def test_same_bits_on_any_number_of_threads(weighted: bool) -> None:
    options = {"weights": 0.1 + random(3000, seed=1).square()} if weighted else {}
    x, found, threads = random(3000, 2), [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = x.clone().requires_grad_()
            fit = fit_pieces(leaf, 5, 2, **options)
            (fit.values.square().sum() + fit.sse).backward()
            found.append((fit.values.detach(), fit.cuts, leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
