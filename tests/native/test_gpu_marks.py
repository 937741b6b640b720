# SPDX-License-Identifier: Apache-2.0
"""Which tiles the faces of a warp are marked in: those that each one's box meets, wherever the other faces are."""

from typing import Any

import numpy as np
import pytest
import torch

from geodiff import ops
from geodiff.native.gpu import emulated
from geodiff.native.gpu.schedule import silhouette

SIZE = (90, 75)


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Images of which none has a whole number of words of faces; near each other, or anywhere, or both."""
    draw, counts = torch.Generator().manual_seed(seed), [(40,), (37, 70), (64, 1, 33)][seed % 3]
    total = sum(counts)
    near = torch.tensor([[True, False][seed % 2]] * total) | (torch.rand(total, generator=draw) < 0.3)
    middle = 2.4 * torch.rand(total, 1, 2, generator=draw) - 1.2
    middle = torch.where(near[:, None, None], 0.2 * middle + 0.3, middle)
    at = middle + 0.2 * torch.randn(total, 3, 2, generator=draw) * torch.rand(total, 1, 1, generator=draw)
    clip = torch.cat([at, 1 + torch.rand(total, 3, 1, generator=draw), torch.ones(total, 3, 1)], dim=2).reshape(-1, 4)
    first = np.cumsum([0, *counts[:-1]]).tolist()
    layout = torch.tensor([[0, begin, count] for begin, count in zip(first, counts, strict=True)])
    return clip, torch.arange(3 * total, dtype=torch.int32).reshape(-1, 3), layout


def expected(found: silhouette.Scene) -> np.ndarray[Any, Any]:
    """The bits that follow from each face's box, in NDC and in pixels: (images, rows of bins, columns, words)."""
    struct, (_, _, prepared, boxes, bits) = found.struct, found.kept
    across, down = ((n - 1 >> struct.shift) + 1 for n in (struct.across, struct.down))
    wanted = np.zeros((found.images, down, across, struct.words), np.uint32)
    reals = np.frombuffer(prepared.numpy().tobytes(), np.float32).reshape(found.images, found.most_faces, -1)
    pixels = boxes.numpy().reshape(found.images, found.most_faces, 4)
    side, short = 16 << struct.shift, np.float32(min(SIZE))

    def centre(doubled: int) -> np.float32:
        return np.float32(doubled) / short

    for image, face in np.ndindex(*pixels.shape[:2]):
        first_row, end_row, first_column, end_column = pixels[image, face]
        left, right, bottom, top = reals[image, face, 24:28]
        if first_row == end_row:
            continue
        for r in range(first_row // side, (end_row - 1) // side + 1):
            for c in range(first_column // side, (end_column - 1) // side + 1):
                low, high = centre(2 * c * side + 1 - SIZE[1]), centre(2 * (c + 1) * side - 1 - SIZE[1])
                up, below = centre(SIZE[0] - 1 - 2 * r * side), centre(SIZE[0] + 1 - 2 * (r + 1) * side)
                if left <= high and right >= low and bottom <= up and top >= below:
                    wanted[image, r, c, face // 32] |= np.uint32(1 << face % 32)
    assert bits.numel() == wanted.size
    return wanted


@pytest.mark.parametrize("order", ["forward", "backward", "shuffled"])
@pytest.mark.parametrize("seed", range(8))
def test_marks(seed: int, order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[silhouette.Scene] = []
    set_up = silhouette.set_up

    def noted(*given: Any, **named: Any) -> silhouette.Scene:
        made.append(set_up(*given, **named))
        return made[-1]

    monkeypatch.setattr(silhouette, "set_up", noted)
    if seed == 7:
        monkeypatch.setattr(silhouette, "_BITS", 5000)  # tiles with bits in common
    given = scene(seed)
    wanted = ops.silhouette(*given, scale=0.003 * (1 + seed), image_size=SIZE)
    with emulated(order):
        alpha = ops.silhouette(*given, scale=0.003 * (1 + seed), image_size=SIZE)
    torch.testing.assert_close(alpha, wanted, rtol=1e-4, atol=1e-5)
    assert len(made) == (len(given[2]) if seed == 7 else 1)
    for found in made:
        bits = expected(found)
        assert np.array_equal(found.kept[4].numpy().view(np.uint32), bits.reshape(-1))
        assert 0 < np.unpackbits(bits.view(np.uint8)).mean() < 0.9
