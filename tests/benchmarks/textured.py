# SPDX-License-Identifier: Apache-2.0
"""Textured shapes from photographs: 48 views of 256², `fit_mesh(texture=True)`, PSNR and SSIM of held-out views.

The shapes are solids with a paint that is a function of the place, photographed with 16 samples a pixel and written as
PNG files of 8 bits, as a user has them. Every sixth view is held out. PSNR is given twice: over the pixels that
photograph and mesh both cover wholly, and over whole pictures on white, where outlines count, too. Settings were chosen
on `solids.TRAIN`; shapes of `solids.TEST` are reported.

    python tests/benchmarks/textured.py [--only NAME ...] [--paint NAME ...] [--light NAME ...] [--starts 8]
    python tests/benchmarks/textured.py --tutorial [--only NAME ...]

`--tutorial` has the views, lens, lamp and gloss of PyTorch3D's tutorial "Fit a mesh via rendering", which fits all 20
views; here new ones between them are measured besides.
"""

import argparse
import json
import math
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterable

import torch
from solids import TEST, TRAIN

import geodiff as gd
from geodiff.tasks.mesh import harmonics

Paint = Callable[[torch.Tensor], torch.Tensor]
VIEWS, SIZE, SAMPLES = 48, 256, 4
LAMPS = [gd.AmbientLight(0.35), gd.DirectionalLight((1, 2, 3), 0.5), gd.DirectionalLight((-3, 1, 0), 0.25)]
GLOSS = gd.Material(specular=2 / 3, shininess=64)  # times the lamp's 0.3 it is 0.2, as PyTorch3D has it
TUTORIAL = [gd.AmbientLight(0.5), gd.PointLight((0, 0, -3), 0.3)]
SPOT = pathlib.Path(__file__).parents[3] / "shared" / "data" / "spot_triangulated.obj"


def soft_paint(p: torch.Tensor) -> torch.Tensor:
    """Colours that change over a fifth of the object."""
    x, y, z = (14 * p).unbind(-1)
    return 0.5 + 0.35 * torch.stack([torch.sin(x + torch.sin(y)), torch.cos(y - z), torch.sin(1.3 * z + x)], -1)


def fine_paint(p: torch.Tensor) -> torch.Tensor:
    """Colours over a checkerboard of squares of 4 % with edges of 1 %, and dots on it."""
    waves = torch.sin(math.pi / 0.04 * p)
    board = torch.sigmoid(12 * waves.prod(-1))
    dots = torch.sigmoid(60 * (torch.cos(2 * math.pi / 0.11 * (p + 0.03)).mean(-1) - 0.6))
    color = soft_paint(p) * (0.55 + 0.45 * board[..., None])
    return color * (1 - dots[..., None]) + dots[..., None] * torch.tensor([0.95, 0.9, 0.2])


def sky() -> torch.Tensor:
    """Light from far away, (9, 3): bluish from above, warm from one side."""
    light = torch.zeros(9, 3)
    light[0] = torch.tensor([0.62, 0.64, 0.68])
    light[1] = torch.tensor([0.08, 0.10, 0.14])
    light[3] = torch.tensor([0.12, 0.08, 0.03])
    light[4] = torch.tensor([0.02, 0.01, 0.0])
    return light


def cameras(views: int = VIEWS) -> gd.Camera:
    """Eyes spread evenly, from 50° below to 60° above."""
    i = torch.arange(views)
    low, high = math.sin(math.radians(-50)), math.sin(math.radians(60))
    heights = torch.rad2deg(torch.asin(low + (high - low) * (i + 0.5) / views))
    return gd.Camera.orbit(2.6, heights, i * 180 * (3 - math.sqrt(5)) % 360, fov_deg=28)


