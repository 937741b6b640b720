# SPDX-License-Identifier: Apache-2.0
"""Gradient steps of many charts at once, by the CPU's kernel."""

import math
from collections.abc import Sequence

import torch

from geodiff.atlas.charts import Charts
from geodiff.atlas.training import UV_SHARE, Batch
from geodiff.ops import _op

_BETAS = (0.9, 0.999)  # of Adam, as the kernel has them


class HostBatch(Batch):
    """A `Batch` whose steps a kernel takes, chart by chart: with relu, on the CPU, towards targets that stay.

    Args:
        rows: (G,) int64, how many rows of each chart count, the first ones; the rest is padding.
    """

    def __init__(
        self,
        index: torch.Tensor,
        charts: Charts,
        uv: torch.Tensor,
        target: torch.Tensor,
        weight: torch.Tensor,
        *,
        rows: torch.Tensor,
        move_uv: bool = True,
        residual: bool = True,
    ) -> None:
        super().__init__(index, charts, uv, target, weight, move_uv=move_uv, residual=residual)
        self._rows = rows

    def _begin(self) -> None:
        self._first = [torch.zeros_like(p) for p in (*self.parameters, self.uv)]
        self._second = [torch.zeros_like(p) for p in (*self.parameters, self.uv)]
        self._taken = 0
        self.out = torch.zeros_like(self.target)

    def steps(self, rates: Sequence[float], active: torch.Tensor | None = None) -> torch.Tensor:
        """Take steps of these lengths and return each chart's loss (G,) before the last; see `Batch.steps`."""
        table = []
        for rate in rates:
            self._taken += 1
            table += [rate / (1 - _BETAS[0] ** self._taken), math.sqrt(1 - _BETAS[1] ** self._taken)]
        return self._run(table, active, self.out)

    def image(self, active: torch.Tensor | None = None) -> torch.Tensor:
        """Return where the places are now (G, S, 3), of the rows that count; `out` stays."""
        out = torch.zeros_like(self.out)
        self._run([], active, out)
        return out

    def keep(self, stay: torch.Tensor) -> None:
        """Go on with some of the charts only, (G,) bool."""
        self.index, self.target, self.weight, self.out, self.uv, self._rows = (
            t[stay] for t in (self.index, self.target, self.weight, self.out, self.uv, self._rows)
        )
        self.placed = self.placed.subset(stay)
        self.parameters, self._first, self._second = (
            [t[stay] for t in some] for some in (self.parameters, self._first, self._second)
        )

    def _run(self, table: list[float], active: torch.Tensor | None, out: torch.Tensor) -> torch.Tensor:
        loss = self.uv.new_zeros(len(self))
        active = torch.ones(len(self), dtype=torch.bool) if active is None else active
        _op.call(
            _op.kernels.train_charts, uv=self.uv, parameters=self.parameters, first=self._first[:-1],
            second=self._second[:-1], uv_first=self._first[-1], uv_second=self._second[-1],
            target=self.target.contiguous(), weight=self.weight.contiguous(), rows=self._rows, active=active,
            rates=torch.tensor(table, dtype=torch.float64).reshape(-1, 2), uv_rate=UV_SHARE * self.move_uv,
            plane=self.residual, out=out, loss=loss,
        )  # fmt: skip
        return loss
