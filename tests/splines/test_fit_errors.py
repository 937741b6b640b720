# SPDX-License-Identifier: Apache-2.0
"""What cannot be fitted, and what the fits say of it."""

from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.splines.fit import fit_curve, fit_surface

U = torch.linspace(0, 1, 30)
CURVE = torch.rand(30, 2)
GRID = torch.rand(12, 14, 3)
KNOTS = gd.splines.uniform_knots(8, 3)
LATE = torch.tensor([0.0, 0, 0, 0, 0.05, 0.06, 0.07, 0.9, 1, 1, 1, 1])  # several knots between two points
UNCLAMPED = gd.splines.uniform_knots(8, 3, "unclamped")


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (torch.rand(30), {}, r"`points` must be of shape \(N, D\)"),
        (torch.full((30, 2), torch.inf), {}, r"`points` must be finite"),
        (CURVE, {"control_count": 3}, r"`control_count` must be at least 4 along each axis for degree 3; got 3"),
        (CURVE, {"control_count": True}, r"`control_count` must be at least 4"),
        (CURVE, {"degree": -1}, r"`degree` must be an integer of 0 or more"),
        (CURVE[:7], {}, r"`points` must be at least 8 points for 8 control points; got 7\. Use fewer control points"),
        (CURVE[:7], {"knots": "averaged"}, r"`points` must be at least 8 points along axis 0"),
        (CURVE[:2], {"smoothing": 1.0, "knots": KNOTS}, None),
        (CURVE[:1], {"smoothing": 1.0}, r"`points` must be at least 2 points to smooth; got 1"),
        (
            CURVE[:20],
            {"knots": LATE},
            r"`parameters` must be such that every basis function has a point of its own in its support; got none for "
            r"function 2, whose support is \[0, 0.07\]\. Pass knots=\"averaged\"",
        ),
        (CURVE, {"parameters": 0.4 * U, "periodic": True, "control_count": 12}, r".* got none for function \d+, whose"),
        (CURVE, {"parameters": "arc"}, r"`parameters` must be one of uniform, chord, centripetal; got 'arc'"),
        (CURVE, {"parameters": U[:-1]}, r"`parameters` must be of shape \(30,\); got float64 of shape \(29,\)"),
        (CURVE, {"parameters": 2 * U}, r"`parameters` must be in the domain \[0, 1\]; got \[0, 2\]\. Scale them"),
        (CURVE, {"knots": KNOTS[1:]}, r"`knots` must be 12 knots = K \+ P \+ 1"),
        (CURVE, {"knots": KNOTS.flip(0)}, r"`knots` must be non-decreasing"),
        (CURVE, {"knots": KNOTS[None]}, r"`knots` must be of shape \(M,\)"),
        (CURVE, {"knots": "even"}, r"`knots` must be one of averaged; got 'even'"),
        (CURVE, {"knots": "averaged", "periodic": True}, r"`knots` must be given or left out where periodic"),
        (CURVE, {"knots": UNCLAMPED, "free_knots": True}, r"`knots` must be clamped where knots are free"),
        (CURVE, {"point_weights": torch.ones(29)}, r"`point_weights` must be of shape \(30,\)"),
        (CURVE, {"point_weights": -torch.ones(30)}, r"`point_weights` must be 0 or more, and not all 0"),
        (CURVE, {"point_weights": torch.zeros(30)}, r"`point_weights` must be 0 or more, and not all 0"),
        (CURVE, {"smoothing": -1.0}, r"`smoothing` must be 0 or more, and finite; got -1"),
        (CURVE, {"smoothing": 1.0, "rational": True}, r"`smoothing` must be 0 for rational fits; got 1"),
        (CURVE, {"smoothing": 1.0, "degree": 1}, r"`smoothing` must be 0 below degree 2"),
        (CURVE, {"ends": "fixed"}, r"`ends` must be one of free, interpolate"),
        (CURVE, {"ends": "interpolate", "periodic": True}, r"`ends` must be left out where periodic"),
        (CURVE, {"tangents": (CURVE[0], None), "periodic": True}, r"`tangents` must be left out where periodic"),
        (CURVE, {"ends": "interpolate", "parameters": 0.9 * U}, r"`parameters` must be from end to end of the domain"),
        (CURVE, {"tangents": (CURVE[0], None), "free_knots": True}, r"`tangents` must be left out where knots or"),
        (CURVE, {"tangents": (None, torch.ones(3))}, r"`tangents\[1\]` must be of shape \(2,\)"),
        (
            CURVE,
            {"control_count": 3, "degree": 2, "ends": "interpolate", "tangents": (CURVE[0], CURVE[1])},
            r"`ends` must be conditions that 3 control points of degree 2 can meet; got 4 conditions",
        ),
        (
            CURVE,
            {"rational": True, "weight_bounds": (0.0, 2.0)},
            r"`weight_bounds` must be a pair 0 < low <= 1 <= high",
        ),
        (
            CURVE,
            {"rational": True, "weight_bounds": (2.0, 3.0)},
            r"`weight_bounds` must be a pair 0 < low <= 1 <= high",
        ),
        (CURVE, {"free_knots": True, "starts": 0}, r"`starts` must be an integer ≥ 1; got 0"),
        (CURVE, {"free_knots": True, "max_iterations": 0}, r"`max_iterations` must be an integer ≥ 1; got 0"),
        (CURVE, {"free_knots": True, "tolerance": 0.0}, r"`tolerance` must be positive"),
    ],
)
def test_curves(points: torch.Tensor, options: dict[str, Any], message: str | None) -> None:
    if message is None:  # enough for smoothing
        assert fit_curve(points, **options).rank == 8
        return
    with pytest.raises(ValueError, match="fit_curve: " + message):
        fit_curve(points, **options)


