# SPDX-License-Identifier: Apache-2.0
"""Special functions against SciPy and mpmath."""

import mpmath
import numpy as np
import pytest
import scipy.special
import torch

from geodiff.soft import special

# The prefactor x^k e^-x / Γ(k) is exp of a difference of numbers up to 250, each rounded to 1 in 1e16.
INCOMPLETE_GAMMA = 1e-12
# Central differences of fourth order with h = 1e-4 k: truncation and rounding of gammainc (1e-14) / h, at k = 0.05.
DIFFERENCES = 2e-8
# A handful of float64 roundings.
ROUNDING = 1e-14


def grid() -> tuple[np.ndarray, np.ndarray]:
    k, x = np.meshgrid(np.geomspace(0.05, 50, 22), np.geomspace(1e-6, 200, 40))
    return k.reshape(-1), x.reshape(-1)


def evaluate(function, k, x):
    k, x = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (k, x))
    value = function(k, x)
    return value.detach().numpy(), *(g.numpy() for g in torch.autograd.grad(value.sum(), (k, x)))


@pytest.mark.parametrize(
    "ours, theirs", [(special.gammainc, scipy.special.gammainc), (special.gammaincc, scipy.special.gammaincc)]
)
def test_incomplete_gamma_agrees_with_scipy(ours, theirs):
    k, x = grid()
    np.testing.assert_allclose(evaluate(ours, k, x)[0], theirs(k, x), rtol=INCOMPLETE_GAMMA, atol=1e-300)


def test_shape_derivative_of_incomplete_gamma_agrees_with_central_differences():
    k, x = grid()
    h = 1e-4 * k

    def f(k):
        return scipy.special.gammainc(k, x)

    expected = (8 * (f(k + h) - f(k - h)) - (f(k + 2 * h) - f(k - 2 * h))) / (12 * h)
    np.testing.assert_allclose(evaluate(special.gammainc, k, x)[1], expected, rtol=0, atol=DIFFERENCES)
    np.testing.assert_allclose(evaluate(special.gammaincc, k, x)[1], -expected, rtol=0, atol=DIFFERENCES)


def test_derivative_of_incomplete_gamma_in_x_is_the_density():
    k, x = grid()
    density = np.exp((k - 1) * np.log(x) - x - scipy.special.gammaln(k))
    np.testing.assert_allclose(evaluate(special.gammainc, k, x)[2], density, rtol=INCOMPLETE_GAMMA, atol=1e-300)
    np.testing.assert_allclose(evaluate(special.gammaincc, k, x)[2], -density, rtol=INCOMPLETE_GAMMA, atol=1e-300)


@pytest.mark.parametrize("k", [0.05, 0.5, 1.0, 3.7, 50.0])
@pytest.mark.parametrize("x", [1e-6, 0.03, 0.9, 1.1, 3.0, 21.5, 60.0, 300.0])
def test_logarithms_of_incomplete_gamma_and_their_derivatives_agree_with_mpmath(k, x):
    rarer = max(-evaluate(special.log_gammainc, [k], [x])[0][0], -evaluate(special.log_gammaincc, [k], [x])[0][0])
    with mpmath.workdps(70 + int(rarer / 2.3)):  # the other one lies this close to 1
        a, b, h = mpmath.mpf(k), mpmath.mpf(x), mpmath.mpf(10) ** -20

        def lower(a):
            return mpmath.log(mpmath.gammainc(a, 0, b, regularized=True))

        def upper(a):
            return mpmath.log(mpmath.gammainc(a, b, mpmath.inf, regularized=True))

        density = mpmath.exp((a - 1) * mpmath.log(b) - b - mpmath.loggamma(a))
        for ours, exact, sign in ((special.log_gammainc, lower, 1), (special.log_gammaincc, upper, -1)):
            value, by_k, by_x = evaluate(ours, [k], [x])
            expected = [exact(a), (exact(a + h) - exact(a - h)) / (2 * h), sign * density / mpmath.exp(exact(a))]
            np.testing.assert_allclose(
                [value[0], by_k[0], by_x[0]], [float(e) for e in expected], rtol=INCOMPLETE_GAMMA, atol=1e-300
            )


def test_incomplete_gamma_at_its_limits():
    k = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    for x, p in ((-1.0, 0.0), (0.0, 0.0), (torch.inf, 1.0)):
        at = torch.full_like(k, x, requires_grad=True)
        for function, expected in ((special.gammainc, p), (special.gammaincc, 1 - p)):
            value = function(k, at)
            assert torch.equal(value, torch.full_like(k, expected))
            assert torch.isfinite(torch.autograd.grad(value.sum(), at)[0]).all()
    assert torch.isnan(special.gammainc(k, torch.full_like(k, torch.nan))).all()
    assert torch.isnan(special.gammainc(torch.tensor(-1.0), torch.ones(2))).all()


