# SPDX-License-Identifier: Apache-2.0
"""Recover a surface from a cloud of points."""
