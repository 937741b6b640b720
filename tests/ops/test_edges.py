# SPDX-License-Identifier: Apache-2.0
"""Edge coverage: closed forms, finite differences, the kernel against its twin, and the bound of its culling."""

import math
from fractions import Fraction

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference, soft
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, random_cotangent, rounding_bound, vjp
from tests.ops.test_silhouette_op import MEMBERS
from tests.scenes import BY_NAME, SCENES, Scene, orthographic

by_member = pytest.mark.parametrize(("law", "rule"), MEMBERS, ids=lambda name: name)
by_form = pytest.mark.parametrize("squared", [False, True], ids=["plain", "squared"])
# Their corners cross the near plane within a step: the cut comes in as one more factor, about ½ at the corner.
SMOOTH = [s for s in SCENES if not s.kink]


def arguments(scene: Scene, dtype=torch.float64, squared: bool = False, **more):
    clip, faces, layout = scene.tensors(dtype)
    scale = scene.scale**2 if squared else scene.scale
    model = dict(scale=scale, image_size=scene.image_size, near=scene.near, coverage="edges") | more
    return clip, faces, layout, model


@pytest.mark.usefixtures("backend")
def test_one_triangle_is_the_product_of_three_half_planes():
    clip = orthographic([[-0.5, -0.5, 2.0], [0.7, -0.5, 2.0], [-0.5, 0.7, 2.0]])
    one = torch.tensor([[0, 2, 1]]), torch.tensor([[0, 0, 1]])
    for law in ("logistic", "gaussian", "cauchy.squared"):
        member = soft.as_distribution(law)
        for function, more in ((ops.silhouette, {"max_error": 0.0}), (reference.silhouette, {})):
            alpha = function(clip, *one, distribution=law, scale=0.2, image_size=(8, 8), coverage="edges", **more)
            y, x = torch.meshgrid(*[(torch.arange(8, dtype=torch.float64) + 0.5) / 4 - 1] * 2, indexing="ij")
            y = y.flip(0)
            expected = torch.ones_like(x)
            for d in (y + 0.5, x + 0.5, (0.2 - x - y) / 2**0.5):
                z = d / 0.2**0.5 if member.is_squared else d / 0.2
                expected = expected * member.cdf(z)
            assert_close_relative(alpha[0], expected, 1e-12)


