# SPDX-License-Identifier: Apache-2.0
"""Looks for functions that the linker would merge across SIMD levels (see cuda/CMakeLists.txt) in a build folder.

Objects of different levels must share no weak function: the linker keeps one copy for all of them, perhaps the one that
this machine's processor cannot run. Prints the names and exits with 1 if there are any.
"""

import itertools
import pathlib
import subprocess
import sys


def weak_functions(objects: list[pathlib.Path]) -> set[str]:
    """Return the demangled names of the weak functions that any of the object files defines."""
    if not objects:
        return set()
    command = ["nm", "--demangle", "--defined-only", "--format=posix", *map(str, objects)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    # "name type address size", where a demangled name may have spaces; a line "file.o:" comes before each object.
    fields = [line.rsplit(maxsplit=3) for line in lines if not line.endswith(":")]
    return {field[0] for field in fields if len(field) == 4 and field[1] == "W"}


def main(build: pathlib.Path) -> int:
    levels = {"baseline": ["_cpu", "isa_baseline"], "v3": ["isa_v3"], "v4": ["isa_v4"]}
    objects = {
        level: [path for target in targets for path in sorted(build.rglob(f"{target}.dir/**/*.o"))]
        for level, targets in levels.items()
    }
    if not objects["baseline"]:
        raise SystemExit(f"no object files under {build}: build the package first (make build)")
    names = {level: weak_functions(paths) for level, paths in objects.items()}
    shared = set().union(*(names[a] & names[b] for a, b in itertools.combinations(levels, 2)))
    for name in sorted(shared):
        print(f"compiled for several SIMD levels under one name: {name}", file=sys.stderr)
    print(f"objects: {', '.join(f'{level} {len(paths)}' for level, paths in objects.items())}; shared: {len(shared)}")
    return 1 if shared else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
