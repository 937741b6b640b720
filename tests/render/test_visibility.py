# SPDX-License-Identifier: Apache-2.0
"""Gradients of hard images at visibility edges: against differences of finely sampled pictures, and of themselves."""

import math

import pytest
import torch

import geodiff as gd
from geodiff import ops
from geodiff.render import visibility
from geodiff.render.view import pack
from tests.lit_scenes import DOUBLE

FINE = 768  # samples a side of the pictures that are differenced
CAMERA = gd.Camera.look_at((0.0, 0.0, 3.0), (0.0, 0.0, 0.0), fov_deg=50.0).to(dtype=DOUBLE)


def quad(x: float, y: float, half: float, z: float, turn: float) -> torch.Tensor:
    c, s = math.cos(turn), math.sin(turn)
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]], dtype=DOUBLE) * half
    flat = corners @ torch.tensor([[c, s], [-s, c]], dtype=DOUBLE) + torch.tensor([x, y], dtype=DOUBLE)
    return torch.cat([flat, torch.full((4, 1), z, dtype=DOUBLE)], dim=1)


FRONT, BACK = quad(0.1, 0.05, 0.5, 0.4, 0.3), quad(-0.2, -0.1, 0.7, -0.3, -0.2)
TILTED = quad(0.0, 0.0, 0.7, 0.05, 0.4)
TILTED = TILTED + torch.stack([0 * TILTED[:, 0], 0 * TILTED[:, 0], 0.8 * TILTED[:, 0] + 0.3 * TILTED[:, 1]], dim=1)
BALL = gd.icosphere(3).to(dtype=DOUBLE)
ALONG = torch.tensor([1.0, 0.4, 0.2], dtype=DOUBLE)


def squares(front: torch.Tensor, back: torch.Tensor) -> gd.Mesh:
    colors = torch.tensor([[1.0, 0.2, 0.1]] * 4 + [[0.1, 0.3, 1.0]] * 4, dtype=DOUBLE)
    faces = [[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]]
    return gd.Mesh(torch.cat([front, back]), faces, vertex_colors=colors)


def ball(t: torch.Tensor) -> gd.Mesh:
    v = 0.7 * BALL.vertices
    colors = 0.5 + 0.4 * torch.stack([torch.sin(3 * v[:, 0]), torch.cos(4 * v[:, 1]), torch.sin(2 * v[:, 0] + 1)], 1)
    return gd.Mesh(v + t * ALONG, BALL.faces, vertex_colors=colors)


def turning_box(t: torch.Tensor) -> gd.Mesh:
    box = gd.box().to(dtype=DOUBLE)
    c, s, o, z = torch.cos(t + 0.5), torch.sin(t + 0.5), torch.ones_like(t), torch.zeros_like(t)
    about = torch.stack([torch.stack([c, z, s]), torch.stack([z, o, z]), torch.stack([-s, z, c])])
    shade = torch.linspace(0.1, 0.9, 3 * box.num_faces, dtype=DOUBLE).reshape(-1, 3)
    return gd.Mesh(0.8 * box.vertices @ about.T, box.faces, face_colors=shade)


def balls(t: torch.Tensor) -> gd.Mesh:
    """Two balls of one colour each that go through each other; one moves."""
    v = torch.cat([0.6 * BALL.vertices - 0.25 * ALONG, 0.55 * BALL.vertices + 0.3 * ALONG + t * ALONG.flip(0)])
    colors = torch.tensor([[0.9, 0.7, 0.2], [0.2, 0.4, 0.8]], dtype=DOUBLE).repeat_interleave(len(BALL.vertices), 0)
    return gd.Mesh(v, torch.cat([BALL.faces, BALL.faces + len(BALL.vertices)]), vertex_colors=colors)


def wire(width: float, t: torch.Tensor) -> gd.Mesh:
    """A slanted strip, such a share of the picture wide and longer than it, moves before a wall."""
    half, c, s = 3.0 * math.tan(math.radians(25.0)) * width, math.cos(0.4), math.sin(0.4)
    strip = torch.tensor([[-3.0, -half, 0.1], [3.0, -half, 0.1], [3.0, half, 0.1], [-3.0, half, 0.1]], dtype=DOUBLE)
    strip = strip @ torch.tensor([[c, s, 0], [-s, c, 0], [0, 0, 1]], dtype=DOUBLE)
    wall = torch.tensor([[-3.0, -3, -0.5], [3, -3, -0.5], [3, 3, -0.5], [-3, 3, -0.5]], dtype=DOUBLE)
    return squares(strip + t * torch.tensor([0.3, 1.0, 0.0], dtype=DOUBLE), wall)


