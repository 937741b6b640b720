# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

import geodiff as gd
from geodiff.transport.pooling import PENALTIES, Penalty, RobustPool2d
from tests.helpers import assert_close_relative, assert_gradient_is_derivative

CONVEX = [name for name in PENALTIES if PENALTIES[name].convex]
NAMES = list(PENALTIES)


def penalty(name: str, z: np.ndarray, alpha: float) -> np.ndarray:
    """Table 1 of Gould et al. (2022), first column, as written there."""
    inside = z <= alpha
    return {
        "quadratic": z**2 / 2,
        "pseudo_huber": alpha**2 * (np.sqrt(1 + (z / alpha) ** 2) - 1),
        "huber": np.where(inside, z**2 / 2, alpha * (z - alpha / 2)),
        "welsch": 1 - np.exp(-(z**2) / (2 * alpha**2)),
        "truncated_quadratic": np.where(inside, z**2 / 2, alpha**2 / 2),
    }[name]


def objective(name: str, y: np.ndarray, x: np.ndarray, alpha: float, weights: np.ndarray | float = 1.0) -> float:
    return float((weights * penalty(name, np.linalg.norm(y[:, None] - x, axis=0), alpha)).sum())


def cloud(*shape: int, outliers: int = 1) -> torch.Tensor:
    x = torch.randn(*shape, dtype=torch.float64)
    x[..., :outliers] += 6
    return x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_is_a_minimum_that_scipy_does_not_improve(name: str, alpha: float, weighted: bool) -> None:
    x = cloud(2, 3, 15)
    weights = torch.rand(2, 15, dtype=torch.float64) + 0.1
    y = gd.robust_pool(x, name, alpha, weights if weighted else None)
    for i in range(2):
        w = weights[i].numpy() if weighted else 1.0
        points = x[i].numpy()
        ours = objective(name, y[i].numpy(), points, alpha, w)
        # From our y, and for convex penalties also from elsewhere: the minimum is one.
        starts = [y[i].numpy()] + ([points.mean(1), points[:, 3]] if name in CONVEX else [])
        for start in starts:
            options = {"xatol": 1e-9, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000}
            found = minimize(
                lambda u, p=points, w=w: objective(name, u, p, alpha, w), start, method="Nelder-Mead", options=options
            )
            # The simplex stops within 1e-9 of the minimum, where the objective is flat to 1e-14 of its size.
            assert ours <= found.fun + 1e-12 * abs(found.fun)
        if name in CONVEX:
            np.testing.assert_allclose(found.x, y[i].numpy(), atol=1e-6)  # √1e-14 and the simplex's own error


def test_not_convex_ones_keep_the_better_of_two_starts() -> None:
    # Mean 4, median 0: from the mean, Welsch of alpha 1 finds the four points at 5; from the median the five at 0.
    x = torch.tensor([[[0.0] * 5 + [5.0] * 4 + [16.0]]], dtype=torch.float64)
    for name in ("welsch", "truncated_quadratic"):
        assert float(gd.robust_pool(x, name, 1.0)) == pytest.approx(0.0, abs=1e-3)
        # Median 0 among three points, mean 5.8 beside the five at 6.
        other = torch.tensor([[[-5.0] * 4 + [0.0] * 3 + [6.0] * 5 + [65.0]]], dtype=torch.float64)
        assert float(gd.robust_pool(other, name, 1.0)) == pytest.approx(6.0, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(2, 1, 5), (2, 3, 7), (2, 7, 3)])
def test_gradients(name: str, shape: tuple[int, ...]) -> None:
    x = cloud(*shape).requires_grad_()
    alpha = torch.tensor([0.8, 1.3, 1.1][: shape[0]], dtype=torch.float64, requires_grad=True)
    weights = (torch.rand(shape[0], shape[2], dtype=torch.float64) + 0.2).requires_grad_()
    if name == "truncated_quadratic":
        assert not torch.isclose(
            (gd.robust_pool(x, name, alpha, weights)[..., None] - x).norm(dim=1), alpha[:, None], rtol=1e-3
        ).any()
    assert torch.autograd.gradcheck(
        lambda x, alpha, weights: gd.robust_pool(x, name, alpha, weights),
        (x, alpha, weights),
        atol=1e-7,
        fast_mode=shape[1] > 1,
    )