@pytest.mark.parametrize("scene", SMOOTH, ids=lambda s: s.name)
@by_form
def test_gradient_of_the_twin_is_the_derivative(scene: Scene, squared: bool):
    clip, faces, layout, model = arguments(scene, squared=squared)
    scale = torch.tensor(model.pop("scale"), dtype=torch.float64)
    law = "logistic.squared" if squared else "logistic"

    def alpha(clip: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
        return reference.silhouette(clip, faces, layout, distribution=law, scale=scale * relative, **model)

    assert_gradient_is_derivative(alpha, [clip, torch.ones_like(scale)], scene.step, directions=2)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@by_form
def test_kernel_is_its_twin(scene: Scene, dtype: torch.dtype, squared: bool):
    clip, faces, layout, model = arguments(scene, dtype, squared, image_size=(11, 17))
    model["distribution"] = "logistic.squared" if squared else "logistic"
    own = ops.silhouette(clip, faces, layout, max_error=0.0, **model)
    twin = reference.silhouette(clip.double(), faces, layout, **model)
    # A sliver's lines turn by the rounding of its corners; coordinates over τ are 20 (400 squared) otherwise.
    if "barely" in scene.name:
        if dtype == torch.float32:
            pytest.skip("the cut's edge is as long as its rounding, which decides the direction of its line")
        condition = 1e7
    else:
        condition = 2e4 if scene.name in ("tiny triangle", "sliver") or scene.kink else (400 if squared else 20)
    assert_close_relative(own, twin, rounding_bound(dtype, condition))
    if scene.kink:
        return
    cotangent = random_cotangent(twin)
    (got,) = vjp(lambda c: ops.silhouette(c, faces, layout, max_error=0.0, **model), [clip], cotangent.to(dtype))
    (wanted,) = vjp(lambda c: reference.silhouette(c, faces, layout, **model), [clip.double()], cotangent)
    assert_close_relative(got, wanted, rounding_bound(dtype, condition**2))


@by_member
@by_form
def test_gradcheck(law: str, rule: str, squared: bool):
    scene = BY_NAME["one corner behind the near plane"]
    member, conorm = soft.as_distribution(law), soft.as_tconorm(rule)
    member = member.squared() if squared else member
    clip, faces, layout, model = arguments(scene, image_size=(3, 4), max_error=0.0)
    del model["scale"]
    from tests.ops.family import with_parameters

    def alpha(clip, scale, shape, shift, p):
        own = with_parameters(member, shape, shift)
        joined = conorm if conorm.p is None else type(conorm)(p)
        return ops.silhouette(clip, faces, layout, distribution=own, tconorm=joined, scale=scale, **model)

    numbers = [0.3, member.shape or 0.0, member.shift, conorm.p or 0.0]
    leaves = [torch.tensor(float(n), dtype=torch.float64, requires_grad=True) for n in numbers]
    assert torch.autograd.gradcheck(alpha, [clip.requires_grad_(), *leaves])


@by_member
def test_family_against_the_twin(law: str, rule: str):
    scene = BY_NAME["a mesh through the near plane, orthographic"]
    clip, faces, layout, model = arguments(scene, image_size=(12, 13))
    model |= dict(distribution=law, tconorm=rule)
    own = ops.silhouette(clip, faces, layout, max_error=0.0, **model)
    twin = reference.silhouette(clip, faces, layout, **model)
    assert_close_relative(own, twin, 1e-9)
    cotangent = random_cotangent(twin)
    (got,) = vjp(lambda c: ops.silhouette(c, faces, layout, max_error=0.0, **model), [clip], cotangent)
    (wanted,) = vjp(lambda c: reference.silhouette(c, faces, layout, **model), [clip], cotangent)
    assert_close_relative(got, wanted, 1e-9)


@pytest.mark.parametrize("name", ["sliver", "octahedron", "one corner behind the near plane", "tiny triangle"])
@by_form
def test_culling_moves_alpha_by_no_more_than_max_error(name: str, squared: bool):
    # A sliver's product decays slowly along its length: what is left out is bounded by a line, not by a distance.
    clip, faces, layout, model = arguments(BY_NAME[name], squared=squared, image_size=(40, 40))
    model |= dict(scale=4e-4 if squared else 0.02, distribution="logistic.squared" if squared else "logistic")
    exact, near = (ops.silhouette(clip, faces, layout, max_error=e, **model) for e in (0.0, 1e-3))
    assert float((exact - near).abs().max()) <= 1e-3
    assert (near == 0).any()


def test_same_bits_on_any_number_of_threads():
    from tests.ops.test_silhouette_op import spheres

    clip, faces, layout = spheres(2)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            leaf = clip.clone().requires_grad_()
            alpha = ops.silhouette(leaf, faces, layout, scale=0.02, image_size=(70, 61), coverage="edges")
            results.append((alpha.detach(), torch.autograd.grad(alpha.square().sum(), leaf)[0]))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


def test_renderer_and_messages():
    mesh, camera = gd.icosphere(1), gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)
    edges = gd.Renderer(16, scale=0.05, coverage="edges", max_error=0.0)(mesh, camera).alpha
    twin = gd.Renderer(16, scale=0.05, coverage="edges", backend="reference")(mesh, camera).alpha
    assert_close_relative(edges, twin, rounding_bound(torch.float32, 100))
    faces = gd.Renderer(16, scale=0.05)(mesh, camera).alpha
    assert float((edges - faces).abs().max()) > 0.01
    scene = BY_NAME["octahedron"]
    clip, index, layout, model = arguments(scene)
    for function in (ops.silhouette, reference.silhouette):
        with pytest.raises(ValueError, match="silhouette: `coverage` must be one of faces, edges"):
            function(clip, index, layout, **(model | {"coverage": "contour"}))


@pytest.mark.parametrize("far", [1e3, 1e9, 1e15])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("function", [ops.silhouette, reference.silhouette])
def test_corners_far_away(function, dtype: torch.dtype, far: float) -> None:
    """Both lines through a corner in the image count, however far away they end; exact, by fractions."""
    corners = torch.tensor([[0.078125, 0.0625], [1.5, -1.375], [0.25, -1.25]], dtype=dtype)
    corners[1:] *= far
    clip = torch.cat([corners, torch.ones(3, 2, dtype=dtype)], 1)
    view = {"scale": 0.05, "image_size": (5, 6), "coverage": "edges", "tconorm": "maximum", "distribution": "logistic"}
    alpha = function(clip, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]), **view)[0]
    assert float(alpha.max()) > 0.5 and float(alpha.min()) < 1e-3
    exact = [[Fraction(float(c)) for c in corner] for corner in corners]
    for row in range(5):
        for column in range(6):
            x, y = Fraction(2 * column + 1 - 6, 5), Fraction(4 - 2 * row, 5)
            inside = 1.0
            for k in range(3):
                (ax, ay), (bx, by) = exact[k], exact[(k + 1) % 3]
                side = (by - ay) * (x - ax) - (bx - ax) * (y - ay)  # the corners go clockwise
                inside /= 1 + math.exp(min(-float(side) / math.hypot(float(bx - ax), float(by - ay)) / 0.05, 700.0))
            assert abs(float(alpha[row, column]) - inside) < 64 * torch.finfo(dtype).eps / 0.05 + 1e-4
