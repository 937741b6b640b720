# SPDX-License-Identifier: Apache-2.0
"""Runs the kernels of ``cuda/`` on a GPU, or on the host as a GPU would: for tests, where there is none.

`compiler` and `driver` build and launch them on a device, `emulator` on the host, `launcher` asks one or the other;
`structs` has what they are handed, `schedule` says which kernels an op consists of.
"""

from geodiff.native.gpu.emulation import emulated, is_emulating

__all__ = ["emulated", "is_emulating"]
