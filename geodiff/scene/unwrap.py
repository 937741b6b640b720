# SPDX-License-Identifier: Apache-2.0
"""Texture coordinates for a mesh that has none: cut into charts, flattened, and packed into a square (xatlas)."""

import math
from typing import TYPE_CHECKING

import torch

from geodiff.validation import fail, integer

if TYPE_CHECKING:
    from geodiff.scene.mesh import Mesh

_WHERE = "Mesh.unwrapped"


def unwrapped(mesh: "Mesh", size: int = 512, padding: int = 2) -> "Mesh":
    """Return a mesh with texture coordinates: cut into charts, flattened, and packed into the unit square.

    By xatlas (``pip install "geodiff[texture]"``). Charts keep lengths to about 1.3 times and lie apart; vertices are
    cut apart in ``uv`` alone.

    Args:
        mesh: of vertices (V, 3).
        size: of the texture a side that it is for, texels in [16, 16384].
        padding: texels between charts, in [0, size / 8]; about so many.

    Raises:
        ValueError: several meshes in one, no faces, or more charts than so small a texture holds.
        ImportError: xatlas is not installed.
    """
    integer(_WHERE, "size", size, 16, 16384)
    integer(_WHERE, "padding", padding, 0, size // 8)
    if mesh.vertices.dim() != 2:
        raise fail(_WHERE, "mesh", "one mesh of vertices (V, 3)", mesh.vertices, "Take mesh[i].")
    try:
        import xatlas
    except ImportError:
        fix = 'Install it with: pip install "geodiff[texture]"'
        raise fail(_WHERE, "xatlas", "installed", "none", fix, ImportError) from None
    if not mesh.num_faces:
        raise fail(_WHERE, "mesh", "of one or more faces", "none")
    # In a unit of its own: xatlas takes areas in float32, and those of a small mesh for none.
    points = mesh.vertices.detach().to("cpu", torch.float64)
    low, high = points[mesh.faces.cpu().unique()].aminmax(dim=0)
    extent = float((high - low).max())
    if not extent > 0:
        raise fail(_WHERE, "mesh", "of an extent above 0", f"{extent:g}")
    points = ((points - low) / extent).float()
    area = float(mesh.detach().to("cpu").with_vertices(points).face_areas.double().sum())
    if not area > 0:
        raise fail(_WHERE, "mesh", "of an area above 0", "faces that all have none")
    atlas = xatlas.Atlas()
    atlas.add_mesh(points.numpy(), mesh.faces.cpu().to(torch.int32).numpy().astype("uint32"))
    pack = xatlas.PackOptions()
    pack.padding, pack.bilinear = padding, True
    # With a resolution given, xatlas takes several squares where one is too small. So as many texels to a length that
    # about all fits, and the rest by scaling; again with fewer where that would leave too little between the charts.
    density = 0.7 * size / math.sqrt(max(area, 1e-12))
    for _ in range(8):
        pack.texels_per_unit = density
        atlas.generate(pack_options=pack)
        fits = size / max(atlas.width, atlas.height)
        if fits > 0.75:
            break
        density *= 0.95 * fits
    else:
        fix = "Make it larger, or the padding smaller: meshes of loose triangles have a chart for each."
        raise fail(_WHERE, "size", f"large enough for {atlas.chart_count} charts", str(size), fix)
    _, corners, uv = atlas[0]
    scale = torch.tensor([atlas.width, atlas.height], dtype=torch.float64) * fits / size
    coordinates = torch.from_numpy(uv).double() * scale
    return mesh.with_attributes(
        uv=coordinates.to(mesh.dtype).to(mesh.device),
        uv_faces=torch.from_numpy(corners.astype("int64")).to(mesh.device),
        texture=None,
    )
