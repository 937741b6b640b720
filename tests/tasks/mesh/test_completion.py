# SPDX-License-Identifier: Apache-2.0
"""Parts thinner than a pixel, which the views that see their edges carve away, are in the hull nevertheless."""

import pytest
import torch

import geodiff as gd
from geodiff.scene.files import PosedImages
from geodiff.tasks import overlap, visual_hull
from geodiff.tasks.mesh import completion
from geodiff.tasks.mesh.completion import Missing
from geodiff.tasks.mesh.hull import parts
from geodiff.tasks.overlap import hard_iou


def winged(scale: float = 1.0, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> gd.Mesh:
    """A body with a wing of a third of a pixel, not in the middle of one."""
    body = gd.box((0.2, 0.2, 0.8))
    wing = gd.box((1.0, 0.008, 0.2)).translated([0.0, 0.013, 0.05])
    faces = torch.cat((body.faces, wing.faces + body.num_vertices))
    vertices = torch.cat((body.vertices, wing.vertices)) * scale
    return gd.Mesh(vertices + vertices.new_tensor(at), faces)


def images(mesh: gd.Mesh, scale: float = 1.0, at: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> PosedImages:
    azimuth = torch.arange(0, 360, 30).repeat(3)
    elevation = torch.tensor([-35.0, 0.0, 35.0]).repeat_interleave(12)
    cameras = gd.Camera.orbit(2.7 * scale, elevation, azimuth, fov_deg=30, at=torch.tensor(at))
    fine = gd.rasterize(mesh, cameras, 512).mask.float()
    return PosedImages(None, torch.nn.functional.avg_pool2d(fine[:, None], 8)[:, 0], cameras)


@pytest.mark.parametrize(
    ("scale", "at", "dtype"), [(1.0, (0.0, 0.0, 0.0), torch.float32), (30.0, (5.0, -2.0, 1.0), torch.float64)]
)
def test_a_wing_seen_edge_on_is_not_lost(scale: float, at: tuple[float, float, float], dtype: torch.dtype) -> None:
    posed = images(winged(scale, at), scale, at).to(dtype=dtype)
    hull = visual_hull(posed)  # a warning would be an error
    assert hull.is_closed and int(parts(hull).max()) == 0
    # Both tips, in the height where they are, to a part of a pixel.
    pixel = 2.7 * 0.268 * 2 / 64
    v = (hull.vertices - hull.vertices.new_tensor(at)) / scale
    for side in (-1, 1):
        tip = v[side * v[:, 0] > 0.3]
        assert abs(float((side * tip[:, 0]).max()) - 0.5) < 2 * pixel
        assert abs(float(tip[:, 1].mean()) - 0.013) < 0.3 * pixel
        assert float(tip[:, 1].max() - tip[:, 1].min()) < 2 * pixel
    assert hard_iou(hull, posed.cameras[:12], posed.alpha[:12]) > 0.9


def test_it_is_the_same_by_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The grid, the nodes and the views are taken some at a time, for the memory: that changes nothing."""
    posed = images(winged())
    hull = visual_hull(posed)
    monkeypatch.setattr(completion, "_NODES", 1)
    monkeypatch.setattr(completion, "_CHUNK", 999)
    monkeypatch.setattr(overlap, "_MOST", 1)
    again = visual_hull(posed)
    assert torch.equal(again.vertices, hull.vertices) and torch.equal(again.faces, hull.faces)


def test_hard_masks_tell_nothing_of_it() -> None:
    posed = images(winged())
    hard = (posed.alpha >= 0.5).float()
    with pytest.warns(UserWarning, match="of the"):
        hull = visual_hull(hard, posed.cameras)
    assert float(hull.vertices[:, 0].abs().max()) < 0.3


def test_what_no_thin_part_explains_is_left_as_it_was() -> None:
    """A view that sees nothing at all of the wing contradicts the others: nothing is put back."""
    posed = images(winged())
    alpha = posed.alpha.clone()
    alpha[12:24][alpha[12:24] < 0.5] = 0
    with pytest.warns(UserWarning):
        hull = visual_hull(alpha, posed.cameras)
    assert float(hull.vertices[:, 0].abs().max()) < 0.3


def test_missing_counts_pixels_with_nothing_covered_about_them() -> None:
    body, posed = gd.box((0.2, 0.2, 0.8)), images(winged())
    missing = Missing(body, posed)
    assert missing.is_much and 0.1 < missing.share < 0.6
    assert not bool((missing.pixels & (posed.alpha < 0.5)).any())
    assert not bool((missing.pixels & gd.rasterize(body, posed.cameras, 64).mask).any())
    whole = Missing(winged(), posed)
    assert not whole.is_much and missing.explained_by(whole) and not whole.explained_by(missing)
