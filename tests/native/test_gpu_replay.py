# SPDX-License-Identifier: Apache-2.0
"""A replay whose lists have no room for all: kernels keep to what was written."""

from typing import Any
from unittest import mock

import torch

import geodiff as gd
from geodiff.native.gpu import emulated, structs
from geodiff.native.gpu.schedule import contour
from geodiff.reference import edge_cycles

NEVER = 0x7F  # of all bytes that no kernel has written


def triangles(*middles: tuple[float, float]) -> torch.Tensor:
    """Clip coordinates of triangles that point up, and of those that have no place."""
    corners = torch.tensor([[-0.2, -0.15], [0.2, -0.15], [0.0, 0.2]])
    at = torch.zeros(8, 3, 2)
    at[: len(middles)] = torch.tensor(middles)[:, None] + corners
    at[1, :, 1] *= -1  # one points down
    return torch.cat([at, torch.ones(8, 3, 2)], dim=2).reshape(-1, 4)


def test_pieces_of_an_outline_that_were_not_written_are_not_read() -> None:
    """Room for the pieces of many cuts, of fewer segments than there are now, whose pieces do not fill it."""
    star = triangles((0.0, 0.0), (0.0, 0.0))
    apart = triangles(*((x, y) for y in (-0.5, 0.5) for x in (-0.75, -0.25, 0.25, 0.75)))
    faces, layout = torch.arange(24, dtype=torch.int32).reshape(8, 3), torch.tensor([[0, 0, 8]])
    scratch, launch = structs.scratch, contour.launch
    looked_at: list[torch.Tensor] = []

    def never(*given: Any) -> torch.Tensor:
        return scratch(*given).fill_(NEVER)

    def noted(header: str, name: str, grid: Any, block: int, *arguments: Any, device: torch.device) -> None:
        if "contour_visible" in name:
            _, _, pieces, count, _, hidden = arguments
            looked_at.append(pieces.reshape(count.value, -1)[hidden == 0])
            hidden.fill_(1)  # what is there may be anything
        launch(header, name, grid, block, *arguments, device=device)

    edges, numbers = edge_cycles(faces, layout), torch.tensor([0.05, 0.0, 0.0], dtype=torch.float64)

    def distance(clip: torch.Tensor) -> torch.Tensor:
        model = numbers, None, 12, 16, 0.01, 1e-4, 6, False, False
        found: torch.Tensor = torch.ops.geodiff.contour(clip, faces, layout, edges, *model)[0]
        return found

    recording = gd.Recording(room=0)
    with emulated(), mock.patch("geodiff.recording._SPARE", 0):
        with recording.record():
            distance(star)
        with mock.patch.object(structs, "scratch", never), mock.patch.object(contour, "launch", noted):
            with recording.replay():
                assert distance(apart).isnan().all()
    assert len(looked_at) == 1 and len(looked_at[0]) > 0
    assert not (looked_at[0] == NEVER).all(dim=1).any()
