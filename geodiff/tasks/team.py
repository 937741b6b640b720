# SPDX-License-Identifier: Apache-2.0
"""The processes that `torchrun` started, on one machine or several: who does what, and what they know together."""

import contextlib
import datetime
import itertools
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import torch.distributed as dist

_Key = TypeVar("_Key")
_LONG = datetime.timedelta(days=30)  # the last run of one process may take that much longer than the others'
_count = itertools.count()


class Team:
    """One process of a team, or one that is alone.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1, store: Any = None, group: Any = None) -> None:
        self.rank, self.size = rank, size
        self._store, self._group = store, group
        self._own = 0

    @classmethod
    @contextlib.contextmanager
    def join(cls) -> Iterator["Team"]:
        """Join the team that torchrun started, or the process group that the caller made; else be alone."""
        if not dist.is_available():
            yield cls()
        elif dist.is_initialized():
            group = dist.new_group(backend="gloo", timeout=_LONG)
            try:
                yield cls(dist.get_rank(), dist.get_world_size(), None, group)
            finally:
                dist.destroy_process_group(group)
        elif dist.is_torchelastic_launched():
            store, rank, size = next(dist.rendezvous("env://", timeout=_LONG))
            # The store outlives a team that torchrun starts again after one of it was killed, with what that had left.
            store = dist.PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
            dist.init_process_group("gloo", store=dist.PrefixStore("group", store), rank=rank, world_size=size,
                                    timeout=_LONG)  # fmt: skip
            try:
                yield cls(rank, size, dist.PrefixStore(f"geodiff-{next(_count)}", store))
                dist.barrier()  # so that nobody closes a connection that another still reads from
            finally:
                dist.destroy_process_group()
        else:
            yield cls()

    @property
    def leads(self) -> bool:
        """Whether it is the first, or alone."""
        return self.rank == 0

    def claims(self, count: int) -> Iterator[int]:
        """Yield the numbers below ``count`` that are this process's to do.

        From a common counter, each when it is asked for, so that nobody waits for the slowest; every size-th in a
        process group of the caller's, whose store is not ours.
        """
        if self._store is None:
            yield from range(self.rank, count, self.size)
            return
        while (number := self._store.add("claimed", 1) - 1) < count:
            yield number

    def finished(self) -> int:
        """Note that one more is done, and return how many are, in all processes as far as is known."""
        self._own += 1
        return self._own if self._store is None else int(self._store.add("finished", 1))

    def union(self, mine: dict[_Key, Any]) -> dict[_Key, Any]:
        """Return what all processes know together; of two that know the same thing the first counts."""
        if self.size == 1:
            return mine
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, mine, group=self._group)
        return {key: value for part in reversed(parts) for key, value in part.items()}

    def wait(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            dist.barrier(group=self._group)
