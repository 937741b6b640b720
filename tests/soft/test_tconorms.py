# SPDX-License-Identifier: Apache-2.0
"""T-conorms and T-norms: axioms, closed forms, identities, gradients, messages."""

import copy
import math
import re

import mpmath
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from geodiff import soft

# Two orders of a few operations; powers of 8 and exponentials magnify roundings.
ROUNDING = 1e-12

NAMES = [
    "maximum",
    "probabilistic",
    "einstein",
    *(f"{name}({p})" for name in ("hamacher", "frank", "yager", "aczel_alsina", "dombi") for p in (0.3, 1, 2, 5)),
    "hamacher(0)",
    *(f"schweizer_sklar({p})" for p in (-0.5, -1, -3)),
    *(f"sugeno_weber({p})" for p in (-0.99, -0.5, 0, 1e-9, 3)),
]
ADDITIVE = NAMES[1:]
PARAMETRIC = ["hamacher(0)", "hamacher(0.001)", *(n for n in ADDITIVE if "(" in n and n != "hamacher(0)")]

numbers = st.floats(0, 1, allow_subnormal=False) | st.sampled_from([0.0, 1.0, 1e-300, 1e-12, 1 - 1e-12])
sampled = st.sampled_from(NAMES)


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(a: torch.Tensor, b: torch.Tensor, bound: float = ROUNDING) -> bool:
    return bool(((a - b).abs() <= bound).all())


# Axioms ---------------------------------------------------------------------------------------------------------------


@given(name=sampled, a=numbers, b=numbers, c=numbers)
@example(name="hamacher(0)", a=0.0, b=1.0, c=1e-12)  # rounds to more than 1
def test_axioms_of_a_tconorm(name, a, b, c):
    join = soft.as_tconorm(name).combine
    a, b, c = tensor(a), tensor(b), tensor(c)
    assert close(join(a, b), join(b, a))
    # Associativity is conditioned like s⁻¹ near 1 for p < 1: an inner rounding of 1e-16 grows to its p-th root.
    assert close(join(join(a, b), c), join(a, join(b, c)), 1e-4 if "(0.3)" in name else 1e-9)
    assert close(join(a, torch.zeros_like(a)), a)
    assert close(join(a, torch.ones_like(a)), torch.ones_like(a))
    assert (join(a, b) >= torch.maximum(a, b) - ROUNDING).all() and (join(a, b) <= 1).all()
    low, high = torch.minimum(b, c), torch.maximum(b, c)
    assert (join(a, low) <= join(a, high) + ROUNDING).all()


@given(name=sampled, a=numbers, b=numbers, c=numbers)
def test_axioms_and_duality_of_the_tnorm(name, a, b, c):
    conorm = soft.as_tconorm(name)
    norm = conorm.dual()
    a, b, c = tensor(a), tensor(b), tensor(c)
    assert norm.dual() is conorm
    assert close(norm.combine(a, b), 1 - conorm.combine(1 - a, 1 - b))
    assert close(norm.combine(a, b), norm.combine(b, a))
    assert close(norm.combine(a, torch.ones_like(a)), a)
    assert (norm.combine(a, b) <= torch.minimum(a, b) + ROUNDING).all()
    every = torch.stack([a, b, c])
    # Where p < 1 a rounding of 1 - a by 1e-16 shows as its p-th root.
    assert close(norm.aggregate(every, 0), 1 - conorm.aggregate(1 - every, 0), 1e-4 if "(0.3)" in name else 1e-9)


# Closed forms ---------------------------------------------------------------------------------------------------------


def table(name: str, p: float, a: float, b: float) -> mpmath.mpf:
    """Table B.2 of the source, misprints mended, at 60 digits."""
    m = mpmath
    a, b, p = m.mpf(a), m.mpf(b), m.mpf(p)
    if name == "maximum":
        return max(a, b)
    if name == "probabilistic":
        return a + b - a * b
    if name == "einstein":
        return (a + b) / (1 + a * b)
    if name == "hamacher":
        return (a + b + (p - 2) * a * b) / (1 + (p - 1) * a * b)
    if name == "frank":
        if p == 1:
            return a + b - a * b
        return 1 - m.log(1 + (p ** (1 - a) - 1) * (p ** (1 - b) - 1) / (p - 1)) / m.log(p)
    if name == "yager":
        return min(m.mpf(1), (a**p + b**p) ** (1 / p))
    if name == "aczel_alsina":
        return -m.expm1(-(((-m.log1p(-a)) ** p + (-m.log1p(-b)) ** p) ** (1 / p)))
    if name == "dombi":
        return 1 / (1 + ((a / (1 - a)) ** p + (b / (1 - b)) ** p) ** (-1 / p))
    if name == "sugeno_weber":
        return min(m.mpf(1), a + b + p * a * b)
    return 1 - ((1 - a) ** p + (1 - b) ** p - 1) ** (1 / p)


