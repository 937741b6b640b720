# SPDX-License-Identifier: Apache-2.0
"""What renderers return: outputs that were not asked for say so, and results are shown by shapes."""

import copy
import dataclasses
import pickle

import pytest
import torch

import geodiff as gd
from geodiff.atlas.proximity import closest_on_mesh, sample_mesh
from geodiff.render.outputs import NotRequestedError, RenderOutput

EYE = gd.Camera.orbit(3.0, 10.0, 20.0, fov_deg=40.0)
MESH = gd.icosphere(1)


@pytest.mark.parametrize("name", ["rgb", "depth", "normal", "face_id", "uv"])
def test_asking_for_what_was_not_asked_for(name: str) -> None:
    out = gd.Renderer(4)(MESH, EYE)
    with pytest.raises(NotRequestedError, match=rf"^{name} was not asked for: Renderer\(outputs=\('{name}',\)\)\.$"):
        getattr(out, name)
    assert getattr(out, name, None) is None and not hasattr(out, name) and name not in out
    assert "alpha" in out and issubclass(NotRequestedError, AttributeError)
    with pytest.raises(AttributeError, match="has no attribute 'colour'"):
        out.colour  # type: ignore[attr-defined]  # noqa: B018


def test_outputs_stay_plain_objects() -> None:
    out = gd.Renderer(4, outputs=("rgb", "depth"))(MESH, EYE)
    for other in (copy.copy(out), copy.deepcopy(out), pickle.loads(pickle.dumps(out))):
        assert torch.equal(other.rgb, out.rgb) and torch.equal(other.alpha, out.alpha) and not hasattr(other, "uv")
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.alpha = out.rgb  # type: ignore[misc]
    assert {field.name for field in dataclasses.fields(RenderOutput)} >= {"alpha", "rgb", "uv"}
    assert out == out and out != copy.copy(out)
    assert (
        dataclasses.asdict(out).keys() == {"alpha", "rgb", "depth"} == {field.name for field in dataclasses.fields(out)}
    )
    other = dataclasses.replace(out, alpha=out.depth, uv=out.rgb[..., :2])
    assert other.alpha is out.depth and other.rgb is out.rgb and "uv" in other and "normal" not in other
    assert RenderOutput(alpha=out.alpha, rgb=None).alpha is out.alpha
    with pytest.raises(ValueError, match="`outputs` must be one of alpha, rgb"):
        RenderOutput(alpha=out.alpha, colour=out.rgb)


def test_results_are_shown_by_shapes() -> None:
    out = gd.Renderer(4, outputs=("rgb", "face_id"))(MESH, EYE)
    assert repr(out) == "RenderOutput(alpha=float32 (4, 4), rgb=float32 (4, 4, 3), face_id=int64 (4, 4))"
    hard = repr(gd.rasterize(MESH, EYE, 4))
    assert hard.startswith("HardOutput(mask=bool (4, 4), depth=float32 (4, 4)") and "tensor" not in hard
    x, y = torch.rand(6, 3), torch.rand(6, 3)
    clip, layout = EYE.to_clip(MESH.vertices), torch.tensor([[0, 0, len(MESH.faces)]])
    shown = [
        gd.fragments(MESH, EYE, 4, k=2),
        gd.sinkhorn(x, y, epsilon=0.1),
        gd.transport.assign(x, y),
        gd.ops.rasterize(clip, MESH.faces, layout, image_size=(4, 4)),
        gd.ops.visible(clip, MESH.faces, layout, image_size=(4, 4)),
        gd.splines.closest_point(gd.splines.circle(), torch.rand(40, 2)),
        gd.splines.fit_curve(torch.rand(40, 3), 6, 3),
        MESH.sample(40),
        MESH.closest_point(torch.rand(40, 3)),
        closest_on_mesh(torch.rand(40, 3), MESH),
        sample_mesh(MESH, 40),
        MESH,
        EYE,
    ]
    for value in shown:
        text = repr(value)
        assert "tensor(" not in text and len(text) < 400, text
