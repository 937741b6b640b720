# SPDX-License-Identifier: Apache-2.0
"""Recover poses whose answer is known; survive far starts, kills, odd input and wrong input."""

import dataclasses
import json
import math
import pathlib
import runpy
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.spatial.transform import Rotation

import geodiff as gd
from geodiff.cli import main
from geodiff.render.renderer import RenderOutput
from geodiff.tasks import FitPoseResult, Progress, fit_pose
from geodiff.tasks.device import job_device
from geodiff.tasks.pose import target as pose_target
from geodiff.tasks.pose.explained import explained
from geodiff.tasks.pose.poses import rotation_angle_deg, rotation_from_vector, rotations_near
from geodiff.tasks.pose.search import half_turns
from geodiff.tasks.pose.target import PoseTargets

ROOT = pathlib.Path(gd.__file__).parents[1]
HAS_COLOR = "rgb" in {field.name for field in dataclasses.fields(RenderOutput)}
QUICK = {"progress": False, "search_size": 24, "size": 48, "steps": 24, "polish": 3}
LOCAL = {**QUICK, "candidates": 60, "starts": 3, "finalists": 2}


def wedge() -> gd.Mesh:
    """A box with an edge pulled out: no rotation and no mirror leaves it as it is."""
    box = gd.box((0.9, 0.6, 0.4))
    corner = box.vertices.clone()
    corner[corner.argmax(0)[0]] += torch.tensor([0.5, 0.1, 0.2])
    corner[corner[:, 1].argmin()] += torch.tensor([-0.1, -0.4, 0.0])
    return box.with_vertices(corner)


UPSIDE_DOWN = torch.diag(torch.tensor([-1.0, -1.0, 1.0]))
TRUTH = gd.Camera.orbit(3.0, 25, 40, fov_deg=40)


def picture(mesh: gd.Mesh, camera: gd.Camera = TRUTH, size: int | tuple[int, int] = 48) -> torch.Tensor:
    return gd.rasterize(mesh, camera, size).mask.float()


# --- rotations --------------------------------------------------------------------------------------------------------


def test_exponential_is_scipys_and_orthonormal() -> None:
    vectors = torch.cat((torch.randn(20, 3, dtype=torch.float64), 1e-5 * torch.randn(5, 3, dtype=torch.float64)))
    ours = rotation_from_vector(vectors)
    assert torch.allclose(ours, torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix()), atol=1e-14)


def test_exponential_has_gradients_also_at_zero() -> None:
    for size in (0.0, 1e-6, 0.7, 3.0):
        vector = (size * torch.tensor([0.6, -0.64, 0.48], dtype=torch.float64)).requires_grad_()
        assert torch.autograd.gradcheck(rotation_from_vector, (vector,))


def test_angles_are_scipys_from_small_to_straight() -> None:
    for angle in (1e-5, 0.3, 90.0, 179.9, 180.0):
        a = Rotation.random(random_state=3)
        b = Rotation.from_rotvec(math.radians(angle) * np.array([0.6, 0.0, 0.8])) * a
        # The chord is as good as its rounding: at 180° the arcsine is flat, hence √ε.
        got = float(rotation_angle_deg(torch.from_numpy(a.as_matrix()), torch.from_numpy(b.as_matrix())))
        assert got == pytest.approx(angle, rel=1e-6, abs=1e-6 if angle < 179 else 3e-6)


def test_candidates_are_spread_evenly() -> None:
    start = torch.from_numpy(Rotation.random(random_state=1).as_matrix())
    all_ = rotation_angle_deg(rotations_near(start, 2000, 180.0), start)
    # Of all rotations, those within θ of one are the share (θ − sin θ)/π.
    for angle in (40.0, 90.0, 150.0):
        share = (math.radians(angle) - math.sin(math.radians(angle))) / math.pi
        assert float((all_ <= angle).double().mean()) == pytest.approx(share, abs=0.01)
    some = rotation_angle_deg(rotations_near(start, 100, 20.0), start)
    assert some[0] == 0 and some.max() <= 20.001 and some.max() > 18
    assert torch.equal(rotations_near(start, 10, 50.0, seed=2), rotations_near(start, 10, 50.0, seed=2))


