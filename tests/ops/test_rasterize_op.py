# SPDX-License-Identifier: Apache-2.0
"""The hard rasteriser's kernel against its twin, and what it promises: no pinholes, ties to the lowest index."""

import math

import pytest
import torch

from geodiff import icosphere, ops, reference
from geodiff.native.gpu import emulated
from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from tests.helpers import assert_close_relative
from tests.scenes import BY_NAME, SCENES, Scene, orthographic, perspective

by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
by_dtype = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)


def near_an_edge(clip, faces, layout, size, near: float, width: float) -> torch.Tensor:
    """Pixels so near an edge of any face that rounding decides their side, `(B, H, W)`."""
    pixels = pixel_centres(size, clip)
    bands = []
    for row in layout.tolist():
        polygons = near_clip(face_corners(clip, faces, row), near)
        bands.append((signed_distance(pixels, polygons).abs() < width).any(dim=1))
    return torch.stack(bands).reshape(-1, *size) if bands else torch.zeros(0, *size, dtype=torch.bool)


def assert_same_image(clip, faces, layout, size, near: float, ties: bool = False) -> None:
    eps = torch.finfo(clip.dtype).eps
    got = ops.rasterize(clip, faces, layout, image_size=size, near=near)
    wanted = reference.rasterize(clip.double(), faces, layout, image_size=size, near=near)
    assert got.face_id.dtype == torch.int64 and got.depth.dtype == got.barycentric.dtype == clip.dtype
    # Edges that the near plane cuts lie where its cut rounds to: some hundred roundings.
    band = near_an_edge(clip.double(), faces, layout, size, near, 1e3 * eps)
    assert band.numel() == 0 or band.double().mean() < 0.5
    nearer = torch.where(torch.isfinite(wanted.depth), wanted.depth, 1.0)
    if not ties:
        # Another face may win only where two are equally deep but for rounding: where they cross, or at an edge.
        other = (got.face_id != wanted.face_id) & ~band
        assert (other & ~((got.depth - wanted.depth).abs() <= 100 * eps * nearer)).sum() == 0
    same = (got.face_id == wanted.face_id) & ~band
    hit = same & (wanted.face_id >= 0)
    assert same.double().mean() > 0.5 or same.numel() == 0
    assert torch.isinf(got.depth[same & ~hit]).all() and (got.barycentric[same & ~hit] == 0).all()
    # A face seen edge-on has barycentrics as rough as its slope is steep.
    assert_close_relative(got.depth[hit], wanted.depth[hit], 1e4 * eps, "depth")
    assert_close_relative(got.barycentric[hit], wanted.barycentric[hit], 1e4 * eps, "barycentric")


@pytest.mark.usefixtures("backend")
@by_scene
@by_dtype
def test_kernel_is_its_twin_on_every_scene(scene: Scene, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    if scene.name == "pixels exactly on an edge":
        got = ops.rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near)
        wanted = reference.rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near)
        assert torch.equal(got.face_id, wanted.face_id)
        return
    assert_same_image(clip, faces, layout, scene.image_size, scene.near, scene.ties)


@pytest.mark.parametrize("seed", range(6))
@by_dtype
def test_kernel_is_its_twin_on_random_triangles(seed: int, dtype: torch.dtype):
    random = torch.Generator().manual_seed(seed)
    points = torch.randn(40, 3, generator=random, dtype=torch.float64)
    depth = 1.0 + points[:, 2:]  # a sixth of them is behind the camera
    clip = torch.cat([points[:, :2], depth, depth if seed % 2 else torch.ones_like(depth)], dim=1).to(dtype)
    faces = torch.randint(0, 40, (30, 3), generator=random)
    layout = torch.tensor([[0, 0, 30]])
    assert_same_image(clip, faces, layout, (13, 17), 0.125)


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("scene", [s for s in SCENES if s.covered is not None], ids=lambda s: s.name)
@by_dtype
def test_number_of_covered_pixels(scene: Scene, dtype: torch.dtype):
    clip, faces, layout = scene.tensors(dtype)
    mask = ops.rasterize(clip, faces, layout, image_size=scene.image_size, near=scene.near).face_id >= 0
    assert mask.sum(dim=(1, 2)).tolist() == list(scene.covered)


