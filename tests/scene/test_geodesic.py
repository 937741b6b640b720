# SPDX-License-Identifier: Apache-2.0
"""Shortest ways along edges, against SciPy and by hand."""

import math
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from scipy.sparse.csgraph import dijkstra

import geodiff as gd
from geodiff.scene import geodesic, graph_distance, relaxed_paths

ROUNDING = 1e-13  # sums of some hundred lengths below 1
SQUARE = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])


def network(count: int, many: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    line = torch.stack([torch.arange(count - 1), torch.arange(1, count)], 1)
    return torch.cat([line, torch.randint(0, count, (many, 2), generator=draw)]), torch.rand(
        count - 1 + many, generator=draw, dtype=torch.float64
    )


@pytest.mark.parametrize(("count", "many"), [(2, 0), (50, 0), (200, 150), (300, 2000)])
def test_distances_are_those_of_scipy(count: int, many: int) -> None:
    edges, lengths = network(count, many)
    dense = np.full((count, count), np.inf)
    for (a, b), length in zip(edges.tolist(), lengths.tolist(), strict=True):
        dense[a, b] = dense[b, a] = min(dense[a, b], length)
    for sources in ([0], [count - 1, 1]):
        graph = scipy.sparse.csr_matrix(np.where(np.isfinite(dense), dense, 0))
        expected = dijkstra(graph, indices=sources, min_only=True)
        away = graph_distance(edges, lengths, torch.tensor(sources), count)
        torch.testing.assert_close(away, torch.from_numpy(expected), atol=ROUNDING, rtol=0)


def test_gradient_of_graphs() -> None:
    edges, lengths = network(9, 9, seed=2)
    several = torch.stack([lengths, lengths.flip(0)]).requires_grad_()

    def away(lengths: torch.Tensor) -> torch.Tensor:
        return graph_distance(edges, lengths, [0, 4], 9)

    assert torch.autograd.gradcheck(away, several)
    jacobian = torch.autograd.functional.jacobian(away, several.detach()).unique()
    assert jacobian.tolist() == [0, 1]  # an edge is on the way or it is not
    for item in range(2):
        assert torch.equal(away(several)[item], away(several[item]))


def test_a_straight_line_on_a_mesh() -> None:
    """A strip of squares: along the side the way is the line, and across the diagonal if there is one."""
    mesh = gd.Mesh(
        torch.tensor([[float(i), float(j), 0] for i in range(5) for j in range(2)], dtype=torch.float64),
        torch.tensor([t for i in range(0, 8, 2) for t in ([i, i + 2, i + 3], [i, i + 3, i + 1])]),
    )
    away = geodesic(mesh, 0)
    expected = [[i, max(i - 1, 0) + (2**0.5 if i else 1)] for i in range(5)]
    torch.testing.assert_close(away.reshape(5, 2), torch.tensor(expected, dtype=torch.float64), atol=ROUNDING, rtol=0)


def lattice(n: int = 12) -> torch.Tensor:
    """The edges of a grid of n × n nodes, each with up to four neighbours."""
    node = torch.arange(n * n).reshape(n, n)
    across, down = torch.stack([node[:, :-1], node[:, 1:]], -1), torch.stack([node[:-1], node[1:]], -1)
    return torch.cat([across.reshape(-1, 2), down.reshape(-1, 2)])


@pytest.mark.parametrize(
    ("operator", "beta", "corner"),
    [("expected", 1.0, 26.458), ("expected", 1.42, 24.119), ("expected", 10.0, 22.000), ("logsumexp", 1.42, 7.067),
     ("logsumexp", 10.0, 20.653)],
)  # fmt: skip
def test_relaxed_distance_across_a_grid(operator: str, beta: float, corner: float) -> None:
    """From corner to corner of 12 × 12 nodes, exactly 22; figures by plain iterations over a dense matrix."""
    edges = lattice()
    lengths = torch.ones(len(edges), dtype=torch.float64)
    away = graph_distance(edges, lengths, 0, 144, beta=beta, operator=operator)
    assert float(away[-1]) == pytest.approx(corner, abs=6e-4)
    assert away[0] == 0
    sharp = graph_distance(edges, lengths, 0, 144, beta=200.0, operator=operator)
    torch.testing.assert_close(sharp, graph_distance(edges, lengths, 0, 144), atol=0.1, rtol=0)


def test_log_sum_exp_without_a_limit() -> None:
    edges = lattice()
    with pytest.raises(
        ValueError, match=r"`beta` must be such that the relaxed .* limit; got 1 without one\. Ways that go"
    ):
        graph_distance(edges, torch.ones(len(edges)), 0, 144, beta=1.0, operator="logsumexp")


@pytest.mark.parametrize("operator", ["expected", "logsumexp"])
def test_gradient_of_relaxed_distances(operator: str) -> None:
    edges = lattice(4)
    lengths = 0.5 + torch.rand(2, len(edges), generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def away(lengths: torch.Tensor) -> torch.Tensor:
        return graph_distance(edges, lengths, [0, 5], 16, beta=4.0, operator=operator)

    assert torch.autograd.gradcheck(away, lengths.requires_grad_())
    (first,) = torch.autograd.grad(away(lengths).sum(), lengths, create_graph=True)
    with pytest.raises(RuntimeError, match="of first order only"):
        torch.autograd.grad(first.sum(), lengths)
    apart = graph_distance(SQUARE[:1], torch.ones(1), 0, 3, beta=2.0, operator=operator, unreached="inf")
    assert apart.tolist() == [0, 1, torch.inf]


def test_gradient_in_vertices() -> None:
    ball = gd.icosphere(1, dtype=torch.float64)
    shaken = (
        ball.vertices + 0.05 * torch.randn(ball.vertices.shape, generator=torch.Generator().manual_seed(1)).double()
    )
    vertices = torch.stack([shaken, shaken.flip(-1) * 1.1]).requires_grad_()

    def away(vertices: torch.Tensor) -> torch.Tensor:
        return geodesic(ball.with_vertices(vertices), [0, 7])

    assert torch.autograd.gradcheck(away, vertices)
    single = geodesic(ball.with_vertices(shaken).to(torch.float32), 3)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), geodesic(ball.with_vertices(shaken), 3), atol=1e-6, rtol=0)