SCENES = {
    "a square slides over another": lambda t: squares(FRONT + t * ALONG, BACK),
    "a square slides under another": lambda t: squares(FRONT, BACK + t * ALONG),
    "a square comes nearer": lambda t: squares(FRONT * (1 + t), BACK),
    "planes go through each other": lambda t: squares(BACK + torch.stack([0 * t, 0 * t, t + 0.3]), TILTED),
    "a coloured ball moves": ball,
    "a box of coloured faces turns": turning_box,
    "two balls that meet": balls,
    "a wire of three pixels": lambda t: wire(3 / 96, t),
}


def loss(image: torch.Tensor) -> torch.Tensor:
    """A smooth weight on each channel, so that every place of the picture counts otherwise."""
    n = image.shape[-2]
    x = (torch.arange(n, dtype=DOUBLE) + 0.5) / n * 2 - 1
    across, down = x[None], x[:, None]
    weight = torch.stack([torch.sin(2 * across + down + 0.3), torch.cos(1.5 * down - across), 0.5 + across * down], -1)
    return (image * weight).mean()


@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
@pytest.mark.parametrize("name", SCENES)
def test_gradients_add_up_to_the_change(name: str, coverage: str):
    # The mean of the derivative over an interval is the difference quotient; the mean also takes the places of edges
    # between pixel centres, which one picture knows at only one offset.
    step, places = 0.03, 9
    fine = gd.Renderer(FINE, coverage="hard", outputs="rgb")
    ends = [float(loss(fine(SCENES[name](torch.tensor(t, dtype=DOUBLE)), CAMERA).rgb)) for t in (-step, step)]
    expected = (ends[1] - ends[0]) / (2 * step)
    render, total = gd.Renderer(96, coverage=coverage, outputs="rgb"), 0.0
    for t in (torch.arange(places, dtype=DOUBLE) + 0.5) / places * 2 * step - step:
        t.requires_grad_()
        total += float(torch.autograd.grad(loss(render(SCENES[name](t), CAMERA).rgb), t)[0]) / places
    # Colours are taken at pixel centres, half a pixel of 96 beside the edge; the box's also across its faces.
    assert abs(total - expected) <= 0.06 * abs(expected), (total, expected)


def test_without_the_edges_it_is_wrong():
    """What the gradient of shading alone says, and so why there is another."""
    t = torch.tensor(0.0, dtype=DOUBLE, requires_grad=True)
    render = gd.Renderer(96, coverage="contour", scale_px=0.5, outputs="rgb")
    hidden = render(squares(FRONT * 0.5 + t * ALONG, BACK * 1.2), CAMERA).rgb  # all of the front is before the back
    assert abs(float(torch.autograd.grad(loss(hidden), t)[0])) < 1e-30
    seen = gd.Renderer(96, coverage="hard", outputs="rgb")(squares(FRONT * 0.5 + t * ALONG, BACK * 1.2), CAMERA).rgb
    assert abs(float(torch.autograd.grad(loss(seen), t)[0])) > 1e-3


def test_the_picture_is_the_hard_one():
    mesh, size = ball(torch.tensor(0.0, dtype=DOUBLE)), (33, 40)
    out = gd.Renderer(size, coverage="hard", outputs=("rgb", "depth", "normal", "face_id"))(mesh, CAMERA)
    hard = gd.rasterize(mesh, CAMERA, size)
    assert torch.equal(out.alpha, hard.mask.to(DOUBLE))
    assert torch.equal(out.face_id, hard.face_id)
    assert torch.allclose(out.depth[hard.mask], hard.depth[hard.mask], rtol=1e-12)
    colors = gd.fragments(mesh, CAMERA, size, k=1).interpolate(mesh.vertex_colors)[..., 0, :]
    assert torch.allclose(out.rgb, colors * hard.mask[..., None], atol=1e-12)


