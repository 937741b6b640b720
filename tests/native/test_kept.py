# SPDX-License-Identifier: Apache-2.0
"""Orders that a device keeps: how many, and in how much memory; tests/pretend has them at work."""

import torch

from geodiff.native.gpu.schedule.kept import Kept


def test_the_last_ones_are_kept_within_their_room() -> None:
    made: list[int] = []
    kept = Kept(3, room=80)

    def ask(size: int, count: int = 8) -> torch.Tensor:
        def compute() -> tuple[torch.Tensor]:
            made.append(size)
            return (torch.zeros(count, dtype=torch.uint8, device="meta"),)

        return kept.of([torch.empty(size, device="meta")], (), compute)[0]

    assert all(ask(size) is ask(size) for size in (1, 2, 3)) and made == [1, 2, 3]
    ask(4)
    assert [ask(size).numel() for size in (2, 3, 4)] == [8] * 3 and made == [1, 2, 3, 4]
    ask(1)  # the oldest of four
    assert made.count(1) == 2
    large = ask(5, 75)  # beside which there is no room
    assert ask(5, 75) is large and ask(4) is not None and made.count(4) == 2
    ask(6, 81)
    assert ask(6, 81) is not None and made.count(6) == 2
    ask(4)
    assert made.count(4) == 2  # what has no room itself drives nothing out


def test_nothing_is_kept_of_the_host_or_of_inference() -> None:
    made: list[int] = []
    kept = Kept(3)

    def compute() -> tuple[torch.Tensor]:
        made.append(1)
        return (torch.zeros(1),)

    host = torch.zeros(3)
    with torch.inference_mode():
        inference = torch.empty(3, device="meta")
    for given in (host, inference):
        kept.of([given], (), compute)
        kept.of([given], (), compute)
    assert len(made) == 4
