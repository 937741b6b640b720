# SPDX-License-Identifier: Apache-2.0
"""IGES as text: what it says of itself more than once is compared, and splines without ranges get theirs.

A line has 72 columns of content, the letter of its section and its number there. The directory has two lines for each
entity, which say its kind twice, and where in the section of parameters its own are; each line of those says whose it
is, the first one the kind once more; and the last line of the file says how many lines each section has. So a line
that is lost, doubled or moved is noticed, and so is a count in a spline that does not fit its parameters. Of the
numbers themselves there is no checksum: another digit in a coordinate is another coordinate.
"""

import itertools
import math
import pathlib
import re

from geodiff.readers.shapes import Damaged

_NUMBER = re.compile(rb"[+-]?(\d+\.?\d*|\.\d+)([EeDd][+-]?\d+)?")


def verified(path: str) -> tuple[list[bytes], bytes | None, list[str]]:
    """Refuse an IGES file that contradicts itself, or has a spline in which something is no number: 0 otherwise.

    Returns:
        the parameters of its header from the flag of the unit on: that, and the unit's name; the file with the ranges
        of splines that had none, which Open CASCADE does not read, or None where all had theirs; and what is odd about
        it, but may come from the program that wrote it.
    """
    lines = [line for line in pathlib.Path(path).read_bytes().splitlines() if line.strip()]
    if not lines or lines[-1][72:73] != b"T":
        raise Damaged("its end is missing")
    parameters: dict[bytes, list[bytes]] = {}
    for line in lines:
        if line[72:73] == b"P":
            parameters.setdefault(line[64:72].strip(), []).append(line[:64].ljust(64))
    # The header starts with the two delimiters, ",," for the usual comma and semicolon, else such as "1H//1H!/".
    header = b"".join(line[:72].ljust(72) for line in lines if line[72:73] == b"G") or b",,"
    first = header.lstrip()
    comma, rest = (first[2:3], first[4:]) if first.startswith(b"1H") else (b",", first[1:])
    end = rest[2:3] if rest.startswith(b"1H") else b";"
    _check_directory(lines, comma + end)
    ranged: dict[bytes, list[bytes]] = {}
    for entity, rows in parameters.items():
        fields = [field.strip() for field in b"".join(rows).partition(end)[0].split(comma)]
        if fields[0] not in (b"126", b"128"):
            continue
        label = f"IGES {fields[0].decode()} of directory entry {entity.decode(errors='replace').lstrip('0')}"
        wrong = next((f for f in fields if f and not _NUMBER.fullmatch(f)), None)
        if wrong is not None:
            raise Damaged(f"{label}: {wrong.decode(errors='replace')!r} is no number")
        whole = _ranged(label, fields)
        if whole is not None:
            ranged[entity] = whole
    anew = _relaid(lines, parameters, ranged, comma, end) if ranged else None
    return _fields(header, comma, end)[13:], anew, _odd(lines)


def _check_directory(lines: list[bytes], delimiters: bytes) -> None:
    """Compare the directory with the parameters, and its lines with each other."""
    entries = [line for line in lines if line[72:73] == b"D"]
    rows = [line for line in lines if line[72:73] == b"P"]
    kind_at = re.compile(rb" *(\d+) *[" + re.escape(delimiters) + rb"]")
    known: set[int] = set()
    if len(entries) % 2:
        raise Damaged("its directory has half an entry")
    for number, (one, two) in enumerate(zip(entries[::2], entries[1::2], strict=True)):
        label = f"directory entry {2 * number + 1}"
        kind, start, count = _whole(one[:8], label), _whole(one[8:16], label), max(_whole(two[24:32], label), 1)
        known.update(range(start, start + count))
        if kind == 0:  # nothing
            continue
        if _whole(two[:8], label) != kind:
            raise Damaged(f"{label} is of kind {kind} in one line and of another in the next")
        own = rows[start - 1 : start - 1 + count] if start > 0 else []
        owners = {line[64:72].strip().lstrip(b"0") for line in own}
        if len(own) < count or owners != {b"%d" % (2 * number + 1)}:
            raise Damaged(f"{label} has parameters in lines {start} to {start + count - 1}, which are not all its own")
        said = kind_at.match(own[0][:64])
        if said is None or int(said[1]) != kind:
            raise Damaged(f"{label} is of kind {kind}, and its parameters are not")
    strays = set(range(1, len(rows) + 1)) - known
    if strays:
        raise Damaged(f"{len(strays)} lines of parameters belong to no entry of the directory")


def _whole(text: bytes, label: str) -> int:
    try:
        return int(text.strip() or b"0")
    except ValueError:
        raise Damaged(f"{label} has {text.decode(errors='replace').strip()!r} for a whole number") from None


