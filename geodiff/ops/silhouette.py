# SPDX-License-Identifier: Apache-2.0
"""The soft silhouette: argument checks, choice of kernel, and its place in autograd and torch.compile."""

import functools
import math
from typing import Any

import torch

from geodiff import members, reference, soft
from geodiff.modes import outside_autocast
from geodiff.ops import _op
from geodiff.ops._indices import check_indices, check_of_image
from geodiff.ops.culling import MAX_ERROR, cull_radius, fine_radii, special_values
from geodiff.reference.arguments import check_packed
from geodiff.validation import choice, fail, positive

_MODEL = (
    "Tensor params, Tensor? scale, int height, int width, float near, float max_error, "
    "int distribution, bool reversed_, bool squared, int tconorm, str coverage"
)
_op.library.define(
    f"silhouette(Tensor clip, Tensor faces, Tensor layout, {_MODEL}) -> (Tensor alpha, Tensor sum, Tensor best)"
)
_op.library.define(
    f"silhouette_backward(Tensor upstream, Tensor clip, Tensor faces, Tensor layout, {_MODEL}, Tensor sum, "
    "Tensor best, bool[] wants) -> (Tensor clip, Tensor params, Tensor scale)"
)

_COVERAGES = ("faces", "edges")
_FINE = 1000  # from so many faces on each gets a radius of its own: with fewer, finding them costs more than it saves


@outside_autocast
def silhouette(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    distribution: "soft.Distribution | str" = "logistic",
    tconorm: "soft.TConorm | str" = "probabilistic",
    scale: float | torch.Tensor,
    image_size: tuple[int, int],
    near: float = 1e-2,
    max_error: float = MAX_ERROR,
    coverage: str = "faces",
) -> torch.Tensor:
    """Render soft silhouettes: at each pixel the T-conorm, over faces, of the distribution of the signed distance.

    `alpha(q) = ⊥_f F(d(q, f) / scale)`, with `F` the distribution, `⊥` the T-conorm and `d` the signed distance (NDC)
    from pixel centre q to face f, positive inside (Petersen et al., "GenDR: a generalized differentiable renderer",
    2022). A squared distribution takes `sign(d)·d² / scale`. With `coverage="edges"`, alpha is `⊥_f Π_k F(d_k/scale)`,
    `d_k` the signed distances to the lines of a face's edges (Petersen et al., "Pix2Vex", 2019). The twin
    `geodiff.reference.silhouette` has the same name and arguments; user-defined distributions and
    T-conorms are passed on to it.

    Args:
        clip: vertices of all images `(x·w, y·w, depth, w)`, `(N, 4)`, float32 or float64; see `Camera.to_clip`.
        faces: corners of all faces, `(F, 3)`, indices local to the image's mesh.
        layout: one row `[vertex_start, face_start, face_count]` an image, `(B, 3)`; images share no vertices.
        distribution: an object or a name of `geodiff.soft`.
        tconorm: an object or a name of `geodiff.soft`.
        scale: τ > 0, NDC, or NDC² for a squared distribution; a number or a tensor without axes.
        image_size: `(H, W)`.
        near: depth of the near plane, positive.
        max_error: faces far from a pixel are left out as long as alpha changes by no more than this; in meshes of a
            thousand faces and more also those that no longer matter where a pixel is nearly covered.
        coverage: `"faces"` or `"edges"`.

    Returns:
        alpha in [0, 1], `(B, H, W)`.

    Gradients: in `clip`, `scale`, the distribution's shape and shift, and the T-conorm's p; what is left out is left
    out of them, too, and by a like measure: F/τ, or what the slope of its tail makes of it. Deterministic: the same
    bits on any number of threads. Zero where a nilpotent T-conorm has reached 1. Not twice differentiable.

    Raises:
        TypeError: for a wrong dtype or class.
        ValueError: for a wrong shape, a value out of range, NaN or infinity.
        RuntimeError: for tensors on different devices, or on one that is neither the CPU nor CUDA.

    Example:
        >>> clip = torch.tensor([[-3.0, -3.0, 2.0, 1.0], [3.0, -3.0, 2.0, 1.0], [0.0, 3.0, 2.0, 1.0]])
        >>> one = torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]])
        >>> silhouette(clip, *one, scale=0.1, image_size=(1, 1))
        tensor([[[1.0000]]])
    """
    distribution, tconorm = soft.as_distribution(distribution), soft.as_tconorm(tconorm)
    check_packed("silhouette", clip, faces, layout, image_size, near, indices=False)
    _op.check_devices("silhouette", ("clip", "faces", "layout"), (clip, faces, layout))
    positive("silhouette", "scale", scale, "It is a length in NDC (an area for a squared distribution).")
    if not 0 <= max_error < 1:
        raise fail("silhouette", "max_error", "in [0, 1)", max_error, "It bounds the error of alpha.")
    choice("silhouette", "coverage", coverage, _COVERAGES)
    if distribution.kernel_id is None or tconorm.kernel_id is None:
        options: dict[str, Any] = {"scale": scale, "image_size": image_size, "near": near, "coverage": coverage}
        return reference.silhouette(clip, faces, layout, distribution=distribution, tconorm=tconorm, **options)
    scale, there = _op.left_there("silhouette", "scale", scale, clip)
    params = _params(scale=scale, shape=distribution.shape, shift=distribution.shift, p=tconorm.p)
    form = (distribution.kernel_id, distribution.is_reversed, distribution.is_squared, tconorm.kernel_id)
    model = (there, *image_size, near, max_error, *form, coverage)
    alpha: torch.Tensor = _op.run("silhouette", clip, faces, layout, params, *model)[0]
    return alpha


