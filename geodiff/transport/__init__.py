# SPDX-License-Identifier: Apache-2.0
"""Distances between clouds of points."""

from geodiff.transport.chamfer import chamfer, nearest

__all__ = ["chamfer", "nearest"]
