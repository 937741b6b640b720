# SPDX-License-Identifier: Apache-2.0
"""Relaxed minimum, maximum, sorting and top-k: formulas of the source in float64, its bounds, limits, gradients."""

import math
from typing import Any

import pytest
import torch
from torch.autograd import gradcheck

import geodiff as gd
from geodiff import soft
from geodiff.soft.networks import depth, network

D = torch.float64
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # of forward mode
DRAW = torch.Generator().manual_seed(5)
METHODS = ("softsort", "neuralsort", "odd_even", "bitonic", "sinkhorn")
DOUBLY = ("odd_even", "bitonic", "sinkhorn")
ROUNDING = 1e-13  # a few hundred roundings of numbers around 1
SOLVED = 1e-9  # the tolerance of Sinkhorn, 1e-12 in the marginals, magnified by n and by gradients

# Table 3.1: whether the minimum is monotone, and its greatest error for slope 1.
TABLE = {
    "logistic": (False, 0.0696),
    "reciprocal": (True, 1 / 4),
    "cauchy": (True, 1 / math.pi**2),
    "optimal": (True, 1 / 16),
}


@pytest.fixture(autouse=True)
def _same_draws() -> None:
    """Each test draws the same values, whichever ran before it."""
    DRAW.manual_seed(5)


def values(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=DRAW, dtype=D)


