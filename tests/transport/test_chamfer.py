# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import geodiff as gd
from geodiff.transport import nearest
from tests.helpers import rounding_bound


def brute(x: torch.Tensor, y: torch.Tensor, squared: bool) -> torch.Tensor:
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance**2 if squared else distance
    return distance.amin(-1).mean(-1) + distance.amin(-2).mean(-1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("squared", [True, False])
@given(n=st.integers(1, 9), m=st.integers(1, 9), d=st.integers(1, 4), lead=st.sampled_from([((), ()), ((2, 3), (3,))]))
def test_is_the_brute_force_distance(dtype, squared, n, m, d, lead) -> None:
    x, y = torch.randn(*lead[0], n, d, dtype=dtype), torch.randn(*lead[1], m, d, dtype=dtype)
    got = gd.chamfer(x, y, squared, reduction="none")
    want = brute(x, y, squared)
    assert got.shape == want.shape == lead[0]
    torch.testing.assert_close(got, want, rtol=rounding_bound(dtype), atol=0)
    torch.testing.assert_close(gd.chamfer(x, y, squared), want.mean(), rtol=rounding_bound(dtype), atol=0)
    torch.testing.assert_close(
        gd.chamfer(x, y, squared, reduction="sum"), want.sum(), rtol=rounding_bound(dtype), atol=0
    )


def test_one_side_of_a_part_of_a_cloud_is_zero() -> None:
    y = torch.randn(20, 3)
    assert gd.chamfer(y[:7], y, one_sided=True) == 0
    both = gd.chamfer(y[:7], y)
    assert both > 0
    assert gd.chamfer(y, y[:7], one_sided=True) == both


@pytest.mark.parametrize("squared", [True, False])
def test_gradients(squared: bool) -> None:
    x = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: gd.chamfer(x, y, squared, reduction="none"), (x, y))


def test_gradient_of_distance_zero_is_zero() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    gd.chamfer(x, x.detach().clone(), squared=False).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_nearest_is_the_brute_force_index() -> None:
    x, y = torch.randn(3, 40, 2), torch.randn(3, 30, 2)
    assert torch.equal(nearest(x, y), torch.cdist(x, y).argmin(-1))
    assert nearest(x[:, :0], y).shape == (3, 0)


def test_arrays_serve() -> None:
    assert gd.chamfer(np.zeros((1, 2)), np.array([[3.0, 4.0]])).item() == 50


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: gd.chamfer(torch.zeros(0, 3), torch.zeros(2, 3)), ValueError, "chamfer: `x` must be of one point"),
        (lambda: gd.chamfer(torch.zeros(2, 3), torch.zeros(0, 3)), ValueError, "chamfer: `y` must be of one point"),
        (lambda: nearest(torch.zeros(2, 3), torch.zeros(0, 3)), ValueError, "nearest: `y` must be of one point"),
        (lambda: gd.chamfer(torch.zeros(2, 3), torch.zeros(2, 2)), ValueError, "as many coordinates"),
        (lambda: gd.chamfer(torch.zeros(3), torch.zeros(2, 3)), ValueError, r"`x` must be of shape \(\.\.\., N, D\)"),
        (lambda: gd.chamfer(torch.zeros(2, 1, 3), torch.zeros(3, 1, 3)), ValueError, "batches that broadcast"),
        (lambda: gd.chamfer(torch.full((2, 3), torch.nan), torch.zeros(2, 3)), ValueError, "`x` must be finite"),
        (lambda: gd.chamfer(torch.zeros(2, 3).half(), torch.zeros(2, 3)), TypeError, "float32 or float64"),
        (lambda: gd.chamfer(torch.zeros(2, 3), torch.zeros(2, 3), reduction="men"), ValueError, "Did you mean 'mean'"),
    ],
)
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
