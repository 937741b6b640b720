# SPDX-License-Identifier: Apache-2.0
"""Gradients of solutions: through the equations that hold at a solution, not through the solver that found it.

Where `F(y, x) = 0` defines y as a function of x, `∂y/∂x = −(∂F/∂y)⁻¹ ∂F/∂x` (implicit function theorem; Gould, Hartley
and Campbell, "Deep Declarative Networks", 2021). `root` and `minimum` for many small dense systems at once, `linear`
for one large sparse system.
"""

from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import is_transformed, outside_autocast, refuse_torch_func
from geodiff.soft.special import last_derivative
from geodiff.sparse import SparseMatrix as SparseMatrix
from geodiff.sparse import linear as linear
from geodiff.validation import fail, floating

_ONCE = "geodiff.implicit: gradients are of first order only; a second derivative was asked for."


class _Attach(torch.autograd.Function):
    """The solution, with the gradient `−(∂F/∂y)⁻ᵀ g` for the residual."""

    @staticmethod
    def forward(solution: torch.Tensor, residual: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        return solution.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        residual, inverse = ctx.saved_tensors
        gradient = -(inverse.mT @ gradient[..., None])[..., 0]
        return None, last_derivative(gradient, residual, message=_ONCE), None


class _AttachForward(_Attach):
    """With forward mode; apart, since torch.compile takes no function that has it."""

    @staticmethod
    def jvp(ctx: Any, _: Any, tangent: torch.Tensor | None, __: Any) -> torch.Tensor:
        residual, inverse = ctx.saved_tensors
        tangent = torch.zeros_like(residual) if tangent is None else tangent
        return -(inverse @ tangent[..., None])[..., 0]


@outside_autocast
def root(
    solution: torch.Tensor,
    residual: Callable[..., torch.Tensor],
    *inputs: torch.Tensor,
    scale: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> torch.Tensor:
    """Return a solution y of `F(y, x) = 0` with its gradient in x, however it was found.

    A component held at a bound b has the equation `y_i − b = 0`; write the residual so.

    Args:
        solution: y, `(..., d)`: d unknowns, batched. The gradient is that of the root near y, as exact as y is.
        residual: F, called as `residual(y, *inputs)`, returns `(..., d)`; each item of the batch depends on its own
            unknowns only. Called twice, and differentiated d times in y.
        inputs: x, of any shapes. Tensors that `residual` holds by itself get gradients too.
        scale: `(...)`, how large entries of ∂F/∂y are, with which singular is judged; left out, its largest entry,
            which cannot tell where d = 1.
        tolerance: singular values of ∂F/∂y below `tolerance × scale` count as zero; left out, `eps^(3/4)`.

    Returns:
        `(..., d)`: the numbers of `solution`.

    Gradients: in `inputs`, first order only (a second derivative raises). Where ∂F/∂y is singular, by its
    pseudo-inverse: none along directions in which the equations do not determine y, never NaN. In `solution`, none.

    Raises:
        TypeError: a solution that is not a floating tensor.
        ValueError: a residual of another shape than the solution, NaN in the solution.

    Example:
        >>> import torch
        >>> x = torch.tensor([4.0, 9.0], requires_grad=True)
        >>> y = root(x.detach().sqrt()[:, None], lambda y, x: y**2 - x[:, None], x)
        >>> y.sum().backward()
        >>> x.grad
        tensor([0.2500, 0.1667])
    """
    floating("implicit.root", "solution", solution, ("...", "d"))
    held = solution.detach()
    if not torch.is_grad_enabled():
        return held
    value = residual(held, *inputs)
    if value.shape != held.shape:
        raise fail("implicit.root", "residual", f"of shape {tuple(held.shape)}, like the solution", value)
    if is_transformed(value):
        refuse_torch_func("implicit.root", value)
    elif not value.requires_grad:
        return held
    jacobian = _jacobian(held, residual, inputs)
    kind = _AttachForward if is_transformed(value) else _Attach
    return kind.apply(held, value, _inverse(jacobian, scale, tolerance))


@outside_autocast
def minimum(
    solution: torch.Tensor,
    objective: Callable[..., torch.Tensor],
    *inputs: torch.Tensor,
    equality: Callable[..., torch.Tensor] | None = None,
    scale: torch.Tensor | None = None,
    tolerance: float | None = None,
) -> torch.Tensor:
    """Return a stationary point y of `f(y, x)`, where `h(y, x) = 0` if so asked, with its gradient in x.

    It is the root of `∂f/∂y`, however it was found; see `root` for the arguments and for what holds where the Hessian
    is singular. With `equality` it is part of the root (y, λ) of `∂f/∂y − λᵀ ∂h/∂y` and h (Karush, Kuhn and Tucker),
    whose multipliers λ follow from y: `λᵀ ∂h/∂y = ∂f/∂y`. That is eq. (3) of Gould et al., "Exploiting Problem
    Structure in Deep Declarative Networks", 2022. To leave the constraints out of the gradient is no approximation.

    Args:
        solution: y, `(..., d)`.
        objective: f, called as `objective(y, *inputs)`, twice differentiable, returns `(...)`.
        inputs: x.
        equality: h, called as `equality(y, *inputs)`, twice differentiable, returns `(..., p)`, p <= d. Constraints may
            depend on each other.
        scale: of the Hessian's entries; with `equality` of those of the whole system.
        tolerance: for singular values of it.

    Gradients: in `inputs`, first order only. The solution stays on the constraints: `∂h/∂y ∂y/∂x = −∂h/∂x`.

    Raises:
        TypeError: a solution that is not a floating tensor.
        ValueError: an objective of another shape than the batch, constraints of another one or more of them than
            unknowns, NaN in the solution.

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
        >>> y = minimum(x.detach().mean(0, keepdim=True), lambda y, x: ((y - x) ** 2).sum(-1), x)
        >>> y.sum().backward()
        >>> x.grad
        tensor([0.3333, 0.3333, 0.3333])
        >>> x = torch.tensor([3.0, 4.0], requires_grad=True)  # its nearest point on the circle
        >>> circle = {"equality": lambda y, x: (y**2).sum(-1, keepdim=True) - 1}
        >>> y = minimum(x.detach() / 5, lambda y, x: ((y - x) ** 2).sum(-1), x, **circle)
        >>> y[0].backward()
        >>> x.grad
        tensor([ 0.1280, -0.0960])
    """
    if equality is None:

        def stationarity(y: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
            y = y if y.requires_grad else y.detach().requires_grad_()
            return _slope(objective, y, inputs, None, None)

        return root(solution, stationarity, *inputs, scale=scale, tolerance=tolerance)
    floating("implicit.minimum", "solution", solution, ("...", "d"))
    d = solution.shape[-1]

    def conditions(both: torch.Tensor, *inputs: torch.Tensor) -> torch.Tensor:
        both = both if both.requires_grad else both.detach().requires_grad_()
        y, multipliers = both[..., :d], both[..., d:]
        h = equality(y, *inputs)
        return torch.cat([_slope(objective, y, inputs, h, multipliers), h], -1)

    multipliers = _multipliers(solution.detach(), objective, equality, inputs)
    both = torch.cat([solution.detach(), multipliers], -1)
    return root(both, conditions, *inputs, scale=scale, tolerance=tolerance)[..., :d]


def _slope(
    objective: Callable[..., torch.Tensor],
    y: torch.Tensor,
    inputs: tuple[torch.Tensor, ...],
    h: torch.Tensor | None,
    multipliers: torch.Tensor | None,
) -> torch.Tensor:
    """Return the derivative of the Lagrangian `f − λ·h` in y."""
    value = objective(y, *inputs)
    if value.shape != y.shape[:-1]:
        raise fail("implicit.minimum", "objective", f"of shape {tuple(y.shape[:-1])}, one number an item", value)
    total = value.sum()
    if h is not None and multipliers is not None:
        total = total - (multipliers * h).sum()
    (gradient,) = torch.autograd.grad(total, y, create_graph=True)
    return gradient


def _multipliers(
    y: torch.Tensor,
    objective: Callable[..., torch.Tensor],
    equality: Callable[..., torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
) -> torch.Tensor:
    """Return λ `(..., p)`, of least norm where constraints depend on each other."""
    held = tuple(x.detach() for x in inputs)
    with torch.enable_grad():
        h = equality(y, *held)
        if h.shape[:-1] != y.shape[:-1] or h.dim() != y.dim() or h.shape[-1] > y.shape[-1]:
            fix = f"One number a constraint, at most {y.shape[-1]} for so many unknowns."
            raise fail("implicit.minimum", "equality", f"of shape {(*y.shape[:-1], 'p')}", h, fix)
        slope = _slope(objective, y.clone().requires_grad_(), held, None, None).detach()
        constraints = _jacobian(y, equality, inputs)
    return (torch.linalg.pinv(constraints.mT) @ slope[..., None])[..., 0]


def _jacobian(
    solution: torch.Tensor, residual: Callable[..., torch.Tensor], inputs: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    y = solution.clone().requires_grad_()
    value = residual(y, *(x.detach() for x in inputs))
    rows = []
    for i in range(value.shape[-1]):
        part = value[..., i].sum()
        # A component that depends on no unknown has a row of zeros.
        row = torch.autograd.grad(part, y, retain_graph=True, allow_unused=True)[0] if part.requires_grad else None
        rows.append(torch.zeros_like(y) if row is None else row.detach())
    return torch.stack(rows, -2)


def _inverse(matrix: torch.Tensor, scale: torch.Tensor | None, tolerance: float | None) -> torch.Tensor:
    """Invert well-conditioned matrices `(..., d, d)`, pseudo-invert the others."""
    tolerance = torch.finfo(matrix.dtype).eps ** 0.75 if tolerance is None else tolerance
    size = matrix.abs().amax((-2, -1)) if scale is None else scale.detach().expand(matrix.shape[:-2])
    inverse, info = torch.linalg.inv_ex(matrix)
    # The largest entry bounds the norm, which is one over the smallest singular value, within a factor d.
    poor = (info != 0) | ~(inverse.abs().amax((-2, -1)) * size * tolerance * matrix.shape[-1] < 1)
    if bool(poor.any()):
        inverse[poor] = torch.linalg.pinv(matrix[poor], atol=tolerance * size[poor], rtol=torch.zeros_like(size[poor]))
    return inverse
