# SPDX-License-Identifier: Apache-2.0
"""The same matrices and solutions as scikit-fem, where it is installed."""

import numpy as np
import pytest
import torch

from geodiff import fem
from tests.fem.cases import F64
from tests.fem.test_mesh_space import sheet

skfem = pytest.importorskip("skfem")

# Two programs that add the same terms in float64 in another order.
ROUNDING = {"rtol": 1e-10, "atol": 1e-12}


def test_p1_with_a_diffusivity_that_varies() -> None:
    from skfem.models.poisson import mass

    mesh = sheet(9, shake=0.5)
    basis = skfem.Basis(
        skfem.MeshTri(mesh.vertices[:, :2].numpy().T.copy(), mesh.faces.numpy().T.copy()), skfem.ElementTriP1()
    )
    order = np.lexsort(basis.mesh.p)
    own = np.lexsort(mesh.vertices[:, :2].numpy().T)

    @skfem.BilinearForm
    def diffusion(u, v, w):  # type: ignore[no-untyped-def]
        return (1 + w.x[0]) * sum(u.grad[a] * v.grad[a] for a in range(2))

    @skfem.LinearForm
    def source(v, w):  # type: ignore[no-untyped-def]
        return w.x[1] * v

    space = fem.mesh_space(mesh)
    stiffness = space.stiffness(lambda x: 1 + x[..., 0]).to_torch().to_dense().numpy()
    np.testing.assert_allclose(stiffness[own][:, own], diffusion.assemble(basis).toarray()[order][:, order], **ROUNDING)
    np.testing.assert_allclose(
        space.mass().to_torch().to_dense().numpy()[own][:, own],
        mass.assemble(basis).toarray()[order][:, order],
        **ROUNDING,
    )
    load = space.load(lambda x: x[..., 1]).numpy()
    np.testing.assert_allclose(load[own], source.assemble(basis)[order], **ROUNDING)


def test_biquadratic_poisson_and_elasticity() -> None:
    from skfem.models.elasticity import lame_parameters, linear_elasticity
    from skfem.models.poisson import laplace, unit_load

    line = np.linspace(0, 1, 6)
    grid = skfem.MeshQuad.init_tensor(line, line)
    space = fem.grid_space((11, 11), 2)

    def places(basis: "skfem.Basis", components: int = 1) -> np.ndarray:
        at = basis.doflocs[:, ::1]
        keys = np.rint(at * 10).astype(int)
        return (keys[0] * 11 + keys[1]) * components

    basis = skfem.Basis(grid, skfem.ElementQuad2(), intorder=6)
    theirs = skfem.solve(*skfem.condense(laplace.assemble(basis), unit_load.assemble(basis), D=basis.get_dofs()))
    ours = fem.solve_poisson(space, 1.0, dirichlet={"all": 0.0})
    np.testing.assert_allclose(ours.numpy()[places(basis)], theirs, **ROUNDING)

    vectors = skfem.Basis(grid, skfem.ElementVector(skfem.ElementQuad2()), intorder=6)
    matrix = linear_elasticity(*lame_parameters(5.0, 0.3)).assemble(vectors)

    @skfem.LinearForm
    def weight(v, w):  # type: ignore[no-untyped-def]
        return -0.2 * v[1] + 0.1 * v[0]

    theirs = skfem.solve(
        *skfem.condense(matrix, weight.assemble(vectors), D=vectors.get_dofs(lambda x: np.isclose(x[0], 0)))
    )
    force = torch.tensor([0.1, -0.2], dtype=F64)
    ours = fem.solve_elasticity(space, force, 5.0, 0.3, plane="strain", dirichlet={"left": 0.0})
    # Components of one node lie one after the other in both.
    index = places(vectors)
    component = np.zeros(len(index), dtype=int)
    for a in range(2):
        component[vectors.get_dofs(elements=True).all([f"u^{a + 1}"])] = a
    np.testing.assert_allclose(ours.numpy()[index, component], theirs, rtol=1e-9, atol=1e-12)
