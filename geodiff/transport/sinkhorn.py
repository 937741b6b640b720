# SPDX-License-Identifier: Apache-2.0
"""Entropic optimal transport between clouds of points."""

from typing import Any

import torch

from geodiff.modes import outside_autocast, refuse_transforms
from geodiff.recording import look
from geodiff.transport import gradients
from geodiff.transport.costs import Kernel, Stored, Streamed
from geodiff.transport.plan import LazyPlan
from geodiff.transport.problem import Problem, diameter, prepare
from geodiff.transport.settle import settle
from geodiff.transport.solver import Solution, solve
from geodiff.transport.solver import solution as finished
from geodiff.transport.unrolled import Unrolled
from geodiff.validation import choice, fail, looks_at_values, positive, warn

STORED_ENTRIES = 1 << 24
"""`backend="auto"` stores matrices of up to so many entries in all."""
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@outside_autocast
class SinkhornResult:
    """A solution of entropic transport; see `sinkhorn`. Tensors are of the batch `(...)`, no axis where there is none.

    Attributes:
        cost: `(...)`, `⟨P, C⟩ + ε KL(P ‖ a⊗b)`, with `reach` the penalties of the marginals added. Gradient by the
            envelope theorem.
        f: `(..., N)`, potentials with `P_ij = a_i b_j exp((f_i + g_j − C_ij)/ε)`; balanced ones have
            `Σ a f = Σ b g`, so each is half of the cost. At weights of zero they are continued as if there were one,
            without gradient; 0 where masked. Implicit gradient.
        g: `(..., M)`.
        marginal_error: `(...)`, L1 distance of the marginals of the plan that is handed out from a and b, the larger of
            the two (with `reach`: from `a exp(−f/ρ)`, `b exp(−g/ρ)`), added up in double precision.
        iterations: products with the plan and its transpose, those of Newton steps included, an int.
        converged: `(...)` bool, whether that is within the tolerance; with `reach` the potentials of points that are
            out of reach have settled too, though their marginals are next to nothing.
    """

    def __init__(self, problem: Problem, source: "Implicit | Unrolled") -> None:
        self._problem, self._source = problem, source
        batch = problem.batch
        self.cost = source.cost.reshape(batch)
        f, g = source.f, source.g
        if problem.rho is None:
            shift = ((problem.a * f).sum(-1, keepdim=True) - (problem.b * g).sum(-1, keepdim=True)) / 2
            f, g = f - shift, g + shift
        f = f if problem.mask_x is None else torch.where(problem.mask_x, f, 0)
        g = g if problem.mask_y is None else torch.where(problem.mask_y, g, 0)
        self.f, self.g = f.reshape(*batch, -1), g.reshape(*batch, -1)
        self.marginal_error = source.error.reshape(batch)
        self.iterations = source.iterations
        self.converged = (source.error <= source.tolerance).reshape(batch)

    def __repr__(self) -> str:
        state = "converged" if bool(self.converged.all()) else "not converged"
        batch, n, m = self.sizes
        worst = float(self.marginal_error.max())
        return f"SinkhornResult({(*batch, n, m)}, {state}, error {worst:.1e}, {self.iterations} iterations)"

    @property
    def sizes(self) -> tuple[torch.Size, int, int]:
        """Shape of the batch, N and M."""
        return self._problem.batch, self.f.shape[-1], self.g.shape[-1]

    @property
    def transport_cost(self) -> torch.Tensor:
        """`⟨P, C⟩` `(...)`, with implicit gradient."""
        return self._source.transport_cost().reshape(self._problem.batch)

    def plan(self) -> torch.Tensor:
        """Return P `(..., N, M)`, stored, with implicit gradient."""
        plan = self._source.plan()
        return plan.reshape(*self._problem.batch, *plan.shape[-2:])

    @property
    def lazy_plan(self) -> LazyPlan:
        """P as an operator: `lazy_plan @ v`, `lazy_plan.T @ u`, `lazy_plan.argmax()`."""
        return LazyPlan(self)

    def _times(self, v: torch.Tensor, transposed: bool) -> torch.Tensor:
        return self._source.times(v, transposed)

    @torch.no_grad()
    def _argmax(self, transposed: bool) -> torch.Tensor:
        p = self._source.potentials()
        f, g = (p[1], p[0]) if transposed else p
        problem = self._problem
        weight = problem.a if transposed else problem.b
        x, y = (problem.y, problem.x) if transposed else (problem.x, problem.y)
        matrix = problem.matrix.mT if transposed and problem.matrix is not None else problem.matrix
        kernel = Streamed(x, y, matrix, problem.p, problem.a.dtype)
        height = g + float(problem.epsilon.detach()) * weight.double().log()
        found = torch.empty(f.shape, dtype=torch.int64, device=f.device)
        for items, rows in kernel.blocks():
            found[items, rows] = (height[items, None] - kernel.block(items, rows)).argmax(-1)
        return found


