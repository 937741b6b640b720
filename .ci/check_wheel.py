# SPDX-License-Identifier: Apache-2.0
"""Checks what a built wheel holds: python .ci/check_wheel.py dist/geodiff-*.whl."""

import pathlib
import sys
import zipfile

LIMIT = 6_000_000  # bytes; 5.1 MB with the kernels of charts at each SIMD level


def problems(wheel: pathlib.Path, checkout: pathlib.Path) -> list[str]:
    """List what is wrong with the wheel of this checkout."""
    names = set(zipfile.ZipFile(wheel).namelist())
    cuda = checkout / "cuda"
    headers = {path.relative_to(cuda).as_posix() for path in cuda.rglob("*.h")}
    wanted = {f"geodiff/native/cuda/{header}" for header in headers if not header.startswith("cpu/")}
    wanted |= {path.relative_to(checkout).as_posix() for path in (checkout / "geodiff").rglob("*.py")}
    wanted |= {"geodiff/members.def", "geodiff/py.typed", "geodiff/native/_cpu.abi3.so"}
    found = [f"lacks {name}" for name in sorted(wanted - names)]
    if not any(name.endswith(".dist-info/licenses/LICENSE") for name in names):
        found.append("lacks the licence")
    if "-cp310-abi3-" not in wheel.name:
        found.append("is not tagged cp310-abi3")
    if wheel.stat().st_size > LIMIT:
        found.append(f"has more than {LIMIT} bytes")
    return found + [f"has {name}" for name in sorted(names) if name.startswith(("tests/", "cuda/", "assets/"))]


if __name__ == "__main__":
    wheel = pathlib.Path(sys.argv[1])
    found = problems(wheel, pathlib.Path(__file__).parents[1])
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB")
    sys.exit("\n".join(f"{wheel.name} {problem}" for problem in found) or 0)
