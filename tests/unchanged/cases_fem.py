# SPDX-License-Identifier: Apache-2.0
"""Calls of what is in geodiff.fem."""

from typing import Any

from geodiff import fem
from geodiff.fem.space import Space
from tests.unchanged.arguments import Arguments, Case


def _conditions(t: Arguments, space: Space) -> dict[str, Any]:
    held = t(space.held("left"), gradient=False)
    return {"dirichlet": [(held, t.rand(len(held)))], "neumann": {"right": t.rand(1, 1)}}


def _grid(t: Arguments) -> Any:
    space = fem.grid_space((3, 4))
    nu, f = t.rand(6, 4) + 0.5, t.rand(2, 6, 4)
    more = _conditions(t, space)
    c = fem.solve_poisson(space, f, nu, **more)
    states = fem.solve_heat(space, t.rand(12), 0.1, 2, f, nu, capacity=t.rand(6, 1) + 0.5, **more)
    free = fem.solve_poisson(space, f, nu, gauge="mean")
    smooth = fem.grid_space((5, 5), 2, family="bspline")
    w = fem.solve_plate(smooth, t.rand(9, 9), t.rand(9, 9) + 0.5, t(0.3), clamped=("left",), supported=("top",))
    return [c, states, free, fem.energy(space, t.rand(2, 12), f, nu, neumann=more["neumann"]), w]


def _space(t: Arguments) -> Any:
    space = t.hold(fem.grid_space((5, 5), 2, family="bspline"))
    c, at = t.rand(25), t.rand(3, array=True)
    values = space.at_points(c)
    out = [space.stiffness(t.rand(9, 9) + 0.5).values, space.mass(t.rand(9, 9) + 0.5).values, space.load(t.rand(9, 9))]
    out += [space.evaluate(c, at, at), space.evaluate(c, at, at, grid=True), space.integral(values), space.measure()]
    return [*out, space.at_points(c, gradients=True), space.side("left").measure(), space.second_row("left")]


def _bodies(t: Arguments) -> Any:
    surface = t.surface((4, 4))
    points = surface.control_points[..., :2]
    space = fem.nurbs_space(surface.replace(control_points=points))
    count, rule = space.groups[0].weights.shape
    youngs = t.rand(count, rule) + 0.5
    u = fem.solve_elasticity(space, t.rand(2), youngs, t(0.3), dirichlet={"left": 0.0}, neumann={"right": t.rand(2)})
    out = [u, fem.elastic_energy(space, t.rand(16, 2), youngs), fem.von_mises(space, t.rand(16, 2), youngs)]
    out += [fem.elasticity(space, youngs).values, fem.bending(space, youngs, t(0.3)).values]
    patches = [fem.grid_space((3, 3)), fem.grid_space((3, 3), bounds=[(1, 2), (0, 1)])]
    ball = fem.mesh_space(t.mesh())
    return [*out, fem.glued(patches).measure(), ball.stiffness(t.rand(20, 1) + 0.5).values, ball.load(t.rand(20, 3))]


CASES: dict[str, Case] = {
    "fem.grid_space fem.solve_poisson fem.solve_heat fem.energy fem.solve_plate": _grid,
    "fem.Space Space.side Space.held Space.second_row Space.stiffness Space.mass Space.load Space.at_points"
    " Space.integral Space.measure Space.evaluate Space.coefficient Space.pattern Space.assembled": _space,
    "fem.mesh_space fem.nurbs_space fem.glued fem.elasticity fem.solve_elasticity fem.elastic_energy fem.von_mises"
    " fem.bending": _bodies,
}
