# SPDX-License-Identifier: Apache-2.0
"""The silhouette kernel in torch: gradcheck, opcheck, compile, the same bits on any thread, and its symmetries."""

import pytest
import torch

from geodiff import icosphere, ops, soft
from geodiff.native import cpu
from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from tests.helpers import assert_close_relative, assert_masks_match_outside, random_cotangent, rounding_bound, vjp
from tests.ops.family import with_parameters
from tests.scenes import BY_NAME, OCTAHEDRON, SCENES, Scene, camera_space, octahedron, orthographic, perspective

by_form = pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
MEMBERS = [
    ("logistic", "probabilistic"),
    ("gaussian", "einstein"),
    ("gamma(1.3).reversed.shifted(0.4)", "yager(1.7)"),
    ("gumbel_max.shifted(-0.2)", "frank(3)"),
    ("cauchy", "hamacher(0.7)"),
    ("levy.shifted(median).reversed", "dombi(1.5)"),
    ("exponential.shifted(median)", "schweizer_sklar(-1.5)"),
    ("hyperbolic_secant", "aczel_alsina(0.8)"),
    ("laplace", "maximum"),
    ("reciprocal", "average"),
]
by_member = pytest.mark.parametrize(("law", "rule"), MEMBERS, ids=lambda name: name)


def render(
    scene: Scene, clip=None, scale=None, *, distribution="logistic", dtype=torch.float64, **more
) -> torch.Tensor:
    own, faces, layout = scene.tensors(dtype)
    law = soft.as_distribution(distribution)
    if scale is None:
        scale = scene.scale**2 if law.is_squared else scene.scale
    model = {"image_size": scene.image_size, "near": scene.near, **more}
    return ops.silhouette(own if clip is None else clip, faces, layout, distribution=law, scale=scale, **model)


def spheres(images: int, subdivisions: int = 2, dtype: torch.dtype = torch.float32):
    """Clip coordinates, faces and layout of many views of one bumpy sphere."""
    mesh = icosphere(subdivisions)
    random = torch.Generator().manual_seed(9)
    points = mesh.vertices.double() + 0.05 * torch.randn(mesh.vertices.shape, generator=random, dtype=torch.float64)
    views = []
    for angle in torch.linspace(0.1, 6.0, images, dtype=torch.float64).tolist():
        turn = torch.tensor([[angle, 0.3, 0.5]], dtype=torch.float64)
        rotated = points + torch.linalg.cross(turn.expand_as(points), points) * 0.2
        views.append(torch.cat([rotated[:, :2], 2.7 - rotated[:, 2:], 2.7 - rotated[:, 2:]], dim=1))
    return torch.cat(views).to(dtype), mesh.faces, mesh.layout_for(images)


# In torch ------------------------------------------------------------------------------------------------------------


@by_member
@by_form
def test_gradcheck(law: str, rule: str, squared: bool):
    member, conorm = soft.as_distribution(law), soft.as_tconorm(rule)
    member = member.squared() if squared else member
    clip = camera_space([[-0.61, -0.53, 2.1], [0.72, -0.37, 1.7], [0.09, 0.66, 2.9], [0.51, 0.43, -0.4]])
    faces, layout = torch.tensor([[0, 1, 2], [1, 3, 2]]), torch.tensor([[0, 0, 2]])

    def alpha(clip, scale, shape, shift, p):
        return ops.silhouette(
            clip,
            faces,
            layout,
            distribution=with_parameters(member, shape, shift),
            tconorm=conorm if conorm.p is None else type(conorm)(p),
            scale=scale,
            image_size=(3, 4),
            near=0.125,
            max_error=0.0,
        )

    numbers = [0.3, member.shape or 0.0, member.shift, conorm.p or 0.0]
    leaves = [torch.tensor(float(n), dtype=torch.float64, requires_grad=True) for n in numbers]
    assert torch.autograd.gradcheck(alpha, [clip.requires_grad_(), *leaves])


