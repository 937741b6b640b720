# SPDX-License-Identifier: Apache-2.0
"""The atlas as an object: evaluation, consensus, files, samples, meshes; on charts whose answer is known."""

import dataclasses
import math
import pathlib

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.atlas import consensus
from geodiff.atlas.atlas import Atlas
from geodiff.atlas.watertight import load_open3d, poisson_mesh
from tests.atlas.shapes import flat_atlas, plane, sphere, torus

# Flat charts of radius r on a sphere of radius 1: at a chart's rim the plane is off by about r²/2.
RADIUS = 0.25
SAGITTA = RADIUS**2 / 2
ROUNDING = 1e-9  # of float64 numbers of size 1


@pytest.fixture(scope="module")
def square() -> Atlas:
    """Return an exact atlas of the unit square at z = 0, of 40 charts."""
    x = plane(1500)
    grid = torch.cartesian_prod(*[torch.linspace(0.08, 0.92, 6, dtype=torch.float64)] * 2)
    return flat_atlas(x, torch.cat((grid, torch.zeros(36, 1, dtype=torch.float64)), 1), 0.2, noise=0.001)


@pytest.fixture(scope="module")
def ball() -> Atlas:
    """Return an atlas of the unit sphere."""
    x = sphere(4000)
    return flat_atlas(x, gd.icosphere(2, dtype=torch.float64).vertices, RADIUS, noise=0.01)


def test_evaluation_in_any_order(square: Atlas) -> None:
    mixed = torch.randperm(len(square.chart))
    points = square(square.chart[mixed], square.uv[mixed])
    assert torch.allclose(points, square.points[square.point[mixed]], atol=ROUNDING)
    normals = square.normals(square.chart[mixed], square.uv[mixed])
    assert torch.allclose(normals, normals.new_tensor([0.0, 0, 1]).expand_as(normals), atol=ROUNDING)
    uv = torch.rand(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda u: square(torch.tensor([3, 0, 1, 3, 2]), u), (uv,))


def test_exact_charts_have_full_confidence(square: Atlas) -> None:
    assert torch.allclose(square.fitted_points(), square.points, atol=ROUNDING)
    assert square.confidence.min() > 0.99 and not square.outlier.any()


def test_consensus_lets_go_of_a_stray_chart() -> None:
    places = torch.zeros(5 * 50, 3, dtype=torch.float64)
    places[:, 0] = 0.01 * torch.randn(250).double()
    places[4::5, 2] = 1.0  # of five charts, the last is far off
    point = torch.arange(50).repeat_interleave(5)
    fitted, _ = consensus.consensus(places, torch.ones(250), point, 51)
    assert fitted[:50, 2].max() < 0.01 and torch.equal(fitted[50], torch.zeros(3).double())
    mean, spread = consensus.consensus(places[:, :1].expand(-1, 3), torch.ones(250), point, 50)
    of_two, _ = consensus.consensus(places[:2], torch.tensor([3.0, 1.0]), torch.zeros(2, dtype=torch.int64), 1)
    assert of_two[0, 0] == pytest.approx(float(0.75 * places[0, 0] + 0.25 * places[1, 0]))
    assert mean.shape == (50, 3) and (spread < 0.1).all()


