# SPDX-License-Identifier: Apache-2.0
"""PSNR and SSIM against their formulas in SciPy."""

import math

import numpy as np
import pytest
import scipy.ndimage
import torch

from geodiff.render import psnr, ssim

DRAW = torch.Generator().manual_seed(3)


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    image = torch.rand(shape, generator=DRAW, dtype=torch.float64)
    return image, (image + 0.2 * torch.randn(shape, generator=DRAW, dtype=torch.float64)).clamp(0, 1)


def test_psnr() -> None:
    image, target = pair(2, 9, 7, 3)
    expected = [-10 * math.log10(((a - b) ** 2).mean()) for a, b in zip(image.numpy(), target.numpy(), strict=True)]
    assert np.allclose(psnr(image, target), expected, rtol=1e-12)
    mask = torch.zeros(9, 7, dtype=torch.bool)
    mask[2:5, 1:4] = True
    part = psnr(image[:, 2:5, 1:4], target[:, 2:5, 1:4])
    assert torch.allclose(psnr(image, target, mask), part, rtol=1e-12)
    assert psnr(image, image).isinf().all() and psnr(image, target, mask & False).isnan().all()


def test_ssim_is_the_published_formula() -> None:
    image, target = pair(2, 20, 17, 3)
    expected = []
    for x, y in zip(image.numpy(), target.numpy(), strict=True):
        channels = []
        for c in range(3):

            def mean(v: np.ndarray) -> np.ndarray:  # truncated after 5 pixels, where the window lies in the image
                return scipy.ndimage.gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5]

            a, b = x[..., c], y[..., c]
            ma, mb = mean(a), mean(b)
            va, vb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
            value = (2 * ma * mb + 1e-4) * (2 * ab + 9e-4) / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
            channels.append(value.mean())
        expected.append(np.mean(channels))
    assert np.allclose(ssim(image, target), expected, rtol=1e-10)
    assert torch.allclose(ssim(image, image), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("call", [psnr, ssim])
def test_two_dtypes_are_the_wider(call) -> None:  # type: ignore[no-untyped-def]
    image, target = pair(12, 12, 3)
    for a, b in ((image.float(), target), (image, target.float())):
        found = call(a, b)
        assert found.dtype == torch.float64 and torch.allclose(found, call(image, target), rtol=1e-5)


def test_gradients() -> None:
    image, target = pair(12, 12, 1)
    image.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ssim(x, target), image)
    assert torch.autograd.gradcheck(lambda x: psnr(x, target), image)


@pytest.mark.parametrize("call", [psnr, ssim])
def test_bad_images(call) -> None:  # type: ignore[no-untyped-def]
    image = torch.rand(12, 12, 3)
    with pytest.raises(ValueError, match="`target` must be of shape"):
        call(image, torch.rand(12, 13, 3))
    with pytest.raises(TypeError, match="`image` must be"):
        call(image.long(), image)
    with pytest.raises(ValueError, match=r"of one or more pixels|at least 11"):
        call(image[:0], image[:0])
    with pytest.raises(ValueError, match="`mask` must be of shape"):
        psnr(image, image, torch.ones(3, 3))
    with pytest.raises(ValueError, match="at least 11 × 11"):
        ssim(image[:8], image[:8])
