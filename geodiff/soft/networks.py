# SPDX-License-Identifier: Apache-2.0
"""Networks of comparators that sort or select: which lanes are compared in which layer, and their relaxed run."""

import functools

import torch

from geodiff.constants import on_device
from geodiff.modes import lasting
from geodiff.soft.distribution_base import Distribution

Tensor = torch.Tensor
Layer = tuple[tuple[int, ...], tuple[int, ...]]
"""Lanes that get the smaller of two values, and those that get the larger."""

_KEPT = 64  # networks


def odd_even(n: int) -> list[Layer]:
    """Compare neighbours, by turns from the first and from the second lane: n layers."""
    layers = []
    for turn in range(n):
        low = tuple(range(turn % 2, n - 1, 2))
        layers.append((low, tuple(i + 1 for i in low)))
    return [layer for layer in layers if layer[0]]


def bitonic(n: int) -> list[Layer]:
    """Batcher's bitonic sorter: k (k + 1)/2 layers, k = ⌈log₂ n⌉.

    Drawn so that no comparator points upwards: two sorted blocks are merged by comparing each lane of the one with its
    mirror image in the other, then by halving. It is the usual network with some lanes renamed, and lanes beyond n can
    be left out as if they held infinity, for any n. (With the usual drawing, leaving out the first lanes of 2ᵏ, as the
    package diffsort 0.2 does, does not always sort: first at n = 22.)
    """
    layers = []
    for block in (2**level for level in range(1, max(n - 1, 0).bit_length() + 1)):
        pairs = [(i, i ^ (block - 1)) for i in range(n)]
        layers.append(_layer([(i, j) for i, j in pairs if i < j < n]))
        for stride in (2**level for level in range(block.bit_length() - 3, -1, -1)):
            layers.append(_layer([(i, i + stride) for i in range(n - stride) if not i & stride]))
    return layers


def splitter(n: int, k: int) -> list[Layer]:
    """Bring the k smallest of n to the lanes 0 to k − 1, in order: a splitter selection network, O(log n + k) layers.

    A cascade on m lanes halves them ⌈log₂ m⌉ times; what ends in place j of it is known to be beaten by
    2^(bits set in j) − 1 others. Lanes that k others beat are not looked at again; cascades go on among lanes that are
    known to be beaten by the same number, those of most first, until at most one is left of each number. The source
    (F. Petersen et al., "Differentiable top-k classification learning", 2022) describes it in words.
    """
    beaten, free = [0] * n, [0] * n  # by how many others at least; the first layer that has not used the lane
    found: dict[int, list[tuple[int, int]]] = {}
    for least in range(k):
        changed = True
        while changed:
            changed = False
            for rank in range(k - 1, least - 1, -1):
                lanes = [lane for lane in range(n) if beaten[lane] == rank]
                if len(lanes) < 2:
                    continue
                changed = True
                layer, stride = max(free[lane] for lane in lanes), 2 ** (max(len(lanes) - 1, 0).bit_length() - 1)
                while stride:
                    pairs = [(i, i + stride) for i in range(len(lanes) - stride) if not i & stride]
                    found.setdefault(layer, []).extend((lanes[i], lanes[j]) for i, j in pairs)
                    layer, stride = layer + 1, stride // 2
                for place, lane in enumerate(lanes):
                    free[lane] = layer
                    beaten[lane] += 2 ** place.bit_count() - 1
    return [_layer(found[layer]) for layer in sorted(found)]


def _layer(pairs: list[tuple[int, int]]) -> Layer:
    return tuple(low for low, _ in pairs), tuple(high for _, high in pairs)


def pruned(kind: str, n: int, rows: tuple[int, ...] | None) -> list[Layer]:
    """Return the layers of a network; with `rows`, without what these lanes do not depend on."""
    if kind == "splitter":
        assert rows is not None
        layers = splitter(n, max(rows) + 1)
    else:
        layers = odd_even(n) if kind == "odd_even" else bitonic(n)
    needed = set(range(n) if rows is None else rows)
    kept: list[Layer] = []
    for low, high in reversed(layers):
        pairs = [pair for pair in zip(low, high, strict=True) if pair[0] in needed or pair[1] in needed]
        for pair in pairs:
            needed.update(pair)
        if pairs:
            kept.append(_layer(pairs))
    return kept[::-1]


Lanes = tuple[tuple[Tensor, Tensor], ...]
"""The layers as tensors, on the CPU."""


def network(kind: str, n: int, rows: tuple[int, ...] | None) -> Lanes:
    """Return `pruned` as tensors, made once."""
    return _lanes(kind, n, rows) if torch.compiler.is_compiling() else _kept_lanes(kind, n, rows)


def _lanes(kind: str, n: int, rows: tuple[int, ...] | None) -> Lanes:
    layers = pruned(kind, n, rows)
    return tuple((torch.tensor(low, device="cpu"), torch.tensor(high, device="cpu")) for low, high in layers)


@functools.lru_cache(maxsize=_KEPT)
def _kept_lanes(kind: str, n: int, rows: tuple[int, ...] | None) -> Lanes:
    with lasting():
        return _lanes(kind, n, rows)


Shares = list[tuple[Tensor, Tensor, Tensor]]
"""For each layer the two lanes of its comparators, and α `(..., comparators)`."""


def run(layers: Lanes, x: Tensor, distribution: Distribution, temperature: float | Tensor) -> tuple[Tensor, Shares]:
    """Run a network on `x (..., n)`; return what its lanes hold at the end, and the shares of its comparators."""
    shares = []
    for low, high in layers:
        low, high = on_device(low, x.device), on_device(high, x.device)
        a, b = x.index_select(-1, low), x.index_select(-1, high)
        alpha = distribution.cdf((b - a) / temperature)
        x = _put(x, low, high, alpha * a + (1 - alpha) * b, (1 - alpha) * a + alpha * b)
        shares.append((low, high, alpha))
    return x, shares


def rows_of(shares: Shares, rows: Tensor, like: Tensor) -> Tensor:
    """Return rows `(..., k, n)` of the product of all layers, from the last layer back to the first: k n entries."""
    n = like.shape[-1]
    matrix = torch.nn.functional.one_hot(rows, n).to(like.dtype).expand(*like.shape[:-1], len(rows), n)
    for low, high, alpha in reversed(shares):
        a, b, part = matrix.index_select(-1, low), matrix.index_select(-1, high), alpha[..., None, :]
        matrix = _put(matrix, low, high, part * a + (1 - part) * b, (1 - part) * a + part * b)
    return matrix


def _put(x: Tensor, low: Tensor, high: Tensor, smaller: Tensor, larger: Tensor) -> Tensor:
    """Return x with new values in the lanes of a layer."""
    return x.index_copy(-1, torch.cat([low, high]), torch.cat([smaller, larger], dim=-1))


def depth(kind: str, n: int, k: int | None = None) -> int:
    """Return how many layers a network has; `k` is how many values it brings out, for "splitter".

    The error of a relaxed network is no larger than that of one comparator times its layers.

    Example:
        >>> depth("bitonic", 1024), depth("splitter", 1024, 5)
        (55, 22)
    """
    return len(network(kind, n, None if k is None else tuple(range(k))))
