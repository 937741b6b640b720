# SPDX-License-Identifier: Apache-2.0
"""What the browser gets: a page, and the meshes in it."""

import base64
import html
import io
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
from geodiff.tasks import Display, display, view


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
    colors = np.asarray(scene.geometry["red"].visual.vertex_colors)
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
        assert done.exit_code == 2 and "--port" in done.output
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
