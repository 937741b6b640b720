# SPDX-License-Identifier: Apache-2.0
"""The site: each page is in its menu, and each public name in its reference. `make docs` builds it, strictly."""

import importlib
import inspect
import pathlib
import re

import geodiff as gd

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOMS = (
    "atlas",
    "csg",
    "fem",
    "implicit",
    "interop",
    "losses",
    "ops",
    "optim",
    "render",
    "scene",
    "soft",
    "sparse",
    "splines",
    "tasks",
    "transport",
)


def test_each_page_is_in_the_menu() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1]
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert pages == set(re.findall(r": (\S+\.md)", menu))


def documented() -> set[str]:
    """Name the modules that the pages of the reference unfold."""
    pages = (path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md"))
    return {module for page in pages for module in re.findall(r"^::: (\S+)", page, re.MULTILINE)}


def test_each_public_name_is_in_the_reference() -> None:
    modules = documented()
    missing = []
    for room in ROOMS:
        public = importlib.import_module(f"geodiff.{room}")
        for name in getattr(public, "__all__", ()):
            value = getattr(public, name)
            home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
            if home is not None and home.startswith("geodiff") and home not in modules:
                missing.append(f"{room}.{name} of {home}")
    assert not missing, missing
    assert {getattr(gd, name).__module__ for name in gd.__all__ if inspect.isclass(getattr(gd, name))} <= modules


def test_links_between_pages_lead_somewhere() -> None:
    for page in DOCS.rglob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+\.(?:md|png|csv))\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"


def test_the_glossary_names_what_there_is() -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    rooms = [gd, *(importlib.import_module(f"geodiff.{room}") for room in ROOMS)]
    named = {
        name.partition("(")[0]
        for name in re.findall(
            r"`((?:[a-z]+\.)*[A-Z]+[a-z]\w*(?:[.(].*?)?|(?:soft|splines|tasks|losses|transport)\.\w+)`", text
        )
    }
    assert len(named) > 30
    for name in sorted(named):
        first, *rest = name.removeprefix("geodiff.").split(".")
        found = [getattr(room, first) for room in rooms if hasattr(room, first)]
        if not rest or not found:
            assert found or importlib.import_module(f"geodiff.{first}"), name
        elif inspect.ismodule(found[0]) and len(rest) > 1:
            assert hasattr(importlib.import_module(f"geodiff.{first}.{rest[0]}"), rest[1]), name
        else:  # of a class, also what its constructor sets
            source = inspect.getsource(found[0]) if inspect.isclass(found[0]) else ""
            assert hasattr(found[0], rest[0]) or re.search(rf"\b{rest[0]}\b", source), name
    terms = re.findall(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
    assert len(terms) == len(set(terms)) > 50


# Two public things may have one name if it means the same of two kinds of things.
SHARED = {
    "box": "a mesh, and a spline",
    "closest_point": "of a mesh, and of a spline",
    "cylinder": "a mesh, and a spline",
    "plane": "a mesh, and a spline",
    "torus": "a mesh, and a spline",
    "fragments": "of a mesh and a camera, and the op beneath",
    "rasterize": "of a mesh and a camera, and the op beneath",
    "sweep": "of a curve along another, and of a job through the family: neither is called anything else",
}


def test_no_two_public_things_have_one_name() -> None:
    """Nor one thing two, but for ops and their twins."""
    things: dict[str, set[str]] = {}
    for room in ("", *ROOMS, "reference"):
        package = importlib.import_module(f"geodiff.{room}".rstrip("."))
        for name in getattr(package, "__all__", ()):
            value = getattr(package, name)
            home = f"{getattr(value, '__module__', room)}"
            if not inspect.ismodule(value) and callable(value):
                twin = home.replace(".reference.", ".ops.")
                things.setdefault(name, set()).add("an op or its twin" if ".ops." in twin else home)
    double = {name for name, homes in things.items() if len(homes) > 1}
    assert double == set(SHARED), double ^ set(SHARED)


def test_calls_in_the_text_have_their_keywords() -> None:
    """Of public functions, as `graph_distance(beta=…)`; blocks of code are run elsewhere."""
    rooms = [gd, gd.presets, *(importlib.import_module(f"geodiff.{room}") for room in ROOMS)]
    public = {name: call for room in reversed(rooms) for name, call in vars(room).items() if inspect.isfunction(call)}
    seen = 0
    for page in DOCS.glob("*.md"):
        for name, given in re.findall(r"`(?:[a-z]+\.)*([a-z_]+)\(([^()`\n]*)\)`", page.read_text(encoding="utf-8")):
            takes = inspect.signature(public[name]).parameters if name in public else {}
            if not takes or any(value.kind is value.VAR_KEYWORD for value in takes.values()):
                continue
            for keyword in re.findall(r"(\w+)=", given):
                assert keyword in takes, f"{page.name}: {name}({keyword}=…)"
                seen += 1
    assert seen > 10
