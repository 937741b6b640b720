# SPDX-License-Identifier: Apache-2.0
"""fit_nurbs: what it reads, what it writes, and what it leaves alone when it fails."""

import importlib
import importlib.util
import json
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image

import geodiff as gd
from geodiff.splines.files import load_splines
from geodiff.tasks import fit_nurbs
from geodiff.tasks import pictures as general
from geodiff.tasks.nurbs import pictures as nurbs_pictures
from geodiff.tasks.nurbs.job import read_points

# The module: its name in the room is that of the function.
task = importlib.import_module("geodiff.tasks.nurbs.job")

QUIET = {"progress": False}
# A polynomial of the fitted degree is met exactly: what is left are roundings of the least squares.
EXACT = 1e-10


def grid(rows: int = 12, columns: int = 15) -> torch.Tensor:
    """A cubic graph over [0, 1] × [0, 2]."""
    x, y = torch.meshgrid(
        torch.linspace(0, 1, rows, dtype=torch.float64),
        torch.linspace(0, 2, columns, dtype=torch.float64),
        indexing="ij",
    )
    return torch.stack([x, y, x**3 - 0.5 * x * y**2 + 0.2], -1)


def bent(rows: int = 12, columns: int = 15) -> torch.Tensor:
    """A graph that no cubic meets."""
    points = grid(rows, columns)
    return torch.stack([points[..., 0], points[..., 1], (4 * points[..., 0]).sin() * points[..., 1]], -1)


