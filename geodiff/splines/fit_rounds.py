# SPDX-License-Identifier: Apache-2.0
"""Rounds of a cloud fit: a step of the control points, then the closest parameters."""

import math
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch
from scipy.spatial import cKDTree

from geodiff.soft import selection
from geodiff.splines import fit_gram
from geodiff.splines.fit_free import Callback, Diverged, Outcome
from geodiff.splines.fit_linear import Problem, apply_grid, apply_scattered, quadrature_root

FIRST_SMOOTHING = 1e-5  # of the first round, for points of unit scale; falls to the asked one within ANNEALING rounds
ANNEALING = 8
PATIENCE = 3  # rounds in a row that fall by less than the tolerance
EXACT = 1e-20  # a mean square of the residuals that is zero, for points of unit scale
NEWTON_STEPS = 3  # of the parameters, in each round
SAMPLES = 4  # of the spline, for each control point and axis, among which the nearest is looked for
LEAST_SMOOTHING = 1e-9  # where it follows the noise
MOST_SMOOTHING = 1e-3
STRETCH = (
    10.0  # weight of the stretch in mean squares of the residuals: a change of lengths by 10 % costs a tenth of one
)
LEAST_STRETCH = 1000.0  # and in weights of the smoothing: small enough that parameters still adapt to a shape
LEAST_SLIDE = 1e-4  # see Rounds.step
BORDER = 0.5  # temperature of the choice of points that count, in mean squares of their distances
RIDGE = 1e-13  # of the mean diagonal, for directions that neither points nor smoothing determine


