# SPDX-License-Identifier: Apache-2.0
"""The kernels of surface nets against their twins, and what must hold for every grid: manifold, closed, outwards."""

import pytest
import torch
import torch.autograd.forward_ad as forward
from hypothesis import given, settings
from hypothesis import strategies as st

import geodiff as gd
from geodiff.ops import _op
from geodiff.reference.surface_net import SHEETS, net_sum, surface_net
from geodiff.scene.isosurface import _Sums
from tests.scene.test_isosurface import assert_manifold, volume

# Torch's own words on how it makes forward mode, where it is used first.
JIT = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
SHAPES = st.tuples(*[st.integers(2, 7)] * 3)
NAMES = "inner outer at way around quads doubtful count".split()


def bits(shape: tuple[int, ...], seed: int, share: float) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def kernel(inside: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return _op.call(_op.kernels.surface_net, inside=inside, sheets=torch.from_numpy(SHEETS))


@settings(max_examples=60, deadline=None)
@given(SHAPES, st.integers(0, 2**20), st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
def test_kernel_is_its_twin(shape: tuple[int, int, int], seed: int, share: float) -> None:
    inside = bits(shape, seed, share)
    for name, own, twin in zip(NAMES, kernel(inside), surface_net(inside), strict=True):
        assert own.dtype == twin.dtype and torch.equal(own, twin), name


def test_blocks_of_layers_and_threads() -> None:
    """More layers than one thread takes at a time; the rows longer than a word."""
    inside = bits((37, 5, 19), 0, 0.3)
    found, threads = [surface_net(inside)], torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            found.append(kernel(inside))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


@settings(max_examples=80, deadline=None)
@given(SHAPES, st.integers(0, 2**20), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans())
def test_always_a_manifold(shape: tuple[int, int, int], seed: int, share: float, ties: bool) -> None:
    """Of any values, those at the level itself and equal ones among them."""
    values = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) - share
    mesh = gd.isosurface((values * 4).round() if ties else values)
    assert_manifold(mesh)
    assert not mesh.num_faces or (mesh.is_closed and float(volume(mesh)) > 0)


@JIT
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("gather", [False, True])
def test_sums_are_their_twin_and_have_all_derivatives(dtype: torch.dtype, gather: bool) -> None:
    *_, around, _, _, count = surface_net(bits((5, 4, 6), 3, 0.4))
    rows, out = (int(count), len(around)) if gather else (len(around), int(count))
    draw = torch.Generator().manual_seed(1)
    points = torch.randn(rows, 3, dtype=dtype, generator=draw, requires_grad=True)
    own, twin = _Sums.apply(points, around, gather, out), net_sum(points, around, gather, out)
    assert torch.equal(own, twin)
    weight = torch.randn(out, 3, dtype=dtype, generator=draw)
    slopes = [torch.autograd.grad((y * weight).sum(), points)[0] for y in (own, twin)]
    assert torch.equal(*slopes)
    with forward.dual_level():
        tangent = torch.randn(rows, 3, dtype=dtype, generator=draw)
        moved = forward.unpack_dual(_Sums.apply(forward.make_dual(points.detach(), tangent), around, gather, out))
        assert torch.equal(moved.tangent, net_sum(tangent, around, gather, out))
    few = around[:2].clone().unique(return_inverse=True)[1]
    shape = (int(few.max()) + 1 if gather else 2, 3)
    small = torch.randn(shape, dtype=torch.float64, generator=draw, requires_grad=True)
    size = 2 if gather else int(few.max()) + 1
    assert torch.autograd.gradgradcheck(lambda x: _Sums.apply(x, few, gather, size).square(), small)


@JIT
def test_forward_mode_agrees_with_backward() -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(6, 5, 4, dtype=torch.float64, generator=draw, requires_grad=True)
    way = torch.randn(6, 5, 4, dtype=torch.float64, generator=draw)
    (slope,) = torch.autograd.grad(gd.isosurface(values).vertices.square().sum(), values)
    with forward.dual_level():
        mesh = gd.isosurface(forward.make_dual(values.detach(), way))
        moved = forward.unpack_dual(mesh.vertices.square().sum()).tangent
    assert float(moved) == pytest.approx(float((slope * way).sum()), rel=1e-12)