def test_half_turns_of_what_has_planes_of_symmetry() -> None:
    assert len(half_turns(gd.box((1.0, 0.5, 0.25)))) == 3
    assert len(half_turns(wedge())) == 0
    (turn,) = half_turns(gd.Mesh.load(ROOT / "assets" / "teapot.obj"))
    assert torch.allclose(turn, torch.diag(torch.tensor([-1.0, -1.0, 1.0])), atol=1e-2)


def test_from_opposite_sides_silhouettes_of_a_symmetric_mesh_are_equal() -> None:
    mesh = gd.Mesh.load(ROOT / "assets" / "chair.obj")
    eye = gd.Camera.orbit(3.0, 25, 40, extent=1.6)
    (turn,) = half_turns(mesh)
    twin = gd.Camera(UPSIDE_DOWN @ eye.rotation @ turn, eye.translation, eye.focal, orthographic=True)
    a, b = (gd.rasterize(mesh, camera, 64).mask for camera in (eye, twin))
    assert float((a ^ b).sum()) < 0.03 * float(a.sum())  # the outline's pixels, up to half a pixel


# --- it recovers what was rendered ------------------------------------------------------------------------------------


def test_finds_a_pose_from_anywhere() -> None:
    mesh = wedge()
    fit = fit_pose(mesh, picture(mesh), TRUTH, truth=TRUTH, candidates=400, starts=6, finalists=3, **QUICK)
    assert fit.error is not None
    assert fit.error["angle_deg"] < 3 and fit.error["distance"] == pytest.approx(1, abs=0.03)
    assert fit.iou > 0.95
    assert fit.cameras.batch_shape == fit.losses.shape and fit.losses[0] == fit.losses.min() == fit.loss


def test_a_guess_an_image_that_is_not_square_and_a_lens_off_centre() -> None:
    mesh = wedge().translated([4.0, -1.0, 2.0])
    at = (4.0, -1.0, 2.0)
    eye = gd.Camera.orbit(3.0, 25, 40, fov_deg=40, at=at)
    truth = gd.Camera(eye.rotation, eye.translation, eye.focal * torch.tensor([1.0, 1.1]), (0.2, -0.1))
    start = gd.Camera.orbit(4.0, 5, 60, fov_deg=70, at=at)
    fit = fit_pose(mesh, picture(mesh, truth, (41, 57)), truth, start=start, truth=truth, **LOCAL)
    assert fit.error is not None and fit.error["angle_deg"] < 3 and fit.error["focal"] == 1
    assert torch.equal(fit.camera.focal, truth.focal) and torch.equal(fit.camera.principal, truth.principal)


def test_the_focal_length() -> None:
    mesh = wedge()
    near = gd.Camera.orbit(1.8, 25, 40, fov_deg=70)
    start = gd.Camera.orbit(2.6, 15, 50, fov_deg=50)
    fit = fit_pose(mesh, picture(mesh, near), start=start, truth=near, focal=True, **LOCAL)
    assert fit.error is not None and fit.error["angle_deg"] < 4
    assert fit.error["focal"] == pytest.approx(1, abs=0.12)  # it starts 1.5 off
    assert fit.error["distance"] == pytest.approx(1, abs=0.12)


def test_an_orthographic_camera_and_float64() -> None:
    mesh = wedge().to(dtype=torch.float64)
    truth = gd.Camera.orbit(3.0, 25, 40, extent=2.4)
    start = gd.Camera.orbit(3.0, 10, 55, extent=2.4)
    fit = fit_pose(mesh, picture(mesh, truth), start=start, truth=truth, **LOCAL)
    assert fit.error is not None and fit.error["angle_deg"] < 3
    assert fit.camera.is_orthographic and fit.camera.dtype == torch.float64


def test_how_far_an_orthographic_camera_stands_off_is_not_told() -> None:
    """Nor has it a say: two lenses that differ by that alone are off by the same."""
    off = []
    for distance in (3.0, 30.0):
        truth = gd.Camera.orbit(distance, 25, 40, extent=2.4)
        start = gd.Camera.orbit(3.0, 10, 55, extent=2.4)
        fit = fit_pose(wedge(), picture(wedge(), truth), start=start, truth=truth, **LOCAL)
        assert set(fit.error) == {"angle_deg", "position", "focal"} and fit.error["position"] < 0.02
        off.append(fit.error["position"])
    assert off[0] == pytest.approx(off[1], abs=1e-4)