def test_antialiased_is_nearer_to_the_mean_of_many_samples():
    mesh = squares(FRONT, BACK)
    many = gd.Renderer(48, coverage="hard", outputs="rgb", supersample=16)(mesh, CAMERA)
    errors = {}
    for coverage in ("hard", "antialiased"):
        out = gd.Renderer(48, coverage=coverage, outputs="rgb")(mesh, CAMERA)
        errors[coverage] = float((out.rgb - many.rgb).square().mean().sqrt())
    assert errors["antialiased"] < 0.25 * errors["hard"]


@pytest.mark.parametrize("name", ["a square slides over another", "planes go through each other"])
def test_antialiased_has_the_gradient_of_its_own_picture(name: str):
    def picture(t: torch.Tensor) -> torch.Tensor:
        out = gd.Renderer((13, 11), coverage="antialiased", outputs="rgb")(SCENES[name](t), CAMERA)
        return torch.cat([out.rgb, out.alpha[..., None]], dim=-1)

    # A step of 1e-6 lets no edge pass a pixel centre here.
    assert torch.autograd.gradcheck(picture, torch.tensor(0.0123, dtype=DOUBLE, requires_grad=True), eps=1e-6)


@pytest.mark.parametrize("camera", [CAMERA, gd.Camera.orthographic((0.0, 0.0, 3.0)).to(dtype=DOUBLE)])
def test_the_gradient_of_places_is_that_of_autograd(camera: gd.Camera) -> None:
    mesh = squares(BACK + torch.tensor([0.0, 0.0, 0.3], dtype=DOUBLE), TILTED)
    view = pack("test", mesh, camera, (24, 24), "kernel")
    clip = view.clip.clone().requires_grad_()
    with torch.no_grad():
        found = ops.jumps(*view.packed, ops.rasterize(*view.packed, **view.frame).face_id, near=camera.near)
    assert len(found.ends) > 20 and len(found.corners) > 5  # edges, and a line where the squares meet
    at = visibility._crossings(found, clip, torch.zeros(1, 24, 24, 3, dtype=DOUBLE))
    up = torch.randn(len(at.place), dtype=DOUBLE, generator=torch.Generator().manual_seed(0))
    (expected,) = torch.autograd.grad(at.place, clip, up)
    with torch.no_grad():
        got = visibility._pull(found, visibility._crossings(found, clip, torch.zeros(1, 24, 24, 3)), clip, up)
    assert torch.allclose(got, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()))


@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
def test_kernels_and_twins_agree(coverage: str):
    results = []
    for backend in ("kernel", "reference"):
        v = (0.7 * gd.icosphere(1).to(dtype=DOUBLE).vertices).requires_grad_()
        mesh = gd.Mesh(v, gd.icosphere(1).faces, vertex_colors=v.detach().abs())
        lights = [gd.AmbientLight(0.3), gd.DirectionalLight((1, 2, 3), 0.7)]
        options = {"normals": "flat", "outputs": ("rgb", "depth", "normal")}
        camera = gd.Camera.orbit(2.7, 20.0, 30.0, fov_deg=60).to(dtype=DOUBLE)
        out = gd.Renderer(21, coverage=coverage, backend=backend, **options)(mesh, camera, lights)
        depth = torch.where(out.depth.isfinite(), out.depth, 0)
        total = loss(out.rgb) + (out.alpha * depth).sum() + (out.normal * out.normal.detach().sin()).sum()
        results.append((out.rgb, out.alpha, torch.autograd.grad(total, v)[0]))
    for kernel, twin in zip(*results, strict=True):
        assert torch.allclose(kernel, twin, rtol=1e-9, atol=1e-11)


def test_batches_are_their_images():
    cameras = gd.Camera.orbit(2.7, 20.0, torch.tensor([10.0, 50.0, 200.0]), fov_deg=60)
    colors = torch.rand(42, 3)

    def gradient(camera: gd.Camera, weight: torch.Tensor) -> torch.Tensor:
        v = gd.icosphere(1).vertices.clone().requires_grad_()
        rgb = gd.Renderer(24, coverage="hard", outputs="rgb")(
            gd.Mesh(v, gd.icosphere(1).faces, vertex_colors=colors), camera
        ).rgb
        return torch.autograd.grad((rgb * weight).sum(), v)[0]

    weight = torch.rand(3, 24, 24, 3)
    alone = sum(gradient(cameras[i], weight[i]) for i in range(3))
    assert torch.allclose(gradient(cameras, weight), alone, atol=2e-5)


