# SPDX-License-Identifier: Apache-2.0
"""Cameras in pixels: intrinsics K of an image's size, and OpenCV's axes and habits."""

from typing import Any

import torch

from geodiff.scene.pose import pixel_size, rotation_from_vector
from geodiff.validation import fail, looks_at_values, matches, promote, shape_text

# OpenGL's camera axes (x right, y up, z backward) from OpenCV's (x right, y down, z forward), and back.
_FLIP = (1.0, -1.0, -1.0)


def to_ndc(where: str, K: torch.Tensor, image_size: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the focal lengths (..., 2) and the principal point (..., 2) in NDC of K (..., 3, 3) in pixels."""
    if not matches(K.shape, ("...", 3, 3)):
        raise fail(where, "K", "of shape (..., 3, 3)", K)
    # What calibrations leave of skew, and rounding, moves no pixel by more than a thousandth.
    off = torch.stack((K[..., 0, 1], K[..., 1, 0]), dim=-1).detach().abs()
    last = (K[..., 2, :] - K.new_tensor([0.0, 0.0, 1.0])).detach().abs()
    lengths = K[..., (0, 1), (0, 1)].detach().abs()
    if looks_at_values(K) and bool((off > 1e-6 * lengths).any() or (last > 1e-9).any()):
        fix = "Skew is not supported: undistort and rectify the images first."
        raise fail(where, "K", "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]", str(K.detach().tolist()), fix)
    height, width = pixel_size(where, image_size)
    s = 2.0 / min(height, width)
    focal = torch.stack((K[..., 0, 0] * s, K[..., 1, 1] * s), dim=-1)
    return focal, torch.stack(((K[..., 0, 2] - 0.5 * width) * s, (0.5 * height - K[..., 1, 2]) * s), dim=-1)


def to_pixels(where: str, focal: torch.Tensor, principal: torch.Tensor, image_size: Any) -> torch.Tensor:
    """Return K (..., 3, 3) in pixels: the inverse of `to_ndc`."""
    height, width = pixel_size(where, image_size)
    s = 2.0 / min(height, width)
    (fx, fy), (px, py) = focal.unbind(-1), principal.unbind(-1)
    zero, one = torch.zeros_like(fx), torch.ones_like(fx)
    rows = (fx / s, zero, px / s + 0.5 * width, zero, fy / s, 0.5 * height - py / s, zero, zero, one)
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def check_straight(where: str, distortion: Any) -> None:
    """Require coefficients of distortion that are None or 0."""
    if distortion is not None and bool((promote(where, distortion=distortion)["distortion"] != 0).any()):
        fix = "Undistort the images (cv2.undistort) and pass the new camera matrix."
        raise fail(where, "distortion", "None or all zero", distortion, fix)


def without_opencv(
    where: str, values: dict[str, torch.Tensor], pixel_center: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return K, R and t in our axes, with pixel centres at ½, of OpenCV's ``K``, ``R`` and ``t``."""
    shift = _shift(where, values["K"], pixel_center)
    for name in ("R", "t"):
        if values[name].shape in ((3, 1), (1, 3)):  # a column of OpenCV's, or a row
            values[name] = values[name].reshape(3)
        elif matches(values[name].shape, ("...", 3, 1)):
            values[name] = values[name][..., 0]
    K, R, t = values["K"], values["R"], values["t"]
    if not matches(R.shape, ("...", 3, 3)):
        if not matches(R.shape, ("...", 3)):
            raise fail(where, "R", "of shape (..., 3, 3), or a rotation vector (..., 3)", R)
        R = rotation_from_vector(R)
    for name, value, shape in (("K", K, ("...", 3, 3)), ("t", t, ("...", 3))):
        if not matches(value.shape, shape):
            raise fail(where, name, f"of shape {shape_text(shape)}", value)
    flip = R.new_tensor(_FLIP)
    return K + shift, flip[:, None] * R, flip * t


def with_opencv(
    where: str, K: torch.Tensor, R: torch.Tensor, t: torch.Tensor, pixel_center: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return OpenCV's K, R and t: the inverse of `without_opencv`."""
    flip = K.new_tensor(_FLIP)
    return K - _shift(where, K, pixel_center), flip[:, None] * R, flip * t


def _shift(where: str, K: torch.Tensor, pixel_center: float) -> torch.Tensor:
    """Return what is to be added to K (3, 3) where the centre of the first pixel is `pixel_center`."""
    if pixel_center not in (0.0, 0.5):
        raise fail(where, "pixel_center", "0.0 or 0.5", pixel_center)
    shift = K.new_zeros(3, 3)
    shift[:2, 2] = 0.5 - pixel_center
    return shift
