# SPDX-License-Identifier: Apache-2.0
"""The settings of fit_atlas: those of the fit of the charts, and what to make of them."""

from dataclasses import dataclass

from geodiff.atlas.settings import Settings
from geodiff.tasks.descent import check_seconds
from geodiff.validation import choice, fail, integer

UPS = ("x", "y", "z", "-x", "-y", "-z")


@dataclass(frozen=True)
class FitAtlasSettings(Settings):
    """How a surface is recovered from a cloud: the fields of `geodiff.atlas.settings.Settings`, and these.

    Attributes:
        samples: how many points to draw of the surface, for samples.ply, ≥ 100.
        refine: times to cut the triangles of charts.obj into four.
        watertight: make watertight.ply, by Open3D if it is installed, else by the winding number.
        depth: of the octree of watertight.ply, whose cells are 2^-depth of the extent; None: 8, less where the points
            are too far apart to show that.
        open_boundaries: leave holes and borders of watertight.ply open.
        keep_components: how many connected parts watertight.ply keeps, those with the most points first; 0: all that a
            hundredth of the points lie on. None: 1, with open boundaries 0.
        preview: a first look within seconds: of 3000 of the points, with 30 steps, one round, 30 000 samples and no
            watertight.ply. It leaves a checkpoint in the folder alone.
        up: which way is up in the pictures: x, y, z, -x, -y or -z. None: z for LAS and LAZ files, else y.
        checkpoint_seconds: seconds between checkpoints, where there is an output folder; 0: after each chunk; None:
            never.

    Raises:
        TypeError, ValueError: a value of another type or out of its range.

    Example:
        >>> FitAtlasSettings(target=60, watertight=False).steps
        90
    """

    _aside = (
        "samples",
        "refine",
        "watertight",
        "depth",
        "open_boundaries",
        "keep_components",
        "preview",
        "up",
        "checkpoint_seconds",
    )

    samples: int = 200_000
    refine: int = 0
    watertight: bool = True
    depth: int | None = None
    open_boundaries: bool = False
    keep_components: int | None = None
    preview: bool = False
    up: str | None = None
    checkpoint_seconds: float | None = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low, high in (("samples", 100, 10**8), ("refine", 0, 4)):
            integer(self._where, name, getattr(self, name), low, high)
        if self.depth is not None:
            integer(self._where, "depth", self.depth, 1, 14)
        for name in ("watertight", "open_boundaries", "preview"):
            if not isinstance(getattr(self, name), bool):
                raise fail(self._where, name, "True or False", getattr(self, name), error=TypeError)
        if self.keep_components is not None:
            integer(self._where, "keep_components", self.keep_components, 0, 10**9)
        if self.up is not None:
            choice(self._where, "up", self.up, UPS)
        check_seconds(self._where, self.checkpoint_seconds)
