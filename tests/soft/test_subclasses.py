# SPDX-License-Identifier: Apache-2.0
"""Subclasses of built-in distributions and T-conorms are what they say themselves, also where they are drawn."""

import math

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference, soft
from geodiff.ops.culling import radius_of
from tests.scenes import perspective

CLIP = perspective([[-0.6, -0.5, 2.0], [0.7, -0.4, 2.0], [0.1, 0.6, 2.2], [0.9, 0.8, 3.0]])
SCENE = CLIP, torch.tensor([[0, 1, 2], [1, 3, 2]]), torch.tensor([[0, 0, 2]])
SIZE = (6, 7)


def wider(x: torch.Tensor) -> torch.Tensor:
    return torch.sigmoid(x / 3)


class Wider(soft.Logistic):
    """A law three times as wide as its parent, of which only F is stated."""

    def cdf(self, x):
        return wider(x)


class Bounded(soft.Yager):
    """A T-conorm without its parent's power."""

    def combine(self, a, b):
        return (a + b).clamp(max=1)


class Least(soft.Maximum):
    """Not the maximum, though a subclass of it."""

    def combine(self, a, b):
        return a + b - a * b


def render(function, law, rule, **more) -> torch.Tensor:
    return function(*SCENE, distribution=law, tconorm=rule, scale=0.1, image_size=SIZE, **more)


