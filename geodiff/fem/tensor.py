# SPDX-License-Identifier: Apache-2.0
"""Tensor-product functions over one patch, mapped by a NURBS or by nothing, and their sides."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from geodiff.fem.axis import Axis, clamped_at
from geodiff.fem.space import Elements, Space
from geodiff.validation import as_tensor, fail

SIDES = (("left", "right"), ("bottom", "top"), ("back", "front"))


def product(tables: Sequence[torch.Tensor]) -> torch.Tensor:
    """Multiply tables (S, Q, n), one an axis, into (ΠS, ΠQ, Πn)."""
    whole = torch.ones(1, 1, 1, dtype=torch.float64)
    for table in tables:
        whole = whole.to(table)
        whole = (
            (whole[:, None, :, None, :, None] * table[None, :, None, :, None]).flatten(4).flatten(2, 3).flatten(0, 1)
        )
    return whole


def grid_of(columns: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return all combinations of vectors (S_a, Q_a), one an axis, as (ΠS, ΠQ, axes)."""
    ones = [torch.ones_like(c)[..., None] for c in columns]
    picked = [product([c[..., None] if a == b else ones[b] for b, c in enumerate(columns)]) for a in range(len(ones))]
    return torch.cat(picked, -1)


class Patch:
    """The functions of one patch.

    Args:
        axes: one an axis.
        index: (K1, …), the number of each unknown.
        points: (K1, …, D), control points; None where parameters are coordinates.
        weights: (K1, …), of a rational map.
        quadrature: Gauss points a span, one an axis.
        fixed: of a side, the coordinates it stands at by axis, where there are no control points.
    """

    def __init__(
        self,
        axes: Sequence[Axis],
        index: torch.Tensor,
        points: torch.Tensor | None,
        weights: torch.Tensor | None,
        quadrature: Sequence[int],
        fixed: Sequence[tuple[int, torch.Tensor]] = (),
    ) -> None:
        self.axes, self.index, self.points, self.weights = list(axes), index, points, weights
        self.quadrature, self.fixed = list(quadrature), tuple(fixed)

    def elements(self) -> Elements:
        """Tabulate them."""
        axes, count = self.axes, len(self.axes)
        dofs = self._dofs()
        unknowns = self.index.reshape(-1)[dofs]
        if not count:  # the end of a curve
            here = torch.stack([c for _, c in self.fixed]) if self.points is None else self.points
            one = here.new_ones(1, 1)
            return Elements(unknowns, one[None], here.new_zeros(1, 1, 1, here.shape[-1]), one, here.reshape(1, 1, -1))
        tables = [
            [a.table(q, order) for order in range(3 if a.degree > 1 else 2)]
            for a, q in zip(axes, self.quadrature, strict=True)
        ]
        gauss = product([a.nodes(q)[1][..., None] for a, q in zip(axes, self.quadrature, strict=True)])[..., 0]

        def basis(*along: int) -> torch.Tensor:
            return product([tables[a][along.count(a)] for a in range(count)])

        slopes = torch.stack([basis(a) for a in range(count)], -1)
        smooth = all(a.smooth for a in axes)
        curved = functools.partial(_second, basis, count)
        if self.points is not None:
            return _mapped(
                unknowns, dofs, basis(), slopes, curved if smooth else None, gauss, self.points, self.weights
            )
        points = grid_of([a.nodes(q)[0] for a, q in zip(axes, self.quadrature, strict=True)])
        for a, coordinate in self.fixed:
            own = coordinate.to(points).expand(*points.shape[:2], 1)
            points = torch.cat([points[..., :a], own, points[..., a:]], -1)
            slopes = torch.cat([slopes[..., :a], torch.zeros_like(slopes[..., :1]), slopes[..., a:]], -1)
        return Elements(unknowns, basis(), slopes, gauss, points, curved if smooth and not self.fixed else None)

    def _dofs(self) -> torch.Tensor:
        """Return the places in the flattened net of functions on each element, (E, n)."""
        whole = torch.zeros(1, 1, dtype=torch.int64)
        for axis in self.axes:
            whole = (whole[:, None, :, None] * axis.count + axis.dofs[None, :, None, :]).flatten(2).flatten(0, 1)
        return whole

    def side(self, axis: int, end: int) -> list[Elements]:
        """Tabulate the functions on the side where a parameter starts (end 0) or ends (1)."""
        own = self.axes[axis]
        if not clamped_at(own, end):
            name = SIDES[axis][end]
            raise fail("Space.side", "where", "a clamped side", f"'{name}'", "Clamp it with splines.clamped.")
        at = own.count - 1 if end else 0
        rest = [i for i in range(len(self.axes)) if i != axis]
        fixed = [(axis, own.breaks[-1 if end else 0])] if self.points is None else []
        net = None if self.points is None else self.points.select(axis, at)
        weights = None if self.weights is None else self.weights.select(axis, at)
        index = self.index.select(axis, at)
        return [
            Patch(
                [self.axes[i] for i in rest], index, net, weights, [self.quadrature[i] for i in rest], fixed
            ).elements()
        ]

    def sides(self) -> dict[str, Callable[[], Sequence[Elements]]]:
        """Return what makes each side, by name."""
        ends = itertools.product(range(len(self.axes)), (0, 1))
        return {SIDES[a][e]: functools.partial(self.side, a, e) for a, e in ends if not self.axes[a].periodic}

    def second_rows(self) -> dict[str, torch.Tensor]:
        """Return the unknowns next to each side, where functions are smooth."""
        ends = [(a, e) for a in range(len(self.axes)) for e in (0, 1) if self.axes[a].smooth and self.axes[a].count > 2]
        return {SIDES[a][e]: self.index.select(a, self.axes[a].count - 2 if e else 1).reshape(-1) for a, e in ends}

    def evaluated(self, c: torch.Tensor, parameters: Sequence[Any], grid: bool) -> torch.Tensor:
        """Evaluate; see `Space.evaluate`."""
        if len(parameters) != len(self.axes):
            raise fail("Space.evaluate", "parameters", f"{len(self.axes)}, one an axis", f"{len(parameters)}")
        given = [as_tensor("Space.evaluate", "parameters", u).to(c.dtype).reshape(-1) for u in parameters]
        for axis, u in zip(self.axes, given, strict=True):
            low, high = float(axis.breaks[0]), float(axis.breaks[-1])
            if not axis.periodic and not bool(((u >= low) & (u <= high)).all()):
                got = f"from {float(u.min()):g} to {float(u.max()):g}"
                raise fail("Space.evaluate", "parameters", f"in [{low:g}, {high:g}]", got)
        found = [a.at(u) for a, u in zip(self.axes, given, strict=True)]
        if grid:
            matrices = [
                u.new_zeros(len(u), a.count).scatter_add(1, d, v) for a, u, (d, v) in _zip(self.axes, given, found)
            ]

            def along(net: torch.Tensor) -> torch.Tensor:
                for k, matrix in enumerate(matrices):
                    dim = k - len(matrices)
                    net = (net.movedim(dim, -1) @ matrix.T).movedim(-1, dim)
                return net

            net = c[..., self.index]
            return along(net) if self.weights is None else along(net * self.weights) / along(self.weights.to(c))
        counts = {len(u) for u in given} - {1}
        if len(counts) > 1:
            raise fail("Space.evaluate", "parameters", "of one length", f"lengths {[len(u) for u in given]}")
        many = max(counts, default=1)
        place = torch.zeros(many, 1, dtype=torch.int64)
        values = torch.ones(many, 1, dtype=c.dtype)
        for axis, (dofs, own) in zip(self.axes, found, strict=True):
            place = (place[:, :, None] * axis.count + dofs[:, None]).flatten(1)
            values = (values[:, :, None] * own[:, None]).flatten(1)
        if self.weights is not None:
            values = values * self.weights.reshape(-1)[place]
            values = values / values.sum(-1, keepdim=True)
        return (c[..., self.index.reshape(-1)[place]] * values).sum(-1)

    def space(self, positions: torch.Tensor, nodal: bool) -> Space:
        """Make the space of this patch alone."""
        groups, sides, rank = [self.elements()], self.sides(), len(self.axes)
        return Space(self.index.numel(), groups, positions, nodal, sides, rank, self.evaluated, self.second_rows())


