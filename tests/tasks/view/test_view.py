# SPDX-License-Identifier: Apache-2.0
"""What the browser gets: a page, and the meshes in it."""

import base64
import html
import io
import json
import pathlib
import re
import sys
import urllib.request
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from click.testing import CliRunner

import geodiff as gd
from geodiff.cli import main
from geodiff.splines import load_splines, save_splines
from geodiff.tasks import Display, display, view
from geodiff.tasks.clouds import write_ply
from geodiff.tasks.view.things import things_to_see, tube
from tests.atlas.shapes import flat_atlas, plane


def scene_of(page: str) -> trimesh.Scene:
    """Read the scene in a page: the longest run of base64 that is a GLB."""
    glb = [text for text in re.findall(r"[A-Za-z0-9+/=]{200,}", page) if text.startswith("Z2xUR")]
    assert len(glb) == 1
    return trimesh.load_scene(io.BytesIO(base64.b64decode(glb[0])), file_type="glb")


def test_display_holds_the_mesh() -> None:
    ball = gd.icosphere(2)
    shown = gd.display(ball, height=300)
    assert isinstance(shown, Display)
    (back,) = scene_of(shown.page).geometry.values()
    assert np.allclose(back.vertices[back.faces], ball.vertices[ball.faces], atol=1e-7)
    framed = shown._repr_html_()
    assert framed.startswith("<iframe srcdoc=") and 'height="300"' in framed
    # The page survives its quoting, so that the frame shows the same.
    assert html.unescape(framed.split('"')[1]) == shown.page


def test_display_keeps_colors_and_names() -> None:
    red = gd.box().with_attributes(vertex_colors=torch.tensor([1.0, 0, 0]).expand(8, 3))
    scene = scene_of(display({"red": red, "plain": gd.icosphere(1)}).page)
    assert set(scene.graph.nodes_geometry) == {"red", "plain"}
    colors = np.asarray(scene.geometry["red"].visual.vertex_attributes["color"])
    assert (colors == [255, 0, 0, 255]).all()
    assert len(scene_of(display(gd.MeshBatch([gd.box(), gd.box()])).page).geometry) == 2


def test_view_serves(tmp_path: pathlib.Path) -> None:
    pytest.importorskip("viser")
    gd.box().save(tmp_path / "box.obj")
    server = view(tmp_path / "box.obj", port=18080, block=False)
    try:
        address = f"http://{server.get_host()}:{server.get_port()}/"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=20) as answer:
            assert answer.status == 200 and b"<html" in answer.read().lower()
        assert server.get_host() == "127.0.0.1"
        assert server.initial_camera.position[1] > 0
    finally:
        server.stop()


def test_ports_that_are_none(tmp_path: pathlib.Path) -> None:
    gd.box().save(tmp_path / "box.obj")
    for port in ("0", "65536"):
        done = CliRunner().invoke(main, ["view", str(tmp_path / "box.obj"), "--port", port])
        assert done.exit_code == 2 and "`port` must be an integer in [1, 65535]" in done.output
    with pytest.raises(ValueError, match=r"`port` must be an integer in \[1, 65535\]"):
        view(gd.box(), port=65536)


def test_view_ends_with_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    viser = pytest.importorskip("viser")
    stopped = []

    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(viser.ViserServer, "sleep_forever", interrupted)
    stop = viser.ViserServer.stop
    monkeypatch.setattr(viser.ViserServer, "stop", lambda self: (stopped.append(self), stop(self)))
    assert stopped == [view(gd.box(), port=18090)]


def test_command_writes_a_page(tmp_path: pathlib.Path) -> None:
    for name in ("a", "b"):
        gd.box().save(tmp_path / f"{name}.obj")
    done = CliRunner().invoke(
        main, ["view", str(tmp_path / "a.obj"), str(tmp_path / "b.obj"), "-o", str(tmp_path / "page.html")]
    )
    assert done.exit_code == 0, done.output
    assert len(scene_of((tmp_path / "page.html").read_text()).geometry) == 2


def tree_of(page: str) -> dict[str, Any]:
    """Read the JSON part of the GLB in a page."""
    (text,) = [text for text in re.findall(r"[A-Za-z0-9+/=]{200,}", page) if text.startswith("Z2xUR")]
    data = base64.b64decode(text)
    return json.loads(data[20 : 20 + int.from_bytes(data[12:16], "little")])


