# SPDX-License-Identifier: Apache-2.0
"""Colour, light and texture: against closed forms, and every path of the gradient against finite differences."""

import math

import pytest
import torch

import geodiff as gd
from tests.helpers import random_cotangent

DOUBLE = torch.float64
EYE = {"distance": 2.7, "elevation_deg": 20.0, "azimuth_deg": 30.0, "fov_deg": 60.0}


def camera(dtype: torch.dtype = DOUBLE, **more) -> gd.Camera:
    values = {name: torch.tensor(value, dtype=dtype) for name, value in EYE.items()}
    return gd.Camera.orbit(**{**values, **more})


def sphere_uv(points: torch.Tensor) -> torch.Tensor:
    """Texture coordinates of a sphere whose seam no test looks at."""
    u = torch.atan2(points[:, 0], points[:, 2]) / (2 * math.pi) + 0.4871  # not on the centre of a texel
    return torch.stack([u, points[:, 1] * 0.45 + 0.4871], dim=1)


def bumpy(**attributes) -> gd.Mesh:
    """A closed mesh without symmetries."""
    ball = gd.icosphere(1).to(dtype=DOUBLE)
    v = ball.vertices
    return gd.Mesh(v * (1 + 0.25 * v[:, :1] - 0.1 * v[:, 1:2] * v[:, 2:]), ball.faces, **attributes)


LIGHTS = {
    "ambient": torch.tensor([0.3, 0.2, 0.25], dtype=DOUBLE),
    "direction": torch.tensor([1.0, 2.0, 1.5], dtype=DOUBLE),
    "sun": torch.tensor([0.6, 0.5, 0.4], dtype=DOUBLE),
    "position": torch.tensor([-1.0, 1.6, 2.2], dtype=DOUBLE),
    "lamp": torch.tensor([0.5, 0.7, 0.9], dtype=DOUBLE),
    "attenuation": torch.tensor([0.5, 0.1, 0.2], dtype=DOUBLE),
    "specular": torch.tensor([0.4, 0.3, 0.5], dtype=DOUBLE),
    "shininess": torch.tensor(5.0, dtype=DOUBLE),
}


def lit(values: dict[str, torch.Tensor]) -> tuple[list, gd.Material]:
    lights = [
        gd.AmbientLight(values["ambient"]),
        gd.DirectionalLight(values["direction"], values["sun"]),
        gd.PointLight(values["position"], values["lamp"], values["attenuation"]),
    ]
    return lights, gd.Material(0.9, (0.8, 0.9, 1.0), values["specular"], values["shininess"])


SIZE = (13, 16)


class Scene:
    """One scene whose every number is a leaf."""

    def __init__(self, **options) -> None:
        mesh = bumpy()
        self.leaves = {
            "vertices": mesh.vertices,
            "texture": torch.rand(9, 11, 3, dtype=DOUBLE),
            "uv": sphere_uv(gd.icosphere(1).vertices.double()),
            "vertex_colors": 0.5 + 0.5 * torch.rand(mesh.num_vertices, 3, dtype=DOUBLE),
            "face_colors": 0.5 + 0.5 * torch.rand(mesh.num_faces, 3, dtype=DOUBLE),
            "background": torch.rand(*SIZE, 3, dtype=DOUBLE),
            "scale": torch.tensor(0.08, dtype=DOUBLE),
            "gamma": torch.tensor(0.2, dtype=DOUBLE),
            **{name: torch.tensor(value, dtype=DOUBLE) for name, value in EYE.items()},
            **LIGHTS,
        }
        self.faces, self.options = mesh.faces, options

    def __call__(self, changed: dict[str, torch.Tensor]) -> gd.RenderOutput:
        v = {**self.leaves, **changed}
        options = {"max_error": 0.0, "outputs": ("rgb", "depth", "normal", "face_id", "uv"), **self.options}
        lights, material = lit(v)
        mesh = gd.Mesh(
            v["vertices"],
            self.faces,
            vertex_colors=v["vertex_colors"],
            face_colors=v["face_colors"],
            uv=v["uv"],
            texture=v["texture"],
            material=material,
        )
        render = gd.Renderer(SIZE, "logistic", v["scale"], gamma=v["gamma"], background=v["background"], **options)
        eye = gd.Camera.orbit(**{name: v[name] for name in EYE})
        return render(mesh, eye, None if options.get("shading") == "unlit" else lights)


UNSEEN = {  # what has no influence, and hence no gradient
    "unlit": {"ambient", "direction", "sun", "position", "lamp", "attenuation", "specular", "shininess"},
    "lambert": {"specular", "shininess"},
    "hard": {"gamma"},
}


@pytest.mark.parametrize(
    "options",
    [
        {"shading": "unlit"},
        {"shading": "lambert", "normals": "flat"},
        {"shading": "gouraud"},
        {"shading": "gouraud", "normals": "flat"},
        {"shading": "phong"},
        {"shading": "phong", "supersample": 2},
        {"shading": "phong", "depth": "softmax", "max_fragments": 80},
        {"shading": "unlit", "depth": "softmax", "max_fragments": 80, "background_depth": 0.1},
    ],
    ids=str,
)
def test_the_gradient_of_rgb_is_complete(options: dict):
    scene = Scene(**options)
    base = scene({})
    cotangent = random_cotangent(base.rgb)

    def stable(changed: dict) -> torch.Tensor:
        """Pixels whose face, texels and side of an edge stay as they are."""
        out = scene(changed)
        texel = torch.floor(out.uv * out.uv.new_tensor([11.0, 9.0]) + 0.5)
        first = torch.floor(base.uv * base.uv.new_tensor([11.0, 9.0]) + 0.5)
        return (out.face_id == base.face_id) & (texel == first).all(dim=-1) & ((out.rgb - base.rgb).norm(dim=-1) < 1e-3)

    absent = set().union(*(UNSEEN.get(str(value), set()) for value in options.values()))
    if options.get("depth") != "softmax":
        absent |= UNSEEN["hard"]
    step = 1e-6
    rows = torch.ones_like(base.alpha, dtype=torch.bool)
    directions = {name: torch.randn_like(value) for name, value in scene.leaves.items()}
    for name, way in directions.items():
        scaled = way * (1 + scene.leaves[name].abs().max() * (name in EYE))
        directions[name] = scaled
        for sign in (-2, 2):
            rows &= stable({name: scene.leaves[name] + sign * 5 * step * scaled})
    if "supersample" not in options and options.get("depth") != "softmax":
        # Colours jump where the soft rim passes from one face to another: few pixels.
        assert rows.double().mean() > 0.8
    leaves = {name: value.clone().requires_grad_() for name, value in scene.leaves.items()}
    total = (scene(leaves).rgb * cotangent)[rows].sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    wrong = []
    for (name, value), gradient in zip(scene.leaves.items(), gradients, strict=True):
        if name in absent:
            assert gradient is None or not gradient.any(), name
            continue
        assert gradient is not None and gradient.any() and torch.isfinite(gradient).all(), name
        ahead, back = (
            float((scene({name: value + sign * step * directions[name]}).rgb * cotangent)[rows].sum())
            for sign in (1, -1)
        )
        numeric, analytic = (ahead - back) / (2 * step), float((gradient * directions[name]).sum())
        size = float((gradient * directions[name]).abs().sum())
        # Truncation, step² times a third derivative of about 1/τ²; rounding of the sum over the step.
        if abs(numeric - analytic) > 1e-5 * size + 1e-7:
            wrong.append(f"{name}: {analytic:.9g}, difference {numeric:.9g}")
    assert not wrong, wrong
