# SPDX-License-Identifier: Apache-2.0
"""What a pose is fitted to: images scaled to the size of the search, and how renders are compared with them."""

import math
from dataclasses import dataclass
from typing import Any

import torch

from geodiff import losses
from geodiff.render.renderer import Renderer
from geodiff.scene.camera import Camera
from geodiff.scene.light import as_lights
from geodiff.scene.mesh import Mesh
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.validation import shapes_repr

_RENDERS = {"color": "rgb", "depth": "depth"}


@dataclass(frozen=True)
class PoseTargets:
    """T images of one size.

    Attributes:
        alpha: coverage (T, H, W) in [0, 1].
        color: colour over black (T, H, W, 3), or None.
        depth: along the viewing direction (T, H, W), 0 where unknown, or None.
    """

    __repr__ = shapes_repr

    alpha: torch.Tensor
    color: torch.Tensor | None = None
    depth: torch.Tensor | None = None

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.alpha.shape[-2], self.alpha.shape[-1]

    def __getitem__(self, index: torch.Tensor) -> "PoseTargets":
        return PoseTargets(*(None if v is None else v[index] for v in (self.alpha, self.color, self.depth)))  # type: ignore[arg-type]

    def to(self, device: torch.device) -> "PoseTargets":
        """Return the images on another device."""
        return PoseTargets(*(None if v is None else v.to(device) for v in (self.alpha, self.color, self.depth)))  # type: ignore[arg-type]

    def softened(self, width: float) -> "PoseTargets":
        """Return the images with the coverage as soft as that of a render whose edges have a standard deviation in NDC.

        What a pixel averages over already counts.
        """
        pixel = 2.0 / min(self.image_size)
        variance = (width / pixel) ** 2 - 1 / 12
        if variance < 0.01:
            return self
        rows, columns = (_blur(n, math.sqrt(variance), self.alpha) for n in self.image_size)
        return PoseTargets(rows @ self.alpha @ columns.mT, self.color, self.depth)

    def resized(self, shorter: int) -> "PoseTargets":
        """Return the images averaged down to a shorter side of so many pixels; smaller ones stay as they are."""
        if min(self.image_size) <= shorter:
            return self
        rows, columns = (_averages(n, min(self.image_size), shorter, self.alpha) for n in self.image_size)

        def scaled(image: torch.Tensor) -> torch.Tensor:
            return rows @ image @ columns.mT

        alpha = scaled(self.alpha).clamp(0, 1)
        color = None if self.color is None else scaled(self.color.movedim(-1, 1)).movedim(1, -1)
        depth = None
        if self.depth is not None:
            known = scaled((self.depth > 0).to(self.depth.dtype))
            # A pixel half of which is unknown lies on an outline: the mean over what is known would be a guess.
            depth = torch.where(known > 0.5, scaled(self.depth) / known.clamp_min(0.5), 0)
        return PoseTargets(alpha, color, depth)


def _blur(pixels: int, deviation: float, like: torch.Tensor) -> torch.Tensor:
    """Return (pixels, pixels): a Gaussian of some pixels' standard deviation; the image goes on as it ends."""
    at = torch.arange(pixels, dtype=torch.float64)
    weight = (-0.5 * ((at - at[:, None]) / deviation).square()).exp()
    return (weight / weight.sum(dim=-1, keepdim=True)).to(like.dtype)


def _averages(pixels: int, shorter: int, wanted: int, like: torch.Tensor) -> torch.Tensor:
    """Return (N, pixels): new pixels as means over old ones, so that NDC is the same: the middle stays the middle."""
    ratio = shorter / wanted  # old pixels a new one
    count = max(round(pixels / ratio), 1)
    edges = 0.5 * pixels + (torch.arange(count + 1, dtype=torch.float64) - 0.5 * count) * ratio
    old = torch.arange(pixels, dtype=torch.float64)
    overlap = torch.minimum(edges[1:, None], old + 1) - torch.maximum(edges[:-1, None], old)
    return (overlap.clamp_min(0) / ratio).to(like.dtype)


