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
