# SPDX-License-Identifier: Apache-2.0
"""Normals of one side for clouds so noisy that only sides tell sheets apart."""

import dataclasses

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.cloud import Cloud
from geodiff.atlas.nearest import nearest
from geodiff.atlas.orient import orient

_MOST = 20_000  # points that are oriented; the others face as the nearest of these
_LEAST = 64
_AROUND = 4


def in_noise(cloud: Cloud, noise: float, seed: int = 0) -> Cloud:
    """Return the cloud with normals that face the outside, by `geodiff.atlas.orient.orient`.

    In a ball as wide as several parts of a shape, points hang together with those of other sheets through the noise,
    and normals carried from neighbour to neighbour turn by chance. Those found globally do not.

    Args:
        cloud: without given normals.
        noise: σ > 0.
        seed: of the choice of points in a large cloud.

    Returns:
        The cloud as it is, if that is of too few points to tell.
    """
    good = np.flatnonzero(~cloud.outlier.numpy())
    kept = np.sort(np.random.default_rng(seed).permutation(good)[:_MOST])
    if len(kept) < _LEAST:
        return cloud
    x = cloud.points.double()
    found = orient(x[kept], noise=noise).normals
    near = nearest(cKDTree(x[kept].numpy()), x.numpy(), _AROUND)[1]
    about = found[near]
    # Of points that were not asked themselves, the mean; of those that were, their own.
    normals = torch.nn.functional.normalize(about.sum(1), dim=1)
    normals = torch.where(normals.norm(dim=1, keepdim=True) > 0.5, normals, about[:, 0])
    normals[kept] = found
    return dataclasses.replace(cloud, normals=normals.to(cloud.points), given=True)
