# SPDX-License-Identifier: Apache-2.0
"""The path to a device, on a driver that is not there: run by test_driver.py, in a process of its own.

The bindings are the real ones, and load what `fake_driver.cpp` makes, named in GEODIFF_FAKE_DRIVER. Of torch, which has
no CUDA here, what `driver` asks is replaced. A launch runs the emulated kernel, by the arguments that reach the driver.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import threading
from collections.abc import Iterator

import pytest
import torch

from geodiff import ops
from geodiff.native.gpu import compiler, driver, emulated, emulator, launcher

FAKE = ctypes.CDLL(os.environ["GEODIFF_FAKE_DRIVER"])  # found by its soname when the bindings look for the driver
FAKE.fake_calls.restype = ctypes.c_char_p
LAUNCH = "cuLaunchKernel"
ILLEGAL_ADDRESS, OUT_OF_MEMORY, NO_DEVICE = 700, 2, 100


class Cuda:
    """What `driver` sees of torch.cuda: two devices of compute capability 9.0, a stream each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current = threading.local()
        self.waits, self.capturing, self.fault = 0, False, ""
        for name in ("device", "current_stream", "get_device_capability", "synchronize"):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: self.capturing)

    @contextlib.contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before = getattr(self.current, "index", 0)
        self.current.index = device.index
        yield
        self.current.index = before

    def current_stream(self) -> object:
        class Stream:
            cuda_stream = 70 + self.current.index

        return Stream

    def get_device_capability(self, device: torch.device) -> tuple[int, int]:
        if device.index > 1:
            raise AssertionError("Invalid device id")
        return 9, 0

    def synchronize(self) -> None:
        self.waits += 1
        if self.fault:
            fault, self.fault = self.fault, ""
            raise RuntimeError(fault)


@pytest.fixture(autouse=True)
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    """Send what is emulated through the driver, as device cuda:0."""

    def kernel(header: str, name: str, arch: str) -> tuple[bytes, str]:
        assert arch == "sm_90"
        return f"EMULATED {emulator.build(header, name).library}\n".encode(), "_Z" + name

    monkeypatch.setattr(compiler, "kernel", kernel)
    monkeypatch.setattr(launcher, "_built", {})
    monkeypatch.setattr(launcher, "_build", lambda header, name, _: driver.build(header, name, device()))
    for kept in (driver._driver, driver._loaded):
        kept.cache_clear()
    FAKE.fake_version(13000)
    yield Cuda(monkeypatch)
    calls()


def device(index: int = 0) -> torch.device:
    return torch.device("cuda", index)


def calls() -> list[str]:
    return FAKE.fake_calls().decode().split()


def lse() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(50, 3, generator=generator)
    with emulated():
        return ops.lse(x, x, x[:, 0], 0.1)


def same_as_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lse()
    monkeypatch.undo()
    assert torch.equal(found, lse())


