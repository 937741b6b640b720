# SPDX-License-Identifier: Apache-2.0
"""The end of Sinkhorn's iterations: the plan as it is handed out is measured, and mended where that shows more to do.

Where marginals are free, `f = −λ ε log Σ_j b_j exp((g_j − C_ij)/ε)` with `λ = ρ/(ρ + ε)`, and g alike. Mass far beyond
reach underflows in the plan, while its potentials are numbers like others; so here they are found from logarithms
alone: `W_ij`, the terms of that sum as shares of it, and `V_ji`, those of the other, have no scale.
"""

import torch

from geodiff.recording import look
from geodiff.transport.costs import DIRECT, Kernel, Stored
from geodiff.transport.solver import CHECK, Iteration, finish, levels

STEPS = (1.0, 0.3, 0.1)
"""Parts of a Newton step that are tried."""
PLAIN = 4
"""Plain iterations before a Newton step."""


def settle(state: Iteration, tolerance: float, limit: int, diameter: float) -> torch.Tensor:
    """Bring the plan that is handed out within the tolerance, as far as `limit` goes; return its error (B,)."""
    error, gap = measured(state), torch.zeros((), dtype=torch.float64, device="cpu")
    if state.faint() or (state.rho is not None and look(error.amax()) > tolerance and state.count < limit):
        limit = max(limit, state.count + PLAIN)
        gap = _fixed_point(state, tolerance, limit, diameter)
        error = measured(state)
    for part in (0.5, 0.1):
        # What the working precision summed up is not quite what there is.
        if state.count >= limit or look(error.amax()) <= tolerance:
            break
        if isinstance(state.kernel, Stored):
            _rescale(state, min(limit, state.count + 2 * CHECK))
        else:
            state.kernel.widen()
            state.absorb_again()
            finish(state, part * tolerance, min(limit, state.count + 20 * CHECK))
        error = measured(state)
    return torch.maximum(error, gap)


def _rescale(state: Iteration, limit: int) -> None:
    """Plain iterations on a stored kernel whose sums are added up in double precision."""
    while state.count < limit:
        state.sums = state.kernel.sums(state.u, state.v)[0].to(state.a.dtype)
        state.u = state.scale_rows(state.sums)
        state.fold()
        columns = state.kernel.sums(state.u, state.v)[1].to(state.a.dtype)
        state.v = state.scale_columns(columns)
        state.fold()
        state.count += 1
    state.sums = state.kernel.sums(state.u, state.v)[0].to(state.a.dtype)


def measured(state: Iteration) -> torch.Tensor:
    """The larger L1 distance (B,) of the sums of rows and of columns from what they are to be, in double precision."""
    state.fold()
    rows, columns = state.kernel.sums(state.u, state.v)
    worst = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    sides = ((rows, state.a, state.potential(), state.on_a), (columns, state.b, state.other(), state.on_b))
    for sums, weight, potential, on in sides:
        target = weight.double()
        if state.rho is not None:
            target = target * torch.exp(-(state.epsilon / state.rho) * potential)
        worst = torch.maximum(worst, torch.where(on, sums - target, 0.0).abs().sum(-1))
    return worst.nan_to_num(nan=torch.inf, posinf=torch.inf)


