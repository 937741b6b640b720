# SPDX-License-Identifier: Apache-2.0
"""Two-stage steps: the theorems of chapter 7 as identities, its formulas written out, and RESGRO by brute force."""

import itertools
import math

import pytest
import torch

from geodiff import optim

F64 = torch.float64
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def net() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4)).double()


def softmax_loss(p: torch.Tensor):
    return lambda y: -(p * torch.log_softmax(y, -1)).sum(-1)


def test_a_split_step_by_gradient_descent_is_gradient_descent():  # theorem 7.2
    x = torch.randn(6, 3, dtype=F64, generator=seeded())
    p = torch.softmax(torch.randn(6, 4, dtype=F64, generator=seeded(1)), -1)
    one, two = net(), net()
    plain, split = (torch.optim.SGD(n.parameters(), lr=0.1) for n in (one, two))
    for _ in range(5):
        plain.zero_grad()
        softmax_loss(p)(one(x)).sum().backward()
        plain.step()
        optim.split_step(split, lambda: two(x), lambda y: optim.gradient_target(softmax_loss(p), y))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.allclose(a, b, **EXACT)


def test_a_newton_split_step_of_one_output_is_a_newton_step():  # theorem 7.3, for a linear model
    # ℓ(θ) = log cosh(3θ − 1): Newton's own step is θ − ℓ′/ℓ″ with y = 3θ − 1, that is −(tanh y/(1 − tanh² y))/3.
    theta = torch.tensor([0.2], dtype=F64, requires_grad=True)
    y = float(3 * theta.detach() - 1)
    goal = optim.newton_target(lambda y: torch.log(torch.cosh(y)).sum(-1), 3 * theta.detach() - 1, damping=0.0)
    inner = optim.newton_target(lambda t: 0.5 * (goal - (3 * t - 1)).square().sum(-1), theta.detach(), damping=0.0)
    expected = 0.2 - math.tanh(y) / (1 - math.tanh(y) ** 2) / 3
    assert float(inner) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("kind", ["hessian", "elementwise"])
def test_quadratics_are_solved_in_one_step_and_mean_squares_are_their_own_newton_loss(kind: str):
    root = torch.randn(5, 5, dtype=F64, generator=seeded())
    matrix, middle = root @ root.mT + torch.eye(5), torch.randn(5, dtype=F64, generator=seeded(1))
    y = torch.randn(7, 5, dtype=F64, generator=seeded(2))

    def bowl(z: torch.Tensor) -> torch.Tensor:
        return 0.5 * ((z - middle) @ matrix * (z - middle)).sum(-1)

    goal = optim.newton_target(bowl, y, kind=kind, damping=0.0)
    assert torch.allclose(goal, middle.expand(7, 5), rtol=0, atol=1e-13)
    held, goals = y.clone().requires_grad_(), torch.randn(7, 5, dtype=F64)
    same = optim.newton_target(lambda z: 0.5 * (z - goals).square().sum(-1), held, kind=kind, damping=0.0)
    assert torch.allclose(same, goals, **EXACT) and not same.requires_grad
    optim.split_loss(held, same).backward()
    assert torch.allclose(held.grad, y - goals, **EXACT)


LAMBDA = 0.03


