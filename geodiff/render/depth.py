# SPDX-License-Identifier: Apache-2.0
"""Which faces a pixel's colour comes from, and with which weights: the nearest alone, or a softmax over depth."""

import math
from typing import Any

import torch

from geodiff import soft
from geodiff.modes import constant_in_graphs
from geodiff.recording import at_least, is_replaying, look
from geodiff.reference.fragments import Ranking
from geodiff.reference.softmax import NEVER, Mixture
from geodiff.render.coverage import Coverage, Softness, reach_of
from geodiff.render.fragment_list import FragmentList, Layers, find, find_heaviest, find_visible
from geodiff.render.shading import SurfaceColors
from geodiff.render.view import View

_TABLE = 4097  # entries of the table of log F, by which fragments are ranked
# Finer differences of depth than this cannot be told from rounding, in either dtype.
LEAST_GAMMA = 1e-15

Maps = dict[str, torch.Tensor]


class HardDepth:
    """The nearest face that covers the pixel centre; where none does, the one nearest in the image."""

    def __init__(self, view: View, coverage: Coverage, softness: Softness) -> None:
        self.view, self.coverage, self.softness = view, coverage, softness

    def find(self, alpha: torch.Tensor, wanted: tuple[str, ...]) -> FragmentList:
        """Return the faces that are seen, for the maps `wanted`; with rgb, where `alpha` (B, H, W) is not 0."""
        view = self.view
        if "rgb" not in wanted:
            return find(view)  # no map but rgb has a rim
        reach = reach_of(self.coverage, view, self.softness)
        if wanted == ("rgb",) and self.coverage.seen is not None:
            return self.coverage.seen
        if reach is not None:
            return find_visible(view, reach) if wanted == ("rgb",) else find(view, blur=reach)
        blur = self.softness.reach(view)
        found = find(view, blur=blur)
        reached, height, width = alpha > self.softness.max_error, *view.image_size

        def lacks() -> torch.Tensor:
            return (reached & (found.dense_maps.face_id[..., 0] < 0)).any()

        while math.isfinite(blur) and look(lacks()):
            blur = 2 * blur if 0 < blur < 2 * max(height, width) / min(height, width) else math.inf
            found = find(view, blur=blur)
        if is_replaying():  # which looked as far as was recorded
            found = found._replace(barycentric=torch.where(lacks(), torch.nan, found.barycentric))
        return found

    def mix(
        self, found: FragmentList, colors: SurfaceColors, wanted: tuple[str, ...]
    ) -> tuple[torch.Tensor | None, Maps]:
        """Return colours (P, 3) and the other maps (B, H, W[, C]) asked for; depth and face_id unless only rgb is."""
        if found.maps is None:
            return colors.color, {}
        face_id, distance, _, depth = found.maps
        covered = distance[..., 0] >= 0
        maps = {"depth": torch.where(covered, depth[..., 0], torch.inf)}
        maps["face_id"] = torch.where(covered, face_id[..., 0], -1)
        for name, value in (("normal", colors.normal), ("uv", colors.uv)):
            if name in wanted and value is not None:
                maps[name] = found.dense(value)[..., 0, :] * covered[..., None]
        return colors.color, maps


