# SPDX-License-Identifier: Apache-2.0
"""Relaxed minimum, maximum, sorting and top-k: differentiable in the values whose order they tell.

F. Petersen, "Learning with differentiable algorithms" (2022), chapters 3 and 4 and appendix C; SoftSort: S. Prillo and
J. Eisenschlos (2020); NeuralSort: A. Grover et al. (2019); by optimal transport: M. Cuturi et al. (2019).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

import geodiff
from geodiff.constants import on_device
from geodiff.modes import outside_autocast
from geodiff.soft.distribution_base import Distribution
from geodiff.soft.names import as_distribution
from geodiff.soft.networks import network, rows_of, run
from geodiff.validation import choice, fail, floating, integer, looks_at_values, positive, promote, shapes_repr

__all__ = ["TopK", "relaxed_max", "relaxed_min", "sort", "sort_matrix", "topk"]

METHODS = ("softsort", "neuralsort", "odd_even", "bitonic", "splitter", "sinkhorn")
NETWORKS = ("odd_even", "bitonic", "splitter")

Tensor = torch.Tensor
Law = Distribution | type[Distribution] | str | Callable[..., Any]


@outside_autocast
def relaxed_min(a: Any, b: Any, distribution: "Law" = "optimal", *, temperature: float | Tensor) -> Tensor:
    """Return the relaxed minimum `a F((b − a)/τ) + b F((a − b)/τ)`, elementwise.

    It lies between a and b, and is symmetric in them; with `relaxed_max` it adds up to a + b. It is never below the
    minimum, and above it by at most `τ sup x F(−x)`: for the optimal distribution τ/16, Cauchy's τ/π = 0.318 τ, the
    logistic 0.278 τ, the reciprocal τ/2. It rises with a and b for "optimal", "cauchy" and "reciprocal", not for
    "logistic": only where the density falls no faster than 1/x². It is not associative.

    Args:
        a: a tensor, an array or a number.
        b: another; they broadcast.
        distribution: F, an object or a name of `geodiff.soft`; symmetric.
        temperature: τ > 0, in the units of a and b, a number or a tensor that broadcasts. τ → 0 is the minimum.

    Returns:
        A tensor of the broadcast shape.

    Gradients: in a, b, τ and the distribution's parameters.

    Raises:
        TypeError: complex, boolean or half-precision tensors.
        ValueError: NaN or infinity, shapes that do not broadcast, τ ≤ 0, a distribution that is not symmetric.

    Example:
        >>> relaxed_min(1.0, 3.0, temperature=1.0)
        tensor(1.0625)
    """
    return _relaxed("relaxed_min", a, b, distribution, temperature, False)


@outside_autocast
def relaxed_max(a: Any, b: Any, distribution: "Law" = "optimal", *, temperature: float | Tensor) -> Tensor:
    """Return the relaxed maximum `a F((a − b)/τ) + b F((b − a)/τ)`, elementwise; see `relaxed_min`.

    Example:
        >>> relaxed_max(1.0, 3.0, temperature=1.0)
        tensor(2.9375)
    """
    return _relaxed("relaxed_max", a, b, distribution, temperature, True)


def _relaxed(where: str, a: Any, b: Any, distribution: Any, temperature: Any, larger: bool) -> Tensor:
    law = symmetric(where, distribution)
    given = promote(where, a=a, b=b)
    a, b = given["a"], given["b"]
    check_temperature(where, temperature, a, free=True)
    try:
        difference = (b - a) / temperature
    except RuntimeError:
        sizes = f"{tuple(a.shape)}, {tuple(b.shape)} and temperature {tuple(getattr(temperature, 'shape', ()))}"
        raise fail(where, "b", "of a shape that broadcasts with a's", sizes) from None
    share = law.cdf(-difference if larger else difference)
    return share * a + (1 - share) * b


class TopK(NamedTuple):
    """The k first ranks of a relaxed order.

    Attributes:
        values: `(..., k)`.
        matrix: `(..., k, n)`, row i the shares of the inputs in rank i, with the sum 1.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    values: Tensor
    matrix: Tensor


