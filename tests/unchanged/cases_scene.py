# SPDX-License-Identifier: Apache-2.0
"""Calls of what is in geodiff.scene, geodiff.render, geodiff.interop and of tasks that take objects."""

import pathlib
import tempfile
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff import interop, render, scene, tasks
from tests.unchanged.arguments import Arguments, Case

IMAGE = (9, 11)


def _mesh(t: Arguments) -> Any:
    ball = gd.icosphere(0, dtype=torch.float64)
    points, faces = t(ball.vertices, array=True), t(ball.faces, array=True)
    colours, face_colours = t.rand(12, 3, array=True), t.rand(20, 3, array=True)
    mesh = gd.Mesh(points, faces, vertex_colors=colours)
    flat = gd.Mesh(points, faces, face_colors=face_colours)
    drawn = gd.Mesh(points, faces, uv=t.rand(12, 2, array=True), texture=t.rand(4, 5, 3, array=True))
    batch = gd.Mesh(t(ball.vertices, array=True, batch=True), faces)
    cut = gd.Mesh.triangulated(t([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], array=True), [[0, 1, 2, 3]])
    out = [m.vertices for m in (mesh, flat, drawn, batch, cut)]
    return [*out, mesh.vertex_normals, mesh.face_normals, mesh.face_areas]


def _moved(t: Arguments) -> Any:
    turn = torch.linalg.qr(torch.rand(3, 3, generator=t.random, dtype=torch.float64))[0]
    turn = turn * torch.linalg.det(turn)
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = turn
    out = []
    for m in (t.mesh(), t.coloured(), t.textured()):
        out += [
            m.clone(),
            m.detach(),
            m.flipped(),
            m.normalized(),
            m.normalized("sphere"),
            m.rotated(t(turn, array=True)),
        ]
        out += [m.scaled(t(2.0)), m.translated(t.rand(3, array=True)), m.transformed(t(matrix, array=True)), m.welded()]
        out += [m.to(torch.float64), m.to(dtype=torch.float32), m.with_vertices(t.rand(12, 3, array=True, batch=True))]
        out += [m.with_attributes(vertex_colors=t.rand(12, 3, array=True)), m.laplacian(), m.laplacian("cotangent")]
        out += [m.layout_for(2), m.to_trimesh(), gd.Mesh.from_trimesh(t.hold(m.detach().to_trimesh()))]
        with tempfile.TemporaryDirectory() as folder:
            m.save(pathlib.Path(folder) / "m.glb")
            gd.Mesh.load(pathlib.Path(folder) / "m.glb")
    batch = t.hold(gd.MeshBatch([t.hold(t.mesh()), t.hold(t.mesh())]))
    more = [batch.to(torch.float64), batch.with_vertices(t.rand(24, 3)), batch[1]]
    topology = t.hold(scene.Topology(t(gd.icosphere(0).faces), 12))
    (
        topology.to("cpu"),
        topology.layout(2),
        topology.edges,
        topology.face_pairs,
        topology.edge_cycles,
        topology.boundary_edges,
    )
    return [x for x in (*out, *more) if not type(x).__module__.startswith("trimesh")]


def _places(t: Arguments) -> Any:
    points, batch = t.rand(7, 3, array=True), t.hold(gd.MeshBatch([t.mesh(), t.mesh()]))
    out: list[Any] = []
    for m in (t.mesh(), t.coloured(), t.textured()):
        out += [m.sample(5, seed=1), m.closest_point(points), m.subdivided(), gd.point_mesh_distance(points, m)]
        out += [m.unwrapped(64)]
        out += [(m if m.uv is None else m.with_attributes(uv=None, texture=None)).remeshed(0.6)]
        out += [m.self_intersections()]
    out += [batch.sample(5, seed=1), gd.point_mesh_distance(points, batch, squared=True)]
    return [*out, gd.point_mesh_distance(points, t.mesh(), signed=True)]


