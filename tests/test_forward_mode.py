# SPDX-License-Identifier: Apache-2.0
"""Forward mode and torch.func: functions give the derivative that differences give or refuse by name; never zero."""

from collections.abc import Callable

import pytest
import torch
from torch.autograd import forward_ad

import geodiff as gd
from geodiff import ops, reference

# torch's own, when it first enters a level
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")

D = torch.float64
DRAW = torch.Generator().manual_seed(3)


def some(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=DRAW, dtype=D)


MESH = gd.icosphere(1).to(D)
COLORS = some(42, 3)
EYE = gd.Camera.orbit(torch.tensor(3.0, dtype=D), 10.0, 20.0, fov_deg=40.0)
CLIP = EYE.to_clip(MESH.vertices)
LAYOUT = torch.tensor([[0, 0, len(MESH.faces)]])
KNOTS = torch.tensor([0, 0, 0, 0, 0.3, 0.6, 1, 1, 1, 1], dtype=D)
CONTROL, PLACES = some(6, 6, 3), some(7)
CLOUD, OTHER = some(6, 3), some(7, 3)
WEIGHTS, UP = some(2, 3), some(2, 3)
ROWS = some(1, 19)


def surface(control: torch.Tensor) -> gd.NURBSSurface:
    return gd.NURBSSurface(control, KNOTS, KNOTS, degree=(3, 3))


def rendered(name: str, **options: object) -> Callable[[torch.Tensor], torch.Tensor]:
    render = gd.Renderer(8, scale=0.1, outputs=(name,), **options)  # type: ignore[arg-type]

    def function(vertices: torch.Tensor) -> torch.Tensor:
        mesh = MESH.with_vertices(vertices).with_attributes(vertex_colors=COLORS)
        image: torch.Tensor = getattr(render(mesh, EYE), name)
        return image.nan_to_num(posinf=0.0)

    return function


def root(x: torch.Tensor) -> torch.Tensor:
    return gd.implicit.root(x.detach().sqrt()[:, None], lambda y, x: y**2 - x[:, None], x)


Case = tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]
V = MESH.vertices
INDEX = torch.tensor([[0, 1, 2], [5, 4, 3]])
NONE, ONE = torch.zeros(0, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)

