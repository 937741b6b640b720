# SPDX-License-Identifier: Apache-2.0
"""The pure-torch twin of the soft silhouette: slow, plain, any dtype, any distribution and T-conorm."""

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint

from geodiff.modes import outside_autocast
from geodiff.reference.arguments import check_packed, face_corners, pixel_centres, pixel_chunks
from geodiff.reference.polygons import Polygons, line_distances, near_clip, signed_distance
from geodiff.soft import Distribution, TConorm, as_distribution, as_tconorm
from geodiff.validation import choice, positive


@outside_autocast
def silhouette(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    distribution: str | Distribution | Callable[[torch.Tensor], torch.Tensor] = "logistic",
    tconorm: str | TConorm | Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = "probabilistic",
    scale: float | torch.Tensor,
    image_size: tuple[int, int],
    near: float = 1e-2,
    max_error: float = 1e-4,
    coverage: str = "faces",
    chunk: int = 2**20,
) -> torch.Tensor:
    """Render soft silhouettes: at each pixel the T-conorm, over faces, of the distribution of the signed distance.

    `alpha(q) = ⊥_f F(d(q, f) / scale)` with `F` the distribution, `⊥` the T-conorm and `d` the signed distance from
    pixel centre `q` to face `f`, positive inside (Petersen, Goldluecke, Borgelt and Deussen, "GenDR: a generalized
    differentiable renderer", 2022). A squared distribution takes `sign(d)·d²/scale` instead. Faces that cross the near
    plane are clipped, and stay one face; degenerate faces and those behind the plane contribute nothing.

    With `coverage="edges"`, a face covers a pixel by the product over its edges instead (Petersen, Bermano, Deussen and
    Cohen-Or, "Pix2Vex", 2019): `alpha(q) = ⊥_f Π_k F(d_k(q) / scale)`, `d_k` the signed distance to the line of edge k,
    positive on the face's side. The near plane's cut is an edge like the others.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`; NDC is x right, y up, shorter side in [−1, 1].
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`.
        distribution: the distribution, with its shape, shift and form: an object, also of a class of your own, a name,
            or a function `x ↦ F(x)`.
        tconorm: the T-conorm, with its parameter: an object, also of a class of your own, a name, or a function
            `(a, b) ↦ ⊥(a, b)`.
        scale: the scale τ > 0, NDC, or NDC² for a squared distribution; a number or a tensor without axes.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        max_error: of the op; no face is left out here.
        coverage: `"faces"` or `"edges"`.
        chunk: the most (pixel, face) pairs held at a time. If there are more, the backward pass computes each chunk
            again instead of storing it. Changes memory and time, not the result (but for rounding).

    Returns:
        alpha in [0, 1], `(B, H, W)`.

    Gradients: in `clip`, `scale`, and the parameters of `distribution` and `tconorm`, complete. Faces that contribute
    nothing get zeros. See `signed_distance` for pixels on an edge or on a vertex.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> silhouette(
        ...     clip,
        ...     torch.tensor([[0, 1, 2]]),
        ...     torch.tensor([[0, 0, 1]]),
        ...     scale=0.1,
        ...     image_size=(1, 1),
        ... )
        tensor([[[1.0000]]])
    """
    check_packed("silhouette", clip, faces, layout, image_size, near)
    positive("silhouette", "scale", scale, "It is a length in NDC (an area for a squared distribution).")
    distribution, tconorm = as_distribution(distribution), as_tconorm(tconorm)
    edges = choice("silhouette", "coverage", coverage, ("faces", "edges")) == "edges"
    pixels = pixel_centres(image_size, clip)
    images = []
    for row in layout.tolist():
        polygons = near_clip(face_corners(clip, faces, row), near)
        images.append(_one_image(polygons, pixels, distribution, tconorm, scale, edges, chunk))
    return torch.stack(images).reshape(-1, *image_size) if images else clip.new_empty((0, *image_size))


def _one_image(
    polygons: Polygons,
    pixels: torch.Tensor,
    distribution: Distribution,
    tconorm: TConorm,
    scale: float | torch.Tensor,
    edges: bool,
    chunk: int,
) -> torch.Tensor:
    drawn = polygons.counts.nonzero()[:, 0]
    visible = polygons.select(drawn)
    face_count = len(polygons.counts)

    def alpha(piece: torch.Tensor) -> torch.Tensor:
        squared = distribution.is_squared
        plain = distribution.unsquared() if squared else distribution
        if edges:
            log_f, log_s = _product(piece, visible, plain, scale, squared)
        else:
            x = signed_distance(piece, visible, squared=squared) / scale
            log_f, log_s = plain.log_cdf(x), plain.log_survival(x)
        # Faces that are not drawn count as F = 0; only the average notices them.
        log_cdf = log_f.new_full((len(piece), face_count), -torch.inf).index_copy(1, drawn, log_f)
        log_survival = log_f.new_zeros((len(piece), face_count)).index_copy(1, drawn, log_s)
        if face_count == 0:
            return log_cdf.sum(dim=1)
        return tconorm.aggregate_log(log_cdf, log_survival, dim=1)

    pieces = list(pixel_chunks(pixels, face_count, chunk))
    if len(pieces) == 1:
        return alpha(pixels)
    return torch.cat([checkpoint(alpha, piece, use_reentrant=False) for piece in pieces])


def _product(
    points: torch.Tensor, polygons: Polygons, distribution: Distribution, scale: float | torch.Tensor, squared: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logarithms of the product of F over the edges' lines, and of 1 minus it, `(M, P)`."""
    d, has_line = line_distances(points, polygons)
    log_cdf = distribution.log_cdf((d * d.abs() if squared else d) / scale)
    product = torch.where(has_line, log_cdf, 0.0).sum(dim=-1)
    # log(1 − e^L); where L rounds to 0, the face covers the pixel and nothing moves.
    below = product < 0
    within = torch.where(below, product, -1.0)
    return product, torch.where(below, torch.log(-torch.expm1(within)), -torch.inf)
