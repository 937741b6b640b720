# SPDX-License-Identifier: Apache-2.0
"""Fit the charts of an atlas: a start by matching, local fits that stop at the noise, then agreement."""

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from geodiff.atlas import consensus, matching
from geodiff.atlas.charts import Charts, Placement
from geodiff.atlas.cloud import Cloud, read_cloud
from geodiff.atlas.cover import cover
from geodiff.atlas.facing import in_noise
from geodiff.atlas.fitted import FittedCharts, mean_of_charts
from geodiff.atlas.host_batch import HostBatch
from geodiff.atlas.noise import without_edges
from geodiff.atlas.places import served
from geodiff.atlas.ragged import Ragged
from geodiff.atlas.rematch import Rematch
from geodiff.atlas.settings import Settings
from geodiff.atlas.smoothing import smoothed
from geodiff.atlas.training import Batch
from geodiff.modes import outside_autocast
from geodiff.validation import fail

CHECK = 5  # steps between looks at the residuals
LEAST_STEPS = 20
MATCH_ROUNDS = 3
MATCH_STEPS = 10
LEAST_CHUNKS, LEAST_CHUNK = 4, 16  # chunks to share, where they would have so many charts
MEET = 8  # chunks of each process between looks at the time for a checkpoint
ROUND_STEPS = 10  # between exchanges of what charts predict
LEAVE = 0.25  # share of a batch that must have converged before it is made smaller
TRUST = 4  # how fast trust in a chart falls with its residual
THICK = 0.12  # noise, in radii, from which patches are made larger
WIDE = 0.005  # noise, in diagonals, from which such patches are as large as a shape's parts, and need sides
FAR = 4.0  # residuals, in units of the usual one, from which a point counts less than exp(−1)

Progress = Callable[[str, int, int, int, float], None]


class Team(Protocol):
    """Processes that share the work; `geodiff.tasks.team.Team` is one."""

    rank: int
    size: int

    def union(self, mine: dict[int, Any]) -> dict[int, Any]:
        """Return what all know together."""


def _noise(cloud: Cloud, known: float | None) -> tuple[float, torch.Tensor]:
    """Return σ on the whole and at each point (N,): as known, or as estimated."""
    if known is not None:
        return known, torch.full((len(cloud.points),), float(known), dtype=torch.float64)
    return cloud.noise.sigma, without_edges(cloud.points, cloud.noise)


