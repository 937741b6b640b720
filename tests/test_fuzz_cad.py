# SPDX-License-Identifier: Apache-2.0
"""A short, seeded run of the damaged CAD files, clouds and atlases; `tests/fuzz_cad.py` runs more."""

import pathlib

import pytest

from geodiff.readers import apart
from tests import fuzz_cad


def test_damaged_clouds_and_atlases() -> None:
    kinds = fuzz_cad.installed(list(fuzz_cad.QUICK))
    assert fuzz_cad.run(kinds, seed=0, count=20 * len(kinds)) == []


# Cases that ended the process with Open CASCADE 8 (signal 11) and lazrs.
@pytest.mark.parametrize("kind, number", [("iges", 1000076), ("iges", 1000082), ("laz", 2)])
def test_crashes_are_errors(tmp_path: pathlib.Path, kind: str, number: int) -> None:
    if not fuzz_cad.installed([kind]):
        pytest.skip(f"needs {fuzz_cad.KINDS[kind][2]}")
    assert fuzz_cad.case(kind, number, tmp_path, trusted=False) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in fuzz_cad.KINDS if kind not in fuzz_cad.QUICK])
def test_damage_that_can_crash(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fuzz_cad.installed([kind]):
        pytest.skip(f"needs {fuzz_cad.KINDS[kind][2]}")
    monkeypatch.setattr(apart, "_SECONDS", (5, 0))
    assert fuzz_cad.run([kind], seed=0, count=12) == []
