# SPDX-License-Identifier: Apache-2.0
"""Where the kernels' headers are."""

import pathlib


def header_root() -> pathlib.Path:
    """Return the folder of kernel headers: package data in an installed wheel, ``cuda/`` of the checkout otherwise."""
    installed = pathlib.Path(__file__).parents[1] / "cuda"
    return installed if installed.is_dir() else pathlib.Path(__file__).parents[3] / "cuda"
