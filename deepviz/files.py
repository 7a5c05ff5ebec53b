"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

READ_BYTES = 1 << 20


@contextmanager
def whole_file(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path beside ``target`` that takes its place when the block ends well.

    If the block raises, the temporary file is removed and ``target`` is as it was. The temporary
    name is hidden and short, so that it fits wherever the target's own name fits.

    Parameters
    ----------
    durable : bool
        Wait until the bytes are on the disk before the rename, so that not even a power cut leaves
        a torn file under the final name. Too slow for a file each frame.
    """
    temporary = target.parent / f".{secrets.token_hex(6)}.part"
    try:
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            digest.update(piece)
    return digest.hexdigest()
