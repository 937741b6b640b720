# SPDX-License-Identifier: Apache-2.0
"""Relaxed programs: against closed forms, Python itself where nothing is soft, and the renderer's own coverage."""

import itertools
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff import soft
from geodiff.reference.arguments import pixel_centres
from geodiff.reference.polygons import line_distances, near_clip
from geodiff.render.view import pack

F64 = torch.float64
ROUNDING = 1e-12
EYE = gd.Camera.orbit(distance=2.7, elevation_deg=20.0, azimuth_deg=30.0, fov_deg=60.0)


# Comparisons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["logistic", "cauchy", "uniform", "gaussian"])
def test_comparisons_are_the_distribution(name: str) -> None:
    law = soft.as_distribution(name)
    a, b = torch.randn(2, 40, dtype=F64)
    below = soft.lt(a, b, 3.0, name)
    assert torch.allclose(below, law.cdf(3 * (b - a)), atol=ROUNDING)
    assert torch.allclose(below + soft.lt(b, a, 3.0, name), torch.ones_like(a), atol=ROUNDING)
    assert float(soft.eq(0.7, 0.7, 5.0, name)) == 1.0


def test_equality_is_neither_less_nor_more() -> None:
    a, b = torch.randn(2, 40, dtype=F64)
    both = 4 * soft.lt(a, b, 3.0) * soft.lt(b, a, 3.0)
    assert torch.allclose(soft.eq(a, b, 3.0), both, atol=ROUNDING)
    assert torch.allclose(soft.eq(a, b, 3.0), 1 / torch.cosh(1.5 * (a - b)) ** 2, atol=ROUNDING)


def test_hard_comparisons_are_those_of_python() -> None:
    a = torch.tensor([0.0, 1.0, 2.0])
    assert soft.lt(a, 1.0, distribution="heaviside").tolist() == [1.0, 0.0, 0.0]
    assert soft.eq(a, 1.0, distribution="heaviside").tolist() == [0.0, 1.0, 0.0]


def test_infinite_numbers_compare_as_they_should() -> None:
    inf = torch.tensor([torch.inf, -torch.inf], requires_grad=True)
    beta = torch.tensor(2.0, requires_grad=True)
    p = soft.lt(1.0, inf, beta)
    assert p.tolist() == [1.0, 0.0] and soft.lt(inf, inf).tolist() == [0.5, 0.5]
    assert soft.eq(inf, 1.0).tolist() == [0.0, 0.0]
    assert all(float(g.abs().max()) == 0 for g in torch.autograd.grad(p.sum(), (inf, beta)))


def test_dtypes_follow_tensors() -> None:
    assert soft.lt(0.1, torch.zeros(2)).dtype == torch.float32
    assert soft.lt(torch.zeros(2), torch.tensor(0.1, dtype=F64)).dtype == F64
    assert float(soft.lt(0.1, torch.tensor([0.1], dtype=F64), 1e15)) == 0.5  # a number is not rounded to float32
    assert soft.lt(torch.arange(3), 1).dtype == torch.float32


# Branches -------------------------------------------------------------------------------------------------------------


def test_choose_mixes_nested_states() -> None:
    p = torch.tensor([0.25, 1.0], dtype=F64)
    one = {"x": torch.ones(2, 3, dtype=F64), "more": (torch.ones(2, dtype=F64), [torch.tensor(4.0, dtype=F64)]), "n": 1}
    other = {"x": torch.zeros(2, 3, dtype=F64), "more": (3 * torch.ones(2, dtype=F64), [0.0]), "n": 0.0}
    mixed = soft.choose(p, one, other)
    assert torch.equal(mixed["x"], p[:, None].expand(2, 3))
    assert torch.equal(mixed["more"][0], torch.tensor([2.5, 1.0], dtype=F64))
    assert torch.equal(mixed["more"][1][0], 4 * p) and torch.equal(mixed["n"], p) and mixed["n"].dtype == F64


def test_what_has_no_weight_may_be_infinite() -> None:
    p = torch.tensor([0.0, 1.0], requires_grad=True)
    value = soft.choose(p, torch.tensor([torch.nan, 2.0]), torch.tensor([3.0, torch.inf]))
    assert value.tolist() == [3.0, 2.0]
    value.sum().backward()
    assert bool(p.grad.isfinite().all())


