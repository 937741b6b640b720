# SPDX-License-Identifier: Apache-2.0
"""Cameras that are a little wrong: how they may move, what was given of them, and what no image tells."""

import math

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.pose import rotation_from_vector


class Moves:
    """The ways in which B perspective cameras move from where they were given: seven numbers each.

    They are turned about the object by a rotation vector (radians), shifted by a part of their distance from it in
    their own axes, and their focal length is multiplied by the exponential of the last. So what the image shows best,
    where the object is in it, is three of the numbers alone.

    Args:
        cameras: as given.
        centre: (3,), where the object is.
    """

    def __init__(self, cameras: Camera, centre: torch.Tensor) -> None:
        self.cameras, self.centre = cameras.detach().to(dtype=torch.float64), centre.double()
        self.middle = (self.cameras.rotation @ self.centre) + self.cameras.translation
        self.distance = self.middle.norm(dim=-1, keepdim=True)

    def __len__(self) -> int:
        return len(self.cameras)

    def _pose(self, x: torch.Tensor, view: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        parts = (self.cameras.rotation, self.cameras.translation, self.cameras.focal, self.middle, self.distance)
        R, t, f, c, d = parts if view is None else (part[view] for part in parts)
        turn = rotation_from_vector(x[:, :3])
        moved = (turn @ (t - c)[..., None])[..., 0] + c + x[:, 3:6] * d
        return turn @ R, moved, f * x[:, 6:].exp()

    def parts(
        self, x: torch.Tensor, view: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return rotation, position and focal length of cameras moved by x (N, 7), all or those of views (N,)."""
        R, t, f = self._pose(x, view)
        return R, -(R.mT @ t[..., None])[..., 0], f

    def moved(self, x: torch.Tensor) -> Camera:
        """Return all cameras moved by x (B, 7), with the gradient."""
        R, t, f = self._pose(x, None)
        return Camera(R, t, f, self.cameras.principal, near=self.cameras.near)


class Prior:
    """How far given cameras may be off, as standard deviations.

    Args:
        degrees: of their direction.
        position: of where they stand, as a part of their distance from the object.
        focal: as a part of it.
    """

    def __init__(self, degrees: float, position: float, focal: float) -> None:
        self.turn, self.position, self.focal = math.radians(degrees), position, focal

    def residuals(self, moves: Moves, x: torch.Tensor) -> torch.Tensor:
        """Return how far cameras moved by x (B, 7) are from the given ones, in standard deviations, (B, 7)."""
        at = (moves.parts(x)[1] - moves.cameras.position) / moves.distance
        return torch.cat((x[:, :3] / self.turn, at / self.position, x[:, 6:] / self.focal), dim=-1)

    def normal_equations(self, moves: Moves, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return its part of JᵀJ, (B, B, 7, 7), and of Jᵀr, (B, 7)."""
        count, x = len(x), x.detach().requires_grad_()
        r = self.residuals(moves, x)
        rows = [torch.autograd.grad(r[:, k].sum(), x, retain_graph=True)[0] for k in range(7)]
        J = torch.stack(rows, dim=1)
        A = torch.zeros(count, count, 7, 7, dtype=torch.float64)
        A[torch.arange(count), torch.arange(count)] = J.mT @ J
        return A, (J.mT @ r.detach()[..., None])[..., 0]


def without_gauge(cameras: Camera, given: Camera) -> tuple[Camera, torch.Tensor, torch.Tensor, float]:
    """Return cameras in the world of the given ones, and the similarity to it: Q (3, 3), offset (3,) and scale.

    No image tells where the world's origin is, how it is turned, and how long its unit: object and cameras turned,
    moved and scaled together look the same. So the mean of the cameras' turns is taken out, and their positions are
    brought to the given ones in the sense of least squares; a point p of the world becomes ``scale · Q p + offset``.
    """
    new, old = cameras.to(dtype=torch.float64), given.to(dtype=torch.float64)
    u, _, vh = torch.linalg.svd((old.rotation.mT @ new.rotation).sum(0))
    Q = u @ torch.diag(torch.stack((*u.new_ones(2), torch.det(u @ vh)))) @ vh
    here, there = new.position @ Q.mT, old.position
    a, b = here - here.mean(0), there - there.mean(0)
    scale = float((a * b).sum() / a.square().sum()) if float(a.square().sum()) > 0 else 1.0
    offset = there.mean(0) - scale * here.mean(0)
    R = new.rotation @ Q.mT
    position = scale * here + offset
    t = -(R @ position[..., None])[..., 0]
    moved = Camera(R, t, new.focal, new.principal, near=given.near)
    return moved.to(dtype=given.dtype), Q, offset, scale
