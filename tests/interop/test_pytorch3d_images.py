# SPDX-License-Identifier: Apache-2.0
"""Images of PyTorch3D, where it is installed: its cameras, masks, textures and silhouettes are ours."""

import math
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.interop import camera_from_pytorch3d, camera_to_pytorch3d, from_pytorch3d, to_pytorch3d

EXACT = 1e-6  # float32 arithmetic of a few operations on numbers near 1


@pytest.fixture
def renderer() -> Any:
    return pytest.importorskip("pytorch3d.renderer", exc_type=ImportError)


def test_projection_agrees(renderer: Any) -> None:
    points = torch.rand(1, 50, 3) - 0.5
    for camera in (gd.Camera.orbit(3.0, 20, 50, fov_deg=40), gd.Camera.orthographic(eye=(1, 2, 3))):
        theirs = camera_to_pytorch3d(camera)
        ndc = theirs.transform_points_ndc(points)[..., :2] * torch.tensor([-1.0, 1])
        assert torch.allclose(ndc, camera.project(points)[..., :2], atol=8 * EXACT)
    R, T = renderer.look_at_view_transform(2.7, 20, 50)
    theirs = renderer.FoVPerspectiveCameras(R=R, T=T, fov=40)
    ours = gd.Camera.orbit(2.7, 20, 50, fov_deg=40)
    assert torch.allclose(camera_from_pytorch3d(theirs)[0].project(points), ours.project(points), atol=8 * EXACT)
    pixels = {"focal_length": 120.0, "principal_point": ((70.0, 20.0),), "in_ndc": False}
    theirs = renderer.PerspectiveCameras(R=R, T=T, image_size=((60, 100),), **pixels)
    screen = theirs.transform_points_screen(points)[..., :2]
    ours = camera_from_pytorch3d(theirs)
    assert torch.allclose(screen, ours.project(points, image_size=(60, 100))[..., :2], atol=1000 * EXACT)


def our_cameras(kind: str) -> gd.Camera:
    """Twenty at random: with the field of view, off-centre with two focal lengths, or without perspective."""
    camera = gd.Camera.orbit(2.5 + torch.rand(20), 160 * torch.rand(20) - 80, 360 * torch.rand(20), fov_deg=60)
    if kind == "fov":
        return camera
    focal, principal = 0.8 + torch.rand(20, 2), 0.6 * torch.rand(20, 2) - 0.3
    lens = {"orthographic": kind == "orthographic"}
    return gd.Camera(camera.rotation, camera.translation, focal, principal, **lens)


def their_cameras(renderer: Any, kind: str, size: tuple[int, int]) -> Any:
    R, T = renderer.look_at_view_transform(2.5 + torch.rand(20), 160 * torch.rand(20) - 80, 360 * torch.rand(20))
    if kind == "FoVPerspectiveCameras":
        return renderer.FoVPerspectiveCameras(R=R, T=T, fov=40 + 30 * torch.rand(20), aspect_ratio=1.2)
    if kind == "FoVOrthographicCameras":
        box = {"min_x": -1.5, "max_x": 1 + torch.rand(20), "max_y": 1.5, "min_y": -1.0}
        return renderer.FoVOrthographicCameras(R=R, T=T, **box, scale_xyz=((1.1, 0.8, 1.0),))
    focal, middle = 30 + 20 * torch.rand(20, 2), torch.tensor(size).flip(0) / 2 + 5 * torch.randn(20, 2)
    pixels = {"focal_length": focal, "principal_point": middle, "in_ndc": False, "image_size": (size,) * 20}
    return getattr(renderer, kind)(R=R, T=T, **pixels)


THEIRS = ["FoVPerspectiveCameras", "PerspectiveCameras", "FoVOrthographicCameras", "OrthographicCameras"]