def _camera(t: Arguments) -> Any:
    turn = torch.eye(3, dtype=torch.float64).expand(2, 3, 3)
    matrix = torch.tensor([[10.0, 0, 5], [0, 10, 4], [0, 0, 1]], dtype=torch.float64)
    given = {"R": t(turn, array=True), "t": t([[0.0, 0, 3], [0, 0, 4]], array=True)}
    eye = t([0.0, 1, 3], array=True)
    cameras = [
        gd.Camera(
            t(turn, array=True), t([0.0, 0, -3], array=True), t([1.0, 1.0], array=True), t([0.1, 0.0], array=True)
        ),
        gd.Camera.look_at(eye, t([0.1, 0, 0], array=True), fov_deg=t(50.0, array=True)),
        gd.Camera.orbit(t(3.0), t([10.0, 20]), t([5.0, 6]), at=t([0.1, 0, 0], array=True)),
        gd.Camera.orthographic(eye, extent=t(2.0)),
        gd.Camera.from_opencv(t(matrix, array=True), given["R"], given["t"], IMAGE),
        gd.Camera.from_K(t(matrix, array=True), given["R"], given["t"], image_size=IMAGE),
    ]
    out: list[Any] = []
    for camera in cameras:
        t.hold(camera)
        points = t.rand(4, 3)
        out += [
            camera.project(points),
            camera.to_clip(points),
            camera.to_view(points),
            camera.unproject(t.rand(*camera.batch_shape, 4, 3) + 1),
        ]
        out += [camera.detach(), camera.to(torch.float64), camera.K(IMAGE), camera.position]
        out += list(camera.to_opencv(IMAGE)) if not camera.is_orthographic else []
    views = t.camera()
    out += [gd.Camera.cat([views, views]), gd.Camera.stack([views, views]), views[0]]
    return out


def _parts(t: Arguments) -> Any:
    texture = t.hold(gd.Texture(t.rand(4, 5, 3, array=True), mipmaps=True))
    material = t.hold(gd.Material(t.rand(3, array=True), t.rand(3, array=True), t(0.2), t(8.0)))
    lights = [
        gd.AmbientLight(t.rand(3, array=True)),
        gd.DirectionalLight(t.rand(3, array=True), t.rand(3, array=True)),
        gd.PointLight(t.rand(3, array=True), t.rand(3, array=True), t([1.0, 0.1, 0.1], array=True)),
    ]
    chosen = [t.hold(light).select((2,), 0).to(torch.float64) for light in lights]
    out = [texture.sample(t.rand(6, 2)), texture.sample(t.rand(6, 2), lod=t.rand(6)), texture.map(lambda x: x + 0)]
    new = texture.with_image(t.rand(4, 5, 3))
    return [*out, new, material.map(lambda x: x + 0), material.select((2,), 0), chosen]


def _posed(t: Arguments) -> Any:
    images, alpha = t.rand(2, 6, 7, 3, array=True, gradient=False), t.rand(2, 6, 7, array=True, gradient=False)
    posed = t.hold(gd.PosedImages(images, alpha, t.camera().detach()))
    out = [posed[:1], posed.hold_out(2), posed.split([0]), posed.to(torch.float64), posed.photograph(1)]
    plain = t.hold(gd.PosedImages(t([1.0]).detach().expand(2, 12, 12, 3).clone(), torch.ones(2, 12, 12), posed.cameras))
    out.append(plain.without_background("white"))
    with tempfile.TemporaryDirectory() as folder:
        posed.save(folder)
        gd.PosedImages.load(folder)
    return out


