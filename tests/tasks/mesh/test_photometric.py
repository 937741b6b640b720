# SPDX-License-Identifier: Apache-2.0
"""Where photographs agree on colours, the surface is."""

import math

import pytest
import torch

import geodiff as gd
from geodiff.tasks.mesh.photometric import blurred, consistent

EYES = gd.Camera.orbit(2.6, torch.linspace(-45, 50, 14), torch.arange(14) * 137.5 % 360, fov_deg=32)
PIXEL = 2.1 * math.tan(math.radians(16)) * 2 / 96


def paint(p: torch.Tensor) -> torch.Tensor:
    x, y, z = (16 * p).unbind(-1)
    return 0.5 + 0.4 * torch.stack([torch.sin(x + torch.sin(y)), torch.cos(y - z), torch.sin(1.3 * z + x)], -1)


def photographs(mesh: gd.Mesh, cameras: gd.Camera) -> gd.PosedImages:
    mesh = mesh.with_attributes(vertex_colors=paint(mesh.vertices))
    out = gd.Renderer(96, coverage="hard", outputs="rgb", supersample=3)(mesh, cameras)
    return gd.PosedImages((out.rgb / out.alpha.clamp_min(1e-6)[..., None]).clamp(0, 1), out.alpha.clamp(0, 1), cameras)


def dented(ball: gd.Mesh) -> gd.Mesh:
    """A ball with a dent, which no outline shows."""
    away = (ball.vertices - torch.tensor([0.0, 0.0, 0.5])).norm(dim=-1, keepdim=True)
    return ball.with_vertices(ball.vertices * (1 - 0.12 * torch.exp(-((away / 0.2) ** 2))))


@pytest.mark.parametrize("kind", ["far", "orthographic"])
def test_a_dent(kind: str) -> None:
    ball = gd.icosphere(4, 0.5)
    scale = 1e3 if kind == "far" else 1.0
    eyes = EYES
    if kind == "orthographic":
        eyes = gd.Camera.orthographic(EYES.position, extent=1.2)
    true = dented(ball)
    posed = photographs(true, eyes)
    if kind == "far":
        eyes = gd.Camera(EYES.rotation, EYES.translation * scale, EYES.focal, EYES.principal, near=EYES.near * scale)
        posed = gd.PosedImages(posed.images, posed.alpha, eyes)
    found = consistent(ball.with_vertices(ball.vertices * scale), posed)
    off, depth = (ball.vertices - true.vertices).norm(dim=-1), found.vertices.norm(dim=-1) / scale
    error = (depth - true.vertices.norm(dim=-1)).abs()
    assert float(error[off < 1e-4].mean()) < 0.25 * PIXEL
    assert float(error[off > 0.03].mean()) < 0.15 * float(off[off > 0.03].mean())
    assert torch.equal(found.faces, ball.faces) and not len(found.self_intersections())


def test_one_colour_leaves_it() -> None:
    ball = gd.icosphere(4, 0.5)
    posed = photographs(ball, EYES)
    grey = gd.PosedImages(torch.full_like(posed.images, 0.5), posed.alpha, EYES)
    moved = (consistent(ball, grey).vertices - ball.vertices).norm(dim=-1)
    assert float(moved.max()) < 0.4 * PIXEL


def test_blurred() -> None:
    spot = torch.zeros(31, 31, 2)
    spot[15, 15] = torch.tensor([1.0, 2.0])
    image = blurred(spot, 2.0)
    assert torch.allclose(image.sum((0, 1)), torch.tensor([1.0, 2.0]))
    ramp = torch.arange(31.0) - 15
    assert float((image[..., 0].sum(0) * ramp**2).sum()) == pytest.approx(4.0, rel=0.05)
