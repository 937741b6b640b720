# SPDX-License-Identifier: Apache-2.0
"""Damage small CAD files, clouds and atlases: each must load, or be refused by an error that names a file.

Run by hand: ``python -m tests.fuzz_cad --seed 0 --count 2000 [--kind step]``. Case i of a seed is the same in every
run; what fails is kept beside the message (``--keep``).

Libraries crash and hang at such files, so the cases run in workers, which read without limits; where a worker dies or
falls silent, its case is read again as users read it, in a process of its own.
"""

import argparse
import functools
import importlib.util
import io
import pathlib
import queue
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable

import numpy as np
import torch

import geodiff as gd
from geodiff.readers import apart, child
from geodiff.splines.files import load_splines, save_splines
from geodiff.tasks.clouds import read_cloud_file
from tests.damage import KINDS as KINDS_OF_DAMAGE
from tests.damage import damage
from tests.splines.splines import make

Make = Callable[[pathlib.Path], pathlib.Path]
Load = Callable[[pathlib.Path, bool], None]
_SILENCE = 10.0  # seconds of a worker's silence that are a hang
_TOKENS = [
    b"-1",
    b"0",
    b"1e400",
    b"nan",
    b"-1e308",
    b"999999999999999999999",
    b"1000000000000",
    b"$",
    b"*",
    b"()",
    b"''",
]
_TOKENS += [
    b"#1",
    b"#99999",
    b".T.",
    b"2147483647",
    b"126",
    b"[]",
    b"null",
    b"\xff\xfe",
    b"1.5",
    b"",
    b"\n",
    b";",
    b",",
]
_WORD = re.compile(rb"[^\s,:;()\[\]{}]+")


# Whole files ---------------------------------------------------------------------------------------------------------


def _splines(ending: str) -> Make:
    def write(folder: pathlib.Path) -> pathlib.Path:
        both = [make((5,), (3,)), make((3, 4), (1, 2), 3, True)]
        save_splines(folder / f"a.{ending}", both[1:] if ending == "json" else both)
        return folder / f"a.{ending}"

    return write


def _blocks(folder: pathlib.Path) -> pathlib.Path:
    import rhino3dm as r

    model = r.File3dm()
    model.Settings.ModelUnitSystem = r.UnitSystem.Inches
    segment = r.LineCurve(r.Point3d(0, 0, 0), r.Point3d(1, 0, 0))
    ball = r.Sphere(r.Point3d(0, 0, 0), 2.0).ToNurbsSurface()
    attributes = (r.ObjectAttributes(), r.ObjectAttributes())
    model.InstanceDefinitions.Add("both", "", "", "", r.Point3d(0, 0, 0), (segment, ball), attributes)
    inner = model.InstanceDefinitions.FindName("both") if hasattr(model.InstanceDefinitions, "FindName") else None
    inner = inner or next(iter(model.InstanceDefinitions))
    for x in (1, 2):
        model.Objects.Add(r.InstanceReference(inner.Id, r.Transform.Translation(x, 0, 0)), r.ObjectAttributes())
    model.Objects.AddPoint(1.0, 2.0, 3.0)
    model.Objects.AddBrep(r.Brep.CreateFromCylinder(r.Cylinder(r.Circle(r.Point3d(0, 0, 0), 1.0), 2.0), True, True))
    model.Write(str(folder / "blocks.3dm"), 7)
    return folder / "blocks.3dm"


def _solid(ending: str) -> Make:
    def write(folder: pathlib.Path) -> pathlib.Path:
        from OCP.BRepAlgoAPI import BRepAlgoAPI_Cut
        from OCP.BRepPrimAPI import BRepPrimAPI_MakeBox, BRepPrimAPI_MakeTorus

        from geodiff.readers.occ import quiet
        from tests.splines.test_files_cad import write_shape

        cut = BRepAlgoAPI_Cut(BRepPrimAPI_MakeBox(4.0, 4.0, 4.0).Shape(), BRepPrimAPI_MakeTorus(3.0, 1.0).Shape())
        with quiet():
            write_shape(folder / f"solid.{ending}", cut.Shape())
        return folder / f"solid.{ending}"

    return write


def _las(name: str, version: str, kind: int) -> Make:
    def write(folder: pathlib.Path) -> pathlib.Path:
        import laspy

        header = laspy.LasHeader(point_format=kind, version=version)
        header.offsets, header.scales = np.zeros(3), np.full(3, 1e-3)
        las = laspy.LasData(header)
        las.x, las.y, las.z = np.random.default_rng(0).random((3, 300))
        for axis in ("NormalX", "NormalY", "NormalZ"):
            las.add_extra_dim(laspy.ExtraBytesParams(axis, "f4"))
        las.write(str(folder / name))
        return folder / name

    return write


