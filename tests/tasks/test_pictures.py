# SPDX-License-Identifier: Apache-2.0
"""Pictures show what they should: the right places covered, lit from above, the right way round."""

import numpy as np
import pytest
import torch
from PIL import Image

import geodiff as gd
from geodiff.tasks import pictures, render_views


def camera(azimuth: float = 0.0, elevation: float = 0.0) -> gd.Camera:
    return gd.Camera.orbit(4.0, elevation, azimuth, fov_deg=40)


def test_alpha_is_the_share_of_covered_samples() -> None:
    _, alpha = pictures.shaded(gd.icosphere(3), camera(), (24, 32), supersample=4)
    fine = gd.rasterize(gd.icosphere(3), camera(), (96, 128)).mask.float()
    expected = torch.nn.functional.avg_pool2d(fine[None, None], 4)[0, 0].numpy()
    assert alpha.dtype == np.float32 and np.array_equal(alpha, expected)


def test_a_ball_is_lit_from_above_on_the_left_whichever_way_it_faces() -> None:
    ball = gd.icosphere(3)
    color, alpha = pictures.shaded(ball, camera(), (64, 64))
    assert color.min() >= 0 and color.max() <= 1 and alpha[32, 32] == 1
    grey = color.mean(-1)
    assert grey[20, 24] > grey[32, 32] > grey[44, 40] > 0.3
    inside_out, _ = pictures.shaded(ball.flipped(), camera(), (64, 64))
    assert np.abs(inside_out - color).max() < 1e-5
    # Colour is that of the surface, not darkened by the background that shares a pixel at the rim.
    rim = (alpha > 0) & (alpha < 1)
    assert rim.any() and grey[rim].min() > 0.25


def test_a_box_has_flat_sides_and_sharp_edges() -> None:
    color, alpha = pictures.shaded(gd.box(), camera(30, 20), (64, 64), supersample=1)
    levels = np.unique(np.rint(color[alpha > 0] * 255), axis=0)
    assert len(levels) == 3  # the three sides in sight


def test_nothing_to_see() -> None:
    nothing = pictures.shaded(gd.Mesh(torch.zeros(0, 3), []), camera(), (8, 8))
    with pytest.warns(UserWarning, match="the mesh is wholly behind the camera"):
        behind = pictures.shaded(gd.icosphere(1).translated([0, 0, 100.0]), camera(), (8, 8))
    for color, alpha in (nothing, behind):
        assert not alpha.any() and np.isfinite(color).all()


def test_batches_are_stacked() -> None:
    cameras = gd.Camera.orbit(4.0, 10, torch.tensor([0.0, 90.0]), fov_deg=40)
    color, alpha = pictures.shaded(gd.box(), cameras, (8, 12))
    assert color.shape == (2, 8, 12, 3) and alpha.shape == (2, 8, 12)


def test_difference_tells_missing_from_extra() -> None:
    target, fit = np.array([[1.0, 1.0, 0.0, 0.0]]), np.array([[1.0, 0.0, 1.0, 0.0]])
    both, missing, extra, empty = pictures.difference(target, fit)[0]
    assert np.ptp(both) < 0.05 and missing.argmax() == 0 and extra.argmax() == 2 and (empty == 1).all()


def test_over_and_resized() -> None:
    ground = pictures.backdrop((6, 4))
    assert ground[0].mean() > ground[-1].mean()
    assert np.array_equal(pictures.over(np.zeros((6, 4, 3)), np.zeros((6, 4)), ground), ground)
    step = np.repeat([[0.0, 1.0]], 4, axis=0).astype(np.float32)
    large = pictures.resized(step, (8, 16))
    assert large.shape == (8, 16) and large.min() >= 0 and large.max() <= 1
    assert (np.diff(large, axis=1) >= -1e-6).all()


def test_grid_places_pictures_in_rows_and_columns() -> None:
    red, blue = np.zeros((10, 20, 3)), np.zeros((10, 20, 3))
    red[..., 0], blue[..., 2] = 1, 1
    page = np.asarray(pictures.grid([[red, blue], [blue, red]], ("a", "b"), ("one", "two")))
    reds = (page == (255, 0, 0)).all(-1).nonzero()
    assert (len(reds[0]), reds[0].min() < 30, reds[1].max() == page.shape[1] - 7) == (400, True, True)


@pytest.mark.parametrize("up", ["y", "z"])
def test_turntable_keeps_distance_lens_and_up(up: str) -> None:
    axis = torch.eye(3)[{"y": 1, "z": 2}[up]]
    around = torch.eye(3)[[2, 0]] if up == "y" else torch.eye(3)[[0, 1]]
    at = torch.tensor([1.0, 2.0, 3.0])
    eyes = torch.stack([at + 3 * (a.cos() * around[0] + a.sin() * around[1]) + axis for a in torch.arange(4.0)])
    cameras = gd.Camera.look_at(eyes, at, axis, fov_deg=30)
    turned = pictures.turntable(cameras, at, [0.0, 90.0, 200.0], 25.0)
    offset = turned.position - at
    assert torch.allclose(offset.norm(dim=-1), torch.tensor(10.0).sqrt().double())
    assert torch.allclose(offset @ axis.double(), torch.tensor(10.0).sqrt().double() * np.sin(np.radians(25)))
    assert torch.allclose(turned.project(at.double()[None])[..., :2], torch.zeros(3, 1, 2).double(), atol=1e-6)
    assert bool((turned.rotation[:, 1] @ axis.double() > 0.9).all())
    assert torch.allclose(turned.focal, 0.9 * cameras.focal[0].double())
    first = eyes[0] - at - axis
    assert (
        float(torch.nn.functional.cosine_similarity(offset[0] - (offset[0] @ axis.double()) * axis, first.double(), 0))
        > 1 - 1e-6
    )


