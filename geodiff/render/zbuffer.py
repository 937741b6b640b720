# SPDX-License-Identifier: Apache-2.0
"""Colours by a running soft z-buffer: what a rasteriser's loop over faces does, as a relaxed program."""

from typing import Any

import torch

from geodiff.constants import on_device
from geodiff.recording import is_replaying, or_nan, places, rows
from geodiff.reference.arguments import pixel_centres
from geodiff.reference.polygons import near_clip, paired_line_distances
from geodiff.render.coverage import Coverage, Edges, Softness
from geodiff.render.fragment_list import FragmentList, listed
from geodiff.render.shading import SurfaceColors
from geodiff.render.view import View
from geodiff.soft import choose, lt

Maps = dict[str, torch.Tensor]

_EMPTY = 2.0  # z of the buffer before anything is drawn: the far end of the scene is at 1
_MITRE = 3.0  # the product over three lines reaches beyond acute corners


class ZBuffer:
    """`for face: if the face covers the pixel and z < buffer: buffer = z, pixel = colour`, with both ifs relaxed.

    Faces come in the order of their indices, as in the loop. The probability of the first condition is the coverage of
    the face, that of the second one `sigmoid((buffer − z)/γ)`, z the depth, 0 and 1 at the ends of the scene.

    Args:
        view: what is seen.
        coverage: three edges where it is `Edges`, else the distance to the face.
        softness: F and τ.
        gamma: γ.
        depth_range: depths at which z is 0 and 1, or None for those of the scene.
        max_fragments: how many faces a pixel goes through, the nearest ones; None for all.
    """

    def __init__(
        self,
        view: View,
        coverage: Coverage,
        softness: Softness,
        gamma: float | torch.Tensor,
        depth_range: tuple[float, float] | None,
        max_fragments: int | None,
    ) -> None:
        self.view, self.softness, self.gamma, self.by_edges = view, softness, gamma, isinstance(coverage, Edges)
        self.count = max(view.most_faces if max_fragments is None else min(max_fragments, view.most_faces), 1)
        self.ends = view.depth_ends()
        if depth_range is not None:
            self.ends = self.ends.new_tensor(depth_range).expand_as(self.ends)

    def find(self, alpha: torch.Tensor, wanted: tuple[str, ...]) -> FragmentList:
        """Return the faces that pixels go through."""
        view = self.view
        blur = self.softness.reach(view) * (_MITRE if self.by_edges else 1.0)
        found = view.ops.fragments(*view.packed, **view.frame, k=self.count, blur=blur)
        face, shape = found.face_id.reshape(-1), found.face_id.shape
        place = places(face >= 0)
        barycentric = rows(found.barycentric.reshape(-1, 3), place, 0.0)
        if is_replaying():
            barycentric = or_nan(barycentric, (face >= 0).sum(), len(place))
        return listed(view, shape, place, rows(face, place, -1), barycentric, found)

    def mix(
        self, found: FragmentList, colors: SurfaceColors, wanted: tuple[str, ...]
    ) -> tuple[torch.Tensor | None, Maps]:
        """Return the maps (B, H, W[, C]) asked for; with rgb also "rest", the background's share."""
        maps = found.dense_maps
        order = maps.face_id.argsort(dim=-1, stable=True)
        there = (maps.face_id >= 0).gather(-1, order)
        near, far = (end[:, None, None, None] for end in self.ends.unbind(1))
        span = torch.where(far > near, far - near, 1.0)
        depth = torch.where(maps.face_id >= 0, maps.depth, 0.0)
        z = (torch.where(maps.face_id >= 0, (depth - near) / span, _EMPTY)).gather(-1, order)
        covered = found.dense(self._covered(found)).gather(-1, order)
        if is_replaying():
            covered = or_nan(covered, there.sum(), len(found.place))
        steps: Any = 1 / self.gamma
        buffer, drawn = torch.full_like(z[..., 0], _EMPTY), []
        for k in range(self.count):
            p = covered[..., k] * lt(z[..., k], buffer, steps)
            buffer = choose(p, z[..., k], buffer)
            drawn.append(p)
        kept = torch.stack(drawn, -1)
        left = [torch.ones_like(buffer)]
        for p in reversed(drawn):  # cumprod's gradient would look for zeros, and wait for a device
            left.append(left[-1] * (1 - p))
        weight, rest = kept * torch.stack(left[-2::-1], -1), left[-1]

        def mixed(values: torch.Tensor) -> torch.Tensor:  # (P, C)
            dense = found.dense(values)
            return (weight[..., None] * dense.gather(-2, order[..., None].expand_as(dense))).sum(-2)

        result: Maps = {}
        if colors.color is not None and "rgb" in wanted:
            result |= {"rgb": mixed(colors.color), "rest": rest}
        seen = (there & ~(covered <= self.softness.max_error)).any(-1)  # where it is NaN, too
        share = torch.where(seen, 1 - rest, 1.0).clamp(min=1e-30)
        if wanted != ("rgb",):
            mean = (weight * depth.gather(-1, order)).sum(-1) / share
            best = order.gather(-1, weight.argmax(-1, keepdim=True))
            result["depth"] = torch.where(seen, mean, torch.inf)
            result["face_id"] = torch.where(seen, maps.face_id.gather(-1, best)[..., 0], -1)
        for name, value in (("normal", colors.normal), ("uv", colors.uv)):
            if name in wanted and value is not None:
                result[name] = mixed(value) / share[..., None] * seen[..., None]
        return None, result

    def _covered(self, found: FragmentList) -> torch.Tensor:
        """Return the coverage of fragments (P,)."""
        law, scale, view = self.softness.distribution, self.softness.scale, self.view
        squared = law.is_squared
        plain: Any = law.unsquared() if squared else law
        if not self.by_edges:
            d = rows(found.dense_maps.distance.reshape(-1), found.place, 0.0)
            return plain.cdf((d * d.abs() if squared else d) / scale)
        start = on_device(view.layout, view.clip.device)[found.image]
        corners = view.clip[view.faces.long()[found.face + start[:, 1]] + start[:, :1]]
        pixel = found.place // found.shape[-1] % found.shape[1:3].numel()
        points = pixel_centres(view.image_size, view.clip)[pixel]
        d, has_line = paired_line_distances(points, near_clip(corners, view.camera.near))
        log_cdf = plain.log_cdf((d * d.abs() if squared else d) / scale)
        return torch.where(has_line, log_cdf, 0.0).sum(-1).exp()
