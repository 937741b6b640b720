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


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """Load the script, which lies outside the package."""
    spec = importlib.util.spec_from_file_location("compile_kernels", CHECKOUT / ".ci" / "compile_kernels.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


@needs_nvcc
def test_nvcc_instantiates_the_kernels(script: ModuleType, root: pathlib.Path) -> None:
    assert script.check_nvcc(root, [APPLY], "sm_80") == []
    (failure,) = script.check_nvcc(root, [UNKNOWN], "sm_80")
    assert "Thrice" in failure


@needs_nvrtc
def test_every_header_compiles_alone(script: ModuleType) -> None:
    assert script.check_nvrtc(compiler.header_root(), [], "sm_80") == []
