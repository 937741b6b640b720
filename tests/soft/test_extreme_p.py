# SPDX-License-Identifier: Apache-2.0
"""T-conorms and T-norms over the whole range of p, at values from exactly 0 and denormal to exactly 1."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodiff import soft
from tests.helpers import rounding_bound

POWERS = ("yager", "aczel_alsina", "dombi", "schweizer_sklar")
DTYPES = (torch.float32, torch.float64)
edges = [0.0, 1e-45, 1e-40, 1.2e-38, 1e-30, 0.5, 1 - 2**-24, 1.0]
values = st.lists(st.sampled_from(edges) | st.floats(0, 1, width=32), min_size=1, max_size=4)
orders = st.floats(-300, 300) | st.floats(-30, 30) | st.floats(-3, 3)


def rule_of(name: str, order: float) -> soft.TConorm:
    if name == "sugeno_weber":
        p = 10.0 ** max(-15.5, min(29.9, order)) - 1
        return soft.SugenoWeber(torch.tensor(p, dtype=torch.float64, requires_grad=True))
    order = max(-29.9, min(29.9, order)) if name in ("hamacher", "frank") else order
    p = (-1.0 if name == "schweizer_sklar" else 1.0) * 10.0**order
    return soft.TCONORMS[name](torch.tensor(p, dtype=torch.float64, requires_grad=True))


@given(name=st.sampled_from([*POWERS, "hamacher", "frank", "sugeno_weber"]), order=orders, a=values)
def test_no_value_and_no_gradient_is_nan_and_the_axioms_hold(name, order, a):
    rule = rule_of(name, order)
    for dtype in DTYPES:
        f = torch.tensor(a, dtype=dtype, requires_grad=True)
        slack = rounding_bound(dtype, 10)
        joined, met = rule.aggregate(f, 0), rule.dual().aggregate(f, 0)
        logs = torch.log(f.detach()).requires_grad_(), torch.log1p(-f.detach()).requires_grad_()
        through_logs = rule.aggregate_log(*logs, 0)
        assert 0 <= met <= min(a) + slack and max(a) - slack <= joined <= 1
        assert abs(through_logs - joined) <= slack or len(a) > 1  # 0 stands for a tiny number in `aggregate`
        assert max(a) - slack <= through_logs <= 1
        for value, leaves in ((joined, [f, rule.p]), (met, [f, rule.p]), (through_logs, [*logs, rule.p])):
            for slope in torch.autograd.grad(value, leaves, allow_unused=True):
                assert slope is None or torch.isfinite(slope).all()
        assert not any(torch.isnan(v) for v in rule.aggregate_log_pair(*logs, 0))
        if len(a) > 1:
            both = rule.combine(f[0], f[1])
            assert max(a[:2]) - slack <= both <= 1
            assert all(torch.isfinite(slope).all() for slope in torch.autograd.grad(both, [f, rule.p]))


@given(name=st.sampled_from(POWERS), order=orders, a=st.sampled_from(edges) | st.floats(0, 1, width=32))
def test_one_value_alone_comes_out_as_it_went_in(name, order, a):
    for dtype in DTYPES:
        f = torch.tensor([a], dtype=dtype)
        for result in (rule_of(name, order).aggregate(f, 0), rule_of(name, order).dual().aggregate(f, 0)):
            # The least number stands for 0.
            assert abs(float(result.detach()) - float(f)) <= rounding_bound(dtype, 10) * float(f) + 1.2e-38


@pytest.mark.parametrize("name", POWERS)
def test_large_p_is_the_maximum_with_its_gradient(name: str):
    a = torch.tensor([0.3, 0.7, 0.2, 0.69], dtype=torch.float64, requires_grad=True)
    for p in (1e5, 1e30, 1e300):
        value = soft.TCONORMS[name](-p if name == "schweizer_sklar" else p).aggregate(a, 0)
        assert value.item() == pytest.approx(0.7, rel=1e-12)
        assert torch.autograd.grad(value, a)[0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-12)
    # Two equal ones: their p-norm is 2^(1/p) of one, which tends to 1.
    tie = torch.tensor([0.5, 0.5], dtype=torch.float64)
    assert soft.Yager(1e5).aggregate(tie, 0).item() == pytest.approx(0.5 * 2**1e-5, rel=1e-14)


def test_small_p_is_the_drastic_and_the_probabilistic_sum():
    a = torch.tensor([0.3, 0.0, 1e-30, 0.2], dtype=torch.float64)
    for p in (1e-300, 1e-29, 1e-9):
        for name in POWERS[:3]:
            rule = soft.TCONORMS[name](p)
            assert rule.aggregate(a, 0) == 1 and rule.aggregate(a[:2], 0).item() == pytest.approx(0.3, rel=1e-12)
        value = soft.SchweizerSklar(-p).aggregate(a, 0).item()
        assert value == pytest.approx(1 - 0.7 * 0.8, rel=1e-8)


@given(name=st.sampled_from(POWERS), order=orders, max_error=st.sampled_from([1e-12, 1e-4, 0.1, 0.9]))
def test_thresholds_are_finite_positive_numbers_where_p_is_large(name, order, max_error):
    epsilon = rule_of(name, order).cull_threshold(max_error, 1000)
    assert 0 <= epsilon <= max_error * (1 + 1e-9)
    if order > 5 + max(0, -math.log10(max_error)) and order > 5:
        assert epsilon == pytest.approx(max_error, rel=0.1)  # as for the maximum
