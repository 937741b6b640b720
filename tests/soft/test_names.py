# SPDX-License-Identifier: Apache-2.0
"""Selection by name, class and callable; the family and its names."""

import pytest
import torch

from geodiff import members, soft
from geodiff.soft.names import median


@pytest.mark.parametrize("name", soft.DISTRIBUTIONS)
def test_every_distribution_is_found_by_name_and_class(name):
    cls = soft.DISTRIBUTIONS[name]
    assert type(soft.as_distribution(name)) is type(soft.as_distribution(cls)) is cls
    one = cls()
    assert soft.as_distribution(one) is one
    assert getattr(soft, cls.__name__) is cls


@pytest.mark.parametrize("name", soft.TCONORMS)
def test_every_tconorm_is_found_by_name_and_class(name):
    cls = soft.TCONORMS[name]
    assert type(soft.as_tconorm(name)) is type(soft.as_tconorm(cls)) is cls
    one = cls()
    assert soft.as_tconorm(one) is one
    assert getattr(soft, cls.__name__) is cls


def test_kernel_numbers_follow_the_order():
    for rows, classes in ((members.DISTRIBUTIONS, soft.DISTRIBUTIONS), (members.TCONORMS, soft.TCONORMS)):
        assert len(rows) > 10
        assert [row.number for row in rows] == [cls.kernel_id for cls in classes.values()] == list(range(len(rows)))
        assert [row.struct for row in rows] == [cls.__name__ for cls in classes.values()]
    for i, cls in enumerate(soft.TCONORMS.values()):
        assert bool(cls.samples) == cls.parametric
        for p in cls.samples or (0.0,):
            rule = soft.tconorm_from_kernel(i, p)
            assert type(rule) is cls and rule.p == (p if cls.parametric else None)
    for i, cls in enumerate(soft.DISTRIBUTIONS.values()):
        assert bool(cls.samples) == cls.parametric
        for shape in cls.samples or (0.0,):
            law = soft.from_kernel(i, shape)
            assert type(law) is cls and law.shape == (shape if cls.parametric else None)


def test_strings_with_parameters_and_modifiers():
    for text, expected in {
        "gamma(2)": "Gamma(shape=2.0)",
        "gamma": "Gamma(shape=0.5)",
        " gamma( 1e-1 ) . reversed . squared ": "Gamma(shape=0.1).reversed().squared()",
        "exponential.shifted(-0.25).reversed()": "Exponential().shifted(-0.25).reversed()",
        "exponential.reversed.shifted(0.25)": "Exponential().shifted(-0.25).reversed()",
        "logistic.squared": "Logistic().squared()",
    }.items():
        assert repr(soft.as_distribution(text)) == expected
    assert repr(soft.as_tconorm("yager(0.5)")) == "Yager(p=0.5)"
    assert repr(soft.as_tconorm("schweizer_sklar(-4)")) == "SchweizerSklar(p=-4.0)"
    assert repr(soft.as_tconorm("maximum")) == "Maximum()" and str(soft.Yager(2)) == "yager(2)"


@pytest.mark.parametrize("name", ["exponential", "levy", "gamma(2)", "gumbel_max", "cauchy"])
def test_shift_by_the_median_centres(name):
    for form in ("", ".reversed"):
        d = soft.as_distribution(f"{name}.shifted(median){form}")
        assert d.cdf(torch.zeros(1, dtype=torch.float64)).item() == pytest.approx(0.5, abs=1e-12)
        assert median(d) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "text, message",
    [
        ("logistc", "`distribution` must be the name of a known one; got 'logistc'. Did you mean 'logistic'?"),
        ("xyz", "got 'xyz'. Choose one of: "),
        ("Gausian", "Did you mean 'gaussian'?"),
        ("logistic(2)", "must be 'logistic' without a parameter; got 'logistic(2)'. It has none."),
        ("gamma(x)", "must be a number in the parentheses of 'gamma'; got 'x'"),
        ("gamma(-1)", "Gamma: `shape` must be positive"),
        ("logistic.square", "must be followed by known modifiers; got 'square'. Did you mean 'squared'?"),
        ("logistic.squared(2)", "must be '.squared' without a number"),
        (
            "logistic.shifted",
            "must be shifted by a number; got 'logistic.shifted'. Write .shifted(0.5) or .shifted(median).",
        ),
        ("logistic.squared.reversed", "Call .reversed() before .squared()"),
        ("logistic squared", "must be a name such as 'gamma(0.5).reversed.squared'; got 'logistic squared'"),
        ("", "must be a name such as"),
        ("logistic.", "must be a name such as"),
    ],
)
def test_wrong_distribution_strings_say_how_to_mend_them(text, message):
    with pytest.raises(ValueError) as error:
        soft.as_distribution(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("yaeger", "`tconorm` must be the name of a known one; got 'yaeger'. Did you mean 'yager'?"),
        ("yager(0)", "Yager: `p` must be positive and finite; got 0.0"),
        ("einstein(2)", "must be 'einstein' without a parameter"),
        ("yager(2).squared", "must be a name without modifiers; got 'yager(2).squared'. Write 'yager' alone."),
        ("yager[2]", "must be a name such as 'yager(2)'"),
    ],
)
def test_wrong_tconorm_strings_say_how_to_mend_them(text, message):
    with pytest.raises(ValueError) as error:
        soft.as_tconorm(text)
    assert message in str(error.value)


