# SPDX-License-Identifier: Apache-2.0
"""Open3D's screened Poisson reconstruction; run as a program, in a process of its own: arrays in, arrays out.

Nothing of geodiff is imported here, so that the process is there at once.
"""

import io
import os
import sys
import types
from typing import Any, BinaryIO

import numpy as np


def reconstruct(
    open3d: Any, places: np.ndarray, normals: np.ndarray, depth: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return Open3D's vertices (V, 3) and faces (F, 3), as they are, through places (N, 3) with normals (N, 3)."""
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(places)
    cloud.normals = open3d.utility.Vector3dVector(normals / np.linalg.norm(normals, axis=1, keepdims=True))
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        found, _ = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth, n_threads=threads)
    return np.asarray(found.vertices), np.asarray(found.triangles).astype(np.int64).reshape(-1, 3)


def packed(*arrays: np.ndarray) -> bytes:
    """Return arrays as bytes, one after another."""
    stream = io.BytesIO()
    for array in arrays:
        np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def unpacked(data: bytes, count: int) -> list[np.ndarray]:
    """Return so many arrays of bytes that `packed` gave.

    Raises:
        ValueError, EOFError, OSError: there are fewer.
    """
    stream = io.BytesIO(data)
    return [np.load(stream, allow_pickle=False) for _ in range(count)]


def _without_viewers() -> None:
    """Keep Open3D from importing what draws in a browser: most of what its import takes, and nothing of it is used."""
    for name in ("dash", "plotly", "plotly.graph_objects"):
        sys.modules[name] = _Nothing(name)


class _Nothing(types.ModuleType):
    """A package in which whatever is asked for is None."""

    def __getattr__(self, name: str) -> None:
        return None


def _answer(asked: BinaryIO) -> bytes:
    """Answer one question: places, normals, (depth, threads)."""
    _without_viewers()
    import open3d

    places, normals, numbers = unpacked(asked.read(), 3)
    return packed(*reconstruct(open3d, places, normals, *map(int, numbers)))


if __name__ == "__main__":
    # What others print goes elsewhere than the answer.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        out.write(_answer(sys.stdin.buffer))
