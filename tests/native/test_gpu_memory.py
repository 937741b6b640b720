# SPDX-License-Identifier: Apache-2.0
"""Bits of tiles, when there is little room for them: images go in groups, and tiles have theirs in common."""

import pytest
import torch

from geodiff import MeshBatch, box, icosphere, ops, soft
from geodiff.native.gpu import emulated
from geodiff.native.gpu.schedule import silhouette
from geodiff.reference import Ranking
from geodiff.render.view import pack
from geodiff.scene.camera import Camera

SIZE = (40, 33)


def renders(packed: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """What slices of faces may round otherwise, and what is the same to the bit."""
    clip, rest = packed[0].clone().requires_grad_(), packed[1:]
    options = {"scale": 0.02, "image_size": SIZE}
    rules = ("probabilistic", "maximum", soft.Yager(3.0))
    alphas = [ops.silhouette(clip, *rest, tconorm=rule, **options) for rule in rules]
    gradient = torch.autograd.grad(alphas[0].square().sum(), clip)[0]
    ranking = Ranking(torch.linspace(-20.0, 0.0, 65), 0.1, torch.full((3,), 4.0))
    origin, within = (
        torch.tensor([0.1, 0.0, 0.3]),
        torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)) < 0.7,
    )
    lists = [
        *ops.fragments(*packed, k=3, blur=0.1, image_size=SIZE),
        *ops.fragments(*packed, k=2, blur=0.1, order="weight", ranking=ranking, image_size=SIZE),
        *ops.visible(*packed, blur=0.2, image_size=SIZE),
        *ops.heaviest(*packed, ranking=ranking, blur=0.3, origin=origin, within=within, image_size=SIZE),
        ops.count_pairs(*packed, **options),
    ]
    return [*(alpha.detach() for alpha in alphas), gradient], lists


@pytest.fixture(scope="module")
def packed() -> tuple[torch.Tensor, ...]:
    views = Camera.orbit(2.6, 20.0, torch.tensor([0.0, 50.0, 100.0]), fov_deg=50)
    return pack("test", icosphere(1), views, SIZE).packed


