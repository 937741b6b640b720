# SPDX-License-Identifier: Apache-2.0
"""Reflected light: kernel against twin, both against differences, images of their own."""

import pytest
import torch

from geodiff import ops, reference
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, assert_same_vjp, rounding_bound

KINDS = torch.tensor([0, 1, 1], dtype=torch.int32)


def scene(points: int, images: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of numbers, ascending images, normals of any length and points."""
    rows = 0.3 + torch.rand(images, 7 + 36, dtype=torch.float64)
    rows[:, :3] = 4 * torch.randn(images, 3, dtype=torch.float64)
    rows[:, 3] = 2 + 6 * torch.rand(images, dtype=torch.float64)
    for light in range(3):
        rows[:, 7 + 12 * light : 10 + 12 * light] = 3 * torch.randn(images, 3, dtype=torch.float64)
    rows[:, 7:10] /= rows[:, 7:10].norm(dim=1, keepdim=True)
    image = torch.randint(0, images, (points,)).sort().values if images > 1 else torch.zeros(0, dtype=torch.int64)
    return rows, image, torch.randn(points, 3, dtype=torch.float64), torch.randn(points, 3, dtype=torch.float64)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("options", [{}, {"glossy": False}, {"parallel_view": True}], ids=str)
def test_kernel_is_its_twin(dtype: torch.dtype, images: int, options: dict):
    rows, image, normal, point = scene(3000, images)
    # Not where a highlight starts, with a jump of FAINT to the power of the shininess, nor where light is edge-on.
    assert_same_vjp(
        lambda r, n, p: ops.reflect(r, KINDS, image, n, p, **options),
        lambda r, n, p: reference.reflect(r, KINDS, image, n, p, **options),
        [x.to(dtype) for x in (rows, normal, point)],
        rounding_bound(dtype, 10),
        rounding_bound(dtype, 1e4),  # beside a light or on a normal without length, one over a small distance
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
@pytest.mark.parametrize("options", [{}, {"parallel_view": True}], ids=str)
def test_gradient_is_the_derivative(module, options: dict):
    rows, image, normal, point = scene(40, 2)
    assert_gradient_is_derivative(
        lambda r, n, p: module.reflect(r, KINDS, image, n, p, **options), [rows, normal, point], 1e-7
    )


@pytest.mark.usefixtures("backend")
def test_zero_vectors_are_finite():
    rows, image, normal, point = scene(4)
    normal[0], point[1], point[2] = 0, rows[0, :3], rows[0, 19:22]  # no normal; at the eye; at a lamp
    for module in (ops, reference):
        for fading in (rows[0, 28:31].clone(), torch.tensor([0.0, 0, 1]), torch.tensor([0.0, 1, 0])):
            rows[0, 28:31] = fading
            leaves = [x.clone().requires_grad_() for x in (rows, normal, point)]
            out = module.reflect(leaves[0], KINDS, image, leaves[1], leaves[2])
            assert torch.equal(out[0, :3], rows[0, 4:7]) and not out[0, 3:].any()
            assert all(torch.isfinite(g).all() for g in torch.autograd.grad(out.sum(), leaves))
    two = rows.expand(2, -1).contiguous()
    assert all(m.reflect(two, KINDS, image, normal[:0], point[:0]).shape == (0, 6) for m in (ops, reference))


def test_opcheck_and_no_points():
    rows, image, normal, point = (x.float() if x.is_floating_point() else x.int() for x in scene(5, 2))
    leaves = [x.requires_grad_() for x in (rows, normal, point)]
    torch.library.opcheck(torch.ops.geodiff.reflect, (leaves[0], KINDS, image, leaves[1], leaves[2], False, True))
    assert ops.reflect(rows, KINDS, image[:0], normal[:0], point[:0]).shape == (0, 6)
    assert ops.reflect(rows[:1, :7], KINDS[:0], image[:0], normal, point)[:, :3].allclose(rows[:1, 4:7])


@pytest.mark.usefixtures("backend")
def test_no_points_give_lights_no_gradient():
    """Nor is anything read beyond the images' points, where none of several images has any."""
    for images in (0, 1, 40):
        rows, image, normal, point = scene(0, 40)
        rows = rows[:images].requires_grad_()
        ops.reflect(rows, KINDS, image, normal, point).sum().backward()
        assert rows.grad is not None and torch.equal(rows.grad, torch.zeros(images, 43, dtype=torch.float64))


def test_the_same_bits_on_any_number_of_threads():
    rows, image, normal, point = scene(9000, 3)
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            leaves = [x.float().requires_grad_() for x in (rows, normal, point)]
            out = ops.reflect(leaves[0], KINDS, image, leaves[1], leaves[2])
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaves)))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bad_arguments_are_named():
    rows, image, normal, point = scene(5, 2)
    for module in (ops, reference):
        with pytest.raises(ValueError, match=r"reflect: `rows` must be of shape \(B, 19\)"):
            module.reflect(rows, KINDS[:1], image, normal, point)
        with pytest.raises(ValueError, match=r"reflect: `point` must be of shape \(5, 3\)"):
            module.reflect(rows, KINDS, image, normal, point[:4])
        with pytest.raises(TypeError, match="reflect: `normal` must be of the dtype of `rows`"):
            module.reflect(rows, KINDS, image, normal.float(), point)
        with pytest.raises(ValueError, match=r"reflect: `image` must be \(5,\), one a point, or empty with one row"):
            module.reflect(rows, KINDS, image[:0], normal, point)
    with pytest.raises(ValueError, match=r"reflect: `image` must be in \[0, 2\); got from 2 to 2"):
        ops.reflect(rows, KINDS, torch.full((5,), 2), normal, point)


