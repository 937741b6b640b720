# SPDX-License-Identifier: Apache-2.0
"""Compiles every kernel header for the GPU without having one: NVRTC for each architecture, nvcc where it is on PATH.

Each header is first compiled alone, which proves that it includes what it uses. Then the kernels are instantiated that
``geodiff.native.gpu.names`` yields as pairs (header, name expression): each distribution and each T-conorm at least
once, or with --full their whole product; by nvcc and for architectures but sm_80 and sm_90, those of float alone. Those
must not spill more than 32 bytes of registers, nor have more than 512 bytes of stack a thread. Prints the log of what
failed and exits with 1. With --table, prints registers and stacks of the commonest kernels as a table instead.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator

from geodiff.native.gpu import compiler
from geodiff.native.gpu.names import COMMON, kernel_names

ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100", "sm_120")
BOTH_REALS = ("sm_80", "sm_90")  # the others compile kernels of float alone
MOST_STACK = 512
MOST_SPILLED = 32  # bytes of a thread: around calls ptxas spills a register or two that it would have room for
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


@dataclasses.dataclass(frozen=True)
class Usage:
    """What a thread of a kernel has, in registers and bytes."""

    registers: int
    stack: int
    spilled: int

    def __str__(self) -> str:
        return f"{self.registers}" + f" + {self.stack} B" * (self.stack > 0)


_USAGE = re.compile(
    r"Function properties for (\S+)\n.*?(\d+) bytes stack frame, (\d+) bytes spill stores.*?Used (\d+) registers", re.S
)


def compiled(root: pathlib.Path, header: str, names: list[str], arch: str) -> dict[str, Usage]:
    """Compile a unit with NVRTC and return what its kernels use."""
    used: dict[str, Usage] = {}
    for options in {compiler.options_of(header, name) for name in names} or {()}:  # a header without kernels, too
        own, log = [name for name in names if compiler.options_of(header, name) == options], list[str]()
        given, source = ["--ptxas-options=-v", *options], f'#include "{header}"\n'
        _, lowered = compiler.compile_cubin(source, own, arch, include=root, options=given, log=log)
        found = {name: Usage(int(r), int(stack), int(spilled)) for name, stack, spilled, r in _USAGE.findall(log[0])}
        used |= {name: found[lowered[name]] for name in own}
    return used


def check_nvrtc(root: pathlib.Path, kernels: Kernels, arch: str) -> list[str]:
    """Compile all units with NVRTC and return one message for each that failed, or that uses too much."""
    failures = []
    for header, names in units(root, kernels, BATCH):
        try:
            used = compiled(root, header, names, arch)
        except RuntimeError as error:
            failures.append(f"{header} {' '.join(names)}: {error}")
            continue
        for name, usage in used.items():
            if "double" not in name and (usage.stack > MOST_STACK or usage.spilled > MOST_SPILLED):
                failures.append(f"{name} for {arch}: {usage.stack} bytes of stack, {usage.spilled} spilled")
    return failures


def table(root: pathlib.Path, architectures: list[str]) -> str:
    """Return registers and stacks of the commonest kernels, as Markdown."""
    by_header = collections.defaultdict(list)
    for header, name in COMMON:
        by_header[header].append(name)
    found: dict[str, list[str]] = {name: [] for _, name in COMMON}
    for arch in architectures:
        for header, names in by_header.items():
            for name, usage in compiled(root, header, names, arch).items():
                found[name].append(str(usage) + f", {usage.spilled} B spilled" * (usage.spilled > 0))
    lines = [f"| kernel | {' | '.join(architectures)} |", f"|---|{'---|' * len(architectures)}"]
    for name, cells in found.items():
        lines.append(f"| `{name.replace('gd::', '')}` | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    parser.add_argument("--arch", nargs="+", default=list(ARCHITECTURES), help="architectures (default: all of ours)")
    parser.add_argument("--root", type=pathlib.Path, default=compiler.header_root(), help="the folder of headers")
    parser.add_argument("--table", action="store_true", help="print registers and stacks instead")
    options = parser.parse_args(arguments)
    if options.table:
        print(table(options.root, options.arch))
        return 0
    kernels = list(kernel_names(options.full))
    count = len(headers(options.root))

    def run(title: str, check: Callable[..., list[str]], arch: str) -> list[str]:
        start = time.perf_counter()
        some = [k for k in kernels if (title == "nvrtc" and arch in BOTH_REALS) or "double" not in k[1]]
        failures = check(options.root, some, arch)
        print(f"{title} {arch}: {count} headers, {len(some)} kernels, {time.perf_counter() - start:.1f} s", flush=True)
        return failures

    runs = [("nvrtc", check_nvrtc, arch) for arch in options.arch]
    if shutil.which("nvcc"):
        runs.insert(0, ("nvcc", check_nvcc, options.arch[0]))
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        failures = [message for found in threads.map(lambda given: run(*given), runs) for message in found]
    for failure in failures:
        print(f"\nFAILED {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
