# SPDX-License-Identifier: Apache-2.0
"""Connected components of large masks and meshes, beside what SciPy takes for the labels alone.

    python tests/benchmarks/components.py

Least milliseconds of one processor: a disc, blobs and noise of 1024², and a million faces.
"""

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, label
from scipy.sparse import coo_matrix, csgraph

import geodiff as gd
from geodiff.render import component_means, connected_components

SIDE, FACES = 1024, 708
TURNS = 4


def least(call: Callable[[], Any]) -> float:
    """Return milliseconds."""
    best = math.inf
    for _ in range(TURNS):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return 1e3 * best


def images() -> dict[str, np.ndarray]:
    """Return images in [0, 1]."""
    draw = np.random.default_rng(0)
    noise = draw.random((SIDE, SIDE))
    smooth = gaussian_filter(draw.normal(size=(SIDE, SIDE)), 6)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    disc = np.hypot(rows - 500, columns - 520) < 300
    found = {"disc": 0.9 * disc, "blobs": (smooth - smooth.min()) / np.ptp(smooth), "noise": noise}
    return {name: image.astype(np.float32) for name, image in found.items()}


def masks() -> None:
    """Print a row for each image."""
    for name, image in images().items():
        p = torch.from_numpy(image).requires_grad_()
        mask = p.detach() > 0.5
        values, _ = component_means(p)
        upstream = torch.rand_like(values)
        times = {
            "SciPy's label": lambda mask=mask: label(mask.numpy()),
            "connected_components": lambda mask=mask: connected_components(mask),
            "keep=1": lambda mask=mask: connected_components(mask, keep=1),
            "component_means": lambda p=p: component_means(p.detach()),
            "backward": lambda p=p, v=values, u=upstream: torch.autograd.grad(v, p, u, retain_graph=True),
        }
        row = ", ".join(f"{what} {least(call):.1f}" for what, call in times.items())
        print(f"{name}, {label(mask.numpy())[1]} components: {row}", flush=True)


def faces() -> None:
    """Print the times of a square of a million faces."""
    nodes = torch.arange(FACES**2).reshape(FACES, FACES)
    quads = torch.stack([nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]], -1).reshape(-1, 4)
    every, places = torch.cat([quads[:, :3], quads[:, [0, 2, 3]]]), torch.rand(FACES**2, 3)
    known = gd.Mesh(places, every)
    pairs, count = known.face_pairs.numpy(), len(every)
    graph = coo_matrix((np.ones(len(pairs), dtype=np.int8), pairs.T), shape=(count, count))
    times = {
        "first call": lambda: gd.scene.face_components(gd.Mesh(places, every)),
        "neighbours known": lambda: gd.scene.face_components(known),
        "SciPy's csgraph": lambda: csgraph.connected_components(graph, directed=False),
    }
    print(f"{count} faces: " + ", ".join(f"{what} {least(call):.0f}" for what, call in times.items()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    masks()
    faces()
