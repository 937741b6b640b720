# SPDX-License-Identifier: Apache-2.0
"""The faces with a share in a softmax, and their mixture: kernels against twins, formula and finite differences."""

import math

import pytest
import torch

from geodiff import icosphere, ops, reference
from geodiff.native.gpu import emulated
from geodiff.render.view import pack
from geodiff.scene.camera import Camera
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, random_cotangent, vjp
from tests.scenes import BY_NAME

by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
by_module = pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
SIZE = {"image_size": (13, 18), "near": 0.1}
SCENES = [
    "octahedron",
    "three views of one mesh",
    "two meshes, packed, the second one first",
    "one corner behind the near plane",
    "two corners behind the near plane",
]


def ranking(images: int, scale: float = 0.05, sharpness: float = 8.0) -> reference.Ranking:
    """Return that of a logistic distribution, finely sampled."""
    u = torch.linspace(-1, 1, 4097, dtype=torch.float64)
    d = scale * u / (1 - u.abs()).clamp(min=1e-4)
    return reference.Ranking(
        torch.nn.functional.logsigmoid(d / scale), scale, torch.full((images,), sharpness).double()
    )


def options(layout: torch.Tensor, kind: str) -> dict:
    images = len(layout)
    more: dict = {"ranking": ranking(images), "max_error": 1e-3}
    if kind == "background":
        more |= {"background": torch.linspace(-9, -7, images), "origin": torch.full((images,), 0.5)}
    if kind == "few":
        more |= {"k": 2, "within": torch.rand(images, 13, 18, generator=torch.Generator().manual_seed(1)) < 0.7}
    if kind == "all":
        more |= {"max_error": 0.0, "blur": 0.4}
    return more


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("kind", ["plain", "background", "few", "all"])
@by_dtype
def test_the_kernel_is_its_twin(name: str, kind: str, dtype: torch.dtype):
    clip, faces, layout = BY_NAME[name].tensors(dtype)
    more = options(layout, kind) | {"image_size": (13, 18), "near": BY_NAME[name].near}
    count, pixels = len(faces), len(layout) * 13 * 18

    def dense(module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """By pixel and face: which are there, and distance, barycentrics and depth."""
        found = module.heaviest(x, faces, layout, **more)
        assert (found.start[1:] > found.start[:-1]).all()
        pixel = torch.repeat_interleave(found.place, found.start[1:] - found.start[:-1])
        at = pixel * count + found.face_id
        columns = torch.cat([found.distance[:, None], found.barycentric, found.depth[:, None]], dim=1)
        there = torch.zeros(pixels * count).index_fill(0, at, 1.0) > 0
        assert int(there.sum()) == len(at)
        return there, x.new_zeros(pixels * count, 5).index_copy(0, at, columns)

    (a, got), (b, wanted) = (dense(module, clip) for module in (ops, reference))
    both = a & b
    # Faces that share the nearest point tie, so which of them is kept may differ; how far it is and how deep may not.
    assert 0 < int(both.sum()) >= (0.7 if kind == "few" else 0.85) * int((a | b).sum())
    mine, theirs = (module.heaviest(clip, faces, layout, **more) for module in (ops, reference))
    assert torch.equal(mine.place, theirs.place) and torch.equal(mine.start, theirs.start)
    for x, y in ((mine.distance, theirs.distance), (mine.depth, theirs.depth)):
        assert_close_relative(x, y, 1e5 * torch.finfo(dtype).eps, "the fragments of each place in the list")
    scale = torch.finfo(dtype).eps
    assert_close_relative(got[both], wanted[both], 1e5 * scale, "fragments")
    # Where rounding decides whether a corner is nearest or an edge close by, the gradient is either's.
    settled = ((got[:, 1:4].abs() > 1e-6) == (wanted[:, 1:4].abs() > 1e-6)).all(dim=1)
    assert int((both & settled).sum()) >= 0.99 * int(both.sum())
    cotangent = random_cotangent(wanted) * (both & settled)[:, None]
    first, second = (vjp(lambda x, m=m: dense(m, x)[1], [clip], cotangent)[0] for m in (ops, reference))
    assert_close_relative(first, second, 1e7 * scale if dtype == torch.float64 else 0.05, "gradient")


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("max_error", [1e-2, 1e-4])
@pytest.mark.parametrize("sharpness", [0.5, 30.0])
@by_module
def test_what_is_left_out_has_little_weight(max_error: float, sharpness: float, module):
    mesh = icosphere(2)
    view = pack("test", mesh, Camera.orbit(2.6, 20.0, 30.0, fov_deg=50), SIZE["image_size"])
    clip, faces, layout = (x.double() if x.is_floating_point() else x for x in view.packed)
    rank = ranking(1, 0.02, sharpness)
    dense = reference.fragments(clip, faces, layout, k=len(faces), blur=math.inf, order="depth", **SIZE)
    log_weight = torch.nn.functional.logsigmoid(dense.distance / 0.02) - dense.depth * sharpness
    weight = log_weight.reshape(-1, len(faces)).softmax(dim=1)
    found = module.heaviest(clip, faces, layout, ranking=rank, max_error=max_error, **SIZE)
    assert torch.equal(found.place, torch.arange(len(weight)))
    pixel = torch.repeat_interleave(found.place, found.start[1:] - found.start[:-1])
    by_face = torch.zeros_like(weight).scatter(1, dense.face_id.reshape(weight.shape), weight)
    kept = torch.zeros(len(weight), dtype=torch.float64).index_add(0, pixel, by_face[pixel, found.face_id])
    assert float((1 - kept).max()) < max_error
    assert len(found.face_id) < 0.5 * weight.numel()
    heavy = by_face[pixel, found.face_id]
    follows = pixel[1:] == pixel[:-1]
    assert bool((heavy[1:] <= heavy[:-1] * 1.01)[follows].all())  # the heaviest first, by F of the table


def test_bits_do_not_depend_on_threads():
    view = pack("test", icosphere(4), Camera.orbit(2.6, 20.0, torch.tensor([0.0, 50.0]), fov_deg=50), (70, 90))
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            clip = view.clip.clone().requires_grad_()
            found = ops.heaviest(clip, *view.packed[1:], ranking=ranking(2, 0.01), image_size=(70, 90))
            rows, log_weight = found.barycentric, found.distance
            ends, sharpness = torch.tensor([[1.0, 3.0], [1.0, 4.0]]), torch.ones(1)
            leaves = [clip, ends.requires_grad_(), sharpness.requires_grad_()]
            row = found.place // (70 * 90)
            mixed = ops.mix(rows, log_weight, found.depth, found.start, ends, sharpness, row=row, background=0.2)
            gradients = torch.autograd.grad(mixed.out.square().sum() + mixed.rest.sum(), leaves)
            results.append([*(x.detach() for x in found), mixed.out.detach(), *gradients])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_bits_do_not_depend_on_the_order_of_a_gpus_threads():
    """Of lists and all gradients; the lists are the processor's."""
    packed = pack("test", icosphere(1), Camera.orbit(2.6, 20.0, torch.tensor([0.0, 50.0]), fov_deg=50), (7, 9)).packed
    draw = torch.Generator().manual_seed(0)

    def gradients() -> list[torch.Tensor]:
        clip = packed[0].clone().requires_grad_()
        found = ops.heaviest(clip, *packed[1:], ranking=ranking(2, 0.01), image_size=(7, 9))
        ends, sharpness = torch.tensor([[1.0, 3.0], [1.0, 4.0]]), torch.ones(1)
        leaves = [clip, ends.requires_grad_(), sharpness.requires_grad_()]
        row, given = found.place // (7 * 9), (found.barycentric, found.distance, found.depth, found.start)
        mixed = ops.mix(*given, ends, sharpness, row=row, background=0.2)
        weight = torch.rand(mixed.out.shape, generator=draw.manual_seed(1))
        return [*(x.detach() for x in found), *torch.autograd.grad((mixed.out * weight).sum(), leaves)]

    expected, found = gradients(), []
    for order in ("forward", "backward", "shuffled"):
        with emulated(order):
            found.append(gradients())
    for value, *others, wanted in zip(*found, expected, strict=True):
        assert all(torch.equal(value, other) for other in others)
        torch.testing.assert_close(value, wanted, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(*pair) for pair in zip(found[0][:3], expected[:3], strict=True))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("background", [None, 0.3])
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("channels", [3, 5])
@by_module
def test_a_mixture_is_a_softmax(background: float | None, rows: int, channels: int, module):
    draw = torch.Generator().manual_seed(channels)
    values, log_weight, depth = (torch.rand(9, *s, generator=draw).double() for s in ((channels,), (), ()))
    start, row = torch.tensor([0, 4, 5, 9]), torch.tensor([0, 0, rows - 1])
    ends = torch.tensor([[-0.5, 1.5], [0.2, 0.9]]).double()[:rows]
    log_weight[7] = -1e31
    inputs = [values, log_weight, depth, ends, torch.tensor([3.0]).double()]

    def call(v, w, z, e, s):
        which = row if rows > 1 else None
        return module.mix(v, w, z, start, e, s, row=which, background=background)

    found = call(*inputs)
    for group in range(3):
        own = slice(int(start[group]), int(start[group + 1]))
        near, far = ends[row[group]]
        logits = log_weight[own] + (far - depth[own]) / (far - near) * 3
        rest = logits.new_tensor([] if background is None else [background * 3])
        weight = torch.cat([logits, rest]).softmax(0)
        assert torch.allclose(found.weight[own], weight[: len(logits)], atol=1e-14)
        assert torch.allclose(found.out[group], weight[: len(logits)] @ values[own], atol=1e-14)
        assert torch.allclose(found.rest[group], weight[len(logits) :].sum(), atol=1e-14)
    inputs[1] = log_weight.clamp(min=-3.0)  # differences of 1e31 have no digits
    assert_gradient_is_derivative(lambda *x: torch.cat([call(*x).out, call(*x).rest[:, None]], dim=1), inputs, 1e-7)


@by_dtype
def test_no_sharpness_overflows(dtype: torch.dtype):
    values, depth = torch.tensor([[1.0], [2.0]], dtype=dtype), torch.tensor([1.0, 2.0], dtype=dtype)
    ends = torch.tensor([[1.0, 2.0]], dtype=dtype, requires_grad=True)
    start = torch.tensor([0, 2, 2])
    out = ops.mix(values, 0 * depth, depth, start, ends, torch.tensor([1e15], dtype=dtype), background=0.5).out
    assert out.tolist() == [[1.0], [0.0]]
    assert torch.isfinite(torch.autograd.grad(out.sum(), ends)[0]).all()
    same = torch.ones(1, 2, dtype=dtype)  # all depths are one: z is a half
    assert ops.mix(values, 0 * depth, 0 * depth, start, same, torch.ones(1, dtype=dtype)).out[0].item() == 1.5


def test_torch_checks_the_ops():
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float64)
    draw = torch.Generator().manual_seed(0)
    values, log_weight, depth = (torch.rand(5, *s, generator=draw).requires_grad_() for s in ((3,), (), ()))
    start, row = torch.tensor([0, 2, 5]), torch.zeros(0, dtype=torch.int32)
    ends, sharpness = torch.rand(1, 2, generator=draw).requires_grad_(), torch.ones(1, requires_grad=True)
    torch.library.opcheck(torch.ops.geodiff.mix, (values, log_weight, depth, start, row, ends, sharpness, True, 0.1))
    with pytest.raises(RuntimeError, match="geodiff::mix is not twice differentiable"):
        loss = ops.mix(values, log_weight, depth, start, ends, sharpness).out.square().sum()
        first = torch.autograd.grad(loss, values, create_graph=True)[0]
        torch.autograd.grad(first.sum(), values)
    given = clip.requires_grad_()
    found = ops.heaviest(given, faces, layout, ranking=ranking(1), **SIZE)
    with pytest.raises(RuntimeError, match="geodiff::heaviest is not twice differentiable"):
        first = torch.autograd.grad(found.distance.square().sum(), given, create_graph=True)[0]
        torch.autograd.grad(first.sum(), given)


