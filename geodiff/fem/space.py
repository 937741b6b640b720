# SPDX-License-Identifier: Apache-2.0
"""A space of functions made of elements, and the integrals over them: stiffness, mass, load, energy.

Assembly is dense algebra over all quadrature points of all elements at once, then one sum into the pattern in a fixed
order: the same bits each time, and a gradient in whatever the tables below were made of.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from geodiff.modes import lasting, outside_autocast
from geodiff.sparse.matrix import Pattern, SparseMatrix
from geodiff.validation import fail, floating

Coefficient = Any
"""A number, a tensor (..., E, Q) or (..., E, 1) at the quadrature points, or a callable of their positions."""
Where = Any
"""A side's name, unknowns (H,) as int64, or a callable that takes positions (M, D) and returns booleans (M,)."""


@dataclasses.dataclass(frozen=True, repr=False)
class Elements:
    """Elements of one kind, tabulated at their quadrature points.

    Attributes:
        dofs: (E, n), the unknowns whose functions are not zero on an element.
        values: (E or 1, Q, n), the functions; 1 where all elements are alike.
        gradients: (E or 1, Q or 1, n, D), in space; tangential ones on curves and surfaces.
        weights: (E, Q), the quadrature's, times the element of length, area or volume.
        points: (E, Q, D), positions.
        hessians: makes (E, Q, n, D, D), second derivatives in space; None where first ones are not continuous.
    """

    dofs: torch.Tensor
    values: torch.Tensor
    gradients: torch.Tensor
    weights: torch.Tensor
    points: torch.Tensor
    hessians: Callable[[], torch.Tensor] | None = None

    def _chosen(self, keep: torch.Tensor) -> "Elements":
        """Return some of the elements, by booleans (E,)."""

        def of(table: torch.Tensor) -> torch.Tensor:
            return table if len(table) == 1 and len(keep) > 1 else table[keep]

        own = self.weights.expand(len(keep), -1)
        return Elements(self.dofs[keep], of(self.values), of(self.gradients), own[keep], self.points[keep])


