# SPDX-License-Identifier: Apache-2.0
"""Mip-map levels made of slices, as on a GPU, against torch's pooling."""

import pytest
import torch

from geodiff.scene import texture


class Elsewhere(torch.Tensor):
    """A tensor that says that it is not on the CPU."""

    is_cpu = False  # type: ignore[assignment]


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 9), (3, 2), (1, 1), (13, 1)])
def test_halves_are_those_of_pooling(size: tuple[int, int]) -> None:
    image = torch.rand(2, *size, 3, dtype=torch.float64, requires_grad=True)
    expected = texture.halved(image)
    found = texture.halved(image.as_subclass(Elsewhere)).as_subclass(torch.Tensor)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, rtol=1e-14, atol=0)
    upstream = torch.rand_like(expected)
    gradients = [torch.autograd.grad(value, image, upstream, retain_graph=True)[0] for value in (found, expected)]
    assert torch.allclose(*gradients, rtol=1e-14, atol=0)