def test_silhouette_by_a_program_over_three_edges() -> None:
    """`for face: if left of one edge: if of the second: if of the third: pixel = 1`, as coverage="edges"."""
    mesh, size, scale = gd.icosphere(1).to(dtype=F64), (12, 15), 0.03
    clip, faces, _ = pack("test", mesh, EYE, size).packed
    lines, _ = line_distances(pixel_centres(size, clip), near_clip(clip[faces.long()], EYE.near))
    image = torch.zeros(len(lines), dtype=F64)
    for d in lines.unbind(1):
        inside = torch.ones_like(image)
        for k in (0, 1, 3):  # a triangle's; the third is of what the near plane cuts
            inside = soft.choose(soft.lt(0.0, d[:, k], 1 / scale), inside, torch.zeros_like(image))
        image = soft.choose(inside, torch.ones_like(image), image)
    made = gd.Renderer(size, scale=scale, coverage="edges", max_error=0.0)
    made.warn_of_bias = False
    assert torch.allclose(made(mesh, EYE).alpha.reshape(-1), image, atol=1e-9)


# Loops ----------------------------------------------------------------------------------------------------------------


def bubble_sort(x: torch.Tensor, beta: float, distribution: str = "logistic") -> dict[str, torch.Tensor]:
    """`while swapped: …` over the last axis, as one writes it."""

    def swap_all(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        items, still = list(state["x"].unbind(-1)), torch.ones_like(state["swapped"])
        for i in range(len(items) - 1):
            p = soft.lt(items[i + 1], items[i], beta, distribution)
            kept, other = soft.choose(p, (items[i + 1], items[i]), (items[i], items[i + 1]))
            items[i], items[i + 1], still = kept, other, still * (1 - p)
        return {"x": torch.stack(items, -1), "swapped": 1 - still, "steps": state["steps"] + 1}

    ones = torch.ones_like(x[..., 0])
    start = {"x": x, "swapped": ones, "steps": torch.zeros_like(ones)}
    return soft.while_loop(lambda s: s["swapped"], swap_all, start, max_steps=60, epsilon=1e-9)


def test_bubble_sort_of_two_is_its_closed_form() -> None:
    """Once over the pair, then on with the probability of having swapped."""
    a, b = torch.randn(2, 20, dtype=F64, generator=torch.Generator().manual_seed(3))
    low, high, result, reached = a, b, torch.zeros(20, 2, dtype=F64), torch.ones(20, dtype=F64)
    for _ in range(300):
        p = torch.sigmoid(8 * (low - high))
        low, high = p * high + (1 - p) * low, p * low + (1 - p) * high
        result, reached = result + (reached * (1 - p))[:, None] * torch.stack([low, high], -1), reached * p
    found = bubble_sort(torch.stack([a, b], -1), 8.0)["x"]
    assert torch.allclose(found, result, atol=1e-7)  # what goes on with less than ε stays where it is
    assert torch.allclose(found.sum(-1), a + b, atol=ROUNDING)


def test_hard_bubble_sort_is_that_of_python() -> None:
    for order in itertools.permutations(range(4)):
        x = torch.tensor(order, dtype=F64)
        out = bubble_sort(x, 1.0, "heaviside")
        items, steps, swapped = list(order), 0, True
        while swapped:
            swapped, steps = False, steps + 1
            for i in range(3):
                if items[i + 1] < items[i]:
                    items[i], items[i + 1], swapped = items[i + 1], items[i], True
        assert out["x"].tolist() == items and float(out["steps"]) == steps


def test_weights_of_a_loop_add_up_to_one() -> None:
    """The corrected (2.12); as it is printed they add up to the first probability."""
    p = torch.tensor([0.9, 0.5, 0.1], dtype=F64)
    state = {"i": torch.zeros(3, dtype=F64), "one": torch.ones(3, dtype=F64)}
    out = soft.while_loop(
        lambda s: p, lambda s: {"i": s["i"] + 1, "one": s["one"]}, state, max_steps=2000, epsilon=1e-13
    )
    assert torch.allclose(out["one"], torch.ones(3, dtype=F64), atol=ROUNDING)
    assert torch.allclose(out["i"], p / (1 - p), atol=1e-9)  # the mean of the geometric distribution


def test_a_loop_that_is_cut_gives_the_rest_to_its_last_state() -> None:
    p = torch.tensor([0.5, 0.25], dtype=F64)
    with pytest.warns(UserWarning, match=r"while_loop: after max_steps=2, 1 of 1 loops would rather go on"):
        soft.while_loop(lambda s: torch.tensor(1.0), lambda s: s + 1, torch.tensor(0.0), max_steps=2)
    out = soft.while_loop(lambda s: p, lambda s: s + 1, torch.zeros(2, dtype=F64), max_steps=2)
    assert torch.allclose(out, p * (1 - p) + 2 * p**2, atol=ROUNDING)


def test_entries_end_one_by_one_and_then_stay() -> None:
    """A body that overflows after its end neither changes the result nor its gradient."""
    x = torch.tensor([3.0, 1e9], requires_grad=True)
    out = soft.while_loop(lambda s: soft.lt(s, 1e10, 1e3), lambda s: s * s, x, max_steps=50)
    assert torch.allclose(out, torch.tensor([3.0**32, 1e18]), rtol=1e-5)
    out.sum().backward()
    assert torch.allclose(x.grad, torch.tensor([32 * 3.0**31, 2e9]), rtol=1e-4)


def test_scale_of_a_program_is_its_beta() -> None:
    x = torch.randn(7, 4, dtype=F64)
    for factor in (1e-6, 1e6):
        scaled = bubble_sort(x * factor, 5 / factor)["x"]
        assert torch.allclose(scaled / factor, bubble_sort(x, 5.0)["x"], atol=1e-9)


# Lookups --------------------------------------------------------------------------------------------------------------


def test_index_between_entries() -> None:
    values = torch.randn(6, 2, dtype=F64)
    whole = soft.index(values, torch.arange(6), 60.0)
    assert torch.allclose(whole, values, atol=1e-9)
    x = torch.tensor([[0.3, 2.5], [-40.0, 70.0]], dtype=F64)
    weight = torch.sigmoid(2 * (torch.arange(6) - x[..., None])) * torch.sigmoid(-2 * (torch.arange(6) - x[..., None]))
    expected = (weight / weight.sum(-1, keepdim=True)) @ values
    assert torch.allclose(soft.index(values, x, 2.0), expected, atol=1e-9)
    grid = torch.randn(4, 5, 3, dtype=F64)
    both = soft.index(grid, torch.tensor([2.0, 3.0], dtype=F64), 60.0, axes=2)
    assert torch.allclose(both, grid[2, 3], atol=1e-9)


def test_index_does_not_differentiate_its_normaliser() -> None:
    values, place = torch.tensor([1.0, 1.0, 1.0], dtype=F64), torch.tensor(0.4, dtype=F64, requires_grad=True)
    (slope,) = torch.autograd.grad(soft.index(values, place), place)
    x = torch.arange(3, dtype=F64) - 0.4
    density = torch.sigmoid(x) * torch.sigmoid(-x)
    assert torch.allclose(slope, (density * (2 * torch.sigmoid(x) - 1)).sum() / density.sum())


def test_soft_argmax_is_exact_in_the_limit() -> None:
    x = torch.tensor([[1.0, 3.0, 2.0], [5.0, 4.0, -1.0]])
    assert torch.equal(soft.soft_argmax(x, 1e4), torch.tensor([[0.0, 1, 0], [1.0, 0, 0]]))
    assert torch.allclose(soft.soft_argmax(x, dim=0).sum(0), torch.ones(3))


# Modes ----------------------------------------------------------------------------------------------------------------


def halved(x: torch.Tensor, beta: torch.Tensor | float = 4.0, **options: Any) -> torch.Tensor:
    """How often x can be halved until it is below 1, times where it ends."""
    start = {"x": x, "n": torch.zeros_like(x)}
    out = soft.while_loop(
        lambda s: soft.lt(1.0, s["x"], beta), lambda s: {"x": s["x"] / 2, "n": s["n"] + 1}, start, **options
    )
    return out["x"] * out["n"]


def test_gradients_are_those_of_differences() -> None:
    x, beta = torch.tensor([0.3, 2.7, 9.0], dtype=F64, requires_grad=True), torch.tensor(2.0, dtype=F64)
    assert torch.autograd.gradcheck(lambda x, b: halved(x, b, max_steps=8, epsilon=None), (x, beta.requires_grad_()))
    assert torch.autograd.gradgradcheck(lambda x: halved(x, max_steps=3, epsilon=None), (x,))
    values = torch.randn(5, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: soft.index(v, torch.tensor([0.7, 3.0], dtype=F64)), (values,))
    assert torch.autograd.gradcheck(lambda v: soft.soft_argmax(v, 3.0), (values,))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_modes_of_torch() -> None:
    x = torch.tensor([0.3, 2.7, 9.0])
    plain = halved(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(halved(x), plain)
    with torch.inference_mode():
        assert torch.equal(halved(x), plain)
    whole = halved(x, max_steps=4, epsilon=None)
    assert torch.allclose(torch.func.vmap(lambda v: halved(v, max_steps=4, epsilon=None))(x), whole)
    value, rate = torch.func.jvp(lambda v: halved(v, max_steps=4, epsilon=None), (x,), (torch.ones_like(x),))
    slope = torch.func.grad(lambda v: halved(v, max_steps=4, epsilon=None).sum())(x)
    assert torch.allclose(value, whole) and torch.allclose(rate, slope)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled() -> None:
    x = torch.tensor([0.3, 2.7, 9.0])
    compiled = torch.compile(lambda v: halved(v, max_steps=4, epsilon=None), backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), halved(x, max_steps=4, epsilon=None))


# Bad input ------------------------------------------------------------------------------------------------------------

ONE = torch.ones(3)
BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "asymmetric": (lambda: soft.lt(0.0, ONE, 1.0, "exponential"), ValueError, "lt: `distribution` must be symmetric"),
    "law": (lambda: soft.eq(0.0, ONE, 1.0, "logistik"), ValueError, "Did you mean 'logistic'"),
    "beta": (lambda: soft.lt(0.0, ONE, 0.0), ValueError, "lt: `beta` must be positive"),
    "beta of index": (lambda: soft.index(ONE, 1.0, -1.0), ValueError, "index: `beta` must be positive"),
    "nan": (lambda: soft.eq(ONE / 0 - torch.inf, ONE), ValueError, "eq: `a` must be free of NaN"),
    "half": (lambda: soft.lt(ONE.half(), 0.0), TypeError, "lt: `a` must be float32 or float64"),
    "shapes": (lambda: soft.lt(ONE, torch.ones(2)), ValueError, r"lt: `b` must be of a shape that broadcasts"),
    "text": (lambda: soft.lt("a", ONE), TypeError, "lt: `a` must be a tensor or an array"),
    "p": (lambda: soft.choose(2 * ONE, ONE, ONE), ValueError, "choose: `p` must be probabilities"),
    "p is nan": (lambda: soft.choose(ONE * torch.nan, ONE, ONE), ValueError, "choose: `p` must be probabilities"),
    "p is bool": (lambda: soft.choose(ONE > 0, ONE, ONE), TypeError, "choose: `p` must be a floating tensor"),
    "keys": (lambda: soft.choose(ONE, {"a": ONE}, {"b": ONE}), TypeError, r"`b` must be a dictionary of \['a'\]"),
    "lengths": (lambda: soft.choose(ONE, (ONE,), (ONE, ONE)), TypeError, "`b` must be a tuple of 1 as a"),
    "integers": (lambda: soft.choose(ONE, [ONE.long()], [ONE]), TypeError, r"`a\[0\]` must be of floating-point"),
    "leaf": (lambda: soft.choose(ONE, {"x": None}, {"x": ONE}), TypeError, r"`a\['x'\]` must be a tensor, or"),
    "batch": (lambda: soft.choose(ONE, torch.ones(2), torch.ones(2)), ValueError, r"begins with \(3,\), the condition"),
    "axes": (
        lambda: soft.choose(torch.ones(3, 2), ONE, ONE),
        ValueError,
        r"begins with \(3, 2\), the condition's, or without",
    ),
    "max_steps": (lambda: soft.while_loop(len, len, ONE, max_steps=0), ValueError, "`max_steps` must be an integer"),
    "epsilon": (lambda: soft.while_loop(len, len, ONE, epsilon=0.7), ValueError, "`epsilon` must be at most 0.5"),
    "condition": (lambda: soft.while_loop(len, len, ONE), TypeError, "while_loop: `condition` must be a tensor"),
    "grows": (
        lambda: soft.while_loop(lambda s: ONE, lambda s: torch.cat([s, s]), ONE),
        ValueError,
        r"while_loop: `body` must be to keep shape \(3,\) and dtype torch.float32 of state; got float32 of shape",
    ),
    "widens": (lambda: soft.while_loop(lambda s: ONE, lambda s: s.double(), ONE), ValueError, "`body` must be to keep"),
    "forgets": (
        lambda: soft.while_loop(lambda s: ONE, lambda s: s["x"], {"x": ONE}),
        TypeError,
        "`what body returns` must be a dictionary",
    ),
    "becomes nan": (
        lambda: soft.while_loop(lambda s: soft.lt(s, 1.0), lambda s: s - torch.inf + torch.inf, ONE),
        ValueError,
        "lt: `a` must be free of NaN",
    ),
    "no density": (
        lambda: soft.eq(ONE, ONE, 1.0, soft.Activated("logistic", 0.25)),
        ValueError,
        "eq: `distribution` must be of a density that is positive and finite at 0; got Activated",
    ),
    "empty": (lambda: soft.index(torch.ones(0), 1.0), ValueError, "index: `values` must be of 1 axes or more"),
    "places": (lambda: soft.index(torch.ones(2, 2), ONE, axes=2), ValueError, "index: `places` must be of shape"),
    "argmax": (lambda: soft.soft_argmax(torch.ones(2, 0)), ValueError, "soft_argmax: `x` must be with entries"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
