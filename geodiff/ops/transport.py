# SPDX-License-Identifier: Apache-2.0
"""Sums over all pairs of two clouds for entropic optimal transport: checks, kernels, place in torch.compile.

Where the checks cost more than the sums, as in a loop over small clouds, call `torch.ops.geodiff.transport_lse`,
`transport_apply` and `transport_apply_gradient`: the same arguments, of one dtype, with one leading axis, on the CPU.
Where many sums are over the same points y, sort these once (`Columns`), and say `is_sorted`.
"""

import torch

from geodiff import reference
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.validation import common_batch, fail, floating, looks_at_values, positive

_LSE, _APPLY, _APPLY_GRADIENT = range(3)
_MANY = 1024  # columns, from which on sorting them pays

_HOW = "float epsilon, int p, bool is_sorted=False"
_op.library.define(f"transport_lse(Tensor x, Tensor y, Tensor h, {_HOW}) -> Tensor")
_ARGUMENTS = f"Tensor x, Tensor y, Tensor h, Tensor k, Tensor v, {_HOW}"
_op.library.define(f"transport_apply({_ARGUMENTS}) -> Tensor")
_op.library.define(f"transport_apply_gradient({_ARGUMENTS}) -> Tensor")


@outside_autocast
def lse(x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, epsilon: float, p: int = 2) -> torch.Tensor:
    """Return `log Σ_j exp(h_j − C_ij/ε)` for each i: half an iteration of Sinkhorn, without storing the matrix.

    A running maximum keeps every term in range, however far an outlier is. Terms below `e⁻⁴⁰` (float32) or `e⁻⁸⁰`
    (float64) of the largest are left out. Columns are sorted along a space-filling curve, and tiles of them that are
    too far from a row to count are skipped: the smaller ε, the faster. Memory is `O(N + M)`. The twin
    `geodiff.reference.lse` has the same name and arguments.

    Args:
        x: `(..., N, D)`, float32 or float64.
        y: `(..., M, D)`; leading axes broadcast with those of the others.
        h: `(..., M)`, `log b_j + g_j/ε` in Sinkhorn's iteration; −infinity leaves a point out.
        epsilon: ε > 0, in the units of C.
        p: the cost C_ij is `|x_i − y_j|ᵖ`, p = 1 or 2.

    Returns:
        `(..., N)`; −infinity where no term is left. The same bits on any number of threads.

    Gradients: none; `sinkhorn` has them.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, p or ε, NaN, infinite points, or h of +infinity.

    Example:
        >>> lse(torch.zeros(1, 1), torch.tensor([[0.0], [1.0]]), torch.zeros(2), epsilon=1.0)
        tensor([0.3133])
    """
    return _sums("lse", x, y, h, None, None, epsilon, p)


@outside_autocast
def apply(
    x: torch.Tensor,
    y: torch.Tensor,
    h: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    epsilon: float,
    p: int = 2,
) -> torch.Tensor:
    """Return `Σ_j P_ij v_j` with `P_ij = exp(k_i + h_j − C_ij/ε)`: the plan times a matrix, the plan never stored.

    In a row, P_ij below `e⁻⁴⁰` (float32) or `e⁻⁸⁰` (float64) of its largest may count as 0; below `e⁻⁸⁰` or `e⁻⁶⁵⁰`
    they do. Far from convergence they might overflow: exponents above 60 (float32) or 600 (float64) count as that much.
    Memory is `O(N + M)`. The twin `geodiff.reference.apply` has the same name and arguments.

    Args:
        x: `(..., N, D)`, float32 or float64.
        y: `(..., M, D)`; leading axes broadcast with those of the others.
        h: `(..., M)`; −infinity makes a column of exact zeros.
        k: `(..., N)`; −infinity makes a row of exact zeros.
        v: `(..., M, E)`.
        epsilon: ε > 0, in the units of C.
        p: the cost C_ij is `|x_i − y_j|ᵖ`, p = 1 or 2.

    Returns:
        `(..., N, E)`. The same bits on any number of threads.

    Gradients: none; `sinkhorn` has them.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, p or ε, NaN, infinite points or v, or h or k of +infinity.

    Example:
        >>> x, zero, v = torch.tensor([[0.0], [1.0]]), torch.zeros(2), torch.ones(2, 1)
        >>> apply(x, x, zero, zero, v, epsilon=1.0)
        tensor([[1.3679],
                [1.3679]])
    """
    return _sums("apply", x, y, h, k, v, epsilon, p)


