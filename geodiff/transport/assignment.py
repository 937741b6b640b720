# SPDX-License-Identifier: Apache-2.0
"""Exact optimal transport: assignments, and plans between weighted clouds, with the gradient of their cost."""

import importlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.transport.chamfer import cloud_pairs, clouds, is_ragged
from geodiff.validation import as_tensor, fail, floating, promote, shapes_repr

__all__ = ["Assignment", "assign", "assignment", "emd"]


class Assignment(NamedTuple):
    """Which rows go with which columns, K = min(N, M) pairs, and the sum of their costs.

    Attributes:
        rows: int64 `(..., K)`, ascending.
        columns: int64 `(..., K)`: row `rows[k]` is matched with column `columns[k]`.
        cost: `(...)`, with gradient.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    rows: torch.Tensor
    columns: torch.Tensor
    cost: torch.Tensor


@outside_autocast
def assignment(cost: Any, maximize: bool = False, *, threads: int | None = None) -> Assignment | list[Assignment]:
    """Match rows with columns one to one so that the sum of the costs of the pairs is least, exactly.

    By `scipy.optimize.linear_sum_assignment` (the Jonker–Volgenant algorithm of Crouse, "On implementing 2D rectangular
    assignment algorithms", 2016), on the processor in float64, items of the batch on several threads.

    Args:
        cost: `(..., N, M)`; or a list of matrices `(N_i, M_i)` of any sizes, for a list of results. Where N ≠ M, the
            smaller side is matched wholly. An infinite cost (−inf with `maximize`) forbids the pair.
        maximize: the greatest sum instead.
        threads: how many items at once; left out, as many as torch uses.

    Gradients: of `cost` in the matrix, by the envelope theorem: 1 for the pairs matched, 0 elsewhere. Where several
    matchings cost the same, that of the one returned.

    Raises:
        TypeError: for matrices that are not floating.
        ValueError: NaN, infinite costs that leave no matching or would be free.

    Example:
        >>> import torch
        >>> match = assignment(torch.tensor([[4.0, 1.0, 3.0], [2.0, 0.0, 5.0], [3.0, 2.0, 2.0]]))
        >>> match.columns, match.cost
        (tensor([1, 0, 2]), tensor(5.))
    """
    where = "assignment"
    if is_ragged(cost):
        matrices = [_matrix(where, f"cost[{i}]", matrix, maximize) for i, matrix in enumerate(cost)]
        for i, matrix in enumerate(matrices):
            if matrix.dim() != 2:
                raise fail(where, f"cost[{i}]", "of shape (N, M)", matrix, "In a list, each is one problem.")
        pairs = _match(where, [_numpy(m) for m in matrices], maximize, threads)
        return [_chosen(m, *p) for m, p in zip(matrices, pairs, strict=True)]
    matrix = _matrix(where, "cost", cost, maximize)
    return _chosen(matrix, *_stack(_match(where, _items(matrix), maximize, threads), matrix))


@outside_autocast
def assign(x: Any, y: Any, p: int = 2, *, threads: int | None = None) -> Assignment | list[Assignment]:
    """Match the points of two clouds one to one so that the sum of `|x_i − y_j|^p` is least, exactly.

    Args:
        x: `(..., N, D)`; or a list of clouds `(N_i, D)`, for a list of results.
        y: `(..., M, D)`, leading axes broadcast with those of x; or a list as long. Where N ≠ M, the smaller cloud is
            matched wholly.
        p: 2 for squared distances, 1 for distances.
        threads: how many items at once; left out, as many as torch uses.

    Returns:
        Indices into the points of x (`rows`) and y (`columns`), and the sum of the pairs' costs.

    Gradients: of `cost` in both clouds, by the envelope theorem; zero for p = 1 in pairs at distance zero.

    Raises:
        TypeError: for tensors that are not floating.
        ValueError: another number of coordinates, batches that do not broadcast, another p, NaN.

    Example:
        >>> import torch
        >>> match = assign(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.5], [0.0], [9.0]]))
        >>> match.columns, match.cost
        (tensor([1, 0]), tensor(0.2500))
    """
    where = "assign"
    _power(where, p)
    if is_ragged(x) or is_ragged(y):
        pairs = cloud_pairs(where, x, y)
        found = _match(where, [_numpy(_costs(*pair, p)) for pair in pairs], False, threads)
        return [_matched(*pair, *match, p) for pair, match in zip(pairs, found, strict=True)]
    x, y = clouds(where, x, y)
    costs = _costs(x, y, p)
    return _matched(x, y, *_stack(_match(where, _items(costs), False, threads), costs), p)


@outside_autocast
def emd(x: Any, y: Any, a: Any = None, b: Any = None, p: int = 2, *, threads: int | None = None) -> torch.Tensor:
    """Return the exact optimal transport cost `min_P Σ_ij P_ij |x_i − y_j|^p` of two weighted clouds.

    P has the row sums a/Σa and the column sums b/Σb. With p = 1 the earth mover's distance W₁; with p = 2 the square of
    W₂. Clouds of as many points with equal weights are solved by `assign`; others by the network simplex of the package
    POT (Bonneel et al., "Displacement interpolation using Lagrangian mass transport", 2011), one item after another:
    ``pip install geodiff[pot]``.

    Args:
        x: `(..., N, D)`, N >= 1.
        y: `(..., M, D)`, M >= 1; leading axes broadcast with those of x.
        a: weights `(..., N)` >= 0, not all zero; left out, equal.
        b: weights `(..., M)`.
        p: 2 or 1.
        threads: for `assign`.

    Returns:
        `(...)`.

    Gradients: in both clouds, and in a and b: those of a/Σa and b/Σb by the dual solution, tangent to the simplex. The
    cost is piecewise linear in a and b, so at its kinks (equal weights are one) they are one of many subgradients.

    Raises:
        ModuleNotFoundError: POT is needed and not installed.
        RuntimeError: the network simplex stopped early.
        TypeError: for tensors that are not floating.
        ValueError: an empty cloud, weights that are negative or all zero, shapes that do not fit, another p, NaN.

    Example:
        >>> import torch
        >>> float(emd(torch.tensor([[0.0], [1.0]]), torch.tensor([[3.0], [1.0]]), p=1))
        1.5
    """
    where = "emd"
    _power(where, p)
    x, y = clouds(where, x, y)
    if x.shape[-2] == 0 or y.shape[-2] == 0:
        name, cloud = ("x", x) if x.shape[-2] == 0 else ("y", y)
        raise fail(where, name, "of one point or more", cloud)
    a, b = _weights(where, "a", a, x), _weights(where, "b", b, y)
    if x.shape[-2] == y.shape[-2] and _equal(a) and _equal(b):
        match = assign(x, y, p, threads=threads)
        assert isinstance(match, Assignment)
        return match.cost / x.shape[-2]
    pot = _pot()
    count = x.shape[:-2].numel()
    parts = [t.reshape(count, *t.shape[x.dim() - 2 :]) for t in (x, y, a, b)]
    costs = [_transport(pot, p, *(part[i] for part in parts)) for i in range(count)]
    return torch.stack(costs).reshape(x.shape[:-2]) if costs else x.new_zeros(x.shape[:-2])


def _transport(pot: Any, p: int, x: torch.Tensor, y: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The cost of one item. A point without weight is left out, and its dual found afterwards."""
    costs = _numpy(_costs(x, y, p))
    weights = [m.detach().cpu().double().numpy() for m in (a, b)]
    rows, columns = (np.flatnonzero(w) for w in weights)
    # The simplex wants sums that agree to the last bits.
    given = [w[w > 0] / w.sum() for w in weights]
    given[1] *= given[0].sum() / given[1].sum()
    plan, log = pot.lp.emd(*given, costs[np.ix_(rows, columns)], numItermax=10_000_000, log=True, check_marginals=False)
    if log["result_code"] != 1:
        raise RuntimeError(f"emd: the network simplex stopped early ({log['warning']}); use geodiff.sinkhorn instead.")
    i, j = np.nonzero(plan)
    amounts = torch.from_numpy(plan[i, j]).to(x)
    pairs = _pair_costs(x[torch.from_numpy(rows[i]).to(x.device)], y[torch.from_numpy(columns[j]).to(x.device)], p)
    value = (amounts * pairs).sum()
    if a.requires_grad or b.requires_grad:
        u, v = np.zeros(len(a)), np.zeros(len(b))
        u[rows], v[columns] = log["u"], log["v"]
        u[weights[0] == 0] = (costs[weights[0] == 0][:, columns] - v[columns]).min(-1)
        v[weights[1] == 0] = (costs[:, weights[1] == 0] - u[:, None]).min(0)
        for mass, dual in ((a, u), (b, v)):
            share = mass / mass.sum()
            value = value + ((share - share.detach()) * torch.from_numpy(dual).to(x)).sum()
    return value


