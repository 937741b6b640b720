# SPDX-License-Identifier: Apache-2.0
"""Solids and their gates: against closed forms, Boolean logic at the corners, and Boolean meshes in the limit."""

import itertools
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff import csg, soft
from tests.soft.test_tconorms import NAMES

F64 = torch.float64
ROUNDING = 1e-12
BOX, BALL = csg.Box(1.4), csg.Sphere(0.8, center=(0.7, 0.7, 0.7))
BOUNDS = [[-1.3] * 3, [1.6] * 3]
OPERATIONS = {
    "union": (BOX | BALL),
    "intersection": (BOX & BALL),
    "difference": (BOX - BALL),
}


def points(count: int = 400, dtype: torch.dtype = F64) -> torch.Tensor:
    return 3 * torch.rand(count, 3, dtype=dtype, generator=torch.Generator().manual_seed(1)) - 1.4


def volume(mesh: gd.Mesh) -> torch.Tensor:
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return (a * torch.linalg.cross(b, c)).sum() / 6


# Gates ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["maximum", "probabilistic", "einstein", "yager(3)", *NAMES[3:]])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_gates_are_boolean_at_the_corners(name: str, dtype: torch.dtype) -> None:
    """Bit for bit, in the order of the truth tables: the numbers are those of table 6.1."""
    a, b = torch.tensor(list(itertools.product((0.0, 1.0), repeat=2)), dtype=dtype).T
    found = soft.gate_values(a, b, name)
    for number, gate in enumerate(soft.GATES):
        table = {
            "false": [0, 0, 0, 0], "and": [0, 0, 0, 1], "a_not_b": [0, 0, 1, 0], "a": [0, 0, 1, 1],
            "b_not_a": [0, 1, 0, 0], "b": [0, 1, 0, 1], "xor": [0, 1, 1, 0], "or": [0, 1, 1, 1],
        }  # fmt: skip
        truth = table[gate] if number < 8 else [1 - x for x in table[soft.GATES[15 - number]]]
        assert found[:, number].tolist() == truth, gate


def test_gates_of_the_probabilistic_sum_are_those_of_the_table() -> None:
    a, b = torch.rand(2, 50, dtype=F64)
    low = [0 * a, a * b, a - a * b, a, b - a * b, b, a + b - 2 * a * b, a + b - a * b]
    assert torch.allclose(soft.gate_values(a, b), torch.stack(low + [1 - f for f in low[::-1]], -1), atol=ROUNDING)


@pytest.mark.parametrize("name", ["probabilistic", "einstein", "maximum"])
@pytest.mark.parametrize("count", [8, 16])
def test_a_mixture_is_the_mean_of_its_gates(name: str, count: int) -> None:
    a, b = torch.rand(2, 50, dtype=F64)
    logits = torch.randn(50, count, dtype=F64)
    expected = (soft.gate_values(a, b, name)[:, :count] * logits.softmax(-1)).sum(-1)
    assert torch.allclose(soft.mixed_gate(a, b, logits, name), expected, atol=ROUNDING)
    assert soft.gate_names(logits) == [soft.GATES[i] for i in logits.argmax(-1).tolist()]


def test_gradients_of_a_mixture() -> None:
    a, b = torch.rand(2, 5, dtype=F64, requires_grad=True)
    logits = torch.randn(16, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda *x: soft.mixed_gate(*x), (a, b, logits))
    assert torch.autograd.gradcheck(lambda *x: soft.mixed_gate(*x, "einstein"), (a, b, logits))


# Solids ---------------------------------------------------------------------------------------------------------------


def test_primitives_are_distances() -> None:
    """Beside points on the surface, by far more than the cloud is dense."""
    p = points(60)
    for solid, mesh in (
        (csg.Sphere(0.8), gd.icosphere(4).scaled(0.8)),
        (csg.Box((1.0, 0.6, 0.8)), gd.box((1.0, 0.6, 0.8))),
        (csg.Cylinder(0.5, 1.2), gd.cylinder(0.5, 1.2, segments=100)),
    ):
        expected = gd.point_mesh_distance(p, gd.Mesh(mesh.vertices.double(), mesh.faces), signed=True)
        assert torch.allclose(solid(p), expected, atol=3e-3)  # of a circle cut into corners
    assert torch.allclose(csg.HalfSpace((0, 2, 0), 0.3)(p), p[:, 1] - 0.3, atol=1e-7)


