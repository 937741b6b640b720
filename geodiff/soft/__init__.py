# SPDX-License-Identifier: Apache-2.0
"""Relaxed primitives: distributions that soften a step, T-conorms that soften an "or", and the family they span."""

from geodiff.soft.distribution_base import Distribution
from geodiff.soft.distributions import (
    Cauchy,
    CubicHermite,
    Exponential,
    Gamma,
    Gaussian,
    GumbelMax,
    GumbelMin,
    Heaviside,
    HyperbolicSecant,
    Laplace,
    Levy,
    Logistic,
    Reciprocal,
    Uniform,
    WignerSemicircle,
)
from geodiff.soft.family import Member, family, member
from geodiff.soft.names import DISTRIBUTIONS, TCONORMS, as_distribution, as_tconorm, from_kernel, tconorm_from_kernel
from geodiff.soft.tconorm_base import TConorm, TNorm
from geodiff.soft.tconorm_powers import AczelAlsina, Dombi, SchweizerSklar, Yager
from geodiff.soft.tconorms import Average, Einstein, Frank, Hamacher, Maximum, Probabilistic

__all__ = [
    "DISTRIBUTIONS",
    "TCONORMS",
    "AczelAlsina",
    "Average",
    "Cauchy",
    "CubicHermite",
    "Distribution",
    "Dombi",
    "Einstein",
    "Exponential",
    "Frank",
    "Gamma",
    "Gaussian",
    "GumbelMax",
    "GumbelMin",
    "Hamacher",
    "Heaviside",
    "HyperbolicSecant",
    "Laplace",
    "Levy",
    "Logistic",
    "Maximum",
    "Member",
    "Probabilistic",
    "Reciprocal",
    "SchweizerSklar",
    "TConorm",
    "TNorm",
    "Uniform",
    "WignerSemicircle",
    "Yager",
    "as_distribution",
    "as_tconorm",
    "family",
    "from_kernel",
    "member",
    "tconorm_from_kernel",
]
