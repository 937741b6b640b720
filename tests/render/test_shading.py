# SPDX-License-Identifier: Apache-2.0
"""Colour, light and texture: against closed forms, and every path of the gradient against finite differences."""

import math

import pytest
import torch

import geodiff as gd
from tests.helpers import assert_close_relative, random_cotangent, rounding_bound
from tests.lit_scenes import DOUBLE, EYE, LIGHTS, bumpy, camera, front, lit, sphere_uv, square

SIZE = (13, 16)


class Scene:
    """One scene whose every number is a leaf."""

    def __init__(self, **options) -> None:
        mesh = bumpy()
        self.leaves = {
            "vertices": mesh.vertices,
            "texture": torch.rand(9, 11, 3, dtype=DOUBLE),
            "uv": sphere_uv(gd.icosphere(1).vertices.double()),
            "vertex_colors": 0.5 + 0.5 * torch.rand(mesh.num_vertices, 3, dtype=DOUBLE),
            "face_colors": 0.5 + 0.5 * torch.rand(mesh.num_faces, 3, dtype=DOUBLE),
            "background": torch.rand(*SIZE, 3, dtype=DOUBLE),
            "scale": torch.tensor(0.08, dtype=DOUBLE),
            "gamma": torch.tensor(0.2, dtype=DOUBLE),
            **{name: torch.tensor(value, dtype=DOUBLE) for name, value in EYE.items()},
            **LIGHTS,
        }
        self.faces, self.options = mesh.faces, options

    def __call__(self, changed: dict[str, torch.Tensor]) -> gd.RenderOutput:
        v = {**self.leaves, **changed}
        options = {"max_error": 0.0, "outputs": ("rgb", "depth", "normal", "face_id", "uv"), **self.options}
        lights, material = lit(v)
        mesh = gd.Mesh(
            v["vertices"],
            self.faces,
            vertex_colors=v["vertex_colors"],
            face_colors=v["face_colors"],
            uv=v["uv"],
            texture=v["texture"],
            material=material,
        )
        render = gd.Renderer(SIZE, "logistic", v["scale"], gamma=v["gamma"], background=v["background"], **options)
        render.warn_of_bias = False  # the derivative in the camera is what is tested
        eye = gd.Camera.orbit(**{name: v[name] for name in EYE})
        return render(mesh, eye, None if options.get("shading") == "unlit" else lights)


UNSEEN = {  # what has no influence, and hence no gradient
    "unlit": {"ambient", "direction", "sun", "position", "lamp", "attenuation", "specular", "shininess"},
    "lambert": {"specular", "shininess"},
    "hard": {"gamma"},
}


