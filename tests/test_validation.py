# SPDX-License-Identifier: Apache-2.0
import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import geodiff as gd
from geodiff.validation import (
    as_tensor,
    choice,
    common_batch,
    describe,
    floating,
    integers,
    looks_at_values,
    matches,
    nearest,
    placement,
    positive,
    promote,
)


def test_describe_is_short() -> None:
    assert describe(torch.zeros(2, 3)) == "float32 of shape (2, 3)"
    assert describe(np.zeros(4, dtype=np.int32)) == "int32 of shape (4,)"
    assert describe("x") == "str 'x'"
    assert len(describe(list(range(1000)))) < 80


@pytest.mark.parametrize(
    ("shape", "pattern", "fits"),
    [
        ((4, 3), ("V", 3), True),
        ((4, 3), ("...", "V", 3), True),
        ((2, 5, 4, 3), ("...", "V", 3), True),
        ((3,), ("...", "V", 3), False),
        ((4, 2), ("V", 3), False),
        ((1, 4, 3), ("V", 3), False),
        ((), (), True),
        ((), ("...",), True),
        ((2, 3), ("...",), True),
    ],
)
def test_matches(shape: tuple[int, ...], pattern: tuple[int | str, ...], fits: bool) -> None:
    assert matches(shape, pattern) == fits


def test_nearest_and_choice() -> None:
    assert nearest("logistik", ["logistic", "gaussian"]) == "Did you mean 'logistic'?"
    assert nearest("zzz", ["b", "a"]) == "Choose one of: a, b."
    assert choice("f", "kind", "a", ["a", "b"]) == "a"
    with pytest.raises(ValueError, match=r"f: `kind` must be one of alpha, beta; got 'alpa'. Did you mean 'alpha'\?"):
        choice("f", "kind", "alpa", ["alpha", "beta"])


def test_as_tensor_takes_arrays_lists_and_numbers() -> None:
    given = torch.rand(2)
    assert as_tensor("f", "x", given) is given
    assert as_tensor("f", "x", [[1, 2]]).tolist() == [[1, 2]]
    assert as_tensor("f", "x", 2.5).dim() == 0
    array = np.arange(4.0)
    array.flags.writeable = False
    copied = as_tensor("f", "x", array[::-1])
    assert copied.tolist() == [3, 2, 1, 0]
    assert as_tensor("f", "x", np.float32(1.5)) == 1.5
    for bad in ("text", None, [["a"]], True, [[1], [1, 2]], np.array(["a"])):
        with pytest.raises(TypeError, match="f: `x` must be a tensor or an array of numbers; got "):
            as_tensor("f", "x", bad)


def test_integers() -> None:
    given = torch.tensor([[1, 2]], dtype=torch.int16)
    assert integers("f", "x", given, ("N", 2)).dtype == torch.int64
    with pytest.raises(
        TypeError, match=r"`x` must be an integer tensor of shape \(N, 2\); got float32.*Convert it with"
    ):
        integers("f", "x", given.float(), ("N", 2))
    with pytest.raises(TypeError, match="an integer tensor"):
        integers("f", "x", given.bool(), ("N", 2))
    with pytest.raises(ValueError, match=r"of shape \(N, 3\); got int16 of shape \(1, 2\). Pad it"):
        integers("f", "x", given, ("N", 3), "Pad it.")


def test_floating() -> None:
    given = torch.rand(2, 3)
    assert floating("f", "x", given, ("N", 3)) is given
    with pytest.raises(TypeError, match=r"`x` must be a tensor of shape \(N, 3\); got list \[1\]. Use torch.as_tensor"):
        floating("f", "x", [1], ("N", 3))
    with pytest.raises(TypeError, match="`x` must be float32 or float64; got bfloat16"):
        floating("f", "x", given.bfloat16(), ("N", 3))
    with pytest.raises(TypeError, match=r"`x` must be a floating tensor.*Use .float"):
        floating("f", "x", given.int(), ("N", 3))
    with pytest.raises(ValueError, match=r"`x` must be of shape \(N, 2\); got float32 of shape \(2, 3\). Drop one"):
        floating("f", "x", given, ("N", 2), "Drop one.")
    given[1, 2] = torch.inf
    with pytest.raises(ValueError, match=r"`x` must be finite; got inf at index \(1, 2\) \(1 bad of 6\)"):
        floating("f", "x", given, ("N", 3))
    assert floating("f", "x", given, ("N", 3), finite=False) is given
    huge = torch.full((4, 3), 3e38)
    assert floating("f", "x", huge, ("N", 3)) is huge


def test_positive() -> None:
    positive("f", "x", 1)
    positive("f", "x", torch.tensor([0.5, 2.0]))
    for bad in (0, -1.0, float("nan"), float("inf"), torch.tensor([1.0, 0.0]), torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match="f: `x` must be positive and finite"):
            positive("f", "x", bad)
    for bad, named in ((True, "bool True"), ("1", "str '1'")):
        with pytest.raises(TypeError, match=f"f: `x` must be a positive number; got {named}"):
            positive("f", "x", bad)


