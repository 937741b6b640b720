# SPDX-License-Identifier: Apache-2.0
"""`torch.ops.geodiff` called directly: what does not fit is an error, never a crash."""

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

import geodiff as gd
from geodiff import ops
from tests.fuzz_ops import bases, fuzz

OPS = torch.ops.geodiff
SOUND = bases(torch.float64)
CLIP = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
FACE, LAYOUT = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])


def changed(name: str, **values: Any) -> list[Any]:
    """Sound arguments, some of them replaced."""
    schema = getattr(OPS, name.split("#")[0]).default._schema
    arguments = dict(zip([a.name for a in schema.arguments], SOUND[name], strict=True))
    assert set(values) <= set(arguments)
    return list((arguments | values).values())


def put(name: str, argument: str, value: float, at: int = 0) -> torch.Tensor:
    schema = getattr(OPS, name.split("#")[0]).default._schema
    place = [a.name for a in schema.arguments].index(argument)
    tensor: torch.Tensor = SOUND[name][place].clone()
    tensor.view(-1)[at] = value
    return tensor


@pytest.mark.parametrize("name", SOUND)
def test_sound_arguments_pass(name: str) -> None:
    """Numbers come out, the same each time and of the shapes foretold; what went in is as it was."""
    op = getattr(OPS, name.split("#")[0])
    before = [value.clone() if isinstance(value, torch.Tensor) else value for value in SOUND[name]]
    found, again = tensors(op(*SOUND[name])), tensors(op(*before))
    for old, new in zip(before, SOUND[name], strict=True):
        assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one, other) and not bool(one.isnan().any())
    assert any(bool((one != 0).any()) for one in found if one.numel())
    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv(allow_dynamic_output_shape_ops=True)) as mode:
        foretold = tensors(
            op(*[mode.from_tensor(value) if isinstance(value, torch.Tensor) else value for value in before])
        )
    for one, fake in zip(found, foretold, strict=True):
        assert one.dtype == fake.dtype and one.dim() == fake.dim()
        assert all(n == m for n, m in zip(one.shape, fake.shape, strict=True) if isinstance(m, int))


# Indices beyond what there is: (op, argument, value, message).
INDICES = [
    ("silhouette", "faces", 5000, "`faces` must be indices from 0 to"),
    ("silhouette", "layout", -7, "`layout` must be non-negative"),
    ("silhouette_backward", "faces", 5000, "`faces` must be indices from 0 to"),
    ("silhouette_backward", "layout", -1, "`layout` must be non-negative"),
    ("silhouette_backward#maximum", "best", 3, r"`best` must be in \[-1, 3\); got from .* in image 0"),
    ("contour", "faces", -1, "`faces` must be indices"),
    ("contour_backward", "faces", 5000, "`faces` must be indices"),
    ("contour_backward", "nearest", 12, r"`nearest` must be in \[-2, 12\)"),
    ("rasterize", "faces", 5000, "`faces` must be indices"),
    ("fragments#0", "faces", 5000, "`faces` must be indices"),
    ("fragments_backward#0", "face_id", 3, r"`face_id` must be in \[-1, 3\)"),
    ("fragments_backward#0", "faces", -2, "`faces` must be indices"),
    ("visible_backward", "face_id", 3, r"`face_id` must be in \[0, 3\)"),
    ("visible_backward", "place", -1, r"`place` must be ascending in \[0, 108\)"),
    ("visible_backward", "place", 107, "`place` must be ascending"),
    ("blend#3", "index", 7, r"`index` must be in \[0, 7\)"),
    ("blend_backward#3", "index", 7, r"`index` must be in \[0, 7\)"),
    ("reflect", "image", 2, r"`image` must be in \[0, 2\)"),
    ("reflect_backward", "image", -1, r"`image` must be in \[0, 2\)"),
    ("sample", "index", 2, r"`index` must be in \[0, 2\)"),
    ("sample_backward", "index", 2, r"`index` must be in \[0, 2\)"),
    ("composite", "place", 24, "`place` must be ascending"),
    ("composite_backward", "place", 24, "`place` must be ascending"),
    ("surface", "corners", 7, r"`corners` must be in \[0, 7\)"),
    ("surface_backward", "uv_corners", -1, r"`uv_corners` must be in \[0, 7\)"),
    ("surface_backward", "image", 2, r"`image` must be in \[0, 2\)"),
    ("vertex_normals", "faces", 5, r"`faces` must be indices in \[0, 5\)"),
    ("vertex_normals_backward", "faces", 5, r"`faces` must be indices in \[0, 5\)"),
]


