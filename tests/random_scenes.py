# SPDX-License-Identifier: Apache-2.0
"""Random scenes far outside of what anybody draws on purpose, and what every output must satisfy on them.

`cases(seed)` yields cases for ever; `check(case)` raises AssertionError where a kernel, its twin or a bound of theirs
is wrong. Tests take the first few; run as a program, with a seed and a number of cases or of seconds, it goes on:

    python -m tests.random_scenes --seed 1 --count 10000 --seconds 900
"""

import argparse
import dataclasses
import itertools
import math
import random
import time
import traceback
from collections.abc import Iterator
from typing import Any

import torch

from geodiff import Camera, ops, reference
from geodiff.reference.arguments import face_corners, pixel_centres
from geodiff.reference.contour import coverage_of
from geodiff.reference.outline import PUSH
from geodiff.reference.polygons import line_distances, near_clip, signed_distance
from geodiff.reference.rasterize import _interpolate
from geodiff.soft import as_distribution, as_tconorm

LAWS = (
    "logistic", "gaussian", "laplace", "uniform", "cubic_hermite", "wigner_semicircle", "hyperbolic_secant", "cauchy",
    "reciprocal", "gumbel_max", "gumbel_min", "exponential", "exponential.reversed", "gamma(0.5)", "gamma(3)", "levy",
)  # fmt: skip
RULES = (
    "probabilistic", "maximum", "einstein", "hamacher(0.5)", "frank(2)", "yager(2)", "aczel_alsina(3)", "dombi(2)",
    "schweizer_sklar(-2)", "average",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """A scene in clip coordinates, with everything that an output is asked for with.

    Attributes:
        name: seed, number and kind.
        clip: `(N, 4)`, float64; each check casts it, so that both dtypes see the same numbers of that dtype.
        faces: `(F, 3)`.
        image_size: (H, W).
        near: depth of the near plane.
        law: name of the distribution, squared or not.
        rule: name of the T-conorm.
        scale: τ.
        blur: of fragments, NDC.
        dtype: of the kernel; the twin is given the same numbers in float64.
    """

    name: str
    clip: torch.Tensor
    faces: torch.Tensor
    image_size: tuple[int, int]
    near: float
    law: str
    rule: str
    scale: float
    blur: float
    dtype: torch.dtype

    @property
    def layout(self) -> torch.Tensor:
        """One image of all faces."""
        return torch.tensor([[0, 0, len(self.faces)]])

    def packed(self, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return clip as `self.dtype` says it, faces, layout."""
        return self.clip.to(self.dtype).to(dtype), self.faces, self.layout


def _log_uniform(choose: random.Random, low: float, high: float) -> float:
    return 10 ** choose.uniform(math.log10(low), math.log10(high))


def _wide(choose: random.Random, count: int) -> torch.Tensor:
    """Points whose coordinates are of all sizes at once."""
    rows = [[choose.choice((-1, 1)) * _log_uniform(choose, 1e-30, 1e30) for _ in range(3)] for _ in range(count)]
    return torch.tensor(rows, dtype=torch.float64)


def _blob(choose: random.Random, count: int) -> torch.Tensor:
    """Points about the origin, now and then two of them the same or all in a plane."""
    points = torch.tensor([[choose.gauss(0, 1) for _ in range(3)] for _ in range(count)], dtype=torch.float64)
    kind = choose.randrange(4)
    if kind == 0:
        points[choose.randrange(count)] = points[0]
    if kind == 1:
        points[:, 2] = choose.choice((0.0, points[0, 2].item()))
    return points


def _camera_case(choose: random.Random, points: torch.Tensor, far: float) -> tuple[torch.Tensor, float]:
    """Clip coordinates before a camera whose field of view goes from a thread to half of space; and its near plane."""
    size = float(points.abs().max())
    fov = choose.choice((_log_uniform(choose, 1e-3, 90), 180 - _log_uniform(choose, 0.1, 90)))
    # Far enough to see all, or anywhere on a logarithmic scale.
    fits = 1.5 * size / math.tan(math.radians(fov / 2))
    distance = min(fits, 1e12 * size) if choose.random() < 0.7 else size * _log_uniform(choose, 1e-2, far)
    direction = torch.tensor([choose.gauss(0, 1) for _ in range(3)], dtype=torch.float64)
    eye = direction / direction.norm() * distance
    near = distance * choose.choice((1e-3, 0.1, 0.9, 1.0))
    camera = Camera.look_at(eye=eye, fov_deg=fov, near=near)
    return camera.to_clip(points), near


def _lattice(choose: random.Random, count: int, size: tuple[int, int]) -> torch.Tensor:
    """Orthographic points on pixel centres and borders, at few depths: edges run through centres, depths tie."""
    short = min(size)
    rows = []
    for _ in range(count):
        x = choose.randrange(-size[1] - 2, size[1] + 3) / short
        y = choose.randrange(-size[0] - 2, size[0] + 3) / short
        rows.append([x, y, choose.choice((1.0, 2.0, 2.5)), 1.0])
    return torch.tensor(rows, dtype=torch.float64)


def case(seed: int, number: int) -> Case:
    """Make one case; the same arguments make the same one."""
    choose = random.Random(f"{seed}/{number}")
    kind = choose.choice(("camera", "camera", "lattice", "wide", "clip"))
    size = (choose.randint(1, 9), choose.randint(1, 9))
    count, face_count = choose.randint(3, 9), choose.randint(1, 8)
    near = choose.choice((0.125, 0.5, 1.0))
    if kind == "camera":
        clip, near = _camera_case(choose, _blob(choose, count), 1e6)
    elif kind == "wide":
        clip, near = _camera_case(choose, _wide(choose, count), 1e3)
    elif kind == "lattice":
        clip = _lattice(choose, count, size)
    else:  # anything in front of and behind the camera, some exactly on the near plane
        points = _blob(choose, count)
        depth = torch.tensor([choose.choice((near, choose.uniform(-2, 3), 2.0)) for _ in range(count)])[:, None]
        clip = torch.cat([points[:, :2], depth, depth if choose.random() < 0.7 else torch.ones_like(depth)], dim=1)
    faces = torch.tensor([[choose.randrange(count) for _ in range(3)] for _ in range(face_count)])
    law = choose.choice(LAWS)
    squared = choose.random() < 0.4
    scale = _log_uniform(choose, 1e-6, 1e3) if choose.random() < 0.5 else _log_uniform(choose, 0.01, 1)
    return Case(
        f"{seed}/{number} {kind}", clip.double(), faces, size, near, law + ".squared" * squared, choose.choice(RULES),
        scale, choose.choice((0.0, 0.05, 1.0, math.inf)), choose.choice((torch.float32, torch.float64)),
    )  # fmt: skip


def cases(seed: int) -> Iterator[Case]:
    """Yield cases for ever."""
    return (case(seed, number) for number in itertools.count())


# What is right ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Truth:
    """Distances in float64 from pixel centres to faces, and by how much rounding in the case's dtype may move them.

    Attributes:
        distance: signed, `(M, P)`, of P faces.
        error: bounds of what coordinates rounded to the dtype do to it, `(P,)`.
        sure: whether a face is drawn for certain, `(P,)`; the others are so thin, so small or so large that rounding,
            underflow or overflow decides.
        depth: of each face at each pixel, `(M, P)`.
        depth_error: `(P,)`.
        largest: coordinate of the face in the image, `(P,)`.
        lines: signed distances to the lines of the edges, `(M, P, 4)`; ∞ for a fourth edge that is not there.
        line_error: as `error`; a line turns with its edge, so it is the larger the shorter the edge is.
        cut: whether the near plane cuts the face, `(P,)`.
    """

    distance: torch.Tensor
    error: torch.Tensor
    sure: torch.Tensor
    depth: torch.Tensor
    depth_error: torch.Tensor
    largest: torch.Tensor
    lines: torch.Tensor
    line_error: torch.Tensor
    cut: torch.Tensor


ROUNDINGS = 64
"""How many roundings of a face's largest coordinate its distance to a pixel may be off by."""


def truth(case: Case) -> tuple[Truth, torch.Tensor]:
    """Measure all faces of a case in float64, with bounds of what its dtype loses; and say which faces those are."""
    clip, faces, layout = case.packed(torch.float64)
    eps, tiny, huge = (getattr(torch.finfo(case.dtype), name) for name in ("eps", "tiny", "max"))
    corners = face_corners(clip, faces, layout[0].tolist())
    near = float(torch.tensor(case.near, dtype=case.dtype))  # the plane that the dtype can say
    polygons = near_clip(corners, near)
    points = polygons.points
    edges = points.roll(-1, dims=1) - points
    longest2 = (edges * edges).sum(-1).amax(1)
    area = ((points[:, 1:] - points[:, :1])[:, :2] * 0).sum((1, 2))
    arms = points[:, 1:] - points[:, :1]
    for i in (0, 1):
        area = area + arms[:, i, 0] * arms[:, i + 1, 1] - arms[:, i, 1] * arms[:, i + 1, 0]
    largest = points.abs().amax((1, 2))
    # A cut is as exact as the corner behind the plane is large beside what is left of it.
    w = corners[..., 3].abs()
    cut = (corners[..., 2] > near).sum(1).clamp(max=3) % 3 > 0
    span = corners[..., :].abs().amax((1, 2)) / torch.where(cut, polygons.w.abs().amin(1), 1.0)
    error = ROUNDINGS * eps * (largest + 1) * torch.where(cut, 1 + span, 1.0)
    exists = (corners[..., 2] > near).any(1)
    thick = area.abs() > 8 * eps * longest2 + error * longest2.sqrt() * 4
    sized = (longest2 > tiny / eps**2) & (largest < huge**0.5 / 16) & (area.abs() > tiny / eps)
    sized &= (w.amax(1) < huge**0.5) & (corners[..., :2].abs().amax((1, 2)) < huge / 16)
    thin = area.abs() < 8 * eps * longest2 - error * longest2.sqrt() * 4
    possible = exists & ~(thin & sized) & (longest2 > 0)
    pixels = pixel_centres(case.image_size, clip.to(case.dtype)).double()
    # Whatever float64 can still measure.
    keep = possible & (area != 0) & torch.isfinite(area) & torch.isfinite(longest2)
    chosen = keep.nonzero()[:, 0]
    some = polygons.select(chosen)._replace(counts=torch.full((len(chosen),), 4))
    distance = signed_distance(pixels, some)
    depth = _interpolate(corners[chosen], pixels[:, None])[1]
    slope = (longest2.sqrt() * (largest + 1) * (longest2.sqrt() + 1) / area.abs())[chosen]
    depth_error = ROUNDINGS * eps * corners[..., 2].abs().amax(1)[chosen] * (1 + slope) * (1 + span * cut)[chosen]
    lines, has_line = line_distances(pixels, some)
    lines = torch.where(has_line, lines, torch.inf)
    shortest = torch.where(has_line, (edges[chosen] ** 2).sum(-1).sqrt(), torch.inf).amin(1)
    farthest = pixels.abs().max() + largest[chosen]
    line_error = error[chosen] * (1 + 4 * farthest / shortest)
    sure = (thick & sized & exists)[chosen]
    found = Truth(distance, error[chosen], sure, depth, depth_error, largest[chosen], lines, line_error, cut[chosen])
    return found, chosen


def coverage_bounds(
    case: Case, distance: torch.Tensor, error: torch.Tensor, sure: torch.Tensor, face_count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of alpha, which grows with every distance: `(M, P)` of faces, or `(M, P, 4)` of their edges' lines."""
    law, rule = as_distribution(case.law), as_tconorm(case.rule)
    plain = law.unsquared() if law.is_squared else law
    bounds = []
    for sign in (-1, 1):
        d = distance + sign * (error if distance.dim() == 2 else error[:, None])
        x = (d * d.abs() if law.is_squared else d) / case.scale
        log_f = plain.log_cdf(x)
        if distance.dim() == 3:
            log_f = log_f.sum(dim=-1)
            log_s = torch.where(log_f < 0, torch.log(-torch.expm1(log_f)), -torch.inf)
        else:
            log_s = plain.log_survival(x)
        if sign < 0:
            log_f = torch.where(sure, log_f, -torch.inf)
            log_s = torch.where(sure, log_s, 0.0)
        rest = face_count - log_f.shape[1]
        log_f = torch.cat([log_f, log_f.new_full((len(d), rest), -torch.inf)], 1)
        log_s = torch.cat([log_s, log_s.new_zeros(len(d), rest)], 1)
        bounds.append(rule.aggregate_log(log_f, log_s, dim=1))
    return bounds[0].reshape(case.image_size), bounds[1].reshape(case.image_size)


def _gradient(total: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """The gradient, zero where nothing is drawn."""
    return torch.autograd.grad(total, leaf)[0] if total.requires_grad else torch.zeros_like(leaf)


def problems(case: Case) -> list[str]:
    """Say what is wrong with the outputs of a case; nothing if all is well."""
    wrong: list[str] = []

    def claim(good: Any, text: str) -> None:
        if not bool(good):
            wrong.append(text)

    known, chosen = truth(case)
    eps = torch.finfo(case.dtype).eps
    clip, faces, layout = case.packed(case.dtype)
    view: dict[str, Any] = {"image_size": case.image_size, "near": case.near}
    model = dict(distribution=case.law, scale=case.scale)
    soft_error = 256 * eps ** (0.5 if "(" in case.rule else 1.0)  # T-conorms with a power: its root
    for coverage in ("faces", "edges"):
        distance, error, sure = known.distance, known.error, known.sure
        if coverage == "edges":
            distance, error, sure = known.lines, known.line_error, known.sure & ~known.cut
        low, high = coverage_bounds(case, distance, error, sure, len(case.faces))
        if coverage == "edges" and known.cut.any():
            high = torch.ones_like(high)  # which edges of a cut face have a line, rounding decides
        values = {}
        for who, function, more in (
            ("kernel", ops.silhouette, {"max_error": 0.0}),
            ("twin", reference.silhouette, {}),
        ):
            leaf = clip.clone().requires_grad_()
            alpha = function(leaf, faces, layout, tconorm=case.rule, coverage=coverage, **model, **view, **more)[0]
            grad = _gradient(alpha.sum(), leaf)
            alpha = alpha.detach()
            values[who] = alpha.double(), grad.double()
            claim(torch.isfinite(alpha).all(), f"{who} alpha {coverage} not finite")
            claim((alpha >= 0).all() and (alpha <= 1).all(), f"{who} alpha {coverage} outside of [0, 1]")
            claim(torch.isfinite(grad).all(), f"{who} gradient {coverage} not finite")
            above, below = float((alpha.double() - high).max()), float((low - alpha.double()).max())
            claim(max(above, below) <= soft_error, f"{who} alpha {coverage} off by {max(above, below):.2g}")
        with torch.no_grad():
            culled = ops.silhouette(clip, faces, layout, tconorm=case.rule, coverage=coverage, **model, **view)[
                0
            ].double()
        gap = float((culled - values["kernel"][0]).abs().max())
        claim(gap <= 1e-4 + soft_error, f"culling {coverage} moves alpha by {gap:.2g}")
    values = {}
    for who, function, more in (("kernel", ops.contour, {"max_error": 0.0}), ("twin", reference.contour, {})):
        leaf = clip.clone().requires_grad_()
        alpha = function(leaf, faces, layout, **model, **view, **more)[0]
        claim(torch.isfinite(_gradient(alpha.sum(), leaf)).all(), f"{who} contour gradient not finite")
        values[who] = alpha.detach().double()
        claim(torch.isfinite(alpha).all(), f"{who} contour not finite")
    with torch.no_grad():
        values["culled kernel"] = ops.contour(clip, faces, layout, **model, **view)[0].double()
        distance = reference.contour_distance(clip, faces, layout, image_size=case.image_size, near=case.near)[
            0
        ].double()
    # An outline is known to the width that its visibility is looked for in, times coordinates beyond 1.
    width = 2 * PUSH[case.dtype] * max(1.0, float(torch.nan_to_num(known.largest).max()) if len(chosen) else 1.0)
    law = as_distribution(case.law)
    low, high = (coverage_of(distance + sign * width, law, case.scale) for sign in (-1, 1))
    for who, alpha in values.items():
        gap = max(float((alpha - high).max()), float((low - alpha).max()))
        claim(gap <= 1e-4 * (who == "culled kernel") + 256 * eps, f"{who} contour off by {gap:.2g}")
    # Hard images
    inside_sure = known.sure & (known.distance > known.error)
    inside_maybe = known.distance >= -known.error
    nearest = torch.where(inside_sure, known.depth + known.depth_error, torch.inf).amin(1) if len(chosen) else None
    for who, function in (("kernel", ops.rasterize), ("twin", reference.rasterize)):
        raster = function(clip, faces, layout, **view)
        ids = raster.face_id.flatten()
        claim(torch.isfinite(raster.barycentric).all(), f"{who} barycentric not finite")
        if nearest is None:
            claim((ids < 0).all(), f"{who} raster: a face that cannot be")
            continue
        claim(torch.isinf(nearest[ids < 0]).all(), f"{who} raster: pixel missed")
        hit = (ids >= 0).nonzero()[:, 0]
        column = (chosen == ids[hit, None]).int()
        claim(column.sum(1).all(), f"{who} raster: degenerate face drawn")
        column = column.argmax(1)
        claim(inside_maybe[hit, column].all(), f"{who} raster: face does not cover")
        depth = raster.depth.flatten()[hit].double()
        gap = (depth - known.depth[hit, column]).abs() - known.depth_error[column]
        claim((gap <= 0).all(), f"{who} raster: depth off")
        claim((depth - known.depth_error[column] <= nearest[hit]).all(), f"{who} raster: not the nearest")
    for k, order in ((1, "depth"), (1, "visible"), (3, "depth")):
        for who, function in (("kernel", ops.fragments), ("twin", reference.fragments)):
            leaf = clip.clone().requires_grad_()
            found = function(leaf, faces, layout, k=k, blur=case.blur, order=order, **view)
            there = found.face_id >= 0
            claim(all(torch.isfinite(x[there]).all() for x in found[1:]), f"{who} fragments {order} {k} not finite")
            total = found.distance[there].sum() + found.barycentric[there].sum() + found.depth[there].sum()
            claim(torch.isfinite(_gradient(total, leaf)).all(), f"{who} fragments {order} {k} gradient not finite")
    return wrong


def check(case: Case) -> None:
    """Raise AssertionError where an output of a case is wrong."""
    wrong = problems(case)
    assert not wrong, f"case {case.name}, {case.dtype}: " + "; ".join(wrong)


def run(seed: int, count: int, seconds: float) -> int:
    """Check cases until `count` or the time is reached; print what fails, and return how many did."""
    start, failed = time.monotonic(), 0
    done = 0
    for some in itertools.islice(cases(seed), count):
        if time.monotonic() - start > seconds:
            break
        done += 1
        try:
            check(some)
        except Exception:
            failed += 1
            print(f"case {some.name}: {traceback.format_exc(limit=1)}", flush=True)
    print(f"{done} random scenes, {failed} failed (seed {seed}, {time.monotonic() - start:.0f} s)")
    return failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Check random scenes.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=900.0)
    options = parser.parse_args()
    raise SystemExit(1 if run(options.seed, options.count, options.seconds) else 0)
