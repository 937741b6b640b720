# SPDX-License-Identifier: Apache-2.0
"""The contour kernel: its twin, fine masks, gradcheck, opcheck, compile, the same bits on any thread, its limits."""

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference, soft
from geodiff.native import cpu
from geodiff.ops.culling import contour_radii
from tests.contour_scenes import SHAPES, transformed_mask
from tests.helpers import (
    assert_close_relative,
    assert_gradient_is_derivative,
    random_cotangent,
    rounding_bound,
    vjp,
)
from tests.ops.test_silhouette_op import spheres
from tests.scenes import BY_NAME, SCENES, Scene

ALL = [*SCENES, *SHAPES]
# Two points of the outline are as near, or the outline has a corner that moves apart: the gradient may be either's.
TIED = {"two coincident faces", "squares that abut, unwelded, with a T-junction"}


def render(scene: Scene, clip=None, scale=None, *, distribution="logistic", dtype=torch.float64, **more):
    own, faces, layout = scene.tensors(dtype)
    law = soft.as_distribution(distribution)
    scale = (scene.scale**2 if law.is_squared else scene.scale) if scale is None else scale
    model = dict(image_size=scene.image_size, near=scene.near, max_error=0.0) | more
    return ops.contour(own if clip is None else clip, faces, layout, distribution=law, scale=scale, **model)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scene", ALL, ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", ["logistic", "gumbel_min.squared"])
def test_kernel_is_its_twin(scene: Scene, dtype: torch.dtype, law: str):
    clip, faces, layout = scene.tensors(dtype)
    law = soft.as_distribution(law)
    model = dict(distribution=law, scale=scene.scale**2 if law.is_squared else scene.scale, near=scene.near)
    size = (23, 31)
    own = ops.contour(clip, faces, layout, image_size=size, max_error=0.0, **model)
    twin = reference.contour(clip, faces, layout, image_size=size, **model)
    # Coordinates over τ are 20.
    assert_close_relative(own, twin, rounding_bound(dtype, 20))
    if scene.kink or scene.name in TIED:
        return
    cotangent = random_cotangent(twin)
    (got,) = vjp(lambda c: ops.contour(c, faces, layout, image_size=size, max_error=0.0, **model), [clip], cotangent)
    (wanted,) = vjp(lambda c: reference.contour(c, faces, layout, image_size=size, **model), [clip], cotangent)
    assert_close_relative(got, wanted, rounding_bound(dtype, 400))


@pytest.mark.parametrize("scene", SHAPES, ids=lambda s: s.name)
def test_distance_is_that_of_the_fine_mask(scene: Scene):
    expected, off = transformed_mask(scene, 45)
    # Uniform with τ so wide that alpha is a straight line of the distance.
    alpha = render(scene, scale=2.0, distribution="uniform")
    assert float(((2 * alpha - 1) * 2.0 - expected).abs().max()) < off


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("law", ["logistic", "gamma(1.3).reversed.shifted(0.4)", "cauchy.squared", "levy"])
def test_gradcheck(law: str):
    scene = BY_NAME["octahedron"]
    member = soft.as_distribution(law)
    scale = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    clip = scene.tensors()[0].requires_grad_()
    assert torch.autograd.gradcheck(lambda c, s: render(scene, c, s, distribution=member), [clip, scale])


@pytest.mark.parametrize("name", [s.name for s in SHAPES if s.name not in TIED])
def test_gradient_is_the_derivative_of_a_larger_image(name: str):
    scene = next(s for s in SHAPES if s.name == name)

    def alpha(clip: torch.Tensor) -> torch.Tensor:
        return render(scene, clip, image_size=(33, 28))

    assert_gradient_is_derivative(alpha, [scene.tensors()[0]], 1e-7, relative=1e-4)


def arguments(dtype=torch.float64):
    clip, faces, layout = spheres(2, 0, dtype)
    params = torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)
    edges = reference.edge_cycles(faces, layout)
    return clip, faces.to(torch.int32), layout, edges, params, None, 6, 7, 0.01, 1e-4, 6, False, False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype):
    clip, faces, layout, *rest = arguments(dtype)
    torch.library.opcheck(torch.ops.geodiff.contour.default, (clip.requires_grad_(), faces, layout, *rest))
    clip = clip.detach()
    saved = torch.ops.geodiff.contour(clip, faces, layout, *rest)
    args = (torch.ones_like(saved[0]), clip, faces, layout, 6, 7, 0.01, *saved)
    torch.library.opcheck(torch.ops.geodiff.contour_backward.default, args)


# torch.compile itself warns so where it traces an autograd function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compile_without_a_graph_break():
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float32)
    edges = reference.edge_cycles(faces, layout)

    def loss(clip: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return ops.contour(2.0 * clip, faces, layout, scale=scale, image_size=(8, 8), edges=edges).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss, compiled):
        leaves = [clip.clone().requires_grad_(), torch.tensor(0.1, requires_grad=True)]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    for one, other in zip(*results, strict=True):
        assert_close_relative(other, one, rounding_bound(torch.float32))