def test_meshes_of_a_batch():
    meshes = [gd.icosphere(1), gd.box()]
    batch = gd.MeshBatch([m.with_vertices(0.8 * m.vertices) for m in meshes])
    camera = gd.Camera.orbit(2.7, 20.0, 30.0, fov_deg=60)
    render = gd.Renderer(24, coverage="antialiased", outputs="rgb")
    together = render(batch, camera)
    for i, mesh in enumerate(batch):
        assert torch.allclose(together.alpha[i], render(mesh, camera).alpha, atol=1e-6)


def test_the_same_bits_on_any_number_of_threads():
    before, results = torch.get_num_threads(), []
    ball, camera = gd.icosphere(4), gd.Camera.orbit(2.7, 20.0, 30.0, fov_deg=60)
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            v = ball.vertices.clone().requires_grad_()
            mesh = gd.Mesh(v, ball.faces, vertex_colors=ball.vertices.abs())
            rgb = gd.Renderer(128, coverage="hard", outputs="rgb")(mesh, camera).rgb
            results.append((rgb.detach(), torch.autograd.grad(rgb.square().mean(), v)[0]))
    finally:
        torch.set_num_threads(before)
    for one, many in zip(*results, strict=True):
        assert torch.equal(one, many)


@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE], ids=str)
def test_bad_meshes_give_finite_gradients(coverage: str, dtype: torch.dtype):
    v = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 2.9], [0.5, 0.5, 4.0], [0.0, 0, -1]], dtype=dtype)
    v.requires_grad_()
    # Twice the same, folded back, a segment, a point, edge-on, and through the camera.
    faces = [[0, 1, 2], [0, 1, 2], [2, 1, 0], [0, 0, 1], [2, 2, 2], [0, 3, 5], [1, 4, 5], [2, 4, 3]]
    mesh = gd.Mesh(v, faces, vertex_colors=torch.rand(6, 3, dtype=dtype))
    for s in (1, 2):
        out = gd.Renderer(19, coverage=coverage, outputs="rgb", supersample=s)(mesh, CAMERA.to(dtype=dtype))
        alpha = out.alpha.detach()
        assert bool(out.rgb.isfinite().all()) and float(alpha.min()) >= -1e-6 and float(alpha.max()) <= 1 + 1e-6
        assert bool(torch.autograd.grad(out.rgb.square().sum(), v)[0].isfinite().all())


def test_softmax_depth_is_refused():
    with pytest.raises(ValueError, match=r"`depth` must be 'hard' with coverage='hard'; got softmax"):
        gd.Renderer(8, coverage="hard", depth="softmax")


def test_pictures_of_your_own():
    ball = gd.icosphere(2)
    camera = gd.Camera.orbit(2.7, 20.0, 30.0, fov_deg=60)
    clip = camera.to_clip(ball.vertices).requires_grad_()
    packed = clip, ball.faces, torch.tensor([[0, 0, len(ball.faces)]])
    face_id = ops.rasterize(*packed, image_size=(32, 32)).face_id
    mask = (face_id >= 0).float()[..., None]
    found = ops.jumps(*packed, face_id)
    area = visibility.edge_gradient(mask, found, clip).sum()
    # Wider by 1 %: so is the area of its image, by 2 %.
    grown = torch.autograd.grad(area, clip)[0][:, :2] * clip.detach()[:, :2]
    assert float(grown.sum()) == pytest.approx(2 * float(area.detach()), rel=0.02)


@pytest.mark.parametrize("backend", ["kernel", "reference"])
@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
@pytest.mark.parametrize("size", [8, 9, 10, 16, 25, 50])
def test_edges_through_pixel_centres_and_half_way_between(size: int, coverage: str, backend: str):
    # A unit square, half as wide as the picture: its share of that is k²/4. At these sizes its sides go through pixel
    # centres, or lie in the middle between two.
    box, camera = gd.box().to(dtype=DOUBLE), gd.Camera.orthographic((0.0, 0.0, 3.0)).to(dtype=DOUBLE)
    k = torch.ones((), dtype=DOUBLE, requires_grad=True)
    mesh = gd.Mesh(box.vertices * k, box.faces)
    alpha = gd.Renderer(size, coverage=coverage, backend=backend)(mesh, camera).alpha
    # Sides are as long as the rows that they cross: whole numbers of pixels.
    assert float(torch.autograd.grad(alpha.mean(), k)[0]) == pytest.approx(0.5, rel=2.5 / size)
    if coverage == "antialiased":
        assert float(alpha.detach().mean()) == pytest.approx(0.25, rel=1 / size)