def blocks(left: torch.Tensor, right: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return `Σ_q w_eq Σ_d left_eqnd right_eqmd`, (E, n, m)."""
    if left.shape[1] == 1 and right.shape[1] == 1:
        weights = weights.sum(-1, keepdim=True)
    n, m = left.shape[2], right.shape[2]
    if len(left) == 1 and len(right) == 1:
        table = left[0] @ right[0].mT
        return (weights @ table.expand(weights.shape[1], n, m).reshape(-1, n * m)).reshape(-1, n, m)
    scaled = (left * weights[..., None, None]).transpose(1, 2).flatten(2)
    return scaled @ right.expand(-1, weights.shape[1], -1, -1).transpose(1, 2).flatten(2).mT


@outside_autocast
class Space:
    """Functions `Σ c_i R_i` over elements; made by `grid_space`, `mesh_space`, `nurbs_space` and `glued`.

    Attributes:
        size: N, how many unknowns there are.
        groups: the elements, one entry a kind (a patch).
        positions: (N, D): the nodes, or control points.
        nodal: whether the unknowns are values at those positions.
        rank: how many parameters it has: 1 of a curve, 2 of a surface, 3 of a volume.
        sides: the boundary's elements by name. Of grids and patches "left", "right" (the first parameter's start and
            end), "bottom", "top" (the second's), "back", "front" (the third's); of several patches "0.left", …, and
            only those not shared; of meshes "rim"; "all" for all of them.

    Gradients: of all matrices and vectors, in coefficients, loads, vertices, control points and weights.
    """

    def __init__(
        self,
        size: int,
        groups: Sequence[Elements],
        positions: torch.Tensor,
        nodal: bool,
        sides: Mapping[str, Callable[[], Sequence[Elements]]],
        rank: int,
        evaluator: Callable[..., torch.Tensor] | None = None,
        second_rows: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.size, self.groups, self.positions, self.nodal = size, tuple(groups), positions, nodal
        self.rank, self._sides, self._evaluator = rank, sides, evaluator
        self._second_rows = second_rows or {}
        self._patterns: dict[int, tuple[Pattern, torch.Tensor]] = {}

    def __repr__(self) -> str:
        count = sum(len(group.dofs) for group in self.groups)
        return f"Space({self.size} unknowns, {count} elements in {self.dim}-D)"

    @property
    def dim(self) -> int:
        """D, of the space that it lies in."""
        return self.positions.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64, of all matrices and vectors."""
        return self.groups[0].weights.dtype

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of the sides."""
        return (*self._sides, "all")

    def side(self, where: Where) -> "Space":
        """Return the boundary's elements there as a space over the same unknowns, for loads and masses on it.

        Args:
            where: a name, or a callable that says of the centres (M, D) of the boundary's elements which are meant.
        """
        if callable(where):
            groups = []
            for group in self.side("all").groups:
                keep = where(group.points.detach().mean(1))
                if not isinstance(keep, torch.Tensor) or keep.dtype != torch.bool or keep.shape != group.dofs.shape[:1]:
                    expected = f"a callable that returns ({len(group.dofs)},) booleans"
                    raise fail("Space.side", "where", expected, keep, error=TypeError)
                if bool(keep.any()):
                    groups.append(group._chosen(keep))
        elif where == "all":
            groups = [group for make in self._sides.values() for group in make()]
        elif where in self._sides:
            groups = list(self._sides[where]())
        else:
            raise fail("Space.side", "where", f"one of {', '.join(self.sides)}, or a callable", repr(where))
        if not sum(len(group.dofs) for group in groups):
            fix = "A closed or periodic one has none: hold an unknown, or use gauge='mean'."
            raise fail("Space.side", "where", "a part of the boundary", "an empty one", fix)
        return Space(self.size, groups, self.positions, self.nodal, {}, self.rank - 1)

    def held(self, where: Where) -> torch.Tensor:
        """Return the unknowns (H,) that are not zero on a side; indices stay what they are."""
        if isinstance(where, torch.Tensor):
            if where.dtype != torch.int64 or where.dim() != 1 or not len(where):
                raise fail("Space.held", "where", "int64 of shape (H,), H ≥ 1", where, error=TypeError)
            if not 0 <= int(where.min()) <= int(where.max()) < self.size:
                got = f"indices from {int(where.min())} to {int(where.max())}"
                raise fail("Space.held", "where", f"in [0, {self.size})", got)
            return where
        return torch.cat([group.dofs.reshape(-1) for group in self.side(where).groups]).unique()

    def second_row(self, where: str) -> torch.Tensor:
        """Return the unknowns (H,) next to a side: with the side's own at 0, the slope across is 0 where these are."""
        if where == "all" and self._second_rows:
            return torch.cat(list(self._second_rows.values())).unique()
        if where not in self._second_rows:
            names = ", ".join(self._second_rows) or "none"
            raise fail("Space.second_row", "where", f"a side of a patch of splines ({names})", repr(where))
        return self._second_rows[where]

    # Integrals -------------------------------------------------------------------------------------------------------

    def stiffness(self, diffusivity: Coefficient = None) -> SparseMatrix:
        """Return `K_ij = ∫ ν ∇R_i · ∇R_j`.

        Args:
            diffusivity: ν > 0; left out, 1. With several patches, tensors come in a list, one a patch.
        """
        found = []
        for k, group in enumerate(self.groups):
            nu = self.coefficient("stiffness", "diffusivity", diffusivity, k)
            check_positive("stiffness", "diffusivity", nu)
            found.append(blocks(group.gradients, group.gradients, group.weights * nu))
        return self.assembled(found)

    def mass(self, density: Coefficient = None, *, lumped: bool = False) -> SparseMatrix:
        """Return `M_ij = ∫ ρ R_i R_j`; lumped: its row sums on the diagonal."""
        found = []
        for k, group in enumerate(self.groups):
            rho = self.coefficient("mass", "density", density, k)
            check_positive("mass", "density", rho)
            block = blocks(group.values[..., None], group.values[..., None], group.weights * rho)
            found.append(torch.diag_embed(block.sum(-1)) if lumped else block)
        return self.assembled(found)

    def load(self, f: Coefficient) -> torch.Tensor:
        """Return `b_i = ∫ f R_i`, (..., N), where f has the batch (...)."""
        total: Any = 0
        for k, group in enumerate(self.groups):
            values = group.weights * self.coefficient("load", "f", f, k)
            if len(group.values) == 1:
                parts = values @ group.values[0]
            else:
                parts = torch.einsum("...eq,eqn->...en", values, group.values)
            empty = parts.new_zeros(*parts.shape[:-2], self.size)
            total = total + empty.index_add(-1, group.dofs.reshape(-1), parts.flatten(-2))
        result: torch.Tensor = total
        return result

    def at_points(self, c: torch.Tensor, *, gradients: bool = False) -> list[torch.Tensor]:
        """Return values (..., E, Q), or gradients (..., E, Q, D), at the quadrature points of each patch.

        Args:
            c: (..., N).
            gradients: which of both.
        """
        c = floating("Space.at_points", "c", c, ("...", self.size)).to(self.dtype)
        found = []
        for group in self.groups:
            own = c[..., group.dofs]
            table = group.gradients if gradients else group.values[..., None]
            out = torch.einsum("...en,qnd->...eqd" if len(table) == 1 else "...en,eqnd->...eqd", own, _first(table))
            out = out.expand(*out.shape[:-2], group.weights.shape[-1], out.shape[-1])
            found.append(out if gradients else out[..., 0])
        return found

    def integral(self, values: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the integral (...) of something at the quadrature points, a list of (..., E, Q), one a patch."""
        total: Any = 0
        for group, value in zip(self.groups, values, strict=True):
            total = total + (group.weights * value).sum((-2, -1))
        result: torch.Tensor = total
        return result

    def measure(self) -> torch.Tensor:
        """Return its length, area or volume."""
        return self.integral([torch.ones_like(group.weights) for group in self.groups])

    def evaluate(self, c: torch.Tensor, *parameters: Any, grid: bool = False) -> torch.Tensor:
        """Evaluate `Σ c_i R_i` at scattered parameters, one (M,) an axis, or on the grid that they span.

        Args:
            c: (..., N).
            parameters: of the grid (coordinates) or the NURBS.
            grid: whether to return (..., M1, M2, …) instead of (..., M).
        """
        if self._evaluator is None:
            fix = "Meshes have the values at their vertices; patches are evaluated one by one."
            raise fail("Space.evaluate", "space", "a grid or a single NURBS", repr(self), fix)
        c = floating("Space.evaluate", "c", c, ("...", self.size)).to(self.dtype)
        return self._evaluator(c, parameters, grid)

    # Assembly --------------------------------------------------------------------------------------------------------

    def coefficient(self, where: str, name: str, value: Coefficient, patch: int) -> torch.Tensor:
        """Read a coefficient at the quadrature points of a patch: a tensor that broadcasts with (E, Q)."""
        group = self.groups[patch]
        if value is None:
            return group.weights.new_ones(())
        if callable(value):
            value = value(group.points)
        elif isinstance(value, list | tuple):
            value = value[patch] if len(value) == len(self.groups) else value
        value = torch.as_tensor(value, dtype=group.weights.dtype) if not isinstance(value, torch.Tensor) else value
        floating(where, name, value, ("...",))
        count = tuple(group.weights.shape)
        if value.dim() and tuple(value.shape[-2:]) not in (count, (count[0], 1), (1, 1)):
            expected = f"a number, of shape (..., {count[0]}, {count[1]}) or (..., {count[0]}, 1), or a callable"
            raise fail(where, name, expected, value)
        return value.to(group.weights.dtype)

    def pattern(self, components: int = 1) -> tuple[Pattern, torch.Tensor]:
        """Return where matrices of this space have entries, and on which of them each entry of each block falls."""
        if components not in self._patterns:
            rows, columns = [], []
            kind: Any = np.int32 if self.size * components < 2**31 else np.int64
            for group in self.groups:
                dofs = group.dofs.cpu().numpy().astype(kind)
                own = (dofs[..., None] * components + np.arange(components, dtype=kind)).reshape(len(dofs), -1)
                rows.append(np.repeat(own, own.shape[1], axis=1).ravel())
                columns.append(np.tile(own, (1, own.shape[1])).ravel())
            size = self.size * components
            with lasting():
                self._patterns[components] = Pattern.of(np.concatenate(rows), np.concatenate(columns), (size, size))
        return self._patterns[components]

    def assembled(self, found: Sequence[torch.Tensor], components: int = 1) -> SparseMatrix:
        """Sum blocks (E, n·c, n·c), one tensor a patch, into a positive matrix."""
        pattern, entry = self.pattern(components)
        flat = torch.cat([block.reshape(-1) for block in found])
        values = flat.new_zeros(len(pattern.rows)).index_add(0, entry.to(flat.device), flat)
        return SparseMatrix._on(pattern, values, True)


def _first(table: torch.Tensor) -> torch.Tensor:
    return table[0] if len(table) == 1 else table


def on_cpu(where: str, name: str, tensor: torch.Tensor) -> None:
    """Require the CPU, where systems are solved."""
    if tensor.device.type != "cpu":
        fix = "Use .to('cpu'), which carries the gradient back."
        raise fail(where, name, "on the CPU", str(tensor.device), fix, RuntimeError)


def check_positive(where: str, name: str, value: torch.Tensor) -> None:
    """Require a coefficient that is positive everywhere."""
    if not bool((value > 0).all()):
        least = float(value.detach().min())
        raise fail(where, name, "positive", f"{least:g} somewhere", "Optimise its logarithm to keep it so.")
