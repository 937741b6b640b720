# SPDX-License-Identifier: Apache-2.0
"""`TConorm.properties`: table 5.2 of the source, and each entry looked for in numbers."""

import itertools

import pytest
import torch

from geodiff import soft

YES, NO = True, False
# Continuous, continuously differentiable, strict, idempotent, nilpotent, Archimedean; and the arrow that is printed.
TABLE = {
    "maximum": (YES, NO, NO, YES, NO, NO, None),
    "probabilistic": (YES, YES, YES, NO, NO, YES, None),
    "einstein": (YES, YES, YES, NO, NO, YES, None),
    "hamacher": (YES, YES, YES, NO, NO, YES, "falls"),
    "frank": (YES, YES, YES, NO, NO, YES, "falls"),
    "yager": (YES, NO, NO, NO, YES, YES, "rises"),
    "aczel_alsina": (YES, YES, YES, NO, NO, YES, "rises"),
    "dombi": (YES, YES, YES, NO, NO, YES, "rises"),
    "schweizer_sklar": (YES, YES, YES, NO, NO, YES, None),
}
MADE = [made for name, cls in soft.TCONORMS.items() if name != "average" for made in soft.names.samples_of(cls)[::2]]


class Drastic(soft.TConorm):
    """Neither continuous nor anything else: what the checks below must notice."""

    name = "drastic"

    def combine(self, a, b):
        return torch.where(a == 0, b, torch.where(b == 0, a, 1.0))


def grid(low: float, high: float, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(low, high, count, dtype=torch.float64)
    return x[:, None], x[None, :]


def is_continuous(join: soft.TConorm) -> bool:
    a, b = grid(0.0, 0.99, 34)
    return bool((join.combine(a + 1e-13, b) - join.combine(a, b)).abs().max() < 1e-3)


def is_smooth(join: soft.TConorm) -> bool:
    """Whether slopes from both sides agree, along lines through the square; also where it first reaches 1."""
    a, b = grid(0.05, 0.95, 19)
    low, high = torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if float(join.combine(middle, middle)) >= 1 else (middle, high)
    if float(high) < 1 - 1e-5:
        a, b = (torch.cat([x.expand(19, 19).reshape(-1), high[None]]) for x in (a, b))
    h = 1e-6
    middle = join.combine(a, b)
    ahead, back = (join.combine(a + h, b) - middle) / h, (middle - join.combine(a - h, b)) / h
    return bool((ahead - back).abs().max() < 1e-2)


def rises_strictly(join: soft.TConorm) -> bool:
    values = [0.3, 0.4, 0.5, 0.6, 0.7], [0.97, 0.98, 0.99]
    for own in values:
        x = torch.tensor(own, dtype=torch.float64)
        # log(1 − ⊥) too, since close to 1 is not 1
        parts = [torch.broadcast_tensors(x[:, None], x[None, :])[i] for i in (0, 1)]
        both = torch.stack(parts)
        log, rest = join.aggregate_log_pair(both.log(), torch.log1p(-both), 0)
        if not bool((log.diff(dim=0) > 0).logical_or(rest.diff(dim=0) < 0).all()) or bool(torch.isinf(rest).any()):
            return False
    return True


def many(join: soft.TConorm, a: float) -> torch.Tensor:
    """⊥ of 2¹²⁰ times a."""
    value = torch.tensor(a, dtype=torch.float64)
    for _ in range(120):
        before, value = value, join.combine(value, value)
        if value == before:
            break
    return value


def reaches_one(join: soft.TConorm, end: torch.Tensor) -> bool:
    a = torch.full((4,), 0.9, dtype=torch.float64)
    _, rest = join.aggregate_log_pair(a.log(), torch.log1p(-a), 0)
    return bool(rest == -torch.inf) and float(end) == 1


@pytest.mark.parametrize("join", MADE, ids=str)
def test_properties_are_what_numbers_say(join: soft.TConorm):
    has = join.properties
    assert is_continuous(join) == has.continuous
    assert is_smooth(join) == has.continuously_differentiable
    assert rises_strictly(join) == has.strict
    a, _ = grid(0.05, 0.95, 19)
    same = (join.combine(a, a) - a).abs()
    assert bool((same == 0).all()) if has.idempotent else bool((same > 1e-3).all())
    end = many(join, 0.05)
    assert reaches_one(join, end) == has.nilpotent
    assert (float(end) > 0.99) == has.archimedean
    assert (has.in_p is None) == (join.p is None)
    if has.in_p is not None:
        more = type(join)(join.p + 0.01)
        a, b = grid(0.1, 0.9, 9)
        step = more.combine(a, b) - join.combine(a, b)
        norm = more.dual().combine(a, b) - join.dual().combine(a, b)
        sign = 1 if has.in_p == "rises" else -1
        assert bool((sign * step >= 0).all()) and bool((sign * step > 0).any())
        assert bool((sign * norm <= 0).all()) and bool((sign * norm < 0).any())


@pytest.mark.parametrize("name", TABLE)
def test_properties_are_the_table(name: str):
    *wanted, arrow = TABLE[name]
    has = soft.TCONORMS[name].properties
    assert list(has[:6]) == wanted
    if arrow is not None:  # that of the T-norm
        assert {arrow, has.in_p} == {"rises", "falls"}


def test_the_checks_notice_a_tconorm_without_any():
    drastic = Drastic()
    assert not is_continuous(drastic) and not rises_strictly(drastic)
    assert [soft.Average().properties, drastic.properties, soft.as_tconorm(lambda a, b: a + b).properties] == [None] * 3


def test_a_subclass_with_a_formula_of_its_own_keeps_none_and_another_keeps_all():
    class Own(soft.Yager):
        def combine(self, a, b):
            return torch.maximum(a, b)

    class Named(soft.Yager):
        name = "named"

    assert Own(2.0).properties is None and Named(2.0).properties == soft.Yager.properties


def test_what_contradicts_itself_is_nowhere():
    for made, (first, second) in itertools.product(MADE, [("strict", "nilpotent"), ("idempotent", "archimedean")]):
        assert not (getattr(made.properties, first) and getattr(made.properties, second))
