# SPDX-License-Identifier: Apache-2.0
"""Fit a NURBS surface to points."""