def _params(**values: Any) -> torch.Tensor:
    numbers = [0.0 if value is None else value for value in values.values()]
    if not any(isinstance(value, torch.Tensor) for value in numbers):
        return torch.tensor(numbers, dtype=torch.float64, device="cpu")
    for name, value in values.items():
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            fix = "Render once for each value, or use geodiff.reference.silhouette."
            raise fail("silhouette", name, "a number or a tensor with one element", value, fix)
    return torch.stack([torch.as_tensor(value, dtype=torch.float64).reshape(()).cpu() for value in numbers])


def _model(
    params: torch.Tensor, by: torch.Tensor | None, faces: int, max_error: float, distribution: int, reversed_: bool,
    squared: bool, tconorm: int, coverage: str,
) -> "_op.kernels.SilhouetteModel":  # fmt: skip
    """The numbers, as kernels take them; τ is `params[0]` times `by`, of which nothing is read on a device."""
    choice("silhouette", "coverage", coverage, _COVERAGES)
    numbers = params.tolist()
    if by is not None and _op.on_host(by):
        numbers[0] *= float(by)
    scale, shape, shift, p = numbers
    if not all(map(math.isfinite, numbers)) or scale <= 0:
        raise fail("silhouette", "params", "finite, with a positive scale", str(numbers))
    radius = cull_radius(distribution, reversed_, squared, scale, shape, shift, tconorm, p, faces, max_error)
    radii: tuple[float, ...] = ()
    ease = 0.0
    if faces >= _FINE and coverage == "faces" and max_error > 0 and radius < math.inf:
        unit = math.sqrt(scale) if squared else scale
        table, ease = fine_radii(distribution, reversed_, squared, shape, shift, tconorm, p, max_error)
        radii = tuple(unit * x for x in table)
    log_gamma, digamma = special_values(shape) if members.distribution(distribution).parametric else (0.0, 0.0)
    return _op.struct(
        _op.kernels.SilhouetteModel, distribution=distribution, is_reversed=reversed_, is_squared=squared,
        coverage=coverage, scale=scale, shift=shift, shape=shape, log_gamma_1=log_gamma, digamma=digamma,
        tconorm=tconorm, p=p, radius=radius, radii=radii, max_error=max_error, ease=ease,
    )  # fmt: skip


