# SPDX-License-Identifier: Apache-2.0
"""P1 functions on triangle meshes: the cotangent Laplacian, the sphere's spectrum, shape derivatives."""

import pytest
import scipy.linalg
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff import fem
from tests.fem.cases import F64, l2_error, sine, sine_source

# Sums of a few terms in float64.
ROUNDING = {"rtol": 1e-12, "atol": 1e-12}


def sheet(n: int, dtype: torch.dtype = F64, shake: float = 0.0) -> gd.Mesh:
    """The unit square as triangles."""
    line = torch.linspace(0, 1, n, dtype=F64)
    places = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    if shake:
        inner = ((places > 0) & (places < 1)).all(-1, keepdim=True)
        places = places + shake / n * inner * (torch.rand(n * n, 2, generator=torch.Generator().manual_seed(1)) - 0.5)
    a = torch.arange(n * n).reshape(n, n)
    corners = [a[:-1, :-1], a[1:, :-1], a[1:, 1:], a[:-1, 1:]]
    quads = torch.stack([c.reshape(-1) for c in corners], -1)
    faces = torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    return gd.Mesh(torch.cat([places, torch.zeros(n * n, 1, dtype=F64)], -1).to(dtype), faces)


def test_stiffness_is_the_cotangent_laplacian_and_mass_the_closed_form() -> None:
    mesh = gd.icosphere(1, dtype=F64).scaled(torch.tensor([1.0, 2.0, 0.7], dtype=F64))
    space = fem.mesh_space(mesh)
    want = mesh.laplacian("cotangent").to_dense()
    torch.testing.assert_close(space.stiffness().to_torch().to_dense(), want, **ROUNDING)
    mass = torch.zeros(mesh.num_vertices, mesh.num_vertices, dtype=F64)
    for face, area in zip(mesh.faces, mesh.face_areas, strict=True):
        mass[face[:, None], face] += area / 12 * (1 + torch.eye(3, dtype=F64))
    torch.testing.assert_close(space.mass().to_torch().to_dense(), mass, **ROUNDING)
    torch.testing.assert_close(space.mass(lumped=True).to_torch().to_dense(), mass.sum(1).diag(), **ROUNDING)
    torch.testing.assert_close(space.measure(), mesh.face_areas.sum(), **ROUNDING)
    torch.testing.assert_close(space.load(1.0), mass.sum(1), **ROUNDING)


def test_spectrum_of_the_sphere() -> None:
    space = fem.mesh_space(gd.icosphere(3, dtype=F64))
    # Dense: Lanczos' method misses now and then one of values that are the same.
    matrices = [m.pattern.csc(m.values).toarray() for m in (space.stiffness(), space.mass())]
    found = torch.from_numpy(scipy.linalg.eigh(*matrices, eigvals_only=True, subset_by_index=(0, 8)))
    # l (l + 1) of the sphere, and 0.6 to 1.2 % more on this polyhedron.
    want = torch.tensor([0.0] + [2.0115] * 3 + [6.0698] * 5, dtype=F64)
    torch.testing.assert_close(found, want, rtol=0, atol=5e-5)


def test_poisson_converges_with_order_two() -> None:
    errors = []
    for n in (9, 17, 33):
        space = fem.mesh_space(sheet(n, shake=0.4))
        c = fem.solve_poisson(space, lambda x: sine_source(x[..., :2]), dirichlet={"all": 0.0})
        errors.append(l2_error(space, c, lambda x: sine(x[..., :2])))
    assert errors[0] / errors[1] > 3.6 and errors[1] / errors[2] > 3.6


def test_dirichlet_and_neumann_of_a_linear_field_are_exact() -> None:
    mesh = sheet(6, shake=0.5)
    space = fem.mesh_space(mesh)

    def plane(x: torch.Tensor) -> torch.Tensor:
        return 2 * x[..., 0] - x[..., 1] + 3

    def at_the_ends(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] < 1e-9) | (x[:, 1] > 1 - 1e-9)

    flux = [(lambda x: x[:, 0] > 1 - 1e-9, 2.0), (lambda x: x[:, 1] < 1e-9, 1.0)]
    c = fem.solve_poisson(space, dirichlet=[(at_the_ends, plane)], neumann=flux)
    torch.testing.assert_close(c, plane(mesh.vertices), rtol=1e-11, atol=1e-11)
    # And with nothing but flux, up to the constant.
    flux += [(lambda x: x[:, 0] < 1e-9, -2.0), (lambda x: x[:, 1] > 1 - 1e-9, -1.0)]
    c = fem.solve_poisson(space, neumann=flux, gauge="mean")
    want = plane(mesh.vertices)
    mean = (space.load(1.0) * want).sum() / space.measure()
    torch.testing.assert_close(c, want - mean, rtol=1e-11, atol=1e-11)
    assert abs(float(space.load(1.0) @ c)) < 1e-12


