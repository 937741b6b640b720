# SPDX-License-Identifier: Apache-2.0
"""Distribution and T-conorm together where F rounds to 0 or 1, and the bound behind culling."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodiff import soft

# exp of logarithms up to 700, to powers of up to 1/0.5.
TAIL = 1e-11

ADDITIVE = [
    "probabilistic",
    "einstein",
    *(f"{name}({p})" for name in ("hamacher", "frank", "yager", "aczel_alsina", "dombi") for p in (0.5, 1, 2, 4)),
    "hamacher(0)",
    *(f"schweizer_sklar({p})" for p in (-0.5, -1, -4)),
    *(f"sugeno_weber({p})" for p in (-0.9, 0, 2)),
]
TCONORMS = ["maximum", "average", *ADDITIVE]


def render(distribution: str, tconorm: str, x: torch.Tensor) -> torch.Tensor:
    law = soft.as_distribution(distribution)
    return soft.as_tconorm(tconorm).aggregate_log(law.log_cdf(x), law.log_survival(x), -1)


def exact(name: str, p: float, f: list[mpmath.mpf]) -> mpmath.mpf:
    """The aggregate by its generator, at the working precision."""
    m = mpmath
    if name == "maximum":
        return max(f)
    if name == "average":
        return sum(f) / len(f)
    if name == "einstein" or (name == "hamacher" and p > 0):
        p = m.mpf(p if name == "hamacher" else 2)
        odds = m.expm1(sum(m.log1p(p * a / (1 - a)) for a in f)) / p
        return odds / (1 + odds)
    if name in ("probabilistic", "aczel_alsina", "frank") and p in (0, 1):
        return -m.expm1(sum(m.log1p(-a) for a in f))
    if name == "frank":
        total = -sum(m.log((m.mpf(p) ** (1 - a) - 1) / (p - 1)) for a in f)
        return 1 - m.log(1 + (p - 1) * m.exp(-total)) / m.log(p)
    if name == "schweizer_sklar":
        return 1 - (1 + sum((1 - a) ** p - 1 for a in f)) ** (1 / m.mpf(p))
    if name == "sugeno_weber":
        total = sum(m.log1p(p * a) for a in f) if p else sum(f)
        return min(m.mpf(1), m.expm1(total) / p if p else total)
    p = m.mpf(p or 1)  # hamacher(0) is dombi(1)
    if name == "yager":
        return min(m.mpf(1), sum(a**p for a in f) ** (1 / p))
    if name == "aczel_alsina":
        return -m.expm1(-(sum((-m.log1p(-a)) ** p for a in f) ** (1 / p)))
    odds = sum((a / (1 - a)) ** p for a in f) ** (1 / p)
    return odds / (1 + odds)


@pytest.mark.parametrize("tconorm", TCONORMS)
@pytest.mark.parametrize(
    "points", [(-60.0, -45.0, -300.0), (-3.0, 0.4, -1.0), (50.0, -2.0, 45.0), (120.0, 90.0, -600.0)]
)
def test_values_and_gradients_survive_saturation(tconorm, points):
    """Logistic F is within 1e-260 of 0 or 1 here; the exact gradient comes from differences at 700 digits."""
    rule = soft.as_tconorm(tconorm)
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    value = render("logistic", tconorm, x)
    (slope,) = torch.autograd.grad(value, x)
    with mpmath.workdps(700):
        h = mpmath.mpf(10) ** -100

        def at(i: int, step: mpmath.mpf) -> mpmath.mpf:
            moved = [mpmath.mpf(v) + (step if j == i else 0) for j, v in enumerate(points)]
            return exact(rule.name, rule.p or 0, [1 / (1 + mpmath.exp(-v)) for v in moved])

        expected = float(at(-1, 0))
        slopes = [(at(i, h) - at(i, -h)) / (2 * h) for i in range(3)]
    assert value.item() == pytest.approx(expected, rel=TAIL)
    for ours, theirs in zip(slope.tolist(), slopes, strict=True):
        assert ours == pytest.approx(float(theirs), rel=1e-9, abs=1e-300)
    plateau = expected == 1 and rule.name == "yager" and (rule.p < 1.5 or max(points) > 40)
    plateau |= expected == 1 and rule.name == "sugeno_weber"
    if points[0] > 40 and rule.name == "probabilistic":
        assert 0 < slope[0] < 1e-20  # F rounds to 1, and yet
    assert plateau or rule.name == "maximum" or (slope != 0).any()


@pytest.mark.parametrize("tconorm", [n for n in ADDITIVE if "(" in n and n != "hamacher(0)"])
@pytest.mark.parametrize("points", [(-60.0, -45.0, -300.0), (42.0, -2.0, 41.0)])
def test_slope_in_the_parameter_survives_saturation(tconorm, points):
    rule = soft.as_tconorm(tconorm)
    x = torch.tensor(points, dtype=torch.float64)
    p = torch.tensor(rule.p, dtype=torch.float64, requires_grad=True)
    law = soft.Logistic()
    value = soft.TCONORMS[rule.name](p).aggregate_log(law.log_cdf(x), law.log_survival(x), 0)
    (slope,) = torch.autograd.grad(value, p)
    with mpmath.workdps(300):
        h = mpmath.mpf(10) ** -40
        f = [1 / (1 + mpmath.exp(-mpmath.mpf(v))) for v in points]

        def at(step: mpmath.mpf) -> mpmath.mpf:
            q = mpmath.mpf(rule.p) + step
            return exact(rule.name, q, f)

        expected = float((at(h) - at(-h)) / (2 * h))
    # Σ ∂s/∂p - ∂s⊥/∂p cancels for Hamacher, Frank and Schweizer-Sklar, whose dependence on p vanishes in the tails.
    assert slope.item() == pytest.approx(expected, rel=1e-8, abs=1e-15 * max(1.0, abs(expected)))


@pytest.mark.parametrize("tconorm", TCONORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exact_zeros_and_ones_give_no_nan(tconorm, dtype):
    rule = soft.as_tconorm(tconorm)
    f = torch.tensor([[0, 0, 0], [1, 1, 1], [0, 1, 0.3], [0, 0.3, 0.2], [1, 0.5, 0.5]], dtype=dtype)
    log_f, log_s = torch.log(f).requires_grad_(), torch.log1p(-f).requires_grad_()
    value = rule.aggregate_log(log_f, log_s, 1)
    expected = rule.aggregate(f, 1)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=0)
    for grad in torch.autograd.grad(value.sum(), (log_f, log_s), allow_unused=True):
        assert grad is None or torch.isfinite(grad).all()
    leaf = f.clone().requires_grad_()
    assert torch.isfinite(torch.autograd.grad(rule.aggregate(leaf, 1).sum(), leaf)[0]).all()
    if rule.parametric:
        p = torch.tensor(rule.p, dtype=dtype, requires_grad=True)
        value = soft.TCONORMS[rule.name](p).aggregate_log(log_f, log_s, 1)
        assert torch.isfinite(torch.autograd.grad(value.sum(), p)[0])
    pair = rule.aggregate_log_pair(log_f, log_s, 1)
    assert not any(torch.isnan(v).any() for v in pair)
    if tconorm != "average":
        assert [v[0].item() for v in pair] == [-math.inf, 0]
        # Hamacher's odds at p = 0 end at the largest number, whose logarithm is 88 in float32.
        assert pair[0][1].item() == pytest.approx(0, abs=1e-38) and pair[1][1] < (-80 if rule.p == 0 else -1e29)


LAWS = [
    "uniform.squared",
    "wigner_semicircle",
    "gaussian",
    "gaussian.squared",
    "logistic.squared",
    "cauchy",
    "gumbel_max",
    "gumbel_min.squared",
    "exponential.shifted(median).reversed",
    "gamma(0.5).reversed.squared",
    "levy",
    "levy.reversed.squared",
    "heaviside",
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_distances_give_neither_nan_nor_a_falling_alpha(law, dtype):
    ends = torch.tensor([0, 1e-30, 1e-8, 1, 20, 200, 1e4, 1e20, 1e35, math.inf], dtype=dtype)
    ends = torch.cat([-ends.flip(0), ends])
    for tconorm in TCONORMS:
        x = torch.cartesian_prod(ends, ends).requires_grad_()
        value = render(law, tconorm, x)
        (slope,) = torch.autograd.grad(value.sum(), x)
        assert ((value >= 0) & (value <= 1)).all(), tconorm
        assert (torch.isfinite(slope) & (slope >= 0)).all(), tconorm


# Culling --------------------------------------------------------------------------------------------------------------


@given(
    tconorm=st.sampled_from(TCONORMS),
    max_error=st.sampled_from([1e-1, 1e-2, 1e-4, 1e-7]),
    n=st.sampled_from([1, 3, 40]),
    others=st.lists(st.floats(0, 1), min_size=1, max_size=3),
)
def test_leaving_out_what_is_below_the_threshold_moves_nothing_by_more_than_the_bound(tconorm, max_error, n, others):
    rule = soft.as_tconorm(tconorm)
    epsilon = rule.cull_threshold(max_error, n)
    assert 0 <= epsilon <= max_error * (1 + 1e-12)
    f = torch.tensor([*others, *([0.0] * n)], dtype=torch.float64)
    full = f.clone()
    full[len(others) :] = epsilon
    moved = rule.aggregate(full, 0) - rule.aggregate(f, 0)
    assert -1e-15 <= moved <= max_error * (1 + 1e-6) + 1e-15


@pytest.mark.parametrize("tconorm", [n for n in ADDITIVE if not n.endswith("(0.5)")])
def test_threshold_is_not_much_smaller_than_it_must_be(tconorm):
    rule = soft.as_tconorm(tconorm)
    full = torch.full((20,), rule.cull_threshold(1e-3, 20), dtype=torch.float64)
    # Where s is convex the bound is attained with nothing else there; Hamacher with p > 2 and Sugeno–Weber with p > 0
    # have another worst case.
    elsewhere = tconorm in ("hamacher(4)", "sugeno_weber(2)")
    assert rule.aggregate(full, 0).item() == pytest.approx(1e-3, rel=0.7 if elsewhere else 1e-6)


@pytest.mark.parametrize("tconorm", ["yager(0.5)", "aczel_alsina(0.5)", "dombi(0.5)", "hamacher(4)", "sugeno_weber(2)"])
def test_threshold_is_attained_where_the_generator_is_flattest(tconorm):
    rule = soft.as_tconorm(tconorm)
    epsilon, worst = rule.cull_threshold(1e-3, 20), 0.0
    for a in torch.linspace(0, 1 - 1e-3, 1000, dtype=torch.float64):
        full = torch.full((21,), epsilon, dtype=torch.float64)
        full[0] = a
        worst = max(worst, float(rule.aggregate(full, 0) - a))
    assert 0.99e-3 <= worst <= 1.000001e-3


def test_threshold_underflows_to_zero_and_checks_its_arguments():
    assert soft.Yager(0.01).cull_threshold(1e-6, 1000) == 0
    assert soft.Yager(torch.tensor(2.0)).cull_threshold(1e-4, 9) == pytest.approx(1e-4 / 3)
    for wrong in (0.0, 1.0, -1e-3, math.nan):
        with pytest.raises(
            ValueError, match=r"yager\(2\).cull_threshold: `max_error` must be between 0 and 1, exclusive"
        ):
            soft.Yager().cull_threshold(wrong, 3)
    for wrong in (0, -2, 1.5, True):
        with pytest.raises(ValueError, match="`n` must be a positive integer"):
            soft.Yager().cull_threshold(1e-3, wrong)
