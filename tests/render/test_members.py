# SPDX-License-Identifier: Apache-2.0
"""Every distribution and T-conorm of the table, called by its name, in each coverage and for colours: like the twin."""

import pytest
import torch

import geodiff as gd
from geodiff import soft
from tests.helpers import assert_close_relative

MESH = gd.box((0.9, 0.6, 0.5))
CAMERA = gd.Camera.orbit(2.7, 25.0, 30.0, fov_deg=40).to(dtype=torch.float64)
CASES = [(law, "probabilistic", way) for law in soft.DISTRIBUTIONS for way in ("faces", "edges", "contour")]
CASES += [("logistic", rule, way) for rule in soft.TCONORMS for way in ("faces", "edges")]  # a contour joins nothing


@pytest.mark.parametrize(("law", "rule", "coverage"), CASES)
def test_members_by_name(law: str, rule: str, coverage: str):
    model = dict(distribution=law, tconorm=rule, scale=0.05, coverage=coverage, max_error=0.0)
    outputs = ("rgb",) if coverage == "faces" else ()
    kernel, twin = (
        gd.Renderer((7, 9), outputs=("alpha", *outputs), depth="softmax", backend=backend, **model)
        for backend in ("kernel", "reference")
    )
    mesh = gd.Mesh(MESH.vertices.double(), MESH.faces)
    one, other = kernel(mesh, CAMERA), twin(mesh, CAMERA)
    assert_close_relative(one.alpha, other.alpha, 1e-9)
    if outputs:
        assert_close_relative(one.rgb, other.rgb, 1e-6)
