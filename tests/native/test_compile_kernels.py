# SPDX-License-Identifier: Apache-2.0
"""NVRTC needs no GPU, so that a kernel which does not compile is found on any machine."""

import importlib.util
import pathlib
import shutil
import sys
from types import ModuleType

import pytest

from geodiff.native.gpu import compiler

CHECKOUT = pathlib.Path(__file__).parents[2]

try:
    compiler.compile_cubin("")
    ABSENT = ""
except RuntimeError as error:
    ABSENT = str(error)

needs_nvrtc = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)
needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not on PATH")

BASE = "#pragma once\nnamespace gd { template <class T> __device__ T twice(T x) { return x + x; } }\n"
KERNEL = """#pragma once
#include "base.h"
namespace gd {
struct Twice { template <class T> __device__ static T f(T x) { return twice(x); } };
template <class T, class F> __global__ void apply(T* x, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) x[i] = F::f(x[i]);
}
}
"""
APPLY = ("room/kernel.h", "gd::apply<double, gd::Twice>")
UNKNOWN = ("room/kernel.h", "gd::apply<double, gd::Thrice>")


def loaded(name: str) -> ModuleType:
    """Load a script, which lies outside the package."""
    spec = importlib.util.spec_from_file_location(name, CHECKOUT / ".ci" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script() -> ModuleType:
    return loaded("compile_kernels")


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """Write a small folder of headers, with one of the CPU's own that no GPU compiler would take."""
    (tmp_path / "room").mkdir()
    (tmp_path / "cpu").mkdir()
    (tmp_path / "base.h").write_text(BASE)
    (tmp_path / "room" / "kernel.h").write_text(KERNEL)
    (tmp_path / "cpu" / "threads.h").write_text("#include <thread>\n")
    return tmp_path


def test_header_root_is_the_checkout_or_the_installed_package() -> None:
    root = compiler.header_root()
    assert root.is_dir()
    assert root in (CHECKOUT / "cuda", pathlib.Path(compiler.__file__).parents[1] / "cuda")


def test_headers_leave_out_those_of_the_cpu(script: ModuleType, root: pathlib.Path) -> None:
    assert script.headers(root) == ["base.h", "room/kernel.h"]


def test_units_are_each_header_alone_and_then_kernels_in_batches(script: ModuleType, root: pathlib.Path) -> None:
    kernels = [("room/kernel.h", name) for name in "abc"]
    assert list(script.units(root, kernels, 2)) == [
        ("base.h", []),
        ("room/kernel.h", []),
        ("room/kernel.h", ["a", "b"]),
        ("room/kernel.h", ["c"]),
    ]


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_cubin_holds_the_kernels_asked_for(root: pathlib.Path, arch: str) -> None:
    cubin, lowered = compiler.compile_cubin(f'#include "{APPLY[0]}"', [APPLY[1]], arch, include=root)
    assert cubin.startswith(b"\x7fELF")
    assert lowered[APPLY[1]].encode() in cubin


@needs_nvrtc
def test_error_shows_the_log(root: pathlib.Path) -> None:
    with pytest.raises(RuntimeError, match=r'(?s)could not compile for sm_80.*no member "Thrice"'):
        compiler.compile_cubin(f'#include "{UNKNOWN[0]}"', [UNKNOWN[1]], include=root)


@needs_nvrtc
def test_unknown_option_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="NVRTC_ERROR_INVALID_OPTION"):
        compiler.compile_cubin("", options=["--no-such-option"])


def test_missing_nvrtc_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    with pytest.raises(RuntimeError, match=r"NVRTC was not found .* pip install 'geodiff\[cuda\]'"):
        compiler.compile_cubin("")


@needs_nvrtc
@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("raster/contour_kernels.h", "gd::contour_cut<true>"),
        ("raster/contour_kernels.h", "gd::contour_segments<float, true>"),
        ("raster/silhouette.h", "gd::silhouette_setup<float, gd::FaceCoverage>"),
    ],
)
def test_kernels_that_must_agree_round_each_product(header: str, name: str) -> None:
    """With fused ones, contour_cut<false> and <true> differ on sm_120: one counted what the other did not write."""
    options = compiler.options_of(header, name)
    text, _ = compiler.compile_cubin(f'#include "{header}"\n', [name], "compute_90", options=options)
    assert b"mul.rn.f" in text and b"fma" not in text


@needs_nvrtc
def test_script_accepts_what_compiles_and_names_what_does_not(script: ModuleType, root: pathlib.Path) -> None:
    assert script.check_nvrtc(root, [APPLY], "sm_90") == []
    (failure,) = script.check_nvrtc(root, [APPLY, UNKNOWN], "sm_90")
    assert "gd::Thrice" in failure


@needs_nvrtc
def test_script_finds_a_header_that_is_not_self_contained(script: ModuleType, root: pathlib.Path) -> None:
    (root / "room" / "needy.h").write_text("__device__ float f(float x) { return gd::twice(x); }\n")
    (failure,) = script.check_nvrtc(root, [], "sm_80")
    assert failure.startswith("room/needy.h") and "gd" in failure


