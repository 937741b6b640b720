# SPDX-License-Identifier: Apache-2.0
"""The renderer and the hard rasteriser as a user calls them: shapes, batches, scales, own members, bad input."""

import math

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff import ops, reference, soft
from tests.helpers import assert_close_relative, random_cotangent, rounding_bound


def camera(**more) -> gd.Camera:
    return gd.Camera.orbit(**{"distance": 2.7, "elevation_deg": 20.0, "azimuth_deg": 30.0, "fov_deg": 60.0, **more})


def views(count: int) -> gd.Camera:
    return camera(azimuth_deg=torch.arange(count) * (360.0 / count))


SPHERE, BOX = gd.icosphere(1), gd.box()
MANY = SPHERE.with_vertices(torch.stack([SPHERE.vertices * s for s in (0.5, 0.8, 1.0)]))


@pytest.mark.parametrize(
    ("mesh", "eye", "batch"),
    [
        (SPHERE, camera(), ()),
        (SPHERE, views(4), (4,)),
        (SPHERE, views(1), (1,)),
        (MANY, camera(), (3,)),
        (MANY, views(3), (3,)),
        (MANY.with_vertices(MANY.vertices[:, None]), views(4), (3, 4)),
        (gd.MeshBatch([SPHERE, BOX]), camera(), (2,)),
        (gd.MeshBatch([SPHERE, BOX]), views(1), (2,)),
        (gd.MeshBatch([SPHERE, BOX]), views(2), (2,)),
        (gd.MeshBatch([SPHERE]), views(1), (1,)),
        (gd.Mesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int64)), views(2), (2,)),
    ],
    ids=lambda value: str(value) if isinstance(value, tuple) else "",
)
@pytest.mark.parametrize("size", [7, (5, 8), (9, 4)], ids=str)
def test_shapes(mesh, eye: gd.Camera, batch: tuple[int, ...], size):
    pixels = (size, size) if isinstance(size, int) else size
    alpha = gd.Renderer(size, scale=0.05)(mesh, eye).alpha
    assert alpha.shape == (*batch, *pixels) and alpha.dtype == torch.float32
    hard = gd.rasterize(mesh, eye, size)
    assert hard.mask.shape == hard.depth.shape == hard.face_id.shape == (*batch, *pixels)
    assert hard.barycentric.shape == (*batch, *pixels, 3)
    assert hard.mask.dtype == torch.bool and hard.face_id.dtype == torch.int64
    assert torch.equal(hard.mask, hard.face_id >= 0) and torch.equal(hard.mask, torch.isfinite(hard.depth))


def exact(mesh, eye: gd.Camera, size=(9, 12)) -> torch.Tensor:
    # Nothing culled: the radius depends on the largest mesh of a batch.
    return gd.Renderer(size, scale=0.05, max_error=0.0)(mesh, eye).alpha


def test_a_batch_is_its_single_renders():
    eyes = views(4)
    alone = torch.stack([exact(SPHERE, eyes[i]) for i in range(4)])
    bound = rounding_bound(torch.float32, 20)  # to_clip multiplies batches in another order
    assert_close_relative(exact(SPHERE, eyes), alone, bound)
    all_pairs = exact(MANY.with_vertices(MANY.vertices[:, None]), eyes)
    assert_close_relative(all_pairs[2], alone, bound)
    pair = gd.MeshBatch([SPHERE, BOX])
    assert_close_relative(exact(pair, eyes[:2]), torch.stack([exact(SPHERE, eyes[0]), exact(BOX, eyes[1])]), bound)
    assert_close_relative(exact(pair, eyes[1]), torch.stack([exact(SPHERE, eyes[1]), exact(BOX, eyes[1])]), bound)
    hard = gd.rasterize(pair, eyes[:2], 31)
    for i, mesh in enumerate((SPHERE, BOX)):
        own = gd.rasterize(mesh, eyes[i], 31)
        assert (hard.face_id[i] != own.face_id).double().mean() < 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", ["logistic", "gaussian.squared", "gamma(0.5).reversed"])
def test_backends_agree(law: str, dtype: torch.dtype):
    mesh = gd.icosphere(1).to(dtype=dtype)
    results = []
    for backend in ("kernel", "reference"):
        vertices = mesh.vertices.clone().requires_grad_()
        renderer = gd.Renderer((8, 9), law, 0.05, "yager(2)", backend=backend, max_error=0.0)
        alpha = renderer(mesh.with_vertices(vertices), views(2)).alpha
        weights = torch.linspace(-1, 1, alpha.numel(), dtype=dtype).reshape(alpha.shape)
        results.append((alpha.detach(), torch.autograd.grad((alpha * weights).sum(), vertices)[0]))
    assert results[0][0].dtype == results[1][0].dtype == dtype
    assert_close_relative(results[0][0], results[1][0], rounding_bound(dtype, 40))
    assert_close_relative(results[0][1], results[1][1], rounding_bound(dtype, 1600))


