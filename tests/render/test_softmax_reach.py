# SPDX-License-Identifier: Apache-2.0
"""Softmax over depth against its formula over all pixels and faces: a far face counts if it is well in front."""

import pytest
import torch

import geodiff as gd

SIZE = (14, 19)
EYE = gd.Camera.orbit(distance=2.732, elevation_deg=30.0, azimuth_deg=20.0, fov_deg=40.0)
BACKGROUND = (0.9, 0.1, 0.0)


def ball(subdivisions: int = 2, size: float = 0.6) -> gd.Mesh:
    mesh = gd.icosphere(subdivisions)
    colors = torch.rand(mesh.num_vertices, 3, generator=torch.Generator().manual_seed(3))
    uv = torch.rand(mesh.num_vertices, 2, generator=torch.Generator().manual_seed(4))
    return gd.Mesh(mesh.vertices * size, mesh.faces, vertex_colors=colors, uv=uv)


def dense(mesh: gd.Mesh, log_cdf, gamma: float, ends: tuple[float, float] | None, background: float | None = None):
    """Return every pixel's means over all faces of colour, depth, normal and uv; rgb has the background in it."""
    mesh = mesh.to(dtype=torch.float64)
    seen = gd.fragments(mesh, EYE, SIZE, k=mesh.num_faces, blur=30.0)
    near, far = ends if ends else (seen_depths(mesh).min(), seen_depths(mesh).max())
    logits = log_cdf(seen.distance) + (far - seen.depth) / (far - near) / gamma
    weights = logits.softmax(dim=-1)
    corners = mesh.faces[seen.face_id].long()

    def at(values: torch.Tensor) -> torch.Tensor:
        return (seen.barycentric[..., None] * values[corners]).sum(dim=-2)

    normal = torch.nn.functional.normalize(at(mesh.vertex_normals), dim=-1)
    means = {"depth": (weights * seen.depth).sum(-1), "normal": normal, "uv": at(mesh.uv)}
    means |= {n: (weights[..., None] * means[n]).sum(-2) for n in ("normal", "uv")}
    color = at(mesh.vertex_colors)
    if background is None:
        return means | {"rgb": (weights[..., None] * color).sum(-2)}, weights
    shares = torch.cat([logits, logits.new_full((*SIZE, 1), background / gamma)], dim=-1).softmax(dim=-1)
    behind = torch.tensor(BACKGROUND, dtype=torch.float64)
    return means | {"rgb": (shares[..., :-1, None] * color).sum(-2) + shares[..., -1:] * behind}, weights


def seen_depths(mesh: gd.Mesh) -> torch.Tensor:
    return EYE.project(mesh.vertices)[..., 2]


def logistic(scale: float):
    return lambda d: torch.nn.functional.logsigmoid(d / scale)


def squared_logistic(sigma: float):
    return lambda d: torch.nn.functional.logsigmoid(d * d.abs() / sigma)


@pytest.mark.parametrize("subdivisions", [1, 3])
@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_softras_at_its_defaults_is_its_formula(subdivisions: int, backend: str, dtype: torch.dtype):
    mesh = ball(subdivisions).to(dtype=dtype)
    if backend == "reference" and subdivisions > 2:
        pytest.skip("the twin is slow")
    out = gd.presets.softras(SIZE, outputs=("rgb", "depth"), background=BACKGROUND, backend=backend)(mesh, EYE)
    expected, weights = dense(mesh, squared_logistic(1e-4), 1e-4, (1.0, 100.0), 1e-3)
    # max_error; and d²/τ, d up to 1 off by two units in the last place, whose error is the relative one of a weight
    allowed = 2e-4 + 4 * torch.finfo(dtype).eps / 1e-4
    assert float((out.rgb - expected["rgb"]).abs().max()) < allowed
    # A pixel of a fine mesh is of more than eight faces, the default of other renderers.
    left_out = float(weights.sort(dim=-1, descending=True)[0][..., 8:].sum(-1).max())
    few = gd.presets.softras(SIZE, outputs="rgb", background=BACKGROUND, backend=backend, max_fragments=8)(mesh, EYE)
    assert left_out > 1e-2 or subdivisions == 1
    assert float((few.rgb - expected["rgb"]).abs().max()) < allowed + 2 * left_out
    there = out.alpha > 1e-3
    assert float((out.depth - expected["depth"]).abs()[there].max()) < 1e-3
    far = expected["rgb"][0, 0] - torch.tensor(BACKGROUND, dtype=torch.float64)
    assert float(far.abs().max()) > 0.1  # even the corner of the image is the object's, by this formula