def test_saved_atlas_is_the_same(ball: Atlas, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "deep" / "ball.npz"
    ball.save(path)
    again = Atlas.load(path)
    for field in dataclasses.fields(Atlas):
        old, new = getattr(ball, field.name), getattr(again, field.name)
        if isinstance(old, torch.Tensor):
            assert old.dtype == new.dtype and torch.equal(old, new), field.name
        elif field.name != "charts":
            assert old == new, field.name
    for old, new in zip(ball.charts.parameters(), again.charts.parameters(), strict=True):
        assert old.dtype == new.dtype and torch.equal(old, new)
    assert again.charts.activation == ball.charts.activation
    for old, new in zip(ball.sample(500), again.sample(500), strict=True):
        assert torch.equal(old, new)
    assert repr(again) == repr(ball) == f"Atlas(charts=162, points=4000, memberships={len(ball.chart)})"


def test_samples_of_a_square(square: Atlas) -> None:
    drawn = square.sample(20_000)
    assert drawn.points[:, 2].abs().max() < ROUNDING
    # Nothing beyond the points' own hull, and nearly all of it: the rim is within a few spacings of 0.026.
    assert (drawn.points[:, :2] >= square.points[:, :2].amin(0) - ROUNDING).all()
    assert (drawn.points[:, :2] <= square.points[:, :2].amax(0) + ROUNDING).all()
    assert square.domain.surface_area == pytest.approx(1.0, abs=0.05)
    # Uniform: 100 cells of equal area hold 200 each (the rim a little less), with Poisson scatter below 5·√200.
    inner = drawn.points[(drawn.points[:, :2] - 0.5).abs().amax(1) < 0.4, :2]
    count = torch.bincount(((inner - 0.1) * 10).long() @ torch.tensor([8, 1]), minlength=64)
    assert (count - 200 / square.domain.surface_area).abs().max() < 5 * math.sqrt(200)
    assert torch.allclose(square(drawn.chart, drawn.uv), square.sample(20_000, blend=False).points)
    assert torch.equal(drawn.points, square.sample(20_000).points)
    assert not torch.equal(drawn.points, square.sample(20_000, seed=1).points)
    assert (drawn.confidence > 0.99).all() and (drawn.chart.diff() >= 0).all()


def test_samples_of_a_sphere_face_outwards(ball: Atlas) -> None:
    drawn = ball.sample(20_000)
    off = (drawn.points.norm(dim=1) - 1).abs()
    assert off.max() < SAGITTA
    assert ((drawn.normals * drawn.points).sum(1) > math.cos(2 * RADIUS)).all()
    alone = ball.sample(20_000, blend=False)
    assert off.mean() < (alone.points.norm(dim=1) - 1).abs().mean()  # mixing charts helps
    assert ball.domain.surface_area == pytest.approx(4 * math.pi, rel=0.06)


def test_torus_faces_outwards() -> None:
    x = torus(6000)
    drawn = flat_atlas(x, x[::20], 0.2).sample(5000)
    ring = torch.nn.functional.normalize(drawn.points * drawn.points.new_tensor([1.0, 1, 0]), dim=1)
    assert ((drawn.normals * (drawn.points - ring)).sum(1) > 0).all()


def test_parallel_sheets_stay_apart() -> None:
    height = 0.05  # a quarter of the patches' radius
    x = torch.cat((plane(1500, 1), plane(1500, 2, height)))
    sheet = torch.arange(3000) // 1500
    centers = torch.arange(0, 3000, 40)
    atlas = flat_atlas(x, x[centers], 0.2, sheet=sheet, center_sheet=sheet[centers])
    drawn = atlas.sample(5000)
    gap = torch.minimum(drawn.points[:, 2].abs(), (drawn.points[:, 2] - height).abs())
    assert gap.max() < ROUNDING
    outwards = torch.where(drawn.points[:, 2] > height / 2, 1.0, -1.0).double()
    assert torch.allclose(drawn.normals[:, 2], outwards)
    assert len(atlas.to_mesh().boundary_edges) > 0


def test_given_normals_decide() -> None:
    x = sphere(3000)
    drawn = flat_atlas(x, x[:200], RADIUS, normals=-x).sample(1000)
    assert ((drawn.normals * drawn.points).sum(1) < 0).all()


def test_a_gap_stays_open() -> None:
    x = plane(3000)
    x = x[(x[:, 0] - 0.5).abs() > 0.06]  # a slit of 0.12, six times the spacing
    atlas = flat_atlas(x, x[::30], 0.2)
    drawn = atlas.sample(5000)
    assert (drawn.points[:, 0] - 0.5).abs().min() > 0.055
    assert atlas.to_mesh().face_areas.sum() == pytest.approx(0.88, abs=0.05)


def test_mesh_of_a_square(square: Atlas, tmp_path: pathlib.Path) -> None:
    mesh = square.to_mesh()
    assert torch.allclose(mesh.face_normals, mesh.vertices.new_tensor([0.0, 0, 1]).expand(mesh.num_faces, 3))
    assert mesh.face_areas.sum() == pytest.approx(1.0, abs=0.05)
    assert len(torch.unique(mesh.vertices, dim=0)) == mesh.num_vertices  # charts share their points
    # In the texture: inside the square, nothing mirrored, areas to scale.
    assert mesh.uv is not None and mesh.uv_faces is not None
    assert mesh.uv.min() >= 0 and mesh.uv.max() <= 1
    a, b, c = mesh.uv[mesh.uv_faces].unbind(1)
    signed = ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]) / 2
    assert (signed > 0).all()
    ratio = signed / mesh.face_areas
    assert ratio.std() / ratio.mean() < 1e-5
    fine = square.to_mesh(1)
    assert fine.num_faces == 4 * mesh.num_faces
    assert torch.allclose(fine.face_areas.sum(), mesh.face_areas.sum())
    for ending in ("obj", "glb"):
        fine.save(tmp_path / f"square.{ending}")
        again = gd.Mesh.load(tmp_path / f"square.{ending}")
        assert again.num_faces == fine.num_faces and again.uv is not None
        assert torch.allclose(again.face_areas.sum().double(), fine.face_areas.sum(), rtol=1e-5)


