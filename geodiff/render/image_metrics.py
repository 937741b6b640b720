# SPDX-License-Identifier: Apache-2.0
"""How alike two images are: PSNR and SSIM."""

import math

import torch

from geodiff.modes import outside_autocast
from geodiff.validation import as_tensor, fail, floating


@outside_autocast
def psnr(image: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Return the peak signal-to-noise ratio, ``−10·log₁₀`` of the mean squared difference, for values in [0, 1].

    Args:
        image: (..., H, W, C).
        target: of the same shape.
        mask: (..., H, W), weights ≥ 0 of the pixels; all alike where left out.

    Returns:
        (...,) decibels; infinite where there is no difference, NaN where no pixel has a weight.

    Gradients: in image and target.

    Raises:
        TypeError, ValueError: images that are no floating-point images of one shape.

    Example:
        >>> psnr(torch.full((4, 4, 3), 0.6), torch.full((4, 4, 3), 0.5)).round()
        tensor(20.)
    """
    image, target = _pair("psnr", image, target)
    square = (image - target).square().mean(-1)
    if mask is None:
        return -10 * square.mean((-2, -1)).log10()
    weight = as_tensor("psnr", "mask", mask).to(square.dtype)
    if weight.shape[-2:] != square.shape[-2:]:
        raise fail("psnr", "mask", f"of shape {tuple(square.shape)}", mask)
    return -10 * ((square * weight).sum((-2, -1)) / weight.sum((-2, -1))).log10()


@outside_autocast
def ssim(image: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the structural similarity of images with values in [0, 1].

    The mean over channels and over all places of an 11×11 window with the weights of a Gaussian of σ = 1.5 pixels of
    ``(2μ_xμ_y + c₁)(2σ_xy + c₂) / ((μ_x² + μ_y² + c₁)(σ_x² + σ_y² + c₂))``, c₁ = 0.01², c₂ = 0.03² (Wang et al., "Image
    quality assessment: from error visibility to structural similarity", 2004). The window lies wholly in the image.

    Args:
        image: (..., H, W, C), H and W of at least 11.
        target: of the same shape.

    Returns:
        (...,) in [−1, 1]; 1 for equal images.

    Gradients: in image and target.

    Raises:
        TypeError, ValueError: images that are no floating-point images of one shape, or smaller than the window.

    Example:
        >>> ssim(torch.ones(16, 16, 3), torch.ones(16, 16, 3))
        tensor(1.)
    """
    image, target = _pair("ssim", image, target)
    if min(image.shape[-3:-1]) < 11:
        raise fail("ssim", "image", "of at least 11 × 11 pixels", image)
    *batch, height, width, channels = image.shape
    x, y = (v.reshape(-1, height, width, channels).movedim(-1, 1) for v in (image, target))
    ramp = torch.exp(-(torch.arange(-5.0, 6.0, dtype=x.dtype, device=x.device) ** 2) / (2 * 1.5**2))
    ramp = (ramp / ramp.sum()).expand(channels, 1, -1)

    def blurred(v: torch.Tensor) -> torch.Tensor:
        v = torch.nn.functional.conv2d(v, ramp[..., None], groups=channels)
        return torch.nn.functional.conv2d(v, ramp[:, :, None], groups=channels)

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x * mean_x, blurred(y * y) - mean_y * mean_y
    cov = blurred(x * y) - mean_x * mean_y
    a, b = 0.01**2, 0.03**2
    value = (2 * mean_x * mean_y + a) * (2 * cov + b) / ((mean_x**2 + mean_y**2 + a) * (var_x + var_y + b))
    return value.mean((1, 2, 3)).reshape(batch)


def _pair(where: str, image: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    image, target = as_tensor(where, "image", image), as_tensor(where, "target", target)
    floating(where, "image", image, ("...", "H", "W", "C"))
    floating(where, "target", target, ("...", "H", "W", "C"))
    if image.shape != target.shape:
        raise fail(where, "target", f"of shape {tuple(image.shape)} like the image", target)
    if not math.prod(image.shape[-3:]):
        raise fail(where, "image", "of one or more pixels", image)
    dtype = torch.promote_types(image.dtype, target.dtype)
    return image.to(dtype), target.to(dtype)
