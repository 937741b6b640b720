# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of long jobs: written whole or not at all, and refused where they are damaged or of another job.

A file is a line ``geodiff checkpoint VERSION SHA256``, a line of JSON, and the bytes of the tensors. The digest is of
all that follows the first line. Nothing is unpickled, so a file of a stranger's can at worst be refused.
"""

import contextlib
import hashlib
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from geodiff.validation import fail

VERSION = 2
FRESH = "Start afresh with resume=False (--fresh), or choose another output folder."
_MAGIC = b"geodiff checkpoint "
_DTYPES = {str(t).removeprefix("torch."): t for t in (torch.float32, torch.float64, torch.int64, torch.bool)}


@dataclass(frozen=True)
class Like:
    """What a tensor of a checkpoint must be.

    Attributes:
        dtype: its dtype.
        shape: sizes, or names of sizes that are free but the same wherever the name comes again.
        finite: whether NaN and infinity are damage.
    """

    dtype: torch.dtype
    shape: tuple[int | str, ...]
    finite: bool = True

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "Like":
        """Return what another tensor of its dtype and shape must be."""
        return cls(tensor.dtype, tuple(tensor.shape))


@dataclass(frozen=True)
class Number:
    """What a number of a checkpoint must be: in [low, high]; an integer if both bounds are; or None where allowed."""

    low: float
    high: float
    none: bool = False


FINITE = Number(-sys.float_info.max, sys.float_info.max)


@dataclass(frozen=True)
class Many:
    """A list of a checkpoint, of ``size`` things alike, a number or the name of a size; None: any number of them."""

    each: Any
    size: int | str | None = None


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
        state: tensors, numbers, text and None, in dictionaries with names as keys and in lists.

    Raises:
        OSError: the file cannot be written.
    """
    # One fixed name: what a killed job left half-written is overwritten by the job that resumes it.
    part = _part(path)
    tensors: list[memoryview] = []
    text = json.dumps({"job": job, "inputs": inputs, "state": _packed(state, tensors)}).encode() + b"\n"
    digest = hashlib.sha256(text)
    for data in tensors:
        digest.update(data)
    try:
        with part.open("wb") as file:
            file.write(b"%s%d %s\n" % (_MAGIC, VERSION, digest.hexdigest().encode()))
            file.write(text)
            for data in tensors:
                file.write(data)
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        fix = "The checkpoint before it, if any, is whole: mend that and give the same command again."
        raise fail(job, "output", "a folder that can be written to", f"{path} ({error})", fix, OSError) from error


def remove_checkpoint(path: pathlib.Path) -> None:
    """Remove a checkpoint, and what a killed job left half-written of one; neither need exist."""
    path.unlink(missing_ok=True)
    _part(path).unlink(missing_ok=True)


def _part(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f".{path.name}.part")


def load_checkpoint(
    path: pathlib.Path, job: str, inputs: dict[str, Any], like: Any, former: Mapping[str, str] | None = None
) -> dict[str, Any] | None:
    """Read a checkpoint's state; None where there is no such file.

    Args:
        path: the file.
        job: the name of the task.
        inputs: as for `save_checkpoint`.
        like: what the state must be: a tree of the same form with `Like`, `Number` and `Many` for its values.
        former: old names of inputs, and the new ones: checkpoints of releases before are read.

    Raises:
        ValueError: the file is damaged, no checkpoint of this job, or of other inputs; says which.
        OSError: the file cannot be read.
    """
    if not path.exists():
        return None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise fail(job, "resume", "given a readable checkpoint", f"{path} ({error})", FRESH, OSError) from error
    try:
        content = read_checkpoint(data)
        if content["job"] != job:
            raise _Damage(f"of the job {content['job']}")
    except _Damage as damage:
        raise _refused(job, path, str(damage)) from None
    theirs = {(former or {}).get(name, name): value for name, value in content["inputs"].items()}
    changed = [
        f"{name} {theirs.get(name)!r} (now {value!r})"
        if not str(name).endswith("fingerprint")
        else f"other {name.removesuffix('_fingerprint')}"
        for name, value in json.loads(json.dumps(inputs)).items()
        if theirs.get(name) != value
    ]
    if changed:
        raise fail(job, "resume", "given a checkpoint of the same job", f"{path} made with {', '.join(changed)}", FRESH)
    state: dict[str, Any] = content["state"]
    try:
        _compare(state, like, "state", {})
    except _Damage as damage:
        raise _refused(job, path, str(damage)) from None
    return state


def _refused(job: str, path: pathlib.Path, reason: str) -> Exception:
    return fail(job, "resume", f"given a sound checkpoint of {job}", f"{path}, which is {reason}", FRESH)


class Checkpoint:
    """The checkpoint of a job in its output folder; without a folder, there is none, and nothing is done.

    Args:
        folder: of the job, or None.
        job: the name of the task.
        inputs: as for `save_checkpoint`.
        seconds: between checkpoints, at least; 0: whenever asked for; None: none are written.
        former: as for `load_checkpoint`.
    """

    def __init__(
        self,
        folder: pathlib.Path | None,
        job: str,
        inputs: dict[str, Any],
        seconds: float | None,
        former: Mapping[str, str] | None = None,
    ) -> None:
        self.path = None if folder is None else folder / "checkpoint.pt"
        self.job, self.inputs, self.former = job, inputs, former
        self.seconds = math.inf if seconds is None else seconds
        self._saved, self._took = time.monotonic(), 0.0

    def load(self, wanted: bool, like: Any) -> dict[str, Any] | None:
        """Return the state to go on from, None where there is none; or remove it where a fresh start is wanted."""
        if self.path is None:
            return None
        if wanted:
            return load_checkpoint(self.path, self.job, self.inputs, like, self.former)
        remove_checkpoint(self.path)
        return None

    def due(self) -> bool:
        """Return whether it is time to save one."""
        # Large ones come less often: they take no more than a tenth of the job's time.
        pause = max(self.seconds, 10 * self._took) if self.seconds else 0.0
        return self.path is not None and time.monotonic() - self._saved >= pause

    def save(self, state: Callable[[], dict[str, Any]], now: bool = False) -> None:
        """Write what ``state()`` returns, if it is time to, or at once."""
        if self.path is None or self.seconds == math.inf:
            return
        if now or self.due():
            begin = time.monotonic()
            save_checkpoint(self.path, self.job, self.inputs, state())
            self._saved = time.monotonic()
            self._took = self._saved - begin

    def remove(self) -> None:
        """Remove it, when the job is done."""
        if self.path is not None:
            remove_checkpoint(self.path)