def test_promote_lets_tensors_decide() -> None:
    single = promote("f", a=1, b=0.1, c=[1, 2.5], d=torch.arange(3))
    assert {tensor.dtype for tensor in single.values()} == {torch.float32}
    wide = promote("f", a=0.1, b=torch.zeros(2, dtype=torch.float64), c=np.float64(0.1))
    assert {tensor.dtype for tensor in wide.values()} == {torch.float64}
    assert float(wide["a"]) == 0.1
    leaf = torch.zeros(2, requires_grad=True)
    assert promote("f", a=leaf)["a"] is leaf


def test_promote_messages() -> None:
    with pytest.raises(TypeError, match="f: `a` must be float32 or float64; got float16"):
        promote("f", a=torch.zeros(1).half())
    with pytest.raises(TypeError, match="f: `a` must be real numbers; got complex64"):
        promote("f", a=torch.zeros(1, dtype=torch.complex64))
    with pytest.raises(TypeError, match="f: `a` must be a tensor or an array of numbers"):
        promote("f", a="text")
    with pytest.raises(ValueError, match="f: `b` must be finite; got nan"):
        promote("f", a=1, b=float("nan"))
    with pytest.raises(RuntimeError, match=r"f: `a` must be on meta like the others; got cpu. Use .to\(device\)"):
        promote("f", a=torch.zeros(2), b=torch.zeros(2, device="meta"))
    assert promote("f", a=1.0, b=torch.zeros(2, device="meta"))["a"].device.type == "meta"


def test_placement_takes_a_dtype_first() -> None:
    assert placement("f", torch.float64, None) == (None, torch.float64)
    assert placement("f", "cpu", torch.float32) == ("cpu", torch.float32)
    assert placement("f", None, None) == (None, None)
    with pytest.raises(TypeError, match=r"f: `dtype` must be torch\.float32 or torch\.float64; got torch\.int64"):
        placement("f", torch.int64, None)
    with pytest.raises(TypeError, match=r"f: `device` must be a device; got torch\.float64\. Give one dtype"):
        placement("f", torch.float64, torch.float32)


def test_integers_and_numbers_in_a_range() -> None:
    import numpy as np

    from geodiff.validation import integer, number, seed_number

    assert integer("f", "n", np.int64(3), 0, 5) == 3 and type(integer("f", "n", np.int64(3), 0)) is int
    assert number("f", "x", np.float32(0.5), 0, 1) == 0.5 and seed_number("f", 2**32 - 1) == 2**32 - 1
    for call, error, message in (
        (lambda: integer("f", "n", -1, 0), ValueError, "f: `n` must be an integer ≥ 0; got -1"),
        (lambda: integer("f", "n", 10**30, 0, 5), ValueError, "`n` must be an integer ≤ 5; got 1000"),
        (lambda: integer("f", "n", 2.0, 0), TypeError, "`n` must be an integer ≥ 0; got float 2.0"),
        (lambda: integer("f", "n", True, 0), TypeError, "`n` must be an integer ≥ 0; got bool True"),
        (lambda: number("f", "x", float("nan"), 0, 1), ValueError, "`x` must be finite and ≥ 0; got nan. Mend it"),
        (lambda: number("f", "x", 10**400, 0, 1), ValueError, "`x` must be finite and ≥ 0; got inf"),
        (lambda: number("f", "x", 2, 0, 1), ValueError, "`x` must be at most 1; got 2.0"),
        (lambda: number("f", "x", "1", 0, 1), TypeError, "`x` must be a number ≥ 0; got str '1'"),
        (lambda: seed_number("f", 2**32), ValueError, "f: `seed` must be an integer ≤ 4294967295; got 4294967296"),
    ):
        with pytest.raises(error, match=message.replace(". Mend it", "")):
            call()


def test_checks_hold_for_their_own_thread() -> None:
    away = torch.zeros(3, device="meta")  # on the CPU they are always on

    def asked() -> bool:
        return looks_at_values(away)

    assert not asked()
    with ThreadPoolExecutor(1) as pool, gd.checks():
        assert asked() and not pool.submit(asked).result()
        with gd.checks(False):
            assert not asked()
        assert asked()
    assert not asked()


SIZES = [(), (1,), (3,), (2, 3), (2, 1), (4, 1, 3), (0,), (2, 0), (1, 0), (5, 1, 1)]


@pytest.mark.parametrize(
    "shapes", [*itertools.product(SIZES, repeat=2), ((2, 1), (1, 3), (4, 1, 1)), ((2,), (1,), (3,))]
)
def test_shapes_broadcast_as_in_torch(shapes: tuple[tuple[int, ...], ...]) -> None:
    try:
        wanted = torch.broadcast_shapes(*shapes)
    except RuntimeError:
        with pytest.raises(RuntimeError, match="broadcast"):
            common_batch(*shapes)
    else:
        found = common_batch(*shapes)
        assert found == wanted and isinstance(found, torch.Size)
