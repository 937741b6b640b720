# SPDX-License-Identifier: Apache-2.0
"""Types of the compiled extension (cuda/cpu/bind_*.cpp)."""

from typing import Any

def __getattr__(name: str) -> Any: ...
def simd_level() -> str: ...
