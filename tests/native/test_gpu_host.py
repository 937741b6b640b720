# SPDX-License-Identifier: Apache-2.0
"""Tools that stay on the processor where a GPU's kernels run: the same results."""

import torch

from geodiff import icosphere
from geodiff.atlas.host_batch import HostBatch
from geodiff.atlas.smoothing import along_normals
from geodiff.atlas.winding import WindingTree
from geodiff.native.gpu import emulated
from geodiff.scene.remesh import remesh
from tests.atlas.test_host_batch import charts


def results() -> list[torch.Tensor]:
    mesh = icosphere(1)
    draw = torch.Generator().manual_seed(0)
    points = torch.rand(50, 3, generator=draw)
    near = mesh.closest_point(points)
    made = remesh(mesh, 0.4, iterations=1).mesh
    tree = WindingTree(points, torch.ones(50))
    winding = [tree.field(points, 0.1), tree.adjoint(points[:, 0], 0.1), tree.slope(points, 0.1)]
    start = charts((8, 5))
    uv, rows = torch.rand(4, 9, 2, generator=draw).double(), torch.full((4,), 9)
    batch = HostBatch(torch.arange(4), start, uv, torch.ones(4, 9, 3).double(), torch.ones(4, 9).double(), rows=rows)
    trained = [batch.steps([0.01, 0.02]), batch.image(), batch.uv, *batch.parameters]
    placed = start.flat_jacobian(uv.flatten(0, 1), torch.arange(4).repeat_interleave(9))
    smooth = along_normals(points, torch.nn.functional.normalize(points, dim=1), torch.full((50,), 0.1))
    found = [smooth, near.face, near.point, made.vertices, made.faces, mesh.self_intersections()]
    return [*found, *winding, *trained, *placed]


def test_they_are_the_processors():
    expected = results()
    with emulated():
        found = results()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
