# SPDX-License-Identifier: Apache-2.0
"""No function of geodiff changes an argument: every public one, by name, in every dtype and layout that it takes."""

import importlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import geodiff
from tests.unchanged import cases_fem, cases_ops, cases_programs, cases_scene, cases_splines, cases_transport
from tests.unchanged.arguments import Case, check, same

CASES: dict[str, Case] = {
    **cases_transport.CASES,
    **cases_scene.CASES,
    **cases_ops.CASES,
    **cases_programs.CASES,
    **cases_splines.CASES,
    **cases_fem.CASES,
}

# Public, and without a case of its own, for this reason.
WITHOUT = {
    **dict.fromkeys(
        ["geodiff.checks", "scene.box", "scene.cylinder", "scene.icosphere", "scene.plane"], "takes numbers"
    ),
    "scene.torus": "takes numbers",
    **dict.fromkeys(["geodiff.Recording", "Recording.record", "Recording.replay"], "takes numbers"),
    **dict.fromkeys(["splines.NURBS", "tasks.Display", "transport.LazyPlan"], "made by others, not by users"),
    "transport.SinkhornResult": "made by sinkhorn",
    **dict.fromkeys((f"DescentSettings.{m}" for m in ("lr_at", "scale_at")), "takes numbers"),
    **dict.fromkeys((f"Settings.{m}" for m in ("as_dict", "inputs", "of")), "takes numbers"),
    **dict.fromkeys(
        [
            "FitMeshSettings.completed",
            "FitMeshSettings.flatness_at",
            "FitPoseSettings.completed",
            "FitPoseSettings.thorough",
        ],
        "takes numbers",
    ),
    **dict.fromkeys((f"Progress.{m}" for m in ("get", "items", "keys")), "takes a name"),
    **dict.fromkeys(
        ["tasks.fit_colors", "tasks.fit_mesh", "tasks.fit_pose", "tasks.fit_nurbs", "tasks.sweep", "tasks.view"],
        "takes files",
    ),
    **dict.fromkeys(["Atlas.load", "Atlas.save"], "writes or reads a file; tested there to come back the same"),
    "FitColorsResult.save": "Mesh.save, with flags",
    **dict.fromkeys(["Atlas.watertight_mesh", "atlas.poisson_mesh"], "Open3D copies all that it is given"),
    **dict.fromkeys(
        ["interop.from_pytorch3d", "interop.to_pytorch3d", "interop.camera_from_pytorch3d"], "needs PyTorch3D"
    ),
    "interop.camera_to_pytorch3d": "needs PyTorch3D",
}
ROOMS = (
    "scene",
    "render",
    "splines",
    "transport",
    "losses",
    "sparse",
    "implicit",
    "optim",
    "soft",
    "csg",
    "atlas",
    "fem",
    "interop",
    "tasks",
    "ops",
)


def public() -> Iterator[str]:
    """Names of all public functions and constructors, `room.name`, and of methods, `Class.name`."""
    seen: set[int] = set()
    for room in (*ROOMS, "reference", "geodiff"):
        module = geodiff if room == "geodiff" else importlib.import_module(f"geodiff.{room}")
        own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__ and n[0] != "_"]
        for name in getattr(module, "__all__", own):
            value = getattr(module, name)
            if id(value) in seen or inspect.ismodule(value) or not callable(value):
                continue
            seen.add(id(value))
            if not inspect.isclass(value):
                yield f"{room}.{name}"
                continue
            if "__init__" in vars(value) and not hasattr(value, "__dataclass_fields__"):
                yield f"{room}.{name}"
            yield from _methods(value)


def _methods(owner: type) -> Iterator[str]:
    for base in owner.__mro__:
        if base.__module__.startswith("geodiff"):
            for name, value in vars(base).items():
                function = value.__func__ if isinstance(value, classmethod | staticmethod) else value
                if inspect.isfunction(function) and not name.startswith("_"):
                    first = [c for c in base.__mro__ if name in vars(c) and c.__module__.startswith("geodiff")][-1]
                    yield f"{first.__name__}.{name}"


def test_every_public_function_has_a_case() -> None:
    named = {name for names in CASES for name in names.split()}
    wanted = set(public())
    assert sorted(wanted - named - set(WITHOUT)) == []
    assert sorted(set(WITHOUT) & named) == sorted(set(WITHOUT) - wanted) == []


@pytest.mark.parametrize("case", CASES.values(), ids=[name.split(" ")[0] for name in CASES])
def test_arguments_stay(case: Case) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not converged.*")
        warnings.filterwarnings("ignore", ".*epsilon = .*")
        check(case)


class _Watch(TorchDispatchMode):
    """Compares the tensors that ops of the library are called with before and after, and collects their names."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace != "geodiff":
            return func(*args, **kwargs)
        self.seen.add(func._opname)
        given = [(x, x.clone()) for x in (*args, *kwargs.values()) if isinstance(x, torch.Tensor)]
        result = func(*args, **kwargs)
        assert all(same(now, then) for now, then in given), f"{func} changes an argument"
        return result


def test_ops_leave_their_arguments_alone() -> None:
    with _Watch() as watch:
        for name, case in cases_ops.CASES.items():
            if name.startswith("ops."):
                check(case)
    schemas = {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("geodiff::")}
    assert watch.seen == {name.removeprefix("geodiff::") for name in schemas}