@pytest.mark.parametrize(
    ("points", "options", "message"),
    [
        (GRID[0, 0], {}, r"`points` must be of shape \(N, M, D\).* Heights \(N, M\) are given as \(N, M, 1\)"),
        (CURVE, {}, r"`parameters` must be a pair of tensors for scattered points; got 'uniform'\. .* use fit_cloud"),
        (GRID, {"control_shape": (8, 15)}, r"`points` must be at least 15 points along axis 1 for 15 control points"),
        (GRID, {"control_shape": (3, 8)}, r"`control_shape` must be at least 4 along each axis"),
        (GRID, {"knots": (None, KNOTS[1:])}, r"`knots\[1\]` must be 12 knots"),
        (GRID, {"knots": (None, LATE)}, r".* got none for function 1 along axis 1, whose support"),
        (GRID, {"parameters": (U[:12], U)}, r"`parameters\[1\]` must be of shape \(14,\)"),
        (GRID, {"point_weights": torch.ones(12)}, r"`point_weights` must be of shape \(12, 14\)"),
        (CURVE, {"parameters": (U, U)}, r"`points` must be at least 64 points for 8 × 8 control points; got 30"),
        (
            CURVE,
            {"parameters": (U, 0.5 * U), "control_shape": (4, 5)},
            r".* got none for function \(0, 4\), whose support is \[0, 1\] × \[0.5, 1\]",
        ),
        (
            CURVE,
            {"parameters": (U, U), "control_shape": (4, 4), "ends": "interpolate"},
            r"`ends` must be 'free' for sc",
        ),
    ],
)
def test_surfaces(points: torch.Tensor, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="fit_surface: " + message):
        fit_surface(points, **options)


def test_wrong_classes() -> None:
    with pytest.raises(TypeError, match=r"fit_curve: `points` must be a tensor or an array of numbers"):
        fit_curve("points")
    with pytest.raises(TypeError, match=r"fit_curve: `smoothing` must be a number"):
        fit_curve(CURVE, smoothing="much")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_curve: `max_iterations` must be an integer ≥ 1; got float 2.5"):
        fit_curve(CURVE, free_knots=True, max_iterations=2.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_curve: `seed` must be an integer"):
        fit_curve(CURVE, free_knots=True, seed=0.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_curve: `tangents` must be a pair"):
        fit_curve(CURVE, tangents=CURVE[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_surface: `degree` must be a pair of int"):
        fit_surface(GRID, degree=(3, 3, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_surface: `knots` must be a pair, one for each axis"):
        fit_surface(GRID, knots=KNOTS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"fit_surface: `free_knots` must be a pair of bool"):
        fit_surface(GRID, free_knots=1)  # type: ignore[arg-type]


def test_the_other_kind_is_not_there() -> None:
    with pytest.raises(AttributeError, match=r"this fit is of a curve; take `\.curve`"):
        _ = fit_curve(CURVE).surface
    with pytest.raises(AttributeError, match=r"this fit is of a surface; take `\.surface`"):
        _ = fit_surface(GRID).curve
