"""DeepSpeed's settings in a JSON file: they take the place of its name, and with it decide identity."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.errors import RegrowError
from pipeline.options.reading.source import Source

_KEY = "deepspeed"
_LARGEST = 2**20
_WORKS = "Name a file that holds a JSON object, or write the settings themselves."


def read_settings_file(source: Source, folder: Path) -> tuple[Path, ...]:
    """Replace a ``deepspeed`` that names a file (relative to ``folder``) by what it holds; returns the file.

    Raises:
        RegrowError: it is no JSON object.
    """
    name = source.value.get(_KEY)
    if not isinstance(name, str) or not name or "\0" in name:
        return ()
    file = folder / Path(name).expanduser()
    try:
        if not file.is_file():
            return ()  # told with its line, by a rule
        text = file.read_bytes()[:_LARGEST].decode("utf-8-sig")
        settings = json.loads(text, parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise RegrowError(f"{_KEY}: {name} cannot be read as JSON: {error}.", _WORKS) from None
    if not isinstance(settings, dict):
        raise RegrowError(f"{_KEY}: {name} holds {type(settings).__name__} and no object.", _WORKS)
    source.value[_KEY] = settings
    return (file,)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
