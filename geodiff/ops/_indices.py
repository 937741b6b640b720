# SPDX-License-Identifier: Apache-2.0
"""Indices that kernels follow are checked here: by a quick look, and in earnest where that finds something."""

from collections.abc import Sequence

import torch

from geodiff.ops import _op
from geodiff.reference import arguments
from geodiff.validation import fail, looks_at_values


def check_indices(op: str, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor) -> None:
    """Do as `geodiff.reference.arguments.check_indices`."""
    if not _op.fits("faces_fit", faces=faces, layout=layout, vertices=len(clip)):
        arguments.check_indices(op, clip, faces, layout)


def check_list(op: str, layout: torch.Tensor, place: torch.Tensor, face_id: torch.Tensor, pixels: int) -> None:
    """Raise where a list is not what `visible` returns: pixels that ascend, faces of their images."""
    if not len(place) or _op.fits("list_fits", place=place, face=face_id, layout=layout, pixels=pixels):
        return
    entries = len(layout) * pixels
    if int(place[0]) < 0 or int(place[-1]) >= entries or bool((place[1:] <= place[:-1]).any()):
        raise fail(op, "place", f"ascending in [0, {entries}), no pixel twice", place)
    starts = torch.arange(len(layout) + 1, device=place.device) * pixels
    ends = torch.searchsorted(place, starts).tolist()
    for image, count in enumerate(layout[:, 2].tolist()):
        check_range(op, "face_id", face_id[ends[image] : ends[image + 1]], count, f"faces of image {image}")


def check_range(op: str, name: str, index: torch.Tensor, count: int, what: str, least: int = 0) -> None:
    """Raise where an index is not in [least, count)."""
    if not index.numel() or not looks_at_values(index):
        return
    if index.dtype == torch.int32 and _op.fits("indices_fit", index=index, least=least, count=count):
        return
    first, last = index.aminmax()
    low, high = int(first), int(last)
    if low < least or high >= count:
        raise fail(op, name, f"in [{least}, {count})", f"from {low} to {high}", f"It names {what}.")


def check_of_image(op: str, name: str, index: torch.Tensor, counts: Sequence[int], least: int = -1) -> None:
    """Raise where an index `(B, …)` is not in [least, count) of its image."""
    if not index.numel() or not looks_at_values(index):
        return
    low, high = torch.aminmax(index.reshape(len(counts), -1), dim=1)
    for image, (first, last, count) in enumerate(zip(low.tolist(), high.tolist(), counts, strict=True)):
        if first < least or last >= count:
            got = f"from {first} to {last} in image {image}"
            raise fail(op, name, f"in [{least}, {count})", got, "It names faces of the image.")
