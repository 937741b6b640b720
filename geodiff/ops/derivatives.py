# SPDX-License-Identifier: Apache-2.0
"""What ops say where their gradient is to be differentiated once more."""

from typing import Any

import torch

from geodiff.ops import _op


def refuse_second(library: torch.library.Library, op: str) -> None:
    """Make it an error, which names the twin, to differentiate ``geodiff::<op>_backward``, the gradient of an op."""

    def refuse(ctx: Any, *_: Any) -> None:
        raise RuntimeError(
            f"geodiff::{op} is not twice differentiable. For second derivatives use geodiff.reference.{op}, which is "
            "plain torch."
        )

    _op.autograd(library, f"{op}_backward", refuse)