def test_scale_in_pixels():
    for size in (16, (16, 40), (40, 16)):
        for law, scale in (("logistic", 1.5 * 2 / 16), ("logistic.squared", (1.5 * 2 / 16) ** 2)):
            one = gd.Renderer(size, law, scale=scale)(SPHERE, camera()).alpha
            other = gd.Renderer(size, law, scale_px=1.5)(SPHERE, camera()).alpha
            assert torch.equal(one, other)
    tau = torch.tensor(1.5, requires_grad=True)
    gd.Renderer(8, scale_px=tau)(SPHERE, camera()).alpha.sum().backward()
    assert tau.grad is not None and tau.grad != 0


def test_default_scale_and_repr():
    renderer = gd.Renderer((4, 6), "gamma(0.5).reversed", tconorm="yager(2)")
    assert repr(renderer) == ("Renderer(4×6, Gamma(shape=0.5).reversed(), scale=0.01, Yager(p=2.0), coverage='faces')")


def test_picture_of_a_box():
    # From the front, one face of a unit box 2 away: ±½ at depth 1.5, and a field of view of 90°.
    eye = gd.Camera.orbit(2.0, fov_deg=90.0)
    hard = gd.rasterize(BOX, eye, (30, 60))
    inside = torch.zeros(30, 60, dtype=torch.bool)
    inside[10:20, 25:35] = True  # 0.5/1.5 of 15 pixels each way from the middle
    assert torch.equal(hard.mask, inside)
    assert_close_relative(hard.depth[inside], torch.full((100,), 1.5), rounding_bound(torch.float32))
    alpha = gd.Renderer((30, 60), scale=1e-5)(BOX, eye).alpha
    assert torch.equal(alpha > 0.5, inside)
    # Pixels on the diagonal of the front are on two edges: F(0) of each of the two faces.
    assert ((alpha - inside.float()).abs() > 1e-3).sum() == 10


def test_the_image_is_the_right_way_up():
    # A triangle above and to the right of the axis, seen from +z: x to the right, y up, row 0 at the top.
    vertices = torch.tensor([[0.2, 0.2, 0.0], [0.9, 0.2, 0.0], [0.2, 0.9, 0.0]])
    mask = gd.rasterize(gd.Mesh(vertices, torch.tensor([[0, 1, 2]])), gd.Camera.orbit(2.0, fov_deg=60.0), 20).mask
    assert mask[:10, 10:].any() and not mask[10:].any() and not mask[:, :10].any()


class Smoothstep(soft.Distribution):
    """A distribution of one's own, which has nothing but a CDF."""

    def cdf(self, x: torch.Tensor) -> torch.Tensor:
        y = (x.clamp(-1, 1) + 1) / 2
        return y * y * (3 - 2 * y)


