# SPDX-License-Identifier: Apache-2.0
"""Images of balls through lenses, and files of their cameras, all by formulas of their own: nothing of geodiff's."""

import pathlib
import struct

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

import geodiff as gd

# Balls in front of a camera at the origin that looks along +z, y down: centres and radius.
BALLS = np.array([[0.0, 0.0, 4.0], [-1.1, -0.7, 4.2], [1.2, -0.6, 3.9], [-1.0, 0.8, 4.1], [1.0, 0.75, 3.8]])
RADIUS = 0.22


def brown(x, y, k1=0.0, k2=0.0, p1=0.0, p2=0.0, k3=0.0):
    """The lens formula of OpenCV's documentation for five coefficients."""
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    return (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2), y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y)


def fisheye(x, y, k1=0.0, k2=0.0, k3=0.0, k4=0.0):
    """The formula of OpenCV's fisheye."""
    r = np.maximum(np.hypot(x, y), 1e-12)
    t = np.arctan(r)
    turned = t + k1 * t**3 + k2 * t**5 + k3 * t**7 + k4 * t**9
    return x * turned / r, y * turned / r


def straightened(formula, u, v, *coefficients):
    """Undo a formula by the fixed point of x = x + (u − formula(x)), which needs no derivative."""
    x, y = u.copy(), v.copy()
    for _ in range(200):
        du, dv = (goal - value for goal, value in zip((u, v), formula(x, y, *coefficients), strict=True))
        x, y = x + du, y + dv
        if max(np.abs(du).max(), np.abs(dv).max()) < 1e-6:  # a ten-thousandth of a pixel
            return x, y
    raise AssertionError("no fixed point")


def ball_image(size, focal, principal, formula, coefficients, R, t, supersample=4) -> np.ndarray:
    """Return the coverage (H, W) of the balls: rays through the lens, hit or not."""
    height, width = size
    n = supersample
    v, u = np.meshgrid((np.arange(height * n) + 0.5) / n, (np.arange(width * n) + 0.5) / n, indexing="ij")
    x, y = straightened(formula, (u - principal[0]) / focal[0], (v - principal[1]) / focal[1], *coefficients)
    ray = np.stack((x, y, np.ones_like(x)), -1)
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    hit = np.zeros(x.shape, bool)
    for centre in BALLS @ R.T + t:
        along = ray @ centre
        hit |= (centre @ centre - along**2 < RADIUS**2) & (along > 0)
    return hit.reshape(height, n, width, n).mean((1, 3))


def balls() -> gd.Mesh:
    """The balls as one mesh, in the world of OpenCV's axes."""
    import torch

    parts = [gd.icosphere(4, RADIUS).translated(torch.tensor(c, dtype=torch.float32)) for c in BALLS]
    faces = torch.cat([part.faces + 2562 * i for i, part in enumerate(parts)])
    return gd.Mesh(torch.cat([part.vertices for part in parts]), faces)


def centroids(alpha: np.ndarray) -> np.ndarray:
    """Return the centres (N, 2) of the separate spots of an image, in pixels, those that touch no border, sorted."""
    labels, count = ndimage.label(alpha > 0)
    border = set(np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1])))
    keep = [i for i in range(1, count + 1) if i not in border]
    found = np.array(ndimage.center_of_mass(alpha, labels, keep))[:, ::-1] + 0.5
    return found[np.lexsort((found[:, 0], np.round(found[:, 1] / alpha.shape[0] * 6)))]