PAIRS = [(0.2, 0.3), (0.9, 0.01), (0.5, 0.5), (1e-9, 2e-7), (0.999, 0.9999), (1e-150, 0.6), (1e-200, 3e-200)]


@pytest.mark.parametrize(
    "name", [*NAMES, "frank(0.999999)", "frank(1000000)", "frank(0.000001)", "hamacher(1e-9)", "yager(30)"]
)
def test_combine_aggregate_and_logarithms_agree_with_the_table_to_relative_accuracy(name):
    rule = soft.as_tconorm(name)
    a, b = (torch.tensor(v, dtype=torch.float64) for v in zip(*PAIRS, strict=True))
    with mpmath.workdps(500):
        exact = [table(rule.name, rule.p or 0, *pair) for pair in PAIRS]
        expected, rest = tensor(*(float(e) for e in exact)), tensor(*(float(mpmath.log1p(-e)) for e in exact if e < 1))
    pair = torch.stack([a, b])
    log_value, log_rest = rule.aggregate_log_pair(torch.log(pair), torch.log1p(-pair), 0)
    for actual in (
        rule.combine(a, b),
        rule.aggregate(pair, 0),
        rule.aggregate_log(torch.log(pair), torch.log1p(-pair), 0),
    ):
        # log a of 1e-200 is 460 ± 1e-13; powers 1/0.3 of it magnify that.
        torch.testing.assert_close(actual, expected, rtol=5e-12, atol=0)
    torch.testing.assert_close(log_value.exp(), expected, rtol=5e-12, atol=0)
    torch.testing.assert_close(log_rest[torch.isfinite(log_rest)], rest, rtol=1e-10, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_aggregate_is_the_sequential_fold_and_ignores_order(name):
    rule = soft.as_tconorm(name)
    a = torch.rand(4, 9, dtype=torch.float64) ** 2
    total = a[:, 0]
    for i in range(1, 9):
        total = rule.combine(total, a[:, i])
    torch.testing.assert_close(rule.aggregate(a, 1), total, rtol=1e-12, atol=0)
    torch.testing.assert_close(rule.aggregate(a.T.flip(0), 0), total, rtol=1e-12, atol=0)
    torch.testing.assert_close(rule.aggregate(a, -1), total, rtol=1e-12, atol=0)


@given(name=st.sampled_from(ADDITIVE), a=st.floats(1e-6, 0.999))
def test_inverse_generator_inverts_the_generator(name, a):
    rule = soft.as_tconorm(name)
    torch.testing.assert_close(rule.inverse_generator(rule.generator(tensor(a))), tensor(a), rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ADDITIVE)
def test_generators_start_at_zero_end_at_s1_and_add_up_to_the_aggregate(name):
    rule = soft.as_tconorm(name)
    assert rule.generator(tensor(0.0)) == 0 and rule.inverse_generator(tensor(0.0)) == 0
    end = 1.0 if rule.name in ("yager", "sugeno_weber") else math.inf
    if rule.name == "sugeno_weber" and rule.p:
        end = math.log1p(rule.p) / rule.p
    assert rule.generator(tensor(1.0)).item() == pytest.approx(end, rel=1e-14)
    assert rule.inverse_generator(tensor(math.inf)) == 1
    a = tensor(0.02, 0.3, 0.11)
    torch.testing.assert_close(
        rule.inverse_generator(rule.generator(a).sum()), rule.aggregate(a, 0), rtol=1e-11, atol=0
    )


@pytest.mark.parametrize(
    "one, other",
    [
        ("hamacher(1)", "probabilistic"),
        ("hamacher(2)", "einstein"),
        ("hamacher(0)", "dombi(1)"),
        ("hamacher(0)", "schweizer_sklar(-1)"),
        ("aczel_alsina(1)", "probabilistic"),
        ("frank(1)", "probabilistic"),
        ("sugeno_weber(0)", "yager(1)"),
        ("sugeno_weber(-0.9999999999999999)", "probabilistic"),
    ],
)
def test_identities_between_families_hold_with_their_gradients(one, other):
    a = (torch.rand(6, 5, dtype=torch.float64) ** 2).requires_grad_()
    results = []
    for name in (one, other):
        value = soft.as_tconorm(name).aggregate(a, 1)
        results.append((value, torch.autograd.grad(value.sum(), a)[0]))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=ROUNDING, atol=0)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=ROUNDING, atol=1e-15)


