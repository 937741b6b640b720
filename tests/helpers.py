# SPDX-License-Identifier: Apache-2.0
"""Named assertions: each says why its tolerance is what it is."""

from collections.abc import Callable, Sequence

import torch


def rounding_bound(dtype: torch.dtype, condition: float = 1.0) -> float:
    """Relative error that rounding alone can explain.

    A kernel and its twin do the same few dozen operations in another order, with an exp and a log of a few ulp: 64
    roundings is generous for that. `condition` is how much the mathematics magnifies them: for alpha it is the size
    of coordinates over τ (τ, not √τ, for a squared form), since x = d/τ carries the rounding of d; for gradients its
    square.
    """
    return 64 * torch.finfo(dtype).eps * max(condition, 1.0)


def assert_close_relative(actual: torch.Tensor, expected: torch.Tensor, bound: float, what: str = "result") -> None:
    """Assert that the largest error is within `bound` of the largest expected magnitude.

    Relative to the largest entry, not entry by entry: small entries of an image or a gradient are sums of larger parts
    that cancel, and rounding is relative to the parts.
    """
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    actual, expected = actual.detach().double().cpu(), expected.detach().double().cpu()
    assert torch.isfinite(actual).all(), f"{what}: not finite at {(~torch.isfinite(actual)).nonzero()[:3].tolist()}"
    if expected.numel() == 0:
        return
    size = float(expected.abs().max())
    error = (actual - expected).abs()
    worst = int(error.argmax())
    assert float(error.max()) <= bound * size, (
        f"{what}: error {float(error.max()):.3g} exceeds {bound:.3g} × {size:.3g} at flat index {worst}: "
        f"got {float(actual.flatten()[worst]):.17g}, expected {float(expected.flatten()[worst]):.17g}"
    )


def vjp(
    function: Callable[..., torch.Tensor], inputs: Sequence[torch.Tensor], cotangent: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Return the vector–Jacobian products of `function(*inputs)` with `cotangent`, zeros for an input it ignores."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    value = function(*leaves)
    if not value.requires_grad:  # an empty result
        return tuple(torch.zeros_like(x) for x in leaves)
    return torch.autograd.grad(value, leaves, cotangent, allow_unused=True, materialize_grads=True)


def random_cotangent(like: torch.Tensor) -> torch.Tensor:
    """Draw a cotangent of both signs; a plain sum would let errors of opposite sign cancel."""
    return torch.randn(like.shape, dtype=torch.float64).to(like)


def assert_same_vjp(
    actual: Callable[..., torch.Tensor],
    expected: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    value_bound: float,
    gradient_bound: float,
) -> None:
    """Assert that two functions have the same value, and the same vector–Jacobian product with a random cotangent.

    `expected` runs in float64 on the very numbers that `actual` gets, so the rounding of the input counts for neither.
    """
    exact = [x.detach().double() for x in inputs]
    value, truth = actual(*inputs), expected(*exact)
    assert_close_relative(value, truth, value_bound, "value")
    cotangent = random_cotangent(truth)
    got, wanted = vjp(actual, inputs, cotangent.to(value.dtype)), vjp(expected, exact, cotangent)
    for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
        assert_close_relative(g, w, gradient_bound, f"gradient of input {i}")


def central_difference(
    function: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    directions: Sequence[torch.Tensor],
    step: float,
) -> float:
    """Return the directional derivative of a scalar function by central differences."""
    with torch.no_grad():
        ahead = function(*(x + step * d for x, d in zip(inputs, directions, strict=True)))
        back = function(*(x - step * d for x, d in zip(inputs, directions, strict=True)))
    return float(ahead - back) / (2 * step)


def assert_gradient_is_derivative(
    function: Callable[..., torch.Tensor],
    inputs: Sequence[torch.Tensor],
    step: float,
    relative: float = 1e-5,
    directions: int = 3,
) -> None:
    """Assert in float64 that the vector–Jacobian product is the derivative, along random directions.

    Tolerance: `relative` of the size of the gradient, for the truncation of the difference, O(step²) times a third
    derivative; and 256 ulp of the function's terms over the step, for its rounding. Where the gradient is so small that
    the second part would hide it, the first still binds the rest of the table.
    """
    cotangent = random_cotangent(function(*inputs))

    def scalar(*at: torch.Tensor) -> torch.Tensor:
        return (function(*at) * cotangent).sum()

    gradients = vjp(function, inputs, cotangent)
    terms = float((function(*inputs) * cotangent).abs().sum())
    for _ in range(directions):
        ways = [random_cotangent(x) for x in inputs]
        parts = [(g * w).flatten() for g, w in zip(gradients, ways, strict=True)]
        analytic = float(sum(p.sum() for p in parts))
        size = float(sum(p.abs().sum() for p in parts))
        numeric = central_difference(scalar, inputs, ways, step)
        allowed = relative * size + 256 * torch.finfo(torch.float64).eps * terms / step
        assert abs(analytic - numeric) <= allowed, (
            f"analytic {analytic:.12g}, difference {numeric:.12g} ± {allowed:.3g}"
        )


def assert_masks_match_outside(actual: torch.Tensor, expected: torch.Tensor, band: torch.Tensor) -> None:
    """Assert that two masks agree wherever `band` is false.

    Within the band, pixels so near an edge that rounding decides their side, they may differ. The band must leave most
    of the image, or the comparison says nothing.
    """
    assert actual.shape == expected.shape == band.shape
    assert band.double().mean() < 0.5 or band.numel() == 0, "the band covers half of the image: choose another scene"
    wrong = (actual != expected) & ~band
    assert not wrong.any(), f"masks differ at {wrong.nonzero()[:5].tolist()}"
