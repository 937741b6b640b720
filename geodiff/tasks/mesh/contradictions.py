# SPDX-License-Identifier: Apache-2.0
"""What is wrong with silhouettes, said: views that contradict the others, empty and full masks, what stays unknown."""

import hashlib

import torch

from geodiff.scene.files import PosedImages
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.carving import Carver
from geodiff.tasks.overlap import covered
from geodiff.validation import fail, warn

_CELLS = 48  # a side of the grid on which views are left out
_BAD = 0.15  # of a silhouette: what the hull leaves uncovered of it, beyond noise
_LOST = 0.5  # of a silhouette: a hull that leaves that much uncovered is no start
_AGREE = 0.03  # of a silhouette: what all views together leave uncovered on that grid, if none is wrong
_HELPS = 0.5  # what is left of that without the view to blame
_AROUND = 0.9  # of the pixels along the border, and of the views
_SPECKS = (40, 0.02)  # that a mask may have, and as a part of its pixels
_SIDES = (("−x", "−y", "−z"), ("+x", "+y", "+z"))


def good_views(where: str, posed: PosedImages) -> list[int]:
    """Return which images say something; warn of those that say nothing, and of those that come twice.

    Raises:
        ValueError: there is none.
    """
    filled = posed.alpha >= 0.5
    empty, full = ~filled.any(-1).any(-1), filled.all(-1).all(-1)
    good = [i for i in range(len(posed)) if not (empty[i] or full[i])]
    if not good:
        got = "full ones" if bool(full.all()) else "empty ones" if bool(empty.all()) else "empty and full ones"
        raise fail(where, "images", "of something: masks with an outline", got, "Is alpha the object's, or all 1?")
    for flags, what in ((empty, "empty"), (full, "full")):
        if bool(flags.any()):
            warn(f"{where}: {masks_of(posed, flags.nonzero()[:, 0].tolist())} {what} and left out")
    some = posed if len(good) == len(posed) else posed[good]  # a copy
    _check_inverted(where, some)
    _check_specks(where, some)
    seen: dict[bytes, int] = {}
    again = []
    for i in good:
        camera = posed.cameras[i]
        parts = (posed.alpha[i], camera.rotation, camera.translation, camera.focal, camera.principal)
        digest = hashlib.sha256()  # the masks themselves would be kept once more
        for part in parts:
            digest.update(part.detach().contiguous().numpy().tobytes())
        key = digest.digest()
        if key in seen:
            again.append(i)
        seen.setdefault(key, i)
    if again:
        what = "is the same as another" if len(again) == 1 else "are the same as others"
        warn(f"{where}: {names_of(posed, again)} {what} before, and left out")
    return [i for i in good if i not in again]


def views_of_something(where: str, posed: PosedImages, held_out: list[int]) -> list[int]:
    """Return the held-out views that can judge a mesh; warn of those whose masks are empty or full."""
    filled = [posed.alpha[i] >= 0.5 for i in held_out]
    empty = [i for i, mask in zip(held_out, filled, strict=True) if not bool(mask.any())]
    full = [i for i, mask in zip(held_out, filled, strict=True) if bool(mask.all())]
    for views, what in ((empty, "empty"), (full, "full")):
        if views:
            warn(f"{where}: {masks_of(posed, views)} {what}: no part of the IoU of what is held out")
    return [i for i in held_out if i not in empty and i not in full]


def _check_inverted(where: str, posed: PosedImages) -> None:
    """Refuse masks that are 1 all along the borders of their images: those of what is around the object."""
    filled = posed.alpha >= 0.5
    rims = torch.cat((filled[:, 0], filled[:, -1], filled[:, :, 0], filled[:, :, -1]), dim=-1)
    around = rims.double().mean(-1) > _AROUND
    if float(around.double().mean()) > _AROUND:
        fix = "Invert them: pass 1 − alpha."
        raise fail(where, "images", "masks that are 1 where the object is", "1 all along the borders of images", fix)


