# SPDX-License-Identifier: Apache-2.0
"""Where the steps of the device script run: on a GPU, or in a rehearsal on the host, by the same lines."""

import contextlib
import dataclasses
import json
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from geodiff.native.gpu import emulated, schedule
from geodiff.ops import _op
from tests.fuzz_ops import bases
from tests.pretend import device as pretend

_AT_MOST = 1.0  # seconds that repeats take, about: a dense twin takes one for a single call
_REHEARSED = ("transport_lse", "vertex_normals", "vertex_normals_backward", "blend#3", "rasterize")
Results = list[torch.Tensor]


@dataclasses.dataclass
class Place:
    """A device, or its rehearsal: one that torch takes for a device, whose kernels are emulated, at tiny sizes."""

    rehearsed: bool
    everything: bool
    out: pathlib.Path

    def prepare(self) -> None:
        """Make the device of a rehearsal, in a process of its own: it stays."""
        if self.rehearsed:
            pretend.register()

    @property
    def device(self) -> torch.device:
        """Where tensors are."""
        return torch.device("pretend" if self.rehearsed else "cuda:0")

    @contextlib.contextmanager
    def on(self, order: str = "forward", seed: int = 0) -> Iterator[None]:
        """Let kernels be the GPU's; in a rehearsal in that order of threads."""
        if not self.rehearsed:
            with torch.cuda.device(self.device):
                yield
            return

        def schedules(name: str, arguments: dict[str, Any]) -> Any:
            with emulated(order, seed):
                return schedule.of(name)(**arguments)

        before, _op._BACKENDS["pretend"] = _op._BACKENDS["pretend"], schedules
        try:
            yield
        finally:
            _op._BACKENDS["pretend"] = before

    def wait(self) -> None:
        """Until the device has done all that it was told."""
        if not self.rehearsed:
            torch.cuda.synchronize()

    def moved(self, op: str, arguments: list[Any]) -> list[Any]:
        """Return an op's arguments on the device, but for those that may stay on the host, where they are read."""
        names = [argument.name for argument in getattr(torch.ops.geodiff, op).default._schema.arguments]

        def move(name: str, value: Any) -> Any:
            stays = name in _op._OF_HOST or f"{op}.{name}" in _op._OF_HOST
            return value if stays or not isinstance(value, torch.Tensor) else value.to(self.device)

        return [move(name, value) for name, value in zip(names, arguments, strict=True)]

    def cases(self, dtype: torch.dtype) -> dict[str, tuple[str, list[Any]]]:
        """Return (op, sound arguments) of every op and its gradient, on the host, by name."""
        found = {name: (without_number(name), arguments) for name, arguments in bases(dtype).items()}
        if self.everything:
            return found
        return {name: found[name] for name in _REHEARSED}

    def write(self, name: str, rows: Any) -> None:
        """Keep results as JSON."""
        (self.out / f"{name}.json").write_text(json.dumps(rows, indent=1))

    def time(self, call: Callable[[], Any], repeats: int = 30) -> dict[str, float]:
        """Return medians in milliseconds: "gpu", of the kernels alone, and "call", of a call that follows the last one.

        For the former, the device is kept busy until all kernels of a call are in its queue; a call that waits for the
        device shows the same time for both.
        """
        repeats = 2 if self.rehearsed else repeats
        with self.on():
            for _ in range(1 if self.rehearsed else 3):
                self.wait()
                before = time.perf_counter()
                call()
            self.wait()
            repeats = min(repeats, 3 + int(_AT_MOST / (time.perf_counter() - before)))
            began = time.perf_counter()
            for _ in range(repeats):
                call()
            self.wait()
            found = {"call": 1e3 * (time.perf_counter() - began) / repeats}
            if self.rehearsed:
                return {"gpu": found["call"], **found}
            gpu: list[float] = []
            behind = int(6e6 * min(max(1.0, found["call"]), 30.0))  # cycles: about three times as long as a call
            for _ in range(repeats):
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda._sleep(behind)
                start.record()
                call()
                end.record()
                self.wait()
                gpu.append(start.elapsed_time(end))
            return {"gpu": statistics.median(gpu), **found}


def without_number(name: str) -> str:
    """Return the op of a name such as ``spline#1True`` or ``fragments_backward#0``."""
    return name.split("#")[0]


def run(op: str, arguments: list[Any]) -> Results:
    """Return the tensors that an op gives."""
    found = getattr(torch.ops.geodiff, op)(*arguments)
    return [found] if isinstance(found, torch.Tensor) else list(found)


def says(row: dict[str, Any]) -> None:
    """Print a row at once: what it is of, then names and values."""
    case, *rest = row.items()
    print(f"{case[1]:<48}", *(value if key == "verdict" else f"{key} {value}" for key, value in rest), flush=True)
