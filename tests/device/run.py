# SPDX-License-Identifier: Apache-2.0
"""All that wants a GPU, in one command of at most eight minutes; results come as they are found.

    python -m tests.device.run                       # all steps, into $OUT, or out/device
    STEPS="smoke bench" python -m tests.device.run   # some
    GEODIFF_REHEARSE=1 python -m tests.device.run    # on the host, emulated, tiny; =all for every op

Each step is a process of its own that ends with its time. Where the extension is not built, it is; a folder of wheels
in $WHEELS is installed first. The last thing printed is a table of the steps; the exit status is 1 if one failed.
"""

import importlib
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
LIMIT = 470  # seconds, of all steps together
STEPS = {
    "env": 30, "smoke": 120, "tests": 150, "repeat": 60, "streams": 40, "faults": 30, "graph": 60, "sanitize": 120,
    "bench": 140,
}  # fmt: skip
"""Steps, and the seconds that each may take."""
SANITIZERS = ("memcheck", "racecheck", "synccheck")


def build() -> None:
    """Make sure that the extension is there: as it is, out of a build folder that came along, or built here."""
    if wheels := os.environ.get("WHEELS"):
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
        subprocess.run([*command, *map(str, sorted(pathlib.Path(wheels).glob("*.whl")))], check=False)
    if is_built():
        return
    for carried in ROOT.glob("build/*/_cpu*.so"):
        copied = ROOT / "geodiff" / "native" / carried.name
        shutil.copy(carried, copied)
        if is_built():
            return
        copied.unlink()
    if "GEODIFF_BUILT" not in os.environ:
        print("Building the extension", flush=True)
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "-e", str(ROOT)]
        subprocess.run(command, check=False, timeout=200)
        os.environ["GEODIFF_BUILT"] = "1"
        os.execv(sys.executable, [sys.executable, "-m", "tests.device.run"])  # which finds what was installed


def is_built() -> bool:
    """Whether the extension can be imported."""
    importlib.invalidate_caches()
    try:
        importlib.import_module("geodiff.native._cpu")
    except ImportError as error:
        print(f"The extension: {error}", flush=True)
        return False
    return True


def env(place: Any) -> int:
    """What is here; fails without a device."""
    import torch

    text = f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{text} for CUDA {torch.version.cuda}", flush=True)
    if shutil.which("nvidia-smi"):
        subprocess.run(["nvidia-smi"], check=False, timeout=20)
    subprocess.run([sys.executable, "-m", "geodiff", "info"], check=False, cwd=ROOT, timeout=25)
    if place.rehearsed:
        return 0
    if not torch.cuda.is_available():
        print("There is no CUDA device that torch can use.")
        return 1
    print(torch.cuda.get_device_properties(place.device))
    return 0


def tests(place: Any) -> int:
    """The ops' tests on the device."""
    some = ["tests/ops/test_normals_op.py"] if place.rehearsed else ["tests/ops", "--maxfail=20"]
    workers = str(max(4, (os.cpu_count() or 4) - 2))  # compiling kernels is most of it
    many = ["-n", workers] if not place.rehearsed and importlib.util.find_spec("xdist") else []
    # Other packages of that Python may warn.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-m", "cuda", "-p", "no:cacheprovider"]
    status = subprocess.run([*command, *many, *some], cwd=ROOT, check=False).returncode
    return int(status != 0)


def sanitize(place: Any) -> int:
    """compute-sanitizer on the smoke list, where it is installed; in as many processes as there are cores."""
    tool = shutil.which("compute-sanitizer")
    if not tool:
        print("compute-sanitizer is not installed: nothing was looked at.")
        return 0
    failed, many = 0, min(16, os.cpu_count() or 1)
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # so that each tensor has bounds of its own
    for name in SANITIZERS:
        # Calls of the driver's that answer with an error are no faults: the bindings ask it for what old ones lack.
        command = ["timeout", "40", tool, "--tool", name, "--error-exitcode", "9", "--print-limit", "5"]
        command += ["--report-api-errors", "no"] * (name == "memcheck")
        command += [sys.executable, "-m", "tests.device.checks"]
        parts = [subprocess.Popen([*command, str(i), str(many)], cwd=ROOT, env=environment) for i in range(many)]
        found = [part.wait() for part in parts]
        late, bad = found.count(124), sum(code not in (0, 124) for code in found)
        print(f"{name}: {bad} of {many} parts with faults, {late} not to their end in 40 s", flush=True)
        failed += bad
    return failed


def child(step: Callable[[Any], int], name: str, place: Any) -> None:
    """Run a step; what it prints goes to a file, too."""
    os.setpgrp()  # so that its end ends what it started
    with subprocess.Popen(["tee", str(place.out / f"{name}.txt")], stdin=subprocess.PIPE) as tee:
        assert tee.stdin is not None
        kept = os.dup(1), os.dup(2)
        for stream in (1, 2):
            os.dup2(tee.stdin.fileno(), stream)
        sys.stdout = open(1, "w", buffering=1, closefd=False)
        try:
            place.prepare()
            failed = step(place)
        except BaseException as error:  # the step is to be told of, whatever it was
            print(f"FAILED {type(error).__name__}: {error}", flush=True)
            failed = 1
        sys.stdout.flush()
        for saved, stream in zip(kept, (1, 2), strict=True):
            os.dup2(saved, stream)
        tee.stdin.close()
    os._exit(min(failed, 100))


def main() -> int:
    began, rehearse = time.perf_counter(), os.environ.get("GEODIFF_REHEARSE", "")
    out = pathlib.Path(os.environ.get("OUT") or ROOT / "out" / "device").resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = os.environ.get("STEPS", "").split() or list(STEPS)
    if unknown := set(wanted) - set(STEPS):
        print(f"There is no step {', '.join(sorted(unknown))}; there are {', '.join(STEPS)}.", file=sys.stderr)
        return 2
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # or a look for devices would bind them to this process
    build()
    from tests.device import bench, checks  # torch and geodiff, once for all steps, before any of them meets the device
    from tests.device.place import Place

    place = Place(bool(rehearse), rehearse != "1", out)
    found: dict[str, Callable[[Any], int]] = {"env": env, "tests": tests, "sanitize": sanitize, "bench": bench.bench}
    rows, slow = [], 4 if rehearse else 1  # the host compiles kernels for itself, and may have other work
    for name in wanted:
        left = slow * LIMIT - (time.perf_counter() - began)
        step = found.get(name) or getattr(checks, name)
        print(f"\n=== {name}: {(step.__doc__ or name).splitlines()[0]}", flush=True)
        start = time.perf_counter()
        process = get_context("fork").Process(target=child, args=(step, name, place))
        process.start()
        process.join(max(1.0, min(slow * STEPS[name], left)) if rehearse != "all" else None)
        code = process.exitcode
        if code is None:
            os.killpg(process.pid or 0, 9)
            process.join()
        status = "passed" if code == 0 else "out of time" if code is None else f"failed ({code})"
        rows.append({"step": name, "status": status, "seconds": round(time.perf_counter() - start, 1)})
        (out / "steps.json").write_text(json.dumps(rows, indent=1))
        if name == "env" and code:
            break
    print(f"\n{'step':10} {'seconds':>8} status, on {'the host, emulated' if rehearse else 'the device'}")
    for row in rows:
        print(f"{row['step']:10} {row['seconds']:8} {row['status']}")
    print(f"Everything is in {out}.")
    return int(any(row["status"] != "passed" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
