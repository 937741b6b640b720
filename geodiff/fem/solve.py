# SPDX-License-Identifier: Apache-2.0
"""Boundary values by elimination, and Poisson's and the heat equation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from geodiff.fem.space import Coefficient, Space, Where
from geodiff.modes import outside_autocast
from geodiff.sparse import SparseMatrix, linear
from geodiff.validation import check_finite, choice, fail, floating, integer, number, positive

Boundary = Mapping[Where, Any] | Sequence[tuple[Where, Any]] | None
"""What holds where: a mapping, or pairs of which later ones win where they meet."""


def pairs(where: str, name: str, given: Boundary) -> list[tuple[Where, Any]]:
    """List what is given for parts of the boundary."""
    if given is None:
        return []
    if isinstance(given, Mapping):
        return list(given.items())
    if isinstance(given, list | tuple) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in given):
        return [(part, value) for part, value in given]
    raise fail(where, name, "a mapping of sides to values, or a list of such pairs", given, error=TypeError)


def boundary_values(where: str, space: Space, at: Where, value: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the unknowns held on a part of the boundary, (H,), and their values, (..., H).

    A callable's values are taken at the nodes, or projected onto the side's functions where unknowns are not values.
    """
    held = space.held(at)
    dtype = space.dtype
    if not callable(value):
        value = torch.as_tensor(value, dtype=None if isinstance(value, torch.Tensor) else dtype).to(dtype)
        check_finite(where, "dirichlet", value)
        if value.dim() and value.shape[-1] != len(held):
            raise fail(where, "dirichlet", f"a number, (..., {len(held)}), or a callable", value)
        return held, value.expand(*value.shape[:-1], len(held))
    if space.nodal:
        found = value(space.positions[held])
        if isinstance(found, int | float):
            found = torch.as_tensor(float(found), dtype=dtype)
        if not isinstance(found, torch.Tensor) or (found.dim() and found.shape[-1] != len(held)):
            expected = f"a callable that returns (..., {len(held)}) for positions ({len(held)}, {space.dim})"
            raise fail(where, "dirichlet", expected, found)
        check_finite(where, "dirichlet", found)
        return held, found.to(dtype).expand(*found.shape[:-1], len(held))
    if isinstance(at, torch.Tensor):
        fix = "Name a side, or give numbers (..., H)."
        raise fail(where, "dirichlet", "numbers where unknowns are named and are not values", "a callable", fix)
    side = space.side(at)
    return held, linear(side.mass().part(held, held), side.load(value)[..., held])


def eliminated(
    where: str,
    matrix: SparseMatrix,
    load: torch.Tensor,
    held: Sequence[tuple[torch.Tensor, torch.Tensor]],
    method: str = "lu",
    argument: str = "dirichlet",
) -> torch.Tensor:
    """Solve with some unknowns held; pairs of unknowns (H,) and values (..., H), later ones win."""
    count = matrix.shape[0]
    shape = torch.broadcast_shapes(load.shape[:-1], *(value.shape[:-1] for _, value in held))
    given = load.new_zeros(*shape, count)
    free = torch.ones(count, dtype=torch.bool)
    for unknowns, value in held:
        given = given.index_copy(-1, unknowns, value.to(given.dtype).expand(*shape, len(unknowns)))
        free[unknowns] = False
    inner = free.nonzero()[:, 0]
    if not len(inner):
        return given
    outer = (~free).nonzero()[:, 0]
    if not len(outer):  # a constant is undetermined; in float32, rounding would hide it
        fix = 'Hold an unknown of each piece, such as "all"; fem.solve_poisson has gauge="mean", too.'
        raise fail(where, argument, "given where unknowns are held, or the system is singular", "nothing held", fix)
    rhs = load[..., inner] - matrix.part(inner, outer).multiply(given[..., outer])
    solved = linear(matrix.part(inner, inner), rhs.expand(*shape, len(inner)), method=method)
    return given.index_copy(-1, inner, solved)


