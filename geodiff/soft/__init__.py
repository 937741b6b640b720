# SPDX-License-Identifier: Apache-2.0
"""Relaxed primitives: distributions that soften a step, T-conorms that soften an "or", and the family they span."""

from geodiff.soft import distributions, skewed, tconorm_powers, tconorms
from geodiff.soft.distribution_base import Distribution
from geodiff.soft.distributions import *  # noqa: F403
from geodiff.soft.family import Member, family, member
from geodiff.soft.names import DISTRIBUTIONS, TCONORMS, as_distribution, as_tconorm, from_kernel, tconorm_from_kernel
from geodiff.soft.skewed import *  # noqa: F403
from geodiff.soft.tconorm_base import TConorm, TConormProperties, TNorm
from geodiff.soft.tconorm_powers import *  # noqa: F403
from geodiff.soft.tconorms import *  # noqa: F403

__all__ = [
    "DISTRIBUTIONS",
    "TCONORMS",
    "Distribution",
    "Member",
    "TConorm",
    "TConormProperties",
    "TNorm",
    "as_distribution",
    "as_tconorm",
    "family",
    "from_kernel",
    "member",
    "tconorm_from_kernel",
]
__all__ += distributions.__all__
__all__ += skewed.__all__
__all__ += tconorms.__all__
__all__ += tconorm_powers.__all__
