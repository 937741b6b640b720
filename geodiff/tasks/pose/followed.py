# SPDX-License-Identifier: Apache-2.0
"""What solvers that follow many poses at once have in common: which there are, and which go on."""

import math
from typing import Any

import torch

from geodiff.tasks.checkpoint import Like
from geodiff.tasks.pose.poses import Poses
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.pose.target import PoseLoss, PoseTargets

_TWINS = 2  # poses of each image whose twins are tried


class Followed:
    """N poses that are followed at once, each towards its own image. Subclasses say how, in `advance` and `finish`.

    Args:
        poses: where it starts.
        image: (N,) which of the T targets each belongs to.
        targets: T images.
        settings: see `FitPoseSettings`.
        loss: what is minimised.
        twins: (K, 3, 3) of `half_turns`.
    """

    _each: tuple[str, ...] = ("image", "number", "value")  # what there is of each pose

    def __init__(
        self,
        poses: Poses,
        image: torch.Tensor,
        targets: PoseTargets,
        settings: FitPoseSettings,
        loss: PoseLoss,
        twins: torch.Tensor | None = None,
    ) -> None:
        self.poses, self.image, self.settings, self.loss = poses, image, settings, loss
        self.coarse, self.fine = targets.resized(settings.search_size), targets.resized(settings.size)
        self.number = torch.arange(len(poses))  # of each start, to find it again
        self.twins = poses.rotation.new_zeros(0, 3, 3) if twins is None else twins
        self.step = 0
        self.value = torch.full((len(poses),), math.inf, dtype=targets.alpha.dtype)

    def advance(self) -> torch.Tensor:
        """Take one step; return the loss (N,) before it."""
        raise NotImplementedError

    def finish(self) -> None:
        """Measure the loss of the poses at the end, at the last τ."""
        raise NotImplementedError

    def own(self, target: int) -> torch.Tensor:
        """Return the poses of an image, best first."""
        own = (self.image == target).nonzero()[:, 0]
        return own[self.value[own].argsort(stable=True)]

    def keep(self, count: int) -> None:
        """Go on with the best ``count`` poses of each image."""
        self.select(torch.cat([self.own(t)[:count].sort().values for t in range(len(self.coarse.alpha))]))

    def select(self, index: torch.Tensor) -> None:
        """Go on with some of the poses."""
        self.poses = self.poses[index]
        for name in self._each:
            setattr(self, name, getattr(self, name)[index])

    def add_twins(self) -> torch.Tensor:
        """Add the twins of the best poses of each image, with numbers of their own; return where they are."""
        count = len(self.poses)
        if not len(self.twins):
            return torch.arange(0)
        best = torch.cat([self.own(t)[:_TWINS] for t in range(len(self.coarse.alpha))])
        index = best.repeat_interleave(len(self.twins))
        self.select(torch.cat((torch.arange(count), index)))
        turns = self.twins.repeat(len(best), 1, 1)
        upside_down = turns.new_tensor([-1.0, -1.0, 1.0])[:, None]
        self.poses.rotation[count:] = upside_down * self.poses.rotation[count:] @ turns
        self.number[count:] = self.number.max() + 1 + torch.arange(len(index))
        return torch.arange(count, len(self.poses))

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint of poses of one image holds."""
        poses = {name: getattr(self.poses, name) for name in Poses.fields}
        return {"poses": poses, **{name: getattr(self, name) for name in self._each if name != "image"}}

    def like(self) -> dict[str, Like]:
        """Return what the state of a checkpoint must look like, but for the poses."""
        return {
            name: Like(value.dtype, ("N", *value.shape[1:]), finite=name not in ("value", "cost"))
            for name in self._each
            if name != "image"
            for value in (getattr(self, name),)
        }

    def load(self, state: dict[str, Any], step: int) -> None:
        """Go on from what a checkpoint holds, at a step."""
        self.poses = Poses(self.poses.lens, self.poses.centre, self.poses.radius, **state["poses"])
        for name in self._each:
            if name != "image":
                setattr(self, name, state[name])
        self.image = torch.zeros(len(self.poses), dtype=torch.long)
        self.step = step