@pytest.mark.usefixtures("backend")
@by_dtype
def test_ties_go_to_the_lowest_index(dtype: torch.dtype):
    clip, faces, layout = BY_NAME["two coincident faces"].tensors(dtype)
    for order in (faces, faces.flip(0), faces[:, [1, 2, 0]], faces[:, [1, 0, 2]]):
        face_id = ops.rasterize(clip, order, layout, image_size=(16, 16)).face_id
        assert set(face_id.unique().tolist()) == {-1, 0}


@by_dtype
def test_depth_and_barycentrics_put_the_point_together(dtype: torch.dtype):
    clip, faces, layout = BY_NAME["octahedron"].tensors(dtype)
    raster = ops.rasterize(clip, faces, layout, image_size=(31, 23))
    hit = raster.face_id[0] >= 0
    corners = clip[faces[raster.face_id[0][hit]]].double()
    point = (raster.barycentric[0][hit].double()[..., None] * corners).sum(dim=1)
    pixels = pixel_centres((31, 23), clip.double()).reshape(31, 23, 2)[hit]
    bound = 1e4 * torch.finfo(dtype).eps
    assert_close_relative(point[:, :2] / point[:, 3:], pixels, bound)
    assert_close_relative(point[:, 2], raster.depth[0][hit], bound)
    assert_close_relative(raster.barycentric[0][hit].sum(dim=1), torch.ones(int(hit.sum())), bound)


# No pinholes ---------------------------------------------------------------------------------------------------------


@by_dtype
@pytest.mark.parametrize("seed", range(8))
def test_a_plane_of_many_faces_has_no_pinholes(seed: int, dtype: torch.dtype):
    # A jittered grid over the whole image, in random order and of random windings, tilted: every pixel is on some face.
    random = torch.Generator().manual_seed(seed)
    n = 24
    side = torch.linspace(-1.7, 1.7, n, dtype=torch.float64)
    x, y = torch.meshgrid(side, side, indexing="xy")
    grid = torch.stack([x, y], dim=-1).reshape(-1, 2)
    if seed % 2:  # else edges run through pixel centres, again and again
        grid += 0.02 * torch.randn(grid.shape, generator=random, dtype=torch.float64)
    depth = 2.0 + 0.3 * grid[:, :1] - 0.4 * grid[:, 1:]
    clip = torch.cat([grid * depth, depth, depth], dim=1).to(dtype)
    corner = (torch.arange(n - 1)[:, None] * n + torch.arange(n - 1)).flatten()
    faces = torch.cat(
        [torch.stack([corner, corner + 1, corner + n], 1), torch.stack([corner + 1, corner + n, corner + n + 1], 1)]
    )
    faces = faces[torch.randperm(len(faces), generator=random)]
    turned = torch.rand(len(faces), generator=random) < 0.5
    faces = torch.where(turned[:, None], faces.flip(1), faces)
    layout = torch.tensor([[0, 0, len(faces)]])
    raster = ops.rasterize(clip, faces, layout, image_size=(120, 120))
    assert (raster.face_id >= 0).all(), f"{int((raster.face_id < 0).sum())} pinholes"
    # The plane: depth = 2 + 0.3 X − 0.4 Y at NDC (X, Y), since a point's (x, y)·depth has it so.
    pixels = pixel_centres((120, 120), clip.double())
    expected = 2.0 + 0.3 * pixels[:, 0] - 0.4 * pixels[:, 1]
    if not seed % 2:
        # Linear over a face only in 1/depth: within a face of size h it bends by a little.
        assert float((raster.depth.flatten().double() - expected).abs().max()) < 0.02


@pytest.mark.usefixtures("backend")
@by_dtype
@pytest.mark.parametrize("near", [0.125, 1.55], ids=["whole", "cut by the near plane"])
def test_a_closed_convex_mesh_has_no_pinholes(dtype: torch.dtype, near: float):
    mesh = icosphere(3)
    random = torch.Generator().manual_seed(3)
    turn = torch.linalg.qr(torch.randn(12, 3, 3, generator=random, dtype=torch.float64))[0]
    points = mesh.vertices.double() @ turn
    depth = 2.5 - points[..., 2:]
    clip = torch.cat([points[..., :2], depth, depth], dim=-1).to(dtype).reshape(-1, 4)
    layout = mesh.layout_for(12)
    mask = ops.rasterize(clip, mesh.faces, layout, image_size=(90, 90), near=near).face_id >= 0
    # The silhouette of the sphere inscribed in the mesh: sin θ = r/distance. The near plane opens a hole in front, but
    # the back closes it.
    inner = float((mesh.vertices[mesh.faces].double().mean(dim=1)).norm(dim=1).min())
    radius = math.tan(math.asin(inner / 2.5))
    inside = pixel_centres((90, 90), clip.double()).norm(dim=1).reshape(90, 90) < radius * 0.999
    assert inside.sum() > 900
    assert mask[:, inside].all(), f"{int((~mask[:, inside]).sum())} pinholes"


