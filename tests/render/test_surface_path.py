# SPDX-License-Identifier: Apache-2.0
"""Where one kernel does all of the shading, the picture and its gradients are those of the separate steps."""

import pytest
import torch

import geodiff as gd
from geodiff.scene.texture import Texture


def mesh_of(seams: bool, wrap: str, shapes: int = 1, textures: int = 1) -> gd.Mesh:
    """One shape or several, with one texture or several; with seams each face has texture coordinates of its own."""
    mesh = gd.icosphere(2)
    uv, faces = 3 * mesh.vertices[:, :2], None
    if seams:
        uv, faces = uv[mesh.faces].reshape(-1, 2), torch.arange(3 * mesh.num_faces).reshape(-1, 3)
    image = torch.rand(*([textures] if textures > 1 else []), 16, 12, 3)
    if shapes > 1:
        mesh = mesh.with_vertices(mesh.vertices * torch.linspace(0.8, 1.0, shapes)[:, None, None])
    return mesh.with_attributes(uv=uv, uv_faces=faces, texture=Texture(image, wrap))


@pytest.mark.parametrize("shading", ["lambert", "phong"])
@pytest.mark.parametrize("seams", [False, True], ids=["welded", "seams"])
@pytest.mark.parametrize(("cameras", "textures", "shapes"), [(1, 1, 1), (3, 1, 1), (3, 1, 3), (3, 3, 3)])
def test_one_kernel_and_several_give_the_same(shading: str, seams: bool, cameras: int, textures: int, shapes: int):
    mesh = mesh_of(seams, "mirror", shapes, textures)
    lights = [gd.AmbientLight(0.2), gd.DirectionalLight((1, 1, 1), 0.5), gd.PointLight((2, 2, 2), 0.5)]
    eye = gd.Camera.orbit(2.5, 20, torch.arange(cameras) * 40.0 if cameras > 1 else 10.0, fov_deg=60)
    render = gd.Renderer((20, 24), shading=shading, outputs="rgb")
    results = []
    for face_colors in (None, torch.ones(mesh.num_faces, 3)):  # a second colour takes the way through several kernels
        leaves = [x.clone().requires_grad_() for x in (mesh.vertices, mesh.uv, mesh.texture.image)]
        own = mesh.with_attributes(uv=leaves[1], uv_faces=mesh.uv_faces, face_colors=face_colors)
        own = own.with_attributes(texture=mesh.texture.with_image(leaves[2])).with_vertices(leaves[0])
        rgb = render(own, eye, lights).rgb
        results.append((rgb.detach(), *torch.autograd.grad(rgb.square().sum(), leaves)))
    for one, several in zip(*results, strict=True):
        torch.testing.assert_close(one, several, rtol=1e-4, atol=1e-5 * float(several.abs().max()))


def test_other_maps_and_a_mesh_batch_take_the_same_colours():
    mesh = mesh_of(True, "repeat")
    lights, eye = [gd.AmbientLight(0.2), gd.PointLight((2, 2, 2), 0.5)], gd.Camera.orbit(2.5, 20, 10, fov_deg=60)
    alone = gd.Renderer(24, outputs="rgb")(mesh, eye, lights).rgb
    with_maps = gd.Renderer(24, outputs=("rgb", "normal", "uv", "depth"))(mesh, eye, lights).rgb
    torch.testing.assert_close(alone, with_maps, rtol=1e-4, atol=1e-5)
    batch = gd.MeshBatch([mesh, mesh.with_vertices(0.5 * mesh.vertices)])
    torch.testing.assert_close(gd.Renderer(24, outputs="rgb")(batch, eye, lights).rgb[0], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cameras", [1, 3])
def test_colours_alone_are_those_beside_maps(cameras: int):
    """Alone they come from the list of visible faces, beside other maps from those of fragments."""
    eye = gd.Camera.orbit(2.5, 20, torch.arange(cameras) * 40.0 if cameras > 1 else 10.0, fov_deg=60)
    results = []
    for outputs in ("rgb", ("rgb", "alpha", "rgb"), ("rgb", "depth")):
        vertices = gd.icosphere(2).vertices.clone().requires_grad_()
        mesh = mesh_of(False, "repeat").with_vertices(vertices)
        torch.manual_seed(0)
        mesh = mesh.with_attributes(texture=torch.rand(16, 12, 3))
        rgb = gd.Renderer((20, 24), scale=0.02, outputs=outputs)(mesh, eye, gd.AmbientLight()).rgb
        results.append((rgb.detach(), *torch.autograd.grad(rgb.square().sum(), vertices)))
    for other in results[1:]:
        for one, several in zip(results[0], other, strict=True):
            torch.testing.assert_close(one, several, rtol=1e-5, atol=1e-6 * float(several.abs().max()))