@by_module
def test_bad_arguments_are_named(module):
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float64)
    rank = ranking(1)

    def find(**more):
        return module.heaviest(clip, faces, layout, **({"ranking": rank} | SIZE | more))

    cases = [
        ({"k": 0}, "`k` must be a positive integer"),
        ({"blur": -1.0}, "`blur` must be a number ≥ 0"),
        ({"rim": -1.0}, "`rim` must be a number ≥ 0"),
        ({"max_error": 1.0}, r"`max_error` must be a number in \[0, 1\)"),
        ({"origin": torch.zeros(2)}, r"`origin` must be of shape \(1,\)"),
        ({"background": torch.zeros(2)}, r"`background` must be of shape \(1,\)"),
        ({"within": torch.ones(1, 13, 18)}, r"`within` must be a bool tensor of shape \(1, 13, 18\)"),
        ({"ranking": None}, "`ranking` must be given with order='weight'"),
    ]
    for more, message in cases:
        with pytest.raises(ValueError, match=f"heaviest: {message}"):
            find(**more)
    rows, ends, start, one = torch.rand(3, 2), torch.rand(1, 2), torch.tensor([0, 3]), torch.ones(1)

    def mixed(**more):
        given = {"values": rows, "log_weight": rows[:, 0], "depth": rows[:, 1], "start": start, "ends": ends}
        return module.mix(**(given | {"sharpness": one} | more))

    for more, kind, message in [
        ({"depth": rows}, ValueError, r"`depth` must be of shape \(3,\)"),
        ({"ends": ends.double()}, TypeError, "`ends` must be of the dtype of `values`"),
        ({"start": start.int()}, ValueError, r"`start` must be int64 of shape \(Q \+ 1,\)"),
        ({"row": torch.zeros(2).long()}, ValueError, r"`row` must be integers of shape \(1,\)"),
        ({"background": "x"}, ValueError, "`background` must be a number"),
    ]:
        with pytest.raises(kind, match=f"mix: {message}"):
            mixed(**more)


