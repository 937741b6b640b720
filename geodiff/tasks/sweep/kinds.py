# SPDX-License-Identifier: Apache-2.0
"""What a sweep can run: the kinds of jobs, and the members of the family to run them with."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.settings import LARGEST, Renamed, Renaming
from geodiff.soft.family import Member, family, member
from geodiff.tasks.mesh.job import fit_mesh
from geodiff.tasks.mesh.settings import FitMeshSettings
from geodiff.tasks.render.views import render_views
from geodiff.validation import choice, fail, nearest, number, positive

# Tails of all sorts (none, light, heavy, one-sided), plain and squared, with one rule; then one law with all rules.
_LAWS = (
    *(
        "uniform",
        "cubic_hermite",
        "gaussian",
        "laplace",
        "logistic",
        "cauchy",
        "reciprocal",
        "gumbel_max",
        "gumbel_min",
    ),
    *("exponential.reversed", "gamma(0.5).reversed", "levy.reversed"),
)
_RULES = (
    *(
        "average",
        "maximum",
        "einstein",
        "hamacher(0.5)",
        "hamacher(4)",
        "frank(4)",
        "yager(0.5)",
        "yager(2)",
        "yager(4)",
    ),
    *("aczel_alsina(0.5)", "dombi(0.5)", "schweizer_sklar(-1)"),
)
_SPANNING = (
    *(f"{law}{form}+probabilistic" for law in _LAWS for form in ("", ".squared")),
    *(f"logistic+{rule}" for rule in _RULES),
)


class Case(NamedTuple):
    """One run of a sweep.

    Attributes:
        member: the name of the renderer, as `geodiff.soft.member` reads it.
        scale: τ.
        lr: learning rate.
    """

    member: str
    scale: float
    lr: float


@dataclass(frozen=True)
class Job(Renaming):
    """A kind of job. Its functions must be importable, since other processes run them.

    Attributes:
        name: what it is called on the command line.
        options: what can be set besides family, τ and learning rate, with the defaults; plain values.
        scales: τ where the user gives none.
        lrs: learning rates where the user gives none.
        columns: the names of its results, in the order of the table.
        score: the column that the heat maps show.
        prepare: ``prepare(mesh, options)`` checks the options and returns what all runs share.
        run: ``run(prepared, case)`` returns a number or None for each column. A ValueError, RuntimeError or
            ArithmeticError is noted as the failure of this run.
        highest: whether the highest score is best.
    """

    _where = "Job"
    _renamed: ClassVar[Renamed] = {"rates": "lrs"}

    name: str
    options: Mapping[str, Any]
    scales: tuple[float, ...]
    lrs: tuple[float, ...]
    columns: tuple[str, ...]
    score: str
    prepare: Callable[[Mesh, dict[str, Any]], Any]
    run: Callable[[Any, Case], dict[str, float | int | None]]
    highest: bool = True


JOBS: dict[str, Job] = {}
"""The kinds of jobs by name."""


def register_job(job: Job) -> Job:
    """Add a kind of job, for ``sweep(job.name, ...)``; one of the same name is replaced.

    Raises:
        ValueError: its score is none of its columns.
    """
    choice("register_job", "score", job.score, job.columns)
    JOBS[job.name] = job
    return job


def select_family(names: str | Iterable[str]) -> tuple[Member, ...]:
    """Return members of the family by name.

    Args:
        names: ``"thesis"`` (1 242 members), ``"all"``, ``"spanning"`` (36: laws with each sort of tail, plain and
            squared, with one rule, and one law with each rule), the name of a member, a pattern with ``*`` or ``?``
            over the names of all, or several of these, in a list or with commas between.

    Returns:
        The members, each once, in the order of ``names``.

    Raises:
        ValueError: none given, a pattern without matches, or a name that cannot be read.

    Example:
        >>> [m.name for m in select_family("logistic+yager(*), gaussian.squared+probabilistic")][3:]
        ['logistic+yager(4)', 'logistic+yager(8)', 'gaussian.squared+probabilistic']
    """
    where = "select_family"
    parts = [part.strip() for name in ([names] if isinstance(names, str) else names) for part in name.split(",")]
    chosen: dict[str, Member] = {}
    for part in filter(None, parts):
        if part == "spanning":
            found = [member(name) for name in _SPANNING]
        elif part in ("thesis", "all"):
            found = [m for m in family() if m.in_thesis or part == "all"]
        elif "*" in part or "?" in part:
            found = [m for m in family() if fnmatch.fnmatchcase(m.name, part)]
            if not found:
                raise fail(where, "names", "patterns that match members", repr(part), "Try 'logistic+*'.")
        elif "+" not in part:
            fix = nearest(part, ("thesis", "all", "spanning"))
            raise fail(where, "names", "thesis, all, spanning, or of the form DISTRIBUTION+TCONORM", repr(part), fix)
        else:
            found = [member(part)]
        chosen |= {m.name: m for m in found}
    if not chosen:
        raise fail(where, "names", "one member or more", "none")
    return tuple(chosen.values())


# Those of the fit are its own, unless told.
_OF_FIT = "steps optimizer lr_decay laplacian flatness subdivisions hold_out evaluate_every seed".split()
_SHAPE_OPTIONS = {
    **{"views": 24, "elevation": [30.0], "size": 64, "scale_decay": 1.0},
    **{name: getattr(FitMeshSettings().completed("sphere"), name) for name in _OF_FIT},
}


def _prepare_shape(mesh: Mesh, options: dict[str, Any]) -> tuple[PosedImages, FitMeshSettings, float]:
    options = dict(options)
    decay = options.pop("scale_decay")
    positive("sweep", "scale_decay", decay, "It is what is left of τ at the last step.")
    number("sweep", "scale_decay", decay, 0, LARGEST)
    size, elevation = options.pop("size"), options.pop("elevation")
    images = render_views(
        mesh,
        views=options.pop("views"),
        elevation=tuple(elevation) if isinstance(elevation, list | tuple) else (elevation,),
        size=tuple(size) if isinstance(size, list | tuple) else size,
        hard=True,
        progress=False,
    )
    for name, value in options.items():
        if value is None:
            raise fail("sweep", name, "a value", "none", f"Left out, it is {_SHAPE_OPTIONS[name]}.")
    return images, FitMeshSettings(**options), decay


def _run_shape(prepared: tuple[PosedImages, FitMeshSettings, float], case: Case) -> dict[str, float | int | None]:
    images, settings, decay = prepared
    renderer = member(case.member)
    fit = fit_mesh(
        images,
        template="sphere",
        settings=settings,
        progress=False,
        distribution=renderer.distribution,
        tconorm=renderer.tconorm,
        scale=(case.scale, case.scale * decay),
        lr=case.lr,
        remesh_every=0,
    )
    held_out = fit.iou_train if fit.iou_held_out is None else fit.iou_held_out
    return {"iou": held_out, "iou_train": fit.iou_train, "best_step": fit.best_step}


SHAPE = register_job(
    Job(
        name="shape",
        options=_SHAPE_OPTIONS,
        scales=tuple(10 ** (-1 - 0.5 * n) for n in range(7)),
        lrs=(0.06, 0.18, 0.54),
        columns=("iou", "iou_train", "best_step"),
        score="iou",
        prepare=_prepare_shape,
        run=_run_shape,
    )
)
"""Recover the mesh from its silhouettes by `fit_mesh`, τ constant unless told; ``iou`` is of the held-out views."""
