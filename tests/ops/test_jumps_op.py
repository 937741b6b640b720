# SPDX-License-Identifier: Apache-2.0
"""Where hard images jump: the kernel against its twin, closed cases, every message."""

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference
from geodiff.native.gpu import emulated
from geodiff.reference.jumps import Jumps
from tests.contour_scenes import SHAPES
from tests.scenes import SCENES

by_module = pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])


def entries(found: Jumps) -> tuple[list, list]:
    edges = sorted(zip(*(part.tolist() for part in found[:3]), strict=True))
    return edges, sorted(zip(*(part.tolist() for part in found[3:]), strict=True))


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("creases", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("scene", [*SCENES, *SHAPES], ids=lambda s: s.name)
def test_kernel_and_twin_find_the_same(scene, dtype: torch.dtype, creases: bool):
    clip, faces, layout = scene.tensors(dtype)
    face_id = ops.rasterize(clip, faces, layout, image_size=(23, 19), near=scene.near).face_id
    packed, options = (clip, faces, layout, face_id), {"near": scene.near, "creases": creases}
    kernels, twins = (entries(module.jumps(*packed, **options)) for module in (ops, reference))
    for kernel, twin in zip(kernels, twins, strict=True):
        # Where three surfaces are in one place, rounding says which is in front; that is in one of these scenes, once.
        different = {str(entry) for entry in kernel} ^ {str(entry) for entry in twin}
        assert len(different) <= 1 and (not different or scene.name == "crumpled sphere")


@pytest.mark.parametrize("order", ["forward", "shuffled"])
def test_a_gpu_lists_the_same(order: str):
    """Also in the same order, of several images, whose creases come after their edges."""
    clip, faces, layout = icospheres()
    face_id = ops.rasterize(clip, faces, layout, image_size=(40, 31)).face_id
    expected = ops.jumps(clip, faces, layout, face_id, creases=True)
    with emulated(order):
        found = ops.jumps(clip, faces, layout, face_id, creases=True)
    assert len(found.pixels) > 300 and len(found.corners) > 10
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def icospheres() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two images of two balls each, of which the second has fewer faces."""
    parts = [two_balls(0.6, 8)[:2], two_balls(0.5, 8, 2)[:2]]
    counts, sizes = ([len(part[i]) for part in parts] for i in (1, 0))
    layout = torch.tensor([[0, 0, counts[0]], [sizes[0], counts[0], counts[1]]])
    return torch.cat([clip for clip, _ in parts]), torch.cat([faces for _, faces in parts]), layout


def two_balls(apart: float, size: int, depth: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    ball = gd.icosphere(depth)
    vertices = torch.cat([0.6 * ball.vertices, 0.6 * ball.vertices + torch.tensor([apart, 0.0, 0.0])])
    faces = torch.cat([ball.faces, ball.faces + len(ball.vertices)])
    clip = gd.Camera.look_at((0.3, 0.0, 3.0), (0.3, 0.0, 0.0), fov_deg=50.0).to_clip(vertices)
    layout = torch.tensor([[0, 0, len(faces)]])
    return clip, faces, layout, ops.rasterize(clip, faces, layout, image_size=(size, size)).face_id


@by_module
def test_a_closed_surface_jumps_at_its_outline_alone(module):
    clip, faces, layout, face_id = two_balls(5.0, 96)  # the other one is out of the picture
    found = module.jumps(clip, faces, layout, face_id)
    seen = face_id.reshape(-1)[found.pixels] >= 0
    assert len(found.pixels) > 100 and bool((seen.sum(dim=1) == 1).all()) and len(found.corners) == 0
    across = (face_id[..., 1:] >= 0) != (face_id[..., :-1] >= 0)
    down = (face_id[:, 1:] >= 0) != (face_id[:, :-1] >= 0)
    assert len(found.pixels) == int(across.sum() + down.sum())
    assert bool((found.share == 1).all())


@pytest.mark.usefixtures("backend")
@by_module
def test_balls_that_go_through_each_other_meet_half_way(module):
    clip, faces, layout, face_id = two_balls(0.6, 96)
    found = module.jumps(clip, faces, layout, face_id)
    assert len(found.corners) > 30
    columns = found.meeting_pixels % 96
    assert bool((columns.double().mean(dim=1) - 47.5).abs().max() <= 1)  # by symmetry, on the plane x = 0.3


@pytest.mark.usefixtures("backend")
@by_module
def test_creases_are_those_between_faces(module):
    clip, faces, layout, face_id = two_balls(5.0, 64)
    with_creases = module.jumps(clip, faces, layout, face_id, creases=True)
    inside = (face_id.reshape(-1)[with_creases.pixels] >= 0).all(dim=1)
    corner = faces[face_id.reshape(-1).clamp(min=0)]
    p, q = with_creases.pixels[inside].unbind(1)
    shared = (corner[p][:, :, None] == corner[q][:, None]).any(-1).sum(-1) == 2
    ends = with_creases.ends[inside][shared]
    assert len(ends) > 100
    for vertex in ends.unbind(1):
        assert bool((corner[p[shared]] == vertex[:, None]).any(-1).all())


@by_module
def test_messages(module):
    clip, faces, layout, face_id = two_balls(5.0, 8)
    with pytest.raises(TypeError, match=r"jumps: `face_id` must be int64, as rasterize returns it; got"):
        module.jumps(clip, faces, layout, face_id.int())
    with pytest.raises(ValueError, match=r"jumps: `face_id` must be of shape \(1, H, W\), one image a row of layout"):
        module.jumps(clip, faces, layout, face_id[0])
    with pytest.raises(ValueError, match=r"jumps: `edges` must be int32 of shape \(2560, 3\); got.*edge_cycles"):
        module.jumps(clip, faces, layout, face_id, edges=faces)
    with pytest.raises(ValueError, match=r"jumps: `face_id` must be "):
        module.jumps(clip, faces, layout, face_id + 3000)


def test_no_gradient_of_its_own():
    clip, faces, layout, face_id = two_balls(5.0, 8)
    edges = reference.edge_cycles(faces, layout)
    arguments = (faces.int(), layout, edges, face_id, 1e-2, False)
    share = torch.ops.geodiff.jumps(clip.requires_grad_(), *arguments)[2]
    with pytest.raises(RuntimeError, match=r"geodiff::jumps has no gradient. geodiff.render.visibility"):
        share.sum().backward()


@by_module
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("cells", [1, 3, 5])
def test_a_flat_sheet_on_pixel_centres_jumps_at_its_border_alone(module, dtype: torch.dtype, cells: int):
    # Its corners are whole steps of half a pixel, so that most sides go through centres.
    for size in (8, 9, 13):
        for shift in (0, 1, -3):
            grid = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
            y, x = torch.meshgrid(grid, grid, indexing="ij")
            xy = torch.stack([1.4 * x.reshape(-1) - 0.7 + shift / size, 1.5 * y.reshape(-1) - 0.75], dim=1)
            xy = (xy * size).round() / size
            clip = torch.cat([xy, torch.full((len(xy), 1), 2.0), torch.ones(len(xy), 1)], dim=1).to(dtype)
            i = torch.arange(cells * (cells + 1)).reshape(cells, cells + 1)[:, :-1].reshape(-1)
            lower, upper = [i, i + 1, i + cells + 2], [i, i + cells + 2, i + cells + 1]
            faces, layout = (
                torch.cat([torch.stack(lower, 1), torch.stack(upper, 1)]),
                torch.tensor([[0, 0, 2 * cells**2]]),
            )
            face_id = ops.rasterize(clip, faces, layout, image_size=(size, size)).face_id
            found = module.jumps(clip, faces, layout, face_id)
            seen = face_id.reshape(-1)[found.pixels] >= 0
            # Where a row of centres lies on a side, what is next to its end is for rounding to say: once a corner.
            assert int((seen.sum(dim=1) == 2).sum()) <= 4 and int((seen.sum(dim=1) == 1).sum()) >= size