def test_twice_is_refused():
    clip = BY_NAME["octahedron"].tensors()[0].requires_grad_()
    alpha = render(BY_NAME["octahedron"], clip)
    (gradient,) = torch.autograd.grad((alpha * alpha).sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match=r"geodiff::contour is not twice differentiable\. .* geodiff\.reference"):
        torch.autograd.grad(gradient.sum(), clip)


def bits(images: int, law: str, threads: int) -> list[torch.Tensor]:
    clip, faces, layout = spheres(images, 4)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        leaves = [clip.requires_grad_(), torch.tensor(0.02, requires_grad=True)]
        alpha = ops.contour(leaves[0], faces, layout, distribution=law, scale=leaves[1], image_size=(170, 161))
        cotangent = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(1))
        gradient, _ = torch.autograd.grad(alpha, leaves, cotangent)
        return [alpha.detach(), gradient]
    finally:
        torch.set_num_threads(before)


# 8 images are shared out whole; fewer are cut into blocks of faces and tiles of pixels.
@pytest.mark.parametrize("images", [1, 3, 9])
def test_same_bits_twice_and_on_any_number_of_threads(images: int):
    first = bits(images, "logistic", 1)
    assert first[0].unique().numel() > 10
    for threads in (1, 2, 3):
        for one, other in zip(first, bits(images, "logistic", threads), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_simd_levels_agree(dtype: torch.dtype):
    extension, best = cpu.extension(), cpu.simd_level()
    if best == "baseline":
        pytest.skip("this machine has the baseline only")
    scene = next(s for s in SHAPES if "crumpled" in s.name)
    wide = render(scene, dtype=dtype, image_size=(40, 40))
    try:
        extension.set_simd_level("baseline")
        narrow = render(scene, dtype=dtype, image_size=(40, 40))
    finally:
        extension.set_simd_level(best)
    assert_close_relative(narrow, wide, rounding_bound(dtype, 20))


@pytest.mark.parametrize(
    "law", ["logistic", "gaussian.squared", "laplace", "gumbel_max", "exponential.reversed", "levy"]
)
@pytest.mark.parametrize("scale", [1e-3, 0.02, 0.1])
def test_far_pixels_are_off_by_no_more_than_max_error(law: str, scale: float):
    scene = BY_NAME["octahedron"]
    scale = scale**2 if law.endswith("squared") else scale
    model = dict(distribution=law, scale=scale, image_size=(50, 60))
    exact, near = (render(scene, max_error=error, **model) for error in (0.0, 1e-3))
    # Exactly the radius is within: a rounding more.
    assert float((exact - near).abs().max()) <= 1e-3 * (1 + 1e-9)


def test_radii():
    outside, inside = contour_radii(6, False, False, 0.1, 0.0, 0.0, 1e-4)
    assert abs(outside - 0.1 * 9.21024) < 1e-5 and abs(inside - outside) < 1e-12
    assert contour_radii(14, False, False, 0.1, 0.0, 0.0, 1e-4)[0] == 0.0  # Lévy has no left tail
    assert contour_radii(-1, False, False, 0.1, 0.0, 0.0, 1e-4) == (float("inf"), float("inf"))


@pytest.mark.parametrize("scene", ALL, ids=lambda s: s.name)
def test_small_scale_is_the_hard_image(scene: Scene):
    clip, faces, layout = scene.tensors()
    alpha = render(scene, scale=1e-12, max_error=1e-4)
    mask = ops.rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near).face_id >= 0
    on_the_edge = (alpha > 1e-3) & (alpha < 1 - 1e-3)
    assert torch.equal(alpha.round().bool() | on_the_edge, mask | on_the_edge)
    assert on_the_edge.sum() <= 4


@pytest.mark.parametrize("tau", [1e-3, 0.01, 0.1])
def test_no_seams_and_no_fattening_with_more_faces(tau: float):
    """Spheres of 320 to 20480 faces: alpha differs by the CDF's slope times how far the outlines differ."""
    camera = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)
    render_ = gd.Renderer(48, scale=tau, coverage="contour")
    images = [render_(gd.icosphere(level).to(dtype=torch.float64), camera).alpha for level in (2, 4, 5)]
    # Faces with edges up to h are within h²/6 of their sphere (radius 1; its outline is at a distance of 2.5, the focal
    # length is √3, and seen at 22° from the axis a length in the image grows by 1/cos 22°, squared). The logistic's
    # slope is at most 1/(4τ). Off by max_error twice.
    for image, level in ((images[0], 2), (images[1], 4)):
        sphere = gd.icosphere(level)
        ends = sphere.vertices[sphere.topology.edges]
        h2 = float((ends[:, 0] - ends[:, 1]).square().sum(dim=-1).max())
        off = 3**0.5 / 2.5 * h2 / 6 * 1.17
        assert float((image - images[2]).abs().max()) <= off / (4 * tau) + 2e-4
    hard = gd.rasterize(gd.icosphere(5).to(dtype=torch.float64), camera, 48).mask
    assert (images[2][hard] >= 0.5).all() and (images[2][~hard] <= 0.5).all()


