# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged, tampered with, of another version or of another program, in every job that has them."""

import hashlib
import json
import math
import pathlib
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

import geodiff as gd
from geodiff.tasks import checkpoint
from geodiff.tasks.checkpoint import (
    Like,
    Many,
    Number,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)

Run = Callable[..., Any]


class Stop(Exception):
    """Stands for whatever ends a job."""


def stop(*_: object) -> None:
    raise Stop


def run_mesh(folder: pathlib.Path, **more: Any) -> Any:
    cameras = gd.Camera.orbit(2.732, 20.0, torch.arange(4) * 90.0, fov_deg=30)
    alpha = gd.rasterize(gd.box((0.7, 0.35, 0.5)), cameras, 16).mask.float()
    optimizer = more.pop("optimizer", "large_steps")
    return gd.tasks.fit_mesh(alpha, cameras, output=folder, steps=3, checkpoint_seconds=0, subdivisions=1,
                             optimizer=optimizer, progress=False, **more)  # fmt: skip


def run_adam(folder: pathlib.Path, **more: Any) -> Any:
    return run_mesh(folder, optimizer="adam", **more)


def run_pose(folder: pathlib.Path, **more: Any) -> Any:
    mesh = gd.box((1.0, 0.5, 0.3))
    image = gd.rasterize(mesh, gd.Camera.orbit(4.0, 30, 40, fov_deg=40), 16).mask.float()
    return gd.tasks.fit_pose(mesh, image, output=folder, steps=3, candidates=8, starts=3, size=16, search_size=16,
                             polish=1, checkpoint_seconds=0, progress=False, **more)  # fmt: skip


