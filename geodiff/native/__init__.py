# SPDX-License-Identifier: Apache-2.0
"""Finds and calls compiled code: the CPU extension, and NVRTC for the GPU."""
