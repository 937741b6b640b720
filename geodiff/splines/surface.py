# SPDX-License-Identifier: Apache-2.0
"""NURBS surfaces."""

import numbers
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.splines import geometry
from geodiff.splines.spline import NURBS
from geodiff.validation import fail


@outside_autocast
class NURBSSurface(NURBS):
    """A tensor-product B-spline surface, rational if it has weights.

    `S(u, v) = Σ w_ij N_i(u) N_j(v) P_ij / Σ w_ij N_i(u) N_j(v)`, with u along the first axis of the control net.

    Args:
        control_points: P, `(..., K1, K2, D)`.
        knots_u: `(..., K1 + P1 + 1)`, non-decreasing; left out, clamped and uniform on [0, 1]. Where u is periodic,
            the `(..., K1 + 1)` breakpoints of one period.
        knots_v: the same for v.
        weights: w > 0, `(..., K1, K2)`; left out, polynomial.
        degree: (P1, P2).
        knot_gradient: ``"exact"``, or ``"gaussian"`` with a bandwidth; the values are the same.
        bandwidth: standard deviation of the Gaussian, one for both axes or one each, in the units of the knots.
        periodic: close the surface smoothly along u, along v.
        outside: ``"error"``, ``"clamp"`` or ``"extend"`` for parameters outside of the domain.

    Gradients: in control points, weights, knots and parameters; see `NURBS`.

    Raises:
        TypeError: for a wrong class or dtype.
        ValueError: for a wrong shape, too few points, decreasing knots, a knot repeated more than P + 1 times, weights
            that are not positive, NaN.

    Example:
        >>> import torch, geodiff as gd
        >>> net = torch.stack(torch.meshgrid(*[torch.arange(4.0)] * 2, indexing="ij") + (torch.zeros(4, 4),), -1)
        >>> surface = gd.NURBSSurface(net)
        >>> surface(torch.tensor([0.5]), torch.tensor([0.5]))
        tensor([[1.5000, 1.5000, 0.0000]])
        >>> surface.grid(5, 7).shape
        torch.Size([5, 7, 3])
    """

    axes = 2

    def __init__(
        self,
        control_points: Any,
        knots_u: Any = None,
        knots_v: Any = None,
        weights: Any = None,
        degree: tuple[int, int] = (3, 3),
        *,
        knot_gradient: str = "exact",
        bandwidth: float | tuple[float, float] | None = None,
        periodic: bool | tuple[bool, bool] = (False, False),
        outside: str = "error",
    ) -> None:
        super().__init__(
            control_points,
            (knots_u, knots_v),
            weights,
            degree,
            knot_gradient,
            bandwidth,
            periodic,
            outside,
        )

    @property
    def knots_u(self) -> torch.Tensor:
        """Knots along u."""
        return self.knots[0]

    @property
    def knots_v(self) -> torch.Tensor:
        """Knots along v."""
        return self.knots[1]

    @property
    def degree(self) -> tuple[int, int]:
        """(P1, P2)."""
        return self.degrees[0], self.degrees[1]

    def normal(self, u: Any, v: Any, grid: bool = False) -> torch.Tensor:
        """Return unit normals `S_u × S_v / |S_u × S_v|`, `(..., N, 3)`.

        At a pole, where an edge of the net is one point and `S_u` or `S_v` vanishes, the limit from inside.
        """
        self._in_space("normal")
        jet = self.derivatives(u, v, order=2, grid=grid)
        with torch.no_grad():
            at, lone = self._parameters((u, v), grid)
            ends = [(end[0] + end[1])[..., None] / 2 for end in self.domain]
            first, second = (torch.where(x <= middle, 1.0, -1.0) for x, middle in zip(at, ends, strict=True))
            if grid:
                first, second = first[..., :, None], second[..., None, :]
            elif lone:
                first, second = first[..., 0], second[..., 0]
        return geometry.normal(jet, first[..., None], second[..., None])

    def first_fundamental_form(self, u: Any, v: Any, grid: bool = False) -> torch.Tensor:
        """Return `[[E, F], [F, G]]`, `(..., N, 2, 2)`: the inner products of `S_u` and `S_v`."""
        return geometry.first_form(self.derivatives(u, v, order=1, grid=grid))

    def second_fundamental_form(self, u: Any, v: Any, grid: bool = False) -> torch.Tensor:
        """Return `[[L, M], [M, N]]`, `(..., N, 2, 2)`: `S_uu`, `S_uv` and `S_vv` along the normal."""
        self._in_space("second_fundamental_form")
        return geometry.second_form(self.derivatives(u, v, order=2, grid=grid))

    def gaussian_curvature(self, u: Any, v: Any, grid: bool = False) -> torch.Tensor:
        """Return `K = (L N − M²) / (E G − F²)`, `(..., N)`; undefined at poles."""
        self._in_space("gaussian_curvature")
        return geometry.gaussian_curvature(self.derivatives(u, v, order=2, grid=grid))

    def mean_curvature(self, u: Any, v: Any, grid: bool = False) -> torch.Tensor:
        """Return `H = (E N − 2 F M + G L) / 2(E G − F²)`, `(..., N)`: negative where it bends away from the normal."""
        self._in_space("mean_curvature")
        return geometry.mean_curvature(self.derivatives(u, v, order=2, grid=grid))

    def _in_space(self, method: str) -> None:
        if self.dim != 3:
            raise fail(f"NURBSSurface.{method}", "control_points", "points in space, D = 3", f"D = {self.dim}")

    def tessellate(self, n: Any = 32, m: Any = 32, weld: bool = True) -> Mesh:
        """Return a triangle mesh of n × m points on the surface; its vertices keep their gradient.

        Args:
            n: how many points along u, or parameters.
            m: how many along v, or parameters.
            weld: join the ends of closed directions and the points of poles, so that a closed surface gives a closed
                mesh; the gradient of a joined vertex goes to the first of its points.

        Returns:
            a mesh with texture coordinates (u, v scaled to [0, 1]) and faces seen from where the normals point.
            Batched surfaces give meshes with batched vertices.
        """
        self._in_space("tessellate")
        points = self.grid(n, m)
        rows, columns = points.shape[-3], points.shape[-2]
        vertices = points.flatten(-3, -2)
        index = geometry.grid_faces(rows, columns, points.device)
        across = [torch.broadcast_to(self._texture(x, i), (rows, columns)) for i, x in enumerate((n, m))]
        texture = torch.stack(across, -1).reshape(-1, 2)
        if not weld:
            return Mesh(vertices, index, uv=texture)
        keep, renumber = geometry.weld_grid(points.detach())
        faces = renumber[index]
        sound = (
            (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        )  # a pole's triangles collapse
        return Mesh(vertices[..., keep, :], faces[sound], uv=texture, uv_faces=index[sound])

    def _texture(self, samples: Any, axis: int) -> torch.Tensor:
        if isinstance(samples, numbers.Integral):
            along = torch.linspace(0, 1, int(samples), dtype=self.dtype, device=self.device)
        else:
            low, high = (float(end.detach().flatten()[0]) for end in self.domain[axis])
            along = (torch.as_tensor(samples).detach().to(self.control_points) - low) / (high - low)
            along = along.reshape(-1, along.shape[-1])[0]  # one layout for a whole batch
        return along[:, None] if axis == 0 else along