def exact(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(x.argsort(-1), x.shape[-1]).to(x.dtype)


@pytest.mark.parametrize("name", TABLE)
def test_table_of_the_source(name: str) -> None:
    monotone, bound = TABLE[name]
    law = soft.as_distribution(name)
    x = torch.cat([torch.linspace(0, 40, 40001, dtype=D), torch.logspace(2, 9, 200, dtype=D)])
    low = soft.relaxed_min(x, 0.0, name, temperature=1.0)
    slope = float(law.pdf(torch.zeros((), dtype=D)))
    assert float(law.pdf(x).max()) <= slope
    assert float(low.max()) * slope == pytest.approx(bound, rel=1e-3)
    assert (float(low.diff().min()) >= -1e-7) == monotone  # rounding of 1e9 · 1e-9 / 16
    assert float(low.min()) >= 0


def test_activation_replacement() -> None:
    x = torch.linspace(0, 20, 200001, dtype=D)
    # The source's β = 4 and λ = ½, which give the .0302 of its table: temperature 4^(−1/(1 − ½)).
    law, temperature = soft.Activated("logistic", 0.5), 4**-2.0
    low = soft.relaxed_min(x, 0.0, law, temperature=temperature)
    assert float(low.max()) == pytest.approx(0.0302, abs=5e-5)
    torch.testing.assert_close(low, x * torch.sigmoid(-4 * x.sqrt()), rtol=1e-12, atol=1e-15)
    assert float(low.diff().min()) < 0  # not monotone
    y = values(40)
    for strength in (0.0, 0.25, 0.5):
        law = soft.Activated(soft.Cauchy(), strength)
        torch.testing.assert_close(law.quantile(law.cdf(y)), y)
        torch.testing.assert_close(law.cdf(y) + law.cdf(-y), torch.ones(40, dtype=D))
        torch.testing.assert_close(law.upper_quantile(law.survival(y)), y)
        torch.testing.assert_close(law.log_cdf(y).exp(), law.cdf(y))
        torch.testing.assert_close(law.log_survival(y).exp(), law.survival(y))
        slope = torch.autograd.functional.jacobian(lambda y, law=law: law.cdf(y).sum(), y)
        torch.testing.assert_close(law.pdf(y), slope)
    strength = torch.tensor(0.3, dtype=D, requires_grad=True)
    assert gradcheck(lambda y, s: soft.Activated("logistic", s).cdf(y), (y[:5].requires_grad_(), strength))
    tie = torch.zeros(2, dtype=D, requires_grad=True)
    (slope,) = torch.autograd.grad(soft.Activated("logistic").cdf(tie).sum(), tie)
    assert slope.eq(0).all()
    assert soft.Activated("uniform", 0.5).support == (-1.0, 1.0) and soft.Activated("cauchy").tail[0] == "polynomial"
    assert math.isinf(soft.Activated("logistic").support[1])
    assert repr(soft.Activated("logistic", 0.5)) == "Activated(Logistic(), 0.5)"
    with pytest.raises(ValueError, match=r"`distribution` must be symmetric.*got GumbelMax\(\)"):
        soft.Activated("gumbel_max")
    with pytest.raises(ValueError, match=r"`strength` must be in \[0, 1\); got 1.0"):
        soft.Activated("logistic", 1.0)


def test_an_edge_may_have_the_new_laws() -> None:
    camera = gd.Camera.orbit(2.7, 20.0, 30.0, fov_deg=50.0)
    for law in ("optimal", soft.Activated("logistic")):
        alpha = gd.Renderer(8, law, scale=0.05, backend="reference")(gd.icosphere(0), camera).alpha
        assert 0.3 < float(alpha.mean()) < 0.9
    kernel = gd.Renderer(8, "optimal", scale=0.05)(gd.icosphere(0), camera).alpha
    twin = gd.Renderer(8, "optimal", scale=0.05, backend="reference")(gd.icosphere(0), camera).alpha
    torch.testing.assert_close(kernel, twin, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [*TABLE, "gaussian", "uniform"])
def test_minimum_and_maximum(name: str) -> None:
    a, b = values(50), values(50)
    low, high = (f(a, b, name, temperature=0.7) for f in (soft.relaxed_min, soft.relaxed_max))
    torch.testing.assert_close(low + high, a + b)
    torch.testing.assert_close(low, soft.relaxed_min(b, a, name, temperature=0.7))
    torch.testing.assert_close(low + 3, soft.relaxed_min(a + 3, b + 3, name, temperature=0.7))
    torch.testing.assert_close(-low, soft.relaxed_max(-a, -b, name, temperature=0.7))
    torch.testing.assert_close(soft.relaxed_min(a, a, name, temperature=0.7), a)
    assert (low >= torch.minimum(a, b) - 1e-12).all() and (low <= high).all()
    torch.testing.assert_close(soft.relaxed_min(a, b, name, temperature=1e-12), torch.minimum(a, b))
    a, t = a[:6].requires_grad_(), torch.tensor(0.7, dtype=D, requires_grad=True)
    assert gradcheck(lambda a, b, t: soft.relaxed_min(a, b, name, temperature=t), (a, b[:6].requires_grad_(), t))


def test_minimum_broadcasts_and_takes_numbers() -> None:
    low = soft.relaxed_min(torch.zeros(3, 1), [1.0, 2.0], temperature=torch.full((3, 2), 0.1))
    assert low.shape == (3, 2) and low.dtype == torch.float32
    with pytest.raises(ValueError, match="`b` must be of a shape that broadcasts with a's"):
        soft.relaxed_min(torch.zeros(3), torch.zeros(2), temperature=1.0)


def by_formula(x: torch.Tensor, method: str, temperature: float) -> torch.Tensor:
    """The papers' matrices, for descending order, entry by entry."""
    n, rows = len(x), []
    ordered = x.sort(descending=True).values
    for i in range(n):
        if method == "softsort":
            logits = torch.stack([-(ordered[i] - x[j]).abs() for j in range(n)])
        else:
            logits = torch.stack(
                [(n - 1 - 2 * i) * x[j] - sum((x[j] - x[m]).abs() for m in range(n)) for j in range(n)]
            )
        rows.append((logits / temperature).softmax(0))
    return torch.stack(rows)


@pytest.mark.parametrize("method", ["softsort", "neuralsort"])
def test_matrices_of_the_papers(method: str) -> None:
    x = values(6)
    ours = soft.sort_matrix(x, method, temperature=0.4, descending=True)
    torch.testing.assert_close(ours, by_formula(x, method, 0.4), rtol=0, atol=ROUNDING)
    torch.testing.assert_close(soft.sort_matrix(-x, method, temperature=0.4), ours, rtol=0, atol=ROUNDING)


def test_two_values_are_the_logistic_swap_in_all_methods() -> None:
    # Section 3.4: for n = 2 NeuralSort, SoftSort and Sinkhorn are the sorting network of the logistic distribution.
    x = torch.tensor([0.3, -0.4], dtype=D)
    swap = soft.sort_matrix(x, "odd_even", temperature=0.5, distribution="logistic")
    for method, scale in (("softsort", 1.0), ("neuralsort", 1.0), ("sinkhorn", 1.0)):
        found = soft.sort_matrix(x, method, temperature=0.5 * scale)
        torch.testing.assert_close(found, swap, rtol=0, atol=SOLVED)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [1, 2, 5, 8, 11])
