# SPDX-License-Identifier: Apache-2.0
"""The mean of several samples a pixel."""

import torch


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
