# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from torch.autograd import gradcheck

from geodiff import implicit

F64 = torch.float64


def test_linear_systems_by_closed_form() -> None:
    a = torch.randn(5, 3, 3, dtype=F64, requires_grad=True)
    b = torch.randn(5, 3, dtype=F64, requires_grad=True)

    def solve(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        y = torch.linalg.solve(a.detach(), b.detach())
        return implicit.root(y, lambda y, a, b: (a @ y[..., None])[..., 0] - b, a, b)

    cotangent = torch.randn(5, 3, dtype=F64)
    got = torch.autograd.grad(solve(a, b), (a, b), cotangent)
    want = torch.autograd.grad(torch.linalg.solve(a, b), (a, b), cotangent)
    # Two ways to solve the same systems: rounding times their condition, which is below 1e3 here.
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-11, atol=1e-11)


def softened(y: torch.Tensor, x: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    """A convex function without a closed-form minimum, coupling two unknowns."""
    first, second = y.unbind(-1)
    return ((y - x) ** 2).sum(-1) + strength * (torch.exp(first - second) + second**4)


def minimise(x: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
    y = x.detach().clone()
    for _ in range(50):
        y.requires_grad_()
        (g,) = torch.autograd.grad(softened(y, x.detach(), strength.detach()).sum(), y, create_graph=True)
        rows = [torch.autograd.grad(g[..., i].sum(), y, retain_graph=True)[0] for i in range(2)]
        y = (y - torch.linalg.solve(torch.stack(rows, -2), g)).detach()
    return y


def test_minimum_by_finite_differences() -> None:
    x = torch.randn(4, 2, dtype=F64, requires_grad=True)
    strength = torch.rand(4, dtype=F64).requires_grad_()
    assert gradcheck(lambda x, s: implicit.minimum(minimise(x, s), softened, x, s), (x, strength))


def on_the_ellipse(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """The nearest points of ellipses Σ (y/a)² = 1 to points outside of them, by bisection in the multiplier."""
    x, square = x.detach(), axes.detach() ** 2
    low, high = torch.zeros_like(x[..., :1]), 1e3 * torch.ones_like(x[..., :1])
    for _ in range(80):
        t = (low + high) / 2
        outside = (square * x**2 / (t + square) ** 2).sum(-1, keepdim=True) > 1
        low, high = torch.where(outside, t, low), torch.where(outside, high, t)
    return square * x / (t + square)


def distance(y: torch.Tensor, x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return ((y - x) ** 2).sum(-1)


def ellipse(y: torch.Tensor, x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    return ((y / axes) ** 2).sum(-1, keepdim=True) - 1


def test_constrained_minimum_by_finite_differences() -> None:
    x = (2 + torch.rand(4, 3, dtype=F64)).requires_grad_()
    axes = torch.tensor([1.0, 0.7, 1.5], dtype=F64, requires_grad=True)

    def nearest(x: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
        return implicit.minimum(on_the_ellipse(x, axes), distance, x, axes, equality=ellipse)

    assert gradcheck(nearest, (x, axes))
    # The same constraint twice leaves the multipliers open, and the point as it is.
    twice = implicit.minimum(
        on_the_ellipse(x, axes), distance, x, axes, equality=lambda *a: torch.cat([ellipse(*a), 2 * ellipse(*a)], -1)
    )
    torch.testing.assert_close(
        torch.autograd.grad(twice.sum(), x)[0], torch.autograd.grad(nearest(x, axes).sum(), x)[0], rtol=1e-9, atol=1e-9
    )


def test_constrained_minimum_by_the_printed_formula() -> None:
    """Eq. (3) of Gould et al. 2022, with its A, B, C and H by differentiation twice."""
    x = torch.tensor([2.2, 2.9, 2.5], dtype=F64)
    axes = torch.tensor([1.0, 0.7, 1.5], dtype=F64)
    y = on_the_ellipse(x, axes)
    a, c = torch.autograd.functional.jacobian(lambda y, x: ellipse(y, x, axes), (y, x))
    multiplier = torch.linalg.lstsq(a.mT, (2 * (y - x))[:, None]).solution[0, 0]
    parts = torch.autograd.functional.hessian(
        lambda y, x: distance(y, x, axes) - multiplier * ellipse(y, x, axes).sum(), (y, x)
    )
    h, b = parts[0]
    inverse = torch.linalg.inv(h)
    printed = inverse @ a.mT @ torch.linalg.inv(a @ inverse @ a.mT) @ (a @ inverse @ b - c) - inverse @ b
    got = torch.autograd.functional.jacobian(
        lambda x: implicit.minimum(y, distance, x, axes, equality=ellipse), x, vectorize=False
    )
    torch.testing.assert_close(got, printed, rtol=1e-13, atol=1e-13)
    assert float((got + inverse @ b).norm() / got.norm()) > 0.5  # the constraint left out: not an approximation


def test_tensors_held_by_the_residual_get_gradients() -> None:
    x = torch.tensor([[2.0]], dtype=F64, requires_grad=True)
    y = implicit.root(x.detach() ** 2, lambda y: y - x**2)
    assert y.item() == 4
    y.backward()
    torch.testing.assert_close(x.grad, torch.tensor([[4.0]], dtype=F64))


def test_a_held_component_follows_its_bound() -> None:
    # The smallest |y − x|² with y_0 <= b is at (b, x_1), and y_1 couples to y_0 through the last term.
    x, bound = torch.tensor([3.0, 1.0], dtype=F64, requires_grad=True), torch.tensor(2.0, dtype=F64, requires_grad=True)

    def residual(y: torch.Tensor, x: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
        return torch.stack([y[..., 0] - bound, y[..., 1] - x[1] - 0.5 * y[..., 0]], -1)

    y = implicit.root(torch.tensor([2.0, 2.0], dtype=F64), residual, x, bound)
    jacobian = [torch.autograd.grad(y[i], (x, bound), retain_graph=True) for i in range(2)]
    assert jacobian[0][0].tolist() == [0, 0] and jacobian[0][1].item() == 1
    assert jacobian[1][0].tolist() == [0, 1] and jacobian[1][1].item() == 0.5


def test_singular_systems_have_no_gradient_where_nothing_is_determined() -> None:
    # One equation for two unknowns, y_0 + y_1 = x: the least change of y is half of x's for each.
    x = torch.tensor(1.0, dtype=F64, requires_grad=True)
    y = implicit.root(
        torch.tensor([0.3, 0.7], dtype=F64), lambda y, x: torch.stack([y.sum(-1) - x, 0 * x + 0 * y.sum(-1)], -1), x
    )
    (gradient,) = torch.autograd.grad(y @ torch.tensor([1.0, 3.0], dtype=F64), x)
    torch.testing.assert_close(gradient, torch.tensor(2.0, dtype=F64))
    # An equation without its unknown, and one whose derivative is rounding next to the scale that it should have.
    for slope in (0.0, 1e-16):
        y = implicit.root(torch.ones(1, dtype=F64), lambda y, x, s=slope: s * y - x, x, scale=torch.ones((), dtype=F64))
        assert torch.autograd.grad(y.sum(), x)[0] == 0
    y = implicit.root(torch.ones(1, dtype=F64), lambda y, x: x[None].clone(), x)
    assert torch.autograd.grad(y.sum(), x)[0] == 0


def test_one_singular_item_leaves_the_others_alone() -> None:
    x = torch.ones(3, 1, dtype=F64, requires_grad=True)
    slope = torch.tensor([[2.0], [0.0], [4.0]], dtype=F64)
    y = implicit.root(torch.zeros(3, 1, dtype=F64), lambda y, x: slope * y - x, x, scale=torch.ones(3, dtype=F64))
    y.sum().backward()
    assert x.grad.flatten().tolist() == [0.5, 0.0, 0.25]


def test_no_graph_where_none_is_needed() -> None:
    x = torch.ones(1, requires_grad=True)
    assert not implicit.root(torch.ones(1), lambda y, x: y - x, x.detach()).requires_grad
    with torch.no_grad():
        assert not implicit.root(torch.ones(1), lambda y, x: y - x, x).requires_grad


def test_second_derivatives_are_refused() -> None:
    x = torch.tensor([4.0], requires_grad=True)
    y = implicit.root(torch.tensor([2.0]), lambda y, x: y**2 - x, x)
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(RuntimeError, match="of first order only"):
        torch.autograd.grad(first, x)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"root: `residual` must be of shape \(3,\), like the solution; got .*\(2,\)"):
        implicit.root(torch.zeros(3), lambda y: y[:2])
    with pytest.raises(ValueError, match=r"minimum: `objective` must be of shape \(4,\), one number an item"):
        implicit.minimum(torch.zeros(4, 3), lambda y, x: y.sum(), torch.zeros(1, requires_grad=True))
    for wrong in (lambda y, x: y.sum(), lambda y, x: torch.cat([y, y], -1), lambda y, x: y[..., None]):
        match = r"minimum: `equality` must be of shape \(4, 'p'\); .*One number a constraint, at most 3"
        with pytest.raises(ValueError, match=match):
            x = torch.zeros(1, requires_grad=True)
            implicit.minimum(torch.zeros(4, 3), lambda y, x: (y - x).square().sum(-1), x, equality=wrong)
    with pytest.raises(ValueError, match="`solution` must be finite"):
        implicit.root(torch.full((1,), torch.nan), lambda y: y)
    with pytest.raises(TypeError, match="`solution` must be a tensor"):
        implicit.root(1.0, lambda y: y)
