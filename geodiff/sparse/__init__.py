# SPDX-License-Identifier: Apache-2.0
"""Sparse matrices whose values carry gradients, and systems of them; `implicit.linear` is the name to call."""

from geodiff.sparse.matrix import SparseMatrix
from geodiff.sparse.solve import linear

__all__ = ["SparseMatrix", "linear"]