WORKS: dict[str, Case] = {
    "project": (lambda x: torch.cat([part.reshape(-1) for part in EYE.project(x)]), V),
    "to_clip": (EYE.to_clip, V),
    "orbit": (lambda d: gd.Camera.orbit(d, 10.0, 20.0, fov_deg=40.0).to_clip(V), torch.tensor(3.0, dtype=D)),
    "look_at": (lambda e: gd.Camera.look_at(e, (0, 0, 0), fov_deg=40.0).to_clip(V), some(3) + 1),
    "voxel_iou": (lambda a: gd.losses.voxel_iou(a, torch.ones(4, 4, 4, dtype=D)), some(4, 4, 4)),
    "iou": (lambda a: gd.losses.iou(a, torch.ones(8, 8, dtype=D)), some(8, 8)),
    "laplacian": (lambda x: gd.losses.laplacian(MESH.with_vertices(x)), V),
    "cotangents": (lambda x: gd.losses.laplacian(MESH.with_vertices(x), kind="cotangent"), V),
    "flatness": (lambda x: gd.losses.flatness(MESH.with_vertices(x)), V),
    "edge_length": (lambda x: gd.losses.edge_length(MESH.with_vertices(x)), V),
    "normal_consistency": (lambda x: gd.losses.normal_consistency(MESH.with_vertices(x)), V),
    "face_normals": (lambda x: MESH.with_vertices(x).face_normals, V),
    "vertex_normals": (lambda x: MESH.with_vertices(x).vertex_normals, V),
    **{
        f"{name} {coverage}": (rendered(name, coverage=coverage, backend="reference"), V)
        for name in ("alpha", "rgb", "depth")
        for coverage in ("faces", "contour")
    },
    "softmax": (rendered("rgb", depth="softmax", backend="reference"), V),
    "sort": (rendered("rgb", depth="sort", backend="reference"), V),
    "front_to_back": (lambda z: gd.render.front_to_back(WEIGHTS.abs(), z, temperature=0.2), UP),
    "relaxed_min": (lambda x: gd.soft.relaxed_min(x, OTHER[:6], temperature=0.2), CLOUD),
    "quantile": (lambda x: gd.soft.quantile(x, 0.4, temperature=0.2), CLOUD),
    "selection": (lambda x: gd.soft.selection(x, 1.5, temperature=0.2), CLOUD),
    "trimmed": (lambda x: gd.soft.trimmed_mean(x, 0.5, temperature=0.2), CLOUD),
    "soft_nearest": (lambda x: gd.transport.soft_nearest(x, OTHER, 2, temperature=0.2).distance, CLOUD),
    **{
        f"sort_matrix {name}": (lambda x, name=name: gd.soft.sort_matrix(x, name, temperature=0.2, rows=2), CLOUD)
        for name in ("softsort", "neuralsort", "odd_even", "splitter")
    },
    "reference.rasterize": (
        lambda c: reference.rasterize(c, MESH.faces, LAYOUT, image_size=(8, 8)).depth.nan_to_num(posinf=0),
        CLIP,
    ),
    "surface": (lambda c: surface(c)(PLACES, PLACES), CONTROL),
    "grid": (lambda c: surface(c).grid(4, 5), CONTROL),
    "parameters": (lambda u: surface(CONTROL)(u, u), PLACES),
    "knots": (lambda k: reference.spline(CONTROL, [k, KNOTS], [PLACES, PLACES], [3, 3]), KNOTS),
    "basis": (lambda u: ops.basis(u, KNOTS, 3)[1], PLACES),
    "area": (lambda c: gd.splines.area(surface(c)), CONTROL),
    "elevated": (lambda c: gd.splines.elevated(surface(c)).control_points, CONTROL),
    "fit_surface": (lambda p: gd.splines.fit_surface(p, (5, 5), (3, 3)).surface.control_points, some(9, 9, 3)),
    "geodesic": (lambda x: gd.scene.geodesic(MESH.with_vertices(x), 0), V + 0.1 * (9 * V.cumsum(0)).sin()),
    "component_means": (lambda p: gd.render.component_means(p, background="components")[0], WEIGHTS.abs()),
    "fit_pieces": (lambda x: gd.splines.fit_pieces(x, 2, 1).values, CLOUD),
    "chamfer": (lambda x: gd.chamfer(x, OTHER), CLOUD),
    "hausdorff": (lambda x: gd.transport.hausdorff(x, OTHER), CLOUD),
    "point_mesh_distance": (lambda x: gd.point_mesh_distance(x, MESH, signed=True), CLOUD),
    "emd": (lambda x: gd.transport.emd(x, OTHER[:6]), CLOUD),
    "lse": (lambda x: ops.lse(x, OTHER, torch.zeros(7, dtype=D), 0.1), CLOUD),
    "apply": (lambda x: ops.apply(x, OTHER, OTHER[:, 0], CLOUD[:, 0], OTHER, 0.5), CLOUD),
    "blend": (lambda x: ops.blend(x, INDEX, WEIGHTS), CLOUD),
    "sample": (lambda uv: ops.sample(some_image(), uv, NONE), some(5, 2)),
    "reflect": (lambda n: ops.reflect(ROWS, ONE, NONE, n, UP, parallel_view=True), WEIGHTS),
    "composite": (lambda a: ops.composite(a, CLOUD[:2], torch.tensor([0, 3]), OTHER[:1]), some(5)),
    **{f"cdf {n}": (lambda x, n=n: gd.soft.as_distribution(n).cdf(x), some(9) - 0.4) for n in gd.soft.DISTRIBUTIONS},
    **{f"⊥ {n}": (lambda x, n=n: gd.soft.as_tconorm(n).aggregate(x, dim=0), some(5, 3) / 3) for n in gd.soft.TCONORMS},
}

REFUSED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor, str]] = {
    **{
        f"{name} {coverage}": (rendered(name, coverage=coverage), V, "Renderer: backend='reference'")
        for name in ("alpha", "rgb")
        for coverage in ("faces", "edges", "contour")
    },
    "scale": (lambda s: gd.Renderer(8, scale=s)(MESH, EYE).alpha, torch.tensor(0.1, dtype=D), "backend='reference'"),
    "rasterize": (lambda x: gd.rasterize(MESH.with_vertices(x), EYE, 8).depth, V, "reference.rasterize"),
    "fragments": (lambda x: gd.fragments(MESH.with_vertices(x), EYE, 8, k=2).depth, V, "reference.fragments"),
    "visible": (
        lambda c: ops.visible(c, MESH.faces, LAYOUT, image_size=(8, 8)).barycentric,
        CLIP,
        "reference.visible",
    ),
    "sinkhorn": (lambda x: gd.sinkhorn(x, OTHER, epsilon=0.1).cost, CLOUD, "sinkhorn has no"),
    "SinkhornLoss": (lambda x: gd.SinkhornLoss(0.1)(x, OTHER), CLOUD, "sinkhorn has no"),
    "robust_pool": (lambda x: gd.robust_pool(x, "huber", alpha=0.3), some(2, 3, 5), "robust_pool has no"),
    "closest_point": (
        lambda p: gd.splines.closest_point(surface(CONTROL), p).points,
        OTHER,
        "closest_point has no",
    ),
}


def some_image() -> torch.Tensor:
    return torch.linspace(0, 1, 2 * 3 * 4, dtype=D).reshape(1, 3, 4, 2).sin()


