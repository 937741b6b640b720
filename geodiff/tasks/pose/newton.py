# SPDX-License-Identifier: Apache-2.0
"""Second-order steps: Levenberg–Marquardt on the residual of many renders at once."""

import math

import torch

from geodiff.reference.contour import coverage_of
from geodiff.tasks.pose.followed import Followed
from geodiff.tasks.pose.jacobian import coverage_and_jacobian
from geodiff.tasks.pose.poses import Poses, rotation_angle_deg
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.pose.target import PoseLoss, PoseTargets

_CHUNK = 128  # images rendered at once
_LONGEST = 0.3  # step, in radians or NDC
_DAMPING = 1e-2  # at first
_LEVELS = 8  # of τ
_FIRST = 16  # poses of each image after the first level
_SAME = 2.0  # degrees between poses that have come together
NOISE = 0.5  # least standard deviation of a pixel's coverage on the outline
# Around each pose at the end, if there were many starts, more are tried: so many, around those that are as likely as
# the best but for so much of the sum of squares over pixels; so many of these; at these multiples of the last τ, so
# many steps each.
_SCATTERED, _LIKELY, _MODES, _NARROWER, _STEPS = 6, 3.5, 8, (4.0, 2.0, 1.0), 2


class Linearised:
    """Sums of squares of N poses, and their Gauss–Newton model: cost (N,), gradient (N, k), normal matrix (N, k, k)."""

    fields = ("cost", "gradient", "normal")

    def __init__(self, cost: torch.Tensor, gradient: torch.Tensor, normal: torch.Tensor) -> None:
        self.cost, self.gradient, self.normal = cost, gradient, normal

    def __getitem__(self, index: torch.Tensor) -> "Linearised":
        return Linearised(*(getattr(self, name)[index] for name in self.fields))

    def where(self, better: torch.Tensor, other: "Linearised") -> "Linearised":
        """Return the model of the others where they are better."""
        mixed = []
        for name in self.fields:
            own = getattr(self, name)
            mixed.append(torch.where(better.view(-1, *[1] * (own.dim() - 1)), getattr(other, name), own))
        return Linearised(*mixed)

    def step(self, damping: torch.Tensor) -> torch.Tensor:
        """Return the damped steps (N, k)."""
        diagonal = torch.diagonal(self.normal, dim1=-2, dim2=-1)
        floor = 1e-9 * diagonal.sum(-1, keepdim=True) + 1e-20
        damped = self.normal + torch.diag_embed(damping[:, None] * diagonal + floor)
        step = -torch.linalg.solve(damped, self.gradient[..., None])[..., 0]
        return step * (_LONGEST / step.abs().amax(-1, keepdim=True).clamp_min(_LONGEST))


def directions(settings: FitPoseSettings, poses: Poses) -> torch.Tensor:
    """Return the unit steps (k, 7) along which poses are free."""
    free = {"free": [0, 1, 2, 3, 4, 5], "distance": [0, 1, 2, 5], "fixed": [0, 1, 2]}[settings.translation]
    if poses.lens.is_orthographic:
        free = [i for i in free if i != 5]
    if settings.focal:
        free.append(6)
    return torch.eye(7, dtype=poses.rotation.dtype)[free]


@torch.no_grad()
def linearised(loss: PoseLoss, poses: Poses, targets: PoseTargets, scale: float) -> Linearised:
    """Return the models of N poses and N images: exact for a silhouette by its contour, else by central differences."""
    parts, moves = [], directions(loss.settings, poses)
    for i in range(0, len(poses), _CHUNK):
        index = torch.arange(i, min(i + _CHUNK, len(poses)))
        own, images = poses[index].to(loss.device), targets[index].to(loss.device)
        if loss.settings.is_contour:
            size = images.image_size
            distribution = loss.settings.distribution
            alpha, jacobian = coverage_and_jacobian(loss.there, own, size, distribution, scale)  # type: ignore[arg-type]
            weight = images.alpha.sum((-2, -1)).rsqrt()[:, None]
            residual = (alpha.clamp(0, 1) - images.alpha).flatten(1) * weight
            jacobian = jacobian.flatten(1, 2).mT * weight[..., None]
            jacobian = jacobian[:, moves.argmax(-1).to(loss.device)]
        else:
            residual, jacobian = _differences(loss, poses[index], images, scale, moves)
        jacobian, residual = jacobian.double(), residual.double()
        cost = residual.square().sum(-1)
        # A loss or a distribution of the user's may not be finite.
        cost = torch.where(torch.isfinite(cost), cost, math.inf)
        gradient = torch.nan_to_num((jacobian @ residual[..., None])[..., 0])
        model = cost, gradient, torch.nan_to_num(jacobian @ jacobian.mT)
        parts.append(Linearised(*(part.to(poses.rotation.device) for part in model)))
    return Linearised(*(torch.cat([getattr(part, name) for part in parts]) for name in Linearised.fields))


