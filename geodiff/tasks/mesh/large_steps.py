# SPDX-License-Identifier: Apache-2.0
"""Laplacian-preconditioned steps: large ones over a mesh without tangling it.

Nicolet, Jacobson and Jakob, "Large Steps in Inverse Rendering of Geometry", ACM Transactions on Graphics 40(6), 2021.
A silhouette pulls at a few vertices only; a step along that gradient tears them out of the surface. The same step in
the latent coordinates ``u = (I + λL) v`` moves their surroundings along, with no smoothness term that shrinks the
result.

Example:
    >>> import geodiff as gd
    >>> mesh = gd.icosphere(2)
    >>> precondition = LaplacianPreconditioner(mesh, smoothing=19.0)
    >>> latent = precondition.to_latent(mesh.vertices).requires_grad_()
    >>> optimizer = AdamUniform([latent], lr=0.1)
    >>> for _ in range(20):
    ...     optimizer.zero_grad()
    ...     vertices = precondition.from_latent(latent)
    ...     loss = (vertices[0, 0] - 2).square()  # pull one vertex to x = 2; its surroundings follow
    ...     loss.backward()
    ...     optimizer.step()
"""

import numbers
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from geodiff import implicit
from geodiff.adam import WithoutCompiler
from geodiff.modes import lasting
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail, floating


class LaplacianPreconditioner:
    """Change between vertices v and latent coordinates ``u = (I + λL) v``, L the combinatorial Laplacian D − A.

    L has the number of neighbours on its diagonal and −1 for each edge, so it depends on the faces alone: the matrix is
    factorised once. A gradient with respect to u is the one with respect to v, smoothed twice over by a step in u: a
    step ``−∂/∂u`` moves v by ``−(I + λL)⁻² ∂/∂v``. Rows of I + λL sum to 1, hence a translation stays what it is.

    Args:
        mesh: a :class:`geodiff.Mesh`, or its faces (F, 3).
        smoothing: λ ≥ 0; 0 changes nothing, the paper uses 19 and more the finer the mesh is.
        num_vertices: V, for bare faces whose last vertices are in no face; left out, the highest index plus one.

    Raises:
        TypeError: ``mesh`` is neither, or ``smoothing`` no number.
        ValueError: faces of another shape or out of range, a negative ``smoothing``.

    Example:
        >>> import geodiff as gd
        >>> LaplacianPreconditioner(gd.icosphere(3), smoothing=19.0)
        LaplacianPreconditioner(vertices=642, smoothing=19)
    """

    def __init__(self, mesh: Mesh | torch.Tensor, smoothing: float = 19.0, *, num_vertices: int | None = None) -> None:
        where = "LaplacianPreconditioner"
        faces = mesh.faces if isinstance(mesh, Mesh) else mesh
        if not isinstance(faces, torch.Tensor) or faces.is_floating_point() or faces.dtype == torch.bool:
            raise fail(where, "mesh", "a geodiff.Mesh or an integer tensor of faces (F, 3)", mesh, error=TypeError)
        if faces.dim() != 2 or faces.shape[1] != 3:
            raise fail(where, "mesh", "made of faces (F, 3)", faces, "Triangulate quads with Mesh.triangulated().")
        if not isinstance(smoothing, numbers.Real) or isinstance(smoothing, bool):
            raise fail(where, "smoothing", "a number", repr(smoothing), error=TypeError)
        if not 0 <= float(smoothing) < float("inf"):
            raise fail(where, "smoothing", "finite and ≥ 0", str(smoothing))
        corners = faces.detach().cpu().numpy().astype(np.int64)
        if isinstance(mesh, Mesh):
            num_vertices = mesh.num_vertices
        highest = int(corners.max(initial=-1))
        self.num_vertices: int = highest + 1 if num_vertices is None else num_vertices
        if highest >= self.num_vertices or corners.min(initial=0) < 0:
            got = f"indices from {corners.min()} to {highest}"
            raise fail(where, "mesh", f"made of faces with indices in [0, {self.num_vertices})", got)
        self.smoothing: float = float(smoothing)
        with lasting():
            self._matrix: implicit.SparseMatrix = _identity_plus(self.smoothing, corners, self.num_vertices)

    def __repr__(self) -> str:
        return f"LaplacianPreconditioner(vertices={self.num_vertices}, smoothing={self.smoothing:g})"

    def to_latent(self, vertices: torch.Tensor) -> torch.Tensor:
        """Return ``u = (I + λL) v``.

        Args:
            vertices: v (..., V, D), float32 or float64, on any device.

        Returns:
            u of the same shape, dtype and device; computed on the CPU in float64. Differentiable to any order.

        Raises:
            TypeError, ValueError: for other types and shapes, NaN and infinity.
        """
        floating("LaplacianPreconditioner.to_latent", "vertices", vertices, ("...", self.num_vertices, "D"))
        return self._matrix.multiply(vertices.mT.to("cpu", torch.float64)).mT.to(vertices).contiguous()

    def from_latent(self, latent: torch.Tensor) -> torch.Tensor:
        """Return ``v = (I + λL)⁻¹ u``, the inverse of :meth:`to_latent`.

        Args:
            latent: u (..., V, D), float32 or float64, on any device.

        Returns:
            v of the same shape, dtype and device; solved on the CPU in float64 with the factorisation made at the
            start. The matrix is symmetric, so the gradient is the same solve; differentiable to any order.

        Raises:
            TypeError, ValueError: for other types and shapes, NaN and infinity.
        """
        floating("LaplacianPreconditioner.from_latent", "latent", latent, ("...", self.num_vertices, "D"))
        return implicit.linear(self._matrix, latent.mT.to("cpu", torch.float64)).mT.to(latent).contiguous()