def by_dual(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    with forward_ad.dual_level():
        out = function(forward_ad.make_dual(x, t))
        tangent = forward_ad.unpack_dual(out).tangent
        return torch.zeros_like(out) if tangent is None else tangent


def direction(x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=D)


@pytest.mark.parametrize("name", WORKS)
def test_forward_mode_gives_the_difference_quotient(name: str) -> None:
    function, x = WORKS[name]
    t, h = direction(x), 1e-6
    if name == "knots":
        t = t * (KNOTS > 0) * (KNOTS < 1)
    with torch.no_grad():
        expected = (function(x + h * t) - function(x - h * t)) / (2 * h)
    found = by_dual(function, x, t)
    assert expected.abs().max() > 0 or "heaviside" in name or "yager" in name
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "name", ["to_clip", "flatness", "vertex_normals", "alpha faces", "rgb contour", "surface", "lse"]
)
def test_torch_func_gives_the_difference_quotient(name: str) -> None:
    function, x = WORKS[name]
    t, h = direction(x), 1e-6
    with torch.no_grad():
        expected = (function(x + h * t) - function(x - h * t)) / (2 * h)
    _, found = torch.func.jvp(function, (x,), (t,))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    gradient = torch.func.grad(lambda x: function(x).sum())(x)
    torch.testing.assert_close((gradient * t).sum(), expected.sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_forward_mode_says_so(name: str) -> None:
    function, x, match = REFUSED[name]
    t = torch.ones_like(x)
    with pytest.raises(RuntimeError, match=match):
        by_dual(function, x, t)
    with pytest.raises(RuntimeError, match=match):
        by_dual(function, x.clone().requires_grad_(), t)
    with pytest.raises(RuntimeError, match=match):
        torch.func.jvp(function, (x,), (t,))
    with pytest.raises(RuntimeError, match=match):
        torch.func.grad(lambda x: function(x).sum())(x)


def test_roots_have_tangents() -> None:
    x, t = torch.tensor([1.0, 4.0], dtype=D), torch.tensor([1.0, 3.0], dtype=D)
    torch.testing.assert_close(by_dual(root, x, t)[:, 0], t / (2 * x.sqrt()))  # of √x
    with pytest.raises(RuntimeError, match=r"implicit\.root does not take part in torch\.func"):
        torch.func.jvp(root, (x,), (t,))


@pytest.mark.parametrize("name", ["chamfer", "hausdorff", "emd", "point_mesh_distance"])
def test_searches_refuse_torch_func(name: str) -> None:
    function, x = WORKS[name]
    with pytest.raises(RuntimeError, match=r"does not take part in torch\.func"):
        torch.func.grad(lambda x: function(x).sum())(x)


def test_smoothed_knots_have_tangents_that_are_their_gradients() -> None:
    def function(knots: torch.Tensor) -> torch.Tensor:
        return reference.spline(CONTROL, [knots, KNOTS], [PLACES, PLACES], [3, 3], bandwidth=[0.1, 0.1])

    t = direction(KNOTS)
    knots = KNOTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(knots).sum(), knots)
    torch.testing.assert_close(by_dual(function, KNOTS, t).sum(), (gradient * t).sum())


def test_quantities_of_tangents_are_not_kept() -> None:
    mesh = gd.icosphere(1).to(D)
    t = direction(mesh.vertices)
    with forward_ad.dual_level():
        mesh.with_vertices(forward_ad.make_dual(mesh.vertices, t)).face_normals  # noqa: B018
    torch.func.jvp(lambda x: MESH.with_vertices(x).face_areas, (mesh.vertices,), (t,))
    assert forward_ad.unpack_dual is not None and torch.equal(mesh.face_normals, gd.icosphere(1).to(D).face_normals)


def test_every_op_refuses_when_called_directly() -> None:
    from tests.fuzz_ops import bases

    checked = set()
    for name, arguments in bases(D).items():
        op = getattr(torch.ops.geodiff, name.split("#")[0])
        for place, value in enumerate(arguments):
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                continue
            with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"has no forward-mode derivative"):
                dual = forward_ad.make_dual(value.clone(), torch.ones_like(value))
                op(*arguments[:place], dual, *arguments[place + 1 :])
        with pytest.raises(RuntimeError, match=r"does not take part in torch\.func\.vmap"):
            index = next(i for i, value in enumerate(arguments) if isinstance(value, torch.Tensor))
            torch.func.vmap(lambda x, op=op, i=index, a=arguments: op(*a[:i], x, *a[i + 1 :]))(arguments[index][None])
        checked.add(name.split("#")[0])
    assert checked == {name.split("::")[1] for name in defined_ops()}


def defined_ops() -> list[str]:
    found = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("geodiff::")}
    return sorted(name.split(".")[0] for name in found)


def test_vmap_says_what_to_use() -> None:
    with pytest.raises(
        RuntimeError, match=r"`vertices` must be outside of torch\.func\.vmap.*Leading axes are a batch"
    ):
        torch.func.vmap(lambda x: gd.losses.laplacian(MESH.with_vertices(x)))(V[None])
