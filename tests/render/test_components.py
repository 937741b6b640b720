# SPDX-License-Identifier: Apache-2.0
"""Connected components of images against a search of our own, and the layer of their means."""

from typing import Any

import pytest
import torch

from geodiff.render import component_means, connected_components

ROUNDING = 1e-14  # of sums of a hundred numbers below 1


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flooded(mask: torch.Tensor, connectivity: int) -> torch.Tensor:
    """Components by flooding from each pixel in turn."""
    steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if abs(i) + abs(j) <= (1 if connectivity == 4 else 2)]
    labels, count = torch.zeros(mask.shape, dtype=torch.int64), 0
    for start in mask.nonzero().tolist():
        if labels[tuple(start)]:
            continue
        count += 1
        open_ = [tuple(start)]
        while open_:
            i, j = open_.pop()
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1] and mask[i, j] and not labels[i, j]:
                labels[i, j] = count
                open_ += [(i + a, j + b) for a, b in steps]
    return labels


@pytest.mark.parametrize("connectivity", [4, 8])
def test_labels_are_those_of_a_flood(connectivity: int) -> None:
    masks = random(5, 12, 17) > torch.linspace(0.2, 0.8, 5)[:, None, None]
    labels = connected_components(masks, connectivity)
    for mask, own in zip(masks, labels, strict=True):
        assert torch.equal(own, flooded(mask, connectivity))
    assert torch.equal(connected_components(masks.mT.contiguous().mT, connectivity), labels)
    assert connected_components(torch.ones(0, 3, 4, dtype=torch.bool)).shape == (0, 3, 4)
    assert int(connected_components(torch.ones(3, 0, dtype=torch.bool)).sum()) == 0
    assert component_means(torch.ones(2, 0, 4))[0].shape == (2, 0, 4)


def test_keep_and_least_area() -> None:
    mask = torch.tensor([[1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 1], [0, 0, 1, 0, 0, 1]]).bool()
    assert connected_components(mask).tolist() == [[1, 0, 2, 2, 0, 3], [1, 0, 0, 0, 0, 3], [0, 0, 4, 0, 0, 3]]
    assert connected_components(mask, keep=1).tolist() == [[0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 1]]
    two = [[1, 0, 0, 0, 0, 2], [1, 0, 0, 0, 0, 2], [0, 0, 0, 0, 0, 2]]  # of equal ones the first
    assert connected_components(mask, keep=2).tolist() == two
    assert connected_components(mask, keep=9, min_area=2).amax() == 3
    assert connected_components(mask, min_area=4).amax() == 0
    values, labels = component_means(mask.double() * 0.9, keep=1)
    assert torch.equal(values > 0, labels > 0)
    values, labels = component_means(mask.double(), keep=1, background="components")
    assert values[0, 0] == 5 / 15
    assert labels.unique().tolist() == [-1, 1]


def test_the_threshold_is_compared_in_the_dtype_of_the_image() -> None:
    p = torch.tensor([[0.1, 0.7, 0.2]])  # in float32, 0.1 and 0.7 are no float64 numbers of that name
    for threshold in (0.1, 0.7, 0.2):
        assert torch.equal(component_means(p, threshold)[1], connected_components(p > threshold))


@pytest.mark.parametrize("background", ["keep", "components"])
def test_means(background: str) -> None:
    p = random(2, 3, 9, 11)
    values, labels = component_means(p, background=background)
    assert torch.equal(labels > 0, p > 0.5)
    for item in range(6):
        own, image, mean = labels.reshape(6, 9, 11)[item], p.reshape(6, 9, 11)[item], values.reshape(6, 9, 11)[item]
        for label in own.unique():
            part = own == label
            expected = image[part].mean() if label else image[part]
            torch.testing.assert_close(mean[part], expected.expand(int(part.sum())), atol=ROUNDING, rtol=0)
    again, _ = component_means(values, background=background)
    torch.testing.assert_close(again, values, atol=ROUNDING, rtol=0)  # idempotent
    torch.testing.assert_close(values.sum((-2, -1)), p.sum((-2, -1)))
    assert torch.equal(values > 0.5, p > 0.5)  # so it changes no mask by itself
    single, _ = component_means(p.float(), background=background)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), values, atol=1e-6, rtol=0)


@pytest.mark.parametrize("options", [{}, {"background": "components"}, {"keep": 1}, {"min_area": 3, "connectivity": 8}])
def test_gradient(options: dict[str, Any]) -> None:
    p = random(2, 4, 5, seed=3).requires_grad_()

    def layer(p: torch.Tensor) -> torch.Tensor:
        return component_means(p, **options)[0]

    assert torch.autograd.gradcheck(layer, p)
    assert torch.autograd.gradgradcheck(layer, p)
    jacobian = torch.autograd.functional.jacobian(layer, p.detach()).reshape(40, 40)
    torch.testing.assert_close(jacobian, jacobian.mT, atol=ROUNDING, rtol=0)
    torch.testing.assert_close(jacobian @ jacobian, jacobian, atol=ROUNDING, rtol=0)


P = random(3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: connected_components(P),
            TypeError,
            r"connected_components: `mask` must be a boolean .*Compare it with",
        ),
        (lambda: connected_components(P[0] > 0.5), ValueError, r"`mask` must be of shape \(\.\.\., H, W\)"),
        (lambda: connected_components(P > 0.5, 6), ValueError, r"`connectivity` must be 4 or 8; got 6"),
        (lambda: connected_components(P > 0.5, True), ValueError, r"`connectivity` must be 4 or 8; got True"),
        (lambda: connected_components(P > 0.5, keep=0), ValueError, r"`keep` must be an integer ≥ 1; got 0"),
        (lambda: connected_components(P > 0.5, min_area=-1), ValueError, r"`min_area` must be finite and ≥ 0; got -1"),
        (lambda: component_means(P > 0.5), TypeError, r"component_means: `p` must be a floating tensor"),
        (lambda: component_means(P * torch.nan), ValueError, r"`p` must be finite; got nan at index \(0, 0\)"),
        (lambda: component_means(P[0]), ValueError, r"`p` must be of shape \(\.\.\., H, W\)"),
        (lambda: component_means(P, "half"), TypeError, r"`threshold` must be a number"),  # type: ignore[arg-type]
        (lambda: component_means(P, connectivity=3), ValueError, r"`connectivity` must be 4 or 8"),
        (lambda: component_means(P, background="zero"), ValueError, r"`background` must be one of keep, components"),
        (
            lambda: torch.func.vmap(component_means)(P[None]),
            RuntimeError,
            r"component_means does not take part in torch",
        ),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_same_bits_on_any_number_of_threads() -> None:
    """Sums of a component go in one order, also where they are long."""
    p = random(3, 200, 300, seed=1)
    found, threads = [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaf = p.clone().requires_grad_()
            values, labels = component_means(leaf, 0.4, background="components")
            values.square().sum().backward()
            found.append((values.detach(), labels, leaf.grad))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))
