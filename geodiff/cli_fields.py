# SPDX-License-Identifier: Apache-2.0
"""Options of commands from what they set: fields of settings, or arguments of functions.

Names, kinds, defaults and help are read from the source, since importing it would load torch, for which --help need not
wait. The help is the first sentence of a field's documentation; "None: …" in it says what is the default.
"""

import ast
import functools
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from geodiff.cli_options import Numbers, Pair, Size, Widths

_ROOT = pathlib.Path(__file__).parent
# How values of a kind are given. A kind is what the source says, without "None".
_KINDS: dict[str, dict[str, Any]] = {
    "int": {"type": int},
    "float": {"type": float},
    "str": {"type": str},
    "Any": {"type": str},
    "pathlib.Path": {"type": click.Path(path_type=pathlib.Path)},
    "int | tuple[int, int]": {"type": Size()},
    "tuple[int, int]": {"type": Pair()},
    "tuple[int, ...]": {"type": Widths()},
    "Sequence[float]": {"type": Numbers()},
    "tuple[float, float]": {"type": float, "nargs": 2},
    "tuple[float, float, float]": {"type": float, "nargs": 3},
    "float | Sequence[float]": {"type": float, "multiple": True},
    "str | Sequence[str]": {"type": str, "multiple": True},
    "Sequence[tuple[float, float, float, float]]": {
        "type": float,
        "nargs": 4,
        "multiple": True,
        "metavar": "X Y Z BRIGHTNESS",
    },
}


class Field(NamedTuple):
    """What the source says of a field or argument.

    Attributes:
        name: its name.
        kind: its annotation.
        default: its value.
        text: its documentation.
    """

    name: str
    kind: str
    default: Any
    text: str


class Source(NamedTuple):
    """What the source says of a class or function: its fields or arguments, and their old names with the new ones."""

    fields: dict[str, Field]
    renamed: dict[str, str]


@functools.cache
def source_of(path: str) -> Source:
    """Read what is said of ``"room.module.name"``: a class, with the bases that its module imports, or a function."""
    module, name = path.rsplit(".", 1)
    node = _definition(module, name)
    texts = _texts(ast.get_docstring(node) or "")
    found = Source({}, {})
    if isinstance(node, ast.ClassDef):
        for base in node.bases:
            home = isinstance(base, ast.Name) and _home(module, base.id)
            if home and home != "settings.Settings":
                inherited = source_of(home)
                found.fields.update(inherited.fields)
                found.renamed.update(inherited.renamed)
        for line in node.body:
            if not isinstance(line, ast.AnnAssign) or not isinstance(line.target, ast.Name) or line.value is None:
                continue
            own = line.target.id
            if own == "_renamed" and isinstance(line.value, ast.Dict):
                for old, new in zip(line.value.keys, line.value.values, strict=True):
                    new = new.elts[0] if isinstance(new, ast.Tuple) else new
                    found.renamed[ast.literal_eval(old)] = ast.literal_eval(new)  # type: ignore[arg-type]
            elif not own.startswith("_"):
                found.fields[own] = _field(module, own, line.annotation, line.value, texts)
    else:
        given = node.args
        pairs = [*zip(given.kwonlyargs, given.kw_defaults, strict=True)]
        pairs += zip(given.args[len(given.args) - len(given.defaults) :], given.defaults, strict=True)
        for argument, value in pairs:
            if argument.annotation is not None and value is not None:
                found.fields[argument.arg] = _field(module, argument.arg, argument.annotation, value, texts)
    return found


def _field(module: str, name: str, annotation: ast.expr, value: ast.expr, texts: dict[str, str]) -> Field:
    kind = ast.literal_eval(annotation) if isinstance(annotation, ast.Constant) else ast.unparse(annotation)
    return Field(name, str(kind), _value(module, value), texts.get(name, ""))


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse((_ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))


def _definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"geodiff.{module} has no {name}")


def _home(module: str, name: str) -> str:
    """Name where a name of a module is from, without "geodiff."."""
    for node in _tree(module).body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return f"{node.module}.{alias.name}".removeprefix("geodiff.")
    return f"{module}.{name}"