def test_an_orthographic_camera_of_unknown_extent() -> None:
    truth = gd.Camera.orbit(3.0, 25, 40, extent=2.4)
    start = gd.Camera.orbit(3.0, 10, 55, extent=5.0)
    fit = fit_pose(wedge(), picture(wedge(), truth), start=start, truth=truth, focal=True, **LOCAL)
    assert fit.error is not None and fit.error["angle_deg"] < 3
    assert fit.error["focal"] == pytest.approx(1, abs=0.02)


def test_what_is_held_stays() -> None:
    mesh, start = wedge(), gd.Camera.orbit(3.0, 15, 50, fov_deg=40)
    centre = mesh.bounds.mean(0)[None]
    fixed = fit_pose(mesh, picture(mesh), start=start, translation="fixed", **LOCAL)
    assert torch.allclose(fixed.camera.to_view(centre), start.to_view(centre), atol=1e-5)
    distance = fit_pose(mesh, picture(mesh), start=start, translation="distance", **LOCAL)
    assert torch.allclose(distance.camera.project(centre)[0, :2], start.project(centre)[0, :2], atol=1e-5)


def test_twins_are_told_apart() -> None:
    """From the other side a chair's silhouette is nearly the same: perspective decides."""
    mesh = gd.Mesh.load(ROOT / "assets" / "chair.obj")
    truth = gd.Camera.orbit(1.6, 30, 35, fov_deg=50)
    (turn,) = half_turns(mesh)
    wrong = gd.Camera(UPSIDE_DOWN @ truth.rotation @ turn, truth.translation, truth.focal)
    fit = fit_pose(
        mesh,
        picture(mesh, truth),
        start=wrong,
        truth=truth,
        candidates=2,
        starts=2,
        spread=180.0,
        **QUICK,
    )
    assert fit.error is not None and fit.error["angle_deg"] < 3


@pytest.mark.parametrize(
    "start",
    [
        gd.Camera.orbit(50.0, -70, 200, fov_deg=40),
        gd.Camera.look_at((3.0, 0.0, 0.0), (2.0, 0.0, -1.2), fov_deg=30),  # the mesh is outside of the image
        gd.Camera.orbit(0.3, 0, 0, fov_deg=40),  # inside of the mesh
    ],
)
@pytest.mark.filterwarnings("ignore:fit_pose. the mesh does not explain the image")
@pytest.mark.parametrize("scale", [(1e-1, 1e-7), 1e-6])
def test_starts_far_off_end_finite(start: gd.Camera, scale: object) -> None:
    settings = {**QUICK, "steps": 12, "focal": True, "lr": 0.5, "scale": scale}
    fit = fit_pose(wedge(), picture(wedge()), start=start, spread=0.0, truth=TRUTH, **settings)
    assert fit.error is not None and all(math.isfinite(value) for value in fit.error.values())
    assert all(math.isfinite(record["loss"]) for record in fit.history) and math.isfinite(fit.loss)
    assert bool(torch.isfinite(fit.camera.camera_to_world).all())


def test_a_guess_behind_which_there_is_nothing_costs_no_warning() -> None:
    fit = fit_pose(wedge(), picture(wedge()), TRUTH, candidates=20, starts=2, **{**QUICK, "steps": 3})
    assert len(fit.history) == 3 and [record["count"] for record in fit.history] == [2, 2, 2]


def test_the_seed_decides_and_the_same_gives_the_same() -> None:
    a, b, c = (
        fit_pose(wedge(), picture(wedge()), TRUTH, candidates=30, starts=3, seed=seed, **{**QUICK, "steps": 4})
        for seed in (0, 0, 1)
    )
    assert torch.equal(a.cameras.rotation, b.cameras.rotation)
    assert not torch.equal(a.cameras.rotation[0], c.cameras.rotation[0])


def test_images_are_averaged_about_the_middle() -> None:
    alpha = torch.zeros(1, 50, 70)
    alpha[0, 10:40, 20:50] = 1
    small = PoseTargets(alpha, alpha[..., None].expand(-1, -1, -1, 3), 2 * alpha).resized(20)
    assert small.image_size == (20, 28)
    # A pixel is 2.5 old ones: the area and the colour's mean stay, and depth is that of what is known.
    assert float(small.alpha.sum()) * 2.5**2 == pytest.approx(900, rel=1e-5)
    assert small.color is not None and torch.allclose(small.color[..., 1], small.alpha)
    assert small.depth is not None and set(small.depth.unique().tolist()) <= {0.0, 2.0}
    eye = gd.Camera.orbit(3.0, 10, 20, fov_deg=40)
    large = PoseTargets(picture(wedge(), eye, (120, 150))[None]).resized(40).alpha[0]
    assert float((large - picture(wedge(), eye, (40, 50))).abs().mean()) < 0.02  # along the outline only


