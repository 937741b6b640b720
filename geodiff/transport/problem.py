# SPDX-License-Identifier: Apache-2.0
"""Checks of a transport problem, and its form with one axis of batches."""

import dataclasses
from typing import Any

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import maximum_flow

from geodiff.recording import look
from geodiff.validation import as_tensor, common_batch, fail, floating, looks_at_values, positive, promote, warn

SMALL_EPSILON = 1e-7
"""ε below this part of the costs is refused: differences of costs are not resolved."""
DOUBTFUL_EPSILON = 1e-5
"""ε below this part of the costs is warned of: thousands of iterations."""


@dataclasses.dataclass
class Problem:
    """A batch of problems; a and b are normalised where marginals are kept."""

    x: torch.Tensor | None  # (B, N, D)
    y: torch.Tensor | None  # (B, M, D)
    matrix: torch.Tensor | None  # (B, N, M)
    a: torch.Tensor  # (B, N)
    b: torch.Tensor  # (B, M)
    epsilon: torch.Tensor  # no axes
    strength: float  # that number
    p: int
    rho: float | None
    mask_x: torch.Tensor | None  # (B, N) bool
    mask_y: torch.Tensor | None
    batch: torch.Size
    symmetric: bool

    @property
    def inputs(self) -> tuple[torch.Tensor | None, ...]:
        """What has a gradient."""
        return self.x, self.y, self.matrix, self.a, self.b, self.epsilon


def prepare(
    where: str,
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    cost_matrix: Any,
    epsilon: Any,
    p: int,
    reach: float | None,
    mask_x: Any,
    mask_y: Any,
) -> Problem:
    """Check the arguments of `sinkhorn`; see there."""
    if (cost_matrix is None) == (x is None or y is None) or (cost_matrix is not None and x is not None):
        got = ", ".join(n for n, t in (("x", x), ("y", y), ("cost_matrix", cost_matrix)) if t is not None)
        raise fail(where, "x, y", "two clouds, or else cost_matrix alone", got or "none of them")
    if isinstance(p, bool) or p not in (1, 2):
        raise fail(where, "p", "1 (distance) or 2 (squared distance)", repr(p), "Else pass cost_matrix=.")
    positive(where, "epsilon", epsilon, "It is in the units of the cost.")
    if isinstance(epsilon, torch.Tensor) and epsilon.numel() != 1:
        raise fail(where, "epsilon", "one number for the whole batch", epsilon)
    if reach is not None:
        if isinstance(reach, torch.Tensor):
            raise fail(where, "reach", "a number (it has no gradient)", reach, "Use float(reach).", TypeError)
        positive(where, "reach", reach, "It is in the units of x; None keeps the marginals.")
    symmetric = x is not None and y is x and b is a and mask_y is mask_x
    masks = {"x": _mask(where, "mask_x", mask_x), "y": _mask(where, "mask_y", mask_y)}
    given = {name: t for name, t in (("x", x), ("y", y), ("a", a), ("b", b)) if t is not None}
    given = {name: as_tensor(where, name, t) for name, t in given.items()}
    for name, mask in masks.items():
        if mask is not None and name in given and given[name].dim() >= 2:
            given[name] = _covered(where, name, given[name], mask)
    forbidden = None
    if cost_matrix is not None:
        given["cost_matrix"], forbidden = _matrix(where, as_tensor(where, "cost_matrix", cost_matrix), masks)
    given = promote(where, **given)
    dtype = next(iter(given.values())).dtype
    device = next(iter(given.values())).device
    batch, n, m = _sizes(where, given, masks)
    flat = {name: _flat(given[name], batch) for name in ("x", "y", "cost_matrix") if name in given}
    if forbidden is not None:
        flat["cost_matrix"] = torch.where(_flat(forbidden, batch), torch.inf, flat["cost_matrix"])
    weights = {}
    flat_masks: dict[str, torch.Tensor | None] = {}
    for name, side, count in (("a", "x", n), ("b", "y", m)):
        mask = masks[side]
        flat_mask = None if mask is None else mask.expand(*batch, count).reshape(-1, count)
        if flat_mask is not None and bool(flat_mask.all()):
            flat_mask = None
        flat_masks[side] = flat_mask
        weights[name] = _weights(where, name, given.get(name), flat_mask, batch, count, reach is None, dtype, device)
    least = torch.finfo(dtype).tiny
    value = float(epsilon.detach() if isinstance(epsilon, torch.Tensor) else epsilon)
    if value < least:
        raise fail(where, "epsilon", f"at least {least:.3g} in {str(dtype)[6:]}", f"{value:.3g}", "Scale the clouds.")
    value = float(torch.tensor(value, dtype=dtype, device="cpu"))
    if isinstance(epsilon, torch.Tensor):
        tensor = epsilon.to(device, dtype).reshape(())
    else:
        tensor = torch.full((), value, dtype=dtype, device=device)
    problem = Problem(
        flat.get("x"),
        flat.get("y"),
        flat.get("cost_matrix"),
        weights["a"],
        weights["b"],
        tensor,
        value,
        p,
        None if reach is None else float(reach) ** p,
        flat_masks["x"],
        flat_masks["y"],
        batch,
        symmetric,
    )
    with torch.no_grad():
        if forbidden is not None:
            _check_feasible(where, problem)
        _check_epsilon(where, problem)
    return problem


