# SPDX-License-Identifier: Apache-2.0
"""Gradients of entropic transport at its solution: the envelope's, and implicit ones of all that the plan determines.

With `e_ij = exp((f_i + g_j − C_ij)/ε)` and `P_ij = a_i b_j e_ij` the potentials solve `Σ_j b_j e_ij = φ(f_i)` and
`Σ_i a_i e_ij = φ(g_j)`; φ = 1, or `φ(t) = exp(−t/ρ)` where marginals are free. The adjoint (λ, μ) = (a s, b t) of these
equations solves

    [diag(P1 (1 + ε/ρ))  P                   ] [s]   [ε f̄]
    [Pᵀ                  diag(Pᵀ1 (1 + ε/ρ))] [t] = [ε ḡ]

which is equation 18 of Gould, Campbell, Ben-Shabat, Ranasinghe Koneputugodage and Xu, "Exploiting Problem Structure in
Deep Declarative Networks" (2022), without ε/ρ. Then `C̄ = P (s_i + t_j)/ε`, `ā = −P t/a`, `b̄ = −Pᵀ s/b` and
`ε̄ = Σ P_ij (s_i + t_j)(f_i + g_j − C_ij)/ε²`. Each function below has the part of its gradient that does not go
through the potentials, and hands on the part in f and g.

Inputs of all: x, y (or None), matrix (or None), a, b, epsilon (a tensor of no axes); f and g.
"""

from collections.abc import Callable
from typing import Any

import torch

from geodiff.recording import look
from geodiff.soft.special import last_derivative
from geodiff.transport.costs import DIRECT, Stored
from geodiff.transport.settle import shares as both_shares
from geodiff.transport.solver import Solution, System, scaled

Gradients = tuple[torch.Tensor | None, ...]


SCALE = 1e-6
"""Rows of less mass than this part of the largest, for as large a cotangent, upset conjugate gradients."""
ONCE = (
    "sinkhorn: gradients are of first order only; a second derivative was asked for. Call "
    "sinkhorn(..., unrolled=True), which autograd differentiates to any order."
)


CHANGED = (
    "sinkhorn: the gradient needs an argument that was changed in place after the call. Change a clone of it, or call "
    "backward first."
)


def version(tensor: torch.Tensor | None) -> int | None:
    """How often a tensor was written to, where that is counted."""
    return None if tensor is None or tensor.is_inference() else tensor._version


class Node(torch.autograd.Function):
    """First-order gradients computed without a graph; those with one refuse to be differentiated."""

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> Gradients:
        """Pull cotangents back through the node."""
        if all(t is None for t in cotangents):
            return ctx.skipped + (None,) * len(ctx.inputs)
        if ctx.versions != [version(t) for t in ctx.inputs]:
            raise RuntimeError(CHANGED)
        anchor = next((t for t in cotangents if t is not None and t.requires_grad), None)
        anchor = next((t for t in ctx.inputs if t is not None and t.requires_grad), anchor)
        with torch.no_grad():
            gradients = ctx.node.gradients(ctx, *cotangents)
        if anchor is not None:
            gradients = tuple(None if g is None else last_derivative(g, anchor, message=ONCE) for g in gradients)
        return ctx.skipped + gradients

    @classmethod
    def remember(cls, ctx: Any, solution: Solution, *inputs: torch.Tensor | None, skipped: int = 1) -> None:
        """Keep what the backward pass reads; `skipped` arguments before the inputs have no gradient."""
        ctx.node, ctx.solution, ctx.inputs, ctx.skipped = cls, solution, inputs, (None,) * skipped
        ctx.versions = [version(t) for t in inputs]
        ctx.set_materialize_grads(False)


def explicit(
    solution: Solution,
    pulled: tuple[torch.Tensor, ...] | None,
    scale: torch.Tensor | float,
    by_a: torch.Tensor | None,
    by_b: torch.Tensor | None,
    by_epsilon: torch.Tensor | None,
) -> Gradients:
    """Gradients in x, y, matrix, a, b, ε, where that in the costs is `scale` times what was pulled."""
    x = y = matrix = None
    if pulled is not None:
        pulled = tuple(part.mul_(scale) for part in pulled)
        if solution.kernel.points is not None:
            x, y = pulled
        else:
            (matrix,) = pulled
    return x, y, matrix, by_a, by_b, by_epsilon


def wants_costs(ctx: Any) -> bool:
    """Whether a gradient in x, y or the matrix is asked for."""
    return any(ctx.needs_input_grad[len(ctx.skipped) : len(ctx.skipped) + 3])


