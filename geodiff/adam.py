# SPDX-License-Identifier: Apache-2.0
"""Torch's Adam, in a process that does not compile: its own would import all of torch.compile, which takes seconds."""

import inspect
from typing import Any

import torch


class WithoutCompiler(torch.optim.Optimizer):
    """What an optimiser inherits from, instead of torch's own: the same, and no part of torch.compile is imported."""

    # Torch wraps these in what hides them from its compiler, which it imports for that.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)


class Adam(WithoutCompiler, torch.optim.Adam):
    """`torch.optim.Adam`: its arguments, its states, its steps to the bit."""

    def step(self, closure: Any = None) -> Any:
        """Take one step."""
        with torch.set_grad_enabled(self.defaults["differentiable"]):
            return _step(self, closure)


_step = inspect.unwrap(torch.optim.Adam.step)
