# SPDX-License-Identifier: Apache-2.0
"""Writes geodiff/native/_cpu.pyi, the types of the compiled extension, from the extension: python .ci/stubs.py.

nanobind says what the bindings take. Here its arrays become `Array`, whatever their dtype, as which the overloads for
float and double are one and the same.
"""

import ast
import pathlib
import subprocess
import sys

from nanobind.stubgen import StubGen

from geodiff.native import cpu

PATH = pathlib.Path(__file__).parents[1] / "geodiff" / "native" / "_cpu.pyi"
HEAD = '''# SPDX-License-Identifier: Apache-2.0
"""Types of the compiled extension (cuda/cpu/bind_*.cpp), written by `make stubs`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray
from torch import Tensor

Array: TypeAlias = Tensor | NDArray[Any]
'''


class _Arrays(ast.NodeTransformer):
    """Turns each annotated array into `Array`."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        annotated = isinstance(node.value, ast.Name) and node.value.id == "Annotated"
        return ast.Name("Array") if annotated else self.generic_visit(node)


def stubs() -> str:
    """Return the stub file's text, not yet formatted."""
    generator = StubGen(cpu.extension())
    generator.put(cpu.extension())
    parts: dict[str, None] = {}  # in order, each once
    for node in ast.parse(generator.get()).body:
        if isinstance(node, ast.FunctionDef):
            node.decorator_list = []  # @overload
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            parts[ast.unparse(ast.fix_missing_locations(_Arrays().visit(node)))] = None
    return HEAD + "\n\n" + "\n".join(parts) + "\n"


def is_current() -> bool:
    """Whether the file says what the extension does, however it is formatted."""
    written = ast.parse(PATH.read_text(encoding="utf-8"))
    return ast.dump(written) == ast.dump(ast.parse(stubs()))


if __name__ == "__main__":
    PATH.write_text(stubs(), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "ruff", "format", "-q", str(PATH)], check=True)
