# SPDX-License-Identifier: Apache-2.0
"""Calls of kernels that mypy must take or refuse, by geodiff/native/_cpu.pyi: `make types` reads this, nothing runs it.

An ignore that nothing needs is an error, too, so each wrong call must be refused for what it is.
"""

import torch

from geodiff.ops import _op


def calls(x: torch.Tensor) -> None:
    """One that is right, and some that are not."""
    _op.call(_op.kernels.blend_forward, values=x, index=x, weight=x, out=x)
    _op.call(_op.kernels.blend_forward, values=x, index=x, wait=x, out=x)  # type: ignore[call-arg]
    _op.call(_op.kernels.blend_forward, values=x, index=x, weight=x)  # type: ignore[call-arg]
    _op.call(_op.kernels.blend_forward, values=x, index=x, weight=x, out=1)  # type: ignore[arg-type]
    _op.call(_op.kernels.blend_foreward, values=x)  # type: ignore[attr-defined]