@pytest.mark.parametrize(
    "options",
    [
        {"shading": "unlit"},
        {"shading": "lambert", "normals": "flat"},
        {"shading": "gouraud"},
        {"shading": "gouraud", "normals": "flat"},
        {"shading": "phong"},
        {"shading": "phong", "supersample": 2},
        {"shading": "phong", "depth": "softmax", "max_fragments": 80},
        {"shading": "unlit", "depth": "softmax", "max_fragments": 80, "background_depth": 0.1},
    ],
    ids=str,
)
def test_the_gradient_of_rgb_is_complete(options: dict):
    scene = Scene(**options)
    base = scene({})
    cotangent = random_cotangent(base.rgb)

    def stable(changed: dict) -> torch.Tensor:
        """Pixels whose face, texels and side of an edge stay as they are."""
        out = scene(changed)
        texel = torch.floor(out.uv * out.uv.new_tensor([11.0, 9.0]) + 0.5)
        first = torch.floor(base.uv * base.uv.new_tensor([11.0, 9.0]) + 0.5)
        return (out.face_id == base.face_id) & (texel == first).all(dim=-1) & ((out.rgb - base.rgb).norm(dim=-1) < 1e-3)

    absent = set().union(*(UNSEEN.get(str(value), set()) for value in options.values()))
    if options.get("depth") != "softmax":
        absent |= UNSEEN["hard"]
    step = 1e-6
    rows = torch.ones_like(base.alpha, dtype=torch.bool)
    directions = {name: torch.randn_like(value) for name, value in scene.leaves.items()}
    for name, way in directions.items():
        scaled = way * (1 + scene.leaves[name].abs().max() * (name in EYE))
        directions[name] = scaled
        for sign in (-2, 2):
            rows &= stable({name: scene.leaves[name] + sign * 5 * step * scaled})
    if "supersample" not in options and options.get("depth") != "softmax":
        # Colours jump where the soft rim passes from one face to another: few pixels.
        assert rows.double().mean() > 0.8
    leaves = {name: value.clone().requires_grad_() for name, value in scene.leaves.items()}
    total = (scene(leaves).rgb * cotangent)[rows].sum()
    gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    wrong = []
    for (name, value), gradient in zip(scene.leaves.items(), gradients, strict=True):
        if name in absent:
            assert gradient is None or not gradient.any(), name
            continue
        assert gradient is not None and gradient.any() and torch.isfinite(gradient).all(), name
        ahead, back = (
            float((scene({name: value + sign * step * directions[name]}).rgb * cotangent)[rows].sum())
            for sign in (1, -1)
        )
        numeric, analytic = (ahead - back) / (2 * step), float((gradient * directions[name]).sum())
        size = float((gradient * directions[name]).abs().sum())
        # Truncation, step² times a third derivative of about 1/τ²; rounding of the sum over the step.
        if abs(numeric - analytic) > 1e-5 * size + 1e-7:
            wrong.append(f"{name}: {analytic:.9g}, difference {numeric:.9g}")
    assert not wrong, wrong


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_a_texture_seen_head_on_is_the_image():
    image = torch.rand(8, 8, 3, dtype=DOUBLE)
    for wrap in ("repeat", "clamp", "mirror"):
        for filter_ in ("bilinear", "nearest"):
            mesh = square(texture=gd.Texture(image, wrap, filter_))
            out = gd.Renderer(8, scale=1e-6, outputs=("rgb", "uv", "face_id"))(mesh, front())
            # Pixels on the diagonal are covered by two faces by half.
            assert float((out.rgb - image).abs().max(dim=-1)[0][out.alpha > 0.9].max()) < 1e-9
    centres = (torch.arange(8, dtype=DOUBLE) + 0.5) / 8
    assert_close_relative(out.uv[..., 0], centres.expand(8, 8), 1e-12)
    assert_close_relative(out.uv[..., 1], (1 - centres)[:, None].expand(8, 8), 1e-12)
    assert set(out.face_id.unique().tolist()) == {0, 1}


def test_textures_are_seen_in_perspective():
    # A square that leans back: the middle of its texture is not in the middle of its image.
    tilted = square().rotated(
        torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5 * 3**0.5], [0, -0.5 * 3**0.5, 0.5]], dtype=DOUBLE)
    )
    eye = gd.Camera.orbit(torch.tensor(3.0, dtype=DOUBLE), fov_deg=60)
    out = gd.Renderer((41, 41), scale=1e-4, outputs=("uv", "depth", "normal"))(tilted, eye)
    there = torch.isfinite(out.depth)
    rows, columns = there.nonzero().unbind(1)
    x, y = (columns.double() + 0.5) * 2 / 41 - 1, 1 - (rows.double() + 0.5) * 2 / 41
    points = eye.unproject(torch.stack([x, y, out.depth[there]], dim=1))
    back = points @ torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5 * 3**0.5], [0, -0.5 * 3**0.5, 0.5]], dtype=DOUBLE)
    assert there.sum() > 100 and float(back[:, 2].abs().max()) < 1e-12  # on the square
    assert_close_relative(out.uv[there], back[:, :2] * 0.5 + 0.5, 1e-12)
    assert_close_relative(out.normal[there], tilted.face_normals[:1].expand(len(points), 3), 1e-12)


