# SPDX-License-Identifier: Apache-2.0
"""fit_atlas: what it is given, from arrays, files and the command line, and what it refuses."""

import json
import pathlib
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import geodiff as gd
from geodiff.cli import main
from geodiff.tasks.atlas import pictures as atlas_pictures
from tests.tasks.atlas.balls import QUIET, SMALL, ball


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Save time."""
    monkeypatch.setattr(atlas_pictures, "SIZE", (40, 40))


def test_points_that_need_a_word() -> None:
    cloud = torch.cat([ball(), ball()[:50], torch.tensor([[9.0, 9.0, 9.0]], dtype=torch.float64)])
    normals = torch.nn.functional.normalize(cloud, dim=1)
    normals[3] = 0
    options = {**SMALL, "steps": 2, "rounds": 0}
    fit = gd.fit_atlas(cloud, normals=normals, **options)
    assert [note.split(":")[0] for note in fit.notes] == [
        "50 of 1551 points repeat another and were dropped.",
        "1 of 1501 normals have length zero",
        "1 of 1501 points are isolated",
    ]
    assert fit.metrics["points"] | {"unfitted": 0} == {
        "given": 1551, "fitted": 1500, "duplicates": 50, "outliers": 1, "unfitted": 0, "normals": "given"
    }  # fmt: skip
    fit = gd.fit_atlas(ball(2000), max_points=500, **options)
    assert fit.metrics["points"]["given"] == 2000 and len(fit.atlas.points) == 500
    assert any("2000" in note and "500" in note for note in fit.notes)


def test_bad_points(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    hole = ball()
    hole[7, 1] = float("nan")
    line = torch.linspace(0, 1, 200)[:, None] * torch.tensor([1.0, 2.0, 3.0])
    for cloud, text in (
        (ball(10), "fit_atlas: `points` must be at least 16"),
        (hole, "fit_atlas: `points` must be finite"),
        (line, "fit_atlas: `points` must be points of a surface; got points on a line"),
        (torch.zeros(50, 3), "fit_atlas: `points` must be"),
        (torch.zeros(50, 2), r"fit_atlas: `points` must be .*\(N, 3\)"),
    ):
        with pytest.raises(ValueError, match=text):
            gd.fit_atlas(cloud, output=out, **SMALL)
    with pytest.raises(ValueError, match=r"`normals` must be .*\(1500, 3\)"):
        gd.fit_atlas(ball(), normals=ball(20), **SMALL)
    with pytest.raises(TypeError, match="`points` must be a tensor or an array of numbers"):
        gd.fit_atlas({"a": 1}, **SMALL)
    (tmp_path / "empty.xyz").write_text("")
    with pytest.raises(ValueError, match=r"`points` must be some points; got .*empty.xyz, which holds none"):
        gd.fit_atlas(tmp_path / "empty.xyz", **SMALL)


def test_bad_arguments(tmp_path: pathlib.Path) -> None:
    for name, value in (("samples", 5), ("refine", 5), ("depth", 0), ("samples", True)):
        error = TypeError if value is True else ValueError
        with pytest.raises(error, match=f"fit_atlas: `{name}` must be an integer [≥≤]"):
            gd.fit_atlas(ball(), **{**SMALL, name: value})
    with pytest.raises(ValueError, match="`checkpoint_seconds` must be finite and ≥ 0"):
        gd.fit_atlas(ball(), checkpoint_seconds=-1, **SMALL)
    with pytest.raises(TypeError, match=r"`stepz` must be a known argument; got an unknown name. Did you mean 'steps'"):
        gd.fit_atlas(ball(), stepz=3, **SMALL)
    with pytest.raises(TypeError, match=r"`settings` must be a FitAtlasSettings or a dictionary of its fields"):
        gd.fit_atlas(ball(), settings=gd.tasks.FitMeshSettings(), **QUIET)
    with pytest.raises(ValueError, match=r"`array` must be left out where the points are no file"):
        gd.fit_atlas(ball(), array="points", **SMALL)
    with pytest.raises(FileNotFoundError, match="`truth` must be a file that exists"):
        gd.fit_atlas(ball(), truth=tmp_path / "none.ply", **SMALL)
    with pytest.raises(ValueError, match="`truth` must be one of ply, obj"):
        gd.fit_atlas(ball(), truth=tmp_path / "none.doc", **SMALL)
    with pytest.raises(ValueError, match="`truth` must be one mesh with faces"):
        gd.fit_atlas(ball(), truth=gd.Mesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.int64)), **SMALL)


def test_what_the_file_said_is_told(tmp_path: pathlib.Path) -> None:
    points = ball(600)
    rows = [f"{i};{x};{y};{z}" for i, (x, y, z) in enumerate(points.tolist())]
    (tmp_path / "a.csv").write_text("\n".join(["id;x;y;z", *rows, "600;nan;0;0"]).replace(".", ","))
    fit = gd.fit_atlas(tmp_path / "a.csv", **SMALL)
    assert fit.notes[:2] == [
        "Commas were read as decimal marks.", "1 of 601 points have NaN or infinity, and were dropped."
    ]  # fmt: skip
    assert torch.equal(fit.atlas.points, points)
    turned = gd.fit_atlas(tmp_path / "a.csv", columns="-,z,y,x", **SMALL)
    assert torch.equal(turned.atlas.points, points.flip(1))
    with pytest.raises(ValueError, match="`columns` must be left out where the points are no file"):
        gd.fit_atlas(points, columns="x,y,z", **SMALL)


def test_up_is_up_in_the_pictures() -> None:
    flat = ball(600) * torch.tensor([1.0, 1.0, 0.1])
    fit = gd.fit_atlas(flat, **SMALL)
    mesh = fit.atlas.to_mesh()

    def wide(up: str) -> float:
        """How much wider than high the disc is in the second row, seen from a little above."""
        page = np.asarray(atlas_pictures.Overview(fit.atlas, mesh, size=(90, 90), up=up).page().convert("L")).astype(
            int
        )
        page = page[page.shape[0] // 4 + 20 : page.shape[0] // 2 - 10, -95:]  # surface, from the last side
        dark = np.abs(page - np.median(page[:, -3:])) > 40
        return float(np.ptp(dark.any(0).nonzero()[0]) / np.ptp(dark.any(1).nonzero()[0]))

    assert wide("z") > 1.5 * wide("y") and wide("-z") > 1.5 * wide("y")
    with pytest.raises(ValueError, match="fit_atlas: `up` must be one of x, y, z, -x, -y, -z; got 'w'"):
        gd.fit_atlas(flat, up="w", **SMALL)


def test_the_command(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["geodiff", "fit-atlas", "ball.npy"])
    np.save(tmp_path / "ball.npy", ball().numpy())
    np.save(tmp_path / "truth.npy", ball(3000, 0).numpy())

    def call(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["fit-atlas", *map(str, arguments)])
        return result.exit_code, result.output

    code, text = call(tmp_path / "ball.npy", "-o", tmp_path / "out", "--widths", "16x16", "--steps", 5, "--rounds", 0,
                      "--no-watertight", "--samples", 2000, "--truth", tmp_path / "truth.npy")  # fmt: skip
    assert code == 0 and "Against the truth: accuracy mean" in text and str(tmp_path / "out" / "atlas.npz") in text
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["command"] == "geodiff fit-atlas ball.npy" and facts["source"] == str(tmp_path / "ball.npy")
    code, text = call(tmp_path / "none.ply", "-o", tmp_path / "out")
    assert code == 2 and "Error: fit_atlas: `points` must be a file that exists" in text and "Traceback" not in text
    code, text = call(tmp_path / "ball.npy", "-o", tmp_path / "out", "--widths", "tiny")
    assert code == 2 and "neither small nor paper nor widths" in text
    code, text = call(tmp_path / "ball.npy", "-o", tmp_path / "out", "--device", "gpu")
    assert code == 2 and "`device` must be cpu" in text