def _renders(t: Arguments) -> Any:
    lights = [gd.AmbientLight(t.rand(3)), gd.PointLight(t([0.0, 2, 3]), t.rand(3))]
    out: list[Any] = []
    everything = ("alpha", "rgb", "depth", "normal", "face_id")
    for coverage in ("faces", "edges", "contour"):
        made = gd.Renderer(IMAGE, scale=t(0.02), coverage=coverage, background=t.rand(3), outputs=everything)
        made.warn_of_bias = False
        for mesh in (t.coloured(), t.textured(), t.hold(gd.MeshBatch([t.coloured(), t.coloured()]))):
            out.append(made(mesh, t.camera(), lights))
    splats = gd.render.TriangleSplats(IMAGE, t.rand(20) + 0.1, t.rand(20), background=t.rand(3), outputs="rgb")
    out.append(splats(t.coloured(), t.camera(), lights))
    for name in ("softras", "dibr", "n3mr", "opendr", "rhodin", "pix2vex", "logistic_relaxation"):
        preset = getattr(gd.presets, name)(IMAGE)
        preset.warn_of_bias = False
        out.append(preset(t.mesh(), t.camera()))
    found = t.hold(gd.fragments(t.coloured(), t.camera(), IMAGE, k=2, blur=0.02))
    more = [found.interpolate(t.rand(12, 3), t(gd.icosphere(0).faces)), found.depth]
    sorting = gd.Renderer(IMAGE, scale=t(0.02), gamma=t(0.1), depth="sort", outputs=everything)
    sorting.warn_of_bias = False
    more.append(sorting(t.coloured(), t.camera()))
    more.append(render.front_to_back(t.rand(4, 3), t.rand(4, 3), temperature=t(0.1)))
    return [out, more, gd.rasterize(t.mesh(), t.camera(), IMAGE)]


def _own(t: Arguments) -> Any:
    """Shaders and a coverage of one's own, which are given what the caller gave."""

    def shader(points: render.SurfacePoints) -> torch.Tensor:
        diffuse, specular = points.light()
        own = points.interpolate(t.rand(12, 3)) + points.of_face(t.rand(20, 3)) + points.of_image(t.rand(3))
        built_in = sum(function(points) for function in (render.unlit, render.lambert, render.gouraud, render.phong))
        return points.albedo * diffuse + specular + own + built_in + points.normal * points.to_viewer

    def coverage(view: render.View, softness: render.Softness) -> torch.Tensor:
        models = (render.Faces(), render.Edges(), render.Contour(), render.Hard(), render.Antialiased())
        assert view.depth_ends().shape == (view.images, 2) and softness.reach(view) > 0
        return sum(model.alpha(view, softness) for model in models) / 5

    out: list[Any] = []
    for backend in ("kernel", "reference"):
        made = gd.Renderer(IMAGE, coverage=coverage, shading=shader, outputs="rgb", backend=backend)
        for mesh in (t.coloured(), t.textured(), t.hold(gd.MeshBatch([t.coloured(), t.coloured()]))):
            out.append(made(mesh, t.camera(), [gd.AmbientLight(t.rand(3)), gd.PointLight(t([0.0, 2, 3]))]))
    return out


def _scenes(t: Arguments) -> Any:
    trimesh = pytest.importorskip("trimesh")
    mesh = t.coloured().detach()
    made = interop.to_trimesh_scene(mesh, t.camera()[0].detach())
    assert isinstance(made, trimesh.Scene)
    back = interop.from_trimesh_scene(made)
    return back, interop.from_trimesh(interop.to_trimesh(mesh))


def _open3d(t: Arguments) -> Any:
    pytest.importorskip("open3d")
    cloud = interop.points_to_open3d(t.rand(5, 3, array=True), t.rand(5, 3, array=True), t.rand(5, 3, array=True))
    mesh = interop.to_open3d(t.coloured())
    return interop.from_open3d(mesh), interop.points_from_open3d(cloud)


def _tasks(t: Arguments) -> Any:
    mesh = t.mesh().detach()
    page = gd.display(mesh)
    with tempfile.TemporaryDirectory() as folder:
        page.save(pathlib.Path(folder) / "page.html")
    return tasks.render_views(t.hold(mesh), views=1, size=8, hard=True)


def _methods(owner: str, names: str) -> str:
    return "".join(f" {owner}.{name}" for name in names.split())