def test_frank_tends_to_probabilistic_and_yager_one_is_the_bounded_sum():
    a = torch.rand(6, 4, dtype=torch.float64)
    probabilistic = soft.Probabilistic().aggregate(a, 1)
    for gap in (1e-3, 1e-6, 1e-9, 1e-13):
        for p in (1 + gap, 1 - gap):
            assert close(soft.Frank(p).aggregate(a, 1), probabilistic, 2 * gap + ROUNDING)
    assert close(soft.Yager(1).aggregate(a, 1), a.sum(1).clamp(max=1))


def test_average_is_the_mean():
    a = torch.rand(3, 5, dtype=torch.float64, requires_grad=True)
    rule = soft.Average()
    torch.testing.assert_close(rule.aggregate(a, 1), a.mean(1))
    torch.testing.assert_close(rule.aggregate_log(torch.log(a), torch.log1p(-a), 1), a.mean(1))
    torch.testing.assert_close(rule.combine(a[0], a[1]), (a[0] + a[1]) / 2)
    torch.testing.assert_close(rule.dual().aggregate(a, 1), a.mean(1))


# Gradients ------------------------------------------------------------------------------------------------------------


def with_p(name: str, p: torch.Tensor) -> soft.TConorm:
    return soft.TCONORMS[name.split("(")[0]](p)


@pytest.mark.parametrize("name", [*NAMES, "average", "yager(9)"])
def test_gradcheck_in_the_values(name):
    rule = soft.as_tconorm(name)
    a = tensor(0.03, 0.31, 0.12, 0.07)
    a = (a / 30 if name == "yager(0.3)" else a).requires_grad_()  # below the plateau
    assert torch.autograd.gradcheck(lambda a: rule.aggregate(a, 0), a)
    assert torch.autograd.gradcheck(lambda a: rule.aggregate_log(torch.log(a), torch.log1p(-a), 0), a)
    assert torch.autograd.gradcheck(lambda a: rule.aggregate_log_pair(torch.log(a), torch.log1p(-a), 0), a)
    assert torch.autograd.gradcheck(lambda a: rule.combine(a[0], a[1]), a)
    assert torch.autograd.gradcheck(lambda a: rule.dual().aggregate(1 - a, 0), a)
    assert torch.autograd.gradcheck(lambda a: rule.dual().aggregate_log(torch.log1p(-a), torch.log(a), 0), a)
    if name in ADDITIVE:
        assert torch.autograd.gradcheck(rule.generator, a) and torch.autograd.gradcheck(rule.inverse_generator, a)


@pytest.mark.parametrize("name", [n for n in PARAMETRIC if n != "hamacher(0)"])
def test_gradcheck_in_the_parameter(name):
    a = torch.stack([tensor(0.03, 0.31, 0.12), tensor(0.2, 1e-5, 0.37)])
    p = torch.tensor(soft.as_tconorm(name).p, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda p: with_p(name, p).aggregate(a, 1), p, atol=1e-7)
    assert torch.autograd.gradcheck(lambda p: with_p(name, p).combine(a[0], a[1]), p, atol=1e-7)
    assert torch.autograd.gradcheck(lambda p: with_p(name, p).generator(a), p, atol=1e-7)
    p = p.detach().reshape(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda p: with_p(name, p).aggregate(a, 1), p, atol=1e-7)


def test_slope_in_hamachers_parameter_holds_at_zero_and_franks_at_one():
    a = tensor(0.2, 0.55, 0.8)
    for cls, start in ((soft.Hamacher, 0.0), (soft.Frank, 1.0)):
        p = torch.tensor(start, dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(cls(p).aggregate(a, 0), p)
        h = 1e-5  # forwards, second order: Hamacher's parameter cannot be negative
        f = [cls(start + i * h).aggregate(a, 0) for i in range(3)]
        expected = (-3 * f[0] + 4 * f[1] - f[2]) / (2 * h)
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=0)


