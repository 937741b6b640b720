# SPDX-License-Identifier: Apache-2.0
"""Fine meshes: each face is looked for only as far as the bound asks, and alpha still keeps to it."""

import importlib
import math

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference, soft
from geodiff.ops.culling import DEAREST, RADII, cull_radius, fine_radii
from tests.helpers import random_cotangent, vjp

RULES = ["probabilistic", "maximum", "average", "einstein", "hamacher(0.5)", "hamacher(4)", "frank(0.5)", "frank(40)"]
RULES += ["yager(0.5)", "yager(2)", "aczel_alsina(2)", "dombi(2)", "dombi(40)", "schweizer_sklar(-2)"]
RULES += ["sugeno_weber(-0.5)", "sugeno_weber(2)"]
LAWS = ["logistic", "logistic.squared", "gaussian", "uniform", "cauchy", "gumbel_max"]
SIZE = (20, 26)


def scene() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A ball of 1 280 faces, half out of the image, and a wall of two large faces beside it."""
    mesh = gd.icosphere(3)
    ball = mesh.vertices.double() * 0.55 + torch.tensor([-0.7, 0.35, 0.0])
    points = torch.cat([ball, torch.tensor([[0.2, -0.9, 0], [1.1, -0.9, 0], [1.1, 0.3, 0], [0.2, 0.3, 0]]).double()])
    depth = 2.0 - points[:, 2:]
    wall = len(mesh.vertices) + torch.tensor([[0, 1, 2], [0, 2, 3]])
    faces = torch.cat([mesh.faces, wall])
    clip = torch.cat([points[:, :2] * depth / 2, depth, depth], dim=1)
    return clip, faces.int(), torch.tensor([[0, 0, len(faces)]])


CLIP, FACES, LAYOUT = scene()


def render(law: str, rule: str, scale: float, max_error: float, clip: torch.Tensor = CLIP, **more) -> torch.Tensor:
    model = dict(distribution=law, tconorm=rule, scale=scale**2 if law.endswith("squared") else scale)
    return ops.silhouette(clip, FACES, LAYOUT, max_error=max_error, image_size=SIZE, **model, **more)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("rule", RULES)
def test_alpha_changes_by_no_more_than_the_bound(law: str, rule: str):
    for scale in (0.006, 0.05):
        whole = render(law, rule, scale, 0.0)
        for max_error in (1e-4, 0.03):
            error = float((render(law, rule, scale, max_error) - whole).abs().max())
            assert error <= max_error * (1 + 1e-9), f"scale {scale}, max_error {max_error}: off by {error}"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("law", "rule"), [("logistic", "probabilistic"), ("gaussian", "einstein")])
def test_the_twin_in_double_agrees_within_the_bound(dtype: torch.dtype, law: str, rule: str):
    model = dict(distribution=law, tconorm=rule, scale=0.03, image_size=SIZE)
    twin = reference.silhouette(CLIP, FACES, LAYOUT, **model)
    alpha = render(law, rule, 0.03, 1e-4, CLIP.to(dtype))
    assert float((alpha - twin).abs().max()) < 1e-4 + (1e-5 if dtype == torch.float32 else 0)  # rounding of float32


@pytest.mark.parametrize("rule", ["probabilistic", "frank(0.5)", "yager(2)", "dombi(2)"])
@pytest.mark.parametrize("law", ["logistic", "gaussian"])
def test_gradients_change_little(law: str, rule: str):
    cotangent = random_cotangent(render(law, rule, 0.01, 0.0))
    scale = torch.tensor(0.01, dtype=torch.float64)
    whole, culled = (vjp(lambda c, s, e=e: render(law, rule, s, e, c), [CLIP, scale], cotangent) for e in (0.0, 1e-4))
    for a, b in zip(culled, whole, strict=True):
        assert not torch.equal(a, b)
        # Left out are tails of weight 1e-4 with f ≤ 6·F/τ for either law, from gradients of the order 1/τ.
        assert float((a - b).norm() / b.norm()) < 5e-3


def pairs(layers: int) -> int:
    """Of balls of 5 120 faces inside each other, as large as the image."""
    mesh = gd.icosphere(4)
    points = torch.cat([mesh.vertices.double() * (0.9 - 0.01 * i) for i in range(layers)])
    clip = torch.cat([points[:, :2], 2.0 - points[:, 2:], torch.ones_like(points[:, :1])], dim=1)
    faces = torch.cat([mesh.faces + i * len(mesh.vertices) for i in range(layers)]).int()
    layout = torch.tensor([[0, 0, len(faces)]])
    return int(ops.count_pairs(clip, faces, layout, scale=0.004, image_size=(256, 256)).item())


def test_less_is_evaluated(monkeypatch):
    own = pairs(1)
    monkeypatch.setattr(importlib.import_module("geodiff.ops.silhouette"), "_FINE", math.inf)
    assert own < 0.65 * pairs(1)


def test_hidden_layers_cost_less_each():
    # What covers a pixel already leaves less to the others: pairs a face fall with the number of layers.
    assert pairs(6) < 0.8 * 6 * pairs(1)


def test_threads_and_batches_leave_the_bits():
    threads = torch.get_num_threads()
    cotangent = random_cotangent(CLIP.new_zeros(1, *SIZE))
    found = []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            clip = CLIP.clone().requires_grad_()
            alpha = render("logistic", "probabilistic", 0.02, 1e-4, clip)
            found.append((alpha.detach(), *torch.autograd.grad(alpha, clip, cotangent)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    layout = torch.tensor([[i * len(CLIP), 0, len(FACES)] for i in range(9)])  # so many that threads share out images
    batch = ops.silhouette(CLIP.repeat(9, 1), FACES, layout, scale=0.02, image_size=SIZE)
    assert torch.equal(batch, found[0][0].expand_as(batch))


@pytest.mark.parametrize("rule", RULES)
def test_radii_are_those_of_so_many_faces(rule: str):
    law, conorm = soft.as_distribution("logistic"), soft.as_tconorm(rule)
    form = conorm.kernel_id, float(conorm.p or 0)
    radii, ease = fine_radii(law.kernel_id, False, False, 0.0, 0.0, *form, 1e-3)
    assert len(radii) == RADII and list(radii) == sorted(radii)
    for power in (0, 1, 7):
        expected = cull_radius(law.kernel_id, False, False, 1.0, 0.0, 0.0, *form, 2**power, 1e-3)
        assert radii[DEAREST + 2 * power] == pytest.approx(expected, rel=1e-9)
    if rule == "probabilistic":
        assert ease == pytest.approx(1e-3 / -math.log1p(-1e-3))  # s' is 1 at 0
    if ease == 0:
        assert radii[0] == radii[DEAREST]  # no pixel may miss more than an empty one
    else:  # s(a + δ) − s(a) ≥ δ·s′(a), of which no radius is asked where s is not convex
        a = torch.linspace(0.01, 0.9, 50, dtype=torch.float64)
        s = conorm.generator(a)
        assert (s.diff().diff() > -1e-12).all()