@pytest.mark.parametrize("gamma", [1e-3, 1e-2, 0.1, 1.0])
@pytest.mark.parametrize("background", [None, 0.3])
def test_every_output_is_its_formula(gamma: float, background: float | None):
    mesh = ball().to(dtype=torch.float64)
    options = {"depth": "softmax", "gamma": gamma, "max_fragments": 320, "background_depth": background}
    names = ("rgb", "depth", "normal", "uv", "face_id")
    out = gd.Renderer(SIZE, scale=0.02, outputs=names, background=BACKGROUND, **options)(mesh, EYE)
    expected, weights = dense(mesh, logistic(0.02), gamma, None, background)
    there = out.alpha > 1e-3
    assert bool(there.any()) and not bool(there.all())
    rgb = expected["rgb"]
    if background is None:
        rgb = out.alpha[..., None] * rgb + (1 - out.alpha[..., None]) * torch.tensor(BACKGROUND, dtype=torch.float64)
    assert float((out.rgb - rgb).abs().max()) < 3e-4  # max_error of alpha and of the weights
    for name in ("depth", "normal", "uv"):
        got, wanted = getattr(out, name)[there], expected[name][there]
        assert float((got - wanted).abs().max()) < 3e-4, name
    nowhere = out.alpha == 0
    assert bool(torch.isinf(out.depth[nowhere]).all()) and bool((out.face_id[nowhere] == -1).all())
    assert not out.normal[nowhere].any() and not out.uv[nowhere].any()
    # The face of largest weight, but for ties of faces that share the nearest corner.
    best = weights.max(dim=-1)[0]
    order = gd.fragments(mesh, EYE, SIZE, k=320, blur=30.0).face_id
    own = (weights * (order == out.face_id[..., None])).sum(-1)
    assert float((best - own)[there].max()) < 1e-9


@pytest.mark.parametrize("law", ["gaussian", "laplace", "cauchy", "uniform", "exponential.reversed.squared"])
@pytest.mark.parametrize("coverage", ["faces", "edges", "contour"])
def test_other_laws_and_coverages(law: str, coverage: str):
    mesh = ball().to(dtype=torch.float64)
    member, scale = gd.soft.as_distribution(law), 0.03
    plain = member.unsquared()
    options = {"depth": "softmax", "outputs": "rgb", "max_fragments": 320, "background": BACKGROUND}
    out = gd.Renderer(SIZE, member, scale, coverage=coverage, **options)(mesh, EYE)

    def log_cdf(d: torch.Tensor) -> torch.Tensor:
        return plain.log_cdf((d * d.abs() if member.is_squared else d) / scale).clamp(min=-1e30)

    expected = dense(mesh, log_cdf, 1e-2, None)[0]["rgb"]
    behind = torch.tensor(BACKGROUND, dtype=torch.float64)
    alpha = out.alpha[..., None]
    assert float((out.rgb - alpha * expected - (1 - alpha) * behind).abs().max()) < 3e-4


@pytest.mark.parametrize("k", [1, 8])
def test_the_best_of_all_faces_are_found_however_they_are_ordered(k: int):
    mesh = ball(3).to(dtype=torch.float64)
    results = []
    for seed in range(3):
        order = torch.randperm(mesh.num_faces, generator=torch.Generator().manual_seed(seed))
        shuffled = gd.Mesh(mesh.vertices, mesh.faces[order], vertex_colors=mesh.vertex_colors)
        render = gd.Renderer(SIZE, scale=0.02, depth="softmax", gamma=3e-3, outputs=("rgb", "face_id"), max_fragments=k)
        results.append((render(shuffled, EYE), order))
    log_cdf = logistic(0.02)
    seen = gd.fragments(mesh, EYE, SIZE, k=mesh.num_faces, blur=30.0)
    ends = seen_depths(mesh).min(), seen_depths(mesh).max()
    logits = log_cdf(seen.distance) + (ends[1] - seen.depth) / (ends[1] - ends[0]) / 3e-3
    best = logits.amax(dim=-1)
    for out, order in results:
        there = out.face_id >= 0
        own = torch.where(there, order[out.face_id.clamp(min=0)], -1)
        got = torch.where(seen.face_id == own[..., None], logits, -torch.inf).amax(dim=-1)
        assert float((best - got)[there].max()) < 0.02  # ranked by log F of a table
