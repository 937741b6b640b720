# SPDX-License-Identifier: Apache-2.0
"""The fitted atlas: charts, where each point lies in them, and the surfaces they hand out."""

import dataclasses
import os
import pathlib
import warnings
from typing import Any

import numpy as np
import torch

from geodiff import guard
from geodiff.arrays import load_arrays
from geodiff.atlas.chart_mesh import atlas_mesh, chart_meshes
from geodiff.atlas.charts import Charts
from geodiff.atlas.closed import closed_mesh
from geodiff.atlas.confidence import confidence
from geodiff.atlas.fitted import FittedCharts
from geodiff.atlas.members import Members
from geodiff.atlas.sample import Samples, sample
from geodiff.atlas.sides import chart_sides
from geodiff.modes import hand_on, outside_autocast
from geodiff.scene.atomic import replacing
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail, floating, integers

_FORMAT = "geodiff atlas 1"
_CHART_FIELDS = ("linear", "offset", "center", "rotation", "scale")
_FIELDS = ("points", "chart", "point", "uv", "inside", "outlier", "sign", "confidence")


@outside_autocast
@dataclasses.dataclass(frozen=True)
class Atlas(Members):
    """A surface as overlapping charts φ_q: [0, 1]² → space, fitted to a cloud of N points.

    Call it for points of the surface; make it with `fit_atlas`, or `Atlas.of` from charts.

    Attributes:
        charts: Q networks.
        points: (N, 3), the cloud, in world units.
        chart: (M,) int64, sorted: chart of each membership.
        point: (M,) int64, its point.
        uv: (M, 2), the point's place in the chart's square.
        inside: (M,) bool, well inside the patch.
        outlier: (N,) bool, points in no chart.
        sign: (Q,) ±1: outward normals are `sign` times ∂φ/∂u × ∂φ/∂v.
        confidence: (N,) in [0, 1]: the probability that the true surface is within `tolerance` of this one about the
            point: `geodiff.atlas.confidence`.
        noise: estimated standard deviation of the points across the surface, world units.
        seed: of the fit.
        tolerance: (N,), two standard deviations σ of the points about each, world units; σ is at least a twentieth of
            the spacing of the points. 0 for points in no chart; None in files of earlier versions.

    Raises:
        TypeError: wrong dtypes.
        ValueError: shapes that do not belong together, memberships not sorted by chart, NaN.
    """

    @classmethod
    def of(
        cls,
        charts: Charts,
        points: torch.Tensor,
        chart: torch.Tensor,
        point: torch.Tensor,
        uv: torch.Tensor,
        *,
        inside: torch.Tensor | None = None,
        outlier: torch.Tensor | None = None,
        normals: torch.Tensor | None = None,
        noise: float = 0.0,
        seed: int = 0,
        local_noise: torch.Tensor | None = None,
    ) -> "Atlas":
        """Make an atlas of fitted charts: orient them and judge the points.

        Args:
            charts: Q networks.
            points: (N, 3).
            chart: (M,) int64, sorted.
            point: (M,) int64.
            uv: (M, 2).
            inside: (M,) bool; all if left out.
            outlier: (N,) bool; points in no chart if left out.
            normals: (N, 3), oriented normals of the points, which then decide the sides; None finds them by itself.
            noise: see the class.
            seed: see the class.
            local_noise: (N,), the standard deviation about each point; None: `noise` everywhere.

        Raises:
            TypeError: see the class.
            ValueError: see the class.
        """
        charts = _detached(charts)
        uv = uv.detach()
        inside = torch.ones(len(chart), dtype=torch.bool, device=chart.device) if inside is None else inside
        covered = torch.zeros(len(points), dtype=torch.bool, device=points.device)
        covered[point] = True
        outlier = ~covered if outlier is None else outlier
        draft = cls(charts, points, chart, point, uv, inside, outlier, points.new_ones(len(charts)),
                    points.new_zeros(len(points)), noise, seed)  # fmt: skip
        sides = chart_sides(chart, point, draft.predictions, draft._plain_normals, len(charts), given=normals)
        sign = sides.sign.to(points)
        sigma = points.new_full((len(points),), float(noise)) if local_noise is None else local_noise
        anchor = None if draft._lines is None else draft._lines.anchor
        sure = confidence(points, draft.fitted_points(), draft._normals_turned(sign), covered & ~outlier, sigma, anchor)
        atlas = dataclasses.replace(draft, sign=sign, confidence=sure.probability, tolerance=sure.tolerance)
        hand_on(draft, atlas, "_at_members", "_lines", "trust", "_say", "_consensus")  # on which sides have no bearing
        return atlas

    @classmethod
    def from_fit(cls, fit: FittedCharts, *, normals: torch.Tensor | None = None, seed: int = 0) -> "Atlas":
        """Make an atlas of what `geodiff.atlas.fit.fit_charts` returned.

        Args:
            fit: fitted charts.
            normals: (N, 3), oriented normals of the cover's points; None: the cover's own, if these face one side.
            seed: of the fit, to be kept.
        """
        cover = fit.cover
        normals = cover.normals if normals is None and cover.sided else normals
        return cls.of(fit.charts, cover.points, cover.chart, cover.point, fit.uv, inside=cover.inside,
                      outlier=cover.outlier, normals=normals, noise=float(fit.noise), seed=seed,
                      local_noise=fit.local_noise)  # fmt: skip

    def __repr__(self) -> str:
        return f"Atlas(charts={len(self)}, points={len(self.points)}, memberships={len(self.chart)})"

    def __call__(self, chart: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Return points (S, 3) of charts (S,), in any order, at places uv (S, 2).

        Gradients: in uv and in the charts' parameters.

        Raises:
            ValueError: wrong shapes, charts that do not exist.
        """
        order, back = self._sorted("Atlas", chart, uv)
        return self.charts.flat(uv[order], chart[order])[back]

    def normals(self, chart: torch.Tensor, uv: torch.Tensor) -> torch.Tensor:
        """Return outward unit normals (S, 3) of charts (S,), in any order, at places uv (S, 2); 0 where singular.

        Raises:
            ValueError: wrong shapes, charts that do not exist.
        """
        order, back = self._sorted("Atlas.normals", chart, uv)
        return self.charts.flat_normals(uv[order], chart[order])[back] * self.sign[chart, None]

    def sample(self, count: int = 200_000, *, seed: int = 0, blend: bool = True) -> Samples:
        """Draw points of the surface, uniform in area, with outward normals: `geodiff.atlas.sample.sample`."""
        with torch.no_grad():
            return sample(self, count, seed=seed, blend=blend)

    def meshes(self, refine: int = 0) -> list[Mesh]:
        """Return a mesh for each chart, trimmed to where its points are; charts overlap.

        Args:
            refine: times that each triangle between points is cut into four.

        Returns:
            Q meshes with `uv` in the chart's own square, facing outwards; without faces where nothing is left.
        """
        return chart_meshes(self, refine)

    def to_mesh(self, refine: int = 0, *, gap: float = 0.002) -> Mesh:
        """Return all charts as one mesh in which each place appears once: `geodiff.atlas.chart_mesh.atlas_mesh`.

        Boundaries of the cloud stay open. `save` it as OBJ or GLB for the texture coordinates.
        """
        return atlas_mesh(self, refine, gap=gap)

    def watertight_mesh(
        self,
        depth: int = 8,
        *,
        samples: int = 200_000,
        open_boundaries: bool = False,
        trim: float = 4.0,
        seed: int = 0,
        keep_components: int | None = None,
    ) -> Mesh:
        """Return a closed manifold through samples: `geodiff.atlas.closed.closed_mesh`, which also tells what is wrong.

        By screened Poisson reconstruction where Open3D is installed and its surface can be closed, else by the winding
        number of the samples. The notes on it are warnings.

        Args:
            depth: of the octree; 8 resolves 1/256 of the extent, each step more takes about four times as long.
            samples: of `sample`.
            open_boundaries: keep holes and borders open.
            trim: with open boundaries, how far beyond samples the surface may reach, in their spacing.
            seed: of the samples.
            keep_components: how many connected parts to keep; 0: all. None: 1, with open boundaries 0.

        Raises:
            ValueError: see `closed_mesh`.
        """
        drawn = self.sample(samples, seed=seed)
        facing = drawn.normals.norm(dim=-1) > 0.5
        found = closed_mesh(
            drawn.points[facing], drawn.normals[facing], depth=depth, open_boundaries=open_boundaries, trim=trim,
            keep_components=keep_components,
        )  # fmt: skip
        for note in found.notes:
            warnings.warn(f"Atlas.watertight_mesh: {note}", stacklevel=2)
        return found.mesh

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the atlas as a NumPy archive (.npz), whole or not at all; `load` gives the same bits.

        Raises:
            ValueError: another ending.
            OSError: the folder cannot be written to.
        """
        path = _archive("Atlas.save", path)
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _FIELDS}
        arrays |= {f"charts.{name}": getattr(self.charts, name) for name in _CHART_FIELDS}
        for name in ("weights", "biases"):
            arrays |= {f"charts.{name}.{i}": value for i, value in enumerate(getattr(self.charts, name))}
        if self.tolerance is not None:
            arrays["tolerance"] = self.tolerance
        plain = {name: value.detach().cpu().numpy() for name, value in arrays.items()}
        plain |= {
            "format": np.array(_FORMAT),
            "charts.activation": np.array(self.charts.activation),
            "noise": np.array(float(self.noise)),
            "seed": np.array(int(self.seed)),
        }
        with replacing(path, "Atlas.save") as part, open(part, "wb") as file:
            np.savez(file, allow_pickle=False, **plain)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Atlas":
        """Read what `save` has written.

        Raises:
            FileNotFoundError: no such file.
            ValueError: another ending, a damaged file, or one of something else.
        """
        path = _archive("Atlas.load", path)
        if not path.is_file():
            raise fail("Atlas.load", "path", "a file that exists", str(path), error=FileNotFoundError)
        with guard.reading("Atlas.load", path, "atlas"):
            content = load_arrays(path)
            if not isinstance(content, dict) or str(content.get("format")) != _FORMAT:
                raise fail("Atlas.load", "path", f"of format '{_FORMAT}'", f"{path}, which is something else")
            return _atlas(content)

    def _sorted(self, where: str, chart: torch.Tensor, uv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        chart = integers(where, "chart", chart, ("S",))
        floating(where, "uv", uv, (len(chart), 2))
        if len(chart) and (int(chart.min()) < 0 or int(chart.max()) >= len(self)):
            raise fail(where, "chart", f"within 0 … {len(self) - 1}", f"{int(chart.min())} … {int(chart.max())}")
        order = torch.argsort(chart, stable=True)
        return order, torch.argsort(order)


def _detached(charts: Charts) -> Charts:
    charts = charts.with_parameters([p.detach() for p in charts.parameters()])
    return dataclasses.replace(charts, center=charts.center.detach(), rotation=charts.rotation.detach(),
                               scale=charts.scale.detach())  # fmt: skip


def _archive(where: str, path: str | os.PathLike[str]) -> pathlib.Path:
    path = pathlib.Path(path)
    if path.suffix.lower() != ".npz":
        raise fail(where, "path", "a file that ends in .npz", str(path))
    return path


def _atlas(content: dict[str, np.ndarray]) -> Atlas:
    """Make an atlas of the arrays of its file; check names, kinds and what must be of one dtype."""
    layers = range(max(1, sum(name.startswith("charts.weights.") for name in content)))
    weights, biases = ([f"charts.{kind}.{i}" for i in layers] for kind in ("weights", "biases"))
    # What is computed with together is of one dtype.
    parameters = [*weights, *biases, "charts.linear", "charts.offset", "uv"]
    together = (parameters, ["charts.center", "charts.rotation", "charts.scale"], ["points", "sign", "confidence"])
    kinds: dict[str, tuple[str, ...]] = {name: ("float32", "float64") for group in together for name in group}
    kinds |= dict.fromkeys(("chart", "point", "seed"), ("int64",)) | dict.fromkeys(("inside", "outlier"), ("bool",))
    kinds["noise"] = ("float64",)
    if "tolerance" in content:  # not in files of earlier versions
        kinds["tolerance"] = ("float32", "float64")
    missing = sorted({*kinds, "charts.activation"} - content.keys())
    if missing:
        raise ValueError(f"without {', '.join(missing)}")
    for name, kind in kinds.items():
        if content[name].dtype.name not in kind:
            raise ValueError(f"{name} is {content[name].dtype}, not {' or '.join(kind)}")
        if not np.isfinite(content[name]).all():
            raise ValueError(f"{name} is not finite")
    for group in together:
        if len({content[name].dtype for name in group}) > 1:
            raise ValueError(f"{', '.join(group)} are not of one dtype")
    if not (content["noise"].shape == content["seed"].shape == content["charts.activation"].shape == ()):
        raise ValueError("noise, seed or activation is not one value")
    read = {name: torch.from_numpy(content[name]) for name in kinds}
    charts = Charts(
        tuple(read[name] for name in weights),
        tuple(read[name] for name in biases),
        **{name: read[f"charts.{name}"] for name in _CHART_FIELDS},
        activation=str(content["charts.activation"]),
    )
    return Atlas(charts, **{name: read[name] for name in _FIELDS}, noise=float(content["noise"]),
                 seed=int(content["seed"]), tolerance=read.get("tolerance"))  # fmt: skip
