# SPDX-License-Identifier: Apache-2.0
"""Charts by the CPU's kernels, against the same in torch."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from geodiff.atlas.charts import Charts
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.host_batch import HostBatch
from geodiff.atlas.places import served
from geodiff.atlas.ragged import Ragged
from geodiff.atlas.training import Batch
from geodiff.native import cpu

ROUNDING = 1e-9  # of steps in double precision, whose sums are in another order


@pytest.fixture(params=cpu.simd_levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = cpu.simd_level()
    cpu.extension().set_simd_level(request.param)
    yield request.param
    cpu.extension().set_simd_level(before)


def charts(widths: tuple[int, ...], count: int = 4, dtype: torch.dtype = torch.float64) -> Charts:
    draw = torch.Generator().manual_seed(len(widths))
    sizes = list(zip((2, *widths), (*widths, 3), strict=True))

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(count, *shape, generator=draw, dtype=torch.float64).to(dtype)

    turn = torch.linalg.qr(some(3, 3))[0]
    return Charts(tuple(some(i, o) / i**0.5 for i, o in sizes), tuple(0.2 * some(o) for _, o in sizes), some(2, 3),
                  some(3), some(3), turn, 0.5 + some().abs())  # fmt: skip


def training(widths: tuple[int, ...], dtype: torch.dtype = torch.float64, **how: Any) -> tuple[Batch, HostBatch, Any]:
    start = charts(widths, dtype=dtype)
    draw = torch.Generator().manual_seed(1)
    rows = torch.tensor([37, 50, 1, 23])
    mask = torch.arange(50) < rows[:, None]
    uv, target = (torch.rand(4, 50, k, generator=draw, dtype=torch.float64).to(dtype) for k in (2, 3))
    weight = torch.rand(4, 50, generator=draw, dtype=torch.float64).to(dtype) * mask
    weight[1, ::3] = 0
    given = (torch.arange(4), start, uv, target, weight)
    return Batch(*given, **how), HostBatch(*given, rows=rows, **how), mask


@pytest.mark.parametrize("widths", [(64, 64, 64), (13, 5, 9), (33,)])
@pytest.mark.parametrize("how", [{}, {"residual": False}, {"move_uv": False}])
def test_steps_are_those_of_torch(widths: tuple[int, ...], how: dict[str, bool], level: str) -> None:
    plain, host, mask = training(widths, **how)
    rates = [0.01, 0.02, 0.005, 0.01]
    for some in (rates[:1], rates[1:]):
        assert torch.allclose(plain.steps(some), host.steps(some), rtol=ROUNDING)
        assert torch.allclose(plain.out[mask], host.out[mask], atol=ROUNDING)
    for own, other in zip((*host.parameters, host.uv), (*plain.parameters, plain.uv), strict=True):
        assert torch.allclose(own, other, atol=ROUNDING)
    assert torch.allclose(plain.image()[mask], host.image()[mask], atol=ROUNDING)
    assert torch.allclose(plain.out[mask], host.out[mask], atol=ROUNDING)  # from before the last step, still
    assert how.get("move_uv", True) != torch.equal(host.uv, training(widths)[1].uv)


def test_single_precision() -> None:
    plain, host, mask = training((64, 64, 64), torch.float32)
    assert torch.allclose(plain.steps([0.01] * 5), host.steps([0.01] * 5), rtol=1e-4)
    assert torch.allclose(plain.image()[mask], host.image()[mask], atol=1e-4)


def test_a_chart_goes_on_alone_as_in_company() -> None:
    """Whoever else is there, whoever rests, and on any number of threads: the same bits."""
    _, host, _ = training((64, 64, 64), torch.float32)
    _, other, _ = training((64, 64, 64), torch.float32)
    active = torch.tensor([True, False, True, True])
    before, threads = host.parameters[1][1].clone(), torch.get_num_threads()
    host.steps([0.01] * 3, active)
    assert torch.equal(host.parameters[1][1], before)
    torch.set_num_threads(1 if threads > 1 else 3)
    with torch.inference_mode():
        other.steps([0.01] * 3, active)
    torch.set_num_threads(threads)
    stay = torch.tensor([True, False, False, True])
    other.keep(stay)
    assert torch.equal(host.steps([0.01] * 2, active)[stay], other.steps([0.01] * 2))
    assert all(torch.equal(a[stay], b) for a, b in zip(host.parameters, other.parameters, strict=True))
    assert torch.equal(host.image()[stay], other.image()) and torch.equal(host.uv[stay], other.uv)


def test_a_chart_ends_as_it_does_in_other_company() -> None:
    """Whichever others arrive before it: how far to trust its points does not depend on them."""
    draw = torch.Generator().manual_seed(0)
    ball = torch.nn.functional.normalize(torch.randn(1200, 3, generator=draw), dim=1)
    cloud = ball + 0.02 * torch.randn(1200, 3, generator=draw)
    one, other = (fit_charts(cloud, chunk=chunk, rounds=0) for chunk in (256, 5))
    assert len(one.steps.unique()) > 1  # some arrived before others
    assert torch.equal(one.steps, other.steps)
    assert torch.allclose(one.predicted, other.predicted, atol=1e-6)


def test_a_number_that_is_none_stays_one() -> None:
    """As in torch, where relu hands NaN on: what went wrong can be seen."""
    _, host, _ = training((8, 8))
    host.parameters[0][0, 0, 0] = torch.nan
    loss = host.steps([0.01])
    assert bool(loss[0].isnan()) and not bool(loss[1:].isnan().any())


@pytest.mark.parametrize("widths", [(64, 64, 64), (13, 5, 9), (33,)])
def test_places_are_those_of_torch(widths: tuple[int, ...], level: str) -> None:
    """Of charts with none, one or many places; and gradients are still torch's."""
    own = charts(widths, 6)
    chart = torch.repeat_interleave(torch.arange(6), torch.tensor([3, 0, 1100, 1, 0, 70]))
    uv = torch.rand(len(chart), 2, dtype=torch.float64)
    assert served(own.activation, own.parameters(), uv)
    leaf = uv.clone().requires_grad_()
    assert not served(own.activation, own.parameters(), leaf)
    points, slope = own.flat_jacobian(leaf, chart)
    assert points.requires_grad and slope.requires_grad
    found = own.flat_jacobian(uv, chart)
    assert torch.allclose(found[0], points, atol=ROUNDING) and torch.allclose(found[1], slope, atol=ROUNDING)
    assert torch.allclose(own.flat(uv, chart), points, atol=ROUNDING)
    assert torch.allclose(own.flat(uv.float(), chart), points, atol=1e-5)
    alone = torch.cat([own.flat(uv[[k]], chart[[k]]) for k in (0, 500, 1103, 1104)])
    assert torch.equal(alone, own.flat(uv, chart)[[0, 500, 1103, 1104]])


