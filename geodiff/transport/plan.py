# SPDX-License-Identifier: Apache-2.0
"""The plan of entropic transport as an operator that is never stored."""

from typing import TYPE_CHECKING, Any

import torch

from geodiff.modes import outside_autocast
from geodiff.validation import fail, floating

if TYPE_CHECKING:
    from geodiff.transport.sinkhorn import SinkhornResult


@outside_autocast
class LazyPlan:
    """The plan P `(..., N, M)` of a result: `lazy_plan @ v`, `lazy_plan.T @ u` and `lazy_plan.argmax()`.

    Nothing of size N × M is stored where the result was streamed.

    Gradients: of products, in v and in all that the result depends on, implicitly.

    Example:
        >>> import torch, geodiff as gd
        >>> x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [2.0]])
        >>> plan = gd.sinkhorn(x, y, epsilon=0.01).lazy_plan
        >>> 2 * (plan @ y)  # where each point goes
        tensor([[2.],
                [3.]])
        >>> plan.argmax()
        tensor([1, 0])
    """

    def __init__(self, result: "SinkhornResult", transposed: bool = False) -> None:
        self._result, self._transposed = result, transposed

    @property
    def shape(self) -> torch.Size:
        """`(..., N, M)`."""
        batch, n, m = self._result.sizes
        return torch.Size((*batch, m, n) if self._transposed else (*batch, n, m))

    @property
    def T(self) -> "LazyPlan":
        """The transposed plan `(..., M, N)`."""
        return LazyPlan(self._result, not self._transposed)

    def __matmul__(self, v: Any) -> torch.Tensor:
        """Multiply by v `(..., M, E)`, or `(M,)` or `(..., M)` where that has the axes of the batch and one more.

        Raises:
            TypeError: v is not a floating tensor.
            ValueError: v of another shape, NaN.
        """
        batch, _, m = self.shape[:-2], *self.shape[-2:]
        fix = "The plan times a vector for each point of the other cloud."
        single = isinstance(v, torch.Tensor) and v.dim() in (1, len(batch) + 1) and v.shape[-1] == m
        if single and v.dim() == 2 and v.shape[-2] != batch[-1]:
            single = False
        floating("lazy_plan @ v", "v", v, ("...", m) if single else ("...", m, "E"), fix)
        if v.dtype != self._result.f.dtype:
            raise fail("lazy_plan @ v", "v", f"{self._result.f.dtype} like the potentials", v, error=TypeError)
        columns = v[..., None] if single else v
        try:
            columns = columns.expand(*batch, *columns.shape[-2:])
        except RuntimeError:
            raise fail("lazy_plan @ v", "v", f"of a batch that broadcasts to {tuple(batch)}", v) from None
        product = self._result._times(columns.reshape(-1, *columns.shape[-2:]), self._transposed)
        product = product.reshape(*batch, *product.shape[-2:])
        return product[..., 0] if single else product

    def argmax(self) -> torch.Tensor:
        """Return for each row the column with the largest entry, int64 `(..., N)`; no gradient.

        Rows of weight zero have the answer too that they would have with a weight; masked rows have any.
        """
        found = self._result._argmax(self._transposed)
        return found.reshape(*self.shape[:-1])
