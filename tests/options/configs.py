"""Configs that the tests of the options start from."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline.errors import RegrowError
from pipeline.options.reading.source import parse
from pipeline.options.recipe import Recipe, check_source, load_recipe

GOOD = """\
base_model: ./base
datasets:
  - path: rows.jsonl
    type: chat_template
learning_rate: 2e-4
"""

PROBLEM = re.compile(r"params\.yaml:(?P<line>\d+): (?P<key>[^:]+): (?P<rest>.*; .*)")


def accepted(text: str) -> Recipe:
    """The recipe of a config that must be right."""
    return check_source(parse(text, "params.yaml"))


def refused(text: str) -> list[tuple[int, str, str]]:
    """Line, key and the rest of every problem of a config that must be wrong."""
    with pytest.raises(RegrowError) as caught:
        accepted(text)
    assert caught.value.exit_code == 2
    found = [PROBLEM.fullmatch(line) for line in str(caught.value).splitlines()]
    assert all(found), str(caught.value)
    return [(int(match["line"]), match["key"], match["rest"]) for match in found if match]


def message(folder: Path, text: str) -> str:
    """What the user reads when ``text`` is a params.yaml that must be wrong."""
    path = folder / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RegrowError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2
    return str(caught.value)
