# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

import geodiff as gd
from geodiff import losses
from geodiff.tasks import overlap
from geodiff.tasks.mesh.start import object_frame
from geodiff.tasks.turns import summed_by_turns, turns

CAMERAS = gd.Camera.orbit(2.732, 30, torch.arange(0, 360, 52), fov_deg=30)
ROUNDING = 1e-12  # of sums in float64 in another order


def views() -> gd.PosedImages:
    cameras = CAMERAS.to(dtype=torch.float64)
    return gd.PosedImages(None, gd.rasterize(gd.box(0.6), cameras, 24).mask.double(), cameras)


def test_turns_are_of_few_pixels() -> None:
    assert turns(7, (10, 10), 300) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert turns(2, (100, 100), 300) == [slice(0, 1), slice(1, 2)]
    assert turns(24, (128, 128)) == [slice(0, 24)]
    assert len(turns(200, (1024, 1024))) == 25
    assert turns(0, (4, 4)) == [slice(0, 0)]


@pytest.mark.parametrize("grad", [True, False])
def test_sums_and_gradients_are_those_of_all_at_once(grad: bool) -> None:
    posed = views()
    render = gd.Renderer(24, scale=1e-2)
    vertices = (gd.icosphere(1, 0.5, dtype=torch.float64).vertices * 1.1).requires_grad_(grad)
    mesh = gd.icosphere(1, 0.5, dtype=torch.float64).with_vertices(vertices)

    def share(mesh: gd.Mesh, some: gd.PosedImages) -> torch.Tensor:
        return losses.iou(render(mesh, some.cameras).alpha, some.alpha) * (len(some) / len(posed))

    found = []
    for parts in ([slice(0, 7)], [slice(0, 3), slice(3, 6), slice(6, 7)]):
        total = summed_by_turns(share, mesh, posed, parts)
        found.append((total.detach(), torch.autograd.grad(3 * total, vertices)[0] if grad else total.detach()))
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=ROUNDING, rtol=ROUNDING)


def test_what_is_measured_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    posed, mesh = views(), gd.icosphere(2, 0.5)
    expected = overlap.hard_iou(mesh, posed.cameras, posed.alpha), object_frame(posed)
    for module in ("overlap", "mesh.start"):
        monkeypatch.setattr(f"geodiff.tasks.{module}.turns", lambda count, size: turns(count, size, 1000))
    iou, (centre, unit) = overlap.hard_iou(mesh, posed.cameras, posed.alpha), object_frame(posed)
    assert iou == pytest.approx(expected[0], abs=ROUNDING)
    assert torch.allclose(centre, expected[1][0], atol=ROUNDING) and unit == pytest.approx(expected[1][1])