def _forward(
    pairs: torch.Tensor | None, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, params: torch.Tensor,
    scale: torch.Tensor | None, height: int, width: int, near: float, max_error: float, distribution: int,
    reversed_: bool, squared: bool, tconorm: int, coverage: str,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    check_indices("silhouette", clip, faces, layout)
    alpha, total, best = out = _fake(clip, faces, layout, params, scale, height, width, near, max_error, distribution,
                                     reversed_, squared, tconorm)  # fmt: skip
    total.zero_()
    model = _model(params, scale, _most_faces(layout), max_error, distribution, reversed_, squared, tconorm, coverage)
    _op.call(
        _op.kernels.silhouette_forward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        model=model, alpha=alpha, sum=total, best=best, pairs=pairs, **_there(scale),
    )  # fmt: skip
    return out


def _keeps(tconorm: int) -> str:
    """What a pixel keeps of its faces, see members.def."""
    return members.tconorm(tconorm).kind


def _numbers(tconorm: int) -> int:
    """How many numbers a pixel keeps."""
    return 2 if _keeps(tconorm) == "levels" else 1


def _most_faces(layout: torch.Tensor) -> int:
    return max((row[2] for row in layout.tolist()), default=0)


def _backward(
    upstream: torch.Tensor, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, params: torch.Tensor,
    scale: torch.Tensor | None, height: int, width: int, near: float, max_error: float, distribution: int,
    reversed_: bool, squared: bool, tconorm: int, coverage: str, total: torch.Tensor, best: torch.Tensor,
    wants: list[bool],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    check_indices("silhouette_backward", clip, faces, layout)
    images = _numbers(tconorm) * layout.shape[0]
    if total.shape[0] != images:
        raise fail("silhouette_backward", "sum", f"of {images} images for this T-conorm", total)
    if _keeps(tconorm) != "winner":
        best = best[:0]
    elif best.shape != total.shape:
        raise fail("silhouette_backward", "best", f"of shape {tuple(total.shape)} for the maximum", best)
    if best.numel():
        check_of_image("silhouette_backward", "best", best, layout[:, 2].tolist())
    grad_clip = torch.zeros_like(clip)
    grad_params = torch.zeros_like(params) if scale is None else scale.new_zeros(4)
    model = _model(params, scale, _most_faces(layout), max_error, distribution, reversed_, squared, tconorm, coverage)
    _op.call(
        _op.kernels.silhouette_backward, clip=clip, faces=faces, layout=layout, height=height, width=width, near=near,
        model=model, sum=total, best=best, upstream=upstream, grad_clip=grad_clip, grad_params=grad_params,
        want_params=wants[1] or wants[2], want_shape=wants[1] and members.distribution(distribution).parametric,
        want_p=wants[1] and members.tconorm(tconorm).parametric, **_there(scale),
    )  # fmt: skip
    if scale is None:
        return grad_clip, grad_params, clip.new_empty(0)
    by_scale = grad_params[0] * float(params[0])
    if wants[1]:
        grad_params[0] *= scale
        grad_params = grad_params.to(params.device)
    return grad_clip, grad_params, by_scale


def _there(scale: torch.Tensor | None) -> dict[str, Any]:
    """The factor of τ that a device has, for its kernels."""
    return {} if scale is None or _op.on_host(scale) else {"scale": scale}


def _fake(
    clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, params: torch.Tensor, *model: Any
) -> tuple[torch.Tensor, ...]:
    height, width, tconorm = model[1], model[2], model[8]
    shape = (layout.shape[0], height, width)
    best = faces.new_empty(shape if _keeps(tconorm) == "winner" else (0,), dtype=torch.int32)
    total = clip.new_empty((_numbers(tconorm) * layout.shape[0], height, width))
    return clip.new_empty(shape), total, best


_SHAPES = {
    "clip": "N 4",
    "faces": "int32 F 3",
    "layout": "int64 B 3",
    "params": "float64 4",
    "scale": "? float64",
    "sum": "_ height width",
    "best": "? int32 B height width",
    "upstream": "B height width",
}
_op.register("silhouette", functools.partial(_forward, None), _fake, _SHAPES, _backward)


@outside_autocast
def count_pairs(
    clip: torch.Tensor,
    faces: torch.Tensor,
    layout: torch.Tensor,
    *,
    distribution: "soft.Distribution | str" = "logistic",
    tconorm: "soft.TConorm | str" = "probabilistic",
    scale: float,
    image_size: tuple[int, int],
    near: float = 1e-2,
    max_error: float = MAX_ERROR,
) -> torch.Tensor:
    """Count the (pixel, face) pairs that `silhouette` evaluates for each image: what its time is proportional to.

    Takes the arguments of `silhouette`; returns integers `(B,)`.
    """
    distribution, tconorm = soft.as_distribution(distribution), soft.as_tconorm(tconorm)
    check_packed("count_pairs", clip, faces, layout, image_size, near, indices=False)
    _op.check_devices("count_pairs", ("clip", "faces", "layout"), (clip, faces, layout))
    if distribution.kernel_id is None or tconorm.kernel_id is None:
        fix = "User-defined ones are evaluated for every pair."
        raise fail("count_pairs", "distribution", "built in", distribution, fix)
    params = _params(scale=scale, shape=distribution.shape, shift=distribution.shift, p=tconorm.p).detach()
    form = (distribution.kernel_id, distribution.is_reversed, distribution.is_squared, tconorm.kernel_id)
    model = (None, *image_size, near, max_error, *form, "faces")
    pairs = torch.zeros(len(layout), dtype=torch.int64, device=clip.device)
    _forward(pairs, *_op.ready("silhouette", clip.detach(), faces, layout, params, *model))
    return pairs
