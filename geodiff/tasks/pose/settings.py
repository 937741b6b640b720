# SPDX-License-Identifier: Apache-2.0
"""The settings of fit_pose, all in one place."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from geodiff import soft
from geodiff.settings import is_number
from geodiff.tasks.descent import MOST_STEPS, DescentSettings
from geodiff.validation import choice, fail, integer, number, positive, seed_number

LOSSES = ("silhouette", "color", "depth")
COVERAGES = ("contour", "faces", "edges")
TRANSLATIONS = ("free", "distance", "fixed")
METHODS = ("gradient", "sampling")
_WHERE = "fit_pose"
BLANK = ("steps", "candidates", "starts", "finalists")
# Of second-order steps from everywhere and around a guess, of gradient descent, and of sampling, both ways.
_DEFAULTS = {
    "everywhere": (24, 400, 24, 8),
    "near": (6, 400, 6, 3),
    "descent": (60, 1000, 24, 6),
    "sampling": (24, 400, 24, 8),
    "sampling near": (24, 400, 6, 3),
}


@dataclass(frozen=True)
class FitPoseSettings(DescentSettings):
    """How a camera pose is fitted to an image: everything but the data.

    Silhouettes that are compared by their contour alone, the default, go by second-order steps with exact Jacobians,
    all else by gradient descent; fields that are None are filled in as fits.

    Attributes:
        method: ``"gradient"``, of soft renders, as above; or ``"sampling"``: each step goes to the best of some random
            turns around, by the overlap of hard masks, for silhouettes alone. A baseline that needs no gradient.
        samples: of sampling: how many turns are tried at each step of each pose, ≥ 1.
        steps: of each start that is followed to the end, ≥ 1; None: 24 of second order (6 around a guess, and 24 again
            where that ends badly), 60 of gradient descent, or 24 of sampling.
        polish: after gradient descent, Gauss–Newton steps at each of four τ, ≥ 0. Their Jacobian, of up to seven
            numbers, is by central differences of renders.
        loss: what is compared, ``"silhouette"``, ``"color"`` or ``"depth"``; several are added. Squared
            differences of the coverage (in gradient descent 1 − IoU), of the colour over black, and in radii of the
            mesh, where both show it.
        translation: ``"free"``; ``"distance"``, the middle of the mesh stays where it is in the image; or ``"fixed"``,
            only the rotation moves.
        focal: let the focal length move, too. From one silhouette it is told apart from the distance only by how
            strong the perspective is.
        candidates: how many rotations are looked at before, ≥ 1, of silhouettes each at 64 turns about the viewing
            axis. The first is the start itself. None: 400 for silhouettes, fewer in proportion where the spread is less
            than a sphere, or 1000.
        starts: how many of them, the best that are well apart, are followed, ≥ 1. None: 24, or 6 by second-order
            steps around a guess.
        finalists: how many of those are followed to the end, ≥ 1. None: 8 (3 around a guess), or 6.
        prune_at: share of the steps after which only the finalists go on, in (0, 1).
        spread: candidates lie within this angle of the start, in degrees, in [0, 180]; None: 60 where there is a start,
            else 180, which is all rotations. 0 follows the start alone.
        scale: τ at the first and at the last step, geometric in between. Wide edges first, which see far, and narrow
            ones last, which are exact. In NDC (NDC² for a squared distribution).
        lr: of gradient descent, as are lr_decay, betas and polish: step length at the first step, in radians, > 0; of
            sampling the standard deviation. Half of it in NDC for the image position, and relative for distance and
            focal length.
        lr_decay: what is left of the step length at the last step, in (0, 1], geometric in between.
        betas: decay of the first and second moments of the gradient, each in [0, 1).
        distribution: the soft edge, such as logistic or 'gamma(0.5).reversed'. An object or a name of `geodiff.soft`.
        coverage: ``"contour"``, ``"faces"`` or ``"edges"``, as `Renderer` has them. The contour is not fattened by
            faces smaller than τ, which the others are, so wide edges do not pull at distance and focal length.
        tconorm: how faces are joined, such as probabilistic or 'yager(2)'; the contour needs none. An object or a name
            of `geodiff.soft`.
        search_size: pixels of the shorter side for the candidates and (but for sampling) until ``prune_at``; larger
            images are averaged.
        size: pixels of the shorter side afterwards, at most.
        keep_components: how many connected parts of each silhouette are kept, the largest first; 0: all. Drops the
            specks in masks of photographs, and says how many pixels; not for objects that views show in parts.
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
    _blank: ClassVar[tuple[str, ...]] = BLANK

    # Those that are None here are numbers once `completed`, which is how the job has them.
    method: str = "gradient"
    samples: int = 20
    steps: int = None  # type: ignore[assignment]
    polish: int = 6
    loss: str | Sequence[str] = ("silhouette",)
    translation: str = "free"
    focal: bool = False
    candidates: int = None  # type: ignore[assignment]
    starts: int = None  # type: ignore[assignment]
    finalists: int = None  # type: ignore[assignment]
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
    keep_components: int = 0
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
            ("samples", 1, 10**5),
            ("keep_components", 0, 10**6),
        ):
            if name not in BLANK or getattr(self, name) is not None:
                integer(_WHERE, name, getattr(self, name), low, high)
        seed_number(_WHERE, self.seed)
        losses = (self.loss,) if isinstance(self.loss, str) else tuple(self.loss)
        for name in losses:
            choice(_WHERE, "loss", name, LOSSES)
        if not losses or len(set(losses)) < len(losses):
            raise fail(_WHERE, "loss", "one or several different terms", repr(self.loss), f"Of {', '.join(LOSSES)}.")
        object.__setattr__(self, "loss", losses)
        choice(_WHERE, "method", self.method, METHODS)
        if self.method == "sampling" and losses != ("silhouette",):
            fix = "Colours and depth go by gradients."
            raise fail(_WHERE, "method", "'gradient' with colour or depth", f"'sampling' with loss={losses}", fix)
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

    def thorough(self) -> "FitPoseSettings":
        """Return these settings with the numbers of a search from everywhere, for around a guess."""
        values: dict[str, Any] = dict(zip(BLANK, _DEFAULTS["everywhere"], strict=True))
        return dataclasses.replace(self, **values)

    def completed(self, spread_deg: float) -> "FitPoseSettings":
        """Return these settings for a search within an angle, with numbers where they are None."""
        near = spread_deg <= 90
        kind = "descent" if not self.is_contour else "near" if near else "everywhere"
        if self.method == "sampling":
            kind = "sampling near" if near else "sampling"
        steps, candidates, starts, finalists = _DEFAULTS[kind]
        if self.loss == ("silhouette",):
            cap = 0.5 * (1 - math.cos(math.radians(spread_deg)))
            candidates = max(math.ceil(_DEFAULTS["everywhere"][1] * cap), 16)
        defaults = dict(zip(BLANK, (steps, candidates, starts, finalists), strict=True))
        blank: dict[str, Any] = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        return dataclasses.replace(self, **blank)

    @property
    def is_contour(self) -> bool:
        """Whether what is compared is a silhouette by its contour alone, whose Jacobian is exact."""
        return self.loss == ("silhouette",) and self.coverage == "contour"

    @property
    def prune_step(self) -> int:
        """The step at whose start all but the finalists stop, and the image grows to ``size``."""
        return math.ceil(self.prune_at * self.steps)