def _cloud(name: str) -> Make:
    def write(folder: pathlib.Path) -> pathlib.Path:
        path, rows = folder / name, np.random.default_rng(0).random((12, 6))
        if path.suffix == ".npy":
            np.save(path, rows)
        elif path.suffix == ".npz":
            (np.savez_compressed if "packed" in name else np.savez)(path, points=rows[:, :3], normals=rows[:, 3:])
        elif path.suffix == ".obj":
            text = "".join(f"v {x} {y} {z}\nvn {a} {b} {c}\n" for x, y, z, a, b, c in rows.round(3))
            path.write_text(text + "f 1//1 2//2 3//3\nf -1//-1 -2//-2 -3//-3\n")
        elif path.suffix == ".ply":
            from geodiff.tasks.clouds import write_ply

            names = ("x", "y", "z", "nx", "ny", "nz")
            write_ply(path, dict(zip(names, torch.tensor(rows).unbind(1), strict=True)))
        else:
            np.savetxt(path, rows, fmt="%.4f", delimiter=",", header="x,y,z,nx,ny,nz", comments="")
        return path

    return write


def _atlas(folder: pathlib.Path) -> pathlib.Path:
    from geodiff.atlas.charts import Charts

    draw = torch.Generator().manual_seed(0)
    weights = tuple(torch.randn(2, i, o, generator=draw) for i, o in ((2, 4), (4, 3)))
    biases = tuple(torch.randn(2, o, generator=draw) for o in (4, 3))
    turn = torch.eye(3).expand(2, 3, 3).contiguous()
    charts = Charts(weights, biases, torch.rand(2, 2, 3, generator=draw), torch.zeros(2, 3), torch.zeros(2, 3), turn,
                    torch.ones(2))  # fmt: skip
    chart, point = torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2, 2, 3, 4])
    points = torch.rand(5, 3, generator=draw)
    gd.Atlas.of(charts, points, chart, point, torch.rand(6, 2, generator=draw)).save(folder / "atlas.npz")
    return folder / "atlas.npz"


def load_cad(path: pathlib.Path, trusted: bool) -> None:
    for spline in load_splines(path, unsupported="skip", trusted=trusted):
        assert torch.isfinite(spline.control_points).all()


def load_cloud(path: pathlib.Path, trusted: bool) -> None:
    read = read_cloud_file(path, trusted=trusted)
    assert len(read.points) > 0 and read.points.shape[1] == 3


def load_atlas(path: pathlib.Path, trusted: bool) -> None:
    atlas = gd.Atlas.load(path)
    assert torch.isfinite(atlas.fitted_points()).all()


KINDS: dict[str, tuple[Make, Load, str]] = {
    "3dm": (_splines("3dm"), load_cad, "rhino3dm"),
    "3dm-blocks": (_blocks, load_cad, "rhino3dm"),
    "iges": (_splines("igs"), load_cad, "OCP"),
    "iges-solid": (_solid("igs"), load_cad, "OCP"),
    "step": (_splines("step"), load_cad, "OCP"),
    "step-solid": (_solid("step"), load_cad, "OCP"),
    "json": (_splines("json"), load_cad, "torch"),
    "las": (_las("a.las", "1.2", 3), load_cloud, "laspy"),
    "las-1.4": (_las("a.las", "1.4", 6), load_cloud, "laspy"),
    "laz": (_las("a.laz", "1.2", 3), load_cloud, "lazrs"),
    "laz-1.4": (_las("a.laz", "1.4", 6), load_cloud, "lazrs"),
    "npy": (_cloud("a.npy"), load_cloud, "torch"),
    "npz": (_cloud("a.npz"), load_cloud, "torch"),
    "npz-packed": (_cloud("packed.npz"), load_cloud, "torch"),
    "ply": (_cloud("a.ply"), load_cloud, "trimesh"),
    "obj": (_cloud("a.obj"), load_cloud, "torch"),
    "csv": (_cloud("a.csv"), load_cloud, "torch"),
    "atlas": (_atlas, load_atlas, "torch"),
}
QUICK = ("json", "npy", "npz", "npz-packed", "ply", "obj", "csv", "atlas", "las")  # which do not crash


def installed(kinds: list[str]) -> list[str]:
    """Return the kinds whose libraries are here."""
    return [kind for kind in kinds if importlib.util.find_spec(KINDS[kind][2]) is not None]


# Damage --------------------------------------------------------------------------------------------------------------


