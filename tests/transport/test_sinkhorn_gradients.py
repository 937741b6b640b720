# SPDX-License-Identifier: Apache-2.0
import itertools
import math
import warnings

import pytest
import torch

import geodiff as gd
from tests.helpers import assert_close_relative

WHAT = ["cost", "transport_cost", "plan", "f", "g", "product", "transposed"]


def inputs(batch=(), n=5, m=4, d=2):
    x, y = torch.rand(*batch, n, d).double(), torch.rand(*batch, m, d).double()
    return x, y, torch.randn(*batch, n).double(), torch.randn(*batch, m).double()


def value(ot, what: str, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    if what == "plan":
        return ot.plan()
    if what == "product":
        return ot.lazy_plan @ v
    if what == "transposed":
        return ot.lazy_plan.T @ w
    return getattr(ot, what)


def check(function, *tensors) -> None:
    held = tuple(t.clone().requires_grad_() for t in tensors)
    # Solved to 1e-12 and divided by a step of 1e-5, differences carry 1e-7. Along random directions of all inputs.
    assert torch.autograd.gradcheck(function, held, eps=1e-5, atol=2e-6, rtol=1e-5, fast_mode=True)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize(
    "backend, solver, p, reach",
    [("dense", "cg", 2, None), ("dense", "cholesky", 2, 0.6), ("streamed", "cg", 1, None), ("streamed", "cg", 2, 0.6)],
)
def test_clouds(what: str, backend: str, solver: str, p: int, reach: float | None) -> None:
    x, y, r, c = inputs()
    v, w = torch.randn(4, 2).double(), torch.randn(5, 2).double()

    def function(x, y, r, c, epsilon, v, w):
        a, b = r.softmax(-1), 1.2 * c.softmax(-1) if reach else c.softmax(-1)
        options = {"p": p, "reach": reach, "backend": backend, "solver": solver}
        return value(gd.sinkhorn(x, y, a, b, epsilon=epsilon, **options), what, v, w)

    check(function, x, y, r, c, torch.tensor(0.2).double(), v, w)


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("solver", ["cg", "cholesky"])
def test_matrix_in_a_batch(what: str, solver: str) -> None:
    cost = torch.rand(2, 5, 4).double()
    _, _, r, c = inputs((2,))
    v, w = torch.randn(2, 4, 3).double(), torch.randn(2, 5, 3).double()

    def function(cost, r, c, epsilon):
        ot = gd.sinkhorn(cost_matrix=cost, a=r.softmax(-1), b=c.softmax(-1), epsilon=epsilon, solver=solver)
        return value(ot, what, v, w)

    check(function, cost, r, c, torch.tensor(0.1).double())


def test_masses_that_are_free() -> None:
    # With reach the masses count as they are, not a/Σa.
    x, y, r, c = inputs()
    check(lambda a, b: gd.sinkhorn(x, y, a, b, epsilon=0.2, reach=0.5).cost, r.exp(), c.exp())
    check(lambda a, b: gd.sinkhorn(x, y, a, b, epsilon=0.2, reach=0.5).plan(), r.exp(), c.exp())


def test_marginal_gradients_are_tangent_to_the_simplex() -> None:
    x, y, r, c = inputs()
    for what in ("cost", "plan", "f"):
        a, b = r.softmax(-1).requires_grad_(), c.softmax(-1).requires_grad_()
        ot = gd.sinkhorn(x, y, a, b, epsilon=0.1)
        for weight, gradient in zip(
            (a, b), torch.autograd.grad(value(ot, what, a, b).square().sum(), (a, b)), strict=True
        ):
            # That of a/Σa: no change along a itself.
            assert abs(float((gradient * weight.detach()).sum())) < 1e-12 * float(gradient.abs().max() + 1)


@pytest.mark.parametrize("what", ["cost", "plan", "f"])
def test_unrolled_agrees(what: str) -> None:
    x, y, r, c = inputs((2,))
    gradients = []
    for unrolled in (False, True):
        held = x.clone().requires_grad_(), y.clone().requires_grad_(), r.clone().requires_grad_()
        ot = gd.sinkhorn(*held[:2], held[2].softmax(-1), c.softmax(-1), epsilon=0.1, unrolled=unrolled)
        gradients.append(torch.autograd.grad(value(ot, what, x, y).square().sum(), held))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)  # tolerance 1e-12, a condition of some hundred


@pytest.mark.parametrize("backend", ["dense", "streamed"])
@pytest.mark.parametrize("epsilon", [0.01, 0.001])
def test_single_precision_of_implicit_gradients(epsilon: float, backend: str) -> None:
    x, y = (torch.rand(2, n, 3) / math.sqrt(3) for n in (30, 25))
    v = torch.randn(2, 25, 1)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        held = x.to(dtype, copy=True).requires_grad_()
        ot = gd.sinkhorn(held, y.to(dtype), epsilon=epsilon, backend=backend)
        gradients.append(torch.autograd.grad((ot.lazy_plan @ v.to(dtype)).square().sum() * 30, held)[0])
    assert_close_relative(gradients[0], gradients[1], 1e-4, "gradient")


