# SPDX-License-Identifier: Apache-2.0
import copy
import itertools

import numpy as np
import pytest
import torch
import trimesh

from geodiff import Mesh, MeshBatch
from geodiff.tasks.mesh.large_steps import AdamUniform, LaplacianPreconditioner

SOLVED = 1e-12  # float64 solves of matrices with condition numbers below 1e3
ROUNDED = 1e-6  # float32 rounding of what was solved in float64

OCTAHEDRON = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]])
STRIP = torch.tensor([[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]])  # open, with a boundary


def sphere(subdivisions):
    mesh = trimesh.creation.icosphere(subdivisions)
    return Mesh(mesh.vertices, mesh.faces)


def dense(faces, count, smoothing):
    matrix = np.eye(count)
    for i, j in {tuple(sorted((face[a], face[b]))) for face in faces.tolist() for a, b in ((0, 1), (1, 2), (2, 0))}:
        matrix[[i, j], [i, j]] += smoothing
        matrix[[i, j], [j, i]] -= smoothing
    return torch.tensor(matrix)


@pytest.mark.parametrize(("faces", "count"), [(OCTAHEDRON, 6), (STRIP, 6), (STRIP, 8)], ids=["closed", "open", "loose"])
@pytest.mark.parametrize("smoothing", [0.0, 0.3, 19.0])
def test_both_directions_against_a_dense_solve(faces, count, smoothing):
    precondition = LaplacianPreconditioner(faces, smoothing, num_vertices=count)
    matrix = dense(faces, count, smoothing)
    v = torch.rand(2, 3, count, 4, dtype=torch.float64)
    torch.testing.assert_close(precondition.to_latent(v), matrix @ v, rtol=SOLVED, atol=SOLVED)
    torch.testing.assert_close(precondition.from_latent(v), torch.linalg.solve(matrix, v), rtol=SOLVED, atol=SOLVED)


def test_the_octahedron_is_an_eigenvector():
    """Each coordinate of the octahedron's vertices belongs to the eigenvalue 4 of its Laplacian."""
    v = torch.tensor([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], dtype=torch.float64)
    mesh = Mesh(v, OCTAHEDRON)
    precondition = LaplacianPreconditioner(mesh, 2.5)
    torch.testing.assert_close(precondition.to_latent(v), 11 * v, rtol=SOLVED, atol=SOLVED)
    torch.testing.assert_close(precondition.from_latent(v), v / 11, rtol=SOLVED, atol=SOLVED)
    # Translations belong to the eigenvalue 0.
    shift = torch.ones(6, 3, dtype=torch.float64)
    torch.testing.assert_close(precondition.from_latent(v + shift), v / 11 + shift, rtol=SOLVED, atol=SOLVED)