def names(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# --- the fit ----------------------------------------------------------------------------------------------------------


def test_a_grid() -> None:
    fit = fit_nurbs(grid(), control_shape=(5, 6), **QUIET)
    assert fit.kind == "grid" and fit.surface.shape == (5, 6) and fit.max < EXACT
    # Measured anew, on the surface that came out.
    distance = (fit.surface.grid(12, 15) - grid()).norm(dim=-1)
    torch.testing.assert_close(fit.errors, distance, rtol=0, atol=EXACT)


def test_the_figures_are_those_of_the_surface() -> None:
    fit = fit_nurbs(bent(), control_shape=(4, 4), **QUIET)
    left = fit.surface.grid(12, 15) - bent()
    assert fit.mse == pytest.approx(float(left.square().mean()), rel=1e-9)
    assert fit.rms == pytest.approx(float(left.norm(dim=-1).square().mean().sqrt()), rel=1e-9)
    assert fit.max == pytest.approx(float(left.norm(dim=-1).max()), rel=1e-9)
    z = bent()[..., 2]
    assert fit.diagonal == pytest.approx(float((1 + 4 + (z.max() - z.min()) ** 2) ** 0.5))


def test_heights_stand_over_their_spacing() -> None:
    points = grid()
    fit = fit_nurbs(points[..., 2], spacing=(1 / 11, 2 / 14), control_shape=(4, 4), **QUIET)
    assert fit.kind == "heights" and fit.max < EXACT
    torch.testing.assert_close(fit.points, points)


def test_free_knots_and_weights_help() -> None:
    points = bent(12, 12)
    points[..., 2] += (points[..., 0] - 0.3).abs()
    fits = [
        fit_nurbs(points, control_shape=(6, 4), degree=(2, 2), **QUIET, **options)
        for options in ({}, {"free_knots": True}, {"rational": True})
    ]
    assert fits[1].mse < 0.5 * fits[0].mse and fits[1].iterations > 0 and fits[0].iterations == 0
    assert fits[2].mse < fits[0].mse and fits[2].surface.is_rational


def test_smoothing_flattens() -> None:
    rough = fit_nurbs(bent(), control_shape=(8, 8), **QUIET)
    smooth = fit_nurbs(bent(), control_shape=(8, 8), smoothing=1e3, **QUIET)
    assert smooth.rms > 10 * rough.rms


@pytest.mark.parametrize("dtype", [torch.float32, torch.int16])
def test_other_numbers(dtype: torch.dtype) -> None:
    heights = (100 * grid()[..., 2]).to(dtype)
    fit = fit_nurbs(heights, **QUIET)
    assert fit.surface.dtype == torch.float64 and torch.equal(fit.points[..., 2], heights.double())


def test_a_cloud() -> None:
    generator = torch.Generator().manual_seed(0)
    uv = torch.rand(800, 2, generator=generator, dtype=torch.float64)
    cloud = torch.stack([2 * uv[:, 0], uv[:, 1], 0.3 * (3 * uv[:, 0]).sin() * uv[:, 1]], -1)
    fit = fit_nurbs(cloud, control_shape=(7, 6), **QUIET)
    assert fit.kind == "cloud" and fit.errors.shape == (800,)
    assert fit.rms < 1e-3 * fit.diagonal  # a seventh-order wave by seven cubics, through alternating parameters
    # The distance to the surface, found without its parameters, is no larger than to the point at the parameters.
    near = torch.cdist(cloud, fit.surface.grid(200, 200).reshape(-1, 3)).amin(1)
    assert float((near - fit.errors).max()) < 5e-3 * fit.diagonal


# --- files ------------------------------------------------------------------------------------------------------------


def test_outliers_of_a_cloud_are_left_out(tmp_path: pathlib.Path) -> None:
    cloud = grid(20, 25).reshape(-1, 3)
    draw = torch.Generator().manual_seed(0)
    cloud = cloud + 0.005 * torch.randn(cloud.shape, generator=draw, dtype=torch.float64)
    wrong = torch.randperm(500, generator=draw) < 100
    cloud[wrong] += 4 * torch.rand(100, 3, generator=draw, dtype=torch.float64) - 2
    fit = fit_nurbs(cloud, control_shape=(6, 6), trim=0.2, output=tmp_path, formats="json", **QUIET)
    # Some of the wrong ones lie on the surface, and some right ones at a corner are left out for them.
    assert fit.kept is not None and int((fit.kept & ~wrong).sum()) > 380
    assert fit.max < 0.03 and fit.rms < 0.007 and float(fit.errors.max()) > 0.5
    assert "100 of 500 points are left out as outliers (trim)." in fit.notes
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["left_out"] == 100 and metrics["max"] == fit.max and metrics["settings"]["trim"] == 0.2
    # The picture's frame is that of the surface and its points, not of the outliers.
    low, high = cloud[fit.kept].amin(0), cloud[fit.kept].amax(0)
    assert fit.diagonal == pytest.approx(float((high - low).norm()))
    with pytest.raises(ValueError, match=r"fit_nurbs: `trim` must be left out for a grid and for heights; got 0\.2"):
        fit_nurbs(grid(), trim=0.2, **QUIET)
    with pytest.raises(ValueError, match=r"fit_nurbs: `trim` must be "):
        fit_nurbs(cloud, trim=0.9, **QUIET)


def test_everything_is_written(tmp_path: pathlib.Path) -> None:
    fit = fit_nurbs(bent(), control_shape=(5, 6), output=tmp_path / "out", formats=("obj", "ply"), command="x", **QUIET)
    assert names(tmp_path / "out") == {
        "surface.json", "surface.obj", "surface.ply", "surface.png", "error.png", "metrics.json"
    }  # fmt: skip
    assert {path.name for path in fit.files.values()} == names(tmp_path / "out") and fit.notes == []
    (again,) = load_splines(tmp_path / "out" / "surface.json")
    torch.testing.assert_close(again.control_points, fit.surface.control_points, rtol=1e-14, atol=0)
    mesh = gd.Mesh.load(tmp_path / "out" / "surface.obj")
    torch.testing.assert_close(mesh.bounds[1, :2], torch.tensor([1.0, 2.0]), rtol=1e-2, atol=0)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["mse"] == fit.mse and metrics["control"] == [5, 6] and metrics["points"] == [12, 15]
    assert metrics["rms_over_diagonal"] == fit.rms / fit.diagonal and metrics["command"] == "x"
    assert metrics["knots_u"] == fit.surface.knots_u.tolist() and metrics["settings"]["control_shape"] == [5, 6]


def test_the_pictures_show_something(tmp_path: pathlib.Path) -> None:
    fit_nurbs(bent(), control_shape=(5, 6), output=tmp_path, **QUIET)
    with Image.open(tmp_path / "surface.png") as page:
        pixels = np.asarray(page.convert("RGB")).astype(int)
    red, blue = pixels[..., 0], pixels[..., 2]
    assert (red > blue + 60).sum() > 500  # knot lines
    assert (blue > red + 60).sum() > 300  # control points
    with Image.open(tmp_path / "error.png") as page:
        assert page.width > 400 and page.convert("L").getextrema()[0] < 100


def test_without_matplotlib_it_says_what_is_missing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit_nurbs(bent(), output=tmp_path, **QUIET)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "matplotlib" else find(name))
    fit = fit_nurbs(bent(), output=tmp_path, formats=(), **QUIET)
    assert fit.notes == ['error.png is left out: it needs Matplotlib, pip install "geodiff[plot]"']
    # The map of the fit before would pass for this one's; so would its triangles.
    assert names(tmp_path) == {"surface.json", "surface.png", "metrics.json"}
    assert json.loads((tmp_path / "metrics.json").read_text())["notes"] == fit.notes


