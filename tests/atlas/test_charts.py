# SPDX-License-Identifier: Apache-2.0
"""Charts: evaluation against a loop of torch.nn networks, derivatives against differences, starts."""

import dataclasses

import pytest
import torch

from geodiff.atlas.charts import Charts, Placement
from geodiff.atlas.cover import Cover
from geodiff.atlas.ragged import Ragged
from tests.helpers import assert_close_relative, assert_gradient_is_derivative, rounding_bound


def cover(charts: int = 5, members: int = 30) -> Cover:
    """Patches of random points, flat ones in random planes."""
    chart = torch.arange(charts).repeat_interleave(members)
    frames = torch.linalg.qr(torch.randn(charts, 3, 3))[0]
    local = torch.randn(charts, members, 3) * torch.tensor([1.0, 0.5, 0.01])
    points = (local @ frames + torch.randn(charts, 1, 3)).flatten(0, 1)
    count = charts * members
    no = torch.zeros(count, dtype=torch.bool)
    return Cover(points, torch.zeros(charts, 3), torch.ones(charts), chart, torch.arange(count), ~no, no,
                 torch.zeros(count, 3))  # fmt: skip


def trained(activation: str = "relu", dtype: torch.dtype = torch.float32, charts: int = 5) -> Charts:
    """Charts with random numbers everywhere, as after a fit."""
    made = Charts.create(cover(charts), (16, 12), seed=3, activation=activation)
    made = made.with_parameters([torch.randn_like(p) / p.shape[-1] ** 0.5 for p in made.parameters()])
    cast = {f: getattr(made, f).to(dtype) for f in ("linear", "offset", "center", "rotation", "scale")}
    return dataclasses.replace(
        made, weights=tuple(w.to(dtype) for w in made.weights), biases=tuple(b.to(dtype) for b in made.biases), **cast
    )


def one_by_one(charts: Charts, uv: torch.Tensor) -> torch.Tensor:
    """The same maps, a chart at a time, with torch.nn modules."""
    act = {"relu": torch.nn.ReLU(), "tanh": torch.nn.Tanh(), "softplus": torch.nn.Softplus(10.0)}[charts.activation]
    result = []
    for q in range(len(charts)):
        layers: list[torch.nn.Module] = []
        for w, b in zip(charts.weights, charts.biases, strict=True):
            layer = torch.nn.Linear(w.shape[1], w.shape[2], dtype=torch.float64)
            layer.weight.data, layer.bias.data = w[q].T.double(), b[q].double()
            layers += [layer, act]
        net = torch.nn.Sequential(*layers[:-1])
        v = 2 * uv[q].double() - 1
        local = charts.offset[q].double() + v @ charts.linear[q].double() + net(v)
        turned = (charts.rotation[q].double().T @ local.T).T
        result.append(charts.center[q].double() + charts.scale[q].double() * turned)
    return torch.stack(result).detach()