def test_lists_that_are_none_are_refused():
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float64)
    found = ops.heaviest(clip, faces, layout, ranking=ranking(1), **SIZE)
    up = torch.ones_like(found.distance)
    last = len(found.face_id)
    for name, value, message in [
        ("place", found.place.flip(0), r"`place` must be ascending in \[0, 234\), no pixel twice"),
        ("start", found.start[1:], "`start` must be of "),
        ("start", found.start + 1, f"`start` must be ascending from 0 to {last}"),
        ("face_id", found.face_id + 100, r"`face_id` must be in \[0, 8\)"),
    ]:
        own = found._replace(**{name: value})
        with pytest.raises(ValueError, match=f"heaviest_backward: {message}"):
            torch.ops.geodiff.heaviest_backward(
                up, None, None, clip, faces.int(), layout, own.place, own.start, own.face_id, own.distance, 13, 18, 0.1
            )
    rows, one = torch.rand(3, 2), torch.ones(1)
    for start, row, ends, message in [
        ([0, 2], None, one.expand(1, 2), "`start` must be ascending from 0 to 3"),
        ([0, 3], [1], one.expand(1, 2), r"`row` must be in \[0, 1\)"),
        ([0, 3], None, one.expand(0, 2), "`ends` must be of one row or more"),
    ]:
        index = None if row is None else torch.tensor(row)
        with pytest.raises(ValueError, match=f"mix: {message}"):
            ops.mix(rows, rows[:, 0], rows[:, 1], torch.tensor(start), ends, one, row=index)
    none = torch.zeros(0, dtype=torch.int32)
    given = (rows, rows[:, 0], rows[:, 1], torch.tensor([0, 3]), none, torch.rand(1, 2), one, False, 0.0)
    with pytest.raises(ValueError, match="mix_backward: `rest` must be of 1 entries"):
        torch.ops.geodiff.mix_backward(torch.rand(2, 2), None, *given, rows[:, 0], torch.rand(2), [True] * 5)
    with pytest.raises(ValueError, match="mix_backward: `row` must be of 1 entries, or none"):
        own = (*given[:4], torch.zeros(2, dtype=torch.int32), *given[5:])
        torch.ops.geodiff.mix_backward(torch.rand(1, 2), None, *own, rows[:, 0], torch.rand(1), [True] * 5)


@pytest.mark.usefixtures("backend")
@by_dtype
def test_k_takes_the_first_ones(dtype: torch.dtype):
    """Many faces a pixel, of which squares of pixels pass over most: the same as the heads of whole lists."""
    view = pack("test", icosphere(4), Camera.orbit(2.6, 20.0, 30.0, fov_deg=50), (21, 30))
    packed = (view.clip.to(dtype), *view.packed[1:])
    more = {"ranking": ranking(1, 0.01, 20.0), "image_size": (21, 30), "blur": 0.2, "max_error": 0.0}
    whole = ops.heaviest(*packed, **more)
    count = whole.start[1:] - whole.start[:-1]
    rank = torch.arange(len(whole.face_id)) - torch.repeat_interleave(whole.start[:-1], count)
    assert int(count.max()) > 100
    for k in (1, 3, 8):
        found, head = ops.heaviest(*packed, k=k, **more), rank < k
        assert torch.equal(found.place, whole.place) and torch.equal(found.face_id, whole.face_id[head])
        assert torch.equal(found.depth, whole.depth[head]) and torch.equal(found.barycentric, whole.barycentric[head])