def test_kernels_get_their_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Structs, pointers and null pointers of an op with gradients, of one with many kernels, and of a plain number."""

    def run() -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(1)
        clip = torch.rand(12, 4, generator=generator).add(torch.tensor([-0.5, -0.5, 1, 1])).requires_grad_()
        faces, layout = torch.arange(12, dtype=torch.int32).reshape(4, 3), torch.tensor([[0, 0, 4]])
        scale = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
        with emulated():
            alpha = ops.silhouette(clip, faces, layout, scale=scale, image_size=(9, 12))
            raster = ops.rasterize(clip, faces, layout, image_size=(9, 12))
            x = torch.rand(40, 2, generator=generator)
            sums = ops.lse(x, x.repeat(60, 1), x[:, 0].repeat(60), 0.1)
            return [alpha, *torch.autograd.grad(alpha.square().sum(), (clip, scale)), *raster, sums]

    through_driver = run()
    told = calls()
    launched = [call for call in told if call.startswith(LAUNCH)]
    assert len(launched) > 12 and set(launched) == {f"{LAUNCH}@70"}
    assert told.count("cuLibraryLoadData") == told.count("cuLibraryGetKernel") == len(launcher._built)
    monkeypatch.undo()
    for found, expected in zip(through_driver, run(), strict=True):
        assert torch.equal(found, expected)


def test_a_kernel_is_loaded_once_a_device_and_runs_on_its_stream(cuda: Cuda) -> None:
    name, y = "gd::transport_lse_add<float>", torch.zeros(3)
    for index in (0, 1, 1):
        built = driver.build("transport/kernels.h", name, device(index))
        assert built.sizes == [104, 32]
        built.launch((1, 1, 1), (32, 1, 1), arguments(y))
    assert [call for call in calls() if LAUNCH in call] == [f"{LAUNCH}@70", f"{LAUNCH}@71", f"{LAUNCH}@71"]
    # A thread of autograd's, which has no device of its own yet.
    thread = threading.Thread(target=built.launch, args=((1, 1, 1), (32, 1, 1), arguments(y)))
    thread.start()
    thread.join()
    assert calls() == [f"{LAUNCH}@71"]
    assert getattr(cuda.current, "index", 0) == 0


def arguments(y: torch.Tensor) -> ctypes.Array[ctypes.c_void_p]:
    """Two structs of zeros: no rows."""
    rooms = [ctypes.create_string_buffer(size) for size in (104, 32)]
    places = (ctypes.c_void_p * 2)(*map(ctypes.addressof, rooms))
    places.kept = rooms  # type: ignore[attr-defined]
    return places


@pytest.mark.parametrize(
    ("status", "text"),
    [
        (OUT_OF_MEMORY, r"CUDA_ERROR_OUT_OF_MEMORY\. Free memory on the device, or render smaller"),
        (ILLEGAL_ADDRESS, r"CUDA_ERROR_ILLEGAL_ADDRESS\. .*start it again, with GEODIFF_SYNC=1"),
        (702, r"CUDA_ERROR_LAUNCH_TIMEOUT\. .*fewer faces"),
        (1, r"CUDA_ERROR_INVALID_VALUE\. .*fewer images or points"),
        (901, r"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED\. Capture the graph again"),
        (999, r"CUDA_ERROR_UNKNOWN\.$"),
    ],
)
def test_a_launch_that_fails(status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAKE.fake_fail(LAUNCH.encode(), status)
    where = r"geodiff: gd::transport_lse<float, 3, 2> on cuda:0 \(sm_90\), \(1, 1, 1\) blocks of 128 threads: "
    with pytest.raises(RuntimeError, match=where + text):
        lse()
    same_as_emulated(monkeypatch)


@pytest.mark.parametrize(
    ("function", "status", "text"),
    [
        ("cuLibraryLoadData", 200, r"loading gd::.* on cuda:0 \(sm_90\): CUDA_ERROR_INVALID_IMAGE\. The driver knows "),
        ("cuLibraryLoadData", 209, r"NO_BINARY_FOR_GPU\. The driver knows CUDA 13.0, NVRTC is [\d.]+: .*cuda12.*empty"),
        ("cuLibraryLoadData", 222, r"CUDA_ERROR_UNSUPPORTED_PTX_VERSION\. The driver knows"),
        ("cuLibraryLoadData", OUT_OF_MEMORY, r"loading .*CUDA_ERROR_OUT_OF_MEMORY\. Free memory"),
        ("cuLibraryGetKernel", 500, r"finding gd::transport_lse.*: CUDA_ERROR_NOT_FOUND"),
        (
            "cuInit",
            NO_DEVICE,
            r"the CUDA driver does not start \(CUDA_ERROR_NO_DEVICE\)\. Look at what `nvidia-smi` says",
        ),
        ("cuInit", 803, r"does not start \(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH\)\. "),
    ],
)
def test_what_cannot_be_loaded(function: str, status: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    FAKE.fake_fail(function.encode(), status)
    with pytest.raises(RuntimeError, match=text):
        lse()
    assert not launcher._built
    same_as_emulated(monkeypatch)


def test_old_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    FAKE.fake_version(11080)
    with pytest.raises(RuntimeError, match=r"the driver knows CUDA 11\.8, kernels need 12\.0 or newer\. Update"):
        lse()
    FAKE.fake_version(12020)  # which cannot tell the sizes of parameters
    assert driver.version() == "12.2"
    same_as_emulated(monkeypatch)
    assert "cuKernelGetParamInfo" not in calls()


def test_arguments_of_another_size_are_never_launched() -> None:
    with emulated(), pytest.raises(RuntimeError, match=r"takes parameters of \[104, 32\] bytes, not \[4, 8\]"):
        name = "gd::transport_lse_add<float>"
        launcher.launch("transport/kernels.h", name, (1,), 32, ctypes.c_int(), None, device=torch.device("cpu"))
    assert not [call for call in calls() if LAUNCH in call]


def test_while_a_graph_is_captured(cuda: Cuda) -> None:
    cuda.capturing = True
    with pytest.raises(RuntimeError, match=r"transport_lse<.* is not loaded yet, and cannot be while a CUDA graph is"):
        lse()
    cuda.capturing = False
    before = lse()
    calls()
    cuda.capturing = True
    assert torch.equal(lse(), before)
    assert calls() == [f"{LAUNCH}@70"]  # and nothing else, which a capture would not bear


def test_waiting_for_a_kernel_names_it(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    lse()
    assert cuda.waits == 0
    monkeypatch.setenv("GEODIFF_SYNC", "1")
    launcher._built.clear()
    lse()
    assert cuda.waits == 1
    cuda.fault = "CUDA error: an illegal memory access was encountered"
    with pytest.raises(
        RuntimeError, match=r"transport_lse<float, 3, 2> on cuda:0 .*128 threads: CUDA error: an illegal"
    ):
        lse()
    cuda.capturing = True  # where nobody may wait
    lse()
    assert cuda.waits == 2
    cuda.capturing = False
    same_as_emulated(monkeypatch)


def test_devices_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RuntimeError, match=r"cuda:7 is not there \(Invalid device id\): torch finds 2 devices, from"):
        driver.build("transport/kernels.h", "gd::transport_lse_add<float>", device(7))
    monkeypatch.setattr(torch.version, "hip", "6.4")
    driver._driver.cache_clear()
    with pytest.raises(RuntimeError, match=r"for NVIDIA's GPUs, and this torch was built for AMD's"):
        lse()


def test_the_command_line_says_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from geodiff.cli import main

    facts = json.loads(CliRunner().invoke(main, ["info", "--json"]).output)
    assert facts["driver"] == "13.0"


def test_bindings_take_the_library_of_this_test() -> None:
    assert pathlib.Path(os.environ["GEODIFF_FAKE_DRIVER"]).exists()
    lse()
    assert "cuInit" in calls()
