# SPDX-License-Identifier: Apache-2.0
"""Times on a device: ours, beside what of other packages can be imported, in one run.

"gpu" is the time of the kernels alone, "call" that of a call that follows the last one, Python included, both in
milliseconds, medians of 30. Inputs stay in the cache of the device where they fit. "target" is for an H100 or H200.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import geodiff as gd
from geodiff import ops, reference
from geodiff.ops.transport import Columns
from tests.device.place import Place, says

Calls = dict[str, Callable[[], Any]]
VIEWS = {False: (24, 64, 3), True: (2, 8, 0)}
"""Views, pixels a side and level of the sphere of the fit; in a rehearsal fewer."""


def camera(place: Place, views: int) -> gd.Camera:
    """One camera, or a ring of them."""
    azimuth = 20.0 if views == 1 else torch.arange(views) * (360.0 / views)
    return gd.Camera.orbit(2.7, 30.0, azimuth, fov_deg=60.0).to(place.device)


def clip_of(place: Place, mesh: gd.Mesh, views: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the packed vertices of all images, the faces and the layout."""
    clip = camera(place, views).to_clip(mesh.vertices.to(place.device)).reshape(views, -1, 4)
    rows = [[i * clip.shape[1], 0, mesh.num_faces] for i in range(views)]
    return clip.reshape(-1, 4).contiguous(), mesh.faces.to(place.device, torch.int32), torch.tensor(rows)


def silhouettes(place: Place) -> dict[str, tuple[float, Calls]]:
    """Forward and backward, logistic, probabilistic."""
    found = {}
    cases = [(256, 1, 5, 0.5, 0.25), (64, 24, 3, None, 0.15), (512, 1, 5, 0.5, 0.3), (1024, 1, 6, 0.25, 0.5)]
    for size, views, level, pixels, target in cases:
        size, views, level = (8, min(views, 2), 0) if place.rehearsed else (size, views, level)
        scale = 1e-2 if pixels is None else pixels * 2 / size
        mesh = gd.icosphere(level)
        clip, faces, layout = clip_of(place, mesh, views)
        clip.requires_grad_()
        upstream = torch.rand(views, size, size, device=place.device)

        def both(op: Callable[..., Any], c: Any = clip, f: Any = faces, t: Any = layout, **how: Any) -> Any:
            given = how.pop("upstream")
            return torch.autograd.grad((op(c, f, t, **how) * given).sum(), c)

        how = {"scale": scale, "image_size": (size, size), "upstream": upstream}
        calls: Calls = {"ours": partial(both, ops.silhouette, **how)}
        if size * size * mesh.num_faces * views < 2e8:
            calls["dense twin"] = partial(both, reference.silhouette, t=layout.to(place.device), **how)
        if views == 1:
            calls |= pytorch3d(place, mesh, size, scale)
        name = f"silhouette {views} x {size}², {mesh.num_faces} faces, τ = {scale:.1e}"
        found[name] = target, calls
    return found


def pytorch3d(place: Place, mesh: gd.Mesh, size: int, scale: float) -> Calls:
    """PyTorch3D's soft silhouette with its usual 50 faces a pixel, where it can be imported."""
    try:
        from pytorch3d import renderer

        from geodiff.interop import camera_to_pytorch3d, to_pytorch3d
    except ImportError:
        return {}
    blur = math.log(1 / 1e-4 - 1) * scale**2
    settings = renderer.RasterizationSettings(image_size=size, blur_radius=blur, faces_per_pixel=50)
    raster = renderer.MeshRasterizer(camera_to_pytorch3d(camera(place, 1), fov=True).to(place.device), settings)
    shader = renderer.SoftSilhouetteShader(blend_params=renderer.BlendParams(sigma=scale**2))
    still = to_pytorch3d(mesh.with_vertices(torch.zeros_like(mesh.vertices))).to(place.device)
    vertices = mesh.vertices.to(place.device).requires_grad_()

    def both() -> Any:
        meshes = still.offset_verts(vertices)
        return torch.autograd.grad(shader(raster(meshes), meshes)[..., 3].sum(), vertices)

    return {"PyTorch3D, K = 50": both}


def rasters(place: Place) -> dict[str, tuple[float, Calls]]:
    """The nearest face of each pixel."""
    mesh = gd.torus(nu=8, nv=4) if place.rehearsed else gd.torus(nu=392, nv=128)
    size = 8 if place.rehearsed else 1024
    packed = clip_of(place, mesh, 1)
    calls: Calls = {"ours": lambda: ops.rasterize(*packed, image_size=(size, size))}
    try:
        import drtk
    except ImportError:
        pass
    else:
        xy = (packed[0][:, :2] / packed[0][:, 3:] * torch.tensor([1.0, -1.0], device=place.device) + 1) * (size / 2)
        pixels = torch.cat([xy - 0.5, packed[0][:, 2:3]], 1)[None].contiguous()
        calls["DRTK"] = lambda: drtk.render(
            pixels, packed[1], drtk.rasterize(pixels, packed[1], height=size, width=size)
        )
    return {f"hard raster {size}², {mesh.num_faces} faces": (0.1, calls)}