def _odd(lines: list[bytes]) -> list[str]:
    """Refuse lines out of their order; say where numbers are missing, or the last line counts others than there are."""
    notes, said = [], lines[-1]
    for name, some in itertools.groupby(lines, key=lambda line: line[72:73]):
        texts = [line[73:80].strip() for line in some]
        numbers = [int(text) for text in texts if text.isdigit()]
        section = name.decode(errors="replace")
        back = next((b for a, b in itertools.pairwise(numbers) if b <= a), None)
        if back is not None:
            raise Damaged(f"line {back} of section {section} is not in its order")
        wrong = next((i for i, text in enumerate(texts, 1) if text.lstrip(b"0") != b"%d" % i), None)
        if wrong is not None:
            said_number = texts[wrong - 1].decode(errors="replace")
            notes.append(f"line {wrong} of section {section} has the number '{said_number}'")
        count = re.search(rb"%s *(\d+)" % re.escape(name), said[:72]) if section in "SGDP" else None
        if count is not None and int(count[1]) != len(texts):
            notes.append(f"section {section} has {len(texts)} lines and should have {int(count[1])}")
    return notes and [f"{'; '.join(notes)}: is the file damaged?"]


def _ranged(label: str, fields: list[bytes]) -> list[bytes] | None:
    """Return the parameters of an IGES 126 or 128 with the ranges that it lacks: the whole domain; or None."""
    axes = 1 if fields[0] == b"126" else 2
    try:
        top, degree = ([int(n) for n in fields[1 + k * axes : 1 + (k + 1) * axes]] for k in range(2))
        counts = [k + p + 2 for k, p in zip(top, degree, strict=True)]
        start = 1 + 2 * axes + (4 if axes == 1 else 5)
        at = start + sum(counts) + 4 * math.prod(k + 1 for k in top)
        ends = []
        for p, count in zip(degree, counts, strict=True):
            ends += [fields[start + p], fields[start + count - 1 - p]]
            start += count
    except (ValueError, IndexError):  # damaged: Open CASCADE says so
        return None
    if len(fields) < at:
        return None
    _check_rest(label, fields[at + 2 * axes :], 3 if axes == 1 else 0)
    if len(fields) >= at + 2 * axes and all(fields[at : at + 2 * axes]):
        return None
    return [*fields[:at], *ends, *fields[at + 2 * axes :]]


def _check_rest(label: str, rest: list[bytes], normal: int) -> None:
    """Check what follows a spline: a normal, and two lists of entities, each after its length; all may be missing."""
    while rest and not rest[-1]:
        rest = rest[:-1]
    left = rest[normal:] if len(rest) > normal else []
    for _ in range(2):
        if left:
            count = int(left[0]) if left[0].isdigit() else -1
            if not 0 <= count < len(left):
                break
            left = left[count + 1 :]
    if left:
        raise Damaged(f"{label}: it has {len(rest)} parameters beyond those of the control points that it says")


def _relaid(
    lines: list[bytes],
    parameters: dict[bytes, list[bytes]],
    changed: dict[bytes, list[bytes]],
    comma: bytes,
    end: bytes,
) -> bytes:
    """Lay out an IGES file anew, with other parameters for some entities, whose directory entries follow."""
    section = {name: [line[:72].ljust(72) for line in lines if line[72:73] == name] for name in (b"S", b"G", b"D")}
    rows: list[bytes] = []
    for entity, old in parameters.items():
        texts = old
        if entity in changed:
            texts, row = [], b""
            for word in [field + comma for field in changed[entity][:-1]] + [changed[entity][-1] + end]:
                if len(row) + len(word) > 64:
                    texts.append(row)
                    row = b""
                row += word
            texts.append(row)
        number = int(entity)
        entry = section[b"D"]
        entry[number - 1] = entry[number - 1][:8] + b"%8d" % (len(rows) + 1) + entry[number - 1][16:]
        entry[number] = entry[number][:24] + b"%8d" % len(texts) + entry[number][32:]
        rows += [text.ljust(64) + b"%8d" % number for text in texts]
    section[b"P"] = rows
    counts = b"".join(b"%s%7d" % (name, len(some)) for name, some in section.items())
    section[b"T"] = [counts.ljust(72)]
    return b"".join(text + b"%s%7d\n" % (name, i) for name, some in section.items() for i, text in enumerate(some, 1))


def _fields(text: bytes, comma: bytes, end: bytes) -> list[bytes]:
    """Split parameters; strings such as ``3Ha,b`` may hold delimiters, and come without their count."""
    fields, at = [], 0
    while at < len(text):
        string = re.compile(rb" *(\d{1,5})H").match(text, at)
        content = text[string.end() : string.end() + int(string[1])] if string else None
        stop = string.end() + int(string[1]) if string else at
        ends = [i for i in (text.find(comma, stop), text.find(end, stop)) if i >= 0]
        stop = min(ends, default=len(text))
        fields.append(text[at:stop].strip() if content is None else content)
        if text[stop : stop + 1] == end:
            break
        at = stop + 1
    return fields
