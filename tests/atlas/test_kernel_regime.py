# SPDX-License-Identifier: Apache-2.0
"""The tangent kernel of one hidden layer, against a Monte Carlo mean, a printed formula, and networks in training."""

import math

import pytest
import torch

from tests.benchmarks.atlas_kernel import Network, curve, kernel, lifted

UNITS = 400_000
LOW = 0.1  # lower curves need less of a network
SPREAD = 6 / UNITS**0.5  # standard errors of a mean of terms of the size of one


def test_the_kernel_is_the_mean_over_neurons() -> None:
    x = lifted(torch.tensor([-1.0, -0.3, 0.2, 0.9], dtype=torch.float64))
    a, c = torch.randn(UNITS, 2, dtype=torch.float64), torch.randn(UNITS, dtype=torch.float64)
    inner = x @ a.T
    on = (inner > 0).double()
    mean = (inner.relu() @ inner.relu().T + (x @ x.T) * ((on * c.square()) @ on.T)) / UNITS
    assert torch.allclose(mean, kernel(x, x), atol=SPREAD)
    # The formula as it is printed has 2π times as much.
    (p, q), angle = x[[0, 3]], math.acos(float(x[0] @ x[3] / (x[0].norm() * x[3].norm())))
    printed = float(p @ q) * (math.pi - angle) + float(p.norm() * q.norm()) * (
        (math.pi - angle) * math.cos(angle) + math.sin(angle)
    )
    assert printed / (2 * math.pi) == pytest.approx(float(kernel(x, x)[0, 3]), rel=1e-12)


def test_wide_lazy_networks_end_at_their_kernels_interpolant_and_active_ones_move_it() -> None:
    x = torch.linspace(-1, 1, 7, dtype=torch.float64)
    y, dense = LOW * curve(x), torch.linspace(-1, 1, 101, dtype=torch.float64)
    far, moved = {}, {}
    for units, lazy in ((1000, False), (1000, True), (8000, True)):
        network = Network(units, lazy)
        before = network.tangent(x, x)
        held = network.tangent(dense, x) @ torch.linalg.solve(before, y)
        assert network.train(x, y, 4000, 0.1, 1e-9) < 4000
        far[units, lazy] = float((network(dense) - held).square().mean().sqrt()) / LOW
        moved[units, lazy] = float((network.tangent(x, x) - before).norm() / before.norm())
    assert moved[8000, True] < moved[1000, True] < 0.02 < 0.3 < moved[1000, False]
    assert far[8000, True] < 0.5 * far[1000, True] < 0.5 * far[1000, False]
    limit = kernel(lifted(dense), lifted(x)) @ torch.linalg.solve(kernel(lifted(x), lifted(x)), y)
    assert float((network(dense) - limit).square().mean().sqrt()) < 0.1 * LOW
