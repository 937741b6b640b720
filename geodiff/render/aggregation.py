# SPDX-License-Identifier: Apache-2.0
"""Which faces a pixel's colour comes from, and with which weights."""

import math
from typing import NamedTuple

import torch

from geodiff import ops, reference, soft
from geodiff.ops.culling import radius_of
from geodiff.reference.fragments import Fragments, Ranking
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch

# Where F = 0: less than any logarithm of a number, but finite, so that nothing becomes NaN.
_NEVER = -1e30
_TABLE = 4097  # entries of the table of log F, by which fragments are ranked
# Finer differences of depth than this cannot be told from rounding, in either dtype.
_LEAST_GAMMA = 1e-15


class Found(NamedTuple):
    """The fragments of a batch of images, those that are there in one list.

    Attributes:
        shape: `(B, H, W, k)`.
        place: where in the flattened `(B·H·W·k)` each of the P is.
        image: which image it is in, (P,).
        face: (P,).
        barycentric: (P, 3).
        maps: `(B, H, W, k)`; None if they were not asked for.
    """

    shape: torch.Size
    place: torch.Tensor
    image: torch.Tensor
    face: torch.Tensor
    barycentric: torch.Tensor
    maps: Fragments | None

    @property
    def fragments(self) -> Fragments:
        """The maps; only where they were asked for."""
        assert self.maps is not None
        return self.maps

    @property
    def distance(self) -> torch.Tensor:
        """(P,)."""
        return self.fragments.distance.reshape(-1).index_select(0, self.place)

    @property
    def depth(self) -> torch.Tensor:
        """(P,)."""
        return self.fragments.depth.reshape(-1).index_select(0, self.place)

    def only(self, kept: torch.Tensor) -> "Found":
        """Return those fragments alone for which `kept` (B, H, W, k) holds; the maps stay."""
        own = kept.reshape(-1).index_select(0, self.place).nonzero()[:, 0]
        place, image, face, barycentric = (part.index_select(0, own) for part in self[1:5])
        return Found(self.shape, place, image, face, barycentric, self.maps)

    def dense(self, values: torch.Tensor, fill: float = 0.0) -> torch.Tensor:
        """Return values (P, C) or (P,) as (B, H, W, k[, C]), `fill` where there is no fragment."""
        full = values.new_full((self.shape.numel(), *values.shape[1:]), fill)
        return full.index_copy(0, self.place, values).reshape(*self.shape, *values.shape[1:])


def find(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    image_size: tuple[int, int],
    near: float,
    twin: bool,
    k: int = 1,
    blur: float = 0.0,
    ranking: Ranking | None = None,
    within: torch.Tensor | None = None,
) -> Found:
    """Find the visible face of each pixel, or the k of the largest weight; only those `within` (B, H, W) are listed."""
    module = reference if twin else ops
    order = "visible" if ranking is None else "weight"
    found = module.fragments(
        clip, faces, layout, k=k, blur=blur, image_size=image_size, near=near, order=order, ranking=ranking
    )
    face, shape = found.face_id.reshape(-1), found.face_id.shape
    listed = found.face_id >= 0 if within is None else (found.face_id >= 0) & within[..., None]
    place = listed.reshape(-1).nonzero()[:, 0]
    barycentric = found.barycentric.reshape(-1, 3).index_select(0, place)
    return Found(shape, place, _images(place, shape), face.index_select(0, place), barycentric, found)


def find_visible(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    image_size: tuple[int, int],
    near: float,
    twin: bool,
    blur: float,
) -> Found:
    """Find the visible face of each pixel, as `find` does, but without the maps of distance and depth."""
    module = reference if twin else ops
    found = module.visible(clip, faces, layout, blur=blur, image_size=image_size, near=near)
    shape = torch.Size((len(layout), *image_size, 1))
    return Found(shape, found.place, _images(found.place, shape), found.face_id, found.barycentric, None)


