# SPDX-License-Identifier: Apache-2.0
"""Tables of text in the dialects in which programs write them."""

import pathlib
import tempfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodiff.tasks.clouds import CloudFile, read_cloud_file

# A cloud whose columns cannot be told from each other by what they hold.
POINTS = np.random.default_rng(0).uniform(-50, 50, (25, 3)).round(6)
NORMALS = POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)
COLORS = np.random.default_rng(1).integers(0, 256, (25, 3)).astype(float)
INDEX = np.arange(25.0)[:, None]


def rows(*columns: np.ndarray, separator: str = " ", mark: str = ".", end: str = "\n") -> str:
    lines = (separator.join(f"{x:.17g}".replace(".", mark) for x in row) for row in np.concatenate(columns, 1))
    return "".join(line + end for line in lines)


def read(folder: pathlib.Path, text: str | bytes, name: str = "a.txt", **options: str) -> CloudFile:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_cloud_file(folder / name, **options)


def same(found: CloudFile, points: np.ndarray, normals: np.ndarray | None = None) -> None:
    assert torch.equal(found.points, torch.from_numpy(points))  # all digits were written
    assert (found.normals is None) == (normals is None)
    if normals is not None:
        assert torch.equal(found.normals, torch.from_numpy(normals))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_dialect_comes_back(data: st.DataObject) -> None:
    draw = data.draw
    separator = draw(st.sampled_from([" ", ",", ", ", ";", " ; ", "\t", "|", "   "]))
    mark = "." if "," in separator else draw(st.sampled_from(".,"))
    end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    xyz = draw(st.sampled_from([("x", "y", "z"), ("X", "Y", "Z"), ("X [m]", "Y [m]", "Z [m]"), ("x_coord", "y_coord",
        "z_coord"), ("Points:0", "Points:1", "Points:2"), ("Easting", "Northing", "Elevation")]))  # fmt: skip
    if separator.strip() == "" and separator != "\t" and "[" in xyz[0]:
        xyz = ("x", "y", "z")  # blanks separate
    nxyz = draw(st.sampled_from([None, ("nx", "ny", "nz"), ("Nx", "Ny", "Nz"), ("normal_x", "normal_y", "normal_z")]))
    columns = dict(zip(xyz, POINTS.T, strict=True)) | dict(zip(nxyz or (), NORMALS.T, strict=False))
    for extra in draw(st.lists(st.sampled_from(["id", "Time", "Intensity", "R", "G", "größe"]), unique=True)):
        columns[extra] = draw(st.sampled_from([INDEX[:, 0], COLORS[:, 0], POINTS[:, 0]]))
    order = draw(st.permutations(list(columns)))
    sign = draw(st.sampled_from(["", "#", "# ", "//", '"']))
    names = [f'"{name}"' for name in order] if sign == '"' else order
    heading = ("" if sign == '"' else sign) + separator.join(names) + end
    before = draw(st.sampled_from(["", f"# made by a scanner{end}", end]))
    body = rows(np.stack([columns[name] for name in order], 1), separator=separator, mark=mark, end=end)
    with tempfile.TemporaryDirectory() as folder:
        text = (before + heading + body + draw(st.sampled_from(["", end]))).encode(encoding)
        found = read(pathlib.Path(folder), text, draw(st.sampled_from(["a.csv", "a.TXT", "a.xyz", "a.asc"])))
    same(found, POINTS, NORMALS if nxyz else None)
    assert found.notes == (("Commas were read as decimal marks.",) if mark == "," else ())


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from("0123456789.,;-+eE \t\n#/|xyznaif\"'"), max_size=60))
def test_no_text_gives_anything_but_points_or_our_error(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = read(pathlib.Path(folder), text)
        except ValueError as error:
            assert str(error).startswith("fit_atlas: `points` must be ")
        else:
            assert found.points.shape[1] == 3 and bool(found.points.isfinite().all())


def test_headings_decide(tmp_path: pathlib.Path) -> None:
    same(read(tmp_path, "id,x,y,z\n" + rows(INDEX, POINTS, separator=",")), POINTS)
    same(read(tmp_path, "Time,Intensity,X,Y,Z\n" + rows(INDEX, COLORS[:, :1], POINTS, separator=",")), POINTS)
    same(read(tmp_path, "z,y,x\n" + rows(POINTS[:, ::-1], separator=",")), POINTS)
    same(read(tmp_path, "//X Y Z R G B Nx Ny Nz\n25\n" + rows(POINTS, COLORS, NORMALS)), POINTS, NORMALS)
    same(read(tmp_path, ",x,y,z\n" + rows(INDEX, POINTS, separator=",")), POINTS)  # pandas
    same(read(tmp_path, '"x" "y" "z"\n' + rows(INDEX, POINTS)), POINTS)  # R
    same(read(tmp_path, "FIELDS z x y\nDATA ascii\n" + rows(POINTS[:, [2, 0, 1]])), POINTS)
    named = "".join(f"p{i},{line}\n" for i, line in enumerate(rows(POINTS, separator=",").splitlines()))
    same(read(tmp_path, "name,x,y,z\n" + named), POINTS)


def test_without_headings(tmp_path: pathlib.Path) -> None:
    same(read(tmp_path, rows(POINTS, COLORS)), POINTS)
    found = read(tmp_path, rows(1 + INDEX, POINTS, COLORS))
    same(found, POINTS)
    assert found.notes == ("The first column counts the rows: the next three were read as x, y, z.",)
    same(read(tmp_path, rows(POINTS, COLORS, NORMALS)), POINTS, NORMALS)  # columns 7 to 9
    same(read(tmp_path, rows(POINTS, COLORS[:, :1], NORMALS)), POINTS, NORMALS)
    pure = np.eye(3)[np.arange(25) % 3]
    for colors in (pure, 255 * pure, COLORS / 255):
        found = read(tmp_path, rows(POINTS, colors))
        same(found, POINTS)
        either = colors is pure
        assert found.notes == (
            ("Columns 4 to 6 may be normals or colours, and were left out; --columns tells.",) if either else ()
        )
    same(read(tmp_path, rows(POINTS, pure), "a.xyzrgb"), POINTS)
    same(read(tmp_path, rows(POINTS, pure), "a.xyzn"), POINTS, pure)
    same(read(tmp_path, rows(POINTS, pure), columns="x,y,z,nx,ny,nz"), POINTS, pure)
    same(read(tmp_path, rows(POINTS, -pure)), POINTS, -pure)  # no colour is negative
    octant = np.abs(NORMALS)
    same(read(tmp_path, rows(POINTS, octant)), POINTS, octant)  # no colours are of length 1 throughout
    same(read(tmp_path, rows(POINTS, np.where(pure == 1, 0.96, 0.1))), POINTS)  # and few nearly


def test_decimal_commas(tmp_path: pathlib.Path) -> None:
    found = read(tmp_path, "1,5;2,25;3,0\n1;2;3\n")
    assert found.points.tolist() == [[1.5, 2.25, 3.0], [1, 2, 3]]
    assert found.notes == ("Commas were read as decimal marks.",)
    assert read(tmp_path, "1,5 2,25 3,0\n").points.tolist() == [[1.5, 2.25, 3.0]]
    assert read(tmp_path, "1, 2, 3\n4,5,6\n").points.tolist() == [[1, 2, 3], [4, 5, 6]]
    for text in ("1,05,2,25,3,07\n", "1.234,5;2.345,6;3.456,7\n", "1,5,2,25,3,0\n1,2,5,3\n4,2,5,3\n"):
        with pytest.raises(ValueError, match=rf"`points` must be .*a.txt.* It begins:\n    {text[:8]}"):
            read(tmp_path, text)


def test_counts_titles_remarks_and_gaps(tmp_path: pathlib.Path) -> None:
    same(read(tmp_path, "25\n" + rows(POINTS, COLORS[:, :1]), "a.pts"), POINTS)
    two = "20\n" + rows(POINTS[:20]) + "5\n" + rows(POINTS[20:])
    same(read(tmp_path, two, "a.pts"), POINTS)  # two scans
    assert read(tmp_path, "30\n" + rows(POINTS), "a.pts").notes == ("The file says that it has 30 points, and has 25.",)
    faces = "3 0 1 2\n3 1 2 3\n"
    same(read(tmp_path, "OFF\n25 2 0\n" + rows(POINTS) + faces), POINTS)
    same(read(tmp_path, "Scan of 2024 10 12\n\n" + rows(POINTS)), POINTS)
    same(read(tmp_path, "% one\n! two\n" + rows(POINTS[:9]) + "// three\n\n# four\n" + rows(POINTS[9:])), POINTS)
    found = read(tmp_path, "x,y,z\n1,2,\n,,\n4,NA,6\n7,8,9\nnan,1,1\n")
    assert found.points.tolist() == [[7, 8, 9]]
    assert found.notes == ("4 of 5 points have NaN or infinity, and were dropped.",)
    assert read(tmp_path, "1.5D+01 2e0 -.5\n").points.tolist() == [[15, 2, -0.5]]


def test_unclear_tables_are_shown(tmp_path: pathlib.Path) -> None:
    names = (
        r"Name them: --columns x,y,z,-,r,g,b or columns=…, one word a column, - for what is left out. It begins:\n    "
    )
    cases = {
        "called x, y and z": "lon,lat,h\n" + rows(POINTS, separator=","),
        "one column is called x": "X,Y,Z,X\n" + rows(POINTS, INDEX, separator=","),
        "whose first column is not always larger": rows(0.1 * INDEX + 1e5, POINTS),
        "said to be none": rows(np.arange(4.0)[:, None], POINTS[:4]),
        "first column is a number": "".join(f"C {line}\n" for line in rows(POINTS).splitlines()),
    }
    for text, table in cases.items():
        with pytest.raises(ValueError, match=f"fit_atlas: `points` must be a table .*{text}.*{names}"):
            read(tmp_path, table)
    same(read(tmp_path, cases["first column is a number"], columns=["-", "x", "y", "z"]), POINTS)
    same(read(tmp_path, cases["called x, y and z"], columns="z,y,x"), POINTS[:, ::-1].copy())
    with pytest.raises(ValueError, match=r"rows of at least three numbers; got \S*a.txt. It begins:\n    hello"):
        read(tmp_path, "hello\nworld\n")
    with pytest.raises(ValueError, match=r"rows have one length; got \S*a.txt. It begins:\n    1 2 3\n"):
        read(tmp_path, "1 2 3\n4 5 6 7\n8 9 10\n4 5 6 7\n")
    with pytest.raises(ValueError, match=r"a readable file; got \S*a.txt \(it is no text\)"):
        read(tmp_path, b"1 2 3\0\0\1")
    with pytest.raises(ValueError, match="rows of numbers; got '7 8 nine' in line 3"):
        read(tmp_path, "1 2 3\n4 5 6\n7 8 nine\n")


def test_bad_columns(tmp_path: pathlib.Path) -> None:
    for columns, text in {
        "x,y,z": r"4 words, as \S*a.txt has columns; got 3: x,y,z. One word a column",
        "x,y,z,x": "with x, y, z, each once, and nx, ny, nz or none of these; got x,y,z,x",
        "x,y,z,nx": "with x.*nx, ny, nz or none of these",
    }.items():
        with pytest.raises(ValueError, match=f"fit_atlas: `columns` must be {text}"):
            read(tmp_path, rows(POINTS, INDEX), columns=columns)
    with pytest.raises(TypeError, match="`columns` must be words, such as x,y,z,-,r,g,b; got 3"):
        read_cloud_file(tmp_path / "a.txt", columns=3)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_large_table_is_read_fast(tmp_path: pathlib.Path) -> None:
    points = np.random.default_rng(0).normal(size=(300_000, 3))
    np.savetxt(tmp_path / "a.csv", points, delimiter=",", header="x,y,z", comments="")
    same(read_cloud_file(tmp_path / "a.csv"), np.loadtxt(tmp_path / "a.csv", delimiter=",", skiprows=1))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators_and_decimal_commas_within_quotes(tmp_path: pathlib.Path, separator: str) -> None:
    quoted = "".join(separator.join(f'"{x:.6f}"'.replace(".", ",") for x in row) + "\n" for row in POINTS)
    for heading in ("", f'"x"{separator}"y"{separator}"z"\n'):
        found = read(tmp_path, heading + quoted, "a.csv")
        same(found, POINTS)
        assert found.notes == ("Commas were read as decimal marks.",)
    text = f'"name{separator} of it"{separator}x{separator}y{separator}z\n'
    text += "".join(f'"a{separator} b"{separator}{line}\n' for line in rows(POINTS, separator=separator).splitlines())
    same(read(tmp_path, text, "a.csv"), POINTS)
    with pytest.raises(ValueError, match=r"rows of at least three numbers.*\n.*1,234\.5"):
        read(tmp_path, '"1,234.5","2,345.6","1.0"\n' * 9, "a.csv")


@pytest.mark.parametrize("name", ["x,y,z,label", "id,x,y,z,label"])
def test_a_last_column_without_anything(tmp_path: pathlib.Path, name: str) -> None:
    columns = [np.random.default_rng(2).random((25, 1))] if name.startswith("id") else []
    same(read(tmp_path, name + "\n" + rows(*columns, POINTS, separator=",", end=",\n"), "a.csv"), POINTS)


def test_columns_without_anything_are_passed_over(tmp_path: pathlib.Path) -> None:
    lines = rows(POINTS, NORMALS, separator="\t").splitlines()
    same(read(tmp_path, "".join(f"\t{line}\n" for line in lines)), POINTS, NORMALS)
    same(read(tmp_path, "".join(line.replace("\t", "\t\t") + "\n" for line in lines)), POINTS, NORMALS)
