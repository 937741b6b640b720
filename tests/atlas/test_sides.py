# SPDX-License-Identifier: Apache-2.0
"""Sides of charts on shapes whose outside is known."""

import pytest
import torch

from geodiff.atlas.sides import Orientation, chart_sides
from tests.atlas.shapes import plane, sphere, torus


def side(
    points: torch.Tensor,
    normals: torch.Tensor,
    centers: torch.Tensor,
    radius: float,
    sheet: torch.Tensor | None = None,
    given: torch.Tensor | None = None,
) -> tuple[Orientation, torch.Tensor]:
    """Orient balls of points whose normals were turned over at random; return also what undoes that."""
    near = torch.cdist(points, points[centers]) <= radius
    if sheet is not None:
        near &= sheet[:, None] == sheet[centers]
    chart, point = near.T.nonzero().unbind(1)
    turned = torch.where(torch.rand(len(centers)) < 0.5, -1.0, 1.0).double()
    result = chart_sides(chart, point, points[point], normals[point] * turned[chart, None], len(centers), given=given)
    return result, turned


def test_sphere_faces_outwards() -> None:
    x = sphere(2000)
    result, turned = side(x, x, torch.arange(150), 0.35)
    assert torch.equal(result.sign, turned) and result.agreement == 1.0
    assert result.component.max() == 0


def test_torus_faces_outwards() -> None:
    x = torus(4000)
    ring = x * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    normals = torch.nn.functional.normalize(x - ring / ring.norm(dim=1, keepdim=True), dim=1)
    result, turned = side(x, normals, torch.arange(400), 0.25)
    assert torch.equal(result.sign, turned)


def test_cavity_faces_the_hole() -> None:
    outer, inner = sphere(1500, 1), 0.5 * sphere(1500, 2)
    x = torch.cat((outer, inner))
    sheet = torch.arange(3000) // 1500
    result, turned = side(x, torch.nn.functional.normalize(x, dim=1), torch.arange(0, 3000, 20), 0.35, sheet)
    expected = torch.where(sheet[torch.arange(0, 3000, 20)] == 0, turned, -turned)
    assert torch.equal(result.sign, expected)
    assert len(result.component.unique()) == 2


def test_separate_balls_both_face_outwards() -> None:
    x = torch.cat((sphere(1500, 1), sphere(1500, 2) + 5))
    normals = torch.cat((x[:1500], x[1500:] - 5))
    result, turned = side(x, normals, torch.arange(0, 3000, 20), 0.35)
    assert torch.equal(result.sign, turned)


def test_two_sheets_face_apart() -> None:
    x = torch.cat((plane(1000, 1, 0.0), plane(1000, 2, 0.05)))
    normals = torch.zeros(2000, 3, dtype=torch.float64)
    normals[:1000, 2], normals[1000:, 2] = -1, 1
    result, turned = side(x, normals, torch.arange(0, 2000, 20), 0.2, torch.arange(2000) // 1000)
    assert torch.equal(result.sign, turned)


def test_one_plane_faces_up() -> None:
    x = plane(1000)
    up = torch.tensor([0.0, 0, 1], dtype=torch.float64).expand(1000, 3)
    result, turned = side(x, up, torch.arange(0, 1000, 20), 0.2)
    assert torch.equal(result.sign, turned)


def test_given_normals_decide() -> None:
    x = sphere(2000)
    given = -x.clone()
    given[::5] *= -1  # a fifth are wrong
    result, turned = side(x, x, torch.arange(150), 0.35, given=given)
    assert torch.equal(result.sign, -turned)


def test_charts_that_disagree_are_outvoted() -> None:
    x = sphere(2000)
    chart, point = (torch.cdist(x, x[:150]) <= 0.35).T.nonzero().unbind(1)
    normals = x[point]
    wrong = torch.rand(len(chart)) < 0.2  # some memberships have a normal of the wrong side
    normals = torch.where(wrong[:, None], -normals, normals)
    result = chart_sides(chart, point, x[point], normals, 150)
    assert (result.sign == 1).all() and 0.9 < result.agreement < 1


def test_no_members() -> None:
    nothing = torch.zeros(0, dtype=torch.int64)
    result = chart_sides(nothing, nothing, torch.zeros(0, 3), torch.zeros(0, 3), 3)
    assert result.sign.tolist() == [1, 1, 1] and result.component.tolist() == [0, 1, 2] and result.agreement == 1


def test_bad_input() -> None:
    i, x = torch.tensor([0, 0, 1]), torch.rand(3, 3)
    with pytest.raises(ValueError, match="`chart, point, places, normals` must be of shapes"):
        chart_sides(i, i, x, x[:2], 2)
    with pytest.raises(ValueError, match="`charts` must be more than 1"):
        chart_sides(i, i, x, x, 1)
    with pytest.raises(ValueError, match=r"`given` must be of shape \(2, 3\)"):
        chart_sides(i, i, x, x, 2, given=x[:1])
