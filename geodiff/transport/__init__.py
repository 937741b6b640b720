# SPDX-License-Identifier: Apache-2.0
"""Transport and distances between clouds of points."""

from geodiff.transport.chamfer import chamfer, nearest
from geodiff.transport.divergence import SinkhornLoss, sinkhorn_divergence
from geodiff.transport.plan import LazyPlan
from geodiff.transport.sinkhorn import SinkhornResult, sinkhorn

__all__ = [
    "LazyPlan",
    "SinkhornLoss",
    "SinkhornResult",
    "chamfer",
    "nearest",
    "sinkhorn",
    "sinkhorn_divergence",
]
