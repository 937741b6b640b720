# SPDX-License-Identifier: Apache-2.0
"""What stands between torch and every kernel: checks of what is handed over, and the derivatives that are refused.

A kernel is given plain pointers. `torch.ops.geodiff` lies open (torch.compile and torch.export hand it out), so shapes,
dtypes and numbers are checked here, whoever calls; indices are, in each op, by the functions at the end.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from geodiff.modes import is_transformed, may_be_transformed, refuse_transforms
from geodiff.validation import fail, shape_text

_KINDS = {"int32": torch.int32, "int64": torch.int64, "float64": torch.float64, "bool": torch.bool}
_MOST = 2**31 - 1
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

    def checked(self, op: str, tensor: torch.Tensor, real: torch.dtype, sizes: dict[str, int]) -> torch.Tensor:
        if not tensor.is_cpu:
            raise fail(op, self.name, "on the CPU", str(tensor.device), "Use .cpu().", RuntimeError)
        kind = self.kind or real
        if tensor.dtype != kind or kind not in (self.kind, torch.float32, torch.float64):
            expected = f"of dtype {str(kind).removeprefix('torch.')}" if kind != tensor.dtype else "float32 or float64"
            raise fail(op, self.name, expected, tensor, error=TypeError)
        shape = tensor.shape
        if not (self.shape == ["*"] or (self.may_be_empty and tensor.numel() == 0)):
            fits = len(shape) == len(self.shape)
            for size, wanted in zip(shape, self.shape, strict=False):
                if isinstance(wanted, str):
                    wanted = size if wanted == "_" else sizes.setdefault(wanted, size)
                fits = fits and size == wanted
            if not fits:
                text = shape_text(self.shape)
                known = ", ".join(f"{w} = {sizes[w]}" for w in self.shape if isinstance(w, str) and w in sizes)
                raise fail(op, self.name, f"of shape {text}" + (f" with {known}" if known else ""), tensor)
        tensor = tensor.detach() if tensor.requires_grad else tensor
        return tensor if tensor.is_contiguous() else tensor.contiguous()


def implement(
    library: torch.library.Library,
    op: str,
    kernel: Callable[..., Any],
    shapes: dict[str, str],
    numbers: dict[str, tuple[float, float, str]] | None = None,
) -> None:
    """Give ``geodiff::<op>`` its kernel, behind the checks.

    Args:
        library: where the op was defined.
        op: its name.
        kernel: called with the op's arguments, tensors contiguous and detached.
        shapes: what each tensor must be, see `_Tensor`; the first one without a dtype sets the floating dtype. They are
            checked in this order, which must put the one that sets a size first.
        numbers: of this op alone, as `NUMBERS`.
    """
    schema = getattr(torch.ops.geodiff, op).default._schema.arguments
    names = [argument.name for argument in schema]
    scalar = [argument.name for argument in schema if str(argument.type) in ("int", "float")]
    known = {name: limit for name, limit in NUMBERS.items() if name in scalar} | (numbers or {})
    tensors = [_Tensor(name, names.index(name), text) for name, text in shapes.items()]
    real = next(tensor.place for tensor in tensors if tensor.kind is None)
    limits = [(names.index(name), name, *limit) for name, limit in known.items()]
    integers = [(i, argument.name) for i, argument in enumerate(schema) if str(argument.type) == "int"]
    image = [names.index(name) for name in ("height", "width", "k") if name in scalar]

    def call(*arguments: Any) -> Any:
        given = list(arguments)
        for place, name, least, most, text in limits:
            if not least <= given[place] <= most:  # not so for NaN, too
                raise fail(op, name, text, str(given[place]))
        if image and math.prod(given[place] for place in image) > _MOST:
            raise fail(op, "height", "such that an image has fewer than 2³¹ entries", str(given[image[0]]))
        sizes = {name: given[place] for place, name in integers}
        for tensor in tensors:
            value = given[tensor.place]
            if value is not None:
                given[tensor.place] = tensor.checked(op, value, given[real].dtype, sizes)
        return kernel(*given)

    library.impl(op, call, "CPU")
    refuse_vmap(library, op)


def autograd(
    library: torch.library.Library,
    op: str,
    backward: Callable[..., Any],
    setup_context: Callable[..., Any] | None = None,
) -> None:
    """Give ``geodiff::<op>`` its gradient, as `torch.library.register_autograd`, and no zeros where it has none.

    That function's kernel takes what has a tangent for a constant, and what torch.func wraps for a riddle.
    """
    torch.library.register_autograd(
        f"geodiff::{op}",
        backward,
        setup_context=setup_context,
        lib=_Guarded(library),
    )


class _Guarded:
    """A library whose kernels for autograd refuse forward mode and torch.func."""

    def __init__(self, library: torch.library.Library) -> None:
        self.library = library

    def impl(self, op: str, kernel: Callable[..., Any], key: str, with_keyset: bool) -> None:
        """Implement an op as `torch.library.Library.impl`."""

        def guarded(keys: Any, *arguments: Any) -> Any:
            if may_be_transformed():
                tensors = [argument for argument in arguments if isinstance(argument, torch.Tensor)]
                refuse_transforms(f"geodiff::{op}", advice(op), *tensors)
            return kernel(keys, *arguments)

        self.library.impl(op, guarded, key, with_keyset=with_keyset)


def advice(op: str) -> str:
    """What to use where an op cannot be differentiated so."""
    base = op.removesuffix("_backward").removeprefix("transport_")
    name = "spline or spline_grid" if base == "spline" else base
    ways = "torch.autograd.grad or .backward()"
    return f"Take gradients with {ways}, or use geodiff.reference.{name} (Renderer: backend='reference')."


def refuse_vmap(library: torch.library.Library, op: str) -> None:
    """Make it an error of ours to map ``geodiff::<op>`` with torch.func.vmap."""

    def refuse(*_: Any, **__: Any) -> None:
        text = "Leading axes are a batch: pass the whole of it at once, or loop over its items"
        raise RuntimeError(f"geodiff::{op} does not take part in torch.func.vmap. {text}.")

    library.impl(op, refuse, "FuncTorchBatched")


def for_twin(*tensors: torch.Tensor) -> bool:
    """Whether the twin computes: tensors that are not on the CPU, of forward mode, or of torch.func."""
    if not all(tensor.is_cpu for tensor in tensors):
        return True
    return may_be_transformed() and any(is_transformed(tensor) for tensor in tensors)


def int32(index: torch.Tensor) -> torch.Tensor:
    """Return indices as the contiguous int32 that kernels read; those beyond its range stay out of every range."""
    if index.dtype == torch.int64:
        index = index.clamp(-1, _MOST)
    return index.to(torch.int32).contiguous()


def check_range(op: str, name: str, index: torch.Tensor, count: int, what: str, least: int = 0) -> None:
    """Raise where an index is not in [least, count)."""
    if not index.numel():
        return
    low, high = (int(end) for end in index.aminmax())
    if low < least or high >= count:
        raise fail(op, name, f"in [{least}, {count})", f"from {low} to {high}", f"It names {what}.")


def check_of_image(op: str, name: str, index: torch.Tensor, counts: Sequence[int], least: int = -1) -> None:
    """Raise where an index `(B, …)` is not in [least, count) of its image."""
    if not index.numel():
        return
    low, high = torch.aminmax(index.reshape(len(counts), -1), dim=1)
    for image, (first, last, count) in enumerate(zip(low.tolist(), high.tolist(), counts, strict=True)):
        if first < least or last >= count:
            got = f"from {first} to {last} in image {image}"
            raise fail(op, name, f"in [{least}, {count})", got, "It names faces of the image.")
