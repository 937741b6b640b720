# SPDX-License-Identifier: Apache-2.0
import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

import geodiff as gd

# A few roundings of a chain of products of numbers of size ten.
ROUNDING = 1e-11

double = {"dtype": torch.float64}
angles = st.floats(-720, 720, allow_nan=False)


def some_points(n: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, **double) - 0.5


def orbit(e: float = 20.0, a: float = 30.0, d: float = 3.0, **rest) -> gd.Camera:
    return gd.Camera.orbit(torch.tensor(d, **double), e, a, **rest)


# --- where it stands ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elevation", "azimuth", "eye"),
    [
        (0, 0, (0, 0, 2)),
        (0, 90, (2, 0, 0)),
        (0, -90, (-2, 0, 0)),
        (0, 180, (0, 0, -2)),
        (30, 0, (0, 1, math.sqrt(3))),
        (-30, 90, (math.sqrt(3), -1, 0)),
        (150, 0, (0, 1, -math.sqrt(3))),
    ],
)
def test_orbit_positions(elevation: float, azimuth: float, eye: tuple[float, ...]) -> None:
    camera = orbit(elevation, azimuth, 2.0)
    assert torch.allclose(camera.position, torch.tensor(eye, **double), atol=ROUNDING)
    assert torch.allclose(camera.forward, -torch.tensor(eye, **double) / 2, atol=ROUNDING)


@given(angles, angles)
def test_orbit_keeps_y_up_and_looks_at_the_point(elevation: float, azimuth: float) -> None:
    if abs(math.cos(math.radians(elevation))) < 1e-6:
        return
    at = (0.3, -0.2, 0.1)
    camera = orbit(elevation, azimuth, 3.0, at=at)
    target = torch.tensor([at], **double)
    seen = camera.project(torch.cat((target, target + torch.tensor([[0, 0.1, 0]], **double))))
    assert torch.allclose(seen[0], torch.tensor([0, 0, 3.0], **double), atol=ROUNDING)
    assert abs(seen[1, 0]) < ROUNDING
    assert seen[1, 1] > 0
    assert torch.allclose(camera.rotation @ camera.rotation.T, torch.eye(3, **double), atol=ROUNDING)
    assert torch.linalg.det(camera.rotation) > 0


def test_the_eye_goes_smoothly_over_the_pole() -> None:
    before, after = orbit(90 - 1e-4), orbit(90 + 1e-4)
    assert torch.allclose(before.position, after.position, atol=2e-5)
    # With +y still up, the image turns by half a circle there.
    assert torch.allclose(before.rotation[1], -after.rotation[1], atol=2e-5)


@pytest.mark.parametrize("elevation", [90, -90, 270, 450, torch.tensor([10.0, 90.0])])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_pole_takes_an_explicit_up(elevation, dtype: torch.dtype) -> None:
    distance = torch.tensor(2.0, dtype=dtype)
    with pytest.raises(ValueError, match=r"Camera.orbit: `elevation_deg` must be other than ±90.*Pass up=\(0, 0, -1\)"):
        gd.Camera.orbit(distance, elevation)
    camera = gd.Camera.orbit(distance, elevation, up=(0.0, 0.0, -1.0))
    assert torch.isfinite(camera.rotation).all()


def test_top_view() -> None:
    camera = orbit(90, 0, 2.0, up=(0, 0, -1))
    seen = camera.project(torch.tensor([[0.1, 0, 0], [0, 0, -0.1]], **double))
    assert seen[0, 0] > 0
    assert seen[1, 1] > 0


def test_look_at_agrees_with_orbit() -> None:
    one = orbit(20, 30, 3.0, fov_deg=40, at=(0.1, 0.2, 0.3))
    other = gd.Camera.look_at(one.position, (0.1, 0.2, 0.3), (0, 5.0, 0), fov_deg=40)
    for name in ("rotation", "translation", "focal", "principal"):
        assert torch.allclose(getattr(one, name), getattr(other, name), atol=ROUNDING), name


# --- what it sees -----------------------------------------------------------------------


