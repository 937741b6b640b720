# SPDX-License-Identifier: Apache-2.0
"""Distributions against SciPy, mpmath and finite differences, over their whole range."""

import math

import mpmath
import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodiff import soft

# Values far in a tail carry the rounding of an exponent of up to 700.
TAIL = 1e-12
# erf, atan and exp in float32 carry a few ulp, and exponents of up to 30 magnify the rounding of x.
TAIL_FLOAT32 = 2e-5

SCIPY = {
    "uniform": scipy.stats.uniform(-1, 2),
    "wigner_semicircle": scipy.stats.semicircular(),
    "gaussian": scipy.stats.norm(),
    "laplace": scipy.stats.laplace(),
    "logistic": scipy.stats.logistic(),
    "hyperbolic_secant": scipy.stats.hypsecant(scale=2 / np.pi),
    "cauchy": scipy.stats.cauchy(),
    "gumbel_max": scipy.stats.gumbel_r(),
    "gumbel_min": scipy.stats.gumbel_l(),
    "exponential": scipy.stats.expon(),
    "gamma(0.5)": scipy.stats.gamma(0.5),
    "gamma(2)": scipy.stats.gamma(2),
    "gamma(7.3)": scipy.stats.gamma(7.3),
    "levy": scipy.stats.levy(),
}
BASES = [*(name for name in soft.DISTRIBUTIONS if name != "gamma"), "gamma(0.5)", "gamma(1)", "gamma(2)"]
SMOOTH = [name for name in BASES if name != "heaviside"]
FORMS = [
    "",
    ".reversed",
    ".shifted(0.3)",
    ".shifted(0.3).reversed",
    ".squared",
    ".reversed.squared",
    ".shifted(-0.4).reversed.squared",
]


def inside(distribution: soft.Distribution, count: int = 25, reach: float = 4.0) -> torch.Tensor:
    """Points within the support, off its ends and off 0, where some densities have a kink."""
    low, high = (max(-reach, min(reach, end)) for end in distribution.support)
    x = torch.linspace(low, high, count + 2, dtype=torch.float64)[1:-1] + 0.0037 * (high - low) / count
    return x[x.abs() > 1e-3]


@pytest.mark.parametrize("name", SCIPY)
def test_values_agree_with_scipy(name):
    ours, theirs = soft.as_distribution(name), SCIPY[name]
    x = torch.cat([torch.linspace(-35, 35, 701, dtype=torch.float64), torch.logspace(-5, 9, 60, dtype=torch.float64)])
    x = torch.cat([x, -x])
    with np.errstate(all="ignore"):
        expected = {
            "cdf": theirs.cdf(x),
            "survival": theirs.sf(x),
            "pdf": theirs.pdf(x),
            "log_cdf": theirs.logcdf(x),
            "log_survival": theirs.logsf(x),
        }
    if name == "gamma(0.5)":
        expected["pdf"][np.isinf(expected["pdf"])] = 0  # at 0 exactly, as documented
    for method, values in expected.items():
        actual = getattr(ours, method)(x).numpy()
        # SciPy's generic logarithms are log(cdf), which cancel or underflow: compare those where it does not.
        sure = np.isfinite(values) & (np.abs(values) > 1e-3) if method.startswith("log") else values > 1e-290
        sure |= actual == values
        if name in ("wigner_semicircle", "uniform"):  # SciPy subtracts near the ends
            sure &= (x.abs() < 0.9).numpy() | (x.abs() > 1.001).numpy()
        assert sure.sum() > 200
        np.testing.assert_allclose(actual[sure], values[sure], rtol=TAIL, atol=0, err_msg=method)


