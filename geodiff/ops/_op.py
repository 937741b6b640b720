# SPDX-License-Identifier: Apache-2.0
"""The one door between torch and the kernels: devices, what is handed over, autograd, and what is refused.

No other file of `ops/` looks at a device, makes an array of a tensor or registers anything with torch. A device is
served as soon as `_BACKENDS` says who runs its kernels.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import torch

from geodiff.constants import on_device
from geodiff.modes import constant_in_graphs, is_plain, is_transformed, may_be_transformed, refuse_transforms
from geodiff.native import cpu
from geodiff.native.gpu import is_emulating, schedule
from geodiff.ops._checks import Contract, as_kind
from geodiff.validation import fail, looks_at_values

if TYPE_CHECKING:
    from geodiff.native import _cpu as kernels
else:

    class _Names:
        """Kernels by name: which code that is depends on the device, and is looked up when one is called."""

        def __getattr__(self, name: str) -> str:
            return name

    kernels = _Names()

P = ParamSpec("P")
R = TypeVar("R")
library = torch.library.Library("geodiff", "FRAGMENT")
_contracts: dict[str, Contract] = {}
_direct: dict[str, tuple[Callable[..., Any], type[torch.autograd.Function] | None]] = {}


# --- devices, and what kernels are handed


def _on_cpu(name: str, arguments: dict[str, Any]) -> Any:
    if is_emulating():
        return _on_gpu(name, arguments)
    for key, value in arguments.items():
        if type(value) is torch.Tensor or isinstance(value, torch.Tensor):
            arguments[key] = value.numpy()
        elif isinstance(value, list) and value and isinstance(value[0], torch.Tensor):
            arguments[key] = [part.numpy() for part in value]
    result = getattr(cpu.extension(), name)(**arguments, threads=cpu.threads())
    return tuple(map(torch.from_numpy, result)) if isinstance(result, tuple) else result


def _on_gpu(name: str, arguments: dict[str, Any]) -> Any:
    return schedule.of(name)(**arguments)


def _on_cuda(name: str, arguments: dict[str, Any]) -> Any:
    lead: torch.Tensor = next(iter(arguments.values()))
    with torch.cuda.device(lead.device):  # of what a schedule allocates and launches, on the current stream
        return _on_gpu(name, arguments)


_BACKENDS: dict[str, Callable[[str, dict[str, Any]], Any]] = {"cpu": _on_cpu, "cuda": _on_cuda}
_OF_HOST = ("layout", "kinds", "params", "mix.sharpness", "mix_backward.sharpness")
"""Arguments, of all ops or of one, that may be on the host beside tensors of a device: few, and they decide what runs.
"""
_TABLES = ("layout", "kinds")
"""Of these, what kernels read."""


def call(kernel: Callable[P, R], *_: P.args, **arguments: P.kwargs) -> R:
    """Run a kernel with the arguments that its stub names: a tensor first, whose device counts, and all checked."""
    lead: Any = next(iter(arguments.values()))
    if not lead.is_cpu:
        for name in _TABLES:
            if name in arguments:
                arguments[name] = on_device(arguments[name], lead.device)  # type: ignore[arg-type]
    result: R = _BACKENDS[lead.device.type](kernel, arguments)  # type: ignore[arg-type]
    return result


def fits(look: str, **arguments: Any) -> bool:
    """Whether a quick look of the extension's finds indices in order; where it does not, `_indices` says why.

    Of a device's tensors only ``geodiff.checks(True)`` looks at the numbers, which waits for them.
    """
    devices = [x for x in arguments.values() if isinstance(x, torch.Tensor) and not x.is_cpu]
    if devices:
        return not looks_at_values(devices[0])
    given = {name: value.numpy() if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}
    fits: bool = getattr(cpu.extension(), look)(**given)
    return fits


def struct(kind: Callable[P, R], *_: P.args, **fields: P.kwargs) -> R:
    """Make one of the structs that kernels take, from its named fields."""
    result: R = getattr(cpu.extension(), kind)(**fields)  # type: ignore[call-overload]
    result.fields = fields  # type: ignore[attr-defined]  # for other devices' kernels
    return result


def has_kernels(device: torch.device) -> bool:
    """Whether ops run on a device of this kind, if there is one."""
    return device.type in _BACKENDS


def on_host(tensor: torch.Tensor) -> bool:
    """Whether looking at a tensor's numbers costs nothing."""
    return tensor.is_cpu