def test_field_of_view_spans_the_shorter_side() -> None:
    camera = gd.Camera.look_at((0, 0, 2.0), fov_deg=90)
    edge = torch.tensor([[2.0, 0, 0], [0, 2.0, 0]])
    assert torch.allclose(camera.project(edge), torch.tensor([[1.0, 0, 2], [0, 1, 2]]), atol=1e-6)
    # 40 rows, 60 columns: NDC 1 is 20 pixels from the middle in both directions.
    assert torch.allclose(camera.project(edge, (40, 60))[:, :2], torch.tensor([[50.0, 20], [30, 0]]), atol=1e-5)


def test_clip_coordinates_are_affine_in_the_points() -> None:
    p, q = some_points(), some_points()
    for camera in (orbit(), gd.Camera.orthographic(torch.tensor([0.0, 1, 5], **double), extent=3.0)):
        middle = camera.to_clip(0.25 * p + 0.75 * q)
        assert torch.allclose(middle, 0.25 * camera.to_clip(p) + 0.75 * camera.to_clip(q), atol=ROUNDING)


def test_clip_coordinates_by_hand() -> None:
    camera = orbit(fov_deg=50)
    p = some_points()
    view = camera.to_view(p)
    depth = -view[:, 2]
    f = 1 / math.tan(math.radians(25))
    x, y, seen_depth, w = camera.to_clip(p).unbind(-1)
    assert torch.allclose(x / w, f * view[:, 0] / depth, atol=ROUNDING)
    assert torch.allclose(y / w, f * view[:, 1] / depth, atol=ROUNDING)
    assert torch.allclose(seen_depth, depth, atol=ROUNDING)
    assert torch.equal(w, seen_depth)
    flat = gd.Camera.orthographic(camera.position, extent=4.0)
    x, y, seen_depth, w = flat.to_clip(p).unbind(-1)
    assert torch.allclose(x, flat.to_view(p)[:, 0] / 2, atol=ROUNDING)
    assert (w == 1).all()
    assert torch.allclose(seen_depth, -flat.to_view(p)[:, 2], atol=ROUNDING)


def test_orbit_with_extent_is_orthographic() -> None:
    one = orbit(10, 20, 5.0, extent=3.0)
    other = gd.Camera.orthographic(one.position, extent=3.0)
    assert one.is_orthographic
    p = some_points()
    assert torch.allclose(one.to_clip(p), other.to_clip(p), atol=ROUNDING)


@given(st.floats(-80, 80), angles, st.floats(5, 170), st.booleans(), st.floats(-2, 2), st.floats(-2, 2))
def test_unproject_undoes_project(
    elevation: float, azimuth: float, fov: float, flat: bool, px: float, py: float
) -> None:
    camera = orbit(elevation, azimuth, 4.0, fov_deg=fov, extent=2.0 if flat else None)
    shifted = gd.Camera(
        camera.rotation, camera.translation, camera.focal, (px, py), orthographic=camera.is_orthographic
    )
    p = some_points()
    assert torch.allclose(shifted.unproject(shifted.project(p)), p, atol=1e-9)


def test_a_point_on_the_camera_plane_gives_no_nan() -> None:
    camera = gd.Camera.look_at((0, 0, 2.0))
    p = torch.tensor([[0.5, 0, 2.0], [0, 0, 2.0], [0, 0, 5.0]], requires_grad=True)
    seen = camera.project(p)
    seen.sum().backward()
    assert torch.isfinite(seen).all()
    assert torch.isfinite(p.grad).all()
    assert seen[2, 2] == -3


# --- pixels and OpenCV ----------------------------------------------------------------------

K = torch.tensor([[310.0, 0, 170.5], [0, 305.0, 110.25], [0, 0, 1]], **double)
SIZE = (240, 320)


def opencv_pose() -> tuple[torch.Tensor, torch.Tensor]:
    R = torch.linalg.qr(torch.rand(3, 3, **double))[0]
    return R * torch.linalg.det(R), torch.tensor([0.1, -0.2, 4.0], **double)


