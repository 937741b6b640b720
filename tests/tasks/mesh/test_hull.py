# SPDX-License-Identifier: Apache-2.0
"""The visual hull: its shape, holes and parts; and what is said of silhouettes that no object has."""

import pathlib
import warnings

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.scene.files import PosedImages
from geodiff.tasks import fit_mesh, render_views, visual_hull
from geodiff.tasks.mesh.carving import Carver
from geodiff.tasks.mesh.hull import _averaged, _half, parts
from geodiff.tasks.mesh.outlines import FAR, outline_distance
from geodiff.tasks.overlap import hard_iou
from geodiff.tasks.progress import Progress
from tests.scene.test_remesh import angles


def views(mesh: gd.Mesh, count: int = 12, elevations: tuple[float, ...] = (35.0, -20.0, 5.0), **more) -> PosedImages:
    return render_views(mesh, views=count, elevation=elevations, size=more.pop("size", 48), distance=2.7, **more)


def both(*meshes: gd.Mesh) -> gd.Mesh:
    count = [0, *np.cumsum([mesh.num_vertices for mesh in meshes])]
    faces = [mesh.faces + int(first) for mesh, first in zip(meshes, count, strict=False)]
    return gd.Mesh(torch.cat([mesh.vertices for mesh in meshes]), torch.cat(faces))


# --- distances to outlines --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("soft", [True, False])
def test_distance_to_the_outline_of_a_disc(soft: bool) -> None:
    fine = torch.arange(320).float().add(0.5) / 8
    inside = ((fine[:, None] - 20.3).square() + (fine - 19.6).square() < 12.4**2).float()
    alpha = torch.nn.functional.avg_pool2d(inside[None, None], 8)[0, 0]
    alpha = alpha if soft else (alpha >= 0.5).float()
    at = torch.arange(40).float() + 0.5
    exact = 12.4 - torch.hypot(at[:, None] - 20.3, at - 19.6)
    off = (outline_distance(alpha) - exact).abs()
    # Where the coverage says so, to some hundredths of a pixel; the centres of pixels are what is left far away.
    near = off[exact.abs() < 2]
    assert float(near.max()) < (0.15 if soft else 0.5) and float(near.mean()) < (0.04 if soft else 0.2)
    assert float(off.max()) < (0.6 if soft else 0.9)


def test_distance_to_no_outline() -> None:
    assert bool((outline_distance(torch.ones(3, 5)) == FAR).all())
    assert bool((outline_distance(torch.zeros(3, 5, dtype=torch.float64)) == -FAR).all())
    assert outline_distance(torch.tensor([[0.0, 1.0, 1.0]])).tolist() == [[-0.5, 0.5, 1.5]]


# --- the hull ---------------------------------------------------------------------------------------------------------


def test_a_ball() -> None:
    """From around, a ball is its own hull, to a few hundredths of a pixel."""
    images = views(gd.icosphere(4, 0.5), 24)
    hull = visual_hull(images)
    assert hull.is_closed and hull.euler_characteristic == 2
    radius = hull.vertices.norm(dim=-1)
    pixel = 2.7 * np.tan(np.radians(15)) * 2 / 48
    assert abs(float(radius.median()) - 0.5) < 0.1 * pixel
    assert float(radius.min()) > 0.5 - 0.25 * pixel
    normal = hull.vertex_normals
    assert float((normal * hull.vertices).sum(-1).min()) > 0  # outwards


@pytest.mark.parametrize("hard", [False, True])
def test_holes_and_parts_are_kept(hard: bool) -> None:
    ring, ball = gd.torus(0.4, 0.1).translated([0, 0, 0.0]), gd.icosphere(3, 0.12).translated([0.0, 0.45, 0.0])
    hull = visual_hull(views(both(ring, ball), 16, (60.0, 10.0, -40.0), hard=hard, size=64))
    assert int(parts(hull).max()) == 1
    assert hull.is_closed and hull.euler_characteristic == 2 + 0


@pytest.mark.parametrize("seed", range(6))
def test_phantoms_are_left_out(seed: int) -> None:
    """Two rods in two views: where the rays of one cross those of the other stand two more, of equal size."""
    pair = both(*[gd.box((0.1, 0.8, 0.1)).translated([x, 0, 0]) for x in (-0.3, 0.3)])
    turned = 1e-4 * torch.randn(2, generator=torch.Generator().manual_seed(seed))
    cameras = gd.Camera.orbit(4.0, 0.0, torch.tensor([-45.0, 45.0]) + turned, extent=1.5)
    alpha = gd.rasterize(pair, cameras, 64).mask.float()
    hull = visual_hull(alpha, cameras)
    assert int(parts(hull).max()) == 1
    assert hard_iou(hull, cameras, alpha) > 0.95


