# SPDX-License-Identifier: Apache-2.0
"""Coverage models of one's own: their pictures, gradients, batches and backends, and what is said of wrong ones."""

import math
import pickle
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.render import Contour, Coverage, Edges, Faces, Softness, View
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, rounding_bound
from tests.lit_scenes import DOUBLE, bumpy, camera

EYES = camera(azimuth_deg=torch.tensor([30.0, 110.0], dtype=DOUBLE))
COLORS = torch.linspace(0, 1, 126, dtype=DOUBLE).reshape(42, 3)


class Between(Coverage):
    """The mean of two models: nothing but an alpha."""

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        return (Faces().alpha(view, softness) + Contour().alpha(view, softness)) / 2


class WithReach(Between):
    def reach(self, view: View, softness: Softness) -> float:
        return softness.reach(view)


def between(view: View, softness: Softness) -> torch.Tensor:
    return Between().alpha(view, softness)


@pytest.mark.parametrize("distribution", ["logistic", "uniform", "cauchy"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_whatever_the_contour_covers_has_a_color(distribution: str, dtype: torch.dtype) -> None:
    mesh = gd.icosphere(3).to(dtype=dtype)
    mesh = mesh.with_attributes(vertex_colors=torch.ones_like(mesh.vertices))
    for law in (distribution, gd.soft.as_distribution(distribution).squared()):
        render = gd.Renderer(32, law, scale_px=0.7, coverage="contour", outputs="rgb")
        out = render(mesh, camera().to(dtype=dtype))
        assert ((out.alpha > 0) & (out.alpha < 0.5)).any()
        assert_close_relative(out.rgb, out.alpha[..., None].expand_as(out.rgb), 1e2 * torch.finfo(dtype).eps, "rgb")


def scene(kind: str) -> tuple[Any, gd.Camera]:
    ball = bumpy(vertex_colors=COLORS)
    if kind == "mesh":
        return ball, camera()
    if kind == "batch":
        return ball.with_vertices(torch.stack([ball.vertices, 0.7 * ball.vertices])), EYES
    return gd.MeshBatch([ball, ball.with_vertices(0.7 * ball.vertices)]), EYES


def render(coverage: Any, **options: Any) -> gd.Renderer:
    made = gd.Renderer((9, 11), coverage=coverage, **{"scale": 0.05, "outputs": ("rgb", "depth"), **options})
    made.warn_of_bias = False
    return made


@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("kind", ["mesh", "batch", "mesh batch"])
def test_the_picture_is_that_of_the_model(kind: str, backend: str) -> None:
    mesh, eye = scene(kind)
    faces, contour = (render(name, backend=backend, outputs="alpha")(mesh, eye).alpha for name in ("faces", "contour"))
    for coverage in (Between(), Between, between, WithReach()):
        alpha = render(coverage, backend=backend, outputs="alpha")(mesh, eye).alpha
        assert torch.equal(alpha, (faces + contour) / 2)


@pytest.mark.parametrize("depth", ["hard", "softmax"])
@pytest.mark.parametrize("kind", ["mesh", "mesh batch"])
def test_colours_are_found_as_far_as_alpha_goes(kind: str, depth: str) -> None:
    mesh, eye = scene(kind)
    white = [own.with_attributes(vertex_colors=torch.ones_like(COLORS)) for own in ([mesh] if kind == "mesh" else mesh)]
    mesh = white[0] if kind == "mesh" else gd.MeshBatch(white)
    for coverage in (Between(), WithReach(), "faces", "edges"):
        out = render(coverage, depth=depth, max_fragments=None)(mesh, eye)
        # A white mesh on black: but for rounding, only where alpha is below `max_error` may a colour be missing.
        assert float((out.rgb - out.alpha[..., None]).abs().max()) <= 1e-4 * (1 + 1e-6)


def test_everywhere_half() -> None:
    """Alpha where there is no face near: the search for colours goes on over the whole image."""

    def half(view: View, _: Softness) -> torch.Tensor:
        return torch.full((view.images, *view.image_size), 0.5, dtype=view.clip.dtype)

    mesh, eye = scene("mesh")
    out = render(half, distribution="heaviside")(mesh.with_attributes(vertex_colors=torch.ones_like(COLORS)), eye)
    assert_close_relative(out.rgb, torch.full((9, 11, 3), 0.5, dtype=DOUBLE), rounding_bound(DOUBLE))
    assert torch.isinf(out.depth).any()  # no map but rgb has a rim


@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("depth", ["hard", "softmax"])
def test_gradients_are_derivatives(depth: str, backend: str) -> None:
    ball = bumpy(vertex_colors=COLORS)
    fragments = {"max_fragments": 80, "outputs": "rgb", "max_error": 0.0}

    def picture(vertices: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        made = render(Between(), scale=scale, depth=depth, backend=backend, **fragments)
        return made(ball.with_vertices(vertices), camera()).rgb

    scale = torch.tensor(0.1, dtype=DOUBLE)
    assert_gradient_is_derivative(picture, [ball.vertices, scale], 1e-6, relative=1e-4, directions=2)


def test_names_are_the_classes() -> None:
    mesh, eye = scene("mesh")
    for name, model in (("faces", Faces), ("edges", Edges()), ("contour", Contour)):
        assert torch.equal(render(name)(mesh, eye).rgb, render(model)(mesh, eye).rgb)
        assert gd.Renderer(4, coverage=model).warn_of_bias == gd.Renderer(4, coverage=name).warn_of_bias
    assert repr(gd.Renderer(4, coverage=Between())).endswith("coverage=Between())")
    assert repr(gd.Renderer(4, coverage="edges")).endswith("coverage='edges')")


def test_a_biased_model_of_ones_own_is_warned_of() -> None:
    class Biased(Between):
        is_biased = True

    mesh, _ = scene("mesh")
    eye = gd.Camera.orbit(torch.tensor(2.7, dtype=DOUBLE, requires_grad=True))
    gd.Renderer(4, coverage=Between())(mesh, eye)
    with pytest.warns(UserWarning, match=r"coverage=Biased\(\) makes the mesh fatter"):
        gd.Renderer(4, coverage=Biased())(mesh, eye)


def test_what_is_no_coverage_is_named() -> None:
    for wrong in (3, None, int, 0.5):
        with pytest.raises(
            TypeError, match=r"Renderer: `coverage` must be one of faces, edges, contour, hard, antialiased, a geodiff"
        ):
            gd.Renderer(4, coverage=wrong)

    class Nothing(Coverage):
        pass

    with pytest.raises(NotImplementedError, match=r"Nothing needs a method alpha\(view, softness\)"):
        gd.Renderer(4, coverage=Nothing)(*scene("mesh"))


@pytest.mark.parametrize(
    ("alpha", "error"),
    [
        (torch.zeros(4, 4, dtype=DOUBLE), ValueError),
        (torch.zeros(1, 4, 5, dtype=DOUBLE), ValueError),
        (torch.zeros(1, 4, 4), TypeError),
        (0.5, TypeError),
        (None, TypeError),
    ],
    ids=["no batch", "size", "dtype", "number", "nothing"],
)
def test_wrong_alphas_are_named(alpha: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"`coverage` must be a model whose alpha is float64 of shape \(1, 4, 4\); got"):
        gd.Renderer(4, coverage=lambda *_: alpha)(*scene("mesh"))


@pytest.mark.parametrize("reach", [-1.0, math.nan, "far"])
def test_wrong_reaches_are_named(reach: Any) -> None:
    class Wrong(Between):
        def reach(self, view: View, softness: Softness) -> Any:
            return reach

    with pytest.raises(ValueError, match=r"`coverage` must be a model whose reach is a number ≥ 0 or None; got"):
        gd.Renderer(4, coverage=Wrong, outputs="rgb")(*scene("mesh"))


def test_the_view_says_what_is_seen() -> None:
    seen: list[tuple[View, Softness]] = []

    def looking(view: View, softness: Softness) -> torch.Tensor:
        seen.append((view, softness))
        return Contour().alpha(view, softness)

    for kind, meshes, images in (("mesh", 1, ()), ("batch", 1, (2,)), ("mesh batch", 2, (2,))):
        mesh, eye = scene(kind)
        gd.Renderer(4, "cauchy", 0.1, coverage=looking, supersample=3)(mesh, eye)
        view, softness = seen[-1]
        assert view.mesh is mesh and view.camera is eye and view.batch == images and view.image_size == (12, 12)
        assert view.most_faces == 80 and view.clip.shape == (view.images * 42, 4) and len(view.faces) == 80 * meshes
        assert isinstance(softness.distribution, gd.soft.Cauchy) and softness.scale == 0.1
        assert "tensor(" not in repr(view) and torch.equal(pickle.loads(pickle.dumps(view)).clip, view.clip)
        assert_close_relative(
            view.ops.contour(*view.packed, **view.frame, distribution="cauchy", scale=0.1, edges=view.edge_cycles),
            Contour().alpha(view, softness),
            rounding_bound(DOUBLE),
        )
