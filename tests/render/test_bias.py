# SPDX-License-Identifier: Apache-2.0
"""Cameras that are optimised: soft faces pull them away from the truth, the contour does not, and the user is told."""

import warnings

import pytest
import torch

import geodiff as gd

FIELDS = ("rotation", "translation", "focal", "principal")


def camera(grad: str | None = "translation") -> gd.Camera:
    plain = gd.Camera.orbit(3.0, 20.0, 30.0, fov_deg=50)
    fields = {name: getattr(plain, name).clone().requires_grad_(name == grad) for name in FIELDS}
    return gd.Camera(fields["rotation"], fields["translation"], fields["focal"], fields["principal"], near=plain.near)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("coverage", ["faces", "edges"])
def test_a_camera_with_a_gradient_is_warned_of_once(field: str, coverage: str) -> None:
    mesh, render = gd.icosphere(1), gd.Renderer(8, coverage=coverage)
    with pytest.warns(UserWarning, match=rf"Renderer: the camera has a gradient, and coverage='{coverage}' makes .*"
                      "Use coverage='contour' for poses") as told:  # fmt: skip
        render(mesh, camera(field))
    assert told[0].filename == __file__  # where the user called
    render(mesh, camera(field))  # warnings are errors in tests: there is no second


def test_nobody_else_is_warned() -> None:
    mesh, fixed = gd.icosphere(1), camera(None)
    moving = mesh.with_vertices(mesh.vertices.clone().requires_grad_())
    quiet = gd.Renderer(8)
    quiet.warn_of_bias = False
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        contour = gd.Renderer(8, coverage="contour")(mesh, camera()).alpha
        plain = gd.Renderer(8)(mesh, fixed).alpha
        shape = gd.Renderer(8)(moving, fixed).alpha
        with torch.no_grad():
            watched = gd.Renderer(8)(mesh, camera()).alpha
        silenced = quiet(mesh, camera()).alpha
    assert told == []
    assert contour.requires_grad and shape.requires_grad and silenced.requires_grad
    assert not plain.requires_grad and not watched.requires_grad
    for alpha in (shape, watched, silenced):
        assert torch.equal(alpha, plain)
    assert plain[3:5, 3:5].min() > 0.9 > 0.1 > plain[0].max()  # a ball in the middle


def test_what_it_is_about() -> None:
    """From the true pose on, 1 280 faces, τ of about a pixel: faces drive the camera away, the contour keeps it."""
    mesh, truth = gd.icosphere(3), gd.Camera.orbit(3.0, 20.0, 30.0, fov_deg=50)
    fine = gd.rasterize(mesh, truth, 128).mask.float()
    target = fine.unflatten(0, (32, 4)).unflatten(2, (32, 4)).mean((1, 3))
    off = {}
    for coverage in ("faces", "contour"):
        render = gd.Renderer(32, scale=0.03, coverage=coverage)
        shift = torch.zeros(3, requires_grad=True)
        optimizer = torch.optim.Adam([shift], lr=0.02)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(60):
                optimizer.zero_grad()
                moved = gd.Camera(truth.rotation, truth.translation + shift, truth.focal, near=truth.near)
                gd.losses.iou(render(mesh, moved).alpha, target).backward()
                optimizer.step()
        off[coverage] = float(shift.detach().norm()) / 3.0
    assert off["contour"] < 0.03 < 0.06 < off["faces"], off