def test_a_hull_is_as_good_as_its_masks() -> None:
    mesh = gd.box((0.7, 0.35, 0.5))
    images = views(mesh, 24)
    hull = visual_hull(images[[i for i in range(24) if i % 6]])
    assert hard_iou(hull, images.cameras, images.alpha) > 0.97
    shortest = hull.vertices[hull.edges].diff(dim=1).norm(dim=-1)
    assert float(shortest.quantile(0.01)) > 0.2 * float(shortest.median())  # no slivers


def test_units_places_lenses_and_sizes() -> None:
    """The same hull wherever the object is and however large it is; images need not be square."""
    ball = gd.icosphere(3, 0.4)
    cameras = gd.Camera.orbit(3.0, 20, torch.arange(8) * 45.0, fov_deg=30)
    first = visual_hull(gd.rasterize(ball, cameras, (32, 48)).mask.float(), cameras)
    at = torch.tensor([300.0, -20.0, 5.0])
    moved = gd.Camera.orbit(300.0, 20, torch.arange(8) * 45.0, fov_deg=30, near=1.0, at=at)
    alpha = gd.rasterize(ball.scaled(100.0).translated(at), moved, (32, 48)).mask.float()
    second = visual_hull(alpha.double(), moved.to(dtype=torch.float64))
    assert second.dtype == torch.float64
    assert torch.allclose((second.bounds - at) / 100, first.bounds.double(), atol=0.02)
    flat = gd.Camera.orbit(3.0, 20, torch.arange(8) * 45.0, extent=1.5)
    third = visual_hull(gd.rasterize(ball, flat, 32).mask.float(), flat)
    assert third.is_closed and torch.allclose(third.bounds.abs(), torch.tensor(0.4), atol=0.06)


def test_blocks_are_as_good_as_every_node() -> None:
    """What is decided by a look at the middle of a block is what a look at each node would say."""
    images = views(both(gd.torus(0.4, 0.06), gd.icosphere(2, 0.05).translated([0.4, 0.4, 0.0])), 7)
    carver = Carver(images.alpha, images.cameras)
    low, cell, shape = torch.tensor([-0.6, -0.6, -0.6]), 0.03, (41, 40, 43)
    values = carver.grid(low, cell, shape)
    at = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij"), dim=-1)
    every = carver.values((low + at * cell).reshape(-1, 3)).reshape(shape)
    assert torch.equal(values > -0.2, every > -0.2)
    crossed = torch.zeros(shape, dtype=torch.bool)
    for axis in range(3):
        change = (every > -0.2).int().diff(dim=axis) != 0
        crossed.narrow(axis, 0, shape[axis] - 1).logical_or_(change)
        crossed.narrow(axis, 1, shape[axis] - 1).logical_or_(change)
    assert torch.equal(values[crossed], every[crossed])
    assert float((values.abs() == FAR).float().mean()) > 0.3  # and most were not looked at


def test_what_is_out_of_the_image() -> None:
    """A whole object in view is all there is; one that goes over the border may go on."""
    ball = gd.icosphere(3, 0.4)
    cameras = gd.Camera.orbit(3.0, 10, torch.arange(6) * 60.0, fov_deg=30)
    near = gd.Camera.look_at((0.0, 0.0, 1.2), (0.25, 0.0, 0.0), (0.0, 1.0, 0.0), fov_deg=30)
    alpha = gd.rasterize(ball, cameras, 40).mask.float()
    close = gd.rasterize(ball, near, 40).mask.float()
    assert bool(close[:, 0].any())
    with pytest.warns(UserWarning, match="the mask of view 006 goes up to the border of its image"):
        hull = visual_hull(torch.cat((alpha, close[None])), gd.Camera.cat([cameras, gd.Camera.stack([near])]))
    assert hard_iou(hull, cameras, alpha) > 0.96


def test_same_bits_on_any_number_of_threads() -> None:
    images = views(gd.torus(0.4, 0.15), 6)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(visual_hull(images))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0].vertices, found[1].vertices) and torch.equal(found[0].faces, found[1].faces)


# --- fits from it -----------------------------------------------------------------------------------------------------


