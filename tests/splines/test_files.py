# SPDX-License-Identifier: Apache-2.0
"""Files of splines, checked against geomdl, rhino3dm and Open CASCADE."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.scene import atomic
from geodiff.splines import NURBS, NURBSCurve, NURBSSurface, NURBSVolume
from geodiff.splines.files import load_splines, save_splines

# Decimal text of 17 digits is exact, and dividing by a weight and multiplying again costs a few roundings of numbers of
# size 1; other libraries evaluate in another order. 1e-12 is some thousand roundings.
ROUND_TRIP = 1e-12

KINDS: dict[int, type[NURBS]] = {1: NURBSCurve, 2: NURBSSurface, 3: NURBSVolume}


def make(
    shape: Sequence[int],
    degree: Sequence[int],
    dim: int = 3,
    rational: bool = False,
    clamped: bool = True,
    periodic: Sequence[bool] | None = None,
    seed: int = 0,
) -> NURBS:
    """Draw a spline in float64 with uneven knots on domains such as [-1.5, 2]."""
    draw = torch.Generator().manual_seed(seed)

    def rand(*size: int) -> torch.Tensor:
        return torch.rand(*size, generator=draw, dtype=torch.float64)

    periodic = periodic or (False,) * len(shape)
    knots = []
    for count, p, wraps in zip(shape, degree, periodic, strict=True):
        inner = -1.5 + 3.5 * torch.cat([rand(1) * 0, (rand((count if wraps else count - p)) + 0.1).cumsum(0)])
        inner = -1.5 + 3.5 * (inner + 1.5) / (inner[-1] + 1.5)
        if not clamped and not wraps:
            ends = (inner[0] - (rand(p) + 0.1).cumsum(0).flip(0), inner[-1] + (rand(p) + 0.1).cumsum(0))
        else:
            ends = (inner[:1].expand(0 if wraps else p), inner[-1:].expand(0 if wraps else p))
        knots.append(torch.cat([ends[0], inner, ends[1]]))
    weights = rand(*shape) + 0.5 if rational else None
    new = KINDS[len(shape)].__new__(KINDS[len(shape)])
    points = 2 * rand(*shape, dim) - 1
    NURBS.__init__(new, points, knots, weights, degree, "exact", None, periodic, "error")
    return new


def assert_same(actual: NURBS, expected: NURBS, knots: bool = True) -> None:
    """Assert that two splines have the same domain and the same points, and the same knots but for rounding."""
    assert type(actual) is type(expected)
    assert actual.degree == expected.degree
    opened = expected.opened()
    for got, wanted in zip(actual.domain, opened.domain, strict=True):
        torch.testing.assert_close(torch.stack(got), torch.stack(wanted), rtol=0, atol=ROUND_TRIP)
    if knots:
        for got, wanted in zip(actual.knots, opened.knots, strict=True):
            torch.testing.assert_close(got, wanted, rtol=0, atol=ROUND_TRIP)
    at = [torch.linspace(float(low), float(high), 11, dtype=torch.float64) for low, high in opened.domain]
    points = opened.grid(*at)
    points = torch.nn.functional.pad(points, (0, actual.dim - points.shape[-1]))
    torch.testing.assert_close(actual.replace(outside="clamp").grid(*at), points, rtol=0, atol=ROUND_TRIP)


CASES = {
    "plane curve": ((7,), (3,), 2, False),
    "rational plane curve": ((7,), (2,), 2, True),
    "curve": ((5,), (4,), 3, False),
    "rational curve": ((6,), (1,), 3, True),
    "surface": ((5, 7), (3, 2), 3, False),
    "rational surface": ((6, 4), (2, 3), 3, True),
}
VOLUMES = {"volume": ((3, 4, 5), (2, 1, 3), 3, False), "rational volume": ((3, 5, 2), (1, 3, 1), 3, True)}

# JSON ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", [*CASES.values(), *VOLUMES.values()], ids=[*CASES, *VOLUMES])
@pytest.mark.parametrize("clamped", [True, False], ids=["clamped", "unclamped"])
def test_json_keeps_every_bit(tmp_path: pathlib.Path, case: tuple, clamped: bool) -> None:
    spline = make(*case, clamped=clamped)
    save_splines(tmp_path / "a.json", [spline, spline])
    first, second = load_splines(tmp_path / "a.json")
    assert torch.equal(first.control_points, spline.control_points)
    assert all(torch.equal(a, b) for a, b in zip(first.knots, spline.knots, strict=True))
    assert first.is_rational == spline.is_rational
    if spline.weights is not None:
        assert second.weights is not None
        assert torch.equal(second.weights, spline.weights)
    assert repr(first) == repr(spline)


@given(st.integers(1, 3), st.data())
def test_json_keeps_every_bit_of_any_degree(
    tmp_path_factory: pytest.TempPathFactory, axes: int, data: st.DataObject
) -> None:
    degree = data.draw(st.lists(st.integers(1, 6 - axes), min_size=axes, max_size=axes))
    shape = [p + 1 + data.draw(st.integers(0, 3)) for p in degree]
    rational, clamped = data.draw(st.booleans()), data.draw(st.booleans())
    spline = make(shape, degree, data.draw(st.integers(1, 4)), rational, clamped, seed=data.draw(st.integers(0, 99)))
    path = tmp_path_factory.getbasetemp() / "any.json"
    save_splines(path, spline)
    (back,) = load_splines(path)
    assert_same(back, spline)


def geomdl_points(shape: object, spline: NURBS, count: int = 6) -> torch.Tensor:
    """Evaluate with geomdl, which has scaled the knots to [0, 1]."""
    axes = []
    for knots, (low, high) in zip(spline.knots, spline.domain, strict=True):
        at = torch.linspace(float(low), float(high), count, dtype=torch.float64)
        axes.append(((at - knots[0]) / (knots[-1] - knots[0])).clamp(0, 1).tolist())
    combinations = torch.cartesian_prod(*[torch.tensor(a, dtype=torch.float64) for a in axes]).reshape(-1, len(axes))
    points = [shape.evaluate_single(float(p[0]) if len(axes) == 1 else tuple(p.tolist())) for p in combinations]
    return torch.tensor(points, dtype=torch.float64).reshape(*[count] * len(axes), -1)


@pytest.mark.parametrize("case", [*CASES.values(), *VOLUMES.values()], ids=[*CASES, *VOLUMES])
def test_geomdl_reads_what_we_write(tmp_path: pathlib.Path, case: tuple) -> None:
    exchange = pytest.importorskip("geomdl.exchange")
    spline = make(*case)
    save_splines(tmp_path / "ours.json", spline)
    (theirs,) = exchange.import_json(str(tmp_path / "ours.json"))
    torch.testing.assert_close(geomdl_points(theirs, spline), spline.grid(*[6] * spline.axes), rtol=0, atol=ROUND_TRIP)
    # Saved again by geomdl, the file has the same layout, key by key.
    exchange.export_json(theirs, str(tmp_path / "theirs.json"))
    ours, again = (json.loads((tmp_path / name).read_text()) for name in ("ours.json", "theirs.json"))
    assert ours["shape"].keys() == again["shape"].keys()
    keys = ours["shape"]["data"][0].keys()
    assert keys == again["shape"]["data"][0].keys()
    assert ours["shape"]["data"][0]["delta"] == again["shape"]["data"][0]["delta"]


@pytest.mark.parametrize("case", [*CASES.values(), *VOLUMES.values()], ids=[*CASES, *VOLUMES])
def test_we_read_what_geomdl_writes(tmp_path: pathlib.Path, case: tuple) -> None:
    geomdl = pytest.importorskip("geomdl")
    from geomdl import BSpline, exchange, multi
    from geomdl import NURBS as RATIONAL

    shape, degree, dim, rational = case
    name = {1: "Curve", 2: "Surface", 3: "Volume"}[len(shape)]
    theirs = getattr(RATIONAL if rational else BSpline, name)(normalize_kv=False)
    rng = np.random.default_rng(1)
    theirs.degree = list(degree) if len(degree) > 1 else degree[0]
    net = rng.random((int(np.prod(shape)), dim + int(rational))) + 0.5
    theirs.set_ctrlpts(net.tolist(), *shape)
    vectors = [
        [2.0] * p + list(np.linspace(2.0, 5.0, k - p + 1)) + [5.0] * p for k, p in zip(shape, degree, strict=True)
    ]
    theirs.knotvector = vectors if len(shape) > 1 else vectors[0]
    container = getattr(multi, name + "Container")(theirs)
    assert geomdl is not None
    exchange.export_json(container, str(tmp_path / "theirs.json"))
    (ours,) = load_splines(tmp_path / "theirs.json")
    at = torch.cartesian_prod(*[torch.linspace(2.0, 5.0, 6, dtype=torch.float64)] * len(shape)).reshape(-1, len(shape))
    points = [theirs.evaluate_single(float(p[0]) if len(shape) == 1 else tuple(p.tolist())) for p in at]
    torch.testing.assert_close(ours(*at.unbind(-1)), torch.tensor(points, dtype=torch.float64), rtol=0, atol=ROUND_TRIP)
    assert ours.is_rational == rational


# 3dm -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("clamped", [True, False], ids=["clamped", "unclamped"])
def test_rhino_evaluates_what_we_write(tmp_path: pathlib.Path, case: tuple, clamped: bool) -> None:
    rhino = pytest.importorskip("rhino3dm")
    spline = make(*case, clamped=clamped)
    save_splines(tmp_path / "a.3dm", [spline])
    model = rhino.File3dm.Read(str(tmp_path / "a.3dm"))
    shape = model.Objects[0].Geometry
    domains = [shape.Domain] if spline.axes == 1 else [shape.Domain(0), shape.Domain(1)]
    for (low, high), domain in zip(spline.domain, domains, strict=True):
        assert (domain.T0, domain.T1) == (float(low), float(high))
    at = [torch.linspace(float(low), float(high), 9, dtype=torch.float64)[1:-1] for low, high in spline.domain]
    combinations = torch.cartesian_prod(*at).reshape(-1, spline.axes)
    found = [shape.PointAt(*p) for p in combinations.tolist()]
    points = torch.tensor([[p.X, p.Y, p.Z] for p in found], dtype=torch.float64)
    expected = torch.nn.functional.pad(spline(*combinations.unbind(-1)), (0, 3 - spline.dim))
    torch.testing.assert_close(points, expected, rtol=0, atol=ROUND_TRIP)
    (back,) = load_splines(tmp_path / "a.3dm")
    assert_same(back, spline, knots=clamped)
    assert back.is_rational == spline.is_rational
