# SPDX-License-Identifier: Apache-2.0
"""Damage small files of meshes, clouds and images: each must load, or be refused by an error that names a file.

Run by hand: ``python -m tests.fuzz_files --seed 0 --count 2000 [--kind glb]``. Case i of a seed is the same in every
run; what fails is kept beside the message.
"""

import argparse
import json
import pathlib
import random
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

import geodiff as gd
from geodiff.scene.images import read_image, write_image
from tests.camera_files import matrix_json, matrix_xml, matrix_yaml, write_colmap
from tests.damage import damage
from tests.gltf_files import File

Load = Callable[[pathlib.Path], object]
_TOKENS = [b"-1", b"0", b"1e400", b"nan", b"999999999999999999999", b"1000000000000", b"[]", b"{}", b"null", b'"x"']
_TOKENS += [b"../../x", b"a" * 300, b"/", b"\0", b"\xff\xfe", b"1.5", b"-7", b"true", b"", b" ", b"\n"]
_WORD = re.compile(rb"[^\s,:\[\]{}/]+")


def load_mesh(path: pathlib.Path) -> object:
    mesh = gd.Mesh.load(path)
    assert torch.isfinite(mesh.vertices).all() and mesh.num_faces > 0
    return mesh


def load_image(path: pathlib.Path) -> object:
    image = read_image(path, "read_image")
    assert image.dim() == 3 and image.shape[-1] in (1, 3, 4) and torch.isfinite(image).all()
    return image


def load_cloud(path: pathlib.Path) -> object:
    from geodiff.tasks.clouds import read_cloud_file

    cloud = read_cloud_file(path)
    assert cloud.points.dim() == 2 and cloud.points.shape[1] == 3
    return cloud


def load_posed(path: pathlib.Path) -> object:
    return gd.PosedImages.load(path)


# --- whole files ----------------------------------------------------------------------------------------------------


def _textured() -> gd.Mesh:
    mesh = gd.box()
    uv = torch.rand(8, 2, generator=torch.Generator().manual_seed(0))
    return gd.Mesh(mesh.vertices, mesh.faces, uv=uv, texture=torch.rand(3, 4, 3), material=gd.Material(diffuse=0.5))


def _obj(folder: pathlib.Path) -> pathlib.Path:
    write_image(folder / "one.png", torch.rand(2, 3, 3))
    write_image(folder / "two.png", torch.rand(3, 2, 4))
    (folder / "a.mtl").write_text(
        "newmtl red\nKd 1 0 0\nKa 1 1 1\nKs .5 .5 .5\nNs 20\nd 1.0\nnewmtl one\nmap_Kd -s 2 2 1 -clamp on one.png\n"
        "newmtl two\nKd .5 .5 .5\nmap_Kd two.png\n"
    )
    (folder / "a.obj").write_text(
        "mtllib a.mtl\nv 0 0 0\nv 2 0 0\nv 2 2 0 \nv 1 .5 0\nv 0 2 0\nvt 0 0\nvt 2 0\nvt 1 1\nvt 0 -1\nvn 0 0 1\n"
        "usemtl red\nf 1 2 3 4 5\nusemtl one\nf 1/1/1 2/2/1 3/3/1\nusemtl two\nf -1/-1 -2/-2 -3/-3\nf 1/1 2/2 3/3 4/4\n"
    )
    return folder / "a.obj"


def _ply_text(folder: pathlib.Path) -> pathlib.Path:
    write_image(folder / "t.png", torch.rand(2, 2, 3))
    text = "ply\nformat ascii 1.0\ncomment TextureFile t.png\nelement vertex 4\nproperty float x\nproperty float y\n"
    text += "property double z\nproperty uchar diffuse_red\nproperty uchar diffuse_green\nproperty uchar diffuse_blue\n"
    text += "element face 2\nproperty list uchar int vertex_indices\nproperty list uchar float texcoord\nend_header\n"
    text += "0 0 0 255 0 0\n1 0 0 1 2 3\n1 1 0 9 9 9\n0 1 0 8 8 8\n"
    text += "3 0 1 2 6 0 0 1 0 1 1\n4 0 1 2 3 8 0 0 1 0 1 1 0 1\n"
    (folder / "a.ply").write_text(text)
    return folder / "a.ply"


