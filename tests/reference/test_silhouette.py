# SPDX-License-Identifier: Apache-2.0
"""The silhouette twin against closed forms, finite differences, the hard mask and its own symmetries."""

import math

import pytest
import torch

from geodiff import soft
from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from geodiff.reference.rasterize import rasterize
from geodiff.reference.silhouette import silhouette
from tests.helpers import (
    assert_close_relative,
    assert_gradient_is_derivative,
    assert_masks_match_outside,
    random_cotangent,
    rounding_bound,
    vjp,
)
from tests.scenes import BY_NAME, SCENES, Scene, orthographic, perspective

by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
by_smooth_scene = pytest.mark.parametrize("scene", [s for s in SCENES if not s.kink], ids=lambda s: s.name)
by_form = pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
LOGISTIC, SUM = soft.Logistic(), soft.Probabilistic()
ONE = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])


def render(scene: Scene, clip=None, scale=None, *, distribution=LOGISTIC, tconorm=SUM, **more) -> torch.Tensor:
    own, faces, layout = scene.tensors()
    # A squared distribution takes its scale in NDC²: the square makes the band as wide.
    if scale is None:
        scale = scene.scale**2 if distribution.is_squared else scene.scale
    return silhouette(
        own if clip is None else clip,
        faces,
        layout,
        distribution=distribution,
        tconorm=tconorm,
        scale=scale,
        image_size=scene.image_size,
        near=scene.near,
        **more,
    )


