# SPDX-License-Identifier: Apache-2.0
"""The contour twin: distance transforms of fine masks, convolved edges, finite differences, and its invariances."""

import pytest
import torch

from geodiff import soft
from geodiff.reference.contour import contour, contour_distance
from geodiff.reference.outline import edge_cycles
from tests.contour_scenes import SHAPES, transformed_mask
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, rounding_bound, vjp
from tests.scenes import BY_NAME, SCENES, Scene, orthographic

# Their faces gain an area when a vertex moves, or coincide, or have a pixel on a vertex: no derivative there.
SMOOTH = [s for s in [*SCENES, *SHAPES] if not s.kink and not s.ties and "abut" not in s.name]
ONE = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])


def render(scene: Scene, clip=None, scale=None, distribution="logistic", **more) -> torch.Tensor:
    own, faces, layout = scene.tensors()
    law = soft.as_distribution(distribution)
    scale = (scene.scale**2 if law.is_squared else scene.scale) if scale is None else scale
    model = dict(distribution=law, scale=scale, image_size=scene.image_size, near=scene.near)
    return contour(own if clip is None else clip, faces, layout, **model, **more)


@pytest.mark.parametrize("scene", SHAPES, ids=lambda s: s.name)
def test_distance_is_that_of_the_fine_mask(scene: Scene):
    expected, off = transformed_mask(scene, 45)
    distance = contour_distance(*scene.tensors(), image_size=scene.image_size, near=scene.near)
    # The fine mask ends an image away: what is nearer than that is the whole outline's distance.
    assert float(expected.abs().max()) < 1.9
    assert float((distance - expected).abs().max()) < off


@pytest.mark.parametrize("scene", SMOOTH, ids=lambda s: s.name)
@pytest.mark.parametrize("law", ["logistic", "cauchy.squared"])
def test_gradient_in_vertices_and_scale_is_the_derivative(scene: Scene, law: str):
    squared = soft.as_distribution(law).is_squared
    scale = torch.tensor(scene.scale**2 if squared else scene.scale, dtype=torch.float64)

    def alpha(clip: torch.Tensor, relative: torch.Tensor) -> torch.Tensor:
        return render(scene, clip, scale * relative, law)

    assert_gradient_is_derivative(alpha, [scene.tensors()[0], torch.ones_like(scale)], scene.step, directions=2)


