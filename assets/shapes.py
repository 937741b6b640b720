# SPDX-License-Identifier: Apache-2.0
"""The airplane and the chair as implicit functions: distances to simple parts, smoothly united.

Built roughly to unit size, y up; ``make_assets`` centres and scales them. NumPy only.
"""

import numpy as np


def smooth_union(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Unite two shapes with a fillet of about ``radius`` (a quadratic blend)."""
    overlap = np.maximum(radius - np.abs(a - b), 0) / radius
    return np.minimum(a, b) - 0.25 * radius * overlap**2


def smooth_cut(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Cut b out of a, with a rounded edge."""
    return -smooth_union(-a, b, radius)


def rounded_box(p: np.ndarray, centre: list[float], half: list[float], radius: float) -> np.ndarray:
    """Distance to a box of half sizes ``half``, its edges rounded."""
    q = np.abs(p - np.array(centre)) - np.array(half) + radius
    return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(1), 0) - radius


def tube(p: np.ndarray, path: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Distance to spheres strung along a path (N, 3), of radius (N,)."""
    best = np.full(len(p), np.inf)
    for centre, r in zip(path, np.broadcast_to(radius, len(path)), strict=True):
        best = np.minimum(best, np.linalg.norm(p - centre, axis=1) - r)
    return best


def capsule(p: np.ndarray, start: list[float], end: list[float], r_start: float, r_end: float) -> np.ndarray:
    """Distance to a straight rod between two spheres."""
    a, d = np.array(start), np.array(end) - np.array(start)
    t = np.clip((p - a) @ d / (d @ d), 0, 1)
    return np.linalg.norm(p - a - t[:, None] * d, axis=1) - (r_start + t * (r_end - r_start))


def polygon(x: np.ndarray, y: np.ndarray, corners: list[tuple[float, float]]) -> np.ndarray:
    """Distance in the plane to a convex polygon with counter-clockwise corners; 0 inside."""
    points = np.array(corners)
    outside = np.zeros(len(x), dtype=bool)
    best = np.full(len(x), np.inf)
    for (ax, ay), (bx, by) in zip(points, np.roll(points, -1, axis=0), strict=True):
        dx, dy, px, py = bx - ax, by - ay, x - ax, y - ay
        outside |= dx * py - dy * px < 0
        t = np.clip((px * dx + py * dy) / (dx * dx + dy * dy), 0, 1)
        best = np.minimum(best, np.hypot(px - t * dx, py - t * dy))
    return np.where(outside, best, 0)


def wing(
    span: np.ndarray,
    chordwise: np.ndarray,
    height: np.ndarray,
    root: tuple[float, float],
    tip: tuple[float, float],
    length: float,
    thickness: float,
) -> np.ndarray:
    """Distance to a tapered wing: a flat planform, thickened like an aerofoil.

    ``root`` and ``tip`` are (leading edge, trailing edge) along ``chordwise``, whose positive end is ahead.
    """
    s = np.clip(span / length, 0, 1)
    ahead, behind = root[0] + s * (tip[0] - root[0]), root[1] + s * (tip[1] - root[1])
    chord = ahead - behind
    x = np.clip((ahead - chordwise) / chord, 0, 1)  # 0 at the leading edge, 1 at the trailing edge
    rim = 0.0055  # half the thickness at the edges
    half = np.maximum(thickness * chord * 1.9 * np.sqrt(x) * (1 - x) ** 1.2, rim)
    half = 0.5 * (half + rim + np.sqrt((half - rim) ** 2 + 1e-6))
    corners = [(0.0, root[1] + rim), (length - rim, tip[1] + rim), (length - rim, tip[0] - rim), (0.0, root[0] - rim)]
    return np.hypot(polygon(span, chordwise, corners), height) - half


def airplane(p: np.ndarray) -> np.ndarray:
    """A twin-engined airliner, nose towards +z, span along x."""
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    p = np.stack([x, y, z], 1)
    # Fuselage: round nose, long cylinder, tail swept up to a point.
    t = np.linspace(0, 1, 90)
    nose, tail = np.clip((t - 0.86) / 0.14, 0, 1), np.clip((0.42 - t) / 0.42, 0, 1)
    radius = 0.058 * np.sqrt(1 - 0.88 * nose**2.2) * (1 - 0.80 * tail**1.8)
    path = np.stack([np.zeros_like(t), 0.040 * tail**1.8 - 0.014 * nose**2, -0.5 + t], 1)
    body = tube(p, path, radius)
    main = wing(x, z, y + 0.022 - 0.10 * x, (0.140, -0.10), (-0.150, -0.225), 0.50, 0.075)
    plane = smooth_union(body, main, 0.03)
    level = wing(x, z, y - 0.045 - 0.07 * x, (-0.360, -0.480), (-0.455, -0.515), 0.19, 0.07)
    plane = smooth_union(plane, level, 0.015)
    fin = wing(y - 0.02, z, x, (-0.300, -0.475), (-0.450, -0.525), 0.205, 0.065)
    plane = smooth_union(plane, fin, 0.02)
    # Engines hang ahead of the wings on pylons.
    t = np.linspace(0, 1, 40)
    path = np.stack([np.full_like(t, 0.165), np.full_like(t, -0.056), 0.115 - 0.125 * t], 1)
    engine = tube(p, path, 0.031 * (1 - 0.55 * np.clip((t - 0.35) / 0.65, 0, 1) ** 1.6))
    pylon = capsule(p, [0.165, -0.036, 0.085], [0.165, -0.010, -0.03], 0.010, 0.012)
    engine = smooth_union(engine, pylon, 0.012)
    # The inlet: a shallow bowl in the nacelle's face.
    engine = smooth_cut(engine, np.linalg.norm(p - np.array([0.165, -0.056, 0.156]), axis=1) - 0.023, 0.012)
    return smooth_union(plane, engine, 0.012)


def chair(p: np.ndarray) -> np.ndarray:
    """A dining chair that faces +z: shaped seat, four splayed legs, a curved back on two posts."""
    x, y, z = np.abs(p[:, 0]), p[:, 1], p[:, 2]
    p = np.stack([x, y, z], 1)
    width = 0.225 + 0.06 * np.clip(z + 0.2, 0, 0.45)
    dip = 0.014 * np.exp(-((x / 0.13) ** 2) - ((z + 0.02) / 0.15) ** 2)
    seat = rounded_box(np.stack([x * 0.24 / width, y + dip, z], 1), [0, 0, 0], [0.24, 0.026, 0.22], 0.022)
    front = capsule(p, [0.195, 0, 0.165], [0.225, -0.46, 0.195], 0.026, 0.017)
    rear = capsule(p, [0.175, 0, -0.175], [0.195, -0.46, -0.235], 0.026, 0.017)
    legs = np.minimum(front, rear)
    # The back leans, and bows backwards in the middle.
    lean = z + 0.195 + 0.20 * np.clip(y, 0, 1) + 0.055 * (1 - (x / 0.22) ** 2) * np.clip(y / 0.5, 0, 1)
    top = 0.5 - 0.06 * (x / 0.2) ** 2
    upright = np.stack([x, y - 0.25 - (top - 0.5) * np.clip(y / 0.5, 0, 1), lean], 1)
    back = rounded_box(upright, [0, 0, 0], [0.2, 0.26, 0.02], 0.018)
    return smooth_union(smooth_union(seat, legs, 0.035), back, 0.035)