def _isosurface(t: Arguments) -> Any:
    values = t.randn(4, 4, 4, array=True)
    return [gd.isosurface(values, bounds=t([[0.0] * 3, [1.0] * 3], array=True, gradient=False)).vertices]


def _hull(t: Arguments) -> Any:
    alpha = torch.zeros(1, 8, 8)
    alpha[:, 2:6, 2:6] = 1
    camera = gd.Camera.orbit(3.0, 20, torch.arange(4) * 90.0, fov_deg=30)
    return tasks.visual_hull(t(alpha.expand(4, 8, 8), array=True, gradient=False), t.hold(camera)).vertices


def _face_components(t: Arguments) -> Any:
    return scene.face_components(t.mesh(), t(torch.arange(20) % 3 > 0), keep=1)


def _geodesic(t: Arguments) -> Any:
    edges = t(torch.tensor([[0, 1], [1, 2], [2, 0]]))
    lengths = t.rand(3, batch=True)
    away = [scene.graph_distance(edges, lengths, 0, 3), scene.graph_distance(edges, lengths, 0, 3, beta=3.0)]
    return [scene.geodesic(t.mesh(), t(torch.tensor([0, 4]))), *away]


def _voxels(t: Arguments) -> Any:
    bounds = t(torch.tensor([[-1.0] * 3, [1.5] * 3]), array=True, gradient=False)
    mesh = t.mesh()
    return [scene.voxelized(mesh, 4, bounds=bounds), mesh.voxelized(3)]


CASES: dict[str, Case] = {
    "scene.voxelized Mesh.voxelized": _voxels,
    "scene.face_components": _face_components,
    "scene.geodesic scene.graph_distance": _geodesic,
    "scene.Mesh Mesh.triangulated": _mesh,
    "scene.MeshBatch scene.Topology Topology.to Topology.layout"
    + _methods("Mesh", "clone detach flipped from_trimesh laplacian layout_for load normalized rotated save scaled to")
    + _methods("Mesh", "to_trimesh transformed translated welded with_attributes with_vertices")
    + _methods("MeshBatch", "to with_vertices"): _moved,
    "scene.closest_point scene.point_mesh_distance MeshBatch.sample"
    + _methods("Mesh", "closest_point remeshed sample self_intersections subdivided unwrapped"): _places,
    "scene.Camera"
    + _methods("Camera", "K cat detach from_K from_opencv look_at orbit orthographic project stack to to_clip")
    + _methods("Camera", "to_opencv to_view unproject"): _camera,
    "scene.Texture scene.Material scene.AmbientLight scene.DirectionalLight scene.PointLight"
    + _methods("Texture", "map sample with_image")
    + " Material.map Material.select Light.select Light.to": _parts,
    "geodiff.PosedImages"
    + _methods("PosedImages", "hold_out load photograph save split to without_background"): _posed,
    "render.Renderer render.TriangleSplats render.front_to_back render.fragments Fragments.interpolate"
    " render.rasterize presets": _renders,
    "render.Hard render.SurfacePoints render.unlit render.lambert render.gouraud render.phong Softness.reach"
    " Texture.sample_by"
    + _methods("Coverage", "alpha reach finish looking_at")
    + _methods("View", "depth_ends footprint surface_points")
    + _methods("SurfacePoints", "interpolate light of_face of_image")
    # beneath those
    + _methods("SurfacePoints", "corners gather light_arguments own_color reflected table tables textured_in_light")
    + " Mesh.vertex_normals_by": _own,
    "interop.to_trimesh interop.from_trimesh interop.to_trimesh_scene interop.from_trimesh_scene": _scenes,
    "interop.to_open3d interop.from_open3d interop.points_to_open3d interop.points_from_open3d": _open3d,
    "scene.isosurface": _isosurface,
    "tasks.visual_hull": _hull,
    "tasks.display tasks.render_views Display.save": _tasks,
}
