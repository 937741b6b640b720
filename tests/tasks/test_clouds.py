# SPDX-License-Identifier: Apache-2.0
"""Clouds from files, with their normals, and back."""

import pathlib
import sys

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.tasks.clouds import read_cloud_file, write_ply

# Numbers are written with all their digits.
EXACT = {"rtol": 0, "atol": 0}


@pytest.fixture
def cloud() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    points, normals = torch.randn(2, 20, 3, generator=generator, dtype=torch.float64)
    return 1e6 + points, torch.nn.functional.normalize(normals, dim=1)


def text(*columns: torch.Tensor, separator: str = " ") -> str:
    return "\n".join(separator.join(f"{x:.17g}" for x in row) for row in torch.cat(columns, 1).tolist()) + "\n"


def test_normals_come_along(tmp_path: pathlib.Path, cloud: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, normals = cloud
    (tmp_path / "a.xyz").write_text("# of a scanner\n" + text(points, normals))
    (tmp_path / "b.csv").write_text("x,y,z,nx,ny,nz\n" + text(points, 7 * normals, separator=","))
    (tmp_path / "c.txt").write_text(text(points, normals, normals, separator=" ; "))
    np.save(tmp_path / "d.npy", torch.cat((points, normals), 1).numpy())
    np.savez(tmp_path / "e.npz", points=points.numpy(), normals=normals.numpy(), spacing=1.0)
    lines = [f"v {p}\nvn {n}" for p, n in zip(text(points).splitlines(), text(normals).splitlines(), strict=True)]
    (tmp_path / "f.obj").write_text("\n".join(lines))
    names = ("x", "y", "z", "nx", "ny", "nz")
    write_ply(tmp_path / "g.ply", dict(zip(names, torch.cat((points, normals), 1).T, strict=True)))
    others = {"x": points[:, 0], "y": points[:, 1], "z": points[:, 2]}
    for file, trio in (("h", ("normal_x", "normal_y", "normal_z")), ("i", ("scalar_nx", "scalar_ny", "scalar_nz"))):
        write_ply(tmp_path / f"{file}.ply", {**others, **dict(zip(trio, normals.T, strict=True))})
    for path in sorted(tmp_path.iterdir()):
        read = read_cloud_file(path)
        torch.testing.assert_close(read.points, points, **EXACT, msg=path.name)
        assert read.normals is not None, path.name
        torch.testing.assert_close(read.normals, normals * (7 if path.name == "b.csv" else 1), rtol=1e-15, atol=0)


def test_clouds_without_normals(tmp_path: pathlib.Path, cloud: tuple[torch.Tensor, torch.Tensor]) -> None:
    points, normals = cloud
    colors = 255 * normals.abs()
    (tmp_path / "a.xyz").write_text(text(points))
    (tmp_path / "b.xyz").write_text(text(points, colors))
    (tmp_path / "c.csv").write_text("x,y,z,r,g,b\n" + text(points, normals, separator=","))
    (tmp_path / "d.csv").write_text("x,y,z,intensity\n" + text(points, colors[:, :1], separator=","))
    (tmp_path / "e.obj").write_text("".join(f"v {row}\n" for row in text(points).splitlines()))
    write_ply(tmp_path / "f.ply", {"x": points[:, 0], "y": points[:, 1], "z": points[:, 2], "nx": points[:, 0]})
    for path in sorted(tmp_path.iterdir()):
        read = read_cloud_file(path)
        torch.testing.assert_close(read.points, points, **EXACT, msg=path.name)
        assert read.normals is None, path.name


def test_normals_of_faces(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.obj").write_text(
        "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 9 9 9\nvn 0 0 1\nvn 0 1 0\nf 1//1 2//1 3//2\nf -4/1/-2 -3//1 -2//1\n"
    )
    read = read_cloud_file(tmp_path / "a.obj")
    expected = torch.tensor([[0, 0, 1], [0, 0, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)
    assert read.normals is not None and torch.equal(read.normals, expected)  # the last is in no face
    gd.icosphere(1).save(tmp_path / "ball.ply")
    assert len(read_cloud_file(tmp_path / "ball.ply").points) == gd.icosphere(1).num_vertices


def test_las(tmp_path: pathlib.Path, cloud: tuple[torch.Tensor, torch.Tensor]) -> None:
    laspy = pytest.importorskip("laspy")
    points, normals = cloud
    header = laspy.LasHeader(point_format=3, version="1.2")
    header.offsets, header.scales = points.numpy().min(0), np.full(3, 1e-4)
    las = laspy.LasData(header)
    las.x, las.y, las.z = points.numpy().T
    las.write(str(tmp_path / "a.las"))
    read = read_cloud_file(tmp_path / "a.las")
    torch.testing.assert_close(read.points, points, rtol=0, atol=1e-4)  # the file's resolution
    assert read.normals is None
    for name, column in zip(("NormalX", "NormalY", "NormalZ"), normals.numpy().T, strict=True):
        las.add_extra_dim(laspy.ExtraBytesParams(name, "f8"))
        las[name] = column
    las.write(str(tmp_path / "b.las"))
    again = read_cloud_file(tmp_path / "b.las").normals
    assert again is not None
    torch.testing.assert_close(again, normals, **EXACT)
    if laspy.LazBackend.detect_available():
        las.write(str(tmp_path / "c.laz"))
        torch.testing.assert_close(read_cloud_file(tmp_path / "c.laz").points, read.points, **EXACT)
    (tmp_path / "bad.las").write_bytes(b"not at all")
    with pytest.raises(ValueError, match="`points` must be a readable file"):
        read_cloud_file(tmp_path / "bad.las")


def test_noise_in_las_is_left_out_and_said(tmp_path: pathlib.Path) -> None:
    laspy = pytest.importorskip("laspy")
    for kind in (3, 6):
        las = laspy.LasData(laspy.LasHeader(point_format=kind, version="1.4"))
        las.x, las.y, las.z = np.arange(60.0).reshape(3, 20)
        las.classification = [2] * 12 + [7] * 3 + [18] * 2 + [1] * 3
        las.withheld = [1] + [0] * 12 + [1] + [0] * 6  # one of them is noise as well
        las.write(str(tmp_path / "a.las"))
        read = read_cloud_file(tmp_path / "a.las")
        assert read.points[:, 0].tolist() == [*range(1, 12), 17, 18, 19]
        assert read.notes == (
            "Left out: 5 points of noise (classes 7 and 18) and 1 points that are withheld; "
            "--noise-classes keeps them.",
        )
        everything = read_cloud_file(tmp_path / "a.las", noise_classes=True)
        assert len(everything.points) == 20 and everything.notes == ()


def test_points_that_are_not_finite_are_dropped_and_counted(tmp_path: pathlib.Path) -> None:
    points, normals = torch.rand(2, 30, 3, dtype=torch.float64) - 0.5
    normals = torch.nn.functional.normalize(normals, dim=1)
    points[4, 1], points[0, 0], normals[7, 2] = torch.nan, torch.inf, torch.nan
    both = torch.cat([points, normals], 1)
    np.savetxt(tmp_path / "a.txt", both.numpy(), fmt="%.17g")
    np.save(tmp_path / "b.npy", both.numpy())
    write_ply(tmp_path / "c.ply", dict(zip(("x", "y", "z", "nx", "ny", "nz"), both.T, strict=True)))
    keep = [i for i in range(30) if i not in (0, 4)]
    for path in sorted(tmp_path.iterdir()):
        read = read_cloud_file(path)
        assert torch.equal(read.points, points[keep]), path.name
        assert read.normals is not None and read.normals[5].tolist() == [0, 0, 0]  # to be estimated
        assert torch.equal(read.normals[6:], normals[keep][6:])
        assert read.notes == ("2 of 30 points have NaN or infinity, and were dropped.",), path.name
    np.save(tmp_path / "d.npy", np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match=r"finite somewhere; got .*d.npy, whose 5 points all have NaN or infinity"):
        read_cloud_file(tmp_path / "d.npy")


def test_colors_in_arrays_are_no_normals(tmp_path: pathlib.Path) -> None:
    points = torch.rand(30, 3, dtype=torch.float64)
    np.save(tmp_path / "a.npy", torch.cat([points, 255 * points], 1).numpy())
    read = read_cloud_file(tmp_path / "a.npy")
    assert read.normals is None and read.notes == ("Columns 4 to 6 are no normals, and were left out.",)
    told = read_cloud_file(tmp_path / "a.npy", columns="x,y,z,nx,ny,nz").normals
    assert told is not None and torch.equal(told, 255 * points)
    write_ply(tmp_path / "a.ply", {"x": points[:, 0], "y": points[:, 1], "z": points[:, 2]})
    with pytest.raises(ValueError, match=r"`columns` must be left out for .ply files, whose numbers have names"):
        read_cloud_file(tmp_path / "a.ply", columns="x,y,z")


def test_las_without_laspy(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.las").write_bytes(b"LASF")
    monkeypatch.setitem(sys.modules, "laspy", None)
    with pytest.raises(ImportError, match=r"laspy is not installed. pip install \"geodiff\[las\]\", or convert"):
        read_cloud_file(tmp_path / "a.las")


def test_laz_without_what_unpacks_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    laspy = pytest.importorskip("laspy")

    def refuse(path: str) -> None:
        raise laspy.errors.LaspyException("No LazBackend selected, cannot decompress data")

    monkeypatch.setattr(laspy, "open", refuse)
    (tmp_path / "a.laz").write_bytes(b"LASF")
    with pytest.raises(ImportError, match=r"nothing is installed that unpacks it. pip install \"geodiff\[las\]\""):
        read_cloud_file(tmp_path / "a.laz", trusted=True)


def test_bad_files(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="fit_atlas: `points` must be a file that exists"):
        read_cloud_file(tmp_path / "none.ply")
    with pytest.raises(ValueError, match="Did you mean 'las'"):
        read_cloud_file(tmp_path / "a.lass")
    for ending in ("npy", "npz", "ply"):
        (tmp_path / f"bad.{ending}").write_bytes(b"not at all")
        with pytest.raises(ValueError, match="`points` must be a readable file"):
            read_cloud_file(tmp_path / f"bad.{ending}")
    head = (
        "ply\nformat ascii 1.0\nelement vertex {}\nproperty float x\nproperty float y\nproperty float z\nend_header\n"
    )
    says = {
        10**12: r"as long as its header says; got \S*bad.ply",
        3: r"a whole PLY file; got \S*bad.ply",
        -1: "bad.ply",
    }
    for count, text in says.items():  # of two
        (tmp_path / "bad.ply").write_text(head.format(count) + "0 0 0\n1 0 0\n")
        with pytest.raises(ValueError, match=text):
            read_cloud_file(tmp_path / "bad.ply")
    np.save(tmp_path / "long.npy", np.zeros((2, 3)))
    content = (tmp_path / "long.npy").read_bytes()
    (tmp_path / "long.npy").write_bytes(content.replace(b"(2, 3), }          ", b"(999999999999, 3),}"))
    with pytest.raises(ValueError, match=r"long.npy \(long.npy is too short for its shape \(9+, 3\)\)"):
        read_cloud_file(tmp_path / "long.npy")
    (tmp_path / "bad.obj").write_text("v 1 2 x\n")
    with pytest.raises(ValueError, match=r"must be a readable file; got .*bad.obj \(could not convert"):
        read_cloud_file(tmp_path / "bad.obj")
    for name, content in (("a.xyz", "# nothing\n"), ("b.obj", ""), ("c.csv", "")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ValueError, match=r"`points` must be some points; got .*, which holds none"):
            read_cloud_file(tmp_path / name)
    np.save(tmp_path / "flat.npy", np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"of shape \(N, 3\), or \(N, 6\) with normals; got .*flat.npy with \(5, 2\)"):
        read_cloud_file(tmp_path / "flat.npy")
    np.savez(tmp_path / "few.npz", points=np.zeros((5, 3)), normals=np.zeros((4, 3)))
    with pytest.raises(ValueError, match=r"`normals` must be of shape \(5, 3\), one a point"):
        read_cloud_file(tmp_path / "few.npz")
    np.save(tmp_path / "words.npy", np.array([["a", "b", "c"]]))
    with pytest.raises(ValueError, match="`points` must be real numbers"):
        read_cloud_file(tmp_path / "words.npy")
