# SPDX-License-Identifier: Apache-2.0
"""What the bar of fit_atlas says: the stage, and how long the rest may take."""

from typing import Any

import pytest

from geodiff.tasks.atlas import stages
from geodiff.tasks.atlas.settings import FitAtlasSettings


class Bar:
    """Keeps what it is to show."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def set_description(self, text: str, refresh: bool) -> None:
        self.said.append(text)

    def refresh(self) -> None:
        pass


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(stages.time, "perf_counter", lambda: now[0])
    return now


def test_the_time_left_is_scaled_by_what_is_done(clock: list[float]) -> None:
    bar: Any = Bar()
    job = stages.Stages(bar)
    job.plan({"cloud": 1.0, "fit": 10.0, "files": 2.0})
    job.begin("cloud")
    assert job.left() is None and bar.said == ["cloud"]  # nothing is known of this machine yet
    clock[0] += 3
    job.begin("fit")
    assert job.left() == pytest.approx(36) and bar.said[-1] == "fit, about 40 s left"
    clock[0] += 6
    assert job.left() == pytest.approx(30)
    clock[0] += 12
    job.at(0.3)  # slower than the stage before let one expect: 21 s for 4 units
    assert job.left() == pytest.approx(9 * 21 / 4) and bar.said[-1] == "fit, about 50 s left"
    job.begin("files")
    clock[0] += 1000
    assert job.left() == 0 and job.seconds == {"cloud": 3, "fit": 18}
    job.end()
    assert job.rounded() == {"cloud": 3, "fit": 18, "files": 1000}


def test_no_false_precision() -> None:
    said = {1: "a few seconds", 5: "about 10 s", 33: "about 30 s", 56: "about 1 min", 200: "about 3 min"}
    said |= {590: "about 10 min", 1000: "about 15 min", 9000: "about 2 h"}
    assert {seconds: stages.told(seconds) for seconds in said} == said


def test_more_work_is_expected_to_take_longer() -> None:
    def total(points: int = 10_000, files: bool = True, truth: bool = False, **changes: Any) -> float:
        return sum(stages.expected(points, FitAtlasSettings(**changes), files, truth).values())

    base = total()
    assert total(1_000_000) > 50 * base - 1e3 and total(truth=True) > base > total(files=False)
    assert total(widths=(128, 128)) > base > total(steps=30) and total(depth=9) > base > total(watertight=False)