def test_shape_derivative_of_the_compliance_is_the_central_difference() -> None:
    mesh = sheet(5, shake=0.3)
    draw = torch.Generator().manual_seed(5)
    direction = torch.randn(mesh.vertices.shape, generator=draw, dtype=F64)

    def compliance(vertices: torch.Tensor) -> torch.Tensor:
        space = fem.mesh_space(mesh.with_vertices(vertices))
        return space.load(1.0) @ fem.solve_poisson(space, 1.0, lambda x: 1 + x[..., 0] ** 2, dirichlet={"all": 0.0})

    vertices = mesh.vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(compliance(vertices), vertices)
    step = 1e-5
    difference = (compliance(vertices + step * direction) - compliance(vertices - step * direction)) / (2 * step)
    # The difference has an error of step², and rounding over step.
    torch.testing.assert_close((gradient * direction).sum(), difference.detach(), rtol=1e-8, atol=0)


def test_gradients_by_finite_differences() -> None:
    mesh = sheet(3, shake=0.3)
    draw = torch.Generator().manual_seed(2)
    nu = (torch.rand(len(mesh.faces), 1, generator=draw, dtype=F64) + 0.5).requires_grad_()
    f = torch.rand(2, len(mesh.faces), 3, generator=draw, dtype=F64, requires_grad=True)
    g = torch.rand(8, generator=draw, dtype=F64, requires_grad=True)
    vertices = mesh.vertices.clone().requires_grad_()

    def solved(vertices: torch.Tensor, nu: torch.Tensor, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        space = fem.mesh_space(mesh.with_vertices(vertices))
        return fem.solve_poisson(space, f, nu, dirichlet={"all": g})

    assert gradcheck(solved, (vertices, nu, f, g))


def test_the_solution_minimises_the_energy() -> None:
    space = fem.mesh_space(sheet(5))
    flux = {"rim": 0.3}
    held = {torch.tensor([0, 7]): 1.0}
    c = fem.solve_poisson(space, 2.0, 1.5, dirichlet=held, neumann=flux).requires_grad_()
    (gradient,) = torch.autograd.grad(fem.energy(space, c, 2.0, 1.5, neumann=flux), c)
    free = torch.ones(25, dtype=torch.bool)
    free[[0, 7]] = False
    assert float(gradient[free].abs().max()) < 1e-13
    batch = torch.stack([c.detach(), 2 * c.detach()])
    both = fem.energy(space, batch, 2.0, 1.5, neumann=flux)
    assert both.shape == (2,) and both[0] == fem.energy(space, c, 2.0, 1.5, neumann=flux)


def test_same_bits_twice_and_in_float32_near() -> None:
    one, two = (fem.solve_poisson(fem.mesh_space(sheet(9)), 1.0, dirichlet={"all": 0.0}) for _ in range(2))
    assert torch.equal(one, two)
    single = fem.solve_poisson(fem.mesh_space(sheet(9, torch.float32)), 1.0, dirichlet={"all": 0.0})
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), one, rtol=1e-4, atol=1e-6)


def test_what_inference_mode_leaves_behind_serves_outside() -> None:
    space = fem.mesh_space(sheet(4))
    with torch.inference_mode():
        inside = fem.solve_poisson(space, 1.0, 2.0, dirichlet={"all": 0.0})
    nu = torch.tensor(2.0, dtype=F64, requires_grad=True)
    outside = fem.solve_poisson(space, 1.0, nu, dirichlet={"all": 0.0})
    assert torch.equal(outside, inside)
    outside.sum().backward()
    torch.testing.assert_close(nu.grad, -inside.sum() / 2)


