# SPDX-License-Identifier: Apache-2.0
"""Recover a mesh from posed images of its silhouette."""