def exact_cdf(name: str, x: mpmath.mpf) -> mpmath.mpf:
    m = mpmath
    if name == "uniform":
        return (1 + x) / 2
    if name == "cubic_hermite":
        y = (x + 1) / 2
        return 3 * y**2 - 2 * y**3
    if name == "wigner_semicircle":
        return m.mpf(1) / 2 + (x * m.sqrt(1 - x * x) + m.asin(x)) / m.pi
    if name == "gaussian":
        return m.erfc(-x / m.sqrt(2)) / 2
    if name == "laplace":
        return m.exp(x) / 2 if x < 0 else 1 - m.exp(-x) / 2
    if name == "logistic":
        return 1 / (1 + m.exp(-x))
    if name == "hyperbolic_secant":
        return 2 / m.pi * m.atan(m.exp(m.pi * x / 2))
    if name == "cauchy":
        return m.mpf(1) / 2 + m.atan(x) / m.pi
    if name == "reciprocal":
        return m.mpf(1) / 2 + x / (2 + 2 * abs(x))
    if name == "algebraic":
        return m.mpf(1) / 2 + x / (2 * m.sqrt(1 + x * x))
    if name == "optimal":
        return x + m.mpf(1) / 2 if abs(x) <= 0.25 else (x > 0) - 1 / (16 * x)
    if name == "gumbel_max":
        return m.exp(-m.exp(-x))
    if name == "gumbel_min":
        return -m.expm1(-m.exp(x))
    if name == "exponential":
        return -m.expm1(-x)
    if name == "levy":
        return m.erfc(m.sqrt(1 / (2 * x)))
    shape = m.mpf(float(name[6:-1]))
    return m.gammainc(shape, 0, x, regularized=True)


FAR = {
    "finite": [-0.99999999, -0.999, -0.4, 0.0, 0.3, 0.99, 0.999999],
    "one-sided": [1e-12, 1e-3, 0.4, 1.0, 7.0, 80.0, 600.0],
    "infinite": [-600.0, -90.0, -9.0, -1.0, -0.01, 0.0, 0.6, 5.0, 36.0, 200.0],
}


@pytest.mark.parametrize("name", SMOOTH)
def test_logarithms_and_their_slopes_are_exact_in_both_tails(name):
    distribution = soft.as_distribution(name)
    low, high = distribution.support
    points = FAR["finite" if high < math.inf else "one-sided" if low == 0 else "infinite"]
    if name == "gumbel_max":
        points = [-6.0, -1.0, 0.0, 2.0, 40.0, 800.0]
    if name == "gumbel_min":
        points = [-800.0, -40.0, -2.0, 0.0, 1.0, 6.0]
    if name == "gaussian":
        points = [-50.0, -9.0, -1.0, -0.01, 0.0, 0.6, 5.0, 30.0]
    if name == "levy":
        points = [1e-4, 0.02, 0.5, 3.0, 5.0, 1e6, 1e12]
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    # The slope at the ends of a support feels the rounding of the distance to them.
    slope_bound = 1e-7 if low == -1 else TAIL
    with mpmath.workdps(700):
        step = mpmath.mpf(10) ** -300
        for method, take in (("log_cdf", lambda f: f), ("log_survival", lambda f: 1 - f)):
            value = getattr(distribution, method)(x)
            (slope,) = torch.autograd.grad(value.sum(), x)
            exact = [mpmath.log(take(exact_cdf(name, mpmath.mpf(p)))) for p in points]
            above = [mpmath.log(take(exact_cdf(name, mpmath.mpf(p) + step))) for p in points]
            below = [mpmath.log(take(exact_cdf(name, mpmath.mpf(p) - step))) for p in points]
            slopes = [float((a - b) / (2 * step)) for a, b in zip(above, below, strict=True)]
            np.testing.assert_allclose(value.detach().numpy(), [float(e) for e in exact], rtol=slope_bound, atol=0)
            np.testing.assert_allclose(slope.numpy(), slopes, rtol=slope_bound, atol=0)


@pytest.mark.parametrize("name", SMOOTH)
def test_float32_agrees_with_float64_in_the_tails(name):
    distribution = soft.as_distribution(name)
    x = torch.linspace(-20, 20, 161)
    for method in ("cdf", "survival", "pdf", "log_cdf", "log_survival"):
        single, double = getattr(distribution, method)(x), getattr(distribution, method)(x.double())
        assert single.dtype == torch.float32
        sure = double.abs() > 1e-30 if not method.startswith("log") else torch.isfinite(double)
        torch.testing.assert_close(single[sure].double(), double[sure], rtol=TAIL_FLOAT32, atol=1e-37)


