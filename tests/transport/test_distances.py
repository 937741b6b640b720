# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import directed_hausdorff

from geodiff.transport.distances import f_score, hausdorff


@given(seed=st.integers(0, 1000), n=st.integers(1, 9), m=st.integers(1, 9), d=st.integers(1, 4))
def test_hausdorff_is_scipys(seed: int, n: int, m: int, d: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    y = torch.randn(m, d, generator=generator, dtype=torch.float64)
    there, back = directed_hausdorff(x, y)[0], directed_hausdorff(y, x)[0]
    assert hausdorff(x, y, one_sided=True).item() == pytest.approx(there, rel=1e-14)
    assert hausdorff(x, y).item() == pytest.approx(max(there, back), rel=1e-14)
    assert hausdorff(x, y) == hausdorff(y, x)


def test_batches_masks_and_lists() -> None:
    x, y = torch.randn(3, 9, 2, dtype=torch.float64), torch.randn(7, 2, dtype=torch.float64)
    mask = torch.rand(3, 9) < 0.5
    mask[:, 0] = True
    lists = [x[i][mask[i]] for i in range(3)], [y] * 3
    for distance in (hausdorff, lambda *a, **k: f_score(*a, threshold=0.7, **k)):
        wanted = torch.stack([distance(*pair) for pair in zip(*lists, strict=True)])
        assert torch.equal(distance(*lists, reduction="none"), wanted)
        torch.testing.assert_close(distance(x, y, x_mask=mask, reduction="none"), wanted)
        torch.testing.assert_close(distance(y, x, y_mask=mask, reduction="none"), wanted)
        torch.testing.assert_close(distance(x, y, x_mask=mask), wanted.mean())
        torch.testing.assert_close(distance(x, y, x_mask=mask, reduction="sum"), wanted.sum())


@pytest.mark.parametrize("one_sided", [True, False])
def test_hausdorff_has_the_gradient_of_its_pair(one_sided: bool) -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: hausdorff(x, y, one_sided, reduction="none"), (x, y))
    x.grad = None
    hausdorff(x, x.detach().clone()).backward()
    assert torch.equal(x.grad, torch.zeros_like(x))


def test_f_score_counts() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    y = torch.tensor([[0.1], [2.5], [30.0]])
    precision, recall = 2 / 4, 2 / 3  # 0 and 2 are within 0.5 of y, 0.1 and 2.5 within 0.5 of x; 2 exactly so far
    assert f_score(x, y, 0.5, one_sided=True).item() == pytest.approx(precision)
    assert f_score(y, x, 0.5, one_sided=True).item() == pytest.approx(recall)
    assert f_score(x, y, 0.5).item() == pytest.approx(2 * precision * recall / (precision + recall))
    assert f_score(x, y + 100, 0.5) == 0
    assert f_score(x, x, 1e-9) == 1
    assert not f_score(x.requires_grad_(), y, 0.5).requires_grad


x23 = torch.zeros(2, 3)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: hausdorff(x23[:0], x23), ValueError, "hausdorff: `x` must be of one point or more"),
        (lambda: hausdorff(x23, x23[:0]), ValueError, "hausdorff: `y` must be of one point or more"),
        (lambda: hausdorff(x23, x23, reduction="max"), ValueError, "hausdorff: `reduction` must be one of"),
        (lambda: hausdorff(x23, x23, x_mask=x23), TypeError, "hausdorff: `x_mask` must be bool"),
        (lambda: hausdorff(x23 / 0, x23), ValueError, "hausdorff: `x` must be finite"),
        (lambda: f_score(x23, x23, 0.0), ValueError, "f_score: `threshold` must be positive"),
        (lambda: f_score(x23, x23, None), TypeError, "f_score: `threshold` must be a positive number"),
        (lambda: f_score(x23, x23, 1.0, reduction="max"), ValueError, "f_score: `reduction` must be one of"),
        (lambda: f_score([x23], x23, 1.0), ValueError, "f_score: `x, y` must be two lists"),
    ],
)
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
