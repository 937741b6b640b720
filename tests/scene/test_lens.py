# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch

from geodiff.scene.lens import Lens, Resampler, Window
from tests.camera_files import brown, fisheye

ROUNDING = 1e-12  # of formulas in float64
LENSES = {
    "barrel": Lens((120, 160), (150.0, 140.0), (82.0, 57.0), (-0.2, 0.03)),
    "pincushion": Lens((120, 160), (150.0, 150.0), (80.0, 60.0), (0.25,)),
    "tangential": Lens((120, 160), (150.0, 150.0), (80.0, 60.0), (-0.1, 0.02, 0.01, -0.02, 0.004)),
    "fisheye": Lens((120, 160), (70.0, 72.0), (78.0, 61.0), (0.05, -0.01, 0.002, -0.0004), True),
    "plain fisheye": Lens((120, 160), (60.0, 60.0), (80.0, 60.0), (), True),
}


def plane(lens: Lens, count: int = 400) -> torch.Tensor:
    """Return points all over the lens's window."""
    window = lens.window()
    share = torch.rand(count, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high = share.new_tensor(window[:2]), share.new_tensor(window[2:])
    return low + (high - low) * share


@pytest.mark.parametrize("name", LENSES)
def test_bend_is_the_formula_of_the_book(name: str) -> None:
    lens = LENSES[name]
    x, y = plane(lens).numpy().T
    expected = (fisheye if lens.fisheye else brown)(x, y, *lens.coefficients)
    assert np.allclose(lens.bend(plane(lens))[0].numpy(), np.stack(expected, -1), atol=ROUNDING)


def test_the_rational_formula_with_prisms() -> None:
    c = (0.1, -0.05, 0.01, 0.02, 0.03, 0.2, -0.01, 0.004, 0.003, -0.002, 0.005, 0.001)
    lens = Lens((10, 10), (1.0, 1.0), (0.0, 0.0), c)
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = c
    x, y = 0.3, -0.4  # r² = ¼
    radial = (1 + k1 / 4 + k2 / 16 + k3 / 64) / (1 + k4 / 4 + k5 / 16 + k6 / 64)
    u = 0.3 * radial + 2 * p1 * -0.12 + p2 * (0.25 + 0.18) + s1 / 4 + s2 / 16
    v = -0.4 * radial + p1 * (0.25 + 0.32) + 2 * p2 * -0.12 + s3 / 4 + s4 / 16
    assert lens.bend(torch.tensor([x, y], dtype=torch.float64))[0].tolist() == pytest.approx([u, v], abs=ROUNDING)


@pytest.mark.parametrize("name", LENSES)
def test_derivative(name: str) -> None:
    lens = LENSES[name]
    points = torch.cat((plane(lens, 20), torch.zeros(1, 2, dtype=torch.float64)))
    step = 1e-5
    for axis in (0, 1):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[axis] = step
        difference = (lens.bend(points + shift)[0] - lens.bend(points - shift)[0]) / (2 * step)
        assert torch.allclose(lens.bend(points)[1][..., axis], difference, atol=1e-8)


@pytest.mark.parametrize("name", LENSES)
def test_rays_undo_it(name: str) -> None:
    lens = LENSES[name]
    points = plane(lens)
    found, there = lens.rays(lens.pixels(points))
    assert there.all()
    assert torch.allclose(found, points, atol=1e-9)


def test_rays_are_the_root_of_the_cubic() -> None:
    """With one coefficient the distance from the axis is the real root of k r³ + r = r′."""
    for k in (-0.2, 0.4):
        lens = Lens((100, 100), (100.0, 100.0), (50.0, 50.0), (k,))
        for radius in (0.1, 0.5, 0.7):
            roots = np.roots([k, 0, 1, -radius])
            real = min(r.real for r in roots if abs(r.imag) < 1e-9 and r.real > 0)
            found, there = lens.rays(torch.tensor([50 + 60 * radius, 50 + 80 * radius], dtype=torch.float64))
            assert there
            assert found.tolist() == pytest.approx([0.6 * real, 0.8 * real], abs=1e-10)
    lens = Lens((100, 100), (50.0, 50.0), (50.0, 50.0), (), True)
    found, there = lens.rays(torch.tensor([50 + 50 * 1.2, 50.0], dtype=torch.float64))
    assert there and found.tolist() == pytest.approx([math.tan(1.2), 0.0])


def test_no_ray_past_the_turning_point() -> None:
    """r − 0.4 r³ is at most 0.609, at r = 0.913."""
    lens = Lens((100, 100), (100.0, 100.0), (50.0, 50.0), (-0.4,))
    pixels = torch.tensor([[50 + 60.8, 50.0], [50 + 61.0, 50.0]], dtype=torch.float64)
    assert lens.rays(pixels)[1].tolist() == [True, False]
    wide = Lens((100, 100), (30.0, 30.0), (50.0, 50.0), (), True)
    pixels = torch.tensor([[50 + 30 * 1.4, 50.0], [50 + 30 * 1.5, 50.0]], dtype=torch.float64)
    assert wide.rays(pixels)[1].tolist() == [True, False]


@pytest.mark.parametrize("name", LENSES)
def test_window_is_in_the_image_and_touches_it(name: str) -> None:
    lens = LENSES[name]
    window = lens.window()
    along = torch.linspace(0, 1, 301, dtype=torch.float64)
    x, y = window.x0 + (window.x1 - window.x0) * along, window.y0 + (window.y1 - window.y0) * along
    edges = {
        "left": lens.pixels(torch.stack((torch.full_like(y, window.x0), y), -1))[:, 0].min(),
        "top": lens.pixels(torch.stack((x, torch.full_like(x, window.y0)), -1))[:, 1].min(),
        "right": lens.size[1] - lens.pixels(torch.stack((torch.full_like(y, window.x1), y), -1))[:, 0].max(),
        "bottom": lens.size[0] - lens.pixels(torch.stack((x, torch.full_like(x, window.y1)), -1))[:, 1].max(),
    }
    assert min(edges.values()) > -0.3
    assert min(edges.values()) < 0.5
    assert abs(window.x0) <= math.tan(math.radians(60)) + 1e-9


def test_window_of_a_pinhole_is_its_frame() -> None:
    lens = Lens((40, 60), (30.0, 20.0), (31.0, 19.0))
    assert torch.allclose(lens.window().K((40, 60)), lens.K)
    assert torch.allclose(lens.window().K((80, 30)), lens.scaled((80, 30)).K)
    assert Lens((9, 9), (9.0, 9.0), (4.0, 4.0), (-40.0, -1e4)).window() is None


@pytest.mark.parametrize("name", LENSES)
def test_resampling_a_ramp_gives_where_it_looked(name: str) -> None:
    """The picture of each pixel's own place, which bilinear interpolation keeps."""
    lens = LENSES[name]
    window = lens.window()
    v, u = torch.meshgrid(torch.arange(120) + 0.5, torch.arange(160) + 0.5, indexing="ij")
    found = Resampler((100, 130))(torch.stack((u, v), -1), lens, window)
    x = window.x0 + (window.x1 - window.x0) * (torch.arange(130, dtype=torch.float64) + 0.5) / 130
    y = window.y0 + (window.y1 - window.y0) * (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    expected = lens.pixels(torch.stack((x.expand(100, -1), y[:, None].expand(-1, 130)), -1))
    inner = (expected > 1).all(-1) & (expected < expected.new_tensor([159, 119])).all(-1)
    assert (found - expected)[inner].abs().max() < 0.03  # what the mean over a pixel leaves of the curvature
    assert inner.double().mean() > 0.95


@pytest.mark.parametrize(("size", "factors"), [((20, 10), (2, 3)), ((40, 30), (1, 1)), ((8, 6), (5, 5))])
def test_smaller_by_a_whole_number_is_the_mean(size: tuple[int, int], factors: tuple[int, int]) -> None:
    image = torch.rand(40, 30, 3)
    lens = Lens((40, 30), (30.0, 20.0), (15.0, 20.0))
    expected = image.reshape(size[0], factors[0], size[1], factors[1], 3).mean((1, 3))
    assert torch.allclose(Resampler(size)(image, lens, lens.window()), expected, atol=1e-6)


def test_a_size_that_does_not_divide_keeps_the_mean() -> None:
    image = torch.rand(47, 61, 1, generator=torch.Generator().manual_seed(0))
    lens = Lens((47, 61), (30.0, 30.0), (30.0, 23.0))
    for size in ((47, 60), (13, 17), (5, 7)):
        assert float(Resampler(size)(image, lens, lens.window()).mean()) == pytest.approx(float(image.mean()), abs=0.02)


def test_plans_of_other_lenses_are_let_go() -> None:
    resample = Resampler((4, 4))
    for k in range(9):
        resample(torch.rand(8, 8, 1), Lens((8, 8), (9.0 + k, 9.0), (4.0, 4.0)), Window(-0.2, -0.2, 0.2, 0.2))
    assert len(resample._plans) == 4
