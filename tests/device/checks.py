# SPDX-License-Identifier: Apache-2.0
"""Steps of the device script that look whether kernels are right: each prints a row a case, and counts what is not."""

import hashlib
import pathlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd
from geodiff import ops
from tests.device.bench import captured, fit
from tests.device.place import Place, Results, run, says
from tests.pretend import device as pretend

BOUNDS = {torch.float32: 2e-4, torch.float64: 1e-10}
"""Of the largest difference to the CPU's, in parts of the largest value; sums of float32 in another order."""
READS_BACK = {
    "contour": "counts of segments, cuts and pieces",
    "visible": "the number of pixels that are seen",
    "jumps": "counts of lines, pairs and edges",
    "heaviest": "the number of faces with a share",
    "silhouette_backward": "gradients of the numbers, which are on the host",
    "mix_backward": "the gradient of the sharpness, which is on the host",
}
"""Ops that read from the device, and what: a CUDA graph holds them in a replay of a recording alone."""
RECORDED: dict[str, dict[str, Any]] = {
    "contour": {"coverage": "contour"},
    "hard": {"coverage": "hard", "outputs": "rgb"},
    "softmax": {"depth": "softmax", "outputs": "rgb"},
    "maps": {"outputs": ("rgb", "depth", "normal")},
}
"""Renderers whose steps have lists."""
NO_KERNEL = "no kernel for a GPU yet"


def smoke(place: Place) -> int:
    """Run each op and each gradient once on a small problem, and compare with the CPU's."""
    rows, failed = [], 0
    for dtype in (torch.float32, torch.float64):
        for name, (op, arguments) in place.cases(dtype).items():
            row: dict[str, Any] = {"case": f"{name} {str(dtype).removeprefix('torch.')}"}
            try:
                expected = run(op, arguments)
                with place.on():
                    found = run(op, place.moved(op, arguments))
                    place.wait()
                row |= compared(op, found, expected, BOUNDS[dtype])
            except Exception as error:  # whatever it is, the next case may work
                text = str(error).split("\n")[0]
                row["verdict"] = f"no kernel: {text}" if NO_KERNEL in text else f"FAILED {type(error).__name__}: {text}"
            failed += row["verdict"].startswith("FAILED")
            says(row)
            rows.append(row)
            place.write("smoke", rows)
    return failed


def compared(op: str, found: Results, expected: Results, bound: float) -> dict[str, Any]:
    """Whole numbers must be the same, real ones nearly."""
    if op == "contour":  # at a corner the end of one edge and the start of the next are the nearest point
        same = (found[2].cpu() == expected[2]).all(dim=-1)
        found = [found[0], torch.where(same, found[1].cpu(), expected[1]), found[2]]
    worst = 0.0
    for place, (own, other) in enumerate(zip(found, expected, strict=True)):
        own = own.cpu()
        if own.shape != other.shape or own.dtype != other.dtype:
            return {"verdict": f"FAILED: output {place} is {own.dtype} {tuple(own.shape)}"}
        if not own.is_floating_point():
            # Rounding decides which of faces or edges that are equally far is the best; how far is compared, too.
            if not torch.equal(own, other) and op not in ("silhouette", "contour"):
                return {"verdict": f"FAILED: output {place} differs in {int((own != other).sum())} of {own.numel()}"}
            continue
        same = (own == other) | (own.isnan() & other.isnan())
        apart = torch.where(same, 0, (own - other).abs()).double()
        finite = other[other.isfinite()].abs()
        scale = max(float(finite.max()) if finite.numel() else 1.0, 1e-30)
        worst = max(worst, float(apart.max()) / scale if apart.numel() else 0.0)
    right = worst <= bound  # not so for NaN
    return {"worst": f"{worst:.1e}", "verdict": "same" if right else "FAILED: too far from the CPU's"}


