# SPDX-License-Identifier: Apache-2.0
"""Charts: small networks from the unit square to space, all evaluated at once."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from geodiff.atlas.places import places, served
from geodiff.atlas.ragged import Ragged
from geodiff.modes import outside_autocast
from geodiff.validation import choice, fail, floating, shapes_repr

if TYPE_CHECKING:
    from geodiff.atlas.cover import Cover

ACTIVATIONS = ("relu", "softplus", "tanh")
WIDTHS = (64, 64, 64)
PAPER_WIDTHS = (128, 256, 512, 512)
SHARPNESS = 10.0  # of softplus: log(1 + exp(SHARPNESS x)) / SHARPNESS


@dataclasses.dataclass(frozen=True)
class Placement:
    """Where patches lie: local coordinates of a patch have its mean at 0, and it just fits into the unit ball.

    Attributes:
        center: (Q, 3) mean of each patch's points.
        rotation: (Q, 3, 3), right-handed; its rows are the principal axes, the last one across the patch.
        scale: (Q,) distance of the farthest point from the mean.
    """

    __repr__ = shapes_repr

    center: torch.Tensor
    rotation: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def of(cls, points: torch.Tensor, chart: torch.Tensor, charts: int) -> "Placement":
        """Find the principal axes of the patches with rows `points` (M, 3) and `chart` (M,)."""
        x = points.double()
        count = torch.bincount(chart, minlength=charts).clamp(min=1).to(x)
        zeros = x.new_zeros(charts, 3)
        center = zeros.index_add(0, chart, x) / count[:, None]
        offset = x - center[chart]
        outer = (offset[:, :, None] * offset[:, None, :]).flatten(1)
        moments = x.new_zeros(charts, 9).index_add(0, chart, outer) / count[:, None]
        squared = x.new_zeros(charts).scatter_reduce(0, chart, offset.square().sum(1), "amax")
        scale = squared.sqrt()
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        axes = torch.linalg.eigh((moments / scale.square()[:, None]).unflatten(1, (3, 3)))[1].mT.flip(1)
        # An eigenvector has two signs: its largest coordinate is made positive.
        largest = torch.take_along_dim(axes, axes.abs().argmax(2, keepdim=True), 2)
        axes = axes * largest.sign()
        axes = torch.stack([axes[:, 0], axes[:, 1], torch.linalg.cross(axes[:, 0], axes[:, 1])], 1)
        return cls(center.to(points), axes.to(points), scale.to(points))

    def into(self, points: torch.Tensor, chart: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Local coordinates (M, 3) of world points (M, 3), each in its chart (M,)."""
        offset = (points - self.center[chart]) / self.scale[chart, None]
        return torch.einsum("mi,mki->mk", offset, self.rotation[chart]).to(dtype)