def test_a_missing_library_is_named_before_the_work(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    with pytest.raises(ImportError, match=r"`formats` must be of installed libraries; got '3dm', which needs rhino3dm"):
        fit_nurbs(bent(), output=tmp_path / "out", formats=("3dm",), **QUIET)
    assert not (tmp_path / "out").exists()


def test_a_failed_fit_leaves_what_was_there(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    fit_nurbs(bent(), output=out, **QUIET)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def unchanged() -> bool:
        return {path.name: path.read_bytes() for path in out.iterdir()} == before

    with pytest.raises(ValueError, match="fit_surface: "):
        fit_nurbs(bent(5, 5), output=out, **QUIET)  # too few points for 8 × 8
    assert unchanged()

    def broken(*arguments: object, **options: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(nurbs_pictures, "overview", broken)
    with pytest.raises(OSError, match="the disk is full"):
        fit_nurbs(grid(), output=out, **QUIET)
    assert unchanged()
    with pytest.raises(OSError, match="the disk is full"):
        fit_nurbs(grid(), output=tmp_path / "new", **QUIET)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_fit_leaves_nothing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(task, "fit_surface", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_nurbs(grid(), output=tmp_path / "out", **QUIET)
    assert names(tmp_path) == set()


def test_an_output_in_the_way(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="`output` must be a folder that can be written to"):
        fit_nurbs(bent(), output=tmp_path / "file", **QUIET)


# --- reading ----------------------------------------------------------------------------------------------------------


def test_clouds_from_files(tmp_path: pathlib.Path) -> None:
    cloud = torch.rand(20, 3, dtype=torch.float64)
    np.save(tmp_path / "a.npy", cloud.numpy())
    rows = [[f"{x:.17g}" for x in row] for row in cloud.tolist()]
    (tmp_path / "a.xyz").write_text("# of a scanner\n" + "\n".join(" ".join(row) for row in rows))
    (tmp_path / "a.csv").write_text("x,y,z,nx\n" + "\n".join(",".join([*row, "7"]) for row in rows))
    (tmp_path / "a.obj").write_text("\n".join("v " + " ".join(row) for row in rows) + "\n")
    (tmp_path / "a.ply").write_text(
        "ply\nformat ascii 1.0\nelement vertex 20\n"
        "property double x\nproperty double y\nproperty double z\nend_header\n"
        + "\n".join(" ".join(row) for row in rows)
        + "\n"
    )
    for name in ("a.npy", "a.xyz", "a.csv", "a.obj", "a.ply"):
        torch.testing.assert_close(read_points(tmp_path / name), cloud, rtol=0, atol=1e-7, msg=name)
    box = gd.box()
    box.save(tmp_path / "box.obj")
    assert len(read_points(tmp_path / "box.obj")) == box.num_vertices


def test_spans_without_points_are_told(tmp_path: pathlib.Path) -> None:
    generator = torch.Generator().manual_seed(0)
    xy = torch.rand(3000, 2, generator=generator, dtype=torch.float64)
    xy = xy[~((xy[:, 0] > 0.55) & (xy[:, 1] < 0.45))]  # a void that holds whole spans of a fifth
    cloud = torch.cat([xy, 0.1 * xy[:, :1]], 1)
    np.savetxt(tmp_path / "a.pts", cloud.numpy(), header=str(len(cloud)), comments="")
    fit = fit_nurbs(tmp_path / "a.pts", output=tmp_path / "out", **QUIET)
    spans = fit.empty_spans
    assert 1 <= len(spans) <= 8
    (note,) = fit.notes
    assert note.startswith(f"{len(spans)} of 25 spans between knots hold no points; what the surface does there is ")
    for u0, u1, v0, v1 in spans:  # in the void, by the surface itself
        x, y, _ = fit.surface(torch.tensor((u0 + u1) / 2).double(), torch.tensor((v0 + v1) / 2).double()).tolist()
        assert x > 0.5 and y < 0.5
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["empty_spans"] == [list(s) for s in spans]
    whole = fit_nurbs(torch.rand(3000, 3, generator=generator) * torch.tensor([1.0, 1.0, 0.0]), **QUIET)
    assert whole.empty_spans == [] and whole.notes == []


def test_columns_of_a_cloud(tmp_path: pathlib.Path) -> None:
    xyz = torch.rand(300, 3, dtype=torch.float64)
    np.savetxt(tmp_path / "a.txt", torch.cat([xyz, xyz], 1).numpy(), fmt="%.17g")
    read = read_points(tmp_path / "a.txt", columns="-,-,y,-,z,x")
    assert torch.equal(read, xyz[:, [2, 2, 1]])
    with pytest.raises(ValueError, match="`columns` must be left out where the points are no file"):
        fit_nurbs(xyz, columns="x,y,z", **QUIET)


def test_arrays_from_npz(tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "a.npz", dx=0.5, height=grid()[..., 2].numpy())
    assert read_points(tmp_path / "a.npz").shape == (12, 15)
    np.savez(tmp_path / "b.npz", one=np.zeros((4, 4)), elevation=np.ones((5, 5)), two=np.zeros((3, 3)))
    assert read_points(tmp_path / "b.npz").shape == (5, 5) and read_points(tmp_path / "b.npz", "two").shape == (3, 3)
    np.savez(tmp_path / "c.npz", one=np.zeros((4, 4)), two=np.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"`array` must be given where a file has several; got one, two in"):
        read_points(tmp_path / "c.npz")
    with pytest.raises(ValueError, match=r"`array` must be in .*c.npz; got 'three', not among one, two"):
        read_points(tmp_path / "c.npz", "three")
    with pytest.raises(ValueError, match=r"`array` must be left out for all files but .npz"):
        read_points(tmp_path / "a.npy" if (tmp_path / "a.npy").exists() else _empty(tmp_path), "one")


def _empty(folder: pathlib.Path) -> pathlib.Path:
    np.save(folder / "e.npy", np.zeros((2, 3)))
    return folder / "e.npy"


def test_bad_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="`points` must be a file that exists"):
        fit_nurbs(tmp_path / "none.npy", **QUIET)
    with pytest.raises(ValueError, match="`points` must be one of ply, xyz"):
        fit_nurbs(tmp_path / "a.doc", **QUIET)
    for ending in ("npy", "npz", "ply"):
        (tmp_path / f"bad.{ending}").write_bytes(b"not at all")
        with pytest.raises(ValueError, match="`points` must be a readable file"):
            fit_nurbs(tmp_path / f"bad.{ending}", **QUIET)
    (tmp_path / "a.csv").write_text("1,2,3\n1,2\n")
    with pytest.raises(ValueError, match="x, y and z in each row; got 2 in line 2"):
        read_points(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("1,2,3\n1,2,x\n")
    with pytest.raises(ValueError, match="rows of numbers; got '1,2,x' in line 2"):
        read_points(tmp_path / "b.csv")
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    with pytest.raises(ValueError, match=r"`points` must be real numbers; got .*words.npy with <U1"):
        read_points(tmp_path / "words.npy")
    (tmp_path / "none.xyz").write_text("# nothing\n")
    with pytest.raises(ValueError, match="`points` must be some points; got none"):
        fit_nurbs(tmp_path / "none.xyz", **QUIET)


def test_bad_arguments(tmp_path: pathlib.Path) -> None:
    with pytest.raises(TypeError, match="`points` must be a tensor or an array of numbers"):
        fit_nurbs({"a": 1}, **QUIET)
    with pytest.raises(ValueError, match=r"of shape \(N, M\) for kind 'heights'; got float64 of shape \(4, 5, 6, 7\)"):
        fit_nurbs(torch.zeros(4, 5, 6, 7, dtype=torch.float64), **QUIET)
    with pytest.raises(ValueError, match=r"of shape \(N, M, 3\) for kind 'grid'; got float64 of shape \(4, 5, 2\)"):
        fit_nurbs(torch.zeros(4, 5, 2, dtype=torch.float64), **QUIET)
    with pytest.raises(ValueError, match=r"of shape \(N, 3\) for kind 'cloud'"):
        fit_nurbs(grid(), kind="cloud", **QUIET)
    with pytest.raises(TypeError, match="`points` must be real numbers"):
        fit_nurbs(grid() > 0, **QUIET)
    with pytest.raises(ValueError, match="Did you mean 'cloud'"):
        fit_nurbs(grid(), kind="clud", **QUIET)
    with pytest.raises(ValueError, match="Did you mean 'json'"):
        fit_nurbs(grid(), formats="jsn", **QUIET)
    holes = grid()[..., 2]
    holes[3, 4] = holes[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"finite; got 2 of 180 numbers that are not. Drop them from a cloud; fill"):
        fit_nurbs(holes, output=tmp_path / "out", **QUIET)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="`spacing` must be positive and finite"):
        fit_nurbs(grid()[..., 2], spacing=(0.0, 1.0), **QUIET)
    with pytest.raises(ValueError, match="`spacing` must be two lengths, along x and along y"):
        fit_nurbs(grid()[..., 2], spacing=(1.0,), **QUIET)
    for name in ("free_knots", "rational"):
        with pytest.raises(ValueError, match=f"`{name}` must be left out for a cloud; got True"):
            fit_nurbs(grid().reshape(-1, 3), **{name: True}, **QUIET)


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_the_camera_sees_all_points_and_no_more_than_it_must() -> None:
    points = torch.rand(50, 3, dtype=torch.float64) * torch.tensor([3.0, 1.0, 0.5]) + 7
    for azimuth, elevation, up in ((-60, 35, (0, 0, 1)), (120, 80, (0, 1, 0)), (10, -20, (0.3, 0.5, 0.8))):
        at = general.looking_at(points, azimuth, elevation, up, aspect=1.5).project(points)
        reach = torch.maximum(at[:, 0].abs() / 1.5, at[:, 1].abs()).max()
        assert 0.85 < float(reach) < 1.0 and float(at[:, 2].min()) > 0


def test_knot_lines_hide_behind_the_surface() -> None:
    net = gd.splines.greville(gd.splines.uniform_knots(6, 3), 3)
    x, y = torch.meshgrid(net, net, indexing="ij")
    surface = gd.NURBSSurface(torch.stack([x, y, 0 * x], -1))
    view = general.looking_at(surface.control_points, 0, 89)
    plain = nurbs_pictures.draw_surface(surface, view, (64, 64), knot_lines=False)
    lined = nurbs_pictures.draw_surface(surface, view, (64, 64))
    redder = (lined[..., 0] - lined[..., 2]) - (plain[..., 0] - plain[..., 2])
    assert redder.max() > 0.2
    # Rows that cross the middle meet the four lines inside and at the borders, and nothing between them.
    assert (redder[20] > 0.1).sum() < 24
    # Seen on edge from below with a wall before it, no line is left.
    low = gd.NURBSSurface(torch.stack([x, y, 0 * x - 0.2], -1))
    both = nurbs_pictures._seen_lines(
        nurbs_pictures._knot_curves(low, 64),
        view.to(dtype=torch.float32),
        gd.rasterize(surface.tessellate(8, 8), view.to(dtype=torch.float32), (192, 192)).depth,
        0.01,
    )
    assert both[60:130, 60:130].max() == 0