def test_gradient_in_the_shape_of_the_distribution_is_the_derivative():
    def alpha(shape: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        return render(BY_NAME["octahedron"], distribution=soft.Gamma(shape).reversed().shifted(shift))

    assert_gradient_is_derivative(alpha, [torch.tensor(v, dtype=torch.float64) for v in (1.3, 0.4)], 1e-6)


@pytest.mark.parametrize(
    "law", ["logistic", "gaussian", "cauchy", "uniform", "gumbel_max", "exponential.reversed", "gamma(2)"]
)
def test_a_straight_edge_is_the_mask_convolved_with_the_density(law: str):
    clip = orthographic([[-4000.0, -3000.0, 2.0], [4000.2, 3000.3, 2.0], [-4000.0, 5000.0, 2.0]])
    tau, size = 0.07, (9, 9)
    distance = contour_distance(clip, *ONE, image_size=size)
    alpha = contour(clip, *ONE, distribution=law, scale=tau, image_size=size)
    # A draw u of the density moves the edge by τ·u: alpha is the share of draws that leave the pixel inside. Midpoints
    # of equal shares of probability; each share is 1/20000.
    member = soft.as_distribution(law)
    shares = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    draws = member.quantile(shares) * tau
    expected = (distance.reshape(-1, 1) >= draws).double().mean(dim=1).reshape(alpha.shape)
    assert 0.05 < float(alpha.mean()) < 0.95
    assert float((alpha - expected).abs().max()) < 1 / 20000


@pytest.mark.parametrize("name", ["octahedron", "wide image", "one corner behind the near plane"])
def test_tessellation_does_not_matter(name: str):
    scene = BY_NAME[name]
    clip, faces, layout = scene.tensors()
    model = dict(scale=scene.scale, image_size=scene.image_size, near=scene.near)
    alpha = contour(clip, faces, layout, **model)
    middles = clip[faces].mean(dim=1)
    centre = len(clip) + torch.arange(len(faces))
    finer = torch.cat([torch.stack([faces[:, i], faces[:, (i + 1) % 3], centre], dim=1) for i in range(3)])
    number = torch.tensor([[0, 0, len(finer)]])
    assert_close_relative(contour(torch.cat([clip, middles]), finer, number, **model), alpha, 1e-9)
    # Unwelded, in another order, wound the other way.
    loose = torch.cat([clip, middles])[finer].flip(0, 1)
    apart = torch.arange(3 * len(finer)).reshape(-1, 3)
    assert_close_relative(contour(loose.reshape(-1, 4), apart, number, **model), alpha, 1e-9)


def test_a_crossing_moves_with_both_edges():
    """At the inner corner of an L of two strips, d² = (x−X)² + (y−Y)²: X is of one strip, Y of the other."""
    clip = orthographic(
        [
            [-3.0, -3.0, 2.0], [0.3, -3.0, 2.0], [0.3, 3.0, 2.0], [-3.0, 3.0, 2.0],
            [-3.1, -3.2, 2.5], [3.2, -3.2, 2.5], [3.2, -0.2, 2.5], [-3.1, -0.2, 2.5],
        ]
    )  # fmt: skip
    faces, layout = torch.tensor([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]), torch.tensor([[0, 0, 4]])
    size = (4, 4)  # the pixel of row 3, column 1 is at (−0.25, −0.75)

    def pixel(c: torch.Tensor) -> torch.Tensor:
        return contour_distance(c, faces, layout, image_size=size)[0, 3, 1]

    dx, dy = 0.3 + 0.25, -0.2 + 0.75
    assert abs(float(pixel(clip)) - (dx * dx + dy * dy) ** 0.5) < 1e-12
    (gradient,) = vjp(pixel, [clip], torch.tensor(1.0, dtype=torch.float64))
    along = (-0.2 + 3.0) / 6.0
    size_ = (dx * dx + dy * dy) ** 0.5
    assert torch.allclose(gradient[1:3, 0], torch.tensor([1 - along, along]).double() * (dx / size_))
    assert torch.allclose(gradient[6:, 1].sum(), torch.tensor(dy / size_).double())
    assert float(gradient[:4, 1].abs().max()) < 1e-12 and float(gradient[4:, 0].abs().max()) < 1e-12


def test_float32_is_float64_rounded():
    for scene in SHAPES:
        clip, faces, layout = scene.tensors(torch.float32)
        model = dict(scale=scene.scale, image_size=(24, 24), near=scene.near)
        small = contour(clip, faces, layout, **model)
        assert small.dtype == torch.float32
        assert_close_relative(small, contour(clip.double(), faces, layout, **model), rounding_bound(torch.float32, 20))


@pytest.mark.parametrize("name", ["empty mesh", "only degenerate faces", "one face behind the camera", "no images"])
def test_nothing_to_see(name: str):
    scene = BY_NAME[name]
    clip = scene.tensors()[0].requires_grad_()
    alpha = render(scene, clip)
    assert alpha.shape == (len(scene.layout), *scene.image_size)
    if not any(scene.drawn):
        assert (alpha == 0).all()
    gradient = torch.autograd.grad(alpha.sum() + 0 * clip.sum(), clip)[0]
    assert torch.isfinite(gradient).all()


def test_edge_cycles():
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [1, 2, 4], [5, 5, 6], [0, 1, 2], [2, 1, 3]])
    layout = torch.tensor([[0, 0, 4], [7, 4, 2], [20, 0, 2]])
    # Faces 0, 1 and 2 share an edge; face 3 is not proper; faces 4 and 5 are of another mesh.
    assert edge_cycles(faces, layout).tolist() == [
        [0, 3, 2],
        [6, 4, 5],
        [1, 7, 8],
        [9, 10, 11],
        [12, 15, 14],
        [13, 16, 17],
    ]
    assert edge_cycles(faces[:0]).shape == (0, 3)