def surface_load(space: Space, neumann: Boundary, where: str) -> Any:
    """Sum the loads on parts of the boundary."""
    total: Any = 0
    for at, value in pairs(where, "neumann", neumann):
        total = total + space.side(at).load(value)
    return total


@outside_autocast
def solve_poisson(
    space: Space,
    f: Coefficient = 0.0,
    diffusivity: Coefficient = None,
    *,
    dirichlet: Boundary = None,
    neumann: Boundary = None,
    gauge: str | None = None,
    method: str = "lu",
) -> torch.Tensor:
    """Solve `−∇·(ν ∇u) = f` with `u = g` and `ν ∂u/∂n = h` on parts of the boundary, and 0 flux on the rest.

    Args:
        space: of `grid_space`, `mesh_space`, `nurbs_space` or `glued`.
        f: the source: a number, (..., E, Q) at quadrature points, or a callable of their positions (E, Q, D).
        diffusivity: ν > 0, likewise without a batch; left out, 1.
        dirichlet: g by part of the boundary, ``{"left": 0.0, "top": lambda x: x[..., 0]}``: a number, values (..., H)
            of the unknowns held there, or a callable of positions. Eliminated, so that they hold exactly.
        neumann: h by part of the boundary, as f.
        gauge: "mean" where nothing is held: u has the mean 0, and what f and h add up to is taken off evenly.
        method: as for `implicit.linear`.

    Returns:
        The unknowns c (..., N), of the batch of f, g and h.

    Gradients: in f, ν, g, h, and in vertices, control points and weights of the space.

    Raises:
        TypeError: conditions that are neither a mapping nor pairs.
        ValueError: nothing held and no gauge (a singular system), ν that is not positive, a side that is not there.

    Example:
        >>> import torch, geodiff as gd
        >>> space = gd.fem.grid_space(5)
        >>> gd.fem.solve_poisson(space, 2.0, dirichlet={"all": 0.0})  # x (1 − x)
        tensor([0.0000, 0.1875, 0.2500, 0.1875, 0.0000], dtype=torch.float64)
    """
    where = "solve_poisson"
    matrix = space.stiffness(diffusivity)
    load = space.load(f) + surface_load(space, neumann, where)
    held = [boundary_values(where, space, at, value) for at, value in pairs(where, "dirichlet", dirichlet)]
    if gauge is None:
        return eliminated(where, matrix, load, held, method)
    choice(where, "gauge", gauge, ("mean",))
    if held:
        raise fail(where, "gauge", "left out where dirichlet holds some unknowns", repr(gauge))
    ones = space.load(1.0)
    load = load - ones * (load.sum(-1, keepdim=True) / ones.sum())
    first = torch.zeros(1, dtype=torch.int64)
    c = eliminated(where, matrix, load, [(first, load.new_zeros(1))], method)
    return c - (c @ ones)[..., None] / ones.sum()