def test_wrap_modes():
    ramp = torch.tensor([0.0, 1.0, 2.0, 3.0], dtype=DOUBLE).reshape(1, 4, 1)
    u = torch.tensor([-0.375, -0.125, 0.125, 0.875, 1.125, 1.375], dtype=DOUBLE)  # centres of texels −2, −1, 0, 3, 4, 5
    uv = torch.stack([u, torch.full_like(u, 0.5)], dim=1)
    for wrap, expected in {
        "repeat": [2, 3, 0, 3, 0, 1],
        "clamp": [0, 0, 0, 3, 3, 3],
        "mirror": [1, 0, 0, 3, 3, 2],
    }.items():
        for filter_ in ("bilinear", "nearest"):
            assert gd.Texture(ramp, wrap, filter_).sample(uv)[:, 0].tolist() == expected
    between = gd.Texture(ramp, "repeat").sample(torch.tensor([[0.0, 0.5]], dtype=DOUBLE))
    assert float(between) == 1.5  # of the last and the first texel


def test_mip_maps_are_means():
    image = torch.rand(6, 5, 2, 4, dtype=DOUBLE)[..., :3]
    texture = gd.Texture(torch.rand(8, 4, 3, dtype=DOUBLE), mipmaps=True)
    assert [tuple(level.shape) for level in texture.levels] == [(8, 4, 3), (4, 2, 3), (2, 1, 3), (1, 1, 3)]
    assert_close_relative(texture.levels[1][0, 0], texture.image[:2, :2].mean(dim=(0, 1)), 1e-14)
    assert_close_relative(texture.levels[-1][0, 0], texture.image.mean(dim=(0, 1)), 1e-14)
    uv = torch.rand(20, 2, dtype=DOUBLE)
    last = texture.sample(uv, lod=torch.full((20,), 9.0))
    assert_close_relative(last, texture.image.mean(dim=(0, 1)).expand(20, 3), 1e-14)
    whole = [texture.sample(uv, lod=torch.full((20,), float(level))) for level in (1, 2)]
    half = texture.sample(uv, lod=torch.full((20,), 1.5))
    assert_close_relative(half, 0.5 * (whole[0] + whole[1]), 1e-14)
    batch = gd.Texture(image.permute(2, 0, 1, 3), mipmaps=True)
    index = torch.randint(0, 2, (20,))
    both = torch.stack([gd.Texture(one, mipmaps=True).sample(uv, torch.full((20,), 0.7)) for one in batch.image])
    assert_close_relative(batch.sample(uv, torch.full((20,), 0.7), index), both[index, torch.arange(20)], 1e-14)


def test_the_level_is_texels_a_pixel():
    # 64 texels over 8 pixels: 3 halvings. A checkerboard of single texels is grey there, and noise without mip-maps.
    board = (torch.arange(64)[:, None] + torch.arange(64)) % 2
    image = board[..., None].expand(64, 64, 3).double()
    for eye in (front(), gd.Camera.orbit(5.0, fov_deg=2 * math.degrees(math.atan(0.2)))):
        render = gd.Renderer(8, scale=1e-6, outputs="rgb")
        out = render(square(texture=gd.Texture(image, mipmaps=True)), eye)
        inside = out.alpha > 0.9
        assert_close_relative(out.rgb[inside], torch.full((int(inside.sum()), 3), 0.5), 1e-9)
    pattern = torch.rand(64, 64, 3, dtype=DOUBLE)
    out = render(square(texture=gd.Texture(pattern, mipmaps=True)), front())
    means = pattern.reshape(8, 8, 8, 8, 3).mean(dim=(1, 3))
    assert_close_relative(out.rgb[inside], means[inside], 1e-9)


