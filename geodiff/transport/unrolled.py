# SPDX-License-Identifier: Apache-2.0
"""Sinkhorn as autograd sees it: all iterations recorded, to any order of derivatives."""

import torch

from geodiff.recording import look
from geodiff.reference.transport import pair_cost
from geodiff.transport.problem import Problem


class Unrolled:
    """Plain iterations with logarithms at the target ε."""

    def __init__(
        self,
        problem: Problem,
        start: tuple[torch.Tensor, torch.Tensor] | None,
        tolerance: float,
        limit: int,
    ) -> None:
        self.problem, self.tolerance = problem, tolerance
        a, b, epsilon, rho = problem.a, problem.b, problem.epsilon, problem.rho
        if problem.matrix is not None:
            self.costs = problem.matrix
        else:
            assert problem.x is not None and problem.y is not None
            self.costs = pair_cost(problem.x, problem.y, problem.p)
        self.log_a, self.log_b = (torch.where(w > 0, torch.where(w > 0, w, 1).log(), -torch.inf) for w in (a, b))
        damp = 1.0 if rho is None else rho / (rho + epsilon)
        scaled = -self.costs / epsilon
        f, g = (torch.zeros_like(a), torch.zeros_like(b)) if start is None else (t.to(a.dtype) for t in start)
        self.iterations = 0
        while self.iterations < limit:
            self.iterations += 1
            f = -damp * epsilon * log_sum(scaled + (self.log_b + g / epsilon)[:, None], -1)
            g = -damp * epsilon * log_sum(scaled + (self.log_a + f / epsilon)[..., None], -2)
            with torch.no_grad():
                target = a if rho is None else a * torch.exp(-f / rho)
                sums = a * torch.exp(f / epsilon + log_sum(scaled + (self.log_b + g / epsilon)[:, None], -1))
                self.error = (sums - target).abs().sum(-1, dtype=torch.float64)
                if look(self.error.amax()) <= tolerance:
                    break
        self.f, self.g = f, g
        with torch.no_grad():  # of the plan that is handed out, columns too
            plan, shrink = self.plan(), (lambda t: 1.0) if rho is None else (lambda t: torch.exp(-t.double() / rho))
            sides = ((plan.sum(-1, dtype=torch.float64), a, f), (plan.sum(-2, dtype=torch.float64), b, g))
            gaps = [torch.where(w > 0, s - w.double() * shrink(t), 0.0).abs().sum(-1) for s, w, t in sides]
            self.error = torch.maximum(*gaps).nan_to_num(nan=torch.inf, posinf=torch.inf)
        mass = a.sum(-1) * b.sum(-1)
        if rho is None:
            value = (a * f).sum(-1) + (b * g).sum(-1)
        else:
            value = -rho * ((a * torch.expm1(-f / rho)).sum(-1) + (b * torch.expm1(-g / rho)).sum(-1))
        self.cost = value - epsilon * (self.plan().sum((-1, -2)) - mass)

    def potentials(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Potentials in float64, without gradient."""
        return self.f.detach().double(), self.g.detach().double()

    def plan(self) -> torch.Tensor:
        """The plan (B, N, M)."""
        exponent = (self.f[..., None] + self.g[:, None] - self.costs) / self.problem.epsilon
        both = (self.problem.a > 0)[..., None] & (self.problem.b > 0)[:, None]
        exponent = torch.where(both, exponent, -torch.inf)
        return self.problem.a[..., None] * self.problem.b[:, None] * exponent.exp()

    def times(self, v: torch.Tensor, transposed: bool) -> torch.Tensor:
        """The plan, or the transposed one, times v."""
        plan = self.plan()
        return (plan.mT if transposed else plan) @ v

    def transport_cost(self) -> torch.Tensor:
        """`⟨P, C⟩` (B,)."""
        return (self.plan() * torch.where(torch.isfinite(self.costs), self.costs, 0)).sum((-1, -2))


def log_sum(value: torch.Tensor, axis: int) -> torch.Tensor:
    """`log Σ exp`, whose gradient is 0 rather than NaN for terms of −infinity."""
    return torch.logsumexp(value, axis)
