# SPDX-License-Identifier: Apache-2.0
"""Read the numbers of a table of text, whatever stands between them, before them and above them."""

import csv
import math
import pathlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geodiff.tasks.columns import Unclear, by_name
from geodiff.validation import fail

TABLES = ("xyz", "csv", "txt", "pts", "asc", "tsv", "xyzn", "xyzrgb")  # endings
LEAST = 3  # numbers that a row of a table has
SHOWN = 4  # lines that an error shows
_SAMPLE = 400  # lines from which the dialect is told
# In the order in which they are tried; of those that read equally many rows, the first is right.
_DIALECTS = [(";", "."), ("\t", "."), (",", "."), ("|", "."), (" ", "."),
             (";", ","), ("\t", ","), ("|", ","), (" ", ","), (",", ",")]  # fmt: skip
_MISSING = frozenset(("", "na", "n/a", "nan", "-nan", "+nan", "nan(ind)", "-nan(ind)", "null", "none", "-", "*"))
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([ed][+-]?\d+)?|[+-]?inf(inity)?", re.IGNORECASE)
_REMARK = ("#", "//", "%", "!")
_OFF = re.compile(r"(ST)?C?N?OFF")
# Words that a remark over columns has, and a sentence seldom.
_USUAL = frozenset("r g b red green blue intensity time gpstime nx ny nz elevation latitude longitude".split())
_EVEN = 0.9  # least share of rows of one length


@dataclass
class Rows:
    """What a table holds.

    Attributes:
        values: (N, K) float64; NaN where there is none, or text.
        heading: what stands over the columns, K words or one fewer; None where there is nothing.
        texts: for a column, the first line that has text in it, and its number.
        lines: the first ones of the file, to be shown.
        notes: what a user should be told, a sentence each.
    """

    values: np.ndarray
    heading: list[str] | None
    texts: dict[int, tuple[str, int]]
    lines: list[str]
    notes: list[str]


def read_rows(where: str, path: pathlib.Path) -> Rows:
    """Read a table: UTF-8, UTF-16 or Latin-1, ends of lines of any system, separators ``; , |``, tabs or blanks.

    A comma is a decimal mark where the rows cannot be read otherwise. Lines that begin with ``# // % !`` are remarks;
    what stands before the first row is a heading, a count of points, or a title. Empty fields, ``NA`` and the like are
    NaN.

    Raises:
        ValueError: no rows of at least three numbers, or rows that differ.
    """
    # Not splitlines, which splits at characters that stand within words, too.
    lines = re.split(r"\r\n|\r|\n", _decoded(path.read_bytes()))
    shown = [line for line in lines if line.strip()][:SHOWN]
    start = [(i, line) for i, line in enumerate(lines[: 4 * _SAMPLE]) if _says(line)]
    if not start:
        return Rows(np.empty((0, LEAST)), None, {}, shown, [])
    separator, mark = max(_DIALECTS, key=lambda d: sum(_numbers(_words(line, d[0]), d[1]) for _, line in start))
    off = _OFF.fullmatch(start[0][1].split("#")[0].strip()) is not None
    sample = [words for _, line in start if _numbers(words := _words(line, separator), mark)]
    if off:  # OFF: counts, points, faces
        count = int(sample[0][0])
        rows = [(i, line) for i, line in enumerate(lines) if _says(line)][2 : 2 + count]
        sample = [_words(line, separator) for _, line in rows[:_SAMPLE]]
        lines = lines[: rows[-1][0] + 1] if rows else []
    if not sample:
        raise _unreadable(where, path, start, shown)
    width, share = _usual([len(words) for words in sample])
    if share < _EVEN and len(sample) > 2:
        fix = "Separate the fields by semicolons, tabs or blanks where commas are decimal marks."
        raise unclear(where, path, shown, "a table whose rows have one length", fix if separator == "," else "")
    told = [[_number(word, mark) for word in words] for words in sample if len(words) == width]
    of_numbers = [c for c in range(width) if sum(row[c] is not None for row in told) >= max(1, len(told) / 2)]
    fields = [words[c] for words in sample for c in of_numbers if c < len(words)]
    if separator == "," and not any("." in x for x in fields) and any(re.match(r"[+-]?0\d", x) for x in fields):
        fix = "Separate the fields by semicolons, tabs or blanks, or write decimal points."
        raise unclear(where, path, shown, "numbers; commas seem to be both decimal marks and separators", fix)
    first = rows[0][0] if off else next(i for i, line in start if _begins(_words(line, separator), mark, of_numbers))
    table = _Table(where, path, separator, mark, width, of_numbers, first + 1)
    values = table.values(lines[first:])
    notes = ["Commas were read as decimal marks."] if mark == "," else []
    counts = [int(line) for line in lines[:first] if line.strip().isdecimal()]
    if counts and len(values) not in counts and not table.counts:
        notes.append(f"The file says that it has {counts[-1]} points, and has {len(values)}.")
    return Rows(values, None if off else _heading(lines[:first], separator, width), table.texts, shown, notes)


def unclear(where: str, path: pathlib.Path, lines: Sequence[str], expected: str, fix: str = "") -> Exception:
    """Return the error for a table that can be read in several ways or none; it shows the first lines."""
    text = "".join(f"\n    {line[:100]}" for line in lines)
    return fail(where, "points", expected, str(path), f"{fix} It begins:{text}".strip())