@pytest.mark.parametrize("size", [(48, 64), (64, 40)])
@pytest.mark.parametrize("kind", ["fov", "perspective", "orthographic", *THEIRS])
def test_hard_masks_agree(renderer: Any, kind: str, size: tuple[int, int]) -> None:
    mesh = gd.torus(nu=20, nv=9)
    if kind in THEIRS:
        cameras = their_cameras(renderer, kind, size)
        camera = camera_from_pytorch3d(cameras)
    else:
        camera = our_cameras(kind)
        cameras = camera_to_pytorch3d(camera, fov=kind == "fov")
    settings = renderer.RasterizationSettings(image_size=size, faces_per_pixel=1)
    fragments = renderer.MeshRasterizer(cameras, settings)(to_pytorch3d(mesh).extend(20))
    theirs, ours = fragments.pix_to_face[..., 0], gd.rasterize(mesh, camera, size)
    assert 0.05 < ours.mask.double().mean() < 0.8
    assert ((theirs >= 0) == ours.mask).double().mean() >= 0.999
    # Seen by both are the same faces (theirs are counted through the batch) at the same depth.
    both = (theirs >= 0) & ours.mask
    assert (theirs % mesh.num_faces == ours.face_id)[both].double().mean() >= 0.999
    same = both & (theirs % mesh.num_faces == ours.face_id)
    assert torch.allclose(fragments.zbuf[..., 0][same], ours.depth[same], atol=1e-3)


@pytest.mark.parametrize("filter", ["bilinear", "nearest"])
@pytest.mark.parametrize("mode", ["clamp", "mirror", "border", "border, aligned", "reflection"])
def test_texels_agree(renderer: Any, mode: str, filter: str) -> None:
    """Compare colours of each pixel, coordinates beyond [0, 1] included."""
    image, uv = torch.rand(6, 9, 3), 2 * torch.rand(40, 2) - 0.5
    corners = torch.randint(0, 40, (80, 3))
    mesh = gd.icosphere(1)
    if mode in ("clamp", "mirror"):
        mesh = mesh.with_attributes(uv=uv, uv_faces=corners, texture=gd.Texture(image, mode, filter))
        meshes = to_pytorch3d(mesh)
    else:
        modes = {"padding_mode": mode.split(",")[0], "align_corners": "aligned" in mode, "sampling_mode": filter}
        textures = renderer.TexturesUV([image], [corners], [uv], **modes)
        meshes = to_pytorch3d(mesh)
        meshes.textures = textures
        mesh = from_pytorch3d(meshes)[0]
    camera = gd.Camera.orbit(2.0, 20, 50, fov_deg=60)
    settings = renderer.RasterizationSettings(image_size=(48, 64), faces_per_pixel=1)
    fragments = renderer.MeshRasterizer(camera_to_pytorch3d(camera, fov=True), settings)(meshes)
    theirs = meshes.textures.sample_textures(fragments)[0, :, :, 0]
    ours = gd.rasterize(mesh, camera, (48, 64))
    seen = ours.mask & (fragments.pix_to_face[0, ..., 0] == ours.face_id)
    assert seen.double().mean() > 0.3
    place = (ours.barycentric[seen][..., None] * mesh.uv[mesh.uv_faces[ours.face_id[seen]]]).sum(1)
    # A rounding of coordinates is some 1e-6 of a texel, and now and then takes the nearest to its neighbour.
    same = ((mesh.texture.sample(place) - theirs[seen]).abs() < 1e-3).all(-1)
    assert same.double().mean() >= (1.0 if filter == "bilinear" else 0.99)


def test_colors_agree(renderer: Any) -> None:
    camera = gd.Camera.orbit(2.0, 20, 50, fov_deg=60)
    settings = renderer.RasterizationSettings(image_size=(48, 64), faces_per_pixel=1)
    raster = renderer.MeshRasterizer(camera_to_pytorch3d(camera, fov=True), settings)
    ball = gd.icosphere(1)
    for colors in ({"vertex_colors": torch.rand(42, 3)}, {"face_colors": torch.rand(80, 3)}):
        mesh = ball.with_attributes(**colors)
        meshes = to_pytorch3d(mesh)
        fragments = raster(meshes)
        theirs = meshes.sample_textures(fragments)[0, :, :, 0]
        ours = gd.rasterize(mesh, camera, (48, 64))
        seen = ours.mask & (fragments.pix_to_face[0, ..., 0] == ours.face_id)
        face = ours.face_id[seen]
        expected = (
            mesh.face_colors[face]
            if mesh.vertex_colors is None
            else (ours.barycentric[seen][..., None] * mesh.vertex_colors[mesh.faces[face]]).sum(1)
        )
        assert torch.allclose(theirs[seen], expected, atol=1e-4)