def test_a_fit_keeps_the_hole_and_gets_nearer() -> None:
    torus = gd.torus(0.4, 0.12)
    images = views(torus, 18, size=40)
    fit = fit_mesh(images, progress=False)
    hull = visual_hull(images[fit.train])
    assert fit.mesh.is_closed and fit.mesh.euler_characteristic == 0
    # Triangles that one would show, which those of the hull need not be.
    assert len(fit.mesh.self_intersections()) == 0
    assert float((angles(fit.mesh).amin(-1) < 10).double().mean()) <= 0.01
    assert fit.iou_held_out is not None and fit.iou_held_out > 0.95
    off = [float((torch.hypot(m.vertices[:, [0, 2]].norm(dim=-1) - 0.4, m.vertices[:, 1]) - 0.12).abs().mean())
           for m in (hull, fit.mesh)]  # fmt: skip
    assert off[1] < off[0]
    history = [record["iou_loss"] for record in fit.history]
    assert history[-1] < 0.7 * history[0]
    assert fit.settings.coverage == "contour" and fit.settings.steps == len(history)


def test_resumed_from_a_hull_is_bitwise_the_same(tmp_path: pathlib.Path) -> None:
    images = views(gd.torus(0.4, 0.15), 8, size=20)
    options = {"steps": 6, "checkpoint_seconds": 0, "progress": False}
    whole = fit_mesh(images, **options)

    class Stop(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise Stop

    with pytest.raises(Stop):
        fit_mesh(images, output=tmp_path, callback=stop, **options)
    rest = fit_mesh(images, output=tmp_path, **options)
    assert torch.equal(rest.mesh.vertices, whole.mesh.vertices) and rest.history == whole.history
    assert rest.best_step == whole.best_step
    with pytest.raises(Stop):
        fit_mesh(images, output=tmp_path, callback=stop, resume=False, **options)
    with pytest.raises(ValueError, match=r"made with .*resolution"):
        fit_mesh(images, output=tmp_path, resolution=12, **options)


def test_what_is_left_open_is_filled_in_by_the_start() -> None:
    settings = gd.tasks.FitMeshSettings(scale=(None, 2e-3), steps=7)
    hull, sphere = settings.completed("hull", 100), settings.completed("sphere")
    assert (hull.steps, hull.loss, hull.scale) == (7, "squared", (pytest.approx(0.002), 2e-3))
    assert (sphere.steps, sphere.loss, sphere.scale, sphere.lr) == (7, "iou", (1e-2, 2e-3), 0.18)
    assert all(value is not None for value in (sphere.samples, sphere.coverage, sphere.lr_decay, hull.flatness))
    for change, message in (
        ({"loss": "l2"}, "`loss` must be one of"),
        ({"coverage": "face"}, "`coverage` must be one of .* Did you mean 'faces'"),
        ({"samples": 9}, "`samples` must be an integer ≤ 8"),
        ({"resolution": 2}, "`resolution` must be an integer ≥ 4"),
    ):
        with pytest.raises(ValueError, match=f"fit_mesh: {message}"):
            gd.tasks.FitMeshSettings(**change)


# --- silhouettes that no object has -----------------------------------------------------------------------------------


def silhouettes(count: int = 10) -> tuple[torch.Tensor, gd.Camera]:
    cameras = gd.Camera.orbit(2.7, 20, torch.arange(count) * (360.0 / count), fov_deg=30)
    return gd.rasterize(gd.box((0.5, 0.25, 0.35)), cameras, 40).mask.float(), cameras


def test_an_inverted_mask_is_named() -> None:
    alpha, cameras = silhouettes()
    alpha[3] = 1 - alpha[3]
    with pytest.raises(
        ValueError, match=r"visual_hull: `images` must be silhouettes of one object; got view 003 against"
    ):
        visual_hull(alpha, cameras)
    with pytest.raises(ValueError, match=r"fit_mesh: .* view 003 against"):
        fit_mesh(alpha, cameras, hold_out=0, progress=False)


def test_a_wrong_camera_is_named() -> None:
    alpha, cameras = silhouettes()
    wrong = torch.arange(10)
    aside = gd.Camera.look_at((0.0, 1.0, 2.6), (0.28, 0.1, 0.0), (0.0, 1.0, 0.0), fov_deg=30)
    cameras = gd.Camera.stack([aside if i == 7 else cameras[i] for i in wrong.tolist()])
    with pytest.warns(
        UserWarning, match="view 007 contradicts the other views: its outline touches 1.9 pixels from where"
    ):
        visual_hull(alpha, cameras)


def test_empty_full_and_double_masks() -> None:
    alpha, cameras = silhouettes()
    clean = visual_hull(alpha, cameras)
    odd = torch.cat((alpha, torch.zeros(1, 40, 40), torch.ones(1, 40, 40), alpha[2:3]))
    all_cameras = gd.Camera.stack([*cameras, cameras[0], cameras[1], cameras[2]])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hull = visual_hull(odd, all_cameras)
    text = [str(one.message) for one in caught]
    assert text[0].endswith("the mask of view 010 is empty and left out")
    assert text[1].endswith("the mask of view 011 is full and left out")
    assert text[2].endswith("view 012 is the same as another before, and left out") and len(text) == 3
    assert torch.equal(hull.vertices, clean.vertices)
    for values, what in ((0.0, "empty ones"), (1.0, "full ones")):
        with pytest.raises(ValueError, match=f"masks with an outline; got {what}"):
            visual_hull(torch.full_like(alpha, values), cameras)


def test_views_from_one_side_say_what_stays_unknown() -> None:
    cameras = gd.Camera.orbit(2.7, 5, torch.tensor([-4.0, 0.0, 4.0]), fov_deg=30)
    alpha = gd.rasterize(gd.box((0.5, 0.25, 0.35)), cameras, 40).mask.float()
    with pytest.warns(UserWarning, match=r"how far the object goes to .*−z, \+z.* stays unknown.* too few sides"):
        hull = visual_hull(alpha, cameras)
    assert hull.is_closed and hard_iou(hull, cameras, alpha) > 0.95


def test_silhouettes_that_share_nothing() -> None:
    """Each view shows another object: no one view is to blame."""
    cameras = gd.Camera.orbit(2.7, 0, torch.arange(6) * 60.0, fov_deg=30)
    up = torch.linspace(-0.55, 0.55, 6)
    alpha = torch.stack([gd.rasterize(gd.icosphere(2, 0.08).translated([0, float(y), 0]), c, 40).mask.float()
                         for y, c in zip(up, cameras, strict=True)])  # fmt: skip
    with pytest.raises(ValueError, match="silhouettes that some object has; got ones whose hull is empty"):
        visual_hull(alpha, cameras)


def test_what_is_too_thin_for_the_grid_blames_no_view() -> None:
    cameras = gd.Camera.orbit(2.7, 20, torch.arange(8) * 45.0, fov_deg=30)
    ring = gd.rasterize(gd.torus(0.4, 0.04), cameras, 64).mask.float()
    with pytest.warns(UserWarning, match=r"uncovered\. Parts thinner than its cells are lost: raise `resolution`"):
        visual_hull(ring, cameras, resolution=14)
    pole = gd.rasterize(gd.box((0.04, 1.0, 0.04)), cameras, 64).mask.float()
    with pytest.raises(ValueError, match=r"ones that are too thin\. Parts thinner than its cells are lost: raise"):
        visual_hull(pole, cameras, resolution=4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"resolution": 3}, ValueError, "visual_hull: `resolution` must be an integer ≥ 4"),
        ({"resolution": 2.5}, TypeError, "`resolution` must be an integer"),
        ({"slack": float("nan")}, ValueError, "`slack` must be"),
        ({"cameras": None}, TypeError, "visual_hull: `cameras` must be a Camera, one for each image"),
    ],
)
def test_wrong_arguments(change: dict, error: type[Exception], message: str) -> None:
    alpha, cameras = silhouettes(4)
    with pytest.raises(error, match=message):
        visual_hull(**{"images": alpha, "cameras": cameras, **change})


