# SPDX-License-Identifier: Apache-2.0
"""The visual hull: the largest solid that has the silhouettes of the images, as a mesh."""

import math
import os

import numpy as np
import torch

from geodiff.modes import outside_autocast
from geodiff.scene.camera import Camera
from geodiff.scene.files import PosedImages
from geodiff.scene.isosurface import isosurface
from geodiff.scene.mesh import Mesh
from geodiff.tasks.mesh.agreement import disagreement
from geodiff.tasks.mesh.carving import Carver
from geodiff.tasks.mesh.completion import LEVEL, Missing, complete
from geodiff.tasks.mesh.contradictions import check_placed, contradiction, good_views, say_touching, say_unknown
from geodiff.tasks.mesh.start import object_frame, posed_images
from geodiff.tasks.overlap import covered
from geodiff.validation import fail, integer, number

_WHERE = "visual_hull"
_START = 1.5  # half the cube that is carved, in the silhouettes' largest half
_CELL = 0.6  # of a pixel at the object
_AROUND = 4.0  # pixels more at least, so that in small images its walls can be told from outlines near them
_MOST = 112  # cells along the longest side, unless told
_UNKNOWN = 64  # the same where the views leave open how far the object goes: what ends there is no detail
_LARGEST = 1024
_PIXELS = 3  # of large images, averaged, a cell: outlines are told to a tenth of one
_OFF = 0.1  # of the area of silhouettes, in images that are averaged, at most
_PARTS = 64  # the largest, that are looked at
_NEEDED = 0.02  # of a part's pixels in all views, that no other part covers
_ROUNDS = 2  # of putting back what is thinner than a pixel
_SLACK = (0.25, 0.1)  # pixels, of masks that are 0 or 1 and of anti-aliased ones


@outside_autocast
def visual_hull(
    images: PosedImages | torch.Tensor | str | os.PathLike[str],
    cameras: Camera | None = None,
    *,
    resolution: int | None = None,
    slack: float | None = None,
) -> Mesh:
    """Return the largest solid whose silhouettes are those of the images, with its holes and all of its parts.

    A point is in the hull (Laurentini 1994) if it is inside the silhouette in each image. Of each mask the signed
    distance to its outline is made, where the coverage passes ½ between pixels; the hull is where the least of them
    over the views is positive, on a grid of which only the blocks are looked at that its surface passes through. So
    anti-aliased masks tell it to about a tenth of a pixel. What the hull cannot have is what no outline shows, such as
    the inside of a cup.

    A view in which the mask stays off the border of the image shows all of the object: what is out of it is not the
    object. Where the mask touches the border the object may go on, and such a view carves nothing out of the image.
    Parts thinner than a pixel show less coverage than ½ in the views that see their edges. Where others are left with
    silhouettes that nothing covers, such parts are put back, a cell thick, where the coverage of all views is largest.
    Parts that no mask needs, since others cover the same pixels, are left out: few views leave such phantoms standing.

    Args:
        images: `PosedImages`, the path of a ``transforms.json`` or its folder, or coverage (B, H, W) in [0, 1].
        cameras: the B cameras that go with a tensor of coverage.
        resolution: cells of the grid along the longest side, in [4, 1024]; None: five for three pixels, at most 112.
            Masks that have more than six pixels a cell are averaged to three and more.
        slack: how far out of a silhouette a point may be, in pixels. Outlines are uncertain, and the least of many
            errs inwards; None: 0.1 for anti-aliased masks, 0.25 where coverage is 0 or 1.

    Returns:
        A closed manifold `Mesh`, oriented outwards, with triangles about as large as a cell. No gradient.

    Raises:
        TypeError, ValueError: as each argument's check says; masks all empty or all full; masks that no object can
            have, with the view named that contradicts the others.

    Warns:
        UserWarning: masks that are empty, full, or the same as another's; cameras that leave open how far the object
            goes in some direction; a view that contradicts the others.

    Example:
        >>> import torch, geodiff as gd
        >>> cameras = gd.Camera.orbit(2.732, 30, torch.arange(0, 360, 30), fov_deg=30)
        >>> target = gd.rasterize(gd.torus(0.4, 0.15), cameras, 64).mask.float()
        >>> hull = gd.tasks.visual_hull(target, cameras)
        >>> hull.is_closed, hull.euler_characteristic  # it has the hole
        (True, 0)
    """
    if resolution is not None:
        integer(_WHERE, "resolution", resolution, 4, _LARGEST)
    if slack is not None:
        number(_WHERE, "slack", slack, -10, 10)
    posed = posed_images(images, cameras, _WHERE)
    good = good_views(_WHERE, posed)
    return hull_of(posed if len(good) == len(posed) else posed[good], resolution, slack, _WHERE)


