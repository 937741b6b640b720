# SPDX-License-Identifier: Apache-2.0
"""Isogeometric functions on NURBS curves, surfaces and volumes, one patch and several."""

import math

import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff import fem, splines
from tests.fem.cases import F64, annulus, annulus_field, annulus_source, l2_error


@pytest.mark.parametrize(
    ("degree", "spans", "want"),
    [(2, (4, 8, 16), (5.09e-3, 6.01e-4, 7.39e-5)), (3, (4, 8), (4.09e-4, 2.56e-5)), (4, (4, 8), (6.5e-5, 1.23e-6))],
)
def test_orders_on_the_quarter_annulus(degree: int, spans: tuple[int, ...], want: tuple[float, ...]) -> None:
    for n, measured in zip(spans, want, strict=True):
        space = fem.nurbs_space(annulus(degree, n))
        c = fem.solve_poisson(space, annulus_source, dirichlet={"all": 0.0})
        # Measured by another program, to three digits.
        assert l2_error(space, c, annulus_field) == pytest.approx(measured, rel=1e-2)
    assert math.log2(want[-2] / want[-1]) > degree + 0.9


def test_measures_are_those_of_the_exact_shapes() -> None:
    assert float(fem.nurbs_space(annulus()).measure()) == pytest.approx(0.75 * math.pi, rel=1e-8)
    ring = fem.nurbs_space(splines.circle(dtype=F64), quadrature=12)
    assert float(ring.measure()) == pytest.approx(2 * math.pi, rel=1e-12)
    # Its poles are collapsed edges, on which no quadrature point lies.
    ball = fem.nurbs_space(splines.sphere(2.0, dtype=F64), quadrature=12)
    assert float(ball.measure()) == pytest.approx(16 * math.pi, rel=1e-9)
    arc = fem.nurbs_space(splines.arc(1.0, 0.0, 90.0, dtype=F64), quadrature=12)
    assert float(arc.side("left").measure()) == 1 and arc.sides == ("left", "right", "all")
    assert float(fem.nurbs_space(annulus()).side("right").measure()) == pytest.approx(math.pi, rel=1e-6)


def test_a_curve_in_space_is_a_line() -> None:
    # On an arc, −u'' = 1 in arc length s has s (L − s) / 2.
    curve = splines.refined(splines.elevated(splines.arc(1.0, 0.0, 90.0, dtype=F64), 2), 3)
    space = fem.nurbs_space(curve)
    c = fem.solve_poisson(space, 1.0, dirichlet={"all": 0.0})

    def exact(x: torch.Tensor) -> torch.Tensor:
        s = torch.atan2(x[..., 1], x[..., 0])
        return s * (math.pi / 2 - s) / 2

    assert l2_error(space, c, exact) < 1e-6


def test_volumes() -> None:
    # The quarter of a thick tube: harmonic log r between its walls, whatever z is.
    flat = annulus(2, 4)
    lift = torch.tensor([0.0, 0.5, 1.0], dtype=F64)
    net = torch.cat(
        [
            flat.control_points[:, :, None].expand(-1, -1, 3, -1),
            lift[None, None, :, None].expand(*flat.shape, 3, 1),
        ],
        -1,
    )
    weights = flat.weights[:, :, None].expand(-1, -1, 3)
    solid = gd.NURBSVolume(net, (*flat.knots, torch.tensor([0.0, 0, 0, 1, 1, 1])), weights, (2, 2, 2))
    space = fem.nurbs_space(solid)
    assert space.sides == ("left", "right", "bottom", "top", "back", "front", "all")
    assert float(space.measure()) == pytest.approx(0.75 * math.pi, rel=1e-7)
    c = fem.solve_poisson(space, dirichlet={"left": 0.0, "right": math.log(2)})
    assert l2_error(space, c, lambda x: x[..., :2].norm(dim=-1).log()) < 2e-4
    by_cg = fem.solve_poisson(space, dirichlet={"left": 0.0, "right": math.log(2)}, method="cg")
    torch.testing.assert_close(by_cg, c, rtol=1e-9, atol=1e-9)


def test_values_on_a_side_by_a_function() -> None:
    # x² − y² is harmonic and not 0 on the rim: it is projected there.
    errors = []
    for spans in (4, 8):
        space = fem.nurbs_space(annulus(2, spans))
        c = fem.solve_poisson(space, dirichlet={name: saddle for name in ("left", "right", "bottom", "top")})
        errors.append(l2_error(space, c, saddle))
    assert errors[1] < 1e-3 and errors[0] / errors[1] > 6


def saddle(x: torch.Tensor) -> torch.Tensor:
    return x[..., 0] ** 2 - x[..., 1] ** 2


def test_periodic_surfaces() -> None:
    # A closed ring of uniform B-splines; log r between its rims to what a ring of ten pieces is off a circle.
    turn = torch.arange(10) * (2 * math.pi / 10)
    ring = torch.stack([turn.cos(), turn.sin()], -1).double()
    surface = gd.NURBSSurface(torch.stack([ring, 1.5 * ring, 2 * ring]), degree=(2, 3), periodic=(False, True))
    space = fem.nurbs_space(surface)
    assert space.sides == ("left", "right", "all")
    c = fem.solve_poisson(space, dirichlet={"left": 0.0, "right": 1.0})
    value = space.evaluate(c, torch.tensor([0.5] * 5), torch.linspace(0, 1, 5))
    assert float(value.std()) < 1e-3 and 0.5 < float(value.mean()) < 0.65
    assert abs(float(value[0] - value[-1])) < 1e-12