@outside_autocast
def sort_matrix(
    x: Tensor,
    method: str = "softsort",
    *,
    temperature: float | Tensor,
    distribution: "Law | None" = None,
    rows: int | Sequence[int] | None = None,
    descending: bool = False,
) -> Tensor:
    """Return the relaxed permutation matrix that sorts: row i has the shares of the inputs in rank i.

    Its rows add up to 1; `P @ x` is sorted as τ → 0, where P becomes the permutation. Methods:

    - ``"softsort"``: softmax of `−|sort(x)_i − x_j|/τ` over j;
    - ``"neuralsort"``: softmax of `((n + 1 − 2i) x_j − Σ_m |x_j − x_m|)/τ`, i from 1, for descending order;
    - ``"odd_even"`` and ``"bitonic"``: sorting networks, whose comparators swap by the share `F((b − a)/τ)`, of n and
      of k (k + 1)/2 layers, k = ⌈log₂ n⌉. P is doubly stochastic, and `P @ x` off by at most the error of one
      comparator times the layers;
    - ``"splitter"``: a network that brings out the first ranks only, in fewer layers (22 in place of 55 for 5 of 1024);
    - ``"sinkhorn"``: entropic transport to the ranks 0 … n − 1, with squared costs and ε = τ, by `gd.sinkhorn`. Doubly
      stochastic to its tolerance.

    SoftSort, NeuralSort and Sinkhorn do not care for the order of the inputs. Networks do, a little: a comparator is
    not associative.

    Args:
        x: `(..., n)`, n ≥ 1, float32 or float64.
        method: as above.
        temperature: τ > 0, in the units of x: a number, or a tensor without axes. Differences far above τ are sorted,
            those below are blended.
        distribution: F of a network, symmetric; left out, Cauchy's. See `relaxed_min`.
        rows: which ranks: a number k for the first k, or a list; None for all.
        descending: the largest first.

    Returns:
        `(..., k, n)`.

    Gradients: in x, τ and the distribution's parameters; first order only for "sinkhorn". Of values that are exactly
    equal, SoftSort's and the hard order inside it take one side.

    Memory: k n for the result, and for the gradient: networks k n a layer (α alone is kept of a comparator, and
    comparators that the rows do not depend on are left out: `O(n k log² n)` time); NeuralSort n² besides; Sinkhorn n².

    Raises:
        TypeError: x that is no floating tensor, a temperature that is no number.
        ValueError: no values, NaN, τ ≤ 0, an unknown method, a rank that is not there, a distribution that is not
            symmetric or where no network is used, "splitter" without `rows`.

    Example:
        >>> x = torch.tensor([3.0, 1.0, 2.0])
        >>> sort_matrix(x, temperature=0.1) @ x
        tensor([1.0000, 2.0000, 3.0000])
        >>> sort_matrix(x, "bitonic", temperature=0.1, rows=1).round(decimals=2)
        tensor([[0.0200, 0.9500, 0.0300]])
    """
    return _sorted_matrix("sort_matrix", x, method, temperature, distribution, rows, descending)


@outside_autocast
def sort(
    x: Tensor,
    method: str = "softsort",
    *,
    temperature: float | Tensor,
    distribution: "Law | None" = None,
    descending: bool = False,
) -> Tensor:
    """Return the values in relaxed order, `P @ x` with the matrix of `sort_matrix`; networks do not build it.

    Args:
        x: `(..., n)`, n ≥ 1, float32 or float64.
        method: see `sort_matrix`; not "splitter".
        temperature: τ > 0, in the units of x.
        distribution: F of a network, symmetric; left out, Cauchy's.
        descending: the largest first.

    Returns:
        `(..., n)`. With a network their sum is that of x.

    Gradients: in x, τ and the distribution's parameters.

    Memory: n a layer for networks; n² for the others.

    Raises:
        TypeError, ValueError: as `sort_matrix`.

    Example:
        >>> sort(torch.tensor([3.0, 1.0, 2.0]), "odd_even", temperature=0.1, distribution="optimal")
        tensor([1.0125, 2.0000, 2.9875])
    """
    where = "sort"
    choice(where, "method", method, tuple(name for name in METHODS if name != "splitter"))
    if method not in NETWORKS:
        matrix = _sorted_matrix(where, x, method, temperature, distribution, None, descending)
        return (matrix @ x[..., None])[..., 0]
    law = _checked(where, x, method, temperature, distribution)
    assert law is not None
    values, _ = run(network(method, x.shape[-1], None), -x if descending else x, law, temperature)
    return -values if descending else values


@outside_autocast
def topk(
    x: Tensor,
    k: int,
    method: str = "softsort",
    *,
    temperature: float | Tensor,
    distribution: "Law | None" = None,
    largest: bool = True,
) -> TopK:
    """Return the k largest values in relaxed order, and the shares of the inputs in them.

    Args:
        x: `(..., n)`, float32 or float64.
        k: from 1 to n.
        method: see `sort_matrix`; "splitter" has the fewest comparators where k is small.
        temperature: τ > 0, in the units of x.
        distribution: F of a network, symmetric; left out, Cauchy's.
        largest: False for the k smallest, the smallest first.

    Returns:
        `TopK`: `values (..., k)` and `matrix (..., k, n)`, with `values = matrix @ x`.

    Gradients, memory: as `sort_matrix` with ``rows=k``.

    Raises:
        TypeError, ValueError: as `sort_matrix`; k above n.

    Example:
        >>> found = topk(torch.tensor([0.0, 5.0, 3.0, 1.0]), 2, "splitter", temperature=0.01)
        >>> found.values
        tensor([4.9936, 2.9968])
    """
    where = "topk"
    integer(where, "k", k, 1)
    floating(where, "x", x, ("...", "n"), "Values lie along the last axis.", finite=False)
    if k > x.shape[-1]:
        raise fail(where, "k", f"at most n = {x.shape[-1]}", str(k))
    matrix = _sorted_matrix(where, x, method, temperature, distribution, k, largest)
    return TopK((matrix @ x[..., None])[..., 0], matrix)


