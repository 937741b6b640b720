# SPDX-License-Identifier: Apache-2.0
"""Lenses that bend straight lines, and how their images are made straight: what `PosedImages.load` does on reading.

Points are (..., 2) in the plane at depth 1 in front of the camera, x right and y **down**, as calibrations have it;
pixels count from the upper left corner of the image, centres at +0.5.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch

_WIDEST = math.tan(math.radians(60.0))  # of what is kept of a fisheye, to each side: a plane holds no half-sphere
_PLANE = math.radians(85.0)  # from the axis; rays beyond are taken for outside of the plane
_EDGE = 65  # points along an edge of the image, and along that of a window
_SHRINK, _TRIES = 0.97, 80


class Window(NamedTuple):
    """The part of the plane that an image without distortion shows: from (x0, y0), top left, to (x1, y1)."""

    x0: float
    y0: float
    x1: float
    y1: float

    def K(self, size: tuple[int, int]) -> torch.Tensor:
        """Return the intrinsics (3, 3), float64, of an image of the size (H, W) that shows it."""
        fx, fy = size[1] / (self.x1 - self.x0), size[0] / (self.y1 - self.y0)
        return torch.tensor([[fx, 0, -self.x0 * fx], [0, fy, -self.y0 * fy], [0, 0, 1]], dtype=torch.float64)


@dataclass(frozen=True)
class Lens:
    """A lens and the size of its images.

    ``bend`` says where a ray through (x, y) appears, in units of the focal length: with r² = x² + y²

        radial = (1 + k1 r² + k2 r⁴ + k3 r⁶) / (1 + k4 r² + k5 r⁴ + k6 r⁶)
        x′ = x radial + 2 p1 x y + p2 (r² + 2 x²) + s1 r² + s2 r⁴
        y′ = y radial + p1 (r² + 2 y²) + 2 p2 x y + s3 r² + s4 r⁴,

    or for a fisheye, with the angle θ = atan r from the axis,

        (x′, y′) = (x, y) θ (1 + k1 θ² + k2 θ⁴ + k3 θ⁶ + k4 θ⁸) / r:

    the formulas of OpenCV and COLMAP.

    Attributes:
        size: (H, W) of the image.
        focal: fx, fy in pixels.
        principal: cx, cy in pixels.
        coefficients: k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 in OpenCV's order, the last ones may be left out;
            k1 to k4 of a fisheye.
        fisheye: which of the two.
    """

    size: tuple[int, int]
    focal: tuple[float, float]
    principal: tuple[float, float]
    coefficients: tuple[float, ...] = ()
    fisheye: bool = False

    @property
    def straight(self) -> bool:
        """Whether it is a pinhole."""
        return not self.fisheye and not any(self.coefficients)

    @property
    def K(self) -> torch.Tensor:
        """(3, 3) intrinsics in pixels, float64."""
        (fx, fy), (cx, cy) = self.focal, self.principal
        return torch.tensor([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]], dtype=torch.float64)

    def scaled(self, size: tuple[int, int]) -> "Lens":
        """Return the lens of the same image in another size."""
        y, x = size[0] / self.size[0], size[1] / self.size[1]
        (fx, fy), (cx, cy) = self.focal, self.principal
        return Lens(size, (fx * x, fy * y), (cx * x, cy * y), self.coefficients, self.fisheye)

    def pixels(self, points: torch.Tensor) -> torch.Tensor:
        """Return the pixels (..., 2) where points of the plane are seen, float64."""
        bent = points if self.straight else self.bend(points)[0]
        return bent * bent.new_tensor(self.focal) + bent.new_tensor(self.principal)

    def bend(self, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return where points (..., 2) appear, and the derivative (..., 2, 2) of that."""
        x, y = points.unbind(-1)
        r2 = x * x + y * y
        if self.fisheye:
            radial, slope = self._fisheye(r2)
            p1 = p2 = s1 = s2 = s3 = s4 = 0.0
        else:
            k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = (*self.coefficients, *(0.0,) * 12)[:12]
            over, under = 1 + r2 * (k1 + r2 * (k2 + r2 * k3)), 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
            over_slope, under_slope = k1 + r2 * (2 * k2 + 3 * r2 * k3), k4 + r2 * (2 * k5 + 3 * r2 * k6)
            radial, slope = over / under, (over_slope * under - over * under_slope) / under**2
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x) + r2 * (s1 + r2 * s2)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y + r2 * (s3 + r2 * s4)
        prism_u, prism_v = s1 + 2 * s2 * r2, s3 + 2 * s4 * r2
        mixed = 2 * (x * y * slope + p1 * x + p2 * y)
        rows = (
            radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x + 2 * x * prism_u,
            mixed + 2 * y * prism_u,
            mixed + 2 * x * prism_v,
            radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x + 2 * y * prism_v,
        )
        return torch.stack((u, v), -1), torch.stack(rows, -1).unflatten(-1, (2, 2))

    def _fisheye(self, r2: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return θ′ / r and its derivative in r²."""
        k1 = self.coefficients[0] if self.coefficients else 0.0
        small = r2 < 1e-12
        r = torch.where(small, 1.0, r2).sqrt()
        turned, slope = self._turned(r.atan())
        radial = turned / r
        first = (slope / (1 + r * r) - radial) / (2 * r * r)
        return torch.where(small, 1.0, radial), torch.where(small, k1 - 1 / 3, first)

    def _turned(self, angle: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return θ′ of angles θ from the axis, and its derivative."""
        k1, k2, k3, k4 = (*self.coefficients, *(0.0,) * 4)[:4]
        t = angle * angle
        value = 1 + t * (k1 + t * (k2 + t * (k3 + t * k4)))
        return angle * value, 1 + t * (3 * k1 + t * (5 * k2 + t * (7 * k3 + t * 9 * k4)))

    def rays(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the points (..., 2) of the plane that are seen at pixels, by Newton's method, and where there are any.

        There is none where the formula, past its turning point, comes to no such place, or 85° from the axis.
        """
        bent = (pixels - pixels.new_tensor(self.principal)) / pixels.new_tensor(self.focal)
        if self.straight:
            return bent, torch.ones_like(bent[..., 0], dtype=torch.bool)
        return self._rays_of_fisheye(bent) if self.fisheye else self._rays_of_brown(bent)

    def _rays_of_fisheye(self, bent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        goal = torch.linalg.vector_norm(bent, dim=-1)
        angle = goal.clamp(max=_PLANE)
        for _ in range(50):
            turned, slope = self._turned(angle)
            step = torch.where(slope > 0, (goal - turned) / slope, 0.0)
            angle = (angle + step.clamp(-0.3, 0.3)).clamp(0.0, math.pi)
        turned, slope = self._turned(angle)
        found = ((turned - goal).abs() < 1e-9) & (slope > 0) & (angle < _PLANE)
        length = torch.where(found, angle, 0.0).tan()
        return bent * torch.where(goal > 1e-12, length / goal.clamp_min(1e-12), 1.0)[..., None], found

    def _rays_of_brown(self, bent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        points = bent.clone()
        value, slope = self.bend(points)
        # Start where the formula still rises: halfway to the axis, and so on.
        for _ in range(10):
            folded = _det(slope) <= 0
            points = torch.where(folded[..., None], 0.5 * points, points)
            value, slope = self.bend(points)
        size = torch.linalg.vector_norm(value - bent, dim=-1)
        for _ in range(50):
            step = _solved(slope, bent - value)
            # Halved until it comes nearer, and not past the turning point.
            length = torch.ones_like(size)
            for _ in range(12):
                trial = points + length[..., None] * step
                trial_value, trial_slope = self.bend(trial)
                trial_size = torch.linalg.vector_norm(trial_value - bent, dim=-1)
                better = (trial_size < size) & (_det(trial_slope) > 0)
                if bool((better | (size < 1e-13)).all()):
                    break
                length = torch.where(better, length, 0.5 * length)
            points = torch.where(better[..., None], trial, points)
            value = torch.where(better[..., None], trial_value, value)
            slope = torch.where(better[..., None, None], trial_slope, slope)
            size = torch.where(better, trial_size, size)
            if not bool(better.any()):
                break
        return points, (size < 1e-9) & (_det(slope) > 0)

    def window(self) -> Window | None:
        """Return the greatest upright part of the plane all of which the image shows, at most 60° to each side.

        None where there is none: the coefficients turn the image over.
        """
        height, width = self.size
        (fx, fy), (cx, cy) = self.focal, self.principal
        if self.straight:
            return Window(-cx / fx, -cy / fy, (width - cx) / fx, (height - cy) / fy)
        along = torch.linspace(0.0, 1.0, _EDGE, dtype=torch.float64)
        none, all_ = torch.zeros_like(along), torch.ones_like(along)
        bounds = []
        for u, v, axis, sign in ((none, along, 0, 1), (along, none, 1, 1), (all_, along, 0, -1), (along, all_, 1, -1)):
            points, found = self.rays(torch.stack((u * width, v * height), -1))
            inner = (sign * points[..., axis])[found]
            bounds.append(sign * max(-_WIDEST, float(inner.max()) if len(inner) else -_WIDEST))
        x0, y0, x1, y1 = bounds
        if not (x0 < x1 and y0 < y1):
            return None
        x, y, half_x, half_y = 0.5 * (x0 + x1), 0.5 * (y0 + y1), 0.5 * (x1 - x0), 0.5 * (y1 - y0)
        for _ in range(_TRIES):
            window = Window(x - half_x, y - half_y, x + half_x, y + half_y)
            if self._shows(window):
                return window
            half_x, half_y = _SHRINK * half_x, _SHRINK * half_y
        return None

    def _shows(self, window: Window) -> bool:
        """Whether all of a window is in the image, and not turned over, up to a quarter of a pixel."""
        x = torch.linspace(window.x0, window.x1, _EDGE, dtype=torch.float64)
        y = torch.linspace(window.y0, window.y1, _EDGE, dtype=torch.float64)
        points = torch.stack((x.expand(_EDGE, -1), y[:, None].expand(-1, _EDGE)), -1)
        upright = _det(self.bend(points)[1]) > 0
        u, v = self.pixels(points).unbind(-1)
        inside = (u > -0.25) & (u < self.size[1] + 0.25) & (v > -0.25) & (v < self.size[0] + 0.25)
        return bool((upright & inside).all())


def _det(matrix: torch.Tensor) -> torch.Tensor:
    """Return the determinants of matrices (..., 2, 2)."""
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def _solved(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return x (..., 2) of matrix x = right; the right side itself where there is none."""
    det, (u, v) = _det(matrix), right.unbind(-1)
    singular = det.abs() < 1e-12
    x = torch.stack((matrix[..., 1, 1] * u - matrix[..., 0, 1] * v, matrix[..., 0, 0] * v - matrix[..., 1, 0] * u), -1)
    return torch.where(singular[..., None], right, x / torch.where(singular, 1.0, det)[..., None])


class Resampler:
    """Images as a pinhole camera with a given window would have taken them, of the size (H, W).

    Bilinear between pixels; where it makes images smaller, the mean of what a pixel covers.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self._plans: dict[tuple[Lens, Window], tuple[tuple[int, int], list[torch.Tensor]]] = {}

    def __call__(self, image: torch.Tensor, lens: Lens, window: Window) -> torch.Tensor:
        """Return an image (H, W, C) of a lens, whose size it has, as (H, W, C) of the window."""
        if lens.straight and image.shape[:2] == self.size:
            return image
        (down, across), grids = self._plan(lens, window)
        planes = image.movedim(-1, 0)[None]
        if down * across > 1:
            height, width = image.shape[:2]
            short = (0, -width % across, 0, -height % down)
            planes = torch.nn.functional.pad(planes, short, mode="replicate") if any(short) else planes
            planes = torch.nn.functional.avg_pool2d(planes, (down, across))
        total = torch.zeros(1, image.shape[-1], *self.size)
        for grid in grids:
            total += torch.nn.functional.grid_sample(planes, grid, "bilinear", "border", align_corners=False)
        return (total / len(grids))[0].movedim(0, -1)

    def _plan(self, lens: Lens, window: Window) -> tuple[tuple[int, int], list[torch.Tensor]]:
        """Return how many pixels are averaged first, down and across, and where the images are looked at then."""
        known = self._plans.get((lens, window))
        if known is not None:
            return known
        down, across = self._steps(lens, window)
        pool = (max(1, math.floor(down + 0.01)), max(1, math.floor(across + 0.01)))
        fine = [max(1, math.ceil(step / by - 0.25)) for step, by in zip((down, across), pool, strict=True)]
        size = [by * -(-side // by) for side, by in zip(lens.size, pool, strict=True)]  # what is padded to
        scale = torch.tensor([2.0 / size[1], 2.0 / size[0]], dtype=torch.float64)
        grids = []
        for i in range(fine[0]):
            for j in range(fine[1]):
                at = self._points(window, (i + 0.5) / fine[0], (j + 0.5) / fine[1])
                grids.append((lens.pixels(at) * scale - 1.0).float()[None])
        if len(self._plans) >= 4:  # cameras come one after the other, mostly
            self._plans.pop(next(iter(self._plans)))
        self._plans[lens, window] = (pool, grids)
        return pool, grids

    def _points(self, window: Window, down: float, across: float) -> torch.Tensor:
        """Return points (H, W, 2) of the plane, one in each pixel."""
        height, width = self.size
        x = window.x0 + (window.x1 - window.x0) * (torch.arange(width, dtype=torch.float64) + across) / width
        y = window.y0 + (window.y1 - window.y0) * (torch.arange(height, dtype=torch.float64) + down) / height
        return torch.stack((x.expand(height, -1), y[:, None].expand(-1, width)), -1)

    def _steps(self, lens: Lens, window: Window) -> tuple[float, float]:
        """Return how many pixels of the image a pixel covers at most, down and across."""
        at = lens.pixels(Resampler((_EDGE, _EDGE))._points(window, 0.5, 0.5))
        down = torch.linalg.vector_norm(at[1:] - at[:-1], dim=-1).max() * _EDGE / self.size[0]
        across = torch.linalg.vector_norm(at[:, 1:] - at[:, :-1], dim=-1).max() * _EDGE / self.size[1]
        return float(down), float(across)