@pytest.mark.parametrize("name", NAMES)
def test_gradient_without_weights_and_with_many_channels(name: str) -> None:
    x = cloud(2, 20, 60, outliers=9)
    assert_gradient_is_derivative(lambda x: gd.robust_pool(x, name, 6.3), [x], step=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_float32_agrees_with_float64(name: str) -> None:
    x = cloud(3, 16, 50, outliers=5).float()
    got, wanted = gd.robust_pool(x, name, 2.0), gd.robust_pool(x.double(), name, 2.0)
    # The mean of 50 numbers has an error of a few ulp; H is within 1/10 of a multiple of the identity or better.
    assert_close_relative(got, wanted, 64 * torch.finfo(torch.float32).eps)


def test_quadratic_is_the_mean() -> None:
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    torch.testing.assert_close(gd.robust_pool(x, "quadratic", 0.1), x.mean(-1))


@pytest.mark.parametrize("name", ["huber", "pseudo_huber"])
@pytest.mark.parametrize("count", [9, 31])
def test_small_alpha_is_the_median(name: str, count: int) -> None:
    x = torch.randn(6, 1, count, dtype=torch.float64) * 10
    # Huber's minimum is within alpha of the median of an odd count; pseudo-Huber's within a few.
    for alpha in (1e-3, 1e-9):
        y = gd.robust_pool(x, name, alpha)
        torch.testing.assert_close(y, x.median(-1).values, rtol=0, atol=3 * alpha)


def test_small_alpha_is_the_geometric_median() -> None:
    # Fermat's point of an equilateral triangle is its centre; of an obtuse one (over 120 degrees), that corner.
    corners = torch.tensor([[0.0, 1.0, 0.5], [0.0, 0.0, math.sqrt(0.75)]], dtype=torch.float64)
    torch.testing.assert_close(gd.robust_pool(corners, "huber", 1e-9), corners.mean(-1))
    flat = torch.tensor([[-1.0, 1.0, 0.0], [0.0, 0.0, 0.3]], dtype=torch.float64)
    torch.testing.assert_close(gd.robust_pool(flat, "huber", 1e-9), flat[:, 2], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 1000), points=st.integers(1, 12), channels=st.integers(1, 5), alpha=st.floats(0.05, 20.0))
def test_properties(name: str, seed: int, points: int, channels: int, alpha: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, channels, points, generator=generator, dtype=torch.float64)
    y = gd.robust_pool(x, name, alpha)
    value = [objective(name, y[i].numpy(), x[i].numpy(), alpha) for i in range(2)]

    def same(other: torch.Tensor, scale: float = 1.0) -> None:
        # Where the minimum is flat (a median of an even count), points may differ, but not the objective.
        for i in range(2):
            again = objective(name, other[i].numpy(), x[i].numpy(), alpha)
            assert again == pytest.approx(value[i], rel=1e-9, abs=1e-14)

    same(gd.robust_pool(x[..., torch.randperm(points, generator=generator)], name, alpha))
    shift = torch.full((channels, 1), 3.0, dtype=torch.float64)
    if name in CONVEX:  # elsewhere, rounding may decide between two minima of one value
        same(gd.robust_pool(x + shift, name, alpha) - shift[:, 0])
        same(gd.robust_pool(4 * x, name, 4 * alpha) / 4)
        same(gd.robust_pool(torch.cat([x, x], -1), name, alpha))
    # A point of weight zero is as if absent, wherever it is.
    extra = torch.cat([x, y[..., None]], -1)
    weights = torch.ones(2, points + 1, dtype=torch.float64)
    weights[:, -1] = 0
    same(gd.robust_pool(extra, name, alpha, weights))
    # Inside the box of the points.
    assert bool((y <= x.amax(-1) + 1e-9).all() and (y >= x.amin(-1) - 1e-9).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alpha", [1e-12, 1e12])
def test_far_points_and_extreme_alpha_are_finite(name: str, alpha: float) -> None:
    x = cloud(2, 3, 8).float().requires_grad_()
    with torch.no_grad():
        x[..., 0] *= 1e6
    weights = torch.rand(2, 8, requires_grad=True)
    scale = torch.tensor(alpha, requires_grad=True)
    y = gd.robust_pool(x, name, scale, weights)
    y.sum().backward()
    for tensor in (y, x.grad, weights.grad, scale.grad):
        assert torch.isfinite(tensor).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_free_directions_have_no_gradient(channels: int) -> None:
    # Two points on a line, both beyond alpha: every point between is a minimum, and H is singular along the line.
    x = torch.zeros(1, channels, 2, dtype=torch.float64)
    x[0, 0] = torch.tensor([-10.0, 10.0])
    x.requires_grad_()
    y = gd.robust_pool(x, "huber", 1.0)
    (along,) = torch.autograd.grad(y[0, 0], x, retain_graph=True)
    assert along.abs().max() < 1e-15
    if channels > 1:
        (across,) = torch.autograd.grad(y[0, 1], x)
        torch.testing.assert_close(across[0, 1], torch.tensor([0.5, 0.5], dtype=torch.float64))


def test_each_item_is_by_itself() -> None:
    x = cloud(6, 4, 10)
    x[2] *= 1e4
    alone = torch.cat([gd.robust_pool(x[i : i + 1], "huber", 0.5) for i in range(6)])
    torch.testing.assert_close(gd.robust_pool(x, "huber", 0.5), alone, rtol=1e-13, atol=1e-13)


def test_batches_and_empty_ones() -> None:
    x = cloud(2, 3, 4, 10)
    alpha = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    y = gd.robust_pool(x, "huber", alpha)
    assert y.shape == (2, 3, 4)
    torch.testing.assert_close(y[1, 2], gd.robust_pool(x[1, 2], "huber", 2.0))
    assert gd.robust_pool(x[:0], "welsch").shape == (0, 3, 4)
    assert gd.robust_pool(np.ones((2, 3)), "huber").tolist() == [1.0, 1.0]


def test_a_penalty_of_ones_own() -> None:
    class Cauchy(Penalty):
        name, convex = "cauchy", False

        def value(self, u):
            return (u * u).log1p() / 2

        def kappa(self, u, least):
            return 1 / (1 + u * u)

        def fraction(self, u):
            return 2 * u * u / (1 + u * u)

    x = cloud(2, 3, 9).requires_grad_()
    alpha = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, alpha: gd.robust_pool(x, Cauchy(), alpha), (x, alpha), atol=1e-7)
    for method, arguments in (("value", 1), ("kappa", 2), ("fraction", 1)):
        with pytest.raises(NotImplementedError, match=f"Penalty needs {method}"):
            getattr(Penalty(), method)(*[torch.ones(2)] * arguments)


