# SPDX-License-Identifier: Apache-2.0
"""Every member of the family: the kernel's values and vector–Jacobian products against the twin's, in both dtypes."""

import math
from itertools import product

import pytest
import torch

from geodiff import members, ops, reference, soft
from tests.helpers import rounding_bound
from tests.ops.family import Twin, distributions, rebuild, some, tconorms, with_parameters

SIZE = (8, 9)
NEAR = 0.125
RULES = tconorms()


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two views of twelve generic faces, some through the near plane: nothing ties, no pixel is on an edge."""
    random = torch.Generator().manual_seed(5)
    points = torch.randn(2, 7, 3, generator=random, dtype=torch.float64)
    depth = 2.3 + 0.5 * points[..., 2:]
    depth[:, 6] = -0.7
    clip = torch.cat([0.6 * points[..., :2] * depth.abs(), depth, depth], dim=-1)
    triples = torch.combinations(torch.arange(7), 3)
    faces = triples[torch.randperm(len(triples), generator=random)[:12]]
    return clip.reshape(-1, 4), faces, torch.tensor([[0, 0, 12], [7, 0, 12]])


CLIP, FACES, LAYOUT = scene()


def scale_of(law: soft.Distribution) -> float:
    return 0.05 if law.is_squared else 0.2


def bounds(dtype: torch.dtype, law: soft.Distribution, rule: soft.TConorm) -> tuple[float, float]:
    """How far values and gradients may be off, as a share of the largest.

    float64: 1e-9, for errors of the series and fractions as well as for rounding; a wrong term shows as far more.
    float32: rounding, magnified by coordinates over τ and by a power p; and a power of less than e^−87 is 0, which
    leaves out e^(−87/p) of alpha, and of slopes that much times the rate of the tail over τ.
    """
    if dtype == torch.float64:
        return 1e-9, 1e-9
    size = 2 / scale_of(law)
    power = abs(float(rule.p)) if members.TCONORMS[rule.kernel_id].kind == "levels" else 0.0
    lost = math.exp(-87 / power) if power else 0.0
    steepness = max(power, 1.0)
    return (
        rounding_bound(dtype, size) + 2 * lost,
        rounding_bound(dtype, size * size * steepness) + 2 * lost * size * size,
    )


def kernel(
    law: soft.Distribution, rule: soft.TConorm, dtype: torch.dtype, cotangent: torch.Tensor
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Alpha, and the gradients in clip, scale, shape, shift and p."""
    clip = CLIP.to(dtype).requires_grad_()
    scale, shape, shift, p = (
        torch.tensor(float(v or 0), dtype=torch.float64, requires_grad=True)
        for v in (scale_of(law), law.shape, law.shift, rule.p)
    )
    alpha = ops.silhouette(
        clip,
        FACES,
        LAYOUT,
        distribution=with_parameters(law, shape, shift),
        tconorm=rebuild(rule)(p),
        scale=scale,
        image_size=SIZE,
        near=NEAR,
        max_error=0.0,
    )
    leaves = [clip, scale, shape, shift, p]
    gradients = torch.autograd.grad(alpha, leaves, cotangent.to(dtype), allow_unused=True, materialize_grads=True)
    return alpha.detach().double(), [g.double() for g in gradients]