def damped(matrix: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    return torch.linalg.solve(matrix + LAMBDA * torch.eye(g.shape[-1], dtype=F64), g[..., None])[..., 0]


def test_softmax_cross_entropy_has_the_targets_of_7_31_to_7_33():
    y = torch.randn(9, 4, dtype=F64, generator=seeded())
    p = torch.softmax(torch.randn(9, 4, dtype=F64, generator=seeded(1)), -1)
    q = torch.softmax(y, -1)
    hessian = torch.diag_embed(q) - q[:, :, None] * q[:, None, :]
    g = q - p
    expected = {
        "elementwise": y - damped(hessian, g),
        "hessian": y - damped(hessian.mean(0).expand(9, 4, 4), g),
        "fisher": y - damped((g[:, :, None] * g[:, None, :]).mean(0).expand(9, 4, 4), g),
    }
    for kind, goal in expected.items():
        found = optim.newton_target(softmax_loss(p), y, kind=kind, damping=LAMBDA)
        assert torch.allclose(found, goal, **EXACT), kind
    # All logits may grow alike: without damping there is no inverse, which the source does not say.
    for kind in ("elementwise", "hessian"):
        with pytest.raises(RuntimeError, match="`damping` must be positive where the curvature is singular; got 0"):
            optim.newton_target(softmax_loss(p), y, kind=kind, damping=0.0)


def test_binary_cross_entropy_has_its_derivatives_and_not_the_printed_ones():
    # (7.36) as printed multiplies by y² and y; derivatives of (7.34) divide, and both terms of the second are positive.
    y = 0.1 + 0.8 * torch.rand(6, 3, dtype=F64, generator=seeded())
    p = torch.rand(6, 3, dtype=F64, generator=seeded(1))
    g = -p / y + (1 - p) / (1 - y)
    diagonal = p / y**2 + (1 - p) / (1 - y) ** 2
    found = optim.newton_target(
        lambda z: -(p * z.log() + (1 - p) * (1 - z).log()).sum(-1), y, kind="elementwise", damping=0.0
    )
    assert torch.allclose(found, y - g / diagonal, **EXACT)


def test_where_a_loss_curves_down_the_step_goes_down_and_no_farther_than_it_may():
    y = torch.tensor([[0.3, 2.0], [-0.2, -1.0]], dtype=F64)

    def saddle(z: torch.Tensor) -> torch.Tensor:
        return -0.5 * z[..., 0].square() + 0.5 * z[..., 1].square()

    free = optim.newton_target(saddle, y, kind="elementwise", damping=0.0)
    assert torch.allclose(free, torch.tensor([[0.6, 0.0], [-0.4, 0.0]], dtype=F64), **EXACT)
    assert bool((saddle(free) < saddle(y)).all())
    short = optim.newton_target(saddle, y, kind="elementwise", damping=0.0, max_step=0.5)
    assert torch.allclose((short - y).norm(dim=-1), torch.tensor([0.5, 0.5], dtype=F64), **EXACT)
    flat = optim.newton_target(lambda z: 0.0 * z.sum(-1), y)
    assert torch.equal(flat, y)
    linear = optim.newton_target(lambda z: z.sum(-1), y, damping=1.0)
    assert torch.allclose(linear, y - 1, **EXACT)
    constant = optim.newton_target(lambda z: torch.ones(2), y)
    assert torch.equal(constant, y)


# --- RESGRO -----------------------------------------------------------------------------------------------------------


def places_of(y: torch.Tensor, samples: int, seed: int) -> torch.Tensor:
    seen = []
    optim.resgro_target(lambda z: seen.append(z) or z[..., 0] * 0, y, samples, 0.7, generator=seeded(seed))
    return seen[0]


def test_resgro_is_the_best_of_its_places():
    y = torch.randn(4, 3, dtype=F64, generator=seeded())

    def rough(z: torch.Tensor) -> torch.Tensor:
        return (4 * z).round().abs().sum(-1)

    places = places_of(y, 11, 5)
    assert places.shape == (11, 4, 3) and torch.allclose(places.mean(0), y, atol=1.5)
    found = optim.resgro_target(rough, y, 11, 0.7, generator=seeded(5))
    for row in range(4):
        best = min(range(11), key=lambda k: float(rough(places[k, row])))  # the first of ties
        assert torch.equal(found[row], places[best, row])


@pytest.mark.parametrize("subset", [1, 2, 3, 6])
def test_resgro_of_subsets_is_the_mean_over_all_of_them(subset: int):
    y = torch.randn(2, 3, dtype=F64, generator=seeded())
    places = places_of(y, 6, 1)

    def rough(z: torch.Tensor) -> torch.Tensor:
        return z.square().sum(-1)

    values = rough(places)
    expected = []
    for row in range(2):
        bests = [min(own, key=lambda k: float(values[k, row])) for own in itertools.combinations(range(6), subset)]
        expected.append(places[torch.tensor(bests), row].mean(0))
    found = optim.resgro_target(rough, y, 6, 0.7, subset=subset, generator=seeded(1))
    assert torch.allclose(found, torch.stack(expected), **EXACT)


def test_resgro_keeps_what_is_best_and_passes_over_what_is_not_a_number():
    y = torch.zeros(3, 2, dtype=F64)
    kept = optim.resgro_target(lambda z: z.abs().sum(-1), y, 20, 1.0, keep=True, generator=seeded())
    assert torch.equal(kept, y)
    left = optim.resgro_target(
        lambda z: torch.where(z[..., 0] > 0, torch.nan, -z[..., 0]), y, 30, 1.0, generator=seeded()
    )
    assert bool((left[:, 0] < 0).all())


def test_resgro_has_the_same_bits_on_any_number_of_threads():
    y = torch.randn(50, 8, generator=seeded())
    before, found = torch.get_num_threads(), []
    for threads in (1, 4):
        torch.set_num_threads(threads)
        for subset in (None, 5):
            loss = lambda z: (3 * z).round().abs().amax(-1)  # noqa: E731
            found.append(optim.resgro_target(loss, y, 40, 0.3, subset=subset, generator=seeded(2)))
    torch.set_num_threads(before)
    assert torch.equal(found[0], found[2]) and torch.equal(found[1], found[3])


def test_a_model_learns_from_a_loss_without_any_gradient():
    x = torch.randn(40, 3, generator=seeded())
    truth = x @ torch.tensor([[1.0, 0.0], [-2.0, 1.0], [0.5, 3.0]])

    def steps(y: torch.Tensor) -> torch.Tensor:
        return (2 * (y - truth)).round().abs().sum(-1)

    model = torch.nn.Linear(3, 2, bias=False)
    torch.nn.init.zeros_(model.weight)
    descent, noise = torch.optim.SGD(model.parameters(), lr=0.02), seeded(3)
    begin = float(steps(model(x).detach()).mean())
    for _ in range(60):
        goal = lambda y: optim.resgro_target(steps, y, 20, 0.5, generator=noise)  # noqa: E731
        optim.split_step(descent, lambda: model(x), goal)
    assert float(steps(model(x).detach()).mean()) < 0.1 * begin


def test_bad_arguments():
    y, loss = torch.zeros(2, 3), lambda y: y.square().sum(-1)
    newton, resgro = optim.newton_target, optim.resgro_target
    for error, match, run in [
        (TypeError, "newton_target: `y` must be", lambda: newton(loss, [0.0])),
        (ValueError, "`kind` must be one of hessian, fisher, elementwise", lambda: newton(loss, y, kind="hesse")),
        (ValueError, "`damping` must be a finite number ≥ 0", lambda: newton(loss, y, damping=-1.0)),
        (ValueError, "`damping` must be a finite number ≥ 0", lambda: newton(loss, y, damping=math.nan)),
        (ValueError, "`max_step` must be positive", lambda: newton(loss, y, max_step=0.0)),
        (ValueError, r"`loss` must be a function that returns a loss for each row, \(2,\)", lambda: newton(abs, y)),
        (TypeError, "`loss` must be a function that returns a loss", lambda: newton(lambda y: 0.0, y)),
        (ValueError, r"a loss for each row, \(2,\)", lambda: newton(lambda y: loss(y).mean(), y, kind="fisher")),
        (ValueError, "`loss` must be a function with a finite gradient", lambda: newton(lambda y: y.sqrt().sum(-1), y)),
        (RuntimeError, "does not take part in torch.func", lambda: torch.func.grad(lambda y: newton(loss, y).sum())(y)),
        (ValueError, "gradient_target: `step` must be positive", lambda: optim.gradient_target(loss, y, 0.0)),
        (ValueError, "split_loss: `target` must be of the shape", lambda: optim.split_loss(y, y[:1])),
        (ValueError, "resgro_target: `samples` must be an integer ≥ 1", lambda: resgro(loss, y, 0, 1.0)),
        (ValueError, "`sigma` must be positive", lambda: resgro(loss, y, 4, -1.0)),
        (ValueError, "`subset` must be an integer ≤ 4", lambda: resgro(loss, y, 4, 1.0, subset=5)),
        (TypeError, "`keep` must be True or False", lambda: resgro(loss, y, 4, 1.0, keep=1)),
        (ValueError, r"with a loss for each row, \(4, 2\)", lambda: resgro(lambda z: z, y, 4, 1.0)),
        (ValueError, "`law` must be symmetric", lambda: resgro(loss, y, 4, 1.0, law="levy")),
    ]:
        with pytest.raises(error, match=match):
            run()