# --- colour and depth -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HAS_COLOR, reason="this renderer has no colour and depth")
def test_depth_and_color() -> None:
    ball = gd.icosphere(3, 0.8)
    color = 0.5 + 0.5 * torch.sin(2.5 * ball.vertices + torch.tensor([0.0, 1.0, 2.0]))
    ball = gd.Mesh(ball.vertices, ball.faces, vertex_colors=color)
    seen = gd.Renderer(48, scale=1e-4, outputs=("rgb", "depth"))(ball, TRUTH)
    image = torch.cat((seen.rgb, picture(ball)[..., None]), dim=-1).clamp(0, 1)
    start = gd.Camera.orbit(3.4, 0, 60, fov_deg=40)
    # The silhouette of a ball says nothing about its rotation.
    fit = fit_pose(ball, image, start=start, truth=TRUTH, loss=("silhouette", "color"), **LOCAL)
    assert fit.error is not None and fit.error["angle_deg"] < 4
    mesh = wedge()
    depth = gd.rasterize(mesh, TRUTH, 48).depth
    fit = fit_pose(
        mesh, picture(mesh), start=start, depth=depth, truth=TRUTH, loss=("silhouette", "depth"), focal=True, **LOCAL
    )
    assert fit.error is not None and fit.error["angle_deg"] < 3
    assert fit.error["distance"] == pytest.approx(1, abs=0.02)  # which depth tells, and a silhouette does not


# --- images that the mesh does not explain ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["noise", "another mesh"])
def test_a_mesh_that_does_not_explain_the_image(kind: str) -> None:
    mesh = gd.Mesh.load(ROOT / "assets" / "teapot.obj")
    other = gd.Mesh.load(ROOT / "assets" / "airplane.obj").normalized("box")
    noise = torch.rand(48, 48, generator=torch.Generator().manual_seed(0)).round()
    image = noise if kind == "noise" else picture(other, gd.Camera.orbit(2.2, 60, 40, fov_deg=40))
    with pytest.warns(
        UserWarning, match=r"fit_pose: the mesh does not explain the image in any .*: IoU 0\.\d\d\. Is it"
    ):
        fit = fit_pose(mesh, image, TRUTH, candidates=60, starts=4, **{**QUICK, "steps": 8})
    assert fit.explained < 0.5 and fit.iou < 0.7
    assert sum(mode.probability for mode in fit.modes) == pytest.approx(fit.explained, abs=1e-6)


@pytest.mark.parametrize(("name", "size", "distance"), [("teapot", 16, 4.5), ("airplane", 32, 4.5), ("chair", 64, 2.4)])
def test_small_and_thin_meshes_explain_their_images(name: str, size: int, distance: float) -> None:
    """Also where the pose is a little off; a warning would be an error."""
    mesh = gd.Mesh.load(ROOT / "assets" / f"{name}.obj").normalized("box")
    eye = gd.Camera.orbit(distance, 8, 25, fov_deg=40)
    near = gd.Camera.orbit(distance, 9, 26, fov_deg=40)
    assert explained(mesh, near, picture(mesh, eye, size)) == 1


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_thin_mesh_beside_its_image_is_not_explained(size: int) -> None:
    """All of it is outline, so that pixels the grid may get wrong must not excuse what lies elsewhere."""
    eye = gd.Camera.orbit(3.0, 20, 30, fov_deg=40)
    rod = gd.box((1.5, 0.08, 0.08))
    thick, bent = (
        gd.box((1.5, 0.3, 0.08)),
        rod.with_vertices(rod.vertices @ rotation_from_vector(torch.tensor([0.0, 0, 0.3]))),
    )
    assert explained(rod, eye, picture(rod, eye, size)) == 1
    assert explained(thick, eye, picture(rod, eye, size)) < 0.8
    assert explained(bent, eye, picture(rod, eye, size)) < 0.8


