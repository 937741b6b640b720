# SPDX-License-Identifier: Apache-2.0
"""The grammar of settings: one for all jobs, and the names that fields had before."""

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import geodiff as gd
from geodiff.atlas.settings import Settings as ChartSettings
from geodiff.settings import Settings
from geodiff.tasks.progress import Progress
from geodiff.tasks.sweep.kinds import JOBS, Job

ALL: list[type[Settings]] = [getattr(gd.tasks, name) for name in dir(gd.tasks) if name.endswith("Settings")]
OLD = [(kind, old) for kind in [*ALL, ChartSettings] for old in kind._renamed]
# What an old name was given, and what the new field has then.
VALUES: dict[str, list[tuple[Any, Any]]] = {
    "checkpoint_every": [(0, None), (1, 0.0), (25, 0.0)],
    "rate": [(0.125, 0.125)],
    "rates": [((0.5, 0.25), (0.5, 0.25))],
    "control": [((4, 5), (4, 5))],
}


def test_each_old_name_is_tried() -> None:
    assert len(ALL) >= 5 and {old for _, old in OLD} == set(VALUES)


@pytest.mark.parametrize("kind", ALL)
def test_an_instance_a_dictionary_and_keywords_are_the_same(kind: type[Settings]) -> None:
    field = next(one.name for one in dataclasses.fields(kind) if type(one.default) is int)
    value = getattr(kind(), field) + 1
    made = kind(**{field: value})
    # Distributions are equal where they are the same object.
    ways = [kind.of(made, {}), kind.of({field: value}, {}), kind.of(None, {field: value})]
    ways += [
        kind.of(kind(), {field: value}),
        kind.of({field: 5}, {field: value}),
        pickle.loads(pickle.dumps(made)),
        copy.deepcopy(made),
    ]
    assert all(type(one) is kind and one.as_dict() == made.as_dict() != kind().as_dict() for one in ways)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, field, 1)
    with pytest.raises(TypeError, match=rf"`settings` must be a {kind.__name__} or a dictionary of its fields; got"):
        kind.of(3, {})
    assert list(inspect.signature(kind).parameters) == [one.name for one in dataclasses.fields(kind)]
    nearly = field[:-1]
    for given in (({nearly: 1}, {}), (None, {nearly: 1})):
        with pytest.raises(TypeError, match=rf"`{nearly}` must be a known argument; .* Did you mean '{field}'"):
            kind.of(*given)
    with pytest.raises(AttributeError, match=f"{kind.__name__} has no attribute 'nothing'"):
        made.nothing  # noqa: B018


@pytest.mark.parametrize(("kind", "old"), OLD)
def test_old_names_are_taken_and_say_the_new_one(kind: type[Settings], old: str) -> None:
    entry = kind._renamed[old]
    new = entry if isinstance(entry, str) else entry[0]
    message = rf"{kind._where}: `{old}` is now `{new}`; the old name goes away in a later release"
    for value, meant in VALUES[old]:
        ways: list[Callable[[dict[str, Any]], Any]] = [
            lambda given: kind(**given),
            lambda given: kind.of(given, {}),
            lambda given: kind.of(kind(), given),
        ]
        for make in ways:
            with pytest.warns(DeprecationWarning, match=message) as seen:
                made = make({old: value})
            assert getattr(made, new) == meant and len(seen) == 1 and seen[0].filename == __file__
    if isinstance(entry, str):
        with pytest.warns(DeprecationWarning, match=message):
            assert getattr(made, old) == getattr(made, new)
    with pytest.raises(TypeError, match=f"`{old}` must be left out where `{new}` is given; got both"):
        kind(**{old: value, new: value})


def test_settings_of_the_charts_are_some_of_an_atlas() -> None:
    made = gd.tasks.FitAtlasSettings.of(ChartSettings(target=60), {"samples": 500})
    assert (made.target, made.samples, made.steps) == (60, 500, ChartSettings().steps)
    with pytest.raises(TypeError, match="`settings` must be a FitMeshSettings"):
        gd.tasks.FitMeshSettings.of(ChartSettings(), {})


def test_what_has_no_say_in_the_result_is_no_input() -> None:
    for kind in ALL:
        names = {field.name for field in dataclasses.fields(kind)}
        assert names - set(kind().inputs()) == names & set(kind._aside)
    assert "checkpoint_seconds" not in gd.tasks.FitMeshSettings().inputs()
    assert gd.tasks.FitAtlasSettings().inputs() == ChartSettings().as_dict()


def test_plain_values() -> None:
    made = gd.tasks.FitMeshSettings(steps=np.int64(3), lr=np.float32(0.5), formats="ply").as_dict()
    assert type(made["steps"]) is int and made["lr"] == 0.5 and made["formats"] == ["ply"]
    assert made["distribution"] == "Logistic()" and made["init_radius"] is None and made["betas"] == [0.8, 0.95]


def test_a_job_of_ones_own_for_a_sweep_may_have_rates() -> None:
    given: dict[str, Any] = {field.name: getattr(JOBS["shape"], field.name) for field in dataclasses.fields(Job)}
    given["rates"] = given.pop("lrs")
    with pytest.warns(DeprecationWarning, match="Job: `rates` is now `lrs`"):
        job = Job(**given)
    with pytest.warns(DeprecationWarning, match="Job: `rates` is now `lrs`"):
        assert job == JOBS["shape"] and job.rates == job.lrs


def test_progress_is_read_as_the_dictionary_that_it_was():
    progress = Progress(1, 2, 0.5, {"member": "logistic", "loss": 0.5})
    assert progress and Progress(0, None, None, {})  # true, and without a warning
    with pytest.warns(DeprecationWarning, match=r"`progress\[name\]` is now `progress.record\[name\]`"):
        assert progress["member"] == progress.get("member") == "logistic" and progress.get("other", 3) == 3
        assert "member" in progress and "other" not in progress
        assert dict(progress) == dict(progress.items()) == progress.record