def test_second_derivatives() -> None:
    x, y, *_ = inputs(n=3, m=3)
    held = x.clone().requires_grad_()
    for what in ("cost", "plan", "f"):
        ot = gd.sinkhorn(held, y, epsilon=0.3)
        (first,) = torch.autograd.grad(value(ot, what, x, y).square().sum(), held, create_graph=True)
        with pytest.raises(RuntimeError, match=r"gradients are of first order only"):
            first.sum().backward()
    assert torch.autograd.gradgradcheck(
        lambda x: gd.sinkhorn(x, y, epsilon=0.3, unrolled=True).cost, (held,), atol=1e-5, rtol=1e-4
    )


def test_nothing_is_asked_for_nothing_is_recorded() -> None:
    x, y, *_ = inputs()
    ot = gd.sinkhorn(x, y, epsilon=0.1)
    assert not any(t.requires_grad for t in (ot.cost, ot.f, ot.plan(), ot.transport_cost, ot.lazy_plan @ y))


def test_memory_does_not_grow_with_iterations() -> None:
    x, y, *_ = inputs(n=20, m=20)
    sizes = []
    for most in (20, 2000):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                gd.sinkhorn(x.clone().requires_grad_(), y, epsilon=0.001, max_iterations=most).plan().sum().backward()
        sizes.append(sum(kept))
    assert sizes[0] == sizes[1]


def test_descent_moves_a_cloud_onto_another() -> None:
    x, y = torch.rand(40, 2), torch.rand(40, 2) + 1
    x.requires_grad_()
    loss = gd.SinkhornLoss(epsilon=1e-3)
    for _ in range(30):
        (gradient,) = torch.autograd.grad(loss(x, y), x)
        x = (x - 0.5 * 40 * gradient).detach().requires_grad_()  # half of the way to where the plan sends each point
    assert float(gd.chamfer(x.detach(), y)) < 1e-3


@pytest.mark.parametrize("p", [1, 2])
def test_divergence(p: int) -> None:
    x, y, r, c = inputs((3,), 8, 7)
    a, b = r.softmax(-1), c.softmax(-1)
    parts = [
        gd.sinkhorn(s, t, u, v, epsilon=0.1, p=p).cost for s, t, u, v in ((x, y, a, b), (x, x, a, a), (y, y, b, b))
    ]
    divergence = gd.sinkhorn_divergence(x, y, a, b, epsilon=0.1, p=p)
    torch.testing.assert_close(divergence, parts[0] - parts[1] / 2 - parts[2] / 2, rtol=0, atol=1e-10)
    assert (divergence > 0).all()
    assert gd.sinkhorn_divergence(x, x.clone(), a, a, epsilon=0.1, p=p).abs().max() < 1e-10
    held = x.clone().requires_grad_()
    (flat,) = torch.autograd.grad(gd.sinkhorn_divergence(held, x.clone(), a, a, epsilon=0.1, p=p).sum(), held)
    assert flat.abs().max() < 1e-8  # least where the clouds are the same
    check(
        lambda x, r, e: gd.sinkhorn_divergence(x, y, r.softmax(-1), b, epsilon=e, p=p), x, r, torch.tensor(0.1).double()
    )


def test_unbalanced_divergence() -> None:
    x, y, r, c = inputs()
    a, b = r.exp(), c.exp()
    assert abs(float(gd.sinkhorn_divergence(x, x.clone(), a, a, epsilon=0.1, reach=0.5))) < 1e-10
    assert float(gd.sinkhorn_divergence(x, y, a, b, epsilon=0.1, reach=0.5)) > 0
    check(lambda x, a: gd.sinkhorn_divergence(x, y, a, b, epsilon=0.1, reach=0.5), x, a)


def test_loss_starts_from_where_it_was() -> None:
    x, y, *_ = inputs((2,), 30, 20)
    fresh = gd.sinkhorn_divergence(x, y, epsilon=0.01)
    for debiased, reduction in itertools.product((True, False), ("none", "mean", "sum")):
        loss = gd.SinkhornLoss(0.01, debiased=debiased, reduction=reduction)
        wanted = fresh if debiased else gd.sinkhorn(x, y, epsilon=0.01).cost
        wanted = wanted if reduction == "none" else getattr(wanted, reduction)()
        for cloud in (x + 1e-3, x):
            last = loss(cloud, y)
        torch.testing.assert_close(last, wanted, rtol=1e-9, atol=1e-11)
        assert loss(x[0], y[0]).dim() == 0 or reduction == "none"  # other sizes start anew
    assert list(loss.state_dict()) == [] and "epsilon=0.01" in repr(loss)
    loss.reset()
    torch.testing.assert_close(loss(x, y), wanted, rtol=1e-9, atol=1e-11)
