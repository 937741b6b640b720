# SPDX-License-Identifier: Apache-2.0
"""Inside of torch.autocast, geodiff gives the bits that it gives outside."""

import importlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference
from geodiff.modes import outside_autocast
from tests.test_forward_mode import WORKS

DRAW = torch.Generator().manual_seed(7)


def some(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=DRAW)


ORBIT: dict[str, Any] = {"elevation_deg": 20.0, "azimuth_deg": torch.tensor([0.0, 70.0]), "fov_deg": 40.0}
MESH = gd.icosphere(2).with_attributes(vertex_colors=some(162, 3))
EYES = gd.Camera.orbit(3.0, **ORBIT)
LIGHTS = [gd.AmbientLight(0.2), gd.PointLight((2.0, 3.0, 4.0), 0.7)]
KNOTS = torch.tensor([0, 0, 0, 0, 0.3, 0.6, 1, 1, 1, 1])
CONTROL, PLACES, X, Y = some(6, 6, 3), some(50), some(40, 3), some(50, 3)
MAPS = ("rgb", "depth", "normal", "face_id")


def surface() -> gd.NURBSSurface:
    return gd.NURBSSurface(CONTROL, KNOTS, KNOTS, degree=(3, 3))


def rendered(eyes: gd.Camera = EYES, mesh: Any = MESH, **options: Any) -> list[torch.Tensor]:
    out = gd.Renderer(24, scale=0.02, outputs=MAPS, **options)(mesh, eyes, LIGHTS)
    return [out.alpha, *(getattr(out, name) for name in MAPS)]


