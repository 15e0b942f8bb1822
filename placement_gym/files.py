"""Files: written so that a crash leaves the old one or the new one, read so that damage is always an InvalidFile."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement_gym.errors import InvalidFile

# More than any problem needs (a million ops on a hundred devices are 0.8 GB), less than what fills a machine.
LARGEST_BYTES = 4 * 2**30


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`; it takes the place of `path` when the block ends well, and is removed if not.

    Raises:
        InvalidFile: The folder does not exist or cannot be written.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
        os.close(handle)
    except OSError as error:
        raise InvalidFile(f"cannot write {target}: {error}") from error
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        raise InvalidFile(f"cannot write {target}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Writes a text file by `replacing`, whose errors it raises; returns its path."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return Path(path)


def save_arrays(path: str | os.PathLike[str], header: Mapping[str, str], arrays: Mapping[str, NDArray[Any]]) -> None:
    """Writes arrays and a JSON header to one .npz file (no pickle) by `replacing`, whose errors it raises."""
    content = {"header": np.frombuffer(json.dumps(dict(header)).encode(), np.uint8), **arrays}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **content)  # type: ignore[arg-type]


def load_arrays(path: str | os.PathLike[str], what: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(header, arrays) of what `save_arrays` wrote.

    Args:
        path: The file.
        what: What the caller expects, for messages ("a saved problem").

    Raises:
        InvalidFile: The file is missing, truncated, damaged, too large or of another kind.
    """
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            n_bytes = sum(member.file_size for member in members)
            if n_bytes > LARGEST_BYTES:
                raise ValueError(f"it would unpack to {n_bytes} bytes; at most {LARGEST_BYTES} are read")
            strange = [m.filename for m in members if m.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
            if strange:
                raise ValueError(f"part {strange[0]!r} is packed in an unknown way")
            arrays = {m.filename.removesuffix(".npy"): _array(file.read(m)) for m in members}
        header = json.loads(arrays.pop("header").tobytes())
        if not isinstance(header, dict):
            raise ValueError(f"its header is a {type(header).__name__}, not an object")
    except FileNotFoundError as error:
        raise InvalidFile(f"{path}: no such file") from error
    except (
        # RuntimeError: an encrypted part, a way of packing that is not known, a header that nests too deep.
        *(OSError, ValueError, TypeError, LookupError, EOFError, SyntaxError, RuntimeError, MemoryError, OverflowError),
        *(zipfile.BadZipFile, zlib.error, struct.error),
    ) as error:
        raise InvalidFile(f"{path}: not {what}, or truncated ({error})") from error
    return header, arrays


def _array(content: bytes) -> NDArray[Any]:
    """The array of one .npy file. Nothing is allocated by what its header says, only by what is there."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array has format {version}; expected (1, 0)")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    data = content[file.tell() :]
    if dtype.hasobject or math.prod(shape) * dtype.itemsize != len(data) or min(shape, default=0) < 0:
        raise ValueError(f"an array of {dtype} and shape {shape} does not fit its {len(data)} bytes")
    if not data:
        return np.zeros(shape, dtype)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def field_of(arrays: Mapping[str, NDArray[Any]], key: str, path: str, *, text: bool, scalar: bool) -> Any:  # noqa: ANN401
    """What a saved array stands for: a text, a number, several texts, or the array itself.

    Raises:
        InvalidFile: It is missing, or of another kind.
    """
    if key not in arrays:
        raise InvalidFile(f"{path}: field {key!r} is missing")
    value = arrays[key]
    if value.dtype.kind not in ("U" if text else "biuf"):
        raise InvalidFile(f"{path}: field {key!r} has dtype {value.dtype}; expected {'text' if text else 'numbers'}")
    if scalar != (value.ndim == 0):
        raise InvalidFile(f"{path}: field {key!r} has shape {value.shape}; expected {'()' if scalar else 'an array'}")
    if scalar:
        return str(value) if text else float(value)
    return tuple(value.ravel().tolist()) if text else value
