# SPDX-License-Identifier: Apache-2.0
"""Copies of small tables: the same one for the same numbers, and how long they are kept."""

import weakref

import pytest
import torch

from geodiff import constants

THERE = torch.device("meta")


def _kept_after_many(first: int) -> bool:
    """Whether a copy is still there after more others than are kept."""
    found = weakref.ref(constants.on_device(torch.tensor([first]), THERE))
    for i in range(constants._KEPT + 1):
        constants.on_device(torch.tensor([0, i]), THERE)
    return found() is not None


def test_a_copy_is_made_once_for_its_numbers_and_knows_them() -> None:
    table = torch.tensor([[1, 2], [3, 4]])
    copy = constants.on_device(table, THERE)
    assert constants.on_device(table.clone(), THERE) is copy and copy.tolist() == table.tolist()
    table[0, 0] = 5
    assert constants.on_device(table, THERE).tolist() == [[5, 2], [3, 4]] and copy.tolist() == [[1, 2], [3, 4]]
    assert constants.on_device(table, torch.device("cpu")) is table
    with torch.device("meta"):  # whatever the default device
        assert constants.on_device(table + 1, THERE).host.is_cpu


def test_copies_do_not_fill_the_memory_but_those_of_graphs_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _kept_after_many(-1)
    with monkeypatch.context() as capturing:
        capturing.setattr(constants, "_is_capturing", lambda device: True)
        capturing.setattr(constants, "_of_graphs", {})
        assert _kept_after_many(-2)
