# SPDX-License-Identifier: Apache-2.0
"""Tools that stay on the processor where a GPU's kernels run: the same results."""

import torch

from geodiff import icosphere
from geodiff.atlas.winding import WindingTree
from geodiff.native.gpu import emulated
from geodiff.scene.remesh import remesh


def results() -> list[torch.Tensor]:
    mesh = icosphere(1)
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=draw)
    near = mesh.closest_point(points)
    made = remesh(mesh, 0.4, iterations=1).mesh
    tree = WindingTree(points, torch.ones(50))
    winding = [tree.field(points, 0.1), tree.adjoint(points[:, 0], 0.1), tree.slope(points, 0.1)]
    return [near.face, near.point, made.vertices, made.faces, mesh.self_intersections(), *winding]


def test_they_are_the_processors():
    expected = results()
    with emulated():
        found = results()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