def test_light_is_phongs():
    mesh = square(
        material=gd.Material(0.5, (0.9, 0.8, 0.7), 0.6, 7.0),
        vertex_colors=torch.rand(4, 3, dtype=DOUBLE)[:1].expand(4, 3),
    )
    color = mesh.vertex_colors[0]
    lamp = torch.tensor([0.4, 0.3, 1.5], dtype=DOUBLE)
    lights = [
        gd.AmbientLight((0.2, 0.1, 0.3)),
        gd.DirectionalLight((0.0, 3.0, 4.0), 0.5),
        gd.PointLight(lamp, (1.0, 0.5, 0.2), (0.3, 0.2, 0.1)),
        gd.DirectionalLight((0.0, 0.0, -1.0), 5.0),  # from behind
    ]
    eye = gd.Camera.orbit(torch.tensor(3.0, dtype=DOUBLE), fov_deg=30)
    out = gd.Renderer(9, scale=1e-6, shading="phong", outputs=("rgb", "depth"))(mesh, eye, lights)
    matt = gd.Renderer(9, scale=1e-6, shading="lambert", outputs="rgb")(mesh, eye, lights).rgb
    for row, column in ((2, 3), (4, 7), (7, 0)):
        x, y = (column + 0.5) * 2 / 9 - 1, 1 - (row + 0.5) * 2 / 9
        point = eye.unproject(torch.tensor([[x, y, 3.0]], dtype=DOUBLE))[0]
        n = torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE)
        viewer = eye.position - point
        viewer = viewer / viewer.norm()
        diffuse = 0.5 * torch.tensor([0.2, 0.1, 0.3], dtype=DOUBLE)
        shine = torch.zeros(3, dtype=DOUBLE)
        r = float((lamp - point).norm())
        for way, power in (
            (torch.tensor([0.0, 0.6, 0.8], dtype=DOUBLE), torch.full((3,), 0.5)),
            ((lamp - point) / r, torch.tensor([1.0, 0.5, 0.2]) / (0.3 + 0.2 * r + 0.1 * r * r)),
        ):
            diffuse += float(n @ way) * power * torch.tensor([0.9, 0.8, 0.7])
            mirror = 2 * (n @ way) * n - way
            shine += 0.6 * max(0.0, float(mirror @ viewer)) ** 7 * power
        expected = color * diffuse + shine
        assert_close_relative(out.rgb[row, column], expected, 1e-6)  # lights and material were given in float32
        assert_close_relative(matt[row, column], color * diffuse, 1e-6)


def test_gouraud_and_phong_agree_where_light_is_linear():
    # One face, a parallel view and lights from far away: nothing varies over it, but the normals given.
    mesh = square(vertex_colors=torch.rand(4, 3, dtype=DOUBLE))
    lights = [gd.AmbientLight(0.2), gd.DirectionalLight((1.0, 2.0, 3.0), 0.8)]
    images = [
        gd.Renderer(12, scale=1e-3, shading=shading, normals=normals, outputs="rgb")(mesh, front(), lights).rgb
        for shading in ("gouraud", "phong")
        for normals in ("smooth", "flat")
    ]
    for other in images[1:]:
        assert_close_relative(other, images[0], 1e-12)


def test_rgb_is_over_the_background_once():
    background = torch.rand(10, 14, 3, dtype=DOUBLE)
    mesh = bumpy(face_colors=torch.tensor([[0.2, 0.7, 0.4]], dtype=DOUBLE).expand(80, 3))
    for options in ({}, {"depth": "softmax", "gamma": 1e-3}, {"depth": "softmax", "gamma": 1.0}):
        render = gd.Renderer((10, 14), scale=0.05, outputs="rgb", background=background, max_error=0.0, **options)
        out = render(mesh, camera())
        alpha = out.alpha[..., None]
        assert_close_relative(out.rgb, alpha * torch.tensor([0.2, 0.7, 0.4]).double() + (1 - alpha) * background, 1e-7)


