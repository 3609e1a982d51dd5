"""A full disk, told from what libraries raise: Python and Arrow give a number, others only words."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import RegrowError

_NUMBERS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_WORDS = ("No space left on device", "Disk quota exceeded", "File too large")
"""What safetensors, tokenizers and torch pass on from the operating system: strerror(3) of the same three."""


def disk_full(error: BaseException, work: str, folder: Path) -> RegrowError | None:
    """What to tell the user if ``error`` comes of a disk without room for what ``work`` writes under ``folder``; else ``None``."""
    reason = next(filter(None, map(_reason, _chain(error))), None)
    if reason is None or isinstance(error, RegrowError):
        return None
    free = shutil.disk_usage(folder).free // 10**6
    return RegrowError(
        f"{work} could not write its output: {reason}. The disk of {folder} has {free:,} MB free, without what this run had written.",
        "Make room (`dvc gc --workspace` removes what no current output uses from DVC's cache) and run the same command again.",
    )


def _reason(error: BaseException) -> str | None:
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return error.strerror.rpartition(": ")[2] if error.strerror else errno.errorcode[error.errno]
    return next((words for words in _WORDS if words in str(error)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