def trained(loss: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """A loss and its gradient, asked for inside as well."""
    x = x.clone().requires_grad_()
    value = loss(x)
    return [value, *torch.autograd.grad(value, x)]


def silhouette(vertices: torch.Tensor) -> torch.Tensor:
    return gd.losses.iou(gd.Renderer(24, scale=0.02)(MESH.with_vertices(vertices), EYES).alpha, torch.ones(24, 24))


def orbited() -> list[torch.Tensor]:
    eyes = gd.Camera.orbit(3.0, **ORBIT)
    near = gd.Camera.look_at((1.0, 2.0, 3.0), (0.0, 0.1, 0.0), fov_deg=50.0)
    return [*eyes.project(MESH.vertices), eyes.to_clip(MESH.vertices), near.to_clip(MESH.vertices)]


def pulled() -> list[torch.Tensor]:
    eyes = gd.Camera.from_opencv(torch.tensor([[30.0, 0, 12], [0, 30, 12], [0, 0, 1]]), torch.eye(3), torch.ones(3), 24)
    return [eyes.to_clip(MESH.vertices)]


def fitted() -> list[torch.Tensor]:
    fit = gd.splines.fit_surface(some_grid(), control_shape=(6, 6), degree=(3, 3))
    return [fit.surface.control_points]


def some_grid() -> torch.Tensor:
    u = torch.linspace(0, 1, 15)
    x, y = torch.meshgrid(u, u, indexing="ij")
    return torch.stack([x, y, torch.sin(3 * x) * y], dim=-1)


def transported() -> list[torch.Tensor]:
    ot = gd.sinkhorn(X, Y, epsilon=0.05)
    return [ot.cost, ot.f, ot.g, ot.transport_cost, ot.plan()]


def distribution(name: str) -> list[torch.Tensor]:
    law, x = gd.soft.as_distribution(name), torch.linspace(-3, 3, 41)
    return [law.cdf(x), law.pdf(x), law.quantile(torch.linspace(0.1, 0.9, 9))]


def charts() -> list[torch.Tensor]:
    from tests.atlas.shapes import flat_atlas

    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    points = points * torch.tensor([1, 1, 0])
    atlas = flat_atlas(points, points[:20], 0.4)
    samples = atlas.sample(50)
    return [samples.points, samples.normals, atlas.predictions, atlas.trust]


CALLS: dict[str, Callable[[], Any]] = {
    "camera": orbited,
    "opencv": pulled,
    "one camera": lambda: rendered(EYES[0]),
    "cameras": rendered,
    "batch": lambda: rendered(mesh=gd.MeshBatch([MESH, gd.icosphere(1).with_attributes(vertex_colors=some_colors())])),
    "contour": lambda: rendered(coverage="contour"),
    "edges": lambda: rendered(coverage="edges"),
    "softmax": lambda: rendered(depth="softmax"),
    "twin": lambda: rendered(
        EYES[0], gd.icosphere(1).with_attributes(vertex_colors=some_colors()), backend="reference"
    ),
    "rasterize": lambda: vars(gd.rasterize(MESH, EYES, 24)).values(),
    "fragments": lambda: [gd.fragments(MESH, EYES, 24, k=2).distance],
    "training": lambda: trained(silhouette, MESH.vertices),
    "pose": lambda: trained(
        lambda d: gd.Renderer(24, coverage="contour")(MESH, gd.Camera.orbit(d, **ORBIT)).alpha.mean(), torch.tensor(3.0)
    ),
    "losses": lambda: trained(
        lambda x: gd.losses.laplacian(MESH.with_vertices(x)) + gd.losses.flatness(MESH.with_vertices(x)), MESH.vertices
    ),
    "quantities": lambda: [MESH.with_vertices(2 * MESH.vertices).vertex_normals, MESH.face_areas],
    "surface": lambda: [surface()(PLACES, PLACES), surface().grid(9, 8), gd.splines.area(surface())],
    "control points": lambda: trained(
        lambda c: gd.NURBSSurface(c, KNOTS, KNOTS, degree=(3, 3)).grid(9, 9).square().sum(), CONTROL
    ),
    "elevated": lambda: [gd.splines.elevated(surface()).control_points, gd.splines.clamped(surface()).control_points],
    "moved": lambda: [gd.splines.rotate(surface(), 30.0, (0.0, 0.0, 1.0)).control_points],
    "fit": fitted,
    "closest": lambda: [gd.splines.closest_point(surface(), X).points],
    "sinkhorn": transported,
    "plan": lambda: trained(lambda x: gd.sinkhorn(x, Y, epsilon=0.05).plan().square().sum(), X),
    "divergence": lambda: trained(lambda x: gd.sinkhorn_divergence(x, Y, epsilon=0.05), X),
    "chamfer": lambda: trained(lambda x: gd.chamfer(x, Y), X),
    "emd": lambda: [gd.transport.emd(X, Y[:40]), gd.transport.hausdorff(X, Y), gd.transport.f_score(X, Y, 0.1)],
    "orders": lambda: [
        gd.soft.sort(X[:, 0], temperature=0.1),
        gd.soft.topk(X[:, 0], 3, "splitter", temperature=0.1).values,
        gd.transport.soft_nearest(X, Y, 2, temperature=0.1).gather(Y),
        gd.render.front_to_back(X, X.flip(0), temperature=0.1),
    ],
    "pool": lambda: trained(lambda x: gd.robust_pool(x, "pseudo_huber", alpha=0.3).sum(), X.T[None].clone()),
    "ops": lambda: [ops.apply(X, Y, Y[:, 0], X[:, 0], Y, 0.5), reference.apply(X, Y, Y[:, 0], X[:, 0], Y, 0.5)],
    "linear": lambda: [gd.implicit.linear((torch.eye(3) * X[0, 0]).to_sparse(), X)],
    "warping": lambda: trained(lambda x: gd.transport.soft_dtw(x, Y, 0.1).value, X),
    "zbuffer": lambda: rendered(depth="zbuffer"),
    "poisson": lambda: [gd.fem.solve_poisson(gd.fem.mesh_space(MESH), 1.0, gauge="mean")],
    "root": lambda: [gd.implicit.root(X.sqrt(), lambda y, x: y**2 - x, X)],
    "optim": lambda: [
        gd.optim.smoothed(lambda z: (z @ Y.T).round(), X, 0.3, 4, generator=torch.Generator().manual_seed(0)),
        gd.optim.newton_target(lambda z: (z @ Y[:3].T).square().sum(-1), X),
        gd.optim.blackbox(lambda z: (z @ Y[:3].T).sign(), X, 1.0),
    ],
    "splats": lambda: [gd.render.TriangleSplats(8, 0.7)(MESH, gd.Camera.orbit(3.0)).alpha],
    "atlas": charts,
    "trimesh": lambda: [gd.Mesh.from_trimesh(MESH.to_trimesh()).vertices],
    **{name: (lambda name=name: distribution(name)) for name in ("gaussian", "gamma(2)", "levy.squared")},
    **{f"twin of {name}": (lambda name=name: [WORKS[name][0](WORKS[name][1])]) for name in WORKS},
}


def some_colors() -> torch.Tensor:
    return torch.linspace(0, 1, 126).reshape(42, 3)


@pytest.mark.parametrize("name", CALLS)
def test_same_bits_inside_and_outside(name: str) -> None:
    outside = list(CALLS[name]())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = list(CALLS[name]())
        assert torch.is_autocast_enabled("cpu")
    assert len(outside) == len(inside) > 0
    for one, other in zip(outside, inside, strict=True):
        torch.testing.assert_close(torch.as_tensor(other), torch.as_tensor(one), rtol=0, atol=0, equal_nan=True)


def test_bfloat16_of_the_users_own_is_refused_as_ever() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = X @ Y.T
        assert half.dtype == torch.bfloat16
        with pytest.raises(TypeError, match="float32 or float64"):
            gd.chamfer(half, half)
        with pytest.raises(TypeError, match="float32 or float64"):
            MESH.with_vertices(MESH.vertices.bfloat16())


def public() -> Iterator[tuple[str, Any]]:
    rooms = (
        "scene",
        "transport",
        "splines",
        "render",
        "reference",
        "ops",
        "atlas",
        "interop",
        "implicit",
        "optim",
        "sparse",
        "fem",
        "csg",
        "losses",
        "tasks",
    )
    for room in rooms:
        module = importlib.import_module(f"geodiff.{room}")
        for name in getattr(module, "__all__", vars(module)):
            value = getattr(module, name)
            if (
                callable(value)
                and not name.startswith("_")
                and getattr(value, "__module__", "").startswith(f"geodiff.{room}")
            ):
                yield f"{value.__module__}.{name}", value


# What moves, shows or stores, the numbers of settings, and what does nothing but call an op.
PLAIN = {
    "Topology",
    "SurfaceMetrics",
    "Display",
    "FitMeshSettings",
    "FitPoseSettings",
    "Coverage",
    "Faces",
    "Edges",
    "Contour",
    "Hard",
    "Antialiased",
    "Progress",
    "SurfacePoints",
    "split_step",  # runs the user's model
}


def test_every_public_entry_is_outside() -> None:
    marks = outside_autocast(lambda: None).__code__
    missing = []
    for name, value in public():
        if inspect.isfunction(value) and value.__code__ is not marks and name.rsplit(".", 1)[1] not in PLAIN:
            missing.append(name)
        if inspect.isclass(value) and not issubclass(value, tuple | Exception) and name.rsplit(".", 1)[1] not in PLAIN:
            for key, method in vars(value).items():
                if inspect.isfunction(method) and not key.startswith("_") and method.__code__ is not marks:
                    missing.append(f"{name}.{key}")
    assert missing == []
