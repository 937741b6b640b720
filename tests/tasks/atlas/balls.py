# SPDX-License-Identifier: Apache-2.0
"""A noisy ball, and settings with which an atlas of it is quick."""

import torch

QUIET = {"progress": False}
NOISE = 0.02
# Charts of a few numbers, in several chunks.
SMALL = {"widths": (16, 16), "steps": 60, "rounds": 2, "chunk": 16, "target": 60, "samples": 2000, **QUIET}
BALL = 1500


def ball(count: int = BALL, noise: float = NOISE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    normals = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64), dim=1)
    return normals + noise * torch.randn(count, 3, generator=generator, dtype=torch.float64)
