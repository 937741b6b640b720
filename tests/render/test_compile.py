# SPDX-License-Identifier: Apache-2.0
"""torch.compile takes losses on rendered meshes whole, also on a mesh that nothing was computed of yet."""

from typing import Any

import pytest
import torch

import geodiff as gd

EYES = gd.Camera.orbit(3.0, 10.0, torch.tensor([20.0, 50.0]), fov_deg=40.0)
# torch's own, of how it traces functions of autograd
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


def fresh() -> gd.Mesh:
    return gd.icosphere(1).with_attributes(vertex_colors=torch.linspace(0, 1, 126).reshape(42, 3))


def losses(coverage: str, name: str) -> Any:
    render = gd.Renderer(16, scale=0.05, coverage=coverage, outputs=(name,))

    def loss(mesh: gd.Mesh, vertices: torch.Tensor) -> torch.Tensor:
        mesh = mesh.with_vertices(vertices)
        out = render(mesh, EYES)
        total = gd.losses.iou(out.alpha, torch.ones(16, 16)) + getattr(out, name).float().square().mean()
        return total + gd.losses.laplacian(mesh) + gd.losses.flatness(mesh) + gd.losses.edge_length(mesh)

    return loss


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("coverage", "name", "backend"),
    [
        ("faces", "alpha", "aot_eager"),
        ("contour", "alpha", "eager"),
        pytest.param("edges", "alpha", "aot_eager", marks=SLOW),
        pytest.param("faces", "rgb", "aot_eager", marks=SLOW),
        pytest.param("contour", "normal", "aot_eager", marks=SLOW),
    ],
)
def test_whole_on_a_fresh_mesh(coverage: str, name: str, backend: str) -> None:
    torch.compiler.reset()
    loss = losses(coverage, name)
    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for step in range(2):  # another fresh mesh, other places
        mesh = fresh()
        results = []
        for function in (compiled, loss):
            x = (mesh.vertices * (1 + 0.1 * step)).requires_grad_()
            value = function(mesh, x)
            results.append((value.detach(), *torch.autograd.grad(value, x)))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def colored(mesh: gd.Mesh) -> gd.Mesh:
    return mesh.with_attributes(vertex_colors=torch.linspace(0, 1, 3 * mesh.num_vertices).reshape(-1, 3))


def textured(mesh: gd.Mesh) -> gd.Mesh:
    draw = torch.Generator().manual_seed(0)
    uv, image = torch.rand(mesh.num_vertices, 2, generator=draw), torch.rand(8, 8, 3, generator=draw)
    return mesh.with_attributes(uv=uv, texture=gd.Texture(image))


LIGHTS = [gd.AmbientLight(0.3), gd.DirectionalLight((1.0, 1.0, 2.0), 0.5), gd.PointLight((2.0, 1.0, 2.0), 0.6)]


@pytest.mark.parametrize(
    ("options", "look", "lights"),
    [
        pytest.param({"coverage": "hard", "supersample": 2}, colored, LIGHTS, marks=SLOW),
        pytest.param({"coverage": "antialiased"}, textured, LIGHTS, marks=SLOW),
        pytest.param({"coverage": "contour", "depth": "softmax"}, textured, LIGHTS, marks=SLOW),
        pytest.param({"depth": "softmax", "background_depth": 0.1}, colored, None, marks=SLOW),
        pytest.param({"depth": "softmax", "depth_range": (1.0, 5.0), "max_fragments": None}, colored, None, marks=SLOW),
        pytest.param({"outputs": ()}, "batch", None),
        pytest.param({"coverage": "hard", "outputs": ()}, "batch", None, marks=SLOW),
    ],
)
def test_all_ways_to_see_a_mesh(options: dict[str, Any], look: Any, lights: Any) -> None:
    torch.compiler.reset()
    render = gd.Renderer(16, **{"scale": 0.05, "outputs": ("rgb",), **options})
    render.warn_of_bias = False
    mesh = gd.MeshBatch([gd.icosphere(1), gd.box()]) if look == "batch" else look(gd.icosphere(1))

    def loss(vertices: torch.Tensor) -> torch.Tensor:
        out = render(mesh.with_vertices(vertices), EYES, lights)
        return out.alpha.square().mean() + (out.rgb.square().mean() if render.outputs else 0.0)

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for size in (1.0, 1.1):
        results = []
        for function in (compiled, loss):
            x = (mesh.vertices * size).requires_grad_()
            value = function(x)
            results.append((value.detach(), *torch.autograd.grad(value, x)))
        assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_another_topology_is_another_graph() -> None:
    torch.compiler.reset()
    compiled = torch.compile(lambda mesh: gd.losses.laplacian(mesh), fullgraph=True, backend="eager")
    turned = gd.icosphere(1)
    for mesh in (gd.icosphere(1), turned.flipped(), gd.box(), gd.icosphere(1)):
        assert torch.equal(compiled(mesh), gd.losses.laplacian(mesh))
    cut = gd.Mesh(turned.vertices, torch.cat([turned.faces[:70], turned.faces[:10]]))  # as many faces, other edges
    assert torch.equal(compiled(cut), gd.losses.laplacian(cut))


def test_quantities_without_a_gradient() -> None:
    torch.compiler.reset()
    compiled = torch.compile(
        lambda mesh: mesh.face_areas.sum() + mesh.vertex_normals.sum(), fullgraph=True, backend="eager"
    )
    for mesh in (gd.icosphere(1), gd.icosphere(1).scaled(2.0)):
        assert torch.equal(compiled(mesh), mesh.face_areas.sum() + mesh.vertex_normals.sum())


def test_cameras_and_lights_may_be_made_inside() -> None:
    torch.compiler.reset()
    ball = gd.icosphere(1)
    render = gd.Renderer(8, coverage="contour", outputs="rgb")

    def loss(x: torch.Tensor) -> torch.Tensor:
        mesh = gd.Mesh(ball.vertices * x, ball.topology)  # the topology is known outside
        lights = [gd.AmbientLight(x), gd.PointLight(x * torch.ones(3)), gd.DirectionalLight(x * torch.ones(3))]
        return render(mesh, gd.Camera.orbit(2 + x, 10 * x, fov_deg=60 * x), lights).rgb.square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    results = []
    for function in (compiled, loss):
        x = torch.tensor(0.7, requires_grad=True)
        value = function(x)
        results.append((value.detach(), *torch.autograd.grad(value, x)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)
