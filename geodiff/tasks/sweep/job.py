# SPDX-License-Identifier: Apache-2.0
"""Run a job for many renderers of the family, τ and learning rates: resumable, in parallel, over machines."""

import contextlib
import json
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any

import torch
from tqdm import tqdm

import geodiff.tasks.sweep.pose  # noqa: F401 - registers the job
from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.tasks.checkpoint import fingerprint
from geodiff.tasks.device import job_device
from geodiff.tasks.lock import check_folder, output_folder
from geodiff.tasks.progress import Callback, Progress, as_callback
from geodiff.tasks.sweep.kinds import JOBS, Case, Job, select_family
from geodiff.tasks.sweep.outputs import Journal, write_table
from geodiff.tasks.sweep.result import SweepResult
from geodiff.tasks.sweep.settings import SweepSettings
from geodiff.tasks.team import Team
from geodiff.validation import choice, fail, nearest

_WHERE = "sweep"
_FAILURES = (ValueError, RuntimeError, ArithmeticError)


@outside_autocast
def sweep(
    kind: str,
    mesh: Mesh | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    options: dict[str, Any] | None = None,
    device: torch.device | str | None = None,
    settings: SweepSettings | Mapping[str, Any] | None = None,
    resume: bool = True,
    callback: Callback | None = None,
    progress: bool = True,
    command: str | None = None,
    **changes: Any,
) -> SweepResult:
    """Run a job with each member of a family, at each τ and learning rate.

    Each run has one thread and a seed of its own, and the table is in the order of the arguments, so it is the same to
    the last bit for any number of workers on machines of one kind. Started by ``torchrun``, its processes form a team
    over one machine or several, each with its own ``workers``; they take the runs one after another from a common
    counter, and the first of them writes the files.

    Each finished run is a line in ``output/rows.jsonl`` (``rows.1.jsonl``, … in the others of a team) before the next
    begins. A sweep that was killed goes on from them; so does one with a longer list of members, τ or learning rates.
    Machines of a team may share the folder, or have one each.

    Args:
        kind: ``"shape"``: recover ``mesh`` from its silhouettes with `fit_mesh`; ``"pose"``: find its pose from one
            silhouette with `fit_pose`, for many pairs; see `geodiff.tasks.sweep.kinds` and `geodiff.tasks.sweep.pose`.
        mesh: the mesh to be recovered, or its file.
        output: a folder, made where missing, for the rows, ``table.csv`` and the heat maps: ``heatmap.csv``, the best
            score of each distribution and T-conorm over all τ and learning rates, ``scales.csv``, that of each member
            and τ, and a PNG of each where Matplotlib is installed.
        options: of the job, by name.
        settings: a `SweepSettings`, or a dictionary of its fields; left out, the defaults.
        resume: go on from the rows in ``output``; False removes them first.
        device: where the runs take their steps: "cpu", "cuda", "cuda:1", or "auto", a GPU if one works here; left out,
            where the mesh is. All processes share it.
        callback: called with a `Progress`, whose ``record`` is the row, for each run that this process finishes.
        progress: show a progress bar, in the first process of a team.
        command: the command line, to be noted in ``sweep.json``.
        **changes: fields of `SweepSettings`, for instance ``family="logistic+*", lrs=[0.1, 0.3]``.

    Returns:
        A `SweepResult`.

    Raises:
        TypeError, ValueError: as each argument's check says; rows of another job in ``output``.
        RuntimeError: a device that is not there.
        OSError: ``output`` cannot be written to, or the disk is full; ValueError: another process writes there.

    Example:
        >>> import tempfile, geodiff as gd
        >>> quick = {"views": 4, "size": 16, "steps": 3, "subdivisions": 1}
        >>> where = tempfile.mkdtemp()
        >>> result = sweep("shape", gd.box(), output=where, family="logistic+probabilistic", scales=[0.01, 0.03],
        ...                lrs=[0.2], options=quick, progress=False)
        >>> len(result.rows), result.failed
        (2, 0)
    """
    job = JOBS[choice(_WHERE, "kind", kind, tuple(JOBS))]
    settings = SweepSettings.of(settings, changes)
    told = as_callback(_WHERE, callback)
    members = select_family(settings.family)
    scales, lrs = settings.scales or job.scales, settings.lrs or job.lrs
    cases = [Case(member.name, scale, lr) for member in members for scale in scales for lr in lrs]
    placed = job_device(_WHERE, device, mesh.device if isinstance(mesh, Mesh) else None)
    mesh = _mesh(mesh)
    options = _options(job, options)
    prepared = _placed(job.prepare(mesh, options), placed)
    folder = check_folder(_WHERE, output)
    inputs = {"kind": kind, "options": options, "mesh_fingerprint": fingerprint([mesh.vertices, mesh.faces])}
    with Team.join() as team, output_folder(_WHERE, output if team.leads else None):
        team.wait()  # until the first holds the folder, nothing in it is touched
        if not resume:
            Journal.remove(folder)
            team.wait()
        known = team.union(Journal.read(folder, inputs))
        todo = [case for case in cases if case not in known]
        mine: dict[Case, dict[str, Any]] = {}
        bar = tqdm(total=len(todo), desc=_WHERE, unit="run", disable=not (progress and team.leads))
        claims = (todo[i] for i in team.claims(len(todo)))
        fresh = _finished(job, prepared, (mesh, options, placed), claims, min(settings.workers, max(len(todo), 1)))
        with bar, Journal(folder, team.rank, inputs) as journal, contextlib.closing(fresh):
            for row in fresh:
                journal.append(row)
                mine[_case(row)] = row
                if told is not None:
                    told(Progress(len(mine), len(todo), None, row))
                bar.update(team.finished() - bar.n)
        known = team.union(known | mine)
        bar.close()
        rows = [known[case] for case in cases]
        good = [row for row in rows if row["error"] is None and row[job.score] is not None]
        sign = 1 if job.highest else -1
        result = SweepResult(
            rows=rows,
            best=max(good, key=lambda row: sign * row[job.score], default=None),
            failed=sum(row["error"] is not None for row in rows),
            run=len(todo),
            leads=team.leads,
            files={},
            settings=settings,
        )
        if team.leads:
            Journal.rewrite(folder, inputs, known)
            facts = {**inputs, "command": command, "members": len(members), "runs": len(rows), "failed": result.failed,
                     "seconds": sum(row["seconds"] for row in rows), "best": result.best}  # fmt: skip
            facts["device"] = str(placed)
            result.files.update(write_table(folder, job, rows, facts))
        team.wait()
    return result


