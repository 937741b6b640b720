# SPDX-License-Identifier: Apache-2.0
"""torch.save and torch.load(weights_only=True), pickle and copy of what geodiff makes."""

import copy
import io
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.saving import restored
from geodiff.scene import Topology
from geodiff.splines import BSplineBasis

KNOTS = [0.0, 0, 0, 0.3, 1, 1, 1]


def things(dtype):
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        return torch.rand(*shape, generator=generator, dtype=dtype)

    ball = gd.icosphere(1, dtype=dtype)
    full = gd.Mesh(
        rand(2, 4, 3),
        [[0, 1, 2], [0, 2, 3]],
        vertex_colors=rand(4, 3),
        uv=rand(5, 2),
        uv_faces=[[0, 1, 2], [2, 3, 4]],
        face_colors=rand(2, 3),
        texture=gd.Texture(rand(4, 5, 3), "mirror", "nearest", True),
        material=gd.Material(0.3, diffuse=rand(3)),
    )
    cameras = gd.Camera.orbit(torch.tensor(3.0, dtype=dtype), 20, torch.arange(3) * 30.0)
    knots = torch.tensor(KNOTS, dtype=dtype)
    return {
        "plain": ball,
        "uv": gd.plane(dtype=dtype),
        "full": full,
        "batch": gd.MeshBatch([ball, gd.box(dtype=dtype)]),
        "topology": ball.topology,
        "texture": full.texture,
        "material": full.material,
        "cameras": cameras,
        "orthographic": gd.Camera.orthographic((0, 1, 5), extent=4.0, near=0.5).to(dtype=dtype),
        "ambient": gd.AmbientLight(0.5),
        "directional": gd.DirectionalLight((0, 1, 2), rand(3)),
        "point": gd.PointLight(rand(2, 3), attenuation=(0, 0, 1)),
        "images": gd.PosedImages(rand(3, 4, 5, 3), rand(3, 4, 5), cameras, ["a", "b", "c/d"]),
        "basis": BSplineBasis(knots, 2),
        "curve": gd.NURBSCurve(rand(4, 3), knots, 1 + rand(4), 2, knot_gradient="gaussian", bandwidth=0.1),
        "ring": gd.NURBSCurve(rand(4, 2), degree=2, periodic=True, outside="extend").replace(outside="clamp"),
        "surface": gd.NURBSSurface(rand(2, 4, 5, 3), knots, degree=(2, 3), periodic=(False, True)),
        "volume": gd.NURBSVolume(rand(4, 4, 4, 1)),
    }


def contents(value):
    """Everything in an object, its parts and lists, without caches."""
    if isinstance(value, torch.Tensor | str | bool | int | float | type(None) | torch.dtype):
        return value
    if isinstance(value, list | tuple):
        return [contents(item) for item in value]
    own = {k: v for k, v in vars(value).items() if k not in ("_cache", "_cache_version")}
    if isinstance(value, Topology):
        own = {"faces": value.faces, "num_vertices": value.num_vertices}
    return {"class": type(value).__name__, **{k: contents(v) for k, v in own.items()}}


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(same(*pair) for pair in zip(one, other, strict=True))
    return one == other