def _identity_plus(smoothing: float, corners: np.ndarray, count: int) -> implicit.SparseMatrix:
    """Build I + λ(D − A) of the graph whose edges are the sides of the faces."""
    ends = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    ends = np.unique(np.sort(ends[ends[:, 0] != ends[:, 1]], axis=1), axis=0)
    i, j = ends[:, 0], ends[:, 1]
    diagonal = 1.0 + smoothing * np.bincount(ends.ravel(), minlength=count)
    rows, columns = np.concatenate([i, j, np.arange(count)]), np.concatenate([j, i, np.arange(count)])
    values = np.concatenate([np.full(2 * len(ends), -smoothing), diagonal])
    # Strictly diagonally dominant, hence positive definite.
    return implicit.SparseMatrix(
        torch.from_numpy(rows), torch.from_numpy(columns), torch.from_numpy(values), (count, count), positive=True
    )


class AdamUniform(WithoutCompiler):
    """Adam with one step size for all coordinates: the second moment is replaced by its maximum (Nicolet et al. 2021).

    ``m ← β₁ m + (1 − β₁) g``, ``s ← β₂ s + (1 − β₂) g²``, ``p ← p − lr · m̂ / (√(max ŝ) + ε)`` with m̂, ŝ divided by
    ``1 − βᵗ``; the maximum is over all entries of a parameter tensor. Adam's division by each coordinate's own moment
    would undo what the preconditioner smoothed; this keeps the direction, so steps stay smooth.

    Args:
        params: tensors or parameter groups, as for every optimiser of torch.
        lr: the length of a steady step of the fastest coordinate, > 0.
        betas: (β₁, β₂), each in [0, 1).
        eps: ε ≥ 0, which keeps a vanishing gradient from being divided by zero.

    Raises:
        ValueError: a value out of its range.

    Example:
        >>> import torch
        >>> x = torch.tensor([3.0, 4.0], requires_grad=True)
        >>> optimizer = AdamUniform([x], lr=0.1)
        >>> (x**2).sum().backward()
        >>> optimizer.step()
        >>> x  # the step has the direction of the gradient (6, 8)
        tensor([2.9250, 3.9000], requires_grad=True)
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 0.01, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        if not 0 < lr < float("inf"):
            raise fail("AdamUniform", "lr", "positive and finite", str(lr))
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise fail("AdamUniform", "betas", "two numbers in [0, 1)", str(betas))
        if not 0 <= eps < float("inf"):
            raise fail("AdamUniform", "eps", "finite and ≥ 0", str(eps))
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure``, if given, recomputes the loss and its gradient, and its value is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None or not gradient.numel():
                    continue
                state = self.state[parameter]
                if not state:
                    state.update(step=0, first=torch.zeros_like(parameter), second=torch.zeros_like(parameter))
                state["step"] += 1
                first = state["first"].lerp_(gradient, 1 - beta1)
                second = state["second"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                scale = (second.max() / (1 - beta2 ** state["step"])).sqrt() + group["eps"]
                direction = first / (scale * (1 - beta1 ** state["step"]))
                # With ε = 0 and no gradient yet, 0 / 0 stands for no step.
                parameter.sub_(torch.where(scale > 0, direction, 0), alpha=group["lr"])
        return loss