def test_ball() -> None:
    """Never shorter than chords, and at most 1/cos 36° longer: two edges, 72° apart at most, for the way between."""
    ball = gd.icosphere(4, dtype=torch.float64)
    exact = (ball.vertices @ ball.vertices[0]).clamp(-1, 1).arccos()
    ratio = (geodesic(ball, 0) / exact)[exact > 0.3]
    assert ratio.min() > 0.999
    assert ratio.max() < 1 / math.cos(math.radians(36))


def test_lengths_of_zero() -> None:
    away = graph_distance(SQUARE, torch.zeros(4), 0, 4)
    assert away.tolist() == [0, 0, 0, 0]
    mesh = gd.Mesh(torch.zeros(3, 3, requires_grad=True), torch.tensor([[0, 1, 2]]))
    geodesic(mesh, 0).sum().backward()
    assert mesh.vertices.grad.tolist() == [[0.0] * 3] * 3


def test_what_falls_apart() -> None:
    lengths = torch.ones(2, dtype=torch.float64, requires_grad=True)
    away = graph_distance(SQUARE[:2], lengths, 0, 5, unreached="inf")
    assert away.tolist() == [0, 1, 2, torch.inf, torch.inf]
    away[:3].sum().backward()
    assert lengths.grad.tolist() == [2, 1]
    assert graph_distance(SQUARE[:0], torch.zeros(0), 1, 2, unreached="inf").tolist() == [torch.inf, 0]


def away_from(edges: Any, lengths: Any, sources: Any = 0, count: int = 4, **options: Any) -> torch.Tensor:
    return graph_distance(edges, lengths, sources, count, **options)


