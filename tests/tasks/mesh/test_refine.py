# SPDX-License-Identifier: Apache-2.0
"""Fits whose mesh is remeshed on the way: triangles that one would show, and the same bits after an interruption."""

import json
import pathlib

import pytest
import torch

import geodiff as gd
from geodiff.tasks import FitMeshSettings, Progress, fit_mesh
from geodiff.tasks.checkpoint import read_checkpoint
from geodiff.tasks.mesh.refine import finished, is_due, untangled
from tests.scene.test_remesh import angles, crumpled
from tests.tasks.mesh.test_fit_mesh import Stop, orbit, targets

OPTIONS = {"template": "sphere", "subdivisions": 2, "progress": False, "remesh_every": 5, "edge_length": 0.09}


def test_even_triangles_finer_and_no_worse() -> None:
    """An airplane, whose wings a sphere's triangles have to stretch over."""
    airplane = gd.Mesh.load(pathlib.Path(gd.__file__).parents[1] / "assets" / "airplane.obj")
    images = targets(airplane, orbit(12, 25.0), 48)
    plain = fit_mesh(images, template="sphere", progress=False, remesh_every=0)
    fit = fit_mesh(images, template="sphere", progress=False)
    assert fit.settings.remesh_every == 20 and plain.settings.remesh_every == 0
    thin = [float((angles(found.mesh).amin(-1) < 10).double().mean()) for found in (plain, fit)]
    assert thin[1] <= 0.01 < 0.05 < thin[0]
    assert len(fit.mesh.self_intersections()) == 0
    assert fit.mesh.is_closed and fit.mesh.euler_characteristic == 2
    assert fit.iou_train > plain.iou_train - 0.01
    assert len({len(faces) for faces in fit.snapshot_faces}) > 2
    assert all(int(f.max()) == len(v) - 1 for f, v in zip(fit.snapshot_faces, fit.snapshots, strict=True))


@pytest.mark.parametrize("optimizer", ["large_steps", "adam"])
def test_resumed_with_other_faces_is_bitwise_the_same(optimizer: str, tmp_path: pathlib.Path) -> None:
    images = targets(gd.box((0.7, 0.35, 0.5)), orbit())
    options = {**OPTIONS, "steps": 20, "optimizer": optimizer, "views_per_step": 5, "checkpoint_seconds": 0}
    options["lr"] = {"large_steps": 0.2, "adam": 0.02}[optimizer]
    whole = fit_mesh(images, **options)

    def stop(progress: Progress) -> None:
        if progress.step == 13:
            raise Stop

    with pytest.raises(Stop):
        fit_mesh(images, output=tmp_path, callback=stop, **options)
    state = read_checkpoint((tmp_path / "checkpoint.pt").read_bytes())["state"]
    assert len(state["topologies"]) == 2 and int(state["topologies"][-1].max()) == len(state["latent"]) - 1
    assert len(state["latent"]) != 162  # of the ball
    steps: list[int] = []
    rest = fit_mesh(images, output=tmp_path, callback=lambda progress: steps.append(progress.step), **options)
    assert steps == list(range(13, 21))
    assert torch.equal(rest.mesh.vertices, whole.mesh.vertices) and torch.equal(rest.mesh.faces, whole.mesh.faces)
    assert all(map(torch.equal, rest.snapshots, whole.snapshots))
    assert all(map(torch.equal, rest.snapshot_faces, whole.snapshot_faces))
    assert rest.history == whole.history
    assert (rest.iou_train, rest.iou_held_out) == (whole.iou_train, whole.iou_held_out)
    told = json.loads((tmp_path / "metrics.json").read_text())
    assert told["self_intersections"] == 0 and told["faces"] == rest.mesh.num_faces
    assert (tmp_path / "optimisation.gif").exists()


def test_a_mesh_of_ones_own_keeps_its_faces_unless_told() -> None:
    images, start = targets(gd.box(0.5), orbit()), gd.icosphere(2, 0.3)
    fit = fit_mesh(images, template=start, steps=25, progress=False)
    assert fit.settings.remesh_every == 0 and torch.equal(fit.mesh.faces, start.faces)
    assert isinstance(fit.snapshots, torch.Tensor)
    told = fit_mesh(images, template=start, steps=25, remesh_every=5, edge_length=0.08, progress=False)
    assert told.mesh.num_faces > 1.3 * start.num_faces
    nothing = fit_mesh(images, template=gd.Mesh(torch.zeros(0, 3), []), steps=25, remesh_every=5, progress=False)
    assert nothing.mesh.num_faces == 0


def test_when() -> None:
    settings = FitMeshSettings(steps=100, remesh_every=20)
    assert [step for step in range(100) if is_due(settings, step)] == [20, 40, 60, 80]
    assert not any(is_due(FitMeshSettings(remesh_every=0), step) for step in range(100))


def test_folds_are_smoothed_away() -> None:
    mesh = crumpled()
    assert len(mesh.self_intersections()) > 10
    flat = untangled(mesh)
    assert len(flat.self_intersections()) == 0
    moved = (flat.vertices - mesh.vertices).norm(dim=-1)
    assert float((moved > 0).double().mean()) < 0.2 and float(moved.max()) < 0.15
    clean = gd.icosphere(2)
    assert untangled(clean) is clean and finished(clean) is clean
    crossed = gd.Mesh(torch.eye(3).repeat(2, 1) - 0.1, torch.tensor([[0, 1, 2], [5, 4, 3]]))
    assert len(untangled(crossed).self_intersections()) <= 1  # what does not come apart is left, not lost


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"remesh_every": -1}, ValueError, "fit_mesh: `remesh_every` must be an integer ≥ 0; got -1"),
        ({"remesh_every": 2.5}, TypeError, "`remesh_every` must be an integer ≥ 0"),
        ({"edge_length": 0.0}, ValueError, "`edge_length` must be positive"),
        ({"edge_length": 1e30}, ValueError, "`edge_length` must be at most"),
    ],
)
def test_bad_settings(options: dict[str, object], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        FitMeshSettings(**options)  # type: ignore[arg-type]
