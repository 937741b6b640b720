# SPDX-License-Identifier: Apache-2.0
"""Calls of relaxed programs and gates of geodiff.soft, of geodiff.csg, and of what is made by programs elsewhere."""

from typing import Any

import torch

import geodiff as gd
from geodiff import csg, soft, transport
from tests.unchanged.arguments import Arguments, Case


def _loop(t: Arguments) -> Any:
    start = {"x": 3 + t.rand(4, batch=False), "n": (t.rand(4, 2), [t.rand(4)])}
    t.hold(start)

    def body(s: Any) -> Any:
        return {"x": s["x"] / 2, "n": (s["n"][0] + 1, [s["n"][1][0]])}

    return soft.while_loop(lambda s: soft.lt(1.0, s["x"], 5.0), body, start, max_steps=9)


def _choose(t: Arguments) -> Any:
    return soft.choose(t.rand(3), {"a": t.rand(3, 2), "b": t.rand(3)}, {"a": t.rand(3, 2), "b": 1.0})


def _solids(t: Arguments) -> Any:
    box, ball = csg.Box(1 + t.rand(3, array=True), t.rand(3, array=True)), csg.Sphere(t(0.7), t.rand(3, array=True))
    rod, half = csg.Cylinder(t(0.4), t(1.5), t.rand(3)), csg.HalfSpace(1 + t.rand(3, array=True), t(0.1))
    own = csg.Implicit(lambda p: p.norm(dim=-1) - 1)
    placed = (rod & half).translated(t.rand(3, array=True)).scaled(t(2.0)).rotated(t(torch.eye(3), array=True))
    gate = csg.Gate(box - ball, (placed ^ own) | ~half, t.rand(8))
    points = t.rand(5, 3, batch=True)
    relaxed = gate.relaxed(t(0.3), "einstein")
    return [gate(points), gate.hard()(points), relaxed(points), relaxed.occupancy(points), relaxed.level(0.3)]


CASES: dict[str, Case] = {
    "soft.lt": lambda t: soft.lt(t.rand(4, array=True), t.rand(3, 4, array=True), t(2.0)),
    "soft.eq": lambda t: soft.eq(t.rand(4, array=True), t.rand(3, 4, array=True), t(2.0)),
    "soft.choose": _choose,
    "soft.while_loop": _loop,
    "soft.index": lambda t: soft.index(t.rand(5, 2, array=True), 4 * t.rand(3, array=True), t(3.0)),
    "soft.soft_argmax": lambda t: soft.soft_argmax(t.rand(3, 5, array=True), t(3.0), dim=0),
    "soft.gate_values": lambda t: soft.gate_values(t.rand(4), t.rand(4), "yager(2)"),
    "soft.mixed_gate": lambda t: [soft.mixed_gate(t.rand(4), t.rand(4), t.rand(4, n)) for n in (8, 16)],
    "soft.gate_names": lambda t: t.hold(torch.tensor(len(soft.gate_names(t.rand(3, 8))))),
    "csg.Box csg.Sphere csg.Cylinder csg.HalfSpace csg.Implicit csg.Gate csg.RelaxedSolid Solid.relaxed "
    "Solid.translated Solid.rotated Solid.scaled Gate.hard RelaxedSolid.occupancy RelaxedSolid.level": _solids,
    "render.sphere_trace": lambda t: gd.render.sphere_trace(csg.Sphere(t(0.7), t.rand(3)), t.camera(), 5).depth[:1],
    "transport.soft_dtw": lambda t: (
        transport.soft_dtw(t.rand(5, 2, array=True, batch=True), t.rand(4, 2, array=True, batch=True), 0.1).value
    ),
}