def _images(place: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    return place // shape[1:].numel() if shape[0] > 1 else place.new_zeros(1).expand(len(place))


def blur_for(
    law: soft.Distribution,
    rule: soft.TConorm,
    scale: float | torch.Tensor,
    mesh: Mesh | MeshBatch,
    max_error: float,
) -> float:
    """Return how far outside a face its weight still counts: as far as the silhouette looks."""
    most = len(mesh.faces) if isinstance(mesh, Mesh) else int(mesh.layout[:, 2].max())
    return radius_of(law, rule, scale, most, max_error)


def ranking_for(
    law: soft.Distribution, scale: float | torch.Tensor, gamma: float | torch.Tensor, range_: torch.Tensor
) -> Ranking:
    """Return what picks the fragments: `log F` in a table, and one over the depth that γ stands for."""
    with torch.no_grad():
        tau = float(torch.as_tensor(scale).detach())
        unit = tau**0.5 if law.is_squared else tau
        d = _table_distances()
        plain = law.unsquared() if law.is_squared else law
        table = plain.log_cdf(d * d.abs() if law.is_squared else d).clamp(min=_NEVER)
        span = (range_[:, 1] - range_[:, 0]).detach().double()
        sharpness = 1 / (torch.where(span > 0, span, 1.0) * max(float(torch.as_tensor(gamma).detach()), _LEAST_GAMMA))
        return Ranking(table, unit, sharpness)


def _table_distances() -> torch.Tensor:
    """Where `Ranking.table` has log F, in units; beyond 10 000 of them it ends."""
    u = torch.linspace(-1, 1, _TABLE, dtype=torch.float64)
    return u / (1 - u.abs()).clamp(min=1e-4)


def softmax_blur(
    ranking: Ranking,
    rule: soft.TConorm,
    gamma: float | torch.Tensor,
    ends: tuple[float, float] | None,
    depths: torch.Tensor,
    background: float | None,
    layout: torch.Tensor,
    max_error: float,
) -> float:
    """Return how far outside a face its weight in a softmax over depth still counts, NDC; infinite if there is no end.

    A weight is `F(d)·exp(z/γ)`, so a face far away in the image counts where it is far in front of the others. It is
    held against what a pixel surely has: the background, or else, where alpha is above `max_error`, a face with at
    least the F below which none counts for alpha.

    Args:
        ranking: F, as `ranking_for` has it.
        rule: the T-conorm.
        gamma: γ.
        ends: depths at which z is 1 and 0, or None for those of the scene.
        depths: of all vertices.
        background: its z, or None if it takes no part.
        layout: of the images.
        max_error: what all that is left out may have of the weights of a pixel.
    """
    faces = int(layout[:, 2].max()) if len(layout) else 0
    if not max_error > 0 or faces == 0:
        return math.inf
    front, back = 1.0, 0.0
    if ends is not None:
        front, back = ((ends[1] - float(depth)) / (ends[1] - ends[0]) for depth in (depths.min(), depths.max()))
    least = math.log(max_error / faces)
    if background is None:
        epsilon = rule.cull_threshold(max_error, faces)
        least += math.log(epsilon) if epsilon > 0 else -math.inf
    else:
        back = background
    least -= max(front - back, 0.0) / max(float(torch.as_tensor(gamma).detach()), _LEAST_GAMMA)
    left = ranking.table[: _TABLE // 2 + 1]
    at = int(torch.searchsorted(left, torch.tensor(least, dtype=left.dtype), right=True)) - 1
    return math.inf if at < 0 else float(ranking.unit * -_table_distances()[at])


def heaviest(found: Found, weights: torch.Tensor, layout: torch.Tensor, max_error: float) -> Found | None:
    """Return the fragments without which `weights` change by less than `max_error`; None if k are too few for that."""
    faces = int(layout[:, 2].max()) if len(layout) else 0
    if not found.shape.numel():
        return found
    least = max_error / max(faces, 1)
    last = found.dense(torch.ones_like(found.barycentric[:, 0]))[..., -1] * weights[..., -1]
    return found.only(weights > least) if found.shape[-1] >= faces or float(last.max()) <= least else None


def softmax_weights(
    found: Found,
    law: soft.Distribution,
    scale: float | torch.Tensor,
    gamma: float | torch.Tensor,
    range_: torch.Tensor,
    background: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Return the weights `F(d/τ)·exp(z/γ)` over their sum, `(B, H, W, k)`, the same with and that of the background.

    `z = (far − depth)/(far − near)` is 1 at the near and 0 at the far end of `range_` (B, 2). The largest z of the
    pixel is subtracted first, so nothing overflows. The first weights, of means over the faces, have the sum 1 where
    there are any. In the second, of colours, a `background` takes part as a face of F = 1 and that z.

    Gradients: in distances, depths, τ, the distribution's parameters, γ and the range.
    """
    d, depth = found.distance, found.depth
    plain = law.unsquared() if law.is_squared else law
    # Through `blend`, so that the sums over pixels for τ, γ and the range have a fixed order.
    one = torch.zeros(len(d), 1, dtype=torch.int64, device=d.device)
    inverse = 1 / torch.as_tensor(scale, dtype=d.dtype, device=d.device).reshape(1, 1)
    x = ops.blend(inverse, one, (d * d.abs() if law.is_squared else d)[:, None])[:, 0]
    log_f = plain.log_cdf(x).clamp(min=_NEVER)
    near, far = ops.blend(range_.to(d.dtype), found.image[:, None], torch.ones_like(d)[:, None]).unbind(1)
    span = far - near
    z = torch.where(span > 0, (far - depth) / torch.where(span > 0, span, 1.0), 0.5)
    steps = 1 / torch.as_tensor(gamma, dtype=d.dtype, device=d.device).clamp(min=_LEAST_GAMMA).reshape(1, 1)
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
