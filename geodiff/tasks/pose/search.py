# SPDX-License-Identifier: Apache-2.0
"""The search for poses: rotations near a start, a screening of them, and gradient descent of many at once."""

import math
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.render.renderer import rasterize
from geodiff.scene.camera import Camera
from geodiff.scene.mesh import Mesh
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.pose.target import PoseLoss, PoseTargets

_CHUNK = 128  # images rendered at once while screening
_APART = 20.0  # degrees between starts
_FOCAL = (0.2, 60.0)  # fields of view of 157° and 1.9°
_FAR = 1e4  # radii
_LEVELS = 4  # of τ, and
_POLISHED = 3  # poses of each image after the first of them
_LONGEST = 0.1  # step of Gauss–Newton
_TWINS = 2  # poses of each image whose twins are tried
# Columns of a step (N, 7) in the tangent space: rotation, image position, log of size (focal over distance), log of
# focal length; and a step length each, as a part of `lr`, by which they move the picture about equally.
_UNITS = (1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5)
_DAMPING = 1e-4  # of the trace
_SYMMETRIC = 0.06  # radii by which vertices of a mirror image may be off: about an edge
_EACH = ("image", "number", "first", "second", "age", "value")  # what Descent has of each pose


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

    def settled(self) -> "Poses":
        """Return them off the graph, with rotations made orthonormal again (a Newton step of the polar factor)."""
        parts = {name: getattr(self, name).detach() for name in self.fields}
        r = parts["rotation"]
        parts["rotation"] = 0.5 * r @ (3 * torch.eye(3, dtype=r.dtype) - r.mT @ r)
        return Poses(self.lens, self.centre, self.radius, **parts)


def screen(
    mesh: Mesh, start: Poses, target: PoseTargets, spread_deg: float, settings: FitPoseSettings, loss: PoseLoss
) -> Poses:
    """Choose up to ``settings.starts`` poses to follow, for one image: the start, and the best candidates well apart.

    Each candidate rotation is put where the areas (by distance) and the centroids of mask and target agree, as far as
    those may move.

    Args:
        mesh: one mesh.
        start: one pose.
        target: one image, of the size to be screened at.
        spread_deg: the angle around the start.
        settings: see `FitPoseSettings`.
        loss: what candidates are ranked by, at an edge of half a pixel.

    Returns:
        Poses of which the first is the start.
    """
    count = settings.candidates if spread_deg > 0 else 1
    if count == 1 or settings.starts == 1:
        return start
    pixel = 2.0 / min(target.image_size)
    rotation = rotations_near(start.rotation[0], count, spread_deg, settings.seed)
    every = torch.zeros(count, dtype=torch.long)
    poses = start[every]
    poses.rotation = rotation
    if settings.translation != "fixed":
        poses = _aligned(mesh, poses, target, settings)
    values = []
    with torch.no_grad():
        for i in range(0, count, _CHUNK):
            cameras = poses[torch.arange(i, min(i + _CHUNK, count))].cameras()
            if settings.loss == ("silhouette",):
                mask = rasterize(mesh, cameras, target.image_size).mask.to(target.alpha.dtype)
                both = (mask * target.alpha).sum((-2, -1))
                values.append(1 - both / (mask.sum((-2, -1)) + target.alpha.sum() - both))
            else:
                scale = 0.5 * pixel if not settings.distribution.is_squared else 0.25 * pixel**2  # type: ignore[union-attr]
                values.append(loss(cameras, target[torch.zeros(len(cameras), dtype=torch.long)], scale))
    apart = min(_APART, 0.25 * spread_deg)
    chosen = [0]
    order = torch.cat(values).argsort(stable=True)
    near = rotation_angle_deg(rotation, rotation[0]) < 0  # the start, as it is given, does not keep others off
    for i in order.tolist():
        if len(chosen) == settings.starts:
            break
        if not near[i]:
            chosen.append(i)
            near |= rotation_angle_deg(rotation, rotation[i]) < apart
    result = poses[torch.tensor(chosen)]
    for name in Poses.fields:
        getattr(result, name)[0] = getattr(start, name)[0]
    return result


