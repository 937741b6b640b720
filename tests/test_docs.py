# SPDX-License-Identifier: Apache-2.0
"""The site: each page is in its menu, and each public name in its reference. `make docs` builds it, strictly."""

import importlib
import inspect
import pathlib
import re

import geodiff as gd

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
ROOMS = ("atlas", "implicit", "interop", "losses", "ops", "render", "scene", "soft", "splines", "tasks", "transport")


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
