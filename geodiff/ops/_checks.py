# SPDX-License-Identifier: Apache-2.0
"""What the kernels are given is checked here, whoever calls.

A kernel is given plain pointers, and `torch.ops.geodiff` lies open (torch.compile and torch.export hand it out).
Shapes, dtypes and numbers are checked by a `Contract`; indices are, in each op, by the functions of `_indices`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from geodiff.validation import fail, shape_text

_KINDS = {"int32": torch.int32, "int64": torch.int64, "float64": torch.float64, "bool": torch.bool}
_MOST = 2**31 - 1
_KNOWN = 256  # combinations of shapes that a contract remembers
NUMBERS: dict[str, tuple[float, float, str]] = {
    "height": (1, _MOST, "from 1 to 2³¹ − 1"),
    "width": (1, _MOST, "from 1 to 2³¹ − 1"),
    "k": (1, _MOST, "from 1 to 2³¹ − 1"),
    "near": (5e-324, math.nextafter(math.inf, 0), "positive and finite"),
    "epsilon": (5e-324, math.nextafter(math.inf, 0), "positive and finite"),
    "unit": (5e-324, math.nextafter(math.inf, 0), "positive and finite"),
    "blur": (0, math.inf, "0 or more"),
    "max_error": (0, math.nextafter(1, 0), "in [0, 1)"),
    "wrap": (0, 2, "0, 1 or 2"),
    "p": (1, 2, "1 or 2"),
}
"""What numbers of these names may be, in every op: the least, the most, and how to say it."""


class _Tensor:
    """What one argument must be: ``"int32 F 3"`` is an int32 tensor `(F, 3)`.

    Without a dtype, it is of the op's floating dtype, float32 or float64. A letter is a size that is the same wherever
    it occurs, the name of a number among the arguments that number, ``_`` any size, ``*`` any shape; ``?`` first lets
    it be empty.
    """

    def __init__(self, name: str, place: int, text: str) -> None:
        words = text.split()
        self.name, self.place = name, place
        self.may_be_empty = words[0] == "?"
        words = words[self.may_be_empty :]
        self.kind = _KINDS.get(words[0])
        self.shape = [int(w) if w.isdigit() else w for w in words[self.kind is not None :]]

    def check(self, op: str, tensor: torch.Tensor, real: torch.dtype, sizes: dict[str, int]) -> None:
        kind = self.kind or real
        if tensor.dtype != kind or kind not in (self.kind, torch.float32, torch.float64):
            expected = f"of dtype {str(kind).removeprefix('torch.')}" if kind != tensor.dtype else "float32 or float64"
            raise fail(op, self.name, expected, tensor, error=TypeError)
        shape = tensor.shape
        if self.shape == ["*"] or (self.may_be_empty and tensor.numel() == 0):
            return
        fits = len(shape) == len(self.shape)
        for size, wanted in zip(shape, self.shape, strict=False):
            if isinstance(wanted, str):
                wanted = size if wanted == "_" else sizes.setdefault(wanted, size)
            fits = fits and size == wanted
        if not fits:
            text = shape_text(self.shape)
            known = ", ".join(f"{w} = {sizes[w]}" for w in self.shape if isinstance(w, str) and w in sizes)
            raise fail(op, self.name, f"of shape {text}" + (f" with {known}" if known else ""), tensor)


class Contract:
    """What the arguments of ``geodiff::<op>`` must be.

    Args:
        op: its name.
        schema: its schema.
        check_devices: raises where tensors, whose names come first, are not on one device that has kernels.
        shapes: what each tensor must be, see `_Tensor`; the first one without a dtype sets the floating dtype. They are
            checked in this order, which must put the one that sets a size first. Others' names are passed over.
        numbers: of this op alone, as `NUMBERS`.
    """

    def __init__(
        self,
        op: str,
        schema: Any,
        check_devices: Callable[..., None],
        shapes: dict[str, str],
        numbers: dict[str, tuple[float, float, str]] | None = None,
    ) -> None:
        self.op, self.check_devices = op, check_devices
        names = [argument.name for argument in schema.arguments]
        kinds = {argument.name: str(argument.type) for argument in schema.arguments}
        limits = {name: limit for name, limit in NUMBERS.items() if kinds.get(name) in ("int", "float")}
        limits |= numbers or {}
        place = names.index
        self.limits = [(place(name), name, *limit) for name, limit in limits.items() if name in kinds]
        self.integers = [(place(name), name) for name, kind in kinds.items() if kind == "int"]
        self.image = [place(name) for name in ("height", "width", "k") if kinds.get(name) == "int"]
        self.tensors = [_Tensor(name, place(name), text) for name, text in shapes.items() if name in kinds]
        self.places = [tensor.place for tensor in self.tensors]
        self.kinds = tuple((tensor.place, tensor.kind) for tensor in self.tensors)
        self.real = next(tensor.place for tensor in self.tensors if tensor.kind is None)
        self.known: set[Any] = set()

    def checked(self, arguments: Sequence[Any]) -> list[Any]:
        """Return the arguments, tensors contiguous and detached; raise where one does not fit."""
        given = list(arguments)
        for place, name, least, most, text in self.limits:
            if not least <= given[place] <= most:  # not so for NaN, too
                raise fail(self.op, name, text, str(given[place]))
        key: list[Any] = [given[place] for place, _ in self.integers]
        for place in self.places:
            value = given[place]
            if value is None:
                key.append(None)
                continue
            key += value.shape, value.dtype, value.device
            if value.requires_grad:
                value = value.detach()
            given[place] = value if value.is_contiguous() else value.contiguous()
        signature = tuple(key)
        if signature not in self.known:
            self._check(given)
            if len(self.known) >= _KNOWN:
                self.known.clear()
            self.known.add(signature)
        return given

    def _check(self, given: Sequence[Any]) -> None:
        """Check what depends on shapes, dtypes and integers alone."""
        if self.image and math.prod(given[place] for place in self.image) > _MOST:
            raise fail(self.op, "height", "such that an image has fewer than 2³¹ entries", str(given[self.image[0]]))
        self.check_devices(self.op, [x.name for x in self.tensors], [given[x.place] for x in self.tensors])
        sizes = {name: given[place] for place, name in self.integers}
        for tensor in self.tensors:
            if given[tensor.place] is not None:
                tensor.check(self.op, given[tensor.place], given[self.real].dtype, sizes)


def as_kind(tensor: torch.Tensor, kind: torch.dtype | None) -> torch.Tensor:
    """Return a tensor as the contiguous one that kernels read; indices beyond int32 stay out of every range."""
    if kind is not None and tensor.dtype != kind:
        tensor = (tensor.clamp(-1, _MOST) if tensor.dtype == torch.int64 else tensor).to(kind)
    return tensor.contiguous()
