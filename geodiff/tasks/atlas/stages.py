# SPDX-License-Identifier: Apache-2.0
"""The stages of fit_atlas: how long each took, and how long those to come may take."""

import itertools
import time
from collections.abc import Mapping
from typing import Any

from geodiff.tasks.atlas.settings import FitAtlasSettings

# Seconds for 100 000 points, 200 000 samples and depth 8: only their ratios matter, what is said of the time left is
# scaled by the stages that are done.
_STEPS, _NETWORK = 60, 64 * (2 + 64 + 64 + 3)
_DENSE = 10_000  # points from which on the depth is likely 8


class Stages:
    """A clock of a job's stages, which also says on a bar what is being done and how long the rest may take.

    Args:
        bar: of tqdm.

    Attributes:
        seconds: of each stage that is done, in their order.
        name: of the stage that runs.
    """

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.seconds: dict[str, float] = {}
        self._expected: dict[str, float] = {}
        self.name, self._share, self._begin = "", 0.0, time.perf_counter()

    def plan(self, expected: Mapping[str, float]) -> None:
        """Tell which stages there are, and how long they take in a unit of its own."""
        self._expected = dict(expected)

    def begin(self, name: str) -> None:
        """End the stage before and begin one."""
        self.end()
        self.name = name
        self._show()

    def at(self, share: float) -> None:
        """Tell which share of the stage is done."""
        self._share = share
        self._show()

    def end(self) -> None:
        """End the last stage."""
        now = time.perf_counter()
        if self.name:
            self.seconds[self.name] = self.seconds.get(self.name, 0.0) + now - self._begin
        self.name, self._share, self._begin = "", 0.0, now

    def rounded(self) -> dict[str, float]:
        """Return the seconds of all stages, to milliseconds."""
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}

    def left(self) -> float | None:
        """Return how many seconds are left, as the stages so far let one expect; None where they tell nothing yet."""
        done = [name for name in self.seconds if name in self._expected and name != self.name]
        running, here = time.perf_counter() - self._begin, self._expected.get(self.name, 0.0)
        foreseen = sum(self._expected[name] for name in done) + here * self._share
        spent = sum(self.seconds[name] for name in done) + (running if self._share else 0.0)
        if not foreseen > 0:
            return None
        pace = spent / foreseen
        rest = pace * here * (1 - self._share) if self._share else max(pace * here - running, 0.0)
        return rest + pace * sum(e for name, e in self._expected.items() if name not in {*done, self.name})

    def _show(self) -> None:
        left = self.left()
        self.bar.set_description(self.name if left is None else f"{self.name}, {told(left)} left", refresh=False)
        self.bar.refresh()


def told(seconds: float) -> str:
    """Say a time as exactly as it is known: to tens of seconds, then to minutes, then to five of these."""
    if seconds < 5:
        return "a few seconds"
    if seconds < 55:
        return f"about {max(round(seconds / 10), 1) * 10} s"
    if seconds < 600:
        return f"about {max(round(seconds / 60), 1)} min"
    minutes = round(seconds / 300) * 5
    return f"about {minutes} min" if minutes < 120 else f"about {round(minutes / 60)} h"


def expected(points: int, settings: FitAtlasSettings, files: bool, truth: bool) -> dict[str, float]:
    """Return how long the stages of a job take, in a unit of its own."""
    n, drawn = points / 1e5, settings.samples / 2e5
    network = sum(a * b for a, b in itertools.pairwise((2, *settings.widths, 3))) / _NETWORK
    rounds = {f"agree {k + 1}": 6 * n * network for k in range(settings.rounds)}
    stages = {"cloud": 0.1 + 4 * n, "cover": 5 * n, "fit": 30 * n * network * settings.steps / _STEPS, **rounds}
    stages |= {"orient": 0.1 + 2 * n}
    if files or truth:
        stages |= {"samples": 2.5 * drawn, "mesh": n}
    if files and settings.watertight:
        depth = settings.depth or (8 if points > _DENSE else 7)
        stages |= {"watertight": 4 * 4.0 ** (depth - 8) + 3 * drawn}
    if truth:
        stages |= {"truth": 1 + 3 * drawn}
    if files:
        stages |= {"files": 0.5 + 3 * n, "pictures": 2 + n}
    return stages
