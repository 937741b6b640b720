# SPDX-License-Identifier: Apache-2.0
import importlib

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


def test_truncated_pairs_are_constant() -> None:
    x = torch.tensor([[0.0, 0.0], [10.0, 0.0]], requires_grad=True)
    y = torch.tensor([[0.0, 1.0]])
    value = gd.chamfer(x, y, truncated=2.0)
    assert value.item() == pytest.approx((1 + 4) / 2 + 1)
    value.backward()
    assert torch.equal(x.grad, torch.tensor([[0.0, -3.0], [0.0, 0.0]]))
    assert gd.chamfer(x, y, squared=False, truncated=2.0).item() == pytest.approx((1 + 2) / 2 + 1)
    assert gd.chamfer(x, y, truncated=100.0) == gd.chamfer(x, y)


@pytest.mark.parametrize("oriented, wanted", [(False, [0.0, 1.0, 0.5]), (True, [0.0, 1.0, 1.5])])
def test_normals(oriented: bool, wanted: list[float]) -> None:
    # The same three places; normals at 0, 90 and 120 degrees from each other, of any length.
    places = torch.tensor([[0.0, 0.0], [5.0, 0.0], [9.0, 0.0]], dtype=torch.float64)
    n = torch.tensor([[2.0, 0.0]] * 3, dtype=torch.float64, requires_grad=True)
    m = torch.tensor([[1.0, 0.0], [0.0, 3.0], [-0.5, 0.75**0.5]], dtype=torch.float64)
    options = {"x_normals": n, "y_normals": m, "oriented": oriented}
    value = gd.chamfer(places, places, **options, normal_weight=0.3)
    assert value.item() == pytest.approx(0.3 * 2 * sum(wanted) / 3)
    assert gd.chamfer(places, places, **options, one_sided=True).item() == pytest.approx(sum(wanted) / 3)
    # Beyond the truncation the term is 1, whatever the normals.
    far = gd.chamfer(places + 100, places, truncated=1.0, **options)
    assert far.item() == pytest.approx(2 * (1 + 1))

    def term(n: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        return gd.chamfer(places, places, x_normals=n, y_normals=m, oriented=oriented)

    start = (n + 0.1 * torch.randn_like(n)).detach().requires_grad_()
    assert torch.autograd.gradcheck(term, (start, m.clone().requires_grad_()))


@pytest.mark.parametrize("squared", [True, False])
def test_masks_and_lists_are_each_cloud_alone(squared: bool) -> None:
    x, y = torch.randn(3, 9, 2, dtype=torch.float64), torch.randn(3, 7, 2, dtype=torch.float64)
    x_mask, y_mask = torch.rand(3, 9) < 0.6, torch.rand(3, 7) < 0.6
    x_mask[:, 2] = y_mask[:, 3] = True
    n, m = torch.randn_like(x), torch.randn_like(y)
    n[~x_mask] = 0
    lists = [[a[i][k[i]] for i in range(3)] for a, k in ((x, x_mask), (y, y_mask), (n, x_mask), (m, y_mask))]
    alone = [gd.chamfer(a, b, squared, x_normals=c, y_normals=d) for a, b, c, d in zip(*lists, strict=True)]
    wanted = torch.stack(alone)
    x.requires_grad_()
    masked = gd.chamfer(x, y, squared, x_normals=n, y_normals=m, x_mask=x_mask, y_mask=y_mask, reduction="none")
    torch.testing.assert_close(masked, wanted)
    ragged = gd.chamfer(lists[0], lists[1], squared, x_normals=lists[2], y_normals=lists[3], reduction="none")
    assert torch.equal(ragged, wanted)
    masked.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert torch.equal(x.grad[~x_mask], torch.zeros_like(x.grad[~x_mask]))
    torch.testing.assert_close(gd.chamfer(*lists[:2]), gd.chamfer(*lists[:2], reduction="sum") / 3)


@pytest.mark.parametrize("chunk", [1, 50, 2**24])
def test_without_trees_the_neighbours_are_the_same(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.randn(2, 20, 3), torch.randn(2, 12, 3)
    mask = torch.rand(2, 12) < 0.5
    mask[:, 0] = True
    wanted = nearest(x, y), nearest(x, y, mask)
    assert bool(torch.take_along_dim(mask, wanted[1], -1).all())
    module = importlib.import_module("geodiff.transport.chamfer")
    monkeypatch.setattr(module, "TREE_DIMENSION", 2)
    monkeypatch.setattr(module, "CHUNK", chunk)
    assert torch.equal(nearest(x, y), wanted[0])
    assert torch.equal(nearest(x, y, mask), wanted[1])


def test_near_neighbours_far_from_the_origin() -> None:
    # |x|² + |y|² − 2 x·y would lose these to rounding in float32.
    y = 1000 + torch.randn(30, 20)
    assert torch.equal(nearest(y + 1e-3, y), torch.arange(30))


def test_arrays_serve() -> None:
    assert gd.chamfer(np.zeros((1, 2)), np.array([[3.0, 4.0]])).item() == 50


x23 = torch.zeros(2, 3)


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
        (lambda: gd.chamfer(x23, x23, truncated=0.0), ValueError, "`truncated` must be positive"),
        (lambda: gd.chamfer(x23, x23, normal_weight=-1), ValueError, "`normal_weight` must be positive"),
        (lambda: gd.chamfer(x23, x23, x_normals=x23), ValueError, "`y_normals` must be given where the other"),
        (lambda: gd.chamfer(x23, x23, y_normals=x23), ValueError, "`x_normals` must be given where the other"),
        (lambda: gd.chamfer(x23, x23, x_normals=x23, y_normals=x23), ValueError, "`x_normals` must be of a length"),
        (lambda: gd.chamfer(x23, x23, x_normals=x23[:, :2], y_normals=x23), ValueError, "like the points"),
        (lambda: gd.chamfer(x23, x23, x_mask=torch.ones(2)), TypeError, "`x_mask` must be bool"),
        (lambda: gd.chamfer(x23, x23, y_mask=torch.ones(3) > 0), ValueError, r"`y_mask` must be of shape \(2,\)"),
        (lambda: gd.chamfer(x23, x23, y_mask=torch.ones(2) < 0), ValueError, "`y_mask` must be true for one point"),
        (lambda: gd.chamfer([x23], x23), ValueError, "two lists of as many clouds; got one list and one array"),
        (lambda: gd.chamfer([x23], [x23, x23]), ValueError, "two lists of as many clouds; got 1 and 2"),
        (lambda: gd.chamfer([x23[None]], [x23]), ValueError, r"`x\[0\], y\[0\]` must be of shape \(N, D\)"),
        (lambda: gd.chamfer([x23, x23[:, :2]], [x23, x23]), ValueError, r"`y\[1\]` must be of shape \(\.\.\., M, 2\)"),
        (lambda: gd.chamfer([x23], [x23], x_mask=torch.ones(2) > 0), ValueError, "left out for lists of clouds"),
        (
            lambda: gd.chamfer([x23], [x23], x_normals=[], y_normals=[x23]),
            ValueError,
            "`x_normals` must be a list of 1",
        ),
    ],
)
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
