# SPDX-License-Identifier: Apache-2.0
"""T-conorms over the whole range of p, drawn by kernel and twin: values and gradients against 300 digits, no NaN."""

import math

import mpmath
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodiff import ops, reference, soft
from geodiff.ops.culling import radius_of
from tests.helpers import rounding_bound

POWERS = ("yager", "aczel_alsina", "dombi", "schweizer_sklar")
DTYPES = (torch.float32, torch.float64)

orders = st.floats(-30, 30)  # log10 |p|; all that lies beyond is like the ends
wild = st.floats(-300, 300) | orders | st.floats(-3, 3)
families = st.sampled_from([*POWERS, "hamacher", "frank", "sugeno_weber"])


def rule_of(name: str, order: float) -> tuple[float, soft.TConorm]:
    if name in ("hamacher", "frank"):
        order = max(-29.9, min(29.9, order))
    if name == "sugeno_weber":
        p = 10.0 ** max(-15.5, min(29.9, order)) - 1
        return p, soft.SugenoWeber(torch.tensor(p, dtype=torch.float64, requires_grad=True))
    p = (-1.0 if name == "schweizer_sklar" else 1.0) * 10.0**order
    return p, soft.TCONORMS[name](torch.tensor(p, dtype=torch.float64, requires_grad=True))


