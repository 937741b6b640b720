# SPDX-License-Identifier: Apache-2.0
"""Finite differences of rendered scenes against the kernel's gradient, and the kernel against its twin on each."""

import pytest
import torch

from geodiff import ops, reference, soft
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, random_cotangent, rounding_bound, vjp
from tests.scenes import SCENES, Scene

MEMBERS = [
    (soft.Logistic(), soft.Probabilistic()),
    (soft.Cauchy(), soft.Yager(2.0)),
    (soft.Gamma(2.0).reversed(), soft.Dombi(0.5)),
    (soft.Gaussian(), soft.Maximum()),
]
by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
by_smooth_scene = pytest.mark.parametrize("scene", [s for s in SCENES if not s.kink], ids=lambda s: s.name)
by_form = pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
by_member = pytest.mark.parametrize(("law", "rule"), MEMBERS, ids=str)


def scale_of(scene: Scene, squared: bool) -> torch.Tensor:
    return torch.tensor(scene.scale**2 if squared else scene.scale, dtype=torch.float64)


@by_smooth_scene
@by_form
@by_member
def test_gradient_is_the_derivative(scene: Scene, squared: bool, law: soft.Distribution, rule: soft.TConorm):
    if scene.ties and isinstance(rule, soft.Maximum):
        pytest.skip("the maximum of two equal faces has a kink where they part")
    clip, faces, layout = scene.tensors()
    scale = scale_of(scene, squared)

    def alpha(clip: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
        return ops.silhouette(
            clip,
            faces,
            layout,
            distribution=law.squared() if squared else law,
            tconorm=rule,
            scale=scale * relative,
            image_size=scene.image_size,
            near=scene.near,
            max_error=0.0,  # culling would let alpha jump by its bound
        )

    assert_gradient_is_derivative(alpha, [clip, torch.ones_like(scale)], scene.step, directions=2)


@pytest.mark.usefixtures("backend")
@by_scene
@by_form
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_kernel_is_its_twin_on_every_scene(scene: Scene, squared: bool, dtype: torch.dtype):
    law = soft.Logistic().squared() if squared else soft.Logistic()
    clip, faces, layout = scene.tensors(dtype)
    scale = scale_of(scene, squared)
    model = dict(distribution=law, tconorm="probabilistic", image_size=scene.image_size, near=scene.near)

    def kernel(clip: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return ops.silhouette(clip, faces, layout, scale=scale, max_error=0.0, **model)

    def twin(clip: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return reference.silhouette(clip, faces, layout, scale=scale, **model)

    alpha = kernel(clip, scale)
    assert alpha.dtype == dtype
    # Coordinates over τ: 10 to 100 for most; the huge triangle's coordinates and scale are both in the thousands.
    assert_close_relative(alpha, twin(clip.double(), scale), rounding_bound(dtype, 100), "alpha")
    rough = ("sliver", "tiny triangle", "corner barely behind the near plane")
    if scene.name == "corner exactly on the near plane" or (dtype == torch.float32 and scene.name in rough):
        # There the nearest feature, and so the gradient, hangs on the rounding of a coordinate, or is one of two.
        return
    cotangent = random_cotangent(alpha)
    got = vjp(kernel, [clip, scale], cotangent)
    wanted = vjp(twin, [clip.double(), scale], cotangent.double())
    for name, one, other in zip(("clip", "scale"), got, wanted, strict=True):
        assert_close_relative(one, other, rounding_bound(dtype, 1e4), f"gradient in {name}")


@by_scene
@by_form
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@by_member
def test_everything_is_finite(scene: Scene, squared: bool, dtype: torch.dtype, law: soft.Distribution, rule):
    clip, faces, layout = scene.tensors(dtype)
    law = law.squared() if squared else law
    for scale in (1e-8, 1e-3, 10.0):
        own = torch.tensor(scale, dtype=torch.float64)

        def alpha(clip: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
            model = dict(distribution=law, tconorm=rule, image_size=scene.image_size, near=scene.near)
            return ops.silhouette(clip, faces, layout, scale=scale, **model)

        value = alpha(clip, own)
        assert ((value >= 0) & (value <= 1)).all()
        for gradient in vjp(alpha, [clip, own], random_cotangent(value)):
            assert torch.isfinite(gradient).all()
