# SPDX-License-Identifier: Apache-2.0
"""Elastic bodies and thin plates against closed forms."""

import math

import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff import fem, splines
from tests.fem.cases import F64, annulus, sine
from tests.fem.test_mesh_space import sheet

# Exact up to rounding and a condition below 1e4.
EXACT = {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize("kind", ["grid", "mesh", "nurbs", "solid"])
@pytest.mark.parametrize("plane", ["stress", "strain"])
def test_uniform_strains_are_exact(kind: str, plane: str) -> None:
    # The patch test: displacements A x on the rim, A x inside, and the stress of Hooke's law.
    space = {
        "grid": lambda: fem.grid_space((4, 5), 1),
        "mesh": lambda: fem.mesh_space(sheet(4, shake=0.4), plane=True),
        "nurbs": lambda: fem.nurbs_space(annulus(2, 2), quadrature=12),  # rational: no rule is exact
        "solid": lambda: (
            fem.grid_space((4, 3, 5), 2, family="bspline") if plane == "strain" else fem.grid_space((3, 3, 3))
        ),
    }[kind]()
    d = space.dim
    slope = torch.tensor([[0.02, -0.01, 0.03], [0.04, 0.05, 0.01], [0.0, -0.02, 0.01]], dtype=F64)[:d, :d]
    u = fem.solve_elasticity(space, 0.0, 7.0, 0.25, plane=plane, dirichlet={"all": lambda x: x @ slope.T})
    torch.testing.assert_close(u, space.positions @ slope.T, **EXACT)
    strain = (slope + slope.T) / 2
    shear, lame = 7.0 / 2.5, 7.0 * 0.25 / (1.25 * 0.5)
    whole = torch.zeros(3, 3, dtype=F64)
    whole[:d, :d] = strain
    if d == 2 and plane == "stress":
        whole[2, 2] = -0.25 / 0.75 * strain.trace()
    stress = 2 * shear * whole + lame * whole.trace() * torch.eye(3, dtype=F64)
    deviator = stress - stress.trace() / 3 * torch.eye(3, dtype=F64)
    (found,) = fem.von_mises(space, u, 7.0, 0.25, plane=plane)
    torch.testing.assert_close(found, ((1.5 * deviator.square().sum()).sqrt()).expand_as(found), **EXACT)
    energy = fem.elastic_energy(space, u, 7.0, 0.25, plane=plane)
    torch.testing.assert_close(energy, space.measure() * 0.5 * (stress * whole).sum(), **EXACT)
    matrix = fem.elasticity(space, 7.0, 0.25, plane=plane)
    torch.testing.assert_close(0.5 * (u.reshape(-1) @ matrix.multiply(u.reshape(-1))), energy, **EXACT)


def test_a_beam_bends_as_euler_and_timoshenko_have_it() -> None:
    # Tip load P on a cantilever of length 10 and height 1: P L³ / 3 E I and the shear's part.
    space = fem.grid_space((23, 5), 3, family="bspline", bounds=[(0, 10), (0, 1)])
    u = fem.solve_elasticity(space, youngs=100.0, poisson=0.3, dirichlet={"left": 0.0}, neumann={"right": (0.0, -0.01)})
    bend = 0.01 * 1000 / (3 * 100 / 12)
    shear = 0.01 * 10 / (5 / 6 * 100 / 2.6)
    # The clamp is stiffer than that of the theory, by about the height over the length, squared.
    assert float(-u[space.held("right"), 1].mean()) == pytest.approx(bend + shear, rel=3e-3)


def test_a_tube_under_pressure_is_lames() -> None:
    # A quarter, with rollers on both cuts: u_r = A r + B / r.
    space = fem.nurbs_space(annulus(3, 6))
    u = fem.solve_elasticity(
        space,
        youngs=200.0,
        poisson=0.3,
        plane="strain",
        dirichlet={"bottom": (None, 0.0), "top": (0.0, None)},
        neumann={"left": lambda x: x / x.norm(dim=-1, keepdim=True)},
    )
    scale = 1.3 / 200 * 1.0 / (4 - 1)
    (value,) = space.at_points(u.mT)[:1]
    points = space.groups[0].points
    r = points.norm(dim=-1)
    want = scale * (0.4 * r + 4 / r)
    radial = (value.movedim(-3, -1) * points).sum(-1) / r
    torch.testing.assert_close(radial, want, rtol=2e-5, atol=0)  # of cubics on 6 spans


def test_gradients_by_finite_differences() -> None:
    base = annulus(2, 1)

    def bent(points: torch.Tensor, youngs: torch.Tensor, poisson: torch.Tensor, force: torch.Tensor) -> torch.Tensor:
        space = fem.nurbs_space(base.replace(control_points=points))
        u = fem.solve_elasticity(space, force, youngs, poisson, dirichlet={"bottom": 0.0}, neumann={"top": (0.1, 0.0)})
        stress = fem.von_mises(space, u, youngs, poisson)[0]
        return torch.stack([u.sum(), fem.elastic_energy(space, u, youngs, poisson), stress.mean()])

    inputs = [base.control_points, torch.tensor(3.0), torch.tensor(0.3), torch.tensor([0.2, -0.5])]
    assert gradcheck(bent, [x.clone().to(F64).requires_grad_() for x in inputs], fast_mode=True)


def test_compliance_is_twice_the_energy() -> None:
    space = fem.mesh_space(sheet(5), plane=True)
    force = torch.tensor([0.3, -1.0], dtype=F64)
    u = fem.solve_elasticity(space, force, dirichlet=[(lambda x: x[:, 0] < 1e-9, 0.0)])
    work = sum(space.load(float(force[a])) @ u[:, a] for a in range(2))
    torch.testing.assert_close(2 * fem.elastic_energy(space, u), work, **EXACT)
    still = fem.von_mises(space, torch.zeros(25, 2, dtype=F64, requires_grad=True))[0]
    assert float(still.detach().abs().max()) == 0


def test_plates_by_closed_forms() -> None:
    # Navier: sin sin under sin sin, supported all around; Timoshenko: clamped under 1.
    names = ("left", "right", "bottom", "top")
    errors = []
    for spans in (4, 8):
        space = fem.grid_space((spans + 3,) * 2, 3, family="bspline")
        w = fem.solve_plate(space, sine, 2.0, 0.3, supported=names)
        line = torch.linspace(0, 1, 9, dtype=F64)
        exact = sine(torch.stack(torch.meshgrid(line, line, indexing="ij"), -1)) / (8 * math.pi**4)
        errors.append(float((space.evaluate(w, line, line, grid=True) - exact).abs().max()) * 8 * math.pi**4)
    assert errors[1] < 1e-4 and errors[0] / errors[1] > 12
    space = fem.grid_space((19, 19), 3, family="bspline")
    w = fem.solve_plate(space, 1.0, clamped=names)
    assert float(space.evaluate(w, 0.5, 0.5)) == pytest.approx(0.00126532, rel=1e-4)
    assert torch.equal(w, fem.solve_plate(space, 1.0, clamped=("all",)))
    # A beam of a plate, free on two sides: ν = 0, w = q (x⁴ − 2 x³ + x²) / 24.
    space = fem.grid_space((9, 5), 4, family="bspline")
    w = fem.solve_plate(space, 24.0, 1.0, 0.0, clamped=("left", "right"))
    x = torch.tensor([0.1, 0.5, 0.7], dtype=F64)
    torch.testing.assert_close(space.evaluate(w, x, 0.3), x**4 - 2 * x**3 + x**2, rtol=1e-9, atol=1e-11)


def test_plates_on_mapped_patches() -> None:
    # On a curved map of degree 2, functions of degree 4 have x² y; its second derivatives come back.
    corners = torch.tensor(
        [
            [[0.0, 0.0], [0.0, 0.6], [0.1, 1.0]],
            [[0.7, 0.1], [0.6, 0.5], [0.5, 1.2]],
            [[1.0, 0.0], [1.3, 0.5], [1.0, 1.0]],
        ],
        dtype=F64,
    )
    plain = splines.elevated(splines.elevated(gd.NURBSSurface(corners, degree=(2, 2)), 4, axis=0), 4, axis=1)
    space = fem.nurbs_space(plain)

    def field(x: torch.Tensor) -> torch.Tensor:
        return x[..., 0] ** 2 * x[..., 1]

    c = gd.implicit.linear(space.mass(), space.load(field))
    (group,) = space.groups
    second = torch.einsum("en,eqnab->eqab", c[group.dofs], group.hessians())
    x, y = group.points.unbind(-1)
    want = torch.stack([torch.stack([2 * y, 2 * x], -1), torch.stack([2 * x, 0 * x], -1)], -1)
    torch.testing.assert_close(second, want, rtol=1e-7, atol=1e-7)
    # A rational map: the quarter annulus has 1 and x, which do not bend.
    ring = fem.nurbs_space(annulus(3, 2))
    (group,) = ring.groups
    bent = torch.einsum("en,eqnab->eqab", ring.positions[:, 0][group.dofs], group.hessians())
    assert float(bent.abs().max()) < 1e-10
    flat = torch.einsum("en,eqnab->eqab", torch.ones_like(group.dofs, dtype=F64), group.hessians())
    assert float(flat.abs().max()) < 1e-10

    def tip(points: torch.Tensor) -> torch.Tensor:
        body = fem.nurbs_space(annulus(2, 1).replace(control_points=points))
        return fem.solve_plate(body, 1.0, clamped=("bottom",)).sum()

    assert gradcheck(tip, annulus(2, 1).control_points.clone().requires_grad_(), fast_mode=True)


def test_errors() -> None:
    space = fem.grid_space((3, 3))
    with pytest.raises(ValueError, match=r"elasticity: `space` must be a surface in the plane, or a solid in space"):
        fem.elasticity(fem.mesh_space(gd.icosphere(1)))
    with pytest.raises(ValueError, match="elasticity: `plane` must be one of stress, strain; got 'stretch'"):
        fem.elasticity(space, plane="stretch")
    with pytest.raises(ValueError, match=r"elasticity: `youngs` must be positive; got -1 somewhere"):
        fem.elasticity(space, -1.0)
    with pytest.raises(ValueError, match=r"elasticity: `poisson` must be in \(−1, 0.5\); got 0.5 at most"):
        fem.elasticity(space, 1.0, 0.5, plane="strain")
    with pytest.raises(ValueError, match=r"`force` must be 2 components, a tensor \(..., 2\), or a callable"):
        fem.solve_elasticity(space, (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"solve_elasticity: `dirichlet` must be given where unknowns are held"):
        fem.solve_elasticity(space)
    with pytest.raises(ValueError, match=r"`matrix` must be regular; got a direction that it maps to nothing"):
        fem.solve_elasticity(space, dirichlet={"left": (0.0, None)})  # can still slide
    for n in (3, 9, 17):
        with pytest.raises(ValueError, match=r"got a direction that it maps to nothing.*A fine one needs float64"):
            rounded = fem.grid_space((n, n), dtype=torch.float32)
            fem.solve_elasticity(rounded, dirichlet={"left": (0.0, None)})
    with pytest.raises(ValueError, match=r"elastic_energy: `displacement` must be of shape \(..., 9, 2\)"):
        fem.elastic_energy(space, torch.zeros(9))
    with pytest.raises(ValueError, match=r"bending: `space` must be of functions with continuous first derivatives"):
        fem.bending(space)
    with pytest.raises(ValueError, match=r"bending: `space` must be of functions with continuous first derivatives"):
        fem.bending(fem.nurbs_space(splines.insert_knots(annulus(2, 2), [0.5], axis=0)))
    smooth = fem.grid_space((5, 5), 2, family="bspline")
    with pytest.raises(ValueError, match=r"bending: `rigidity` must be positive; got 0 somewhere"):
        fem.bending(smooth, 0.0)
    with pytest.raises(ValueError, match=r"bending: `poisson` must be in \(−1, 1\); got 1 at most"):
        fem.bending(smooth, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"second_row: `where` must be a side of a patch of splines \(left, .*'rim'"):
        smooth.second_row("rim")
    with pytest.raises(TypeError, match=r"solve_plate: `supported` must be a sequence of names"):
        fem.solve_plate(smooth, 1.0, supported="left")
    with pytest.raises(ValueError, match=r"solve_plate: `supported` must be given where unknowns are held"):
        fem.solve_plate(smooth, 1.0)
    with pytest.raises(ValueError, match=r"`matrix` must be regular"):
        fem.solve_plate(smooth, 1.0, supported=("left",))  # a hinge
