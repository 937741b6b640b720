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
    with pytest.raises(ValueError, match="`solution` must be finite"):
        implicit.root(torch.full((1,), torch.nan), lambda y: y)
    with pytest.raises(TypeError, match="`solution` must be a tensor"):
        implicit.root(1.0, lambda y: y)
