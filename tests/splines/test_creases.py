# SPDX-License-Identifier: Apache-2.0
"""Corners of a curve: found in its points, and fitted."""

from typing import Any

import numpy as np
import pytest
import torch

from geodiff.splines import fit_curve, multiplicities
from geodiff.splines.creases import find_creases

T = np.linspace(0, 1, 200)
ARCHES = np.abs(np.sin(3 * np.pi * T))[:, None]
CORNERS = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0.0]])
SQUARE = np.stack([np.interp(4 * T, np.arange(5), CORNERS[:, i]) for i in (0, 1)], 1)
SMOOTH = np.stack([np.cos(6.2 * T), np.sin(20 * T)], 1)


def noisy(points: np.ndarray, sigma: float, seed: int = 1) -> np.ndarray:
    return points + sigma * np.random.default_rng(seed).normal(size=points.shape)


@pytest.mark.parametrize("scale", [1.0, 1e-6, 1e6])
@pytest.mark.parametrize(("sigma", "step"), [(0.0, 1e-3), (1e-3, 2e-3), (1e-2, 1e-2)])
def test_corners_are_found_in_any_unit(sigma: float, step: float, scale: float) -> None:
    """Within a fifth of a sample of 1/199 without noise; with it, as far as the noise hides them."""
    assert find_creases(scale * noisy(ARCHES, sigma) - 7 * scale, T) == pytest.approx([1 / 3, 2 / 3], abs=step)
    assert find_creases(scale * noisy(SQUARE, sigma), T) == pytest.approx([0.25, 0.5, 0.75], abs=step)


@pytest.mark.parametrize("sigma", [0.0, 1e-3, 1e-2, 0.1])
def test_smooth_curves_have_none(sigma: float) -> None:
    for seed in range(3):
        assert find_creases(noisy(SMOOTH, sigma, seed), T) == []
        assert find_creases(noisy(0 * SMOOTH, sigma, seed), T) == []
    assert find_creases(SMOOTH[:15], T[:15]) == []


@pytest.mark.parametrize("seed", range(4))
def test_a_fit_with_creases(seed: int) -> None:
    points = torch.from_numpy(ARCHES + 1e-9 * np.random.default_rng(seed).standard_normal(ARCHES.shape))
    fit = fit_curve(points, 16, creases="auto")
    assert fit.mse < fit_curve(points, 16).mse / 1000
    knots = fit.curve.knots[0]
    for corner in (1 / 3, 2 / 3):
        assert int(((knots - corner).abs() < 1e-3).sum()) == 3
    plain, free = fit_curve(points, 16, free_knots=True), fit_curve(points, 16, creases="auto", free_knots=True)
    assert free.mse < fit.mse / 5
    # Both end in one of two valleys, 1.66e-7 and 1.82e-7: which, is up to the last digits.
    assert free.mse < 1.2 * plain.mse
    assert free.iterations < plain.iterations / 2


def test_creases_by_name() -> None:
    points = torch.from_numpy(SQUARE).requires_grad_()
    fit = fit_curve(points, 13, creases=[0.25, 0.5, 0.75])
    values, counts = multiplicities(fit.curve.knots[0])
    assert values.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert counts.tolist() == [4, 3, 3, 3, 4]
    assert fit.mse < 1e-25
    assert fit.curve.control_points.requires_grad
    values, counts = multiplicities(fit_curve(points.detach(), 9, 2, creases=[0.5]).curve.knots[0])
    assert values.tolist() == pytest.approx([0, 1 / 6, 1 / 3, 0.5, 2 / 3, 5 / 6, 1])
    assert counts.tolist() == [3, 1, 1, 2, 1, 1, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"creases": "auto", "periodic": True},
            r"`creases` must be left out where periodic; got 'auto'\. Repeat P times",
        ),
        ({"creases": "auto", "knots": "averaged"}, r"`creases` must be left out where knots are given"),
        ({"creases": "auto", "degree": 0}, r"`creases` must be left out at degree 0"),
        ({"creases": "find"}, r"`creases` must be 'auto' or a tensor of parameters; got 'find'"),
        ({"creases": [0.5, 0.2]}, r"`creases` must be increasing and inside of \(0, 1\); got \[0.5, 0.2\]"),
        ({"creases": [0.0, 0.2]}, r"`creases` must be increasing and inside"),
        ({"creases": [[0.2]]}, r"`creases` must be of shape \(J,\)"),
        (
            {"creases": "auto", "control_count": 9},
            r"`control_count` must be at least 10 for 2 creases of degree 3; got 9",
        ),
        (
            {"creases": "auto", "parameters": torch.zeros(200)},
            r"`parameters` must be increasing to find creases; got oth",
        ),
    ],
)
def test_bad_creases(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="fit_curve: " + message):
        fit_curve(torch.from_numpy(ARCHES), **{"control_count": 12, **options})
