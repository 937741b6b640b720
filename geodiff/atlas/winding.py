# SPDX-License-Identifier: Apache-2.0
"""Winding numbers of a cloud at its own points, by a tree."""

import numpy as np
import torch

from geodiff.ops import _op

LEAF = 32  # kWindingLeaf of the kernel
REACH = 2.0  # radii from which on a part of the cloud counts as one point


class WindingTree:
    """N points, each standing for an area, in a tree that halves them at medians.

    With normals μ_j as long as the areas, W_i = Σ_j μ_j·(x_j − x_i) / (4π (|x_j − x_i|² + w²)^(3/2)) is the winding
    number at point i, smoothed by the width w: ½ on a closed surface whose normals point outwards. A part of the cloud
    of radius r that is farther than `REACH` r counts as one point at its middle (Barnes and Hut 1986), so that a sum
    takes O(N log N).

    Args:
        points: (N, 3), N ≥ 1, finite, of extent about 1.
        areas: (N,) positive.
    """

    def __init__(self, points: torch.Tensor, areas: torch.Tensor) -> None:
        x, weight = points.double().numpy(), areas.double().numpy()
        order = np.arange(len(x))
        balls: list[tuple[float, ...]] = []
        links: list[list[int]] = []
        leaves = []
        stack = [(0, len(x), -1)]
        while stack:  # the left child first, right after its parent
            first, end, parent = stack.pop()
            if parent >= 0:
                links[parent][2] = len(links)
            mine = order[first:end]
            place, w = x[mine], weight[mine]
            middle = w @ place / w.sum()
            radius = np.sqrt(((place - middle) ** 2).sum(1).max())
            own = len(links)
            balls.append((*middle, radius))
            links.append([first, end - first, 0])
            if end - first <= LEAF:
                leaves.append(own)
                continue
            half = (end - first) // 2
            order[first:end] = mine[np.argpartition(place[:, np.ptp(place, axis=0).argmax()], half)]
            stack += [(first + half, end, own), (first, first + half, -1)]
        self.order = torch.from_numpy(order)
        self._places = points[self.order].contiguous()
        self._balls = torch.tensor(balls, dtype=points.dtype)
        self._links = torch.tensor(links, dtype=torch.int32)
        self._leaves = torch.tensor(leaves, dtype=torch.int32)

    def field(self, normals: torch.Tensor, width: float) -> torch.Tensor:
        """Return the winding number (N,) at each point, for normals (N, 3) as long as areas."""
        return self._sum("field", normals, width, 1)[:, 0]

    def adjoint(self, values: torch.Tensor, width: float) -> torch.Tensor:
        """Return the transpose of `field` times values (N,): of shape (N, 3)."""
        return self._sum("adjoint", values[:, None], width, 3)

    def slope(self, normals: torch.Tensor, width: float) -> torch.Tensor:
        """Return −∇W (N, 3) at each point: it points outwards."""
        return self._sum("slope", normals, width, 3)

    def _sum(self, name: str, source: torch.Tensor, width: float, columns: int) -> torch.Tensor:
        out = torch.empty(len(self._places), columns, dtype=self._places.dtype)
        _op.call(
            _op.kernels.winding_sum, places=self._places, source=source.to(self._places)[self.order].contiguous(),
            balls=self._balls, links=self._links, leaves=self._leaves, sum=name, width=width, reach=REACH, out=out,
        )  # fmt: skip
        result = torch.empty_like(out)
        result[self.order] = out
        return result
