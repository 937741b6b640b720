# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every room's tests share."""

import pathlib
import zlib

import pytest
import torch
from hypothesis import settings

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