@pytest.mark.parametrize("activation", ["relu", "softplus", "tanh"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_charts_are_their_networks(activation: str, dtype: torch.dtype) -> None:
    charts = trained(activation, dtype)
    uv = torch.rand(5, 40, 2, dtype=dtype)
    assert_close_relative(charts(uv), one_by_one(charts, uv), rounding_bound(dtype))


def test_ragged_rows_are_the_batched_ones() -> None:
    charts = trained()
    uv = torch.rand(5, 40, 2)
    keep = torch.tensor([40, 3, 0, 17, 31])
    chart = torch.arange(5).repeat_interleave(keep)
    places = torch.cat([uv[q, :k] for q, k in enumerate(keep.tolist())])
    expected = torch.cat([charts(uv)[q, :k] for q, k in enumerate(keep.tolist())])
    assert_close_relative(charts.flat(places, chart), expected, rounding_bound(torch.float32))
    points, slope = charts.flat_jacobian(places, chart)
    assert_close_relative(points, expected, rounding_bound(torch.float32))
    whole = charts.jacobian(uv)[1]
    assert_close_relative(
        slope, torch.cat([whole[q, :k] for q, k in enumerate(keep.tolist())]), rounding_bound(torch.float32)
    )
    normal = charts.flat_normals(places, chart)
    assert float((normal[:, :, None] * slope).sum(1).abs().max()) < 1e-5 * float(slope.abs().max())
    assert charts.flat(places[:0], chart[:0]).shape == (0, 3)
    assert charts.flat_jacobian(places[:0], chart[:0])[1].shape == (0, 3, 2)


@pytest.mark.parametrize("activation", ["softplus", "tanh"])
def test_jacobian_is_the_derivative(activation: str) -> None:
    charts = trained(activation, torch.float64)
    uv = torch.rand(5, 4, 2, dtype=torch.float64)
    points, slope = charts.jacobian(uv)
    assert torch.equal(points, charts(uv))
    step = 1e-6
    for axis in range(2):
        move = step * torch.eye(2, dtype=torch.float64)[axis]
        numeric = (charts(uv + move) - charts(uv - move)) / (2 * step)
        # A central difference errs by step², and by rounding over step.
        assert_close_relative(slope[..., axis], numeric, 1e-7)


def test_relu_jacobian_is_autograds() -> None:
    charts = trained("relu", torch.float64)
    uv = torch.rand(5, 4, 2, dtype=torch.float64, requires_grad=True)
    points, slope = charts.jacobian(uv)
    for axis in range(3):
        (gradient,) = torch.autograd.grad(points[..., axis].sum(), uv, retain_graph=True)
        assert_close_relative(slope[..., axis, :], gradient, rounding_bound(torch.float64))


def test_gradients_of_points_and_jacobian() -> None:
    charts = trained("softplus", torch.float64, 2)
    uv = torch.rand(2, 3, 2, dtype=torch.float64)
    inputs = [*charts.parameters(), uv]

    def both(*values: torch.Tensor) -> torch.Tensor:
        points, slope = charts.with_parameters(values[:-1]).jacobian(values[-1])
        return torch.cat([points.flatten(), slope.flatten()])

    assert_gradient_is_derivative(both, inputs, 1e-6)


def test_start_is_the_principal_plane() -> None:
    patches = cover()
    charts = Charts.create(patches, (16,), seed=1)
    corners = torch.tensor([[0.5, 0.5], [1.0, 0.5], [0.5, 1.0]]).expand(5, 3, 2)
    at = charts(corners)
    for q in range(5):
        x = patches.points[q * 30 : (q + 1) * 30]
        # NumPy-style oracle: singular vectors of the centred patch.
        axes = torch.linalg.svd(x - x.mean(0))[2]
        assert torch.allclose(at[q, 0], x.mean(0), atol=1e-5)
        for k in (1, 2):
            side = torch.nn.functional.normalize(at[q, k] - at[q, 0], dim=0)
            assert abs(float(side @ axes[k - 1])) > 1 - 1e-5
        assert torch.isclose((at[q, 1] - at[q, 0]).norm(), (x - x.mean(0)).norm(dim=1).max(), rtol=1e-5)
    assert torch.allclose(torch.linalg.det(charts.rotation), torch.ones(5), atol=1e-5)


def test_start_depends_on_seed_and_chart_only() -> None:
    patches = cover(6)
    whole = Charts.create(patches, (16, 8), seed=4, residual=False)
    part = Charts.create(patches, (16, 8), seed=4, residual=False, index=torch.tensor([4, 1]))
    for a, b in zip(whole.subset(torch.tensor([4, 1])).parameters(), part.parameters(), strict=True):
        assert torch.equal(a, b)
    other = Charts.create(patches, (16, 8), seed=5, residual=False)
    assert all(not torch.equal(a, b) for a, b in zip(whole.weights, other.weights, strict=True))
    assert not torch.equal(whole.weights[0][0], whole.weights[0][1])
    assert Charts.create(patches, (16, 8), index=torch.arange(0)).weights[0].shape == (0, 2, 16)


def test_parts_join_to_the_whole() -> None:
    charts = trained()
    again = Charts.join([charts.subset(torch.arange(2)), charts.subset(torch.arange(2, 5))])
    uv = torch.rand(5, 7, 2)
    assert torch.equal(again(uv), charts(uv))
    assert again.widths == (16, 12) and len(again) == 5


def test_local_coordinates_fit_into_the_unit_ball() -> None:
    patches = cover()
    place = Placement.of(patches.points, patches.chart, 5)
    local = place.into(patches.points, patches.chart)
    radius = local.reshape(5, 30, 3).norm(dim=2).amax(1)
    assert torch.allclose(radius, torch.ones(5), atol=1e-5)
    spread = local.reshape(5, 30, 3).std(1)
    assert bool((spread[:, 0] > spread[:, 1]).all() and (spread[:, 1] > spread[:, 2]).all())
    back = place.center[patches.chart] + place.scale[patches.chart, None] * torch.einsum(
        "mk,mki->mi", local, place.rotation[patches.chart]
    )
    assert torch.allclose(back, patches.points, atol=1e-5)


def test_blocks_hold_each_row_once() -> None:
    counts = torch.tensor([5, 100, 0, 98, 70, 1])
    chart = torch.arange(6).repeat_interleave(counts)
    layout = Ragged(chart, 6)
    rows = torch.cat([b.slots[b.mask] for b in layout.blocks])
    assert torch.equal(rows.sort()[0], torch.arange(len(chart)))
    assert torch.equal(layout.join([chart[b.slots] for b in layout.blocks]), chart)
    # Charts alone in a block have 16 rows or more; all other blocks are well filled.
    alone = [b for b in layout.blocks if len(b.charts) == 1]
    assert [b.mask.shape[1] for b in alone] == [max(int(counts[b.charts]), 16) for b in alone] == [70, 16, 16]
    assert all(float(b.mask.float().mean()) >= 0.75 for b in layout.blocks if b.mask.shape[1] > 16)


def test_bad_charts() -> None:
    patches = cover(2)
    with pytest.raises(ValueError, match=r"`widths` must be positive integers.*\(64, 64, 64\)"):
        Charts.create(patches, (16, 0))
    with pytest.raises(ValueError, match=r"`activation` must be one of relu.*Did you mean 'relu'"):
        Charts.create(patches, activation="rely")
    charts = Charts.create(patches, (16,))
    with pytest.raises(ValueError, match=r"`uv` must be of shape \(2, S, 2\).*`flat` takes"):
        charts(torch.rand(3, 4, 2))
    with pytest.raises(TypeError, match="`uv` must be a floating tensor"):
        charts.jacobian(torch.zeros(2, 4, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`chart` must be int64 of shape \(4,\)"):
        charts.flat(torch.rand(4, 2), torch.zeros(4))
    for wrong in ([1, 0, 1, 1], [0, 0, 1, 2], [-1, 0, 1, 1]):
        with pytest.raises(ValueError, match=r"`chart` must be sorted and in 0 … 1"):
            charts.flat(torch.rand(4, 2), torch.tensor(wrong))
    with pytest.raises(ValueError, match="`biases` must be 2 tensors"):
        dataclasses.replace(charts, biases=charts.biases[:1])
    with pytest.raises(ValueError, match=r"`weights\[1\]` must be of shape \(Q, I, 3\)"):
        wide = (charts.weights[0], torch.zeros(2, 16, 4)), (charts.biases[0], torch.zeros(2, 4))
        dataclasses.replace(charts, weights=wide[0], biases=wide[1])


def test_any_number_of_threads() -> None:
    """A chart with few places that is alone in its block, too: torch shares a single product among threads."""
    random = torch.Generator().manual_seed(0)
    placement = Placement(torch.zeros(1, 3), torch.eye(3)[None], torch.ones(1))
    charts = Charts.create(None, residual=False, placement=placement)  # type: ignore[arg-type]
    before = torch.get_num_threads()
    try:
        for count in range(1, 20):
            uv, found = torch.rand(count, 2, generator=random), []
            for threads in (1, 2, 4):
                torch.set_num_threads(threads)
                chart = torch.zeros(count, dtype=torch.int64)
                found.append((charts.flat(uv, chart), *charts.flat_jacobian(uv, chart)))
            for other in found[1:]:
                assert all(map(torch.equal, found[0], other)), count
    finally:
        torch.set_num_threads(before)
