# SPDX-License-Identifier: Apache-2.0
"""Fits: surfaces that are known, agreement, stops at the noise, and runs in parts."""

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

from geodiff.atlas.charts import Charts
from geodiff.atlas.cloud import read_cloud
from geodiff.atlas.fit import FittedCharts, Fitter, Settings, fit_charts
from geodiff.atlas.training import Batch
from tests.atlas.clouds import from_torus, plane, sheets, sphere, torus
from tests.atlas.test_charts import cover as patches

# What the issue asks of the fit: the raw points' error times this.
BAR = 0.6


def from_sphere(points: torch.Tensor) -> torch.Tensor:
    return (points.norm(dim=1) - 1).abs()


def from_plane(points: torch.Tensor) -> torch.Tensor:
    return points[:, 2].abs()


def same(a: FittedCharts, b: FittedCharts) -> bool:
    """Whether two fits have the same bits."""
    pairs = [(getattr(a, f), getattr(b, f)) for f in ("uv", "predicted", "weight", "rms", "steps", "converged")]
    pairs += zip(a.charts.parameters(), b.charts.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize(
    ("make", "distance", "noise"), [(plane, from_plane, 0.01), (sphere, from_sphere, 0.02), (torus, from_torus, 0.02)]
)
def test_known_surfaces_are_found(make: Callable, distance: Callable, noise: float) -> None:
    points = make(1200, noise)
    fit = fit_charts(points)
    raw = float(distance(points).mean())
    assert float(distance(fit.fitted_points()).mean()) < BAR * raw
    assert float(distance(fit.predicted).mean()) < BAR * raw
    assert fit.noise == pytest.approx(noise, rel=0.15)
    assert float(fit.converged.float().mean()) > 0.9 and fit.unfitted == 0
    # Charts agree to within the noise.
    assert float(fit.spread().mean()) < 0.5 * noise
    # What is predicted is where the charts are.
    again = fit.charts.flat(fit.uv, fit.cover.chart)
    assert torch.allclose(again, fit.predicted, atol=1e-5)
    assert bool(((fit.uv >= 0) & (fit.uv <= 1)).all())
    off = (fit.predicted - points[fit.cover.point]).square().sum(1)
    size = torch.bincount(fit.cover.chart)
    rms = (torch.zeros(len(size)).index_add(0, fit.cover.chart, off) / size).sqrt()
    assert torch.allclose(rms, fit.rms, rtol=1e-4)


def test_rounds_bring_agreement() -> None:
    points = sphere(600, 0.02)
    apart, together = fit_charts(points, rounds=0), fit_charts(points, rounds=3)
    assert float(together.spread().mean()) < 0.7 * float(apart.spread().mean())


def test_sheets_stay_apart() -> None:
    gap = 0.06
    points = sheets(1500, gap) + 0.002 * torch.randn(3000, 3)
    fit = fit_charts(points, radius=0.1, widths=(32, 32), rounds=1)
    assert float(fit.cover.radius[0]) > gap
    height = fit.fitted_points()[:, 2]
    assert float((height[:1500]).abs().max()) < 0.2 * gap
    assert float((height[1500:] - gap).abs().max()) < 0.2 * gap


@pytest.mark.parametrize("method", ["projection", "exact", "sinkhorn", "hybrid"])
def test_every_matching_fits_a_fold(method: str) -> None:
    angle = torch.rand(600) * 1.3 * torch.pi  # three quarters of a tube: it folds over its plane
    points = torch.stack([torch.cos(angle), torch.sin(angle), torch.rand(600) * 1.5], 1)
    fit = fit_charts(points, target=500, matching=method, steps=200, noise=0.0, rounds=1, widths=(32, 32))
    error = float((fit.fitted_points()[:, :2].norm(dim=1) - 1).abs().mean())
    assert error < (0.3 if method == "projection" else 0.05)
    assert fit.steps.tolist() == [200] * len(fit.charts) and not fit.converged.any()


def test_points_far_off_count_less() -> None:
    kept = lost = 0.0
    for _ in range(3):  # what one draw gains is as large as what differs from draw to draw
        points = sphere(800, 0.01)
        points[:16] *= 1.06
        kept += float(from_sphere(fit_charts(points, robust=False).fitted_points()).mean())
        fitted = from_sphere(fit_charts(points).fitted_points())
        lost += float(fitted.mean())
        assert float(fitted[:16].mean()) < 0.03
    assert lost < kept


def test_start_of_a_chart_does_not_depend_on_chunks() -> None:
    points = sphere(800, 0.01)
    a, b = fit_charts(points, chunk=7, steps=30), fit_charts(points, chunk=1000, steps=30)
    # Blocks of other sizes round otherwise, which steps of Adam and kinks of relu magnify; that is all.
    assert float((a.fitted_points() - b.fitted_points()).norm(dim=1).mean()) < 1e-2 * a.noise
    assert same(a, fit_charts(points, chunk=7, steps=30))


@pytest.mark.parametrize("kill", [2, 5])
def test_a_killed_fit_resumes_to_the_same(kill: int) -> None:
    points, options = sphere(800, 0.02), {"chunk": 10, "rounds": 2, "steps": 30}
    whole = fit_charts(points, **options)
    saved: list[dict[str, torch.Tensor]] = []

    def stop(fitter: Fitter) -> None:
        saved.append({k: v.clone() for k, v in fitter.state().items()})
        if len(saved) == kill:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_charts(points, checkpoint=stop, **options)
    seen: list[tuple[str, int, int, int, float]] = []
    resumed = fit_charts(points, state=saved[-1], progress=lambda *a: seen.append(a), **options)
    assert same(whole, resumed)
    assert [s[0] for s in seen] == ["fit"] * 3 + ["agree 1"] * 3 + ["agree 2"] * 3 and seen[-1][1:3] == (3, 3)
    with pytest.raises(ValueError, match="`state` must be of a fit of the same cloud and settings; got another"):
        fit_charts(points, state=saved[-1], widths=(8,), chunk=10)


class Pair:
    """Two threads in the place of two processes."""

    def __init__(self, rank: int, board: dict[int, Any], barrier: threading.Barrier) -> None:
        self.rank, self.size, self.board, self.barrier = rank, 2, board, barrier

    def union(self, mine: dict[int, Any]) -> dict[int, Any]:
        self.board[self.rank] = mine
        self.barrier.wait()
        both = {**self.board[1], **self.board[0]}
        self.barrier.wait()
        return both


def together(points: torch.Tensor, options: dict[str, Any], team: type[Pair]) -> list[FittedCharts]:
    """Fits of the two processes of a team."""
    board: dict[int, Any] = {}
    barrier = threading.Barrier(2, timeout=60)
    results: dict[int, FittedCharts] = {}

    def work(rank: int) -> None:
        results[rank] = fit_charts(points, team=team(rank, board, barrier), **options)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [results[0], results[1]]


def test_a_team_finds_the_same_as_one() -> None:
    points, options = sphere(800, 0.02), {"chunk": 10, "rounds": 2, "steps": 30}
    alone = fit_charts(points, **options)
    assert all(same(alone, fit) for fit in together(points, options, Pair))


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh"])
@pytest.mark.parametrize("residual", [True, False])
def test_a_step_is_adams(activation: str, residual: bool) -> None:
    """The written-out backward pass against autograd and torch.optim, chart by chart."""
    start = Charts.create(patches(3), (8, 6), seed=1, activation=activation, residual=residual)
    start = start.with_parameters([p + 0.1 * torch.randn_like(p) for p in start.parameters()])
    if not residual:
        start = dataclasses.replace(start, linear=start.linear * 0, offset=start.offset * 0)
    uv, target, weight = torch.rand(3, 10, 2) * 0.8 + 0.1, torch.randn(3, 10, 3), torch.rand(3, 10)
    batch = Batch(torch.arange(3), start, uv, target, weight, residual=residual)
    leaves = [p.clone().requires_grad_() for p in start.parameters()]
    place = uv.clone().requires_grad_()
    moved = leaves if residual else leaves[:-2]
    adam = torch.optim.Adam([{"params": moved, "lr": 0.01}, {"params": [place], "lr": 0.006}])
    for _ in range(3):
        adam.zero_grad()
        square = (start.with_parameters(leaves).local(place) - target).square().sum(2)
        loss = (square * weight).sum(1) / weight.sum(1)
        loss.sum().backward()
        assert torch.allclose(batch.step(0.01), loss, rtol=1e-4)
        adam.step()
    for own, other in zip(batch.parameters, leaves, strict=True):
        assert torch.allclose(own, other, atol=1e-4)
    assert torch.allclose(batch.uv, place, atol=1e-4)
    # A chart goes on alone as it would have in company.
    batch.keep(torch.tensor([False, True, False]))
    for k in range(2):
        company = Batch(torch.arange(3), start, uv, target, weight, residual=residual)
        for _ in range(4 + k):
            full = company.step(0.01)
        assert torch.allclose(batch.step(0.01), full[1:2], rtol=1e-4)


def test_bad_settings() -> None:
    points = sphere(100)
    with pytest.raises(TypeError, match=r"`step` must be a known argument; got an unknown name. Did you mean 'steps'"):
        fit_charts(points, step=3)
    for name, value in (("target", 3), ("steps", 0), ("rounds", -1), ("chunk", True), ("max_points", 9)):
        with pytest.raises((ValueError, TypeError), match=rf"fit_atlas: `{name}` must be an integer ≥"):
            fit_charts(points, **{name: value})
    for name in ("lr", "stop"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive"):
            fit_charts(points, **{name: -1.0})
    for name in ("noise", "consistency"):
        with pytest.raises(ValueError, match=f"`{name}` must be finite and ≥ 0; got -1"):
            fit_charts(points, **{name: -1.0})
    for name, value in (("noise", 1e9), ("lr", 2.0), ("radius", 5.0), ("consistency", 1e12)):
        with pytest.raises(ValueError, match=f"fit_atlas: `{name}` must be (less than the cloud is wide|at most 1)"):
            fit_charts(points, **{name: value})
    with pytest.raises(ValueError, match=r"`matching` must be one of hybrid.*Did you mean 'sinkhorn'"):
        Settings(matching="sinkhon")
    with pytest.raises(ValueError, match=r"`activation` must be one of relu"):
        Settings(activation="gelu")


def test_notes_tell_of_the_cloud() -> None:
    points = torch.cat([sphere(400, 0.01), torch.tensor([[5.0, 5.0, 5.0]])])
    fit = fit_charts(torch.cat([points, points[:3]]), steps=20, rounds=0, max_points=300)
    assert len(fit.notes) == 3 and fit.cover.outlier.sum() <= 1
    assert fit.notes[0].startswith("3 of 404 points repeat") and len(fit.cover.points) == 300
    cloud = read_cloud(points)
    fit = Fitter(cloud, Settings(steps=20, rounds=0)).run()
    assert torch.equal(fit.fitted_points()[400], points[400])
    assert float(fit.spread()[400]) == 0