def _value(module: str, node: ast.expr) -> Any:
    """Return what an expression is worth: a literal, or a constant of this module or another."""
    if not isinstance(node, ast.Name):
        return ast.literal_eval(node)
    module, name = _home(module, node.id).rsplit(".", 1)
    for line in _tree(module).body:
        if isinstance(line, ast.Assign) and any(isinstance(to, ast.Name) and to.id == name for to in line.targets):
            return _value(module, line.value)
    raise LookupError(f"geodiff.{module} has no {name}")


def _texts(docstring: str) -> dict[str, str]:
    """Return what a docstring says of each attribute or argument."""
    texts: dict[str, str] = {}
    section = re.search(r"^(?:Attributes|Args):\n((?:    .*\n|\n)*)", docstring + "\n", re.MULTILINE)
    name = ""
    for line in section[1].splitlines() if section else ():
        if start := re.match(r"    (\w+): (.*)", line):
            name, texts[start[1]] = start[1], start[2]
        elif name and line.strip():
            texts[name] += f" {line.strip()}"
    return texts


def help_of(field: Field, flags: str) -> str:
    """Return the first sentence of a field's documentation, and its default, for an option of these names."""
    text = re.split(r"(?<=\.)\s", field.text.replace('``"', "").replace('"``', "").replace("`", ""), maxsplit=1)[0]
    found = re.search(r"[;,] None:? ([^;]*?)(?=;|\.?$)", text)
    default = found[1] if found and field.default in (None, ()) else shown(field, flags)
    if found:
        text = text[: found.start()] + text[found.end() :]
    if "a" <= field.text[:1] <= "z":  # no symbol, and no value
        text = text[:1].upper() + text[1:]
    text = text.rstrip(".") + "."
    return f"{text}  [default: {default}]" if default else text


def shown(field: Field, flags: str) -> str:
    """Return a default as one would type it; nothing for None and for none of several."""
    value = field.default
    if isinstance(value, bool):
        return flags.split("/")[not value].removeprefix("--")
    if isinstance(value, tuple):
        between = "x" if isinstance(_kind(field).get("type"), Pair | Size | Widths) else " "
        return between.join(f"{one:g}" if isinstance(one, float) else str(one) for one in value)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _kind(field: Field) -> dict[str, Any]:
    """Return what click is to know of a field's values."""
    kind = field.kind.removesuffix(" | None")
    if "PathLike" in kind:
        return {"type": click.Path()}
    return _KINDS["str"] if "soft." in kind else _KINDS[kind]


def options_of(path: str, *only: str, **names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command an option for each field of a class, or for some arguments of a function.

    An option that is not given is None, or an empty tuple. Old names of fields are options that --help does not show.

    Args:
        path: of the class or function, without ``geodiff.``: ``"tasks.mesh.settings.FitMeshSettings"``.
        only: the fields to take; all if left out.
        names: other names of some options, such as ``"--format --formats"`` or ``"--fixed/--free"``; --help shows the
            first.
    """
    source = source_of(path)

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed([*_options(source, only, names)]):
            command = option(command)
        return command

    return decorate


def _options(source: Source, only: tuple[str, ...], names: dict[str, str]) -> Iterator[Callable[..., Any]]:
    for name in only or source.fields:
        field = source.fields[name]
        flag = "--" + name.replace("_", "-")
        flags = names.get(name, f"{flag}/--no-{flag[2:]}" if field.kind == "bool" else flag).split()
        more: dict[str, Any] = {"default": None} if field.kind == "bool" else _kind(field)
        yield click.option(*flags, name, cls=_FirstShown, help=help_of(field, flags[0]), **more)
    for old, new in source.renamed.items():
        yield click.option("--" + old.replace("_", "-"), old, hidden=True, **_kind(source.fields[new]))


class _FirstShown(click.Option):
    """An option of several names, of which --help shows the first."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        names, self.opts = self.opts, self.opts[:1]
        try:
            return super().get_help_record(ctx)
        finally:
            self.opts = names


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None and value != ()}
