# SPDX-License-Identifier: Apache-2.0
"""Read the points of LAS and LAZ files, through laspy."""

import os
from typing import Any

import numpy as np

from geodiff.readers.shapes import Damaged, Missing

_NORMALS = (("nx", "ny", "nz"), ("normalx", "normaly", "normalz"), ("normal_x", "normal_y", "normal_z"))
NOISE = (7, 18)  # low and high
_LEAST = 20  # bytes of a point in the shortest format
_PACKED = 1e-4  # bytes of a point where it is packed, at the least: real files have some 2 to 10


def read(path: str, noise: bool = False) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the points (N, 3), and normals (N, 3) where the file has them.

    Points of the classes 7 and 18, low and high noise, and withheld ones are left out unless `noise`; the facts say how
    many.
    """
    try:
        import laspy
    except ImportError as error:
        raise Missing("laspy", "laspy") from error
    try:
        with laspy.open(path) as reader:
            header = reader.header
            # The header's count is believed only as far as the file is long.
            least = _PACKED if header.are_points_compressed else max(_LEAST, header.point_format.size)
            if header.point_count * least > os.path.getsize(path):
                raise Damaged(f"its header says {header.point_count} points, more than the file can hold")
            points = reader.read()
            if len(points.points) < header.point_count:
                raise Damaged(f"its header says {header.point_count} points, and it holds {len(points.points)}")
    except laspy.errors.LaspyException as error:
        if "Backend" in str(error):
            raise Missing("lazrs", "laspy[lazrs]") from error
        raise Damaged(str(error)) from error
    names = {name.lower(): name for name in points.point_format.dimension_names}
    arrays = [np.asarray(points.xyz, dtype=np.float64)]
    for trio in _NORMALS:
        if set(trio) <= set(names):
            arrays.append(np.stack([np.asarray(points[names[name]], dtype=np.float64) for name in trio], 1))
            break
    facts: dict[str, Any] = {}
    if not noise:
        loud = np.isin(np.asarray(points.classification), NOISE)
        withheld = np.asarray(points.withheld).astype(bool) & ~loud
        facts = {"noise": int(loud.sum()), "withheld": int(withheld.sum())}
        arrays = [array[~loud & ~withheld] for array in arrays]
    return facts, arrays
