# SPDX-License-Identifier: Apache-2.0
"""Calls of the ops and of their twins."""

import functools
import types
from typing import Any

import torch

from geodiff import ops, reference, render
from tests.ops import test_shading_op, test_surface_op
from tests.unchanged.arguments import Arguments, Case

SIZE = {"image_size": (8, 9), "near": 0.1}


def _ranking(t: Arguments) -> reference.Ranking:
    return reference.Ranking(t(torch.linspace(-5, 0, 33), gradient=False), 0.1, t(torch.ones(1), gradient=False))


def _images(t: Arguments, module: types.ModuleType) -> Any:
    clip = t.clip()
    out = [module.rasterize(*clip, **SIZE), module.fragments(*clip, k=2, blur=0.1, **SIZE)]
    out += [module.fragments(*clip, order="visible", **SIZE), module.visible(*clip, blur=0.05, **SIZE)]
    out += [module.fragments(*clip, k=2, blur=0.1, order="weight", ranking=t.hold(_ranking(t)), **SIZE)]
    out.append(module.heaviest(*clip, blur=0.1, ranking=t.hold(_ranking(t)), **SIZE))
    for coverage in ("faces", "edges"):
        for rule in ("probabilistic", "maximum", "yager(2)"):
            more = {"tconorm": rule, "coverage": coverage, "scale": t(0.1)}
            out.append(module.silhouette(*clip, distribution="gamma(1.2)", **more, **SIZE))
    out.append(module.contour(*clip, scale=t(0.1), **SIZE))
    out.append(module.jumps(*clip, t(torch.full((len(clip[2]), 8, 9), -1)), near=0.1))
    return [*out, module.contour(*t.clip(2.0), scale=t(0.1), distribution="logistic.squared", **SIZE)]


def _shading(t: Arguments, module: types.ModuleType) -> Any:
    values, index = t.rand(6, 3), t(torch.randint(0, 6, (5, 3), generator=t.random))
    out = [module.blend(values, index, t.rand(5, 3))]
    place = t(torch.tensor([0, 3, 4]))
    out.append(module.composite(t.rand(6), t.rand(3, 3), place, t.rand(3, 3)))
    start, ends = t(torch.tensor([0, 2, 5])), t.rand(1, 2)
    out.append(module.mix(t.rand(5, 3), t.rand(5), t.rand(5), start, ends, t.rand(1), background=0.1))
    out.append(module.sample(t.rand(1, 4, 5, 3), t.rand(7, 2), t(torch.zeros(0, dtype=torch.int64)), wrap="clamp"))
    rows, image, normal, point = test_shading_op.scene(6)
    kinds = t(test_shading_op.KINDS)
    out.append(module.reflect(t(rows), kinds, t(image), t(normal), t(point)))
    given = {name: t(value) for name, value in test_surface_op.scene(6).items()}
    out.append(module.surface(**given))
    _, faces, _ = t.clip()
    return [*out, module.vertex_normals(t.rand(12, 3), faces), module.vertex_normals(t.rand(2, 12, 3), faces)]


def _splines(t: Arguments, module: types.ModuleType) -> Any:
    knots = [torch.tensor([0.0, 0, 0, 0.4, 1, 1, 1]).double(), torch.tensor([0.0, 0, 0.5, 1, 1]).double()]
    knots = [t(k) for k in knots]
    u, v = t.rand(5), t.rand(5)
    out = list(module.basis(u, knots[0], 2, 1))
    for rational in (False, True):
        control = t.rand(4, 3, 4) + 0.5
        for order in ((0, 0),) if rational else ((0, 0), (1, 0)):
            options = {"order": order, "rational": rational}
            out.append(module.spline(control, knots, [u, v], (2, 1), **options))
            out.append(module.spline_grid(control, knots, [u, v], (2, 1), **options))
        out.append(module.spline(control, knots, [u, v], (2, 1), rational=rational, bandwidth=(0.1, 0.1)))
    return out


def _transport(t: Arguments, module: types.ModuleType) -> Any:
    out = []
    for p in (1, 2):
        x, y = (t.rand(n, 3, gradient=False, batch=True) for n in (5, 4))
        h, k, v = (t.rand(*shape, gradient=False, batch=True) for shape in ((4,), (5,), (4, 2)))
        out.append(module.lse(x, y, h, 0.3, p))
        out += [module.apply(x, y, h, k, v, 0.3, p), module.apply_gradient(x, y, h, k, v, 0.3, p)]
    return out


def _twins_only(t: Arguments) -> Any:
    clip, faces, layout = t.clip()
    polygons = t.hold(reference.near_clip(clip[faces], 0.1))
    points = t.rand(4, 2)
    knots = t(torch.tensor([0.0, 0, 0, 0.4, 1, 1, 1]).double())
    u = t.rand(5)
    out = [polygons.points, reference.signed_distance(points, polygons, squared=True)]
    out += [reference.contour_distance(clip, faces, layout, **SIZE), reference.edge_cycles(faces, layout)]
    out += [reference.basis_matrix(u, knots, 2), reference.find_span(knots, u, 2), polygons.select(t(torch.arange(3)))]
    return [*out, reference.pair_cost(t.rand(1, 5, 3), t.rand(1, 4, 3), 1)]


def _metrics(t: Arguments) -> Any:
    image, target, mask = t.rand(2, 12, 13, 3), t.rand(2, 12, 13, 3), t.rand(2, 12, 13)
    return [render.psnr(image, target), render.psnr(image, target, mask), render.ssim(image, target)]


def _components(t: Arguments) -> Any:
    p = t.rand(6, 7, batch=True)
    means = [*render.component_means(p, keep=1), *render.component_means(p, background="components")]
    return [*means, render.connected_components(t(torch.rand(6, 7) > 0.5), min_area=2)]


def _edges(t: Arguments) -> Any:
    clip, faces, layout = t.clip()
    with torch.no_grad():
        face_id = ops.rasterize(clip, faces, layout, **SIZE).face_id
        found = t.hold(ops.jumps(clip, faces, layout, face_id, near=0.1))
    image = t.rand(len(layout), 8, 9, 3)
    return [change(image, found, clip) for change in (render.edge_gradient, render.antialias)]


def _counts(t: Arguments) -> Any:
    return ops.count_pairs(*t.clip(), scale=0.1, **SIZE)


GROUPS = {
    "rasterize fragments visible heaviest silhouette contour jumps": _images,
    "blend composite mix sample reflect surface vertex_normals": _shading,
    "basis spline spline_grid": _splines,
    "lse apply apply_gradient": _transport,
}
CASES: dict[str, Case] = {
    " ".join(f"{room}.{name}" for name in names.split()): functools.partial(group, module=module)
    for names, group in GROUPS.items()
    for room, module in (("ops", ops), ("reference", reference))
}
CASES["ops.count_pairs"] = _counts
CASES["render.edge_gradient render.antialias"] = _edges
CASES["render.psnr render.ssim"] = _metrics
CASES["render.component_means render.connected_components"] = _components
CASES[
    "reference.near_clip reference.signed_distance Polygons.select reference.contour_distance reference.edge_cycles"
    " reference.basis_matrix reference.find_span reference.pair_cost"
] = _twins_only