def _pot() -> Any:
    try:
        return importlib.import_module("ot")
    except ModuleNotFoundError as error:
        text = "emd: weights, or clouds of different sizes, need the package POT: pip install 'geodiff[pot]'."
        raise ModuleNotFoundError(text) from error


def _weights(where: str, name: str, weights: Any, cloud: torch.Tensor) -> torch.Tensor:
    shape = cloud.shape[:-1]
    if weights is None:
        return cloud.new_ones(shape)
    weights = promote(where, **{name: weights, "cloud": cloud})[name].to(cloud.dtype)
    try:
        weights = weights.expand(shape)
    except RuntimeError:
        raise fail(where, name, f"of shape {tuple(shape)}, one a point", weights) from None
    if bool((weights < 0).any()):
        raise fail(where, name, "at least 0", f"{float(weights.min())}")
    if not bool((weights.sum(-1) > 0).all()):
        raise fail(where, name, "positive for one point or more", "all zero")
    return weights


def _equal(weights: torch.Tensor) -> bool:
    return not weights.requires_grad and bool((weights == weights[..., :1]).all())


def _power(where: str, p: Any) -> None:
    if p not in (1, 2):
        raise fail(where, "p", "1 (distances) or 2 (squared distances)", p)


def _matrix(where: str, name: str, cost: Any, maximize: bool) -> torch.Tensor:
    cost = as_tensor(where, name, cost)
    floating(where, name, cost, ("...", "N", "M"), finite=False)
    values = cost.detach()
    if bool(torch.isnan(values).any()):
        raise fail(where, name, "free of NaN", f"NaN at index {tuple(torch.isnan(values).nonzero()[0].tolist())}")
    if bool((values == (torch.inf if maximize else -torch.inf)).any()):
        free, forbidden = ("inf", "-inf") if maximize else ("-inf", "inf")
        raise fail(where, name, f"free of {free}", free, f"{forbidden} forbids a pair.")
    return cost


