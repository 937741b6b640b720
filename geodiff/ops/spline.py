# SPDX-License-Identifier: Apache-2.0
"""Splines: for now the twin."""

from geodiff.reference.spline import basis, find_span, spline, spline_grid

__all__ = ["basis", "find_span", "spline", "spline_grid"]