def hull_of(posed: PosedImages, resolution: int | None, slack: float | None, where: str) -> Mesh:
    """Return the hull of good views of checked images; errors and warnings name ``where``."""
    centre, unit = object_frame(posed)
    check_placed(where, posed, centre)
    soft = any(bool(((alpha > 0.02) & (alpha < 0.98)).any()) for alpha in posed.alpha)
    if slack is None:
        slack = _SLACK[int(soft)]
    posed, times = _averaged(posed, resolution or _MOST)
    slack /= times
    carver = Carver(posed.alpha, posed.cameras)
    pixel = 2 * unit / min(posed.image_size)
    around = _half(posed.alpha)
    half = max(_START * around, around + _AROUND) * pixel
    found = carver.box(centre, half, -slack)
    mesh = None
    if found is not None:
        grid = _Grid(found[0], bool(found[1].any()), pixel, resolution)
        mesh = without_phantoms(grid.surface(carver.grid(*grid.place, -slack), slack, posed.alpha.dtype), posed)
        if soft:  # others tell nothing of what is thinner than a pixel
            completed = _completed(mesh, posed, carver, centre, half, pixel, resolution, slack)
            if completed is not None:
                mesh, found, grid = completed
    contradiction(where, mesh, posed, carver, centre, half, disagreement(posed, centre))
    if mesh is None or not mesh.num_faces:
        fix = "Are cameras and masks those of one object, in one unit, and the masks 1 where it is?"
        raise fail(where, "images", "silhouettes that some object has", "ones whose hull is empty", fix)
    say_touching(where, posed, carver.touching)
    if found is not None:
        ends = torch.stack((mesh.vertices.amin(0), mesh.vertices.amax(0)))
        say_unknown(where, found[1] & ((ends - found[0]).abs() < 2 * grid.cell), any(carver.touching))
    return mesh


def _averaged(posed: PosedImages, cells: int) -> tuple[PosedImages, int]:
    """Return masks of images that are much finer than the grid's cells as the means of k × k pixels, and k.

    At the right and the lower end it may be fewer, of images that then reach beyond those given: cameras are told. k is
    such that what is thin is not lost.
    """
    times = 1 + int(2 * _half(posed.alpha) / (_PIXELS * cells))
    before, alpha = _area(posed.alpha), posed.alpha
    while times > 1:
        times -= 1
        pool = torch.nn.AvgPool2d(times, ceil_mode=True)  # of what is there
        alpha = torch.stack([pool(image[None, None])[0, 0] for image in posed.alpha]).clamp(0, 1)
        if times == 1 or bool(((times**2 * _area(alpha) - before).abs() <= _OFF * before).all()):
            break
    if times == 1:
        return posed, 1
    cameras = _placed_in(posed.cameras, posed.image_size, (times * alpha.shape[1], times * alpha.shape[2]))
    return PosedImages(None, alpha, cameras, posed.names), times


def _area(alpha: torch.Tensor) -> torch.Tensor:
    """Of each silhouette, in its pixels."""
    return torch.stack([(image > 0.5).sum() for image in alpha]).double()


def _placed_in(cameras: Camera, size: tuple[int, int], larger: tuple[int, int]) -> Camera:
    """Return the cameras for images with more rows below and more columns on the right."""
    if size == larger:
        return cameras
    scale, to = min(size) / min(larger), 1 / min(larger)
    moved = cameras.principal.new_tensor([(size[1] - larger[1]) * to, (larger[0] - size[0]) * to])
    return Camera(
        cameras.rotation, cameras.translation, cameras.focal * scale, cameras.principal * scale + moved,
        orthographic=cameras.is_orthographic, near=cameras.near,
    )  # fmt: skip


