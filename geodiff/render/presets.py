# SPDX-License-Identifier: Apache-2.0
"""Renderers of the literature as members of this family: what each equals exactly, and what only approximately."""
