# SPDX-License-Identifier: Apache-2.0
"""Rotations, and the poses of a camera about the middle of a mesh, as they are searched."""

import math

import torch

from geodiff.scene.camera import Camera
from geodiff.tasks.pose.settings import FitPoseSettings

_FOCAL = (0.2, 60.0)  # fields of view of 157° and 1.9°
_FAR = 1e4  # radii


def rotation_from_vector(vector: torch.Tensor) -> torch.Tensor:
    """Return the rotation exp([v]×) (..., 3, 3) about v (..., 3) by ‖v‖ radians (Rodrigues).

    Gradients: everywhere, also at v = 0, which is where the tangent space touches.

    Example:
        >>> import math, torch
        >>> (rotation_from_vector(torch.tensor([0.0, 0.0, math.pi / 2])) @ torch.tensor([1.0, 0, 0])).round(decimals=4)
        tensor([0., 1., 0.])
    """
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), dim=-1).unflatten(-1, (3, 3))
    square = vector.square().sum(-1)
    # The root of a sum of squares has no derivative at 0; there the first terms of the series serve.
    small = square < 1e-8
    angle = torch.where(small, 1.0, square).sqrt()
    first = torch.where(small, 1 - square / 6, angle.sin() / angle)[..., None, None]
    second = torch.where(small, 0.5 - square / 24, 2 * (angle / 2).sin().square() / angle.square())[..., None, None]
    return torch.eye(3, dtype=vector.dtype, device=vector.device) + first * cross + second * (cross @ cross)