class _Grid:
    """The nodes in a box (2, 3) and about it; ``is_open``: the views leave open how far the object goes."""

    def __init__(self, box: torch.Tensor, is_open: bool, pixel: float, resolution: int | None) -> None:
        size = float((box[1] - box[0]).max())
        most = _UNKNOWN if is_open else _MOST
        self.cell = size / resolution if resolution is not None else max(_CELL * pixel, size / most)
        self.low = box[0] - self.cell
        self.shape = tuple(int(n) for n in torch.ceil((box[1] - box[0]) / self.cell).long() + 3)

    @property
    def place(self) -> tuple[torch.Tensor, float, tuple[int, ...]]:
        return self.low, self.cell, self.shape

    def surface(self, values: torch.Tensor, slack: float, dtype: torch.dtype) -> Mesh:
        high = self.low + self.cell * (self.low.new_tensor(self.shape) - 1)
        mesh = isosurface(values, -slack, bounds=torch.stack((self.low, high)), inside="above")
        return mesh.to(dtype=dtype)  # whatever torch's default is


def _completed(
    mesh: Mesh,
    posed: PosedImages,
    carver: Carver,
    centre: torch.Tensor,
    half: float,
    pixel: float,
    resolution: int | None,
    slack: float,
) -> tuple[Mesh, tuple[torch.Tensor, torch.Tensor], _Grid] | None:
    """Return the hull with parts thinner than a pixel, its box and grid; None: there are none, or that is not all."""
    first = missing = Missing(mesh, posed)
    if not missing.is_much:
        return None
    wide = Carver(posed.alpha, posed.cameras, LEVEL)
    found = wide.box(centre, half, -slack)
    if found is None:
        return None
    grid = _Grid(found[0], bool(found[1].any()), pixel, resolution)
    values = carver.grid(*grid.place, -slack)
    for _ in range(_ROUNDS):
        if not complete(values, missing, posed, wide, grid.low, grid.cell, slack):
            break
        mesh = without_phantoms(grid.surface(values, slack, posed.alpha.dtype), posed)
        missing = Missing(mesh, posed)
        if first.explained_by(missing):
            return mesh, found, grid
    return None


def _half(alpha: torch.Tensor) -> float:
    """Return the largest half diagonal of the silhouettes' boxes, in pixels."""
    filled = alpha >= 0.5
    most = 0.0
    for rows, columns in zip(filled.any(-1), filled.any(-2), strict=True):
        y, x = rows.nonzero(), columns.nonzero()
        if len(y):
            most = max(most, 0.5 * math.hypot(float(y[-1] - y[0]) + 1, float(x[-1] - x[0]) + 1))
    return most


def without_phantoms(mesh: Mesh, posed: PosedImages) -> Mesh:
    """Return the mesh without the parts that no silhouette needs, the smallest first."""
    label = parts(mesh)
    count = int(label.max()) + 1 if len(label) else 0
    if count < 2:
        return mesh
    a, b, c = mesh.vertices.double()[mesh.faces].unbind(1)
    six = (a * torch.linalg.cross(b, c)).sum(-1)
    volume = torch.zeros(count, dtype=torch.float64).index_add(0, label[mesh.faces[:, 0]], six)
    order = volume.argsort().tolist()
    kept = torch.ones(count, dtype=torch.bool)
    if count > _PARTS:  # dust
        kept[order[:-_PARTS]] = False
        order = order[-_PARTS:]
    masks = {}
    for part in order:
        masks[part] = covered(_of_faces(mesh, label[mesh.faces[:, 0]] == part), posed)
    cover = torch.stack([mask.to(torch.int16) for mask in masks.values()]).sum(0)
    target = posed.alpha >= 0.5
    for part in order:  # the largest, too: of equal parts rounding says which is asked last
        alone = int((masks[part] & target & (cover == 1)).sum())
        if alone <= _NEEDED * int(masks[part].sum()) and int(kept.sum()) > 1:
            kept[part] = False
            cover -= masks[part].to(cover.dtype)
    if bool(kept.all()):
        return mesh
    return _of_faces(mesh, kept[label[mesh.faces[:, 0]]])


def _of_faces(mesh: Mesh, chosen: torch.Tensor) -> Mesh:
    used, number_ = torch.unique(mesh.faces[chosen], return_inverse=True)
    return Mesh(mesh.vertices[used], number_)


def parts(mesh: Mesh) -> torch.Tensor:
    """Number the connected parts of a mesh: (V,), from 0, in the order of their first vertices."""
    import scipy.sparse.csgraph

    edges = mesh.edges.numpy()
    graph = scipy.sparse.coo_matrix((np.ones(len(edges)), edges.T), shape=(mesh.num_vertices,) * 2)
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return torch.from_numpy(label.astype(np.int64))
