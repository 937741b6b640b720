# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every room's tests share."""

import os
import pathlib
import zlib
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

from geodiff.native.gpu import emulated
from geodiff.native.gpu.schedule import spline
from geodiff.ops import _op
from tests.device.through import through

settings.register_profile("geodiff", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("geodiff")

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(autouse=True)
def seeded(request: pytest.FixtureRequest) -> None:
    """Give every test its own fixed seed, so that its numbers do not depend on which tests ran before it."""
    torch.manual_seed(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture
def shared_data() -> pathlib.Path:
    """Return the folder of real data kept beside the checkout, or skip where there is none."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not kept in this repository")
    return SHARED


NEEDED = "needs an NVIDIA GPU, and torch built for it"
CUDA = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDED)]
BACKENDS = ["cpu", "emulated", pytest.param("cuda", marks=CUDA)]
ORDERS = os.environ.get("GEODIFF_ORDERS", "forward").split()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test's rows under emulation keep each 23rd (odd and even ones), unless GEODIFF_ORDERS asks for all."""
    if "GEODIFF_ORDERS" in os.environ:
        return
    met: dict[str, int] = {}
    left = []
    for item in items:
        rows = getattr(item, "callspec", None)
        kind = rows.params.get("backend") if rows is not None else None
        skipped = kind == "cuda" and not torch.cuda.is_available()
        if kind == "emulated" or skipped or (rows is not None and "test_gpu_family" in item.nodeid):
            name = item.nodeid.split("[")[0] + f" {kind}"
            met[name] = met.get(name, -1) + 1
            if met[name] % 23:
                left.append(item)
    config.hook.pytest_deselected(items=left)
    dropped = set(map(id, left))
    items[:] = [item for item in items if id(item) not in dropped]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Let tensors go through the CPU's kernels, through the GPU's on the host, and on a GPU where there is one."""
    if request.param == "cuda":
        monkeypatch.setitem(_op._BACKENDS, "cpu", through(torch.device("cuda", torch.cuda.current_device())))
        yield "cuda"
    elif request.param == "emulated":
        torch.use_deterministic_algorithms(
            True
        )  # fills what is not written with NaN, and refuses what is not repeatable
        if "GEODIFF_ORDERS" not in os.environ:
            monkeypatch.setattr(spline, "OWN_DEGREES", frozenset({2, 3}))  # compilers take seconds for each
        with emulated(ORDERS[zlib.crc32(request.node.nodeid.encode()) % len(ORDERS)]):
            yield "emulated"
        torch.use_deterministic_algorithms(False)
    else:
        yield "cpu"
