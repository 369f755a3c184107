"""Files that are there whole or not at all, and the errors of a place that cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

# Of the place and not of what is written: no other candidate could write there either.
STORAGE_ERRORS: Final = frozenset(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM)
)


@contextmanager
def replacing(file: Path) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name once it is whole: a reader sees the old one or the new one.

    Whoever dies in between leaves a `.partial`, which nobody reads.

    Raises:
        OSError: if it cannot be written; nothing is left behind.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            yield stream
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def cannot_be_written(error: BaseException) -> bool:
    """Whether an error is the place's own: a full disk, a quota, a lost mount."""
    return isinstance(error, OSError) and error.errno in STORAGE_ERRORS