def test_properties_of_the_matrix(method: str, n: int) -> None:
    x = values(3, n)
    matrix = soft.sort_matrix(x, method, temperature=0.3)
    bound = SOLVED if method == "sinkhorn" else ROUNDING
    assert matrix.shape == (3, n, n) and matrix.min() >= 0
    torch.testing.assert_close(matrix.sum(-1), torch.ones(3, n, dtype=D), rtol=0, atol=bound)
    if method in DOUBLY:
        torch.testing.assert_close(matrix.sum(-2), torch.ones(3, n, dtype=D), rtol=0, atol=bound)
    elif n > 2:
        assert (matrix.sum(-2) - 1).abs().max() > 1e-3  # SoftSort and NeuralSort are not
    torch.testing.assert_close(
        soft.sort(x, method, temperature=0.3), (matrix @ x[..., None])[..., 0], atol=bound, rtol=0
    )
    # Any rows, and the order turned round.
    rows = [0] if n == 1 else [n - 1, 0, -2]
    some = soft.sort_matrix(x, method, temperature=0.3, rows=rows)
    torch.testing.assert_close(some, matrix[:, rows], rtol=0, atol=bound)
    down = soft.sort_matrix(-x, method, temperature=0.3, descending=True)
    torch.testing.assert_close(down, matrix, rtol=0, atol=bound)
    # Scaled, shifted, and in float32.
    scaled = soft.sort_matrix(1e6 * x + 1e5, method, temperature=0.3e6)
    torch.testing.assert_close(scaled, matrix, rtol=0, atol=1e-7)
    single = soft.sort_matrix(x.float(), method, temperature=0.3)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), matrix, rtol=0, atol=2e-4 if method == "sinkhorn" else 1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_no_sort_by_logistic_swaps_is_monotone(method: str) -> None:
    # Table 3.2 and figure 3.7: of 0 and a growing x, the minimum x σ(−x) falls by up to 0.0998 of what x grows.
    x = torch.linspace(0, 8, 801, dtype=D)
    network = method in ("odd_even", "bitonic")
    law = "logistic" if network else None
    low = soft.sort(torch.stack([x, 0 * x], -1), method, temperature=1.0, distribution=law)[:, 0]
    slope = (torch.sigmoid(-x) - x * torch.sigmoid(x) * torch.sigmoid(-x)).min()
    assert float(low.diff().min() / x[1]) == pytest.approx(float(slope), abs=1e-4)
    if network:
        replaced = soft.Activated("logistic", 0.25)
        low = soft.sort(torch.stack([x, 0 * x], -1), method, temperature=1.0, distribution=replaced)[:, 0]
        assert float(low.diff().min()) < -1e-4


@pytest.mark.parametrize("method", ["softsort", "neuralsort"])
@pytest.mark.parametrize("n", [2, 3, 7])
def test_equivariant_sorts_have_a_bounded_error(method: str, n: int) -> None:
    # Another value at the distance d has at most exp(−d/τ) of the weight of the right one: each adds less than τ/e.
    bound = (n - 1) / math.e
    x = torch.logspace(-1, 3, 200, dtype=D)[:, None] * values(200, n)
    off = float((soft.sort(x, method, temperature=1.0) - x.sort(-1).values).abs().max())
    assert bound / 5 < off <= bound


@pytest.mark.parametrize("n", [2, 3, 5])
def test_sinkhorn_sort_errs_as_much_on_all_scales(n: int) -> None:
    # No bound is known; that of two values is the logistic swap's, 0.2785.
    for scale in (1.0, 10.0, 100.0):
        x = scale * values(40, n)
        off = float((soft.sort(x, "sinkhorn", temperature=1.0) - x.sort(-1).values).abs().max())
        assert (0.2 if scale == 1 else 0) < off < 0.3  # few draws are close to each other on large scales


