"""The chat templates that regrow knows by name: Jinja text for the format that models of that name were made with.

Each is a file ``NAME.jinja``. What several share is written once under ``parts/`` and put in place of the line that includes it,
because the text is saved with the tokenizer and must stand alone.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
_SAME = {"aya": "cohere", "gemma4_unified": "gemma4"}
"""Two names for one format."""
_INCLUDE = re.compile(r"\{%- include '([a-z0-9_/.]+)' %\}")

NAMES: tuple[str, ...] = tuple(sorted({*_SAME, *(file.stem for file in _FOLDER.glob("*.jinja"))}))
"""Every built-in template's name."""


@cache
def built_in(name: str) -> str:
    """The text of a built-in chat template; ``name`` is one of :data:`NAMES`."""
    return _read(f"{_SAME.get(name, name)}.jinja").strip() + "\n"


def _read(file: str) -> str:
    """A file's text with everything it includes, without the last line break."""
    text = (_FOLDER / file).read_text(encoding="utf-8").removesuffix("\n")
    return _INCLUDE.sub(lambda include: _read(include[1]), text)
