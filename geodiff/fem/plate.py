# SPDX-License-Identifier: Apache-2.0
"""Kirchhoff's thin plates: fourth order, hence for functions whose first derivatives are continuous."""

from collections.abc import Sequence

import torch

from geodiff.fem.solve import Boundary, eliminated, surface_load
from geodiff.fem.space import Coefficient, Space, blocks, check_positive
from geodiff.modes import outside_autocast
from geodiff.sparse import SparseMatrix
from geodiff.validation import fail


@outside_autocast
def bending(space: Space, rigidity: Coefficient = 1.0, poisson: Coefficient = 0.3) -> SparseMatrix:
    """Return the stiffness of a plate, `∫ D ((1 − ν) ∇²w : ∇²v + ν Δw Δv)`.

    Args:
        space: B-splines or a NURBS of degree 2 or more in the plane, one patch, no knot inside repeated P times.
        rigidity: D = E t³ / (12 (1 − ν²)) > 0.
        poisson: ν in (−1, 1).

    Raises:
        ValueError: functions with kinks, coefficients out of range.

    Example:
        >>> import geodiff as gd
        >>> gd.fem.bending(gd.fem.grid_space((4, 4), 2, family="bspline"))
        SparseMatrix(16 × 16, 196 entries)
    """
    where = "bending"
    found = []
    for k, group in enumerate(space.groups):
        if space.dim != 2 or len(space.groups) > 1 or group.hessians is None:
            fix = "Use grid_space(…, degree=2, family='bspline') or a NURBS of degree 2 in the plane, one patch."
            raise fail(where, "space", "of functions with continuous first derivatives", repr(space), fix)
        stiff = space.coefficient(where, "rigidity", rigidity, k)
        nu = space.coefficient(where, "poisson", poisson, k)
        check_positive(where, "rigidity", stiff)
        if not bool(((nu > -1) & (nu < 1)).all()):
            raise fail(where, "poisson", "in (−1, 1)", f"{float(nu.detach().max()):g} at most")
        second = group.hessians()
        trace = second.diagonal(dim1=-2, dim2=-1).sum(-1, keepdim=True)
        flat = second.flatten(-2)
        found.append(
            blocks(flat, flat, group.weights * (stiff * (1 - nu))) + blocks(trace, trace, group.weights * (stiff * nu))
        )
    return space.assembled(found)


@outside_autocast
def solve_plate(
    space: Space,
    f: Coefficient = 0.0,
    rigidity: Coefficient = 1.0,
    poisson: Coefficient = 0.3,
    *,
    supported: Sequence[str] = (),
    clamped: Sequence[str] = (),
    neumann: Boundary = None,
) -> torch.Tensor:
    """Solve for the deflection w of a thin plate under a pressure, `D Δ²w = f` where D is constant.

    Args:
        space: as for `bending`.
        f: pressure.
        rigidity: D > 0.
        poisson: ν.
        supported: sides where w = 0 and the plate may turn; "all" is all of them, here and below.
        clamped: sides where w = 0 and so is its slope; all others are free.
        neumann: forces by length of a side.

    Returns:
        The unknowns (..., N).

    Gradients: in f, D, ν, and in the geometry.

    Raises:
        ValueError: a plate that can still move (a singular system), a side that is not there.

    Example:
        >>> import torch, geodiff as gd
        >>> plate = gd.fem.grid_space((18, 18), 3, family="bspline")
        >>> w = gd.fem.solve_plate(plate, 1.0, clamped=("left", "right", "bottom", "top"))
        >>> plate.evaluate(w, 0.5, 0.5)  # 0.00126532, Timoshenko
        tensor([0.0013], dtype=torch.float64)
    """
    where = "solve_plate"
    matrix = bending(space, rigidity, poisson)
    load = space.load(f) + surface_load(space, neumann, where)
    sides = [supported, clamped]
    if any(isinstance(names, str) for names in sides):
        raise fail(where, "supported", "a sequence of names, as clamped", repr(supported), error=TypeError)
    held = [space.held(name) for name in (*supported, *clamped)] + [space.second_row(name) for name in clamped]
    zeros = [(unknowns, load.new_zeros(len(unknowns))) for unknowns in held]
    return eliminated(where, matrix, load, zeros, argument="supported")
