# SPDX-License-Identifier: Apache-2.0
"""Small scenes in clip coordinates that the twin and every kernel are tested on."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import torch

Rows = Sequence[Sequence[float]]


def perspective(rows: Rows) -> torch.Tensor:
    """Clip coordinates of points given as (x in NDC, y in NDC, depth > 0)."""
    x, y, depth = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return torch.stack([x * depth, y * depth, depth, depth], dim=-1)


def camera_space(rows: Rows) -> torch.Tensor:
    """Clip coordinates of points given as (x, y, depth of any sign) before a perspective camera of focal length 1."""
    x, y, depth = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return torch.stack([x, y, depth, depth], dim=-1)


def orthographic(rows: Rows) -> torch.Tensor:
    """Clip coordinates of points given as (x in NDC, y in NDC, depth), with w = 1."""
    x, y, depth = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return torch.stack([x, y, depth, torch.ones_like(x)], dim=-1)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A scene and what is known of it without rendering it.

    Attributes:
        name: says what is special.
        build: makes the clip coordinates `(N, 4)`, float64.
        faces: corners of all faces.
        layout: one row [vertex_start, face_start, face_count] an image.
        drawn: how many faces of each image contribute anything.
        image_size: (H, W).
        near: depth of the near plane; a power of two, so that float32 and float64 mean the same plane.
        scale: a τ at which the silhouette is neither black and white nor flat.
        step: of central differences; small beside the smallest length of the scene.
        covered: how many pixels of each image are hard covered, where that is known by counting.
        kink: why alpha has no derivative here, so that central differences do not apply, nor need gradients in float32
            be those in float64; empty where it has one.
        ties: faces tie, so that the maximum has no derivative here.
    """

    name: str
    build: Callable[[], torch.Tensor]
    faces: Rows
    layout: Sequence[Sequence[int]]
    drawn: Sequence[int]
    image_size: tuple[int, int] = (8, 8)
    near: float = 0.125
    scale: float = 0.1
    step: float = 1e-6
    covered: Sequence[int] | None = None
    kink: str = ""
    ties: bool = False

    def tensors(
        self, dtype: torch.dtype = torch.float64, device: str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return clip `(N, 4)`, faces `(F, 3)` and layout `(B, 3)`."""
        faces = torch.tensor(self.faces, dtype=torch.int64, device=device).reshape(-1, 3)
        layout = torch.tensor(self.layout, dtype=torch.int64, device=device).reshape(-1, 3)
        return self.build().to(device, dtype), faces, layout


def one_image(name: str, build: Callable[[], torch.Tensor], faces: Rows, drawn: int | None = None, **more) -> Scene:
    """Make a scene of one image that shows all faces."""
    return Scene(name, build, faces, [[0, 0, len(faces)]], [len(faces) if drawn is None else drawn], **more)


TRIANGLE = [[0, 1, 2]]
TWO = [[0, 1, 2], [3, 4, 5]]
OCTAHEDRON = [[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]
TETRAHEDRON = [[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]]
GENERIC = [[-0.61, -0.53, 2.1], [0.72, -0.37, 1.7], [0.09, 0.66, 2.9]]


def camera_rows(rows: Rows) -> Rows:
    """Turn rows (x in NDC, y in NDC, depth) into rows (x, y, depth) before the camera."""
    return [[x * depth, y * depth, depth] for x, y, depth in rows]


def turned(points: torch.Tensor, angle: float) -> torch.Tensor:
    """Turn points about a fixed skew axis, so that no pixel sees a symmetry."""
    axis = torch.tensor([0.36, 0.48, 0.8], dtype=torch.float64)
    c, s = math.cos(angle), math.sin(angle)
    along = (points @ axis)[:, None] * axis
    return along + c * (points - along) + s * torch.linalg.cross(axis.expand_as(points), points)


def octahedron(angle: float, distance: float = 2.7) -> list[list[float]]:
    """Points (x, y, depth) of a unit octahedron before the camera."""
    ends = torch.eye(3, dtype=torch.float64)
    points = turned(torch.stack([ends, -ends], dim=1).reshape(6, 3), angle)
    return torch.cat([points[:, :2], distance - points[:, 2:]], dim=1).tolist()


def tetrahedron(distance: float = 3.1) -> list[list[float]]:
    """Points (x, y, depth) of a tetrahedron before the camera."""
    points = torch.tensor([[0.0, 0.0, 1.1], [1.0, 0.1, -0.4], [-0.6, 0.8, -0.3], [-0.4, -0.9, -0.5]])
    points = turned(points.double(), 0.4)
    return torch.cat([points[:, :2], distance - points[:, 2:]], dim=1).tolist()


SCENES = [
    one_image("single triangle", lambda: perspective(GENERIC), TRIANGLE),
    one_image(
        "two overlapping, of opposite winding, one through the other",
        lambda: perspective([*GENERIC, [-0.57, 0.41, 1.6], [0.63, 0.58, 2.6], [0.13, -0.71, 2.4]]),
        TWO,
    ),
    one_image(
        "shared edge",
        lambda: perspective([[-0.71, -0.62, 2.0], [0.52, -0.77, 2.3], [0.66, 0.59, 2.2], [-0.58, 0.69, 1.9]]),
        [[0, 1, 2], [0, 2, 3]],
    ),
    one_image("octahedron", lambda: camera_space(octahedron(0.7)), OCTAHEDRON, scale=0.05),
    Scene(
        "three views of one mesh",
        lambda: torch.cat([camera_space(octahedron(angle)) for angle in (0.3, 1.9, 3.2)]),
        OCTAHEDRON,
        [[0, 0, 8], [6, 0, 8], [12, 0, 8]],
        [8, 8, 8],
    ),
    Scene(
        "two meshes, packed, the second one first",
        lambda: torch.cat([camera_space(octahedron(0.9)), camera_space(tetrahedron())]),
        [*OCTAHEDRON, *TETRAHEDRON],
        [[6, 8, 4], [0, 0, 8]],
        [4, 8],
    ),
    one_image("wide image", lambda: camera_space(octahedron(0.5)), OCTAHEDRON, image_size=(6, 11)),
    one_image("tall image of odd size", lambda: camera_space(octahedron(2.3)), OCTAHEDRON, image_size=(9, 5)),
    one_image("one pixel", lambda: perspective(GENERIC), TRIANGLE, image_size=(1, 1), covered=[1], scale=0.5),
    one_image(
        "out of the image", lambda: perspective([[1.1, 0.2, 2], [1.6, 0.4, 2], [1.3, 0.9, 2]]), TRIANGLE, covered=[0]
    ),
    one_image(
        "one face behind the camera",
        lambda: camera_space([*camera_rows(GENERIC), [0.4, 0.3, -1.5], [-0.3, 0.2, -2.0], [0.1, -0.6, -1.0]]),
        TWO,
        drawn=1,
    ),
    one_image(
        "all behind the near plane, one in the plane of the camera",
        lambda: camera_space([[0.4, 0.3, 0.0], [-0.3, 0.2, -2.0], [0.1, -0.6, 0.0625]]),
        TRIANGLE,
        drawn=0,
        covered=[0],
    ),
    one_image(
        "one corner behind the near plane",
        lambda: camera_space([[-0.9, 0.31, 1.3], [0.8, 0.47, 1.7], [0.06, -0.33, -0.4]]),
        TRIANGLE,
        scale=0.3,
    ),
    one_image(
        "two corners behind the near plane",
        lambda: camera_space([[0.11, 0.52, 1.4], [-0.21, -0.27, -0.3], [0.17, -0.19, 0.05]]),
        TRIANGLE,
        scale=0.3,
    ),
    one_image(
        "a mesh through the near plane, orthographic",
        lambda: orthographic([[0.83, -0.12, 0.9], [-0.74, 0.21, -0.2], [0.14, 0.77, 0.5], [-0.05, -0.68, 0.3]]),
        TETRAHEDRON,
        scale=0.2,
    ),
    one_image(
        "corner exactly on the near plane",
        lambda: camera_space([[-0.9, 0.3, 1.5], [0.8, 0.45, 1.75], [0.03125, -0.0625, 0.125]]),
        TRIANGLE,
        scale=0.3,
        kink="the polygon gains a vertex when the corner moves back",
    ),
    one_image(
        "corner barely behind the near plane",
        lambda: camera_space([[-0.9, 0.3, 1.5], [0.8, 0.45, 1.75], [0.03125, -0.0625, 0.125 - 2.0**-24]]),
        TRIANGLE,
        scale=0.3,
        kink="the polygon loses a vertex within the step",
    ),
    one_image(
        "degenerate by repeated indices, beside a good face",
        lambda: perspective([*GENERIC, [0.5, 0.25, 2.0]]),
        [[0, 0, 1], [0, 1, 2], [3, 3, 3]],
        drawn=1,
    ),
    one_image(
        "degenerate by position, beside a good face",
        lambda: perspective(
            [*GENERIC, [-0.75, -0.75, 2.0], [-0.25, -0.25, 2.0], [0.75, 0.75, 2.0], [0.5, 0.25, 2.0], [0.5, 0.25, 4.0]]
        ),
        [[3, 4, 5], [0, 1, 2], [5, 6, 7]],
        drawn=1,
        kink="the faces gain an area when a vertex moves",
    ),
    one_image(
        "only degenerate faces",
        lambda: perspective([[-0.75, -0.75, 2.0], [-0.25, -0.25, 2.0], [0.75, 0.75, 2.0]]),
        [[0, 1, 2], [1, 1, 2]],
        drawn=0,
        covered=[0],
        kink="the faces gain an area when a vertex moves",
    ),
    one_image(
        "tiny triangle",
        lambda: perspective([[0.13, 0.11, 2.0], [0.13011, 0.11003, 2.0], [0.13004, 0.1101, 2.0]]),
        TRIANGLE,
        step=1e-8,
    ),
    one_image(
        "sliver",
        lambda: perspective([[-0.81, -0.52, 2.0], [0.77, 0.61, 2.5], [0.13, 0.15235, 2.2]]),
        TRIANGLE,
        step=1e-8,
    ),
    one_image("two coincident faces", lambda: perspective([*GENERIC, *GENERIC]), TWO, ties=True),
    Scene("empty mesh", lambda: torch.zeros(0, 4, dtype=torch.float64), [], [[0, 0, 0]], [0], covered=[0]),
    Scene(
        "empty mesh between two others",
        lambda: torch.cat([perspective(GENERIC), camera_space(tetrahedron())]),
        [*TRIANGLE, *TETRAHEDRON],
        [[0, 0, 1], [3, 1, 0], [3, 1, 4]],
        [1, 0, 4],
    ),
    Scene("no images", lambda: perspective(GENERIC), TRIANGLE, [], []),
    one_image(
        "huge triangle over the whole image",
        lambda: perspective([[-1210.0, -1730.0, 3.0], [1940.0, -1510.0, 2.0], [90.0, 2170.0, 4.0]]),
        TRIANGLE,
        covered=[64],
        scale=400.0,
        step=1e-3,
    ),
    one_image(
        "pixels exactly on an edge",
        lambda: orthographic([[-1.25, -0.75, 2.0], [0.9375, -1.5, 2.0], [0.75, 1.25, 2.0]]),
        TRIANGLE,
        image_size=(4, 4),
        covered=[13],
        step=1e-8,  # the squared form bends there: d·|d| has a difference of the size of the step
    ),
    one_image(
        "pixel exactly on a vertex",
        lambda: perspective([[0.25, 0.25, 2.0], [-0.875, -0.5, 2.0], [0.125, -0.9375, 2.0]]),
        TRIANGLE,
        image_size=(4, 4),
        kink="the distance to a triangle has a corner at its vertices",
    ),
    one_image("octahedron, orthographic", lambda: orthographic(octahedron(1.1)), OCTAHEDRON),
]


BY_NAME = {scene.name: scene for scene in SCENES}
