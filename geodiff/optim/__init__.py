# SPDX-License-Identifier: Apache-2.0
"""Where a gradient is bad or missing: targets in place of gradients, and gradients from samples of a function."""

from geodiff.optim.estimators import SmoothedGradient, blackbox, fenchel_young, smoothed, smoothed_gradient
from geodiff.optim.split import gradient_target, newton_target, resgro_target, split_loss, split_step

__all__ = [
    "SmoothedGradient",
    "blackbox",
    "fenchel_young",
    "gradient_target",
    "newton_target",
    "resgro_target",
    "smoothed",
    "smoothed_gradient",
    "split_loss",
    "split_step",
]
