# SPDX-License-Identifier: Apache-2.0
"""A glazed vase on a tiled floor: textures, lights, highlights, and the maps that come with the picture.

python demos/textured_render.py -o out [--quick]

The shapes are a profile turned about an axis and a square; the texture is computed here. Beside the picture: normals,
depth and texture coordinates. Printed: how the colour of either half changes as the lamp moves, by its gradient.
"""

import argparse
import math
import pathlib

import torch

import geodiff as gd
from geodiff.scene.images import write_image


def grid(points: torch.Tensor, uv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices, faces and texture coordinates of a grid (N, M, 3) of points."""
    rows, columns = points.shape[:2]
    corner = (torch.arange(rows - 1)[:, None] * columns + torch.arange(columns - 1)).flatten()
    a, b, c, d = corner, corner + 1, corner + columns + 1, corner + columns
    faces = torch.cat([torch.stack([a, b, c], dim=1), torch.stack([a, c, d], dim=1)])
    return points.reshape(-1, 3), faces, uv.reshape(-1, 2)


def vase(rings: int, steps: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A profile of height 2 turned about the y axis; u goes around, v up, over the left half of the texture."""
    v = torch.linspace(0, 1, rings)
    angle = torch.linspace(-math.pi, math.pi, steps)  # the seam is at the back
    radius = 0.42 + 0.24 * torch.sin(2 * math.pi * v * 0.9 - 0.5) + 0.1 * (v - 0.8).clamp(min=0) * 10 * v
    radius = radius * (v * 40).clamp(max=1)  # closed below
    height = (2 * v - 1)[:, None].expand(rings, steps)
    points = torch.stack([radius[:, None] * angle.sin(), height, radius[:, None] * angle.cos()], dim=-1)
    u = torch.linspace(0.01, 0.49, steps).expand(rings, steps)
    return grid(points, torch.stack([u, v[:, None].expand(rings, steps)], dim=-1))


def floor(size: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A square at the foot of the vase, over the right half of the texture."""
    side = torch.linspace(-size, size, 12)
    z, x = torch.meshgrid(-side, side, indexing="ij")
    v, u = torch.meshgrid(torch.linspace(0, 1, 12), torch.linspace(0.51, 0.99, 12), indexing="ij")
    return grid(torch.stack([x, torch.full_like(x, -1.0), z], dim=-1), torch.stack([u, v], dim=-1))


def pattern(size: int) -> torch.Tensor:
    """Paint the texture (size, 2·size, 3): bands and petals for the vase, worn tiles for the floor."""
    v, u = torch.meshgrid(1 - (torch.arange(size) + 0.5) / size, (torch.arange(size) + 0.5) / size, indexing="ij")
    clay, cream, blue = (torch.tensor(c) for c in ((0.72, 0.33, 0.18), (0.93, 0.87, 0.72), (0.10, 0.26, 0.50)))

    def mix(a: torch.Tensor, b: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
        return a + (b - a) * part.clamp(0, 1)[..., None]

    def sharp(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(120 * x)

    around = 8 * 2 * math.pi * (u - 0.02) / 0.96  # the vase uses this part of it
    petals = sharp(torch.sin(around) * 0.09 + 0.12 - (v - 0.45).abs())
    image = mix(cream.expand(size, size, 3), blue, petals)
    image = mix(image, clay, sharp(torch.cos(around) * 0.05 + 0.03 - (v - 0.45).abs()))
    for height, width in ((0.14, 0.03), (0.72, 0.02), (0.79, 0.01), (0.95, 0.08)):
        image = mix(image, clay if width > 0.015 else blue, sharp((width - (v - height).abs()) * 3))
    dark = ((u * 10).floor() + (v * 10).floor()) % 2
    joint = torch.minimum((u * 10 + 0.5) % 1 - 0.5, (v * 10 + 0.5) % 1 - 0.5).abs()
    worn = 0.06 * torch.sin(37 * u + 11 * torch.sin(23 * v)) * torch.sin(41 * v + 7 * torch.sin(19 * u))
    light, grey = torch.tensor([0.72, 0.68, 0.60]), torch.tensor([0.36, 0.38, 0.40])
    tiles = mix(light.expand(size, size, 3), grey, dark) + worn[..., None]
    tiles = mix(tiles, torch.tensor([0.25, 0.24, 0.22]), sharp(0.03 - joint) * 0.6)
    return torch.cat([image, tiles], dim=1).clamp(0, 1)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--quick", action="store_true", help="a small picture")
    options = parser.parse_args()
    height, rings, samples = (90, 40, 1) if options.quick else (480, 160, 3)

    parts = [vase(rings, 2 * rings), floor(2.6)]
    starts = [0, len(parts[0][0])]
    mesh = gd.Mesh(
        torch.cat([points for points, _, _ in parts]),
        torch.cat([faces + start for (_, faces, _), start in zip(parts, starts, strict=True)]),
        uv=torch.cat([uv for _, _, uv in parts]),
        texture=gd.Texture(pattern(128 if options.quick else 512), wrap="clamp", mipmaps=True),
        material=gd.Material(specular=0.35, shininess=40),
    )
    camera = gd.Camera.orbit(distance=4.6, elevation_deg=22, azimuth_deg=25, at=(0.0, -0.1, 0.0), fov_deg=36)
    lamp = torch.tensor([1.6, 2.4, 2.2], requires_grad=True)
    lights = [
        gd.AmbientLight((0.26, 0.28, 0.32)),
        gd.DirectionalLight((-1.0, 1.0, 0.6), (0.20, 0.24, 0.32)),
        gd.PointLight(lamp, (1.5, 1.3, 1.0), attenuation=(0.4, 0.0, 0.12)),
    ]
    size = (height, height * 4 // 3)
    rows = torch.linspace(0, 1, size[0])[:, None, None]
    sky = torch.tensor([0.55, 0.63, 0.74]) * (1 - rows) + torch.tensor([0.86, 0.86, 0.84]) * rows
    render = gd.Renderer(
        size,
        "logistic",
        scale_px=0.02,
        shading="phong",
        background=sky.expand(*size, 3),
        outputs=("rgb", "depth", "normal", "uv"),
        supersample=samples,
    )
    out = render(mesh, camera, lights)

    # Forward differences would need three more pictures; the gradient of the left and of the right half needs one each.
    half = size[1] // 2
    for name, part in (("left", out.rgb[:, :half]), ("right", out.rgb[:, half:])):
        (gradient,) = torch.autograd.grad(part.mean(), lamp, retain_graph=True)
        print(
            f"{name} half: as the lamp moves by 1, its mean colour changes by",
            *(f"{g:+.4f}" for g in gradient.tolist()),
        )

    there = torch.isfinite(out.depth)
    far, near = out.depth[there].max(), out.depth[there].min()
    depth = torch.where(there, (far - out.depth) / (far - near), 0.0)[..., None].expand(*size, 3)
    maps = [0.5 * (out.normal + 1) * there[..., None], depth, torch.cat([out.uv, 0 * out.uv[..., :1]], dim=-1)]
    third = size[0] // 3
    small = [
        torch.nn.functional.interpolate(m.permute(2, 0, 1)[None], size=(third, third * 4 // 3), mode="area")[0]
        for m in maps
    ]
    column = torch.cat(small, dim=1).permute(1, 2, 0)
    page = torch.cat([out.rgb[: column.shape[0]], column], dim=1)
    options.output.mkdir(parents=True, exist_ok=True)
    write_image(options.output / "textured_render.png", page)
    print(f"Look at {options.output / 'textured_render.png'}")


if __name__ == "__main__":
    main()