def test_islands_do_not_overlap(ball: Atlas) -> None:
    mesh = flat_atlas(ball.points[:1000], ball.points[:1000:8], 0.4).to_mesh()
    assert mesh.uv is not None and mesh.uv_faces is not None
    centers = mesh.uv[mesh.uv_faces].mean(1)
    a, b, c = mesh.uv[mesh.uv_faces].unbind(1)
    matrix = torch.stack((b - a, c - a), -1)
    share = torch.linalg.solve(matrix[:, None], (centers[None] - a[:, None])[..., None])[..., 0]
    inside = (share > 1e-6).all(-1) & (share.sum(-1) < 1 - 1e-6)
    assert torch.equal(inside.sum(1), torch.ones(mesh.num_faces, dtype=torch.int64))


def test_one_mesh_a_chart(ball: Atlas) -> None:
    meshes = ball.meshes(refine=1)
    assert len(meshes) == len(ball)
    for q in (0, 1, 80):
        outward = (meshes[q].face_normals * meshes[q].vertices[meshes[q].faces].mean(1)).sum(1)
        assert (outward > 0).all()
        where = torch.full((meshes[q].num_vertices,), q)
        assert torch.allclose(ball(where, meshes[q].uv), meshes[q].vertices)


def open3d_or_skip() -> None:
    try:
        load_open3d("this test")
    except ImportError as error:
        pytest.skip(str(error))


def test_watertight_sphere(ball: Atlas) -> None:
    open3d_or_skip()
    mesh = ball.watertight_mesh(5, samples=20_000)
    assert mesh.is_closed and mesh.euler_characteristic == 2
    volume = (torch.linalg.det(mesh.vertices[mesh.faces]) / 6).sum()
    assert volume == pytest.approx(4 / 3 * math.pi, rel=3 * SAGITTA)  # positive: it faces outwards
    again = ball.watertight_mesh(5, samples=20_000)
    assert torch.equal(mesh.vertices, again.vertices) and torch.equal(mesh.faces, again.faces)


def test_open_boundaries_are_kept(square: Atlas) -> None:
    open3d_or_skip()
    with pytest.warns(UserWarning) as told:  # to close a square one must invent a back
        closed = square.watertight_mesh(6, samples=20_000)
    assert any("of its area is invented" in str(warning.message) for warning in told) and closed.is_closed
    mesh = square.watertight_mesh(6, samples=20_000, open_boundaries=True)
    assert mesh.face_areas.sum() < closed.face_areas.sum()
    assert mesh.face_areas.sum() == pytest.approx(1.0, abs=0.1)
    low, high = mesh.bounds
    assert (low[:2] > -0.03).all() and (high[:2] < 1.03).all()  # a cell of 1.1/64 and four spacings of 0.007