def test_user_defined_distribution():
    class Smoothstep(soft.Distribution):
        def cdf(self, x: torch.Tensor) -> torch.Tensor:
            y = (x.clamp(-1, 1) + 1) / 2
            return y * y * (3 - 2 * y)

    scene = BY_NAME["octahedron"]
    assert_close_relative(
        render(scene, scale=0.3, distribution=Smoothstep()),
        render(scene, scale=0.3, distribution="cubic_hermite"),
        rounding_bound(torch.float64),
    )


@pytest.mark.usefixtures("backend")
def test_a_batch_is_its_images():
    for name in ("two meshes, packed, the second one first", "empty mesh between two others"):
        scene = BY_NAME[name]
        clip, faces, layout = scene.tensors()
        batch = render(scene)
        for image in range(len(layout)):
            model = dict(scale=scene.scale, image_size=scene.image_size, near=scene.near, max_error=0.0)
            assert torch.equal(batch[image], ops.contour(clip, faces, layout[image : image + 1], **model)[0])


def test_messages():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    model = dict(scale=0.1, image_size=(4, 4))
    with pytest.raises(ValueError, match="contour: `max_error` must be in "):
        ops.contour(clip, faces, layout, max_error=1.0, **model)
    with pytest.raises(ValueError, match=r"contour: `edges` must be int32 of shape \(8, 3\)"):
        ops.contour(clip, faces, layout, edges=faces, **model)
    with pytest.raises(ValueError, match="contour: `scale` must be"):
        ops.contour(clip, faces, layout, scale=0.0, image_size=(4, 4))
    with pytest.raises(ValueError, match="contour: `faces` must be indices from 0 to 5"):
        ops.contour(clip, faces + 1, layout, **model)
    with pytest.raises(RuntimeError, match="contour: `clip` must be on the CPU"):
        ops.contour(clip.to("meta"), faces, layout, **model)


# Through the renderer ------------------------------------------------------------------------------------------------


def test_a_mesh_batch_keeps_the_cycles_of_its_meshes():
    pair = gd.MeshBatch([gd.icosphere(1), gd.box(), gd.icosphere(0)])
    assert torch.equal(pair.edge_cycles, reference.edge_cycles(pair.faces, pair.layout))
    assert pair[1].topology.edge_cycles is pair[1].with_vertices(2 * pair[1].vertices).topology.edge_cycles


@pytest.mark.parametrize("tau", [1e-4, 1e-3, 1e-2])
def test_no_seam_inside(tau: float):
    camera = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)
    mesh = gd.icosphere(3)
    # Uniform on [−2, 2]: alpha says the distance. F(12) of the logistic is 1 − 6e-6, which max_error rounds to 1.
    distance = 4 * gd.Renderer(64, "uniform", scale=2.0, coverage="contour")(mesh, camera).alpha - 2
    deep = distance >= 12 * tau
    assert deep.sum() > 1000
    assert (gd.Renderer(64, scale=tau, coverage="contour")(mesh, camera).alpha[deep] == 1).all()


def test_renderer_takes_meshes_batches_and_backends():
    camera = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=torch.tensor([0.0, 50.0]), fov_deg=60.0)
    render_ = gd.Renderer((12, 16), scale=0.05, coverage="contour", max_error=0.0)
    twin = gd.Renderer((12, 16), scale=0.05, coverage="contour", backend="reference")
    for mesh in (gd.icosphere(1), gd.MeshBatch([gd.icosphere(1), gd.box()])):
        alpha = render_(mesh, camera).alpha
        assert alpha.shape == (2, 12, 16)
        assert_close_relative(alpha, twin(mesh, camera).alpha, rounding_bound(torch.float32, 40))
    behind = gd.Camera.look_at(eye=(0.0, 0.0, 5.0), at=(0.0, 0.0, 9.0), up=(0.0, 1.0, 0.0), fov_deg=60.0)
    mesh = gd.icosphere(1)
    vertices = mesh.vertices.clone().requires_grad_()
    with pytest.warns(UserWarning, match="wholly behind the camera"):
        alpha = render_(mesh.with_vertices(vertices), behind).alpha
    alpha.sum().backward()
    assert (alpha == 0).all() and (vertices.grad == 0).all()
    close = gd.Camera.orbit(2e-3, fov_deg=60.0)
    with pytest.warns(UserWarning, match=r"nearer than the near plane, at 0\.0029\d* at most.* a smaller near"):
        render_(mesh.scaled(1e-3), close)