@outside_autocast
def apply_gradient(
    x: torch.Tensor,
    y: torch.Tensor,
    h: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    epsilon: float,
    p: int = 2,
) -> torch.Tensor:
    """Return `Σ_j P_ij v_je ∂C_ij/∂x_i` with `P_ij = exp(k_i + h_j − C_ij/ε)`, the plan never stored.

    The gradient in x_i of `Σ_ij W_ij C_ij`, W held, for weights W that are sums of products of P_ij with numbers of
    the rows and of the columns. Range, memory and twin as for `apply`.

    Args:
        x: `(..., N, D)`, float32 or float64.
        y: `(..., M, D)`; leading axes broadcast with those of the others.
        h: `(..., M)`; −infinity makes a column of exact zeros.
        k: `(..., N)`; −infinity makes a row of exact zeros.
        v: `(..., M, E)`.
        epsilon: ε > 0, in the units of C.
        p: the cost C_ij is `|x_i − y_j|ᵖ`, p = 1 or 2; for p = 1 its gradient is 0 where points coincide.

    Returns:
        `(..., N, E, D)`. The same bits on any number of threads.

    Gradients: none; `sinkhorn` has them.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, p or ε, NaN, infinite points or v, or h or k of +infinity.

    Example:
        >>> x, y, zero = torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.zeros(1)
        >>> apply_gradient(x, y, zero, zero, torch.ones(1, 1), epsilon=1.0)
        tensor([[[-0.7358]]])
    """
    return _sums("apply_gradient", x, y, h, k, v, epsilon, p)


class Columns:
    """Points y `(B, M, D)` along Morton's curve, if they are many: for several sums over them.

    Args:
        y: float32 or float64. A copy is kept where they are sorted, else y itself.
    """

    def __init__(self, y: torch.Tensor) -> None:
        self.order = spatial_order(y) if y.shape[1] >= _MANY and y.shape[2] else None
        self.y = self.sorted(y)

    def sorted(self, numbers: torch.Tensor) -> torch.Tensor:
        """Return numbers of the points, `(B, M)` or `(B, M, E)`, in their order."""
        if self.order is None:
            return numbers
        return torch.take_along_dim(numbers, self.order if numbers.dim() == 2 else self.order[..., None], 1)

    @outside_autocast
    def lse(self, x: torch.Tensor, h: torch.Tensor, epsilon: float, p: int) -> torch.Tensor:
        """Return `lse(x, y, h, epsilon, p)`, to the bit."""
        return _sums("lse", x, self.y, self.sorted(h), None, None, epsilon, p, True)

    @outside_autocast
    def apply(
        self, x: torch.Tensor, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float, p: int
    ) -> torch.Tensor:
        """Return `apply(x, y, h, k, v, epsilon, p)`, to the bit."""
        return _sums("apply", x, self.y, self.sorted(h), k, self.sorted(v), epsilon, p, True)

    @outside_autocast
    def apply_gradient(
        self, x: torch.Tensor, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float, p: int
    ) -> torch.Tensor:
        """Return `apply_gradient(x, y, h, k, v, epsilon, p)`, to the bit."""
        return _sums("apply_gradient", x, self.y, self.sorted(h), k, self.sorted(v), epsilon, p, True)


def _sums(
    where: str, x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None,
    epsilon: float, p: int, is_sorted: bool = False,
) -> torch.Tensor:  # fmt: skip
    batch, tensors = _checked(where, x, y, h, k, v, epsilon, p)
    if _op.for_twin(where, **dict(zip("xyhkv", tensors, strict=False))):
        value: torch.Tensor = getattr(reference, where)(*tensors, epsilon, p)
    else:
        value = _op.run(f"transport_{where}", *tensors, float(epsilon), p, is_sorted)
    return value.reshape(*batch, *value.shape[1:])


