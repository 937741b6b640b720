# SPDX-License-Identifier: Apache-2.0
"""The second-order way of fit_pose: exact Jacobians, the ranking of views, and the modes."""

import dataclasses
import math
import pathlib

import pytest
import torch

import geodiff as gd
from geodiff import soft
from geodiff.tasks import FitPoseSettings, fit_pose
from geodiff.tasks.pose import newton, search
from geodiff.tasks.pose.jacobian import coverage_and_jacobian
from geodiff.tasks.pose.poses import Poses, rotation_angle_deg, rotations_near
from geodiff.tasks.pose.search import screen
from geodiff.tasks.pose.target import PoseLoss, PoseTargets
from geodiff.tasks.pose.views import best_views

ROOT = pathlib.Path(gd.__file__).parents[1]
QUICK = {"progress": False, "search_size": 24, "size": 48, "steps": 24, "polish": 3}
TRUTH = gd.Camera.orbit(3.0, 25, 40, fov_deg=40)


def wedge() -> gd.Mesh:
    """A box with an edge pulled out: no rotation and no mirror leaves it as it is."""
    box = gd.box((0.9, 0.6, 0.4))
    corner = box.vertices.clone()
    corner[corner.argmax(0)[0]] += torch.tensor([0.5, 0.1, 0.2])
    corner[corner[:, 1].argmin()] += torch.tensor([-0.1, -0.4, 0.0])
    return box.with_vertices(corner)


def picture(mesh: gd.Mesh, camera: gd.Camera = TRUTH, size: int | tuple[int, int] = 48) -> torch.Tensor:
    return gd.rasterize(mesh, camera, size).mask.float()


EVERY = {"translation": "free", "focal": True}


@pytest.mark.parametrize("lens", ["perspective", "orthographic", "squared"])
def test_the_jacobian_is_that_of_differences(lens: str) -> None:
    """All seven numbers, with a lens off centre and of unequal focal lengths, in float64."""
    mesh = gd.Mesh.load(ROOT / "assets" / "chair.obj").to(dtype=torch.float64)
    own = {"extent": 1.6} if lens == "orthographic" else {"fov_deg": 40}
    eye = gd.Camera.orbit(torch.tensor(2.2, dtype=torch.float64), 25, 40, **own)
    focal = eye.focal * torch.tensor([1.0, 1.2])
    eye = gd.Camera(eye.rotation, eye.translation, focal, (0.1, -0.2), orthographic=eye.is_orthographic, near=eye.near)
    poses = Poses.of(gd.Camera.cat([eye]), eye, mesh.bounds.mean(0), 1.0)[torch.zeros(4, dtype=torch.long)]
    poses.rotation = rotations_near(poses.rotation[0], 4, 180.0)
    model = ((32, 40), soft.as_distribution("logistic.squared" if lens == "squared" else "logistic"), 2e-2)
    if lens == "squared":
        model = (*model[:2], 4e-4)
    _, jacobian = coverage_and_jacobian(mesh, poses, *model)
    settings, h = FitPoseSettings(**EVERY), 1e-6
    for k in range(7):
        step = torch.zeros(4, 7, dtype=torch.float64)
        step[:, k] = h
        ahead, back = (coverage_and_jacobian(mesh, poses.moved(s, settings), *model)[0] for s in (step, -step))
        off = ((ahead - back) / (2 * h) - jacobian[..., k]).abs()
        # But for pixels whose nearest point of the outline jumps within the step, or that come within reach.
        assert float((off > 1e-5).double().mean()) < 2e-3
        assert float(jacobian[..., k].abs().max()) > 1 or (lens == "orthographic" and k == 5)


def test_second_order_steps_are_like_those_of_differences() -> None:
    """The model of the cost is the same, exact or by differences of renders."""
    mesh = wedge().to(dtype=torch.float64)
    start = gd.Camera.orbit(torch.tensor(3.2, dtype=torch.float64), 22, 44, fov_deg=40)
    poses = Poses.of(gd.Camera.cat([start]), start, mesh.bounds.mean(0), 1.0)
    target = PoseTargets(picture(mesh, TRUTH.to(dtype=torch.float64), 32).double()[None])
    models = []
    for coverage in ("contour", "differences"):
        settings = FitPoseSettings(**EVERY)
        loss = PoseLoss(mesh, 1.0, settings)
        if coverage == "differences":
            loss.settings = dataclasses.replace(settings, loss=("silhouette",))
            residual, jacobian = newton._differences(loss, poses, target, 2e-2, torch.eye(7, dtype=torch.float64))
            models.append((jacobian @ residual[..., None])[..., 0])
        else:
            models.append(newton.linearised(loss, poses, target, 2e-2).gradient)
    assert torch.allclose(*models, rtol=0.1, atol=0.05 * float(models[0].abs().max()))