def left_there(op: str, name: str, number: Any, lead: torch.Tensor) -> tuple[Any, torch.Tensor | None]:
    """Return a factor for the host, and one that stays on the device, float64 without axes: a number's that is there.

    So nothing waits for it: what kernels do with it, they do in its unit.
    """
    if not isinstance(number, torch.Tensor) or on_host(number) or number.device != lead.device:
        return number, None
    if number.numel() != 1:
        raise fail(op, name, "a number or a tensor with one element", number, "Render once for each value.")
    return 1.0, number.reshape(()).double()


def check_devices(op: str, names: Iterable[str], tensors: Iterable[torch.Tensor | None]) -> None:
    """Raise where tensors are not on one device, or there are no kernels for it: a twin would be silently slow.

    Tables and numbers that decide what is launched may stay on the host.
    """
    for tensor in tensors:
        if tensor is not None and not tensor.is_cpu:
            break
    else:
        return  # all the same, and by far the most frequent
    first = None
    for name, tensor in zip(names, tensors, strict=True):
        if tensor is None or (tensor.is_cpu and (name in _OF_HOST or f"{op}.{name}" in _OF_HOST)):
            continue
        device = tensor.device
        if first is None:
            first, lead = device, name
            if device.type not in _BACKENDS:
                fix = f"Use .cpu(), or geodiff.reference.{_twin_of(op)}: there are no kernels for other devices yet."
                raise fail(op, name, "on the CPU or a CUDA device", str(device), fix, RuntimeError)
        elif device != first:
            raise fail(op, name, f"on {first} like {lead}", str(device), "Use .to(device).", RuntimeError)


def for_twin(op: str, **tensors: torch.Tensor) -> bool:
    """Check the devices; return whether the twin computes: tensors of forward mode, or of torch.func."""
    check_devices(op, tensors, tensors.values())
    return may_be_transformed() and any(is_transformed(tensor) for tensor in tensors.values())


def ready(op: str, *arguments: Any) -> list[Any]:
    """Return an op's arguments, tensors contiguous, indices of the dtype that kernels read."""
    given = list(arguments)
    for place, kind in _kinds(op):
        if given[place] is not None:
            given[place] = as_kind(given[place], kind)
    return given


@constant_in_graphs
def _kinds(op: str) -> tuple[tuple[int, torch.dtype | None], ...]:
    """The places of an op's tensors, and their dtypes if fixed."""
    return _contracts[op].kinds


def run(op: str, *arguments: Any) -> Any:
    """Call ``torch.ops.geodiff.<op>`` with arguments made `ready`; in plain eager mode what is behind it, at once."""
    given = ready(op, *arguments)
    if is_plain(given):
        forward, function = _direct[op]
        if not (torch.is_grad_enabled() and any([x.requires_grad for x in given if isinstance(x, torch.Tensor)])):
            return forward(*given)
        if function is not None:
            # Not by Function.apply, which looks for wrappers to be taken off.
            return super(torch.autograd.Function, function).apply(*given)  # type: ignore[misc]
    return getattr(torch.ops.geodiff, op)(*given)


def buffer(like: torch.Tensor, want: bool = True) -> torch.Tensor:
    """Return the zeros that a kernel adds a gradient to, as large as a tensor; none where it is not wanted."""
    return like.new_zeros(like.shape if want else (0,))


def unknown_size() -> Any:
    """Return a size that depends on numbers, in a fake."""
    return torch.library.get_ctx().new_dynamic_size()