@pytest.mark.parametrize("form", ["", ".shifted(0.3).reversed", ".squared", ".shifted(-0.4).reversed.squared"])
@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_pass_gradcheck(name, form):
    distribution = soft.as_distribution(name + form)
    x = inside(distribution, 4).requires_grad_()
    for method in ("cdf", "survival", "log_cdf", "log_survival"):
        assert torch.autograd.gradcheck(getattr(distribution, method), x), method
    q = torch.tensor([0.02, 0.31, 0.45, 0.77, 0.99], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(distribution.quantile, q)
    assert torch.autograd.gradcheck(distribution.upper_quantile, q)
    assert torch.autograd.gradcheck(distribution.pdf, x)


@pytest.mark.parametrize(
    "name",
    ["gaussian", "laplace", "logistic", "cauchy", "reciprocal", "algebraic", "optimal", "gumbel_min", "exponential"],
)
def test_closed_forms_are_twice_differentiable(name):
    distribution = soft.as_distribution(name)
    x = inside(distribution, 7).requires_grad_()
    for method in ("cdf", "log_cdf", "log_survival"):
        assert torch.autograd.gradgradcheck(getattr(distribution, method), x), method


@pytest.mark.parametrize("form", ["", ".reversed", ".squared", ".reversed.squared"])
@pytest.mark.parametrize("method", ["cdf", "survival", "log_cdf", "log_survival", "pdf"])
def test_gamma_has_gradients_in_shape_and_shift(form, method):
    x = torch.tensor([0.35, 0.8, 1.3], dtype=torch.float64) * (-1 if "reversed" in form else 1)

    def function(shape, shift):
        distribution = soft.Gamma(shape).shifted(shift)
        distribution = distribution.reversed() if "reversed" in form else distribution
        return getattr(distribution.squared() if "squared" in form else distribution, method)(x)

    shape = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    shift = torch.tensor(0.2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (shape, shift))


def test_gamma_quantile_has_a_gradient_in_the_shape():
    q = torch.tensor([0.1, 0.6, 0.95], dtype=torch.float64, requires_grad=True)
    shape = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda q, k: soft.Gamma(k).quantile(q), (q, shape))
    assert torch.autograd.gradcheck(lambda q, k: soft.Gamma(k).upper_quantile(q), (q, shape))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", SMOOTH)
def test_quantiles_invert_the_cdf_in_both_tails(name, form):
    distribution = soft.as_distribution(name + form)
    q = torch.cat([torch.logspace(-9, -1, 17, dtype=torch.float64), torch.linspace(0.1, 0.95, 18, dtype=torch.float64)])
    for quantile, function in (
        (distribution.quantile, distribution.cdf),
        (distribution.upper_quantile, distribution.survival),
    ):
        x = quantile(q)
        # x carries a few roundings, and F a relative error.
        slip = x.abs().clamp(min=1) * 1e-15
        low, high = sorted((function(x - slip), function(x + slip)), key=lambda f: float(f.sum()))
        assert (low <= q * (1 + 1e-11)).all() and (high >= q * (1 - 1e-11)).all()


