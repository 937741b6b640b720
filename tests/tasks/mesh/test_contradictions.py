# SPDX-License-Identifier: Apache-2.0
"""Views that no one object has: named, refused or said, on shapes and sizes of several kinds."""

import math
import re

import pytest
import torch

import geodiff as gd
from geodiff.scene.pose import rotation_from_vector
from geodiff.tasks import fit_mesh, visual_hull
from geodiff.tasks.mesh.agreement import disagreement, residuals
from geodiff.tasks.overlap import hard_iou

SCENES = [("wedge", 12, 64, 20.0), ("box", 24, 48, 30.0), ("bars", 8, 80, 10.0)]


def solid(name: str) -> gd.Mesh:
    """Solids that look different from each side."""
    box = gd.box((0.5, 0.25, 0.35))
    if name == "box":
        return box
    if name == "wedge":  # its upper end is smaller, and aside
        v = box.vertices
        up = (v[:, 1:2] > 0).to(v)
        return box.with_vertices(v * (1 - 0.5 * up) + up * v.new_tensor([0.1, 0.0, 0.06]))
    other = gd.box((0.1, 0.5, 0.12)).translated([0.15, 0.2, -0.1])
    return gd.Mesh(torch.cat((box.vertices, other.vertices)), torch.cat((box.faces, other.faces + box.num_vertices)))


def masks(mesh: gd.Mesh, cameras: gd.Camera, size: int) -> torch.Tensor:
    fine = gd.rasterize(mesh, cameras, 4 * size).mask.float()
    return torch.nn.functional.avg_pool2d(fine[:, None], 4)[:, 0]


def scene(name: str, count: int, size: int, elevation: float) -> tuple[torch.Tensor, gd.Camera]:
    cameras = gd.Camera.orbit(2.7, elevation, torch.arange(count) * (360.0 / count), fov_deg=30)
    return masks(solid(name), cameras, size), cameras


def swivelled(cameras: gd.Camera, view: int, degrees: float) -> gd.Camera:
    """Turn one camera where it stands."""
    R, t = cameras.rotation.clone(), cameras.translation.clone()
    turn = rotation_from_vector(torch.tensor([0.6, 0.8, 0.0]) * math.radians(degrees))
    R[view], t[view] = turn @ R[view], turn @ t[view]
    return gd.Camera(R, t, cameras.focal, cameras.principal)


@pytest.mark.parametrize(("name", "count", "size", "elevation"), SCENES)
def test_clean_views_say_nothing(name: str, count: int, size: int, elevation: float) -> None:
    alpha, cameras = scene(name, count, size, elevation)
    visual_hull(alpha, cameras)  # a warning would be an error
    visual_hull((alpha >= 0.5).float(), cameras)


@pytest.mark.parametrize(("name", "count", "size", "elevation"), SCENES)
def test_one_inverted_mask(name: str, count: int, size: int, elevation: float) -> None:
    alpha, cameras = scene(name, count, size, elevation)
    alpha[3] = 1 - alpha[3]
    with pytest.raises(ValueError, match=r"silhouettes of one object; got view 003 against all others"):
        visual_hull(alpha, cameras)


@pytest.mark.parametrize(("name", "count", "size", "elevation"), SCENES)
def test_one_camera_turned_by_three_degrees(name: str, count: int, size: int, elevation: float) -> None:
    alpha, cameras = scene(name, count, size, elevation)
    with pytest.warns(UserWarning, match=r"view 005 contradicts the other views: its outline touches [\d.]+ pixels"):
        visual_hull(alpha, swivelled(cameras, 5, 3.0))


@pytest.mark.parametrize(("name", "count", "degrees"), [("wedge", 12, 2.5), ("box", 24, -2.5), ("bars", 16, 2.5)])
def test_one_camera_moved_around_the_object(name: str, count: int, degrees: float) -> None:
    """By 2.5°, which the outermost touches hardly show; the same views say nothing where it is right."""
    alpha, cameras = scene(name, count, 128, 25.0)
    posed = gd.PosedImages(None, alpha, cameras)
    nowhere = torch.zeros(3, dtype=torch.float64)
    assert disagreement(posed, nowhere) is None
    assert disagreement(gd.PosedImages(None, (alpha >= 0.5).float(), cameras), nowhere) is None
    azimuth = torch.arange(count) * (360.0 / count)
    azimuth[5] += degrees
    moved = gd.Camera.orbit(2.7, 25.0, azimuth, fov_deg=30)
    told = disagreement(gd.PosedImages(None, alpha, moved), nowhere)
    assert told is not None and re.match(r"view 005 contradicts the other views: it fits to them [1-4]\.\d° away", told)