def test_a_search_around_a_guess_that_ends_badly_is_done_again() -> None:
    """Wings seen edge-on: few pixels, and a near and wide airplane fits half of them; a warning would be an error."""
    mesh = gd.Mesh.load(ROOT / "assets" / "airplane.obj")
    truth = gd.Camera.orbit(3.072, 3.23, 355.26, fov_deg=40)
    start = gd.Camera.orbit(3.072, 10.23, 2.26, fov_deg=40)
    seen: list[int] = []
    image = gd.rasterize(mesh, truth, 64).mask.float()
    fit = fit_pose(mesh, image, start=start, truth=truth, progress=False, callback=lambda now: seen.append(now.total))
    assert fit.error is not None and fit.error["angle_deg"] < 4
    assert fit.iou > 0.9 and fit.settings.steps == 24 and seen == [6] * 6 + [24] * 24
    with pytest.warns(UserWarning, match=r"does not explain the image in any .*: IoU 0\.5"):
        few = fit_pose(mesh, image, start=start, truth=truth, steps=6, progress=False)  # asked for, so left alone
    assert few.settings.steps == 6


@pytest.mark.filterwarnings("ignore:.*does not explain the image")
def test_a_search_is_not_done_twice_the_same_and_the_better_one_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    image, start, steps = picture(gd.icosphere(2)), gd.Camera.orbit(4.0, 10, 60, fov_deg=40), []
    image[:, :20] = 0
    told = lambda now: steps.append(now.total)  # noqa: E731

    def fit(**options: float) -> FitPoseResult:
        steps.clear()
        return fit_pose(wedge(), image, start=start, progress=False, callback=told, **options)

    fit(spread=180.0)
    assert steps == [24] * 24  # from everywhere the first time
    first = fit(steps=6)  # asked for, so left alone
    poor = {"steps": 7, "candidates": 1, "starts": 1, "finalists": 1}
    monkeypatch.setattr(gd.tasks.FitPoseSettings, "thorough", lambda self: dataclasses.replace(self, **poor))
    kept = fit()
    assert steps == [6] * 6 + [7] * 7
    assert kept.loss == first.loss and kept.settings.steps == 6


# --- checkpoints and files --------------------------------------------------------------------------------------------


class Interrupted(Exception):
    pass


def run_in(folder: pathlib.Path, **more: object) -> FitPoseResult:
    options = {**LOCAL, "checkpoint_seconds": 0, "output": folder, "size": 32, **more}
    box = gd.box((0.9, 0.6, 0.4))  # of three planes of symmetry, so that there are twins
    return fit_pose(box, picture(box), TRUTH, truth=TRUTH, **options)


def stop_at(step: int):
    def callback(progress: Progress) -> None:
        assert progress.record["step"] == progress.step - 1 and len(progress.state) == progress.record["count"]
        if progress.step == step + 1:
            raise Interrupted

    return callback


@pytest.mark.parametrize("at", [7, 18])  # before and after most poses were dropped
def test_resumed_is_bitwise_the_same(at: int, tmp_path: pathlib.Path) -> None:
    whole = run_in(tmp_path, output=None)
    with pytest.raises(Interrupted):
        run_in(tmp_path / "parts", callback=stop_at(at))
    assert (tmp_path / "parts" / "checkpoint.pt").exists()
    steps = []
    resumed = run_in(tmp_path / "parts", callback=lambda progress: steps.append(progress.step))
    assert steps == list(range(at + 1, 25))
    assert torch.equal(whole.cameras.rotation, resumed.cameras.rotation)
    assert torch.equal(whole.snapshots.translation, resumed.snapshots.translation)
    assert whole.history == resumed.history
    assert not (tmp_path / "parts" / "checkpoint.pt").exists()


def test_a_checkpoint_of_another_job_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(Interrupted):
        run_in(tmp_path, callback=stop_at(7))
    with pytest.raises(ValueError, match=r"same job.*lr 0.1 \(now 0.2\)"):
        run_in(tmp_path, lr=0.2)
    with pytest.raises(ValueError, match="made with other mesh"):
        run_in(tmp_path, lights=gd.AmbientLight())
    with pytest.raises(Interrupted):
        run_in(tmp_path, lr=0.2, resume=False, callback=stop_at(0))  # from the first step again
    with pytest.raises(TypeError, match=r"fit_pose: `lights` must be a light or a sequence of lights"):
        run_in(tmp_path, lights="sun")


