# SPDX-License-Identifier: Apache-2.0
"""Textured surfaces in light: kernel against twin, both against differences, images of their own rows and textures."""

from typing import Any

import pytest
import torch

from geodiff import ops, reference
from tests.helpers import assert_gradient_is_derivative, assert_same_vjp, rounding_bound

KINDS = torch.tensor([0, 1], dtype=torch.int32)
NAMES = ("uv", "frame", "weight", "rows", "texture")


def scene(points: int, rows: int = 1, textures: int = 1, vertices: int = 50) -> dict[str, torch.Tensor]:
    """Faces of random corners, with texture coordinates of their own; ascending images."""
    light = 0.3 + torch.rand(rows, 7 + 24, dtype=torch.float64)
    light[:, :3] = 4 * torch.randn(rows, 3, dtype=torch.float64)
    light[:, 3] = 2 + 6 * torch.rand(rows, dtype=torch.float64)
    light[:, 7:10] = torch.nn.functional.normalize(torch.randn(rows, 3, dtype=torch.float64))
    light[:, 19:22] = 3 * torch.randn(rows, 3, dtype=torch.float64)
    images = max(rows, textures)
    return {
        "uv": torch.rand(vertices + 9, 2, dtype=torch.float64),
        "uv_corners": torch.randint(0, vertices + 9, (points, 3)),
        "frame": torch.randn(vertices, 6, dtype=torch.float64),
        "corners": torch.randint(0, vertices, (points, 3)),
        "weight": torch.rand(points, 3, dtype=torch.float64).softmax(dim=1),
        "image": torch.randint(0, images, (points if images > 1 else 0,)).sort().values,
        "rows": light,
        "kinds": KINDS,
        "texture": torch.rand(textures, 7, 5, 3, dtype=torch.float64),
    }


def of(module: Any, scene: dict[str, torch.Tensor], **options: Any):
    """The op as a function of what it has gradients in."""
    return lambda *tensors: module.surface(**{**scene, **dict(zip(NAMES, tensors, strict=True))}, **options)


