# SPDX-License-Identifier: Apache-2.0
"""Connected components: parts of a mesh that hang together, and which of some parts are worth keeping."""

import math
from typing import Any

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.validation import describe, fail, integer, number


@outside_autocast
def face_components(
    mesh: Mesh, mask: torch.Tensor | None = None, *, keep: int | None = None, min_area: float = 0.0
) -> torch.Tensor:
    """Label the faces of a mesh by the connected parts they belong to; faces are neighbours where they share an edge.

    Args:
        mesh: of F faces; without batch axes where areas are asked for.
        mask: (F,) boolean: only these faces are there; all where left out.
        keep: only the so many largest parts by area, lower labels first where equal; None: all.
        min_area: only parts of at least this area, in the mesh's units squared.

    Returns:
        (F,) int64: 1, 2, … in the order of the parts' lowest faces; 0 for faces that are not there or not kept. A face
        that names a vertex twice is a part of its own.

    Gradients: none.

    Raises:
        TypeError: something else than a mesh, a mask that is not boolean.
        ValueError: a mask of another shape, keep below 1, a negative area, a batch of meshes whose areas differ.

    Example:
        >>> import torch, geodiff as gd
        >>> two = torch.cat([gd.box(1.0).faces, gd.box(1.0).faces + 8])
        >>> mesh = gd.Mesh(torch.cat([gd.box(1.0).vertices, 2 * gd.box(1.0).vertices]), two)
        >>> labels = face_components(mesh)
        >>> labels.bincount()
        tensor([ 0, 12, 12])
        >>> gd.Mesh(mesh.vertices, mesh.faces[face_components(mesh, keep=1) > 0]).num_faces
        12
    """
    from scipy.sparse import coo_matrix, csgraph

    where = "face_components"
    if not isinstance(mesh, Mesh):
        raise fail(where, "mesh", "a Mesh", describe(mesh), error=TypeError)
    count = mesh.num_faces
    there = _read_mask(where, mask, count) if mask is not None else np.ones(count, dtype=bool)
    keep, min_area = read_limits(where, keep, min_area)
    pairs = mesh.face_pairs.cpu().numpy()
    pairs = pairs[there[pairs].all(1)]
    graph = coo_matrix((np.ones(len(pairs), dtype=np.int8), pairs.T), shape=(count, count))
    _, parts = csgraph.connected_components(graph, directed=False)
    labels = np.zeros(count, dtype=np.int64)
    _, first, labels[there] = np.unique(parts[there], return_index=True, return_inverse=True)
    labels[there] = np.argsort(np.argsort(first))[labels[there]] + 1
    if keep is not None or min_area > 0:
        if mesh.batch_shape:
            fix = "Label its items one by one."
            raise fail(
                where, "mesh", "a single one for `keep` and `min_area`", f"a batch {tuple(mesh.batch_shape)}", fix
            )
        areas = np.bincount(labels, mesh.face_areas.detach().cpu().double().numpy(), len(first) + 1)
        labels = kept_labels(areas, keep, min_area)[labels]
    return torch.from_numpy(labels).to(mesh.device)


def kept_labels(sizes: np.ndarray, keep: int | None, least: float) -> np.ndarray:
    """Return a table of new labels: 0 for what is dropped, the others closed up in order. Label 0 is no part."""
    table = sizes >= least
    table[0] = False
    if keep is not None:
        order = np.argsort(-sizes[1:], kind="stable") + 1
        table[order[keep:]] = False
    return np.where(table, np.cumsum(table), 0)


def read_limits(where: str, keep: Any, min_area: Any) -> tuple[int | None, float]:
    """Require a positive count or None, and an area of 0 or more."""
    return None if keep is None else integer(where, "keep", keep, 1), number(where, "min_area", min_area, 0, math.inf)


def _read_mask(where: str, mask: Any, count: int) -> np.ndarray:
    if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
        fix = "Compare it with a threshold, such as mask > 0.5."
        raise fail(where, "mask", "a boolean tensor", describe(mask), fix, TypeError)
    if mask.shape != (count,):
        raise fail(where, "mask", f"of shape ({count},)", mask)
    return mask.cpu().numpy()
