# SPDX-License-Identifier: Apache-2.0
"""Isotropic remeshing beside PyMeshLab's, in one run: time, angles, edges, distance, self-intersections.

    python tests/benchmarks/remesh.py [--threads 1]

PyMeshLab (pip install pymeshlab) is left out where it is not installed. Times are the least CPU time of the turns.
"""

import argparse
import pathlib
import time

import torch

import geodiff as gd
from geodiff.scene.remesh import remesh
from tests.scene.test_remesh import angles, lengths

ASSETS = pathlib.Path(__file__).parents[2] / "assets"
TURNS = 3


def cases() -> dict[str, tuple[gd.Mesh, float]]:
    """Meshes, and the wanted length of edges."""
    ball = gd.icosphere(5)
    noise = torch.randn(ball.vertices.shape, generator=torch.Generator().manual_seed(0))
    airplane = gd.Mesh.load(ASSETS / "airplane.obj").normalized()
    found = {
        "sphere, even": (ball, 1.0),
        "sphere, half as fine": (ball, 2.0),
        "sphere, noise of 0.1 edges": (ball.with_vertices(ball.vertices + 0.004 * noise), 1.0),
        "torus, 160 by 64": (gd.torus(1.0, 0.3, 160, 64), 1.0),
        "airplane, subdivided": (airplane.subdivided(1), 1.0),
    }
    return {name: (mesh, share * float(lengths(mesh).mean())) for name, (mesh, share) in found.items()}


def ours(mesh: gd.Mesh, length: float) -> gd.Mesh:
    """Five iterations, no creases."""
    return remesh(mesh, length, feature_angle_deg=None).mesh


def theirs(mesh: gd.Mesh, length: float) -> gd.Mesh:
    """Five iterations, no creases."""
    import pymeshlab

    meshes = pymeshlab.MeshSet()
    meshes.add_mesh(pymeshlab.Mesh(mesh.vertices.double().numpy(), mesh.faces.int().numpy()))
    meshes.meshing_isotropic_explicit_remeshing(
        iterations=5, targetlen=pymeshlab.PureValue(length), featuredeg=180.0, checksurfdist=False
    )
    found = meshes.current_mesh()
    return gd.Mesh(torch.tensor(found.vertex_matrix()).float(), torch.tensor(found.face_matrix()).long())


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    tools = {"geodiff": ours}
    try:
        import pymeshlab  # noqa: F401

        tools["PyMeshLab"] = theirs
    except ImportError:
        print("PyMeshLab is not installed")
    print("| mesh | faces | by | seconds | faces after | least angle | of 1 % | mean | off by, edges | intersections |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, (mesh, length) in cases().items():
        seconds: dict[str, float] = {}
        made: dict[str, gd.Mesh] = {}
        for _ in range(TURNS):
            for tool, run in tools.items():
                start = time.process_time()
                made[tool] = run(mesh, length)
                seconds[tool] = min(seconds.get(tool, 1e9), time.process_time() - start)
        for tool, new in made.items():
            least = angles(new).amin(-1)
            off = float(gd.point_mesh_distance(mesh.vertices, new).max()) / length
            crossing = f"{len(mesh.self_intersections())} → {len(new.self_intersections())}"
            numbers = f"{float(least.min()):.1f} | {float(least.quantile(0.01)):.1f} | {float(least.mean()):.1f}"
            row = f"{seconds[tool]:.3f} | {new.num_faces} | {numbers} | {off:.2f} | {crossing}"
            print(f"| {name} | {mesh.num_faces} | {tool} | {row} |", flush=True)


if __name__ == "__main__":
    main()
