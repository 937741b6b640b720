# SPDX-License-Identifier: Apache-2.0
"""Gradients from samples against closed forms, the papers' formulas and SciPy's assignment."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import cauchy, logistic, norm

import geodiff as gd
from geodiff import optim

LAWS = {"gaussian": norm, "logistic": logistic, "cauchy": cauchy}
SIGMAS = 5.0  # standard errors: one in two million by chance, and the seeds are fixed
F64 = torch.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def step(z: torch.Tensor) -> torch.Tensor:
    return (z[..., 0] > 0).to(z)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("antithetic", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_of_a_step_it_is_the_cdf_and_the_density(law: str, antithetic: bool, dtype: torch.dtype):
    for y, sigma in ((0.0, 0.5), (0.3, 0.5), (-2.0, 3.0)):
        at = torch.tensor([y], dtype=dtype)
        found = optim.smoothed_gradient(step, at, sigma, 20_000, law=law, antithetic=antithetic, generator=seeded())
        value, slope = LAWS[law].cdf(y / sigma), LAWS[law].pdf(y / sigma) / sigma
        assert abs(float(found.value) - value) < SIGMAS * math.sqrt(value * (1 - value) / 20_000)
        assert abs(float(found.gradient) - slope) < SIGMAS * float(found.variance.sqrt())
        held = at.clone().requires_grad_()
        optim.smoothed(step, held, sigma, 20_000, law=law, antithetic=antithetic, generator=seeded()).backward()
        assert torch.allclose(held.grad, found.gradient, rtol=1e-5)


def test_the_variance_of_a_step_is_the_closed_form():
    # At the step a pair of draws gives |ε|/2σ: mean φ(0)/σ, variance (1 − 2/π)/4σ²; single ones, with f(0) = 0 taken
    # off, give ε/σ for half of all ε: variance 1/2σ² − φ(0)²/σ².
    for sigma in (0.1, 2.0):
        pairs = optim.smoothed_gradient(step, torch.zeros(1, dtype=F64), sigma, 40_000, generator=seeded())
        assert float(pairs.variance) * 20_000 == pytest.approx((1 - 2 / math.pi) / (4 * sigma**2), rel=0.03)
        single = {"antithetic": False, "generator": seeded()}
        found = optim.smoothed_gradient(step, torch.zeros(1, dtype=F64), sigma, 40_000, **single)
        assert float(found.variance) * 40_000 == pytest.approx((0.5 - norm.pdf(0) ** 2) / sigma**2, rel=0.03)
        assert float(pairs.variance) < 0.6 * float(found.variance)  # as many values of f for both


def test_the_variance_is_that_of_many_repeats():
    y = torch.tensor([0.4, -0.2], dtype=F64)

    def bowl(z: torch.Tensor) -> torch.Tensor:
        return (z[..., 0].abs() + z[..., 1].square()).round(decimals=1)

    runs = [optim.smoothed_gradient(bowl, y, 0.5, 64, generator=seeded(i)) for i in range(400)]
    gradients = torch.stack([run.gradient for run in runs])
    stated = torch.stack([run.variance for run in runs]).mean(0)
    assert torch.allclose(gradients.var(0), stated, rtol=0.3)  # 400 repeats: 7 % of a variance, three times over


@pytest.mark.parametrize("antithetic", [True, False])
def test_it_is_formula_2_2_of_the_source_at_the_places_that_were_tried(antithetic: bool):
    tried = []
    weight = torch.randn(3, 4, 5, dtype=F64, generator=seeded(1))

    def f(z: torch.Tensor) -> torch.Tensor:  # (S, 3, 4) ↦ (S, 5): something with jumps
        tried.append(z)
        return torch.einsum("sij,ijk->sk", (3 * z).round(), weight)

    y = torch.randn(3, 4, dtype=F64, generator=seeded(2)).requires_grad_()
    sigma = torch.tensor([0.5, 1.0, 2.0, 0.1], dtype=F64)
    up = torch.randn(5, dtype=F64, generator=seeded(3))
    value = optim.smoothed(f, y, sigma, 50, antithetic=antithetic, generator=seeded())
    value.backward(up)
    places = tried[0] if antithetic else tried[0][1:]
    values, at_y = f(places).numpy(), f(y.detach()[None]).numpy()
    assert np.allclose(value.detach().numpy(), values.mean(0))
    epsilon = ((places - y.detach()) / sigma).numpy()
    expected = np.zeros((3, 4))
    for e, v in zip(epsilon, values, strict=True):
        expected += (v - at_y[0]) @ up.numpy() * e / sigma.numpy() / len(places)
    assert np.allclose(y.grad.numpy(), expected)


def test_a_batch_spares_its_items_the_noise_of_the_others():
    y = torch.linspace(-1, 1, 40, dtype=F64)[:, None].requires_grad_()
    exact = torch.from_numpy(norm.pdf(y.detach().numpy() / 0.5) / 0.5)
    errors = []
    for batch in (0, 1):
        y.grad = None
        optim.smoothed(step, y, 0.5, 400, batch_dims=batch, generator=seeded()).sum().backward()
        errors.append(float((y.grad - exact).square().mean().sqrt()))
    assert errors[1] < 0.4 * errors[0] and errors[1] < 0.05


def test_through_the_hard_rasteriser_pixels_have_the_gradient_of_their_smoothed_coverage():
    # A square of half side h at x = t covers a pixel at p where |p − t| < h: E = Φ((p − t + h)/σ) − Φ((p − t − h)/σ).
    corners = [[-0.5, -2, 0], [0.5, -2, 0], [0.5, 2, 0], [-0.5, 2, 0]]
    square = torch.tensor(corners, dtype=F64)
    faces, eye = torch.tensor([[0, 1, 2], [0, 2, 3]]), gd.Camera.orthographic((0.0, 0.0, 3.0))

    def image(t: torch.Tensor) -> torch.Tensor:
        moved = square + torch.nn.functional.pad(t[:, None], (0, 2))
        return gd.rasterize(gd.Mesh(moved, faces), eye, (2, 16)).mask[:, 0].to(t)

    t = torch.tensor([0.13], dtype=F64, requires_grad=True)
    alpha = optim.smoothed(image, t, 0.3, 4000, generator=seeded())
    pixels = (np.arange(16) + 0.5 - 8) * 1.0  # the shorter side of two pixels spans [−1, 1]
    low, high = (pixels - 0.13 - 0.5) / 0.3, (pixels - 0.13 + 0.5) / 0.3
    exact = norm.cdf(high) - norm.cdf(low)
    assert np.abs(alpha.detach().numpy() - exact).max() < SIGMAS * 0.5 / math.sqrt(4000)
    slope = (norm.pdf(low) - norm.pdf(high)) / 0.3
    own = [torch.autograd.grad(alpha[i], t, retain_graph=True)[0].item() for i in range(16)]
    assert np.abs(np.array(own) - slope).max() < SIGMAS * 1 / 0.3 / math.sqrt(4000)
    assert abs(slope).max() > 1


def one_hot(z: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(z.argmax(-1), z.shape[-1]).to(z)


@pytest.mark.parametrize("law", ["gaussian", "cauchy"])
def test_fenchel_young_has_the_gradient_of_its_value_and_formula_2_3(law: str):
    y = torch.tensor([[0.3, -0.1, 0.2], [1.0, 0.0, 0.9]], dtype=F64)
    goal = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=F64)
    places = []

    def value(at: torch.Tensor) -> torch.Tensor:
        return optim.fenchel_young(one_hot, at, goal, 0.4, 200, law=law, generator=seeded())

    held = y.clone().requires_grad_()
    value(held).backward()
    for i in range(2):
        for j in range(3):
            move = torch.zeros_like(y)
            move[i, j] = 1e-7
            assert abs(float((value(y + move) - value(y - move)) / 2e-7 - held.grad[i, j])) < 1e-6
    optim.fenchel_young(lambda z: places.append(z) or one_hot(z), y, goal, 0.4, 200, law=law, generator=seeded())
    assert torch.allclose(held.grad, one_hot(places[0]).mean(0) - goal)


def test_fenchel_young_teaches_costs_what_a_solver_shall_find():
    y = torch.zeros(5, 5, dtype=F64, requires_grad=True)
    goal = torch.eye(5, dtype=F64)[[3, 1, 4, 0, 2]]

    def best(z: torch.Tensor) -> torch.Tensor:
        return torch.stack([assigned(-own) for own in z.reshape(-1, 5, 5)]).reshape(z.shape)

    descent = torch.optim.SGD([y], lr=1.0)
    for i in range(15):
        descent.zero_grad()
        optim.fenchel_young(best, y, goal, 0.5, 10, generator=seeded(i)).backward()
        descent.step()
    assert torch.equal(best(y.detach()[None])[0], goal)


def assigned(cost: torch.Tensor) -> torch.Tensor:
    rows, columns = linear_sum_assignment(cost.detach().numpy())
    result = torch.zeros_like(cost)
    result[rows, columns] = 1
    return result


@pytest.mark.parametrize("sense", ["minimum", "maximum"])
@pytest.mark.parametrize("strength", [0.3, 1.0, 5.0])
def test_blackbox_on_an_assignment_is_the_formula_and_the_slope_of_its_stand_in(sense: str, strength: float):
    cost = torch.rand(4, 4, dtype=F64, generator=seeded(4))
    weight = torch.randn(4, 4, dtype=F64, generator=seeded(5))
    sign = 1.0 if sense == "minimum" else -1.0

    def solver(c: torch.Tensor) -> torch.Tensor:
        return assigned(sign * c)

    held = cost.clone().requires_grad_()
    found = optim.blackbox(solver, held, strength, sense=sense)
    assert torch.equal(found, solver(cost))
    (weight * found).sum().backward()

    def least(c: np.ndarray) -> float:
        rows, columns = linear_sum_assignment(c)
        return float(c[rows, columns].sum())

    def stand_in(c: np.ndarray) -> float:  # (min ⟨y + λc, w⟩ − min ⟨y, w⟩)/λ, where a maximum is a minimum of −y
        return (least(sign * c + strength * weight.numpy()) - least(sign * c)) / strength

    at = cost.numpy()
    for i in range(4):
        for j in range(4):
            move = np.zeros((4, 4))
            move[i, j] = 1e-6
            slope = (stand_in(at + move) - stand_in(at - move)) / 2e-6
            assert abs(slope - float(held.grad[i, j])) < 1e-6
    moved = assigned(sign * cost + strength * weight)
    assert torch.allclose(held.grad, sign * (moved - assigned(sign * cost)) / strength)
    assert stand_in(at) <= float((weight * found.detach()).sum()) + 1e-9


def test_blackbox_through_hard_visibility_brings_forward_what_the_image_shows():
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [0, 1, 0]], dtype=F64)
    colors = torch.tensor([[1.0, 0, 0], [0, 0, 1]], dtype=F64)
    eye = gd.Camera.orbit(4.0, fov_deg=40)
    height = torch.tensor([0.2, 0.0], dtype=F64, requires_grad=True)  # red before blue

    def seen(h: torch.Tensor) -> torch.Tensor:
        layers = corners + torch.nn.functional.pad(h[:, None, None], (2, 0))
        mesh = gd.Mesh(layers.reshape(6, 3), torch.arange(6).reshape(2, 3))
        found = gd.fragments(mesh, eye, 8, k=2)
        both = found.mask.all(-1)
        ids, depth = found.face_id[both], found.depth[both]
        in_front = optim.blackbox(lambda d: one_hot(-d), depth, 1.0)
        return (in_front[..., None] * colors[ids]).sum(-2)

    for _ in range(40):
        loss = (seen(height) - colors[1]).square().sum(-1).mean()
        if loss == 0:
            break
        (slope,) = torch.autograd.grad(loss, height)
        assert slope[0] > 0 > slope[1]
        height = (height - 0.02 * slope).detach().requires_grad_()
    assert loss.item() == 0 and height[1] > height[0]


def test_the_same_bits_on_any_number_of_threads_and_by_the_same_seed():
    def image(z: torch.Tensor) -> torch.Tensor:
        return (z[:, :3].sum(-1, keepdim=True) + torch.linspace(-1, 1, 40_000)).round()

    results = []
    before = torch.get_num_threads()
    for threads in (1, 4, 1):
        torch.set_num_threads(threads)
        y = torch.linspace(-1, 1, 6).requires_grad_()
        value = optim.smoothed(image, y, 0.3, 16, generator=seeded())
        value.square().sum().backward()
        results.append((value.detach(), y.grad))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for one in results[1:] for a, b in zip(one, results[0], strict=True))
    other = optim.smoothed(image, torch.linspace(-1, 1, 6), 0.3, 16, generator=seeded(1))
    assert not torch.equal(other, results[0][0])


def test_second_derivatives_and_torch_func_are_refused():
    y = torch.zeros(2, requires_grad=True)
    calls = {
        "smoothed": lambda y: optim.smoothed(step, y, 1.0, 4),
        "fenchel_young": lambda y: optim.fenchel_young(one_hot, y, torch.zeros(2), 1.0, 4),
        "blackbox": lambda y: optim.blackbox(one_hot, y, 1.0).square().sum(),
    }
    for name, call in calls.items():
        (slope,) = torch.autograd.grad(call(y), y, create_graph=True)
        with pytest.raises(RuntimeError, match="gradients are of first order only"):
            slope.sum().backward()
        with pytest.raises(RuntimeError, match=rf"optim\.{name} does not take part in torch\.func"):
            torch.func.grad(call)(torch.zeros(2))


def test_of_an_empty_batch_the_gradient_is_empty():
    y = torch.zeros(0, 3, requires_grad=True)
    found = optim.smoothed(step, y, 1.0, 4, batch_dims=1)
    found.sum().backward()
    assert found.shape == (0,) and y.grad.shape == (0, 3)
    pixels = optim.smoothed(lambda z: z[..., None, :0], torch.zeros(2, 3, requires_grad=True), 1.0, 4, batch_dims=1)
    assert torch.autograd.grad(pixels.sum(), pixels.grad_fn.next_functions[0][0].variable)[0].eq(0).all()


def test_bad_arguments():
    y = torch.zeros(2)
    call = optim.smoothed
    for error, match, run in [
        (TypeError, "`y` must be", lambda: call(step, [0.0], 1.0)),
        (ValueError, "`sigma` must be positive", lambda: call(step, y, 0.0)),
        (ValueError, "`sigma` must be positive", lambda: call(step, y, torch.tensor([1.0, -1.0]))),
        (ValueError, r"broadcasts to \(2,\), that of `y`", lambda: call(step, y, torch.ones(3))),
        (ValueError, r"broadcasts to \(2,\), that of `y`", lambda: call(step, y, torch.ones(5, 2))),
        (ValueError, "`samples` must be even with antithetic=True; got 3", lambda: call(step, y, 1.0, 3)),
        (ValueError, "`samples` must be an integer ≥ 1; got 0", lambda: call(step, y, 1.0, 0)),
        (TypeError, "`samples` must be an integer", lambda: call(step, y, 1.0, 2.5)),
        (TypeError, "`antithetic` must be True or False", lambda: call(step, y, 1.0, 4, antithetic=1)),
        (ValueError, "`law` must be symmetric", lambda: call(step, y, 1.0, 4, law="exponential")),
        (ValueError, "`law` must be symmetric", lambda: call(step, y, 1.0, 4, law="uniform")),
        (ValueError, "must be the name of a known one", lambda: call(step, y, 1.0, 4, law="gausian")),
        (TypeError, "`generator` must be a torch.Generator", lambda: call(step, y, 1.0, 4, generator=3)),
        (ValueError, "`function` must be a function of", lambda: call(lambda z: z[:3], y, 1.0, 4)),
        (TypeError, "`function` must be a function of", lambda: call(lambda z: 0.0, y, 1.0, 4)),
        (ValueError, "`batch_dims` must be an integer ≤ 1", lambda: call(step, y, 1.0, 4, batch_dims=2)),
        (ValueError, "That is what batch_dims says", lambda: call(step, y, 1.0, 4, batch_dims=1)),
        (ValueError, "`loss` must be a function of", lambda: optim.smoothed_gradient(lambda z: z, y, 1.0, 4)),
        (ValueError, "`samples` must be an integer ≥ 4", lambda: optim.smoothed_gradient(step, y, 1.0, 2)),
        (ValueError, "`target` must be of the shape", lambda: optim.fenchel_young(one_hot, y, y[:1], 1.0, 4)),
        (ValueError, "`samples` must be even", lambda: optim.fenchel_young(one_hot, y, y, 1.0, 3)),
        (ValueError, "returns the shape it is given", lambda: optim.fenchel_young(step, y, y, 1.0, 4)),
        (ValueError, "`strength` must be positive", lambda: optim.blackbox(one_hot, y, 0.0)),
        (ValueError, "`sense` must be one of minimum, maximum", lambda: optim.blackbox(one_hot, y, 1.0, sense="min")),
        (ValueError, "`solver` must be a function that returns", lambda: optim.blackbox(lambda z: z[:1], y, 1.0)),
        (TypeError, "`solver` must be a function that returns", lambda: optim.blackbox(lambda z: None, y, 1.0)),
    ]:
        with pytest.raises(error, match=match):
            run()
