# SPDX-License-Identifier: Apache-2.0
"""Cameras that are a little wrong, found again together with the mesh."""

import json
import math
import pathlib

import pytest
import torch

import geodiff as gd
from geodiff import PosedImages
from geodiff.scene.pose import rotation_from_vector
from geodiff.tasks import fit_mesh
from geodiff.tasks.mesh.camera_moves import Moves, Prior, without_gauge
from geodiff.tasks.mesh.cameras import moving_cameras
from geodiff.tasks.mesh.tangents import Tangents
from geodiff.tasks.progress import Progress

ORIGIN = torch.zeros(3, dtype=torch.float64)


def shape() -> gd.Mesh:
    """Three boxes, one beside the other: bulges on all sides, and no symmetry."""
    parts = [
        gd.box((0.6, 0.2, 0.25)),
        gd.box((0.15, 0.5, 0.15)).translated([0.2, 0.25, 0.05]),
        gd.box((0.12, 0.12, 0.6)).translated([-0.2, 0.0, 0.15]),
    ]
    counts = torch.tensor([0, *(p.num_vertices for p in parts)]).cumsum(0)
    faces = torch.cat([p.faces + n for p, n in zip(parts, counts, strict=False)])
    return gd.Mesh(torch.cat([p.vertices for p in parts]), faces)


def true_views(count: int = 12, size: int = 48) -> PosedImages:
    elevation = torch.tensor([-20.0, 10.0, 40.0, 25.0])[torch.arange(count) % 4]
    cameras = gd.Camera.orbit(2.7, elevation, torch.arange(count) * (360.0 / count), fov_deg=30)
    fine = gd.rasterize(shape(), cameras, 4 * size).mask.float()
    return PosedImages(None, torch.nn.functional.avg_pool2d(fine[:, None], 4)[:, 0], cameras)


def disturbed(images: PosedImages, seed: int, degrees: float = 2.0, part: float = 0.02) -> PosedImages:
    """Turn each camera, move it by a part of its distance, and change its focal length by as much."""
    random = torch.Generator().manual_seed(seed)
    cameras, count = images.cameras.to(dtype=torch.float64), len(images)
    axis, way = (torch.nn.functional.normalize(torch.randn(count, 3, generator=random).double(), dim=-1) for _ in "ab")
    R = rotation_from_vector(axis * math.radians(degrees)) @ cameras.rotation
    at = cameras.position + part * way * cameras.position.norm(dim=-1, keepdim=True)
    sign = 2.0 * torch.randint(0, 2, (count, 1), generator=random).double() - 1
    wrong = gd.Camera(R, -(R @ at[..., None])[..., 0], cameras.focal * (1 + part * sign)).to(dtype=torch.float32)
    return PosedImages(None, images.alpha, wrong, images.names)


def off(cameras: gd.Camera, true: gd.Camera) -> float:
    """Return the median error of rotations in degrees, after the best common one (Kabsch, Umeyama)."""
    R, T = cameras.rotation.double(), true.rotation.double()
    u, _, vh = torch.linalg.svd((T.mT @ R).sum(0))
    Q = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ vh))]).double()) @ vh
    trace = (R @ (T @ Q).mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    return float(torch.rad2deg(torch.acos((0.5 * (trace - 1)).clamp(-1, 1))).median())


def test_moves_of_nothing_are_the_given_cameras() -> None:
    cameras = true_views(5, 8).cameras
    moves = Moves(cameras, ORIGIN + 0.1)
    same = moves.moved(torch.zeros(5, 7, dtype=torch.float64))
    assert torch.allclose(same.rotation.float(), cameras.rotation, atol=1e-6)
    assert torch.allclose(same.translation.float(), cameras.translation, atol=1e-6)
    x = 0.1 * torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).double()
    assert torch.autograd.gradcheck(lambda v: moves.parts(v), x.requires_grad_())