def rotation_angle_deg(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the angle (...) in degrees between rotations (..., 3, 3): 2 asin(‖a − b‖ / √8), exact for small ones too.

    Example:
        >>> import torch
        >>> float(rotation_angle_deg(torch.eye(3), torch.diag(torch.tensor([-1.0, -1.0, 1.0]))))
        180.0
    """
    chord = torch.linalg.matrix_norm(a.double() - b.double()) / math.sqrt(8.0)
    return (2 * chord.clamp(0, 1).asin()).rad2deg()


def rotations_near(start: torch.Tensor, count: int, spread_deg: float, seed: int = 0) -> torch.Tensor:
    """Return rotations (count, 3, 3) spread evenly over all those within an angle of a start; the first is the start.

    Evenly by the invariant measure of SO(3), in which the angle has density ∝ 1 − cos θ: 180° is all of them. The
    points are Sobol's.

    Args:
        start: (3, 3), rotated on the left, that is about the axes of the camera.
        count: ≥ 1.
        spread_deg: in [0, 180].
        seed: of the scrambling.

    Example:
        >>> import torch
        >>> angles = rotation_angle_deg(rotations_near(torch.eye(3), 100, 30.0), torch.eye(3))
        >>> bool(angles[0] == 0), bool((angles <= 30.001).all())
        (True, True)
    """
    u = torch.quasirandom.SobolEngine(3, scramble=True, seed=seed).draw(count, dtype=torch.float64)
    z, turn = 2 * u[:, 0] - 1, 2 * math.pi * u[:, 1]
    flat = (1 - z * z).clamp_min(0).sqrt()
    axis = torch.stack((flat * turn.cos(), flat * turn.sin(), z), dim=-1)
    limit = math.radians(spread_deg)
    wanted = u[:, 2] * (limit - math.sin(limit))
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, limit)
    for _ in range(40):  # bisection of θ − sin θ, to 1e-12
        middle = 0.5 * (low + high)
        above = middle - middle.sin() > wanted
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    angle = 0.5 * (low + high)
    angle[0] = 0.0
    return (rotation_from_vector(axis * angle[:, None]) @ start.double()).to(start.dtype)


class Poses:
    """N poses of a camera about the middle of a mesh, as they are searched.

    In view coordinates the middle is at (x d/f_x, y d/f_y, −d): x, y are its place in the image relative to the
    principal point, in NDC.

    Args:
        lens: says the rest of the camera: principal point, f_y/f_x, near plane, perspective or not.
        centre: (3,) the middle of the mesh.
        radius: of its bounding sphere.
        rotation: (N, 3, 3).
        shift: (N, 2) x and y.
        distance: (N,) d > 0.
        focal: (N,) f_x.
    """

    fields = ("rotation", "shift", "distance", "focal")

    def __init__(
        self,
        lens: Camera,
        centre: torch.Tensor,
        radius: float,
        rotation: torch.Tensor,
        shift: torch.Tensor,
        distance: torch.Tensor,
        focal: torch.Tensor,
    ) -> None:
        self.lens, self.centre, self.radius = lens, centre, radius
        self.rotation, self.shift, self.distance, self.focal = rotation, shift, distance, focal

    @classmethod
    def of(cls, cameras: Camera, lens: Camera, centre: torch.Tensor, radius: float) -> "Poses":
        """Read the poses of N cameras, whose principal point and f_y/f_x are the lens's."""
        middle = cameras.to_view(centre[None])[:, 0]
        distance = -middle[:, 2]
        per_depth = torch.ones_like(distance) if lens.is_orthographic else distance
        shift = middle[:, :2] * cameras.focal / per_depth[:, None]
        return cls(lens, centre, radius, cameras.rotation.clone(), shift, distance, cameras.focal[:, 0].clone())

    def __len__(self) -> int:
        return len(self.distance)

    def __getitem__(self, index: torch.Tensor) -> "Poses":
        return Poses(self.lens, self.centre, self.radius, *(getattr(self, name)[index] for name in self.fields))

    def to(self, device: torch.device) -> "Poses":
        """Return the poses on another device."""
        if device == self.rotation.device:
            return self
        fields = (getattr(self, name).to(device) for name in self.fields)
        return Poses(self.lens.to(device), self.centre.to(device), self.radius, *fields)

    def where(self, better: torch.Tensor, others: "Poses") -> "Poses":
        """Return the others where they are better (N,)."""
        mixed = []
        for name in self.fields:
            own = getattr(self, name)
            mixed.append(torch.where(better.view(-1, *[1] * (own.dim() - 1)), getattr(others, name), own))
        return Poses(self.lens, self.centre, self.radius, *mixed)

    def and_then(self, others: "Poses") -> "Poses":
        """Return these poses and others after them."""
        both = (torch.cat((getattr(self, name), getattr(others, name))) for name in self.fields)
        return Poses(self.lens, self.centre, self.radius, *both)

    def cameras(self) -> Camera:
        """Return the N cameras."""
        lens = self.lens
        focal = self.focal[:, None] * torch.stack((torch.ones_like(lens.focal[0]), lens.focal[1] / lens.focal[0]))
        depth = torch.ones_like(self.distance) if lens.is_orthographic else self.distance
        middle = torch.cat((self.shift * depth[:, None] / focal, -self.distance[:, None]), dim=-1)
        translation = middle - (self.rotation @ self.centre)
        return Camera(
            self.rotation,
            translation,
            focal,
            lens.principal,
            orthographic=lens.is_orthographic,
            near=lens.near,
        )

    def moved(self, step: torch.Tensor, settings: FitPoseSettings) -> "Poses":
        """Return the poses after a step (N, 7) in the tangent space, of which some parts may be held.

        Size is f/d: what is free of distance and focal length gives it. It stays where the mesh is ahead of the camera
        and the field of view below 160°.
        """
        size = step[:, 5] if settings.translation != "fixed" else torch.zeros_like(step[:, 5])
        lens = step[:, 6] if settings.focal else torch.zeros_like(size)
        shift = self.shift + step[:, 3:5] if settings.translation == "free" else self.shift
        focal, distance = self.focal, self.distance
        if settings.focal:
            focal = (focal * lens.exp()).clamp(*_FOCAL) if not self.lens.is_orthographic else focal * lens.exp()
        if settings.translation != "fixed" and not self.lens.is_orthographic:
            distance = distance * (lens - size).exp()
            low = self.lens.near + 0.5 * self.radius
            distance = distance.clamp(low, max(_FAR * self.radius, 2 * low))
        rotation = rotation_from_vector(step[:, :3]) @ self.rotation
        return Poses(self.lens, self.centre, self.radius, rotation, shift, distance, focal)

    def in_view(self, points: torch.Tensor) -> torch.Tensor:
        """Return points (V, 3) relative to the middle of the mesh, along the axes of each camera: (N, V, 3)."""
        return (points - self.centre) @ self.rotation.mT

    def pulled(
        self, points: torch.Tensor, pose: torch.Tensor, vertex: torch.Tensor, gradient: torch.Tensor
    ) -> torch.Tensor:
        """Return the gradient (P, 7) in a step of `moved` of what has a gradient in some points of the image.

        Args:
            points: of `in_view`, (N, V, 3).
            pose: (P,) which pose.
            vertex: (P, K) which points.
            gradient: (P, K, 2) in their places in the image.
        """
        y = points[pose[:, None], vertex]
        focal = self.focal[pose, None, None] * (self.lens.focal / self.lens.focal[0])
        scaled = y[..., :2] * focal
        if self.lens.is_orthographic:
            toward = torch.cat((gradient * focal, torch.zeros_like(gradient[..., :1])), dim=-1)
            shift, closer = gradient, torch.zeros_like(gradient[..., 0])
        else:
            far = self.distance[pose, None]
            inverse = 1 / (far - y[..., 2])
            pull = gradient * inverse[..., None]
            offset = self.shift[pose, None] * far[..., None]
            along = (pull * (scaled + offset)).sum(-1) * inverse
            toward = torch.cat((pull * focal, along[..., None]), dim=-1)
            shift = pull * far[..., None]
            closer = far * along - (pull * offset).sum(-1)  # −∂/∂(log of distance)
        turn = torch.linalg.cross(y, toward)
        longer = (gradient * scaled).sum(-1) if self.lens.is_orthographic else (pull * scaled).sum(-1) - closer
        return torch.cat((turn, shift, closer[..., None], longer[..., None]), dim=-1).sum(dim=1)

    def settled(self) -> "Poses":
        """Return them off the graph, with rotations made orthonormal again (a Newton step of the polar factor)."""
        parts = {name: getattr(self, name).detach() for name in self.fields}
        r = parts["rotation"]
        parts["rotation"] = 0.5 * r @ (3 * torch.eye(3, dtype=r.dtype) - r.mT @ r)
        return Poses(self.lens, self.centre, self.radius, **parts)
