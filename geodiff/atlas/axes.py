# SPDX-License-Identifier: Apache-2.0
"""The principal axes of the neighbours of many points."""

from collections.abc import Sequence

import numpy as np
import torch

from geodiff.ops import _op


def neighbour_axes(
    places: np.ndarray,
    members: np.ndarray,
    *,
    sizes: Sequence[int] | None = None,
    factors: Sequence[float] | None = None,
    terms: Sequence[float] | None = None,
    own: bool = False,
    keep: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the variances of neighbours and the axis along which they are least, a row a neighbourhood.

    Args:
        places: (P, 3) float64.
        members: (N, K) int64, the numbers of the neighbours.
        sizes: S ascending counts up to K: of each row the first so many count, at the size whose ratio of the least to
            the middle variance is smallest, times its factor plus its term. None: all of them.
        factors: S, 1 if left out.
        terms: S, 0 if left out.
        own: whether place i belongs to row i besides, and to each size.
        keep: where not 0, all but so many are left out once the plane through all is known, those that are farthest
            from it.

    Returns:
        variances (N, 3), ascending, and unit axes (N, 3) of either side.
    """
    sizes = [members.shape[1]] if sizes is None else list(sizes)
    spread, axis = torch.empty(2, len(members), 3, dtype=torch.float64)
    _op.call(
        _op.kernels.neighbour_axes, places=torch.from_numpy(np.ascontiguousarray(places, np.float64)),
        members=torch.from_numpy(members), sizes=sizes, factors=[1.0] * len(sizes) if factors is None else factors,
        terms=[0.0] * len(sizes) if terms is None else terms, own=own, keep=keep, spread=spread, axis=axis,
    )  # fmt: skip
    return spread.numpy(), axis.numpy()