def arguments(dtype=torch.float64):
    clip, faces, layout = spheres(2, 0, dtype)
    params = torch.tensor([0.1, 2.0, 0.0, 2.0], dtype=torch.float64)
    tail = (None, 6, 7, 0.01, 1e-4, 13, True, False, 5, "faces")
    return clip, faces.to(torch.int32), layout, params, *tail


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(dtype: torch.dtype):
    clip, faces, layout, params, *tail = arguments(dtype)
    for tail[0] in (None, torch.tensor(2.0, dtype=torch.float64, requires_grad=True)):
        torch.library.opcheck(
            torch.ops.geodiff.silhouette.default, (clip.requires_grad_(), faces, layout, params.requires_grad_(), *tail)
        )
    tail[0] = tail[0].detach()
    with torch.no_grad():
        alpha, total, best = torch.ops.geodiff.silhouette(clip, faces, layout, params, *tail)
    args = (torch.ones_like(alpha), clip.detach(), faces, layout, params.detach(), *tail, total, best, [True] * 3)
    torch.library.opcheck(torch.ops.geodiff.silhouette_backward.default, args)
    torch.library.opcheck(torch.ops.geodiff.rasterize.default, (clip.detach(), faces, layout, 6, 7, 0.01))


@pytest.mark.parametrize("squared", [False, True])
def test_a_factor_of_the_scale(squared: bool):
    """What devices keep of τ, and its gradient."""
    clip, faces, layout, params, _, *tail = arguments()
    tail[6] = squared
    op, weight = torch.ops.geodiff.silhouette, torch.linspace(-1, 1, 84, dtype=torch.float64).reshape(2, 6, 7)
    whole = [clip.clone().requires_grad_(), params.clone().requires_grad_()]
    alpha = op(whole[0], faces, layout, whole[1], None, *tail)[0]
    parts = [leaf.detach().clone().requires_grad_() for leaf in whole]
    factor = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)  # so that products are exact
    with torch.no_grad():
        parts[1][0] /= 4
    same = op(parts[0], faces, layout, parts[1], factor, *tail)[0]
    assert torch.equal(same, alpha)
    by_clip, by_params = torch.autograd.grad((alpha * weight).sum(), whole)
    found = torch.autograd.grad((same * weight).sum(), [*parts, factor])
    assert torch.equal(found[0], by_clip) and torch.equal(found[1][1:], by_params[1:]) and by_params[0] != 0
    torch.testing.assert_close(found[1][0], 4 * by_params[0])
    torch.testing.assert_close(found[2], by_params[0] * params[0] / 4)