class SoftmaxDepth:
    """Weights `F(d/τ)·exp(z/γ)` over their sum, `z = (far − depth)/(far − near)`.

    Args:
        view: what is seen.
        coverage: says how far colours are looked for.
        softness: F and τ.
        gamma: γ.
        depth_range: depths at which z is 1 and 0, or None for those of the scene.
        background: its z, or None if it takes no part.
        max_fragments: how many faces a pixel mixes, or None for enough.
    """

    def __init__(
        self,
        view: View,
        coverage: Coverage,
        softness: Softness,
        gamma: float | torch.Tensor,
        depth_range: tuple[float, float] | None,
        background: float | None,
        max_fragments: int | None,
    ) -> None:
        self.view, self.coverage, self.softness, self.gamma = view, coverage, softness, gamma
        self.least_gamma: float | None = None
        if isinstance(gamma, torch.Tensor) and not gamma.is_cpu and not torch.compiler.is_compiling():
            self.gamma, self.least_gamma = at_least(gamma)
        self.depth_range, self.background, self.max_fragments = depth_range, background, max_fragments
        self.there: torch.Tensor | None = None  # (B, H, W), where some face is near enough for alpha
        self.lost: torch.Tensor | None = None  # of a replay: 0, or NaN where not all of these were found
        if depth_range is None:
            self.ends = view.depth_ends()
        else:
            front, back = (view.clip.new_full((view.images,), end) for end in depth_range)
            self.ends = torch.stack([front, back], dim=1)

    def find(self, alpha: torch.Tensor, wanted: tuple[str, ...]) -> Layers:
        """Return the faces of largest weight.

        `alpha` (B, H, W) says what is covered: without a background among the faces, nothing else has a colour.
        """
        view, softness = self.view, self.softness
        reach, covered = reach_of(self.coverage, view, softness), alpha > 0
        near = softness.reach(view) if reach is None else reach
        if wanted != ("rgb",):
            with torch.no_grad():
                seen = find_visible(view, near)
                self.there = seen.there[..., 0]
                self.lost = 0 * seen.barycentric.sum() if is_replaying() else None
            covered = covered | self.there
        ranking = self._ranking()
        blur = math.inf
        if self.background is not None:
            blur = self._blur(ranking)
        elif reach is not None:
            blur = max(self._blur(ranking), reach)
        options: dict[str, Any] = {"k": self.max_fragments, "blur": blur, "rim": near, "max_error": softness.max_error}
        options["origin"] = self.ends[:, 0].detach()
        if self.background is None:
            return find_heaviest(view, ranking, within=covered, **options)
        span = (self.ends[:, 1] - self.ends[:, 0]).detach()
        weight = (self.background - torch.where(span > 0, 1.0, 0.5)) / self._gamma()
        return find_heaviest(view, ranking, background=weight, **options)

    def mix(self, found: Layers, colors: SurfaceColors, wanted: tuple[str, ...]) -> tuple[torch.Tensor | None, Maps]:
        """Return colours (Q, 3) and the other maps (B, H, W[, C]) asked for; depth and face_id unless only rgb is.

        With a background that takes part, instead of the colours "rgb" and "rest", the background's share.
        """
        maps: Maps = {}
        log_weight = self._log_weight(found.distance)
        if "rgb" in wanted and self.background is not None:
            mixture = self._mix(found, log_weight, colors.color, self.background)
            maps |= {"rgb": found.dense(mixture.out), "rest": found.dense(mixture.rest, 1.0)}
        columns = {} if self.there is None else {"depth": found.depth[:, None]}
        for name, value in (("normal", colors.normal), ("uv", colors.uv)):
            if name in wanted and value is not None:
                columns[name] = value
        if "rgb" in wanted and self.background is None:
            assert colors.color is not None
            columns["rgb"] = colors.color
        if not columns:
            return None, maps
        values = list(columns.values())
        mixture = self._mix(found, log_weight, values[0] if len(values) == 1 else torch.cat(values, dim=1), None)
        parts = dict(zip(columns, mixture.out.split([value.shape[1] for value in values], dim=1), strict=True))
        color = parts.pop("rgb", None)
        if self.there is None:
            return color, maps
        there = self.there
        maps["depth"] = torch.where(there, found.dense(parts.pop("depth")[:, 0]), torch.inf)
        best = found.face[found.heaviest(mixture.weight)]
        maps["face_id"] = torch.where(there, found.dense(best, -1), -1)
        maps |= {name: found.dense(value) * there[..., None] for name, value in parts.items()}
        if self.lost is not None:
            maps |= {name: maps[name] + self.lost for name in ("depth", *parts)}
        return color, maps

    def _ranking(self) -> Ranking:
        """Return what picks the fragments: `log F` in a table, and one over the depth that γ stands for."""
        distribution, scale = self.softness.distribution, self.softness.scale
        with torch.no_grad():
            tau = _number(self.softness.longest)
            unit = tau**0.5 if distribution.is_squared else tau
            # 1 but for a τ that is less than at most.
            table = _table(distribution, self.ends.device, 1.0 if self.softness.most is None else tau / scale)
            span = (self.ends[:, 1] - self.ends[:, 0]).detach().double()
            sharpness = torch.where(span > 0, 1 / (torch.where(span > 0, span, 1.0) * self._gamma()), 0.0)
            return Ranking(table, unit, sharpness)

    def _gamma(self) -> Any:
        """γ as a constant: a number, or where the device has it, it."""
        if self.least_gamma is None or not isinstance(self.gamma, torch.Tensor):
            return max(_number(self.gamma), LEAST_GAMMA)
        return torch.nan_to_num(self.gamma.detach().reshape(()), self.least_gamma).clamp(min=LEAST_GAMMA)

    def _blur(self, ranking: Ranking) -> float:
        """Return how far outside a face its weight still counts, NDC; infinite if there is no end.

        A weight is `F(d)·exp(z/γ)`, so a face far away in the image counts where it is far in front of the others. It
        is held against what a pixel surely has: the background, or else, where alpha is above `max_error`, a face with
        at least the F below which none counts for alpha. All that is left out has `max_error` of a pixel's weights.
        """
        faces = self.view.most_faces if self.view.images else 0
        max_error = self.softness.max_error
        if not max_error > 0 or faces == 0:
            return math.inf
        front, back = 1.0, 0.0
        if self.depth_range is not None:
            if torch.compiler.is_compiling() or not self.view.clip.is_cpu:
                return math.inf  # depths are not known yet; the search ends by itself, only later
            near, far = self.depth_range
            depths = self.view.clip[:, 2].detach().clamp(min=self.view.camera.near)
            front, back = ((far - float(depth)) / (far - near) for depth in (depths.min(), depths.max()))
        least = math.log(max_error / faces)
        if self.background is None:
            epsilon = self.softness.tconorm.cull_threshold(max_error, faces)
            least += math.log(epsilon) if epsilon > 0 else -math.inf
        else:
            back = self.background
        gamma = self._gamma() if self.least_gamma is None else max(self.least_gamma, LEAST_GAMMA)
        least -= max(front - back, 0.0) / gamma
        distribution = self.softness.distribution
        if torch.compiler.is_compiling():
            if distribution.kernel_id is None:
                return math.inf
            shape, shift = _number(distribution.shape), _number(distribution.shift)
            form = distribution.is_reversed, distribution.is_squared
            return ranking.unit * _farthest_constant(distribution.kernel_id, shape, shift, *form, least)
        return ranking.unit * _farthest(ranking.table if ranking.table.is_cpu else _table(distribution), least)

    def _log_weight(self, d: torch.Tensor) -> torch.Tensor:
        """Return log F of signed distances (P,)."""
        distribution, scale = self.softness.distribution, self.softness.scale
        plain = distribution.unsquared() if distribution.is_squared else distribution
        inverse = 1 / (scale.to(d) if isinstance(scale, torch.Tensor) else d.new_full((), scale))
        x = d * d.abs() if distribution.is_squared else d
        if inverse.requires_grad:  # through `blend`, so that the sum over pixels has a fixed order
            one = torch.zeros(len(d), 1, dtype=torch.int64, device=d.device)
            return plain.log_cdf(self.view.ops.blend(inverse.reshape(1, 1), one, x[:, None])[:, 0])
        return plain.log_cdf(x * inverse.reshape(()))

    def _mix(self, found: Layers, log_weight: torch.Tensor, values: Any, background: float | None) -> Mixture:
        """Mix rows (P, C); gradients in them, in distances, depths, γ and the range."""
        # A number stays on the host: the kernel takes it as one.
        gamma, dtype = self.gamma, values.dtype
        gamma = gamma.to(dtype) if isinstance(gamma, torch.Tensor) else torch.tensor(gamma, dtype=dtype, device="cpu")
        steps = 1 / gamma.clamp(min=LEAST_GAMMA)
        mixture: Mixture = self.view.ops.mix(
            values, log_weight, found.depth, found.start, self.ends.to(values.dtype), steps.reshape(1), row=found.row,
            background=background,
        )  # fmt: skip
        return mixture


