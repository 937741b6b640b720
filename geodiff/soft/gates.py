# SPDX-License-Identifier: Apache-2.0
"""The sixteen logic gates of two inputs for probabilities, and mixtures of them that can be learned.

Numbers and names follow F. Petersen, "Learning with differentiable algorithms", 2022, table 6.1, whose gates are those
of the probabilistic sum; any T-conorm of `geodiff.soft` with its T-norm does. See docs/csg.md.
"""

from collections.abc import Callable
from typing import Any

import torch

from geodiff.modes import outside_autocast
from geodiff.soft import special
from geodiff.soft.names import as_tconorm
from geodiff.soft.tconorm_base import TConorm, probabilities_of
from geodiff.soft.tconorms import Probabilistic
from geodiff.validation import fail, floating

__all__ = ["GATES", "gate_names", "gate_values", "mixed_gate"]

GATES = (
    "false", "and", "a_not_b", "a", "b_not_a", "b", "xor", "or",
    "nor", "xnor", "not_b", "a_or_not_b", "not_a", "b_or_not_a", "nand", "true",
)  # fmt: skip
"""The gates by number: i and 15 − i are each other's complement, and the first eight are 0 where both inputs are."""

# Of f = c₀ + c₁ a + c₂ b + c₃ ab, for the first eight.
_AFFINE = (
    (0, 0, 0, 0), (0, 0, 0, 1), (0, 1, 0, -1), (0, 1, 0, 0), (0, 0, 1, -1), (0, 0, 1, 0), (0, 1, 1, -2), (0, 1, 1, -1),
)  # fmt: skip

Pair = tuple[torch.Tensor, torch.Tensor]
"""log p and log(1 − p)."""
Conorm = str | TConorm | Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@outside_autocast
def gate_values(a: torch.Tensor, b: torch.Tensor, tconorm: Conorm = "probabilistic") -> torch.Tensor:
    """Return what all sixteen gates make of two probabilities.

    "And" is the T-norm, "or" the T-conorm, "not" 1 − a; exclusive or is "a and not b, or b and not a", whose parts the
    probabilistic sum takes for exclusive: `a + b − 2ab`.

    Args:
        a: probabilities of any shape.
        b: probabilities whose shape broadcasts with that of a.
        tconorm: a T-conorm of `geodiff.soft`, by name or as an object.

    Returns:
        (..., 16), in the order of `GATES`. Where both are 0 or 1, so is the result, exactly that of Boolean logic.

    Gradients: in a, b and the T-conorm's parameter.

    Raises:
        TypeError, ValueError: for anything but probabilities.

    Example:
        >>> gate_values(torch.tensor(0.5), torch.tensor(0.25))[:8]
        tensor([0.0000, 0.1250, 0.3750, 0.5000, 0.1250, 0.2500, 0.5000, 0.6250])
    """
    rule = as_tconorm(tconorm)
    a, b = _both("gate_values", a, b)
    if isinstance(rule, Probabilistic):
        low = _powers(a, b) @ _coefficients(a).T
    else:
        both, one, other = (rule.dual().combine(x, y) for x, y in ((a, b), (a, 1 - b), (1 - a, b)))
        low = torch.stack([0 * a, both, one, a, other, b, rule.combine(one, other), rule.combine(a, b)], dim=-1)
        certain = (((a == 0) | (a == 1)) & ((b == 0) | (b == 1)))[..., None]
        low = low + torch.where(certain, low.round() - low, 0.0).detach()  # what a parametric rule rounds to
    return torch.cat([low, 1 - low.flip(-1)], dim=-1)


@outside_autocast
def mixed_gate(
    a: torch.Tensor, b: torch.Tensor, logits: torch.Tensor, tconorm: Conorm = "probabilistic"
) -> torch.Tensor:
    """Return the mean over gates, `Σ_i softmax(logits)_i f_i(a, b)`: a gate that is learned.

    Args:
        a: probabilities of any shape.
        b: probabilities whose shape broadcasts with that of a.
        logits: (..., 16), or (..., 8) for the gates that are 0 where both inputs are; what is before the last axis
            broadcasts with a and b.
        tconorm: a T-conorm of `geodiff.soft`, by name or as an object.

    Returns:
        Probabilities.

    Gradients: in a, b, the logits and the T-conorm's parameter.

    Raises:
        TypeError, ValueError: for other shapes and dtypes, and anything but probabilities.

    Example:
        >>> logits = torch.zeros(16)
        >>> logits[GATES.index("xor")] = 20.0
        >>> mixed_gate(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 1.0]), logits).round(decimals=4)
        tensor([1., 0.])
    """
    rule = as_tconorm(tconorm)
    share = gate_shares("mixed_gate", logits)
    a, b = _both("mixed_gate", a, b)
    share = share.to(a.dtype)
    try:
        if isinstance(rule, Probabilistic):
            low = share[..., :8]
            if share.shape[-1] == 16:  # 1 − f of the others
                low = low - share[..., 8:].flip(-1)
            value = (_powers(a, b) * (low @ _coefficients(a))).sum(-1)
            return value + share[..., 8:].sum(-1) if share.shape[-1] == 16 else value
        return (gate_values(a, b, rule)[..., : share.shape[-1]] * share).sum(-1)
    except RuntimeError:
        expected = f"of a shape whose first axes broadcast with {tuple(a.shape)}"
        raise fail("mixed_gate", "logits", expected, logits) from None


