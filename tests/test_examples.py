# SPDX-License-Identifier: Apache-2.0
"""Run the examples of all docstrings and of the pages in docs/."""

import doctest
import importlib
import importlib.util
import math
import pathlib
import re

import pytest
import torch

import geodiff as gd

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "geodiff"
EYE = gd.Camera.orbit(2.7)
# Those of native/ need a compiler for the GPU, and have tests of their own.
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8") and path.parent.name != "native"
)


def test_there_are_examples() -> None:
    assert len(MODULES) > 20


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.attempted > 0
    assert result.failed == 0


def test_conventions() -> None:
    page = ROOT / "docs" / "conventions.md"
    result = doctest.testfile(str(page), module_relative=False, optionflags=doctest.ELLIPSIS, encoding="utf-8")
    assert result.attempted > 20
    assert result.failed == 0


def test_soft() -> None:
    page = (ROOT / "docs" / "soft.md").read_text(encoding="utf-8")
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    for block in blocks:
        exec(block, names)
    # The members of one's own that the page shows do render.
    eye, ball = gd.Camera.orbit(2.7, 20, 30), gd.icosphere(1)
    own = {"distribution": names["Softsign"]().squared(), "tconorm": names["Nilpotent"]()}
    alpha = gd.Renderer(8, scale=1e-2, **own)(ball, eye).alpha
    assert alpha[4, 4] > 0.9 and alpha[0, 0] < 0.1
    # Each row of its tables is a member.
    for name in re.findall(r"^\| `\w+\(.*?\)` \| `(\w+)", page, re.MULTILINE):
        assert name in gd.soft.DISTRIBUTIONS or name in gd.soft.TCONORMS
    assert gd.soft.member("levy.reversed.squared+frank(0.3)").name == "levy.reversed.squared+frank(0.3)"


