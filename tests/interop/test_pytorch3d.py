# SPDX-License-Identifier: Apache-2.0
"""PyTorch3D: the mathematics, with stand-ins that carry its fields and, where it is installed, the real thing."""

import math
import sys
import types
from typing import ClassVar

import pytest
import torch

import geodiff as gd
from geodiff.interop import camera_from_pytorch3d, camera_to_pytorch3d, from_pytorch3d, to_pytorch3d

EXACT = 1e-6  # float32 arithmetic of a few operations on numbers near 1


class StandIn:
    """Keeps what it was made with as attributes, as PyTorch3D's cameras do."""

    defaults: ClassVar[dict] = {}

    def __init__(self, **fields: object) -> None:
        for name, value in {"K": None, **self.defaults, **fields}.items():
            setattr(self, f"_{name}" if name == "in_ndc" else name, value)

    def in_ndc(self) -> bool:
        return getattr(self, "_in_ndc", True)


class FoVPerspectiveCameras(StandIn):
    defaults: ClassVar[dict] = {"znear": 1.0, "zfar": 100.0, "aspect_ratio": 1.0, "fov": 60.0, "degrees": True}


class FoVOrthographicCameras(StandIn):
    box = ("min_x", -1.0), ("min_y", -1.0), ("max_x", 1.0), ("max_y", 1.0)
    defaults: ClassVar[dict] = {"znear": 1.0, "zfar": 100.0, "scale_xyz": ((1.0, 1.0, 1.0),), **dict(box)}


class PerspectiveCameras(StandIn):
    defaults: ClassVar[dict] = {"focal_length": 1.0, "principal_point": ((0.0, 0.0),), "image_size": None}


class OrthographicCameras(PerspectiveCameras):
    pass


class TexturesVertex:
    def __init__(self, verts_features: list) -> None:
        self.features = verts_features

    def verts_features_list(self) -> list:
        return self.features


class TexturesAtlas:
    def __init__(self, atlas: list) -> None:
        self.atlas = atlas

    def atlas_list(self) -> list:
        return self.atlas


class TexturesUV:
    def __init__(
        self, maps: list, faces_uvs: list, verts_uvs: list, *, maps_ids: object = None, **modes: object
    ) -> None:
        self.maps, self.faces_uvs, self.verts_uvs, self.maps_ids = maps, faces_uvs, verts_uvs, maps_ids
        defaults = {"padding_mode": "border", "align_corners": True, "sampling_mode": "bilinear"}
        self.__dict__.update(defaults | modes)

    def maps_list(self) -> list:
        return self.maps

    def faces_uvs_list(self) -> list:
        return self.faces_uvs

    def verts_uvs_list(self) -> list:
        return self.verts_uvs

    def maps_ids_padded(self) -> object:
        return self.maps_ids


class Meshes:
    def __init__(self, verts: list, faces: list, textures: object = None) -> None:
        self.verts, self.faces, self.textures = verts, faces, textures

    def verts_list(self) -> list:
        return self.verts

    def faces_list(self) -> list:
        return self.faces


