# SPDX-License-Identifier: Apache-2.0
"""Meshes, cameras and lights that tests of colour share."""

import math

import torch

import geodiff as gd

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


def square(z: float = 0.0, dtype: torch.dtype = DOUBLE, **attributes) -> gd.Mesh:
    """A square from −1 to 1 that faces +z, with texture coordinates (0, 0) at the lower left."""
    v = torch.tensor([[-1.0, -1, z], [1, -1, z], [1, 1, z], [-1, 1, z]], dtype=dtype)
    uv = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], dtype=dtype)
    return gd.Mesh(v, [[0, 1, 2], [0, 2, 3]], uv=uv, **attributes)


def front(**more) -> gd.Camera:
    return gd.Camera.orthographic(eye=(0, 0, 5), extent=2.0, **more)
