"""For every option that train reads there is a test that shows what it does, or the refusal that it ends in."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from pipeline.options.catalogue import catalogue
from pipeline.options.reading.wording import models_in
from pipeline.options.views import TrainOptions


def shown() -> Iterator[str]:
    """Names in ``@pytest.mark.shows("name", ...)`` of this folder."""
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.shows":
                yield from (argument.value for argument in node.args if isinstance(argument, ast.Constant))


def working() -> set[str]:
    """Options that train reads, those in groups by their whole name."""
    found = [option for option in catalogue().values() if option.place.partition(".")[0] in TrainOptions.model_fields]
    return {option.place for option in found if option.facts.is_read and not models_in(option.field.annotation)}


def test_every_option_is_shown() -> None:
    names = set(shown())
    assert names == working(), f"not shown: {sorted(working() - names)}; no such option: {sorted(names - working())}"