def _ply_strips(folder: pathlib.Path) -> pathlib.Path:
    head = (
        b"ply\nformat binary_big_endian 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    )
    head += b"element face 2\nproperty list uchar uint vertex_indices\nproperty uchar red\nproperty uchar green\n"
    head += b"property uchar blue\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [2, 2, 1]], ">f4").tobytes()
    faces = b"\x03" + np.array([0, 1, 2], ">u4").tobytes() + b"\1\2\3"
    faces += b"\x04" + np.array([0, 1, 3, 2], ">u4").tobytes() + b"\4\5\6"
    strip = np.array([8, 0, 1, 2, 3, -1, 2, 3, 4], ">i4").tobytes()
    (folder / "a.ply").write_bytes(head + points + faces + strip)
    return folder / "a.ply"


def _saved(name: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def make(folder: pathlib.Path) -> pathlib.Path:
        mesh = _textured() if name.endswith(("glb", "obj")) else gd.box()
        mesh.save(folder / name)
        return folder / name

    return make


def _stl_text(folder: pathlib.Path) -> pathlib.Path:
    facet = "facet normal 0 0 1\n outer loop\n  vertex 0 0 0\n  vertex 1 0 0\n  vertex 0 1 0\n endloop\nendfacet\n"
    (folder / "a.stl").write_text(f"solid a\n{facet * 3}endsolid a\n")
    return folder / "a.stl"


def _off(folder: pathlib.Path) -> pathlib.Path:
    (folder / "a.off").write_text("COFF\n4 2 0\n0 0 0 255 0 0 255\n1 0 0 9 9 9 255\n1 1 0 9 9 9 255\n0 1 0 1 2 3 4\n"
                                  "4 0 1 2 3 1 0 0\n3 0 1 2 0 0 1\n")  # fmt: skip
    return folder / "a.off"


def gltf_file() -> File:
    """Return a file with much of what there is: hierarchy, instances, skin, morphs, sparse, strips, two textures."""
    file = File()
    images = [file.image(np.arange(12 * (k + 1)).reshape(2, -1, 3)) for k in (0, 1)]
    samplers = [file.add("samplers", wrapS=33071, wrapT=10497, minFilter=9728), file.add("samplers", wrapS=33648)]
    textures = [file.add("textures", source=i, sampler=s) for i, s in zip(images, samplers, strict=True)]
    transform = {"KHR_texture_transform": {"offset": [0.1, 0], "rotation": 0.3, "scale": [2, 1]}}
    materials = [
        file.add("materials", pbrMetallicRoughness={"baseColorTexture": {"index": 0, "extensions": transform}}),
        file.add(
            "materials",
            pbrMetallicRoughness={"baseColorFactor": [1, 0.5, 0, 1], "baseColorTexture": {"index": textures[1]}},
        ),
        file.add("materials", pbrMetallicRoughness={"baseColorFactor": [0, 0, 1, 1], "metallicFactor": 0}),
    ]
    morph = file.accessor([[0, 0, 1]] * 4)
    square = file.square(material=materials[0], targets=[{"POSITION": morph}])
    file.tree["nodes"] = []
    root = file.add("nodes", rotation=[0, 0, 0.6, 0.8], children=[1, 2, 3, 4])
    mesh = file.add("meshes", primitives=[square, file.square(material=materials[1])], weights=[0.5])
    file.add("nodes", mesh=mesh, scale=[-1, 1, 1])
    places = {"TRANSLATION": file.accessor([[0, 0, 0], [1, 0, 0]]), "SCALE": file.accessor([[1, 1, 1], [2, 2, 2]])}
    colors = file.accessor([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 128]], "uint8", normalized=True)
    instanced = file.add("meshes", primitives=[file.triangle(material=materials[2], attributes={"COLOR_0": colors})])
    file.add("nodes", mesh=instanced, extensions={"EXT_mesh_gpu_instancing": {"attributes": places}})
    joints = {"JOINTS_0": file.accessor([[0, 0, 0, 0]] * 3, "uint8"), "WEIGHTS_0": file.accessor([[1, 0, 0, 0]] * 3)}
    skinned = file.add("meshes", primitives=[file.triangle(attributes=joints)])
    file.tree["skins"] = [{"joints": [root], "inverseBindMatrices": file.accessor([np.eye(4).reshape(-1)])}]
    file.add("nodes", mesh=skinned, skin=0)
    sparse = {
        "count": 1,
        "indices": {"bufferView": file.view(np.array([1], "u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(np.array([5, 0, 0], "f4").tobytes())},
    }
    strip = file.triangle(mode=5)
    file.tree["accessors"][strip["attributes"]["POSITION"]]["sparse"] = sparse
    file.add("nodes", mesh=file.add("meshes", primitives=[strip]), matrix=np.eye(4).reshape(-1).tolist())
    file.tree |= {"scene": 0, "scenes": [{"nodes": [root]}]}
    return file


def _gltf(folder: pathlib.Path) -> pathlib.Path:
    return gltf_file().write(folder / "a.gltf", external=True)


def _glb(folder: pathlib.Path) -> pathlib.Path:
    return gltf_file().write(folder / "a.glb")


def _image(ending: str, **options: object) -> Callable[[pathlib.Path], pathlib.Path]:
    def make(folder: pathlib.Path) -> pathlib.Path:
        pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"a.{ending}", **options)  # type: ignore[arg-type]
        return folder / f"a.{ending}"

    return make


def _float_tiff(folder: pathlib.Path) -> pathlib.Path:
    import tifffile

    pixels = np.random.default_rng(0).random((5, 6, 3)).astype(np.float32)
    tifffile.imwrite(folder / "a.tif", pixels, photometric="rgb")
    return folder / "a.tif"


def _posed(folder: pathlib.Path) -> pathlib.Path:
    rgba = torch.rand(2, 6, 8, 4, generator=torch.Generator().manual_seed(0))
    return gd.PosedImages(rgba, cameras=gd.Camera.orbit(3.0, 20, [0.0, 50.0])).save(folder, alpha_bits=16)


def _colmap(binary: bool) -> Callable[[pathlib.Path], pathlib.Path]:
    def make(folder: pathlib.Path) -> pathlib.Path:
        cameras = {
            1: ("OPENCV", (6, 8), (9.0, 8.0, 4.0, 3.0, -0.1, 0.02, 0.001, 0.0)),
            5: ("PINHOLE", (6, 8), (9, 9, 4, 3)),
        }
        images = [((0.6, 0.8, 0, 0), (0, 0, 3), c, f"{c}.png", [(1.0, 2.0, -1)] * (c - 1)) for c in cameras]
        for _, _, _, name, _ in images:
            write_image(folder / name, torch.rand(6, 8, 4))
        return write_colmap(folder, cameras, images, binary=binary) / f"images.{'bin' if binary else 'txt'}"

    return make


def _calibration(ending: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def make(folder: pathlib.Path) -> pathlib.Path:
        for name in "ab":
            write_image(folder / f"{name}.png", torch.rand(6, 8, 4))
        K = np.array([[9.0, 0, 3.5], [0, 9, 2.5], [0, 0, 1]])
        extrinsic = np.array([[0.1, 0.2, 0, 0, 0, 3], [0, 0, 0.3, 0, 0.1, 2]])
        parts = {"camera_matrix": K, "dist_coeffs": np.array([-0.1, 0, 0, 0.01]), "extrinsic_parameters": extrinsic}
        if ending == "json":
            text = json.dumps({name: matrix_json(value) for name, value in parts.items()})
        else:
            text = "".join((matrix_xml if ending == "xml" else matrix_yaml)(*part) for part in parts.items())
            text = f"<?xml version='1.0'?>\n<opencv_storage>{text}</opencv_storage>" if ending == "xml" else text
            text = text if ending == "xml" else f"%YAML:1.0\n---\n{text}image_names: [ a.png,\n   b.png ]\nflags: 3\n"
        (folder / f"c.{ending}").write_text(text)
        return folder / f"c.{ending}"

    return make


def _cloud(ending: str) -> Callable[[pathlib.Path], pathlib.Path]:
    def make(folder: pathlib.Path) -> pathlib.Path:
        path = folder / f"a.{ending}"
        rows = np.random.default_rng(0).normal(size=(20, 6))
        if ending == "npy":
            np.save(path, rows)
        elif ending == "npz":
            np.savez_compressed(path, points=rows[:, :3], normals=rows[:, 3:])
        elif ending == "ply":
            from geodiff.tasks.clouds import write_ply

            names = ("x", "y", "z", "nx", "ny", "nz")
            write_ply(path, {name: torch.from_numpy(rows[:, i]) for i, name in enumerate(names)})
        else:
            path.write_text("x,y,z,nx,ny,nz\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
        return path

    return make


KINDS: dict[str, tuple[Callable[[pathlib.Path], pathlib.Path], Load]] = {
    "obj": (_obj, load_mesh),
    "ply-ascii": (_ply_text, load_mesh),
    "ply-strips": (_ply_strips, load_mesh),
    "ply-binary": (_saved("b.ply"), load_mesh),
    "stl-ascii": (_stl_text, load_mesh),
    "stl-binary": (_saved("b.stl"), load_mesh),
    "off": (_off, load_mesh),
    "gltf": (_gltf, load_mesh),
    "glb": (_glb, load_mesh),
    "glb-ours": (_saved("b.glb"), load_mesh),
    "cloud-npy": (_cloud("npy"), load_cloud),
    "cloud-npz": (_cloud("npz"), load_cloud),
    "cloud-ply": (_cloud("ply"), load_cloud),
    "cloud-csv": (_cloud("csv"), load_cloud),
    "png": (_image("png"), load_image),
    "jpg": (_image("jpg"), load_image),
    "webp": (_image("webp"), load_image),
    "tif-float": (_float_tiff, load_image),
    "tif-lzw": (_image("tif", compression="tiff_lzw"), load_image),
    "posed": (_posed, load_posed),
    "colmap-text": (_colmap(False), load_posed),
    "colmap-binary": (_colmap(True), load_posed),
    "calibration-yml": (_calibration("yml"), load_posed),
    "calibration-xml": (_calibration("xml"), load_posed),
    "calibration-json": (_calibration("json"), load_posed),
}


def case(kind: str, seed: int, folder: pathlib.Path) -> str | None:
    """Damage one file of a fresh set, load it, and return what is wrong with the answer; None if nothing is."""
    rng = random.Random(f"{kind} {seed}")
    make, load = KINDS[kind]
    main = make(folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    target = rng.choice([main, main, *files])
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        target.write_bytes(damage(target.read_bytes(), rng, _TOKENS, _WORD))
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            # Ours are fine; those of libraries are not what a user shall read.
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message=r"(Mesh|PosedImages)\.load: ", category=UserWarning)
            load(main)
    except (ValueError, FileNotFoundError) as error:
        if "` must be " not in str(error) or not any(path.name in str(error) for path in folder.rglob("*")):
            return f"no name of a file, or not our grammar: {error!r}"
    except Exception as error:
        return f"foreign: {error!r}"
    took = time.perf_counter() - begin
    return f"it took {took:.0f} s" if took > 10 else None


def run(kinds: list[str], seed: int, count: int, keep: pathlib.Path | None = None) -> list[str]:
    """Return the failures of `count` cases, spread over the kinds."""
    failures = []
    for i in range(count):
        kind = kinds[i % len(kinds)]
        number = seed * 1_000_003 + i // len(kinds)
        with tempfile.TemporaryDirectory() as name:
            wrong = case(kind, number, pathlib.Path(name))
            if wrong:
                failures.append(f"{kind} {number}: {wrong}")
                if keep is not None:
                    shutil.copytree(name, keep / f"{kind}-{number}", dirs_exist_ok=True)
    return failures


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--kind", choices=sorted(KINDS), action="append")
    parser.add_argument("--keep", type=pathlib.Path)
    options = parser.parse_args(arguments)
    failures = run(options.kind or list(KINDS), options.seed, options.count, options.keep)
    print("\n".join(failures))
    print(f"{len(failures)} of {options.count} cases failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
