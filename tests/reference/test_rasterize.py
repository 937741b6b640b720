# SPDX-License-Identifier: Apache-2.0
"""The rasteriser against ray casting, and its rules for edges and ties."""

import numpy as np
import pytest
import torch

from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from geodiff.reference.rasterize import rasterize
from tests.helpers import (
    assert_close_relative,
    assert_gradient_is_derivative,
    assert_masks_match_outside,
    rounding_bound,
)
from tests.scenes import BY_NAME, SCENES, Scene, orthographic, perspective

by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
# Where a step of the difference does not change which face a pixel sees.
STEADY = [s for s in SCENES if not (s.kink or s.ties or s.name == "pixels exactly on an edge")]


def cast_rays(corners: np.ndarray, pixels: np.ndarray, near: float) -> tuple[np.ndarray, np.ndarray]:
    """Depths (M, F) at which rays meet triangles, infinite where they miss, and barycentrics (M, F, 3).

    The intersection of Möller and Trumbore ("Fast, minimum storage ray/triangle intersection", 1997). A perspective
    camera's rays leave the origin of (x, y, depth) space, those of an orthographic one its plane depth = 0.
    """
    is_perspective = np.array_equal(corners[..., 2], corners[..., 3])
    a, b, c = (corners[None, :, i, :3] for i in range(3))
    zeros, ones = np.zeros((len(pixels), 1)), np.ones((len(pixels), 1))
    origin = np.concatenate([pixels * (0 if is_perspective else 1), zeros], axis=1)[:, None]
    way = np.concatenate([pixels * (1 if is_perspective else 0), ones], axis=1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        p = np.cross(way, c - a)
        determinant = ((b - a) * p).sum(-1)
        s = origin - a
        u = (s * p).sum(-1) / determinant
        q = np.cross(s, b - a)
        v = (way * q).sum(-1) / determinant
        depth = ((c - a) * q).sum(-1) / determinant
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (depth >= near)
    return np.where(hit, depth, np.inf), np.stack([1 - u - v, u, v], axis=-1)


def band_of(corners: torch.Tensor, pixels: torch.Tensor, near: float, width: float) -> torch.Tensor:
    """Where a pixel is so near an edge of any face that rounding decides its side."""
    distance = signed_distance(pixels, near_clip(corners, near))
    return (distance.abs() < width).any(dim=1)


@by_scene
def test_rasterize_is_ray_casting(scene: Scene):
    clip, faces, layout = scene.tensors()
    raster = rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near)
    pixels = pixel_centres(scene.image_size, clip)
    assert raster.face_id.shape == raster.depth.shape == (len(layout), *scene.image_size)
    for image, row in enumerate(layout.tolist()):
        corners = face_corners(clip, faces, row)
        kept = (near_clip(corners, scene.near).counts > 0).nonzero()[:, 0]  # degenerate ones cover nothing
        face_id, depth = raster.face_id[image].flatten(), raster.depth[image].flatten()
        barycentric = raster.barycentric[image].reshape(-1, 3)
        truth = torch.full_like(depth, torch.inf)
        if len(kept):
            depths, coordinates = cast_rays(corners[kept].numpy(), pixels.numpy(), scene.near)
            truth = torch.from_numpy(depths.min(axis=1))
        band = band_of(corners, pixels, scene.near, 1e-9)
        assert_masks_match_outside(face_id >= 0, torch.isfinite(truth), band)
        hit = ((face_id >= 0) & ~band).nonzero()[:, 0]
        # 1e3: slivers and edge-on faces magnify the rounding of either method by length over height.
        assert_close_relative(depth[hit], truth[hit], rounding_bound(torch.float64, 1e3), "depth")
        if len(hit):
            place = torch.searchsorted(kept, face_id[hit]).numpy()
            wanted = torch.from_numpy(coordinates[hit.numpy(), place])
            assert_close_relative(barycentric[hit], wanted, rounding_bound(torch.float64, 1e3), "barycentric")
        empty = face_id < 0
        assert (depth[empty] == torch.inf).all() and (barycentric[empty] == 0).all()
        if scene.covered is not None:
            assert int((~empty).sum()) == scene.covered[image]


@by_scene
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_barycentrics_lead_back_to_the_pixel(scene: Scene, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    raster = rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near)
    pixels = pixel_centres(scene.image_size, clip)
    assert raster.depth.dtype == dtype and raster.face_id.dtype == torch.int64
    for image, row in enumerate(layout.tolist()):
        face_id = raster.face_id[image].flatten()
        hit = (face_id >= 0).nonzero()[:, 0]
        corners = face_corners(clip, faces, row)[face_id[hit]]
        point = (raster.barycentric[image].reshape(-1, 3)[hit][..., None] * corners).sum(dim=1)
        # Coordinates of the corners over those of the pixel: 1 for most, thousands for the huge triangle.
        size = float(corners.abs().max()) if len(hit) else 1.0
        assert (point[:, :2] / point[:, 3:] - pixels[hit]).abs().le(rounding_bound(dtype, size)).all()
        assert (point[:, 2] - raster.depth[image].flatten()[hit]).abs().le(rounding_bound(dtype, size)).all()