def test_positions_have_the_dtype_of_the_centres() -> None:
    own = charts((8, 8))
    own = dataclasses.replace(own, center=own.center.float(), rotation=own.rotation.float(), scale=own.scale.float())
    uv, chart = torch.rand(5, 2), torch.tensor([0, 0, 1, 3, 3])
    points, slope = own.flat_jacobian(uv, chart)
    by_torch = own.flat_jacobian(uv.requires_grad_(), chart)
    assert points.dtype == slope.dtype == by_torch[0].dtype == torch.float32
    assert own.flat(uv.detach(), chart).dtype == torch.float32
    assert torch.allclose(points, by_torch[0], atol=1e-5) and torch.allclose(slope, by_torch[1], atol=1e-5)


def test_charts_are_looked_at_beside_a_layout_too() -> None:
    own, uv = charts((8,)), torch.rand(3, 2)
    layout = Ragged(torch.tensor([0, 1, 2]), 4)
    with pytest.raises(ValueError, match=r"Charts.flat: `chart` must be sorted and in 0 … 3"):
        own.flat(uv, torch.tensor([0, 1, 4]), layout)
    with pytest.raises(ValueError, match=r"`chart` must be int64 of shape \(3,\)"):
        own.flat(uv, torch.tensor([0, 1]), layout)


@pytest.mark.parametrize("hidden", [15, 16, 30])
def test_networks_of_any_depth(hidden: int) -> None:
    """Those that are deeper than the kernels' are torch's."""
    own, uv, chart = charts((4,) * hidden), torch.rand(7, 2, dtype=torch.float64), torch.arange(7) // 2
    assert served("relu", own.parameters(), uv) == (hidden < 16)
    assert torch.allclose(own.flat(uv, chart), own.flat(uv.clone().requires_grad_(), chart), atol=ROUNDING)
    cloud = torch.rand(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 1.0, 0.01])
    assert bool(fit_charts(cloud, widths=(4,) * hidden, steps=2, rounds=1).predicted.isfinite().all())


def test_what_the_kernels_do_not_do() -> None:
    own = charts((8,))
    assert not served("tanh", own.parameters())
    assert not served("relu", own.parameters()[:1] + own.parameters()[2:3] + own.parameters()[-2:])  # a plane alone
    assert not served("relu", [p.half() for p in own.parameters()])
    assert not served("relu", own.parameters(), torch.rand(1))
