# SPDX-License-Identifier: Apache-2.0
"""Views whose silhouettes do not touch where those of the others do: told from the cameras alone, without a hull."""

import math

import torch

from geodiff.scene.files import PosedImages
from geodiff.tasks.mesh.camera_moves import Moves, Prior
from geodiff.tasks.mesh.contradictions import names_of
from geodiff.tasks.mesh.tangents import Tangents
from geodiff.validation import warn

_APART = (0.7, 0.45)  # pixels that a view's touches may be off in the middle: of hard masks, of anti-aliased ones
_ALL = (1.0, 0.1)  # the same of all views, from so many pixels to such a part of the image: not of other objects
_TYPICAL = 5.0  # times as far off as those of the view in the middle
_VIEWS = 4  # fewer do not tell who is wrong
_SHARE = 0.34  # of the views: where more stand out, none does
# A camera moved around the object leaves its outermost touches nearly where they were. So the view that is farthest
# off, by so many times as far as the middle one and by 0.1 pixels, is moved alone: by so many pixels at the mask's
# edge or more, of anti-aliased masks (and times two of hard ones), where all its touches come together by half.
_SUSPECT, _LEAST, _MOVED, _TOGETHER, _CAMERA, _NOISE, _FALSE = 1.3, 0.1, 0.65, 0.5, (3.0, 0.05, 0.01), 0.2, 9.0


def residuals(posed: PosedImages, centre: torch.Tensor) -> torch.Tensor:
    """Return of each view (B,) how far its outermost touches are from those of the others, in pixels, in the middle.

    NaN for views whose silhouettes have none, as where they go over the border of the image.
    """
    tangents = Tangents(posed, Moves(posed.cameras, centre))
    count = len(posed)
    x = torch.zeros(count, 7, dtype=torch.float64)
    touch = tangents.touches(x, inner=False)
    first, second = tangents.first[touch.pair], tangents.second[touch.pair]
    off = tangents.residuals(touch, x[first], x[second]).abs()
    middle = torch.full((count,), torch.nan, dtype=torch.float64)
    for view in range(count):
        mine = off[(first == view) | (second == view)]
        if len(mine) >= _VIEWS:
            middle[view] = mine.median()
    return middle


def disagreement(posed: PosedImages, centre: torch.Tensor) -> str | None:
    """Return which views stand out, or that all disagree, as a sentence; None where all is well or cannot be known."""
    if len(posed) < _VIEWS or posed.cameras.is_orthographic:
        return None
    middle = residuals(posed, centre)
    known = middle[~middle.isnan()]
    if len(known) < _VIEWS:
        return None
    typical = float(known.median())
    soft = bool(((posed.alpha > 0.02) & (posed.alpha < 0.98)).any())
    odd = (middle > max(_APART[int(soft)], _TYPICAL * typical)).nonzero()[:, 0]
    odd = odd[middle[odd].argsort(descending=True)]
    if len(odd) and len(odd) <= _SHARE * len(known):
        sizes = ", ".join(f"{v:.2g}" for v in middle[odd][:8].tolist())
        verb, its = ("contradicts", "its outline touches") if len(odd) == 1 else ("contradict", "their outlines touch")
        found = f"{its} {sizes} pixels from where the others' say, and theirs {typical:.2g}"
        fix = "Are these the cameras of these images? Leave out what is wrong, or mend it."
        return f"{names_of(posed, odd.tolist())} {verb} the other views: {found}. {fix}"
    worst = int(middle.nan_to_num(0.0).argmax())
    if float(middle[worst]) > max(_SUSPECT * typical, _LEAST):
        degrees = _around(posed, centre, worst)
        area = float((posed.alpha[worst] >= 0.5).double().sum())
        pixels = math.radians(degrees) * math.sqrt(area / math.pi)
        if pixels > _MOVED * (1 if soft else 2):
            found = f"it fits to them {degrees:.1f}° away from its camera, around the object"
            fix = "Is its camera right? Leave it out, or mend it."
            return f"{names_of(posed, [worst])} contradicts the other views: {found}. {fix}"
    if _ALL[0] < typical < _ALL[1] * min(posed.image_size):
        fix = "All cameras are a little wrong, or masks: refine_cameras=True of fit_mesh mends it."
        return f"outlines touch {typical:.2g} pixels from where the other views say, in the middle of the views. {fix}"
    return None


def say_disagreement(where: str, posed: PosedImages, centre: torch.Tensor) -> None:
    """Warn of views that stand out, where no hull says more."""
    told = disagreement(posed, centre)
    if told is not None:
        warn(f"{where}: {told}")


def _around(posed: PosedImages, centre: torch.Tensor, view: int) -> float:
    """Return by how many degrees about the object a camera moves to where its view fits to the others; 0: nowhere."""
    alone = torch.zeros(len(posed), dtype=torch.bool)
    alone[view] = True
    tangents = Tangents(posed, Moves(posed.cameras, centre), alone[:, None] | alone)
    x = tangents.solve(Prior(*_CAMERA), alone)

    def spread(x: torch.Tensor) -> float:
        touch = tangents.touches(x, inner=True)
        if len(touch.pair) < 2 * (len(posed) - 1):  # too few to move a camera by
            return math.nan
        off = tangents.residuals(touch, x[tangents.first[touch.pair]], x[tangents.second[touch.pair]])
        return float((off / _NOISE).square().clamp(max=_FALSE).sum())

    return math.degrees(float(x[view, :3].norm())) if spread(x) < _TOGETHER * spread(torch.zeros_like(x)) else 0.0