def test_open3d_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    x = sphere(100)

    class Missing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def find_spec(self, name: str, *_: object) -> None:
            if name == "open3d":
                raise self.error

    import sys

    for error, message in (
        (ModuleNotFoundError("No module named 'open3d'", name="open3d"), r"not installed. Install it with pip install"),
        (ImportError("libusb-1.0.so.0: cannot open shared object file"), r"libusb-1\.0\.so\.0 is missing: apt-get.*-1"),
        (OSError("libodd.so.3: cannot open shared object file"), r"libodd\.so\.3 is missing\. Install the package"),
        (ImportError("bad magic number"), r"cannot be imported \(bad magic number\)"),
    ):
        monkeypatch.delitem(sys.modules, "open3d", raising=False)
        monkeypatch.setattr(sys, "meta_path", [Missing(error), *sys.meta_path])
        with pytest.raises(ImportError, match=message):
            poisson_mesh(x, x)
        monkeypatch.undo()


def test_bad_clouds_for_poisson() -> None:
    x = sphere(100)
    with pytest.raises(ValueError, match=r"`points` must be of shape \(N, 3\), N ≥ 4"):
        poisson_mesh(x[:3], x[:3])
    with pytest.raises(ValueError, match="`normals` must be of shape"):
        poisson_mesh(x, x[:50])
    with pytest.raises(ValueError, match="`normals` must be not zero; got 100 zero vectors"):
        poisson_mesh(x, 0 * x)
    with pytest.raises(ValueError, match="`depth` must be from 1 to 14"):
        poisson_mesh(x, x, depth=15)
    with pytest.raises(ValueError, match="`trim` must be positive"):
        poisson_mesh(x, x, trim=0.0)
    with pytest.raises(ValueError, match="`points` must be in more than one place"):
        poisson_mesh(torch.ones(10, 3), x[:10])
    open3d_or_skip()
    with pytest.raises(ValueError, match="`normals` must be consistent enough for a surface"):
        poisson_mesh(x, x, depth=4, open_boundaries=True, trim=1e-9)


def test_bad_arguments(square: Atlas) -> None:
    with pytest.raises(ValueError, match="`count` must be an integer ≥ 1"):
        square.sample(0)
    with pytest.raises(ValueError, match="`refine` must be an integer from 0 to 4"):
        square.to_mesh(5)
    with pytest.raises(ValueError, match="`refine` must be an integer from 0 to 4"):
        square.meshes(-1)
    with pytest.raises(ValueError, match="`chart` must be within 0 … 35"):
        square(torch.tensor([36]), torch.rand(1, 2).double())
    with pytest.raises(ValueError, match="`chart` must be within 0 … 35"):
        dataclasses.replace(square, chart=square.chart + 1)
    with pytest.raises(ValueError, match="`chart` must be sorted"):
        dataclasses.replace(square, chart=square.chart.flip(0))
    with pytest.raises(ValueError, match="`inside` must be bool of shape"):
        dataclasses.replace(square, inside=square.inside[:3])
    lone = flat_atlas(plane(3), plane(1), 2.0)
    empty = dataclasses.replace(lone, uv=torch.zeros(3, 2, dtype=torch.float64))
    with pytest.raises(ValueError, match="`atlas` must be of positive area"):
        empty.sample(10)
    with pytest.raises(ValueError, match="`atlas` must be of positive area"):
        empty.to_mesh()


