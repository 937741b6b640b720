# SPDX-License-Identifier: Apache-2.0
"""Near clipping against a loop written by hand, signed distance against a sampled boundary."""

import itertools
import math

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.polygons import near_clip, signed_distance
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, rounding_bound
from tests.scenes import SCENES, Scene, perspective

by_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda s: s.name)
by_smooth_scene = pytest.mark.parametrize("scene", [s for s in SCENES if not s.kink], ids=lambda s: s.name)


def clip_by_hand(corners: np.ndarray, near: float) -> np.ndarray:
    """One triangle (3, 4) against the near plane, one corner after another: NDC points of what is left."""
    kept = []
    for i in range(3):
        a, b = corners[i], corners[(i + 1) % 3]
        if a[2] > near:
            kept.append(a)
        if (a[2] > near) != (b[2] > near):
            kept.append(a + (near - a[2]) / (b[2] - a[2]) * (b - a))
    return np.array([[x / w, y / w, depth, w] for x, y, depth, w in kept]).reshape(-1, 4)


def is_thin(points: np.ndarray) -> bool:
    """The rule for degenerate polygons, from the shoelace formula over absolute coordinates."""
    if len(points) < 3:
        return True
    x, y = points[:, 0], points[:, 1]
    doubled = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))
    longest = max(np.sum((points[i, :2] - points[i - 1, :2]) ** 2) for i in range(len(points)))
    return doubled <= 8 * np.finfo(np.float64).eps * longest


@by_scene
def test_near_clip_is_clipping_by_hand(scene: Scene):
    clip, faces, layout = scene.tensors()
    for row, drawn in zip(layout.tolist(), scene.drawn, strict=True):
        corners = face_corners(clip, faces, row)
        polygons = near_clip(corners, scene.near)
        assert int((polygons.counts > 0).sum()) == drawn
        for face, triangle in enumerate(corners.numpy()):
            truth = clip_by_hand(triangle, scene.near)
            count = int(polygons.counts[face])
            assert count == (0 if is_thin(truth) else len(truth))
            for got, column in ((polygons.points[face], [0, 1]), (polygons.depth[face], 2), (polygons.w[face], 3)):
                # Both cut in float64, from opposite ends of the edge and at depths down to an eighth.
                wanted = torch.from_numpy(truth[:count, column])
                assert_close_relative(got[:count], wanted, rounding_bound(torch.float64, 8))


@by_smooth_scene
def test_near_clip_gradient_is_its_derivative(scene: Scene):
    clip, faces, layout = scene.tensors()
    for row in layout.tolist():
        corners = face_corners(clip, faces, row)
        drawn = (near_clip(corners, scene.near).counts > 0).nonzero()[:, 0]
        if len(drawn):
            for part in ("points", "depth", "w"):
                assert_gradient_is_derivative(
                    lambda c, part=part, drawn=drawn: getattr(near_clip(c, scene.near), part)[drawn], [corners], 1e-6
                )


@by_scene
def test_gradients_of_everything_are_finite(scene: Scene):
    clip, faces, layout = scene.tensors()
    pixels = pixel_centres(scene.image_size, clip).requires_grad_()
    for row in layout.tolist():
        for squared, start in itertools.product((False, True), range(3)):
            corners = face_corners(clip, faces, row).roll(start, dims=1).requires_grad_()
            polygons = near_clip(corners, scene.near)
            drawn = polygons.counts > 0
            total = signed_distance(pixels, polygons, squared=squared)[:, drawn].sum()
            at_corners, at_pixels = torch.autograd.grad(total, [corners, pixels])
            assert torch.isfinite(at_corners).all() and torch.isfinite(at_pixels).all()
            assert (at_corners[~drawn] == 0).all()


