# SPDX-License-Identifier: Apache-2.0
"""Damaged 3dm, IGES and STEP files: named, even where the library would read round the damage."""

import pathlib
from collections.abc import Callable

import pytest

from geodiff.splines.files import save_splines
from tests.splines.splines import ENDINGS, assert_same, load_here, make, needs


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("keep", [0.0, 0.4, 0.8, -300])
def test_truncated_files_are_named(tmp_path: pathlib.Path, ending: str, keep: float) -> None:
    needs(ending)
    path = tmp_path / f"broken.{ending}"
    save_splines(path, [make((6,), (2,), 3, True), make((5, 6), (3, 2), 3, True)])
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if keep >= 0 else int(keep)])
    with pytest.raises(ValueError, match=rf"a sound file; got .*broken.{ending} \(.*Is the file damaged"):
        load_here(path, unsupported="skip")


# What Open CASCADE reads round without a word, or with no more than one on the terminal.
DAMAGE = {
    "no number": ("(4,1,1,4),(-1.5000000000000000E+00", "(4,1,1,4),(NaN", r"entity \d+, BSpline.*: Parameter n0"),
    "knots decrease": ("(4,1,1,4),(-1.5000000000000000E+00", "(4,1,1,4),(9.", r"entity \d+, BSpline.*: its knots"),
    "degree": ("B_SPLINE_CURVE_WITH_KNOTS('',3", "B_SPLINE_CURVE_WITH_KNOTS('',2", r"entity \d+, BSpline.*: its knots"),
    "a point less": ("#18,", "", r"entity \d+, BSpline.*: its knots are out of order, or do not fit its control"),
    "a point missing": ("#18,", "#99918,", r"entity \d+, BSpline.*: Parameter n0.1 "),
    "degree of a surface": ("B_SPLINE_SURFACE(2,2", "B_SPLINE_SURFACE(1,2", r"entity \d+, BSplineSurface.*: its knots"),
}


@pytest.mark.parametrize("old, new, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_step_is_named(tmp_path: pathlib.Path, old: str, new: str, message: str) -> None:
    needs("step")
    path = tmp_path / "broken.step"
    save_splines(path, [make((6,), (3,)), make((4, 5), (2, 2), 3, True)])
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=r"a sound file; got .*broken.step \(" + message):
        load_here(path, unsupported="skip")


@pytest.mark.parametrize("word", ["NaN", "abc", "1E", "-"])
def test_iges_with_something_that_is_no_number(tmp_path: pathlib.Path, word: str) -> None:
    needs("igs")
    path = tmp_path / "broken.igs"
    splines = [make((6,), (3,)), make((4, 5), (2, 2), 3, True)]
    save_splines(path, splines)
    text = path.read_text()
    low = "-1.5000000000000000E+00"
    for spline, entity in zip(splines, ("126 of directory entry 1", "128 of directory entry 3"), strict=True):
        some = f"{float(spline.control_points.flatten()[4]):.16E}"
        for old in (low, some):  # a knot, a coordinate
            start = text.index(old, text.index(f"{entity[:3]},"))
            path.write_text(text[:start] + word.rjust(len(old)) + text[start + len(old) :])
            with pytest.raises(ValueError, match=rf"broken.igs \(IGES {entity}: '{word}' is no number\)"):
                load_here(path, unsupported="skip")


def test_iges_with_other_delimiters(tmp_path: pathlib.Path) -> None:
    needs("igs")
    path, spline = tmp_path / "a.igs", make((6,), (3,))
    save_splines(path, spline)
    lines = path.read_text().splitlines()
    swap = str.maketrans(",;", "/!")
    header = "".join(line[:72] for line in lines if line[72] == "G")
    header = "1H//1H!/" + header.removeprefix(",,").translate(swap)
    for i, line in enumerate(lines):
        if line[72] == "G":
            lines[i], header = header[:72].ljust(72) + line[72:], header[72:]
        elif line[72] == "P":
            lines[i] = line[:64].translate(swap) + line[64:]
    assert not header.strip()
    path.write_text("\n".join(lines) + "\n")
    (back,) = load_here(path)
    assert_same(back, spline)


