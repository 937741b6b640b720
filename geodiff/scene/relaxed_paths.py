# SPDX-License-Identifier: Apache-2.0
"""Distances in graphs by relaxed Bellman–Ford iterations: the minimum over neighbours is a soft one."""

import math
from typing import Any

import torch

from geodiff.soft.special import last_derivative
from geodiff.validation import fail

TOLERANCE = 1e-13  # of the largest distance, below which a step is rounding
LOW = 10  # sizes below zero, from where logsumexp, which falls by as much in each step then, does not come back
MOST = 100_000  # steps; a limit that exists is reached long before

OPERATORS = ("expected", "logsumexp")
_ONCE = "graph_distance: with beta, gradients are of first order only; a second derivative was asked for."


class _Step:
    """One iteration, `d_v ← softmin over neighbours u of d_u + w_uv`, 0 at the sources."""

    def __init__(self, edges: torch.Tensor, held: torch.Tensor, beta: float, operator: str) -> None:
        self.tail, self.head = torch.cat([edges, edges.flip(1)]).unbind(1)
        self.held, self.beta, self.operator = held, beta, operator

    def __call__(self, away: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        ways = away.index_select(0, self.tail) + torch.cat([lengths, lengths])
        least = away.new_full(away.shape, torch.inf).scatter_reduce(0, self.head, ways.detach(), "amin")
        share = (-self.beta * (ways - least.index_select(0, self.head))).exp()
        total = away.new_zeros(away.shape).index_add(0, self.head, share)
        if self.operator == "expected":
            relaxed = away.new_zeros(away.shape).index_add(0, self.head, share * ways) / total
        else:
            relaxed = least - total.log() / self.beta
        return torch.where(self.held, 0.0, relaxed)


class _Limit(torch.autograd.Function):
    """The fixed point, whose gradient λ for one more step solves `λ = g + Jᵀ λ`."""

    @staticmethod
    def forward(
        ctx: Any, limit: torch.Tensor, stepped: torch.Tensor, lengths: torch.Tensor, step: _Step
    ) -> torch.Tensor:
        ctx.save_for_backward(limit, stepped, lengths)
        ctx.step = step
        return limit.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        limit, stepped, lengths = ctx.saved_tensors
        with torch.enable_grad():
            at = limit.detach().requires_grad_()
            value = ctx.step(at, lengths.detach())
        adjoint = gradient.detach().clone()
        for _ in range(MOST):
            (back,) = torch.autograd.grad(value, at, adjoint, retain_graph=True)
            moved = gradient.detach() + back
            change = float((moved - adjoint).abs().max())
            adjoint = moved
            # No number becomes one in further steps.
            if change <= TOLERANCE * float(adjoint.abs().max()) or not math.isfinite(change):
                break
        return None, last_derivative(adjoint, stepped, gradient, message=_ONCE), None, None


def relaxed(
    where: str,
    edges: torch.Tensor,
    lengths: torch.Tensor,
    exact: torch.Tensor,
    held: torch.Tensor,
    beta: float,
    kind: str,
) -> torch.Tensor:
    """Return the limit of the iterations from the exact distances.

    Args:
        where: the public function, for messages.
        edges: (E, 2), of nodes that are reached.
        lengths: (E,) float64.
        exact: (N,) distances.
        held: (N,) which nodes are 0: the sources and what no way leads to.
        beta: of the soft minimum.
        kind: one of `OPERATORS`.

    Raises:
        ValueError: no limit.
    """
    step = _Step(edges, held, beta, kind)
    with torch.no_grad():
        limit = torch.where(held, 0.0, exact)
        size = float(limit.max()) + float(lengths.max()) if len(lengths) else 0.0
        for _ in range(MOST):
            moved = step(limit, lengths)
            change = float((moved - limit).abs().max())
            limit = moved
            if change <= TOLERANCE * size:
                break
            if not float(limit.min()) >= -LOW * size:
                change = torch.inf
                break
        if not change <= 1e-9 * size:
            fix = 'Ways that go to and fro count, too: raise beta, or use operator="expected".'
            raise fail(where, "beta", "such that the relaxed distances have a limit", f"{beta:g} without one", fix)
    return _Limit.apply(limit, step(limit, lengths), lengths, step)