def test_gradients_in_control_points_and_weights() -> None:
    base = annulus(2, 1)

    def solved(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        space = fem.nurbs_space(base.replace(control_points=points, weights=weights))
        return fem.solve_poisson(space, lambda x: x[..., 0], dirichlet={"left": 1.0})

    points, weights = base.control_points.clone().requires_grad_(), base.weights.clone().requires_grad_()
    assert gradcheck(solved, (points, weights))


def halves() -> tuple[gd.NURBSSurface, gd.NURBSSurface]:
    """The quarter annulus, cut along a ray, one half with its first parameter reversed and axes swapped."""
    one, two = splines.split(annulus(2, 4), 0.5, axis=1)
    return one, splines.swapaxes(splines.reversed_(two, 0), 0, 1)


def test_patches_glued_are_as_good_as_one() -> None:
    whole = fem.nurbs_space(annulus(2, 4))
    space = fem.glued([fem.nurbs_space(half) for half in halves()])
    assert sum(len(g.dofs) for g in space.groups) == 16
    assert set(space.sides) == {"0.left", "0.right", "0.bottom", "1.top", "1.right", "1.bottom", "all"}
    c = fem.solve_poisson(space, annulus_source, dirichlet={"all": 0.0})
    single = fem.solve_poisson(whole, annulus_source, dirichlet={"all": 0.0})
    # Less smooth across the cut, thus a larger space.
    assert 0.5 < l2_error(space, c, annulus_field) / l2_error(whole, single, annulus_field) < 1.05
    exact = fem.solve_poisson(space, dirichlet={"all": 2.0})
    torch.testing.assert_close(exact, torch.full_like(exact, 2.0), rtol=1e-12, atol=0)
    torch.testing.assert_close(space.measure(), whole.measure(), rtol=1e-6, atol=0)
    nu = [torch.full(g.weights.shape, 2.0, dtype=F64) for g in space.groups]
    torch.testing.assert_close(space.stiffness(nu).values, 2 * space.stiffness().values)


def test_three_grids_glued_into_an_l() -> None:
    boxes = [[(0, 1), (0, 1)], [(1, 2), (0, 1)], [(0, 1), (1, 2)]]
    space = fem.glued([fem.grid_space((5, 5), 2, bounds=b) for b in boxes])
    assert space.size == 3 * 25 - 2 * 5
    c = fem.solve_poisson(space, dirichlet={"all": lambda x: x[..., 0] * x[..., 1]})
    torch.testing.assert_close(c, space.positions.prod(-1), rtol=1e-12, atol=1e-12)
    line = fem.glued([fem.grid_space(3, bounds=(0, 1)), fem.grid_space(3, bounds=(1, 2))])
    assert line.size == 5 and line.sides == ("0.left", "1.right", "all")


def test_errors() -> None:
    surface = annulus()
    with pytest.raises(RuntimeError, match=r"nurbs_space: `spline` must be on the CPU; got meta"):
        fem.nurbs_space(surface.to("meta"))
    with pytest.raises(TypeError, match="nurbs_space: `spline` must be a NURBSCurve, NURBSSurface or NURBSVolume"):
        fem.nurbs_space(surface.control_points)
    with pytest.raises(ValueError, match=r"nurbs_space: `spline` must be one spline; got .*Take spline\[i\]"):
        fem.nurbs_space(surface.replace(control_points=surface.control_points.expand(2, -1, -1, -1)))
    with pytest.raises(ValueError, match=r"`spline` must be of degree 1 or more in 2 dimensions or more"):
        fem.nurbs_space(surface.replace(control_points=surface.control_points[..., :1]))
    folded = surface.control_points.clone()
    folded[0, 0] = torch.tensor([3.0, 3.0])
    with pytest.raises(ValueError, match=r"a map without folds; got element \d+ inverted \(\d+ of"):
        fem.nurbs_space(surface.replace(control_points=folded))
    with pytest.raises(ValueError, match=r"without collapsed elements; got no area in element 0"):
        fem.nurbs_space(surface.replace(control_points=surface.control_points * torch.tensor([1.0, 0.0])))
    loose = gd.NURBSCurve(torch.rand(5, 2, dtype=F64), torch.arange(8.0), degree=2)
    with pytest.raises(ValueError, match=r"`where` must be a clamped side; got 'left'. Clamp it with splines.clamped"):
        fem.nurbs_space(loose).held("left")
    one = fem.grid_space((3, 3))
    with pytest.raises(TypeError, match="glued: `spaces` must be a list of two spaces or more"):
        fem.glued([one])
    with pytest.raises(ValueError, match="glued: `spaces` must be of one number of parameters and dimensions"):
        fem.glued([one, fem.grid_space(3)])
    with pytest.raises(ValueError, match="patches that share sides; got patch 0 alone"):
        fem.glued([one, fem.grid_space((3, 3), bounds=(2, 3))])
    with pytest.raises(
        ValueError, match=r"share whole sides; got 3 of 5 control points of side 'left' of patch 1|3 of"
    ):
        fem.glued([one, fem.grid_space((3, 5), bounds=[(1, 2), (0, 1)])])
