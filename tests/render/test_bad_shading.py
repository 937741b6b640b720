# SPDX-License-Identifier: Apache-2.0
"""Colour and light: what is wrong is named, what is empty is an empty image; threads do not change a bit."""

import math

import pytest
import torch

import geodiff as gd
from tests.lit_scenes import DOUBLE, bumpy, camera, sphere_uv


@pytest.mark.parametrize("depth", ["hard", "softmax"])
def test_a_mesh_behind_the_camera_is_an_empty_image(depth: str):
    vertices = (bumpy().vertices + torch.tensor([0.0, 0.0, 9.0], dtype=DOUBLE)).requires_grad_()
    mesh = gd.Mesh(vertices, bumpy().faces, vertex_colors=torch.rand(42, 3, dtype=DOUBLE))
    eye = gd.Camera.orbit(torch.tensor(3.0, dtype=DOUBLE))
    render = gd.Renderer(6, depth=depth, outputs=("rgb", "depth", "normal", "face_id"), background=(0.1, 0.2, 0.3))
    with pytest.warns(UserWarning, match=r"Renderer: the mesh is wholly behind the camera .*near = 0.01.*empty image"):
        out = render(mesh, eye, gd.DirectionalLight((0, 0, 1)))
    assert not out.alpha.any() and (out.face_id == -1).all() and torch.isinf(out.depth).all()
    assert torch.allclose(out.rgb, torch.tensor([0.1, 0.2, 0.3], dtype=DOUBLE).expand(6, 6, 3), atol=1e-7)
    (gradient,) = torch.autograd.grad(out.rgb.sum() + out.alpha.sum() + out.normal.sum(), vertices)
    assert torch.equal(gradient, torch.zeros_like(gradient))
    pair = gd.MeshBatch([mesh, bumpy(vertex_colors=mesh.vertex_colors.detach())])
    with pytest.warns(UserWarning, match="in 1 of 2 images the mesh is wholly behind"):
        assert gd.Renderer(6, depth=depth, outputs="rgb")(pair, eye).rgb[1].any()
    with pytest.warns(UserWarning, match="rasterize: the mesh is wholly behind the camera"):
        assert not gd.rasterize(mesh, eye, 6).mask.any()
    with pytest.warns(UserWarning, match="fragments: the mesh is wholly behind the camera"):
        assert not gd.fragments(mesh, eye, 6).mask.any()


def test_an_empty_mesh_is_an_empty_image_without_a_warning():
    nothing = gd.Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    for depth in ("hard", "softmax"):
        out = gd.Renderer(4, depth=depth, outputs=("rgb", "depth", "normal"), background=(1, 0, 0))(nothing, camera())
        assert torch.equal(out.rgb[0, 0].float(), torch.tensor([1.0, 0, 0])) and torch.isinf(out.depth).all()


