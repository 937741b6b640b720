# SPDX-License-Identifier: Apache-2.0
"""Which members of the family the kernels are tested on, and a twin quick enough to test them all."""

from collections.abc import Callable

import torch

from geodiff import soft
from geodiff.soft.names import median, samples_of


def distributions() -> list[soft.Distribution]:
    """List every distribution that has a kernel in its eight forms: shifted or not, reversed or not, squared or not."""
    plain: list[soft.Distribution] = []
    for law in (law for cls in soft.DISTRIBUTIONS.values() for law in samples_of(cls)):
        shift = median(law) if abs(median(law)) > 1e-9 else 0.3
        plain += [law, law.reversed(), law.shifted(shift), law.shifted(shift).reversed()]
    return plain + [law.squared() for law in plain]


def tconorms() -> list[soft.TConorm]:
    """List every T-conorm that has a kernel, at the parameters that it names."""
    return [rule for cls in soft.TCONORMS.values() for rule in samples_of(cls)]


def some(rules: list[soft.TConorm], law: soft.Distribution, share: int) -> list[soft.TConorm]:
    """All for a distribution as it is; one in `share`, another one for each, in other forms: stages do not multiply."""
    if law is law.base:
        return rules
    assert law.kernel_id is not None
    form = 4 * law.is_squared + 2 * law.is_reversed + bool(law.shift)
    return rules[(law.kernel_id + form) % share :: share]


class Tap(soft.TConorm):
    """Not a T-conorm: keeps the log F and log(1 − F) that the twin hands it, image by image."""

    name = "tap"

    def __init__(self) -> None:
        self.images: list[tuple[torch.Tensor, torch.Tensor]] = []

    def aggregate_log(self, log_cdf: torch.Tensor, log_survival: torch.Tensor, dim: int) -> torch.Tensor:
        self.images.append((log_cdf, log_survival))
        return log_cdf.detach().sum(dim)


class Twin:
    """`reference.silhouette` for one distribution and many T-conorms, which share the log F of one rendering.

    Args:
        leaves: tensors that require a gradient.
        shape: the images' shape (B, H, W).
        render: called with `tconorm=`, renders a scene with `reference.silhouette`.
    """

    def __init__(self, leaves: list[torch.Tensor], shape: tuple[int, int, int], render: Callable[..., torch.Tensor]):
        self.leaves, self.shape = leaves, shape
        tap = Tap()
        render(tconorm=tap)
        self.log_cdf = torch.stack([f for f, _ in tap.images])
        self.log_survival = torch.stack([s for _, s in tap.images])

    def __call__(
        self, rule: Callable[[torch.Tensor | None], soft.TConorm], p: float | None, cotangent: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return alpha and the gradients in the leaves and, last, in p."""
        at = [self.log_cdf.detach().requires_grad_(), self.log_survival.detach().requires_grad_()]
        parameter = torch.tensor(0.0 if p is None else p, dtype=torch.float64, requires_grad=True)
        alpha = rule(parameter).aggregate_log(*at, dim=2).reshape(self.shape)
        *outer, by_p = torch.autograd.grad(
            alpha, [*at, parameter], cotangent, allow_unused=True, materialize_grads=True
        )
        inner = torch.autograd.grad(
            [self.log_cdf, self.log_survival],
            self.leaves,
            outer,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        return alpha.detach(), [*inner, by_p]


def with_parameters(law: soft.Distribution, shape: torch.Tensor, shift: torch.Tensor) -> soft.Distribution:
    """Return this distribution in the same form, with another shape and canonical shift."""
    base = type(law.base)(shape) if law.shape is not None else law.base
    moved = base.shifted(shift)
    moved = moved.reversed() if law.is_reversed else moved
    return moved.squared() if law.is_squared else moved


def rebuild(rule: soft.TConorm) -> Callable[[torch.Tensor | None], soft.TConorm]:
    """Return a function that makes this T-conorm with another parameter."""
    return (lambda p: rule) if rule.p is None else type(rule)
