# SPDX-License-Identifier: Apache-2.0
"""Depth images of distance fields: rays that step forward by the distance to the surface until they are there."""

from collections.abc import Callable
from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import pixel_centres
from geodiff.scene.camera import Camera
from geodiff.scene.pose import pixel_size
from geodiff.soft import lt
from geodiff.soft.program import loop
from geodiff.validation import fail, integer, number, shapes_repr

Field = Callable[[torch.Tensor], torch.Tensor]
_WHERE = "sphere_trace"


class TraceOutput(NamedTuple):
    """What rays meet.

    Attributes:
        depth: along the viewing direction, as of `RenderOutput`, infinite where a ray meets nothing, (..., H, W).
        mask: where it meets something, (..., H, W) bool.
    """

    depth: torch.Tensor
    mask: torch.Tensor

    def __repr__(self) -> str:
        return shapes_repr(self)


@outside_autocast
def sphere_trace(
    field: Field,
    camera: Camera,
    image_size: int | tuple[int, int],
    *,
    far: float = 100.0,
    tolerance: float = 1e-4,
    max_steps: int = 100,
    beta: float | None = None,
) -> TraceOutput:
    """Return the depth at which the ray of each pixel meets the surface of a distance field, without a mesh.

    The program is ``while field(p) > tolerance and depth < far: p = p + field(p) * direction`` (Hart, "Sphere tracing",
    1996), for all rays at once.

    Args:
        field: of points (N, 3) returns (N,): at most the distance to the surface, negative inside, such as a
            `geodiff.csg.Solid`. Not a relaxed solid, whose values are larger than that where solids overlap.
        camera: one camera, or a batch of them.
        image_size: `H` for a square image, or `(H, W)`.
        far: depth at which rays end.
        tolerance: distance at which they have arrived, > 0.
        max_steps: how many steps at most; rays that graze the surface take the most. What has not arrived then has met
            nothing.
        beta: None: the program as it is, with the gradient of the point of intersection by the implicit function
            theorem, which takes one step's memory. A number: the relaxed program, conditions with the scale 1/β, in
            units of the world, with a gradient through all steps.

    Returns:
        `TraceOutput`.

    Gradients: of depth, in what the field depends on and in the camera; no gradient knows of rays that begin to meet
    the surface. It grows without bound where rays graze it.

    Raises:
        TypeError, ValueError: for other types and sizes, and fields that return something else.

    Example:
        >>> import torch, geodiff as gd
        >>> camera = gd.Camera.orbit(3.0, fov_deg=40)
        >>> radius = torch.tensor(1.0, requires_grad=True)
        >>> depth = gd.render.sphere_trace(lambda p: p.norm(dim=-1) - radius, camera, 9).depth
        >>> depth[4, 4].backward()
        >>> depth[4, 4].item(), radius.grad.item()
        (2.0, -1.0)
    """
    size = pixel_size(_WHERE, image_size)
    if not callable(field):
        raise fail(_WHERE, "field", "a function of points", field, error=TypeError)
    if not isinstance(camera, Camera):
        raise fail(_WHERE, "camera", "a Camera", camera, error=TypeError)
    near = float(camera.near)
    far = number(_WHERE, "far", far, near, 1e30)
    tolerance = number(_WHERE, "tolerance", tolerance, 1e-12, 1e6)
    max_steps = integer(_WHERE, "max_steps", max_steps, 1)
    if beta is not None:
        beta = number(_WHERE, "beta", beta, 1e-12, 1e12)
    plane = pixel_centres(size, camera.position)
    ends = [torch.cat([plane, plane.new_full((len(plane), 1), z)], dim=-1) for z in (near, near + 1)]
    start, ahead = (camera.unproject(end.expand(*camera.batch_shape, *end.shape)) for end in ends)
    direction = ahead - start  # of a ray, one unit of depth further
    length = direction.norm(dim=-1)

    def measured(z: torch.Tensor) -> torch.Tensor:
        points = start + (z - near)[..., None] * direction
        values = field(points.reshape(-1, 3))
        if not isinstance(values, torch.Tensor) or values.shape != (z.numel(),):
            raise fail(_WHERE, "field", f"a function that returns ({z.numel()},) for as many points", values)
        return values.reshape(z.shape).to(z.dtype)

    def step(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        z = state["z"] + state["f"] / length
        return {"z": z, "f": measured(z)}

    law, sharpness = ("heaviside", 1.0) if beta is None else ("logistic", beta)

    def on(state: dict[str, torch.Tensor]) -> torch.Tensor:
        return lt(tolerance, state["f"], sharpness, law) * lt(state["z"], far, sharpness, law)

    z = torch.full_like(length, near)
    with torch.set_grad_enabled(torch.is_grad_enabled() and beta is not None):
        end, _ = loop(on, step, {"z": z, "f": measured(z)}, max_steps, 1e-5)
    z, arrived = end["z"], tolerance if beta is None else tolerance + 5 / beta
    mask = (end["f"].detach() <= arrived) & (z.detach() < far)
    if beta is None and torch.is_grad_enabled():
        z = _on_surface(measured, z.detach(), mask)
    depth = torch.where(mask, z, torch.inf).reshape(*camera.batch_shape, *size)
    return TraceOutput(depth, mask.reshape(depth.shape))


def _on_surface(measured: Field, z: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return z with the derivative of the root of f(z): −∂f/∂θ over ∂f/∂z."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        value = measured(at)
        if not value.requires_grad:  # the same everywhere
            return z
        (slope,) = torch.autograd.grad(value.sum(), at, retain_graph=True, allow_unused=True)
        slope = torch.zeros_like(z) if slope is None else slope
    still = measured(z)
    steep = mask & (slope.abs() > 1e-12)
    rate = torch.where(steep, -1 / torch.where(steep, slope, 1.0), 0.0)
    return z + rate.detach() * (still - still.detach())