@pytest.mark.parametrize(("name", "count", "size", "elevation"), SCENES)
def test_one_camera_turned_by_twenty_degrees(name: str, count: int, size: int, elevation: float) -> None:
    alpha, cameras = scene(name, count, size, elevation)
    with pytest.raises(ValueError, match=r"got view 005 against all others.*its camera that of another image"):
        visual_hull(alpha, swivelled(cameras, 5, 20.0))


@pytest.mark.parametrize(("name", "count", "size", "elevation"), SCENES[:2])
def test_two_views_swapped_are_both_named(name: str, count: int, size: int, elevation: float) -> None:
    alpha, cameras = scene(name, count, size, elevation)
    alpha[[2, 4]] = alpha[[4, 2]]
    odd = residuals(gd.PosedImages(None, alpha, cameras), torch.zeros(3, dtype=torch.float64))
    assert set(odd.argsort(descending=True)[:2].tolist()) == {2, 4}
    with pytest.warns(UserWarning, match=r"views (002, 004|004, 002) contradict the other views"):
        visual_hull(alpha, cameras)


def test_two_views_swapped_whose_outlines_touch_alike() -> None:
    """From one height all silhouettes have the same top and bottom: something is wrong, but not where."""
    alpha, cameras = scene(*SCENES[2])
    alpha[[2, 4]] = alpha[[4, 2]]
    with pytest.warns(UserWarning, match=r"the hull leaves 30 % of the silhouettes uncovered: cameras or masks"):
        visual_hull(alpha, cameras)


def test_all_cameras_a_little_wrong() -> None:
    alpha, cameras = scene("wedge", 12, 64, 20.0)
    for view in range(12):
        cameras = swivelled(cameras, view, 3.0 * (-1) ** view)
    with pytest.warns(UserWarning, match=r"All cameras are a little wrong, or masks: refine_cameras=True"):
        visual_hull(alpha, cameras)


@pytest.mark.parametrize(("name", "count", "size", "elevation"), SCENES)
def test_all_masks_inverted(name: str, count: int, size: int, elevation: float) -> None:
    alpha, cameras = scene(name, count, size, elevation)
    with pytest.raises(ValueError, match=r"visual_hull: .* got 1 all along the borders of images\. Invert them: pass"):
        visual_hull(1 - alpha, cameras)
    with pytest.raises(ValueError, match=r"fit_mesh: .* got 1 all along the borders"):
        fit_mesh(1 - alpha, cameras, progress=False)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_noise_is_refused(size: int) -> None:
    cameras = gd.Camera.orbit(2.7, 20, torch.arange(12) * 30.0, fov_deg=30)
    noise = torch.rand(12, size, size, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"got ones of \d+ separate specks and holes in the middle one. Is it noise"):
        visual_hull(noise, cameras)


def test_masks_at_the_border_say_so() -> None:
    cameras = gd.Camera.orbit(0.75, 20, torch.arange(8) * 45.0, fov_deg=30)
    alpha = masks(solid("box"), cameras, 48)
    assert bool((alpha[:, :, 0] >= 0.5).any())
    said = r"the masks of views 000, .* go up to the border of their images: what is beyond"
    with (
        pytest.warns(UserWarning, match=said),
        pytest.warns(UserWarning, match=r"stays unknown, .* Add views that show all of it"),
    ):
        visual_hull(alpha, cameras)


@pytest.mark.parametrize("size", [6, 8, 12, 24])
def test_small_images_seen_from_all_sides_leave_nothing_unknown(size: int) -> None:
    cameras = gd.Camera.orbit(2.7, torch.tensor([0.0, 30, -30] * 4), torch.arange(12) * 30.0, fov_deg=30)
    visual_hull(masks(gd.icosphere(3, 0.4), cameras, size), cameras)


