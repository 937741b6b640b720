# SPDX-License-Identifier: Apache-2.0
"""Pixel centres exactly on an edge, at every SIMD level: whole numbers say which pixels a face covers.

Edges included, so that a pixel on a common edge belongs to both faces and no pixel to neither.
"""

import pytest
import torch

from geodiff import Camera, ops, plane, reference
from geodiff.native import cpu

# With a step 2/s that is not a binary fraction, (s/2)·(2/s) rounds off 1 at 41, 47 and 83 in float32, at 49, 98 and 103
# in float64.
SIZES = [(5, 6), (6, 5), (7, 7), (41, 42), (43, 47), (48, 49), (50, 49), (84, 83), (98, 100), (104, 103)]
MODULES = {"kernel": ops, "twin": reference}
by_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
by_size = pytest.mark.parametrize("size", SIZES, ids=str)


@pytest.fixture(autouse=True, params=cpu.simd_levels())
def level(request: pytest.FixtureRequest):
    """Use one SIMD level after the other."""
    before = cpu.simd_level()
    cpu.extension().set_simd_level(request.param)
    yield request.param
    cpu.extension().set_simd_level(before)


def orthographic(rows, dtype: torch.dtype) -> torch.Tensor:
    xy = torch.as_tensor(rows, dtype=dtype)
    return torch.cat([xy, torch.full_like(xy[:, :1], 2.0), torch.ones_like(xy[:, :1])], dim=1)


def expected_mask(size: tuple[int, int], rows: int, columns: int) -> torch.Tensor:
    """Whether `|2j + 1 − W| ≤ columns` and `|2i + 1 − H| ≤ rows`: centres in a rectangle, by whole numbers alone."""
    x = (2 * torch.arange(size[1]) + 1 - size[1]).abs() <= columns
    y = (2 * torch.arange(size[0]) + 1 - size[0]).abs() <= rows
    return y[:, None] & x


def masks(clip: torch.Tensor, faces: torch.Tensor, size: tuple[int, int], module) -> dict[str, torch.Tensor]:
    """What each hard output takes for covered."""
    layout = torch.tensor([[0, 0, len(faces)]])
    pack = clip, faces, layout
    shown = torch.zeros(size, dtype=torch.bool)
    found = module.visible(*pack, image_size=size)
    shown.view(-1)[found.place] = found.inside
    soft = dict(distribution="heaviside", scale=1.0, image_size=size)
    return {
        "rasterize": module.rasterize(*pack, image_size=size).face_id[0] >= 0,
        "fragments": module.fragments(*pack, k=1, image_size=size).face_id[0, ..., 0] >= 0,
        "two fragments": module.fragments(*pack, k=2, image_size=size).face_id[0, ..., 0] >= 0,
        "fragments with blur": module.fragments(*pack, blur=0.5, order="visible", image_size=size).distance[0, ..., 0]
        >= 0,
        "visible": shown,
        "silhouette": module.silhouette(*pack, tconorm="maximum", **soft)[0] == 1,
        "edges": module.silhouette(*pack, tconorm="maximum", coverage="edges", **soft)[0] == 1,
        "contour": module.contour(*pack, **soft)[0] == 1,
    }


@by_dtype
@by_size
@pytest.mark.parametrize("module", MODULES)
def test_borders_on_pixel_centres(size: tuple[int, int], dtype: torch.dtype, module: str, level: str):
    if module == "twin" and level != "baseline":
        return  # the twin has no levels
    short = min(size)
    square = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    halves = torch.tensor([[0, 1, 2], [0, 2, 3]])
    wanted = expected_mask(size, short, short)
    for faces in (halves, halves.flip(1), torch.tensor([[0, 1, 3], [2, 3, 1]])):
        for name, mask in masks(orthographic(square, dtype), faces, size, MODULES[module]).items():
            assert torch.equal(mask, wanted), f"{name}: {int((mask != wanted).sum())} of {mask.numel()} pixels"


@by_dtype
@by_size
def test_any_rectangle_on_pixel_centres(size: tuple[int, int], dtype: torch.dtype):
    # Its corners are places of pixel centres, k/s, rounded as every number is.
    short = min(size)
    rows, columns = size[0] // 2 * 2 - size[0] % 2 - 3 * (short > 9), size[1] - 3
    corners = (
        torch.tensor([[-columns, -rows], [columns, -rows], [columns, rows], [-columns, rows]], dtype=dtype) / short
    )
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]])
    wanted = expected_mask(size, rows, columns)
    for name, mask in masks(orthographic(corners, dtype), faces, size, ops).items():
        assert torch.equal(mask, wanted), name


@by_dtype
@pytest.mark.parametrize("size", [100, 101, 200, 333])
def test_diagonals_through_pixel_centres_leave_no_holes(size: int, dtype: torch.dtype):
    # Squares of 1.8/7 whose diagonals pass through centres: fused products saw those outside of both halves.
    k = torch.linspace(-0.9, 0.9, 8, dtype=torch.float64)
    y, x = torch.meshgrid(k, k, indexing="ij")
    corner = (torch.arange(7)[:, None] * 8 + torch.arange(7)).flatten()
    faces = torch.cat(
        [torch.stack([corner, corner + 1, corner + 9], 1), torch.stack([corner, corner + 9, corner + 8], 1)]
    )
    clip = orthographic(torch.stack([x, y], -1).reshape(-1, 2), dtype)
    inner = expected_mask((size, size), int(0.9 * size - 1), int(0.9 * size - 1))
    for name, mask in masks(clip, faces, (size, size), ops).items():
        if name != "edges":
            assert mask[inner].all(), f"{name}: {int((~mask[inner]).sum())} holes"
    both = ops.fragments(clip, faces, torch.tensor([[0, 0, len(faces)]]), k=3, image_size=(size, size)).face_id[0]
    one = ops.rasterize(clip, faces, torch.tensor([[0, 0, len(faces)]]), image_size=(size, size)).face_id[0]
    assert torch.equal(both[..., 0] >= 0, one >= 0)


def test_large_faces_around_a_point_leave_no_holes(level: str):
    # float32 and a million pixels: where both faces at an edge rounded for themselves, a few fell between them.
    random = torch.Generator().manual_seed(0)
    count = 13
    holes = 0
    for _ in range(4 if level != "baseline" else 2):
        angle = torch.arange(count) * (2 * torch.pi / count) + torch.rand(1, generator=random)
        rim = 4 * torch.stack([angle.cos(), angle.sin()], 1)
        clip = orthographic(torch.cat([0.5 * torch.randn(1, 2, generator=random), rim]), torch.float32)
        i = torch.arange(count)
        faces = torch.stack([0 * i, i + 1, (i + 1) % count + 1], 1)
        model = dict(distribution="heaviside", tconorm="maximum", scale=1.0, image_size=(600, 600))
        holes += int((ops.silhouette(clip, faces, torch.tensor([[0, 0, count]]), **model) == 0).sum())
    assert holes == 0


def test_the_default_orthographic_camera():
    mesh = plane(2.0)
    clip = Camera.orthographic().to_clip(mesh.vertices)
    for size in ((5, 6), (12, 15), (49, 50)):  # (12, 15): 4 × 5 pixels of 3 × 3 samples
        for name, mask in masks(clip, mesh.faces, size, ops).items():
            assert torch.equal(mask, expected_mask(size, min(size), min(size))), f"{name}, {size}"
