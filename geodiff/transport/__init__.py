# SPDX-License-Identifier: Apache-2.0
"""Optimal transport, robust pooling, and distances between clouds of points."""

from geodiff.transport.assignment import Assignment, assign, assignment, emd
from geodiff.transport.chamfer import chamfer, nearest
from geodiff.transport.distances import f_score, hausdorff
from geodiff.transport.divergence import SinkhornLoss, sinkhorn_divergence
from geodiff.transport.neighbours import SoftNeighbours, soft_nearest
from geodiff.transport.plan import LazyPlan
from geodiff.transport.pooling import RobustPool2d, robust_pool
from geodiff.transport.sinkhorn import SinkhornResult, sinkhorn

__all__ = [
    "Assignment",
    "LazyPlan",
    "RobustPool2d",
    "SinkhornLoss",
    "SinkhornResult",
    "SoftNeighbours",
    "assign",
    "assignment",
    "chamfer",
    "emd",
    "f_score",
    "hausdorff",
    "nearest",
    "robust_pool",
    "sinkhorn",
    "sinkhorn_divergence",
    "soft_nearest",
]
