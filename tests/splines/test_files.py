# SPDX-License-Identifier: Apache-2.0
"""Files of splines: JSON, checked against geomdl, triangles, and what is refused."""

import json
import math
import pathlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.splines import NURBS, NURBSCurve, NURBSSurface
from geodiff.splines.files import load_splines, save_splines
from tests.splines.splines import CASES, ROUND_TRIP, VOLUMES, assert_same, make

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
    pytest.importorskip("geomdl")
    from geomdl import NURBS as RATIONAL
    from geomdl import BSpline, exchange, multi

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
    exchange.export_json(container, str(tmp_path / "theirs.json"))
    (ours,) = load_splines(tmp_path / "theirs.json")
    at = torch.cartesian_prod(*[torch.linspace(2.0, 5.0, 6, dtype=torch.float64)] * len(shape)).reshape(-1, len(shape))
    points = [theirs.evaluate_single(float(p[0]) if len(shape) == 1 else tuple(p.tolist())) for p in at]
    torch.testing.assert_close(ours(*at.unbind(-1)), torch.tensor(points, dtype=torch.float64), rtol=0, atol=ROUND_TRIP)
    assert ours.is_rational == rational


def test_periodic_splines_are_written_unrolled(tmp_path: pathlib.Path) -> None:
    spline = make((6, 5), (3, 2), 3, True, periodic=(True, False))
    save_splines(tmp_path / "a.json", spline)
    (back,) = load_splines(tmp_path / "a.json")
    assert back.periodic == (False, False)
    assert back.shape == (9, 5)
    assert_same(back, spline)


def test_float32_on_request(tmp_path: pathlib.Path) -> None:
    spline = make((7,), (3,), 2, True).to(dtype=torch.float32)
    save_splines(tmp_path / "a.json", spline)
    assert load_splines(tmp_path / "a.json")[0].dtype == torch.float64
    (back,) = load_splines(tmp_path / "a.json", dtype=torch.float32)
    assert back.dtype == torch.float32
    assert torch.equal(back.control_points, spline.control_points)


def test_a_graph_is_left_behind(tmp_path: pathlib.Path) -> None:
    save_splines(tmp_path / "a.json", NURBSCurve(torch.rand(5, 2, requires_grad=True)))
    assert not load_splines(tmp_path / "a.json")[0].control_points.requires_grad


# Triangles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["obj", "ply", "stl", "glb"])
def test_surfaces_become_triangles(tmp_path: pathlib.Path, ending: str) -> None:
    first, second = make((5, 5), (3, 2), seed=1), make((4, 6), (2, 3), 3, True, seed=2)
    path = tmp_path / f"a.{ending}"
    save_splines(path, [first, second], samples=(5, 6))
    mesh = gd.Mesh.load(path, dtype=torch.float64)
    assert (mesh.num_vertices, mesh.num_faces) == (60, 80)
    expected = torch.cat([first.grid(5, 6).reshape(-1, 3), second.grid(5, 6).reshape(-1, 3)])
    # Formats but OBJ store float32: each point is one of ours but for its rounding, and none is missing.
    nearest = torch.cdist(mesh.vertices, expected, compute_mode="donot_use_mm_for_euclid_dist").min(0)
    assert float(nearest.values.max()) < 1e-6
    assert len(nearest.indices.unique()) == 60


def test_only_surfaces_become_triangles(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"`splines` must be surfaces, where they become triangles; got NURBSCurve"):
        save_splines(tmp_path / "a.obj", make((5,), (3,)))
    batch = NURBSSurface(torch.rand(2, 4, 4, 3))
    with pytest.raises(ValueError, match=r"without batch axes; got NURBSSurface\(batch \(2,\)"):
        save_splines(tmp_path / "a.obj", batch)
    with pytest.raises(ValueError, match=r"Triangles are not splines: gd.Mesh.load reads them"):
        load_splines(tmp_path / "a.obj")


# What is refused -----------------------------------------------------------------------------------------------------