def run_atlas(folder: pathlib.Path, **more: Any) -> Any:
    ball = torch.nn.functional.normalize(torch.randn(300, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    return gd.fit_atlas(ball, output=folder, widths=(8,), steps=20, rounds=1, chunk=4, target=60, watertight=False,
                        samples=100, checkpoint_seconds=0, progress=False, **more)  # fmt: skip


JOBS = {"fit_mesh": run_mesh, "adam": run_adam, "fit_pose": run_pose, "fit_atlas": run_atlas}


def twice() -> Callable[..., None]:
    """Stop at the second call: where a checkpoint is written after the callback, there is one then."""
    calls: list[int] = []

    def called(*_: object) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise Stop

    return called


@pytest.fixture(params=list(JOBS))
def stopped(
    request: pytest.FixtureRequest, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Run, str, tuple[Any, ...]]:
    """A job, its name, and how it reads the checkpoint that it left."""
    run, name = JOBS[request.param], request.param.replace("adam", "fit_mesh")
    reads: list[tuple[Any, ...]] = []
    monkeypatch.setattr(checkpoint, "load_checkpoint", lambda *given: reads.append(given) or load_checkpoint(*given))
    with pytest.raises(Stop):
        run(tmp_path, callback=twice())
    return run, name, reads[0]


def first_tensor(tree: Any, good: Callable[[torch.Tensor], bool]) -> tuple[Any, Any]:
    """Find a tensor in a tree; return what holds it, and its name there."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for name, value in list(items):
        if isinstance(value, torch.Tensor) and good(value):
            return tree, name
        if isinstance(value, dict | list):
            found = first_tensor(value, good)
            if found[0] is not None:
                return found
    return None, None


def real(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.numel() > 3 and bool(torch.isfinite(tensor).all())


def test_any_damage_is_one_clear_error(stopped: tuple[Run, str, tuple[Any, ...]]) -> None:
    run, job, reads = stopped
    path = reads[0]
    whole = path.read_bytes()

    def refused(data: bytes, reason: str, itself: bool = False) -> None:
        path.write_bytes(data)
        text = rf"^{job}: `resume` must be given a sound checkpoint of {job}; got {re.escape(str(path))}, "
        with pytest.raises(ValueError, match=rf"{text}which is {reason}.*--fresh"):
            run(path.parent, callback=stop) if itself else load_checkpoint(*reads)
        assert path.read_bytes() == data and not list(path.parent.glob(".geodiff*"))

    for at in (0, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        refused(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :], "(damaged|something else|of an older)")
    refused(whole[: len(whole) // 2], "damaged: its checksum is another", itself=True)
    refused(whole + b"\0", "damaged: its checksum is another")
    refused(b"", "something else")
    refused(b"\x89PNG\r\n\x1a\n" + b"\0" * 999, "something else")
    refused(whole.replace(b"checkpoint 2", b"checkpoint 9", 1), "of another version .9, this release has 2")

    content = read_checkpoint(whole)

    def tampered(reason: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Whoever writes the checksum too is refused for what is in the file."""
        state = read_checkpoint(whole)["state"]
        change(state)
        save_checkpoint(path, job, content["inputs"], state)
        refused(path.read_bytes(), reason, itself=reason.endswith("has 1 of"))

    def replaced(new: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[dict[str, Any]], None]:
        def change(state: dict[str, Any]) -> None:
            holder, name = first_tensor(state, real)
            holder[name] = new(holder[name])

        return change

    tampered("damaged: .* has 1 of", replaced(lambda t: t.reshape(1, -1)[:, :1].reshape((1,) * t.dim())))  # broadcasts
    tampered("damaged: .* is of another kind", replaced(lambda t: t.reshape(-1, 1, 1, 1, 1)))
    tampered("damaged: .* is of another kind", replaced(lambda t: t.to(torch.int64)))
    tampered("damaged: .* is not finite", replaced(lambda t: torch.full_like(t, math.nan)))
    tampered("of another version, or damaged: state lacks seconds", lambda state: state.pop("seconds"))
    tampered("of another version, or damaged: state lacks extra, or has it", lambda state: state.update(extra=1))
    tampered("damaged: history is no list", lambda state: state.update(history={"0": 1}))
    tampered("damaged: .* is no number", lambda state: state.update(seconds="long"))
    tampered("damaged: seconds is nan", lambda state: state.update(seconds=math.nan))

    path.write_bytes(whole)  # and as it was, it goes on
    with pytest.raises(Stop):
        run(path.parent, callback=stop)
    path.write_bytes(b"")
    with pytest.raises(Stop):
        run(path.parent, callback=stop, resume=False)


def test_a_checkpoint_of_an_earlier_release(tmp_path: pathlib.Path) -> None:
    """Those were pickled; nothing is unpickled now."""
    torch.save({"format": "geodiff checkpoint 1", "job": "fit_mesh", "inputs": {}, "state": {}}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"old\.pt, which is of an older version of geodiff, or damaged.*--fresh"):
        load_checkpoint(tmp_path / "old.pt", "fit_mesh", {}, {})


def test_nothing_is_unpickled(tmp_path: pathlib.Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (pathlib.Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "checkpoint.pt"
    for data in (pickle.dumps(Bomb()), b"geodiff checkpoint 2 x\n" + pickle.dumps(Bomb())):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="must be given a sound checkpoint"):
            load_checkpoint(path, "fit_mesh", {}, {})
    torch.save(Bomb(), path)
    with pytest.raises(ValueError, match="must be given a sound checkpoint"):
        load_checkpoint(path, "fit_mesh", {}, {})
    assert not (tmp_path / "exploded").exists()


def signed(text: str, data: bytes = b"") -> bytes:
    """Return a file whose checksum is right, whatever is in it."""
    body = text.encode() + b"\n" + data
    return f"geodiff checkpoint 2 {hashlib.sha256(body).hexdigest()}\n".encode() + body


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "without job, inputs and state"),
        ('{"job": 1, "inputs": {}, "state": {}}', "without job and inputs"),
        ("{", "damaged in its second line"),
        ("[" * 100_000, "damaged in its second line"),
        ('{"job": "j", "inputs": {}, "state": {"x": {"tensor": 3}}}', "damaged in its second line"),
        ('{"job": "j", "inputs": {}, "state": {"x": {"tensor": ["float32", [-1], 0]}}}', "without sizes"),
        ('{"job": "j", "inputs": {}, "state": {"x": {"tensor": ["float99", [1], 0]}}}', "without sizes"),
        ('{"job": "j", "inputs": {}, "state": {"x": {"tensor": ["float32", [9], 0]}}}', "shorter than its tensors"),
        ('{"job": "j", "inputs": {}, "state": {"x": {"tensor": ["float32", [1e9], 0]}}}', "without sizes"),
        (f'{{"job": "j", "inputs": {{}}, "state": {{"x": {{"tensor": ["bool", [{10**12}], 0]}}}}}}', "shorter"),
        ('{"job": "k", "inputs": {}, "state": {}}', "of the job k"),
    ],
)
def test_hostile_contents(content: str, reason: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(signed(content, b"\0" * 8))
    with pytest.raises(ValueError, match=reason):
        load_checkpoint(tmp_path / "checkpoint.pt", "j", {}, {"x": Like(torch.float32, (1,))})


def test_large_checkpoints_come_less_often(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every 20 s, but where writing one takes 5 s, after 50 s; with 0, always."""
    now = [0.0]
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now[0])

    def slow(*_: object) -> None:
        now[0] += 5

    monkeypatch.setattr(checkpoint, "save_checkpoint", slow)
    for seconds, pause in ((20.0, 50), (0.0, 0), (100.0, 100)):
        one = checkpoint.Checkpoint(tmp_path, "j", {}, seconds)
        assert one.due() == (seconds == 0)
        now[0] += seconds
        assert one.due()
        one.save(dict)
        now[0] += max(pause - 1, 0)
        assert one.due() == (pause == 0)
        now[0] += 1
        assert one.due()
    assert not checkpoint.Checkpoint(None, "j", {}, 0.0).due()
    assert not checkpoint.Checkpoint(tmp_path, "j", {}, None).due()


def test_a_round_trip(tmp_path: pathlib.Path) -> None:
    """Every bit comes back, of tensors of all kinds and shapes, of numbers and text."""
    path = tmp_path / "checkpoint.pt"
    tensors = {
        "a": torch.tensor([0.1, -0.0, 1e-45, 3.4e38]),
        "b": torch.rand(2, 0, 3, dtype=torch.float64),
        "c": torch.tensor(7),
        "d": torch.tensor([[True], [False]]),
        "e": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
    }
    state = {"tensors": tensors, "number": 0.1 + 0.2, "text": "é\n", "none": None, "list": [{"x": 1}, {"x": 2}]}
    like = {
        "tensors": {name: Like.of(tensor) for name, tensor in tensors.items()},
        "number": Number(0.0, 1.0),
        "text": str,
        "none": Number(0, 1, none=True),
        "list": Many({"x": Number(1, 2)}, 2),
    }
    save_checkpoint(path, "j", {"pair": (1, 2), "lr": 0.1}, state)
    back = load_checkpoint(path, "j", {"pair": (1, 2), "lr": 0.1}, like)
    assert back is not None
    for name, tensor in tensors.items():
        assert torch.equal(back["tensors"][name], tensor) and back["tensors"][name].dtype == tensor.dtype
    assert torch.equal(back["tensors"]["a"].signbit(), tensors["a"].signbit())
    assert {**back, "tensors": 0} == {**state, "tensors": 0}
    back["tensors"]["a"].zero_()  # they can be written to
    for wrong, reason in (
        ({**like, "list": Many({"x": Number(1, 2)}, 3)}, "list has 2 of 3"),
        ({**like, "list": Many({"x": Number(2, 2)})}, "x is 1"),
        ({**like, "number": Number(0, 1)}, "number is no number"),
        ({**like, "number": str}, "number is no text"),
    ):
        with pytest.raises(ValueError, match=reason):
            load_checkpoint(path, "j", {}, wrong)


def test_every_flipped_byte_is_found(tmp_path: pathlib.Path) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", "j", {"lr": 0.1}, {"x": torch.rand(5, 3), "n": 3})
    whole = (tmp_path / "checkpoint.pt").read_bytes()
    for at in range(len(whole)):
        for bit in (0, 7):
            with pytest.raises(ValueError, match=r"damaged|something else|another version"):
                read_checkpoint(whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :])


def test_a_checkpoint_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "checkpoint.pt").mkdir()
    with pytest.raises(OSError, match=r"`resume` must be given a readable checkpoint; got .*checkpoint\.pt"):
        load_checkpoint(tmp_path / "checkpoint.pt", "fit_mesh", {}, {})


# --- rows of a sweep --------------------------------------------------------------------------------------------------


def sweep(folder: pathlib.Path, **more: Any) -> Any:
    options = {"views": 2, "size": 8, "steps": 1, "subdivisions": 1}
    return gd.tasks.sweep("shape", gd.box(), output=folder, family="logistic+probabilistic", scales=[0.01, 0.03],
                          lrs=[0.2], options=options, progress=False, **more)  # fmt: skip


def test_damaged_rows(tmp_path: pathlib.Path) -> None:
    first = sweep(tmp_path)
    path = tmp_path / "rows.jsonl"
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)

    def refused(data: bytes, reason: str) -> None:
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"^sweep: .*{re.escape(str(path))}, whose {reason}.*--fresh"):
            sweep(tmp_path)
        assert path.read_bytes() == data and not list(tmp_path.glob(".geodiff*"))

    score = re.search(rb'"iou": 0\.(\d)', lines[1])
    assert score is not None
    at = len(lines[0]) + score.start(1)
    other = b"5" if whole[at : at + 1] != b"5" else b"6"
    refused(whole[:at] + other + whole[at + 1 :], "line 2 is damaged: its checksum is another. Take that line out")
    refused(lines[0] + lines[1].replace(b'"scale"', b'"scalf"') + lines[2], "line 2 is damaged")
    refused(lines[0] + b"\0" * 40 + b"\n" + lines[2], "line 2 is damaged")
    refused(b"".join(lines[1:]), "line 1 is not that of a sweep")
    refused(b"{}\n" + lines[1], "line 1 is not that of a sweep")
    old = json.loads(lines[0])
    del old["version"], old["crc"]
    refused(json.dumps(old).encode() + b"\n", "line 1 is of another version of geodiff")
    # The line out, its run is done again, and comes to the same.
    path.write_bytes(lines[0] + lines[2])
    again = sweep(tmp_path)
    assert again.run == 1
    for old_row, new_row in zip(first.rows, again.rows, strict=True):
        assert {**old_row, "seconds": 0} == {**new_row, "seconds": 0}


def test_rows_of_another_kind(tmp_path: pathlib.Path) -> None:
    """A line with the right checksum that is no row of the job."""
    from geodiff.tasks.sweep.outputs import _signed

    sweep(tmp_path)
    path = tmp_path / "rows.jsonl"
    head, line = path.read_bytes().splitlines(keepends=True)[:2]
    row = json.loads(line)
    del row["crc"]
    for change in ({"scale": "wide"}, {"iou": "good"}, {"member": 3}, {"error": 3}, {"extra": 1}, {"lr": math.nan}):
        path.write_bytes(head + _signed({**row, **change}))
        with pytest.raises(ValueError, match=r"line 2 is no row of this job. Take that line out"):
            sweep(tmp_path)
