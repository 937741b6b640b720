# SPDX-License-Identifier: Apache-2.0
"""Shaders of one's own: what they are given, their pictures and gradients, and what is said of wrong ones."""

from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.render import SurfacePoints
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, rounding_bound
from tests.lit_scenes import DOUBLE, LIGHTS, bumpy, camera, front, lit, sphere_uv, square

EYES = camera(azimuth_deg=torch.tensor([30.0, 110.0], dtype=DOUBLE))
SUNS, MATERIAL = lit(LIGHTS)


def as_normals(points: SurfacePoints) -> torch.Tensor:
    """The normals as colours."""
    return 0.5 + 0.5 * points.normal


class Toon:
    """Light in steps, smooth ones so that it has a gradient, and a dark rim."""

    def __call__(self, points: SurfacePoints) -> torch.Tensor:
        diffuse, specular = points.light()
        steps = diffuse - 0.1 * torch.sin(12 * diffuse)
        rim = (points.normal * points.to_viewer).sum(dim=-1, keepdim=True).sigmoid()
        return points.albedo * steps * rim + specular


def phong_again(points: SurfacePoints) -> torch.Tensor:
    """Phong's formula, from what a shader is given."""
    n, v, material = points.normal, points.to_viewer, points.material
    diffuse = specular = torch.zeros_like(n)
    for light in points.lights:
        if isinstance(light, gd.AmbientLight):
            diffuse = diffuse + material.ambient * light.color
            continue
        to_light = light.direction if isinstance(light, gd.DirectionalLight) else light.position - points.position
        r = to_light.norm(dim=-1, keepdim=True)
        fade = 1.0
        if isinstance(light, gd.PointLight):
            a, b, c = light.attenuation
            fade = a + b * r + c * r * r
        way = to_light / r
        facing = (n * way).sum(dim=-1, keepdim=True)
        diffuse = diffuse + material.diffuse * light.color * facing.clamp(min=0) / fade
        mirrored = ((2 * facing * n - way) * v).sum(dim=-1, keepdim=True).clamp(min=1e-30) * (facing > 0)
        specular = specular + material.specular * light.color * mirrored**material.shininess / fade
    return points.albedo * diffuse + specular


def look(vertices: torch.Tensor, faces: torch.Tensor) -> gd.Mesh:
    torch.manual_seed(3)
    colors = torch.rand(faces.shape[0], 3, dtype=DOUBLE)
    texture = gd.Texture(torch.rand(8, 8, 3, dtype=DOUBLE))
    uv = sphere_uv(vertices.detach().reshape(-1, 3)[:42])
    return gd.Mesh(vertices, faces, uv=uv, texture=texture, face_colors=colors, material=MATERIAL)


def scene(kind: str) -> tuple[Any, gd.Camera]:
    ball = bumpy()
    if kind == "mesh":
        return look(ball.vertices, ball.faces), camera()
    if kind == "batch":
        return look(torch.stack([ball.vertices, 0.7 * ball.vertices]), ball.faces), EYES
    return gd.MeshBatch([look(size * ball.vertices, ball.faces) for size in (1.0, 0.7)]), EYES


def render(shading: Any, **options: Any) -> gd.Renderer:
    return gd.Renderer((9, 11), **{"scale": 0.05, "outputs": "rgb", "shading": shading, **options})


@pytest.mark.parametrize(
    ("kind", "backend", "depth"),
    [
        *((kind, "kernel", depth) for kind in ("mesh", "batch", "mesh batch") for depth in ("hard", "softmax")),
        ("batch", "reference", "hard"),
        ("mesh batch", "reference", "softmax"),
    ],
)
def test_the_four_rebuilt(kind: str, backend: str, depth: str) -> None:
    mesh, eye = scene(kind)
    options = {"backend": backend, "depth": depth, "max_fragments": 80}
    pairs: list[tuple[Any, str, Any]] = [
        (phong_again, "phong", SUNS),
        (lambda points: points.albedo * points.light(highlights=False)[0], "lambert", SUNS),
        (lambda points: points.albedo * points.of_image(points.material.diffuse), "unlit", None),
        (gd.render.gouraud, "gouraud", SUNS),
    ]
    for own, name, lights in pairs:
        got, wanted = (render(shading, **options)(mesh, eye, lights).rgb for shading in (own, name))
        assert_close_relative(got, wanted, rounding_bound(DOUBLE, 1000), name)


@pytest.mark.parametrize("normals", ["smooth", "flat"])
@pytest.mark.parametrize("kind", ["mesh", "batch", "mesh batch"])
def test_normals_as_colours(kind: str, normals: str) -> None:
    mesh, eye = scene(kind)
    out = gd.Renderer(31, scale=1e-6, shading=as_normals, normals=normals, outputs=("rgb", "normal", "face_id"))(
        mesh, eye
    )
    inside = out.face_id >= 0
    assert inside.any()
    assert_close_relative(out.rgb[inside], 0.5 + 0.5 * out.normal[inside], 1e-6)  # alpha is not quite 1