def _differences(
    loss: PoseLoss, poses: Poses, targets: PoseTargets, scale: float, moves: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return residuals (N, R) and their Jacobian (N, k, R)."""
    settings, count = loss.settings, len(poses)
    # As far as the edges are wide: less sees the pixels' grid, more the curvature.
    reach = math.sqrt(scale) if settings.distribution.is_squared else scale  # type: ignore[union-attr]
    steps = torch.cat((torch.zeros_like(moves[:1]), reach * moves, -reach * moves))
    index = torch.arange(count).repeat_interleave(len(steps))
    around = poses[index].moved(steps.repeat(count, 1), settings).settled()
    parts = []
    for i in range(0, len(index), _CHUNK):
        some = torch.arange(i, min(i + _CHUNK, len(index)))
        images = targets[index[some].to(loss.device)]
        parts.append(loss.residuals(around[some].cameras(), images, scale))
    values = torch.cat(parts).unflatten(0, (count, len(steps)))
    ahead, back = values[:, 1:].unflatten(1, (2, len(moves))).unbind(1)
    return values[:, 0], (ahead - back) / (2 * reach)


def final_cost(loss: PoseLoss, poses: Poses, targets: PoseTargets) -> torch.Tensor:
    """Return the sum of squares (N,) at the last τ, infinite where it is not finite."""
    parts = []
    for i in range(0, len(poses), _CHUNK):
        index = torch.arange(i, min(i + _CHUNK, len(poses)))
        parts.append(loss.residuals(poses[index].cameras(), targets[index], loss.settings.scale[1]).square().sum(-1))
    cost = torch.cat(parts).to(poses.rotation.device)
    return torch.where(torch.isfinite(cost), cost, math.inf)


def edge_width(settings: FitPoseSettings, scale: float) -> float:
    """Return the standard deviation in NDC of the soft edges at a τ: half of what lies between their 16 and 84 %."""
    distribution = settings.distribution
    reach = torch.logspace(-3, 3, 601, dtype=torch.float64)
    at = torch.cat((-reach.flip(0), reach))
    value = coverage_of(at, distribution, 1.0)  # type: ignore[arg-type]
    low, high = (at[int((value < share).sum().clamp(max=len(at) - 1))] for share in (0.159, 0.841))
    unit = math.sqrt(scale) if distribution.is_squared else scale  # type: ignore[union-attr]
    return 0.5 * float(high - low) * unit


def first_damping(count: int) -> torch.Tensor:
    """Return the damping (N,) to begin with."""
    return torch.full((count,), _DAMPING, dtype=torch.float64)


@torch.no_grad()
def improved(
    loss: PoseLoss, poses: Poses, targets: PoseTargets, scale: float, model: Linearised, damping: torch.Tensor
) -> tuple[Poses, Linearised, torch.Tensor]:
    """Take a step of Levenberg–Marquardt from N poses; where it leads to nothing better, stay and damp more."""
    moves = directions(loss.settings, poses)
    new = poses.moved(model.step(damping).to(moves.dtype) @ moves, loss.settings).settled()
    then = linearised(loss, new, targets, scale)
    better = then.cost < model.cost
    damping = torch.where(better, 0.2 * damping, 5 * damping).clamp(1e-6, 1e3)
    return poses.where(better, new), model.where(better, then), damping


def apart(rotations: torch.Tensor, count: int) -> torch.Tensor:
    """Return the numbers of up to ``count`` rotations (N, 3, 3) that are not the same, the first before others."""
    chosen: list[int] = []
    for i in range(len(rotations)):
        if len(chosen) == count:
            break
        if not chosen or float(rotation_angle_deg(rotations[chosen], rotations[i]).min()) > _SAME:
            chosen.append(i)
    return torch.tensor(chosen, dtype=torch.long)


class Newton(Followed):
    """Levenberg–Marquardt from N poses at once, while τ falls in a few levels.

    One render a step gives cost, gradient and normal matrix of where it leads to. Half-way all but the best poses that
    are apart are dropped; twins of the best, which silhouettes hardly tell from them, are added.
    """

    _each = (*Followed._each, "damping", *Linearised.fields)

    def __init__(self, *arguments: object, **named: object) -> None:
        super().__init__(*arguments, **named)  # type: ignore[arg-type]
        count, free = len(self.poses), len(directions(self.settings, self.poses))
        self.damping = first_damping(count)
        self.cost = torch.full((count,), math.inf, dtype=torch.float64)
        self.gradient = torch.zeros(count, free, dtype=torch.float64)
        self.normal = torch.zeros(count, free, free, dtype=torch.float64)

    def _level(self, step: int) -> tuple[int, float]:
        """Return the level of a step, and its τ."""
        levels = min(_LEVELS, max(self.settings.steps // 2, 1))  # two steps each, or more
        level = step * levels // self.settings.steps
        start, end = self.settings.scale
        return level, float(start * (end / start) ** (level / max(levels - 1, 1)))

    def advance(self) -> torch.Tensor:
        """Take one step; return the loss (N,) after it."""
        settings, step = self.settings, self.step
        level, scale = self._level(step)
        begins = step == 0 or level != self._level(step - 1)[0]
        if begins and level == 1:
            self.keep(max(_FIRST, settings.finalists))
        if step == settings.prune_step:
            self.keep(settings.finalists)
            self.add_twins()
            begins = True
        images = self.coarse if step < settings.prune_step else self.fine
        targets = images.softened(edge_width(settings, scale))[self.image]
        if begins:
            self._set(linearised(self.loss, self.poses, targets, scale))
            self.damping = first_damping(len(self.poses))
        now = Linearised(self.cost, self.gradient, self.normal)
        self.poses, now, self.damping = improved(self.loss, self.poses, targets, scale, now, self.damping)
        self._set(now)
        self.step += 1
        return self.value

    def _set(self, model: Linearised) -> None:
        for name in Linearised.fields:
            setattr(self, name, getattr(model, name))
        self.value = self.cost.to(self.poses.rotation.dtype)

    def keep(self, count: int) -> None:
        """Go on with the best ``count`` poses of each image that have not come together."""
        kept = []
        for t in range(len(self.coarse.alpha)):
            own = self.own(t)
            kept.append(own[apart(self.poses.rotation[own], count)].sort().values)
        self.select(torch.cat(kept))

    @torch.no_grad()
    def finish(self) -> None:
        """Look for lower valleys around those found, and measure the loss of the poses at the end, at the last τ."""
        self.value = final_cost(self.loss, self.poses, self.fine[self.image])
        one = len(self.coarse.alpha) == 1
        if one and self.settings.starts > _FIRST and bool(torch.isfinite(self.value).any()):
            self._scatter()

    def _scatter(self) -> None:
        """Go down from more places around each pose that explains the image, as far off as the image allows.

        With narrow edges the loss counts pixels, and has many small valleys. What noise of the pixels leaves open, to
        first order, is the inverse of the normal matrix, by which the places are drawn.
        """
        settings, before, area = self.settings, len(self.poses), float(self.fine.alpha.sum())
        best = self.value.min()
        likely = ((self.value - best) * area < _LIKELY).nonzero()[:, 0]
        likely = likely[self.value[likely].argsort(stable=True)]
        likely = likely[apart(self.poses.rotation[likely], _MODES)]
        factors = [f * f if settings.distribution.is_squared else f for f in _NARROWER]  # type: ignore[union-attr]

        def at(factor: float, poses: Poses) -> tuple[float, PoseTargets]:
            scale = settings.scale[1] * factor
            return scale, self.fine.softened(edge_width(settings, scale))[self.image[:1].expand(len(poses))]

        poses = self.poses[likely]
        scale, images = at(factors[0], poses)
        normal = linearised(self.loss, poses, images, scale).normal * (area / NOISE**2)
        free = normal.shape[-1]
        root = torch.linalg.cholesky(normal + 1e-2 * torch.eye(free, dtype=torch.float64))
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = torch.randn(len(poses), _SCATTERED, free, 1, generator=generator, dtype=torch.float64)
        step = torch.linalg.solve_triangular(root.mT[:, None], drawn, upper=True).flatten(0, 1)[..., 0]
        index = likely.repeat_interleave(_SCATTERED)
        moves = directions(settings, poses)
        poses = self.poses[index].moved(step.clamp(-_LONGEST, _LONGEST).to(moves.dtype) @ moves, settings).settled()
        for factor in factors:
            scale, images = at(factor, poses)
            model, damping = linearised(self.loss, poses, images, scale), first_damping(len(poses))
            for _ in range(_STEPS):
                poses, model, damping = improved(self.loss, poses, images, scale, model, damping)
        self.select(torch.cat((torch.arange(before), index)))
        self.poses = self.poses[torch.arange(before)].and_then(poses)
        self.value[before:] = final_cost(self.loss, poses, self.fine[self.image[before:]])
        self.keep(before)
