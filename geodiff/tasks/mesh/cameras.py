# SPDX-License-Identifier: Apache-2.0
"""Cameras that move together with the mesh: from their silhouettes' tangents, then down the slope of the fit."""

from typing import Any

import torch

from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.tasks.checkpoint import Like, Number
from geodiff.tasks.mesh.camera_moves import Moves, Prior, without_gauge
from geodiff.tasks.mesh.settings import FitMeshSettings
from geodiff.tasks.mesh.tangents import Tangents
from geodiff.validation import fail

_LR = 0.15  # pixels at the first step
_NOISE = 0.1  # of the coverage of a pixel on the outline
SLACK = 0.5  # pixels, of the hull of cameras that are still a little wrong: thin parts are in it


def moving_cameras(
    posed: PosedImages, train: list[int], centre: torch.Tensor, settings: FitMeshSettings
) -> "MovingCameras":
    """Return the training views' cameras as unknowns, moved to where their silhouettes touch alike.

    Raises:
        ValueError: orthographic cameras.
    """
    if posed.cameras.is_orthographic:
        fix = "Leave refine_cameras out."
        raise fail("fit_mesh", "cameras", "perspective ones, to be refined", "orthographic ones", fix)
    views = posed[train]
    tangents = Tangents(views, Moves(views.cameras, centre))
    x = tangents.solve(Prior(*settings.camera_prior))
    start, _, _, _ = without_gauge(tangents.moves.moved(x), tangents.moves.cameras)
    return MovingCameras(start, posed, train, centre, settings)


def _with(cameras: Camera, some: Camera, which: list[int]) -> Camera:
    """Return the cameras, some of them replaced."""
    row = dict(zip(which, range(len(which)), strict=True))
    return Camera.stack([some[row[i]] if i in row else cameras[i] for i in range(len(cameras))])


class MovingCameras:
    """The training views' cameras as unknowns beside the mesh, with what Adam knows of them.

    Args:
        start: where they are at first, in float64; B of them.
        posed: all views, as given; the prior holds the cameras to where they are here.
        train: which of them these are.
        centre: (3,), where the object is.
        settings: of the fit.
    """

    def __init__(
        self, start: Camera, posed: PosedImages, train: list[int], centre: torch.Tensor, settings: FitMeshSettings
    ) -> None:
        self.moves, self.train, self.settings = Moves(start, centre), train, settings
        self.given, self.prior = Moves(posed.cameras[train], centre), Prior(*settings.camera_prior)
        cameras = _with(posed.cameras, start.to(dtype=posed.cameras.dtype), train)
        #: all views, those of the training with the cameras at the start
        self.at_start = PosedImages(None, posed.alpha, cameras, posed.names)
        pixel = 2.0 / min(posed.image_size)
        #: what moves the outline by about a pixel
        shift = pixel / float(start.focal.mean())
        self.units = torch.tensor([2 * pixel] * 3 + [shift] * 2 + [2 * pixel] * 2, dtype=torch.float64)
        self.weight = _NOISE**2 / float(posed.alpha[train].double().sum().clamp_min(1.0))
        self.z = torch.zeros(len(start), 7, dtype=torch.float64, requires_grad=True)
        self.optimizer = torch.optim.Adam([self.z], lr=_LR, betas=settings.betas)
        self.dtype = posed.cameras.dtype
        self._fields: tuple[torch.Tensor, ...] = ()
        self._leaves: tuple[torch.Tensor, ...] = ()

    def placed(self, views: PosedImages) -> PosedImages:
        """Return the views seen by the cameras as they are now; their fields are leaves, that gather the gradient."""
        camera = self.moves.moved(self.z * self.units).to(views.alpha.device, self.dtype)
        self._fields = (camera.rotation, camera.translation, camera.focal)
        self._leaves = tuple(field.detach().requires_grad_() for field in self._fields)
        R, t, f = self._leaves
        free = Camera(R, t, f, camera.principal.detach(), near=camera.near)
        return PosedImages(None, views.alpha, free, views.names)

    def step(self, share: float) -> None:
        """Go down the gradient that the last views gathered, and the prior's, by a share of the first step's length."""
        self.optimizer.param_groups[0]["lr"] = _LR * share
        self.optimizer.zero_grad()
        pairs = [(f, leaf.grad) for f, leaf in zip(self._fields, self._leaves, strict=True) if leaf.grad is not None]
        if pairs:
            torch.autograd.backward([f for f, _ in pairs], [g for _, g in pairs])
        (self.weight * self.off(self.z).square().sum()).backward()
        self.optimizer.step()

    def off(self, z: torch.Tensor) -> torch.Tensor:
        """Return how far the cameras of z are from the given ones, in standard deviations of the prior, (B, 7)."""
        R, at, f = self.moves.parts(z * self.units)
        given = self.given.cameras
        turn = R @ given.rotation.mT
        # The sine of the angle times the axis: of small turns, the rotation vector.
        axis = 0.5 * torch.stack(
            (turn[:, 2, 1] - turn[:, 1, 2], turn[:, 0, 2] - turn[:, 2, 0], turn[:, 1, 0] - turn[:, 0, 1]), dim=-1
        )
        place = (at - given.position) / self.given.distance
        zoom = (f / given.focal).log().mean(-1, keepdim=True)
        return torch.cat((axis / self.prior.turn, place / self.prior.position, zoom / self.prior.focal), dim=-1)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint holds of them."""
        known = self.optimizer.state[self.z]
        return {"z": self.z.detach(), "step": float(known["step"]), **{k: known[k] for k in ("exp_avg", "exp_avg_sq")}}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        with torch.no_grad():
            self.z.copy_(state["z"])
        known = {"step": torch.tensor(state["step"]), "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
        self.optimizer.state[self.z] = known

    def like(self, steps: int) -> dict[str, Any]:
        """Return what a checkpoint must hold of them."""
        z = Like.of(self.z)
        return {"cameras": {"z": z, "step": Number(1.0, steps), "exp_avg": z, "exp_avg_sq": z}, "best_moves": z}

    def result(
        self, posed: PosedImages, z: torch.Tensor, vertices: list[torch.Tensor]
    ) -> tuple[PosedImages, list[torch.Tensor]]:
        """Return all views with the cameras of unknowns z, and vertices, in the world of the given cameras.

        The held-out views' cameras have had no part in this. They are now found by their own silhouettes, so that they
        may judge the mesh.
        """
        moved = self.moves.moved(z * self.units)
        refined, Q, offset, scale = without_gauge(moved, self.given.cameras)
        cameras = _with(posed.cameras.to(dtype=torch.float64), refined, self.train)
        free = torch.ones(len(posed), dtype=torch.bool)
        free[self.train] = False
        if bool(free.any()):
            moves = Moves(cameras, self.given.centre)
            masks = PosedImages(None, posed.alpha, posed.cameras, posed.names)
            cameras = moves.moved(Tangents(masks, moves, free[:, None] ^ free).solve(self.prior, free))
        points = [(scale * (v.double() @ Q.mT) + offset).to(v.dtype) for v in vertices]
        cameras = cameras.to(dtype=self.dtype)
        return posed._with(posed.alpha, cameras), points
