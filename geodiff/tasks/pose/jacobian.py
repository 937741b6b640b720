# SPDX-License-Identifier: Apache-2.0
"""How the pixels of a silhouette move with the pose: the exact Jacobian of the contour coverage, from one render.

The coverage of a pixel is F(d/τ), d the distance to the nearest point c of the outline, and ∂d = g·∂c with g the unit
vector between them: sliding along the outline changes nothing. The render says which edge c lies on and where, so that
∂c is the motion of two vertices in the image, and a Jacobian costs no more than the render itself.
"""

import torch

from geodiff.ops.contour import nearest_outline
from geodiff.reference.contour import coverage_of
from geodiff.render.view import View, pack
from geodiff.scene.mesh import Mesh
from geodiff.soft import Distribution
from geodiff.tasks.pose.poses import Poses

_MAX_ERROR = 1e-3  # of coverage


@torch.no_grad()
def coverage_and_jacobian(
    mesh: Mesh, poses: Poses, image_size: tuple[int, int], distribution: Distribution, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Render N poses of a mesh by the contour.

    Returns:
        Coverage (N, H, W) in [0, 1], and its derivatives (N, H, W, 7) in a step of `Poses.moved`: rotation, image
        position, log of size and log of focal length. Zero at pixels that the outline is out of reach of, and at faces
        that the near plane cuts.
    """
    view = pack("fit_pose", mesh, poses.cameras(), image_size)
    distance, along, nearest = nearest_outline(
        *view.packed, view.edge_cycles, distribution, scale, **view.frame, max_error=_MAX_ERROR
    )
    flat = distance.flatten()
    rows = torch.isfinite(flat).nonzero()[:, 0]  # the pixels within reach
    near = flat[rows]
    with torch.enable_grad():
        near.requires_grad_()
        covered = coverage_of(near, distribution, scale)
        (slope,) = torch.autograd.grad(covered.sum(), near)
    near = near.detach()
    alpha = (flat > 0).to(flat).index_copy(0, rows, covered.detach()).view(distance.shape)
    height, width = image_size
    pixel = _centres(view, rows // width % height, rows % width, near)
    points = along.flatten()[rows], nearest.flatten(0, -2)[rows]
    moved = _moved(view, poses, rows // (height * width), pixel, near, *points)
    jacobian = flat.new_zeros(len(flat), 7).index_copy(0, rows, slope[:, None] * moved)
    return alpha, jacobian.view(*distance.shape, 7)


def _centres(view: View, row: torch.Tensor, column: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return the centres (P, 2) of pixels in NDC."""
    height, width = view.image_size
    step = 2.0 / min(height, width)
    x = (column.to(like.dtype) + 0.5 - 0.5 * width) * step
    return torch.stack((x, (0.5 * height - 0.5 - row.to(like.dtype)) * step), dim=-1)


def _moved(
    view: View,
    poses: Poses,
    image: torch.Tensor,
    pixel: torch.Tensor,
    distance: torch.Tensor,
    along: torch.Tensor,
    nearest: torch.Tensor,
) -> torch.Tensor:
    """Return the derivatives (P, 7) of the distances."""
    clip = view.clip.unflatten(0, (len(poses), -1))
    faces = view.mesh.faces

    def edge(code: torch.Tensor, of: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the two vertices (Q, 2) of edges, their places (Q, 2, 2) in the image, and the side of their face."""
        corner = faces[code // 4]
        k = (code % 4).clamp(max=2)
        ends = corner.gather(1, torch.stack((k, (k + 1) % 3), dim=-1))
        points = clip[of[:, None], corner]
        at = points[..., :2] / points[..., 3:]
        a, b, c = at.unbind(1)
        area = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        whole = (points[..., 2] > view.camera.near).all(dim=1)
        place = at.gather(1, torch.stack((k, (k + 1) % 3), dim=-1)[..., None].expand(-1, -1, 2))
        return ends, place, area.sign(), whole

    code, kind = nearest.long().unbind(-1)
    ends, place, side, whole = edge(code, image)
    start, run = place[:, 0], place[:, 1] - place[:, 0]
    off = pixel - (start + along[:, None] * run)
    size = off.norm(dim=-1, keepdim=True)
    # Within an edge its outward normal, which a pixel on the outline has, too; at an end, towards the pixel.
    normal = torch.stack((run[:, 1], -run[:, 0]), dim=-1) * (side / run.norm(dim=-1).clamp_min(1e-12))[:, None]
    outwards = off / size.clamp_min(1e-12) * torch.where(distance < 0, 1.0, -1.0)[:, None]
    pull = torch.where((kind == -1)[:, None] | (size < 1e-12), normal, outwards)
    # Gradient at the two ends of the edge.
    weight = torch.stack((1 - along, along), dim=-1)[..., None] * pull[:, None]
    crossed = (kind >= 0).nonzero()[:, 0]
    if len(crossed):
        first, second = run[crossed], None
        other_ends, other, _, other_whole = edge(kind[crossed], image[crossed])
        second = other[:, 1] - other[:, 0]
        between = other[:, 0] - start[crossed]
        area = _cross(first, second)
        area = torch.where(area.abs() < 1e-20, torch.inf, area)
        t, s = _cross(between, second) / area, _cross(between, first) / area
        # Where the crossing moves to: each edge takes it along the other one.
        away = pixel[crossed] - (start[crossed] + t[:, None] * first)
        away = away / away.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        away = away * torch.where(distance[crossed] < 0, 1.0, -1.0)[:, None]
        by_first, by_second = (away * second).sum(-1) / -area, (away * first).sum(-1) / area
        to_first = torch.stack((first[:, 1], -first[:, 0]), dim=-1) * by_first[:, None]
        to_second = torch.stack((second[:, 1], -second[:, 0]), dim=-1) * by_second[:, None]
        weight[crossed] = torch.stack((1 - t, t), dim=-1)[..., None] * to_first[:, None]
        others = torch.stack((1 - s, s), dim=-1)[..., None] * to_second[:, None]
    points = poses.in_view(view.mesh.vertices)
    derivative = poses.pulled(points, image, ends, weight) * whole[:, None]
    if len(crossed):
        own = poses.pulled(points, image[crossed], other_ends, others) * other_whole[:, None]
        derivative[crossed] += own
    return derivative


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
