# SPDX-License-Identifier: Apache-2.0
"""Damage to the bytes of a file, of kinds that disks, transfers and editors do."""

import random
import re
from collections.abc import Sequence

KINDS = ("flip", "flip", "cut", "word", "word", "word", "middle", "twice", "fill")


def damage(
    data: bytes,
    rng: random.Random,
    tokens: Sequence[bytes],
    word: "re.Pattern[bytes]",
    kinds: Sequence[str] = KINDS,
    columns: bool = False,
) -> bytes:
    """Return bytes with some flipped, cut off, moved or repeated, or with a word changed.

    Args:
        data: the file.
        rng: draws what is done, and where.
        tokens: what a word may become.
        word: what a word is.
        kinds: of damage, drawn from; ``"head"`` flips within the first 400 bytes.
        columns: half of the new words are padded, so that what follows stays in its column.
    """
    kind = rng.choice(kinds)
    if not data:
        return b"\0"
    i, j = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    if kind in ("flip", "head"):
        out = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8, 32))):
            out[rng.randrange(len(out) if kind == "flip" else min(len(out), 400))] ^= 1 << rng.randrange(8)
        return bytes(out)
    if kind == "cut":
        return data[:i]
    if kind == "middle":
        return data[:i] + data[j:]
    if kind == "twice":
        return data[:j] + data[i:]
    if kind == "fill":
        n = rng.choice((1, 2, 4, 8))
        return data[:i] + rng.choice((b"\xff", b"\0", b"\x7f")) * n + data[i + n :]
    words = list(word.finditer(data))
    if not words:
        return data[:i]
    place = rng.choice(words)
    token = rng.choice(tokens)
    if columns and rng.random() < 0.5:
        token = token.ljust(place.end() - place.start())
    return data[: place.start()] + token + data[place.end() :]
