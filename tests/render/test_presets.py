# SPDX-License-Identifier: Apache-2.0
"""Presets against the formulas of their papers, written out over all pairs of pixels and faces."""

import pytest
import torch

import geodiff as gd
from geodiff.reference.arguments import pixel_centres
from geodiff.reference.polygons import line_distances, near_clip, signed_distance
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


@pytest.mark.parametrize("gamma", [0.3, 0.01])
def test_pix2vex_is_its_program(gamma: float):
    """`for face: if it covers the pixel and is nearer than the buffer: buffer = z, pixel = colour`, all faces."""
    mesh = gd.icosphere(1).to(dtype=torch.float64)
    colors = torch.rand(mesh.num_faces, 3, dtype=torch.float64)
    background = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    options = {"outputs": ("rgb", "depth", "face_id"), "max_fragments": None, "max_error": 0.0}
    render = gd.presets.pix2vex(SIZE, 0.03, gamma=gamma, background=background, **options)
    render.warn_of_bias = False
    out = render(mesh.with_attributes(face_colors=colors), EYE)
    clip, faces, _ = pack("test", mesh, EYE, SIZE).packed
    lines, has_line = line_distances(pixel_centres(SIZE, clip), near_clip(clip[faces.long()], EYE.near))
    covered = torch.where(has_line, torch.sigmoid(lines / 0.03), 1.0).prod(-1)
    _, depth = pairs(mesh)
    near, far = clip[:, 2].min(), clip[:, 2].max()
    state = {"z": torch.full_like(depth[:, 0], 2.0), "rgb": background.expand(len(depth), 3)}
    for k in range(mesh.num_faces):
        z = (depth[:, k] - near) / (far - near)
        nearer = gd.soft.lt(z, state["z"], 1 / gamma)
        state = gd.soft.choose(covered[:, k] * nearer, {"z": z, "rgb": colors[k].expand(len(z), 3)}, state)
    assert float((out.rgb.reshape(-1, 3) - state["rgb"]).abs().max()) < 1e-8
    hard = gd.rasterize(mesh, EYE, SIZE)
    if gamma < 0.1:  # in the middle, nearly the hard image
        assert int(out.face_id[7, 8]) == int(hard.face_id[7, 8])
        assert float(out.depth[7, 8]) == pytest.approx(float(hard.depth[7, 8]), rel=0.03)


def test_a_soft_zbuffer_keeps_what_is_behind_a_rim():
    """Half covered by the front, a pixel is half the back's; softmax over depth gives all of it to the front."""
    vertices = torch.tensor([[-9.0, -9, -1], [9, -9, -1], [0, 9, -1], [0, -9, 0], [9, -9, 0], [0, 9, 0]])
    mesh = gd.Mesh(vertices.double(), torch.tensor([[0, 1, 2], [3, 4, 5]]))
    mesh = mesh.with_attributes(face_colors=torch.eye(3, dtype=torch.float64)[:2])
    camera = gd.Camera.look_at((0.0, 0, 3), (0.0, 0, 0), fov_deg=60).to(dtype=torch.float64)
    for order in ([0, 1], [1, 0]):
        faces, colors = mesh.faces[order], mesh.face_colors[order]
        one = gd.Mesh(mesh.vertices, faces).with_attributes(face_colors=colors)
        rgb = gd.Renderer(9, scale=0.05, depth="zbuffer", gamma=0.02, outputs="rgb")(one, camera).rgb
        if order == [0, 1]:
            assert torch.allclose(rgb[4, 4], torch.tensor([0.5, 0.5, 0.0]).double(), atol=1e-2)
        assert torch.allclose(rgb[4, 8], torch.tensor([0.0, 1.0, 0.0]).double(), atol=1e-2)
    vertices = mesh.vertices.clone().requires_grad_()
    gd.Renderer(9, scale=0.05, depth="zbuffer", outputs="rgb")(
        mesh.with_vertices(vertices), camera
    ).rgb.sum().backward()
    assert bool(vertices.grad.isfinite().all()) and float(vertices.grad.abs().sum()) > 0


def test_a_soft_zbuffer_of_a_batch_is_that_of_each():
    eyes = gd.Camera.orbit(2.7, 20.0, torch.tensor([0.0, 70.0], dtype=torch.float64), fov_deg=60)
    meshes = [gd.icosphere(0).to(dtype=torch.float64), gd.box().to(dtype=torch.float64)]
    meshes = [m.with_attributes(vertex_colors=torch.rand(m.num_vertices, 3).double()) for m in meshes]
    render = gd.presets.pix2vex(9, 0.03, outputs=("rgb", "depth", "normal", "face_id"))
    render.warn_of_bias = False
    both, same = render(gd.MeshBatch(meshes), eyes), render(meshes[0], eyes)
    for i, eye in enumerate(eyes):
        for whole, mesh in ((both, meshes[i]), (same, meshes[0])):
            for name in ("rgb", "depth", "normal", "face_id"):
                assert torch.allclose(getattr(whole, name)[i], getattr(render(mesh, eye), name), atol=1e-9), name