class _Sums:
    """Both halves of an iteration with logarithms, potentials in units of ε."""

    def __init__(self, state: Iteration, epsilon: float) -> None:
        assert state.rho is not None
        self.state, self.kernel, self.epsilon = state, state.kernel, epsilon
        self.damp = state.rho / (state.rho + epsilon)

    def columns(self, f: torch.Tensor) -> torch.Tensor:
        """The potentials of the columns that fit f."""
        g = -self.damp * self.kernel.lse_columns(f + self.state.log_a, self.epsilon)
        return g.where(self.state.on_b, 0.0)

    def rows(self, g: torch.Tensor) -> torch.Tensor:
        """The potentials of the rows that fit g."""
        f = -self.damp * self.kernel.lse_rows(g + self.state.log_b, self.epsilon)
        return f.where(self.state.on_a, 0.0)

    def both(self, f: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The potentials of the columns that fit f, and those of the rows that fit these."""
        self.state.count += 1
        g = self.columns(f)
        return g, self.rows(g)


def _fixed_point(state: Iteration, tolerance: float, limit: int, diameter: float) -> torch.Tensor:
    """Iterate with logarithms, and by Newton's method on them where sizes allow, from the potentials of the state.

    Returns how far in units of ε the potentials still move (B,), 0 where they have settled.
    """
    state.kernel.widen()
    f, target = state.potential(), state.epsilon
    sound = look(torch.isfinite(f).all())
    f = torch.where(torch.isfinite(f) & state.on_a, f, 0.0)
    before = target
    for epsilon in [target] if sound else levels(target, diameter):
        sums, f = _Sums(state, epsilon), f * (before / epsilon)
        before, last = epsilon, epsilon == target
        f, gap = _iterate(sums, f, tolerance if last else 1e-3, limit if last else min(limit, state.count + 50))
    state.f, state.g = f, sums.columns(f)
    state.absorb_again(fresh=False)
    return gap


def _iterate(sums: _Sums, f: torch.Tensor, tolerance: float, limit: int) -> tuple[torch.Tensor, torch.Tensor]:
    state = sums.state
    g, after = sums.both(f)
    small, count = max(state.kernel.shape[1:]) <= DIRECT, 0
    while True:
        gap = (after - f).abs().amax(-1).nan_to_num(nan=torch.inf)
        # Potentials resolve no more than their own rounding.
        goal = (8 * torch.finfo(torch.float64).eps * f.abs().amax(-1)).clamp(min=0.1 * tolerance)
        if look((gap <= goal).all()) or state.count >= limit:
            return after, torch.where(gap > goal, gap, 0.0)
        count += 1
        if small and count % PLAIN == 0:
            f, g, after = _newton(sums, f, g, after, gap > goal)
        else:
            f = after
            g, after = sums.both(f)


def _newton(
    sums: _Sums, f: torch.Tensor, g: torch.Tensor, after: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One step towards `T(f) = f`, T both halves of an iteration, whose derivative is `λ² W V`."""
    state, move = sums.state, torch.zeros_like(f)
    for item in wanted.nonzero()[:, 0].tolist():
        w, v = shares(state.kernel, item, f[item] + state.log_a[item], g[item] + state.log_b[item], sums.epsilon)
        matrix = (w @ v).mul_(-(sums.damp**2))
        matrix.diagonal().add_(1.0)
        solved, info = torch.linalg.solve_ex(matrix, (after - f)[item])
        if not bool(info):
            move[item] = torch.where(state.on_a[item] & torch.isfinite(solved), solved, 0.0)
    best, best_g, best_after = after, *sums.both(after)
    size = (best_after - best).abs().amax(-1, keepdim=True)
    for step in STEPS:
        trial = f + step * move
        trial_g, trial_after = sums.both(trial)
        now = (trial_after - trial).abs().amax(-1, keepdim=True)
        better = now < size
        best, best_g, best_after = (
            torch.where(better, new, old) for new, old in ((trial, best), (trial_g, best_g), (trial_after, best_after))
        )
        size = torch.minimum(size, now)
        if bool(better[wanted].all()):
            break
    return best, best_g, best_after


def shares(
    kernel: Kernel, item: int, k: torch.Tensor, h: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`W_ij = exp(h_j − C_ij/ε) / Σ_j` (N, M) and `V_ji = exp(k_i − C_ij/ε) / Σ_i` (M, N) of one item, float64."""
    scaled = kernel.block(slice(item, item + 1), slice(None))[0].mul_(-1 / epsilon)
    w = torch.softmax(scaled + h, -1)
    v = torch.softmax(scaled.add_(k[:, None]), 0).mT
    return w.nan_to_num_(nan=0.0), v.nan_to_num_(nan=0.0)  # no term at all: a row of weight zero, all pairs forbidden