def test_callables_become_distributions_and_tconorms():
    d = soft.as_distribution(torch.sigmoid)
    assert repr(d) == "Custom(sigmoid)" and d.name == "sigmoid"
    x = torch.linspace(-2, 2, 5, dtype=torch.float64)
    torch.testing.assert_close(d.reversed().squared().cdf(x), soft.Logistic().squared().cdf(x))

    def bounded(a, b):
        return (a + b).clamp(max=1)

    rule = soft.as_tconorm(bounded)
    assert repr(rule) == "CustomTConorm(bounded)" and rule.kernel_id is None
    assert rule.aggregate(torch.tensor([[0.2, 0.3], [0.8, 0.9]]), dim=1).tolist() == pytest.approx([0.5, 1.0])


def test_wrong_objects_are_refused():
    with pytest.raises(
        TypeError, match="`distribution` must be a Distribution, a name such as 'logistic', or a callable"
    ):
        soft.as_distribution(3)
    with pytest.raises(TypeError, match="`distribution` must be a Distribution"):
        soft.as_distribution(int)
    with pytest.raises(TypeError, match="`tconorm` must be a TConorm, a name such as 'probabilistic', or a callable"):
        soft.as_tconorm(None)
    with pytest.raises(
        TypeError, match="must be a callable that maps a tensor to one of its shape; got float64 of shape"
    ):
        soft.as_distribution(lambda x: x.sum())
    with pytest.raises(ValueError, match="rising from 0 to 1; got values from -1 to 1"):
        soft.as_distribution(lambda x: torch.sign(x))
    with pytest.raises(ValueError, match=r"rising from 0 to 1; got values from .* not rising"):
        soft.as_distribution(lambda x: torch.sigmoid(-x))
    laws, rules = len(soft.DISTRIBUTIONS), len(soft.TCONORMS)
    with pytest.raises(ValueError, match=f"`kernel_id` must be from 0 to {laws - 1}; got int {laws}"):
        soft.from_kernel(laws)
    with pytest.raises(ValueError, match=f"`kernel_id` must be from 0 to {rules - 1}; got int -1"):
        soft.tconorm_from_kernel(-1)


def test_family_has_the_thesis_count():
    family = soft.family()
    named = [m for m in family if m.in_thesis]
    assert len(named) == 1242 == 2 * 23 * 27
    assert len({str(m.distribution) for m in named}) == 46 and len({str(m.tconorm) for m in named}) == 27
    assert len(family) > 1242 and family[: len(named)] == tuple(named)
    assert sum(m.distribution.is_squared for m in named) == 621
    assert not any(isinstance(m.distribution.base, soft.Heaviside) for m in family)


def test_family_is_a_full_grid_of_different_members():
    family = soft.family()
    assert len({m.name for m in family}) == len(family)
    assert len({(repr(m.distribution), repr(m.tconorm)) for m in family}) == len(family)
    assert len(family) == len({str(m.distribution) for m in family}) * len({str(m.tconorm) for m in family})


def test_family_names_read_back():
    for m in soft.family():
        again = soft.member(m.name)
        assert (repr(again.distribution), repr(again.tconorm), again.in_thesis) == (
            repr(m.distribution),
            repr(m.tconorm),
            m.in_thesis,
        )
        assert repr(soft.as_distribution(str(m.distribution))) == repr(m.distribution)
        assert repr(soft.as_tconorm(str(m.tconorm))) == repr(m.tconorm)


def test_member_reads_names_outside_the_grid():
    m = soft.member(" heaviside + frank(3) ")
    assert repr(m.distribution) == "Heaviside()" and repr(m.tconorm) == "Frank(p=3.0)" and not m.in_thesis
    assert m.name == "heaviside+frank(3)"
    for wrong in ("logistic", "a+b+c", 3):
        with pytest.raises(ValueError, match=r"member: `name` must be of the form DISTRIBUTION\+TCONORM"):
            soft.member(wrong)