@pytest.mark.parametrize("method", METHODS)
def test_limit_is_the_permutation(method: str) -> None:
    x = torch.randperm(9, generator=DRAW).to(D)[None] / 9
    matrix = soft.sort_matrix(x, method, temperature=1e-3 if method == "sinkhorn" else 2e-5)
    slack = 1e-12 if method not in ("odd_even", "bitonic") else 9 * 2e-5  # Cauchy's tail: τ/(π Δ) a layer
    torch.testing.assert_close(matrix, exact(x), rtol=0, atol=10 * slack)
    if method in ("odd_even", "bitonic"):
        hard = soft.sort_matrix(x, method, temperature=1e-5, distribution="logistic")
        assert torch.equal(hard, exact(x)) and torch.equal(
            soft.sort(x, method, temperature=1e-5, distribution="uniform"), x.sort(-1).values
        )


@pytest.mark.parametrize("method", ["softsort", "neuralsort", "sinkhorn"])
def test_methods_that_do_not_care_for_the_order_of_inputs(method: str) -> None:
    x, way = values(8), torch.randperm(8, generator=DRAW)
    matrix = soft.sort_matrix(x, method, temperature=0.5)
    torch.testing.assert_close(soft.sort_matrix(x[way], method, temperature=0.5), matrix[:, way], rtol=0, atol=SOLVED)


def test_networks_care_a_little() -> None:
    x, way = values(8), torch.randperm(8, generator=DRAW)
    apart = soft.sort_matrix(x, "bitonic", temperature=0.5)[:, way] - soft.sort_matrix(
        x[way], "bitonic", temperature=0.5
    )
    assert 1e-3 < float(apart.abs().max()) < 0.5


@pytest.mark.parametrize("name", ["logistic", "reciprocal", "cauchy", "optimal"])
@pytest.mark.parametrize("method", ["odd_even", "bitonic"])
def test_networks_keep_within_their_bound(method: str, name: str) -> None:
    # Theorem 3.5: the error of a comparator times the layers; Theorem 3.4: that of a comparator.
    law, temperature, n = soft.as_distribution(name), 0.2, 13
    x = values(200, n)
    slope = float(law.pdf(torch.zeros((), dtype=D)))
    bound = TABLE[name][1] / slope * temperature * depth(method, n)
    off = soft.sort(x, method, temperature=temperature, distribution=name) - x.sort(-1).values
    assert bound / 50 < float(off.abs().max()) <= bound


@pytest.mark.parametrize("name", ["reciprocal", "cauchy", "optimal"])
def test_monotone_networks_rise_with_every_input(name: str) -> None:
    x = values(7)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: soft.sort(x, "odd_even", temperature=0.3, distribution=name), x
    )
    assert jacobian.min() >= -1e-15 and jacobian.shape == (7, 7)
    wrong = torch.autograd.functional.jacobian(
        lambda x: soft.sort(4 * x, "odd_even", temperature=0.3, distribution="logistic"), x
    )
    assert wrong.min() < 0  # the logistic one gives gradients of the wrong sign


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("method", [*METHODS, "splitter"])
def test_topk(method: str, k: int) -> None:
    x = values(4, 11)
    found = soft.topk(x, k, method, temperature=0.3)
    assert found.values.shape == (4, k) and found.matrix.shape == (4, k, 11)
    torch.testing.assert_close(found.values, (found.matrix @ x[..., None])[..., 0])
    torch.testing.assert_close(found.matrix.sum(-1), torch.ones(4, k, dtype=D), rtol=0, atol=SOLVED)
    if method != "splitter":
        whole = soft.sort_matrix(x, method, temperature=0.3, descending=True)
        torch.testing.assert_close(found.matrix, whole[:, :k], rtol=0, atol=SOLVED)
    hard = 1e-3 if method == "sinkhorn" else 1e-6
    sharp = soft.topk(x, k, method, temperature=hard)
    torch.testing.assert_close(sharp.values, x.topk(k).values, rtol=0, atol=1e-4)
    low = soft.topk(x, k, method, temperature=hard, largest=False)
    torch.testing.assert_close(low.values, x.topk(k, largest=False).values, rtol=0, atol=1e-4)
    assert "TopK(values=float64 (4," in repr(found)


def test_rows_leave_out_what_they_do_not_depend_on() -> None:
    whole, few = network("bitonic", 64, None), network("bitonic", 64, (0, 1))
    count = [sum(len(low) for low, _ in layers) for layers in (whole, few)]
    assert count[0] == 21 * 32 and count[1] < 0.9 * count[0]