def test_iges_with_other_knots_than_it_says(tmp_path: pathlib.Path) -> None:
    needs("igs")
    path = tmp_path / "broken.igs"
    save_splines(path, make((6,), (3,)))
    text = path.read_text()
    low, high = "-1.5000000000000000E+00", "2.0000000000000000E+00"
    for changed, message in (
        (text.replace(low, " 9.5000000000000000E+00", 1), "NURBSCurve: `knots` must be non-decreasing"),
        (text.replace(high, "1.5000000000000000E+00", 4), "its knots and its parameter range do not go together"),
    ):
        path.write_text(changed)
        with pytest.raises(ValueError, match=rf"broken.igs \(root 1, IGES 126 \(BSplineCurve\): {message}"):
            load_here(path)


Lines = list[str]


def section(lines: Lines, letter: str) -> int:
    return next(i for i, line in enumerate(lines) if line[72] == letter)


def dropped(lines: Lines, letter: str, offset: int) -> Lines:
    at = section(lines, letter) + offset
    return lines[:at] + lines[at + 1 :]


def moved(lines: Lines, letter: str, offset: int) -> Lines:
    at = section(lines, letter) + offset
    return [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]]


def written(lines: Lines, letter: str, offset: int, column: int, text: str) -> Lines:
    at = section(lines, letter) + offset
    lines = list(lines)
    lines[at] = lines[at][:column] + text + lines[at][column + len(text) :]
    return lines


def numbered(lines: Lines) -> Lines:
    counts: dict[str, int] = {}
    for i, line in enumerate(lines):
        counts[line[72]] = counts.get(line[72], 0) + 1
        lines[i] = line[:73] + f"{counts[line[72]]:7d}"
    return lines


CONTRADICTIONS: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "a line less": (lambda some: dropped(some, "P", 5), "directory entry 1 has parameters in lines 1 to"),
    "the same, numbered": (
        lambda some: numbered(dropped(some, "P", 5)),
        "directory entry 1 has parameters in lines 1 to",
    ),
    "lines swapped": (lambda some: moved(some, "P", 5), "line 6 of section P is not in its order"),
    "half an entry": (lambda some: dropped(some, "D", 1), "its directory has half an entry"),
    "an entry less": (lambda some: dropped(dropped(some, "D", 0), "D", 0), "directory entry 1 has parameters in lines"),
    "another kind": (
        lambda some: written(some, "D", 0, 0, "     128"),
        "directory entry 1 is of kind 128 in one line and of another",
    ),
    "another kind twice": (
        lambda some: written(written(some, "D", 0, 0, "     128"), "D", 1, 0, "     128"),
        "directory entry 1 is of kind 128, and its parameters are not",
    ),
    "too few lines": (lambda some: written(some, "D", 3, 24, "       1"), r"\d+ lines of parameters belong to no"),
    "no number": (lambda some: written(some, "D", 0, 8, "     1x1"), "directory entry 1 has '1x1' for a whole number"),
    "fewer points": (lambda some: written(some, "P", 0, 0, "126,4"), "IGES 126 of directory entry 1: it has .* beyond"),
}


@pytest.mark.parametrize("change, message", CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_iges_that_contradicts_itself(tmp_path: pathlib.Path, change: Callable[[Lines], Lines], message: str) -> None:
    """Open CASCADE reads most of these, as other curves."""
    needs("igs")
    path = tmp_path / "broken.igs"
    save_splines(path, [make((6,), (3,)), make((4, 5), (2, 2), 3, True)])
    path.write_text("\n".join(change(path.read_text().splitlines())) + "\n")
    with pytest.raises(ValueError, match=rf"a sound file; got .*broken.igs \({message}"):
        load_here(path)


def test_iges_whose_lines_are_counted_wrong(tmp_path: pathlib.Path) -> None:
    """Programs may do so, so it is a warning."""
    needs("igs")
    path, spline = tmp_path / "odd.igs", make((6,), (3,))
    save_splines(path, spline)
    lines = path.read_text().splitlines()
    for changed, message in (
        (written(lines, "T", 0, 8, "G      9"), "section G has 4 lines and should have 9: is the file damaged"),
        (written(lines, "S", 0, 73, "      7"), "line 1 of section S has the number '7': is the file damaged"),
    ):
        path.write_text("\n".join(changed) + "\n")
        with pytest.warns(UserWarning, match=message):
            (back,) = load_here(path)
        assert_same(back, spline)