@pytest.mark.parametrize(("name", "argument", "value", "message"), INDICES)
def test_indices(name: str, argument: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(OPS, name.split("#")[0])(*changed(name, **{argument: put(name, argument, value)}))


NUMBERS: list[tuple[str, dict[str, Any], str]] = [
    ("rasterize", {"height": 0}, "`height` must be from 1 to"),
    ("rasterize", {"width": 2**40}, "`width` must be from 1 to"),
    ("rasterize", {"height": 2**20, "width": 2**20}, "fewer than 2³¹ entries"),
    ("rasterize", {"near": float("nan")}, "`near` must be positive and finite"),
    ("contour", {"max_error": 1.0}, r"`max_error` must be in \[0, 1\)"),
    ("fragments#0", {"unit": 0.0}, "`unit` must be positive and finite"),
    ("fragments#0", {"order": 3}, "`order` must be 0, 1 or 2"),
    ("fragments#0", {"k": -1}, "`k` must be from 1 to"),
    ("fragments#1", {"k": 2}, "`k` must be 1 with order='visible'"),
    ("fragments#0", {"table": torch.zeros(1, dtype=torch.float64)}, "`table` must be of two entries or more"),
    ("visible", {"blur": -1.0}, "`blur` must be 0 or more"),
    ("sample", {"wrap": 3}, "`wrap` must be 0, 1 or 2"),
    ("sample", {"image": torch.zeros(2, 0, 4, 3, dtype=torch.float64)}, "of one or more texels"),
    ("composite", {"background": torch.zeros(0, 3, dtype=torch.float64)}, "of a number of rows that divides 24"),
    ("composite_backward", {"background": torch.zeros(7, 3, dtype=torch.float64)}, "of a number of rows that divides"),
    ("reflect", {"rows": torch.zeros(2, 19, dtype=torch.float64)}, "`rows` must be of 31 columns for 2 lights"),
    ("reflect", {"image": torch.zeros(0, dtype=torch.int32)}, r"`image` must be \(11,\), one a point, or empty"),
    ("surface", {"rows": torch.zeros(3, 31, dtype=torch.float64)}, r"`texture` must be \(1 or 3, H, W, 3\)"),
    ("surface", {"rows": torch.zeros(2, 30, dtype=torch.float64)}, "`rows` must be of shape"),
    ("silhouette", {"params": put("silhouette", "params", 0.0)}, "with a positive scale"),
    ("contour", {"params": put("contour", "params", float("inf"))}, "with a positive scale"),
    ("silhouette", {"coverage": "Edges"}, "`coverage` must be one of faces, edges; got 'Edges'. Did you mean 'edges'"),
    ("silhouette", {"tconorm": 77}, "`kernel_id` must be from 0 to"),
    ("silhouette", {"distribution": -2}, "`kernel_id` must be from 0 to"),
    ("transport_lse", {"epsilon": 0.0}, "`epsilon` must be positive and finite"),
    ("transport_apply", {"p": 3}, "`p` must be 1 or 2"),
    ("basis", {"degree": 16}, "`degree` must be from 0 to 15"),
    ("basis", {"order": -1}, "`order` must be from 0 to"),
    ("basis", {"degree": 4}, "of at least 10 knots for degree 4"),
    ("basis", {"knots": torch.zeros(3, 8, dtype=torch.float64)}, "of as many rows as the knots"),
    ("basis_backward", {"wants": [True]}, "`wants` must be of length 2; got 1"),
    ("spline#1False", {"degree": [2, 2]}, "`degree` must be of 1 entries"),
    ("spline#1False", {"degree": [3]}, r"`knots_0` must be of length K \+ P \+ 1 = 9"),
    ("spline#2False", {"order": [1, 0]}, "0 where rational"),
    ("spline#2False", {"knots_1": None}, "with as many axes as knots"),
    ("spline#2False", {"parameters_1": torch.zeros(2, 5, dtype=torch.float64)}, "`parameters_1` must be of 4 columns"),
    ("spline#1False", {"control": torch.zeros(3, 5, 4, dtype=torch.float64)}, "of as many rows as the others"),
    ("spline#1False", {"bandwidth": [0.0]}, "`bandwidth` must be positive"),
    ("spline#2False", {"control": torch.zeros(2, 5, 5, 1, dtype=torch.float64)}, "two where rational"),
    ("spline_backward#1False", {"upstream": torch.zeros(2, 3, 4, dtype=torch.float64)}, "`upstream` must be of shape"),
    ("spline_backward#1False", {"wants": [True]}, "`wants` must be of length 7"),
    ("silhouette_backward#maximum", {"best": torch.zeros(0, dtype=torch.int32)}, "`best` must be of shape"),
]


@pytest.mark.parametrize(("name", "values", "message"), NUMBERS)
def test_numbers_and_shapes(name: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(OPS, name.split("#")[0])(*changed(name, **values))


@pytest.mark.parametrize("name", SOUND)
def test_each_tensor_is_checked_for_dtype_and_axes(name: str) -> None:
    op = getattr(OPS, name.split("#")[0])
    for place, value in enumerate(SOUND[name]):
        if not isinstance(value, torch.Tensor) or value.numel() == 0:
            continue
        before, after = SOUND[name][:place], SOUND[name][place + 1 :]
        with pytest.raises((TypeError, ValueError), match=r"`\w+` must be"):
            op(*before, value[None], *after)
        with pytest.raises(TypeError, match=r"`\w+` must be (of dtype|float32 or float64)"):
            op(*before, value.to(torch.complex64), *after)
        with pytest.raises(TypeError, match=r"`\w+` must be (of dtype|float32 or float64)"):
            op(*before, value.to(torch.int16), *after)
        if value.dim() > 1:  # the same numbers, strided
            strided = value.repeat_interleave(2, dim=-1)[..., ::2]
            assert not strided.is_contiguous()
            for one, other in zip(tensors(op(*before, strided, *after)), tensors(op(*SOUND[name])), strict=True):
                assert torch.equal(one, other)


def tensors(result: Any) -> list[torch.Tensor]:
    return list(result) if isinstance(result, tuple | list) else [result]


@pytest.mark.parametrize("far", [2**31, 2**32, 2**32 + 1, -(2**32), 2**63 - 1])
def test_indices_beyond_32_bits_do_not_wrap(far: int) -> None:
    faces = FACE.clone()
    faces[0, 0] = far
    for op in (ops.rasterize, ops.visible, ops.fragments):
        with pytest.raises(ValueError, match="`faces` must be indices from 0 to 2"):
            op(CLIP, faces, LAYOUT, image_size=(2, 2))
    with pytest.raises(ValueError, match="`faces` must be indices from 0 to 2"):
        ops.silhouette(CLIP, faces, LAYOUT, scale=0.1, image_size=(2, 2))
    with pytest.raises(ValueError, match=r"`faces` must be indices in \[0, 3\)"):
        ops.vertex_normals(CLIP[:, :3], faces)
    with pytest.raises(ValueError, match=r"`index` must be in \[0, 3\)"):
        ops.blend(CLIP, faces, CLIP[:1, :3])
    with pytest.raises(ValueError, match="`index` must be in"):
        ops.sample(torch.zeros(2, 2, 2, 1), torch.zeros(1, 2), torch.tensor([far]))
    with pytest.raises(ValueError, match="indices"):
        gd.Mesh(CLIP[:, :3], faces)


def test_an_unseen_face_with_fragments_has_no_gradient() -> None:
    arguments = changed("fragments_backward#0", clip=torch.full_like(SOUND["fragments_backward#0"][3], -1.0))
    assert not bool(OPS.fragments_backward(*arguments).any())


def test_random_hostile_calls_neither_crash_nor_hang() -> None:
    assert fuzz(seed=11, count=150, block=150) == []


@pytest.mark.slow
def test_more_random_hostile_calls_neither_crash_nor_hang() -> None:
    assert fuzz(seed=12, count=1500) == []
