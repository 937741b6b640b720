# SPDX-License-Identifier: Apache-2.0
"""Calls of what is in geodiff.splines."""

import pathlib
import tempfile
from typing import Any

import torch

from geodiff import splines
from geodiff.splines import BSplineBasis, NURBSCurve, NURBSSurface, NURBSVolume
from tests.unchanged.arguments import Arguments, Case

SQUARE = [[0.2, 0.2], [0.8, 0.25], [0.7, 0.8], [0.25, 0.7]]


def _uv(t: Arguments, count: int = 4) -> Any:
    return t(0.1 + 0.8 * torch.rand(count, generator=t.random, dtype=torch.float64), array=True)


def _made(t: Arguments) -> Any:
    points, weights = t.rand(5, 4, 3, array=True), t.rand(5, 4, array=True) + 0.5
    knots = t([0.0, 0, 0, 0, 0.4, 1, 1, 1, 1], array=True)
    surface = NURBSSurface(points, knots, t([0.0, 0, 0, 0.5, 1, 1, 1], array=True), weights, (3, 2))
    curve = NURBSCurve(t.rand(5, 3, array=True, batch=True), knots, t.rand(5, array=True) + 0.5, 3)
    volume = NURBSVolume(t.rand(3, 3, 3, 3, array=True), degree=(2, 2, 2))
    basis = BSplineBasis(knots, 3)
    u, v = _uv(t), _uv(t)
    out = [surface(u, v), curve(u), volume(u, v, _uv(t)), basis.matrix(u), *basis.values(u)]
    homogeneous, knots = t.rand(5, 4, array=True) + 0.5, t([0.0, 0, 0, 0, 0.4, 1, 1, 1, 1], array=True)
    return [*out, NURBSCurve.from_homogeneous(homogeneous, [knots], (3,))(u)]


def _evaluated(t: Arguments) -> Any:
    u, v, w = _uv(t), _uv(t), _uv(t)
    out: list[Any] = []
    for spline, at in ((t.curve(), (u,)), (t.surface(), (u, v)), (t.volume(), (u, v, w))):
        out += [
            spline(*at),
            spline.grid(*at),
            spline.derivative(*at, order=(1,) * len(at)),
            spline.derivatives(*at, order=2),
        ]
        out += [spline.detach(), spline.opened(), spline.to(torch.float64), spline.replace(outside="clamp")(*at)]
        smooth = spline.replace(knot_gradient="gaussian", bandwidth=0.1)
        out += [smooth(*at), splines.bounding_box(spline)]
    curve, surface = t.curve(), t.surface()
    out += [curve.curvature(u), curve.tangent(u), curve.torsion(u)]
    out += [surface.normal(u, v), surface.first_fundamental_form(u, v), surface.second_fundamental_form(u, v)]
    return [*out, surface.gaussian_curvature(u, v), surface.mean_curvature(u, v), surface.tessellate(6, 6)]


def _knots(t: Arguments) -> Any:
    knots = t([0.0, 0, 0, 0, 0.4, 1, 1, 1, 1])
    out = [
        splines.greville(knots, 3),
        *splines.multiplicities(t(knots.detach(), gradient=False)),
        splines.knots_to_logits(knots, 3),
    ]
    return [*out, splines.logits_to_knots(t.rand(4), 2), splines.uniform_knots(6, 3)]


def _measured(t: Arguments) -> Any:
    curve, surface, volume = t.curve(), t.surface(), t.volume()
    out = [splines.arc_length(curve), splines.length_at(curve, _uv(t)), splines.area(surface)]
    out += [splines.parameter_at_length(curve, t([0.1, 0.2], array=True)), splines.volume(volume)]
    out += [splines.centroid(surface), splines.centroid(volume), splines.centroid(curve)]
    trimmed = t.hold(splines.TrimmedSurface(t.surface(), [t(SQUARE, array=True, gradient=False)]))
    out += [trimmed.contains(_uv(t).detach() if t.layout != "numpy" else _uv(t), 0.5), trimmed.area(8, 8)]
    return [*out, trimmed.tessellate(8, 8)]


def _closest(t: Arguments) -> Any:
    points, start = t.rand(5, 3, array=True), _uv(t, 5)
    start = start if t.layout == "numpy" else start.detach()
    out = [splines.closest_point(t.curve(), points), splines.closest_point(t.surface(), points)]
    return [*out, splines.closest_point(t.curve(), points, start=[start])]


def _changed(t: Arguments) -> Any:
    out: list[Any] = []
    for s in (t.curve(), t.surface()):
        at = t([0.3, 0.6], array=True)
        out += [splines.insert_knots(s, at), splines.elevated(s), splines.refined(s), splines.bezier(s)]
        out += [*splines.split(s, t(0.45)), splines.trimmed_to(s, t(0.2), t(0.9)), splines.clamped(s)]
        out += [splines.normalised(s), splines.reversed_(s), splines.reduced(splines.elevated(s))[0]]
        out += [splines.remove_knot(splines.insert_knots(s, [0.3]), 0.3)[0]]
        turn = torch.linalg.qr(torch.rand(3, 3, generator=t.random, dtype=torch.float64))[0]
        out += [splines.transform(s, t(turn, array=True), t.rand(3, array=True)), splines.scale(s, t(2.0), t.rand(3))]
        out += [splines.rotate(s, t(20.0), t([0.0, 0, 1]), t.rand(3)), splines.translate(s, t.rand(3, array=True))]
    surface = t.surface()
    out += [splines.transposed(surface), splines.swapaxes(surface, 0, 1)]
    first, second = splines.split(t.curve(), 0.5)
    return [*out, splines.joined(t.hold(first), t.hold(second), tolerance=1e-3)]


