# SPDX-License-Identifier: Apache-2.0
"""The debiased Sinkhorn divergence, and a loss that starts from where it was."""

from typing import Any

import torch

from geodiff.modes import kept, outside_autocast
from geodiff.transport.sinkhorn import SinkhornResult, sinkhorn
from geodiff.validation import choice, common_batch, fail, positive

REDUCTIONS = ("mean", "sum", "none")


@outside_autocast
def sinkhorn_divergence(x: Any, y: Any, a: Any = None, b: Any = None, *, epsilon: Any, **options: Any) -> torch.Tensor:
    """Return the Sinkhorn divergence of two clouds: their entropic transport cost without the blur of each.

    `S(a, b) = OT(a, b) − OT(a, a)/2 − OT(b, b)/2`, with `reach` plus `ε/2 (Σa − Σb)²`; zero where the clouds are the
    same, positive elsewhere (Feydy et al., "Interpolating between optimal transport and MMD using Sinkhorn
    divergences", 2019).

    Args:
        x: `(..., N, D)`.
        y: `(..., M, D)`.
        a: `(..., N)` weights.
        b: `(..., M)` weights.
        epsilon: ε > 0 in the units of the cost.
        options: p, reach, mask_x, mask_y, tolerance, max_iterations, backend, unrolled, strict: see `sinkhorn`.

    Returns:
        `(...)`.

    Gradients: in x, y, a, b and epsilon, as those of `sinkhorn(...).cost`.

    Raises:
        TypeError: an unknown option.
        ValueError: see `sinkhorn`.

    Example:
        >>> import torch, geodiff as gd
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> gd.sinkhorn_divergence(x, x + 0.5, epsilon=0.1)
        tensor(0.2500)
    """
    return _divergence(x, y, a, b, epsilon, options, (None, None, None))[0]


def _divergence(
    x: Any, y: Any, a: Any, b: Any, epsilon: Any, options: dict[str, Any], starts: tuple[Any, Any, Any]
) -> tuple[torch.Tensor, tuple[SinkhornResult, ...]]:
    for name in ("cost_matrix", "start"):
        if name in options:
            raise fail("sinkhorn_divergence", name, "left out", options[name], error=TypeError)
    mask_x, mask_y = options.pop("mask_x", None), options.pop("mask_y", None)
    both = sinkhorn(x, y, a, b, epsilon=epsilon, mask_x=mask_x, mask_y=mask_y, start=starts[0], **options)
    first = sinkhorn(x, x, a, a, epsilon=epsilon, mask_x=mask_x, mask_y=mask_x, start=starts[1], **options)
    second = sinkhorn(y, y, b, b, epsilon=epsilon, mask_x=mask_y, mask_y=mask_y, start=starts[2], **options)
    value = both.cost - first.cost / 2 - second.cost / 2
    if options.get("reach") is not None:
        masses = (both._problem.a.sum(-1) - both._problem.b.sum(-1)).reshape(both.cost.shape)
        value = value + both._problem.epsilon / 2 * masses**2
    return value, (both, first, second)


@outside_autocast
class SinkhornLoss(torch.nn.Module):
    """Entropic transport between two clouds as a loss that starts from the potentials of the call before.

    In a training loop clouds move little from step to step, and a few iterations bring the old potentials up to date.
    They are kept while sizes stay the same; the result does not depend on them, up to the tolerance.

    Args:
        epsilon: ε > 0 in the units of the cost.
        p: 2 for squared distances, 1 for distances.
        debiased: the Sinkhorn divergence; False: the regularised cost `sinkhorn(...).cost`.
        reduction: over the batch: ``"mean"``, ``"sum"`` or ``"none"``.
        warm_start: keep potentials; they are no part of the state dict.
        options: reach, tolerance, max_iterations, backend, unrolled, strict: see `sinkhorn`.

    Raises:
        ValueError: an unknown reduction, an ε that is not positive.

    Example:
        >>> import torch, geodiff as gd
        >>> loss = gd.SinkhornLoss(epsilon=0.1)
        >>> x = torch.tensor([[0.0], [1.0]], requires_grad=True)
        >>> loss(x, torch.tensor([[0.5], [1.5]])).backward()
        >>> x.grad
        tensor([[-0.5000],
                [-0.5000]])
    """

    def __init__(
        self,
        epsilon: float,
        p: int = 2,
        debiased: bool = True,
        reduction: str = "mean",
        warm_start: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        positive("SinkhornLoss", "epsilon", epsilon, "It is in the units of the cost.")
        choice("SinkhornLoss", "reduction", reduction, REDUCTIONS)
        self.epsilon, self.p, self.debiased, self.reduction = epsilon, p, debiased, reduction
        self.warm_start, self.options = warm_start, options
        self.reset()

    def extra_repr(self) -> str:
        """What the module prints of itself."""
        return f"epsilon={self.epsilon}, p={self.p}, debiased={self.debiased}, reduction={self.reduction!r}"

    def reset(self) -> None:
        """Forget the potentials."""
        self._starts: list[tuple[torch.Tensor, torch.Tensor] | None] = [None, None, None]

    def forward(
        self, x: Any, y: Any, a: Any = None, b: Any = None, mask_x: Any = None, mask_y: Any = None
    ) -> torch.Tensor:
        """Return the loss of clouds x `(..., N, D)` and y `(..., M, D)`; see `sinkhorn`."""
        options = {"p": self.p, "mask_x": mask_x, "mask_y": mask_y, **self.options}
        starts = self._fitting(x, y)
        results: tuple[SinkhornResult, ...]
        if self.debiased:
            value, results = _divergence(x, y, a, b, self.epsilon, options, starts)
        else:
            results = (sinkhorn(x, y, a, b, epsilon=self.epsilon, start=starts[0], **options),)
            value = results[0].cost
        if self.warm_start:
            for i, result in enumerate(results):
                self._starts[i] = kept((result.f.detach(), result.g.detach()))
        if self.reduction == "none":
            return value
        return value.mean() if self.reduction == "mean" else value.sum()

    def _fitting(self, x: Any, y: Any) -> tuple[Any, Any, Any]:
        """Kept potentials whose sizes fit."""
        shapes = [getattr(t, "shape", ())[:-1] for t in (x, y)]
        try:
            batch = common_batch(*(s[:-1] for s in shapes))
        except RuntimeError:
            return None, None, None
        found = []
        for start, (i, j) in zip(self._starts, ((0, 1), (0, 0), (1, 1)), strict=True):
            lead = batch if i != j else shapes[i][:-1]
            wanted = [(*lead, *shapes[k][-1:]) for k in (i, j)]
            fits = start is not None and [tuple(t.shape) for t in start] == wanted
            found.append(start if fits else None)
        return found[0], found[1], found[2]