def bits(tensors: Results) -> str:
    """Return a sum of the bits of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()[:16]


def repeat(place: Place) -> int:
    """Call each op twenty times on the same input: the same bits each time, among other work on the device."""
    rows, failed, times = [], 0, 3 if place.rehearsed else 20
    for name, (op, arguments) in place.cases(torch.float32).items():
        row: dict[str, Any] = {"case": name}
        try:
            given, found = place.moved(op, arguments), set()
            for i in range(times):
                with place.on(("forward", "backward", "shuffled")[i % 3], seed=i):
                    found.add(bits(run(op, given)))
            row["verdict"] = "repeats" if len(found) == 1 else f"FAILED: {len(found)} results of {times}"
        except Exception as error:
            text = str(error).split("\n")[0]
            row["verdict"] = f"no kernel: {text}" if NO_KERNEL in text else f"FAILED {type(error).__name__}: {text}"
        failed += row["verdict"].startswith("FAILED")
        says(row)
        rows.append(row)
        place.write("repeat", rows)
    return failed


def scene(place: Place) -> tuple[Callable[[torch.Tensor], torch.Tensor], torch.Tensor]:
    """Return a silhouette as a function of positions, and the positions, which want a gradient."""
    mesh, size = gd.icosphere(0 if place.rehearsed else 3), 8 if place.rehearsed else 64
    camera = gd.Camera.orbit(2.7, 20.0, 10.0, fov_deg=60.0).to(place.device)
    render, own = gd.Renderer(size, scale=0.05), mesh.to(place.device)
    return lambda v: render(own.with_vertices(v), camera).alpha, own.vertices.clone().requires_grad_()


def gradient(image: Callable[[torch.Tensor], torch.Tensor], vertices: torch.Tensor) -> Results:
    """Return an image and the gradient of the sum of its squares."""
    alpha = image(vertices)
    return [alpha.detach(), *torch.autograd.grad(alpha.square().sum(), vertices)]


def verdict(name: str, works: Callable[[], bool], rows: list[dict[str, Any]], excuse: str = "") -> int:
    """Print whether one thing works; 1 if not, and 0 where it has an excuse for not being captured."""
    try:
        text = "works" if works() else "FAILED: other numbers"
    except Exception as error:
        text = f"FAILED {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        text = f"no kernel: {error}" if NO_KERNEL in text else text
        text = excuse if excuse and "captur" in str(error).lower() else text
    rows.append({"case": name, "verdict": text})
    says(rows[-1])
    return text.startswith("FAILED")


def streams(place: Place) -> int:
    """Two streams at once, a stream that waits for another, a second thread, autograd's threads."""
    rows: list[dict[str, Any]] = []
    with place.on():
        image, vertices = scene(place)
        expected = gradient(image, vertices)
        x = torch.rand(3 if place.rehearsed else 3000, 3, device=place.device)
        plain = ops.lse(x, x, x[:, 0], 0.1)
        place.wait()

        def two() -> bool:
            if place.rehearsed:
                return torch.equal(ops.lse(x, x, x[:, 0], 0.1), plain)
            first, second = torch.cuda.Stream(), torch.cuda.Stream()
            found = []
            for _ in range(20):
                with torch.cuda.stream(first):
                    found += gradient(image, vertices)
                with torch.cuda.stream(second):
                    found.append(ops.lse(x, x, x[:, 0], 0.1))
            place.wait()
            return all(bits(found[i : i + 3]) == bits([*expected, plain]) for i in range(0, len(found), 3))

        def on_own() -> bool:
            """Results of a stream, used on another that waits for it: nothing may have gone to the default stream."""
            if place.rehearsed:
                return True
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                torch.cuda._sleep(int(2e8))  # so that kernels on a wrong stream would be far ahead
                moving = vertices.detach().mul(2).div(2).requires_grad_()
                found = gradient(image, moving)
            torch.cuda.current_stream().wait_stream(side)
            return bits(found) == bits(expected)

        def thread() -> bool:
            found: list[Results] = []
            other = threading.Thread(target=lambda: found.append(gradient(image, vertices)))
            other.start()
            other.join()
            return bool(found) and bits(found[0]) == bits(expected)

        def backward() -> bool:
            vertices.grad = None
            image(vertices).square().sum().backward()  # on a device by a thread of autograd's
            found = vertices.grad
            return found is not None and torch.equal(found, expected[1])

        failed = verdict("two streams", two, rows) + verdict("a stream of its own", on_own, rows)
        failed += verdict("another thread", thread, rows) + verdict("autograd's thread", backward, rows)
    place.write("streams", rows)
    return failed


def faults(place: Place) -> int:
    """Calls that must be refused, and the ones after them, which must work."""
    rows: list[dict[str, Any]] = []
    with place.on():
        image, vertices = scene(place)
        expected = bits(gradient(image, vertices))

        def refused(call: Callable[[], Any], *kinds: type[Exception]) -> Callable[[], bool]:
            def works() -> bool:
                try:
                    call()
                except kinds:
                    return bits(gradient(image, vertices)) == expected
                return False

            return works

        x = torch.rand(5, 3, device=place.device)
        other = torch.empty(5, 3, device="meta")
        failed = verdict("two devices", refused(lambda: ops.lse(x, other, x[:, 0], 0.1), RuntimeError), rows)

        def corner() -> None:
            with gd.checks(True):
                faces = torch.tensor([[0, 1, 7]], dtype=torch.int32, device=place.device)
                ops.vertex_normals(x, faces)

        failed += verdict("an index out of range", refused(corner, ValueError, RuntimeError, IndexError), rows)
        if not place.rehearsed:
            huge = lambda: ops.lse(x.new_zeros(1 << 37, 3), x, x[:, 0], 0.1)  # noqa: E731
            failed += verdict("memory runs out", refused(huge, RuntimeError), rows)
            away = torch.device("cuda", torch.cuda.device_count())
            failed += verdict("no such device", refused(lambda: x.to(away), RuntimeError, AssertionError), rows)
    place.write("faults", rows)
    return failed


