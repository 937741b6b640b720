# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel header for the GPU without having one: NVRTC for each architecture, nvcc where it is on PATH.

Each header is first compiled alone, which proves that it includes what it uses. Then the kernels are instantiated that
``geodiff.native.gpu.names`` yields as pairs (header, name expression): each distribution and each T-conorm at least
once, or with --full their whole product. Prints the compiler's log of whatever failed and exits with 1.
"""

import argparse
import collections
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator

from geodiff.native.gpu import compiler
from geodiff.native.gpu.names import kernel_names

BATCH = 32  # kernels in one NVRTC program: few enough that a log stays readable

Kernels = Iterable[tuple[str, str]]


def headers(root: pathlib.Path) -> list[str]:
    """List the headers under ``root`` that a GPU compiler sees: not those of ``cpu/`` and ``emulated/``."""
    found = (path.relative_to(root) for path in root.rglob("*.h"))
    return sorted(path.as_posix() for path in found if path.parts[0] not in ("cpu", "emulated"))


def units(root: pathlib.Path, kernels: Kernels, batch: int) -> Iterator[tuple[str, list[str]]]:
    """Yield translation units (header, kernels to instantiate): each header alone, then its kernels in batches."""
    for header in headers(root):
        yield header, []
    by_header = collections.defaultdict(list)
    for header, name in kernels:
        by_header[header].append(name)
    for header, names in by_header.items():
        for start in range(0, len(names), batch):
            yield header, names[start : start + batch]


def check_nvrtc(root: pathlib.Path, kernels: Kernels, arch: str) -> list[str]:
    """Compile all units with NVRTC and return one message for each that failed."""
    failures = []
    for header, names in units(root, kernels, BATCH):
        try:
            compiler.compile_cubin(f'#include "{header}"\n', names, arch, include=root)
        except RuntimeError as error:
            failures.append(f"{header} {' '.join(names)}: {error}")
    return failures


def check_nvcc(root: pathlib.Path, kernels: Kernels, arch: str) -> list[str]:
    """Compile all units with nvcc, one for each header, and return one message for each that failed."""
    merged: dict[str, list[str]] = {}
    for header, names in units(root, kernels, sys.maxsize):
        merged[header] = names  # the unit with kernels comes after the one without
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        source, cubin = pathlib.Path(folder, "unit.cu"), pathlib.Path(folder, "unit.cubin")
        for header, names in merged.items():
            # Taking a kernel's address on the host makes nvcc instantiate it.
            table = "".join(f"  (const void*)&{name},\n" for name in names)
            source.write_text(f'#include "{header}"\n' + (f"const void* kernels[] = {{\n{table}}};\n" if names else ""))
            command = ["nvcc", "-cubin", f"-arch={arch}", "-std=c++17", "-I", str(root), "-o", str(cubin), str(source)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                failures.append(f"{header} (nvcc, {arch}):\n{done.stdout}{done.stderr}")
    return failures


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="every distribution with every T-conorm")
    parser.add_argument("--arch", nargs="+", default=["sm_80", "sm_90"], help="architectures (default: sm_80 sm_90)")
    parser.add_argument("--root", type=pathlib.Path, default=compiler.header_root(), help="the folder of headers")
    options = parser.parse_args(arguments)
    kernels = list(kernel_names(options.full))
    work = f"{len(headers(options.root))} headers, {len(kernels)} kernels"
    runs = [("nvrtc", check_nvrtc, arch) for arch in options.arch]
    if shutil.which("nvcc"):
        runs.append(("nvcc", check_nvcc, options.arch[0]))
    failures = []
    for title, check, arch in runs:
        start = time.perf_counter()
        failures += check(options.root, kernels, arch)
        print(f"{title} {arch}: {work}, {time.perf_counter() - start:.1f} s", flush=True)
    for failure in failures:
        print(f"\nFAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
