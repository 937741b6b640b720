# SPDX-License-Identifier: Apache-2.0
"""Splines: NURBS curves, surfaces and volumes with gradients in everything, knots included."""

from geodiff.splines.basis import BSplineBasis
from geodiff.splines.curve import NURBSCurve
from geodiff.splines.knots import greville, knots_to_logits, logits_to_knots, multiplicities, uniform_knots
from geodiff.splines.spline import NURBS
from geodiff.splines.surface import NURBSSurface
from geodiff.splines.volume import NURBSVolume

__all__ = [
    "NURBS",
    "BSplineBasis",
    "NURBSCurve",
    "NURBSSurface",
    "NURBSVolume",
    "greville",
    "knots_to_logits",
    "logits_to_knots",
    "multiplicities",
    "uniform_knots",
]