def run_case(job: Job, prepared: Any, case: Case) -> dict[str, Any]:
    """Run one case and return its row; what goes wrong in it is noted there."""
    began = time.perf_counter()
    row: dict[str, Any] = {**case._asdict(), **dict.fromkeys(job.columns), "error": None}
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found = job.run(prepared, case)
    except _FAILURES as error:
        row["error"] = (str(error).splitlines() or [type(error).__name__])[0][:200]
    else:
        row |= {name: found[name] for name in job.columns}
        wild = [name for name in job.columns if row[name] is not None and not math.isfinite(row[name])]
        if wild:
            row |= {**dict.fromkeys(job.columns), "error": f"{', '.join(wild)} not finite"}
    row["seconds"] = round(time.perf_counter() - began, 3)
    return row


def _finished(
    job: Job,
    prepared: Any,
    given: tuple[Mesh, dict[str, Any], torch.device],
    cases: Iterator[Case],
    workers: int,
) -> Generator[dict[str, Any], None, None]:
    """Run the cases, here or in other processes, and yield their rows as they come."""
    if workers == 1:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for case in cases:
                yield run_case(job, prepared, case)
        finally:
            torch.set_num_threads(threads)
        return
    mesh, options, device = given
    arguments = (job, mesh.vertices.detach().numpy(), mesh.faces.numpy(), options, str(device))
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(workers, context, _enter, arguments) as pool:
        try:
            running: set[Future[dict[str, Any]]] = set()
            for case in cases:
                with _no_ctrl_c():  # which goes to all processes: those that are made here leave it to this one
                    running.add(pool.submit(_run_here, case))
                # No case is claimed before there is somebody free to run it.
                while len(running) == workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            # A run may take minutes, and nobody waits for it.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise


@contextlib.contextmanager
def _no_ctrl_c() -> Iterator[None]:
    """Hold Ctrl-C back until the end of the block, and for good in processes that are started in it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


_ON_DEVICES = (torch.Tensor, Mesh, Camera, PosedImages)
_here: dict[str, Any] = {}


def _enter(job: Job, vertices: Any, faces: Any, options: dict[str, Any], device: str) -> None:
    """Make a worker ready."""
    torch.set_num_threads(1)
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of the system, which a terminated process leaves behind
    _here.update(job=job, prepared=_placed(job.prepare(Mesh(vertices, faces), options), torch.device(device)))


def _placed(prepared: Any, device: torch.device) -> Any:
    """Return what runs share on a device: meshes, cameras, images and tensors of a tuple; the rest as it is."""
    if device.type == "cpu" or not isinstance(prepared, tuple):
        return prepared
    moved: list[Any] = [part.to(device) if isinstance(part, _ON_DEVICES) else part for part in prepared]
    return type(prepared)(*moved) if hasattr(prepared, "_fields") else tuple(moved)


def _run_here(case: Case) -> dict[str, Any]:
    return run_case(_here["job"], _here["prepared"], case)


def _case(row: dict[str, Any]) -> Case:
    return Case(row["member"], row["scale"], row["lr"])


def _mesh(mesh: Any) -> Mesh:
    if isinstance(mesh, str | os.PathLike):
        mesh = Mesh.load(mesh)
    if not isinstance(mesh, Mesh):
        raise fail(_WHERE, "mesh", "a Mesh or the path of one", mesh, error=TypeError)
    if mesh.batch_shape or not mesh.num_faces:
        raise fail(_WHERE, "mesh", "one mesh with faces", mesh.vertices)
    return Mesh(mesh.vertices.detach().cpu(), mesh.faces.cpu())


def _options(job: Job, given: dict[str, Any] | None) -> dict[str, Any]:
    for name in given or {}:
        if name not in job.options:
            raise fail(_WHERE, "options", f"those of {job.name}", repr(name), nearest(name, job.options))
    try:
        plain: dict[str, Any] = json.loads(json.dumps({**job.options, **(given or {})}))
    except TypeError as error:
        raise fail(_WHERE, "options", "plain numbers, strings and lists", str(error), error=TypeError) from error
    return plain
