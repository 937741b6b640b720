# SPDX-License-Identifier: Apache-2.0
"""Connected parts of a mesh."""

from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.scene import face_components


def several() -> gd.Mesh:
    """A box of side 1, one of side 2 and a third of side 1, none of which share a vertex; and a triangle apart."""
    box, vertices, faces = gd.box(1.0, dtype=torch.float64), [], []
    for i, size in enumerate((1.0, 2.0, 1.0)):
        vertices.append(size * box.vertices + 5 * i)
        faces.append(box.faces + 8 * i)
    vertices.append(torch.eye(3, dtype=torch.float64) - 9)
    faces.append(torch.tensor([[24, 25, 26]]))
    return gd.Mesh(torch.cat(vertices), torch.cat(faces))


def test_parts() -> None:
    mesh = several()
    labels = face_components(mesh)
    assert labels.tolist() == [1] * 12 + [2] * 12 + [3] * 12 + [4]
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    mixed = face_components(gd.Mesh(mesh.vertices, mesh.faces[order]))
    assert mixed[0] == 1
    first = [int((mixed == k).nonzero()[0]) for k in range(1, 5)]
    assert first == sorted(first)  # numbered by their lowest faces
    same = labels[order]
    assert torch.equal(mixed[:, None] == mixed, same[:, None] == same)


def test_the_largest_parts() -> None:
    mesh = several()
    assert face_components(mesh, keep=1).tolist() == [0] * 12 + [1] * 12 + [0] * 13
    assert face_components(mesh, keep=2).tolist() == [1] * 12 + [2] * 12 + [0] * 13
    assert face_components(mesh, min_area=5.9).tolist() == [1] * 12 + [2] * 12 + [3] * 12 + [0]
    assert face_components(mesh, min_area=6.1).amax() == 1
    mask = torch.ones(37, dtype=torch.bool)
    mask[12:24] = False
    assert face_components(mesh, mask, keep=1).tolist() == [1] * 12 + [0] * 25


def test_a_mask_takes_a_ball_apart() -> None:
    ball = gd.icosphere(2, dtype=torch.float64)
    height = ball.vertices[ball.faces].mean(1)[:, 1]
    labels = face_components(ball, height.abs() > 0.5)
    assert int(labels.amax()) == 2
    for label in (1, 2):
        assert len(height[labels == label].sign().unique()) == 1
    assert face_components(ball, torch.zeros(320, dtype=torch.bool)).amax() == 0


def test_degenerate_faces_and_none() -> None:
    mesh = gd.Mesh(torch.rand(4, 3), torch.tensor([[0, 1, 2], [1, 1, 2], [2, 1, 3]]))
    assert face_components(mesh).tolist() == [1, 2, 1]
    assert face_components(gd.Mesh(torch.rand(4, 3), torch.zeros(0, 3, dtype=torch.int64)), keep=1).shape == (0,)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mesh": torch.zeros(3)}, TypeError, r"face_components: `mesh` must be a Mesh"),
        ({"mask": torch.zeros(37)}, TypeError, r"`mask` must be a boolean tensor; .*Compare it with a threshold"),
        ({"mask": torch.zeros(36).bool()}, ValueError, r"`mask` must be of shape \(37,\)"),
        ({"keep": 0}, ValueError, r"`keep` must be an integer ≥ 1"),
        ({"min_area": -1.0}, ValueError, r"`min_area` must be finite and ≥ 0"),
        (
            {"mesh": gd.icosphere(0).with_vertices(torch.rand(2, 12, 3)), "keep": 1},
            ValueError,
            r"`mesh` must be a single one for `keep` and `min_area`; got a batch \(2,\)\. Label its items",
        ),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        face_components(**{"mesh": several(), **options})
