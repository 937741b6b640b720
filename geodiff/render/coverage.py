# SPDX-License-Identifier: Apache-2.0
"""How a mesh covers a pixel: three soft models, two hard ones, and what one of your own is given."""

import copy
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from geodiff import soft
from geodiff.modes import is_transformed
from geodiff.ops.culling import contour_reach, radius_of
from geodiff.recording import at_most, is_replaying, spread
from geodiff.reference.jumps import Jumps
from geodiff.render.fragment_list import FragmentList, find_visible
from geodiff.render.view import View
from geodiff.render.visibility import antialias, edge_gradient
from geodiff.validation import choice, describe, fail, positive

Images = dict[str, torch.Tensor]
Blend = Callable[[torch.Tensor, Jumps, torch.Tensor], torch.Tensor]


class Softness(NamedTuple):
    """How soft edges are, and how faces are joined.

    Attributes:
        distribution: F, of `geodiff.soft`.
        scale: τ, NDC (NDC² for a squared distribution); a number, or a tensor of one element.
        tconorm: ⊥, of `geodiff.soft`.
        max_error: how far alpha may be off for faces to be left out.
        most: what a scale on a device is at most; None where it is not known.
    """

    distribution: soft.Distribution
    scale: float | torch.Tensor
    tconorm: soft.TConorm
    max_error: float
    most: float | None = None

    @property
    def longest(self) -> float | torch.Tensor:
        """What the scale is at most."""
        return self.scale if self.most is None else self.most

    def reach(self, view: View) -> float:
        """Return how far (NDC) outside a face `⊥_f F(d/τ)` changes by more than `max_error`; may be infinite."""
        return radius_of(self.distribution, self.tconorm, self.longest, view.most_faces, self.max_error)


def bounded(softness: Softness) -> Softness:
    """Return it with `most`, if the scale is on a device."""
    if not isinstance(softness.scale, torch.Tensor) or softness.scale.is_cpu or torch.compiler.is_compiling():
        return softness
    scale, most = at_most(softness.scale)
    positive("Renderer", "scale", most)
    return softness._replace(scale=scale, most=most)


class Coverage:
    """How a mesh covers pixels: what alpha is, and how far from the mesh it may be above 0.

    A model of your own is a subclass with an `alpha`; it may combine others:

    Example:
        >>> import geodiff as gd
        >>> class Fainter(gd.render.Coverage):
        ...     def alpha(self, view, softness):
        ...         return 0.5 * gd.render.Contour().alpha(view, softness)
        >>> camera = gd.Camera.orbit(2.7, 20, 30, fov_deg=60)
        >>> float(gd.Renderer(9, coverage=Fainter())(gd.icosphere(2), camera).alpha[4, 4])
        0.5
    """

    is_biased: bool = False
    """Whether it makes a mesh fatter the finer it is tessellated: `Renderer` warns where a camera is fitted by it."""

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        """Return the coverage of all pixels, `(B, H, W)`, in [0, 1].

        Args:
            view: what is seen, see `View`: `view.ops.contour(*view.packed, **view.frame, …)` is a kernel, or its twin.
            softness: the renderer's distribution, scale, T-conorm and `max_error`.

        Gradients: its own, through torch.
        """
        raise NotImplementedError(f"{type(self).__name__} needs a method alpha(view, softness).")

    def reach(self, view: View, softness: Softness) -> float | None:
        """Return how far (NDC) outside all faces alpha may exceed `max_error`, which is how far colours are looked for.

        None, as here: it is not known; then the search goes on until all pixels of such an alpha have a colour (which
        `torch.compile` cannot trace).
        """
        return None

    def looking_at(self, view: View) -> "Coverage":
        """Return the model for one view: itself, or a copy that keeps what it finds there."""
        return self

    @property
    def seen(self) -> FragmentList | None:
        """The faces that pixels see, if `looking_at` found them: then colours are theirs."""
        return None

    def finish(self, view: View, images: Images, creases: set[str]) -> Images:
        """Return the images, one sample a pixel, with what this model has still to do to them: nothing, here.

        Args:
            view: what is seen.
            images: alpha, rgb, depth, normal, uv and face_id, `(*view.batch, H, W[, C])`, as far as they are there.
            creases: which of them jump from face to face of one surface.
        """
        return images

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Faces(Coverage):
    """Each face by itself, `⊥_f F(d(q, f)/τ)` (Petersen et al., "GenDR", 2022)."""

    is_biased = True

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        """Return the coverage of all pixels, `(B, H, W)`."""
        return _silhouette(view, softness, "faces")

    def reach(self, view: View, softness: Softness) -> float | None:
        """Return that of the faces."""
        return softness.reach(view)