def test_neighbours_share_the_cut():
    # Two faces on either side of an edge, walked in opposite directions: without this there would be a crack.
    clip = torch.tensor([[0.3, 0.7, 1.9, 1.9], [-0.4, -0.2, -0.7, -0.7], [1.3, 0.1, 2.0, 2.0], [-1.0, 0.4, 3.0, 3.0]])
    polygons = near_clip(clip[torch.tensor([[0, 1, 2], [1, 0, 3]])], 0.125)
    shared = {tuple(p) for p in polygons.points[0].tolist()} & {tuple(p) for p in polygons.points[1].tolist()}
    assert len(shared) == 2


def winding_angle(points: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """Sum of the angles under which points (M, 2) see the edges of a polygon (n, 2): ±2π inside, 0 outside."""
    a = vertices - points[:, None]
    b = np.roll(vertices, -1, axis=0) - points[:, None]
    return np.arctan2(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], (a * b).sum(-1)).sum(-1)


@by_scene
def test_signed_distance_is_that_to_the_sampled_boundary(scene: Scene):
    clip, faces, layout = scene.tensors()
    pixels = pixel_centres(scene.image_size, clip)
    samples = np.linspace(0, 1, 2001)[:, None]
    for row in layout.tolist():
        polygons = near_clip(face_corners(clip, faces, row), scene.near)
        plain = signed_distance(pixels, polygons)
        squared = signed_distance(pixels, polygons, squared=True)
        assert_close_relative(
            squared[:, polygons.counts > 0],
            (plain * plain.abs())[:, polygons.counts > 0],
            rounding_bound(torch.float64, 10),
        )
        for face, count in enumerate(polygons.counts.tolist()):
            got = plain[:, face].numpy()
            if count == 0:
                assert (got == -np.inf).all()
                continue
            vertices = polygons.points[face, :count].numpy()
            edges = np.roll(vertices, -1, axis=0) - vertices
            boundary = (vertices[:, None] + samples * edges[:, None]).reshape(-1, 2)
            nearest = np.sqrt(((pixels.numpy()[:, None] - boundary) ** 2).sum(-1).min(1))
            # The nearest sample is farther than the boundary, by at most half the spacing; far from the boundary
            # only by its square over twice the distance.
            half = np.sqrt((edges**2).sum(-1).max()) / 4000
            assert (nearest >= np.abs(got) - 1e-12 * (1 + nearest)).all()
            assert (np.abs(got) >= nearest - np.minimum(half, half**2 / np.maximum(nearest, 1e-300) / 1.9)).all()
            clear = np.abs(got) > 1e-9
            assert ((np.abs(winding_angle(pixels.numpy(), vertices)) > 3) == (got > 0))[clear].all()


def test_pixel_centres_of_a_wide_and_of_a_tall_image():
    like = torch.zeros(1, dtype=torch.float64)
    wide = pixel_centres((2, 3), like)
    assert wide.tolist() == [[-1, 0.5], [0, 0.5], [1, 0.5], [-1, -0.5], [0, -0.5], [1, -0.5]]
    tall = pixel_centres((4, 1), like)
    assert tall.tolist() == [[0, 3], [0, 1], [0, -1], [0, -3]]


def triangle(rows: list[list[float]]):
    return near_clip(perspective([[x, y, 2.0] for x, y in rows])[None], 0.125)


@pytest.mark.parametrize("clockwise", [False, True])
@pytest.mark.parametrize("at", [0.25, 0.5, 0.9375])
def test_gradient_exactly_on_an_edge_is_its_normal(at: float, clockwise: bool):
    rows = [[0.0, 0.0], [1.0, 0.5], [-0.25, 1.0]]
    edge = torch.tensor(rows[1], dtype=torch.float64)
    polygons = triangle(rows[::-1] if clockwise else rows)
    point = (at * edge)[None].requires_grad_()
    distance = signed_distance(point, polygons)
    assert distance.item() == 0
    normal = torch.stack([-edge[1], edge[0]]) / edge.norm()
    assert_close_relative(torch.autograd.grad(distance.sum(), point)[0][0], normal, rounding_bound(torch.float64))