@pytest.mark.parametrize("scene", STEADY, ids=lambda s: s.name)
def test_gradient_of_depth_and_barycentrics_is_the_derivative(scene: Scene):
    clip, faces, layout = scene.tensors()

    def seen(at: torch.Tensor) -> torch.Tensor:
        raster = rasterize(at, faces, layout, image_size=scene.image_size, near=scene.near)
        hit = raster.face_id >= 0
        return torch.cat([raster.depth[hit], raster.barycentric[hit].flatten()])

    assert_gradient_is_derivative(seen, [clip], 1e-6)


@by_scene
def test_chunks_change_nothing(scene: Scene):
    clip, faces, layout = scene.tensors()
    whole = rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near)
    pieces = rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near, chunk=13)
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
@pytest.mark.parametrize("build", [orthographic, perspective])
def test_a_pixel_on_an_edge_or_a_vertex_is_covered(build, order: list[int]):
    # A 4×4 image has its pixel centres at ±1/4 and ±3/4. The triangle's corners are three of them.
    clip = build([[-0.75, -0.75, 2.0], [0.75, -0.75, 2.0], [-0.75, 0.75, 2.0]])
    face_id = rasterize(clip, torch.tensor([order]), torch.tensor([[0, 0, 1]]), image_size=(4, 4)).face_id[0]
    expected = torch.tensor([[0, -1, -1, -1], [0, 0, -1, -1], [0, 0, 0, -1], [0, 0, 0, 0]])
    assert torch.equal(face_id, expected)


def test_no_crack_along_a_shared_edge():
    # A fan of triangles about a generic point: every pixel of the image is in one of them, in float32 too.
    ring = [[3.0 * np.cos(a), 3.0 * np.sin(a), 2.0 + 0.3 * np.sin(3 * a)] for a in np.linspace(0.1, 6.2, 13)]
    clip = perspective([[0.0173, -0.0311, 1.7], *ring]).float()
    faces = torch.tensor([[0, i + 1, (i + 1) % 13 + 1] for i in range(13)])
    raster = rasterize(clip, faces, torch.tensor([[0, 0, 13]]), image_size=(64, 64))
    assert (raster.face_id >= 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_depths_go_to_the_lowest_face_index(dtype: torch.dtype):
    clip, faces, layout = BY_NAME["two coincident faces"].tensors(dtype)
    face_id = rasterize(clip, faces, layout, image_size=(16, 16)).face_id
    assert set(face_id.unique().tolist()) == {-1, 0}
    # Different triangles in one plane parallel to the image.
    flat = perspective(
        [[-0.9, -0.8, 1.7], [0.7, -0.9, 1.7], [0.1, 0.9, 1.7], [-0.7, 0.8, 1.7], [0.8, 0.6, 1.7], [0, -1, 1.7]]
    )
    both = rasterize(flat.to(dtype), torch.tensor([[0, 1, 2], [3, 4, 5]]), layout, image_size=(16, 16)).face_id
    alone = rasterize(flat.to(dtype), torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]), image_size=(16, 16)).face_id
    assert torch.equal(both == 0, alone == 0)
    assert (both == 1).any()


def test_depth_of_a_plane_is_known_in_closed_form():
    # Perspective: 1/depth is affine in the image. Orthographic: depth is. Here both planes pass through depth 2 at 0.
    rows = [[-0.8, -0.9], [0.9, -0.7], [-0.1, 0.9]]
    layout, faces = torch.tensor([[0, 0, 1]]), torch.tensor([[0, 1, 2]])
    clip = perspective([[x, y, 1 / (0.5 + 0.1 * x - 0.05 * y)] for x, y in rows])
    raster = rasterize(clip, faces, layout, image_size=(9, 9))
    x, y = pixel_centres((9, 9), clip).reshape(9, 9, 2).unbind(-1)
    hit = raster.face_id[0] >= 0
    assert hit.any()
    assert_close_relative((1 / raster.depth[0])[hit], (0.5 + 0.1 * x - 0.05 * y)[hit], rounding_bound(torch.float64))
    clip = orthographic([[x, y, 2 + 0.4 * x - 0.3 * y] for x, y in rows])
    raster = rasterize(clip, faces, layout, image_size=(9, 9))
    assert_close_relative(raster.depth[0][hit], (2 + 0.4 * x - 0.3 * y)[hit], rounding_bound(torch.float64))


@pytest.mark.parametrize(
    "name",
    ["octahedron", "one corner behind the near plane", "two overlapping, of opposite winding, one through the other"],
)
def test_permuting_faces_permutes_the_ids(name: str):
    scene = BY_NAME[name]
    clip, faces, layout = scene.tensors()
    order = torch.randperm(len(faces))
    raster = rasterize(clip, faces, layout, image_size=(24, 24), near=scene.near)
    shuffled = rasterize(clip, faces[order], layout, image_size=(24, 24), near=scene.near)
    hit = raster.face_id >= 0
    assert hit.any() and torch.equal(shuffled.face_id >= 0, hit)
    assert torch.equal(order[shuffled.face_id[hit]], raster.face_id[hit])
    assert torch.equal(shuffled.depth, raster.depth)
