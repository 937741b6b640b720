# SPDX-License-Identifier: Apache-2.0
"""What the commands share: kinds of options, and how errors are told."""

import contextlib
import functools
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import click


class Size(click.ParamType):
    """An image size: 64 or 48x64 (rows x columns)."""

    name = "H or HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read it as (H, W)."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) not in (1, 2) or not all(part.isdigit() and 0 < int(part) <= 16384 for part in parts):
            self.fail(f"{value!r} is neither a size such as 64 nor rows x columns such as 48x64", param, ctx)
        return int(parts[0]), int(parts[-1])


class Pair(click.ParamType):
    """Two numbers along u and v: 8x8, or 8 for both."""

    name = "N or NxM"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read it as (along u, along v)."""
        if isinstance(value, tuple):
            return value
        parts = str(value).lower().split("x")
        if len(parts) not in (1, 2) or not all(part.isdigit() and int(part) <= 16384 for part in parts):
            self.fail(f"{value!r} is neither a number such as 8 nor a pair such as 8x12", param, ctx)
        return int(parts[0]), int(parts[-1])


class Numbers(click.ParamType):
    """Positive numbers: 0.1,0.03 or, evenly spaced in the logarithm, FIRST:LAST:COUNT."""

    name = "A,B,… or A:B:N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return value
        try:
            if ":" in value:
                first, last, count = value.split(":")
                low, ratio, steps = float(first), float(last) / float(first), int(count) - 1
                numbers = tuple(low * ratio ** (i / max(steps, 1)) for i in range(steps + 1))
            else:
                numbers = tuple(float(part) for part in value.split(","))
            if numbers and all(0 < number < float("inf") for number in numbers):
                return numbers
        except (ValueError, ArithmeticError, TypeError):
            pass
        self.fail(f"{value!r} is neither positive numbers such as 0.1,0.03 nor a range such as 1e-1:1e-4:7", param, ctx)


def clean(command: Callable[..., None]) -> Callable[..., None]:
    """Print an error of geodiff's as one message and exit with code 2; --debug shows where it came from.

    Ctrl-C exits with code 130 and says how to go on.
    """

    @click.option("--debug", is_flag=True, help="Show the traceback of an error.")
    @functools.wraps(command)
    def wrapped(debug: bool, **options: Any) -> None:
        try:
            with _plain_warnings():
                command(**options)
        except KeyboardInterrupt:
            if debug:
                raise
            click.echo(f"\nInterrupted. {_advice(options)}", err=True)
            sys.exit(130)
        except (ValueError, TypeError, RuntimeError, OSError, ImportError, MemoryError) as error:
            if debug or isinstance(error, click.exceptions.Exit | click.exceptions.Abort):
                raise
            click.echo(f"Error: {error}" if str(error) else f"Error: {type(error).__name__}", err=True)
            sys.exit(2)

    return wrapped


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Print a warning as one message, like an error: no line of Python's means anything to who typed a command."""
    former = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: f"Warning: {message}\n"
    try:
        with warnings.catch_warnings():
            # Old names of options, which Python tells to those alone who write programs.
            warnings.filterwarnings("default", r"\w+: `\w+` is now `", DeprecationWarning)
            yield
    finally:
        warnings.formatwarning = former


def _advice(options: dict[str, Any]) -> str:
    """Say how to go on after Ctrl-C, by the options of the command."""
    output = options.get("output")
    if output is None:
        return "Nothing was written; the same command starts anew."
    if "resume" in options:
        return f"The same command goes on from what is in {output}, if a checkpoint or rows are there yet."
    return f"Nothing in {output} was changed, unless it was done; the same command starts anew."


class Widths(click.ParamType):
    """Widths of hidden layers: small, paper, or numbers such as 64x64x64."""

    name = "small, paper or NxN…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """Read them."""
        if isinstance(value, tuple):
            return value
        known = {"small": (64, 64, 64), "paper": (128, 256, 512, 512)}
        if value in known:
            return known[value]
        parts = str(value).lower().split("x")
        if not all(part.isdigit() and 0 < int(part) <= 4096 for part in parts):
            self.fail(f"{value!r} is neither small nor paper nor widths such as 64x64x64", param, ctx)
        return tuple(int(part) for part in parts)
