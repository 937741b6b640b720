# SPDX-License-Identifier: Apache-2.0
"""Fragments for shaders of one's own: built-in shaders rebuilt from them, interpolation, batches, bad input."""

import copy
import pickle

import pytest
import torch

import geodiff as gd
from tests.helpers import assert_close_relative

EYE = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)
EYES = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=torch.tensor([0.0, 40.0]), fov_deg=60.0)
BALL = gd.icosphere(1).to(dtype=torch.float64)


def test_the_soft_shader_is_the_built_in_one():
    tau, gamma = 0.04, 0.1
    mesh = BALL.with_attributes(vertex_colors=torch.rand(42, 3, dtype=torch.float64))
    background = torch.tensor([0.1, 0.5, 0.3], dtype=torch.float64)
    vertices = mesh.vertices.clone().requires_grad_()
    moved = mesh.with_vertices(vertices)

    seen = gd.fragments(moved, EYE, (12, 15), k=80, blur=10.0)
    covers = torch.sigmoid(seen.distance / tau)
    alpha = 1 - (1 - covers).prod(dim=-1)
    depth = EYE.to_clip(vertices)[:, 2]
    z = (depth.amax() - seen.depth) / (depth.amax() - depth.amin())
    weight = torch.softmax(torch.nn.functional.logsigmoid(seen.distance / tau) + z / gamma, dim=-1)
    color = (weight[..., None] * seen.interpolate(moved.vertex_colors)).sum(dim=-2)
    rgb = alpha[..., None] * color + (1 - alpha[..., None]) * background

    options = {"depth": "softmax", "gamma": gamma, "max_fragments": 80, "max_error": 0.0, "outputs": "rgb"}
    out = gd.Renderer((12, 15), "logistic", tau, background=background, **options)(moved, EYE)
    assert seen.mask.all()
    assert_close_relative(rgb, out.rgb, 1e-9)
    cotangent = torch.randn_like(rgb)
    first, second = (torch.autograd.grad(image, vertices, cotangent)[0] for image in (rgb, out.rgb))
    assert_close_relative(first, second, 1e-7)


def test_the_hard_shader_is_the_built_in_one():
    mesh = gd.icosphere(2).with_attributes(vertex_colors=torch.rand(162, 3))
    color = gd.fragments(mesh, EYES, 24, k=1).interpolate(mesh.vertex_colors)[..., 0, :]
    out = gd.Renderer(24, scale=1e-9, outputs=("rgb", "face_id"))(mesh, EYES)
    there = out.face_id >= 0
    assert there.sum() > 300
    assert_close_relative((out.alpha[..., None] * color)[there], out.rgb[there], 1e-5)


def test_points_and_textures_can_be_interpolated():
    seen = gd.fragments(BALL, EYE, 10, k=2)
    points = seen.interpolate(BALL.vertices)
    assert points.shape == (10, 10, 2, 3)
    clip = EYE.to_clip(points[seen.mask])
    assert_close_relative(clip[:, 2], seen.depth[seen.mask], 1e-9)
    assert not points[~seen.mask].any() and (~seen.mask).any()
    corners = torch.arange(240).reshape(80, 3)
    own = seen.interpolate(BALL.vertices[BALL.faces].reshape(-1, 3), corners)
    assert_close_relative(own, points, 1e-12)


def test_batches():
    batch = BALL.with_vertices(torch.stack([BALL.vertices * s for s in (0.6, 1.0)]))
    seen = gd.fragments(batch, EYES, (7, 9), k=2, blur=0.1)
    packed = gd.fragments(gd.MeshBatch(list(batch)), EYES, (7, 9), k=2, blur=0.1)
    whole = seen.interpolate(batch.vertices)
    for i in range(2):
        alone = gd.fragments(batch[i], EYES[i], (7, 9), k=2, blur=0.1)
        assert torch.equal(seen.mask[i], alone.mask) and torch.equal(packed.mask[i], alone.mask)
        points = alone.interpolate(batch[i].vertices)
        assert_close_relative(whole[i], points, 1e-9)
        assert_close_relative(packed.interpolate(batch.vertices.reshape(-1, 3))[i], points, 1e-9)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_they_stay_plain_objects(backend: str):
    seen = gd.fragments(BALL, EYES, (7, 9), k=2, backend=backend)
    for other in (copy.deepcopy(seen), pickle.loads(pickle.dumps(seen))):
        assert torch.equal(other.interpolate(BALL.vertices), seen.interpolate(BALL.vertices))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="fragments: `image_size` must be a positive integer"):
        gd.fragments(BALL, EYE, 0)
    with pytest.raises(ValueError, match="fragments: `k` must be a positive integer; got int 0"):
        gd.fragments(BALL, EYE, 4, k=0)
    with pytest.raises(ValueError, match="fragments: `blur` must be a number ≥ 0"):
        gd.fragments(BALL, EYE, 4, blur=-1.0)
    with pytest.raises(TypeError, match=r"fragments: `camera` must be a geodiff\.Camera"):
        gd.fragments(BALL, None, 4)
    seen = gd.fragments(BALL, EYES, 4)
    with pytest.raises(ValueError, match=r"Fragments\.interpolate: `values` must be of shape \(..., V, C\)"):
        seen.interpolate(torch.rand(42))
    with pytest.raises(
        ValueError, match=r"Fragments\.interpolate: `values` must be of a batch that broadcasts .* \(2,\)"
    ):
        seen.interpolate(torch.rand(3, 42, 1))
    with pytest.raises(ValueError, match=r"Fragments\.interpolate: `values` must be one row for each vertex"):
        gd.fragments(BALL, EYE, 4).interpolate(torch.rand(12, 3))
    with pytest.raises(ValueError, match=r"Fragments\.interpolate: `faces` must be of shape \(80, 3\)"):
        seen.interpolate(torch.rand(42, 3), BALL.faces[:2])