@outside_autocast
def gate_names(logits: torch.Tensor) -> str | list[Any]:
    """Return the name of the gate of largest logit: what is left of a mixture once it is learned.

    Args:
        logits: (..., 16) or (..., 8).

    Returns:
        A name of `GATES`, or lists of them for what is before the last axis.

    Raises:
        TypeError, ValueError: for other shapes and dtypes.

    Example:
        >>> gate_names(torch.tensor([0.0, 0, 1, 0, 0, 0, 0, 0]))
        'a_not_b'
    """

    def named(value: Any) -> str | list[Any]:
        return [named(part) for part in value] if isinstance(value, list) else GATES[value]

    return named(gate_shares("gate_names", logits).detach().argmax(-1).tolist())


def gate_shares(where: str, logits: torch.Tensor) -> torch.Tensor:
    """Return the softmax of logits, checked: (..., 8 or 16)."""
    floating(where, "logits", logits, ("...", "G"))
    if logits.shape[-1] not in (8, 16):
        raise fail(where, "logits", "of shape (..., 16), or (..., 8)", logits, "One for each gate of soft.GATES.")
    return torch.softmax(logits, dim=-1)


def gate_pair(kind: str, a: Pair, b: Pair, rule: TConorm) -> Pair:
    """Return what a gate makes of logarithms of probabilities and of their complements, which may be −∞."""
    number = GATES.index(kind)
    if number > 7:
        log_p, log_not = gate_pair(GATES[15 - number], a, b, rule)
        return log_not, log_p
    if kind == "false":
        return torch.full_like(a[0], -special.BIG), torch.zeros_like(a[0])
    if kind in ("a", "b"):
        return a if kind == "a" else b
    if kind in ("or", "and"):
        return _joined(rule if kind == "or" else rule.dual(), a, b)
    if kind == "a_not_b":
        return gate_pair("and", a, (b[1], b[0]), rule)
    if kind == "b_not_a":
        return gate_pair("and", (a[1], a[0]), b, rule)
    one, other = gate_pair("a_not_b", a, b, rule), gate_pair("b_not_a", a, b, rule)
    if isinstance(rule, Probabilistic):  # neither at once: they add up
        both, none = gate_pair("and", a, b, rule), gate_pair("nor", a, b, rule)
        return _added(one[0], other[0]), _added(both[0], none[0])
    return _joined(rule, one, other)


def mixed_pair(shares: torch.Tensor, a: Pair, b: Pair, rule: TConorm) -> Pair:
    """Return the mean over gates, of the shares (8,) or (16,), as `gate_pair` returns one."""
    log_share = special.log(shares).clamp(min=-special.BIG)
    pairs = [gate_pair(kind, a, b, rule) for kind in GATES[: len(shares)]]
    log_p, log_not = (torch.stack([pair[side] for pair in pairs], -1).clamp(min=-special.BIG) for side in (0, 1))
    return torch.logsumexp(log_p + log_share, -1), torch.logsumexp(log_not + log_share, -1)


def _joined(rule: Any, a: Pair, b: Pair) -> Pair:
    pair: Pair = rule.aggregate_log_pair(torch.stack([a[0], b[0]]), torch.stack([a[1], b[1]]), 0)
    return pair


def _added(log_a: torch.Tensor, log_b: torch.Tensor) -> torch.Tensor:
    return torch.logaddexp(log_a.clamp(min=-special.BIG), log_b.clamp(min=-special.BIG)).clamp(max=0)


def _both(where: str, a: Any, b: Any) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = probabilities_of(where, "a", a), probabilities_of(where, "b", b)
    if a.dtype != b.dtype:
        raise fail(where, "b", f"{a.dtype} like a", b, "Convert one of them.", TypeError)
    try:
        first, second = torch.broadcast_tensors(a, b)
    except RuntimeError:
        raise fail(where, "b", f"of a shape that broadcasts with {tuple(a.shape)}", b) from None
    return first, second


def _powers(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.stack([torch.ones_like(a), a, b, a * b], dim=-1)


def _coefficients(like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_AFFINE, dtype=like.dtype, device=like.device)
