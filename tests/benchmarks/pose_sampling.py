# SPDX-License-Identifier: Apache-2.0
"""A teapot's pose with and without gradients: the table of docs/optim.md.

    python tests/benchmarks/pose_sampling.py --pairs 12 -o out/pose_sampling.json

Pairs of a true pose and a start: the same camera farther away by a tenth, and turned by so many degrees about a random
axis; nothing else is told. Images are hard masks of 64². Each row follows the one start that it is given, but for the
last two, which have `fit_pose`'s screening and its several starts. Errors are geodesic angles of rotation. The teapot
looks alike from many sides when its handle is hidden: a mask that is right to the pixel may be off by ten degrees.
The solver by sampling was designed on the first 8 pairs of seed 5; those of other seeds were not looked at before.
"""

import argparse
import json
import math
import pathlib
import platform
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

import geodiff as gd
from geodiff import optim
from geodiff.tasks.pose.input import as_batch, sphere
from geodiff.tasks.pose.poses import Poses, rotation_angle_deg, rotation_from_vector
from geodiff.tasks.pose.settings import FitPoseSettings

ROOT = pathlib.Path(__file__).resolve().parents[2]
SIZE = 64
SETTINGS = FitPoseSettings().completed(60.0)
# By which the numbers of a pose move the picture about equally: rotation, image position, size, and no focal length.
UNITS = torch.tensor([1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.0])


def make_pairs(count: int, degrees: float, seed: int) -> list[tuple[gd.Camera, gd.Camera]]:
    """True cameras and starts."""
    g = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(count):
        elevation, azimuth = (40 * torch.randn(2, generator=g)).tolist()
        truth = gd.Camera.orbit(3.2, elevation, azimuth, fov_deg=40)
        axis = torch.nn.functional.normalize(torch.randn(3, generator=g), dim=0)
        turn = rotation_from_vector(math.radians(degrees) * axis)
        pairs.append((truth, gd.Camera(turn @ truth.rotation, truth.translation * 1.1, truth.focal)))
    return pairs


def poses_of(mesh: gd.Mesh, start: gd.Camera) -> Poses:
    centre, radius = sphere(mesh)
    lens = gd.Camera(torch.eye(3), torch.zeros(3), start.focal)
    return Poses.of(as_batch(start), lens, centre, radius)


def descended(mesh: gd.Mesh, start: gd.Camera, steps: int, slope: Callable[[Poses, float], torch.Tensor]) -> gd.Camera:
    """Adam in the tangent space, by any gradient (7,) of a pose at a share of the way."""
    poses, first, second = poses_of(mesh, start), torch.zeros(7), torch.zeros(7)
    for i in range(steps):
        g = slope(poses, i / steps) * UNITS
        first, second = 0.7 * first + 0.3 * g, 0.95 * second + 0.05 * g.square()
        move = first / (1 - 0.7 ** (i + 1)) / ((second / (1 - 0.95 ** (i + 1))).sqrt() + 1e-12)
        step = -0.05 * 0.05 ** (i / steps) * move * UNITS
        poses = poses.moved(step[None], SETTINGS).settled()
    return poses.cameras()[0]


def soft(mesh: gd.Mesh, start: gd.Camera, image: torch.Tensor, coverage: str) -> gd.Camera:
    """A hundred steps through the soft renderer, τ from 1e-1.5 to 1e-3."""

    def slope(poses: Poses, share: float) -> torch.Tensor:
        step = torch.zeros(1, 7, requires_grad=True)
        render = gd.Renderer(SIZE, "logistic", 10 ** (-1.5 - 1.5 * share), coverage=coverage)
        render.warn_of_bias = False
        alpha = render(mesh, poses.moved(step, SETTINGS).cameras()).alpha.clamp(0, 1)
        return torch.autograd.grad(gd.losses.iou(alpha, image[None]), step)[0][0]

    return descended(mesh, start, 100, slope)