def added_up(gradient: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Add up what the batch gave to an input that it shares, item after item whatever the threads."""
    if gradient.numel() == 0 or gradient.shape[0] == like.shape[0]:
        return gradient
    if not gradient.is_cpu:
        return gradient.sum(dim=0, keepdim=True)
    return torch.from_numpy(gradient.numpy().sum(axis=0, keepdims=True))


# --- registration


def register(
    op: str,
    forward: Callable[..., Any],
    fake: Callable[..., Any],
    shapes: dict[str, str],
    backward: Callable[..., Any] | None = None,
    *,
    twin: Callable[..., torch.Tensor] | None = None,
    numbers: dict[str, tuple[float, float, str]] | None = None,
    advice: str = "",
) -> None:
    """Put an op and its gradient into torch: checks, kernels, fakes, autograd, and what is refused.

    The schemas are defined before, and name what autograd needs. An argument of ``<op>_backward`` is one of the op's
    arguments or outputs, as named there; ``upstream`` is the gradient of the first output and ``up_NAME`` that of
    another, None where the loss does not look; ``wants`` says of each gradient that it returns whether it is wanted.
    What it returns is named after arguments of the op. An output without an upstream is a constant.

    Args:
        op: its name.
        forward: called with the op's arguments, checked, tensors contiguous and detached.
        fake: the outputs, empty, of the same arguments: what torch.compile sees.
        shapes: what each tensor must be, of the op and of its gradient, see `Contract`.
        backward: called with the gradient's arguments, as `forward`; None for an op without one.
        twin: of the op's arguments, the first output in plain torch: gradients that are differentiated once more are
            its own. Without it that is an error.
        numbers: of this op alone, see `Contract`.
        advice: what to use, in the errors of an op without a gradient.
    """
    direct = _implement(op, forward, fake, shapes, numbers)
    _direct[op] = direct, None
    if backward is None:
        _refuse_gradient(op, f"geodiff::{op} has no gradient. {advice}")
        return
    schema = getattr(torch.ops.geodiff, op).default._schema
    of_gradient = getattr(torch.ops.geodiff, f"{op}_backward").default._schema
    gradients = [value.name for value in of_gradient.returns]
    names = [argument.name for argument in of_gradient.arguments]
    targets = [names.index(name) for name in gradients]

    def wanted(arguments: Sequence[Any]) -> Sequence[bool]:
        if names[-1] != "wants":
            return [True] * len(gradients)
        if len(arguments[-1]) != len(gradients):
            raise fail(f"{op}_backward", "wants", f"of length {len(gradients)}", str(len(arguments[-1])))
        wants: Sequence[bool] = arguments[-1]
        return wants

    def kernel(*arguments: Any) -> Any:
        wants, found = wanted(arguments), backward(*arguments)
        if False not in wants:
            return found
        return tuple(g if want else g.new_empty(0) for g, want in zip(found, wants, strict=True))

    def fake_backward(*arguments: Any) -> Any:
        real = arguments[_contracts[f"{op}_backward"].real]
        none = real.new_empty(0)
        given = [none if arguments[place] is None else arguments[place] for place in targets]
        found = tuple(x.new_empty(x.shape if want else (0,)) for x, want in zip(given, wanted(arguments), strict=True))
        return found if len(gradients) > 1 else found[0]

    direct_backward = _implement(f"{op}_backward", kernel, fake_backward, shapes, numbers)
    base = _twin_of(op)
    text = f"For second derivatives use geodiff.reference.{base}, which is plain torch."
    _refuse_gradient(f"{op}_backward", f"geodiff::{op} is not twice differentiable. {text}")
    setup, autograd = _formula(op, schema, of_gradient, twin, direct_backward)

    def run_forward(ctx: Any, *arguments: Any) -> Any:
        output = direct(*arguments)
        setup(ctx, arguments, output)
        return output

    methods = {"forward": staticmethod(run_forward), "backward": staticmethod(autograd)}
    _direct[op] = direct, type(f"geodiff_{op}", (torch.autograd.Function,), methods)
    torch.library.register_autograd(f"geodiff::{op}", autograd, setup_context=setup, lib=_Guarded())


def _implement(
    op: str, kernel: Callable[..., Any], fake: Callable[..., Any], shapes: dict[str, str], numbers: Any
) -> Callable[..., Any]:
    """Put one op into torch, behind the checks, for all devices: those without kernels are an error of ours.

    Returns:
        The op itself, with the checks.
    """
    contract = Contract(op, getattr(torch.ops.geodiff, op).default._schema, check_devices, shapes, numbers)
    _contracts[op] = contract

    def checked(*arguments: Any) -> Any:
        return kernel(*contract.checked(arguments))

    def refuse_vmap(*_: Any, **__: Any) -> None:
        text = "Leading axes are a batch: pass the whole of it at once, or loop over its items"
        raise RuntimeError(f"geodiff::{op} does not take part in torch.func.vmap. {text}.")

    library.impl(op, checked, "CompositeExplicitAutograd")
    library.impl(op, refuse_vmap, "FuncTorchBatched")
    torch.library.register_fake(f"geodiff::{op}", fake, lib=library)
    return checked


def _formula(
    op: str,
    schema: Any,
    of_gradient: Any,
    twin: Callable[..., torch.Tensor] | None,
    direct_backward: Callable[..., Any],
) -> tuple[Callable[..., None], Callable[..., Any]]:
    """Return the two halves of an op's place in autograd, from its schemas: what is saved, and how it is used."""
    names = [argument.name for argument in schema.arguments]
    outputs = [value.name for value in schema.returns]
    needed = [argument.name for argument in of_gradient.arguments]
    gradients = [value.name for value in of_gradient.returns]
    upstreams = [name for name in needed if name == "upstream" or name.startswith("up_")]
    followed = [0 if name == "upstream" else outputs.index(name.removeprefix("up_")) for name in upstreams]
    constant = [i for i in range(len(outputs)) if i not in followed]
    # What is saved are tensors and numbers: of the op's arguments first, then of its outputs, by their places.
    pool = names + outputs
    saved = (
        [name for name in needed if name in pool] if twin is None else [*names, *(n for n in needed if n in outputs)]
    )
    is_tensor = {a.name: "Tensor" in str(a.type) for a in schema.arguments} | dict.fromkeys(outputs, True)
    tensors = [pool.index(name) for name in saved if is_tensor[name]]
    numbers = [pool.index(name) for name in saved if not is_tensor[name]]
    coming = ["" if i in constant else upstreams[followed.index(i)] for i in range(len(outputs))]
    order = [*coming, *(pool[i] for i in tensors), *(pool[i] for i in numbers), "wants"]
    places = [order.index(name) for name in needed]
    targets = [names.index(name) for name in gradients]
    backward = getattr(torch.ops.geodiff, f"{op}_backward")

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        values = (*inputs, output) if len(outputs) == 1 else (*inputs, *output)
        if constant:
            ctx.mark_non_differentiable(*(values[len(names) + i] for i in constant))
        if len(outputs) > 1:
            ctx.set_materialize_grads(False)  # no zeros for constants
        ctx.save_for_backward(*(values[i] for i in tensors))
        ctx.numbers = [values[i] for i in numbers]

    def autograd(ctx: Any, *upstream: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        if len(upstream) > 1 and all(upstream[i] is None for i in followed):
            return (None,) * len(names)
        needs = ctx.needs_input_grad
        wants = [needs[i] for i in targets]
        values = [*upstream, *ctx.saved_tensors, *ctx.numbers, wants]
        if twin is not None and torch.is_grad_enabled():
            known = dict(zip(order, values, strict=True))
            leaves = [known[name] for name, want in zip(gradients, wants, strict=True) if want]
            value = twin(*(known[name] for name in names))
            more = torch.autograd.grad(value, leaves, values[0], create_graph=True, materialize_grads=True)
            rest = iter(more)
            found: Any = [next(rest) if want else None for want in wants]
        else:
            given = [values[i] for i in places]
            # With a graph of the gradient, the op of its own says what holds for second derivatives.
            watched = torch.is_grad_enabled() or not is_plain(given)
            found = (backward if watched else direct_backward)(*given)
            found = [found] if len(gradients) == 1 else found
        result: list[torch.Tensor | None] = [None] * len(names)
        for place, gradient in zip(targets, found, strict=True):
            if needs[place]:
                result[place] = gradient
        return tuple(result)

    return setup, autograd


# --- what is refused


def _twin_of(op: str) -> str:
    base = op.removesuffix("_backward").removeprefix("transport_")
    return {"spline": "spline or spline_grid", "count_pairs": "silhouette"}.get(base, base)


def _refuse_gradient(op: str, text: str) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError(text)

    torch.library.register_autograd(f"geodiff::{op}", refuse, lib=_Guarded())


class _Guarded:
    """The library, but for kernels for autograd, which refuse forward mode and torch.func.

    Torch's own take what has a tangent for a constant, and what torch.func wraps for a riddle.
    """

    def impl(self, op: str, kernel: Callable[..., Any], key: str, with_keyset: bool) -> None:
        """Implement an op as `torch.library.Library.impl`."""
        ways = "torch.autograd.grad or .backward()"
        advice = f"Take gradients with {ways}, or use geodiff.reference.{_twin_of(op)} (Renderer: backend='reference')."

        def guarded(keys: Any, *arguments: Any) -> Any:
            if may_be_transformed():
                refuse_transforms(f"geodiff::{op}", advice, *arguments)
            return kernel(keys, *arguments)

        library.impl(op, guarded, key, with_keyset=with_keyset)
