# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of the GPU's commonest kernels, and what time follows from them, without a GPU.

Compiles them with NVRTC and reads what cuobjdump and nvdisasm, of the CUDA toolkit, say of the CUBIN. A loop is what a
branch goes back to. A pair or a point takes as many instructions as the loop has over what a turn does; where there is
no such loop, as many as the kernel has, with its search of knots in six turns. All count, those that a turn jumps over
too, but not calls for what is hardly met, as divisions of denormal numbers. The time is that of a card that issues
nothing else and never waits. With --loops NAME, prints the innermost loops of kernels instead. Nothing is run.
"""

import argparse
import dataclasses
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from geodiff.native.gpu import compiler
from geodiff.native.gpu.names import COMMON

SEARCH = 6  # turns of a search of 64 knots
RATE = 132 * 128 * 1.755e9
"""Instructions of single threads a second: an H100 or H200 (SXM), 132 multiprocessors of 128 lanes."""

_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);")


@dataclasses.dataclass(frozen=True)
class Loop:
    """Addresses of the first instruction and of the branch back, and how many instructions that is, by kind."""

    first: int
    last: int
    count: int
    double: int  # double precision
    special: int  # exp2, log2, reciprocals, roots
    loads: int


def instructions(sass: str) -> list[tuple[int, str, str]]:
    """Return address, operation and operands of each instruction."""
    found = [_LINE.match(line) for line in sass.splitlines()]
    return [(int(m[1], 16), m[2], m[3]) for m in found if m and m[2] != "NOP"]


def loops(code: list[tuple[int, str, str]]) -> list[Loop]:
    """Return the innermost loops: those with no other inside."""
    spans = set()
    for address, operation, operands in code:
        target = re.search(r"0x([0-9a-f]+)\s*$", operands.strip().rstrip(")"))
        if operation.split(".")[0] == "BRA" and target and int(target[1], 16) < address:
            spans.add((int(target[1], 16), address))
    inner = [s for s in spans if not any(o != s and s[0] <= o[0] and o[1] <= s[1] for o in spans)]
    return [_loop(code, *span) for span in sorted(inner)]


def without_calls(code: list[tuple[int, str, str]]) -> list[tuple[int, str, str]]:
    """Leave out what lies between the branch before a call and the one after it."""
    calls = [i for i, (_, operation, _) in enumerate(code) if operation.startswith("CALL")]
    left = set()
    for call in calls:
        branches = [range(call, -1, -1), range(call, len(code))]
        first, last = (next((i for i in side if code[i][1].startswith("BRA")), call) for side in branches)
        left.update(range(first + 1, last + 1))
    return [one for i, one in enumerate(code) if i not in left]


def _loop(code: list[tuple[int, str, str]], first: int, last: int) -> Loop:
    inside = [one for one in code if first <= one[0] <= last]
    names = [operation.split(".")[0] for _, operation, _ in without_calls(inside)]
    kinds = [("DADD", "DMUL", "DFMA", "DSETP", "F2F"), ("MUFU",), ("LDG", "LDS", "LDC", "LDL", "LD")]
    return Loop(first, last, len(names), *(sum(name in kind for name in names) for kind in kinds))


def disassembled(header: str, name: str, arch: str) -> list[tuple[int, str, str]]:
    """Compile a kernel and return its instructions."""
    cubin, _ = compiler.compile_cubin(f'#include "{header}"\n', [name], arch, options=compiler.options_of(header, name))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        done = subprocess.run(["cuobjdump", "-sass", str(file)], capture_output=True, text=True, check=True)
    return instructions(done.stdout)


SOFT = "gd::silhouette_{}<float, gd::Law<gd::Logistic, false>, gd::Probabilistic, false, gd::FaceCoverage{}>"
POINTS = "float, gd::Degrees<3, 3>, 4, true"
SILHOUETTE, HARD, TRANSPORT = "raster/silhouette.h", "raster/hard_kernels.h", "transport/kernels.h"
SPLINE, SUMS = "spline/point_kernels.h", "spline/sum_kernels.h"
# Kernel; its longest innermost loop, or the longest with some kind of instruction, or None for all; what a turn does.
KERNELS = {
    "silhouette forward, a pair": (SILHOUETTE, SOFT.format("forward", ""), "special", 1),
    "silhouette backward, a pair": (SILHOUETTE, SOFT.format("backward", ", 0"), "special", 1),
    "hard raster, a face": (HARD, "gd::hard_setup<float, 0>", None, 1),
    "hard raster, a pixel of a face's box": (HARD, "gd::hard_setup<float, 0>", "longest", 1),
    "hard raster, a pixel of the image": (HARD, "gd::hard_resolve<float>", None, 1),
    "bicubic spline, D 4, a point": (SPLINE, f"gd::spline_forward<{POINTS}, false>", None, 1),
    "the same backward, a point": (SPLINE, f"gd::spline_backward_points<{POINTS}>", None, 1),
    "the same, four sums of a point": (SUMS, "gd::spline_chunks<float, 2>", "loads", 2),
    "transport, log-sum-exp, 3-D, a pair": (TRANSPORT, "gd::transport_lse<float, 3, 2>", "special", 32),
    "transport, apply, 3-D, eight columns, a pair": (
        TRANSPORT,
        "gd::transport_apply<float, 3, 2, false>",
        "special",
        16,
    ),
}
# Of a pair within the radius, a warp's lanes evaluate 2.0 in the forward pass, and 1.3 in the backward one (counted on
# the CPU). A chunk's 64 control sums and 12 of windows are 20 quads of a point.
SOFT_WORK = {"silhouette forward, a pair": 2.0, "silhouette backward, a pair": 1.3}
FIGURES = {
    "silhouette, forward and backward, 256², 20 480 faces, τ = ½ pixel": (0.25, 7.4e6, SOFT_WORK),
    "the same, 24 × 64², 1 280 faces, τ = 1e-2": (0.15, 3.9e6, SOFT_WORK),
    "the same, 512², 20 480 faces, τ = ½ pixel": (0.3, 9.1e6, SOFT_WORK),
    "the same, 1024², 82 k faces, τ = ¼ pixel": (0.5, 1.4e7, SOFT_WORK),
    "hard raster, 100 k faces, 1024²": (0.1, 1e5, {
        "hard raster, a face": 1, "hard raster, a pixel of a face's box": 30, "hard raster, a pixel of the image": 10.5,
    }),
    "spline, 1 M scattered points, bicubic, forward": (0.03, 1e6, {"bicubic spline, D 4, a point": 1}),
    "the same, all gradients, without the sort": (0.25, 1e6, {
        "the same backward, a point": 1, "the same, four sums of a point": 20,
    }),
    "Sinkhorn, 10 k × 10 k, 3-D, an iteration": (0.25, 2e8, {"transport, log-sum-exp, 3-D, a pair": 1}),
    "the same, 100 k × 100 k": (20, 2e10, {"transport, log-sum-exp, 3-D, a pair": 1}),
}  # fmt: skip


def counted(code: list[tuple[int, str, str]], which: str | None, turn: int) -> float:
    """Return instructions of a unit of work: of a loop's turn, or of all of a kernel."""
    found = loops(code)
    if which is None:
        searches = [loop for loop in found if loop.count <= 20 and loop.loads == 1]
        return len(without_calls(code)) + (SEARCH - 1) * sum(loop.count for loop in searches)
    if which == "longest":
        return max(loop.count for loop in found) / turn
    return max(found, key=lambda loop: (getattr(loop, which) > 0 and loop.double == 0, loop.count)).count / turn


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--loops", metavar="NAME", help="all innermost loops of the kernels with this in their names")
    options = parser.parse_args(arguments)
    for tool in ("cuobjdump", "nvdisasm"):
        if not shutil.which(tool):
            print(f"{tool} is not on PATH: it comes with the CUDA toolkit, and as nvidia-cuda-{tool} from PyPI")
            return 1
    if options.loops:
        for header, name in COMMON:
            if options.loops in name:
                code = disassembled(header, name, options.arch)
                print(f"{name}: {len(code)}", *loops(code), sep="\n  ")
        return 0
    found = {}
    print(f"| what | instructions, {options.arch} |\n|---|---|")
    for title, (header, name, which, turn) in KERNELS.items():
        found[title] = counted(disassembled(header, name, options.arch), which, turn)
        print(f"| {title} | {found[title]:.0f} |")
    print("\n| figure | wanted, ms | of instructions alone, ms |\n|---|---|---|")
    for title, (wanted, units, work) in FIGURES.items():
        time = 1e3 * units * sum(found[part] * times for part, times in work.items()) / RATE
        print(f"| {title} | {wanted} | {time:.2g} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
