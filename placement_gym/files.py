"""Writing files so that a crash leaves the old one or the new one, never half of one; reading files of arrays."""

import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from placement_gym.errors import InvalidFile

# A file may unpack to no more than this.
MAX_FILE_BYTES = 8 * 2**30


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


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """(the JSON object in array `header`, the other arrays) of an .npz file.

    Raises:
        InvalidFile: It is missing, damaged, or unpacks to more than `MAX_FILE_BYTES`.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > MAX_FILE_BYTES:
            raise InvalidFile(f"{path}: unpacks to {size} bytes; expected at most {MAX_FILE_BYTES}")
        with np.load(path, allow_pickle=False) as data:
            header = json.loads(bytes(data["header"]))
            arrays = {key: np.asarray(data[key]) for key in data.files if key != "header"}
    except FileNotFoundError as error:
        raise InvalidFile(f"{path}: no such file") from error
    except (
        *(OSError, ValueError, KeyError, EOFError, TypeError, OverflowError, MemoryError, SyntaxError),
        # Damaged archives: a bad stream, an unknown way of compression, a flag for encryption, a short header.
        *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, struct.error),
    ) as error:
        raise InvalidFile(f"{path}: not a file of arrays, or damaged ({error})") from error
    if not isinstance(header, dict):
        raise InvalidFile(f"{path}: the header is {type(header).__name__}; expected an object")
    return header, arrays
