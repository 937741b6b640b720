# SPDX-License-Identifier: Apache-2.0
"""Call `torch.ops.geodiff` with hostile arguments: an op may raise, but must neither crash nor hang.

    python tests/fuzz_ops.py --seed 0 --count 1500

Cases run in child processes, so that a crash is found and the next case goes on. A case is known by its seed and
number: ``--first N --count 1`` repeats one.
"""

import argparse
import math
import os
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

ERRORS = (ValueError, TypeError, RuntimeError, NotImplementedError)
"""What an op may raise. RuntimeError is torch's own as well: no memory, tensors on the meta device, overflow."""

INTEGERS = (-(2**63), -(2**31) - 1, -(2**31), -2, -1, 0, 1, 2, 3, 255, 2**15, 2**31 - 1, 2**31, 2**40, 2**63 - 1)
FLOATS = (0.0, -0.0, -1.0, 1e-320, 1e-300, 1e-30, 1.0, 1e30, 1e300, math.inf, -math.inf, math.nan)
INDICES = (-(2**31), -2, -1, 0, 1, 1000, 2**31 - 1)
PATIENCE = 120  # seconds that a case may take, and that a child may need to begin


def _packed(dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Two images of a strip of three faces, one of which crosses the near plane."""
    one = torch.tensor(
        [
            [-0.8, -0.7, 2.0, 1.0],
            [0.7, -0.8, 2.5, 1.0],
            [-0.6, 0.9, 3.0, 1.0],
            [0.9, 0.8, 2.0, 1.0],
            [0.3, 0.1, -1.0, 1.0],
        ],
        dtype=dtype,
    )
    faces = torch.tensor([[0, 1, 2], [2, 1, 3], [1, 4, 3]], dtype=torch.int32)
    layout = torch.tensor([[0, 0, 3], [5, 0, 2]])
    return torch.cat([one, one * torch.tensor([-1.0, 0.5, 1.0, 1.0], dtype=dtype)]), faces, layout


def bases(dtype: torch.dtype) -> dict[str, list[Any]]:
    """Sound arguments for every op: forward ones made here, backward ones of what forward returns."""
    from geodiff import reference

    ops = torch.ops.geodiff
    draw = torch.Generator().manual_seed(5)

    def some(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=draw, dtype=torch.float64).to(dtype)

    packed = _packed(dtype)
    _, faces, layout = packed
    size = (6, 9)
    images = (2, *size)
    sound: dict[str, list[Any]] = {}
    for name, tconorm, law in (("silhouette", 2, 6), ("silhouette#maximum", 0, 6), ("silhouette#gamma", 5, 13)):
        params = torch.tensor([0.1, 0.7, 0.1, 2.0], dtype=torch.float64)
        scale = torch.tensor(1.5, dtype=torch.float64) if tconorm == 5 else None
        coverage = "edges" if name == "silhouette" else "faces"
        model = [params, scale, *size, 0.01, 1e-4, law, False, False, tconorm, coverage]
        sound[name] = [*packed, *model]
        _, total, best = ops.silhouette(*sound[name])
        sound[name.replace("silhouette", "silhouette_backward")] = [
            some(*images),
            *packed,
            *model,
            total,
            best,
            [True, True, scale is not None],
        ]
    edges = reference.outline.edge_cycles(faces, layout)
    params = torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64)
    sound["contour"] = [*packed, edges, params, None, *size, 0.01, 1e-4, 6, False, False]
    sound["contour_backward"] = [some(*images), *packed, *size, 0.01, *ops.contour(*sound["contour"])]
    sound["rasterize"] = [*packed, *size, 0.01]
    for order, k in ((0, 2), (1, 1), (2, 2)):
        name = f"fragments#{order}"
        sound[name] = [*packed, some(8), some(2), k, *size, 0.01, 0.2, order, 0.1]
        distance, barycentric, depth, face_id = ops.fragments(*sound[name])
        ups = some(*distance.shape), some(*barycentric.shape), some(*depth.shape)
        sound[f"fragments_backward#{order}"] = [*ups, *packed, face_id, distance, *size, 0.01]
    sound["visible"] = [*packed, *size, 0.01, 0.2]
    barycentric, *found = ops.visible(*sound["visible"])
    sound["visible_backward"] = [some(*barycentric.shape), *packed, *found, *size, 0.01]
    none = torch.zeros(0, dtype=torch.bool)
    for most, within in ((0, none), (2, torch.rand(*images, generator=draw) < 0.8)):
        own = [some(8), some(2), some(2), some(2) if most else some(0), within, most, *size, 0.01, 0.2, 0.1, 1e-4, 0.1]
        sound[f"heaviest#{most}"] = [*packed, *own]
        distance, barycentric, depth, *found = ops.heaviest(*sound[f"heaviest#{most}"])
        ups = some(*distance.shape), some(*barycentric.shape), some(*depth.shape)
        sound[f"heaviest_backward#{most}"] = [*ups, *packed, *found, distance, *size, 0.01]
    start, which = torch.tensor([0, 2, 3, 7]), torch.tensor([0, 0, 1], dtype=torch.int32)
    for background in (False, True):
        rows = [some(7, 3), some(7), some(7), start, which, some(2, 2), some(1), background, 0.1]
        sound[f"mix#{background}"] = rows
        out, *more = ops.mix(*rows)
        sound[f"mix_backward#{background}"] = [some(*out.shape), some(*more[1].shape), *rows, *more, [True] * 5]
    face_id = ops.rasterize(*sound["rasterize"])[0]
    sound["jumps"] = [*packed, edges, face_id, 0.01, True]
    for terms in (3, 4):
        rows = [some(7, 3), torch.randint(0, 7, (11, terms), generator=draw, dtype=torch.int32), some(11, terms)]
        sound[f"blend#{terms}"] = rows
        sound[f"blend_backward#{terms}"] = [some(11, 3), *rows, [True, True]]
    image = torch.tensor([0] * 5 + [1] * 6, dtype=torch.int32)
    lights = [some(2, 31), torch.tensor([0, 1], dtype=torch.int32), image]
    sound["reflect"] = [*lights, some(11, 3), some(11, 3), False, True]
    sound["reflect_backward"] = [some(11, 6), *sound["reflect"]]
    sound["sample"] = [some(2, 5, 4, 3), 3 * some(11, 2) - 1, image, 0]
    sound["sample_backward"] = [some(11, 3), *sound["sample"], [True, True]]
    place = torch.tensor([0, 3, 4, 9, 21])
    sound["composite"] = [some(24), some(5, 3), place, some(12, 3)]
    sound["composite_backward"] = [some(24, 3), *sound["composite"], [True, True, True]]
    corners = torch.randint(0, 7, (11, 3), generator=draw, dtype=torch.int32)
    seen = [some(7, 2), corners, some(7, 6), corners.clone(), some(11, 3), image, *lights[:2], some(2, 5, 4, 3)]
    sound["surface"] = [*seen, 0, False, True]
    sound["surface_backward"] = [some(11, 3), *sound["surface"], [True] * 5]
    sound["vertex_normals"] = [some(2, 5, 3), faces]
    sound["vertex_normals_backward"] = [some(2, 5, 3), some(2, 5, 3), faces]
    knots = torch.tensor([0.0, 0, 0, 0.3, 0.6, 1, 1, 1], dtype=dtype).expand(2, 8)
    sound["basis"] = [some(2, 9), knots, 2, 1]
    sound["basis_backward"] = [some(2, 9, 3), *sound["basis"], [True, True]]
    for axes in (1, 2, 3):
        for grid in (False, True):
            rational = axes == 2
            missing = [None] * (3 - axes)
            control = some(2, *[5] * axes, 4)
            bandwidth = [] if grid or axes == 3 else [0.1] * axes
            tensors = [control, *[knots] * axes, *missing, *[some(2, 4)] * axes, *missing]
            arguments = [*tensors, [2] * axes, [0] * axes, bandwidth, rational, grid]
            sound[f"spline#{axes}{grid}"] = arguments
            value, inverse = ops.spline(*arguments)
            sound[f"spline_backward#{axes}{grid}"] = [some(*value.shape), value, inverse, *arguments, [True] * 7]
    cloud = [some(2, 9, 3), some(2, 70, 3), some(2, 70)]
    sound["transport_lse"] = [*cloud, 0.1, 2, False]
    for op in ("transport_apply", "transport_apply_gradient"):
        sound[op] = [*cloud, some(2, 9), some(2, 70, 2), 0.1, 1, False]
    return sound


def hostile(value: Any, draw: random.Random) -> Any:
    """Return something else in the place of one argument."""
    if isinstance(value, bool):
        return draw.choice([not value, 2, None])
    if isinstance(value, int):
        return draw.choice(INTEGERS)
    if isinstance(value, float):
        return draw.choice(FLOATS)
    if isinstance(value, str):
        return draw.choice(["", "edges", "faces", "Faces", "x" * 1000, "\0"])
    if isinstance(value, list):
        changes: list[Callable[[], Any]] = [list, lambda: value * 2, lambda: value[:-1], lambda: value * 100]
        if value:
            changes.append(lambda: [hostile(value[0], draw), *value[1:]])
        return draw.choice(changes)()
    if value is None:
        return torch.rand(2, 8)
    return _hostile_tensor(value, draw)


def _hostile_tensor(value: torch.Tensor, draw: random.Random) -> Any:
    axis = draw.randrange(max(value.dim(), 1))
    numbers = FLOATS if value.is_floating_point() else (False, True) if value.dtype == torch.bool else INDICES
    wide = torch.float64 if value.is_floating_point() else None  # what float32 cannot hold is infinite there
    other = torch.float64 if value.dtype == torch.float32 else torch.float32

    def entry() -> torch.Tensor:
        changed = value.clone(memory_format=torch.contiguous_format)
        if changed.numel():
            for _ in range(draw.choice([1, 1, 3])):
                number = torch.tensor(draw.choice(numbers), dtype=wide or torch.int64).to(value.dtype)
                changed.view(-1)[draw.randrange(changed.numel())] = number
        return changed

    def resized(count: int) -> torch.Tensor:
        if not value.dim():
            return value.expand(count)
        index = torch.arange(count) % max(value.shape[axis], 1)
        return value.index_select(axis, index) if value.shape[axis] else value

    changes = [
        *[entry] * 6,
        lambda: value.to(other),
        lambda: value.to(draw.choice([torch.int64, torch.int32, torch.uint8, torch.bool, torch.float16])),
        lambda: value.to("meta"),
        lambda: value.new_empty(0),
        lambda: value.new_empty([0 if i == axis else n for i, n in enumerate(value.shape)]),
        lambda: resized(1),
        lambda: resized(value.shape[axis] - 1 if value.dim() and value.shape[axis] else 0),
        lambda: resized(value.shape[axis] + 1 if value.dim() else 2),
        lambda: resized(draw.choice([40, 3000])),
        lambda: value.unsqueeze(axis),
        lambda: value.reshape(-1),
        lambda: value.transpose(0, -1) if value.dim() else value,
        lambda: value.repeat_interleave(2, dim=-1)[..., ::2] if value.dim() else value,
        lambda: torch.full_like(value, draw.choice(numbers), dtype=wide or torch.int64).to(value.dtype),
        lambda: value.flip(axis) if value.dim() else value.clone(),
        lambda: value[:1].expand(value.shape[0] * 1000, *value.shape[1:]) if value.dim() and len(value) else value,
        lambda: value.requires_grad_() if value.is_floating_point() else value,
    ]
    return draw.choice(changes)()


def run_case(seed: int, number: int, sound: dict[torch.dtype, dict[str, list[Any]]]) -> str:
    """Run one case; return the error's text or ``returned``. Foreign errors come out."""
    draw = random.Random(f"{seed} {number}")
    torch.set_num_threads(draw.choice([1, 2, 3]))
    ready = sound[draw.choice(list(sound))]
    name = draw.choice(list(ready))
    arguments = [x.clone() if isinstance(x, torch.Tensor) else x for x in ready[name]]
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        place = draw.randrange(len(arguments))
        arguments[place] = hostile(arguments[place], draw)
    try:
        result = getattr(torch.ops.geodiff, name.split("#")[0])(*arguments)
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if tensor.device.type == "cpu":
                tensor.detach().double().sum()
    except IndexError:
        if not any(isinstance(x, torch.Tensor) and x.is_meta for x in arguments):
            raise
        return f"{name}: of shapes alone, as while tracing, which are not checked"
    except ERRORS as error:
        return f"{name}: {type(error).__name__}: {error}"
    return f"{name}: returned"


def child(seed: int, first: int, count: int, verbose: bool) -> None:
    """Run cases, saying the number of each beforehand; now and then look whether sound calls still give their bits."""
    import geodiff.ops  # noqa: F401

    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # whose shadow memory is larger than that
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
    sound = {dtype: bases(dtype) for dtype in (torch.float32, torch.float64)}
    before = _bits(sound)
    for number in range(first, first + count):
        print(number, flush=True)
        text = run_case(seed, number, sound)
        if verbose:
            print(text, file=sys.stderr)
    if _bits(sound) != before:
        raise AssertionError("sound calls no longer give the same bits")


def _bits(sound: dict[torch.dtype, dict[str, list[Any]]]) -> list[bytes]:
    found = []
    for ready in sound.values():
        for name, arguments in ready.items():
            result = getattr(torch.ops.geodiff, name.split("#")[0])(*arguments)
            for tensor in result if isinstance(result, tuple | list) else [result]:
                found.append(tensor.numpy().tobytes())
    return found


def fuzz(seed: int, count: int, first: int = 0, verbose: bool = False, block: int = 500) -> list[str]:
    """Run cases in children of `block` each; return what went wrong, one line a case."""
    wrong = []
    number, end = first, first + count
    while number < end:
        command = [
            sys.executable,
            __file__,
            "--child",
            "--seed",
            seed,
            "--first",
            number,
            "--count",
            min(block, end - number),
        ]
        command += ["--verbose"] if verbose else []
        with subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            last, errors = _watch(process)
        if process.returncode == 0:
            sys.stderr.write(errors if verbose else "")
            number += min(block, end - number)
            continue
        killed = process.returncode < 0 and not errors.endswith("hung")
        text = errors[max(errors.rfind("Traceback"), 0) :].strip()[-3000:]
        what = f"signal {-process.returncode}" if killed else text
        wrong.append(f"seed {seed} case {number if last is None else last}: {what}")
        print(wrong[-1], file=sys.stderr)
        if last is None:
            break  # it cannot even begin
        number = last + 1
    return wrong


def _watch(process: "subprocess.Popen[bytes]") -> tuple[int | None, str]:
    """Read the numbers that a child says until it ends or one takes too long; return the last and its stderr."""
    assert process.stdout and process.stderr
    last, text, errors, since = None, b"", b"", time.monotonic()
    streams = [process.stdout, process.stderr]
    while streams:
        ready, _, _ = select.select(streams, [], [], 1.0)
        for stream in ready:
            piece = os.read(stream.fileno(), 1 << 16)
            if not piece:
                streams.remove(stream)
            elif stream is process.stderr:
                errors += piece
            else:
                text += piece
                *lines, text = text.split(b"\n")
                last, since = (int(lines[-1]) if lines else last), time.monotonic()
        if time.monotonic() - since > PATIENCE:
            process.kill()
            errors += b"\nhung"
            since = math.inf
    process.wait()
    return last, errors.decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1500)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="say what each case came to")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.seed, options.first, options.count, options.verbose)
        return
    wrong = fuzz(options.seed, options.count, options.first, options.verbose)
    print(f"{options.count} cases, {len(wrong)} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