def test_order() -> None:
    page, names = (ROOT / "docs" / "order.md").read_text(encoding="utf-8"), {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert 0.2 < float(names["alpha"].max()) <= 0.5101  # two panes of 0.3 at most, but for edges


def test_render() -> None:
    page = (ROOT / "docs" / "render.md").read_text(encoding="utf-8")
    names: dict = {"gd": gd}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        exec(block, names)
    assert int(names["clean"].sum()) == 2 and (names["p"].grad == 0).nonzero().tolist() == [[9, 9]]
    # The shader's picture has its four levels of grey, mixed with the background along the outline alone.
    picture, alpha = names["picture"], gd.Renderer(128, scale_px=0.5, coverage="contour")(gd.icosphere(3), EYE).alpha
    inside = picture[alpha > 0.9999]
    assert {round(float(value), 2) for value in inside.unique()} == {0.0, 0.33, 0.67, 1.0} and len(inside) > 3000
    parts = [gd.Renderer(128, scale=3e-3, coverage=name)(gd.icosphere(3), EYE).alpha for name in ("faces", "contour")]
    torch.testing.assert_close(names["image"], (parts[0] + parts[1]) / 2)
    assert 0.3 < float(names["smooth"].amax(-1).gt(0).float().mean()) < 0.7


def test_optim() -> None:
    page = (ROOT / "docs" / "optim.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(block, names)


def test_splines() -> None:
    page = (ROOT / "docs" / "splines.md").read_text(encoding="utf-8")
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    for block in blocks:
        exec(block, names)
    assert names["loss"] < 0.01 and names["fit"].mse < 1e-3
    assert float(names["size"].detach()) == pytest.approx(2 * math.pi**2 * 2 * 0.25, rel=1e-5)
    gradient = names["gradient"]
    assert gradient.shape == names["net"].shape and bool((gradient != 0).any())
    # Each function of its table is there.
    for name in re.findall(r"`([a-zA-Z_]+)(?:\(.*?\))?`", page.split("## CAD operations")[1].split("```")[0]):
        assert name == "tolerance" or name in gd.splines.__all__, name
    for picture in re.findall(r"\]\((images/.*?)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_fields() -> None:
    page = (ROOT / "docs" / "fem.md").read_text(encoding="utf-8")
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    for block in blocks:
        exec(block, names)
    # −Δu = z on the unit sphere is u = z / 2, on this one within 1 %.
    torch.testing.assert_close(names["c"].detach(), names["mesh"].vertices[:, 2] / 2, rtol=0, atol=5e-3)
    assert bool((names["vertices"].grad != 0).any()) and bool((names["guess"].grad != 0).any())
    assert float(names["u"][:, 1].mean()) < 0
    # Each call that it names is there.
    for name in re.findall(r"`(?:gd\.)?fem\.(\w+)", page):
        assert name in gd.fem.__all__, name


def test_programs_and_solids() -> None:
    for name, count in (("programs", 2), ("csg", 1)):
        page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
        names: dict = {}
        blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
        assert len(blocks) == count
        for block in blocks:
            exec(block, names)
        for call in re.findall(r"`soft\.(\w+)", page):
            assert call in gd.soft.__all__, call
        for call in re.findall(r"`csg\.(\w+)", page):
            assert call in gd.csg.__all__, call
        if name == "programs":
            assert float((names["out"]["x"].detach() - torch.tensor([1.0, 2, 3])).abs().max()) < 0.01
            assert bool(names["control"].grad.isfinite().all())
        else:
            assert names["mesh"].is_closed and names["mesh"].vertices.requires_grad


def test_transport() -> None:
    page = (ROOT / "docs" / "transport.md").read_text(encoding="utf-8")
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    torch.manual_seed(0)
    for block in blocks:
        exec(block, names)
    assert bool(names["ot"].converged) and names["plan"].shape == (300, 400)
    assert names["lost"] < 1e-3
    assert float(names["value"].detach()) < 1e-3  # the cloud went where it belongs
    assert float(names["exact"]) == pytest.approx(float(names["found"].cost) / 100, rel=1e-5)
    assert bool((names["centre"].abs() < 1).all())  # not drawn to the outliers
    # Each function of its table is there.
    rows = page.split("## Which one")[1].split("\n\n")[1]
    for name in re.findall(r"`(?:gd\.transport\.|gd\.)?([a-zA-Z_0-9]+)`", rows):
        assert name in gd.transport.__all__, name
    for picture in re.findall(r"\]\((images/.*?)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_interop() -> None:
    page = (ROOT / "docs" / "interop.md").read_text(encoding="utf-8")
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert list(names["meshes"]) == ["ball"] and torch.allclose(names["again"].rotation, names["camera"].rotation)
    assert "<html" in names["page"].page.lower()
    # Each function of its table is there.
    for name in re.findall(r"`([a-z]\w+_(?:from_|to_)?(?:trimesh|open3d|pytorch3d)\w*)", page):
        assert name in gd.interop.__all__, name


def test_sweep() -> None:
    page = (ROOT / "docs" / "sweep.md").read_text(encoding="utf-8")
    names: dict = {}
    (block,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    from geodiff.tasks.sweep.kinds import JOBS, SHAPE

    try:
        exec(block, names)
    finally:
        JOBS.pop("blur", None)
    # A narrow edge differs less from the hard mask.
    assert names["result"].failed == 0 and names["result"].best["scale"] == 0.01
    for name in ("views", "size", "elevation", "steps", "optimizer", "subdivisions"):
        assert name in SHAPE.options


def test_shape(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "shape.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(block, names)
    assert names["fit"].iou_train > 0.95 and names["fit"].iou_held_out > 0.8
    assert (tmp_path / "painted.glb").is_file() and float(names["found"].psnr[0]) > 30
    assert names["hull"].is_closed and names["hull"].euler_characteristic == 0
    assert float(names["radius"].grad) == pytest.approx(8 * math.pi * 0.8, rel=0.02)


def test_pose() -> None:
    page = (ROOT / "docs" / "pose.md").read_text(encoding="utf-8")
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        exec(block, names)
    assert names["fit"].error["angle_deg"] < 3 and names["mode"].probability <= names["fit"].modes[0].probability <= 1
    for picture in re.findall(r"\]\((images/.*?)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_atlas() -> None:
    page = (ROOT / "docs" / "atlas.md").read_text(encoding="utf-8")
    names: dict = {}
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 4
    for block in blocks:
        if "poisson_mesh" in block and importlib.util.find_spec("open3d") is None:
            block = block.split("mesh =")[0]
        exec(block, names)
    assert names["found"].agreement > 0.9
    radius = names["drawn"].points.norm(dim=1)
    assert (radius - 1).abs().mean() < 0.6 * (names["cloud"].norm(dim=1) - 1).abs().mean()
    assert names["gradient"].shape == (100, 2) and bool((names["gradient"] != 0).any())
    assert names["report"].accuracy.mean < 5e-3
    # Each setting of its table is one, and each one is there.
    import dataclasses

    rows = page.split("## Settings")[1].split("\n## ")[0]
    told = {name for cell in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    assert told == {field.name for field in dataclasses.fields(gd.atlas.Settings)}
    for picture in re.findall(r"\]\((images/.*?)\)", page):
        assert (ROOT / "docs" / picture).is_file()


def test_from_pytorch3d() -> None:
    """Its blocks run as they stand, and whatever the page names exists."""
    page = (ROOT / "docs" / "from_pytorch3d.md").read_text(encoding="utf-8")
    names: dict = {}
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 3
    for block in blocks:
        exec(block, names)
    assert names["loss"].item() > 0
    for path in set(re.findall(r"gd\.([\w.]+)", page)):
        value = gd
        for part in path.rstrip(".").split("."):
            value = getattr(value, part)
    for method in set(re.findall(r"`m\.(\w+)(?:\(|`)", page.split("## Cameras")[0])):
        known = method in ("offset_verts", "update_padded", "scale_verts", "get_bounding_boxes") or "_packed" in method
        assert known or hasattr(gd.Mesh, method) or method == "vertices"
