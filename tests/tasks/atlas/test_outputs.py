# SPDX-License-Identifier: Apache-2.0
"""What fit_atlas writes, and when."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.atlas import closed
from geodiff.tasks.atlas import outputs
from geodiff.tasks.atlas import pictures as atlas_pictures

TINY: dict[str, Any] = {
    "widths": (8,),
    "steps": 2,
    "rounds": 0,
    "target": 60,
    "samples": 300,
    "depth": 4,
    "progress": False,
}


def ball(seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(200, 3, generator=draw), dim=1)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, MemoryError])
def test_a_job_that_dies_while_it_closes_the_surface_changes_no_file(
    error: type[BaseException], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atlas_pictures, "SIZE", (40, 40))
    gd.fit_atlas(ball(0), output=tmp_path, **TINY)
    before = contents(tmp_path)
    seen: list[str] = []

    def dies(*_: torch.Tensor, **__: Any) -> Callable[[], closed.Closed]:
        def closing() -> closed.Closed:
            (aside,) = (path for path in tmp_path.iterdir() if path.is_dir())
            seen.extend(contents(aside))
            raise error

        return closing

    monkeypatch.setattr(outputs, "begin_closing", dies)
    with pytest.raises(error):
        gd.fit_atlas(ball(1), output=tmp_path, **TINY)
    assert sorted(seen) == ["atlas.npz", "charts.glb", "charts.obj", "samples.ply"]
    left = contents(tmp_path)
    assert {name: left[name] for name in before} == before
    assert not any(path.is_dir() for path in tmp_path.iterdir())
