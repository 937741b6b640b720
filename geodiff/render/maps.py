# SPDX-License-Identifier: Apache-2.0
"""Maps of images, made of what fragments show; and the mean of several samples a pixel."""

import torch

from geodiff.render.aggregation import Found
from geodiff.render.shading import Seen
from geodiff.scene.mesh import Mesh
from geodiff.scene.mesh_batch import MeshBatch


def mixed(
    found: Found,
    seen: Seen,
    weights: torch.Tensor | None,
    shares: torch.Tensor | None,
    there: torch.Tensor | None,
    wanted: tuple[str, ...],
) -> dict[str, torch.Tensor]:
    """Return the maps (B, H, W[, C]) asked for; depth and face_id unless only rgb is.

    `weights` are those of means over the faces, `shares` those of colours, `there` (B, H, W) says where there is
    something to take the mean of; all of them are None for a hard image.

    The colours of a hard image are not among them: they meet the background at once, in `geodiff.ops.composite`.
    """
    maps: dict[str, torch.Tensor] = {}
    if found.maps is None:
        return maps
    face_id, distance, _, depth = found.fragments
    values = {"normal": seen.normal, "uv": seen.uv}
    if weights is None:
        covered = distance[..., 0] >= 0
        maps["depth"] = torch.where(covered, depth[..., 0], torch.inf)
        maps["face_id"] = torch.where(covered, face_id[..., 0], -1)
        for name, value in values.items():
            if name in wanted and value is not None:
                maps[name] = found.dense(value)[..., 0, :] * covered[..., None]
        return maps
    if "rgb" in wanted:
        assert seen.color is not None and shares is not None
        maps["rgb"] = (shares[..., None] * found.dense(seen.color)).sum(dim=-2)
    if wanted == ("rgb",):
        return maps
    assert there is not None
    maps["depth"] = torch.where(there, (weights * found.dense(found.depth)).sum(dim=-1), torch.inf)
    best = weights.detach().argmax(dim=-1, keepdim=True)
    maps["face_id"] = torch.where(there, face_id.gather(-1, best)[..., 0], -1)
    for name, value in values.items():
        if name in wanted and value is not None:
            maps[name] = (weights[..., None] * found.dense(value)).sum(dim=-2) * there[..., None]
    return maps


def needs_footprint(mesh: Mesh | MeshBatch, wanted: tuple[str, ...]) -> bool:
    """Return whether there is a texture with mip-maps to be seen."""
    meshes = [mesh] if isinstance(mesh, Mesh) else list(mesh)
    return "rgb" in wanted and any(own.texture is not None and own.texture.mipmaps for own in meshes)


def footprint(
    found: Found, clip: torch.Tensor, faces: torch.Tensor, layout: torch.Tensor, shorter: int
) -> torch.Tensor:
    """Return what twice a face's area in the texture is multiplied with for its texels a pixel, at each fragment.

    `shorter` is the shorter side of the image, in samples. A plane through the clip positions M =
    [v_1 v_2 v_3] maps pixels to barycentrics with the Jacobian w³/|det M|.
    """
    with torch.no_grad():
        start = layout[found.image]
        corners = clip[faces[found.face + start[:, 1]].long() + start[:, :1]][..., [0, 1, 3]]
        w = (found.barycentric * corners[..., 2]).sum(dim=-1)
        det = torch.linalg.det(corners).abs()
        step = 2 / shorter
        return w**3 / det.clamp(min=torch.finfo(det.dtype).tiny) * step**2


def pooled(image: torch.Tensor, supersample: int, channels: int = 0) -> torch.Tensor:
    """Average over the s·s samples of each pixel of (..., s·H, s·W[, C])."""
    if supersample == 1:
        return image
    return _samples(image, supersample, channels).mean(dim=-1)


def _samples(image: torch.Tensor, s: int, channels: int = 0) -> torch.Tensor:
    """Return (..., s·H, s·W[, C]) as (..., H, W[, C], s·s)."""
    lead, tail = image.shape[: image.dim() - 2 - channels], image.shape[image.dim() - channels :]
    height, width = image.shape[len(lead) : len(lead) + 2]
    parts = image.reshape(*lead, height // s, s, width // s, s, *tail)
    axis = len(lead)
    return parts.movedim((axis + 1, axis + 3), (-2, -1)).flatten(-2)


def pooled_maps(maps: dict[str, torch.Tensor], supersample: int) -> dict[str, torch.Tensor]:
    """Reduce depth, normal, face_id and uv to one sample a pixel."""
    if supersample == 1 or not maps:
        return maps
    depth = _samples(maps["depth"], supersample)
    there = torch.isfinite(depth)
    some = there.sum(dim=-1).clamp(min=1)
    nearest = depth.detach().argmin(dim=-1, keepdim=True)
    result = {"depth": torch.where(there, depth, 0.0).sum(dim=-1) / some}
    result["depth"] = torch.where(there.any(dim=-1), result["depth"], torch.inf)
    if "normal" in maps:
        result["normal"] = _samples(maps["normal"], supersample, 1).sum(dim=-1) / some[..., None]
    if "face_id" in maps:
        result["face_id"] = _samples(maps["face_id"], supersample).gather(-1, nearest)[..., 0]
    if "uv" in maps:
        place = nearest[..., None, :].expand(*nearest.shape[:-1], 2, 1)
        result["uv"] = _samples(maps["uv"], supersample, 1).gather(-1, place)[..., 0]
    return result