def test_saving_refuses(tmp_path: pathlib.Path) -> None:
    curve = make((5,), (3,), 2)
    with pytest.raises(ValueError, match=r"one of json, 3dm, igs, .*got 'jsn'. Did you mean 'json'"):
        save_splines(tmp_path / "a.jsn", curve)
    with pytest.raises(ValueError, match=r"a file name ending in one of .json, .3dm"):
        save_splines(tmp_path / "a", curve)
    with pytest.raises(TypeError, match=r"a NURBS curve, surface or volume, or several; got int 3"):
        save_splines(tmp_path / "a.json", [curve, 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match=r"a NURBS curve, surface or volume, or several; got float"):
        save_splines(tmp_path / "a.json", 3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"at least one spline; got none"):
        save_splines(tmp_path / "a.json", [])
    with pytest.raises(ValueError, match=r"without batch axes; got a curve of batch \(2,\). Save its members"):
        save_splines(tmp_path / "a.json", NURBSCurve(torch.rand(2, 5, 3)))
    with pytest.raises(ValueError, match=r"of degree 1 or more in .json files; got degree \(0,\)"):
        save_splines(tmp_path / "a.json", NURBSCurve(torch.rand(5, 3), degree=0))
    with pytest.raises(ValueError, match=r"of one kind in .json files; got curve and surface. Save each kind"):
        save_splines(tmp_path / "a.json", [curve, make((4, 4), (3, 3))])
    spoiled = NURBSCurve(torch.rand(5, 3))
    spoiled.control_points[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"`splines` must be finite; got nan at index \(2, 1\)"):
        save_splines(tmp_path / "a.json", spoiled)
    assert list(tmp_path.iterdir()) == []


def test_loading_refuses_arguments(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"one of json, 3dm, igs, iges, stp, step; got 'txt'"):
        load_splines(tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"a file that exists; got .*a.json"):
        load_splines(tmp_path / "a.json")
    save_splines(tmp_path / "a.json", make((5,), (3,)))
    with pytest.raises(TypeError, match=r"`dtype` must be torch.float64 or torch.float32; got torch.float16"):
        load_splines(tmp_path / "a.json", dtype=torch.float16)
    with pytest.raises(ValueError, match=r"`unsupported` must be one of error, skip; got 'ignore'"):
        load_splines(tmp_path / "a.json", unsupported="ignore")


def _set(path: str, value: Any) -> Any:
    """Return a change of a file's content: a value put where a dotted path points to, or taken out where None."""

    def change(content: Any) -> None:
        *way, last = path.split(".")
        for key in way:
            content = content[int(key) if key.isdigit() else key]
        if value is None:
            del content[last]
        else:
            content[int(last) if last.isdigit() else last] = value

    return change


SPLINE = "shape.data.0."
DAMAGE = {
    "no type": (_set("shape.type", None), r'no "shape" with "type" curve, surface or volume'),
    "another type": (_set("shape.type", "mesh"), r'no "shape" with "type" curve, surface or volume'),
    "no list": (_set("shape.data", 3), r'no "shape" with "type" curve, surface or volume and a list "data"'),
    "no object": (_set("shape.data.0", 3), r"surface 0 is no object"),
    "no knots": (_set(SPLINE + "knotvector_u", None), r"surface 0 has no 'knotvector_u'"),
    "no points": (_set(SPLINE + "control_points.points", None), r"surface 0 has no 'points'"),
    "points no object": (_set(SPLINE + "control_points", [[0.0]]), r"surface 0 has no 'points'"),
    "degree a fraction": (_set(SPLINE + "degree_v", 2.5), r"surface 0, 'degree_v': 2.5 is no integer"),
    "degree too high": (_set(SPLINE + "degree_v", 9), r"surface 0: NURBSSurface: `control_points` must be at least 10"),
    "degree off": (_set(SPLINE + "degree_v", 3), r"surface 0: .*`knots_v` must be 8 knots = K \+ P \+ 1"),
    "degree negative": (_set(SPLINE + "degree_v", -1), r"surface 0: .*`degree` must be 2 integers of 0 or more"),
    "size off": (_set(SPLINE + "size_u", 5), r"surface 0 has 12 control points where its sizes say 5×4"),
    "weight missing": (
        _set(SPLINE + "control_points.weights", [1.0]),
        r"surface 0 has 1 weights for 12 control points",
    ),
    "weight negative": (_set(SPLINE + "control_points.weights.1", -1.0), r"surface 0: .*`weights` must be positive"),
    "ragged": (_set(SPLINE + "control_points.points.3", [1.0]), r"surface 0, 'points': setting an array element"),
    "flat": (_set(SPLINE + "control_points.points", [1.0, 2.0]), r"surface 0, 'points': not a list of points"),
    "empty": (_set(SPLINE + "knotvector_u", []), r"surface 0, 'knotvector_u': not a list of numbers"),
    "text": (_set(SPLINE + "knotvector_u.1", "low"), r"surface 0, 'knotvector_u': could not convert string to float"),
    "knots decrease": (_set(SPLINE + "knotvector_u.1", 9.0), r"surface 0: .*`knots_u` must be non-decreasing"),
    "NaN": (
        _set(SPLINE + "control_points.points.2", [0.0, math.nan, 0.0]),
        r"surface 0: .*`control_points` must be fini",
    ),
    "infinite": (_set(SPLINE + "knotvector_u.0", -math.inf), r"surface 0: .*`knots_u` must be finite; got -inf"),
}


@pytest.mark.parametrize("change, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_json_is_named(tmp_path: pathlib.Path, change: Any, message: str) -> None:
    path = tmp_path / "broken.json"
    save_splines(path, make((3, 4), (1, 2), 3, True))
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"a sound file; got .*broken.json \(" + message):
        load_splines(path, unsupported="skip")


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.7, 0.999])
def test_truncated_json_is_named(tmp_path: pathlib.Path, fraction: float) -> None:
    path = tmp_path / "broken.json"
    save_splines(path, make((3, 4), (1, 2)))
    text = path.read_text()
    path.write_text(text[: int(fraction * len(text))])
    with pytest.raises(ValueError, match=r"a sound file; got .*broken.json \(not JSON: .*Is the file damaged"):
        load_splines(path)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"[" * 100000, b"[1, 2]"])
