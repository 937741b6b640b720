# SPDX-License-Identifier: Apache-2.0
"""Presets against the formulas of their papers, written out over all pairs of pixels and faces."""

import pytest
import torch

import geodiff as gd
from geodiff.reference.arguments import pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from geodiff.render.view import pack

SIZE = (14, 17)
EYE = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)


def pairs(mesh: gd.Mesh) -> tuple[torch.Tensor, torch.Tensor]:
    """Signed distance and depth of the nearest point for all pixels and faces, `(H·W, F)`."""
    clip, faces, _ = pack("test", mesh, EYE, SIZE).packed
    corners = clip[faces.long()]
    distance = signed_distance(pixel_centres(SIZE, clip), near_clip(corners, EYE.near))
    seen = gd.fragments(mesh, EYE, SIZE, k=mesh.num_faces, blur=10.0)
    order = seen.face_id.reshape(-1, mesh.num_faces).argsort(dim=1)
    return distance, seen.depth.reshape(-1, mesh.num_faces).gather(1, order)


@pytest.mark.parametrize(("sigma", "gamma"), [(1e-2, 1e-1), (1e-4, 1e-4), (1e-3, 1e-6)])
def test_softras_is_its_formulas(sigma: float, gamma: float):
    mesh = gd.icosphere(1).to(dtype=torch.float64)
    colors = torch.rand(mesh.num_faces, 3, dtype=torch.float64)
    background = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    render = gd.presets.softras(
        SIZE, sigma, gamma, outputs="rgb", background=background, max_fragments=mesh.num_faces, max_error=0.0
    )
    out = render(mesh.with_attributes(face_colors=colors), EYE)
    distance, depth = pairs(mesh)
    x = distance * distance.abs() / sigma
    silhouette = 1 - torch.sigmoid(-x).prod(dim=1)
    assert float((out.alpha.reshape(-1) - silhouette).abs().max()) < 1e-5
    # A·exp(z/γ) as one exponential, since exp(z/γ) alone is beyond all numbers.
    exponents = torch.nn.functional.logsigmoid(x) + (100.0 - depth) / 99.0 / gamma
    exponents = torch.cat([exponents, torch.full((len(x), 1), 1e-3 / gamma, dtype=torch.float64)], dim=1)
    weight = torch.exp(exponents - exponents.logsumexp(dim=1, keepdim=True))
    rgb = weight @ torch.cat([colors, background[None]])
    assert float((out.rgb.reshape(-1, 3) - rgb).abs().max()) < 1e-5


def test_softras_in_single_precision_and_with_few_fragments():
    mesh = gd.icosphere(2).with_attributes(vertex_colors=torch.rand(162, 3))
    single = gd.presets.softras(SIZE, 1e-3, 1e-2, outputs="rgb", max_fragments=40)(mesh, EYE)
    exact = gd.presets.softras(SIZE, 1e-3, 1e-2, outputs="rgb", max_fragments=320)(mesh.to(dtype=torch.float64), EYE)
    # Forty of 320 faces of largest weight leave out a thousandth of the sum.
    assert float((single.rgb - exact.rgb).abs().max()) < 5e-3


def test_dibr_is_its_formulas():
    mesh = gd.icosphere(1).to(dtype=torch.float64)
    colors = torch.rand(mesh.num_faces, 3, dtype=torch.float64)
    out = gd.presets.dibr(SIZE, 1e-2, outputs="rgb", max_error=0.0)(mesh.with_attributes(face_colors=colors), EYE)
    distance, _ = pairs(mesh)
    soft = 1 - (1 - torch.exp(-(distance**2) / 1e-2)).prod(dim=1)
    covered = (distance >= 0).any(dim=1)
    assert float((out.alpha.reshape(-1) - torch.where(covered, 1.0, soft)).abs().max()) < 1e-12
    hard = gd.rasterize(mesh, EYE, SIZE)
    assert torch.allclose(out.rgb[hard.mask], colors[hard.face_id[hard.mask]])


@pytest.mark.parametrize("name", [name for name in gd.presets.__all__ if name != "lights"])
def test_every_preset_renders_colour_and_gradient(name: str):
    mesh = gd.icosphere(1)
    vertices = mesh.vertices.clone().requires_grad_()
    mesh = mesh.with_attributes(vertex_colors=torch.rand(42, 3)).with_vertices(vertices)
    out = getattr(gd.presets, name)(16, outputs="rgb")(mesh, EYE)
    assert out.rgb.shape == (16, 16, 3)
    (gradient,) = torch.autograd.grad((out.rgb * torch.rand(16, 16, 3)).sum(), vertices)
    assert torch.isfinite(gradient).all() and gradient.any()


def test_presets_take_other_options():
    assert gd.presets.opendr((8, 20), scale=0.3).scale == 0.3
    assert gd.presets.opendr((8, 20)).scale == 2 / 8
    assert gd.presets.softras(8, depth="hard", background_depth=None).depth == "hard"
    assert gd.presets.dibr(8, shading="lambert").shading == "lambert"
