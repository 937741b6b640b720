# SPDX-License-Identifier: Apache-2.0
"""What the readers of files of splines share: what was read so far, what was left out, and what is missing."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from geodiff.readers.shapes import Missing
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.nurbs_volume import NURBSVolume
from geodiff.splines.spline import NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.validation import fail

_LOAD = "load_splines"
KINDS: dict[str, type[NURBS]] = {"curve": NURBSCurve, "surface": NURBSSurface, "volume": NURBSVolume}


class Reading:
    """What has been read of one file so far, and what happens to what cannot be read.

    Args:
        path: the file, for messages.
        dtype: of the splines.
        skip: pass over what is unsupported, with a warning, rather than raise.
    """

    def __init__(self, path: pathlib.Path, dtype: torch.dtype, skip: bool) -> None:
        self.path = path
        self.dtype = dtype
        self.skip = skip
        self.splines: list[NURBS] = []
        self.refused: list[tuple[str, str, str]] = []
        self.notes: list[str] = []

    def add(self, label: str, points: Any, weights: Any, knots: Sequence[Any], degree: Sequence[int]) -> None:
        """Keep a spline: control points `(K…, D)`, weights `(K…)` or None; the number of knot vectors says its kind."""
        kind: Any = tuple(KINDS.values())[len(knots) - 1]
        try:
            tensors = [torch.as_tensor(np.asarray(k, dtype=np.float64)) for k in knots]
            weights = None if weights is None else torch.as_tensor(np.asarray(weights, dtype=np.float64))
            points = torch.as_tensor(np.asarray(points, dtype=np.float64))
            vectors: Any = {1: tensors[:1], 2: tensors, 3: [tensors]}[len(tensors)]
            spline = kind(points, *vectors, weights=weights, degree=tuple(degree)).to(dtype=self.dtype)
        except (ValueError, TypeError) as error:
            raise self.damaged(f"{label}: {error}") from error
        self.splines.append(spline)

    def refuse(self, what: str, label: str, fix: str) -> None:
        """Pass over something unsupported, or raise: what it is, where it is, what to do about it."""
        if not self.skip:
            hint = f'{fix} Or pass unsupported="skip" to leave it out.'
            got = f"{self.path} with {label}: {what}"
            raise fail(_LOAD, "path", "a file of NURBS curves, surfaces and volumes", got, hint)
        self.refused.append((what, label, fix))

    def warnings(self) -> list[str]:
        """Return what is to be said about the file: one text about all that was left out."""
        texts = [f"{_LOAD}: of {self.path}: {note}." for note in self.notes]
        if self.refused:
            labels_of: dict[tuple[str, str], list[str]] = {}
            for what, label, fix in self.refused:
                labels_of.setdefault((what, fix), []).append(label)
            kinds = [
                f"{what} ({labels[0]}{f', and {len(labels) - 1} more' if labels[1:] else ''}). {fix}"
                for (what, fix), labels in labels_of.items()
            ]
            total = len(self.refused) + len(self.splines)
            texts.append(f"{_LOAD}: left out {len(self.refused)} of {total} parts of {self.path}: {' '.join(kinds)}")
        return texts

    def damaged(self, reason: str) -> Exception:
        """Build the error for a file that is not sound."""
        return fail(_LOAD, "path", "a sound file", f"{self.path} ({reason})", "Is the file damaged?")


def needed(missing: Missing, path: pathlib.Path) -> Exception:
    """Build the error for a library that is missing."""
    distribution, module = missing.needs
    text = f'{path.suffix} files need {distribution} ({module}), which is not installed: pip install "geodiff[cad]"'
    return ImportError(f"geodiff.splines: {text}, or use .json.")
