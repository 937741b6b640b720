# SPDX-License-Identifier: Apache-2.0
"""Finite elements: table 5 of "Differentiable Spline Approximations", its figure 3, and speed beside scikit-fem.

    python tests/benchmarks/finite_elements.py                     # table 5, P1 and biquadratic at 250 000 unknowns
    python tests/benchmarks/finite_elements.py --unknowns 1000000 --network

Table 5: the norm of nodal errors over n of the exact minimiser, for the rows that exist: with degree d, n − 1 must be a
multiple of d, so that 128 and 256 nodes of degree 2 and 128 of degree 3 cannot be; 129, 257 and 127 stand for them.

Speed: seconds of one thread, assembly and solve apart, both libraries in turn, the least of three; both solve by the
same SuperLU, so that the solve differs only in the order of elimination. A third row solves by CHOLMOD, where it is
installed (pip install geodiff[cholmod]).

Figure 3 (``--network``): a small convolutional network is trained on the energy alone to predict the solution from the
diffusivity of equation (14), and compared with plain solves on fields that it has not seen. The paper leaves the source
open; with f = 0 and u = 0 all around there is nothing to learn, so f = 1.
"""

import argparse
import functools
import importlib.util
import json
import math
import time
from collections.abc import Callable
from typing import Any

import torch

from geodiff import fem

F64 = torch.float64
PAPER = {
    (128, 1): 3.32e-5,
    (256, 1): 2.57e-5,
    (129, 2): 2.16e-5,
    (257, 2): 2.79e-5,
    (127, 3): 2.37e-5,
    (256, 3): 2.59e-5,
}
ROOTS = torch.tensor([1.72, 4.05, 6.85, 9.82], dtype=F64)


def sine(x: torch.Tensor) -> torch.Tensor:
    return torch.sin(math.pi * x).prod(-1)


def table_5() -> list[dict[str, Any]]:
    rows = []
    for (n, degree), paper in PAPER.items():
        space = fem.grid_space((n, n), degree)
        c = fem.solve_poisson(space, lambda x: 2 * math.pi**2 * sine(x), dirichlet={"all": 0.0})
        rows.append(
            {"nodes": n, "degree": degree, "error": float((c - sine(space.positions)).norm() / n), "paper": paper}
        )
    return rows


def least(call: Callable[[], tuple[float, float]], best: tuple[float, float] | None) -> tuple[float, float]:
    now = call()
    return now if best is None else (min(now[0], best[0]), min(now[1], best[1]))


