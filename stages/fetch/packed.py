"""Compressed files, unpacked on disk: truncated ones and such as would fill it are refused."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from pipeline.errors import RegrowError

SUFFIXES = frozenset({".gz", ".zst"})
LARGEST_RATIO = 300
"""Text compresses 3 to 20 times, the most repetitive rows of logs somewhat over 100 times; gzip can at most 1032 times."""

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
SMALL = 2**28
"""Bytes that anything may unpack to."""

_CHUNK = 2**20


def bare_name(name: str) -> str:
    """A file's name without the suffix of its compression."""
    return str(PurePosixPath(name).with_suffix("")) if is_named_packed(name) else name


def is_named_packed(name: str) -> bool:
    """Whether a file is named as a compressed one."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def compression(start: bytes) -> str | None:
    """Which of both has written a file that begins so. Parallel zstd begins with a frame that says nothing."""
    if start[1:4] == b"\x2a\x4d\x18" and 0x50 <= start[0] <= 0x5F:
        return "zstd"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def unpacked(path: Path, name: str, label: str, folder: Path) -> Path:
    """The file itself, or what it holds when its first bytes are those of gzip or zstd, written to ``folder/unpacked``.

    ``name``: at the source. By it a file is known that ends within those bytes.

    Raises:
        RegrowError: it is cut or damaged, or grows by more than :data:`LARGEST_RATIO` times.
    """
    with path.open("rb") as stream:
        start = stream.read(4)
    kind = compression(start)
    if kind is None:
        if start and len(start) < 4 and is_named_packed(name) and any(magic.startswith(start) for magic in _MAGIC):
            raise RegrowError(f"{label} is cut: it ends after {len(start)} bytes.", "Get it again.")
        return path
    import pyarrow as pa

    target, limit = folder / "unpacked", max(SMALL, path.stat().st_size * LARGEST_RATIO)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with pa.input_stream(str(path), compression=kind) as source, target.open("wb") as copy:
            while chunk := source.read(_CHUNK):
                if copy.tell() > limit:
                    raise RegrowError(
                        f"{label} unpacks to more than {LARGEST_RATIO} times its size.", "If that is right, unpack it and name the result."
                    )
                copy.write(chunk)
    except OSError as error:
        raise RegrowError(
            f"{label} cannot be unpacked as {kind}: {str(error).rstrip('.')}.", "It is cut or damaged: download or write it again."
        ) from None
    return target
