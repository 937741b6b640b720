# SPDX-License-Identifier: Apache-2.0
"""The modes of torch that geodiff computes in, whatever the caller's.

Outside of autocast; and what it keeps, neither in inference mode nor with a graph.
"""

import contextlib
import copy
import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

import torch
from torch.autograd import forward_ad

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

_DEVICES = ("cpu", "cuda")


def _in_autocast() -> bool:
    return torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")


def _without_autocast(function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    follow = torch.is_grad_enabled() and not torch.compiler.is_compiling()
    first = _next_number() if follow else 0
    with torch.autocast("cpu", enabled=False):
        if torch.is_autocast_enabled("cuda"):
            with torch.autocast("cuda", enabled=False):
                result = function(*arguments, **named)
        else:
            result = function(*arguments, **named)
    if follow:
        _also_backward(result, first)
    return result


def _next_number() -> int:
    """A number that the nodes of autograd made from now on, in this thread, exceed."""
    probe = torch.zeros((), requires_grad=True).clone().grad_fn
    assert probe is not None
    return int(probe._sequence_nr())


def _also_backward(result: Any, first: int) -> None:
    """Let the nodes made since `first` that a result depends on run outside of autocast, should backward be inside."""
    nodes = [tensor.grad_fn for tensor in _tensors(result, 3)]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen or not first < node._sequence_nr() < 2**63:  # leaves have the largest number
            continue
        seen.add(node)
        nodes.extend(following for following, _ in node.next_functions)
        states: list[list[bool]] = []

        def before(_: Any, states: list[list[bool]] = states) -> None:
            states.append([torch.is_autocast_enabled(device) for device in _DEVICES])
            for device in _DEVICES:
                torch.set_autocast_enabled(device, False)

        def after(_: Any, __: Any, states: list[list[bool]] = states) -> None:
            for device, state in zip(_DEVICES, states.pop(), strict=True):
                torch.set_autocast_enabled(device, state)

        node.register_prehook(before)
        node.register_hook(after)


def _tensors(value: Any, depth: int) -> Iterator[torch.Tensor]:
    """All tensors in a result: itself, and those in containers and objects."""
    if isinstance(value, torch.Tensor):
        yield value
        return
    parts: Iterable[Any] = ()
    if isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    elif type(value).__module__.startswith("geodiff."):
        parts = vars(value).values() if hasattr(value, "__dict__") else ()
    for part in parts if depth else ():
        yield from _tensors(part, depth - 1)


def outside_autocast(entry: F) -> F:
    """Decorate a public function, or a class for all of its public methods and properties: they ignore autocast.

    Positions, distances and costs need their digits: in bfloat16 a projected vertex is off by a pixel. So what a user
    calls inside of ``torch.autocast`` gives the bits that it gives outside.
    """
    if not isinstance(entry, type):
        return _wrapped(entry)  # type: ignore[return-value]
    for name, value in list(vars(entry).items()):
        if name.startswith("_") and name not in ("__init__", "__post_init__", "__call__", "__getitem__"):
            continue
        if isinstance(value, types.FunctionType):
            setattr(entry, name, _wrapped(value))
        elif isinstance(value, classmethod | staticmethod):
            setattr(entry, name, type(value)(_wrapped(value.__func__)))
        elif isinstance(value, property) and value.fget:
            setattr(entry, name, property(_wrapped(value.fget), value.fset, value.fdel, value.__doc__))
    return entry


def _wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    entered, outside = _in_autocast, _without_autocast

    def call(*arguments: Any, **named: Any) -> Any:
        if not entered():
            return function(*arguments, **named)
        return outside(function, arguments, named)

    # With the globals of the original: doctest and others ask them where a function is from.
    known = types.FunctionType(call.__code__, function.__globals__, function.__name__, None, call.__closure__)
    return functools.wraps(function)(known)


def with_gradients(entry: F) -> F:
    """Decorate a public function that descends by gradients of its own: it has them in no_grad and inference mode, too.

    Otherwise it would take no step there, and call its start the result. Inference tensors are copied.
    """
    within = _with_gradients

    def call(*arguments: Any, **named: Any) -> Any:
        return within(entry, arguments, named)

    known = types.FunctionType(call.__code__, entry.__globals__, entry.__name__, None, call.__closure__)
    return functools.wraps(entry)(known)  # type: ignore[return-value]


def _with_gradients(function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    def ordinary(value: Any) -> Any:
        return copy.deepcopy(value) if any(tensor.is_inference() for tensor in _tensors(value, 3)) else value

    with torch.inference_mode(False), torch.enable_grad():
        return function(*map(ordinary, arguments), **{name: ordinary(value) for name, value in named.items()})


def is_transformed(tensor: torch.Tensor) -> bool:
    """Whether a tensor carries a forward-mode tangent, or is one of torch.func's within grad, jvp or vmap."""
    if not may_be_transformed():
        return False
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor) or forward_ad.unpack_dual(tensor).tangent is not None


def may_be_transformed() -> bool:
    """Whether forward mode or torch.func are at work at all: a quick look before tensors are looked at."""
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or getattr(forward_ad, "_current_level", 0) >= 0


def is_plain(values: Iterable[Any]) -> bool:
    """Whether torch's dispatcher has nothing to say: nobody traces, transforms or watches, and tensors are its own."""
    if (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or getattr(forward_ad, "_current_level", 0) >= 0
        or torch._C._len_torch_dispatch_stack()
        or torch._C._len_torch_function_stack()
        or torch._C._get_tracing_state() is not None
        or torch.autograd._profiler_enabled()
    ):
        return False
    for value in values:
        kind = type(value)
        if kind is not torch.Tensor and kind is not torch.nn.Parameter and isinstance(value, torch.Tensor):
            return False
    return True


def refuse_transforms(where: str, fix: str, *values: Any) -> None:
    """Raise where an argument takes part in forward mode or in torch.func: the result would be a constant to them."""
    if any(isinstance(value, torch.Tensor) and is_transformed(value) for value in values):
        raise RuntimeError(f"{where} has no forward-mode derivative, and does not take part in torch.func. {fix}")


def refuse_torch_func(where: str, *values: Any) -> None:
    """Raise where an argument takes part in torch.func: what follows leaves torch for a while."""
    wrapped = torch._C._functorch.is_functorch_wrapped_tensor
    if any(isinstance(value, torch.Tensor) and wrapped(value) for value in values):
        fix = "Take gradients with torch.autograd.grad or .backward(), tangents with torch.autograd.forward_ad."
        raise RuntimeError(f"{where} does not take part in torch.func. {fix}")


@contextlib.contextmanager
def lasting() -> Iterator[None]:
    """Compute what will be kept: tensors of no inference mode, without a graph, the same in autocast and outside."""
    with torch.inference_mode(False), torch.no_grad(), contextlib.ExitStack() as stack:
        for device in _DEVICES:
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield


def kept(value: T) -> T:
    """Return a value that may be kept: inference tensors in it, also in tuples, are copied to ordinary ones."""
    if isinstance(value, torch.Tensor) and not torch.compiler.is_compiling() and value.is_inference():
        with torch.inference_mode(False):
            return value.clone()  # type: ignore[return-value]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(kept(part) for part in value)  # type: ignore[return-value]
    return value


def constant_in_graphs(function: F) -> F:
    """Decorate as `torch.compiler.assume_constant_result`, which would import all of torch.compile to set this mark."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class cached(Generic[T]):
    """A property that is computed once, as `functools.cached_property`, in `lasting` mode and without a lock.

    While torch.compile traces, it is computed there and then with the object's own tensors, whose sizes the graph need
    not know, and enters the graph as any other tensor of the object does.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self.compute, self.name = compute, f"_kept_{compute.__name__}"
        self.__doc__ = compute.__doc__
        self.__module__ = compute.__module__

    @overload
    def __get__(self, owner: None, kind: type | None = None) -> "cached[T]": ...
    @overload
    def __get__(self, owner: Any, kind: type | None = None) -> T: ...
    def __get__(self, owner: Any, kind: type | None = None) -> Any:
        """Return the value, computed if need be."""
        if owner is None:
            return self
        keep(owner, self.name, self.compute)
        return getattr(owner, self.name)

    def __set__(self, owner: Any, value: T) -> None:
        """Refuse; that there is such a method keeps an instance's own dictionary from being asked first."""
        raise AttributeError(f"{type(owner).__name__}.{self.compute.__name__} is computed, and cannot be set.")


def remembered(
    owner: Any, name: str, tensors: tuple[torch.Tensor, ...], compute: Callable[[], T], key: tuple[Any, ...] = ()
) -> T:
    """Return what follows from tensors, kept by an object until one is another tensor, or was changed in place.

    It is computed afresh where a gradient flows through it, and where torch traces or transforms.

    Args:
        owner: keeps it as its attribute `name`, the last one only.
        name: starts with an underscore, so that neither pickle nor copies keep it.
        tensors: all that it is made of.
        compute: makes it.
        key: what it depends on besides.
    """
    if not is_plain(tensors) or any(tensor.requires_grad or tensor.is_inference() for tensor in tensors):
        return compute()
    state = [len(tensors), *key, *(tensor._version for tensor in tensors)]
    found = owner.__dict__.get(name)
    if found is not None and found[1] == state and all(a is b for a, b in zip(found[0], tensors, strict=True)):
        # Torch does not count what is written through `.data` or NumPy. Of a device's tensors that is not looked for:
        # the host would wait at every call.
        if all(not now.is_cpu or torch.equal(now, before) for now, before in zip(tensors, found[2], strict=True)):
            value: T = found[3]
            return value
    with lasting():
        value = kept(compute())
        values = [tensor.clone() if tensor.is_cpu else tensor for tensor in tensors]
    owner.__dict__[name] = tensors, state, values, value
    return value


@constant_in_graphs
def keep(owner: Any, name: str, compute: Callable[[Any], Any]) -> None:
    """Let an object have an attribute, computed in `lasting` mode if it has not yet."""
    if name not in owner.__dict__:
        with lasting():
            owner.__dict__[name] = kept(compute(owner))
