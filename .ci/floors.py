# SPDX-License-Identifier: Apache-2.0
"""Prints the oldest versions that pyproject.toml allows, as requirements: python .ci/floors.py [EXTRA ...].

torch is left out: on most machines its old builds come with gigabytes of CUDA.
"""

import pathlib
import re
import sys

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

REQUIREMENT = re.compile(r"([\w-]+(?:\[\w+\])?)>=([\w.]+)")


def floors(extras: list[str]) -> list[str]:
    """List what the package, and the extras, need at least."""
    project = tomllib.loads((pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    found = [REQUIREMENT.match(requirement) for requirement in wanted]
    return [f"{match[1]}=={match[2]}" for match in found if match and match[1] != "torch"]


if __name__ == "__main__":
    print(*floors(sys.argv[1:]), sep="\n")