def test_a_world_nearer_than_near() -> None:
    """Millimetres taken for metres: all is nearer than what cameras show."""
    cameras = gd.Camera.orbit(2.7e-3, 20, torch.arange(8) * 45.0, fov_deg=30, near=1e-6)
    alpha = masks(gd.box((5e-4, 2.5e-4, 3.5e-4)), cameras, 32)
    visual_hull(alpha, cameras)
    cameras = gd.Camera(cameras.rotation, cameras.translation, cameras.focal)
    with pytest.raises(ValueError, match=r"of a `near` less than the distance to the object; got 0\.01, and an object"):
        visual_hull(alpha, cameras)


def test_cameras_that_look_away() -> None:
    """Poses of OpenCV taken for OpenGL's: the object is behind."""
    alpha, cameras = scene("box", 8, 32, 20.0)
    flip = torch.diag(torch.tensor([1.0, -1, -1]))
    away = gd.Camera(flip @ cameras.rotation, (flip @ cameras.translation[..., None])[..., 0], cameras.focal)
    with pytest.raises(ValueError, match=r"turned to what their silhouettes point to; got views 000, 001.*from_opencv"):
        visual_hull(alpha, away)


def test_one_and_two_views() -> None:
    for azimuth in ([30.0], [20.0, 110.0]):
        cameras = gd.Camera.orbit(2.7, 30, torch.tensor(azimuth), fov_deg=30)
        alpha = masks(solid("bars"), cameras, 48)
        if len(azimuth) == 1:
            with pytest.warns(UserWarning, match="stays unknown"):
                fit = fit_mesh(alpha, cameras, hold_out=0, progress=False)
        else:
            fit = fit_mesh(alpha, cameras, hold_out=0, progress=False)
        assert fit.iou_train > 0.9


@pytest.mark.parametrize("template", ["hull", "sphere"])
def test_views_that_say_nothing_are_named_and_left_out(template: str) -> None:
    """Of the fitted ones and of those held out, which are 0, 4 and 8; such masks are no part of any mean."""
    alpha, cameras = scene(*SCENES[0])
    right = alpha.clone()
    alpha[2], alpha[4], alpha[8] = 0.0, 0.0, 1.0
    alpha[6], cameras = alpha[5], gd.Camera.cat([cameras[i : i + 1] for i in (0, 1, 2, 3, 4, 5, 5, 7, 8, 9, 10, 11)])
    more = {"hold_out": 4, "steps": 12, "template": template, "progress": False}
    with pytest.warns(UserWarning) as told:
        fit = fit_mesh(alpha, cameras, **more)
    texts = [str(warning.message) for warning in told]
    assert texts == [
        "fit_mesh: the mask of view 002 is empty and left out",
        "fit_mesh: view 006 is the same as another before, and left out",
        "fit_mesh: the mask of view 004 is empty: no part of the IoU of what is held out",
        "fit_mesh: the mask of view 008 is full: no part of the IoU of what is held out",
    ]
    assert fit.train == [1, 3, 5, 7, 9, 10, 11] and fit.held_out == [0, 4, 8]
    held = [0]
    assert fit.iou_held_out == pytest.approx(hard_iou(fit.mesh, cameras[held], right[held]))


@pytest.mark.parametrize("template", ["sphere", "mesh"])
def test_other_templates_are_checked_as_well(template: str) -> None:
    alpha, cameras = scene(*SCENES[0])
    start = gd.icosphere(2, 0.3) if template == "mesh" else template
    more = {"template": start, "hold_out": 0, "steps": 2, "progress": False}
    with pytest.warns(UserWarning, match=r"fit_mesh: view 005 contradicts the other views: its outline touches"):
        fit_mesh(alpha, swivelled(cameras, 5, 3.0), **more)
    with pytest.raises(ValueError, match=r"fit_mesh: .* got 1 all along the borders"):
        fit_mesh(1 - alpha, cameras, **more)
    flip = torch.diag(torch.tensor([1.0, -1, -1]))
    away = gd.Camera(flip @ cameras.rotation, (flip @ cameras.translation[..., None])[..., 0], cameras.focal)
    with pytest.raises(ValueError, match="fit_mesh: `cameras` must be turned to what their silhouettes point to"):
        fit_mesh(alpha, away, **more)
