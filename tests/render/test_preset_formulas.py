# SPDX-License-Identifier: Apache-2.0
"""Presets at their defaults against their papers' formulas, in float64, with a camera and distances of their own."""

import math
from collections.abc import Callable

import pytest
import torch

import geodiff as gd

SIZE = (18, 23)
EYE = {"distance": 2.7, "elevation_deg": 20.0, "azimuth_deg": 30.0, "fov_deg": 50.0}
BEHIND = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
# `max_error`, once for alpha, and twice for colours: of the faces left out, and of those too light.
ALPHA, COLOR = 1e-4, 2e-4


def eye() -> gd.Camera:
    return gd.Camera.orbit(**{name: torch.tensor(value, dtype=torch.float64) for name, value in EYE.items()})


def two_triangles() -> gd.Mesh:
    near = [[-0.6, -0.5, 0.2], [0.1, -0.4, 0.2], [-0.5, 0.3, 0.2]]
    far = [[0.2, -0.2, -0.3], [0.7, 0.1, -0.3], [0.0, 0.6, -0.3]]
    return gd.Mesh(torch.tensor(near + far, dtype=torch.float64), torch.tensor([[0, 1, 2], [3, 4, 5]]))


def ball() -> gd.Mesh:
    mesh = gd.icosphere(2).to(dtype=torch.float64)
    return mesh.with_vertices(mesh.vertices * 0.7)


MESHES = {"two triangles": two_triangles, "ball": ball}