@pytest.mark.parametrize("vertex", [0, 1, 2])
@pytest.mark.parametrize("clockwise", [False, True])
def test_gradient_exactly_on_a_vertex_lies_between_the_one_sided_derivatives(vertex: int, clockwise: bool):
    rows = [[0.125, -0.25], [1.0, 0.5], [-0.25, 1.0]]
    polygons = triangle(rows[::-1] if clockwise else rows)
    point = torch.tensor([rows[vertex]], dtype=torch.float64, requires_grad=True)
    distance = signed_distance(point, polygons)
    assert distance.item() == 0
    (gradient,) = torch.autograd.grad(distance.sum(), point)
    assert gradient.norm().item() == pytest.approx(1, rel=1e-14)
    angles = torch.linspace(0, 6.2, 40, dtype=torch.float64)
    ways = torch.stack([angles.cos(), angles.sin()], dim=1)
    step = 1e-6
    ahead = signed_distance(point.detach() + step * ways, polygons)[:, 0] / step
    back = -signed_distance(point.detach() - step * ways, polygons)[:, 0] / step
    slope = ways @ gradient[0]
    # Near the vertex the distance is linear along a ray (a cone), so these quotients are exact up to rounding / step.
    slack = 1e-9
    assert ((slope >= torch.minimum(ahead, back) - slack) & (slope <= torch.maximum(ahead, back) + slack)).all()
    assert signed_distance(point, polygons, squared=True).item() == 0


