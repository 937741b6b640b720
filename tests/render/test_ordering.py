# SPDX-License-Identifier: Apache-2.0
"""Compositing in a relaxed order of depth: the exact order in the limit, gradients through the order, the renderer."""

import math
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff.render import front_to_back

D = torch.float64
DRAW = torch.Generator().manual_seed(1)
OPACITY, DEPTH = (torch.rand(20, 6, generator=DRAW, dtype=D) for _ in range(2))
EYE = gd.Camera.orbit(2.7, 20.0, 37.0, fov_deg=50.0)


def exactly(opacity: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """Each fragment through all that lie before it, one after another."""
    weight = torch.zeros_like(opacity)
    for row in range(len(opacity)):
        light = 1.0
        for i in depth[row].argsort().tolist():
            if math.isfinite(depth[row, i]):
                weight[row, i] = light * opacity[row, i]
                light = light * (1 - opacity[row, i])
    return weight


def test_limit_is_the_exact_order() -> None:
    depth = DEPTH.clone()
    depth[:, 4:] = torch.inf
    for there in (DEPTH, depth):
        exact = exactly(OPACITY, there)
        errors = [
            float((front_to_back(OPACITY, there, temperature=t) - exact).abs().mean()) for t in (5e-2, 5e-3, 1e-6)
        ]
        assert errors[0] > 3 * errors[1] and errors[2] < 1e-12 and errors[0] < 0.05


def test_properties() -> None:
    weight = front_to_back(OPACITY, DEPTH, temperature=0.05)
    way = torch.randperm(6, generator=DRAW)
    torch.testing.assert_close(front_to_back(OPACITY[:, way], DEPTH[:, way], temperature=0.05), weight[:, way])
    assert weight.min() >= 0 and weight.sum(-1).max() <= 1
    torch.testing.assert_close(front_to_back(OPACITY, 1e3 * DEPTH + 7, temperature=50.0), weight)
    # Of fragments of one depth nothing is lost: together they stop what all of them stop, and clear ones nothing.
    tied = front_to_back(OPACITY, torch.ones_like(DEPTH), temperature=0.1)
    torch.testing.assert_close(1 - tied.sum(-1), (1 - OPACITY).prod(-1))
    clear = torch.tensor([1.0, 0.0, 0.0, 0.0, 1.0])
    beside = front_to_back(clear, torch.tensor([1.0, 1.0, 1.0, 1.0, 9.0]), temperature=0.1)
    torch.testing.assert_close(beside, torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0]))
    assert front_to_back(torch.zeros(2, 0), torch.zeros(2, 0), temperature=1.0).shape == (2, 0)
    none = front_to_back(torch.ones(3), torch.full((3,), torch.inf), temperature=1.0)
    assert none.eq(0).all()


def test_gradients() -> None:
    a, z = OPACITY[:2].clone().requires_grad_(), DEPTH[:2].clone().requires_grad_()
    t = torch.tensor(0.1, dtype=D, requires_grad=True)
    assert gradcheck(lambda a, z, t: front_to_back(a, z, temperature=t), (a, z, t))
    solid = torch.ones(4, requires_grad=True)
    depth = torch.tensor([1.0, 1.0, 2.0, torch.inf], requires_grad=True)
    slopes = torch.autograd.grad(front_to_back(solid, depth, temperature=0.1)[0], (solid, depth))
    assert all(torch.isfinite(slope).all() for slope in slopes)


