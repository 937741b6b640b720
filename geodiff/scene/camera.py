# SPDX-License-Identifier: Apache-2.0
"""Cameras: where they stand, where they look, and how points become image positions."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from geodiff.constants import numbers
from geodiff.modes import outside_autocast, remembered
from geodiff.saving import Saved
from geodiff.scene import intrinsics
from geodiff.scene.pose import check_batches, check_rotation, line_of_sight, pixel_size, pose, vector
from geodiff.validation import (
    Place,
    common_batch,
    fail,
    floating,
    looks_at_values,
    matches,
    placement,
    positive,
    promote,
    shape_text,
)

_FIELDS = ("rotation", "translation", "focal", "principal")


@outside_autocast
class Camera(Saved):
    """A perspective or orthographic camera, or a batch of them.

    With view coordinates X = R x + t (x right, y up, looking along −z) and depth d = −X_z, a point is seen at
    x_ndc = f_x X_x / d + p_x and y_ndc = f_y X_y / d + p_y; an orthographic camera leaves the division out. NDC has x
    right and y up, and the shorter image side spans [−1, 1], so a camera fits images of any size and shape.

    Most people make one with ``orbit``, ``look_at``, ``orthographic``, ``from_opencv`` or ``from_K``.

    Args:
        rotation: R (..., 3, 3), world to camera, a rotation to within 1e-3.
        translation: t (..., 3).
        focal: (..., 2) focal lengths in NDC units, positive: 1 / tan(fov / 2), or 2 / extent if orthographic.
        principal: (..., 2) the image of the optical axis in NDC.
        orthographic: leave the division by depth out.
        near: faces nearer than this depth are clipped.

    Gradients flow to all four tensors. They are promoted to the widest dtype and broadcast over their batch axes.

    Raises:
        TypeError: half precision, or things that are not numbers.
        ValueError: wrong shapes, NaN or infinity, a matrix that is not a rotation, a focal length that is not positive.
        RuntimeError: tensors on different devices.

    Example:
        >>> import torch, geodiff as gd
        >>> camera = gd.Camera.orbit(3.0, 30, torch.arange(0, 360, 15), fov_deg=30)
        >>> camera, camera.to_clip(torch.zeros(642, 3)).shape
        (Camera(perspective, batch=(24,), float32, cpu), torch.Size([24, 642, 4]))
    """

    def __init__(
        self,
        rotation: Any,
        translation: Any,
        focal: Any,
        principal: Any = (0.0, 0.0),
        *,
        orthographic: bool = False,
        near: float = 1e-2,
    ) -> None:
        values = promote("Camera", rotation=rotation, translation=translation, focal=focal, principal=principal)
        batches = []
        for name, value in values.items():
            own = {"rotation": (3, 3), "translation": (3,)}.get(name, (2,))
            if not matches(value.shape, ("...", *own)):
                raise fail("Camera", name, f"of shape {shape_text(('...', *own))}", value)
            batches.append(value.shape[: -len(own)])
        try:
            batch = common_batch(*batches)
        except RuntimeError:
            text = ", ".join(f"{name} {tuple(b)}" for name, b in zip(values, batches, strict=True))
            raise fail("Camera", ", ".join(values), "of batch shapes that broadcast", text) from None
        positive("Camera", "focal", values["focal"])
        positive("Camera", "near", near)
        self.rotation = values["rotation"].expand(*batch, 3, 3)
        self.translation = values["translation"].expand(*batch, 3)
        self.focal = values["focal"].expand(*batch, 2)
        self.principal = values["principal"].expand(*batch, 2)
        self.is_orthographic = bool(orthographic)
        self.near = float(near)
        check_rotation("Camera", "rotation", self.rotation)

    _fields_kept = (*_FIELDS, "is_orthographic", "near")

    def _saved(self) -> dict[str, Any]:
        fields = {name: getattr(self, name) for name in _FIELDS}
        return {**fields, "orthographic": self.is_orthographic, "near": self.near}

    # --- making one ---------------------------------------------------------------------------------------------------

    @classmethod
    def orbit(
        cls,
        distance: Any,
        elevation_deg: Any = 0.0,
        azimuth_deg: Any = 0.0,
        *,
        fov_deg: Any = 60.0,
        extent: Any = None,
        at: Any = (0.0, 0.0, 0.0),
        up: Any = None,
        near: float = 1e-2,
    ) -> "Camera":
        """Place a camera on a sphere around a point, looking at it.

        With elevation e and azimuth a, the eye is at + distance·(cos e · sin a, sin e, cos e · cos a): azimuth 0 looks
        from +z and grows towards +x, elevation grows towards +y. Elevations beyond ±90° go on over the pole, with +y
        still up in the image; at the pole itself +y points nowhere in the image, so ``up`` must be given.

        Args:
            distance: (...) from the point looked at, positive.
            elevation_deg: (...) degrees.
            azimuth_deg: (...) degrees.
            fov_deg: (...) full field of view of the shorter image side, in (0, 180) degrees.
            extent: (...) world length that the shorter image side spans; given, the camera is orthographic.
            at: (..., 3) the point looked at.
            up: (..., 3) direction that is up in the image; +y where left out.
            near: faces nearer than this depth are clipped.

        All are numbers or tensors, which broadcast to the batch and carry gradients.

        Raises:
            ValueError: an elevation of ±90° without ``up``, an ``up`` along the line of sight, or values out of range.

        Example:
            >>> import torch, geodiff as gd
            >>> camera = gd.Camera.orbit(2.0, azimuth_deg=90, fov_deg=90)
            >>> camera.position.round(decimals=4) + 0.0
            tensor([2., 0., 0.])
        """
        where = "Camera.orbit"
        lens = {"fov_deg": fov_deg} if extent is None else {"extent": extent}
        given = {"distance": distance, "elevation_deg": elevation_deg, "azimuth_deg": azimuth_deg, "at": at, **lens}
        values = promote(where, **given, **({} if up is None else {"up": up}))
        check_batches(where, values)
        distance, e, a = values["distance"], values["elevation_deg"].deg2rad(), values["azimuth_deg"].deg2rad()
        positive(where, "distance", distance)
        # cos 90° in floating point is not 0 but a rounding error of π/2.
        rounding = 8 * torch.finfo(e.dtype).eps
        if up is None and looks_at_values(e) and bool((e.detach().cos().abs() < rounding).any()):
            expected = "other than ±90 where `up` is left out"
            got = "a camera at the pole, where +y has no direction in the image"
            fix = "Pass up=(0, 0, -1), or whichever direction should be up."
            raise fail(where, "elevation_deg", expected, got, fix)
        backward = torch.stack(torch.broadcast_tensors(e.cos() * a.sin(), e.sin(), e.cos() * a.cos()), dim=-1)
        vector(where, "at", values["at"])
        values["up"] = numbers([0.0, 1.0, 0.0], backward) if up is None else values["up"]
        values["eye"] = values["at"] + distance[..., None] * backward
        return cls._placed(where, values, backward, near)

    @classmethod
    def look_at(
        cls,
        eye: Any,
        at: Any = (0.0, 0.0, 0.0),
        up: Any = (0.0, 1.0, 0.0),
        *,
        fov_deg: Any = 60.0,
        near: float = 1e-2,
    ) -> "Camera":
        """Place a perspective camera at ``eye``, looking at ``at``, with ``up`` upwards in the image.

        Args:
            eye: (..., 3).
            at: (..., 3), elsewhere than the eye.
            up: (..., 3), not along the line of sight; need be neither unit nor perpendicular to it.
            fov_deg: (...) full field of view of the shorter image side, in (0, 180) degrees.
            near: faces nearer than this depth are clipped.

        Raises:
            ValueError: ``eye`` equal to ``at``, ``up`` zero or along the line of sight, or values out of range.

        Example:
            >>> import geodiff as gd
            >>> gd.Camera.look_at(eye=(0, 0, 3), fov_deg=40)
            Camera(perspective, focal=(2.7475, 2.7475), float32, cpu)
        """
        where = "Camera.look_at"
        values = promote(where, eye=eye, at=at, up=up, fov_deg=fov_deg)
        check_batches(where, values)
        return cls._placed(where, values, line_of_sight(where, values["eye"], values["at"]), near)

    @classmethod
    def orthographic(
        cls,
        eye: Any = (0.0, 0.0, 1.0),
        at: Any = (0.0, 0.0, 0.0),
        up: Any = (0.0, 1.0, 0.0),
        *,
        extent: Any = 2.0,
        near: float = 1e-2,
    ) -> "Camera":
        """Place an orthographic camera at ``eye``, looking along the direction to ``at``.

        Args:
            eye: (..., 3); what lies behind it is not seen.
            at: (..., 3), elsewhere than the eye.
            up: (..., 3), not along the line of sight.
            extent: (...) world length that the shorter image side spans, positive.
            near: faces nearer than this depth are clipped.

        Raises:
            ValueError: as ``look_at``.

        Example:
            >>> import torch, geodiff as gd
            >>> camera = gd.Camera.orthographic(eye=(0, 0, 5), extent=4.0)
            >>> camera.project(torch.tensor([[1.0, 2.0, 0.0]]))
            tensor([[0.5000, 1.0000, 5.0000]])
        """
        where = "Camera.orthographic"
        values = promote(where, eye=eye, at=at, up=up, extent=extent)
        check_batches(where, values)
        return cls._placed(where, values, line_of_sight(where, values["eye"], values["at"]), near)

    @classmethod
    def _placed(cls, where: str, values: dict[str, torch.Tensor], backward: torch.Tensor, near: float) -> "Camera":
        """Build the camera at ``values["eye"]`` whose z axis is ``backward``."""
        R, t = pose(where, values["eye"], backward, values["up"])
        if "extent" in values:
            positive(where, "extent", values["extent"])
            focal = 2.0 / values["extent"]
        else:
            fov = values["fov_deg"]
            if looks_at_values(fov) and not bool(((fov > 0) & (fov < 180)).all()):
                raise fail(where, "fov_deg", "in (0, 180) degrees", str(fov.detach().tolist()))
            focal = 1.0 / (0.5 * fov.deg2rad()).tan()
        focal = focal[..., None].expand(*focal.shape, 2)
        return cls(R, t, focal, orthographic="extent" in values, near=near)

    @classmethod
    def from_K(cls, K: Any, R: Any, t: Any, *, image_size: int | tuple[int, int], near: float = 1e-2) -> "Camera":
        """Make a perspective camera from pixel intrinsics and a world-to-camera pose in this project's axes.

        A point is seen at column u = f_x X_x / d + c_x and row v = c_y − f_y X_y / d, in pixels from the upper left
        corner of the image, so that pixel (i, j) has its centre at u = j + 0.5, v = i + 0.5.

        Args:
            K: (..., 3, 3) [[f_x, 0, c_x], [0, f_y, c_y], [0, 0, 1]] in pixels; skew is refused.
            R: (..., 3, 3) world to camera (x right, y up, looking along −z).
            t: (..., 3).
            image_size: (H, W), or one number for a square, in pixels.
            near: faces nearer than this depth are clipped.

        Raises:
            ValueError: a skewed or unscaled K, wrong shapes, or R that is not a rotation.

        Example:
            >>> import torch, geodiff as gd
            >>> K = torch.tensor([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])
            >>> gd.Camera.from_K(K, torch.eye(3), torch.zeros(3), image_size=(48, 64))
            Camera(perspective, focal=(4.1667, 4.1667), float32, cpu)
        """
        values = promote("Camera.from_K", K=K, R=R, t=t)
        focal, principal = intrinsics.to_ndc("Camera.from_K", values["K"], image_size)
        return cls(values["R"], values["t"], focal, principal, near=near)

    @classmethod
    def from_opencv(
        cls,
        K: Any,
        R: Any,
        t: Any,
        image_size: int | tuple[int, int],
        *,
        pixel_center: float = 0.5,
        distortion: Any = None,
        near: float = 1e-2,
    ) -> "Camera":
        """Make a camera from OpenCV's intrinsics and pose (x right, y down, z forward; column vectors).

        Args:
            K: (..., 3, 3) in pixels, without skew (up to 1e-6 of the focal length).
            R: (..., 3, 3) world to camera; or the rotation vector (..., 3), and a single one (3, 1), as
                ``cv2.solvePnP`` and ``cv2.calibrateCamera`` return it: the axis times the angle in radians.
            t: (..., 3), or a single (3, 1), as they return it.
            image_size: (H, W), or one number for a square: rows first, unlike OpenCV's own (width, height).
            pixel_center: where K has the centre of the first pixel. 0.5 if it counts from the corner of the image, as
                here; 0.0 if it counts from the middle of the first pixel, as what ``cv2.calibrateCamera`` returns.
            distortion: refused unless all coefficients are 0.
            near: faces nearer than this depth are clipped.

        Raises:
            ValueError: distortion coefficients other than 0, a ``pixel_center`` other than 0 or 0.5, and as ``from_K``.

        Example:
            >>> import torch, geodiff as gd
            >>> K = torch.tensor([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]])
            >>> camera = gd.Camera.from_opencv(K, torch.eye(3), torch.zeros(3), image_size=(48, 64))
            >>> camera.project(torch.tensor([[0.0, 0.0, 1.0]]))
            tensor([[0., 0., 1.]])
        """
        where = "Camera.from_opencv"
        intrinsics.check_straight(where, distortion)
        K, R, t = intrinsics.without_opencv(where, promote(where, K=K, R=R, t=t), pixel_center)
        return cls.from_K(K, R, t, image_size=image_size, near=near)

    def to_opencv(
        self, image_size: int | tuple[int, int], *, pixel_center: float = 0.5
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return OpenCV's K (..., 3, 3), R (..., 3, 3) and t (..., 3); the inverse of ``from_opencv``.

        Args:
            image_size: (H, W), or one number for a square.
            pixel_center: 0.5, or 0.0 for OpenCV's own habit of counting from the middle of the first pixel.

        Raises:
            ValueError: an orthographic camera, or a ``pixel_center`` other than 0 or 0.5.
        """
        if self.is_orthographic:
            raise fail("Camera.to_opencv", "camera", "a perspective camera", "an orthographic one")
        return intrinsics.with_opencv(
            "Camera.to_opencv", self.K(image_size), self.rotation, self.translation, pixel_center
        )

    # --- what it sees -------------------------------------------------------------------------------------------------

    def to_view(self, points: torch.Tensor) -> torch.Tensor:
        """Return points (..., N, 3) in view coordinates R x + t: x right, y up, z backward."""
        points, R, t = self._with(points, "to_view", self.rotation, self.translation)
        return points @ R.mT + t[..., None, :]

    def to_clip(self, points: torch.Tensor) -> torch.Tensor:
        """Return points (..., N, 3) as (..., N, 4) clip coordinates (x·w, y·w, depth, w).

        x and y are NDC, depth is the distance along the viewing direction, and w is the depth, or 1 if orthographic.
        The map is affine in the points, so what is clipped at the near plane may be interpolated. The camera's batch
        broadcasts with that of the points.
        """
        fields = self.rotation, self.translation, self.focal, self.principal
        points, A, b = self._with(points, "to_clip", *remembered(self, "_clip_map", fields, self._made_clip_map))
        if b.dim() == 1:
            return torch.nn.functional.linear(points, A, b)
        # Where many cameras see the same points einsum makes one product of it, several times faster than a batch.
        return torch.einsum("...nk,...ck->...nc", points, A) + b[..., None, :]

    def _made_clip_map(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the affine map from world to clip coordinates: (..., 4, 3), and the constants (..., 4)."""
        R, t, (fx, fy), (px, py) = self.rotation, self.translation, self.focal.unbind(-1), self.principal.unbind(-1)
        pose = torch.cat((R, t[..., None]), dim=-1)
        depth = -pose[..., 2, :]
        rest = torch.zeros_like(depth)
        if self.is_orthographic:
            rest = rest + numbers([0.0, 0.0, 0.0, 1.0], rest)
        w = rest if self.is_orthographic else depth
        x = fx[..., None] * pose[..., 0, :] + px[..., None] * w
        y = fy[..., None] * pose[..., 1, :] + py[..., None] * w
        matrix = torch.stack((x, y, depth, w), dim=-2)
        return matrix[..., :3], matrix[..., 3]

    def project(self, points: torch.Tensor, image_size: int | tuple[int, int] | None = None) -> torch.Tensor:
        """Return points (..., N, 3) as (..., N, 3): x and y in NDC, and depth.

        With ``image_size`` = (H, W), x and y are pixels instead: columns to the right and rows downwards from the upper
        left corner, pixel centres at +0.5. Points of depth ≤ 0 are behind a perspective camera: their depth says so,
        their x and y mean nothing (at depth 0 they are huge, not infinite).
        """
        xw, yw, depth, w = self.to_clip(points).unbind(-1)
        w = torch.where(w == 0, torch.finfo(w.dtype).eps, w)
        x, y = xw / w, yw / w
        if image_size is not None:
            height, width = pixel_size("Camera.project", image_size)
            s = 2.0 / min(height, width)
            x, y = x / s + 0.5 * width, 0.5 * height - y / s
        return torch.stack((x, y, depth), dim=-1)

    def unproject(self, points: torch.Tensor) -> torch.Tensor:
        """Return the world points (..., N, 3) that ``project`` sends to (x, y, depth) in NDC."""
        floating("Camera.unproject", "points", points, ("...", "N", 3))
        points, R, t, f, p = self._with(points, "unproject", *(getattr(self, name) for name in _FIELDS))
        depth = points[..., 2:]
        plane = (points[..., :2] - p[..., None, :]) / f[..., None, :]
        view = torch.cat((plane if self.is_orthographic else plane * depth, -depth), dim=-1)
        return (view - t[..., None, :]) @ R

    def _with(self, points: Any, method: str, *matrices: torch.Tensor) -> tuple[torch.Tensor, ...]:
        where = f"Camera.{method}"
        floating(where, "points", points, ("...", "N", 3))
        if points.device != self.device:
            expected, fix = f"on {self.device} like the camera", "Use camera.to(points.device)."
            raise fail(where, "points", expected, str(points.device), fix, RuntimeError)
        dtype = torch.promote_types(points.dtype, self.dtype)
        try:
            common_batch(points.shape[:-2], self.batch_shape)
        except RuntimeError:
            expected = f"of a batch that broadcasts with the cameras' {tuple(self.batch_shape)}"
            raise fail(where, "points", expected, points) from None
        return (points.to(dtype), *(matrix.to(dtype) for matrix in matrices))

    def K(self, image_size: int | tuple[int, int]) -> torch.Tensor:
        """Return the intrinsics (..., 3, 3) in pixels for images of ``image_size`` (H, W); see ``from_K``.

        For an orthographic camera the same matrix applies to (X_x, −X_y, 1), without a division.
        """
        return intrinsics.to_pixels("Camera.K", self.focal, self.principal, image_size)

    @property
    def position(self) -> torch.Tensor:
        """(..., 3) where the camera stands: −Rᵀ t."""
        return -(self.rotation.mT @ self.translation[..., None])[..., 0]

    @property
    def forward(self) -> torch.Tensor:
        """(..., 3) the unit direction in which it looks."""
        return -self.rotation[..., 2, :]

    @property
    def camera_to_world(self) -> torch.Tensor:
        """(..., 4, 4) [[Rᵀ, −Rᵀt], [0, 1]], OpenGL's pose matrix, as in ``transforms.json``."""
        top = torch.cat((self.rotation.mT, self.position[..., None]), dim=-1)
        last = numbers([0.0, 0.0, 0.0, 1.0], top).expand(*self.batch_shape, 1, 4)
        return torch.cat((top, last), dim=-2)

    # --- batches ------------------------------------------------------------------------------------------------------

    @property
    def batch_shape(self) -> torch.Size:
        """The leading shape, empty for a single camera."""
        return self.translation.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """Of its tensors."""
        return self.translation.dtype

    @property
    def device(self) -> torch.device:
        """Of its tensors."""
        return self.translation.device

    def __repr__(self) -> str:
        kind = "orthographic" if self.is_orthographic else "perspective"
        batch = f"batch={tuple(self.batch_shape)}" if self.batch_shape else ""
        if not batch:
            fx, fy = self.focal.detach().tolist()
            batch = f"focal=({fx:.4f}, {fy:.4f})"
        return f"Camera({kind}, {batch}, {str(self.dtype).removeprefix('torch.')}, {self.device})"

    def __len__(self) -> int:
        if not self.batch_shape:
            raise fail("Camera", "camera", "a batch", "a single camera, which has no length", error=TypeError)
        return self.batch_shape[0]

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, index: Any) -> "Camera":
        """Select cameras of a batch by number, slice, list or tensor along the batch axes."""
        if not self.batch_shape:
            raise fail("Camera", "index", "used on a batch", "a single camera", error=TypeError)
        return self._map(lambda value: value[index])

    def __iter__(self) -> Iterator["Camera"]:
        return (self[i] for i in range(len(self)))

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Camera":
        # What was checked once stays right: no need to look at the numbers again.
        camera = object.__new__(Camera)
        camera.is_orthographic, camera.near = self.is_orthographic, self.near
        for name in _FIELDS:
            setattr(camera, name, change(getattr(self, name)))
        return camera

    def to(self, device: Place = None, dtype: torch.dtype | None = None) -> "Camera":
        """Return the camera on another device or in another dtype (float32 or float64), which may also come first."""
        device, dtype = placement("Camera.to", device, dtype)
        return self._map(lambda value: value.to(device=device, dtype=dtype))

    def detach(self) -> "Camera":
        """Return the camera cut off from the autograd graph."""
        return self._map(torch.Tensor.detach)

    @classmethod
    def cat(cls, cameras: Sequence["Camera"]) -> "Camera":
        """Join batches along their first axis; single cameras count as batches of one."""
        singles = [camera if camera.batch_shape else camera._map(lambda v: v[None]) for camera in cameras]
        return cls._joined("Camera.cat", singles, torch.cat)

    @classmethod
    def stack(cls, cameras: Sequence["Camera"]) -> "Camera":
        """Join cameras, or batches of the same shape, along a new first axis."""
        return cls._joined("Camera.stack", list(cameras), torch.stack)

    @classmethod
    def _joined(cls, where: str, cameras: list["Camera"], join: Callable[..., torch.Tensor]) -> "Camera":
        if not cameras:
            raise fail(where, "cameras", "one or more cameras", "none")
        if len({camera.is_orthographic for camera in cameras}) > 1:
            raise fail(where, "cameras", "all perspective or all orthographic", "both kinds")
        if len({camera.near for camera in cameras}) > 1:
            raise fail(where, "cameras", "of one `near`", str(sorted({camera.near for camera in cameras})))
        fields = {name: join([getattr(camera, name) for camera in cameras]) for name in _FIELDS}
        return cls(**fields, orthographic=cameras[0].is_orthographic, near=cameras[0].near)