def wants_epsilon(ctx: Any) -> bool:
    """Whether the gradient in ε is asked for."""
    return bool(ctx.needs_input_grad[len(ctx.skipped) + 5])


def by_weights(ctx: Any, by_a: torch.Tensor, by_b: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients in the weights, where they are asked for; they may be beyond all numbers at weights of zero."""
    found: list[torch.Tensor | None] = []
    for i, (name, value) in enumerate((("a", by_a), ("b", by_b))):
        wanted = ctx.needs_input_grad[len(ctx.skipped) + 3 + i]
        if wanted and not bool(torch.isfinite(value).all()):
            mask = "mask_x" if name == "a" else "mask_y"
            raise RuntimeError(
                f"sinkhorn: the gradient in `{name}` is beyond the range of {str(value.dtype)[6:]}, at a point of "
                f"weight zero that would draw mass from beyond reach. Leave it out with {mask}=, or give it a weight."
            )
        found.append(value if wanted else None)
    return found[0], found[1]


def by_epsilon(
    solution: Solution, rows: torch.Tensor, columns: torch.Tensor, left: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """`Σ W_ij (f_i + g_j − C_ij)/ε²`, `W_ij = P_ij Σ_e left_ie right_je` with the sums `rows`, `columns`."""
    total = (rows.double() * solution.f).sum() + (columns.double() * solution.g).sum()
    total = total - solution.moment(left, right).sum()
    return (total / solution.epsilon**2).to(rows.dtype)


class Potentials(Node):
    """The potentials f, g, with implicit gradients."""

    @staticmethod
    def forward(
        ctx: Any, solution: Solution, method: str, *inputs: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep the solution."""
        Potentials.remember(ctx, solution, *inputs, skipped=2)
        ctx.method = method
        dtype = solution.a.dtype
        return solution.f.to(dtype), solution.g.to(dtype)

    @staticmethod
    def gradients(ctx: Any, by_f: torch.Tensor | None, by_g: torch.Tensor | None) -> Gradients:
        """Solve for the adjoint; see the head of the file."""
        p: Solution = ctx.solution
        by_f = torch.zeros_like(p.a) if by_f is None else torch.where(p.a > 0, by_f, 0)
        by_g = torch.zeros_like(p.b) if by_g is None else torch.where(p.b > 0, by_g, 0)
        if p.rho is not None and out_of_scale(p, by_f, by_g):
            return from_shares(ctx, by_f, by_g)
        s, t = adjoint(p, p.epsilon * by_f, p.epsilon * by_g, ctx.method)
        one_a, one_b = torch.ones_like(p.a), torch.ones_like(p.b)
        left, right = torch.stack([s, one_a], -1), torch.stack([one_b, t], -1)
        pulled = p.pull(left, right) if wants_costs(ctx) else None
        rows_t, columns_s = p.times(t), p.transposed(s)
        epsilon = None
        if wants_epsilon(ctx):
            rows, columns = s * p.times(one_b) + rows_t, columns_s + t * p.transposed(one_a)
            epsilon = by_epsilon(p, rows, columns, left, right)
        a = -per_weight(p, rows_t, lambda item, _, share: share @ t[item].double())
        b = -per_weight(p, columns_s, lambda item, _, share: share @ s[item].double(), True)
        return explicit(p, pulled, 1 / p.epsilon, *by_weights(ctx, a, b), epsilon)


def adjoint(p: Solution, by_f: torch.Tensor, by_g: torch.Tensor, method: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve the system of the file's head for s and t."""
    stiff = 1.0 if p.rho is None else 1 + p.epsilon / p.rho
    rows = stiff * p.times(torch.ones_like(p.b))
    columns = stiff * p.transposed(torch.ones_like(p.a))
    system = System(
        p.times,
        p.transposed,
        lambda w: p.u.square() * p.kernel.squares(p.v.square() * w),
        rows,
        columns,
        p.rho is None,
        lambda: scaled(p.kernel.whole(), p.u, p.v),
    )
    right = by_f - p.times(system.inverse * by_g)
    s = system.direct(right) if method == "cholesky" else None
    if s is None:
        s, _ = system.solve(right, 1e-7 if p.a.dtype == torch.float32 else 1e-14, 1000)
    return s, system.inverse * (by_g - p.transposed(s))


def out_of_scale(p: Solution, by_f: torch.Tensor, by_g: torch.Tensor) -> bool:
    """Whether cotangents fall on rows or columns whose mass is nothing beside that of others: beyond reach."""
    for cotangent, mass in ((by_f, p.times(torch.ones_like(p.b))), (by_g, p.transposed(torch.ones_like(p.a)))):
        asked = cotangent.abs() / cotangent.abs().amax(-1, keepdim=True)  # NaN, so False below, where none is asked
        bare = (asked > 1e-20) & (mass < torch.finfo(mass.dtype).tiny)
        if look((bare | (asked * mass.amax(-1, keepdim=True) * SCALE > mass)).any()):
            return True
    return False


def from_shares(ctx: Any, by_f: torch.Tensor, by_g: torch.Tensor) -> Gradients:
    """Gradients through the potentials by shares W and V (see `settle`), which have no scale; float64, item by item.

    `f_i = −λ ε L_i`, `L_i = log Σ_j b_j exp((g_j − C_ij)/ε)`, so `∂f_i/∂C_ij = λ W_ij`, `∂f_i/∂g_j = −λ W_ij`,
    `∂f_i/∂b_j = −λ ε W_ij / b_j` and `∂f_i/∂ε = (λ/ε)(f_i + Σ_j W_ij (g_j − C_ij))`; g alike. The adjoint (y, z) solves
    `y + λ Vᵀ z = f̄`, `z + λ Wᵀ y = ḡ`.
    """
    p: Solution = ctx.solution
    assert p.rho is not None
    if max(p.kernel.shape[1:]) > DIRECT:
        raise RuntimeError(
            f"sinkhorn: potentials of points that are out of reach have a gradient only for clouds of up to {DIRECT} "
            "points. Take the gradient of the cost or of the plan, or leave such points out with a mask."
        )
    epsilon, damp = p.epsilon, p.rho / (p.rho + p.epsilon)
    whole = torch.zeros(p.kernel.shape, dtype=p.a.dtype, device=p.a.device)
    a, b = torch.zeros_like(p.a), torch.zeros_like(p.b)
    steep = torch.zeros((), dtype=torch.float64, device=p.a.device)
    for item in range(len(p.a)):
        f, g, weight_a, weight_b = p.f[item], p.g[item], p.a[item].double(), p.b[item].double()
        bar_f, bar_g = by_f[item].double(), by_g[item].double()
        w, v = both_shares(p.kernel, item, f / epsilon + weight_a.log(), g / epsilon + weight_b.log(), epsilon)
        matrix = (v.mT @ w.mT).mul_(-(damp**2))
        matrix.diagonal().add_(1.0)
        y = torch.linalg.solve(matrix, bar_f - damp * (v.mT @ bar_g))
        z = bar_g - damp * (w.mT @ y)
        by_w, by_v = y[:, None] * w, z * v.mT
        whole[item] = damp * (by_w + by_v)
        cost = p.kernel.block(slice(item, item + 1), slice(None))[0]
        slope = (
            torch.where(by_w == 0, 0.0, by_w * (g - cost)).sum()
            + torch.where(by_v == 0, 0.0, by_v * (f[:, None] - cost)).sum()
        )
        steep += damp / epsilon * ((y * f).sum() + (z * g).sum() + slope)
        # Per unit of weight, from the sums' exponents, as a weight of zero leaves none in V.
        reach_a = torch.exp((f[:, None] + g - cost) / epsilon + g / p.rho)
        reach_b = torch.exp((f[:, None] + g - cost) / epsilon + f[:, None] / p.rho)
        a[item] = (
            -damp
            * epsilon
            * torch.where(weight_a > 0, by_v.sum(1) / weight_a, torch.where(z == 0, 0.0, reach_a * z).sum(1))
        )
        b[item] = (
            -damp
            * epsilon
            * torch.where(
                weight_b > 0, by_w.sum(0) / weight_b, torch.where(y[:, None] == 0, 0.0, reach_b * y[:, None]).sum(0)
            )
        )
    if p.present_x is not None:
        a = torch.where(p.present_x, a, 0)
    if p.present_y is not None:
        b = torch.where(p.present_y, b, 0)
    pulled = p.kernel.gather(whole) if wants_costs(ctx) else None
    return explicit(p, pulled, 1.0, *by_weights(ctx, a, b), steep.to(p.a.dtype) if wants_epsilon(ctx) else None)


def per_weight(
    p: Solution,
    product: torch.Tensor,
    value: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
    transposed: bool = False,
) -> torch.Tensor:
    """Divide sums (B, N) of terms `a_i b_j e_ij ·` by a; where that is 0, take `value(item, i, b_j e_ij)` instead."""
    weight, present = (p.b, p.present_y) if transposed else (p.a, p.present_x)
    bare = (weight <= 0) if present is None else (weight <= 0) & present
    result = torch.where(weight > 0, product / torch.where(weight > 0, weight, 1), 0)
    for item in bare.any(-1).nonzero()[:, 0].tolist():
        for index in bare[item].nonzero()[:, 0].split(256):
            # Exponents are bounded, since the potentials fit them.
            result[item, index] = value(item, index, shares(p, item, index, transposed)).to(result.dtype)
    return result


def shares(p: Solution, item: int, index: torch.Tensor, transposed: bool) -> torch.Tensor:
    """`b_j e_ij` for some i and all j, float64."""
    potential, other, weight = (p.g, p.f, p.a) if transposed else (p.f, p.g, p.b)
    exponent = (potential[item, index, None] + other[item] - p.kernel.some(item, index, transposed)) / p.epsilon
    return torch.where(weight[item] > 0, exponent, -torch.inf).exp() * weight[item].double()


class Cost(Node):
    """The regularised cost, from the dual; its gradient is that of the dual at fixed potentials."""

    @staticmethod
    def forward(ctx: Any, solution: Solution, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Keep the solution."""
        Cost.remember(ctx, solution, *inputs)
        p = solution
        a, b = p.a.double(), p.b.double()
        mass = a.sum(-1) * b.sum(-1)
        if p.rho is None:
            value = (a * p.f).sum(-1) + (b * p.g).sum(-1)
        else:
            rho = p.rho
            pairs = ((a, p.f), (b, p.g))  # where there is no weight, its factor may be infinite
            value = sum(
                (torch.where(w > 0, -rho * w * torch.expm1(-t / rho), 0.0).sum(-1) for w, t in pairs),
                p.total.new_zeros(()),
            )
        return (value - p.epsilon * (p.total - mass)).to(p.a.dtype)

    @staticmethod
    def gradients(ctx: Any, cotangent: torch.Tensor) -> Gradients:
        """P for the costs, f for a (up to a constant, which the normalisation takes out), KL for ε."""
        p: Solution = ctx.solution
        dtype, a, b = p.a.dtype, p.a.double(), p.b.double()
        left = cotangent[:, None, None].expand(*p.a.shape, 1)
        right = torch.ones_like(p.b)[..., None]
        pulled = p.pull(left, right) if wants_costs(ctx) else None
        if p.rho is None:
            by_a, by_b = p.f, p.g
        else:
            rho, epsilon = p.rho, p.epsilon
            by_a = -rho * torch.expm1(-p.f / rho) - epsilon * (torch.exp(-p.f / rho) - b.sum(-1, keepdim=True))
            by_b = -rho * torch.expm1(-p.g / rho) - epsilon * (torch.exp(-p.g / rho) - a.sum(-1, keepdim=True))
        by_a, by_b = ((g * cotangent[:, None]).to(dtype) for g in (by_a, by_b))
        epsilon_part = None
        if wants_epsilon(ctx):
            one_a = left[..., 0] * p.times(right[..., 0])
            one_b = p.transposed(left[..., 0])
            divergence = p.epsilon * by_epsilon(p, one_a, one_b, left, right).double()
            epsilon_part = (divergence - (cotangent * (p.total - a.sum(-1) * b.sum(-1))).sum()).to(dtype)
        return explicit(p, pulled, 1.0, *by_weights(ctx, by_a, by_b), epsilon_part)


class TransportCost(Node):
    """`⟨P, C⟩`."""

    @staticmethod
    def forward(ctx: Any, solution: Solution, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Keep the solution."""
        TransportCost.remember(ctx, solution, *inputs)
        left, right = torch.ones_like(solution.a)[..., None], torch.ones_like(solution.b)[..., None]
        return solution.moment(left, right).to(solution.a.dtype)

    @staticmethod
    def gradients(ctx: Any, cotangent: torch.Tensor) -> Gradients:
        """With W = P C: `C̄ = P − W/ε`, f̄ and ḡ the sums of W/ε."""
        p: Solution = ctx.solution
        left = p.u * cotangent[:, None]
        rows, columns, second, steep = p.kernel.steepened(left, p.v)
        flat = p.pull(cotangent[:, None, None].expand(*p.a.shape, 1), torch.ones_like(p.b)[..., None])
        pulled = tuple(f.sub_(s, alpha=1 / p.epsilon) for f, s in zip(flat, steep, strict=True))
        epsilon = None
        if wants_epsilon(ctx):
            total = (rows.double() * p.f).sum() + (columns.double() * p.g).sum()
            epsilon = -((total - second) / p.epsilon**2).to(p.a.dtype)

        def mean(transposed: bool) -> Callable[..., torch.Tensor]:
            return lambda item, i, share: (
                cotangent[item] * torch.where(share > 0, share * p.kernel.some(item, i, transposed), 0).sum(-1)
            )

        a, b = per_weight(p, rows, mean(False)), per_weight(p, columns, mean(True), True)
        return *explicit(p, pulled, 1.0, *by_weights(ctx, a, b), epsilon), rows / p.epsilon, columns / p.epsilon


class Product(Node):
    """`P v` for v (B, M, E), or `Pᵀ v` for v (B, N, E)."""

    @staticmethod
    def forward(ctx: Any, solution: Solution, transposed: bool, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Keep the solution."""
        Product.remember(ctx, solution, *inputs, skipped=2)
        v = inputs[-1]
        assert v is not None
        ctx.transposed = transposed
        ctx.result = solution.transposed(v.detach()) if transposed else solution.times(v.detach())
        return ctx.result.clone()

    @staticmethod
    def gradients(ctx: Any, cotangent: torch.Tensor) -> Gradients:
        """With W_ij = P_ij Σ_e l_ie r_je: `C̄ = −W/ε`, ā, f̄ from its rows, b̄, ḡ from its columns."""
        p: Solution = ctx.solution
        v = ctx.inputs[-1].detach()
        by_v = p.times(cotangent) if ctx.transposed else p.transposed(cotangent)
        left, right = (v, cotangent) if ctx.transposed else (cotangent, v)
        rows, columns = (cotangent * ctx.result).sum(-1), (v * by_v).sum(-1)
        rows, columns = (columns, rows) if ctx.transposed else (rows, columns)
        pulled = p.pull(left, right) if wants_costs(ctx) else None
        epsilon = -by_epsilon(p, rows, columns, left, right) if wants_epsilon(ctx) else None
        a = per_weight(p, rows, lambda item, i, share: ((share @ right[item].double()) * left[item, i]).sum(-1))
        b = per_weight(
            p, columns, lambda item, j, share: ((share @ left[item].double()) * right[item, j]).sum(-1), True
        )
        return (
            *explicit(p, pulled, -1 / p.epsilon, *by_weights(ctx, a, b), epsilon),
            rows / p.epsilon,
            columns / p.epsilon,
            by_v,
        )


class Plan(Node):
    """The dense plan."""

    @staticmethod
    def forward(ctx: Any, solution: Solution, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Keep the solution."""
        Plan.remember(ctx, solution, *inputs)
        return dense(solution)

    @staticmethod
    def gradients(ctx: Any, cotangent: torch.Tensor) -> Gradients:
        """With W = P P̄ as in `Product`."""
        p: Solution = ctx.solution
        kernel = p.kernel
        weight = dense(p).mul_(cotangent)
        rows, columns = weight.sum(-1), weight.sum(-2)
        epsilon = None
        if wants_epsilon(ctx):
            total = (rows.double() * p.f).sum() + (columns.double() * p.g).sum()
            for items, part in kernel.blocks():
                block = weight[items, part].double()
                total = total - torch.where(block == 0, 0.0, kernel.block(items, part)).mul_(block).sum()
            epsilon = -(total / p.epsilon**2).to(rows.dtype)
        pulled = kernel.gather(weight) if wants_costs(ctx) else None
        a = per_weight(p, rows, lambda item, i, share: (share * cotangent[item, i]).sum(-1))
        b = per_weight(p, columns, lambda item, j, share: (share * cotangent[item, :, j].mT).sum(-1), True)
        return (
            *explicit(p, pulled, -1 / p.epsilon, *by_weights(ctx, a, b), epsilon),
            rows / p.epsilon,
            columns / p.epsilon,
        )


def dense(p: Solution) -> torch.Tensor:
    """The plan (B, N, M)."""
    if isinstance(p.kernel, Stored):
        return p.kernel.value * p.u[..., None] * p.v[:, None]
    plan = torch.empty(p.kernel.shape, dtype=p.a.dtype, device=p.a.device)
    for items, rows in p.kernel.blocks():
        weight = p.kernel.weights(items, rows, p.kernel.block(items, rows))
        plan[items, rows] = weight.mul_(p.u[items, rows, None]).mul_(p.v[items, None])
    return plan
