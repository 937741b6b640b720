# SPDX-License-Identifier: Apache-2.0
"""Faces far from a pixel are left out: alpha changes by no more than the bound, and something is in fact left out."""

import math

import pytest
import torch

from geodiff import icosphere, ops, soft
from geodiff.ops.culling import cull_radius
from tests.helpers import assert_close_relative, random_cotangent, vjp

RULES = ["probabilistic", "maximum", "average", "einstein", "hamacher(0)", "hamacher(4)", "frank(0.5)", "yager(0.5)"]
RULES += ["yager(2)", "aczel_alsina(0.5)", "aczel_alsina(2)", "dombi(0.5)", "dombi(2)", "schweizer_sklar(-2)"]
RULES += ["sugeno_weber(-0.5)", "sugeno_weber(2)"]
LIGHT = ["logistic", "logistic.squared", "gaussian", "uniform", "gamma(2).reversed", "exponential.reversed.squared"]
HEAVY = ["cauchy", "reciprocal.squared", "levy.reversed", "algebraic"]


def ball() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A sphere of 320 small faces in one corner of the image."""
    mesh = icosphere(2)
    points = mesh.vertices.double() * 0.4 + torch.tensor([-0.5, 0.45, 0.0])
    depth = 2.0 - points[:, 2:]
    return torch.cat([points[:, :2], depth, torch.ones_like(depth)], dim=1), mesh.faces, mesh.layout_for(1)


SIZE = (24, 20)
CLIP, FACES, LAYOUT = ball()


def render(law: str, rule: str, scale: float, max_error: float, clip: torch.Tensor = CLIP) -> torch.Tensor:
    model = dict(distribution=law, tconorm=rule, scale=scale, image_size=SIZE)
    return ops.silhouette(clip, FACES, LAYOUT, max_error=max_error, **model)


@pytest.mark.parametrize("law", LIGHT + HEAVY)
@pytest.mark.parametrize("rule", RULES)
def test_alpha_changes_by_no_more_than_the_bound(law: str, rule: str):
    scale = 1e-3 if law.endswith("squared") else 0.03
    whole = render(law, rule, scale, 0.0)
    for max_error in (1e-4, 1e-2, 0.1):
        error = float((render(law, rule, scale, max_error) - whole).abs().max())
        assert error <= max_error * (1 + 1e-9), f"max_error {max_error}: off by {error}"


@pytest.mark.parametrize("law", LIGHT)
@pytest.mark.parametrize("rule", RULES)
def test_something_is_left_out(law: str, rule: str):
    scale = 1e-4 if law.endswith("squared") else 0.005
    model = dict(distribution=law, tconorm=rule, scale=scale, image_size=SIZE)
    pairs = ops.count_pairs(CLIP, FACES, LAYOUT, max_error=1e-2, **model).item()
    assert 0 < pairs < 0.9 * 320 * SIZE[0] * SIZE[1]


@pytest.mark.parametrize("law", ["cauchy", "levy.reversed", "reciprocal"])
def test_heavy_tails_reach_over_the_whole_image(law: str):
    model = dict(distribution=law, tconorm="yager(0.5)", scale=0.03, image_size=SIZE)
    assert ops.count_pairs(CLIP, FACES, LAYOUT, **model).item() == 320 * SIZE[0] * SIZE[1]


def test_no_error_allowed_leaves_nothing_out_that_has_weight():
    model = dict(scale=0.03, image_size=SIZE, max_error=0.0)
    for law in ("logistic", "cauchy", "gaussian.squared"):
        assert ops.count_pairs(CLIP, FACES, LAYOUT, distribution=law, **model).item() == 320 * SIZE[0] * SIZE[1]
    assert ops.count_pairs(CLIP, FACES, LAYOUT, distribution="uniform", **model).item() < 320 * SIZE[0] * SIZE[1] / 4


@pytest.mark.parametrize("law", ["logistic", "gaussian.squared"])
def test_gradient_changes_little(law: str):
    scale = 1e-3 if law.endswith("squared") else 0.03
    cotangent = random_cotangent(render(law, "probabilistic", scale, 0.0))
    whole, culled = (
        vjp(lambda c, e=e: render(law, "probabilistic", scale, e, c), [CLIP], cotangent)[0] for e in (0.0, 1e-4)
    )
    # Left out is a hazard f/S ≤ 1/τ of weight 1e-4, in a pixel here or there, from gradients of the order 1/τ.
    assert_close_relative(culled, whole, 1e-2)
    assert not torch.equal(culled, whole)


def radius(law: str, rule: str, scale: float, faces: int, max_error: float) -> float:
    member, conorm = soft.as_distribution(law), soft.as_tconorm(rule)
    form = member.is_reversed, member.is_squared, scale, float(member.shape or 0), float(member.shift)
    return cull_radius(member.kernel_id, *form, conorm.kernel_id, float(conorm.p or 0), faces, max_error)


def test_radius_in_closed_form():
    # Probabilistic, n faces: F ≤ 1 − (1 − δ)^(1/n), and the logistic quantile is log(F/(1 − F)).
    share = -math.expm1(math.log1p(-1e-4) / 50)
    expected = -0.02 * math.log(share / (1 - share))
    assert radius("logistic", "probabilistic", 0.02, 50, 1e-4) == pytest.approx(expected, rel=1e-9)
    squared = math.sqrt(-0.02 * math.log(share / (1 - share)))
    assert radius("logistic.squared", "probabilistic", 0.02, 50, 1e-4) == pytest.approx(squared, rel=1e-9)
    assert radius("uniform", "maximum", 0.02, 50, 0.0) == pytest.approx(0.02)
    assert radius("logistic", "maximum", 0.02, 50, 0.0) == math.inf
    # Nothing left of its support: a one-sided distribution has weight inside only.
    assert radius("exponential", "probabilistic", 0.02, 50, 1e-4) == 0.0