def _zip(*lists: Any) -> Any:
    return zip(*lists, strict=True)


def _second(basis: Callable[..., torch.Tensor], count: int) -> torch.Tensor:
    rows = [torch.stack([basis(a, b) for b in range(count)], -1) for a in range(count)]
    return torch.stack(rows, -2)


def _mapped(
    unknowns: torch.Tensor,
    dofs: torch.Tensor,
    values: torch.Tensor,
    slopes: torch.Tensor,
    curved: Callable[[], torch.Tensor] | None,
    gauss: torch.Tensor,
    points: torch.Tensor,
    weights: torch.Tensor | None,
) -> Elements:
    """Map functions of parameters into space: `R = wN / W`, `∇R = J (JᵀJ)⁻¹ ∂R`, `dA = √det JᵀJ`."""
    net = points.reshape(-1, points.shape[-1])[dofs]
    own = None if weights is None else weights.reshape(-1)[dofs][:, None]
    if own is not None:
        total = (values * own).sum(-1)[..., None]
        rational = values * own / total
        slope_of_total = (slopes * own[..., None]).sum(-2, keepdim=True)
        slopes_of = (slopes * own[..., None] - rational[..., None] * slope_of_total) / total[..., None]
    else:
        rational, slopes_of = values, slopes
    jacobian = torch.einsum("eqna,end->eqda", slopes_of, net)
    metric = jacobian.mT @ jacobian
    square = torch.linalg.det(metric)
    _check_map(jacobian.detach(), square.detach())
    inverse = torch.linalg.inv(metric)
    gradients = slopes_of @ (inverse @ jacobian.mT)
    position = torch.einsum("eqn,end->eqd", rational, net)

    def hessians() -> torch.Tensor:
        assert curved is not None
        second = curved()
        if own is not None:
            bent = (second * own[..., None, None]).sum(-3, keepdim=True)
            mixed = slopes_of[..., :, None] * slope_of_total[..., None, :]
            second = second * own[..., None, None] - mixed - mixed.mT - rational[..., None, None] * bent
            second = second / total[..., None, None]
        # ∂²R/∂x² = J⁻ᵀ (∂²R/∂u² − Σ_d ∂R/∂x_d ∂²x_d/∂u²) J⁻¹
        of_map = torch.einsum("eqnab,end->eqdab", second, net)
        second = second - torch.einsum("eqnd,eqdab->eqnab", gradients, of_map)
        back = inverse @ jacobian.mT
        return torch.einsum("eqnab,eqax,eqby->eqnxy", second, back, back)

    flat = points.shape[-1] == slopes.shape[-1] and curved is not None
    return Elements(unknowns, rational, gradients, gauss * square.sqrt(), position, hessians if flat else None)


def _check_map(jacobian: torch.Tensor, square: torch.Tensor) -> None:
    """Require a map that neither folds nor collapses at any quadrature point."""
    longest = jacobian.square().sum(-2).amax(-1) ** jacobian.shape[-1]
    collapsed = square <= torch.finfo(square.dtype).eps ** 1.5 * longest
    if bool(collapsed.any()):
        got = f"no area in element {int(collapsed.any(-1).nonzero()[0])}"
        raise fail("nurbs_space", "spline", "without collapsed elements", got, "See that control points differ.")
    if jacobian.shape[-1] == jacobian.shape[-2]:
        sign = torch.linalg.det(jacobian) > 0
        few = sign if bool(sign.sum() * 2 < sign.numel()) else ~sign
        if bool(few.any()):
            got = f"element {int(few.any(-1).nonzero()[0])} inverted ({int(few.sum())} of {few.numel()} points)"
            raise fail("nurbs_space", "spline", "a map without folds", got, "Move its control points apart.")
