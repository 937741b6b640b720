# SPDX-License-Identifier: Apache-2.0
"""Texture coordinates of a mesh: charts that do not overlap, inside the square, with little stretch."""

import builtins
from typing import Any

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff import ops

pytest.importorskip("xatlas", reason="xatlas is not installed (the extra 'texture')")

MESHES = {"ball": gd.icosphere(3), "box": gd.box(), "two": None, "open": None}
MESHES["two"] = gd.Mesh(
    torch.cat([gd.icosphere(1).vertices, gd.box().vertices + 3]),
    torch.cat([gd.icosphere(1).faces, gd.box().faces + 42]),
)
MESHES["open"] = gd.Mesh(gd.icosphere(2).vertices, gd.icosphere(2).faces[:200])


def in_square(mesh: gd.Mesh, size: int) -> torch.Tensor:
    """The face at each texel's centre."""
    uv = mesh.uv.double()
    clip = torch.cat([2 * uv - 1, torch.ones_like(uv)], dim=-1)
    return ops.rasterize(clip, mesh.uv_faces, torch.tensor([[0, 0, mesh.num_faces]]), image_size=(size, size)).face_id[
        0
    ]


def chart_of(faces: np.ndarray, count: int) -> np.ndarray:
    """The chart of each texture coordinate, by joining those of a face."""
    parent = np.arange(count)
    while True:
        before = parent.copy()
        np.minimum.at(parent, faces.reshape(-1), parent[faces].min(1).repeat(3))
        if np.array_equal(before, parent):
            return parent


def areas(points: torch.Tensor, faces: torch.Tensor) -> torch.Tensor:
    a, b, c = (points[..., :2][faces] if points.shape[-1] == 2 else points[faces]).unbind(1)
    if points.shape[-1] == 2:
        e, f = (b - a), (c - a)
        return (e[:, 0] * f[:, 1] - e[:, 1] * f[:, 0]) / 2
    return torch.linalg.cross(b - a, c - a).norm(dim=-1) / 2


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize("name", MESHES)
def test_charts(name: str, scale: float) -> None:
    mesh = MESHES[name].scaled(scale).translated((scale, 0.0, 0.0))
    found = mesh.unwrapped(256, padding=2)
    assert torch.equal(found.vertices, mesh.vertices) and torch.equal(found.faces, mesh.faces)
    assert float(found.uv.min()) >= 0 and float(found.uv.max()) <= 1
    flat, solid = areas(found.uv.double(), found.uv_faces), areas(mesh.vertices.double(), mesh.faces)
    # None is folded over: the faces of a chart turn one way (a chart may be mirrored).
    chart = chart_of(found.uv_faces.numpy(), len(found.uv))[found.uv_faces[:, 0].numpy()]
    assert all(len(np.unique(np.sign(flat.numpy()[chart == one]))) == 1 for one in np.unique(chart))
    ratio = flat.abs() / flat.abs().sum() / (solid / solid.sum())
    assert 0.5 < float(ratio.min()) and float(ratio.max()) < 2
    # What is covered is the sum of the areas, so nothing lies on anything else; and a good part is used.
    covered = float((in_square(found, 1024) >= 0).double().mean())
    assert covered == pytest.approx(float(flat.abs().sum()), rel=0.02) and covered > 0.3
    assert torch.equal(mesh.unwrapped(256, padding=2).uv, found.uv)


def test_charts_are_apart() -> None:
    found = gd.icosphere(3).unwrapped(256, padding=4)
    parent = chart_of(found.uv_faces.numpy(), len(found.uv))
    face = in_square(found, 256).numpy()
    chart = np.where(face >= 0, parent[found.uv_faces.numpy()[face, 0]], -1)
    assert len(np.unique(chart)) > 2
    for shift in ((0, 1), (1, 0), (0, 2), (2, 0)):  # 2 of the 4 texels are kept at least
        a, b = chart[: 256 - shift[0], : 256 - shift[1]], chart[shift[0] :, shift[1] :]
        assert not ((a >= 0) & (b >= 0) & (a != b)).any()


def test_what_cannot_be_unwrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    ball = gd.icosphere(3)
    corners = torch.rand(600, 1, 3, generator=torch.Generator().manual_seed(0)) * 50 + torch.rand(600, 3, 3)
    loose = gd.Mesh(corners.reshape(-1, 3), torch.arange(1800).reshape(-1, 3))
    with pytest.raises(ValueError, match=r"`size` must be large enough for .* charts"):
        loose.unwrapped(16)
    with pytest.raises(ValueError, match="`size` must be"):
        ball.unwrapped(4)
    with pytest.raises(ValueError, match="`padding` must be"):
        ball.unwrapped(64, padding=-1)
    with pytest.raises(ValueError, match="one or more faces"):
        gd.Mesh(ball.vertices, ball.faces[:0]).unwrapped()
    with pytest.raises(ValueError, match="extent above 0"):
        gd.Mesh(ball.vertices * 0, ball.faces).unwrapped()
    with pytest.raises(ValueError, match="area above 0"):
        gd.Mesh(ball.vertices * torch.tensor([1.0, 0.0, 0.0]), ball.faces).unwrapped()
    with pytest.raises(ValueError, match="one mesh of vertices"):
        gd.Mesh(ball.vertices[None], ball.faces).unwrapped()
    plain = builtins.__import__

    def without(name: str, *args: Any, **named: Any) -> Any:
        if name == "xatlas":
            raise ImportError(name)
        return plain(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"geodiff\[texture\]"):
        ball.unwrapped()
