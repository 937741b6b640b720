# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: a light import, one version, and nothing of one machine in its files."""

import ast
import functools
import importlib.metadata
import importlib.util
import pathlib
import re
import subprocess
import sys

import pytest

import geodiff

CHECKOUT = pathlib.Path(__file__).parents[1]

# From the lowest floor up: a file imports from its own room and from lower floors only.
FLOORS = (
    {"constants"},
    {"validation", "saving"},
    {"guard", "modes", "adam", "members", "settings", "recording"},
    {"arrays", "readers", "sparse"},
    {"soft", "native"},
    {"reference"},  # the twins; an op hands user-defined members down to its own
    {"ops", "implicit", "optim"},
    {"scene"},
    {"transport", "csg"},
    {"splines"},
    {"render", "losses", "fem"},
    {"atlas", "interop"},
    {"tasks"},
    {"cli_options"},
    {"cli_fields"},
    {"cli"},
    {"__main__"},
)
# What may import, when asked for it or for its types, what is made of it; all other modules import downwards only.
FACADES = {
    "geodiff": "hands out names of all rooms",
    "geodiff.scene.mesh": "reads, writes, samples and subdivides itself by functions that take and return meshes",
    "geodiff.scene.transforms": "has methods of the mesh, and names its type",
    "geodiff.transport.plan": "is made of a result of sinkhorn, which hands it out",
    "geodiff.tasks": "hands out the jobs",
    "geodiff.transport.robust_mean": "names the type of the penalties that it works for",
}
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# Folders of somebody's machine, and hosts of package registries.
PRIVATE = re.compile(
    r"(?<![\w.$}])/(?:work|root|home|Users)/|pypi\.org|pythonhosted\.org|pytorch\.org/whl|/opt/(?:pypi|wheels)"
)