def test_placed_solids() -> None:
    p = points()
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=F64, generator=torch.Generator().manual_seed(2)))[0]
    moved = csg.Box((1.0, 0.6, 0.8)).scaled(2.0).rotated(turn).translated((0.1, 0.2, 0.3))
    back = (p - torch.tensor([0.1, 0.2, 0.3])) @ turn / 2
    assert torch.allclose(moved(p), 2 * csg.Box((1.0, 0.6, 0.8))(back), atol=1e-6)
    # Its border is as soft in the world as others'.
    assert torch.allclose(csg.Sphere(1.0).scaled(0.5).relaxed(0.1)(p), csg.Sphere(0.5).relaxed(0.1)(p), atol=1e-7)


def test_relaxed_primitives_keep_their_distance() -> None:
    p = points()
    for scale in (1e-3, 0.1, 10.0):
        assert torch.allclose(BOX.relaxed(scale)(p), BOX(p), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [*OPERATIONS, "xor", "not"])
def test_maximum_has_the_hard_solid_at_any_scale(name: str) -> None:
    """Corners and all: the T-conorm whose relaxed operations are minimum and maximum."""
    solid = {**OPERATIONS, "xor": BOX ^ BALL, "not": ~(BOX - BALL)}[name]
    for scale in (0.02, 0.5):
        assert torch.allclose(solid.relaxed(scale, "maximum")(points()), solid(points()), atol=1e-8)


@pytest.mark.parametrize("name", ["probabilistic", "einstein", "yager(3)", "schweizer_sklar(-1)"])
def test_all_tconorms_have_it_in_the_limit(name: str) -> None:
    p = points()
    for solid in (*OPERATIONS.values(), BOX ^ BALL):
        hard = solid(p)
        for scale in (0.1, 0.01, 0.001):
            found = solid.relaxed(scale, name)(p)
            apart = hard.abs() > 2.5 * scale  # a few probabilities ½ at once are worth this much
            assert torch.equal((found < 0)[apart], (hard < 0)[apart]) and int(apart.sum()) > 100
            close = hard.abs() < scale
            if name != "yager(3)":  # which comes to 0 and 1
                assert bool(((found - hard).abs()[close] < 3 * scale).all())


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_limit_is_the_boolean_mesh(name: str) -> None:
    pytest.importorskip("manifold3d")
    import trimesh

    box = trimesh.creation.box((1.4, 1.4, 1.4))
    ball = trimesh.creation.icosphere(5, 0.8)
    ball.apply_translation((0.7, 0.7, 0.7))
    exact = getattr(trimesh.boolean, name)([box, ball], engine="manifold")
    # A grid cuts edges off: by the square of its spacing in area of their section, so twice as fine, a quarter.
    for field in (OPERATIONS[name], OPERATIONS[name].relaxed(0.002)):
        coarse, fine = (gd.isosurface(field, bounds=BOUNDS, resolution=n) for n in (24, 47))
        assert fine.is_closed and fine.euler_characteristic == exact.euler_number
        off, less = (abs(float(volume(mesh)) / exact.volume - 1) for mesh in (coarse, fine))
        assert less < 0.03 and less < 0.45 * off


def test_a_gate_is_the_mean_of_what_its_gates_make() -> None:
    p, logits = points(), torch.randn(8, dtype=F64)
    for name in ("probabilistic", "einstein"):
        found = csg.Gate(BOX, BALL, logits).relaxed(0.2, name).occupancy(p)
        a, b = (solid.relaxed(0.2).occupancy(p) for solid in (BOX, BALL))
        assert torch.allclose(found, soft.mixed_gate(a, b, logits, name), atol=1e-9)


@pytest.mark.parametrize("kind", soft.GATES[:8])
def test_a_certain_gate_is_that_operation(kind: str) -> None:
    logits = torch.full((8,), -60.0, dtype=F64)
    logits[soft.GATES.index(kind)] = 60.0
    gate, p = csg.Gate(BOX, BALL, logits), points()
    inside = gate.relaxed(0.05).occupancy(p)
    assert gate.name == kind
    assert torch.equal(gate(p) < 0, gate.hard()(p) < 0)
    if kind != "false":
        apart = gate(p).abs() > 0.1  # two of ½ at once make ¼ or ¾
        assert torch.equal((inside > 0.5)[apart], (gate(p) < 0)[apart])