@outside_autocast
@dataclasses.dataclass(frozen=True)
class Charts:
    """Q maps φ_q from the unit square to space.

    With v = 2u − 1, the local map is `offset + v · linear + MLP(v)`, a plane and a network on top of it, and the point
    in space `center + scale · local · rotation`.

    Attributes:
        weights: one (Q, I, O) a layer; I is 2 for the first, O is 3 for the last.
        biases: one (Q, O) a layer.
        linear: (Q, 2, 3), the plane's sides.
        offset: (Q, 3).
        center: (Q, 3), world units, as are the results.
        rotation: (Q, 3, 3), rows are the local axes.
        scale: (Q,).
        activation: ``"relu"``, ``"softplus"`` (of sharpness 10) or ``"tanh"``, after every layer but the last.

    Gradients: with respect to all of these and to u; of relu's kinks, 0.
    """

    __repr__ = shapes_repr

    weights: tuple[torch.Tensor, ...]
    biases: tuple[torch.Tensor, ...]
    linear: torch.Tensor
    offset: torch.Tensor
    center: torch.Tensor
    rotation: torch.Tensor
    scale: torch.Tensor
    activation: str = "relu"

    @classmethod
    def create(
        cls,
        cover: "Cover",
        widths: Sequence[int] = WIDTHS,
        seed: int = 0,
        *,
        activation: str = "relu",
        residual: bool = True,
        gain: float | None = None,
        index: torch.Tensor | None = None,
        placement: Placement | None = None,
    ) -> "Charts":
        """Make charts for the patches of a cover.

        The start of chart q depends on seed and q alone: not on how many charts there are, nor on which of them are
        made here.

        Args:
            cover: the patches.
            widths: of the hidden layers.
            seed: of the weights.
            activation: see the class.
            residual: start at the patch's principal plane, with a last layer of zeros; else there is no plane, and the
                last layer starts at random like the others.
            gain: of the weights of hidden layers, which are within ±gain/√inputs; None keeps the variance: √6 with
                relu, else √3.
            index: (K,) int64, the charts wanted; all if left out.
            placement: of all patches, if the caller has it already.

        Raises:
            ValueError: widths that are not positive, an unknown activation.
        """
        where = "Charts.create"
        choice(where, "activation", activation, ACTIVATIONS)
        widths = tuple(widths)
        if not widths or any(not isinstance(w, int) or w < 1 for w in widths):
            raise fail(where, "widths", "positive integers, one a hidden layer", repr(widths), "Say (64, 64, 64).")
        placement = placement or Placement.of(cover.points[cover.point], cover.chart, len(cover.centers))
        index = torch.arange(len(placement.center)) if index is None else index
        sizes = (2, *widths, 3)
        layers = list(itertools.pairwise(sizes))
        counts = [size for i, o in layers for size in (i * o, o)]
        weights = [torch.empty(len(index), i, o) for i, o in layers]
        biases = [torch.empty(len(index), o) for _, o in layers]
        for row, q in enumerate(index.tolist()):
            parts = _uniform(seed, q, sum(counts)).split(counts)
            for layer in range(len(layers)):
                weights[layer][row].view(-1).copy_(parts[2 * layer])
                biases[layer][row] = parts[2 * layer + 1]
        usual = math.sqrt(6) if activation == "relu" else math.sqrt(3)
        for layer, (i, _) in enumerate(layers):  # in place: for many charts these are most of what is in memory
            last = layer == len(layers) - 1
            bound = 0.0 if last and residual else 1 / math.sqrt(i)
            grow = 1.0 if last else usual if gain is None else gain
            weights[layer].mul_(bound).mul_(grow)
            biases[layer].mul_(bound)
        linear = torch.zeros(len(index), 2, 3)
        if residual:
            linear[:, 0, 0] = linear[:, 1, 1] = 1
        return cls(tuple(weights), tuple(biases), linear, torch.zeros(len(index), 3), placement.center[index],
                   placement.rotation[index], placement.scale[index], activation)  # fmt: skip

    def __post_init__(self) -> None:
        where = "Charts"
        choice(where, "activation", self.activation, ACTIVATIONS)
        if not self.weights or len(self.weights) != len(self.biases):
            raise fail(where, "biases", f"{len(self.weights)} tensors, one a layer", f"{len(self.biases)}")
        width: int = 2
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            floating(where, f"weights[{i}]", weight, (len(self), width, "O"), finite=False)
            width = weight.shape[2]
            floating(where, f"biases[{i}]", bias, (len(self), width), finite=False)
        if width != 3:
            raise fail(where, f"weights[{len(self.weights) - 1}]", "of shape (Q, I, 3)", self.weights[-1])
        floating(where, "linear", self.linear, (len(self), 2, 3), finite=False)
        floating(where, "offset", self.offset, (len(self), 3), finite=False)
        floating(where, "center", self.center, (len(self), 3))
        floating(where, "rotation", self.rotation, (len(self), 3, 3))
        floating(where, "scale", self.scale, (len(self),))

    def __len__(self) -> int:
        return len(self.weights[0])

    @property
    def widths(self) -> tuple[int, ...]:
        """Widths of the hidden layers."""
        return tuple(w.shape[2] for w in self.weights[:-1])

    @property
    def placement(self) -> Placement:
        """Where the charts lie."""
        return Placement(self.center, self.rotation, self.scale)

    def parameters(self) -> list[torch.Tensor]:
        """Tensors that a fit moves: weights, biases, plane and offset."""
        return [*self.weights, *self.biases, self.linear, self.offset]

    def with_parameters(self, parameters: Sequence[torch.Tensor]) -> "Charts":
        """Return charts with other values of `parameters()`, in that order."""
        n = len(self.weights)
        return dataclasses.replace(
            self,
            weights=tuple(parameters[:n]),
            biases=tuple(parameters[n : 2 * n]),
            linear=parameters[2 * n],
            offset=parameters[2 * n + 1],
        )

    def subset(self, index: torch.Tensor) -> "Charts":
        """Return some of the charts, by their numbers or a mask."""
        return Charts(
            tuple(w[index] for w in self.weights),
            tuple(b[index] for b in self.biases),
            self.linear[index],
            self.offset[index],
            self.center[index],
            self.rotation[index],
            self.scale[index],
            self.activation,
        )

    def to(self, device: torch.device) -> "Charts":
        """Return the charts on another device."""
        if device == self.offset.device:
            return self
        return Charts(
            tuple(w.to(device) for w in self.weights),
            tuple(b.to(device) for b in self.biases),
            self.linear.to(device),
            self.offset.to(device),
            self.center.to(device),
            self.rotation.to(device),
            self.scale.to(device),
            self.activation,
        )

    @staticmethod
    def join(parts: Sequence["Charts"]) -> "Charts":
        """Return the charts of all parts, in their order."""
        return Charts(
            tuple(torch.cat(layer) for layer in zip(*(p.weights for p in parts), strict=True)),
            tuple(torch.cat(layer) for layer in zip(*(p.biases for p in parts), strict=True)),
            torch.cat([p.linear for p in parts]),
            torch.cat([p.offset for p in parts]),
            torch.cat([p.center for p in parts]),
            torch.cat([p.rotation for p in parts]),
            torch.cat([p.scale for p in parts]),
            parts[0].activation,
        )

    def local(self, uv: torch.Tensor) -> torch.Tensor:
        """Points (Q, S, 3) in local coordinates at `uv` (Q, S, 2)."""
        v = 2 * uv - 1
        h = v
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = self._activate(torch.baddbmm(bias[:, None], h, weight))
        plane = torch.baddbmm(self.offset[:, None], v, self.linear)
        return plane + torch.baddbmm(self.biases[-1][:, None], h, self.weights[-1])

    def local_jacobian(self, uv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (Q, S, 3) and ∂(point)/∂u (Q, S, 3, 2), local."""
        v = 2 * uv - 1
        h = v
        q, s, _ = v.shape
        # The two tangents are carried through the layers as two more sets of rows; the first layer's are its weights.
        t = 2 * torch.eye(2, dtype=v.dtype, device=v.device).repeat(q, s, 1)
        for layer, (weight, bias) in enumerate(zip(self.weights[:-1], self.biases[:-1], strict=True)):
            z = torch.baddbmm(bias[:, None], h, weight)
            h = self._activate(z)
            t = torch.bmm(t, weight).unflatten(1, (s, 2)) if layer else (2 * weight)[:, None].expand(-1, s, -1, -1)
            t = self._sloped(t, z, h).flatten(1, 2)
        points = torch.baddbmm(self.offset[:, None], v, self.linear)
        points = points + torch.baddbmm(self.biases[-1][:, None], h, self.weights[-1])
        t = torch.bmm(t, self.weights[-1]).unflatten(1, (s, 2)) + 2 * self.linear[:, None]
        return points, t.mT

    def __call__(self, uv: torch.Tensor) -> torch.Tensor:
        """Points (Q, S, 3) in space at `uv` (Q, S, 2), S places in each chart.

        Raises:
            TypeError: `uv` that is not floating.
            ValueError: another shape.
        """
        self._check("Charts", uv, (len(self), "S", 2))
        local = self.local(uv.to(self.linear.dtype)).to(self.center.dtype)
        return self.center[:, None] + self.scale[:, None, None] * (local @ self.rotation)

    def jacobian(self, uv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (Q, S, 3) and their derivatives ∂φ/∂u (Q, S, 3, 2) in space; both differentiable.

        Raises:
            TypeError: `uv` that is not floating.
            ValueError: another shape.
        """
        self._check("Charts.jacobian", uv, (len(self), "S", 2))
        local, slope = self.local_jacobian(uv.to(self.linear.dtype))
        local, slope = local.to(self.center.dtype), slope.to(self.center.dtype)
        points = self.center[:, None] + self.scale[:, None, None] * (local @ self.rotation)
        return points, self.scale[:, None, None, None] * (self.rotation.mT[:, None] @ slope)

    def flat(self, uv: torch.Tensor, chart: torch.Tensor, layout: Ragged | None = None) -> torch.Tensor:
        """Points (M, 3) in space at `uv` (M, 2), each in its own chart (M,) int64, sorted.

        Args:
            uv: places in the square.
            chart: the number of each place's chart, ascending.
            layout: `Ragged(chart, Q)`, where it is used more than once.

        Raises:
            TypeError: `uv` that is not floating.
            ValueError: other shapes, charts that are not sorted or do not exist.
        """
        self._check_flat("Charts.flat", uv, chart)
        if not len(chart):
            return self.center.new_empty(0, 3)
        if served(self.activation, self.parameters(), place := uv.to(self.linear.dtype)):
            return self._into_space(places(self.parameters(), place, chart, False)[0], chart)
        layout = layout or Ragged(chart, len(self))
        return layout.join([self.subset(b.charts)(uv[b.slots]) for b in layout.blocks])

    def flat_jacobian(
        self, uv: torch.Tensor, chart: torch.Tensor, layout: Ragged | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (M, 3) and derivatives (M, 3, 2) at `uv` (M, 2); arguments and errors as in `flat`."""
        self._check_flat("Charts.flat_jacobian", uv, chart)
        if not len(chart):
            return self.center.new_empty(0, 3), self.center.new_empty(0, 3, 2)
        if served(self.activation, self.parameters(), place := uv.to(self.linear.dtype)):
            local, slope = (part.to(self.center.dtype) for part in places(self.parameters(), place, chart, True))
            turned = self.rotation[chart].mT @ (self.scale[chart, None, None] * slope)
            return self._into_space(local, chart), turned
        layout = layout or Ragged(chart, len(self))
        pairs = [self.subset(b.charts).jacobian(uv[b.slots]) for b in layout.blocks]
        return layout.join([p for p, _ in pairs]), layout.join([j for _, j in pairs])

    def flat_normals(self, uv: torch.Tensor, chart: torch.Tensor, layout: Ragged | None = None) -> torch.Tensor:
        """Unit normals (M, 3), `∂φ/∂u × ∂φ/∂v` normalised: of either side; 0 where the chart is singular."""
        slope = self.flat_jacobian(uv, chart, layout)[1]
        return F.normalize(torch.linalg.cross(slope[..., 0], slope[..., 1]), dim=-1, eps=1e-30)

    def _check(self, where: str, uv: Any, shape: Sequence[int | str]) -> None:
        floating(where, "uv", uv, shape, "One row of places a chart; `flat` takes places of any number a chart.")

    def _check_flat(self, where: str, uv: torch.Tensor, chart: torch.Tensor) -> None:
        floating(where, "uv", uv, ("M", 2))
        if chart.dtype != torch.int64 or chart.shape != uv.shape[:1]:
            raise fail(where, "chart", f"int64 of shape ({len(uv)},), the chart of each place", chart)
        if len(chart) and (bool((chart[1:] < chart[:-1]).any()) or int(chart[0]) < 0 or int(chart[-1]) >= len(self)):
            raise fail(where, "chart", f"sorted and in 0 … {len(self) - 1}", "others", "Sort uv by chart first.")

    def _into_space(self, local: torch.Tensor, chart: torch.Tensor) -> torch.Tensor:
        """Points (M, 3) in space of local ones, each in its own chart (M,)."""
        scaled = self.scale[chart, None] * local.to(self.center.dtype)
        return self.center[chart] + (scaled[:, None] @ self.rotation[chart])[:, 0]

    def _activate(self, z: torch.Tensor) -> torch.Tensor:
        if self.activation == "relu":
            return torch.relu(z)
        return torch.tanh(z) if self.activation == "tanh" else F.softplus(z, SHARPNESS)

    def _sloped(self, t: torch.Tensor, z: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        """Return tangents (Q, S, 2, O) times the slope of the activation, which made h (Q, S, O) of z."""
        if self.activation == "relu":  # the product with (z > 0), which takes longer
            return torch.ops.aten.threshold_backward(t, h[:, :, None].expand_as(t), 0)
        slope = 1 - h.square() if self.activation == "tanh" else torch.sigmoid(SHARPNESS * z)
        return t * slope[:, :, None]


def _uniform(seed: int, chart: int, count: int) -> torch.Tensor:
    """Numbers in [−1, 1) that depend on seed and chart only."""
    # Neighbouring seeds of the generator are spread by two rounds of a 64-bit mixer (Steele, Lea, Flood, "Fast
    # splittable pseudorandom number generators", 2014).
    state = (seed * 0x9E3779B97F4A7C15 + chart + 1) & (1 << 64) - 1
    for _ in range(2):
        state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
        state = (state ^ state >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
        state ^= state >> 31
    generator = torch.Generator().manual_seed(state & (1 << 63) - 1)
    return torch.rand(count, generator=generator) * 2 - 1