class Seen:
    """All pairs of Q pixels and F faces, by pinhole formulas: distances (Q, F), depths there, and those to lines."""

    def __init__(self, mesh: gd.Mesh) -> None:
        up, turn = math.radians(EYE["elevation_deg"]), math.radians(EYE["azimuth_deg"])
        back = [math.cos(up) * math.sin(turn), math.sin(up), math.cos(up) * math.cos(turn)]
        back = torch.tensor(back, dtype=torch.float64)
        right = torch.tensor([math.cos(turn), 0.0, -math.sin(turn)], dtype=torch.float64)
        over = torch.linalg.cross(back, right)
        away = mesh.vertices - EYE["distance"] * back
        z = -(away @ back)
        focal = 1 / math.tan(math.radians(EYE["fov_deg"]) / 2)
        image = focal * torch.stack([away @ right, away @ over], dim=1) / z[:, None]
        self.corners, self.z = image[mesh.faces], z[mesh.faces]
        height, width = SIZE
        unit = 2 / min(SIZE)
        x, y = ((torch.arange(n, dtype=torch.float64) + 0.5 - n / 2) * unit for n in (width, height))
        self.pixels = torch.stack(torch.meshgrid(-y, x, indexing="ij")[::-1], dim=-1).reshape(-1, 1, 2)
        ends = self.corners.roll(-1, dims=1)
        sides = ends - self.corners
        wound = _cross(sides[:, 0], sides[:, 1]).sign()[:, None]
        offset = self.pixels[:, :, None] - self.corners
        self.lines = wound * _cross(sides, offset) / sides.norm(dim=-1)  # (Q, F, 3), positive inside
        along = ((offset * sides).sum(-1) / sides.square().sum(-1)).clamp(0, 1)
        nearest = self.corners + along[..., None] * sides
        length, which = (nearest - self.pixels[:, :, None]).norm(dim=-1).min(dim=-1)
        self.inside = (self.lines >= 0).all(dim=-1)
        self.distance = torch.where(self.inside, length, -length)
        beside = nearest.gather(2, which[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
        at = torch.where(self.inside[..., None], self.pixels, beside)
        shares = _cross(sides.roll(-1, dims=1), at[:, :, None] - ends) / _cross(sides[:, 0], sides[:, 1])[:, None]
        self.depth = 1 / (shares / self.z).sum(dim=-1)


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def colored(mesh: gd.Mesh) -> tuple[gd.Mesh, torch.Tensor]:
    colors = torch.rand(mesh.num_faces, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return mesh.with_attributes(face_colors=colors), colors


def joined(shares: torch.Tensor) -> torch.Tensor:
    return (1 - (1 - shares).prod(dim=1)).reshape(SIZE)


def off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize(("sigma", "gamma"), [(None, None), (1e-3, 2e-2), (1e-2, 0.1), (1e-4, 1e-2)])
def test_softras(name: str, sigma: float | None, gamma: float | None):
    mesh, colors = colored(MESHES[name]())
    seen = Seen(mesh)
    given = {} if sigma is None else {"sigma": sigma, "gamma": gamma}
    out = gd.presets.softras(SIZE, **given, outputs="rgb", background=BEHIND)(mesh, eye())
    x = seen.distance * seen.distance.abs() / (sigma or 1e-4)
    assert off(out.alpha, joined(torch.sigmoid(x))) < ALPHA
    own = torch.nn.functional.logsigmoid(x) + (100.0 - seen.depth) / 99.0 / (gamma or 1e-4)
    everything = torch.cat([own, torch.full((len(x), 1), 1e-3 / (gamma or 1e-4), dtype=torch.float64)], dim=1)
    rgb = everything.softmax(dim=1) @ torch.cat([colors, BEHIND[None]])
    assert off(out.rgb, rgb.reshape(*SIZE, 3)) < COLOR


LAWS: dict[str, tuple[Callable[[], gd.Renderer], Callable[[Seen], torch.Tensor]]] = {
    "dibr": (
        lambda: gd.presets.dibr(SIZE),
        lambda s: torch.where(s.distance >= 0, 1.0, torch.exp(-s.distance.square() / 1e-4)),
    ),
    "dibr of the thesis": (
        lambda: gd.presets.dibr(SIZE, squared=False),
        lambda s: torch.where(s.distance >= 0, 1.0, torch.exp(s.distance / 1e-2)),
    ),
    "n3mr": (lambda: gd.presets.n3mr(SIZE), lambda s: (0.5 + 0.5 * s.distance / 1e-2).clamp(0, 1)),
    "opendr": (lambda: gd.presets.opendr(SIZE), lambda s: (0.5 + 0.5 * s.distance / (2 / 18)).clamp(0, 1)),
    "rhodin": (lambda: gd.presets.rhodin(SIZE), lambda s: torch.special.ndtr(s.distance / 1e-2)),
    "pix2vex": (lambda: gd.presets.pix2vex(SIZE), lambda s: torch.sigmoid(s.lines / 1e-2).prod(dim=-1)),
    "logistic_relaxation": (
        lambda: gd.presets.logistic_relaxation(SIZE),
        lambda s: torch.sigmoid(2000 * s.distance),
    ),
    "logistic_relaxation, softer": (
        lambda: gd.presets.logistic_relaxation(SIZE, 50.0),
        lambda s: torch.sigmoid(50 * s.distance),
    ),
}


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("law", LAWS)
def test_alpha(law: str, name: str):
    mesh = MESHES[name]()
    make, share = LAWS[law]
    alpha = make()(mesh, eye()).alpha
    assert off(alpha, joined(share(Seen(mesh)))) < ALPHA
    assert 0.02 < float((alpha > 0.5).double().mean()) < 0.95


def test_n3mr_with_the_maximum_is_one_face_a_pixel():
    mesh = ball()
    out = gd.presets.n3mr(SIZE, tconorm="maximum")(mesh, eye())
    share = (0.5 + 0.5 * Seen(mesh).distance / 1e-2).clamp(0, 1)
    assert off(out.alpha, share.amax(dim=1).reshape(SIZE)) < ALPHA


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize(("sigma", "opacity"), [(1.0, 1.0), (0.3, 0.6), (2.0, 0.9)])
def test_triangle_splats(name: str, sigma: float, opacity: float):
    mesh, colors = colored(MESHES[name]())
    seen = Seen(mesh)
    render = gd.presets.triangle_splats(SIZE, sigma, opacity, outputs=("rgb", "depth"), background=BEHIND)
    out = render(mesh, eye())
    lengths = (seen.corners.roll(-1, dims=1) - seen.corners).norm(dim=-1)
    # Of the incentre, whose distances to the three sides are one.
    middle = (lengths.roll(-1, dims=1)[..., None] * seen.corners).sum(1) / lengths.sum(1)[:, None]
    side = seen.corners[:, 1] - seen.corners[:, 0]
    inradius = (_cross(side, middle - seen.corners[:, 0]) / side.norm(dim=-1)).abs()
    window = (seen.lines.amin(dim=-1) / inradius).clamp(min=0) ** sigma * opacity
    assert off(out.alpha, joined(window)) < 1e-12
    order = seen.depth.argsort(dim=1)
    own = window.gather(1, order)
    through = torch.cat([torch.ones_like(own[:, :1]), (1 - own).cumprod(dim=1)[:, :-1]], dim=1)
    weight = own * through
    rgb = (weight[..., None] * colors[order]).sum(dim=1) + (1 - weight.sum(dim=1))[:, None] * BEHIND
    assert off(out.rgb, rgb.reshape(*SIZE, 3)) < 1e-12
    mean = ((weight * seen.depth.gather(1, order)).sum(dim=1) / weight.sum(dim=1)).reshape(SIZE)
    there = out.alpha > 1e-9
    assert off(out.depth[there], mean[there]) < 1e-9 and bool(torch.isinf(out.depth[out.alpha == 0]).all())


@pytest.mark.parametrize("name", ["n3mr", "softras"])
def test_lights_of_the_originals(name: str):
    mesh, colors = colored(ball())
    camera = eye()
    options = {"shading": "lambert", "normals": "flat", "outputs": "rgb"}
    kind = {"depth": "hard", "background_depth": None} if name == "softras" else {}
    out = getattr(gd.presets, name)(SIZE, **options, **kind)(mesh, camera, gd.presets.lights(name))
    corners = mesh.vertices[mesh.faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    shade = 0.5 + 0.5 * (normal[:, 1] / normal.norm(dim=-1)).clamp(min=0)
    seen = Seen(mesh)
    hit = seen.inside.any(dim=1)
    face = torch.where(seen.inside, seen.depth, torch.inf).argmin(dim=1)
    expected = out.alpha.reshape(-1, 1) * (colors * shade[:, None])[face]
    assert off(out.rgb.reshape(-1, 3)[hit], expected[hit]) < 1e-12
    with pytest.raises(ValueError, match=r"presets\.lights: `name` must be one of n3mr, softras"):
        gd.presets.lights("dibr")


def test_bad_arguments_of_presets():
    with pytest.raises(TypeError, match="dibr: `squared` must be True or False; got"):
        gd.presets.dibr(8, squared=1)
    for beta, error in ((0.0, ValueError), (-1.0, ValueError), (float("nan"), ValueError), ("2", TypeError)):
        with pytest.raises(error, match="logistic_relaxation: `beta` must be "):
            gd.presets.logistic_relaxation(8, beta)