def run(*arguments: Any) -> str:
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_nothing_is_dark(tmp_path: pathlib.Path) -> None:
    """Every part has a material that is no metal; grey of 0.4 at least under colours and textures is white."""
    textured = gd.plane().with_attributes(texture=torch.full((2, 2, 3), 0.9))
    colored = gd.icosphere(1).with_attributes(vertex_colors=torch.rand(42, 3))
    faces = gd.box().with_attributes(face_colors=torch.rand(12, 3))
    blue = gd.box().with_attributes(material=gd.Material(diffuse=(0.1, 0.2, 0.8)))
    meshes = {"textured": textured, "colored": colored, "faces": faces, "blue": blue, "plain": gd.torus()}
    tree = tree_of(display(meshes).page)
    for entry in tree["meshes"]:
        for primitive in entry["primitives"]:
            material = tree["materials"][primitive["material"]]
            surface = material["pbrMetallicRoughness"]
            assert surface["metallicFactor"] == 0 and material["doubleSided"] and "NORMAL" in primitive["attributes"]
            white = "baseColorTexture" in surface or "COLOR_0" in primitive["attributes"]
            assert surface["baseColorFactor"][:3] == [1.0] * 3 if white else min(surface["baseColorFactor"][:3]) > 0.3
    scene = scene_of(display(meshes).page)
    # The material's colour in linear light, by the formula of sRGB.
    linear = [255 * ((c + 0.055) / 1.055) ** 2.4 for c in (0.1, 0.2, 0.8)]
    color = np.asarray(scene.geometry["blue"].visual.vertex_attributes["color"])[:, :3]
    assert np.abs(color - linear).max() <= 1
    # Colours of faces are not blurred.
    color = np.asarray(scene.geometry["faces"].visual.vertex_attributes["color"])
    assert len(np.unique(color, axis=0)) == 12


def test_the_first_view_holds_everything_and_looks_down() -> None:
    for meshes in (gd.torus(2.0, 0.1), {"a": gd.box().translated((100.0, 0, 0)), "b": gd.icosphere(1)}):
        tree = tree_of(display(meshes).page)
        scene = scene_of(display(meshes).page)
        node = next(node for node in tree["nodes"] if "camera" in node)
        pose = np.array(node["matrix"]).reshape(4, 4).T
        lens = tree["cameras"][0]["perspective"]
        points = np.concatenate([g.vertices for g in scene.geometry.values()])
        seen = (points - pose[:3, 3]) @ pose[:3, :3]
        depth, tangent = -seen[:, 2], np.tan(lens["yfov"] / 2)
        assert depth.min() > 0 and pose[1, 3] > points[:, 1].max()
        assert np.abs(seen[:, 1] / depth).max() < tangent and np.abs(seen[:, 0] / depth).max() < 4 / 3 * tangent
        assert np.abs(seen[:, :2] / depth[:, None]).max() > 0.5 * tangent