class _Damage(ValueError):
    """Says what is wrong with a file, after "which is"."""


def read_checkpoint(data: bytes) -> dict[str, Any]:
    """Return job, inputs and state of a checkpoint's bytes.

    Raises:
        ValueError: they are damaged, or something else; says what they are.
    """
    head, newline, body = data.partition(b"\n")
    parts = head[:128].removeprefix(_MAGIC).split()
    if not (newline and head.startswith(_MAGIC) and len(parts) == 2):
        if _MAGIC in data[:4096]:  # within the pickle of an earlier release, or behind bytes that do not belong there
            raise _Damage("of an older version of geodiff, or damaged")
        raise _Damage("something else, or damaged in its first line")
    if parts[0] != str(VERSION).encode():
        raise _Damage(f"of another version ({parts[0].decode(errors='replace')[:20]}, this release has {VERSION})")
    if hashlib.sha256(body).hexdigest().encode() != parts[1]:
        raise _Damage("damaged: its checksum is another")
    # From here on the file is what its author wrote; who that was is not known.
    line, _, rest = body.partition(b"\n")
    try:
        content = json.loads(line)
        if not isinstance(content, dict) or set(content) != {"job", "inputs", "state"}:
            raise _Damage("without job, inputs and state")
        if not isinstance(content["job"], str) or not isinstance(content["inputs"], dict):
            raise _Damage("without job and inputs")
        content["state"] = _unpacked(content["state"], rest)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise _Damage(str(error) if isinstance(error, _Damage) else "damaged in its second line") from None
    return content


def _packed(value: Any, tensors: list[memoryview]) -> Any:
    """Return what JSON holds for a value; tensors are appended to the list, and noted by their place."""
    if isinstance(value, torch.Tensor):
        array = value.detach().cpu().contiguous().numpy()
        at = sum(one.nbytes for one in tensors)
        tensors.append(array.reshape(-1).view(np.uint8).data)
        return {"tensor": [str(value.dtype).removeprefix("torch."), list(value.shape), at]}
    if isinstance(value, Mapping):
        return {name: _packed(one, tensors) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_packed(one, tensors) for one in value]
    return value


def _unpacked(value: Any, data: bytes) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, data) for one in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {"tensor"}:
        return {name: _unpacked(one, data) for name, one in value.items()}
    name, shape, at = value["tensor"]
    if name not in _DTYPES or not all(type(n) is int and n >= 0 for n in [*shape, at]):
        raise _Damage("without sizes of its tensors")
    dtype = torch.empty((), dtype=_DTYPES[name]).numpy().dtype
    count = math.prod(shape)
    if at + count * dtype.itemsize > len(data):
        raise _Damage("shorter than its tensors")
    # Copied, since bytes cannot be written to.
    return torch.from_numpy(np.frombuffer(data, dtype, count, at).reshape(shape).copy())


def _compare(value: Any, like: Any, name: str, sizes: dict[str, int]) -> None:
    """Raise where a value is not what it must be; ``sizes`` are of the names seen so far."""
    if isinstance(like, dict):
        if not isinstance(value, dict) or set(value) != set(like):
            has = sorted(set(like) ^ set(value)) if isinstance(value, dict) else [name]
            raise _Damage(f"of another version, or damaged: {name} lacks {', '.join(has)}, or has it in excess")
        for own, one in like.items():
            _compare(value[own], one, own, sizes)
    elif isinstance(like, Many):
        if not isinstance(value, list):
            raise _Damage(f"damaged: {name} is no list")
        if like.size is not None:
            _size(len(value), like.size, name, sizes)
        for one in value:
            _compare(one, like.each, name, dict(sizes))  # names within one thing are its own
    elif isinstance(like, Number):
        if value is None and like.none:
            return
        whole = isinstance(like.low, int) and isinstance(like.high, int)
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            raise _Damage(f"damaged: {name} is no number")
        if not like.low <= value <= like.high:
            raise _Damage(f"damaged: {name} is {value}")
    elif isinstance(like, Like):
        if not isinstance(value, torch.Tensor) or value.dtype != like.dtype or value.dim() != len(like.shape):
            raise _Damage(f"damaged: {name} is of another kind")
        for size, wanted in zip(value.shape, like.shape, strict=True):
            _size(size, wanted, name, sizes)
        if like.finite and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise _Damage(f"damaged: {name} is not finite")
    elif like is str:
        if not isinstance(value, str):
            raise _Damage(f"damaged: {name} is no text")
    else:
        raise AssertionError(like)


def _size(size: int, wanted: int | str, name: str, sizes: dict[str, int]) -> None:
    if size != (wanted if isinstance(wanted, int) else sizes.setdefault(wanted, size)):
        raise _Damage(f"damaged: {name} has {size} of {wanted}")