def test_bad_files(square: Atlas, tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"`path` must be a file that ends in \.npz"):
        square.save(tmp_path / "atlas.pt")
    with pytest.raises(FileNotFoundError, match="`path` must be a file that exists"):
        Atlas.load(tmp_path / "none.npz")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="`path` must be a readable atlas file"):
        Atlas.load(bad)
    np.savez(bad, a=np.zeros(3))
    with pytest.raises(ValueError, match="`path` must be of format 'geodiff atlas 1'"):
        Atlas.load(bad)
    np.savez(bad, format=np.array("geodiff atlas 1"), **{"charts.weights.0": np.zeros((1, 2, 3))})
    with pytest.raises(ValueError, match=r"bad.npz \(without chart, charts.activation, .*Is it damaged"):
        Atlas.load(bad)


def _stored(square: Atlas, path: pathlib.Path) -> dict[str, np.ndarray]:
    square.save(path)
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def test_files_of_earlier_versions(square: Atlas, tmp_path: pathlib.Path) -> None:
    content = _stored(square, tmp_path / "old.npz")
    del content["tolerance"]
    np.savez(tmp_path / "old.npz", **content)
    old = Atlas.load(tmp_path / "old.npz")
    assert old.tolerance is None and torch.equal(old.confidence, square.confidence)


SPOILED = {
    "uv as float32": (lambda c: c.update(uv=c["uv"].astype(np.float32)), "are not of one dtype"),
    "uv as float16": (lambda c: c.update(uv=c["uv"].astype(np.float16)), "uv is float16, not float32 or float64"),
    "words": (lambda c: c.update(points=c["points"].astype(str)), "points is <U.*, not float32 or float64"),
    "chart as int32": (lambda c: c.update(chart=c["chart"].astype(np.int32)), "chart is int32, not int64"),
    "inside as int64": (lambda c: c.update(inside=c["inside"].astype(np.int64)), "inside is int64, not bool"),
    "no seed": (lambda c: c.pop("seed"), "without seed"),
    "no bias": (lambda c: c.pop("charts.biases.0"), r"without charts.biases.0"),
    "no weights": (lambda c: [c.pop(n) for n in list(c) if "weights" in n], r"without charts.weights.0"),
    "two seeds": (lambda c: c.update(seed=np.zeros(2, dtype=np.int64)), "noise, seed or activation is not one value"),
    "not finite": (lambda c: c["charts.weights.0"].fill(np.nan), r"charts.weights.0 is not finite"),
    "a chart too many": (lambda c: c["chart"].fill(99), "`chart` must be within 0"),
    "fewer points": (lambda c: c.update(confidence=c["confidence"][:1]), "`confidence` must be of shape"),
    "fewer tolerances": (lambda c: c.update(tolerance=c["tolerance"][:1]), "`tolerance` must be of shape"),
    "activation": (lambda c: c.update({"charts.activation": np.array("sine")}), "`activation` must be one of"),
}  # fmt: skip


@pytest.mark.parametrize("change, message", SPOILED.values(), ids=SPOILED)
def test_spoiled_atlases_are_named(square: Atlas, tmp_path: pathlib.Path, change: object, message: str) -> None:
    content = _stored(square, tmp_path / "bad.npz")
    change(content)  # type: ignore[operator]
    np.savez(tmp_path / "bad.npz", **content)
    with pytest.raises(
        ValueError, match=rf"Atlas.load: `path` must be a readable atlas file; got .*bad.npz \(.*{message}"
    ):
        Atlas.load(tmp_path / "bad.npz")


def test_sides_do_not_move_points() -> None:
    """What the atlas took over from its draft, made before the sides were known, is what it computes itself."""
    x = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(3)), dim=1)
    atlas = gd.fit_atlas(x, steps=2, rounds=0, widths=(8,), progress=False).atlas
    again = dataclasses.replace(atlas)
    assert "_kept__consensus" in vars(atlas) and "_kept__consensus" not in vars(again)
    for name in ("predictions", "tangents", "trust"):
        assert torch.equal(getattr(atlas, name), getattr(again, name))
    assert torch.equal(atlas.fitted_points(), again.fitted_points())
    assert torch.equal(atlas.fitted_normals(), again.fitted_normals())