def test_everything_that_geodiff_writes_is_seen(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "result"
    drawn = gd.icosphere(2).sample(300, seed=0)
    write_ply(folder / "points.ply", dict(zip("xyz", drawn.points.T, strict=True)))
    surface = gd.NURBSSurface(torch.rand(4, 4, 3))
    save_splines(folder / "surface.json", surface)
    save_splines(tmp_path / "curve.json", gd.NURBSCurve(torch.rand(5, 2)))
    gd.icosphere(1).save(folder / "mesh.obj")
    gd.icosphere(1).save(folder / "mesh.glb")
    (folder / "metrics.json").write_text("{}")
    (folder / "notes.md").write_text("")
    np.save(tmp_path / "cloud.npy", drawn.points.numpy())
    assert set(things_to_see([folder], "view")) == {"points", "surface", "mesh"}
    found = things_to_see([folder, folder / "mesh.obj", tmp_path / "curve.json", tmp_path / "cloud.npy"], "view")
    assert set(found) == {"points", "surface", "mesh", "mesh_2", "curve", "cloud"}
    # Octahedra around the points, a tube around the curve, the surface itself.
    assert found["points"].num_faces == found["cloud"].num_faces == 8 * 300
    centres = found["cloud"].vertices.reshape(300, 6, 3).mean(1)
    torch.testing.assert_close(centres, drawn.points.double(), atol=1e-6, rtol=0)
    # What a folder holds stands in a row; what is named by itself, where it is.
    ends = [found[name].bounds[:, 0].tolist() for name in ("mesh", "points", "surface")]
    assert ends[0][1] < ends[1][0] and ends[1][1] < ends[2][0] and found["mesh_2"].bounds[0, 0] < -0.9
    assert found["surface"].bounds[0, 0] > 3
    found["surface"] = things_to_see([folder / "surface.json"], "view")["surface"]
    curve = load_splines(tmp_path / "curve.json")[0].to(torch.float64)
    middle = torch.nn.functional.pad(curve(torch.linspace(0, 1, 200, dtype=torch.float64)), (0, 1))
    tube = found["curve"].vertices.reshape(200, 8, 3)
    torch.testing.assert_close(tube.mean(1), middle, atol=1e-9, rtol=0)
    assert (tube - middle[:, None]).norm(dim=-1).std() < 1e-9
    gaps = gd.point_mesh_distance(surface.grid(9, 9).reshape(-1, 3), found["surface"])
    assert gaps.max() < 2e-3  # of 64 × 64 flat pieces
    said = run("view", folder, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "mesh, points, surface" in said and str(tmp_path / "page.html") in said
    assert f"<title>{folder}</title>" in page and set(scene_of(page).geometry) == {"points", "surface", "mesh"}


def test_an_atlas_is_seen(tmp_path: pathlib.Path) -> None:
    x = plane(300)
    centres = torch.cartesian_prod(*[torch.linspace(0.2, 0.8, 3, dtype=torch.float64)] * 2)
    atlas = flat_atlas(x, torch.cat((centres, torch.zeros(9, 1, dtype=torch.float64)), 1), 0.35)
    atlas.save(tmp_path / "atlas.npz")
    found = things_to_see([tmp_path / "atlas.npz"], "view")
    assert found["atlas"].num_faces > 0
    assert "atlas" in run("view", tmp_path / "atlas.npz", "-o", tmp_path / "page.html")
    gd.icosphere(0).save(tmp_path / "charts.glb")  # the same surface, meshed already
    assert set(things_to_see([tmp_path], "view")) == {"charts"}


def test_what_cannot_be_seen(tmp_path: pathlib.Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.ply").write_text("no")
    (tmp_path / "a.doc").write_text("no")
    for path, message in (
        (tmp_path / "none.obj", "`path` must be a file or a folder that exists"),
        (tmp_path / "empty", "`path` must be a folder with files to see, of .npz"),
        (tmp_path / "a.doc", "`path` must be of one of .glb"),
        (tmp_path / "bad.ply", "bad.ply"),
    ):
        done = CliRunner().invoke(main, ["view", str(path)])
        assert done.exit_code == 2 and message in done.output and "Traceback" not in done.output
    # A folder of pictures: what is looked for, and what there is.
    cameras = gd.Camera.orbit(3.0, 30, torch.arange(0, 360, 180))
    gd.PosedImages(None, torch.ones(2, 8, 8), cameras).save(tmp_path / "seen")
    (tmp_path / "seen" / "optimisation.gif").write_bytes(b"")
    found = r"in which there is 1 \.gif, 1 folders, 1 transforms\.json\. .* Pictures are for a viewer of images\."
    for folder, message in (("seen", found), ("empty", r"in which there is nothing\. Name a file, or the folder of a")):
        with pytest.raises(ValueError, match=rf"of \.npz, \.json.*; got .*{folder}, {message}"):
            things_to_see([tmp_path / folder], "view")
    volume = gd.NURBSVolume(torch.rand(4, 4, 4, 3))
    save_splines(tmp_path / "volume.json", volume)
    with pytest.raises(ValueError, match="`path` must be a file of surfaces or curves"):
        things_to_see([tmp_path / "volume.json"], "view")
    assert tube(torch.zeros(3, 3), 0.1).num_faces > 0


def test_absence_is_explained(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    gd.box().save(tmp_path / "box.obj")
    with pytest.raises(ImportError, match=r"viser is not installed. Install it with pip install 'geodiff\[view\]'"):
        view(gd.box())
    refused = CliRunner().invoke(main, ["view", str(tmp_path / "box.obj")])
    assert refused.exit_code == 2 and "geodiff[view]" in refused.output and "Traceback" not in refused.output


def test_messages() -> None:
    with pytest.raises(TypeError, match="display: `meshes` must be a Mesh, a MeshBatch or a dictionary"):
        display([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="view: `meshes` must be a Mesh, a MeshBatch or a dictionary"):
        view(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="display: `meshes` must be with something to see"):
        display({})
    with pytest.raises(ValueError, match="display: `height` must be an integer ≥ 1"):
        display(gd.box(), height=0)
    with pytest.raises(ValueError, match="display: `meshes` must be with something to see"):
        display(gd.Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)))
