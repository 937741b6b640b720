# SPDX-License-Identifier: Apache-2.0
"""Deep inside and far outside, where alpha rounds to 1 or 0: gradients are the exact ones, and nothing is NaN."""

import pytest
import torch

from geodiff import ops, reference, soft
from geodiff.reference.polygons import near_clip, signed_distance
from tests.helpers import assert_close_relative, rounding_bound
from tests.ops.family import distributions, some, tconorms
from tests.scenes import perspective

FACES, LAYOUT = torch.tensor([[0, 1, 2], [0, 3, 1]]), torch.tensor([[0, 0, 2]])
# Two faces that meet in x = 0, one left and one right, much larger than the image; the second is further away.
CLIP = perspective([[0.0, -9.0, 2.0], [0.0, 11.0, 2.0], [17.0, 0.5, 2.0], [-15.0, 0.7, 3.0]])
SIZE = (2, 8)


def gradient(function, dtype: torch.dtype, law, rule, scale: float, row: int, column: int, **more):
    """Alpha of one pixel and its gradient in the vertices."""
    clip = CLIP.to(dtype).requires_grad_()
    model = dict(distribution=law, tconorm=rule, scale=scale, image_size=SIZE, **more)
    alpha = function(clip, FACES[:1], torch.tensor([[0, 0, 1]]), **model)[0, row, column]
    return alpha.detach(), torch.autograd.grad(alpha, clip)[0].double()


def test_the_pixels_lie_where_the_tests_want_them():
    # Columns 0–3 are left of the face, at 3.5, 2.5, 1.5, 0.5 from its edge; columns 4–7 inside by as much.
    alpha = ops.silhouette(CLIP, FACES[:1], torch.tensor([[0, 0, 1]]), scale=1.0, image_size=SIZE, max_error=0.0)
    expected = torch.sigmoid(torch.arange(8, dtype=torch.float64) - 3.5).expand(2, 8)
    assert_close_relative(alpha[0], expected, rounding_bound(torch.float64, 20))


# One face: ∂alpha/∂d is the density at d/τ, whatever the T-conorm; and x = ±20, where F or 1 − F is 2e-9 and less.
RULES = ["probabilistic", "einstein", "hamacher(0)", "hamacher(4)", "frank(0.1)", "frank(10)", "yager(0.5)", "yager(2)"]
RULES += [
    "aczel_alsina(0.5)",
    "aczel_alsina(2)",
    "dombi(0.5)",
    "dombi(2)",
    "schweizer_sklar(-0.5)",
    "sugeno_weber(-0.5)",
    "sugeno_weber(2)",
    "maximum",
    "average",
]
LAWS = [
    "logistic",
    "laplace",
    "hyperbolic_secant",
    "cauchy",
    "reciprocal",
    "algebraic",
    "optimal",
    "gumbel_max",
    "gumbel_min",
    "exponential",
]
LAWS += ["exponential.reversed", "gamma(0.5)", "gamma(3.7).reversed", "levy", "levy.reversed"]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("column", [1, 6], ids=["outside", "inside"])
def test_gradient_of_one_face_is_the_density(law: str, rule: str, column: int):
    member = soft.as_distribution(law)
    x = torch.tensor(-20.0 if column == 1 else 20.0, dtype=torch.float64)
    density = float(member.pdf(x)) / 0.125
    for dtype in (torch.float64, torch.float32):
        alpha, got = gradient(ops.silhouette, dtype, law, rule, 0.125, 0, column, max_error=0.0)
        wrong = abs(float(alpha) - float(member.cdf(x)))
        # A power of less than e^−87, or more than e^87, does not fit float32: no more than its root is lost.
        assert wrong < 1e-6
        if density < 1e-30:  # float32 has no smaller numbers to speak of
            assert float(got.abs().max()) <= 1e-20
            continue
        if rule.startswith(("yager", "sugeno")) and dtype == torch.float32 and density < 1e-7:
            # The sum rounds to s(1), and that is the plateau of a nilpotent T-conorm.
            if not got.any():
                continue
        # The edge's x is that of vertices 0 and 1 (times w = 2): together they move d by −1 for x + 1.
        total = 2.0 * float(got[0, 0] + got[1, 0])
        # x = 20 carries 64 roundings of d/τ, which the logistic law's exponential makes 20 times as large.
        assert abs(total + density) <= rounding_bound(dtype, 100) * density, f"{dtype}: {total} instead of {-density}"


