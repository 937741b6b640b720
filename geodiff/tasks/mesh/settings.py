# SPDX-License-Identifier: Apache-2.0
"""The settings of fit_mesh, all in one place."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from geodiff import soft
from geodiff.settings import LARGEST, is_number
from geodiff.tasks.descent import MOST_STEPS, DescentSettings
from geodiff.validation import choice, fail, integer, number, positive, seed_number

FORMATS = ("obj", "ply", "glb", "stl")
OPTIMIZERS = ("large_steps", "adam")
LOSSES = ("iou", "squared")
LIGHTS = ("baked", "harmonics")
COVERAGES = ("faces", "edges", "contour")
_WHERE = "fit_mesh"
_SUBDIVISIONS = 8  # 655 362 vertices
_SAMPLES = 8
# What is filled in for a start that may be far from the answer, and for the hull, which is within a pixel of it. What
# antialiased images say beyond their pixels is told by a render of such images alone: samples, squared differences.
_FROM_AFAR = {
    "steps": 100,
    "lr": 0.18,
    "lr_decay": 0.3,
    "scale": (1e-2, 1e-3),
    "laplacian": 0.016,
    "flatness": 3e-4,
    "coverage": "faces",
    "samples": 1,
    "loss": "iou",
}
_FROM_HULL = {
    "steps": 20,
    "lr_decay": 0.1,
    "laplacian": 0.002,
    "flatness": 0.0,
    "coverage": "contour",
    "samples": 2,
    "loss": "squared",
}
_HULL_SCALE, _HULL_LR, _CAMERAS_LR = 0.1, 1.28, 0.64  # pixels
_WITH_CAMERAS = {"coverage": "contour", "steps": 40}  # of a hull; the sphere's are more
_ADAM_LR = 1 / 9  # of the step of large_steps, which moves what is around along
_FEW = 1  # view, whose hull has sides seen edge-on, of thousands of edges in the contour
_PRIOR = (180.0, 1.0, 1.0)


@dataclass(frozen=True)
class FitMeshSettings(DescentSettings):
    """How a mesh is fitted to silhouettes: everything but the data.

    Lengths are in **units of the picture**: 1 is half the shorter side of the view at the object, so the same settings
    serve objects and cameras of any size.

    What is best depends on how far the start is from the answer, so what is None is filled in when the job starts:
    other values for ``template="hull"`` than for a sphere or a mesh of one's own. `completed` says which.

    Attributes:
        steps: how many gradient steps, ≥ 1; None: 20 from the hull, 40 where its cameras move, else 100.
        optimizer: ``"large_steps"``, Laplacian-preconditioned, or ``"adam"``, on the vertices themselves. The former
            steps in ``u = (I + λL) v`` (Nicolet, Jacobson and Jakob 2021).
        lr: step length at the first step, in units of the picture, > 0; None: 1.28 pixels from the hull, 0.64 where
            its cameras move, else 0.18; a ninth of that for adam.
        lr_decay: what is left of the step length at the last step, in (0, 1], geometric in between; None: 0.1 from the
            hull, else 0.3.
        betas: decay of the optimiser's first and second moments, each in [0, 1).
        smoothing: λ ≥ 0 of large_steps, for 642 vertices; larger moves wider surroundings along. It is
            multiplied by V/642, since λ is in squares of the edges' length: so fine meshes move as coarse ones do.
            Unused by ``"adam"``.
        distribution: the soft edge, such as logistic or 'gamma(0.5).reversed'. An object or a name of `geodiff.soft`.
        tconorm: how faces are joined, such as probabilistic or 'yager(2)'. An object or a name of `geodiff.soft`.
        scale: τ at the first and at the last step, geometric in between; None: 0.1 pixels from the hull, else 0.01
            0.001. Soft edges first, to be drawn from afar, hard ones last, to be exact. In NDC (NDC² for a squared
            distribution).
        coverage: "faces", "edges" or "contour", as of `Renderer`; None: contour from the hull of two views or more
            and where cameras move, else faces.
        samples: of the rendered image a side of each pixel, in [1, 8], whose mean is compared; None: 2 from the hull,
            else 1. More tell apart what covers a third of a pixel and what covers a half.
        loss: between silhouettes: "iou", or "squared": the sum of squared differences over that of the targets; None:
            squared from the hull, else iou. Of anti-aliased images, only the latter is least for the true coverage.
        laplacian: weight of the Laplacian, ≥ 0, for 642 vertices; None: 0.002 from the hull, else 0.016. Of
            `geodiff.losses.laplacian`, summed. It is multiplied by V/642, since the sum of a smooth surface falls as
            1/V.
        flatness: weight of the flatness at the first step, ≥ 0; None: 0 from the hull, else 0.0003. Of
            `geodiff.losses.flatness`, summed. Silhouettes do not tell inside from outside: without it, early steps turn
            parts of a sphere inside out.
        flatness_decay: what is left of that weight at the last step, in (0, 1], geometric in between.
        views_per_step: how many views each step looks at, drawn at random by ``seed``; None: all of them.
        resolution: of the template ``"hull"``, cells along its longest side; None: five for three pixels, at most 112.
        keep_components: how many connected parts of each silhouette are kept, the largest first; 0: all. Drops the
            specks in masks of photographs, and says how many pixels; not for objects that views show in parts.
        hold_out: every n-th view is kept out of the fit and used to measure it; 0: none.
        evaluate_every: steps between measurements of the hard IoU; the best mesh so measured is the result.
        patience: steps without a better mesh, after which the fit ends before all steps are taken, ≥ 1; None: never.
            Better is a loss less by a thousandth than the least before, of those measured every ``evaluate_every``
            steps: 1 − IoU in the training views, or the silhouettes' where that is ``"squared"``.
        subdivisions: of the template ``"sphere"``, an icosphere of 10·4ⁿ + 2 vertices.
        init_radius: of that sphere, in the world's unit; None: by the size of the silhouettes. Its image then has their
            mean area.
        remesh_every: steps between remeshings; 0: none; None: 20 from the sphere, 0 from the hull, which is remeshed
            once, before the first step, and from a mesh of one's own, whose faces stay. Triangles become even, smaller
            as the fit goes on and where the surface bends, and 99 % of the result's have angles of 10° and more: see
            `geodiff.scene.remesh`.
        edge_length: of the last remeshing, > 0, in units of the picture; None: two pixels, if that is shorter than at
            the start. Where the surface bends, down to the half of it, where it is flat, up to the double.
        refine_cameras: the cameras are a little wrong: find rotation, position and focal length of each together with
            the mesh.
        camera_prior: how wrong they may be, as standard deviations: of the rotation in degrees, of the position as a
            part of the distance to the object, and of the focal length as a part of it.
        texture: find a texture, too, if the images are in colour; the mesh is then also written as GLB, which holds it.
        vertex_colors: find one colour a vertex instead.
        photometric: with either, move the surface to where the photographs agree on the colours of each of its points;
            False leaves it as the silhouettes have it, for what shines or is a mirror.
        texture_size: of the texture a side, in texels.
        light: what is done about the light in the images, ``"baked"`` or ``"harmonics"``: see `fit_colors`.
        formats: of the mesh written: obj, ply, glb or stl, or several.
        checkpoint_seconds: seconds between checkpoints, where there is an output folder; 0: after each step; None:
            never.
        seed: of what is random; the same gives the same mesh bit by bit, on one machine with one number of threads.

    Raises:
        TypeError, ValueError: a value of another type or out of its range.

    Example:
        >>> FitMeshSettings(steps=50, distribution="gaussian").steps
        50
    """

    _where = _WHERE
    _blank: ClassVar[tuple[str, ...]] = tuple(_FROM_AFAR)

    # Those that are None here are numbers once `completed`, which is how the job has them.
    steps: int = None  # type: ignore[assignment]
    optimizer: str = "large_steps"
    lr: float = None  # type: ignore[assignment]
    lr_decay: float = None  # type: ignore[assignment]
    betas: tuple[float, float] = (0.8, 0.95)
    smoothing: float = 1.0
    distribution: "soft.Distribution | str | Callable[..., Any]" = "logistic"
    tconorm: "soft.TConorm | str | Callable[..., Any]" = "probabilistic"
    scale: tuple[float, float] = None  # type: ignore[assignment]
    coverage: str = None  # type: ignore[assignment]
    samples: int = None  # type: ignore[assignment]
    loss: str = None  # type: ignore[assignment]
    laplacian: float = None  # type: ignore[assignment]
    flatness: float = None  # type: ignore[assignment]
    flatness_decay: float = 0.1
    views_per_step: int | None = None
    resolution: int | None = None
    keep_components: int = 0
    hold_out: int = 6
    evaluate_every: int = 5
    patience: int | None = None
    subdivisions: int = 3
    init_radius: float | None = None
    remesh_every: int | None = None
    edge_length: float | None = None
    refine_cameras: bool = False
    camera_prior: tuple[float, float, float] = (2.0, 0.02, 0.02)
    texture: bool = False
    vertex_colors: bool = False
    photometric: bool = True
    texture_size: int = 512
    light: str = "baked"
    formats: str | Sequence[str] = ("obj",)
    checkpoint_seconds: float | None = 20.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, MOST_STEPS),
            ("samples", 1, _SAMPLES),
            ("evaluate_every", 1, None),
            ("keep_components", 0, 10**6),
            ("hold_out", 0, None),
            ("subdivisions", 0, _SUBDIVISIONS),
            ("texture_size", 16, 8192),
        ):
            if getattr(self, name) is not None or name not in self._blank:
                integer(_WHERE, name, getattr(self, name), low, high)
        seed_number(_WHERE, self.seed)
        if self.hold_out == 1:
            raise fail(_WHERE, "hold_out", "0 (none) or at least 2", "1", "1 would leave no view to fit.")
        if self.views_per_step is not None:
            integer(_WHERE, "views_per_step", self.views_per_step, 1)
        for name in ("refine_cameras", "texture", "vertex_colors", "photometric"):
            if not isinstance(getattr(self, name), bool):
                raise fail(_WHERE, name, "True or False", getattr(self, name), error=TypeError)
        if self.texture and self.vertex_colors:
            raise fail(_WHERE, "vertex_colors", "False with `texture`", "both", "A mesh shows one of them.")
        choice(_WHERE, "light", self.light, LIGHTS)
        choice(_WHERE, "optimizer", self.optimizer, OPTIMIZERS)
        for name, options in (("coverage", COVERAGES), ("loss", LOSSES)):
            if getattr(self, name) is not None:
                choice(_WHERE, name, getattr(self, name), options)
        if self.lr is not None:
            positive(_WHERE, "lr", self.lr, "0.18 is a good start for large_steps, 0.02 for adam.")
        if self.resolution is not None:
            integer(_WHERE, "resolution", self.resolution, 4, 1024)
        self._check_share("flatness_decay", "weight")
        if self.init_radius is not None:
            positive(_WHERE, "init_radius", self.init_radius, "It is a length in the world's unit.")
            number(_WHERE, "init_radius", self.init_radius, 0, 1e30)
        if self.patience is not None:
            integer(_WHERE, "patience", self.patience, 1)
        if self.remesh_every is not None:
            integer(_WHERE, "remesh_every", self.remesh_every, 0)
        if self.edge_length is not None:
            positive(_WHERE, "edge_length", self.edge_length, "It is a length in units of the picture.")
            number(_WHERE, "edge_length", self.edge_length, 0, LARGEST)
        for name in ("smoothing", "laplacian", "flatness"):
            if getattr(self, name) is not None or name not in self._blank:
                number(_WHERE, name, getattr(self, name), 0, LARGEST)
        formats = (self.formats,) if isinstance(self.formats, str) else tuple(self.formats)
        object.__setattr__(self, "formats", tuple(choice(_WHERE, "formats", name, FORMATS) for name in formats))
        self._check_prior()
        self._check_descent()

    def _check_prior(self) -> None:
        prior = self.camera_prior
        good = isinstance(prior, tuple | list) and len(prior) == 3
        if not good or not all(is_number(x) and 0 < x <= most for x, most in zip(prior, _PRIOR, strict=True)):
            expected = "three positive numbers: degrees ≤ 180, and parts ≤ 1 of distance and focal length"
            raise fail(_WHERE, "camera_prior", expected, repr(prior))
        object.__setattr__(self, "camera_prior", tuple(float(x) for x in prior))

    def completed(self, template: str = "hull", size: int = 64, views: int | None = None) -> "FitMeshSettings":
        """Return these with what is None filled in.

        Args:
            template: ``"hull"`` or another.
            size: of the shorter side of the images, pixels.
            views: how many are fitted; None: more than a few.
        """
        values: dict[str, Any] = dict(_FROM_AFAR)
        if template == "hull":
            pixel = 2 / size
            values |= {
                **_FROM_HULL,
                "lr": (_CAMERAS_LR if self.refine_cameras else _HULL_LR) * pixel,
                "scale": (_HULL_SCALE * pixel,) * 2,
            }
            if views is not None and views <= _FEW:
                values["coverage"] = "faces"
        if self.refine_cameras:
            values |= {**_WITH_CAMERAS, "steps": max(values["steps"], _WITH_CAMERAS["steps"])}
        if self.optimizer == "adam":
            values["lr"] *= _ADAM_LR
        missing = {name: value for name, value in values.items() if getattr(self, name) is None}
        if self.scale is not None:
            missing["scale"] = tuple(b if a is None else a for a, b in zip(self.scale, values["scale"], strict=True))
        return dataclasses.replace(self, **missing)

    def flatness_at(self, step: int) -> float:
        """Return the weight of the flatness at a step counted from 0."""
        return float(self.flatness * self.flatness_decay ** self._progress(step))
