# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the list of what pixels see."""

from typing import NamedTuple

import torch

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed
from geodiff.reference.fragments import check_fragments, fragments
from geodiff.validation import shapes_repr


class Visible(NamedTuple):
    """The P pixels of a batch of images that see a face, image by image, row by row.

    Attributes:
        place: where in the flattened `(B·H·W)` the pixel is, `(P,)`, int64, ascending.
        face_id: index within the image's faces, `(P,)`, int64.
        inside: whether the face covers the pixel centre, `(P,)`, bool; else it is within `blur` of it.
        barycentric: perspective-correct coordinates of the face's point nearest to the pixel centre, `(P, 3)`.
    """

    def __repr__(self) -> str:
        return shapes_repr(self)

    place: torch.Tensor
    face_id: torch.Tensor
    inside: torch.Tensor
    barycentric: torch.Tensor


@outside_autocast
def visible(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    blur: float = 0.0,
    image_size: tuple[int, int],
    near: float = 1e-2,
) -> Visible:
    """List the face that each pixel sees: ``fragments(order="visible")`` without the pixels that see none.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        blur: NDC; where no face covers the pixel centre, the nearest in the image counts, if no farther than this.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.

    Returns:
        `Visible`.

    Gradients: of the barycentrics in `clip`, at fixed faces.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.

    Example:
        >>> clip = torch.tensor([[-1.0, -1.0, 2.0, 1.0], [0.0, -1.0, 2.0, 1.0], [-1.0, 1.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> visible(clip, *one, blur=0.5, image_size=(1, 1)).barycentric
        tensor([[0.0000, 0.6000, 0.4000]])
    """
    check_packed("visible", clip, faces, layout, image_size, near)
    check_fragments("visible", clip, layout, 1, blur, "visible", None)
    found = fragments(clip, faces, layout, blur=blur, image_size=image_size, near=near, order="visible")
    face_id = found.face_id.reshape(-1)
    place = (face_id >= 0).nonzero()[:, 0]
    inside = found.distance.detach().reshape(-1)[place] >= 0
    return Visible(place, face_id[place], inside, found.barycentric.reshape(-1, 3)[place])
