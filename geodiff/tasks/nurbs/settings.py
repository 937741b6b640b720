# SPDX-License-Identifier: Apache-2.0
"""The settings of fit_nurbs, all in one place."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from geodiff.settings import Renamed, Settings
from geodiff.splines.fit_unordered import MOST_TRIMMED
from geodiff.validation import choice, fail, integer, number, positive, seed_number

FORMATS = ("json", "3dm", "igs", "stp", "obj", "ply", "stl", "glb")
KINDS = ("auto", "grid", "heights", "cloud")
_NEEDS = {"3dm": ("rhino3dm", "cad"), "igs": ("OCP", "cad"), "stp": ("OCP", "cad")}
_WHERE = "fit_nurbs"


@dataclass(frozen=True)
class FitNURBSSettings(Settings):
    """How a NURBS surface is fitted to points: everything but the data.

    Attributes:
        kind: what the points are: grid, heights or cloud; auto goes by the shape, and takes (N, 3) for a cloud.
        spacing: of heights, the distance of neighbours along the first axis, x, and the second, y, in their unit.
        control_shape: control points along u and v.
        degree: along u and v.
        free_knots: let the interior knots move, too. For grids and heights.
        rational: let the weights move, too, within [0.1, 10]. For grids and heights.
        smoothing: weight of the bending energy; None: 0, for a cloud what the noise asks for. It is ≥ 0 as
            `fit_surface` defines it, > 0 as `fit_cloud` does.
        trim: the share of a cloud's points that are left out as outliers, 0 to 0.5; better too large than too small.
        starts: of a free fit, one from uniform knots, the others random; the best is the result.
        seed: of the random starts.
        formats: of the surface besides json: 3dm, igs, stp (these need ``geodiff[cad]``), or triangles: obj, ply, stl,
            glb.

    Raises:
        TypeError, ValueError: a value of another type or out of its range.
        ImportError: a format whose library is not installed.

    Example:
        >>> FitNURBSSettings(control_shape=(5, 6), formats="ply").formats
        ('json', 'ply')
    """

    _where = _WHERE
    _renamed: ClassVar[Renamed] = {"control": "control_shape"}
    _aside = ("formats",)

    kind: str = "auto"
    spacing: tuple[float, float] = (1.0, 1.0)
    control_shape: tuple[int, int] = (8, 8)
    degree: tuple[int, int] = (3, 3)
    free_knots: bool = False
    rational: bool = False
    smoothing: float | None = None
    trim: float = 0.0
    starts: int = 1
    seed: int = 0
    formats: str | Sequence[str] = ("json", "obj")

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", _formats(self.formats))
        choice(_WHERE, "kind", self.kind, KINDS)
        # Also where the fit has no use for them: what is written into metrics.json has a meaning.
        integer(_WHERE, "starts", self.starts, 1, 10**6)
        seed_number(_WHERE, self.seed)
        if self.smoothing is not None:
            number(_WHERE, "smoothing", self.smoothing, 0, 1e30)
        number(_WHERE, "trim", self.trim, 0, MOST_TRIMMED, "It is the share of the points that are outliers.")
        for name in ("spacing", "control_shape", "degree"):  # whose numbers the fit looks at
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, Sequence) else value)
        if not isinstance(self.spacing, tuple) or len(self.spacing) != 2:
            raise fail(_WHERE, "spacing", "two lengths, along x and along y", repr(self.spacing))
        for step in self.spacing:
            positive(_WHERE, "spacing", step, "It is the distance of neighbouring heights.")
            number(_WHERE, "spacing", step, 0, 1e100)


def _formats(formats: str | Sequence[str]) -> tuple[str, ...]:
    names = [formats] if isinstance(formats, str) else list(formats)
    for name in names:
        choice(_WHERE, "formats", name, FORMATS)
        if name in _NEEDS:
            module, extra = _NEEDS[name]
            if importlib.util.find_spec(module) is None:
                got = f"{name!r}, which needs {module}"
                fix = f'pip install "geodiff[{extra}]", or leave it out.'
                raise fail(_WHERE, "formats", "of installed libraries", got, fix, ImportError)
    return tuple(dict.fromkeys(["json", *names]))
