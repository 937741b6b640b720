# SPDX-License-Identifier: Apache-2.0
"""Look at meshes and turn them: in the browser, or in a notebook."""

from geodiff.tasks.view.page import Display, display, view

__all__ = ["Display", "display", "view"]
