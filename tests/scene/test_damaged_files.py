# SPDX-License-Identifier: Apache-2.0
"""Damaged files load, or are refused by an error that names them: a few of the cases of `tests.fuzz_files`."""

import pytest

from tests.fuzz_files import KINDS, run


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files(kind: str) -> None:
    assert run([kind], seed=7, count=25) == []
