# SPDX-License-Identifier: Apache-2.0
"""The kernels' own exp, log and friends against mpmath, in units in the last place."""

import math

import mpmath
import numpy as np
import pytest
import torch

from geodiff.native import cpu

EXP, LOG, LOG1P, EXPM1, ATAN, ERFCX = range(6)
LEVELS = cpu.simd_levels()
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])


@pytest.fixture(params=sorted(set(LEVELS)))
def level(request: pytest.FixtureRequest):
    """Use one SIMD level after the other."""
    before = cpu.simd_level()
    cpu.extension().set_simd_level(request.param)
    yield request.param
    cpu.extension().set_simd_level(before)


def run(function: int, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    cpu.extension().math(function, np.ascontiguousarray(x), out)
    return out


def exact(function, x: np.ndarray) -> list[mpmath.mpf]:
    with mpmath.workdps(40):
        return [function(mpmath.mpf(float(value))) for value in x]


def ulps(got: np.ndarray, wanted: list[mpmath.mpf]) -> float:
    """The largest error in units in the last place of the exact result."""
    info = np.finfo(got.dtype)
    worst = 0.0
    with mpmath.workdps(40):
        for one, other in zip(got, wanted, strict=True):
            if other == 0:
                assert one == 0
                continue
            _, exponent = mpmath.frexp(other)
            unit = mpmath.mpf(2) ** max(int(exponent) - info.nmant - 1, info.minexp - info.nmant)
            worst = max(worst, float(abs(mpmath.mpf(float(one)) - other) / unit))
    return worst


def spread(dtype, low: float, high: float, count: int = 1500) -> np.ndarray:
    """Random numbers in [low, high], the ends among them."""
    random = np.random.default_rng(4)
    return np.concatenate([[low, high], random.uniform(low, high, count)]).astype(dtype)


def sizes(dtype, low: float, high: float, count: int = 1500) -> np.ndarray:
    """Random numbers of all sizes between low and high."""
    random = np.random.default_rng(5)
    return np.concatenate([[low, high], np.exp(random.uniform(math.log(low), math.log(high), count))]).astype(dtype)


@by_dtype
def test_exp(dtype, level):
    x = spread(dtype, -87.3 if dtype == np.float32 else -708.3, 88 if dtype == np.float32 else 709)
    x = np.concatenate([x, sizes(dtype, 1e-30, 1.0), -sizes(dtype, 1e-30, 1.0), [0]]).astype(dtype)
    assert ulps(run(EXP, x), exact(mpmath.exp, x)) <= 2
    assert run(EXP, np.array([0], dtype))[0] == 1


@by_dtype
def test_log(dtype, level):
    info = np.finfo(dtype)
    x = np.concatenate([sizes(dtype, float(info.tiny) * 1.01, float(info.max) * 0.99), spread(dtype, 0.5, 2.0)]).astype(
        dtype
    )
    near = (1 + np.arange(-40, 41) * info.eps).astype(dtype)  # the result has no cancellation there
    assert ulps(run(LOG, x), exact(mpmath.log, x)) <= 3
    assert ulps(run(LOG, near), exact(mpmath.log, near)) <= 3


@by_dtype
def test_log1p(dtype, level):
    x = np.concatenate([sizes(dtype, 1e-30, 1e30), -sizes(dtype, 1e-30, 0.9999), [0]]).astype(dtype)
    assert ulps(run(LOG1P, x), exact(mpmath.log1p, x)) <= 4


@by_dtype
def test_expm1(dtype, level):
    top = 86.9 if dtype == np.float32 else 707.9
    x = np.concatenate([sizes(dtype, 1e-30, top), -sizes(dtype, 1e-30, 100.0), spread(dtype, -2, 2), [0]]).astype(dtype)
    assert ulps(run(EXPM1, x), exact(mpmath.expm1, x)) <= 4


@by_dtype
def test_atan(dtype, level):
    x = np.concatenate([sizes(dtype, 1e-30, 1e30), spread(dtype, 0, 3), [0]]).astype(dtype)
    assert ulps(run(ATAN, x), exact(mpmath.atan, x)) <= 4


def erfcx(t: mpmath.mpf) -> mpmath.mpf:
    """exp(t²)·erfc(t), by its asymptotic series where the factors leave the range."""
    if t < 25:
        return mpmath.exp(t * t) * mpmath.erfc(t)
    term, total = mpmath.mpf(1), mpmath.mpf(1)
    for n in range(1, 30):
        term *= -(2 * n - 1) / (2 * t * t)
        total += term
    return total / (t * mpmath.sqrt(mpmath.pi))


@by_dtype
def test_erfcx(dtype, level):
    x = np.concatenate([sizes(dtype, 1e-6, 1e8), spread(dtype, 0, 8), [0]]).astype(dtype)
    got, wanted = run(ERFCX, x), exact(erfcx, x)
    relative = max(float(abs(mpmath.mpf(float(a)) / b - 1)) for a, b in zip(got, wanted, strict=True))
    assert relative <= (3e-7 if dtype == np.float32 else 2e-15)  # as cuda/math/erfcx.h states


@by_dtype
def test_extremes_stay_finite(dtype, level):
    info = np.finfo(dtype)
    ends = np.array([-info.max, -1e30, -1000, 1000, 1e30, info.max], dtype)
    assert np.isfinite(run(EXP, ends)).all() and (run(EXP, ends)[:3] == 0).all()
    assert np.isfinite(run(EXPM1, ends)).all() and (run(EXPM1, ends)[:3] == -1).all()
    # Anything below the least normal number counts as that number.
    least = run(LOG, np.array([-1, 0, info.smallest_subnormal, info.tiny], dtype))
    assert np.allclose(least, math.log(info.tiny), rtol=1e-6)
    assert run(LOG, np.array([info.max], dtype))[0] == pytest.approx(math.log(info.max), rel=1e-6)
    assert run(ATAN, np.array([info.max], dtype))[0] == pytest.approx(math.pi / 2, rel=1e-6)


def test_importing_the_kernels_leaves_denormals_alone():
    # A library linked with -ffast-math would switch them off for the whole process.
    cpu.extension()
    assert float(torch.tensor(1e-310, dtype=torch.float64) * 1) > 0
    assert np.float64(1e-310) * 1 > 0
