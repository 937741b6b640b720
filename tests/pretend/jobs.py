# SPDX-License-Identifier: Apache-2.0
"""The jobs on the pretend device, checkpoints that move to and from it, compiled steps, and what is refused."""

import math
import pathlib
import re
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

import geodiff as gd
import geodiff.tasks
from tests.pretend import device

CAMERAS = gd.Camera.orbit(2.732, 30, torch.arange(0, 360, 180), fov_deg=30)
MASKS = gd.rasterize(gd.box(0.6), CAMERAS, 10).mask.float()
FIT: dict[str, Any] = {
    "template": "sphere", "subdivisions": 1, "remesh_every": 2, "steps": 4, "hold_out": 0, "progress": False,
    "checkpoint_seconds": 0, "formats": ("obj",),
}  # fmt: skip


class Stop(Exception):
    """Thrown by a callback, as if the process were killed."""


def stop(progress: Any) -> None:
    if progress.step == 3:
        raise Stop


def refused(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    """Require an error of such a message."""
    try:
        call()
    except error as found:
        assert re.search(text, str(found)), str(found)
    else:
        raise AssertionError(f"not refused: {text}")


def fit_mesh() -> None:
    """Descent, remeshing, and checkpoints that move between devices."""
    whole = gd.fit_mesh(MASKS, CAMERAS, device="cpu", **FIT)
    for first, then in (("cpu", "pretend"), ("pretend", "cpu")):
        with tempfile.TemporaryDirectory() as folder:
            try:
                gd.fit_mesh(MASKS, CAMERAS, device=first, output=folder, callback=stop, **FIT)
            except Stop:
                pass
            assert (pathlib.Path(folder) / "checkpoint.pt").exists()
            fit = gd.fit_mesh(MASKS, CAMERAS, device=then, output=folder, **FIT)
            assert f'"device": "{then}"' in (pathlib.Path(folder) / "metrics.json").read_text()
        assert (fit.device, fit.mesh.device.type, len(fit.history)) == (then, "cpu", 4)
        for mine, other in zip(fit.history, whole.history, strict=True):
            assert abs(mine["loss"] - other["loss"]) < 1e-4
    # Data on a device stay there, and a step reads no more than its record and a check of the vertices.
    marks: list[Any] = []
    with device.watched() as crossings:
        plain = {**FIT, "optimizer": "adam", "remesh_every": 0, "evaluate_every": 10, "checkpoint_seconds": None}
        told = lambda _: marks.append((crossings.reads, crossings.uploads))  # noqa: E731
        fit = gd.fit_mesh(MASKS.to("pretend"), CAMERAS.to("pretend"), callback=told, **plain)
    assert fit.device == "pretend:0"
    assert [b - a for a, b in zip(marks[1], marks[2], strict=True)] == [2, 0], crossings


def fit_pose() -> None:
    mesh, truth = gd.box((1.0, 0.5, 0.3)), gd.Camera.orbit(4.0, 30, 40, fov_deg=40)
    image, start = gd.rasterize(mesh, truth, 16).mask.float(), gd.Camera.orbit(5.0, 10, 60, fov_deg=40)
    quick: dict[str, Any] = {"start": start, "candidates": 10, "starts": 2, "steps": 2, "size": 16, "progress": False}
    for options in ({}, {"coverage": "faces"}):
        host, other = (gd.fit_pose(mesh, image, device=place, **quick, **options) for place in ("cpu", "pretend"))
        assert (other.device, other.camera.device.type) == ("pretend", "cpu")
        assert abs(host.loss - other.loss) < 1e-3


def looks() -> None:
    """Lamps and a material may be on a device that the steps are not taken on."""
    alpha, lamps = MASKS, [gd.DirectionalLight((0.0, 0.0, 1.0)).to("pretend")]
    posed = gd.PosedImages(0.5 * alpha[..., None].expand(-1, -1, -1, 3), alpha, CAMERAS)
    shiny = gd.Material(specular=0.5).map(lambda value: value.to("pretend"))
    fit = gd.fit_mesh(posed, lights=lamps, material=shiny, vertex_colors=True, device="cpu", **{**FIT, "steps": 1})
    assert fit.colors is not None and fit.mesh.material is not None and fit.mesh.material.specular.is_cpu
    mesh, camera = gd.icosphere(0).with_attributes(vertex_colors=torch.rand(12, 3)), gd.Camera.orbit(3.0, fov_deg=40)
    image = 0.5 * gd.rasterize(mesh, camera, 12).mask.float()[..., None].expand(-1, -1, 3)
    quick: dict[str, Any] = {"candidates": 2, "starts": 1, "steps": 1, "polish": 0, "size": 12, "progress": False}
    pose = gd.fit_pose(mesh.to("pretend"), image, camera, mask=(image[..., 0] > 0).float(), lights=lamps, loss="color",
                       start=camera, device="cpu", **quick)  # fmt: skip
    assert pose.device == "cpu"


def fit_atlas() -> None:
    cloud = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    quick: dict[str, Any] = {"steps": 20, "rounds": 1, "widths": (16, 16), "progress": False}
    gd.fit_atlas(cloud, device="pretend", **quick)
    # The CPU has kernels for relu, and Adam's first steps make much of their rounding; tanh takes the same way on both.
    quick["activation"] = "tanh"
    host, other = (gd.fit_atlas(cloud, device=place, **quick) for place in ("cpu", "pretend"))
    assert other.metrics["speed"]["device"] == "pretend"
    assert (host.atlas.fitted_points() - other.atlas.fitted_points()).abs().max() < 1e-4


def fit_nurbs() -> None:
    x, y = torch.meshgrid(torch.linspace(0, 1, 9), torch.linspace(0, 2, 8), indexing="ij")
    fit = gd.fit_nurbs(torch.stack([x, y, x * y], -1).to("pretend"), control_shape=(4, 4), progress=False)
    assert fit.surface.device.type == "pretend" and fit.max < 1e-6


def sweep() -> None:
    options = {"views": 2, "size": 10, "steps": 2, "subdivisions": 1}
    rows = []
    for place in ("cpu", "pretend"):
        with tempfile.TemporaryDirectory() as folder:
            found = gd.tasks.sweep("shape", gd.box(), output=folder, device=place, family="logistic+probabilistic",
                                   scales=[0.05], lrs=[0.2], options=options, progress=False)  # fmt: skip
        rows.append({name: value for name, value in found.rows[0].items() if name != "seconds"})
    assert rows[0] == rows[1] and rows[0]["error"] is None


def compiled() -> None:
    """One graph, of fake tensors of the device, also ahead of time: the same numbers."""
    mesh = gd.icosphere(0).with_attributes(vertex_colors=torch.rand(12, 3)).to("pretend")
    camera = gd.Camera.orbit(2.5, 30, 20, fov_deg=60).to("pretend")
    render = gd.Renderer((8, 8), scale=0.05, outputs=("alpha", "rgb"), background=(0.1, 0.2, 0.3))

    def loss(vertices: torch.Tensor) -> torch.Tensor:
        out = render(mesh.with_vertices(vertices), camera)
        value = out.alpha.square().mean() + out.rgb.square().mean()
        return value + gd.losses.laplacian(mesh.with_vertices(vertices))

    found = []
    for step in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        vertices = mesh.vertices.clone().requires_grad_()
        step(vertices).backward()
        assert vertices.grad is not None
        found.append(device.host(vertices.grad))
    torch.testing.assert_close(*found, rtol=0, atol=1e-7)


def replayed() -> None:
    """A step without a look at a scene that has moved: the same numbers; NaN of one that has outgrown its room."""
    mesh = gd.icosphere(1).with_attributes(vertex_colors=torch.rand(42, 3)).to("pretend")
    eyes = gd.Camera.orbit(torch.tensor([2.0, 2.5]), 30, 20, fov_deg=60).to("pretend")
    rgb, both = {"outputs": "rgb"}, gd.MeshBatch([mesh, mesh.scaled(0.9)])
    kinds: dict[str, Any] = {
        "contour": {"coverage": "contour"}, "maps": {"outputs": ("rgb", "depth", "normal")},
        "hard": {**rgb, "coverage": "hard"}, "softmax": {**rgb, "depth": "softmax"}, "meshes": rgb,
        "sorted": {"outputs": ("depth", "face_id", "rgb"), "depth": "sort"},
        "z-buffer": {"outputs": ("depth", "rgb"), "depth": "zbuffer"},
        "flat": {"outputs": "normal", "normals": "flat"},
        "background": {"outputs": "depth", "depth": "softmax", "background_depth": 0.1},
        "soft maps": {"outputs": ("depth", "face_id", "rgb"), "depth": "softmax", "max_fragments": None},
    }  # fmt: skip
    for name, options in kinds.items():
        render, shape = gd.Renderer((6, 7), scale=0.02, **options), both if name == "meshes" else mesh
        shown: dict[str, torch.Tensor] = {}

        def gradient(size: float) -> torch.Tensor:
            vertices = (size * shape.vertices).requires_grad_()  # noqa: B023
            out = render(shape.with_vertices(vertices), eyes)  # noqa: B023
            values = [getattr(out, name) for name in render.outputs if name != "face_id"]  # noqa: B023
            values = [torch.where(torch.isinf(value), 0.0, value) for value in values]
            shown.update({value: device.host(getattr(out, value).detach()) for value in ("alpha", *render.outputs)})  # noqa: B023
            sum((value.square().sum() for value in values), torch.zeros((), device="pretend")).backward()
            assert vertices.grad is not None
            return device.host(vertices.grad)

        recording = gd.Recording()
        with recording.record():
            gradient(0.5)
        assert len(recording) > 0
        with recording.replay():
            found = gradient(0.55)
        torch.testing.assert_close(found, gradient(0.55), rtol=1e-5, atol=1e-6, msg=lambda text: f"{name}: {text}")  # noqa: B023
        recording = gd.Recording(room=0)
        with mock.patch("geodiff.recording._SPARE", 0):
            with recording.record():
                gradient(0.3)
            with recording.replay():
                assert gradient(1.2).isnan().any(), name
            sound = {"face_id"} if name in ("contour", "hard") else {"face_id", "alpha"}
            sound |= {"depth"} - options.keys()
            assert all(shown[value].isnan().any() for value in shown.keys() - sound), name
    # What is learnt may change, too: as much as lists, and beyond that nothing is left out quietly.
    numbers = {name: torch.full((), 0.1, device="pretend", requires_grad=True) for name in ("scale", "gamma")}
    for depth in ("hard", "softmax", "sort", "zbuffer"):
        render = gd.Renderer(9, outputs="rgb", depth=depth, max_fragments=None, **numbers)
        with torch.no_grad():
            numbers["scale"].fill_(0.1)
            numbers["gamma"].fill_(0.1)
        recording = gd.Recording()
        with recording.record():
            before = device.host(render(mesh, eyes).rgb.detach())
        for scale, gamma in ((0.11, 0.09), (0.13, 0.1), (0.1, 0.07)):
            with torch.no_grad():
                numbers["scale"].fill_(scale)
                numbers["gamma"].fill_(gamma)
            with recording.replay():
                found = device.host(render(mesh, eyes).rgb.detach())
            if scale > 0.125 or (gamma < 0.08 and depth in ("softmax", "sort")):
                assert found.isnan().any(), (depth, scale, gamma)
            else:
                torch.testing.assert_close(found, device.host(render(mesh, eyes).rgb.detach()), rtol=0, atol=2e-4)
                assert depth == "hard" or not torch.equal(found, before)
    for coverage, tconorm, number in (
        ("faces", "probabilistic", -0.1), ("edges", "maximum", math.nan), ("contour", "maximum", 0.0)
    ):  # fmt: skip
        options = {"tconorm": tconorm, "coverage": coverage, "scale": torch.full((), number, device="pretend")}
        assert device.host(gd.Renderer(5, **options)(mesh, eyes).alpha).isnan().all(), options
        refused(ValueError, "`scale` must be positive", lambda: gd.Renderer(5, outputs="rgb", **options)(mesh, eyes))  # noqa: B023
    # Of a corner that is sharper colours are wanted from farther away than was recorded.
    corners = torch.tensor([[[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]]] * 2)
    corners[1] = torch.tensor([[-0.6, -0.06, 0.0], [-0.6, 0.06, 0.0], [0.2, 0.0, 0.0]])
    fat, sharp = (gd.Mesh(part, torch.tensor([[0, 1, 2]])).to("pretend") for part in corners)
    eye, recording = gd.Camera.orbit(3.0, fov_deg=50).to("pretend"), gd.Recording()
    render = gd.Renderer(24, outputs="rgb", coverage="edges", scale=0.03)
    with recording.record():
        render(fat, eye)
    for part, isnan in ((fat, False), (sharp, True)):
        with recording.replay():
            assert device.host(render(part, eye).rgb).isnan().any() == isnan
    for depth in ("softmax", "sort"):  # a number of the host's with an axis
        gd.Renderer(5, outputs="rgb", depth=depth, scale=torch.tensor([0.1]))(mesh, eyes)
    with recording.record():
        gradient(0.3)

    def too_few() -> None:
        with recording.replay():
            pass

    def another() -> None:
        with recording.replay():
            gradient(0.3)
            gradient(0.3)

    refused(RuntimeError, "not the step that was recorded .0 reads where", too_few)
    refused(RuntimeError, "not the step that was recorded .another read", another)


def sorts(gradient: Callable[[torch.Tensor], torch.Tensor], given: torch.Tensor, other: torch.Tensor) -> None:
    """What a gradient sorts is sorted once, as long as the tensor is the same and as it was."""
    made: list[int] = []

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            made.append(1)
            return function(*arguments, **named)

        return counted

    with mock.patch("torch.sort", counting(torch.sort)), mock.patch("torch.argsort", counting(torch.argsort)):
        first = gradient(given)
        once = len(made)
        assert once and torch.equal(gradient(given), first) and len(made) == once
        given.copy_(other)
        moved = gradient(given)
        assert len(made) == 2 * once and not torch.equal(moved, first)
        given = given.clone()
        assert torch.equal(gradient(given), moved) and len(made) == 3 * once
        assert torch.equal(gradient(given), moved) and len(made) == 3 * once


def splines() -> None:
    net = torch.rand(5, 6, 3).to("pretend").requires_grad_()
    surface, (u, v) = gd.NURBSSurface(net, degree=(3, 2)), (torch.rand(9).to("pretend") for _ in range(2))

    def gradient(u: torch.Tensor) -> torch.Tensor:
        (found,) = torch.autograd.grad(surface(u, v).square().sum(), net)
        return device.host(found)

    sorts(gradient, u, u.flip(0))


def corners() -> None:
    """Faces may change in place: what meets at a vertex is found again."""
    mesh, layout = gd.icosphere(0), torch.tensor([[0, 0, 14], [12, 3, 17]])
    x, y, depth = mesh.vertices.unbind(1)
    one = torch.stack([x, y, depth + 3, torch.ones(12)], 1)
    clip = torch.cat([one, one * torch.tensor([0.5, 0.7, 1, 1])]).to("pretend").requires_grad_()
    weight = torch.linspace(-1, 1, 98).reshape(2, 7, 7).to("pretend")
    render: dict[str, Any] = {"scale": 0.1, "image_size": (7, 7)}

    def silhouettes(faces: torch.Tensor) -> torch.Tensor:
        alpha = gd.ops.silhouette(clip, faces, layout, **render)
        (found,) = torch.autograd.grad((alpha * weight).sum(), clip)
        return device.host(found)

    def normals(faces: torch.Tensor) -> torch.Tensor:
        return device.host(gd.ops.vertex_normals(mesh.vertices.to("pretend"), faces))

    for gradient in (silhouettes, normals):
        faces = mesh.faces.int()
        sorts(gradient, faces.to("pretend"), ((faces + 1) % 12).to("pretend"))


def default() -> None:
    """Under a default device that is not the data's, nothing is made there: the same numbers."""
    mesh, camera = gd.icosphere(1), gd.Camera.orbit(3.0, 20, torch.tensor([0.0, 50.0]))
    mesh = mesh.with_attributes(vertex_colors=torch.rand(mesh.num_vertices, 3))
    pair, points = gd.MeshBatch([mesh, mesh.scaled(0.5)]), torch.rand(2, 5, 3)
    lamps, color = [gd.DirectionalLight((0.0, 1.0, 1.0))], {"outputs": ("alpha", "rgb")}
    calls: list[Callable[[], Any]] = [
        lambda: gd.Renderer(8)(gd.Mesh(mesh.vertices, mesh.faces.clone()), camera).alpha,
        lambda: gd.Renderer(8, coverage="contour")(pair, camera).alpha,
        lambda: gd.Renderer(8, shading="phong", **color)(mesh, camera, lamps).rgb,
        lambda: gd.Renderer(8, depth="softmax", **color)(mesh, camera).rgb,
        lambda: gd.rasterize(gd.Mesh(mesh.vertices, mesh.faces.clone()), camera, 8).face_id,
        lambda: pair.vertex_batch,
        lambda: gd.transport.sinkhorn(points[0], points[1], epsilon=0.1).cost,
    ]
    for call in calls:
        here = call()
        with torch.device("pretend"):
            assert torch.equal(call(), here) and here.is_cpu
    # Where the data are there, too, a step waits no more often than under the host's.
    there, eye, render = mesh.to("pretend"), camera.to("pretend"), gd.Renderer(8, scale=0.05)
    counts = []
    for place in ("cpu", "pretend"):
        with torch.device(place):
            render(gd.Mesh(there.vertices, there.faces), eye)
            with device.watched() as crossings:
                render(gd.Mesh(there.vertices, there.faces), eye)
        counts.append((crossings.reads, crossings.uploads))
    assert counts[0] == counts[1], counts


def refusals() -> None:
    clip, faces, layout = gd.icosphere(0).vertices, gd.icosphere(0).faces, gd.icosphere(0).layout_for(1)
    clip = torch.cat([clip, torch.ones(12, 1)], 1)
    render: dict[str, Any] = {"scale": 0.1, "image_size": (4, 4)}
    there = gd.ops.silhouette(clip.to("pretend"), faces.to("pretend"), layout.to("pretend"), **render)
    assert torch.equal(
        device.host(there), device.host(gd.ops.silhouette(clip.to("pretend"), faces.to("pretend"), layout, **render))
    )
    refused(RuntimeError, "silhouette: `faces` must be on pretend:0 like clip; got cpu",
            lambda: gd.ops.silhouette(clip.to("pretend"), faces, layout, **render))  # fmt: skip
    refused(RuntimeError, "`layout` must be on cpu like clip",
            lambda: gd.ops.silhouette(clip, faces, layout.to("pretend"), **render))  # fmt: skip
    refused(RuntimeError, "no kernel for a GPU yet", lambda: gd.ops._op.call("none", x=clip.to("pretend")))  # type: ignore[arg-type]
    wrong = faces.to("pretend") + 100
    with gd.checks(True):
        refused(ValueError, "`faces` must be indices from 0 to 11; got",
                lambda: gd.ops.silhouette(clip.to("pretend"), wrong, layout, **render))  # fmt: skip
    again = gd.ops.silhouette(clip.to("pretend"), faces.to("pretend"), layout, **render)
    assert torch.equal(device.host(again), device.host(there))
    refused(RuntimeError, "expected all tensors|Expected all tensors", lambda: clip.to("pretend") + clip)
    refused(TypeError, "numpy", lambda: clip.to("pretend").numpy())


def main() -> None:
    device.register()
    tasks = (fit_mesh, fit_pose, looks, fit_atlas, fit_nurbs, sweep)
    for case in (*tasks, compiled, default, replayed, splines, corners, refusals):
        case()
        print(case.__name__, flush=True)
    print("all")


if __name__ == "__main__":
    main()
