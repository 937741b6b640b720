# SPDX-License-Identifier: Apache-2.0
"""Cover a cloud with overlapping patches."""

import dataclasses

import torch


@dataclasses.dataclass(frozen=True)
class Cover:
    """Patches of a cloud of N points: Q of them, M memberships (pairs of patch and point).

    Attributes:
        points: (N, 3) in world units.
        centers: (Q, 3).
        radius: (Q,).
        chart: (M,) int64, sorted.
        point: (M,) int64: `point[m]` is a member of patch `chart[m]`.
        inside: (M,) bool: well inside, within 3/4 of the radius and on the same sheet.
        outlier: (N,) bool: isolated points, in no patch.
        normals: (N, 3) unit, either side unless given.
    """

    points: torch.Tensor
    centers: torch.Tensor
    radius: torch.Tensor
    chart: torch.Tensor
    point: torch.Tensor
    inside: torch.Tensor
    outlier: torch.Tensor
    normals: torch.Tensor