@pytest.mark.usefixtures("backend")
@by_dtype
def test_neighbours_share_the_cut_of_their_edge(dtype: torch.dtype):
    # A fan of faces around a point in front of the camera, all cut by the near plane: the cuts must meet.
    random = torch.Generator().manual_seed(8)
    for _ in range(20):
        angle = torch.arange(9, dtype=torch.float64) * (2 * math.pi / 9) + torch.rand(1, generator=random)
        rim = torch.stack([3 * angle.cos(), 3 * angle.sin(), torch.full_like(angle, -0.5)], dim=1)
        hub = torch.cat([0.1 * torch.randn(1, 2, generator=random, dtype=torch.float64), torch.ones(1, 1)], dim=1)
        points = torch.cat([hub, rim]).to(dtype)
        clip = torch.cat([points, points[:, 2:]], dim=1)
        first = torch.arange(9)
        faces = torch.stack([torch.zeros(9, dtype=torch.int64), first + 1, (first + 1) % 9 + 1], dim=1)
        turned = torch.rand(9, generator=random) < 0.5
        faces = torch.where(turned[:, None], faces.flip(1), faces)
        mask = ops.rasterize(clip, faces, torch.tensor([[0, 0, 9]]), image_size=(64, 64), near=0.125).face_id >= 0
        assert mask.all()


@pytest.mark.usefixtures("backend")
def test_pixels_on_an_edge_are_covered():
    # Edges along pixel centres, from both sides: x = −0.25 and y = 0.25 in a 4 × 4 image.
    clip = orthographic([[-0.25, 0.25, 2.0], [3.0, 0.25, 2.0], [-0.25, -3.0, 2.0]])
    mask = ops.rasterize(clip, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]), image_size=(4, 4)).face_id[0] == 0
    assert mask.tolist() == [
        [False] * 4,
        [False, True, True, True],
        [False, True, True, True],
        [False, True, True, True],
    ]


def sizes(seed: int, counts: tuple[int, ...], largest: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of faces of that size, or of all sizes up to it, some of them none at all."""
    draw, total = torch.Generator().manual_seed(seed), sum(counts)
    size = torch.rand(total, 1, 1, generator=draw) ** (2 if seed % 2 else 0.1)
    size = largest * size * (torch.rand(total, 1, 1, generator=draw) < 0.9)
    at = 2.4 * torch.rand(total, 1, 2, generator=draw) - 1.2 + size * torch.randn(total, 3, 2, generator=draw)
    depth = 1 + torch.rand(total, 3, 1, generator=draw)
    clip = torch.cat([at * depth, depth, depth], dim=2).reshape(-1, 4)
    layout, first = [], 0
    for count in counts:
        layout.append([0, first, count])
        first += count
    return clip, torch.arange(3 * total).reshape(-1, 3), torch.tensor(layout)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
@by_dtype
def test_warps_that_share_their_faces_pixels_see_what_the_cpu_sees(seed: int, order: str, dtype: torch.dtype):
    # Warps across images and beyond the last face; with pixels for all lanes, for few, for too many; and larger faces.
    counts = [(45, 0, 30), (33,), (5, 70), (64, 64)][seed % 4]
    clip, faces, layout = sizes(seed, counts, [0.22, 0.3, 0.2, 0.4, 0.12, 0.6, 0.25, 0.8][seed])
    given = {"image_size": (61, 90), "near": 0.1}
    wanted = ops.rasterize(clip.to(dtype), faces, layout, **given)
    assert 0.02 < (wanted.face_id >= 0).double().mean() < 0.99
    with emulated(order):
        got = ops.rasterize(clip.to(dtype), faces, layout, **given)
    assert torch.equal(got.face_id, wanted.face_id)
    there = wanted.face_id >= 0
    assert_close_relative(got.depth[there], wanted.depth[there], 1e3 * torch.finfo(dtype).eps)


def test_no_gradient():
    clip = perspective([[-3.0, -3.0, 2.0], [3.0, -3.0, 2.0], [0.0, 3.0, 2.0]]).requires_grad_()
    raster = ops.rasterize(clip, torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]), image_size=(2, 2))
    assert not raster.depth.requires_grad and not raster.barycentric.requires_grad
