# SPDX-License-Identifier: Apache-2.0
"""Several materials as one texture: the colours at random places are those of each picture by itself."""

import numpy as np
import pytest
import torch

from geodiff.scene import looks as module
from geodiff.scene.looks import Look, Picture, dressed

# Coordinates in the joined image are float32: its largest side, in texels, times 2⁻²³, times the steepest change.
ROUNDING = 2e-4


def triangles(seed: int, faces: int, reach: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    uv = rng.uniform(-reach, reach, (3 * faces, 2))
    return uv, np.arange(3 * faces).reshape(-1, 3)


def wrapped(coordinates: torch.Tensor, size: int, wrap: str) -> torch.Tensor:
    """Return texels by the definition of OpenGL's wrap modes: of numbers in [0, 1], centres at (i + ½)/size."""
    i = torch.floor(coordinates * size - 0.5).long()
    both = torch.stack((i, i + 1), -1)
    if wrap == "repeat":
        return both % size
    if wrap == "clamp":
        return both.clamp(0, size - 1)
    both = both % (2 * size)
    return torch.where(both < size, both, 2 * size - 1 - both)


def peer(picture: Picture, uv: torch.Tensor) -> torch.Tensor:
    """Return bilinear colours, one axis after the other, each with its own way to go on."""
    image = picture.image.double()
    height, width = image.shape[:2]
    u, v = uv[:, 0], 1 - uv[:, 1]
    columns, rows = wrapped(u, width, picture.wrap[0]), wrapped(v, height, picture.wrap[1])
    fu, fv = (u * width - 0.5) % 1.0, (v * height - 0.5) % 1.0
    total = torch.zeros(len(uv), image.shape[-1], dtype=torch.float64)
    for a in (0, 1):
        for b in (0, 1):
            weight = (fu if a else 1 - fu) * (fv if b else 1 - fv)
            total += weight[:, None] * image[rows[:, b], columns[:, a]]
    return total


@pytest.mark.parametrize("seed", range(6))
def test_colours_are_those_of_each_picture(seed: int) -> None:
    rng = np.random.default_rng(seed)
    modes = ("repeat", "clamp", "mirror")
    some = []
    for k in range(4):
        height, width = rng.integers(1, 9, 2)
        image = torch.from_numpy(rng.random((height, width, (1, 3, 4, 3)[k]))).float()
        some.append(Picture(image, (modes[rng.integers(3)], modes[rng.integers(3)])))
    looks = [Look(picture=picture) for picture in some] + [Look()]
    uv, uv_faces = triangles(seed, 40, 3.0)
    uv_faces[-3:] = -1  # without coordinates, though of a material with a picture
    of_face = rng.integers(0, 5, 40)
    dress = dressed(looks, of_face, uv, uv_faces)
    assert dress.texture is not None and not dress.lost
    inside = torch.from_numpy(rng.dirichlet((1, 1, 1), 40))
    found = torch.einsum("fk,fkc->fc", inside, torch.from_numpy(dress.uv[dress.uv_faces]))
    colors = dress.texture.sample(found)
    where = torch.einsum("fk,fkc->fc", inside, torch.from_numpy(uv[np.maximum(uv_faces, 0)]))
    for k, look in enumerate(looks):
        mine = torch.from_numpy((of_face == k) & (uv_faces >= 0).all(1))
        if look.picture is None:
            continue
        expected = peer(look.picture, where[mine])[:, :3].expand(-1, 3)
        assert torch.allclose(colors[mine][:, :3].double(), expected, atol=ROUNDING)
    plain = torch.from_numpy((of_face == 4) | (uv_faces < 0).any(1))
    assert torch.allclose(colors[plain], torch.ones(()).double(), atol=1e-6)


def test_one_picture_for_all_stays_as_it_is() -> None:
    picture = Picture(torch.rand(3, 4, 3), ("mirror", "mirror"), "nearest", True)
    uv, uv_faces = triangles(0, 5, 9.0)
    looks = [Look(picture=picture), Look((1.0, 0, 0), picture), Look(picture=Picture(torch.rand(2, 2, 3)))]
    dress = dressed(looks, np.array([0, 1, 0, 1, 1]), uv, uv_faces)
    assert dress.texture.image is picture.image and dress.uv is uv and dress.uv_faces is uv_faces
    assert (dress.texture.wrap, dress.texture.filter, dress.texture.mipmaps) == ("mirror", "nearest", True)
    assert dress.face_colors[:2].tolist() == [[1, 1, 1], [1, 0, 0]] and dress.material is None


def test_what_is_lost_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    uv, uv_faces = triangles(0, 4, 30.0)
    one, two = Picture(torch.rand(8, 8, 3), mipmaps=True), Picture(torch.rand(8, 8, 3), filter="nearest")
    monkeypatch.setattr(module, "_MOST_TEXELS", 2**14)
    dress = dressed([Look(picture=one), Look(picture=two)], np.array([0, 1, 0, 1]), uv, uv_faces)
    assert dress.texture.image.shape[0] * dress.texture.image.shape[1] < 2**15
    assert [text.split(" (")[0] for text in dress.lost] == [
        "detail of textures",
        "mip-maps",
        "filters of textures that differ",
    ]
    dress = dressed([Look(picture=one), Look(picture=two)], np.array([0, 1, 0, 1]), 1e30 * uv, uv_faces)
    assert dress.texture.image.numel() < 2**17
    with pytest.raises(ValueError, match="texture coordinates that are not finite"):
        dressed([Look()], np.zeros(4, int), uv * np.nan, uv_faces)


def test_highlights_of_the_most_faces() -> None:
    looks = [
        Look((1.0, 0, 0), specular=(1.0, 1, 1), shininess=5.0),
        Look((0.0, 1, 0), specular=(0.5, 0.5, 0.5)),
        Look(),
    ]
    dress = dressed(looks, np.array([0, 1, 1, 2, 2, 2]), None, None)
    assert dress.material.specular.tolist() == [0.5] * 3 and dress.material.diffuse.tolist() == [1.0] * 3
    assert dress.lost == ["highlights (Ks, Ns) of all materials but one"]
    assert dress.face_colors.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 1, 1], [1, 1, 1], [1, 1, 1]]
