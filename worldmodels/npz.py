"""Reproducible .npz files, which `numpy.load` reads too: the same arrays give the same bytes on every Python.

`numpy.savez` writes other headers on Python 3.11.2 than on 3.11.7 (CPython issue 103861), so that machines with
different patch releases would compute different digests of the same arrays.
"""

import io
import math
import re
import struct
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .errors import CorruptArtifact

MEMBERS = 10_000
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
HEADER = re.compile(
    r"\{'descr': '([<|][biuf][1248])', 'fortran_order': (True|False), 'shape': \(((?:[0-9]{1,12},? ?)*)\), \} *\n"
)
BROKEN = (
    zipfile.BadZipFile,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    OSError,
    OverflowError,
    KeyError,
)


def save(file: IO[bytes], **arrays: Any) -> None:
    """Write the arrays as an .npz: with a constant date, uncompressed and without pickles."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), member.getvalue())


def load(data: bytes, *wanted: str) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz as `save` and `numpy.savez` write it, all or the `wanted`: views of its bytes.

    The file is not trusted: nothing is decompressed, arrays take no more memory than the file has bytes, and names are
    plain. Raise ValueError for every other file, and if a wanted name is absent.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            if len(members) > MEMBERS or sum(info.file_size for info in members.values()) > len(data):
                raise ValueError("the file says that it holds more than it has bytes")
            if bad := [name for name in members if not NAME.fullmatch(name)]:
                raise ValueError(f"{bad[0][:100]!r} is no array's name")
            if any(info.compress_type != zipfile.ZIP_STORED for info in members.values()):
                raise ValueError("its arrays are compressed")
            if missing := [name for name in wanted if name not in members]:
                raise ValueError(f"it has no array {missing[0]}")
            return {name: array(archive.read(members[name])) for name in wanted or members}
    except BROKEN as error:
        raise ValueError(f"it is no file of arrays: {error}") from error


def read(path: Path, name: str = "", *, dimensions: int = 1) -> NDArray[Any]:
    """Return the array of a committed .npy file, or the array `name` of a committed .npz.

    Raise CorruptArtifact unless it has that number of dimensions, at least one element and finite numbers only.
    """
    try:
        data = path.read_bytes()
        found = load(data, name)[name] if name else array(data)
        if found.ndim != dimensions or not found.size or not np.isfinite(found).all():
            raise ValueError(f"an array of shape {found.shape}, or not of finite numbers, is not what was stored")
        return found
    except ValueError as error:
        raise CorruptArtifact(f"{path.name}: {error}", next="wm verify") from error


def array(data: bytes) -> NDArray[Any]:
    """Return the array of an .npy, a view of its bytes; raise ValueError unless it is a complete array of numbers."""
    if data[:6] != b"\x93NUMPY" or len(data) < 12 or data[6] not in (1, 2):
        raise ValueError("it is no array")
    start, length = (
        (10, struct.unpack("<H", data[8:10])[0]) if data[6] == 1 else (12, struct.unpack("<I", data[8:12])[0])
    )
    header = HEADER.fullmatch(data[start : start + length].decode("latin1")) if length <= 1000 else None
    if header is None:
        raise ValueError("it is an array of something else than numbers")
    dtype, shape = np.dtype(header[1]), tuple(int(n) for n in header[3].replace(",", " ").split())
    if math.prod(shape) * dtype.itemsize != len(data) - start - length:
        raise ValueError(f"an array of shape {shape} has {len(data) - start - length} bytes")
    flat = np.frombuffer(data, dtype, offset=start + length)
    return flat.reshape(shape, order="F" if header[2] == "True" else "C")
