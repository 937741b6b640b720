# SPDX-License-Identifier: Apache-2.0
"""Our Adam is torch's, to the bit, and takes over its states."""

import copy

import pytest
import torch

from geodiff.adam import Adam


def start() -> tuple[list[torch.Tensor], list[dict[str, object]]]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in ((5, 3), (7,))]
    return values, [{"params": values[:1]}, {"params": values[1:], "lr": 0.3}]


def steps(optimizer: torch.optim.Optimizer, values: list[torch.Tensor], count: int) -> None:
    for _ in range(count):
        optimizer.zero_grad()
        sum(value.sin().sum() for value in values).backward()  # type: ignore[union-attr]
        optimizer.step()


@pytest.mark.parametrize("options", [{"foreach": False}, {"fused": True}, {}, {"betas": (0.5, 0.9), "eps": 1e-3}])
def test_steps_and_states_are_those_of_torch(options: dict[str, object]) -> None:
    ours, groups = start()
    mine = Adam(groups, lr=0.1, **options)  # type: ignore[arg-type]
    theirs, groups = start()
    other = torch.optim.Adam(groups, lr=0.1, **options)  # type: ignore[arg-type]
    steps(mine, ours, 3)
    steps(other, theirs, 3)
    other.load_state_dict(copy.deepcopy(mine.state_dict()))  # each goes on from what the other saved
    mine.load_state_dict(copy.deepcopy(other.state_dict()))
    steps(mine, ours, 3)
    steps(other, theirs, 3)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    states = zip(mine.state_dict()["state"].values(), other.state_dict()["state"].values(), strict=True)
    assert all(torch.equal(a[name], b[name]) for a, b in states for name in ("step", "exp_avg", "exp_avg_sq"))


def test_what_is_done_to_an_optimizer_of_torch_is_done_to_ours() -> None:
    x = torch.ones(2, requires_grad=True)
    optimizer = Adam([x], lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)]})
    loss = optimizer.step(lambda: x.sum() * 2)
    schedule.step()
    assert loss == 4 and optimizer.param_groups[0]["lr"] == 0.05 and isinstance(optimizer, torch.optim.Adam)
