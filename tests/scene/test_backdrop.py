# SPDX-License-Identifier: Apache-2.0
"""Objects cut out of photographs before a background that is known."""

import io
import json
import pathlib
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import geodiff as gd
from geodiff.scene.backdrop import as_background, cut_out

EYES = gd.Camera.orbit(2.6, 20, torch.arange(0, 360, 60), fov_deg=32)
RING = gd.torus(0.4, 0.18)
COLORS = 0.5 + 0.25 * torch.sin(9 * RING.vertices)
SEEN = gd.Renderer(96, coverage="hard", outputs="rgb", supersample=4)(RING.with_attributes(vertex_colors=COLORS), EYES)
ALPHA = SEEN.alpha[..., None].clamp(0, 1)


def before(ground: torch.Tensor) -> torch.Tensor:
    return (SEEN.rgb + (1 - ALPHA) * ground).clamp(0, 1)


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    pixels = (image.numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=quality, subsampling=0)
    return torch.from_numpy(np.asarray(Image.open(file)).astype(np.float32) / 255)


def off(alpha: torch.Tensor, i: int) -> tuple[float, float]:
    """The mean error of coverage on the outline, and elsewhere."""
    rim = (ALPHA[i, ..., 0] > 0) & (ALPHA[i, ..., 0] < 1)
    error = (alpha - ALPHA[i, ..., 0]).abs()
    return float(error[rim].mean()), float(error[~rim].mean())


@pytest.mark.parametrize("ground", [(1.0, 1.0, 1.0), (0.0, 1.0, 0.0), (0.02, 0.02, 0.02)])
@pytest.mark.parametrize("quality", [None, 95, 80])
def test_one_colour(ground: tuple[float, float, float], quality: int | None) -> None:
    image = before(torch.tensor(ground))[1]
    image = image if quality is None else jpeg(image, quality)
    for given in ("auto", torch.tensor(ground)):
        cut = cut_out("f", image, given, "1")
        on_rim, elsewhere = off(cut.alpha, 1)
        # A hard mask is off by 0.25 on the rim; JPEG of quality 80 rings there.
        assert on_rim < (0.16 if quality == 80 else 0.13) and elsewhere < 0.004
        inside = ALPHA[1, ..., 0] > 0.6
        clean = (SEEN.rgb / ALPHA.clamp_min(1e-6))[1]
        assert float((cut.color - clean)[inside].abs().mean()) < 0.02 + 0.02 * (quality is not None)


def test_an_image_of_the_background(tmp_path: pathlib.Path) -> None:
    ramp = torch.linspace(0.6, 1.0, 96)[None, :, None].expand(96, 96, 3).contiguous()
    image = before(ramp)[2]
    with pytest.raises(ValueError, match="`background` must be one colour along the border"):
        cut_out("f", image, "auto", "2")
    Image.fromarray((ramp.numpy() * 255).round().astype(np.uint8)).save(tmp_path / "empty.png")
    for given in (ramp, as_background("f", tmp_path / "empty.png")):
        on_rim, elsewhere = off(cut_out("f", image, given, "2").alpha, 2)
        assert on_rim < 0.13 and elsewhere < 0.004
    with pytest.raises(ValueError, match="`background` must be of the size 96×96"):
        cut_out("f", image, ramp[:50], "2")


def test_what_is_no_background() -> None:
    image = before(torch.tensor([1.0, 1.0, 1.0]))[0]
    with pytest.raises(ValueError, match="what is along the border of the images; got another in 100%"):
        cut_out("f", image, torch.tensor([0.0, 0.0, 1.0]), "0")
    noise = torch.rand(96, 96, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="`background` must be one colour along the border"):
        cut_out("f", noise, "auto", "0")
    for bad in ("sort of green", "nowhere.png"):
        with pytest.raises(ValueError, match="`background` must be a colour such as"):
            as_background("f", bad)
    with pytest.raises(ValueError, match="`background` must be a colour"):
        as_background("f", (1, 0))
    with pytest.raises(ValueError, match=r"`background` must be in \[0, 1\]"):
        as_background("f", (255.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"`background` must be in \[0, 1\].*Divide 8-bit values by 255"):
        as_background("f", (255, 0, 0))
    white = as_background("f", (1, 1, 1))  # integers that are colours
    assert isinstance(white, torch.Tensor) and white.dtype == torch.float32 and white.tolist() == [1, 1, 1]
    masks = gd.PosedImages(None, SEEN.alpha.clamp(0, 1), EYES)
    with pytest.raises(ValueError, match="`images` must be in colour"):
        masks.without_background("white")


def test_an_object_of_its_colour_is_said() -> None:
    image = torch.full((64, 64, 3), 0.5)
    image[16:48, 16:48] = torch.tensor([0.9, 0.2, 0.2])
    image[24:40, 24:40] = 0.5
    with pytest.warns(UserWarning, match="the object may have the colour of the background"):
        cut_out("f", image, "auto", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cut_out("f", before(torch.tensor([1.0, 1.0, 1.0]))[1], "auto", "1")
        empty = cut_out("f", torch.ones(32, 32, 3), torch.ones(3), "none")
    assert float(empty.alpha.sum()) == 0


def test_without_masks(tmp_path: pathlib.Path) -> None:
    truth = gd.PosedImages(before(torch.ones(3)), SEEN.alpha.clamp(0, 1), EYES)
    path = truth.save(tmp_path)
    for image, name in zip(truth.images, truth.names, strict=True):  # without alpha
        Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).save(tmp_path / "images" / f"{name}.png")
    with pytest.raises(ValueError, match="images with an alpha channel"):
        gd.PosedImages.load(path)
    for ground in ("auto", "white", (1.0, 1.0, 1.0)):
        read = gd.PosedImages.load(path, background=ground)
        assert float((read.alpha - truth.alpha).abs().mean()) < 0.01
    assert json.loads(path.read_text())["frames"]
    before_ = truth.images.clone()
    cut = truth.without_background("white")
    assert float((cut.alpha - truth.alpha).abs().mean()) < 0.01 and torch.equal(before_, truth.images)
    fit = gd.tasks.fit_mesh(truth.images, EYES, background="white", hold_out=0, steps=2, progress=False)
    assert fit.iou_train > 0.9


def test_the_command(tmp_path: pathlib.Path) -> None:
    from click.testing import CliRunner

    from geodiff.cli import main

    path = gd.PosedImages(before(torch.ones(3)), SEEN.alpha.clamp(0, 1), EYES).save(tmp_path / "views")
    read = gd.PosedImages.load(path)
    for image, name in zip(before(torch.ones(3)), read.names, strict=True):
        Image.fromarray((image.numpy() * 255).round().astype(np.uint8)).save(path.parent / "images" / f"{name}.png")
    (tmp_path / "masks").mkdir()
    for alpha, name in zip(read.alpha, read.names, strict=True):
        Image.fromarray((alpha.numpy() * 255).round().astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    for k, more in enumerate((["--background", "auto"], ["--masks", str(tmp_path / "masks")])):
        options = ["--steps", "1", "--hold-out", "0", "--max-size", "48", *more]
        result = CliRunner().invoke(main, ["fit-mesh", str(path), "-o", str(tmp_path / f"out{k}"), *options])
        assert result.exit_code == 0, result.output
        metrics = json.loads((tmp_path / f"out{k}" / "metrics.json").read_text())
        assert metrics["iou_train"] > 0.9 and metrics["image_size"] == [48, 48]