def test_maximum_gives_ties_to_the_first():
    a = tensor(0.3, 0.7, 0.2, 0.7, 0.7).requires_grad_()
    rule = soft.Maximum()
    first = [0, 1, 0, 0, 0]
    assert torch.autograd.grad(rule.aggregate(a, 0), a)[0].tolist() == first
    through_logs = torch.autograd.grad(rule.aggregate_log(torch.log(a), torch.log1p(-a), 0), a)[0]
    assert through_logs.tolist() == pytest.approx(first)
    assert torch.autograd.grad(rule.combine(a[1], a[3]), a)[0].tolist() == first


def test_nilpotent_tconorms_have_no_gradient_on_their_plateau():
    for rule in (*map(soft.Yager, (0.5, 1.0, 2.0)), *map(soft.SugenoWeber, (-0.5, 0.0, 4.0))):
        a = tensor(0.9, 0.8, 0.95).requires_grad_()
        value = rule.aggregate(a, 0)
        assert value == 1 and torch.autograd.grad(value, a)[0].tolist() == [0, 0, 0]
    a = tensor(0.5, 0.5).requires_grad_()  # exactly at its border
    for rule in (soft.Yager(1), soft.SugenoWeber(0)):
        assert torch.autograd.grad(rule.aggregate(a, 0), a)[0].tolist() == [0, 0]


@pytest.mark.parametrize(
    "name",
    [
        "probabilistic",
        "einstein",
        "hamacher(0)",
        "hamacher(3)",
        "frank(3)",
        "yager(1)",
        "dombi(1)",
        "aczel_alsina(1)",
        "schweizer_sklar(-2)",
        "sugeno_weber(0)",
        "sugeno_weber(2)",
    ],
)
@pytest.mark.parametrize("values", [(0.0, 0.4, 0.2), (0.0, 0.0, 0.0), (0.0, 0.0, 0.3)])
def test_slopes_at_exact_zeros_are_the_limits(name, values):
    a = tensor(*values).requires_grad_()
    rule = soft.as_tconorm(name)
    (slope,) = torch.autograd.grad(rule.aggregate(a, 0), a)
    for i in range(3):
        step = torch.zeros(3, dtype=torch.float64)
        step[i] = 1e-7
        expected = (rule.aggregate(a.detach() + step, 0) - rule.aggregate(a.detach(), 0)) / 1e-7
        assert slope[i].item() == pytest.approx(expected.item(), abs=1e-5)


def test_slope_at_an_exact_one_is_the_limit():
    a = tensor(1.0, 0.3).requires_grad_()
    for name, expected in (("probabilistic", 0.7), ("einstein", 0.7 / 1.3), ("hamacher(2)", 0.7 / 1.3)):
        rule = soft.as_tconorm(name)
        assert torch.autograd.grad(rule.aggregate(a, 0), a)[0].tolist() == pytest.approx([expected, 0])
        assert torch.autograd.grad(rule.combine(a[0], a[1]), a)[0].tolist() == pytest.approx([expected, 0])


@pytest.mark.parametrize("name", ["yager(0.5)", "dombi(2)", "aczel_alsina(3)", "hamacher(0.5)"])
def test_second_derivatives_raise_where_they_would_be_wrong(name):
    a = tensor(0.2, 0.3).requires_grad_()
    value = soft.as_tconorm(name).aggregate(a, 0)
    (slope,) = torch.autograd.grad(value, a, create_graph=True)
    with pytest.raises(RuntimeError, match="not twice differentiable"):
        torch.autograd.grad((value + slope**2).sum(), a)


@pytest.mark.parametrize("name", ["probabilistic", "einstein", "frank(2)", "schweizer_sklar(-2)"])
def test_second_derivatives_are_right_where_they_exist(name):
    a = tensor(0.2, 0.3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda a: soft.as_tconorm(name).aggregate(a, 0), a)


# Shapes, user-defined, messages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES, "average"])
def test_empty_axes_and_float32(name):
    rule = soft.as_tconorm(name)
    empty = torch.zeros(3, 0)
    assert rule.aggregate(empty, 1).tolist() == [0, 0, 0] and rule.aggregate_log(empty, empty, 1).tolist() == [0, 0, 0]
    assert rule.dual().aggregate_log(empty, empty, 1).tolist() == [1, 1, 1]
    assert rule.aggregate(torch.zeros(0, 2), 1).shape == (0,)
    a = torch.rand(50, 6) ** 2
    single, double = rule.aggregate(a, 1), rule.aggregate(a.double(), 1)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=2e-5, atol=0)  # logs of 1e-4, to powers of 1/0.3
    assert rule.combine(a[0], a[1, :1]).shape == (6,)


