# SPDX-License-Identifier: Apache-2.0
"""An atlas of a surface: overlapping charts fitted to a cloud of points."""
