# SPDX-License-Identifier: Apache-2.0
"""What is kept for later use is fit for it: no inference tensors, no graphs, no results of autocast."""

import functools
import gc
import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.modes import cached
from tests.atlas.shapes import flat_atlas

EYES = gd.Camera.orbit(3.0, 20.0, torch.tensor([0.0, 70.0]), fov_deg=40.0)


def kept(value: Any, depth: int = 5) -> Iterator[torch.Tensor]:
    """All tensors that an object holds."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from kept(part, depth)
    elif isinstance(value, dict):
        yield from kept(list(value.values()), depth)
    elif depth and type(value).__module__.startswith("geodiff.") and hasattr(value, "__dict__"):
        yield from kept(list(vars(value).values()), depth - 1)


def sound(*owners: Any) -> bool:
    found = list(kept(owners))
    assert found
    return not any(tensor.is_inference() or tensor.grad_fn is not None for tensor in found)


def cached_names(kind: type) -> list[str]:
    return [name for base in kind.__mro__ for name, value in vars(base).items() if isinstance(value, cached)]


def scene(count: int = 2) -> gd.Mesh:
    return gd.icosphere(count).with_attributes(vertex_colors=torch.rand(gd.icosphere(count).num_vertices, 3))


def everything(mesh: gd.Mesh) -> torch.Tensor:
    """Use all that a mesh keeps."""
    total = torch.zeros(())
    for coverage in ("faces", "contour"):
        out = gd.Renderer(12, scale=0.05, coverage=coverage, outputs=("rgb", "normal"))(
            mesh, EYES, gd.AmbientLight(0.5)
        )
        total = total + out.rgb.mean() + out.alpha.mean() + out.normal.mean()
    for loss in (gd.losses.laplacian, gd.losses.flatness, gd.losses.edge_length, gd.losses.normal_consistency):
        total = total + loss(mesh)
    return total + mesh.face_areas.sum() + mesh.vertex_normals.sum() + mesh.face_normals.sum()


def gradient(mesh: gd.Mesh) -> torch.Tensor:
    vertices = mesh.vertices.detach().clone().requires_grad_()
    (result,) = torch.autograd.grad(everything(mesh.with_vertices(vertices)), vertices)
    return result


MODES: dict[str, Callable[[], Any]] = {
    "inference": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


@pytest.mark.parametrize("mode", MODES)
def test_a_validation_step_leaves_training_as_it_is(mode: str) -> None:
    torch.manual_seed(0)
    expected = gradient(scene())
    torch.manual_seed(0)
    mesh = scene()
    with MODES[mode]():
        everything(mesh)
        for name in cached_names(gd.scene.Topology):
            getattr(mesh.topology, name)
    assert sound(mesh.topology, mesh._cache)
    assert torch.equal(gradient(mesh), expected)


def test_a_mesh_made_in_inference_mode_trains() -> None:
    with torch.inference_mode():
        mesh = gd.icosphere(1)
        everything(mesh)
    assert sound(mesh.topology)
    vertices = mesh.vertices.clone().requires_grad_()
    alpha = gd.Renderer(12)(mesh.with_vertices(vertices), EYES).alpha
    (alpha.mean() + gd.losses.flatness(mesh.with_vertices(vertices))).backward()
    assert vertices.grad is not None and bool(vertices.grad.any())


def test_a_renderer_made_in_inference_mode_trains() -> None:
    with torch.inference_mode():
        renderer = gd.Renderer(12, coverage="contour", outputs="rgb", background=(0.2, 0.4, 0.6))
    assert sound(renderer)
    vertices = scene(1).vertices.requires_grad_()
    renderer(scene(1).with_vertices(vertices), EYES).rgb.mean().backward()
    assert vertices.grad is not None and bool(vertices.grad.any())


def test_batches_too() -> None:
    batch = gd.MeshBatch([scene(1), scene(2)])
    with torch.inference_mode():
        gd.Renderer(12, coverage="contour", outputs="rgb")(batch, EYES)
    vertices = batch.vertices.clone().requires_grad_()
    out = gd.Renderer(12, coverage="contour", outputs="rgb")(batch.with_vertices(vertices), EYES)
    (out.rgb.mean() + gd.losses.laplacian(batch.with_vertices(vertices))).backward()
    assert vertices.grad is not None and bool(vertices.grad.any())


def test_quantities_with_a_gradient_are_not_kept() -> None:
    vertices = gd.icosphere(1).vertices.requires_grad_()
    mesh = gd.icosphere(1).with_vertices(vertices)
    for _ in range(2):
        mesh.vertex_normals.sum().backward()  # a graph that was kept would be freed by now
    with torch.no_grad():
        mesh.face_normals  # noqa: B018
    assert mesh.face_normals.requires_grad and mesh.topology.edges.grad_fn is None


def test_atlas_keeps_ordinary_tensors() -> None:
    draw = torch.Generator().manual_seed(2)
    points = torch.rand(200, 3, generator=draw, dtype=torch.float64) * torch.tensor([1, 1, 0])
    atlas = flat_atlas(points, points[:20], 0.4)
    with torch.inference_mode():
        for name in cached_names(type(atlas)):
            getattr(atlas, name)
        for name in cached_names(type(atlas.domain)):
            getattr(atlas.domain, name)
    assert len(cached_names(type(atlas))) >= 5 and sound(atlas)
    x = atlas.predictions.mean(0, keepdim=True).requires_grad_()
    ((x - atlas.predictions) ** 2).sum().backward()
    assert x.grad is not None


def test_warm_potentials_are_ordinary_tensors() -> None:
    draw = torch.Generator().manual_seed(2)
    x, y = torch.rand(9, 2, generator=draw), torch.rand(8, 2, generator=draw)
    loss, fresh = gd.SinkhornLoss(0.1), gd.SinkhornLoss(0.1)
    with torch.inference_mode():
        loss(x, y)
    assert sound(loss._starts)
    gradients = []
    for one in (loss, fresh):
        at = x.clone().requires_grad_()
        gradients.append(torch.autograd.grad(one(at, y), at)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-5)


def lru_caches() -> list[Any]:
    """All functions of geodiff that keep their results."""
    for module in pkgutil.walk_packages(gd.__path__, "geodiff."):
        if not module.name.endswith(("__main__", "_cpu")):
            importlib.import_module(module.name)
    wrapper = type(functools.lru_cache(lambda: None))
    found = [value for value in gc.get_objects() if type(value) is wrapper]
    return [value for value in found if (getattr(value, "__module__", "") or "").startswith("geodiff.")]


KNOWN: dict[str, tuple[Any, ...]] = {
    "_cull_radius": (),
    "cull_radius": (6, False, False, 0.1, 0.5, 0.0, 2, 0.0, 10, 1e-4),
    "contour_radii": (6, False, False, 0.1, 0.5, 0.0, 1e-4),
    "fine_radii": (6, False, False, 0.5, 0.0, 2, 0.0, 1e-4),
    "lloyd": (5,),
    "_legendre": (4,),
    "family": (),
    "as_distribution": ("gamma(0.5)",),
    "as_tconorm": ("yager(2)",),
    "extension": (),
    "_copy": ((1.0, 2.0), (2,), torch.float32, "cpu"),
    "_plain": ("cpu",),
    "_kept_lanes": ("bitonic", 8, (0, 1)),
}


def test_functions_that_keep_results_keep_ordinary_tensors() -> None:
    names = set()
    for function in lru_caches():
        name = function.__name__
        if function.__module__.startswith("geodiff.native.") and name not in KNOWN:
            continue  # of compilers and devices
        if function.__module__ == "geodiff.cli_fields":
            continue  # of sources, without any tensor
        assert name in KNOWN, f"{function.__module__}.{name} keeps results: add it here"
        function.cache_clear()
        with torch.inference_mode():
            inside = function(*KNOWN[name])
        assert not any(tensor.is_inference() for tensor in kept(inside, 6))
        names.add(name)
    assert names >= {"cull_radius", "lloyd", "family"}


def test_cached_properties_cannot_be_set() -> None:
    topology = gd.icosphere(0).topology
    with pytest.raises(AttributeError, match=r"Topology\.edges is computed, and cannot be set"):
        topology.edges = torch.zeros(1, 2)
    assert topology.edges is topology.edges
    assert type(topology).edges.__doc__ and "lexicographic" in type(topology).edges.__doc__
