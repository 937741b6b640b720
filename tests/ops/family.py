# SPDX-License-Identifier: Apache-2.0
"""Which members of the family the kernels are tested on, and a twin quick enough to test them all."""

from collections.abc import Callable

import torch

from geodiff import soft
from geodiff.soft.names import median

TWO_SIDED = (
    soft.Uniform,
    soft.CubicHermite,
    soft.WignerSemicircle,
    soft.Gaussian,
    soft.Laplace,
    soft.Logistic,
    soft.HyperbolicSecant,
    soft.Cauchy,
    soft.Reciprocal,
    soft.GumbelMax,
    soft.GumbelMin,
)
ONE_SIDED: tuple[Callable[[], soft.Distribution], ...] = (
    lambda: soft.Exponential(),
    lambda: soft.Gamma(0.5),
    lambda: soft.Gamma(2.0),
    lambda: soft.Gamma(3.7),
    soft.Levy,
)
PARAMETRIC = (soft.Hamacher, soft.Frank, soft.Yager, soft.AczelAlsina, soft.Dombi)


def distributions() -> list[soft.Distribution]:
    """List every distribution in every form: plain and squared; one-sided ones reversed, shifted and both."""
    plain: list[soft.Distribution] = [soft.Heaviside(), *(law() for law in TWO_SIDED)]
    plain += [soft.Logistic().shifted(0.3), soft.Cauchy().shifted(-0.4).reversed()]
    plain += [soft.GumbelMax().shifted(0.2).reversed(), soft.GumbelMin().shifted(0.2).reversed()]
    for make in ONE_SIDED:
        law = make()
        plain += [law, law.reversed(), law.shifted(median(law)), law.shifted(median(law)).reversed()]
    return plain + [law.squared() for law in plain]


def tconorms() -> list[soft.TConorm]:
    """List every T-conorm, at the parameters of the thesis, at the special ones and at general ones."""
    rules: list[soft.TConorm] = [soft.Maximum(), soft.Average(), soft.Probabilistic(), soft.Einstein()]
    rules += [family(p) for family in PARAMETRIC for p in (0.5, 1.0, 2.0, 4.0)]
    rules += [soft.SchweizerSklar(-p) for p in (0.5, 1.0, 2.0, 4.0)]
    rules += [soft.Hamacher(0.0), soft.Hamacher(8.0), soft.Frank(0.1), soft.Frank(1 + 1e-7), soft.Frank(10.0)]
    rules += [soft.Yager(8.0), soft.AczelAlsina(8.0), soft.Dombi(8.0), soft.SchweizerSklar(-8.0)]
    return rules


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
