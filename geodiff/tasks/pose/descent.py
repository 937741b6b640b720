# SPDX-License-Identifier: Apache-2.0
"""Gradient descent of many poses at once, for losses of all kinds."""

import math
from typing import Any

import torch

from geodiff.tasks.pose.followed import Followed
from geodiff.tasks.pose.newton import final_cost, first_damping, improved, linearised

_LEVELS = 4  # of τ, and
_POLISHED = 3  # poses of each image after the first of them
# Columns of a step (N, 7) in the tangent space: rotation, image position, log of size (focal over distance), log of
# focal length; and a step length each, as a part of `lr`, by which they move the picture about equally.
_UNITS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5)
_DAMPING = 1e-4  # of the trace


class Descent(Followed):
    """Gradient descent of N poses at once, each towards its own image.

    Adam, but with the full matrix of second moments, C = mean g gᵀ, and steps along C^(−1/2) g: distance, focal length
    and rotation pull at one another, and the axes of a rotation are nobody's choice (Agarwal et al., "Efficient
    full-matrix adaptive regularization", 2019). Half-way, all but the best poses are dropped; twins of the best, which
    silhouettes hardly tell from them, are added. Levenberg–Marquardt steps at four τ follow: where rotation, distance
    and focal length pull at one another, gradient descent creeps.
    """

    _each = (*Followed._each, "first", "second", "age")

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        count, dtype = len(self.poses), self.value.dtype
        self.first = torch.zeros(count, 7, dtype=dtype)
        self.second = torch.zeros(count, 7, 7, dtype=torch.float64)
        self.age = torch.zeros(count, dtype=torch.long)  # steps in the moments

    def advance(self) -> torch.Tensor:
        """Take one step; return the loss (N,) before it."""
        settings = self.settings
        if self.step == settings.prune_step:
            self.keep(settings.finalists)
            self.add_twins()
        targets = self.coarse if self.step < settings.prune_step else self.fine
        step = torch.zeros_like(self.first, requires_grad=True)
        loss = self.loss(self.poses.moved(step, settings).cameras(), targets[self.image], settings.scale_at(self.step))
        (gradient,) = torch.autograd.grad(loss.sum(), step)
        # Renders are finite; a loss or distribution of the user's may not be. Such a pose stays where it is.
        gradient = torch.where(torch.isfinite(gradient).all(-1, keepdim=True), gradient, 0)
        self._move(gradient)
        self.value = torch.where(torch.isfinite(loss), loss, math.inf).detach()
        self.step += 1
        return self.value

    def _move(self, gradient: torch.Tensor) -> None:
        b1, b2 = self.settings.betas
        unit = gradient.new_tensor(_UNITS)
        gradient = gradient * unit
        self.age = self.age + 1
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * (gradient[:, :, None] * gradient[:, None, :]).double()
        first = self.first.double() / (1 - b1**self.age)[:, None]
        spread, axes = torch.linalg.eigh(self.second / (1 - b2**self.age)[:, None, None])
        floor = _DAMPING * spread.clamp_min(0).sum(-1, keepdim=True) + 1e-30
        along = (axes.mT @ first[..., None])[..., 0] / (spread.clamp_min(0) + floor).sqrt()
        move = -(axes @ along[..., None])[..., 0].to(gradient.dtype) * self.settings.lr_at(self.step) * unit
        self.poses = self.poses.moved(move, self.settings).settled()

    @torch.no_grad()
    def finish(self) -> None:
        """Bring the poses to the bottom of their valleys, and measure their loss at the last τ."""
        if self.settings.polish:
            self._polish()
        self.value = final_cost(self.loss, self.poses, self.fine[self.image])

    def _polish(self) -> None:
        settings, (start, end) = self.settings, self.settings.scale
        for level in range(1, _LEVELS + 1):
            scale, images = start * (end / start) ** (level / _LEVELS), self.fine[self.image]
            model = linearised(self.loss, self.poses, images, scale)
            damping = first_damping(len(self.poses))
            for _ in range(settings.polish):
                self.poses, model, damping = improved(self.loss, self.poses, images, scale, model, damping)
            self.value = model.cost.to(self.value.dtype)
            if level == 1:
                self.keep(_POLISHED)

    def add_twins(self) -> torch.Tensor:
        """Add the twins of the best poses of each image, without moments."""
        new = super().add_twins()
        for name in ("first", "second", "age"):
            getattr(self, name)[new] = 0
        return new
