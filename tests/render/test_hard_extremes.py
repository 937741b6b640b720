# SPDX-License-Identifier: Apache-2.0
"""Hard images of meshes as they should not be: the twin's picture, the same bits again, finite gradients."""

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference
from geodiff.render.view import pack
from tests.lit_scenes import DOUBLE

SIZE = 24
AHEAD = gd.Camera.look_at((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), fov_deg=50.0)


def triangles(corners: torch.Tensor) -> gd.Mesh:
    return gd.Mesh(corners.reshape(-1, 3), torch.arange(corners.numel() // 3).reshape(-1, 3))


def layers() -> gd.Mesh:
    """3 000 triangles behind each other in no order, every tenth of them twice in the same place."""
    random = torch.Generator().manual_seed(5)
    depth = torch.randperm(3000, generator=random).double() / 3000
    depth[::10] = depth[1::10]
    flat = torch.tensor([[-0.8, -0.7], [0.9, -0.6], [0.0, 0.8]], dtype=DOUBLE)
    around = flat + 0.3 * torch.rand(3000, 1, 2, generator=random, dtype=DOUBLE) - 0.15
    around[::10] = around[1::10]
    return triangles(torch.cat([around, depth[:, None, None].expand(-1, 3, 1)], dim=-1))


def no_area() -> gd.Mesh:
    """A triangle and, in front of it, the like without an area: two corners in one, all in a line, all in one."""
    a, b, c = torch.tensor([[-0.5, -0.5, 0.0], [0.6, -0.4, 0.0], [0.0, 0.7, 0.0]], dtype=DOUBLE)
    up = torch.tensor([0.0, 0.0, 0.5], dtype=DOUBLE)
    thin = [(a, b, b), (a, b, 0.5 * (a + b)), (c, c, c), (a, a, c)]
    return triangles(torch.stack([torch.stack([a, b, c]), *(torch.stack(face) + up for face in thin)]))


def edge_on() -> gd.Mesh:
    """A fan about the line of sight, whose faces are seen from the side, before a wall; one of them is a hair off."""
    turns = torch.linspace(0, 3.0, 7, dtype=DOUBLE)
    rim = torch.stack([torch.cos(turns), torch.sin(turns), 0 * turns], dim=1)
    near, far = torch.tensor([0.0, 0.0, 1.5], dtype=DOUBLE), torch.tensor([0.0, 0.0, -1.0], dtype=DOUBLE)
    fan = torch.stack([torch.stack([near, far, corner]) for corner in rim])
    fan[3, 0, 0] += 1e-7
    wall = torch.tensor([[[-1.0, -1.0, -0.5], [1.0, -1.0, -0.5], [0.0, 1.0, -0.5]]], dtype=DOUBLE)
    return triangles(torch.cat([fan, wall]))


OF_FACES = {"thousands of layers": layers, "faces without area": no_area, "faces edge-on": edge_on}
NAMES = (*OF_FACES, "the camera in the mesh", "the camera at a vertex")


def scene(name: str, dtype: torch.dtype) -> tuple[gd.Mesh, gd.Camera]:
    if name.startswith("the camera"):
        mesh = gd.icosphere(2)
        place = (0.1, 0.05, -0.2) if name == "the camera in the mesh" else tuple(mesh.vertices[7].tolist())
        camera = gd.Camera.look_at(place, (0.0, 0.4, 0.9), fov_deg=80.0)
    else:
        mesh, camera = OF_FACES[name](), AHEAD
    mesh = mesh.to(dtype=dtype)
    return mesh.with_attributes(vertex_colors=0.5 + 0.5 * torch.sin(7 * mesh.vertices)), camera.to(dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_kernels_draw_what_their_twins_do(name: str, dtype: torch.dtype):
    view = pack("test", *scene(name, dtype), (SIZE, SIZE))
    got, wanted = (module.rasterize(*view.packed, **view.frame) for module in (ops, reference))
    assert torch.equal(got.face_id, wanted.face_id) and bool((got.face_id >= 0).any())
    there = got.face_id >= 0
    close = {"rtol": 1e4 * torch.finfo(dtype).eps, "atol": 1e4 * torch.finfo(dtype).eps}
    assert torch.allclose(got.depth[there], wanted.depth[there], **close)
    assert torch.allclose(got.barycentric, wanted.barycentric, **close)
    seen = ops.visible(*view.packed, **view.frame)
    assert torch.equal(seen.place, there.reshape(-1).nonzero()[:, 0]) and bool(seen.inside.all())
    assert torch.equal(seen.face_id, got.face_id[there]) and torch.equal(seen.barycentric, got.barycentric[there])
    found, others = (module.jumps(*view.packed, got.face_id, near=view.camera.near) for module in (ops, reference))
    for part, other in zip(found[::3], others[::3], strict=True):
        assert sorted(part.tolist()) == sorted(other.tolist())


@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_finite_and_the_same_again(name: str, coverage: str):
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            mesh, camera = scene(name, torch.float32)
            v = mesh.vertices.clone().requires_grad_()
            out = gd.Renderer(SIZE, coverage=coverage, outputs="rgb")(mesh.with_vertices(v), camera)
            results.append((out.rgb.detach(), *torch.autograd.grad(out.rgb.square().sum() + out.alpha.sum(), v)))
    finally:
        torch.set_num_threads(before)
    for one, many in zip(*results, strict=True):
        assert bool(one.isfinite().all()) and torch.equal(one, many)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_the_twin(name: str):
    mesh, camera = scene(name, DOUBLE)
    gradients = []
    for backend in ("kernel", "reference"):
        v = mesh.vertices.clone().requires_grad_()
        out = gd.Renderer(SIZE, coverage="hard", outputs="rgb", backend=backend)(mesh.with_vertices(v), camera)
        gradients += torch.autograd.grad(out.rgb.square().sum() + out.alpha.sum(), v)
    assert float((gradients[0] - gradients[1]).abs().max()) <= 1e-9 * float(1 + gradients[1].abs().max())
