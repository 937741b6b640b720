# SPDX-License-Identifier: Apache-2.0
"""Whether the emulator notices a barrier that is missing: removes each of the kernels', one at a time, and runs them.

For each ``__syncthreads()`` in ``cuda/`` a copy of the headers without it is made, and the kernels of that file run on
small problems in three orders of threads. A barrier is noticed where the bits of two orders differ, where they are not
those with all barriers, or where threads do not meet. Prints a line for each and exits with 1 if one was not noticed.
"""

import contextlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator

import torch

from geodiff import ops
from geodiff.native.gpu import cache, emulated, emulator, headers, launcher

ROOT = pathlib.Path(__file__).resolve().parents[1] / "cuda"
BARRIER = "__syncthreads()"
Results = list[torch.Tensor]


def transport() -> Results:
    """Several tiles, several slices."""
    found = []
    for dim in (2, 9):
        x, y, h, k = torch.rand(1, 300, dim), torch.rand(1, 2100, dim), torch.rand(1, 2100), torch.rand(1, 300)
        v = torch.rand(1, 2100, 3)
        found += [ops.lse(x, y, h, 0.1), ops.apply(x, y, h, k, v, 0.1), ops.apply_gradient(x, y, h, k, v[..., :1], 0.1)]
    return found


def scene(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As many triangles, some of them large."""
    clip = torch.rand(3 * count, 4) * 2 - 1
    clip[:, 2:] = 1 + 0.3 * torch.rand(3 * count, 1)
    clip[:, :2] = clip[:, :2].reshape(-1, 3, 2).mul(torch.rand(count, 1, 1)).reshape(-1, 2) * clip[:, 3:]
    return clip, torch.arange(3 * count, dtype=torch.int32).reshape(-1, 3), torch.tensor([[0, 0, count]])


def silhouettes() -> Results:
    """More faces than fit into shared memory, and into the list."""
    clip, faces, layout = scene(2200)
    clip.requires_grad_()
    scale = torch.tensor(0.02, dtype=torch.float64, requires_grad=True)
    alpha = ops.silhouette(clip, faces, layout, scale=scale, image_size=(20, 20))
    return [alpha.detach(), *torch.autograd.grad((alpha * torch.rand(20, 20)).sum(), (clip, scale))]


def fragments() -> Results:
    """All orders, and the rim."""
    packed = scene(2200)
    found = list(ops.fragments(*packed, k=3, blur=0.05, image_size=(20, 20)))
    return [
        *found,
        *ops.visible(packed[0][:60], packed[1][:20], torch.tensor([[0, 0, 20]]), blur=0.5, image_size=(20, 20)),
    ]


def tiles() -> Results:
    """A list that is empty, and after it one from the middle of its words on."""
    clip, faces, layout = scene(4400)
    clip[: 3 * 2600, 0] += 9
    return list(ops.fragments(clip, faces, layout, k=3, blur=0.05, image_size=(20, 20)))


def contours() -> Results:
    """Segments that cross, more of their pieces than fit into shared memory, and nearest points that change much.

    And an outline in a corner, which is far from most tiles but within their pixels' reach.
    """
    clip, faces, layout = scene(150)
    clip[:, :2] = clip[:, :2].reshape(-1, 3, 2)[:, :1].add(0.1 * torch.rand(150, 3, 2)).reshape(-1, 2)
    clip.requires_grad_()
    alpha = ops.contour(clip, faces, layout, scale=0.1, image_size=(40, 40))
    corner, one = torch.tensor([[-0.9, -0.9, 1, 1], [-0.7, -0.9, 1, 1], [-0.9, -0.7, 1, 1]]), torch.tensor([[0, 0, 1]])
    far = ops.contour(corner, faces[:1], one, scale=0.5, image_size=(64, 64))
    return [alpha.detach(), *torch.autograd.grad((alpha * torch.rand(40, 40)).sum(), clip), far]


def splines() -> Results:
    """Gradients, which blocks gather: exact ones and the Gaussian mode's."""
    control, ends = torch.rand(4, 3).requires_grad_(), torch.tensor([0.0, 0, 0, 0.5, 1, 1, 1]).requires_grad_()
    found = []
    for bandwidth in (None, [0.1]):
        value = ops.spline(control, [ends], [torch.rand(300)], [2], bandwidth=bandwidth)
        found += [value.detach(), *torch.autograd.grad((value * torch.rand(300, 3)).sum(), (control, ends))]
    # More functions than half a block has threads: what sums of windows leave lies where those of the net are read.
    net = torch.rand(10, 11, 3).requires_grad_()
    knots = [torch.rand(20).sort().values.requires_grad_(), torch.rand(22).sort().values.requires_grad_()]
    value = ops.spline(net, knots, [torch.rand(300), torch.rand(300)], [9, 10])
    found += torch.autograd.grad((value * torch.rand(300, 3)).sum(), (net, *knots))
    return found


def lights() -> Results:
    """Gradients of two lamps."""
    rows, kinds = torch.rand(1, 31).requires_grad_(), torch.tensor([0, 1], dtype=torch.int32)
    out = ops.reflect(rows, kinds, torch.zeros(0, dtype=torch.int32), torch.rand(300, 3), torch.rand(300, 3))
    return list(torch.autograd.grad((out * torch.rand(300, 6)).sum(), rows))


def mixtures() -> Results:
    """What many groups give to near, far and the sharpness."""
    values, weight, depth = torch.rand(600, 3), torch.rand(600), torch.rand(600)
    start, row = torch.arange(0, 601, 2), torch.arange(300) % 2
    ends = torch.tensor([[0.0, 1.0], [-0.5, 2.0]]).requires_grad_()
    sharpness = torch.ones(1).requires_grad_()
    out = ops.mix(values, weight, depth, start, ends, sharpness, row=row).out
    return list(torch.autograd.grad((out * torch.rand(300, 3)).sum(), (ends, sharpness)))


RUNS: dict[str, Callable[[], Results]] = {
    "transport/kernels.h": transport,
    "raster/silhouette.h": silhouettes,
    "raster/tiles.h": tiles,
    "raster/fragments_kernels.h": fragments,
    "raster/contour_kernels.h": contours,
    "raster/contour_pixels.h": contours,
    "spline/sum_kernels.h": splines,
    "shading/kernels.h": lights,
    "shading/mix_kernels.h": mixtures,
}


@contextlib.contextmanager
def headers_in(root: pathlib.Path) -> Iterator[None]:
    """Compile from another folder of headers."""
    before = headers.header_root
    for module in (cache, emulator):
        module.header_root = lambda: root
    cache._headers.cache_clear()
    launcher._built.clear()
    yield
    for module in (cache, emulator):
        module.header_root = before
    cache._headers.cache_clear()
    launcher._built.clear()


def bits(run: Callable[[], Results], order: str) -> Results | None:
    """Run it; None where threads do not meet."""
    torch.manual_seed(0)
    try:
        with emulated(order):
            return run()
    except RuntimeError as error:
        if "meet" not in str(error):
            print(error, file=sys.stderr)
            os._exit(3)
        return None


def same(a: Results | None, b: Results | None) -> bool:
    return a is not None and b is not None and all(map(torch.equal, a, b))


def barriers(name: str) -> list[int]:
    """Return the lines of a header with a barrier."""
    lines = (ROOT / name).read_text().splitlines()
    return [i for i, line in enumerate(lines) if BARRIER in line and not line.lstrip().startswith("//")]


def noticed(name: str, number: int) -> bool:
    """Run a header's kernels with all barriers, and without one of them."""
    right = bits(RUNS[name], "forward")
    if not same(right, right):  # what is no number differs from itself, and would hide that nothing was noticed
        os._exit(3)
    lines = (ROOT / name).read_text().splitlines(keepends=True)
    lines[number] = lines[number].replace(BARRIER, "(void)0")
    with tempfile.TemporaryDirectory() as folder:
        copy = pathlib.Path(folder, "cuda")
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("cpu"))
        (copy / name).write_text("".join(lines))
        with headers_in(copy):
            found = [bits(RUNS[name], order) for order in ("forward", "backward", "shuffled")]
    return not all(same(right, other) for other in found)


def main(arguments: list[str]) -> int:
    if arguments:
        return 0 if noticed(arguments[0], int(arguments[1])) else 1
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "GEODIFF_CACHE": folder}
        for name in RUNS:
            for number in barriers(name):
                # In a process of its own: without a barrier, an index may be anything.
                command = [sys.executable, __file__, name, str(number)]
                status = subprocess.run(command, env=environment, capture_output=True).returncode
                missed += status in (1, 3)
                said = {0: "noticed", 1: "NOT NOTICED", 3: "FAILED"}.get(status, f"noticed, by its end with {status}")
                print(f"{name}:{number + 1} {said}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
