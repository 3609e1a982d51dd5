"""From a source as params.yaml names it to files on this disk, whichever kind of source it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pipeline.errors import RegrowError
from pipeline.progress import Progress
from pipeline.source import Cloud, Hub, Local, PyPI, Source, Web, parse_source
from stages.fetch import hub, wheel
from stages.fetch.cloud import Store
from stages.fetch.transfer import Ask, Transfers, check_pin
from stages.fetch.web import ask_web

Choose = Callable[[Sequence[str]], list[str]]
"""Names of all files a source has, relative and sorted, to those to take. Raises RegrowError when the needed ones are not there."""


@dataclass(frozen=True)
class Wanted:
    """A source that params.yaml names.

    Attributes:
        option: what names it, for messages (``base_model``, ``datasets[0].path``).
        slot: its folder's name (``base``, ``tokenizer``, ``train-00``, …).
        text: the option's value.
        kind: what it would be on the hub.
        revision: commit, tag or branch, for the hub alone.
        revision_option: the option that gives it, where there is one.
    """

    option: str
    slot: str
    text: str
    kind: Literal["model", "dataset"]
    revision: str | None = None
    revision_option: str | None = None


@dataclass(frozen=True)
class Located:
    """A source whose chosen files (relative to ``root``, sorted) are on this disk. ``revision`` is a commit of the hub or None."""

    wanted: Wanted
    root: Path
    files: tuple[str, ...]
    revision: str | None = None


@dataclass(frozen=True)
class Opened:
    """A source whose files are known by name. ``path`` brings one to this disk, or raises RegrowError.

    Names are relative to ``root`` and sorted; those of `data_files` are in its order and lie in folders of their own.
    """

    wanted: Wanted
    root: Path
    names: tuple[str, ...]
    path: Callable[[str], Path]
    revision: str | None = None


class Locator:
    """Finds sources; downloads what is not here, each wheel once.

    Args:
        links: where `configure` links local files, one folder per slot.
        scratch: survives a killed run; what is found there is verified, continued or made again.
        progress: is told what is downloaded.
        retries: how often an interrupted download is tried again.
        token: whether the hub is asked with the stored token: yes, no, or (None) if there is one.
    """

    def __init__(self, links: Path, scratch: Path, progress: Progress, *, retries: int = 3, token: bool | None = None) -> None:
        self._links, self.scratch, self.progress, self._token = links, scratch, progress, token
        self.say = progress.say
        self._transfers = Transfers(progress, retries)
        self._wheels = wheel.Wheels(scratch / "wheels", self.say, retries)

    def locate(self, wanted: Wanted, choose: Choose) -> Located:
        """Bring the files that ``choose`` picks onto this disk.

        Raises:
            RegrowError: the source, or a file in it that is needed, is not there.
        """
        opened = self.open(wanted)
        names = tuple(choose(opened.names))
        for name in names:
            opened.path(name)
        return Located(wanted, opened.root, names, opened.revision)

    def open(self, wanted: Wanted) -> Opened:
        """Find out what files a source has.

        Raises:
            RegrowError: it is not there, or cannot be had.
        """
        source = self._parse(wanted)
        if wanted.revision is not None and not isinstance(source, Hub):
            raise RegrowError(
                f"{wanted.revision_option} is {wanted.revision!r}, but {wanted.option} {wanted.text!r} is not on the hub.",
                f"Remove {wanted.revision_option}.",
            )
        if isinstance(source, Local):
            return self._linked(wanted)
        if isinstance(source, PyPI):
            return self._in_wheel(wanted, source)
        if isinstance(source, Web):
            return self._on_web(wanted, source)
        if isinstance(source, Cloud):
            return self._in_cloud(wanted, source)
        return self._on_hub(wanted, source)

    def is_linked(self, slot: str) -> bool:
        """Whether `configure` found the source on this disk."""
        return (self._links / slot).is_dir()

    def _parse(self, wanted: Wanted) -> Source:
        """What `configure` found on this disk and linked is local, whatever else its name could mean (``owner/name``)."""
        linked = self.is_linked(wanted.slot) and "://" not in wanted.text and not wanted.text.startswith("pypi:")
        return Local(wanted.text) if linked else parse_source(wanted.text)

    def _linked(self, wanted: Wanted) -> Opened:
        root = self._links / wanted.slot
        paths = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()] if root.is_dir() else []
        gone = [path for path in paths if not path.exists()]
        if not paths or gone:
            what = f"{wanted.text} ({gone[0].relative_to(root)})" if gone else wanted.text
            raise RegrowError(
                f"{wanted.option} names {what}, which is not there.", "Correct the path, or put the file there; then run `dvc repro`."
            )
        names = sorted(path.relative_to(root).as_posix() for path in paths if path.is_file())
        return Opened(wanted, root, tuple(names), root.joinpath)

    def _in_wheel(self, wanted: Wanted, source: PyPI) -> Opened:
        root = self.scratch / "files" / wanted.slot
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        archive = self._wheels.download(source, wanted.option)
        members = wheel.list_members(archive, source, wanted.option)
        return Opened(wanted, root, tuple(sorted(members)), _into(root, lambda name: wheel.extract(archive, {name: members[name]}, root)))

    def _on_web(self, wanted: Wanted, source: Web) -> Opened:
        root, what = self.scratch / "web" / wanted.slot, f"{wanted.option}: {source.url}"
        ask = ask_web(source, wanted.option)
        return Opened(wanted, root, (source.name,), _into(root, lambda name: self._receive(wanted, ask, root / name, what, source.sha256)))

    def _in_cloud(self, wanted: Wanted, source: Cloud) -> Opened:
        root, store = self.scratch / "cloud" / wanted.slot, Store(source, wanted.option)
        files = store.names()
        _require_inside(files, wanted)
        alone = list(files.values()) == [source.url]
        if source.sha256 is not None and not alone:
            raise RegrowError(f"{wanted.option}: {wanted.text!r} is not one file.", "A digest behind # is for one file: remove it.")
        if not alone:
            self.say(f"{wanted.option}: {source.url} has {len(files)} files; later changes there go unnoticed.")

        def bring(name: str) -> None:
            ask, what = store.ask(files[name]), f"{wanted.option}: {files[name]}"
            self._receive(wanted, ask, root / name, what, source.sha256, alone)

        return Opened(wanted, root, tuple(sorted(files)), _into(root, bring))

    def _receive(self, wanted: Wanted, ask: Ask, target: Path, what: str, sha256: str | None, alone: bool = True) -> None:
        is_new = not target.exists()
        self._transfers.receive(ask, target, what)
        if alone and (is_new or sha256 is not None):
            check_pin(target, sha256, wanted.option, wanted.text, self.say)

    def _on_hub(self, wanted: Wanted, source: Hub) -> Opened:
        listing = hub.list_repository(source.id, wanted.kind, wanted.revision, wanted.option, self._token, self._transfers)
        _require_inside(listing.files, wanted)
        if wanted.revision != listing.commit:
            pin = f" {wanted.revision_option}: {listing.commit} pins it." if wanted.revision_option else ""
            self.say(f"{wanted.option} {source.id}: using commit {listing.commit}.{pin}")
        root = self.scratch / "hub" / wanted.kind / source.id.replace("/", "--") / listing.commit
        root.mkdir(parents=True, exist_ok=True)
        bring = _into(root, lambda name: hub.download(listing, name, root, wanted.option, self._transfers))
        return Opened(wanted, root, tuple(listing.files), bring, listing.commit)


def _into(root: Path, bring: Callable[[str], object]) -> Callable[[str], Path]:
    def path(name: str) -> Path:
        bring(name)
        return root / name

    return path


def _require_inside(names: Iterable[str], wanted: Wanted) -> None:
    for name in names:
        if "\\" in name or name.startswith("/") or any(part in ("", ".", "..") for part in PurePosixPath(name).parts):
            raise RegrowError(f"{wanted.option} {wanted.text!r} holds {name!r}, a path that leads out of its folder.", "Do not use it.")


def listed(names: Sequence[str], limit: int = 12) -> str:
    """File names for a message."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + rest) or "no files"
