# SPDX-License-Identifier: Apache-2.0
"""All SIMD levels of this machine say the same: hard images to the bit, soft ones within rounding.

`make test-levels` runs all tests of this folder at each level.
"""

import os
import subprocess
import sys

import pytest
import torch

from geodiff import ops, reference
from geodiff.native import cpu
from tests.contour_scenes import SHAPES
from tests.helpers import assert_close_relative, rounding_bound
from tests.random_scenes import Case, case
from tests.scenes import SCENES

LEVELS = cpu.simd_levels()
pytestmark = pytest.mark.skipif(len(LEVELS) == 1, reason="this machine has the baseline only")


@pytest.fixture(autouse=True)
def same_level_after():
    """Put back the level that was in use."""
    before = cpu.simd_level()
    yield
    cpu.extension().set_simd_level(before)


def hard_outputs(clip, faces, layout, size, near: float) -> dict[str, torch.Tensor]:
    """Everything that decides which face a pixel sees, and the gradients of it."""
    out: dict[str, torch.Tensor] = {}
    view = {"image_size": size, "near": near}
    for key, value in ops.rasterize(clip, faces, layout, **view)._asdict().items():
        out[f"rasterize.{key}"] = value
    for k, blur, order in ((1, 0.0, "depth"), (3, 0.2, "depth"), (1, 0.2, "visible")):
        leaf = clip.clone().requires_grad_()
        found = ops.fragments(leaf, faces, layout, k=k, blur=blur, order=order, **view)
        there = found.face_id >= 0
        total = (found.distance[there] * 1.3).sum() + found.barycentric[there][..., 0].sum() + found.depth[there].sum()
        for key, value in found._asdict().items():
            out[f"fragments {k} {order}.{key}"] = value.detach()
        if total.requires_grad:
            out[f"fragments {k} {order} gradient"] = torch.autograd.grad(total, leaf)[0]
    for key, value in ops.visible(clip, faces, layout, blur=0.2, **view)._asdict().items():
        out[f"visible.{key}"] = value
    out["contour"] = ops.contour(clip, faces, layout, distribution="heaviside", scale=1.0, **view)
    leaf = clip.clone().requires_grad_()
    distance = ops.contour(leaf, faces, layout, distribution="uniform", scale=2.0, **view)
    if distance.requires_grad:
        out["contour gradient"] = torch.autograd.grad(distance.sum(), leaf)[0]
    return out


def at_every_level(function) -> dict[str, dict[str, torch.Tensor]]:
    results = {}
    for level in LEVELS:
        cpu.extension().set_simd_level(level)
        results[level] = function()
    return results


def assert_same_bits(function) -> None:
    results = at_every_level(function)
    for level in LEVELS[1:]:
        for name, value in results[level].items():
            same = torch.equal(torch.nan_to_num(value), torch.nan_to_num(results["baseline"][name]))
            assert same, f"{name}: {level} differs from the baseline"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scene", [*SCENES, *SHAPES], ids=lambda s: s.name)
def test_hard_images_have_the_same_bits(scene, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    assert_same_bits(lambda: hard_outputs(clip, faces, layout, (33, 29), scene.near))


@pytest.mark.parametrize("number", range(40))
def test_hard_images_of_random_scenes_have_the_same_bits(number: int):
    some: Case = case(7, number)
    assert_same_bits(lambda: hard_outputs(*some.packed(some.dtype), some.image_size, some.near))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("coverage", ["faces", "edges"])
@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
def test_soft_images_agree(scene, coverage: str, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    model = dict(scale=scene.scale, image_size=scene.image_size, near=scene.near, coverage=coverage)
    results = at_every_level(lambda: {"alpha": ops.silhouette(clip, faces, layout, **model)})
    # Coordinates over τ are up to 20; a fused product rounds once where the baseline rounds twice. The line of a cut of
    # length 2⁻²⁴ turns by as many roundings.
    bound = rounding_bound(dtype, 2.0**24 if scene.name == "corner barely behind the near plane" else 20)
    for level in LEVELS[1:]:
        assert_close_relative(results[level]["alpha"], results["baseline"]["alpha"], bound, level)


def run(code: str, level: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GEODIFF_SIMD": level}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("level", LEVELS[:2])
def test_the_environment_chooses_the_level(level: str):
    done = run("from geodiff.native import cpu; print(cpu.simd_level())", level)
    assert done.stdout.strip() == level, done.stderr


def test_an_unknown_level_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("GEODIFF_SIMD", "avx9")
    cpu.extension.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"`GEODIFF_SIMD` must be one of baseline.* on this machine; got avx9"):
            cpu.simd_level()
    finally:
        monkeypatch.undo()
        cpu.extension.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("order", [[1, 2, 0], [2, 0, 1], [2, 1, 0], [0, 2, 1]], ids=str)
@pytest.mark.parametrize("apart", [False, True], ids=["shared vertices", "own vertices"])
def test_of_faces_on_top_of_each_other_the_lowest_index_wins(order: list[int], apart: bool, dtype: torch.dtype):
    """A kernel at each level, and the twin: whatever corner a face begins with, and whichever way it turns."""
    n, g = 24, torch.Generator().manual_seed(3)
    size = 0.1 + 2 * torch.rand(n, 1, 1, generator=g, dtype=torch.float64)
    at = torch.rand(n, 1, 2, generator=g, dtype=torch.float64) - 0.5 + size * torch.randn(n, 3, 2, generator=g).double()
    depth = 2 + torch.rand(n, 3, 1, generator=g, dtype=torch.float64)
    depth[-2:, 0] = -1.0  # cut by the near plane
    clip = torch.cat([at * depth, depth, depth], dim=-1).reshape(-1, 4).to(dtype)
    below = torch.arange(3 * n, dtype=torch.int32).reshape(n, 3)
    above = below[:, order] + (3 * n if apart else 0)
    scene = torch.cat([clip, clip]), torch.cat([above, below]), torch.tensor([[0, 0, 2 * n]])
    view = {"image_size": (23, 31), "near": 0.1}

    def faces(module) -> dict[str, torch.Tensor]:
        found = module.rasterize(*scene, **view).face_id, module.visible(*scene, **view).face_id
        return {"rasterize": found[0], "visible": found[1], "fragments": module.fragments(*scene, **view).face_id}

    results = at_every_level(lambda: faces(ops)) | {"twin": faces(reference)}
    for result in results.values():
        for found in result.values():
            assert (found >= n // 2).any() and (found < n).all()