def write_png(path: pathlib.Path, array: np.ndarray) -> None:
    """Write numbers in [0, 1], (H, W) or (H, W, C)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(array * 255).astype(np.uint8)).save(path)


def quaternion(R: np.ndarray) -> np.ndarray:
    """Return w, x, y, z, as COLMAP has it."""
    x, y, z, w = Rotation.from_matrix(R).as_quat()
    return np.array([w, x, y, z])


NUMBERS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}
NUMBERS |= {"FULL_OPENCV": 6, "FOV": 7, "SIMPLE_RADIAL_FISHEYE": 8, "RADIAL_FISHEYE": 9, "THIN_PRISM_FISHEYE": 10}


def write_colmap(folder: pathlib.Path, cameras: dict, images: list, points=(), *, binary: bool) -> pathlib.Path:
    """Write a model.

    Args:
        folder: of the model.
        cameras: of each number the model's name, (H, W) and the parameters.
        images: quaternion, translation, number of the camera, name, and points seen (x, y, number).
        points: position, colour in bytes.
        binary: or text.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if binary:
        data = struct.pack("<Q", len(cameras))
        for number, (model, (height, width), parameters) in cameras.items():
            data += struct.pack("<IiQQ", number, NUMBERS[model], width, height)
            data += struct.pack(f"<{len(parameters)}d", *parameters)
        (folder / "cameras.bin").write_bytes(data)
        data = struct.pack("<Q", len(images))
        for i, (q, t, camera, name, seen) in enumerate(images, 1):
            data += struct.pack("<I7dI", i, *q, *t, camera) + name.encode() + b"\0" + struct.pack("<Q", len(seen))
            data += b"".join(struct.pack("<ddq", *point) for point in seen)
        (folder / "images.bin").write_bytes(data)
        data = struct.pack("<Q", len(points))
        for i, (xyz, rgb) in enumerate(points, 1):
            data += struct.pack("<Q3d3BdQII", i, *xyz, *rgb, 0.5, 1, 1, 0)
        (folder / "points3D.bin").write_bytes(data)
        return folder
    lines = ["# Camera list", f"# Number of cameras: {len(cameras)}"]
    for number, (model, (height, width), parameters) in cameras.items():
        lines.append(f"{number} {model} {width} {height} {' '.join(repr(float(p)) for p in parameters)}")
    (folder / "cameras.txt").write_text("\n".join(lines) + "\n")
    lines = ["# Image list with two lines of data per image"]
    for i, (q, t, camera, name, seen) in enumerate(images, 1):
        lines.append(f"{i} {' '.join(repr(float(n)) for n in (*q, *t))} {camera} {name}")
        lines.append(" ".join(f"{x} {y} {number}" for x, y, number in seen))
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    lines = ["# 3D point list"]
    for i, (xyz, rgb) in enumerate(points, 1):
        lines.append(f"{i} {' '.join(map(str, xyz))} {' '.join(map(str, rgb))} 0.5 1 0")
    (folder / "points3D.txt").write_text("\n".join(lines) + "\n")
    return folder


def matrix_yaml(name: str, values: np.ndarray) -> str:
    """Return a matrix as FileStorage writes it to YAML."""
    values = np.atleast_2d(values)
    numbers = [f"{x:.16e}" for x in values.reshape(-1)]
    rows = [", ".join(numbers[i : i + 3]) for i in range(0, len(numbers), 3)]
    data = ",\n       ".join(rows)
    head = f"{name}: !!opencv-matrix\n   rows: {values.shape[0]}\n   cols: {values.shape[1]}\n   dt: d\n"
    return f"{head}   data: [ {data} ]\n"


def matrix_xml(name: str, values: np.ndarray) -> str:
    """Return a matrix as FileStorage writes it to XML."""
    values = np.atleast_2d(values)
    data = " ".join(f"{x:.16e}" for x in values.reshape(-1))
    head = f'<{name} type_id="opencv-matrix">\n  <rows>{values.shape[0]}</rows>\n  <cols>{values.shape[1]}</cols>\n'
    return f"{head}  <dt>d</dt>\n  <data>\n    {data}</data></{name}>\n"


def matrix_json(values: np.ndarray) -> dict:
    """Return a matrix as FileStorage writes it to JSON."""
    values = np.atleast_2d(values)
    rows, cols = values.shape
    return {"type_id": "opencv-matrix", "rows": rows, "cols": cols, "dt": "d", "data": values.reshape(-1).tolist()}