def photographs(mesh: gd.Mesh, paint: Paint | None, light: str, eyes: gd.Camera, size: int = SIZE) -> gd.PosedImages:
    """Photograph a mesh with a paint, or with its own texture."""
    images, alphas = [], []
    fine = size * SAMPLES
    bare = mesh.with_attributes(uv=None, uv_faces=None, texture=None, material=GLOSS if light == "tutorial" else None)
    black = bare.with_attributes(vertex_colors=torch.zeros_like(mesh.vertices))
    white = bare.with_attributes(vertex_colors=torch.ones_like(mesh.vertices))
    lamps = TUTORIAL if light == "tutorial" else LAMPS
    lit = gd.Renderer(fine, coverage="hard", outputs="rgb", shading="phong")
    for i in range(len(eyes)):
        hard = gd.rasterize(mesh, eyes[i], fine)
        face, share = hard.face_id.clamp_min(0), hard.barycentric
        if paint is None:
            color = gd.Renderer(fine, coverage="hard", outputs="rgb", shading="unlit")(mesh, eyes[i]).rgb
        else:
            color = paint((mesh.vertices[mesh.faces][face] * share[..., None]).sum(-2)).clamp(0, 1)
        if light in ("lamps", "tutorial"):
            shine = lit(black, eyes[i], lamps).rgb
            color = color * (lit(white, eyes[i], lamps).rgb - shine) + shine
        elif light == "sky":
            normal = (mesh.vertex_normals[mesh.faces][face] * share[..., None]).sum(-2)
            color = color * (harmonics.basis(torch.nn.functional.normalize(normal, dim=-1)) @ sky())
        mask = hard.mask.float()
        mean = torch.nn.functional.avg_pool2d
        alpha = mean(mask[None], SAMPLES)[0]
        color = mean((color * mask[..., None]).movedim(-1, 0)[None], SAMPLES)[0].movedim(0, -1)
        images.append((color / alpha.clamp_min(1e-6)[..., None]).clamp(0, 1))
        alphas.append(alpha)
    return gd.PosedImages(torch.stack(images), torch.stack(alphas), eyes)


def whole_psnr(
    fit: gd.tasks.FitMeshResult, images: gd.PosedImages, lights: list | None, views: Iterable[int] | None = None
) -> float:
    """Return the mean PSNR of the held-out views, or of others, as whole pictures on white."""
    from geodiff.tasks.mesh.colors import picture

    found = []
    for i in fit.held_out if views is None else views:
        light = fit.colors.harmonics
        color, alpha = picture(fit.mesh, images.cameras[i : i + 1], images.image_size, lights, light, 4)
        target = images.photograph(i) * images.alpha[i][..., None] + 1 - images.alpha[i][..., None]
        found.append(float(gd.render.psnr((color + 1 - alpha[..., None]).clamp(0, 1), target)))
    return sum(found) / len(found)


def tutorial_cameras(between: bool = False) -> gd.Camera:
    """Twenty eyes on one turn over the poles, the last where the first is: distance 2.7, 60°; or those between them."""
    heights, azimuths = torch.linspace(0, 360, 20), torch.linspace(-180, 180, 20)
    if between:
        heights, azimuths = (0.5 * (angles[1:] + angles[:-1]) for angles in (heights, azimuths))
    over = (heights > 90) & (heights < 270)
    azimuths = torch.where(over, azimuths + 180, azimuths) % 360
    heights = torch.where(over, 180 - heights, torch.where(heights >= 270, heights - 360, heights))
    return gd.Camera.orbit(2.7, heights, azimuths, fov_deg=60)


def tutorial_row(mesh: gd.Mesh, paint: Paint | None, save: pathlib.Path | None) -> dict:
    """Fit the tutorial's twenty views, and measure those and the nineteen between them."""
    from geodiff.tasks.mesh.colors import scores

    mesh = mesh.with_vertices(mesh.vertices - mesh.vertices.mean(0))
    mesh = mesh.with_vertices(mesh.vertices / mesh.vertices.abs().max())
    sets = []
    for between in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            photographs(mesh, paint, "tutorial", tutorial_cameras(between), 128).save(folder)
            sets.append(gd.PosedImages.load(folder))
    begin, cpu = time.perf_counter(), time.process_time()
    fit = gd.tasks.fit_mesh(sets[0], texture=True, lights=TUTORIAL, material=GLOSS, hold_out=0, progress=False)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    psnr, ssim = scores(fit.mesh, sets[1], TUTORIAL, None, 2)
    overlap = gd.rasterize(fit.mesh, sets[1].cameras, 128).mask, sets[1].alpha >= 0.5
    iou = (overlap[0] & overlap[1]).sum((1, 2)) / (overlap[0] | overlap[1]).sum((1, 2))
    return {
        "psnr": float(psnr.mean()),
        "whole": whole_psnr(fit, sets[1], TUTORIAL, range(19)),
        "ssim": float(ssim.mean()),
        "train": float(fit.colors.psnr.mean()),
        "train whole": whole_psnr(fit, sets[0], TUTORIAL, range(20)),
        "true shape": math.nan,
        "iou": float(iou.mean()),
        "faces": fit.mesh.num_faces,
        "seconds": seconds,
        "cpu": cpu,
    }