@pytest.fixture(scope="module")
def expected(packed: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    with emulated():
        return renders(packed)


@pytest.mark.parametrize(("bits", "groups"), [(2000, [2, 1]), (900, [1, 1, 1]), (300, [1, 1, 1]), (3, [1, 1, 1])])
def test_little_room(bits: int, groups: list[int], packed, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silhouette, "_BITS", bits)
    found = [len(rows) for _, rows in silhouette.groups(packed[2], *SIZE)]
    assert found == groups
    with emulated():
        sums, lists = renders(packed)
    for got, wanted in zip(sums, expected[0], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(lists, expected[1], strict=True))


@pytest.mark.parametrize(("images", "faces", "size"), [(24, 82_000, 1024), (200, 20_480, 256), (1, 5_000_000, 2048)])
def test_no_more_than_there_is_room_for(images: int, faces: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    zeros = torch.zeros
    monkeypatch.setattr(silhouette.torch, "zeros", lambda *a, **k: asked.append(a[0]) or zeros(1, dtype=torch.int32))
    monkeypatch.setattr(silhouette, "launch", lambda *a, **k: None)
    monkeypatch.setattr(silhouette.structs, "scratch", lambda like, *a: like)
    clip = zeros(1, 4)
    layout = torch.tensor([[0, 0, faces]]).repeat(images, 1)
    fields = dict.fromkeys(("scale", "shape", "shift", "p", "radius", "log_gamma_1", "digamma"), 1.0)
    fields |= {"distribution": 6, "tconorm": 1, "is_reversed": False, "is_squared": False, "coverage": "faces"}
    monkeypatch.setattr(silhouette.torch, "empty", lambda *a, **k: zeros(1, dtype=torch.int32))
    for _, rows in silhouette.groups(layout, size, size):
        silhouette.set_up(clip, layout, rows, size, size, 0.1, fields)
    assert 0 < max(asked) * 4 <= 64 << 20


def test_groups_know_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a layout on a device is known on the host, so are its parts."""
    monkeypatch.setattr(silhouette, "_BITS", 1)
    layout = torch.tensor([[0, 0, 5], [9, 5, 7]])
    layout.host = layout.clone()  # type: ignore[attr-defined]
    parts = [rows for _, rows in silhouette.groups(layout, 16, 16)]
    layout += 100  # of the device's copy alone
    assert [rows.tolist() for rows in parts] == [[[0, 0, 5]], [[9, 5, 7]]]


def test_the_way_back_in_groups_has_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of meshes of several sizes: silhouettes, gradients of their numbers, fragments, visible faces, a softmax."""
    views = Camera.orbit(2.6, 20.0, torch.tensor([0.0, 50.0, 100.0]), fov_deg=50)
    meshes = MeshBatch([icosphere(0), box(), icosphere(0).scaled(0.7)])
    clip, *rest = pack("test", meshes, views, SIZE).packed
    ranking = Ranking(torch.linspace(-20.0, 0.0, 65), 0.1, torch.full((3,), 4.0))

    def gradients() -> list[torch.Tensor]:
        own, scale, p = clip.clone().requires_grad_(), *(torch.tensor(x, requires_grad=True) for x in (0.05, 3.0))
        size, found = {"image_size": (7, 6)}, []
        for rule, leaves in ((soft.Yager(p), [own, scale, p]), ("maximum", [own])):
            alpha = ops.silhouette(own, *rest, tconorm=rule, scale=scale if len(leaves) > 1 else 0.05, **size)
            found += torch.autograd.grad(alpha.square().sum(), leaves)
        parts = ops.fragments(own, *rest, k=2, blur=0.1, **size)
        barycentric = ops.visible(own, *rest, blur=0.2, **size).barycentric
        shares = ops.heaviest(own, *rest, ranking=ranking, blur=0.3, **size)
        for values in (parts.barycentric, barycentric, shares.barycentric):
            found += torch.autograd.grad(values.square().sum(), own)
        return found

    with emulated():
        expected = gradients()
        monkeypatch.setattr(silhouette, "_FACES", 45)
        groups = [len(rows) for _, rows in silhouette.back_groups(rest[1])]
        found = gradients()
    assert groups == [2, 1]
    for own, other in zip(found, expected, strict=True):
        assert torch.equal(own, other) and float(other.abs().max()) > 0


def test_faces_are_cut_in_groups_as_in_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the sums of large faces would round otherwise: a face has three units alone, and two among all."""
    views = Camera.orbit(2.2, 20.0, torch.tensor([0.0, 50.0, 100.0]), fov_deg=50)
    clip, *rest = pack("test", icosphere(0), views, SIZE).packed
    monkeypatch.setattr(silhouette, "_UNITS", 2 * 3 * 20)

    def gradient() -> torch.Tensor:
        own = clip.clone().requires_grad_()
        alpha = ops.silhouette(own, *rest, scale=0.3, image_size=SIZE)
        return torch.autograd.grad(alpha.square().sum(), own)[0]

    with emulated():
        expected = gradient()
        monkeypatch.setattr(silhouette, "_FACES", 1)
        assert torch.equal(gradient(), expected)


def test_images_without_faces() -> None:
    """Of faces that no image has: gradients are zero."""
    views = Camera.orbit(2.2, 20.0, torch.tensor([0.0, 50.0, 100.0]), fov_deg=50)
    clip, faces, layout = pack("test", icosphere(0), views, (5, 4)).packed
    own, scale = clip.clone().requires_grad_(), torch.tensor(0.3, requires_grad=True)
    empty = layout * torch.tensor([1, 1, 0])
    with emulated():
        alpha = ops.silhouette(own, faces, empty, scale=scale, image_size=(5, 4))
        found = torch.autograd.grad(alpha.sum(), (own, scale))
    assert not any(bool(value.any()) for value in (alpha, *found))
