# SPDX-License-Identifier: Apache-2.0
"""The launcher without a GPU: the emulator's findings, the cache of compiled kernels, mirrors of structs, messages."""

import ctypes
import pathlib
import shutil
import subprocess

import pytest
import torch

from geodiff import ops
from geodiff.native.gpu import cache, compiler, driver, emulated, is_emulating, launcher, names, schedule, structs

KERNELS = """#include "kernel.h"
namespace gd {
__global__ void turned(const float* x, float* y, int n) {
  GEODIFF_SHARED(all, float[64]);
  const int i = threadIdx.x;
  all[i] = x[blockIdx.x * 64 + i];
  BARRIER
  y[blockIdx.x * 64 + i] = all[63 - i];
}
__global__ void warp_sums(const float* x, float* y) {
  float sum = x[threadIdx.x];
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, d);
  y[threadIdx.x] = sum;
}
__global__ void parted(float* y) {
  if (threadIdx.x < 7) {
    __syncthreads();
  } else {
    y[0] = 1;
    __syncthreads();
  }
}
__global__ void lonely(float* y) {
  if (threadIdx.x < 7) y[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, y[threadIdx.x], 1);
  else __syncthreads();
}
__global__ void unset(float* y) {
  GEODIFF_SHARED(value, float);
  if (threadIdx.x == 0) y[blockIdx.x] = value;
  value = 1;
}
}
"""
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv("GEODIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(launcher, "_built", {})
    return tmp_path / "cache"


def header(folder: pathlib.Path, barrier: str = "__syncthreads();") -> str:
    path = folder / f"kernels_{len(barrier)}.h"
    path.write_text(KERNELS.replace("BARRIER", barrier))
    return str(path)


def run(order: str, where: str, name: str, blocks: int, threads: int, *arguments: object) -> None:
    with emulated(order, seed=3):
        launcher.launch(where, f"gd::{name}", (blocks,), threads, *arguments, device=CPU)


def test_threads_meet_at_barriers_in_any_order(tmp_path: pathlib.Path) -> None:
    where, x = header(tmp_path), torch.rand(192)
    for order in ("forward", "backward", "shuffled"):
        y, sums = torch.empty(192), torch.empty(64)
        run(order, where, "turned", 3, 64, x, y, ctypes.c_int(192))
        assert torch.equal(y, x.reshape(3, 64).flip(1).flatten())
        run(order, where, "warp_sums", 1, 64, x, sums)
        assert torch.allclose(sums, x[:64].reshape(2, 32).sum(1).repeat_interleave(32))
    assert not is_emulating()


def test_a_missing_barrier_shows_in_the_order(tmp_path: pathlib.Path) -> None:
    where, x, found = header(tmp_path, ""), torch.rand(64), []
    for order in ("forward", "backward", "shuffled"):
        y = torch.empty(64)
        run(order, where, "turned", 1, 64, x, y, ctypes.c_int(64))
        found.append(y)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_barriers_that_not_all_reach(tmp_path: pathlib.Path) -> None:
    where, y = header(tmp_path), torch.zeros(64)
    with pytest.raises(RuntimeError, match=r"gd::parted, emulated, .*threads of a block meet at lines 17 and 20"):
        run("forward", where, "parted", 1, 64, y)
    with pytest.raises(RuntimeError, match=r"lanes of a warp do not meet \(line 24\)"):
        run("forward", where, "lonely", 1, 64, y)
    run("forward", where, "warp_sums", 1, 64, torch.rand(64), y)  # the next call works
    assert (y > 0).all()


def test_shared_memory_is_not_what_the_block_before_left(tmp_path: pathlib.Path) -> None:
    y = torch.zeros(2)
    run("forward", header(tmp_path), "unset", 2, 32, y)
    assert y[1].view(torch.int32).item() & 0xFFFFFFFF == 0xEEEEEEEE
    assert torch.equal(y[0], y[1])


def test_what_cannot_be_launched(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, y = header(tmp_path), torch.zeros(64)
    run("forward", where, "unset", 0, 32, y)  # nothing to do
    with pytest.raises(RuntimeError, match=r"a grid of 1 to"):
        with emulated():
            launcher.launch(where, "gd::unset", (1, 65536), 32, y, device=CPU)
    with pytest.raises(RuntimeError, match="blocks of 1 to 1024 threads"):
        run("forward", where, "unset", 1, 1025, y)
    with pytest.raises(RuntimeError, match=r"gd::unset takes parameters of \[8\] bytes, not \[4\]"):
        run("forward", where, "unset", 1, 32, ctypes.c_int(3))
    with pytest.raises(RuntimeError, match=r"could not compile gd::absent:(?s:.*)absent"):
        run("forward", where, "absent", 1, 32, y)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(RuntimeError, match="needs a C\\+\\+ compiler"):
        run("forward", where, "parted", 1, 32, y)
    with pytest.raises(RuntimeError, match=r"no_such_op has no kernel for a GPU yet"):
        schedule.of("no_such_op")


def test_a_damaged_file_is_made_again(own_cache: pathlib.Path) -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"a kernel"

    place = cache.file("sm_90", "name.cubin", make)
    assert (cache.content(place), len(made)) == (b"a kernel", 1)
    assert place == own_cache / "sm_90" / "name.cubin"
    cache.file("sm_90", "name.cubin", make)
    assert len(made) == 1
    for damage in (lambda b: b[:-1], lambda b: b"A" + b[1:], lambda b: b""):
        place.write_bytes(damage(place.read_bytes()))
        assert cache.content(cache.file("sm_90", "name.cubin", make)) == b"a kernel"
    assert len(made) == 4
    assert [path.name for path in place.parent.iterdir()] == ["name.cubin"]


def test_a_folder_that_cannot_be_written(own_cache: pathlib.Path) -> None:
    own_cache.write_text("a file where the folder would be")
    with pytest.warns(RuntimeWarning, match=r"cannot be kept in .*GEODIFF_CACHE"):
        place = cache.file("sm_90", "name.cubin", lambda: b"a kernel")
    assert cache.content(place) == b"a kernel"


def test_keys_differ_by_all_that_matters() -> None:
    assert len({cache.key("a", "b"), cache.key("ab"), cache.key("a", "c"), cache.key("a", "b")}) == 3


GRID = """#include "kernel.h"
#include "raster/walk.h"
namespace gd {
template <class T> __global__ void grid_misses(int* misses, int last) {
  const int side = int(blockIdx.x * blockDim.x + threadIdx.x) + 1;
  if (side > last) return;
  const PixelGrid<T> grid(2 * side, side);
  for (int i = -side; i < 3 * side; ++i)
    misses[side - 1] += grid.x(i) != pixel_x<T>(2 * side, side, i) || grid.y(i) != pixel_y<T>(2 * side, side, i);
}
__global__ void walk_misses(int* misses) {
  const PixelBox box = {3, 3 + int(blockIdx.x) + 1, 5, 5 + int(threadIdx.x) + 1};
  const int columns = box.end_column - box.first_column, cells = columns * (box.end_row - box.first_row);
  for (int first = 0; first < 40; first += 13) {
    BoxWalk at(box, first, 32);
    for (int i = first; i < cells; i += 32, at.next())
      *misses += at.row != 3 + i / columns || at.column != 5 + i % columns;
  }
}
}
"""


def test_pixels_without_divisions(tmp_path: pathlib.Path) -> None:
    """Their centres are the same numbers, and a walk through a box meets the same pixels."""
    path = tmp_path / "grid.h"
    path.write_text(GRID)
    for real in ("float", "double"):
        misses = torch.zeros(1500, dtype=torch.int32)
        run("forward", str(path), f"grid_misses<{real}>", 12, 128, misses, ctypes.c_int(1500))
        assert misses.sum() == 0
    misses = torch.zeros(1, dtype=torch.int32)
    run("forward", str(path), "walk_misses", 9, 70, misses)
    assert misses.sum() == 0


def test_mirrors_of_structs(tmp_path: pathlib.Path) -> None:
    """Sizes and offsets as a C++ compiler has them; names of fields, too, or it would not compile."""
    headers = sorted({header for header, _ in names.kernel_names()})
    lines = ["#include <cstddef>", '#include "emulated/execution.h"', *(f'#include "{header}"' for header in headers)]
    kinds = [kind(real) for kind in structs.OF_REALS for real in structs.REALS.values()]
    for kind in [*kinds, *(kind() for kind in structs.OTHERS)]:
        lines.append(f"using S{len(lines)} = {kind.__name__};")
        name = lines[-1].split()[1]
        lines.append(f"static_assert(sizeof({name}) == {ctypes.sizeof(kind)});")
        for field, *_ in kind._fields_:
            lines.append(f"static_assert(offsetof({name}, {field}) == {getattr(kind, field).offset});")
    for name, sizes in structs.SCRATCH.items():
        for real, size in zip(structs.REALS.values(), sizes, strict=True):
            plain = name in ("View", "Segment", "CutAt", "Piece", "EndGradient", "OuterBox")
            lines.append(f"static_assert(sizeof(gd::{name}{'' if plain else f'<{real}>'}) == {size});")
    unit = tmp_path / "unit.cpp"
    unit.write_text("\n".join(lines))
    command = [
        "c++",
        "-std=c++17",
        "-w",
        "-DGEODIFF_EMULATED",
        f"-I{compiler.header_root()}",
        "-fsyntax-only",
        str(unit),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:3000]


def test_structs_take_all_their_fields() -> None:
    with pytest.raises(TypeError, match=r"TransportSlices has the fields row_blocks, .*, not slices"):
        structs.make(structs.transport_slices(), slices=1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_no_device() -> None:
    assert driver.version() is None
    with pytest.raises(RuntimeError, match=r"CUDA driver|CUDA bindings"):
        driver.build("transport/kernels.h", "gd::transport_lse_add<float>", torch.device("cuda:0"))


def test_kernels_for_an_architecture_are_kept(own_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        newest = max(compiler.supported())
    except RuntimeError as error:
        pytest.skip(str(error))
    name = "gd::transport_lse_add<float>"
    code, lowered = compiler.kernel("transport/kernels.h", name, "sm_90")
    assert code.startswith(b"\x7fELF")
    assert lowered.encode() in code
    monkeypatch.setattr(compiler, "compile_cubin", None)  # not needed again
    assert compiler.kernel("transport/kernels.h", name, "sm_90") == (code, lowered)
    monkeypatch.undo()
    code, _ = compiler.kernel("transport/kernels.h", name, f"sm_{newest + 100}")
    assert b".version" in code  # PTX, which the driver of a newer device translates


def test_ops_go_back_to_the_cpu() -> None:
    x = torch.rand(5, 2)
    before = ops.lse(x, x, x[:, 0], 0.1)
    with emulated():
        inside = ops.lse(x, x, x[:, 0], 0.1)
    assert torch.allclose(before, inside)
    assert torch.equal(ops.lse(x, x, x[:, 0], 0.1), before)


def test_compile_ahead(own_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from geodiff.cli import main

    try:
        compiler.supported()
    except RuntimeError as error:
        pytest.skip(str(error))
    one = ("transport/kernels.h", "gd::transport_lse_add<float>")
    monkeypatch.setattr(names, "kernel_names", lambda full: [one])
    done = CliRunner().invoke(main, ["compile", "--arch", "sm_80", "--arch", "sm_90"])
    assert done.exit_code == 0 and f"1 kernels for sm_80, sm_90 in {own_cache}" in done.output
    assert len(list(own_cache.glob("sm_*/*.cubin"))) == 2
    assert CliRunner().invoke(main, ["compile"]).exit_code == 2
