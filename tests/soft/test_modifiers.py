# SPDX-License-Identifier: Apache-2.0
"""Shifted, reversed and squared forms; user-defined distributions; culling radii; messages."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodiff import soft
from geodiff.soft import special

NAMES = [*(name for name in soft.DISTRIBUTIONS if name != "gamma"), "gamma(0.5)", "gamma(2)"]
# Two ways to the same argument x + h differ by its rounding, which the steepest density magnifies.
ROUNDING = 1e-9

sampled = st.sampled_from(NAMES)
numbers = st.floats(-4, 4, allow_subnormal=False)


def at(x: float) -> torch.Tensor:
    return torch.tensor([x, 0.7 * x - 0.1], dtype=torch.float64)


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool(((a - b).abs() <= ROUNDING).all())


@given(name=sampled, x=numbers)
def test_reversed_is_one_minus_the_mirror(name, x):
    d = soft.as_distribution(name)
    assert torch.equal(d.reversed().cdf(at(x)), d.survival(-at(x)))
    assert torch.equal(d.reversed().log_cdf(at(x)), d.log_survival(-at(x)))
    assert torch.equal(d.reversed().pdf(at(x)), d.pdf(-at(x)))
    assert torch.equal(d.reversed().reversed().cdf(at(x)), d.cdf(at(x)))


@given(name=sampled.filter(lambda n: n not in ("gamma(0.5)", "heaviside")), x=numbers, h=numbers, more=numbers)
def test_shifts_move_the_argument_and_add_up(name, x, h, more):
    d = soft.as_distribution(name)
    assert same(d.shifted(h).cdf(at(x)), d.cdf(at(x) + h))
    assert same(d.shifted(h).shifted(more).cdf(at(x)), d.cdf(at(x) + h + more))
    assert same(d.shifted(h).reversed().cdf(at(x)), 1 - d.cdf(h - at(x)))
    assert same(d.reversed().shifted(h).cdf(at(x)), d.reversed().cdf(at(x) + h))
    assert same(d.shifted(h).reversed().shifted(more).reversed().cdf(at(x)), d.cdf(at(x) + h - more))


@given(name=sampled, x=numbers)
def test_squared_takes_the_signed_square(name, x):
    d = soft.as_distribution(name).reversed()
    y = at(x).abs() * at(x)
    assert torch.equal(d.squared().cdf(at(x)), d.cdf(y))
    assert torch.equal(d.squared().log_survival(at(x)), d.log_survival(y))
    assert torch.equal(d.squared().unsquared().cdf(y), d.cdf(y))


@pytest.mark.parametrize(
    "text", [f"{n}{f}" for n in NAMES for f in ("", ".reversed", ".shifted(0.3)", ".shifted(-0.3).reversed.squared")]
)
def test_canonical_form_builds_the_same_distribution_again(text):
    d = soft.as_distribution(text)
    again = soft.from_kernel(d.kernel_id, d.shape or 0.5, d.shift, d.is_reversed, d.is_squared)
    assert repr(again) == repr(d) and str(again) == str(d) == text
    assert repr(d.unsquared()) == repr(d).removesuffix(".squared()")
    assert list(soft.DISTRIBUTIONS)[d.kernel_id] == d.name == d.base.name
    assert eval(repr(d), vars(soft)).cdf(at(0.4)).tolist() == d.cdf(at(0.4)).tolist()


def test_repr_and_str():
    d = soft.Gamma(0.5).reversed().squared()
    assert repr(d) == "Gamma(shape=0.5).reversed().squared()" and str(d) == "gamma(0.5).reversed.squared"
    assert (
        repr(soft.Gamma(torch.tensor(2.0)).shifted(torch.tensor(0.5))) == "Gamma(shape=tensor(2)).shifted(tensor(0.5))"
    )
    assert str(soft.Gamma(torch.ones(3))) == "gamma(tensor(3,))"
    assert d.formula == "1 - F(-|x|·x) with F(x) = P(shape, x) for x >= 0"
    assert soft.Levy().shifted(2).reversed().formula.startswith("1 - F(2 - x) with")
    assert soft.Levy().shifted(2).formula.startswith("F(x + 2) with")


def test_shift_tensors_broadcast_and_describe_all_their_elements():
    h = torch.tensor([0.0, 1.0], dtype=torch.float64)
    d = soft.Exponential().shifted(h)
    assert d.cdf(torch.zeros(2, dtype=torch.float64)).tolist() == pytest.approx([0, 1 - math.exp(-1)])
    assert d.support == (-1, math.inf) and d.reversed().support == (-math.inf, 1)
    assert soft.Logistic().shifted(h).symmetric is False and soft.Logistic().shifted(0 * h).symmetric is True


def test_distributions_are_frozen_and_can_be_copied():
    d = soft.Gamma(0.5).reversed()
    with pytest.raises(AttributeError, match=r"is frozen: cannot set 'shape'\. Build a new one"):
        d.shape = 2.0
    with pytest.raises(AttributeError, match="is frozen: cannot delete 'shift'"):
        del d.shift
    assert repr(copy.deepcopy(d)) == repr(pickle.loads(pickle.dumps(d))) == repr(d)


# Culling --------------------------------------------------------------------------------------------------------------


@given(
    name=sampled,
    form=st.sampled_from(
        ["", ".reversed", ".shifted(0.4)", ".shifted(-0.4).reversed", ".squared", ".shifted(-0.4).reversed.squared"]
    ),
    exponent=st.floats(-12, -0.05),
)
def test_beyond_the_cull_radius_the_cdf_is_at_most_epsilon(name, form, exponent):
    d, epsilon = soft.as_distribution(name + form), 10**exponent
    radius = d.cull_radius(epsilon)
    assert 0 <= radius < math.inf
    beyond = torch.tensor([-radius * (1 + 1e-9) - 1e-12, -2 * radius - 1], dtype=torch.float64)
    assert (d.cdf(beyond) <= epsilon * (1 + 1e-6)).all()
    if radius > 1e-6:  # and the radius is no larger than it must be
        assert d.cdf(torch.tensor([-radius * (1 - 1e-6) + 1e-12], dtype=torch.float64)) >= epsilon * (1 - 1e-3)


def test_cull_radius_at_its_limits():
    assert soft.Logistic().cull_radius(0.0) == math.inf
    assert soft.Uniform().cull_radius(0.0) == 1
    assert soft.Exponential().cull_radius(0.0) == 0
    assert soft.Heaviside().cull_radius(1e-6) == 0
    assert soft.Logistic().cull_radius(1.0) == 0
    assert soft.Logistic().squared().cull_radius(1e-6) == pytest.approx(math.sqrt(math.log(1e6 - 1)))
    assert soft.Logistic().shifted(torch.tensor([0.0, 3.0])).cull_radius(0.5) == pytest.approx(3)
    with pytest.raises(ValueError, match=r"`epsilon` must be between 0 and 1; got float 2.0"):
        soft.Logistic().cull_radius(2.0)


# User-defined ---------------------------------------------------------------------------------------------------------


class Mine(soft.Distribution):
    """The logistic distribution, defined by its CDF alone, with a parameter."""

    name = "mine"

    def __init__(self, slope=1.0):
        self.slope = slope

    def cdf(self, x):
        return torch.sigmoid(self.slope * x)


@pytest.mark.parametrize("form", ["", ".reversed", ".shifted(0.3).reversed", ".squared"])
def test_subclass_needs_only_a_cdf(form):
    mine, logistic = Mine(), soft.Logistic()
    for call in filter(None, form.split(".")) if "(" not in form else ["shifted", "reversed"]:
        argument = (0.3,) if call == "shifted" else ()
        mine, logistic = getattr(mine, call)(*argument), getattr(logistic, call)(*argument)
    assert mine.kernel_id is None
    x = torch.tensor([-3.0, -0.4, 0.2, 1.5], dtype=torch.float64, requires_grad=True)
    for method in ("cdf", "survival", "pdf", "log_cdf", "log_survival"):
        ours, theirs = getattr(mine, method)(x), getattr(logistic, method)(x)
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=0)
        assert torch.autograd.gradcheck(getattr(mine, method), x)
    q = torch.tensor([1e-9, 0.2, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    for method in ("quantile", "upper_quantile"):
        torch.testing.assert_close(getattr(mine, method)(q), getattr(logistic, method)(q), rtol=1e-7, atol=1e-12)
        assert torch.autograd.gradcheck(getattr(mine, method), q[1:])
    assert mine.cull_radius(1e-6) == pytest.approx(logistic.cull_radius(1e-6), rel=1e-9)


def test_quantile_of_a_subclass_has_a_gradient_in_its_parameter():
    slope = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    q = torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: Mine(s).quantile(q), slope)
    assert torch.autograd.gradcheck(lambda s: Mine(s).pdf(q), slope)


def test_pdf_of_a_subclass_is_detached_where_nothing_asks_for_gradients():
    assert not Mine().pdf(torch.zeros(2)).requires_grad
    with torch.no_grad():
        assert not Mine().pdf(torch.zeros(2, requires_grad=True)).requires_grad


def test_subclass_without_a_slope():
    class Step(soft.Distribution):
        support = (-2.0, 2.0)

        def cdf(self, x):
            return (x >= 0.25).to(x.dtype)

    assert Step().pdf(torch.tensor([0.3])).tolist() == [0]
    assert Step().quantile(torch.tensor([0.5])).tolist() == [0.25]
    with pytest.raises(NotImplementedError, match=r"Distribution must define cdf\(self, x\)"):
        soft.Distribution().cdf(torch.zeros(1))


def test_bisection_finds_infinite_ends_and_far_points():
    far = soft.as_distribution(lambda x: 0.5 + torch.atan(x / 1e9) / math.pi)
    assert far.quantile(torch.tensor([0.75], dtype=torch.float64)).item() == pytest.approx(1e9)
    ends = Mine().quantile(torch.tensor([0.0, -1.0, math.nan], dtype=torch.float64))
    assert ends[0] == -math.inf and torch.isnan(ends[1:]).all()


@pytest.mark.parametrize("distribution", [Mine(), soft.Gamma(0.5), soft.WignerSemicircle()], ids=str)
def test_second_derivative_of_an_iterated_quantile_raises(distribution):
    q = torch.tensor([0.3], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(distribution.quantile(q).sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="not twice differentiable"):
        torch.autograd.grad(slope.sum(), q)


# Messages -------------------------------------------------------------------------------------------------------------


def test_squared_must_come_last():
    d = soft.Logistic().squared()
    with pytest.raises(
        ValueError, match=r"Distribution.shifted: .* is squared already.* Call .shifted\(\) before .squared\(\)"
    ):
        d.shifted(0.1)
    with pytest.raises(ValueError, match=r"Distribution.reversed: .* Call .reversed\(\) before .squared\(\)"):
        d.reversed()
    with pytest.raises(
        ValueError, match=r"Distribution.squared: .* is squared already, and that must be the last step.$"
    ):
        d.squared()


@pytest.mark.parametrize("form", ["", ".reversed.squared"])
@pytest.mark.parametrize("method", ["cdf", "survival", "log_cdf", "log_survival", "pdf"])
def test_inputs_must_be_floating_tensors(form, method):
    for name in ("logistic", "gamma(0.5)"):
        function = getattr(soft.as_distribution(name + form), method)
        with pytest.raises(TypeError, match=r"`x` must be a tensor .*got float 0.5"):
            function(0.5)
        with pytest.raises(TypeError, match=r"`x` must be float32 or float64; got float16"):
            function(torch.zeros(2, dtype=torch.float16))
        with pytest.raises(TypeError, match=r"`x` must be a floating tensor .*got int64"):
            function(torch.zeros(2, dtype=torch.int64))


def test_quantiles_must_be_floating_tensors():
    for name in ("logistic", "gamma(0.5)"):
        with pytest.raises(TypeError, match="`q` must be a tensor"):
            soft.as_distribution(name).quantile(0.5)


@pytest.mark.parametrize("shape", [0, -1.0, math.nan, math.inf])
def test_gamma_shape_must_be_positive(shape):
    with pytest.raises(ValueError, match="Gamma: `shape` must be positive and finite; got"):
        soft.Gamma(shape)


def test_parameters_must_be_numbers():
    with pytest.raises(TypeError, match="`shape` must be positive and finite, as a number or a tensor; got str 'a'"):
        soft.Gamma("a")
    with pytest.raises(TypeError, match="`shift` must be finite, as a number or a tensor; got bool True"):
        soft.Levy().shifted(True)
    with pytest.raises(ValueError, match="`shape` must be positive and finite; got tensor"):
        soft.Gamma(torch.tensor([1.0, -2.0]))
    with pytest.raises(ValueError, match="`shift` must be finite; got nan at index"):
        soft.Levy().shifted(torch.tensor([math.nan]))
    with pytest.raises(TypeError, match="`shift` must be a floating tensor"):
        soft.Levy().shifted(torch.tensor([1]))


def test_once_passes_values_through():
    x = torch.ones(2, requires_grad=True)
    assert torch.autograd.grad(special.once(3 * x).sum(), x)[0].tolist() == [3, 3]