def test_gradients_reach_sizes_places_and_gates() -> None:
    p = points(4)

    def value(radius: torch.Tensor, center: torch.Tensor, size: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        ball = csg.Sphere(radius, center)
        return csg.Gate(csg.Box(size), ball | ball.translated(center), logits).relaxed(0.3)(p)

    start = (
        torch.tensor(0.8, dtype=F64),
        torch.tensor([0.5, 0.6, 0.7], dtype=F64),
        torch.tensor([1.0, 1.1, 1.2], dtype=F64),
        torch.randn(8, dtype=F64),
    )
    assert torch.autograd.gradcheck(value, tuple(x.requires_grad_() for x in start))


def test_volume_of_an_isosurface_knows_the_radius() -> None:
    """dV/dr of a box without a ball, −∫ of the ball's surface inside of the box: an eighth of 4π r²."""
    radius = torch.tensor(0.6, requires_grad=True)
    solid = csg.Box(1.4) - csg.Sphere(radius, (0.7, 0.7, 0.7))
    mesh = gd.isosurface(solid.relaxed(0.02, "maximum"), bounds=BOUNDS, resolution=40)
    volume(mesh).backward()
    assert float(radius.grad) == pytest.approx(-0.5 * torch.pi * 0.36, rel=0.06)  # the rim is a cell short


@pytest.mark.parametrize("name", ["logistic", "uniform", "cauchy", "heaviside"])
def test_far_away_and_at_any_scale_it_is_no_nan(name: str) -> None:
    p = torch.tensor([[0.0, 0, 0], [1e4, 0, 0], [0.69, 0.1, 0.1]], requires_grad=True)
    if name == "heaviside":
        with pytest.raises(ValueError, match="`distribution` must be symmetric"):
            BOX.relaxed(0.1, distribution=name)
        return
    for scale in (1e-4, 0.1, 1e3):
        for solid in (BOX - BALL, BOX ^ BALL, csg.Gate(BOX, BALL, torch.zeros(8))):
            value = solid.relaxed(scale, distribution=name)(p)
            assert not bool(value.isnan().any())
            (slope,) = torch.autograd.grad(value[value.isfinite()].sum(), p, allow_unused=True)
            assert slope is None or not bool(slope.isnan().any())


def test_precision_and_units() -> None:
    p = points(dtype=torch.float32)
    soft_solid = (BOX - BALL).relaxed(0.1)
    assert soft_solid(p).dtype == torch.float32
    assert torch.allclose(soft_solid(p), soft_solid(p.double()).float(), atol=2e-6)
    large = (csg.Box(1400.0) - csg.Sphere(800.0, (700.0, 700.0, 700.0))).relaxed(100.0)
    assert torch.allclose(large(1000 * p.double()) / 1000, soft_solid(p.double()), atol=1e-6)
    assert soft_solid(p.reshape(20, 20, 3)).shape == (20, 20)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_modes_of_torch() -> None:
    p = points(30, torch.float32)
    solid = csg.Gate(BOX, BALL, torch.zeros(8)).relaxed(0.2)
    plain = solid(p)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(solid(p), plain)
    with torch.inference_mode():
        assert torch.equal(solid(p), plain)
    value, rate = torch.func.jvp(solid, (p,), (torch.ones_like(p),))
    slope = torch.func.grad(lambda q: solid(q).sum())(p)
    assert torch.equal(value, plain) and torch.allclose(rate, slope.sum(-1), atol=1e-5)


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "radius": (lambda: csg.Sphere(-1.0), ValueError, "Sphere: `radius` must be positive"),
    "radii": (lambda: csg.Sphere((1.0, 2.0)), ValueError, "Sphere: `radius` must be one number"),
    "size": (lambda: csg.Box((1.0, 0.0, 1.0)), ValueError, "Box: `size` must be positive"),
    "sizes": (lambda: csg.Box((1.0, 1.0)), ValueError, r"Box: `size` must be one number, or \(3,\)"),
    "center": (lambda: csg.Box(1.0, (0.0, 0.0)), ValueError, r"Box: `center` must be of shape \(3,\)"),
    "nan": (lambda: csg.Cylinder(1.0, 2.0, (0, torch.nan, 0)), ValueError, "Cylinder: `center` must be finite"),
    "normal": (lambda: csg.HalfSpace((0, 0, 0)), ValueError, "HalfSpace: `normal` must be a vector other than 0"),
    "offset": (lambda: csg.HalfSpace(offset=(1.0, 2.0)), ValueError, "HalfSpace: `offset` must be one number"),
    "function": (lambda: csg.Implicit(3), TypeError, "Implicit: `function` must be a function of points"),
    "values": (lambda: csg.Implicit(lambda p: p)(points()), ValueError, "Implicit: `function` must be a function that"),
    "other": (lambda: BOX | (lambda p: p[:, 0]), TypeError, "Solid: `other` must be a solid of geodiff.csg"),
    "logits": (lambda: csg.Gate(BOX, BALL, torch.zeros(16)), ValueError, r"Gate: `logits` must be of shape \(8,\)"),
    "a": (lambda: csg.Gate(gd.box(), BALL, torch.zeros(8)), TypeError, "Gate: `a` must be a solid"),
    "points": (lambda: BOX(torch.zeros(5, 2)), ValueError, r"Box: `points` must be of shape \(..., 3\)"),
    "dtype": (lambda: BOX.relaxed(0.1)(torch.zeros(5, 3).half()), TypeError, "RelaxedSolid: `points` must be float32"),
    "scale": (lambda: BOX.relaxed(0.0), ValueError, "Solid.relaxed: `scale` must be positive"),
    "scales": (lambda: BOX.relaxed(torch.ones(2)), ValueError, "Solid.relaxed: `scale` must be one number"),
    "squared": (lambda: BOX.relaxed(0.1, distribution="logistic.squared"), ValueError, "must be symmetric"),
    "tconorm": (lambda: BOX.relaxed(0.1, "probabilistik"), ValueError, "Did you mean 'probabilistic'"),
    "level": (lambda: BOX.relaxed(0.1).level(1.0), ValueError, "RelaxedSolid.level: `occupancy` must be at most"),
    "rotation": (lambda: BOX.rotated(2 * torch.eye(3)), ValueError, "Solid.rotated: `rotation` must be orthogonal"),
    "factor": (lambda: BOX.scaled(0.0), ValueError, "Solid.scaled: `factor` must be positive"),
    "gates": (lambda: soft.mixed_gate(*torch.rand(2, 3), torch.zeros(5)), ValueError, r"`logits` must be of shape"),
    "batch": (
        lambda: soft.mixed_gate(*torch.rand(2, 3), torch.zeros(2, 8)),
        ValueError,
        "mixed_gate: `logits` must be of a shape whose first axes",
    ),
    "b": (lambda: soft.gate_values(torch.rand(3), torch.rand(2)), ValueError, "gate_values: `b` must be of a shape"),
    "mixed": (lambda: soft.gate_values(torch.rand(3), torch.rand(3).double()), TypeError, "must be torch.float32 like"),
    "range": (lambda: soft.gate_values(torch.tensor(2.0), torch.tensor(0.0)), ValueError, "must be between 0 and 1"),
}


