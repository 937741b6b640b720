# SPDX-License-Identifier: Apache-2.0
"""Splines to Rhino's 3dm files, through rhino3dm."""

import itertools
import pathlib
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence

from geodiff.readers.rhino import RHINO_UNITS, library
from geodiff.readers.shapes import UNITS, Missing
from geodiff.splines.reading import needed
from geodiff.splines.spline import NURBS
from geodiff.validation import fail

# Rhino keeps homogeneous control points (w P, w), and knots without the first and the last, which have no effect.


def write_rhino(path: pathlib.Path, splines: Sequence[NURBS], unit: str) -> None:
    """Write curves and surfaces in space, in a unit of length; the file may be left half done."""
    try:
        r = library()
    except Missing as error:
        raise needed(error, path) from error
    model = r.File3dm()
    model.Settings.ModelUnitSystem = getattr(r.UnitSystem, _name(unit))
    layer = r.Layer()
    layer.Name, layer.Id = "Default", uuid.uuid5(_NAMES, "layer")
    model.Layers.Add(layer)
    for number, spline in enumerate(splines):
        homogeneous = spline.homogeneous.numpy()
        orders = [p + 1 for p in spline.degrees]
        if spline.axes == 1:
            made = r.NurbsCurve(3, spline.is_rational, orders[0], spline.shape[0])
            vectors = [made.Knots]
        else:
            made = r.NurbsSurface.Create(3, spline.is_rational, *orders, *spline.shape)
            vectors = [made.KnotsU, made.KnotsV]
        for index in itertools.product(*(range(count) for count in spline.shape)):
            point = r.Point4d(*homogeneous[index].tolist())
            made.Points[index if spline.axes > 1 else index[0]] = point
        for vector, knots in zip(vectors, spline.knots, strict=True):
            for i, knot in enumerate(knots[1:-1].tolist()):
                vector[i] = knot
        if not made.IsValid:
            fix = "Are interior knots repeated more often than the degree, or spans tiny? Save it as .json."
            raise fail("save_splines", "splines", "what Rhino takes for valid", repr(spline), fix)
        attributes = r.ObjectAttributes()
        attributes.LayerIndex = 0
        attributes.Id = uuid.uuid5(_NAMES, f"{number} {zlib.crc32(homogeneous.tobytes())}")
        (model.Objects.AddCurve if spline.axes == 1 else model.Objects.AddSurface)(made, attributes)
    if not model.Write(str(path), 7):  # the version that Rhino 7 and later read
        raise fail("save_splines", "path", "a file that can be written", str(path), "Is the disk full?", OSError)
    path.write_bytes(_settled(path.read_bytes()))


def _name(unit: str) -> str:
    return next(name for name, millimetres in RHINO_UNITS.items() if millimetres == UNITS[unit])


# The same splines make the same bytes: ids come from the content, and no file says when or where it was made.
_NAMES = uuid.UUID("6f6d1b1c-4b0e-5d0a-9b53-0d6a4c1b7a52")
_START = 32  # bytes before the first chunk
_PROPERTIES, _HISTORY, _FILE_NAME, _END = 0x10000014, 0x20008021, 0x20008027, 0x00007FFF  # types of chunks
_SHORT, _SUMMED = 0x80000000, 0x8000  # flags of them: without content; with a checksum at its end


def _settled(content: bytes) -> bytes:
    """Take the name and the times of a 3dm file out of its properties.

    A chunk is its type (4 bytes), the length of its content or a value (8 bytes), and the content.
    """
    parts = [content[:_START]]
    for kind, chunk in _chunks(content, _START, len(content)):
        if kind == _PROPERTIES:
            inner = [_timeless(k, c) for k, c in _chunks(chunk, 12, len(chunk)) if k != _FILE_NAME]
            chunk = struct.pack("<Iq", kind, sum(map(len, inner))) + b"".join(inner)
        elif kind == _END:  # holds the length of the file
            chunk = chunk[:12] + struct.pack("<q", sum(map(len, parts)) + len(chunk))
        parts.append(chunk)
    return b"".join(parts)


def _timeless(kind: int, chunk: bytes) -> bytes:
    """Set the two times of a revision history, of 8 integers each, to the first second of 2000."""
    if kind != _HISTORY:
        return chunk
    body = bytearray(chunk[12:-4])
    at = 1
    for _ in range(2):
        at += 4 + 2 * struct.unpack_from("<I", body, at)[0]  # who it was: a string in UTF-16
        struct.pack_into("<8i", body, at, 0, 0, 0, 1, 0, 100, 6, 0)
        at += 32
    return chunk[:12] + bytes(body) + struct.pack("<I", zlib.crc32(body))


def _chunks(content: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at < end:
        kind, value = struct.unpack_from("<Iq", content, at)
        size = 12 + (0 if kind & _SHORT else value)
        yield kind, content[at : at + size]
        at += size