@pytest.mark.parametrize("name", SCIPY)
def test_quantiles_agree_with_scipy(name):
    q = torch.tensor([1e-12, 1e-5, 0.03, 0.4, 0.5, 0.8, 1 - 1e-9], dtype=torch.float64)
    distribution = soft.as_distribution(name)
    np.testing.assert_allclose(distribution.quantile(q), SCIPY[name].ppf(q), rtol=1e-7, atol=1e-12)
    np.testing.assert_allclose(distribution.upper_quantile(q), SCIPY[name].isf(q), rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", SMOOTH)
def test_quantiles_at_and_beyond_the_ends(name):
    distribution = soft.as_distribution(name)
    ends = distribution.quantile(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert tuple(ends.tolist()) == pytest.approx(distribution.support)
    assert torch.isnan(distribution.quantile(torch.tensor([-0.1, 1.1, math.nan]))).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", BASES)
def test_attributes_describe_the_function(name, form):
    distribution = soft.as_distribution(name + form)
    low, high = distribution.support
    below = torch.tensor([low - 1e-6 if low > -math.inf else -1e300], dtype=torch.float64)
    above = torch.tensor([high + 1e-6 if high < math.inf else 1e300], dtype=torch.float64)
    assert distribution.cdf(below) < 1e-9 and distribution.survival(above) < 1e-9
    x = torch.tensor([-2.9, -1.3, -0.6, -0.2, 0.0, 0.1, 0.45, 0.9, 1.7], dtype=torch.float64)
    really = bool(((distribution.cdf(x) - distribution.survival(-x)).abs() < 1e-12).all())
    assert distribution.symmetric == really
    known = {"finite", "super-exponential", "exponential", "polynomial"}
    assert set(distribution.tail) <= known
    assert (distribution.tail[0] == "finite") == (low > -math.inf)
    assert (distribution.tail[1] == "finite") == (high < math.inf)
    assert "x" in distribution.formula


@pytest.mark.parametrize("name", SMOOTH)
def test_tails_decay_as_they_say(name):
    distribution = soft.as_distribution(name)
    x = torch.tensor([20.0, 40.0, 80.0], dtype=torch.float64)
    for tail, log_mass in zip(distribution.tail, (distribution.log_cdf(-x), distribution.log_survival(x)), strict=True):
        if tail == "polynomial":
            powers = log_mass.diff() / math.log(2)
            assert (powers > -4).all() and (powers < -0.4).all()
        elif tail == "exponential":
            rates = log_mass / x
            assert ((rates > -2) & (rates < -0.8)).all()
        elif tail == "super-exponential":
            assert ((log_mass / x).diff() < -1).all()


def test_heaviside_is_one_at_zero_and_has_no_gradient():
    x = torch.tensor([-1.0, -0.0, 0.0, 2.0], requires_grad=True)
    step = soft.Heaviside()
    assert step.cdf(x).tolist() == [0, 1, 1, 1]
    assert step.survival(x).tolist() == [1, 0, 0, 0]
    assert step.log_cdf(x).tolist() == [-math.inf, 0, 0, 0]
    assert step.log_survival(x).tolist() == [0, -math.inf, -math.inf, -math.inf]
    for value in (step.cdf(x), step.log_cdf(x), step.log_survival(x)):
        assert torch.autograd.grad(value.sum(), x)[0].tolist() == [0, 0, 0, 0]
    assert step.quantile(torch.tensor([0.1, 0.9])).tolist() == [0, 0]


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize("form", FORMS)
def test_infinity_and_nan_come_out_as_they_should(name, form):
    distribution = soft.as_distribution(name + form)
    for dtype in (torch.float32, torch.float64):
        x = torch.tensor([-math.inf, -1e30, 1e30, math.inf], dtype=dtype, requires_grad=True)
        assert torch.allclose(distribution.cdf(x), torch.tensor([0, 0, 1, 1], dtype=dtype), atol=1e-12)
        assert torch.allclose(distribution.survival(x), torch.tensor([1, 1, 0, 0], dtype=dtype), atol=1e-12)
        assert torch.equal(distribution.pdf(x)[[0, 3]], torch.zeros(2, dtype=dtype))
        for value in (distribution.log_cdf(x), distribution.log_survival(x)):
            assert not torch.isnan(value).any()
            assert not torch.isnan(torch.autograd.grad(value.sum(), x)[0]).any()
        for method in (distribution.cdf, distribution.log_cdf, distribution.log_survival):
            assert torch.isnan(method(torch.tensor([math.nan], dtype=dtype)))


@pytest.mark.parametrize("name", BASES)
@given(form=st.sampled_from(FORMS), points=st.lists(st.floats(-50, 50, allow_subnormal=False), min_size=2, max_size=8))
def test_cdf_is_monotone_and_complements_survival(name, form, points):
    distribution = soft.as_distribution(name + form)
    x = torch.tensor(sorted(points), dtype=torch.float64)
    f, s = distribution.cdf(x), distribution.survival(x)
    rounding = 1e-14  # where two branches of a formula meet
    assert (f.diff() >= -rounding).all() and (s.diff() <= rounding).all()
    assert ((f >= 0) & (f <= 1)).all() and ((f + s - 1).abs() < 1e-13).all()
    assert ((torch.exp(distribution.log_cdf(x)) - f).abs() < 1e-13).all()
    assert ((torch.exp(distribution.log_survival(x)) - s).abs() < 1e-13).all()


@pytest.mark.parametrize("name", SMOOTH)
def test_pdf_is_the_slope_of_the_cdf_and_sums_to_it(name):
    distribution = soft.as_distribution(name)
    x = torch.linspace(
        *(float(v) for v in (inside(distribution).min(), inside(distribution).max())), 20001, dtype=torch.float64
    )
    mass = torch.trapezoid(distribution.pdf(x), x)
    assert mass == pytest.approx(float(distribution.cdf(x[-1:]) - distribution.cdf(x[:1])), abs=2e-4)
