# SPDX-License-Identifier: Apache-2.0
"""An atlas of a surface: overlapping charts fitted to a cloud of points."""

from geodiff.atlas.atlas import Atlas
from geodiff.atlas.charts import PAPER_WIDTHS, WIDTHS, Charts
from geodiff.atlas.cover import Cover, cover
from geodiff.atlas.fit import fit_charts
from geodiff.atlas.fitted import FittedCharts
from geodiff.atlas.metrics import SurfaceMetrics, surface_metrics
from geodiff.atlas.orient import Oriented, orient
from geodiff.atlas.sample import Samples
from geodiff.atlas.settings import Settings
from geodiff.atlas.watertight import poisson_mesh

__all__ = [
    "PAPER_WIDTHS",
    "WIDTHS",
    "Atlas",
    "Charts",
    "Cover",
    "FittedCharts",
    "Oriented",
    "Samples",
    "Settings",
    "SurfaceMetrics",
    "cover",
    "fit_charts",
    "orient",
    "poisson_mesh",
    "surface_metrics",
]
