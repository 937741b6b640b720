# SPDX-License-Identifier: Apache-2.0
"""Normals of vertices: kernel against twin, both against closed forms and differences, in every degenerate case."""

import pytest
import torch

import geodiff as gd
from geodiff import ops, reference
from tests.helpers import assert_gradient_is_derivative, assert_same_vjp, rounding_bound

BOTH = pytest.mark.parametrize("module", [ops, reference], ids=["kernel", "twin"])


def bumpy(batch: tuple[int, ...] = (), level: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    ball = gd.icosphere(level)
    bumps = 1 + 0.3 * torch.rand(*batch, ball.num_vertices, 3, dtype=torch.float64)
    return ball.vertices.double() * bumps, ball.faces


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("batch", [(), (2,), (3, 2)], ids=str)
def test_kernel_is_its_twin(dtype: torch.dtype, batch: tuple[int, ...]):
    vertices, faces = bumpy(batch)
    assert_same_vjp(
        lambda v: ops.vertex_normals(v, faces),
        lambda v: reference.vertex_normals(v, faces),
        [vertices.to(dtype)],
        rounding_bound(dtype, 10),
        rounding_bound(dtype, 100),
    )


@pytest.mark.usefixtures("backend")
@BOTH
def test_gradient_is_the_derivative(module):
    vertices, faces = bumpy()
    assert_gradient_is_derivative(lambda v: module.vertex_normals(v, faces), [vertices], 1e-6)


@BOTH
def test_second_derivatives(module):
    vertices, faces = bumpy(level=0)
    assert torch.autograd.gradgradcheck(lambda v: module.vertex_normals(v, faces), vertices.requires_grad_())


@pytest.mark.usefixtures("backend")
@BOTH
@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_a_sphere_of_any_size_has_radial_normals(module, size: float):
    ball = gd.icosphere(4)
    vertices = (ball.vertices * size).requires_grad_()
    normals = module.vertex_normals(vertices, ball.faces)
    width = (ball.vertices[ball.edges[:, 0]] - ball.vertices[ball.edges[:, 1]]).norm(dim=1).max()
    assert (normals.detach() - ball.vertices).norm(dim=1).max() < width**2  # they are of second order in it
    (gradient,) = torch.autograd.grad((normals * torch.rand_like(normals)).sum(), vertices)
    # Scaled with the mesh, it does not change; so the gradient is orthogonal to the vertices.
    terms = gradient.double() * vertices.detach().double()
    assert torch.isfinite(gradient).all() and gradient.any()
    assert abs(float(terms.sum())) < 1e-6 * float(terms.abs().sum())


@pytest.mark.usefixtures("backend")
@BOTH
def test_areas_are_the_weights(module):
    """Two faces at right angles, one of three times the area of the other."""
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3]])
    normal = module.vertex_normals(v, torch.tensor([[0, 1, 2], [0, 2, 3]]))[0]
    torch.testing.assert_close(normal, torch.tensor([3.0, 0.0, 1.0]) / 10**0.5)


@pytest.mark.usefixtures("backend")
@BOTH
def test_nothing_to_stand_on(module):
    """Vertices in no face, in faces of no area, between faces that cancel: normal and gradient are 0."""
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 5, 5], [2, 2, 2]]).requires_grad_()
    for faces in ([[0, 1, 2], [0, 2, 1]], [[3, 4, 0]], [[1, 1, 2]], [[2, 2, 2]]):
        normals = module.vertex_normals(v, torch.tensor(faces))
        (gradient,) = torch.autograd.grad(normals.sum(), v)
        assert not normals.any() and not gradient.any(), faces
    assert not module.vertex_normals(v, torch.zeros(0, 3, dtype=torch.int64)).any()
    assert module.vertex_normals(v[:0], torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)
    assert module.vertex_normals(v[None][:0], torch.tensor([[0, 1, 2]])).shape == (0, 5, 3)


@pytest.mark.usefixtures("backend")
def test_faces_that_cancel_to_rounding():
    v = torch.rand(3, 3, dtype=torch.float64).requires_grad_()
    normals = ops.vertex_normals(v, torch.tensor([[0, 1, 2], [1, 0, 2]]))
    (gradient,) = torch.autograd.grad(normals.sum(), v)
    assert not normals.any() and not gradient.any()


def test_the_same_bits_on_any_number_of_threads():
    vertices, faces = bumpy((2,), 4)
    results, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            v = vertices.float().requires_grad_()
            out = ops.vertex_normals(v, faces)
            results.append((out.detach(), torch.autograd.grad(out.square().sum(dim=1)[:, 0].sum(), v)[0]))
        finally:
            torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_opcheck():
    vertices, faces = bumpy((2,), 0)
    torch.library.opcheck(torch.ops.geodiff.vertex_normals, (vertices.requires_grad_(), faces.int()))


@BOTH
def test_bad_arguments_are_named(module):
    vertices, faces = bumpy()
    wrong = [
        (ValueError, r"vertex_normals: `vertices` must be of shape \(..., V, 3\)", (vertices[:, :2], faces)),
        (ValueError, "vertex_normals: `vertices` must be finite", (vertices / 0, faces)),
        (TypeError, r"vertex_normals: `faces` must be an integer tensor", (vertices, faces.float())),
        (ValueError, r"vertex_normals: `faces` must be of shape \(F, 3\)", (vertices, faces[:, :2])),
        (
            ValueError,
            r"vertex_normals: `faces` must be indices in \[0, 162\); got from 1 to 162",
            (vertices, faces + 1),
        ),
    ]
    for error, match, arguments in wrong:
        with pytest.raises(error, match=match):
            module.vertex_normals(*arguments)
