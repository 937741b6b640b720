# SPDX-License-Identifier: Apache-2.0
"""Batches of materials and backgrounds, and colours of every pixel that has coverage."""

import pytest
import torch

import geodiff as gd

BALL = gd.icosphere(1)
EYES = gd.Camera.orbit(2.7, 20.0, torch.tensor([0.0, 20.0, 40.0]), fov_deg=50)
SUN = gd.DirectionalLight((0.0, 1.0, 2.0))


def materials(count: int) -> gd.Material:
    ramp = torch.linspace(0.2, 0.9, 3 * count).reshape(count, 3)
    return gd.Material(diffuse=ramp, shininess=torch.linspace(3.0, 30.0, count))


def test_a_mesh_of_a_batch_has_its_own_material():
    batch = BALL.with_vertices(BALL.vertices.expand(3, -1, -1)).with_attributes(material=materials(3))
    render = gd.Renderer(12, outputs="rgb")
    whole = render(batch, EYES, SUN).rgb
    assert not torch.equal(whole[0], whole[2])
    packed = render(gd.MeshBatch(list(batch)), EYES, SUN).rgb
    for i in range(3):
        assert torch.allclose(render(batch[i], EYES[i], SUN).rgb, whole[i], atol=1e-6)
        assert torch.allclose(packed[i], whole[i], atol=1e-6)


def test_materials_follow_their_mesh():
    diffuse = torch.rand(3, requires_grad=True)
    mesh = BALL.with_attributes(material=gd.Material(diffuse=diffuse))
    cut, wide = mesh.detach().material, mesh.to(dtype=torch.float64).material
    assert cut is not None and not cut.diffuse.requires_grad
    assert wide is not None and wide.diffuse.dtype == wide.shininess.dtype == torch.float64


@pytest.mark.parametrize("shading", ["unlit", "gouraud", "phong"])
def test_materials_of_another_batch_are_named(shading: str):
    mesh = BALL.with_attributes(material=materials(2))
    render = gd.Renderer(8, outputs="rgb", shading=shading)
    for eyes, batch in ((EYES, r"\(3,\)"), (EYES[0], r"\(\)")):
        with pytest.raises(ValueError, match=rf"`mesh\.material` must be .* images' {batch}; got a batch of \(2,\)"):
            render(mesh, eyes, None if shading == "unlit" else SUN)


@pytest.mark.parametrize("depth", ["hard", "softmax"])
def test_backgrounds_of_another_batch_are_named(depth: str):
    render = gd.Renderer(8, outputs="rgb", depth=depth, background=torch.rand(2, 8, 8, 3))
    assert render(BALL, EYES[:2]).rgb.shape == (2, 8, 8, 3)
    for eyes, batch in ((EYES, r"\(3,\)"), (EYES[0], r"\(\)")):
        with pytest.raises(ValueError, match=rf"`background` must be .* images' {batch}; got a batch of \(2,\)"):
            render(BALL, eyes)


def test_outputs_that_are_no_names():
    with pytest.raises(TypeError, match="`outputs` must be a name or a sequence of names; got NoneType"):
        gd.Renderer(8, outputs=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", ["hard", "softmax"])
@pytest.mark.parametrize("backend", ["kernel", "reference"])
def test_white_on_white_is_white_beyond_acute_corners(depth: str, backend: str):
    # The product over three lines reaches far ahead of a needle's tip, where no face is near.
    needle = gd.Mesh(torch.tensor([[-0.5, -0.02, 0.0], [-0.5, 0.02, 0.0], [0.0, 0.0, 0.0]]), [[0, 1, 2]])
    eye = gd.Camera.orbit(2.0, fov_deg=60)
    options = {"scale": 3e-2, "coverage": "edges", "outputs": "rgb", "background": (1.0, 1.0, 1.0)}
    out = gd.Renderer((20, 33), depth=depth, backend=backend, **options)(needle, eye)
    assert out.alpha[10, 25:].max() > 0.02
    assert (out.rgb - 1).abs().max() < 2e-4  # max_error, and what softmax leaves out
