"""Blocks of a rows file whose borders follow from the rows themselves.

A border stands after a row whose checksum says so, whatever comes before it: rows inserted or removed anywhere move no
other border than the next one (content-defined chunking: A. Muthitacharoen et al., "A Low-bandwidth Network File System",
SOSP 2001). A block's tokens can therefore be found again by its bytes.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

AVERAGE_BYTES = 2**20
_LEAST, _MOST = AVERAGE_BYTES // 8, AVERAGE_BYTES * 4
_PER_BYTE = 2**32 // AVERAGE_BYTES


@dataclass(frozen=True)
class Block:
    """Consecutive lines of a file.

    Attributes:
        line: number of its first line in the file, from 0.
        lines: how many there are.
        offset: where it begins in the file, in bytes.
        size: in bytes.
        digest: BLAKE2b of its bytes, hex.
    """

    line: int
    lines: int
    offset: int
    size: int
    digest: str


def split_blocks(path: Path) -> Iterator[Block]:
    """The blocks of a file, in order, of about 1 MiB and at most 4 MiB (or one line). Reads line by line."""
    line = offset = lines = size = 0
    hasher = hashlib.blake2b(digest_size=16)
    with path.open("rb", buffering=2**20) as stream:
        for text in stream:
            lines, size = lines + 1, size + len(text)
            hasher.update(text)
            # A row's chance to end a block is proportional to its length, so blocks are of a size in bytes, not in rows.
            if size >= _MOST or (size >= _LEAST and zlib.crc32(text) < len(text) * _PER_BYTE):
                yield Block(line, lines, offset, size, hasher.hexdigest())
                line, offset = line + lines, offset + size
                lines = size = 0
                hasher = hashlib.blake2b(digest_size=16)
    if lines:
        yield Block(line, lines, offset, size, hasher.hexdigest())