def _starts(charts: int, chunk: int) -> list[int]:
    """Return where chunks begin: of at most `chunk` charts, alike in size, so that processes get alike shares."""
    count = max(-(-charts // chunk), min(LEAST_CHUNKS, charts // LEAST_CHUNK), 1)
    return [charts * i // count for i in range(count)]


def _asked(team: Team, due: Callable[[], bool] | None) -> bool:
    """Return what the first process says: all of them must do the same."""
    return due is not None and bool(team.union({0: due()} if team.rank == 0 else {})[0])


class Fitter:
    """A fit in progress: what is known of all charts, and the stages that improve it chunk by chunk.

    Chunks are runs of at most `chunk` charts in the cover's order, whoever computes them. Charts in a chunk do not see
    each other but through the rounds of agreement, so processes share chunks, and exchange what charts predict once a
    round.

    Args:
        cloud: what `read_cloud` returned.
        settings: how to fit.
        device: where charts are trained, a batch at a time; all that is known of them is the host's.
    """

    def __init__(self, cloud: Cloud, settings: Settings, device: torch.device | None = None) -> None:
        self.cloud, self.settings = cloud, settings
        self.device = torch.device("cpu") if device is None else device
        if settings.noise is not None and settings.noise > cloud.diagonal:
            got = f"{settings.noise:g} in a cloud whose diagonal is {cloud.diagonal:g}"
            raise fail("fit_atlas", "noise", "less than the cloud is wide", got, "It is in the unit of the points.")
        self.noise, self.local_noise = _noise(cloud, settings.noise)
        target, sideless = settings.target, not cloud.given and self.noise > WIDE * cloud.diagonal
        while True:
            patches = cover(cloud, radius=settings.radius, target=target, spacing=settings.spacing, seed=settings.seed)
            # A ball little wider than the noise is thick hides how thick that is, and shows no surface.
            thick = self.noise > THICK * float(patches.radius.median())
            if thick and sideless:
                cloud, sideless = in_noise(cloud, self.noise, settings.seed), False
                continue
            if settings.radius is not None or not thick or 2 * target > len(cloud.points) // 4:
                break
            target *= 2
        self.cover, self.notes = patches, cloud.notes
        if target > settings.target:
            more = f"Patches hold about {target} points in place of {settings.target}: the noise is large."
            self.notes = (*cloud.notes, more)
        count = len(patches)
        members = patches.points[patches.point]
        self.placement = Placement.of(members, patches.chart, count)
        self.local = self.placement.into(members, patches.chart)
        self.edges = torch.searchsorted(patches.chart, torch.arange(count + 1)).tolist()
        distance = (members - patches.centers[patches.chart]).norm(dim=1) / patches.radius[patches.chart]
        self.depth = (1 - distance.double().square()).clamp(min=1e-3).square()
        zeros = torch.zeros(count, dtype=torch.float64)
        total = zeros.index_add(0, patches.chart, self.local_noise[patches.point])
        self.sigma = total / torch.bincount(patches.chart, minlength=count)  # of each patch, world units
        axis = self.placement.rotation[:, 2]
        self.folded = matching.folded(patches.normals[patches.point], patches.chart, axis)
        self.starts = _starts(count, settings.chunk)
        charts = Charts.create(patches, settings.widths, settings.seed, activation=settings.activation,
                               residual=settings.residual, gain=settings.gain, placement=self.placement)  # fmt: skip
        self.charts = charts
        self.parameters = [p.contiguous() for p in charts.parameters()]
        self.uv = matching.project(self.local)
        self.predicted = torch.zeros_like(self.local)
        self.facing = torch.zeros_like(self.local)  # unit normals of the charts at their members
        self.target = torch.zeros_like(self.local)  # of the stage of agreement, and its weight
        self.weight = torch.zeros(len(self.local))
        self.stage = torch.zeros((), dtype=torch.int64)
        self.loss = torch.zeros(count)  # mean squares, local
        self.steps = torch.zeros(count, dtype=torch.int64)
        self.converged = torch.zeros(count, dtype=torch.bool)
        self.done = torch.zeros(1 + settings.rounds, len(self.starts), dtype=torch.bool)

    def state(self) -> dict[str, torch.Tensor]:
        """Everything that changes in a fit, to be saved and given to `restore`."""
        return {**{f"parameter{i}": p for i, p in enumerate(self.parameters)}, **self._fields()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on where `state()` was taken; the rest of the fit gives the same bits.

        Raises:
            ValueError: a state of another cloud or other settings.
        """
        own = self.state()
        if set(own) != set(state) or any(own[k].shape != state[k].shape for k in own):
            raise fail("fit_atlas", "state", "of a fit of the same cloud and settings", "another", "Start afresh.")
        for key, value in own.items():
            value.copy_(state[key])

    def run(
        self,
        progress: Progress | None = None,
        checkpoint: Callable[["Fitter"], None] | None = None,
        team: Team | None = None,
        due: Callable[[], bool] | None = None,
    ) -> FittedCharts:
        """Fit.

        Args:
            progress: called with (stage, chunks done, chunks in all, charts converged, mean square residual in local
                units) after each chunk; stages are ``"fit"`` and ``"agree 1"``, ….
            checkpoint: called with this after each chunk, and in a team after each exchange.
            team: the processes that share the work; all return the same.
            due: whether it is time for a checkpoint. In a team the first process is asked, after every few chunks and
                at the end of a stage; left out, each stage ends with one.
        """
        for stage in range(1 + self.settings.rounds):
            name = f"agree {stage}" if stage else "fit"
            if stage and int(self.stage) != stage:
                self.target, self.weight = self._agreed()
                self.stage.fill_(stage)
            mine = range(len(self.starts)) if team is None else range(team.rank, len(self.starts), team.size)
            for turn, chunk in enumerate(mine):
                if team is not None and turn in self._meetings(team) and _asked(team, due):
                    self._exchange(team, stage, True)
                    if checkpoint is not None:
                        checkpoint(self)
                if not self.done[stage, chunk]:
                    if stage:
                        self._agree(chunk, self.target, self.weight)
                    else:
                        self._fit(chunk)
                    if stage < self.settings.rounds and self._smooths():
                        self._face(chunk)
                    self.done[stage, chunk] = True
                    if checkpoint is not None:
                        checkpoint(self)
                if progress is not None:
                    finished = int(self.done[stage].sum())
                    last = self._range(chunk)[1]
                    loss = float(self.loss[: max(last, 1)].mean())
                    progress(name, finished, len(self.starts), int(self.converged.sum()), loss)
            if team is not None and team.size > 1:
                last = stage == self.settings.rounds
                saved = checkpoint is not None and (last or due is None or _asked(team, due))
                self._exchange(team, stage, saved or last)
                if checkpoint is not None and saved:
                    checkpoint(self)
        return self._result()

    def _meetings(self, team: Team) -> range:
        """Return before which of its turns in a stage each process asks for a checkpoint: all have these turns."""
        return range(MEET, len(self.starts) // team.size, MEET) if team.size > 1 else range(0)

    def _range(self, chunk: int) -> tuple[int, int]:
        return self.starts[chunk], [*self.starts[1:], len(self.cover)][chunk]

    def _fields(self) -> dict[str, torch.Tensor]:
        names = ("uv", "predicted", "facing", "target", "weight", "stage", "loss", "steps", "converged", "done")
        return {name: getattr(self, name) for name in names}

    def _batch(
        self,
        index: torch.Tensor,
        uv: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        weight: torch.Tensor | None = None,
        *,
        move_uv: bool = True,
        rematched: bool = False,
    ) -> Batch:
        """Charts in training; `weight` is 1 if left out, and 0 where masked."""
        weight = mask.to(target) if weight is None else weight * mask
        parts = self.charts.with_parameters(self.parameters).subset(index).to(self.device)
        index, uv, target, weight = (value.to(self.device) for value in (index, uv, target, weight))
        move, residual = self.settings.move_uv and move_uv, self.settings.residual
        if served(parts.activation, parts.parameters(), uv, target, weight) and not rematched:
            return HostBatch(index, parts, uv, target, weight, rows=mask.sum(1), move_uv=move, residual=residual)
        return Batch(index, parts, uv, target, weight, move_uv=move, residual=residual)

    def _store(self, batch: Batch, some: torch.Tensor | slice = slice(None)) -> None:
        index = batch.index[some].cpu()
        for own, new in zip(self.parameters, batch.parameters, strict=True):
            own[index] = new[some].cpu()

    def _transported(self, first: int, last: int) -> tuple[torch.Tensor, str]:
        """Which charts of a run find places by transport (K,) int64, and whether exactly or with entropy."""
        method, index = self.settings.matching, torch.arange(first, last)
        if method == "hybrid":
            return index[self.folded[first:last]], "exact"
        return (index[:0], method) if method == "projection" else (index, method)

    def _layout(self, index: torch.Tensor) -> tuple[torch.Tensor, Ragged]:
        """Rows (R,) of the members of charts (K,), ascending, and how they are laid out in blocks."""
        rows = torch.cat([torch.arange(self.edges[q], self.edges[q + 1]) for q in index.tolist()])
        sizes = torch.tensor([self.edges[q + 1] - self.edges[q] for q in index.tolist()])
        return rows, Ragged(torch.arange(len(index)).repeat_interleave(sizes), len(index))

    def _start(self, index: torch.Tensor, method: str) -> None:
        """Find places by transport for charts (K,), and charts that map them to their points."""
        rows, layout = self._layout(index)
        x = self.local[rows]
        spread = matching.places(layout)
        found = None
        for _ in range(MATCH_ROUNDS):
            charts = self.charts.with_parameters(self.parameters).subset(index)
            images = [charts.subset(b.charts).local(p) for b, p in zip(layout.blocks, spread, strict=True)]
            found = matching.match(x, images, layout, method, found, self.settings.epsilon)
            for i, block in enumerate(layout.blocks):
                place = found.uv[block.slots] if found.soft is None else spread[i]
                goal = x[block.slots] if found.soft is None else found.soft[i]
                batch = self._batch(index[block.charts], place, goal, block.mask, move_uv=False)
                batch.steps([self.settings.lr] * MATCH_STEPS)
                self._store(batch)
        if found is not None:
            self.uv[rows] = found.uv

    def _fit(self, chunk: int) -> None:
        """Fit a chunk's charts to their points, each until its residual is down to the noise."""
        first, last = self._range(chunk)
        index, method = self._transported(first, last)
        every = self.settings.rematch
        rest = torch.arange(first, last)
        if len(index) and not every:
            self._start(index, method)
        elif len(index):
            rows, layout = self._layout(index)
            for block, place in zip(layout.blocks, matching.places(layout), strict=True):
                slots, mask = rows[block.slots], block.mask
                batch = self._batch(index[block.charts], place, self.local[slots], mask, rematched=True)
                x, known = self.local[slots].to(self.device), mask.to(self.device)
                self._train(batch, slots, mask, Rematch(x, known, method, self.settings.epsilon))
            rest = rest[~torch.isin(rest, index)]
        if len(rest):
            rows, layout = self._layout(rest)
            for block in layout.blocks:
                slots, mask = rows[block.slots], block.mask
                batch = self._batch(rest[block.charts], self.uv[slots], self.local[slots], mask)
                self._train(batch, slots, mask)

    def _train(self, batch: Batch, slots: torch.Tensor, mask: torch.Tensor, plans: Rematch | None = None) -> None:
        """Train charts of like size, whose members are the rows `slots` (G, S), until they are down to the noise."""
        s = self.settings
        goal = (s.stop * self._noise_of(batch)).float().square()
        mask = mask.to(self.device)
        here = torch.ones(len(batch), dtype=torch.bool, device=self.device)
        looks = [0, *range(LEAST_STEPS, s.steps, CHECK), s.steps]
        for before, now in itertools.pairwise(looks):
            rates = [s.lr * 0.5 * (1 + math.cos(math.pi * k / s.steps)) for k in range(before, now)]
            if plans is None:
                loss = batch.steps(rates, here)
            else:
                for k, rate in enumerate(rates, before):
                    batch.step(rate, None if k % s.rematch else plans)
                loss = plans.across(batch)
            # A chart is kept as it is when it arrives, whoever else is in the batch; when many have, it shrinks.
            arrived = loss <= goal
            leave = here & arrived if now < s.steps else here
            if bool(leave.any()):
                uv = batch.uv if plans is None else plans.uv
                out = batch.image(leave) if plans is None else batch.charts().local(uv)
                self._store(batch, leave)
                kept = mask[leave]
                rows = slots[leave.cpu()][kept.cpu()]
                self.predicted[rows], self.uv[rows] = out[leave][kept].cpu(), uv[leave][kept].cpu()
                gone = batch.index[leave].cpu()
                self.loss[gone], self.steps[gone] = loss[leave].cpu(), now
                self.converged[gone] = arrived[leave].cpu()
                here = here & ~leave
            if not bool(here.any()):
                break
            if float(here.float().mean()) < 1 - LEAVE:
                batch.keep(here)
                if plans is not None:
                    plans.keep(here)
                slots, mask, goal, here = slots[here.cpu()], mask[here], goal[here], here[here]
            if s.robust and plans is None:
                batch.weight = self._robust(batch, (batch.out - batch.target).square().sum(2), mask)
            elif s.robust and plans is not None:
                plans.weight = self._robust(batch, (plans.near - plans.points).square().sum(2), mask)

    def _noise_of(self, batch: Batch) -> torch.Tensor:
        """Noise (G,) of the charts of a batch, in their own units."""
        index = batch.index.cpu()
        return (self.sigma[index] / self.placement.scale[index]).to(self.device)

    def _robust(self, batch: Batch, square: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Weights (Welsch) that let go of points whose squared distance is much larger than most of their patch's."""
        usual = torch.where(mask, square, torch.nan).nanmedian(1).values
        least = self._noise_of(batch).float().square()
        bound = FAR**2 * torch.maximum(usual * 1.5, least)
        return torch.exp(-square / bound.clamp(min=1e-20)[:, None]) * mask

    def _trust(self) -> torch.Tensor:
        """Weights (M,) of what charts predict."""
        rms = self.loss.double().sqrt() * self.placement.scale.double()
        usual = max(self.noise, float(rms.median()) * 0.1, 1e-300)
        return self.depth * (rms.clamp(min=usual) / usual).pow(-TRUST)[self.cover.chart]

    def _world(self) -> torch.Tensor:
        chart, place = self.cover.chart, self.placement
        turned = torch.einsum("mk,mki->mi", self.predicted.to(place.rotation), place.rotation[chart])
        return place.center[chart] + place.scale[chart, None] * turned

    def _agreed(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets (M, 3) between the points and what their charts say, and their weights (M,)."""
        s = self.settings
        world, point = self._world(), self.cover.point
        trust = self._trust()
        mean = mean_of_charts(world, trust, self.cover)
        if self._smooths():
            mean = smoothed(mean, self.facing, trust, self.cover, self.local_noise)
        own = torch.ones(len(self.local))
        if s.robust and self.noise > 0:
            off = (self.cover.points - mean).norm(dim=1)
            usual = self.local_noise.clamp(min=float(off[~self.cover.outlier].median())).to(off)
            own = torch.exp(-(off / (FAR * usual)).square())[point].float()
        common, say = mean[point], torch.full((), s.consistency)
        if s.agreement == "pairs":
            common, say = consensus.others(world, point, len(mean))
            say = s.consistency * say.float()
        total = own + say
        between = own[:, None] * self.local + say.unsqueeze(-1) * self.placement.into(common, self.cover.chart)
        return between / total[:, None].clamp(min=1e-30), total

    def _smooths(self) -> bool:
        return self.settings.agreement == "mean" and self.noise > 0

    def _face(self, chunk: int) -> None:
        """Keep the normals of a chunk's charts, which only the process that has them knows."""
        first, last = self._range(chunk)
        rows, index = slice(self.edges[first], self.edges[last]), torch.arange(first, last)
        charts = self.charts.with_parameters(self.parameters).subset(index)
        self.facing[rows] = charts.flat_normals(self.uv[rows], self.cover.chart[rows] - first).to(self.facing)

    def _agree(self, chunk: int, target: torch.Tensor, weight: torch.Tensor) -> None:
        """Move a chunk's charts some steps towards the targets."""
        first, last = self._range(chunk)
        base = self.edges[first]
        layout = Ragged(self.cover.chart[base : self.edges[last]] - first, last - first)
        for block in layout.blocks:
            slots = block.slots + base
            batch = self._batch(block.charts + first, self.uv[slots], target[slots], block.mask, weight[slots])
            batch.steps([self.settings.lr * 0.2 * (1 - k / ROUND_STEPS) for k in range(ROUND_STEPS)])
            out = batch.image().cpu()
            self._store(batch)
            rows = slots[block.mask]
            self.predicted[rows], self.uv[rows] = out[block.mask], batch.uv.cpu()[block.mask]
            square = (out - self.local[slots]).square().sum(2) * block.mask
            self.loss[batch.index.cpu()] = square.sum(1) / block.mask.sum(1)

    def _exchange(self, team: Team, stage: int, charts_too: bool) -> None:
        """Learn what the other processes found, with the charts' parameters where they are to be kept.

        Else these stay with the process whose charts they are: they are most of what there is to send.
        """
        mine = {}
        known = (self.loss, self.steps, self.converged, *(self.parameters if charts_too else ()))
        for chunk in range(team.rank, len(self.starts), team.size):
            first, last = self._range(chunk)
            rows, charts = slice(self.edges[first], self.edges[last]), slice(first, last)
            mine[chunk] = (
                bool(self.done[stage, chunk]),
                [t[rows].clone() for t in (self.predicted, self.uv, self.facing)],
                [t[charts].clone() for t in known],
            )
        for chunk, (done, by_row, by_chart) in team.union(mine).items():
            first, last = self._range(chunk)
            for own, new in zip((self.predicted, self.uv, self.facing), by_row, strict=True):
                own[self.edges[first] : self.edges[last]] = new
            for own, new in zip(known, by_chart, strict=True):
                own[first:last] = new
            self.done[stage, chunk] = done

    def _result(self) -> FittedCharts:
        rms = self.loss.sqrt().to(self.placement.scale) * self.placement.scale
        predicted = self._world()
        off = (predicted - self.cover.points[self.cover.point]).norm(dim=1)
        least = torch.full((len(self.cover.points),), math.inf, dtype=off.dtype)
        least = least.scatter_reduce(0, self.cover.point, off, "amin")[~self.cover.outlier]
        usual = max(self.noise, float(least.median()))
        return FittedCharts(
            charts=self.charts.with_parameters(self.parameters),
            cover=self.cover,
            uv=self.uv,
            predicted=predicted,
            weight=self._trust(),
            rms=rms,
            steps=self.steps,
            converged=self.converged,
            noise=self.noise,
            local_noise=self.local_noise,
            unfitted=int((least > FAR * usual).sum()),
            folded=int(self.folded.sum()),
            notes=self.notes,
        )


@outside_autocast
def fit_charts(
    points: Any,
    *,
    normals: Any = None,
    settings: Settings | Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    checkpoint: Callable[[Fitter], None] | None = None,
    state: Mapping[str, torch.Tensor] | None = None,
    team: Team | None = None,
    **options: Any,
) -> FittedCharts:
    """Fit charts to a cloud of points: the core of `fit_atlas`.

    Args:
        points: (N, 3).
        normals: (N, 3) pointing to one side, or nothing.
        settings: how to fit, or a dictionary of fields; or give them as keywords.
        progress: see `Fitter.run`.
        checkpoint: see `Fitter.run`.
        state: of an earlier run, to go on from.
        team: processes that share the work.
        options: fields of `Settings`.

    Raises:
        TypeError: arguments that are no numbers, unknown options.
        ValueError: clouds as in `read_cloud`, settings out of range, a state of another fit.

    Example:
        >>> import torch
        >>> cloud = torch.nn.functional.normalize(torch.randn(2000, 3), dim=1) + 0.01 * torch.randn(2000, 3)
        >>> fit = fit_charts(cloud)
        >>> before = (cloud.norm(dim=1) - 1).abs().mean()
        >>> bool((fit.fitted_points().norm(dim=1) - 1).abs().mean() < 0.6 * before)
        True
    """
    settings = Settings.of(settings, options)
    cloud = read_cloud(points, normals, most=settings.max_points, seed=settings.seed)
    fitter = Fitter(cloud, settings)
    if state is not None:
        fitter.restore(state)
    return fitter.run(progress, checkpoint, team)