def test_second_derivatives_on_surfaces_and_axes_are_numbers() -> None:
    at = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 1.5, 0], [0.1, 0.2, 0.3], [2, 0, 0]], dtype=F64)
    for solid in (csg.Box(2.0), csg.Sphere(1.0), csg.Cylinder(1.0, 2.0), csg.Box(2.0) - csg.Sphere(1.0)):
        for field in (solid, solid.relaxed(0.1)):
            p = at.clone().requires_grad_()
            (slope,) = torch.autograd.grad(field(p).sum(), p, create_graph=True)
            # As an eikonal loss asks for them.
            (second,) = torch.autograd.grad((slope.square().sum(-1) - 1).square().sum() + slope.sum(), p)
            assert slope.isfinite().all() and second.isfinite().all()
    p = torch.tensor([[0.0, 2.0, 1.5]], dtype=F64, requires_grad=True)
    assert torch.autograd.gradgradcheck(csg.Box(2.0), (p,)) and torch.autograd.gradgradcheck(csg.Sphere(1.0), (p,))


@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_einsteins_sum_is_hamachers_of_2_far_off_too(dtype: torch.dtype) -> None:
    at = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0.9, 0.9, 0.9], [0.3, 0.1, 0], [1.6, 0.2, 0], [5, 5, 5]], dtype=dtype)
    for solid in (csg.Box(2.0) & BALL, csg.Box(2.0) | BALL, csg.Box(2.0) - BALL, csg.Box(2.0) ^ BALL):
        found = []
        for rule in ("einstein", "hamacher(2)"):
            p = at.clone().requires_grad_()
            value = solid.relaxed(0.02, rule)(p)
            found.append((value, *torch.autograd.grad(value.sum(), p)))
        assert found[0][1].isfinite().all()
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    call, error, message = BAD[name]
    with pytest.raises(error, match=message):
        call()
