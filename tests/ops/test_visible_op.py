# SPDX-License-Identifier: Apache-2.0
"""The list of what pixels see: the kernel against its twin, finite differences, fragments and the hard rasteriser."""

import pytest
import torch

from geodiff import Camera, Mesh, icosphere, ops, reference, torus
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, random_cotangent, vjp
from tests.scenes import BY_NAME, SCENES, Scene

by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
by_module = pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])


@by_scene
@by_dtype
@by_module
def test_without_blur_it_is_the_hard_rasteriser(scene: Scene, dtype: torch.dtype, module):
    clip, faces, layout = scene.tensors(dtype)
    options = {"image_size": scene.image_size, "near": scene.near}
    hard = module.rasterize(clip, faces, layout, **options)
    got = module.visible(clip, faces, layout, **options)
    covered = hard.face_id.reshape(-1) >= 0
    assert torch.equal(got.place, covered.nonzero()[:, 0])
    assert torch.equal(got.face_id, hard.face_id.reshape(-1)[covered])
    assert got.inside.all()
    exact = hard.barycentric.reshape(-1, 3)[covered]
    assert_close_relative(got.barycentric, exact, 1e3 * torch.finfo(dtype).eps, "barycentric")


@pytest.mark.usefixtures("backend")
@by_scene
@by_dtype
def test_with_blur_it_is_the_list_of_fragments(scene: Scene, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    options = {"blur": 0.2, "image_size": scene.image_size, "near": scene.near}
    dense = ops.fragments(clip, faces, layout, order="visible", **options)
    face = dense.face_id.reshape(-1)
    place = (face >= 0).nonzero()[:, 0]
    got = ops.visible(clip, faces, layout, **options)
    assert got.place.dtype == got.face_id.dtype == torch.int64 and got.inside.dtype == torch.bool
    assert torch.equal(got.place, place) and torch.equal(got.face_id, face[place])
    assert torch.equal(got.inside, dense.distance.reshape(-1)[place] >= 0)
    # The same formula in two loops, one of which may fuse multiplications and additions.
    exact = dense.barycentric.reshape(-1, 3)[place]
    assert_close_relative(got.barycentric, exact, 1e3 * torch.finfo(dtype).eps, "barycentric")


def _crumbs() -> Mesh:
    """Faces of all sizes, near and far, in front of and beside each other."""
    g = torch.Generator().manual_seed(1)
    size = 10 ** (-2.5 * torch.rand(150, 1, 1, generator=g))
    corners = 2.4 * torch.rand(150, 1, 3, generator=g) - 1.2 + size * torch.randn(150, 3, 3, generator=g)
    return Mesh(corners.reshape(-1, 3), torch.arange(450).reshape(-1, 3))


def _ball_before_a_wall() -> Mesh:
    ball = icosphere(2)
    wall = torch.tensor([[-1.0, -2.0, -0.9], [-1.0, 2.0, -0.9], [-1.0, -2.0, 0.7]])
    faces = torch.cat([torch.tensor([[0, 1, 2]]), ball.faces + 3])
    return Mesh(torch.cat([wall, 0.8 * ball.vertices]), faces)


RIMS = {"ball": icosphere(2), "ring": torus(0.7, 0.05, 48, 4), "crumbs": _crumbs(), "wall": _ball_before_a_wall()}


@pytest.mark.parametrize("mesh", RIMS.values(), ids=RIMS.keys())
@pytest.mark.parametrize("distance", [2.7, 1.1])  # the whole mesh, and one that the borders cut
def test_no_face_of_a_fine_mesh_is_left_out_of_the_rim(mesh: Mesh, distance: float):
    clip = Camera.orbit(distance, 25.0, 130.0, fov_deg=60).to(dtype=torch.float64).to_clip(mesh.vertices.double())
    layout = torch.tensor([[0, 0, len(mesh.faces)]])
    for blur in (0.1, 1.0):
        options = {"blur": blur, "image_size": (24, 29)}
        got, wanted = (m.visible(clip, mesh.faces_int32, layout, **options) for m in (ops, reference))
        assert torch.equal(got.place, wanted.place) and torch.equal(got.inside, wanted.inside)
        assert torch.equal(got.face_id, wanted.face_id)


GENERIC = [
    "octahedron",
    "three views of one mesh",
    "two meshes, packed, the second one first",
    "wide image",
    "one corner behind the near plane",
    "two corners behind the near plane",
]


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("name", GENERIC)
@by_dtype
def test_the_kernel_is_its_twin(name: str, dtype: torch.dtype):
    clip, faces, layout = BY_NAME[name].tensors(dtype)
    scale = torch.finfo(dtype).eps
    options = {"blur": 0.3, "image_size": (9, 11), "near": BY_NAME[name].near}
    got, wanted = (module.visible(clip, faces, layout, **options) for module in (ops, reference))
    assert len(wanted.place) and not wanted.inside.all()
    assert torch.equal(got.place, wanted.place)
    # In single precision, which of two faces is nearer is sometimes a matter of rounding.
    same = (got.face_id == wanted.face_id) & (got.inside == wanted.inside)
    assert same.all() if dtype == torch.float64 else same.double().mean() > 0.8
    assert_close_relative(got.barycentric[same], wanted.barycentric[same], 1e4 * scale, "barycentric")
    cotangent = random_cotangent(wanted.barycentric) * same[:, None]
    first, second = (
        vjp(lambda x, m=m: m.visible(x, faces, layout, **options).barycentric, [clip], cotangent)[0]
        for m in (ops, reference)
    )
    assert_close_relative(first, second, 1e6 * scale, "gradient")


@pytest.mark.parametrize("name", GENERIC)
@by_module
def test_gradient_is_the_derivative(name: str, module):
    clip, faces, layout = BY_NAME[name].tensors()
    options = {"blur": 0.3, "image_size": (7, 8), "near": BY_NAME[name].near}
    base = module.visible(clip, faces, layout, **options)
    size = len(layout) * 7 * 8

    def maps(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen = module.visible(x, faces, layout, **options)
        face = torch.full((size,), -1).index_copy(0, seen.place, 2 * seen.face_id + seen.inside)
        return x.new_zeros(size, 3).index_copy(0, seen.place, seen.barycentric), face

    # Without the few pixels that see another face within the step.
    stays = maps(clip)[1] >= 0
    for _ in range(6):
        stays &= maps(clip + 1e-5 * torch.randn_like(clip))[1] == maps(clip)[1]
    assert stays.sum() > 0.7 * len(base.place) > 0
    assert_gradient_is_derivative(lambda x: maps(x)[0][stays], [clip], 1e-7, relative=1e-5)


def test_the_same_bits_on_any_number_of_threads_and_for_one_image_of_many():
    mesh = icosphere(4)
    clip = torch.cat([mesh.vertices, mesh.vertices[:, 2:]], dim=1)
    clip[:, 2:] = 2.7 - clip[:, 2:]
    images = 20  # enough that they are spread over the threads
    many = torch.cat([clip * (1 + 0.01 * i) for i in range(images)])
    cases = [(clip, mesh.layout_for(1)), (many, mesh.layout_for(images))]
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            results.append([])
            for vertices, layout in cases:
                leaf = vertices.clone().requires_grad_()
                out = ops.visible(leaf, mesh.faces, layout, blur=0.02, image_size=(130, 120))
                weight = torch.linspace(-1, 1, out.barycentric.numel()).reshape(out.barycentric.shape)
                (grad,) = torch.autograd.grad((out.barycentric * weight).sum(), leaf)
                results[-1] += [*(part.detach() for part in out), grad]
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    first = results[0][5] < 130 * 120
    assert all(torch.equal(a, b[first]) for a, b in zip(results[0][:4], results[0][5:9], strict=True))


def test_opcheck():
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float32)
    clip = (clip * torch.tensor([2.0, 2.0, 1.0, 1.0])).detach().requires_grad_()
    torch.library.opcheck(torch.ops.geodiff.visible, (clip, faces.int(), layout, 6, 5, 0.1, 0.2))


@pytest.mark.usefixtures("backend")
def test_nothing_to_see():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    leaf = (clip + torch.tensor([99.0, 0, 0, 0])).requires_grad_()
    got = ops.visible(leaf, faces, layout, image_size=(4, 4))
    assert [tuple(part.shape) for part in got] == [(0,), (0,), (0,), (0, 3)]
    got.barycentric.sum().backward()
    assert leaf.grad is not None and (leaf.grad == 0).all()
    assert len(ops.visible(leaf[:0], faces[:0], layout[:0], image_size=(4, 4)).place) == 0


def test_not_twice_differentiable():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    clip = clip.requires_grad_()
    seen = ops.visible(clip, faces, layout, blur=0.1, image_size=(4, 4)).barycentric
    (first,) = torch.autograd.grad((seen**2).sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match="geodiff::visible is not twice differentiable"):
        first.sum().backward()


@by_module
def test_bad_arguments_are_named(module):
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(ValueError, match=r"visible: `blur` must be a number ≥ 0; got float -0\.1"):
        module.visible(clip, faces, layout, blur=-0.1, image_size=(4, 4))
    with pytest.raises(ValueError, match="visible: `image_size` must be two positive integers"):
        module.visible(clip, faces, layout, image_size=(4,))
    with pytest.raises(ValueError, match="visible: `near` must be positive"):
        module.visible(clip, faces, layout, image_size=(4, 4), near=0.0)
    with pytest.raises(ValueError, match="visible: `faces` must be indices from 0"):
        module.visible(clip, faces + 99, layout, image_size=(4, 4))


@by_module
def test_images_share_no_vertices(module):
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(ValueError, match="visible: `layout` must be of images that share no vertices") as caught:
        module.visible(clip, faces, layout.repeat(2, 1), image_size=(4, 4))
    assert "vertex 0 in images 0 and 1" in str(caught.value)
    with pytest.raises(ValueError, match="fragments: `layout` must be of images that share no vertices"):
        module.fragments(clip, faces, layout.repeat(2, 1), image_size=(4, 4))


def test_what_the_kernel_refuses():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(ValueError, match="visible: `image_size` must be such that H·W < 2³¹"):
        ops.visible(clip, faces, layout, image_size=(2**16, 2**15))
    with pytest.raises(RuntimeError, match="visible: `clip` must be on the CPU"):
        ops.visible(clip.to("meta"), faces.to("meta"), layout.to("meta"), image_size=(4, 4))