def test_outputs(tmp_path: pathlib.Path) -> None:
    fit = run_in(tmp_path, command="the command")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "optimisation.gif", "overlay.png"]
    facts = json.loads((tmp_path / "metrics.json").read_text())
    assert facts["error"] == fit.error and facts["command"] == "the command"
    assert facts["pose"]["rotation"] == fit.camera.rotation.tolist()
    assert facts["history"]["loss"] == [record["loss"] for record in fit.history]
    with Image.open(tmp_path / "overlay.png") as page, Image.open(tmp_path / "optimisation.gif") as film:
        assert page.width > 700 and film.n_frames > 5
    assert len(fit.snapshots) == len(fit.snapshot_steps)
    assert torch.equal(fit.snapshots.rotation[-1], fit.camera.rotation)


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": torch.zeros(16, 16)}, "`image` must be of something: coverage of ½ or more somewhere; got an empty"),
        ({"image": torch.ones(16, 16)}, "`image` must be of an outline; got one covered all over"),
        ({"image": torch.full((16, 16), math.nan)}, "`image` must be finite; got nan"),
        ({"image": torch.rand(2, 3, 16, 16)}, r"`image` must be of shape \(H, W\), \(H, W, 3\) or \(H, W, 4\)"),
        ({"image": torch.rand(16, 16, 3)}, "`image` must be coverage .* Pass mask="),
        ({"image": torch.rand(4, 16).round()}, "`image` must be of 8 pixels a side or more; got 4×16"),
        ({"image": 2 * torch.ones(16, 16)}, r"`image` must be in \[0, 1\]"),
        ({"mask": torch.ones(16, 20)}, r"`mask` must be of the image's size \(48, 48\)"),
        ({"mask": torch.ones(48, 48, 3)}, r"`mask` must be coverage of shape \(H, W\)"),
        ({"loss": "depth"}, "`depth` must be given for loss='depth'"),
        ({"depth": torch.ones(48, 48)}, "`depth` must be left out where the loss has no 'depth'"),
        ({"loss": "depth", "depth": torch.ones(16, 20)}, "`depth` must be of the image's size"),
        ({"loss": "depth", "depth": torch.full((48, 48), math.inf)}, "`depth` must be known somewhere on the mesh"),
        ({"loss": "color"}, "`image` must be in colour for loss='color'"),
        ({"start": gd.Camera.look_at((0, 0, 3), (0, 0, 5))}, "`start` must be a camera with the mesh ahead of it"),
        ({"truth": gd.Camera.look_at((0, 0, 3), (0, 0, 5))}, "`truth` must be a camera with the mesh ahead of it"),
        (
            {"start": gd.Camera.look_at((0, 0, 4), (4, 0, 0)), "translation": "fixed"},
            "`start` must be a camera with the mesh in its image, for translation='fixed'; got its middle at",
        ),
        ({"camera": gd.Camera.orbit(3.0, 0, torch.arange(2.0))}, r"`camera` must be one camera; got a batch of \(2,\)"),
        (
            {"mesh": gd.Mesh(torch.rand(4, 3), torch.zeros(0, 3, dtype=torch.long))},
            "`mesh` must be of one face or more",
        ),
        ({"mesh": gd.Mesh(torch.zeros(3, 3), torch.tensor([[0, 1, 2]]))}, "`mesh` must be of some extent"),
        ({"mesh": gd.Mesh(torch.rand(2, 3, 3), torch.tensor([[0, 1, 2]]))}, "`mesh` must be one mesh; got a batch"),
        ({"steps": 0}, "`steps` must be an integer ≥ 1; got 0"),
        ({"loss": ()}, "`loss` must be one or several different terms"),
        ({"loss": "colour"}, "`loss` must be one of .* Did you mean 'color'"),
        ({"translation": "none"}, "`translation` must be one of free, distance, fixed"),
        ({"spread": 200}, r"`spread` must be an angle in \[0, 180\] degrees"),
        ({"scale": (1e-2, 0.0)}, "`scale` must be two positive numbers"),
        ({"betas": (0.5, 1.0)}, r"`betas` must be two numbers in \[0, 1\)"),
        ({"lr": 0.0}, "`lr` must be positive"),
        ({"lr_decay": 2}, r"`lr_decay` must be a number in \(0, 1\]"),
        ({"prune_at": 1}, r"`prune_at` must be a number in \(0, 1\)"),
    ],
)
def test_wrong_values(change: dict, message: str) -> None:
    arguments = {"mesh": wedge(), "image": picture(wedge()), "camera": TRUTH, "progress": False, **change}
    with pytest.raises(ValueError, match=message):
        fit_pose(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mesh": 3}, "`mesh` must be a Mesh or the path of one"),
        ({"image": "3" * 3}, "`path` must be an image that exists"),
        ({"image": torch.full((16, 16), 255, dtype=torch.uint8)}, "`image` must be of numbers in .* 8-bit images"),
        ({"start": 3}, "`start` must be a Camera"),
        ({"focal": 1}, "`focal` must be True or False"),
        ({"steps": 1.5}, "`steps` must be an integer ≥ 1"),
        ({"settings": 3}, "`settings` must be a FitPoseSettings"),
        ({"start_s": 3}, "`start_s` must be a known argument; got an unknown name. Did you mean 'starts'"),
    ],
)
def test_wrong_types(change: dict, message: str) -> None:
    arguments = {"mesh": wedge(), "image": picture(wedge()), "camera": TRUTH, "progress": False, **change}
    with pytest.raises((TypeError, FileNotFoundError), match=message):
        fit_pose(**arguments)


