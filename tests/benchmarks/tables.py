# SPDX-License-Identifier: Apache-2.0
"""Write docs/benchmarks.md from what the benchmark scripts measured.

python tests/benchmarks/tables.py --speed silhouette.json --shape shape.jsonl published.jsonl free.jsonl
python tests/benchmarks/tables.py --splines splines.json --bukin bukin.json
python tests/benchmarks/tables.py --shading shading.json --fine fine.json --beside beside.json
python tests/benchmarks/tables.py --transport transport.json --sums transport_kernels.json --pooling pooling.json

Sections for which nothing is given stay as they are. The rows of the shape task's parts may be in any number of files.
"""

import argparse
import collections
import json
import pathlib
import re
import statistics
from collections.abc import Iterable, Sequence

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"

SECTIONS = (
    "Speed of the silhouette (`tests/benchmarks/silhouette.py`)",
    "The shape task of the thesis (`tests/benchmarks/shape_task.py`)",
    "Speed of splines (`tests/benchmarks/splines.py`)",
    "Bukin's function (`tests/benchmarks/bukin.py`)",
    "Optimal transport (`tests/benchmarks/transport.py`)",
    "Sums of optimal transport (`tests/benchmarks/transport_kernels.py`)",
    "Robust pooling (`tests/benchmarks/pooling.py`)",
    "Colour beside the silhouette (`tests/benchmarks/shading.py`)",
    "Fine, coloured meshes, and the hard rasteriser (`tests/benchmarks/fine_meshes.py`)",
    "Soft silhouettes beside PyTorch3D (`tests/benchmarks/beside_pytorch3d.py`)",
)