def test_gradients():
    precondition = LaplacianPreconditioner(STRIP, 5.0)
    x = torch.rand(2, 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(precondition.from_latent, x)
    assert torch.autograd.gradcheck(precondition.to_latent, x)
    assert torch.autograd.gradgradcheck(lambda u: precondition.from_latent(u).pow(3), x)


def test_round_trip_in_float32_on_a_fine_mesh():
    mesh = sphere(4)
    precondition = LaplacianPreconditioner(mesh, 50.0)
    v = mesh.vertices.float()
    latent = precondition.to_latent(v)
    assert latent.dtype == torch.float32
    torch.testing.assert_close(precondition.from_latent(latent), v, rtol=0, atol=ROUNDED)


def test_it_smooths():
    """The pull at one vertex moves its surroundings along, less and less with the distance."""
    mesh = sphere(3)
    precondition = LaplacianPreconditioner(mesh, 19.0)
    pull = torch.zeros_like(mesh.vertices)
    pull[0, 1] = 1
    moved = precondition.from_latent(pull)[:, 1]
    assert moved.sum().item() == pytest.approx(1, rel=1e-9)  # rows and columns sum to 1
    assert (moved > 0).all()
    distance = (mesh.vertices @ mesh.vertices[0]).clamp(-1, 1).acos()
    order = torch.argsort(distance)
    rings = moved[order].split([1, 5, 36, 200, 400])
    means = [ring.mean().item() for ring in rings]
    assert all(near > 1.5 * far for near, far in itertools.pairwise(means))
    noise = torch.randn(642, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = dense(mesh.faces, 642, 1.0) - torch.eye(642)

    def roughness(x):
        return ((x * (matrix @ x)).sum() / (x * x).sum()).item()

    assert roughness(precondition.from_latent(noise)) < 0.1 * roughness(noise)


def test_descent_stays_smooth_where_plain_descent_spikes():
    """Fit a few far-off points: the latent step bends the surface, the plain one pulls out spikes."""
    mesh = sphere(2)
    chosen, goal = torch.arange(0, 162, 40), 2.0

    def fit(start, decode):
        x = start.clone().requires_grad_()
        optimizer = AdamUniform([x], lr=0.05)
        for _ in range(60):
            optimizer.zero_grad()
            (decode(x)[chosen] - goal * mesh.vertices[chosen]).square().sum().backward()
            optimizer.step()
        return decode(x).detach()

    precondition = LaplacianPreconditioner(mesh, 5.0)
    latent = fit(precondition.to_latent(mesh.vertices), precondition.from_latent)
    plain = fit(mesh.vertices, lambda x: x)
    radius = [v.norm(dim=1) for v in (latent, plain)]
    assert radius[0][chosen].min() > 1.4
    others = torch.ones(162, dtype=torch.bool)
    others[chosen] = False
    assert radius[0][others].max() > 1.2  # the neighbours came along
    torch.testing.assert_close(radius[1][others], torch.ones(157, dtype=torch.float64))


def test_empty_meshes():
    empty = torch.zeros(0, 3, dtype=torch.int64)
    assert LaplacianPreconditioner(empty).from_latent(torch.zeros(0, 3)).shape == (0, 3)
    loose = torch.rand(4, 3)
    assert torch.equal(LaplacianPreconditioner(empty, num_vertices=4).from_latent(loose), loose)
    assert LaplacianPreconditioner(STRIP).from_latent(torch.zeros(0, 6, 3)).shape == (0, 6, 3)
    assert repr(LaplacianPreconditioner(STRIP, 2)) == "LaplacianPreconditioner(vertices=6, smoothing=2)"


def test_made_in_inference_mode_it_serves_outside():
    with torch.inference_mode():
        precondition = LaplacianPreconditioner(STRIP, 2)
        precondition.from_latent(torch.rand(6, 3))
    x = torch.rand(6, 3, requires_grad=True)
    precondition.from_latent(precondition.to_latent(x)).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones(6, 3))


def test_bad_arguments():
    with pytest.raises(
        TypeError, match=r"`mesh` must be a geodiff.Mesh or an integer tensor of faces \(F, 3\); got float32"
    ):
        LaplacianPreconditioner(torch.rand(4, 3))
    with pytest.raises(TypeError, match=r"`mesh` must be a geodiff.Mesh or an integer tensor .* got MeshBatch"):
        LaplacianPreconditioner(MeshBatch([sphere(0), sphere(1)]))
    with pytest.raises(ValueError, match=r"`mesh` must be made of faces \(F, 3\); got int64 of shape \(4, 4\)"):
        LaplacianPreconditioner(torch.zeros(4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"indices in \[0, 5\); got indices from 0 to 5"):
        LaplacianPreconditioner(STRIP, num_vertices=5)
    with pytest.raises(ValueError, match="`smoothing` must be finite and ≥ 0; got -1"):
        LaplacianPreconditioner(STRIP, -1)
    with pytest.raises(TypeError, match="`smoothing` must be a number; got 'a lot'"):
        LaplacianPreconditioner(STRIP, "a lot")
    precondition = LaplacianPreconditioner(STRIP)
    with pytest.raises(ValueError, match=r"to_latent: `vertices` must be of shape \(..., 6, D\); got float32 of shape"):
        precondition.to_latent(torch.rand(7, 3))
    with pytest.raises(ValueError, match="from_latent: `latent` must be finite; got nan"):
        precondition.from_latent(torch.full((6, 3), torch.nan))
    x = torch.zeros(3, requires_grad=True)
    with pytest.raises(ValueError, match="AdamUniform: `lr` must be positive and finite; got 0"):
        AdamUniform([x], lr=0)
    with pytest.raises(ValueError, match=r"`betas` must be two numbers in \[0, 1\); got \(0.9, 1\)"):
        AdamUniform([x], betas=(0.9, 1))
    with pytest.raises(ValueError, match="`eps` must be finite and ≥ 0; got -1"):
        AdamUniform([x], eps=-1)


# --- the optimiser ---------------------------------------------------------------------------------------------------


def test_adam_uniform_is_its_formula():
    gradients = np.random.default_rng(0).normal(size=(7, 5, 3))
    x = torch.zeros(5, 3, dtype=torch.float64, requires_grad=True)
    optimizer = AdamUniform([x], lr=0.1, betas=(0.8, 0.95), eps=1e-3)
    expected, first, second = np.zeros((5, 3)), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        x.grad = torch.tensor(g)
        optimizer.step()
        first, second = 0.8 * first + 0.2 * g, 0.95 * second + 0.05 * g**2
        expected = expected - 0.1 * (first / (1 - 0.8**t)) / (np.sqrt((second / (1 - 0.95**t)).max()) + 1e-3)
    np.testing.assert_allclose(x.detach().numpy(), expected, rtol=1e-12)


def test_one_number_is_adam():
    """With a single coordinate the maximum is Adam's own second moment."""
    x, y = (torch.tensor([2.0], dtype=torch.float64, requires_grad=True) for _ in range(2))
    ours, adam = AdamUniform([x], lr=0.1), torch.optim.Adam([y], lr=0.1)
    for _ in range(20):
        for parameter, optimizer in ((x, ours), (y, adam)):
            optimizer.zero_grad()
            (parameter**4).sum().backward()
            optimizer.step()
    torch.testing.assert_close(x, y, rtol=1e-12, atol=0)


def test_first_step_keeps_the_gradients_direction_and_has_length_lr():
    x = torch.zeros(4, 3, requires_grad=True)
    x.grad = torch.randn(4, 3)
    AdamUniform([x], lr=0.5).step()
    torch.testing.assert_close(x.detach(), -0.5 * x.grad / x.grad.abs().max(), rtol=1e-5, atol=1e-6)


def test_no_gradient_means_no_step():
    still, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    still.grad = torch.zeros(3)
    AdamUniform([still, unused], eps=0.0).step()
    assert still.tolist() == [1, 1, 1]
    assert unused.tolist() == [1, 1]


def test_closure_and_resume():
    x = torch.tensor([3.0, -1.0], requires_grad=True)
    optimizer = AdamUniform([x], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = (x**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 10
    saved, position = copy.deepcopy(optimizer.state_dict()), x.detach().clone()
    optimizer.step(closure)
    y = position.requires_grad_()
    resumed = AdamUniform([y], lr=0.5)
    resumed.load_state_dict(saved)
    (y**2).sum().backward()
    resumed.step()
    assert torch.equal(x, y)
