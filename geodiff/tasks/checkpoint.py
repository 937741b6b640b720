# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of long jobs: written whole or not at all, and refused where they belong to another job."""

import contextlib
import hashlib
import os
import pathlib
from collections.abc import Iterable
from typing import Any

import torch

from geodiff.validation import fail

FORMAT = "geodiff checkpoint 1"


def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """Return a digest of what a job reads, so that a checkpoint is not resumed on other data."""
    digest = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_checkpoint(path: pathlib.Path, job: str, inputs: dict[str, Any], state: dict[str, Any]) -> None:
    """Write a checkpoint; a kill at any moment leaves the one before.

    Args:
        path: the file to replace.
        job: the name of the task.
        inputs: plain values that must be the same when it is resumed: settings, fingerprint of the data.
        state: tensors and plain values.

    Raises:
        OSError: the file cannot be written.
    """
    # One fixed name: what a killed job left half-written is overwritten by the job that resumes it.
    part = _part(path)
    try:
        torch.save({"format": FORMAT, "job": job, "inputs": inputs, "state": state}, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError for a full disk
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise fail(job, "output", "a folder that can be written to", f"{path} ({error})", error=OSError) from error


def remove_checkpoint(path: pathlib.Path) -> None:
    """Remove a checkpoint, and what a killed job left half-written of one; neither need exist."""
    path.unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


def _part(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.part")


def load_checkpoint(path: pathlib.Path, job: str, inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint's state; None where there is no such file.

    Raises:
        ValueError: the file is damaged, no checkpoint of this job, or of other inputs; says which.
    """
    if not path.exists():
        return None
    fresh = "Start afresh with resume=False (--fresh), or choose another output folder."
    try:
        content = torch.load(path, weights_only=True)
    # Foreign bytes make the unpickler raise whatever it stumbles over.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise fail(job, "resume", "given a readable checkpoint", f"{path} ({reason})", fresh) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("job") != job:
        raise fail(job, "resume", f"given a checkpoint of {job}", f"{path}, which is something else", fresh)
    changed = [
        f"{name} {content['inputs'].get(name)!r} (now {value!r})"
        if not str(name).endswith("fingerprint")
        else f"other {name.removesuffix('_fingerprint')}"
        for name, value in inputs.items()
        if content["inputs"].get(name) != value
    ]
    if changed:
        raise fail(job, "resume", "given a checkpoint of the same job", f"{path} made with {', '.join(changed)}", fresh)
    state: dict[str, Any] = content["state"]
    return state
