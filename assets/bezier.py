# SPDX-License-Identifier: Apache-2.0
"""Bicubic Bézier patches: surfaces of revolution, swept tubes, and one closed mesh of a body with tubes grown from it.

A patch is a control net (4, 4, 3). Patches along a surface come in an array (S, 4, 4, 4, 3): S segments along it, four
quarter turns around it, then the net with its first axis along and its second around. A place on such a surface is
``along`` in [0, S] and an ``angle`` in radians around. NumPy only.
"""

from itertools import pairwise

import numpy as np
import torch

from geodiff.scene.isosurface import split_quads

QUARTER = 4 / 3 * (np.sqrt(2) - 1)  # handle length of a cubic that follows a quarter circle to 3e-4


def bernstein(t: np.ndarray) -> np.ndarray:
    """Return the four cubic Bernstein polynomials at t, shape (..., 4)."""
    return np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], -1)


def evaluate(patches: np.ndarray, along: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Return points (..., 3) of a surface (S, 4, 4, 4, 3) at ``along`` in [0, S] and ``angle`` in radians."""
    along, angle = np.broadcast_arrays(along, angle)
    segment = np.clip(along.astype(int), 0, len(patches) - 1)
    turn = np.mod(angle / (np.pi / 2), 4)
    quarter = np.minimum(turn.astype(int), 3)
    # Equal angles are not quite equal parameters of the cubic.
    t = np.linspace(0, 1, 1001)
    x, y = bernstein(t) @ np.array([1, 1, QUARTER, 0]), bernstein(t) @ np.array([0, QUARTER, 1, 1])
    around = np.interp(turn - quarter, np.arctan2(y, x) / (np.pi / 2), t)
    nets = patches[segment, quarter]
    return np.einsum("...i,...j,...ijk->...k", bernstein(along - segment), bernstein(around), nets)


def quarter_arcs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the control points (4, 4, 3), relative to its centre, of an ellipse with two half axes, in quarters."""
    turns = [first, second, -first, -second, first]
    return np.array([[a, a + QUARTER * b, b + QUARTER * a, b] for a, b in pairwise(turns)])


def revolve(profile: np.ndarray) -> np.ndarray:
    """Turn a profile (S, 4, 2) of cubics in (radius, height) about the y axis; angle 0 is +x, then towards +z."""
    patches = np.zeros((len(profile), 4, 4, 4, 3))
    for s, segment in enumerate(profile):
        for i, (radius, height) in enumerate(segment):
            patches[s, :, i] = quarter_arcs(np.array([radius, 0, 0]), np.array([0, 0, radius])) + np.array(
                [0, height, 0]
            )
    return patches


def sweep(outer: np.ndarray, inner: np.ndarray, width: np.ndarray, side: int) -> np.ndarray:
    """Return a tube between two outlines in the plane z = 0.

    Args:
        outer: (S, 4, 2) cubics in (x, y); angle 0 of the tube.
        inner: (S, 4, 2) the opposite outline.
        width: (S, 4) half widths in z.
        side: 1 if the angle grows towards +z, else −1.
    """
    patches = np.zeros((len(outer), 4, 4, 4, 3))
    for s in range(len(outer)):
        for i in range(4):
            middle = np.append(outer[s, i] + inner[s, i], 0) / 2
            half = np.append(outer[s, i] - inner[s, i], 0) / 2
            patches[s, :, i] = quarter_arcs(half, np.array([0, 0, side * width[s, i]])) + middle
    return patches


def outlines(centre: np.ndarray, radius: np.ndarray, out: float) -> tuple[np.ndarray, np.ndarray]:
    """Offset a centre line (S, 4, 2) by radii (S, 4) to both sides; ``out`` is 1 if the left side is the outer one."""
    tangent = np.empty_like(centre)
    tangent[:, 0], tangent[:, 3] = centre[:, 1] - centre[:, 0], centre[:, 3] - centre[:, 2]
    tangent[:, 1], tangent[:, 2] = centre[:, 2] - centre[:, 0], centre[:, 3] - centre[:, 1]
    normal = np.stack([-tangent[..., 1], tangent[..., 0]], -1)
    normal *= out * radius[..., None] / np.linalg.norm(normal, axis=-1, keepdims=True)
    return centre + normal, centre - normal


class Builder:
    """Grow one closed mesh: a body of revolution between two poles, then tubes that start (and end) on it.

    Args:
        profile: (S, 4, 2) cubics from one pole (radius 0) to the other, so that the outside is on their left when
            height points up and radius to the right.
        rows: how many strips to cut each segment into.
        columns: strips around the axis.
    """

    def __init__(self, profile: np.ndarray, rows: list[int], columns: int) -> None:
        self.profile, self.patches, self.columns = profile, revolve(profile), columns
        steps = [s + np.arange(1, n + 1) / n for s, n in enumerate(rows)]
        self.along = np.concatenate(steps)[:-1]
        self.angle = 2 * np.pi * np.arange(columns) / columns
        grid = evaluate(self.patches, self.along[:, None], self.angle[None, :])
        poles = evaluate(self.patches, np.array([0, len(profile)]), np.zeros(2))
        self.points = [*poles, *grid.reshape(-1, 3)]
        self.holes = np.zeros((len(self.along) - 1, columns), dtype=bool)
        self.quads: list[tuple[int, int, int, int]] = []
        self.triangles: list[tuple[int, int, int]] = []

    def node(self, row: int, column: int) -> int:
        """Return the number of a grid vertex."""
        return 2 + row * self.columns + column % self.columns

    def ring(self, points: np.ndarray) -> list[int]:
        """Add a ring of vertices."""
        start = len(self.points)
        self.points.extend(points)
        return list(range(start, len(self.points)))

    def strip(self, a: list[int], b: list[int]) -> None:
        """Join two rings; seen with the inside of a ring that runs counter-clockwise being b, it is the front."""
        for k in range(len(a)):
            m = (k + 1) % len(a)
            self.quads.append((a[k], a[m], b[m], b[k]))

    def locate(self, points: np.ndarray, segments: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Find where on the body, within some segments of falling height, points lie: along and radius there."""
        along = np.linspace(segments[0], segments[1], 2001)
        curve = evaluate(self.patches, along, np.zeros(1))
        height = points[..., 1]
        return np.interp(-height, -curve[:, 1], along), np.interp(-height, -curve[:, 1], curve[:, 0])

    def attach(
        self,
        tube: np.ndarray,
        inside: float,
        outside: float,
        hole: tuple[int, int, int, int],
        segments: tuple[int, int],
    ) -> tuple[np.ndarray, list[int]]:
        """Open the body where a tube meets it and join the two.

        Returns:
            ``along`` of the tube at the joint, by angle, and the ring of vertices there.

        Args:
            tube: its patches; the joint is sought between ``inside`` and ``outside`` along it.
            inside: a place along the tube within the body.
            outside: a place along the tube clear of the body.
            hole: (first row, last row, middle column, half the columns) of the grid cells to open.
            segments: of the profile, on which the joint lies.
        """
        top, bottom, middle, half = hole
        self.holes[top:bottom, [c % self.columns for c in range(middle - half, middle + half)]] = True
        edge = [(top, middle + c) for c in range(half)] + [(r, middle + half) for r in range(top, bottom)]
        edge += [(bottom, middle + c) for c in range(half, -half, -1)]
        edge += [(r, middle - half) for r in range(bottom, top, -1)] + [(top, middle + c) for c in range(-half, 0)]
        starts_up = evaluate(tube, np.array(outside), np.array(0.0))[1] > evaluate(tube, np.array(outside), np.pi)[1]
        if not starts_up:  # the tube's angle 0 is below: begin there and run the other way
            turn = edge.index((bottom, middle))
            edge = [edge[(turn - k) % len(edge)] for k in range(len(edge))]
        angle = 2 * np.pi * np.arange(len(edge)) / len(edge)
        low, high = np.full(len(edge), float(inside)), np.full(len(edge), float(outside))
        for _ in range(50):
            guess = (low + high) / 2
            points = evaluate(tube, guess, angle)
            within = np.hypot(points[:, 0], points[:, 2]) < self.locate(points, segments)[1]
            low, high = np.where(within, guess, low), np.where(within, high, guess)
        points = evaluate(tube, low, angle)
        along, _ = self.locate(points, segments)
        rim = self.ring(points)
        # A ring halfway between the hole and the joint, on the body.
        around = np.unwrap(np.arctan2(points[:, 2], points[:, 0]) - self.angle[middle]) + self.angle[middle]
        edge_along = self.along[[r for r, _ in edge]]
        edge_angle = 2 * np.pi * np.array([c for _, c in edge]) / self.columns
        around += 2 * np.pi * np.round((edge_angle.mean() - around.mean()) / (2 * np.pi))
        clear = [
            edge.min() < joint.min() and joint.max() < edge.max()
            for edge, joint in ((edge_along, along), (edge_angle, around))
        ]
        if not all(clear):
            spans = f"along {along.min():.3f} to {along.max():.3f}, angle {around.min():.3f} to {around.max():.3f}"
            raise RuntimeError(f"The hole must surround the joint, which spans {spans}.")
        between = self.ring(evaluate(self.patches, 0.5 * (edge_along + along), 0.5 * (edge_angle + around)))
        nodes = [self.node(r, c) for r, c in edge]
        rings = [nodes, between, rim] if starts_up else [rim, between, nodes]
        self.strip(rings[0], rings[1])
        self.strip(rings[1], rings[2])
        return low, rim

    def fan(self, ring: list[int], tip: int) -> None:
        """Close a ring with triangles to one vertex."""
        self.triangles += [(a, b, tip) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]

    def handle(
        self,
        centre: np.ndarray,
        radius: np.ndarray,
        width: np.ndarray,
        holes: tuple[tuple[int, int, int, int], tuple[int, int, int, int]],
        segments: tuple[int, int],
        steps: int,
    ) -> None:
        """Add a tube along a centre line (S, 4, 2) in z = 0, from its upper joint outwards and back to the other."""
        side = 1 if centre[0, -1, 0] > 0 else -1
        tube = sweep(*outlines(centre, radius, side), width, side)
        first, start = self.attach(tube, 0, 0.8, holes[0], segments)
        last, end = self.attach(tube, len(tube), len(tube) - 0.8, holes[1], segments)
        angle = 2 * np.pi * np.arange(len(first)) / len(first)
        for step in range(1, steps):
            ring = self.ring(evaluate(tube, first + (last - first) * step / steps, angle))
            self.strip(start, ring)
            start = ring
        self.strip(start, end)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """Return vertices (V, 3) and triangles (F, 3), counter-clockwise seen from outside."""
        triangles = list(self.triangles)
        for j in range(self.columns):
            triangles.append((0, self.node(0, j + 1), self.node(0, j)))
            triangles.append((1, self.node(len(self.along) - 1, j), self.node(len(self.along) - 1, j + 1)))
        quads = list(self.quads)
        for i in range(len(self.along) - 1):
            for j in range(self.columns):
                if not self.holes[i, j]:
                    quads.append((self.node(i, j), self.node(i, j + 1), self.node(i + 1, j + 1), self.node(i + 1, j)))
        points = np.array(self.points)
        halves = split_quads(torch.from_numpy(points), torch.tensor(quads))
        everything = np.concatenate([np.array(triangles), halves.numpy()])
        used, number = np.unique(everything, return_inverse=True)
        return points[used], number.reshape(-1, 3)