def tracked() -> list[pathlib.Path]:
    """List the files under version control."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=CHECKOUT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("needs a git checkout")
    paths = [CHECKOUT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def python(code: str) -> None:
    """Run code in a fresh interpreter, which must succeed."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_is_light() -> None:
    python(
        "import geodiff, sys\n"
        "heavy = {'torch', 'numpy', 'scipy', 'trimesh', 'geodiff.native._cpu'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )


FIT = """
import contextlib, io, sys, geodiff as gd, torch
HEAVY = ("trimesh", "networkx", "sympy", "torch._dynamo", "scipy.optimize", "scipy.spatial", "scipy.stats")
import geodiff.tasks
assert "geodiff.ops" not in sys.modules
from geodiff.tasks import fit_mesh
assert not {"scipy", *HEAVY} & set(sys.modules), {"scipy", *HEAVY} & set(sys.modules)
cameras = gd.Camera.orbit(2.7, 20.0, torch.tensor([0.0, 90.0]), fov_deg=50)
alpha = gd.Renderer(9)(gd.icosphere(0), cameras).alpha
images = gd.PosedImages(alpha[..., None].repeat(1, 1, 1, 3), alpha, cameras)
for optimizer in ("adam", "large_steps"):
    with contextlib.redirect_stderr(io.StringIO()):
        fit_mesh(images, template=gd.icosphere(0), steps=1, optimizer=optimizer)
    assert not set(HEAVY) & set(sys.modules), set(HEAVY) & set(sys.modules)
"""


def test_a_fit_of_a_mesh_imports_what_it_uses() -> None:
    python(FIT)


def test_import_needs_no_compiled_kernels() -> None:
    python("import sys; sys.modules['geodiff.native._cpu'] = None; import geodiff; geodiff.checks; geodiff.native")


def test_kernels_leave_denormals_on() -> None:
    if importlib.util.find_spec("geodiff.native._cpu") is None:
        pytest.skip("the compiled kernels are not installed here")
    python("import numpy, geodiff.native._cpu; assert numpy.float32(1e-40) * numpy.float32(0.5) > 0")


def room_of(path: pathlib.Path) -> str:
    """Name the room of a file of the package: its folder, or the file itself where it has none."""
    return path.relative_to(CHECKOUT / "geodiff").parts[0].removesuffix(".py")


def imported_rooms(path: pathlib.Path) -> set[str]:
    """Name the rooms that a file imports from, anywhere in it."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "geodiff":
            modules += [f"geodiff.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
    return {module.split(".")[1] for module in modules if module.startswith("geodiff.")}


def test_rooms_import_from_lower_floors_only() -> None:
    files = [path for path in (CHECKOUT / "geodiff").rglob("*.py") if room_of(path) != "__init__"]
    assert {room_of(path) for path in files} <= set(FLOOR)
    wrong = [
        f"{path.relative_to(CHECKOUT)} imports {other}"
        for path in files
        for other in imported_rooms(path)
        if other != room_of(path) and FLOOR.get(other, len(FLOORS)) >= FLOOR[room_of(path)]
    ]
    assert not wrong


@functools.cache
def imports() -> dict[str, set[str]]:
    """Name for each module of the package those that it imports, in functions and for types too, but for façades."""
    paths = {}
    for path in (CHECKOUT / "geodiff").rglob("*.py"):
        parts = path.relative_to(CHECKOUT).with_suffix("").parts
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found: dict[str, set[str]] = {}
    for module, path in paths.items():
        tree = ast.parse(path.read_text())
        nodes = tree.body if module in FACADES else ast.walk(tree)
        found[module] = set()
        for node in nodes:
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # A name is a module, or one that the module has.
                names = [f"{node.module}.{alias.name}" for alias in node.names]
                found[module] |= {name if name in paths else str(node.module) for name in names}
        found[module] = found[module] & set(paths) - {module, "geodiff"}
    return found


def circles(graph: dict[str, set[str]]) -> list[str]:
    """List one circle for each module that is on some, as a chain of names."""
    found = []
    for start in sorted(graph):
        trails, seen = [[start]], set()
        while trails:
            trail = trails.pop(0)
            for following in sorted(graph[trail[-1]] - seen):
                if following == start:
                    found.append(" -> ".join([*trail, start]))
                    trails = []
                    break
                seen.add(following)
                trails.append([*trail, following])
    return found


def test_modules_import_in_no_circle() -> None:
    graph = imports()
    assert len(graph) > 200 and set(FACADES) <= set(graph)
    assert graph["geodiff.tasks.mesh.job"] >= {"geodiff.tasks.mesh.outputs", "geodiff.scene.mesh"}
    assert not circles(graph)
    # It finds circles where there are some.
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b -> c -> b", "c -> b -> c"]


def test_no_task_imports_what_another_writes() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if re.fullmatch(r"geodiff\.tasks\.\w+\.(outputs|pictures)", other)
        and module.split(".")[2] != other.split(".")[2]
    ]
    assert not wrong


def test_version_is_the_same_everywhere() -> None:
    metadata = (CHECKOUT / "pyproject.toml").read_text()
    assert f'\nversion = "{geodiff.__version__}"\n' in metadata
    try:
        installed = importlib.metadata.version("geodiff")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here, only on the path")
    assert installed == geodiff.__version__


def test_installed_package_has_the_licence() -> None:
    try:
        files = importlib.metadata.files("geodiff") or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here, only on the path")
    assert any(file.name == "LICENSE" for file in files)


def test_no_file_names_this_machine_or_a_registry() -> None:
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(CHECKOUT)}: {match[0]}" for match in PRIVATE.finditer(text)]
    assert not found


def test_every_source_names_its_licence() -> None:
    sources = [path for path in tracked() if path.suffix in {".py", ".h", ".cpp"} and path.stat().st_size]
    assert sources
    without = [path.name for path in sources if "SPDX-License-Identifier: Apache-2.0" not in path.read_text()[:200]]
    assert not without