def _constructed(t: Arguments) -> Any:
    one, other = t.curve(), t.curve(5)
    out = [splines.compatible([one, other]), splines.ruled(one, other), splines.extrude(one, t.rand(3, array=True))]
    out += [splines.loft([one, other, t.curve()], 2), splines.sweep(t.curve(4, 2), t.curve())]
    out += [splines.revolve(one, t([-3.0, 0, 0], array=True), t([0.0, 1, 0], array=True), t(90.0))]
    corners = [t(c, array=True) for c in ([0.0, 0, 0], [1.0, 0, 0], [1.0, 1, 0], [0.0, 1, 0])]
    a, b, c, d = corners
    sides = splines.line(a, b), splines.line(d, c), splines.line(a, d), splines.line(b, c)
    return [*out, splines.coons(*(t.hold(s) for s in sides))]


def _shapes(t: Arguments) -> Any:
    r, s, at, flat = t(1.5), t(0.5), t.rand(3, array=True), t.rand(2, array=True)
    out = [splines.arc(r, center=flat), splines.circle(r, flat), splines.ellipse(r, s, flat), splines.hyperbola(r, s)]
    out += [
        splines.parabola(s),
        splines.line(at, t([2.0, 3, 4], array=True)),
        splines.polyline(t.rand(4, 3, array=True)),
    ]
    out += [splines.conic(t([0.0, 0], array=True), t([1.0, 1], array=True), t([2.0, 0], array=True), s)]
    out += [splines.plane(center=at), splines.box(t.rand(3) + 0.5, at), splines.disk(r, at), splines.sphere(r, at)]
    return [*out, splines.torus(r, s, at), splines.cone(r, center=at), splines.cylinder(r, center=at)]


def _pieces(t: Arguments) -> Any:
    x, weights = t.rand(12, 2, array=True), t.rand(12, array=True) + 0.5
    at = t(torch.linspace(0, 1, 12, dtype=torch.float64), gradient=False, array=True)
    fit = splines.fit_pieces(x, 2, 1, weights=weights, parameters=at)
    other = splines.fit_pieces(t.rand(12, 2, array=True, batch=True), degree=1, penalty=0.1)
    return [fit.values, fit.sse, fit.curve(1).control_points, other.values]


def _fits(t: Arguments) -> Any:
    u = torch.linspace(0, 1, 14, dtype=torch.float64)
    line = torch.stack([u, u.sin(), u**2], -1)
    grid = torch.stack([*torch.meshgrid(u, u, indexing="ij"), u[:, None] * u], -1)
    points, weights = t(line, array=True), t(torch.rand(14).double() + 0.5, array=True, gradient=False)
    out = [splines.fit_curve(points, 5), splines.fit_curve(points, 5, point_weights=weights, smoothing=1e-4)]
    still = t(line, array=True, gradient=False)
    at = t(u, array=True, gradient=False)
    out += [splines.fit_curve(still, 5, parameters=at, free_knots=True, rational=True, max_iterations=3)]
    out += [splines.fit_surface(t(grid, array=True), (4, 4)), splines.fit_cloud(still, 5, max_iterations=2)]
    flat = t(grid.reshape(-1, 3), array=True, gradient=False)
    out += [splines.fit_cloud(flat, (4, 4), max_iterations=2, smoothing=1e-4, chamfer=1.0, trim=0.1)]
    return [x.curve if hasattr(x, "curve") else x.surface for x in out]


def _files(t: Arguments) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        for kept in (t.curve(), t.surface()):
            splines.save_splines(pathlib.Path(folder) / "s.json", kept.detach())
            splines.load_splines(pathlib.Path(folder) / "s.json")


def _names(text: str) -> str:
    return "".join(f" splines.{name}" for name in text.split())


METHODS = "derivative derivatives detach from_homogeneous grid opened replace to".split()
FORMS = "first_fundamental_form gaussian_curvature mean_curvature normal second_fundamental_form tessellate".split()
CASES: dict[str, Case] = {
    "splines.NURBSCurve splines.NURBSSurface splines.NURBSVolume splines.BSplineBasis"
    " BSplineBasis.matrix BSplineBasis.values": _made,
    " ".join(f"NURBS.{m}" for m in METHODS)
    + " NURBSCurve.curvature NURBSCurve.tangent NURBSCurve.torsion splines.bounding_box"
    + "".join(f" NURBSSurface.{m}" for m in FORMS): _evaluated,
    "splines.greville splines.multiplicities splines.knots_to_logits splines.logits_to_knots"
    " splines.uniform_knots": _knots,
    "splines.arc_length"
    + _names("length_at parameter_at_length area volume centroid TrimmedSurface")
    + " TrimmedSurface.contains TrimmedSurface.area TrimmedSurface.tessellate": _measured,
    "splines.closest_point": _closest,
    "splines.insert_knots"
    + _names("elevated refined bezier split trimmed_to clamped normalised reversed_ reduced remove_knot")
    + _names("transform scale rotate translate transposed swapaxes joined"): _changed,
    "splines.compatible" + _names("ruled extrude loft sweep revolve coons"): _constructed,
    "splines.arc"
    + _names(
        "circle ellipse hyperbola parabola line polyline conic plane box disk sphere torus cone cylinder"
    ): _shapes,
    "splines.fit_curve splines.fit_surface splines.fit_cloud": _fits,
    "splines.fit_pieces splines.PieceFit PieceFit.curve": _pieces,
    "splines.save_splines splines.load_splines": _files,
}