def _unreadable(where: str, path: pathlib.Path, start: list[tuple[int, str]], shown: list[str]) -> Exception:
    """Return the error for a file without rows: of its first line, if that has numbers, or of all that is there."""
    for i, line in start:
        words = re.split(r"[\s,;|]+", line.strip())
        if _number(words[0], ".") is not None:
            if len(words) < LEAST:
                return fail(where, "points", "x, y and z in each row", f"{len(words)} in line {i + 1} of {path}")
            break
    return unclear(where, path, shown, "rows of at least three numbers")


def _decoded(data: bytes) -> str:
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if data.startswith(mark):
            return data.decode(name, errors="replace")
    if b"\0" in data[:1000]:
        raise ValueError("it is no text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")  # a heading, perhaps; numbers are the same


def _says(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith(_REMARK)


def _words(line: str, separator: str) -> list[str]:
    line = line.split("#")[0].split("//")[0]
    words = _fields(line, separator)
    return words[:-1] if len(words) > LEAST and words[-1] == "" else words


def _fields(line: str, separator: str) -> list[str]:
    if separator == " ":
        words = line.split()
    elif '"' in line:  # the separator may stand within quotes
        words = next(csv.reader([line.strip(" ")], delimiter=separator, skipinitialspace=True), [])
    else:
        words = line.strip(" ").split(separator)
    return [word.strip().strip("\"'").strip() for word in words]


def _number(word: str, mark: str) -> float | None:
    """Return what a word says; NaN for what is missing, None for other text."""
    if mark == ",":
        if "." in word:
            return None
        word = word.replace(",", ".")
    if _NUMBER.fullmatch(word):
        return float(word.lower().replace("d", "e"))
    return math.nan if word.lower() in _MISSING else None


def _numbers(words: list[str], mark: str) -> bool:
    """Whether words are a row: three numbers or more, and nothing that would be one but for the marks in it."""
    values = [_number(word, mark) for word in words]
    odd = any(v is None and re.fullmatch(r"[-+\d.,;|\s]+", w) for w, v in zip(words, values, strict=True))
    return not odd and sum(v is not None and w != "" for w, v in zip(words, values, strict=True)) >= LEAST


def _begins(words: list[str], mark: str, of_numbers: list[int]) -> bool:
    """Whether words are the first row: of them on, all columns of numbers have numbers."""
    return len(words) > of_numbers[-1] and all(_number(words[c], mark) is not None for c in of_numbers)


def _usual(lengths: list[int]) -> tuple[int, float]:
    counts = np.bincount(lengths)
    return int(counts.argmax()), float(counts.max() / counts.sum())


def _heading(before: list[str], separator: str, width: int) -> list[str] | None:
    """Return the words over the columns: of the last line that names x, y and z, or has as many words as are needed."""
    other = None
    for line in reversed(before):
        text = line.strip().lstrip("#/%!").strip(" ")
        for mark in dict.fromkeys((separator, ",", ";", "\t", " ")):
            words = _fields(text, mark)
            if len(words) == width + 1:
                words = words[1:] if mark == " " else words[:-1]  # "FIELDS x y z"; a column without anything in it
            if len(words) not in (width, width - 1) or all(_number(word, ".") is not None for word in words):
                continue
            if _called(words):
                return words
            usual = width > LEAST and {word.lower() for word in words} & _USUAL
            if other is None and len(words) >= LEAST and (_says(line) or usual):
                other = words
    return other


def _called(words: list[str]) -> bool:
    try:
        return by_name(words) is not None
    except Unclear:
        return True


class _Table:
    """Reads the rows of one dialect; afterwards `texts` has the text that stood in columns of numbers."""

    def __init__(
        self, where: str, path: pathlib.Path, separator: str, mark: str, width: int, of_numbers: list[int], line: int
    ) -> None:
        self.where, self.path, self.separator, self.mark = where, path, separator, mark
        self.width, self.of_numbers, self.line = width, of_numbers, line
        self.texts: dict[int, tuple[str, int]] = {}
        self.counts = False

    def values(self, lines: list[str]) -> np.ndarray:
        """Return the numbers (N, K) of lines: quickly, if each of them is a plain row."""
        numbers = self._plain(lines)
        if numbers is not None:
            values = np.full((len(numbers), self.width), np.nan)
            values[:, self.of_numbers] = numbers
            for column in sorted(set(range(self.width)) - set(self.of_numbers)):
                self.texts[column] = (_words(lines[0], self.separator)[column], self.line)
            return values
        rows = [self._row(line, number) for number, line in enumerate(lines, self.line) if _says(line)]
        return np.array([row for row in rows if row is not None], dtype=np.float64).reshape(-1, self.width)

    def _plain(self, lines: list[str]) -> np.ndarray | None:
        plain = [line.replace(",", ".") for line in lines] if self.mark == "," else lines
        separator = None if self.separator == " " else self.separator
        try:
            return np.loadtxt(plain, delimiter=separator, usecols=self.of_numbers, comments="#", quotechar='"', ndmin=2)
        except ValueError:
            return None

    def _row(self, line: str, number: int) -> list[float] | None:
        words = _words(line, self.separator)
        if len(words) == 1 and words[0].isdecimal():  # the count of another scan
            self.counts = True
            return None
        if len(words) < LEAST:
            text = f"{len(words)} in line {number} of {self.path}"
            raise fail(self.where, "points", "x, y and z in each row", text)
        row = [math.nan] * self.width
        for column, word in enumerate(words[: self.width]):
            value = _number(word, self.mark)
            if value is None:
                self.texts.setdefault(column, (line.strip()[:40], number))
            else:
                row[column] = value
        return row