def test_hard_maps_are_those_of_the_rasteriser():
    mesh = gd.icosphere(2)
    eye = camera(torch.float32, azimuth_deg=torch.tensor([0.0, 70.0, 200.0]))
    hard = gd.rasterize(mesh, eye, (20, 30))
    out = gd.Renderer((20, 30), outputs=("depth", "face_id", "normal"))(mesh, eye)
    assert torch.equal(out.face_id, hard.face_id) and "rgb" not in out and "uv" not in out
    assert_close_relative(out.depth[hard.mask], hard.depth[hard.mask], rounding_bound(torch.float32))
    assert torch.isinf(out.depth[~hard.mask]).all() and not out.normal[~hard.mask].any()
    corners = mesh.vertex_normals[mesh.faces[hard.face_id[hard.mask]]]
    normal = (hard.barycentric[hard.mask][..., None] * corners).sum(dim=1)
    assert_close_relative(out.normal[hard.mask], normal / normal.norm(dim=1, keepdim=True), 1e-4)


@pytest.mark.parametrize("depth", ["hard", "softmax"])
def test_depth_and_normals_have_gradients(depth: str):
    mesh = bumpy()
    render = gd.Renderer(
        12, scale=0.05, depth=depth, gamma=0.3, max_fragments=80, max_error=0.0, outputs=("depth", "normal")
    )
    way = torch.randn_like(mesh.vertices)

    def maps(step: float) -> tuple[torch.Tensor, torch.Tensor]:
        out = render(mesh.with_vertices(mesh.vertices + step * way), camera())
        return torch.cat([out.depth[..., None], out.normal], dim=-1), torch.isfinite(out.depth)

    vertices = mesh.vertices.clone().requires_grad_()
    out = render(mesh.with_vertices(vertices), camera())
    there = torch.isfinite(out.depth)
    for step in (-1e-5, 1e-5):
        moved, still = maps(step)
        there = there & still & ((moved[..., 0] - out.depth).abs() < 1e-3)
    both = torch.cat([out.depth[..., None], out.normal], dim=-1)
    cotangent = torch.randn_like(both)
    (gradient,) = torch.autograd.grad((both * cotangent)[there].sum(), vertices)
    numeric = sum(s * (maps(s * 1e-6)[0] * cotangent)[there].sum() for s in (1, -1)) / 2e-6
    assert there.sum() > 30
    assert abs(float((gradient * way).sum() - numeric.detach())) < 1e-6 * float((gradient * way).abs().sum())


