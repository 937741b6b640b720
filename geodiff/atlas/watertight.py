# SPDX-License-Identifier: Apache-2.0
"""A mesh through oriented points: screened Poisson reconstruction, by Open3D."""

import re
import warnings
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree

from geodiff.atlas.closing import filled, mended
from geodiff.atlas.nearest import nearest
from geodiff.atlas.poisson_worker import reconstruct
from geodiff.modes import outside_autocast
from geodiff.scene.mesh import Mesh
from geodiff.validation import fail, promote

# System libraries that Open3D's wheel expects, and the Debian and Ubuntu packages that bring them.
_PACKAGES = {
    "libusb-1.0": "libusb-1.0-0",
    "libGL.so": "libgl1",
    "libEGL.so": "libegl1",
    "libX11.so": "libx11-6",
    "libgomp": "libgomp1",
    "libtbb": "libtbb12",
    "libc++": "libc++1",
}
_ADVICE = "Without it, Atlas.to_mesh gives the charts' own mesh and Atlas.sample points with normals for another tool."


def load_open3d(where: str) -> Any:
    """Import Open3D, or say what is missing: the package, or the system library that it could not load.

    Args:
        where: the public function, for the message.

    Raises:
        ImportError: it is not installed, or a library of the system is missing.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the many packages that it imports
            import open3d
    except (ImportError, OSError) as error:
        raise ImportError(f"{where}: {_missing(error)} {_ADVICE}") from error
    return open3d


def _missing(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name == "open3d":
        return "Open3D is not installed. Install it with pip install 'geodiff[open3d]'."
    library = re.search(r"(lib[\w+.-]+\.so[\w.]*)", str(error))
    if library is None:
        return f"Open3D cannot be imported ({error}). Reinstall it with pip install 'geodiff[open3d]'."
    package = next((package for name, package in _PACKAGES.items() if library[1].startswith(name)), None)
    text = f"Open3D is installed, but the system library {library[1]} is missing"
    return f"{text}: apt-get install {package}." if package else f"{text}. Install the package that has it."


@outside_autocast
def poisson_mesh(
    points: torch.Tensor,
    normals: torch.Tensor,
    *,
    depth: int = 8,
    open_boundaries: bool = False,
    trim: float = 4.0,
    threads: int = 1,
) -> Mesh:
    """Return the surface of screened Poisson reconstruction (Kazhdan and Hoppe 2013) through oriented points.

    Args:
        points: (N, 3), N ≥ 4.
        normals: (N, 3) pointing outwards, of any length but zero.
        depth: of the octree: cells are 2^-depth of 1.1 times the cloud's extent. 1 to 14.
        open_boundaries: cut off what lies farther from all points than `trim` times their own spacing (and a cell):
            holes and borders stay open. The mesh is then not closed.
        trim: see above.
        threads: of Open3D. More than one is faster, and the last digits then change from run to run.

    Returns:
        A manifold in the dtype of `points`, off the autograd graph: duplicate faces are dropped, sheets that touch are
        parted, small holes are filled. Where Poisson's surface reaches the border of its cube, 1.1 times as large as
        the cloud, it ends there, not closed: `geodiff.atlas.closed.closed_mesh` has a way out.

    Raises:
        ImportError: Open3D is missing, or a system library that it needs; the message says which.
        ValueError: fewer than four points, wrong shapes, NaN, zero normals, depth or trim out of range, points in one
            place, or no surface.

    Example:
        ``mesh = poisson_mesh(points, normals, depth=9)``
    """
    where = "poisson_mesh"
    values = promote(where, points=points, normals=normals)
    x, n = values["points"].detach(), values["normals"].detach()
    if x.dim() != 2 or x.shape[1] != 3 or len(x) < 4:
        raise fail(where, "points", "of shape (N, 3), N ≥ 4", x)
    if n.shape != x.shape:
        raise fail(where, "normals", f"of shape {tuple(x.shape)}, one for each point", n)
    if not bool((n != 0).any(-1).all()):
        raise fail(where, "normals", "not zero", f"{int((n == 0).all(-1).sum())} zero vectors", "Drop those points.")
    if not 1 <= depth <= 14:
        raise fail(where, "depth", "from 1 to 14", str(depth), "Each step more has four times the faces.")
    if not trim > 0:
        raise fail(where, "trim", "positive", str(trim))
    corner, size = x.amin(0), float((x.amax(0) - x.amin(0)).max())
    if not size > 0:
        raise fail(where, "points", "in more than one place", "points all in one place")
    places = ((x - corner) / size).cpu().double().numpy()
    vertices, faces = poisson_faces(where, places, n.cpu().double().numpy(), depth, threads)
    if open_boundaries:
        faces = trimmed(places, vertices, faces, trim, depth)
    vertices, faces = mended(vertices, faces)
    if not open_boundaries and len(faces):
        vertices, faces = filled(vertices, faces)
    if len(faces) == 0:
        raise fail(where, "normals", "consistent enough for a surface", "no surface", "Orient them, or raise `trim`.")
    world = torch.from_numpy(vertices).to(x) * size + corner
    return Mesh(world, torch.from_numpy(faces).to(x.device))


def poisson_faces(
    where: str, places: np.ndarray, normals: np.ndarray, depth: int, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return Open3D's vertices and faces, as they are, through places (N, 3) in [0, 1]³ with normals (N, 3)."""
    return reconstruct(load_open3d(where), places, normals, depth, threads)


def trimmed(places: np.ndarray, vertices: np.ndarray, faces: np.ndarray, trim: float, depth: int) -> np.ndarray:
    """Return the faces whose vertices are all within `trim` spacings of the places next to them."""
    if not len(faces):
        return faces
    return faces[near_points(places, vertices, trim, depth)[faces].all(axis=1)]


def near_points(places: np.ndarray, queries: np.ndarray, trim: float, depth: int) -> np.ndarray:
    """Return whether queries (Q, 3) are within `trim` times the spacing of the nearest place, or of a quarter cell."""
    tree = cKDTree(places)
    gap, own = nearest(tree, queries)
    return near(tree, gap, own, trim, depth)


def near(tree: cKDTree, gap: np.ndarray, own: np.ndarray, trim: float, depth: int) -> np.ndarray:
    """Return `near_points` for what a tree of the places has told of the queries: how far (Q,) which (Q,) is."""
    return np.asarray(gap <= trim * np.maximum(_spacing(tree, own), 0.25 * 1.1 / 2**depth))


def _spacing(tree: cKDTree, rows: np.ndarray) -> np.ndarray:
    """Return the distance to the sixth neighbour over √6, an estimate of √(area a point) that suits random samples.

    Of the tree's points with these numbers (Q,), each asked about once.
    """
    k = min(7, tree.n)
    some, back = np.unique(rows, return_inverse=True)
    far = nearest(tree, np.asarray(tree.data)[some], [k])[0][:, 0]
    return np.asarray((far / np.sqrt(max(k - 1, 1)))[back.reshape(-1)])
