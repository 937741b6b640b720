# SPDX-License-Identifier: Apache-2.0
"""Twin of the CPU's kernels of surface nets (cuda/cpu/surface_net.h), in NumPy and torch."""

import numpy as np
import torch

Net = tuple[torch.Tensor, ...]


def surface_net(inside: torch.Tensor) -> Net:
    """Return the net of a grid of what is inside: all but where on its edges the surface passes.

    A vertex for each sheet of the surface in each cell, a quad for each edge of the grid that is crossed, between the
    cells around it. Edges come by axis, then by where they start; vertices by cell.

    Args:
        inside: booleans (X, Y, Z). Beyond the grid is outside.

    Returns:
        inner, outer: (E,) nodes of the grid at the ends of crossed edges; −1: beyond it.
        at: (E, 3) int32, where the inner end is, in steps of the grid.
        way: (E,) in which direction the outer end is: 2 · axis, and 1 more if forwards.
        around: (E, 4) the vertices around each edge, counter-clockwise seen from where it goes.
        quads: (E, 4) the same, seen from outside.
        doubtful: sides 4 e + k of quads, from corner k to the next, that cross a face of the grid whose edges are all
            crossed.
        count: (1,) of vertices.
    """
    # A ring of what is outside around it, so that each crossed edge has four cells.
    solid = np.pad(inside.numpy(), 1)
    shape = solid.shape
    stride = np.array([shape[1] * shape[2], shape[2], 1])
    corners = (np.arange(8)[:, None] >> np.array([2, 1, 0]) & 1) @ stride
    flat = solid.reshape(-1)
    starts, around, along = [], [], []
    for a in range(3):
        changes = np.moveaxis(solid, a, 0)
        place = np.nonzero(np.moveaxis(changes[:-1] != changes[1:], 0, a))
        start = np.ravel_multi_index(place, shape)
        u, v = stride[(a + 1) % 3], stride[(a + 2) % 3]
        cells = np.stack([start - u - v, start - v, start, start - u], 1)
        around.append(np.concatenate([cells, np.tile(4 * a + np.array([3, 1, 0, 2]), (len(start), 1))], 1))
        starts.append(start)
        along.append(np.full_like(start, a))
    start, axis, both = np.concatenate(starts), np.concatenate(along), np.concatenate(around)
    out = flat[start]
    cell, row = np.unique(both[:, :4], return_inverse=True)
    pattern = np.packbits(flat[cell[:, None] + corners], axis=1, bitorder="little")[:, 0]
    sheet = SHEETS[pattern[row.reshape(-1)], both[:, 4:].reshape(-1)]
    vertex, row = np.unique(4 * both[:, :4].reshape(-1) + sheet, return_inverse=True)
    incident = row.reshape(-1, 4)
    step = stride[axis]
    ends = []
    for node in (start + np.where(out, 0, step), start + np.where(out, step, 0)):
        at = np.stack(np.unravel_index(node, shape), 1) - 1
        beyond = ((at < 0) | (at >= np.array(inside.shape))).any(1)
        number = (at[:, 0] * inside.shape[1] + at[:, 1]) * inside.shape[2] + at[:, 2]
        ends.append((np.where(beyond, -1, number), at.astype(np.int32)))
    u, v = stride[(axis + 1) % 3], stride[(axis + 2) % 3]
    beside = start[:, None] + np.stack([-v, u, v, -u], 1)
    alternate = (flat[beside] == flat[start + step][:, None]) & (flat[beside + step[:, None]] == out[:, None])
    alternate = np.where(out[:, None], alternate, alternate[:, [2, 1, 0, 3]])
    found = (
        ends[0][0], ends[1][0], ends[0][1], 2 * axis + out, incident,
        np.where(out[:, None], incident, incident[:, ::-1]), np.flatnonzero(alternate), np.array([len(vertex)]),
    )  # fmt: skip
    return tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in found)


def net_sum(points: torch.Tensor, around: torch.Tensor, gather: bool, count: int) -> torch.Tensor:
    """Return (count, 3): points (E, 3) of edges added up at the vertices (E, 4) around them, or the transpose.

    With `gather`, points (V, 3) of vertices are added up at the edges that they are around.
    """
    if gather:
        return points.index_select(0, around.reshape(-1)).reshape(-1, 4, 3).sum(1)
    given = points[:, None].expand(-1, 4, 3).reshape(-1, 3)
    return points.new_zeros(count, 3).index_add(0, around.reshape(-1), given)


def _sheets() -> np.ndarray:
    """Number the sheets that pass through a cell: (256, 12), by pattern of inside corners and by edge.

    Corner 4x + 2y + z, edge 4·axis + 2·(place along the next axis) + (along the one after). Crossed edges belong
    together if a curve on a face of the cell joins them; a face with four crossings keeps its inside corners apart.
    """

    def edge(a: int, b: int) -> int:
        axis = {4: 0, 2: 1, 1: 2}[a ^ b]
        bits = [a >> 2 & 1, a >> 1 & 1, a & 1]
        return 4 * axis + 2 * bits[(axis + 1) % 3] + bits[(axis + 2) % 3]

    faces = [[low, low + p, low + p + q, low + q] for n, p, q in ((4, 2, 1), (2, 1, 4), (1, 4, 2)) for low in (0, n)]
    table = np.zeros((256, 12), dtype=np.uint8)
    for pattern in range(256):
        group, crossed = list(range(12)), set()
        for cycle in faces:
            sides = [edge(cycle[k - 1], cycle[k]) for k in range(4)]
            inside = [pattern >> corner & 1 for corner in cycle]
            cut = [side for k, side in enumerate(sides) if inside[k - 1] != inside[k]]
            crossed.update(cut)
            joints = [cut] if len(cut) == 2 else []
            if len(cut) == 4:
                joints = [[sides[k], sides[(k + 1) % 4]] for k in range(4) if inside[k]]
            for one, other in joints:
                group = [group[one] if label == group[other] else label for label in group]
        names = sorted({group[k] for k in crossed})
        for k in crossed:
            table[pattern, k] = names.index(group[k])
    return table


SHEETS = _sheets()
"""The sheet of each of a cell's twelve edges, by pattern of corners that are inside."""