def opencv_project(p: torch.Tensor, K: torch.Tensor, R: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """OpenCV's formula: s (u, v, 1) = K (R X + t)."""
    s = (p @ R.T + t) @ K.T
    return s[:, :2] / s[:, 2:]


@pytest.mark.parametrize("pixel_center", [0.0, 0.5])
def test_opencv_formula(pixel_center: float) -> None:
    R, t = opencv_pose()
    camera = gd.Camera.from_opencv(K, R, t, SIZE, pixel_center=pixel_center)
    p = some_points()
    seen = camera.project(p, SIZE)
    # Ours has the centre of the first pixel at 0.5; theirs is at pixel_center.
    assert torch.allclose(seen[:, :2] - (0.5 - pixel_center), opencv_project(p, K, R, t), atol=1e-9)
    assert torch.allclose(seen[:, 2], (p @ R.T + t)[:, 2], atol=ROUNDING)
    again = camera.to_opencv(SIZE, pixel_center=pixel_center)
    for mine, theirs in zip(again, (K, R, t), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-9)


def test_from_K_is_the_formula_in_our_axes() -> None:
    R, t = orbit().rotation, orbit().translation
    camera = gd.Camera.from_K(K, R, t, image_size=SIZE)
    p = some_points()
    view = p @ R.T + t
    u = K[0, 0] * view[:, 0] / -view[:, 2] + K[0, 2]
    v = K[1, 2] - K[1, 1] * view[:, 1] / -view[:, 2]
    assert torch.allclose(camera.project(p, SIZE)[:, :2], torch.stack((u, v), -1), atol=1e-9)
    assert torch.allclose(camera.K(SIZE), K, atol=1e-9)


def test_K_of_another_size_sees_the_same() -> None:
    """The same camera at half the resolution: intrinsics halve, since NDC does not know of pixels."""
    camera = gd.Camera.from_K(K, torch.eye(3), torch.zeros(3), image_size=SIZE)
    assert torch.allclose(camera.K((120, 160))[:2], K[:2] / 2)


def test_opencv_batches_and_rows_of_numbers() -> None:
    camera = gd.Camera.from_opencv(K.expand(5, 3, 3), np.eye(3), [0.0, 0, 4], SIZE, distortion=np.zeros(5))
    assert camera.batch_shape == (5,)
    assert camera.K(64).shape == (5, 3, 3)


# --- gradients --------------------------------------------------------------------------------


def leaf(*values) -> torch.Tensor:
    return torch.tensor(values if len(values) > 1 else values[0], requires_grad=True, **double)


@pytest.mark.parametrize("lens", ["fov_deg", "extent"])
def test_orbit_gradients(lens: str) -> None:
    p = some_points(3).requires_grad_()

    def seen(d, e, a, size, at, up, p):
        return gd.Camera.orbit(d, e, a, at=at, up=up, **{lens: size}).to_clip(p)

    inputs = (leaf(3.0, 4.0), leaf(20.0, 100.0), leaf(-50.0, 30.0), leaf(40.0, 60.0), leaf(0.1, 0.2, 0.3))
    assert gradcheck(seen, (*inputs, leaf(0.1, 1.0, 0.2), p))
    assert gradcheck(lambda *x: seen(*x[:5], None, x[5]), (*inputs, p))


def test_other_gradients() -> None:
    p = some_points(3).requires_grad_()
    eye, at, up = leaf(1.0, 2.0, 3.0), leaf(0.1, 0.0, 0.2), leaf(0.1, 1.0, 0.0)
    assert gradcheck(lambda *x: gd.Camera.look_at(*x[:3], fov_deg=x[3]).project(x[4]), (eye, at, up, leaf(50.0), p))
    assert gradcheck(lambda *x: gd.Camera.orthographic(*x[:3], extent=x[3]).project(x[4]), (eye, at, up, leaf(3.0), p))
    c = orbit()
    fields = [getattr(c, name).clone().requires_grad_() for name in ("rotation", "translation", "focal", "principal")]
    for flat in (False, True):
        assert gradcheck(lambda *x, flat=flat: gd.Camera(*x[:4], orthographic=flat).project(x[4]), (*fields, p))
    assert gradcheck(lambda *x: gd.Camera(*x).unproject(p.detach() + 2), fields)
    assert gradcheck(lambda *x: gd.Camera(*x).to_opencv(SIZE), fields)
    R, t = opencv_pose()
    k = K.clone()

    def from_pixels(f: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return gd.Camera.from_opencv(
            torch.diag(torch.cat((f, f.new_ones(1)))) + k - k.diag().diag(), R, t, SIZE
        ).project(p)

    assert gradcheck(from_pixels, (leaf(300.0, 310.0), t.requires_grad_()))


# --- batches ------------------------------------------------------------------------------------


def test_batches_broadcast_with_points() -> None:
    cameras = gd.Camera.orbit(3.0, 30, torch.arange(0, 360, 15), fov_deg=30)
    assert cameras.dtype == torch.float32
    points = torch.rand(10, 3)
    assert cameras.to_clip(points).shape == (24, 10, 4)
    assert cameras.to_clip(torch.rand(24, 10, 3)).shape == (24, 10, 4)
    assert cameras[0].to_clip(torch.rand(5, 10, 3)).shape == (5, 10, 4)
    assert cameras.to_clip(torch.rand(2, 1, 10, 3)).shape == (2, 24, 10, 4)
    assert cameras.camera_to_world.shape == (24, 4, 4)
    for i, camera in enumerate(cameras):
        assert torch.allclose(camera.to_clip(points), cameras.to_clip(points)[i], atol=1e-6)
    grid = gd.Camera.orbit(torch.tensor([[2.0], [3.0]]), 0, torch.arange(0, 360, 90))
    assert grid.batch_shape == (2, 4)
    assert grid[1, 2].batch_shape == ()
    assert torch.allclose(grid[1, 2].position, torch.tensor([0.0, 0, -3]), atol=1e-6)


def test_indexing_and_joining() -> None:
    cameras = gd.Camera.orbit(3.0, 30, torch.arange(0, 360, 15))
    assert len(cameras) == 24
    assert len(list(cameras)) == 24
    assert cameras[2:4].batch_shape == (2,)
    assert cameras[[0, 5]].batch_shape == (2,)
    assert cameras[torch.arange(24) % 2 == 0].batch_shape == (12,)
    again = gd.Camera.cat([cameras[:3], cameras[3], cameras[4:]])
    assert torch.equal(again.rotation, cameras.rotation)
    assert torch.equal(gd.Camera.stack(list(cameras)).translation, cameras.translation)
    assert bool(cameras[:0])
    assert gd.Camera.stack([cameras, cameras]).batch_shape == (2, 24)


def test_camera_to_world_inverts_the_pose() -> None:
    camera = orbit(at=(1.0, 2.0, 3.0))
    p = some_points()
    view = torch.cat((camera.to_view(p), torch.ones(len(p), 1, **double)), -1)
    assert torch.allclose((view @ camera.camera_to_world.T)[:, :3], p, atol=ROUNDING)


def test_move_detach_copy_print() -> None:
    camera = gd.Camera.orbit(torch.tensor(3.0, requires_grad=True), fov_deg=90, near=0.5)
    assert camera.translation.requires_grad
    assert not camera.detach().translation.requires_grad
    assert camera.to(dtype=torch.float64).rotation.dtype == torch.float64
    assert camera.to("meta").device.type == "meta"
    assert camera.to("meta").near == 0.5
    assert repr(camera) == "Camera(perspective, focal=(1.0000, 1.0000), float32, cpu)"
    assert repr(gd.Camera.orthographic()) == "Camera(orthographic, focal=(1.0000, 1.0000), float32, cpu)"
    assert repr(gd.Camera.orbit([2.0, 3.0])) == "Camera(perspective, batch=(2,), float32, cpu)"
    assert torch.equal(copy.deepcopy(camera.detach()).rotation, camera.rotation)


def test_mixed_precision_promotes() -> None:
    camera = gd.Camera.orbit(3.0)
    assert camera.project(some_points()).dtype == torch.float64
    assert orbit().project(some_points().float()).dtype == torch.float64


# --- messages -------------------------------------------------------------------------------------

EYE = torch.eye(3)
ZERO = torch.zeros(3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: gd.Camera.orbit(0.0), ValueError, r"Camera.orbit: `distance` must be positive"),
        (lambda: gd.Camera.orbit(math.nan), ValueError, r"Camera.orbit: `distance` must be finite"),
        (lambda: gd.Camera.orbit("far"), TypeError, r"Camera.orbit: `distance` must be a tensor or an array"),
        (lambda: gd.Camera.orbit(torch.tensor(2.0).half()), TypeError, r"`distance` must be float32 or float64"),
        (lambda: gd.Camera.orbit(torch.tensor(True)), TypeError, r"`distance` must be real numbers"),
        (lambda: gd.Camera.orbit(2.0, fov_deg=180), ValueError, r"`fov_deg` must be in \(0, 180\) degrees"),
        (lambda: gd.Camera.orbit(2.0, fov_deg=0), ValueError, r"`fov_deg` must be in \(0, 180\) degrees"),
        (lambda: gd.Camera.orbit(2.0, extent=0.0), ValueError, r"Camera.orbit: `extent` must be positive"),
        (lambda: gd.Camera.orbit(2.0, near=0.0), ValueError, r"Camera: `near` must be positive"),
        (lambda: gd.Camera.orbit(2.0, at=(0.0, 1.0)), ValueError, r"Camera.orbit: `at` must be of shape \(..., 3\)"),
        (lambda: gd.Camera.orbit(2.0, up=(0.0, 1.0)), ValueError, r"Camera.orbit: `up` must be of shape \(..., 3\)"),
        (
            lambda: gd.Camera.orbit(2.0, up=(0, 0, 1)),
            ValueError,
            r"Camera.orbit: `up` must be other than zero or along",
        ),
        (
            lambda: gd.Camera.look_at((0, 0, 1), up=(0, 0, 2)),
            ValueError,
            r"Camera.look_at: `up` must be other than zero",
        ),
        (lambda: gd.Camera.look_at((0, 0, 1), up=ZERO), ValueError, r"Camera.look_at: `up` must be other than zero"),
        (lambda: gd.Camera.look_at((0, 0, 1), (0, 0, 1)), ValueError, r"`eye` must be elsewhere than `at`.*Move one"),
        (lambda: gd.Camera.look_at((0, 0, 0)), ValueError, r"`eye` must be elsewhere than `at`"),
        (lambda: gd.Camera.look_at(EYE[:, :2]), ValueError, r"Camera.look_at: `eye` must be of shape \(..., 3\)"),
        (lambda: gd.Camera.look_at(ZERO, EYE[:, :2]), ValueError, r"Camera.look_at: `at` must be of shape \(..., 3\)"),
        (lambda: gd.Camera(2 * EYE, ZERO, (1, 1)), ValueError, r"`rotation` must be a rotation.*Divide a scale"),
        (lambda: gd.Camera(-EYE, ZERO, (1, 1)), ValueError, r"`rotation` must be .*determinant \+1; got a reflection"),
        (lambda: gd.Camera(EYE, ZERO, (1, 0)), ValueError, r"Camera: `focal` must be positive"),
        (lambda: gd.Camera(EYE, ZERO, 1.0), ValueError, r"Camera: `focal` must be of shape \(..., 2\)"),
        (lambda: gd.Camera(EYE, torch.zeros(4), (1, 1)), ValueError, r"`translation` must be of shape \(..., 3\)"),
        (
            lambda: gd.Camera(EYE.expand(2, 3, 3), torch.zeros(3, 3), (1, 1)),
            ValueError,
            r"of batch shapes that broadcast",
        ),
        (
            lambda: gd.Camera.orbit(3.0, torch.zeros(2), torch.zeros(3)),
            ValueError,
            r"`elevation_deg, azimuth_deg` must be of batch shapes that broadcast; got elevation_deg \(2,\)",
        ),
        (
            lambda: gd.Camera.look_at(torch.rand(2, 3) + 1, torch.zeros(3, 3)),
            ValueError,
            r"Camera.look_at: `eye, at` must be of batch shapes that broadcast; got eye \(2,\), at \(3,\)",
        ),
        (
            lambda: gd.Camera.orthographic(torch.rand(2, 3) + 1, extent=torch.ones(3)),
            ValueError,
            r"Camera.orthographic: `eye, extent` must be of batch shapes that broadcast",
        ),
        (lambda: gd.Camera(EYE, ZERO.to("meta"), (1, 1)), RuntimeError, r"`rotation` must be on meta like the others"),
        (
            lambda: gd.Camera.from_opencv(K, EYE, ZERO, SIZE, distortion=[0.1, 0]),
            ValueError,
            r"Camera.from_opencv: `distortion` must be None or all zero.*Undistort the images",
        ),
        (
            lambda: gd.Camera.from_opencv(K, EYE, ZERO, SIZE, pixel_center=1.0),
            ValueError,
            r"`pixel_center` must be 0.0 or 0.5",
        ),
        (lambda: orbit().to_opencv(SIZE, pixel_center=1.0), ValueError, r"`pixel_center` must be 0.0 or 0.5"),
        (lambda: gd.Camera.from_opencv(K[:2], EYE, ZERO, SIZE), ValueError, r"from_opencv: `K` must be of shape"),
        (lambda: gd.Camera.from_opencv(K, K[0, :2], ZERO, SIZE), ValueError, r"from_opencv: `R` must be of shape"),
        (lambda: gd.Camera.from_K(K[:2], EYE, ZERO, image_size=SIZE), ValueError, r"from_K: `K` must be of shape"),
        (
            lambda: gd.Camera.from_K(K + 1, EYE, ZERO, image_size=SIZE),
            ValueError,
            r"`K` must be .*Skew is not supported",
        ),
        (lambda: gd.Camera.from_K(K, EYE, ZERO, image_size=(0, 5)), ValueError, "`image_size` must be a positive"),
        (lambda: gd.Camera.from_K(K, EYE, ZERO, image_size=None), ValueError, r"`image_size` .*got NoneType None"),
        (lambda: orbit().K((1, 2, 3)), ValueError, r"Camera.K: `image_size` must be a positive integer, or two"),
        (lambda: gd.Camera.orthographic().to_opencv(SIZE), ValueError, r"`camera` must be a perspective camera"),
        (lambda: orbit()[0], TypeError, r"`index` must be used on a batch; got a single camera"),
        (lambda: len(orbit()), TypeError, r"`camera` must be a batch; got a single camera, which has no length"),
        (lambda: gd.Camera.cat([]), ValueError, r"Camera.cat: `cameras` must be one or more cameras"),
        (
            lambda: gd.Camera.cat([gd.Camera.orbit(2.0), gd.Camera.orthographic()]),
            ValueError,
            r"`cameras` must be all perspective or all orthographic",
        ),
        (
            lambda: gd.Camera.stack([gd.Camera.orbit(2.0), gd.Camera.orbit(2.0, near=0.1)]),
            ValueError,
            r"Camera.stack: `cameras` must be of one `near`; got \[0.01, 0.1\]",
        ),
        (
            lambda: orbit().to(dtype=torch.float16),
            TypeError,
            r"Camera.to: `dtype` must be torch.float32 or torch.float64",
        ),
        (
            lambda: orbit().to_clip(torch.rand(3)),
            ValueError,
            r"Camera.to_clip: `points` must be of shape \(..., N, 3\)",
        ),
        (lambda: orbit().to_clip(torch.full((1, 3), math.nan)), ValueError, r"`points` must be finite"),
        (
            lambda: orbit().to_view(torch.rand(1, 3).to("meta")),
            RuntimeError,
            r"`points` must be on cpu like the camera",
        ),
        (
            lambda: gd.Camera.orbit([2.0, 3.0]).project(torch.rand(3, 5, 3)),
            ValueError,
            r"`points` must be of a batch that broadcasts with the cameras' \(2,\)",
        ),
    ],
)
def test_messages(make, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
