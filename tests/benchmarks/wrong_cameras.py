# SPDX-License-Identifier: Apache-2.0
"""Cameras turned, moved and zoomed at random, and how far `fit_mesh(refine_cameras=True)` brings them back.

24 anti-aliased masks. Each camera is turned by 2° about an axis of its own, moved by 2 % of its distance in a direction
of its own, and its focal length is 2 % too long or too short; eight seeds. Errors are medians over the views, after the
common rotation, offset and scale are taken out by a Procrustes alignment to the true cameras.

    python tests/benchmarks/wrong_cameras.py [--size 64] [--seeds 8] [--only airplane chair mug]
"""

import argparse
import math
import time

import torch

import geodiff as gd
from geodiff.scene.pose import rotation_from_vector

RING, SPHERE = 30.0, (-30.0, 0.0, 25.0, 50.0, 10.0)
SHAPES = {"airplane": (RING, SPHERE), "chair": (RING, SPHERE), "mug": (RING, SPHERE)}
_ROOT = __file__.rsplit("tests", 1)[0]


def disturbed(cameras: gd.Camera, seed: int, degrees: float = 2.0, part: float = 0.02) -> gd.Camera:
    """Return cameras that are wrong by so much, each in its own way."""
    random, count = torch.Generator().manual_seed(seed), len(cameras)
    exact = cameras.to(dtype=torch.float64)
    axis, way = (torch.nn.functional.normalize(torch.randn(count, 3, generator=random).double(), dim=-1) for _ in "ab")
    R = rotation_from_vector(axis * math.radians(degrees)) @ exact.rotation
    at = exact.position + part * way * exact.position.norm(dim=-1, keepdim=True)
    sign = 2.0 * torch.randint(0, 2, (count, 1), generator=random).double() - 1
    wrong = gd.Camera(R, -(R @ at[..., None])[..., 0], exact.focal * (1 + part * sign), exact.principal)
    return wrong.to(dtype=cameras.dtype)


def errors(cameras: gd.Camera, true: gd.Camera) -> tuple[float, float, float]:
    """Return median errors: rotation in degrees, position and focal length in per cent."""
    R, T = cameras.rotation.double(), true.rotation.double()
    u, _, vh = torch.linalg.svd((T.mT @ R).sum(0))
    Q = u @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(u @ vh))]).double()) @ vh
    trace = (R @ (T @ Q).mT).diagonal(dim1=-2, dim2=-1).sum(-1)
    angle = torch.rad2deg(torch.acos((0.5 * (trace - 1)).clamp(-1, 1)))
    p, q = cameras.position.double(), true.position.double() @ Q
    p, q = p - p.mean(0), q - q.mean(0)
    scale = (p * q).sum() / p.square().sum()
    place = (scale * p - q).norm(dim=-1) / true.position.double().norm(dim=-1)
    zoom = (cameras.focal[:, 0].double() / true.focal[:, 0].double() - 1).abs()
    return float(angle.median()), 100 * float(place.median()), 100 * float(zoom.median())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--only", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    options = parser.parse_args()
    print("| shape | elevations | rotation before, ° | after, least to greatest of the seeds | position, % |", end="")
    print(" focal length, % | IoU | CPU seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for name in options.only:
        truth = gd.Mesh.load(f"{_ROOT}assets/{name}.obj").normalized("box")
        for elevation in SHAPES[name]:
            images = gd.tasks.render_views(truth, views=24, elevation=elevation, size=options.size)
            before, after, iou, seconds = [], [], [], []
            for seed in range(options.seeds):
                wrong = disturbed(images.cameras, seed)
                start = time.process_time()
                fit = gd.tasks.fit_mesh(images.alpha, wrong, refine_cameras=True, hold_out=0, progress=False)
                seconds.append(time.process_time() - start)
                before.append(errors(wrong, images.cameras)[0])
                after.append(errors(fit.cameras, images.cameras))
                iou.append(fit.iou_train)
            ends = [f"{min(v):.2f} to {max(v):.2f}" for v in zip(*after, strict=True)]
            turn = sorted(a[0] for a in after)[len(after) // 2]
            views = "30" if elevation == RING else "five"
            print(
                f"| {name} | {views} | {sum(before) / len(before):.2f} | {turn:.2f} ({ends[0]}) |"
                f" {ends[1]} | {ends[2]} | {min(iou):.3f} to {max(iou):.3f} |"
                f" {min(seconds):.0f} to {max(seconds):.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