class Implicit:
    """A solution found without a graph, and functions of it with implicit gradients."""

    def __init__(self, problem: Problem, solution: Solution, tolerance: float, method: str) -> None:
        self.problem, self.solution, self.tolerance = problem, solution, tolerance
        self.error, self.iterations = solution.error, solution.iterations
        self.cost = gradients.Cost.apply(solution, *problem.inputs)
        self.f, self.g = gradients.Potentials.apply(solution, method, *problem.inputs)

    def potentials(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Potentials in float64, without gradient."""
        return self.solution.f, self.solution.g

    def plan(self) -> torch.Tensor:
        """The plan (B, N, M)."""
        plan: torch.Tensor = gradients.Plan.apply(self.solution, *self.problem.inputs, self.f, self.g)
        return plan

    def times(self, v: torch.Tensor, transposed: bool) -> torch.Tensor:
        """The plan, or the transposed one, times v (B, M, E)."""
        inputs = (*self.problem.inputs, self.f, self.g, v)
        product: torch.Tensor = gradients.Product.apply(self.solution, transposed, *inputs)
        return product

    def transport_cost(self) -> torch.Tensor:
        """`⟨P, C⟩` (B,)."""
        cost: torch.Tensor = gradients.TransportCost.apply(self.solution, *self.problem.inputs, self.f, self.g)
        return cost


@outside_autocast
def sinkhorn(
    x: Any = None,
    y: Any = None,
    a: Any = None,
    b: Any = None,
    *,
    cost_matrix: Any = None,
    epsilon: Any,
    p: int = 2,
    reach: float | None = None,
    mask_x: Any = None,
    mask_y: Any = None,
    tolerance: float | None = None,
    max_iterations: int = 10_000,
    start: Any = None,
    backend: str = "auto",
    solver: str = "cg",
    unrolled: bool = False,
    strict: bool = False,
) -> SinkhornResult:
    """Solve entropic optimal transport between two clouds: how to move weights a to weights b at the least cost.

    Minimises `⟨P, C⟩ + ε KL(P ‖ a⊗b)` over plans P ≥ 0 with `P 1 = a`, `Pᵀ 1 = b` (Cuturi, "Sinkhorn Distances",
    2013), where `C_ij = |x_i − y_j|ᵖ` or a matrix of yours. With `reach` the marginals are free at a price:
    `+ ρ KL(P1 ‖ a) + ρ KL(Pᵀ1 ‖ b)`, `ρ = reachᵖ`: mass travels about as far as `reach`, beyond that it is rather
    left out (Chizat et al., "Scaling algorithms for unbalanced optimal transport problems", 2018); here
    `KL(P ‖ Q) = Σ P log(P/Q) − P + Q`.

    ε is annealed from the diameter; then plain iterations run at the target until the marginals fit, and where these
    are slow, Newton steps on the dual. Potentials are absorbed into the matrix and multiplied; nothing under- or
    overflows however far a point lies.

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`; leading axes broadcast. If it is x itself, and b is a, the symmetric problem is solved faster.
        a: `(..., N)` weights ≥ 0 with the sum 1 (with `reach`: any); left out, equal ones. They count as `a / Σa`.
        b: `(..., M)`.
        cost_matrix: C `(..., N, M)` in place of the clouds, of any sign; infinite where a pair is forbidden.
        epsilon: ε > 0 in the units of C, a number or a tensor of no axes. About 0.01 of the costs for a blurred plan,
            0.001 for a sharp one. Below 1e-5 of the costs warns, below 1e-7 raises.
        p: 2 for squared distances, 1 for distances.
        reach: in the units of x (of C, to the power 1/p, for a matrix); None keeps the marginals.
        mask_x: `(..., N)` bool, False where there is no point, for clouds of unequal sizes in a batch. What x holds
            there does not matter.
        mask_y: `(..., M)` bool.
        tolerance: L1 error of the marginals at which to stop; left out, 1e-6 in float32, 1e-12 in float64.
        max_iterations: most iterations, those of Newton steps included.
        start: an earlier result of the same sizes, or its `(f, g)`: no annealing if they serve.
        backend: ``"dense"`` stores one N × M matrix a problem, ``"streamed"`` none (clouds only); ``"auto"`` stores
            small ones.
        solver: of the implicit gradients: ``"cg"``, or ``"cholesky"`` for factors (dense only).
        unrolled: record all iterations for autograd, at the memory of all of them: the baseline, and the way to
            second derivatives.
        strict: raise where the tolerance is not reached, instead of a warning.

    Returns:
        A `SinkhornResult` with `cost`, `transport_cost`, `f`, `g`, `marginal_error`, `iterations`, `converged`,
        `plan()` and `lazy_plan`.

    Gradients: in x, y, cost_matrix, a, b (tangent to the simplex, since they count as `a / Σa`) and epsilon, exact at
    the solution: of the cost by the envelope theorem, of all else by implicit differentiation, whose memory does not
    grow with iterations. First order only, unless `unrolled`. For p = 1, zero where points coincide.

    Raises:
        TypeError: tensors that are not floating, a mask that is not bool.
        ValueError: empty clouds, NaN, shapes that do not fit, negative weights, sums that are not 1, an ε that is too
            small, forbidden pairs that leave no plan, a reach so far below negative costs that the plan overflows.
        RuntimeError: not converged, with `strict`; a second derivative; a gradient beyond all numbers, in a weight of
            zero that mass from beyond reach would go to.

    Example:
        >>> import torch, geodiff as gd
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.1], [1.2]])
        >>> ot = gd.sinkhorn(x.requires_grad_(), y, epsilon=0.01)
        >>> ot.transport_cost, ot.plan()
        (tensor(0.0250, grad_fn=...), tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]], grad_fn=...))
        >>> ot.cost.backward()
        >>> x.grad
        tensor([[-0.1000],
                [-0.2000]])
    """
    where = "sinkhorn"
    choice(where, "backend", backend, ("auto", "dense", "streamed"))
    choice(where, "solver", solver, ("cg", "cholesky"))
    if not isinstance(max_iterations, int) or isinstance(max_iterations, bool) or max_iterations < 1:
        raise fail(where, "max_iterations", "an int ≥ 1", repr(max_iterations))
    if tolerance is not None:
        positive(where, "tolerance", tolerance, "It is the L1 error of the marginals.")
    if not unrolled:
        fix = "Take gradients with torch.autograd.grad or .backward()."
        refuse_transforms(where, fix, x, y, a, b, cost_matrix, epsilon)
    problem = prepare(where, x, y, a, b, cost_matrix, epsilon, p, reach, mask_x, mask_y)
    stop = TOLERANCE[problem.a.dtype] if tolerance is None else float(tolerance)
    before = _start(where, start, problem)
    source: Implicit | Unrolled
    if unrolled:
        if backend == "streamed":
            raise fail(where, "backend", "dense or auto where unrolled", repr(backend))
        source = Unrolled(problem, before, stop, max_iterations)
    else:
        kernel = _kernel(where, problem, backend, solver)
        with torch.no_grad():
            size, offset = diameter(problem)
            weights = problem.a.detach(), problem.b.detach()
            value = problem.strength
            state = solve(
                kernel, *weights, value, problem.rho, size, offset, stop, max_iterations, before, problem.symmetric
            )
            solution = finished(state, settle(state, stop, max_iterations, size))
            solution.present_x, solution.present_y = problem.mask_x, problem.mask_y
        source = Implicit(problem, solution, stop, solver)
    result = SinkhornResult(problem, source)
    if reach is not None and looks_at_values(result.cost) and not bool(torch.isfinite(result.cost).all()):
        text = (
            f"{reach}, with mass that grows beyond all numbers of {str(result.cost.dtype)[6:]} where costs are negative"
        )
        raise fail(where, "reach", "of the size of negative costs or above", text)
    if not look(result.converged.all()):
        _complain(where, result, stop, strict)
    return result


def _complain(where: str, result: SinkhornResult, tolerance: float, strict: bool) -> None:
    worst = float(result.marginal_error.max())
    text = (
        f"{where}: not converged after {result.iterations} iterations: marginal error {worst:.3g}, tolerance "
        f"{tolerance:.3g}. Raise max_iterations, epsilon or tolerance"
    )
    text += ", or use float64." if result.f.dtype == torch.float32 else "."
    if strict:
        raise RuntimeError(text)
    warn(text, RuntimeWarning)


def _kernel(where: str, problem: Problem, backend: str, solver: str) -> Kernel:
    x, y, matrix = (None if t is None else t.detach() for t in problem.inputs[:3])
    entries = problem.a.shape[0] * problem.a.shape[1] * problem.b.shape[1]
    if backend == "streamed" and matrix is not None:
        raise fail(where, "backend", "dense or auto for a cost_matrix, which is stored already", repr(backend))
    streamed = backend == "streamed" or (backend == "auto" and matrix is None and entries > STORED_ENTRIES)
    if streamed and solver == "cholesky":
        raise fail(where, "solver", f"cg for {entries} pairs that are not stored", "'cholesky'", "Or backend='dense'.")
    return (Streamed if streamed else Stored)(x, y, matrix, problem.p, problem.a.dtype)


def _start(where: str, start: Any, problem: Problem) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Potentials to start from, float64."""
    if start is None:
        return None
    if isinstance(start, SinkhornResult):
        start = start._source.potentials()
        start = tuple(t.reshape(*problem.batch, -1) if t.shape[0] == problem.a.shape[0] else t for t in start)
    if not isinstance(start, tuple | list) or len(start) != 2 or not all(isinstance(t, torch.Tensor) for t in start):
        raise fail(where, "start", "an earlier result or its tensors (f, g)", start, error=TypeError)
    found = []
    for name, t, weight in (("f", start[0], problem.a), ("g", start[1], problem.b)):
        wanted = (*problem.batch, weight.shape[-1])
        if tuple(t.shape) != wanted:
            raise fail(where, "start", f"potentials of the same sizes, {name} of shape {wanted}", t)
        t = t.detach().double().to(weight.device).reshape(weight.shape)
        found.append(torch.where(torch.isfinite(t), t, 0.0))
    return found[0], found[1]