def test_compile_without_a_graph_break():
    clip, faces, layout = BY_NAME["octahedron"].tensors(torch.float32)

    def loss(clip: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        alpha = ops.silhouette(2.0 * clip, faces, layout, scale=scale, image_size=(8, 8), tconorm="yager(2)")
        hit = ops.rasterize(clip, faces, layout, image_size=(8, 8)).face_id >= 0
        return (alpha * alpha * hit).sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    results = []
    for function in (loss, compiled):
        leaves = [clip.clone().requires_grad_(), torch.tensor(0.1, requires_grad=True)]
        results.append(torch.autograd.grad(function(*leaves), leaves))
    for one, other in zip(*results, strict=True):
        assert_close_relative(other, one, rounding_bound(torch.float32))
    with pytest.raises(ValueError, match="silhouette: `faces` must be indices from 0 to 4"):
        compiled(clip[:5], torch.tensor(0.1))


def test_twice_is_refused():
    clip = BY_NAME["octahedron"].tensors()[0].requires_grad_()
    alpha = render(BY_NAME["octahedron"], clip)
    (gradient,) = torch.autograd.grad((alpha * alpha).sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match=r"geodiff::silhouette is not twice differentiable\. .* geodiff\.reference"):
        torch.autograd.grad(gradient.sum(), clip)


def test_gradients_reach_only_what_asks_for_them():
    scene = BY_NAME["octahedron"]
    scale = torch.tensor(0.1, requires_grad=True)
    (gradient,) = torch.autograd.grad(render(scene, scale=scale).sum(), scale)
    assert gradient.dtype == torch.float32 and gradient.shape == () and gradient != 0
    assert not render(scene).requires_grad
    whole = scene.tensors()[0].requires_grad_()
    strided = torch.stack([whole, whole], dim=-1)[..., 0]  # not contiguous
    assert_close_relative(
        torch.autograd.grad(render(scene, strided).sum(), whole)[0],
        torch.autograd.grad(render(scene, whole).sum(), whole)[0],
        rounding_bound(torch.float64),
    )


# The same bits -------------------------------------------------------------------------------------------------------


def bits(images: int, law: str, rule: str, threads: int) -> list[torch.Tensor]:
    clip, faces, layout = spheres(images)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        leaves = [clip.requires_grad_(), torch.tensor(0.02, dtype=torch.float64, requires_grad=True)]
        p = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
        conorm = soft.as_tconorm(rule)
        leaves += [] if conorm.p is None else [p]
        conorm = conorm if conorm.p is None else type(conorm)(p)
        model = dict(distribution=law, tconorm=conorm, scale=leaves[1], image_size=(70, 61))
        alpha = ops.silhouette(leaves[0], faces, layout, **model)
        cotangent = torch.randn(alpha.shape, generator=torch.Generator().manual_seed(1))
        hard = ops.rasterize(clip.detach(), faces, layout, image_size=(70, 61))
        return [alpha.detach(), *torch.autograd.grad(alpha, leaves, cotangent), *hard]
    finally:
        torch.set_num_threads(before)


# 8 images are shared out whole; fewer are cut into bands of rows and blocks of faces.
@pytest.mark.parametrize("images", [1, 3, 9])
@pytest.mark.parametrize(
    ("law", "rule"), [("logistic", "probabilistic"), ("gamma(0.5)", "yager(2)"), ("uniform", "maximum")]
)
def test_same_bits_twice_and_on_any_number_of_threads(images: int, law: str, rule: str):
    first = bits(images, law, rule, 1)
    assert first[0].unique().numel() > 10
    for threads in (1, 2, 3):
        for one, other in zip(first, bits(images, law, rule, threads), strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("images", [1, 8])
def test_few_and_many_images_agree(images: int):
    clip, faces, layout = spheres(images, dtype=torch.float64)
    model = dict(scale=0.03, image_size=(33, 20))
    alone = [ops.silhouette(clip, faces, layout[i : i + 1], **model)[0] for i in range(images)]
    assert torch.equal(ops.silhouette(clip, faces, layout, **model), torch.stack(alone))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@by_member
def test_simd_levels_agree(law: str, rule: str, dtype: torch.dtype):
    extension, best = cpu.extension(), cpu.simd_level()
    if best == "baseline":
        pytest.skip("this machine has the baseline only")
    scene = BY_NAME["octahedron"]
    clip = scene.tensors(dtype)[0]

    def alpha(clip: torch.Tensor) -> torch.Tensor:
        return render(scene, clip, distribution=law, tconorm=rule, dtype=dtype)

    cotangent = random_cotangent(alpha(clip))
    wide = alpha(clip), *vjp(alpha, [clip], cotangent)
    hard = ops.rasterize(clip, *scene.tensors()[1:], image_size=(40, 40))
    try:
        extension.set_simd_level("baseline")
        narrow = alpha(clip), *vjp(alpha, [clip], cotangent)
        narrow_hard = ops.rasterize(clip, *scene.tensors()[1:], image_size=(40, 40))
    finally:
        extension.set_simd_level(best)
    # Coordinates over τ are 20; FMA rounds once where the baseline rounds twice.
    assert_close_relative(narrow[0], wide[0], rounding_bound(dtype, 20))
    assert_close_relative(narrow[1], wide[1], rounding_bound(dtype, 400))
    assert (hard.face_id != narrow_hard.face_id).double().mean() < 0.01


def test_an_unknown_simd_level_is_refused():
    with pytest.raises(ValueError, match="SIMD level not available here: v9"):
        cpu.extension().set_simd_level("v9")


# Symmetries and limits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
@by_form
def test_small_scale_is_the_hard_image_away_from_edges(scene: Scene, squared: bool):
    clip, faces, layout = scene.tensors()
    law = "logistic.squared" if squared else "logistic"
    alpha = render(scene, scale=1e-16 if squared else 1e-9, distribution=law)
    mask = ops.rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near).face_id >= 0
    pixels = pixel_centres(scene.image_size, clip)
    bands = [
        (signed_distance(pixels, near_clip(face_corners(clip, faces, row), scene.near)).abs() < 1e-7).any(dim=1)
        for row in layout.tolist()
    ]
    band = torch.stack(bands).reshape(alpha.shape) if bands else torch.zeros_like(mask)
    assert_masks_match_outside(alpha > 0.5, mask, band)
    assert (((alpha < 1e-4) & ~mask) | ((alpha > 1 - 1e-4) & mask) | band).all()
    if scene.covered is not None:
        assert mask.sum(dim=(1, 2)).tolist() == list(scene.covered)


@by_member
def test_order_and_winding_of_faces_do_not_matter(law: str, rule: str):
    scene = BY_NAME["a mesh through the near plane, orthographic"]
    clip, faces, layout = scene.tensors()
    model = dict(distribution=law, tconorm=rule, scale=0.1, image_size=(9, 9), near=scene.near, max_error=0.0)
    shuffled = faces[torch.randperm(len(faces))].roll(1, dims=1)
    alpha = ops.silhouette(clip, faces, layout, **model)
    cotangent = random_cotangent(alpha)
    (gradient,) = vjp(lambda c: ops.silhouette(c, faces, layout, **model), [clip], cotangent)
    for other in (shuffled, shuffled.flip(1)):
        assert_close_relative(ops.silhouette(clip, other, layout, **model), alpha, rounding_bound(torch.float64, 100))
        (own,) = vjp(lambda c, f=other: ops.silhouette(c, f, layout, **model), [clip], cotangent)
        assert_close_relative(own, gradient, rounding_bound(torch.float64, 1e4))


@by_form
@pytest.mark.parametrize("name", ["octahedron", "wide image", "one corner behind the near plane"])
def test_moving_by_whole_pixels_moves_the_image(name: str, squared: bool):
    scene = BY_NAME[name]
    law = "logistic.squared" if squared else "logistic"
    clip = scene.tensors()[0]
    pixel = 2 / min(scene.image_size)
    moved = clip.clone()
    moved[:, 0] += 2 * pixel * clip[:, 3]
    moved[:, 1] -= pixel * clip[:, 3]
    alpha = render(scene, distribution=law, max_error=0.0)
    other = render(scene, moved, distribution=law, max_error=0.0)
    assert_close_relative(other[:, 1:, 2:], alpha[:, :-1, :-2], rounding_bound(torch.float64, 1e3))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize(
    "name", ["three views of one mesh", "two meshes, packed, the second one first", "empty mesh between two others"]
)
def test_a_batch_is_its_images(name: str):
    scene = BY_NAME[name]
    clip, faces, layout = scene.tensors()
    batch = render(scene, max_error=0.0)  # the radius depends on the largest mesh of the batch
    for image in range(len(layout)):
        model = dict(scale=scene.scale, image_size=scene.image_size, near=scene.near, max_error=0.0)
        assert torch.equal(batch[image], ops.silhouette(clip, faces, layout[image : image + 1], **model)[0])


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("rule", ["probabilistic", "maximum", "average", "yager(0.5)", "dombi(2)", "hamacher(0)"])
@pytest.mark.parametrize("images", [0, 1, 8])
def test_an_empty_mesh_is_an_empty_image(rule: str, images: int):
    clip = torch.zeros(0, 4, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    faces, layout = torch.zeros(0, 3, dtype=torch.int64), torch.zeros(images, 3, dtype=torch.int64)
    alpha = ops.silhouette(clip, faces, layout, tconorm=rule, scale=scale, image_size=(3, 4))
    assert torch.equal(alpha, torch.zeros(images, 3, 4))
    at_clip, at_scale = torch.autograd.grad(alpha.sum(), [clip, scale])
    assert at_clip.shape == (0, 4) and at_scale == 0


@pytest.mark.usefixtures("backend")
def test_a_vertex_that_no_face_uses_has_no_gradient():
    scene = BY_NAME["degenerate by repeated indices, beside a good face"]
    clip = scene.tensors()[0]
    (gradient,) = vjp(lambda c: render(scene, c), [clip], torch.ones(1, 8, 8, dtype=torch.float64))
    assert (gradient[3] == 0).all() and (gradient[:3] != 0).any()


@pytest.mark.usefixtures("backend")
def test_two_coincident_faces_share_the_maximum_as_the_first():
    scene = BY_NAME["two coincident faces"]
    clip = scene.tensors()[0]
    (gradient,) = vjp(lambda c: render(scene, c, tconorm="maximum"), [clip], torch.ones(1, 8, 8, dtype=torch.float64))
    assert (gradient[:3, :2] != 0).all() and (gradient[3:] == 0).all()


@pytest.mark.usefixtures("backend")
def test_count_pairs():
    # One small square far from others' reach: pixels × faces at an infinite radius, fewer at a small one.
    scene = BY_NAME["octahedron"]
    clip, faces, layout = scene.tensors()
    model = dict(scale=0.05, image_size=(8, 8), near=scene.near)
    assert ops.count_pairs(clip, faces, layout, distribution="cauchy", max_error=0.0, **model).tolist() == [64 * 8]
    few = ops.count_pairs(clip, faces, layout, distribution="uniform", **model).item()
    distance = signed_distance(pixel_centres((8, 8), clip), near_clip(face_corners(clip, faces, [0, 0, 8]), scene.near))
    reached = int((distance > -0.05).sum())
    # Culling leaves out 1e-4 of F, so its radius is a little smaller than τ.
    assert int((distance > -0.0499).sum()) <= few <= reached


def test_a_pixel_on_an_edge_moves_with_the_edges_normal():
    scene = BY_NAME["pixels exactly on an edge"]
    clip = scene.tensors()[0].requires_grad_()
    for dtype in (torch.float64, torch.float32):
        alpha = render(scene, clip.to(dtype), 0.1, dtype=dtype)[0]
        assert abs(alpha[1, 1].item() - 0.5) <= torch.finfo(dtype).eps
        (gradient,) = torch.autograd.grad(alpha[1, 1], clip)
        # The edge from corner 0 to corner 2, of slope one, has the pixel at its middle: ¼ over τ, half a corner.
        outwards = torch.tensor([-1.0, 1.0], dtype=torch.float64) / 2**0.5
        for corner in (0, 2):
            assert_close_relative(gradient[corner, :2], 0.5 * 2.5 * outwards, rounding_bound(dtype))
        assert (gradient[1] == 0).all()


def test_a_pixel_on_a_vertex_has_a_gradient_between_the_one_sided_derivatives():
    scene = BY_NAME["pixel exactly on a vertex"]
    clip = scene.tensors()[0]
    cotangent = torch.zeros(1, 4, 4, dtype=torch.float64)
    cotangent[0, 1, 2] = 1.0
    alpha = render(scene)
    assert abs(alpha[0, 1, 2].item() - 0.5) < 1e-15
    (gradient,) = vjp(lambda c: render(scene, c), [clip], cotangent)
    assert torch.isfinite(gradient).all() and gradient[:, :2].abs().max() > 0.1
    step = 1e-7
    for _ in range(20):
        way = random_cotangent(clip)
        ahead = (render(scene, clip + step * way) - alpha)[0, 1, 2].item() / step
        back = (alpha - render(scene, clip - step * way))[0, 1, 2].item() / step
        slope = (gradient * way).sum().item()
        slack = 1e-4 * max(abs(ahead), abs(back), 1.0)  # step / τ, for the curvature of F
        assert min(ahead, back) - slack <= slope <= max(ahead, back) + slack


@pytest.mark.usefixtures("backend")
def test_a_clipped_face_is_one_fragment():
    # Along the quadrilateral's diagonal, two fragments would show: F(0) ⊥ F(0) = 3/4.
    scene = BY_NAME["one corner behind the near plane"]
    clip, faces, layout = scene.tensors()
    polygon = near_clip(face_corners(clip, faces, layout[0].tolist()), scene.near)
    inside = signed_distance(pixel_centres((8, 8), clip), polygon)[:, 0].reshape(8, 8) > 0.2
    assert polygon.counts.item() == 4 and inside.any()
    assert (render(scene, scale=0.005)[0][inside] > 1 - 1e-12).all()


@pytest.mark.usefixtures("backend")
@by_form
def test_half_plane_in_closed_form(squared: bool):
    # A face so large that only one of its edges, x = 0.3, is near: alpha = F((0.3 − x) / τ).
    clip = perspective([[0.3, -1e3, 2.0], [0.3, 1e3, 2.0], [-1e3, 0.0, 2.0]])
    faces, layout = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
    law = "logistic.squared" if squared else "logistic"
    tau = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    alpha = ops.silhouette(clip, faces, layout, distribution=law, scale=tau, image_size=(5, 7), max_error=0.0)[0]
    distance = 0.3 - pixel_centres((5, 7), clip)[:, 0].reshape(5, 7)
    x = (distance * distance.abs() if squared else distance) / tau.detach()
    bound = rounding_bound(torch.float64, 1e3 / 0.07)
    assert_close_relative(alpha, torch.sigmoid(x), bound)
    (gradient,) = torch.autograd.grad(alpha.sum(), tau)
    density = torch.sigmoid(x) * torch.sigmoid(-x)
    assert_close_relative(gradient, (-x * density / tau.detach()).sum(), bound)


@pytest.mark.usefixtures("backend")
def test_views_of_different_meshes_share_no_gradient():
    clip = torch.cat([camera_space(octahedron(0.3)), orthographic(octahedron(1.1))])
    faces, layout = torch.tensor(OCTAHEDRON), torch.tensor([[0, 0, 8], [6, 0, 8]])
    cotangent = torch.zeros(2, 8, 8, dtype=torch.float64)
    cotangent[1] = 1.0
    model = dict(scale=0.1, image_size=(8, 8))
    (gradient,) = vjp(lambda c: ops.silhouette(c, faces, layout, **model), [clip], cotangent)
    assert (gradient[:6] == 0).all() and (gradient[6:] != 0).any()


# Bad input -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clip": [[0.0] * 4]}, TypeError, "`clip` must be a tensor of shape"),
        ({"clip": torch.zeros(3, 3)}, ValueError, r"`clip` must be of shape \(N, 4\); got float32 of shape \(3, 3\)"),
        ({"clip": torch.zeros(3, 4).half()}, TypeError, r"`clip` must be float32 or float64.*\.float\(\)"),
        ({"clip": torch.zeros(3, 4).bfloat16()}, TypeError, r"`clip` must be float32 or float64.*\.float\(\)"),
        ({"clip": torch.zeros(3, 4).long()}, TypeError, "`clip` must be a floating tensor"),
        ({"clip": torch.full((3, 4), torch.nan)}, ValueError, r"`clip` must be finite; got nan at index \(0, 0\)"),
        ({"clip": torch.full((3, 4), torch.inf)}, ValueError, "`clip` must be finite; got inf at index"),
        ({"faces": torch.zeros(1, 3)}, TypeError, "`faces` must be an integer tensor of shape"),
        ({"faces": torch.zeros(1, 4, dtype=torch.int64)}, ValueError, r"`faces` must be .* \(F, 3\); .* Triangulate"),
        ({"faces": torch.tensor([[0, 1, 3]])}, ValueError, "`faces` must be indices from 0 to 2; got 3 in image 0"),
        ({"faces": torch.tensor([[0, 1, -1]])}, ValueError, "`faces` must be indices from 0 to 2; got -1 in image 0"),
        ({"layout": torch.tensor([0, 0, 1])}, ValueError, r"`layout` must be .* \(B, 3\)"),
        ({"layout": torch.tensor([[0, 0, 2]])}, ValueError, r"`layout` must be .*the 1 faces; got row 0 = \[0, 0, 2\]"),
        ({"layout": torch.tensor([[0, -1, 1]])}, ValueError, r"`layout` must be non-negative.*\[0, -1, 1\]"),
        ({"layout": torch.tensor([[1, 0, 1]])}, ValueError, "`faces` must be indices from 0 to 1; got 2 in image 0"),
        ({"image_size": (0, 4)}, ValueError, r"`image_size` must be two positive integers \(H, W\)"),
        ({"image_size": 64}, ValueError, r"`image_size` must be two positive integers \(H, W\)"),
        ({"image_size": (2.0, 2)}, ValueError, r"`image_size` must be two positive integers \(H, W\)"),
        ({"near": 0.0}, ValueError, "`near` must be positive and finite; got 0.0"),
        ({"near": "1"}, TypeError, "`near` must be a positive number"),
        (
            {"clip": torch.zeros(3, 4, device="meta")},
            RuntimeError,
            r"`clip` must be on the CPU or.*Use \.cpu\(\)",
        ),
        ({"scale": -1.0}, ValueError, "`scale` must be positive and finite; got -1.0"),
        ({"scale": float("inf")}, ValueError, "`scale` must be positive and finite; got inf"),
        ({"scale": torch.tensor(0.0)}, ValueError, "`scale` must be positive and finite"),
        ({"scale": "wide"}, TypeError, "`scale` must be a positive number"),
    ],
)
def test_bad_arguments_are_named(change: dict, error: type[Exception], message: str):
    given = {
        "clip": orthographic([[0, 0, 2], [1, 0, 2], [0, 1, 2]]),
        "faces": torch.tensor([[0, 1, 2]]),
        "layout": torch.tensor([[0, 0, 1]]),
        "scale": 0.1,
        "image_size": (2, 2),
        **change,
    }
    with pytest.raises(error, match=f"silhouette: {message}"):
        ops.silhouette(**given)
    if "scale" not in change:
        del given["scale"]
        with pytest.raises(error, match=f"rasterize: {message}"):
            ops.rasterize(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distribution": "logistik"}, "Did you mean 'logistic'"),
        ({"tconorm": "yaeger(2)"}, "Did you mean 'yager'"),
        ({"tconorm": "hamacher(-1)"}, "`p` must be"),
        ({"distribution": "gamma(0)"}, "`shape` must be"),
        ({"max_error": 1.5}, "`max_error` must be"),
        ({"max_error": -0.1}, "`max_error` must be"),
        ({"scale": torch.ones(2)}, "`scale` must be a number or a tensor with one element"),
        ({"distribution": soft.Logistic().shifted(torch.ones(2))}, "`shift` must be a number or a tensor with one"),
    ],
)
def test_bad_models_are_named(change: dict, message: str):
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(ValueError, match=message):
        ops.silhouette(clip, faces, layout, **{"scale": 0.1, "image_size": (2, 2), **change})


def test_count_pairs_needs_a_kernel():
    clip, faces, layout = BY_NAME["octahedron"].tensors()
    with pytest.raises(ValueError, match=r"count_pairs: `distribution` must be built in.*evaluated for every pair"):
        ops.count_pairs(clip, faces, layout, distribution=torch.sigmoid, scale=0.1, image_size=(2, 2))
