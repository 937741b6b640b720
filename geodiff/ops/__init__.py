# SPDX-License-Identifier: Apache-2.0
"""One file a kernel: argument checks, torch.library schema, fake and autograd formulas. Twins: geodiff.reference."""

from geodiff.ops.rasterize import rasterize
from geodiff.ops.silhouette import count_pairs, silhouette

__all__ = ["count_pairs", "rasterize", "silhouette"]