def test_not_twice_differentiable():
    rows, image, normal, point = scene(5)
    normal.requires_grad_()
    (first,) = torch.autograd.grad(
        ops.reflect(rows, KINDS, image, normal, point).square().sum(), normal, create_graph=True
    )
    with pytest.raises(RuntimeError, match="geodiff::reflect is not twice differentiable"):
        first.sum().backward()


@pytest.mark.usefixtures("backend")
def test_a_closed_form():
    row = torch.tensor([[0.0, 0, 1, 8, 0.1, 0.1, 0.1, 0.0, 0.6, 0.8, 0.5, 0.5, 0.5, 1, 1, 1, 1, 0, 0]])
    up = torch.tensor([[0.0, 0.0, 2.0]])
    out = ops.reflect(row, KINDS[:1], torch.zeros(0, dtype=torch.int64), up, 0 * up, parallel_view=True)
    # n·l = 0.8, and the mirror image of the light is as far from the normal as the light: r·v = 0.8.
    assert_close_relative(out, torch.tensor([[0.5, 0.5, 0.5, 0.8**8, 0.8**8, 0.8**8]]), rounding_bound(torch.float32))


# --- samples of textures ---------------------------------------------------------------------------------------------

WRAPS = ("repeat", "clamp", "mirror")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("images", [1, 3])
def test_samples_are_the_twins(dtype: torch.dtype, wrap: str, images: int):
    image = torch.rand(images, 7, 5, 3, dtype=torch.float64)
    uv = 3 * torch.randn(5000, 2, dtype=torch.float64)
    texels = uv * torch.tensor([5.0, 7.0]) - 0.5
    uv = uv[((texels - texels.round()).abs() > 1e-3).all(dim=1)]  # at a texel's centre rounding decides the slope
    index = torch.randint(0, images, (len(uv),)) if images > 1 else torch.zeros(0, dtype=torch.int64)
    assert_same_vjp(
        lambda i, c: ops.sample(i, c, index, wrap=wrap),
        lambda i, c: reference.sample(i, c, index, wrap=wrap),
        [image.to(dtype), uv.to(dtype)],
        rounding_bound(dtype, 50),  # a coordinate is 50 texels away at most
        rounding_bound(dtype, 50),
    )
    assert ops.sample(image, uv[:0], index[:0], wrap=wrap).shape == (0, 3)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
@pytest.mark.parametrize("wrap", WRAPS)
def test_the_gradient_of_samples_is_the_derivative(module, wrap: str):
    image, uv = torch.rand(1, 7, 5, 3, dtype=torch.float64), 3 * torch.randn(50, 2, dtype=torch.float64)
    none = torch.zeros(0, dtype=torch.int64)
    assert_gradient_is_derivative(lambda i, c: module.sample(i, c, none, wrap=wrap), [image, uv], 1e-7)


@pytest.mark.usefixtures("backend")
def test_samples_far_away_are_finite():
    uv = torch.tensor([[1e30, -1e30], [3e38, 0.5]])
    for wrap in WRAPS:
        assert torch.isfinite(
            ops.sample(torch.rand(1, 4, 4, 3), uv, torch.zeros(0, dtype=torch.int64), wrap=wrap)
        ).all()


def test_opcheck_and_threads_of_samples():
    image, uv = torch.rand(2, 40, 30, 3, requires_grad=True), torch.randn(9000, 2, requires_grad=True)
    index = torch.randint(0, 2, (9000,), dtype=torch.int32)
    torch.library.opcheck(torch.ops.geodiff.sample, (image, uv, index, 0))
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            out = ops.sample(image, uv, index)
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), [image, uv])))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    (first,) = torch.autograd.grad(ops.sample(image, uv, index).square().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="geodiff::sample is not twice differentiable"):
        first.sum().backward()


def test_bad_samples_are_named():
    image, uv, none = torch.rand(2, 4, 4, 3), torch.rand(5, 2), torch.zeros(0, dtype=torch.int64)
    for module in (ops, reference):
        with pytest.raises(ValueError, match=r"sample: `image` must be of shape \(B, H, W, C\)"):
            module.sample(image[0], uv, none)
        with pytest.raises(ValueError, match=r"sample: `uv` must be of shape \(P, 2\)"):
            module.sample(image, uv[:, :1], none)
        with pytest.raises(TypeError, match="sample: `uv` must be of the dtype of `image`"):
            module.sample(image, uv.double(), none)
        with pytest.raises(ValueError, match="sample: `wrap` must be one of repeat, clamp, mirror"):
            module.sample(image, uv, none, wrap="tile")
        for empty in (image[:0], image[:, :0], image[:, :, :0]):
            with pytest.raises(ValueError, match="sample: `image` must be of one or more images of one or more texels"):
                module.sample(empty, uv, none)
        with pytest.raises(ValueError, match=r"sample: `index` must be \(5,\), one a point, or empty"):
            module.sample(image, uv, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"sample: `index` must be in \[0, 2\); got from 2 to 2"):
        ops.sample(image, uv, torch.full((5,), 2))


