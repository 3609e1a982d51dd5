"""Tokens of blocks, kept outside the artifacts under what they were made from, and found again by it.

A file holds an Arrow IPC stream and its BLAKE2b, which covers the key too. It appears by rename, so that a killed run leaves whole
files or none; one that does not match its checksum counts as missing. Several runs may use a folder at once, and one that cannot be
written still gives what it has.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import pyarrow as pa

from pipeline.errors import RegrowError

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
    """A folder of tokenized blocks. Entered while a run uses it, so that no other run removes anything meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def __enter__(self) -> BlockCache:
        with suppress(OSError):  # a folder that cannot be written is not pruned either
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".gitignore", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
            os.pwrite(self._lock, b"*\n", 0)  # the folder may lie in the user's repository
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            os.close(self._lock)

    def has(self, key: str) -> bool:
        """Whether there is a file for ``key``."""
        return self._path(key).exists()

    def load(self, key: str) -> Tokens | None:
        """What :meth:`save` was given, or ``None`` when it is missing or damaged. Marks it as used."""
        path = self._path(key)
        try:
            stored = pa.memory_map(str(path), "r").read_buffer()
        except OSError:
            return None
        with suppress(OSError):  # somebody else's file
            os.utime(path)
        content, checksum = stored[: len(stored) - _CHECKSUM_BYTES], stored[len(stored) - _CHECKSUM_BYTES :]
        if len(stored) < _CHECKSUM_BYTES or _checksum(key, content) != checksum.to_pybytes():
            return None
        with pa.ipc.open_stream(content) as reader:
            facts = json.loads(reader.schema.metadata[b"facts"])
            batches = list(reader)
        batch = batches[0].replace_schema_metadata(None) if batches else None
        return Tokens(batch, [(row, reason) for row, reason in facts["rejected"]], facts["slow"])

    def save(self, key: str, tokens: Tokens) -> None:
        """Keep ``tokens`` under ``key``.

        Raises:
            RegrowError: the folder cannot be written, or the disk is full.
        """
        facts = {b"facts": json.dumps({"rejected": list(tokens.rejected), "slow": tokens.slow}).encode()}
        schema = (tokens.batch.schema if tokens.batch is not None else pa.schema([])).with_metadata(facts)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, schema) as writer:
            if tokens.batch is not None:
                writer.write_batch(tokens.batch.replace_schema_metadata(facts))
        content = sink.getvalue()
        with self._appearing(self._path(key)) as stream:
            stream.write(content)
            stream.write(_checksum(key, content))

    def read_note(self, key: str) -> str | None:
        """A text that :meth:`write_note` kept."""
        path = self.folder / f"{key}.json"
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def write_note(self, key: str, text: str) -> None:
        """Keep a text under ``key``."""
        with self._appearing(self.folder / f"{key}.json") as stream:
            stream.write(text.encode("utf-8"))

    @contextmanager
    def _appearing(self, path: Path) -> Iterator[IO[bytes]]:
        """A file that is there under its name when it is complete, under one of its own until then."""
        partial = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.stem, suffix=".partial", delete=False) as stream:
                partial = Path(stream.name)
                yield stream
            partial.replace(path)
        except OSError as error:
            if partial is not None:
                partial.unlink(missing_ok=True)
            raise RegrowError(
                f"Tokens cannot be kept in {self.folder}: {error.strerror or error}.",
                "Make room, or name a folder that can be written: dataset_prepared_path.",
            ) from error

    def prune(self, used: Iterable[str], most_bytes: int) -> None:
        """Remove what has not been used for longest, and what killed runs left, until ``most_bytes`` remain; never a file of ``used``.

        Does nothing while other runs use the folder.
        """
        if self._lock is None:
            return
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        for left in self.folder.rglob("*.partial"):
            left.unlink(missing_ok=True)
        keep = {self._path(key) for key in used}
        states = {path: path.stat() for path in self.folder.glob("*/*.tokens")}
        total = sum(state.st_size for state in states.values())
        for path in sorted(states.keys() - keep, key=lambda path: (states[path].st_mtime_ns, path)):
            if total <= most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= states[path].st_size

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key[2:]}.tokens"


def _checksum(key: str, content: pa.Buffer) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM_BYTES, key=key.encode()[:64]).digest()