class PoseLoss:
    """Render candidates and compare each with its image.

    Args:
        mesh: one mesh.
        radius: of its bounding sphere, the unit of depth.
        settings: loss terms, distribution and T-conorm.
        lights: for colour.
        device: where renders are made and compared; poses and images may be the host's, and come over at each call.
    """

    def __init__(
        self,
        mesh: Mesh,
        radius: float,
        settings: FitPoseSettings,
        lights: Any = None,
        device: torch.device | None = None,
    ) -> None:
        self.mesh, self.radius, self.settings, self.lights = mesh, radius, settings, lights
        self.device = mesh.device if device is None else device
        self.there = mesh
        if self.device != mesh.device:
            self.there = mesh.to(self.device)
        if lights is not None:
            self.lights = [light.to(self.device) for light in as_lights("fit_pose", lights, ())]

    def __call__(self, cameras: Camera, targets: PoseTargets, scale: float) -> torch.Tensor:
        """Return the loss (N,) of N cameras and N images, where the cameras are."""
        home, targets = cameras.device, targets.to(self.device)
        out = self._rendered(cameras, targets.image_size, scale)
        alpha = out.alpha.clamp(0, 1)
        loss: torch.Tensor = alpha.new_zeros(len(alpha))
        if "silhouette" in self.settings.loss:
            loss = loss + losses.iou(alpha, targets.alpha, reduction="none")
        for differences, count in self._differences(out, targets):
            loss = loss + differences.square().sum(-1) / count
        return loss.to(home)

    def residuals(self, cameras: Camera, targets: PoseTargets, scale: float) -> torch.Tensor:
        """Return (N, R) numbers whose sum of squares is a loss like this one, with L2 for the overlap; on `device`."""
        targets = targets.to(self.device)
        out = self._rendered(cameras, targets.image_size, scale)
        parts = []
        if "silhouette" in self.settings.loss:
            area = targets.alpha.sum((-2, -1))
            parts.append((out.alpha.clamp(0, 1) - targets.alpha).flatten(1) / area.sqrt()[:, None])
        parts += [differences / count.sqrt()[:, None] for differences, count in self._differences(out, targets)]
        return torch.cat(parts, dim=-1)

    def _rendered(self, cameras: Camera, size: tuple[int, int], scale: float) -> Any:
        extra = tuple(_RENDERS[name] for name in self.settings.loss if name in _RENDERS)
        options: dict[str, Any] = {"coverage": self.settings.coverage}
        if extra:
            options["outputs"] = ("alpha", *extra)
        render: Any = Renderer(size, self.settings.distribution, scale, self.settings.tconorm, **options)
        render.warn_of_bias = False  # the settings say it
        cameras = cameras.to(self.device)
        return render(self.there, cameras, self.lights) if "rgb" in extra else render(self.there, cameras)

    def _differences(self, out: Any, targets: PoseTargets) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return differences (N, R) and the number of pixels (N,) of the terms that are mean squares."""
        result = []
        if "color" in self.settings.loss:
            assert targets.color is not None
            color = (out.rgb - targets.color).flatten(1) / math.sqrt(3.0)
            result.append((color, targets.alpha.sum((-2, -1))))
        if "depth" in self.settings.loss:
            assert targets.depth is not None
            known = targets.depth > 0
            both = known & torch.isfinite(out.depth)
            off = (torch.where(both, out.depth, 0) - torch.where(both, targets.depth, 0)) / self.radius
            # Bounded by 1, so that outlines a pixel off do not drown the rest; where the mesh is missing it is 1.
            bounded = torch.where(both, off / (1 + off.square()).sqrt(), known.to(off.dtype))
            result.append((bounded.flatten(1), known.sum((-2, -1)).clamp_min(1).to(off.dtype)))
        return result
