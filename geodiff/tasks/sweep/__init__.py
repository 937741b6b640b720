# SPDX-License-Identifier: Apache-2.0
"""Run a job for many renderers, τ and learning rates."""

from geodiff.tasks.sweep.job import sweep
from geodiff.tasks.sweep.result import SweepResult

__all__ = ["SweepResult", "sweep"]