def test_squared_distance_has_no_gradient_on_the_boundary():
    polygons = triangle([[0.0, 0.0], [1.0, 0.5], [-0.25, 1.0]])
    points = torch.tensor([[0.0, 0.0], [0.5, 0.25]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(signed_distance(points, polygons, squared=True).sum(), points)
    assert (gradient == 0).all()


@pytest.mark.parametrize("offset", [2.0**-k for k in range(20, 53, 4)])
def test_corner_barely_behind_the_near_plane_cuts_nothing_off(offset: float):
    # The two cuts are so near each other that rounding decides the direction of the edge between them.
    rows = [[-0.9, 0.3, 1.5, 1.5], [0.8, 0.45, 1.75, 1.75], [0.031, -0.0617, 0.125 - offset, 0.125 - offset]]
    corners = torch.tensor(rows, dtype=torch.float64)[None]
    whole = corners.clone()
    whole[0, 2, 2:] = 0.125 * (1 + 1e-15)
    pixels = pixel_centres((16, 16), corners)
    clipped, unclipped = near_clip(corners, 0.125), near_clip(whole, 0.125)
    assert clipped.counts.item() == 4 and unclipped.counts.item() == 3
    difference = signed_distance(pixels, clipped) - signed_distance(pixels, unclipped)
    # The corner moves by offset over depth², times coordinates of order one.
    assert difference.abs().max() <= 1e-13 + 200 * offset


def test_distance_of_a_small_triangle_far_out_keeps_its_relative_accuracy():
    # In float32 the coordinates are exact; an inverse matrix would lose the 1e-6 beside the 4.
    rows = [[4.0, 4.0, 1, 1], [4 + 2.0**-20, 4.0, 1, 1], [4.0, 4 + 2.0**-20, 1, 1]]
    corners = torch.tensor(rows)[None]
    inside = torch.tensor([[4 + 2.0**-21, 4.0 + 2.0**-21]])
    assert signed_distance(inside, near_clip(corners, 0.5)).item() == 0
    outside = torch.tensor([[4 + 2.0**-20, 4.0 + 2.0**-20]])
    assert signed_distance(outside, near_clip(corners, 0.5)).item() == pytest.approx(-(2.0**-20.5), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_three_points_on_a_line_are_degenerate_whatever_the_rounding(dtype: torch.dtype):
    ends = torch.randn(500, 2, 2, dtype=dtype)
    middle = ends[:, 0] + torch.rand(500, 1, dtype=dtype) * (ends[:, 1] - ends[:, 0])
    points = torch.stack([ends[:, 0], ends[:, 1], middle], dim=1)
    # The coordinates, of order one, are rounded: lines of length one or more stay within the rule's 8 roundings.
    points = points[(ends[:, 1] - ends[:, 0]).norm(dim=1) > 1]
    normal = torch.stack([points[:, 0, 1] - points[:, 1, 1], points[:, 1, 0] - points[:, 0, 0]], dim=1)
    corners = torch.cat([points, torch.ones_like(points)], dim=2)
    assert (near_clip(corners, 0.125).counts == 0).all()
    # A hundred times the rule's height, and it is a face.
    corners[:, 2, :2] += 800 * torch.finfo(dtype).eps * normal
    assert (near_clip(corners, 0.125).counts == 3).all()


def test_a_point_far_from_a_sliver_is_outside_though_rounding_picks_the_edge():
    # The two long edges are equally far within float32; the farther one would call the point inside.
    length, height = 2.0**-6, 2.0**-6 * 3e-6
    rows = [[0.0, 0.0, 1, 1], [length, height / 2, 1, 1], [0.0, height, 1, 1]]
    polygons = near_clip(torch.tensor(rows)[None], 0.5)
    assert polygons.counts.item() == 3
    points = torch.rand(4000, 2) * torch.tensor([length, 2.0]) - torch.tensor([0.0, 1.0])
    points = points[points[:, 1].abs() > 1e-3]
    distance = signed_distance(points, polygons)[:, 0]
    assert_close_relative(distance, -points[:, 1].abs(), rounding_bound(torch.float32))
    assert (signed_distance(points, polygons, squared=True) < 0).all()


@pytest.mark.parametrize("size", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_the_ground_under_a_camera(size: float, dtype: torch.dtype, backend: str) -> None:
    """Its cuts with the near plane are up to 1e8 away, its horizon is an edge in the middle of the image."""
    corners = torch.tensor([[-1.0, 0, -1], [1, 0, -0.7], [0.8, 0, 1], [-1, 0, 0.9]], dtype=torch.float64)
    camera = gd.Camera.look_at((0.3, 1.6, 0.2), (3.0, 1.5, -10.0), fov_deg=60.0)
    vertices = (size * corners).to(dtype).requires_grad_()
    ground = gd.Mesh(vertices, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    render = gd.Renderer(64, scale=0.01, tconorm="maximum", backend=backend)
    alpha = render(ground, camera.to(dtype)).alpha
    # By hand: a ray through a pixel centre meets the plane y = 0 in front of the camera, within the quadrilateral.
    eye = camera.to(torch.float64)
    y, x = torch.meshgrid(*[1 - (2 * torch.arange(64, dtype=torch.float64) + 1) / 64] * 2, indexing="ij")
    focal = 1 / math.tan(math.radians(30.0))
    rays = torch.stack((-x / focal, y / focal, -torch.ones_like(x)), -1) @ eye.rotation  # rows: camera to world
    along = -eye.position[1] / rays[..., 1]
    hit = (eye.position + along[..., None] * rays)[..., [0, 2]] / size
    a, b = corners[:, [0, 2]], corners.roll(-1, 0)[:, [0, 2]]
    side = (b - a)[:, 0] * (hit[..., None, 1] - a[:, 1]) - (b - a)[:, 1] * (hit[..., None, 0] - a[:, 0])
    inside = (along > 0) & ((side >= 0).all(-1) | (side <= 0).all(-1))
    assert 0.2 < float(inside.double().mean()) < 0.8
    assert bool(((alpha > 0.5) == inside).all())  # the outline passes no nearer to a centre than 1e-4 of a pixel
    assert bool((gd.rasterize(ground, camera.to(dtype), 64).mask == inside).all())
    (gradient,) = torch.autograd.grad(alpha.sum(), vertices)
    assert bool(torch.isfinite(gradient).all())
