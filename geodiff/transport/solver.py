# SPDX-License-Identifier: Apache-2.0
"""The iterations of Sinkhorn: annealing, scaling of an absorbed kernel, Newton steps; and the linear systems behind."""

import dataclasses
import math
from collections.abc import Callable

import torch

from geodiff.recording import look
from geodiff.transport.costs import Kernel, Stored, multiply

ANNEAL = 4.0
"""ε is divided by this from level to level of the annealing."""
ROUNDS = 4
"""Iterations at each level."""
ROUGH = (1e-2, 1e-4, 1e-6)
"""Error at which a level is left, as a part of the mass; the next one where the last level gets stuck."""
PATIENCE = 1000
"""Iterations at the last level before another try."""
STUCK = 1e-4
"""An error at the last level above this part of that of the others is worth another try."""
SAFE = 20.0
"""Scalings beyond exp(±SAFE) are absorbed into the kernel."""
CHECK = 5
"""Iterations between looks at the error."""
FAINT = 9.0
"""Where marginals are free, f/ρ above which a point's potential is found with logarithms."""
GONE = {torch.float32: 50.0, torch.float64: 500.0}
"""Where marginals are free, f/ρ above which a point's mass `a exp(−f/ρ)` counts for nothing."""


@dataclasses.dataclass
class Solution:
    """Where the iterations ended: the plan is `u_i K_ij v_j`."""

    kernel: Kernel
    a: torch.Tensor  # (B, N) weights in the working precision, 0 where masked
    b: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor
    f: torch.Tensor  # (B, N) potentials, float64, at points of weight 0 too
    g: torch.Tensor
    rho: float | None
    error: torch.Tensor  # (B,) float64
    iterations: int
    total: torch.Tensor  # (B,) mass of the plan
    present_x: torch.Tensor | None = None  # (B, N) bool: False where there is no point at all
    present_y: torch.Tensor | None = None

    @property
    def epsilon(self) -> float:
        """ε that the kernel was made with."""
        return self.kernel.epsilon

    def times(self, t: torch.Tensor) -> torch.Tensor:
        """`P t` for t (B, M) or (B, M, E)."""
        if t.dim() == 3:
            return self.u[..., None] * self.kernel.rows(self.v[..., None] * t)
        return self.u * self.kernel.rows(self.v * t)

    def transposed(self, s: torch.Tensor) -> torch.Tensor:
        """`Pᵀ s` for s (B, N) or (B, N, E)."""
        if s.dim() == 3:
            return self.v[..., None] * self.kernel.columns(self.u[..., None] * s)
        return self.v * self.kernel.columns(self.u * s)

    def pull(self, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gradients of `Σ W_ij C_ij`, `W_ij = P_ij Σ_e left_ie right_je`, in x and y, or in the matrix."""
        return self.kernel.pull(left * self.u[..., None], right * self.v[..., None])

    def moment(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        """`Σ_ij P_ij C_ij Σ_e left_ie right_je` (B,)."""
        return self.kernel.moments(left * self.u[..., None], right * self.v[..., None])


class Iteration:
    """Potentials in units of ε (float64), the kernel they were absorbed into, scalings since then."""

    def __init__(self, kernel: Kernel, a: torch.Tensor, b: torch.Tensor, rho: float | None, symmetric: bool) -> None:
        self.kernel, self.rho, self.symmetric = kernel, rho, symmetric
        self.log_a, self.log_b = a.double().log(), b.double().log()
        self.a, self.b = a, b
        self.on_a, self.on_b = a > 0, b > 0
        self.count = 0

    def begin(self, f: torch.Tensor, g: torch.Tensor, epsilon: float, exact: bool) -> None:
        """Absorb potentials f, g (B, N), (B, M) at ε."""
        self.epsilon = epsilon
        self.f, self.g = f, g  # in units of ε from here on
        self.f, self.g = f / epsilon, g / epsilon
        self.exact = exact
        self._absorb()

    def _absorb(self) -> None:
        u, v = self.kernel.absorb(self.f + self.log_a, self.g + self.log_b, self.epsilon, self.exact)
        self.u, self.v = torch.where(self.on_a, u, 0), torch.where(self.on_b, v, 0)
        # From the exponents as they were rounded:
        self.f = self.f - self.u.double().log().where(self.on_a, 0.0)
        self.g = self.g - self.v.double().log().where(self.on_b, 0.0)
        if self.rho is not None:
            # f ← λ (f − log of the row's sum over a), λ = ρ/(ρ + ε), turns into u ← (a/r)^λ exp(−(1−λ) f₀).
            self.power = self.rho / (self.rho + self.epsilon)
            self.base_a = torch.exp(-(1 - self.power) * self.f).to(self.a.dtype)
            self.base_b = torch.exp(-(1 - self.power) * self.g).to(self.a.dtype)
            # Far beyond reach, mass underflows; it moves nothing, and its scaling is held until the end.
            gone = GONE[self.a.dtype] * self.rho / self.epsilon
            self.held_a, self.held_b = self.on_a & ~(self.f < gone), self.on_b & ~(self.g < gone)
        self.sums = self.kernel.rows(self.v)

    def scale_rows(self, sums: torch.Tensor) -> torch.Tensor:
        """Scaling of the rows that fits their sums `K v`."""
        ratio = _ratio(self.a, sums, self.on_a)
        return ratio if self.rho is None else torch.where(self.held_a, self.u, ratio**self.power * self.base_a)

    def scale_columns(self, sums: torch.Tensor) -> torch.Tensor:
        """Scaling of the columns that fits their sums `Kᵀ u`."""
        ratio = _ratio(self.b, sums, self.on_b)
        return ratio if self.rho is None else torch.where(self.held_b, self.v, ratio**self.power * self.base_b)

    def close(self) -> None:
        """Fit the columns to u, and find the sums of the rows."""
        self.v = self.u if self.symmetric else self.scale_columns(self.kernel.columns(self.u))
        self.sums = self.kernel.rows(self.v)
        self.count += 1

    def step(self) -> None:
        """One plain iteration; of a symmetric problem, one averaged with the identity."""
        scaled = self.scale_rows(self.sums)
        self.u = (self.u * scaled).sqrt() if self.symmetric else scaled
        self.close()

    def target(self) -> torch.Tensor:
        """What the sums of the rows of the plan are to be: a, or `a exp(−f/ρ)`."""
        if self.rho is None:
            return self.a
        shrink = torch.exp(-(self.epsilon / self.rho) * self.potential()).to(self.a.dtype)
        return torch.where(self.on_a, self.a * shrink, 0)

    def error(self) -> torch.Tensor:
        """L1 distance (B,) of the sums of the rows from their target; those of the columns have no error."""
        gap = (self.u * self.sums - self.target()).abs()
        if self.rho is not None:
            gap = torch.where(self.held_a, 0, gap)
        return gap.sum(-1, dtype=torch.float64).nan_to_num(nan=torch.inf, posinf=torch.inf)

    def faint(self) -> bool:
        """Whether the plan leaves out nearly all of some point, so that its marginal says little of its potential."""
        if self.rho is None:
            return False
        least = FAINT * self.rho / self.epsilon
        sides = ((self.potential(), self.on_a), (self.other(), self.on_b))
        return any(look((on & ~(potential < least)).any()) for potential, on in sides)

    def dual(self) -> torch.Tensor:
        """The dual (B,) of problems whose marginals are kept, in units of ε and up to a constant; else none."""
        if self.rho is not None:
            return torch.full_like(self.a[:, 0], -torch.inf, dtype=torch.float64)
        parts = ((self.a, self.potential(), self.on_a), (self.b, self.other(), self.on_b))
        return sum((torch.where(on, w.double() * t, 0.0).sum(-1) for w, t, on in parts), torch.zeros((), device="cpu"))

    def potential(self) -> torch.Tensor:
        """Potentials of the rows in units of ε."""
        return self.f + self.u.double().log().where(self.on_a, 0.0)

    def other(self) -> torch.Tensor:
        """Potentials of the columns in units of ε."""
        return self.g + self.v.double().log().where(self.on_b, 0.0)

    def _look(self, *more: torch.Tensor) -> list[float]:
        """Whether all scalings are far from under- and overflow, whether some have grown, and more: one look."""
        low, high = (1e-20, 1e20) if self.a.dtype == torch.float32 else (1e-100, 1e100)
        fine = torch.isfinite(self.sums).all()
        for scaling, on in ((self.u, self.on_a), (self.v, self.on_b)):
            fine &= ~(on & ~((scaling > low) & (scaling < high))).any()
        grown = ((self.potential() - self.f).abs().max() > SAFE) | ((self.other() - self.g).abs().max() > SAFE)
        found: list[float] = look(torch.stack((fine, grown, *more)))
        return found

    def keep_safe(self) -> None:
        """Absorb scalings that have grown; after underflow go back and take a step with logarithms instead."""
        self._mend(*self._look())

    def safe(self, numbers: Callable[[], list[torch.Tensor]]) -> list[float]:
        """Do that, and return what numbers of the state are after it: mostly at one look."""
        healthy, has_grown, *found = self._look(*numbers())
        if self._mend(healthy, has_grown):
            found = look(torch.stack(numbers()))
        return found

    def _mend(self, healthy: float, has_grown: float) -> bool:
        if not healthy:
            self.rescue()
        elif has_grown:
            self.absorb_again()
        return not healthy or bool(has_grown)

    def absorb_again(self, fresh: bool = True) -> None:
        """Absorb the potentials: those of the scalings too, unless `fresh` is False and they are given."""
        if fresh:
            self.f, self.g = self.potential(), self.other()
        self._absorb()

    def fold(self) -> None:
        """Multiply a stored kernel by the scalings."""
        if not isinstance(self.kernel, Stored):
            return
        f, g = self.potential(), self.other()
        self.kernel.fold(self.u, self.v)
        self.sums = self.u * self.sums
        self.u, self.v = self.on_a.to(self.a.dtype), self.on_b.to(self.a.dtype)
        if self.rho is not None:
            self.base_a = torch.exp(-(1 - self.power) * f).to(self.a.dtype)
            self.base_b = torch.exp(-(1 - self.power) * g).to(self.a.dtype)
        self.f, self.g = f, g

    def rescue(self) -> None:
        """Fit columns and rows to the absorbed potentials with logarithms, which cannot underflow."""
        damp = 1.0 if self.rho is None else self.rho / (self.rho + self.epsilon)
        for _ in range(2):
            f = -damp * self.kernel.lse_rows(self.g + self.log_b, self.epsilon)
            self.f = f.where(self.on_a, 0.0)
            g = self.f if self.symmetric else -damp * self.kernel.lse_columns(self.f + self.log_a, self.epsilon)
            self.g = g.where(self.on_b, 0.0)
        self.count += 2
        self._absorb()


def _ratio(weight: torch.Tensor, sums: torch.Tensor, on: torch.Tensor) -> torch.Tensor:
    """`weight / sums` where there is a weight; some number where the sum is none, which `healthy` notices."""
    sums = sums.nan_to_num(nan=torch.inf, posinf=torch.inf)
    return torch.where(on, weight / sums.clamp_min(torch.finfo(sums.dtype).tiny * 1e3), 0)


def solve(
    kernel: Kernel,
    a: torch.Tensor,
    b: torch.Tensor,
    epsilon: float,
    rho: float | None,
    diameter: float,
    offset: torch.Tensor,
    tolerance: float,
    limit: int,
    start: tuple[torch.Tensor, torch.Tensor] | None = None,
    symmetric: bool = False,
) -> Iteration:
    """Find the potentials: from those of `start`, or by annealing from the diameter.

    Args:
        kernel: costs of B problems.
        a: weights (B, N), 0 where there is no point.
        b: weights (B, M).
        epsilon: ε.
        rho: strength of the marginals, None where they are kept exactly.
        diameter: a bound of the differences of costs.
        offset: the least cost (B,), about.
        tolerance: of the L1 error of the marginals.
        limit: of the iterations, those of linear systems included.
        start: potentials (B, N), (B, M), float64.
        symmetric: x and y, a and b are the same.
    """
    state = Iteration(kernel, a, b, rho, symmetric)
    if start is not None:
        state.begin(*start, epsilon, True)
        state.rescue()
        if look(state.error().amax()) > 0.5 * look(a.sum(-1).amax()):
            start = None  # worse than none
    if start is not None:
        kernel.release()
        finish(state, tolerance, limit)
        return state
    lightest = look(a.sum(-1).amin())
    for rough in ROUGH:
        f = (offset[:, None] * (0.5 if symmetric else 1)).double().expand(a.shape)
        g = f if symmetric else torch.zeros_like(b, dtype=torch.float64)
        for level in levels(epsilon, diameter):
            state.begin(f, g, level, level == epsilon)
            if level == epsilon:
                break
            for _ in range(min(ROUNDS, limit - state.count)):
                state.step()
            # Mass between far parts must be settled here: at a smaller ε they hardly see each other any more.
            finish(state, rough * lightest, min(limit, state.count + 300), safe=False)
            f, g = level * state.potential(), level * state.other()
        if rough != ROUGH[-1]:
            finish(state, tolerance, min(limit, state.count + PATIENCE))
            if state.count < limit and look(state.error().amax()) > max(tolerance, STUCK * rough):
                continue
        kernel.release()
        finish(state, tolerance, limit)
        if state.count >= limit and look(state.error().amax()) > look(a.sum(-1).amax()):
            state.rescue()  # no iteration was left for the last level
        break
    return state


def levels(epsilon: float, diameter: float) -> list[float]:
    """Sizes of ε from about the diameter down to the last."""
    count = max(0, math.ceil(math.log(max(diameter, epsilon) / epsilon) / math.log(ANNEAL)))
    return [epsilon * ANNEAL**i for i in range(count, 0, -1)] + [epsilon]


def finish(state: Iteration, tolerance: float, limit: int, safe: bool = True) -> None:
    """Iterate at the state's ε until the error is below the tolerance; where that is slow, by Newton's method."""
    if (look(state.error().amax()) if safe else state.safe(lambda: [state.error().amax()])[0]) <= tolerance:
        return
    errors = [torch.full_like(state.log_a[:, 0], torch.inf)] * 2  # before, and now

    def progress() -> list[torch.Tensor]:
        errors[1] = error = state.error()
        ratio = torch.where(error > tolerance, (error / errors[0]).clamp(1e-30, 1 - 1e-12), 0.0)
        return [error.amax(), ratio.amax()]

    patience, wait, best, stale, factored, failed = CHECK, 0, torch.inf, 0, False, 0
    while state.count < limit:
        for _ in range(min(patience, limit - state.count)):
            state.step()
        worst, slowest = state.safe(progress)
        if worst <= tolerance:
            return
        stale = 0 if worst < 0.9 * best else stale + 1
        best = min(best, worst)
        if stale > 200 or failed > 4:
            return  # as far as rounding lets it
        rate = slowest ** (1 / patience)
        errors[0] = errors[1]
        left = math.log(worst / tolerance) / -math.log(rate) if rate > 0 else 0.0
        wait -= 1
        if left > 4 * CHECK and wait < 0 and not state.symmetric and state.count < limit:
            if not _newton(state, tolerance, limit, factored):
                wait = 4 if factored else 0
                failed += 1
                factored = True  # from here on, where plans are small enough
            else:
                failed = 0
            errors[0] = state.error()
            if look(errors[0].amax()) <= tolerance:
                return


def _newton(state: Iteration, tolerance: float, limit: int, factored: bool) -> bool:
    """One step of Newton's method on the potentials of the rows, for all problems that it helps; whether it did."""
    error = state.error()
    worst = look(error.amax())
    target = state.target()
    sums = state.u * state.sums
    columns = state.v * state.kernel.columns(state.u)
    stiff = 0.0 if state.rho is None else state.epsilon / state.rho
    system = System(
        lambda t: state.u * state.kernel.rows(state.v * t),
        lambda s: state.v * state.kernel.columns(state.u * s),
        lambda w: state.u.square() * state.kernel.squares(state.v.square() * w),
        sums + stiff * target,
        columns * (1 + stiff),
        state.rho is None,
        lambda: scaled(state.kernel.whole(), state.u, state.v),
    )
    accuracy = max(min(0.1, worst**0.5), 0.3 * tolerance / worst)
    residual = torch.where((error > tolerance)[:, None], target - sums, 0)
    delta = system.direct(residual) if factored else None
    if delta is None:
        delta, steps = system.solve(residual, accuracy, min(200, limit - state.count))
        state.count += steps
    # Parts of a plan that hardly exchange anything may ask for very large steps; they do not hold up the others.
    delta = delta.clamp(-10, 10)
    u, v, old, helped = state.u, state.v, state.sums, torch.zeros_like(error, dtype=torch.bool)
    height, climb = state.dual(), (residual.double() * delta).sum(-1)
    best_u, best_v, best_sums = u, v, old
    for step in (1.0, 0.5, 0.2, 0.05, 0.01):
        state.u = u * (step * delta).exp()
        state.close()
        now = state.error()
        # Far from the solution the dual may grow while the error does not shrink; near to it, rounding hides growth.
        better = ((now < error) | (state.dual() > height + 0.1 * step * climb)) & torch.isfinite(now) & ~helped
        best_u, best_v, best_sums = (
            torch.where(better[:, None], new, kept)
            for new, kept in ((state.u, best_u), (state.v, best_v), (state.sums, best_sums))
        )
        helped |= better
        if look((helped | (error <= tolerance)).all()):
            break
    state.u, state.v, state.sums = best_u, best_v, best_sums
    state.keep_safe()
    helped &= (state.error() < 0.5 * error) | (state.dual() > height + 0.1 * climb)
    all_helped: bool = look((helped | ~(error > tolerance)).all())
    return all_helped


def solution(state: Iteration, error: torch.Tensor) -> Solution:
    """What is handed out, of an error that was measured on it."""
    kernel, epsilon = state.kernel, state.epsilon
    f, g = state.potential(), state.other()
    damp = 1.0 if state.rho is None else state.rho / (state.rho + epsilon)
    if not look(state.on_a.all()):
        f = torch.where(state.on_a, f, -damp * kernel.lse_rows(g + state.log_b, epsilon))
    if not look(state.on_b.all()):
        g = torch.where(state.on_b, g, -damp * kernel.lse_columns(f + state.log_a, epsilon))
    f, g = (torch.where(torch.isfinite(t), t, 0.0) for t in (f, g))  # nowhere to go from a point of weight 0
    u, v = state.u, state.v
    if isinstance(kernel, Stored):  # already part of it
        u, v = (torch.ones_like(w) for w in (u, v))
    total = (u * state.sums).sum(-1, dtype=torch.float64)
    return Solution(kernel, state.a, state.b, u, v, epsilon * f, epsilon * g, state.rho, error, state.count, total)


def scaled(kernel: torch.Tensor | None, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor | None:
    """`u_i K_ij v_j`."""
    if kernel is None or look((u == 1).all() & (v == 1).all()):
        return kernel
    return kernel * u[..., None] * v[:, None]


Map = Callable[[torch.Tensor], torch.Tensor]


class System:
    """`[diag(r) P; Pᵀ diag(c)] [s; t] = [·; ·]` after eliminating t, preconditioned conjugate gradients on batches."""

    def __init__(
        self,
        times: Map,
        transposed: Map,
        squares: Map,
        rows: torch.Tensor,
        columns: torch.Tensor,
        singular: bool,
        whole: Callable[[], torch.Tensor | None],
    ) -> None:
        self.times, self.transposed, self.whole = times, transposed, whole
        self.singular = singular
        self.rows = rows
        least = torch.finfo(rows.dtype).tiny  # mass below underflows
        self.inverse = torch.where(columns >= least, 1 / columns, 0)
        # The diagonal of the matrix left: near a permutation it says how fast the unknowns are coupled.
        diagonal = rows - squares(self.inverse)
        diagonal = torch.maximum(diagonal, 4 * torch.finfo(rows.dtype).eps * rows)
        self.precondition = torch.where(diagonal >= least, 1 / diagonal, 0)

    def matrix(self, s: torch.Tensor) -> torch.Tensor:
        """Apply `diag(r) − P diag(1/c) Pᵀ`."""
        return self.rows * s - self.times(self.inverse * self.transposed(s))

    def project(self, residual: torch.Tensor) -> torch.Tensor:
        """Take out what no plan with these sums can do: constants are in the kernel of the matrix."""
        if not self.singular:
            return residual
        total = self.rows.sum(-1, keepdim=True)
        share = torch.where(total > 0, residual.sum(-1, keepdim=True) / total, 0)
        return residual - self.rows * share

    def solve(self, right: torch.Tensor, accuracy: float, limit: int) -> tuple[torch.Tensor, int]:
        """Solve for s; return it and the number of steps."""
        residual = self.project(right)
        s = torch.zeros_like(residual)
        z = self.precondition * residual
        direction = z
        energy = (residual * z).sum(-1)
        goal = accuracy * accuracy * energy
        best, best_s, steps = energy.clone(), s, 0
        while steps < limit:
            steps += 1
            image = self.matrix(direction)
            curvature = (direction * image).sum(-1)
            active = (energy > goal) & (curvature > 0)
            length = torch.where(active, energy / torch.where(active, curvature, 1), 0)
            s = s + length[:, None] * direction
            residual = self.project(residual - length[:, None] * image)
            z = self.precondition * residual
            fresh = (residual * z).sum(-1)
            better = fresh < best
            best, best_s = torch.where(better, fresh, best), torch.where(better[:, None], s, best_s)
            if not look((active & (fresh > goal) & (fresh < 1e4 * best + goal)).any()):
                break
            ratio = torch.where(active, fresh / torch.where(energy > 0, energy, 1), 0)
            direction = z + ratio[:, None] * direction
            energy = fresh
        if look((best > 4 * goal).any()):
            direct = self.direct(right)
            if direct is not None:
                return direct, steps
        return best_s, steps

    def direct(self, right: torch.Tensor) -> torch.Tensor | None:
        """Solve by Cholesky factors (equation 21 of the paper); None where the plan is too large, or not for rounding.

        Row sums of the matrix are known, and entries off its diagonal are of one sign: so the diagonal is a sum
        without cancellation, which keeps couplings far below the rounding of the marginals.
        """
        plan = self.whole()
        if plan is None:
            return None
        schur = (plan * self.inverse[:, None]) @ plan.mT
        schur.diagonal(dim1=-2, dim2=-1).zero_()
        # Σ_j P_ij (1 − Σ_i P_ij / c_j) is what the stiffness of the marginals leaves on the diagonal.
        own = schur.sum(-1)
        if not self.singular:
            share = 1 - multiply(plan.mT, torch.ones_like(self.rows)) * self.inverse
            own = own + (self.rows - multiply(plan, torch.ones_like(self.inverse))) + multiply(plan, share)
        absent = own <= 0
        if self.singular:  # one equation is redundant: that of the largest row goes
            absent = absent | (torch.arange(own.shape[-1], device=own.device) == self.rows.argmax(-1, keepdim=True))
        schur = torch.where(absent[..., None] | absent[:, None], 0, schur).neg_()
        schur.diagonal(dim1=-2, dim2=-1).copy_(torch.where(absent, 1, own))
        scale = torch.where(absent, 1, own).rsqrt()
        schur = schur.mul_(scale[..., None]).mul_(scale[:, None])
        for more in (0.0, 1e2, 1e5):
            # Parts that exchange less than rounding leave no positive pivot; a trace on the diagonal does.
            schur.diagonal(dim1=-2, dim2=-1).add_(more * torch.finfo(schur.dtype).eps)
            factor, info = torch.linalg.cholesky_ex(schur)
            if not look((info != 0).any()):
                break
        else:
            return None
        right = torch.where(absent, 0, self.project(right)) * scale
        return torch.cholesky_solve(right[..., None], factor)[..., 0] * scale
