# SPDX-License-Identifier: Apache-2.0
"""The family of silhouette renderers: every distribution and form with every T-conorm, by name."""

import functools
import re
from typing import NamedTuple

from geodiff.soft.distribution_base import Distribution
from geodiff.soft.names import DISTRIBUTIONS, TCONORMS, as_distribution, as_tconorm, samples_of
from geodiff.soft.tconorm_base import TConorm
from geodiff.validation import fail

_TWO_SIDED = (
    "uniform",
    "cubic_hermite",
    "wigner_semicircle",
    "gaussian",
    "laplace",
    "logistic",
    "hyperbolic_secant",
    "cauchy",
    "reciprocal",
    "gumbel_max",
    "gumbel_min",
)
_FORMS = ("", ".reversed", ".shifted(median)", ".shifted(median).reversed")

_THESIS_DISTRIBUTIONS = (
    *_TWO_SIDED,
    *(f"exponential{form}" for form in _FORMS),
    *(f"gamma({k}){form}" for k in ("0.5", "2") for form in _FORMS[:2]),
    *(f"levy{form}" for form in _FORMS),
)
_THESIS_TCONORMS = (
    "average",
    "maximum",
    "probabilistic",
    "einstein",
    *(f"{name}({p})" for name in ("hamacher", "yager", "aczel_alsina", "dombi") for p in ("0.5", "1", "2", "4")),
    *(f"frank({p})" for p in ("0.5", "2", "4")),
    *(f"schweizer_sklar({p})" for p in ("-0.5", "-1", "-2", "-4")),
)
_OF_THESIS = {"heaviside", *(re.split(r"[.(]", name)[0] for name in (*_THESIS_DISTRIBUTIONS, *_THESIS_TCONORMS))}
# Other parameters, and members that the source does not have. Heaviside has no gradient.
_MORE_DISTRIBUTIONS = (
    *(f"gamma({k}){form}" for k in ("0.5", "2") for form in _FORMS[2:]),
    *(f"gamma(4){form}" for form in _FORMS),
    *(
        f"{made}{form}"
        for name, cls in DISTRIBUTIONS.items()
        if name not in _OF_THESIS
        for made in map(str, samples_of(cls))
        for form in (_FORMS[:1] if cls.symmetric else _FORMS)
    ),
)

_MORE_TCONORMS = (
    "hamacher(0)",
    *(f"{name}(8)" for name in ("hamacher", "yager", "aczel_alsina", "dombi")),
    "frank(0.1)",
    "frank(10)",
    "schweizer_sklar(-8)",
    *(str(made) for name, cls in TCONORMS.items() if name not in _OF_THESIS for made in samples_of(cls)),
)


class Member(NamedTuple):
    """One renderer of the family.

    Attributes:
        name: ``DISTRIBUTION+TCONORM``; `member` reads it back.
        distribution: the distribution with its form.
        tconorm: the T-conorm with its parameter.
        in_thesis: whether it is among the 1 242 of the source.
    """

    name: str
    distribution: Distribution
    tconorm: TConorm
    in_thesis: bool


@functools.lru_cache(maxsize=1)
def family() -> tuple[Member, ...]:
    """List the family: the product of distributions, plain and squared, and T-conorms with sample parameters.

    The members with ``in_thesis`` are the 1 242 = 2 × 23 × 27 of F. Petersen, "Learning with differentiable
    algorithms", 2022, chapter 5 (one reading of it: the source gives only the number). They come first. Heaviside is
    left out, since it has no gradient. Any other parameter can be had by name, through `member`.

    Example:
        >>> sum(m.in_thesis for m in family())
        1242
    """
    thesis = [
        _member(f"{distribution}{form}", tconorm)
        for form in ("", ".squared")
        for distribution in _THESIS_DISTRIBUTIONS
        for tconorm in _THESIS_TCONORMS
    ]
    more = [
        _member(f"{distribution}{form}", tconorm)
        for form in ("", ".squared")
        for distribution in (*_THESIS_DISTRIBUTIONS, *_MORE_DISTRIBUTIONS)
        for tconorm in (*_THESIS_TCONORMS, *_MORE_TCONORMS)
        if distribution in _MORE_DISTRIBUTIONS or tconorm in _MORE_TCONORMS
    ]
    return tuple(thesis + more)


def member(name: str) -> Member:
    """Return the member called ``DISTRIBUTION+TCONORM``, of the grid or not.

    Args:
        name: for instance ``"logistic.squared+yager(0.5)"``; see `as_distribution` and `as_tconorm` for both halves.

    Raises:
        ValueError: if it cannot be read.

    Example:
        >>> member("exponential.reversed+probabilistic").distribution
        Exponential().reversed()
    """
    halves = name.split("+") if isinstance(name, str) else []
    if len(halves) != 2:
        raise fail("member", "name", "of the form DISTRIBUTION+TCONORM, for instance 'logistic+probabilistic'", name)
    return _member(halves[0].strip(), halves[1].strip())


def _member(distribution: str, tconorm: str) -> Member:
    plain = distribution.removesuffix(".squared")
    in_thesis = plain in _THESIS_DISTRIBUTIONS and tconorm in _THESIS_TCONORMS
    return Member(f"{distribution}+{tconorm}", _distribution(distribution), _tconorm(tconorm), in_thesis)


_distribution = functools.lru_cache(maxsize=256)(as_distribution)
_tconorm = functools.lru_cache(maxsize=256)(as_tconorm)