@outside_autocast
def solve_heat(
    space: Space,
    initial: torch.Tensor,
    duration: float,
    steps: int,
    f: Coefficient = 0.0,
    diffusivity: Coefficient = None,
    *,
    capacity: Coefficient = None,
    dirichlet: Boundary = None,
    neumann: Boundary = None,
    theta: float = 0.5,
) -> torch.Tensor:
    """Solve `ρ ∂u/∂t = ∇·(ν ∇u) + f` from an initial state.

    By `(M + θ τ K) c⁺ = (M − (1 − θ) τ K) c + τ b`: one factorisation for all steps, also of backward.

    Args:
        space: the functions.
        initial: c at time 0, (..., N); what is held takes its value from the start.
        duration: > 0, of all steps together.
        steps: how many, of length τ.
        f: source, the same at all times, as for `solve_poisson`.
        diffusivity: ν > 0.
        capacity: ρ > 0; left out, 1.
        dirichlet: as for `solve_poisson`, the same at all times.
        neumann: flux inwards, likewise.
        theta: ½ (Crank–Nicolson, second order in τ) or 1 (implicit Euler, first order and without ripples), or between.

    Returns:
        c at all times, (..., steps + 1, N).

    Gradients: in all coefficients, the initial state and the geometry.

    Raises:
        ValueError: a duration that is not positive, steps below 1, theta outside of [½, 1], an initial state of
            another length.

    Example:
        >>> import torch, geodiff as gd
        >>> space = gd.fem.grid_space(33)
        >>> start = torch.sin(torch.pi * space.positions[:, 0])
        >>> end = gd.fem.solve_heat(space, start, 0.1, 20, dirichlet={"all": 0.0})[-1]
        >>> round(float(end[16]), 3), round(float(torch.exp(torch.tensor(-0.1 * torch.pi**2))), 3)
        (0.372, 0.373)
    """
    where = "solve_heat"
    positive(where, "duration", duration)
    integer(where, "steps", steps, 1)
    number(where, "theta", theta, 0.5, 1.0)
    floating(where, "initial", initial, ("...", space.size))
    step = duration / steps
    mass, stiffness = space.mass(capacity), space.stiffness(diffusivity)
    load = step * (space.load(f) + surface_load(space, neumann, where))
    held = [boundary_values(where, space, at, value) for at, value in pairs(where, "dirichlet", dirichlet)]
    batch = torch.broadcast_shapes(initial.shape[:-1], load.shape[:-1], *(value.shape[:-1] for _, value in held))
    c = initial.to(load.dtype).expand(*batch, space.size)
    for unknowns, value in held:
        c = c.index_copy(-1, unknowns, value.expand(*c.shape[:-1], len(unknowns)))
    free = torch.ones(space.size, dtype=torch.bool)
    for unknowns, _ in held:
        free[unknowns] = False
    inner, outer = free.nonzero()[:, 0], (~free).nonzero()[:, 0]
    forward = mass + (theta * step) * stiffness
    own = forward.part(inner, inner)
    # What is held stays, so that its part of the equation is the same at all times.
    fixed = load[..., inner] - forward.part(inner, outer).multiply(c[..., outer]) if len(outer) else load
    explicit = (mass + (-(1 - theta) * step) * stiffness).part(inner, torch.arange(space.size))
    states = [c]
    for _ in range(steps):
        c = c.index_copy(-1, inner, linear(own, fixed + explicit.multiply(c)))
        states.append(c)
    return torch.stack(states, -2)


@outside_autocast
def energy(
    space: Space,
    c: torch.Tensor,
    f: Coefficient = 0.0,
    diffusivity: Coefficient = None,
    *,
    neumann: Boundary = None,
) -> torch.Tensor:
    """Return `∫ ½ ν |∇u|² − f u`, less `∫ h u` on the boundary, whose minimiser solves Poisson's equation.

    As a loss, it trains a network that predicts c: no system is solved, no matrix built.

    Args:
        space: the functions.
        c: unknowns (..., N), with boundary values put in by whoever makes them.
        f: source, with any batch that broadcasts.
        diffusivity: ν > 0, (..., E, Q) with such a batch, a number or a callable.
        neumann: flux inwards by part of the boundary.

    Returns:
        (...).

    Gradients: in all of them.

    Raises:
        ValueError: unknowns of another length, ν that is not positive.

    Example:
        >>> import torch, geodiff as gd
        >>> space = gd.fem.grid_space(3)
        >>> gd.fem.energy(space, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64))
        tensor(2., dtype=torch.float64)
    """
    where = "energy"
    floating(where, "c", c, ("...", space.size))
    densities = []
    for k, slope in enumerate(space.at_points(c, gradients=True)):
        nu = space.coefficient(where, "diffusivity", diffusivity, k)
        if not bool((nu > 0).all()):
            raise fail(where, "diffusivity", "positive", f"{float(nu.detach().min()):g} somewhere")
        densities.append(0.5 * nu * slope.square().sum(-1))
    load = space.load(f) + surface_load(space, neumann, where)
    return space.integral(densities) - (load * c).sum(-1)
