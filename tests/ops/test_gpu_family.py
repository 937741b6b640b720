# SPDX-License-Identifier: Apache-2.0
"""The GPU's silhouette, run on the host, against the CPU's: every law and every T-conorm, in one form each."""

import pytest
import torch

from geodiff import soft
from geodiff.native.gpu import emulated
from tests.ops.family import distributions, tconorms
from tests.ops.test_parity import CLIP, FACES, LAYOUT, SIZE, bounds, kernel

LAWS, RULES = distributions(), tconorms()
BASES = [law for law in LAWS if law is law.base]
# Each base law in one of its forms, with one rule after another; then the rules that are left, with a common law.
FORMS = [[law for law in LAWS if law.base == base.base or str(law).startswith(str(base))] for base in BASES]
PAIRS = [(forms[5 * i % len(forms)], RULES[i % len(RULES)]) for i, forms in enumerate(FORMS)]
PAIRS += [(soft.Logistic(), rule) for rule in RULES[len(BASES) :]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize(("law", "rule"), PAIRS, ids=[f"{law} {rule}" for law, rule in PAIRS])
def test_kernels_are_the_cpus(law: soft.Distribution, rule: soft.TConorm, dtype: torch.dtype):
    """Values and all gradients; the same bits whatever the order of threads."""
    cotangent = torch.randn(len(LAYOUT), *SIZE, dtype=torch.float64)
    alpha, gradients = kernel(law, rule, dtype, cotangent)
    value_bound, gradient_bound = bounds(dtype, law, rule)
    found = []
    for order in ("forward", "backward", "shuffled"):
        with emulated(order):
            found.append(kernel(law, rule, dtype, cotangent))
    own, own_gradients = found[0]
    assert float((own - alpha).abs().max()) <= 2 * value_bound
    felt = float(gradients[0].abs().max())
    for name, got, expected in zip(("clip", "scale", "shape", "shift", "p"), own_gradients, gradients, strict=True):
        least = felt if name in ("scale", "shape", "shift") else 0.01 if name == "p" else 0.0
        allowed = 2 * gradient_bound * max(float(expected.abs().max()), least)
        assert float((got - expected).abs().max()) <= allowed, name
    for other, other_gradients in found[1:]:
        assert torch.equal(other, own)
        assert all(torch.equal(a, b) for a, b in zip(other_gradients, own_gradients, strict=True))


def test_the_pairs_are_everything():
    assert {law.kernel_id for law, _ in PAIRS} == {law.kernel_id for law in LAWS}
    assert {str(rule) for _, rule in PAIRS} == {str(rule) for rule in RULES}
    assert {(law.is_reversed, law.is_squared) for law, _ in PAIRS} == {(a, b) for a in (0, 1) for b in (0, 1)}
    assert CLIP.dtype == torch.float64 and FACES.shape[1] == 3
