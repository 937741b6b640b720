# SPDX-License-Identifier: Apache-2.0
"""The k fragments of a pixel, and blended rows: kernels against twins, finite differences, the hard rasteriser."""

import pytest
import torch

from geodiff import icosphere, ops, reference
from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, random_cotangent, vjp
from tests.scenes import BY_NAME, SCENES, Scene

by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def ranking(layout: torch.Tensor, dtype: torch.dtype = torch.float64) -> reference.Ranking:
    u = torch.linspace(-0.998, 0.998, 257, dtype=dtype)
    return reference.Ranking(
        torch.nn.functional.logsigmoid(u / (1 - u.abs())), 0.1, torch.full((len(layout),), 2.0).to(u)
    )


def dense(fragments: reference.FragmentMaps, faces: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance, barycentrics and depth by pixel and face, `(B·H·W, F, 5)`, and which pairs are there.

    So that nothing depends on the order of faces that are equally deep: neighbours are, at a common edge.
    """
    *_, k = fragments.face_id.shape
    parts = (fragments.distance[..., None], fragments.barycentric, fragments.depth[..., None])
    pixel, slot = (fragments.face_id.reshape(-1, k) >= 0).nonzero().unbind(1)
    face = fragments.face_id.reshape(-1, k)[pixel, slot]
    rows = torch.cat(parts, dim=-1).reshape(-1, k, 5)[pixel, slot]
    table = rows.new_zeros(fragments.face_id.numel() // k * faces, 5).index_copy(0, pixel * faces + face, rows)
    there = torch.zeros(len(table), dtype=torch.bool).index_fill(0, pixel * faces + face, True)
    return table.reshape(-1, faces, 5), there.reshape(-1, faces)


@pytest.mark.usefixtures("backend")
@by_scene
@by_dtype
@pytest.mark.parametrize("blur", [0.0, 0.3])
def test_kernel_is_its_twin_on_every_scene(scene: Scene, dtype: torch.dtype, blur: float):
    clip, faces, layout = scene.tensors(dtype)
    options = {"k": max(len(faces), 1), "blur": blur, "image_size": scene.image_size, "near": scene.near}
    got = ops.fragments(clip, faces, layout, **options)
    wanted = reference.fragments(clip.double(), faces, layout, **options)
    assert got.face_id.dtype == torch.int64 and all(value.dtype == dtype for value in got[1:])
    none = got.face_id < 0
    assert (got.distance[none] == -1e10).all() and torch.isinf(got.depth[none]).all()
    assert (got.barycentric[none] == 0).all()
    (rows, there), (exact, expected) = dense(got, max(len(faces), 1)), dense(wanted, max(len(faces), 1))
    assert there.numel() == 0 or (there == expected).double().mean() > 0.97  # but for pixels on an edge
    # On the inside or the outside of an edge is a matter of rounding.
    shared = (
        there & expected & ((exact[..., 0].abs() > 1e3 * torch.finfo(dtype).eps) | (rows[..., 0] * exact[..., 0] > 0))
    )
    # As in the test of the hard rasteriser: a face seen edge-on has barycentrics as rough as its slope is steep.
    for column, name in ((slice(0, 1), "distance"), (slice(1, 4), "barycentric"), (slice(4, 5), "depth")):
        bound = 1e4 * torch.finfo(dtype).eps
        assert_close_relative(rows[shared][:, column], exact[shared][:, column], bound, name)


@pytest.mark.usefixtures("backend")
@by_scene
@by_dtype
@pytest.mark.parametrize("order", ["depth", "visible", "weight"])
def test_the_best_are_kept(scene: Scene, dtype: torch.dtype, order: str):
    clip, faces, layout = scene.tensors(dtype)
    if scene.name in ("two coincident faces", "corner barely behind the near plane", "pixels exactly on an edge"):
        pytest.skip("rounding decides what covers")
    k = 1 if order == "visible" else 2
    options = {"blur": 0.3, "image_size": scene.image_size, "near": scene.near, "order": order}
    rank = ranking(layout, dtype) if order == "weight" else None
    exact = ranking(layout) if order == "weight" else None
    got = ops.fragments(clip, faces, layout, k=k, ranking=rank, **options)
    wanted = reference.fragments(clip.double(), faces, layout, k=k, ranking=exact, **options)

    def keys(fragments: reference.FragmentMaps) -> torch.Tensor:
        d = fragments.distance.double()
        if order == "depth":
            return fragments.depth
        if order == "visible":
            return torch.where(d >= 0, fragments.depth, d)
        return torch.nn.functional.logsigmoid(d / 0.1) - 2.0 * fragments.depth

    # The table of the ranking is as rough as its steps.
    bound = 0.05 if order == "weight" else 1e4 * torch.finfo(dtype).eps
    there = (got.face_id >= 0) & (wanted.face_id >= 0)
    decided = (wanted.distance.abs() > 1e3 * torch.finfo(dtype).eps)[there]
    assert (got.face_id < 0).sum() == (wanted.face_id < 0).sum()
    assert_close_relative(keys(got)[there][decided], keys(wanted)[there][decided], bound, "key")


@pytest.mark.usefixtures("backend")
@by_scene
@by_dtype
def test_hard_fragments_are_the_hard_rasteriser(scene: Scene, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    hard = ops.rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near)
    for order in ("depth", "visible"):
        got = ops.fragments(clip, faces, layout, image_size=scene.image_size, near=scene.near, order=order)
        assert torch.equal(got.face_id[..., 0], hard.face_id)
        assert torch.equal(got.barycentric[..., 0, :], hard.barycentric)
        there = hard.face_id >= 0
        # The same formula in two loops, one of which may fuse multiplications and additions.
        assert_close_relative(got.depth[..., 0][there], hard.depth[there], 1e3 * torch.finfo(dtype).eps)
    soft = ops.fragments(clip, faces, layout, blur=0.2, image_size=scene.image_size, near=scene.near, order="visible")
    assert torch.equal(soft.face_id[..., 0][hard.face_id >= 0], hard.face_id[hard.face_id >= 0])


@pytest.mark.usefixtures("backend")
def test_distances_are_those_of_the_silhouette():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    got = ops.fragments(clip, faces, layout, k=8, blur=0.25, image_size=(16, 15))
    polygons = near_clip(face_corners(clip, faces, [0, 0, 8]), 1e-2)
    wanted = signed_distance(pixel_centres((16, 15), clip), polygons)
    kept = got.face_id[0].reshape(240, 8)
    assert (kept >= 0).sum() == (wanted >= -0.25).sum() > 100
    pixel, slot = (kept >= 0).nonzero().unbind(1)
    assert_close_relative(
        got.distance[0].reshape(240, 8)[pixel, slot], wanted[pixel, kept[pixel, slot]], 1e-13, "distance"
    )


@pytest.mark.usefixtures("backend")
@by_dtype
def test_points_are_on_the_face_and_nearest_in_depth_first(dtype: torch.dtype):
    clip, faces, layout = BY_NAME["one corner behind the near plane"].tensors(dtype)
    clip = torch.cat([clip, BY_NAME["octahedron"].tensors(dtype)[0]])
    faces = torch.cat([faces, BY_NAME["octahedron"].tensors()[1] + 3])
    layout = torch.tensor([[0, 0, 9]])
    got = ops.fragments(clip, faces, layout, k=6, blur=0.4, image_size=(12, 12), near=0.125)
    there = got.face_id >= 0
    assert there.sum() > 300 and not there.all()
    assert (got.depth.diff(dim=-1)[there[..., 1:]] >= 0).all()
    weights = got.barycentric[there].double()
    bound = 1e4 * torch.finfo(dtype).eps
    assert_close_relative(weights.sum(dim=-1), torch.ones(len(weights)), bound)
    outside = got.distance[there] < 0
    assert (weights[outside] >= 0).all() and outside.sum() > 100
    # Put together, corners and weights give a point at its depth, in the image as far from the pixel as the distance.
    point = (weights[..., None] * clip[faces[got.face_id[there]]].double()).sum(dim=1)
    pixels = pixel_centres((12, 12), clip.double()).reshape(1, 12, 12, 1, 2).expand(1, 12, 12, 6, 2)[there]
    miss = (point[:, :2] / point[:, 3:] - pixels).norm(dim=-1)
    assert_close_relative(point[:, 2], got.depth[there], bound)
    assert_close_relative(miss[outside], -got.distance[there][outside].double(), bound)
    assert float(miss[~outside].max()) < bound


GENERIC = [
    "single triangle",
    "two overlapping, of opposite winding, one through the other",
    "octahedron",
    "three views of one mesh",
    "two meshes, packed, the second one first",
    "wide image",
    "one corner behind the near plane",
    "two corners behind the near plane",
    "a mesh through the near plane, orthographic",
    "empty mesh between two others",
    "octahedron, orthographic",
]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", GENERIC)
@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
def test_gradient_is_the_derivative(name: str, module):
    clip, faces, layout = BY_NAME[name].tensors()
    options = {"k": len(faces), "blur": 0.3, "image_size": (7, 8), "near": 0.125}

    def rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return dense(module.fragments(x, faces, layout, **options), len(faces))

    # Without the few pixels that a face enters or leaves, or whose nearest feature changes, within the step.
    base, stays = rows(clip)
    every = int(stays.sum())
    for _ in range(6):
        moved, there = rows(clip + 1e-5 * torch.randn_like(clip))
        stays &= there & ((moved[..., 0] >= 0) == (base[..., 0] >= 0))
    assert stays.sum() > 0.8 * every > 0
    assert_gradient_is_derivative(lambda x: rows(x)[0][stays], [clip], 1e-7, relative=1e-5)


@pytest.mark.usefixtures("backend")
@by_scene
def test_vjp_of_the_kernel_is_that_of_the_twin(scene: Scene):
    if scene.kink or not scene.faces:
        pytest.skip("no derivative here, or nothing to derive")
    clip, faces, layout = scene.tensors()
    options = {"k": len(faces), "blur": 0.3, "image_size": scene.image_size, "near": scene.near}

    def rows(module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return dense(module.fragments(x, faces, layout, **options), len(faces))

    (got, there), (wanted, expected) = rows(ops, clip), rows(reference, clip)
    # Fragments on an edge have a derivative on either side.
    keep = there & expected & (got[..., 0].abs() > 1e-12) & (got[..., 0] * wanted[..., 0] > 0)
    cotangent = random_cotangent(wanted[keep])
    first, second = (vjp(lambda x, m=m: rows(m, x)[0][keep], [clip], cotangent)[0] for m in (ops, reference))
    # Barycentrics of a sliver or a tiny face: 1 over its size, squared.
    assert_close_relative(first, second, 1e-6 if scene.step < 1e-7 else 1e-9, "gradient")


def test_the_same_bits_on_any_number_of_threads():
    mesh = icosphere(4)
    clip = torch.cat([mesh.vertices, mesh.vertices[:, 2:]], dim=1)
    clip[:, 2:] = 2.7 - clip[:, 2:]
    layout = mesh.layout_for(1)
    results = []
    for threads in (1, 2, 3):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            leaf = clip.clone().requires_grad_()
            out = ops.fragments(leaf, mesh.faces, layout, k=3, blur=0.02, image_size=(130, 120))
            mask = out.face_id >= 0
            weight = torch.linspace(-1, 1, mask.numel()).reshape(mask.shape)
            total = ((out.depth.where(mask, 0.0) + out.distance + out.barycentric[..., 0]) * weight * mask).sum()
            results.append((*(x.detach() for x in out), torch.autograd.grad(total, leaf)[0]))
            rows, index = torch.randn(50, 3, generator=torch.Generator().manual_seed(1)), mesh.faces.repeat(9, 1) % 50
            rows, weights = rows.requires_grad_(), torch.linspace(-1, 1, index.numel()).reshape(index.shape)
            blended = ops.blend(rows, index, weights.requires_grad_())
            scale = torch.linspace(-2, 1, blended.numel()).reshape(blended.shape)
            results[-1] += (blended.detach(), *torch.autograd.grad((blended * scale).sum(), [rows, weights]))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_opcheck():
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float32)
    clip = (clip * torch.tensor([4.0, 4.0, 1.0, 1.0])).detach().requires_grad_()  # over the whole image
    arguments = (clip, faces.int(), layout, clip.new_zeros(2), clip.new_zeros(0), 1, 4, 5, 0.1, 0.2, 0, 1.0)
    torch.library.opcheck(torch.ops.geodiff.fragments, arguments)
    rows, weight = torch.randn(5, 3, requires_grad=True), torch.rand(7, 2, requires_grad=True)
    index = torch.randint(0, 5, (7, 2), dtype=torch.int32)
    torch.library.opcheck(torch.ops.geodiff.blend, (rows, index, weight))


def test_not_twice_differentiable():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    clip = clip.requires_grad_()
    depth = ops.fragments(clip, faces, layout, blur=0.1, image_size=(4, 4)).distance.clamp(min=-1)
    (first,) = torch.autograd.grad((depth**2).sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match="geodiff::fragments is not twice differentiable"):
        first.sum().backward()
    rows, weight = torch.randn(5, 3, requires_grad=True), torch.rand(7, 2, requires_grad=True)
    out = ops.blend(rows, torch.zeros(7, 2, dtype=torch.int64), weight)
    (first,) = torch.autograd.grad((out**2).sum(), rows, create_graph=True)
    with pytest.raises(RuntimeError, match="geodiff::blend is not twice differentiable"):
        first.sum().backward()


@pytest.mark.usefixtures("backend")
@by_dtype
def test_blend_is_its_twin(dtype: torch.dtype):
    rows, weight = torch.randn(40, 4, dtype=dtype), torch.randn(3000, 3, dtype=dtype)
    index = torch.randint(0, 40, (3000, 3))
    cotangent = torch.randn(3000, 4, dtype=torch.float64)
    got = vjp(lambda r, w: ops.blend(r, index, w), [rows, weight], cotangent.to(dtype))
    exact = vjp(lambda r, w: reference.blend(r, index, w), [rows.double(), weight.double()], cotangent)
    bound = 300 * torch.finfo(dtype).eps  # sums of some two hundred terms of both signs
    assert_close_relative(ops.blend(rows, index, weight), reference.blend(rows.double(), index, weight.double()), bound)
    for g, w in zip(got, exact, strict=True):
        assert_close_relative(g, w, bound)
    assert ops.blend(rows, index[:0], weight[:0]).shape == (0, 4)


@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": 0}, ValueError, "fragments: `k` must be a positive integer; got int 0"),
        ({"k": 2.0}, ValueError, "fragments: `k` must be a positive integer"),
        ({"blur": -0.1}, ValueError, "fragments: `blur` must be a number ≥ 0; got float -0.1"),
        ({"blur": float("nan")}, ValueError, "fragments: `blur` must be a number ≥ 0"),
        ({"order": "width"}, ValueError, "fragments: `order` must be one of depth, visible, weight"),
        ({"order": "visible", "k": 2}, ValueError, "fragments: `k` must be 1 with order='visible'; got 2"),
        ({"order": "weight"}, ValueError, "fragments: `ranking` must be given with order='weight'"),
        ({"ranking": ranking(torch.zeros(1, 3))}, ValueError, "fragments: `ranking` must be given with order='weight'"),
        (
            {"order": "weight", "ranking": ranking(torch.zeros(2, 3))},
            ValueError,
            r"fragments: `ranking` must be of sharpness \(1,\), one an image",
        ),
        (
            {"order": "weight", "ranking": ranking(torch.zeros(1, 3))._replace(unit=0.0)},
            ValueError,
            "fragments: `ranking` must be positive and finite",
        ),
        ({"image_size": (4,)}, ValueError, "fragments: `image_size` must be two positive integers"),
        ({"near": 0.0}, ValueError, "fragments: `near` must be positive"),
    ],
)
def test_bad_arguments_are_named(module, change: dict, error: type[Exception], message: str):
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(error, match=message):
        module.fragments(clip, faces, layout, **{"image_size": (4, 4), **change})


def test_too_many_fragments_are_named():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(ValueError, match="fragments: `k` must be such that H·W·k < 2³¹"):
        ops.fragments(clip, faces, layout, k=2**20, image_size=(64, 64))


@pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])
def test_bad_blends_are_named(module):
    rows, index, weight = torch.zeros(3, 2), torch.zeros(4, 1, dtype=torch.int64), torch.zeros(4, 1)
    with pytest.raises(TypeError, match="blend: `weight` must be of the dtype of `values`"):
        module.blend(rows, index, weight.double())
    with pytest.raises(TypeError, match="blend: `index` must be int32 or int64"):
        module.blend(rows, index.float(), weight)
    with pytest.raises(ValueError, match=r"blend: `index` must be int32 or int64 of the shape of `weight`, \(4, 1\)"):
        module.blend(rows, index[:2], weight)


def test_an_index_out_of_range_is_named():
    with pytest.raises(ValueError, match=r"blend: `index` must be in \[0, 3\); got from 0 to 3"):
        ops.blend(torch.zeros(3, 2), torch.tensor([[0], [3]]), torch.zeros(2, 1))
