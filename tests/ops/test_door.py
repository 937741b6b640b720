# SPDX-License-Identifier: Apache-2.0
"""The one door between torch and the kernels: which tensors it lets through, and that there is no other."""

import pathlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from geodiff import ops, reference
from tests.fuzz_ops import bases
from tests.ops.test_direct_calls import CLIP, FACE, LAYOUT

SOUND = bases(torch.float64)
KNOTS, PLACES = torch.tensor([0.0, 0, 0, 1, 1, 1]), torch.rand(4)
PACKED = {"clip": CLIP, "faces": FACE, "layout": LAYOUT}
POINTS = {"x": torch.rand(5, 3), "y": torch.rand(6, 3), "h": torch.zeros(6)}
PLAN = {**POINTS, "k": torch.zeros(5), "v": torch.rand(6, 2)}
VIEW: dict[str, Any] = {"image_size": (4, 4)}


def sound(name: str) -> dict[str, torch.Tensor]:
    """An op's tensors, by name."""
    schema = getattr(torch.ops.geodiff, name.split("#")[0]).default._schema
    pairs = zip(schema.arguments, SOUND[name], strict=True)
    return {argument.name: value for argument, value in pairs if isinstance(value, torch.Tensor)}


def by_axis(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(control_points: torch.Tensor, **axes: torch.Tensor) -> Any:
        return function(control_points, [axes["knots[0]"]], [axes["parameters[0]"]], [2])

    return call


CURVE = {"control_points": torch.rand(3, 2), "knots[0]": KNOTS, "parameters[0]": PLACES}
RANKING = reference.Ranking(torch.zeros(3), 1.0, torch.ones(1))
NAMES = ("values", "log_weight", "depth", "start", "row", "ends", "sharpness")
MIXED = dict(zip(NAMES, SOUND["mix#True"], strict=False))
PUBLIC: dict[str, tuple[Callable[..., Any], dict[str, torch.Tensor]]] = {
    "silhouette": (lambda **t: ops.silhouette(**t, scale=0.1, **VIEW), PACKED),
    "contour": (lambda **t: ops.contour(**t, scale=0.1, **VIEW), PACKED),
    "rasterize": (lambda **t: ops.rasterize(**t, **VIEW), PACKED),
    "fragments": (lambda **t: ops.fragments(**t, **VIEW), PACKED),
    "visible": (lambda **t: ops.visible(**t, **VIEW), PACKED),
    "heaviest": (lambda **t: ops.heaviest(**t, ranking=RANKING, **VIEW), PACKED),
    "jumps": (lambda **t: ops.jumps(**t), {**PACKED, "face_id": torch.zeros(1, 4, 4, dtype=torch.int64)}),
    "count_pairs": (lambda **t: ops.count_pairs(**t, scale=0.1, **VIEW), PACKED),
    "blend": (ops.blend, sound("blend#3")),
    "basis": (lambda **t: ops.basis(**t, degree=2), {"parameters": PLACES, "knots": KNOTS}),
    "spline": (by_axis(ops.spline), CURVE),
    "spline_grid": (by_axis(ops.spline_grid), CURVE),
    "lse": (lambda **t: ops.lse(**t, epsilon=0.1), POINTS),
    "apply": (lambda **t: ops.apply(**t, epsilon=0.1), PLAN),
    "apply_gradient": (lambda **t: ops.apply_gradient(**t, epsilon=0.1), PLAN),
    **{name: (getattr(ops, name), sound(name)) for name in ("reflect", "sample", "composite", "surface")},
    "mix": (ops.mix, MIXED),
    "vertex_normals": (ops.vertex_normals, {"vertices": torch.rand(3, 3), "faces": FACE}),
}


def test_every_op_is_here() -> None:
    assert set(PUBLIC) == set(ops.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_device_without_kernels_is_refused(name: str) -> None:
    function, tensors = PUBLIC[name]
    function(**tensors)
    first = next(iter(tensors))
    where = rf"^{name}: `{re.escape(first)}` must be on the CPU or a CUDA device; got meta"
    message = where + r"\. Use \.cpu\(\), or geodiff\.reference\."
    with pytest.raises(RuntimeError, match=message):
        function(**{key: value.to("meta") for key, value in tensors.items()})


@pytest.mark.parametrize("name", PUBLIC)
def test_tensors_on_two_devices_are_named(name: str) -> None:
    function, tensors = PUBLIC[name]
    first, *others = tensors
    for other in others:
        message = (
            rf"^{name}: `{re.escape(other)}` must be on cpu like {re.escape(first)}; got meta\. Use \.to\(device\)"
        )
        with pytest.raises(RuntimeError, match=message):
            function(**{**tensors, other: tensors[other].to("meta")})


@pytest.mark.parametrize("name", SOUND)
def test_shapes_alone_are_what_the_kernels_return(name: str) -> None:
    """Direct calls on the meta device, as while tracing; how many pixels see a face, and jumps, is unknown there."""
    op = getattr(torch.ops.geodiff, name.split("#")[0])
    if name.split("#")[0] in ("visible", "jumps", "heaviest"):
        return
    wanted = op(*SOUND[name])
    found = op(*(x.to("meta") if isinstance(x, torch.Tensor) else x for x in SOUND[name]))
    pairs = [(wanted, found)] if isinstance(wanted, torch.Tensor) else zip(wanted, found, strict=True)
    for a, b in pairs:
        assert (a.shape, a.dtype, b.device.type) == (b.shape, b.dtype, "meta")


WANTED = [name for name in SOUND if isinstance(SOUND[name][-1], list) and "backward" in name]


@pytest.mark.parametrize("name", WANTED)
def test_gradients_that_are_not_wanted_are_empty_and_the_others_the_same(name: str) -> None:
    op = getattr(torch.ops.geodiff, name.split("#")[0])
    *arguments, wants = SOUND[name]
    every = op(*arguments, wants)
    for i in range(len(wants)):
        some = [j != i for j in range(len(wants))]
        for wanted, a, b in zip(some, every, op(*arguments, some), strict=True):
            assert torch.equal(a, b) if wanted else b.numel() == 0
    with pytest.raises(ValueError, match=f"`wants` must be of length {len(wants)}; got 0"):
        op(*arguments, [])


def test_there_is_no_other_door() -> None:
    folder = pathlib.Path(ops.__file__).parent
    inside = re.compile(r"\.numpy\(|threads\(|device\.type|is_cpu|torch\.library|geodiff\.native|extension\(")
    found = {path.name for path in folder.rglob("*.py") if inside.search(path.read_text(encoding="utf-8"))}
    assert found == {"_op.py"}


@pytest.mark.parametrize("name", sorted({name.split("#")[0] for name in SOUND}))
def test_every_device_comes_to_the_door(name: str) -> None:
    """Direct calls with CUDA tensors end in our checks, which name what to do, not in the dispatcher."""
    assert torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"geodiff::{name}", "CUDA")