def _sorted_matrix(
    where: str, x: Any, method: str, temperature: Any, distribution: Any, rows: Any, descending: bool
) -> Tensor:
    choice(where, "method", method, METHODS)
    law = _checked(where, x, method, temperature, distribution)
    ranks = _ranks(where, rows, x.shape[-1])
    if method == "splitter" and ranks is None:
        raise fail(where, "rows", "given with method='splitter'", "None", "It brings out the first ranks only.")
    places = tuple(range(x.shape[-1])) if ranks is None else ranks
    index = on_device(torch.tensor(places, device="cpu"), x.device)
    key = -x if descending else x
    if law is not None:
        _, shares = run(network(method, x.shape[-1], ranks), key, law, temperature)
        return rows_of(shares, index, key)
    if method == "sinkhorn":
        return _by_transport(key, temperature).index_select(-2, index)
    if method == "softsort":
        ordered = key.sort(dim=-1).values.index_select(-1, index)
        return torch.softmax(-(ordered[..., :, None] - key[..., None, :]).abs() / temperature, dim=-1)
    n = x.shape[-1]
    spread = (key[..., :, None] - key[..., None, :]).abs().sum(-1)
    weight = (2 * index + 1 - n).to(key)  # of −key: n + 1 − 2i, i from 1
    return torch.softmax((weight[:, None] * key[..., None, :] - spread[..., None, :]) / temperature, dim=-1)


def _by_transport(key: Tensor, temperature: Any) -> Tensor:
    """Entropic transport of the values to their ranks; of `(x − rank)²` only the product matters."""
    n = key.shape[-1]
    if n == 1 or key.numel() == 0:
        return torch.ones_like(key)[..., None].expand(*key.shape, n)
    rank = torch.arange(n, dtype=key.dtype, device=key.device) - (n - 1) / 2
    costs = -2 * rank[:, None] * (key - key.mean(-1, keepdim=True))[..., None, :]
    # Of the floor above; the package hands its names out to all floors.
    return geodiff.sinkhorn(cost_matrix=costs, epsilon=temperature).plan() * n


def _checked(where: str, x: Any, method: str, temperature: Any, distribution: Any) -> Distribution | None:
    """Check the arguments that all have; return the distribution where there is one."""
    floating(where, "x", x, ("...", "n"), "Values lie along the last axis.")
    if x.shape[-1] == 0:
        raise fail(where, "x", "of one value or more along the last axis", x)
    check_temperature(where, temperature, x)
    if method in NETWORKS:
        return symmetric(where, "cauchy" if distribution is None else distribution)
    if distribution is not None:
        fix = f"Take one of {', '.join(NETWORKS)}."
        raise fail(where, "distribution", f"left out with method='{method}', which has none", repr(distribution), fix)
    return None


def symmetric(where: str, distribution: Any) -> Distribution:
    """Return a distribution, which must have F(−x) = 1 − F(x); of a user's own that is tried on a few numbers."""
    law = as_distribution(distribution)
    if law.symmetric:
        return law
    sound = False
    if law.kernel_id is None:
        with torch.no_grad():
            x = torch.linspace(0, 8, 33, dtype=torch.float64)
            sound = bool((law.cdf(x) + law.cdf(-x) - 1).abs().max() < 1e-6)
    if not sound:
        raise fail(where, "distribution", "symmetric: F(−x) = 1 − F(x)", repr(law), "Such as 'cauchy' or 'logistic'.")
    return law


def check_temperature(where: str, value: Any, x: Tensor, free: bool = False) -> None:
    fix = "It is in the units of the values: the smaller, the harder."
    positive(where, "temperature", value, fix)
    if isinstance(value, Tensor):
        if value.dim() and not free:
            raise fail(where, "temperature", "a number, or a tensor without axes", value, fix)
        if not looks_at_values(value):
            return
        value = float(value.detach().min()) if value.numel() else 1.0
    if value < torch.finfo(x.dtype).tiny:
        raise fail(where, "temperature", f"at least {torch.finfo(x.dtype).tiny:.3g} in {x.dtype}", str(value), fix)


def _ranks(where: str, rows: Any, n: int) -> tuple[int, ...] | None:
    if rows is None:
        return None
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        ranks = tuple(integer(where, "rows", row, -n, n - 1) % n for row in rows)
        if not ranks:
            raise fail(where, "rows", "one rank or more", repr(rows))
        return ranks
    return tuple(range(integer(where, "rows", rows, 1, n)))