def test_views_find_the_rotation_wherever_it_is_in_the_image() -> None:
    """One of the best is within the grid of the views, also off the axis, where perspective turns what is seen."""
    mesh = gd.Mesh.load(ROOT / "assets" / "chair.obj")
    radius = float((mesh.vertices - mesh.bounds.mean(0)).norm(dim=-1).max())
    for at in ((0.0, 0.0), (0.5, -0.4)):
        eye = gd.Camera.orbit(2.4, 25, 130, fov_deg=60)
        truth = gd.Camera(eye.rotation, eye.translation + torch.tensor([*at, 0.0]), eye.focal)
        guess = gd.Camera.orbit(3.0, -20, 10, fov_deg=60)
        for held in (False, True):
            start = Poses.of(gd.Camera.cat([guess]), truth, mesh.bounds.mean(0), radius)
            if held:
                start.shift = Poses.of(gd.Camera.cat([truth]), truth, mesh.bounds.mean(0), radius).shift
            settings = FitPoseSettings(translation="distance" if held else "free")
            best = best_views(mesh, start, PoseTargets(picture(mesh, truth, 64)[None]), 400, 180.0, settings)
            assert float(rotation_angle_deg(best[:10], truth.rotation).min()) < 12


@pytest.mark.parametrize(("elevation", "azimuth", "translation"), [(-35, 200, "distance"), (60, 310, "distance"),
                                                                   (-35, 200, "free")])  # fmt: skip
def test_what_the_border_cuts_is_compared_by_what_is_seen(elevation: int, azimuth: int, translation: str) -> None:
    """A mug so near that three quarters of the image are full: a right rotation is among the first starts."""
    mesh = gd.Mesh.load(ROOT / "assets" / "mug.obj").normalized("box")
    at = (0.0, 0.0, 0.0) if translation == "distance" else (0.12, 0.05, 0.0)
    truth = gd.Camera.orbit(1.15, elevation, azimuth, fov_deg=40, at=at)
    radius = float((mesh.vertices - mesh.bounds.mean(0)).norm(dim=-1).max())
    guess = Poses.of(gd.Camera.cat([gd.Camera.orbit(2.5, 0, 0, fov_deg=40)]), truth, mesh.bounds.mean(0), radius)
    image, settings = PoseTargets(picture(mesh, truth, 64)[None]), FitPoseSettings(translation=translation)
    settings = settings.completed(180.0)
    poses = screen(mesh, guess, image, 180.0, settings, PoseLoss(mesh, radius, settings))
    near = rotation_angle_deg(poses.rotation[1:], truth.rotation) < 12
    assert bool(near[: 8 if translation == "free" else 2].any())


@pytest.mark.parametrize("fov", [20, 40, 70])
@pytest.mark.parametrize("distance", [1.2, 2.2])
def test_candidates_are_as_large_as_the_image_shows_them(fov: int, distance: float) -> None:
    """Through lenses of which some see them from near by, and with some of them cut."""
    mesh = gd.Mesh.load(ROOT / "assets" / "chair.obj")
    truth = gd.Camera.orbit(distance, 25, 40, fov_deg=40)
    lens = gd.Camera.orbit(3.0, 0, 0, fov_deg=fov)
    poses = Poses.of(gd.Camera.cat([lens]), lens, mesh.bounds.mean(0), 0.8)[torch.zeros(9, dtype=torch.long)]
    poses.rotation = rotations_near(truth.rotation, 9, 10.0)
    target = PoseTargets(picture(mesh, truth, 32)[None])
    poses = search.aligned(mesh, poses, target, FitPoseSettings(translation="free"))
    area = gd.rasterize(mesh, poses.cameras(), 32).mask.float().sum((-2, -1))
    assert torch.allclose(area / target.alpha.sum(), torch.ones(9), atol=0.12)