def test_turntable_of_a_camera_at_the_pole() -> None:
    overhead = gd.Camera.look_at((0.0, 0.0, 4.0), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    cameras = gd.Camera.stack([overhead, gd.Camera.look_at((0.0, 4.0, 0.0), up=(0.0, 0.0, -1.0))])
    turned = pictures.turntable(cameras, torch.zeros(3), [0.0], 25.0)
    assert torch.isfinite(turned.rotation).all()


# --- render_views -----------------------------------------------------------------------------------------------------


def test_all_of_the_mesh_is_in_the_image_and_fills_it() -> None:
    mesh = gd.torus(1.0, 0.3).scaled(50.0).translated([7.0, -300.0, 20.0])
    images = render_views(mesh, views=6, elevation=(30.0, -30.0), size=(40, 56))
    covered = images.alpha > 0
    assert not covered[:, [0, -1]].any() and not covered[:, :, [0, -1]].any()
    assert int(covered.any(-1).sum(-1).max()) > 20 and images.image_size == (40, 56)
    assert torch.allclose(images.cameras.position[:, 1] + 300 > 0, torch.tensor([True, False] * 3))


def test_alpha_is_anti_aliased_or_hard() -> None:
    soft, hard = (render_views(gd.icosphere(3), views=2, size=(32, 32), hard=hard) for hard in (False, True))
    assert len(soft.alpha.unique()) > 4
    assert torch.equal(hard.alpha, gd.rasterize(gd.icosphere(3), hard.cameras, 32).mask.float())
    assert float((soft.alpha - hard.alpha).abs().max()) < 0.75
    assert hard.images is not None and float(hard.images[hard.alpha > 0].min()) > 0.2


def test_random_views_are_those_of_the_seed_and_all_around() -> None:
    one, same, other = (render_views(gd.box(), views=40, placement="random", seed=s, size=(8, 8)) for s in (0, 0, 1))
    assert torch.equal(one.cameras.position, same.cameras.position)
    assert not torch.equal(one.cameras.position, other.cameras.position)
    for axis in range(3):
        assert one.cameras.position[:, axis].min() < -1 and one.cameras.position[:, axis].max() > 1


def test_round_trip_through_files(tmp_path) -> None:
    images = render_views(gd.box(), views=3, size=(16, 24))
    back = gd.PosedImages.load(images.save(tmp_path))
    assert torch.allclose(back.alpha, images.alpha, atol=0.5 / 255 + 1e-6)
    assert torch.allclose(back.cameras.position, images.cameras.position, atol=1e-5)
    with Image.open(tmp_path / "images" / "000.png") as picture:
        assert picture.mode == "RGBA" and picture.size == (24, 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": 0}, "render_views: `views` must be an integer ≥ 1"),
        ({"placement": "orbits"}, "`placement` must be one of .* Did you mean 'orbit'"),
        ({"fov": "wide"}, r"`fov` must be in \(0, 180\) degrees; got str 'wide'"),
        ({"fov": 180.0}, r"`fov` must be in \(0, 180\) degrees"),
        ({"elevation": 90.0}, r"`elevation` must be in \(−90, 90\) degrees; .* Use ±89"),
        ({"distance": -1.0}, "`distance` must be positive"),
        ({"size": (0, 8)}, "render_views: `size` must be a positive integer"),
    ],
)
def test_wrong_arguments(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render_views(gd.box(), **change)


def test_a_mesh_without_extent() -> None:
    with pytest.raises(ValueError, match="`mesh` must be of some extent"):
        render_views(gd.Mesh(torch.ones(3, 3), [[0, 1, 2]]))
    with pytest.raises(ValueError, match="`mesh` must be of some extent; got one without vertices"):
        render_views(gd.Mesh(torch.zeros(0, 3), []))


def test_no_single_mesh() -> None:
    with pytest.raises(ValueError, match=r"render_views: `mesh` must be one mesh; got a batch of \(2,\). Take mesh"):
        render_views(gd.Mesh(torch.rand(2, 4, 3), [[0, 1, 2]]))
    with pytest.raises(
        TypeError, match=r"render_views: `mesh` must be a Mesh; got str 'a.obj'. Read one with Mesh.load"
    ):
        render_views("a.obj")


def test_one_number_is_a_square() -> None:
    assert render_views(gd.box(), views=1, size=12).image_size == (12, 12)