def test_devices() -> None:
    with pytest.raises(RuntimeError, match="`image` must be on a device with numbers; got on meta"):
        fit_pose(wedge(), torch.ones(16, 16, device="meta"))
    with pytest.raises(RuntimeError, match="`device` must be cpu, cuda, cuda:N or auto; got meta"):
        fit_pose(wedge().to("meta"), picture(wedge()))
    with pytest.raises(RuntimeError, match="`truth` must be on a device with numbers"):
        fit_pose(wedge(), picture(wedge()), truth=TRUTH.to("meta"))
    assert job_device("fit_pose", "cpu:0") == torch.device("cpu")


def test_a_loss_that_is_never_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = lambda self, cameras, targets, scale: cameras.translation.sum(-1, keepdim=True) * math.nan  # noqa: E731
    monkeypatch.setattr(pose_target.PoseLoss, "residuals", nothing)
    with pytest.raises(ValueError, match="`loss` must be finite for one pose at least"):
        fit_pose(wedge(), picture(wedge()), TRUTH, spread=0.0, **{**QUICK, "polish": 0})


# --- the command and the scripts --------------------------------------------------------------------------------------

FAST = ("--steps", 6, "--polish", 1, "--candidates", 40, "--starts", 2, "--size", 24)


def call(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    return f"{result.exit_code} {result.output}"


@pytest.fixture
def views(tmp_path: pathlib.Path) -> pathlib.Path:
    wedge().save(tmp_path / "wedge.obj")
    text = call("render", tmp_path / "wedge.obj", "--views", 3, "--size", 32, "-o", tmp_path / "views")
    assert text.startswith("0 ")
    return tmp_path


def test_command(views: pathlib.Path) -> None:
    mesh, image, out = views / "wedge.obj", views / "views" / "images" / "001.png", views / "out"
    text = call("fit-pose", mesh, image, "--cameras", views / "views", "-o", out, *FAST)
    assert text.startswith("0 ") and "from the true rotation" in text and (out / "overlay.png").exists()
    text = call("fit-pose", mesh, image, "--fov", 30, "--start", 20, 100, 3, "--scale-end", 1e-2, "-o", out, *FAST)
    facts = json.loads((out / "metrics.json").read_text())
    assert text.startswith("0 ") and facts["error"] is None and facts["settings"]["scale"] == [2e-2, 1e-2]
    assert facts["pose"]["focal"][0] == pytest.approx(1 / math.tan(math.radians(15)))


def test_command_says_what_is_not_explained(views: pathlib.Path) -> None:
    noise = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)).round()
    Image.fromarray((255 * noise).byte().numpy()).save(views / "noise.png")
    arguments = ("fit-pose", views / "wedge.obj", views / "noise.png", "-o", views / "out", *FAST)
    with pytest.warns(UserWarning, match="does not explain the image"):
        text = call(*arguments, "--strict")
    assert text.startswith("1 ") and "Error: fit-pose: the mesh does not explain the image: IoU 0." in text
    facts = json.loads((views / "out" / "metrics.json").read_text())
    assert facts["explained"] == 0 == sum(mode["probability"] for mode in facts["modes"])


