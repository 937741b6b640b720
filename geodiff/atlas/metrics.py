# SPDX-License-Identifier: Apache-2.0
"""How far a recovered surface is from the true one: both ways, with normals, and near open boundaries."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.nearest import nearest
from geodiff.atlas.proximity import check_mesh, closest_on_mesh, sample_mesh
from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.scene.proximity import ClosestPoints
from geodiff.validation import fail, promote

THRESHOLDS = (0.001, 0.002, 0.005, 0.01)  # of the F-score, relative to the scale
CURVE = tuple(np.round(np.linspace(0.0, 0.02, 81), 6).tolist())  # of the percentage fitted, relative to the scale


@dataclass(frozen=True)
class Distances:
    """Distances from each point of one surface to the nearest of another, relative to ``SurfaceMetrics.scale``."""

    mean: float
    rms: float
    median: float
    p95: float
    max: float

    @classmethod
    def of(cls, values: torch.Tensor, scale: float) -> "Distances":
        """Summarise distances (N,), N ≥ 1, in world units."""
        x = values.detach().double().cpu().numpy() / scale
        return cls(
            float(x.mean()),
            float(np.sqrt((x * x).mean())),
            float(np.median(x)),
            float(np.quantile(x, 0.95)),
            float(x.max()),
        )

    def as_dict(self) -> dict[str, float]:
        """Return the figures by name."""
        return {name: float(getattr(self, name)) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class SurfaceMetrics:
    """What `surface_metrics` measured. Distances are relative to `scale`.

    Attributes:
        scale: the length of 1: the diagonal of the true surface's box unless given.
        accuracy: from the output to the truth.
        completeness: from the truth to samples of the output.
        normal_consistency: mean of |n·n'| between each point and the nearest of the other surface, the mean of both
            ways; None where either side has no normals.
        orientation: share of those with n·n' > 0; None likewise.
        f_score: by threshold: 2·P·R/(P + R), P the share of the output within the threshold of the truth, R the share
            of the truth within it of the output.
        curve: thresholds, and the shares P and R at each (lists of one length): the percentage fitted.
        boundary: for a true surface that is open, else None: `boundary_metrics`.
    """

    scale: float
    accuracy: Distances
    completeness: Distances
    normal_consistency: float | None
    orientation: float | None
    f_score: dict[float, float]
    curve: dict[str, list[float]]
    boundary: dict[str, float] | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain numbers, lists and dictionaries, for JSON."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["accuracy"], values["completeness"] = self.accuracy.as_dict(), self.completeness.as_dict()
        values["f_score"] = {str(key): value for key, value in self.f_score.items()}
        return values


@outside_autocast
def surface_metrics(
    output: Mesh | torch.Tensor,
    truth: Mesh | torch.Tensor,
    *,
    output_normals: torch.Tensor | None = None,
    truth_normals: torch.Tensor | None = None,
    samples: int = 200_000,
    thresholds: Sequence[float] = THRESHOLDS,
    curve: Sequence[float] = CURVE,
    scale: float | None = None,
    boundary_width: float = 0.01,
    seed: int = 0,
) -> SurfaceMetrics:
    """Measure a recovered surface against the true one.

    Accuracy runs from `samples` points of the output (all points, if it is a cloud) to the nearest of the truth, which
    is a point on its triangles where it is a mesh; completeness from `samples` points of the truth to the nearest of
    the output's points. So completeness has a floor: about half the spacing of the points, 0.5·√(area/samples).

    Args:
        output: a mesh, or points (N, 3).
        truth: a mesh, or points (T, 3) such as a scan that was held out.
        output_normals: (N, 3) of an output that is points.
        truth_normals: (T, 3) of a truth that is points.
        samples: points drawn of each mesh.
        thresholds: of the F-score, relative to `scale`, increasing or not.
        curve: thresholds of the percentage fitted, relative to `scale`.
        scale: world length that figures are relative to; None takes the diagonal of the truth's box.
        boundary_width: of the strip along open boundaries of the truth, relative to `scale`.
        seed: of the samples.

    Raises:
        TypeError: an output or truth that is neither mesh nor tensor.
        ValueError: wrong shapes, NaN, nothing in them, or a scale, count or width that is not positive.

    Example:
        >>> import geodiff as gd
        >>> from geodiff.atlas.metrics import surface_metrics
        >>> report = surface_metrics(gd.icosphere(3, radius=1.01), gd.icosphere(3), samples=10_000, scale=1.0)
        >>> round(report.accuracy.mean, 3)
        0.01
    """
    where = "surface_metrics"
    for name, number in (("samples", samples), ("boundary_width", boundary_width)):
        if not number > 0:
            raise fail(where, name, "positive", str(number))
    points, normals = _points(where, "output", output, output_normals, samples, seed)
    true_points, true_normals = _points(where, "truth", truth, truth_normals, samples, seed + 1)
    if scale is None:
        corners = truth.vertices if isinstance(truth, Mesh) else true_points
        scale = float((corners.detach().amax(0) - corners.detach().amin(0)).norm())
    if not 0 < scale < float("inf"):
        raise fail(where, "scale", "positive and finite", str(scale), "Is the truth a single point?")

    to_truth = (
        closest_on_mesh(points, truth, rounded=True) if isinstance(truth, Mesh) else closest_of(points, true_points)
    )
    to_output = closest_of(true_points, points)
    there, back = to_truth.distance / scale, to_output.distance / scale
    consistency, orientation = None, None
    if normals is not None and true_normals is not None:
        of_truth = truth.face_normals.detach() if isinstance(truth, Mesh) else true_normals
        cosines = (
            (normals * of_truth[to_truth.face].to(normals)).sum(-1),
            (true_normals * normals[to_output.face].to(true_normals)).sum(-1),
        )
        consistency = float(sum(c.double().abs().mean() for c in cosines) / 2)
        orientation = float(sum((c > 0).double().mean() for c in cosines) / 2)
    boundary = None
    if isinstance(truth, Mesh) and len(truth.boundary_edges):
        boundary = boundary_metrics(true_points, to_output, to_truth, truth, boundary_width, scale)
    return SurfaceMetrics(
        scale=scale,
        accuracy=Distances.of(to_truth.distance, scale),
        completeness=Distances.of(to_output.distance, scale),
        normal_consistency=consistency,
        orientation=orientation,
        f_score={float(t): _f_score(_share(there, t), _share(back, t)) for t in thresholds},
        curve={
            "threshold": [float(t) for t in curve],
            "output": [_share(there, t) for t in curve],
            "truth": [_share(back, t) for t in curve],
        },
        boundary=boundary,
    )


def boundary_metrics(
    true_points: torch.Tensor,
    to_output: ClosestPoints,
    to_truth: ClosestPoints,
    truth: Mesh,
    width: float,
    scale: float,
) -> dict[str, float]:
    """Measure what happens along the open boundaries of the true surface, in a strip of `width`·`scale`.

    Args:
        true_points: (T, 3) samples of the truth.
        to_output: from those to the output.
        to_truth: from the output's points to the truth.
        truth: an open mesh.
        width: of the strip, relative to `scale`.
        scale: world length that figures are relative to.

    Returns:
        ``completeness`` and ``completeness_max``: from the truth's strip to the output; ``accuracy`` and
        ``accuracy_max``: from the output whose nearest true point is in the strip, which is where a closed surface
        balloons; ``overshoot``: how far the output reaches beyond the boundary, as the mean over the boundary's own
        points of the farthest output that has its nearest true point there; ``worse``: the larger of the two means.
    """
    edge = truth.vertices.detach().cpu().double().numpy()[truth.boundary_edges.cpu().numpy()]
    step = np.linalg.norm(edge[:, 1] - edge[:, 0], axis=-1)
    count = np.maximum(np.ceil(step / (0.1 * width * scale)), 1).astype(np.int64)
    which = np.repeat(np.arange(len(edge)), count)
    part = (np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + 0.5) / count[which]
    border = edge[which, 0] + part[:, None] * (edge[which, 1] - edge[which, 0])
    tree = cKDTree(border)
    reach = width * scale

    def near(points: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        return tree.query(points.detach().cpu().double().numpy(), distance_upper_bound=reach)

    inside = torch.from_numpy(np.isfinite(near(true_points)[0]))
    gap, index = near(to_truth.point)
    strip = np.isfinite(gap)
    missing = to_output.distance.cpu()[inside] / scale
    away = to_truth.distance.cpu().double().numpy()[strip] / scale
    # Beyond the boundary, and only there, the nearest true point is on the boundary itself.
    at_border = gap[strip] < 0.1 * reach
    farthest = np.full(len(border), np.nan)
    np.fmax.at(farthest, index[strip][at_border], away[at_border])
    result = {
        "completeness": float(missing.mean()) if len(missing) else 0.0,
        "completeness_max": float(missing.max()) if len(missing) else 0.0,
        "accuracy": float(away.mean()) if len(away) else 0.0,
        "accuracy_max": float(away.max()) if len(away) else 0.0,
        "overshoot": float(np.nanmean(farthest)) if np.isfinite(farthest).any() else 0.0,
    }
    return {**result, "worse": max(result["completeness"], result["accuracy"])}


def closest_of(points: torch.Tensor, cloud: torch.Tensor) -> ClosestPoints:
    """Return the nearest of a cloud's T points to each of N points.

    Args:
        points: (N, 3).
        cloud: (T, 3), T ≥ 1.
    """
    tree = cKDTree(cloud.detach().cpu().double().numpy())
    gap, own = nearest(tree, points.detach().cpu().double().numpy())
    index = torch.from_numpy(own)
    corner = points.new_tensor([1.0, 0.0, 0.0]).expand(len(index), 3)  # a point is a face of three such corners
    found = cloud.detach()[index.to(cloud.device)]
    return ClosestPoints(found, index, corner, torch.from_numpy(gap).to(points))


def _points(
    where: str, name: str, surface: Any, normals: torch.Tensor | None, samples: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    if isinstance(surface, Mesh):
        check_mesh(where, name, surface)
        if normals is not None:
            raise fail(where, f"{name}_normals", f"None where `{name}` is a mesh", normals, "A mesh has its own.")
        drawn = sample_mesh(surface, samples, seed)
        return drawn.points.detach(), drawn.normals
    if not isinstance(surface, torch.Tensor):
        raise fail(where, name, "a geodiff.Mesh or a tensor of shape (N, 3)", surface, error=TypeError)
    given = {name: surface} if normals is None else {name: surface, f"{name}_normals": normals}
    values = promote(where, **given)
    for key, value in values.items():
        if value.dim() != 2 or value.shape[1] != 3 or len(value) == 0 or len(value) != len(surface):
            raise fail(where, key, "of shape (N, 3), N ≥ 1", value)
    unit = None if normals is None else torch.nn.functional.normalize(values[f"{name}_normals"].detach(), dim=-1)
    return values[name].detach(), unit


def _share(distances: torch.Tensor, threshold: float) -> float:
    return float((distances <= threshold).double().mean())


def _f_score(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0