def test_what_points_are() -> None:
    """On a square seen from the front, where all of it is known."""
    colors = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]], dtype=DOUBLE)
    seen: list[SurfacePoints] = []

    def looking(points: SurfacePoints) -> torch.Tensor:
        seen.append(points)
        return points.albedo

    mesh = square(z=0.5, vertex_colors=colors)
    made = gd.Renderer(8, scale=1e-6, coverage="contour", shading=looking, outputs="rgb")
    rgb = made(mesh, front()).rgb
    points = seen[0]
    assert len(points) == 64 and points.lights == [] and points.batch == () and points.mesh is mesh
    x, y, z = points.position.unbind(1)
    assert_close_relative(z, torch.full_like(z, 0.5), rounding_bound(DOUBLE))
    assert_close_relative(points.uv, torch.stack([x + 1, y + 1], dim=1) / 2, rounding_bound(DOUBLE))
    assert torch.equal(points.normal, torch.tensor([0.0, 0, 1], dtype=DOUBLE).expand(64, 3))
    assert_close_relative(points.to_viewer, points.normal, rounding_bound(DOUBLE))
    assert_close_relative(points.interpolate(colors), points.albedo, rounding_bound(DOUBLE))
    assert_close_relative(points.interpolate(mesh.uv, mesh.uv_faces), points.uv, rounding_bound(DOUBLE))
    assert torch.equal(points.of_face(torch.eye(2, dtype=DOUBLE)).argmax(dim=1), points.face)
    assert torch.equal(points.of_image(torch.arange(2, dtype=DOUBLE)), torch.arange(2, dtype=DOUBLE).expand(64, 2))
    assert_close_relative(rgb.reshape(-1, 3), points.albedo, 1e-6)
    plain = made(gd.Mesh(mesh.vertices, mesh.faces), front()).rgb
    assert_close_relative(plain, torch.ones_like(plain), 1e-6)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("kind", ["mesh", "mesh batch"])
def test_gradients_are_derivatives(kind: str, backend: str) -> None:
    mesh, eye = scene(kind)
    made = render(Toon, backend=backend, max_error=0.0)
    # With the edges of the mesh away from pixel centres no other face comes to be seen within a step.
    lamp = LIGHTS["lamp"]

    def picture(vertices: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
        lights = [gd.AmbientLight(0.2), gd.PointLight(LIGHTS["position"], color)]
        return made(mesh.with_vertices(vertices), eye, lights).rgb

    assert_gradient_is_derivative(picture, [mesh.vertices, lamp], 1e-6, relative=1e-4, directions=2)


def test_a_network_is_trained() -> None:
    """A shader with weights of its own, in float32."""
    torch.manual_seed(0)

    class Field(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(3, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))

        def forward(self, points: SurfacePoints) -> torch.Tensor:
            return self.layers(points.position).sigmoid()

    field, ball, eye = Field(), gd.icosphere(1), gd.Camera.orbit(2.7)
    target = gd.Renderer(12, shading=lambda points: 0.5 + 0.5 * points.position, outputs="rgb")(ball, eye).rgb
    made = gd.Renderer(12, shading=field, outputs="rgb")
    optimizer = torch.optim.Adam(field.parameters(), 0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (made(ball, eye).rgb - target).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.1 * losses[0]


def test_it_is_asked_only_where_there_is_a_colour_to_make() -> None:
    def never(points: SurfacePoints) -> torch.Tensor:
        raise AssertionError

    gd.Renderer(4, shading=never, outputs=("depth", "normal"))(*scene("mesh"))
    empty = gd.Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64))
    assert gd.Renderer(4, shading=as_normals, outputs="rgb")(empty, camera(torch.float32)).rgb.shape == (4, 4, 3)


def test_the_built_in_ones_want_lights_as_by_name() -> None:
    mesh, eye = scene("mesh")
    for shader in (gd.render.lambert, gd.render.phong, gd.render.gouraud):
        with pytest.raises(ValueError, match=rf"`lights` must be given with shading='{shader.__name__}'; got None"):
            render(shader)(mesh, eye)
    with pytest.raises(ValueError, match="`lights` must be None with shading='unlit'; got lights"):
        render(gd.render.unlit)(mesh, eye, SUNS)


@pytest.mark.parametrize("wrong", [3, [], 0.5])
def test_what_is_no_shader_is_named(wrong: Any) -> None:
    with pytest.raises(
        TypeError, match=r"Renderer: `shading` must be one of unlit, lambert, gouraud, phong, or a call"
    ):
        gd.Renderer(4, shading=wrong)


@pytest.mark.parametrize(
    ("color", "error"),
    [
        (lambda points: points.normal[..., :2], ValueError),
        (lambda points: points.normal[:1], ValueError),
        (lambda points: points.normal.float(), TypeError),
        (lambda points: None, TypeError),
        (lambda points: 0.5, TypeError),
    ],
    ids=["channels", "points", "dtype", "nothing", "number"],
)
def test_wrong_colours_are_named(color: Any, error: type[Exception]) -> None:
    match = r"Renderer: `shading` must be a shader that returns float64 colours of shape \(\d+, 3\); got .* One colour"
    with pytest.raises(error, match=match):
        gd.Renderer(4, shading=color, outputs="rgb")(*scene("mesh"))


def test_what_a_mesh_has_not_is_named() -> None:
    with pytest.raises(ValueError, match=r"`mesh` must be with texture coordinates .*Pass Mesh"):
        gd.Renderer(4, shading=lambda points: points.uv, outputs="rgb")(bumpy(), camera())
