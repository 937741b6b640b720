# SPDX-License-Identifier: Apache-2.0
"""What curves, surfaces and volumes share: a tensor-product spline over any number of axes, rational or not."""

import copy
import itertools
import math
import numbers
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from geodiff import ops
from geodiff.modes import outside_autocast
from geodiff.reference.spline import project
from geodiff.saving import Saved
from geodiff.scene.anchor import anchor
from geodiff.splines.basis import wrap
from geodiff.splines.knots import check_knots, open_periodic, uniform_knots
from geodiff.validation import (
    Place,
    as_tensor,
    choice,
    common_batch,
    fail,
    floating,
    looks_at_values,
    placement,
    positive,
    promote,
)

Self = TypeVar("Self", bound="NURBS")
AXIS_NAMES = "uvw"


@outside_autocast
class NURBS(Saved):
    """A tensor-product spline `Σ w_ij N_i(u) N_j(v) P_ij / Σ w_ij N_i(u) N_j(v)`; see its curves, surfaces, volumes.

    Methods return new splines and never change this one. Leading axes of control points, weights, knots and
    parameters are a batch and broadcast: knots may be shared by all splines of a batch, or each may have its own.

    Gradients: in control points, weights, parameters and knots. Those of the knots are exact
    (``knot_gradient="exact"``: zero at degree 0, undefined where a knot repeated P times or more moves), or carry the
    jumps smoothed by a Gaussian of standard deviation ``bandwidth`` (``"gaussian"``; see
    `geodiff.reference.basis_matrix`).
    """

    _fields_kept = ("control_points", "weights", "knots", "knot_gradient", "bandwidth", "periodic", "outside")
    axes: int
    control_points: torch.Tensor
    weights: torch.Tensor | None
    knots: tuple[torch.Tensor, ...]
    periodic: tuple[bool, ...]
    knot_gradient: str
    outside: str

    def __init__(
        self,
        control_points: Any,
        knots: Sequence[Any] | None,
        weights: Any,
        degree: Sequence[int],
        knot_gradient: str,
        bandwidth: float | Sequence[float] | None,
        periodic: bool | Sequence[bool],
        outside: str,
    ) -> None:
        where, axes = type(self).__name__, self.axes
        names = ["knots"] if axes == 1 else [f"knots_{a}" for a in AXIS_NAMES[:axes]]
        knots = (None,) * axes if knots is None else knots
        if not isinstance(knots, Sequence) or len(knots) != axes:
            got = knots if isinstance(knots, torch.Tensor | np.ndarray) else repr(knots)
            raise fail(where, "knots", f"a tuple of {axes}, one vector an axis", got)
        given = {name: k for name, k in zip(names, knots, strict=True) if k is not None}
        extra = {} if weights is None else {"weights": weights}
        tensors = promote(where, control_points=control_points, **extra, **given)
        self.control_points = points = tensors["control_points"]
        letters = ["K"] if axes == 1 else [f"K{i + 1}" for i in range(axes)]
        floating(where, "control_points", points, ("...", *letters, "D"), finite=False)
        self._degrees = _integers(where, "degree", degree, axes)
        self.periodic = _per_axis(where, "periodic", periodic, axes, bool)
        for i, (p, count) in enumerate(zip(self._degrees, self.shape, strict=True)):
            least = 1 if self.periodic[i] else p + 1
            if count < least:
                expected = f"at least {least} control points along {AXIS_NAMES[i]} for degree {p}"
                raise fail(where, "control_points", expected, count, "Add control points or lower the degree.")
        self.weights = tensors.get("weights")
        if self.weights is not None:
            floating(where, "weights", self.weights, ("...", *self.shape), "One weight a control point.", finite=False)
            if looks_at_values(self.weights) and not bool((self.weights > 0).all()):
                bad = tuple((~(self.weights > 0)).nonzero()[0].tolist())
                got = f"{float(self.weights.detach()[bad])} at index {bad}"
                raise fail(where, "weights", "positive", got, "Optimise their logarithms to keep them so.")
        vectors = []
        for i, name in enumerate(names):
            if name not in given:
                kind = "periodic" if self.periodic[i] else "clamped"
                vectors.append(
                    uniform_knots(self.shape[i], self._degrees[i], kind, dtype=points.dtype, device=points.device)
                )
                continue
            check_knots(where, name, tensors[name], self._degrees[i], self.shape[i], self.periodic[i])
            vectors.append(tensors[name])
        self.knots = tuple(vectors)
        self._check_batch(where, names)
        self.knot_gradient = choice(where, "knot_gradient", knot_gradient, ("exact", "gaussian"))
        self.bandwidth = _bandwidth(where, knot_gradient, bandwidth, axes)
        self.outside = choice(where, "outside", outside, ("error", "clamp", "extend"))

    def _check_batch(self, where: str, names: Sequence[str]) -> None:
        shapes = {"control_points": self.control_points.shape[: -self.axes - 1]}
        if self.weights is not None:
            shapes["weights"] = self.weights.shape[: -self.axes]
        shapes |= {name: k.shape[:-1] for name, k in zip(names, self.knots, strict=True)}
        try:
            self._batch = common_batch(*shapes.values())
        except RuntimeError:
            text = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
            fix = "Make the leading axes equal, or drop them from what is shared."
            raise fail(where, "control_points", "of a batch that broadcasts", text, fix) from None

    def _saved(self) -> dict[str, Any]:
        names = {1: ("knots",), 2: ("knots_u", "knots_v")}.get(self.axes)
        knots = {"knots": self.knots} if names is None else dict(zip(names, self.knots, strict=True))
        others = {name: getattr(self, name) for name in self._fields_kept if name != "knots"}
        return {**others, **knots, "degree": self._degrees}

    # What it is ------------------------------------------------------------------------------------------------------

    @property
    def dim(self) -> int:
        """D: how many coordinates a point has."""
        return self.control_points.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """How many control points there are along each axis."""
        return tuple(self.control_points.shape[-self.axes - 1 : -1])

    @property
    def degrees(self) -> tuple[int, ...]:
        """P along each axis."""
        return self._degrees

    @property
    def batch_shape(self) -> torch.Size:
        """The leading axes that control points, weights and knots broadcast to."""
        return self._batch

    @property
    def dtype(self) -> torch.dtype:
        """float32 or float64."""
        return self.control_points.dtype

    @property
    def device(self) -> torch.device:
        """Where the control points are."""
        return self.control_points.device

    @property
    def is_rational(self) -> bool:
        """Whether it has weights."""
        return self.weights is not None

    @property
    def homogeneous(self) -> torch.Tensor:
        """Homogeneous control points `(w P, w)`, `(..., K…, D + 1)`, with w = 1 where there are no weights."""
        return self._lifted(self.control_points)

    def _lifted(self, points: torch.Tensor) -> torch.Tensor:
        if self.weights is None:
            return torch.cat([points, torch.ones_like(points[..., :1])], -1)
        w = self.weights[..., None]
        batch = common_batch(w.shape[:-1], points.shape[:-1])
        return torch.cat([points * w, w.expand(*batch, 1)], -1)

    @property
    def domain(self) -> tuple[tuple[torch.Tensor, torch.Tensor], ...]:
        """Both ends of each parameter's range, each of the knots' batch shape."""
        ends = []
        for knots, p, count, wraps in zip(self.knots, self._degrees, self.shape, self.periodic, strict=True):
            ends.append((knots[..., 0], knots[..., -1]) if wraps else (knots[..., p], knots[..., count]))
        return tuple(ends)

    def __repr__(self) -> str:
        kind = "rational" if self.is_rational else "polynomial"
        batch = f"batch {tuple(self.batch_shape)}, " if self.batch_shape else ""
        wraps = f", periodic {self.periodic}" if any(self.periodic) else ""
        return (
            f"{type(self).__name__}({batch}{self.shape} points in {self.dim}-D, degree {self._degrees}, {kind}{wraps})"
        )

    # New ones from it ------------------------------------------------------------------------------------------------

    def replace(self: Self, **changes: Any) -> Self:
        """Return a spline with some of its arguments changed, checked like new.

        Args:
            changes: any of `control_points`, `weights`, `knots` (one tensor an axis), `degree`, `knot_gradient`,
                `bandwidth`, `periodic`, `outside`.
        """
        fields = {
            "control_points": self.control_points,
            "knots": self.knots,
            "weights": self.weights,
            "degree": self._degrees,
            "knot_gradient": self.knot_gradient,
            "bandwidth": self.bandwidth,
            "periodic": self.periodic,
            "outside": self.outside,
        }
        unknown = sorted(set(changes) - set(fields))
        if unknown:
            raise fail(f"{type(self).__name__}.replace", unknown[0], f"one of {', '.join(fields)}", "an unknown name")
        if self.axes == 1 and isinstance(changes.get("knots"), torch.Tensor | np.ndarray):
            changes["knots"] = (changes["knots"],)
        new = copy.copy(self)
        NURBS.__init__(new, **{**fields, **changes})
        return new

    @classmethod
    def from_homogeneous(
        cls: type[Self], homogeneous: Any, knots: Sequence[Any] | None, degree: Sequence[int], **options: Any
    ) -> Self:
        """Make a rational spline from homogeneous control points `(w P, w)`, `(..., K…, D + 1)`.

        Args:
            homogeneous: `(..., K…, D + 1)`, the last coordinate positive.
            knots: a tuple of one vector an axis; None for clamped uniform ones.
            degree: one an axis.
            options: `knot_gradient`, `bandwidth`, `periodic`, `outside`.
        """
        new = cls.__new__(cls)
        fields = {"knot_gradient": "exact", "bandwidth": None, "periodic": (False,) * cls.axes, "outside": "error"}
        points = promote(cls.__name__, homogeneous=homogeneous)["homogeneous"]
        NURBS.__init__(new, project(points), knots, points[..., -1], degree, **{**fields, **options})
        return new

    def to(self: Self, device: Place = None, dtype: torch.dtype | None = None) -> Self:
        """Move it to a device or a floating dtype, which may also come first, as for tensors."""
        where, kind = placement(f"{type(self).__name__}.to", device, dtype)

        def move(x: torch.Tensor) -> torch.Tensor:
            return x.to(device=where or x.device, dtype=kind or x.dtype)

        return self.replace(
            control_points=move(self.control_points),
            weights=None if self.weights is None else move(self.weights),
            knots=tuple(move(k) for k in self.knots),
        )

    def detach(self: Self) -> Self:
        """Return it without its graph."""
        return self.replace(
            control_points=self.control_points.detach(),
            weights=None if self.weights is None else self.weights.detach(),
            knots=tuple(k.detach() for k in self.knots),
        )

    def __getitem__(self: Self, index: Any) -> Self:
        """Take splines from the batch."""
        if not self.batch_shape:
            raise fail(type(self).__name__, "index", "left out for a single spline", index)

        def take(x: torch.Tensor, own: int) -> torch.Tensor:
            return x.expand(*self.batch_shape, *x.shape[x.dim() - own :])[index]

        return self.replace(
            control_points=take(self.control_points, self.axes + 1),
            weights=None if self.weights is None else take(self.weights, self.axes),
            knots=tuple(take(k, 1) for k in self.knots),
        )

    def opened(self: Self) -> Self:
        """Return the same spline with its periodic axes unrolled: ordinary, unclamped, K + P control points along them.

        Differentiable. A spline without periodic axes is returned as it is.
        """
        if not any(self.periodic):
            return self
        return self.replace(
            control_points=self._unrolled(self.control_points, 1),
            weights=None if self.weights is None else self._unrolled(self.weights, 0),
            knots=self._opened_knots(),
            periodic=(False,) * self.axes,
        )

    def _opened_knots(self) -> tuple[torch.Tensor, ...]:
        return tuple(
            open_periodic(knots, p) if wraps else knots
            for knots, p, wraps in zip(self.knots, self._degrees, self.periodic, strict=True)
        )

    def _unrolled(self, net: torch.Tensor, behind: int) -> torch.Tensor:
        for i, wraps in enumerate(self.periodic):
            if wraps:
                dim = i - self.axes - behind
                index = torch.arange(net.shape[dim] + self._degrees[i], device=net.device) % net.shape[dim]
                net = net.index_select(dim, index)
        return net

    # Evaluation ------------------------------------------------------------------------------------------------------

    def __call__(self, *parameters: Any) -> torch.Tensor:
        """Evaluate at scattered parameters: one number or `(..., N)` an axis, broadcast; returns `(..., N, D)`."""
        return self.derivative(*parameters, order=(0,) * self.axes)

    def grid(self, *counts: Any) -> torch.Tensor:
        """Evaluate on a grid: along each axis a count (equally spaced, both ends included) or parameters `(..., N)`.

        Counted points move with the ends of the domain, and so give gradients to the knots there.

        Returns:
            `(..., N1, N2, …, D)`. Much faster than the same points one by one.
        """
        return self.derivative(*counts, order=(0,) * self.axes, grid=True)

    def derivative(self, *parameters: Any, order: Sequence[int] | int = 1, grid: bool = False) -> torch.Tensor:
        """Evaluate a partial derivative of any order.

        Rational ones by Leibniz' rule on the homogeneous spline (Piegl and Tiller, "The NURBS Book", 1997, eq. 4.20).

        Args:
            parameters: as for a call, or as for `grid`.
            order: of the derivative along each axis; a number, or left out, for a curve only. Above the degree,
                polynomials give 0.
            grid: evaluate on the grid of all combinations.

        Returns:
            `(..., N, D)`, or `(..., N1, N2, …, D)` on a grid.

        Raises:
            TypeError: parameters that are not numbers.
            ValueError: parameters outside of the domain (unless ``outside`` says otherwise), or NaN; one number for
                several axes.
        """
        where = type(self).__name__
        if isinstance(order, numbers.Integral) and self.axes > 1:
            raise fail(where, "order", f"a tuple of {self.axes}, one an axis", f"the number {order}")
        orders = _integers(where, "order", order, self.axes)
        at, lone = self._parameters(parameters, grid)
        if not any(orders):
            value = self._evaluate(at, orders, grid, rational=self.is_rational)
        else:
            value = self._jet(at, [orders], grid)[orders]
        return value.squeeze(-2) if lone else value

    def derivatives(self, *parameters: Any, order: int = 1, grid: bool = False) -> dict[tuple[int, ...], torch.Tensor]:
        """Evaluate all partial derivatives up to a total order, the value included.

        Returns:
            a dictionary from orders, such as (1, 0), to tensors as `derivative` returns them.
        """
        (total,) = _integers(type(self).__name__, "order", order, 1)
        at, lone = self._parameters(parameters, grid)
        wanted = [o for o in itertools.product(range(total + 1), repeat=self.axes) if sum(o) <= total]
        jet = self._jet(at, wanted, grid)
        return {o: jet[o].squeeze(-2) if lone else jet[o] for o in wanted}

    def _jet(
        self, at: list[torch.Tensor], wanted: Sequence[tuple[int, ...]], grid: bool
    ) -> dict[tuple[int, ...], torch.Tensor]:
        # Derivatives are differences of control points: far from the origin those have all the digits.
        origin = anchor(self.control_points.flatten(-self.axes - 1, -2))
        back = origin[(..., *(None,) * (self.axes if grid else 1), slice(None))].to(at[0].dtype)
        if not self.is_rational:
            jet = {o: self._evaluate(at, o, grid, origin=origin) for o in wanted}
            return {o: x if any(o) else x + back for o, x in jet.items()}
        result: dict[tuple[int, ...], torch.Tensor] = {}
        below = {low for o in wanted for low in itertools.product(*(range(k + 1) for k in o))}
        lifted = {o: self._evaluate(at, o, grid, origin=origin) for o in below}
        weight = lifted[(0,) * self.axes][..., -1:]
        for o in sorted(below, key=sum):
            rest = lifted[o][..., :-1]
            for part in itertools.product(*(range(k + 1) for k in o)):
                if any(part):
                    factor = math.prod(math.comb(k, i) for k, i in zip(o, part, strict=True))
                    other = tuple(k - i for k, i in zip(o, part, strict=True))
                    rest = rest - factor * lifted[part][..., -1:] * result[other]
            result[o] = rest / weight
        result[(0,) * self.axes] = result[(0,) * self.axes] + back
        return result

    def _evaluate(
        self,
        at: list[torch.Tensor],
        order: tuple[int, ...],
        grid: bool,
        rational: bool = False,
        origin: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Evaluate; with `origin` the spline moved by minus that, homogeneous where it is rational."""
        points = self.control_points
        if origin is not None:
            points = points - origin[(..., *(None,) * self.axes, slice(None))]
        if self.is_rational:
            points = self._lifted(points)
        points = self._unrolled(points, 1).to(at[0].dtype)
        knots = [k.to(at[0].dtype) for k in self._opened_knots()]
        evaluate = ops.spline_grid if grid else ops.spline
        return evaluate(points, knots, at, self._degrees, order, rational, self.bandwidth)

    def _parameters(self, parameters: Sequence[Any], grid: bool) -> tuple[list[torch.Tensor], bool]:
        where = type(self).__name__
        names = AXIS_NAMES[: self.axes]
        if len(parameters) != self.axes:
            expected = f"{self.axes} of them, for {', '.join(names)}"
            raise fail(where, "parameters", expected, f"{len(parameters)}", error=TypeError)
        if grid:
            parameters = [
                self._spaced(p, i) if isinstance(p, numbers.Integral) else p for i, p in enumerate(parameters)
            ]
        # Numbers and lists are read in the spline's own precision.
        plain = [
            p if isinstance(p, torch.Tensor | np.ndarray) else self._read(n, p)
            for n, p in zip(names, parameters, strict=True)
        ]
        tensors = promote(where, **dict(zip(names, plain, strict=True)))
        # A spline in double precision computes in it, whatever the parameters came in.
        at = [tensors[n].to(self.device, torch.promote_types(tensors[n].dtype, self.dtype)) for n in names]
        if grid:
            for name, u in zip(names, at, strict=True):
                floating(where, name, u, ("...", "N"), "A grid takes a count or a tensor an axis.", finite=False)
            lone = False
        else:
            try:
                at = list(torch.broadcast_tensors(*at))
            except RuntimeError:
                text = ", ".join(str(tuple(u.shape)) for u in at)
                fix = "For all combinations, use grid()."
                raise fail(where, ", ".join(names), "of shapes that broadcast", text, fix) from None
            lone = at[0].dim() == 0
            at = [u[None] for u in at] if lone else at
        return [self._inside(u, i) for i, u in enumerate(at)], lone

    def _read(self, name: str, value: Any) -> torch.Tensor:
        as_tensor(type(self).__name__, name, value)
        return torch.as_tensor(value, dtype=self.dtype)

    def _spaced(self, count: numbers.Integral, axis: int) -> torch.Tensor:
        number = int(count)
        if number < 2 or isinstance(count, bool):
            raise fail(type(self).__name__, AXIS_NAMES[axis], "a count of 2 or more, or parameters", count)
        low, high = self.domain[axis]
        steps = torch.linspace(0, 1, number, dtype=torch.float64, device=self.device).to(self.dtype)
        # The end itself, not low + 1·(high − low), which rounding may put beyond it.
        return torch.where(steps < 1, low[..., None] + steps * (high - low)[..., None], high[..., None])

    def _inside(self, u: torch.Tensor, axis: int) -> torch.Tensor:
        low, high = (end[..., None].to(u.dtype) for end in self.domain[axis])
        if self.periodic[axis]:
            return wrap(u, low, high)
        if self.outside == "extend":
            return u
        if self.outside == "clamp":
            # Not torch.clamp, which would share the gradient between the parameter and the knot at the very end.
            return torch.where(u < low, low, torch.where(u > high, high, u))
        if looks_at_values(u):
            # A few roundings beyond the end are the end: linspace and float32 knots read in float64 do that.
            with torch.no_grad():
                slack = 16 * torch.finfo(self.dtype).eps * torch.maximum(low.abs(), high.abs())
                wrong = (u < low - slack) | (u > high + slack)
            if bool(wrong.any()):
                value = float(u.detach().expand(wrong.shape)[tuple(wrong.nonzero()[0])])
                expected = f"in the domain [{float(low.detach().max()):g}, {float(high.detach().min()):g}]"
                got = f"{value} ({int(wrong.sum())} outside of {wrong.numel()})"
                fix = 'Pass outside="clamp" or outside="extend" to the spline, or scale the parameters.'
                raise fail(type(self).__name__, AXIS_NAMES[axis], expected, got, fix)
        return u


def _integers(where: str, name: str, values: Any, axes: int) -> tuple[int, ...]:
    values = (values,) * axes if isinstance(values, numbers.Integral) else values
    ok = isinstance(values, Sequence) and len(values) == axes
    if not ok or not all(isinstance(v, numbers.Integral) and not isinstance(v, bool) and int(v) >= 0 for v in values):
        expected = "an integer of 0 or more" if axes == 1 else f"{axes} integers of 0 or more"
        raise fail(where, name, expected, repr(values))
    return tuple(int(v) for v in values)


def _per_axis(where: str, name: str, values: Any, axes: int, kind: type) -> tuple[Any, ...]:
    values = (values,) * axes if isinstance(values, kind) else values
    if not isinstance(values, Sequence) or len(values) != axes or not all(isinstance(v, kind) for v in values):
        raise fail(where, name, f"a {kind.__name__}, or {axes} of them", repr(values), error=TypeError)
    return tuple(values)


def _bandwidth(where: str, knot_gradient: str, bandwidth: Any, axes: int) -> tuple[float, ...] | None:
    if knot_gradient == "exact":
        if bandwidth is not None:
            fix = 'Pass knot_gradient="gaussian" with it.'
            raise fail(where, "bandwidth", "left out for exact knot gradients", bandwidth, fix)
        return None
    if bandwidth is None:
        raise fail(where, "bandwidth", 'given with knot_gradient="gaussian"', "None", "A knot spacing is a fair start.")
    sigmas = (bandwidth,) * axes if isinstance(bandwidth, numbers.Real) else bandwidth
    if not isinstance(sigmas, Sequence) or len(sigmas) != axes:
        raise fail(where, "bandwidth", f"a number, or {axes} of them", repr(bandwidth))
    for sigma in sigmas:
        positive(where, "bandwidth", sigma, "It is a standard deviation in the units of the knots.")
    return tuple(float(sigma) for sigma in sigmas)
