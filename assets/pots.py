# SPDX-License-Identifier: Apache-2.0
"""The teapot and the mug, from Bézier patches of our own drawing. NumPy only."""

import numpy as np
from bezier import Builder, evaluate, sweep

# Radius and height of the teapot's outline, from the knob down to the middle of the foot.
TEAPOT = np.array(
    [
        [(0.00, 1.31), (0.09, 1.31), (0.155, 1.27), (0.155, 1.20)],  # knob
        [(0.155, 1.20), (0.155, 1.13), (0.075, 1.13), (0.075, 1.07)],
        [(0.075, 1.07), (0.075, 1.03), (0.20, 1.02), (0.30, 0.99)],  # lid
        [(0.30, 0.99), (0.44, 0.95), (0.58, 0.90), (0.655, 0.825)],
        [(0.655, 0.825), (0.67, 0.81), (0.66, 0.79), (0.65, 0.785)],  # groove under the lid
        [(0.65, 0.785), (0.68, 0.81), (0.72, 0.80), (0.735, 0.76)],  # rim
        [(0.735, 0.76), (0.88, 0.64), (1.00, 0.42), (1.00, 0.12)],  # body
        [(1.00, 0.12), (1.00, -0.22), (0.83, -0.47), (0.66, -0.58)],
        [(0.66, -0.58), (0.63, -0.60), (0.64, -0.64), (0.67, -0.68)],  # foot
        [(0.67, -0.68), (0.69, -0.71), (0.65, -0.72), (0.62, -0.71)],
        [(0.62, -0.71), (0.56, -0.67), (0.30, -0.66), (0.00, -0.66)],
    ]
)


def teapot() -> tuple[np.ndarray, np.ndarray]:
    """Return a teapot, spout towards +x and handle towards −x: one closed surface of genus 1."""
    body = Builder(TEAPOT, rows=[4, 3, 3, 4, 2, 2, 6, 6, 2, 2, 3], columns=36)
    # The spout: outer walls, the turn of the lip, the channel down to its blind end.
    tip, half, up = np.array([1.585, 0.735]), np.array([-0.105, 0.06]), np.array([0.030, 0.052])
    top = np.array(
        [
            [(0.60, 0.26), (0.99, 0.22), (1.16, 0.32), (1.235, 0.475)],
            [(1.235, 0.475), (1.300, 0.610), (1.37, 0.72), tip + half],
            [tip + half, tip + 1.05 * half + 0.4 * up, tip + 0.95 * half + 0.7 * up, tip + 0.82 * half + 0.3 * up],
            [tip + 0.82 * half + 0.3 * up, tip + 0.70 * half - 0.1 * up, (1.41, 0.60), (1.37, 0.50)],
        ]
    )
    bottom = np.array(
        [
            [(0.60, -0.33), (1.16, -0.36), (1.27, -0.06), (1.37, 0.20)],
            [(1.37, 0.20), (1.450, 0.408), (1.53, 0.62), tip - half],
            [tip - half, tip - 1.05 * half + 0.4 * up, tip - 0.95 * half + 0.7 * up, tip - 0.82 * half + 0.3 * up],
            [tip - 0.82 * half + 0.3 * up, tip - 0.70 * half - 0.1 * up, (1.45, 0.56), (1.37, 0.50)],
        ]
    )
    width = np.array(
        [[0.25, 0.24, 0.165, 0.125], [0.125, 0.10, 0.092, 0.092], [0.092, 0.096, 0.088, 0.076], [0.076, 0.06, 0.03, 0]]
    )
    spout = sweep(top, bottom, width, side=1)
    joint, last = body.attach(spout, inside=0.05, outside=1.2, hole=(21, 27, 0, 2), segments=(6, 8))
    angle = 2 * np.pi * np.arange(len(joint)) / len(joint)
    for step in range(1, 10):
        ring = body.ring(evaluate(spout, joint + (2 - joint) * step / 9, angle))
        body.strip(last, ring)
        last = ring
    for along in (2.3, 2.6, 3.0, 3.35, 3.7):
        ring = body.ring(evaluate(spout, np.full(len(angle), along), angle))
        body.strip(last, ring)
        last = ring
    (end,) = body.ring(evaluate(spout, np.array([4.0]), np.zeros(1)))
    body.fan(last, end)
    # The handle, thicker where it meets the body.
    centre = np.array(
        [
            [(-0.60, 0.47), (-1.02, 0.66), (-1.53, 0.68), (-1.55, 0.27)],
            [(-1.55, 0.27), (-1.566, -0.05), (-1.25, -0.24), (-0.70, -0.32)],
        ]
    )
    radius = np.array([[0.100, 0.088, 0.080, 0.078], [0.078, 0.078, 0.084, 0.100]])
    body.handle(centre, radius, 1.35 * radius, holes=((18, 21, 18, 1), (24, 27, 18, 1)), segments=(6, 8), steps=18)
    return body.mesh()


# From the middle of the mug's floor up the inner wall, over the rim and down the outer wall.
MUG = np.array(
    [
        [(0.00, -0.34), (0.10, -0.34), (0.20, -0.34), (0.215, -0.34)],
        [(0.215, -0.34), (0.25, -0.34), (0.262, -0.31), (0.263, -0.27)],
        [(0.263, -0.27), (0.268, -0.05), (0.268, 0.16), (0.272, 0.37)],
        [(0.272, 0.37), (0.273, 0.41), (0.309, 0.41), (0.310, 0.37)],  # rim
        [(0.310, 0.37), (0.307, 0.15), (0.309, -0.10), (0.300, -0.33)],
        [(0.300, -0.33), (0.298, -0.38), (0.280, -0.40), (0.250, -0.40)],
        [(0.250, -0.40), (0.230, -0.40), (0.225, -0.385), (0.205, -0.385)],
        [(0.205, -0.385), (0.15, -0.385), (0.08, -0.385), (0.00, -0.385)],
    ]
)


def mug() -> tuple[np.ndarray, np.ndarray]:
    """Return a mug, its handle towards +x: one closed surface of genus 1."""
    body = Builder(MUG, rows=[3, 3, 7, 4, 14, 3, 1, 3], columns=36)
    centre = np.array(
        [
            [(0.22, 0.23), (0.36, 0.27), (0.57, 0.25), (0.55, 0.05)],
            [(0.55, 0.05), (0.533, -0.12), (0.42, -0.20), (0.22, -0.24)],
        ]
    )
    radius = np.array([[0.046, 0.038, 0.035, 0.035], [0.035, 0.035, 0.038, 0.046]])
    body.handle(centre, radius, 1.4 * radius, holes=((17, 20, 0, 2), (26, 29, 0, 2)), segments=(4, 5), steps=18)
    return body.mesh()