CONTESTANTS = {
    "autograd": "autograd, plan",
    "autograd_vectors": "autograd, vectors",
    "full_inverse": "full inverse",
    "block_inverse": "block inverse",
    "approximate": "constraints left out",
    "ours": "ours",
    "ours_to_tolerance": "ours, to tolerance",
    "ours_plan": "ours, plan",
    "ours_plan_to_tolerance": "ours, plan, to tolerance",
    "ours_cost": "ours, cost",
    "ours_points": "ours, cost of points",
    "ours_points_to_tolerance": "ours, cost of points, to tolerance",
    "pot_solve_batch": "POT `solve_batch` (its default gradient)",
    "pot_solve_envelope": "POT `solve`, envelope, in a loop",
    "pot_log_autodiff": "POT `sinkhorn_log`, autograd, in a loop",
    "geomloss": "GeomLoss, as many steps",
    "geomloss_default": "GeomLoss, its own few steps",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def speed(result: dict) -> str:
    text = f"SIMD level {result['simd']}, torch {result['torch']}. Medians; quote the ratios, not the times.\n\n"
    if "sizes" in result:
        text += "### Forward + backward, logistic squared (τ = 1e-4), probabilistic sum\n\n"
        head = ["faces", "image", "views", "threads", "forward ms", "both ms", "ns/pair", "× dense twin", "× PyTorch3D"]
        text += table(
            head,
            (
                [r["faces"], f"{r['size']}²", r["views"], r["threads"]]
                + [number(r[k]) for k in ("forward_ms", "both_ms", "ns_per_pair", "dense_ratio", "pytorch3d_ratio")]
                for r in result["sizes"]
            ),
        )
        text += (
            "\nA ratio is the peer's time over ours, in one run. Dash: more pairs than the twin was asked for, or the"
            " peer is not installed.\n\n"
        )
    if "growth" in result:
        text += "### Time follows the pairs inside the band (512², two threads, forward + backward)\n\n"
        rows = ([r["faces"], r["pairs"], number(r["both_ms"]), number(r["ns_per_pair"])] for r in result["growth"])
        text += table(["faces", "pairs", "ms", "ns/pair"], rows) + "\n"
    if "family" in result:
        text += "### Members beside logistic + probabilistic (256², 1 280 faces, τ for equal pairs)\n\n"
        rows = (
            [r["distribution"], r["tconorm"], r["pairs"]]
            + [number(r[k]) for k in ("both_ms", "times_logistic", "times_logistic_a_pair")]
            for r in result["family"]
        )
        text += table(["distribution", "T-conorm", "pairs", "ms", "× logistic", "× a pair"], rows)
        text += (
            "\nHeavy tails reach over the whole image whatever τ; laws inside the face have few pairs, so that most of "
        )
        text += "the time is per face.\n\n"
    if "clock" in result:
        text += "### 100 Adam steps, 24 views of 64², 642 vertices, IoU + Laplacian + flatness\n\n"
        text += table(["threads", "seconds"], ([r["threads"], number(r["seconds_100_steps"])] for r in result["clock"]))
    if "memory" in result:
        text += "\n### Peak memory of a process\n\n"
        rows = (
            ["import alone" if r["level"] < 0 else f"icosphere({r['level']}), {r['size']}²", number(r["peak_mb"])]
            for r in result["memory"]
        )
        text += table(["what", "MB"], rows)
    return text


def shape(rows: list[dict]) -> str:
    text = ""
    published = [r for r in rows if "gendr" in r]
    if published:
        text += "### Under GenDR's rules, beside GenDR's own kernels (elevation 30°, learning rate 10^−1.5)\n\n"
        text += table(
            ["distribution", "τ", "GenDR", "ours: median", "least", "most"],
            (
                [r["distribution"], r["scale"], r["gendr"]]
                + [number(x) for x in (r["median"], min(r["all"]), max(r["all"]))]
                for r in published
            ),
        )
        text += "\nThe descent is chaotic: the five starts differ by one part in a million.\n\n"
    grid = [r for r in rows if "rate" in r]
    if grid:
        best: dict[tuple[str, str], dict] = {}
        by_elevation: dict[tuple, dict[float, float]] = collections.defaultdict(dict)
        for r in grid:
            key = (r["distribution"], r["tconorm"])
            if r["elevation"] == 30 and (key not in best or r["loss"] < best[key]["loss"]):
                best[key] = r
            by_elevation[(*key, r["scale"], r["rate"])][r["elevation"]] = r["loss"]
        text += f"### The family, best τ of the grid for each member (elevation 30°, {len(grid)} runs)\n\n"
        rows_ = sorted(best.values(), key=lambda r: r["loss"])
        text += table(
            ["distribution", "T-conorm", "τ", "loss"],
            ([r["distribution"], r["tconorm"], number(r["scale"]), number(r["loss"])] for r in rows_),
        )
        full = {key: v for key, v in by_elevation.items() if len(v) == 5}
        if full:
            order = sorted(next(iter(full.values())))
            text += "\n### The best of them over the five elevations\n\n"
            text += table(
                ["distribution", "T-conorm", "τ", *[f"{e:g}°" for e in order], "mean"],
                (
                    [*key[:2], number(key[2]), *[number(v[e]) for e in order], number(statistics.mean(v.values()))]
                    for key, v in sorted(full.items(), key=lambda item: statistics.mean(item[1].values()))
                ),
            )
    free = [r for r in rows if "loss_unseen" in r]
    if free:
        text += "\n### `fit_mesh` with its defaults: 100 steps, 24 views, everything else free\n\n"
        text += table(
            ["elevation", "loss in the 24 views", "in 24 unseen views (elevations −40°, 0°, 60°)"],
            ([f"{r['elevation']:g}°", number(r["loss"]), number(r["loss_unseen"])] for r in free),
        )
    return text


def splines(result: dict) -> str:
    text = f"SIMD level {result['simd']}, torch {result['torch']}. Bicubic rational surface, 20 × 20 control points. "
    text += "Medians of turns that the contestants take; quote the ratios, not the times.\n\n"
    if "surface" in result:
        columns = ("forward_ms", "times_scipy", "times_splinepy", "times_geomdl", "both_ms", "both_over_forward")
        head = ["path", "points", "dtype", "threads", "forward ms", "× SciPy", "× splinepy", "× geomdl", "both ms"]
        text += table(
            [*head, "both / forward"],
            (
                [r["path"], f"{r['size']}²", r["dtype"], r["threads"], *(number(r.get(k)) for k in columns)]
                for r in result["surface"]
            ),
        )
        worst = max(r["difference"] for r in result["surface"] if r["dtype"] == "float64")
        text += (
            "\n*Both* is forward + backward in control points, weights, both knot vectors and both parameters. A ratio "
            "is the peer's time over ours, in one run; peers compute in double precision. SciPy is `BSpline` along u, "
            "then along v, for grids, and `NdBSpline` for scattered points, each with the division. Largest difference "
            f"to a peer in double precision: {worst:.0e} of the largest coordinate.\n\n"
        )
    if "growth" in result:
        text += "### Time follows the points (scattered, float64, two threads)\n\n"
        keys = ("forward_ns_a_point", "both_ns_a_point")
        rows = ([r["points"], *(number(r[k]) for k in keys)] for r in result["growth"])
        text += table(["points", "forward ns a point", "both ns a point"], rows) + "\n"
    if "memory" in result:
        text += "### Peak memory of a process with all gradients (float64)\n\n"
        figures = ("peak_mb", "bytes_a_point", "backward_bytes_a_point")
        rows = ([r["path"], r["points"], *(number(r[k]) for k in figures)] for r in result["memory"])
        text += table(["path", "points", "MB", "bytes a point", "of these backward"], rows)
        text += "\nSixteen control points a point, stored, would be 512 bytes.\n"
    return text


def bukin(result: dict) -> str:
    text = "8 × 8 cubic control points, mean squared error over x, y and z, from uniform knots and weights 1. "
    text += '*Paper*: Cho et al., "Differentiable Spline Approximations" (2021), table 3. Weights within [0.1, 10].\n\n'
    return text + table(
        ["knots", "weights", "grid", "error", "paper", "iterations", "seconds"],
        (
            [
                "free" if "free" in r["kind"] else "uniform",
                "free" if "rational" in r["kind"] else "–",
                f"{r['grid']}²",
                f"{r['mse']:.4f}",
                r["paper"] or "–",
                r["iterations"],
                r["seconds"],
            ]
            for r in result["rows"]
        ),
    )


def transport(result: dict) -> str:
    text = (
        f"SIMD level {result['simd']}, torch {result['torch']}. Medians of turns that the contestants take; quote the "
    )
    text += "ratios. Memory is the peak of a fresh process over what it held before the call, on one thread. "
    busy = [value for pair in result.get("load", {}).values() for value in pair]
    text += f"Load average of the machine meanwhile: {min(busy):.0f} to {max(busy):.0f}.\n\n" if busy else "\n\n"
    if "batch" in result:
        text += "### 8 × 500 × 500 points, ε = 0.01, forward + backward, float32\n\n"
        rows = result["batch"]
        threads = sorted({r["threads"] for r in rows})
        head = ["", "iterations", *(f"ms, {n} thread{'s' * (n > 1)}" for n in threads), "MB"]
        found: dict[tuple, dict] = collections.defaultdict(dict)
        for r in rows:
            # What stops by itself takes as many iterations as it needs.
            own = r["name"].endswith(("tolerance", "default"))
            if own and r["iterations"] != rows[0]["iterations"]:
                continue
            key = (CONTESTANTS[r["name"]], "as needed" if own else r["iterations"])
            found[key] |= {r["threads"]: r["both_ms"], "mb": r["both_mb"]}
        text += table(
            head,
            ([*key, *(number(v.get(n)) for n in threads), number(v["mb"])] for key, v in found.items()),
        )
        text += (
            "\n*Plan*, the block layer and `sinkhorn_log` differentiate ⟨P, C⟩ through the plan; the others the "
            "regularised cost, by the envelope theorem. As many iterations as asked are more than ours needs.\n\n"
        )
    if "large" in result or "huge" in result:
        text += "### Streamed, gradient in both clouds, ε = 0.01, to tolerance\n\n"
        rows = [*result.get("large", []), *result.get("huge", [])]
        head = ["points", "threads", "iterations", "seconds", "marginal error", "ms an iteration", "× rows of torch"]
        figures = ("seconds", "marginal_error", "ms_an_iteration", "times_rows", "extra_mb", "matrix_mb")
        text += table(
            [*head, "extra MB", "the matrix, MB"],
            ([f"{r['size']}²", r["threads"], r["iterations"], *(number(r.get(k)) for k in figures)] for r in rows),
        )
        text += "\nA ratio is the time of an iteration of log-sum-exp in torch, some rows at a time, over ours.\n\n"
    if "figure" in result:
        text += "### Figure 3 of Gould et al.: the plan and its gradient, one thread, ε = 0.02\n\n"
        for against, batch in (("size", 1), ("size", 8), ("iterations", 1), ("iterations", 8)):
            rows = [r for r in result["figure"] if r["against"] == against and r["batch"] == batch]
            values = sorted({r[against] for r in rows})
            fixed = "50 iterations" if against == "size" else f"N = {rows[0]['size']}"
            unit = "N = {}" if against == "size" else "{} iterations"
            text += f"Batch {batch}, {fixed}: forward + backward, ms (forward alone) and MB.\n\n"
            lines = []
            for name in dict.fromkeys(r["name"] for r in rows):
                cells = {r[against]: r for r in rows if r["name"] == name}
                lines.append([CONTESTANTS[name]])
                for value in values:
                    r = cells.get(value)
                    pair = r and f"{number(r['both_ms'])} ({number(r['forward_ms'])}), {number(r['both_mb'])} MB"
                    lines[-1].append(pair or "–")
            text += table(["", *(unit.format(v) for v in values)], lines) + "\n"
        text += "Dash: autograd would record more than 6 GB. "
        text += "Largest error of the gradient against a converged one in double precision, in float32: "
        worst: dict[str, float] = collections.defaultdict(float)
        for r in result["figure"]:
            if r["iterations"] >= 50:
                worst[r["name"]] = max(worst[r["name"]], r["error"])
        text += "; ".join(f"{CONTESTANTS[k]} {v:.1e}" for k, v in worst.items()) + " (from 50 iterations on).\n"
    return text


def sums(result: dict) -> str:
    text = f"SIMD level {result['simd']}, torch {result['torch']}. Nanoseconds a pair of points, medians.\n\n"
    if "speed" in result:
        keys = ("lse_ns_a_pair", "apply_ns_a_pair", "apply_gradient_ns_a_pair", "lse_times_torch", "apply_times_torch")
        text += table(
            ["points", "D", "ε", "dtype", "threads", "lse", "apply", "gradient", "lse × torch", "apply × torch"],
            (
                [f"{r['size']}²", r["dim"], r["epsilon"], r["dtype"], r["threads"], *(number(r[k]) for k in keys)]
                for r in result["speed"]
            ),
        )
        text += "\n*Torch* computes rows of the matrix a chunk at a time, the fastest of three chunks.\n\n"
    if "large" in result:
        text += "### 50 000 × 50 000 pairs, two threads, seconds\n\n"
        times = ("lse_s", "apply_s", "apply_gradient_s")
        rows = ([r["epsilon"], *(number(r[k]) for k in times)] for r in result["large"])
        text += table(["ε", "lse", "apply", "gradient"], rows) + "\n"
    if "memory" in result:
        text += "### Memory over that of few points\n\n"
        rows = ([r["sum"], f"{r['size']}²", number(r["extra_mb"]), number(r["matrix_mb"])] for r in result["memory"])
        text += table(["", "points", "MB", "the matrix, MB"], rows)
    return text


def pooling(result: dict) -> str:
    text = f"Figure 1 of Gould et al.: √n × √n × 128, torch {result['setting']['torch']}, "
    text += f"{result['setting']['threads']} threads. *Paper*: L-BFGS and its backward pass. Medians.\n\n"
    head = ["penalty", "n", *(f"{w} ms: ours, paper" for w in ("forward", "backward"))]
    keys = [(which, unit) for unit in ("ms", "mb") for which in ("forward", "backward")]
    return text + table(
        [*head, *(f"{w} MB: ours, paper" for w in ("forward", "backward")), "residual: ours, paper"],
        (
            [r["penalty"], r["n"]]
            + [", ".join(number(r[f"{who}_{w}_{unit}"]) for who in ("ours", "published")) for w, unit in keys]
            + [", ".join(f"{r[f'{who}_residual']:.0e}" for who in ("ours", "published"))]
            for r in result["rows"]
        ),
    )


def beside(result: dict) -> str:
    text = f"PyTorch3D {result['pytorch3d']}, built for the CPU against torch {result['torch']}; SIMD level "
    text += (
        f"{result['simd']}, {result['threads']} threads. Logistic squared, σ = 1e-4, probabilistic sum, ours beside "
    )
    text += "`SoftSilhouetteShader` with K = 50 and its usual `blur_radius`. Both took turns in one run, theirs as "
    text += "often as fits in five seconds, once at least; quote the ratios, theirs over ours. MB is the "
    text += "peak of a fresh process over what it held before the call.\n\n"
    if "speed" in result:
        held = {(r["faces"], r["size"], r["views"]): r for r in result.get("memory", [])}
        head = ["faces", "image", "views", "forward ms: ours, theirs", "×", "forward + backward ms: ours, theirs", "×"]
        rows = []
        for r in result["speed"]:
            mb = held.get((r["faces"], r["size"], r["views"]), {})
            row = [r["faces"], f"{r['size']}²", r["views"]]
            for key, ratio in (("forward_ms", "forward_ratio"), ("ms", "ratio")):
                row += [f"{number(r[f'ours_{key}'])}, {number(r[f'theirs_{key}'])}", number(r[ratio])]
            rows.append([*row, ", ".join(number(mb.get(f"{who}_mb")) for who in ("ours", "theirs"))])
        text += table([*head, "MB: ours, theirs"], rows) + "\n"
    if "difference" in result:
        text += "### Largest differences (64², one view, Σ alpha²)\n\n"
        text += table(
            ["faces", "K", "cut-off", "thin faces", "pixels with K faces", "alpha", "elsewhere", "gradient", "cosine"],
            (
                [r["faces"], r["k"], f"{r['cut']:.0e}", "left out" if r["dropped"] else r["thin"], r["full"]]
                + [f"{r[key]:.1e}" for key in ("image", "image_elsewhere", "gradient")]
                + [f"{r['cosine']:.6f}"]
                for r in result["difference"]
            ),
        )
        text += (
            "\nPyTorch3D keeps the K faces nearest in depth, leaves out those where the sigmoid is below the cut-off "
            "(its `blur_radius`), and drops *thin faces*, of a projected area below 5e-9: in the last rows ours leave "
            "them out as well. *Elsewhere*: alpha in pixels with fewer than K faces. *Gradient*: in the vertices, of "
            "the largest component of ours. The formulas are the same: what remains is rounding of float32.\n\n"
        )
    if "hostile" in result:
        text += "### Values that are not finite (20 views of 32²)\n\n"
        rows = []
        for r in result["hostile"]:
            cells = [f"{r[f'{who}_image']}, {r[f'{who}_gradient']}" for who in ("ours", "theirs")]
            rows.append([r["what"], f"{r['pixels']}, {r['components']}", *cells])
        text += table(["", "of alpha, gradient", "ours", "theirs"], rows) + "\n"
    if "masks" in result:
        text += "### Hard masks over 20 random cameras (96 × 128)\n\n"
        text += table(
            ["mesh", "pixels", "covered", "different"],
            ([r["mesh"], r["pixels"], r["covered"], r["different"]] for r in result["masks"]),
        )
    return text


def shading(result: dict) -> str:
    text = f"SIMD level {result['simd']}, torch {result['torch']}. Medians of contestants that take turns.\n\n"
    if "color" in result:
        text += "### RGB with a texture of 512², two lights and Phong, over alpha alone (256², forward + backward)\n\n"
        head = ["faces", "distribution", "τ", "threads", "alpha ms", "hard ms", "×"]
        keys = ("alpha_ms", "hard_ms", "hard_ratio")
        rows = (
            [r["faces"], r["distribution"], f"{r['tau']:g}", r["threads"], *(number(r[key]) for key in keys)]
            for r in result["color"]
        )
        text += table(head, rows) + "\n"
    if "alone" in result:
        ratios = sorted(r["hard_ratio"] for r in result["alone"])
        text += f"1 280 faces, logistic, τ = 1e-3 again, {len(ratios)} times, alpha and hard depth alone taking turns, "
        text += f"so that caches stay warm: × {number(ratios[0])} to {number(ratios[-1])}, "
        text += f"median {number(statistics.median(ratios))}.\n\n"
    if "stages" in result:
        text += "### Where the time goes (1 280 faces, logistic, τ = 1e-3, hard depth)\n\n"
        rows = ([r["stage"], *(number(r[key]) for key in ("forward_ms", "both_ms"))] for r in result["stages"])
        text += table(["kernel", "forward ms", "forward + backward ms"], rows)
        text += "\nThe rest is torch and Python around them."
        for r in [r for r in result.get("tiny", []) if r["distribution"] == "logistic" and r["tau"] == 1e-3]:
            text += f" At 16² a call takes {number(r['hard_ms'])} ms, {number(r['alpha_ms'])} for alpha alone."
        text += "\n\n"
    return text


def fine(result: dict) -> str:
    text = f"SIMD level {result['simd']}, torch {result['torch']}, DRTK {result['drtk']} built for the CPU. Medians of "
    text += "contestants that take turns, on a busy machine: time of the processor. Quote the ratios, theirs over ours."
    text += "\n\n"
    ways = ("hard", "antialiased", "contour", "faces")
    text += "### Colour step: vertex colours, unlit, forward + backward, all vertices moving; ms and ×\n\n"
    text += _beside(result["color"], ways)
    twins = [r for r in result["color"] if "twin_ms" in r]
    text += "".join(f"\nThe dense twin of {r['mesh']} at {r['size']}²: {number(r['twin_ms'])} ms.\n" for r in twins[:1])
    text += "\n### `rasterize`: faces, depths, barycentrics, projection included; ms and ×\n\n"
    text += _beside(result["raster"], ("ours",))
    text += "\n### Where the time of the hard colour step goes (81 920 faces, 512², one thread)\n\n"
    before = result.get("stages_before", [{}])[0]
    stages = [key for key in result["stages"][0] if key.endswith("_ms")]
    rows = ([k.removesuffix("_ms"), number(before.get(k)), number(result["stages"][0][k])] for k in stages)
    text += table(["op, forward + backward", "before ms", "ms"], rows)
    text += "\nThe rest is torch and Python around them.\n\n### The same picture? Ours (hard) beside DRTK's\n\n"
    head = [
        "mesh",
        "image",
        "other faces",
        "largest difference",
        "gradient, vertex by vertex: cosine",
        "as it grows: ×",
    ]
    for r in result["same"]:
        r["differ"] = [f"{r[key]:.1e}" for key in ("faces_that_differ", "largest_difference")]
    rows = ([r["mesh"], _image(r), *r["differ"], number(r["cosine"]), number(r["growing"])] for r in result["same"])
    text += table(head, rows)
    text += "\nTheirs looks at all neighbouring pixels of different faces, ours at visibility edges alone: they differ "
    text += "from vertex to vertex, and agree where many move together.\n\n"
    text += "### MB at the peak of a step, and what 20 more add\n\n"
    held = collections.defaultdict(dict)
    for r in result["memory"]:
        held[r["mesh"], _image(r)][r["way"]] = f"{number(r['mb'])} + {number(r['growth_mb'])}"
    ways = ("hard", "antialiased", "contour", "drtk", "twin")
    rows = ([*key, *(own.get(way, "–") for way in ways)] for key, own in held.items())
    return text + table(["mesh", "image", *ways], rows)


def _image(r: dict) -> str:
    return f"{r['size']}²" if r["views"] == 1 else f"{r['views']} of {r['size']}²"


def _beside(results: list[dict], ways: Sequence[str]) -> str:
    rows = []
    for r in results:
        row = [r["mesh"], _image(r), r["threads"], number(r["drtk_ms"])]
        for way in ways:
            own = r.get(f"{way}_ms")
            row.append("–" if own is None else f"{number(own)}, × {r['drtk_ms'] / own:.2f}")
        rows.append(row)
    return table(["mesh", "image", "threads", "DRTK", *ways], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("speed", "splines", "bukin", "transport", "sums", "pooling", "shading", "fine", "beside"):
        parser.add_argument(f"--{name}", type=pathlib.Path)
    parser.add_argument("--shape", type=pathlib.Path, nargs="*", default=[])
    options = parser.parse_args()
    made = {}
    if options.speed:
        made[SECTIONS[0]] = "Two cores. " + speed(json.loads(options.speed.read_text()))
    lines = [line for path in options.shape for line in path.read_text().splitlines()]
    if lines:
        made[SECTIONS[1]] = (
            "Least hard IoU loss in 100 steps; lower is better. As in the thesis, τ and learning rate are picked on "
            "this very number. The defaults of `fit_mesh` were picked on this task at 30°, its unseen views included, "
            "and on our assets; only the other elevations had no part in that.\n\n"
        ) + shape([json.loads(line) for line in lines])
    if options.splines:
        made[SECTIONS[2]] = "Two cores. " + splines(json.loads(options.splines.read_text()))
    if options.bukin:
        made[SECTIONS[3]] = bukin(json.loads(options.bukin.read_text()))
    if options.transport:
        made[SECTIONS[4]] = "Two cores. " + transport(json.loads(options.transport.read_text()))
    if options.sums:
        made[SECTIONS[5]] = "Two cores. " + sums(json.loads(options.sums.read_text()))
    if options.pooling:
        made[SECTIONS[6]] = pooling(json.loads(options.pooling.read_text()))
    if options.shading:
        made[SECTIONS[7]] = "Two cores. " + shading(json.loads(options.shading.read_text()))
    if options.fine:
        made[SECTIONS[8]] = "Two cores. " + fine(json.loads(options.fine.read_text()))
    if options.beside:
        made[SECTIONS[9]] = beside(json.loads(options.beside.read_text()))
    _, *old = re.split(r"^## ", DOCS.read_text() if DOCS.exists() else "", flags=re.MULTILINE)
    kept = {title: body for title, _, body in (section.partition("\n\n") for section in old)}
    text = "# Benchmarks\n\nMade by `tests/benchmarks/tables.py` from what the scripts beside it measured.\n"
    for title in SECTIONS:
        body = made.get(title, kept.get(title))
        if body:
            text += f"\n## {title}\n\n{body.strip()}\n"
    DOCS.write_text(text)


if __name__ == "__main__":
    main()
