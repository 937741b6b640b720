# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of the innermost loops of the GPU's commonest kernels, without a GPU.

Compiles them with NVRTC and reads what cuobjdump and nvdisasm, of the CUDA toolkit, say of the CUBIN. A loop is what a
branch goes back to; what a kernel does for a pair or a point is the loop's length over what a turn takes, all of its
instructions, also those that a turn jumps over, but not calls for what is hardly met (a division of denormal numbers). Prints a table, and times that follow from it at a given rate of
instructions: what a device would need that did nothing else and never waited. Nothing is run.
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
    cubin, _ = compiler.compile_cubin(f'#include "{header}"\n', [name], arch, options=compiler.options_of(header))
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "kernel.cubin")
        file.write_bytes(cubin)
        done = subprocess.run(["cuobjdump", "-sass", str(file)], capture_output=True, text=True, check=True)
    return instructions(done.stdout)


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
        from geodiff.native.gpu.names import COMMON

        for header, name in COMMON:
            if options.loops in name:
                code = disassembled(header, name, options.arch)
                print(f"{name}: {len(code)}")
                for loop in loops(code):
                    print(f"  {loop}")
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
