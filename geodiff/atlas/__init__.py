# SPDX-License-Identifier: Apache-2.0
"""A surface from a point cloud: overlapping charts, fitted at once, and the surfaces they hand out."""