def spoil(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with some flipped, cut off, moved or repeated, or with words changed; or an archive of such."""
    if data[:2] == b"PK" and rng.random() < 0.7:
        changed = _archive(data, rng)
        if changed is not None:
            return changed
    return damage(data, rng, _TOKENS, _WORD, (*KINDS_OF_DAMAGE, "head"), columns=True)


def _archive(data: bytes, rng: random.Random) -> bytes | None:
    """Damage what is in an archive: its checksums fit again."""
    out = io.BytesIO()
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
            warnings.simplefilter("ignore")  # of two members of one name
            names = old.namelist()
            victim = rng.choice(names)
            for name in names:
                content = old.read(name)
                what = rng.choice(("bytes", "header", "drop", "rename", "dtype")) if name == victim else ""
                if what == "drop":
                    continue
                if what == "bytes":
                    content = spoil(content, rng)
                elif what == "header":
                    content = spoil(content[:128].ljust(128), rng) + content[128:]
                elif what == "dtype":
                    buffer, array = io.BytesIO(), np.load(io.BytesIO(content))
                    kinds = ("f4", "f8", "f2", "i4", "i8", "u1", "?", "c8", "U3")
                    with np.errstate(all="ignore"):
                        np.save(buffer, array.astype(rng.choice(kinds))[..., : rng.choice((None, None, 1))])
                    content = buffer.getvalue()
                new.writestr("x.npy" if what == "rename" else name, content)
    except Exception:  # damaged already
        return None
    return out.getvalue()


@functools.cache
def whole(kind: str) -> tuple[str, bytes]:
    """Return the name and the content of the file of a kind."""
    with tempfile.TemporaryDirectory() as name:
        path = KINDS[kind][0](pathlib.Path(name))
        return path.name, path.read_bytes()


def damaged(kind: str, number: int, folder: pathlib.Path) -> pathlib.Path:
    """Write the file of a case."""
    rng = random.Random(f"{kind} {number}")
    name, data = whole(kind)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        data = spoil(data, rng)
    (folder / name).write_bytes(data)
    return folder / name


def case(kind: str, number: int, folder: pathlib.Path, trusted: bool) -> str | None:
    """Damage a whole file and load it; return what is wrong with the answer, None if nothing is."""
    load, path = KINDS[kind][1], damaged(kind, number, folder)
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            # Ours are fine; those of libraries are not what a user shall read.
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=r"load_splines: ", category=UserWarning)
            load(path, trusted)
    except ValueError as error:
        if "` must be " not in str(error) or path.name not in str(error):
            return f"no name of a file, or not our grammar: {error!r}"
    except Exception as error:
        return f"foreign: {error!r}"
    took = time.perf_counter() - begin
    return f"it took {took:.0f} s" if took > _SILENCE and trusted else None


# Workers -------------------------------------------------------------------------------------------------------------


def work(kind: str, first: int, last: int) -> None:
    """Run cases, saying each number before and what was wrong after it."""
    child.limit(6 << 30, 100_000)
    whole(kind)  # libraries start now
    for number in range(first, last):
        print(f"{number}", flush=True)
        with tempfile.TemporaryDirectory() as name:
            wrong = case(kind, number, pathlib.Path(name), trusted=True)
        print(f"{number} {wrong or 'right'}", flush=True)


def watch(kind: str, first: int, last: int) -> tuple[int, list[tuple[int, str]]]:
    """Run cases in a worker until it ends; return the number of the next, and failures. Crashes are read apart."""
    command = [sys.executable, "-m", "tests.fuzz_cad", "--worker", kind, str(first), str(last)]
    lines: queue.Queue[str | None] = queue.Queue()
    root = pathlib.Path(__file__).parents[1]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, errors="replace"
    ) as process:

        def listen() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=listen, daemon=True).start()
        failures, current = [], first
        patience = 120.0  # until it has started
        while True:
            try:
                line = lines.get(timeout=patience)
            except queue.Empty:
                line = None
            if line is None:
                break
            words = line.strip().split(" ", 1)
            if not words[0].isdigit():
                continue  # a library's
            current, patience = int(words[0]), _SILENCE
            if len(words) == 2:
                current += 1
                if words[1] != "right":
                    failures.append((int(words[0]), words[1]))
        process.kill()
    if current < last:
        with tempfile.TemporaryDirectory() as name:
            wrong = case(kind, current, pathlib.Path(name), trusted=False)
        if wrong:
            failures.append((current, f"read apart: {wrong}"))
        current += 1
    return current, failures


def run(kinds: list[str], seed: int, count: int, keep: pathlib.Path | None = None) -> list[str]:
    """Return the failures of `count` cases, spread over the kinds; those that cannot crash run here."""
    failures = []
    for k, kind in enumerate(kinds):
        first = seed * 1_000_003
        last = first + count // len(kinds) + (k < count % len(kinds))
        found: list[tuple[int, str]] = []
        if kind in QUICK:
            for number in range(first, last):
                with tempfile.TemporaryDirectory() as name:
                    wrong = case(kind, number, pathlib.Path(name), trusted=True)
                found += [(number, wrong)] if wrong else []
        else:
            while first < last:
                first, more = watch(kind, first, last)
                if first < last or more:
                    print(f"{kind} {first - 1}: the worker died", flush=True)
                found += more
        for number, wrong in found:
            failures.append(f"{kind} {number}: {wrong}")
            print(failures[-1], flush=True)
            if keep is not None:
                (keep / f"{kind}-{number}").mkdir(parents=True, exist_ok=True)
                damaged(kind, number, keep / f"{kind}-{number}")
    return failures


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--worker"]:
        work(arguments[1], int(arguments[2]), int(arguments[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--patience", type=int, default=5, help="seconds of computing for a file read apart")
    options = parser.parse_args(arguments)
    apart._SECONDS = (options.patience, 0)
    kinds = installed(options.kind or list(KINDS))
    failures = run(kinds, options.seed, options.count, options.keep)
    print(f"{len(failures)} of {options.count} cases failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