def dense(carver: Carver, low: torch.Tensor, cell: float, shape: tuple[int, ...]) -> torch.Tensor:
    at = torch.stack(torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij"), dim=-1)
    return carver.values((low + at * cell).reshape(-1, 3)).reshape(shape)


@pytest.mark.parametrize(("level", "size"), [(-6.0, 48), (-0.1, (24, 72)), (5.0, (72, 24))])
def test_blocks_at_any_level_and_in_wide_images(level: float, size: int | tuple[int, int]) -> None:
    """Far from the outlines, and where a wide lens sees blocks much aslant, all nodes are as one by one."""
    ball = gd.icosphere(2, 0.5).translated([0.6, 0.3, 0.2])
    cameras = gd.Camera.orbit(1.6, 20, torch.arange(6) * 60.0, fov_deg=80)
    carver = Carver(gd.rasterize(ball, cameras, size).mask.float(), cameras)
    low, cell, shape = torch.tensor([-0.3, -0.6, -0.7]), 0.06, (33, 32, 35)
    every = dense(carver, low, cell, shape)
    assert torch.equal(carver.grid(low, cell, shape, level) > level, every > level)
    among = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.7
    assert torch.equal(carver.above(level, low, cell, among), (every > level) & among)
    assert not bool((every > level).all())


def test_a_hull_of_much_slack_is_that_much_wider() -> None:
    """The box of the hull and its blocks know the slack: nothing is cut off."""
    ball = gd.icosphere(3, 0.4)
    cameras = gd.Camera.orbit(3.0, torch.tensor([-40.0, 0.0, 40.0]).repeat(4), torch.arange(12) * 30.0, fov_deg=30)
    alpha = gd.rasterize(ball, cameras, 32).mask.float()
    pixel = 3.0 * 0.268 * 2 / 32
    for slack in (-3.0, 4.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that one leaves much uncovered
            hull = visual_hull(alpha, cameras, slack=slack)
        assert torch.allclose(hull.bounds.abs(), torch.tensor(0.4 + slack * pixel), atol=1.5 * pixel)


@pytest.mark.parametrize("hard", [False, True])
def test_images_much_finer_than_the_grid_are_averaged(hard: bool) -> None:
    """The hull of a coarse grid is that of the images as they are, to a part of a cell; slack is in their pixels."""
    fine = views(gd.torus(0.4, 0.15), size=80)
    fine = PosedImages(None, (fine.alpha >= 0.5).float(), fine.cameras) if hard else fine
    small, times = _averaged(fine, 10)
    assert times == 2 and small.image_size == (40, 40) and small.names == fine.names
    torch.testing.assert_close(small.alpha[3, 20, 30], fine.alpha[3, 40:42, 60:62].mean())
    assert _averaged(fine, 100)[1] == 1  # cells are as fine as the pixels
    for slack in (0.0, 4.0):
        hull = visual_hull(fine, resolution=10, slack=slack)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geodiff.tasks.mesh.hull._PIXELS", 10**6)
            plain = visual_hull(fine, resolution=10, slack=slack)
        cell = float((plain.bounds[1] - plain.bounds[0]).max()) / 10
        assert hull.is_closed
        gap = plain.closest_point(hull.vertices).distance
        assert float(gap.mean()) < 0.2 * cell and float(gap.max()) < cell  # where the nodes lie says that much
        assert float(hull.face_areas.sum()) == pytest.approx(float(plain.face_areas.sum()), rel=0.05)


@pytest.mark.parametrize("size", [(127, 127), (96, 131), (131, 97)])
def test_images_of_any_size_are_averaged(size: tuple[int, int]) -> None:
    """The last row and column of larger pixels have what is left, and cameras know that images reach farther."""
    body, cameras = gd.torus(0.4, 0.15), views(gd.torus(0.4, 0.15), size=4).cameras
    fine = PosedImages(None, gd.rasterize(body, cameras, size).mask.float(), cameras)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodiff.tasks.mesh.hull._PIXELS", 2.5)
        small, times = _averaged(fine, 10)
    height, width = -(-size[0] // times), -(-size[1] // times)
    assert times >= 3 and small.image_size == (height, width) and (size[0] % times or size[1] % times)
    rest = fine.alpha[3, (height - 1) * times :, (width - 1) * times :]
    torch.testing.assert_close(small.alpha[3, -1, -1], rest.mean())
    torch.testing.assert_close(small.alpha[3, 5, 6], fine.alpha[3, 5 * times :, 6 * times :][:times, :times].mean())
    # Points are where they were: in pixels from the upper left corner, and so are the silhouettes.
    before, after = (
        c.project(body.vertices, s)[..., :2] for c, s in ((cameras, size), (small.cameras, (height, width)))
    )
    torch.testing.assert_close(times * after, before, rtol=0, atol=1e-3)
    again = gd.rasterize(body, small.cameras, (height, width)).mask.float()
    assert float((again - small.alpha).abs().mean()) < 0.08
    plain = gd.rasterize(body, cameras, (height, width)).mask.float()  # by cameras that were not told
    assert float((again - small.alpha).abs().mean()) < float((plain - small.alpha).abs().mean())
    # What is thinner than larger pixels is not averaged away.
    thin = gd.rasterize(gd.torus(0.4, 0.02), cameras, size).mask.float()
    assert _averaged(PosedImages(None, thin, cameras), 4)[1] < int(_half(thin) / 6)
