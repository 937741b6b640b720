# SPDX-License-Identifier: Apache-2.0
"""What is kept from call to call (a camera's matrix, lights, a mesh's layout) follows what it is made of."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch

import geodiff as gd
from geodiff.ops import _op

BALL = gd.icosphere(1)
LIGHTS = [gd.AmbientLight(0.3), gd.PointLight((2.0, 1.0, 2.0), 0.6)]


def eye(azimuth: float = 30.0) -> gd.Camera:
    return gd.Camera.orbit(2.6, 20.0, azimuth, fov_deg=50)


def shaded(mesh: gd.Mesh, camera: gd.Camera, lights: list[gd.scene.light.Light] = LIGHTS) -> torch.Tensor:
    render = gd.Renderer(9, scale=0.05, outputs=("rgb",))
    render.warn_of_bias = False
    return render(mesh, camera, lights).rgb


def move_focal(camera: gd.Camera, light: gd.PointLight) -> None:
    camera.focal = camera.focal * 1.5


def move_focal_in_place(camera: gd.Camera, light: gd.PointLight) -> None:
    camera.focal.copy_(camera.focal * 1.5)


def move_camera(camera: gd.Camera, light: gd.PointLight) -> None:
    camera.translation.copy_(camera.translation * 0.9)


def move_camera_unseen(camera: gd.Camera, light: gd.PointLight) -> None:
    camera.translation.data.mul_(0.9)


def move_light_by_numpy(camera: gd.Camera, light: gd.PointLight) -> None:
    light.position.numpy()[:] *= -1


def move_light(camera: gd.Camera, light: gd.PointLight) -> None:
    light.position.mul_(-1)


def swap_light(camera: gd.Camera, light: gd.PointLight) -> None:
    light.color = torch.tensor([0.1, 0.9, 0.3])


CHANGES = [move_focal, move_focal_in_place, move_camera, move_camera_unseen]
CHANGES += [move_light, move_light_by_numpy, swap_light]


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_is_noticed(change: Callable[[gd.Camera, gd.PointLight], None]) -> None:
    camera, light = eye(), gd.PointLight((2.0, 1.0, 2.0), (0.6, 0.5, 0.4))
    camera = gd.Camera(*(getattr(camera, name).clone() for name in ("rotation", "translation", "focal", "principal")))
    before = shaded(BALL, camera, [light])
    assert torch.equal(before, shaded(BALL, camera, [light]))
    change(camera, light)
    after = shaded(BALL, camera, [light])
    assert not torch.equal(before, after)
    fresh = gd.Camera(camera.rotation, camera.translation, camera.focal, camera.principal)
    assert torch.equal(after, shaded(BALL, fresh, [gd.PointLight(light.position, light.color)]))


def test_gradients_after_calls_without() -> None:
    camera = eye()
    shaded(BALL, camera)
    focal = camera.focal.clone().requires_grad_()
    camera.focal = focal
    loss = shaded(BALL, camera).square().sum()
    assert torch.autograd.grad(loss, focal)[0].abs().min() > 0
    with torch.no_grad():
        assert torch.equal(shaded(BALL, camera), shaded(BALL, eye()))


def test_nothing_is_kept_of_inference_or_in_copies() -> None:
    camera, mesh = eye(), gd.icosphere(1)
    with torch.inference_mode():
        made_inside = eye()
        shaded(mesh, made_inside)
        first = shaded(mesh, camera).clone()
    vertices = mesh.vertices.clone().requires_grad_()
    shaded(mesh.with_vertices(vertices), camera).sum().backward()
    assert vertices.grad is not None and torch.equal(first, shaded(mesh, camera))
    for other in (copy.deepcopy(camera), pickle.loads(pickle.dumps(camera))):
        assert not {"_clip_map", "_light_table"} & set(vars(other))
        assert torch.equal(first, shaded(mesh, other))


def test_a_layout_that_somebody_wrote_to_is_made_anew() -> None:
    mesh = gd.icosphere(1)
    wanted = mesh.layout_for(2)
    mesh.layout_for(2).zero_()
    assert torch.equal(mesh.layout_for(2), wanted)
    mesh.topology.layout(2).zero_()
    assert torch.equal(mesh.topology.layout(2), wanted) and mesh.layout_for(0).shape == (0, 3)


def test_layers_of_torch_that_watch_see_the_op() -> None:
    """Profilers, modes and subclasses are told of our ops as of torch's own; else kernels are called at once."""
    mesh, camera, render = gd.icosphere(1), eye(), gd.Renderer(9)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        render(mesh, camera)
    assert any(event.key == "geodiff::silhouette" for event in profile.key_averages())
    seen = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        watched = render(mesh, camera).alpha
    assert "geodiff.silhouette.default" in seen and torch.equal(watched, render(mesh, camera).alpha)


@pytest.mark.parametrize("create_graph", [False, True])
def test_gradients_are_those_of_the_registered_op(create_graph: bool) -> None:
    values, index, weight = torch.rand(9, 4), torch.randint(9, (7, 3), dtype=torch.int32), torch.rand(7, 3)
    found = []
    for call in (lambda *a: _op.run("blend", *a), torch.ops.geodiff.blend):
        leaves = [x.clone().requires_grad_() for x in (values, weight)]
        result = call(leaves[0], index, leaves[1])
        found.append((result, *torch.autograd.grad(result.square().sum(), leaves, create_graph=create_graph)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    if create_graph:
        for _, gradient, _ in found:
            with pytest.raises(RuntimeError, match="blend is not twice differentiable"):
                gradient.sum().backward()