def _number(value: float | torch.Tensor | None) -> float:
    return 0.0 if value is None else float(value.detach() if isinstance(value, torch.Tensor) else value)


def _table(
    distribution: soft.Distribution, device: torch.device | str = "cpu", times: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """Return log F at `_table_distances`, all of them `times` as much."""
    if isinstance(times, torch.Tensor):
        times = torch.nan_to_num(times.detach(), 1.0)
    d = _table_distances(device)
    plain = distribution.unsquared() if distribution.is_squared else distribution
    return plain.log_cdf((d * d.abs() if distribution.is_squared else d) * times).clamp(min=NEVER)


def _farthest(table: torch.Tensor, least: float) -> float:
    """Return how far outside, in units, log F falls to `least`; infinite if nowhere."""
    left = table[: _TABLE // 2 + 1]
    at = int(torch.searchsorted(left, left.new_tensor(least), right=True)) - 1
    return math.inf if at < 0 else float(-_table_distances()[at])


@constant_in_graphs
def _farthest_constant(
    kernel_id: int, shape: float, shift: float, is_reversed: bool, is_squared: bool, least: float
) -> float:
    return _farthest(_table(soft.from_kernel(kernel_id, shape, shift, is_reversed, is_squared)), least)


def _table_distances(device: torch.device | str = "cpu") -> torch.Tensor:
    """Where `Ranking.table` has log F, in units; beyond 10 000 of them it ends."""
    u = torch.linspace(-1, 1, _TABLE, dtype=torch.float64, device=device)
    return u / (1 - u.abs()).clamp(min=1e-4)
