# SPDX-License-Identifier: Apache-2.0
"""Products of a batch of stored matrices on a GPU, see cuda/transport/matrix.h."""

import torch

from geodiff.native.gpu import structs
from geodiff.native.gpu.launcher import launch

HEADER = "transport/matrix.h"
_THREADS = 128
_BLOCKS = 1024  # so many fill any card: with fewer, the rows of a transposed matrix are cut into slices
_LEAST = 64  # rows of a slice


def matrix_times(*, matrix: torch.Tensor, v: torch.Tensor, transposed: bool, out: torch.Tensor) -> None:
    """Fill `out`, see `geodiff.ops.transport.times`."""
    batch, rows, columns = matrix.shape
    real, device = structs.REALS[matrix.dtype], matrix.device
    job = structs.make(
        structs.matrix_product(real), matrix=matrix, v=v, out=out, batch=batch, rows=rows, columns=columns
    )
    if not transposed:
        launch(HEADER, f"gd::matrix_times<{real}>", (-(-batch * rows // 4),), _THREADS, job, device=device)
        return
    blocks = batch * -(-columns // _THREADS)
    slices = max(1, min(_BLOCKS // max(blocks, 1), rows // _LEAST))
    partial = torch.empty((batch, slices, columns), dtype=torch.float64, device=device)
    given = (job, structs.Int(slices), partial)
    launch(HEADER, f"gd::matrix_back<{real}>", (blocks * slices,), _THREADS, *given, device=device)
    launch(HEADER, f"gd::matrix_add<{real}>", (-(-out.numel() // _THREADS),), _THREADS, *given, device=device)