@pytest.mark.parametrize("law", distributions(), ids=str)
def test_kernel_is_its_twin(law: soft.Distribution):
    names = ["clip", "scale", "shape", "shift", "p"]
    clip = CLIP.clone().requires_grad_()
    scale, shape, shift = (
        torch.tensor(float(v or 0), dtype=torch.float64, requires_grad=True)
        for v in (scale_of(law), law.shape, law.shift)
    )
    member = with_parameters(law, shape, shift)
    twin = Twin(
        [clip, scale, shape, shift],
        (len(LAYOUT), *SIZE),
        lambda tconorm: reference.silhouette(
            clip, FACES, LAYOUT, distribution=member, tconorm=tconorm, scale=scale, image_size=SIZE, near=NEAR
        ),
    )
    cotangent = torch.randn(len(LAYOUT), *SIZE, dtype=torch.float64)
    wrong = []
    for rule in some(RULES, law, 3):
        alpha, gradients = twin(rebuild(rule), rule.p, cotangent)
        assert torch.isfinite(alpha).all() and all(torch.isfinite(g).all() for g in gradients), f"{rule}: the twin"
        # A gradient in one number is a sum over pixels that may cancel: measure it by what one vertex feels.
        felt = float(gradients[0].abs().max())
        least = {"scale": felt, "shape": felt * scale_of(law), "shift": felt * scale_of(law), "p": 0.01}
        for dtype in (torch.float64, torch.float32):
            value_bound, gradient_bound = bounds(dtype, law, rule)
            own, own_gradients = kernel(law, rule, dtype, cotangent)
            error = float((own - alpha).abs().max())
            if not error <= value_bound:
                wrong.append(f"{rule}, {dtype}: alpha off by {error:.2g}, {value_bound:.1g} allowed")
            for name, got, expected in zip(names, own_gradients, gradients, strict=True):
                if (name == "shape" and law.shape is None) or (name == "p" and not rule.p):
                    continue
                error = float((got - expected).abs().max())
                size = float(expected.abs().max())
                allowed = gradient_bound * max(size, least.get(name, 0.0))
                if not error <= allowed:
                    wrong.append(
                        f"{rule}, {dtype}: gradient in {name} off by {error:.2g} of {size:.2g}, {allowed:.1g} allowed"
                    )
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("law", ["logistic.squared", "gamma(0.5).reversed", "cauchy"])
@pytest.mark.parametrize("rule", ["probabilistic", "yager(2)", "maximum", "average"])
def test_the_whole_twin_says_the_same(law: str, rule: str):
    # The test above drives the twin in two halves; here it is called as a user would.
    model = dict(distribution=law, tconorm=rule, scale=0.1, image_size=SIZE, near=NEAR)
    one, other = CLIP.clone().requires_grad_(), CLIP.clone().requires_grad_()
    alpha = ops.silhouette(one, FACES, LAYOUT, max_error=0.0, **model)
    expected = reference.silhouette(other, FACES, LAYOUT, **model)
    cotangent = torch.randn_like(alpha)
    (got,) = torch.autograd.grad(alpha, one, cotangent)
    (wanted,) = torch.autograd.grad(expected, other, cotangent)
    assert float((alpha - expected).detach().abs().max()) < 1e-12
    assert float((got - wanted).abs().max()) < 1e-11 * float(wanted.abs().max())


def test_every_kernel_is_tested_in_every_form():
    tested = [(law.kernel_id, law.is_reversed, bool(law.shift), law.is_squared) for law in distributions()]
    assert set(tested) == {
        (row.number, *form) for row in members.DISTRIBUTIONS for form in product((False, True), repeat=3)
    }
    assert {rule.kernel_id for rule in RULES} == {row.number for row in members.TCONORMS}
    other_forms = [some(RULES, law, 3) for law in distributions() if law is not law.base]
    assert {str(rule) for rules in other_forms for rule in rules} == set(map(str, RULES))


@pytest.mark.parametrize("law", ["logistic", "cauchy.squared"])
def test_gradient_in_p_at_the_border_of_hamachers_family(law: str):
    # At p = 0 the derivative is one-sided, and means nothing where F rounds to 1, so the table above leaves it out.
    results = []
    for function, more in ((ops.silhouette, {"max_error": 0.0}), (reference.silhouette, {})):
        p = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
        model = dict(distribution=law, tconorm=soft.Hamacher(p), scale=2.0, image_size=SIZE, near=NEAR)
        results.append(torch.autograd.grad(function(CLIP, FACES, LAYOUT, **model, **more).sum(), p)[0])
    assert float(results[1].abs()) > 1.0
    assert float((results[0] - results[1]).abs()) < 1e-9 * float(results[1].abs())