def row(
    mesh: gd.Mesh,
    paint: Paint | None,
    light: str,
    save: pathlib.Path | None,
    start: int = 0,
    photometric: bool = True,
) -> dict:
    if start:  # a start moved by a millionth: what is luck would show
        noise = torch.randn(mesh.vertices.shape, generator=torch.Generator().manual_seed(start))
        mesh = mesh.with_vertices(mesh.vertices + 1e-6 * noise)
    with tempfile.TemporaryDirectory() as folder:
        photographs(mesh, paint, light, cameras()).save(folder)
        images = gd.PosedImages.load(folder)
    lights = LAMPS if light == "lamps" else None
    how = {"photometric": photometric, **({"light": "harmonics"} if light == "sky" else {})}
    begin, cpu = time.perf_counter(), time.process_time()
    fit = gd.tasks.fit_mesh(images, texture=True, lights=lights, output=save, progress=False, **how)
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    held = fit.held_out
    true_shape = math.nan
    if start == 0:
        bare = mesh.with_attributes(uv=None, uv_faces=None, texture=None)
        kind = lights or ("harmonics" if light == "sky" else "baked")
        true_shape = float(gd.tasks.fit_colors(bare, images, views=fit.train, lights=kind).psnr[held].mean())
    return {
        "psnr": float(fit.colors.psnr[held].mean()),
        "whole": whole_psnr(fit, images, lights),
        "ssim": float(fit.colors.ssim[held].mean()),
        "train": float(fit.colors.psnr[fit.train].mean()),
        "true shape": true_shape,
        "iou": fit.iou_held_out,
        "faces": fit.mesh.num_faces,
        "seconds": seconds,
        "cpu": cpu,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=[*TEST, *TRAIN, "spot"], default=["padlock", "pipe bend", "spot"])
    parser.add_argument("--light", nargs="*", choices=["unlit", "lamps", "sky"], default=["unlit", "lamps", "sky"])
    parser.add_argument("--paint", nargs="*", choices=["soft", "fine"], default=["soft", "fine"])
    parser.add_argument("--starts", type=int, default=1)
    parser.add_argument("--tutorial", action="store_true", help="20 views of 128², as PyTorch3D's tutorial has them")
    parser.add_argument("--no-photometric", action="store_true", help="the shape is that of the silhouettes")
    parser.add_argument("--save", type=pathlib.Path)
    options = parser.parse_args()
    print(
        "| shape | paint | light | PSNR | of whole pictures | SSIM | of views fitted | on the true shape | IoU |",
        end="",
    )
    print(" triangles | seconds, CPU |\n|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in options.only:
        if name == "spot" and not SPOT.exists():
            continue
        mesh = gd.Mesh.load(SPOT).normalized("box") if name == "spot" else {**TEST, **TRAIN}[name].mesh(128)
        for paint in ["own"] if name == "spot" else options.paint:
            for light in ["tutorial"] if options.tutorial else options.light:
                for start in range(options.starts):
                    save = options.save and options.save / f"{name}-{paint}-{light}-{start}".replace(" ", "_")
                    how = {"soft": soft_paint, "fine": fine_paint, "own": None}[paint]
                    if options.tutorial:
                        r = tutorial_row(mesh, how, save)
                    else:
                        r = row(mesh, how, light, save, start, not options.no_photometric)
                    rows.append({"name": name, "paint": paint, "light": light, "start": start, **r})
                    print(
                        f"| {name} | {paint} | {light} | {r['psnr']:.2f} | {r['whole']:.2f} | {r['ssim']:.4f} |"
                        f" {r['train']:.2f} | {r['true shape']:.2f} | {r['iou']:.3f} | {r['faces']} |"
                        f" {r['seconds']:.0f}, {r['cpu']:.0f} |",
                        flush=True,
                    )
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