class Rounds:
    """A cloud of unit scale, its parameters and weights, and the spline's bases, which stay.

    Weights ω `(N,)` have the mean 1. Where ``trim`` > 0, they are those of the least trimmed squares.
    """

    def __init__(
        self,
        problem: Problem,
        knots: Sequence[torch.Tensor],
        domains: Sequence[tuple[float, float]],
        trim: float = 0.0,
    ) -> None:
        self.points = problem.points
        self.smoothing = problem.smoothing
        self.knots = tuple(knots)
        self.bases = problem.bases(knots)
        self.wraps = torch.tensor(problem.periodic)
        self.low, self.high = (torch.tensor([d[end] for d in domains], dtype=torch.float64) for end in (0, 1))
        unit = Problem(self.points[:1], (), problem.degree, problem.periodic, grid=False, smoothing=1.0)
        self.roots = torch.linalg.qr(unit.penalty_roots(knots), mode="r").R
        along = [
            torch.linspace(*d, SAMPLES * b.count + 1, dtype=torch.float64)
            for d, b in zip(domains, self.bases, strict=True)
        ]
        self.sample_matrices = [b.matrix(u) for b, u in zip(self.bases, along, strict=True)]
        self.sample_parameters = torch.stack([g.flatten() for g in torch.meshgrid(*along, indexing="ij")], -1)
        self.stretch = 0.0
        self.still: torch.Tensor | None = None  # the control points whose stretch is 0
        self.stiffness = torch.zeros(0, dtype=torch.float64)
        self.u = torch.stack(problem.parameters, -1) if problem.parameters else self.sample_parameters[:0]
        self.trim = trim
        self.omega = torch.ones(len(self.points), dtype=torch.float64)

    @property
    def weights(self) -> torch.Tensor | None:
        """Weights of the points; None where all count alike, which sums round as they do without weights."""
        return self.omega if self.trim > 0 else None

    def objective(self, residuals: torch.Tensor, omega: torch.Tensor, control: torch.Tensor) -> float:
        """Return the weighted mean square of residuals, plus smoothing and stretch, over D."""
        bending = (self.roots @ control.flatten(0, -2)).square().sum()
        value = (residuals.square().sum(-1) * omega).sum() / len(self.points) + self.smoothing * bending
        if self.still is not None:
            moved = (control - self.still).flatten(0, -2).mT.flatten()
            value = value + self.stretch * (moved @ self.stiffness @ moved)
        return float(value) / residuals.shape[-1]

    def jet(self, control: torch.Tensor, u: torch.Tensor, points: torch.Tensor) -> list[torch.Tensor]:
        """Return residuals `(N, D)` at parameters `(N, axes)`, and the derivative along each axis."""
        values = [b.matrix(u[:, a]) for a, b in enumerate(self.bases)]
        jets = [apply_scattered(values, control) - points]
        for a, b in enumerate(self.bases):
            jets.append(apply_scattered([*values[:a], b.matrix(u[:, a], 1), *values[a + 1 :]], control))
        return jets

    def miss(self, control: torch.Tensor, u: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Return residuals only."""
        return apply_scattered([b.matrix(u[:, a]) for a, b in enumerate(self.bases)], control) - points

    def samples(self, control: torch.Tensor) -> torch.Tensor:
        """Return points of an even grid on the spline, at `sample_parameters`."""
        return apply_grid(self.sample_matrices, control).flatten(0, -2)

    def nearest(self, control: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the parameters of the sample nearest each point, one tensor an axis."""
        _, index = cKDTree(self.samples(control).numpy()).query(self.points.numpy())
        return tuple(self.sample_parameters[torch.from_numpy(index)].unbind(-1))

    def stuck(self, u: torch.Tensor, residuals: torch.Tensor, slopes: Sequence[torch.Tensor]) -> torch.Tensor:
        """Which parameters are at an end of the domain beyond which the spline would come closer: `(N, axes)`."""
        rising = torch.stack([(slope * residuals).sum(-1) for slope in slopes], -1)
        return ~self.wraps & (((u <= self.low) & (rising > 0)) | ((u >= self.high) & (rising < 0)))

    def first(self) -> torch.Tensor:
        """Return control points of least squares for the parameters as they are."""
        rows = fit_gram.ScatteredRows(self.bases, self.u.unbind(-1), None)
        scaled = math.sqrt(self.smoothing * len(self.points)) * self.roots
        gram = rows.gram(self.weights) + scaled.mT @ scaled
        gram = gram + RIDGE * float(gram.diagonal().mean()) * torch.eye(len(gram), dtype=torch.float64)
        factor, info = torch.linalg.cholesky_ex(gram)
        if int(info):
            raise Diverged("the first control points are not determined")
        control = torch.cholesky_solve(rows.adjoint(self.points * self.omega[:, None]), factor)
        return control.reshape(*(b.count for b in self.bases), -1)

    def hold(self, control: torch.Tensor) -> None:
        """Make these the control points c⁰, of a surface S⁰, from which the stretch of others is measured.

        The stretch is `E_S = Σ_a ∫ |Tᵀ (∂_a S − ∂_a S⁰)|² / ∫ |∂_a S⁰|²` over the axes a, where the columns of T(u, v)
        are an orthonormal basis of the tangents of S⁰: the mean square change of lengths, measured along S⁰, so that
        the shape across it is free. It is `(c − c⁰)ᵀ H (c − c⁰)` with c ordered by coordinate; Gauss quadrature.
        """
        roots = [[quadrature_root(b, order) for order in range(2)] for b in self.bases]
        slopes = []
        for a in range(len(roots)):
            slopes.append(apply_grid([axis[int(a == b)] for b, axis in enumerate(roots)], control).flatten(0, -2))
        q, r = torch.linalg.qr(torch.stack(slopes, -1))
        size = r.diagonal(dim1=-2, dim2=-1).abs()
        q = q * (size > 1e-9 * size.amax(-1, keepdim=True))[:, None, :]
        along = (q @ q.mT).numpy()
        dim, count = control.shape[-1], control[..., 0].numel()
        stiffness = np.zeros((dim, count, dim, count))
        for a, slope in enumerate(slopes):
            rows = scipy.sparse.csr_array(np.ones((1, 1)))
            for b, axis in enumerate(roots):
                rows = scipy.sparse.csr_array(scipy.sparse.kron(rows, axis[int(a == b)].numpy()))
            for d in range(dim):
                for e in range(d + 1):
                    block = (rows.T @ (scipy.sparse.diags_array(along[:, d, e]) @ rows)).toarray()
                    stiffness[d, :, e] += block / float(slope.square().sum())
                    stiffness[e, :, d] = stiffness[d, :, e].T
        self.still, self.stiffness = control, torch.from_numpy(stiffness).reshape(dim * count, dim * count)

    def adapt(self, control: torch.Tensor, least: float, automatic: bool) -> None:
        """Set smoothing and stretch to what the noise, the mean square s² of the residuals, asks for.

        The smoothing λ is `least` or, where automatic and larger, `s² γ / (N E)` with the bending energy E and the
        number γ of control points that the data, not the smoothing, determine: the most probable λ (MacKay, Neural
        Computation 4, 1992, 415–447). The weight of the stretch is `max(STRETCH s², LEAST_STRETCH λ)`.
        """
        count = len(self.points)
        squares = self.miss(control, self.u, self.points).square()
        square = float(squares.sum() if self.weights is None else squares.sum(-1) @ self.weights) / count
        self.smoothing = least
        if automatic:
            bending = float((self.roots @ control.flatten(0, -2)).square().sum())
            penalty = count * self.smoothing * self.roots.mT @ self.roots
            gram = fit_gram.ScatteredRows(self.bases, self.u.unbind(-1), None).gram(self.weights) + penalty
            gram.diagonal().add_(RIDGE * float(gram.diagonal().mean()))
            factor, info = torch.linalg.cholesky_ex(gram)
            held = 0.0 if int(info) else float(torch.cholesky_solve(penalty, factor).diagonal().sum())
            asked = square * max(len(gram) - held, 0.0) / max(count * bending, 1e-300)
            self.smoothing = max(least, min(asked, MOST_SMOOTHING))
        self.stretch = max(STRETCH * square, LEAST_STRETCH * self.smoothing)

    def choose(self, residuals: torch.Tensor) -> None:
        """Let the points of least distance count: all but the share ``trim``, of which those near the border in part.

        `ω = σ((t − |r|²)/τ)` up to a factor, the best weights for the relaxed trimmed mean of the squares
        (`gd.soft.trimmed_mean`); with the mean square s² of the points that count, τ = s²/2. From one round to the next
        s² falls, and the border gets sharper.
        """
        squares = residuals.square().sum(-1)
        kept = (1 - self.trim) * len(squares)
        scale = max(BORDER * float(squares @ self.omega) / len(squares), 1e-300)
        self.omega = selection(squares, kept, temperature=scale) / (1 - self.trim)

    def step(
        self, control: torch.Tensor, u: torch.Tensor, points: torch.Tensor, omega: torch.Tensor, slide: float
    ) -> torch.Tensor:
        """Return the change of the control points that minimises `Σ_i ω_i r_iᵀ M_i r_i` and the terms without points.

        `M = I − (1 − slide) T Tᵀ` with an orthonormal basis T of the tangents along which the parameter may move: with
        slide = 0 this is the Gauss–Newton step for parameters that follow (tangent distance), with 1 the step for
        fixed parameters, which never fails but is slow (Wang, Pottmann and Liu, ACM Trans. Graph. 25, 2006, 214–238).
        """
        dim = points.shape[-1]
        rows = fit_gram.ScatteredRows(self.bases, u.unbind(-1), None)
        residuals, *slopes = self.jet(control, u, points)
        free = ~self.stuck(u, residuals, slopes)
        q, r = torch.linalg.qr(torch.stack(slopes, -1) * free[:, None, :])
        size = r.diagonal(dim1=-2, dim2=-1).abs()
        q = q * (size > 1e-9 * size.amax(-1, keepdim=True))[:, None, :]
        metric = torch.eye(dim, dtype=torch.float64) - (1 - slide) * q @ q.mT
        metric = metric * omega[:, None, None]
        scaled = math.sqrt(self.smoothing * len(self.points)) * self.roots
        net = control.flatten(0, -2)
        right = -rows.adjoint((metric @ residuals[..., None])[..., 0]) - scaled.mT @ (scaled @ net)
        count = len(net)
        matrix = torch.block_diag(*[scaled.mT @ scaled] * dim).reshape(dim, count, dim, count)
        for d in range(dim):
            for e in range(d + 1):
                gram = rows.gram(metric[:, d, e].contiguous())
                matrix[d, :, e] += gram
                if e < d:
                    matrix[e, :, d] += gram
        matrix = matrix.reshape(dim * count, dim * count)
        if self.still is not None:
            weight = self.stretch * len(self.points)
            matrix.add_(self.stiffness, alpha=weight)
            moved = (net - self.still.flatten(0, -2)).mT.flatten()
            right = right - weight * (self.stiffness @ moved).reshape(dim, count).mT
        matrix.diagonal().add_(RIDGE * float(matrix.diagonal().mean()))
        factor, info = torch.linalg.cholesky_ex(matrix)
        if int(info):
            raise Diverged("the control points are not determined")
        change = torch.cholesky_solve(right.mT.reshape(-1, 1), factor)
        return change.reshape(dim, count).mT.reshape(control.shape)

    def correct(self, control: torch.Tensor, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Move each parameter to a closer point of the spline, never to one farther; returns the residuals too."""
        residuals = self.miss(control, u, self.points)
        other = torch.stack(self.nearest(control), -1)
        there = self.miss(control, other, self.points)
        nearer = (there.square().sum(-1) < residuals.square().sum(-1))[:, None]
        u = torch.where(nearer, other, u)
        residuals, *slopes = self.jet(control, u, self.points)
        length = torch.ones(len(u), dtype=torch.float64)
        eye = torch.eye(u.shape[-1], dtype=torch.float64)
        for again in range(NEWTON_STEPS):
            if again:
                residuals, *slopes = self.jet(control, u, self.points)
            stuck = self.stuck(u, residuals, slopes)
            jacobian = torch.where(stuck[:, None, :], 0.0, torch.stack(slopes, -1))
            gradient = (jacobian * residuals[..., None]).sum(-2)
            normal = jacobian.mT @ jacobian
            ridge = normal.diagonal(dim1=-2, dim2=-1).sum(-1) * 1e-12 + torch.finfo(torch.float64).tiny
            normal = normal + (ridge[:, None] + stuck)[..., None] * eye
            step = -torch.linalg.solve(normal, gradient) * length[:, None]
            trial = torch.where(self.wraps, u + step, torch.clamp(u + step, self.low, self.high))
            moved = self.miss(control, trial, self.points)
            closer = moved.square().sum(-1) <= residuals.square().sum(-1)
            u = torch.where(closer[:, None], trial, u)
            residuals = torch.where(closer[:, None], moved, residuals)
            length = torch.where(closer, 1.0, length / 4)
        u = torch.where(self.wraps, self.low + torch.remainder(u - self.low, self.high - self.low), u)
        return u, residuals


def alternate(
    rounds: Rounds,
    chamfer: float,
    most: int,
    least: float,
    callback: Callback | None,
    automatic: bool = False,
    still: torch.Tensor | None = None,
) -> Outcome:
    """Go on until the objective falls no further.

    Args:
        rounds: what is fitted; its parameters are those to begin with.
        chamfer: weight of the distances from samples of the spline to the points nearest them.
        most: how many rounds.
        least: relative fall that counts.
        callback: called with (round, objective).
        automatic: the smoothing follows the noise, and that of `rounds` is the least.
        still: control points from which the stretch of a surface is measured; left out, the first.

    Raises:
        Diverged: the control points are no longer finite or not determined.
    """
    asked, tree = rounds.smoothing, cKDTree(rounds.points.numpy())
    strong, count = max(FIRST_SMOOTHING, asked), len(rounds.points)
    rounds.smoothing = strong
    control = rounds.first()
    if len(rounds.bases) == 2:
        rounds.hold(control if still is None else still)
    history: list[float] = []
    slide, little, converged = 1.0, 0, False
    points, others = rounds.points, rounds.u[:0]
    for i in range(most):
        settled = i >= ANNEALING
        if rounds.trim > 0:
            rounds.choose(rounds.miss(control, rounds.u, rounds.points))
        omega = rounds.omega
        if i <= ANNEALING:
            rounds.adapt(control, strong * (asked / strong) ** (i / ANNEALING), automatic)
        if chamfer > 0:
            others = rounds.sample_parameters
            _, index = tree.query(rounds.samples(control).numpy())
            points = torch.cat([rounds.points, rounds.points[torch.from_numpy(index)]])
            more = torch.full((len(others),), chamfer * count / len(others), dtype=torch.float64)
            omega = torch.cat([omega, more])
        every = torch.cat([rounds.u, others])
        before = rounds.objective(rounds.miss(control, every, points), omega, control)
        while True:
            trial = control + rounds.step(control, every, points, omega, slide)
            if not bool(torch.isfinite(trial).all()):
                raise Diverged("the control points are no longer finite")
            u, residuals = rounds.correct(trial, rounds.u)
            if len(others):
                residuals = torch.cat([residuals, rounds.samples(trial) - points[count:]])
            after = rounds.objective(residuals, omega, trial)
            if after <= before or slide >= 1.0:
                break
            slide = min(1.0, 10 * slide)
        control, rounds.u = trial, u
        slide = max(LEAST_SLIDE, slide / 3)
        history.append(after)
        if callback is not None:
            callback(i + 1, after)
        # A round of slow steps may fall little before one of fast steps falls much.
        little = little + 1 if settled and before - after <= least * before else 0
        exact = settled and float(residuals.square().sum(-1) @ omega) < EXACT * len(residuals)
        if little == PATIENCE or exact:
            converged = True
            break
    message = "the objective falls no further" if converged else "the limit of rounds was reached"
    total = control[..., 0].numel()
    return Outcome(control, rounds.knots, None, history[-1], total, len(history), converged, message, history)