@pytest.mark.parametrize("method", [*METHODS, "splitter"])
def test_gradients(method: str) -> None:
    x, t = values(1, 4).requires_grad_(), torch.tensor(0.4, dtype=D, requires_grad=True)
    forward = method != "sinkhorn"

    def matrix(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return soft.sort_matrix(x, method, temperature=t, rows=[2, 0])

    assert gradcheck(matrix, (x, t), check_forward_ad=forward, atol=1e-6)
    if method != "splitter":
        assert gradcheck(lambda x, t: soft.sort(x, method, temperature=t), (x, t), check_forward_ad=forward, atol=1e-6)
    if method in ("odd_even", "bitonic", "splitter"):
        law = lambda s: soft.Activated("logistic", s)  # noqa: E731
        s = torch.tensor(0.25, dtype=D, requires_grad=True)
        assert gradcheck(lambda s: soft.sort_matrix(x, method, temperature=0.4, rows=2, distribution=law(s)), (s,))
        assert torch.autograd.gradgradcheck(matrix, (x, t))


@pytest.mark.parametrize("method", METHODS)
def test_ties_and_far_values(method: str) -> None:
    x = torch.tensor([[1.0, 1.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0]], dtype=D, requires_grad=True)
    matrix = soft.sort_matrix(x, method, temperature=0.1)
    (slope,) = torch.autograd.grad((matrix * values(2, 4, 4)).sum(), x)
    assert torch.isfinite(slope).all()
    columns = matrix[0, :, [0, 1, 3]]
    if method not in ("odd_even", "bitonic"):
        torch.testing.assert_close(columns, columns[:, :1].expand(4, 3))  # equal values, equal shares
        torch.testing.assert_close(matrix[1], torch.full((4, 4), 0.25, dtype=D))
    if method == "sinkhorn":
        return  # ε has a floor of its own
    for scale in (1e-30, 1e30):
        far = (scale * values(2, 4)).float().requires_grad_()
        wide = soft.sort(far, method, temperature=0.1)
        assert torch.isfinite(wide).all()
        (slope,) = torch.autograd.grad(wide.sum(), far)
        assert torch.isfinite(slope).all()


def test_compiles_and_takes_part_in_torch_func() -> None:
    x = values(5)
    whole = torch.func.jacrev(lambda x: soft.sort(x, "bitonic", temperature=0.2))(x)
    forward = torch.func.jacfwd(lambda x: soft.sort(x, "bitonic", temperature=0.2))(x)
    torch.testing.assert_close(whole, forward)
    with pytest.raises(RuntimeError, match=r"outside of torch.func.vmap"):
        torch.func.vmap(lambda x: soft.sort(x, temperature=0.2))(values(2, 5))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("method", ["softsort", "neuralsort", "bitonic"])
def test_compiled(method: str) -> None:
    x = values(2, 6)
    compiled = torch.compile(lambda x: soft.sort_matrix(x, method, temperature=0.2), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), soft.sort_matrix(x, method, temperature=0.2))


def test_against_diffsort() -> None:
    diffsort = pytest.importorskip("diffsort", reason="an oracle, not needed", exc_type=ImportError)
    for kind, n in (("bitonic", 8), ("odd_even", 7), ("bitonic", 16)):
        for name, ours in (("cauchy", "cauchy"), ("optimal", "optimal"), ("logistic", "logistic")):
            x = values(3, n)
            theirs = diffsort.DiffSortNet(kind, n, steepness=10.0, distribution=name)(x)
            torch.testing.assert_close(
                soft.sort(x, kind, temperature=0.1, distribution=ours), theirs[0], atol=1e-6, rtol=0
            )
            matrix = soft.sort_matrix(x, kind, temperature=0.1, distribution=ours)
            torch.testing.assert_close(matrix, theirs[1].mT, rtol=0, atol=1e-6)