def times(matrix: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return `K v` of a batch of matrices with a vector each, which torch has no fast product for.

    Args:
        matrix: `(B, N, M)`, float32 or float64, on the CPU; contiguous, or the transposed `mT` of one that is.
        v: `(B, M)`.

    Returns:
        `(B, N)`. The same bits on any number of threads.

    Gradients: none.

    Example:
        >>> times(torch.ones(1, 2, 3), torch.ones(1, 3))
        tensor([[3., 3.]])
    """
    batch, rows, columns = matrix.shape
    if v.shape != (batch, columns) or v.dtype != matrix.dtype:
        raise fail("times", "v", f"{matrix.dtype} of shape {(batch, columns)}", v)
    transposed = not matrix.is_contiguous()
    stored = (matrix.mT if transposed else matrix).detach().contiguous()
    out = v.new_empty(batch, rows)
    _op.call(_op.kernels.matrix_times, matrix=stored, v=v.detach().contiguous(), transposed=transposed, out=out)
    return out


def spatial_order(points: torch.Tensor) -> torch.Tensor:
    """Return for each item of a batch the order of its points along Morton's curve, int64 `(B, N)`.

    Points that follow each other in it are near each other, mostly (Morton, "A computer oriented geodetic data base",
    1966). Of many coordinates, the first eight count.

    Args:
        points: `(B, N, D)`.

    Gradients: none.

    Example:
        >>> spatial_order(torch.tensor([[[0.0, 0.0], [1.0, 1.0], [0.1, 0.0], [1.0, 0.9]]]))
        tensor([[0, 2, 3, 1]])
    """
    points = points.detach()[..., :8]
    if points.shape[1] == 0:
        return torch.zeros(points.shape[:2], dtype=torch.int64, device=points.device)
    bits = max(30 // points.shape[-1], 1)
    low = points.amin(1, keepdim=True)
    size = (points.amax(1, keepdim=True) - low).clamp(min=torch.finfo(points.dtype).tiny)
    scaled = (points - low) / size * (2**bits - 1)
    cells = _apart(scaled.nan_to_num(0.0).int(), bits, points.shape[-1])
    place, *others = (cell.contiguous() for cell in cells.unbind(-1))
    for cell in others:
        place = 2 * place + cell
    return place.argsort(dim=1, stable=True)


def _apart(numbers: torch.Tensor, bits: int, every: int) -> torch.Tensor:
    """Return whole numbers whose bits are `every` places apart, by halving groups of them (Morton's "dilation")."""
    size = 1 << (bits - 1).bit_length()
    while every > 1 and size > 1:
        size //= 2
        groups = range(0, bits * every, size * every)
        mask = sum(((1 << size) - 1) << place for place in groups) & (2**31 - 1)
        numbers = (numbers | numbers << size * (every - 1)) & mask
    return numbers


def _checked(
    where: str,
    x: torch.Tensor,
    y: torch.Tensor,
    h: torch.Tensor,
    k: torch.Tensor | None,
    v: torch.Tensor | None,
    epsilon: float,
    p: int,
) -> tuple[torch.Size, list[torch.Tensor]]:
    """Check the arguments; return the batch and tensors with one leading axis, all of one dtype."""
    floating(where, "x", x, ("...", "N", "D"))
    floating(where, "y", y, ("...", "M", x.shape[-1]), "Both clouds need as many coordinates.")
    if x.shape[-1] == 0:
        raise fail(where, "x", "of one coordinate or more", x)
    floating(where, "h", h, ("...", y.shape[-2]), "One number a point of y.", finite=False)
    tensors = {"x": x, "y": y, "h": h}
    tails = {"x": 2, "y": 2, "h": 1, "k": 1, "v": 2}
    if k is not None and v is not None:
        floating(where, "k", k, ("...", x.shape[-2]), "One number a point of x.", finite=False)
        floating(where, "v", v, ("...", y.shape[-2], "E"), "One row a point of y; use v[:, None] for a vector.")
        tensors |= {"k": k, "v": v}
    for name in ("h", "k"):
        if name in tensors and looks_at_values(tensors[name]) and not bool((tensors[name] < torch.inf).all()):
            fix = "Only −infinity is allowed, for a point that is left out."
            raise fail(where, name, "less than infinity and not NaN", "NaN or +infinity in it", fix)
    if isinstance(epsilon, torch.Tensor):
        raise fail(where, "epsilon", "a positive number", epsilon, "Use float(epsilon).", TypeError)
    positive(where, "epsilon", epsilon, "It has the units of the cost.")
    if p not in (1, 2):
        raise fail(where, "p", "1 or 2", p, "The cost is the distance to this power.")
    _op.check_devices(where, tensors, tensors.values())
    leads = [tensor.shape[: tensor.dim() - tails[name]] for name, tensor in tensors.items()]
    try:
        batch = common_batch(*leads)
    except RuntimeError:
        text = ", ".join(f"{name} {tuple(lead)}" for name, lead in zip(tensors, leads, strict=True))
        fix = "Make the leading axes equal, or insert axes of length 1."
        raise fail(where, ", ".join(tensors), "of batches that broadcast", text, fix) from None
    wide = torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors.values()) else torch.float32
    flat = []
    for name, tensor in tensors.items():
        shape = tensor.shape[tensor.dim() - tails[name] :]
        flat.append(tensor.to(wide).expand(*batch, *shape).reshape(batch.numel(), *shape).contiguous())
    return batch, flat


def _run(
    kind: int, x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor | None, v: torch.Tensor | None,
    epsilon: float, p: int, is_sorted: bool, out: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    if out.numel() == 0:
        return out
    if not is_sorted:
        columns = Columns(y)
        y, h, v = columns.y, columns.sorted(h), None if v is None else columns.sorted(v)
    _op.call(_op.kernels.transport, x=x, sum=kind, y=y, h=h, k=k, v=v, epsilon=epsilon, p=p, out=out)
    return out


def _lse_fake(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, epsilon: float, p: int, is_sorted: bool = False
) -> torch.Tensor:
    return x.new_empty(x.shape[:2])


def _apply_fake(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float, p: int,
    is_sorted: bool = False,
) -> torch.Tensor:  # fmt: skip
    return x.new_empty((x.shape[0], x.shape[1], v.shape[2]))


def _apply_gradient_fake(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float, p: int,
    is_sorted: bool = False,
) -> torch.Tensor:  # fmt: skip
    return x.new_empty((x.shape[0], x.shape[1], v.shape[2], x.shape[2]))


def _lse(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, epsilon: float, p: int, is_sorted: bool = False
) -> torch.Tensor:
    return _run(_LSE, x, y, h, None, None, epsilon, p, is_sorted, _lse_fake(x, y, h, epsilon, p))


def _apply(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float, p: int,
    is_sorted: bool = False,
) -> torch.Tensor:  # fmt: skip
    return _run(_APPLY, x, y, h, k, v, epsilon, p, is_sorted, _apply_fake(x, y, h, k, v, epsilon, p))


def _apply_gradient(
    x: torch.Tensor, y: torch.Tensor, h: torch.Tensor, k: torch.Tensor, v: torch.Tensor, epsilon: float, p: int,
    is_sorted: bool = False,
) -> torch.Tensor:  # fmt: skip
    return _run(_APPLY_GRADIENT, x, y, h, k, v, epsilon, p, is_sorted, _apply_gradient_fake(x, y, h, k, v, epsilon, p))


_SHAPES = {"x": "B N D", "y": "B M D", "h": "B M", "k": "B N", "v": "B M E"}
_ADVICE = "Use geodiff.sinkhorn, which has, or geodiff.reference, which is plain torch."
_op.register("transport_lse", _lse, _lse_fake, _SHAPES, advice=_ADVICE)
_op.register("transport_apply", _apply, _apply_fake, _SHAPES, advice=_ADVICE)
_op.register("transport_apply_gradient", _apply_gradient, _apply_gradient_fake, _SHAPES, advice=_ADVICE)