def test_other_content_is_named(tmp_path: pathlib.Path, content: bytes) -> None:
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a sound file; got .*broken.json \((not JSON|no \"shape\")"):
        load_splines(tmp_path / "broken.json")


def test_overflow_of_float32_is_named(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "large.json"
    save_splines(path, NURBSCurve(torch.full((5, 2), 1e300, dtype=torch.float64)))
    with pytest.raises(ValueError, match=r"large.json \(curve 0: NURBSCurve: `control_points` must be finite; got inf"):
        load_splines(path, dtype=torch.float32)


def test_a_file_without_splines(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.json").write_text('{"shape": {"type": "curve", "count": 0, "data": []}}')
    with pytest.raises(ValueError, match=r"a file with splines; got .*a.json without any"):
        load_splines(tmp_path / "a.json")


def test_trims_and_free_forms_are_refused_or_skipped(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("geomdl")
    from geomdl import BSpline, exchange, multi

    def surface() -> Any:
        new = BSpline.Surface(degree_u=1, degree_v=1)
        new.degree_u = new.degree_v = 1
        new.set_ctrlpts([[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], 2, 2)
        new.knotvector_u = new.knotvector_v = [0, 0, 1, 1]
        return new

    trim = BSpline.Curve()
    trim.degree = 1
    trim.ctrlpts = [[0.2, 0.2], [0.8, 0.2], [0.8, 0.8], [0.2, 0.2]]
    trim.knotvector = [0, 0, 0.3, 0.6, 1, 1]
    trimmed = surface()
    trimmed.trims = [trim]
    path = tmp_path / "trimmed.json"
    exchange.export_json(multi.SurfaceContainer(surface(), trimmed), str(path))
    with pytest.raises(ValueError, match=r"trimmed.json with surface 1: trim curves. .*unsupported=\"skip\""):
        load_splines(path)
    with pytest.warns(UserWarning, match=r"left out 1 of 2 parts of .*trimmed.json: trim curves \(surface 1\)"):
        assert len(load_splines(path, unsupported="skip")) == 1
    content = json.loads(path.read_text())
    content["shape"]["data"] = [{"type": "freeform", "points": [[0.0, 0.0]]}]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"with surface 0: a spline of type 'freeform'. Its points can be fitted"):
        load_splines(path)
    with pytest.warns(UserWarning, match=r"left out 1 of . parts of .*a spline of type 'freeform' \(surface 0\)"):
        assert load_splines(path, unsupported="skip") == []


@pytest.mark.parametrize("before", [True, False])
def test_interrupted_saving_leaves_the_old_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    path = tmp_path / "a.json"
    if before:
        save_splines(path, make((5,), (3,)))
    old = path.read_bytes() if before else b""

    def half(self: pathlib.Path, text: str, **options: Any) -> None:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(pathlib.Path, "write_text", half)
    with pytest.raises(KeyboardInterrupt):
        save_splines(path, make((9, 9), (3, 3)))
    assert [file.name for file in tmp_path.iterdir()] == (["a.json"] if before else [])
    assert not before or path.read_bytes() == old
