"""What is on the disk: SHA-256, as manifests have it, and MD5, as DVC has it, of every file, from one reading."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 4 * 2**20
_LARGE = 2 * 2**20


@dataclass(frozen=True)
class Measured:
    """A file. ``size`` in bytes, digests in hex."""

    size: int
    sha256: str
    md5: str


@dataclass(frozen=True)
class MeasuredPath:
    """A file, or all files of a folder by their path in it. ``md5`` is DVC's: of the file, or of the folder's listing."""

    path: Path
    files: Mapping[str, Measured]
    md5: str
    is_folder: bool

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())


def measure(path: Path, files: Iterable[Path], advance: Callable[[int], None]) -> MeasuredPath:
    """Hash ``files``, which are all of the folder ``path``, or ``path`` itself. ``advance`` is told the bytes that were read."""
    names = {file.relative_to(path).as_posix(): file for file in files} if path.is_dir() else {path.name: path}
    large = [name for name, file in names.items() if file.stat().st_size > _LARGE]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # hashing leaves Python's lock to others
        pending = {name: pool.submit(measure_file, names[name], advance) for name in large}
        measured = {name: measure_file(file, advance) for name, file in names.items() if name not in pending}
        measured |= {name: future.result() for name, future in pending.items()}
    ordered = {name: measured[name] for name in sorted(measured)}
    return MeasuredPath(path, ordered, listing_md5(ordered) if path.is_dir() else ordered[path.name].md5, path.is_dir())


def measure_file(path: Path, advance: Callable[[int], None]) -> Measured:
    """Read a file once for both digests."""
    from dvc_data.hashfile.hash import get_hash_stream

    sha256, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        through_md5 = get_hash_stream(stream)
        while chunk := through_md5.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
            advance(len(chunk))
    return Measured(size, sha256.hexdigest(), through_md5.hash_value)


def listing_md5(files: Mapping[str, Measured]) -> str:
    """What DVC calls the MD5 of a folder: that of the list of its files. Ends in ``.dir``."""
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.meta import Meta
    from dvc_data.hashfile.tree import Tree

    tree = Tree()  # type: ignore[no-untyped-call]
    for name, file in files.items():
        tree.add(tuple(name.split("/")), Meta(size=file.size), HashInfo("md5", file.md5))
    tree.digest()
    return str(tree.oid)
