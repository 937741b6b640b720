# SPDX-License-Identifier: Apache-2.0
"""What ops say where their gradient is to be differentiated once more."""

from typing import Any

import torch


def refuse_second(library: torch.library.Library, op: str) -> None:
    """Make it an error, which names the twin, to differentiate ``geodiff::<op>_backward``, the gradient of an op."""

    def refuse(ctx: Any, *_: Any) -> None:
        raise RuntimeError(
            f"geodiff::{op} is not twice differentiable. For second derivatives use geodiff.reference.{op}, which is "
            "plain torch."
        )

    torch.library.register_autograd(f"geodiff::{op}_backward", refuse, lib=library)