def test_batches_and_paddings(renderer: Any) -> None:
    """Lists and padded tensors of different sizes, each with its own textures, there and back."""
    structures = pytest.importorskip("pytorch3d.structures")
    ball, box = gd.icosphere(1), gd.box()
    faces = torch.full((2, 80, 3), -1)
    faces[0], faces[1, :12] = ball.faces, box.faces
    vertices, colors = torch.zeros(2, 42, 3), torch.rand(2, 42, 3)
    vertices[0], vertices[1, :8] = ball.vertices, box.vertices
    padded = structures.Meshes(vertices, faces, renderer.TexturesVertex(colors))
    # PyTorch3D takes all rows of a padded tensor for vertices where a list does not say otherwise.
    again = from_pytorch3d(padded)
    assert torch.equal(again[1].faces, box.faces) and torch.equal(again[1].vertices[:8], box.vertices)
    assert torch.equal(again[0].vertex_colors, colors[0]) and torch.equal(again[1].vertex_colors[:8], colors[1, :8])
    maps = [torch.rand(4, 6, 3), torch.rand(8, 2, 3)]
    pair = gd.MeshBatch(
        [
            ball.with_attributes(uv=torch.rand(42, 2), texture=gd.Texture(maps[0], "clamp")),
            box.with_attributes(
                uv=torch.rand(5, 2), uv_faces=torch.randint(0, 5, (12, 3)), texture=gd.Texture(maps[1], "clamp")
            ),
        ]
    )
    for mesh, back in zip(pair, from_pytorch3d(to_pytorch3d(pair)), strict=True):
        assert torch.equal(back.vertices, mesh.vertices) and torch.equal(back.faces, mesh.faces)
        assert torch.equal(back.texture.image, mesh.texture.image) and back.texture.wrap == "clamp"
        assert torch.equal(back.uv, mesh.uv) and torch.equal(back.uv_faces, mesh.uv_faces)
    several = ball.with_vertices(torch.rand(3, 42, 3)).with_attributes(uv=torch.rand(42, 2), texture=maps[0])
    assert len(from_pytorch3d(to_pytorch3d(several))) == 3


def test_silhouettes_agree(renderer: Any) -> None:
    """With all faces kept and a far cut-off theirs is the same formula."""
    mesh, camera, sigma = gd.icosphere(2), gd.Camera.orbit(2.7, 20, 50, fov_deg=60), 1e-3
    blur = math.log(1e9) * sigma
    settings = renderer.RasterizationSettings(image_size=(32, 40), blur_radius=blur, faces_per_pixel=200)
    raster = renderer.MeshRasterizer(camera_to_pytorch3d(camera, fov=True), settings)
    shader = renderer.SoftSilhouetteShader(blend_params=renderer.BlendParams(sigma=sigma))
    gradients, images = [], []
    for ours in (True, False):
        v = mesh.vertices.clone().requires_grad_()
        if ours:
            image = gd.presets.softras((32, 40), sigma)(mesh.with_vertices(v), camera).alpha
        else:
            meshes = to_pytorch3d(mesh.with_vertices(v))
            image = shader(raster(meshes), meshes)[0, ..., 3]
        image.square().sum().backward()
        images.append(image.detach())
        gradients.append(v.grad)
    # float32, distances of order 1 over σ, squared.
    assert torch.allclose(*images, atol=1e-4)
    assert torch.allclose(*gradients, atol=1e-3 * float(gradients[0].abs().max()))
