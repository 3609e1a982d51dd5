"""Chat templates that a recipe keeps in files: their text takes the place of their name, and with it decides identity."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import RegrowError
from pipeline.options.reading.source import Source
from pipeline.options.reading.validation import value_at

_KEY = "chat_template_jinja"
_LONGEST_NAME = 1000


def read_template_files(source: Source, folder: Path) -> tuple[Path, ...]:
    """Replace every ``chat_template_jinja`` that names a file (relative to ``folder``) by its text; returns the files.

    Raises:
        RegrowError: one cannot be read as text.
    """
    files = []
    for holder in _holders(source.value):
        file = _named_file(holder.get(_KEY), folder)
        if file is not None:
            holder[_KEY] = _text(file)
            files.append(file)
    return tuple(files)


def is_file_name(text: str) -> bool:
    """Whether ``text`` can only be meant as a file's name: no template is one word that ends so."""
    return not set(text) & set("{}\n") and text.endswith((".jinja", ".jinja2", ".j2"))


def _holders(values: dict[Any, Any]) -> Iterator[dict[Any, Any]]:
    yield values
    for place in (("datasets",), ("test_datasets",), ("dedupe", "against")):
        entries = value_at(values, place)
        yield from (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _named_file(text: Any, folder: Path) -> Path | None:
    if not isinstance(text, str) or not text or len(text) > _LONGEST_NAME or set(text) & set("{}\n\0"):
        return None
    file = folder / Path(text).expanduser()
    return file if file.is_file() else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RegrowError(f"{_KEY}: {file} cannot be read as text: {error}.", "Name a file that holds a Jinja template in UTF-8.") from None