class Edges(Coverage):
    """Each face by its edges, `⊥_f Π_k F(d_k(q)/τ)` (Petersen et al., "Pix2Vex", 2019).

    Beyond an acute corner the product over three lines reaches farther than the distance to the face: no reach.
    """

    is_biased = True

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        """Return the coverage of all pixels, `(B, H, W)`."""
        return _silhouette(view, softness, "edges")


class Contour(Coverage):
    """The outline, `F(d(q)/τ)`, d the signed distance to the boundary of the mesh's image. Takes no T-conorm."""

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        """Return the coverage of all pixels, `(B, H, W)`."""
        return view.ops.contour(
            *view.packed,
            **view.frame,
            distribution=softness.distribution,
            scale=softness.scale,
            edges=view.edge_cycles,
            max_error=softness.max_error,
        )

    def reach(self, view: View, softness: Softness) -> float | None:
        """Return how far outside the outline alpha ends."""
        return contour_reach(softness.distribution, softness.longest, softness.max_error)


class Hard(Coverage):
    """All or nothing: what `rasterize` draws, with the gradient of visibility edges (see `edge_gradient`).

    Distribution, scale and T-conorm have no say. Where one surface hides another, or goes through it, images of all
    kinds jump; their gradient knows of it, as that of no soft alpha does.
    """

    def __init__(self) -> None:
        self._seen: FragmentList | None = None

    def looking_at(self, view: View) -> "Hard":
        """Return a copy that keeps the faces that are seen."""
        own = copy.copy(self)
        own._seen = find_visible(view, 0.0)
        return own

    @property
    def seen(self) -> FragmentList | None:
        """The faces that pixels see."""
        return self._seen

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        """Return 1 where a face covers the pixel centre, 0 elsewhere, `(B, H, W)`: a constant before `finish`."""
        found = self._found(view)
        covered = view.clip.new_ones(len(found.place))
        if is_replaying():  # NaN where the list has outgrown its room
            covered = covered + 0 * found.barycentric[:, 0].detach()
        covered = spread(covered, found.place, found.shape.numel())
        return covered.reshape(found.shape[:-1])

    def reach(self, view: View, softness: Softness) -> float | None:
        """Return 0."""
        return 0.0

    def finish(self, view: View, images: Images, creases: set[str]) -> Images:
        """Return the images with the gradients of their visibility edges."""
        if not (is_transformed(view.clip) or (view.clip.requires_grad and torch.is_grad_enabled())):
            return images
        return self._with_edges(view, images, creases, edge_gradient)

    def _found(self, view: View) -> FragmentList:
        return find_visible(view, 0.0) if self._seen is None else self._seen

    def _with_edges(self, view: View, images: Images, creases: set[str], blend: Blend) -> Images:
        if not view.images:
            return images
        found, result = self._found(view), dict(images)
        flat = spread(found.face, found.place, found.shape.numel(), -1)
        packed = view.clip.detach(), view.faces, view.layout, flat.reshape(found.shape[:-1])

        def search(creases: bool) -> Jumps:
            jumps: Jumps = view.ops.jumps(*packed, near=view.camera.near, edges=view.edge_cycles, creases=creases)
            return jumps

        def inside(jumps: Jumps) -> Jumps:
            both = (flat[jumps.pixels] >= 0).all(dim=1)
            if not both.is_cpu:  # how many there are would have to be read
                return jumps._replace(share=jumps.share * both)
            return Jumps(jumps.pixels[both], jumps.ends[both], jumps.share[both], *jumps[3:])

        plain = search(False)
        creased = search(True) if creases & images.keys() else plain
        for name in (name for name in images if name != "face_id"):
            jumps, way = creased if name in creases else plain, blend
            if name not in ("alpha", "rgb"):  # only where both pixels have them
                jumps, way = inside(jumps), edge_gradient
            image = images[name].reshape(*found.shape[:-1], -1)
            result[name] = way(image, jumps, view.clip).reshape(images[name].shape)
        return result


