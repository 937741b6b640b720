# SPDX-License-Identifier: Apache-2.0
"""Triangle splatting: gradients, many layers, faces behind the near plane, batches, messages. Formulas: presets."""

import pytest
import torch

import geodiff as gd

EYE = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)


def test_gradients():
    ball = gd.icosphere(0).to(dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    shapes = {"vertices": (12, 3), "sigma": (20,), "opacity": (20,), "colors": (20, 3)}
    values = {name: torch.rand(shape, generator=g, dtype=torch.float64) for name, shape in shapes.items()}
    values["vertices"] = ball.vertices + 0.05 * values["vertices"]
    values["sigma"] = values["sigma"] + 1.2  # below 1 the slope at an outline has no bound
    values["opacity"] = 0.1 + 0.8 * values["opacity"]

    def images(vertices, sigma, opacity, colors):
        render = gd.render.TriangleSplats(7, sigma, opacity, outputs="rgb", background=(0.2, 0.3, 0.4))
        out = render(gd.Mesh(vertices, ball.faces, face_colors=colors), EYE)
        return out.alpha, out.rgb

    assert torch.autograd.gradcheck(images, [v.requires_grad_() for v in values.values()], fast_mode=True)


def test_the_same_bits_on_any_number_of_threads_and_by_the_twin():
    mesh = gd.icosphere(2)
    found = []
    before = torch.get_num_threads()
    for threads in (1, 4):
        torch.set_num_threads(threads)
        vertices = mesh.vertices.clone().requires_grad_()
        sigma = torch.full((mesh.num_faces,), 0.7, requires_grad=True)
        out = gd.render.TriangleSplats(64, sigma, 0.5, outputs="rgb")(mesh.with_vertices(vertices), EYE)
        found.append([out.alpha, out.rgb, *torch.autograd.grad(out.rgb.square().sum(), (vertices, sigma))])
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    kernel, twin = (gd.render.TriangleSplats(16, 0.7, 0.5, backend=b)(mesh, EYE).alpha for b in ("kernel", "reference"))
    assert float((twin - kernel).abs().max()) < 1e-4  # σ < 1 magnifies roundings at outlines


def test_forty_layers_one_behind_another():
    count = 40
    corners = torch.tensor([[-1.0, -1.0, 0.0], [1.0, -1.0, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    layers = corners + torch.tensor([0.0, 0.0, 1.0]) * torch.linspace(-1, 1, count)[:, None, None]
    mesh = gd.Mesh(layers.reshape(-1, 3), torch.arange(3 * count).reshape(-1, 3))
    camera = gd.Camera.orthographic((0.0, 0.0, 5.0))
    alpha = gd.render.TriangleSplats(9, 1.0, 0.05)(mesh, camera).alpha
    window = gd.render.TriangleSplats(9)(gd.Mesh(corners, torch.tensor([[0, 1, 2]])), camera).alpha
    assert float((alpha - (1 - (1 - 0.05 * window) ** count)).abs().max()) < 1e-12
    few = gd.render.TriangleSplats(9, 1.0, 0.05, max_fragments=3)(mesh, camera).alpha
    assert float((few - (1 - (1 - 0.05 * window) ** 3)).abs().max()) < 1e-12


def test_faces_that_reach_behind_the_near_plane_and_flat_ones_are_left_out():
    corners = [[-1.0, -1, 0], [1, -1, 0], [0, 1, 0], [-1, 0, 0], [1, 0, 9], [0, 1, 0], [0, 0, 0], [1, 1, 0], [2, 2, 0]]
    vertices = torch.tensor(corners, dtype=torch.float64).requires_grad_()
    camera = gd.Camera.orbit(2.0, fov_deg=60)
    alpha = gd.render.TriangleSplats(12)(gd.Mesh(vertices, torch.arange(9).reshape(3, 3)), camera).alpha
    only = gd.render.TriangleSplats(12)(gd.Mesh(vertices[:3], torch.tensor([[0, 1, 2]])), camera).alpha
    assert torch.equal(alpha, only) and float(alpha.detach().max()) > 0.5
    (gradient,) = torch.autograd.grad(alpha.sum(), vertices)
    assert bool(torch.isfinite(gradient).all()) and not gradient[3:].any()


def test_batches_are_their_images_one_by_one():
    meshes = [gd.icosphere(0), gd.icosphere(1)]
    colors = [torch.rand(m.num_faces, 3, generator=torch.Generator().manual_seed(2)) for m in meshes]
    meshes = [m.with_attributes(face_colors=c) for m, c in zip(meshes, colors, strict=True)]
    o = torch.linspace(0.1, 0.9, 100)
    both = gd.render.TriangleSplats((9, 12), 0.5, o, outputs="rgb")(gd.MeshBatch(meshes), EYE)
    for i, part in enumerate(o.split([20, 80])):
        own = gd.render.TriangleSplats((9, 12), 0.5, part, outputs="rgb")(meshes[i], EYE)
        assert torch.equal(own.rgb, both.rgb[i]) and torch.equal(own.alpha, both.alpha[i])
    cameras = gd.Camera.orbit(2.7, torch.tensor([0.0, 30.0]), 20.0, fov_deg=60)
    pair = gd.render.TriangleSplats(9, 0.5, outputs="rgb")(meshes[1], cameras)
    assert torch.equal(pair.rgb[1], gd.render.TriangleSplats(9, 0.5, outputs="rgb")(meshes[1], cameras[1]).rgb)
    nothing = gd.Mesh(torch.zeros(0, 3), torch.zeros(0, 3).int())
    empty = gd.render.TriangleSplats(4, outputs=("rgb", "depth"))(nothing, EYE)
    assert not empty.alpha.any() and bool(torch.isinf(empty.depth).all())


def test_bad_arguments():
    make = gd.render.TriangleSplats
    with pytest.raises(ValueError, match="TriangleSplats: `sigma` must be positive"):
        make(8, 0.0)
    with pytest.raises(TypeError, match="TriangleSplats: `sigma` must be a positive number"):
        make(8, "1")
    for opacity in (1.5, -0.1, float("nan"), torch.tensor([0.5, 2.0])):
        with pytest.raises(ValueError, match=r"TriangleSplats: `opacity` must be in \[0, 1\]"):
            make(8, 1.0, opacity)
    with pytest.raises(TypeError, match="TriangleSplats: `opacity` must be a number or a tensor"):
        make(8, 1.0, "0.5")
    with pytest.raises(ValueError, match="TriangleSplats: `outputs` must be one of alpha, rgb, depth"):
        make(8, outputs="uv")
    with pytest.raises(ValueError, match="TriangleSplats: `max_fragments` must be an integer ≥ 1"):
        make(8, max_fragments=0)
    with pytest.raises(ValueError, match=r"TriangleSplats: `opacity` must be a number or of shape \(20,\)"):
        make(8, 1.0, torch.ones(7))(gd.icosphere(0), EYE)
    with pytest.raises(TypeError, match="TriangleSplats: `camera` must be a geodiff"):
        make(8)(gd.icosphere(0), None)
    assert repr(make(8, torch.ones(20))) == "TriangleSplats(8×8, sigma=float32 of shape (20,), opacity=1)"