def test_antialiased_stays_between_the_values_around():
    camera = gd.Camera.orthographic((0.0, 0.0, 3.0))
    for x in torch.linspace(0, 0.07, 23).tolist():
        strip = torch.tensor([[-0.002, -0.5, 0], [0.002, -0.5, 0], [0.002, 0.5, 0], [-0.002, 0.5, 0]])
        strip = gd.Mesh(strip + torch.tensor([x, 0.0, 0.0]), [[0, 1, 2], [0, 2, 3]])
        alpha = gd.Renderer(32, coverage="antialiased")(strip, camera).alpha
        assert float(alpha.min()) >= -1e-6 and float(alpha.max()) <= 1 + 1e-6


def test_creases_are_those_of_each_image():
    ball = gd.icosphere(2).to(dtype=DOUBLE)
    for colours, normals in (({"face_colors": torch.rand(320, 3, dtype=DOUBLE)}, "smooth"), ({}, "flat")):
        gradients = []
        for outputs in ("normal", ("normal", "rgb")):
            t = torch.zeros((), dtype=DOUBLE, requires_grad=True)
            mesh = gd.Mesh(0.7 * ball.vertices + t * ALONG, ball.faces, **colours)
            out = gd.Renderer(48, coverage="hard", normals=normals, outputs=outputs)(mesh, CAMERA)
            gradients.append(float(torch.autograd.grad(loss(out.normal), t)[0]))
        assert gradients[0] == gradients[1] and (gradients[0] != 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of forward mode
def test_what_has_no_derivative_says_so():
    v = (0.7 * BALL.vertices).requires_grad_()
    alpha = gd.Renderer(16, coverage="hard")(gd.Mesh(v, BALL.faces), CAMERA).alpha
    with pytest.raises(RuntimeError, match="edge_gradient is not twice differentiable: it is an estimate"):
        torch.autograd.grad(alpha.square().sum(), v, create_graph=True)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(RuntimeError, match="edge_gradient"):
        dual = torch.autograd.forward_ad.make_dual(v.detach(), torch.ones_like(v))
        gd.Renderer(16, coverage="hard", backend="reference")(gd.Mesh(dual, BALL.faces), CAMERA)


def test_pictures_are_checked():
    clip = CAMERA.to_clip(0.7 * BALL.vertices)
    packed = clip, BALL.faces, torch.tensor([[0, 0, len(BALL.faces)]])
    found = ops.jumps(*packed, ops.rasterize(*packed, image_size=(8, 8)).face_id)
    for change in (visibility.antialias, visibility.edge_gradient):
        with pytest.raises(ValueError, match=r"`image` must be of shape \(B, H, W, C\)"):
            change(torch.rand(8, 8, 1, dtype=DOUBLE), found, clip)
        with pytest.raises(ValueError, match=r"`image` must be that whose jumps these are"):
            change(torch.rand(1, 2, 3, 1, dtype=DOUBLE), found, clip)
        with pytest.raises(ValueError, match=r"`clip` must be that whose jumps these are"):
            change(torch.rand(1, 8, 8, 1, dtype=DOUBLE), found, clip[:5])


@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
def test_no_images(coverage: str):
    v = torch.zeros(0, 12, 3, requires_grad=True)
    out = gd.Renderer(8, coverage=coverage, outputs="rgb")(gd.Mesh(v, gd.icosphere(0).faces), gd.Camera.orbit(2.7))
    assert out.rgb.shape == (0, 8, 8, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of a Function that is traced
@pytest.mark.parametrize("coverage", ["hard", "antialiased"])
def test_compiled_whole(coverage: str):
    ball, camera = gd.icosphere(1), gd.Camera.orbit(2.7, 20.0, 30.0, fov_deg=60)
    render = gd.Renderer(12, coverage=coverage, outputs="rgb")

    def value(v: torch.Tensor) -> torch.Tensor:
        return render(ball.with_vertices(v), camera).rgb.square().mean()

    results = []
    for function in (value, torch.compile(value, backend="aot_eager", fullgraph=True)):
        v = ball.vertices.clone().requires_grad_()
        results.append(torch.autograd.grad(function(v), v)[0])
    assert torch.allclose(*results, atol=1e-7)
