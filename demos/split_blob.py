# SPDX-License-Identifier: Apache-2.0
"""One blob becomes two balls, from silhouettes alone: what no mesh with a fixed topology can.

    python demos/split_blob.py -o out [--quick]

The unknowns are the values of a function at the nodes of a grid, at first those of one large ball. At each step the
surface where they are 0 is extracted anew (gd.isosurface), rendered in six views, and compared with the silhouettes of
two balls; the gradient goes through the renderer and the mesh to the values. No step knows of topology: the waist gets
thinner, and one day the extraction finds two surfaces.

The picture shows the mesh at some steps, and the overlap of the silhouettes with the number of surfaces; table.txt has
the numbers.
"""

import argparse
import pathlib

import matplotlib
import torch

import geodiff as gd

matplotlib.use("Agg")
import matplotlib.pyplot as plt

BOX = [[-1.3] * 3, [1.3] * 3]
CENTRES = torch.tensor([[-0.5, 0.0, 0.0], [0.5, 0.0, 0.0]])


def overlap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the intersection of masks over their union."""
    a, b = a > 0.5, b > 0.5
    return float((a & b).sum() / (a | b).sum())


def main() -> None:
    """Fit, write the picture and the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=pathlib.Path, default=pathlib.Path("out"))
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    size, nodes, steps, rate = (32, 12, 40, 1.2) if options.quick else (64, 14, 80, 0.35)

    cameras = gd.Camera.orbit(4.0, 20, torch.arange(6) * 30.0, fov_deg=40)
    wanted = gd.isosurface(lambda p: (p[:, None] - CENTRES).norm(dim=-1).amin(-1) - 0.35, bounds=BOX, resolution=48)
    render = gd.Renderer(size, scale=1e-2, coverage="contour")
    target = render(wanted, cameras).alpha
    at = torch.linspace(-1.3, 1.3, nodes)
    values = torch.stack(torch.meshgrid(at, at, at, indexing="ij"), -1).norm(dim=-1) - 0.9
    values.requires_grad_()
    optimizer = torch.optim.Adam([values], lr=rate / nodes, betas=(0.8, 0.95))
    kept, history = {}, []
    for step in range(steps + 1):
        mesh = gd.isosurface(values, bounds=BOX)
        alpha = render(mesh, cameras).alpha
        history.append((overlap(alpha.detach(), target), int(gd.scene.face_components(mesh.detach()).max())))
        kept[step] = mesh.detach()
        optimizer.zero_grad()
        gd.losses.iou(alpha.clamp(0, 1), target).backward()
        optimizer.step()

    split = next((k for k, (_, parts) in enumerate(history) if parts > 1), steps)
    shown = sorted({0, split // 2, max(split - 1, 0), split, steps})
    rows = ["step  overlap  surfaces  Euler characteristic"]
    rows += [f"{k:<5} {history[k][0]:<8.4f} {history[k][1]:<9} {kept[k].euler_characteristic}" for k in shown]
    (options.output / "table.txt").write_text("\n".join(rows) + "\n")
    print("\n".join(rows))

    lights = [gd.AmbientLight(0.4), gd.DirectionalLight((0.3, 0.8, 1.0), 0.6)]
    camera = gd.Camera.look_at((0.0, 1.2, 3.4), (0.0, 0.0, 0.0), fov_deg=40)
    draw = gd.Renderer(260, coverage="antialiased", outputs=("rgb",), background=(1.0, 1.0, 1.0))
    figure, axes = plt.subplots(1, len(shown) + 1, figsize=(3 * len(shown) + 4, 3), layout="constrained")
    for axis, step in zip(axes, shown, strict=False):
        axis.imshow(draw(kept[step], camera, lights).rgb.clamp(0, 1).numpy())
        axis.set_title(f"step {step}")
        axis.axis("off")
    axes[-1].plot([score for score, _ in history], label="overlap of silhouettes")
    axes[-1].plot([parts / 2 for _, parts in history], drawstyle="steps-post", label="surfaces / 2")
    axes[-1].set(xlabel="step")
    axes[-1].legend()
    figure.savefig(options.output / "split_blob.png", dpi=80)


if __name__ == "__main__":
    main()