SUN = gd.DirectionalLight((0.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"gamma": 0.0}, ValueError, "Renderer: `gamma` must be positive and finite; got 0.0"),
        ({"gamma": -1.0}, ValueError, "Renderer: `gamma` must be positive and finite; got -1.0"),
        ({"gamma": "hard"}, TypeError, "Renderer: `gamma` must be a positive number; got str 'hard'"),
        ({"gamma": torch.ones(2)}, ValueError, "Renderer: `gamma` must be a number or a tensor with one element"),
        ({"shading": "blinn"}, ValueError, "Renderer: `shading` must be one of unlit, lambert, gouraud, phong"),
        ({"normals": "soft"}, ValueError, "Renderer: `normals` must be one of smooth, flat"),
        (
            {"depth": "soft"},
            ValueError,
            "Renderer: `depth` must be one of hard, softmax, sort, zbuffer; got 'soft'. Did you mean 'sort'",
        ),
        ({"depth_range": (2.0, 1.0)}, ValueError, r"Renderer: `depth_range` must be \(near, far\) with 0 < near < far"),
        ({"depth_range": 2.0}, ValueError, r"Renderer: `depth_range` must be \(near, far\)"),
        (
            {"background": (1.0, 1.0)},
            ValueError,
            r"Renderer: `background` must be a colour \(3,\) or an image \(..., 8",
        ),
        (
            {"background": torch.zeros(8, 9, 3)},
            ValueError,
            r"`background` must be .*\(..., 8, 8, 3\), of the size of the images; got float32 of shape \(8, 9, 3\)",
        ),
        ({"background": (math.nan, 0.0, 0.0)}, ValueError, "Renderer: `background` must be finite"),
        (
            {"background_depth": 0.5},
            ValueError,
            r"`background_depth` must be in \[0, 1\], and only with depth='softmax'",
        ),
        ({"depth": "softmax", "background_depth": 2.0}, ValueError, r"`background_depth` must be in \[0, 1\]"),
        ({"outputs": ("rgb", "colour")}, ValueError, "Renderer: `outputs` must be one of alpha, rgb, depth, normal"),
        ({"supersample": 0}, ValueError, "Renderer: `supersample` must be a positive integer; got int 0"),
        ({"max_fragments": 2.5}, ValueError, "Renderer: `max_fragments` must be a positive integer; got float 2.5"),
    ],
)
def test_bad_settings_are_named(change: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        gd.Renderer(**{"image_size": 8, **change})


@pytest.mark.parametrize(
    ("options", "lights", "error", "message"),
    [
        ({}, "sun", TypeError, "Renderer: `lights` must be a light or a sequence of lights; got sun"),
        ({}, [SUN, 3], TypeError, "Renderer: `lights` must be a light or a sequence of lights"),
        (
            {},
            gd.DirectionalLight(torch.ones(4, 3)),
            ValueError,
            r"`lights` must be without a batch, .* to the images' \(2,\); got DirectionalLight of batch \(4,\)",
        ),
        ({"shading": "phong"}, None, ValueError, "Renderer: `lights` must be given with shading='phong'; got None"),
        ({"shading": "unlit"}, SUN, ValueError, "Renderer: `lights` must be None with shading='unlit'; got lights"),
        ({"outputs": "depth"}, SUN, ValueError, "Renderer: `outputs` must be with 'rgb' where lights are given"),
        ({"outputs": "uv"}, None, ValueError, "Renderer: `mesh` must be with texture coordinates for the output uv"),
    ],
)
def test_bad_calls_are_named(options: dict, lights, error: type[Exception], message: str):
    eyes = camera(torch.float32, azimuth_deg=torch.tensor([0.0, 50.0]))
    with pytest.raises(error, match=message):
        gd.Renderer(8, **{"outputs": "rgb", **options})(gd.icosphere(0), eyes, lights)


def test_bad_colours_are_named():
    mesh = gd.icosphere(0).with_attributes(vertex_colors=torch.rand(12, 2))
    with pytest.raises(
        ValueError, match=r"Renderer: `mesh\.vertex_colors` must be of 1, 3 or 4 channels; got 2 channels"
    ):
        gd.Renderer(8, outputs="rgb")(mesh, camera())


def test_bad_textures_lights_and_materials_are_named():
    with pytest.raises(
        ValueError, match=r"Texture: `image` must be of shape \(..., H, W, C\); got float32 of shape \(4, 4\)"
    ):
        gd.Texture(torch.rand(4, 4))
    with pytest.raises(ValueError, match="Texture: `image` must be of one or more texels of 1, 3 or 4 channels"):
        gd.Texture(torch.rand(4, 4, 2))
    with pytest.raises(ValueError, match=r"Texture: `wrap` must be one of repeat, clamp, mirror.*Did you mean 'clamp'"):
        gd.Texture(torch.rand(4, 4, 3), wrap="clam")
    with pytest.raises(ValueError, match="Texture: `filter` must be one of bilinear, nearest"):
        gd.Texture(torch.rand(4, 4, 3), filter="linear")
    with pytest.raises(ValueError, match=r"Texture\.sample: `index` must be given for a batch of textures"):
        gd.Texture(torch.rand(2, 4, 4, 3)).sample(torch.rand(3, 2))
    with pytest.raises(ValueError, match=r"Texture\.sample: `uv` must be of shape \(P, 2\)"):
        gd.Texture(torch.rand(4, 4, 3)).sample(torch.rand(3, 3))
    with pytest.raises(ValueError, match="DirectionalLight: `direction` must be other than zero"):
        gd.DirectionalLight((0.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"DirectionalLight: `direction` must be of shape \(..., 3\)"):
        gd.DirectionalLight((0.0, 1.0))
    with pytest.raises(
        ValueError, match=r"DirectionalLight: `direction, color` must be of batch shapes that broadcast"
    ):
        gd.DirectionalLight(torch.ones(2, 3), torch.ones(3, 3))
    with pytest.raises(ValueError, match="PointLight: `attenuation` must be three numbers ≥ 0, not all 0"):
        gd.PointLight((0, 0, 1), attenuation=(0, 0, 0))
    with pytest.raises(ValueError, match="Material: `shininess` must be positive and finite"):
        gd.Material(shininess=0)
    with pytest.raises(ValueError, match="Material: `specular` must be 0 or more; got -1"):
        gd.Material(specular=-1.0)
    with pytest.raises(ValueError, match=r"Material: `diffuse` must be a number or of shape \(..., 3\)"):
        gd.Material(diffuse=torch.ones(2))
    with pytest.raises(ValueError, match="Material: `ambient, diffuse, specular, shininess` must be of batch shapes"):
        gd.Material(ambient=torch.ones(2, 3), diffuse=torch.ones(3, 3))
    with pytest.raises(TypeError, match=r"Mesh: `material` must be a geodiff\.Material; got gold"):
        gd.icosphere(0).with_attributes(material="gold")


def test_the_same_bits_on_any_number_of_threads():
    ball = gd.icosphere(3)
    texture, sun = torch.rand(32, 32, 3), torch.tensor([1.0, 1.0, 1.0])
    results = []
    before = torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            leaves = [x.clone().requires_grad_() for x in (ball.vertices, texture, sun)]
            mesh = ball.with_attributes(uv=sphere_uv(ball.vertices), texture=leaves[1]).with_vertices(leaves[0])
            render = gd.Renderer(120, scale=1e-2, shading="phong", outputs="rgb")
            rgb = render(mesh, camera(torch.float32), gd.DirectionalLight(leaves[2])).rgb
            weight = torch.linspace(-1, 1, rgb.numel()).reshape(rgb.shape)
            results.append((rgb.detach(), *torch.autograd.grad(rgb, leaves, weight)))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
