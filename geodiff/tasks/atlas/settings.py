# SPDX-License-Identifier: Apache-2.0
"""The settings of fit_atlas."""

from dataclasses import dataclass

from geodiff.validation import integer

_WHERE = "fit_atlas"


@dataclass(frozen=True)
class Outputs:
    """What to make of the atlas."""

    samples: int
    refine: int
    watertight: bool
    depth: int
    open_boundaries: bool

    def __post_init__(self) -> None:
        for name, low, high in (("samples", 100, 10**8), ("refine", 0, 4), ("depth", 1, 14)):
            value = getattr(self, name)
            integer(_WHERE, name, value, low, high)
