# SPDX-License-Identifier: Apache-2.0
"""Random members of four classes as implicit functions: airplanes, chairs, pots and lamps. NumPy only.

``member("chair", 7)`` is the same chair each time: a function of points (N, 3), negative inside, y up, about unit size.
"""

from collections.abc import Callable

import numpy as np
from shapes import capsule, polygon, rounded_box, smooth_union, tube

Solid = Callable[[np.ndarray], np.ndarray]


def airplane(random: np.random.Generator) -> Solid:
    """Fuselage, swept wings, level tail and fin; perhaps engines under the wings."""
    width = random.uniform(0.045, 0.085)
    span, root, tip = random.uniform(0.3, 0.55), random.uniform(0.16, 0.32), random.uniform(0.06, 0.14)
    sweep, at, high = random.uniform(-0.02, 0.3), random.uniform(-0.05, 0.2), random.uniform(-0.6, 0.7) * width
    tail, fin = random.uniform(0.12, 0.24), random.uniform(0.1, 0.22)
    engines, out = random.random() < 0.6, random.uniform(0.3, 0.55) * span

    def solid(p: np.ndarray) -> np.ndarray:
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        mirrored = np.stack([x, y, z], 1)
        t = np.linspace(0, 1, 30)
        path = np.stack([0 * t, 0.04 * np.clip(0.4 - t, 0, 1), t - 0.5], 1)
        radius = width * np.minimum(1, np.minimum(0.25 + 2.2 * t, 0.35 + 4 * (1 - t)))
        body = tube(mirrored, path, radius)
        wings = np.hypot(
            polygon(x, z, [(0, at - root), (span, at - sweep - tip), (span, at - sweep), (0, at)]), y - high
        )
        level = np.hypot(polygon(x, z, [(0, -0.48), (tail, -0.52), (tail, -0.45), (0, -0.34)]), y - 0.03)
        upright = np.hypot(polygon(y, z, [(0, -0.48), (fin + 0.04, -0.52), (fin + 0.04, -0.44), (0, -0.33)]), x)
        whole = smooth_union(body, wings - 0.02, 0.03)
        whole = np.minimum(whole, np.minimum(level, upright) - 0.018)
        if engines:
            ahead = at - sweep * out / span
            engine = capsule(mirrored, [out, high - 0.05, ahead - 0.1], [out, high - 0.05, ahead + 0.05], 0.035, 0.04)
            whole = np.minimum(whole, engine)
        return whole

    return solid


def chair(random: np.random.Generator) -> Solid:
    """Seat, back and legs; perhaps arms."""
    width, deep, thick = random.uniform(0.16, 0.28), random.uniform(0.16, 0.27), random.uniform(0.02, 0.06)
    leg, foot, splay = random.uniform(0.2, 0.42), random.uniform(0.03, 0.045), random.uniform(0, 0.06)
    back, lean, panel = random.uniform(0.2, 0.5), random.uniform(0, 0.2), random.uniform(0.03, 0.05)
    arms, above = random.random() < 0.4, random.uniform(0.12, 0.2)

    def solid(p: np.ndarray) -> np.ndarray:
        x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
        mirrored = np.stack([x, y, z], 1)
        whole = rounded_box(mirrored, [0, 0, 0], [width, thick, deep], 0.015)
        for side in (-1.0, 1.0):
            top = [width - foot, 0.0, side * (deep - foot)]
            bottom = [width - foot + splay, -leg, side * (deep - foot + splay)]
            whole = np.minimum(whole, capsule(mirrored, top, bottom, foot, 0.8 * foot))
        leaning = np.stack([x, y - back / 2, z + deep - panel + lean * np.clip(y, 0, 1)], 1)
        whole = np.minimum(whole, rounded_box(leaning, [0, 0, 0], [width, back / 2, panel], 0.015))
        if arms:
            whole = np.minimum(whole, capsule(mirrored, [width, above, -deep], [width, above, deep], 0.025, 0.025))
            whole = np.minimum(
                whole, capsule(mirrored, [width, 0, 0.8 * deep], [width, above, 0.8 * deep], 0.022, 0.022)
            )
        return whole

    return solid


def pot(random: np.random.Generator) -> Solid:
    """A round body with a lid and a knob, a handle and a spout; solid, since no silhouette tells what is hollow."""
    wide, high, square = random.uniform(0.22, 0.36), random.uniform(0.14, 0.34), random.uniform(2.0, 5.0)
    knob, stalk = random.uniform(0.035, 0.07), random.uniform(0.02, 0.08)
    ring, rod, squash = random.uniform(0.09, 0.17), random.uniform(0.03, 0.045), random.uniform(0.9, 1.5)
    reach, rise = random.uniform(0.1, 0.25), random.uniform(-0.05, 0.25)
    thick, thin = random.uniform(0.05, 0.09), random.uniform(0.03, 0.045)

    def solid(p: np.ndarray) -> np.ndarray:
        x, y, z = p.T
        across = np.hypot(x, z)
        body = min(wide, high) * (((across / wide) ** square + np.abs(y / high) ** square) ** (1 / square) - 1)
        top = np.sqrt(across**2 + (y - high - stalk) ** 2) - knob
        stem = capsule(p, [0, 0, 0], [0, high + stalk, 0], 0.03, 0.03)
        handle = np.hypot(np.hypot(x - wide - 0.3 * ring, y / squash) - ring, z) - rod
        spout = capsule(p, [-0.8 * wide, -0.2 * high, 0], [-wide - reach, -0.2 * high + rise, 0], thick, thin)
        return smooth_union(np.minimum(np.minimum(body, handle), np.minimum(top, stem)), spout, 0.03)

    return solid


def lamp(random: np.random.Generator) -> Solid:
    """A foot, a stem and a shade: a cone cut off, or a ball."""
    foot, stem = random.uniform(0.12, 0.26), random.uniform(0.03, 0.055)
    high, upper, lower = random.uniform(0.3, 0.5), random.uniform(0.06, 0.2), random.uniform(0.16, 0.32)
    tall, belly, round_shade = random.uniform(0.1, 0.2), random.uniform(0, 0.11), random.random() < 0.4

    def solid(p: np.ndarray) -> np.ndarray:
        x, y, z = p.T
        across = np.hypot(x, z)
        base = np.maximum(across - foot, np.abs(y + high) - 0.03)
        rod = capsule(p, [0, -high, 0], [0, high, 0], stem, stem)
        bulge = np.sqrt(across**2 + ((y + 0.4 * high) / 1.6) ** 2) - (stem + belly)
        if round_shade:
            shade = np.sqrt(across**2 + (y - high) ** 2) - lower * 0.85
        else:
            share = np.clip((y - high + tall) / (2 * tall), 0, 1)
            shade = np.maximum(across - lower - (upper - lower) * share, np.abs(y - high) - tall)
        return np.minimum(smooth_union(base, smooth_union(rod, bulge, 0.04), 0.03), shade)

    return solid


CLASSES: dict[str, Callable[[np.random.Generator], Solid]] = {
    "airplane": airplane,
    "chair": chair,
    "pot": pot,
    "lamp": lamp,
}


def member(name: str, number: int) -> Solid:
    """Return a member of a class; each number is another one, and always the same."""
    return CLASSES[name](np.random.default_rng([list(CLASSES).index(name), number]))