def test_the_gauge_is_taken_out() -> None:
    """Cameras of another world, turned, moved and scaled, are the given ones again, and points go with them."""
    given = true_views(6, 8).cameras.to(dtype=torch.float64)
    Q = rotation_from_vector(torch.tensor([0.3, -0.5, 0.2]).double())
    scale, offset = 1.7, torch.tensor([0.4, -0.2, 0.9]).double()
    position = scale * given.position @ Q.mT + offset
    R = given.rotation @ Q.mT
    other = gd.Camera(R, -(R @ position[..., None])[..., 0], given.focal)
    back, turn, shift, size = without_gauge(other, given)
    # Rotations that were single precision are orthonormal to that.
    assert torch.allclose(back.rotation, given.rotation, atol=1e-5)
    assert torch.allclose(back.position, given.position, atol=1e-5)
    point = torch.tensor([0.1, 0.2, 0.3]).double()
    assert torch.allclose(size * turn @ (scale * Q @ point + offset) + shift, point, atol=1e-5)


def test_tangents_agree_where_cameras_are_right() -> None:
    images = true_views()
    tangents = Tangents(images, Moves(images.cameras, ORIGIN))
    x = torch.zeros(12, 7, dtype=torch.float64)
    for inner in (False, True):
        touch = tangents.touches(x, inner)
        first, second = tangents.first[touch.pair], tangents.second[touch.pair]
        distance = tangents.residuals(touch, x[first], x[second]).abs()
        assert float(distance.median()) < 0.15 and len(distance) > (100 if not inner else 150)


def test_the_slope_of_residuals() -> None:
    """Touches held, the derivative is that of finite differences; their own moves change nothing to first order."""
    images = disturbed(true_views(5, 32), 0)
    tangents = Tangents(images, Moves(images.cameras, ORIGIN))
    x = torch.zeros(5, 7, dtype=torch.float64)
    touch = tangents.touches(x, False)
    first, second = tangents.first[touch.pair], tangents.second[touch.pair]
    a = x[first].requires_grad_()
    (slope,) = torch.autograd.grad(tangents.residuals(touch, a, x[second]).sum(), a)
    for k in range(7):
        step = torch.zeros(7).double()
        step[k] = 1e-6
        ends = [tangents.residuals(touch, x[first] + s * step, x[second]) for s in (1, -1)]
        # The size of a pixel, by which it is divided, is taken for constant: that changes it by some parts of residual.
        assert torch.allclose((ends[0] - ends[1]) / 2e-6, slope[:, k], rtol=0.1, atol=30)


@pytest.mark.parametrize("seed", range(3))
def test_tangents_find_cameras(seed: int) -> None:
    true = true_views(20, 64)
    images = disturbed(true, seed)
    tangents = Tangents(images, Moves(images.cameras, ORIGIN))
    found = tangents.moves.moved(tangents.solve(Prior(2.0, 0.02, 0.02)))
    assert off(images.cameras, true.cameras) > 1.5
    assert off(found, true.cameras) < 0.6


@pytest.mark.slow
def test_fit_with_wrong_cameras(tmp_path: pathlib.Path) -> None:
    true = true_views(24, 64)
    images = disturbed(true, 1)
    fit = fit_mesh(images, refine_cameras=True, output=tmp_path, progress=False)
    assert fit.cameras is not None and fit.settings.steps == 40 and fit.settings.coverage == "contour"
    train = fit.train
    assert off(fit.cameras[train], true.cameras[train]) < 0.25 * off(images.cameras[train], true.cameras[train])
    assert fit.iou_train > 0.97 and fit.iou_held_out is not None and fit.iou_held_out > 0.94
    # In the world of the given cameras: nothing of the gauge is left.
    _, turn, offset, scale = without_gauge(fit.cameras[train], images.cameras[train])
    assert torch.allclose(turn, torch.eye(3).double(), atol=1e-5) and float(offset.abs().max()) < 1e-4
    assert abs(scale - 1) < 1e-5
    # Mesh and cameras belong together.
    seen = gd.rasterize(fit.mesh, fit.cameras[train], images.image_size).mask
    target = images.alpha[train] >= 0.5
    assert float((seen & target).sum() / (seen | target).sum()) > 0.97
    # And they are there to be read.
    images.save(tmp_path / "set")
    (tmp_path / "set" / "transforms.json").write_bytes((tmp_path / "cameras.json").read_bytes())
    again = PosedImages.load(tmp_path / "set")
    assert torch.allclose(again.cameras.rotation, fit.cameras.rotation, atol=1e-5)
    assert torch.allclose(again.cameras.focal, fit.cameras.focal, atol=1e-4)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["settings"]["refine_cameras"] is True


