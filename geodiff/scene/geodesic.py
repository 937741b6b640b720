# SPDX-License-Identifier: Apache-2.0
"""Shortest ways along edges, of graphs and of meshes, with the gradient of their lengths."""

from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast, refuse_torch_func
from geodiff.scene.heat import heat_distances
from geodiff.scene.mesh import Mesh
from geodiff.scene.relaxed_paths import OPERATORS, relaxed
from geodiff.validation import choice, describe, fail, floating, integer, integers, positive

METHODS = ("edges", "heat")


@outside_autocast
def graph_distance(
    edges: torch.Tensor,
    lengths: torch.Tensor,
    sources: Any,
    count: int,
    *,
    beta: float | None = None,
    operator: str = "expected",
    unreached: str = "error",
) -> torch.Tensor:
    """Return the length of the shortest way from the nearest source to each node of an undirected graph (Dijkstra).

    With `beta` the relaxed one, the limit of Bellman–Ford iterations `d_v ← softmin_u (d_u + w_uv)`, which all ways
    have a share in (Petersen, "Learning with Differentiable Algorithms", 2022, section 2.4): larger than the
    shortest for ``"expected"``, less for ``"logsumexp"``.

    Args:
        edges: (E, 2) integer, the nodes that each edge joins; of edges that join the same two, the shortest counts.
        lengths: (..., E), ≥ 0; leading axes are a batch.
        sources: a node or (S,) nodes.
        count: N nodes.
        beta: β > 0, in units of one over length: how sharp the minimum is; None: exact.
        operator: the soft minimum, ``"expected"``: `Σ x e^(−βx) / Σ e^(−βx)`; or ``"logsumexp"``:
            `−log(Σ e^(−βx)) / β`, which counts ways, to and fro as well, and has no limit where β times a length is
            below the logarithm of the graph's largest eigenvalue (that of its neighbours, about).
        unreached: ``"error"`` where a node has no way to a source, or ``"inf"``, which it is then away.

    Returns:
        (..., N) distances, 0 at the sources.

    Gradients: in lengths, of any order: 1 for each edge of the shortest way and 0 for the others (envelope theorem).
        Where two ways are equally short, that of one of them. With `beta`, that of the limit, by its own equations,
        for all edges, and of first order only. Computed on the CPU in float64: O((N + E) log N), with `beta` as many
        sweeps over E as the limit takes.

    Raises:
        TypeError: edges or sources that are not integers, lengths that are not floating.
        ValueError: other shapes, nodes out of range, negative lengths, NaN, no source, a node that is not reached; a
            beta for which there is no limit.

    Example:
        >>> import torch
        >>> square = torch.tensor([[0, 1], [1, 2], [2, 3], [3, 0]])
        >>> lengths = torch.tensor([1.0, 1.0, 1.0, 5.0], requires_grad=True)
        >>> graph_distance(square, lengths, 0, 4)[3].backward()
        >>> lengths.grad
        tensor([1., 1., 1., 0.])
    """
    where = "graph_distance"
    refuse_torch_func(where, lengths)
    if not isinstance(edges, torch.Tensor):
        raise fail(where, "edges", "an integer tensor of shape (E, 2)", describe(edges), error=TypeError)
    edges = integers(where, "edges", edges.detach(), ("E", 2)).cpu()
    count = integer(where, "count", count, 1)
    _in_range(where, "edges", edges, count)
    floating(where, "lengths", lengths, ("...", len(edges)), "One length an edge.")
    if bool((lengths < 0).any()):
        raise fail(where, "lengths", "0 or more", f"{float(lengths.min()):g}")
    choice(where, "operator", operator, OPERATORS)
    nodes = _nodes(where, sources, count)
    batch = lengths.shape[:-1]
    if not batch.numel():
        return lengths.new_zeros(*batch, count)
    if beta is None:
        return _distances(where, edges, lengths, nodes, count, unreached)
    positive(where, "beta", beta)
    exact = _distances(where, edges, lengths.detach().double(), nodes, count, unreached).cpu()
    reached = exact.isfinite()
    held = ~reached
    held[..., nodes] = True
    own, rows = lengths.to("cpu", torch.float64).reshape(batch.numel(), len(edges)), []
    for row, start, still in zip(own, exact.reshape(-1, count), held.reshape(-1, count), strict=True):
        there = start.isfinite()[edges[:, 0]]
        rows.append(relaxed(where, edges[there], row[there], start, still, float(beta), operator))
    away = torch.where(reached, torch.stack(rows).reshape(exact.shape), torch.inf)
    return away.to(lengths.device, lengths.dtype)


