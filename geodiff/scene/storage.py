# SPDX-License-Identifier: Apache-2.0
"""OpenCV's FileStorage: the part of YAML and XML that it writes, as dictionaries, lists, numbers and text."""

import re
import xml.etree.ElementTree as ElementTree
from typing import Any

_DEEP = 40
_KEY = re.compile(r"""^("[^"]*"|'[^']*'|[^\s\[\]{}"',:#][^:\[\]{}"',#]*)\s*:(\s+|$)""")
_NUMBER = re.compile(r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")
_QUOTED = re.compile(r"""("[^"]*"|'[^']*')""")
_WORDS = re.compile(r"""[\[\]{},:]|"[^"]*"|'[^']*'|[^\s\[\]{},:"'][^\[\]{},:"']*""")
_ODD = {".nan": "nan", "-.nan": "nan", ".inf": "inf", "-.inf": "-inf", "+.inf": "inf"}


def xml_storage(text: str) -> Any:
    """Read an ``<opencv_storage>``.

    Raises:
        ValueError: it is none, or declares entities, which FileStorage does not.
    """
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("a document type, which calibrations have no need of")
    root = ElementTree.fromstring(text)
    if root.tag != "opencv_storage":
        raise ValueError(f"a <{root.tag[:40]}>, not an <opencv_storage>")
    return _element(root, 0)


def _element(node: ElementTree.Element, depth: int) -> Any:
    if depth > _DEEP:
        raise ValueError("nested too deeply")
    if node.get("type_id") == "opencv-matrix":
        found: dict[str, Any] = {child.tag: (child.text or "").strip() for child in node}
        return {**found, "data": [_scalar(word) for word in found.get("data", "").split()]}
    if len(node):
        if all(child.tag == "_" for child in node):
            return [_element(child, depth + 1) for child in node]
        return {child.tag: _element(child, depth + 1) for child in node}
    # Several numbers, or several names such as a list of images has, are a sequence.
    values = [_scalar(word) for word in re.findall(r'"[^"]*"|\S+', node.text or "")]
    return values[0] if len(values) == 1 else values


def yaml_storage(text: str) -> Any:
    """Read what FileStorage writes as YAML: mappings and sequences, by indentation or in brackets; tags are dropped.

    Raises:
        ValueError: it is something else.
    """
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = _without_comment(line)
        if bare.strip() and not bare.startswith(("%YAML", "---", "...")):
            lines.append((len(bare) - len(bare.lstrip()), bare.strip(), number))
    reader = _Yaml(lines)
    value = reader.block(0)
    if reader.at < len(lines):
        raise ValueError(f"line {lines[reader.at][2]} is indented otherwise than what is before it")
    return value


def _without_comment(line: str) -> str:
    quote = ""
    for i, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#" and (i == 0 or line[i - 1].isspace()):
            return line[:i].rstrip()
    return line.rstrip()


class _Yaml:
    """The lines that are left, as (indentation, text, number in the file)."""

    def __init__(self, lines: list[tuple[int, str, int]]) -> None:
        self.lines, self.at = lines, 0

    def block(self, depth: int) -> Any:
        """Return the mapping or sequence that starts at this line, or a value alone."""
        if self.at >= len(self.lines):
            return None
        if depth > _DEEP:
            raise ValueError("nested too deeply")
        indent, text, _ = self.lines[self.at]
        if text == "-" or text.startswith("- "):
            return self._sequence(indent, depth)
        if _KEY.match(text):
            return self._mapping(indent, depth)
        self.at += 1
        return self._value(text, indent - 1, depth)

    def _mapping(self, indent: int, depth: int) -> dict[str, Any]:
        found = {}
        while self.at < len(self.lines) and self.lines[self.at][0] == indent:
            _, text, number = self.lines[self.at]
            key = _KEY.match(text)
            if key is None:
                raise ValueError(f"line {number}, {text[:40]!r}, is not KEY: VALUE")
            self.at += 1
            found[key.group(1).strip("\"' ")] = self._value(text[key.end() :], indent, depth)
        return found

    def _sequence(self, indent: int, depth: int) -> list[Any]:
        found = []
        while self.at < len(self.lines) and self.lines[self.at][0] == indent:
            _, text, number = self.lines[self.at]
            if not (text == "-" or text.startswith("- ")):
                break
            rest = text[1:].lstrip()
            if _KEY.match(rest):  # a mapping that starts on the line of its dash
                self.lines[self.at] = (indent + len(text) - len(rest), rest, number)
                found.append(self.block(depth + 1))
            else:
                self.at += 1
                found.append(self._value(rest, indent, depth))
        return found

    def _value(self, text: str, indent: int, depth: int) -> Any:
        """Return what follows a key or a dash: on the line, in brackets over several, or the block below."""
        text = re.sub(r"^!\S*\s*", "", text.strip())
        if not text:
            below = self.at < len(self.lines) and (
                self.lines[self.at][0] > indent
                or (self.lines[self.at][0] == indent and self.lines[self.at][1].startswith("- "))
            )
            return self.block(depth + 1) if below else None
        if text[0] not in "[{":
            return _scalar(text)
        parts, opened = [text], _opened(text)
        while opened > 0 and self.at < len(self.lines):
            parts.append(self.lines[self.at][1])
            opened += _opened(parts[-1])
            self.at += 1
        words = _WORDS.findall(" ".join(parts))
        value, end = _flow(words, 0, depth)
        if opened or end != len(words):
            raise ValueError("brackets that do not match")
        return value


def _opened(text: str) -> int:
    """Return how many more brackets a line opens than it closes."""
    bare = _QUOTED.sub("", text)
    return sum(bare.count(c) for c in "[{") - sum(bare.count(c) for c in "]}")


def _flow(words: list[str], at: int, depth: int) -> tuple[Any, int]:
    """Return the list, dictionary or scalar that starts at a word, and which word comes after it."""
    if depth > _DEEP:
        raise ValueError("nested too deeply")
    if at >= len(words) or words[at] in "]},:":
        raise ValueError("a value is missing in brackets")
    if words[at] not in "[{":
        return _scalar(words[at]), at + 1
    closing, found, named = ("]", [], {}) if words[at] == "[" else ("}", [], {})
    at += 1
    while at < len(words) and words[at] != closing:
        value, at = _flow(words, at, depth + 1)
        if closing == "}":
            if not isinstance(value, str | int | float) or words[at : at + 1] != [":"]:
                raise ValueError("a key without value in brackets")
            named[str(value)], at = _flow(words, at + 1, depth + 1)
        else:
            found.append(value)
        if words[at : at + 1] == [","]:
            at += 1
        elif words[at : at + 1] != [closing]:
            raise ValueError("a comma is missing in brackets")
    return (found if closing == "]" else named), at + 1


def _scalar(word: str) -> Any:
    """Return a word as a number where it is one."""
    word = word.strip()
    if len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'":
        return word[1:-1]
    if _NUMBER.match(word):
        return int(word) if re.fullmatch(r"[+-]?\d{1,18}", word) else float(word)
    return float(_ODD[word.lower()]) if word.lower() in _ODD else word
