# SPDX-License-Identifier: Apache-2.0
"""Fits inside of no_grad and of inference mode, and in another default dtype, are those outside."""

from collections.abc import Iterator

import pytest
import torch

import geodiff as gd
from geodiff.tasks import fit_mesh, fit_pose

MODES = [torch.no_grad, torch.inference_mode]
BOX = gd.box((0.9, 0.5, 0.3))


def mesh_fit() -> gd.tasks.FitMeshResult:
    eyes = gd.Camera.orbit(2.7, torch.tensor([30.0, -20.0]).repeat(3), torch.arange(6) * 60.0, fov_deg=30)
    images = gd.rasterize(BOX, eyes, 24).mask.float()
    return fit_mesh(images, eyes, hold_out=0, steps=2, refine_cameras=True, progress=False)


@pytest.mark.parametrize("mode", MODES)
def test_fit_mesh(mode: type[torch.no_grad]) -> None:
    outside = mesh_fit()
    with mode():
        inside = mesh_fit()  # its images and cameras are made inside, too
    assert torch.equal(inside.mesh.vertices, outside.mesh.vertices) and inside.history == outside.history
    assert inside.history[1]["loss"] != inside.history[0]["loss"]
    assert not inside.mesh.vertices.is_inference()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("coverage", ["contour", "faces"])
def test_fit_pose(mode: type[torch.no_grad], coverage: str) -> None:
    def fit() -> gd.Camera:
        eye, start = gd.Camera.orbit(3.0, 25, 40, fov_deg=40), gd.Camera.orbit(3.2, 15, 50, fov_deg=40)
        image = gd.rasterize(BOX, eye, 24).mask.float()
        options = {"coverage": coverage, "candidates": 8, "starts": 2, "finalists": 1, "steps": 4, "polish": 1}
        return fit_pose(BOX.clone(), image, start=start, settings=options, progress=False).camera

    outside = fit()
    with mode():
        inside = fit()
    assert torch.equal(inside.rotation, outside.rotation) and torch.equal(inside.translation, outside.translation)


@pytest.fixture
def double() -> Iterator[None]:
    before = torch.get_default_dtype()
    yield torch.set_default_dtype(torch.float64)
    torch.set_default_dtype(before)


def test_default_dtype(double: None) -> None:
    eyes = gd.Camera.orbit(2.7, torch.tensor([30.0, -20.0]).repeat(3), torch.arange(6) * 60.0, fov_deg=30)
    eyes = eyes.to(dtype=torch.float32)
    alpha = gd.rasterize(BOX.to(dtype=torch.float32), eyes, 24).mask.float()
    colors = torch.full((6, 24, 24, 3), 0.5, dtype=torch.float32)
    fit = fit_mesh(gd.PosedImages(colors, alpha, eyes), vertex_colors=True, steps=1, progress=False)
    assert fit.mesh.dtype == torch.float32 and fit.colors is not None