@outside_autocast
def geodesic(mesh: Mesh, sources: Any, *, method: str = "edges", unreached: str = "error") -> torch.Tensor:
    """Return the distance on a mesh from the nearest source to each vertex.

    With ``method="edges"`` it is the length of the shortest way along edges, which is at least the distance on the
    surface. The excess does not vanish as meshes become finer: it is up to 15 % on equilateral triangles, in the
    direction between two edges, and 22 % on an `icosphere`. With ``method="heat"`` it is that of the heat method, which
    goes to the distance on the surface as meshes become finer, and is smooth in the vertices.

    Args:
        mesh: (..., V, 3) vertices; each of a batch has distances of its own.
        sources: a vertex or (S,) vertices.
        method: "edges" or "heat".
        unreached: ``"error"`` where a vertex has no way to a source, or ``"inf"``, which it is then away.

    Returns:
        (..., V) distances in the mesh's unit, 0 at the sources.

    Gradients: in vertices, of any order. Of "edges", that of the shortest way's length at fixed edges, which is exact
        where there is one shortest way; of "heat", that of its two linear systems.

    Raises:
        TypeError: something else than a mesh, sources that are not integers.
        ValueError: vertices out of range, no source, a vertex that is not reached, another method.

    Example:
        >>> import torch, geodiff as gd
        >>> ball = gd.icosphere(3, dtype=torch.float64)
        >>> pole = int(ball.vertices[:, 2].argmax())
        >>> exact = ball.vertices[:, 2].clamp(-1, 1).arccos()
        >>> [round(float((geodesic(ball, pole, method=m) - exact).abs().mean()), 2) for m in ("edges", "heat")]
        [0.09, 0.02]
        >>> away = geodesic(ball, pole)
        >>> round(float(away.max()), 2)  # to the other pole, along chords
        3.14
    """
    where = "geodesic"
    if not isinstance(mesh, Mesh):
        raise fail(where, "mesh", "a Mesh", describe(mesh), error=TypeError)
    refuse_torch_func(where, mesh.vertices)
    nodes = _nodes(where, sources, mesh.num_vertices)
    ends = mesh.vertices[..., mesh.edges, :]
    lengths = torch.linalg.vector_norm(ends[..., 0, :] - ends[..., 1, :], dim=-1)
    choice(where, "method", method, METHODS)
    if not lengths.shape[:-1].numel():
        return lengths.new_zeros(*lengths.shape[:-1], mesh.num_vertices)
    along = _distances(where, mesh.edges.cpu(), lengths, nodes, mesh.num_vertices, unreached)
    if method == "edges":
        return along
    rows = mesh.vertices.to("cpu", torch.float64).reshape(-1, mesh.num_vertices, 3)
    ways = along.to("cpu", torch.float64).reshape(len(rows), -1)
    found = [
        _heat(vertices, mesh.faces.cpu(), torch.from_numpy(nodes), way)
        for vertices, way in zip(rows, ways, strict=True)
    ]
    return torch.stack(found).reshape(along.shape).to(along.device, along.dtype)