class Stop(Exception):
    pass


def test_resumed_with_moving_cameras_is_bitwise_the_same(tmp_path: pathlib.Path) -> None:
    images = disturbed(true_views(8, 24), 2)
    options = {"refine_cameras": True, "steps": 6, "checkpoint_seconds": 0, "progress": False}
    whole = fit_mesh(images, **options)

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    with pytest.raises(Stop):
        fit_mesh(images, output=tmp_path, callback=stop, **options)
    rest = fit_mesh(images, output=tmp_path, **options)
    assert torch.equal(rest.mesh.vertices, whole.mesh.vertices) and rest.history == whole.history
    assert rest.cameras is not None and whole.cameras is not None
    for name in ("rotation", "translation", "focal"):
        assert torch.equal(getattr(rest.cameras, name), getattr(whole.cameras, name))


def test_views_by_turns_move_cameras_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    images = disturbed(true_views(6, 24), 3)
    options = {"refine_cameras": True, "steps": 2, "hold_out": 0, "progress": False, "evaluate_every": 1}
    whole = fit_mesh(images, **options)
    from geodiff.tasks.mesh import job

    monkeypatch.setattr(job, "turns", lambda count, size: [slice(i, i + 2) for i in range(0, count, 2)])
    parts = fit_mesh(images, **options)
    assert whole.cameras is not None and parts.cameras is not None
    assert torch.allclose(parts.cameras.translation, whole.cameras.translation, atol=1e-5)
    assert torch.allclose(parts.mesh.vertices, whole.mesh.vertices, atol=1e-4)


def test_masks_that_say_nothing_leave_their_cameras() -> None:
    images = disturbed(true_views(8, 24), 4)
    images.alpha[2] = 0
    moving = moving_cameras(images, list(range(8)), ORIGIN, gd.tasks.FitMeshSettings().completed())
    _, _, _, scale = without_gauge(moving.moves.cameras, images.cameras)
    assert abs(scale - 1) < 1e-5
    shift = (moving.moves.cameras.position - images.cameras.position.double()).norm(dim=-1)
    assert float(shift[2]) < 0.02 < float(shift.max())  # but for the gauge


def test_without_touches_cameras_stay() -> None:
    """One view has no other to touch alike with; outlines at the borders of images say nothing."""
    full = true_views(6, 24)
    cut = PosedImages(None, full.alpha[:, 9:15, 9:15].contiguous(), full.cameras)
    for images in (full[[1]], cut):
        x = Tangents(images, Moves(images.cameras, ORIGIN)).solve(Prior(2.0, 0.02, 0.02))
        assert not x.requires_grad and float(x.abs().max()) == 0


def test_what_is_refused() -> None:
    cameras = gd.Camera.orbit(2.7, 20, torch.arange(6) * 60.0, extent=2.0)
    alpha = gd.rasterize(shape(), cameras, 24).mask.float()
    with pytest.raises(ValueError, match=r"fit_mesh: `cameras` must be perspective ones, to be refined; got ortho"):
        fit_mesh(alpha, cameras, refine_cameras=True, progress=False)
    for prior in ((2.0, 0.02), (0.0, 0.02, 0.02), (2.0, 0.02, 2.0), "wide"):
        with pytest.raises(ValueError, match=r"fit_mesh: `camera_prior` must be three positive numbers: degrees"):
            gd.tasks.FitMeshSettings(camera_prior=prior)
    with pytest.raises(TypeError, match=r"fit_mesh: `refine_cameras` must be True or False"):
        gd.tasks.FitMeshSettings(refine_cameras=1)