def panes(depths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Three panes across the view, red, green and blue, at these depths; the camera is at 0 and looks along them."""
    corner = torch.tensor([[-9.0, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]], dtype=D)
    vertices = torch.cat([corner - torch.nn.functional.pad(z.reshape(1), (2, 0)) for z in depths])
    faces = torch.cat([torch.tensor([[0, 1, 2], [0, 2, 3]]) + 4 * i for i in range(3)])
    return vertices, faces


def test_panes_learn_their_order_from_an_image() -> None:
    # The image says which pane is in front; no pixel moves, so only the order can tell. The hard order has no gradient.
    eye = gd.Camera.look_at((0.0, 0.0, 0.0), (0.0, 0.0, -1.0), fov_deg=50.0).to(D)
    colors, opacity = torch.eye(3, dtype=D), torch.full((3,), 0.6, dtype=D)

    def image(depths: torch.Tensor, temperature: float) -> torch.Tensor:
        vertices, faces = panes(depths)
        seen = gd.fragments(gd.Mesh(vertices, faces), eye, 2, k=6)
        weight = front_to_back(opacity[seen.face_id.clamp(min=0) // 2] * seen.mask, seen.depth, temperature=temperature)
        return (weight[..., None] * colors[seen.face_id.clamp(min=0) // 2]).sum(-2)

    target = image(torch.tensor([2.0, 3.0, 4.0], dtype=D), 1e-6)
    assert target[0, 0].tolist() == pytest.approx([0.6, 0.24, 0.096], abs=1e-9)
    depths = torch.tensor([4.0, 3.2, 2.0], dtype=D, requires_grad=True)
    optimizer = torch.optim.Adam([depths], lr=0.05)
    for step in range(150):
        optimizer.zero_grad()
        loss = (image(depths, 1.0 * 0.97**step) - target).square().sum()
        loss.backward()
        optimizer.step()
    assert depths.argsort().tolist() == [0, 1, 2]
    torch.testing.assert_close(image(depths.detach(), 1e-6), target)
    hard = image(depths.detach().flip(0), 1e-9)
    assert float((hard - target).abs().max()) > 0.3


@pytest.mark.parametrize("coverage", ["faces", "edges", "contour"])
def test_renderer_in_a_relaxed_order(coverage: str) -> None:
    colors = torch.rand(80, 3, generator=DRAW, dtype=D)
    mesh = gd.icosphere(1).to(D).with_attributes(face_colors=colors)
    options: dict[str, Any] = {"scale": 0.02, "coverage": coverage, "outputs": ("rgb", "depth", "normal", "face_id")}
    options["max_fragments"] = None  # which one is the eighth is a matter of rounding
    out = gd.Renderer(12, depth="sort", gamma=1e-2, **options)(mesh, EYE.to(D))
    twin = gd.Renderer(12, depth="sort", gamma=1e-2, backend="reference", **options)(mesh, EYE.to(D))
    for name in ("alpha", "rgb", "depth", "normal"):
        torch.testing.assert_close(getattr(out, name), getattr(twin, name), rtol=0, atol=1e-4)
    assert torch.isfinite(out.rgb).all() and out.rgb.max() <= 1
    # Hard edges and a hard order: what is seen is the nearest face, as with the hard depth.
    options["scale"] = 1e-5
    hard = gd.Renderer(12, **options)(mesh, EYE.to(D))
    sharp = gd.Renderer(12, depth="sort", gamma=1e-6, **options)(mesh, EYE.to(D))
    inside = (hard.face_id >= 0) & ((sharp.alpha == 1) if coverage != "edges" else (sharp.alpha > 0.999))
    assert inside.sum() > 20
    torch.testing.assert_close(sharp.rgb[inside], hard.rgb[inside], rtol=0, atol=1e-5)
    torch.testing.assert_close(sharp.depth[inside], hard.depth[inside], rtol=0, atol=1e-5)


def test_renderer_composites_as_the_formula_says() -> None:
    # Triangles without common edges, on which depths would tie.
    corners = torch.randn(6, 3, 3, generator=DRAW, dtype=D) * 0.7
    colors = torch.rand(6, 3, generator=DRAW, dtype=D)
    mesh = gd.Mesh(corners.reshape(18, 3), torch.arange(18).reshape(6, 3)).with_attributes(face_colors=colors)
    options: dict[str, Any] = {"max_fragments": None, "max_error": 1e-9, "outputs": ("rgb",)}
    out = gd.Renderer(8, scale=0.05, depth="sort", gamma=1e-9, **options)(mesh, EYE.to(D))
    seen = gd.fragments(mesh, EYE.to(D), 8, k=6, blur=4.0)
    weight = exactly(torch.sigmoid(seen.distance / 0.05).reshape(-1, 6), seen.depth.reshape(-1, 6))
    expected = (weight[..., None] * colors[seen.face_id.clamp(min=0)].reshape(-1, 6, 3)).sum(-2).reshape(8, 8, 3)
    torch.testing.assert_close(out.rgb, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(out.alpha.reshape(-1), weight.sum(-1), rtol=0, atol=1e-6)  # the probabilistic T-conorm


def test_renderer_has_gradients_through_the_order() -> None:
    mesh = gd.icosphere(0).to(D).with_attributes(face_colors=torch.rand(20, 3, generator=DRAW, dtype=D))
    gamma = torch.tensor(0.05, dtype=D, requires_grad=True)
    scale = torch.tensor(0.05, dtype=D, requires_grad=True)

    def rendered(shift: torch.Tensor, gamma: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        render = gd.Renderer(4, scale=scale, depth="sort", gamma=gamma, max_fragments=None, outputs=("rgb",))
        return render(mesh.with_vertices(mesh.vertices + shift), EYE.to(D)).rgb

    shift = (0.05 * torch.randn(12, 3, generator=DRAW, dtype=D)).requires_grad_()
    assert gradcheck(rendered, (shift, gamma, scale), fast_mode=True, atol=1e-4, eps=1e-7)
    none = gd.Renderer(4, depth="sort", outputs=("rgb",))(
        mesh, gd.Camera.look_at((0.0, 0, 9), (9.0, 0, 9), fov_deg=9).to(D)
    )
    assert none.rgb.abs().max() < 1e-6


@pytest.mark.parametrize("temperature", [1e-3, 0.3])
def test_what_is_transparent_can_gain(temperature: float) -> None:
    opacity = torch.tensor([0.0, 0.5, 0.0, 0.0], dtype=D, requires_grad=True)
    depth = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=D)
    total = front_to_back(opacity, depth, temperature=temperature).sum()
    (slope,) = torch.autograd.grad(total, opacity)
    step, ahead = 1e-6, []  # into the range, one side only: an error of the order of the step
    for i in range(4):
        moved = opacity.detach() + step * torch.eye(4, dtype=D)[i]
        ahead.append((front_to_back(moved, depth, temperature=temperature).sum() - total.detach()) / step)
    torch.testing.assert_close(slope, torch.stack(ahead), rtol=1e-4, atol=1e-4)
    none = torch.zeros(3, dtype=D, requires_grad=True)
    (slope,) = torch.autograd.grad(front_to_back(none, depth[:3], temperature=temperature).sum(), none)
    # What is nearly transparent hides nothing: all ranks count in full.
    torch.testing.assert_close(slope, gd.soft.sort_matrix(depth[:3], temperature=temperature).sum(0))


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"opacity": [0.5]}, TypeError, "`opacity` must be a tensor"),
    ({"opacity": OPACITY + 1}, ValueError, r"`opacity` must be in \[0, 1\]"),
    ({"opacity": OPACITY * math.nan}, ValueError, "`opacity` must be finite"),
    ({"depth": DEPTH[:, :3]}, ValueError, "`depth` must be of shape"),
    ({"depth": DEPTH * math.nan}, ValueError, "`depth` must be a number, or infinite"),
    ({"temperature": 0.0}, ValueError, "`temperature` must be positive"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match="front_to_back: " + message):
        front_to_back(**{"opacity": OPACITY, "depth": DEPTH, "temperature": 0.1, **change})


def test_bad_renderers() -> None:
    with pytest.raises(ValueError, match="`depth` must be 'hard' with coverage='hard'; got sort"):
        gd.Renderer(8, coverage="hard", depth="sort")
    with pytest.raises(ValueError, match="`depth` must be one of hard, softmax, sort"):
        gd.Renderer(8, depth="sorted")
    with pytest.raises(ValueError, match=r"`background_depth` must be in .* only with depth='softmax'"):
        gd.Renderer(8, depth="sort", background_depth=0.0)
