"""docs/lineage.md shows what the commands print."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli import app

PAGE = Path(__file__).parent.parent.parent / "docs" / "lineage.md"
EXAMPLES = re.findall(r"```console\n\$ regrow (.*)\n([\s\S]*?)```", PAGE.read_text(encoding="utf-8"))
FLOAT = re.compile(r"\d+\.\d+")
"""A loss may differ in its last digits from processor to processor."""


@pytest.mark.parametrize(("command", "output"), EXAMPLES, ids=[command for command, _ in EXAMPLES])
def test_an_example(here: Path, command: str, output: str) -> None:
    result = CliRunner().invoke(app, command.split(), env={"COLUMNS": "200"}, catch_exceptions=False)
    assert FLOAT.sub("#", result.stdout.strip()) == FLOAT.sub("#", output.strip())
