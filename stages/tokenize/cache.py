"""Tokens of blocks, kept outside the artifacts under what they were made from, and found again by it.

A file holds an Arrow IPC stream and its BLAKE2b. It appears by rename, so that a killed run leaves whole files or none; one that
does not match its checksum counts as missing.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

_CHECKSUM_BYTES = 16


@dataclass(frozen=True)
class Tokens:
    """What became of a block.

    Attributes:
        batch: its rows with ``row`` counted from the block's first line, or ``None`` when none can be used.
        rejected: (line from the block's first, reason) of the others.
        slow: rows whose chat template had to be rendered turn by turn.
    """

    batch: pa.RecordBatch | None
    rejected: Sequence[tuple[int, str]]
    slow: int = 0


class BlockCache:
    """A folder of tokenized blocks."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def has(self, key: str) -> bool:
        """Whether there is a file for ``key``."""
        return self._path(key).exists()

    def load(self, key: str) -> Tokens | None:
        """What :meth:`save` was given, or ``None`` when it is missing or damaged. Marks it as used."""
        path = self._path(key)
        try:
            stored = pa.memory_map(str(path), "r").read_buffer()
            os.utime(path)
        except OSError:
            return None
        content, checksum = stored[: len(stored) - _CHECKSUM_BYTES], stored[len(stored) - _CHECKSUM_BYTES :]
        if len(stored) < _CHECKSUM_BYTES or _checksum(content) != checksum.to_pybytes():
            return None
        with pa.ipc.open_stream(content) as reader:
            facts = json.loads(reader.schema.metadata[b"facts"])
            batches = list(reader)
        batch = batches[0].replace_schema_metadata(None) if batches else None
        return Tokens(batch, [(row, reason) for row, reason in facts["rejected"]], facts["slow"])

    def save(self, key: str, tokens: Tokens) -> None:
        """Keep ``tokens`` under ``key``."""
        facts = {b"facts": json.dumps({"rejected": list(tokens.rejected), "slow": tokens.slow}).encode()}
        schema = (tokens.batch.schema if tokens.batch is not None else pa.schema([])).with_metadata(facts)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            if tokens.batch is not None:
                writer.write_batch(tokens.batch.replace_schema_metadata(facts))
        content = sink.getvalue()
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with partial.open("wb") as stream:
            stream.write(content)
            stream.write(_checksum(content))
        partial.replace(path)

    def prune(self, used: Iterable[str], most_bytes: int) -> None:
        """Remove what has not been used for longest, and what killed runs left, until ``most_bytes`` remain; never a file of ``used``."""
        for left in self._folder.glob("*/*.partial"):
            left.unlink(missing_ok=True)
        keep = {self._path(key) for key in used}
        states = {path: path.stat() for path in self._folder.glob("*/*.tokens")}
        total = sum(state.st_size for state in states.values())
        for path in sorted(states.keys() - keep, key=lambda path: (states[path].st_mtime_ns, path)):
            if total <= most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= states[path].st_size

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key[2:]}.tokens"


def _checksum(content: pa.Buffer) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES).digest()