# --- images composed of colours --------------------------------------------------------------------------------------


def composition(pixels: int = 6000, rows: int = 1) -> list[torch.Tensor]:
    """Coverage with 0 and 1 among it, colours of a third of the pixels, their places, and a background."""
    alpha = torch.rand(pixels, dtype=torch.float64)
    alpha[::5], alpha[1::5] = 0, 1
    place = (torch.rand(pixels) < 0.3).nonzero()[:, 0]
    return [alpha, torch.rand(len(place), 3, dtype=torch.float64), place, torch.rand(rows, 3, dtype=torch.float64)]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("rows", [1, 1000, 6000])
def test_compositions_are_the_twins(dtype: torch.dtype, rows: int):
    alpha, color, place, background = composition(rows=rows)
    assert_same_vjp(
        lambda a, c, b: ops.composite(a, c, place, b),
        lambda a, c, b: reference.composite(a, c, place, b),
        [x.to(dtype) for x in (alpha, color, background)],
        rounding_bound(dtype),
        rounding_bound(dtype, 100),  # of one background the gradient is a sum over all pixels
    )


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
def test_the_gradient_of_a_composition_is_the_derivative(module):
    alpha, color, place, background = composition(60, rows=20)
    inputs = [alpha, color, background]
    assert_gradient_is_derivative(lambda a, c, b: module.composite(a, c, place, b), inputs, 1e-7)


@pytest.mark.usefixtures("backend")
def test_where_nothing_or_all_is_covered_a_composition_is_exact():
    alpha, color, place, background = (x.float() if x.is_floating_point() else x for x in composition(rows=6000))
    out = ops.composite(alpha, color, place, background)
    assert torch.equal(out[alpha == 0], background[alpha == 0])
    seen = alpha[place] == 1
    assert seen.any() and torch.equal(out[place[seen]], color[seen])


def test_opcheck_and_threads_of_compositions():
    alpha, color, place, background = composition(20000, rows=5000)
    leaves = [x.float().requires_grad_() for x in (alpha, color, background)]
    torch.library.opcheck(torch.ops.geodiff.composite, (leaves[0], leaves[1], place, leaves[2]))
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            out = ops.composite(leaves[0], leaves[1], place, leaves[2])
            results.append((out.detach(), *torch.autograd.grad(out.square().sum(), leaves[:2])))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    (first,) = torch.autograd.grad(
        ops.composite(leaves[0], leaves[1], place, leaves[2]).square().sum(), leaves[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="geodiff::composite is not twice differentiable"):
        first.sum().backward()
    assert torch.equal(ops.composite(leaves[0], leaves[1][:0], place[:0], torch.zeros(1, 3)), torch.zeros(20000, 3))


def test_bad_compositions_are_named():
    alpha, color, place, background = composition(60)
    for module in (ops, reference):
        with pytest.raises(ValueError, match=r"composite: `alpha` must be of shape \(N,\)"):
            module.composite(alpha[None], color, place, background)
        with pytest.raises(ValueError, match=r"composite: `background` must be of shape \(K, 3\)"):
            module.composite(alpha, color, place, background[:, :2])
        with pytest.raises(TypeError, match="composite: `color` must be of the dtype of `alpha`"):
            module.composite(alpha, color.float(), place, background)
        with pytest.raises(ValueError, match="composite: `background` must be of a number of rows that divides 60"):
            module.composite(alpha, color, place, background.expand(7, 3))
        with pytest.raises(ValueError, match="composite: `place` must be int64 of shape"):
            module.composite(alpha, color, place[1:], background)
        for wrong in (place.flip(0), place + 60, place.clamp(max=int(place[-2]))):
            with pytest.raises(ValueError, match=r"composite: `place` must be ascending in \[0, 60\), no pixel twice"):
                module.composite(alpha, color, wrong, background)


@pytest.mark.parametrize("place", [[5000, 3], [3, 3], [3, 4096, 4095], [-1, 3], [3, 9000]], ids=str)
def test_places_out_of_order_are_found_across_blocks(place: list[int]):
    """The kernel takes 4 096 pixels at a time and only counts the points that it met."""
    alpha, color = torch.rand(9000), torch.rand(len(place), 3)
    for module in (ops, reference):
        with pytest.raises(ValueError, match=r"composite: `place` must be ascending in \[0, 9000\), no pixel twice"):
            module.composite(alpha, color, torch.tensor(place), torch.ones(1, 3))