@pytest.mark.parametrize("form", [lambda law: law, lambda law: law.squared(), lambda law: law.reversed().shifted(0.4)])
def test_a_law_with_another_cdf_is_drawn_by_it_in_every_form(form):
    own, plain = form(Wider()), form(soft.as_distribution(wider))
    assert own.kernel_id is None and radius_of(own, soft.Probabilistic(), 0.1, 2, 1e-4) == math.inf
    x = torch.linspace(-9, 9, 41, dtype=torch.float64)
    for name in ("cdf", "survival", "log_cdf", "log_survival", "pdf"):
        torch.testing.assert_close(getattr(own, name)(x), getattr(plain, name)(x), rtol=1e-12, atol=1e-15)
    q = torch.tensor([0.01, 0.3, 0.8], dtype=torch.float64)
    torch.testing.assert_close(own.quantile(q), plain.quantile(q), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(own.upper_quantile(q), plain.upper_quantile(q), rtol=1e-9, atol=1e-9)
    expected = render(reference.silhouette, plain, "probabilistic")
    for function in (ops.silhouette, reference.silhouette):
        torch.testing.assert_close(render(function, own, "probabilistic"), expected, rtol=1e-12, atol=1e-15)
    assert (expected - render(ops.silhouette, form(soft.Logistic()), "probabilistic")).abs().max() > 0.05


def test_the_closed_form_of_the_wider_law():
    # One pixel, one face, 0.1 inside: F(1) of the wider law.
    clip = torch.tensor([[-0.1, -9.0, 2, 1], [-0.1, 9.0, 2, 1], [9.0, 0.0, 2, 1]], dtype=torch.float64)
    one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
    for coverage in ("faces", "edges"):
        alpha = ops.silhouette(clip, *one, distribution=Wider(), scale=0.1, image_size=(1, 1), coverage=coverage)
        other = 81 / math.hypot(9.1, 9) / 0.1  # to the lines of the other two edges
        far = [1.0] if coverage == "faces" else [1.0, other, other]
        assert alpha.item() == pytest.approx(math.prod(1 / (1 + math.exp(-x / 3)) for x in far), rel=1e-9)
    mesh = gd.Mesh(clip[:, :3] * torch.tensor([1.0, 1.0, -1.0]), torch.tensor([[0, 1, 2]]))
    camera = gd.Camera.orthographic((0.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    contour = gd.Renderer(1, distribution=Wider(), scale=0.1, coverage="contour")(mesh, camera).alpha
    assert contour.item() == pytest.approx(1 / (1 + math.exp(-1 / 3)), rel=1e-6)  # the camera is in float32


@pytest.mark.parametrize(
    "rule, expected", [(Bounded(8.0), lambda a, b: (a + b).clamp(max=1)), (Least(), "probabilistic")]
)
def test_a_tconorm_with_another_combine_is_drawn_by_it(rule, expected):
    plain = soft.as_tconorm(expected)
    assert rule.kernel_id is None and rule.cull_threshold(1e-3, 5) == 0
    a = torch.tensor([[0.1, 0.25, 0.3], [0.9, 0.2, 0.05]], dtype=torch.float64)
    torch.testing.assert_close(rule.aggregate(a, 1), plain.aggregate(a, 1), rtol=1e-12, atol=0)
    logs = torch.log(a), torch.log1p(-a)
    torch.testing.assert_close(rule.aggregate_log(*logs, 1), plain.aggregate(a, 1), rtol=1e-12, atol=0)
    torch.testing.assert_close(rule.dual().aggregate(a, 1), plain.dual().aggregate(a, 1), rtol=1e-12, atol=1e-15)
    with pytest.raises(NotImplementedError, match="has no additive generator"):
        rule.generator(a)
    for function in (ops.silhouette, reference.silhouette):
        got = render(function, "logistic", rule)
        torch.testing.assert_close(got, render(reference.silhouette, "logistic", plain), rtol=1e-12, atol=1e-15)


def test_a_subclass_that_changes_nothing_is_right_and_named_as_its_own():
    class Same(soft.Logistic):
        pass

    class Fixed(soft.Yager):
        def __init__(self):
            super().__init__(3.0)

    assert Same().kernel_id is None and str(Same()) == "custom" and Same().tail == soft.Logistic.tail
    assert Fixed().kernel_id is None and str(Fixed()) == "custom(3)" and repr(Fixed()) == "Fixed(p=3.0)"
    got, expected = (
        render(ops.silhouette, *pair, max_error=0.0) for pair in ((Same(), Fixed()), ("logistic", "yager(3)"))
    )
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-15)


def test_what_a_subclass_states_itself_is_kept_and_what_a_mixin_states_counts():
    class Sharp(soft.Logistic):
        name = "sharp"
        tail = ("finite", "finite")

        def cdf(self, x):
            return torch.sigmoid(9 * x)

        def survival(self, x):
            return torch.sigmoid(-9 * x)

    class Mixin:
        def cdf(self, x):
            return wider(x)

    class Mixed(Mixin, soft.Laplace):
        pass

    class Again(Sharp):
        def cdf(self, x):
            return wider(x)

    x = torch.linspace(-2, 2, 9)
    assert Sharp().tail == ("finite", "finite") and str(Sharp()) == "sharp" and not Sharp().symmetric
    assert torch.equal(Sharp().survival(x), torch.sigmoid(-9 * x))
    torch.testing.assert_close(Sharp().log_cdf(x), torch.log(torch.sigmoid(9 * x)))
    for law in (Mixed(), Again()):
        torch.testing.assert_close(law.survival(x), 1 - wider(x))
        torch.testing.assert_close(law.log_survival(x), torch.log(1 - wider(x)))
        assert law.support == (-math.inf, math.inf) and law.tail == ("unknown", "unknown")


def test_halves_of_a_law_or_a_tconorm_are_refused():
    for name in ("survival", "log_cdf", "log_survival"):
        with pytest.raises(TypeError, match=rf"Half: `cdf` must be defined where {name}\(\) is; got that of Log"):
            type("Half", (soft.Logistic,), {name: lambda self, x: x})
    with pytest.raises(TypeError, match=r"Define cdf\(\), or subclass Distribution"):
        type("Half", (Wider,), {"survival": lambda self, x: x})
    for name in ("aggregate", "aggregate_log", "generator"):
        with pytest.raises(TypeError, match=rf"Half: `combine` must be defined where {name}\(\) is"):
            type("Half", (soft.Maximum,), {name: lambda self, *_: 0})
