# SPDX-License-Identifier: Apache-2.0
"""The settings of a fit of charts, all in one place."""

import dataclasses
import math
from typing import ClassVar

from geodiff.atlas.charts import ACTIVATIONS, WIDTHS
from geodiff.atlas.cloud import LEAST_POINTS
from geodiff.atlas.consensus import AGREEMENTS
from geodiff.atlas.cover import LEAST_MEMBERS, WELL_INSIDE
from geodiff.atlas.matching import EPSILON, MATCHINGS
from geodiff.settings import Renamed
from geodiff.settings import Settings as _Settings
from geodiff.validation import choice, fail, integer, number, positive, seed_number


@dataclasses.dataclass(frozen=True)
class Settings(_Settings):
    """How to fit.

    Attributes:
        target: points a patch, on average; doubled as long as the noise exceeds 0.12 radii.
        radius: of all patches, relative to the diagonal; None: each its own, with ``target`` points.
        spacing: of centres, in radii.
        widths: of a chart's hidden layers.
        activation: ``"relu"``, ``"softplus"`` or ``"tanh"``.
        residual: charts start at their patch's plane.
        gain: of the weights that hidden layers start with, which are within ±gain/√inputs: less makes charts smoother.
            None: √6 with relu, else √3, which keep the variance; 1: as published.
        matching: of points with places in the square: projection, exact, sinkhorn or hybrid. By projection to the
            plane; by exact or entropic transport, see `geodiff.atlas.matching`; or exact where a patch folds over its
            plane, else by projection.
        rematch: n ≥ 1: solve the transport again every n steps of a local fit, from places that are even in the square
            (Lloyd's); the published loss is that of n = 1. 0: at the start only. Charts with places by projection have
            none to solve.
        epsilon: weight of the entropy in transport by ``"sinkhorn"``, in squared patch radii.
        move_uv: let the places move with the weights, towards the closest points of the chart.
        steps: at most so many in the local fits.
        lr: step length of Adam, falling to 0 along a cosine.
        noise: known σ of the points across the surface, in their unit, at which a chart stops; 0: never early; None:
            estimated.
        stop: residual at which a chart has converged, in units of σ.
        consistency: λ ≥ 0, how much agreement of the charts counts beside the points.
        agreement: what a chart is drawn to in a shared point: ``"mean"``, of its charts by how far they are trusted;
            ``"pairs"``, each other chart alike: the published loss `λ Σ_{q<q'} |φ_q − φ_q'|²`.
        rounds: of the stage of agreement.
        robust: points far off the surface count less.
        chunk: charts held in training at once: it bounds the memory. Results depend on it by rounding only.
        max_points: larger clouds are thinned to so many, at random. None: all points are fitted.
        seed: of all that is random.
    """

    _where = "fit_atlas"
    _renamed: ClassVar[Renamed] = {"rate": "lr"}

    target: int = 100
    radius: float | None = None
    spacing: float = WELL_INSIDE
    widths: tuple[int, ...] = WIDTHS
    activation: str = "relu"
    residual: bool = True
    matching: str = "hybrid"
    rematch: int = 0
    epsilon: float = EPSILON
    gain: float | None = 1.5
    move_uv: bool = True
    steps: int = 90
    lr: float = 5e-3
    noise: float | None = None
    stop: float = 1.0
    consistency: float = 2.0
    agreement: str = "mean"
    rounds: int = 3
    robust: bool = True
    chunk: int = 256
    max_points: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        where = self._where
        choice(where, "activation", self.activation, ACTIVATIONS)
        choice(where, "matching", self.matching, MATCHINGS)
        choice(where, "agreement", self.agreement, AGREEMENTS)
        for name, least, most in (
            ("target", LEAST_MEMBERS, None),
            ("steps", 1, 10**6),
            ("rounds", 0, 10**4),
            ("rematch", 0, 10**6),
            ("chunk", 1, None),
        ):
            integer(where, name, getattr(self, name), least, most)
        if self.max_points is not None:
            integer(where, "max_points", self.max_points, LEAST_POINTS)
        seed_number(where, self.seed)
        for name in ("lr", "stop"):
            positive(where, name, getattr(self, name))
        number(where, "lr", self.lr, 0, 1)
        number(where, "stop", self.stop, 0, 1e9)
        number(where, "epsilon", self.epsilon, 1e-5, 1, "It is in squared patch radii: say 0.01.")
        if self.gain is not None:
            number(where, "gain", self.gain, 1e-3, 100)
        if self.rematch and self.matching == "projection":
            fix = "Say matching='exact' or 'sinkhorn'; projection has no transport to solve again."
            raise fail(where, "rematch", "0 where matching is 'projection'", self.rematch, fix)
        if self.radius is not None:
            positive(where, "radius", self.radius, "It is relative to the diagonal: say 0.05.")
            number(where, "radius", self.radius, 0, 1, "It is relative to the diagonal: say 0.05.")
        if self.noise is not None:
            number(where, "noise", self.noise, 0, math.inf)
        number(where, "consistency", self.consistency, 0, 1e9)