def test_gradients_that_are_no_numbers_do_not_go_on_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = []
    grad = torch.autograd.grad
    monkeypatch.setattr(relaxed_paths.torch.autograd, "grad", lambda *a, **k: (steps.append(0), grad(*a, **k))[1])
    for upstream in (math.nan, math.inf):
        lengths = torch.ones(4, requires_grad=True)
        away = graph_distance(SQUARE, lengths, 0, 4, beta=2.0)
        away.backward(torch.full((4,), upstream))
        assert len(steps) < 10 and not lengths.grad.isfinite().all()
        steps.clear()


def test_empty_batches_and_graphs_without_edges() -> None:
    for beta in (None, 3.0):
        assert graph_distance(SQUARE, torch.ones(0, 4), 0, 4, beta=beta).shape == (0, 4)
        none = gd.Mesh(torch.zeros(0, 12, 3), gd.icosphere(0).faces)
        assert geodesic(none, 0, method="edges" if beta is None else "heat").shape == (0, 12)
        assert graph_distance(SQUARE[:0], torch.ones(0), 0, 1, beta=beta).tolist() == [0.0]
        assert graph_distance(SQUARE[:0], torch.ones(2, 0), 0, 1, beta=beta).tolist() == [[0.0], [0.0]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: graph_distance(SQUARE[:2], torch.ones(2), 0, 4),
            ValueError,
            r"graph_distance: `sources` must be such that all nodes are reached; got 1 nodes .*, such as 3",
        ),
        (lambda: away_from([[0, 1]], torch.ones(1), 0, 2), TypeError, r"`edges` must be an integer tensor"),
        (lambda: away_from(SQUARE.float(), torch.ones(4)), TypeError, r"`edges` must be an integer tensor"),
        (
            lambda: away_from(SQUARE, torch.ones(4), 0, 3),
            ValueError,
            r"`edges` must be in \[0, 3\), of 3 nodes; got 0 to",
        ),
        (lambda: away_from(SQUARE, torch.ones(4), 0, -4), ValueError, r"`count` must be an integer ≥ 1; got -4"),
        (lambda: away_from(SQUARE, torch.ones(3)), ValueError, r"`lengths` must be of shape \(\.\.\., 4\)"),
        (lambda: away_from(SQUARE, -torch.ones(4)), ValueError, r"`lengths` must be 0 or more; got -1"),
        (lambda: away_from(SQUARE, torch.ones(4) * torch.nan), ValueError, r"`lengths` must be finite"),
        (lambda: away_from(SQUARE, torch.ones(4), 4), ValueError, r"`sources` must be in \[0, 4\)"),
        (lambda: away_from(SQUARE, torch.ones(4), []), TypeError, r"`sources` must be an integer tensor"),
        (lambda: away_from(SQUARE, torch.ones(4), SQUARE[0, :0]), ValueError, r"`sources` must be at least one"),
        (lambda: away_from(SQUARE, torch.ones(4), unreached="nan"), ValueError, r"`unreached` must be one of"),
        (lambda: away_from(SQUARE, torch.ones(4), beta=0.0), ValueError, r"`beta` must be positive and finite"),
        (
            lambda: away_from(SQUARE, torch.ones(4), operator="min"),
            ValueError,
            r"`operator` must be one of expected, log",
        ),
        (lambda: geodesic(SQUARE, 0), TypeError, r"geodesic: `mesh` must be a Mesh"),  # type: ignore[arg-type]
        (lambda: geodesic(gd.icosphere(0), 12), ValueError, r"geodesic: `sources` must be in \[0, 12\)"),
        (lambda: geodesic(gd.icosphere(0), 0.5), TypeError, r"`sources` must be an integer tensor"),
        (lambda: torch.func.vmap(lambda w: away_from(SQUARE, w))(torch.ones(2, 4)), RuntimeError, r"take part"),
    ],
)
def test_bad_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