def _aligned(mesh: Mesh, poses: Poses, target: PoseTargets, settings: FitPoseSettings) -> Poses:
    """Move poses so that areas and, where they are free to, centroids of masks and target agree."""
    lens, height, width = poses.lens, *target.image_size
    # From where all of the mesh is seen, whatever the guess was.
    aside = poses[torch.arange(len(poses))]
    if settings.translation == "free":
        aside.shift = -lens.principal.expand_as(poses.shift)
    if not lens.is_orthographic:
        aside.distance = poses.radius * (1 + 1.1 * poses.focal.clamp_min(1.0))
    y, x = (0.5 * n - 0.5 - torch.arange(n, dtype=target.alpha.dtype) for n in (height, width))
    pixel = 2.0 / min(height, width)
    x, y = -x * pixel, y * pixel

    def moments(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        area = image.sum((-2, -1))
        at = torch.stack(((image.sum(-2) * x).sum(-1), (image.sum(-1) * y).sum(-1)), dim=-1)
        return area, at / area.clamp_min(1e-6)[:, None]

    parts = []
    for i in range(0, len(aside), _CHUNK):
        part = aside[torch.arange(i, min(i + _CHUNK, len(aside)))]
        parts.append(moments(rasterize(mesh, part.cameras(), target.image_size).mask.to(target.alpha.dtype)))
    own_area, own_at = (torch.cat(values) for values in zip(*parts, strict=True))
    wanted_area, wanted_at = moments(target.alpha)
    grow = (wanted_area / own_area.clamp_min(1.0)).sqrt()
    step = torch.zeros(len(poses), 7, dtype=target.alpha.dtype)
    step[:, 6 if lens.is_orthographic else 5] = grow.log()
    result = aside.moved(step, settings)
    if settings.translation == "free":
        # The offset of the centroid from the middle of the mesh grows with the mesh.
        factor = result.focal / result.distance / (aside.focal / aside.distance)
        offset = own_at - (aside.shift + lens.principal)
        result.shift = wanted_at - lens.principal - factor[:, None] * offset
    return result.settled()


def half_turns(mesh: Mesh) -> torch.Tensor:
    """Return the half turns Q (K, 3, 3) about the normals of a mesh's planes of symmetry.

    With the mirror at the plane, −Q, the mesh stays as it is, so Q takes it to its image in the middle point, and the
    silhouette to that turned by 180°. Turned back, which is the twin diag(−1, −1, 1) R Q of a pose R, it is the same,
    exactly for an orthographic camera. Planes are looked for through the middle of the bounding box, across the
    principal axes.

    Example:
        >>> import geodiff as gd
        >>> half_turns(gd.box((1.0, 0.5, 0.25))).shape
        torch.Size([3, 3, 3])
    """
    points = mesh.vertices.double()
    points = points - 0.5 * (points.amin(0) + points.amax(0))
    corners = points[mesh.faces]
    # Of the surface, not of its triangles' middles: how squares are cut into triangles has no say.
    vectors = torch.cat((corners, corners.sum(1, keepdim=True)), dim=1)
    moment = torch.einsum("f,fni,fnj->ij", mesh.face_areas.double(), vectors, vectors)
    _, axes = torch.linalg.eigh(moment)
    turns = []
    for normal in axes.mT:
        mirrored = points - 2 * (points @ normal)[:, None] * normal
        far = cKDTree(points.numpy()).query(mirrored.numpy())[0]
        if np.quantile(far, 0.9) < _SYMMETRIC * float(points.norm(dim=-1).max()):
            turns.append(2 * normal[:, None] * normal - torch.eye(3, dtype=torch.float64))
    return torch.stack(turns).to(mesh.dtype) if turns else mesh.vertices.new_zeros(0, 3, 3)


class Descent:
    """Gradient descent of N poses at once, each towards its own image.

    Adam, but with the full matrix of second moments, C = mean g gᵀ, and steps along C^(−1/2) g: distance, focal length
    and rotation pull at one another, and the axes of a rotation are nobody's choice (Agarwal et al., "Efficient
    full-matrix adaptive regularization", 2019). Half-way, all but the best poses are dropped; twins of the best, which
    silhouettes hardly tell from them, are added.

    Args:
        poses: where it starts.
        image: (N,) which of the T targets each belongs to.
        targets: T images.
        settings: see `FitPoseSettings`.
        loss: what is minimised.
        twins: (K, 3, 3) of `half_turns`.
    """

    def __init__(
        self,
        poses: Poses,
        image: torch.Tensor,
        targets: PoseTargets,
        settings: FitPoseSettings,
        loss: PoseLoss,
        twins: torch.Tensor | None = None,
    ) -> None:
        self.poses, self.image, self.settings, self.loss = poses, image, settings, loss
        self.coarse, self.fine = targets.resized(settings.search_size), targets.resized(settings.size)
        self.number = torch.arange(len(poses))  # of each start, to find it again
        self.first = torch.zeros(len(poses), 7, dtype=targets.alpha.dtype)
        self.second = torch.zeros(len(poses), 7, 7, dtype=torch.float64)
        self.age = torch.zeros(len(poses), dtype=torch.long)  # steps in the moments
        self.twins = poses.rotation.new_zeros(0, 3, 3) if twins is None else twins
        self.step = 0
        self.value = torch.full((len(poses),), math.inf, dtype=targets.alpha.dtype)

    def advance(self) -> torch.Tensor:
        """Take one step; return the loss (N,) before it."""
        settings = self.settings
        if self.step == settings.prune_step:
            self.keep(settings.finalists)
            self._add_twins()
        targets = self.coarse if self.step < settings.prune_step else self.fine
        step = torch.zeros_like(self.first, requires_grad=True)
        loss = self.loss(self.poses.moved(step, settings).cameras(), targets[self.image], settings.scale_at(self.step))
        (gradient,) = torch.autograd.grad(loss.sum(), step)
        # Renders are finite; a loss or distribution of the user's may not be. Such a pose stays where it is.
        gradient = torch.where(torch.isfinite(gradient).all(-1, keepdim=True), gradient, 0)
        self._move(gradient)
        self.value = torch.where(torch.isfinite(loss), loss, math.inf).detach()
        self.step += 1
        return self.value

    def _move(self, gradient: torch.Tensor) -> None:
        b1, b2 = self.settings.betas
        unit = gradient.new_tensor(_UNITS)
        gradient = gradient * unit
        self.age = self.age + 1
        self.first = b1 * self.first + (1 - b1) * gradient
        self.second = b2 * self.second + (1 - b2) * (gradient[:, :, None] * gradient[:, None, :]).double()
        first = self.first.double() / (1 - b1**self.age)[:, None]
        spread, axes = torch.linalg.eigh(self.second / (1 - b2**self.age)[:, None, None])
        floor = _DAMPING * spread.clamp_min(0).sum(-1, keepdim=True) + 1e-30
        along = (axes.mT @ first[..., None])[..., 0] / (spread.clamp_min(0) + floor).sqrt()
        move = -(axes @ along[..., None])[..., 0].to(gradient.dtype) * self.settings.lr_at(self.step) * unit
        self.poses = self.poses.moved(move, self.settings).settled()

    @torch.no_grad()
    def finish(self) -> None:
        """Measure the loss of the poses at the end, at the last τ."""
        self.value = self.loss(self.poses.cameras(), self.fine[self.image], self.settings.scale[1])
        self.value = torch.where(torch.isfinite(self.value), self.value, math.inf)

    @torch.no_grad()
    def polish(self) -> None:
        """Bring poses to the bottom of their valleys by Levenberg–Marquardt, at four τ down to the last.

        Where rotation, distance and focal length pull at one another, gradient descent creeps.
        """
        settings, (start, end) = self.settings, self.settings.scale
        if not settings.polish:
            return
        for level in range(1, _LEVELS + 1):
            self._polish_at(start * (end / start) ** (level / _LEVELS))
            if level == 1:
                self.keep(_POLISHED)

    def _polish_at(self, scale: float) -> None:
        settings, count = self.settings, len(self.poses)
        moves = self._directions()
        # As far as the edges are wide: less sees the pixels' grid, more the curvature.
        reach = math.sqrt(scale) if settings.distribution.is_squared else scale  # type: ignore[union-attr]
        damping = torch.full((count,), 1e-2, dtype=torch.float64)
        residual = self._residuals(self.poses, self.image, scale)
        cost = residual.square().sum(-1)
        for _ in range(settings.polish):
            both = torch.cat((reach * moves, -reach * moves)).repeat(count, 1)
            index = torch.arange(count).repeat_interleave(2 * len(moves))
            around = self._residuals(self.poses[index].moved(both, settings).settled(), self.image[index], scale)
            ahead, back = around.unflatten(0, (count, 2, len(moves))).unbind(1)
            jacobian = (ahead - back) / (2 * reach)
            normal = (jacobian @ jacobian.mT).double()
            gradient = (jacobian @ residual[..., None]).double()
            diagonal = torch.diagonal(normal, dim1=-2, dim2=-1)
            floor = 1e-9 * diagonal.sum(-1, keepdim=True) + 1e-20
            normal = normal + torch.diag_embed(damping[:, None] * diagonal + floor)
            step = -torch.linalg.solve(normal, gradient)[..., 0].to(residual.dtype)
            step = step * (_LONGEST / step.abs().amax(-1, keepdim=True).clamp_min(_LONGEST))
            new = self.poses.moved(step @ moves, settings).settled()
            new_residual = self._residuals(new, self.image, scale)
            new_cost = new_residual.square().sum(-1)
            better = new_cost < cost
            for name in Poses.fields:
                old, other = getattr(self.poses, name), getattr(new, name)
                setattr(self.poses, name, torch.where(better.view(-1, *[1] * (old.dim() - 1)), other, old))
            residual = torch.where(better[:, None], new_residual, residual)
            cost = torch.where(better, new_cost, cost)
            damping = torch.where(better, 0.3 * damping, 5 * damping).clamp(1e-6, 1e3)
        self.value = torch.where(torch.isfinite(cost), cost, math.inf)

    def _directions(self) -> torch.Tensor:
        """Return the unit steps (k, 7) along which poses are free."""
        free = {"free": [0, 1, 2, 3, 4, 5], "distance": [0, 1, 2, 5], "fixed": [0, 1, 2]}[self.settings.translation]
        if self.poses.lens.is_orthographic:
            free = [i for i in free if i != 5]
        if self.settings.focal:
            free.append(6)
        return torch.eye(7, dtype=self.first.dtype)[free]

    def _residuals(self, poses: Poses, image: torch.Tensor, scale: float) -> torch.Tensor:
        parts = []
        for i in range(0, len(poses), _CHUNK):
            index = torch.arange(i, min(i + _CHUNK, len(poses)))
            parts.append(self.loss.residuals(poses[index].cameras(), self.fine[image[index]], scale))
        return torch.cat(parts)

    def keep(self, count: int) -> None:
        """Go on with the best ``count`` poses of each image."""
        kept = []
        for t in range(len(self.coarse.alpha)):
            own = (self.image == t).nonzero()[:, 0]
            kept.append(own[self.value[own].argsort(stable=True)[:count].sort().values])
        self.select(torch.cat(kept))

    def select(self, index: torch.Tensor) -> None:
        """Go on with some of the poses."""
        self.poses = self.poses[index]
        for name in _EACH:
            setattr(self, name, getattr(self, name)[index])

    def _add_twins(self) -> None:
        """Add the twins of the best poses of each image, with numbers of their own."""
        if not len(self.twins):
            return
        best = []
        for t in range(len(self.coarse.alpha)):
            own = (self.image == t).nonzero()[:, 0]
            best.append(own[self.value[own].argsort(stable=True)[:_TWINS]])
        index = torch.cat(best).repeat_interleave(len(self.twins))
        count = len(self.poses)
        self.select(torch.cat((torch.arange(count), index)))
        turns = self.twins.repeat(len(index) // len(self.twins), 1, 1)
        upside_down = turns.new_tensor([-1.0, -1.0, 1.0])[:, None]
        self.poses.rotation[count:] = upside_down * self.poses.rotation[count:] @ turns
        self.number[count:] = self.number.max() + 1 + torch.arange(len(index))
        for name in ("first", "second", "age"):
            getattr(self, name)[count:] = 0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint of poses of one image holds."""
        poses = {name: getattr(self.poses, name) for name in Poses.fields}
        return {"poses": poses, **{name: getattr(self, name) for name in _EACH if name != "image"}}

    def load(self, state: dict[str, Any], step: int) -> None:
        """Go on from what a checkpoint holds, at a step."""
        self.poses = Poses(self.poses.lens, self.poses.centre, self.poses.radius, **state["poses"])
        for name in _EACH:
            if name != "image":
                setattr(self, name, state[name])
        self.image = torch.zeros(len(self.poses), dtype=torch.long)
        self.step = step
