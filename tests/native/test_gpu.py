# SPDX-License-Identifier: Apache-2.0
"""The launcher without a GPU: the emulator's findings, the cache of compiled kernels, mirrors of structs, messages."""

import contextlib
import ctypes
import errno
import os
import pathlib
import shutil
import subprocess
import sys

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
    monkeypatch.setattr(cache, "_in_memory", {})
    monkeypatch.setattr(cache, "_warned", set())
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
    assert y.view(torch.int32).tolist() == [0x7FF8EEEE] * 2 and y.isnan().all()


OVERRUNS = """namespace gd {
__global__ void shared_overrun(float* y, int n) {
  GEODIFF_SHARED(all, float[32]);
  all[threadIdx.x] = y[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = all[threadIdx.x + n];
}
__global__ void tensor_overrun(float* y, int n) { y[threadIdx.x + n] = 1; }
__global__ void overflow(int* y, int n) { y[threadIdx.x] = 2147483647 + n; }
}
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sanitizers as GCC for Linux has them")
def test_sanitizers_see_what_lies_beyond(tmp_path: pathlib.Path) -> None:
    """With n = 0 each kernel is sound, after many threads and blocks; with n = 1 each is found, where it is."""
    header, script = tmp_path / "overruns.h", tmp_path / "script.py"
    header.write_text('#include "kernel.h"\n' + OVERRUNS)
    script.write_text(
        "import ctypes, sys, torch\n"
        "from geodiff.native.gpu import emulated, launcher\n"
        "kind = torch.int32 if sys.argv[2] == 'overflow' else torch.float32\n"
        "with emulated('shuffled', sanitize='address,undefined'):\n"
        "    for n in (0, 0, 1):\n"
        "        if n:\n"
        "            print('sound', flush=True)\n"
        "        arguments = torch.zeros(32, dtype=kind), ctypes.c_int(n)\n"
        "        launcher.launch(sys.argv[1], 'gd::' + sys.argv[2], (3,), 32, *arguments, device=torch.device('cpu'))\n"
    )
    libraries = [
        subprocess.run(["c++", f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip()
        for name in ("libasan.so", "libstdc++.so")
    ]
    if not all(map(os.path.isabs, libraries)):
        pytest.skip("the C++ compiler has no sanitizers")
    environment = {**os.environ, "LD_PRELOAD": " ".join(libraries), "ASAN_OPTIONS": "detect_leaks=0"}
    environment["UBSAN_OPTIONS"] = "halt_on_error=1"
    texts = {
        "shared_overrun": "out of bounds for type 'float [32]'",
        "tensor_overrun": "heap-buffer-overflow",
        "overflow": "signed integer overflow",
    }
    for name, text in texts.items():
        command = [sys.executable, str(script), str(header), name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode != 0 and "sound" in done.stdout, done.stderr[:2000]
        assert text in done.stderr and "overruns.h" in done.stderr, done.stderr[:2000]


def test_what_cannot_be_launched(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, y = header(tmp_path), torch.zeros(64)
    run("forward", where, "unset", 0, 32, y)  # nothing to do
    for grid in ((1, 65536), (2**31,), (2**33, 1)):
        text = rf"gd::unset: \({grid[0]}, .* blocks are more than one launch may have\. Use fewer images"
        with pytest.raises(RuntimeError, match=text.replace(", .*", ",.*")), emulated():
            launcher.launch(where, "gd::unset", grid, 32, y, device=CPU)
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

    def kept() -> bytes:
        return cache.content("sm_90", "name.cubin", make)

    assert (kept(), kept(), len(made)) == (b"a kernel", b"a kernel", 1)
    place = cache.file("sm_90", "name.cubin", make)
    assert place == own_cache / "sm_90" / "name.cubin"
    for damage in (lambda b: b[:-1], lambda b: b"A" + b[1:], lambda b: b""):
        place.write_bytes(damage(place.read_bytes()))
        assert kept() == b"a kernel"
    assert len(made) == 4
    assert [path.name for path in place.parent.iterdir()] == ["name.cubin"]


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def no_home() -> None:
    raise RuntimeError("Could not determine home directory.")


@pytest.mark.parametrize("why", ["not a folder", "full", "no home"])
def test_where_nothing_can_be_kept(why: str, own_cache: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One warning, and the kernels stay in memory: nothing is made twice."""
    made: list[str] = []
    replace = os.replace

    def kept(name: str) -> bytes:
        return cache.content("sm_90", name, lambda: made.append(name) or name.encode())

    if why == "not a folder":
        own_cache.write_text("a file where the folder would be")
    elif why == "full":
        monkeypatch.setattr(os, "replace", no_room)
    else:
        for name in ("GEODIFF_CACHE", "XDG_CACHE_HOME"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(pathlib.Path, "home", no_home)
    text = {"not a folder": "Not a directory", "full": "No space left", "no home": "the user has no home"}[why]
    with pytest.warns(RuntimeWarning, match=rf"cannot be kept in .*{text}.* Name a folder .* GEODIFF_CACHE") as found:
        assert [kept(name) for name in "abab"] == [b"a", b"b", b"a", b"b"]
    assert len(found) == 1 and found[0].filename == __file__
    assert made == ["a", "b"]
    if why == "full":
        assert not list(own_cache.rglob("*.cubin*"))
    monkeypatch.setattr(os, "replace", replace)
    place = cache.file("sm_90", "a", lambda: b"never")
    assert place.read_bytes() == b"a" and own_cache not in place.parents


def test_the_folder_of_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEODIFF_CACHE", "~/kernels")
    assert cache.folder() == pathlib.Path.home() / "kernels"
    monkeypatch.delenv("GEODIFF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    if sys.platform == "linux":
        assert cache.place() == "/elsewhere/geodiff"


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


@pytest.mark.parametrize(
    ("arch", "known"), [("sm_90", "sm_90"), ("sm_89", "sm_89"), ("sm_101", "compute_100"), ("sm_130", "compute_120")]
)
def test_architectures_that_nvrtc_does_not_know(arch: str, known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "supported", lambda: (75, 80, 89, 90, 100, 120))
    monkeypatch.setattr(compiler, "version", lambda: "13.0")
    assert compiler.known(arch) == known
    with pytest.raises(RuntimeError, match=r"NVRTC 13.0 compiles for sm_75 and newer, the device is sm_70\. .*cuda12"):
        compiler.known("sm_70")


@pytest.mark.parametrize(("cuda", "extra"), [("13.0", "cuda"), ("12.8", "cuda12"), (None, "cuda")])
def test_without_nvrtc_or_the_bindings(cuda: str | None, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    for kept in (compiler.version, compiler.supported, driver._driver, driver._loaded):
        kept.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=rf"NVRTC was not found \(.*\)\. .* pip install 'geodiff\[{extra}\]'"):
            compiler.kernel("transport/kernels.h", "gd::transport_lse_add<float>", "sm_90")
        with pytest.raises(RuntimeError, match=rf"the CUDA bindings were not found \(.*'geodiff\[{extra}\]'"):
            driver.build("transport/kernels.h", "gd::transport_lse_add<float>", torch.device("cuda:0"))
        assert driver.version() is None
    finally:
        monkeypatch.undo()
    with contextlib.suppress(RuntimeError):  # where they are, the next call finds them
        assert compiler.supported()


def test_memory_runs_out_in_the_middle_of_an_op(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever of its buffers it is: the error is torch's, and the next call is as if nothing had been."""
    clip, faces = (
        torch.rand(12, 4) + torch.tensor([-0.5, -0.5, 1, 1]),
        torch.arange(12, dtype=torch.int32).reshape(4, 3),
    )

    def run() -> torch.Tensor:
        return ops.rasterize(clip, faces, torch.tensor([[0, 0, 4]]), image_size=(6, 7)).depth

    with emulated():
        expected, empty, calls = run(), torch.empty, 0

        def fails_at(count: int) -> None:
            def given(*arguments: object, **named: object) -> torch.Tensor:
                nonlocal calls
                calls += 1
                if calls == count:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return empty(*arguments, **named)

            monkeypatch.setattr(torch, "empty", given)

        for count in (1, 2, 3):
            calls = 0
            fails_at(count)
            with pytest.raises(RuntimeError, match="out of memory"):
                run()
            monkeypatch.setattr(torch, "empty", empty)
            assert torch.equal(run(), expected)


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
    monkeypatch.setenv("GEODIFF_CACHE", str(next(own_cache.glob("sm_90/*"))))
    with pytest.warns(RuntimeWarning, match="cannot be kept"):
        done = CliRunner().invoke(main, ["compile", "--arch", "sm_80"])
    assert done.exit_code == 2 and "`GEODIFF_CACHE` must be a folder that can be written; got " in done.output