class Plus(soft.TConorm):
    """A T-conorm of one's own: the probabilistic sum again."""

    def combine(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b - a * b


@pytest.mark.parametrize(
    ("law", "rule"),
    [
        (Smoothstep(), Plus()),
        (Smoothstep, Plus),
        (Smoothstep().cdf, "probabilistic"),
        ("cubic_hermite", lambda a, b: a + b - a * b),
    ],
    ids=["objects", "classes", "function of x", "function of a and b"],
)
def test_members_of_your_own(law, rule):
    mesh = gd.icosphere(0).to(dtype=torch.float64)
    results = []
    for distribution, tconorm in (("cubic_hermite", "probabilistic"), (law, rule)):
        vertices = mesh.vertices.clone().requires_grad_()
        renderer = gd.Renderer((7, 8), distribution, 0.4, tconorm, max_error=0.0)
        alpha = renderer(mesh.with_vertices(vertices), camera()).alpha
        weights = torch.linspace(-1, 1, alpha.numel(), dtype=torch.float64).reshape(alpha.shape)
        results.append((alpha.detach(), torch.autograd.grad((alpha * weights).sum(), vertices)[0]))
    assert_close_relative(results[1][0], results[0][0], rounding_bound(torch.float64, 100))
    # Where F is near 1, log(1 − F) from F alone has lost digits.
    assert_close_relative(results[1][1], results[0][1], rounding_bound(torch.float64, 1e5))


def test_gradient_reaches_every_parameter_of_the_camera():
    mesh = gd.icosphere(1).to(dtype=torch.float64)
    values = {"distance": 2.7, "elevation_deg": 20.0, "azimuth_deg": 30.0, "fov_deg": 60.0}
    bumpy = mesh.with_vertices(mesh.vertices * (1 + 0.3 * mesh.vertices[:, :1]))
    renderer = gd.Renderer((12, 15), "logistic", 0.1, max_error=0.0)
    renderer.warn_of_bias = False  # its derivative is what is tested
    cotangent = random_cotangent(torch.zeros(12, 15, dtype=torch.float64))

    def scene(**numbers) -> torch.Tensor:
        return (renderer(bumpy, gd.Camera.orbit(**numbers)).alpha * cotangent).sum()

    leaves = {name: torch.tensor(value, dtype=torch.float64, requires_grad=True) for name, value in values.items()}
    gradients = dict(zip(leaves, torch.autograd.grad(scene(**leaves), list(leaves.values())), strict=True))
    for name, value in values.items():
        step = 1e-5 * value
        ahead, back = (
            float(scene(**{k: torch.tensor(v, dtype=torch.float64) for k, v in {**values, name: value + s}.items()}))
            for s in (step, -step)
        )
        numeric = (ahead - back) / (2 * step)
        assert gradients[name] != 0
        # Truncation: step² times a third derivative, 1/τ² as large as the first.
        assert abs(float(gradients[name]) - numeric) < 1e-6 * max(abs(numeric), 1.0), f"{name}: {numeric}"


def test_gradient_in_the_models_numbers():
    scale, shape, shift, p = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.1, 1.4, 0.3, 1.8))
    law = soft.Gamma(shape).shifted(shift).reversed()
    alpha = gd.Renderer(9, law, scale, soft.Yager(p))(SPHERE, camera()).alpha
    for gradient in torch.autograd.grad(alpha.sum(), [scale, shape, shift, p]):
        assert torch.isfinite(gradient) and gradient != 0


