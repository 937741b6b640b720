# SPDX-License-Identifier: Apache-2.0
"""When a fit has found what it will find."""

import math
from typing import Any

from geodiff.tasks.mesh.settings import FitMeshSettings

_GAIN = 1e-3  # of the least loss, that counts as better


class Patience:
    """Look at the records of the steps, and say when the loss has not become less for ``patience`` of them.

    Nothing but the records counts, so a resumed fit ends at the same step.

    Args:
        settings: of the fit.
    """

    def __init__(self, settings: FitMeshSettings) -> None:
        self.settings = settings
        self.least, self.best, self.last = math.inf, 0, 0

    def see(self, record: dict[str, Any]) -> None:
        """Take the record of one step, which counts if the IoU was measured there."""
        if record["iou"] is not None:
            self.last = record["step"]
            loss = record["iou_loss"] if self.settings.loss == "squared" else 1 - record["iou"]
            if loss < (1 - _GAIN) * self.least:
                self.least, self.best = loss, record["step"]

    @property
    def is_over(self) -> bool:
        """Whether to stop: what was not measured since the best is not held to be worse."""
        return self.settings.patience is not None and self.last - self.best >= self.settings.patience