def _heat(vertices: torch.Tensor, faces: torch.Tensor, sources: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """Return the distances (V,) of the heat method on what is reached along edges, infinity elsewhere."""
    reached = along.isfinite()
    a, b, c = faces.unbind(1)
    faces = faces[reached[a] & (a != b) & (b != c) & (c != a)]
    there, faces = faces.unique(return_inverse=True)
    row = torch.full((len(vertices),), -1).index_copy(0, there, torch.arange(len(there)))
    corners = vertices[there][faces]
    lengths = torch.linalg.vector_norm(corners[:, [1, 2, 0]] - corners[:, [2, 0, 1]], dim=-1)
    if len(there) and not bool(lengths.detach().mean() > 0):
        raise fail("geodesic", "mesh", "one whose edges have a length", "one whose vertices are all in one place")
    inner = row[sources][row[sources] >= 0]
    found = (
        heat_distances(lengths, faces, inner, len(there), along[there].amax()) if len(there) else lengths.new_zeros(0)
    )
    whole = torch.where(reached, torch.zeros_like(along), torch.inf)  # a source that no face has is 0 away
    return whole.index_copy(0, there, found)


def _in_range(where: str, name: str, nodes: torch.Tensor, count: int) -> None:
    if nodes.numel() and not 0 <= int(nodes.min()) <= int(nodes.max()) < count:
        got = f"{int(nodes.min())} to {int(nodes.max())}"
        raise fail(where, name, f"in [0, {count}), of {count} nodes", got)


def _nodes(where: str, sources: Any, count: int) -> np.ndarray:
    nodes = torch.as_tensor(sources)
    nodes = integers(where, "sources", nodes.detach().reshape(1) if nodes.dim() == 0 else nodes.detach(), ("S",)).cpu()
    if len(nodes) == 0:
        raise fail(where, "sources", "at least one node", "none")
    _in_range(where, "sources", nodes, count)
    return nodes.unique().numpy()


def _distances(
    where: str, edges: torch.Tensor, lengths: torch.Tensor, sources: np.ndarray, count: int, unreached: str
) -> torch.Tensor:
    choice(where, "unreached", unreached, ("error", "inf"))
    own = lengths.to("cpu", torch.float64)
    rows = own.reshape(lengths.shape[:-1].numel(), len(edges))
    ends = np.sort(edges.numpy(), 1)
    found = [_tree(ends, row.detach().numpy(), sources, count) for row in rows]
    batch = np.arange(len(found))[:, None]
    reached = np.stack([f[0] for f in found])
    if unreached == "error" and not reached.all():
        first = int((~reached).nonzero()[1][0])
        got = f"{int((~reached).sum())} nodes that no way leads to, such as {first}"
        fix = 'Give a source in each connected part, or unreached="inf".'
        raise fail(where, "sources", "such that all nodes are reached", got, fix)
    before = torch.from_numpy((np.stack([f[1] for f in found]) + batch * count).reshape(-1))
    last = np.stack([f[2] for f in found])
    away = torch.cat([rows, rows.new_zeros(len(rows), 1)], 1).gather(1, torch.from_numpy(last)).reshape(-1)
    # The sum over 1, 2, 4, … steps back: a source is 0 away from itself and before itself.
    for _ in range(max(f[3] for f in found).bit_length()):
        away = away + away.index_select(0, before)
        before = before.index_select(0, before)
    away = torch.where(torch.from_numpy(reached.reshape(-1)), away, torch.inf)
    return away.reshape((*lengths.shape[:-1], count)).to(lengths.device, lengths.dtype)


def _tree(
    ends: np.ndarray, lengths: np.ndarray, sources: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return which nodes are reached, the node before each, the edge from there (E where none), and the most steps."""
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import dijkstra

    key = ends[:, 0] * count + ends[:, 1]
    order = np.lexsort((lengths, key))
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    unique = order[first]
    graph = csr_matrix((lengths[unique], ends[unique].T), shape=(count, count))
    away, before, _ = dijkstra(graph, directed=False, indices=sources, return_predecessors=True, min_only=True)
    nodes = np.arange(count)
    moved = before >= 0
    pairs = np.sort(np.stack([before, nodes], 1)[moved], 1).astype(np.int64)
    edge = np.full(count, len(key))
    edge[moved] = unique[np.searchsorted(key[unique], pairs[:, 0] * count + pairs[:, 1])]
    before = np.where(moved, before, nodes).astype(np.int64)
    steps, back = 0, before
    while not (back == back[back]).all():
        back, steps = back[back], 2 * steps + 1
    return np.isfinite(away), before, edge, max(1, 2 * steps + 1)