def ours(spans: int, degree: int, method: str = "lu") -> tuple[float, float]:
    """Seconds of assembly and of the solve."""
    start = time.process_time()
    space = fem.grid_space((spans * degree + 1,) * 2, degree)
    if degree == 1:
        import geodiff as gd

        nodes = torch.arange((spans + 1) ** 2).reshape(spans + 1, spans + 1)
        quads = torch.stack([nodes[:-1, :-1], nodes[1:, :-1], nodes[1:, 1:], nodes[:-1, 1:]], -1).reshape(-1, 4)
        flat = torch.cat([space.positions, torch.zeros(space.size, 1, dtype=F64)], -1)
        mesh = gd.Mesh(flat, torch.cat([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
        start = time.process_time()
        space = fem.mesh_space(mesh)
    matrix, load = space.stiffness(), space.load(1.0)
    middle = time.process_time()
    from geodiff.fem.solve import eliminated

    held = space.held("all")
    eliminated("benchmark", matrix, load, [(held, torch.zeros(len(held), dtype=F64))], method)
    return middle - start, time.process_time() - middle


def theirs(spans: int, degree: int) -> tuple[float, float]:
    import numpy as np
    import skfem
    from skfem.models.poisson import laplace, unit_load

    line = np.linspace(0, 1, spans + 1)
    mesh = skfem.MeshTri.init_tensor(line, line) if degree == 1 else skfem.MeshQuad.init_tensor(line, line)
    start = time.process_time()
    basis = skfem.Basis(mesh, skfem.ElementTriP1() if degree == 1 else skfem.ElementQuad2())
    matrix, load = laplace.assemble(basis), unit_load.assemble(basis)
    middle = time.process_time()
    skfem.solve(*skfem.condense(matrix, load, D=basis.get_dofs()))
    return middle - start, time.process_time() - middle


def speed(unknowns: int, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for name, degree in (("P1", 1), ("biquadratic", 2)):
        spans = round(math.sqrt(unknowns)) // degree
        calls = {"geodiff": ours, "scikit-fem": theirs}
        if importlib.util.find_spec("cvxopt"):
            calls["geodiff, CHOLMOD"] = functools.partial(ours, method="cholmod")
        best: dict[str, tuple[float, float] | None] = dict.fromkeys(calls)
        for _ in range(rounds):
            for library, call in calls.items():
                best[library] = least(lambda call=call, spans=spans, degree=degree: call(spans, degree), best[library])
        rows.append({"elements": name, "unknowns": (spans * degree + 1) ** 2, **best})
    return rows


def diffusivity(omega: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Equation (14), for ω (B, 4)."""

    def wave(t: torch.Tensor) -> torch.Tensor:
        return ROOTS / 2 * torch.cos(ROOTS * t[..., None]) + torch.sin(ROOTS * t[..., None])

    def field(x: torch.Tensor) -> torch.Tensor:
        modes = wave(x[..., 0]) * wave(x[..., 1]) / (1 + 0.25 * ROOTS**2)
        return torch.exp(torch.einsum("...m,bm->b...", modes, omega))

    return field


def network(steps: int, n: int = 33) -> dict[str, Any]:
    """Train on the energy; return relative L2 errors on ω of the same range, and on that of figure 3."""
    torch.manual_seed(0)
    space = fem.grid_space((n, n))
    layers: list[torch.nn.Module] = []
    for k, (wide, out) in enumerate(((1, 24), (24, 24), (24, 24), (24, 24), (24, 1))):
        layers += [torch.nn.Conv2d(wide, out, 5, padding=(4, 8, 16, 8, 2)[k], dilation=(2, 4, 8, 4, 1)[k], dtype=F64)]
        layers += [torch.nn.GELU()] if k < 4 else []
    net = torch.nn.Sequential(*layers)
    hat = sine(space.positions).reshape(n, n)  # which is 0 where u is

    def predicted(omega: torch.Tensor) -> torch.Tensor:
        nodes = diffusivity(omega)(space.positions).log().reshape(-1, 1, n, n)
        return (net(nodes)[:, 0] * hat).flatten(1)

    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        omega = 2 * torch.rand(8, 4, dtype=F64) - 1
        optimizer.zero_grad()
        fem.energy(space, predicted(omega), 1.0, diffusivity(omega)).mean().backward()
        optimizer.step()
        schedule.step()
    test = torch.cat([torch.tensor([[-0.26, -0.77, -0.37, -0.92]], dtype=F64), 2 * torch.rand(16, 4, dtype=F64) - 1])
    with torch.no_grad():
        guess = predicted(test)
        fields = [lambda x, o=omega: diffusivity(o[None])(x)[0] for omega in test]
        solved = torch.stack([fem.solve_poisson(space, 1.0, nu, dirichlet={"all": 0.0}) for nu in fields])
        off = (guess - solved).norm(dim=1) / solved.norm(dim=1)
        worst = float((guess - solved)[0].abs().max())
    return {
        "steps": steps,
        "figure 3, relative": float(off[0]),
        "figure 3, largest deviation": worst,
        "figure 3, largest value": float(solved[0].max()),
        "unseen, median": float(off[1:].median()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", help="write JSON there")
    parser.add_argument("--unknowns", type=int, default=250_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--network", action="store_true")
    parser.add_argument("--steps", type=int, default=1500)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {"table 5": table_5()}
    if options.unknowns:
        found["seconds of assembly and solve"] = speed(options.unknowns, options.rounds)
    if options.network:
        found["network"] = network(options.steps)
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        with open(options.output, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