def loaded(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("how", ["torch", "pickle", "copy", "deepcopy"])
def test_everything_comes_back(dtype, how):
    ways = {
        "torch": loaded,
        "pickle": lambda value: pickle.loads(pickle.dumps(value)),
        "copy": copy.copy,
        "deepcopy": copy.deepcopy,
    }
    for name, value in things(dtype).items():
        back = ways[how](value)
        assert type(back) is type(value), name
        assert same(contents(value), contents(back)), name
        assert name == "basis" or repr(back) == repr(value), name


def test_caches_are_left_out_and_shared_topologies_stay_shared():
    mesh = gd.icosphere(4)
    file = io.BytesIO()
    torch.save(mesh, file)
    size = file.tell()
    assert mesh.face_normals.numel() and mesh.vertex_normals.numel() and mesh.face_pairs.numel() and mesh.edges.numel()
    file = io.BytesIO()
    torch.save(mesh, file)
    assert file.tell() == size
    first, second = loaded([mesh, mesh.scaled(2.0)])
    assert first.topology is second.topology
    plane = loaded(gd.plane())
    assert plane.uv_faces is plane.faces
    # A copy made by copy.copy keeps what was found, as `with_vertices` does.
    assert copy.copy(mesh).topology is mesh.topology


def test_what_a_user_adds_goes_along():
    mesh = gd.box()
    mesh.label, mesh.weights = "crate", torch.ones(8)
    for back in (loaded(mesh), pickle.loads(pickle.dumps(mesh)), copy.deepcopy(mesh)):
        assert back.label == "crate" and torch.equal(back.weights, mesh.weights)

    class Crate(gd.Mesh):
        pass

    crate = Crate(mesh.vertices, mesh.faces)
    assert type(copy.deepcopy(crate)) is Crate and torch.equal(copy.deepcopy(crate).vertices, mesh.vertices)


def test_leaves_stay_leaves():
    vertices = torch.rand(3, 3, requires_grad=True)
    back = loaded(gd.Mesh(vertices, [[0, 1, 2]]))
    assert back.vertices.requires_grad and back.vertices.is_leaf
    surface = gd.NURBSSurface(torch.rand(4, 4, 3, requires_grad=True))
    assert copy.deepcopy(surface).control_points.is_leaf


def test_a_fresh_process_loads(tmp_path):
    torch.save({"mesh": gd.box(), "step": 3}, tmp_path / "state.pt")
    code = "import torch, geodiff; s = torch.load({!r}, weights_only=True); print(s['mesh'])"
    done = subprocess.run(
        [sys.executable, "-c", code.format(str(tmp_path / "state.pt"))], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Mesh(vertices=(8, 3), faces=(12, 3)" in done.stdout


def test_a_forged_file_is_checked_by_the_constructor():
    """What a file can hold is what a user can pass: indices out of range and other classes are refused."""

    class Forged:
        def __init__(self, *arguments):
            self.arguments = arguments

        def __reduce__(self):
            return restored, self.arguments

    bad = {"faces": torch.tensor([[0, 1, 99]]), "vertices": torch.rand(3, 3)}
    with pytest.raises(ValueError, match=r"`faces` must be indices in \[0, 3\)"):
        loaded(Forged("Mesh", bad, {}))
    with pytest.raises(KeyError, match="Popen"):
        loaded(Forged("Popen", {}, {}))
    good = loaded(
        Forged("Mesh", {**bad, "faces": torch.tensor([[0, 1, 2]])}, {"topology": 3, "_cache": 4, "sample": 5})
    )
    assert isinstance(good.topology, Topology) and good._cache == {} and callable(good.sample)


def test_opencv_rotation_vectors_and_columns():
    """Against the matrix exponential, an independent way to the rotation."""
    K = np.array([[100.0, 1e-9, 32], [0, 110, 24], [0, 0, 1]])
    for vector in ([0.3, -1.2, 0.8], [0.0, 0, 0], [1e-5, 2e-5, -1e-5], [3.0, 0.5, 0.1], [0, 0, np.pi]):
        r, t = np.array(vector), np.array([0.1, 0.2, 4.0])
        cross = torch.tensor([[0, -r[2], r[1]], [r[2], 0, -r[0]], [-r[1], r[0], 0]], dtype=torch.float64)
        R = torch.linalg.matrix_exp(cross)
        expected = gd.Camera.from_opencv(K, R, t, (48, 64))
        for rotation in (r, r[:, None], r[None]):
            for place in (t, t[:, None], t[None]):
                camera = gd.Camera.from_opencv(K, rotation, place, (48, 64))
                assert camera.batch_shape == ()
                torch.testing.assert_close(camera.rotation, expected.rotation, atol=1e-14, rtol=0)
                torch.testing.assert_close(camera.translation, expected.translation, atol=1e-14, rtol=0)
        batch = gd.Camera.from_opencv(K, np.stack([r, r]), np.stack([t, t])[..., None], (48, 64))
        assert batch.batch_shape == (2,)
        torch.testing.assert_close(batch.rotation[1], expected.rotation, atol=1e-14, rtol=0)

    def projected(r):
        return gd.Camera.from_opencv(K, r, [0.0, 0, 4], (48, 64)).rotation

    for vector in ([0.3, -1.2, 0.8], [1e-3, 0, 2e-3], [0.0, 0, 0]):
        r = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(projected, r, atol=1e-6)
        assert torch.autograd.gradgradcheck(projected, r, atol=1e-5)


def test_skew_is_refused_where_it_can_be_seen():
    K = torch.tensor([[1000.0, 0, 320], [0, 1000, 240], [0, 0, 1]], dtype=torch.float64)
    eye, zero = torch.eye(3), torch.zeros(3)
    for at, value in (((0, 1), 1e-9), ((0, 1), 9e-4), ((2, 2), 1 + 1e-12), ((1, 0), -1e-10)):
        off = K.clone()
        off[at] = value
        assert gd.Camera.from_opencv(off, eye, zero, (480, 640)).focal[0].item() == pytest.approx(2000 / 480)
    for at, value in (((0, 1), 0.01), ((1, 0), 1.0), ((2, 2), 2.0), ((2, 0), 0.1)):
        off = K.clone()
        off[at] = value
        with pytest.raises(ValueError, match=r"Camera.from_K: `K` must be .* Skew is not supported"):
            gd.Camera.from_opencv(off, eye, zero, (480, 640))
    with pytest.raises(ValueError, match=r"`R` must be of shape \(..., 3, 3\), or a rotation vector \(..., 3\)"):
        gd.Camera.from_opencv(K, torch.zeros(4), zero, (480, 640))
    with pytest.raises(ValueError, match=r"`t` must be of shape \(..., 3\)"):
        gd.Camera.from_opencv(K, eye, torch.zeros(4), (480, 640))
