# SPDX-License-Identifier: Apache-2.0
"""What a contour must get right, and an oracle for it: the distance transform of a fine hard mask."""

import torch
from scipy.ndimage import distance_transform_edt

from geodiff import icosphere, ops
from tests.scenes import (
    OCTAHEDRON,
    TETRAHEDRON,
    TWO,
    Scene,
    camera_space,
    octahedron,
    one_image,
    orthographic,
    perspective,
    tetrahedron,
)

RING = [[0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]]


def ring() -> torch.Tensor:
    """An open square with a square hole, turned a little."""
    outer = [[-0.81, -0.62, 2.0], [0.66, -0.79, 2.3], [0.78, 0.63, 2.2], [-0.69, 0.77, 1.9]]
    return perspective([*outer, *([0.45 * x + 0.03, 0.5 * y - 0.02, z] for x, y, z in outer)])


def torus(major: float = 0.6, minor: float = 0.22, rings: int = 14, sides: int = 9) -> tuple[torch.Tensor, list]:
    """A torus seen obliquely: a hole, and its far rim hidden by the near one."""
    u = torch.arange(rings, dtype=torch.float64) * (2 * torch.pi / rings)
    v = torch.arange(sides, dtype=torch.float64) * (2 * torch.pi / sides) + 0.1
    r = major + minor * v.cos()
    x, y = u.cos()[:, None] * r, u.sin()[:, None] * r
    z = (minor * v.sin()).expand(rings, sides)
    c, s = 0.55, 0.835
    points = torch.stack([x, c * y - s * z, 2.5 + s * y + c * z], dim=-1).reshape(-1, 3)
    faces = []
    for i in range(rings):
        for j in range(sides):
            a, b = i * sides + j, i * sides + (j + 1) % sides
            c_, d = (i + 1) % rings * sides + j, (i + 1) % rings * sides + (j + 1) % sides
            faces += [[a, c_, d], [a, d, b]]
    return points, faces


def bumpy(level: int = 2, seed: int = 3) -> tuple[torch.Tensor, list]:
    """A crumpled sphere: folds everywhere, and outlines of outlines."""
    mesh = icosphere(level)
    random = torch.Generator().manual_seed(seed)
    size = 1 + 0.35 * torch.randn(mesh.num_vertices, generator=random, dtype=torch.float64)
    points = 0.7 * mesh.vertices.double() * size[:, None]
    return torch.cat([points[:, :2], 2.7 - points[:, 2:]], dim=1), mesh.faces.tolist()


SHAPES: list[Scene] = [
    one_image("open mesh with a hole", ring, RING, scale=0.05),
    one_image("torus, self-occluding", lambda: camera_space(torus()[0].tolist()), torus()[1], scale=0.05),
    one_image("crumpled sphere", lambda: camera_space(bumpy()[0].tolist()), bumpy()[1], scale=0.05),
    one_image(
        "two objects, one partly behind the other",
        lambda: torch.cat(
            [
                camera_space([[0.7 * x - 0.5, 0.7 * y - 0.2, z] for x, y, z in octahedron(0.9)]),
                camera_space([[0.6 * x + 0.5, 0.6 * y + 0.2, z + 1] for x, y, z in tetrahedron()]),
            ]
        ),
        [*OCTAHEDRON, *([a + 6, b + 6, c + 6] for a, b, c in TETRAHEDRON)],
        scale=0.05,
    ),
    one_image(
        "two triangles crossing like a star",
        lambda: perspective(
            [[-0.7, -0.45, 2], [0.75, -0.4, 2], [0.02, 0.8, 2], [-0.68, 0.4, 3], [0.7, 0.43, 2], [0.01, -0.78, 2]]
        ),
        TWO,
        scale=0.05,
    ),
    one_image(
        "an island in a hole",
        lambda: torch.cat([ring(), perspective([[-0.12, -0.1, 2.0], [0.15, -0.07, 2.0], [0.02, 0.14, 2.0]])]),
        [*RING, [8, 9, 10]],
        scale=0.03,
    ),
    one_image(
        "squares that abut, unwelded, with a T-junction",
        lambda: orthographic(
            [
                [-0.7, -0.6, 2], [0.1, -0.6, 2], [0.1, 0.55, 2], [-0.7, 0.55, 2],
                [0.1, -0.3, 2], [0.8, -0.3, 2], [0.8, 0.3, 2], [0.1, 0.3, 2],
            ]
        ),
        [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]],
        scale=0.05,
    ),
    one_image(
        "a strip through the near plane",
        lambda: camera_space([[-0.3, -0.5, 1.3], [0.45, -0.4, 1.1], [-0.2, 0.16, -0.2], [0.3, 0.22, -0.3]]),
        [[0, 1, 2], [1, 3, 2]],
        scale=0.05,
    ),
]  # fmt: skip


def transformed_mask(scene: Scene, fine: int) -> tuple[torch.Tensor, float]:
    """The signed distance (NDC) from pixel centres to the boundary of the hard mask, and how far it may be off.

    From a mask `fine` times finer (odd, so that centres coincide) and wider by a margin, since the outline goes on
    outside of the image. A pixel's distance to a mask's boundary is known to a fine pixel's diagonal.
    """
    height, width = scene.image_size
    clip, faces, layout = scene.tensors()
    # Zoom out, so that the image is the middle third.
    clip = torch.cat([clip[:, :2] / 3, clip[:, 2:]], dim=1)
    size = (3 * height * fine, 3 * width * fine)
    hard = ops.rasterize(clip, faces, layout, image_size=size, near=scene.near).face_id >= 0
    step = 2 / min(height, width) / fine
    images = []
    for mask in hard:
        inside = torch.from_numpy(distance_transform_edt(mask.numpy()))
        outside = torch.from_numpy(distance_transform_edt(~mask.numpy()))
        signed = torch.where(mask, inside - 0.5, 0.5 - outside) * step
        rows = slice(height * fine + fine // 2, 2 * height * fine, fine)
        columns = slice(width * fine + fine // 2, 2 * width * fine, fine)
        images.append(signed[rows, columns])
    return torch.stack(images), step * 2**0.5