def test_near_plane_is_the_cameras():
    eye = camera(near=2.5)  # the sphere reaches from 1.7 to 3.7
    clipped = gd.rasterize(SPHERE, eye, 33)
    assert float(clipped.depth.min()) >= 2.5 - 1e-5
    whole = gd.rasterize(SPHERE, camera(), 33)
    assert float(whole.depth.min()) < 1.9
    # Cut open, what is left of the silhouette comes from further away.
    assert clipped.mask.sum() < whole.mask.sum()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"image_size": 0}, ValueError, r"Renderer: `image_size` must be a positive integer, or two as \(H, W\)"),
        ({"image_size": -3}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": (4,)}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": (4, 5, 6)}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": (4, 2.5)}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": True}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": None}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": 4.5}, ValueError, "Renderer: `image_size` must be a positive integer"),
        ({"image_size": "64"}, ValueError, "Renderer: `image_size` must be a positive integer.*got str '64'"),
        ({"scale": 0.0}, ValueError, "Renderer: `scale` must be positive and finite; got 0.0"),
        ({"scale": -1e-3}, ValueError, "Renderer: `scale` must be positive and finite; got -0.001"),
        ({"scale": math.nan}, ValueError, "Renderer: `scale` must be positive and finite; got nan"),
        ({"scale": torch.tensor(-1.0)}, ValueError, "Renderer: `scale` must be positive and finite"),
        ({"scale": "soft"}, TypeError, "Renderer: `scale` must be a positive number; got str 'soft'"),
        ({"scale": torch.ones(2)}, ValueError, "Renderer: `scale` must be a number or a tensor with one element"),
        ({"scale_px": 0.0}, ValueError, "Renderer: `scale_px` must be positive and finite"),
        (
            {"scale": 0.1, "scale_px": 1.0},
            ValueError,
            "Renderer: `scale_px` must be given instead of `scale`; got both",
        ),
        ({"max_error": 1.0}, ValueError, r"Renderer: `max_error` must be in \[0, 1\)"),
        ({"max_error": "small"}, ValueError, "Renderer: `max_error` must be .* got str 'small'"),
        ({"max_error": -1e-9}, ValueError, r"Renderer: `max_error` must be in \[0, 1\)"),
        ({"distribution": "logistics"}, ValueError, "Did you mean 'logistic'"),
        ({"distribution": "gamma(0.5).inverted"}, ValueError, "followed by known modifiers.*Did you mean 'reversed'"),
        ({"distribution": 3}, TypeError, "`distribution` must be a Distribution, a name"),
        ({"tconorm": "probablistic"}, ValueError, "Did you mean 'probabilistic'"),
        ({"tconorm": 3}, TypeError, "`tconorm` must be a TConorm, a name"),
        ({"tconorm": "dombi(-1)"}, ValueError, "Dombi: `p` must be positive"),
        ({"coverage": "face"}, ValueError, "Renderer: `coverage` must be one of faces.*Did you mean 'faces'"),
        ({"backend": "kernels"}, ValueError, "Renderer: `backend` must be one of kernel, reference.*'kernel'"),
    ],
)
def test_bad_settings_are_named(change: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        gd.Renderer(**{"image_size": 8, **change})


@pytest.mark.parametrize(
    ("mesh", "eye", "error", "message"),
    [
        (SPHERE, None, TypeError, "`camera` must be a geodiff.Camera; got NoneType.*Camera.orbit"),
        (SPHERE.vertices, camera(), TypeError, "`mesh` must be a geodiff.Mesh or MeshBatch; got float32 of shape"),
        (gd.MeshBatch([SPHERE, BOX]), views(3), ValueError, r"`camera` must be one camera or 2.*shape \(3,\)"),
    ],
    ids=["no camera", "no mesh", "mesh batch"],
)
def test_bad_scenes_are_named(mesh, eye, error: type[Exception], message: str):
    with pytest.raises(error, match=f"Renderer: {message}"):
        gd.Renderer(8)(mesh, eye)
    with pytest.raises(error, match=f"rasterize: {message}"):
        gd.rasterize(mesh, eye, 8)


def test_batches_that_do_not_broadcast_are_named():
    message = r"`camera` must be of a batch that broadcasts with the mesh's \(\d,\); got a batch of \(4,\)"
    with pytest.raises(ValueError, match=f"Renderer: {message}"):
        gd.Renderer(8)(MANY, views(4))
    with pytest.raises(ValueError, match=f"rasterize: {message}"):
        gd.rasterize(MANY, views(4), 8)


@pytest.mark.parametrize("size", [0, (4, -1), None, "8"])
def test_bad_size_of_a_hard_image(size):
    with pytest.raises(ValueError, match="rasterize: `image_size` must be a positive integer, or two"):
        gd.rasterize(SPHERE, camera(), size)


def test_numpy_integers_are_sizes():
    assert gd.Renderer(np.int64(8)).image_size == gd.Renderer((8, np.int32(8))).image_size == (8, 8)
    assert type(gd.Renderer(np.int64(8)).image_size[0]) is int


def test_bad_vertices_are_named():
    # A mesh is checked when it is made; what goes bad later is found by the renderer.
    bad = SPHERE.vertices.clone()
    bad[3, 1] = math.nan
    with pytest.raises(ValueError, match="finite; got nan at index"):
        gd.Renderer(8)(SPHERE.with_vertices(bad), camera())
    with pytest.raises(TypeError, match=r"float32 or float64.*\.float\(\)"):
        gd.Renderer(8)(SPHERE.with_vertices(SPHERE.vertices.half()), camera())
    with pytest.raises(ValueError, match="faces"):
        gd.Renderer(8)(gd.Mesh(SPHERE.vertices, SPHERE.faces + 1), camera())


def test_a_missing_extension_says_how_to_mend_it(monkeypatch: pytest.MonkeyPatch):
    from geodiff.native import cpu

    cpu.extension.cache_clear()
    monkeypatch.setitem(__import__("sys").modules, "geodiff.native._cpu", None)
    try:
        with pytest.raises(RuntimeError, match=r"geodiff\.native\._cpu\) cannot be imported.*pip install"):
            gd.Renderer(8)(SPHERE, camera())
        # The twin needs no extension.
        assert gd.Renderer(8, backend="reference")(SPHERE, camera()).alpha.shape == (8, 8)
    finally:
        monkeypatch.undo()
        cpu.extension.cache_clear()


def test_ops_and_reference_are_twins_by_signature():
    import inspect

    for name in ("silhouette", "rasterize"):
        own = inspect.signature(getattr(ops, name)).parameters
        other = inspect.signature(getattr(reference, name)).parameters
        assert set(own) == set(other) - {"chunk"}
        for argument in set(own) & set(other):
            assert own[argument].default == other[argument].default, f"{name}: {argument}"