X: Any = torch.tensor([3.0, 1.0, 2.0])
BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"x": [1.0, 2.0]}, TypeError, "`x` must be a tensor of shape"),
    ({"x": torch.tensor([1, 2])}, TypeError, "`x` must be a floating tensor"),
    ({"x": X.bool()}, TypeError, "`x` must be a floating tensor"),
    ({"x": X.to(torch.complex64)}, TypeError, "`x` must be a floating tensor"),
    ({"x": X.bfloat16()}, TypeError, r"`x` must be float32 or float64.*\.float\(\)"),
    ({"x": torch.zeros(2, 0)}, ValueError, "`x` must be of one value or more"),
    ({"x": torch.tensor(1.0)}, ValueError, "`x` must be of shape"),
    ({"x": torch.tensor([1.0, math.nan])}, ValueError, "`x` must be finite; got nan at index"),
    ({"x": torch.tensor([1.0, math.inf])}, ValueError, "`x` must be finite"),
    ({"temperature": 0.0}, ValueError, "`temperature` must be positive and finite; got 0.0"),
    ({"temperature": -1}, ValueError, "`temperature` must be positive and finite"),
    ({"temperature": math.nan}, ValueError, "`temperature` must be positive and finite"),
    ({"temperature": "1"}, TypeError, "`temperature` must be a positive number"),
    ({"temperature": 1e-60}, ValueError, "`temperature` must be at least 1.18e-38 in torch.float32"),
    ({"temperature": torch.ones(3)}, ValueError, "`temperature` must be a number, or a tensor without axes"),
    ({"temperature": torch.tensor(-1.0)}, ValueError, "`temperature` must be positive"),
    ({"method": "quick"}, ValueError, "`method` must be one of softsort"),
    ({"distribution": "logistic"}, ValueError, "`distribution` must be left out with method='softsort'"),
    ({"method": "bitonic", "distribution": "gumbel_max"}, ValueError, "`distribution` must be symmetric"),
    ({"method": "bitonic", "distribution": torch.exp}, ValueError, "`distribution \\(exp\\)` must be a cumulative"),
    ({"method": "bitonic", "distribution": lambda x: torch.sigmoid(x - 1)}, ValueError, "must be symmetric"),
]


@pytest.mark.parametrize(("change", "error", "message"), BAD)
def test_bad_arguments(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"x": X, "temperature": 0.1, **change}
    for name in ("sort", "sort_matrix"):
        with pytest.raises(error, match=f"^(as_distribution|{name}): .*{message}"):
            getattr(soft, name)(**arguments)
    if message != "`x` must be of one value or more":  # where k is too many
        with pytest.raises(error, match=message):
            soft.topk(k=1, **arguments)


def test_bad_ranks() -> None:
    for rows, message in ((0, "integer ≥ 1"), (4, "≤ 3"), ([3], "≤ 2"), ([], "one rank or more")):
        with pytest.raises(ValueError, match=rf"`rows` must be .*{message}"):
            soft.sort_matrix(X, temperature=0.1, rows=rows)
    with pytest.raises(TypeError, match="`rows` must be an integer"):
        soft.sort_matrix(X, temperature=0.1, rows=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`rows` must be given with method='splitter'"):
        soft.sort_matrix(X, "splitter", temperature=0.1)
    with pytest.raises(ValueError, match="`method` must be one of"):
        soft.sort(X, "splitter", temperature=0.1)
    with pytest.raises(ValueError, match="`k` must be at most n = 3; got 4"):
        soft.topk(X, 4, temperature=0.1)
    with pytest.raises(ValueError, match="`k` must be an integer ≥ 1; got 0"):
        soft.topk(X, 0, temperature=0.1)


def test_a_function_of_ones_own_may_swap() -> None:
    ours = soft.sort_matrix(X, "bitonic", temperature=0.5, distribution=torch.sigmoid)
    torch.testing.assert_close(ours, soft.sort_matrix(X, "bitonic", temperature=0.5, distribution="logistic"))


@pytest.mark.parametrize("method", ["softsort", "neuralsort", "odd_even", "bitonic", "sinkhorn"])
def test_an_empty_batch_is_sorted_into_one(method: str) -> None:
    assert soft.sort_matrix(torch.zeros(0, 4), method, temperature=0.1).shape == (0, 4, 4)
    assert soft.sort(torch.zeros(2, 0, 4), method, temperature=0.1).shape == (2, 0, 4)
    assert soft.topk(torch.zeros(0, 4), 2, method, temperature=0.1).matrix.shape == (0, 2, 4)