@needs_nvrtc
def test_script_exits_with_one_and_prints_the_log(
    script: ModuleType, root: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    for kernel, status, said in ((APPLY, 0, ""), (UNKNOWN, 1, "Thrice")):
        monkeypatch.setattr(script, "kernel_names", lambda full, kernel=kernel: [kernel])
        assert script.main(["--root", str(root), "--arch", "sm_80"]) == status
        printed = capsys.readouterr()
        assert "nvrtc sm_80: 2 headers, 1 kernels" in printed.out
        assert said in printed.err


STACK = """#pragma once
namespace gd {
template <class T, int N> __global__ void turned(T* x, int n, int k) {
  T own[N];
  for (int i = 0; i < n; ++i) own[i] = x[i];
  x[k] = own[k];
}
template <class T> __global__ void __launch_bounds__(1024) wide(T* x, const T* y) {
  T own[128];
#pragma unroll
  for (int i = 0; i < 128; ++i) own[i] = y[i * 1024 + threadIdx.x];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 128; ++i) x[(127 - i) * 1024 + threadIdx.x] = own[i] * own[127 - i] + own[(5 * i) % 128];
}
}
"""


@needs_nvrtc
def test_script_measures_stacks_and_spills(script: ModuleType, tmp_path: pathlib.Path) -> None:
    (tmp_path / "stack.h").write_text(STACK)
    names = ["gd::turned<float, 100>", "gd::turned<float, 200>", "gd::turned<double, 200>", "gd::wide<float>"]
    used = script.compiled(tmp_path, "stack.h", names, "sm_90")
    assert [used[name].stack for name in names[:3]] == [400, 800, 1600]
    assert used[names[3]].spilled > 32 and used[names[3]].registers <= 64
    assert str(used[names[0]]) == f"{used[names[0]].registers} + 400 B"
    failures = script.check_nvrtc(tmp_path, [("stack.h", name) for name in names], "sm_90")
    assert [failure.split(" for ")[0] for failure in failures] == [names[1], names[3]]
    assert "800 bytes of stack, 0 spilled" in failures[0]


def test_table_has_a_row_for_each_common_kernel(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "COMMON", (("a.h", "gd::f<float>"), ("a.h", "gd::g<float, gd::Law>")))
    use = {"gd::f<float>": script.Usage(32, 0, 0), "gd::g<float, gd::Law>": script.Usage(40, 16, 8)}
    monkeypatch.setattr(script, "compiled", lambda *_: use)
    assert script.table(CHECKOUT, ["sm_80", "sm_90"]).splitlines() == [
        "| kernel | sm_80 | sm_90 |",
        "|---|---|---|",
        "| `f<float>` | 32 | 32 |",
        "| `g<float, Law>` | 40 + 16 B, 8 B spilled | 40 + 16 B, 8 B spilled |",
    ]


SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;            /* 0x00000a00ff017b82 */
        /*0010*/                   LDG.E R4, desc[UR4][R2.64] ;      /* 0x0000000402047981 */
        /*0020*/              @!P0 BRA 0x60 ;                        /* 0x0000000000008947 */
        /*0030*/                   MOV R9, 0x50 ;                    /* 0x0000000000007918 */
        /*0040*/                   CALL.REL.NOINC 0x200 ;            /* 0x0000000000007918 */
        /*0050*/                   BRA 0x70 ;                        /* 0x0000000000007918 */
        /*0060*/                   MUFU.RCP R5, R4 ;                 /* 0x0000000000007918 */
        /*0070*/                   DADD R6, R6, R4 ;                 /* 0x0000000000007918 */
        /*0080*/               @P1 BRA 0x70 ;                        /* 0x0000000000007918 */
        /*0090*/               @P2 BRA 0x10 ;                        /* 0x0000000000007918 */
        /*00a0*/                   EXIT ;                            /* 0x0000000000007918 */
        /*00b0*/                   BRA 0xb0 ;                        /* 0x0000000000007918 */
        /*00c0*/                   NOP ;                             /* 0x0000000000007918 */
"""


def test_innermost_loops() -> None:
    script = loaded("kernel_loops")
    code = script.instructions(SASS)
    assert [address for address, *_ in code] == list(range(0, 0xC0, 16))
    (loop,) = script.loops(code)
    assert (loop.first, loop.last, loop.count, loop.double, loop.special, loop.loads) == (0x70, 0x80, 2, 1, 0, 0)
    outer = [one for one in code if one[0] < 0x70 or one[0] > 0x80]
    (loop,) = script.loops(outer)  # without the inner one, and without the call
    assert (loop.first, loop.last, loop.count, loop.special, loop.loads) == (0x10, 0x90, 4, 1, 1)
    assert script.counted(code, "double", 1) == 2.0


@needs_nvcc
def test_nvcc_instantiates_the_kernels(script: ModuleType, root: pathlib.Path) -> None:
    assert script.check_nvcc(root, [APPLY], "sm_80") == []
    (failure,) = script.check_nvcc(root, [UNKNOWN], "sm_80")
    assert "Thrice" in failure


@needs_nvrtc
def test_every_header_compiles_alone(script: ModuleType) -> None:
    assert script.check_nvrtc(compiler.header_root(), [], "sm_80") == []


def test_a_short_log_is_not_written_over_what_python_shares() -> None:
    """The log of a source without a fault is one byte; Python has one object for each such string."""
    pytest.importorskip("cuda.bindings.nvrtc")
    source = "__global__ void fill(float* x) { x[threadIdx.x] = 1; }"
    compiler.compile_cubin(source)
    assert [bytes([i]).hex() for i in range(256)] == [f"{i:02x}" for i in range(256)]
