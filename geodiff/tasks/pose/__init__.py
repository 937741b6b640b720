# SPDX-License-Identifier: Apache-2.0
"""Recover the pose of a camera from one image of a known mesh."""