def test_many_places_around_a_pose_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of the best is no higher for it, and what is drawn hangs on the seed alone."""
    mesh = gd.Mesh.load(ROOT / "assets" / "teapot.obj")
    truth = gd.Camera.orbit(3.5, 20, 130, fov_deg=40)
    image, more = picture(mesh, truth, 64), {"focal": True, "candidates": 100, "starts": 17, "finalists": 3}
    fits = [fit_pose(mesh, image, truth, truth=truth, steps=8, progress=False, **more) for _ in range(2)]
    assert torch.equal(fits[0].cameras.rotation, fits[1].cameras.rotation)
    monkeypatch.setattr(newton.Newton, "_scatter", lambda self: None)
    without = fit_pose(mesh, image, truth, truth=truth, steps=8, progress=False, **more)
    assert fits[0].loss < without.loss and len(fits[0].cameras) <= len(without.cameras)


def test_modes_are_the_poses_that_look_the_same() -> None:
    """A box has four; a wedge one; they are apart, best first, and their probabilities add up."""
    box = gd.box((0.9, 0.6, 0.4))
    fit = fit_pose(box, picture(box), TRUTH, truth=TRUTH, progress=False)
    assert len(fit.modes) == 4 and len(fit.free_axes) == 0
    assert sum(mode.probability for mode in fit.modes) == pytest.approx(1)
    for mode in fit.modes:
        assert mode.probability == pytest.approx(0.25, abs=0.05)
        assert mode.angle_deg == pytest.approx(0 if mode is fit.modes[0] else 180, abs=2)
    assert torch.equal(fit.modes[0].camera.rotation, fit.camera.rotation)
    assert fit.modes[0].loss == fit.loss
    one = fit_pose(wedge(), picture(wedge()), TRUTH, truth=TRUTH, progress=False)
    assert one.error is not None and one.error["angle_deg"] < 2
    assert one.modes[0].probability > 0.9


def cylinder(sides: int = 32) -> gd.Mesh:
    """About z, with lids."""
    i = torch.arange(sides)
    angle, j = 2 * math.pi * i / sides, (i + 1) % sides
    ring = 0.5 * torch.stack((angle.cos(), angle.sin()), dim=-1)
    ends = [torch.cat((ring, torch.full((sides, 1), z)), dim=-1) for z in (-0.8, 0.8)]
    low, high = torch.full_like(i, 2 * sides), torch.full_like(i, 2 * sides + 1)
    corners = ((i, j, j + sides), (i, j + sides, i + sides), (j, i, low), (i + sides, j + sides, high))
    faces = torch.cat([torch.stack(three, dim=-1) for three in corners])
    return gd.Mesh(torch.cat((*ends, torch.tensor([[0.0, 0.0, -0.8], [0.0, 0.0, 0.8]]))), faces)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 1e3])
def test_what_is_round_has_a_free_axis(scale: float) -> None:
    at = (0.3 * scale, 0.1 * scale, 0.2 * scale)
    truth = gd.Camera.orbit(3.2 * scale, 25, 40, fov_deg=40, at=at, near=1e-2 * scale)
    mesh = cylinder().scaled(scale).translated(at)
    lens = gd.Camera.orbit(1.0, fov_deg=40)  # whose near plane lies behind the smallest
    fit = fit_pose(mesh, picture(mesh, truth, 64), lens, truth=truth, progress=False)
    assert fit.free_axes.shape == (1, 3) and float(fit.free_axes[0, 2].abs()) > 0.999
    assert len(fit.modes) <= 2 and fit.iou > 0.98  # upside down it looks the same
    ball = gd.icosphere(3).scaled(scale)
    eye = gd.Camera.orbit(3.2 * scale, 25, 40, fov_deg=40, near=1e-2 * scale)
    fit = fit_pose(ball, picture(ball, eye, 64), eye, progress=False)
    assert len(fit.free_axes) == 3 and len(fit.modes) == 1


@pytest.mark.parametrize(("size", "seed"), [(32, 0), (150, 1)])
def test_sizes_and_seeds_from_everywhere(size: int, seed: int) -> None:
    mesh = gd.Mesh.load(ROOT / "assets" / "chair.obj")
    truth = gd.Camera.orbit(2.4, 35, 160, fov_deg=45)
    fit = fit_pose(mesh, picture(mesh, truth, size), truth, truth=truth, seed=seed, progress=False)
    assert fit.error is not None and fit.error["angle_deg"] < 3


@pytest.mark.parametrize("kind", ["tiny", "cut off"])
def test_tiny_masks_and_such_that_are_cut_off(kind: str) -> None:
    mesh = wedge()
    truth = gd.Camera.orbit(40.0, 25, 40, fov_deg=40) if kind == "tiny" else gd.Camera.orbit(1.5, 25, 40, fov_deg=25)
    image = picture(mesh, truth, 48)
    assert (0 < image.sum() < 12) if kind == "tiny" else bool(image[0].any() or image[:, 0].any())
    fit = fit_pose(mesh, image, truth, truth=truth, **QUICK)
    assert all(math.isfinite(value) for value in fit.error.values()) and len(fit.modes) >= 1


def test_settings_are_filled_in_for_the_way_it_goes() -> None:
    blank = FitPoseSettings()
    assert blank.steps is None and blank.completed(180.0).steps == 24 and blank.completed(60.0).steps == 6
    assert blank.completed(60.0).candidates == 100  # a quarter of the sphere
    assert FitPoseSettings(coverage="faces").completed(180.0).steps == 60
    assert FitPoseSettings(steps=7, starts=2).completed(180.0).steps == 7