def graph(place: Place) -> int:
    """Capture each op in a CUDA graph, replay it on other numbers, and compare with the op itself."""
    rows: list[dict[str, Any]] = []
    failed = 0
    for name, (op, arguments) in place.cases(torch.float32).items():
        given = place.moved(op, arguments)

        def works(op: str = op, given: list[Any] = given) -> bool:
            with place.on():
                run(op, given)
                place.wait()
                if place.rehearsed:
                    with pretend.watched() as crossings:  # a capture bears none
                        found = run(op, given)
                    if crossings:
                        raise RuntimeError(f"not to be captured: {', '.join(sorted(crossings))}")
                    return bits(found) == bits(run(op, given))
                captured = torch.cuda.CUDAGraph()
                with torch.cuda.graph(captured):
                    held = run(op, given)
                for value in given:  # other numbers of the same kinds
                    if isinstance(value, torch.Tensor) and value.is_cuda and value.is_floating_point():
                        value.mul_(1.01)
                for _ in range(50):
                    captured.replay()
                return bits(held) == bits(run(op, given))

        failed += verdict(name, works, rows, f"reads {READS_BACK[op]}" if op in READS_BACK else "")
        place.write("graph", rows)

    def step() -> bool:
        """A whole step of a fit, and what it does at a second replay."""
        with place.on():
            step, vertices = fit(place)
            if place.rehearsed:
                step()
                with pretend.watched() as crossings:
                    step()
                if crossings:
                    raise RuntimeError(f"not to be captured: {', '.join(sorted(crossings))}")
                return True
            replay = captured(step)
            replay()  # with the steps before the capture: four
            other, eager = fit(place)
            for _ in range(4):
                other()
            return bits([vertices.detach()]) == bits([eager.detach()])

    failed += verdict("a step of a fit", step, rows)
    for name, options in RECORDED.items():
        failed += verdict(f"a recorded step, {name}", lambda options=options: recorded(place, **options), rows)  # type: ignore[misc]
    place.write("graph", rows)
    return failed


def recorded(place: Place, **options: Any) -> bool:
    """Whether a step that has counts goes without a look, of a mesh that has moved since."""
    with place.on():
        size = 7 if place.rehearsed else 128
        mesh = gd.icosphere(1 if place.rehearsed else 4)
        mesh = mesh.with_attributes(vertex_colors=mesh.vertices.abs()).to(place.device)
        camera = gd.Camera.orbit(torch.tensor([2.0, 2.5]), 30, 20, fov_deg=60).to(place.device)
        render, recording = gd.Renderer(size, scale=0.02, **options), gd.Recording()
        vertices = mesh.vertices.clone().requires_grad_()

        def step() -> torch.Tensor:
            out = render(mesh.with_vertices(vertices), camera)
            images = [getattr(out, name) for name in render.outputs]
            total = sum(torch.where(torch.isinf(image), 0.0, image).square().mean() for image in images)
            (found,) = torch.autograd.grad(total, vertices)
            return found

        with recording.record():
            step()
        with recording.replay():  # loads what has other names where lists are longer
            step()
        if place.rehearsed:
            with torch.no_grad():
                vertices.mul_(0.95)
            with recording.replay(), pretend.watched() as crossings:
                found = step()
            if crossings:
                raise RuntimeError(f"not to be captured: {', '.join(sorted(crossings))}")
        else:
            place.wait()
            graph = torch.cuda.CUDAGraph()
            with recording.replay(), torch.cuda.graph(graph):
                found = step()
            with torch.no_grad():
                vertices.mul_(0.95)
            graph.replay()
        wanted = step()
        return float((found - wanted).abs().max()) <= 1e-4 * float(wanted.abs().max())


def part(place: Place, own: int, many: int) -> int:
    """Run every so many-th op and gradient once: for compute-sanitizer, which is slow and follows one process."""
    done = 0
    for dtype in (torch.float32, torch.float64):
        for op, arguments in list(place.cases(dtype).values())[own::many]:
            with place.on():
                run(op, place.moved(op, arguments))
                place.wait()
            done += 1
    print(f"ran {done} calls", flush=True)
    return done


if __name__ == "__main__":
    part(Place(False, True, pathlib.Path()), *map(int, sys.argv[1:]))
