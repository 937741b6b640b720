# SPDX-License-Identifier: Apache-2.0
"""The path to a device without one: real bindings, on a driver of the tests' own."""

import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent


@pytest.mark.skipif(sys.platform != "linux", reason="builds a libcuda.so.1")
def test_with_a_driver_of_our_own(tmp_path: pathlib.Path) -> None:
    """Runs fake_driver_cases.py in a process of its own: bindings look for the driver but once."""
    pytest.importorskip("cuda.bindings")
    fake = tmp_path / "libcuda.so.1"
    flags = ["-shared", "-fPIC", "-std=c++17", f"-Wl,-soname,{fake.name}"]
    subprocess.run(["c++", *flags, "-o", str(fake), str(HERE / "fake_driver.cpp"), "-ldl"], check=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    cases = str(HERE / "fake_driver_cases.py")
    environment = {**os.environ, "GEODIFF_FAKE_DRIVER": str(fake)}
    done = subprocess.run([*command, cases], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_nothing_of_cuda_is_imported_before_a_tensor_on_a_device_comes() -> None:
    script = """if True:
        import sys, torch
        before = set(sys.modules)  # torch itself looks for the bindings
        import geodiff
        from geodiff import native, ops
        x = torch.rand(5, 2)
        ops.lse(x, x, x[:, 0], 0.1)
        ours = "geodiff.native.gpu."
        found = [name for name in set(sys.modules) - before if name.startswith(("cuda", ours + "schedule."))]
        found += [name for name in (ours + "driver", ours + "compiler", ours + "launcher") if name in sys.modules]
        assert not found, found
    """
    subprocess.run([sys.executable, "-c", script], check=True)