def hard_loss(mesh: gd.Mesh, poses: Poses, image: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """1 − IoU of hard masks after steps (S, 7)."""
    around = poses[torch.zeros(len(steps), dtype=torch.long)].moved(steps, SETTINGS)
    mask = gd.rasterize(mesh, around.cameras(), SIZE).mask.float()
    return gd.losses.iou(mask, image.expand_as(mask), reduction="none")


def smoothed(mesh: gd.Mesh, start: gd.Camera, image: torch.Tensor, number: int) -> gd.Camera:
    """A hundred steps by the smoothed gradient of the hard overlap, ten masks each."""
    noise = torch.Generator().manual_seed(number)

    def slope(poses: Poses, share: float) -> torch.Tensor:
        sigma = 0.1 * 0.1**share * UNITS.clamp(min=0.01)
        loss = lambda z: hard_loss(mesh, poses, image, z)  # noqa: E731
        return optim.smoothed_gradient(loss, torch.zeros(7), sigma, 10, generator=noise).gradient

    return descended(mesh, start, 100, slope)


def resgro(mesh: gd.Mesh, start: gd.Camera, image: torch.Tensor, number: int) -> gd.Camera:
    """RESGRO on all six numbers of the pose, 24 steps of 40 masks."""
    noise, poses = torch.Generator().manual_seed(number), poses_of(mesh, start)
    for i in range(24):
        sigma = 0.1 * 0.05 ** (i / 24) * UNITS.clamp(min=1e-6)
        loss = lambda z, now=poses: hard_loss(mesh, now, image, z)  # noqa: E731
        best = optim.resgro_target(loss, torch.zeros(7), 40, sigma, keep=True, generator=noise)
        poses = poses.moved(best[None], SETTINGS).settled()
    return poses.cameras()[0]


def fitted(mesh: gd.Mesh, start: gd.Camera, image: torch.Tensor, **options: Any) -> gd.Camera:
    return gd.tasks.fit_pose(mesh, image, start=start, progress=False, **options).camera


METHODS: dict[str, Callable[..., gd.Camera]] = {
    'soft descent, `coverage="faces"`, 100 steps': lambda m, s, i, n: soft(m, s, i, "faces"),
    'soft descent, `coverage="contour"`, 100 steps': lambda m, s, i, n: soft(m, s, i, "contour"),
    "smoothed gradient of hard masks, 100 steps of 10": smoothed,
    "RESGRO of hard masks, six numbers, 24 steps of 40": resgro,
    '`fit_pose(method="sampling")`, one start': lambda m, s, i, n: fitted(m, s, i, method="sampling", starts=1, seed=n),
    "`fit_pose`, one start": lambda m, s, i, n: fitted(m, s, i, starts=1, steps=24),
    '`fit_pose(method="sampling")`': lambda m, s, i, n: fitted(m, s, i, method="sampling", seed=n),
    "`fit_pose`": lambda m, s, i, n: fitted(m, s, i),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=12, help="for each angle")
    parser.add_argument("--degrees", type=float, nargs="+", default=[15.0, 35.0], help="between start and truth")
    parser.add_argument("--seed", type=int, default=5, help="of the pairs")
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out/pose_sampling.json"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of images that no pose explains
    torch.set_num_threads(1)
    mesh = gd.Mesh.load(ROOT / "assets" / "teapot.obj")
    rows = []
    for degrees in options.degrees:
        pairs = make_pairs(options.pairs, degrees, options.seed)
        for name, method in METHODS.items():
            angles, overlaps, used = [], [], time.process_time()
            for number, (truth, start) in enumerate(pairs):
                image = gd.rasterize(mesh, truth, SIZE).mask.float()
                camera = method(mesh, start, image, number)
                angles.append(float(rotation_angle_deg(camera.rotation, truth.rotation)))
                mask = gd.rasterize(mesh, camera, SIZE).mask.float()
                overlaps.append(float(1 - gd.losses.iou(mask, image)))
            used = (time.process_time() - used) / len(pairs)
            angle, overlap = torch.tensor(angles), torch.tensor(overlaps)
            row = {"method": name, "degrees": degrees, "angles": angles, "overlaps": overlaps, "seconds": used}
            rows.append({**row, "median": float(angle.median()), "found": int((angle < 3).sum())})
            text = f"| {degrees:g}° | {name} | {float(angle.median()):.2f} | {int((angle < 3).sum())}/{len(pairs)} |"
            print(f"{text} {float(overlap.median()):.3f} | {used:.2f} |", flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "size": SIZE,
        "seed": options.seed,
    }
    options.output.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