def test_incomplete_gamma_keeps_float32_and_sums_the_gradient_over_broadcast_axes():
    k = torch.tensor(0.7, requires_grad=True)
    x = torch.linspace(0.1, 5, 6).reshape(2, 3).requires_grad_()
    value = special.gammainc(k, x)
    assert value.dtype == torch.float32
    by_k, by_x = torch.autograd.grad(value.sum(), (k, x))
    assert by_k.shape == () and by_x.shape == (2, 3)
    expected = torch.autograd.functional.jacobian(
        lambda k: special.gammainc(k, x.detach().double()).sum(), k.detach().double()
    )
    torch.testing.assert_close(by_k, expected.float(), rtol=1e-6, atol=0)


def test_incomplete_gamma_refuses_a_second_derivative_rather_than_be_wrong():
    x = torch.ones(1, requires_grad=True)
    value = special.gammainc(torch.tensor(0.5), x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="not twice differentiable"):
        torch.autograd.grad((value + slope**2).sum(), x)


def exactly(function, points):
    with mpmath.workdps(700):
        return [float(function(mpmath.mpf(p))) for p in points]


def mp_log1mexp(t):
    return mpmath.log(-mpmath.expm1(-t))


def mp_log_expm1_ratio(t):
    return mpmath.log(mpmath.expm1(t) / t)


def mp_log_log1p_ratio(t):
    return mpmath.log(mpmath.log1p(t) / t)


def mp_log_ndtr(t):
    return mpmath.log(mpmath.erfc(-t / mpmath.sqrt(2)) / 2)


@pytest.mark.parametrize(
    "ours, exact, points",
    [
        (special.log1mexp, mp_log1mexp, [1e-300, 1e-20, 1e-3, 0.5, 0.693, 0.7, 3, 36, 40]),
        (
            special.log_expm1_ratio,
            mp_log_expm1_ratio,
            [-2000, -30, -1, -0.11, -0.09, -1e-6, 1e-12, 0.03, 0.099, 0.11, 2, 50, 5000],
        ),
        (
            special.log_log1p_ratio,
            mp_log_log1p_ratio,
            [-0.999, -0.5, -0.021, -0.019, -1e-9, 1e-12, 0.01, 0.019, 0.021, 1, 1e5],
        ),
        (special.log_ndtr, mp_log_ndtr, [-1e4, -38, -10, -1.01, -0.99, 0, 0.5, 3, 8, 30]),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_logarithms_and_their_slopes_agree_with_mpmath(ours, exact, points):
    x = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    value = ours(x)
    np.testing.assert_allclose(value.detach().numpy(), exactly(exact, points), rtol=20 * ROUNDING, atol=0)
    (slope,) = torch.autograd.grad(value.sum(), x)
    expected = exactly(lambda t: mpmath.diff(exact, t, h=abs(t or 1) * mpmath.mpf(10) ** -30), points)
    # Series and differences meet where either has lost three digits.
    np.testing.assert_allclose(slope.numpy(), expected, rtol=2e-12, atol=1e-300)


def test_gradients_at_the_ends_are_finite():
    for function, x in (
        (special.log, 0.0),
        (special.log1mexp, 0.0),
        (special.log_expm1_ratio, 0.0),
        (special.log_log1p_ratio, 0.0),
    ):
        at = torch.tensor([x], dtype=torch.float64, requires_grad=True)
        assert torch.isfinite(torch.autograd.grad(function(at).sum(), at)[0]).all()


def test_smooth_is_differentiable_again_where_its_slope_is():
    x = torch.linspace(-2, 2, 9, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: special.smooth(x, torch.sin, torch.cos), x)


def test_known_attaches_given_derivatives():
    a, b = torch.tensor(2.0, requires_grad=True), torch.ones(3, requires_grad=True)
    value = special.known(
        torch.full((3,), 5.0), (a, torch.full((3,), 7.0)), (b, torch.tensor([1.0, torch.nan, torch.inf]))
    )
    by_a, by_b = torch.autograd.grad(value.sum(), (a, b))
    assert by_a == 21 and by_b[0] == 1 and by_b[1] == 0 and by_b[2] == torch.finfo(torch.float32).max
