# SPDX-License-Identifier: Apache-2.0
"""Networks of comparators: they sort whatever comes, in the layers that the source counts."""

import itertools

import pytest
import torch

from geodiff.soft import networks


def swapped(layers: list[networks.Layer], x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    for low, high in layers:
        assert len({*low, *high}) == 2 * len(low)  # no lane twice in a layer
        a, b = x[..., list(low)], x[..., list(high)]
        x[..., list(low)], x[..., list(high)] = torch.minimum(a, b), torch.maximum(a, b)
    return x


@pytest.mark.parametrize("n", [*range(1, 13)])
def test_networks_sort_all_zeros_and_ones(n: int) -> None:
    # What sorts every sequence of zeros and ones sorts everything (Knuth).
    x = torch.tensor(list(itertools.product((0, 1), repeat=n)))
    for layers in (networks.odd_even(n), networks.bitonic(n)):
        assert torch.equal(swapped(layers, x), x.sort(-1).values)
    for k in range(1, min(n, 4) + 1):
        assert torch.equal(swapped(networks.splitter(n, k), x)[:, :k], x.sort(-1).values[:, :k])


@pytest.mark.parametrize("n", [22, 38, 100])
def test_bitonic_networks_sort_any_number(n: int) -> None:
    x = torch.randint(0, n // 2, (200, n), generator=torch.Generator().manual_seed(n))
    assert torch.equal(swapped(networks.bitonic(n), x), x.sort(-1).values)


def test_counts_of_layers() -> None:
    for k in range(1, 8):
        for n in (2**k, 2 ** (k - 1) + 1):
            assert networks.depth("bitonic", n) == k * (k + 1) // 2
    assert networks.depth("odd_even", 9) == 9 and networks.depth("odd_even", 2) == 1
    assert networks.depth("bitonic", 1024) == 55 and networks.depth("bitonic", 1) == 0


@pytest.mark.parametrize(
    ("n", "k", "layers", "comparators"),
    [(1024, 5, 22, 5273), (10450, 5, 27, 68085), (100, 5, 17, 385), (32, 4, 12, 104), (16, 5, 10, 50)],
)
def test_splitter_selection(n: int, k: int, layers: int, comparators: int) -> None:
    # Section 4.2 of the source: 22 layers for (1024, 5), 27 for (10450, 5).
    found = networks.splitter(n, k)
    assert len(found) == layers and sum(len(low) for low, _ in found) == comparators
    x = torch.stack([torch.randperm(n, generator=torch.Generator().manual_seed(i)) for i in range(3)])
    assert torch.equal(swapped(found, x)[:, :k], torch.arange(k).expand(3, k))