def test_layer() -> None:
    x = torch.randn(2, 5, 4, 3)
    weights = torch.rand(2, 4, 3)
    layer = RobustPool2d("pseudo_huber", 0.7, learn_alpha=True)
    got = layer(x, weights)
    torch.testing.assert_close(got, gd.robust_pool(x.flatten(2), "pseudo_huber", 0.7, weights.flatten(1)))
    got.square().sum().backward()
    assert layer.log_alpha.grad.abs() > 0
    assert list(RobustPool2d("welsch", 2.0).parameters()) == []
    assert "welsch, alpha=2" in repr(RobustPool2d("welsch", 2.0))
    assert RobustPool2d()(x.double()).dtype == torch.float64


def test_second_derivatives_are_refused() -> None:
    x = torch.randn(1, 2, 5, requires_grad=True)
    (first,) = torch.autograd.grad(gd.robust_pool(x).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="first order only"):
        first.square().sum().backward()


def test_says_when_iterations_do_not_suffice() -> None:
    with pytest.warns(RuntimeWarning, match="2 of 2 items did not converge in 2 iterations"):
        gd.robust_pool(cloud(2, 3, 8), "pseudo_huber", 0.1, max_iterations=2)


x235 = torch.zeros(2, 3, 5)


@pytest.mark.parametrize(
    "call, error, text",
    [
        (lambda: gd.robust_pool(x235, "hubert"), ValueError, "`penalty` must be one of.*Did you mean 'huber'"),
        (lambda: gd.robust_pool(x235, 3), TypeError, "`penalty` must be a name or a Penalty; got int 3"),
        (lambda: gd.robust_pool(x235, alpha=0.0), ValueError, "`alpha` must be positive"),
        (lambda: gd.robust_pool(x235, alpha=-torch.ones(2)), ValueError, "`alpha` must be positive"),
        (lambda: gd.robust_pool(x235, alpha=torch.ones(3)), ValueError, r"must be one number or of shape \(2,\)"),
        (lambda: gd.robust_pool(x235, weights=torch.ones(2, 4)), ValueError, r"`weights` must be of shape \(2, 5\)"),
        (lambda: gd.robust_pool(x235, weights=-torch.ones(5)), ValueError, "`weights` must be at least 0; got -1"),
        (lambda: gd.robust_pool(x235, weights=torch.zeros(5)), ValueError, "got all zero in item"),
        (lambda: gd.robust_pool(x235 / 0), ValueError, "`x` must be finite"),
        (lambda: gd.robust_pool(x235[..., :0]), ValueError, "`x` must be of one point and one channel or more"),
        (lambda: gd.robust_pool(x235[:, :0]), ValueError, "`x` must be of one point and one channel or more"),
        (lambda: gd.robust_pool(x235[0, 0]), ValueError, r"`x` must be of shape \(..., C, N\)"),
        (lambda: gd.robust_pool(x235.half()), TypeError, "float32 or float64"),
        (lambda: gd.robust_pool(x235, max_iterations=0), ValueError, "`max_iterations` must be at least 1"),
        (lambda: RobustPool2d("welch"), ValueError, "RobustPool2d: `penalty`.*Did you mean 'welsch'"),
        (lambda: RobustPool2d(alpha=-1.0), ValueError, "RobustPool2d: `alpha` must be positive"),
        (lambda: RobustPool2d()(x235), ValueError, r"RobustPool2d: `x` must be of shape \(B, C, H, W\)"),
        (lambda: RobustPool2d()(x235[None], x235), ValueError, r"RobustPool2d: `weights` must be of shape \(1, 3, 5\)"),
    ],
)  # fmt: skip
def test_errors(call, error, text) -> None:
    with pytest.raises(error, match=text):
        call()
