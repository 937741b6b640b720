# SPDX-License-Identifier: Apache-2.0
"""Make the meshes of this folder: ``python assets/make_assets.py [name ...]``. About a minute for all."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pots
import shapes
from isosurface import decimate, extract, relax

HERE = Path(__file__).parent


def airplane() -> tuple[np.ndarray, np.ndarray]:
    """Extract the airplane."""
    vertices, faces = extract(shapes.airplane, [-0.55, -0.15, -0.6], [0.55, 0.3, 0.56], [0.008, 0.005, 0.008])
    vertices, faces = decimate(relax(shapes.airplane, vertices, faces, 3), faces, 4200, evenness=1e-4)
    return relax(shapes.airplane, vertices, faces, 1, rate=0.3), faces


def chair() -> tuple[np.ndarray, np.ndarray]:
    """Extract the chair."""
    vertices, faces = extract(shapes.chair, [-0.3, -0.55, -0.42], [0.3, 0.6, 0.3], [0.0125] * 3)
    vertices, faces = decimate(relax(shapes.chair, vertices, faces, 3), faces, 2600)
    return relax(shapes.chair, vertices, faces, 3, rate=0.3), faces


MAKERS: dict[str, Callable[[], tuple[np.ndarray, np.ndarray]]] = {
    "airplane": airplane,
    "chair": chair,
    "mug": pots.mug,
    "teapot": pots.teapot,
}


def make(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return vertices (V, 3), their bounding box centred on 0 with longest side 1, and faces (F, 3)."""
    vertices, faces = MAKERS[name]()
    low, high = vertices.min(0), vertices.max(0)
    return (vertices - (low + high) / 2) / (high - low).max(), faces


def closed_genus(faces: np.ndarray) -> int:
    """Return the genus of a closed, consistently oriented, connected surface; raise if it is none."""
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = faces.max() + 1
    key, back = sides[:, 0] * count + sides[:, 1], sides[:, 1] * count + sides[:, 0]
    if len(np.unique(key)) != len(key) or not np.array_equal(np.sort(key), np.sort(back)):
        raise RuntimeError("The surface is not closed and consistently oriented: some edge has not exactly two faces.")
    label = np.arange(count)
    while True:
        lowest = label.copy()
        np.minimum.at(lowest, sides[:, 0], label[sides[:, 1]])
        if np.array_equal(lowest, label):
            break
        label = lowest
    if label.any():
        raise RuntimeError("The surface is not connected.")
    return int(2 - (count - len(sides) // 2 + len(faces))) // 2


def write(path: Path, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Write an OBJ file with six decimals."""
    lines = [f"# {path.stem}, made by assets/make_assets.py; Apache-2.0"]
    lines += [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices + 0.0]
    lines += [f"f {a} {b} {c}" for a, b, c in faces + 1]
    path.write_text("\n".join(lines) + "\n")


def main() -> None:
    """Make the assets named on the command line, or all."""
    for name in sys.argv[1:] or MAKERS:
        vertices, faces = make(name)
        genus = closed_genus(faces)
        write(HERE / f"{name}.obj", vertices, faces)
        size = np.ptp(vertices, axis=0).round(3).tolist()
        print(f"{name}: {len(vertices)} vertices, {len(faces)} faces, genus {genus}, size {size}")


if __name__ == "__main__":
    main()
