# SPDX-License-Identifier: Apache-2.0
"""Sums of optimal transport on a GPU, see cuda/transport/kernels.h."""

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch

HEADER = "transport/kernels.h"
THREADS = 128
_WIDE = 8  # columns of v that a thread sums at once
_ROWS = {
    ("lse", True): 4, ("apply", True): 2, ("apply_gradient", True): 2,
    ("lse", False): 2, ("apply", False): 2, ("apply_gradient", False): 1,
}  # fmt: skip
"""Rows of a thread, for up to three coordinates or for more."""
_BLOCKS = 2048  # so many fill any card: with fewer, columns are cut into slices
_LEAST = 512  # columns of a slice
_SUMS = ("lse", "apply", "apply_gradient")


def transport(
    *, x: torch.Tensor, sum: int, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None,
    epsilon: float, p: int, out: torch.Tensor,
) -> None:  # fmt: skip
    """Fill `out`, see `geodiff.ops.transport`."""
    kind, real = _SUMS[sum], structs.REALS[x.dtype]
    batch, rows, dim = x.shape
    columns, width = y.shape[1], v.shape[2] if v is not None else 0
    own = dim if dim <= 3 else 0
    if columns == 0:
        out.fill_(-torch.inf if kind == "lse" else 0)
        return
    chunks = 1
    if kind == "apply":
        chunks = -(-width // _WIDE)
    elif kind == "apply_gradient":
        chunks = width if own else width * -(-dim // _WIDE)
    a_thread = _ROWS[kind, own > 0]
    row_blocks = -(-rows // (a_thread * THREADS))
    blocks = batch * chunks * row_blocks
    slices = max(1, min(_BLOCKS // max(blocks, 1), columns // _LEAST))
    numbers = 1 if kind == "lse" else width * (dim if kind == "apply_gradient" else 1)
    room = (batch, slices, rows) if slices > 1 else (0,)
    most = x.new_empty(room if kind == "lse" else (0,), dtype=torch.float64)
    total = x.new_empty((*room, numbers), dtype=torch.float64)
    job = structs.make(
        structs.transport_job(real), x=x, y=y, h=h, k=k, v=v, out=out, batch=batch, rows=rows, columns=columns, dim=dim,
        width=width, p=p, epsilon=epsilon, threads=0,
    )  # fmt: skip
    cut = structs.make(
        structs.transport_slices(), row_blocks=row_blocks, slices=slices, chunks=chunks, most=most, sum=total
    )
    if kind == "lse":
        name = f"gd::transport_lse<{real}, {own}, {p}>"
    else:
        name = f"gd::transport_apply<{real}, {own}, {p}, {str(kind == 'apply_gradient').lower()}>"
    launch(HEADER, name, (blocks * slices,), THREADS, job, cut, device=x.device)
    if slices == 1:
        return
    grid = (-(-out.numel() // THREADS),)
    if kind == "lse":
        launch(HEADER, f"gd::transport_lse_add<{real}>", grid, THREADS, job, cut, device=x.device)
    else:
        given = structs.Long(numbers)
        launch(HEADER, f"gd::transport_apply_add<{real}>", grid, THREADS, job, cut, given, device=x.device)