@pytest.mark.parametrize("gamma", [1e-300, 1e-40, 1e-12, 1e-4, 1.0, 1e6, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_no_gamma_overflows(gamma: float, dtype: torch.dtype):
    mesh = bumpy(vertex_colors=torch.rand(42, 3)).to(dtype=dtype)
    vertices, tau = mesh.vertices.clone().requires_grad_(), torch.tensor(0.02, dtype=dtype, requires_grad=True)
    own = torch.tensor(gamma, dtype=DOUBLE, requires_grad=True)
    for law in ("logistic", "uniform", "cauchy", "exponential.reversed.squared"):
        for value in (gamma, own):
            render = gd.Renderer(16, law, tau, depth="softmax", gamma=value, outputs=("rgb", "depth"))
            out = render(mesh.with_vertices(vertices), camera(dtype))
            assert torch.isfinite(out.rgb).all() and 0 <= out.rgb.min() and out.rgb.max() <= 1 + 1e-6
            leaves = [vertices, tau] if value is gamma else [vertices, tau, own]
            for gradient in torch.autograd.grad(out.rgb.square().sum(), leaves):
                assert torch.isfinite(gradient).all()


def test_softmax_with_small_gamma_is_hard_inside():
    # Two squares, one behind the other: the front one wins, however the faces are ordered.
    near, far = square(0.5), square(-0.5)
    for first, second in ((near, far), (far, near)):
        v = torch.cat([first.vertices, second.vertices])
        faces = torch.cat([first.faces, second.faces + 4])
        colors = (v[:, 2:] > 0).double().expand(8, 3)
        mesh = gd.Mesh(v, faces, vertex_colors=colors)
        render = gd.Renderer(8, scale=1e-2, depth="softmax", gamma=1e-3, outputs="rgb")
        assert float(render(mesh, front()).rgb.min()) > 0.9


def test_the_range_of_depths_is_free_of_scale():
    mesh = bumpy(vertex_colors=torch.rand(42, 3, dtype=DOUBLE))
    render = gd.Renderer(16, scale=0.05, depth="softmax", gamma=0.1, outputs="rgb")
    one = render(mesh, camera()).rgb
    large = render(mesh.scaled(100.0), camera(distance=torch.tensor(270.0, dtype=DOUBLE))).rgb
    assert_close_relative(large, one, 1e-9)
    clip = camera().to_clip(mesh.vertices)[:, 2]
    ends = (float(clip.min()), float(clip.max()))
    given = gd.Renderer(16, scale=0.05, depth="softmax", gamma=0.1, outputs="rgb", depth_range=ends)
    assert_close_relative(given(mesh, camera()).rgb, one, 1e-12)


# --- batches ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["hard", "softmax"])
@pytest.mark.parametrize("shading", ["phong", "gouraud"])
def test_a_batch_is_its_single_renders(depth: str, shading: str):
    ball = bumpy()
    colors, texture = torch.rand(3, 42, 3, dtype=DOUBLE), torch.rand(3, 5, 4, 3, dtype=DOUBLE)
    vertices = torch.stack([ball.vertices * s for s in (0.5, 0.8, 1.0)])
    uv = sphere_uv(ball.vertices)
    many = gd.Mesh(vertices, ball.faces, vertex_colors=colors, uv=uv, texture=texture)
    eyes = camera(azimuth_deg=torch.tensor([0.0, 50.0, 120.0], dtype=DOUBLE))
    sun = torch.tensor([[1.0, 1, 1], [0, 1, 1], [1, 0, 1]], dtype=DOUBLE)
    background = torch.rand(3, 9, 11, 3, dtype=DOUBLE)
    options = {
        "depth": depth,
        "gamma": 0.1,
        "shading": shading,
        "outputs": ("rgb", "depth", "normal", "uv"),
        "max_error": 0.0,
    }
    lamp = gd.PointLight((0.0, 2.0, 2.0), 0.5)
    out = gd.Renderer((9, 11), scale=0.05, background=background, **options)(
        many, eyes, [gd.DirectionalLight(sun), lamp]
    )
    packed = gd.MeshBatch([many[i] for i in range(3)])
    also = gd.Renderer((9, 11), scale=0.05, background=background, **options)(
        packed, eyes, [gd.DirectionalLight(sun), lamp]
    )
    for i in range(3):
        render = gd.Renderer((9, 11), scale=0.05, background=background[i], **options)
        alone = render(many[i], eyes[i], [gd.DirectionalLight(sun[i]), lamp])
        for name in ("alpha", "rgb", "normal", "uv"):
            assert_close_relative(getattr(out, name)[i], getattr(alone, name), 1e-9, name)
            assert_close_relative(getattr(also, name)[i], getattr(alone, name), 1e-9, name)
        seen = torch.isfinite(alone.depth)
        assert torch.equal(seen, torch.isfinite(out.depth[i])) and torch.equal(seen, torch.isfinite(also.depth[i]))


def test_supersampling_averages():
    mesh = bumpy(vertex_colors=torch.rand(42, 3, dtype=DOUBLE))
    wanted = ("rgb", "depth", "normal", "face_id")
    fine = gd.Renderer((24, 36), scale=0.02, outputs=wanted)(mesh, camera())
    out = gd.Renderer((8, 12), scale=0.02, outputs=wanted, supersample=3)(mesh, camera())
    assert_close_relative(out.rgb, fine.rgb.reshape(8, 3, 12, 3, 3).mean(dim=(1, 3)), 1e-12)
    assert_close_relative(out.alpha, fine.alpha.reshape(8, 3, 12, 3).mean(dim=(1, 3)), 1e-12)
    blocks = fine.depth.reshape(8, 3, 12, 3).transpose(1, 2).reshape(8, 12, 9)
    nearest = fine.face_id.reshape(8, 3, 12, 3).transpose(1, 2).reshape(8, 12, 9).gather(-1, blocks.argmin(-1, True))
    assert torch.equal(out.face_id, nearest[..., 0])
    for row, column in ((4, 6), (1, 6), (0, 0)):
        block = blocks[row, column]
        mean = block[torch.isfinite(block)].mean() if torch.isfinite(block).any() else torch.tensor(math.inf)
        assert torch.isclose(out.depth[row, column], mean.double())


@pytest.mark.parametrize("depth", ["hard", "softmax"])
def test_backends_agree(depth: str):
    mesh = bumpy(vertex_colors=torch.rand(42, 3, dtype=DOUBLE))
    lights = [gd.DirectionalLight((1.0, 2.0, 3.0)), gd.AmbientLight(0.2)]
    images, gradients = [], []
    for backend in ("kernel", "reference"):
        v = mesh.vertices.clone().requires_grad_()
        render = gd.Renderer(
            (7, 9), scale=0.1, depth=depth, outputs="rgb", backend=backend, max_error=0.0, max_fragments=80
        )
        images.append(render(mesh.with_vertices(v), camera(), lights).rgb)
        cotangent = torch.linspace(-1, 1, images[-1].numel(), dtype=DOUBLE).reshape(images[-1].shape)
        gradients.append(torch.autograd.grad((images[-1] * cotangent).sum(), v)[0])
    assert_close_relative(images[0], images[1], 1e-9)
    assert_close_relative(gradients[0], gradients[1], 1e-7)


# --- fits from colour alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", ["hard", "softmax"])
def test_a_fit_from_rgb_alone_converges(depth: str):
    # The ball fills each image, so that alpha is 1 everywhere: only colour tells how it is turned and moved.
    ball = gd.icosphere(2)
    colors = 0.5 + 0.5 * torch.sin(4 * ball.vertices + torch.tensor([0.0, 1.0, 2.0]))
    mesh = ball.with_attributes(vertex_colors=colors)
    eyes = gd.Camera.orbit(2.0, 10.0, torch.tensor([0.0, 90.0, 180.0, 270.0]), fov_deg=30)
    render = gd.Renderer(24, scale=1e-3, depth=depth, gamma=1e-2, outputs="rgb")
    target = render(mesh, eyes).rgb
    assert render(mesh, eyes).alpha.min() > 0.99
    angle, shift = torch.tensor([0.15, -0.2, 0.1]), torch.tensor([0.05, -0.04, 0.06])
    values = [angle.requires_grad_(), shift.requires_grad_()]
    optimizer = torch.optim.Adam(values, lr=0.02)
    losses = []
    for _ in range(60):
        x, y, z = angle
        zero = torch.zeros(())
        turn = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).reshape(3, 3).matrix_exp()
        loss = (render(mesh.with_vertices(ball.vertices @ turn.mT + shift), eyes).rgb - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 1e-3 * losses[0], losses[::10]
    assert float(angle.detach().norm()) < 0.02 and float(shift.detach().norm()) < 0.02


def test_a_texture_is_recovered_from_images():
    ball = gd.icosphere(2)
    uv = sphere_uv(ball.vertices)
    truth = torch.rand(6, 8, 3)
    eyes = gd.Camera.orbit(2.6, torch.tensor([-30.0, 30.0]), torch.tensor([0.0, 180.0]), fov_deg=60)
    render = gd.Renderer(48, scale=5e-3, outputs="rgb")
    lights = [gd.AmbientLight(0.5), gd.DirectionalLight((1.0, 1.0, 1.0), 0.5)]
    target = render(ball.with_attributes(uv=uv, texture=truth), eyes, lights).rgb
    guess = torch.full_like(truth, 0.5).requires_grad_()
    optimizer = torch.optim.Adam([guess], lr=0.1)
    for _ in range(60):
        loss = (render(ball.with_attributes(uv=uv, texture=guess), eyes, lights).rgb - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 1e-5
    assert float((guess[1:5].detach() - truth[1:5]).abs().mean()) < 0.05  # rows that are well seen
