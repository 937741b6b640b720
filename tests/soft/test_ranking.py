# SPDX-License-Identifier: Apache-2.0
"""Losses of relaxed orders, against their formulas."""

import math
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

from geodiff import soft

D = torch.float64
DRAW = torch.Generator().manual_seed(8)
SCORES = torch.randn(4, 6, generator=DRAW, dtype=D)
TARGET = torch.tensor([0, 5, 2, 3])
MATRIX = soft.topk(SCORES, 3, "bitonic", temperature=0.5).matrix


@pytest.mark.parametrize("p_k", [[1.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5], [0.2, 0.3, 0.5]])
def test_rank_loss_is_equation_4_3(p_k: list[float]) -> None:
    for scores in (None, SCORES):
        each = []
        for row, y, s in zip(MATRIX, TARGET.tolist(), SCORES, strict=True):
            total = torch.zeros((), dtype=D)
            for k, p in enumerate(p_k, 1):
                within = s.softmax(0)[y] if scores is not None and k == 1 else row[:k, y].sum()
                total = total + p * within
            each.append(-total.log())
        found = soft.rank_loss(MATRIX, TARGET, p_k, scores=scores, reduction="none")
        torch.testing.assert_close(found, torch.stack(each))
        torch.testing.assert_close(soft.rank_loss(MATRIX, TARGET, p_k, scores=scores), found.mean())
        torch.testing.assert_close(soft.rank_loss(MATRIX, TARGET, p_k, scores=scores, reduction="sum"), found.sum())


def test_permutation_loss_is_binary_cross_entropy() -> None:
    matrix = soft.sort_matrix(SCORES, "odd_even", temperature=0.5)
    order = torch.argsort(SCORES + torch.randn(4, 6, generator=DRAW, dtype=D))
    true = torch.nn.functional.one_hot(order, 6).to(D)
    expected = torch.nn.functional.binary_cross_entropy(matrix, true)
    torch.testing.assert_close(soft.permutation_loss(matrix, order), expected)
    some = soft.permutation_loss(matrix[:, :2], order[:, :2], reduction="none")
    assert some.shape == (4,)
    sure = soft.permutation_loss(torch.eye(3), torch.tensor([0, 1, 2]))
    wrong = soft.permutation_loss(torch.eye(3), torch.tensor([1, 2, 0]))
    assert float(sure) == 0 and 50 < float(wrong) < 100  # logarithms are held


def test_gradients() -> None:
    x = SCORES[:2].clone().requires_grad_()

    def loss(x: torch.Tensor) -> torch.Tensor:
        found = soft.topk(x, 3, "splitter", temperature=0.5)
        return soft.rank_loss(found.matrix, TARGET[:2], [0.5, 0.2, 0.3], scores=x)

    assert gradcheck(loss, (x,))
    order = torch.argsort(SCORES[1:3])
    assert gradcheck(lambda x: soft.permutation_loss(soft.sort_matrix(x, temperature=0.5), order), (x,))


def test_a_target_out_of_reach_has_a_finite_loss() -> None:
    matrix = torch.eye(4)[:2].requires_grad_()
    loss = soft.rank_loss(matrix, torch.tensor(3), [0.5, 0.5])
    (slope,) = torch.autograd.grad(loss, matrix)
    assert math.isfinite(loss.item()) and torch.isfinite(slope).all()


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"matrix": torch.ones(3)}, ValueError, "`matrix` must be of shape"),
    ({"matrix": MATRIX.long()}, TypeError, "`matrix` must be a floating tensor"),
    ({"target": TARGET.double()}, TypeError, "`target` must be an integer tensor"),
    ({"target": TARGET[:3]}, ValueError, r"`target` must be an integer tensor of shape \(4,\)"),
    ({"target": TARGET + 1}, ValueError, "`target` must be from 0 to 5; got 1 to 6"),
    ({"p_k": [0.5, 0.4]}, ValueError, "`p_k` must be of 1 to 3 numbers with the sum 1"),
    ({"p_k": [0.25] * 4}, ValueError, "`p_k` must be of 1 to 3 numbers with the sum 1"),
    ({"p_k": []}, ValueError, "`p_k` must be of 1 to 3 numbers"),
    ({"p_k": [-1.0, 2.0]}, ValueError, "`p_k` must be finite and ≥ 0"),
    ({"p_k": 1.0}, TypeError, "`p_k` must be a sequence of numbers"),
    ({"scores": SCORES[:, :5]}, ValueError, "`scores` must be of shape"),
    ({"reduction": "max"}, ValueError, "`reduction` must be one of mean"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="rank_loss: " + message):
        soft.rank_loss(**{"matrix": MATRIX, "target": TARGET, "p_k": [0.5, 0.5], **change})


def test_bad_permutations() -> None:
    with pytest.raises(ValueError, match=r"`matrix` must be of entries in \[0, 1\]; got values in \[0, 2\]"):
        soft.permutation_loss(2 * torch.eye(3), torch.arange(3))
    with pytest.raises(ValueError, match="`order` must be from 0 to 2"):
        soft.permutation_loss(torch.eye(3), torch.arange(3) + 1)
    with pytest.raises(ValueError, match="`reduction` must be one of"):
        soft.permutation_loss(torch.eye(3), torch.arange(3), reduction="max")
    assert float(soft.rank_loss(torch.eye(3), 0, torch.tensor([1.0]))) == 0
