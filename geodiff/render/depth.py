# SPDX-License-Identifier: Apache-2.0
"""Which faces a pixel's colour comes from, and with which weights: the nearest alone, or a softmax over depth."""

import math

import torch

from geodiff.reference.fragments import Ranking
from geodiff.render.coverage import Coverage, Softness, reach_of
from geodiff.render.fragment_list import FragmentList, find, find_visible
from geodiff.render.shading import SurfaceColors
from geodiff.render.view import View

# Where F = 0: less than any logarithm of a number, but finite, so that nothing becomes NaN.
_NEVER = -1e30
_TABLE = 4097  # entries of the table of log F, by which fragments are ranked
# Finer differences of depth than this cannot be told from rounding, in either dtype.
_LEAST_GAMMA = 1e-15

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
        while math.isfinite(blur) and bool((reached & (found.dense_maps.face_id[..., 0] < 0)).any()):
            blur = 2 * blur if 0 < blur < 2 * max(height, width) / min(height, width) else math.inf
            found = find(view, blur=blur)
        return found

    def mix(self, found: FragmentList, colors: SurfaceColors, wanted: tuple[str, ...]) -> Maps:
        """Return the maps (B, H, W[, C]) asked for but rgb; depth and face_id unless only rgb is.

        Colours meet the background at once, in `ops.composite`.
        """
        if found.maps is None:
            return {}
        face_id, distance, _, depth = found.maps
        covered = distance[..., 0] >= 0
        maps = {"depth": torch.where(covered, depth[..., 0], torch.inf)}
        maps["face_id"] = torch.where(covered, face_id[..., 0], -1)
        for name, value in (("normal", colors.normal), ("uv", colors.uv)):
            if name in wanted and value is not None:
                maps[name] = found.dense(value)[..., 0, :] * covered[..., None]
        return maps


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
        self.depth_range, self.background, self.max_fragments = depth_range, background, max_fragments
        self.there: torch.Tensor | None = None  # (B, H, W), where some face is near enough for alpha
        if depth_range is None:
            self.ends = view.depth_ends()
        else:
            self.ends = view.clip.new_tensor(depth_range).expand(view.images, 2)

    def find(self, alpha: torch.Tensor, wanted: tuple[str, ...]) -> FragmentList:
        """Return the faces of largest weight.

        `alpha` (B, H, W) says what is covered: without a background among the faces, nothing else has a colour.
        """
        view, softness = self.view, self.softness
        reach, covered = reach_of(self.coverage, view, softness), alpha > 0
        if wanted != ("rgb",):
            with torch.no_grad():
                self.there = find_visible(view, softness.reach(view) if reach is None else reach).there[..., 0]
            covered = covered | self.there
        ranking = self._ranking()
        blur = math.inf
        if self.background is not None:
            blur = self._blur(ranking)
        elif reach is not None:
            blur = max(self._blur(ranking), reach)
        within = covered if self.background is None else None
        if self.max_fragments is not None:
            return find(view, k=self.max_fragments, blur=blur, ranking=ranking, within=within)
        k, kept = 32, None
        while kept is None:
            found = find(view, k=k, blur=blur, ranking=ranking, within=within)
            with torch.no_grad():
                kept = self._heaviest(found)
            k *= 2
        return kept

    def mix(self, found: FragmentList, colors: SurfaceColors, wanted: tuple[str, ...]) -> Maps:
        """Return the maps (B, H, W[, C]) asked for; depth and face_id unless only rgb is; "rest", the background's."""
        weights, shares, rest = self._weights(found)
        maps: Maps = {} if rest is None else {"rest": rest}
        if "rgb" in wanted:
            assert colors.color is not None
            maps["rgb"] = (shares[..., None] * found.dense(colors.color)).sum(dim=-2)
        if self.there is None:
            return maps
        there = self.there
        maps["depth"] = torch.where(there, (weights * found.dense(found.depth)).sum(dim=-1), torch.inf)
        best = weights.detach().argmax(dim=-1, keepdim=True)
        maps["face_id"] = torch.where(there, found.dense_maps.face_id.gather(-1, best)[..., 0], -1)
        for name, value in (("normal", colors.normal), ("uv", colors.uv)):
            if name in wanted and value is not None:
                maps[name] = (weights[..., None] * found.dense(value)).sum(dim=-2) * there[..., None]
        return maps

    def _ranking(self) -> Ranking:
        """Return what picks the fragments: `log F` in a table, and one over the depth that γ stands for."""
        distribution, scale = self.softness.distribution, self.softness.scale
        with torch.no_grad():
            tau = float(torch.as_tensor(scale).detach())
            unit = tau**0.5 if distribution.is_squared else tau
            d = _table_distances()
            plain = distribution.unsquared() if distribution.is_squared else distribution
            table = plain.log_cdf(d * d.abs() if distribution.is_squared else d).clamp(min=_NEVER)
            span = (self.ends[:, 1] - self.ends[:, 0]).detach().double()
            return Ranking(table, unit, 1 / (torch.where(span > 0, span, 1.0) * self._gamma()))

    def _gamma(self) -> float:
        return max(float(torch.as_tensor(self.gamma).detach()), _LEAST_GAMMA)

    def _blur(self, ranking: Ranking) -> float:
        """Return how far outside a face its weight still counts, NDC; infinite if there is no end.

        A weight is `F(d)·exp(z/γ)`, so a face far away in the image counts where it is far in front of the others. It
        is held against what a pixel surely has: the background, or else, where alpha is above `max_error`, a face with
        at least the F below which none counts for alpha. All that is left out has `max_error` of a pixel's weights.
        """
        faces = int(self.view.layout[:, 2].max()) if self.view.images else 0
        max_error = self.softness.max_error
        if not max_error > 0 or faces == 0:
            return math.inf
        front, back = 1.0, 0.0
        if self.depth_range is not None:
            near, far = self.depth_range
            depths = self.view.clip[:, 2].detach().clamp(min=self.view.camera.near)
            front, back = ((far - float(depth)) / (far - near) for depth in (depths.min(), depths.max()))
        least = math.log(max_error / faces)
        if self.background is None:
            epsilon = self.softness.tconorm.cull_threshold(max_error, faces)
            least += math.log(epsilon) if epsilon > 0 else -math.inf
        else:
            back = self.background
        least -= max(front - back, 0.0) / self._gamma()
        left = ranking.table[: _TABLE // 2 + 1]
        at = int(torch.searchsorted(left, torch.tensor(least, dtype=left.dtype), right=True)) - 1
        return math.inf if at < 0 else float(ranking.unit * -_table_distances()[at])

    def _heaviest(self, found: FragmentList) -> FragmentList | None:
        """Return the fragments without which weights change by less than `max_error`; None if k are too few."""
        weights = self._weights(found)[0]
        faces = int(self.view.layout[:, 2].max()) if self.view.images else 0
        if not found.shape.numel():
            return found
        least = self.softness.max_error / max(faces, 1)
        last = found.dense(torch.ones_like(found.barycentric[:, 0]))[..., -1] * weights[..., -1]
        return found.only(weights > least) if found.shape[-1] >= faces or float(last.max()) <= least else None

    def _weights(self, found: FragmentList) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return the weights over their sum, `(B, H, W, k)`, the same with and that of the background.

        The largest z of the pixel is subtracted first, so nothing overflows. The first weights, of means over the
        faces, have the sum 1 where there are any. In the second, of colours, a background takes part as a face of F = 1
        and its z.

        Gradients: in distances, depths, τ, the distribution's parameters, γ and the range.
        """
        distribution, background, ops = self.softness.distribution, self.background, self.view.ops
        d, depth = found.distance, found.depth
        plain = distribution.unsquared() if distribution.is_squared else distribution
        # Through `blend`, so that the sums over pixels for τ, γ and the range have a fixed order.
        one = torch.zeros(len(d), 1, dtype=torch.int64, device=d.device)
        inverse = 1 / torch.as_tensor(self.softness.scale, dtype=d.dtype, device=d.device).reshape(1, 1)
        x = ops.blend(inverse, one, (d * d.abs() if distribution.is_squared else d)[:, None])[:, 0]
        log_f = plain.log_cdf(x).clamp(min=_NEVER)
        near, far = ops.blend(self.ends.to(d.dtype), found.image[:, None], torch.ones_like(d)[:, None]).unbind(1)
        span = far - near
        z = torch.where(span > 0, (far - depth) / torch.where(span > 0, span, 1.0), 0.5)
        steps = 1 / torch.as_tensor(self.gamma, dtype=d.dtype, device=d.device).clamp(min=_LEAST_GAMMA).reshape(1, 1)
        with torch.no_grad():
            top = found.dense(z.detach(), -torch.inf).amax(dim=-1)
            top = top.clamp(min=0.0 if background is None else background)
            pixel = found.place // found.shape[-1]
        ahead = ops.blend(steps, one, (z - top.reshape(-1)[pixel])[:, None])[:, 0]
        logits = found.dense(log_f + ahead, 2 * _NEVER)
        weights = logits.softmax(dim=-1)
        if background is None:
            return weights, weights, None
        rest = (background - top) * steps.reshape(())
        shares = torch.cat([logits, rest[..., None]], dim=-1).softmax(dim=-1)
        return weights, shares[..., :-1], shares[..., -1]


def _table_distances() -> torch.Tensor:
    """Where `Ranking.table` has log F, in units; beyond 10 000 of them it ends."""
    u = torch.linspace(-1, 1, _TABLE, dtype=torch.float64)
    return u / (1 - u.abs()).clamp(min=1e-4)
