# SPDX-License-Identifier: Apache-2.0
"""Masks without the specks in them: the largest connected components, with the soft pixels around them."""

import numpy as np
import torch

from geodiff.render.components import connected_components
from geodiff.validation import warn


def without_specks(where: str, alpha: torch.Tensor, keep: int) -> torch.Tensor:
    """Return coverage (..., H, W) with all but the `keep` largest components of ½ and more set to 0; 0: as it is.

    Pixels across a corner hang together. Of those below ½, the ones that are nearest to a component that goes, go too.

    Warns:
        UserWarning: how many pixels went, in how many images.
    """
    if keep == 0:
        return alpha
    from scipy.ndimage import distance_transform_edt

    covered = alpha >= 0.5
    kept = connected_components(covered, 8, keep=keep) > 0
    gone = covered & ~kept
    result = alpha.detach().clone()
    rows, cores = result.reshape(-1, *alpha.shape[-2:]), covered.reshape(-1, *alpha.shape[-2:]).cpu().numpy()
    images = gone.reshape(cores.shape).any(-1).any(-1).nonzero()[:, 0].tolist()
    for i in images:
        at = distance_transform_edt(~cores[i], return_distances=False, return_indices=True)
        nearest = gone.reshape(cores.shape)[i].cpu().numpy()[tuple(np.asarray(at))]
        rows[i][torch.from_numpy(nearest).to(rows.device)] = 0
    if images:
        many = f"{int(gone.sum())} pixels of coverage in {len(images)} of {len(cores)} images"
        warn(f"{where}: keep_components={keep} took out {many}")
    return rows.reshape(alpha.shape)
