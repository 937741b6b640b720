# SPDX-License-Identifier: Apache-2.0
"""The reference backend renders everything on a machine without the extension, and what the kernels render."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.native import cpu
from tests.helpers import assert_close_relative, rounding_bound
from tests.lit_scenes import DOUBLE, LIGHTS, bumpy, camera, lit, sphere_uv

MAPS = ("rgb", "depth", "normal", "face_id", "uv")
SUNS, MATERIAL = lit(LIGHTS)
EYES = camera(azimuth_deg=torch.tensor([30.0, 110.0], dtype=DOUBLE))


@contextlib.contextmanager
def no_kernels(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a machine where the extension was never built."""
    with patch.context() as patched:
        cpu.extension.cache_clear()
        patched.setitem(sys.modules, "geodiff.native._cpu", None)
        with pytest.raises(RuntimeError, match="cannot be imported"):
            cpu.extension()
        yield
    cpu.extension.cache_clear()


def mesh_of(look: str, vertices: torch.Tensor, faces: torch.Tensor) -> gd.Mesh:
    torch.manual_seed(0)
    parts: dict[str, Any] = {"uv": sphere_uv(vertices.detach()), "material": MATERIAL}
    image = torch.rand(16, 12, 3, dtype=DOUBLE)
    if look == "coloured":
        parts |= {"vertex_colors": torch.rand(len(vertices), 3, dtype=DOUBLE)}
        parts |= {"face_colors": torch.rand(len(faces), 3, dtype=DOUBLE)}
    else:
        kinds = {"textured": {}, "mipmaps": {"mipmaps": True}, "nearest": {"filter": "nearest"}}
        parts |= {"texture": gd.Texture(image, **kinds[look])}
    return gd.Mesh(vertices, faces, **parts)


def pictures(backend: str, look: str, options: dict[str, Any], meshes: int, own_lights: bool) -> list[torch.Tensor]:
    """Values and gradients in the vertices."""
    ball = bumpy()
    leaves = [(ball.vertices * size).requires_grad_() for size in (1.0, 0.7)[:meshes]]
    made = [mesh_of(look, leaf, ball.faces) for leaf in leaves]
    own = {"scale": 0.05, "outputs": MAPS, "max_error": 0.0, **options}
    render = gd.Renderer((9, 11), backend=backend, **own)
    out = render(made[0] if meshes == 1 else gd.MeshBatch(made), EYES, SUNS if own_lights else None)
    values = [getattr(out, name) for name in ("alpha", *render.outputs)]
    smooth = [torch.where(v.isfinite(), v, 0.0) for v in values if v.requires_grad]
    weights = [torch.linspace(-1, 1, v.numel(), dtype=DOUBLE).reshape(v.shape) for v in smooth]
    loss = sum(((v * w).sum() for v, w in zip(smooth, weights, strict=True)), torch.zeros((), dtype=DOUBLE))
    return [*(v.detach() for v in values), *torch.autograd.grad(loss, leaves)]


# Of faces that share the nearest corner, rounding decides which is the heaviest, and which the last of a few.
SOFTMAX = {"depth": "softmax", "max_fragments": 80, "outputs": ("rgb", "depth", "normal", "uv")}
SHADINGS = [
    (shading, normals) for shading in ("unlit", "lambert", "phong", "gouraud") for normals in ("smooth", "flat")
]


@pytest.mark.parametrize(
    ("look", "options", "meshes"),
    [
        *(("coloured", {"shading": shading, "normals": normals}, 1) for shading, normals in SHADINGS),
        *(("textured", {"shading": shading, "outputs": "rgb"}, 1) for shading in ("unlit", "lambert", "phong")),
        *(("mipmaps", {"coverage": coverage}, 1) for coverage in ("faces", "edges", "contour")),
        *(("mipmaps", {"coverage": coverage, **SOFTMAX}, 2) for coverage in ("faces", "edges", "contour")),
        ("nearest", {"coverage": "edges", "outputs": "rgb"}, 2),
        ("nearest", {"supersample": 2, "background": (0.1, 0.2, 0.3)}, 2),
        ("textured", {"shading": "gouraud", "normals": "flat"}, 2),
        ("textured", {**SOFTMAX, "background_depth": 0.1, "max_fragments": None, "outputs": "rgb"}, 1),
        ("coloured", {**SOFTMAX, "depth_range": (1.0, 5.0), "supersample": 2}, 1),
        ("coloured", {"distribution": "cauchy.reversed", "tconorm": "yager(2)", "outputs": "depth"}, 2),
    ],
    ids=str,
)
def test_every_output_and_shading(
    look: str, options: dict[str, Any], meshes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    lights = options.get("shading") != "unlit" and "rgb" in options.get("outputs", MAPS)
    with no_kernels(monkeypatch):
        twin = pictures("reference", look, options, meshes, lights)
    for got, wanted in zip(twin, pictures("kernel", look, options, meshes, lights), strict=True):
        finite = wanted.isfinite()
        assert torch.equal(got.isfinite(), finite)
        # Of size over τ = 20, twice for gradients, and 50 more for texels a unit of uv and the shininess.
        assert_close_relative(got[finite].double(), wanted[finite].double(), rounding_bound(DOUBLE, 20_000))


@pytest.mark.parametrize("meshes", [1, 2])
def test_the_hard_raster_and_fragments(meshes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ball = bumpy()
    mesh = ball if meshes == 1 else gd.MeshBatch([ball, ball.scaled(0.7)])

    def seen(backend: str) -> list[torch.Tensor]:
        hard = gd.rasterize(mesh, EYES, (9, 11), backend=backend)
        some = gd.fragments(mesh, EYES, (9, 11), k=2, backend=backend)
        points = some.interpolate(mesh.vertices)
        return [hard.face_id, hard.barycentric, some.face_id, some.distance, some.barycentric, points]

    with no_kernels(monkeypatch):
        twin = seen("reference")
        for function in (gd.rasterize, gd.fragments):
            with pytest.raises(RuntimeError, match="cannot be imported"):
                function(mesh, EYES, 8)
    for got, wanted in zip(twin, seen("kernel"), strict=True):
        assert_close_relative(got.double(), wanted.double(), rounding_bound(DOUBLE, 100))


@pytest.mark.parametrize("function", [gd.rasterize, gd.fragments])
def test_an_unknown_backend_is_named(function: Any) -> None:
    with pytest.raises(ValueError, match=rf"{function.__name__}: `backend` must be one of kernel, reference.*'kernel'"):
        function(gd.icosphere(0), camera(), 8, backend="kernels")
