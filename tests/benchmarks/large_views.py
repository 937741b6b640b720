# SPDX-License-Identifier: Apache-2.0
"""Memory of a fit to many large photographs: the greatest resident size, each row in a process of its own.

Photographs of a painted solid are written as PNG files of 8 bits and read by `fit_mesh` as by `geodiff fit-mesh`: a few
steps, one photometric round of eight and the colours, which together show the peak. Seconds are of the processor.
`--kind read` and `hull` stop after the first stages.

    python tests/benchmarks/large_views.py [--views 50 100 200] [--size 1024] [--kind vertices] [--steps 2] [--rounds 1]
"""

import argparse
import json
import math
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image

import geodiff as gd

KINDS = ("read", "hull", "silhouettes", "vertices", "texture", "sky")


def write(folder: pathlib.Path, views: int, size: int) -> None:
    """Photograph a painted solid, view by view."""
    from textured import cameras, fine_paint

    mesh, eyes = gd.torus(0.3, 0.14, nu=96, nv=48), cameras(views)
    tiny = gd.PosedImages(torch.ones(views, 1, 1, 3), torch.ones(views, 1, 1), eyes).save(folder)
    meta = json.loads(tiny.read_text())
    focal = float(eyes.K((size, size))[0, 0, 0])
    lens = {"w": size, "h": size, "fl_x": focal, "fl_y": focal, "cx": size / 2, "cy": size / 2}
    for frame in (meta, *meta["frames"]):
        frame.pop("camera_angle_x", None)
        frame.update({key: value for key, value in lens.items() if frame is meta or key in frame})
    tiny.write_text(json.dumps(meta))
    for i, frame in enumerate(meta["frames"]):
        hard = gd.rasterize(mesh, eyes[i], size)
        at = (mesh.vertices[mesh.faces][hard.face_id.clamp_min(0)] * hard.barycentric[..., None]).sum(-2)
        picture = torch.cat((fine_paint(at).clamp(0, 1), hard.mask[..., None].float()), -1)
        Image.fromarray((picture * 255).round().to(torch.uint8).numpy()).save(folder / frame["file_path"])


def measured(folder: pathlib.Path, kind: str, steps: int, rounds: int) -> dict:
    """Fit in this process, and return what it took."""
    from geodiff.tasks.mesh import photometric

    photometric._BLURS = photometric._BLURS[-rounds:]
    begin = time.process_time()
    if kind in ("read", "hull"):  # in colour
        images = gd.PosedImages.load(folder)
        mesh = gd.tasks.visual_hull(images) if kind == "hull" else None
        return {
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "cpu": time.process_time() - begin,
            "psnr": None,
            "iou": math.nan,
            "faces": 0 if mesh is None else mesh.num_faces,
        }
    if kind == "silhouettes":
        images, how = gd.PosedImages.load(folder, colors=False), {}
    else:
        images, how = folder, {"texture": kind != "vertices", "vertex_colors": kind == "vertices"}
        how |= {"light": "harmonics"} if kind == "sky" else {}
    fit = gd.tasks.fit_mesh(images, steps=steps, progress=False, **how)
    quality = None if fit.colors is None else float(np.nanmean(fit.colors.psnr[fit.held_out].numpy()))
    return {
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "cpu": time.process_time() - begin,
        "psnr": quality,
        "iou": fit.iou_held_out,
        "faces": fit.mesh.num_faces,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--views", nargs="+", type=int, default=[50, 100, 200])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=["vertices"])
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1, help="photometric ones: all take the same memory")
    parser.add_argument("--one", type=pathlib.Path, help="measure a folder in this process")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.kind[0], options.steps, options.rounds)))
        return
    print("| views | size | colours | peak, MB | CPU seconds | held-out PSNR | IoU | triangles |")
    print("|---|---|---|---|---|---|---|---|")
    for views in options.views:
        with tempfile.TemporaryDirectory() as folder:
            write(pathlib.Path(folder), views, options.size)
            for kind in options.kind:
                command = [sys.executable, __file__, "--one", folder, "--kind", kind]
                command += ["--steps", str(options.steps), "--rounds", str(options.rounds)]
                text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                r = json.loads(text.splitlines()[-1])
                psnr = "" if r["psnr"] is None else f"{r['psnr']:.1f}"
                print(
                    f"| {views} | {options.size}² | {kind} | {r['peak_mb']:.0f} | {r['cpu']:.0f} |"
                    f" {psnr} | {r['iou']:.3f} | {r['faces']} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