def scene(x: list[float], dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Faces with an upright edge, whose distances from the only pixel are the numbers x."""
    corners = [[[-d, -1e3, 2, 1], [-d, 1e3, 2, 1], [1e3, 0, 2, 1]] for d in x]
    faces = torch.arange(3 * len(x)).reshape(-1, 3)
    return torch.tensor(corners, dtype=dtype).reshape(-1, 4), faces, torch.tensor([[0, 0, len(x)]])


def draw(function, x: list[float], dtype: torch.dtype, rule: soft.TConorm, **more):
    """Return alpha, its slopes in the distances, and that in p, of logistic laws with τ = 1."""
    clip, faces, layout = scene(x, dtype)
    clip.requires_grad_()
    model = dict(distribution="logistic", tconorm=rule, scale=1.0, image_size=(1, 1))
    alpha = function(clip, faces, layout, **model, **({"max_error": 0.0} if function is ops.silhouette else {}), **more)
    by_clip, by_p = torch.autograd.grad(alpha.sum(), [clip, rule.p])
    return alpha.item(), -by_clip[:, 0].reshape(-1, 3)[:, :2].sum(1).double(), by_p.item()


def exact(name: str, p: float, x: list[mpmath.mpf]) -> mpmath.mpf:
    """⊥ of logistic F(x), with the largest power taken out."""
    m, p = mpmath, mpmath.mpf(p)
    f, s = [1 / (1 + m.exp(-v)) for v in x], [1 / (1 + m.exp(v)) for v in x]
    if name == "hamacher":
        odds = (m.fprod(1 + p * a / c for a, c in zip(f, s, strict=True)) - 1) / p
        return odds / (1 + odds)
    if name == "sugeno_weber":
        return min(m.mpf(1), (m.fprod(1 + p * a for a in f) - 1) / p if p else m.fsum(f))
    if name == "frank" and p == 1:
        return 1 - m.fprod(s)
    if name == "frank":
        return 1 - m.log(1 + (p - 1) * m.fprod((p**c - 1) / (p - 1) for c in s)) / m.log(p)
    levels = {"yager": m.log, "aczel_alsina": lambda a: m.log(-m.log1p(-a)), "dombi": lambda a: m.log(a / (1 - a))}
    if name == "schweizer_sklar":
        w = [-m.log(c) for c in s]
        top = max(w)
        rest = m.exp(p * top)
        return -m.expm1(-(top - m.log(rest + sum(m.exp(-p * (v - top)) - rest for v in w)) / p))
    w = [levels[name](a) for a in f]
    norm = max(w) + m.log(sum(m.exp(p * (v - max(w))) for v in w)) / p
    if norm > 99:
        return m.mpf(1)
    return {"yager": lambda n: min(m.mpf(1), m.exp(n)), "aczel_alsina": lambda n: -m.expm1(-m.exp(n))}.get(
        name, lambda n: 1 / (1 + m.exp(-n))
    )(norm)


def expected(name: str, p: float, x: list[float]) -> tuple[float, torch.Tensor]:
    with mpmath.workdps(300):
        h, at = mpmath.mpf(10) ** -60, [mpmath.mpf(v) for v in x]

        def moved(i: int, step: mpmath.mpf) -> mpmath.mpf:
            return exact(name, p, [v + (step if i == j else 0) for j, v in enumerate(at)])

        slopes = [float((moved(i, h) - moved(i, -h)) / (2 * h)) for i in range(len(x))]
        return float(moved(-1, h)), torch.tensor(slopes, dtype=torch.float64)


@given(name=families, order=orders | st.floats(-2, 3), x=st.lists(st.integers(-160, 100), min_size=1, max_size=4))
def test_values_and_slopes_are_the_exact_ones_at_any_p(name, order, x):
    x = [v / 8 for v in x]  # what float32 has exactly
    p, rule = rule_of(name, order)
    value, slopes = expected(name, p, x)
    for dtype in DTYPES:
        # log F is 20 ± a rounding, Frank's log(p^a) 70; p-th powers and roots cancel, but for those of tconorms.h.
        bound = rounding_bound(dtype, 10)
        # Up to |p| = 4 the kernel's own powers may leave its range, by e^(−87/4).
        floor = 1e-9 if dtype == torch.float32 else 1e-15
        for function in (ops.silhouette, reference.silhouette):
            alpha, got, by_p = draw(function, x, dtype, rule)
            where = f"{function.__module__} {dtype} {name}({p}) of {x}"
            assert abs(alpha - value) <= bound * value + floor, f"{where}: {alpha} instead of {value}"
            # Where F(x) are all but equal, p times a rounding decides between them, so the slopes count by their sum.
            off = (got - slopes).abs().max() if abs(p) <= 64 else (got.sum() - slopes.sum()).abs()
            plateau = name in ("yager", "sugeno_weber") and value > 1 - 4 * bound
            assert plateau or off <= 4 * bound * slopes.sum() * max(1.0, min(abs(p), 64)) + floor, where
            assert math.isfinite(by_p)


@pytest.mark.parametrize("name", POWERS)
@pytest.mark.parametrize("p", [1e-300, 1e-9, 0.01, 0.24, 0.26, 3.9, 4.1, 20, 50, 100, 300, 1e5, 1e30, 1e300])
def test_one_face_is_its_own_value_and_density_at_any_p(name: str, p: float):
    sign = -1.0 if name == "schweizer_sklar" else 1.0
    for dtype in DTYPES:
        rule = soft.TCONORMS[name](torch.tensor(sign * p, dtype=torch.float64, requires_grad=True))
        for x in (-60.0, -20.0, -3.0, 0.0, 5.0):
            f = 1 / (1 + math.exp(-x))
            for function in (ops.silhouette, reference.silhouette):
                alpha, slopes, by_p = draw(function, [x], dtype, rule)
                # Powers of the kernels up to |p| = 4 end at e^−87 in float32.
                rest = 1e-9 if dtype == torch.float32 and 0.25 <= p <= 4 else 0.0
                assert alpha == pytest.approx(f, rel=rounding_bound(dtype, 10), abs=rest)
                assert slopes.item() == pytest.approx(f * (1 - f), rel=rounding_bound(dtype, 10), abs=rest)
                assert abs(by_p) <= rounding_bound(dtype, 100)


@pytest.mark.parametrize("name", POWERS)
def test_the_limits_are_the_maximum_and_the_drastic_or_probabilistic_sum(name: str):
    x = [-3.0, 0.5, 0.25, -9.0]
    f = [1 / (1 + math.exp(-v)) for v in x]
    rest = 1 - math.prod(1 - a for a in f)
    low = rest if name == "schweizer_sklar" else 1.0
    sign = -1.0 if name == "schweizer_sklar" else 1.0
    for dtype in DTYPES:
        for p, value in ((1e300, max(f)), (1e9, max(f)), (1e-300, low), (1e-25, low)):
            rule = soft.TCONORMS[name](torch.tensor(sign * p, dtype=torch.float64, requires_grad=True))
            for function in (ops.silhouette, reference.silhouette):
                alpha, slopes, _ = draw(function, x, dtype, rule)
                assert alpha == pytest.approx(value, rel=rounding_bound(dtype, 4)), f"{p} {dtype} {function}"
                if p > 1:
                    density = torch.tensor([0, max(f) * (1 - max(f)), 0, 0], dtype=torch.float64)
                    torch.testing.assert_close(slopes, density, rtol=rounding_bound(dtype, 40), atol=1e-30)


@pytest.mark.parametrize("name", POWERS)
def test_slope_in_p_at_large_and_small_p(name: str):
    sign = -1.0 if name == "schweizer_sklar" else 1.0
    sets = {0.1: [-40.0, -39.0, -41.0], 0.02: [-140.0, -141.0], 8.0: [-0.5, -0.25, -0.5], 40.0: [-0.25, -0.5, -0.25]}
    if name == "schweizer_sklar":
        sets |= {0.1: [-1.0, 0.5, -2.0], 1e-9: [-1.0, 0.5, -2.0]}
    for p, x in sets.items():
        with mpmath.workdps(200):
            h, q = mpmath.mpf(10) ** -40, mpmath.mpf(sign * p)
            at = [mpmath.mpf(v) for v in x]
            slope = float((exact(name, q * (1 + h), at) - exact(name, q * (1 - h), at)) / (2 * h * q))
        for dtype in DTYPES:
            rule = soft.TCONORMS[name](torch.tensor(sign * p, dtype=torch.float64, requires_grad=True))
            for function in (ops.silhouette, reference.silhouette):
                by_p = draw(function, x, dtype, rule)[2]
                assert by_p == pytest.approx(slope, rel=rounding_bound(dtype, 40), abs=1e-30), f"{p} {dtype} {function}"


@given(name=families, order=wild, x=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=5))
def test_nothing_is_nan_at_any_p_and_distance(name, order, x):
    _, rule = rule_of(name, order)
    for dtype in DTYPES:
        for function in (ops.silhouette, reference.silhouette):
            for coverage in ("faces", "edges"):
                alpha, slopes, by_p = draw(function, x, dtype, rule, coverage=coverage)
                assert 0 <= alpha <= 1 and math.isfinite(by_p)
                assert torch.isfinite(slopes).all()


@given(name=st.sampled_from(POWERS), order=st.floats(-3, 6), threads=st.sampled_from([2, 3, 5]))
def test_the_same_bits_on_any_number_of_threads(name, order, threads):
    _, rule = rule_of(name, order)
    generator = torch.Generator().manual_seed(7)
    clip = torch.rand(90, 4, generator=generator) * 2 - 1
    clip[:, 2:] = 1.0
    faces, layout = torch.randint(90, (60, 3), generator=generator), torch.tensor([[0, 0, 60]])
    cotangent = torch.rand(1, 70, 33, generator=generator)
    results, before = [], torch.get_num_threads()
    try:
        for count in (1, threads):
            torch.set_num_threads(count)
            leaf = clip.clone().requires_grad_()
            alpha = ops.silhouette(leaf, faces, layout, tconorm=rule, scale=0.05, image_size=(70, 33))
            results.append([alpha.detach(), *torch.autograd.grad(alpha, [leaf, rule.p], cotangent)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@given(name=families, order=wild, max_error=st.floats(1e-9, 0.5), n=st.sampled_from([1, 7, 10**6]), a=st.floats(0, 1))
def test_what_culling_leaves_out_is_within_the_bound_at_any_p(name, order, max_error, n, a):
    _, rule = rule_of(name, order)
    epsilon = rule.cull_threshold(max_error, n)
    assert 0 <= epsilon <= max_error * (1 + 1e-9)
    # n times the same value ε beside a, by associativity: the aggregate of n is that of 2 at p-th root of n.
    few = torch.tensor([a] + [epsilon] * min(n, 7), dtype=torch.float64)
    moved = float((rule.aggregate(few, 0) - a).detach())
    assert -1e-9 <= moved <= max_error * (1 + 1e-6) + 1e-9


@pytest.mark.parametrize("name", POWERS)
def test_something_is_still_left_out_at_large_p(name: str):
    for p in (1e6, 1e300) if name == "schweizer_sklar" else (20.0, 1e3, 1e6, 1e300):
        rule = soft.TCONORMS[name](-p if name == "schweizer_sklar" else p)
        radius = radius_of(soft.Logistic(), rule, 0.01, 1000, 1e-4)
        # log(F/(1 − F)) of the bound itself is −9.21 for p → ∞. The p-th root of 1000 faces comes to that, of the
        # survivals 1 − 1e-4 for Schweizer–Sklar, of the values else.
        root = math.log(1000) / p
        more = -math.log1p(-root / 1e-4) if name == "schweizer_sklar" else root
        assert 0.01 * 9.2 <= radius <= 0.01 * (9.22 + 1.01 * more)
