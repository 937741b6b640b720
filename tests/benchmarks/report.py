# SPDX-License-Identifier: Apache-2.0
"""What scripts beside this share: rows on the screen, and a command line of parts whose rows are written as JSON."""

import argparse
import json
import pathlib
import platform
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd
from geodiff.native import cpu


def show(row: dict) -> None:
    """Print a row, numbers with three digits."""
    print({k: float(f"{v:.3g}") if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def machine() -> dict[str, Any]:
    """Return what times depend on."""
    return {
        "machine": platform.processor() or platform.machine(),
        "simd": cpu.simd_level(),
        "torch": torch.__version__,
        "geodiff": gd.__version__,
    }


def measure(doc: str | None, parts: dict[str, Callable[[list[int]], Any]]) -> None:
    """Run the parts that the command line names, each with the numbers of threads, and write their rows."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(parts), help=", ".join(parts))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("-o", "--output", type=pathlib.Path)
    options = parser.parse_args()
    result = machine()
    for part in options.parts:
        print(f"--- {part}", flush=True)
        result[part] = parts[part](options.threads)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n")