def splines(place: Place) -> dict[str, tuple[float, Calls]]:
    """A bicubic surface at scattered points."""
    count, side = (20, 5) if place.rehearsed else (1_000_000, 64)
    inner = torch.linspace(0, 1, side - 2, device=place.device)
    knots = torch.cat([inner.new_zeros(3), inner, inner.new_ones(3)]).requires_grad_()
    control = torch.rand(side, side, 4, device=place.device, requires_grad=True)
    uv = [torch.rand(count, device=place.device, requires_grad=True) for _ in range(2)]
    upstream = torch.rand(count, 4, device=place.device)

    def forward() -> Any:
        with torch.no_grad():
            return ops.spline(control, [knots, knots], uv, [3, 3])

    def both() -> Any:
        value = ops.spline(control, [knots, knots], uv, [3, 3])
        return torch.autograd.grad((value * upstream).sum(), [control, knots, *uv])

    return {
        f"spline, {count} points, forward": (0.03, {"ours": forward}),
        f"spline, {count} points, forward and all gradients": (0.28, {"ours": both}),
    }


def transports(place: Place) -> dict[str, tuple[float, Calls]]:
    """One iteration of Sinkhorn in three dimensions."""
    found = {}
    for count, target in ((10_000, 0.25), (100_000, 20.0)):
        count = count // 1000 if place.rehearsed else count
        x, y = (torch.rand(count, 3, device=place.device) for _ in range(2))
        h, epsilon, weight = x[:, 0].clone(), 0.05, -math.log(count)

        def iteration(lse: Any, x: Any = x, y: Any = y, h: Any = h, epsilon: Any = epsilon, w: Any = weight) -> Any:
            return w - lse(y, x, w - lse(x, y, h, epsilon), epsilon)

        over = {x: Columns(x[None]), y: Columns(y[None])}

        def sorted_lse(a: torch.Tensor, b: torch.Tensor, h: torch.Tensor, epsilon: float, over: Any = over) -> Any:
            return over[b].lse(a[None], h[None], epsilon, 2)[0]

        calls: Calls = {"ours": partial(iteration, sorted_lse), "sorted each time": partial(iteration, ops.lse)}
        if count <= 10_000:
            calls["dense twin"] = partial(iteration, reference.lse)
        found[f"Sinkhorn iteration, {count}²"] = target, calls
    return found


def fit(place: Place) -> tuple[Callable[[], None], torch.Tensor]:
    """Return a step of a fit to the silhouettes of 24 views, and what it moves."""
    views, size, level = VIEWS[place.rehearsed]
    mesh, ring, render = gd.icosphere(level).to(place.device), camera(place, views), gd.Renderer(size, scale=1e-2)
    target = render(gd.icosphere(level).to(place.device), ring).alpha.detach()
    vertices = (1.1 * mesh.vertices).detach().requires_grad_()
    optimizer = torch.optim.Adam([vertices], lr=1e-3, capturable=not place.rehearsed)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (render(mesh.with_vertices(vertices), ring).alpha - target).square().mean().backward()
        optimizer.step()

    return step, vertices


def steps(place: Place) -> dict[str, tuple[float, Calls]]:
    """Such a step: as it is, and as a CUDA graph."""
    views, size, level = VIEWS[place.rehearsed]
    calls: Calls = {"ours": fit(place)[0]}
    if not place.rehearsed:
        calls["ours, as a CUDA graph"] = captured(fit(place)[0])
    return {f"fit step, {views} x {size}², {gd.icosphere(level).num_faces} faces": (1.0, calls)}


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step that is captured at its first call, and replayed at the others."""
    graphs: list[torch.cuda.CUDAGraph] = []

    def replay() -> None:
        if not graphs:
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    step()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            graphs.append(graph)
        graphs[0].replay()

    return replay


def ceilings(place: Place) -> dict[str, tuple[float, Calls]]:
    """What the device can at most: a copy, and a product of matrices."""
    side = 8 if place.rehearsed else 8192
    x, y = (torch.rand(side, side, device=place.device) for _ in range(2))
    return {f"copy of {x.numel() * 4 >> 20} MiB": (math.nan, {"torch": lambda: y.copy_(x)})}


def bench(place: Place) -> int:
    """Print a row for each call as it comes; the number of ours that failed."""
    rows: list[dict[str, Any]] = []
    failed = 0
    for family in (ceilings, silhouettes, rasters, splines, transports, steps):
        try:
            with place.on():
                cases = family(place)
        except Exception as error:
            says({"case": family.__name__, "verdict": f"FAILED {type(error).__name__}: {error}".splitlines()[0]})
            failed += 1
            continue
        for name, (target, calls) in cases.items():
            for who, call in calls.items():
                row: dict[str, Any] = {"case": name, "who": who}
                try:
                    row |= {key: f"{value:.4f}" for key, value in place.time(call).items()}
                    if who.startswith("ours"):
                        row["target"] = target
                except Exception as error:
                    row["verdict"] = f"FAILED {type(error).__name__}: {error}".splitlines()[0]
                    failed += who.startswith("ours")
                says(row)
                rows.append(row)
                place.write("bench", rows)
    return failed