def _costs(x: torch.Tensor, y: torch.Tensor, p: int) -> torch.Tensor:
    """All costs `(..., N, M)` in float64, without gradient."""
    x, y = x.detach().double(), y.detach().double()
    distance = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return distance if p == 1 else distance.square_()


def _pair_costs(x: torch.Tensor, y: torch.Tensor, p: int) -> torch.Tensor:
    difference = x - y
    return torch.linalg.vector_norm(difference, dim=-1) if p == 1 else (difference * difference).sum(-1)


def _matched(x: torch.Tensor, y: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, p: int) -> Assignment:
    rows, columns = rows.to(x.device), columns.to(x.device)
    x, y = torch.take_along_dim(x, rows[..., None], -2), torch.take_along_dim(y, columns[..., None], -2)
    return Assignment(rows, columns, _pair_costs(x, y, p).sum(-1))


def _chosen(cost: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> Assignment:
    rows, columns = rows.to(cost.device), columns.to(cost.device)
    flat = cost.flatten(-2)
    return Assignment(rows, columns, torch.take_along_dim(flat, rows * cost.shape[-1] + columns, -1).sum(-1))


def _numpy(matrix: torch.Tensor) -> np.ndarray:
    refuse_torch_func("The assignment", matrix)
    return matrix.detach().cpu().double().numpy()


def _items(matrix: torch.Tensor) -> list[np.ndarray]:
    return list(_numpy(matrix).reshape(matrix.shape[:-2].numel(), *matrix.shape[-2:]))


def _stack(
    pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], matrix: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    shape = (*matrix.shape[:-2], min(matrix.shape[-2:]))
    if not pairs:
        return torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
    rows, columns = (torch.stack(list(side)).reshape(shape) for side in zip(*pairs, strict=True))
    return rows, columns


def _match(
    where: str, matrices: list[np.ndarray], maximize: bool, threads: int | None
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Solve every matrix. SciPy lets go of the interpreter's lock, so threads do work side by side."""
    threads = torch.get_num_threads() if threads is None else threads
    if threads < 1:
        raise fail(where, "threads", "at least 1", threads)

    def solve(item: tuple[int, np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        index, matrix = item
        try:
            rows, columns = linear_sum_assignment(matrix, maximize)
        except ValueError as error:
            got = f"item {index}, in which the pairs allowed match no side wholly ({error})"
            raise fail(where, "cost", "finite for enough pairs", got, "Allow more pairs.") from None
        return torch.from_numpy(rows.astype(np.int64)), torch.from_numpy(columns.astype(np.int64))

    if threads == 1 or len(matrices) < 2:
        return [solve(item) for item in enumerate(matrices)]
    with ThreadPoolExecutor(min(threads, len(matrices))) as pool:
        return list(pool.map(solve, enumerate(matrices)))
