# SPDX-License-Identifier: Apache-2.0
"""Rows that belong to charts, as many as each has, laid out in few padded blocks for batched products."""

from typing import NamedTuple

import torch

FILLING = 0.75  # least share of a block's rows that a chart in it has
ALONE = 16  # rows of a chart that is alone in its block, at least: products of fewer depend on the number of threads
BLOCK_ROWS = 1 << 14  # what the layers of their charts hold then fits into the caches


class Block(NamedTuple):
    """Charts of like size: `charts` (G,), `slots` (G, S) their rows, `mask` (G, S) false where a row is a repeat."""

    charts: torch.Tensor
    slots: torch.Tensor
    mask: torch.Tensor


class Ragged:
    """The rows of Q charts, sorted by chart, in blocks whose charts have nearly as many.

    Attributes:
        counts: int64 (Q,), rows of each chart.
        blocks: charts without rows are in none.
    """

    def __init__(self, chart: torch.Tensor, charts: int) -> None:
        self.counts = torch.bincount(chart, minlength=charts)
        starts = self.counts.cumsum(0) - self.counts
        sizes, order = torch.sort(self.counts, descending=True, stable=True)
        sizes_list = sizes.tolist()
        filled = int((sizes > 0).sum())
        self.blocks: list[Block] = []
        first = 0
        while first < filled:
            width, last = sizes_list[first], first
            most = max(1, BLOCK_ROWS // width)
            while last < filled and last - first < most and sizes_list[last] >= FILLING * width:
                last += 1
            members = order[first:last]
            column = torch.arange(max(width, ALONE) if last - first == 1 else width, device=chart.device)
            count = self.counts[members, None]
            slots = starts[members, None] + torch.minimum(column, count - 1)
            self.blocks.append(Block(members, slots, column < count))
            first = last
        rows = [block.slots[block.mask] for block in self.blocks]
        self._order = torch.argsort(torch.cat(rows)) if rows else torch.empty(0, dtype=torch.int64)

    def join(self, values: list[torch.Tensor]) -> torch.Tensor:
        """Put values of the blocks, each (G, S, ...), into the order of the rows (M, ...)."""
        kept = [value[block.mask] for value, block in zip(values, self.blocks, strict=True)]
        return torch.cat(kept)[self._order]