@pytest.mark.parametrize("law", ["logistic", "gaussian", "logistic.squared", "gumbel_max", "gumbel_min", "laplace"])
@pytest.mark.parametrize(
    "rule", ["probabilistic", "einstein", "hamacher(0.5)", "frank(2)", "aczel_alsina(0.5)", "dombi(1)"]
)
def test_float32_gradients_survive_where_alpha_is_one(law: str, rule: str):
    # Both faces cover the pixel by far: F rounds to 1, yet the smaller of the two still decides where to go.
    corners = perspective([[-4.0, -3.0, 2.0], [5.0, -2.0, 2.5], [0.5, 4.0, 2.0], [-5.0, -2.5, 3.0], [4.5, -3.0, 2.0]])
    faces, layout = torch.tensor([[0, 1, 2], [3, 4, 2]]), torch.tensor([[0, 0, 2]])
    least = signed_distance(torch.zeros(1, 2, dtype=torch.float64), near_clip(corners[faces], 0.01)).min()
    member = soft.as_distribution(law)
    x = float(member.upper_quantile(torch.tensor(1e-9, dtype=torch.float64)))
    scale = float(least / x) if not member.is_squared else float(least / x) ** 2
    results = []
    for function, dtype in (
        (ops.silhouette, torch.float32),
        (ops.silhouette, torch.float64),
        (reference.silhouette, torch.float64),
    ):
        clip = corners.to(dtype).requires_grad_()
        more = {"max_error": 0.0} if function is ops.silhouette else {}
        alpha = function(clip, faces, layout, distribution=law, tconorm=rule, scale=scale, image_size=(1, 1), **more)
        assert float(alpha.detach()) > 1 - 1e-7
        results.append(torch.autograd.grad(alpha.sum(), clip)[0])
    twin = results[2]
    assert float(twin.abs().max()) > 0
    assert_close_relative(results[1], twin, 1e-9)
    if float(twin.abs().max()) < 1e-30:  # the other face's 1 − F, a factor of it, may be below float32's range
        return
    # The rounding of x = d/τ, about 20, times the rate of the tail.
    assert_close_relative(results[0], twin, rounding_bound(torch.float32, 400))


@pytest.mark.parametrize("law", distributions(), ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_nothing_is_nan_at_any_depth(law: soft.Distribution, dtype: torch.dtype):
    for rule in some(tconorms(), law, 5):
        for scale in (1e-12, 1e-2, 1.0, 1e8):
            clip = CLIP.to(dtype).requires_grad_()
            leaves = [clip, torch.tensor(scale, dtype=torch.float64, requires_grad=True)]
            p = rule.p
            if p is not None:
                p = torch.tensor(p, dtype=torch.float64, requires_grad=True)
                leaves.append(p)
            alpha = ops.silhouette(
                clip,
                FACES,
                LAYOUT,
                distribution=law,
                tconorm=rule if p is None else type(rule)(p),
                scale=leaves[1],
                image_size=SIZE,
                max_error=0.0,
            )
            assert ((alpha >= 0) & (alpha <= 1)).all(), f"{rule}, τ = {scale}: {alpha}"
            for one in torch.autograd.grad(alpha.sum(), leaves):
                assert torch.isfinite(one).all(), f"{rule}, τ = {scale}: {one}"


@pytest.mark.parametrize("rule", tconorms(), ids=str)
def test_coverage_of_certain_and_impossible_faces(rule: soft.TConorm):
    # A uniform law of small τ: F is exactly 1 in a face and 0 out of it.
    model = dict(distribution="uniform", tconorm=rule, scale=0.1, image_size=SIZE, max_error=0.0)
    alpha = ops.silhouette(CLIP, FACES[:1], torch.tensor([[0, 0, 1]]), **model)[0]
    assert (alpha[:, :4] == 0).all() and (alpha[:, 4:] == 1).all()