def _check_specks(where: str, posed: PosedImages) -> None:
    """Refuse masks that are mere specks, as noise is: of no such there is an object, and their hull takes minutes."""
    from scipy.ndimage import label

    pixels = posed.image_size[0] * posed.image_size[1]
    most = max(_SPECKS[0], _SPECKS[1] * pixels)
    counts = sorted(label(mask)[1] + label(~mask)[1] for mask in (posed.alpha >= 0.5).numpy())
    middle = counts[len(counts) // 2]
    if middle > most:
        got = f"ones of {middle} separate specks and holes in the middle one"
        raise fail(where, "images", "silhouettes", got, "Is it noise? Threshold and clean the masks.")


def check_placed(where: str, posed: PosedImages, centre: torch.Tensor) -> None:
    """Require that the cameras see what their silhouettes point to: in front of them, and not nearer than ``near``."""
    cameras = posed.cameras.to(dtype=torch.float64)
    depth = -cameras.to_view(centre[None].double())[:, 0, 2]
    hidden = (depth <= cameras.near).nonzero()[:, 0].tolist()
    if not hidden:
        return
    most = float(depth.max())
    if len(hidden) == len(posed) and most > 0:
        got = f"{cameras.near:g}, and an object {most:.3g} away at most"
        fix = "Give the cameras a smaller `near`, or the world another unit."
        raise fail(where, "cameras", "of a `near` less than the distance to the object", got, fix)
    fix = "Cameras look along −z with y up; Camera.from_opencv takes those that look along +z with y down."
    if 2 * len(hidden) > len(posed):
        got = f"{names_of(posed, hidden)}, which {'has' if len(hidden) == 1 else 'have'} it behind"
        raise fail(where, "cameras", "turned to what their silhouettes point to", got, fix)
    warn(f"{where}: what the silhouettes point to is behind {names_of(posed, hidden)}. {fix}")


def contradiction(
    where: str,
    mesh: Mesh | None,
    posed: PosedImages,
    carver: Carver,
    centre: torch.Tensor,
    half: float,
    told: str | None = None,
) -> None:
    """Name the view that contradicts the others, if the hull leaves much of the silhouettes uncovered.

    One wrong camera or inverted mask carves away what all others show. Without that view their hull covers them. Where
    all views together leave a place for what is missing, it is too thin for the grid, and no view is to blame. What
    the outlines tell, ``told``, is said where no error says more.

    Raises:
        ValueError: the hull covers less than half of the silhouettes, and most of them without one view; or none of
            them, being too thin.
    """
    target = posed.alpha >= 0.5
    area = target.sum((-2, -1))
    if mesh is None or not mesh.num_faces:
        missing = torch.ones(len(posed))
    else:
        missing = (target & ~covered(mesh, posed)).sum((-2, -1)) / area
    if float(missing.mean()) < _BAD or len(posed) < 3:
        if told is not None:
            warn(f"{where}: {told}")
        return
    left, together = leave_one_out(carver, target, centre, half)
    best = int(left.argmin())
    empty = mesh is None or not mesh.num_faces
    if together <= _AGREE:
        fix = "Parts thinner than its cells are lost: raise `resolution`."
        if empty:
            raise fail(where, "images", "silhouettes whose hull the grid can hold", "ones that are too thin", fix)
        fix += " Or the cameras are a little wrong."
        found = f"the hull leaves {100 * float(missing.mean()):.0f} % of the silhouettes uncovered. {fix}"
        warn(f"{where}: {told or found}")
        return
    if float(left[best]) > _HELPS * float(missing.mean()):
        if not empty:
            left_open = f"the hull leaves {100 * float(missing.mean()):.0f} % of the silhouettes uncovered"
            warn(f"{where}: {told or f'{left_open}: cameras or masks contradict each other'}")
        elif told is not None:
            raise fail(where, "images", "silhouettes of one object", f"ones whose hull is empty: {told}")
        return
    name = names_of(posed, [best])
    shares = (100 * float(missing.mean()), 100 * float(left[best]))
    found = f"{shares[0]:.0f} % of the other silhouettes uncovered, {shares[1]:.0f} % without it"
    fix = "Is its mask inverted, or its camera that of another image? Leave it out, or mend it."
    if float(missing.mean()) > _LOST:
        raise fail(where, "images", "silhouettes of one object", f"{name} against all others: with it, {found}", fix)
    warn(f"{where}: {told or f'{name} contradicts the other views: with it, the hull leaves {found}. {fix}'}")


def leave_one_out(
    carver: Carver, target: torch.Tensor, centre: torch.Tensor, half: float
) -> tuple[torch.Tensor, float]:
    """Return for each view (B,) the share of the other silhouettes that the hull of the others leaves uncovered.

    And the share of all silhouettes that the hull of all views does.

    All these hulls come from one look at a coarse grid: a point is in the hull without view b if no other view carves
    it. A grid point stands for its cell, whose size in pixels is allowed for.
    """
    count, dtype = len(carver), carver.distance.dtype
    steps = (torch.arange(_CELLS, dtype=dtype) + 0.5) * (2 / _CELLS) - 1
    points = torch.stack(torch.meshgrid(steps, steps, steps, indexing="ij"), dim=-1).reshape(-1, 3) * half
    points = points + centre.to(dtype)
    height, width = target.shape[-2:]
    carved = torch.zeros(len(points), dtype=torch.int32)
    by = torch.full((len(points),), -1, dtype=torch.int32)
    at, cell = [], []
    for view in range(count):
        value, _, depth = carver.seen(view, points)
        camera = carver.cameras[view]
        w = torch.ones_like(depth) if camera.is_orthographic else depth.clamp_min(camera.near)
        size = 0.5 * min(height, width) * float(camera.focal.max()) * (2 * half / _CELLS) / w
        out = value < -0.5 * size
        carved += out
        by[out] = view
        x, y, _ = camera.project(points, (height, width)).unbind(-1)
        at.append(torch.stack((y.floor(), x.floor()), dim=-1).long())
        cell.append(float(size.median()))
    left = torch.empty(count + 1, dtype=dtype)
    for aside in range(count + 1):  # the last time, none
        kept = (carved == 0) | ((carved == 1) & (by == aside))
        shares = []
        for view in range(count):
            if view == aside:
                continue
            where = at[view][kept]
            inside = ((where >= 0) & (where < where.new_tensor([height, width]))).all(-1)
            mask = torch.zeros(height, width)
            mask[where[inside, 0], where[inside, 1]] = 1
            reach = int(cell[view]) + 1
            mask = torch.nn.functional.max_pool2d(mask[None, None], 2 * reach + 1, 1, reach)[0, 0] > 0
            shares.append((target[view] & ~mask).sum() / target[view].sum())
        left[aside] = torch.stack(shares).mean()
    return left[:count], float(left[count])


def say_unknown(where: str, cut: torch.Tensor, touching: bool) -> None:
    """Warn of the directions in which the views do not bound the object."""
    if not bool(cut.any()):
        return
    sides = ", ".join(_SIDES[i][k] for k in range(3) for i in range(2) if cut[i, k])
    fix = "Add views that show all of it." if touching else "The cameras look from too few sides: add others."
    found = f"how far the object goes to {sides} stays unknown, and is cut by the silhouettes' size"
    warn(f"{where}: {found}. {fix}")


def say_touching(where: str, posed: PosedImages, touching: list[bool]) -> None:
    """Warn of masks that end at the border of their images."""
    views = [i for i, touches in enumerate(touching) if touches]
    if views:
        which = f"{'mask' if len(views) == 1 else 'masks'} of {names_of(posed, views)}"
        verb = "goes up to the border of its image" if len(views) == 1 else "go up to the border of their images"
        warn(f"{where}: the {which} {verb}: what is beyond it is left to the other views")


def names_of(posed: PosedImages, indices: list[int]) -> str:
    """Return how messages call some views: by up to eight of their names."""
    names = [str(posed.names[i]) for i in indices]
    text = ", ".join(names[:8]) + (", …" if len(names) > 8 else "")
    return f"view {text}" if len(names) == 1 else f"views {text}"


def masks_of(posed: PosedImages, indices: list[int]) -> str:
    """Return how messages call the masks of some views, with the verb."""
    noun, verb = ("mask", "is") if len(indices) == 1 else ("masks", "are")
    return f"the {noun} of {names_of(posed, indices)} {verb}"