class Drastic(soft.TConorm):
    """A user's T-conorm."""

    def combine(self, a, b):
        return torch.where(torch.minimum(a, b) == 0, torch.maximum(a, b), 1.0)


def test_user_defined_tconorm_needs_only_combine():
    rule = Drastic()
    a = tensor(0.0, 0.4, 0.0)
    assert rule.aggregate(a, 0) == 0.4 and rule.aggregate(tensor(0.1, 0.4), 0) == 1
    assert rule.aggregate(torch.zeros(2, 0), 1).tolist() == [0, 0]
    assert rule.aggregate_log(torch.log(a), torch.log1p(-a), 0).item() == pytest.approx(0.4)
    assert rule.dual().aggregate(tensor(1.0, 0.4), 0).item() == pytest.approx(0.4)
    assert rule.dual().aggregate_log(torch.log(a), torch.log1p(-a), 0) == 0
    assert [v.item() for v in rule.aggregate_log_pair(torch.log(a), torch.log1p(-a), 0)] == pytest.approx(
        [math.log(0.4), math.log(0.6)]
    )
    assert rule.cull_threshold(1e-3, 10) == 0 and rule.kernel_id is None
    assert repr(rule) == "Drastic()" and repr(rule.dual()) == "Drastic().dual()" and str(rule.dual()) == "custom.dual"
    with pytest.raises(NotImplementedError, match=r"TConorm must define combine\(self, a, b\)"):
        soft.TConorm().combine(a, a)
    with pytest.raises(NotImplementedError, match=r"Drastic\(\) has no additive generator"):
        rule.generator(a)
    with pytest.raises(NotImplementedError, match=r"Maximum\(\) has no additive generator"):
        soft.Maximum().inverse_generator(a)


@pytest.mark.parametrize(
    "cls, bad, words",
    [
        (soft.Hamacher, -0.1, "from 0 to 1e30"),
        (soft.Hamacher, 1e31, "from 0 to 1e30"),
        (soft.Frank, 0.0, "from 1e-30 to 1e30"),
        (soft.Frank, 1e-31, "from 1e-30 to 1e30"),
        (soft.Frank, 1e31, "from 1e-30 to 1e30"),
        (soft.Yager, -1.0, "positive and finite"),
        (soft.AczelAlsina, 0, "positive and finite"),
        (soft.Dombi, math.inf, "positive and finite"),
        (soft.SchweizerSklar, 0.0, "negative and finite"),
        (soft.SchweizerSklar, math.nan, "negative and finite"),
        (soft.SugenoWeber, -1.0, "above -1 and up to 1e30"),
        (soft.SugenoWeber, 1e31, "above -1 and up to 1e30"),
    ],
)
def test_parameters_out_of_range(cls, bad, words):
    with pytest.raises(ValueError, match=re.escape(f"{cls.__name__}: `p` must be {words}; got {bad}")):
        cls(bad)
    if math.isfinite(bad):
        with pytest.raises(ValueError, match=re.escape(f"{cls.__name__}: `p` must be {words}; got tensor")):
            cls(torch.tensor(float(bad)))


def test_other_messages():
    with pytest.raises(
        ValueError, match="Yager: `p` must be a number or a tensor with one element; got float32 of shape"
    ):
        soft.Yager(torch.ones(2))
    with pytest.raises(TypeError, match="Yager: `p` must be positive and finite, as a number or a tensor; got str"):
        soft.Yager("2")
    with pytest.raises(AttributeError, match=r"Yager\(p=2.0\) is frozen: cannot set 'p'"):
        soft.Yager(2).p = 3
    assert repr(copy.deepcopy(soft.Yager(3))) == "Yager(p=3.0)"
    a = torch.tensor([0.2, 1.5])
    for rule in (soft.Einstein(), soft.Maximum(), soft.Average(), soft.Yager().dual()):
        with pytest.raises(ValueError, match=r"`probabilities` must be between 0 and 1; got values from 0\.2 to 1\.5"):
            rule.aggregate(a, 0)
    with pytest.raises(ValueError, match=r"yager\(2\).combine: `b` must be between 0 and 1"):
        soft.Yager().combine(a[:1], a)
    with pytest.raises(TypeError, match=r"`probabilities` must be a tensor"):
        soft.Yager().aggregate([0.1], 0)
    with pytest.raises(TypeError, match=r"`probabilities` must be float32 or float64"):
        soft.Yager().aggregate(a.half(), 0)
