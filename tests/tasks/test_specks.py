# SPDX-License-Identifier: Apache-2.0
"""Specks in masks, dropped before a mesh or a pose is fitted."""

import pytest
import torch

import geodiff as gd
from geodiff.tasks.pose.input import read_targets
from geodiff.tasks.pose.settings import FitPoseSettings
from geodiff.tasks.specks import without_specks


def spotted() -> tuple[torch.Tensor, torch.Tensor]:
    """A disc with a soft rim, and the same with a soft speck beside it, in the first of two images."""
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    disc = (8 - ((x - 12) ** 2 + (y - 12) ** 2).sqrt()).clamp(0, 1)
    clean = torch.stack([disc, disc])
    dirty = clean.clone()
    dirty[0, 3:7, 26:30] = 0.3
    dirty[0, 4:6, 27:29] = 0.9
    return clean, dirty


def test_the_speck_goes_with_its_rim() -> None:
    clean, dirty = spotted()
    before = dirty.clone()
    with pytest.warns(UserWarning, match=r"fit: keep_components=1 took out 4 pixels of coverage in 1 of 2 images"):
        found = without_specks("fit", dirty, 1)
    assert torch.equal(found, clean)
    assert torch.equal(dirty, before)
    assert without_specks("fit", dirty, 0) is dirty
    assert torch.equal(without_specks("fit", dirty, 2), dirty)  # and says nothing


def test_fit_mesh_without_specks() -> None:
    cameras = gd.Camera.orbit(2.732, 30, torch.arange(0, 360, 60), fov_deg=30)
    clean = gd.rasterize(gd.box(0.6), cameras, 32).mask.float()
    dirty = clean.clone()
    dirty[1, 1:3, 2:4] = 1
    options = {"hold_out": 0, "steps": 1, "progress": False}
    wanted = gd.fit_mesh(clean, cameras, **options)
    with pytest.warns(UserWarning, match=r"fit_mesh: keep_components=1 took out 4 pixels of coverage in 1 of 6 images"):
        found = gd.fit_mesh(dirty, cameras, keep_components=1, **options)
    assert torch.equal(found.mesh.vertices, wanted.mesh.vertices)
    assert found.settings.as_dict()["keep_components"] == 1
    with pytest.raises(ValueError, match="fit_mesh: `keep_components` must be an integer ≥ 0; got -1"):
        gd.fit_mesh(clean, cameras, keep_components=-1)


def test_fit_pose_without_specks() -> None:
    clean, dirty = spotted()
    with pytest.warns(UserWarning, match=r"fit_pose: keep_components=1 took out 4 pixels"):
        targets = read_targets(dirty[0], None, None, FitPoseSettings(keep_components=1), torch.float32)
    assert torch.equal(targets.alpha[0], clean[0])
    with pytest.raises(ValueError, match="fit_pose: `keep_components` must be an integer ≥ 0"):
        FitPoseSettings(keep_components=-1)
