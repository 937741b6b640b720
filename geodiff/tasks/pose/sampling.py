# SPDX-License-Identifier: Apache-2.0
"""Poses without gradients: the best of some random turns, by masks of the hard rasteriser."""

import torch

from geodiff.optim import resgro_target
from geodiff.render.renderer import rasterize
from geodiff.tasks.pose.followed import Followed
from geodiff.tasks.pose.newton import final_cost
from geodiff.tasks.pose.poses import Poses
from geodiff.tasks.pose.search import aligned
from geodiff.tasks.pose.target import PoseTargets

_CHUNK = 128  # images rendered at once
_TURN, _LENS = [0, 1, 2], 6  # columns of a step (N, 7) in the tangent space


class Sampling(Followed):
    """Greedy search from N poses at once: each step goes to the best of some turns around, or stays.

    That is RESGRO (F. Petersen, "Learning with differentiable algorithms", 2022, section 7.4) on the pose itself: what
    is compared is a z-buffer's mask, by its intersection over union with the image, and nothing is differentiated.
    Turns are Gaussian, as far as the step length, which falls. The image position and the size of each go where area
    and centroid of its mask are the image's: as random numbers they would have to fit each turn by chance. Half-way,
    all but the best poses are dropped; twins of the best are added.
    """

    @torch.no_grad()
    def advance(self) -> torch.Tensor:
        """Take one step; return the loss (N,) after it."""
        settings, at = self.settings, self.step
        if at == settings.prune_step:
            self.keep(settings.finalists)
            self.add_twins()
        # In full size from the start, and as hard as what it is held against: coarse masks tell hardly any turns apart.
        poses, wanted = self.poses, self.fine[self.image].alpha
        hard = wanted >= 0.5
        thin = ~hard.any(-1).any(-1)[:, None, None]  # covers half of no pixel: nothing of it would be left
        targets = PoseTargets(torch.where(thin, wanted, hard.to(wanted.dtype)))
        columns = [*_TURN, _LENS] if settings.focal else _TURN
        count, tried = len(poses), settings.samples + 1
        index = torch.arange(count).repeat(tried)
        found: list[Poses] = []
        values: list[torch.Tensor] = []

        def loss(steps: torch.Tensor) -> torch.Tensor:  # (S, N, 3 or 4) -> (S, N)
            moves = steps.new_zeros(len(index), 7)
            moves[:, columns] = steps.reshape(len(index), -1)
            around, images = poses[index].moved(moves, settings).settled(), targets[index]
            if settings.translation != "fixed":
                around = aligned(self.loss.mesh, around, images, settings)
                for name in Poses.fields:  # the first of all tries is to stay
                    getattr(around, name)[:count] = getattr(poses, name)
            found.append(around)
            values.append(self._overlaps(around, images).reshape(tried, count))
            return values[0]

        # Of the step alone, so that a job that goes on draws what it would have drawn.
        noise = torch.Generator().manual_seed((settings.seed * 1_000_003 + at) % 2**63)
        still = torch.zeros(count, len(columns), dtype=poses.rotation.dtype)
        resgro_target(loss, still, settings.samples, settings.lr_at(at), keep=True, generator=noise)
        best = values[0].argsort(dim=0, stable=True)[0]
        self.poses = found[0][best * count + torch.arange(count)]
        self.value = values[0].amin(dim=0)
        self.step += 1
        return self.value

    def _overlaps(self, poses: Poses, targets: PoseTargets) -> torch.Tensor:
        """Return 1 − IoU of the hard masks of N poses and N images."""
        parts = []
        for i in range(0, len(poses), _CHUNK):
            some = torch.arange(i, min(i + _CHUNK, len(poses)))
            cameras = poses[some].cameras().to(self.loss.device)
            alpha = targets.alpha[some].to(self.loss.device)
            mask = rasterize(self.loss.there, cameras, targets.image_size).mask.to(alpha.dtype)
            both = (mask * alpha).sum((-2, -1))
            parts.append((1 - both / (mask.sum((-2, -1)) + alpha.sum((-2, -1)) - both)).to(poses.rotation.device))
        return torch.cat(parts)

    @torch.no_grad()
    def finish(self) -> None:
        """Measure the loss of the poses at the end, as the other solvers do: by the soft contour at the last τ."""
        self.value = final_cost(self.loss, self.poses, self.fine[self.image])
