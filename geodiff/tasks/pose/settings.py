# SPDX-License-Identifier: Apache-2.0
"""The settings of fit_pose, all in one place."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from geodiff import soft
from geodiff.settings import is_number
from geodiff.tasks.descent import MOST_STEPS, DescentSettings
from geodiff.validation import choice, fail, integer, number, positive, seed_number

LOSSES = ("silhouette", "color", "depth")
COVERAGES = ("contour", "faces", "edges")
TRANSLATIONS = ("free", "distance", "fixed")
_WHERE = "fit_pose"


@dataclass(frozen=True)
class FitPoseSettings(DescentSettings):
    """How a camera pose is fitted to an image: everything but the data.

    Attributes:
        steps: gradient steps of each start that is followed to the end, ≥ 1.
        polish: Gauss–Newton steps at each of four τ after the descent, ≥ 0. Their Jacobian, of up to seven
            numbers, is by central differences of renders.
        loss: what is compared, ``"silhouette"``, ``"color"`` or ``"depth"``; several are added. 1 − IoU of the
            coverage, squared difference over black, and squared difference in radii of the mesh, where both show it.
        translation: ``"free"``; ``"distance"``, the middle of the mesh stays where it is in the image; or ``"fixed"``,
            only the rotation moves.
        focal: let the focal length move, too. From one silhouette it is told apart from the distance only by how
            strong the perspective is.
        candidates: how many rotations are looked at before the descent, ≥ 1. The first is the start itself.
        starts: how many of them, the best that are well apart, are followed by gradient descent, ≥ 1.
        finalists: how many of those are followed to the end, ≥ 1.
        prune_at: share of the steps after which only the finalists go on, in (0, 1).
        spread: candidates lie within this angle of the start, in degrees, in [0, 180]; None: 60 where there is a start,
            else 180, which is all rotations. 0 follows the start alone.
        scale: τ at the first and at the last step, geometric in between. Wide edges first, which see far, and narrow
            ones last, which are exact. In NDC (NDC² for a squared distribution).
        lr: step length at the first step, in radians, > 0. Half of it in NDC for the image position, and relative for
            distance and focal length.
        lr_decay: what is left of the step length at the last step, in (0, 1], geometric in between.
        betas: decay of the first and second moments of the gradient, each in [0, 1).
        distribution: the soft edge, such as logistic or 'gamma(0.5).reversed'. An object or a name of `geodiff.soft`.
        coverage: ``"contour"``, ``"faces"`` or ``"edges"``, as `Renderer` has them. The contour is not fattened by
            faces smaller than τ, which the others are, so wide edges do not pull at distance and focal length.
        tconorm: how faces are joined, such as probabilistic or 'yager(2)'; the contour needs none. An object or a name
            of `geodiff.soft`.
        search_size: pixels of the shorter side for the candidates and until ``prune_at``; larger images are averaged.
        size: pixels of the shorter side afterwards, at most.
        checkpoint_seconds: seconds between checkpoints, where there is an output folder; 0: after each step; None:
            never.
        seed: of the candidates.

    Raises:
        TypeError, ValueError: a value of another type or out of its range.

    Example:
        >>> FitPoseSettings(steps=50, loss="silhouette").loss
        ('silhouette',)
    """

    _where = _WHERE

    steps: int = 60
    polish: int = 6
    loss: str | Sequence[str] = ("silhouette",)
    translation: str = "free"
    focal: bool = False
    candidates: int = 1000
    starts: int = 24
    finalists: int = 6
    prune_at: float = 0.5
    spread: float | None = None
    scale: tuple[float, float] = (2e-2, 1e-3)
    lr: float = 0.1
    lr_decay: float = 0.05
    betas: tuple[float, float] = (0.7, 0.95)
    distribution: "soft.Distribution | str | Callable[..., Any]" = "logistic"
    coverage: str = "contour"
    tconorm: "soft.TConorm | str | Callable[..., Any]" = "probabilistic"
    search_size: int = 32
    size: int = 64
    checkpoint_seconds: float | None = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, MOST_STEPS),
            ("candidates", 1, 10**6),
            ("starts", 1, 10**6),
            ("finalists", 1, 10**6),
            ("search_size", 8, None),
            ("size", 8, None),
            ("polish", 0, 10**6),
        ):
            integer(_WHERE, name, getattr(self, name), low, high)
        seed_number(_WHERE, self.seed)
        losses = (self.loss,) if isinstance(self.loss, str) else tuple(self.loss)
        for name in losses:
            choice(_WHERE, "loss", name, LOSSES)
        if not losses or len(set(losses)) < len(losses):
            raise fail(_WHERE, "loss", "one or several different terms", repr(self.loss), f"Of {', '.join(LOSSES)}.")
        object.__setattr__(self, "loss", losses)
        choice(_WHERE, "translation", self.translation, TRANSLATIONS)
        choice(_WHERE, "coverage", self.coverage, COVERAGES)
        if not isinstance(self.focal, bool):
            raise fail(_WHERE, "focal", "True or False", self.focal, error=TypeError)
        positive(_WHERE, "lr", self.lr, "0.1 (radians) is a good start.")
        number(_WHERE, "lr", self.lr, 0, 10, "0.1 (radians) is a good start.")
        if not is_number(self.prune_at) or not 0 < self.prune_at < 1:
            raise fail(_WHERE, "prune_at", "a number in (0, 1)", self.prune_at)
        if self.spread is not None and (not is_number(self.spread) or not 0 <= self.spread <= 180):
            raise fail(_WHERE, "spread", "an angle in [0, 180] degrees", self.spread)
        self._check_descent()

    @property
    def prune_step(self) -> int:
        """The step at whose start all but the finalists stop, and the image grows to ``size``."""
        return math.ceil(self.prune_at * self.steps)
