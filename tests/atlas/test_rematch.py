# SPDX-License-Identifier: Apache-2.0
"""The published loss: plans against SciPy's, gradients against differences of the least cost, pairs against the sum."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from geodiff.atlas import matching
from geodiff.atlas.charts import Charts, Placement
from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.consensus import others, pair_loss
from geodiff.atlas.fit import Fitter, Settings, fit_charts
from geodiff.atlas.rematch import Rematch
from geodiff.atlas.training import Batch
from tests.atlas.clouds import plane, sphere
from tests.atlas.test_fit import Pair, from_plane, same, together

EPSILON = 0.01
MARGINALS = 2e-3  # twice the L1 error at which a plan is taken


def patch(count: int, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, Charts]:
    """Two patches (2, count, 3) of a wavy sheet, and charts of them that are no planes."""
    flat = 2 * torch.rand(2 * count, 2, dtype=torch.float64) - 1
    points = torch.cat([flat, 0.3 * (2 * flat[:, :1]).sin() + 0.05 * torch.randn(2 * count, 1).double()], 1)
    chart = torch.arange(2).repeat_interleave(count)
    place = Placement.of(points, chart, 2)
    charts = Charts.create(None, (6, 5), 1, placement=place, activation="tanh")  # type: ignore[arg-type]
    moved = [(p + 0.3 * torch.randn_like(p)).to(dtype) for p in charts.parameters()]
    return place.into(points, chart, dtype).unflatten(0, (2, count)), charts.with_parameters(moved)


def squares(points: torch.Tensor, images: torch.Tensor) -> np.ndarray:
    return (points.double()[:, None] - images.double()[None]).square().sum(2).numpy()


def test_an_exact_plan_is_that_of_linear_programming() -> None:
    points, charts = patch(12)
    places = matching.lloyd(12).double().expand(2, 12, 2)
    images = charts.local(places)
    plans = Rematch(points, torch.ones(2, 12, dtype=torch.bool), "exact", EPSILON)
    target, weight = plans(images, places)
    assert torch.equal(weight, torch.ones(2, 12).double())
    sums = np.concatenate([np.kron(np.eye(12), np.ones((1, 12))), np.kron(np.ones((1, 12)), np.eye(12))])
    for x, y, goal, near in zip(points, images, target, plans.near, strict=True):
        cost = squares(x, y)
        best = linprog(cost.ravel(), A_eq=sums, b_eq=np.ones(24), bounds=(0, 1)).x.reshape(12, 12)
        i, j = linear_sum_assignment(cost)
        assert np.allclose(best[i, j], 1)
        assert torch.equal(goal[torch.from_numpy(j)], x)
        assert torch.equal(near, y[torch.from_numpy(j)])


def test_an_entropic_plan_is_that_of_plain_iterations() -> None:
    points, charts = patch(30)
    places = matching.lloyd(30).double().expand(2, 30, 2)
    images = charts.local(places)
    plans = Rematch(points, torch.ones(2, 30, dtype=torch.bool), "sinkhorn", EPSILON)
    target, _ = plans(images, places)
    for x, y, goal, near, uv in zip(points, images, target, plans.near, plans.uv, strict=True):
        kernel = np.exp(-squares(x, y) / EPSILON)
        v = np.ones(30)
        for _ in range(20_000):
            u = 1 / (kernel @ v)
            v = 1 / (kernel.T @ u)
        plan = torch.from_numpy(u[:, None] * kernel * v)  # doubly stochastic
        assert torch.allclose(goal, plan.T @ x, atol=30 * MARGINALS)
        assert torch.allclose(near, plan @ y, atol=30 * MARGINALS)
        assert torch.allclose(uv, plan @ places[0], atol=30 * MARGINALS)
    # Starting where it ended, it stays there; rows that repeat others have no say.
    again = plans(images, places)[0]
    assert torch.allclose(again, target, atol=30 * MARGINALS)


@pytest.mark.parametrize("method", ["exact", "sinkhorn"])
def test_the_gradient_is_that_of_the_least_cost(method: str) -> None:
    """Central differences of `min_P ⟨P, C⟩ (− ε H)` in weights and places, P solved anew at each."""
    points, charts = patch(14)
    uv = matching.lloyd(14).double().expand(2, 14, 2).clone()
    batch = Batch(torch.arange(2), charts, uv, points, torch.ones(2, 14).double(), move_uv=True)
    batch.step(0.0, Rematch(points, torch.ones(2, 14, dtype=torch.bool), method, EPSILON))
    leaves = [p.detach().clone() for p in charts.parameters()] + [uv]
    got = [*(p.grad for p in batch.parameters), batch.uv.grad]

    def least(values: list[torch.Tensor]) -> float:
        total = 0.0
        for x, y in zip(points, charts.with_parameters(values[:-1]).local(values[-1]), strict=True):
            cost = squares(x, y) / 14
            if method == "exact":
                total += cost[linear_sum_assignment(cost)].sum()
                continue
            kernel, v = np.exp(-14 * cost / EPSILON), np.ones(14)
            for _ in range(2000):
                u = 1 / (kernel @ v)
                v = 1 / (kernel.T @ u)
            total += EPSILON / 14 * (np.log(u).sum() + np.log(v).sum())
        return total

    step = 1e-6
    for leaf, slope in zip(leaves, got, strict=True):
        flat = leaf.view(-1)
        assert slope is not None
        scale = float(slope.abs().max())
        for k in torch.randperm(len(flat))[:2].tolist():
            value = float(flat[k])
            flat[k] = value + step
            above = least(leaves)
            flat[k] = value - step
            below = least(leaves)
            flat[k] = value
            wanted = (above - below) / (2 * step)
            near = 1e-6 if method == "exact" else 14 * MARGINALS * max(scale, 1.0)  # plans are taken at that error
            assert float(slope.reshape(-1)[k]) == pytest.approx(wanted, abs=near)


def test_rows_that_repeat_others_have_no_say() -> None:
    points, charts = patch(20)
    mask = torch.arange(20).expand(2, 20) < torch.tensor([[20], [13]])
    places = torch.stack([matching.lloyd(20), torch.cat([matching.lloyd(13), matching.lloyd(13)[-1:].expand(7, 2)])])
    images = charts.local(places.double())
    for method in ("exact", "sinkhorn"):
        target, weight = Rematch(points, mask, method, EPSILON)(images, places.double())
        assert not bool(weight[1, 13:].any()) and bool(torch.isfinite(target).all())
        small = Rematch(points[1:, :13], mask[1:, :13], method, EPSILON)(images[1:, :13], places[1:, :13].double())
        assert torch.allclose(target[1, :13], small[0][0], atol=13 * MARGINALS if method == "sinkhorn" else 0.0)
        assert torch.allclose(weight[1, :13] / weight[1, :13].sum(), small[1][0] / small[1].sum(), atol=MARGINALS)


def test_the_loss_of_pairs_is_the_plain_sum() -> None:
    fitter = Fitter(read_cloud(sphere(300, 0.02)), Settings(agreement="pairs", robust=False, consistency=0.7))
    fitter.predicted = fitter.local + 0.05 * torch.randn_like(fitter.local)
    patches = fitter.cover
    say = fitter._world().double().requires_grad_()
    rows: dict[int, list[int]] = {}
    for row, point in enumerate(patches.point.tolist()):
        rows.setdefault(point, []).append(row)
    pairs = torch.tensor([pair for own in rows.values() for pair in itertools.combinations(own, 2)])
    plain = (say[pairs[:, 0]] - say[pairs[:, 1]]).square().sum()
    assert float(pair_loss(say.detach(), patches.point, 300)) == pytest.approx(float(plain.detach()), rel=1e-10)
    given = patches.points[patches.point].double()
    ((say - given).square().sum() + 0.7 * plain).backward()
    # A chart's part of the gradient of the whole loss is what its own targets and weights give, to a factor of scale.
    target, weight = fitter._agreed()
    chart, scale = patches.chart, fitter.placement.scale.double()
    rest = 2 * weight[:, None] * (fitter.predicted - target)
    turned = torch.einsum("mk,mki->mi", rest.double(), fitter.placement.rotation[chart].double())
    assert say.grad is not None
    assert torch.allclose(turned * scale[chart, None], say.grad, atol=1e-5 * float(say.grad.abs().max()))
    mean, count = others(say, patches.point, 300)
    row = rows[5]
    assert torch.allclose(mean[row[0]], say[row[1:]].mean(0)) and float(count[row[0]]) == len(row) - 1


OPTIONS: list[dict[str, Any]] = [
    {"matching": "exact", "rematch": 1},
    {"matching": "sinkhorn", "rematch": 2, "epsilon": 0.02, "agreement": "pairs"},
]


DTYPES = list(zip(OPTIONS, (torch.float64, torch.float32), strict=True))


@pytest.mark.parametrize(("options", "dtype"), DTYPES)
def test_a_sheet_is_found_and_the_same_on_two_threads(options: dict[str, Any], dtype: torch.dtype) -> None:
    points = plane(400, 0.02).to(dtype)
    fits, threads = [], torch.get_num_threads()
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            fits.append(fit_charts(points, rounds=1, steps=40, **options))
    finally:
        torch.set_num_threads(threads)
    fit = fits[0]
    assert same(fit, fits[1])
    fitted = fit.fitted_points()
    assert fitted.dtype == dtype and float(from_plane(fitted).mean()) < 0.6 * float(from_plane(points).mean())
    assert bool(fit.converged.any())
    assert torch.allclose(fit.charts.flat(fit.uv, fit.cover.chart), fit.predicted, atol=1e-5)


@pytest.mark.parametrize("options", OPTIONS)
def test_killed_fits_resume_and_teams_agree(options: dict[str, Any]) -> None:
    points, options = sphere(250, 0.02), {**options, "chunk": 3, "rounds": 1, "steps": 21}
    whole = fit_charts(points, **options)
    saved: list[dict[str, torch.Tensor]] = []

    def stop(fitter: Fitter) -> None:
        saved.append({k: v.clone() for k, v in fitter.state().items()})
        if len(saved) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_charts(points, checkpoint=stop, **options)
    assert same(whole, fit_charts(points, state=saved[-1], **options))
    for fit in together(points, options, Pair):
        assert same(whole, fit)


@pytest.mark.parametrize("count", [20, 60])
@pytest.mark.parametrize("options", OPTIONS)
def test_few_points_and_few_charts(count: int, options: dict[str, Any]) -> None:
    flat = torch.nn.functional.normalize(torch.randn(count, 2), dim=1) * torch.rand(count, 1).sqrt()
    points = torch.cat([flat, 0.1 * flat[:, :1].square()], 1)
    for radius in (0.4, 1.0):  # of a disc, some charts and one
        fit = fit_charts(points, radius=radius, rounds=2, steps=25, **options)
        assert bool(torch.isfinite(fit.predicted).all()) and float(fit.pair_loss()) >= 0
        assert float((fit.fitted_points() - points).norm(dim=1).mean()) < 0.2
    assert len(fit.charts) == 1 and float(fit.pair_loss()) == 0


def test_flat_patches_are_not_matched_again_by_default() -> None:
    points = torch.cat([torch.rand(200, 2), 0.01 * torch.randn(200, 1)], 1)
    assert same(fit_charts(points, rematch=1, steps=20), fit_charts(points, steps=20))


def test_bad_settings_of_the_published_loss() -> None:
    with pytest.raises(ValueError, match=r"fit_atlas: `rematch` must be an integer ≥ 0"):
        Settings(rematch=-1)
    with pytest.raises(TypeError, match=r"fit_atlas: `rematch` must be an integer ≥ 0"):
        Settings(rematch=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`rematch` must be 0 where matching is 'projection'; got int 1"):
        Settings(matching="projection", rematch=1)
    with pytest.raises(ValueError, match=r"`agreement` must be one of mean, pairs.*Did you mean 'pairs'"):
        Settings(agreement="pair")
    with pytest.raises(ValueError, match=r"`epsilon` must be finite and ≥ 1e-05; got 0"):
        Settings(epsilon=0)
    with pytest.raises(ValueError, match=r"`gain` must be finite and ≥ 0.001; got -1"):
        Settings(gain=-1)
