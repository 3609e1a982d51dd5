"""Options as the text of a params.yaml, in the order of the file they come from, with its comments."""

from __future__ import annotations

import io
from typing import Any

from pipeline.options.json_schema import HEADER
from pipeline.options.reading.source import Source


def written(source: Source, original: str) -> str:
    """The values of ``source`` as YAML. Comment lines that stand above a top-level key of ``original`` stay there."""
    lines = original.splitlines()
    order = sorted(source.value, key=lambda key: source.lines.get((key,), len(lines) + 1))
    blocks = [_comments(lines, source.lines.get((key,), 0)) + _block(key, source.value[key]) for key in order]
    return HEADER + "\n" + "".join(blocks)


def _comments(lines: list[str], line: int) -> str:
    """Comment lines and the empty lines among them, right above ``line`` (1-based); none for keys that are new."""
    first = line - 1
    while first > 0 and (lines[first - 1].startswith("#") or not lines[first - 1].strip()):
        first -= 1
    kept = [text for text in lines[max(first, 0) : max(line - 1, 0)] if not text.startswith("# yaml-language-server")]
    return "".join(f"{text}\n" for text in kept)


def _block(key: str, value: Any) -> str:
    from ruamel.yaml import YAML

    yaml = YAML(typ="rt", pure=True)
    yaml.default_flow_style = False
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump({key: _plain(value)}, stream)
    return stream.getvalue()


def _plain(value: Any) -> Any:
    """Long texts as blocks, lists of plain values in one line."""
    from ruamel.yaml.comments import CommentedSeq
    from ruamel.yaml.scalarstring import LiteralScalarString

    if isinstance(value, str) and "\n" in value:
        return LiteralScalarString(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        items = CommentedSeq([_plain(item) for item in value])
        if not any(isinstance(item, dict | list) or (isinstance(item, str) and "\n" in item) for item in value):
            items.fa.set_flow_style()
        return items
    return value
