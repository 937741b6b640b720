# SPDX-License-Identifier: Apache-2.0
"""Relaxed primitives: distributions that soften a step, T-conorms that soften an "or", and the family they span."""

from geodiff.soft import distributions, gates, program, skewed, tconorm_powers, tconorms
from geodiff.soft.activation import Activated
from geodiff.soft.distribution_base import Distribution
from geodiff.soft.distributions import *  # noqa: F403
from geodiff.soft.family import Member, family, member
from geodiff.soft.gates import *  # noqa: F403
from geodiff.soft.names import DISTRIBUTIONS, TCONORMS, as_distribution, as_tconorm, from_kernel, tconorm_from_kernel
from geodiff.soft.order import TopK, relaxed_max, relaxed_min, sort, sort_matrix, topk
from geodiff.soft.program import *  # noqa: F403
from geodiff.soft.ranking import permutation_loss, rank_loss
from geodiff.soft.skewed import *  # noqa: F403
from geodiff.soft.tconorm_base import TConorm, TConormProperties, TNorm
from geodiff.soft.tconorm_powers import *  # noqa: F403
from geodiff.soft.tconorms import *  # noqa: F403
from geodiff.soft.threshold import quantile, selection, trimmed_mean

__all__ = [
    "DISTRIBUTIONS",
    "TCONORMS",
    "Activated",
    "Distribution",
    "Member",
    "TConorm",
    "TConormProperties",
    "TNorm",
    "TopK",
    "as_distribution",
    "as_tconorm",
    "family",
    "from_kernel",
    "member",
    "permutation_loss",
    "quantile",
    "rank_loss",
    "relaxed_max",
    "relaxed_min",
    "selection",
    "sort",
    "sort_matrix",
    "tconorm_from_kernel",
    "topk",
    "trimmed_mean",
]
__all__ += distributions.__all__
__all__ += gates.__all__
__all__ += program.__all__
__all__ += skewed.__all__
__all__ += tconorms.__all__
__all__ += tconorm_powers.__all__