@by_smooth_scene
@by_form
@pytest.mark.parametrize(
    ("distribution", "tconorm"),
    [
        (soft.Logistic(), soft.Probabilistic()),
        (soft.Gaussian(), soft.Einstein()),
        (soft.Cauchy(), soft.Yager(2.0)),
        (soft.Uniform(), soft.Average()),
        (soft.Gamma(2.0).reversed(), soft.Dombi(0.5)),
        (soft.Exponential().shifted(0.7), soft.SchweizerSklar(-2.0)),
        (soft.Logistic(), soft.Maximum()),
    ],
    ids=str,
)
def test_gradient_in_vertices_and_scale_is_the_derivative(scene: Scene, squared: bool, distribution, tconorm):
    if scene.ties and isinstance(tconorm, soft.Maximum):
        pytest.skip("the maximum of two equal faces has a kink where they part")
    distribution = distribution.squared() if squared else distribution
    clip = scene.tensors()[0]
    scale = torch.tensor(scene.scale**2 if squared else scene.scale, dtype=torch.float64)

    def alpha(clip: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
        return render(scene, clip, scale * relative, distribution=distribution, tconorm=tconorm)

    assert_gradient_is_derivative(alpha, [clip, torch.ones_like(scale)], scene.step, directions=2)


def test_gradient_in_the_parameters_of_the_members_is_the_derivative():
    scene = BY_NAME["octahedron"]
    shape, shift, p = (torch.tensor(value, dtype=torch.float64) for value in (1.3, 0.4, 1.7))

    def alpha(shape: torch.Tensor, shift: torch.Tensor, p: torch.Tensor) -> torch.Tensor:
        return render(scene, distribution=soft.Gamma(shape).reversed().shifted(shift), tconorm=soft.Yager(p))

    assert_gradient_is_derivative(alpha, [shape, shift, p], 1e-6)


class Smoothstep(soft.Distribution):
    """A user's own distribution, which has nothing but a CDF."""

    def cdf(self, x: torch.Tensor) -> torch.Tensor:
        y = (x.clamp(-1, 1) + 1) / 2
        return y * y * (3 - 2 * y)


class Plus(soft.TConorm):
    """A user's own T-conorm, which has nothing but a way to combine two: the probabilistic sum again."""

    def combine(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b - a * b


@by_form
@pytest.mark.parametrize(
    "name", ["octahedron", "two meshes, packed, the second one first", "one face behind the camera"]
)
def test_members_of_your_own(name: str, squared: bool):
    scene = BY_NAME[name]
    own, known = Smoothstep(), soft.CubicHermite()
    own, known = (own.squared(), known.squared()) if squared else (own, known)
    scale = 0.3  # so wide that most pixels see the slope of the CDF
    expected = render(scene, scale=scale, distribution=known)
    cotangent = random_cotangent(expected)
    clip = scene.tensors()[0]
    (gradient,) = vjp(lambda c: render(scene, c, scale, distribution=known), [clip], cotangent)
    # Subclasses, and plain functions where the form allows; theirs lose accuracy only where F is near 1.
    members = [(own, Plus()), (own, lambda a, b: a + b - a * b)]
    members += [] if squared else [(own.cdf, "probabilistic")]
    for distribution, tconorm in members:

        def alpha(c: torch.Tensor, distribution=distribution, tconorm=tconorm) -> torch.Tensor:
            return render(scene, c, scale, distribution=distribution, tconorm=tconorm)

        assert_close_relative(alpha(clip), expected, rounding_bound(torch.float64, 10))
        assert_close_relative(vjp(alpha, [clip], cotangent)[0], gradient, rounding_bound(torch.float64, 1e4))


@by_scene
@by_form
def test_values_and_gradients_are_finite(scene: Scene, squared: bool):
    distribution = soft.Logistic().squared() if squared else soft.Logistic()
    clip = scene.tensors()[0]
    alpha = render(scene, distribution=distribution)
    assert torch.isfinite(alpha).all() and (alpha >= 0).all() and (alpha <= 1).all()
    for scale in (1e-8, 1e-3, 10.0):
        (gradient,) = vjp(
            lambda c, scale=scale: render(scene, c, scale, distribution=distribution), [clip], random_cotangent(alpha)
        )
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("camera", [perspective, orthographic])
@by_form
def test_half_plane_in_closed_form(camera, squared: bool):
    # A face so large that only one of its edges, x = 0.3, is near: alpha = F((0.3 − x) / τ), dalpha/dτ = −x F'/τ.
    clip = camera([[0.3, -1e3, 2.0], [0.3, 1e3, 2.0], [-1e3, 0.0, 2.0]])
    distribution = soft.Logistic().squared() if squared else soft.Logistic()
    tau = torch.tensor(0.07, dtype=torch.float64, requires_grad=True)
    alpha = silhouette(clip, *ONE, distribution=distribution, tconorm=SUM, scale=tau, image_size=(5, 7))[0]
    distance = 0.3 - pixel_centres((5, 7), clip)[:, 0].reshape(5, 7)
    x = (distance * distance.abs() if squared else distance) / tau.detach()
    bound = rounding_bound(torch.float64, 1e3 / 0.07)
    assert_close_relative(alpha, torch.sigmoid(x), bound)
    (gradient,) = torch.autograd.grad(alpha.sum(), tau)
    density = torch.sigmoid(x) * torch.sigmoid(-x)
    assert_close_relative(gradient, (-x * density / tau.detach()).sum(), bound)


def test_disc_about_a_vertex_in_closed_form():
    # Left of the vertex at the origin that vertex is nearest: alpha depends on the distance to it alone.
    clip = orthographic([[0.0, 0.0, 2.0], [50.0, 1.0, 2.0], [50.0, -1.0, 2.0]])
    alpha = silhouette(clip, *ONE, distribution=LOGISTIC, tconorm=SUM, scale=0.4, image_size=(6, 6))[0]
    pixels = pixel_centres((6, 6), clip).reshape(6, 6, 2)
    expected = torch.sigmoid(-pixels.norm(dim=-1) / 0.4)
    assert_close_relative(alpha[:, :3], expected[:, :3], rounding_bound(torch.float64, 50))


@by_form
def test_a_pixel_on_an_edge_moves_with_the_edges_normal(squared: bool):
    scene = BY_NAME["pixels exactly on an edge"]
    distribution = soft.Logistic().squared() if squared else soft.Logistic()
    clip = scene.tensors()[0].requires_grad_()
    alpha = render(scene, clip, 0.1, distribution=distribution)[0]
    # The edge from corner 0 to corner 2 has slope one and passes the pixel (row 1, column 1) 2/4 of the way along it.
    assert alpha[1, 1].item() == 0.5
    (gradient,) = torch.autograd.grad(alpha[1, 1], clip)
    outwards = torch.tensor([-1.0, 1.0], dtype=torch.float64) / math.sqrt(2)
    rate = 0.0 if squared else 0.25 / 0.1  # the density of the logistic law at 0, over τ; d·|d| is flat at 0
    assert_close_relative(gradient[0, :2], 0.5 * rate * outwards, rounding_bound(torch.float64))
    assert_close_relative(gradient[2, :2], 0.5 * rate * outwards, rounding_bound(torch.float64))
    assert (gradient[1] == 0).all()


def test_a_pixel_on_a_vertex_has_a_gradient_between_the_one_sided_derivatives():
    scene = BY_NAME["pixel exactly on a vertex"]
    clip = scene.tensors()[0]
    cotangent = torch.zeros(1, 4, 4, dtype=torch.float64)
    cotangent[0, 1, 2] = 1.0
    alpha = render(scene)
    assert alpha[0, 1, 2].item() == 0.5
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


@by_scene
def test_small_scale_is_the_hard_mask_away_from_edges(scene: Scene):
    clip, faces, layout = scene.tensors()
    alpha = render(scene, scale=1e-9)
    mask = rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near).face_id >= 0
    pixels = pixel_centres(scene.image_size, clip)
    bands = [
        (signed_distance(pixels, near_clip(face_corners(clip, faces, row), scene.near)).abs() < 1e-7).any(dim=1)
        for row in layout.tolist()
    ]
    band = torch.stack(bands).reshape(alpha.shape) if bands else torch.zeros_like(mask)
    assert_masks_match_outside(alpha > 0.5, mask, band)
    assert ((alpha == 0) | (alpha == 1) | band).all()


@pytest.mark.parametrize("name", ["octahedron", "a mesh through the near plane, orthographic", "shared edge"])
@pytest.mark.parametrize("tconorm", [SUM, soft.Maximum(), soft.Average()], ids=lambda t: type(t).__name__)
def test_order_of_faces_does_not_matter(name: str, tconorm):
    scene = BY_NAME[name]
    clip, faces, layout = scene.tensors()
    settings = dict(distribution=LOGISTIC, tconorm=tconorm, scale=0.05, image_size=(9, 9), near=scene.near)
    # Also where each face starts its walk, and which way around it goes.
    shuffled = faces[torch.randperm(len(faces))].roll(1, dims=1)
    for other in (shuffled, shuffled.flip(1)):
        alpha = silhouette(clip, faces, layout, **settings)
        cotangent = random_cotangent(alpha)
        (gradient,) = vjp(lambda c: silhouette(c, faces, layout, **settings), [clip], cotangent)
        (other_gradient,) = vjp(lambda c, f=other: silhouette(c, f, layout, **settings), [clip], cotangent)
        bound = rounding_bound(torch.float64, 100)
        assert_close_relative(silhouette(clip, other, layout, **settings), alpha, bound)
        assert_close_relative(other_gradient, gradient, bound * 100)


@by_form
@pytest.mark.parametrize(
    "name", ["octahedron", "wide image", "one corner behind the near plane", "octahedron, orthographic"]
)
def test_moving_by_a_pixel_moves_the_image_by_a_pixel(name: str, squared: bool):
    scene = BY_NAME[name]
    distribution = soft.Logistic().squared() if squared else soft.Logistic()
    clip = scene.tensors()[0]
    pixel = 2 / min(scene.image_size)
    right, up = clip.clone(), clip.clone()
    right[:, 0] += pixel * clip[:, 3]
    up[:, 1] += pixel * clip[:, 3]
    alpha = render(scene, distribution=distribution)
    bound = rounding_bound(torch.float64, 1e3)
    assert_close_relative(render(scene, right, distribution=distribution)[:, :, 1:], alpha[:, :, :-1], bound)
    assert_close_relative(render(scene, up, distribution=distribution)[:, :-1], alpha[:, 1:], bound)


@by_scene
def test_chunks_change_nothing(scene: Scene):
    clip = scene.tensors()[0]
    alpha = render(scene)
    # Not bit by bit: torch computes exp and log in vectors, and the rest of a row in another way.
    assert_close_relative(render(scene, chunk=101), alpha, rounding_bound(torch.float64))
    cotangent = random_cotangent(alpha)
    scale = torch.tensor(scene.scale, dtype=torch.float64)
    whole = vjp(lambda c, s: render(scene, c, s), [clip, scale], cotangent)
    pieces = vjp(lambda c, s: render(scene, c, s, chunk=101), [clip, scale], cotangent)
    for one, other in zip(whole, pieces, strict=True):
        assert_close_relative(other, one, rounding_bound(torch.float64, 100))


@pytest.mark.parametrize("name", ["three views of one mesh", "two meshes, packed, the second one first"])
def test_a_batch_is_its_images(name: str):
    scene = BY_NAME[name]
    clip, faces, layout = scene.tensors()
    batch = render(scene)
    for image, (vertex_start, face_start, face_count) in enumerate(layout.tolist()):
        own_faces = faces[face_start : face_start + face_count]
        own_clip = clip[vertex_start : vertex_start + 1 + int(own_faces.max())]
        alone = silhouette(
            own_clip,
            own_faces,
            torch.tensor([[0, 0, face_count]]),
            distribution=LOGISTIC,
            tconorm=SUM,
            scale=scene.scale,
            image_size=scene.image_size,
            near=scene.near,
        )
        assert torch.equal(batch[image], alone[0])


def test_a_clipped_face_is_one_fragment():
    # Along the quadrilateral's diagonal, two fragments would show: F(0) ⊥ F(0) = 3/4.
    scene = BY_NAME["one corner behind the near plane"]
    clip, faces, layout = scene.tensors()
    polygon = near_clip(face_corners(clip, faces, layout[0].tolist()), scene.near)
    assert polygon.counts.item() == 4
    inside = signed_distance(pixel_centres((8, 8), clip), polygon)[:, 0].reshape(8, 8) > 0.2
    assert inside.any()
    assert (render(scene, scale=0.005)[0][inside] > 1 - 1e-12).all()


def test_faces_that_are_not_drawn_count_in_the_average_only():
    scene = BY_NAME["one face behind the camera"]
    clip, faces, layout = scene.tensors()
    settings = dict(distribution=LOGISTIC, scale=0.1, image_size=(8, 8), near=scene.near)
    both = [silhouette(clip, faces, layout, tconorm=t, **settings) for t in (SUM, soft.Average())]
    one = [silhouette(clip, *ONE, tconorm=t, **settings) for t in (SUM, soft.Average())]
    assert torch.equal(both[0], one[0])
    assert torch.equal(both[1], one[1] / 2)


def test_an_empty_mesh_is_an_empty_image_with_zero_gradients():
    clip = torch.zeros(0, 4, requires_grad=True)
    scale = torch.tensor(0.1, requires_grad=True)
    for tconorm in (SUM, soft.Maximum(), soft.Average()):
        alpha = silhouette(
            clip,
            torch.zeros(0, 3, dtype=torch.int64),
            torch.tensor([[0, 0, 0]]),
            distribution=LOGISTIC,
            tconorm=tconorm,
            scale=scale,
            image_size=(3, 4),
        )
        assert torch.equal(alpha, torch.zeros(1, 3, 4))
        at_clip, at_scale = torch.autograd.grad(alpha.sum(), [clip, scale])
        assert at_clip.shape == (0, 4) and at_scale == 0


def test_float32_agrees_with_float64():
    for scene in SCENES:
        clip, faces, layout = scene.tensors(torch.float32)
        settings = dict(
            distribution=LOGISTIC, tconorm=SUM, scale=scene.scale, image_size=scene.image_size, near=scene.near
        )
        single = silhouette(clip, faces, layout, **settings)
        assert single.dtype == torch.float32
        # Coordinates over τ: 30 for most; the huge triangle's coordinates and scale are both in the thousands.
        assert_close_relative(
            single, silhouette(clip.double(), faces, layout, **settings), rounding_bound(torch.float32, 30), scene.name
        )


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"clip": [[0.0] * 4]}, TypeError, "`clip` must be a tensor of shape"),
        ({"clip": torch.zeros(3, 3)}, ValueError, r"`clip` must be of shape \(N, 4\); got float32 of shape \(3, 3\)"),
        ({"clip": torch.zeros(3, 4).half()}, TypeError, "`clip` must be float32 or float64"),
        ({"clip": torch.full((3, 4), torch.nan)}, ValueError, "`clip` must be finite; got nan at index"),
        ({"faces": torch.zeros(1, 3)}, TypeError, "`faces` must be an integer tensor of shape"),
        ({"faces": torch.zeros(1, 4, dtype=torch.int64)}, ValueError, r"`faces` must be .* \(F, 3\); .* Triangulate"),
        ({"faces": torch.tensor([[0, 1, 3]])}, ValueError, "`faces` must be indices from 0 to 2; got 3 in image 0"),
        ({"faces": torch.tensor([[0, 1, -1]])}, ValueError, "`faces` must be indices from 0 to 2; got -1 in image 0"),
        ({"layout": torch.tensor([0, 0, 1])}, ValueError, r"`layout` must be .* \(B, 3\)"),
        ({"layout": torch.tensor([[0, 0, 2]])}, ValueError, r"`layout` must be .*the 1 faces; got row 0 = \[0, 0, 2\]"),
        ({"layout": torch.tensor([[1, 0, 1]])}, ValueError, "`faces` must be indices from 0 to 1; got 2 in image 0"),
        ({"image_size": (0, 4)}, ValueError, r"`image_size` must be two positive integers \(H, W\)"),
        ({"image_size": 64}, ValueError, r"`image_size` must be two positive integers \(H, W\)"),
        ({"near": 0.0}, ValueError, "`near` must be positive and finite; got 0.0"),
        ({"scale": -1.0}, ValueError, "`scale` must be positive and finite; got -1.0"),
        ({"scale": torch.tensor(0.0)}, ValueError, "`scale` must be positive and finite"),
    ],
)
def test_bad_arguments_are_named(change: dict, error: type[Exception], message: str):
    arguments = {
        "clip": orthographic([[0, 0, 2], [1, 0, 2], [0, 1, 2]]),
        "faces": ONE[0],
        "layout": ONE[1],
        "distribution": LOGISTIC,
        "tconorm": SUM,
        "scale": 0.1,
        "image_size": (2, 2),
        **change,
    }
    with pytest.raises(error, match=f"silhouette: {message}"):
        silhouette(**arguments)
    if "scale" not in change:
        for name in ("distribution", "tconorm", "scale"):
            del arguments[name]
        with pytest.raises(error, match=f"rasterize: {message}"):
            rasterize(**arguments)