def _mask(where: str, name: str, mask: Any) -> torch.Tensor | None:
    if mask is None:
        return None
    mask = as_tensor(where, name, mask) if not isinstance(mask, np.ndarray) else torch.from_numpy(mask)
    if mask.dtype != torch.bool:
        raise fail(where, name, "a bool tensor, True where there is a point", mask, "Use .bool().", TypeError)
    return mask


def _covered(where: str, name: str, points: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Points with zeros where the mask says that there is none."""
    if mask.dim() < 1 or mask.shape[-1] != points.shape[-2]:
        raise fail(where, f"mask_{name}", f"of shape (..., {points.shape[-2]}), one entry a point of `{name}`", mask)
    try:
        return torch.where(mask[..., None], points, 0)
    except RuntimeError:
        raise fail(where, f"mask_{name}", f"of the batch {tuple(points.shape[:-2])} of `{name}`", mask) from None


def _matrix(
    where: str, matrix: torch.Tensor, masks: dict[str, torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Costs without what masks cover and with 0 for forbidden pairs, and which those are."""
    if matrix.dim() < 2 or matrix.is_complex():
        raise fail(where, "cost_matrix", "of shape (..., N, M)", matrix)
    for name, axis in (("x", -2), ("y", -1)):
        mask = masks[name]
        if mask is None:
            continue
        if mask.dim() < 1 or mask.shape[-1] != matrix.shape[axis]:
            raise fail(where, f"mask_{name}", f"of shape (..., {matrix.shape[axis]}) like cost_matrix", mask)
        mask = mask[..., None] if axis == -2 else mask[..., None, :]
        try:
            matrix = torch.where(mask, matrix, 0)
        except RuntimeError:
            raise fail(where, f"mask_{name}", "of the batch of cost_matrix", mask) from None
    if not matrix.is_floating_point() or not looks_at_values(matrix):
        return matrix, None
    forbidden = torch.isposinf(matrix.detach())
    if not bool(forbidden.any()):
        return matrix, None
    return torch.where(forbidden, 0, matrix), forbidden


def _sizes(
    where: str, given: dict[str, torch.Tensor], masks: dict[str, torch.Tensor | None]
) -> tuple[torch.Size, int, int]:
    """Shape of the batch and sizes of the clouds."""
    if "cost_matrix" in given:
        matrix = floating(where, "cost_matrix", given["cost_matrix"], ("...", "N", "M"), finite=False)
        n, m = matrix.shape[-2:]
        leads = [("cost_matrix", matrix.shape[:-2])]
        names = ("cost_matrix", "cost_matrix")
    else:
        x = floating(where, "x", given["x"], ("...", "N", "D"), finite=False)
        fix = "Both clouds need as many coordinates."
        y = floating(where, "y", given["y"], ("...", "M", x.shape[-1]), fix, finite=False)
        n, m = x.shape[-2], y.shape[-2]
        leads = [("x", x.shape[:-2]), ("y", y.shape[:-2])]
        names = ("x", "y")
    for name, count in zip(names, (n, m), strict=True):
        if count == 0:
            raise fail(where, name, "of one point or more", given[name])
    for name, count in (("a", n), ("b", m)):
        if name in given:
            weight = floating(where, name, given[name], ("...", count), "One weight a point.", finite=False)
            leads.append((name, weight.shape[:-1]))
    for name in ("x", "y"):
        mask = masks[name]
        if mask is not None:
            leads.append((f"mask_{name}", mask.shape[:-1]))
    try:
        batch = common_batch(*(shape for _, shape in leads))
    except RuntimeError:
        text = ", ".join(f"{name} {tuple(shape)}" for name, shape in leads)
        raise fail(where, names[0], "of a batch that broadcasts with the others", text) from None
    if batch.numel() == 0:
        raise fail(where, names[0], "of one problem or more", f"a batch of shape {tuple(batch)}")
    return batch, n, m


def _flat(value: torch.Tensor, batch: torch.Size) -> torch.Tensor:
    return value.expand(*batch, *value.shape[-2:]).reshape(-1, *value.shape[-2:]).contiguous()


def _weights(
    where: str,
    name: str,
    given: torch.Tensor | None,
    mask: torch.Tensor | None,
    batch: torch.Size,
    count: int,
    balanced: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> torch.Tensor:
    """Weights (B, N), normalised where marginals are kept; equal ones where none are given."""
    if given is None:
        weight = torch.ones(batch.numel(), count, dtype=dtype, device=device)
        weight = weight if mask is None else weight * mask
        total = weight.sum(-1, keepdim=True)
        if mask is not None and bool((total == 0).any()):
            item = int((total[:, 0] == 0).nonzero()[0])
            raise fail(where, f"mask_{'x' if name == 'a' else 'y'}", "True somewhere", f"no point in item {item}")
        return weight / total
    weight = given.expand(*batch, count).reshape(-1, count)
    if mask is not None:
        weight = torch.where(mask, weight, 0)
    if not looks_at_values(weight):
        return weight / weight.sum(-1, keepdim=True) if balanced else weight
    held = weight.detach()
    if bool((held < 0).any()):
        at = tuple(int(i) for i in (held < 0).nonzero()[0])
        raise fail(where, name, "weights ≥ 0", f"{float(held[at]):.6g} at index {at[1]} of item {at[0]}")
    total = held.double().sum(-1)
    if bool((total == 0).any()):
        item = int((total == 0).nonzero()[0])
        raise fail(where, name, "weights of which some are above 0", f"zeros only in item {item}")
    if not balanced:
        return weight
    allowed = 1e-5 if dtype == torch.float32 else 1e-9
    off = (total - 1).abs()
    if bool((off > allowed).any()):
        item = int(off.argmax())
        got = f"a sum of {float(total[item]):.10g} in item {item}, off by {float(total[item]) - 1:.3g}"
        fix = f"Normalise them: {name} / {name}.sum(-1, keepdim=True); or let masses differ with reach=."
        raise fail(where, name, f"weights that sum to 1 within {allowed:g}", got, fix)
    return weight / weight.sum(-1, keepdim=True)


def diameter(problem: Problem) -> tuple[float, torch.Tensor]:
    """A bound of the differences of costs in any item, and the least cost of each, about."""
    if problem.matrix is not None:
        used = (problem.a > 0)[..., None] & (problem.b > 0)[:, None] & torch.isfinite(problem.matrix)
        high = torch.where(used, problem.matrix, -torch.inf).amax((-1, -2))
        low = torch.where(used, problem.matrix, torch.inf).amin((-1, -2))
        return look((high - low).amax()), low
    assert problem.x is not None and problem.y is not None
    highs, lows = [], []
    for points, weight in ((problem.x, problem.a), (problem.y, problem.b)):
        used = (weight > 0)[..., None]
        highs.append(torch.where(used, points, -torch.inf).amax(1))
        lows.append(torch.where(used, points, torch.inf).amin(1))
    size = torch.linalg.vector_norm(torch.maximum(*highs) - torch.minimum(*lows), dim=-1) ** problem.p
    return look(size.amax()), torch.zeros_like(size)


def _check_epsilon(where: str, problem: Problem) -> None:
    """Compare ε with the typical spread of costs along a row, which single points far away do not change."""
    if not looks_at_values(problem.a):
        return
    sizes = []
    for item in range(min(problem.a.shape[0], 16)):
        rows, columns = (w[item].nonzero()[:, 0] for w in (problem.a, problem.b))
        rows, columns = rows[:: -(-len(rows) // 64)], columns[:: -(-len(columns) // 256)]
        if problem.matrix is not None:
            cost = problem.matrix[item][rows][:, columns].double()
        else:
            assert problem.x is not None and problem.y is not None
            cost = torch.cdist(problem.x[item, rows].double(), problem.y[item, columns].double()) ** problem.p
        low = torch.where(torch.isfinite(cost), cost, torch.inf).amin(-1, keepdim=True)
        spread = torch.where(torch.isfinite(cost), cost - low, 0.0)
        if problem.rho is not None:  # what is much farther than reach is left out
            spread = spread.clamp(max=10 * problem.rho)
        # By parts of an order: torch sorts all.
        sizes.append(float(np.median(np.quantile(spread.cpu().numpy(), 0.9, axis=-1))) if spread.numel() else 0.0)
    size, value = max(sizes), problem.strength
    if value < SMALL_EPSILON * size:
        expected = f"at least {SMALL_EPSILON:g} of the costs, here {SMALL_EPSILON * size:.3g}"
        fix = "For the exact assignment use geodiff.transport.assignment."
        raise fail(where, "epsilon", expected, f"{value:.3g}", fix)
    if value < DOUBTFUL_EPSILON * size:
        text = f"{where}: epsilon = {value:.3g} is below {DOUBTFUL_EPSILON:g} of the costs ({size:.3g})"
        warn(f"{text}; expect many iterations and rounding errors.", RuntimeWarning)


def _check_feasible(where: str, problem: Problem) -> None:
    """Raise where forbidden pairs leave some mass nowhere to go."""
    assert problem.matrix is not None
    for item in range(problem.a.shape[0]):
        a, b = (w[item].double().cpu().numpy() for w in (problem.a, problem.b))
        allowed = torch.isfinite(problem.matrix[item]).cpu().numpy() & (a > 0)[:, None] & (b > 0)
        if allowed.sum() == (a > 0).sum() * (b > 0).sum():
            continue
        for axis, weight, side in ((1, a, "row"), (0, b, "column")):
            alone = (weight > 0) & ~allowed.any(axis)
            if alone.any():
                at = int(alone.argmax())
                text = f"infinite in all of {side} {at} of item {item}, which has a weight"
                raise fail(where, "cost_matrix", "finite somewhere in each row and column", text)
        if problem.rho is not None:
            continue
        # The largest flow that the allowed pairs carry, in whole parts of the mass.
        n, m = allowed.shape
        parts = 1 << 30
        out, into = np.floor(a * parts).astype(np.int32), np.ceil(b * parts).astype(np.int32)
        i, j = allowed.nonzero()
        edges = [(np.full(n, n + m), np.arange(n), out), (i, n + j, np.minimum(out[i], into[j]))]
        edges.append((n + np.arange(m), np.full(m, n + m + 1), into))
        start, end, room = (np.concatenate(part) for part in zip(*edges, strict=True))
        graph = coo_matrix((room, (start, end)), shape=(n + m + 2, n + m + 2)).tocsr()
        carried = maximum_flow(graph, n + m, n + m + 1).flow_value
        missing = 1 - carried / max(1, int(out.sum()))
        if missing > (1e-5 if problem.a.dtype == torch.float32 else 1e-8):
            text = f"pairs forbidden such that {100 * missing:.3g} % of the mass of item {item} has nowhere to go"
            raise fail(where, "cost_matrix", "finite for enough pairs", text, "Allow more pairs, or pass reach=.")