def test_command_with_light(tmp_path: pathlib.Path) -> None:
    ball = gd.icosphere(2)
    color = 0.5 + 0.5 * torch.sin(2.5 * ball.vertices + torch.tensor([0.0, 1.0, 2.0]))
    ball = gd.Mesh(ball.vertices, ball.faces, vertex_colors=color)
    ball.save(tmp_path / "ball.ply")
    lights = [gd.AmbientLight(0.2), gd.DirectionalLight((0, 1, 0), 0.9)]
    seen = gd.Renderer(40, scale=1e-3, outputs="rgb")(ball, TRUTH, lights)
    picture = torch.cat([seen.rgb / seen.alpha[..., None].clamp(min=1e-3), seen.alpha[..., None]], dim=-1)
    Image.fromarray((255 * picture.clamp(0, 1)).byte().numpy(), "RGBA").save(tmp_path / "lit.png")
    common = ("fit-pose", tmp_path / "ball.ply", tmp_path / "lit.png", "--start", 5, 15, 3, "--spread", 0, *FAST)
    loss, losses = ("--loss", "silhouette", "--loss", "color"), {}
    for name, more in (("lit", ("--ambient", 0.2, "--light", 0, 2, 0, 0.9)), ("unlit", ())):
        text = call(*common, *loss, *more, "-o", tmp_path / name)
        assert text.startswith("0 "), text
        losses[name] = json.loads((tmp_path / name / "metrics.json").read_text())["loss"]
    assert losses["lit"] < 0.5 * losses["unlit"]
    text = call(*common, "--ambient", 1, "-o", tmp_path / "refused")
    assert text.startswith("2 ") and "`loss` must be color where there are lights; got silhouette with lights" in text


def test_command_refuses(views: pathlib.Path) -> None:
    mesh, image, out = views / "wedge.obj", views / "views" / "images" / "001.png", ("-o", views / "out")
    cameras = ("--cameras", views / "views")
    wedge().save(views / "other.obj")
    Image.new("L", (16, 16)).save(views / "black.png")
    (views / "depth.npy").write_bytes(b"nothing")
    for arguments, message in (
        ((mesh, views / "black.png"), "2 Error: fit_pose: `image` must be of something"),
        ((mesh, views / "black.png", *cameras), "must be a transforms.json with one view called black; got the views"),
        ((mesh, image, *cameras, "--fov", 30), "`fov` must be left out where `cameras` has the lens"),
        ((mesh, image, "--loss", "depth", "--depth", views / "depth.npy"), "`depth` must be an .npy file of numbers"),
        ((mesh, image, "--loss", "depth", "--depth", views / "no.npy"), "`depth` must be a file that can be read"),
        ((mesh, views / "none.png"), "must be an image that exists"),
        ((views / "none.obj", image), "must be a file that exists"),
        ((mesh, image, "--device", "gpu"), "`device` must be cpu"),
    ):
        text = call("fit-pose", *arguments, *out, *FAST)
        assert message in text and text.startswith("2 ") and "Traceback" not in text


def test_demo(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["recover_pose", "--quick", "-o", str(tmp_path)])
    runpy.run_path(str(ROOT / "demos" / "recover_pose.py"), run_name="__main__")
    assert float(capsys.readouterr().out.split("°")[0]) < 6
    assert (tmp_path / "overlay.png").exists()


def test_protocol_script_resumes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, rows = str(ROOT / "tests" / "benchmarks" / "pose_task.py"), tmp_path / "rows.jsonl"

    def run(*arguments: str) -> str:
        mesh = str(ROOT / "assets" / "teapot.obj")
        monkeypatch.setattr(sys, "argv", [script, *arguments, "--mesh", mesh, "-o", str(rows)])
        runpy.run_path(script, run_name="__main__")
        return capsys.readouterr().out

    quick = ("--size", "16", "--steps", "2", "--chunk", "1", "--combination", "0")
    assert "| thesis | teapot | logistic | probabilistic | 2 |" in run("thesis", "--pairs", "2", *quick)
    whole = rows.read_text()
    rows.write_text(whole[:-20])  # as a kill would leave it
    run("thesis", "--pairs", "2", *quick)
    strip = [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in whole.splitlines()]
    assert [
        {k: v for k, v in json.loads(line).items() if k != "seconds"} for line in rows.read_text().splitlines()
    ] == strip
    assert "| ours | teapot |" in run("ours", "--pairs", "1", "--candidates", "20", "--starts", "2", *quick)
