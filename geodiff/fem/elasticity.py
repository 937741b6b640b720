# SPDX-License-Identifier: Apache-2.0
"""Linear elasticity in two and three dimensions."""

from typing import Any

import torch

from geodiff.fem.solve import Boundary, boundary_values, eliminated, pairs
from geodiff.fem.space import Coefficient, Space, blocks, check_positive
from geodiff.modes import outside_autocast
from geodiff.sparse import SparseMatrix
from geodiff.validation import choice, fail, floating

PLANES = ("stress", "strain")


def _lame(
    where: str, space: Space, patch: int, youngs: Coefficient, poisson: Coefficient, plane: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return Lamé's λ and μ at the quadrature points; of plane stress, the λ that stands for it."""
    e = space.coefficient(where, "youngs", youngs, patch)
    nu = space.coefficient(where, "poisson", poisson, patch)
    check_positive(where, "youngs", e)
    most = 1.0 if space.dim == 2 and plane == "stress" else 0.5
    if not bool(((nu > -1) & (nu < most)).all()):
        raise fail(where, "poisson", f"in (−1, {most:g})", f"{float(nu.detach().max()):g} at most")
    shear = e / (2 * (1 + nu))
    return e * nu / ((1 - nu**2) if most == 1.0 else ((1 + nu) * (1 - 2 * nu))), shear


def _check(where: str, space: Space, plane: str) -> None:
    choice(where, "plane", plane, PLANES)
    if space.dim not in (2, 3) or space.rank != space.dim:
        got = f"{space.rank} parameters in {space.dim} dimensions"
        fix = "Of meshes in the plane: mesh_space(mesh, plane=True)."
        raise fail(where, "space", "a surface in the plane, or a solid in space", got, fix)


@outside_autocast
def elasticity(
    space: Space, youngs: Coefficient = 1.0, poisson: Coefficient = 0.3, *, plane: str = "stress"
) -> SparseMatrix:
    """Return the stiffness `∫ λ div u div v + 2 μ ε(u) : ε(v)` of displacements.

    Args:
        space: of a surface in the plane or of a solid.
        youngs: Young's modulus E > 0, times the thickness in the plane.
        poisson: Poisson's ratio in (−1, ½); of plane stress in (−1, 1).
        plane: "stress" (a thin plate) or "strain" (a long prism).

    Returns:
        (N·D, N·D): component d of function i is unknown i·D + d.

    Raises:
        ValueError: E that is not positive, a ratio out of range, a space that is neither.

    Example:
        >>> import geodiff as gd
        >>> gd.fem.elasticity(gd.fem.grid_space((3, 2)))
        SparseMatrix(12 × 12, 112 entries)
    """
    where, d = "elasticity", space.dim
    _check(where, space, plane)
    found = []
    for k, group in enumerate(space.groups):
        lame, shear = _lame(where, space, k, youngs, poisson, plane)
        slopes = group.gradients.flatten(2)[..., None]
        n = group.dofs.shape[1]
        block = blocks(slopes, slopes, group.weights * lame)
        sheared = blocks(slopes, slopes, group.weights * shear).reshape(-1, n, d, n, d)
        straight = torch.diag_embed(sheared.diagonal(dim1=2, dim2=4).sum(-1)[..., None].expand(-1, -1, -1, d))
        sheared = sheared.transpose(2, 4) + straight.permute(0, 1, 3, 2, 4)
        found.append(block + sheared.reshape(block.shape))
    return space.assembled(found, d)


def vector_load(space: Space, where: str, name: str, value: Any) -> torch.Tensor:
    """Return `∫ f · R_i`, (..., N, D), of forces: D coefficients, a tensor (..., D), or a callable that returns one."""
    return torch.stack([space.load(part) for part in _components(space, where, name, value)], -1)


def _components(space: Space, where: str, name: str, value: Any) -> list[Any]:
    d = space.dim
    if callable(value):
        return [lambda x, a=a: value(x)[..., a] for a in range(d)]
    if isinstance(value, list | tuple) and len(value) == d:
        return list(value)
    if isinstance(value, torch.Tensor) and value.dim() and value.shape[-1] == d:
        return list(value.unbind(-1))
    if isinstance(value, int | float):
        return [float(value)] * d
    raise fail(where, name, f"{d} components, a tensor (..., {d}), or a callable that returns one", value)


@outside_autocast
def solve_elasticity(
    space: Space,
    force: Any = 0.0,
    youngs: Coefficient = 1.0,
    poisson: Coefficient = 0.3,
    *,
    plane: str = "stress",
    dirichlet: Boundary = None,
    neumann: Boundary = None,
    method: str = "lu",
) -> torch.Tensor:
    """Solve `−div σ = f`, `σ = λ tr ε I + 2 μ ε`, for the displacements of an elastic body.

    Args:
        space: of a surface in the plane or of a solid.
        force: f by volume, D components: numbers, a tensor (..., D), or a callable of positions that returns one.
        youngs: E > 0, times the thickness in the plane; a number, at the quadrature points, or a callable.
        poisson: its ratio.
        plane: "stress" or "strain".
        dirichlet: displacements by part of the boundary: D of them, ``None`` for those left free, or one number for
            all, or a callable that returns (..., D): ``{"left": 0.0, "bottom": (None, 0.0)}``.
        neumann: tractions by part of the boundary, as ``force``.
        method: as for `implicit.linear`; "cg" for large solids.

    Returns:
        (..., N, D).

    Gradients: in forces, E, the ratio, displacements, and in the geometry.

    Raises:
        ValueError: a body that can still move or turn (a singular system), coefficients out of range.

    Example:
        >>> import geodiff as gd
        >>> bar = gd.fem.grid_space((5, 2))
        >>> pulled = gd.fem.solve_elasticity(
        ...     bar, dirichlet={"left": (0.0, None), "bottom": (None, 0.0)}, neumann={"right": (0.1, 0.0)}
        ... )
        >>> pulled[-1]  # longer by a tenth, and thinner by Poisson's ratio of that
        tensor([ 0.1000, -0.0300], dtype=torch.float64)
    """
    where, d = "solve_elasticity", space.dim
    _check(where, space, plane)
    load = vector_load(space, where, "force", force)
    for at, value in pairs(where, "neumann", neumann):
        load = load + vector_load(space.side(at), where, "neumann", value)
    held = []
    for at, value in pairs(where, "dirichlet", dirichlet):
        for a, part in enumerate(_components(space, where, "dirichlet", value)):
            if part is not None:
                unknowns, own = boundary_values(where, space, at, part)
                held.append((unknowns * d + a, own))
    matrix = elasticity(space, youngs, poisson, plane=plane)
    return eliminated(where, matrix, load.flatten(-2), held, method).unflatten(-1, (space.size, d))


def _strains(where: str, space: Space, displacement: torch.Tensor) -> list[torch.Tensor]:
    floating(where, "displacement", displacement, ("...", space.size, space.dim))
    slopes = space.at_points(displacement.mT, gradients=True)
    found = []
    for slope in slopes:  # (..., D, E, Q, D)
        own = slope.movedim(-4, -2)
        found.append((own + own.mT) / 2)
    return found


@outside_autocast
def elastic_energy(
    space: Space,
    displacement: torch.Tensor,
    youngs: Coefficient = 1.0,
    poisson: Coefficient = 0.3,
    *,
    plane: str = "stress",
) -> torch.Tensor:
    """Return the stored energy `½ ∫ σ : ε`, (...), of displacements (..., N, D).

    In equilibrium with what is held at 0, twice that is the compliance: what the loads do, and the less the stiffer.

    Example:
        >>> import torch, geodiff as gd
        >>> square = gd.fem.grid_space((2, 2))
        >>> gd.fem.elastic_energy(square, 0.1 * square.positions, poisson=0.0)
        tensor(0.0100, dtype=torch.float64)
    """
    where = "elastic_energy"
    _check(where, space, plane)
    densities = []
    for k, strain in enumerate(_strains(where, space, displacement)):
        lame, shear = _lame(where, space, k, youngs, poisson, plane)
        trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
        densities.append(0.5 * lame * trace**2 + shear * strain.square().sum((-2, -1)))
    return space.integral(densities)


@outside_autocast
def von_mises(
    space: Space,
    displacement: torch.Tensor,
    youngs: Coefficient = 1.0,
    poisson: Coefficient = 0.3,
    *,
    plane: str = "stress",
) -> list[torch.Tensor]:
    """Return von Mises' stress `√(3/2 s : s)` at the quadrature points, (..., E, Q), one tensor a patch.

    Its derivative where there is no stress is 0.

    Example:
        >>> import torch, geodiff as gd
        >>> square = gd.fem.grid_space((2, 2))
        >>> pulled = square.positions * torch.tensor([0.1, -0.03])
        >>> gd.fem.von_mises(square, pulled)[0][0, 0]
        tensor(0.1000, dtype=torch.float64)
    """
    where = "von_mises"
    _check(where, space, plane)
    found = []
    for k, strain in enumerate(_strains(where, space, displacement)):
        lame, shear = _lame(where, space, k, youngs, poisson, plane)
        trace = strain.diagonal(dim1=-2, dim2=-1).sum(-1)
        stress = 2 * shear[..., None, None] * strain + torch.diag_embed(
            (lame * trace)[..., None].expand(*trace.shape, space.dim)
        )
        main = stress.diagonal(dim1=-2, dim2=-1)
        across = torch.zeros_like(trace)
        if space.dim == 2 and plane == "strain":
            across = lame * trace
        total = main.sum(-1) + across if space.dim == 2 else main.sum(-1)
        square = stress.square().sum((-2, -1)) + across**2
        deviator = 1.5 * (square - total**2 / 3)
        some = deviator > 0
        found.append(torch.where(some, torch.where(some, deviator, 1.0).sqrt(), 0.0))
    return found