class Antialiased(Hard):
    """`Hard`, alpha and rgb blended along visibility edges by how much of a pixel lies beyond (see `antialias`)."""

    def finish(self, view: View, images: Images, creases: set[str]) -> Images:
        """Return the images, alpha and rgb blended along their edges."""
        return self._with_edges(view, images, creases, antialias)


def _silhouette(view: View, softness: Softness, coverage: str) -> torch.Tensor:
    return view.ops.silhouette(
        *view.packed,
        **view.frame,
        distribution=softness.distribution,
        tconorm=softness.tconorm,
        scale=softness.scale,
        coverage=coverage,
        max_error=softness.max_error,
    )


class _Function(Coverage):
    """The model of a function `(view, softness) ↦ alpha`."""

    def __init__(self, function: Callable[[View, Softness], torch.Tensor]) -> None:
        self.function = function

    def alpha(self, view: View, softness: Softness) -> torch.Tensor:
        return self.function(view, softness)


COVERAGES: dict[str, type[Coverage]] = {
    "faces": Faces,
    "edges": Edges,
    "contour": Contour,
    "hard": Hard,
    "antialiased": Antialiased,
}


def as_coverage(where: str, value: Any) -> Coverage:
    """Return the coverage of a name, a class or a function `(view, softness) ↦ alpha`; one of `Coverage` as it is.

    Raises:
        ValueError, TypeError: an unknown name; anything else.
    """
    if isinstance(value, str):
        return COVERAGES[choice(where, "coverage", value, tuple(COVERAGES))]()
    if isinstance(value, type) and issubclass(value, Coverage):
        return value()
    if isinstance(value, Coverage):
        return value
    if callable(value) and not isinstance(value, type):
        return _Function(value)
    expected = f"one of {', '.join(COVERAGES)}, a geodiff.render.Coverage, or a callable (view, softness) -> alpha"
    raise fail(where, "coverage", expected, value, error=TypeError)


def alpha_of(coverage: Coverage, view: View, softness: Softness) -> torch.Tensor:
    """Return `coverage.alpha`, checked: `(B, H, W)`, of the dtype of the view."""
    alpha = coverage.alpha(view, softness)
    shape = (view.images, *view.image_size)
    if not isinstance(alpha, torch.Tensor) or alpha.shape != shape or alpha.dtype != view.clip.dtype:
        expected = f"a model whose alpha is {str(view.clip.dtype).removeprefix('torch.')} of shape {shape}"
        error = ValueError if isinstance(alpha, torch.Tensor) and alpha.dtype == view.clip.dtype else TypeError
        raise fail("Renderer", "coverage", expected, alpha, "One number a pixel of each image.", error)
    return alpha


def reach_of(coverage: Coverage, view: View, softness: Softness) -> float | None:
    """Return `coverage.reach`, checked."""
    reach = coverage.reach(view, softness)
    if reach is None or (isinstance(reach, int | float) and not math.isnan(reach) and reach >= 0):
        return reach
    raise fail("Renderer", "coverage", "a model whose reach is a number ≥ 0 or None", describe(reach))
