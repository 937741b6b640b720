# SPDX-License-Identifier: Apache-2.0
"""Where charts have places, by the CPU's kernels."""

from collections.abc import Sequence

import torch

from geodiff.modes import is_plain
from geodiff.ops import _op

_MOST = 512  # places of a chart that a thread finds in one go
_LAYERS = 16  # of a network at most, as the kernels have them: `kMostLayers`


def served(activation: str, parameters: Sequence[torch.Tensor], *others: torch.Tensor) -> bool:
    """Whether the kernels do it: of charts with relu on the CPU, where nobody asks for gradients."""
    values = (*parameters, *others)
    lead = parameters[0]
    return (
        activation == "relu"
        and 2 <= len(parameters) // 2 - 1 <= _LAYERS  # a hidden layer at least
        and lead.dtype in (torch.float32, torch.float64)
        and all(value.is_cpu and value.dtype == lead.dtype for value in values)
        and is_plain(values)
        and not (torch.is_grad_enabled() and any(value.requires_grad for value in values))
    )


def places(
    parameters: Sequence[torch.Tensor], uv: torch.Tensor, chart: torch.Tensor, slopes: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return points (M, 3) at `uv` (M, 2) in charts (M,), sorted, and, if wanted, ∂(point)/∂u (M, 3, 2); both local."""
    _, counts = torch.unique_consecutive(chart, return_counts=True)
    ends = counts.cumsum(0)
    # Long runs are cut, so that threads can share them.
    edges = torch.cat([torch.arange(int(a), int(b), _MOST) for a, b in zip(ends - counts, ends, strict=True)])
    out, slope = uv.new_empty(len(uv), 3), uv.new_empty((len(uv), 3, 2) if slopes else (0,))
    _op.call(
        _op.kernels.places_of_charts, uv=uv.detach().contiguous(),
        parameters=[p.detach().contiguous() for p in parameters], chart=chart[edges],
        edges=torch.cat([edges, edges.new_tensor([len(uv)])]), out=out, slope=slope,
    )  # fmt: skip
    return out, slope
