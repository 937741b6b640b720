# SPDX-License-Identifier: Apache-2.0
"""How right the gradient at visibility edges is, by the size of the picture.

Scenes that move along one parameter; the change of a smooth loss of their colours over an interval of it, from two
pictures of 1 536² samples, against the mean of the derivative over places in it, at 32² to 256² pixels. Given are the
quotient of the two, which is 1 without bias, and the scatter of a single picture's derivative about that mean.

    python tests/benchmarks/visibility_bias.py
"""

import argparse

import torch

import geodiff as gd
from tests.lit_scenes import DOUBLE
from tests.render.test_visibility import CAMERA, SCENES, loss, wire

WIRES = (4.0, 1.0, 0.25)  # widths in pixels of the smallest picture


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=24)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128, 256])
    options = parser.parse_args()
    scenes = {name: scene for name, scene in SCENES.items() if "wire" not in name}
    for pixels in WIRES:
        scenes[f"a wire {pixels:g} pixels wide at 32²"] = lambda t, pixels=pixels: wire(pixels / 32, t)
    step = 0.05
    fine = gd.Renderer(1536, coverage="hard", outputs="rgb")
    print(f"{'scene':<40}{'coverage':<14}" + "".join(f"{f'{n}²':>14}" for n in options.sizes))
    for name, scene in scenes.items():
        with torch.no_grad():
            low, high = (float(loss(fine(scene(torch.tensor(t, dtype=DOUBLE)), CAMERA).rgb)) for t in (-step, step))
        expected = (high - low) / (2 * step)
        for coverage in ("hard", "antialiased"):
            cells = []
            for size in options.sizes:
                render, found = gd.Renderer(size, coverage=coverage, outputs="rgb"), []
                for t in (torch.arange(options.places, dtype=DOUBLE) + 0.5) / options.places * 2 * step - step:
                    t.requires_grad_()
                    found.append(torch.autograd.grad(loss(render(scene(t), CAMERA).rgb), t)[0])
                values = torch.stack(found) / expected
                cells.append(f"{float(values.mean()):.3f} ±{float(values.std()):.2f}")
            print(f"{name:<40}{coverage:<14}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