@pytest.fixture(params=["stand-ins", "pytorch3d"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the stand-ins, or PyTorch3D where it is installed."""
    if request.param == "pytorch3d":
        pytest.importorskip("pytorch3d.renderer", exc_type=ImportError)
        return
    cameras = (FoVPerspectiveCameras, FoVOrthographicCameras, PerspectiveCameras, OrthographicCameras)
    kinds = (*cameras, TexturesVertex, TexturesUV, TexturesAtlas)
    package = types.ModuleType("pytorch3d")
    renderer, structures = types.ModuleType("pytorch3d.renderer"), types.ModuleType("pytorch3d.structures")
    for kind in kinds:
        setattr(renderer, kind.__name__, kind)
    structures.Meshes = Meshes  # type: ignore[attr-defined]
    for module in (package, renderer, structures):
        monkeypatch.setitem(sys.modules, module.__name__, module)


# A camera at the origin of PyTorch3D's view space: R = 1 and T = 0 look along +z, with +x of the world to the left.
ORIGIN = {"R": torch.eye(3)[None], "T": torch.zeros(1, 3)}


def seen(camera: gd.Camera, *point: float) -> list[float]:
    return camera.project(torch.tensor([[point]], dtype=torch.float32))[0, 0].tolist()


def test_axes_by_hand() -> None:
    camera = camera_from_pytorch3d(FoVPerspectiveCameras(fov=90.0, **ORIGIN))
    # +x is to the left, +y up, and what is ahead is at positive z; tan 45° = 1.
    assert seen(camera, 1, 0, 2) == pytest.approx([-0.5, 0, 2], abs=EXACT)
    assert seen(camera, 0, 1, 4) == pytest.approx([0, 0.25, 4], abs=EXACT)
    assert seen(camera, 0, 0, -2)[2] == -2
    assert camera.near == 0.5 and camera.batch_shape == (1,)


def test_rows_of_r_multiply_from_the_left() -> None:
    # A quarter turn: X_view = X_world R sends the world's x axis (1, 0, 0) to the first row of R, here ahead.
    R = torch.tensor([[[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]])
    camera = camera_from_pytorch3d(FoVPerspectiveCameras(fov=90.0, R=R, T=torch.tensor([[0.5, 0.0, 1.0]])))
    # (3, 0, 0) is at (0, 0, 3) + T = (0.5, 0, 4): half a unit to the left at depth 4.
    assert seen(camera, 3, 0, 0) == pytest.approx([-0.125, 0, 4], abs=EXACT)
    # (0, 0, 1) goes to minus the view's x axis: (−1, 0, 0) + T = (−0.5, 0, 1), to the right.
    assert seen(camera, 0, 0, 1) == pytest.approx([0.5, 0, 1], abs=EXACT)


def test_spherical_placement_is_our_orbit() -> None:
    # PyTorch3D's look_at_view_transform: eye at d (cos e sin a, sin e, cos e cos a); R's columns are the view's axes.
    e, a, d = math.radians(20), math.radians(50), 2.7
    eye = d * torch.tensor([math.cos(e) * math.sin(a), math.sin(e), math.cos(e) * math.cos(a)])
    z = -eye / d
    x = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.0, 1, 0]), z), dim=0)
    R = torch.stack((x, torch.linalg.cross(z, x), z), dim=1)
    theirs = FoVPerspectiveCameras(R=R[None], T=-(eye @ R)[None], fov=torch.tensor([math.radians(40)]), degrees=False)
    ours = gd.Camera.orbit(d, 20, 50, fov_deg=40)
    points = torch.rand(20, 3) - 0.5
    assert torch.allclose(camera_from_pytorch3d(theirs)[0].project(points), ours.project(points), atol=4 * EXACT)


def test_principal_point_and_focal_length() -> None:
    theirs = PerspectiveCameras(focal_length=((2.0, 3.0),), principal_point=((0.1, 0.2),), **ORIGIN)
    # Theirs: x = 2·1/4 + 0.1 to the left, y = 3·1/4 + 0.2 up.
    assert seen(camera_from_pytorch3d(theirs), 1, 1, 4) == pytest.approx([-0.6, 0.95, 4], abs=EXACT)
    one = PerspectiveCameras(focal_length=torch.tensor([2.0]), **ORIGIN)
    assert seen(camera_from_pytorch3d(one), 1, 1, 4) == pytest.approx([-0.5, 0.5, 4], abs=EXACT)


def test_intrinsics_in_pixels() -> None:
    # 60 rows, 100 columns; the axis meets the image at column 70, row 20, counted from the upper left corner.
    theirs = PerspectiveCameras(focal_length=120.0, principal_point=((70.0, 20.0),), in_ndc=False, **ORIGIN)
    camera = camera_from_pytorch3d(theirs, (60, 100))
    pixel = camera.project(torch.tensor([[[0.0, 0, 1], [-1.0, 0, 6], [0.0, -1, 6]]]), image_size=(60, 100))[0]
    assert torch.allclose(pixel[:, :2], torch.tensor([[70.0, 20], [90, 20], [70, 40]]), atol=100 * EXACT)
    theirs.image_size = torch.tensor([[60, 100]])
    assert torch.equal(camera_from_pytorch3d(theirs).focal, camera.focal)
    square = camera_from_pytorch3d(theirs, 60)
    assert seen(square, 0, 0, 1)[:2] == pytest.approx([40 / 30, 10 / 30], abs=EXACT)


def test_orthographic() -> None:
    camera = camera_from_pytorch3d(OrthographicCameras(focal_length=0.5, principal_point=((0.1, 0.2),), **ORIGIN))
    assert camera.is_orthographic
    assert seen(camera, 1, 1, 7) == pytest.approx([-0.6, 0.7, 7], abs=EXACT)
    # A box from −1 to 3 in x, its middle 1 at the middle of the image; scaled by 2.
    theirs = FoVOrthographicCameras(max_x=3.0, scale_xyz=((2.0, 1.0, 1.0),), **ORIGIN)
    assert seen(camera_from_pytorch3d(theirs), 2, 0.5, 7) == pytest.approx([-(2 * 2 * 0.5 - 0.5), 0.5, 7], abs=EXACT)


def test_a_matrix_comes_before_the_rest() -> None:
    K = torch.zeros(1, 4, 4)
    K[0, 0, 0], K[0, 1, 1], K[0, 0, 2], K[0, 1, 2], K[0, 3, 2] = 2.0, 3.0, 0.1, 0.2, 1.0
    for kind in (PerspectiveCameras, FoVPerspectiveCameras):
        assert seen(camera_from_pytorch3d(kind(K=K, **ORIGIN)), 1, 1, 4) == pytest.approx([-0.6, 0.95, 4], abs=EXACT)
    K[0, 0, 1] = 0.1
    with pytest.raises(ValueError, match="camera_from_pytorch3d: `cameras` must be without skew"):
        camera_from_pytorch3d(PerspectiveCameras(K=K, **ORIGIN))


@pytest.mark.parametrize("kind", ["perspective", "orthographic", "fov"])
def test_cameras_there_and_back(library: None, kind: str) -> None:
    camera = gd.Camera.orbit(3.0, torch.tensor([10.0, -40, 70]), torch.tensor([0.0, 100, 200]), fov_deg=35)
    if kind != "fov":
        principal, flat = torch.tensor([0.1, -0.2]), kind == "orthographic"
        camera = gd.Camera(camera.rotation, camera.translation, torch.tensor([2.0, 3]), principal, orthographic=flat)
    theirs = camera_to_pytorch3d(camera, fov=kind == "fov")
    again = camera_from_pytorch3d(theirs)
    points = torch.rand(20, 3) - 0.5
    assert again.is_orthographic == camera.is_orthographic
    assert torch.allclose(again.project(points), camera.project(points), atol=8 * EXACT)
    # Their own rule: X R + T, x over z.
    view = points @ theirs.R + theirs.T[:, None]
    assert torch.allclose(view[..., 2], camera.project(points)[..., 2], atol=4 * EXACT)
    if kind == "perspective":
        x = theirs.focal_length[:, None] * view[..., :2] / view[..., 2:] + theirs.principal_point[:, None]
        assert torch.allclose(x * torch.tensor([-1.0, 1]), camera.project(points)[..., :2], atol=8 * EXACT)
    if kind == "fov":
        assert again.near == pytest.approx(camera.near)
    assert camera_to_pytorch3d(camera[0]).R.shape == (1, 3, 3)


def test_cameras_keep_the_gradient(library: None) -> None:
    azimuth = torch.tensor([10.0, 20.0], requires_grad=True)
    again = camera_from_pytorch3d(camera_to_pytorch3d(gd.Camera.orbit(3.0, 10, azimuth), fov=True))
    again.project(torch.rand(5, 3))[..., 0].sum().backward()
    assert azimuth.grad is not None and bool((azimuth.grad != 0).all())


def test_meshes_there_and_back(library: None) -> None:
    ball, box = gd.icosphere(1), gd.box().with_attributes(vertex_colors=torch.rand(8, 3))
    ball = ball.with_attributes(vertex_colors=torch.rand(42, 3)).with_vertices(ball.vertices.requires_grad_())
    again = from_pytorch3d(to_pytorch3d(gd.MeshBatch([ball, box])))
    for mesh, back in zip((ball, box), again, strict=True):
        assert torch.equal(back.vertices, mesh.vertices) and torch.equal(back.faces, mesh.faces)
        assert torch.equal(back.vertex_colors, mesh.vertex_colors)
    again.vertices.square().sum().backward()
    assert torch.allclose(ball.vertices.grad, 2 * ball.vertices)
    single, several = to_pytorch3d(gd.box()), to_pytorch3d(gd.box().with_vertices(torch.rand(3, 8, 3).double()))
    assert len(single.verts_list()) == 1 and single.textures is None
    assert len(several.verts_list()) == 3 and several.verts_list()[0].dtype == torch.float32


def textured(channels: int = 3, **modes: object) -> gd.Mesh:
    """Make two triangles with a seam and a texture of 4 × 6 texels."""
    texture = gd.Texture(torch.rand(4, 6, channels), **modes)
    return gd.plane(1.0, 1).with_attributes(uv=torch.rand(6, 2), uv_faces=[[3, 4, 5], [0, 2, 1]], texture=texture)


@pytest.mark.parametrize("wrap", ["clamp", "mirror", "repeat"])
@pytest.mark.parametrize("filter", ["bilinear", "nearest"])
def test_textures_there_and_back(library: None, wrap: str, filter: str) -> None:
    mesh = textured(wrap=wrap, filter=filter)
    mesh.texture.image.requires_grad_()
    theirs = to_pytorch3d(gd.MeshBatch([mesh, mesh]))
    again = from_pytorch3d(theirs)[1]
    assert torch.equal(again.texture.image, mesh.texture.image) and again.texture.filter == filter
    assert torch.equal(again.uv, mesh.uv) and torch.equal(again.uv_faces, mesh.uv_faces)
    # They do not tile: the edge goes on.
    assert again.texture.wrap == ("clamp" if wrap == "repeat" else wrap)
    again.texture.image.sum().backward()
    assert torch.equal(mesh.texture.image.grad, torch.ones(4, 6, 3))


def test_texels_by_hand() -> None:
    # From the middle of the first texel to that of the last: u = ½ of five columns is the middle of the third, and
    # v = ⅓ of four rows is the third row from the top.
    image = torch.rand(4, 5, 3)
    uv = torch.tensor([[0.5, 1 / 3], [0.0, 1.0], [1.0, 0.0]])
    flat = Meshes([torch.eye(3)], [torch.tensor([[0, 1, 2]])], TexturesUV([image], [torch.tensor([[0, 1, 2]])], [uv]))
    mesh = from_pytorch3d(flat)[0]
    expected = torch.stack((image[2, 2], image[0, 0], image[3, 4]))
    assert torch.allclose(mesh.texture.sample(mesh.uv), expected, atol=8 * EXACT)


def test_face_colors_are_an_atlas(library: None) -> None:
    mesh = gd.box().with_attributes(face_colors=torch.rand(12, 3))
    theirs = to_pytorch3d(mesh)
    assert theirs.textures.atlas_list()[0].shape == (12, 1, 1, 3)
    assert torch.equal(from_pytorch3d(theirs)[0].face_colors, mesh.face_colors)


def test_what_is_left_out_is_said(library: None) -> None:
    colored = gd.box().with_attributes(vertex_colors=torch.rand(8, 3), uv=torch.rand(8, 2))
    with pytest.warns(UserWarning, match="to_pytorch3d: uv left out"):
        assert to_pytorch3d(colored).textures is not None
    with pytest.warns(UserWarning, match="to_pytorch3d: uv, vertex_colors left out"):
        assert to_pytorch3d(gd.MeshBatch([colored, gd.box()])).textures is None
    with pytest.warns(UserWarning, match="to_pytorch3d: material, vertex_colors left out"):
        grey = gd.box().with_attributes(vertex_colors=torch.rand(8, 1), material=gd.Material())
        to_pytorch3d(gd.MeshBatch([gd.box().with_attributes(vertex_colors=torch.rand(8, 3)), grey]))
    with pytest.warns(UserWarning, match="to_pytorch3d: mipmaps, vertex_colors left out"):
        full = textured(mipmaps=True).with_attributes(vertex_colors=torch.rand(4, 3))
        assert hasattr(to_pytorch3d(full).textures, "maps_list")
    with pytest.warns(UserWarning, match="to_pytorch3d: texture, uv left out"):
        assert to_pytorch3d(gd.MeshBatch([textured(), textured(wrap="mirror")])).textures is None
    with pytest.warns(UserWarning, match=r"to_pytorch3d: PyTorch3D does not tile textures: beyond \[0, 1\]"):
        to_pytorch3d(gd.Mesh(torch.eye(3), [[0, 1, 2]], uv=3 * torch.eye(3)[:, :2], texture=torch.rand(2, 2, 3)))


def test_what_is_left_out_of_theirs_is_said() -> None:
    vertices, faces, uv = torch.eye(3), torch.tensor([[0, 1, 2]]), torch.eye(3)[:, :2]
    maps, three = [torch.rand(4, 5, 3)], [torch.rand(1, 2, 2, 3)]
    cases = {
        "object": object(),
        "TexturesAtlas of more than one texel a face": TexturesAtlas(three),
        "TexturesUV of several maps a mesh": TexturesUV(maps, [faces], [uv], maps_ids=torch.zeros(1, 1)),
        "TexturesUV of 2 channels": TexturesUV([torch.rand(4, 5, 2)], [faces], [uv]),
    }
    for what, textures in cases.items():
        with pytest.warns(UserWarning, match=f"from_pytorch3d: {what} left out, only TexturesVertex"):
            mesh = from_pytorch3d(Meshes([vertices], [faces], textures))[0]
        assert mesh.texture is None and mesh.face_colors is None
    for padding, instead in (("zeros", "the edge goes on"), ("reflection", "mirrored at the edge")):
        # Within the texels no padding is read.
        assert from_pytorch3d(Meshes([vertices], [faces], TexturesUV(maps, [faces], [uv], padding_mode=padding)))
        beyond = TexturesUV(maps, [faces], [uv - 0.2], padding_mode=padding)
        with pytest.warns(UserWarning, match=f"padding_mode='{padding}' with coordinates beyond .*: {instead}"):
            from_pytorch3d(Meshes([vertices], [faces], beyond))
    with pytest.raises(ValueError, match=r"`uv_faces` must be indices in \[0, 3\)"):
        from_pytorch3d(Meshes([vertices], [faces], TexturesUV(maps, [faces - 1], [uv])))


def test_messages(library: None) -> None:
    camera = gd.Camera.orbit(3.0)
    with pytest.raises(TypeError, match=r"from_pytorch3d: `meshes` must be a pytorch3d.structures.Meshes"):
        from_pytorch3d(gd.box())
    with pytest.raises(TypeError, match="to_pytorch3d: `mesh` must be a Mesh or a MeshBatch"):
        to_pytorch3d(camera)
    with pytest.raises(ValueError, match="to_pytorch3d: `mesh` must be with one batch axis at the most"):
        to_pytorch3d(gd.box().with_vertices(torch.rand(2, 2, 8, 3)))
    with pytest.raises(TypeError, match="camera_from_pytorch3d: `cameras` must be one of PyTorch3D's FoVPersp"):
        camera_from_pytorch3d(camera)
    with pytest.raises(ValueError, match=r"`image_size` must be given for cameras with in_ndc=False.*Pass image_size"):
        camera_from_pytorch3d(PerspectiveCameras(in_ndc=False, **ORIGIN))
    with pytest.raises(ValueError, match="camera_from_pytorch3d: `cameras` must be of one znear"):
        camera_from_pytorch3d(FoVPerspectiveCameras(**(ORIGIN | {"znear": torch.tensor([1.0, 2.0])})))
    with pytest.raises(TypeError, match="camera_to_pytorch3d: `camera` must be a Camera"):
        camera_to_pytorch3d(gd.box())
    with pytest.raises(ValueError, match="`camera` must be with one batch axis at the most"):
        camera_to_pytorch3d(gd.Camera.orbit(3.0, 0.0, torch.zeros(2, 2)))
    with pytest.raises(ValueError, match="`fov` must be False for an orthographic or off-centre camera"):
        camera_to_pytorch3d(gd.Camera.orthographic(), fov=True)
    with pytest.raises(ValueError, match="`zfar` must be positive"):
        camera_to_pytorch3d(camera, zfar=-1.0)


def test_absence_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.delitem(sys.modules, "pytorch3d.structures", raising=False)
    with pytest.raises(ImportError, match=r"PyTorch3D is not installed. No package index carries it: build it"):
        to_pytorch3d(gd.box())