def leaves(scene: dict[str, torch.Tensor], dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [scene[name].to(dtype) for name in NAMES]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("batch", [(1, 1), (3, 1), (1, 3), (3, 3)], ids=str)
@pytest.mark.parametrize("options", [{}, {"glossy": False, "wrap": "clamp"}, {"parallel_view": True}], ids=str)
def test_kernel_is_its_twin(dtype: torch.dtype, batch: tuple[int, int], options: dict):
    given = scene(3000, *batch)
    assert_same_vjp(
        of(ops, given, **options),
        of(reference, given, **options),
        leaves(given, dtype),
        rounding_bound(dtype, 50),
        rounding_bound(dtype, 1e4),  # as for light alone
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
@pytest.mark.parametrize("batch", [(1, 1), (2, 1), (2, 2)], ids=str)
def test_gradient_is_the_derivative(module, batch: tuple[int, int]):
    given = scene(40, *batch)
    assert_gradient_is_derivative(of(module, given), leaves(given), 1e-7)


@pytest.mark.usefixtures("backend")
def test_it_is_light_times_texture():
    """A texture of one colour takes nothing but the light; a light of one colour nothing but the texture."""
    given = scene(500)
    given["texture"] = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64).expand(1, 7, 5, 3)
    frame = ops.blend(given["frame"], given["corners"], given["weight"])
    light = ops.reflect(given["rows"], KINDS, given["image"], frame[:, 3:].contiguous(), frame[:, :3].contiguous())
    expected = given["texture"][0, 0, 0] * light[:, :3] + light[:, 3:]
    torch.testing.assert_close(of(ops, given)(*leaves(given)), expected)
    given = scene(500)
    given["rows"][:, 4:7], given["kinds"], given["rows"] = 0.5, KINDS[:0], given["rows"][:, :7]
    uv = ops.blend(given["uv"], given["uv_corners"], given["weight"])
    torch.testing.assert_close(
        of(ops, given)(*leaves(given)), 0.5 * ops.sample(given["texture"], uv, given["image"]), rtol=1e-12, atol=0
    )


def test_opcheck_and_no_points():
    given = scene(5, 2, 2)
    tensors = {name: x.float().requires_grad_() if x.is_floating_point() else x.int() for name, x in given.items()}
    torch.library.opcheck(torch.ops.geodiff.surface, (*tensors.values(), 0, False, True))
    none = {name: given[name][:0] for name in ("uv_corners", "corners", "weight", "image")}
    assert ops.surface(**{**given, **none}).shape == (0, 3)


@pytest.mark.usefixtures("backend")
def test_only_wanted_gradients_are_made():
    given = scene(300)
    every = [x.requires_grad_() for x in leaves(given)]
    full = torch.autograd.grad(of(ops, given)(*every).square().sum(), every)
    for i in range(len(NAMES)):
        some = [x.requires_grad_(k == i) for k, x in enumerate(leaves(given))]
        (grad,) = torch.autograd.grad(of(ops, given)(*some).square().sum(), some[i])
        assert torch.equal(grad, full[i]), NAMES[i]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("wrap", ["repeat", "clamp", "mirror"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (6, 1), (5, 4)], ids=str)
def test_small_textures_and_coordinates_far_outside(size: tuple[int, int], wrap: str):
    given = scene(700, 1, 4)
    given["uv"] = 40 * given["uv"] - 20
    given["texture"] = torch.rand(4, *size, 3, dtype=torch.float64)
    given["image"] = torch.randint(0, 2, (700,)).sort().values * 3  # two images have no points
    assert_same_vjp(of(ops, given, wrap=wrap), of(reference, given, wrap=wrap), leaves(given), 1e-11, 1e-9)


def coherent(points: int, images: int) -> dict[str, torch.Tensor]:
    """Many batches of blocks, of points that follow each other on one face, as in images."""
    given = scene(points, images, images)
    run = (torch.rand(points) < 0.2).cumsum(0) % 40
    given["corners"] = torch.stack([run, run + 1, run + 5], dim=1).to(torch.int32)
    given["uv_corners"] = given["corners"] + 9
    return given


def test_many_batches_are_the_twins():
    given = coherent(40_000, 3)
    assert_same_vjp(of(ops, given), of(reference, given), leaves(given), 1e-11, 1e-9)


@pytest.mark.parametrize("make", [lambda: scene(9000, 3, 3), lambda: coherent(40_000, 2)], ids=["few", "batches"])
def test_the_same_bits_on_any_number_of_threads(make):
    given = make()
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        try:
            some = [x.requires_grad_() for x in leaves(given, torch.float32)]
            out = of(ops, given)(*some)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), some)))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bad_arguments_are_named():
    given = scene(5, 2)
    wrong = [
        (ValueError, r"surface: `uv` must be of 2 columns", {"uv": torch.rand(59, 3, dtype=torch.float64)}),
        (ValueError, r"surface: `frame` must be of 6 columns", {"frame": torch.rand(50, 8, dtype=torch.float64)}),
        (ValueError, r"blend: `index` must be int32 or int64 of the shape", {"corners": given["corners"][:4]}),
        (ValueError, r"reflect: `rows` must be of shape \(B, 31\)", {"rows": given["rows"][:, :9]}),
        (TypeError, r"blend: `weight` must be of the dtype of `values`", {"weight": given["weight"].float()}),
        (ValueError, r"surface: `texture` must be of 3 channels", {"texture": given["texture"][..., :1]}),
        (ValueError, r"surface: `texture` must be of a batch of 1 or as many as there are rows, 2",
         {"texture": given["texture"].expand(3, 7, 5, 3)}),
        (ValueError, r"reflect: `image` must be \(5,\)", {"image": given["image"][:0]}),
    ]  # fmt: skip
    for module in (ops, reference):
        for error, match, change in wrong:
            with pytest.raises(error, match=match):
                module.surface(**{**given, **change})
        with pytest.raises(ValueError, match="sample: `wrap` must be one of repeat, clamp, mirror"):
            module.surface(**given, wrap="tile")
        images = scene(5, 1, 2)
        with pytest.raises(ValueError, match=r"surface: `image` must be \(5,\), one a point, where images have rows"):
            module.surface(**{**images, "image": images["image"][:0]})
    three = {"weight": torch.rand(5, 2, dtype=torch.float64), "corners": given["corners"][:, :2]}
    with pytest.raises(ValueError, match="surface: `weight` must be of 3 columns"):
        ops.surface(**{**given, **three, "uv_corners": given["uv_corners"][:, :2]})
    with pytest.raises(ValueError, match=r"surface: `uv_corners` must be in \[0, 59\); got from 59 to 59"):
        ops.surface(**{**given, "uv_corners": torch.full((5, 3), 59)})
    with pytest.raises(ValueError, match=r"surface: `corners` must be in \[0, 50\); got from -1 to -1"):
        ops.surface(**{**given, "corners": torch.full((5, 3), -1)})
    one = torch.zeros(5, 3, dtype=torch.int32)  # for both, as where there are no seams
    for count, name, index in ((59, "corners", 50), (59, "corners", -1), (20, "uv_corners", 30)):
        both = one + index
        same = {"corners": both, "uv_corners": both, "uv": torch.rand(count, 2, dtype=torch.float64)}
        with pytest.raises(ValueError, match=f"surface: `{name}` must be in .*; got from {index} to {index}"):
            ops.surface(**{**given, **same})
    with pytest.raises(ValueError, match=r"surface: `image` must be \(5,\), one a point, or empty; got"):
        ops.surface(**{**scene(5), "image": torch.zeros(2, dtype=torch.int64)})
    with pytest.raises(ValueError, match=r"surface: `image` must be in \[0, 2\); got from 2 to 2"):
        ops.surface(**{**given, "image": torch.full((5,), 2)})


def test_not_twice_differentiable():
    given = scene(5)
    some = [x.requires_grad_() for x in leaves(given)]
    (first,) = torch.autograd.grad(of(ops, given)(*some).square().sum(), some[1], create_graph=True)
    with pytest.raises(RuntimeError, match="geodiff::surface is not twice differentiable"):
        first.sum().backward()