def test_errors() -> None:
    ball = gd.icosphere(1, dtype=F64)
    with pytest.raises(RuntimeError, match=r"mesh_space: `mesh` must be on the CPU; got meta"):
        fem.mesh_space(ball.to("meta"))
    with pytest.raises(TypeError, match=r"mesh_space: `mesh` must be a geodiff\.Mesh; got"):
        fem.mesh_space(ball.vertices)
    with pytest.raises(ValueError, match=r"mesh_space: `mesh` must be one mesh; got .* Take mesh\[i\]"):
        fem.mesh_space(ball.with_vertices(torch.stack([ball.vertices, ball.vertices])))
    flat = ball.vertices.clone()
    flat[ball.faces[3]] = flat[ball.faces[3, 0]].clone()
    with pytest.raises(ValueError, match=r"mesh_space: `mesh` must be of faces that have an area; got none in face"):
        fem.mesh_space(ball.with_vertices(flat))
    turned = sheet(4)
    moved = turned.vertices.clone()
    moved[5] = torch.tensor([2.0, 2.0, 0.0])
    with pytest.raises(ValueError, match=r"`mesh` must be of counter-clockwise faces; got face \d+ inverted \(\d of"):
        fem.mesh_space(turned.with_vertices(moved), plane=True)
    space = fem.mesh_space(ball)
    for own in (space, fem.mesh_space(gd.icosphere(1))):  # in float32, the matrix is singular but for rounding
        with pytest.raises(ValueError, match=r"solve_poisson: `dirichlet` must be given.*nothing held.*gauge="):
            fem.solve_poisson(own, 1.0)
    with pytest.raises(ValueError, match=r"`where` must be a part of the boundary; got an empty one.*gauge='mean'"):
        fem.solve_poisson(space, 1.0, dirichlet={"all": 0.0})
    with pytest.raises(ValueError, match=r"stiffness: `diffusivity` must be positive; got -1 somewhere"):
        space.stiffness(-1.0)
    with pytest.raises(ValueError, match=r"mass: `density` must be positive; got 0 somewhere"):
        space.mass(lambda x: 0.0 * x[..., 0].abs())
    with pytest.raises(ValueError, match=r"load: `f` must be a number, of shape \(..., 80, 3\) or .* or a callable"):
        space.load(torch.ones(7, dtype=F64))
    with pytest.raises(ValueError, match=r"load: `f` must be finite"):
        space.load(float("nan"))
    with pytest.raises(ValueError, match=r"`where` must be one of rim, all, or a callable; got 'left'"):
        fem.mesh_space(sheet(3)).held("left")
    with pytest.raises(TypeError, match=r"`where` must be a callable that returns \(8,\) booleans"):
        fem.mesh_space(sheet(3)).side(lambda x: x[:, 0])
    with pytest.raises(ValueError, match=r"held: `where` must be in \[0, 42\); got indices from 42 to 42"):
        space.held(torch.tensor([42]))
    with pytest.raises(TypeError, match=r"held: `where` must be int64 of shape \(H,\)"):
        space.held(torch.tensor([0.0]))
    with pytest.raises(TypeError, match=r"`dirichlet` must be a mapping of sides to values, or a list of such pairs"):
        fem.solve_poisson(space, 1.0, dirichlet="all")
    with pytest.raises(ValueError, match=r"`dirichlet` must be a number, \(..., 2\), or a callable; got"):
        fem.solve_poisson(space, 1.0, dirichlet={torch.tensor([0, 1]): torch.zeros(3)})
    with pytest.raises(ValueError, match=r"`gauge` must be left out where dirichlet holds some unknowns; got 'mean'"):
        fem.solve_poisson(space, 1.0, dirichlet={torch.tensor([0, 1]): 0.0}, gauge="mean")
    with pytest.raises(ValueError, match=r"`gauge` must be one of mean; got 'zero'"):
        fem.solve_poisson(space, 1.0, gauge="zero")
    with pytest.raises(ValueError, match=r"Space.evaluate: `space` must be a grid or a single NURBS; got Space\(42"):
        space.evaluate(torch.zeros(42), 0.5)
    with pytest.raises(ValueError, match=r"energy: `c` must be of shape \(..., 42\)"):
        fem.energy(space, torch.zeros(41))
    with pytest.raises(ValueError, match=r"energy: `diffusivity` must be positive"):
        fem.energy(space, torch.zeros(42), diffusivity=0.0)
